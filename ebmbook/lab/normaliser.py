"""Z = int exp(-E) where it is known: five ways to it, and what each costs as the dimension grows.

An error of a share `wanted` of Z takes of draws from q

    n = ((1 + chi^2)^d - 1) / wanted^2,    1 + chi^2 = int p^2 / q                            (1)

for d equal coordinates, p and q the laws of one. Of annealed particles the variance of their own
weights stands in the place of chi^2, times the evaluations that one takes.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from ebmbook.lab import pvalues
from ebmref import energies, samplers

WANTED = 0.01  # the error of Z that a cost is for
PARTICLES, TEMPERATURES = 41, 40  # of a run on the valley: 41 * 41 evaluations
RUN = PARTICLES * (TEMPERATURES + 1)
REACH = 2.5  # of the double wells: beyond it exp(-E) is below 1e-12


def normal(d: int, variance: float, like: dict) -> energies.Gaussian:
    """N(0, variance I): an energy that knows its Z."""
    return energies.Gaussian(torch.zeros(d, **like), variance * torch.eye(d, **like))


def box(d: int, reach: float, like: dict) -> energies.Box:
    """The uniform law on [-reach, reach]^d."""
    return energies.Box(torch.zeros(d, **like), -reach, reach)


def quadrature(energy, low: float, high: float, k: int, d: int = 1) -> float:
    """Z by the trapezoid rule, k points a side, for energies that are large at the walls."""
    side = torch.linspace(low, high, k, dtype=torch.float64)
    grid = torch.cartesian_prod(*[side] * d).view(-1, d)
    return float((-energy(grid)).exp().sum()) * float(side[1] - side[0]) ** d


def valley(x: Tensor) -> Tensor:
    """Two wells at the ends of a bent valley in the plane: no sum over coordinates.

    Given x_1 the integral over x_2 is sqrt(pi / 2), so that Z is that times the double well's.
    """
    bend = x[:, 1] - (2 * x[:, 0]).sin()
    return energies.double_well(x[:, :1]) + 2 * bend.square()


def valley_log_z() -> float:
    """Exact, up to a quadrature in one dimension."""
    return 0.5 * math.log(math.pi / 2) + math.log(quadrature(energies.double_well, -4, 4, 401))


class Runs(NamedTuple):
    """Independent runs of one way to Z.

    Attributes:
        ratio: the estimate over the exact Z, `(n,)`.
        se: of its logarithm, as the run itself gives it, `(n,)`.
    """

    ratio: Tensor
    se: Tensor

    @property
    def covered(self) -> Tensor:
        """1 where 1.96 of its own standard errors hold the truth, else 0: `(n,)`."""
        return (self.ratio.log().abs() < 1.96 * self.se).double()


def by_weights(q, n_runs: int, generator) -> Runs:
    """Importance sampling of the valley, `RUN` draws a run; uniform points are of this kind."""
    got = samplers.importance_estimate(
        lambda x: torch.ones_like(x[:, 0]), valley, q, RUN, generator, n_replicates=n_runs
    )
    return Runs((got.log_z - valley_log_z()).exp().cpu(), got.log_z_se.cpu())


def by_rejection(q, n_runs: int, generator) -> Runs:
    """Z is M times the share that is kept; so many are kept that about `RUN` are proposed."""
    log_z = valley_log_z()
    log_m = samplers.envelope_constant(valley, q, generator).log_m
    n_kept = round(RUN * math.exp(log_z - log_m))
    got = [samplers.rejection_sample(valley, q, log_m, n_kept, generator) for _ in range(n_runs)]
    ratio = torch.tensor([math.exp(one.log_z - log_z) for one in got]).double()
    return Runs(ratio, torch.tensor([one.log_z_se for one in got]).double())


def by_annealing(q, n_runs: int, generator) -> Runs:
    """Annealed importance sampling, `PARTICLES` a run."""
    got = samplers.annealed_importance_sampling(
        valley, q, PARTICLES * n_runs, TEMPERATURES, 0.2, generator=generator
    )
    weight = (got.log_weights - valley_log_z()).exp().view(n_runs, PARTICLES).cpu()
    ratio = weight.mean(1)
    return Runs(ratio, weight.std(1) / ratio / math.sqrt(PARTICLES))


# What it costs --------------------------------------------------------------------------------


class GridCost(NamedTuple):
    """Of the trapezoid rule on double wells: its relative error in one dimension, by side."""

    sides: np.ndarray
    error: np.ndarray

    def side(self, d: int) -> int:
        """The least k from which on the error of Z in d dimensions is below `WANTED`."""
        bad = np.abs((1 + self.error) ** d - 1) > WANTED
        return int(self.sides[bad].max()) + 1

    def points(self, d: int) -> float:
        """k^d."""
        return float(self.side(d)) ** d


def grid_cost() -> GridCost:
    """Sides of 3 to 60 points; a product of rules has the error (1 + e)^d - 1."""
    sides = np.arange(3, 61)
    z = quadrature(energies.double_well, -4, 4, 401)
    error = [quadrature(energies.double_well, -REACH, REACH, int(k)) / z - 1 for k in sides]
    return GridCost(sides, np.array(error))


def moment(q, power: int) -> float:
    """E_q (w / Z)^power of one double well, by quadrature; power 2: 1 + chi^2."""
    log_z = math.log(quadrature(energies.double_well, -4, 4, 401))

    def integrand(x):
        log_q = q.log_prob(x)
        return power * (energies.double_well(x) + log_z + log_q) - log_q

    return quadrature(integrand, -REACH, REACH, 4001)


class Best(NamedTuple):
    """The normal law for one double well whose weights have the least second moment."""

    mean: float
    variance: float
    factor: float


def best_normal(like: dict) -> Best:
    """By a search over mean and variance; `factor` is 1 + chi^2."""

    def factor(at):
        mean = torch.full((1,), float(at[0]), **like)
        return moment(energies.Gaussian(mean, torch.full((1, 1), math.exp(at[1]), **like)), 2)

    found = optimize.minimize(
        factor, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}
    )
    return Best(float(found.x[0]), math.exp(found.x[1]), float(found.fun))


def draws_needed(c: float, d):
    """Equation (1), of c = 1 + chi^2."""
    return (c**d - 1) / WANTED**2


def second_moment(energy, q, log_z: float, n: int, generator) -> float:
    """1 + chi^2 in all dimensions at once, E_q (w / Z)^2 = E_p (w / Z), by importance sampling."""

    def weight(x):
        return (samplers.log_weights(energy, q, x) - log_z).exp()

    got = samplers.importance_estimate(weight, energy, q, n, generator, log_z=log_z)
    return float(got.value)


def moment_p(got: float, moments: dict[int, float], d: int, n: int) -> float:
    """p-value of a second moment in d dimensions, as estimated by n draws.

    Args:
        moments: 2, 4 and 6 of w / Z under q, of one coordinate; they give the estimate's exact
            mean, variance and skewness.
    """
    second, fourth, sixth = (moments[k] ** d for k in (2, 4, 6))
    variance = fourth - second**2
    third = sixth - 3 * fourth * second + 2 * second**3
    z = (got - second) / math.sqrt(variance / n)
    return pvalues.of_known(z, third / variance**1.5 / math.sqrt(n))


class Annealing(NamedTuple):
    """Of d double wells, from N(0, I) by 16 d temperatures.

    Attributes:
        cost: evaluations for an error of `WANTED`, and se.
        p: p-value of the mean weight's deviation from Z.
    """

    cost: float
    se: float
    p: float


def annealing(d: int, n: int, generator, like: dict, step: float = 0.15) -> Annealing:
    """By n particles, moved by MALA with this step."""
    got = samplers.annealed_importance_sampling(
        energies.double_well, normal(d, 1.0, like), n, 16 * d, step, generator=generator
    )
    log_z = math.log(quadrature(energies.double_well, -4, 4, 401))
    w = (got.log_weights - d * log_z).exp()
    square = (w - 1).square() * got.n_gradients / WANTED**2
    se = float(square.std()) / math.sqrt(n)
    return Annealing(float(square.mean()), se, pvalues.of_mean(w, 1.0))


def growth(first: Annealing, last: Annealing, dimensions: int) -> tuple[float, float]:
    """By what one more dimension multiplies the cost, and its error."""
    over, error = ratio(first, last)
    factor = over ** (1 / dimensions)
    return factor, factor * error / over / dimensions


def ratio(first: Annealing, last: Annealing) -> tuple[float, float]:
    """The last cost over the first, and its error."""
    over = last.cost / first.cost
    return over, over * math.hypot(first.se / first.cost, last.se / last.cost)


# Structure ------------------------------------------------------------------------------------


def chain(x: Tensor) -> Tensor:
    """Double wells, each coupled to the next by (x_k - x_{k+1})^2 / 2."""
    return energies.double_well(x) + 0.5 * x.diff(dim=1).square().sum(1)


def transfer(d: int, k: int) -> float:
    """log Z of the chain: one coordinate integrated out after the other, d - 1 products."""
    side = torch.linspace(-REACH, REACH, k, dtype=torch.float64)
    single = (-energies.double_well(side[:, None])).exp() * float(side[1] - side[0])
    pair = (-0.5 * (side[:, None] - side).square()).exp()
    message, log_scale = single, 0.0
    for _ in range(d - 1):
        message = single * (pair @ message)
        log_scale += float(message.sum().log())
        message = message / message.sum()
    return log_scale + float(message.sum().log())
