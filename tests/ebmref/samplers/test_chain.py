"""`sample` does what it says: draws, warm-up, thinning, cost, adaptation, compilation, refusals."""

import dataclasses
import functools
import math
import subprocess
import sys
import warnings

import laws
import numpy as np
import pytest
import torch
from laws import generator, one_thread  # noqa: F401

from ebmref import energies
from ebmref.samplers import (
    diagnose,
    ex2mcmc,
    hmc,
    independence,
    isir,
    kinetic_langevin,
    mala,
    parallel_tempering,
    random_walk,
    sample,
    ula,
)

TARGET, WIDE = (
    energies.Gaussian(torch.zeros(2, dtype=torch.float64), v * torch.eye(2, dtype=torch.float64))
    for v in (1.0, 2.0)
)


def kernels(energy=TARGET, proposal=WIDE):
    """One of each, by name."""
    return {
        "random_walk": random_walk(energy, 1.0),
        "independence": independence(energy, proposal),
        "ula": ula(energy, 0.5),
        "mala": mala(energy, 1.0),
        "hmc": hmc(energy, 0.5, 3),
        "kinetic_langevin": kinetic_langevin(energy, 0.5),
        "isir": isir(energy, proposal, 3),
        "ex2mcmc": ex2mcmc(energy, proposal, 0.5, 3, n_local=2),
        "parallel_tempering": parallel_tempering(energy, 0.5, (1.0, 0.5, 0.2)),
    }


NAMES = list(kernels())
ADAPTED = {"random_walk": 0.234, "mala": 0.574, "hmc": 0.8}


def start(n=20, d=2):
    return torch.randn(n, d, generator=generator(100), dtype=torch.float64)


# Draws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_chain_and_nothing_else_touched(name):
    """Bit by bit, on any number of threads; x0 and the global generator stay as they are."""
    kernel, x0 = kernels()[name], start()
    before, state = x0.clone(), torch.get_rng_state()
    one, two = (sample(kernel, x0, 30, warmup=10, generator=generator(3)) for _ in range(2))
    torch.set_num_threads(2)
    three = sample(kernel, x0, 30, warmup=10, generator=generator(3))
    torch.set_num_threads(1)
    assert torch.equal(one.samples, two.samples) and torch.equal(one.energy, two.energy)
    assert torch.equal(one.samples, three.samples)
    assert torch.equal(x0, before) and torch.equal(torch.get_rng_state(), state)
    other = sample(kernel, x0, 30, warmup=10, generator=generator(4))
    assert not torch.equal(one.samples, other.samples)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("n_steps", "warmup", "thin"), [(12, 0, 1), (12, 7, 5), (1, 3, 1), (1_300, 10, 7)]
)
def test_draws_are_states_of_one_chain(name, n_steps, warmup, thin):
    """Draw k is the state after warmup + (k + 1) thin steps, each made from the last one's state;
    no step is made after the last draw. The longest run takes several blocks of noise."""
    kernel, made = kernels()[name], []

    def step(state, noise, step_size):
        assert not made or state is made[-1][0] or torch.equal(state.x, made[-1][0].x)
        made.append(kernel.step(state, noise, step_size))
        return made[-1]

    chain = sample(
        kernel._replace(step=step),
        start(),
        n_steps,
        warmup=warmup,
        thin=thin,
        generator=generator(5),
    )
    n_draws = n_steps // thin
    assert chain.samples.shape == (n_draws, 20, 2) and chain.energy.shape == (n_draws, 20)
    assert len(made) == warmup + n_draws * thin
    kept = [state for state, _ in made[warmup + thin - 1 :: thin]]
    assert torch.equal(chain.samples, torch.stack([state.x for state in kept]))
    torch.testing.assert_close(chain.energy, torch.stack([TARGET(state.x) for state in kept]))
    rates = torch.stack([probability for _, probability in made[warmup:]])
    torch.testing.assert_close(chain.acceptance_rate, rates.mean(0))


