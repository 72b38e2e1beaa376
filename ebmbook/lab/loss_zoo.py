"""Losses side by side on LeCun et al.'s parabola: what each makes of the same networks.

    learn       objectives x seeds in one pass; a seed has its own first weights, data and batches,
                and they are the same for all objectives: what is compared is paired
    weighted    MEE with limits to the weight of an example, to see which part of it does the harm
    Weights     MEE's weights, for another loss to deal out to other examples of the batch
    stretched   a loss of differences of energies, with another scale of theirs
    fits        whether a lower energy is a better answer, by ranks
    fixed_pit   what MEE pays, with a density, for a ravine that ignores the question

MEE is 1 - p and NLL is -log p of the same example, so that the gradient of MEE is p times that of
NLL: with a probability p an example that is answered badly has next to no weight, and with a
density in its place one that is answered well can have any.
"""

import math
from collections.abc import Callable, Mapping
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
# No weight is larger: a density has no bound, and Adam squares what it is given, which overflows
# in single precision beyond 10^19.
MOST = 1e6


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
    family: Callable[..., nn.Module] = parabola.Implicit, anneal: bool = False,
    learning_rate: float = 3e-3, n_answers: int = 41, device="cpu",
) -> Learned:  # fmt: skip
    """Train by each objective from the same first weights, on the same data and batches.

    Args:
        n_seeds: models of each objective, >= 1.
        n_steps: of Adam; 0 leaves the first weights as they are.
        family: of `parabola`.
        anneal, learning_rate: see `parabola.train`.
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
            learning_rate=learning_rate, grid=parabola.grid_of_answers(n=n_answers),
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


def weighted(low: float = 0.0, high: float = MOST) -> losses.Loss:
    """A loss with the gradient of NLL times p, p being kept between two limits.

    Within the limits that is the gradient of `losses.minimum_empirical_error`, and with two equal
    ones that of NLL. Its value means nothing.

    Args:
        low, high: 0 <= low <= high; of a density, if that is what the answers are given by.
    """

    def loss(a: losses.Answers) -> Tensor:
        nll = losses.negative_log_likelihood(a)
        return _weight(nll).clamp(low, high) * nll

    return loss


def _weight(nll: Tensor) -> Tensor:
    return (-nll.detach()).exp().clamp(max=MOST)


class Weights:
    """The weights p that MEE gives the examples of a batch, for other losses to deal out.

        own = Weights()
        {"MEE": own.kept, "dealt": own.dealt("at random"), "falling": own.dealt("falling")}

    Trained side by side, in this order, the three have the same weights at every step, those of
    MEE's networks as they then are; only whose they are differs.

    Attributes:
        p: `(..., b)`, of the last batch that `kept` saw.
    """

    p: Tensor

    def kept(self, a: losses.Answers) -> Tensor:
        """`weighted()`, which has MEE's gradient; keeps its weights."""
        nll = losses.negative_log_likelihood(a)
        self.p = _weight(nll)
        return self.p * nll

    def dealt(self, order: str) -> losses.Loss:
        """NLL, with the kept weights of the batch in another order.

        Args:
            order: "at random" gives each example its neighbour's weight, and a batch is drawn at
                random; "falling" gives the largest weight to the example of the least p.

        Raises:
            ValueError: another order.
        """
        return lambda a: _deal(losses.negative_log_likelihood(a), self.p, order)


def redealt(order: str) -> losses.Loss:
    """NLL with weights p, each loss its own, in another order; see `Weights.dealt`."""

    def loss(a: losses.Answers) -> Tensor:
        nll = losses.negative_log_likelihood(a)
        return _deal(nll, _weight(nll), order)

    return loss


def _deal(nll: Tensor, p: Tensor, order: str) -> Tensor:
    if order == "at random":
        return p.roll(1, -1) * nll
    if order != "falling":
        raise ValueError(f"order: expected 'at random' or 'falling'; got {order!r}")
    rank = nll.detach().argsort(-1).argsort(-1)  # 0 is answered best, and gets the least
    return p.sort(-1).values.gather(-1, rank) * nll


def stretched(loss: losses.Loss, scale: float) -> losses.Loss:
    """The loss of energies divided by `scale`.

    That is the hinge with `scale` times its margin, but for a factor, which Adam divides out.
    """
    return lambda a: loss(losses.Answers(*(energy / scale for energy in a)))


def middle(values: Tensor) -> tuple[Tensor, Tensor]:
    """The median of `(n,)`, n >= 2, and its standard error: half of the 68 % interval by ranks.

    As many of n independent draws lie below the median as heads come up in n throws of a coin, of
    which the standard deviation is sqrt(n) / 2.
    """
    rows = values.double().sort().values
    n, reach = len(rows), len(rows) ** 0.5 / 2
    ends = torch.tensor([(n - 1) / 2 - reach, (n - 1) / 2 + reach]).clamp(0, n - 1)
    low, high = (_between(rows, float(end)) for end in ends)
    return rows.quantile(0.5), (high - low) / 2


