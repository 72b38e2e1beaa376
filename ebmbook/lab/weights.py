"""Importance sampling where its variance, its bias and its effective sample size are known.

For N(0, 1) under N(0, s^2), a coordinate: E w^2 = s^2 / sqrt(2 s^2 - 1), infinite for s^2 <= 1/2.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ebmbook.lab.envelopes import one_wrong
from ebmbook.lab.normaliser import moment_p, normal, second_moment
from ebmref import energies, samplers

# Moments of the weight at s^2 = 2, a coordinate.
MOMENTS = {k: 2 ** (k / 2) / math.sqrt(k + 1) for k in (2, 4, 6)}
SECOND = MOMENTS[2]
PLAIN = 8 / (3 * math.sqrt(3)) - 1  # N times the variance of the estimate of <x^2>
BIAS = 2 / math.sqrt(3) * math.exp(1 / 12) / 6  # minus N times the bias, see `biases`


def plain_estimates(n: int, n_runs: int, generator, like: dict) -> Tensor:
    """Of <x^2> = 1 under N(0, 1) by n draws of N(0, 2) each: `(n_runs,)`."""
    p = normal(1, 1.0, like)
    return samplers.importance_estimate(
        lambda x: x[:, 0].square(), p, normal(1, 2.0, like), n, generator,
        log_z=p.log_z, n_replicates=n_runs,
    ).value.cpu()  # fmt: skip


class Bias(NamedTuple):
    """Of the self-normalised estimate with n draws: its bias and standard error, and its sd."""

    value: float
    se: float
    sd: float


def bias(n: int, n_runs: int, seed_of, like: dict) -> Bias:
    """Of <x - 1/2> = 0 under N(1/2, 1) by draws of N(0, 2).

    The plain estimate of the same draws has no bias: the mean difference of both is the bias, with
    far less noise.

    Args:
        seed_of: gives a fresh generator of the same stream at each call.
    """
    p = energies.Gaussian(torch.full((1,), 0.5, **like), torch.eye(1, **like))
    own, plain = (
        samplers.importance_estimate(
            lambda x: x[:, 0] - 0.5, p, normal(1, 2.0, like), n, seed_of(),
            log_z=known, n_replicates=n_runs,
        ).value
        for known in (None, p.log_z)
    )  # fmt: skip
    gap = own - plain
    return Bias(float(gap.mean()), float(gap.std()) / math.sqrt(n_runs), float(own.std()))


def power_of(first: Bias, last: Bias, ratio: float) -> tuple[float, float]:
    """The power of N that the bias goes as, between sizes of this ratio, and its error."""
    reach = math.log(ratio)
    relative = math.hypot(first.se / first.value, last.se / last.value)
    return math.log(last.value / first.value) / reach, relative / reach


class Variances(NamedTuple):
    """Measured variance of the weights, and the p-value of its deviation from the law."""

    value: float
    p: float


def variance(d: int, n_wrong: int, n: int, generator, like: dict) -> Variances:
    """With one coordinate wrong, or all d of them."""
    p = normal(d, 1.0, like)
    q = normal(d, 2.0, like) if n_wrong == d else one_wrong(d, like)
    got = second_moment(p, q, p.log_z, n, generator)
    return Variances(got - 1, moment_p(got, MOMENTS, n_wrong, n))


def running_variance(s2: float, at: np.ndarray, n_paths: int, generator, like: dict) -> Tensor:
    """Variance of the weight as estimated from the first draws, `(n_paths, len(at))`."""
    p, q, n = normal(1, 1.0, like), normal(1, s2, like), int(at[-1])
    x = q.sample(n_paths * n, generator)
    w = (samplers.log_weights(p, q, x) - p.log_z).exp().view(n_paths, n)
    first, second = (part.cumsum(1)[:, at - 1].cpu() / torch.tensor(at) for part in (w, w.square()))
    return second - first.square()


def median_growth(ends: Tensor, generator) -> tuple[float, float]:
    """log of the median of the second column over that of the first; error by the bootstrap."""
    n = len(ends)
    again = torch.randint(n, (1000, n), generator=generator)
    middle = ends.median(0).values.log()
    spread = ends[again].median(1).values.log().diff(dim=1).std()
    return float(middle[1] - middle[0]), float(spread)


def rank_correlation(s2: float, d: int, generator, like: dict) -> float:
    """Spearman's, of weight and density, over a thousand draws of N(0, s^2 I) for N(0, I)."""
    p, q = normal(d, 1.0, like), normal(d, s2, like)
    x = q.sample(1000, generator)
    log_w = samplers.log_weights(p, q, x)
    return float(stats.spearmanr(p.log_prob(x).cpu(), log_w.cpu())[0])


