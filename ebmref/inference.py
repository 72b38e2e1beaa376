"""Inference: the answer is the argmin of the energy (report section 2.1, equation 2).

    y_hat = argmin_y F(x, y)

With x given, F(x, .) is an energy of y alone: a callable `energy(y: (n, *event)) -> (n,)`.
A small finite set of answers is searched whole; a continuous one is descended by gradient,
from many starts at once, because a gradient only finds the bottom of its own basin. Where
valleys are narrow, L-BFGS learns their shape on the way and needs far fewer steps.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref.energies import Energy, check_energy, value_and_gradient


class Inference(NamedTuple):
    """What an inference found.

    Attributes:
        y: `(n, *event)`, the candidates, or where each restart ended.
        energy: `(n,)`, their energies.
        best: `(*event)`, the one of least energy.
        n_evaluations: how many times the energy of one y was asked for.
        path: `(steps + 1, n, *event)`, where each restart was; None unless asked for.
        slope: `(n,)`, the largest component of the gradient where each restart ended: near
            zero at a minimum, larger where the steps ran out first; None for a search.
    """

    y: Tensor
    energy: Tensor
    best: Tensor
    n_evaluations: int
    path: Tensor | None = None
    slope: Tensor | None = None


def check_answers(name: str, y: Tensor) -> None:
    """Raise ValueError unless `y` is a floating batch `(n, *event)` with n >= 1."""
    if not isinstance(y, Tensor) or not y.is_floating_point() or y.dim() < 1 or len(y) < 1:
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{name}: expected a float tensor (n, *event) with n >= 1; got {got}")


def search_argmin(energy: Energy, candidates: Tensor) -> Inference:
    """Equation (2) by search: exact, at the price of one evaluation a candidate.

    Args:
        energy: `(n, *event) -> (n,)`.
        candidates: `(n, *event)`, every answer there is.

    Raises:
        ValueError: candidates are not a float batch, or the energy has a wrong shape or a NaN.
    """
    check_answers("candidates", candidates)
    with torch.no_grad():
        values = energy(candidates)
    check_energy(values, len(candidates))
    return Inference(candidates, values, candidates[values.argmin()], len(candidates))


def _start(
    energy: Energy, y0: Tensor, n_steps: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A copy of the starts, with energies and gradients, all of them checked."""
    check_answers("y0", y0)
    if not tolerance >= 0:
        raise ValueError(f"tolerance: expected >= 0; got {tolerance}")
    if n_steps < 1:
        raise ValueError(f"n_steps: expected >= 1; got {n_steps}")
    y = y0.detach().clone()
    value, gradient = value_and_gradient(energy, y)
    if not (value.isfinite().all() and gradient.isfinite().all()):
        raise ValueError("energy: it or its gradient is not finite at some of the starts y0")
    return y, value, gradient


def gradient_argmin(
    energy: Energy,
    y0: Tensor,
    step_size: float,
    n_steps: int,
    *,
    tolerance: float = 0.0,
    keep_path: bool = False,
) -> Inference:
    """Equation (2) by gradient descent, all restarts in parallel.

    Each step moves a restart by `-step * grad E` if that lowers its energy enough (Armijo's
    condition), and otherwise halves its step; so no restart ever climbs, and a step that is
    too large costs evaluations, not correctness. `step_size` is the largest step taken.

    Args:
        energy: `(n, *event) -> (n,)`, differentiable.
        y0: `(n, *event)`, the starts; left as it is.
        step_size: > 0 and finite, in units of y squared per unit of energy.
        n_steps: >= 1, the most steps taken.
        tolerance: stop once no component of any gradient is above it in size.
        keep_path: keep every step in `path`.

    Raises:
        ValueError: an argument out of range, an energy of wrong shape, one that is not
            finite at a start, or one that has no gradient in y.
    """
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size: expected > 0 and finite; got {step_size}")
    y, value, gradient = _start(energy, y0, n_steps, tolerance)
    event = (-1,) + (1,) * (y.dim() - 1)
    step = torch.full_like(value, step_size)
    path = [y]
    done = 0
    while done < n_steps and gradient.abs().max() > tolerance:
        proposal = y - step.view(event) * gradient
        new_value, new_gradient = value_and_gradient(energy, proposal)
        drop = 0.5 * step * gradient.reshape(len(y), -1).square().sum(1)
        lower = new_value <= value - drop  # False for a NaN: such a proposal is not taken
        lower &= new_gradient.reshape(len(y), -1).isfinite().all(1)
        y = torch.where(lower.view(event), proposal, y)
        value = torch.where(lower, new_value, value)
        gradient = torch.where(lower.view(event), new_gradient, gradient)
        step = torch.where(lower, (2 * step).clamp(max=step_size), step / 2)
        done += 1
        if keep_path:
            path.append(y)
    return Inference(
        y,
        value,
        y[value.argmin()],
        len(y) * (done + 1),
        torch.stack(path) if keep_path else None,
        gradient.abs().reshape(len(y), -1).amax(1),
    )