@pytest.mark.parametrize("name", NAMES)
def test_the_start_is_no_draw(name):
    """After a warm-up no chain of 200 still stands where it started, nor at one common point."""
    x0 = start(200)
    chain = sample(kernels()[name], x0, 1, warmup=60, generator=generator(6))
    assert not (chain.samples[0] == x0).all(1).any()
    assert len(chain.samples[0, :, 0].unique()) == 200


def test_noise_does_not_repeat_from_block_to_block():
    """ULA on N(0, 1) is an autoregression: its correlation at lag k is (1 - h / 2)^k, within four
    standard errors over 400 chains, at lags up to 1,000 steps, where blocks of noise end too."""
    chain = sample(ula(TARGET, 0.5), start(400), 2_100, warmup=50, generator=generator(7))
    x = chain.samples * (1 - 0.5 / 4) ** 0.5
    for lag in (1, 2, 480, 512, 960, 1_000):
        products = (x[lag:] * x[:-lag]).mean((0, 2))
        error = float(products.std()) / 400**0.5
        assert abs(float(products.mean()) - 0.75**lag) < 4 * error
        assert error < 0.01


# Cost --------------------------------------------------------------------------------------------


class Counting:
    """N(0, I) that counts the points at which it was asked for a value or a gradient."""

    def __init__(self):
        self.values = self.gradients = 0

    def __call__(self, x):
        self.values += len(x)
        return 0.5 * x.square().sum(1)

    def value_and_gradient(self, x):
        self.gradients += len(x)
        return 0.5 * x.square().sum(1), x


@pytest.mark.parametrize("name", NAMES)
def test_cost_of_a_step(name):
    """Gradients a chain: 1 a step for Langevin, L for HMC, 0 for a random walk. The start costs a
    few more, whatever comes after it: the chain's own count leaves it out."""
    n, found = 10, []
    for n_steps in (25, 55):
        energy = Counting()
        chain = sample(kernels(energy)[name], start(n), n_steps, warmup=5, generator=generator())
        found.append((chain.n_gradients, chain.n_energies, energy.gradients, energy.values))
    gradients = {"ula": 1, "mala": 1, "kinetic_langevin": 1, "hmc": 3, "ex2mcmc": 3}
    gradients = (gradients | {"parallel_tempering": 3}).get(name, 0)
    values = {"random_walk": 1, "independence": 1, "isir": 3, "ex2mcmc": 3}.get(name, 0)
    assert [told[:2] for told in found] == [
        (30 * gradients, 30 * values),
        (60 * gradients, 60 * values),
    ]
    (_, _, first, also_first), (_, _, more, also_more) = found
    assert more - first == 30 * gradients * n and also_more - also_first == 30 * values * n
    assert first - 30 * gradients * n <= 5 * n and also_first - 30 * values * n <= 25 * n


def test_autograd_asks_once_a_step():
    """Without an analytic gradient the energy is called once a step for value and gradient, and
    twice at the start: the second time for whether it says the same."""
    calls = []

    def energy(x):
        calls.append(len(x))
        return 0.5 * x.square().sum(1)

    sample(mala(energy, 0.5), start(10), 20, generator=generator())
    assert calls == [10] * 22


MEMORY = """
import resource, torch
from ebmref import energies
from ebmref.samplers import sample, {name}
energy = energies.Gaussian(torch.zeros(100), torch.eye(100))
def run(n_chains, n_steps, thin):
    x0 = torch.zeros(n_chains, 100)
    return sample({name}(energy, 0.1), x0, n_steps, thin=thin,
                  generator=torch.Generator().manual_seed(0))
run(10, 2, 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
chain = run(10_000, 1_000, 100)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024, chain.samples.nbytes)
"""


