"""Losses side by side on LeCun et al.'s parabola: what each makes of the same networks.

    learn       objectives x seeds in one pass; a seed has its own first weights, data and batches,
                and they are the same for all objectives: what is compared is paired
    weighted    MEE with limits to the weight of an example, to see which part of it does the harm
    fixed_pit   what MEE pays, with a density, for a ravine that ignores the question

MEE is 1 - p and NLL is -log p of the same example, so that the gradient of MEE is p times that of
NLL: with a probability p an example that is answered badly has next to no weight, and with a
density in its place one that is answered well can have any.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmref import losses, parabola
from ebmref.parabola import Objective
from ebmref.seeds import derive_seed

# An argmin worse than half the best constant answer's mean error, 1/4, has not learned.
BAR = 0.125
# Below this relief no answer is twice as likely as another, at temperature one.
FLAT = math.log(2)


class Learned(NamedTuple):
    """What s seeds of each of o objectives came to.

    Attributes:
        names: of the objectives.
        model: all networks, the seeds of the first objective first.
        score: see `parabola.Score`, `(o, s)` each.
        x: `(n,)`, an even grid of [-1, 1].
        off: `(o, s, n)`, |argmin_y E(x, y) - x^2| there, the argmin of 201 answers 0.01 apart.
    """

    names: tuple[str, ...]
    model: nn.Module
    score: parabola.Score
    x: Tensor
    off: Tensor

    def of(self, name: str, what: str = "error") -> Tensor:
        """A field of the score, or `off`, of the seeds of an objective: `(s,)` or `(s, n)`."""
        values = self.off if what == "off" else getattr(self.score, what)
        return values[self.names.index(name)]

    def wrong(self, name: str) -> int:
        """How many seeds answer worse than the bar."""
        return int((self.of(name) > BAR).sum())

    def flat(self, name: str) -> int:
        """How many seeds have collapsed."""
        return int((self.of(name, "relief") < FLAT).sum())


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, f"losses-{stream}"))


def learn(
    objectives: Mapping[str, Objective], n_seeds: int, n_steps: int, seed: int, *,
    family: type[nn.Module] = parabola.Implicit, anneal: bool = False, n_answers: int = 41,
    device="cpu",
) -> Learned:  # fmt: skip
    """Train by each objective from the same first weights, on the same data and batches.

    Args:
        n_seeds: models of each objective, >= 1.
        n_steps: of Adam; 0 leaves the first weights as they are.
        family: of `parabola`.
        anneal: see `parabola.train`.
        n_answers: of the grid that losses see.
    """
    model = family(n_seeds, _source(seed, "weights", device))
    k = len(objectives)
    for weights in model.parameters():
        weights.data = weights.data.repeat(k, 1, 1)
    if n_steps:
        draws, chosen = _source(seed, "data", device), list(objectives.values())
        steps = parabola.train(
            model, chosen, n_steps, draws, anneal=anneal, own_data=True,
            grid=parabola.grid_of_answers(n=n_answers),
        )  # fmt: skip
        for _ in steps:
            pass
    score = parabola.Score(*(part.view(k, n_seeds).cpu() for part in parabola.score(model)))
    x = torch.linspace(-1, 1, 101, device=device)
    grid = parabola.grid_of_answers(n=201).to(device)
    with torch.no_grad():
        energy = model(x, torch.cat([x.square(), grid]))[1]
    off = (grid[energy.argmin(-1)] - x.square()).abs().view(k, n_seeds, -1)
    return Learned(tuple(objectives), model, score, x.cpu(), off.cpu())


def weighted(low: float = 0.0, high: float = math.inf) -> losses.Loss:
    """A loss with the gradient of NLL times p, p being kept between two limits.

    Without limits that is the gradient of `losses.minimum_empirical_error`, and with two equal ones
    that of NLL. Its value means nothing.

    Args:
        low, high: 0 <= low <= high; of a density, if that is what the answers are given by.
    """

    def loss(a: losses.Answers) -> Tensor:
        nll = losses.negative_log_likelihood(a)
        return (-nll).exp().detach().clamp(low, high) * nll

    return loss


def over(worse: Tensor, better: Tensor) -> Tensor:
    """Of two paired rows of errors `(s,)`, the median ratio."""
    return (worse / better).median()


def fixed_pit(width: float) -> float:
    """Mean density at (x, x^2) of E = |y| / width, which does not look at x, on the whole line.

    Its density is exp(-|y| / w) / (2 w), and x is uniform on [-1, 1].
    """
    return math.sqrt(math.pi / width) / 4 * math.erf(width**-0.5)


def surface(learned: Learned, name: str, n: int = 81) -> tuple[Tensor, Tensor, Tensor]:
    """The energy of the first seed of an objective, above its minimum at each x.

    Returns:
        x `(n,)`, y `(n,)` and energies `(n, n)`, the first index being that of x.
    """
    device = next(learned.model.parameters()).device
    x = torch.linspace(-1, 1, n, device=device)
    y = parabola.grid_of_answers(n=n).to(device)
    with torch.no_grad():
        energy = learned.model(x, torch.cat([x.square(), y]))[1]
    energy = energy[learned.names.index(name) * learned.off.shape[1]]
    return x.cpu(), y.cpu(), (energy - energy.amin(-1, keepdim=True)).cpu()


def mean_density(learned: Learned, name: str, n_answers: int = 2001) -> Tensor:
    """What one minus the MEE of a density is, on average over x, of each seed: `(s,)`.

    Args:
        n_answers: that the integral is summed over; with those of the training, what it saw.
    """
    device = next(learned.model.parameters()).device
    x, y = learned.x.to(device), parabola.grid_of_answers(n=n_answers).to(device)
    with torch.no_grad():
        right, energy = learned.model(x, torch.cat([x.square(), y]))
        log_z = (-energy).logsumexp(-1) + (y[1] - y[0]).log()
    density = (-right - log_z).exp().mean(-1)
    return density.view(len(learned.names), -1)[learned.names.index(name)].cpu()


def row(learned: Learned, name: str) -> dict[str, object]:
    """A row of a table: medians of the seeds of an objective, and how many are flat or wrong."""
    whats = ("error", "relief", "lead", "ranking")
    error, relief, lead, ranking = (float(learned.of(name, what).median()) for what in whats)
    return {
        "relief": f"{relief:.2f}", "collapsed": learned.flat(name),
        "lead": f"{lead:.2f}", "ranking": f"{ranking:.3f}",
        "error": f"{error:.3f}", "beyond the bar": learned.wrong(name),
    }  # fmt: skip


def told(learned: Learned, name: str, *whats: str) -> dict[str, object]:
    """Numbers of an objective for the ledger.

    Args:
        whats: "error", whose median is told; "relief", "lead" or "ranking", a number a seed;
            "wrong" or "flat", which are counts.
    """
    count = {"wrong": learned.wrong, "flat": learned.flat}

    def number(what: str):
        if what in count:
            return count[what](name)
        values = learned.of(name, what)
        return values.median() if what == "error" else values

    return {what: number(what) for what in whats}


def limits(plain: Tensor, least: Tensor, most: Tensor) -> dict[str, object]:
    """What limits of the weight do to the errors of seeds `(s,)`, paired, for the ledger."""
    return {
        "error": plain.median(),
        "wrong": int((plain > BAR).sum()),
        "wrong-share": float((plain > BAR).double().mean()),
        "least-wrong": int((least > BAR).sum()),
        "most-wrong": int((most > BAR).sum()),
        "over-least": over(plain, least),
        "over-most": over(plain, most),
    }
