"""Losses without Z meet closed forms, chains learn what theory says they do, nonsense is named."""

import math

import pytest
import torch
from torch import nn

from ebmref import energies, samplers, training
from ebmref import likelihood as L
from ebmref.samplers import Kernel, mala, ula
from ebmref.samplers.kernels import Point

DOUBLE = {"dtype": torch.float64}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """E(x) = a |x|^2 / 2 + level, with one a a model."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.as_tensor(a, **DOUBLE))
        self.level = nn.Parameter(torch.zeros_like(self.a.data))

    def forward(self, x):
        square = x.flatten(1 + self.a.dim()).square().sum(-1)
        return 0.5 * self.a[..., None] * square + self.level[..., None]


def normal(n, variance, seed=0):
    return variance**0.5 * torch.randn(n, 1, generator=generator(seed), **DOUBLE)


def quantiles(n, variance):
    """n points of a Gaussian, evenly spaced in probability: averages are all but exact."""
    u = (torch.arange(n, **DOUBLE) + 0.5) / n
    return variance**0.5 * torch.special.ndtri(u)[:, None]


def noise_law(variance):
    return energies.Gaussian(torch.zeros(1, **DOUBLE), variance * torch.eye(1, **DOUBLE))


def slope_of_a(loss, energy):
    return torch.autograd.grad(loss.sum(), energy.a, allow_unused=True)[0]


def phase_of(method, energy, data, seed=0, n_models=None):
    memory = method.memory(n_models, data, generator(9))
    return method.phase(energy, data, memory, generator(seed))


# The Gaussian under contrastive divergence -----------------------------------------------------

# E = a x^2 / 2 under ULA with steps h: after k steps from data of variance s the variance is
# r^(2k) s + (1 - r^(2k)) v, and the slope of the loss by a is (1 - r^(2k)) (s - v) / 2.
S, H = 2.0, 0.8


def of_ula(a, k, s=S, h=H):
    r, v = 1 - h * a / 2, 1 / (a * (1 - h * a / 4))
    variance = s
    for _ in range(k):
        variance = r * r * variance + h
    assert variance == pytest.approx(r ** (2 * k) * s + (1 - r ** (2 * k)) * v, rel=1e-12)
    return (s - variance) / 2


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("a", [0.3, 0.5, 1.1])
def test_cd_of_a_gaussian_by_ula_is_the_formula(a, k):
    energy, data = Quadratic(a), normal(200_000, S)
    phase = phase_of(L.cd(lambda e: ula(e, H), k), energy, data, 1)
    got, want = slope_of_a(phase.loss, energy), of_ula(a, k)
    # x^2 / 2 of a Gaussian has the deviation of its variance over sqrt(2).
    assert abs(float(got) - want) < 4 * max(S, 1 / a) / math.sqrt(200_000)
    assert abs(want) > 0.01 or a == 0.5


def test_cd_is_as_fast_as_its_chains_are_long():
    """The slope is 1 - r^(2k) of the one against the chain's own law, for every k."""
    a, data = 0.25, normal(400_000, S)
    r, v = 1 - H * a / 2, 1 / (a * (1 - H * a / 4))
    for k in (1, 3, 10):
        energy = Quadratic(a)
        got = float(
            slope_of_a(phase_of(L.cd(lambda e: ula(e, H), k), energy, data, k).loss, energy)
        )
        assert got / ((S - v) / 2) == pytest.approx(1 - r ** (2 * k), abs=0.02)


def test_a_bias_of_the_sampler_is_learned_and_the_length_of_chains_does_not_help():
    """a (1 - h a / 4) = 1 / s is where the slope vanishes, for every k; with MALA a = 1 / s."""
    biased = 2 / H * (1 - math.sqrt(1 - H / S))
    assert biased * (1 - H * biased / 4) == pytest.approx(1 / S)
    assert [of_ula(biased, k) for k in (1, 4, 9)] == pytest.approx([0] * 3, abs=1e-12)
    for kernel, a in ((ula, biased), (mala, 1 / S)):
        for k in (1, 4):
            energy = Quadratic(a)
            method = L.cd(lambda e, kernel=kernel: kernel(e, H), k)
            slope = slope_of_a(phase_of(method, energy, normal(200_000, S), k).loss, energy)
            assert abs(float(slope)) < 4 * S / math.sqrt(200_000)
    assert abs(of_ula(1 / S, 4)) > 0.09


