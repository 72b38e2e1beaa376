"""Transition kernels that leave exp(-energy) invariant, or nearly (report section 2.3.2.1).

Every kernel proposes and, but for the two unadjusted ones, accepts with probability
min(1, A), where A is equation (12) with p(y) / p(x) = exp(E(x) - E(y)): the unknown Z cancels.
A kernel is four things, made by the functions below and run by `ebmref.samplers.sample`:

    init(x, generator) -> state                  a tuple of tensors with `.x` and `.energy`
    draw(n_steps, x, generator, out) -> noise    the randomness of n_steps steps, as tensors
    step(state, noise, step_size) -> state, acceptance probability (n,); step_size is 0-d
    step_size                                    or None where there is none to choose

All chains move together along the first dimension, which every tensor of a state has; what a
step does to one must not depend on its place there, as a compiled loop takes them in parts. A
proposal whose energy or gradient is not a finite number is never taken: a wall (+inf) and a
NaN are both outside the support.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ebmref.checks import positive_number, whole_number
from ebmref.energies import Energy, check_energy, matmul, value_and_gradient
from ebmref.probes import check_slope, stands_in_rows
from ebmref.samplers.noise import (
    draw_drift,
    draw_ex2,
    draw_move,
    draw_proposals,
    normal,
)


class Proposal(Protocol):
    """A law that can be drawn from and whose normalised density is known."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`(n, *event)` exact draws."""

    def log_prob(self, x: Tensor) -> Tensor:
        """`(n,)`."""


class Kernel(NamedTuple):
    """One transition, ready for `sample`; see the head of this module.

    Attributes:
        name: what made it.
        init, draw, step, step_size: as above.
        n_gradients: gradients of the energy a step, for one chain.
        n_energies: energies a step, those that come with a gradient not counted.
        n_noise: numbers of noise a step, for one number of x.
        adjusted: whether it can reject, so that an acceptance rate can be aimed at.
        energy: what it samples, for `sample` to probe at the start; None: it is taken as it is.
    """

    name: str
    init: Callable
    draw: Callable
    step: Callable
    step_size: float | None
    n_gradients: int
    n_energies: int
    n_noise: int = 1
    adjusted: bool = True
    energy: Energy | None = None


class Point(NamedTuple):
    """Where the chains of a gradient-free kernel are."""

    x: Tensor
    energy: Tensor


class Slope(NamedTuple):
    """Where the chains of a gradient-based kernel are; the gradient is kept, not redone."""

    x: Tensor
    energy: Tensor
    gradient: Tensor


# Random walk and independence Metropolis ----------------------------------------------------


def random_walk(energy: Energy, step_size: float) -> Kernel:
    """Metropolis: propose y = x + step_size * xi, xi ~ N(0, I), accept with min(1, A).

    J is symmetric, so A = exp(E(x) - E(y)). Needs no gradient.

    Args:
        energy: `(n, *event) -> (n,)`.
        step_size: standard deviation of the proposal, > 0, in units of x.
    """
    step = functools.partial(_random_walk_step, energy)
    init = functools.partial(_init_point, energy)
    step_size = positive_number("step_size", step_size)
    return Kernel("random_walk", init, draw_move, step, step_size, 0, 1, energy=energy)


def _random_walk_step(energy, state, noise, step_size):
    xi, u = noise
    x = state.x + step_size * xi
    value = energy(x)
    return metropolis(state, Point(x, value), state.energy - value, u)


def independence(energy: Energy, proposal: Proposal) -> Kernel:
    """Independence Metropolis: propose y ~ q whatever x is.

    A = w(y) / w(x) with the importance weight w = exp(-E) / q.

    Args:
        energy: `(n, *event) -> (n,)`.
        proposal: q, with `sample(n, generator)` and `log_prob(x)`; must cover the target.
    """
    return Kernel(
        "independence",
        functools.partial(_init_weighted, energy, proposal),
        functools.partial(draw_proposals, proposal, 1),
        functools.partial(_independence_step, energy),
        None,
        0,
        1,
        energy=energy,
    )


