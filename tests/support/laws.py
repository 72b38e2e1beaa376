"""Exact laws, and how a sample is held against one, for the tests of `ebmref.samplers`.

Every law here has a change of variables, `scores`, that turns its draws into independent
standard normals and nothing else into them. One set of tests then serves all laws, with p-values
that are exact where a heavy tail has no usable moments and a wall has no Gaussian ones.

A p-value below FLOOR is a failure. The comparisons of one case share it by Bonferroni, so a
case raises a false alarm for at most one seed in a million; with at most MOST_CASES cases the
whole suite does for at most 3 seeds in 10,000. The seeds are fixed, so a run is repeatable.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import interpolate, special, stats
from torch import Tensor

from ebmref import energies
from ebmref.samplers import Chain, sample

FLOOR = 1e-6
MOST_CASES = 300


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """One thread a worker: side by side, workers with a thread a core hold each other up."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Tests of a sample ---------------------------------------------------------------------------


def p_values(z: Tensor) -> dict[str, float]:
    """p-values of "z `(n, d)` are n d independent standard normals", one a comparison.

    Moments of the whole: the mean vector (n |mean|^2 is chi-square of d), the sum of all squares
    (chi-square of n d), each variance (chi-square of n), each covariance (a sum of n products,
    normal up to a kurtosis of 6 / n). Laws by Kolmogorov-Smirnov: each coordinate, all
    together, the radius, the sum over coordinates. A score that is not finite, such as that
    of a draw on a wall or beyond, is out of the question.
    """
    z = z.double().numpy()
    if not np.isfinite(z).all():
        return {"finite": 0.0}
    n, d = z.shape
    square = (z * z).sum(1)
    found = {
        "mean": stats.chi2.sf(n * (z.mean(0) ** 2).sum(), d),
        "variances": d * _two_sided(stats.chi2(n), (z * z).sum(0)),
        "coordinates": d * min(_ks(special.ndtr(column)) for column in z.T),
        "radius": _ks(special.gammainc(d / 2, square / 2)),
    }
    if d > 1:
        off = (z.T @ z)[np.triu_indices(d, 1)] / math.sqrt(n)
        found |= {
            "squares": _two_sided(stats.chi2(n * d), square.sum()),
            "covariances": len(off) * 2 * special.ndtr(-np.abs(off).max()),
            "pooled": _ks(special.ndtr(z.ravel())),
            "sum": _ks(special.ndtr(z.sum(1) / math.sqrt(d))),
        }
    return {name: min(1.0, float(p)) for name, p in found.items()}


def smallest(z: Tensor) -> float:
    """The least of the p-values times their number: itself a p-value, by Bonferroni."""
    found = p_values(z)
    return min(1.0, min(found.values()) * len(found))


def _two_sided(law, value) -> float:
    return float(2 * np.minimum(law.cdf(value), law.sf(value)).min())


def _ks(u: np.ndarray) -> float:
    """Kolmogorov-Smirnov's p-value of "u are uniform"."""
    n = len(u)
    u = np.sort(u)
    rank = np.arange(n)
    distance = max((u - rank / n).max(), ((rank + 1) / n - u).max())
    return float(stats.kstwo.sf(distance, n))


# Laws ----------------------------------------------------------------------------------------


class Law(NamedTuple):
    """An energy of which everything is known.

    Attributes:
        energy: one of `ebmref.energies`, with exact `sample` and `log_prob`.
        scores: `(n, d) -> (n, d)`, independent standard normals for draws of the law.
        tempered: beta -> the exact sampler of exp(-beta E), `(n, generator) -> (n, d)`.
        proposal: a law that covers this one closely, for global moves.
        scale: the length on which the energy changes, or that keeps a step inside a wall.
        wall: whether the support is bounded.
        marginal: k -> the energy of coordinate k, `(n, 1) -> (n,)`, where the energy is a sum
            of such.
    """

    energy: Callable
    scores: Callable
    tempered: Callable
    proposal: object
    scale: float
    wall: bool = False
    marginal: Callable | None = None

    def draw(self, n: int, seed: int) -> Tensor:
        return self.energy.sample(n, generator(seed))


def gaussian(d: int, dtype=torch.float64) -> Law:
    """N(0, I)."""
    return _gaussian(torch.zeros(d, dtype=dtype), torch.eye(d, dtype=dtype), 1.0)


