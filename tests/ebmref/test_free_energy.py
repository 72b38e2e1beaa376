"""Free energies keep their bounds and laws, meet closed forms, and refuse nonsense."""

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from ebmref import data, energies, inference, samplers
from ebmref.free_energy import (
    MEASURES,
    annealed_free_energy,
    free_energy,
    importance_free_energy,
    marginal_energy,
    softmin,
)

EPS = torch.finfo(torch.float64).eps
GRIDS = st.lists(st.floats(-50, 50), min_size=1, max_size=12).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)
BETAS = st.floats(-3, 3).map(lambda power: 10.0**power)
OF_MEASURE = st.sampled_from([("counting", None), ("normalised", None), ("lebesgue", 0.37)])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def angles(n=48):
    """n angles evenly round the circle, and the arc that each stands for."""
    return torch.arange(n, dtype=torch.float64) * 2 * math.pi / n, 2 * math.pi / n


def ellipse(w):
    """E(y, z) = |y - w (cos z, sin z)|^2."""
    return lambda y, z: (y - w * data.tips(z)).square().sum(1)


def of_ellipse(y, w, n=48):
    """Its energies on n angles: y (..., 2) and w (2,) to (..., n)."""
    z, _ = angles(n)
    return (y[..., None, :] - w * data.tips(z)).square().sum(-1)


def slack(energy, beta):
    """What rounding may add to F: eps times the size of beta E and of log n, over beta."""
    return 16 * EPS * (float(energy.abs().max()) + (1 + math.log(len(energy))) / beta)


W = torch.tensor([2.0, 1.5], dtype=torch.float64)
Y = torch.tensor([0.0, 1.0], dtype=torch.float64)


# Bounds and laws -----------------------------------------------------------------------------


@settings(deadline=None)
@given(GRIDS, BETAS)
def test_normalised_lies_between_the_least_and_the_mean(energy, beta):
    """min E <= F <= min(mean E, min E + log(n) / beta); counting is log(n) / beta below."""
    least, room, off = energy.min(), math.log(len(energy)) / beta, slack(energy, beta)
    normalised = free_energy(energy, beta)
    assert least - off <= normalised <= torch.minimum(energy.mean(), least + room) + off
    counting = free_energy(energy, beta, "counting")
    assert least - room - off <= counting <= least + off
    assert abs(counting + room - normalised) <= off


@settings(deadline=None)
@given(GRIDS, BETAS, BETAS)
def test_normalised_falls_with_beta_and_counting_grows(energy, one, other):
    """Monotone, to rounding; at an infinite beta both are the minimum."""
    hot, cold = sorted([one, other])
    off = slack(energy, hot)
    assert free_energy(energy, cold) <= free_energy(energy, hot) + off
    assert free_energy(energy, cold, "counting") >= free_energy(energy, hot, "counting") - off
    assert free_energy(energy, math.inf) <= free_energy(energy, cold) + off
    assert free_energy(energy, math.inf) >= free_energy(energy, cold, "counting") - off


@settings(deadline=None)
@given(GRIDS, BETAS, st.floats(1e-3, 1e3))
def test_lebesgue_is_normalised_less_the_log_of_the_volume(energy, beta, cell):
    """F_lebesgue = F_normalised - log(volume) / beta, with the volume n * cell."""
    volume = math.log(len(energy) * cell)
    moved = free_energy(energy, beta) - volume / beta
    got = free_energy(energy, beta, "lebesgue", cell=cell)
    assert abs(got - moved) <= slack(energy, beta) + 16 * EPS * (1 + abs(math.log(cell))) / beta


def test_lebesgue_need_not_be_monotone():
    """E = 1 over a volume of 10: F = 1 - log(10) / beta grows; over 1/10 it falls."""
    flat = torch.ones(5, dtype=torch.float64)
    for volume, sign in ((10.0, 1), (0.1, -1)):
        values = [free_energy(flat, b, "lebesgue", cell=volume / 5).item() for b in (0.5, 1, 2)]
        assert values == pytest.approx([1 - math.log(volume) / b for b in (0.5, 1, 2)])
        assert sign * values[0] < sign * values[1] < sign * values[2]


