"""Both theorems against quadrature; every method that claims a law against that law; its price.

A case fails below FLOOR, one in a million, shared among its comparisons by Bonferroni (see
`laws`). What must be seen to fail is MARGIN below that, beside a twin that passes.
"""

import dataclasses
import functools
import math
import traceback

import laws
import numpy as np
import pytest
import torch
from laws import (
    FLOOR,
    generator,
    one_thread,  # noqa: F401
    smallest,
)
from scipy import special
from torch import nn

from ebmref import ddls, energies, gan, probes, samplers
from ebmref.ddls import Model, Normal, Uniform
from ebmref.energies import value_and_gradient
from ebmref.networks import Networks

MARGIN = 1e-6
GRID = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
# From the prior all are in their law after so many steps: each forgets its start several times
# a hundred steps on these laws, whose width is about one.
KERNELS = {
    "random_walk": (200, {"step_size": 1.5}),
    "mala": (150, {"step_size": 0.5}),
    "hmc": (60, {"step_size": 0.3, "n_leapfrog": 4}),
    "independence": (100, {}),
    "isir": (40, {"n_proposals": 5}),
    "ex2mcmc": (40, {"n_proposals": 3, "step_size": 0.3}),
    "parallel_tempering": (100, {"step_size": 0.4, "betas": (1.0, 0.5, 0.2)}),
}
N = 3000


# --- three models of one latent: injective, many-to-one, dimension-raising -----------------


def three(z):
    """`(3, n, 1)` to `(3, n, 2)`: a monotone line, a fold, a winding curve."""
    a, b, c = z[..., 0]
    return torch.stack(
        [
            torch.stack([a + 0.4 * (2 * a).sin(), 0.5 * a], -1),
            torch.stack([b.square(), b.abs()], -1),
            torch.stack([(2 * c).cos(), (2 * c).sin() + 0.5 * c], -1),
        ]
    )


def three_logits(x):
    """`(3, n, 2)` to `(3, n)`, bounded above where the prior is: M of the detour is finite."""
    a, b, c = x
    return torch.stack(
        [
            2 * (2 * a[:, 0]).tanh(),
            2 * (2 * b[:, 1]).sin(),
            1.2 * c[:, 0] - 0.4 * (c[:, 1] - 1).square(),
        ]
    )


THREE = Model(three, three_logits, Normal(1), 3)


@functools.cache
def three_tails(log_weight=lambda d: d):
    """P(Z <= z) and P(Z > z) of each model, `(3, grid)`: p_0 e^{log weight of d}, integrated."""
    z = GRID.expand(3, -1)[..., None]
    density = (-0.5 * z[..., 0].square() + log_weight(THREE.judge(z))).exp()
    below = torch.cumulative_trapezoid(density, GRID, dim=1)
    below = torch.cat([torch.zeros(3, 1).double(), below], 1)
    above = below[:, -1:] - below
    return (below / below[:, -1:]).numpy(), (above / below[:, -1:]).numpy()


TAILS = three_tails()


def at(tails, i, z):
    return np.interp(z.double().numpy(), GRID.numpy(), tails[i])


def three_p(states, tails=TAILS):
    """The least p-value, of all comparisons, of "model i's events have the law of Theorem 2".

    Compared are the latents of all three, and x itself where it is not one to one with z.
    """
    below, above = tails
    z = states[..., 0]
    if not z.isfinite().all():
        return 0.0
    scores = [laws.from_tails(at(below, i, z[i]), at(above, i, z[i])) for i in range(3)]
    # P(Z^2 <= x) = P(|Z| <= sqrt(x)): what both preimages of x weigh together.
    root = three(states)[1, :, 0].sqrt()
    inside = at(below, 1, root) - at(below, 1, -root)
    outside = at(above, 1, root) + at(below, 1, -root)
    scores.append(laws.from_tails(inside, outside))
    return min(1.0, len(scores) * min(smallest(s[:, None]) for s in scores))


def exact_states(n, seed):
    """Draws of Theorem 2's law by its inverse, `(3, n, 1)`."""
    below, _ = TAILS
    u = torch.rand(3, n, generator=generator(seed), dtype=torch.float64).numpy()
    z = np.stack([np.interp(u[i], below[i], GRID.numpy()) for i in range(3)])
    return torch.from_numpy(z).float()[..., None]


def fresh(method, seed, model=THREE):
    """One of the methods that draw fresh latents."""
    g = generator(seed)
    if method == "resampling":
        return ddls.resampling(model, N, 200, g)
    if method == "rejection":
        return ddls.rejection(model, N, 500, g)
    real = None if method == "mh" else model.logits(exact_states(1000, 77))
    return ddls.metropolis_hastings(model, N, 60, g, real_logits=real)


FRESH = ("resampling", "rejection", "mh", "mh from data")


# --- Theorem 1 -------------------------------------------------------------------------------


def log_normal(x, mean=0.0, sd=1.0):
    return -0.5 * ((x - mean) / sd).square().sum(-1) - x.shape[-1] * math.log(
        sd * math.sqrt(2 * math.pi)
    )


def log_two_bumps(x):
    """A mixture of two normal laws, in any dimension."""
    return torch.logaddexp(
        math.log(0.3) + log_normal(x, -1, 0.4), math.log(0.7) + log_normal(x, 1.5, 0.6)
    )


def quadrature(model, axis):
    """Z = Z_0 of one model: the integral of e^{-E} over states, `(grid,) * d`."""
    d, step = model.prior.d, float(axis[1] - axis[0])
    states = torch.cartesian_prod(*[axis] * d).view(-1, d)
    return float((-ddls.latent_energy(model)(states)).exp().sum() * step**d)


@pytest.mark.parametrize("d", [1, 2])
def test_theorem_1_where_it_holds(d):
    """p_g = N(1, 4 I) covers two bumps: Z_0 = 1, and p_t pushed through G has density p_d."""
    critic = ddls.density_ratio_critic(log_two_bumps, lambda x: log_normal(x, 1.0, 2.0))
    model = Model(lambda z: 1 + 2 * z, critic, Normal(d, torch.float64))
    axis = torch.linspace(-8, 8, 4001 if d == 1 else 801, dtype=torch.float64)
    assert quadrature(model, axis) == pytest.approx(1, abs=1e-6)
    z = torch.randn(50, d, generator=generator(), dtype=torch.float64)
    log_pushed = -ddls.latent_energy(model)(z) - d * math.log(2)
    assert torch.allclose(log_pushed, log_two_bumps(1 + 2 * z), atol=1e-10)
    biased = dataclasses.replace(model, critic=lambda x: critic(x) + 0.01)
    assert abs(quadrature(biased, axis) - 1) > 1e-3  # the check can fail


def test_density_ratio_of_models_side_by_side():
    x = torch.randn(2, 5, 3, generator=generator(67))
    ratio = ddls.density_ratio_critic(log_two_bumps, log_normal)(x)
    assert torch.equal(ratio, log_two_bumps(x) - log_normal(x))


def restricted(dtype=torch.float32):
    """Data exponential on (0, inf); a generator that reaches (0, 1) only, uniformly."""
    critic = ddls.density_ratio_critic(lambda x: -x[:, 0], lambda x: torch.zeros_like(x[:, 0]))
    return Model(lambda z: 0.5 * (1 + z), critic, Uniform(1, dtype))


