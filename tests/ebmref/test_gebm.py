"""Equations (13) to (16) where all is known: finite laws, Gaussians, flows; then the training.

A case of a law fails below FLOOR, one in a million, shared among its comparisons by Bonferroni
(see `laws`); five standard errors are as rare, two in a million. What must be seen to fail is
MARGIN below, beside a twin that passes.
"""

import copy
import dataclasses
import math

import pytest
import torch
from laws import (
    FLOOR,
    gaussian_scores,
    generator,
    one_thread,  # noqa: F401
    smallest,
)
from scipy import stats
from torch import nn

from ebmref import data, ddls, flows, gan, gebm, training

MARGIN = 1e-6


def normals(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


# --- the bound, on six points ------------------------------------------------------------

# Points as often as they weigh, so that a mean over them is an expectation: P misses two.
OF_P = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 3, 3])
OF_Q = torch.tensor([0, 1, 1, 2, 2, 2, 3, 4, 5, 5])
P, Q = (torch.bincount(of, minlength=6).double() / 10 for of in (OF_P, OF_Q))
KL = float(torch.xlogy(P, P / Q).sum())


def random_energies(n=2000):
    """`(n, 6)` of all sizes, and constants `(n,)` on both sides of log Z."""
    sizes = torch.logspace(-2, 1, n, dtype=torch.float64)[:, None]
    energies = sizes * normals(n, 6, seed=1)
    c = gebm.log_mean_weight(energies[:, OF_Q]) + 2 * normals(n, seed=2)
    return energies, c


def is_the_bound(function) -> bool:
    """At most L everywhere, and L at c = log Z."""
    energies, c = random_energies()
    real, fake = energies[:, OF_P], energies[:, OF_Q]
    height = gebm.likelihood(real, fake)
    tight = function(real, fake, gebm.log_mean_weight(fake))
    return bool((function(real, fake, c) <= height + 1e-9).all()) and torch.allclose(tight, height)


def signed(of_data, inner, of_samples=-1, one=1):
    """(14) with its signs as given: the truth is -1 and 1."""
    return lambda real, fake, c: (
        of_data * (real.mean(-1) + c)
        + of_samples * (-fake - inner * c[:, None]).exp().mean(-1)
        + one
    )


def test_bound_and_likelihood_and_kl_are_in_order():
    """F <= L <= KL for any energy and constant; all three are one at E = -log dP/dQ + a, c = -a."""
    assert is_the_bound(gebm.bound) and is_the_bound(signed(-1, 1))
    energies, _ = random_energies()
    assert (gebm.likelihood(energies[:, OF_P], energies[:, OF_Q]) <= KL).all()
    best = -(P / Q).log() + torch.tensor([[0.0], [3.0]])
    c = torch.tensor([0.0, -3.0]).double()
    real, fake = best[:, OF_P], best[:, OF_Q]
    for found in (gebm.bound(real, fake, c), gebm.likelihood(real, fake)):
        assert torch.allclose(found, torch.full((2,), KL).double(), atol=1e-12)
    assert torch.allclose(gebm.log_mean_weight(fake), c, atol=1e-12)


@pytest.mark.parametrize(
    "signs",
    [(1, -1), (1, 1), (-1, -1), (-1, 1, 1), (-1, 1, -1, 0), (-1, 1, -1, -1)],
    ids=["printed", "data", "constant", "samples", "without 1", "minus 1"],
)
def test_other_signs_are_no_bound(signs):
    assert not is_the_bound(signed(*signs))


def test_the_printed_bound_on_a_constant_energy():
    """E = 1 says nothing: L = 0. Printed: E_P[E + c] - E_Q[e^{-E + c}] + 1 = 2 - 1/e at c = 0, and
    without end as E grows."""
    ones, zero = torch.ones(1, 10, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    printed = signed(1, -1)
    assert float(gebm.likelihood(ones, ones)) == pytest.approx(0, abs=1e-15)
    assert float(printed(ones, ones, zero)) == pytest.approx(1.632, abs=5e-4)
    assert float(printed(ones, ones, zero)) == pytest.approx(2 - 1 / math.e, abs=1e-12)
    assert float(printed(50 * ones, 50 * ones, zero)) > 50
    assert float(gebm.bound(ones, ones, -ones[:, 0])) == pytest.approx(0, abs=1e-15)


def test_slopes_of_the_bound():
    """In E: -E_P[.] + E_Q[e^{-(E + c)} .]; in c: the same with 1, zero at c = log Z alone."""
    energies, c = random_energies(50)
    energies.requires_grad_()
    c.requires_grad_()
    bound = gebm.bound(energies[:, OF_P], energies[:, OF_Q], c)
    of_e, of_c = torch.autograd.grad(bound.sum(), (energies, c))
    weights = (-(energies + c[:, None])).exp()
    assert torch.allclose(of_e, -P + Q * weights)
    assert torch.allclose(of_c, (gebm.log_mean_weight(energies[:, OF_Q]) - c).exp() - 1)


def test_batches_do_not_bias_the_bound():
    """Mean over 400,000 batches of four; L is too large, by what enumeration of the 6^4 batches
    says. Each to five standard errors."""
    energies = torch.tensor([0.5, -0.4, 1.0, 0.0, -1.2, 2.0]).double()
    c = gebm.log_mean_weight(energies[OF_Q])[None]
    n, g = 400_000, generator(3)
    real = energies[OF_P[torch.randint(10, (n, 4), generator=g)]]
    fake = energies[OF_Q[torch.randint(10, (n, 4), generator=g)]]
    exact = gebm.likelihood(energies[OF_P], energies[OF_Q])
    every = torch.cartesian_prod(*[torch.arange(6)] * 4)
    bias = -(Q[every].prod(1) * gebm.log_mean_weight(energies[every])).sum() + c[0]
    assert bias > 0.05
    for function, expected in ((gebm.bound, exact), (gebm.likelihood, exact + bias)):
        extra = (c,) if function is gebm.bound else ()
        found = function(real, fake, *extra)
        assert abs(found.mean() - expected) < 5 * found.std() / n**0.5


def test_off_the_support_the_energy_changes_the_objective_and_never_the_model():
    """E is of x. Where the base never goes, a change of E moves L and KALE, as P goes there, and
    no weight of a sample."""
    base = torch.tensor([0, 1, 1, 2, 2, 2])  # the data's point 3 is missed
    energies = normals(6, seed=4)
    other = energies.clone()
    other[3] -= 2.0
    one, two = (gebm.likelihood(e[OF_P], e[base]) for e in (energies, other))
    assert float(two - one) == pytest.approx(2.0 * float(P[3]))
    assert torch.equal((-energies[base]).softmax(0), (-other[base]).softmax(0))


def test_slope_penalty_is_taken_on_the_way_between():
    """E = |x|^2 / 2 has the slope x: the penalty is the mean of |t x + (1 - t) y|^2, per model."""
    x, y, t = normals(2, 7, 3, seed=5), normals(2, 7, 3, seed=6), torch.rand(2, 7).double()
    t[0] = 1.0
    found = gebm.slope_penalty(lambda z: 0.5 * z.square().sum(-1), x, y, t)
    mixed = t[..., None] * x + (1 - t[..., None]) * y
    assert torch.allclose(found, mixed.square().sum(-1).mean(1))
    assert torch.allclose(found[0], x[0].square().sum(-1).mean())
    pictures = gebm.slope_penalty(
        lambda z: z.flatten(2).sum(-1), *normals(2, 2, 7, 1, 4, 4, seed=7), t
    )
    assert torch.allclose(pictures, torch.full((2,), 16.0).double())


def test_a_floor_changes_little_above_and_never_takes_the_slope_away():
    x = torch.linspace(-40, 40, 81, dtype=torch.float64)[None].requires_grad_()
    floored = gebm.Floored(nn.Identity(), -10.0)(x)
    (slope,) = torch.autograd.grad(floored.sum(), x)
    assert (floored > -10).all() and (slope > 0).all() and (slope <= 1).all()
    high = x > 0
    assert torch.allclose(floored[high], x[high], atol=5e-5)
    assert torch.allclose(slope, (x + 10).sigmoid())


def lowest_bound(floor):
    """Of a game that begins with a base inside 25 Gaussians, without a penalty."""
    base = gan.Generator(2, (32, 32), (2,), 2, generator(43))
    energy = gan.Discriminator((2,), (32, 32), 2, generator(44))
    if floor is not None:
        energy = gebm.Floored(energy, floor)
    recipe = gebm.Recipe(batch=64, learning_rate=(5e-3,) * 3, n_long=50)
    points = data.gaussian_grid(torch.zeros(1)).sample(2000, generator(45))
    try:
        steps = list(training.train(gebm.Game(base, energy, (2, 2), recipe, 0), 60, data=points))
    except training.Diverged:
        return -math.inf
    return min(float(step.bound.min()) for step in steps)


def test_a_floor_keeps_the_weights_of_samples_finite():
    """F is below -10^9 within sixty steps without it."""
    assert lowest_bound(None) < -1e9 and lowest_bound(-10.0) > -1e4


# --- the base's gradient -----------------------------------------------------------------


BASE_FLAWS = {
    "none": gebm.base_loss,
    "up the energy": lambda fake: -gebm.base_loss(fake),
    "unweighted": lambda fake: fake.mean(-1),
    "weights upside down": lambda fake: -gebm.base_loss(-fake),
}


def line_slopes(loss):
    """Gradient in (mean, log sd) of the base m + s z, on quantiles of eta, and that of the exact
    KL(N(0.6, 0.7^2) || N(m, s^2)); the energy is the best one, held."""
    m, log_s = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.2, 0.1))
    n = 200_000
    z = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    x = m + log_s.exp() * z
    held_m, held_s = m.detach(), log_s.exp().detach()
    log_p = -0.5 * ((x - 0.6) / 0.7).square() - math.log(0.7)
    log_q = -0.5 * ((x - held_m) / held_s).square() - held_s.log()
    found = torch.autograd.grad(loss(log_q - log_p + 4.0), (m, log_s))
    s = log_s.exp()
    exact = s.log() - math.log(0.7) + (0.49 + (0.6 - m).square()) / (2 * s.square()) - 0.5
    return torch.stack(found), torch.stack(torch.autograd.grad(exact, (m, log_s)))


