"""Chains whose law is known: walkers on a graph, barriers on lattices, unadjusted Langevin.

The law that a chain settles in is not always exp(-E). That of unadjusted Langevin in one dimension
solves pi K = pi with its own kernel,

    K(x, y) = N(y; x - h/2 E'(x), h),                                                         (1)

a smooth one, so that the trapezoid rule finds pi to many digits. Where E rises faster than a square
there is none: a chain that is thrown far enough is thrown farther at each step.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import integrate, stats
from torch import Tensor

from ebmref import energies, samplers
from ebmref.energies import value_and_gradient
from ebmref.samplers import finite
from ebmref.samplers.diagnostics import arviz

DOUBLE = torch.float64


def counts_p(ends: Tensor, p: Tensor) -> float:
    """p-value of the counts of walkers `(n,)` at nodes of the law p `(k,)`, by chi square."""
    counts = torch.bincount(ends, minlength=len(p)).cpu().numpy()
    expected = (p / p.sum()).cpu().numpy() * len(ends)
    return float(stats.chisquare(counts, expected).pvalue)


def line(n_nodes: int) -> Tensor:
    """The walk on nodes in a row, `(n, n)`."""
    ones = torch.ones(n_nodes - 1, dtype=DOUBLE)
    return finite.graph_walk(torch.diag(ones, 1) + torch.diag(ones, -1))


def barrier_time(n_nodes: int, height: float) -> float:
    """Mixing time of Metropolis on [-1.5, 1.5] with the energy height (u^2 - 1)^2, in steps."""
    u = torch.linspace(-1.5, 1.5, n_nodes, dtype=DOUBLE)
    p = torch.exp(-height * (u.square() - 1).square())
    return finite.mixing_time(finite.metropolis_matrix(line(n_nodes), p), p)


def growth(n_nodes: int, low: float, high: float) -> float:
    """By what one more unit of energy multiplies the mixing time, between two heights."""
    ratio = barrier_time(n_nodes, high) / barrier_time(n_nodes, low)
    return ratio ** (1 / (high - low))


def growth_of_integrals(low: float, high: float) -> float:
    """The same of the diffusion: its time is the mass of a well times the pass, two integrals."""

    def time(h: float) -> float:
        well, _ = integrate.quad(lambda u: math.exp(-h * (u * u - 1) ** 2), 0, 1.5)
        over, _ = integrate.quad(lambda u: math.exp(h * (u * u - 1) ** 2 - h), -1, 1)
        return well * over * math.exp(h)

    return (time(high) / time(low)) ** (1 / (high - low))


class Law(NamedTuple):
    """A law on the line: nodes `(k,)`, and its distribution function there."""

    x: np.ndarray
    cdf: np.ndarray

    def p(self, draws: Tensor) -> float:
        """p-value of independent draws `(n,)`, by Kolmogorov and Smirnov."""
        at = np.interp(draws.cpu().numpy(), self.x, self.cdf)
        return float(stats.kstest(at, "uniform").pvalue)

    def mean(self, f: Callable[[np.ndarray], np.ndarray]) -> float:
        """Of f, which is taken as a line between nodes."""
        at = f(self.x)
        return float(np.diff(self.cdf) @ (at[1:] + at[:-1]) / 2)


def boltzmann(energy: energies.Energy, reach: float = 4.0, k: int = 2001) -> Law:
    """exp(-E) / Z on [-reach, reach]; energy of `(n, 1)`."""
    x = torch.linspace(-reach, reach, k, dtype=DOUBLE)
    return _law(x, (-energy(x[:, None])).exp())


def own_law(energy: energies.Energy, h: float, reach: float = 4.0, k: int = 601) -> Law:
    """Where unadjusted Langevin with the step h settles: equation (1) on k nodes."""
    x = torch.linspace(-reach, reach, k, dtype=DOUBLE)
    _, slope = value_and_gradient(energy, x[:, None])
    ahead = x - 0.5 * h * slope[:, 0]
    K = (-(x - ahead[:, None]).square() / (2 * h)).exp()
    return _law(x, finite.stationary(K / K.sum(1, keepdim=True)))


def bumps(like: dict) -> energies.GaussianMixture:
    """Two bumps on the line, of weights 0.7 and 0.3; its slope is linear far out."""
    at = torch.tensor([[-1.0], [1.0]], **like)
    return energies.GaussianMixture(
        at, torch.full((2,), 0.5, **like), torch.tensor([0.7, 0.3], **like)
    )


def _law(x: Tensor, density: Tensor) -> Law:
    density = density.numpy()
    cdf = integrate.cumulative_trapezoid(density, x.numpy(), initial=0)
    return Law(x.numpy(), cdf / cdf[-1])


def last_draws(kernel: samplers.Kernel, n: int, n_steps: int, generator) -> Tensor:
    """Independent draws `(n,)` on the line: the last states of n chains from standard normals."""
    x0 = torch.randn(n, 1, generator=generator, dtype=DOUBLE, device=generator.device)
    chain = samplers.sample(kernel, x0, n_steps, thin=n_steps, generator=generator)
    return chain.samples[-1, :, 0]


def variance(kernel: samplers.Kernel, n: int, generator) -> Tensor:
    """Of each chain of n on N(0, 1): its mean of x^2, `(n,)`."""
    x0 = torch.randn(n, 1, generator=generator, dtype=DOUBLE, device=generator.device)
    chain = samplers.sample(kernel, x0, 300, warmup=100, generator=generator)
    return chain.samples.square().mean((0, 2))


def worst_z(values: list[Tensor], law: list[float]) -> float:
    """The largest deviation of means of `(n,)` from their laws, in standard errors."""
    return max(
        abs(float(v.mean()) - m) / (float(v.std()) / math.sqrt(len(v)))
        for v, m in zip(values, law, strict=True)
    )


class Sizes(NamedTuple):
    """Estimated over exact effective sample size, one for each set of chains, `(n_sets,)`."""

    x: Tensor
    square: Tensor


def size_ratios(h: float, n_sets: int, generator, n_chains=10, n_steps=4000) -> Sizes:
    """Of ArviZ's estimate for ULA on N(0, 1), where draws k apart have the correlation a^k."""
    normal = energies.Gaussian(*(m.to(generator.device) for m in _standard()))
    n = n_sets * n_chains
    x0 = torch.randn(n, 1, generator=generator, dtype=DOUBLE, device=generator.device)
    chain = samplers.sample(samplers.ula(normal, h), x0, n_steps, warmup=100, generator=generator)
    x = chain.samples[..., 0].T.reshape(n_sets, n_chains, n_steps).cpu().numpy()
    a = 1 - h / 2
    found = []
    for values, rho in ((x, a), (x * x, a * a)):  # squares of such a chain: a^2k
        exact = n_chains * n_steps * (1 - rho) / (1 + rho)
        ess = [float(arviz().ess(one, method="mean")) / exact for one in values]
        found.append(torch.tensor(ess, dtype=DOUBLE))
    return Sizes(*found)


def _standard() -> tuple[Tensor, Tensor]:
    return torch.zeros(1, dtype=DOUBLE), torch.eye(1, dtype=DOUBLE)
