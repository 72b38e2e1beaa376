"""What the paper of Mordatch claims for energies of concepts, asked of networks side by side.

    change, Change    a quantity before and after, as factors that are paired by network
    mid               the network in the middle, as a number to be read
    by_demos, by_steps
                      fewer demonstrations, more steps of inference
    wider, groups     more entities, and groups of another size
    QUESTIONS, taught networks taught both questions, or one of them, at several rates of learning
    ways_down, Descended
                      of networks that only identify: the best way down to a scene
    hands, reach, hands_off
                      arms whose hands are the entities
    edge_shown        what one demonstration of a half-plane says

Shapes: k networks side by side that never meet, n tasks of each; see `ebmbook.lab.concepts`.
"""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ebmbook.lab import concepts as lab
from ebmbook.lab.concepts import Answers, by_model
from ebmref import concepts
from ebmref.concepts import unrolling
from ebmref.concepts.scenes import COLOUR, POSITION, Family, Tasks, attended
from ebmref.concepts.unrolling import Inner

# Many networks in a few numbers ------------------------------------------------------------------


class Change(NamedTuple):
    """By how much something shrank, network by network.

    Attributes:
        factor: before over after, of the network in the middle; above 1 it shrank.
        low, high: of the median factor, see `lab.middle`.
        least, most: factors.
        shrank: in how many networks.
        of: so many.
    """

    factor: float
    low: float
    high: float
    least: float
    most: float
    shrank: int
    of: int

    @property
    def centre(self) -> tuple[float, float]:
        """The median factor and its standard error, as `lab.centre` has it."""
        return self.factor, (self.high - self.low) / (2 * 1.96)


def change(before: Tensor, after: Tensor) -> Change:
    """Of two positive quantities of the same networks, `(k,)` each.

    The factor is paired by network and its median is taken on the logarithm, so that neither one
    slow network nor the scale of the best decides.

    Raises:
        ValueError: a quantity that is not positive, or fewer than two networks.
    """
    before, after = lab.host(before), lab.host(after)
    if not (before > 0).all() or not (after > 0).all():
        raise ValueError("before, after: expected numbers > 0 of each network")
    found = lab.middle(np.log10(before / after))
    factors = (float(10**value) for value in found)
    return Change(*factors, int((after < before).sum()), len(after))


def mid(values, digits: int = 2) -> float:
    """The network in the middle of `(k,)`, with so many digits.

    For what one slow network of a few would give an error that says nothing of the others.
    """
    return lab.short(lab.middle(values).median, digits)


# Demonstrations, steps, entities -----------------------------------------------------------------


def by_demos(
    model: concepts.Energy, family: Family, tasks: Tasks, counts: Sequence[int]
) -> dict[int, Answers]:
    """Answers after the first d demonstrations of each task, by d."""
    return {d: lab.inquire(model, family, lab.with_demos(tasks, d)) for d in counts}


def by_steps(
    model: concepts.Energy, family: Family, tasks: Tasks, counts: Sequence[int]
) -> dict[int, Answers]:
    """Answers after so many steps of each inference, by their number."""
    return {n: lab.inquire(model, family, tasks, n) for n in counts}


def wider(name: str, n_entities: int) -> Family:
    """The same concept among more entities; groups and decoys stay four."""
    return Family((name,), n_entities)


def groups(name: str, m: int) -> Family:
    """The same concept in groups of m, with as many decoys."""
    return Family((name,), 2 * m, m, m)


def asked(
    model: concepts.Energy, family: Family, n_tasks: int, seed: int, stream: str
) -> tuple[Answers, Tasks]:
    """Answers on tasks of a family of their own, drawn by a named stream, and these tasks."""
    k, device = len(model.log_steps), model.log_steps.device
    tasks = family.tasks(k, n_tasks, 5, lab.source(seed, stream, device))
    return lab.inquire(model, family, tasks), tasks


class Sought(NamedTuple):
    """Share of scenes read exactly, `(k,)` each.

    Attributes:
        descent: by five steps down the energy.
        longer: by twenty.
        search: by the mask of least energy among all of as many entities.
    """

    descent: Tensor
    longer: Tensor
    search: Tensor


def sought(model: concepts.Energy, tasks: Tasks, n: int) -> Sought:
    """Read the first n scenes by descent and by search, to tell a bad energy from a bad descent."""
    few = lab.head(tasks, n)
    w, mask = lab.codes(model, few), few.query.mask
    m = int(mask[0, 0].sum())
    path = lab.masks_of(model, few, w, 20)
    found = path[4], path[-1], lab.searched(model, few.query.end, w, m)
    return Sought(*(by_model(concepts.is_exact(a, mask)) for a in found))


def edge_shown(tasks: Tasks) -> tuple[Tensor, Tensor]:
    """Whether a dot of the first demonstration of "left" stands on the edge, and how likely it is.

    Four dots start evenly in [-1, 1] and those beyond the edge c are moved to it, so that one
    stands on it unless all four started left of c.

    Returns:
        Shares over all tasks: counted, and 1 - ((1 + c) / 2)^4 averaged; scalars.
    """
    x = attended(tasks.demos.end[:, :, 0], tasks.demos.mask[:, :, 0])[0][..., 0]
    c = tasks.parameter[..., 0]
    shown = (x.amax(-1) - c).abs() < 1e-6
    return shown.double().mean(), (1 - ((1 + c.double()) / 2) ** 4).mean()


# Two questions, one network ----------------------------------------------------------------------

# What differs from the default recipe, which asks both by the report's loss.
QUESTIONS = {
    "both": {},
    "generation": {"identify": 0.0},
    "identification": {"generate": 0.0},
    "both, contrast": {"loss": "contrast"},
    "identification, contrast": {"loss": "contrast", "generate": 0.0},
}


