"""Rejection where its acceptance is known, and where there is none."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from ebmbook.lab import envelopes
from ebmbook.lab.normaliser import normal
from ebmref import energies, samplers

LIKE = {"dtype": torch.float64}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_well_s_distribution():
    line = envelopes.well()
    assert line.cdf(np.array([-4.0, 4.0])).tolist() == [0, 1]
    below, above = (
        integrate.quad(lambda x: math.exp(-((x * x - 1) ** 2) - x / 2), *ends)[0]
        for ends in ((-4, 0.3), (0.3, 4))
    )
    assert line.cdf(0.3) == pytest.approx(below / (below + above), abs=1e-7)


def test_a_distance_by_hand():
    """Of n even quantiles it is half of a step."""
    line = envelopes.Line(np.array([0.0, 2.0]), np.array([0.0, 1.0]))
    even = torch.linspace(0.25, 1.75, 4).view(4, 1)
    assert line.distance(even) == pytest.approx(2 * 0.125)


def test_draws_and_points_under_the_well():
    line, q = envelopes.well(), normal(1, 1.0, LIKE)
    log_m = samplers.envelope_constant(energies.double_well, q, source()).log_m
    x = samplers.rejection_sample(energies.double_well, q, log_m, 4000, source(1)).samples
    assert line.distance(x) < 2.5 < line.distance(x + 0.1)
    assert envelopes.cells_p(q, log_m, line, 20_000, source(2)) > 1e-4
    assert envelopes.cells_p(q, log_m - 0.3, line, 20_000, source(2)) < 1e-10
    wide = normal(1, 2.0, LIKE)
    log_m = samplers.envelope_constant(energies.double_well, wide, source()).log_m
    assert envelopes.cells_p(wide, log_m, line, 20_000, source(3)) > 1e-4


def test_shares_of_balls_by_hand():
    assert envelopes.ball_share([2, 3]) == pytest.approx([math.pi / 4, math.pi / 6])
    assert envelopes.ball(torch.tensor([[0.6, 0.7], [0.8, 0.7]])).tolist() == [0, math.inf]
    assert envelopes.ball(torch.tensor([[-0.9, 0.1, 0.1]])).tolist() == [0]


def test_one_coordinate_is_wrong():
    q = envelopes.one_wrong(3, LIKE)
    assert q(torch.tensor([[2.0, 1.0, 3.0]], **LIKE)).item() == pytest.approx(4 / 4 + 1 / 2 + 9 / 2)


def test_rates_are_the_laws():
    for name, case in envelopes.cases(LIKE).items():
        few = case._replace(dims=case.dims[:3])
        found = envelopes.rates(few, 400, source())
        assert found.p.shape == (3,) and found.p.min() > 1e-5, name
        assert found.envelope_error < 1e-9
        law = case.law(np.array(few.dims))
        assert found.rate == pytest.approx(law, rel=0.25)
        assert found.sd == pytest.approx(np.sqrt((1 - law) / 400))
        wrong = envelopes.rates(few._replace(law=lambda d: 0.2 + 0 * np.asarray(d)), 400, source())
        assert wrong.p.min() < 1e-6
        # The envelope's error is of log M - log Z: sqrt(2) in one dimension, where 5 is said.
        assert wrong.envelope_error == (
            0 if name == "ball" else pytest.approx(math.log(5) - math.log(2) / 2)
        )


def test_the_cases_reach_where_the_page_says():
    cases = envelopes.cases(LIKE)
    assert cases["product"].dims == cases["one-wrong"].dims == (1, 2, 4, 8, 12, 16, 20)
    assert cases["product"].law([2, 20]) == pytest.approx([0.5, 2.0**-10])
    assert cases["one-wrong"].law([2, 20]) == pytest.approx([0.5**0.5] * 2)
    assert cases["ball"].dims[:2] == (2, 3) and cases["ball"].dims[-2:] == (10, 11)


def test_slope_and_factor_of_an_exact_exponential():
    case = envelopes.cases(LIKE)["product"]._replace(dims=(1, 2, 4))
    rate = 2.0 ** (-np.array([1, 2, 4]) / 2)
    found = envelopes.Rates(rate, np.array([0.01, 0.02, 0.01]), np.ones(3), 0)
    value, error = envelopes.slope(case, found)
    # The levers are d less its mean, -4/3, -1/3 and 5/3, over the sum of their squares, 14/3.
    by_hand = math.hypot(4 * 0.01, 1 * 0.02, 5 * 0.01) / 3 / (14 / 3) / math.log(2)
    assert value == pytest.approx(-0.5) and error == pytest.approx(by_hand)
    assert envelopes.factor(found, 0) == pytest.approx((2**-0.5, 2**-0.5 * math.hypot(0.01, 0.02)))
    assert envelopes.factor(found, 1)[0] == pytest.approx(0.5)


def test_what_has_no_envelope_is_refused():
    for p, q in envelopes.endless(LIKE).values():
        assert envelopes.refused(p, q, source())
    assert not envelopes.refused(normal(1, 0.5, LIKE), normal(1, 1.0, LIKE), source())
    # As in an exercise: one percent too narrow.
    assert envelopes.refused(normal(1, 1.0, LIKE), normal(1, 0.99, LIKE), source())


def test_another_error_is_no_refusal():
    def broken(x):
        raise ValueError("broken")

    assert not envelopes.refused(broken, normal(1, 1.0, LIKE), source())


def test_the_largest_ratio_grows_as_it_should():
    p, q = envelopes.endless(LIKE)["a narrower proposal"]
    found = envelopes.largest_ratios(p, q, 200, 1000, source())
    assert found.shape == (200, 1000) and (found.diff(dim=1) >= 0).all()
    exact = envelopes.narrow_log_ratio([1, 10, 1000])
    seen = found[:, [0, 9, 999]]
    error = seen.std(0) / 200**0.5
    assert ((seen.mean(0) - torch.tensor(exact)).abs() < 4.5 * error).all()


def test_means_of_the_largest_by_hand():
    """Of one and of two chi-square variables: 1 and 1 + 2 / pi."""
    assert envelopes.expected_max(1) == pytest.approx(1, abs=1e-4)
    assert envelopes.expected_max(2) == pytest.approx(1 + 2 / math.pi, abs=1e-4)
    assert envelopes.narrow_log_ratio(1)[0] == pytest.approx(0.25 - math.log(2) / 2, abs=1e-4)
