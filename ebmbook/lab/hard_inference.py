"""Answers that are quick to check and slow to find: one pass of a network against descent.

    x_1 = y_1,    x_i = y_i - swing sin(turns y_{i-1}),    x given, y sought

A chain is checked link by link, all at once, and solved one link after the other. Each question has
one answer y, and |x - check(y)|^2 has no stationary point but y: the Jacobian of the check is lower
triangular with ones on its diagonal.

Networks f of about the same number of weights learn from the same pairs (x, y):

    one pass    y = x + f(x)
    repeated    y <- x + f(x, y), from y = x; trained through its passes, one for each link
    untied      the same with another f in each pass: a deep network that sees x again
    descent     argmin_y |x - f(y)|^2 by L-BFGS, from y = x; f is fitted to the pairs as they are
    fed back    y <- y + x - f(y), from y = x; f is that of descent
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import inference, training
from ebmref.networks import Networks
from ebmref.seeds import derive_seed

LEARNED = ("one pass", "repeated", "untied", "descent")


def _source(seed: int, stream: str, device="cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


# The task ----------------------------------------------------------------------------------------


class Pairs(NamedTuple):
    """Questions and their answers, both `(*, length)`."""

    x: Tensor
    y: Tensor


@dataclasses.dataclass(frozen=True)
class Chain:
    """Links that depend on one another.

    Attributes:
        length: of a question, and of its answer.
        swing: how much a link can depend on the one before, in units of y.
        turns: radians a unit of y; an error grows up to swing * turns times from link to link.
    """

    length: int = 6
    swing: float = 1.0
    turns: float = 2.0

    def check(self, y: Tensor) -> Tensor:
        """The question that y answers, `(*, length)` to the same."""
        before = self.swing * torch.sin(self.turns * y[..., :-1])
        return torch.cat([y[..., :1], y[..., 1:] - before], -1)

    def solve(self, x: Tensor) -> Tensor:
        """The answer to x, `(*, length)` to the same."""
        y = [x[..., 0]]
        for link in x[..., 1:].unbind(-1):
            y.append(link + self.swing * torch.sin(self.turns * y[-1]))
        return torch.stack(y, -1)

    def draw(self, generator: torch.Generator, *shape: int) -> Pairs:
        """Pairs `(*shape, length)`, the questions standard normal."""
        x = torch.randn(*shape, self.length, generator=generator, device=generator.device)
        return Pairs(x, self.solve(x))


class Left(NamedTuple):
    """What answers leave of the variance of y, the mean of all links; `(k,)` each.

    The best constant has 1, a perfect answer 0, and an answer to another question 2.

    Attributes:
        error: the mean over answers.
        capped: the same, no answer counting more than 2, so that one that ran away is as bad as
            one to another question.
        typical: the median over answers.
    """

    error: Tensor
    capped: Tensor
    typical: Tensor


def unexplained(answers: Tensor, y: Tensor) -> Left:
    """Squared error of answers `(k, n, length)` over the variance of y."""
    left = ((answers - y).square() / y.flatten(0, -2).var(0)).mean(-1)
    return Left(left.mean(1), left.clamp_max(2.0).mean(1), left.median(1).values)


# Learning ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a way learns.

    Attributes:
        depth: hidden layers, all of one width.
        learning_rate: of Adam, falling to zero along a cosine.
        passes: that "repeated" and "untied" are trained through.
        batch: pairs a step, drawn anew for each.
    """

    depth: int
    learning_rate: float
    passes: int = 6
    batch: int = 128


def best(way: str, n_weights: int) -> Setting:
    """Of `sweep` on six links, seeds 200 and on, 3,000 steps, depths 1 to 7, rates of 0.01 to 0.2.

    One pass was swept as y = f(x). As y = x + f(x) it has the same best rates at 300, 1,000 and
    10,000 weights, of two or three each, and leaves slightly less.
    """
    if way == "one pass":
        return Setting(3, 6e-2 if n_weights < 3000 else 3e-2 if n_weights < 30_000 else 1e-2)
    if way == "untied":
        return Setting(1, 3e-2)
    return Setting(1, 3e-2 if way == "repeated" and n_weights >= 3000 else 6e-2)


class Stack(torch.nn.Module):
    """Networks of one shape, one for each pass."""

    def __init__(
        self, widths: tuple[int, ...], n_models: int, n_passes: int, generator: torch.Generator
    ):
        super().__init__()
        nets = (Networks(widths, n_models, generator) for _ in range(n_passes))
        self.nets = torch.nn.ModuleList(nets)

    @property
    def weights(self) -> list[Tensor]:
        """Of all."""
        return [weight for net in self.nets for weight in net.weights]


