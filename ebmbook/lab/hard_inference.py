"""Answers that are quick to check and slow to find: one pass of a network against descent.

    x_1 = y_1,    x_i = y_i - swing sin(turns y_{i-1}),    x given, y sought

A chain is checked link by link, all at once, and solved one link after the other. Each question has
one answer y, and |x - check(y)|^2 has no stationary point but y: the Jacobian of the check is lower
triangular with ones on its diagonal.

Networks f of about the same number of weights learn from the same pairs (x, y):

    one pass    y = x + f(x)
    repeated    y <- x + f(x, y), from y = x; trained through its passes, one for each link
    descent     argmin_y |x - f(y)|^2 by L-BFGS, from y = x; f is fitted to the pairs as they are
    fed back    y <- y + x - f(y), from y = x; f is that of descent
"""

import dataclasses
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import inference, training
from ebmref.networks import Networks
from ebmref.seeds import derive_seed

LEARNED = ("one pass", "repeated", "descent")


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


def unexplained(answers: Tensor, y: Tensor) -> Tensor:
    """Squared error over the variance of y, the mean of all links: `(k, n, length)` to `(k,)`.

    The best constant has 1, a perfect answer 0.
    """
    return ((answers - y).square() / y.flatten(0, -2).var(0)).mean((-2, -1))


# Learning ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a way learns.

    Attributes:
        depth: hidden layers, all of one width.
        learning_rate: of Adam, falling to zero along a cosine.
        passes: that "repeated" is trained through.
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
    return Setting(1, 3e-2 if way == "repeated" and n_weights >= 3000 else 6e-2)


def sizes(way: str, length: int, depth: int, n_weights: int) -> tuple[int, ...]:
    """Widths of the layers, from input to output, whose weights and biases are nearest n_weights.

    Raises:
        ValueError: a way that is not learned.
    """
    if way not in LEARNED:
        raise ValueError(f"way: expected one of {', '.join(LEARNED)}; got {way!r}")
    n_in = 2 * length if way == "repeated" else length

    def shape(width: int) -> tuple[int, ...]:
        return (n_in, *[width] * depth, length)

    width = 1
    while count(shape(width + 1)) <= n_weights:
        width += 1
    return min(shape(width), shape(width + 1), key=lambda s: abs(count(s) - n_weights))


def count(widths: tuple[int, ...]) -> int:
    """Weights and biases of a network with these layers."""
    return sum((n + 1) * m for n, m in pairwise(widths))


def once(net: Networks, x: Tensor) -> Tensor:
    """y = x + f(x); the other ways add to x or start from it, too."""
    return x + net(x)


def passes(net: Networks, x: Tensor, n_passes: int) -> list[Tensor]:
    """y <- x + f(x, y), from y = x: the answers `(k, n, length)` after 1, 2, ... passes."""
    y, path = x, []
    for _ in range(n_passes):
        y = x + net(torch.cat([x, y], -1))
        path.append(y)
    return path


def learn(
    way: str, chain: Chain, n_weights: int, setting: Setting, n_models: int, n_steps: int,
    seed: int, device="cpu",
) -> Networks:  # fmt: skip
    """k networks that learn side by side; they differ in weights and pairs.

    The i-th network of every way and size sees the same pairs.
    """
    widths = sizes(way, chain.length, setting.depth, n_weights)
    net = Networks(widths, n_models, _source(seed, f"weights {way} {widths}", device))
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
        error: see `unexplained`, `(c, k)`.
    """

    cost: Tensor
    error: Tensor


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


def answer(way: str, net: Networks, pairs: Pairs, n_steps: int) -> Answered:
    """Of one of the four ways.

    Args:
        net: learned; of "descent" for "fed back".
        pairs: `(k, n, length)`.
        n_steps: passes or evaluations; "one pass" has one.
    """
    x, y = pairs
    with torch.no_grad():
        if way == "one pass":
            path = [once(net, x)]
        elif way == "repeated":
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
    done = torch.arange(1, len(path) + 1)
    # Forth and back for each evaluation.
    cost = one * (2 * (done + 1) if way == "descent" else done)
    return Answered(cost, torch.stack([unexplained(y_hat, y) for y_hat in path]))


def held_out(chain: Chain, n_models: int, n: int, seed: int, device="cpu") -> Pairs:
    """Pairs `(k, n, length)` that no network has learned from."""
    return chain.draw(_source(seed, "held out", device), n_models, n)


class Contest(NamedTuple):
    """Each way at each size, by way and number of weights that was asked for.

    Attributes:
        answered: on the same pairs held out.
        weights: that there are, biases too.
        known: error of descents of |x - check(y)|^2 itself, after each evaluation but the first,
            `(n_evaluations, k)`: what the networks of "descent" could reach at best.
    """

    answered: dict[tuple[str, int], Answered]
    weights: dict[tuple[str, int], int]
    known: Tensor


def contest(
    chain: Chain, asked: Mapping[str, tuple[int, ...]], n_models: int, n_steps: int, seed: int, *,
    depths: tuple[int, ...] = (3,), batch: int = 128, n: int = 1000, n_passes: int = 12,
    n_evaluations: int = 120, device="cpu",
) -> Contest:  # fmt: skip
    """Learn and answer; "fed back" comes with "descent".

    Args:
        asked: numbers of weights, of each way that is learned.
        n_models: k, of each.
        n_steps: of learning, as many for all.
        depths: of "one pass"; at each size the one is kept whose median error here is least.
        batch: pairs a step.
        n: pairs held out for each network.
        n_passes, n_evaluations: most of an answer.
    """
    pairs = held_out(chain, n_models, n, seed, device)
    answered, weights = {}, {}
    for way, size in [(way, size) for way, wanted in asked.items() for size in wanted]:
        for depth in depths if way == "one pass" else (1,):
            setting = dataclasses.replace(
                best(way, size), depth=depth, passes=chain.length, batch=batch
            )
            net = learn(way, chain, size, setting, n_models, n_steps, seed, device)
            done = answer(way, net, pairs, n_evaluations if way == "descent" else n_passes)
            known = answered.get((way, size))
            if known is None or done.error[-1].median() < known.error[-1].median():
                answered[way, size] = done
                weights[way, size] = sum(part[0].numel() for part in net.parameters())
        if way == "descent":
            answered["fed back", size] = answer("fed back", net, pairs, n_passes)
            weights["fed back", size] = weights[way, size]
    path = descend(chain.check, pairs.x, n_evaluations)[1:]
    return Contest(answered, weights, torch.stack([unexplained(y, pairs.y) for y in path]))


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
