"""Samplers side by side on laws that are known: what is a budget of evaluations worth?

A chain of so many evaluations of the energy, a gradient counted as one, gives one estimate m of the
mean of f, whose truth and variance are known. Chains begin in exact draws. With

    effective draws = Var f / E (m - truth)^2                                                 (1)

as many exact independent draws would be wrong by as much. A bias is counted with it, so that those
that never reject are judged as the others are; a chain that never leaves its start is worth one.

Protocol, the same for all: every setting of a printed grid runs side by side on a pilot's chains;
the one with the most effective draws beyond the first, of the worst f and for an evaluation, is
chosen; fresh chains, eight times as many, measure it.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import energies, samplers
from ebmref.samplers import Kernel

# Standard deviations of a move: of the walk its step, of Langevin the root of h, of HMC the step.
SCALES = tuple(0.06 * 1.75 ** (k / 2) for k in range(22))
NEAR = SCALES[:16]  # in many dimensions, where nothing longer is accepted
LONG = SCALES[3:16]  # of NUTS, all of whose chains wait for the longest path
LENGTHS = (4, 12, 36)  # of HMC, in leapfrog steps
FRESH = (5, 20)  # proposals of i-SIR and Ex2MCMC
LADDERS = (3, 5)  # temperatures of tempering, evenly in log beta down to 0.05
FRESH_CHAINS = 8  # that measure, for each chain of the pilot
MANY = 200_000  # exact draws, for the truth
_BLOCK_BYTES = 1 << 24


class Law(NamedTuple):
    """An energy whose law is known.

    Attributes:
        energy, sample: itself, and exact draws of it.
        wide: a law for global moves to propose from.
        judged: how many coordinates are, the first ones. Others are like one of them, or, as those
            of the funnel, so heavy in their tails that a mean of their squares tells nothing.
        many: whether it has more than three dimensions.
    """

    energy: energies.Energy
    sample: Callable[[int, torch.Generator], Tensor]
    wide: samplers.Proposal
    judged: int = 2
    many: bool = False


class Truth(NamedTuple):
    """Of the f's: x_k and x_k^2 of the judged coordinates, then the energy; `(2 k + 1,)` each."""

    mean: Tensor
    variance: Tensor


def tests(x: Tensor, energy: Tensor, k: int) -> Tensor:
    """The f's of points `(n, d)` with energies `(n,)`, of k coordinates: `(n, 2 k + 1)`."""
    x = x[:, :k]
    return torch.cat([x, x.square(), energy[:, None]], 1)


def truth(law: Law, generator: torch.Generator, n: int = MANY) -> Truth:
    """By exact draws, whose error is that of n of them."""
    x = law.sample(n, generator)
    f = tests(x, law.energy(x), law.judged)
    return Truth(f.mean(0), f.var(0))


class Race(NamedTuple):
    """What chains of each setting made of the same number of steps.

    Attributes:
        means: of the f's over each chain, `(settings, chains, f)`.
        spent: evaluations a chain, `(settings,)`; of NUTS the mean of its own paths.
        acceptance: `(settings,)`.
    """

    means: Tensor
    spent: Tensor
    acceptance: Tensor