@pytest.mark.parametrize("flaw", BASE_FLAWS)
def test_base_gradient_is_that_of_the_exact_kl(flaw):
    """By quadrature: 1e-4 apart, or not near at all."""
    found, exact = line_slopes(BASE_FLAWS[flaw])
    if flaw == "none":
        assert torch.allclose(found, exact, atol=1e-4)
    else:
        assert ((found - exact).abs() > 0.1).any()


def random_flow(seed, k=1, scale=0.12, widen=0.0, d=2):
    made, g = flows.RealNVP(d, (16,), 4, k, generator(seed)), generator(seed + 1)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(scale * torch.randn(p.shape, generator=g))
        made.log_scale.add_(widen)
    return made.double()


def test_base_gradient_of_a_flow_is_that_of_the_exact_kl():
    """KL's is -E_P[grad log q], on draws of P, with autograd through the exact density; ours is on
    draws of the base. Welch's test of each weight, shared by all; the unweighted one's fails.

    Forty batches of 10,000: on 500 the self-normalised weights are biased beyond the noise.
    """
    base, target = random_flow(1, widen=0.3), random_flow(3, widen=-0.3)
    parameters = list(base.parameters())
    held = copy.deepcopy(base)
    losses = (gebm.base_loss, BASE_FLAWS["unweighted"])

    def slopes(loss, **keep):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, **keep)])

    exact, found = [], []
    for i in range(40):
        exact.append(slopes(-base.log_prob(target.sample(10_000, generator(900 + i))).mean()))
        x = base(normals(1, 10_000, 2, seed=i))
        energies = held.log_prob(x) - target.log_prob(x)
        found.append(torch.stack([slopes(f(energies).sum(), retain_graph=True) for f in losses]))
    exact, (ours, plain) = torch.stack(exact), torch.stack(found).unbind(1)

    def p_value(one):
        moved = (one.var(0) + exact.var(0)) > 0
        p = stats.ttest_ind(one[:, moved].numpy(), exact[:, moved].numpy(), equal_var=False).pvalue
        return min(1.0, p.min() * len(p))

    assert exact.mean(0).abs().max() > 0.3
    assert p_value(ours) > FLOOR
    assert p_value(plain) < FLOOR * MARGIN


class Affine(nn.Module):
    """The base x = m + z L^T, of each of k models its own."""

    def __init__(self, mean, factor):
        super().__init__()
        self.mean, self.factor = nn.Parameter(mean[:, None].clone()), nn.Parameter(factor.clone())

    def forward(self, z):
        return self.mean + z @ self.factor.mT

    def covariance(self):
        return (self.factor @ self.factor.mT).detach()


class Quadratic(nn.Module):
    """E = x A x / 2 + b x, symmetric A, of each of k models its own."""

    def __init__(self, k, d=2, a=None, b=None):
        super().__init__()
        like = {"dtype": torch.float64}
        self.a = nn.Parameter(torch.zeros(k, d, d, **like) if a is None else a.clone())
        self.b = nn.Parameter(torch.zeros(k, 1, d, **like) if b is None else b[:, None].clone())

    def symmetric(self):
        return 0.5 * (self.a + self.a.mT)

    def forward(self, x):
        return 0.5 * ((x @ self.symmetric()) * x).sum(-1) + (self.b * x).sum(-1)

    def log_z(self):
        """log E[e^{-E(x)}], x ~ N(0, I)."""
        precision = torch.eye(self.a.shape[-1]).double() + self.symmetric()
        b = self.b[:, 0, :, None]
        inner = (b.mT @ torch.linalg.solve(precision, b))[:, 0, 0]
        return (0.5 * inner - 0.5 * torch.logdet(precision)).detach()

    def mean(self, mean, covariance):
        """E[E(x)], x ~ N(mean, covariance)."""
        second = covariance + mean[:, :, None] * mean[:, None]
        return (
            0.5 * (self.symmetric() * second).sum((1, 2)) + (self.b[:, 0] * mean).sum(-1)
        ).detach()


