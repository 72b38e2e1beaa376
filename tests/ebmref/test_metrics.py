"""Each metric against a case whose value is known, and each refuses what it cannot measure."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from sklearn.metrics import pairwise
from sklearn.neighbors import KernelDensity, NearestNeighbors

from ebmref import data, metrics


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, d=3, seed=0, shift=0.0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64) + shift


GRID = data.gaussian_grid(torch.zeros(1, dtype=torch.float64))


def test_exact_draws_have_every_mode_and_their_share_of_quality():
    """20,000 exact draws: 25 modes, 1 - exp(-8) within 4 sd, spread 1 within 1 %, JSD small."""
    got = metrics.mode_statistics(GRID.sample(20000, generator()), GRID.means, 0.05)
    share = 1 - math.exp(-8)
    assert got.covered == got.populated == 25
    assert abs(got.high_quality - share) < 4 * math.sqrt(share * (1 - share) / 20000)
    assert got.spread == pytest.approx(1, abs=0.01)
    # 2 n KL is chi-squared with 24 degrees; its 1e-6 point is 84.
    assert 0 <= got.kl < 84 / 40000
    assert 0 <= got.jsd < 0.003


def test_modes_are_counted_by_hand():
    """Three of one mode, one of another, one astray, of four modes."""
    means = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    x = torch.tensor([[0.0, 0.01], [0.01, 0.0], [0.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    got = metrics.mode_statistics(x, means, 0.01)
    assert got.counts.tolist() == [3, 1, 0, 0]
    assert (got.high_quality, got.covered, got.populated) == (0.8, 2, 2)
    assert got.tv == pytest.approx(0.5)
    assert got.kl == pytest.approx(0.75 * math.log(3) + 0.25 * math.log(1))
    seen, ideal = np.array([0.6, 0.2, 0, 0, 0.2]), np.array([0.25, 0.25, 0.25, 0.25, 0])
    centre = (seen + ideal) / 2
    assert got.jsd == pytest.approx(
        (stats.entropy(seen, centre) + stats.entropy(ideal, centre)) / 2
    )
    assert got.spread == pytest.approx(math.sqrt(2 * 0.01**2 / 8) / 0.01, rel=1e-5)


def test_no_good_sample_is_total_collapse():
    """All astray: no mode, and the JSD of two laws without a common point, log 2."""
    got = metrics.mode_statistics(torch.full((10, 2), 9.0), GRID.means.float(), 0.05)
    assert (got.covered, got.high_quality, got.tv) == (0, 0.0, 1.0)
    assert got.jsd == pytest.approx(math.log(2))


@pytest.mark.parametrize("seed", range(5))
def test_divergences_of_the_modes_are_scipys(seed):
    """Samples thrown at ten modes and astray at random: KL and JSD by SciPy's entropy, total
    variation by hand, the tenth of a fair share counted one by one."""
    k, n, source = 10, 400, np.random.default_rng(seed)
    means = torch.arange(2.0 * k, dtype=torch.float64).view(k, 2) * 5
    chance = np.append(source.dirichlet(np.full(k, 0.3)), 0.2)
    where = source.choice(k + 1, n, p=chance / chance.sum())
    middle = torch.cat([means, torch.full((1, 2), -50.0, dtype=torch.float64)])
    got = metrics.mode_statistics(middle[where] + 0.01 * normal(n, 2, seed), means, 0.1)
    counts = np.bincount(where, minlength=k + 1)
    assert got.counts.tolist() == counts[:k].tolist()
    assert got.high_quality == counts[:k].sum() / n
    share = counts[:k] / counts[:k].sum()
    assert got.kl == pytest.approx(stats.entropy(share, np.full(k, 1 / k)))
    assert got.tv == pytest.approx(np.abs(share - 1 / k).sum() / 2)
    seen, ideal = counts / n, np.append(np.full(k, 1 / k), 0)
    centre = (seen + ideal) / 2
    expected = (stats.entropy(seen, centre) + stats.entropy(ideal, centre)) / 2
    assert got.jsd == pytest.approx(expected)
    assert got.covered == sum(c > 0 for c in counts[:k])
    assert got.populated == sum(c >= 0.1 * n / k for c in counts[:k])


def test_a_fair_share_is_of_all_samples():
    """Two modes, a hundred samples, half of them astray: a tenth of 50 is 5, and 4 are too few."""
    means = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 50.0]])
    for few, populated in ((4, 1), (5, 2)):
        where = torch.tensor([0] * (50 - few) + [1] * few + [2] * 50)
        got = metrics.mode_statistics(means[where], means[:2], 0.1)
        assert (got.covered, got.populated) == (2, populated)


def test_all_samples_good_is_a_case_like_any_other():
    """Nobody astray: the JSD is that of the modes alone, 0 for even ones."""
    means = GRID.means
    assert metrics.mode_statistics(means, means, 0.05).jsd == pytest.approx(0, abs=1e-12)
    half = metrics.mode_statistics(means[:5].repeat(3, 1), means, 0.05)
    seen, ideal = np.repeat([0.2, 0], [5, 20]), np.full(25, 0.04)
    centre = (seen + ideal) / 2
    expected = (stats.entropy(seen, centre) + stats.entropy(ideal, centre)) / 2
    assert half.jsd == pytest.approx(expected)
    assert half.kl == pytest.approx(math.log(5))


@pytest.mark.parametrize("scale", [0.02, 0.5])
def test_the_spread_and_quality_of_wrong_widths(scale):
    """Samples s times as wide: the spread is s (within 4 standard errors, s / sqrt(2 n d)) until
    the four-sigma ball cuts them; of s = 2 the share inside is 1 - exp(-2)."""
    n, mode = 4000, torch.zeros(1, 2, dtype=torch.float64)
    for s in (0.3, 0.7):
        got = metrics.mode_statistics(s * scale * normal(n, 2), mode, scale)
        assert abs(got.spread - s) < 4 * s / math.sqrt(4 * n)
    wide = metrics.mode_statistics(2 * scale * normal(n, 2), mode, scale)
    share = 1 - math.exp(-2)
    assert abs(wide.high_quality - share) < 4 * math.sqrt(share * (1 - share) / n)


def test_frechet_distance_is_scipys():
    """The formula with SciPy's matrix square root, on correlated clouds of different shape."""
    x = normal(300, 5) @ normal(5, 5, 1)
    y = normal(200, 5, 2, shift=0.5) @ normal(5, 5, 3)
    one, two = np.cov(x.T), np.cov(y.T)
    root = linalg.sqrtm(one @ two).real
    expected = float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(one + two - 2 * root)
    assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)
    assert metrics.frechet_distance(y, x) == pytest.approx(expected, rel=1e-8)
    assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_shifted_and_scaled_clouds():
    """|m|^2 for a shift; sum (s - 1)^2 var for a scale; and with fewer points than dimensions."""
    x = normal(50, 80)
    assert metrics.frechet_distance(x, x + 2) == pytest.approx(320, rel=1e-6)
    assert metrics.frechet_distance(x, 3 * x) == pytest.approx(
        float(4 * x.mean(0).square().sum() + 4 * x.var(0).sum()), rel=1e-6
    )


