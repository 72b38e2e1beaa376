"""How much room a latent variable has, and what is left of the energy.

A network g of one or more angles learns the ellipse by pulling alone, without a term that pushes
other answers up,

    min_g mean_i F_beta(y_i),   F_beta(y) = -1/beta log mean_z exp(-beta |y - g(z)|^2),

F_inf the least energy over z. With one angle g is a closed curve, with more it is as much of the
plane as training makes it, from random weights or, with `begin`, from a curve. `judge` asks how
the energy of the ellipse's empty middle, and of a box around all, compares with that of held-out
answers.
"""

import math
from typing import NamedTuple

import torch
from scipy.stats import rankdata
from torch import Tensor

from ebmref import data, inference, training
from ebmref.networks import Networks
from ebmref.seeds import derive_seed

# Grid points an angle; of three angles the grid has 1,728 points.
PER_ANGLE = {1: 128, 2: 32, 3: 12}


class Area(NamedTuple):
    """An area under the curve, and its standard error (Hanley and McNeil 1982)."""

    value: float
    se: float


def auc(of_data: Tensor, of_background: Tensor, *, digits: int = 9) -> Area:
    """How often the background `(m,)` has more energy than the data `(n,)`; ties count half.

    Args:
        digits: to which energies are rounded first, or the last bits of rounding, or what an
            inference has left, would be ranked.
    """
    n, m = len(of_data), len(of_background)
    ranks = rankdata(torch.cat([of_data, of_background]).double().cpu().numpy().round(digits))
    area = (ranks[n:].sum() - m * (m + 1) / 2) / (n * m)
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (m - 1) * (one - area**2) + (n - 1) * (two - area**2)
    return Area(float(area), float(max(spread / (n * m), 0.0) ** 0.5))


class Learned(NamedTuple):
    """k networks of d angles, at one temperature.

    Attributes:
        net: `(m, 2 d)`, cosines and sines, to `(k, m, 2)`.
        codes: the grid of z, `(m, 2 d)`.
        beta: one over temperature; inf for the least energy.
    """

    net: Networks
    codes: Tensor
    beta: float

    def energy(self, y: Tensor) -> Tensor:
        """F_beta of answers `(n, 2)`, the same for all networks, or `(k, n, 2)`: `(k, n)`.

        Cold, the best z of the grid is where a descent begins, so that no height is one of
        the grid's.
        """
        with torch.no_grad():
            points = self.net(self.codes)
            y = y.expand(len(points), -1, -1)
            table = _table(y, points)
        if math.isfinite(self.beta):
            return _free(table, self.beta)
        cosines, sines = self.codes[table.argmin(-1)].unflatten(-1, (-1, 2)).unbind(-1)
        z = torch.atan2(sines, cosines)

        def of_z(z: Tensor) -> Tensor:
            made = self.net(data.tips(z.view(*y.shape[:2], -1)).flatten(2))
            return (y - made).square().sum(-1).flatten()

        return inference.lbfgs_argmin(of_z, z.flatten(0, 1), 30).energy.view(y.shape[:2])


def grid(d: int, per_angle: int | None = None, device="cpu") -> Tensor:
    """Cosines and sines of every combination of d even angles, `(per_angle^d, 2 d)`."""
    n = per_angle or PER_ANGLE[d]
    z = torch.arange(float(n), device=device) * (2 * math.pi / n)
    return data.tips(torch.cartesian_prod(*[z] * d).view(-1, d)).flatten(1)