def test_the_counted_critic_is_the_density_ratio():
    """Two normal generators of known width against a mixture; a plane is reproduced exactly."""
    scale = torch.tensor([1.0, 1.5]).view(2, 1, 1)
    model = Model(lambda z: scale * z, None, Normal(2), 2)
    mixture = energies.GaussianMixture(
        torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.tensor([0.5, 0.7])
    )
    n, cells, reach = 1_000_000, 60, 6.0
    found = ddls.counted(model, mixture.log_prob, n, generator(52), reach=reach, cells=cells)
    x = mixture.sample(4000, generator(53)).expand(2, -1, -1)
    log_g = -0.5 * (x / scale).square().sum(-1) - 2 * scale[..., 0].log() - math.log(2 * math.pi)
    exact = mixture.log_prob(x[0]) - log_g
    # A cell of 0.2 bends a density of width 0.5 by h^2 / (6 s^2) = 0.03 where p_g is counted, by
    # h^2 / (8 s^2) = 0.02 between centres, and its count has an error of 1 / sqrt(n p_g h^2).
    luck = (n * log_g.exp() * (2 * reach / cells) ** 2).rsqrt()
    seen = (found.critic(x) - exact).abs()
    assert (seen < 0.06 + 5 * luck).all() and seen.mean() < 0.03
    assert found.share.shape == (2, cells**2) and found.data.sum() == pytest.approx(1)
    beyond = (1 - torch.special.ndtr(-reach / scale[:, 0, 0].double()) * 2) ** 2
    assert torch.allclose(found.share.sum(1), beyond, atol=5e-4)
    # By hand, of a lattice of 2 x 2 with one draw in each cell but one: d at a centre is its
    # ratio, in the middle the mean of four.
    four = torch.tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])[None]
    given = dataclasses.replace(model, generator=lambda z: four, k=1)
    flat = ddls.counted(given, lambda x: -x[:, 0], 4, generator(), reach=1.0, cells=2)
    by_cell = torch.tensor([0.5, 0.5, -0.5, -0.5]) - ((torch.tensor([1, 1, 0, 2]) + 0.5) / 4).log()
    centres = torch.tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5], [0.0, 0.0]])[None]
    want = torch.cat([by_cell, by_cell.mean()[None]])
    assert torch.allclose(flat.critic(centres)[0], want, atol=1e-6)
    assert torch.allclose(flat.critic(3 * centres[:, :4])[0], by_cell, atol=1e-6)  # the border's
    point = torch.tensor([[[0.1, -0.2]]], requires_grad=True)
    (slope,) = torch.autograd.grad(flat.critic(point).sum(), point)
    step = torch.tensor([1e-3, 0.0])
    rise = (flat.critic(point + step) - flat.critic(point - step)) / 2e-3
    assert slope[0, 0, 0].item() == pytest.approx(rise.item(), rel=1e-2)


def test_theorem_1_fails_where_the_generator_misses_data():
    """Z_0 = P_d(0, 1) = 1 - 1/e, not 1."""
    axis = torch.linspace(-45, 45, 20_001, dtype=torch.float64)
    assert quadrature(restricted(torch.float64), axis) == pytest.approx(1 - math.exp(-1), abs=1e-9)


@pytest.mark.parametrize("method", ["rejection", "mala", "isir"])
def test_what_is_left_of_theorem_1_is_the_restricted_law(method):
    """x has the exponential law given x < 1: P(X <= x) = (1 - e^-x) / (1 - 1/e)."""
    model = restricted()
    if method == "rejection":
        made = ddls.rejection(model, N, 200, generator(1))
    else:
        steps, options = KERNELS[method]
        made = ddls.chains(model, N, method, 2 * steps, generator(1), **options)
    x = model.events(made.states)[0].double()
    part = 1 - math.exp(-1)
    below = -torch.expm1(-x) / part
    above = ((-x).exp() - math.exp(-1)) / part
    assert smallest(laws.from_tails(below, above)) > FLOOR
    # Not the whole exponential law.
    assert smallest(laws.from_tails(-torch.expm1(-x), (-x).exp())) < FLOOR * MARGIN


def test_a_wall_of_the_data_is_never_crossed():
    """Data on (0, inf) only, generator on the line: minus infinity is a logit."""
    critic = ddls.density_ratio_critic(
        lambda x: torch.where(x[:, 0] > 0, -x[:, 0], -math.inf), log_normal
    )
    model = Model(lambda z: z, critic, Normal(1))
    for made in (
        ddls.resampling(model, 2000, 50, generator(2)),
        ddls.metropolis_hastings(model, 2000, 50, generator(2)),
        ddls.chains(
            model, 2000, "mala", 50, generator(3), step_size=0.2,
            start=ddls.resampling(model, 2000, 50, generator(4)).states,
        ),
    ):  # fmt: skip
        assert (made.states > 0).all()
    nothing = dataclasses.replace(model, critic=lambda x: torch.full(x.shape[:2], -math.inf))
    for made in (
        ddls.resampling(nothing, 10, 3, generator()),
        ddls.rejection(nothing, 10, 3, generator(), gamma=0.5, n_pilot=10),
        ddls.metropolis_hastings(nothing, 10, 3, generator()),
    ):
        assert made.stuck.tolist() == [1] and made.acceptance.tolist() == [0]
        assert made.states.isfinite().all()


# --- Theorem 2 -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FRESH)
def test_theorem_2_with_fresh_latents(method):
    made = fresh(method, 11)
    assert three_p(made.states) > FLOOR
    # The prior is not the law: the test sees the difference it is there for.
    assert three_p(THREE.draw(N, generator(11))) < FLOOR * MARGIN
    assert (made.stuck == 0).all()


@pytest.mark.parametrize("method", KERNELS)
def test_theorem_2_with_moving_latents(method):
    """Three models at once, each in its own law: so none meets another, in any layout."""
    steps, options = KERNELS[method]
    made = ddls.chains(THREE, N, method, steps, generator(12), **options)
    assert three_p(made.states) > FLOOR
    assert ((made.acceptance > 0.2) & (made.acceptance <= 1)).all() and (made.stuck < 0.01).all()


def prior_left_out(model, **_):
    return lambda v: -model.judge(v.unflatten(0, (model.k, -1))).flatten()


WRONG = {
    "none": THREE,
    "sign of d": dataclasses.replace(THREE, critic=lambda x: -three_logits(x)),
    "probability for logit": dataclasses.replace(THREE, critic=lambda x: three_logits(x).sigmoid()),
    "models exchanged": dataclasses.replace(
        THREE,
        generator=lambda z: three(z.roll(1, 0)).roll(-1, 0),
        critic=lambda x: three_logits(x.roll(1, 0)).roll(-1, 0),
    ),
}


@pytest.mark.parametrize("method", [*FRESH, *KERNELS])
@pytest.mark.parametrize("flaw", [f for f in WRONG if f != "none"])
def test_wrong_critics_miss_the_law(flaw, method):
    """By the very tests that the right one passes above."""
    if method in KERNELS:
        steps, options = KERNELS[method]
        made = ddls.chains(WRONG[flaw], N, method, steps, generator(12), **options)
    else:
        made = fresh(method, 11, WRONG[flaw])
    assert three_p(made.states) < FLOOR * MARGIN


@pytest.mark.parametrize("flaw", [None, "beta missing", "beta for temperature"])
def test_beta_weighs_the_critic(flaw):
    """beta = 2 has its own law; without it, or with everything doubled, that law is missed."""
    wanted = {
        None: {"beta": 2.0}, "beta missing": {}, "beta for temperature": {"temperature": 0.5},
    }[flaw]  # fmt: skip
    made = ddls.chains(
        THREE, N, "ex2mcmc", 80, generator(13), step_size=0.2, n_proposals=5, **wanted
    )
    p = three_p(made.states, three_tails(lambda d: 2 * d))
    assert p > FLOOR if flaw is None else p < FLOOR * MARGIN


def test_without_the_prior_the_law_is_missed(monkeypatch):
    monkeypatch.setattr(ddls.moving, "latent_energy", lambda model, *_: prior_left_out(model))
    made = ddls.chains(THREE, N, "mala", 150, generator(12), step_size=0.5)
    assert three_p(made.states) < FLOOR * MARGIN


def plane():
    """G(z) = A z + b and a quadratic critic: p_t is normal in closed form."""
    a = torch.tensor([[1.0, 0.5], [0.0, 0.7]])
    b = torch.tensor([0.3, -0.2])
    precision = torch.tensor([[1.5, 0.4], [0.4, 1.0]])
    centre = torch.tensor([1.0, 1.0])

    def critic(x):
        y = x - centre
        return -0.5 * (y @ precision * y).sum(-1)

    model = Model(lambda z: z @ a.T + b, critic, Normal(2))
    whole = torch.eye(2) + a.T @ precision @ a
    covariance = torch.linalg.inv(whole.double())
    mean = covariance @ (a.T @ precision @ (centre - b)).double()
    return model, mean, covariance


