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
