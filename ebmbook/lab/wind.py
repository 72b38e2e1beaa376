"""A pen in the wind: what its lean leaves unexplained, and what it is worth to know the wind.

The push is lean plus wind, and the tip comes to lie where the push points, with noise:

    y = tip(x + z) + noise,     tip(u) = u / sqrt(|u|^2 + soft^2),     z ~ N(0, tau^2 I)

`left_over` is what the best predictor from the lean alone gets wrong, up to one integral; `noisy`
has answers that are as uncertain and have no wind; `trial` descends energies of such falls from
random starts and says what that cost; `least_wind` is the wind that an energy of fall and wind
finds where nobody saw the strength of the push, and `mean_wind` is the mean of all that could be.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import i0e, i1e
from torch import Tensor

from ebmref import inference
from ebmref.seeds import derive_seed


def left_over(rho: float, *, tau: float = 1.0, noise: float = 0.05, soft: float = 0.05) -> float:
    """E|y - E[y | x]|^2 where |x| = rho >= 0, by the trapezoid rule.

    The length r of the push has the density r / tau^2 exp(-(r^2 + rho^2) / 2 tau^2)
    I0(r rho / tau^2), and given r its direction is von Mises around x.
    """
    r = np.linspace(0, rho + 12 * tau, 6001)
    weight = r * np.exp(-((r - rho) ** 2) / (2 * tau**2)) / tau**2
    length = r / np.sqrt(r**2 + soft**2)
    around = r * rho / tau**2
    mean = np.trapezoid(weight * i1e(around) * length, r)
    square = np.trapezoid(weight * i0e(around) * length**2, r)
    return float(square - mean**2 + 2 * noise**2)


def noisy(y: Tensor, generator: torch.Generator) -> Tensor:
    """Answers with the mean and the mean square around it of `(..., n, 2)`, and no other cause
    than Gaussian noise, the same in each direction.
    """
    mean = y.mean(-2, keepdim=True)
    size = (y - mean).square().mean((-2, -1), keepdim=True).sqrt()
    noise = torch.randn(y.shape, generator=generator, dtype=y.dtype, device=y.device)
    return mean + size * noise


class Falls(NamedTuple):
    """n questions, their answers and what decided them, `(n, 2)` each, float64."""

    x: Tensor
    z: Tensor
    y: Tensor


def falls(tip, n: int, seed: int, *, tau=1.0, noise=0.05, device="cpu") -> Falls:
    """Leans from the standard normal law, winds of size tau, and where `tip` takes their sum."""
    drawn = torch.randn(3, n, 2, generator=_source(seed, "falls", device), **_exact(device))
    x, z = drawn[0], tau * drawn[1]
    return Falls(x, z, tip(x + z) + noise * drawn[2])


class Trial(NamedTuple):
    """What n questions of r restarts each came to.

    Attributes:
        answer: `(n, 2)`, where the restart of least energy ended.
        arrived: share of all restarts that came near the goal and stayed there.
        evaluations: the median restart's until then; inf where fewer than half arrived.
    """

    answer: Tensor
    arrived: float
    evaluations: float


def _first_two(path: Tensor) -> Tensor:
    return path[..., :2]


def trial(
    energy, goal: Tensor, start: Tensor, n_steps: int, *, step_size=None,
    read: Callable[[Tensor], Tensor] = _first_two,
) -> Trial:  # fmt: skip
    """Descend from every start, by L-BFGS or, with a step size, by plain gradients.

    A restart has arrived where its answer is within 1e-3 of the goal to the end.

    Args:
        energy: of rows `(n r, d)`, those of a question side by side.
        goal: `(n, 2)`, the answer of each question.
        start: `(n r, d)`, d >= 2.
        read: the answer `(..., n r, 2)` of coordinates `(..., n r, d)`; the first two of them
            unless it is given.
    """
    if step_size is None:
        found = inference.lbfgs_argmin(energy, start, n_steps, keep_path=True)
    else:
        found = inference.gradient_argmin(
            energy, start, step_size, n_steps, tolerance=1e-3, keep_path=True
        )
    n = len(goal)
    r = len(start) // n
    needed = arrival(read(found.path), goal.repeat_interleave(r, 0)).double()
    there = needed <= len(found.path)
    needed[~there] = math.inf
    least = found.energy.view(n, r).argmin(1)
    ends = read(found.y).view(n, r, 2)
    answer = ends[torch.arange(n, device=ends.device), least]
    # The lower middle one: torch's median, so that two infinities beside a number are no mean.
    return Trial(answer, float(there.double().mean()), float(needed.median()))


def arrival(path: Tensor, goal: Tensor, within: float = 1e-3) -> Tensor:
    """Evaluations until a restart is near its goal and stays there, `(n,)`; len(path) + 1: never.

    Args:
        path: `(steps, n, 2)`, answers.
        goal: `(n, 2)`.
    """
    away = (path - goal).norm(dim=-1) > within
    steps = torch.arange(1, len(path) + 1, device=away.device)
    return (away * steps[:, None]).amax(0) + 1


def starts(n: int, seed: int, *, device="cpu") -> tuple[Tensor, Tensor]:
    """Answers in [-1.5, 1.5]^2 and standard normal winds to start from, `(n, 2)` each."""
    draws = _source(seed, "starts", device)
    y = 3 * torch.rand(n, 2, generator=draws, **_exact(device)) - 1.5
    return y, torch.randn(n, 2, generator=draws, **_exact(device))


def least_wind(x: Tensor, y: Tensor) -> Tensor:
    """The weakest wind that makes a pen of lean x fall exactly to y, `(n, 2)` each.

    The push has to lie on the ray along y, |y| = 1; the nearest point of it to x is (x . y) y where
    that is ahead, x . y > 0, and otherwise the origin.
    """
    return (x * y).sum(-1, keepdim=True).clamp(min=0) * y - x


def mean_wind(x: Tensor, y: Tensor) -> Tensor:
    """The posterior mean of a standard normal wind, given the lean and the way of the push.

    `(n, 2)` each, |y| = 1. Of the push only its length r is unknown, with the density
    r exp(-(r - c)^2 / 2), c = x . y, up to a factor: r is the volume of polar coordinates. Its mean
    is ((1 + c^2) Phi(c) + c phi(c)) / (c Phi(c) + phi(c)).
    """
    c = (x * y).sum(-1, keepdim=True)
    density = (-c.square() / 2).exp() / math.sqrt(2 * math.pi)
    below = torch.special.ndtr(c)
    mean = ((1 + c.square()) * below + c * density) / (c * below + density)
    return mean * y - x


def seen_falls(n: int, seed: int, *, tau=1.0, device="cpu") -> Falls:
    """Falls without noise of pens that lean by 1 to the right; those kept fall to the right.

    Of n draws those with y_1 <= 0.1 are dropped: behind, the weakest push that explains a fall
    is none at all.
    """
    x = torch.tensor([1.0, 0.0], **_exact(device)).expand(n, 2)
    z = tau * torch.randn(n, 2, generator=_source(seed, "unseen", device), **_exact(device))
    y = (x + z) / (x + z).norm(dim=1, keepdim=True)
    ahead = y[:, 0] > 0.1
    return Falls(x[ahead], z[ahead], y[ahead])


def _exact(device) -> dict:
    return {"dtype": torch.float64, "device": device}


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, f"wind-{stream}"))