@pytest.mark.parametrize("method", [*FRESH[:3], "mala", "hmc", "isir", "ex2mcmc"])
def test_theorem_2_in_the_plane(method):
    model, mean, covariance = plane()
    if method in KERNELS:
        steps, options = KERNELS[method]
        made = ddls.chains(model, N, method, 2 * steps, generator(14), **options)
    else:
        made = fresh(method, 14, model)
    assert smallest(laws.gaussian_scores(mean, covariance)(made.states[0])) > FLOOR


def test_normaliser_against_quadrature():
    """Z_0 of all three within five standard errors, which are right; the share as defined."""
    z = GRID.expand(3, -1)[..., None]
    d = THREE.judge(z)
    step, p = float(GRID[1] - GRID[0]), log_normal(z).exp()
    z0 = (p * d.exp()).sum(1) * step
    variance = (p * (2 * d).exp()).sum(1) * step - z0**2
    found = ddls.log_z0(THREE.logits(THREE.draw(50_000, generator(15))))
    assert ((found.log_z - z0.log()).abs() < 5 * found.se).all()
    assert torch.allclose(found.se, (variance / 50_000).sqrt() / z0, rtol=0.05)
    assert torch.allclose(found.share, z0**2 / (variance + z0**2), rtol=0.05)


def test_the_normalisers_alarm():
    """e^{0.4 z^2} has a Pareto tail of shape 0.8: it rings; for e^{0.3 z} it does not."""
    z = torch.randn(20_000, generator=generator(63))
    found = ddls.log_z0(torch.stack([0.4 * z.square(), 0.3 * z]))
    assert found.pareto_k[0] > 0.7 > 0.5 > found.pareto_k[1]


# --- the uniform prior, temperature, Langevin ------------------------------------------------


def tilted_cube(slope=3.0):
    """Uniform on (-1, 1), G = identity, d = slope x: p_t is an exponential law cut off."""
    return Model(lambda z: z, lambda x: slope * x[..., 0], Uniform(1))


def cut_scores(z, rate):
    """Normal scores of draws of e^{rate z} on (-1, 1)."""
    z, whole = z.double(), math.expm1(2 * rate)
    return laws.from_tails(torch.expm1(rate * (z + 1)) / whole,
                           (math.exp(2 * rate) - (rate * (z + 1)).exp()) / whole)  # fmt: skip


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("method", ["mala", "hmc", "ex2mcmc"])
def test_uniform_prior_by_change_of_variable_is_exact(method, temperature):
    """Colder: e^{3 z / T}; the prior is the same at every temperature."""
    model = tilted_cube()
    options = {"mala": {"step_size": 2.0}, "hmc": {"step_size": 0.5, "n_leapfrog": 5}}.get(
        method, {"step_size": 1.0, "n_proposals": 3}
    )
    made = ddls.chains(model, N, method, 300, generator(16), temperature=temperature, **options)
    z = model.prior.latent(made.states)[0]
    assert smallest(cut_scores(z, 3 / temperature)) > FLOOR
    assert smallest(cut_scores(z, 2.0 / temperature)) < FLOOR * MARGIN


def test_clipping_to_the_cube_is_not_exact():
    """Langevin with a clip after each step, as published code has it, piles up on the wall."""
    g, z = generator(17), torch.rand(N, 1, generator=generator(18)) * 2 - 1
    for _ in range(500):
        z = (z + 0.5 * 0.01 * 3 + 0.1 * torch.randn(N, 1, generator=g)).clamp(-1, 1)
    inside = z.clamp(-1 + 1e-6, 1 - 1e-6)
    assert smallest(cut_scores(inside, 3.0)) < FLOOR * MARGIN


def test_uniform_states():
    """States and latents are inverse; v is logistic, its density normalised; walls are met."""
    prior = Uniform(2, torch.float64)
    v = prior.sample(N, generator(19))
    assert v.shape == (N, 2) and v.dtype == torch.float64
    assert smallest(laws.from_tails(v.sigmoid(), (-v).sigmoid())) > FLOOR
    assert len(v.unique()) == 2 * N  # none was clipped to a common value
    assert torch.allclose(prior.state(prior.latent(v)), v, atol=1e-6)
    axis = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    one = Uniform(1).log_prob(axis[:, None]).exp()
    assert float(torch.trapezoid(one, axis)) == pytest.approx(1, abs=1e-9)
    edge = Uniform(1).state(torch.tensor([[-1.0], [1.0], [3.0]]))
    assert edge.isfinite().all() and Uniform(1).latent(edge).abs().max() <= 1
    axis = torch.linspace(-12, 12, 8001, dtype=torch.float64)
    one = Normal(1).log_prob(axis[:, None]).exp()
    assert float(torch.trapezoid(one, axis)) == pytest.approx(1, abs=1e-9)


def line(slope=1.5, k=1):
    """N(0, 1) and d = slope x: p_t = N(beta slope, T)."""
    return Model(lambda z: z, lambda x: slope * x[..., 0], Normal(1), k)


def normal_p(states, mean, variance):
    return smallest((states[0].double() - mean) / variance**0.5)


@pytest.mark.parametrize(("beta", "temperature"), [(1.0, 1.0), (2.0, 1.0), (1.0, 0.25)])
def test_temperature_sharpens_as_it_says(beta, temperature):
    made = ddls.chains(
        line(), N, "mala", 200, generator(20), step_size=temperature, beta=beta,
        temperature=temperature,
    )  # fmt: skip
    assert normal_p(made.states, 1.5 * beta, temperature) > FLOOR
    assert normal_p(made.states, 1.5 * beta, 1.3 * temperature) < FLOOR * MARGIN
    assert made.temperature == temperature


@pytest.mark.parametrize(("noise", "temperature"), [(None, 1.0), (0.1, 0.1), (0.4, 1.6)])
def test_langevin_as_published_tells_its_temperature(noise, temperature):
    """z' = z - eps/2 (z - a) + s xi settles in N(a, T / (1 - eps / 4)), T = s^2 / eps, exactly."""
    made = ddls.langevin(line(), N, 200, generator(21), step_size=0.1, noise_scale=noise, beta=2.0)
    assert made.temperature == pytest.approx(temperature)
    assert normal_p(made.states, 3.0, temperature / (1 - 0.1 / 4)) > FLOOR
    assert normal_p(made.states, 3.0, 1.3 * temperature) < FLOOR * MARGIN


def test_langevin_step_by_hand():
    """The equation itself, with the chain's own noise; every stage of a decay at its own step."""
    z0 = torch.randn(1, 6, 1, generator=generator(22))
    made = ddls.langevin(
        line(), 6, 7, generator(23), step_size=0.2, noise_scale=0.3, decay=0.5, decay_every=3,
        start=z0,
    )  # fmt: skip
    g, z = generator(23), z0[0].clone()
    for stage, steps in enumerate((3, 3, 1)):
        step, noise = 0.2 * 0.5**stage, 0.3 * 0.5 ** (stage / 2)
        for xi in torch.empty(steps, 6, 1).normal_(generator=g):
            z = z - step / 2 * (z - 1.5) + noise * xi
    assert torch.allclose(made.states[0], z, atol=1e-5)
    assert made.n_gradients == 7 + 3  # one more at the start of each stage
    assert made.temperature == pytest.approx(0.45) and made.stuck.tolist() == [0]
    assert made.acceptance.isnan().all()


# --- anchors: rules that keep no law ---------------------------------------------------------