def race(
    kernel: Kernel, x0: Tensor, n_steps: int, scales: Tensor, generator: torch.Generator, judged=2
) -> Race:
    """Run the chains of every step size at once: x0 `(n, d)` once for each of scales `(s,)`.

    A step may be of shape `(chains, 1)` in the place of the number that `sample` gives: it only
    ever multiplies events.
    """
    n, s = len(x0), len(scales)
    state = kernel.init(x0.repeat(s, 1), generator)
    step = scales.repeat_interleave(n)[:, None]
    if hasattr(state, "xs"):  # replicas: one row for each temperature of a chain
        step = step.repeat_interleave(state.xs.shape[1], 0)
    total = torch.zeros_like(tests(state.x, state.energy, judged))
    taken = torch.zeros_like(state.energy)
    width = kernel.n_noise * state.x.numel() * state.x.element_size()
    block = max(1, min(n_steps, _BLOCK_BYTES // width))
    for begin in range(0, n_steps, block):
        noise = kernel.draw(min(block, n_steps - begin), state.x, generator)
        for one in zip(*(part.unbind(0) for part in noise), strict=True):
            state, acceptance = kernel.step(state, one, step)
            total += tests(state.x, state.energy, judged)
            taken += acceptance
    if hasattr(state, "n_leapfrog"):
        spent = state.n_leapfrog.view(s, n).to(total).mean(1)
    else:
        spent = torch.full_like(scales, n_steps * (kernel.n_gradients + kernel.n_energies))
    means = (total / n_steps).view(s, n, -1)
    return Race(means, spent, (taken / n_steps).view(s, n).mean(1))


class Worth(NamedTuple):
    """Effective draws of one chain, with standard errors, each `(..., f)`."""

    draws: Tensor
    se: Tensor


def worth(means: Tensor, law: Truth) -> Worth:
    """Equation (1) of chain means `(..., n, f)`; the error is that of a mean of n squares."""
    square = (means - law.mean).square()
    mean = square.mean(-2)
    draws = law.variance / mean
    return Worth(draws, draws * square.std(-2) / mean / math.sqrt(means.shape[-2]))


def deviation(means: Tensor, law: Truth) -> Tensor:
    """|mean - truth| of chain means `(n, f)` in standard errors, those of both: `(f,)`."""
    error = means.var(0) / len(means) + law.variance / MANY
    return (means.mean(0) - law.mean).abs() / error.sqrt()


def worst(draws: Tensor) -> Tensor:
    """Of `(..., 2 k + 1)`, the fewest of x, of x^2 and of the energy: `(..., 3)`."""
    k = draws.shape[-1] // 2
    return torch.stack([draws[..., :k].amin(-1), draws[..., k:-1].amin(-1), draws[..., -1]], -1)


class Result(NamedTuple):
    """A kernel at its best setting.

    Attributes:
        scale: its step, as in `SCALES`; nan where it has none.
        length: leapfrog steps; 0 where it has none.
        acceptance: with fresh chains.
        per_thousand: effective draws of the worst x, the worst x^2 and the energy for 1000
            evaluations, `(3,)`, and se, `(3,)`.
        all_draws: the same of one whole chain, for every f.
        means: of the fresh chains, `(n, f)`.
        edge: whether the best scale was the least or the greatest of the grid, so that a better
            one may lie beyond.
    """

    scale: float
    length: int
    acceptance: float
    per_thousand: Tensor
    se: Tensor
    all_draws: Tensor
    means: Tensor
    edge: bool


class Entry(NamedTuple):
    """A kernel that enters the race: `makes` and `power` as for `tune`, and its scales."""

    makes: Mapping[int, Callable[[float], Kernel]]
    power: int = 1
    scales: tuple[float, ...] = SCALES


def entries(law: Law) -> dict[str, Entry]:
    """Ten kernels with all their settings; those with a star never reject."""
    e, q = law.energy, law.wide
    steps = NEAR if law.many else SCALES
    ladders = {k: tuple(0.05 ** (i / (k - 1)) for i in range(k)) for k in LADDERS}
    return {
        "random walk": Entry({0: lambda s: samplers.random_walk(e, s)}, 1, steps),
        "ULA *": Entry({0: lambda h: samplers.ula(e, h)}, 2, steps),
        "MALA": Entry({0: lambda h: samplers.mala(e, h)}, 2, steps),
        "HMC": Entry({n: lambda s, n=n: samplers.hmc(e, s, n) for n in LENGTHS}, 1, steps),
        "NUTS": Entry({0: lambda s: samplers.nuts(e, s, 6)}, 1, LONG),
        "kinetic *": Entry({0: lambda s: samplers.kinetic_langevin(e, s)}, 1, steps),
        "independence": Entry({0: lambda s: samplers.independence(e, q)}),
        "i-SIR": Entry({n: lambda s, n=n: samplers.isir(e, q, n) for n in FRESH}),
        "Ex2MCMC": Entry(
            {n: lambda h, n=n: samplers.ex2mcmc(e, q, h, n, 2) for n in FRESH}, 2, steps
        ),
        "tempering": Entry(
            {k: lambda h, b=b: samplers.parallel_tempering(e, h, b) for k, b in ladders.items()},
            2,
            steps,
        ),
    }


def normal(sd: Tensor) -> Law:
    """Independent normal coordinates of deviations sd `(d,)`; `wide` is 1.3 times as wide."""
    zero = torch.zeros_like(sd)
    exact = energies.Gaussian(zero, torch.diag(sd.square()))
    wide = energies.Gaussian(zero, torch.diag((1.3 * sd).square()))
    return Law(exact, exact.sample, wide, many=len(sd) > 3)


def zoo(like: dict) -> dict[str, Law]:
    """Six laws that are known exactly; like: dtype and device."""
    zeros, corner = torch.zeros(2, **like), torch.tensor([-2.0, 2.0], **like)
    corners = torch.cartesian_prod(corner, corner)
    planar = {
        "mixture": energies.GaussianMixture(corners, torch.full((4,), 0.6, **like)),
        "two moons": energies.two_moons(zeros),
        "ring": energies.Ring(zeros),
    }
    funnel = energies.Funnel(torch.zeros(3, **like), 2.0)

    def wide(d, scale):
        return energies.Gaussian(torch.zeros(d, **like), scale**2 * torch.eye(d, **like))

    return {
        **{name: Law(e, e.sample, wide(2, 3.0)) for name, e in planar.items()},
        "funnel": Law(funnel, funnel.sample, wide(3, 4.0), 1),
        "round, 50-d": normal(torch.ones(50, **like)),
        "stretched, 50-d": normal(torch.logspace(1, 0, 50, **like)),
    }


def ridge(n_narrow: int, length: float, like: dict) -> Law:
    """A normal law of deviation `length` along one coordinate and 1 along n_narrow others."""
    sd = torch.ones(n_narrow + 1, **like)
    sd[0] = length
    return normal(sd)


def patience(n_narrow: int, length: float) -> int:
    """Budgets that chains on a ridge get: more than the few draws that a start is worth."""
    if n_narrow == 1:
        return 2
    return 12 if length > 3 else 4


class Gain(NamedTuple):
    """Effective draws of the worst f for 1000 evaluations: MALA's over the walk's.

    Attributes:
        log: its logarithm, with se.
        walk, mala: what each chose.
    """

    log: float
    se: float
    walk: Result
    mala: Result


def gain(law: Law, n_chains: int, budget: int, generator: torch.Generator) -> Gain:
    """Of the gradient, both kernels tuned by the protocol."""
    known, field = truth(law, generator), entries(law)
    walk, mala = (
        tune(*field[name][:2], law, known, n_chains, budget, generator, field[name].scales)
        for name in ("random walk", "MALA")
    )
    ratio, se = over(mala, walk)
    return Gain(math.log(ratio), se / ratio, walk, mala)


def over(one: Result, other: Result) -> tuple[float, float]:
    """Effective draws of the worst f for an evaluation, one's over the other's, with its error."""
    (a, da), (b, db) = least(one), least(other)
    return a / b, a / b * math.hypot(da / a, db / b)


def least(one: Result) -> tuple[float, float]:
    """Effective draws for 1000 evaluations of the worst f, with their error."""
    k = int(one.per_thousand.argmin())
    return float(one.per_thousand[k]), float(one.se[k])


def tune(
    makes: Mapping[int, Callable[[float], Kernel]], power: int, law: Law, known: Truth,
    n_chains: int, budget: int, generator: torch.Generator, scales: tuple[float, ...] = SCALES,
) -> Result:  # fmt: skip
    """The protocol at the head of this module, for one kernel and one law.

    Args:
        makes: by path length (0: none to choose), a kernel for a step size.
        power: the step size is this power of a scale: 2 for Langevin's h.
        budget: evaluations a chain, in the pilot and again after it.
    """
    like = law.sample(1, generator)
    best = None
    for length, make in makes.items():
        grid = torch.tensor(scales, dtype=like.dtype, device=like.device)
        kernel = make(1.0)
        if kernel.step_size is None:
            grid = grid[:1]
        x0 = law.sample(n_chains, generator)
        found = race(kernel, x0, _steps(kernel, budget), grid**power, generator, law.judged)
        # Beyond the first, which the start gives for nothing: else the best is to stay and save.
        rate = (worth(found.means, known).draws.amin(-1) - 1) / found.spent
        k = int(rate.argmax())
        if best is None or rate[k] > best[0]:
            edge = kernel.step_size is not None and k in (0, len(grid) - 1)
            best = rate[k], length, grid[k : k + 1], edge, found.spent[k]
    _, length, scale, edge, spent = best
    kernel = makes[length](1.0)
    n_steps = _steps(kernel, budget)
    if kernel.name == "nuts":  # as long a chain as the budget buys of the paths that it takes
        n_steps = max(4, int(n_steps * budget / float(spent)))
    x0 = law.sample(FRESH_CHAINS * n_chains, generator)
    found = race(kernel, x0, n_steps, scale**power, generator, law.judged)
    got = worth(found.means[0], known)
    per = 1000 / float(found.spent)
    least = worst(got.draws)
    # The error of the one that is the worst.
    k = len(got.draws) // 2
    at = (
        int(got.draws[:k].argmin()), k + int(got.draws[k:-1].argmin()), len(got.draws) - 1
    )  # fmt: skip
    return Result(
        float(scale) if kernel.step_size is not None else math.nan,
        length, float(found.acceptance), per * least, per * got.se[list(at)], got.draws,
        found.means[0], edge,
    )  # fmt: skip


def _steps(kernel: Kernel, budget: int) -> int:
    if kernel.name == "nuts":
        return max(4, budget // 15)  # a guess; the chain that is judged is as long as it may be
    return budget // (kernel.n_gradients + kernel.n_energies)