def correlated(d: int) -> Law:
    """Neighbours correlated by 1/2, a mean and sds from 1/2 to 2; the least eigenvalue rules."""
    rank = torch.arange(d, dtype=torch.float64)
    sd = torch.logspace(-1, 1, d, 2, dtype=torch.float64)
    covariance = sd * 0.5 ** (rank - rank[:, None]).abs() * sd[:, None]
    scale = float(torch.linalg.eigvalsh(covariance)[0]) ** 0.5
    return _gaussian(torch.linspace(-1, 1, d, dtype=torch.float64), covariance, scale)


def _gaussian(mean: Tensor, covariance: Tensor, scale: float) -> Law:
    energy = energies.Gaussian(mean, covariance)
    return Law(
        energy,
        gaussian_scores(mean, covariance),
        lambda beta: energies.Gaussian(mean, covariance / beta).sample,
        energies.Gaussian(mean, 1.2 * covariance),
        scale,
    )


def gaussian_scores(mean: Tensor, covariance: Tensor) -> Callable:
    factor = torch.linalg.cholesky(covariance.double())
    mean = mean.double()
    return lambda x: torch.linalg.solve_triangular(factor, (x.double() - mean).T, upper=False).T


def mixture(d: int) -> Law:
    """0.3 N(-1.5 e_1, I) + 0.7 N(1.5 e_1, I): two modes along the first axis, a product law."""
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = torch.zeros(2, d, dtype=torch.float64)
    means[:, 0] = torch.tensor([-1.5, 1.5], dtype=torch.float64)
    ones = torch.ones_like(weights)

    def along(x):
        z = x[:, :1] - means[:, 0]
        first = from_tails(torch.special.ndtr(z) @ weights, torch.special.ndtr(-z) @ weights)
        return torch.cat([first[:, None], x[:, 1:]], 1)

    axis = energies.GaussianMixture(means[:, :1], ones, weights)

    def tempered(beta):
        grid = torch.linspace(-12, 12, 40_001, dtype=torch.float64) / beta**0.5
        first = by_inverse(grid, (-beta * axis(grid[:, None])).exp())

        def draw(n, generator):
            x = torch.randn(n, d, generator=generator, dtype=torch.float64) / beta**0.5
            x[:, 0] = first(n, generator)
            return x

        return draw

    def marginal(k):
        return axis if k == 0 else gaussian(1).energy

    return Law(
        energies.GaussianMixture(means, ones, weights),
        along,
        tempered,
        energies.GaussianMixture(means, 1.1 * ones, weights),
        1.0,
        marginal=marginal,
    )


def box(d: int, tilt: float = 0.7) -> Law:
    """exp(-tilt x_k) on [-1, 1]^d, nothing outside.

    With d coordinates a normal step of sd s leaves by one of the walls about 0.4 s d times, so
    that the share exp(-0.4 s d) stays: the scale falls as 1 / d.
    """
    like = torch.zeros(d, dtype=torch.float64)
    energy = energies.Box(like, tilt=tilt)
    return Law(
        energy,
        lambda x: from_tails(energy.cdf(x), 1 - energy.cdf(x)),
        lambda beta: energies.Box(like, tilt=beta * tilt).sample,
        energies.Box(like, -1 - 0.5 / d, 1 + 0.5 / d, tilt=tilt - 0.5 / d),
        min(0.7, 1.2 / d),
        wall=True,
    )


def heavy_tail(d: int, nu: float = 5.0) -> Law:
    """Student's t, nu degrees in each coordinate: its sixth moment is infinite."""
    like = torch.zeros(d, dtype=torch.float64)

    def scores(x):
        return -x.sign() * torch.as_tensor(special.ndtri(special.stdtr(nu, -x.abs().numpy())))

    def tempered(beta):
        # (1 + x^2 / nu)^(-beta (nu + 1) / 2) is a t law of fewer degrees, stretched.
        degrees = beta * (nu + 1) - 1
        law = energies.StudentT(like, degrees)
        return lambda n, g: (nu / degrees) ** 0.5 * law.sample(n, g)

    return Law(
        energies.StudentT(like, nu),
        scores,
        tempered,
        energies.StudentT(like, 4.0),
        1.0,
        marginal=lambda k: energies.StudentT(like[:1], nu),
    )


LAWS = {
    "gaussian": gaussian,
    "correlated": correlated,
    "mixture": mixture,
    "box": box,
    "heavy": heavy_tail,
}


def from_tails(below, above) -> Tensor:
    """Normal scores from P(X <= x) and P(X > x), precise in both tails."""
    below, above = (torch.as_tensor(np.asarray(part)).double() for part in (below, above))
    low, high = special.ndtri(below.numpy()), -special.ndtri(above.numpy())
    return torch.where(below < 0.5, torch.as_tensor(low), torch.as_tensor(high))