@pytest.mark.parametrize("n", [4, 12, 60])
def test_frechet_distance_with_few_points_is_the_same_number(n):
    """Covariances that are singular: the trace of the root from the eigenvalues of the product,
    which SciPy finds without a root."""
    x, y = normal(n, 20), normal(n, 20, 1, shift=0.2) @ normal(20, 20, 2)
    one, two = np.cov(x.T), np.cov(y.T)
    eigen = linalg.eigvals(one @ two).real.clip(0)
    expected = float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(one + two)
    expected -= 2 * np.sqrt(eigen).sum()
    # Rounding of a zero eigenvalue, 1e-13 of the largest, is 3e-7 under the root.
    assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_in_one_dimension():
    """(m_x - m_y)^2 + (s_x - s_y)^2, for single columns in single precision too."""
    x, y = normal(50, 1).float(), (3 * normal(70, 1, 1) + 1).float()
    expected = float((x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2)
    assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)


def test_kernels_are_scikit_learns():
    x, y = normal(6, 3), normal(8, 3, 1)
    cubic = pairwise.polynomial_kernel(x, y, degree=3, gamma=1 / 3, coef0=1)
    assert np.allclose(metrics.polynomial_kernel(x, y), cubic)
    widths = torch.tensor([0.5, 2.0])
    gaussian = np.mean([pairwise.rbf_kernel(x, y, 1 / (2 * h**2)) for h in (0.5, 2.0)], 0)
    assert np.allclose(metrics.gaussian_kernels(x, y, widths), gaussian)