def sizes(way: str, length: int, depth: int, n_weights: int) -> tuple[int, ...]:
    """Widths of the layers, from input to output, whose weights and biases are nearest n_weights.

    Of "untied" these are the widths of a pass, all passes having so many together.

    Raises:
        ValueError: a way that is not learned.
    """
    if way not in LEARNED:
        raise ValueError(f"way: expected one of {', '.join(LEARNED)}; got {way!r}")
    n_in = 2 * length if way in ("repeated", "untied") else length
    n_weights = n_weights / length if way == "untied" else n_weights

    def shape(width: int) -> tuple[int, ...]:
        return (n_in, *[width] * depth, length)

    width = 1
    while count(shape(width + 1)) <= n_weights:
        width += 1
    return min(shape(width), shape(width + 1), key=lambda s: abs(count(s) - n_weights))


def count(widths: tuple[int, ...]) -> int:
    """Weights and biases of a network with these layers."""
    return sum((n + 1) * m for n, m in itertools.pairwise(widths))


def once(net: Networks, x: Tensor) -> Tensor:
    """y = x + f(x); the other ways add to x or start from it, too."""
    return x + net(x)


def passes(net: Networks | Stack, x: Tensor, n_passes: int) -> list[Tensor]:
    """y <- x + f(x, y), from y = x: the answers `(k, n, length)` after 1, 2, ... passes.

    A stack has no more passes than networks.
    """
    y, path = x, []
    for f in net.nets[:n_passes] if isinstance(net, Stack) else [net] * n_passes:
        y = x + f(torch.cat([x, y], -1))
        path.append(y)
    return path


def learn(
    way: str, chain: Chain, n_weights: int, setting: Setting, n_models: int, n_steps: int,
    seed: int, device="cpu",
) -> Networks | Stack:  # fmt: skip
    """k networks that learn side by side; they differ in weights and pairs.

    The i-th network of every way and size sees the same pairs.
    """
    widths = sizes(way, chain.length, setting.depth, n_weights)
    weights = _source(seed, f"weights {way} {widths}", device)
    if way == "untied":
        net = Stack(widths, n_models, setting.passes, weights)
    else:
        net = Networks(widths, n_models, weights)
    stream = _source(seed, "pairs", device)
    spread = chain.draw(_source(seed, "spread", device), 8192).y.var(0)

    def loss() -> Tensor:
        x, y = chain.draw(stream, n_models, setting.batch)
        if way == "descent":
            return (x - net(y)).square().mean((1, 2))
        answer = once(net, x) if way == "one pass" else passes(net, x, setting.passes)[-1]
        return ((answer - y).square() / spread).mean((1, 2))

    for _ in training.fit(net, loss, n_steps, setting.learning_rate, anneal=True):
        pass
    return net.requires_grad_(False)


# Answering ---------------------------------------------------------------------------------------


class Answered(NamedTuple):
    """How good answers are, by what they cost.

    Attributes:
        cost: multiplications by weights for one answer, `(c,)`, increasing.
        error, capped, typical: see `Left`, `(c, k)` each.
    """

    cost: Tensor
    error: Tensor
    capped: Tensor
    typical: Tensor

    def at(self, cost: float) -> int:
        """Where the cost is most nearly this one."""
        return int((self.cost.log() - torch.tensor(float(cost)).log()).abs().argmin())


def descend(check, x: Tensor, n_steps: int) -> Tensor:
    """Descents of |x - check(y)|^2 from y = x, `(n_steps + 1, k, n, length)`.

    Args:
        check: `(k, n, length)` to the same.
        x: `(k, n, length)`.
        n_steps: evaluations of the energy and its gradient after the first.
    """

    def energy(y: Tensor) -> Tensor:
        return (x - check(y.view_as(x))).square().sum(-1).flatten()

    found = inference.lbfgs_argmin(energy, x.flatten(0, 1), n_steps, keep_path=True)
    return found.path.view(-1, *x.shape)


def answer(way: str, net: Networks | Stack, pairs: Pairs, n_steps: int) -> Answered:
    """Of one of the ways.

    Args:
        net: learned; of "descent" for "fed back".
        pairs: `(k, n, length)`.
        n_steps: passes or evaluations; "one pass" has one, "untied" as many as networks.
    """
    x, y = pairs
    with torch.no_grad():
        if way == "one pass":
            path = [once(net, x)]
        elif way in ("repeated", "untied"):
            path = passes(net, x, n_steps)
        elif way == "fed back":
            path = [x]
            for _ in range(n_steps):
                path.append(path[-1] + x - net(path[-1]))
            path = path[1:]
        else:
            # The first evaluation is at the start, and moves nothing.
            path = descend(net, x, n_steps)[1:]
    one = sum(weight[0].numel() for weight in net.weights)
    if isinstance(net, Stack):
        one //= len(net.nets)
    done = torch.arange(1, len(path) + 1)
    # Forth and back for each evaluation.
    cost = one * (2 * (done + 1) if way == "descent" else done)
    left = zip(*(unexplained(y_hat, y) for y_hat in path), strict=True)
    return Answered(cost, *(torch.stack(part) for part in left))


