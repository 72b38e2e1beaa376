"""Models that can only be drawn from, and discriminators that face one that they can tell.

on_circle     G(z) = rho (cos 2 pi z, sin 2 pi z): a law without a density in the plane
close_pairs   the share of pairs of draws closer than r, from which `dimension` reads its own
Rings         two circles under noise: densities, and what the best discriminator has
watch         discriminators that are trained on two circles, bare and under noise
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import i0e
from torch import Tensor

from ebmref import gan, training


def on_circle(z: Tensor, radius: float = 1.0) -> Tensor:
    """Images of latents in (0, 1), `(*)` to `(*, 2)`."""
    turn = 2 * math.pi * z[..., None]
    return radius * torch.cat([turn.cos(), turn.sin()], -1)


def close_pairs(x: Tensor, radii: Tensor) -> Tensor:
    """Share of pairs of points `(n, d)` that are closer than each radius `(m,)`: `(m,)`."""
    distance = torch.pdist(x).sort().values
    return torch.searchsorted(distance, radii).to(x) / len(distance)


def dimension(x: Tensor, near: float = 0.05, far: float = 0.5) -> Tensor:
    """Slope of the log share of close pairs against log r, of sets `(s, n, d)`: `(s,)`.

    On the unit circle it is 1.0046 between these radii, for N(0, I_2) 1.9866.
    """
    ends = torch.tensor([near, far]).to(x)
    shares = torch.stack([close_pairs(points, ends) for points in x])
    return (shares[:, 1] / shares[:, 0]).log() / math.log(far / near)


# Two circles under noise, exactly ----------------------------------------------------------------

RADII = np.linspace(1e-6, 4, 8001)


def density(rho: float, sigma: float, radii: np.ndarray = RADII) -> np.ndarray:
    """Of the distance from the centre: 2 pi r p(r), for a circle of radius rho under N(0, s^2)."""
    p = np.exp(-((radii - rho) ** 2) / (2 * sigma**2)) * i0e(radii * rho / sigma**2)
    return radii * p / sigma**2


def divergence(rho: float, sigma: float) -> float:
    """JSD of the circles of radius 1 and rho under noise, in nats."""
    p, q = density(1.0, sigma), density(rho, sigma)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = p * np.log(2 * p / (p + q)), q * np.log(2 * q / (p + q))
    return float(0.5 * np.trapezoid(sum(map(np.nan_to_num, terms)), RADII))


class Rings(NamedTuple):
    """What the best discriminator of two circles under noise has, by quadrature.

    Attributes:
        value: of the game.
        gap: mean logit of the data less that of the samples.
        pull: by how much 2 JSD falls as the generator's radius shrinks, a unit.
    """

    value: float
    gap: float
    pull: float


def rings(rho: float, sigma: float) -> Rings:
    """Of the circles of radius 1, the data, and rho, the generator."""
    p, q = density(1.0, sigma), density(rho, sigma)
    logit = np.log((p + 1e-300) / (q + 1e-300))
    wider, closer = (divergence(rho + s, sigma) for s in (1e-3, -1e-3))
    return Rings(
        value=2 * divergence(rho, sigma) - math.log(4),
        gap=float(np.trapezoid((p - q) * logit, RADII)),
        pull=2 * (wider - closer) / 2e-3,
    )


# Trained -----------------------------------------------------------------------------------------


class Watched(NamedTuple):
    """What discriminators say while they train, each `(marks, len(sigmas), n_models)`.

    Attributes:
        value: of the game.
        gap: mean logit of the data less that of the samples.
        saturating, non_saturating: the pull of either loss on the generator's radius, inwards.
    """

    value: Tensor
    gap: Tensor
    saturating: Tensor
    non_saturating: Tensor


def two_circles(
    n: int, rho: float, sigma: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Data, samples, and the way in which samples move with rho; `(k, n, 2)` each.

    Args:
        sigma: `(k,)`, noise on data and samples.
    """
    z = torch.rand(2, len(sigma), n, generator=generator, device=generator.device)
    way = on_circle(z)
    noise = torch.randn(way.shape, generator=generator, device=generator.device)
    noise = sigma[:, None, None] * noise
    return way[0] + noise[0], rho * way[1] + noise[1], way[1]


def watch(
    sigmas: tuple[float, ...], n_models: int, marks: list[int],
    train: torch.Generator, look: torch.Generator, *, rho: float = 1.25, n_look: int = 4096,
) -> Watched:  # fmt: skip
    """Discriminators of two hidden layers, `n_models` for each sigma, on fresh draws at each step.

    Args:
        marks: steps after which they are looked at, rising.
        train: draws weights and batches.
        look: draws the points that they are looked at with.
    """
    sigma = torch.tensor(sigmas, device=train.device).repeat_interleave(n_models)
    net = gan.Discriminator((2,), (32, 32), len(sigma), train)
    seen, rows = two_circles(n_look, rho, sigma, look), []

    def loss() -> Tensor:
        real, fake, _ = two_circles(128, rho, sigma, train)
        return -gan.value(*net(torch.cat([real, fake], 1)).chunk(2, 1))

    for step, _ in enumerate(training.fit(net, loss, marks[-1], 1e-3), start=1):
        if step in marks:
            rows.append(torch.stack(_said(net, *seen)))
    by_kind = torch.stack(rows, 1).view(4, len(marks), len(sigmas), n_models)
    return Watched(*by_kind.cpu())


def _said(net, real: Tensor, fake: Tensor, way: Tensor) -> list[Tensor]:
    fake = fake.clone().requires_grad_()
    logits = net(fake)
    (slope,) = torch.autograd.grad(logits.sum(), fake)
    along, told = (slope * way).sum(-1), logits.detach().sigmoid()
    with torch.no_grad():
        on_data = net(real)
        return [
            gan.value(on_data, logits),
            (on_data - logits).mean(-1),
            -(told * along).mean(-1),
            -((1 - told) * along).mean(-1),
        ]
