"""Z where it is known, and what it costs."""

import math

import numpy as np
import pytest
import torch

from ebmbook.lab import normaliser
from ebmref import energies

LIKE = {"dtype": torch.float64}
ROOT = math.sqrt(2 * math.pi)


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_trapezoid_rule_on_gaussians():
    for d in (1, 2):
        law = normaliser.normal(d, 0.49, LIKE)
        assert normaliser.quadrature(law, -6, 6, 121, d) == pytest.approx((0.7 * ROOT) ** d)


def test_the_valley_s_z_is_a_product():
    grid = normaliser.quadrature(normaliser.valley, -4.5, 4.5, 121, 2)
    assert grid == pytest.approx(math.exp(normaliser.valley_log_z()), rel=1e-8)
    x = torch.tensor([[1.0, 0.5]], **LIKE)
    by_hand = 0.5 + 2 * (0.5 - math.sin(2.0)) ** 2
    assert float(normaliser.valley(x)) == pytest.approx(by_hand)


@pytest.mark.parametrize("way", ["by_weights", "by_rejection", "by_annealing"])
def test_ways_are_right_on_average(way):
    found = getattr(normaliser, way)(normaliser.normal(2, 1.5, LIKE), 60, source())
    error = float(found.ratio.std()) / 60**0.5
    assert abs(float(found.ratio.mean()) - 1) < 4.5 * error and 0 < error < 0.05
    assert 0.75 < float(found.covered.mean()) <= 1


def test_covered_by_hand():
    found = normaliser.Runs(torch.tensor([1.0, 1.1, 0.7]), torch.tensor([0.01, 0.1, 0.1]))
    assert found.covered.tolist() == [1, 1, 0]


def test_a_grid_s_error_multiplies():
    """In three dimensions by the sum itself."""
    cost = normaliser.grid_cost()
    z = normaliser.quadrature(energies.double_well, -4, 4, 401)
    k = cost.side(3)
    for n, good in ((k, True), (k - 1, False)):
        got = normaliser.quadrature(energies.double_well, -2.5, 2.5, n, 3) / z**3
        assert got == pytest.approx((1 + cost.error[n - 3]) ** 3, rel=1e-9)
        assert (abs(got - 1) <= normaliser.WANTED) is good
    assert cost.points(3) == k**3 and cost.side(20) > cost.side(1)


def test_draws_needed_by_hand():
    """N(0, 2) for itself needs none; the moment of a uniform law is int p^2 times its length."""
    assert normaliser.draws_needed(1.5, 2) == pytest.approx(12_500)
    z = normaliser.quadrature(energies.double_well, -4, 4, 401)
    twice = normaliser.quadrature(lambda x: 2 * energies.double_well(x), -4, 4, 401)
    assert normaliser.moment(normaliser.box(1, 2.5, LIKE), 2) == pytest.approx(
        5 * twice / z**2, rel=1e-3
    )


def test_a_second_moment_is_that_of_the_law():
    q = normaliser.normal(2, 1.0, LIKE)
    c, fourth = (normaliser.moment(normaliser.normal(1, 1.0, LIKE), k) for k in (2, 4))
    log_z = 2 * math.log(normaliser.quadrature(energies.double_well, -4, 4, 401))
    got = normaliser.second_moment(energies.double_well, q, log_z, 100_000, source())
    assert normaliser.z_score(got, c, fourth, 2, 100_000) < 4.5
    assert normaliser.z_score(got, 1.2 * c, fourth, 2, 100_000) > 10


def test_annealing_costs_what_its_weights_say():
    few, many = (normaliser.annealing(d, 2000, source(d), LIKE) for d in (1, 4))
    assert few.z < 4.5 and many.z < 4.5 and 0 < few.se < few.cost < many.cost
    a, b = normaliser.Annealing(100.0, 10.0, 0), normaliser.Annealing(1600.0, 0.0, 0)
    assert normaliser.growth(a, b, 4) == pytest.approx((2, 2 * 0.1 / 4))


def test_the_transfer_matrix_is_the_sum():
    for d in (1, 2, 3):
        full = math.log(normaliser.quadrature(normaliser.chain, -2.5, 2.5, 41, d))
        assert normaliser.transfer(d, 41) == pytest.approx(full, abs=1e-10)
    assert np.isfinite(normaliser.transfer(60, 41))