def test_kernel_distance_of_copies_and_of_a_shift():
    """A cloud from itself is exactly 0, unlike the mean over all pairs with the diagonal; and with
    k(x, y) = x . y the estimate is |difference of means|^2 less what chance adds."""
    x, y = normal(40, 3), normal(40, 3, 1, shift=1.0)
    assert metrics.kernel_distance(x, x)[0] == pytest.approx(0, abs=1e-12)
    got = metrics.kernel_distance(x, y, lambda a, b: a @ b.mT)[0]
    means = (x - y).mean(0).square().sum() * 40**2
    expected = float(means - (x - y).square().sum()) / (40 * 39)
    assert got == pytest.approx(expected)


def test_kernel_distance_is_the_double_sum():
    """Against the definition written with loops."""
    x, y = normal(7, 2), normal(7, 2, 1, shift=0.3)
    k = lambda a, b: float((a @ b / 2 + 1) ** 3)  # noqa: E731
    terms = [
        k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i])
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    assert metrics.kernel_distance(x, y)[0] == pytest.approx(np.mean(terms))


def test_kernel_distance_is_unbiased_and_knows_its_error():
    """Two clouds of different law: 300 repeats agree with a large one within 4 standard errors,
    and the reported standard error with their spread within a quarter (sd of a spread of 300:
    4 %; the first-order formula is off by O(1/n))."""
    got = [
        metrics.kernel_distance(normal(100, 2, 2 * s), normal(100, 2, 2 * s + 1, shift=0.7))
        for s in range(300)
    ]
    values, errors = np.array(got).T
    exact, exact_se = metrics.kernel_distance(normal(4000, 2, 9001), normal(4000, 2, 9002, 0.7))
    spread = values.std(ddof=1)
    assert abs(values.mean() - exact) < 4 * math.hypot(spread / math.sqrt(300), exact_se)
    assert errors.mean() == pytest.approx(spread, rel=0.25)


def test_mmd_test_has_its_level_and_power():
    """Under one law p < 0.1 in about a tenth of 200 runs (4 sd: 0.015 to 0.185); a shift of one
    standard deviation is found always."""
    p = [
        metrics.mmd_test(normal(30, 2, s), normal(30, 2, s + 500), generator(s), n_permutations=99)
        for s in range(200)
    ]
    assert 0.015 <= np.mean([one.p_value <= 0.1 for one in p]) <= 0.185
    apart = metrics.mmd_test(normal(60, 2), normal(60, 2, 1, shift=1.0), generator())
    assert apart.p_value == pytest.approx(1 / 501)
    assert apart.value > 0