MEAN = torch.tensor([0.8, -0.5], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.6, 0.3], [0.3, 0.9]], dtype=torch.float64)
GAUSSIANS = MEAN + normals(50_000, 2, seed=8) @ torch.linalg.cholesky(COVARIANCE).T
GAUSSIAN_KL = float(
    0.5 * (COVARIANCE.trace() + MEAN @ MEAN - 2 - torch.logdet(COVARIANCE))
)  # to N(0, I)


def test_the_energy_is_held_in_the_base_step_even_if_it_knows_the_base():
    """The energy log q - log p moves with q; the step is the one for the energy as it stood."""
    points, seed = normals(64, 2, seed=9), 5
    recipe = gebm.Recipe(batch=32, n_energy=1, long_every=0, learning_rate=(0.01, 1e-9, 1e-9))
    steps = []
    for held in (False, True):
        base = random_flow(11, k=2)
        log_base = copy.deepcopy(base).log_prob if held else base.log_prob
        energy = flows.FlowEnergy(random_flow(13, k=2), log_base)
        game = gebm.Game(base, energy, (2, 2), recipe, seed)
        list(training.train(game, 1, data=points))
        steps.append(base.state_dict())
    assert all(torch.equal(steps[0][name], steps[1][name]) for name in steps[0])


# --- exactness: trained, where KL and log Z are known --------------------------------------


@pytest.mark.parametrize("criterion", gebm.CRITERIA)
def test_gaussian_against_gaussian(criterion):
    """Three energies on the base N(0, I): F <= L <= KL in closed form, KALE within 2 % of KL, and
    c within .03 of log Z. Seen over 16 seeds: .4 % and .012."""
    energy = Quadratic(3)
    recipe = gebm.Recipe(
        criterion, batch=500, samples=2, learning_rate=(1.0, 0.02, 0.02), frozen=True,
        anneal_over=600,
    )  # fmt: skip
    game = gebm.Game(lambda z: z, energy, (3, 2), recipe, 0)
    steps = list(training.train(game, 600, data=GAUSSIANS))
    log_z, c = energy.log_z(), game.constant.detach()
    height = -energy.mean(MEAN.expand(3, 2), COVARIANCE) - log_z
    bound = height + 1 + log_z - c - (log_z - c).exp()
    assert (bound <= height).all() and (height <= GAUSSIAN_KL).all()
    assert (bound > 0.98 * GAUSSIAN_KL).all()
    assert ((c - log_z).abs() < 0.03).all()
    assert all((s.bound <= s.likelihood + 1e-12).all() for s in steps)
    assert all(s.base_loss is None and s.penalty is None for s in steps)
    # A constant that starts two nats off gets there, too.
    lost = dataclasses.replace(recipe, constant=2.0)
    game = gebm.Game(lambda z: z, Quadratic(3), (3, 2), lost, 0)
    list(training.train(game, 600, data=GAUSSIANS))
    assert ((game.constant.detach() - game.energy.log_z()).abs() < 0.03).all()


def flow_game(criterion="KALE", k=2, n_steps=600, shift=1.0):
    base, target = random_flow(20, k, 0.1, 0.25).float(), random_flow(10, 1, 0.15, -0.3).float()
    start = flows.RealNVP(2, (16,), 4, k, generator(3))
    energy = flows.FlowEnergy(start, base.log_prob, shift)
    recipe = gebm.Recipe(
        criterion, batch=500, samples=2, learning_rate=(1.0, 0.01, 0.01), momenta=(0.9, 0.999),
        frozen=True, constant=0.0, anneal_over=n_steps,
    )  # fmt: skip
    game = gebm.Game(base, energy, (k, 2), recipe, 0)
    list(training.train(game, n_steps, data=target.sample(60_000, generator(1))[0]))
    return game, target


def test_flow_base_and_flow_energy():
    """KL by 100,000 exact log-densities, whose gap to L is known far better than either: 2 % of it,
    c within .03 of the exact log Z, which itself has moved."""
    game, target = flow_game()
    x = target.sample(100_000, generator(2))
    with torch.no_grad():
        log_p, log_q = target.log_prob(x), game.base.log_prob(x.expand(2, -1, -1))
        kl = (log_p - log_q).double()
        of_model = game.energy.flow.log_prob(x.expand(2, -1, -1))
        gap = (log_p - of_model).double()  # KL - L
    noise = 5 * gap.std(1) / 100_000**0.5
    log_z, c = game.energy.log_z.double(), game.constant.detach().double()
    lost = (log_z - c).exp() - 1 - (log_z - c)  # L - F
    assert (kl.mean(1) > 0.3).all()
    assert (gap.mean(1) > -noise).all() and (lost >= 0).all()
    assert (gap.mean(1) + lost + noise < 0.02 * kl.mean(1)).all()
    assert ((c - log_z).abs() < 0.03).all()
    assert ((log_z + 1).abs() > 0.1).all()
    # The same from samples, as where nothing is known: to five standard errors.
    found = gebm.score(game.model(), c, x[0], 50_000, generator(4))
    height = kl.mean(1) - gap.mean(1)
    assert ((found.log_z - log_z).abs() < 5 * found.log_z_se).all()
    assert ((found.likelihood - height).abs() < 5 * found.likelihood_se).all()
    assert ((found.bound - height + lost).abs() < 5 * found.bound_se).all()
    assert (found.pareto_k < 0.7).all()


class Linear(nn.Module):
    """E = b x on the line, two models."""

    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.zeros(2, 1, 1).double())

    def forward(self, x):
        return (self.b * x).sum(-1)


@pytest.mark.parametrize(("penalty", "every"), [(0.0, 1), (1.0, 1), (1.0, 3)])
def test_penalty_is_weighed_once(penalty, every):
    """E = b x, P = N(m, 1), Q = N(0, 1): -b m - b^2 / 2 - lambda b^2 is best at
    b = -m / (1 + 2 lambda), with half the weight at -m / (1 + lambda). The bound falls below KL."""
    m, points = 0.9, 0.9 + normals(40_000, 1, seed=10)
    energy = Linear()
    recipe = gebm.Recipe(
        batch=500, learning_rate=(1.0, 0.02, 0.02), penalty=penalty, penalty_every=every,
        frozen=True, anneal_over=400,
    )  # fmt: skip
    game = gebm.Game(lambda z: z, energy, (2, 1), recipe, 1)
    list(training.train(game, 400, data=points))
    b = energy.b.detach().flatten()
    assert torch.allclose(b, torch.full((2,), -m / (1 + 2 * penalty)).double(), atol=0.04)
    share = (-b * m - 0.5 * b.square()) / (0.5 * m**2)
    assert (share > 0.98).all() if not penalty else (share < 0.7).all()


