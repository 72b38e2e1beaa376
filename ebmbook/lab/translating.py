"""How often a recipe of translation arrives: arms of an experiment, on the rooms of `rooms`.

    Arm       a recipe with the networks that it is played with
    follow    k trainings of an arm side by side, judged on the way
    trial     several arms from the same seeds
    tally     how many arrived and how the others failed, with exact intervals
    apart     by how much two arms differ, in pairs

A rate is over weights and batches; the rooms and the readers are those of one seed.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ebmbook.lab import rooms
from ebmbook.lab.ambiguity import interval
from ebmbook.lab.likelihood_exact import Estimate
from ebmbook.lab.rooms import SEEN, Judgement, Task
from ebmref import training
from ebmref import translation as T
from ebmref.seeds import derive_seed


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train translators.

    Attributes:
        recipe: its losses and rates; `anneal_over` is set to the steps that are made.
        ways: 2, or 1 for A to B alone.
        start, norm: of the translators, see `T.Translator`.
    """

    recipe: T.Recipe
    ways: int = 2
    start: str = "identity"
    norm: str = "layer"

    def but(self, *, ways=None, start=None, norm=None, **recipe) -> "Arm":
        """The same but for what is named, of the arm or of its recipe."""
        given = {"ways": ways, "start": start, "norm": norm}
        changed = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(
            self, recipe=dataclasses.replace(self.recipe, **recipe), **changed
        )


CYCLE = Arm(T.Recipe(cycle=2.0))
TRAVEL = Arm(T.Recipe(travel=1.0, margin=1.0, batch=8), ways=1)
# The published settings, as far as they fit pictures of this size.
OFFICIAL_CYCLE = Arm(
    T.Recipe(
        cycle=10.0, identity=5.0, penalty=0.0, adversary="least-squares", pool=50, batch=1,
        learning_rate=(2e-4, 2e-4), average=0.0,
    ),
    start="plain", norm="instance",
)  # fmt: skip
OFFICIAL_TRAVEL = TRAVEL.but(travel=10.0, margin=10.0)


def game(given: Task, arm: Arm, n_models: int, n_steps: int, seed: int, width: int = 16) -> T.Game:
    """k translations at their start. Arms with the same networks start from the same weights."""
    draws = torch.Generator(given.a.train.device).manual_seed(derive_seed(seed, "translators"))
    players = T.picture_players(
        given.picture, n_models, draws, ways=arm.ways, start=arm.start, norm=arm.norm,
        siamese=bool(torch.tensor(arm.recipe.travel).any()), width=width,
    )  # fmt: skip
    recipe = dataclasses.replace(arm.recipe, anneal_over=n_steps)
    return T.Game(players, (n_models, *given.picture), recipe, seed)


class Course(NamedTuple):
    """k trainings of an arm.

    Attributes:
        counts: steps at which they were judged.
        judged: the judgement at each, by way.
        shown: `(counts, frames, 3, side, side)`, what the first translator makes of some pictures.
        game: as it is at the end.
    """

    counts: tuple[int, ...]
    judged: list[dict[str, Judgement]]
    shown: Tensor | None
    game: T.Game

    @property
    def end(self) -> Judgement:
        """A to B, after the last step."""
        return self.judged[-1]["ab"]


def follow(
    given: Task, arm: Arm, n_models: int, counts: tuple[int, ...], seed: int, *,
    width: int = 16, show: Tensor | None = None, checkpoint: Path | None = None,
    progress: bool = False,
) -> Course:  # fmt: skip
    """Train an arm, and judge its averaged weights at each of the counts.

    Args:
        n_models: k, which differ in weights and in the order of their batches.
        counts: steps, rising; the rates reach zero at the last.
        width: of the nets, see `T.picture_players`.
        show: `(frames, 3, side, side)` pictures of A to translate at each count.
        checkpoint: None, or a path; each count has one of its own beside it.
    """
    made = game(given, arm, n_models, counts[-1], seed, width)
    data = given.a.train, given.b.train
    judged, shown = [], []
    for count in counts:
        at = checkpoint and checkpoint.with_name(f"{checkpoint.stem}-{count}.pt")
        training.bring(made, count, data=data, checkpoint=at, progress=progress)
        judged.append(both_ways(given, made))
        if show is not None:
            some = show.expand(n_models, *show.shape)
            shown.append(T.translate(made.average["ab"], some)[0])
    return Course(counts, judged, torch.stack(shown) if shown else None, made)