@pytest.mark.parametrize("start", ["cd", "pcd"])
def test_a_learner_ends_at_the_fixed_point_of_its_chains(start):
    """PCD's, too, where chains have mixed."""
    biased = 2 / H * (1 - math.sqrt(1 - H / S))
    for kernel, want in ((ula, biased), (mala, 1 / S)):
        if start == "cd":
            method = L.cd(lambda e, kernel=kernel: kernel(e, H), 3)
        else:
            method = L.persistent_cd(
                lambda e, kernel=kernel: kernel(e, H), 5, noise_law(1.0), size=2000, restart=0.01
            )
        energy = Quadratic(1.0)
        learner = L.Learner(energy, method, L.Recipe(512, 0.02, average=0.99), 0)
        training.bring(learner, 400, data=normal(20_000, S))
        assert float(learner.average.a) == pytest.approx(want, rel=0.05)


def test_beta_is_the_temperature_of_the_chains():
    """Under beta E the data look right where a = 1 / (beta s)."""
    energy = Quadratic(1 / (4 * S))
    method = L.cd(lambda e: mala(e, 1.0), 8, beta=4.0)
    slope = slope_of_a(phase_of(method, energy, normal(200_000, S)).loss, energy)
    assert abs(float(slope)) < 0.02
    energy = Quadratic(1 / S)
    warm = slope_of_a(phase_of(method, energy, normal(200_000, S)).loss, energy)
    assert float(warm) == pytest.approx((S - S / 4) / 2, rel=0.05)


def test_a_recipe_of_rate_and_noise_is_a_cold_langevin_step():
    step_size, beta = L.as_langevin(10.0, 0.005)
    assert (step_size, beta) == pytest.approx((2.5e-5, 8e5))
    x, energy = normal(50, 1.0), Quadratic(0.7)
    step_size, beta = L.as_langevin(0.3, 0.1)
    moved = L.last_step(energy, x, step_size, generator(3), beta)
    xi = torch.randn(x.shape, generator=generator(3), **DOUBLE)
    assert torch.allclose(moved, x - 0.3 * 0.7 * x + 0.1 * xi, atol=1e-12)
    assert torch.equal(L.tempered(energy, 2.0)(x), 2 * energy(x))
    assert L.tempered(energy, 1.0) is energy


# Two basins ------------------------------------------------------------------------------------


class Depths(nn.Module):
    """Two points, -1 and 1, the second by `depth` higher."""

    def __init__(self, depth):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(depth, **DOUBLE))

    def forward(self, x):
        return self.a * (x[:, 0] > 0)


def crossing(share):
    """A kernel that draws from the law of the two points with a probability, else stays."""

    def make(energy):
        def init(x, generator):
            return Point(x, energy(x))

        def draw(n_steps, x, generator, out=None):
            return (torch.rand(n_steps, len(x), 2, generator=generator, dtype=x.dtype),)

        def step(state, noise, step_size):
            (u,) = noise
            up = (
                -energy(torch.ones(1, 1, **DOUBLE)) + energy(-torch.ones(1, 1, **DOUBLE))
            ).sigmoid()
            fresh = torch.where(u[:, 1] < up, 1.0, -1.0)[:, None].to(state.x)
            x = torch.where(u[:, :1] < share, fresh, state.x)
            return Point(x, energy(x)), torch.ones_like(state.energy)

        return Kernel("crossing", init, draw, step, None, 0, 1, 2, False)

    return make


@pytest.mark.parametrize("k", [1, 3])
def test_cd_sees_the_masses_of_basins_by_as_much_as_chains_cross(k):
    """The slope of the depth is e_k = 1 - (1 - e)^k of the exact one; none where none cross."""
    share_up, depth, n = 0.8, 0.5, 400_000
    data = torch.where(torch.arange(n) < share_up * n, 1.0, -1.0)[:, None].double()
    exact = share_up - 1 / (1 + math.exp(depth))
    for e in (0.3, 0.05):
        energy = Depths(depth)
        slope = slope_of_a(phase_of(L.cd(crossing(e), k), energy, data, k).loss, energy)
        e_k = 1 - (1 - e) ** k
        assert float(slope) == pytest.approx(e_k * exact, abs=5 * math.sqrt(e_k / n))
    energy = Depths(depth)
    assert float(slope_of_a(phase_of(L.cd(crossing(0.0), k), energy, data).loss, energy)) == 0
    pair = torch.tensor([[-1.0], [1.0]], **DOUBLE)
    full = slope_of_a(L.exact_loss(energy, data, L.over(pair)), energy)
    assert float(full) == pytest.approx(exact, abs=1e-12)