def test_mmd_test_value_is_the_unbiased_estimate():
    """As a double sum with the same Gaussian kernel; the cross term runs over all pairs."""
    x, y = normal(6, 2), normal(6, 2, 1)
    h = torch.tensor([0.8])
    gram = lambda a, b: (-torch.cdist(a, b).square() / (2 * 0.8**2)).exp()  # noqa: E731
    inner = sum(float(gram(a, a).sum() - 6) / 30 for a in (x, y))
    expected = inner - 2 * float(gram(x, y).mean())
    got = metrics.mmd_test(x, y, generator(), bandwidths=h, n_permutations=1)
    assert got.value == pytest.approx(expected, rel=1e-6)


def test_mmd_p_value_is_the_share_of_permutations():
    """Each of 60 permutations by the double sum with scikit-learn's kernel, drawn as the test
    draws them; the bandwidths are the median distance times 1/4, 1/2, 1, 2."""
    x, y = normal(9, 2), normal(9, 2, 1, shift=0.4)
    both = torch.cat([x, y])
    median = float(torch.pdist(both).median())
    gram = np.mean([pairwise.rbf_kernel(both, both, 1 / (2 * (median * f) ** 2))
                    for f in (0.25, 0.5, 1, 2)], 0)  # fmt: skip

    def value(one):
        other = np.setdiff1d(np.arange(18), one)
        inner = sum((gram[np.ix_(a, a)].sum() - 9) / 72 for a in (one, other))
        return inner - 2 * gram[np.ix_(one, other)].mean()

    source = generator(5)
    values = []
    for _ in range(60):
        order = torch.randperm(18, generator=source).numpy()
        values.append(value(np.flatnonzero(order < 9)))
    first = value(np.arange(9))
    got = metrics.mmd_test(x, y, generator(5), n_permutations=60)
    assert got.value == pytest.approx(first, rel=1e-5)
    assert got.p_value == (1 + sum(v >= first for v in values)) / 61
    assert 0.02 < got.p_value < 0.9


def test_mmd_test_keeps_its_level_with_few_points():
    """Four against four: of 35 splits the true one is the most extreme in one of 35 runs, so that
    no p is below about 1/35, though rounding could tell equal splits apart. Of 300 runs, p <= .1
    in at most .1 and 4 standard deviations, .17."""
    p = [
        metrics.mmd_test(normal(4, 1, s), normal(4, 1, s + 500), generator(s), n_permutations=199)
        for s in range(300)
    ]
    p = np.array([one.p_value for one in p])
    assert p.min() > 0.005
    assert (p <= 0.1).mean() <= 0.1 + 4 * math.sqrt(0.09 / 300)


def test_manifold_against_scikit_learn():
    """Precision, recall, density and coverage from its neighbours."""
    real, fake, k = normal(150, 3), normal(150, 3, 1, shift=0.4), 4
    got = metrics.manifold(real, fake, k)

    def reach(x):
        return NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, -1]

    distance = torch.cdist(real, fake).numpy()
    in_real = distance <= reach(real)[:, None]
    assert got.precision == pytest.approx(in_real.any(0).mean())
    assert got.recall == pytest.approx((distance <= reach(fake)[None]).any(1).mean())
    assert got.density == pytest.approx(in_real.sum() / k / 150)
    assert got.coverage == pytest.approx(in_real.any(1).mean())


def test_manifold_sees_collapse_and_strays():
    """One mode of two: precise, and half covered. Far away: nothing."""
    real = torch.cat([normal(200, 2, 0), normal(200, 2, 1, shift=20.0)])
    collapsed = metrics.manifold(real, normal(400, 2, 2))
    assert collapsed.precision > 0.9
    assert collapsed.coverage <= 0.5
    assert collapsed.recall <= 0.51
    away = metrics.manifold(real, normal(400, 2, 3, shift=-50.0))
    assert (away.precision, away.density, away.coverage) == (0, 0, 0)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("n, m", [(1500, 400), (300, 1100)])