def held_out(chain: Chain, n_models: int, n: int, seed: int, device="cpu") -> Pairs:
    """Pairs `(k, n, length)` that no network has learned from."""
    return chain.draw(_source(seed, "held out", device), n_models, n)


class Contest(NamedTuple):
    """Each way at each size, by way and number of weights that was asked for.

    Attributes:
        answered: on the same pairs held out.
        weights: that there are, biases too.
        rates: that were kept.
        known: error of descents of |x - check(y)|^2 itself, after each evaluation but the first,
            `(n_evaluations, k)`: what the networks of "descent" could reach at best.
    """

    answered: dict[tuple[str, int], Answered]
    weights: dict[tuple[str, int], int]
    rates: dict[tuple[str, int], float]
    known: Tensor


def contest(
    chain: Chain, asked: Mapping[str, tuple[int, ...]], n_models: int, n_steps: int, seed: int, *,
    depths: tuple[int, ...] = (3,), factors: tuple[float, ...] = (1.0,), batch: int = 128,
    n: int = 1000, n_passes: int = 12, n_evaluations: int = 120, device="cpu",
) -> Contest:  # fmt: skip
    """Learn and answer; "fed back" comes with "descent".

    Args:
        asked: numbers of weights, of each way that is learned.
        n_models: k, of each.
        n_steps: of learning, as many for all.
        depths: of "one pass".
        factors: on the rates of `best`. At each size that depth and rate are kept whose median
            capped error here is least.
        batch: pairs a step.
        n: pairs held out for each network.
        n_passes, n_evaluations: most of an answer.
    """
    pairs = held_out(chain, n_models, n, seed, device)
    answered, weights, rates = {}, {}, {}
    for way, size in [(way, size) for way, wanted in asked.items() for size in wanted]:
        usual, kept = best(way, size), None
        tried = itertools.product(depths if way == "one pass" else (usual.depth,), factors)
        for depth, factor in tried:
            setting = Setting(depth, factor * usual.learning_rate, chain.length, batch)
            net = learn(way, chain, size, setting, n_models, n_steps, seed, device)
            done = answer(way, net, pairs, n_evaluations if way == "descent" else n_passes)
            if kept is None or done.capped[-1].median() < kept.capped[-1].median():
                kept, kept_net, rates[way, size] = done, net, setting.learning_rate
        answered[way, size] = kept
        weights[way, size] = sum(part[0].numel() for part in kept_net.parameters())
        if way == "descent":
            key = ("fed back", size)
            answered[key] = answer("fed back", kept_net, pairs, n_passes)
            weights[key], rates[key] = weights[way, size], rates[way, size]
    path = descend(chain.check, pairs.x, n_evaluations)[1:]
    known = torch.stack([unexplained(y, pairs.y).error for y in path])
    return Contest(answered, weights, rates, known)


def median(values: Tensor) -> float:
    """Of a few networks, the upper one of two."""
    return float(values.sort().values[len(values) // 2])


def cost_of(found: Contest, way: str, n_weights: int, last: Mapping[str, int]) -> int:
    """Multiplications for one answer, after as many passes or steps as `last` says of the way."""
    return int(found.answered[way, n_weights].cost[last[way]])


def show_sizes(ax, found: Contest, final: Mapping, keys: list, colour: str) -> None:
    """Errors `final[key]` of one way by its weights: the networks as dots, their medians."""
    errors = torch.stack([final[key] for key in keys]).cpu()
    n = [found.weights[key] for key in keys]
    ax.plot(n, errors, "o", ms=2.5, color=colour, alpha=0.5)
    ax.plot(n, [median(part) for part in errors], "o-", ms=5, color=colour, label=keys[0][0])


def show_costs(ax, found: Contest, final: Mapping, keys: list, colour: str) -> None:
    """Medians of one way's errors by the multiplications of its last answer."""
    cost = [int(found.answered[key].cost[-1]) for key in keys]
    ax.plot(cost, [median(final[key].cpu()) for key in keys], "o-", ms=3, color=colour)


def sweep(
    way: str, chain: Chain, n_weights: int, settings: tuple[Setting, ...], n_models: int,
    n_steps: int, seed: int,
) -> Tensor:  # fmt: skip
    """Errors on pairs held out, `(settings, k)`."""
    pairs = held_out(chain, n_models, 1000, seed)
    found = []
    for setting in settings:
        net = learn(way, chain, n_weights, setting, n_models, n_steps, seed)
        found.append(answer(way, net, pairs, 120 if way == "descent" else setting.passes).error[-1])
    return torch.stack(found)
