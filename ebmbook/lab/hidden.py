"""Learning with a variable that nobody saw, and what it costs to infer one of many numbers.

learn_horn   networks x -> radii of the horn's ellipse, angles hidden: argmin_f of the mean of
             F_beta(x, y) = -1/beta log mean_z exp(-beta |y - f(x) * t(z)|^2) (Canziani and
             LeCun 2021)
success      the share of descents from random angles that find the least energy
one_by_one   the same of an exact search over one angle at a time
reach        evaluations until descents from random angles touch energy zero
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import data, inference, training
from ebmref.free_energy import free_energy
from ebmref.networks import Networks
from ebmref.seeds import derive_seed


class Horns(NamedTuple):
    """k networks, each with data of its own.

    Attributes:
        x, y: what they learned from, `(k, n)` and `(k, n, 2)`.
        at: a grid of x, `(51,)`.
        radii: what they learned there, `(k, 51, 2)`.
        error: mean relative error of both radii over the grid, `(k,)`.
        energy: mean of F_beta over all their data, which tells a failed training without
            the truth, `(k,)`.
    """

    x: Tensor
    y: Tensor
    at: Tensor
    radii: Tensor
    error: Tensor
    energy: Tensor


def learn_horn(
    beta: float, k: int, n_steps: int, seed: int, *, n: int = 2000, device="cpu"
) -> Horns:
    """Adam on batches of 64; those of another temperature and the same seed have the same data,
    first weights and batches.

    Args:
        beta: > 0; `math.inf` for the least energy over the angles.
    """

    def source(stream: str) -> torch.Generator:
        return torch.Generator(device).manual_seed(derive_seed(seed, f"horn-{stream}"))

    x = torch.rand(k, n, generator=source("x"), device=device)
    y, _ = data.horn(x, source("y"))
    net = Networks((1, 8, 8, 2), k, source("net"), torch.relu)
    directions = data.tips(torch.arange(48.0, device=device) * (math.pi / 24))
    batches = source("batches")

    def energies(rows) -> Tensor:
        points = net(x[:, rows, None])[:, :, None] * directions
        return free_energy((y[:, rows, None] - points).square().sum(-1), beta).mean(-1)

    def loss() -> Tensor:
        return energies(torch.randint(n, (64,), generator=batches, device=device))

    for _ in training.fit(net, loss, n_steps, 0.02, anneal=True):
        pass
    at = torch.linspace(0, 1, 51, device=device)
    with torch.no_grad():
        radii, energy = net(at[:, None]).abs(), energies(slice(None))
    return Horns(x, y, at, radii, relative_error(radii, at), energy)


def relative_error(radii: Tensor, at: Tensor) -> Tensor:
    """The mean over x and both radii, `(k, n, 2)` at `(n,)` to `(k,)`."""
    truth = data.horn_radii(at)
    return ((radii - truth).abs() / truth).mean((1, 2))


Energy = Callable[[Tensor], Tensor]


def success(
    energy: Energy, least: float, d: int, n: int, n_steps: int, seed: int, *,
    step_size: float | None = None, device="cpu",
) -> Tensor:  # fmt: skip
    """Whether each of n descents from even angles `(n, d)` ends at the least energy, `(n,)` bool.

    Args:
        energy: `(n, d)` to `(n,)`.
        least: its minimum, met to 1e-3.
        step_size: of gradient descent; None for L-BFGS.
    """
    start = angles(n, d, seed, device)
    if step_size is None:
        found = inference.lbfgs_argmin(energy, start, n_steps)
    else:
        found = inference.gradient_argmin(energy, start, step_size, n_steps)
    return found.energy < least + 1e-3


def one_by_one(
    energy: Energy, least: float, d: int, n: int, n_sweeps: int, seed: int, *, n_grid: int = 48,
    step_size: float = 0.02, device="cpu",
) -> Tensor:  # fmt: skip
    """Whether a search over one angle after the other ends at the least energy, `(n,)` bool.

    Each angle in turn takes the best of a grid, the others held: d n_grid evaluations a sweep.
    200 steps of gradient descent lead from the grid to the minimum.

    Args:
        energy, least, n: see `success`.
    """
    z = angles(n, d, seed, device)
    grid = torch.arange(n_grid, dtype=z.dtype, device=device) * (2 * math.pi / n_grid)
    for k in list(range(d)) * n_sweeps:
        tried = z[:, None].repeat(1, n_grid, 1)
        tried[:, :, k] = grid
        best = energy(tried.flatten(0, 1)).view(n, n_grid).argmin(1)
        z[:, k] = grid[best]
    return inference.gradient_argmin(energy, z, step_size, 200).energy < least + 1e-3


class Reach(NamedTuple):
    """Of n descents: evaluations `(n,)` until the energy stays below 1e-6, and whether it does."""

    evaluations: Tensor
    arrived: Tensor


def reach(energy: Energy, d: int, n: int, n_steps: int, seed: int, *, device="cpu") -> Reach:
    """L-BFGS from even angles `(n, d)`."""
    start = angles(n, d, seed, device)
    path = inference.lbfgs_argmin(energy, start, n_steps, keep_path=True).path
    over = torch.stack([energy(z) for z in path]) > 1e-6
    steps = torch.arange(1, len(path) + 1, device=over.device)
    return Reach((over * steps[:, None]).amax(0) + 1.0, ~over[-1])


def angles(n: int, d: int, seed: int, device="cpu") -> Tensor:
    """Even angles, `(n, d)`, float64."""
    source = torch.Generator(device).manual_seed(derive_seed(seed, f"angles-{d}"))
    return 2 * math.pi * torch.rand(n, d, generator=source, dtype=torch.float64, device=device)
