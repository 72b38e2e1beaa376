"""Inference: the answer is the argmin of the energy (report section 2.1, equation 2).

    y_hat = argmin_y F(x, y)

With x given, F(x, .) is an energy of y alone: a callable `energy(y: (n, *event)) -> (n,)`.
A small finite set of answers is searched whole; a continuous one is descended by gradient,
from many starts at once, because a gradient only finds the bottom of its own basin.
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
    check_answers("y0", y0)
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size: expected > 0 and finite; got {step_size}")
    if n_steps < 1:
        raise ValueError(f"n_steps: expected >= 1; got {n_steps}")
    y = y0.detach().clone()
    event = (-1,) + (1,) * (y.dim() - 1)
    value, gradient = value_and_gradient(energy, y)
    if not (value.isfinite().all() and gradient.isfinite().all()):
        raise ValueError("energy: it or its gradient is not finite at some of the starts y0")
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
