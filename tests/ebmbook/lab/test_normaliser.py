"""Z where it is known, and what it costs."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

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


@pytest.mark.parametrize(
    ("way", "spread"), [("by_weights", 0.043), ("by_rejection", 0.078), ("by_annealing", 0.122)]
)
def test_ways_are_right_on_average(way, spread):
    """And as wrong in a run as their own errors say; the spreads are those of 1681 evaluations."""
    found = getattr(normaliser, way)(normaliser.normal(2, 1.5, LIKE), 100, source())
    error = float(found.ratio.std())
    assert found.ratio.shape == found.se.shape == (100,)
    assert abs(float(found.ratio.mean()) - 1) < 4.5 * error / 10
    assert error == pytest.approx(spread, rel=0.35)
    assert float(found.se.mean()) == pytest.approx(error, rel=0.35)
    assert 0.8 < float(found.covered.mean()) <= 1


def test_an_annealed_run_knows_its_error():
    found = normaliser.by_annealing(normaliser.normal(2, 1.5, LIKE), 500, source(1))
    inner = (found.ratio * found.se).square().mean().sqrt()
    assert float(inner) == pytest.approx(float(found.ratio.std()), rel=0.15)


def test_the_uniform_way_s_error_is_that_of_its_second_moment():
    """Through the grid: n times the variance over Z^2 is the area times int exp(-2 E) / Z^2 - 1."""
    z = math.exp(normaliser.valley_log_z())
    twice = normaliser.quadrature(lambda x: 2 * normaliser.valley(x), -4, 4, 121, 2)
    found = normaliser.by_weights(normaliser.box(2, 4.0, LIKE), 400, source())
    exact = math.sqrt((64 * twice / z**2 - 1) / normaliser.RUN)
    assert float(found.ratio.std()) == pytest.approx(exact, rel=0.16)
    assert normaliser.RUN == 41 * 41


def test_covered_by_hand():
    ratio, se = torch.tensor([1.0, 1.1, 0.7, 1.21]), torch.tensor([0.01, 0.1, 0.1, 0.1])
    assert normaliser.Runs(ratio, se).covered.tolist() == [1, 1, 0, 1]
    # 1.96 of them, of the logarithm.
    ratio, se = torch.tensor([0.1950, 0.1970]).exp(), torch.tensor([0.1, 0.1])
    assert normaliser.Runs(ratio, se).covered.tolist() == [1, 0]


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


def test_a_grid_s_side_by_hand():
    """From which on all are good, and not the first good one; errors multiply and do not add."""
    sides, error = np.array([3, 4, 5, 6]), np.array([0.5, 0.001, 0.02, 0.0004998])
    cost = normaliser.GridCost(sides, error)
    assert cost.side(1) == 6 and cost.side(20) == 7
    assert cost.points(2) == 36


def test_draws_needed_by_hand():
    """A uniform law's moment of power k is its length to the k - 1 times int p^k."""
    assert normaliser.draws_needed(1.5, 2) == pytest.approx(12_500)
    z = normaliser.quadrature(energies.double_well, -4, 4, 401)
    for k in (1, 2, 4, 6):
        power = normaliser.quadrature(lambda x, k=k: k * energies.double_well(x), -4, 4, 401)
        got = normaliser.moment(normaliser.box(1, 2.5, LIKE), k)
        assert got == pytest.approx(5 ** (k - 1) * power / z**k, rel=1e-6)
    assert normaliser.moment(normaliser.normal(1, 1.0, LIKE), 1) == pytest.approx(1)