class Weighted(NamedTuple):
    """Chains that carry the log importance weight of where they are."""

    x: Tensor
    energy: Tensor
    log_weight: Tensor


def _independence_step(energy, state, noise, step_size):
    proposed, log_q, u = noise
    x, log_q = proposed[:, 0], log_q[:, 0]
    value = energy(x)
    log_weight = -value - log_q
    return metropolis(state, Weighted(x, value, log_weight), log_weight - state.log_weight, u)


# Langevin --------------------------------------------------------------------------------


def ula(energy: Energy, step_size: float) -> Kernel:
    """Unadjusted Langevin: x' = x - step_size / 2 * grad E(x) + sqrt(step_size) * xi.

    Nothing is rejected, so the law it settles in is off by O(step_size): on N(0, 1) the
    variance is 1 / (1 - step_size / 4). From step_size = 4 over the largest curvature on there is
    no such law: the chain runs away, until its energy overflows, and stays there.

    Args:
        energy: `(n, *event) -> (n,)`, differentiable.
        step_size: > 0, in units of x squared.
    """
    step = functools.partial(_ula_step, energy)
    return Kernel(
        "ula",
        functools.partial(init_slope, energy),
        draw_drift,
        step,
        positive_number("step_size", step_size),
        1,
        0,
        adjusted=False,
        energy=energy,
    )


def _ula_step(energy, state, noise, step_size):
    (xi,) = noise
    x = state.x - 0.5 * step_size * state.gradient + step_size**0.5 * xi
    return _keep_inside(state, Slope(x, *value_and_gradient(energy, x)))


def mala(energy: Energy, step_size: float) -> Kernel:
    """Metropolis-adjusted Langevin: the step of `ula` as proposal, accepted with min(1, A).

    The proposal is not symmetric, so A holds J(y, x) / J(x, y) as well; without it the
    sampler is `ula` at a higher price. Best near an acceptance of 0.57 in high dimension.

    Args:
        energy: `(n, *event) -> (n,)`, differentiable.
        step_size: > 0, in units of x squared.
    """
    step = functools.partial(_mala_step, energy)
    init = functools.partial(init_slope, energy)
    step_size = positive_number("step_size", step_size)
    return Kernel("mala", init, draw_move, step, step_size, 1, 0, energy=energy)


def _mala_step(energy, state, noise, step_size):
    xi, u = noise
    x = langevin_proposal(state.x, state.gradient, xi, step_size)
    proposed = Slope(x, *value_and_gradient(energy, x))
    back = langevin_ratio(state.gradient, proposed.gradient, xi, step_size)
    return metropolis(state, proposed, state.energy - proposed.energy + back, u)


def langevin_proposal(x, gradient, xi, step_size):
    """y = x - h/2 grad E(x) + sqrt(h) xi, with the step size h."""
    return x - 0.5 * step_size * gradient + step_size**0.5 * xi


def langevin_ratio(here, there, xi, step_size):
    """log J(y, x) - log J(x, y) `(n,)` of the Langevin proposal, for A of equation (12).

    With b the noise that would lead back it is (|xi|^2 - |b|^2) / 2, where
    b = sqrt(h)/2 s - xi and s = grad E(x) + grad E(y); multiplied out, one sum is left.
    """
    drift = step_size**0.5 * (here + there)
    return 0.5 * _sum(drift * (xi - 0.25 * drift))


def kinetic_langevin(energy: Energy, step_size: float, friction: float = 1.0) -> Kernel:
    """Underdamped Langevin by the splitting B A O A B, unit mass, one gradient a step.

    dx = v dt, dv = -grad E dt - friction v dt + sqrt(2 friction) dW. Nothing is rejected;
    the law of x is off by O(step_size^2), and exact for a Gaussian. A step that would leave
    the support turns the velocity round instead.

    Args:
        energy: `(n, *event) -> (n,)`, differentiable.
        step_size: the time step, > 0, in units of x.
        friction: > 0; large values come near `ula` with step_size**2.
    """
    friction = positive_number("friction", friction)
    return Kernel(
        "kinetic_langevin",
        functools.partial(_init_kinetic, energy),
        draw_drift,
        functools.partial(_kinetic_step, energy, friction),
        positive_number("step_size", step_size),
        1,
        0,
        adjusted=False,
        energy=energy,
    )