def by_inverse(grid: Tensor, density: Tensor) -> Callable:
    """Sampler `(n, generator) -> (n,)` of a density given on a fine grid."""
    cdf = torch.cat([density.new_zeros(1), torch.cumulative_trapezoid(density, grid)])

    def draw(n, generator):
        u = torch.rand(n, generator=generator, dtype=torch.float64) * cdf[-1]
        return torch.as_tensor(np.interp(u.numpy(), cdf.numpy(), grid.numpy()))

    return draw


# What an unadjusted kernel settles in -----------------------------------------------------------


class OwnLaw(NamedTuple):
    """A law on the line that a kernel of the form x' = m(x) + s xi keeps.

    Attributes:
        grid, weights: its mass on a grid.
        draw: `(n, generator) -> (n,)`.
        scores: `(n,) -> (n,)`, standard normals for its draws.
    """

    grid: Tensor
    weights: Tensor
    draw: Callable
    scores: Callable


def own_law(kernel, reach: float, n_grid: int) -> OwnLaw:
    """Stationary law of a kernel on the line, without Monte Carlo.

    m(x) and s are read off the kernel's own step, the integral equation p = int p(x) N(. ; m(x),
    s^2) dx is solved on a grid. The trapezoid rule converges faster than any power for smooth
    laws that vanish at its ends, once the spacing is below s / 2.
    """
    grid = torch.linspace(-reach, reach, n_grid, dtype=torch.float64)
    mean, s = map_of(kernel, grid[:, None])
    assert grid[1] - grid[0] < 0.5 * s
    arrive = (-0.5 * ((grid - mean) / s).square()).exp()
    arrive = arrive / arrive.sum(1, keepdim=True)
    # p (K - 1) = 0 with one equation replaced by sum p = 1.
    system = arrive.T - torch.eye(n_grid, dtype=torch.float64)
    system[0] = 1
    weights = torch.linalg.solve(system, torch.eye(n_grid, dtype=torch.float64)[0])
    # One exact step from the grid's law gives both tails at any point.
    fine = torch.linspace(-reach, reach, 2001, dtype=torch.float64)
    z = (fine[:, None] - mean.T) / s
    below, above = torch.special.ndtr(z) @ weights, torch.special.ndtr(-z) @ weights
    tails = [interpolate.CubicSpline(fine.numpy(), tail.numpy()) for tail in (below, above)]
    density = (-0.5 * z.square()).exp() @ weights
    return OwnLaw(
        grid,
        weights,
        by_inverse(fine, density),
        lambda x: from_tails(*(tail(x.numpy()) for tail in tails)),
    )


def map_of(kernel, x: Tensor) -> tuple[Tensor, float]:
    """m(x) `(n, 1)` and s of a kernel whose step is x' = m(x) + s xi."""
    state, size = kernel.init(x, generator()), torch.tensor(kernel.step_size, dtype=x.dtype)
    zero, one = (kernel.step(state, (torch.full_like(x, xi),), size)[0].x for xi in (0.0, 1.0))
    shift = one - zero
    assert (shift - shift[0]).abs().max() < 1e-9
    return zero, float(shift.mean())


# Running a kernel from exact draws --------------------------------------------------------------


def run(kernel, x0: Tensor, n_steps: int, seed: int) -> Chain:
    """n_steps of the kernel, the last kept; never on the numbers that x0 was drawn with."""
    return sample(kernel, x0, n_steps, thin=n_steps, generator=generator(1_000_000 + seed))


def steps(kernel, x0: Tensor, n_steps: int, seed: int) -> Tensor:
    """Where n_steps of the kernel lead from x0, `(n, *event)`."""
    return run(kernel, x0, n_steps, seed).samples[0]


def stationary(kernel, law: Law, betas: tuple[float, ...]):
    """The tempered kernel with replicas from exact draws at each beta, not copies of x0.

    Its state holds all replicas, `(n, n_betas, ...)`, and what each chain has one of, `(n,)`.
    """

    def init(x, g):
        hot = [law.tempered(beta)(len(x), g).view_as(x) for beta in betas[1:]]
        starts = [kernel.init(y, g) for y in (x, *hot)]
        parts = [
            torch.stack([part[:, k] for k, part in enumerate(parts)], 1)
            if parts[0].dim() > 1
            else parts[0]
            for parts in zip(*starts, strict=True)
        ]
        return type(starts[0])(*parts)

    return kernel._replace(init=init)