def lbfgs_argmin(
    energy: Energy,
    y0: Tensor,
    n_steps: int,
    *,
    history: int = 8,
    tolerance: float = 0.0,
    keep_path: bool = False,
) -> Inference:
    """Equation (2) by L-BFGS (Liu & Nocedal 1989), all restarts in parallel.

    The direction is -H grad E, with H an estimate of the inverse Hessian that each restart
    builds from its own last steps; along it the whole step is tried first, then its half, and
    so on until Armijo's condition holds. No restart ever climbs.

    Args:
        energy: `(n, *event) -> (n,)`, differentiable.
        y0: `(n, *event)`, the starts; left as they are.
        n_steps: >= 1, the most evaluations of each restart after its first.
        history: >= 1, how many steps H is built from.
        tolerance: stop once no component of any gradient is above it in size.
        keep_path: keep every step in `path`.

    Raises:
        ValueError: as `gradient_argmin`, or a history below 1.
    """
    if history < 1:
        raise ValueError(f"history: expected >= 1; got {history}")
    start, value, gradient = _start(energy, y0, n_steps, tolerance)
    y, gradient = start.reshape(len(start), -1), gradient.reshape(len(start), -1)
    # Steps and changes of the gradient, oldest first; a pair of zeros has no effect.
    steps, changes = y.new_zeros(2, history, *y.shape)
    scale = 1 / gradient.norm(dim=1).clamp(min=1)  # the first step is one unit long at most
    direction, length = -scale[:, None] * gradient, torch.ones_like(value)
    path = [start]
    done = 0
    while done < n_steps and gradient.abs().max() > tolerance:
        proposal = y + length[:, None] * direction
        new_value, new_gradient = value_and_gradient(energy, proposal.view_as(start))
        new_gradient = new_gradient.reshape_as(y)
        slope = (gradient * direction).sum(1)
        lower = new_value <= value + 1e-4 * length * slope
        lower &= new_gradient.isfinite().all(1)
        taken = lower[:, None]
        step, change = proposal - y, new_gradient - gradient
        # Only along directions of positive curvature does a pair tell of a minimum.
        curvature = (step * change).sum(1)
        told = lower & (curvature > 1e-10 * step.norm(dim=1) * change.norm(dim=1))
        steps = torch.where(told[:, None], torch.cat([steps[1:], step[None]]), steps)
        changes = torch.where(told[:, None], torch.cat([changes[1:], change[None]]), changes)
        scale = torch.where(told, curvature / change.square().sum(1), scale)
        y = torch.where(taken, proposal, y)
        value = torch.where(lower, new_value, value)
        gradient = torch.where(taken, new_gradient, gradient)
        direction = torch.where(taken, -_two_loops(gradient, steps, changes, scale), direction)
        # Without a new pair H is as it was, and perhaps far too small: go farther each time.
        length = torch.where(told, 1.0, torch.where(lower, 2 * length, length / 2))
        done += 1
        if keep_path:
            path.append(y.view_as(start))
    y = y.view_as(start)
    return Inference(
        y,
        value,
        y[value.argmin()],
        len(y) * (done + 1),
        torch.stack(path) if keep_path else None,
        gradient.abs().amax(1),
    )


def _two_loops(gradient: Tensor, steps: Tensor, changes: Tensor, scale: Tensor) -> Tensor:
    """H times the gradient, `(n, d)`, from the pairs `(history, n, d)`, never forming H."""
    curvature = (steps * changes).sum(-1, keepdim=True)
    inverse = torch.where(curvature > 0, 1 / curvature, 0.0)
    parts = []
    for step, change, rho in zip(steps.flip(0), changes.flip(0), inverse.flip(0), strict=True):
        parts.append(rho * (step * gradient).sum(1, keepdim=True))
        gradient = gradient - parts[-1] * change
    gradient = scale[:, None] * gradient
    for step, change, rho in zip(steps, changes, inverse, strict=True):
        part = parts.pop() - rho * (change * gradient).sum(1, keepdim=True)
        gradient = gradient + part * step
    return gradient
