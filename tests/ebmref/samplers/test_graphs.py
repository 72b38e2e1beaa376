"""A compiled graph is of this very energy and step, now; and it keeps nothing alive.

The compiler's front end alone makes the graphs here, which is what guards them; `test_chain` has
them whole.
"""

import dataclasses
import functools
import gc
import os
import subprocess
import sys
import weakref

import pytest
import torch
from laws import generator, one_thread  # noqa: F401

from ebmref.samplers import graphs, hmc, mala, parallel_tempering, random_walk, sample

DOUBLE = {"dtype": torch.float64}


@pytest.fixture(autouse=True)
def front_end_alone(monkeypatch):
    full = torch.compile

    def quick(function, fullgraph, options=None, dynamic=None):
        return full(function, fullgraph=fullgraph, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch, "compile", quick)
    graphs._graphs.clear()
    yield
    graphs._graphs.clear()


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def start(n=6):
    return torch.randn(n, 3, generator=generator(1), **DOUBLE)


def run(kernel, compile=True, x0=None, n_steps=40):
    x0 = start() if x0 is None else x0
    return sample(kernel, x0, n_steps, generator=generator(2), compile=compile)


def assert_own(kernel, **arguments):
    """The compiled chain is the kernel's own; how long the compiler took."""
    one, two = run(kernel, **arguments), run(kernel, compile=False, **arguments)
    torch.testing.assert_close(one.samples, two.samples, rtol=0, atol=1e-9)
    torch.testing.assert_close(one.energy, two.energy, rtol=0, atol=1e-9)
    return one.compile_seconds


# What may change behind the compiler's back -----------------------------------------------------


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(3, 4)
        self.outer = torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Dropout(0.0))
        self.register_buffer("weight", torch.ones(()))
        self.options = {"rate": 1.0}
        self.double()

    def forward(self, x):
        rate = self.options["rate"] * float(os.environ.get("EBMREF_TEST_RATE", "1"))
        if self.training:
            rate = 2 * rate
        hidden = self.outer(self.inner(x)).square().sum(1)
        return self.weight * hidden + 0.5 * rate * x.square().sum(1)


def doubled(module, arguments, out):
    return 2 * out


CHANGES = {
    "attribute": lambda net, patch: net.options.update(rate=9.0),
    "flag": lambda net, patch: net.eval(),
    "buffer": lambda net, patch: net.weight.fill_(20.0),
    "new buffer": lambda net, patch: setattr(net, "weight", torch.tensor(20.0, **DOUBLE)),
    "parameter": lambda net, patch: net.inner.weight.data.mul_(4),
    "layer": lambda net, patch: setattr(net, "outer", torch.nn.Softplus()),
    "hook inside": lambda net, patch: net.inner.register_forward_hook(doubled),
    "hook of all": lambda net, patch: torch.nn.modules.module.register_module_forward_hook(doubled),
    "class": lambda net, patch: patch.setattr(
        Net, "forward", lambda self, x: 8 * x.square().sum(1)
    ),
    "environment": lambda net, patch: patch.setenv("EBMREF_TEST_RATE", "9"),
}


def short(kernel):
    """With one step an iteration: ten times less to compile."""
    return kernel._replace(n_gradients=10)