@pytest.mark.parametrize("divergence", ddls.DIVERGENCES)
@pytest.mark.parametrize("prior", [Normal(1), Uniform(1)])
def test_gradient_flow_by_hand(divergence, prior):
    """d = sin(3 x) for model 0, 2 x for model 1, G = z: against the formula, clipped in a cube."""

    def critic(x):
        return torch.stack([(3 * x[0, :, 0]).sin(), 2 * x[1, :, 0]])

    model = Model(lambda z: z, critic, prior, 2)
    start = model.draw(40, generator(24))
    made = ddls.gradient_flow(
        model, 40, 5, generator(25), divergence=divergence, step_size=0.2, gamma=0.05, start=start
    )
    g, z = generator(25), prior.latent(start)[..., 0]
    for _ in range(5):
        d = torch.stack([(3 * z[0]).sin(), 2 * z[1]])
        slope = torch.stack([3 * (3 * z[0]).cos(), torch.full_like(z[1], 2.0)])
        s = {"KL": 1.0, "logD": 1 / (1 + d.exp()), "JS": 1 / (1 + (-d).exp())}[divergence]
        z = z + 0.2 * s * slope + math.sqrt(0.02) * torch.randn(2, 40, 1, generator=g)[..., 0]
        z = z if isinstance(prior, Normal) else z.clamp(-1, 1)
    assert torch.allclose(prior.latent(made.states)[..., 0], z, atol=1e-5)
    assert math.isnan(made.temperature) and made.n_gradients == 5 and made.n_calls == 0


@pytest.mark.parametrize("keep_radius", [False, True])
@pytest.mark.parametrize("prior", [Normal(2), Uniform(2)])
def test_transport_by_hand(prior, keep_radius):
    """Two models of linear critics with slopes w and Lipschitz constants of their own."""
    w = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])
    model = Model(lambda z: z, lambda x: (x * w[:, None]).sum(-1), prior, 2)
    start = model.draw(30, generator(26))
    made = ddls.transport(
        model, 30, 6, generator(27), step_size=0.1, lipschitz=torch.tensor([4.0, 5.0]),
        keep_radius=keep_radius, start=start,
    )  # fmt: skip
    origin = z = prior.latent(start)
    for _ in range(6):
        z = z.detach().requires_grad_()
        reach = (z - origin + 0.001).norm(dim=-1)
        gain = (z * w[:, None]).sum(-1) / torch.tensor([[4.0], [5.0]])
        (slope,) = torch.autograd.grad((reach - gain).sum(), z)
        if keep_radius:
            across = torch.stack([-z[..., 1], z[..., 0]], -1) / z.norm(dim=-1, keepdim=True)
            slope = across * (across * slope).sum(-1, keepdim=True)
        z = z - 0.1 * slope
        if isinstance(prior, Uniform):
            z = z.clamp(-1, 1)
    assert torch.allclose(prior.latent(made.states), z, atol=1e-5)
    assert math.isnan(made.temperature) and made.stuck.tolist() == [0, 0]


def test_transport_finds_the_steepest_pair_and_moves_where_it_pays():
    """d = 2 x has the constant 2 exactly. At half of it the move pays, at twice it does not."""
    model = Model(lambda z: z, lambda x: 2 * x[..., 0], Uniform(1))
    start = torch.zeros(1, 50, 1)
    told = ddls.transport(model, 50, 20, generator(28), start=start, lipschitz=2.0)
    found = ddls.transport(model, 50, 20, generator(28), start=start, n_pairs=10)
    assert torch.allclose(found.states, told.states, atol=1e-4)
    assert found.n_calls == 2 * 10 / 50 and told.n_calls == 0
    far = ddls.transport(model, 50, 20, generator(28), start=start, lipschitz=1.0)
    near = ddls.transport(model, 50, 20, generator(28), start=start, lipschitz=4.0)
    # 20 steps of 0.05 at the net slope of 2 / 1 - 1; else no further than one step's jitter.
    assert (model.prior.latent(far.states) > 0.9).all()
    assert (model.prior.latent(near.states).abs() < 0.1).all()


def test_the_constant_is_that_of_the_steepest_pair():
    """d = x^2: |z_1 + z_2|, the largest of ten pairs, of each model its own."""
    model = Model(lambda z: z, lambda x: x[..., 0].square(), Normal(1), 2)
    start = model.draw(20, generator(65))
    found = ddls.transport(model, 20, 3, generator(66), start=start, n_pairs=10)
    g = generator(66)
    one, other = (model.draw(10, g) for _ in range(2))
    steepest = (one + other).abs().amax((1, 2))
    told = ddls.transport(model, 20, 3, generator(66), start=start, lipschitz=steepest)
    assert torch.allclose(found.states, told.states, atol=1e-5)


# --- how the methods with fresh latents go about it --------------------------------------------


def test_rejection_raises_its_maximum():
    """A pilot of one sees next to nothing; the maximum found on the way mends most of it."""
    made = ddls.rejection(THREE, 20_000, 500, generator(29), n_pilot=1)
    assert three_p(made.states) > FLOOR


def acceptances(gamma):
    """P(accept | z) on the grid, `(3, grid)`, and its mean, `(3,)`; d_M and gamma are exact."""
    d = THREE.judge(GRID.expand(3, -1)[..., None])
    weight = log_normal(GRID[:, None]).exp() * float(GRID[1] - GRID[0])
    gap = d - d.amax(1, keepdim=True)
    f = gap - torch.log(-torch.expm1(gap - 1e-6))
    shift = torch.zeros(3, 1).double()
    if gamma:
        order = f.argsort(1)
        at_quantile = (weight[order].cumsum(1) < gamma).sum(1, keepdim=True)
        shift = f.gather(1, order.gather(1, at_quantile))
    accept = (f - shift).sigmoid()
    return accept, (weight * accept).sum(1)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9])
def test_rejection_acceptance_and_law_at_every_gamma(gamma):
    """The mean of sigmoid(F), within 5 standard errors, and p_0 sigmoid(F), with gamma = 0 the
    law of Theorem 2, acceptance Z_0 / M. The pilot is so large that the error of its quantile is
    a tenth of the samples'."""
    accept, share = acceptances(gamma)
    made = ddls.rejection(THREE, N, 500, generator(31), gamma=gamma, n_pilot=300_000)
    se = share * ((1 - share) / N).sqrt()
    assert ((made.acceptance - share).abs() < 5 * se).all()
    assert three_p(made.states, three_tails(lambda d: accept.log())) > FLOOR
    p = three_p(made.states)
    assert p < FLOOR * MARGIN if gamma else p > FLOOR
    expected = 300_000 / N + float((1 / share).mean())
    # Rows that a model with fewer open chains fills up cost as well.
    assert expected * 0.95 < made.n_calls < 300_000 / N + 1.2 * float((1 / share).max())


def test_rejection_out_of_budget_is_the_best_of_what_it_saw():
    """A gamma-free rejection that never accepts: one far spike holds the maximum."""
    seen = []

    def critic(x):
        d = x[..., 0].clamp(max=2.0) - 2.0
        seen.append(d)
        return torch.where(torch.arange(d.shape[1]) == 0, 60.0, d) if len(seen) == 1 else d

    model = Model(lambda z: z, critic, Normal(1))
    made = ddls.rejection(model, 200, 8, generator(32), n_pilot=50)
    assert made.stuck.tolist() == [1] and made.acceptance.tolist() == [0]
    best = torch.stack(seen[1:9]).amax(0)
    assert torch.equal(model.judge(made.states), best)
    assert made.n_calls == 8 + 50 / 200


def test_metropolis_hastings_never_returns_data():
    """Data so likely that no chain leaves it: all begin anew, are counted, and keep the law."""
    real = torch.full((3, 10), 1e4)
    made = ddls.metropolis_hastings(THREE, N, 60, generator(33), real_logits=real)
    assert (made.stuck == 1).all()
    assert three_p(made.states) > FLOOR
    assert made.n_calls == 60 + 61
    # Half of the proposals were hopeless, the others as good as without data.
    alone = ddls.metropolis_hastings(THREE, N, 60, generator(33))
    assert torch.allclose(2 * made.acceptance, alone.acceptance, rtol=0.05)
    half = ddls.metropolis_hastings(
        THREE, N, 60, generator(33), real_logits=torch.tensor([[1e4, -9.0]] * 3)
    )
    assert ((half.stuck - 0.5).abs() < 5 * 0.5 / N**0.5).all() and three_p(half.states) > FLOOR