def test_manifold_of_clouds_of_other_sizes(n, m, k):
    """More points than a block holds; scikit-learn's neighbours; exchanged, precision and recall
    change places."""
    real, fake = normal(n, 4), normal(m, 4, 1, shift=0.5)
    got = metrics.manifold(real, fake, k)
    reach = [
        NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, -1] for x in (real, fake)
    ]
    distance = pairwise.euclidean_distances(real, fake)
    inside = distance <= reach[0][:, None]
    assert got.precision == pytest.approx(inside.any(0).mean())
    assert got.recall == pytest.approx((distance <= reach[1][None]).any(1).mean())
    assert got.density == pytest.approx(inside.sum() / (k * m))
    assert got.coverage == pytest.approx(inside.any(1).mean())
    turned = metrics.manifold(fake, real, k)
    assert (turned.precision, turned.recall) == (got.recall, got.precision)


def test_manifold_of_a_cloud_with_itself():
    """Each point is in its own ball and in k others' on average: all 1, and density (k + 1) / k."""
    x = normal(200, 3)
    got = metrics.manifold(x, x, 4)
    assert got == pytest.approx((1, 1, 1.25, 1))


def test_distances_hold_far_from_the_origin():
    """Single precision, a cloud of width 1 at 300: as in double precision, up to the rounding of
    the points themselves. By x^2 - 2 x y + y^2 most digits would cancel."""
    x, y = ((normal(400, 3, s) + 300).float() for s in (0, 1))
    exact, also = x.double(), y.double()
    assert metrics.nearest(x, x)[0].max() == 0
    assert torch.allclose(
        metrics.nearest(x, y)[0].double(), metrics.nearest(exact, also)[0], rtol=1e-3
    )
    assert metrics.manifold(x, y) == pytest.approx(metrics.manifold(exact, also), abs=0.003)
    far = GRID.means + 300
    near = (GRID.sample(4000, generator()) + 300).float()
    one, other = (metrics.mode_statistics(a, far.to(a), 0.05) for a in (near, near.double()))
    assert one.high_quality == pytest.approx(other.high_quality, abs=0.003)
    assert one.spread == pytest.approx(other.spread, rel=0.01)


def test_nearest_finds_the_copy():
    """A memorised point is at distance zero, whatever block it is in."""
    among = normal(3000, 4)
    x = torch.cat([among[[2500, 7]], normal(1500, 4, 1)])
    distance, index = metrics.nearest(x, among)
    assert index[:2].tolist() == [2500, 7]
    assert distance[:2].tolist() == [0, 0]
    expected = NearestNeighbors(n_neighbors=1).fit(among).kneighbors(x)[0][:, 0]
    assert np.allclose(distance, expected)


def test_class_shares_by_hand():
    share, se = metrics.class_shares(torch.tensor([0, 0, 2, 1]), 4)
    assert share.tolist() == [0.5, 0.25, 0.25, 0]
    assert se.tolist() == pytest.approx([0.25, math.sqrt(3) / 8, math.sqrt(3) / 8, 0])


def test_parzen_is_the_mixture_likelihood():
    """Against SciPy's Gaussian kernel density, and the bandwidth is the best on validation."""
    samples, validation, test = normal(60, 2), normal(50, 2, 1), normal(40, 2, 2)
    widths = torch.tensor([0.2, 0.5, 1.5])
    got = metrics.parzen_log_likelihood(samples, validation, test, widths)

    def density(x, h):
        terms = stats.norm.logpdf(x[:, None], samples[None], h).sum(-1)
        return np.log(np.exp(terms).mean(1))

    best = max(widths.tolist(), key=lambda h: density(validation, h).mean())
    on_test = density(test, best)
    assert got.bandwidth == best == 0.5
    assert got.value == pytest.approx(on_test.mean())
    assert got.se == pytest.approx(on_test.std(ddof=1) / math.sqrt(40))