class Moving(NamedTuple):
    """Chains that carry a velocity."""

    x: Tensor
    energy: Tensor
    gradient: Tensor
    velocity: Tensor


def _init_kinetic(energy, x, generator):
    return Moving(*init_slope(energy, x, generator), normal(x.shape, x, generator))


def _kinetic_step(energy, friction, state, noise, step_size):
    (xi,) = noise
    half = 0.5 * step_size
    keep = torch.exp(-friction * step_size)
    velocity = state.velocity - half * state.gradient
    x = state.x + half * velocity
    velocity = keep * velocity + (1 - keep * keep).sqrt() * xi
    x = x + half * velocity
    value, gradient = value_and_gradient(energy, x)
    velocity = velocity - half * gradient
    turned = state._replace(velocity=-state.velocity)
    return _keep_inside(turned, Moving(x, value, gradient, velocity))


# Hamiltonian Monte Carlo ---------------------------------------------------------------------


def hmc(energy: Energy, step_size: float, n_leapfrog: int, mass: float | Tensor = 1.0) -> Kernel:
    """Hamiltonian Monte Carlo: fresh momentum, n_leapfrog leapfrog steps, accept or stay.

    The leapfrog map keeps volume and is its own inverse once the momentum is turned round, so
    A = exp(H(x, p) - H(y, -p)) with H = E(x) + |p|^2 / (2 mass). As H is even in p and the next
    step draws it anew, turning it round changes nothing here. One gradient a leapfrog step:
    the one at the start is kept from the last step.

    A limit that nothing shows: for a Gaussian coordinate of deviation s, a path of the length
    n_leapfrog * step_size = 2 pi s sqrt(mass) turns once round and ends where it began, and one
    of half that length at -x. All is accepted and |x| hardly changes; choose another length.

    Args:
        energy: `(n, *event) -> (n,)`, differentiable.
        step_size: of the leapfrog, > 0.
        n_leapfrog: >= 1.
        mass: > 0, a number, or a tensor or array that broadcasts to `(*event)`: a diagonal. A
            dense one is not offered; a change of variables does the same.

    Raises:
        ValueError: one of these out of range; by `sample`, a mass that does not fit the event.
    """
    n_leapfrog = whole_number("n_leapfrog", n_leapfrog, 1)
    # On the CPU whatever the default device is; the step takes it to the chains' dtype and device.
    if not isinstance(mass, Tensor):
        mass = torch.tensor(mass, dtype=torch.float64, device="cpu")
    if not (mass > 0).all() or mass.isinf().any():
        raise ValueError("mass: expected > 0 and finite everywhere")
    # A plain number stays one: it belongs to every dtype and device.
    mass = mass if mass.dim() else mass.item()
    return Kernel(
        "hmc",
        functools.partial(_init_hmc, energy, mass),
        draw_move,
        functools.partial(_hmc_step, energy, n_leapfrog, mass),
        positive_number("step_size", step_size),
        n_leapfrog,
        0,
        energy=energy,
    )


def _init_hmc(energy, mass, x, generator):
    shape, event = getattr(mass, "shape", ()), tuple(x.shape[1:])
    fits = len(shape) <= len(event) and all(
        m in (1, e) for m, e in zip(reversed(shape), reversed(event), strict=False)
    )
    if not fits:
        raise ValueError(
            f"mass: expected a number, or a tensor that broadcasts to the event {event}, one mass "
            f"a coordinate (a dense mass is not offered); got shape {tuple(shape)}"
        )
    return init_slope(energy, x, generator)


