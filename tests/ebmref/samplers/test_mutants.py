"""Deliberately broken samplers do not get past the tests that the right ones pass.

Each algorithm is written out once more, as the textbook has it, with one line that can be
broken on request. Unbroken it passes the test of `test_kernels` or `test_annealed`, as the
kernel of `ebmref.samplers` does; broken it fails by a factor of a million or more. So what the
suite says of the right kernels is said by tests that would have seen these faults.
"""

import math
from typing import NamedTuple

import laws
import pytest
import torch
from laws import (
    FLOOR,
    LAWS,
    generator,
    one_thread,  # noqa: F401
    smallest,
    stationary,
    steps,
)
from torch import Tensor

from ebmref import energies, samplers
from ebmref.energies import value_and_gradient

# How far below FLOOR a mutant must fall.
MARGIN = 1e-6


class State(NamedTuple):
    """Chains of any of the kernels below; `memory` is a velocity or a log weight."""

    x: Tensor
    energy: Tensor
    gradient: Tensor
    memory: Tensor


def make(right, energy, step, *, memory=None):
    """A kernel with the step below in place of the right one's, run by the same `sample`.

    Noise: two normal tensors like x and two uniform numbers a chain.
    """

    def init(x, g):
        value, gradient = value_and_gradient(energy, x)
        kept = torch.zeros_like(x) if memory is None else memory(x, value, g)
        return State(x, value, gradient, kept)

    def draw(n_steps, x, g, out=None):
        shape = (n_steps, *x.shape)
        normal = [torch.randn(shape, generator=g, dtype=x.dtype) for _ in range(2)]
        uniform = [torch.rand(shape[:2], generator=g, dtype=x.dtype) for _ in range(2)]
        return *normal, *uniform

    return right._replace(init=init, draw=draw, step=step)


def choose(accept, new, old):
    return State(
        *(
            torch.where(accept.view(-1, *(1,) * (a.dim() - 1)), a, b)
            for a, b in zip(new, old, strict=True)
        )
    )


def accepted(log_ratio, u):
    return log_ratio >= torch.log1p(-u)


def total(x):
    return x.sum(1)


# One algorithm each, with its flaws ---------------------------------------------------------------


def random_walk(law, d, flaw):
    right = samplers.random_walk(law.energy, law.scale if law.wall else 2 * law.scale / d**0.5)

    def step(state, noise, size):
        xi, _, u, _ = noise
        y = state.x + size * xi
        if flaw == "clamped to the support":
            y = y.clamp(-1, 1)
        value = law.energy(y)
        log_ratio = state.energy - value
        if flaw == "ratio upside down":
            log_ratio = torch.where(value.isfinite(), -log_ratio, -math.inf)
        accept = accepted(log_ratio, u)
        new = State(y, value, state.gradient, state.memory)
        after = choose(accept, new, state)
        if flaw == "energy of the refused kept":
            after = after._replace(energy=value)
        return after, accept.to(value.dtype)

    return make(right, law.energy, step)


def independence(law, d, flaw):
    right = samplers.independence(law.energy, law.proposal)

    def weight(x, value, g=None):
        return -value - law.proposal.log_prob(x)

    def step(state, noise, size):
        y = law.proposal.sample(len(state.x), noise_source)
        u = noise[2]
        value = law.energy(y)
        new = State(y, value, state.gradient, weight(y, value))
        log_ratio = new.memory - state.memory
        if flaw == "proposal's density left out":
            log_ratio = state.energy - value
        if flaw == "weights upside down":
            log_ratio = torch.where(value.isfinite(), -log_ratio, -math.inf)
        accept = accepted(log_ratio, u)
        return choose(accept, new, state), accept.to(value.dtype)

    noise_source = generator(77)
    return make(right, law.energy, step, memory=weight)


