"""Games on a grid of Gaussians: what a generator has of it, and a gate before it is used.

grade         quality, masses of the modes, frequencies and width, of points or of weighted points
law_of        the same of k generators, or of models, from a lattice of latents: without drawing
square, blob  trivial generators, which a game must beat
Gate          what a game must have before anything is built on it
play          k generators against k discriminators, `play_kale` k bases against k energies
smooth_ratio  log p_d - log p_g of trained generators, by counting and blurring: a critic with
              a gradient
"""

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import ddls, gan, gebm, training
from ebmref.energies import GaussianMixture
from ebmref.gan import jensen_shannon

# Rings around a mode, in standard deviations; the last edge is that of a high-quality point.
RINGS = (0.0, 1.0, 2.0, 4.0)


class Grade(NamedTuple):
    """What k clouds have of a mixture of m equal round Gaussians of the plane.

    Attributes:
        mass: `(k, m)`, within four standard deviations of each mode.
        quality: `(k,)`, their sum; 0.9997 of exact draws.
        least: `(k,)`, the smallest mass over the fair one.
        ratio: `(k,)`, mean mass of the inner modes over that of the rim's; NaN without either.
        kl: `(k,)`, of the frequencies of the modes to equal ones, in nats; NaN without quality.
        spread: `(k,)`, root mean square deviation of a coordinate over the true one.
        jsd: `(k,)`, between the masses of all rings of `RINGS` around all modes, with "elsewhere",
            and those of the law. It sees quality, frequencies and width at once.
    """

    mass: Tensor
    quality: Tensor
    least: Tensor
    ratio: Tensor
    kl: Tensor
    spread: Tensor
    jsd: Tensor


@torch.no_grad()
def grade(x: Tensor, law: GaussianMixture, log_weights: Tensor | None = None) -> Grade:
    """Grade clouds `(k, n, 2)`, each point at a weight; log_weights `(k, n)`, None for equal ones.

    Args:
        law: of equal masses and scales, the modes at least eight scales apart.

    Raises:
        ValueError: events that are not of the plane, or weights of another shape.
    """
    if x.dim() != 3 or x.shape[2] != 2:
        raise ValueError(f"x: expected (k, n, 2); got {tuple(x.shape)}")
    log_weights = x.new_zeros(x.shape[:2]) if log_weights is None else log_weights
    if log_weights.shape != x.shape[:2]:
        raise ValueError(
            f"log_weights: expected {tuple(x.shape[:2])}; got {tuple(log_weights.shape)}"
        )
    weight, scale, m = log_weights.double().softmax(1), float(law.scales[0]), len(law.means)
    near = [torch.cdist(part, law.means).min(1) for part in x.flatten(0, 1).split(100_000)]
    distance = torch.cat([far for far, _ in near]).view(x.shape[:2]).double() / scale
    at = torch.cat([mode for _, mode in near]).view(x.shape[:2])
    edges = torch.tensor(RINGS[1:], dtype=torch.float64, device=x.device)
    ring = torch.bucketize(distance, edges)  # the last one is "elsewhere"
    n_rings = len(edges)
    place = torch.where(ring < n_rings, at * n_rings + ring, m * n_rings)
    masses = weight.new_zeros(len(x), m * n_rings + 1).scatter_add_(1, place, weight)
    mass = masses[:, :-1].unflatten(1, (m, n_rings)).sum(2)
    quality = mass.sum(1)
    share = mass / quality[:, None]
    inner = _inner(law.means)
    square = (weight * (ring < n_rings) * distance.square()).sum(1)
    return Grade(
        mass,
        quality,
        mass.amin(1) * m,
        mass[:, inner].mean(1) / mass[:, ~inner].mean(1),
        torch.xlogy(share, share * m).sum(1),
        (square / (2 * quality)).sqrt(),
        jensen_shannon(masses, _ring_masses(m, masses).expand_as(masses)),
    )


def _inner(means: Tensor) -> Tensor:
    """Which modes are not on the rim of the grid."""
    size = means.abs().amax(1)
    return size < size.amax() - 1e-6


def _ring_masses(m: int, like: Tensor) -> Tensor:
    """Of the law, ring by ring and mode by mode, "elsewhere" last."""
    beyond = torch.tensor(RINGS, dtype=like.dtype, device=like.device).square().div(-2).exp()
    rings = (beyond[:-1] - beyond[1:]) / m
    return torch.cat([rings.repeat(m), beyond[-1:]])


def lattice(per_axis: int, device="cpu") -> Tensor:
    """`(per_axis^2, 2)` latents on the quantiles of N(0, I_2), each of the same mass."""
    u = (torch.arange(per_axis, dtype=torch.float64, device=device) + 0.5) / per_axis
    z = torch.special.ndtri(u).float()
    return torch.cartesian_prod(z, z)


@torch.no_grad()
def law_of(model: ddls.Model, law: GaussianMixture, per_axis: int = 200, beta: float = 0.0):
    """`Grade` of p_g e^{beta d}, exact up to the lattice; beta 0 is the generator alone."""
    z = lattice(per_axis, law.means.device).expand(model.k, -1, -1)
    weights = beta * model.logits(z) if beta else None
    return grade(model.events(z), law, weights)


# --- trivial generators, and the gate ----------------------------------------------------


def square(reach: float, per_axis: int = 200) -> Tensor:
    """`(1, per_axis^2, 2)`: the uniform law on (-reach, reach)^2 as a lattice."""
    u = (torch.arange(per_axis) + 0.5) / per_axis * 2 - 1
    return reach * torch.cartesian_prod(u, u)[None]


def blob(law: GaussianMixture, per_axis: int = 200) -> Tensor:
    """`(1, per_axis^2, 2)`: one round Gaussian with the mean and the variance of the data."""
    centre = law.means.mean(0)
    variance = (law.means - centre).square().mean() + law.scales[0].square()
    return centre + variance.sqrt() * lattice(per_axis, law.means.device)[None]


