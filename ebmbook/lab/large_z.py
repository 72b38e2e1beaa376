"""The free energy of a large z by sampling, where the truth is known.

y is d points, each with an angle of its own on one ellipse, drawn from the model at beta = 1: then
F is a sum of d quadratures over one angle each, while the samplers face one z of dimension d.

    plainly     importance sampling: z from the prior, an even law over one turn
    annealed    annealed importance sampling from an even law over so many turns, whose ends are
                walls to MALA, or where the walls reflect, or where there are none: F is the same

Both have the same number of evaluations of E, with a gradient counted as one.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ebmbook.lab.cooling import DOUBLE, angles, energies, radii
from ebmref import data
from ebmref.energies import Box
from ebmref.free_energy import (
    annealed_free_energy,
    free_energy,
    importance_free_energy,
    softmin,
)
from ebmref.samplers.importance import Importance

PARTICLES, TEMPERATURES = 32, 256
DRAWS = PARTICLES * (TEMPERATURES + 1)


class Answers(NamedTuple):
    """Answers with a large z.

    Attributes:
        y: `(n, d, 2)`.
        f: exact F_1 with the normalised measure, `(n,)`.
        divergence: from the prior to the posterior of z, in nats, the mean over answers.
    """

    y: Tensor
    f: Tensor
    divergence: float


def answers(n: int, d: int, generator: torch.Generator) -> Answers:
    """Drawn from the model: even angles, fog of variance one half."""
    device = generator.device
    like = {"generator": generator, "dtype": DOUBLE, "device": device}
    y = radii(device) * data.tips(2 * math.pi * torch.rand(n, d, **like))
    y = y + math.sqrt(0.5) * torch.randn(n, d, 2, **like)
    energy = energies(y, angles(256, device), radii(device))
    f = free_energy(energy, 1.0).sum(1)
    mean = (softmin(energy, 1.0) * energy).sum((1, 2))
    return Answers(y, f, float((f - mean).mean()))


class Found(NamedTuple):
    """What a way found of each answer, `(n,)`.

    Attributes:
        error: F found less the exact one, in nats.
        se: the standard error that the way itself gives.
        ess: effective draws.
        pareto_k: of its weights.
    """

    error: Tensor
    se: Tensor
    ess: Tensor
    pareto_k: Tensor

    @property
    def covered(self) -> Tensor:
        """1 where two of its own standard errors hold the truth, else 0: `(n,)`."""
        return (self.error.abs() <= 2 * self.se).to(self.error)


def schedule(last_step: float, first_step: float = 1.0) -> tuple[list[float], list[float]]:
    """Inverse temperatures, which grow as squares, and steps that shrink from first to last."""
    betas = [((t + 1) / TEMPERATURES) ** 2 for t in range(TEMPERATURES)]
    return betas, [1 / ((1 - b) / first_step + b / last_step) for b in betas]


def plainly(asked: Answers, generator: torch.Generator) -> Found:
    """The free energies by draws from the prior, once around."""
    prior = _even(asked, 1)
    return _found(
        asked, importance_free_energy(_energy(asked), asked.y, prior, 1.0, DRAWS, generator)
    )


def annealed(
    asked: Answers, turns: int, generator: torch.Generator, last_step=0.12, first_step=1.0,
    ends: str = "walls",
) -> Found:  # fmt: skip
    """The free energies by annealing from an even prior over so many turns.

    Args:
        turns: >= 1; F is the same for any, and the walls are as far apart.
        last_step: of MALA, where it is coldest; first_step: where it is hot.
        ends: "walls", where MALA refuses a proposal whole if one angle leaves the range; "reflect",
            where an angle that leaves it is folded back into it; "wrap", where there is no range.

    Raises:
        ValueError: other ends.
    """
    if ends not in ("walls", "reflect", "wrap"):
        raise ValueError(f"ends: expected walls, reflect or wrap; got {ends}")
    betas, steps = schedule(last_step, first_step)
    prior, energy = _even(asked, turns), _energy(asked)
    if ends != "walls":
        prior = Boundless(prior)
    if ends == "reflect":
        energy = _folded(energy, turns)
    got = annealed_free_energy(energy, asked.y, prior, 1.0, PARTICLES, betas, steps, generator)
    return _found(asked, got)


class Boundless:
    """An even law over a box, whose density is the same outside: for energies that repeat."""

    def __init__(self, box: Box):
        self.box = box

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """From the box: `(n, d)`."""
        return self.box.sample(n, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Of `(n, d)`, in the box or not: `(n,)`."""
        inside = self.box.log_prob(torch.zeros_like(z))
        return inside + 0 * z.sum(-1)


def _folded(energy: Callable[[Tensor, Tensor], Tensor], turns: int):
    end = 2 * math.pi * turns
    return lambda y, z: energy(y, end - (torch.remainder(z, 2 * end) - end).abs())


def _even(asked: Answers, turns: int) -> Box:
    return Box(torch.zeros_like(asked.y[0, :, 0]), 0.0, 2 * math.pi * turns)


def _energy(asked: Answers) -> Callable[[Tensor, Tensor], Tensor]:
    w = radii(asked.y.device)
    return lambda y, z: (y - w * data.tips(z)).square().sum((1, 2))


def _found(asked: Answers, got: Importance) -> Found:
    return Found(-got.log_z - asked.f, got.log_z_se, got.ess, got.pareto_k)
