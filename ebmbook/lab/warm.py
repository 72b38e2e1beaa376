"""A model with a latent angle that is trained, queried and scored as an energy of y alone.

    E(y, z) = |y - w t(z)|^2,    t(z) = (cos z, sin z)

Data sets stand side by side: y is `(s, n, 2)`, a row s has radii w `(s, 2)` and a beta of its own.
With the normalised measure -log p(y) = beta F_beta(y) - log(beta / pi), so that the mean free
energy, at a fixed beta, is the negative log-likelihood of the curve in its fog. In float64.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy import optimize, stats
from scipy.special import i0e, i1e
from torch import Tensor

from ebmbook.lab.cooling import angles
from ebmref import data, inference
from ebmref.free_energy import free_energy, softmin

N_ANGLES = 48
BAR = 0.1  # of the data's radius: what counts as open


def free_energies(y: Tensor, beta: Tensor, w: Tensor, n_angles: int = N_ANGLES) -> Tensor:
    """F of the data y `(s, n, 2)` at beta `(s,)` and radii w `(s, 2)`: `(s, n)`.

    beta F_beta(E) = F_1(beta E) lets beta be a tensor.
    """
    curve = w[:, None] * data.tips(angles(n_angles, y.device))
    energy = y.square().sum(-1)[..., None] - 2 * y @ curve.mT + curve.square().sum(-1)[:, None]
    return free_energy(beta[:, None, None] * energy, 1.0) / beta[:, None]


def train(y: Tensor, beta: Tensor, start: list[float], n_steps: int = 120) -> Tensor:
    """Radii that minimise the summed free energy, by L-BFGS, all rows at once: `(s, k)`.

    Args:
        y: `(s, n, 2)`; beta: `(s,)`.
        start: of both radii, or of the one that both axes share (k = 1); 0 stays shut.
    """
    first = torch.tensor(start, dtype=y.dtype, device=y.device)
    free = (first != 0).to(y)  # by theory a radius of 0 feels no slope; by rounding it does
    found = inference.lbfgs_argmin(
        lambda w: free_energies(y, beta, (w * free).expand(-1, 2)).sum(1),
        first.expand(len(y), -1), n_steps, tolerance=1e-6,
    )  # fmt: skip
    return found.y.abs()  # a radius and its negative are the same curve


def train_all(y: Tensor, betas: Tensor, start: list[float]) -> Tensor:
    """Of each data set at each of its temperatures `(s, b)`: radii `(s, b, k)`."""
    rows = y.repeat_interleave(betas.shape[1], 0)
    return train(rows, betas.flatten(), start).view(*betas.shape, -1)


def circle_radius(beta: float, radius: float) -> float:
    """The w that solves w = R I_1(2 beta w R) / I_0(2 beta w R); 0 below beta = 1 / R^2."""
    if beta * radius**2 <= 1:
        return 0.0

    def gap(w: float) -> float:
        x = 2 * beta * w * radius
        return w - radius * i1e(x) / i0e(x)

    return float(optimize.brentq(gap, 1e-9, radius, xtol=1e-12))


def opening(radius_at: Callable[[Tensor], Tensor], guess: Tensor, scale: float) -> Tensor:
    """The beta at which a trained radius leaves zero, `(s,)`.

    Its square rises in proportion to beta less that. So we find by halving where it passes two
    bars, a tenth of the scale and root two of that, and draw the line back to zero.

    Args:
        radius_at: of beta `(2 s,)`, both bars one after the other, `(2 s,)`.
        guess: `(s,)`; what is found lies within a tenth of it.
        scale: the radius of the data.
    """
    bars = torch.cat([torch.full_like(guess, BAR * scale * k) for k in (1.0, math.sqrt(2))])
    low, high = 0.9 * guess.repeat(2), 1.1 * guess.repeat(2)
    for _ in range(14):
        middle = (low + high) / 2
        shut = radius_at(middle) < bars
        low, high = torch.where(shut, middle, low), torch.where(shut, high, middle)
    first, second = ((low + high) / 2).view(2, -1)
    return 2 * first - second


def circle_opening(y: Tensor) -> Tensor:
    """Of one radius for both axes: `(s,)`; in theory 1 / <|y|^2>."""
    guess = 1 / y.square().sum(-1).mean(1)
    scale = float(y.square().sum(-1).mean().sqrt())
    both = y.repeat(2, 1, 1)
    return opening(lambda beta: train(both, beta, [0.2])[:, 0], guess, scale)


def axis_opening(y: Tensor, axis: int, guess: Tensor, shut: bool = False) -> Tensor:
    """Of one axis of an ellipse, `(s,)`, the other one free, or held at zero (`shut`)."""
    scale = float((2 * y[..., axis].square().mean()).sqrt())
    start = [1.0, 1.0]
    start[axis] = 0.2
    if shut:
        start[1 - axis] = 0.0
    both = y.repeat(2, 1, 1)
    return opening(lambda beta: train(both, beta, start)[:, axis], guess, scale)


class Openings(NamedTuple):
    """In theory, of each data set `(s,)`: the first axis, the second, the second by itself."""

    first: Tensor
    second: Tensor
    alone: Tensor


def openings(y: Tensor) -> Openings:
    """1 / (2 <y_k^2>) of either axis, and of the second one where the first is open.

    There the sum over the points of <sin^2 z> (1 - 2 beta y_2^2) changes its sign, under the
    softmin of z that the first axis alone leaves.
    """
    first, alone = (1 / (2 * y.square().mean(1))).unbind(-1)
    z = angles(N_ANGLES, y.device)

    def bracket(beta: Tensor) -> Tensor:
        along = train(y, beta, [1.0, 0.0])[:, 0, None, None] * z.cos()
        energy = along.square() - 2 * y[..., :1] * along
        s2 = softmin(beta[:, None, None] * energy, 1.0) @ z.sin().square()
        return (s2 * (1 - 2 * beta[:, None] * y[..., 1].square())).sum(1)

    low, high = first, 1.5 * alone
    for _ in range(20):
        middle = (low + high) / 2
        shut = bracket(middle) > 0
        low, high = torch.where(shut, middle, low), torch.where(shut, high, middle)
    return Openings(first, (low + high) / 2, alone)


# A whole system ----------------------------------------------------------------------------------


class Model(NamedTuple):
    """One for each data set: radii `(s, 2)` and inverse temperature `(s,)`."""

    w: Tensor
    beta: Tensor


def negative_log_likelihood(y: Tensor, model: Model) -> Tensor:
    """-log p of each point y `(s, n, 2)`: `(s, n)`, by 256 angles."""
    f = free_energies(y, model.beta, model.w, 256)
    return model.beta[:, None] * f - (model.beta / math.pi).log()[:, None]


def fit_minimum(y: Tensor, start: Tensor, n_steps: int = 120) -> Model:
    """The opponent: radii by the mean of min_z E (orthogonal regression), beta from what is left.

    One residual a point, across the curve, so that 1 / (2 beta) is its mean square.

    Args:
        y: `(s, n, 2)`; start: radii `(s, 2)`.
    """

    def least(w: Tensor) -> Tensor:
        curve = w[:, None] * data.tips(angles(256, y.device))
        cross = y.square().sum(-1)[..., None] - 2 * y @ curve.mT
        return (cross + curve.square().sum(-1)[:, None]).amin(-1).mean(1)

    w = inference.lbfgs_argmin(least, start, n_steps, tolerance=1e-7).y
    return Model(w, 0.5 / least(w))


def gaussian_nats(seen: Tensor, held: Tensor) -> Tensor:
    """Mean -log p of held-out points under the Gaussian of the seen ones' moments: `(s,)`."""
    mean = seen.mean(1, keepdim=True)
    off = seen - mean
    covariance = off.mT @ off / seen.shape[1]
    scaled = torch.linalg.solve(covariance, (held - mean).mT)
    square = ((held - mean).mT * scaled).sum(1)
    return (0.5 * (square + covariance.logdet()[:, None]) + math.log(2 * math.pi)).mean(1)


