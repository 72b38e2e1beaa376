"""How good are samples of a model, and what can each number not see.

On toys the modes are known and one counts (`mode_statistics`). On pictures one compares two
clouds of features, of the data and of the model: by their first two moments
(`frechet_distance`), by a kernel's moments (`kernel_distance`, `mmd_test`), or by whether
either cloud covers the other (`manifold`). `parzen_log_likelihood` is the first of them all,
kept because a cited table is in its units. None of them is a likelihood.

Both clouds must be of the same size in any comparison: each of these numbers depends on it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ebmref.checks import check_tensors


def _check_clouds(least: int = 2, **clouds: Tensor) -> None:
    """Raise ValueError unless all are finite float `(n, d)`, d the same, n >= least."""
    for name, x in clouds.items():
        if not isinstance(x, Tensor) or x.dim() != 2 or not x.is_floating_point():
            got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name}: expected a float tensor (n, d); got {got}")
        if len(x) < least:
            raise ValueError(f"{name}: expected {least} rows or more; got {len(x)}")
        if not x.isfinite().all():
            raise ValueError(f"{name}: has values that are not finite")
    widths = {name: x.shape[1] for name, x in clouds.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"{', '.join(widths)}: expected as many columns of each; got {widths}")


# Coordinates up to here, and down to its inverse, are squared without over- or underflow.
_LARGEST = 1e100
# A centre so many spreads away costs the products three digits.
_FAR = 30.0
# Below this share of the points' size a distance by products has seven digits left of sixteen.
_NEAR = 1e-4


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, `(n, m)`, in double precision; to seven digits, and of copies exactly zero.

    By matrix products, which are fast, but differences of squares: they lose digits of clouds far
    from the origin, and of points near each other. So a centre that is far is taken off, and the
    few near pairs are done once more, by their differences.
    """
    x, y = x.double(), y.double()
    unit = _unit(x, y)
    if not 1 / _LARGEST < unit < _LARGEST:
        return unit * _distances(x / unit, y / unit)
    centre = y.mean(0)
    if centre.norm() > _FAR * (y - centre).square().sum(1).mean().sqrt():
        x, y = x - centre, y - centre
    distance = torch.cdist(x, y)
    size_x, size_y = x.norm(dim=1), y.norm(dim=1)
    if distance.amin() < _NEAR * (size_x.amax() + size_y.amax()):
        distance = _mended(distance, size_x, size_y, x, y)
    return distance