def test_a_learned_base_goes_to_the_data_and_takes_kale_to_zero():
    """From N(0, I), against quadratic energies. Exact KL(P || Q) falls a hundred times."""
    eye = torch.eye(2).double().expand(2, 2, 2)
    base, energy = Affine(torch.zeros(2, 2).double(), eye), Quadratic(2)
    recipe = gebm.Recipe(
        batch=500, learning_rate=(0.01, 0.05, 0.05), momenta=(0.5, 0.9), n_energy=3, n_long=30,
        long_every=100, average=0.9, anneal_over=250,
    )  # fmt: skip
    game = gebm.Game(base, energy, (2, 2), recipe, 0)
    steps = list(training.train(game, 250, data=GAUSSIANS))

    def exact(covariance, mean):
        inverse = torch.linalg.inv(covariance)
        off = mean - MEAN
        return 0.5 * (
            (inverse @ COVARIANCE).diagonal(dim1=-2, dim2=-1).sum(-1)
            + ((off[:, None] @ inverse) * off[:, None]).sum((-1, -2))
            - 2 - torch.logdet(COVARIANCE) + torch.logdet(covariance)
        )  # fmt: skip

    kl = exact(base.covariance(), base.mean[:, 0].detach())
    assert (kl < 0.01 * GAUSSIAN_KL).all()
    assert steps[0].bound.min() > 0.1 and steps[-1].bound.abs().max() < 0.1
    averaged = exact(game.average.covariance(), game.average.mean[:, 0].detach())
    assert (averaged < 0.01 * GAUSSIAN_KL).all()


def test_tuning_the_energy_leaves_the_base_alone():
    """A base that is done, another game with a frozen recipe on the same energy: L rises to KL."""
    eye = torch.eye(2).double().expand(2, 2, 2)
    base, energy = Affine(torch.zeros(2, 2).double(), eye), Quadratic(2)
    first = gebm.Recipe(batch=100, n_energy=1, long_every=0, learning_rate=(1e-3, 1e-3, 1e-3))
    list(training.train(gebm.Game(base, energy, (2, 2), first, 0), 5, data=GAUSSIANS))
    before = copy.deepcopy(base.state_dict())
    recipe = gebm.Recipe(batch=500, frozen=True, learning_rate=(1.0, 0.02, 0.02), anneal_over=400)
    game = gebm.Game(base, energy, (2, 2), recipe, 0)
    early = gebm.score(game.model(), game.constant.detach(), GAUSSIANS, 20_000, generator(11))
    list(training.train(game, 400, data=GAUSSIANS))
    late = gebm.score(game.model(), game.constant.detach(), GAUSSIANS, 20_000, generator(11))
    assert all(torch.equal(before[name], now) for name, now in base.state_dict().items())
    assert (early.likelihood < 0.1).all() and (late.likelihood > 0.5).all()


def test_spectral_norm_bounds_the_slope():
    """Whatever is learned, energies of two points differ by no more than their distance."""
    energy = gan.Discriminator((2,), (16, 16), 2, generator(12), spectral=True)
    recipe = gebm.Recipe(batch=64, frozen=True, learning_rate=(1.0, 0.02, 0.02))
    game = gebm.Game(lambda z: 3 * z, energy, (2, 2), recipe, 0)
    list(training.train(game, 100, data=GAUSSIANS.float()))
    x, y = normals(2, 2, 500, 2, seed=13, dtype=torch.float32)
    critic = game.model().critic
    ratio = (critic(x) - critic(y)).abs() / (x - y).norm(dim=-1)
    assert 0.05 < ratio.max() < 1.05


def test_score_in_closed_form():
    """A quadratic energy on N(0, I) against N(mean, covariance), c half a nat off: F, L and log Z
    to five standard errors, which are themselves right to a factor of 1.3 over 60 repeats."""
    a, b = torch.tensor([[[0.5, -0.2], [-0.2, 0.3]]]).double(), torch.tensor([[0.4, -0.3]]).double()
    energy = Quadratic(1, a=a, b=b)
    log_z = energy.log_z()
    c = log_z + 0.5
    height = -energy.mean(MEAN[None], COVARIANCE) - log_z
    exact = {"likelihood": height, "log_z": log_z, "bound": height + 0.5 - math.exp(-0.5)}
    # F = L + 1 + (log Z - c) - e^{log Z - c}.
    model = gebm.model(lambda z: z, energy, ddls.Normal(2, torch.float64))
    found = [
        gebm.score(model, c, GAUSSIANS[400 * i : 400 * (i + 1)], 400, generator(i))
        for i in range(60)
    ]
    for name, truth in exact.items():
        error = torch.stack([getattr(f, name) - truth for f in found])
        se = torch.stack([getattr(f, f"{name}_se") for f in found])
        assert (error / se).abs().max() < 5
        assert 1 / 1.3 < float(error.std() / se.mean()) < 1.3
        assert abs(error.mean()) < 5 * se.mean() / 60**0.5


# --- equation (16): drawing from the model -------------------------------------------------

SHIFT = torch.tensor([[0.5, -1.0], [0.0, 1.0]], dtype=torch.float64)
FACTOR = torch.tensor([[[1.0, 0.0], [0.8, 0.6]], [[0.7, 0.2], [0.0, 1.2]]], dtype=torch.float64)
TILT = Quadratic(
    2,
    a=torch.tensor([[[0.6, -0.2], [-0.2, 0.4]], [[0.2, 0.1], [0.1, 0.9]]]).double(),
    b=torch.tensor([[1.0, -0.5], [0.3, 0.8]]).double(),
).requires_grad_(False)
BASE = Affine(SHIFT, FACTOR).requires_grad_(False)
PRIOR = ddls.Normal(2, torch.float64)
TILTED = gebm.model(BASE, TILT, PRIOR, 2)


def model_p(states, beta=1.0):
    """The least p-value of "model i's events are Q_E's", which is Gaussian, at this beta."""
    x = BASE(states)
    found = []
    for i in range(2):
        precision = torch.linalg.inv(BASE.covariance()[i])
        covariance = torch.linalg.inv(precision + beta * TILT.symmetric()[i])
        mean = covariance @ (precision @ SHIFT[i] - beta * TILT.b[i, 0])
        found.append(smallest(gaussian_scores(mean, covariance)(x[i])))
    return min(1.0, 2 * min(found))


