"""What a sampler relies on in an energy is tried before the first step, and named where broken."""

import math

import pytest
import torch
from laws import generator, one_thread  # noqa: F401

from ebmref import energies, probes
from ebmref.samplers import (
    annealed_importance_sampling,
    diagnose,
    ex2mcmc,
    hmc,
    isir,
    kinetic_langevin,
    mala,
    parallel_tempering,
    random_walk,
    sample,
    sequential_monte_carlo,
    ula,
)

DOUBLE = {"dtype": torch.float64}
WIDE = energies.Gaussian(torch.zeros(2, **DOUBLE), 4 * torch.eye(2, **DOUBLE))
BY_GRADIENT = {
    "ula": lambda e: ula(e, 0.1),
    "mala": lambda e: mala(e, 0.1),
    "kinetic": lambda e: kinetic_langevin(e, 0.1),
    "hmc": lambda e: hmc(e, 0.1, 2),
    "tempering": lambda e: parallel_tempering(e, 0.1, (1.0, 0.5)),
    "ex2mcmc": lambda e: ex2mcmc(e, WIDE, 0.1, 2),
}


def zeros(n=4, dtype=torch.float64):
    return torch.zeros(n, 2, dtype=dtype)


# A gradient beside the energy -------------------------------------------------------------------


class Beside:
    """x^T A x / 2 with a gradient that may be another's."""

    def __init__(self, gradient, offset=0.0):
        self.matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
        self.gradient, self.offset = gradient, offset

    def __call__(self, x):
        return 0.5 * ((x @ self.matrix.to(x)) * x).sum(1)

    def value_and_gradient(self, x):
        return self(x) + self.offset, self.gradient(x, self.matrix.to(x))


class InNumpy(Beside):
    """Autograd gives nothing."""

    def __call__(self, x):
        x = x.detach()
        return torch.as_tensor(0.5 * ((x.numpy() @ self.matrix.to(x).numpy()) * x.numpy()).sum(1))


class Moved(energies.Gaussian):
    """An energy of its own with the gradient of its parent."""

    def __call__(self, x):
        return super().__call__(x - 1)


def right(x, matrix):
    return x @ matrix