@settings(deadline=None)
@given(GRIDS, BETAS, OF_MEASURE, st.floats(-50, 50), BETAS)
def test_shift_and_scale(energy, beta, measure, shift, scale):
    """F(E + c) = F(E) + c, and F_beta(c E) = c F_(c beta)(E)."""
    free = functools.partial(free_energy, measure=measure[0], cell=measure[1])
    off = 2 * slack(energy, beta) + 32 * EPS * (abs(shift) + 1 / beta)
    assert abs(free(energy + shift, beta) - free(energy, beta) - shift) <= off
    off = 2 * scale * (slack(energy, scale * beta) + 16 * EPS / (scale * beta))
    assert abs(free(scale * energy, beta) - scale * free(energy, scale * beta)) <= off


@settings(deadline=None)
@given(GRIDS, BETAS, OF_MEASURE, st.randoms(use_true_random=False))
def test_the_order_of_the_grid_does_not_matter(energy, beta, measure, random):
    order = list(range(len(energy)))
    random.shuffle(order)
    free = functools.partial(free_energy, beta=beta, measure=measure[0], cell=measure[1])
    assert abs(free(energy[order]) - free(energy)) <= slack(energy, beta) + 16 * EPS / beta
    assert torch.allclose(softmin(energy[order], beta), softmin(energy, beta)[order], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_energies_and_betas_of_any_size_do_not_overflow(dtype):
    """beta E up to 1e12 both ways: F is the minimum to log(n) / beta, the softmin one and zeros."""
    energy = torch.tensor([1.0, 2.0, 5.0], dtype=dtype)
    sharp = torch.tensor([1.0, 0.0, 0.0], dtype=dtype)
    for size, beta in ((1e6, 1.0), (1.0, 1e6), (1e6, 1e6)):
        for sign, least, at in ((1, 1.0, 0), (-1, -5.0, 2)):
            for measure in ("counting", "normalised"):
                got = free_energy(sign * size * energy, beta, measure)
                assert got.dtype == dtype
                assert got.item() == pytest.approx(size * least, rel=4e-7, abs=2 / beta)
            assert torch.equal(softmin(sign * size * energy, beta), sharp.roll(at))


@pytest.mark.parametrize("beta", [1e-3, 1e-6, 1e-9])
def test_a_hot_normalised_free_energy_is_the_mean(beta):
    """Mean E - beta var E / 2 + O(beta^2), to the eps / beta that the logarithm cancels."""
    energy = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    second = energy.mean() - beta * energy.var(correction=0) / 2
    off = beta**2 * 4**3 / 6 + slack(energy, beta)
    assert abs(free_energy(energy, beta) - second) <= off
    assert torch.allclose(softmin(energy, beta), torch.full_like(energy, 1 / 3), atol=5 * beta)


def test_an_infinite_beta_is_the_minimum():
    """With any measure, along the last axis of any shape; a single z is its own."""
    energy = torch.randn(2, 3, 7, generator=generator())
    for measure in MEASURES:
        cell = 0.1 if measure == "lebesgue" else None
        assert torch.equal(free_energy(energy, math.inf, measure, cell=cell), energy.amin(-1))
    assert free_energy(energy[..., :1], 3.0).shape == (2, 3)
    assert torch.allclose(free_energy(energy[..., :1], 3.0), energy[..., 0])
    assert torch.equal(free_energy(energy, 2.0)[1, 2], free_energy(energy[1, 2], 2.0))


@settings(deadline=None)
@given(GRIDS, st.one_of(BETAS, st.just(math.inf)), st.integers(1, 5))
def test_impossible_z_are_dropped(energy, beta, n_impossible):
    """+inf has weight zero; what it changes is the number that `normalised` divides by."""
    walled = torch.cat([energy, torch.full((n_impossible,), math.inf, dtype=torch.float64)])
    off = slack(energy, beta)
    for measure, cell in (("counting", None), ("lebesgue", 0.37)):
        got = free_energy(walled, beta, measure, cell=cell)
        assert abs(got - free_energy(energy, beta, measure, cell=cell)) <= off
    thinner = math.log(len(walled) / len(energy)) / beta
    assert abs(free_energy(walled, beta) - free_energy(energy, beta) - thinner) <= 2 * off
    weights = softmin(walled, beta)
    assert torch.equal(weights[len(energy) :], torch.zeros(n_impossible, dtype=torch.float64))
    assert torch.allclose(weights[: len(energy)], softmin(energy, beta), rtol=1e-12, atol=0)


def test_impossible_z_pass_no_gradient():
    """Neither nan nor anything else reaches a z of infinite energy, at any beta."""
    for beta in (2.0, math.inf):
        energy = torch.tensor([1.0, math.inf, 2.0], dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(free_energy(energy, beta), energy)
        assert gradient[1] == 0 and gradient.isfinite().all()


# Softmin and gradients -----------------------------------------------------------------------


@settings(deadline=None)
@given(GRIDS, st.one_of(BETAS, st.just(math.inf)), OF_MEASURE)
def test_the_gradient_by_the_energies_is_the_softmin(energy, beta, measure):
    """Autograd of F, whatever the measure; and it sums to one."""
    energy = energy.requires_grad_()
    value = free_energy(energy, beta, measure[0], cell=measure[1])
    (gradient,) = torch.autograd.grad(value, energy)
    weights = softmin(energy.detach(), beta)
    assert (gradient - weights).abs().max() <= 1e-12
    assert abs(weights.sum() - 1) <= 1e-14
    assert (weights >= 0).all()


def test_ties_share_the_softmin_evenly():
    """Two least of four: a half each at an infinite beta; by hand at beta = log 2."""
    energy = torch.tensor([[1.0, 3.0, 1.0, 2.0]], dtype=torch.float64)
    assert softmin(energy, math.inf).tolist() == [[0.5, 0.0, 0.5, 0.0]]
    # exp(-beta E) = 1/2, 1/8, 1/2, 1/4
    by_hand = torch.tensor([[4.0, 1.0, 4.0, 2.0]], dtype=torch.float64) / 11
    assert torch.allclose(softmin(energy, math.log(2)), by_hand, rtol=1e-14)


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0, 100.0, math.inf])
@pytest.mark.parametrize("measure, cell", [("normalised", None), ("lebesgue", 2 * math.pi / 48)])
def test_the_gradient_in_y_is_the_softmin_weighted_mean(beta, measure, cell):
    """grad F = sum_k p(z_k | y) grad E(y, z_k) = 2 (y - w <tips>), to 1e-10.

    At an infinite beta it is the gradient of E at the best z alone (envelope theorem).
    """
    y = 3 * torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    z, _ = angles()
    marginal = marginal_energy(ellipse(W), z, beta, measure, cell=cell)
    _, gradient = energies.value_and_gradient(marginal, y)
    table = of_ellipse(y, W)
    mean = 2 * (y - W * (softmin(table, beta) @ data.tips(z)))
    assert (gradient - mean).abs().max() < 1e-10
    if math.isinf(beta):
        assert (gradient - 2 * (y - W * data.tips(z)[table.argmin(1)])).abs().max() < 1e-10