def test_only_kept_draws_are_stored():
    """10,000 chains, 100 dimensions, 1,000 steps, thin=100: at most 3 x what is kept + 200 MB.

    All states would be 4 GB, the noise of all steps as much.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.format(name="ula")],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, stored = map(int, done.stdout.split())
    assert stored == 10 * 10_000 * 100 * 4
    assert peak < 3 * stored + 200e6


# Adaptation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 50])
@pytest.mark.parametrize("first", [1e-3, 20.0])
@pytest.mark.parametrize("name", ADAPTED)
def test_step_size_reaches_its_acceptance(name, first, d):
    """Dual averaging from a step far too small or too large: the frozen step's acceptance is
    within 0.03 of the target.

    The frozen step is a mean of log steps whose weights fall as t^-0.75, so that some of the
    first tries is left in it: on seeds 11 to 16 the acceptance is off by 0.012 at most, always
    to the side of the start. Chance adds 0.005 at most (400 chains, 100 steps).
    """
    energy = laws.gaussian(d).energy
    kernel = random_walk(energy, first) if name == "random_walk" else kernels(energy)[name]
    kernel = kernel._replace(step_size=first)
    target = ADAPTED[name]
    chain = sample(
        kernel,
        energy.sample(400, generator(8)),
        100,
        warmup=400,
        generator=generator(9),
        target_acceptance=target,
    )
    assert abs(float(chain.acceptance_rate.mean()) - target) < 0.03


def test_step_size_is_frozen_after_warm_up():
    """Every step after the warm-up has the same size, the one reported; in it, sizes vary."""
    sizes = []
    kernel = mala(TARGET, 0.1)

    def step(state, noise, step_size):
        sizes.append(float(step_size))
        return kernel.step(state, noise, step_size)

    chain = sample(
        kernel._replace(step=step),
        start(),
        30,
        warmup=50,
        generator=generator(),
        target_acceptance=0.574,
    )
    assert len(sizes) == 80
    assert len(set(sizes[:50])) == 50
    assert set(sizes[50:]) == {chain.step_size}


def averaged(first, target, acceptance):
    """Dual averaging by the paper (Hoffman & Gelman 2014, algorithm 5): tries, and their mean."""
    tries, mean, shortfall = [first], 0.0, 0.0
    for t, rate in enumerate(acceptance, 1):
        shortfall += (target - rate - shortfall) / (t + 10)
        tries.append(10 * first * math.exp(-(t**0.5) / 0.05 * shortfall))
        mean += t**-0.75 * (math.log(tries[-1]) - mean)
    return tries, math.exp(mean)


def test_the_step_that_is_frozen_is_the_average_of_the_tries():
    """Not the last try, which is as noisy as one step's acceptance: here it is 1 % off or more."""
    kernel, seen = mala(TARGET, 0.1), []

    def step(state, noise, step_size):
        state, probability = kernel.step(state, noise, step_size)
        seen.append((float(step_size), float(probability.mean())))
        return state, probability

    chain = sample(
        kernel._replace(step=step),
        start(),
        1,
        warmup=60,
        generator=generator(),
        target_acceptance=0.574,
    )
    tries, frozen = averaged(0.1, 0.574, [rate for _, rate in seen[:60]])
    assert [size for size, _ in seen[:60]] == pytest.approx(tries[:60], rel=1e-5)
    assert chain.step_size == pytest.approx(frozen, rel=1e-5)
    assert abs(math.log(frozen / tries[-1])) > 0.01


def test_without_a_target_the_step_is_as_given():
    chain = sample(mala(TARGET, 0.3), start(), 5, warmup=5, generator=generator())
    assert chain.step_size == 0.3
    assert sample(independence(TARGET, WIDE), start(), 2, generator=generator()).step_size is None


