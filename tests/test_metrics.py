"""Each metric against a case whose value is known, and each refuses what it cannot measure."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from sklearn.neighbors import NearestNeighbors

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
            "bandwidths: expected all > 0",
        ),
        (lambda: metrics.manifold(ONE, ONE, 10), "k: expected between 1"),
        (lambda: metrics.manifold(ONE, NAN), "fake: has values"),
        (lambda: metrics.nearest([1.0], ONE), "x: expected a float tensor"),
        (lambda: metrics.class_shares(torch.tensor([0, 4]), 4), "labels: expected 0 .. 3"),
        (lambda: metrics.class_shares(torch.tensor([0.5]), 4), "labels: expected integers"),
        (
            lambda: metrics.parzen_log_likelihood(ONE, ONE, ONE, torch.tensor([0.0])),
            "bandwidths: expected all > 0",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