def _mended(distance: Tensor, size_x: Tensor, size_y: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Distances with those of near pairs made by differences."""
    i, j = (distance < _NEAR * (size_x.amax() + size_y.amax())).nonzero(as_tuple=True)
    near = distance[i, j] < _NEAR * (size_x[i] + size_y[j])
    i, j = i[near], j[near]
    if 8 * len(i) > distance.numel():
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    step = max(1, 2**22 // x.shape[1])
    for rows, columns in zip(i.split(step), j.split(step), strict=True):
        distance[rows, columns] = (x[rows] - y[columns]).norm(dim=1)
    return distance


def _unit(*clouds: Tensor) -> float:
    """The power of two next above all coordinates; to divide by it changes no digit."""
    return 2.0 ** min(1023, math.frexp(max(float(x.abs().max()) for x in clouds))[1])


class Modes(NamedTuple):
    """Samples counted at the modes of a mixture of equal, round Gaussians.

    Attributes:
        counts: `(k,)`, high-quality samples of each mode.
        high_quality: share of the samples within `radius` standard deviations of their
            nearest mode; of exact draws in two dimensions 1 - exp(-radius^2 / 2).
        covered: modes with at least one high-quality sample.
        populated: modes with at least a tenth of their fair share.
        kl: of the modes' frequencies among high-quality samples to the uniform, in nats.
        tv: their total variation distance, in [0, 1].
        jsd: Jensen-Shannon divergence in nats between the histogram of all samples over the
            modes and "none of them" and the uniform over the modes (Turner et al. 2019).
        spread: root mean square deviation of a coordinate of the high-quality samples from
            their mode, over the true one; 1 is right, below 1 the modes are too sharp.
    """

    counts: Tensor
    high_quality: float
    covered: int
    populated: int
    kl: float
    tv: float
    jsd: float
    spread: float


def mode_statistics(x: Tensor, means: Tensor, scale: float, radius: float = 4.0) -> Modes:
    """Count samples at the modes of a mixture of k equal Gaussians.

    Args:
        x: `(n, d)`, samples.
        means: `(k, d)`, the modes.
        scale: their standard deviation, > 0.
        radius: how many of them a high-quality sample may be away, > 0.

    Raises:
        ValueError: clouds that do not fit or are not finite; a scale or radius that is not > 0.
    """
    _check_clouds(1, x=x, means=means)
    if not scale > 0 or not radius > 0:
        raise ValueError(f"scale, radius: expected > 0; got {scale} and {radius}")
    n, k = len(x), len(means)
    distance, nearest = _distances(x, means).min(1)
    good = distance <= radius * scale
    counts = torch.bincount(nearest[good], minlength=k)
    n_good = int(counts.sum())
    if n_good == 0:
        return Modes(counts, 0.0, 0, 0, math.nan, 1.0, math.log(2), math.nan)
    share = counts.double() / n_good
    kl = float(torch.xlogy(share, share * k).sum())
    tv = 0.5 * float((share - 1 / k).abs().sum())
    seen = torch.cat([counts, counts.new_tensor([n - n_good])]).double() / n
    ideal = torch.cat([torch.full_like(share, 1 / k), share.new_zeros(1)])
    centre = 0.5 * (seen + ideal)
    terms = torch.xlogy(seen, seen / centre) + torch.xlogy(ideal, ideal / centre)
    jsd = 0.5 * float(terms.nan_to_num().sum())  # 0 / 0 where neither has anything
    deviation = (x - means[nearest])[good].double().square().mean().sqrt()
    return Modes(
        counts,
        n_good / n,
        int((counts > 0).sum()),
        int((counts * k >= 0.1 * n).sum()),
        kl,
        tv,
        jsd,
        float(deviation) / scale,
    )


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Squared Wasserstein-2 distance of the two Gaussians with the clouds' moments.

        |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^{1/2})

    In features of an Inception network this is the FID (Heusel et al. 2017); it sees means and
    covariances, nothing else. It is biased upwards, the more the fewer samples there are.

    Args:
        x, y: `(n, d)` and `(m, d)`, features.

    Raises:
        ValueError: clouds that do not fit or are not finite.
    """
    _check_clouds(x=x, y=y)
    x, y = x.double(), y.double()
    unit = _unit(x, y)
    if not 1 / _LARGEST < unit < _LARGEST:
        return frechet_distance(x / unit, y / unit) * unit * unit
    shift = (x.mean(0) - y.mean(0)).square().sum()
    one, two = torch.cov(x.mT).view(2 * [x.shape[1]]), torch.cov(y.mT).view(2 * [y.shape[1]])
    # tr (C_x C_y)^{1/2} is the sum of the singular values of C_x^{1/2} C_y^{1/2}.
    cross = torch.linalg.svdvals(_root(one) @ _root(two)).sum()
    return max(0.0, float(shift + one.trace() + two.trace() - 2 * cross))


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / d + 1)^3, `(n, m)`: the kernel of the KID (Binkowski et al. 2018).

    It knows where the origin is. Features far from it have kernels so large that their differences,
    the KID, keep few digits.
    """
    return (x @ y.mT / x.shape[1] + 1).pow(3)


def gaussian_kernels(x: Tensor, y: Tensor, bandwidths: Tensor) -> Tensor:
    """Mean over the bandwidths h of exp(-|x - y|^2 / (2 h^2)), `(n, m)`."""
    squared = _distances(x, y).square()
    return sum((-squared / (2 * h**2)).exp() for h in bandwidths.tolist()) / len(bandwidths)


def kernel_distance(x: Tensor, y: Tensor, kernel=polynomial_kernel) -> tuple[float, float]:
    """Unbiased squared maximum mean discrepancy, and its standard error (Gretton et al. 2012).

    With the polynomial kernel on Inception features it is the KID. Unlike the Frechet distance it
    has no bias: it is zero in the mean where the laws agree, and may be negative.

    Args:
        x, y: `(n, d)` each, n the same and >= 4.
        kernel: `kernel(x, y) -> (n, m)`, symmetric.

    Returns:
        The estimate, mean over i != j of h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) -
        k(x_j, y_i), and its standard error to first order, 2 sd_i(mean_j h_ij) / sqrt(n).

    Raises:
        ValueError: clouds that do not fit, are not finite, or are of different size; a kernel of
            wrong shape or not finite.
    """
    h, n = _discrepancy(x, y, kernel)
    rows = h.sum(1) / (n - 1)
    return float(rows.mean()), float(2 * rows.std() / math.sqrt(n))


def _discrepancy(x: Tensor, y: Tensor, kernel) -> tuple[Tensor, int]:
    _check_clouds(4, x=x, y=y)
    if len(x) != len(y):
        raise ValueError(f"x, y: expected as many rows of each; got {len(x)} and {len(y)}")
    x, y = x.double(), y.double()
    cross = kernel(x, y)
    if cross.shape != (len(x), len(y)):
        raise ValueError(f"kernel: expected {(len(x), len(y))}; got {tuple(cross.shape)}")
    h = kernel(x, x) + kernel(y, y) - cross - cross.mT
    if not h.isfinite().all():
        raise ValueError("kernel: is not finite for some pairs")
    h.fill_diagonal_(0)
    return h, len(x)


class MmdTest(NamedTuple):
    """Are two clouds of one law? `value` is the squared MMD, `p_value` by permutation."""

    value: float
    p_value: float


def mmd_test(
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
    *,
    bandwidths: Tensor | None = None,
    n_permutations: int = 500,
) -> MmdTest:
    """Permutation test of the squared MMD with Gaussian kernels: exact at any n.

    Args:
        x, y: `(n, d)` each, of the same size.
        bandwidths: of the kernels; None for the median distance times 1/4, 1/2, 1, 2.
        n_permutations: the p-value is a multiple of 1 / (n_permutations + 1).

    Raises:
        ValueError: as `kernel_distance`; a bandwidth that is not > 0; no permutations.
    """
    _check_clouds(4, x=x, y=y)
    if len(x) != len(y):
        raise ValueError(f"x, y: expected as many rows of each; got {len(x)} and {len(y)}")
    if n_permutations < 1:
        raise ValueError(f"n_permutations: expected >= 1; got {n_permutations}")
    both = torch.cat([x, y]).double()
    # In units of their size: squares of any clouds and bandwidths then fit.
    unit = _unit(both)
    both = both / unit
    if bandwidths is None:
        median = torch.pdist(both[:: max(1, len(both) // 1000)]).median()
        # In single precision: recorded numbers hang on the last bit.
        factors = torch.tensor([0.25, 0.5, 1.0, 2.0], dtype=torch.float32, device=x.device)
        bandwidths = median * factors
    else:
        check_tensors(bandwidths=bandwidths)
        bandwidths = bandwidths.double() / unit
    if bandwidths.numel() < 1 or not ((bandwidths > 0) & bandwidths.isfinite()).all():
        raise ValueError("bandwidths: expected all > 0; points that are all equal have none")
    gram = gaussian_kernels(both, both, bandwidths)
    gram.fill_diagonal_(0)
    n = len(x)
    # With s = +-1 telling the clouds apart, s^T K s is the statistic, up to constants.
    order = torch.stack(
        [torch.arange(2 * n, device=x.device)]
        + [
            torch.randperm(2 * n, generator=generator, device=generator.device).to(x.device)
            for _ in range(n_permutations)
        ]
    )
    sign = torch.where(order < n, 1.0, -1.0).to(gram)
    inside = (sign @ gram * sign).sum(1)  # K_xx + K_yy - 2 K_xy
    total = gram.sum()
    within, across = (total + inside) / 2, (total - inside) / 4
    values = within / (n * (n - 1)) - 2 * across / n**2
    p = (1 + int((values[1:] >= values[0]).sum())) / (n_permutations + 1)
    return MmdTest(float(values[0]), p)


class Manifold(NamedTuple):
    """Does either cloud cover the other, by balls that reach to the k-th neighbour?

    Attributes:
        precision: share of the model's samples inside a ball of the data.
        recall: share of the data inside a ball of the model's samples (Kynkaanniemi et al. 2019).
        density: how many balls of the data a sample lies in, over k.
        coverage: share of the data's balls that hold a sample (Naeem et al. 2020).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: Tensor, fake: Tensor, k: int = 5) -> Manifold:
    """Precision, recall, density and coverage of `fake` against `real`.

    Two clouds of one law do not score 1: a cloud of the data itself is the yardstick.

    Args:
        real, fake: `(n, d)` each, features.
        k: the neighbour that a ball reaches to, 1 <= k < n.

    Raises:
        ValueError: clouds that do not fit or are not finite, or a k out of range.
    """
    _check_clouds(real=real, fake=fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"k: expected between 1 and the number of points; got {k}")
    reach_real, reach_fake = _reach(real, k), _reach(fake, k)
    inside = torch.zeros(len(fake), dtype=torch.float64, device=fake.device)
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    recalled = torch.zeros_like(covered)
    for rows in torch.arange(len(real), device=real.device).split(1024):
        distance = _distances(real[rows], fake)
        near = distance <= reach_real[rows, None]
        inside += near.sum(0)
        covered[rows] = near.any(1)
        recalled[rows] = (distance <= reach_fake).any(1)
    return Manifold(
        float((inside > 0).double().mean()),
        float(recalled.double().mean()),
        float(inside.mean()) / k,
        float(covered.double().mean()),
    )