def test_only_chains_that_stayed_begin_anew():
    """Model 0 never leaves its data, the others leave at once and keep what they took."""
    real = torch.tensor([[1e4], [-1e4], [-1e4]])
    made = ddls.metropolis_hastings(THREE, 500, 1, generator(64), real_logits=real)
    assert made.stuck.tolist() == [1, 0, 0] and made.acceptance[1:].tolist() == [1, 1]
    assert 0.1 < float(made.acceptance[0]) < 0.5  # of two proposals the first was hopeless
    g = generator(64)
    torch.randint(1, (3, 500), generator=g)
    _, proposed = (THREE.draw(500, g) for _ in range(2))
    assert torch.equal(made.states[1:], proposed[1:])


def test_metropolis_hastings_starts_where_the_data_is():
    """One proposal from exact data moves with probability E_{p_d}[E_{p_g} min(1, e^{d' - d})], here
    by quadrature; a start anywhere else would move at another rate."""
    z = GRID[::20].expand(3, -1)[..., None]
    d = THREE.judge(z)
    p0 = log_normal(z).exp()
    p0 = p0 / p0.sum(1, keepdim=True)
    pt = p0 * d.exp() / (p0 * d.exp()).sum(1, keepdim=True)
    accept = (d[:, None] - d[..., None]).exp().clamp(max=1)  # [here, there]
    moves = (pt[..., None] * p0[:, None] * accept).sum((1, 2))
    real = THREE.logits(exact_states(200_000, 34))
    made = ddls.metropolis_hastings(THREE, 20_000, 1, generator(35), real_logits=real)
    se = (moves * (1 - moves) / 20_000).sqrt()
    assert ((1 - made.stuck - moves).abs() < 5 * se).all()


def test_resampling_tells_the_effective_share_of_its_pool():
    z = GRID.expand(3, -1)[..., None]
    d, step, p = THREE.judge(z), float(GRID[1] - GRID[0]), log_normal(z).exp()
    share = ((p * d.exp()).sum(1) * step).square() / ((p * (2 * d).exp()).sum(1) * step)
    made = ddls.resampling(THREE, N, 50, generator(36))
    assert torch.allclose(made.acceptance, share, rtol=0.05)
    # With replacement: where one point has all the weight, all draws are copies of it.
    spike = dataclasses.replace(
        line(), critic=lambda x: torch.where(x[..., 0] == x[..., 0].max(), 50.0, 0.0)
    )
    made = ddls.resampling(spike, 100, 1, generator(37))
    assert len(made.states.unique()) == 1
    assert float(made.acceptance) == pytest.approx(1 / 100)


# --- models never mix ------------------------------------------------------------------------


def test_energies_of_models_side_by_side_are_their_own():
    """Exactly: of all three at once, and of each alone; -log p_0 - d by hand."""
    states = THREE.draw(500, generator(38))
    all_three = ddls.latent_energy(THREE)(states.flatten(0, 1)).view(3, -1)
    for i in range(3):
        alone = Model(
            lambda z, i=i: three(z.expand(3, -1, -1))[i : i + 1],
            lambda x, i=i: three_logits(x.expand(3, -1, -1))[i : i + 1],
            Normal(1),
        )
        assert torch.equal(ddls.latent_energy(alone)(states[i]), all_three[i])
    by_hand = 0.5 * states[..., 0].square() + 0.5 * math.log(2 * math.pi) - THREE.judge(states)
    assert torch.allclose(all_three, by_hand, atol=1e-5)
    assert torch.equal(THREE.events(states), three(states))
    assert len(states.unique()) > 1490  # latents of their own, but for rare ties of a float32
    value, slope = value_and_gradient(ddls.latent_energy(THREE), states.flatten(0, 1))
    flat = states.flatten(0, 1).requires_grad_()
    (by_autograd,) = torch.autograd.grad(ddls.latent_energy(THREE)(flat).sum(), flat)
    assert torch.equal(value, all_three.flatten()) and torch.allclose(slope, by_autograd)


def test_pieces_are_put_together_in_order(monkeypatch):
    states = THREE.draw(100, generator(39))
    whole = THREE.logits(states), THREE.events(states)
    flow = ddls.gradient_flow(THREE, 100, 2, generator(40), start=states).states
    energy = ddls.latent_energy(THREE)
    before = value_and_gradient(energy, states.flatten(0, 1))
    monkeypatch.setattr(ddls.model, "ROWS_CPU", 21)  # 7 of each model
    after = value_and_gradient(energy, states.flatten(0, 1))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(before, after, strict=True))
    assert torch.allclose(energy(states.flatten(0, 1)), before[0], atol=1e-6)
    counted = Counted()
    counted.model.logits(states)
    assert counted.passes == math.ceil(100 / 7)
    assert torch.equal(THREE.logits(states), whole[0]) and whole[0].dtype == torch.float64
    assert torch.equal(THREE.events(states), whole[1])
    pieces = ddls.gradient_flow(THREE, 100, 2, generator(40), start=states).states
    assert torch.allclose(pieces, flow, atol=1e-6)


def test_compiled_models_are_refused_rather_than_mixed():
    """The compiled loop deals chains out to threads, models apart."""
    energy = ddls.latent_energy(THREE)
    states = THREE.draw(N, generator(41)).flatten(0, 1)
    with pytest.warns(RuntimeWarning, match="goes on without"):
        chain = samplers.sample(
            samplers.mala(energy, 0.5), states, 150, thin=150, generator=generator(42),
            compile=True,
        )  # fmt: skip
    assert three_p(chain.samples[0].view(3, N, 1)) > FLOOR
    with pytest.raises(ValueError, match="multiple of k = 3"):
        energy(states[:-1])


# --- what it costs -----------------------------------------------------------------------------


class Counted:
    """THREE, with every row counted that goes through, with and without a gradient; those of
    probes at the start, which are no part of a method, apart."""

    def __init__(self):
        self.calls = self.gradients = self.passes = self.probed = 0
        self.model = dataclasses.replace(THREE, generator=self.generate)

    def generate(self, z):
        rows = z.shape[0] * z.shape[1]
        callers = (frame.f_code.co_filename for frame, _ in traceback.walk_stack(None))
        if probes.__file__ in callers:
            self.probed += rows
            return three(z)
        if z.requires_grad:
            self.gradients += rows
        else:
            self.calls += rows
        self.passes += 1
        return three(z)


def spent(method, model, n, g):
    if method == "resampling":
        return ddls.resampling(model, n, 7, g)
    if method == "rejection":
        return ddls.rejection(model, n, 5, g, n_pilot=50)
    if method == "mh":
        return ddls.metropolis_hastings(model, n, 7, g)
    if method == "mh from data":
        real = torch.tensor([[1e4, -9.0], [3.0, 1.0], [0.0, 1.0]])
        return ddls.metropolis_hastings(model, n, 7, g, real_logits=real)
    if method == "langevin":
        return ddls.langevin(model, n, 7, g, decay=0.5, decay_every=3)
    if method == "gradient_flow":
        return ddls.gradient_flow(model, n, 7, g)
    if method == "transport":
        return ddls.transport(model, n, 7, g, n_pairs=10)
    options = KERNELS.get(method, (0, {"step_size": 0.1}))[1]
    return ddls.chains(model, n, method, 7, g, warmup=2, **options)


METHODS = (*FRESH, "langevin", "gradient_flow", "transport", *ddls.KERNELS)


@pytest.mark.parametrize("method", METHODS)
def test_counts_are_what_goes_through_the_networks(method):
    counted, n = Counted(), 40
    made = spent(method, counted.model, n, generator(43))
    assert made.n_calls * 3 * n == pytest.approx(counted.calls)
    assert made.n_gradients * 3 * n == pytest.approx(counted.gradients)
    # Once a chain, whatever the number of steps; Langevin begins three of them here.
    assert counted.probed <= 12 * 3 * n
    assert made.cost == pytest.approx(made.n_calls + 2 * made.n_gradients) and made.cost > 0
    assert made.states.shape == (3, n, 1) and made.states.isfinite().all()
    assert made.acceptance.shape == made.stuck.shape == (3,)