def learn(
    d: int, beta: float, k: int, n_steps: int, seed: int, *, push: float = 0.0,
    begin: Learned | None = None, per_angle: int | None = None, n: int = 500, width: int = 32,
    device="cpu",
) -> Learned:  # fmt: skip
    """Adam on batches of 64 of n answers of the horn's first ellipse, each network its own.

    With the same seed networks have the same answers and batches, whatever d and beta, and
    those of the same d the same first weights.

    Args:
        n_steps: >= 0; none leaves the first weights.
        begin: networks of d angles or fewer whose weights are the first ones; with those of an
            angle that they lack at zero, so that it has no effect at first.
        per_angle: points of the grid an angle, `PER_ANGLE` unless it is given.
        push: >= 0, the margin of a contrastive term: with it, the mean of max(0, push - F) over
            64 points of the box is added to the loss.
    """
    y, _ = data.horn(torch.zeros(k, n, device=device), _source(seed, "answers", device))
    net = Networks((2 * d, width, width, 2), k, _source(seed, f"net-{d}", device))
    if begin is not None:
        _copy(begin.net, net)
    codes, batches = grid(d, per_angle, device), _source(seed, "batches", device)
    negatives = _source(seed, "negatives", device)

    def free(batch: Tensor) -> Tensor:
        if math.isfinite(beta):
            return _free(_table(batch, net(codes)), beta)
        # By the envelope theorem the gradient is that of the nearest point, z held.
        with torch.no_grad():
            nearest = _table(batch, net(codes)).argmin(-1)
        return (batch - net(codes[nearest])).square().sum(-1)

    def loss() -> Tensor:
        pull = free(y[:, torch.randint(n, (64,), generator=batches, device=device)]).mean(-1)
        if not push:
            return pull
        return pull + (push - free(box_points(64, negatives).expand(k, -1, -1))).relu().mean(-1)

    if n_steps:
        for _ in training.fit(net, loss, n_steps, 1e-2, anneal=True):
            pass
    return Learned(net, codes, beta)


def _copy(small: Networks, large: Networks) -> None:
    """Weights of networks with fewer inputs, those of the other inputs at zero."""
    with torch.no_grad():
        for p, q in zip(small.parameters(), large.parameters(), strict=True):
            q.zero_()
            q[:, : p.shape[1]] = p


class Judged(NamedTuple):
    """Of k networks, `(k,)` each.

    Attributes:
        held_out: mean energy of fresh answers.
        box: area under the curve, a box around all against fresh answers.
        middle: the same of the ellipse's empty middle. Of both, energies that agree to 1e-4, a
            twenty-fifth of what the noise of an answer costs on average, are ties.
        height: median energy of the middle, less that of fresh answers.
    """

    held_out: Tensor
    box: Tensor
    middle: Tensor
    height: Tensor


def judge(learned: Learned, seed: int, *, n: int = 1000, device="cpu") -> Judged:
    """On n fresh answers and as many points of the box and of the middle."""
    source = _source(seed, "judged", device)
    y, _ = data.horn(torch.zeros(n, device=device), source)
    held_out, box, middle = (
        learned.energy(points) for points in (y, box_points(n, source), middle_points(n, source))
    )
    areas = [
        torch.tensor(
            [auc(low, high, digits=4).value for low, high in zip(held_out, other, strict=True)]
        )
        for other in (box, middle)
    ]
    height = middle.median(1).values - held_out.median(1).values
    return Judged(held_out.mean(1), *areas, height)


def box_points(n: int, source: torch.Generator) -> Tensor:
    """Even points of [-3, 3] x [-2.4, 2.4], `(n, 2)`."""
    even = torch.rand(n, 2, generator=source, device=source.device)
    return (2 * even - 1) * even.new_tensor([3.0, 2.4])


def middle_points(n: int, source: torch.Generator) -> Tensor:
    """Even points of the ellipse of 0.7 times the radii of the data, `(n, 2)`."""
    r, angle = torch.rand(2, n, generator=source, device=source.device)
    at = data.tips(2 * math.pi * angle) * data.horn_radii(angle.new_zeros(()))
    return 0.7 * r.sqrt()[:, None] * at


def _free(table: Tensor, beta: float) -> Tensor:
    """F_beta of energies on a grid, without the checks of `free_energy`, whose cost would double
    a step of training.
    """
    if math.isinf(beta):
        return table.amin(-1)
    return (math.log(table.shape[-1]) - (-beta * table).logsumexp(-1)) / beta


def _table(y: Tensor, points: Tensor) -> Tensor:
    """Squared distances, `(k, n, 2)` and `(k, m, 2)` to `(k, n, m)`, by one product."""
    squares = y.square().sum(-1)[..., None] + points.square().sum(-1)[:, None]
    return (squares - 2 * y @ points.transpose(1, 2)).clamp(min=0)


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, f"room-{stream}"))