def test_the_gradient_in_y_is_that_of_central_differences():
    """(F(y + h) - F(y - h)) / 2h: off by h^2 / 6 of a third derivative, and eps / h.

    At beta = 3 third derivatives are 4 beta^2 |w tips|^3 * 2 < 600, so h = 1e-5 leaves 1e-8.
    """
    y = torch.randn(20, 2, generator=generator(), dtype=torch.float64)
    marginal = marginal_energy(ellipse(W), angles()[0], 3.0)
    _, gradient = energies.value_and_gradient(marginal, y)
    for k in range(2):
        h = torch.zeros(2, dtype=torch.float64)
        h[k] = 1e-5
        slope = (marginal(y + h) - marginal(y - h)) / 2e-5
        assert (gradient[:, k] - slope).abs().max() < 2e-8


def test_marginal_energies_pass_gradcheck():
    """First and second derivatives in y, and in a weight of the model, in double precision."""
    z, _ = angles(12)
    y = torch.randn(3, 2, generator=generator(), dtype=torch.float64, requires_grad=True)
    w = W.clone().requires_grad_()

    def of(y, w):
        return marginal_energy(ellipse(w), z, 1.5)(y)

    assert torch.autograd.gradcheck(of, (y, w))
    assert torch.autograd.gradgradcheck(of, (y, w))


