"""Importance sampling where its errors are known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ebmbook.lab import weights

LIKE = {"dtype": torch.float64}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_plain_estimates_have_their_variance():
    got = weights.plain_estimates(20, 20_000, source(), LIKE)
    assert float(got.mean()) == pytest.approx(1, abs=0.006)
    assert 20 * float(got.var()) == pytest.approx(weights.PLAIN, rel=0.06)
    assert abs(weights.PLAIN - 0.5396) < 1e-4


def test_the_bias_is_of_first_order():
    got = weights.bias(20, 10_000, lambda: source(1), LIKE)
    assert -20 * got.value == pytest.approx(weights.BIAS, rel=0.12)
    assert 0 < got.se < abs(got.value) and got.sd == pytest.approx(1.1 / 20**0.5, rel=0.3)
    one, four = weights.Bias(-0.4, 0.04, 1), weights.Bias(-0.1, 0.0, 1)
    # Own less plain is about minus the product of two means, of w f and of w - 1.
    x = torch.linspace(-12, 12, 4801, **LIKE)
    q, w = (-x.square() / 4).exp(), (-(x - 0.5).square() / 2 + x.square() / 4).exp() * 2**0.5
    a, b = w * (x - 0.5), w - 1
    aa, bb, ab = ((q * part).sum() / q.sum() for part in (a * a, b * b, a * b))
    assert pytest.approx(float(ab)) == weights.BIAS
    assert got.se == pytest.approx(float((aa * bb + ab**2).sqrt()) / 20 / 100, rel=0.2)
    power = weights.power_of(one, four, 4.0)
    assert power == pytest.approx((-1, 0.1 / math.log(4)))


def test_variances_of_the_weights():
    for d, n_wrong, law in ((3, 3, weights.SECOND**3 - 1), (3, 1, weights.SECOND - 1)):
        got = weights.variance(d, n_wrong, 100_000, source(d), LIKE)
        assert got.value == pytest.approx(law, rel=0.1) and got.p > 1e-5


def test_running_variances():
    at = np.array([10, 1000])
    wide = weights.running_variance(2.0, at, 400, source(), LIKE)
    assert wide.shape == (400, 2)
    # Divided by n and not by n - 1.
    assert float(wide[:, 0].mean()) == pytest.approx(0.9 * (weights.SECOND - 1), rel=0.05)
    assert float(wide[:, 1].mean()) == pytest.approx(weights.SECOND - 1, rel=0.03)
    narrow = weights.running_variance(0.25, np.array([100, 10_000]), 60, source(), LIKE)
    value, error = weights.median_growth(narrow, source(1))
    assert value > 0.8 and 0.02 < error < 1
    assert weights.median_growth(torch.ones(9, 2), source()) == (0, 0)
    rise = torch.tensor([[1.0, 5.0], [2.0, 20.0], [4.0, 600.0]])
    assert weights.median_growth(rise, source())[0] == pytest.approx(math.log(10))


def test_a_bootstrap_of_a_median_has_the_right_error():
    """Of normal numbers the median of n has the variance pi / (2 n)."""
    ends = (0.1 * torch.randn(400, 2, generator=source())).exp().double()
    exact = 0.1 * math.sqrt(2 * math.pi / 2 / 400)
    assert weights.median_growth(ends, source(1))[1] == pytest.approx(exact, rel=0.35)


def test_moments_by_hand():
    """At s^2 = 2 the weight is sqrt(2) exp(-z^2 / 2) with z standard normal."""
    z = torch.linspace(-12, 12, 4801, **LIKE)
    law = (-z.square() / 2).exp() / math.sqrt(2 * math.pi) * 0.005
    for k, got in weights.MOMENTS.items():
        by_hand = (law * (2**0.5 * (-z.square() / 2).exp()) ** k).sum()
        assert got == pytest.approx(float(by_hand))
    assert weights.second(2.0) == pytest.approx(weights.SECOND) and weights.second(1.0) == 1


def test_weights_rise_or_fall_with_the_density():
    """By the proposal and not by the dimension."""
    for d in (1, 64):
        assert weights.rank_correlation(2.0, d, source(), LIKE) == pytest.approx(1)
        assert weights.rank_correlation(0.6, d, source(), LIKE) == pytest.approx(-1)


def test_regions_get_their_share_on_average_and_lose_it_in_a_run():
    inner = weights.inner_weight(4, 400, source(), LIKE)
    assert abs(float(inner.mean()) - 0.5) < 4.5 * float(inner.std()) / 20
    # p^2 / q is a Gaussian of variance 2/3, of which the inner half has more than a half.
    within = stats.chi2.cdf(1.5 * stats.chi2.median(4), 4)
    exact = math.sqrt((weights.SECOND**4 * within - 0.25) / 1000)
    assert float(inner.std()) == pytest.approx(exact, rel=0.16)
    low, high = (weights.degraded(d, 10, source(d), LIKE) for d in (1, 512))
    assert float(low.outskirts.mean()) == pytest.approx(0.01, abs=0.006)
    assert float(low.ess.mean()) == pytest.approx(1000 / weights.SECOND, rel=0.03)
    assert float(low.largest.mean()) == pytest.approx(2**0.5 / 1000, rel=0.02)
    assert float(high.outskirts.mean()) > 0.99 and float(high.largest.mean()) > 0.5
    assert float(high.ess.mean()) < 2.5


def test_the_same_draws_in_longer_runs():
    """All of them as one run are what a run of that length has; far fewer lose the bulk."""
    got = weights.by_size(64, (100, 5000), 8, source(), LIKE)
    assert got[100].shape == (400,) and got[5000].shape == (8,)
    assert float(got[100].mean()) > 0.05 > 0.03 > float(got[5000].mean()) > 0.004
    one = weights.by_size(1, (500, 2000), 5, source(1), LIKE)
    long = weights.degraded(1, 1, source(1), LIKE)  # its first thousand draws
    first = weights.by_size(1, (1000,), 1, source(1), LIKE)[1000]
    assert first.tolist() == pytest.approx(long.outskirts.tolist(), abs=1e-9)
    assert float(one[2000].mean()) == pytest.approx(float(one[500].mean()), rel=0.02)


def test_tame_weights_have_their_law():
    """A proposal that is too wide: the runs know how wrong they are."""
    got = weights.alarm(2, 400, source(), LIKE, s2=2.0, n=500)
    assert float(got.ratio.mean()) == pytest.approx(1, rel=0.03)
    assert 0.9 < float(got.covered.mean()) < 0.99
    assert float(got.ess.mean()) == pytest.approx(500 / weights.second(2.0) ** 2, rel=0.03)
    spread = math.sqrt((weights.second(2.0) ** 2 - 1) / 500)
    assert float(got.z.mean()) == pytest.approx(1, abs=4.5 * spread / 20)
    assert float(got.z.std()) == pytest.approx(spread, rel=0.16)
    # As in an exercise: bounded weights, in 32 dimensions still known for what they are.
    wide = weights.alarm(32, 100, source(), LIKE, s2=1.4)
    assert float(wide.ratio.median()) > 0.9 and float(wide.covered.mean()) > 0.85
    assert weights.second(1.4) ** 32 - 1 == pytest.approx(2.9, abs=0.05)


def test_alarms_are_late():
    one, many = (weights.alarm(d, 200, source(d), LIKE) for d in (1, 16))
    assert float(one.covered.mean()) > 0.85 > float(many.covered.mean())
    assert float(many.ratio.median()) < 0.5 < float(one.ratio.median()) < 1.3
    assert float(many.ess.mean()) > 2 * 1000 / weights.second(0.6) ** 16
    assert float(many.k.mean()) > float(one.k.mean())
    assert abs(weights.second(0.6) - 1.3416) < 1e-4