# Compilation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_compiled_chain_is_the_same_chain(name):
    """One graph, the same noise, the same numbers to rounding: so the law is the same."""
    kernel, x0 = kernels()[name], start()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # the compiler's own
        one = sample(kernel, x0, 45, warmup=20, thin=3, generator=generator(2), compile=True)
    two = sample(kernel, x0, 45, warmup=20, thin=3, generator=generator(2))
    assert one.compile_seconds > 0 and two.compile_seconds == 0
    assert torch.get_num_threads() == 1
    torch.testing.assert_close(one.samples, two.samples, rtol=0, atol=1e-9)
    torch.testing.assert_close(one.energy, two.energy, rtol=0, atol=1e-9)
    torch.testing.assert_close(one.acceptance_rate, two.acceptance_rate, rtol=0, atol=1e-9)


def test_compiled_gradient_by_autograd():
    """An energy without analytic gradient, on matrices: differentiated inside the graph."""

    def energy(x):
        return (0.25 * x.pow(4) + x.cos()).sum((1, 2))

    kernel, x0 = mala(energy, 0.2), torch.zeros(10, 2, 3, dtype=torch.float64)
    one = sample(kernel, x0, 30, generator=generator(2), compile=True)
    two = sample(kernel, x0, 30, generator=generator(2))
    assert one.compile_seconds > 0
    torch.testing.assert_close(one.samples, two.samples, rtol=0, atol=1e-9)
    again = sample(kernel, x0, 30, generator=generator(3), compile=True)
    assert again.compile_seconds == 0  # same kernel and shapes: the graph is kept


def count(state, noise, step_size):
    """A kernel without chance: every step adds one to x, and its energy is the sum."""
    x = state.x + 1 + 0 * noise[0]
    return type(state)(x, x.sum(1)), torch.ones_like(state.energy)