def test_parzen_is_scikit_learns_kernel_density():
    """Each point's log density, in 30 dimensions and over more points than a block holds; the
    protocol's ten bandwidths are searched where none are given."""
    samples, validation, test = normal(80, 30), normal(90, 30, 1), 0.1 * normal(1100, 30, 2)
    got = metrics.parzen_log_likelihood(samples, validation, test)
    scores = {
        h: KernelDensity(bandwidth=h).fit(samples).score_samples(validation).mean()
        for h in np.logspace(-1, 0, 10)
    }
    best = max(scores, key=scores.get)
    # The test set, near 0, would have taken another.
    on_test = [KernelDensity(bandwidth=h).fit(samples).score_samples(test).mean() for h in scores]
    assert [*scores][np.argmax(on_test)] != best
    each = KernelDensity(bandwidth=best).fit(samples).score_samples(test)
    assert got.bandwidth == pytest.approx(best)
    assert got.value == pytest.approx(each.mean(), rel=1e-6)
    assert got.se == pytest.approx(each.std(ddof=1) / math.sqrt(1100), rel=1e-6)


ONE, NAN = normal(10, 2), torch.full((10, 2), math.nan)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.mode_statistics(ONE, GRID.means, 0.0), "scale, radius: expected > 0"),
        (lambda: metrics.mode_statistics(NAN, GRID.means.float(), 0.1), "x: has values"),
        (lambda: metrics.frechet_distance(ONE, normal(10, 3)), "as many columns"),
        (lambda: metrics.frechet_distance(ONE[:1], ONE), "x: expected 2 rows or more; got 1"),
        (lambda: metrics.frechet_distance(ONE.long(), ONE), "x: expected a float tensor"),
        (lambda: metrics.kernel_distance(ONE, ONE[:5]), "as many rows"),
        (lambda: metrics.kernel_distance(ONE[:3], ONE[:3]), "expected 4 rows"),
        (lambda: metrics.mmd_test(ONE, ONE[:5], generator()), "as many rows"),
        (lambda: metrics.mmd_test(ONE, ONE, generator(), n_permutations=0), "n_permutations"),
        (
            lambda: metrics.mmd_test(torch.ones(5, 2), torch.ones(5, 2), generator()),
            "bandwidths: expected",
        ),
        (lambda: metrics.manifold(ONE, ONE, 10), "k: expected between 1"),
        (lambda: metrics.manifold(ONE, ONE, 0), "k: expected between 1"),
        (lambda: metrics.mode_statistics(ONE, GRID.means, 0.1, -1.0), "scale, radius: expected"),
        (lambda: metrics.mode_statistics(ONE, normal(4, 3), 0.1), "as many columns"),
        (
            lambda: metrics.mmd_test(ONE, ONE, generator(), bandwidths=torch.tensor([1.0, -1.0])),
            "bandwidths: expected",
        ),
        (lambda: metrics.mmd_test(ONE, ONE, generator(), bandwidths=ONE[:0]), "bandwidths"),
        (lambda: metrics.parzen_log_likelihood(ONE, ONE, ONE, ONE[:0, 0]), "bandwidths"),
        (lambda: metrics.parzen_log_likelihood(ONE, ONE, NAN), "test: has values"),
        (lambda: metrics.kernel_distance(ONE, -ONE / 0), "y: has values"),
        (lambda: metrics.class_shares(torch.zeros(0, dtype=torch.int64), 4), "labels: expected"),
        (lambda: metrics.class_shares(torch.tensor([-1, 0]), 4), "labels: expected 0 .. 3"),
        (lambda: metrics.manifold(ONE, NAN), "fake: has values"),
        (lambda: metrics.nearest([1.0], ONE), "x: expected a float tensor"),
        (lambda: metrics.class_shares(torch.tensor([0, 4]), 4), "labels: expected 0 .. 3"),
        (lambda: metrics.class_shares(torch.tensor([0.5]), 4), "labels: expected integers"),
        (
            lambda: metrics.parzen_log_likelihood(ONE, ONE, ONE, torch.tensor([0.0])),
            "bandwidths: expected",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