# The losses by hand ----------------------------------------------------------------------------


def test_the_contrast_and_its_slope():
    """Data down, negatives up; and these are held, whatever they were made from."""
    energy = Quadratic(0.7)
    data, draws = torch.tensor([[1.0], [3.0]], **DOUBLE), torch.tensor([[2.0]], **DOUBLE)
    loss = L.cd_loss(energy, data, draws * (energy.a / 0.7))
    assert loss.item() == pytest.approx(0.7 * (5 - 4) / 2)
    assert float(slope_of_a(loss, energy)) == pytest.approx((5 - 4) / 2)


def test_the_exact_loss_of_a_gaussian():
    """(a s + log 2 pi / a) / 2, and (s - 1 / a) / 2 for its slope."""
    side = torch.linspace(-12, 12, 2401, **DOUBLE)[:, None]
    energy, data = Quadratic(0.7), torch.tensor([[1.0], [-2.0]], **DOUBLE)
    loss = L.exact_loss(energy, data, L.on_grid(side, 0.01))
    assert loss.item() == pytest.approx((0.7 * 2.5 + math.log(2 * math.pi / 0.7)) / 2, abs=1e-6)
    assert float(slope_of_a(loss, energy)) == pytest.approx((2.5 - 1 / 0.7) / 2, abs=1e-6)
    phase = phase_of(L.exact(L.on_grid(side, 0.01), 2401), energy, data)
    assert phase.loss.item() == loss.item() and phase.n_gradients == 2403


def test_score_matching_of_a_gaussian_is_exact():
    """J = d (a^2 s / 2 - a), least at a = 1 / s: for vectors and for pictures."""
    data = torch.tensor([[1.0, -2.0, 0.5], [0.0, 2.0, -0.5]], **DOUBLE)
    square = float(data.square().sum(1).mean())
    for x in (data, data.view(2, 3, 1)):
        energy = Quadratic(0.4)
        loss = L.score_matching(energy, x)
        assert loss.item() == pytest.approx(0.08 * square - 0.4 * 3, abs=1e-12)
        assert float(slope_of_a(loss, energy)) == pytest.approx(0.4 * square - 3, abs=1e-12)
        best = Quadratic(3 / square)
        assert float(slope_of_a(L.score_matching(best, x), best)) == pytest.approx(0, abs=1e-12)


def curved(x):
    """An energy with a full Hessian that changes from place to place."""
    return (x[:, 0] * x[:, 1]).sin() + 0.3 * x[:, 0].pow(3) * x[:, 2] + x[:, 2].square()


def test_score_matching_takes_the_trace():
    """Against the Hessian of autograd, point by point."""
    x = torch.randn(5, 3, generator=generator(), **DOUBLE)
    for point in x:
        hessian = torch.autograd.functional.hessian(lambda y: curved(y[None])[0], point)
        slope = torch.autograd.functional.jacobian(lambda y: curved(y[None])[0], point)
        want = slope.square().sum() / 2 - hessian.trace()
        assert L.score_matching(curved, point[None]).item() == pytest.approx(want.item(), abs=1e-10)


def test_slices_are_the_trace_on_average():
    """Exactly along sqrt(d) times each axis, whose mean v v^T is one; nearly with normal v."""
    x = torch.randn(4, 3, generator=generator(), **DOUBLE)
    exact = L.score_matching(curved, x).item()
    axes = (math.sqrt(3) * torch.eye(3, **DOUBLE))[:, None].expand(3, 4, 3)
    assert L.sliced_score_matching(curved, x, axes).item() == pytest.approx(exact, abs=1e-12)
    each = torch.randn(2000, 1, 4, 3, generator=generator(1), **DOUBLE)
    values = torch.stack([L.sliced_score_matching(curved, x, v).detach() for v in each])
    assert values.mean().item() == pytest.approx(exact, abs=4 * values.std().item() / 2000**0.5)
    assert values.std() > 0.1