@pytest.mark.parametrize(
    ("n", "n_steps", "warmup", "thin"), [(203, 53, 5, 1), (203, 53, 0, 3), (203, 90, 7, 25)]
)
def test_tiles_of_chains_come_together_again(two_threads, n, n_steps, warmup, thin):
    """With many chains the graph runs on tiles, here two of 102, of which one chain is filled
    in. Draw k of every chain is its start plus warmup + (k + 1) thin steps, in its place."""
    kernel = random_walk(TARGET, 1.0)._replace(step=functools.partial(count))
    x0 = start(n)
    chain = sample(
        kernel, x0, n_steps, warmup=warmup, thin=thin, generator=generator(2), compile=True
    )
    assert chain.compile_seconds > 0
    assert torch.get_num_threads() == 2
    steps = warmup + thin * torch.arange(1, n_steps // thin + 1, dtype=torch.float64)
    torch.testing.assert_close(chain.samples, x0 + steps[:, None, None])
    torch.testing.assert_close(chain.energy, (x0 + steps[:, None, None]).sum(2))
    assert torch.equal(chain.acceptance_rate, torch.ones(n, dtype=torch.float64))


@pytest.mark.parametrize(
    "make",
    [lambda e: mala(e, 0.4), lambda e: parallel_tempering(e, 0.4, (1.0, 0.7))],
    ids=["mala", "tempering"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["32", "64"])
def test_tiles_keep_the_law(two_threads, make, dtype):
    """Noise of their own: 4,000 chains that start in the law are in it after 60 steps, chains
    of different tiles are independent, and the same seed gives the same draws."""
    law = laws.gaussian(10, dtype)
    x0 = law.draw(4000, 11)
    one, two = (
        sample(make(law.energy), x0, 60, thin=60, generator=generator(4), compile=True).samples[0]
        for _ in range(2)
    )
    assert laws.smallest(law.scores(one)) > laws.FLOOR
    assert torch.equal(one, two)
    half = torch.corrcoef(torch.stack([one[:2000].flatten(), one[2000:].flatten()]).double())
    assert abs(float(half[0, 1])) < 5 / 20_000**0.5  # a correlation of 20,000 pairs; 6e-7


def test_one_tile_that_fails_stops_the_run(two_threads):
    """An error on the way, a full disk or an interrupt, is raised; no thread goes on alone."""
    kernel = random_walk(TARGET, 1.0)._replace(step=functools.partial(count))
    draws = 0

    def draw(n_steps, x, generator, out=None):
        nonlocal draws
        draws += 1
        if draws == 4:
            raise OSError("no space left")
        return kernel.draw(n_steps, x, generator, out)

    broken = kernel._replace(draw=draw)
    with pytest.raises(OSError, match="no space left"):
        sample(broken, start(203), 40_000, thin=40_000, generator=generator(2), compile=True)


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def in_numpy(x):
    """N(0, I) through numpy, for kernels without gradient."""
    return torch.as_tensor(0.5 * np.square(x.numpy()).sum(1))


def with_item(x):
    """N(0, I), after a look at a number of its batch."""
    return 0.5 * x.square().sum(1) + (0.0 if x.sum().item() < 1e9 else 1.0)


@pytest.mark.parametrize(
    "kernel", [random_walk(with_item, 1.0), mala(with_item, 0.5)], ids=["value", "gradient"]
)
def test_a_refused_energy_goes_on_without_compiling(kernel):
    """A warning names the kernel; the chain is the one without compile, bit by bit."""
    with pytest.warns(RuntimeWarning, match=f"compile: goes on without.*{kernel.name}"):
        one = sample(kernel, start(), 30, generator=generator(2), compile=True)
    two = sample(kernel, start(), 30, generator=generator(2))
    assert torch.equal(one.samples, two.samples)


def test_an_energy_in_numpy_runs():
    """Any callable is an energy: here one that leaves torch altogether."""
    chain = sample(random_walk(in_numpy, 1.0), start(), 30, generator=generator(2))
    torch_chain = sample(random_walk(TARGET, 1.0), start(), 30, generator=generator(2))
    torch.testing.assert_close(chain.samples, torch_chain.samples)


# Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1", None, [0.1]])
@pytest.mark.parametrize(
    "make",
    [
        lambda h: random_walk(TARGET, h),
        lambda h: ula(TARGET, h),
        lambda h: mala(TARGET, h),
        lambda h: hmc(TARGET, h, 3),
        lambda h: kinetic_langevin(TARGET, h),
        lambda h: ex2mcmc(TARGET, WIDE, h, 3),
        lambda h: parallel_tempering(TARGET, h, (1.0, 0.5)),
    ],
    ids=["random_walk", "ula", "mala", "hmc", "kinetic", "ex2mcmc", "tempering"],
)
def test_a_bad_step_size_is_named(make, value):
    with pytest.raises(ValueError, match="step_size: expected a number > 0"):
        make(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hmc(TARGET, 0.1, 0), "n_leapfrog: expected an integer >= 1; got 0"),
        (lambda: hmc(TARGET, 0.1, 2.0), "n_leapfrog: expected an integer"),
        (lambda: hmc(TARGET, 0.1, True), "n_leapfrog: expected an integer"),
        (lambda: hmc(TARGET, 0.1, 2, mass=0.0), "mass: expected > 0"),
        (lambda: hmc(TARGET, 0.1, 2, mass=math.nan), "mass: expected > 0"),
        (lambda: hmc(TARGET, 0.1, 2, mass=torch.tensor([1.0, -1.0])), "mass: expected > 0"),
        (lambda: hmc(TARGET, 0.1, 2, mass=math.inf), "mass: expected > 0"),
        (lambda: kinetic_langevin(TARGET, 0.1, 0.0), "friction: expected a number > 0"),
        (lambda: kinetic_langevin(TARGET, 0.1, math.nan), "friction: expected a number > 0"),
        (lambda: isir(TARGET, WIDE, 0), "n_proposals: expected an integer >= 1"),
        (lambda: ex2mcmc(TARGET, WIDE, 0.1, 0), "n_proposals: expected an integer >= 1"),
        (lambda: ex2mcmc(TARGET, WIDE, 0.1, 1, n_local=0), "n_local: expected an integer >= 1"),
        (lambda: parallel_tempering(TARGET, 0.1, (1.0,)), "betas: expected"),
        (lambda: parallel_tempering(TARGET, 0.1, (0.9, 0.5)), "betas: expected"),
        (lambda: parallel_tempering(TARGET, 0.1, (1.0, 0.5, 0.5)), "betas: expected"),
        (lambda: parallel_tempering(TARGET, 0.1, (1.0, 0.0)), "betas: expected"),
        (lambda: parallel_tempering(TARGET, 0.1, (1.0, math.nan)), "betas: expected"),
    ],
)
def test_a_bad_kernel_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


