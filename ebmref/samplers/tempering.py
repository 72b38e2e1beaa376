"""Parallel tempering: replicas at several temperatures, and swaps between them.

What is hot crosses barriers, what is cold draws from p; a swap hands down the ladder what was
found at its top (Geyer 1991). The kernel is one like those of `ebmref.samplers.kernels`.
"""

import functools
import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref.checks import positive_number
from ebmref.energies import Energy, value_and_gradient
from ebmref.samplers.kernels import (
    Kernel,
    Slope,
    check_in_rows,
    init_slope,
    langevin_proposal,
    langevin_ratio,
    metropolis,
    per_chain,
)
from ebmref.samplers.noise import draw_replicas


def parallel_tempering(energy: Energy, step_size: float, betas: tuple[float, ...]) -> Kernel:
    """Replicas at inverse temperatures beta: a `mala` step each, then swaps of neighbours.

    Replica k has the energy beta_k E and the step step_size / beta_k. Neighbours swap with
    A = exp((beta_k - beta_l) (E_k - E_l)), odd and even pairs in turn. The chain is replica 0,
    beta = 1; the acceptance reported is that of its local step.

    Args:
        energy: `(n, *event) -> (n,)`, differentiable.
        step_size: of the replica with beta = 1, > 0.
        betas: decreasing from 1.0, all > 0; two or more.
    """
    betas = tuple(float(beta) for beta in betas)
    falls = all(a > b > 0 for a, b in itertools.pairwise(betas))
    if len(betas) < 2 or betas[0] != 1 or not falls:
        raise ValueError(f"betas: expected 1.0 > beta_1 > ... > 0, two or more; got {betas}")
    return Kernel(
        "parallel_tempering",
        functools.partial(_init_replicas, energy, len(betas)),
        functools.partial(draw_replicas, len(betas)),
        functools.partial(_tempering_step, energy, betas),
        positive_number("step_size", step_size),
        len(betas),
        0,
        n_noise=len(betas),
        energy=energy,
    )


class Replicas(NamedTuple):
    """Every chain at every temperature: `(n, n_betas, ...)`, the chains first as everywhere."""

    xs: Tensor
    energies: Tensor
    gradients: Tensor
    parity: Tensor

    @property
    def x(self) -> Tensor:
        return self.xs[:, 0]

    @property
    def energy(self) -> Tensor:
        return self.energies[:, 0]


def _init_replicas(energy, n_betas, x, generator):
    start = init_slope(energy, x, generator)
    check_in_rows("parallel_tempering", energy, x)
    copies = [torch.stack([part] * n_betas, 1) for part in start]
    return Replicas(*copies, torch.zeros(len(x), dtype=torch.long, device=x.device))


def _tempering_step(energy, betas, state, noise, step_size):
    xi, u, swap_u = noise
    n, k = swap_u.shape
    levels = swap_u.new_tensor(betas)

    # beta E is an energy like any other, h / beta its step: one batch of n * k chains.
    here = Slope(state.xs.flatten(0, 1), state.energies.flatten(), state.gradients.flatten(0, 1))
    beta = levels.repeat(n)
    wide = per_chain(beta, here.x)
    xi, step = xi.flatten(0, 1), step_size / wide
    y = langevin_proposal(here.x, wide * here.gradient, xi, step)
    there = Slope(y, *value_and_gradient(energy, y))
    back = langevin_ratio(wide * here.gradient, wide * there.gradient, xi, step)
    log_ratio = beta * (here.energy - there.energy) + back
    moved, acceptance = metropolis(here, there, log_ratio, u.flatten())
    xs, gradients = moved.x.view_as(state.xs), moved.gradient.view_as(state.gradients)
    energies = moved.energy.view(n, k)

    # Pairs (0, 1), (2, 3), ... or (1, 2), (3, 4), ...; an end without partner meets itself.
    rank = torch.arange(k, device=xi.device)
    partner = rank + 1 - 2 * ((rank + state.parity[:, None]) % 2)
    partner = torch.where((partner < 0) | (partner >= k), rank, partner)
    row = torch.arange(n, device=xi.device)[:, None]
    log_ratio = (levels - levels[partner]) * (energies - energies[row, partner])
    # Both of a pair read the number of its lower rank, so that they agree.
    swap = log_ratio >= torch.log1p(-swap_u[row, torch.minimum(rank, partner)])
    source = torch.where(swap, partner, rank)
    state = Replicas(
        xs[row, source], energies[row, source], gradients[row, source], 1 - state.parity
    )
    return state, acceptance.view(n, k)[:, 0]