def langevin_step(energy, state, xi, u, size, flaw=None):
    """One step of MALA."""
    y = state.x - 0.5 * size * state.gradient + size**0.5 * xi
    value, gradient = value_and_gradient(energy, y)
    there = total((y - state.x + 0.5 * size * state.gradient).square())
    back = total((state.x - y + 0.5 * size * gradient).square())
    width = 4 if flaw == "wrong factor in the proposals' ratio" else 2
    ratio = 0 if flaw == "proposals' ratio left out" else (there - back) / (width * size)
    if flaw == "proposals' ratio upside down":
        ratio = -ratio
    accept = accepted(state.energy - value + ratio, u)
    after = choose(accept, State(y, value, gradient, state.memory), state)
    if flaw == "gradient of the refused kept":
        after = after._replace(gradient=gradient)
    return after, accept


def mala(law, d, flaw):
    right = samplers.mala(law.energy, (2 * law.scale) ** 2 / d ** (1 / 3))

    def step(state, noise, size):
        after, accept = langevin_step(law.energy, state, noise[0], noise[2], size, flaw)
        return after, accept.to(size.dtype)

    return make(right, law.energy, step)


def hmc(law, d, flaw):
    mass = torch.logspace(-1, 1, d, 2, dtype=torch.float64)
    n_leapfrog, size = 3, 1.2 * law.scale / d**0.25
    right = samplers.hmc(law.energy, size, n_leapfrog, mass=mass)

    def step(state, noise, size):
        start = momentum = noise[0] if flaw == "momentum without mass" else mass**0.5 * noise[0]
        y, gradient = state.x, state.gradient
        for k in range(n_leapfrog):
            momentum = momentum - 0.5 * size * gradient
            y = y + size * momentum / mass
            value, gradient = value_and_gradient(law.energy, y)
            if not (flaw == "last half kick left out" and k == n_leapfrog - 1):
                momentum = momentum - 0.5 * size * gradient
        kinetic = 0.5 * total(
            (start.square() - momentum.square())
            / (1 if flaw == "kinetic energy without mass" else mass)
        )
        if flaw == "kinetic energy left out":
            kinetic = 0
        accept = accepted(state.energy - value + kinetic, noise[2])
        after = choose(accept, State(y, value, gradient, state.memory), state)
        if flaw == "gradient of the refused kept":
            after = after._replace(gradient=gradient)
        if flaw == "energy of the refused kept":
            after = after._replace(energy=value)
        return after, accept.to(size.dtype)

    return make(right, law.energy, step)


def persistent_hmc(law, d, flaw):
    """HMC that keeps most of its momentum: here turning it round at a refusal is needed."""
    size = 2.2 * law.scale / d**0.25
    right = samplers.hmc(law.energy, size, 1)

    def step(state, noise, size):
        start = 0.95 * state.memory + (1 - 0.95**2) ** 0.5 * noise[0]
        momentum = start - 0.5 * size * state.gradient
        y = state.x + size * momentum
        value, gradient = value_and_gradient(law.energy, y)
        momentum = momentum - 0.5 * size * gradient
        kinetic = 0.5 * total(start.square() - momentum.square())
        accept = accepted(state.energy - value + kinetic, noise[2])
        turned = start if flaw == "momentum not turned at a refusal" else -start
        new = State(y, value, gradient, momentum)
        return choose(accept, new, state._replace(memory=turned)), accept.to(size.dtype)

    def fresh(x, value, g):
        return torch.randn(x.shape, generator=g, dtype=x.dtype)

    return make(right, law.energy, step, memory=fresh)


def isir(law, d, flaw, n_proposals=3):
    right = samplers.isir(law.energy, law.proposal, n_proposals)

    def step(state, noise, size):
        return global_move(law, state, noise[2], noise_source, n_proposals, flaw), noise[2]

    noise_source = generator(78)
    return make(right, law.energy, step, memory=lambda x, value, g: weight_of(law, x, value))


def weight_of(law, x, value):
    return -value - law.proposal.log_prob(x)


