"""Closed forms behind `book/why-energy.md`: resultant, mixture density, partition function."""

import math

import pytest
import torch
from scipy import stats

from ebmref import data, outcomes


@pytest.mark.parametrize("kappa, value", [(0.0, 0.0), (1.0, 0.446390), (4.0, 0.863523)])
def test_mean_resultant_is_the_mean_tip(kappa, value):
    """Tabulated I1/I0; and the mean of simulated tips within four standard errors."""
    assert outcomes.mean_resultant(kappa) == pytest.approx(value, abs=1e-6)
    n = 20000
    generator = torch.Generator().manual_seed(1)
    mean = data.tips(data.von_mises(n, kappa, generator)).mean(0)
    assert abs(float(mean[0]) - value) < 4 / math.sqrt(n)
    assert abs(float(mean[1])) < 4 / math.sqrt(n)


def test_mean_resultant_survives_large_concentrations():
    """Exponentially scaled Bessel functions: no overflow, and A -> 1 - 1/(2 kappa)."""
    assert outcomes.mean_resultant(1e4) == pytest.approx(1 - 0.5e-4, abs=1e-8)


def test_squared_error_by_hand():
    """Distances 5 and 1 of two points: mean of squares 13."""
    predicted = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
    assert outcomes.squared_error(predicted, torch.zeros(1, 2, 2)).tolist() == [13.0]


def test_mixture_density_is_scipys():
    """Against a sum of SciPy normals, component by component."""
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(3, 5, 2 * 4, generator=generator, dtype=torch.float64)
    y = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    got = outcomes.mixture_log_prob(parameters, y)
    for k in range(3):
        for i in range(5):
            (a, b) = parameters[k, i].view(2, 4).numpy()
            weight = 1 / (1 + math.exp(b[0] - a[0]))
            density = sum(
                w * stats.multivariate_normal(c[2:], math.exp(2 * c[1])).pdf(y[k, i].numpy())
                for w, c in ((weight, a), (1 - weight, b))
            )
            assert float(got[k, i]) == pytest.approx(math.log(density), rel=1e-10)


def test_mixture_refuses_a_wrong_width():
    with pytest.raises(ValueError, match="no multiple of d"):
        outcomes.mixture_log_prob(torch.zeros(1, 1, 7), torch.zeros(1, 1, 2))


def test_log_partition_of_a_gaussian():
    """Z = 2 pi s^2 in the plane; the midpoint rule is exact to rounding when cells are small."""
    points, cell = outcomes.plane_grid(4.0, 80)
    for s in (0.3, 0.5):
        energy = points.double().square().sum(1) / (2 * s**2)
        log_z = outcomes.log_partition(energy[None], cell)
        assert float(log_z) == pytest.approx(math.log(2 * math.pi * s**2), abs=1e-6)
