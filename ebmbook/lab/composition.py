"""Learned energies put together: and, or, not; with the exact laws beside them, by quadrature.

    and    E1 + E2                                       the law of p1 p2
    or     -log(w e^{c1 - E1} + (1 - w) e^{c2 - E2})     the mixture; c = -log Z has to be known
    not    E1 - gamma E2                                 the law of p1 p2^-gamma

    pair          a ring and a bar across it
    learn         k energies of each: by noise contrast, which learns c too, or by likelihood
    compose       the three, of what was learned
    diffused      what the sum of energies of blurred laws is an energy of
    sampled       chains under the sum: their bias, by step size

k models of each of the two laws stand side by side, and are put together one by one.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmbook.lab.likelihood import network
from ebmbook.lab.likelihood_exact import Estimate
from ebmbook.lab.plane import LAWS
from ebmref import likelihood as L
from ebmref import training
from ebmref.energies import Gaussian
from ebmref.outcomes import log_partition, plane_grid
from ebmref.samplers import mala, sample, ula
from ebmref.seeds import derive_seed

DOUBLE = torch.float64
WAYS, NOISES = ("NCE", "exact"), ("own", "shared")


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


# Two laws ----------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two laws of the plane whose supports meet, on a grid of m = n_side^2 points.

    Attributes:
        laws: each has `sample(n, generator)` and `log_prob(x)`, in single precision.
        points: `(m, 2)`, each for a cell of area `cell`.
        log_p: `(2, m)`, in double precision.
        region: `(m,)`, the half plane whose mass is looked at.
    """

    laws: tuple
    points: Tensor
    cell: float
    log_p: Tensor
    region: Tensor

    @property
    def overlap(self) -> float:
        """The integral of the lower one of both densities, in [0, 1]."""
        return float(self.log_p.amin(0).exp().sum() * self.cell)


def pair(device="cpu", *, centre: float = 1.0, reach: float = 5.0, n_side: int = 100) -> Pair:
    """The ring of `lab.plane`, and a bar across it, a Gaussian about (centre, 0).

    The ring has a radius of two: a bar at one meets it in several modes, one at three is beyond it.
    What lies beyond the grid does not count.
    """

    def made(dtype):
        like = torch.zeros((), dtype=dtype, device=device)
        bar = Gaussian(like.new_tensor([centre, 0.0]), like.new_tensor([0.4, 1.5]).diag())
        return LAWS["ring"](like, 0.0)[0], bar

    points, cell = plane_grid(reach, n_side, device)
    log_p = torch.stack([law.log_prob(points.double()) for law in made(DOUBLE)])
    return Pair(made(torch.float32), points, cell, log_p, points[:, 1] > 0)


class Learned(NamedTuple):
    """k energies of each of the two laws.

    Attributes:
        models: two, of `(n, 2)` or `(k, n, 2)` to `(k, n)`.
        values: at the grid's points, `(2, k, m)`, in double precision.
        constant: c, learned, `(2, k)`; None where it was not.
        log_z: by quadrature, `(2, k)`.
        kl: KL(law || model), `(2, k)`.
    """

    models: tuple[nn.Module, nn.Module]
    values: Tensor
    constant: Tensor | None
    log_z: Tensor
    kl: Tensor


