"""Energies of concepts: learned side by side, asked on tasks they never saw, and shown.

    SIZES, learn       networks of a concept, trained
    inquire            what they do on other tasks, with a control by the codes of others
    held_out_loss      the loss that they descend, there
    codes, scenes_of, masks_of
                       what is inferred, step by step
    away, misled, Misled
                       what the wrong codes do
    searched, from_starts, undercut
                       the mask of least energy by search and by several descents
    over_one, zeros, Zeros
                       the energy itself: over one place, and where it should be zero
    middle, centre, short, typical, told
                       many networks in a few numbers
    dots, frame, event, moved, landscape, ringed, bars, strips
                       scenes and networks in a figure

Shapes: k networks side by side that never meet, n tasks of each.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ebmbook import plots
from ebmref import concepts, training
from ebmref.concepts.scenes import COLOUR, POSITION, Family, Scenes, Tasks, attended
from ebmref.concepts.unrolling import Inner
from ebmref.seeds import derive_seed

# Widths and bumps, see `concepts.Energy`.
SIZES = {"near": {"hidden": 32, "bumps": 0}, "square": {"hidden": 48, "bumps": 8}}


def source(seed: int, stream: str, device="cpu") -> torch.Generator:
    """The generator of a named stream of a seed."""
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


# Learning ----------------------------------------------------------------------------------------


def learn(
    family: Family,
    n_models: int,
    n_steps: int,
    seed: int,
    *,
    weights: str,
    energy: dict | None = None,
    device="cpu",
    checkpoint: Path | None = None,
    progress: bool = False,
    **recipe,
) -> concepts.Energy:
    """k networks that learned a family, frozen.

    Args:
        family: from which their tasks are drawn, anew at each step.
        n_models: k, which differ in weights and tasks.
        n_steps: over which the rate falls to zero.
        seed: of weights and tasks; two calls that differ in the recipe alone see the same of both.
        weights: the stream from which first weights are drawn, such as the concept's name.
        energy: sizes of the networks, and first sizes of their steps; see `concepts.Energy`.
        checkpoint: None, or a path to keep the training at.
        progress: show a bar.
        recipe: what differs from the defaults of `concepts.Recipe`.
    """
    model = first(n_models, seed, weights, device, **(energy or {}))
    made = concepts.Recipe(anneal_over=n_steps, **recipe)
    learner = concepts.Learner(model, family, made, seed)
    training.bring(learner, n_steps, checkpoint=checkpoint, save_every=200, progress=progress)
    return model.requires_grad_(False)


def first(n_models: int, seed: int, weights: str, device="cpu", **energy) -> concepts.Energy:
    """The networks that `learn` begins with."""
    return concepts.Energy(n_models, source(seed, f"{weights}-weights", device), **energy)


def double(model: concepts.Energy) -> concepts.Energy:
    """A copy in double precision."""
    return copy.deepcopy(model).double()


# Asking ------------------------------------------------------------------------------------------


class Answers(NamedTuple):
    """Means over tasks that were never seen, `(k,)` each; see `concepts.Measured`.

    Attributes:
        before, after: distance of the attended entities to the concept's set, in the scene that is
            given and in the one that is found.
        after_wrong: the same, with the code of another task.
        exact, exact_wrong: share of scenes whose entities of most attention are the true ones; with
            the code of another task.
        strict: share where besides every attention is on the right side of 1/2.
        accuracy: share of entities whose attention is on the right side of 1/2.
    """

    before: Tensor
    after: Tensor
    after_wrong: Tensor
    exact: Tensor
    exact_wrong: Tensor
    strict: Tensor
    accuracy: Tensor


def by_model(values: Tensor, rows: Tensor | None = None) -> Tensor:
    """Means of `(k, n)` over the tasks, or over those of the rows `(k, n)`: `(k,)`, double."""
    weights = torch.ones_like(values, dtype=torch.double) if rows is None else rows.double()
    return (values.double() * weights).sum(1) / weights.sum(1)


def inquire(model: concepts.Energy, family: Family, tasks: Tasks, n_steps: int = 5) -> Answers:
    """Infer codes, scenes and masks in so many steps, and hold them against the truth."""
    found = concepts.measure(model, family, tasks, Inner(n_steps))
    return Answers(*(by_model(getattr(found, name)) for name in Answers._fields))


@torch.no_grad()
def held_out_loss(model: concepts.Energy, tasks: Tasks, **recipe) -> Tensor:
    """What training descends, on tasks `(k, n)`: `(k,)`. Both questions, weighed as there."""
    made = concepts.Recipe(**recipe)
    loss = concepts.truth_loss if made.loss == "truth" else concepts.contrast_loss
    generated, identified = loss(model, tasks, made)
    return made.generate * generated + made.identify * identified


def with_demos(tasks: Tasks, d: int) -> Tasks:
    """The same questions, after the first d demonstrations."""
    return tasks._replace(demos=Scenes(*(part[:, :, :d] for part in tasks.demos)))


def head(tasks: Tasks, n: int) -> Tasks:
    """The first n tasks of each network."""
    demos, query = (Scenes(*(part[:, :n] for part in each)) for each in tasks[:2])
    return Tasks(demos, query, tasks.concept[:, :n], tasks.parameter[:, :n])


def others(tasks: Tasks) -> Tasks:
    """The same questions about the concepts of other tasks, whose codes are `w.roll(1, 1)`."""
    return tasks._replace(
        demos=Scenes(*(part.roll(1, 1) for part in tasks.demos)),
        concept=tasks.concept.roll(1, 1),
        parameter=tasks.parameter.roll(1, 1),
    )


def codes(model: concepts.Energy, tasks: Tasks, n_steps: int = 5) -> Tensor:
    """Codes of the demonstrations, `(k, n, c)`."""
    return concepts.infer_code(model, tasks.demos, Inner(n_steps, "none"))[-1]


def scenes_of(model: concepts.Energy, tasks: Tasks, w: Tensor, n_steps: int = 5) -> list[Tensor]:
    """The scenes that codes make of the questions, `(k, n, N, 5)`, step by step."""
    query = tasks.query
    return concepts.infer_scene(model, query.start, query.mask, w, Inner(n_steps, "none"))


def masks_of(model: concepts.Energy, tasks: Tasks, w: Tensor, n_steps: int = 5) -> list[Tensor]:
    """The attention that codes find in the questions, `(k, n, N)`, step by step."""
    return concepts.infer_mask(model, tasks.query.end, w, Inner(n_steps, "none"))


def spread_out(tasks: Tasks, network: int) -> int:
    """The task whose attended entities lie farthest apart, to be seen in a figure.

    The one whose least distance between two of them is largest, among those of a network.
    """
    group = attended(tasks.query.end, tasks.query.mask)[0][network, ..., POSITION]
    gap = (group[:, :, None] - group[:, None]).norm(dim=-1)
    gap = gap + torch.eye(gap.shape[-1], device=gap.device) * 1e9
    return int(gap.amin((1, 2)).argmax())


def away(tasks: Tasks, w: Tensor, task: int = 0) -> Tensor:
    """For every task, the code of the one whose parameter is farthest from that of `task`.

    By network, `(k, n, c)`; for a figure that shows what a wrong code does.
    """
    numbers = tasks.parameter
    far = (numbers - numbers[:, task, None]).norm(dim=-1).argmax(1)
    return w[torch.arange(len(w), device=w.device), far][:, None].expand_as(w)


class Misled(NamedTuple):
    """What networks make of the codes of other tasks, `(k,)` each.

    Attributes:
        decoys: share of scenes in which they attend to the decoys exactly, all others.
        theirs: distance of the scene they make to what the code was shown.
    """

    decoys: Tensor
    theirs: Tensor


def misled(model: concepts.Energy, family: Family, tasks: Tasks, w: Tensor) -> Misled:
    """Ask with the codes of others, where `w` are the right ones."""
    wrong, query = w.roll(1, 1), tasks.query
    a = masks_of(model, tasks, wrong)[-1]
    x = scenes_of(model, tasks, wrong)[-1]
    return Misled(
        by_model(concepts.is_exact(a, ~query.mask)),
        by_model(family.distance(x, query.mask, others(tasks))),
    )


# The mask of least energy ------------------------------------------------------------------------


@torch.no_grad()
def searched(model: concepts.Energy, x: Tensor, w: Tensor, m: int = 4) -> Tensor:
    """Of all masks of m entities the one of least energy in scenes `(k, n, N, 5)`: `(k, n, N)`."""
    size = x.shape[2]
    every = torch.combinations(torch.arange(size, device=x.device), m)
    masks = torch.zeros(len(every), size, dtype=x.dtype, device=x.device).scatter(1, every, 1.0)
    related = model.relate(model.meet(x), w)
    energy = torch.stack(
        [model(None, mask.expand(x.shape[:3]), w, None, related) for mask in masks]
    )
    return masks[energy.argmin(0)]


def from_starts(
    model: concepts.Energy, x: Tensor, w: Tensor, n_starts: int, generator: torch.Generator
) -> Tensor:
    """The attention of least energy that so many descents find, `(k, n, N)`."""
    return concepts.best_mask(model, x, w, Inner(5, "none"), n_starts, generator)


@torch.no_grad()
def undercut(model: concepts.Energy, tasks: Tasks, a: Tensor, w: Tensor) -> Tensor:
    """Share of scenes in which an attention `(k, n, N)` has less energy than the truth, `(k,)`."""
    query = tasks.query
    true = model(query.end, query.mask.to(a.dtype), w)
    return by_model(model(query.end, a.sigmoid(), w) < true)


# The energy itself -------------------------------------------------------------------------------


def grid(n: int, reach: float = 1.2, device="cpu") -> Tensor:
    """Places `(n^2, 2)` of a square about the origin, the second coordinate fastest."""
    line = torch.linspace(-reach, reach, n, device=device)
    return torch.cartesian_prod(line, line)


@torch.no_grad()
def over_one(model: concepts.Energy, tasks: Tasks, w: Tensor, places: Tensor) -> Tensor:
    """E where the first attended entity is anywhere and the others where they belong.

    Args:
        places: `(p, 2)`.

    Returns:
        `(k, n, p)`.
    """
    group, s, _ = attended(tasks.query.end, tasks.query.mask)
    rows = []
    for i in range(group.shape[1]):
        each = group[:, i, None].expand(-1, len(places), -1, -1).clone()
        each[:, :, 0, POSITION] = places
        at, code = (part[:, i, None].expand(-1, len(places), -1) for part in (s, w))
        rows.append(model(each, at, code))
    return torch.stack(rows, 1)


def lowest(energy: Tensor, places: Tensor, target: Tensor) -> Tensor:
    """How far the lowest of the places is from where it should be, median over tasks: `(k,)`.

    Args:
        energy: `(k, n, p)`.
        places: `(p, 2)`.
        target: `(k, n, 2)`.
    """
    return (places[energy.argmin(-1)] - target).norm(dim=-1).median(1).values


class Zeros(NamedTuple):
    """How near to zero the energy is where the concept is satisfied, `(k,)` each.

    Attributes:
        below_start: share of tasks whose end has less energy than their start.
        below_decoys: share whose attended entities have less energy than the decoys.
        of_start: energy of the end over that of the start, medians over tasks.
        over_rounding: median energy of the end over what single precision changes in it.
    """

    below_start: Tensor
    below_decoys: Tensor
    of_start: Tensor
    over_rounding: Tensor


@torch.no_grad()
def zeros(model: concepts.Energy, tasks: Tasks, w: Tensor) -> Zeros:
    """Energies at ends, starts and decoys of tasks of which `w` are the codes."""
    query = tasks.query
    group, s, _ = attended(query.end, query.mask)
    end = model(group, s, w)
    start = model(*attended(query.start, query.mask)[:2], w)
    decoys = model(*attended(query.end, ~query.mask)[:2], w)
    finer = double(model)(group.double(), s.double(), w.double())
    noise = (end.double() - finer).abs().median(1).values
    return Zeros(
        by_model(end < start),
        by_model(end < decoys),
        end.median(1).values / start.median(1).values,
        finer.median(1).values / noise,
    )


# Many networks in a few numbers ------------------------------------------------------------------


class Middle(NamedTuple):
    """The network in the middle, and how far the others are spread.

    Attributes:
        median: of the values.
        low, high: two of the values, between which the median of all networks is with 95 %
            confidence, whatever their law; least and most where they are too few for that.
        least, most: of the values.
    """

    median: float
    low: float
    high: float
    least: float
    most: float


def middle(values) -> Middle:
    """Of the values of networks, `(k,)`.

    Raises:
        ValueError: fewer than two.
    """
    values = np.sort(host(values))
    n = len(values)
    if n < 2:
        raise ValueError(f"values: expected two or more; got {n}")
    # The median is below the value of index i with the probability that i of n or fewer are.
    i = max(int((stats.binom.cdf(np.arange(n), n, 0.5) <= 0.025).sum()) - 1, 0)
    return Middle(
        float(np.median(values)), float(values[i]), float(values[n - 1 - i]),
        float(values[0]), float(values[-1]),
    )  # fmt: skip


def centre(values) -> tuple[float, float]:
    """The median of networks, `(k,)`, and its standard error: what the interval's half-width is to
    1.96 of a Gaussian."""
    found = middle(values)
    return found.median, (found.high - found.low) / (2 * 1.96)


def short(value, digits: int = 2) -> float:
    """A number without the digits that say nothing."""
    return float(f"{float(value):.{digits}g}")


def typical(values) -> int:
    """The network in the middle, or the lower of the two: its index in `(k,)`."""
    return int(torch.as_tensor(values).argsort()[(len(values) - 1) // 2])


def told(values, digits: int = 2) -> str:
    """Of the values of networks, for a table: the median, and least and most in brackets."""
    found = middle(values)
    median, least, most = (_short(v, digits) for v in (found.median, found.least, found.most))
    return f"{median} ({least} to {most})"


def _short(value: float, digits: int) -> str:
    """So many digits that count, without a power of ten where a reader can do without."""
    text = f"{value:#.{digits}g}"
    if "e" not in text:
        return text.rstrip(".")
    base, power = text.split("e")
    return f"${base} \\times 10^{{{int(power)}}}$"


# In a figure -------------------------------------------------------------------------------------


def host(x) -> np.ndarray:
    """As a numpy array of double precision."""
    return torch.as_tensor(x).detach().double().cpu().numpy()


def dots(ax, x: Tensor, colour=None, **style) -> None:
    """Entities `(n, 5)` where they are, in their colours or in one."""
    if colour is None:
        colour = host(x[:, COLOUR]).clip(0, 1)
        style = {"edgecolors": plots.INK, "linewidths": 0.5} | style
    ax.scatter(*host(x[:, POSITION]).T, c=colour, **style)


def frame(ax, title: str, reach: float = 1.25) -> None:
    """An empty square about the origin, with a thin frame and no ticks."""
    ax.set(
        xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[]
    )  # fmt: skip
    ax.set_title(title, fontsize=9)
    for side in ax.spines.values():
        side.set(visible=True, linewidth=0.5)


def event(ax, start: Tensor, end: Tensor, mask: Tensor, title: str) -> None:
    """A scene `(n, 5)` before (open) and after (full) its attended entities were moved."""
    dots(ax, start[~mask], s=16, alpha=0.3)
    for pair in torch.stack([start, end], 1)[mask]:
        ax.plot(*host(pair[:, POSITION]).T, color=plots.INK, lw=0.7)
    rims = host(start[mask][:, COLOUR]).clip(0, 1)
    dots(ax, start[mask], colour="none", s=40, linewidths=1.2, edgecolors=rims)
    dots(ax, end[mask], s=22)
    frame(ax, title)


def moved(ax, path: Tensor, end: Tensor, mask: Tensor, title: str) -> None:
    """The way `(steps, n, 5)` of the attended entities, and crosses where it should have ended."""
    dots(ax, path[0, ~mask], s=16, alpha=0.3)
    for i in mask.nonzero()[:, 0]:
        ax.plot(*host(path[:, i, POSITION]).T, ".-", ms=3, lw=1, color=plots.SAMPLER)
    dots(ax, path[-1, mask], s=26)
    dots(ax, end[mask], colour=plots.INK, marker="x", s=40, linewidths=1.2)
    frame(ax, title)


def landscape(ax, values: Tensor, reach: float) -> None:
    """Values over the places of `grid`, dark where they are low."""
    n = round(len(values) ** 0.5)
    ax.imshow(
        host(values).reshape(n, n).T, origin="lower", extent=(-reach, reach, -reach, reach),
        cmap=plots.ENERGY_MAP,
    )  # fmt: skip


def ringed(ax, x: Tensor, a: Tensor, mask: Tensor, title: str, size: float = 1.0) -> None:
    """Entities `(n, 5)`, a ring as wide as the attention on each, a square about those meant."""
    dots(ax, x, s=26 * size**2)
    for at, s in zip(host(x[:, POSITION]), host(a.sigmoid()), strict=True):
        ax.plot(
            *at, "o", ms=13 * size, mfc="none", mew=size * (0.1 + 2.6 * s), mec=plots.MODEL,
            alpha=float(0.15 + 0.85 * s),
        )  # fmt: skip
    dots(
        ax, x[mask], colour="none", marker="s", s=270 * size**2, linewidths=0.9 * size,
        edgecolors=plots.DATA,
    )  # fmt: skip
    frame(ax, title)


def bars(ax, a: Tensor, mask: Tensor) -> None:
    """The attention on each entity, `(n,)`, in a colour of their own on those that are meant."""
    colours = [plots.DATA if meant else plots.INK for meant in mask]
    ax.bar(range(len(mask)), host(a.sigmoid()), color=colours)
    ax.set(ylim=(0, 1), xticks=[], yticks=(0, 1), xlabel="entity")


def strips(ax, rows: dict[str, Sequence[float] | Tensor], colour: str = plots.DATA) -> None:
    """A row a name, from the top: a dot for each network, and a stroke at their median."""
    for i, values in enumerate(rows.values()):
        values = host(values)
        ax.plot(values, np.full(len(values), i), "o", ms=4, alpha=0.6, color=colour, mew=0)
        ax.plot([np.median(values)] * 2, [i - 0.3, i + 0.3], color=plots.INK, lw=1.5)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