METHODS = {
    "resampling": lambda m, beta: ddls.resampling(m, 3000, 300, generator(20)),
    "mala": lambda m, beta: ddls.chains(
        m, 3000, "mala", 80, generator(21), step_size=0.5, beta=beta
    ),
    "kinetic_langevin": lambda m, beta: ddls.chains(
        m, 3000, "kinetic_langevin", 60, generator(22), step_size=0.2, friction=1.5, beta=beta
    ),
    "langevin": lambda m, beta: gebm.langevin(
        m, 3000, 150, generator(23), step_size=0.08, friction=1.5, beta=beta
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_latents_have_the_law_of_equation_16(method):
    """N(m, S) by conjugacy; both kinetic orders of steps are exact for it, at any step."""
    assert model_p(METHODS[method](TILTED, 1.0).states) > FLOOR


@pytest.mark.parametrize("method", METHODS)
def test_with_the_energy_upside_down_the_law_is_missed(method):
    wrong = gebm.model(BASE, lambda x: -TILT(x) * 0.5, PRIOR, 2)
    assert model_p(METHODS[method](wrong, 1.0).states) < FLOOR * MARGIN


@pytest.mark.parametrize("method", ["mala", "kinetic_langevin", "langevin"])
def test_beta_weighs_the_energy_and_not_the_prior(method):
    states = METHODS[method](TILTED, 3.0).states
    assert model_p(states, 3.0) > FLOOR
    assert model_p(states, 1.0) < FLOOR * MARGIN


def test_langevin_of_a_long_step_is_exact_on_a_gaussian():
    """U = 5 z^2 / 2 at h = .6, where `ula` with the step h^2 would have .36 in place of 1/5 for a
    variance: this order of the steps, as B A O A B, has no error in the law of z."""
    energy = Quadratic(1, 1, a=torch.full((1, 1, 1), 2.0).double())
    model = gebm.model(lambda z: z, energy.requires_grad_(False), ddls.Normal(1, torch.float64))
    made = gebm.langevin(model, 4000, 80, generator(24), step_size=0.6, friction=2.0, beta=2.0)
    z = made.states[0]
    assert smallest(z * 5**0.5) > FLOOR
    assert smallest(z * 0.36**-0.5) < FLOOR * MARGIN


def test_langevin_by_hand():
    """Six steps as its equation has them, the step a fifth after every second one; v goes on."""
    start = normals(2, 5, 2, seed=25)
    made = gebm.langevin(
        TILTED, 5, 6, generator(26), step_size=0.5, friction=0.7, beta=1.5, decay=0.2,
        decay_every=2, start=start,
    )  # fmt: skip
    g, z, v = generator(26), start.clone(), torch.zeros_like(start)
    for step in range(6):
        h = 0.5 * 0.2 ** (step // 2)
        z = z + h / 2 * v
        at = z.clone().requires_grad_()
        potential = 0.5 * at.square().sum() + 1.5 * TILT(BASE(at)).sum()
        (slope,) = torch.autograd.grad(potential, at)
        xi = torch.randn(10, 2, generator=g, dtype=torch.float64).view_as(z)
        v = math.exp(-0.7 * h) * (v - h / 2 * slope) + math.sqrt(1 - math.exp(-1.4 * h)) * xi
        v = v - h / 2 * slope
        z = z + h / 2 * v
    assert torch.allclose(made.states, z, atol=1e-12)
    assert (made.n_calls, made.n_gradients, made.temperature) == (0, 6, 1)
    assert torch.equal(start, normals(2, 5, 2, seed=25)) and not made.stuck.any()


def test_expectations_of_equation_15():
    """E_{Q_E}[x], from samples of the base at the weights of (13): the closed form, to five
    standard errors."""
    x = BASE(PRIOR.sample(400_000, generator(27)).view(2, -1, 2))
    w = (-TILT(x)).softmax(1)[..., None]
    for i in range(2):
        precision = torch.linalg.inv(BASE.covariance()[i])
        exact = torch.linalg.solve(
            precision + TILT.symmetric()[i], precision @ SHIFT[i] - TILT.b[i, 0]
        )
        found = (w[i] * x[i]).sum(0)
        se = (w[i] * (x[i] - found)).square().sum(0).sqrt()
        assert ((found - exact).abs() < 5 * se).all() and (se < 0.01).all()


# --- training ----------------------------------------------------------------------------

RECIPE = gebm.Recipe(
    batch=16, samples=2, learning_rate=(1e-2, 1e-2, 1e-2), penalty=0.1, penalty_every=3,
    n_energy=2, n_long=5, long_every=4, average=0.9, anneal_over=40,
)  # fmt: skip
POINTS = GAUSSIANS[:100].float()


def small(recipe=RECIPE, k=2, seed=0, spectral=True, width=8):
    base = gan.Generator(2, (8,), (2,), k, generator(seed))
    energy = gan.Discriminator((2,), (width,), k, generator(seed + 1), spectral=spectral)
    return gebm.Game(base, energy, (k, 2), recipe, seed)


def known(z):
    """A base that has nothing to learn."""
    return z + 0.3 * z.sin()


def fixed(recipe=RECIPE, seed=0):
    energy = gan.Discriminator((2,), (8,), 2, generator(seed + 1))
    return gebm.Game(known, energy, (2, 2), dataclasses.replace(recipe, frozen=True), seed)


def weights(game):
    parts = [part for part in game.parts().values() if isinstance(part, nn.Module)]
    return [value for part in parts for value in part.state_dict().values()]


def play(game, n_steps, **options):
    return list(training.train(game, n_steps, data=POINTS, **options))


def zeroed(game):
    for part in game.parts().values():
        if isinstance(part, nn.Module):
            for parameter in part.parameters():
                nn.init.zeros_(parameter.data)
    return game


@pytest.mark.parametrize("criterion", gebm.CRITERIA)
@pytest.mark.parametrize("make", [small, fixed])
def test_stop_and_resume_is_straight_through_to_the_bit(make, criterion, tmp_path):
    """Stopped between two long steps and two penalties, loaded into fresh networks: the same
    weights and constants, and the same numbers at every later step."""
    recipe = dataclasses.replace(RECIPE, criterion=criterion)
    straight, first, second = make(recipe), make(recipe), zeroed(make(recipe))
    steps = play(straight, 15)
    play(first, 7, checkpoint=tmp_path / "game.pt")
    training.load(second, tmp_path / "game.pt")
    rest = play(second, 15)
    assert second.step == 15 and torch.equal(second.constant, straight.constant)
    assert all(map(torch.equal, weights(straight), weights(second)))
    for a, b in zip(steps[7:], rest, strict=True):
        assert a.step == b.step
        for one, other in zip(a[1:], b[1:], strict=True):
            assert (one is None and other is None) or torch.equal(one, other)
    one, other = (game.model().critic(POINTS.expand(2, -1, -1)) for game in (straight, second))
    assert torch.equal(one, other)


def test_same_seed_same_game_and_another_seed_another():
    one, same, other = small(), small(), small()
    other.seed = 1
    for game in (one, same, other):
        play(game, 3)
    assert all(map(torch.equal, weights(one), weights(same)))
    assert not all(map(torch.equal, weights(one), weights(other)))


def doubled(recipe):
    """In double precision, in which Adam's first steps do not make much of rounding."""
    game = small(recipe, k=1, spectral=False)
    return gebm.Game(game.base.double(), game.energy.double(), (1, 2), recipe, 0)


def plain_loop(game, twin, n_steps):
    """The equations on the batches of `game`, term by term: Adam, backward, one optimiser each."""
    recipe, base, energy = game.recipe, twin.base, twin.energy
    batches = training.Batches(game, POINTS.double(), 1, game.recipe.batch)
    c = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    adams = [
        torch.optim.Adam(parameters, rate, betas=recipe.momenta)
        for parameters, rate in zip(
            (base.parameters(), energy.parameters(), [c]), recipe.learning_rate, strict=True
        )
    ]
    average, used = [p.detach().clone() for p in base.parameters()], 0
    for step in range(n_steps):
        source = training.source(game, f"step-{step}")
        if recipe.anneal_over:
            fall = (1 + math.cos(math.pi * min(step / recipe.anneal_over, 1))) / 2
            for adam, rate in zip(adams, recipe.learning_rate, strict=True):
                adam.param_groups[0]["lr"] = rate * fall
        n_energy = recipe.n_energy
        if recipe.long_every and step % recipe.long_every == 0:
            n_energy = recipe.n_long
        for _ in range(1 if recipe.frozen else n_energy):
            x = batches[used]
            y = base(game.latents(recipe.batch * recipe.samples, source)).detach()
            of_x, of_y = energy(x)[0], energy(y)[0]
            if used == 0:
                start = (-of_y).exp().mean().log() if recipe.constant is None else recipe.constant
                c.data.fill_(start)
            loss = (of_x + c).mean() + (-(of_y + c)).exp().mean() - 1
            if recipe.criterion == "DV":
                loss = of_x.mean() + (-of_y).exp().mean().log()
                loss = loss + c + (-(of_y.detach() + c)).exp().mean()
            if recipe.penalty and used % recipe.penalty_every == 0:
                t = torch.rand(1, recipe.batch, generator=source, dtype=torch.float64)[..., None]
                at = (t * x + (1 - t) * y[:, : recipe.batch]).requires_grad_()
                (slope,) = torch.autograd.grad(energy(at).sum(), at, create_graph=True)
                loss = loss + recipe.penalty * recipe.penalty_every * slope.square().sum(-1).mean()
            for adam in adams:
                adam.zero_grad()
            loss.backward()
            adams[1].step()
            adams[2].step()
            used += 1
        if not recipe.frozen:
            y = base(game.latents(recipe.batch * recipe.samples, source))
            e = energy(y)[0]
            adams[0].zero_grad()
            ((-e).softmax(0).detach() * e).sum().backward()
            adams[0].step()
        decay = min(recipe.average, (1 + step) / (10 + step))
        average = [
            decay * a + (1 - decay) * p.detach()
            for a, p in zip(average, base.parameters(), strict=True)
        ]
    return c, average


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"criterion": "DV"},
        {"penalty": 0.5},
        {"penalty": 0.5, "penalty_every": 2},
        {"n_energy": 1, "long_every": 0},
        {"n_long": 7, "long_every": 3},
        {"samples": 3},
        {"frozen": True},
        {"constant": -0.7},
        {"average": 0.8},
        {
            "criterion": "DV", "penalty": 0.5, "penalty_every": 2, "n_energy": 2, "average": 0.9,
            "anneal_over": 12, "momenta": (0.0, 0.9), "learning_rate": (1e-2, 2e-2, 3e-2),
        },
    ],
    ids=lambda options: ", ".join(options) or "plain",
)  # fmt: skip
def test_training_is_the_plain_loop(options):
    """Eight steps on the same batches end in the same weights, c and average, to rounding."""
    start = {"batch": 16, "learning_rate": (1e-2,) * 3, "n_energy": 3, "n_long": 4, "long_every": 5}
    recipe = gebm.Recipe(**start | options)
    game, twin = doubled(recipe), doubled(recipe)
    steps = list(training.train(game, 8, data=POINTS.double()))
    c, average = plain_loop(game, twin, 8)
    ours, plain = ([*g.base.parameters(), *g.energy.parameters()] for g in (game, twin))
    for one, other in zip(ours, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-9)
    assert torch.allclose(game.constant, c, atol=1e-9)
    assert torch.equal(steps[-1].constant, game.constant)
    if recipe.average:
        for one, other in zip(game.average.parameters(), average, strict=True):
            assert torch.allclose(one, other, atol=1e-9)
    else:
        assert game.average is game.base