def both_ways(given: Task, made: T.Game) -> dict[str, Judgement]:
    """Translations of what is held out, judged, for each way that there is."""
    sources = {"ab": given.a.test, "ba": given.developed}
    k = made.shape[0]
    return {
        way: rooms.judge(given, T.translate(net, sources[way].expand(k, *sources[way].shape)), way)
        for way, net in made.average.items()
    }


@torch.no_grad()
def bend(given: Task, made: T.Game) -> Tensor:
    """Travel loss of all that is held out, A to B, `(k,)`; -1 at least."""
    k, a = made.shape[0], given.a.test
    a = a.expand(k, *a.shape)
    siamese = made.players.siamese
    return T.travel_loss(siamese(a), siamese(T.translate(made.average["ab"], a)))


class Share(NamedTuple):
    """How many of so many, with an exact interval (Clopper & Pearson) of 95 %."""

    n: int
    of: int
    low: float
    high: float

    def told(self) -> str:
        """In words."""
        return f"{self.n} of {self.of} ({self.low:.2f} to {self.high:.2f})"

    @property
    def value(self) -> float:
        """The share."""
        return self.n / self.of


def share(hits: Tensor) -> Share:
    """Of booleans `(k,)`."""
    return Share(int(hits.sum()), len(hits), *interval(hits))


class Tally(NamedTuple):
    """Of k translations, by what one sees of them; one that has not arrived may be none of these.

    Attributes:
        arrived: see `rooms.arrived`.
        swapped: nine in ten balls or more are of the wrong kind.
        mirrored: yaw is wrong by 1.5 standard deviations or more; 2 where left is right.
        collapsed: pictures vary by less than half of what true ones do.
    """

    arrived: Share
    swapped: Share
    mirrored: Share
    collapsed: Share


def tally(given: Task, judged: Judgement, **rule: float) -> Tally:
    """Counts of k translations A to B.

    Args:
        rule: see `rooms.arrived`.
    """
    spread = given.b.test.std(0).mean() / 2
    return Tally(
        share(rooms.arrived(judged, **rule)),
        share(judged.kind <= 0.1),
        share(judged.parts[:, SEEN.index("yaw")] >= 1.5),
        share(judged.spread < 0.5 * spread),
    )


def row(given: Task, course: Course, **rule: float) -> dict[str, str | int]:
    """A row of a table: how many arrived, medians, and how the others look.

    Args:
        rule: see `rooms.arrived`.
    """
    end, told = course.end, tally(given, course.end, **rule)
    return {
        "arrived": told.arrived.told(),
        "content": f"{end.content.median():.2f}",
        "error": f"{end.error.median():.3f}",
        "Frechet distance": f"{end.frechet.median():.1f}",
        "kinds right": f"{end.kind.median():.2f}",
        "swapped": told.swapped.n,
        "mirrored": told.mirrored.n,
        "collapsed": told.collapsed.n,
    }


def slug(name: str) -> str:
    """An arm's name as a topic of the ledger, and in a file's name."""
    return name.lower().replace(",", "").replace(" ", "-")


def trial(
    given: Task, arms: dict[str, Arm], n_models: int, counts: tuple[int, ...], seed: int, *,
    width: int = 16, checkpoint: Path | None = None, progress: bool = False,
) -> dict[str, Course]:  # fmt: skip
    """`follow` each of the arms; those with the same networks start from the same weights, and see
    the same batches where these are of a size.

    Args:
        arms: by name; see `follow` for the rest.
        checkpoint: None, or a path; each arm has paths of its own beside it, after its `slug`.
    """
    found = {}
    for name, arm in arms.items():
        own = checkpoint and checkpoint.with_name(f"{checkpoint.stem}-{slug(name)}.pt")
        found[name] = follow(
            given, arm, n_models, counts, seed, width=width, checkpoint=own, progress=progress
        )
    return found


def apart(one: Course, other: Course) -> Estimate:
    """Content error of one arm less that of another, mean over models that are paired by seed."""
    less = one.end.content - other.end.content
    return Estimate(less.mean(), less.std() / len(less) ** 0.5)