def global_move(law, state, u, g, n_proposals, flaw=None):
    """One step of i-SIR; the gradient is not kept up."""
    n, d = state.x.shape
    y = law.proposal.sample(n * n_proposals, g)
    value = law.energy(y)
    log_weight = -value if flaw == "proposal's density left out" else weight_of(law, y, value)
    value, log_weight = value.view(n, -1), log_weight.view(n, -1)
    points = torch.cat([state.x[:, None], y.view(n, -1, d)], 1)
    kept = -state.energy if flaw == "proposal's density left out" else state.memory
    if flaw == "present point left out":
        kept = torch.full_like(kept, -math.inf)
    log_weight = torch.cat([kept[:, None], log_weight], 1)
    value = torch.cat([state.energy[:, None], value], 1)
    index = (log_weight.softmax(1).cumsum(1) <= u[:, None]).sum(1).clamp(max=n_proposals)
    rows = torch.arange(n)
    return state._replace(
        x=points[rows, index], energy=value[rows, index], memory=log_weight[rows, index]
    )


def ex2mcmc(law, d, flaw):
    wide = energies.Gaussian(law.energy.mean, 2 * law.energy.covariance)
    law = law._replace(proposal=wide)
    right = samplers.ex2mcmc(law.energy, wide, 0.3 * law.scale**2, 2)

    def step(state, noise, size):
        state = global_move(law, state, noise[3], noise_source, 2)
        if flaw != "gradient before the global move":
            state = state._replace(gradient=value_and_gradient(law.energy, state.x)[1])
        state, accept = langevin_step(law.energy, state, noise[0], noise[2], size)
        if flaw != "weight before the local move":
            state = state._replace(memory=weight_of(law, state.x, state.energy))
        return state, accept.to(size.dtype)

    noise_source = generator(79)
    return make(right, law.energy, step, memory=lambda x, value, g: weight_of(law, x, value))


BETAS = (1.0, 0.4)


class Pair(NamedTuple):
    """Two temperatures, `(n, 2, ...)`."""

    xs: Tensor
    energies: Tensor
    gradients: Tensor

    x = property(lambda self: self.xs[:, 0])
    energy = property(lambda self: self.energies[:, 0])


def parallel_tempering(law, d, flaw):
    size = law.scale**2 / d ** (1 / 3)
    right = samplers.parallel_tempering(law.energy, size, BETAS)

    def init(x, g):
        value, gradient = value_and_gradient(law.energy, x)
        return Pair(*(torch.stack([part] * 2, 1) for part in (x, value, gradient)))

    def draw(n_steps, x, g, out=None):
        n, d = x.shape
        normal = torch.randn(n_steps, n, 2, d, generator=g, dtype=x.dtype)
        return normal, torch.rand(n_steps, n, 3, generator=g, dtype=x.dtype)

    def step(state, noise, size):
        xi, u = noise
        moved = []
        for k, beta in enumerate(BETAS):
            power = beta**2 if flaw == "beta counted twice in the local move" else beta

            def tempered(x, beta=power):
                return beta * law.energy(x)

            x, value, gradient = (part[:, k] for part in state)
            here = State(x, power * value, power * gradient, x)
            after, accept = langevin_step(tempered, here, xi[:, k], u[:, k], size / beta)
            moved.append((after.x, after.energy / power, after.gradient / power))
        xs, energies, gradients = (torch.stack(part, 1) for part in zip(*moved, strict=True))
        log_ratio = (BETAS[0] - BETAS[1]) * (energies[:, 0] - energies[:, 1])
        if flaw == "swap ratio of the wrong sign":
            log_ratio = -log_ratio
        swap = accepted(log_ratio, u[:, 2])[:, None]
        xs = torch.where(swap[..., None], xs.flip(1), xs)
        gradients = torch.where(swap[..., None], gradients.flip(1), gradients)
        if flaw != "energies not swapped with the states":
            energies = torch.where(swap, energies.flip(1), energies)
        return Pair(xs, energies, gradients), accept.to(size.dtype)

    return stationary(right._replace(init=init, draw=draw, step=step), law, BETAS)


