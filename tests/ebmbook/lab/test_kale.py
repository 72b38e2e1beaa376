"""The bound, its bias and its draws, against closed forms."""

import math

import pytest
import torch

from ebmbook.lab import kale
from ebmref import ddls, gebm


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def test_signs_by_hand():
    """A constant energy of 1 with c = 0: F = -1/e, and printed 2 - 1/e."""
    ones, zero = torch.ones(1).double(), torch.zeros(()).double()
    assert float(kale.signed(*kale.RIGHT)(ones, ones, zero)) == pytest.approx(-1 / math.e)
    assert float(kale.signed(1, -1, -1)(ones, ones, zero)) == pytest.approx(2 - 1 / math.e)
    c = torch.tensor([0.3, -2.0]).double()
    real, fake = (
        torch.randn(2, 5, generator=g()).double(),
        torch.randn(2, 7, generator=g()).double(),
    )
    assert torch.allclose(kale.signed(*kale.RIGHT)(real, fake, c), gebm.bound(real, fake, c))


def test_one_choice_of_signs_is_a_bound():
    over = dict(zip(kale.sign_choices(), kale.least_excess(500, g()).tolist(), strict=True))
    assert len(over) == 8 and over.pop(kale.RIGHT) <= 0
    assert min(over.values()) > 0.1


def test_a_batch_biases_the_logarithm_by_half_the_relative_variance():
    f, height = kale.batch_bias(64, 20_000, g())
    assert float(f.mean()) == pytest.approx(0, abs=5 * float(f.std()) / 20_000**0.5)
    assert float(height.mean()) == pytest.approx((math.e - 1) / 128, abs=0.006)
    assert kale.batch_bias(4, 10, g()).shape == (2, 10)


def test_the_best_quadratic_reaches_the_divergence():
    energy = kale.Quadratic(1)
    covariance, mean = torch.tensor(kale.COVARIANCE).double(), torch.tensor(kale.MEAN).double()
    precision = torch.linalg.inv(covariance)
    with torch.no_grad():
        energy.a[0] = precision - torch.eye(2)
        energy.b[0, 0] = -precision @ mean
    log_z, height = energy.known()
    assert float(height) == pytest.approx(kale.gaussian_kl())
    x = torch.randn(200_000, 2, generator=g(), dtype=torch.float64)
    weights = (-energy(x[None])).detach().exp()
    assert float(weights.mean().log()) == pytest.approx(float(log_z), abs=0.02)
    with torch.no_grad():
        energy.b[0, 0, 0] += 0.1
    assert float(energy.known()[1]) < kale.gaussian_kl() - 1e-4


@pytest.mark.parametrize("criterion", gebm.CRITERIA)
def test_the_ascent_comes_near(criterion):
    path = kale.ascend(criterion, 2, 120, g(), 0)
    assert path.bound.shape == (120, 2) and (path.bound <= path.likelihood + 1e-12).all()
    assert (path.bound[-1] > 0.9 * kale.gaussian_kl()).all()
    assert (path.constant - path.log_z)[-1].abs().max() < 0.1


def test_the_base_descends_the_divergence():
    found, truth = kale.base_slope(gebm.base_loss)
    assert (found - truth).abs().max() < 1e-6
    # d KL / d m = (m - 0.6) / s^2
    assert float(truth[0]) == pytest.approx((0.2 - 0.6) * math.exp(-0.2))
    upward, _ = kale.base_slope(lambda e: -gebm.base_loss(e))
    assert (upward - truth).abs().max() > 0.5


def test_four_samplers_draw_the_square():
    square = gebm.model(
        lambda z: z.square(), lambda x: 1.5 * x[..., 0], ddls.Normal(1, torch.float64)
    )
    for name, states in kale.drawn(square, 2000, g()).items():
        scale = 0.5 / 0.99 if name == "ULA" else 0.5
        assert kale.gamma_p(states[0, :, 0].square(), scale) > 1e-4, name
    z = torch.randn(5000, generator=g()).double()
    assert kale.gamma_p(z.square(), 2.0) > 1e-3 and kale.gamma_p(z.square()) < 1e-12