def test_denoising_learns_the_blurred_law():
    """a = 1 / (s + sigma^2), by points whose moments are exact; the value by hand."""
    s, sigma = 2.0, 0.6
    data = math.sqrt(s) * torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], **DOUBLE)
    noise = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], **DOUBLE)
    best = Quadratic(1 / (s + sigma**2))
    assert float(slope_of_a(L.denoising(best, data, noise, sigma), best)) == pytest.approx(0)
    energy = Quadratic(0.3)
    want = (sigma**2 * 0.09 * (s + sigma**2) - 2 * sigma**2 * 0.3 + 1) / 2
    assert L.denoising(energy, data, noise, sigma).item() == pytest.approx(want, abs=1e-12)


def test_several_noises_are_a_compromise_unless_the_energy_sees_them():
    """a = mean sigma^2 / mean sigma^2 (s + sigma^2); with its own a for each it is exact."""
    s, sigmas = 2.0, torch.tensor([0.6, 1.5], **DOUBLE)
    data = math.sqrt(s) * torch.tensor([1.0, 1.0, -1.0, -1.0], **DOUBLE).repeat(2)[:, None]
    noise = torch.tensor([1.0, -1.0, 1.0, -1.0], **DOUBLE).repeat(2)[:, None]
    each = sigmas.repeat_interleave(4)
    square = sigmas.square()
    best = Quadratic(float(square.mean() / (square * (s + square)).mean()))
    assert float(slope_of_a(L.denoising(best, data, noise, each), best)) == pytest.approx(0)

    class Seen(Quadratic):
        def forward(self, x, sigma):
            return self.a * x.square().sum(-1) / (2 * (s + sigma.square()))

    seen = Seen(1.0)
    loss = L.denoising(seen, data, noise, each, conditional=True)
    assert float(slope_of_a(loss, seen)) == pytest.approx(0, abs=1e-12)
    phase = phase_of(L.denoised((0.6, 1.5), conditional=True), Seen(0.5), data)
    assert phase.of_data[0].item() == pytest.approx(0.5 * s / (2 * (s + 0.36)))


@pytest.mark.parametrize("nu", [1, 4])
def test_the_constant_of_noise_contrast_is_minus_log_z(nu):
    """At the data's law with c = -log Z every slope is zero; with another nu it is not."""
    data, draws = quantiles(20_000, S), quantiles(20_000 * nu, 5.0)
    energy = Quadratic(1 / S)
    c = torch.tensor(-0.5 * math.log(2 * math.pi * S), **DOUBLE, requires_grad=True)
    loss = L.nce_loss(energy, c, data, draws, noise_law(5.0))
    slopes = torch.autograd.grad(loss, [c, energy.a, energy.level], retain_graph=True)
    assert [s.item() for s in slopes] == pytest.approx([0, 0, 0], abs=5e-4)

    # The value there, by the odds p / (nu q) themselves.
    def at(x):
        return S**-0.5 * (-x.square() / (2 * S)).exp() / (5**-0.5 * (-x.square() / 10).exp())

    odds, other = at(data) / nu, at(draws) / nu
    want = (1 + 1 / odds).log().mean() + nu * (1 + other).log().mean()
    assert loss.item() == pytest.approx(want.item(), abs=1e-9)


def test_a_learner_finds_the_constant():
    """c and the energy's level share it: c - level = -log Z of the energy without its level."""
    energy = Quadratic(1.0)
    method = L.noise_contrastive(noise_law(4.0), 4)
    recipe = L.Recipe(512, 0.02, constant_rate=0.04, average=0.99)
    learner = L.Learner(energy, method, recipe, 0)
    assert [group["lr"] for group in learner.adam.param_groups] == [0.02, 0.04]
    training.bring(learner, 600, data=normal(20_000, S))
    assert float(learner.average.a) == pytest.approx(1 / S, rel=0.05)
    made = float((learner.memory.value - learner.average.level).detach())
    assert made == pytest.approx(-0.5 * math.log(2 * math.pi * S), abs=0.05)