def test_models_do_not_meet_in_training():
    """Four steps; the second model of one game starts elsewhere: the first is what it would have
    been, with its constant and average, and the second is not."""
    games = []
    for shift in (0.0, 0.1):
        game = small()
        with torch.no_grad():
            for p in (*game.base.parameters(), *game.energy.parameters()):
                p.chunk(2)[1].add_(shift)
        play(game, 4)
        games.append(game)
    for one, other in zip(*map(weights, games), strict=True):
        (first, second), (same, another) = one.chunk(2), other.chunk(2)
        assert torch.allclose(first, same, atol=1e-6)
        # The singular vector of a row is +-1, whatever the row.
        assert not torch.allclose(second, another, atol=1e-4) or second.numel() == 1


def test_energy_steps_are_counted():
    """Each step begins with the batch after the last one's, whatever came between."""
    for recipe in (RECIPE, dataclasses.replace(RECIPE, long_every=0), fixed().recipe):
        made = [recipe.energy_steps(step) for step in range(30)]
        assert [recipe.energy_steps_before(step) for step in range(30)] == [
            sum(made[:step]) for step in range(30)
        ]
    assert [RECIPE.energy_steps(step) for step in range(9)] == [5, 2, 2, 2, 5, 2, 2, 2, 5]
    paper = gebm.Recipe()
    assert [paper.energy_steps(step) for step in (0, 1, 499, 500, 501)] == [100, 5, 5, 100, 5]


def test_the_base_step_moves_the_base_alone_and_the_energy_step_the_energy():
    """A rate of all but zero holds one player; the other must not feel it."""
    for rates, moved in (((1e-2, 1e-12, 1e-12), "base"), ((1e-12, 1e-2, 1e-12), "energy")):
        game = small(dataclasses.replace(RECIPE, learning_rate=rates), spectral=False)
        before = {name: copy.deepcopy(getattr(game, name)) for name in ("base", "energy")}
        play(game, 2)
        for name, old in before.items():
            pairs = zip(old.parameters(), getattr(game, name).parameters(), strict=True)
            same = all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
            assert same == (name != moved)


def test_a_model_is_a_copy_in_eval_mode():
    """What a game does later does not change it; with an average it can have that for a base."""
    game = small()
    play(game, 3)
    made, averaged = game.model(), game.model(averaged=True)
    z = made.draw(5, generator(30))
    for model, base in ((made, game.base), (averaged, game.average)):
        assert torch.equal(model.events(z), base(z).detach())
        assert (model.prior, model.k) == (ddls.Normal(2), 2)
    assert not torch.equal(made.events(z), averaged.events(z))
    before = made.logits(z)
    assert torch.equal(before, made.logits(z))  # no power iteration by the way
    expected = -copy.deepcopy(game.energy).eval()(game.base(z)).detach().double()
    assert torch.equal(before, expected)
    play(game, 6)
    assert torch.equal(before, made.logits(z)) and game.energy.training
    assert fixed().model().events(z).equal(known(z))