class Taught(NamedTuple):
    """Networks that learned one way of asking, at several rates.

    Attributes:
        models: by rate.
        rate: the one whose networks have the least held-out loss of their own, by the median.
        losses: that median, by rate.
    """

    models: dict[float, concepts.Energy]
    rate: float
    losses: dict[float, float]

    @property
    def best(self) -> concepts.Energy:
        """The networks at that rate."""
        return self.models[self.rate]


def taught(
    family: Family, question: str, rates: Sequence[float], tuning: Tasks, n_models: int,
    n_steps: int, seed: int, *, checkpoint: Path | None = None, **how,
) -> Taught:  # fmt: skip
    """Teach one way of asking at each of the rates, and choose a rate by what it was taught.

    Args:
        question: a name in `QUESTIONS`.
        tuning: tasks `(k, n)` on which the rate is chosen.
        checkpoint: None, or a path; each training has one of its own beside it.
        how: see `lab.learn`: `weights`, `energy`, `device`, `progress`, and more of the recipe.
    """
    options, models, losses = QUESTIONS[question], {}, {}
    for rate in rates:
        word = f"{question.replace(', ', '-')}-{rate:g}"
        own = checkpoint and checkpoint.with_name(f"{checkpoint.stem}-{word}.pt")
        models[rate] = lab.learn(
            family, n_models, n_steps, seed,
            checkpoint=own, learning_rate=rate, **options, **how,
        )  # fmt: skip
        lost = lab.held_out_loss(models[rate], tuning, **options)
        losses[rate] = lab.middle(lost).median
    return Taught(models, min(losses, key=losses.get), losses)


# Identification alone ----------------------------------------------------------------------------

# Times the first size of the step of a scene, and how many steps.
WAYS = tuple((times, n) for times in (0.003, 0.03, 0.3, 1.0, 3.0) for n in (5, 50))


class Descended(NamedTuple):
    """What the best way down an energy leaves, network by network, `(k,)` each.

    Attributes:
        before: distance at the start.
        after: with the right code.
        wrong: with that of another task.
        times, steps: the best way of each network.
    """

    before: Tensor
    after: Tensor
    wrong: Tensor
    times: Tensor
    steps: Tensor


def ways_down(
    model: concepts.Energy, family: Family, tuning: Tasks, tasks: Tasks,
    ways: Sequence[tuple[float, int]] = WAYS,
) -> Descended:  # fmt: skip
    """Try several sizes and numbers of steps on tuning tasks; use each network's best on others.

    A network that never moved a scene in learning has not learned the size of that step.

    Args:
        tuning, tasks: `(k, n)` of the family.
        ways: factors of the step's size, and numbers of steps.
    """
    left = torch.stack([_generated(model, family, tuning, *way) for way in ways])
    best = left.argmin(0)
    right = torch.stack([_generated(model, family, tasks, *way) for way in ways])
    wrong = torch.stack([_generated(model, family, tasks, *way, shift=1) for way in ways])
    at, way = torch.arange(len(best), device=best.device), torch.tensor(ways)[best.cpu()]
    query = tasks.query
    before = by_model(family.distance(query.start, query.mask, tasks))
    return Descended(before, right[best, at], wrong[best, at], way[:, 0], way[:, 1])


def _generated(
    model: concepts.Energy, family: Family, tasks: Tasks, times: float, n_steps: int, shift: int = 0
) -> Tensor:
    """Distance left, `(k,)`, with steps so many times as long."""
    paced = copy.deepcopy(model)
    with torch.no_grad():
        paced.log_steps[:, 1:3] += math.log(times)
    w = lab.codes(paced, tasks).roll(shift, 1)
    x = lab.scenes_of(paced, tasks, w, n_steps)[-1]
    return by_model(family.distance(x, tasks.query.mask, tasks))


# Arms --------------------------------------------------------------------------------------------

LINK = 0.75


def hands(angles: Tensor) -> Tensor:
    """Joint angles `(..., 2)` to the places of hands, `(..., 2)`: two links from the origin."""
    return elbows(angles) + LINK * _direction(angles.sum(-1))


def elbows(angles: Tensor) -> Tensor:
    """Joint angles `(..., 2)` to the places of elbows, `(..., 2)`."""
    return LINK * _direction(angles[..., 0])


def _direction(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], -1)


def reach(
    model: concepts.Energy, tasks: Tasks, w: Tensor, n_steps: int, generator: torch.Generator
) -> list[Tensor]:
    """Angles that descend the energy of hands, from even ones: the start, then each step.

    The hands have the colours of the attended entities.

    Args:
        w: codes `(k, n, c)`.

    Returns:
        `(k, n, m, 2)` each.
    """
    group, s, _ = attended(tasks.query.start, tasks.query.mask)
    colour = group[..., COLOUR]
    start = 2 * math.pi * torch.rand(
        *group.shape[:3], 2, generator=generator, device=group.device
    )  # fmt: skip

    def energy(angles: Tensor) -> Tensor:
        return model(torch.cat([hands(angles), colour], -1), s, w)

    size = model.log_steps[:, 1].exp()[:, None, None, None]
    return [start, *unrolling.descend(energy, start, size, (), Inner(n_steps, "none"))]


def hands_off(family: Family, tasks: Tasks, angles: Tensor) -> Tensor:
    """Distance of the hands of angles `(k, n, m, 2)` to the concept's set, `(k, n)`."""
    x = torch.zeros(*angles.shape[:3], 5, device=angles.device, dtype=angles.dtype)
    x[..., POSITION] = hands(angles)
    return family.distance(x, torch.ones_like(x[..., 0], dtype=torch.bool), tasks)