def learn(
    given: Pair, n_data: int, n_models: int, n_steps: int, seed: int, *, way: str = "NCE",
    noise: str = "shared", learning_rate: float = 3e-2, hidden: tuple[int, ...] = (64, 64),
    batch: int = 256,
) -> Learned:  # fmt: skip
    """Learn both laws from n_data draws of each.

    Args:
        way: "NCE", four draws of noise for each datum; or "exact", the likelihood with Z
            summed over the grid, by which an energy can have any constant.
        noise: "own", a Gaussian of the moments of each law's data; or "shared", one of the data of
            both together, so that each energy learns to be high where only the other law is.

    Raises:
        ValueError: an unknown way or noise.
    """
    for name, value, known in (("way", way, WAYS), ("noise", noise, NOISES)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}; got {value!r}")
    device = given.points.device
    draws = _source(seed, "data", device)
    data = [law.sample(n_data, draws) for law in given.laws]
    models, constants = [], []
    for i, x in enumerate(data):
        seen = x if noise == "own" else torch.cat(data)
        other = Gaussian(seen.mean(0), seen.T.cov())
        grid = L.exact(L.on_grid(given.points, given.cell), len(given.points))
        method = L.noise_contrastive(other, 4) if way == "NCE" else grid
        recipe = L.Recipe(batch, learning_rate, average=0.995, anneal_over=n_steps)
        own = derive_seed(seed, f"factor-{i}")
        net = network(n_models, own, hidden=hidden, device=device)
        learner = L.Learner(net, method, recipe, own, n_models)
        training.bring(learner, n_steps, data=x)
        models.append(learner.model())
        if way == "NCE":
            constants.append(learner.memory.value.detach().double())
    with torch.no_grad():
        values = torch.stack([model(given.points).double() for model in models])
    log_z = log_partition(values, given.cell)
    kl = _kl(given.log_p[:, None], -values - log_z[..., None], given.cell)
    constant = torch.stack(constants) if constants else None
    return Learned(tuple(models), values, constant, log_z, kl)


def _kl(log_p: Tensor, log_q: Tensor, cell: float) -> Tensor:
    """By quadrature along the last axis; where p has left the numbers it counts for nothing."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p.clamp(min=-1e3) - log_q), 0.0).sum(-1) * cell


def _normalised(log_p: Tensor, cell: float) -> Tensor:
    return log_p - log_p.logsumexp(-1, keepdim=True) - math.log(cell)


# And, or, not ------------------------------------------------------------------------------------


class Composed(NamedTuple):
    """A composition of each of k pairs of energies, beside that of the laws.

    Attributes:
        kl: KL(exact composed law || composed energies), `(k,)`.
        share: the model's mass in the region, `(k,)`.
        exact: the composed law's.
        first: of "or", the weight that the first law has, `(k,)`; None of others.
    """

    kl: Tensor
    share: Tensor
    exact: float
    first: Tensor | None = None


def compose(
    given: Pair, learned: Learned, *, gamma: float = 0.5, weight: float = 0.5
) -> dict[str, Composed]:
    """The compositions by name, each put together from energies and normalised on the grid.

    "or" has the learned constants, where there are any, "or, log Z" those by quadrature, and "or,
    no constants" none: the weights of the mixture are then those of its parts times their Z.

    Args:
        gamma: of "not", in (0, 1), where the bowl of E1 is steeper than what is taken off.
        weight: of the first law in "or", in (0, 1).

    Raises:
        ValueError: one that is not in (0, 1).
    """
    for name, value in {"gamma": gamma, "weight": weight}.items():
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected in (0, 1); got {value}")
    one, two = learned.values
    log_p, log_q = given.log_p
    shares = given.log_p.new_tensor([weight, 1 - weight]).log()[:, None, None]
    mixed = (given.log_p + shares[:, 0]).logsumexp(0)
    found = {
        "and": _composed(given, log_p + log_q, one + two),
        "not": _composed(given, log_p - gamma * log_q, one - gamma * two),
    }
    levels = {} if learned.constant is None else {"or": learned.constant}
    levels |= {
        "or, log Z": -learned.log_z, "or, no constants": torch.zeros_like(learned.log_z)
    }  # fmt: skip
    for name, level in levels.items():
        terms = level[..., None] - learned.values + shares
        mass = (level + learned.log_z + shares[..., 0]).softmax(0)
        found[name] = _composed(given, mixed, -terms.logsumexp(0))._replace(first=mass[0])
    return found


def _composed(given: Pair, log_p: Tensor, energy: Tensor) -> Composed:
    log_p, log_q = (_normalised(x, given.cell) for x in (log_p, -energy))
    inside = [x.exp()[..., given.region].sum(-1) * given.cell for x in (log_q, log_p)]
    return Composed(_kl(log_p, log_q, given.cell), inside[0], float(inside[1]))


# Blurred laws ------------------------------------------------------------------------------------


def blurred_precisions(s: float, t: float, sigmas: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Of Gaussians of variances s and t about one mean, each blurred by sigma, and put together.

    Returns:
        The precision of the sum of the energies of the blurred laws, 1 / (s + sigma^2) +
        1 / (t + sigma^2); and that of the blurred product, 1 / (1 / (1 / s + 1 / t) + sigma^2):
        `(len(sigmas),)` each.

    Raises:
        ValueError: a variance that is not > 0.
    """
    if not s > 0 or not t > 0:
        raise ValueError(f"s, t: expected variances > 0; got {s} and {t}")
    squared = torch.tensor(sigmas, dtype=DOUBLE).square()
    return 1 / (s + squared) + 1 / (t + squared), 1 / (1 / (1 / s + 1 / t) + squared)