def _hmc_step(energy, n_leapfrog, mass, state, noise, step_size):
    xi, u = noise
    if isinstance(mass, Tensor):
        mass = mass.to(xi)
    x, gradient = state.x, state.gradient
    start = momentum = mass**0.5 * xi
    for k in range(n_leapfrog):
        # Two half kicks that meet are one whole kick.
        momentum = momentum - (0.5 if k == 0 else 1.0) * step_size * gradient
        x = x + step_size * momentum / mass
        value, gradient = value_and_gradient(energy, x)
    momentum = momentum - 0.5 * step_size * gradient
    log_ratio = state.energy - value + 0.5 * _sum((start * start - momentum * momentum) / mass)
    return metropolis(state, Slope(x, value, gradient), log_ratio, u)


# Global moves -----------------------------------------------------------------------------


def isir(energy: Energy, proposal: Proposal, n_proposals: int) -> Kernel:
    """Iterated sampling importance resampling: the present point among fresh ones from q.

    The next point is drawn from {x, y_1, ..., y_n}, y_i ~ q, with probabilities proportional
    to the importance weights exp(-E) / q. Exact for every n_proposals >= 1, never rejects as
    such: the acceptance reported is the probability of leaving x.

    Args:
        energy: `(n, *event) -> (n,)`.
        proposal: q, with `sample(n, generator)` and `log_prob(x)`; must cover the target.
        n_proposals: fresh points a step, >= 1.
    """
    n_proposals = whole_number("n_proposals", n_proposals, 1)
    return Kernel(
        "isir",
        functools.partial(_init_pooled, "isir", energy, proposal),
        functools.partial(draw_proposals, proposal, n_proposals),
        functools.partial(_isir_step, energy),
        None,
        0,
        n_proposals,
        n_noise=n_proposals,
        energy=energy,
    )


def _isir_step(energy, state, noise, step_size):
    proposed, log_q, u = noise
    n, n_proposals = log_q.shape
    value = energy(proposed.flatten(0, 1)).view(n, n_proposals)
    value = torch.cat([state.energy[:, None], value], 1)
    # Where q has no mass the weight is infinite. A local move may lead there, no fresh point does:
    # to keep such a state, and to move the others, leaves the target as it is.
    kept = ~(state.log_weight < math.inf)
    here = torch.where(kept, 0.0, state.log_weight)
    there = torch.where(kept[:, None], -math.inf, -value[:, 1:] - log_q)
    log_weight = torch.cat([here[:, None], there], 1)
    log_weight = log_weight.nan_to_num(nan=-math.inf, posinf=-math.inf, neginf=-math.inf)
    share = log_weight.softmax(1)
    # The first place at which the cumulated shares pass u; summed by a product, since cumsum
    # does not repeat exactly on a GPU.
    upto = matmul(share, torch.ones_like(share[:1]).expand(n_proposals + 1, -1).triu())
    chosen = (upto <= u[:, None]).sum(1, keepdim=True).clamp(max=n_proposals)
    # Rounding of the cumulated sum must not pick a point without weight.
    chosen = torch.where(share.gather(1, chosen) > 0, chosen, 0)
    fresh = (chosen - 1).clamp(min=0)[:, 0]
    x = proposed[torch.arange(n, device=u.device), fresh]
    stays = chosen[:, 0] == 0
    moved = Weighted(
        torch.where(per_chain(stays, x), state.x, x),
        value.gather(1, chosen)[:, 0],
        torch.where(kept, state.log_weight, log_weight.gather(1, chosen)[:, 0]),
    )
    return moved, 1 - share[:, 0]