def test_penalties_by_hand():
    of_data = torch.tensor([1.0, 3.0], **DOUBLE)
    assert L.energy_penalty(of_data).item() == 5
    assert L.energy_penalty(of_data, of_data[1:]).item() == 14
    energy = Quadratic(0.5)
    x = torch.tensor([[1.0, 2.0], [0.0, 2.0]], **DOUBLE)
    penalty = L.gradient_penalty(energy, x)
    assert penalty.item() == pytest.approx(0.25 * 4.5)
    assert float(slope_of_a(penalty, energy)) == pytest.approx(2 * 0.5 * 4.5)


# What contrastive divergence leaves out --------------------------------------------------------


def test_the_term_left_out_goes_through_the_last_step_alone():
    """x' = (1 - h a / 2) x + noise: E(x') by a is a x' (-h x / 2), the weights of E being held."""
    a, h = 0.6, 0.5
    energy, x = Quadratic(a), normal(7, 1.0)
    moved = L.last_step(energy, x, h, generator(2))
    term = L.held(energy, moved)
    assert torch.allclose(term, energy(moved))
    want = (a * moved * (-h * x / 2)).sum()
    assert float(slope_of_a(term, energy)) == pytest.approx(want.item(), abs=1e-12)
    method = L.cd(lambda e: ula(e, h), 1, kl=2.0)
    data = normal(5, 1.0, 3)
    phase = phase_of(method, energy, data, 4)
    with_kl = float(slope_of_a(phase.loss, energy))
    moved = phase.negatives
    plain = (data.square() - moved.square()).mean() / 2
    left_out = 2 * (a * moved * (-h * data / 2)).mean()
    assert with_kl == pytest.approx((plain + left_out).item(), abs=1e-12)


def test_the_entropy_grows_by_d_log_of_the_scale():
    """Its slope for points x = c z is d / c, whoever the neighbours are; those of a law far off
    are held."""
    z = torch.randn(2, 40, 3, generator=generator(), **DOUBLE)
    c = torch.tensor([1.0, 2.5], **DOUBLE, requires_grad=True)
    entropy = L.nearest_entropy(c[:, None, None] * z)
    assert torch.allclose(entropy - L.nearest_entropy(z), 3 * c.log())
    (slope,) = torch.autograd.grad(entropy.sum(), c)
    assert torch.allclose(slope, 3 / c.detach())
    pair = torch.tensor([[0.0, 0.0], [3.0, 4.0]], **DOUBLE)
    assert L.nearest_entropy(pair).item() == pytest.approx(2 * math.log(5))
    other = torch.tensor([[0.0, 1.0]], **DOUBLE, requires_grad=True)
    found = L.nearest_entropy(pair[:1].clone().requires_grad_(), other)
    found.backward()
    assert found.item() == 0 and other.grad is None
    three = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 2.0]], **DOUBLE)
    left = L.nearest_entropy(pair[:1], three, torch.tensor([1]))
    assert left.item() == 0 and L.nearest_entropy(pair[:1], three[[0, 2]]).item() == 0
    assert L.nearest_entropy(pair[:1], three, torch.tensor([0])).item() < -100


@pytest.mark.parametrize("start", ["data", "buffer"])
def test_the_entropy_is_made_large(start):
    """It is taken off the loss, by its weight: among the chains moved, or in the buffer."""
    energy, data = Quadratic(0.6), normal(6, 1.0, 3)
    kernel = lambda e: ula(e, 0.5)  # noqa: E731
    method = L.cd(kernel, 2, entropy=0.7)
    if start == "buffer":
        method = L.persistent_cd(kernel, 2, noise_law(1.0), size=9, entropy=0.7)
    memory = method.memory(None, data, generator(9))
    others = places = None
    if start == "buffer":  # the place that each chain came from does not count
        others = memory.x.clone()
        places, _ = memory.draw(6, generator(), 0.05, noise_law(1.0))
    phase = method.phase(energy, data, memory, generator())
    contrast = phase.of_data.mean() - phase.of_negatives.mean()
    want = contrast - 0.7 * L.nearest_entropy(phase.negatives, others, places)
    assert phase.loss.item() == pytest.approx(want.item(), abs=1e-12)