def test_double_precision_throughout():
    game = fixed()
    energy = game.energy.double()
    game = gebm.Game(known, energy, (2, 2), game.recipe, 0)
    step = list(training.train(game, 2, data=GAUSSIANS[:100]))[-1]
    assert step.bound.dtype == game.constant.dtype == torch.float64
    assert game.model().prior.dtype == torch.float64


def test_half_is_half_precise_and_keeps_whole_weights(tmp_path):
    """bfloat16 keeps 8 bits: F of the first step within .02 of the whole one's, not within 1e-6;
    weights stay in single precision and resume to the bit."""
    recipe = dataclasses.replace(RECIPE, n_energy=1, long_every=0)
    halved = dataclasses.replace(recipe, half=True)
    whole, half = play(small(recipe), 1)[0], play(small(halved), 1)[0]
    for name in ("bound", "likelihood", "base_loss", "constant"):
        one, other = getattr(whole, name), getattr(half, name)
        assert other.dtype == torch.float32
        assert torch.allclose(one, other, atol=0.02) and not torch.allclose(one, other, atol=1e-6)
    straight, first, second = small(halved), small(halved), small(halved)
    play(straight, 6)
    play(first, 3, checkpoint=tmp_path / "game.pt")
    training.load(second, tmp_path / "game.pt")
    play(second, 6)
    assert all(map(torch.equal, weights(straight), weights(second)))
    assert all(value.dtype == torch.float32 for value in weights(straight))


def test_pictures_by_convolutional_nets():
    base = gan.ConvGenerator(4, (1, 12, 12), 8, 2, generator(31))
    energy = gan.ConvDiscriminator((1, 12, 12), 8, 2, generator(32), spectral=True)
    recipe = gebm.Recipe(batch=8, penalty=1.0, n_energy=2, long_every=0, half=True, average=0.5)
    game = gebm.Game(base, energy, (2, 4), recipe, 0)
    pictures = torch.rand(20, 1, 12, 12, generator=generator(33))
    steps = list(training.train(game, 3, data=pictures))
    assert steps[-1].bound.shape == (2,) and (steps[-1].penalty > 0).all()
    made = gebm.langevin(game.model(), 6, 3, generator(34), step_size=0.1, friction=1.0, beta=100.0)
    assert game.model().events(made.states).shape == (2, 6, 1, 12, 12)


class At(nn.Module):
    """An energy at one of whose calls something happens: NaN, or a pulled plug."""

    def __init__(self, inner, at, what=math.nan):
        super().__init__()
        self.inner, self.at, self.what, self.calls = inner, at, what, 0

    def forward(self, x):
        self.calls += 1
        if self.calls != self.at:
            return self.inner(x)
        if self.what is KeyboardInterrupt:
            raise KeyboardInterrupt
        return self.inner(x) * self.what


def disturbed(at, what=math.nan):
    """Three calls of the energy a step, two of its own and one of the base's."""
    recipe = gebm.Recipe(batch=16, learning_rate=(1e-2,) * 3, n_energy=2, long_every=0, average=0.5)
    game = small(recipe, spectral=False)
    return gebm.Game(game.base, At(game.energy, at, what), (2, 2), recipe, 0)