def ex2mcmc(
    energy: Energy, proposal: Proposal, step_size: float, n_proposals: int, n_local: int = 1
) -> Kernel:
    """Ex2MCMC: one global step of `isir`, then n_local steps of `mala`.

    The acceptance reported is that of the local steps, which `step_size` governs.

    Args:
        energy: `(n, *event) -> (n,)`, differentiable.
        proposal: q of the global step. Where it has no mass the local steps alone move a chain.
        step_size: of the local steps, > 0.
        n_proposals: fresh points of a global step, >= 1.
        n_local: local steps, >= 1.
    """
    n_proposals = whole_number("n_proposals", n_proposals, 1)
    n_local = whole_number("n_local", n_local, 1)
    return Kernel(
        "ex2mcmc",
        functools.partial(_init_pooled, "ex2mcmc", energy, proposal),
        functools.partial(draw_ex2, proposal, n_proposals, n_local),
        functools.partial(_ex2_step, energy, proposal, n_local),
        positive_number("step_size", step_size),
        n_local + 1,
        n_proposals,
        n_noise=n_proposals + n_local,
        energy=energy,
    )


def _ex2_step(energy, proposal, n_local, state, noise, step_size):
    proposed, log_q, u, xi, local_u = noise
    state, _ = _isir_step(energy, state, (proposed, log_q, u), step_size)
    local = Slope(state.x, *value_and_gradient(energy, state.x))
    total = 0.0
    for k in range(n_local):
        local, acceptance = _mala_step(energy, local, (xi[k], local_u[k]), step_size)
        total = total + acceptance
    log_weight = -local.energy - proposal.log_prob(local.x)
    return Weighted(local.x, local.energy, log_weight), total / n_local


# What the kernels share ---------------------------------------------------------------------


def metropolis(state, proposed, log_ratio, u):
    """Take the proposal with probability min(1, A), and say that probability.

    A ratio that is not finite means an energy that is not, and is a rejection. log(1 - u) is
    at most 0 and never -inf, so that A = 0 is never taken.
    """
    log_ratio = log_ratio.nan_to_num(nan=-math.inf, posinf=-math.inf, neginf=-math.inf)
    accept = log_ratio >= torch.log1p(-u)
    return _choose(accept, proposed, state), log_ratio.clamp(max=0).exp()


def _keep_inside(state, proposed):
    """Take the proposal unless its energy or gradient is not finite."""
    inside = (proposed.energy + 0 * _sum(proposed.gradient)).isfinite()
    return _choose(inside, proposed, state), inside.to(proposed.energy.dtype)


def _choose(accept, proposed, state):
    return type(state)(
        *(
            torch.where(per_chain(accept, new), new, old)
            for new, old in zip(proposed, state, strict=True)
        )
    )


def _sum(x: Tensor) -> Tensor:
    """`(n, *event)` summed over the event, `(n,)`."""
    return x.reshape(len(x), -1).sum(1)


def per_chain(value: Tensor, x: Tensor) -> Tensor:
    """`value`, `(n,)`, shaped to broadcast with x `(n, *event)`."""
    return value.view(-1, *(1,) * (x.dim() - 1))


def _init_point(energy, x, generator):
    return Point(x, energy(x))


def init_slope(energy, x, generator):
    """Chains at x, where the energy must have a slope for every one of them to move by."""
    value, gradient = value_and_gradient(energy, x)
    check_energy(value, len(x))
    check_slope(value, gradient)
    return Slope(x, value, gradient)


def _init_weighted(energy, proposal, x, generator):
    value = energy(x)
    check_energy(value, len(x))
    log_q = proposal.log_prob(x)
    if not log_q.isfinite().all():
        raise ValueError("x0: the proposal's log_prob is not finite there")
    return Weighted(x, value, -value - log_q)


def _init_pooled(name, energy, proposal, x, generator):
    state = _init_weighted(energy, proposal, x, generator)
    check_in_rows(name, energy, x)
    return state


def check_in_rows(name, energy, x):
    """Raise ValueError where the energy would change as the kernel asks for several points a chain.

    All of a chain's stand in a row, so that models side by side keep their parts of the batch.
    """
    if not stands_in_rows(energy, x):
        raise ValueError(
            f"energy: expected the same value of a point among others, as {name} asks for several "
            "points a chain; it depends on the batch, or its length"
        )