WRONG = {
    "scale": Beside(lambda x, a: 2 * x @ a),
    "sign": Beside(lambda x, a: -x @ a),
    "constant": Beside(lambda x, a: x @ a + 1),
    "one coordinate": Beside(lambda x, a: (x @ a) * torch.tensor([1.0, 0.0]).to(x)),
    "value": Beside(right, offset=1.0),
    "inherited": Moved(torch.zeros(2, **DOUBLE), torch.eye(2, **DOUBLE)),
    "shape": Beside(lambda x, a: (x @ a)[:, :1]),
    "none": Beside(lambda x, a: None),
    "numpy": InNumpy(lambda x, a: -x @ a),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_gradient_that_is_not_its_own_is_named(name):
    """From zero, where many a wrong gradient is as right as any."""
    with pytest.raises(ValueError, match="value_and_gradient"):
        probes.check_gradient(WRONG[name], zeros())


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_every_kernel_by_gradient_asks(name):
    with pytest.raises(ValueError, match="energy: expected the gradient of its value_and_gradient"):
        sample(BY_GRADIENT[name](WRONG["scale"]), zeros(), 5, generator=generator())


@pytest.mark.parametrize("method", [annealed_importance_sampling, sequential_monte_carlo])
def test_annealing_asks(method):
    with pytest.raises(ValueError, match="energy: expected the gradient of its value_and_gradient"):
        method(WRONG["sign"], WIDE, 20, 3, 0.1, generator=generator())


class Kinked:
    """|x_1| + |x_2|: at zero any slope from -1 to 1 is one."""

    def __call__(self, x):
        return x.abs().sum(1)

    def value_and_gradient(self, x):
        return self(x), torch.where(x >= 0, 1.0, -1.0).to(x)


class WholeBatches(Beside):
    """Three models, each with its third of the batch: no other length will do."""

    def __call__(self, x):
        if len(x) % 3:
            raise ValueError("expected thirds")
        return super().__call__(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "energy",
    [Beside(right), InNumpy(right), Kinked(), WholeBatches(right), random_walk],
    ids=["plain", "numpy", "kinked", "whole batches", "no energy with one"],
)
def test_a_right_gradient_passes(energy, dtype):
    if isinstance(energy, InNumpy) and dtype == torch.bfloat16:
        return  # NumPy has no such numbers
    x = torch.randn(12, 2, generator=generator(3), dtype=torch.float64).to(dtype)
    for points in (x, zeros(12, dtype), 1e3 * x):
        probes.check_gradient(energy, points)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradients_of_the_package_pass(dtype):
    like = torch.zeros(2, dtype=dtype)
    for energy in (
        energies.Gaussian(like, torch.tensor([[1.0, 0.99], [0.99, 1.0]], dtype=dtype)),
        energies.two_moons(like),
        energies.Box(like, tilt=2.0),
        energies.Box(like, -1e-3, 1e-3),
    ):
        probes.check_gradient(energy, zeros(dtype=dtype))
        probes.check_gradient(energy, energy.sample(50, generator()))


def test_a_probe_leaves_the_generator_alone():
    state = torch.get_rng_state()
    drops = torch.nn.Dropout()
    probes.stands_alone(lambda x: drops(x).sum(1), zeros())
    probes.repeats(lambda x: drops(x).sum(1), zeros(), torch.zeros(4, **DOUBLE))
    assert torch.equal(torch.get_rng_state(), state)


# A slope to move by -----------------------------------------------------------------------------


@pytest.mark.parametrize("energy", [energies.Ring(zeros()[0]), lambda x: x.norm(dim=1) + x[:, 0]])
@pytest.mark.parametrize("name", ["ula", "mala", "kinetic", "hmc", "tempering"])
def test_a_start_without_a_slope_is_named(name, energy):
    """The ring's tip has none, and `norm` gives zero at zero: a step is made from there."""
    x0 = torch.cat([zeros(2), zeros(1) + 1])
    kernel = BY_GRADIENT[name](energy)
    if not isinstance(energy, energies.Ring):
        sample(kernel, x0, 5, generator=generator())
        return
    with pytest.raises(ValueError, match=r"x0: the gradient of its energy .* in 2 of 3 chains"):
        sample(kernel, x0, 5, generator=generator())


def test_a_global_move_needs_no_slope():
    ring = energies.Ring(zeros()[0])
    chain = sample(BY_GRADIENT["ex2mcmc"](ring), zeros(), 50, generator=generator())
    assert not (chain.samples[-1] == 0).any()


@pytest.mark.parametrize("part", ["energy", "proposal"])
def test_particles_without_a_slope_are_named(part):
    """A square root of zero in a branch not taken: finite values, gradients of NaN everywhere."""

    class Broken:
        sample = WIDE.sample

        def __call__(self, x):
            root = (x.square().sum(1) * 0).sqrt()
            return WIDE(x) + torch.where(root > 1, root, 0.0)

        def log_prob(self, x):
            return -self(x) - WIDE.log_z

    law, broken = energies.StudentT(zeros()[0]), Broken()
    energy, proposal = (broken, WIDE) if part == "energy" else (law, broken)
    with pytest.raises(ValueError, match=f"{part}: its gradient is not finite at any"):
        annealed_importance_sampling(energy, proposal, 20, 3, 0.1, generator=generator())


# A value of its own -----------------------------------------------------------------------------


def by_halves(x):
    mean = torch.tensor([-3.0, 3.0], dtype=x.dtype)[:, None, None]
    return 0.5 * (x.unflatten(0, (2, -1)) - mean).square().sum(-1).flatten()


def by_batch(x):
    return 0.5 * (x - 0.9 * x.mean(0)).square().sum(1)


def of_four(x):
    return 0.5 * x.square().sum(1) * torch.arange(1, 5, dtype=x.dtype)


@pytest.mark.parametrize(
    "name, energy",
    [
        *((name, by_batch) for name in ("isir", "ex2mcmc", "tempering", "smc")),
        *((name, of_four) for name in ("isir", "ex2mcmc", "tempering", "smc")),
        ("smc", by_halves),
    ],
)
def test_rows_that_are_not_alike_are_named(name, energy):
    """These ask for other batches than the chains, where such an energy is another."""
    with pytest.raises(ValueError, match=r"energy: .*(the same value of a point|shape)"):
        if name == "smc":
            sequential_monte_carlo(energy, WIDE, 4, 3, 0.1, generator=generator())
        else:
            make = (BY_GRADIENT | {"isir": lambda e: isir(e, WIDE, 3)})[name]
            sample(make(energy), zeros(), 5, generator=generator())


def test_an_energy_that_throws_dice_is_warned_of():
    net = torch.nn.Sequential(torch.nn.Linear(2, 50), torch.nn.Dropout(), torch.nn.Linear(50, 1))
    with pytest.warns(RuntimeWarning, match="energy: its value at x0 changes from call to call"):
        sample(mala(lambda x: net.float()(x)[:, 0], 0.1), zeros().float(), 5, generator=generator())
    net.eval()
    sample(mala(lambda x: net(x)[:, 0], 0.1), zeros().float(), 5, generator=generator())


def test_an_energy_without_digits_is_warned_of():
    def far(x):
        return 1e8 + x.square().sum(1)

    with pytest.warns(RuntimeWarning, match="numbers of its dtype lie 12 apart"):
        sample(mala(far, 0.1), zeros().float(), 5, generator=generator())
    sample(mala(far, 0.1), zeros(), 5, generator=generator())


# A chain that moves -----------------------------------------------------------------------------


def test_a_chain_that_never_moves_is_warned_of():
    """A step past the wall each time, and one that float32 cannot tell from none."""
    box = energies.Box(zeros()[0].float(), -1e-6, 1e-6)
    with pytest.warns(RuntimeWarning, match="chain: 4 of 4 chains never moved in 300 draws"):
        chain = sample(random_walk(box, 10.0), zeros().float(), 300, generator=generator())
    with pytest.warns(RuntimeWarning, match="chain: 4 of 4 chains stand still"):
        found = diagnose(chain)
    assert all(part.isnan().all() for part in found)
    flat = random_walk(lambda x: 0 * x.sum(1), 0.1)
    with pytest.warns(RuntimeWarning, match="chain: 4 of 4 chains never moved"):
        sample(flat, zeros().float() + 1e8, 300, generator=generator())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_target_that_no_step_reaches_is_warned_of(dtype):
    """On a circle long steps are accepted as often as any: half the time and more."""
    kernel = random_walk(lambda x: -x.cos().sum(1), 1.0)
    with pytest.warns(
        RuntimeWarning, match=r"target_acceptance: 0.234 was not reached.* up from 1"
    ):
        chain = sample(
            kernel, zeros(50, dtype), 50, warmup=300, target_acceptance=0.234, generator=generator()
        )
    assert chain.step_size <= 1e4 * (1 + 1e-5)
    with pytest.warns(RuntimeWarning, match=r"target_acceptance: 0.9 was not reached.* down from"):
        rough = random_walk(lambda x: 1e3 * (1e9 * x).sin().sum(1), 1.0)
        sample(rough, zeros(50), 50, warmup=300, target_acceptance=0.9, generator=generator())


def test_one_still_chain_of_four_leaves_no_number_of_draws():
    chain = sample(random_walk(WIDE, 1.0), zeros(), 200, generator=generator())
    chain.samples[:, 0, 1] = 0.3
    with pytest.warns(RuntimeWarning, match="chain: 1 of 4 chains stand still"):
        found = diagnose(chain)
    assert found.ess.isnan().tolist() == found.ess_tail.isnan().tolist() == [False, True]
    assert found.rhat[1] > 1.05


def test_nearby_points_are_near_and_the_same_each_time():
    x = torch.tensor([[0.0, 1e3]], **DOUBLE)
    one = probes.nearby(x)
    assert torch.equal(one, probes.nearby(x)) and not (one == x).any()
    assert ((one - x).abs() < 0.5 * (1 + x.abs())).all()


def test_agreement_is_up_to_rounding():
    one = torch.tensor([1.0, math.inf, math.nan])
    assert probes.agree(one, one) and probes.agree(one, one * (1 + 1e-6))
    assert not probes.agree(one, torch.tensor([1.01, math.inf, math.nan]))
    assert not probes.agree(one, torch.tensor([1.0, 5.0, math.nan]))
    assert not probes.agree(one.double(), (one * (1 + 1e-6)).double())
    assert probes.agree(torch.zeros(0), torch.zeros(0))


@pytest.mark.parametrize("name", ["isir", "ex2mcmc", "tempering"])
def test_models_side_by_side_may_be_asked_for_several_points_a_chain(name):
    """Each keeps its part of the batch: their means are -3 and 3, to 0.35, where chance is 3."""
    make = {
        "isir": lambda: isir(by_halves, WIDE, 8),
        "ex2mcmc": lambda: ex2mcmc(by_halves, WIDE, 0.5, 8),
        "tempering": lambda: parallel_tempering(by_halves, 0.5, (1.0, 0.3)),
    }[name]
    chain = sample(make(), zeros(200), 200, generator=generator())
    means = chain.samples[50:].mean((0, 2)).view(2, 100)
    # They err by some 0.02; a model with the other's part of the batch would be 3 off or more.
    assert torch.allclose(means.mean(1), torch.tensor([-3.0, 3.0], dtype=torch.float64), atol=0.35)


def test_the_widest_layer_is_found():
    net = torch.nn.Sequential(torch.nn.Linear(4, 60), torch.nn.SiLU(), torch.nn.Linear(60, 1))
    x = torch.zeros(20, 4)
    assert probes.widest(lambda x: net(x)[:, 0], x) == 60
    mixture = energies.GaussianMixture(torch.zeros(7, 4), torch.ones(7))
    assert probes.widest(mixture, x) == 28
    assert probes.widest(lambda x: x.square().sum(1), x) == 4
    # Not the weights, however they are turned.
    assert probes.widest(lambda x: (x @ torch.ones(300, 4).mT.contiguous()).sum(1), x) == 300
