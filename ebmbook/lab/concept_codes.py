"""Several concepts in one network: by concept, what codes hold, and why some are hard to read.

    Pool            tasks that are drawn once, for learning from
    by_concept      answers for each concept of a family
    types_read, unread
                    what a linear probe reads in codes: the concept, and its numbers
    runner_up       how near the next best group of a scene comes to the concept
    crowd           the same scenes with a bystander moved next to the concept
    rivalled        scenes read with one bystander more or less near, and the distance of its group
    binned, Bins    scenes that are read exactly, by that distance

Shapes: k networks side by side that never meet, n tasks of each; see `ebmbook.lab.concepts`.
"""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from ebmbook.lab import concepts as lab
from ebmbook.lab.concepts import by_model
from ebmref import concepts
from ebmref.concepts.scenes import CONCEPTS, POSITION, Family, Scenes, Tasks
from ebmref.concepts.unrolling import Inner

# Learning ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Pool:
    """A family whose tasks are drawn once, then taken from at random, with replacement.

    Circles take so long to draw, as the nearest one is searched for, that drawing would be most of
    the work of learning.

    Attributes:
        family: from which they are drawn.
        size: how many there are.
        seed: of the draw.
        n_demos: of each.
    """

    family: Family
    size: int
    seed: int
    n_demos: int = 3

    def tasks(
        self, n_models: int, n: int, n_demos: int, generator: torch.Generator, *, dtype=None
    ) -> Tasks:
        """Tasks `(n_models, n)`, as `Family.tasks` has them.

        Raises:
            ValueError: more demonstrations than the pool's tasks have.
        """
        if n_demos > self.n_demos:
            raise ValueError(f"n_demos: expected {self.n_demos} at most; got {n_demos}")
        device = generator.device
        rows = torch.randint(self.size, (n_models, n), generator=generator, device=device)
        pool = self._drawn(device)

        def taken(part: Tensor) -> Tensor:
            part = part.to(device)[rows]
            return part if dtype is None or not part.is_floating_point() else part.to(dtype)

        return Tasks(
            Scenes(*(taken(part)[:, :, :n_demos] for part in pool.demos)),
            Scenes(*(taken(part) for part in pool.query)),
            taken(pool.concept),
            taken(pool.parameter),
        )

    def _drawn(self, device) -> Tasks:
        return _draw(self.family, self.size, self.seed, self.n_demos, str(device))


@functools.lru_cache(maxsize=2)
def _draw(family: Family, size: int, seed: int, n_demos: int, device: str) -> Tasks:
    tasks = family.tasks(1, size, n_demos, lab.source(seed, "pool", device))
    return Tasks(
        Scenes(*(part[0] for part in tasks.demos)),
        Scenes(*(part[0] for part in tasks.query)),
        tasks.concept[0],
        tasks.parameter[0],
    )


# Answers by concept ------------------------------------------------------------------------------


def by_concept(found: concepts.Measured, tasks: Tasks, names: tuple[str, ...]) -> dict:
    """Means over the tasks of each concept, as `lab.Answers` by name.

    Args:
        found: of the tasks `(k, n)`, see `concepts.measure`.
        names: of the family that they are of.
    """
    return {
        name: lab.Answers(
            *(by_model(getattr(found, what), tasks.concept == i) for what in lab.Answers._fields)
        )
        for i, name in enumerate(names)
    }


# What codes hold ---------------------------------------------------------------------------------


def types_read(w: Tensor, concept: Tensor) -> Tensor:
    """Share of concepts that a linear probe gets right, by network.

    Least squares from the codes of the even tasks to one of so many, asked on the odd ones.

    Args:
        w: codes `(k, n, c)`.
        concept: `(k, n)`, indices.

    Returns:
        `(k,)`.
    """
    n_kinds = int(concept.max()) + 1
    shares = []
    for code, kind in zip(w, concept, strict=True):
        said = _probe(code, torch.nn.functional.one_hot(kind, n_kinds)).argmax(1)
        shares.append((said == kind[1::2]).double().mean())
    return torch.stack(shares)