BAD_RUNS = [
    ({"n_steps": 0}, "n_steps: expected an integer >= 1; got 0"),
    ({"n_steps": -3}, "n_steps: expected an integer"),
    ({"n_steps": 10.0}, "n_steps: expected an integer"),
    ({"n_steps": True}, "n_steps: expected an integer"),
    ({"n_steps": "10"}, "n_steps: expected an integer"),
    ({"warmup": -1}, "warmup: expected an integer >= 0"),
    ({"warmup": 1.5}, "warmup: expected an integer"),
    ({"thin": 0}, "thin: expected an integer >= 1"),
    ({"thin": 11}, "thin: expected at most n_steps = 10"),
    ({"x0": torch.zeros(0, 2)}, "x0: expected one chain or more"),
    ({"x0": torch.zeros(3, 0)}, "x0: expected one chain or more"),
    ({"x0": torch.zeros(3, 2, dtype=torch.long)}, "x0: expected a float tensor"),
    ({"x0": torch.tensor(1.0)}, "x0: expected a float tensor"),
    ({"x0": [[0.0, 0.0]]}, "x0: expected a float tensor"),
    ({"x0": np.zeros((3, 2))}, "x0: expected a float tensor"),
    ({"x0": torch.tensor([[0.0, math.nan]])}, "x0: expected finite numbers"),
    ({"x0": torch.tensor([[0.0, math.inf]])}, "x0: expected finite numbers"),
    ({"generator": None}, "generator: expected a torch.Generator"),
    ({"generator": 0}, "generator: expected a torch.Generator"),
    ({"target_acceptance": 0.0, "warmup": 5}, "target_acceptance: expected a number in"),
    ({"target_acceptance": 1.5, "warmup": 5}, "target_acceptance: expected a number in"),
    ({"target_acceptance": math.nan, "warmup": 5}, "target_acceptance: expected a number in"),
    ({"target_acceptance": True, "warmup": 5}, "target_acceptance: expected a number in"),
    ({"target_acceptance": 0.6}, "warmup: expected >= 1"),
]


@pytest.mark.parametrize(("changed", "message"), BAD_RUNS)
def test_a_bad_run_is_named_before_the_first_step(changed, message):
    kernel = mala(TARGET, 0.5)
    arguments = {"x0": start(3), "n_steps": 10, "generator": generator()} | changed
    with pytest.raises(ValueError, match=message):
        sample(stepless(kernel), **arguments)


def stepless(kernel):
    def step(state, noise, step_size):
        raise AssertionError("a step was made")

    return kernel._replace(step=step)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (lambda x: x.square(), "energy: expected shape"),
        (lambda x: x.square().sum(1, keepdim=True), "energy: expected shape"),
        (lambda x: x.square().sum(), "energy: expected shape"),
        (lambda x: float(len(x)), "energy: expected shape"),
        (lambda x: x[:, 0] * math.nan, "energy: is NaN"),
        (lambda x: x.square().sum(1) + math.inf, "x0: its energy is not finite"),
        (lambda x: x.square().sum(1).long(), "energy: expected (floating|one that depends)"),
    ],
    ids=["per coordinate", "column", "total", "number", "nan", "outside", "integers"],
)
def test_a_bad_energy_is_named_before_the_first_step(name, energy, message):
    with pytest.raises(ValueError, match=message):
        sample(stepless(kernels(energy)[name]), start(3), 5, generator=generator())