class Degraded(NamedTuple):
    """Of runs of a thousand draws of N(0, 2 I) for N(0, I), `(n_runs,)` each.

    Attributes:
        outskirts: share of the weight beyond the 99 % quantile of |x|^2.
        largest: share of the largest weight.
        ess: effective draws by the weights.
    """

    outskirts: Tensor
    largest: Tensor
    ess: Tensor


def degraded(d: int, n_runs: int, generator, like: dict) -> Degraded:
    """How one run spends its weight in d dimensions."""
    p, radius = normal(d, 1.0, like), float(stats.chi2.ppf(0.99, d))
    got = samplers.importance_estimate(
        lambda x: (x.square().sum(1) > radius).double(), p, normal(d, 2.0, like), 1000,
        generator, n_replicates=n_runs,
    )  # fmt: skip
    # A share that is one up to rounding is one.
    return Degraded(got.value.cpu().round(decimals=12), got.max_share.cpu(), got.ess.cpu())


def by_size(d: int, sizes: tuple[int, ...], n_runs: int, generator, like: dict) -> dict:
    """What the outskirts of `Degraded` get when the same draws are cut into runs of each size.

    Returns:
        By size, the shares of all runs, `(n_runs * max(sizes) / size,)`.
    """
    p, q, radius = normal(d, 1.0, like), normal(d, 2.0, like), float(stats.chi2.ppf(0.99, d))
    x = q.sample(n_runs * max(sizes), generator)
    log_w, outside = samplers.log_weights(p, q, x), (x.square().sum(1) > radius).double()
    return {n: (log_w.view(-1, n).softmax(1) * outside.view(-1, n)).sum(1).cpu() for n in sizes}


def inner_weight(d: int, n_runs: int, generator, like: dict) -> Tensor:
    """Weight that a thousand draws give to the inner half of the target, over N: `(n_runs,)`."""
    p, radius = normal(d, 1.0, like), float(stats.chi2.median(d))
    return samplers.importance_estimate(
        lambda x: (x.square().sum(1) < radius).double(), p, normal(d, 2.0, like), 1000,
        generator, log_z=p.log_z, n_replicates=n_runs,
    ).value.cpu()  # fmt: skip


class Alarm(NamedTuple):
    """What runs say of themselves, `(n_runs,)` each.

    Attributes:
        ratio: estimated over true variance of the weights.
        covered: 1 where 1.96 standard errors hold the truth.
        ess: effective draws that a run reports.
        k: Pareto k-hat.
        z: estimated over exact Z.
    """

    ratio: Tensor
    covered: Tensor
    ess: Tensor
    k: Tensor
    z: Tensor


def second(s2: float) -> float:
    """1 + chi^2 of a coordinate, of N(0, 1) under N(0, s^2), s^2 > 1/2."""
    return s2 / math.sqrt(2 * s2 - 1)


def alarm(d: int, n_runs: int, generator, like: dict, *, s2: float = 0.6, n: int = 1000) -> Alarm:
    """Of <|x|^2> / d = 1 by n draws of N(0, s^2 I), by default slightly too narrow."""
    p = normal(d, 1.0, like)
    got = samplers.importance_estimate(
        lambda x: x.square().mean(1), p, normal(d, s2, like), n, generator,
        n_replicates=n_runs,
    )  # fmt: skip
    mean = (got.log_z - p.log_z).exp()
    estimated = (mean * got.log_z_se).square() * n
    return Alarm(
        (estimated / (second(s2) ** d - 1)).cpu(),
        ((got.value - 1).abs() < 1.96 * got.se).cpu().double(),
        got.ess.cpu(), got.pareto_k.cpu(), mean.cpu(),
    )  # fmt: skip