# Numbers and closed forms --------------------------------------------------------------------

BY_BETA = {0.1: (3.872, -6.79), 1.0: (2.035, -0.131), 10.0: (0.550, -0.0004), 100.0: (0.292, 0.0)}


@pytest.mark.parametrize("beta", BY_BETA)
def test_the_printed_form_is_not_a_free_energy(beta):
    """At y = (0, 1), w = (2, 1.5): F against -1/beta of the mean of exp(-beta E), no logarithm.

    At beta = 100 the 48 angles of the figures are too coarse for three digits: 480 here.
    """
    energy = of_ellipse(Y, W, 480)
    right, printed = BY_BETA[beta]
    wrong = -(-beta * energy).exp().mean() / beta
    assert free_energy(energy, beta).item() == pytest.approx(right, abs=5e-4)
    assert wrong.item() == pytest.approx(printed, abs=5e-3 if beta < 1 else 5e-4)
    assert free_energy(energy, beta) - wrong > 0.2
    assert 0.25 <= free_energy(energy, beta) <= 0.25 + math.log(480) / beta


def test_the_limit_is_the_square_of_the_distance():
    """The nearest point of the ellipse to (0, 1) is (0, 1.5): F_inf = 0.25."""
    assert free_energy(of_ellipse(Y, W), math.inf).item() == pytest.approx(0.25, abs=1e-14)


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_the_printed_form_has_the_same_argmin(beta):
    """-exp(-beta F) / beta grows with F: the least on a grid of y is at the same point.

    So a test on the argmin would pass either form; the values differ.
    """
    side = torch.linspace(-0.1, 2.4, 26, dtype=torch.float64)
    y = torch.cartesian_prod(side, side)
    energy = of_ellipse(y, W)
    right, wrong = free_energy(energy, beta), -(-beta * energy).exp().mean(-1) / beta
    assert right.argmin() == wrong.argmin()
    assert (right - wrong).min() > 0.1


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_a_mesh_of_the_ellipse_is_within_log_n_of_its_limit(beta):
    """0 <= F_beta - F_inf <= log(48) / beta at each of 425 points of the plane."""
    y = torch.cartesian_prod(
        torch.linspace(-3, 3, 17, dtype=torch.float64), torch.linspace(-2, 2, 25).double()
    )
    energy = of_ellipse(y, W)
    gap = free_energy(energy, beta) - free_energy(energy, math.inf)
    assert (gap >= -1e-12).all() and (gap <= math.log(48) / beta + 1e-12).all()


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_the_marginal_of_a_circle_is_a_bessel_function(beta):
    """exp(-beta F) = 2 pi I_0(2 beta R |y|) exp(-beta (R^2 + |y|^2)), to 1e-10 in F.

    With 256 angles the trapezoid's error is of order I_256 / I_0, below 1e-10 at these sizes.
    """
    radius = 2.0
    z, cell = angles(256)
    y = 1.5 * torch.randn(40, 2, generator=generator(), dtype=torch.float64)
    circle = ellipse(torch.full((2,), radius, dtype=torch.float64))
    got = marginal_energy(circle, z, beta, "lebesgue", cell=cell)(y)
    r = y.norm(dim=1)
    log_i0 = torch.as_tensor(special.i0e((2 * beta * radius * r).numpy())).log()
    exact = (r - radius) ** 2 - (log_i0 + math.log(2 * math.pi)) / beta
    assert (got - exact).abs().max() < 1e-10


def test_the_marginal_of_a_circle_has_its_whole_mass():
    """Quadrature of exp(-beta F) over the plane: 2 pi pi / beta, to 1e-9 of it.

    For a function this smooth the sum over a mesh is exact but for exp(-pi^2 / (beta h^2)).
    """
    beta, h = 2.0, 0.15
    z, cell = angles(128)
    side = torch.arange(-6, 6, h, dtype=torch.float64)
    circle = ellipse(torch.full((2,), 2.0, dtype=torch.float64))
    marginal = marginal_energy(circle, z, beta, "lebesgue", cell=cell)
    mass = (-beta * marginal(torch.cartesian_prod(side, side))).exp().sum() * h**2
    assert mass.item() == pytest.approx(2 * math.pi * math.pi / beta, rel=1e-9)


