"""What temperature does to training, against closed forms, theory and shuffled controls."""

import math

import pytest
import torch

from ebmbook.lab import cooling, warm
from ebmref import data
from ebmref.free_energy import free_energy

DOUBLE = torch.float64


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def ring(s=2, n=120, noise=0.05):
    z = 2 * math.pi * torch.rand(s, n, generator=source(), dtype=DOUBLE)
    return 2 * data.tips(z) + noise * torch.randn(s, n, 2, generator=source(1), dtype=DOUBLE)


def oval(s=2, n=200):
    return data.horn(torch.zeros(s, n, dtype=DOUBLE), source())[0]


def test_free_energies_are_those_of_the_table():
    y, beta = oval(2, 5), torch.tensor([0.3, 40.0], dtype=DOUBLE)
    w = torch.tensor([[2.0, 1.5], [1.0, 0.2]], dtype=DOUBLE)
    got = warm.free_energies(y, beta, w)
    for i in range(2):
        energy = cooling.energies(y[i], cooling.angles(48), w[i])
        assert (got[i] - free_energy(energy, float(beta[i]))).abs().max() < 1e-12


@pytest.mark.parametrize("beta", [0.2, 0.3, 1.0, 10.0])
def test_a_radius_of_exact_data_is_the_fixed_point(beta):
    """Points at radius 2 without noise: w = R I_1 / I_0, from either side; 0 where shut."""
    y = 2 * data.tips(cooling.angles(24))[None]
    at = torch.tensor([beta], dtype=DOUBLE)
    want = warm.circle_radius(beta, 2.0)
    for start in (0.05, 3.0):
        assert float(warm.train(y, at, [start])) == pytest.approx(want, abs=1e-6)
    assert (want > 0) == (beta > 0.25)
    # Just above the opening it is R sqrt(2 (beta R^2 - 1)).
    assert warm.circle_radius(0.2501, 2.0) == pytest.approx(2 * math.sqrt(0.0008), rel=1e-3)


def test_rows_are_data_sets_at_temperatures():
    y, betas = oval(), torch.tensor([[0.3, 2.0], [1.0, 5.0]], dtype=DOUBLE)
    both = warm.train_all(y, betas, [1.0, 1.0])
    assert both.shape == (2, 2, 2)
    alone = warm.train(y[1:], betas[1, :1], [1.0, 1.0])
    assert (both[1, 0] - alone[0]).abs().max() < 1e-6


def test_a_radius_that_is_held_stays_at_zero():
    found = warm.train(oval(), torch.tensor([1.0, 1.0], dtype=DOUBLE), [0.0, 1.0])
    assert (found[:, 0] == 0).all() and (found[:, 1] > 0.5).all()


def test_an_opening_is_where_the_square_comes_from():
    """Of a known law, radius^2 = 3 (beta - b), with a little curvature."""
    b = torch.tensor([0.3, 0.5], dtype=DOUBLE)

    def radius_at(beta):
        over = (beta - b.repeat(2)).clamp(min=0)
        return (3 * over + 0.5 * over**2).sqrt()

    found = warm.opening(radius_at, 1.03 * b, scale=1.0)
    assert (found / b - 1).abs().max() < 1e-4
    # The lower bar itself is passed a percent later.
    assert float(0.01 / 3 / b[0]) > 0.01


def test_a_circle_opens_where_the_fog_is_as_wide_as_the_data():
    y = ring()
    found = warm.circle_opening(y)
    assert (found * y.square().sum(-1).mean(1) - 1).abs().max() < 5e-4


def test_an_ellipse_opens_one_axis_at_a_time():
    y = oval()
    theory = warm.openings(y)
    assert torch.allclose(theory.first, 1 / (2 * y[..., 0].square().mean(1)))
    assert torch.allclose(theory.alone, 1 / (2 * y[..., 1].square().mean(1)))
    for axis, guess, held in (
        (0, theory.first, False), (1, theory.second, False), (1, theory.alone, True)
    ):  # fmt: skip
        found = warm.axis_opening(y, axis, guess, shut=held)
        assert (found / guess - 1).abs().max() < 1e-3, axis
    assert (theory.second < 0.97 * theory.alone).all()
    assert (theory.second > 1.3 * theory.first).all()


