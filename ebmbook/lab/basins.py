"""Descents on an energy of several basins: where each ends, and how often one finds the answer.

    E(y) = sum_k (y_k^2 - 1)^2 + tilt y_k

has two minima a coordinate, hence 2^d of them, and the boundaries of their basins are known: the
ridge of one coordinate lies between its wells, whatever the others do. A descent by plain steps of
0.02 does not cross it from anywhere in [-2, 2]^d, since y - 0.02 E'(y) rises with y there, so that
its basins are those of the flow. A start drawn evenly from that cube is in the deepest one with
probability p^d, p = (ridge + 2) / 4.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import energies, inference
from ebmref.seeds import derive_seed

TILT = 0.5


def which(y: Tensor, ridge: float) -> Tensor:
    """The number of the basin, 0 the deepest: `(n, d)` to `(n,)` of [0, 2^d).

    Coordinate k adds 2^k where it lies beyond the ridge.
    """
    return ((y > ridge).long() << torch.arange(y.shape[1], device=y.device)).sum(1)


class Success(NamedTuple):
    """How often descent finds the deepest of 2^d minima, of several dimensions d.

    Attributes:
        single: share of all starts that end in it, `(dims,)`.
        n_starts: how many there were of each d.
        share: of trials in which one of R starts or more does, `(dims, counts)`.
        law: 1 - (1 - p^d)^R, likewise.
        sd: binomial, of `share` where the law holds.
        cost: evaluations of the energy that one start takes.
    """

    single: Tensor
    n_starts: int
    share: Tensor
    law: Tensor
    sd: Tensor
    cost: int


def law(p: float, d: Tensor, r: Tensor) -> Tensor:
    """The probability that one of r starts is in a basin that holds p of each of d coordinates."""
    return 1 - (1 - p**d) ** r


def success(
    dims: tuple[int, ...], counts: tuple[int, ...], n_trials: int, seed: int, *,
    n_steps: int = 150, device="cpu",
) -> Success:  # fmt: skip
    """Descend from even starts in [-2, 2]^d and count.

    Args:
        dims: values of d.
        counts: values of R; a trial has as many starts as the largest, of which it uses the first.
    """
    deep, ridge, _ = energies.double_well_points(TILT)
    n_starts = n_trials * max(counts)
    share = torch.empty(len(dims), len(counts), dtype=torch.float64)
    single = torch.empty(len(dims), dtype=torch.float64)
    for i, d in enumerate(dims):
        draws = torch.Generator(device).manual_seed(derive_seed(seed, f"starts-{d}"))
        y = 4 * torch.rand(n_starts, d, generator=draws, device=device) - 2
        found = inference.gradient_argmin(energies.double_well, y, 0.02, n_steps)
        right = ((found.y - deep).abs() < 0.05).all(1).view(n_trials, -1)
        single[i] = right.double().mean()
        for j, r in enumerate(counts):
            share[i, j] = right[:, :r].any(1).double().mean()
    d, r = torch.tensor(dims)[:, None].double(), torch.tensor(counts)
    wanted = law((ridge + 2) / 4, d, r)
    sd = (wanted * (1 - wanted) / n_trials).sqrt()
    return Success(single, n_starts, share, wanted, sd, found.n_evaluations // n_starts)


def worst_deviation(found: Success) -> Tensor:
    """The largest deviation from the law, in standard deviations.

    Where either outcome is expected in fewer than ten trials the binomial is no normal, and left
    out.
    """
    n_trials = found.law * (1 - found.law) / found.sd.square()
    usable = n_trials * found.law * (1 - found.law) > 10
    return ((found.share - found.law).abs() / found.sd)[usable].max()


def needed(single: Tensor, n_starts: int, wanted: float = 0.95) -> tuple[Tensor, Tensor]:
    """Starts for a success of `wanted`, and the standard error that the share of single ones gives.

    (1 - q)^R = 1 - wanted; the error is that of log(1 - q), to first order.
    """
    most = torch.tensor(1 - wanted, dtype=single.dtype).log()
    se = (single * (1 - single) / n_starts).sqrt()
    slope = most / torch.log1p(-single).square() / (1 - single)
    return most / torch.log1p(-single), slope.abs() * se


class Rival(NamedTuple):
    """How often a way to look for the deepest of the minima of eight coordinates finds it.

    Attributes:
        share: of trials, `(instances,)`.
        cost: evaluations of the energy that a trial takes, mean.
    """

    share: Tensor
    cost: float


def coupled(y: Tensor, coupling: Tensor) -> Tensor:
    """The energy of double wells, plus sum_kl C_kl y_k y_l / 2: `(n, d)` and `(d, d)` to `(n,)`."""
    return energies.double_well(y) + 0.5 * ((y @ coupling) * y).sum(1)


def by_coordinates(energy: energies.Energy, y: Tensor, most: int = 20) -> tuple[Tensor, Tensor]:
    """Search 41 values of one coordinate at a time, in turn, until nothing moves (ICM).

    Args:
        y: `(n, d)`, the starts.
        most: rounds of all coordinates.

    Returns:
        Where they end, `(n, d)`, and evaluations of the energy that each took, `(n,)`.
    """
    values, (n, d) = torch.linspace(-2, 2, 41), y.shape
    rounds, moving = torch.zeros(n), torch.ones(n, dtype=torch.bool)
    for _ in range(most):
        before, rounds = y, rounds + moving
        for k in range(d):
            tried = y[:, None].repeat(1, 41, 1)
            tried[:, :, k] = values
            best = energy(tried.view(-1, d)).view(n, 41).argmin(1)
            y = tried[torch.arange(n), best]
        moving = (y != before).any(1)
        if not moving.any():
            break
    return y, 41 * d * rounds


def rivals(
    strength: float, n_instances: int, seed: int, *, d: int = 8, n_random: int = 467,
    n_trials: int = 4,
) -> dict[str, Rival]:  # fmt: skip
    """Random starts against a grid of two starts a side, and against search by coordinates.

    The grid is laid at random: in each coordinate one start is even in [-2, 0], the other is two
    further on. Search by coordinates has one start, and then the same descent. The answer of an
    instance is the lowest end of all these descents.

    Args:
        strength: standard deviation of the couplings, symmetric and zero on the diagonal.
        n_instances: with couplings of their own.
    """
    draws = torch.Generator().manual_seed(derive_seed(seed, f"rivals-{strength}"))
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 2.0])] * d)
    found: dict[str, list[Tensor]] = {"random": [], "grid": [], "coordinates": []}
    costs = []
    for _ in range(n_instances):
        one = torch.randn(d, d, generator=draws).triu(1) * strength
        coupling = one + one.T

        def energy(y, coupling=coupling):
            return coupled(y, coupling)

        even = 4 * torch.rand(n_trials * n_random, d, generator=draws) - 2
        grid = corners - 2 * torch.rand(n_trials, 1, d, generator=draws)
        by_turns, cost = by_coordinates(energy, even[: 16 * n_trials])
        starts = torch.cat([even, grid.view(-1, d), by_turns])
        ends = inference.gradient_argmin(energy, starts, 0.02, 150).energy
        right = ends < ends.min() + 0.01
        parts = right.split([len(even), grid[..., 0].numel(), len(by_turns)])
        for name, part, k in zip(found, parts, (n_random, 2**d, 1), strict=True):
            found[name].append(part.view(-1, k).any(1).double().mean())
        costs.append(cost.mean())
    cost = {"random": 151 * n_random, "grid": 151 * 2**d}
    cost["coordinates"] = float(sum(costs)) / n_instances + 151
    return {name: Rival(torch.stack(shares), cost[name]) for name, shares in found.items()}
