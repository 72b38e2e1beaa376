"""Importance sampling where its errors are known."""

import math

import numpy as np
import pytest
import torch

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
    got = weights.bias(20, 40_000, lambda: source(1), LIKE)
    assert -20 * got.value == pytest.approx(weights.BIAS, rel=0.12)
    assert 0 < got.se < abs(got.value) and got.sd == pytest.approx(1.1 / 20**0.5, rel=0.3)
    one, four = weights.Bias(-0.4, 0.04, 1), weights.Bias(-0.1, 0.0, 1)
    power = weights.power_of(one, four, 4.0)
    assert power == pytest.approx((-1, 0.1 / math.log(4)))


def test_variances_of_the_weights():
    for d, n_wrong, law in ((3, 3, weights.SECOND**3 - 1), (3, 1, weights.SECOND - 1)):
        got = weights.variance(d, n_wrong, 100_000, source(d), LIKE)
        assert got.value == pytest.approx(law, rel=0.1) and got.z < 4.5


def test_running_variances():
    at = np.array([10, 1000])
    wide = weights.running_variance(2.0, at, 400, source(), LIKE)
    assert wide.shape == (400, 2)
    assert float(wide[:, 1].mean()) == pytest.approx(weights.SECOND - 1, rel=0.03)
    narrow = weights.running_variance(0.25, np.array([100, 10_000]), 60, source(), LIKE)
    value, error = weights.median_growth(narrow, source(1))
    assert value > 0.8 and 0.02 < error < 1
    assert weights.median_growth(torch.ones(9, 2), source()) == (0, 0)


def test_weights_rise_or_fall_with_the_density():
    """By the proposal and not by the dimension."""
    for d in (1, 64):
        assert weights.rank_correlation(2.0, d, source(), LIKE) == pytest.approx(1)
        assert weights.rank_correlation(0.6, d, source(), LIKE) == pytest.approx(-1)


def test_regions_get_their_share_on_average_and_lose_it_in_a_run():
    inner = weights.inner_weight(4, 400, source(), LIKE)
    assert abs(float(inner.mean()) - 0.5) < 4.5 * float(inner.std()) / 20
    low, high = (weights.degraded(d, 10, source(d), LIKE) for d in (1, 512))
    assert float(low.outskirts.mean()) == pytest.approx(0.01, abs=0.006)
    assert float(low.ess.mean()) == pytest.approx(1000 / weights.SECOND, rel=0.03)
    assert float(high.outskirts.mean()) > 0.99 and float(high.largest.mean()) > 0.5
    assert float(high.ess.mean()) < 2.5


def test_alarms_are_late():
    one, many = (weights.alarm(d, 200, source(d), LIKE) for d in (1, 16))
    assert float(one.covered.mean()) > 0.85 > float(many.covered.mean())
    assert float(many.ratio.median()) < 0.5 < float(one.ratio.median()) < 1.3
    assert float(many.ess.mean()) > 2 * 1000 / weights.GROWTH**16
    assert float(many.k.mean()) > float(one.k.mean())
    assert abs(weights.GROWTH - 1.3416) < 1e-4