@pytest.mark.parametrize("k", [0, 1])
def test_the_collapsed_ellipse_opens_above_its_temperature(k):
    """Mean F_beta at w = 0 has the Hessian 2 (1/2 - beta <y_k^2>): 0 at beta_c = 1 / (2 <y_k^2>).

    Below beta_c mean F grows with a small w_k, above it falls: at w_k = 1e-3 and 1 % off beta_c
    the slope is 1e-5, the next order some 1e-9 times fourth moments below 100.
    """
    y, _ = data.horn(torch.zeros(24, dtype=torch.float64), generator())
    second = y.square().mean(0)

    def mean_free(w, beta):
        return marginal_energy(ellipse(w), angles()[0], beta)(y).mean()

    beta_c = float(1 / (2 * second[k]))
    for beta in (0.5 * beta_c, beta_c, 2 * beta_c):
        hessian = torch.autograd.functional.hessian(
            functools.partial(mean_free, beta=beta), torch.zeros(2, dtype=torch.float64)
        )
        assert (hessian - torch.diag(1 - 2 * beta * second)).abs().max() < 1e-9
    w = torch.zeros(2, dtype=torch.float64)
    w[k] = 1e-3
    for off, sign in ((0.99, 1), (1.01, -1)):
        at = w.clone().requires_grad_()
        (slope,) = torch.autograd.grad(mean_free(at, off * beta_c), at)
        assert sign * float(slope[k]) > 0.5e-5


# The marginal as an energy -------------------------------------------------------------------


def test_a_marginal_holds_what_is_known():
    """With x = 0.3 known the horn's marginal is that of the ellipse at x = 0.3."""
    z, _ = angles()
    x = torch.tensor([0.3], dtype=torch.float64)
    y = torch.randn(6, 2, generator=generator(), dtype=torch.float64)

    def horn(x, y, z):
        return (y - data.horn_radii(x) * data.tips(z)).square().sum(1)

    held = marginal_energy(horn, z, 2.0, known={"x": x})(y)
    assert torch.allclose(held, free_energy(of_ellipse(y, data.horn_radii(x)[0]), 2.0), rtol=1e-12)
    other = marginal_energy(horn, z, 2.0, known={"x": x + 0.5})(y)
    assert (held - other).abs().min() > 1e-3


def test_an_argmin_of_a_marginal_ends_on_the_cold_ellipse():
    """At an infinite beta the least is 0, on the ellipse; descent from outside ends there."""
    y0 = torch.tensor([[3.0, 0.2], [0.3, -2.5]], dtype=torch.float64)
    cold = marginal_energy(ellipse(W), angles()[0], math.inf)
    found = inference.gradient_argmin(cold, y0, 0.5, 20)
    assert found.energy.max() < 1e-20


def test_a_sampler_keeps_the_law_of_a_marginal():
    """2000 chains from exact draws of exp(-beta F_beta) stay there: y = R tips(z) + noise.

    The noise has the variance 1 / (2 beta), so that 2 beta |y|^2 is chi-square of two degrees,
    off centre by 2 beta R^2. Twenty MALA steps, then Kolmogorov-Smirnov with a false alarm of
    one seed in a million; with F in place of beta F the test rings.
    """
    beta, radius = 3.0, 2.0
    z, _ = angles()
    g = generator()
    hidden = 2 * math.pi * torch.rand(2000, generator=g, dtype=torch.float64)
    noise = torch.randn(2000, 2, generator=g, dtype=torch.float64) / (2 * beta) ** 0.5
    marginal = marginal_energy(ellipse(torch.tensor([radius, radius]).double()), z, beta)

    def p_value(energy):
        chain = samplers.sample(
            samplers.mala(energy, step_size=0.1),
            radius * data.tips(hidden) + noise,
            20,
            thin=20,
            generator=generator(1),
        )
        assert chain.acceptance_rate.mean() > 0.5  # the chains do move
        square = 2 * beta * chain.samples[-1].square().sum(1).numpy()
        return stats.kstest(square, stats.ncx2(2, 2 * beta * radius**2).cdf).pvalue

    assert p_value(lambda y: beta * marginal(y)) > 1e-6
    assert p_value(marginal) < 1e-12