@pytest.mark.filterwarnings("default:compile. goes on without:RuntimeWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_an_energy_that_changes_has_a_new_graph(change, monkeypatch):
    """Whatever of it changes after compiling: the next chain is of the energy as it is now, by a
    graph of it or, where the compiler refuses what is new, by none."""
    torch.manual_seed(0)
    net = Net()
    kernel = short(random_walk(net, 0.5))
    assert assert_own(kernel) > 0
    before = run(kernel, compile=False)
    hook = CHANGES[change](net, monkeypatch)
    try:
        after = run(kernel, compile=False)
        assert not torch.allclose(before.samples, after.samples)
        # Parameters and buffers are read at each call; the compiler does not take hooks of all.
        took = assert_own(kernel)
        if change != "new buffer":  # for which either is right
            assert (took > 0) == (change not in ("buffer", "parameter", "hook of all"))
    finally:
        if hasattr(hook, "remove"):
            hook.remove()


def test_autocast_has_a_graph_of_its_own(two_threads):
    """It is a thread's own affair, so that all chains stay in this one."""
    torch.manual_seed(0)
    net, x0 = torch.nn.Linear(3, 1), torch.randn(128, 3, generator=generator(1))
    kernel = short(random_walk(lambda x: net(x)[:, 0] + x.square().sum(1), 0.5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, two = (run(kernel, compile, x0, 20) for compile in (True, False))
    assert torch.equal(one.samples, two.samples)
    plain = sample(kernel, x0[:6], 20, generator=generator(2), compile=True)
    torch.testing.assert_close(plain.energy, kernel.energy(plain.samples.flatten(0, 1)).view(20, 6))


@dataclasses.dataclass(frozen=True)
class Named:
    name: str
    rate: float = dataclasses.field(compare=False)

    def __call__(self, x):
        return 0.5 * self.rate * x.square().sum(1)

    def other(self, x):
        return self.rate * x.abs().sum(1)


@dataclasses.dataclass(slots=True)
class Slotted:
    """Neither hashable nor to be referred to weakly."""

    rate: float

    def __call__(self, x):
        return 0.5 * self.rate * x.square().sum(1)


@pytest.mark.parametrize("make", [lambda rate: Named("e", rate), Slotted])
def test_equal_energies_are_not_one(make):
    one, two = make(1.0), make(30.0)
    assert_own(short(random_walk(one, 0.5)))
    assert_own(short(random_walk(two, 0.5)))
    assert len(graphs._graphs) == 2


def test_a_kernel_made_anew_has_its_graph():
    """Of the same energy, a method of an object too, whatever the step size."""
    energy = Named("e", 2.0)
    for part in (energy, energy.other):
        assert assert_own(short(random_walk(part, 0.5))) > 0
        assert assert_own(short(random_walk(part, 0.3))) == 0
    assert assert_own(hmc(energy, 0.1, 3)) > 0
    assert assert_own(hmc(energy, 0.1, 2)) > 0


# Steps of one's own -------------------------------------------------------------------------------


def shift(state, noise, step_size, *, by):
    x = state.x + by + 0 * noise[0]
    return type(state)(x, x.sum(1)), torch.ones_like(state.energy)


def of(step):
    return short(random_walk(lambda x: x.sum(1), 1.0))._replace(step=step)


@pytest.mark.parametrize("values", [(1.0, 5.0), (1, True), (0.5, torch.tensor(0.25, **DOUBLE))])
def test_keywords_are_part_of_a_step(values):
    for by in values:
        chain = run(of(functools.partial(shift, by=by)), n_steps=20)
        torch.testing.assert_close(chain.samples[-1], start() + 20 * float(by))


class Shift:
    def __init__(self, by):
        self.by = by

    def __call__(self, state, noise, step_size):
        return shift(state, noise, step_size, by=self.by)

    def step(self, state, noise, step_size):
        return shift(state, noise, step_size, by=2 * self.by)


def closure(by):
    def step(state, noise, step_size):
        return shift(state, noise, step_size, by=by)

    return step


@pytest.mark.parametrize(
    ("make", "factor"),
    [(closure, 1), (Shift, 1), (lambda by: Shift(by).step, 2)],
    ids=["function", "object", "method"],
)
def test_any_callable_is_a_step(make, factor):
    for by in (1.0, 3.0):
        chain = run(of(make(by)), n_steps=20)
        torch.testing.assert_close(chain.samples[-1], start() + 20 * by * factor)


def test_a_step_around_another():
    inner = short(mala(lambda x: 0.5 * x.square().sum(1), 0.3))

    def step(state, noise, size):
        return inner.step(state, noise, 0.5 * size)

    assert_own(inner._replace(step=step))


# What is kept -----------------------------------------------------------------------------


class Weighty:
    def __init__(self):
        self.net = torch.nn.Linear(3, 3).double()

    def __call__(self, x):
        return self.net(x).square().sum(1)


@pytest.mark.parametrize("make", [lambda e: random_walk(e, 0.5), lambda e: mala(e, 0.1)])
def test_an_energy_is_not_kept_alive(make):
    """It goes, its network with it, and so does the graph that was made of it."""
    energy = Weighty()
    run(short(make(energy)))
    assert len(graphs._graphs) == 1
    alive = weakref.ref(energy.net)
    del energy
    gc.collect()
    assert alive() is None
    assert not graphs._graphs


# Tiles -----------------------------------------------------------------------------


def by_halves(x):
    """Two models side by side, each with its half of the batch."""
    mean = torch.tensor([-3.0, 3.0], dtype=x.dtype)[:, None, None]
    return 0.5 * (x.unflatten(0, (2, -1)) - mean).square().sum(-1).flatten()


def by_place(x):
    return 0.5 * x.square().sum(1) * (1 + torch.arange(len(x), dtype=x.dtype))


def by_batch(x):
    return 0.5 * (x - x.mean(0)).square().sum(1) + 0.01 * x.square().sum(1)


def by_hundreds(x):
    return 0.5 * x.square().sum(1) * (1 + torch.arange(len(x), dtype=x.dtype) // 100)


def of_this_length(x):
    return 0.5 * x.square().sum(1) * torch.linspace(1, 2, 128, dtype=x.dtype)


@pytest.mark.parametrize("make", [lambda e: random_walk(e, 0.5), lambda e: mala(e, 0.1)])
@pytest.mark.parametrize("energy", [by_halves, by_place, by_batch, of_this_length, by_hundreds])
def test_rows_that_are_not_alike_stay_together(two_threads, energy, make):
    """From one point for all, where values alone would not tell: the chain of one tile."""
    assert_own(short(make(energy)), x0=torch.zeros(128, 3, **DOUBLE))


def test_rows_that_are_alike_are_tiled(two_threads):
    """So that the test above is of the test call: here the noise is another."""
    kernel = short(random_walk(lambda x: 0.5 * x.square().sum(1), 0.5))
    x0 = torch.zeros(128, 3, **DOUBLE)
    one, two = (run(kernel, compile, x0) for compile in (True, False))
    assert not torch.allclose(one.samples, two.samples)


def test_replicas_in_tiles(two_threads):
    kernel = short(parallel_tempering(lambda x: 0.5 * x.square().sum(1), 0.3, (1.0, 0.5)))
    chain = run(kernel, x0=torch.zeros(128, 3, **DOUBLE), n_steps=200)
    assert float(chain.samples[50:].var()) == pytest.approx(1, abs=0.1)


FORK = """
import multiprocessing, os, torch
full = torch.compile
torch.compile = lambda function, **_: full(function, fullgraph=True, backend="eager")
from ebmref import samplers
torch.set_num_threads(2)
def energy(x):
    return 0.5 * x.square().sum(1)
def run():
    samplers.sample(samplers.mala(energy, 0.2), torch.zeros(128, 1), 50,
                    generator=torch.Generator(), compile=True)
run()
child = multiprocessing.get_context("fork").Process(target=run)
child.start()
child.join(60)
print(child.exitcode)
child.kill()
"""


def test_a_fork_has_threads_of_its_own():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
