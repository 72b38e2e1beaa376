"""Scenes of entities, concepts as sets of scenes, and tasks (report section 2.2.1).

A scene x has N entities, each a position and a colour; a mask a attends to some of them. A concept
is a *set* of scenes, and an event brings the attended entities into it by the shortest way: their
end is the projection of their start. So "make a square" has one right answer, where the mean of all
right answers would be none.

Shapes: scenes `(..., N, 5)`, masks `(..., N)`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref.checks import check_not_negative, check_whole

# An entity is (position, colour): x, y and red, green, blue.
ENTITY = 5
POSITION, COLOUR = slice(0, 2), slice(2, 5)


# --- concepts --------------------------------------------------------------------------

NEAR = 0.1  # how far from its place "near" reaches
DISC = 0.5  # radius of the disc at the origin in which "quantity" counts


class Concept(NamedTuple):
    """A set of scenes, one for each parameter.

    Attributes:
        project: attended entities `(n, m, 5)` and parameters `(n, 4)` to the nearest entities that
            satisfy the concept, `(n, m, 5)`.
        low, high: between which its parameters lie; what is missing up to 4 is unused.
        each: whether it asks something of each entity alone. Otherwise it is about the group.
        m: how many entities it needs; None for any number.
        alike: whether each group, the attended and the decoys, has a colour of its own in its
            tasks: of two groups mixed, other entities could satisfy the concept as well.
    """

    project: Callable[[Tensor, Tensor], Tensor]
    low: tuple[float, ...]
    high: tuple[float, ...]
    each: bool = True
    m: int | None = None
    alike: bool = False


def _moved(x: Tensor, position: Tensor) -> Tensor:
    return torch.cat([position, x[..., COLOUR]], -1)


def _length(v: Tensor) -> Tensor:
    """Lengths of vectors, `(..., d)` to `(..., 1)`."""
    return torch.linalg.vector_norm(v, dim=-1, keepdim=True)


def _near(x: Tensor, p: Tensor) -> Tensor:
    """In the disc about the place (p0, p1)."""
    place = p[:, None, :2]
    away = x[..., POSITION] - place
    return _moved(x, place + away * (NEAR / _length(away)).clamp(max=1))


def _square(x: Tensor, p: Tensor) -> Tensor:
    """The corners of a square of side p0, wherever it is and however it is turned.

    As complex numbers z with mean 0, and corners c_j = i^j in an order o: the best turn is the
    phase of sum_j z_j conj(c_o(j)), and the best order the one for which this sum is longest.
    """
    z = torch.view_as_complex(x[..., POSITION].contiguous())
    centre = z.mean(1, keepdim=True)
    orders = x.new_tensor(
        [[0, 1, 2, 3], [0, 1, 3, 2], [0, 2, 1, 3], [0, 2, 3, 1], [0, 3, 1, 2], [0, 3, 2, 1]]
    )
    corners = torch.polar(torch.ones_like(orders), orders * (math.pi / 2))
    sums = (z - centre) @ corners.mH
    best = sums.abs().argmax(1, keepdim=True)
    turn = torch.polar(torch.ones_like(p[:, 0]), sums.gather(1, best)[:, 0].angle())
    corner = corners[best[:, 0]] * (turn * p[:, 0] / 2**0.5)[:, None]
    return _moved(x, torch.view_as_real(centre + corner))


def _circle(x: Tensor, p: Tensor) -> Tensor:
    """On a circle of radius p0, wherever its centre is.

    The centre c minimises sum_i (|x_i - c| - r)^2: Newton's steps from the mean and from places
    around it, each taken only if it helps; else c moves to mean(x_i - r u_i), with u_i the unit
    vector from c to x_i, which always does.
    """
    points, r = x[:, None, :, POSITION], p[:, :1, None]
    angle = torch.arange(8, dtype=x.dtype, device=x.device) * (math.pi / 4)
    around = torch.stack([angle.cos(), angle.sin()], -1)
    starts = torch.cat([torch.zeros_like(around[:1]), around, around / 4])
    c = points.mean(2) + r * starts  # (n, starts, 2)
    r = r[..., None]

    def look(c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        away = points - c[:, :, None]
        d = _length(away).clamp(min=1e-12)
        return away / d, d, (d - r).square().sum((2, 3))

    u, d, cost = look(c)
    for _ in range(30):
        slope = (u * (r - d)).sum(2)
        bend = r / d
        # The Hessian sum_i (1 - r/d) I + (r/d) u u^T, and its inverse times the slope by hand.
        flat = (1 - bend).sum((2, 3))
        xx = flat + (bend[..., 0] * u[..., 0].square()).sum(2)
        yy = flat + (bend[..., 0] * u[..., 1].square()).sum(2)
        xy = (bend[..., 0] * u[..., 0] * u[..., 1]).sum(2)
        inverse = torch.stack([yy, -xy, -xy, xx], -1).unflatten(-1, (2, 2))
        newton = c - (inverse @ slope[..., None])[..., 0] / (xx * yy - xy.square())[..., None]
        safe = (points - r * u).mean(2)
        tried = look(newton)
        helps = (tried[2] < cost)[..., None]
        c = torch.where(helps, newton, safe)
        u, d, cost = look(c)
    best = cost.argmin(1)
    rows = torch.arange(len(x), device=x.device)
    return _moved(x, c[rows, best][:, None] + r[:, 0] * u[rows, best])


def _line(x: Tensor, p: Tensor) -> Tensor:
    """On a line at the angle p0, wherever it lies."""
    normal = torch.stack([-p[:, 0].sin(), p[:, 0].cos()], -1)[:, None]
    position = x[..., POSITION]
    off = ((position - position.mean(1, keepdim=True)) * normal).sum(-1, keepdim=True)
    return _moved(x, position - off * normal)


def _between(x: Tensor, p: Tensor) -> Tensor:
    """On the straight way from the place (p0, p1) to (p2, p3)."""
    start, way = p[:, None, :2], (p[:, 2:4] - p[:, :2])[:, None]
    along = ((x[..., POSITION] - start) * way).sum(-1, keepdim=True)
    share = (along / way.square().sum(-1, keepdim=True).clamp(min=1e-12)).clamp(0, 1)
    return _moved(x, start + share * way)


def _beyond(x: Tensor, p: Tensor, axis: int, sign: int) -> Tensor:
    """On one side of p0 along an axis."""
    position = x[..., POSITION].clone()
    clamp = torch.minimum if sign < 0 else torch.maximum
    position[..., axis] = clamp(position[..., axis], p[:, :1])
    return _moved(x, position)


def _colour(x: Tensor, p: Tensor) -> Tensor:
    """Of the colour (p0, p1, p2)."""
    return torch.cat([x[..., POSITION], p[:, None, :3].expand(-1, x.shape[1], -1)], -1)


def _quantity(x: Tensor, p: Tensor) -> Tensor:
    """As many as floor(p0) of them in the disc at the origin, no more; for 4, 4 or more.

    The nearest to its centre go in, the others out, each by the shortest way.
    """
    position, count = x[..., POSITION], p[:, :1, None].floor()
    d = _length(position)
    rank = d.argsort(dim=1, stable=True).argsort(1)
    outward = torch.where(d > 0, position / d.clamp(min=1e-30), position.new_tensor([1.0, 0.0]))
    edge = DISC * outward
    moved = torch.where((rank < count) & (d > DISC), edge, position)
    return _moved(x, torch.where((rank >= count) & (d < DISC) & (count < 4), edge, moved))


CONCEPTS: dict[str, Concept] = {
    "near": Concept(_near, (-0.8, -0.8), (0.8, 0.8)),
    "square": Concept(_square, (0.2,), (1.0,), each=False, m=4),
    "circle": Concept(_circle, (0.2,), (0.8,), each=False),
    "line": Concept(_line, (0.0,), (math.pi,), each=False),
    "between": Concept(_between, (-0.8,) * 4, (0.8,) * 4),
    "left": Concept(functools.partial(_beyond, axis=0, sign=-1), (-0.8,), (-0.2,)),
    "right": Concept(functools.partial(_beyond, axis=0, sign=1), (0.2,), (0.8,)),
    "above": Concept(functools.partial(_beyond, axis=1, sign=1), (0.2,), (0.8,)),
    "colour": Concept(_colour, (0.0,) * 3, (1.0,) * 3),
    "quantity": Concept(_quantity, (1.0,), (5.0,), each=False, alike=True),
}


def project(concept: str, x: Tensor, parameter: Tensor) -> Tensor:
    """The nearest entities that satisfy the concept.

    Args:
        concept: a name in `CONCEPTS`.
        x: `(n, m, 5)`, the attended entities.
        parameter: `(n, 4)`.

    Raises:
        ValueError: an unknown concept, wrong shapes, or a number of entities it cannot have.
    """
    kind = _concept(concept)
    if x.dim() != 3 or x.shape[-1] != ENTITY or x.shape[1] < 1:
        raise ValueError(f"x: expected (n, m, {ENTITY}), m >= 1; got {tuple(x.shape)}")
    if parameter.shape != (len(x), 4):
        raise ValueError(f"parameter: expected ({len(x)}, 4); got {tuple(parameter.shape)}")
    if kind.m not in (None, x.shape[1]):
        raise ValueError(f"x: {concept} is of {kind.m} entities; got {x.shape[1]}")
    return kind.project(x, parameter)


def _concept(name: str) -> Concept:
    if name not in CONCEPTS:
        raise ValueError(f"concept: expected one of {', '.join(CONCEPTS)}; got {name!r}")
    return CONCEPTS[name]


# --- tasks -----------------------------------------------------------------------------


def attended(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The attended entities alone; for the energy nothing changes, since the others weigh zero.

    Args:
        x: `(..., N, 5)`.
        mask: `(..., N)`, bool.

    Returns:
        `(..., m, 5)`, weights `(..., m)` that are 0 where a scene has fewer than m, and where
        they stood, `(..., m)`.

    Raises:
        ValueError: a mask that does not fit, or attends to nothing.
    """
    if mask.shape != x.shape[:-1] or mask.dtype != torch.bool:
        raise ValueError(
            f"mask: expected bool {tuple(x.shape[:-1])}, as the scenes have entities; got "
            f"{mask.dtype} {tuple(mask.shape)}"
        )
    counts = mask.sum(-1)
    if mask.numel() == 0 or int(counts.min()) < 1:
        raise ValueError("mask: expected one attended entity or more in each scene")
    index = mask.byte().argsort(dim=-1, descending=True, stable=True)[..., : int(counts.max())]
    group = x.gather(-2, index[..., None].expand(*index.shape, x.shape[-1]))
    return group, mask.gather(-1, index).to(x.dtype), index