def test_the_likelihood_is_that_of_the_blurred_curve():
    """It integrates to one, and at a radius of zero it is a round Gaussian."""
    step = 0.1
    side = torch.arange(-5, 5, step, dtype=DOUBLE)
    plane = torch.cartesian_prod(side, side)[None]
    model = warm.Model(cooling.radii()[None], torch.tensor([2.0], dtype=DOUBLE))
    mass = (-warm.negative_log_likelihood(plane, model)).exp().sum() * step**2
    assert float(mass) == pytest.approx(1, abs=1e-9)
    shut = warm.Model(torch.zeros(1, 2, dtype=DOUBLE), torch.tensor([2.0], dtype=DOUBLE))
    want = 2.0 * plane.square().sum(-1) - math.log(2 / math.pi)
    assert torch.allclose(warm.negative_log_likelihood(plane, shut), want)


def test_a_gaussian_of_the_moments():
    """In two dimensions, at its own data: log 2 pi + log det / 2 + 1."""
    seen = oval(3, 50) @ torch.tensor([[1.0, 0.4], [0.0, 2.0]], dtype=DOUBLE) + 3
    got = warm.gaussian_nats(seen, seen)
    for i in range(3):
        covariance = torch.cov(seen[i].T, correction=0)
        want = math.log(2 * math.pi) + 0.5 * float(covariance.logdet()) + 1
        assert float(got[i]) == pytest.approx(want)
    held = torch.cat([seen, seen.mean(1, keepdim=True)], 1)
    assert (warm.gaussian_nats(seen, held) < got).all()


def test_the_distance_to_the_curve():
    w = cooling.radii()
    y = torch.tensor([[0.0, 1.0], [2.5, 0.0], [0.0, -1.5]], dtype=DOUBLE)
    assert warm.from_curve(y, w).tolist() == pytest.approx([0.5, 0.5, 0], abs=1e-6)


def test_agreement_rings_for_either_part():
    w, beta = cooling.radii(), 50.0
    y = warm.exact_draws(800, w, beta, source(1))
    truth = warm.exact_draws(8000, w, beta, source(2))
    same = warm.agreement(y, truth, w)
    assert same.angle > 1e-3 and same.distance > 1e-3
    half = warm.agreement(torch.stack([y[:, 0].abs(), y[:, 1]], 1), truth, w)
    assert half.angle < 1e-8 and half.distance > 1e-3
    wide = warm.agreement(1.1 * y, truth, w)
    assert wide.distance < 1e-8 and wide.angle > 1e-3
    # In units of the radii the ends of the long axis are no farther out than the rest.
    ends = warm.agreement(y[y[:, 0] > 1.7], truth, w)
    assert ends.distance > 1e-3 and ends.angle < 1e-8
    # Moments: w^2 / 2 + 1 / (2 beta).
    assert (truth.square().mean(0) - w.square() / 2 - 1 / (2 * beta)).abs().max() < 0.08


def test_the_minimum_is_a_regression_across_the_curve():
    """Without fog exact; in fog its beta is that of the fog."""
    w, source = torch.tensor([2.0, 1.5]).double(), torch.Generator().manual_seed(0)
    still = warm.exact_draws(400, w, 1e8, source)[None]
    start = torch.ones(1, 2).double()
    assert (warm.fit_minimum(still, start).w - w).abs().max() < 2e-3
    fit = warm.fit_minimum(warm.exact_draws(4000, w, 200.0, source)[None], start)
    assert (fit.w - w).abs().max() < 0.02
    assert float(fit.beta) == pytest.approx(200, rel=0.15)


def test_draws_even_in_length_are_rarer_where_the_curve_is_slow():
    w, source = torch.tensor([2.0, 1.5]).double(), torch.Generator().manual_seed(0)
    even = warm.length_draws(20_000, w, 200.0, source)
    assert even.shape == (20_000, 2)
    # A quarter of the length, by angle in units of the radii, from the slow side.
    z = torch.atan2(even[:, 1] / 1.5, even[:, 0] / 2).abs()
    slow = ((z < math.pi / 4) | (z > 3 * math.pi / 4)).double().mean()
    grid = torch.linspace(0, math.pi, 20_001).double()
    speed = (4 * grid.sin() ** 2 + 2.25 * grid.cos() ** 2).sqrt()
    at = (grid < math.pi / 4) | (grid > 3 * math.pi / 4)
    want = float(speed[at].sum() / speed.sum())
    assert want < 0.47
    assert float(slow) == pytest.approx(want, abs=0.015)
