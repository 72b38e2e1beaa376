"""log Z along a path of temperatures: annealed importance sampling and sequential Monte Carlo.

Importance sampling (see `ebmref.samplers.importance`) asks one proposal q to cover the target in
a single leap. Here the leap is cut into small ones. With f_b = q^(1 - b) exp(-b E),

    0 = b_0 < b_1 < ... < b_T = 1,      x ~ q,   log w = 0,
    for t = 1 .. T:   log w += (b_t - b_{t-1}) (-E(x) - log q(x));   move x by MALA under f_{b_t}

and E[w] = Z exactly, for any path, any number of steps and any step size (Neal 2001): what
they change is the variance. Sequential Monte Carlo (Del Moral, Doucet & Jasra 2006) also
resamples the particles where their weights have grown unequal, and stays unbiased for Z.
"""

import itertools
import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ebmref.checks import check_draws
from ebmref.energies import Energy, value_and_gradient
from ebmref.probes import check_gradient, stands_alone
from ebmref.samplers.graphs import in_full
from ebmref.samplers.importance import log_weights
from ebmref.samplers.kernels import langevin_proposal, langevin_ratio, metropolis
from ebmref.samplers.noise import normal, uniform


class Annealed(NamedTuple):
    """What annealing found; all in the dtype of the proposal's draws, weights in float32 at least.

    Attributes:
        samples: `(n, *event)`, particles that stand for p together with their weights.
        log_weights: `(n,)`, theirs, such that the mean of the weights estimates Z.
        log_z: 0-d, log of that mean. The mean is unbiased; its log is low on average, by half
            the square of `log_z_se`.
        log_z_se: 0-d, standard error of log_z by the delta method; particles with a common
            ancestor count as one (Chan & Lai 2013), which after many resamplings makes it up to
            half again too large. Too small where the particles that matter are missing: look
            at `ess` and at several runs.
        ess: 0-d, (sum w)^2 / sum w^2 of the last weights.
        acceptance_rate: `(T,)`, of the moves at each temperature.
        n_resamplings: how often the particles were resampled.
        n_gradients: gradients of the energy a particle.
    """

    samples: Tensor
    log_weights: Tensor
    log_z: Tensor
    log_z_se: Tensor
    ess: Tensor
    acceptance_rate: Tensor
    n_resamplings: int
    n_gradients: int


def annealed_importance_sampling(
    energy: Energy,
    proposal,
    n: int,
    betas: int | Sequence[float],
    step_size: float | Sequence[float],
    *,
    generator: torch.Generator,
    n_moves: int = 1,
    progress: bool = False,
) -> Annealed:
    """log Z of exp(-energy) by n independent annealed particles (Neal 2001).

    Args:
        energy: `(n, *event) -> (n,)`, differentiable where finite, +inf outside the support.
        proposal: q, has `sample(n, generator)` and a differentiable, normalised `log_prob(x)`.
        n: >= 2 particles.
        betas: the path b_1 < ... < b_T = 1, all > 0, or T for equal steps.
        step_size: of MALA, > 0, in units of x squared; or T of them, one a temperature.
        generator: source of all randomness, on the proposal's device.
        n_moves: MALA steps at each temperature, >= 1.
        progress: show a progress bar.

    Raises:
        ValueError: an argument out of range; an energy or log_prob of wrong shape, or NaN at
            the first draws, or without a finite gradient at any of them; a gradient beside the
            energy that is not its own; no particle inside the support.
    """
    return _anneal(energy, proposal, n, betas, step_size, generator, n_moves, 0.0, progress)


def sequential_monte_carlo(
    energy: Energy,
    proposal,
    n: int,
    betas: int | Sequence[float],
    step_size: float | Sequence[float],
    *,
    generator: torch.Generator,
    n_moves: int = 1,
    resample_below: float = 0.5,
    progress: bool = False,
) -> Annealed:
    """log Z of exp(-energy) by n annealed particles that are resampled on the way.

    Before the moves at a temperature, but for the last, the particles are drawn anew in
    proportion to their weights (systematic resampling) if their effective number has fallen
    below a share of n.

    Args:
        resample_below: that share, in (0, 1]; 1 resamples at every temperature.
        energy, proposal, n, betas, step_size, generator, n_moves, progress: as for
            `annealed_importance_sampling`.

    Raises:
        ValueError: as `annealed_importance_sampling`; an energy whose value depends on the place
            in the batch, which resampling changes.
    """
    if isinstance(resample_below, bool) or not 0 < resample_below <= 1:
        raise ValueError(f"resample_below: expected a number in (0, 1]; got {resample_below!r}")
    return _anneal(
        energy, proposal, n, betas, step_size, generator, n_moves, resample_below, progress
    )


class _Particles(NamedTuple):
    """Particles with both ends of the path; the gradients are kept, not redone."""

    x: Tensor
    energy: Tensor
    gradient: Tensor
    base: Tensor  # -log q
    base_gradient: Tensor