# By weighted draws ---------------------------------------------------------------------------


class Linear:
    """z ~ N(0, I) of two, E = |y - M z|^2 with y of three: everything Gaussian.

        beta F = log det(I + 2 beta M^T M) / 2 + beta y^T (I + 2 beta M M^T)^-1 y

    and the posterior of z has precision I + 2 beta M^T M.
    """

    beta = 0.7
    m = torch.tensor([[0.8, 0.1], [-0.3, 0.6], [0.2, 0.5]], dtype=torch.float64)
    prior = energies.Gaussian(
        torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    )

    @classmethod
    def energy(cls, y, z):
        return (y - z @ cls.m.mT).square().sum(1)

    @classmethod
    def exact(cls, y):
        """beta F of y (k, 3)."""
        scale = 2 * cls.beta
        inner = torch.eye(2, dtype=torch.float64) + scale * cls.m.mT @ cls.m
        outer = torch.eye(3, dtype=torch.float64) + scale * cls.m @ cls.m.mT
        return 0.5 * inner.logdet() + cls.beta * (y * torch.linalg.solve(outer, y.mT).mT).sum(1)

    @classmethod
    def posterior(cls, y, widened=1.0):
        """The law of z at one y (3,), its covariance times a factor."""
        scale = 2 * cls.beta
        covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + scale * cls.m.mT @ cls.m)
        covariance = 0.5 * (covariance + covariance.mT)
        return energies.Gaussian(scale * covariance @ cls.m.mT @ y, widened * covariance)


THREE = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 0.5], [2.0, 1.0, -1.0]], dtype=torch.float64)


def test_the_closed_form_is_that_of_a_fine_grid():
    """The Gaussian formula against quadrature over z, to 1e-10."""
    side = torch.arange(-8, 8, 0.2, dtype=torch.float64)
    z = torch.cartesian_prod(side, side)

    def energy(y, z):
        return Linear.energy(y, z) - Linear.prior.log_prob(z) / Linear.beta

    got = marginal_energy(energy, z, Linear.beta, "lebesgue", cell=0.04)(THREE)
    assert (Linear.beta * got - Linear.exact(THREE)).abs().max() < 1e-10


def estimate(name, y, n, seed=0):
    arguments = (Linear.energy, y, Linear.prior, Linear.beta, n)
    if name == "importance":
        return importance_free_energy(*arguments, generator(seed))
    if name == "widened":
        proposal = Linear.posterior(THREE.mean(0), widened=4.0)
        return importance_free_energy(*arguments, generator(seed), proposal=proposal)
    return annealed_free_energy(*arguments, 8, 0.2, generator(seed))


@pytest.mark.parametrize("name, n", [("importance", 100), ("widened", 100), ("annealed", 10)])
def test_weighted_draws_are_unbiased_for_the_marginal(name, n):
    """400 replicates of each of three y, in turns: mean of exp(log_z + beta F) is 1.

    Four standard errors each: a false alarm of 2e-4 for the three, at a fixed seed. They are
    0.1 at most, so that a factor of 1.1 in the weights would ring.
    """
    y = THREE.repeat(400, 1)
    got = estimate(name, y, n)
    assert all(field.shape == (1200,) for field in got)
    ratio = (got.log_z + Linear.exact(y)).exp().view(400, 3)
    se = ratio.std(0) / 20
    assert ((ratio.mean(0) - 1).abs() < 4 * se).all()
    assert (4 * se).max() < 0.1


@pytest.mark.parametrize("name, n", [("importance", 400), ("annealed", 50)])
def test_errors_of_an_easy_case_mean_what_they_say(name, n):
    """1000 replicates at y = 0: coverage of 1.96 errors 0.95, mean square of them the variance.

    The standard deviation of a coverage of 0.95 over 1000 is 0.007, of a sample variance 4.5 %:
    four of them, and a hundredth of coverage for weights that are not normal.
    """
    y = THREE[:1].expand(1000, 3)
    got = estimate(name, y, n)
    off = got.log_z + Linear.exact(y)
    covered = (off.abs() < 1.96 * got.log_z_se).double().mean()
    assert float(covered) == pytest.approx(0.95, abs=4 * 0.007 + 0.01)
    assert float(got.log_z_se.square().mean() / off.var()) == pytest.approx(1, abs=0.2)


