"""Generators of the grid whose law is known, and critics that err as much as they are told to.

KnownBase     x = F^-1(Phi(z)) on each axis, F of uneven modes and of bridges between them
model         such bases with their exact critic: density ratio and gradient without counting
erring        the same with a critic that is blurred, wrong about modes, and has a floor

What a trained generator has by accident, these have by choice, one thing at a time: bridges, wide
modes, uneven frequencies. Latents are normal and the map is monotone on each axis, so that
neighbours in x are neighbours in z, as they are of a trained generator.
"""

import math

import torch
from torch import Tensor, nn

from ebmref import ddls
from ebmref.energies import GaussianMixture

REACH = 5.0  # of tables over a latent's axis


def column(z: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Where latents lie among n even nodes of [-REACH, REACH]: the node below, and the share of the
    way to the next, which alone carries a gradient. Latents beyond count as at the end.
    """
    u = ((z + REACH) * ((n - 1) / (2 * REACH))).clamp(0, n - 1)
    low = u.detach().floor().clamp(max=n - 2)
    return low.long(), u - low


class KnownBase(nn.Module):
    """k generators of the plane, `(k, n, 2)` to `(k, n, 2)`, with their densities.

    The law of an axis is (1 - bridge) sum_m weight_m N(centre_m, scale^2) + bridge U, U uniform
    between the outermost centres; the axes are independent.

    Args:
        weights: `(k, 2, m)`, > 0, of the modes along each axis; made to sum to one.
        centres: `(m,)`, rising.
        scale: of a mode along an axis.
        bridge: share of the mass of an axis between the modes, in (0, 1).
        n_table: points of the map's table, between which it is linear.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(self, weights: Tensor, centres: Tensor, scale: float, bridge: float, n_table=8001):
        super().__init__()
        if weights.dim() != 3 or weights.shape[1:] != (2, len(centres)) or not (weights > 0).all():
            raise ValueError(
                f"weights: expected > 0, (k, 2, {len(centres)}); got {tuple(weights.shape)}"
            )
        if not scale > 0 or not 0 < bridge < 1:
            raise ValueError(f"scale, bridge: expected > 0 and in (0, 1); got {scale}, {bridge}")
        self.scale, self.bridge = float(scale), float(bridge)
        self.register_buffer("weights", weights / weights.sum(2, keepdim=True))
        self.register_buffer("centres", centres)
        self.register_buffer("table", self._inverse(n_table).to(weights.dtype))

    def _inverse(self, n: int) -> Tensor:
        """F^-1(Phi(z)) on an even grid of z, `(2 k, n)`."""
        low, high = self.centres[[0, -1]].double() + 9 * self.scale * torch.tensor([-1.0, 1.0])
        x = torch.linspace(float(low), float(high), 20 * n, dtype=torch.float64)
        z = torch.linspace(-REACH, REACH, n, dtype=torch.float64)
        cdf = self._cdf(x).flatten(0, 1)
        rising = cdf + 1e-15 * torch.arange(len(x))  # flat where there is all but no mass
        goal = torch.special.ndtr(z).expand(len(cdf), -1).contiguous()
        at = torch.searchsorted(rising, goal).clamp(1, len(x) - 1)
        left, right = rising.gather(1, at - 1), rising.gather(1, at)
        share = ((goal - left) / (right - left)).clamp(0, 1)
        return x[at - 1] + share * (x[1] - x[0])

    def _cdf(self, x: Tensor) -> Tensor:
        """`(k, 2, len(x))`, in double precision."""
        centres = self.centres.double()
        steps = torch.special.ndtr((x - centres[:, None]) / self.scale)
        along = ((x - centres[0]) / (centres[-1] - centres[0])).clamp(0, 1)
        return (1 - self.bridge) * self.weights.double() @ steps + self.bridge * along

    def forward(self, z: Tensor) -> Tensor:
        k, n, _ = z.shape
        low, share = column(z.transpose(1, 2).reshape(2 * k, n), self.table.shape[1])
        x = torch.lerp(self.table.gather(1, low), self.table.gather(1, low + 1), share)
        return x.view(k, 2, n).transpose(1, 2)

    def log_prob(self, x: Tensor, blur: float = 0.0) -> Tensor:
        """`(k, n, 2)` to `(k, n)`; with the modes, not the bridges, blurred by N(0, blur^2)."""
        return self.log_along(x, blur).sum(-1)

    def log_along(self, x: Tensor, blur: float = 0.0) -> Tensor:
        """The same axis by axis, `(k, n, 2)` to `(k, n, 2)`."""
        scale = math.hypot(self.scale, blur)
        off = (x[..., None] - self.centres) / scale
        weights = self.weights[:, None]  # (k, 1, 2, m)
        modes = (weights.log() - 0.5 * off.square()).logsumexp(-1)
        modes = modes + math.log((1 - self.bridge) / (scale * (2 * math.pi) ** 0.5))
        inside = (x >= self.centres[0]) & (x <= self.centres[-1])
        width = float(self.centres[-1] - self.centres[0])
        flat = torch.where(inside, math.log(self.bridge / width), -math.inf)
        return torch.logaddexp(modes, flat.to(modes))


def uneven(k: int, m: int, spread: float, generator: torch.Generator, tilt=None) -> Tensor:
    """Weights `(k, 2, m)`: log-normal about a tilt (m numbers, None for even ones)."""
    noise = torch.randn(k, 2, m, generator=generator, device=generator.device)
    about = torch.ones(m) if tilt is None else torch.as_tensor(tilt)
    return about.to(noise) * (spread * noise).exp()


def model(base: KnownBase, law: GaussianMixture) -> ddls.Model:
    """The bases with their exact critic, d = log p_d - log p_g."""

    def critic(x: Tensor) -> Tensor:
        return law.log_prob(x.flatten(0, 1)).view(x.shape[:2]) - base.log_prob(x)

    return ddls.Model(base, critic, ddls.Normal(2), len(base.weights))


def erring(
    base: KnownBase,
    law: GaussianMixture,
    generator: torch.Generator,
    *,
    blur: float = 0.0,
    mistake: float = 0.0,
    floor: float = -math.inf,
) -> ddls.Model:
    """The bases with critics that fall short of the exact one in three ways, each a number.

    Args:
        blur: sees the modes of data and base through N(0, blur^2 I): cannot narrow them.
        mistake: standard deviation, in nats, of what it is wrong by at each mode.
        floor: d is log(e^d + e^floor): leaves bridges of that weight.
    """
    wide = GaussianMixture(law.means, (law.scales.square() + blur**2).sqrt(), law.weights)
    shape = (len(base.weights), len(law.means))
    wrong = mistake * torch.randn(shape, generator=generator, device=law.means.device)

    def critic(x: Tensor) -> Tensor:
        d = wide.log_prob(x.flatten(0, 1)).view(x.shape[:2]) - base.log_prob(x, blur)
        near = torch.cdist(x.detach(), law.means).argmin(2)
        d = d + wrong.gather(1, near)
        return d if floor == -math.inf else torch.logaddexp(d, torch.full_like(d, floor))

    return ddls.Model(base, critic, ddls.Normal(2), len(base.weights))
