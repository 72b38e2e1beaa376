"""Latent variables: what the answer depends on besides the question (report section 2.2).

    y_hat, z_hat = argmin_{y, z} E(x, y, z)                                          (3)

The energy is a function of named variables, `energy(x=..., y=..., z=...)`, each a batch of
rows `(n, *event)`, and gives `(n,)`. Any of them may be asked for: those in `known` are held,
those in `start` or `candidates` are found. All questions and all restarts move together. A
restart that ends above the best of its own question has *lost*: it went to another basin, or
is still on its way. The result says how many did.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import inference
from ebmref.energies import check_energy, value_and_gradient

# energy(**variables: (n, *event)) -> (n,)
LatentEnergy = Callable[..., Tensor]
Variables = dict[str, Tensor]


class Found(NamedTuple):
    """What was found, for n questions and r restarts (or candidates) each.

    Attributes:
        best: each unknown where the energy was least, `(n, *event)`.
        energy: `(n,)`, that energy.
        ends: each unknown where each restart ended, `(n, r, *event)`; of a search: None.
        energies: `(n, r)`, theirs.
        lost: `(n, r)`, whether the restart ended above the best of its question.
        slope: `(n, r)`, the largest component of the gradient where it ended: near zero at a
            minimum, larger where the steps ran out first; of a search: None.
        n_evaluations: how many times the energy of one row was asked for, all in all.
    """

    best: Variables
    energy: Tensor
    ends: Variables | None
    energies: Tensor
    lost: Tensor
    slope: Tensor | None
    n_evaluations: int

    def __str__(self) -> str:
        n, r = self.lost.shape
        if self.slope is None:
            return f"{n} x {r} candidates; least energies up to {self.energy.max():.3g}"
        gap = float((self.energies - self.energy[:, None]).max())
        return (
            f"{n} x {r} restarts, {int(self.lost.sum())} lost, the worst by {gap:.3g}; "
            f"largest slope {self.slope.max():.2g}"
        )


def search(
    energy: LatentEnergy, known: Variables, candidates: Variables, *, lost_above: float = 1e-6
) -> Found:
    """The argmin by search over every combination of candidates: exact on the grid.

    Args:
        energy: see the module.
        known: `(n, *event)` each, n the same for all; {} for a single question.
        candidates: `(m, *event)` each, the same for every question. With several unknowns the
            price is the product of their m.
        lost_above: see `joint_argmin`.

    Raises:
        ValueError: a variable that is no float batch or does not fit, or an energy of wrong
            shape, with a NaN, or infinite for every candidate.
    """
    _check_lost(lost_above)
    with torch.no_grad():
        values, combined = energy_table(energy, known, candidates)
    least, at = values.min(1)
    if not least.isfinite().all():
        raise ValueError("energy: is infinite for every candidate, or -inf for some")
    best = {name: value[at] for name, value in combined.items()}
    return Found(
        best, least, None, values, values > least[:, None] + lost_above, None, values.numel()
    )


def energy_table(
    energy: LatentEnergy, known: Variables, candidates: Variables
) -> tuple[Tensor, Variables]:
    """Energies of every question with every combination of candidates, `(n, m)`, and these.

    Differentiable in whatever the energy is. With several unknowns m is the product of their
    numbers of candidates, the last one running fastest.

    Raises:
        ValueError: as `search`.
    """
    if not candidates:
        raise ValueError("candidates: expected one unknown or more; got none")
    for name, value in candidates.items():
        inference.check_answers(f"candidates[{name!r}]", value)
    n = _questions(known, candidates)
    grids = torch.meshgrid(
        *[torch.arange(len(value), device=value.device) for value in candidates.values()],
        indexing="ij",
    )
    combined = {
        name: value[at.flatten()]
        for (name, value), at in zip(candidates.items(), grids, strict=True)
    }
    m = grids[0].numel()
    rows = {name: value.repeat_interleave(m, 0) for name, value in known.items()}
    rows |= {name: value.repeat(n, *[1] * (value.dim() - 1)) for name, value in combined.items()}
    values = energy(**rows)
    check_energy(values, n * m)
    return values.view(n, m), combined


def joint_argmin(
    energy: LatentEnergy,
    known: Variables,
    start: Variables,
    n_steps: int,
    *,
    step_size: float | None = None,
    tolerance: float = 0.0,
    lost_above: float = 1e-6,
) -> Found:
    """Equation (3): all unknowns descend together, as one long vector.

    Args:
        energy: see the module; differentiable in the unknowns.
        known: `(n, *event)` each, n the same for all; {} for a single question.
        start: `(n, r, *event)` each, r the same for all. One unknown is the report's "infer the
            other variable"; two or more are equation (3).
        n_steps: >= 1, the most steps of a restart.
        step_size: > 0, of plain gradient descent; None for L-BFGS, which needs none.
        tolerance: stop once no component of any gradient is above it.
        lost_above: how far above the best of its question a restart may end without having
            lost; > 0, in units of energy.

    Raises:
        ValueError: an argument out of range; a variable that is no float batch or does not fit;
            an energy of wrong shape, not finite at a start, or without a gradient.
    """
    _check_lost(lost_above)
    rows, now, shape = _rows(known, start)
    found = _descend(partial(_packed, energy, rows, now), _pack(now), n_steps, step_size, tolerance)
    return _found(
        _unpack(found.y, now), found.energy, found.slope, shape, found.n_evaluations, lost_above
    )


def alternating_argmin(
    energy: LatentEnergy,
    known: Variables,
    start: Variables,
    n_sweeps: int,
    n_steps: int,
    *,
    step_size: float | None = None,
    lost_above: float = 1e-6,
) -> Found:
    """Equation (3) one unknown at a time: descend in the first with the others held, and so on.

    Each turn is an easier problem than the whole; where the unknowns are strongly coupled the
    turns zigzag along a valley that `joint_argmin` follows.

    Args:
        n_sweeps: >= 1, how often every unknown has its turn, in the order of `start`.
        n_steps: >= 1, the most steps of a turn.
        energy, known, start, step_size, lost_above: as for `joint_argmin`.

    Raises:
        ValueError: as `joint_argmin`.
    """
    if n_sweeps < 1:
        raise ValueError(f"n_sweeps: expected >= 1; got {n_sweeps}")
    _check_lost(lost_above)
    rows, now, shape = _rows(known, start)
    n_evaluations = 0
    for _ in range(n_sweeps):
        for name in now:
            turn = partial(_of_one, energy, rows | now, name)
            found = _descend(turn, now[name], n_steps, step_size, 0.0)
            now = now | {name: found.y}
            n_evaluations += found.n_evaluations
    # A variable may be at rest while the whole is not: the slope is in all of them.
    value, gradient = value_and_gradient(partial(_packed, energy, rows, now), _pack(now))
    n_evaluations += len(value)
    return _found(now, value, gradient.abs().amax(1), shape, n_evaluations, lost_above)


def _descend(energy, start: Tensor, n_steps: int, step_size, tolerance: float):
    if step_size is None:
        return inference.lbfgs_argmin(energy, start, n_steps, tolerance=tolerance)
    return inference.gradient_argmin(energy, start, step_size, n_steps, tolerance=tolerance)


def _of_one(energy: LatentEnergy, held: Variables, name: str, value: Tensor) -> Tensor:
    return energy(**(held | {name: value}))


def _packed(energy: LatentEnergy, held: Variables, like: Variables, vector: Tensor) -> Tensor:
    return energy(**held, **_unpack(vector, like))


def _pack(variables: Variables) -> Tensor:
    """`(n, *event)` each, side by side as one `(n, d)`."""
    return torch.cat([value.reshape(len(value), -1) for value in variables.values()], 1)


def _unpack(vector: Tensor, like: Variables) -> Variables:
    sizes = [math.prod(value.shape[1:]) for value in like.values()]
    parts = vector.split(sizes, 1)
    return {
        name: part.reshape(value.shape)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }


def _questions(known: Variables, unknown: Variables) -> int:
    """How many questions there are; 1 where nothing is known."""
    for name, value in known.items():
        inference.check_answers(f"known[{name!r}]", value)
    if both := known.keys() & unknown.keys():
        raise ValueError(f"{', '.join(sorted(both))}: expected either known or asked for; got both")
    if len({len(value) for value in known.values()}) > 1:
        shapes = {name: tuple(value.shape) for name, value in known.items()}
        raise ValueError(f"known: expected as many rows of each variable; got {shapes}")
    return len(next(iter(known.values()))) if known else 1


def _rows(known: Variables, start: Variables) -> tuple[Variables, Variables, tuple[int, int]]:
    """One row a restart of each question: the knowns repeated, the starts flattened, (n, r)."""
    n = _questions(known, start)
    for name, value in start.items():
        inference.check_answers(f"start[{name!r}]", value)
    shapes = {name: tuple(value.shape) for name, value in start.items()}
    if not start or len({shape[:2] for shape in shapes.values()}) > 1:
        raise ValueError(f"start: expected (n, r, *event) with n and r the same; got {shapes}")
    for name, value in start.items():
        if value.dim() < 2 or len(value) != n or value.shape[1] < 1:
            raise ValueError(
                f"start[{name!r}]: expected (n, r, *event) with n = {n}, r >= 1; got {shapes[name]}"
            )
    r = value.shape[1]
    rows = {name: value.repeat_interleave(r, 0) for name, value in known.items()}
    return rows, {name: value.flatten(0, 1) for name, value in start.items()}, (n, r)


def _check_lost(lost_above: float) -> None:
    if not 0 < lost_above < math.inf:
        raise ValueError(f"lost_above: expected > 0 and finite; got {lost_above}")


def _found(ends, value, slope, shape, n_evaluations, lost_above) -> Found:
    ends = {name: end.view(*shape, *end.shape[1:]) for name, end in ends.items()}
    energies, slope = value.view(shape), slope.view(shape)
    least, at = energies.min(1)
    best = {name: end[torch.arange(shape[0], device=at.device), at] for name, end in ends.items()}
    lost = energies > least[:, None] + lost_above
    return Found(best, least, ends, energies, lost, slope, n_evaluations)
