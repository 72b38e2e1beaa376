"""Laws of the plane whose density is known, and how near learned energies are to them.

law       a ring, a board or a roll: draws, and the density on a grid
scores    of k energies: KL, the masses of the modes and log Z, by quadrature
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref.energies import GaussianMixture
from ebmref.outcomes import plane_grid


class Board:
    """A checkerboard of 4 by 4 squares on [-2, 2]^2, every other one filled, edges blurred.

    A draw is uniform on the filled squares, plus noise N(0, width^2) on each coordinate.

    Args:
        like: any tensor whose dtype and device the law takes.
    """

    def __init__(self, like: Tensor, width: float = 0.1):
        low = torch.arange(-2, 2, dtype=like.dtype, device=like.device)
        corners = torch.cartesian_prod(low, low)
        self.corners, self.width = corners[corners.sum(1) % 2 == 0], width

    def log_prob(self, x: Tensor) -> Tensor:
        """Of `(n, 2)`; -inf where the density leaves the dtype."""
        along = (x[:, None] - self.corners) / self.width
        inside = torch.special.ndtr(along) - torch.special.ndtr(along - 1 / self.width)
        return inside.prod(-1).mean(1).log()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`(n, 2)`."""
        like = {"dtype": self.corners.dtype, "device": self.corners.device}
        at = torch.randint(len(self.corners), (n,), generator=generator, device=like["device"])
        inside, noise = torch.rand(n, 2, generator=generator, **like), torch.empty(n, 2, **like)
        return self.corners[at] + inside + self.width * noise.normal_(generator=generator)


def _ring(like: Tensor, blur: float):
    """Eight Gaussians on a circle, of masses 1 .. 8 over 36."""
    turn = torch.arange(8, dtype=like.dtype, device=like.device) * 2 * torch.pi / 8
    means = 2 * torch.stack([turn.cos(), turn.sin()], 1)
    weights = torch.arange(1, 9, dtype=like.dtype, device=like.device)
    scales = torch.full_like(weights, math.hypot(0.2, blur))
    return GaussianMixture(means, scales, weights), means


def _board(like: Tensor, blur: float):
    board = Board(like, math.hypot(0.1, blur))
    return board, board.corners + 0.5


def _roll(like: Tensor, blur: float):
    """Beads along the swiss roll of scikit-learn, over 7.5, so close that they are a curve.

    Its eight parts are arcs of equal mass, from the middle outwards.
    """
    share = (torch.arange(160, dtype=like.dtype, device=like.device) + 0.5) / 160
    turn = 1.5 * torch.pi * (1 + 2 * share)
    means = turn[:, None] * torch.stack([turn.cos(), turn.sin()], 1) / 7.5
    return GaussianMixture(means, torch.full_like(share, math.hypot(0.1, blur))), means


LAWS = {"ring": _ring, "board": _board, "roll": _roll}


class Law(NamedTuple):
    """A law of the plane with its density on a grid of m points.

    Attributes:
        name: of `LAWS`.
        draws: has `sample(n, generator)` and `log_prob(x)`, in single precision.
        points: `(m, 2)`, in single precision, each for a cell of area `cell`.
        log_p: `(m,)`, in double precision.
        parts: `(m,)`, which of the eight parts a point belongs to: that of the nearest centre.
        centres: `(c, 2)`, an equal number for each part, one part after another.
        masses: `(8,)`, of the parts.
    """

    name: str
    draws: object
    points: Tensor
    cell: float
    log_p: Tensor
    parts: Tensor
    centres: Tensor
    masses: Tensor


def law(
    name: str, device="cpu", *, reach: float = 4.0, n_side: int = 80, blur: float = 0.0
) -> Law:  # fmt: skip
    """A law of `LAWS`, with a grid of n_side^2 points on [-reach, reach]^2.

    Args:
        blur: standard deviation of noise that is added to its draws.

    Raises:
        ValueError: an unknown name.
    """
    if name not in LAWS:
        raise ValueError(f"law: expected one of {', '.join(LAWS)}; got {name!r}")
    draws, centres = LAWS[name](torch.zeros((), device=device), blur)
    wide, _ = LAWS[name](torch.zeros((), dtype=torch.float64, device=device), blur)
    points, cell = plane_grid(reach, n_side, device)
    log_p = wide.log_prob(points.double())
    parts = owner(points, centres)
    masses = torch.zeros(8, dtype=log_p.dtype, device=device)
    masses = masses.index_add(0, parts, log_p.exp() * cell)
    return Law(name, draws, points, cell, log_p, parts, centres, masses)


def owner(x: Tensor, centres: Tensor) -> Tensor:
    """Which part of a law points `(n, 2)` belong to, by the nearest centre: `(n,)` in 0 .. 7."""
    return torch.cdist(x, centres).argmin(-1) // (len(centres) // 8)


class Scores(NamedTuple):
    """How near k energies are to a law, by quadrature; what is beyond the grid does not count.

    Attributes:
        kl: KL(law || model), `(k,)`, in nats.
        masses: the models', of the law's parts, `(k, 8)`.
        log_z: `(k,)`.
    """

    kl: Tensor
    masses: Tensor
    log_z: Tensor


@torch.no_grad()
def scores(law: Law, energy: Callable[[Tensor], Tensor]) -> Scores:
    """Of k energies that take points `(m, 2)` to `(k, m)`."""
    return scores_of(law, -torch.cat([energy(part) for part in law.points.split(4096)], -1))


def scores_of(law: Law, log_density: Tensor) -> Scores:
    """Of k log densities on the law's grid, `(k, m)`, up to a constant each."""
    values = -log_density.double()
    log_z = (-values).logsumexp(-1) + math.log(law.cell)
    log_q = -values - log_z[:, None]
    p = law.log_p.exp()
    # Where the law has no mass it does not matter what the model says.
    gap = torch.where(p > 0, p * (law.log_p.clamp(min=-1e3) - log_q), 0.0)
    masses = torch.zeros(len(values), 8, dtype=values.dtype, device=values.device)
    masses = masses.index_add(1, law.parts, log_q.exp() * law.cell)
    return Scores(gap.sum(-1) * law.cell, masses, log_z)


def level(law: Law) -> float:
    """The log density above which 99 % of a law is."""
    log_p, order = law.log_p.sort(descending=True)[0], (law.log_p.exp() * law.cell)
    mass = order.sort(descending=True)[0].cumsum(0)
    return float(log_p[int((mass < 0.99 * mass[-1]).sum())])