STEP_COSTS = {"hmc": 10, "isir": 10, "ex2mcmc": 14, "parallel_tempering": 6, "random_walk": 1}


@pytest.mark.parametrize("budget", [37, 120])
@pytest.mark.parametrize("method", ddls.METHODS)
def test_a_budget_is_kept_and_used(method, budget):
    """What went through the networks is at most the budget, and one step more would be above."""
    counted, n = Counted(), 300
    made = ddls.refine(counted.model, n, method, budget, generator(49))
    passes = (counted.calls + 2 * counted.gradients) / (3 * n)
    assert made.cost == pytest.approx(passes) and passes <= budget
    if method not in ("prior", "rejection"):
        assert passes + STEP_COSTS.get(method, 2) > budget - 1e-9
    assert made.states.shape == (3, n, 1)


def test_a_budget_is_kept_where_all_of_it_is_needed():
    """Logits so far apart that rejection goes on to the end, its pilot paid for."""
    counted = Counted()
    sharp = dataclasses.replace(counted.model, critic=lambda x: 4000 * three_logits(x))
    made = ddls.refine(sharp, 300, "rejection", 37, generator(54))
    assert made.stuck.min() > 0 and 36 < made.cost <= 37
    assert made.cost == pytest.approx(counted.calls / 900)


@pytest.mark.parametrize("every", [1, 3, 7, 18, 50])
def test_a_budget_is_kept_by_stages(every):
    counted = Counted()
    made = ddls.refine(
        counted.model, 30, "langevin", 37, generator(50), decay=0.5, decay_every=every
    )
    assert 36 - 2 <= made.cost <= 37 and made.cost == 2 * counted.gradients / 90


def test_a_budget_is_the_method_with_so_many_steps():
    def same(method, budget, by_hand, **options):
        made = ddls.refine(THREE, 40, method, budget, generator(51), **options)
        return torch.equal(made.states, by_hand(generator(51)).states)

    run = {"step_size": 0.1, "target_acceptance": 0.57}
    assert same("langevin", 20, lambda g: ddls.langevin(THREE, 40, 9, g))
    assert same("langevin", 20, lambda g: ddls.langevin(THREE, 40, 4, g), n_steps=4)
    assert same("mala", 18, lambda g: ddls.chains(THREE, 40, "mala", 6, g, warmup=2, **run))
    assert same("isir", 51, lambda g: ddls.chains(THREE, 40, "isir", 5, g, n_proposals=10))
    assert same("resampling", 20, lambda g: ddls.resampling(THREE, 40, 20, g))
    assert same(
        "rejection",
        20,
        lambda g: ddls.rejection(THREE, 40, 18, g, n_pilot=80, gamma=0.5),
        gamma=0.5,
    )
    real = torch.zeros(3, 5)
    assert same("metropolis_hastings", 20, lambda g: ddls.metropolis_hastings(THREE, 40, 19, g))
    assert same(
        "metropolis_hastings", 20,
        lambda g: ddls.metropolis_hastings(THREE, 40, 9, g, real_logits=real), real_logits=real,
    )  # fmt: skip
    prior = ddls.refine(THREE, 40, "prior", 1, generator(51))
    assert torch.equal(prior.states, THREE.draw(40, generator(51))) and prior.cost == 0


def test_one_pass_a_step_for_all_chains_and_models():
    counted = Counted()
    ddls.langevin(counted.model, 500, 50, generator(44))
    assert counted.passes == 51


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_result(method):
    one, two = (spent(method, THREE, 30, generator(45)).states for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, spent(method, THREE, 30, generator(46)).states)


def test_chains_takes_kernels_by_hand_and_tunes_them():
    """A kernel of the reader's own; the step tuned in the warm-up towards the acceptance told."""
    own = ddls.chains(THREE, 50, lambda e: samplers.mala(e, 0.5), 20, generator(47)).states
    named = ddls.chains(THREE, 50, "mala", 20, generator(47), step_size=0.5).states
    assert torch.equal(own, named)
    tuned = ddls.chains(
        THREE, 300, "mala", 50, generator(48), step_size=1e-3, warmup=200, target_acceptance=0.57
    )
    assert float(tuned.acceptance.mean()) == pytest.approx(0.57, abs=0.1)
    start = THREE.draw(50, generator(49))
    frozen = ddls.chains(THREE, 50, "mala", 3, generator(50), step_size=1e7, start=start)
    assert torch.equal(frozen.states, start) and frozen.stuck.tolist() == [1, 1, 1]


# --- calibration -----------------------------------------------------------------------------


def overconfident(n, seed, slope=3.0, shift=1.0):
    """Logits slope d + shift of data and samples, d = log p_d / p_g of N(+-1/2, 1): d = x.

    Model 1 has them undistorted.
    """
    real, fake = torch.randn(2, 2, n, generator=generator(seed)).double()
    real, fake = real + 0.5, fake - 0.5
    return [torch.stack([slope * x[0] + shift, x[1]]) for x in (real, fake)]


@pytest.mark.parametrize("method", ["logistic", "beta", "isotonic"])
def test_calibration_mends_a_distortion(method):
    """|Z| is far out before for the distorted model, and like a normal number after for both."""
    real, fake = overconfident(20_000, 51)
    found = ddls.calibrate(real, fake, method)
    assert abs(float(found.z_before[0])) > 20 and abs(float(found.z_before[1])) < 4.9
    # The fit has an error of its own size: variance 2 in place of 1. 4.9 is 1e-6 of N(0, 1).
    assert (found.z_after.abs() < 4.9 * 2**0.5).all()
    # On the fitted half itself these fits have Z = 0, which says nothing.
    assert (found.z_after.abs() > 1e-3).all()
    d = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64).expand(2, -1)
    mended = found.apply(torch.stack([3 * d[0] + 1, d[1]]))
    # Logistic: se of slope and shift about .02 each; the others bend within about .15.
    assert (mended - d).abs().max() < (0.1 if method == "logistic" else 0.4)
    assert (mended.diff(dim=1) >= -1e-9).all()
    none = ddls.calibrate(real, fake, "none")
    assert torch.equal(none.apply(real), real) and torch.equal(none.z_before, none.z_after)


