"""Critics: the best one of known densities, one by counting, and one that is trained on.

The best is d = log p_d - log p_g.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmref import gan, training
from ebmref.checks import check_draws, check_tensors
from ebmref.ddls.model import Model


def density_ratio_critic(
    log_data: Callable[[Tensor], Tensor], log_model: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The best critic, d = log p_d - log p_g, of two known densities.

    Args:
        log_data, log_model: `(n, *event)` to `(n,)`. Minus infinity outside the data is a wall.
    """

    def critic(x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        of_data = log_data(flat)
        ratio = torch.where(of_data == -math.inf, of_data, of_data - log_model(flat))
        return ratio.view(x.shape[:2])

    return critic


class Counted(NamedTuple):
    """Data and generators of the plane on one lattice of m square cells.

    Attributes:
        critic: d = log p_d - log p_g, `(k, n, 2)` to `(k, n)`; bilinear between the centres,
            beyond them as at the border.
        centres: `(m, 2)`.
        data: `(m,)`, share of the data in each cell, by its density at the centre.
        share: `(k, m)`, share of each generator's draws.
    """

    critic: Callable[[Tensor], Tensor]
    centres: Tensor
    data: Tensor
    share: Tensor


def counted(
    model: Model,
    log_data: Callable[[Tensor], Tensor],
    n: int,
    generator: torch.Generator,
    *,
    reach: float,
    cells: int,
) -> Counted:
    """The best critic where the data's density is known and the generator's is not: by counting.

    Each cell gets half a draw beside those that fell into it, so that d is finite where none did.
    What is finer than a cell is lost; cells of half the data's width leave a few per cent.

    Args:
        log_data: `(m, 2)` to `(m,)`, log p_d.
        n: draws of each generator, best many for each cell that matters.
        reach: the lattice covers (-reach, reach)^2.
        cells: on a side.

    Raises:
        ValueError: an argument out of range, events that are not of the plane, a log_data that is
            NaN or +inf somewhere, or without mass on the lattice.
    """
    check_draws(n, 1, generator)
    check_draws(cells, 2, generator, "cells")
    if not 0 < reach < math.inf:
        raise ValueError(f"reach: expected a finite number > 0; got {reach!r}")
    width = 2 * reach / cells
    counts, left = 0, n
    while left:
        x = model.events(model.draw(min(left, 100_000), generator))
        if x.shape[2:] != (2,):
            raise ValueError(f"model: expected events of shape (2,); got {tuple(x.shape[2:])}")
        at = ((x + reach) / width).floor().long()
        inside = ((at >= 0) & (at < cells)).all(-1)
        # A cell more takes what is outside.
        at = torch.where(inside, at[..., 0] * cells + at[..., 1], cells**2)
        found = [torch.bincount(row, minlength=cells**2 + 1) for row in at]
        counts, left = counts + torch.stack(found)[:, :-1], left - x.shape[1]
    side = (torch.arange(cells, device=x.device, dtype=x.dtype) + 0.5) * width - reach
    centres = torch.cartesian_prod(side, side)
    log_p = torch.cat([log_data(part) for part in centres.split(10_000)]).double()
    if not (log_p < math.inf).all() or not log_p.isfinite().any():
        raise ValueError("log_data: expected numbers or -inf, with some mass on the lattice")
    table = log_p + 2 * math.log(width) - ((counts + 0.5) / n).log()
    table = table.to(x.dtype)

    def critic(x: Tensor) -> Tensor:
        u = ((x + reach) / width - 0.5).clamp(0, cells - 1)
        low = u.detach().floor().clamp(max=cells - 2)
        share, low = u - low, low.long()
        corner = low[..., 0] * cells + low[..., 1]
        here, right, above, across = (
            table.gather(1, corner + step) for step in (0, cells, 1, cells + 1)
        )
        a, b = share.unbind(-1)
        here, right = _with_share(a, here, right)
        above, across = _with_share(a, above, across)
        here, above = _with_share(b, here, above)
        right, across = _with_share(b, right, across)
        return (1 - a) * ((1 - b) * here + b * above) + a * ((1 - b) * right + b * across)

    return Counted(critic, centres, log_p.softmax(0), counts.double() / n)


def _with_share(share: Tensor, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Two ends, of which `other` has a share; an infinite one without any counts as nothing."""
    return (
        torch.where((share == 1) & one.isinf(), 0.0, one),
        torch.where((share == 0) & other.isinf(), 0.0, other),
    )


class CriticStep(NamedTuple):
    """One step of `train_critic`.

    Attributes:
        step: how many were made, with this one.
        value: `(k,)`, V of (6) on the batch: -log 4 where the critic tells nothing, below
            -log 4 + 2 JSD on average, 0 where it tells all.
        slope: `(k,)`, mean squared slope of the logit at the data; None without a penalty.
    """

    step: int
    value: Tensor
    slope: Tensor | None


def train_critic(
    model: Model,
    data: Tensor,
    n_steps: int,
    generator: torch.Generator,
    *,
    batch: int = 256,
    learning_rate: float = 1e-3,
    noise: float = 0.0,
    penalty: float = 0.0,
    anneal: bool = True,
) -> Iterator[CriticStep]:
    """Train the critics on with the generators frozen; yields after every step.

    The logistic loss, whose best critic is d = log p_d - log p_g; all models at once, by Adam.
    Stop when you like: the critic is left in the mode, training or eval, that it was in. A frozen
    layer stays as it is. Dropout draws from PyTorch's own generator.

    Args:
        model: its critic, an `nn.Module`, is changed in place.
        data: `(n, *event)`, the same for all models.
        generator: draws batches, latents and noise.
        batch: of data and of samples, for each model.
        noise: standard deviation of normal noise on both; d then is the ratio of the blurred
            laws, which overlap.
        penalty: weight of half the mean squared slope at the data (R1).
        anneal: let the learning rate fall to zero along a cosine.

    Raises:
        ValueError: an argument out of range, events of another shape or dtype.
        Diverged: a loss is not finite, or a weight at the end.
    """
    check_draws(n_steps, 1, generator, "n_steps")
    check_draws(batch, 1, generator, "batch")
    critic = model.critic
    if not isinstance(critic, nn.Module):
        raise ValueError(f"critic: expected an nn.Module to train; got {type(critic).__name__}")
    for name, value in (("noise", noise), ("penalty", penalty)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number >= 0; got {value!r}")
    check_tensors(data=data)
    made = model.events(model.draw(1, generator))
    event, like = tuple(made.shape[2:]), made.dtype
    if data.dim() < 1 or not len(data) or tuple(data.shape[1:]) != event or data.dtype != like:
        raise ValueError(
            f"data: expected (n, *{event}), {like}; got {tuple(data.shape)}, {data.dtype}"
        )
    return _trained(model, data, n_steps, generator, batch, learning_rate, noise, penalty, anneal)


def _trained(model, data, n_steps, generator, batch, learning_rate, noise, penalty, anneal):
    found = []

    def loss() -> Tensor:
        at = torch.randint(
            len(data), (model.k, batch), generator=generator, device=generator.device
        )
        both = torch.cat([data[at], model.events(model.draw(batch, generator))], 1)
        if noise:
            both = both + noise * torch.randn(
                both.shape, generator=generator, device=both.device, dtype=both.dtype
            )
        value = gan.value(*model.critic(both).chunk(2, 1))
        slope = gan.slope_penalty(model.critic, both[:, :batch]) if penalty else None
        found[:] = value.detach(), None if slope is None else slope.detach()
        return -value if slope is None else 0.5 * penalty * slope - value

    was_training = model.critic.training
    model.critic.train()
    try:
        steps = training.fit(model.critic, loss, n_steps, learning_rate, anneal=anneal)
        for step, _ in enumerate(steps, 1):
            yield CriticStep(step, *found)
    finally:
        model.critic.train(was_training)