def test_no_normal_law_beside_the_best_is_better():
    best = normaliser.best_normal(LIKE)

    def factor(mean, variance):
        q = energies.Gaussian(torch.tensor([mean], **LIKE), torch.tensor([[variance]], **LIKE))
        return normaliser.moment(q, 2)

    assert best.factor == pytest.approx(factor(best.mean, best.variance), rel=1e-9)
    assert best.factor < factor(0.0, 1.0) - 0.1 and best.mean < 0
    for shift, scale in ((0.02, 1), (-0.02, 1), (0, 1.03), (0, 0.97)):
        assert factor(best.mean + shift, best.variance * scale) > best.factor
    for mean in (-1.0, -0.5, 0.5):  # and far away
        for variance in (0.3, 0.6, 1.0, 2.0):
            assert factor(mean, variance) > best.factor


def test_a_second_moment_is_that_of_the_law():
    q = normaliser.normal(2, 1.0, LIKE)
    one = {k: normaliser.moment(normaliser.normal(1, 1.0, LIKE), k) for k in (2, 4, 6)}
    log_z = 2 * math.log(normaliser.quadrature(energies.double_well, -4, 4, 401))
    got = normaliser.second_moment(energies.double_well, q, log_z, 100_000, source())
    w = (-energies.double_well(x := q.sample(100_000, source())) - q.log_prob(x) - log_z).exp()
    assert got == pytest.approx(float(w.square().mean()))
    assert normaliser.moment_p(got, one, 2, 100_000) > 1e-5
    assert normaliser.moment_p(got, one | {2: 1.05 * one[2]}, 2, 100_000) < 1e-12


def test_p_of_a_moment_by_hand():
    """Squares of weights that are exponential: their mean has a gamma law, Pearson's exactly."""
    exact = 2 * stats.gamma(50).sf(65)
    assert normaliser.moment_p(1.3, {2: 1, 4: 2, 6: 6}, 1, 50) == pytest.approx(exact)
    # In two dimensions the moments are 1, 4 and 36: variance 3, third central moment 26.
    law = stats.pearson3(26 / 3**1.5 / 50**0.5)
    exact = 2 * law.cdf(-0.3 / math.sqrt(3 / 50))
    assert normaliser.moment_p(0.7, {2: 1, 4: 2, 6: 6}, 2, 50) == pytest.approx(exact)


def test_annealing_costs_what_its_weights_say():
    few, many = (normaliser.annealing(d, 2000, source(d), LIKE) for d in (1, 4))
    assert min(few.p, many.p) > 1e-5 and 0 < few.se < few.cost < many.cost


def test_annealing_that_does_not_move_is_plain_sampling():
    """The steps of the path add up to one leap, at sixteen times the evaluations and one."""
    c = normaliser.moment(normaliser.normal(1, 1.0, LIKE), 2)
    for d in (1, 2):
        got = normaliser.annealing(d, 20_000, source(d), LIKE, step=1e-12)
        assert got.p > 1e-5
        assert abs(got.cost - normaliser.draws_needed(c, d) * (16 * d + 1)) < 4.5 * got.se
        assert got.se < 0.1 * got.cost


def test_growth_by_hand():
    a, b = normaliser.Annealing(100.0, 10.0, 0), normaliser.Annealing(1600.0, 0.0, 0)
    assert normaliser.ratio(a, b) == pytest.approx((16, 16 * 0.1))
    assert normaliser.growth(a, b, 4) == pytest.approx((2, 2 * 0.1 / 4))
    c = normaliser.Annealing(1600.0, 320.0, 0)
    assert normaliser.ratio(a, c)[1] == pytest.approx(16 * math.hypot(0.1, 0.2))


def test_the_transfer_matrix_is_the_sum():
    for d in (1, 2, 3):
        full = math.log(normaliser.quadrature(normaliser.chain, -2.5, 2.5, 41, d))
        assert normaliser.transfer(d, 41) == pytest.approx(full, abs=1e-10)
    assert np.isfinite(normaliser.transfer(60, 41))
    x = torch.tensor([[1.0, 0.0, 2.0]], **LIKE)
    by_hand = (0 + 1 + 9) + 0.5 * (1 + 0 + 2) + 0.5 * (1 + 4)
    assert normaliser.chain(x).item() == pytest.approx(by_hand)
