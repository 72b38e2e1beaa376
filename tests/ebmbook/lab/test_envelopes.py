"""Rejection where its acceptance is known, and where there is none."""

import math

import numpy as np
import pytest
import torch

from ebmbook.lab import envelopes
from ebmbook.lab.normaliser import normal
from ebmref import energies, samplers

LIKE = {"dtype": torch.float64}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_well_s_distribution_and_its_distance():
    line = envelopes.well()
    assert line.cdf(np.array([-4.0, 4.0])).tolist() == [0, 1]
    q = normal(1, 1.0, LIKE)
    log_m = samplers.envelope_constant(energies.double_well, q, source()).log_m
    x = samplers.rejection_sample(energies.double_well, q, log_m, 4000, source(1)).samples
    assert line.distance(x) < 2.5 < line.distance(x + 0.1)
    assert envelopes.cells_p(q, log_m, line, 20_000, source(2)) > 1e-4
    assert envelopes.cells_p(q, log_m - 0.3, line, 20_000, source(2)) < 1e-10


def test_shares_of_balls_by_hand():
    assert envelopes.ball_share([2, 3]) == pytest.approx([math.pi / 4, math.pi / 6])
    assert envelopes.ball(torch.tensor([[0.6, 0.7], [0.8, 0.7]])).tolist() == [0, math.inf]


def test_rates_are_the_laws():
    for name, case in envelopes.cases(LIKE).items():
        few = case._replace(dims=case.dims[:3])
        found = envelopes.rates(few, 400, source())
        assert found.z < 4.5 and found.envelope_error < 1e-9, name
        wrong = envelopes.rates(few._replace(law=lambda d: 0.2 + 0 * np.asarray(d)), 400, source())
        assert wrong.z > 5
    assert found.rate == pytest.approx([2**-0.5] * 3, rel=0.15)
    assert found.sd == pytest.approx([math.sqrt((1 - 2**-0.5) / 400)] * 3)


def test_slope_and_factor_of_an_exact_exponential():
    case = envelopes.cases(LIKE)["product"]._replace(dims=(1, 2, 4))
    rate = 2.0 ** (-np.array([1, 2, 4]) / 2)
    found = envelopes.Rates(rate, np.full(3, 0.01), 0, 0)
    value, error = envelopes.slope(case, found)
    assert value == pytest.approx(-0.5) and 0.003 < error < 0.02
    assert envelopes.factor(found, 0) == pytest.approx((2**-0.5, 2**-0.5 * 0.01 * 2**0.5))


def test_what_has_no_envelope_is_refused():
    for p, q in envelopes.endless(LIKE).values():
        assert envelopes.refused(p, q, source())
    assert not envelopes.refused(normal(1, 0.5, LIKE), normal(1, 1.0, LIKE), source())


def test_the_largest_ratio_grows_as_it_should():
    p, q = envelopes.endless(LIKE)["a narrower proposal"]
    found = envelopes.largest_ratios(p, q, 200, 1000, source())
    assert found.shape == (200, 1000) and (found.diff(dim=1) >= 0).all()
    exact = envelopes.narrow_log_ratio([10, 1000])
    error = found[:, [9, 999]].std(0) / 200**0.5
    assert ((found[:, [9, 999]].mean(0) - torch.tensor(exact)).abs() < 4.5 * error).all()
    assert envelopes.expected_max(1) == pytest.approx(1, abs=1e-3)