def ula(law, d, flaw):
    right = samplers.ula(law.energy, 0.5 * law.scale**2)

    def step(state, noise, size):
        spread = 0.5 * size if flaw == "noise of sqrt(step / 2)" else size
        drift = size if flaw == "drift of a whole step" else 0.5 * size
        y = state.x - drift * state.gradient + spread**0.5 * noise[0]
        return State(y, *value_and_gradient(law.energy, y), state.memory), noise[2]

    return make(right, law.energy, step)


def kinetic(law, d, flaw):
    friction = 0.3 / law.scale
    right = samplers.kinetic_langevin(
        law.energy, law.scale if law.wall else 0.6 * law.scale, friction
    )

    def step(state, noise, size):
        keep = (-friction * size).exp()
        spread = 1 - keep if flaw == "noise of sqrt(1 - keep)" else 1 - keep * keep
        velocity = state.memory - 0.5 * size * state.gradient
        y = state.x + 0.5 * size * velocity
        velocity = keep * velocity + spread**0.5 * noise[0]
        y = y + 0.5 * size * velocity
        value, gradient = value_and_gradient(law.energy, y)
        if flaw != "last half kick left out":
            velocity = velocity - 0.5 * size * gradient
        new = State(y, value, gradient, velocity)
        turned = state.memory if flaw == "velocity not turned at the wall" else -state.memory
        inside = value.isfinite()
        return choose(inside, new, state._replace(memory=turned)), inside.to(size.dtype)

    def fresh(x, value, g):
        return torch.randn(x.shape, generator=g, dtype=x.dtype)

    return make(right, law.energy, step, memory=fresh)


# algorithm, law, d, steps, flaws
FLAWED = [
    (random_walk, "correlated", 10, 40, ["ratio upside down", "energy of the refused kept"]),
    (random_walk, "box", 10, 40, ["clamped to the support", "ratio upside down"]),
    (independence, "mixture", 1, 15, ["proposal's density left out", "weights upside down"]),
    (
        mala,
        "correlated",
        10,
        40,
        [
            "proposals' ratio left out",
            "wrong factor in the proposals' ratio",
            "proposals' ratio upside down",
        ],
    ),
    (mala, "mixture", 1, 40, ["proposals' ratio left out", "gradient of the refused kept"]),
    (
        hmc,
        "correlated",
        10,
        20,
        [
            "momentum without mass",
            "kinetic energy without mass",
            "kinetic energy left out",
            "last half kick left out",
        ],
    ),
    (hmc, "mixture", 1, 40, ["gradient of the refused kept", "energy of the refused kept"]),
    (persistent_hmc, "mixture", 1, 100, ["momentum not turned at a refusal"]),
    (isir, "mixture", 10, 8, ["present point left out", "proposal's density left out"]),
    (
        ex2mcmc,
        "gaussian",
        10,
        8,
        ["weight before the local move", "gradient before the global move"],
    ),
    (
        parallel_tempering,
        "gaussian",
        1,
        30,
        [
            "swap ratio of the wrong sign",
            "energies not swapped with the states",
            "beta counted twice in the local move",
        ],
    ),
    (kinetic, "gaussian", 10, 80, ["noise of sqrt(1 - keep)", "last half kick left out"]),
    (kinetic, "box", 10, 80, ["velocity not turned at the wall"]),
]
N_CHAINS = 10_000


def p_value(algorithm, law, d, n_steps, flaw):
    """The invariance test of `test_kernels`."""
    law = LAWS[law](d)
    kernel = algorithm(law, d, flaw)
    return smallest(law.scores(steps(kernel, law.draw(N_CHAINS, seed=0), n_steps, 0)))


def name_of(value):
    return getattr(value, "__name__", None)


@pytest.mark.parametrize(
    ("algorithm", "law", "d", "n_steps"), [case[:4] for case in FLAWED], ids=name_of
)
def test_unbroken_it_passes(algorithm, law, d, n_steps):
    """Written out here without a flaw, every algorithm keeps its law: the flaws alone are seen."""
    assert p_value(algorithm, law, d, n_steps, None) > FLOOR