def unread(w: Tensor, tasks: Tasks, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Share of the variance of a concept's numbers that a linear probe misses, 1 - R^2.

    The worst number of each concept, by network. Which end of a segment is which no scene can tell,
    so of "between" the numbers are those of the middle.

    Args:
        w: codes `(k, n, c)` of the tasks `(k, n)`.
        names: of the family that they are of.

    Returns:
        `(k,)` each.
    """
    missed = {}
    for i, name in enumerate(names):
        rows = []
        for code, kind, numbers in zip(w, tasks.concept, tasks.parameter, strict=True):
            mine = kind == i
            wanted = numbers[mine][:, : len(CONCEPTS[name].low)].double()
            if name == "between":
                wanted = (wanted[:, :2] + wanted[:, 2:]) / 2
            off = _probe(code[mine], wanted) - wanted[1::2]
            rows.append((off.square().mean(0) / wanted[1::2].var(0, correction=0)).max())
        missed[name] = torch.stack(rows)
    return missed


def _probe(x: Tensor, wanted: Tensor) -> Tensor:
    """Answers on the odd rows of least squares with an intercept on the even ones."""
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1).double()
    fit = torch.linalg.lstsq(x[::2], wanted[::2].double()).solution
    return x[1::2] @ fit


def flattened(w: Tensor, concept: Tensor) -> np.ndarray:
    """Codes `(n, c)` on the two linear discriminants of their concepts `(n,)`, `(n, 2)`."""
    found = LinearDiscriminantAnalysis(n_components=2)
    return found.fit_transform(lab.host(w), lab.host(concept))


# Why some are hard to read -----------------------------------------------------------------------


def runner_up(family: Family, tasks: Tasks) -> Tensor:
    """How near the best group of entities that is not meant comes to the concept, `(k, n)`.

    The mean distance to the concept's set of m entities, least over all groups of m but the one
    that is meant, whose own is zero.
    """
    x, mask = tasks.query.end, tasks.query.mask
    k, n, size, _ = x.shape
    m = int(mask[0, 0].sum())
    every = torch.combinations(torch.arange(size, device=x.device), m)
    concept = tasks.concept[..., None].expand(-1, -1, len(every))
    numbers = tasks.parameter[:, :, None].expand(-1, -1, len(every), -1)
    each = Tasks(tasks.demos, tasks.query, concept.flatten(1), numbers.flatten(1, 2))
    group = x[:, :, every].flatten(1, 2)
    away = family.distance(group, torch.ones_like(group[..., 0], dtype=torch.bool), each)
    meant = mask[:, :, every].all(-1)
    return away.view(k, n, -1).masked_fill(meant, torch.inf).amin(-1)


def crowd(tasks: Tasks, away: float, generator: torch.Generator) -> Tasks:
    """The same tasks, but in each scene to read one bystander is moved next to one that is meant.

    Args:
        away: how far from it, in a direction that is drawn.
    """
    x, mask = tasks.query.end, tasks.query.mask
    angle = 2 * torch.pi * torch.rand(mask.shape[:2], generator=generator, device=x.device)
    meant = x[..., POSITION].gather(2, _first(mask))[:, :, 0]
    place = meant + away * torch.stack([angle.cos(), angle.sin()], -1)
    moved = x.clone()
    moved[..., POSITION] = x[..., POSITION].scatter(2, _first(~mask), place[:, :, None])
    return tasks._replace(query=tasks.query._replace(end=moved))


def _first(mask: Tensor) -> Tensor:
    """Index of the first that the mask has, `(k, n, 1, 2)`."""
    return mask.byte().argmax(-1)[..., None, None].expand(-1, -1, 1, 2)


def rivalled(
    model: concepts.Energy, family: Family, tasks: Tasks, apart: tuple[float, ...],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Read the same scenes with one bystander at several distances from one that is meant.

    Args:
        tasks: `(k, n)` of the family.
        apart: distances, see `crowd`.

    Returns:
        Whether the scene is read exactly, and how near the runner-up comes: `(k, n * len(apart))`.
    """
    read, away = [], []
    for d in apart:
        crowded = crowd(tasks, d, generator)
        read.append(concepts.measure(model, family, crowded, Inner(5)).exact)
        away.append(runner_up(family, crowded))
    return torch.cat(read, 1), torch.cat(away, 1)


class Bins(NamedTuple):
    """Shares of scenes that are read exactly, by how near the runner-up comes.

    Attributes:
        middle: the median distance in each, `(b,)`.
        share: over all networks, `(b,)`.
        n: scenes, `(b,)`.
    """

    middle: Tensor
    share: Tensor
    n: Tensor


def binned(exact: Tensor, away: Tensor, edge: tuple[float, ...], least: int = 10) -> Bins:
    """Share of exact scenes by the runner-up's distance; bins of fewer than `least` are left out.

    Args:
        exact, away: of the same shape.
        edge: increasing.
    """
    kept = []
    for low, high in itertools.pairwise(edge):
        rows = (away >= low) & (away < high)
        if int(rows.sum()) >= least:
            kept.append((away[rows].median(), exact[rows].double().mean(), rows.sum()))
    return Bins(*(torch.tensor(part) for part in zip(*kept, strict=True)))
