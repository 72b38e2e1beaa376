"""Rejection sampling where its acceptance is known, and where there is none."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import integrate, stats
from torch import Tensor

from ebmbook.lab import pvalues
from ebmbook.lab.normaliser import box, normal
from ebmref import energies, samplers


class Line(NamedTuple):
    """exp(-E) / Z on the line: nodes, and the distribution function there."""

    x: np.ndarray
    cumulative: np.ndarray

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """At points `(n,)`."""
        return np.interp(x, self.x, self.cumulative)

    def distance(self, draws: Tensor) -> float:
        """Kolmogorov's, times the root of n, of draws `(n, 1)`."""
        n = len(draws)
        found = stats.kstest(draws[:, 0].cpu().numpy(), self.cdf).statistic
        return math.sqrt(n) * float(found)


def well() -> Line:
    """The tilted double well's."""
    x = np.linspace(-4, 4, 20_001)
    density = np.exp(-((x**2 - 1) ** 2) - x / 2)
    cumulative = integrate.cumulative_trapezoid(density, x, initial=0)
    return Line(x, cumulative / cumulative[-1])


def cells_p(q, log_m: float, line: Line, n: int, generator) -> float:
    """Whether points kept under the curve are even there: p-value of a hundred cells of equal area.

    A cell is a tenth of the law across and a tenth of the curve's height up.
    """
    x = q.sample(n, generator)
    u = torch.rand(n, generator=generator, dtype=x.dtype, device=x.device)
    share = u * (log_m + q.log_prob(x) + energies.double_well(x)).exp()
    kept = (share < 1).cpu().numpy()
    across, up = line.cdf(x[:, 0].cpu().numpy()[kept]), share.cpu().numpy()[kept]
    cells, _, _ = np.histogram2d(across, up, 10, [[0, 1], [0, 1]])
    return float(stats.chisquare(cells.ravel()).pvalue)


# Dimension ------------------------------------------------------------------------------------


def one_wrong(d: int, like: dict) -> energies.Gaussian:
    """N(0, diag(2, 1, ..., 1))."""
    variances = torch.ones(d, **like)
    variances[0] = 2
    return energies.Gaussian(torch.zeros(d, **like), torch.diag(variances))


def ball(x: Tensor) -> Tensor:
    """0 in the unit ball, +inf outside."""
    return torch.where(x.square().sum(1) < 1, 0.0, math.inf)


def ball_share(d):
    """Volume of the ball over that of the cube [-1, 1]^d."""
    log_gamma = np.vectorize(math.lgamma)(np.asarray(d) / 2 + 1)
    return np.exp(np.asarray(d) / 2 * math.log(math.pi / 4) - log_gamma)


class Case(NamedTuple):
    """A target, a proposal and the acceptance that is known, each of the dimension."""

    target: Callable
    proposal: Callable
    law: Callable
    dims: tuple[int, ...]


def cases(like: dict) -> dict[str, Case]:
    """Every coordinate wrong, the ball in the cube, one coordinate wrong."""
    dims = (1, 2, 4, 8, 12, 16, 20)
    return {
        "product": Case(
            lambda d: normal(d, 1.0, like), lambda d: normal(d, 2.0, like),
            lambda d: 2.0 ** (-np.asarray(d) / 2), dims,
        ),
        "ball": Case(
            lambda d: ball, lambda d: box(d, 1.0, like), ball_share, (2, 3, 4, 6, 8, 10, 11)
        ),
        "one-wrong": Case(
            lambda d: normal(d, 1.0, like), lambda d: one_wrong(d, like),
            lambda d: 0 * np.asarray(d) + 2**-0.5, dims,
        ),
    }  # fmt: skip


class Rates(NamedTuple):
    """Of one case, by dimension, `(dims,)` each but the last.

    Attributes:
        rate, sd: acceptance, and the relative standard error of a run that keeps so many.
        p: of the number of proposals, against its exact law.
        envelope_error: the largest error of a log M that was searched for; 0 where it was given.
    """

    rate: np.ndarray
    sd: np.ndarray
    p: np.ndarray
    envelope_error: float


def rates(case: Case, n_kept: int, generator) -> Rates:
    """Each run keeps as many; the ball's envelope has no slope to follow, and is given."""
    rate, sd, p, off = [], [], [], 0.0
    for d in case.dims:
        target, q, law = case.target(d), case.proposal(d), float(case.law(d))
        log_m = d * math.log(2)
        if target is not ball:
            log_m = samplers.envelope_constant(target, q, generator).log_m
            off = max(off, abs(log_m - target.log_z + math.log(law)))
        got = samplers.rejection_sample(target, q, log_m, n_kept, generator)
        rate.append(got.acceptance_rate)
        sd.append(math.sqrt((1 - law) / n_kept))
        p.append(pvalues.of_waiting(got.n_proposals, n_kept, law))
    return Rates(np.array(rate), np.array(sd), np.array(p), off)


def slope(case: Case, found: Rates) -> tuple[float, float]:
    """Of log2 of the acceptance against the dimension, with its standard error."""
    d = np.array(case.dims, float)
    lever = (d - d.mean()) / np.square(d - d.mean()).sum() / math.log(2)
    error = math.sqrt(np.square(lever * found.sd).sum())
    return float(lever @ np.log(found.rate)), error


def factor(found: Rates, i: int) -> tuple[float, float]:
    """The acceptance of the next dimension over that of the i-th, with its standard error."""
    value = float(found.rate[i + 1] / found.rate[i])
    return value, value * math.hypot(*found.sd[i : i + 2])


# No envelope ----------------------------------------------------------------------------------


def endless(like: dict) -> dict[str, tuple]:
    """Pairs of a target and a proposal whose ratio has no bound."""
    return {
        "a narrower proposal": (normal(1, 1.0, like), normal(1, 0.5, like)),
        "a heavier tail": (energies.StudentT(torch.zeros(1, **like), 3.0), normal(1, 1.0, like)),
        "outside the support": (normal(1, 1.0, like), box(1, 3.0, like)),
    }


def largest_ratios(p, q, n_paths: int, n: int, generator) -> Tensor:
    """log of the largest p / q among the first draws, as they come: `(n_paths, n)`."""
    x = q.sample(n_paths * n, generator)
    log_ratio = (samplers.log_weights(p, q, x) - p.log_z).view(n_paths, n)
    return log_ratio.cummax(1).values.cpu()


def expected_max(n: int) -> float:
    """Mean of the largest of n chi-square variables of one degree."""
    x = np.linspace(0, 80, 80_001)
    tail = -np.expm1(n * np.log1p(-stats.chi2.sf(x[1:], 1)))
    return float(integrate.trapezoid(np.append(1.0, tail), x))


def narrow_log_ratio(n) -> np.ndarray:
    """Exact mean of the largest log p / q of n draws of N(0, 1/2), for p = N(0, 1)."""
    largest = np.array([expected_max(int(k)) for k in np.atleast_1d(n)])
    return 0.5 * math.log(0.5) + 0.25 * largest


def refused(p, q, generator) -> bool:
    """Whether the package's search says that there is no envelope."""
    try:
        samplers.envelope_constant(p, q, generator)
    except ValueError as error:
        return "no M q is an envelope" in str(error)
    return False