@pytest.mark.parametrize(
    ("algorithm", "law", "d", "n_steps", "flaw"),
    [(*case[:4], flaw) for case in FLAWED for flaw in case[4]],
    ids=name_of,
)
def test_broken_it_fails(algorithm, law, d, n_steps, flaw):
    """Exact draws are no longer exact draws after the broken kernel, beyond any doubt."""
    assert p_value(algorithm, law, d, n_steps, flaw) < FLOOR * MARGIN


@pytest.mark.parametrize("flaw", [None, "noise of sqrt(step / 2)", "drift of a whole step"])
def test_ula_against_its_own_variance(flaw):
    """N(0, 1): scaled by sqrt(1 - h / 4) the chains are standard normals, broken they are not."""
    law = laws.gaussian(1)
    x = steps(ula(law, 1, flaw), law.draw(N_CHAINS, seed=0), 60, 0)
    p = smallest(law.scores(x) * (1 - 0.5 / 4) ** 0.5)
    assert p > FLOOR if flaw is None else p < FLOOR * MARGIN


# Annealing ---------------------------------------------------------------------------------------


def annealed_log_z(target, proposal, n, n_temperatures, seed, flaw, *, resample=False):
    """log of the mean weight of n particles, by one random-walk step at each temperature."""
    g = generator(seed)
    x = proposal.sample(n, g)
    log_w, scale, before = torch.zeros(n, dtype=x.dtype), 0.0, 0.0

    def log_f(x, beta):
        return (1 - beta) * proposal.log_prob(x) - beta * target(x)

    for beta in torch.linspace(0, 1, n_temperatures + 1, dtype=x.dtype)[1:]:
        old = x

        def move(x, beta=beta):
            y = x + torch.randn(x.shape, generator=g, dtype=x.dtype)
            u = torch.rand(n, generator=g, dtype=x.dtype)
            return torch.where(accepted(log_f(y, beta) - log_f(x, beta), u)[:, None], y, x)

        if flaw == "weight taken after the move":
            x = old = move(x)
        if flaw == "weight at the new temperature":
            log_w = log_w + beta / n_temperatures * (-target(old) - proposal.log_prob(old))
        else:
            log_w = log_w + (beta - before) * (-target(old) - proposal.log_prob(old))
        if resample and beta < 1:
            if flaw != "scale forgotten at resampling":
                scale = scale + log_w.logsumexp(0) - math.log(n)
            kept = torch.multinomial(log_w.softmax(0), n, replacement=True, generator=g)
            x = x[kept]
            if flaw != "weights kept at resampling":
                log_w = torch.zeros_like(log_w)
        if flaw != "weight taken after the move":
            x = move(x)
        before = beta
    return float(log_w.logsumexp(0) - math.log(n) + scale)


@pytest.mark.parametrize(
    ("resample", "flaw"),
    [
        (False, None),
        (False, "weight taken after the move"),
        (False, "weight at the new temperature"),
        (True, None),
        (True, "scale forgotten at resampling"),
        (True, "weights kept at resampling"),
    ],
)
def test_broken_annealing_misses_log_z(resample, flaw):
    """The test of `test_annealed`: the mean of Z-hat / Z over 100 runs lies within 4 standard
    errors of one. Unbroken it does, broken it lies 10 or more away."""
    eye = torch.eye(2, dtype=torch.float64)
    target = energies.Gaussian(torch.tensor([1.0, 0.0], dtype=torch.float64), 0.5 * eye)
    proposal = energies.Gaussian(torch.zeros(2, dtype=torch.float64), 2 * eye)
    found = [
        annealed_log_z(target, proposal, 300, 8, seed, flaw, resample=resample)
        for seed in range(100)
    ]
    ratio = (torch.tensor(found, dtype=torch.float64) - target.log_z).exp()
    z = abs(float((ratio.mean() - 1) / (ratio.std() / len(ratio) ** 0.5)))
    assert z < 4 if flaw is None else z > 10