def test_too_few_draws_find_f_too_high_by_half_the_square_of_the_error():
    """8 draws, 8000 replicates: the mean of -log_z - beta F is half the variance of Z-hat / Z.

    To four standard errors and a fifth besides, for the next orders of the logarithm's series:
    a third moment over n^2 and the like, some 10 % here.
    """
    y = THREE[:1].expand(8000, 3)
    got = estimate("importance", y, 8)
    off = -got.log_z - Linear.exact(y)
    half = float((-off).exp().var()) / 2
    room = 4 * float(off.std()) / 8000**0.5 + 0.2 * half
    assert half > room  # so that no bias at all would fail
    assert abs(float(off.mean()) - half) < room


def test_the_posterior_as_proposal_is_exact():
    """Weights are then all equal: log_z is -beta F to rounding, with no error at all."""
    got = importance_free_energy(
        Linear.energy,
        THREE[2:],
        Linear.prior,
        Linear.beta,
        10,
        generator(),
        proposal=Linear.posterior(THREE[2]),
    )
    assert got.log_z.tolist() == pytest.approx((-Linear.exact(THREE[2:])).tolist(), abs=1e-12)
    assert float(got.log_z_se) < 1e-12
    assert float(got.ess) == pytest.approx(10)


@pytest.mark.parametrize("name", ["importance", "annealed"])
def test_rows_do_not_mix(name):
    """The same y with 0, 500, -500 and 30 added to its energy: F moves by just that.

    A single draw in the wrong row would move it by tens; the errors are below 0.2.
    """
    added = torch.tensor([0.0, 500.0, -500.0, 30.0], dtype=torch.float64)

    def energy(y, z):
        return Linear.energy(y[:, :3], z) + y[:, 3]

    y = torch.cat([THREE[:1].expand(4, 3), added[:, None]], 1)
    arguments = (energy, y, Linear.prior, Linear.beta, 300)
    if name == "importance":
        got = importance_free_energy(*arguments, generator())
    else:
        got = annealed_free_energy(*arguments, 5, 0.2, generator())
    off = got.log_z + Linear.beta * added + Linear.exact(y[:, :3])
    assert got.log_z_se.max() < 0.2
    assert (off.abs() < 5 * got.log_z_se).all()


def test_annealing_reaches_where_the_prior_does_not():
    """At y = (8, -6, 3) the posterior lies 6 sd from the prior's middle: 400 particles, 60 steps.

    Draws of the prior know that they miss it: their effective number is a few of 400.
    """
    y = torch.tensor([[8.0, -6.0, 3.0]], dtype=torch.float64)
    plain = estimate("importance", y, 400)
    led = annealed_free_energy(
        Linear.energy, y, Linear.prior, Linear.beta, 400, 60, 0.5, generator(), n_moves=5
    )
    assert float(plain.ess) < 15
    assert float(led.ess) > 50
    assert abs(float(led.log_z + Linear.exact(y))) < 5 * float(led.log_z_se)
    assert float(led.log_z_se) < 0.2


def test_weighted_draws_repeat_by_seed():
    for name in ("importance", "annealed"):
        one, same, other = (estimate(name, THREE, 20, seed).log_z for seed in (3, 3, 4))
        assert torch.equal(one, same) and not torch.equal(one, other)


# Bad input -----------------------------------------------------------------------------------

GOOD = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
BAD_BETAS = [0, 0.0, -1.0, -math.inf, math.nan, True, "1", None]
BAD_GRIDS = [
    ([1.0, 2.0], "energy: expected a float tensor"),
    (torch.tensor(1.0), "energy: expected a float tensor"),
    (torch.tensor([1, 2]), "energy: expected a float tensor"),
    (torch.zeros(3, 0), "energy: expected a grid of one z or more"),
    (torch.tensor([[1.0, 2.0], [math.nan, 1.0]]), "energy: is NaN"),
    (torch.tensor([[1.0, 2.0], [math.inf, math.inf]]), "energy: is infinite for every z"),
    (torch.tensor([[1.0, 2.0], [-math.inf, 1.0]]), "energy: .*-inf"),
    (torch.tensor([[1.0, 2.0], [-math.inf, math.inf]]), "energy: .*-inf"),
]