class Diffused(NamedTuple):
    """For each sigma, `(len(sigmas),)` each.

    Attributes:
        kl: KL(blurred product || law of the sum of the energies of the blurred laws).
        share, right: mass in the region of the latter and of the former.
    """

    kl: Tensor
    share: Tensor
    right: Tensor


def diffused(given: Pair, sigmas: tuple[float, ...]) -> Diffused:
    """The exact laws blurred, and put together by the sum of their energies, on the grid.

    What denoising learns at sigma is the energy of a blurred law. A sum of such is what one has of
    two of them; the blurred product is what a diffusion to the product passes through.
    """
    n_side = math.isqrt(len(given.points))
    along = given.points[:n_side, 1].double()
    product = _normalised(given.log_p.sum(0), given.cell)
    found = []
    for sigma in sigmas:
        # Along one axis after the other; columns sum to one but where mass leaves the grid.
        near = (-0.5 * ((along[:, None] - along) / sigma).square()).exp()
        near = near / (sigma * math.sqrt(2 * math.pi)) * (along[1] - along[0])

        def blur(log_p: Tensor, near=near) -> Tensor:
            return (near @ log_p.exp().view(n_side, n_side) @ near.T).flatten().log()

        right = _normalised(blur(product), given.cell)
        summed = _normalised(blur(given.log_p[0]) + blur(given.log_p[1]), given.cell)
        masses = [x.exp()[given.region].sum() * given.cell for x in (summed, right)]
        found.append(torch.stack([_kl(right, summed, given.cell), *masses]))
    return Diffused(*torch.stack(found, 1))


# Chains under the sum ----------------------------------------------------------------------------


class Sampled(NamedTuple):
    """Of ULA and MALA by step size; `(len(step_sizes), k)` but the first.

    Attributes:
        exact: mean of E1 + E2 under its law, by quadrature, `(k,)`.
        ula, mala: means over chains, less the exact one.
        acceptance_rate: of MALA.
    """

    exact: Tensor
    ula: Estimate
    mala: Estimate
    acceptance_rate: Tensor


def sampled(
    given: Pair, learned: Learned, step_sizes: tuple[float, ...], n: int, n_steps: int, seed: int
) -> Sampled:  # fmt: skip
    """Chains under E1 + E2 from draws of its law on the grid: what they lose is the kernel's bias.

    Args:
        n: chains for each of k models.
    """
    summed, k = learned.values.sum(0), learned.values.shape[1]
    log_q = _normalised(-summed, given.cell)
    mass = log_q.exp() * given.cell
    exact = (mass * summed).sum(-1)
    draws = _source(seed, "and", given.points.device)
    at = torch.multinomial(mass, n, replacement=True, generator=draws)
    start = given.points[at].flatten(0, 1)
    within = torch.rand(start.shape, generator=draws, device=start.device) - 0.5
    start = start + math.sqrt(given.cell) * within

    def energy(x: Tensor) -> Tensor:
        """Of rows, those of each model in one piece."""
        return sum(model(x.unflatten(0, (k, -1))) for model in learned.models).flatten()

    found = {"ula": [], "mala": []}
    rates = []
    for step_size in step_sizes:
        for name, kernel in {"ula": ula, "mala": mala}.items():
            chain = sample(kernel(energy, step_size), start, n_steps, thin=n_steps, generator=draws)
            ends = chain.energy[0].double().view(k, n)
            se = ends.std(1) / math.sqrt(n)
            found[name].append(torch.stack([ends.mean(1) - exact, se]))
        rates.append(chain.acceptance_rate.view(k, n).mean(1))
    ways = (Estimate(*torch.stack(way, 1)) for way in found.values())
    return Sampled(exact, *ways, torch.stack(rates))
