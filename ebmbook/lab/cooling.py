"""The free energy of an ellipse from hot to cold: what its measure, its fog and its minimum do.

    E(y, z) = |y - w t(z)|^2,    t(z) = (cos z, sin z),    radii w = (2, 1.5)

In units of the radii the plane has polar coordinates, y = r w t(a); a sector is a range of a. All
in double precision.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import legendre
from scipy import optimize, stats
from torch import Tensor

from ebmref import data, inference
from ebmref.free_energy import free_energy, softmin

RADII = (2.0, 1.5)
RINGS = (0.9, 1.0, 1.1)  # radii r that part the cells of a sector
DOUBLE = torch.float64


def angles(n: int, device="cpu") -> Tensor:
    """n of them, evenly over one turn, from 0 on: `(n,)`."""
    return torch.arange(n, dtype=DOUBLE, device=device) * (2 * math.pi / n)


def radii(device="cpu") -> Tensor:
    """Those of the ellipse, `(2,)`."""
    return torch.tensor(RADII, dtype=DOUBLE, device=device)


def energies(y: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """Of each y `(..., 2)` with each angle `(m,)`: `(..., m)`."""
    return (y[..., None, :] - w * data.tips(z)).square().sum(-1)


def printed(energy: Tensor, beta: float) -> Tensor:
    """Equation (R4) without its logarithm, with the mean over z `(..., m)` for the integral."""
    return -(-beta * energy).exp().mean(-1) / beta


def box_ratio(form: Callable[[Tensor, float], Tensor], near=4.0, far=8.0, device="cpu") -> float:
    """Integral of exp(-F) at beta = 1 over the box of half-side `far`, over that of `near`.

    Args:
        form: of energies `(n, m)` and beta, `(n,)`: F.
    """
    z, w, step = angles(48, device), radii(device), 0.125
    masses = []
    for reach in (near, far):
        ticks = torch.arange(-reach + step / 2, reach, step, dtype=DOUBLE, device=device)
        energy = energies(torch.cartesian_prod(ticks, ticks), z, w)
        masses.append(float((-form(energy, 1.0)).exp().sum()))
    return masses[1] / masses[0]


def reasons_cross(a: Tensor, b: Tensor, low: float, high: float) -> float:
    """The beta between low and high at which two rows of energies have the same free energy.

    Raises:
        ValueError: there is none, or an even number of them.
    """
    return float(optimize.brentq(lambda t: float(free_energy(a, t) - free_energy(b, t)), low, high))


def entropy(energy: Tensor, beta: float, cell: float) -> float:
    """Differential entropy of z in nats: of energies on a grid `(m,)` of the given spacing."""
    p = softmin(energy, beta)
    return float(-torch.special.xlogy(p, p / cell).sum())


class Turn(NamedTuple):
    """Where the Lebesgue free energy stops rising: a beta, and the value there."""

    beta: float
    highest: float


def lebesgue_turn(energy: Tensor, cell: float, low=0.1, high=100.0) -> Turn:
    """dF / dbeta = S / beta^2 vanishes where the differential entropy S does."""
    beta = float(optimize.brentq(lambda b: entropy(energy, b, cell), low, high, xtol=1e-12))
    return Turn(beta, float(free_energy(energy, beta, "lebesgue", cell=cell)))


class Stalled(NamedTuple):
    """Of descents in y: how many never left their start, how many ended off the curve."""

    stuck: int
    off: int


def stalled(
    form: Callable[[Tensor, float], Tensor], beta: float, generator: torch.Generator, n: int = 64
) -> Stalled:
    """By L-BFGS from even starts in the box of half-side 3; off is farther than 0.1.

    Args:
        form: of energies `(n, m)` and beta, `(n,)`: F.
    """
    device = generator.device
    start = 6 * torch.rand(n, 2, generator=generator, dtype=DOUBLE, device=device) - 3
    z, w = angles(256, device), radii(device)
    end = inference.lbfgs_argmin(
        lambda y: form(energies(y, z, w), beta), start, 200, tolerance=1e-7
    ).y
    away = energies(end, angles(4096, device), w).amin(-1).sqrt()
    return Stalled(int(((end - start).norm(dim=1) < 1e-6).sum()), int((away > 0.1).sum()))


def bounds_broken(
    form: Callable[[Tensor, float], Tensor], energy: Tensor, betas: tuple[float, ...]
) -> float:
    """How far F leaves [min E, min(mean E, min E + log(m) / beta)], at most; 0 where it never does.

    Args:
        form: of energies `(n, m)` and beta, `(n,)`: F with the normalised measure.
    """
    least, mean = energy.amin(-1), energy.mean(-1)
    worst = 0.0
    for beta in betas:
        f = form(energy, beta)
        top = torch.minimum(mean, least + math.log(energy.shape[-1]) / beta)
        worst = max(worst, float(torch.maximum(least - f, f - top).max()))
    return worst


def wrong_ways(energy: Tensor, betas: tuple[float, ...]) -> int:
    """Answers `(n, m)` and rising betas between which F does not rise (counting) or fall (mean)."""
    count, mean = (
        torch.stack([free_energy(energy, b, measure) for b in betas]).diff(dim=0)
        for measure in ("counting", "normalised")
    )
    return int((count <= 0).sum() + (mean >= 0).sum())


class Line(NamedTuple):
    """2 beta (F_beta - F_inf) against log beta: the slope, what Laplace leaves of the height."""

    slope: float
    rest: float


def laplace(energy: Tensor, curvature: float, betas: tuple[float, float]) -> Line:
    """Between two temperatures, of a z on a circle; to leading order 1 and 0.

    Args:
        energy: `(m,)`, on a grid that holds the minimum, with a spacing well below the width
            of the coldest weights.
        curvature: the second derivative of E by z at the minimum.
    """
    least = float(energy.amin())
    first, last = (2 * b * (float(free_energy(energy, b)) - least) for b in betas)
    slope = (last - first) / math.log(betas[1] / betas[0])
    return Line(slope, last - math.log(2 * math.pi * betas[1] * curvature))


# The marginal and the minimum --------------------------------------------------------------------


class Laws(NamedTuple):
    """Two laws of y at one beta, exp(-beta F_beta) and exp(-beta F_inf), each made to sum to one.

    Attributes:
        normaliser: of the first, with the Lebesgue measure of z; 2 pi^2 / beta in theory.
        marginal, minimum: their masses in sectors of equal range of a, each parted into cells at
            the radii `RINGS`: `(n_sectors, 4)`.
        apart: the total variation distance between the two.
    """

    normaliser: float
    marginal: Tensor
    minimum: Tensor
    apart: float


def laws(beta: float, n_sectors: int = 24, device="cpu") -> Laws:
    """By quadrature over one quadrant, in polar coordinates; the others are alike.

    Raises:
        ValueError: a number of sectors that four does not divide.
    """
    if n_sectors < 4 or n_sectors % 4:
        raise ValueError(f"n_sectors: expected a multiple of four; got {n_sectors}")
    w, fog = radii(device), (2 * beta) ** -0.5
    reach = 1 + 7 * fog / min(RADII)
    r, dr, ring = (torch.tensor(x, device=device) for x in _panels((0.0, *RINGS, reach), fog))
    n_round = 12 * n_sectors
    a = (angles(n_round, device) + math.pi / n_round)[: n_round // 4]
    y = r[:, None, None] * w * data.tips(a)
    area = (r * dr)[:, None] * (w.prod() * 2 * math.pi / n_round)
    z = angles(256, device)
    f = free_energy(energies(y, z, w), beta, "lebesgue", cell=2 * math.pi / len(z))
    # The nearest point of the curve lies in the same quadrant.
    nearest = torch.linspace(0, math.pi / 2, 513, dtype=DOUBLE, device=device)
    least = energies(y, nearest, w).amin(-1)
    warm, sharp = (-beta * f).exp() * area, (-beta * least).exp() * area
    normaliser = 4 * float(warm.sum())
    warm, sharp = warm / warm.sum(), sharp / sharp.sum()
    quarter = []
    for law in (warm, sharp):
        rings = torch.zeros(len(RINGS) + 1, law.shape[1], dtype=DOUBLE, device=device)
        rings.index_add_(0, ring, law)
        quarter.append(rings.T.reshape(n_sectors // 4, -1, len(rings)).sum(1) / 4)
    round_it = [torch.cat([q, q.flip(0), q, q.flip(0)]) for q in quarter]
    return Laws(normaliser, *round_it, float((warm - sharp).abs().sum() / 2))


def _panels(edges: tuple[float, ...], fog: float):
    """Gauss-Legendre on each panel: nodes, weights, and the panel of each."""
    parts = []
    for k, (low, high) in enumerate(itertools.pairwise(edges)):
        half = (high - low) / 2
        nodes, weights = legendre.leggauss(6 + math.ceil(2 * half * max(RADII) / (fog / 3)))
        parts.append((low + (nodes + 1) * half, weights * half, np.full(len(nodes), k)))
    return (np.concatenate(x) for x in zip(*parts, strict=True))


def apart_in_the_cold(device="cpu") -> float:
    """The limit of `Laws.apart`: one law is even in z, the other even in length."""
    length = speeds(4096, device)
    return float((length / length.sum() - 1 / len(length)).abs().sum() / 2)


def speeds(n: int, device="cpu") -> Tensor:
    """|d(w t) / dz| at n angles: `(n,)`."""
    return (radii(device).flip(0) * data.tips(angles(n, device))).norm(dim=-1)


def drawn(n: int, beta: float, generator: torch.Generator, w: Tensor | None = None) -> Tensor:
    """Draws of y and z together, with z forgotten: an even angle, and fog. `(n, 2)`.

    Args:
        w: other radii than the ellipse's, `(2,)`.
    """
    like = {"generator": generator, "dtype": DOUBLE, "device": generator.device}
    z = 2 * math.pi * torch.rand(n, **like)
    w = radii(generator.device) if w is None else w
    return w * data.tips(z) + (2 * beta) ** -0.5 * torch.randn(n, 2, **like)


def counted(y: Tensor, n_sectors: int = 24) -> Tensor:
    """How many of the points `(n, 2)` lie in each cell of `Laws`: `(n_sectors, 4)`."""
    u = y / radii(y.device)
    turn = torch.atan2(u[:, 1], u[:, 0]) / (2 * math.pi) % 1
    sector = (turn * n_sectors).long().clamp(max=n_sectors - 1)
    edges = torch.tensor(RINGS, dtype=DOUBLE, device=y.device)
    n_rings = len(RINGS) + 1
    cell = sector * n_rings + torch.bucketize(u.norm(dim=1), edges)
    return torch.bincount(cell, minlength=n_sectors * n_rings).view(n_sectors, n_rings)


def p_value(counts: Tensor, masses: Tensor) -> float:
    """Pearson's chi-square: how well counts go with masses of the same shape."""
    expected = masses * counts.sum() / masses.sum()
    return float(stats.chisquare(counts.double().cpu().flatten(), expected.cpu().flatten()).pvalue)