def test_isotonic_stays_finite_where_data_and_samples_do_not_meet():
    """50 of either kind alone, log(50.5 / 0.5), beyond all it saw; with a slope in between."""
    real = torch.linspace(1, 9, 100).expand(2, -1)
    fake = torch.linspace(-9, -1, 100).expand(2, -1)
    for method in ("isotonic", "logistic", "beta"):
        found = ddls.calibrate(real, fake, method)
        x = torch.tensor([[-1e4, -5.0, 0.0, 5.0, 1e4]]).expand(2, -1).clone().requires_grad_()
        y = found.apply(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        assert y.isfinite().all() and slope.isfinite().all() and y.dtype == x.dtype
        assert (y.diff(dim=1) >= 0).all() and (slope[:, 2] > 0).all()
        if method == "isotonic":
            assert y[:, [0, 4]].abs().tolist() == [[pytest.approx(math.log(101))] * 2] * 2


def test_isotonic_goes_on_flat_beyond_its_ends():
    """Nine samples alone, then 1 of 3, then ten data alone; half a point more at either end."""
    real = torch.tensor([[-4.0] + [5.0] * 10]).repeat_interleave(2, 1)
    fake = torch.tensor([[-5.0] * 9 + [-3.0] * 2]).repeat_interleave(2, 1)
    apply = ddls.calibrate(real, fake, "isotonic").apply
    got = apply(torch.tensor([[-9.0, -5.0, -4.5, -4.0, -3.0, 5.0, 9.0]])).double()[0]
    low, high, middle = -math.log(19), math.log(21), math.log(1 / 2)
    expected = [low, low, (low + middle) / 2, middle, middle, high, high]
    assert got.tolist() == pytest.approx(expected, abs=1e-5)


def test_isotonic_stays_increasing_where_an_end_holds_few():
    """One sample alone says -log 3, one of data log 3; beside them are 1 of 11 and 10 of 11."""
    real = torch.tensor([[-4.0] + [1.0] * 10 + [5.0]]).repeat_interleave(2, 1)
    apply = ddls.calibrate(real, -real, "isotonic").apply
    got = apply(torch.tensor([[-9.0, -5.0, -4.0, -1.0, 0.0, 1.0, 4.0, 5.0, 9.0]])).double()[0]
    expected = [-math.log(10)] * 4 + [0] + [math.log(10)] * 4
    assert got.tolist() == pytest.approx(expected, abs=1e-5)


def test_isotonic_leaves_z0_near_one():
    """d = x is right: Z_0 = 1, of which less than 0.02 is beyond the highest of 1000 samples.

    That end covers Exp(1) / 1000 of p_g. With a weight of the number of points fitted, 2000, it
    would add 2 in the mean of 200 fits, with a standard error of 0.14; a tenth is allowed.
    """
    g = generator(63)
    real, fake = torch.randn(2, 200, 2000, generator=g).double()
    real, fake = real + 0.5, fake - 0.5
    apply = ddls.calibrate(real, fake, "isotonic").apply
    x = torch.linspace(-9, 9, 20_001).double()
    mass = (-0.5 * (x + 0.5).square()).softmax(0) * apply(x.expand(200, -1)).exp()
    beyond = x > fake[:, ::2].amax(1, keepdim=True)
    assert (mass * beyond).sum(1).mean() < 0.2
    assert abs(mass.sum(1).mean() - 1) < 0.2


def test_isotonic_is_scikit_learns_at_the_fitted_points():
    """Rows of different lengths, one of them constant, are padded and stay themselves."""
    g = generator(52)
    real = torch.stack([torch.randn(60, generator=g) + 1, torch.full((60,), 2.0)])
    fake = torch.stack([torch.randn(60, generator=g), torch.full((60,), 2.0)])
    from sklearn.isotonic import IsotonicRegression

    got = ddls.calibrate(real, fake, "isotonic").apply(torch.cat([real, fake], 1)).double()
    x, y = np.r_[real[0, ::2], fake[0, ::2]].astype(float), np.repeat([1.0, 0.0], 30)
    p = IsotonicRegression(out_of_bounds="clip").fit(x, y).predict(x)
    both = (p > 0) & (p < 1)
    expected = special.logit(p[both])
    fitted = torch.cat([got[0, :60:2], got[0, 60::2]]).numpy()
    assert both.sum() > 30 and fitted[both] == pytest.approx(expected, abs=1e-4)
    assert (fitted[p == 1] >= expected.max() - 1e-4).all()
    assert (fitted[p == 0] <= expected.min() + 1e-4).all()
    assert torch.allclose(got[1], torch.zeros(120).double(), atol=1e-9)


def test_dawids_statistic():
    """By hand: D = 1/2 everywhere, 3 data of 4: (3 - 2) / sqrt(4 / 4); rows apart."""
    zero = torch.zeros(2, 3)
    assert ddls.calibration_z(zero, zero[:, :1]).tolist() == [1, 1]
    found = ddls.calibration_z(torch.tensor([[2.0]]), torch.tensor([[-1.0]]))
    a, b = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    expected = (1 - a - b) / math.sqrt(a * (1 - a) + b * (1 - b))
    assert float(found) == pytest.approx(expected)


def test_a_calibrated_model_has_the_calibrated_law():
    """Distorted by 3 d + 1, all methods miss N(1, 1); calibrated, they hit it again."""
    distorted = Model(lambda z: z, lambda x: 3 * (x[..., 0] - 0.5) + 1, Normal(1))
    g = generator(53)
    real = torch.randn(1, 400_000, generator=g) + 1
    fake = distorted.logits(distorted.draw(400_000, g))
    found = ddls.calibrate(distorted.judge(real[..., None]).double(), fake)
    for model, right in ((distorted, False), (distorted.calibrated(found), True)):
        made = ddls.chains(model, N, "mala", 100, generator(54), step_size=1.0)
        p = normal_p(made.states, 1.0, 1.0)
        assert p > FLOOR if right else p < FLOOR * MARGIN


# --- training on ----------------------------------------------------------------------------


class Linear(nn.Module):
    """d = a x + b, two models; perceptrons where there are more sizes."""

    def __init__(self, sizes=(1, 1)):
        super().__init__()
        self.net = Networks(sizes, 2, generator(55))

    def forward(self, x):
        return self.net(x)[..., 0]

    def line(self):
        return self.net.weights[0][:, 0, 0].detach(), self.net.biases[0][:, 0, 0].detach()


def linear_model():
    """Samples N(0, 1) and N(2, 1)."""
    shift = nn.Parameter(torch.tensor([0.0, 2.0])[:, None, None])
    return Model(lambda z: z + shift, Linear(), Normal(1), 2), shift


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_trained_on_the_critic_finds_the_ratio(noise):
    """Data N(1, 1): d* = (m x - ...) with slope (1 - mean) / (1 + noise^2), of each its own.

    The tolerance is five times the standard error of a logistic fit on the tenth of the 800 x
    512 points that the annealed end averages over, sqrt(4 / 41,000) = .01 a slope of 1.
    """
    model, shift = linear_model()
    data = torch.randn(50_000, 1, generator=generator(56)) + 1
    steps = list(
        ddls.train_critic(
            model, data, 800, generator(57), batch=512, learning_rate=0.02, noise=noise
        )
    )
    a, b = model.critic.line()
    variance = 1 + noise**2
    assert torch.allclose(a, torch.tensor([1.0, -1.0]) / variance, atol=0.05)
    assert torch.allclose(b, torch.tensor([-0.5, 1.5]) / variance, atol=0.1)
    assert [s.step for s in steps] == list(range(1, 801))
    assert steps[0].value.shape == (2,) and steps[0].slope is None
    assert shift.grad is None and not shift.isnan().any()
    early, late = (
        torch.stack([s.value for s in part]).mean(0) for part in (steps[:5], steps[-50:])
    )
    assert (late > early).all() and (late > -math.log(4)).all() and (late < 0).all()


def test_train_critic_is_the_game_of_equation_6():
    """Three steps by hand: V of (6) less half the penalty times the slope at the data, by Adam."""
    data = torch.randn(64, 1, generator=generator(58))
    shift = torch.tensor([0.0, 2.0])[:, None, None]
    model, twin = (Model(lambda z: z + shift, Linear((1, 4, 1)), Normal(1), 2) for _ in range(2))
    steps = ddls.train_critic(
        model, data, 3, generator(59), batch=16, learning_rate=0.1, penalty=3.0, noise=0.5,
        anneal=False,
    )  # fmt: skip
    g = generator(59)
    adam = torch.optim.Adam(twin.critic.parameters(), lr=0.1)
    twin.draw(1, g)  # the look at the events' shape
    for step in steps:
        real = data[torch.randint(64, (2, 16), generator=g)]
        fake = twin.events(twin.draw(16, g))
        noise = 0.5 * torch.randn(2, 32, 1, generator=g)
        real, fake = real + noise[:, :16], fake + noise[:, 16:]
        value = gan.value(twin.critic(real), twin.critic(fake))
        slope = gan.slope_penalty(twin.critic, real)
        assert torch.allclose(step.value, value) and torch.allclose(step.slope, slope)
        adam.zero_grad()
        (1.5 * slope - value).sum().backward()
        adam.step()
    for one, other in zip(model.critic.parameters(), twin.critic.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_penalty_flattens_and_the_critic_keeps_its_mode():
    data = torch.randn(5000, 1, generator=generator(60)) + 1
    steep, _ = linear_model()
    flat, _ = linear_model()
    flat.critic.eval()
    modes = []
    for model, penalty in ((steep, 0.0), (flat, 5.0)):
        for _ in ddls.train_critic(
            model, data, 200, generator(61), learning_rate=0.02, penalty=penalty
        ):
            modes.append(model.critic.training)
    assert (flat.critic.line()[0].abs() < 0.5 * steep.critic.line()[0].abs()).all()
    assert all(modes) and steep.critic.training and not flat.critic.training
    early = ddls.train_critic(flat, data, 10, generator(62))
    next(early)
    early.close()
    assert not flat.critic.training


# --- bad input --------------------------------------------------------------------------------


G = generator()
ZERO = torch.zeros(3, 5)
BAD = [
    (lambda: Model(three, three_logits, Normal(1), 0), "k: "),
    (lambda: Model(three, three_logits, Normal(0)), "prior: "),
    (lambda: ddls.latent_energy(THREE, beta=-1), "beta, temperature"),
    (lambda: ddls.latent_energy(THREE, temperature=0), "beta, temperature"),
    (lambda: ddls.latent_energy(THREE, beta=math.nan), "beta, temperature"),
    (lambda: ddls.latent_energy(THREE, temperature=math.inf), "beta, temperature"),
    (lambda: ddls.refine(THREE, 5, "nuts", 20, G), "method: "),
    (lambda: ddls.refine(THREE, 0, "mala", 20, G), "n: "),
    (lambda: ddls.refine(THREE, 5, "mala", 0, G), "budget: "),
    (lambda: ddls.refine(THREE, 5, "mala", 4, G), "budget: "),
    (lambda: ddls.refine(THREE, 5, "hmc", 11, G), "budget: "),
    (lambda: ddls.refine(THREE, 5, "transport", 40, G), "budget: "),
    (lambda: ddls.refine(THREE, 5, "langevin", 20, G, n_steps=0), "n_steps: "),
    (lambda: ddls.counted(THREE, ZERO, 0, G, reach=1.0, cells=9), "n: "),
    (lambda: ddls.counted(THREE, ZERO, 9, G, reach=1.0, cells=1), "cells: "),
    (lambda: ddls.counted(THREE, ZERO, 9, G, reach=0.0, cells=9), "reach: "),
    (lambda: ddls.counted(linear_model()[0], ZERO, 9, G, reach=1.0, cells=9), "model: "),
    (lambda: ddls.resampling(THREE, 0, 5, G), "n: "),
    (lambda: ddls.resampling(THREE, 5, 0, G), "budget: "),
    (lambda: ddls.resampling(THREE, 5, 5, 0), "generator: "),
    (lambda: ddls.rejection(THREE, 5, 5, G, gamma=1.0), "gamma: "),
    (lambda: ddls.rejection(THREE, 5, 5, G, n_pilot=0), "n_pilot: "),
    (lambda: ddls.rejection(THREE, 5, 2.5, G), "budget: "),
    (lambda: ddls.metropolis_hastings(THREE, 5, 0, G), "budget: "),
    (lambda: ddls.metropolis_hastings(THREE, 5, 5, G, real_logits=ZERO[:2]), "real_logits: "),
    (lambda: ddls.metropolis_hastings(THREE, 5, 5, G, real_logits=ZERO / 0), "real_logits: "),
    (lambda: ddls.chains(THREE, 5, "nuts", 5, G), "kernel: "),
    (lambda: ddls.chains(THREE, 0, "mala", 5, G, step_size=0.1), "n: "),
    (lambda: ddls.chains(THREE, 5, "mala", 0, G, step_size=0.1), "n_steps: "),
    (lambda: ddls.chains(THREE, 5, "mala", 5, G, step_size=0.0), "step_size: "),
    (lambda: ddls.chains(THREE, 5, "mala", 5, G, step_size=1.0, start=ZERO), "start: "),
    (lambda: ddls.chains(THREE, 5, "isir", 5, G, n_proposals=0), "n_proposals: "),
    (lambda: ddls.langevin(THREE, 5, 5, G, step_size=0.0), "step_size: "),
    (lambda: ddls.langevin(THREE, 5, 5, G, step_size=-1.0), "step_size: "),
    (lambda: ddls.langevin(THREE, 5, 5, G, noise_scale=0.0), "noise_scale: "),
    (lambda: ddls.langevin(THREE, 5, 5, G, decay=1.5, decay_every=2), "decay: "),
    (lambda: ddls.langevin(THREE, 5, 5, G, decay=0.5), "decay_every: "),
    (lambda: ddls.langevin(THREE, 5, 5, G, decay_every=0), "decay_every: "),
    (lambda: ddls.langevin(THREE, 5, 0, G), "n_steps: "),
    (lambda: ddls.gradient_flow(THREE, 5, 5, G, divergence="TV"), "divergence: "),
    (lambda: ddls.gradient_flow(THREE, 5, 5, G, step_size=0.0), "step_size, gamma"),
    (lambda: ddls.gradient_flow(THREE, 5, 5, G, gamma=-1.0), "step_size, gamma"),
    (lambda: ddls.gradient_flow(THREE, 5, 0, G), "n_steps: "),
    (lambda: ddls.transport(THREE, 5, 5, G, lipschitz=0.0), "lipschitz: "),
    (lambda: ddls.transport(THREE, 5, 5, G, lipschitz=torch.ones(2)), "lipschitz: "),
    (lambda: ddls.transport(THREE, 5, 5, G, step_size=math.inf), "step_size: "),
    (lambda: ddls.transport(THREE, 5, 5, G, n_pairs=0), "n_pairs: "),
    (lambda: ddls.calibrate(torch.zeros(1, 30), torch.zeros(1, 30), "platt"), "method: "),
    (lambda: ddls.calibrate(torch.zeros(1, 19), torch.zeros(1, 30)), "real: "),
    (lambda: ddls.calibrate(torch.zeros(1, 30), torch.zeros(30)), "fake: "),
    (lambda: ddls.calibrate(torch.zeros(1, 30), torch.zeros(1, 40)), "fake: "),
    (lambda: ddls.calibrate(torch.zeros(1, 30) / 0, torch.zeros(1, 30)), "real: "),
    (lambda: ddls.log_z0(torch.full((1, 5), -math.inf)), "weight zero"),
    (lambda: ddls.train_critic(THREE, ZERO, 5, G), "critic: "),
    (lambda: ddls.train_critic(linear_model()[0], ZERO, 5, G), "data: "),
    (lambda: ddls.train_critic(linear_model()[0], ZERO[:0, :1], 5, G), "data: "),
    (lambda: ddls.train_critic(linear_model()[0], ZERO[:, :1], 0, G), "n_steps: "),
    (lambda: ddls.train_critic(linear_model()[0], ZERO[:, :1], 5, G, batch=0), "batch: "),
    (lambda: ddls.train_critic(linear_model()[0], ZERO[:, :1], 5, G, noise=-1.0), "noise: "),
    (
        lambda: ddls.train_critic(linear_model()[0], ZERO[:, :1], 5, G, penalty=math.nan),
        "penalty: ",
    ),
    (
        lambda: list(ddls.train_critic(linear_model()[0], ZERO[:, :1], 5, G, learning_rate=0.0)),
        "learning_rate",
    ),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_named(case):
    call, name = BAD[case]
    with pytest.raises(ValueError, match=name):
        call()


@pytest.mark.parametrize(
    ("critic", "says"),
    [
        (lambda x: x, "critic: expected logits of shape"),
        (lambda x: x[..., 0] / 0 * 0, "critic: gave NaN"),
        (lambda x: x[..., 0] * 0 + math.inf, "critic: gave NaN or infinity"),
    ],
)
def test_bad_critics_are_named(critic, says):
    model = dataclasses.replace(THREE, critic=critic)
    for call in (ddls.resampling, ddls.rejection, ddls.metropolis_hastings):
        with pytest.raises(ValueError, match=says):
            call(model, 5, 5, generator())


def test_slopes_that_are_not_finite_are_named():
    model = dataclasses.replace(line(), critic=lambda x: x[..., 0].sqrt())
    for method in (ddls.gradient_flow, functools.partial(ddls.transport, lipschitz=1.0)):
        with pytest.raises(ValueError, match="critic: its gradient"):
            method(model, 50, 2, generator())