@pytest.mark.parametrize("name", ["ula", "mala", "hmc", "kinetic_langevin"])
def test_an_energy_without_gradient_is_named(name):
    with pytest.raises(ValueError, match="energy: expected one that depends on x differentiably"):
        sample(stepless(kernels(in_numpy_detached)[name]), start(3), 5, generator=generator())


def in_numpy_detached(x):
    return torch.as_tensor(0.5 * np.square(x.detach().numpy()).sum(1))


@pytest.mark.parametrize("name", ["ula", "kinetic_langevin", "independence", "isir"])
def test_no_acceptance_to_aim_at_is_named(name):
    """Unadjusted kernels accept all; global ones have no step. i-SIR's is no acceptance at all."""
    with pytest.raises(ValueError, match=r"target_acceptance: .* has no step size"):
        sample(
            stepless(kernels()[name]),
            start(3),
            5,
            warmup=5,
            generator=generator(),
            target_acceptance=0.5,
        )


def test_a_start_outside_a_wall_is_named():
    box = energies.Box(torch.zeros(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="x0: its energy is not finite"):
        sample(
            stepless(mala(box, 0.1)),
            torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64),
            5,
            generator=generator(),
        )


def test_a_generator_on_another_device_is_named():
    """Where there is no GPU its generator's device is played; the check reads nothing else."""

    class Elsewhere(torch.Generator):
        device = torch.device("cuda")

    with pytest.raises(ValueError, match="generator: expected one on cpu, as x0; it is on cuda"):
        sample(stepless(mala(TARGET, 0.5)), start(3), 5, generator=Elsewhere())


# Diagnostics -----------------------------------------------------------------------------------


def autoregression(rho, n_draws, n_chains, seed=0):
    """x_t = rho x_{t-1} + sqrt(1 - rho^2) xi from stationarity, as a chain of `sample`.

    ULA on N(0, 1) is one, with rho = 1 - h / 2; its scale does not matter here.
    """
    energy = laws.gaussian(1).energy
    x0 = energy.sample(n_chains, generator(100 + seed))
    return sample(ula(energy, 2 * (1 - rho)), x0, n_draws, warmup=50, generator=generator(seed))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_effective_draws_of_an_autoregression(rho):
    """n (1 - rho) / (1 + rho), to 15 %: the estimate's sd over seeds is 2 to 4 % at this length."""
    chain = autoregression(rho, 4_000, 8)
    found = diagnose(chain)
    expected = 32_000 * (1 - rho) / (1 + rho)
    assert float(found.ess[0]) == pytest.approx(expected, rel=0.15)
    assert float(found.rhat[0]) < 1.01
    assert found.ess.shape == found.ess_tail.shape == found.rhat.shape == (1,)


def test_chains_apart_are_flagged():
    """One chain of four shifted by two sd: R-hat far above 1.01 and few effective draws."""
    chain = autoregression(0.5, 1_000, 4)
    samples = chain.samples.clone()
    samples[:, 0] += 2
    found = diagnose(dataclasses.replace(chain, samples=samples))
    assert float(found.rhat[0]) > 1.2
    assert float(found.ess[0]) < 100


def test_diagnostics_keep_the_event():
    x0 = torch.zeros(4, 2, 3, dtype=torch.float64)
    kernel = random_walk(lambda x: 0.5 * x.square().sum((1, 2)), 0.5)
    assert diagnose(sample(kernel, x0, 50, generator=generator())).rhat.shape == (2, 3)


@pytest.mark.parametrize(("n_draws", "n_chains"), [(3, 4), (100, 1)])
def test_too_little_to_diagnose_is_named(n_draws, n_chains):
    with pytest.raises(ValueError, match="chain: expected 4 draws of 2 chains or more"):
        diagnose(autoregression(0.5, n_draws, n_chains))