def _between(rows: Tensor, at: float) -> Tensor:
    below = min(int(at), len(rows) - 2)
    return torch.lerp(rows[below], rows[below + 1], at - below)


def over(worse: Tensor, better: Tensor) -> tuple[Tensor, Tensor]:
    """Of two paired rows `(s,)`, the median ratio and its standard error, see `middle`."""
    return middle(worse / better)


def fits(learned: Learned, name: str) -> Tensor:
    """Spearman's correlation of E(x, y) and |y - x^2| over y, mean over x, of each seed: `(s,)`.

    1: the nearer of any two answers has the lower energy. The 201 answers are 0.01 apart; equal
    distances, of which there are few, are taken in the order of y.
    """
    device = next(learned.model.parameters()).device
    x, y = learned.x.to(device), parabola.grid_of_answers(n=201).to(device)
    with torch.no_grad():
        energy = learned.model(x, torch.cat([x.square(), y]))[1]
    distance = (y - x.square()[:, None]).abs()
    one, two = (_standard_ranks(values) for values in (energy, distance))
    found = (one * two).mean(-1).mean(-1)
    return found.view(len(learned.names), -1)[learned.names.index(name)].cpu()


def _standard_ranks(values: Tensor) -> Tensor:
    """Ranks along the last axis, of mean 0 and variance 1."""
    rank = values.argsort(dim=-1, stable=True).argsort(dim=-1).double()
    rank = rank - rank.mean(-1, keepdim=True)
    return rank / rank.square().mean(-1, keepdim=True).sqrt()


def given_up(learned: Learned, name: str, beyond: float = 0.8) -> int:
    """How many seeds of an objective answer an end of the questions worse than the bar.

    The ends are x < -beyond and x > beyond; one of them is enough.
    """
    off, x = learned.of(name, "off"), learned.x
    ends = torch.stack([off[:, x * side > beyond].mean(1) for side in (-1, 1)])
    return int((ends > BAR).any(0).sum())


def ends(learned: Learned, name: str) -> dict[str, object]:
    """A row of a table: the median error of an objective, how many fail or give up an end."""
    return {
        "error": f"{middle(learned.of(name))[0]:.3f}", "beyond the bar": learned.wrong(name),
        "give up an end": given_up(learned, name),
    }  # fmt: skip


def hits(learned: Learned, name: str) -> Tensor:
    """The share of questions whose lowest of the 41 answers is the one nearest to x^2: `(s,)`."""
    device = next(learned.model.parameters()).device
    x, y = learned.x.to(device), parabola.grid_of_answers().to(device)
    with torch.no_grad():
        energy = learned.model(x, torch.cat([x.square(), y]))[1]
    nearest = (y - x.square()[:, None]).abs().argmin(-1)
    found = (energy.argmin(-1) == nearest).double().mean(-1)
    return found.view(len(learned.names), -1)[learned.names.index(name)].cpu()


def interval(count: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share of which `count` of n was seen, at 95 %."""
    share, slack = count / n, z * z / n
    centre = (share + slack / 2) / (1 + slack)
    reach = z * math.sqrt(share * (1 - share) / n + slack / (4 * n)) / (1 + slack)
    return centre - reach, centre + reach


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
    # In double precision: between the answers of a coarse sum densities of 10^70 were seen.
    density = (-right - log_z).double().exp().mean(-1)
    return density.view(len(learned.names), -1)[learned.names.index(name)].cpu()


def row(learned: Learned, name: str, annealed: Learned) -> dict[str, object]:
    """A row of a table: medians of the seeds of an objective, and how many are flat or wrong.

    Args:
        annealed: otherwise trained, of whose errors is told beside, where it has the objective.
    """
    whats = ("error", "relief", "lead")
    error, relief, lead = (float(middle(learned.of(name, what))[0]) for what in whats)
    also = name in annealed.names
    return {
        "relief": f"{relief:.2f}", "collapsed": learned.flat(name), "lead": f"{lead:.2f}",
        "fit": f"{middle(fits(learned, name))[0]:.2f}", "error": f"{error:.3f}",
        "beyond the bar": learned.wrong(name),
        "annealed: error": f"{middle(annealed.of(name))[0]:.3f}" if also else "",
        "annealed: beyond": annealed.wrong(name) if also else "",
    }  # fmt: skip


def told(learned: Learned, name: str, *whats: str) -> dict[str, object]:
    """Numbers of an objective for the ledger.

    Args:
        whats: "error", "relief", "lead", "ranking" or "fit" (see `fits`), whose medians are told;
            "wrong" or "flat", which are counts.
    """
    count = {"wrong": learned.wrong, "flat": learned.flat}

    def number(what: str):
        if what in count:
            return count[what](name)
        return middle(fits(learned, name) if what == "fit" else learned.of(name, what))

    return {what: number(what) for what in whats}