@pytest.mark.parametrize("of", [free_energy, softmin])
@pytest.mark.parametrize("beta", BAD_BETAS, ids=str)
def test_a_bad_beta_is_named(of, beta):
    with pytest.raises(ValueError, match="beta: expected a number > 0"):
        of(GOOD, beta)


@pytest.mark.parametrize("of", [free_energy, softmin])
@pytest.mark.parametrize("beta", [1.0, math.inf])
@pytest.mark.parametrize("energy, words", BAD_GRIDS)
def test_a_bad_grid_is_named(of, beta, energy, words):
    with pytest.raises(ValueError, match=words):
        of(energy, beta)


@pytest.mark.parametrize(
    "measure, cell, words",
    [
        ("Normalised", None, "measure: expected one of counting, normalised, lebesgue"),
        (None, None, "measure: expected one of"),
        ("lebesgue", None, "cell: expected > 0"),
        ("lebesgue", 0.0, "cell: expected > 0"),
        ("lebesgue", -1.0, "cell: expected > 0"),
        ("lebesgue", math.nan, "cell: expected > 0"),
        ("lebesgue", math.inf, "cell: expected > 0"),
        ("lebesgue", "1", "cell: expected > 0"),
        ("counting", 0.1, "cell: expected > 0 with the lebesgue measure"),
        ("normalised", 0.1, "cell: expected > 0 with the lebesgue measure"),
    ],
)
@pytest.mark.parametrize("beta", [1.0, math.inf])
def test_a_bad_measure_is_named(measure, cell, words, beta):
    with pytest.raises(ValueError, match=words):
        free_energy(GOOD, beta, measure, cell=cell)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"beta": 0.0}, "beta: expected a number > 0"),
        ({"measure": "area"}, "measure: expected one of"),
        ({"z": torch.zeros(0)}, r"'z'.*: expected a float tensor"),
        ({"z": torch.arange(3)}, r"'z'.*: expected a float tensor"),
        ({"energy": lambda y, z: y}, "energy: expected shape"),
        ({"energy": lambda y, z: z * math.nan}, "energy: is NaN"),
        ({"energy": lambda y, z: z * 0 + math.inf}, "energy: is infinite for every z"),
    ],
)
def test_bad_input_of_a_marginal_is_named(changed, words):
    arguments = {"energy": ellipse(W), "z": angles()[0], "beta": 1.0} | changed
    with pytest.raises(ValueError, match=words):
        marginal_energy(**arguments)(torch.zeros(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("name", ["importance", "annealed"])
@pytest.mark.parametrize(
    "changed, words",
    [
        *[
            ({"beta": beta}, "beta: expected")
            for beta in (0.0, -1.0, math.nan, math.inf, True, "1")
        ],
        *[({"n": n}, "n: expected an integer >= 2") for n in (1, 0, -1, True, 2.5, "3")],
        ({"generator": None}, "generator: expected a torch.Generator"),
        ({"energy": lambda y, z: z}, "energy: expected shape"),
        ({"energy": lambda y, z: 1.0}, "energy: expected shape"),
        ({"energy": lambda y, z: z[:, 0] * math.nan}, "energy: is NaN"),
        ({"energy": lambda y, z: z[:, 0] * 0 + math.inf}, "proposal: .* support|weight zero"),
    ],
)
def test_bad_input_of_weighted_draws_is_named(name, changed, words):
    arguments = {
        "energy": Linear.energy,
        "y": THREE,
        "prior": Linear.prior,
        "beta": 1.0,
        "n": 10,
        "generator": generator(),
    }
    extra = {} if name == "importance" else {"betas": 3, "step_size": 0.1}
    of = importance_free_energy if name == "importance" else annealed_free_energy
    with pytest.raises(ValueError, match=words):
        of(**arguments | changed | extra)