def test_entropy_keeps_chains_apart():
    """A term weighed by much makes the spread of the negatives larger."""
    spread = {}
    for weight in (0.0, 3.0):
        energy = L.Perceptrons(2, (16,), None, generator(1), confine=2.0)
        law = energies.Gaussian(torch.zeros(2), torch.eye(2))
        method = L.persistent_cd(
            lambda e: ula(e, 0.1), 3, law, size=200, restart=0.0, entropy=weight
        )
        learner = L.Learner(energy, method, L.Recipe(64, 1e-2), 0)
        training.bring(learner, 60, data=0.3 * torch.randn(500, 2, generator=generator(2)))
        spread[weight] = float(learner.memory.x.std())
    assert spread[3.0] > 1.1 * spread[0.0]


# Chains and buffers ----------------------------------------------------------------------------


def test_a_buffer_gives_different_chains_of_each_model_and_takes_them_back():
    x = torch.arange(24.0).view(2, 6, 2)
    buffer = L.Buffer(x.clone(), 2)
    places, start = buffer.draw(4, generator())
    assert all(len(set(row)) == 4 for row in places.tolist())
    assert torch.equal(start, torch.stack([x[i, places[i]] for i in range(2)]))
    buffer.put(places, start + 100)
    for i in range(2):
        moved = (buffer.x[i] != x[i]).all(-1)
        assert moved.sum() == 4 and torch.equal(buffer.x[i, places[i]], start[i] + 100)


def test_a_share_of_the_chains_begins_anew():
    law = energies.Gaussian(torch.full((1,), 50.0), torch.eye(1))
    buffer = L.Buffer(torch.zeros(20_000, 1))
    _, start = buffer.draw(20_000, generator(), 0.3, law)
    assert float((start > 20).float().mean()) == pytest.approx(0.3, abs=0.015)
    assert (buffer.draw(9, generator(), 1.0, law)[1] > 20).all()
    assert (buffer.draw(9, generator(), 0.0, law)[1] == 0).all()


def test_persistent_chains_go_on_and_short_runs_begin_anew():
    """The buffer's chains drift to the data's law; short ones stay near the noise."""
    energy = Quadratic(1.0)
    for parameter in energy.parameters():
        parameter.requires_grad_(False)
    far = energies.Gaussian(torch.full((1,), 30.0, **DOUBLE), torch.eye(1, **DOUBLE))
    data = normal(50, 1.0)
    persistent = L.persistent_cd(lambda e: ula(e, 0.1), 1, far, size=50, restart=0.0)
    short = L.short_run(lambda e: ula(e, 0.1), 1, far, n_chains=70)
    memory = persistent.memory(None, data, generator())
    assert float(persistent.phase(energy, data, memory, generator()).negatives.mean()) > 25
    for step in range(100):
        phase = persistent.phase(energy, data, memory, generator(step))
    assert abs(float(phase.negatives.mean())) < 2
    assert torch.equal(memory.x.sort(0).values, phase.negatives.sort(0).values)
    phase = phase_of(short, energy, data)
    assert phase.negatives.shape == (70, 1) and float(phase.negatives.mean()) > 25


def test_run_is_a_chain_of_so_many_steps():
    energy, x = Quadratic(1.0), normal(10, 1.0)
    moved, rate = L.run(mala(energy, 0.5), x, 4, generator(5))
    chain = samplers.sample(mala(energy, 0.5), x, 4, generator=generator(5))
    assert torch.equal(moved, chain.samples[-1]) and torch.equal(rate, chain.acceptance_rate)


def test_counts_of_gradients():
    """By hand: data and negatives once for the weights, a chain k + 1 times; slopes twice."""
    energy, data = Quadratic(1.0), normal(10, 1.0)
    for method, want in (
        (L.cd(lambda e: ula(e, 0.1), 4), 10 + 10 * 6),
        (L.cd(lambda e: samplers.hmc(e, 0.1, 3), 2), 10 + 10 * 8),
        (L.cd(lambda e: ula(e, 0.1), 1, kl=1.0), 10 + 10 * 4),
        (L.cd(lambda e: ula(e, 0.1), 4, kl=1.0), 10 + 10 * 8),
        (L.short_run(lambda e: ula(e, 0.1), 2, noise_law(1.0), n_chains=5), 10 + 5 * 4),
        (L.noise_contrastive(noise_law(1.0), 3), 40),
        (L.matching(), 10 * 2 * 2),
        (L.matching(5), 10 * 2 * 6),
        (L.denoised(0.1), 20),
    ):
        assert phase_of(method, energy, data).n_gradients == want, method.name
