"""The toy energies are what they say: gradients, normalisers, exact draws and refusals."""

import math

import pytest
import torch
from laws import FLOOR, box, correlated, gaussian, generator, heavy_tail, mixture, smallest
from scipy import stats

from ebmref import energies
from ebmref.energies import value_and_gradient

LIKE = torch.zeros(2, dtype=torch.float64)


def lopsided(d):
    """A mixture of unequal weights, scales and places."""
    means = torch.tensor([[-1.0, 0.5], [1.5, 0.0], [0.0, -2.0]], dtype=torch.float64)[:, :d]
    scales, weights = (
        torch.tensor(x, dtype=torch.float64) for x in ([0.5, 1.0, 0.3], [0.2, 0.5, 0.3])
    )
    return energies.GaussianMixture(means, scales, weights)


# energy on the plane -> half the side of a square that holds all but 1e-7 of its mass
PLANE = {
    "gaussian": (correlated(2).energy, 14.0),
    "mixture": (lopsided(2), 8.0),
    "ring": (energies.Ring(LIKE), 6.0),
    "wide ring": (energies.Ring(LIKE, radius=0.5, width=1.0), 8.0),
    "moons": (energies.two_moons(LIKE), 6.0),
    "box": (energies.Box(LIKE, -0.5, 1.5, tilt=2.0), None),
    "flat box": (energies.Box(LIKE, -0.5, 1.5), None),
}
LINE = {
    "gaussian": correlated(1).energy,
    "mixture": lopsided(1),
    "box": energies.Box(LIKE[:1], -0.5, 1.5, tilt=2.0),
    "heavy": energies.StudentT(LIKE[:1], 5.0),
    "cauchy": energies.StudentT(LIKE[:1], 1.0),
}


