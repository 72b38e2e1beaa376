"""Step size by dual averaging, in the warm-up only (Hoffman & Gelman 2014, section 3.2)."""

import math
import numbers
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref.samplers.graphs import in_full

# The paper's constants: gamma, t_0 and kappa.
_SHRINKAGE, _DELAY, _FORGETTING = 0.05, 10.0, 0.75
# Logs of how far the tries go from the centre, up and down: 10^4 and 10^-6 times the first step.
# Where no step size gives the acceptance asked for they would go on until floats end; steps
# a hundred thousand times too long leave float32 no digits for x.
_UP, _DOWN = math.log(1e3), math.log(1e7)


class Tuning(NamedTuple):
    """State of the adaptation, all 0-d tensors.

    Attributes:
        log_step: log of the step size to try next.
        log_step_mean: log of the weighted mean so far, the one to freeze.
        shortfall: running mean of target - acceptance.
        t: updates so far.
        centre: log of the step size that the tries are drawn towards.
        target: the acceptance aimed at.
    """

    log_step: Tensor
    log_step_mean: Tensor
    shortfall: Tensor
    t: Tensor
    centre: Tensor
    target: Tensor


def start(step_size: Tensor, target: float) -> Tuning:
    """Begin at `step_size` (0-d), drawn towards ten times as much: large tries teach more."""
    log_step = step_size.log()
    zero = torch.zeros_like(log_step)
    return Tuning(log_step, zero, zero, zero, log_step + 2.302585, zero + target)


def update(tuning: Tuning, acceptance: Tensor) -> Tuning:
    """Take in one step's mean acceptance over the chains (0-d)."""
    t = tuning.t + 1
    rate = 1 / (t + _DELAY)
    shortfall = (1 - rate) * tuning.shortfall + rate * (tuning.target - acceptance)
    log_step = tuning.centre - (t.sqrt() / _SHRINKAGE * shortfall).clamp(-_UP, _DOWN)
    weight = t**-_FORGETTING
    mean = weight * log_step + (1 - weight) * tuning.log_step_mean
    return tuning._replace(log_step=log_step, log_step_mean=mean, shortfall=shortfall, t=t)


def warm_up(kernel, state, n_steps, step_size, target, generator, bar):
    """Make n_steps steps while the step size moves towards the acceptance aimed at.

    Args:
        bar: a progress bar, told the steps of single chains.
        kernel, state, step_size, generator: as in `ebmref.samplers.loop.advance`.

    Returns:
        The state, and the step size to freeze.

    Warns:
        RuntimeWarning: the last try is as far from the first step as tries go.
    """
    tuning = start(step_size, target)
    for _ in range(n_steps):
        (noise,) = zip(*kernel.draw(1, state.x, generator), strict=True)
        state, acceptance = kernel.step(state, noise, tuning.log_step.exp())
        tuning = update(tuning, in_full(acceptance).mean())
        bar.update(len(state.x))
    away = float(tuning.log_step - tuning.centre)
    if away >= 0.999 * _UP or away <= -0.999 * _DOWN:
        warnings.warn(
            f"target_acceptance: {target:.3g} was not reached, it was "
            f"{float(tuning.target - tuning.shortfall):.3g} on average, with step sizes as far "
            f"{'up' if away > 0 else 'down'} from {float(step_size):.3g} as are tried; no step "
            "size may give it, or one nearer to another first step",
            RuntimeWarning,
            stacklevel=3,
        )
    return state, tuning.log_step_mean.exp()


def check_target(kernel, target: float, warmup: int) -> None:
    """Raise ValueError unless this kernel's step size can be adapted in this warm-up."""
    if kernel.step_size is None or not kernel.adjusted:
        raise ValueError(
            f"target_acceptance: {kernel.name} has no step size that an acceptance could set"
        )
    if not isinstance(target, numbers.Real) or isinstance(target, bool) or not 0 < target < 1:
        raise ValueError(f"target_acceptance: expected a number in (0, 1); got {target!r}")
    if warmup < 1:
        raise ValueError("warmup: expected >= 1 for target_acceptance to adapt in")
