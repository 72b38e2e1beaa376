"""A generator of a circle against a circle: the smallest game of networks without densities.

    G(z) = c + rho (cos 2 pi z, sin 2 pi z)        data: c = 0, rho = 1

Three numbers generate, a network discriminates, and both descend with plain gradient steps, in
turn, the non-saturating loss. k games that differ in their way of play and their weights stand side
by side and never meet; what tells the ways apart is a vector over the games.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import gan

GOAL = (0.0, 0.0, 1.0)  # centre and radius of the data


class Way(NamedTuple):
    """How a game is played.

    Attributes:
        step: length of the gradient steps of both players.
        penalty: gamma of R1, half the mean squared slope of the logit at the data.
        noise: standard deviation of what is added to data and samples.
        anneal: let the noise fall to zero in a straight line over the game.
    """

    step: float
    penalty: float = 0.0
    noise: float = 0.0
    anneal: bool = False


def rings(k: int, n: int, generator: torch.Generator) -> Tensor:
    """Draws on circles of radius 1 for data and samples, `(2, k, n, 2)`."""
    z = torch.rand(2, k, n, 1, generator=generator, device=generator.device)
    turn = 2 * math.pi * z
    return torch.cat([turn.cos(), turn.sin()], -1)


def play(
    ways: list[Way], n_models: int, n_steps: int, generator: torch.Generator,
    *, at_once: bool = False, start=(0.5, 0.0, 1.25), hidden=(32, 32), batch: int = 128,
) -> Tensor:  # fmt: skip
    """Distance of (c, rho) from the truth after each step, `(n_steps, len(ways), n_models)`.

    Networks and draws are the same in every way: ways are compared in pairs.

    Args:
        at_once: the generator answers to the discriminator as it was before its step.

    Raises:
        ValueError: no way.
    """
    if not ways:
        raise ValueError("ways: expected at least one")
    device, k = generator.device, len(ways) * n_models
    net = gan.Discriminator((2,), hidden, n_models, generator)
    weights = [w.detach().repeat(len(ways), 1, 1).requires_grad_() for w in net.parameters()]
    step, penalty, noise, anneal = (
        torch.tensor(column, device=device, dtype=torch.float32).repeat_interleave(n_models)
        for column in zip(*ways, strict=True)
    )
    theta = torch.tensor(start, device=device).repeat(k, 1).requires_grad_()
    goal, rows = torch.tensor(GOAL, device=device), []
    for made in range(n_steps):
        way = rings(n_models, batch, generator).repeat(1, len(ways), 1, 1)
        drawn = torch.randn(2, n_models, batch, 2, generator=generator, device=device)
        width = noise * (1 - anneal * made / n_steps)
        fog = width[:, None, None] * drawn.repeat(1, len(ways), 1, 1)
        fake = theta[:, None, :2] + theta[:, None, 2:] * way[1] + fog[1]
        slopes = _slopes(weights, way[0] + fog[0], fake.detach(), penalty)
        before = [w.detach().clone() for w in weights] if at_once else weights
        with torch.no_grad():
            for w, slope in zip(weights, slopes, strict=True):
                w -= step[:, None, None] * slope
        loss = gan.generator_loss(_logits(before, fake), "non-saturating")
        (slope,) = torch.autograd.grad(loss.sum(), theta)
        with torch.no_grad():
            theta -= step[:, None] * slope
            rows.append((theta - goal).norm(dim=1).cpu())
    return torch.stack(rows).view(n_steps, len(ways), n_models)


class Best(NamedTuple):
    """A cure at its best: where it was, and how it did there.

    Attributes:
        way: the one with the least mean over the games that choose.
        late: mean distance over the last third, of the games that judge, `(n,)`.
        middle: over the third before.
    """

    way: Way
    late: Tensor
    middle: Tensor


def best(ways: list[Way], distance: Tensor) -> Best:
    """Choose by the first half of the games, judge by the second: `(n_steps, ways, n_models)`."""
    thirds = distance.nan_to_num(torch.inf).tensor_split(3)
    late, middle = (part.mean(0) for part in (thirds[2], thirds[1]))
    half = late.shape[1] // 2
    k = int(late[:, :half].mean(1).argmin())
    return Best(ways[k], late[k, half:], middle[k, half:])


def _logits(weights: list[Tensor], x: Tensor) -> Tensor:
    """The discriminators with these weights, `(k, n, 2)` to `(k, n)`; as `gan.Discriminator`."""
    half = len(weights) // 2
    for i, (w, b) in enumerate(zip(weights[:half], weights[half:], strict=True)):
        x = torch.baddbmm(b, gan.leaky(x) if i else x, w)
    return x[..., 0]


def _slopes(weights: list[Tensor], real: Tensor, fake: Tensor, penalty: Tensor) -> list[Tensor]:
    """The discriminators' gradients: of minus the value, and of R1 where there is any."""
    logits = _logits(weights, torch.cat([real, fake], 1))
    loss = -gan.value(*logits.chunk(2, 1)).sum()
    held = penalty.nonzero()[:, 0]
    if len(held):
        own = [w[held] for w in weights]
        slope = gan.slope_penalty(lambda x: _logits(own, x), real[held])
        loss = loss + (penalty[held] / 2 * slope).sum()
    return list(torch.autograd.grad(loss, weights))