@pytest.mark.parametrize("name", PLANE)
def test_analytic_gradient_is_autograd_s(name):
    """Value and gradient at 200 draws, to 1e-10; the helper prefers the energy's own."""
    energy, _ = PLANE[name]
    x = energy.sample(200, generator())
    value, gradient = value_and_gradient(energy, x)
    by_autograd = value_and_gradient(lambda x: energy(x), x)
    torch.testing.assert_close(value, by_autograd[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, by_autograd[1], rtol=0, atol=1e-10)
    assert not value.requires_grad and not x.requires_grad


@pytest.mark.parametrize("name", PLANE)
def test_normaliser_on_the_plane(name):
    """log Z by the trapezoid rule on a 601^2 grid. A smooth law is exact to 1e-6 by then, the
    cusp of the ring's energy at the middle to 1e-5; in the box it is a rule of second order."""
    energy, half = PLANE[name]
    low, high = (-0.5, 1.5) if half is None else (-half, half)
    axis = torch.linspace(low, high, 601, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    density = (-energy(points)).exp().view(601, 601)
    z = torch.trapezoid(torch.trapezoid(density, axis), axis)
    assert float(z.log()) == pytest.approx(energy.log_z, abs=1e-5)
    torch.testing.assert_close(energy.log_prob(points[:10]), -energy(points[:10]) - energy.log_z)


@pytest.mark.parametrize("name", LINE)
def test_normaliser_and_draws_on_the_line(name):
    """log Z by quadrature over x = tan u, and 20,000 draws by KS against the integral."""
    energy = LINE[name]
    u = torch.linspace(-math.pi / 2, math.pi / 2, 400_001, dtype=torch.float64)[1:-1]
    x = u.tan()
    density = (-energy(x[:, None])).exp() * (1 + x.square())
    cdf = torch.cumulative_trapezoid(density, u)
    # The wall of a box falls between two points: an error of their distance.
    assert float(cdf[-1].log()) == pytest.approx(energy.log_z, abs=2e-5)
    draws = energy.sample(20_000, generator())[:, 0]
    place = torch.searchsorted(x, draws).clamp(1, len(cdf) - 1)
    assert stats.kstest((cdf / cdf[-1])[place - 1].numpy(), "uniform").pvalue > FLOOR


@pytest.mark.parametrize("d", [1, 10, 100])
@pytest.mark.parametrize("make", [gaussian, correlated, mixture, box, heavy_tail])
def test_draws_have_the_law_in_any_dimension(make, d):
    """By the tests that the kernels are held to."""
    law = make(d)
    assert smallest(law.scores(law.draw(5_000, seed=0))) > FLOOR


@pytest.mark.parametrize("beta", [0.5, 0.85])
@pytest.mark.parametrize("make", [gaussian, correlated, mixture, box, heavy_tail])
def test_tempered_draws_have_the_tempered_law(make, beta):
    """On the line, against the integral of exp(-beta E): the replicas of tempering start there."""
    law = make(1)
    x = torch.tan(torch.linspace(-math.pi / 2, math.pi / 2, 400_001, dtype=torch.float64)[1:-1])
    density = (-beta * law.energy(x[:, None])).exp()
    cdf = torch.cumulative_trapezoid(density, x)
    draws = law.tempered(beta)(20_000, generator())[:, 0]
    place = torch.searchsorted(x, draws).clamp(1, len(cdf) - 1)
    assert stats.kstest((cdf / cdf[-1])[place - 1].numpy(), "uniform").pvalue > FLOOR


def test_funnel_is_normal_given_its_neck():
    """x_1 / scale and x_k e^{-x_1 / 2} are standard normals; log Z = 0 from its own densities."""
    funnel = energies.Funnel(torch.zeros(5, dtype=torch.float64))
    x = funnel.sample(20_000, generator())
    z = torch.cat([x[:, :1] / 3, x[:, 1:] * (-0.5 * x[:, :1]).exp()], 1)
    assert smallest(z) > FLOOR
    normal = torch.distributions.Normal
    expected = normal(0, torch.tensor(3.0).double()).log_prob(x[:, 0])
    expected += normal(0, (0.5 * x[:, :1]).exp()).log_prob(x[:, 1:]).sum(1)
    torch.testing.assert_close(funnel.log_prob(x), expected)


@pytest.mark.parametrize(("radius", "width"), [(3.0, 0.3), (0.5, 1.0)])
def test_ring_s_radius_and_angle(radius, width):
    """Radius by KS against its closed form, which quadrature confirms; the angle is uniform."""
    ring = energies.Ring(LIKE, radius, width)
    r = torch.linspace(0, radius + 10 * width, 200_001, dtype=torch.float64)
    density = r * (-0.5 * ((r - radius) / width).square()).exp()
    cdf = torch.cumulative_trapezoid(density, r)
    torch.testing.assert_close(ring.radius_cdf(r[1:]), cdf / cdf[-1], rtol=0, atol=1e-8)
    x = ring.sample(20_000, generator())
    assert stats.kstest(ring.radius_cdf(x.norm(dim=1)).numpy(), "uniform").pvalue > FLOOR
    turn = torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi) + 0.5
    assert stats.kstest(turn.numpy(), "uniform").pvalue > FLOOR


@pytest.mark.parametrize("tilt", [0.0, 2.0, -3.0])
def test_box_s_distribution_function(tilt):
    """Zero and one at the walls, the integral of its density between; +inf beyond."""
    law = energies.Box(LIKE[:1], -0.5, 1.5, tilt=tilt)
    x = torch.linspace(-0.5, 1.5, 20_001, dtype=torch.float64)
    cdf = torch.cumulative_trapezoid(law.log_prob(x[:, None]).exp(), x)
    torch.testing.assert_close(law.cdf(x[1:]), cdf, rtol=0, atol=1e-7)
    outside = torch.tensor([[-0.5001], [1.5001]], dtype=torch.float64)
    assert (law(outside) == math.inf).all()
    assert law.cdf(outside[:, 0]).tolist() == [0.0, 1.0]
    draws = law.sample(50_000, generator())
    assert law(draws).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_take_dtype_and_seed(dtype):
    like = torch.zeros(3, dtype=dtype)
    for law in (
        energies.Gaussian(like, torch.eye(3, dtype=dtype)),
        energies.GaussianMixture(torch.zeros(2, 3, dtype=dtype), torch.ones(2, dtype=dtype)),
        energies.Funnel(like),
        energies.Box(like, tilt=1.0),
        energies.StudentT(like),
    ):
        one, two = (law.sample(7, generator(3)) for _ in range(2))
        assert one.shape == (7, 3) and one.dtype == dtype
        assert law(one).shape == (7,) and law(one).dtype == dtype
        assert torch.equal(one, two)


def test_an_empty_batch_has_no_energies():
    x = torch.zeros(0, 2, dtype=torch.float64)
    for energy, _ in PLANE.values():
        value, gradient = value_and_gradient(energy, x)
        assert value.shape == (0,) and gradient.shape == (0, 2)


EYE = torch.eye(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: energies.Gaussian(LIKE, torch.eye(3)), "covariance: expected"),
        (lambda: energies.Gaussian(torch.tensor(0.0), EYE), "covariance: expected"),
        (lambda: energies.Gaussian(LIKE, -EYE), "covariance: .* positive definite"),
        (lambda: energies.Gaussian(LIKE, EYE + EYE.roll(1, 0).triu()), "covariance: .* symmetric"),
        (lambda: energies.GaussianMixture(EYE, torch.ones(3)), "means, scales, weights"),
        (lambda: energies.GaussianMixture(EYE, -torch.ones(2)), "scales, weights: expected all"),
        (lambda: energies.Funnel(LIKE[:1]), "like, scale"),
        (lambda: energies.Funnel(LIKE, math.nan), "like, scale"),
        (lambda: energies.Ring(LIKE, width=0.0), "radius, width"),
        (lambda: energies.Box(LIKE, 1.0, 1.0), "like, low, high"),
        (lambda: energies.StudentT(LIKE, 0.0), "like, nu"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (lambda x: x, "energy: expected shape"),
        (lambda x: x.square().sum(), "energy: expected shape"),
        (lambda x: x.detach().square().sum(1), "energy: expected one that depends on x"),
        (lambda x: torch.ones(len(x), requires_grad=True), "energy: expected one that depends"),
    ],
)
def test_no_gradient_from_a_wrong_energy(energy, message):
    with pytest.raises(ValueError, match=message):
        value_and_gradient(energy, LIKE[None])