def _anneal(
    energy, proposal, n, betas, step_size, generator, n_moves, resample_below, progress
) -> Annealed:
    check_draws(n, 2, generator)
    check_draws(n_moves, 1, generator, "n_moves")
    betas = _path(betas)
    sizes = _sizes(step_size, len(betas))

    def base(x):
        return -proposal.log_prob(x)

    def evaluate(x):
        return _Particles(x, *value_and_gradient(energy, x), *value_and_gradient(base, x))

    with torch.inference_mode(False), torch.no_grad():
        x = proposal.sample(n, generator)
        inside = log_weights(energy, proposal, x) > -math.inf
        if not inside.any():
            raise ValueError("proposal: none of its draws lies in the energy's support")
        check_gradient(energy, x[inside])
        if resample_below and not stands_alone(energy, x):
            raise ValueError(
                "energy: expected the same value of a point in any batch, as resampling changes "
                "its place; it depends on the place in the batch, or its length"
            )
        state = evaluate(x)
        _check_slopes(state, inside)
        log_w = in_full(torch.zeros_like(state.energy))
        log_scale = 0.0  # log of the mean weight at each resampling, summed
        ancestor = torch.arange(n, device=x.device)
        rates, n_resamplings, before = [], 0, 0.0
        for beta, size in zip(
            tqdm(betas, desc="annealing", unit="temperature", disable=not progress),
            sizes,
            strict=True,
        ):
            log_w = log_w + (beta - before) * (state.base - state.energy)
            if beta < 1 and _ess(log_w) < resample_below * n:
                log_scale = log_scale + log_w.logsumexp(0) - math.log(n)
                kept = _systematic(log_w.softmax(0), generator)
                state = _Particles(*(part[kept] for part in state))
                ancestor, log_w = ancestor[kept], torch.zeros_like(log_w)
                n_resamplings += 1
            total = 0.0
            for _ in range(n_moves):
                state, acceptance = _move(evaluate, state, beta, size, generator)
                total = total + in_full(acceptance).mean()
            rates.append(total / n_moves)
            before = beta
        share = log_w.softmax(0)
        family = torch.zeros_like(share).index_add(0, ancestor, share)
        return Annealed(
            state.x,
            log_w + log_scale,
            log_w.logsumexp(0) - math.log(n) + log_scale,
            family.std() * math.sqrt(n),
            _ess(log_w),
            torch.stack(rates),
            n_resamplings,
            len(betas) * n_moves + 1,
        )


def _check_slopes(state: _Particles, inside: Tensor) -> None:
    """Raise ValueError where no particle inside the support has a slope to move by."""
    for name, gradient in (("energy", state.gradient), ("proposal", state.base_gradient)):
        if not gradient[inside].isfinite().reshape(int(inside.sum()), -1).all(1).any():
            raise ValueError(f"{name}: its gradient is not finite at any of the first draws")


def _move(evaluate, state, beta, step_size, generator):
    """A MALA step under q^(1 - beta) exp(-beta E)."""

    def mix(target, base):
        # Not (1 - beta) base at beta = 1: where q is 0 it would be 0 * inf.
        return target if beta == 1 else beta * target + (1 - beta) * base

    xi = normal(state.x.shape, state.x, generator)
    u = uniform((len(state.x),), state.x, generator)
    here = mix(state.gradient, state.base_gradient)
    proposed = evaluate(langevin_proposal(state.x, here, xi, step_size))
    there = mix(proposed.gradient, proposed.base_gradient)
    log_ratio = (
        mix(state.energy, state.base)
        - mix(proposed.energy, proposed.base)
        + langevin_ratio(here, there, xi, step_size)
    )
    return metropolis(state, proposed, log_ratio, u)


def _ess(log_w: Tensor) -> Tensor:
    return 1 / log_w.softmax(0).square().sum()


def _systematic(share: Tensor, generator: torch.Generator) -> Tensor:
    """Indices of n particles, each kept n * share times rounded down or up, by one number."""
    n = len(share)
    u = torch.rand(1, generator=generator, dtype=torch.float64, device=share.device)
    marks = (torch.arange(n, device=share.device) + u) / n
    total = share.double().cpu().cumsum(0).to(share.device)  # on a GPU it does not repeat
    # Rounding of the sum must not leave the last mark beyond the last particle with weight.
    return torch.searchsorted(total, marks * total[-1], right=True).clamp(max=n - 1)


def _path(betas: int | Sequence[float]) -> list[float]:
    if isinstance(betas, numbers.Integral) and not isinstance(betas, bool) and betas >= 1:
        return [t / betas for t in range(1, betas + 1)]
    try:
        path = [0.0, *map(float, betas)]
    except (TypeError, ValueError):
        path = []
    rises = all(a < b for a, b in itertools.pairwise(path))
    if len(path) < 2 or path[-1] != 1 or not rises:
        raise ValueError(
            f"betas: expected an integer >= 1, or numbers 0 < b_1 < ... < b_T = 1; got {betas!r}"
        )
    return path[1:]


def _sizes(step_size: float | Sequence[float], n: int) -> list[float]:
    one = isinstance(step_size, numbers.Real) and not isinstance(step_size, bool)
    try:
        sizes = [float(step_size)] * n if one else [float(size) for size in step_size]
    except (TypeError, ValueError):
        sizes = []
    if len(sizes) != n or not all(0 < size < math.inf for size in sizes):
        raise ValueError(
            f"step_size: expected one number > 0, or one for each of {n} betas; got {step_size!r}"
        )
    return sizes