def from_curve(y: Tensor, w: Tensor) -> Tensor:
    """Distance of each point `(n, 2)` to the ellipse of radii w `(2,)`: `(n,)`, by 4096 angles."""
    return torch.cdist(y, w * data.tips(angles(4096, y.device))).amin(1)


def length_draws(n: int, w: Tensor, beta: float, generator: torch.Generator) -> Tensor:
    """A law that is even in length, in the same fog: `(n, 2)`, by rejection."""
    like = {"generator": generator, "dtype": w.dtype, "device": w.device}
    z = 2 * math.pi * torch.rand(8 * n, **like)
    speed = (w.flip(0) * data.tips(z)).norm(dim=-1)
    z = z[torch.rand(8 * n, **like) < speed / w.max()][:n]
    return w * data.tips(z) + (2 * beta) ** -0.5 * torch.randn(len(z), 2, **like)


def exact_draws(n: int, w: Tensor, beta: float, generator: torch.Generator) -> Tensor:
    """An even angle, and fog: `(n, 2)`."""
    like = {"generator": generator, "dtype": w.dtype, "device": w.device}
    z = 2 * math.pi * torch.rand(n, **like)
    return w * data.tips(z) + (2 * beta) ** -0.5 * torch.randn(n, 2, **like)


class Agreement(NamedTuple):
    """p-values of Kolmogorov and Smirnov's test, in units of the radii."""

    angle: float
    distance: float


def agreement(y: Tensor, draws: Tensor, w: Tensor) -> Agreement:
    """Of two samples `(n, 2)` and `(m, 2)`, each of independent points."""

    def polar(points: Tensor):
        u = (points / w).cpu()
        return torch.atan2(u[:, 1], u[:, 0]).numpy(), u.norm(dim=1).numpy()

    pairs = zip(polar(y), polar(draws), strict=True)
    return Agreement(*(float(stats.ks_2samp(a, b).pvalue) for a, b in pairs))