class Scenes(NamedTuple):
    """Events of a concept, `(*shape, N, ...)`.

    Attributes:
        start: `(*shape, N, 5)`, the attended entities anywhere.
        end: `(*shape, N, 5)`, projected onto the concept; the others are as in `start`.
        mask: `(*shape, N)`, bool, the attended.
    """

    start: Tensor
    end: Tensor
    mask: Tensor


class Tasks(NamedTuple):
    """n tasks for each of k models.

    Attributes:
        demos: `(k, n, D)` scenes that show the concept.
        query: `(k, n)` scenes to complete, from `start` and `mask`, or to read, from `end`.
        concept: `(k, n)`, its index in the family.
        parameter: `(k, n, 4)`.
    """

    demos: Scenes
    query: Scenes
    concept: Tensor
    parameter: Tensor


@dataclasses.dataclass(frozen=True)
class Family:
    """From which tasks are drawn.

    The entities that are not attended form a *decoy*: a group of the same size that satisfies a
    concept of the family, too, with another parameter. Only the code can then tell which group is
    meant. What remains of N is scattered.

    Attributes:
        concepts: names in `CONCEPTS`.
        n_entities: N.
        n_attended: m.
        n_decoys: size of the decoy group; 0 for none.
        margin: how far from the concept's set the others stay, on average of the group or each for
            itself, as the concept is.

    Raises:
        ValueError: a field out of range.
    """

    concepts: tuple[str, ...] = ("near",)
    n_entities: int = 8
    n_attended: int = 4
    n_decoys: int = 4
    margin: float = 0.2

    def __post_init__(self):
        if type(self.concepts) is not tuple or not self.concepts:
            raise ValueError(f"concepts: expected a tuple of names; got {self.concepts!r}")
        check_whole(self, 1, "n_entities", "n_attended")
        check_whole(self, 0, "n_decoys")
        check_not_negative(self, "margin")
        groups = {self.n_attended, *([self.n_decoys] if self.n_decoys else [])}
        for name in self.concepts:
            if _concept(name).m is not None and groups != {_concept(name).m}:
                raise ValueError(
                    f"n_attended, n_decoys: {name} is of {_concept(name).m}; got {sorted(groups)}"
                )
        if self.n_entities < self.n_attended + self.n_decoys:
            raise ValueError(
                f"n_entities: expected >= n_attended + n_decoys = "
                f"{self.n_attended + self.n_decoys}; got {self.n_entities}"
            )

    @property
    def chance(self) -> float:
        """How often a blind choice of m of the N entities is right."""
        return 1 / math.comb(self.n_entities, self.n_attended)

    def tasks(
        self, n_models: int, n: int, n_demos: int, generator: torch.Generator, *, dtype=None
    ) -> Tasks:
        """Draw n tasks for each model.

        Raises:
            ValueError: a number below 1.
        """
        for name, value in {"n_models": n_models, "n": n, "n_demos": n_demos}.items():
            if value < 1:
                raise ValueError(f"{name}: expected >= 1; got {value}")
        rows = n_models * n
        concept, parameter = self._parameters(rows, generator)
        events = 1 + n_demos
        scenes = self.scenes(
            concept.repeat_interleave(events), parameter.repeat_interleave(events, 0), generator
        )
        scenes = Scenes(*(part.unflatten(0, (n_models, n, events)) for part in scenes))
        if dtype is not None:
            scenes = Scenes(scenes.start.to(dtype), scenes.end.to(dtype), scenes.mask)
            parameter = parameter.to(dtype)
        return Tasks(
            Scenes(*(part[:, :, 1:] for part in scenes)),
            Scenes(*(part[:, :, 0] for part in scenes)),
            concept.view(n_models, n),
            parameter.view(n_models, n, 4),
        )

    def scenes(
        self, concept: Tensor, parameter: Tensor, generator: torch.Generator, *, tries: int = 8
    ) -> Scenes:
        """An event for each concept `(r,)` and parameter `(r, 4)`.

        The decoys are the first of so many tries that stay off the concept, else the farthest.
        """
        r, m = len(concept), self.n_attended
        start = self._scatter((r, m), generator)
        alike = torch.tensor([CONCEPTS[name].alike for name in self.concepts], device=start.device)
        alike = alike[concept][:, None, None]
        start[..., COLOUR] = torch.where(alike, start[:, :1, COLOUR], start[..., COLOUR])
        end = self._project(start, concept, parameter)
        others = self._others(r * tries, generator).unflatten(0, (r, tries))
        if others.shape[2]:
            away = self._away(others.flatten(0, 1), concept, parameter, tries).view(r, tries)
            # 2 for the first that is far enough, then less; below 1 the others by distance.
            order = torch.arange(tries, device=away.device) / tries
            rank = torch.where(away >= self.margin, 2 - order, (away / 10).clamp(max=0.9))
            others = others[torch.arange(r, device=away.device), rank.argmax(1)]
        else:
            others = others[:, 0]
        if self.n_decoys:
            group = others[:, : self.n_decoys, COLOUR]
            others[:, : self.n_decoys, COLOUR] = torch.where(alike, group[:, :1], group)
        uniform = torch.rand(r, self.n_entities, generator=generator, device=generator.device)
        places = uniform.argsort(1)  # which entities the attended, the decoys, the others are
        index = places.argsort(1)
        mask = index < m
        pick = index[..., None].expand(-1, -1, ENTITY)
        start, end = (torch.cat([part, others], 1).gather(1, pick) for part in (start, end))
        return Scenes(start, end, mask)

    def distance(self, x: Tensor, mask: Tensor, tasks: Tasks) -> Tensor:
        """Mean distance of the attended entities to the concept's set, `(k, n)`.

        Args:
            x: `(k, n, N, 5)`.
            mask: `(k, n, N)`, with the family's m attended in each.
        """
        group = attended(x, mask)[0].flatten(0, 1)
        nearest = self._project(group, tasks.concept.flatten(), tasks.parameter.flatten(0, 1))
        return _length(group - nearest)[..., 0].mean(-1).view(x.shape[:2])

    def _parameters(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        device = generator.device
        concept = torch.randint(len(self.concepts), (n,), generator=generator, device=device)
        uniform = torch.rand(n, 4, generator=generator, device=device)
        bounds = [
            [
                (*side, *[0.0] * (4 - len(side)))
                for side in (CONCEPTS[name].low, CONCEPTS[name].high)
            ]
            for name in self.concepts
        ]
        low, high = torch.tensor(bounds, device=device)[concept].unbind(1)
        return concept, low + (high - low) * uniform

    def _scatter(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Entities anywhere in [-1, 1]^2, of any colour."""
        x = torch.rand(*shape, ENTITY, generator=generator, device=generator.device)
        x[..., POSITION] = 2 * x[..., POSITION] - 1
        return x

    def _others(self, n: int, generator: torch.Generator) -> Tensor:
        """`(n, N - m, 5)`, the first of them a decoy group."""
        concept, parameter = self._parameters(n, generator)
        x = self._scatter((n, self.n_entities - self.n_attended), generator)
        if self.n_decoys:
            x[:, : self.n_decoys] = self._project(x[:, : self.n_decoys], concept, parameter)
        return x

    def _away(self, x: Tensor, concept: Tensor, parameter: Tensor, tries: int) -> Tensor:
        """How far the others are from the concept, `(r * tries, ...)` to `(r * tries,)`."""
        concept, parameter = concept.repeat_interleave(tries), parameter.repeat_interleave(tries, 0)
        away = torch.full_like(x[:, 0, 0], math.inf)
        for i, name in enumerate(self.concepts):
            rows, kind = concept == i, CONCEPTS[name]
            group = x[rows] if kind.each else x[rows][:, : self.n_decoys]
            if group.numel():
                off = _length(group - kind.project(group, parameter[rows]))[..., 0]
                away[rows] = off.amin(1) if kind.each else off.mean(1)
        return away

    def _project(self, x: Tensor, concept: Tensor, parameter: Tensor) -> Tensor:
        if len(self.concepts) == 1:
            return CONCEPTS[self.concepts[0]].project(x, parameter)
        out = x.clone()
        for i, name in enumerate(self.concepts):
            rows = concept == i
            if rows.any():
                out[rows] = CONCEPTS[name].project(x[rows], parameter[rows])
        return out