def _reach(x: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th neighbour, itself not counted."""
    parts = [_distances(rows, x).kthvalue(k + 1, dim=1).values for rows in x.split(1024)]
    return torch.cat(parts)


def nearest(x: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Distance `(n,)` to the nearest of `among` `(m, d)`, and its index `(n,)`.

    A model that memorises has samples nearer to its training set than fresh data are.
    """
    _check_clouds(1, x=x, among=among)
    among = among.double()
    parts = [_distances(rows, among).min(1) for rows in x.split(1024)]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def class_shares(labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Share of each class `(n_classes,)` and its standard error.

    Raises:
        ValueError: no labels, or one outside 0 .. n_classes - 1.
    """
    check_tensors(labels=labels)
    if labels.dim() != 1 or len(labels) < 1 or labels.is_floating_point():
        raise ValueError(f"labels: expected integers (n,), n >= 1; got {tuple(labels.shape)}")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels: expected 0 .. {n_classes - 1}")
    share = torch.bincount(labels, minlength=n_classes).double() / len(labels)
    return share, (share * (1 - share) / len(labels)).sqrt()


class Parzen(NamedTuple):
    """Mean log-likelihood of the test set, its standard error over it, and the bandwidth."""

    value: float
    se: float
    bandwidth: float


def parzen_log_likelihood(
    samples: Tensor,
    validation: Tensor,
    test: Tensor,
    bandwidths: Tensor | None = None,
    *,
    progress: bool = False,
) -> Parzen:
    """Log-likelihood of test data under Gaussians around a model's samples.

        log p(x) = log mean_j exp(-|x - s_j|^2 / (2 h^2)) - d log(h sqrt(2 pi))

    The protocol of Goodfellow et al. (2014): h by the mean over the validation set, from ten
    values between 0.1 and 1 evenly spaced in the logarithm. In hundreds of dimensions it says
    little of the model: it grows with the number of samples, and cluster centres can beat the
    data itself (Theis et al. 2016).

    Args:
        samples: `(m, d)`, of the model; Goodfellow's m is 10,000.
        validation, test: `(n, d)`.
        bandwidths: h to choose from, > 0.

    Raises:
        ValueError: clouds that do not fit or are not finite, or a bandwidth that is not > 0.
    """
    _check_clouds(samples=samples, validation=validation, test=test)
    if bandwidths is None:
        bandwidths = torch.logspace(-1, 0, 10, dtype=torch.float32)
    check_tensors(bandwidths=bandwidths)
    if bandwidths.numel() < 1 or not ((bandwidths > 0) & bandwidths.isfinite()).all():
        raise ValueError("bandwidths: expected one or more, all > 0")
    choices = [float(h) for h in bandwidths]
    on_validation = _parzen(samples, validation, choices, progress).mean(1)
    best = choices[int(on_validation.argmax())]
    values = _parzen(samples, test, [best], progress)[0]
    return Parzen(float(values.mean()), float(values.std() / math.sqrt(len(values))), best)


def _parzen(samples: Tensor, x: Tensor, bandwidths: list[float], progress: bool) -> Tensor:
    """Log-likelihoods `(len(bandwidths), n)`."""
    m, d = samples.shape
    parts = []
    for rows in tqdm(x.split(500), desc="Parzen", unit="block", disable=not progress):
        squared = _distances(rows, samples).square()
        parts.append(
            torch.stack(
                [
                    (-squared / (2 * h**2)).logsumexp(1)
                    - math.log(m)
                    - d * math.log(h * math.sqrt(2 * math.pi))
                    for h in bandwidths
                ]
            )
        )
    return torch.cat(parts, 1)