class Gate(NamedTuple):
    """What a game on the grid must have; bounds are inclusive.

    Attributes:
        quality: at least.
        least: the smallest mode's mass over the fair one, at least.
        skew: the inner modes' mean mass over the rim's lies in [1 / skew, skew].
    """

    quality: float
    least: float
    skew: float

    def passes(self, found: Grade) -> Tensor:
        """`(k,)`, which of the models do."""
        even = (found.ratio <= self.skew) & (found.ratio >= 1 / self.skew)
        return (found.quality >= self.quality) & (found.least >= self.least) & even


# --- games -------------------------------------------------------------------------------


def play(
    points: Tensor,
    k: int,
    recipe: gan.Recipe,
    n_steps: int,
    seed: int,
    *,
    widths=(64, 64, 64),
    spectral: bool = False,
    pack: int = 1,
    checkpoint=None,
) -> tuple[ddls.Model, gan.Discriminator]:
    """k generators, with averaged weights where the recipe averages, and their discriminators.

    Args:
        points: `(n, 2)`, data.
        k: models, of weights and batches of their own.
        recipe, n_steps, seed: of the game; the seed also draws the first weights.
        widths: of the hidden layers of both players.
        spectral, pack: of the discriminators.
        checkpoint: see `training.bring`.

    Returns:
        The model as it would be drawn from, and a critic to train on (its own copy).
    """
    source = torch.Generator(points.device).manual_seed(seed)
    makes = gan.Generator(2, widths, (2,), k, source)
    judges = gan.Discriminator((2,), widths, k, source, spectral=spectral, pack=pack)
    game = gan.Game(makes, judges, (k, 2), recipe, seed)
    training.bring(game, n_steps, data=points, checkpoint=checkpoint)
    base, critic = copy.deepcopy((game.average, game.discriminator))
    base.eval().requires_grad_(False)
    critic.eval().requires_grad_(False)
    return ddls.Model(base, critic, ddls.Normal(2), k), copy.deepcopy(critic).requires_grad_()


def play_kale(
    points: Tensor,
    k: int,
    recipe: gebm.Recipe,
    n_steps: int,
    seed: int,
    *,
    widths=(64, 64, 64),
    floor: float = -10.0,
    checkpoint=None,
) -> gebm.Game:
    """k bases with their energies; arguments as for `play`, the floor that of `gebm.Floored`."""
    source = torch.Generator(points.device).manual_seed(seed)
    base = gan.Generator(2, widths, (2,), k, source)
    energy = gebm.Floored(gan.Discriminator((2,), widths, k, source), floor)
    game = gebm.Game(base, energy, (k, 2), recipe, seed)
    training.bring(game, n_steps, data=points, checkpoint=checkpoint)
    return game


# --- the best critic of a trained generator ----------------------------------------------


@torch.no_grad()
def smooth_ratio(
    model: ddls.Model,
    law: GaussianMixture,
    n: int,
    generator: torch.Generator,
    *,
    blur: float = 0.02,
    cell: float = 0.01,
    reach: float = 2.75,
):
    """log p_d - log p_g, both blurred by N(0, blur^2 I), as a critic `(k, n, 2)` to `(k, n)`.

    The generator's draws are counted in square cells and blurred there, the law in closed form, so
    that the critic has a gradient to follow, which `ddls.counted` has not. A blur of 0.4 widths
    of a mode makes it 8 % wider. Beside the density of p_g there is that of half a draw.

    Args:
        n: draws of each generator.
        blur, cell: cell at most half the blur.
        reach: the lattice covers (-reach, reach)^2; beyond, the critic is as at the border.

    Raises:
        ValueError: cells too wide for the blur.
    """
    if not 0 < 2 * cell <= blur:
        raise ValueError(f"cell: expected > 0 and at most blur / 2; got {cell} at a blur of {blur}")
    cells = math.ceil(2 * reach / cell)
    counts, left = 0, n
    while left:
        x = model.events(model.draw(min(left, 50_000), generator))
        at = ((x + reach) / cell).floor().long()
        inside = ((at >= 0) & (at < cells)).all(-1)
        at = torch.where(inside, at[..., 0] * cells + at[..., 1], cells**2)
        found = [torch.bincount(row, minlength=cells**2 + 1)[:-1] for row in at]
        counts, left = counts + torch.stack(found), left - x.shape[1]
    side = (torch.arange(cells, device=x.device) + 0.5) * cell - reach
    weights = torch.exp(-0.5 * ((side - side[:, None]) / blur).square())
    kernel = weights / (blur * (2 * math.pi) ** 0.5)  # densities, which need no sum of one
    blurred = kernel @ counts.float().view(-1, cells, cells) @ kernel
    log_g = ((blurred + 0.5 / (2 * math.pi * blur**2)) / n).log()
    wide = GaussianMixture(law.means, (law.scales.square() + blur**2).sqrt(), law.weights)
    centres = torch.cartesian_prod(side, side)
    log_d = torch.cat([wide.log_prob(part) for part in centres.split(50_000)])
    table = log_d - log_g.flatten(1)

    def critic(x: Tensor) -> Tensor:
        u = ((x + reach) / cell - 0.5).clamp(0, cells - 1)
        low = u.detach().floor().clamp(max=cells - 2)
        a, b = (u - low).unbind(-1)
        low = low.long()
        corner = low[..., 0] * cells + low[..., 1]
        here, right, above, across = (
            table.gather(1, corner + step) for step in (0, cells, 1, cells + 1)
        )
        return (1 - a) * ((1 - b) * here + b * above) + a * ((1 - b) * right + b * across)

    return critic
