"""Learned energies are right where data are, and off them what the way to learn makes of them.

The loss of every way is a mean over data, and over points that it chooses itself. Where neither
are, an energy is what its network happens to be there. Where points are but no data, it is learned
that the energy is high, and not how high: e^{-E} of 20 and of 50 are alike nothing to a sum, and
to a draw's log-odds of being a datum.

    ways      likelihood, noise contrast, score matching, kept chains; and other noises alone
    heights   |E - E_true - constant| by how much of the law is where the density is higher
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ebmbook.lab.likelihood import Entry, entries, network
from ebmbook.lab.plane import Law, scores
from ebmref import likelihood as L
from ebmref import training
from ebmref.energies import Box, Gaussian

# Shares of the law that is within; beyond the last one there are no data to speak of.
SHARES = (0.5, 0.9, 0.99, 0.9999)


def ways(law: Law, data: Tensor, *, reach: float = 4.0) -> dict[str, Entry]:
    """Four ways to learn, and noise contrast with the noise alone or nu alone changed.

    "NCE, near noise" is of half the data's deviation, "NCE, far noise" of five times that.

    Args:
        reach: of the grid, over which "NCE, uniform noise" has its draws.
    """
    found = entries(law, data)
    noise = Gaussian(data.mean(0), data.T.cov())
    near, even = Gaussian(data.mean(0), data.T.cov() / 4), Box(data[0], -reach, reach)
    rates = found["NCE"][1:]
    return {
        **{name: found[name] for name in ("exact", "score matching", "PCD, jumps", "NCE")},
        "NCE, nu 32": Entry(L.noise_contrastive(noise, 32), *rates),
        "NCE, near noise": Entry(L.noise_contrastive(near, 4), *rates),
        "NCE, far noise": found["NCE, far noise"],
        "NCE, uniform noise": Entry(L.noise_contrastive(even, 4), *rates),
    }


class Heights(NamedTuple):
    """Energies of k models beside the true one, in b bands of the plane, innermost first.

    Both are heights over their means over the law, so that no constant is left. Means over a band
    are over its area.

    Attributes:
        area: of each band, `(b,)`.
        truth: mean true height, `(b,)`.
        learned: mean height of each model, `(b, k)`.
        error: mean |difference|, `(b, k)`.
        kl: KL(law || model), `(k,)`.
    """

    area: Tensor
    truth: Tensor
    learned: Tensor
    error: Tensor
    kl: Tensor


def bands(law: Law, shares: tuple[float, ...] = SHARES) -> Tensor:
    """Which band each point of the grid is in, `(m,)` in 0 .. b - 1, b = len(shares) + 1.

    A share q of the law is where the density is above some level; the bands lie between the levels
    of the shares, and the last one is all the rest of the grid.

    Args:
        shares: increasing, in (0, 1).

    Raises:
        ValueError: others, or levels that the grid is too coarse for.
    """
    if not shares or sorted(set(shares)) != list(shares) or not 0 < shares[0] <= shares[-1] < 1:
        raise ValueError(f"shares: expected numbers in (0, 1) that increase; got {shares}")
    order = law.log_p.argsort(descending=True)
    within = (law.log_p[order].exp() * law.cell).cumsum(0)
    # By the mass above a point, so that the likeliest one is in the first band.
    above = torch.cat([within.new_zeros(1), within[:-1]]) / within[-1]
    place = torch.bucketize(above, above.new_tensor(shares), right=True)
    if len(place.unique()) != len(shares) + 1:
        raise ValueError("shares: the grid has no point between some of their levels")
    return torch.empty_like(place).scatter_(0, order, place)


@torch.no_grad()
def heights(law: Law, energy, shares: tuple[float, ...] = SHARES) -> Heights:
    """Of k energies that take points `(m, 2)` to `(k, m)`.

    Args:
        law: with a density that is above zero all over its grid.

    Raises:
        ValueError: another law; shares that `bands` refuses.
    """
    if not law.log_p.isfinite().all():
        raise ValueError(f"law: expected a density above zero on all the grid; got {law.name}")
    band = bands(law, shares)
    p = law.log_p.exp() / law.log_p.exp().sum()
    values = torch.cat([energy(part) for part in law.points.split(4096)], -1).double()
    learned = values - (values @ p)[:, None]
    truth = -law.log_p + law.log_p @ p
    inside = torch.nn.functional.one_hot(band).double()
    share = inside / inside.sum(0)
    return Heights(
        inside.sum(0) * law.cell,
        truth @ share,
        (learned @ share).T,
        ((learned - truth).abs() @ share).T,
        scores(law, energy).kl,
    )


def learned(
    law: Law, chosen: Mapping[str, Entry], data: Tensor, n_steps: int, n_models: int, seed: int, *,
    hidden: tuple[int, ...] = (64, 64), batch: int = 256, shares: tuple[float, ...] = SHARES,
) -> dict[str, Heights]:  # fmt: skip
    """Train k models by each way in as many steps, from the same weights on, and look at them.

    Steps are not of one price: those of nu = 32 take some six times as many points as of nu = 4.

    Args:
        chosen: of `ways`.
        data: `(n, 2)`, on the device of the law.
    """
    found = {}
    for name, entry in chosen.items():
        recipe = L.Recipe(batch, entry.learning_rate, entry.constant_rate, anneal_over=n_steps)
        net = network(n_models, seed, hidden=hidden, device=data.device)
        learner = L.Learner(net, entry.method, recipe, seed, n_models)
        training.bring(learner, n_steps, data=data)
        found[name] = heights(law, learner.model(), shares)
    return found
