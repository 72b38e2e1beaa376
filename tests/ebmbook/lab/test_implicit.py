"""Laws without a density, by their draws; circles under noise, by quadrature and by hand."""

import math

import numpy as np
import pytest
import torch

from ebmbook.lab import implicit as lab
from ebmref import gan


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_draws_are_on_the_circle():
    z = torch.tensor([[0.0, 0.25, 0.5]], dtype=torch.float64)
    want = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(lab.on_circle(z, 2.0)[0], want, atol=1e-12)


def test_share_of_close_pairs_by_hand():
    """Points at 0, 1, 3 and 7 of a line: distances 1, 2, 3, 4, 6 and 7."""
    x, r = torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([0.5, 1.5, 2.5, 9.0])
    assert lab.close_pairs(x, r).tolist() == pytest.approx([0, 1 / 6, 1 / 3, 1])


def test_dimension_of_circle_and_plane():
    ring = lab.on_circle(torch.rand(10, 1500, generator=generator(), dtype=torch.float64))
    plane = torch.randn(10, 1500, 2, generator=generator(), dtype=torch.float64)
    for x, slope in ((ring, 1.0046), (plane, 1.9866)):
        got = lab.dimension(x)
        assert abs(got.mean() - slope) < 5 * got.std() / 10**0.5


@pytest.mark.parametrize("rho, sigma", [(1.0, 0.25), (1.25, 0.05), (0.0, 0.5)])
def test_densities_of_the_distance(rho, sigma):
    """They sum to one and have the mean square rho^2 + 2 sigma^2."""
    p = lab.density(rho, sigma)
    assert np.trapezoid(p, lab.RADII) == pytest.approx(1, abs=1e-5)
    square = np.trapezoid(p * lab.RADII**2, lab.RADII)
    assert square == pytest.approx(rho**2 + 2 * sigma**2, rel=1e-4)


def test_divergence_has_its_ends():
    assert lab.divergence(1.0, 0.25) == pytest.approx(0, abs=1e-12)
    assert lab.divergence(1.25, 0.01) == pytest.approx(math.log(2), abs=1e-4)
    assert lab.divergence(1.25, 0.25) == pytest.approx(0.10889, abs=1e-5)


def test_the_best_of_the_rings_is_of_the_best_logit():
    """The value is that of log p - log q on draws, and the gap is theirs."""
    best = lab.rings(1.25, 0.25)
    real, fake, _ = lab.two_circles(200_000, 1.25, torch.tensor([0.25]), generator())
    said = []
    for x in (real, fake):
        r = x.norm(dim=-1).double().numpy()
        said.append(torch.tensor(np.log(lab.density(1, 0.25, r) / lab.density(1.25, 0.25, r))))
    assert float(gan.value(*said)) == pytest.approx(best.value, abs=0.006)
    assert float(said[0].mean() - said[1].mean()) == pytest.approx(best.gap, abs=0.015)
    slope = (2 * lab.divergence(1.26, 0.25) - 2 * lab.divergence(1.24, 0.25)) / 0.02
    assert best.pull == pytest.approx(slope, rel=1e-3)


def test_samples_move_along_their_way():
    sigma = torch.tensor([0.0, 0.3])
    a, b = (lab.two_circles(50, rho, sigma, generator()) for rho in (1.0, 1.5))
    assert torch.allclose(b[1] - a[1], 0.5 * a[2], atol=1e-6)
    assert torch.allclose(a[0], b[0])
    assert torch.allclose(a[0][0].norm(dim=-1), torch.ones(50), atol=1e-6)
    assert (a[0][1].norm(dim=-1) - 1).abs().max() > 0.1


def test_watched_discriminators_learn_and_their_pulls_are_slopes():
    seen = lab.watch((0.0, 0.25), 2, [1, 60], generator(), generator(1), n_look=256)
    assert seen.value.shape == (2, 2, 2)
    assert (seen.gap[1] > seen.gap[0]).all() and (seen.value[1] > seen.value[0]).all()
    assert (seen.value <= 0).all() and (seen.value[1] > -math.log(4)).all()
    assert (seen.saturating[1] > 0).all() and (seen.non_saturating[1] > 0).all()


def test_watched_kinds_stand_in_their_order():
    seen = lab.watch((0.0, 3.0), 2, [60], generator(), generator(1), n_look=256)
    assert (seen.gap[0, 0] > 3 * seen.gap[0, 1]).all()


def test_pulls_by_hand():
    """d = -2 |x|^2 / 2: the slope along the way out is -2 rho, weighted by D or by 1 - D."""

    def net(x):
        return -x.square().sum(-1)

    real, fake, way = lab.two_circles(64, 1.25, torch.zeros(1), generator())
    _, gap, down, up = lab._said(net, real, fake, way)
    told = 1 / (1 + math.exp(1.25**2))
    assert float(gap) == pytest.approx(-1 + 1.25**2, abs=1e-5)
    assert float(down) == pytest.approx(2.5 * told, rel=1e-4)
    assert float(up) == pytest.approx(2.5 * (1 - told), rel=1e-4)