@pytest.mark.parametrize(
    ("at", "what", "words"),
    [(22, math.nan, "bound"), (23, math.nan, "bound"), (24, math.nan, "base loss")],
)
def test_nan_stops_the_run_and_names_the_checkpoint(at, what, words, tmp_path):
    """Step 8 fails, in either step of the energy or in the base's; the save of step 5 is named and
    good; the base and its average are those of step 7, and the energy, at the first call, too."""
    healthy, sick, path = disturbed(0), disturbed(at, what), tmp_path / "game.pt"
    play(healthy, 7)
    with pytest.raises(training.Diverged, match=rf"step 8: {words} \[nan.*game\.pt, step 5$"):
        play(sick, 20, checkpoint=path, save_every=5)
    assert sick.step == 7
    for name in ("base", "average", *(("energy",) if at == 22 else ())):
        pairs = zip(
            getattr(healthy, name).parameters(), getattr(sick, name).parameters(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)
    again = disturbed(0)
    training.load(again, path)
    assert again.step == 5


def test_an_energy_so_low_that_its_weight_overflows_is_told():
    """e^{-E} is infinite in single precision below -89; L, by logarithms, still is a number. With
    c for a start from the batch the same energy is no trouble."""
    recipe = gebm.Recipe(batch=16, frozen=True, constant=0.0)
    for start, fine in ((0.0, False), (None, True)):
        game = gebm.Game(
            known, Offset(-100.0), (2, 2), dataclasses.replace(recipe, constant=start), 0
        )
        if fine:
            assert play(game, 1)[0].bound.isfinite().all()
        else:
            with pytest.raises(training.Diverged, match=r"bound \[-inf.*likelihood \[-?\d.*none$"):
                play(game, 1)


class Offset(nn.Module):
    def __init__(self, offset):
        super().__init__()
        self.offset, self.slope = offset, nn.Parameter(torch.zeros(2, 1))

    def forward(self, x):
        return self.offset + self.slope * x[..., 0]


@pytest.mark.parametrize("at", [8, 9, 23, 32])
def test_play_goes_on_after_a_cut(at, tmp_path):
    """Cut off in a step of the energy or of the base, before the first save or after one: played
    again it ends as one that was never cut off. Then it is a read, and there is no way back."""
    straight, path = disturbed(0), tmp_path / "deep" / "game.pt"
    training.bring(straight, 12, data=POINTS)
    with pytest.raises(KeyboardInterrupt):
        training.bring(
            disturbed(at, KeyboardInterrupt), 12, data=POINTS, checkpoint=path, save_every=4
        )
    again = disturbed(0)
    training.bring(again, 12, data=POINTS, checkpoint=path, save_every=4)
    assert all(map(torch.equal, weights(straight), weights(again)))
    read = zeroed(disturbed(0))
    training.bring(read, 12, data=POINTS, checkpoint=path)
    assert read.energy.calls == 0 and all(map(torch.equal, weights(straight), weights(read)))
    with pytest.raises(ValueError, match="n_steps: the game has made 12 already"):
        training.bring(disturbed(0), 9, data=POINTS, checkpoint=path)


def test_play_shows_a_bar_where_asked(tmp_path, capsys):
    training.bring(small(), 2, data=POINTS, checkpoint=tmp_path / "game.pt")
    assert capsys.readouterr().err == ""
    training.bring(small(), 4, data=POINTS, checkpoint=tmp_path / "game.pt", progress=True)
    assert "4/4" in capsys.readouterr().err


def test_saves_come_at_every_so_many_steps_and_at_the_end(tmp_path):
    game, path, saved = small(), tmp_path / "game.pt", []
    for step in training.train(game, 7, data=POINTS, checkpoint=path, save_every=3):
        if path.exists():
            saved.append((step.step, torch.load(path, weights_only=True)["step"]))
    assert saved == [(3, 3), (4, 3), (5, 3), (6, 6), (7, 7)]


OTHERS = {
    "seed": (lambda: small(seed=1), "of another game"),
    "recipe": (lambda: small(gebm.Recipe(batch=16)), "of another game"),
    "criterion": (lambda: small(dataclasses.replace(RECIPE, criterion="DV")), "of another game"),
    "frozen": (fixed, "of another game"),
    "models": (lambda: small(k=3), "of other networks"),
    "no spectral norm": (lambda: small(spectral=False), "of other networks"),
    "width of the energy": (lambda: small(width=9), "of other networks"),
    "a GAN": (
        lambda: gan.Game(small().base, small().energy, (2, 2), gan.Recipe(batch=16), 0),
        "of another game",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_game_is_refused(what, tmp_path):
    """Seed, recipe, networks, or another kind of game; nothing of it is taken."""
    path = tmp_path / "game.pt"
    play(small(), 2, checkpoint=path)
    make, words = OTHERS[what]
    game = make()
    held = game.discriminator if what == "a GAN" else game.energy
    before = copy.deepcopy(held.state_dict())
    with pytest.raises(ValueError, match=words) as error:
        training.load(game, path)
    assert str(error.value).startswith(f"checkpoint {path}: ") and game.step == 0
    assert all(torch.equal(before[name], now) for name, now in held.state_dict().items())


def test_a_checkpoint_that_lacks_a_part_or_a_byte_is_refused(tmp_path):
    path = tmp_path / "game.pt"
    play(small(), 2, checkpoint=path)
    content, whole = path.read_bytes(), torch.load(path, weights_only=True)
    parts = {"base", "energy", "constant", "average", "adam_base", "adam_energy", "step"}
    assert parts | {"seed", "recipe"} == set(whole)
    for key in whole:
        torch.save({name: part for name, part in whole.items() if name != key}, path)
        with pytest.raises(ValueError, match=r"of another game|of other networks"):
            training.load(small(), path)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="missing or damaged"):
        training.load(small(), path)


# --- bad input -----------------------------------------------------------------------------

G = generator()
LANGEVIN = {"step_size": 0.1, "friction": 1.0}
BAD = [
    (lambda: gebm.Recipe(criterion="kale"), "criterion: expected one of KALE, DV"),
    (lambda: gebm.Floored(nn.Identity(), math.nan), "floor: "),
    (lambda: gebm.Recipe(batch=0), "batch: "),
    (lambda: gebm.Recipe(samples=1.5), "samples: "),
    (lambda: gebm.Recipe(penalty_every=0), "penalty_every: "),
    (lambda: gebm.Recipe(n_energy=0), "n_energy: "),
    (lambda: gebm.Recipe(n_long=True), "n_long: "),
    (lambda: gebm.Recipe(long_every=-1), "long_every: "),
    (lambda: gebm.Recipe(anneal_over=0.5), "anneal_over: "),
    (lambda: gebm.Recipe(frozen=1), "frozen: expected True or False"),
    (lambda: gebm.Recipe(half="no"), "half: "),
    (lambda: gebm.Recipe(penalty=-1.0), "penalty: "),
    (lambda: gebm.Recipe(penalty=math.nan), "penalty: "),
    (lambda: gebm.Recipe(constant=math.inf), "constant: "),
    (lambda: gebm.Recipe(average=1.0), "average: "),
    (lambda: gebm.Recipe(learning_rate=(1e-3, 1e-3)), "learning_rate: expected three"),
    (lambda: gebm.Recipe(learning_rate=(1e-3, 1e-3, 0.0)), "learning_rate: expected three"),
    (lambda: gebm.Recipe(learning_rate=1e-3), "learning_rate: expected three"),
    (lambda: gebm.Recipe(momenta=(1.0, 0.9)), "momenta: "),
    (lambda: gebm.Game(known, small().energy, (2, 2), RECIPE, 0.5), "seed: "),
    (lambda: gebm.Game(known, small().energy, (2,), RECIPE, 0), "latent: expected two whole"),
    (lambda: gebm.Game(known, small().energy, (0, 2), RECIPE, 0), "latent: expected two whole"),
    (lambda: gebm.Game(known, small().energy, (2, 2), RECIPE, 0), "base: "),
    (lambda: gebm.Game(nn.Identity(), small().energy, (2, 2), RECIPE, 0), "base: "),
    (lambda: training.bring(small(), 1, data=POINTS[:10]), "data: expected .* batch = 16"),
    (lambda: play(small(), 1, save_every=0), "save_every: "),
    (lambda: training.bring(small(), 1, data=POINTS.double()), "data: expected torch.float32"),
    (
        lambda: training.bring(small(), 1, data=torch.zeros(100, 3)),
        "data: expected events of the base's",
    ),
    (
        lambda: training.bring(small(), 1, data=torch.zeros(100, 2, 2)),
        "data: expected events of the base's",
    ),
    (lambda: gebm.score(TILTED, torch.zeros(2), GAUSSIANS, 1, G), "n: "),
    (lambda: gebm.score(TILTED, torch.zeros(2), GAUSSIANS[:1], 9, G), "data: "),
    (lambda: gebm.score(TILTED, torch.zeros(3), GAUSSIANS, 9, G), "c: "),
    (lambda: gebm.score(TILTED, torch.zeros(2), GAUSSIANS / 0, 9, G), "energy: not finite"),
    (lambda: gebm.langevin(TILTED, 0, 5, G, **LANGEVIN), "n: "),
    (lambda: gebm.langevin(TILTED, 5, 0, G, **LANGEVIN), "n_steps: "),
    (lambda: gebm.langevin(TILTED, 5, 5, 0, **LANGEVIN), "generator: "),
    (lambda: gebm.langevin(TILTED, 5, 5, G, **LANGEVIN | {"step_size": 0.0}), "step_size: "),
    (lambda: gebm.langevin(TILTED, 5, 5, G, **LANGEVIN | {"friction": math.nan}), "friction: "),
    (lambda: gebm.langevin(TILTED, 5, 5, G, **LANGEVIN, beta=-1.0), "beta"),
    (lambda: gebm.langevin(TILTED, 5, 5, G, **LANGEVIN, decay=0.0), "decay: "),
    (lambda: gebm.langevin(TILTED, 5, 5, G, **LANGEVIN, decay=0.5), "decay_every: "),
    (lambda: gebm.langevin(TILTED, 5, 5, G, **LANGEVIN, decay_every=0), "decay_every: "),
    (lambda: gebm.langevin(TILTED, 5, 5, G, **LANGEVIN, start=torch.zeros(2, 4, 2)), "start: "),
    (lambda: gebm.langevin(TILTED, 5, 2000, G, step_size=9.0, friction=0.1), "step_size: too"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_named(case):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        call()


def test_an_energy_of_another_shape_is_named():
    game = gebm.Game(known, nn.Linear(2, 1), (2, 2), dataclasses.replace(RECIPE, frozen=True), 0)
    with pytest.raises(ValueError, match=r"energy: expected energies of shape \(2, 48\)"):
        play(game, 1)
