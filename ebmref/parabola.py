"""Learning an energy of (x, y): LeCun et al.'s parabola, many models at a time.

Y = X^2 is to be learned from samples. The *regression* architecture E = |G(x) - y| cannot
be flat in y, whatever it learns; the *implicit* one, E = |G1(x) - G2(y)|_1, can, by mapping
everything to one point. A loss that only pulls the right answer down then collapses it.

Models that differ in seed and loss are trained in one pass: parameters and energies carry
a leading dimension of models, and models never meet.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmref import losses
from ebmref.networks import Networks
from ebmref.training import fit


class Implicit(nn.Module):
    """E(x, y) = |G1(x) - G2(y)|_1: both sides are mapped, so the energy can be flat."""

    def __init__(self, n_models: int, generator: torch.Generator, hidden: int = 20, code: int = 10):
        super().__init__()
        self.of_x = Networks((1, hidden, code), n_models, generator)
        self.of_y = Networks((1, hidden, code), n_models, generator)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Energies of each pair `(n,), (n,)` and of each x with each of `(m,)` answers.

        Args:
            x: `(n,)`.
            y: `(n + m,)`, the right answers followed by the grid.

        Returns:
            `(n_models, n)` and `(n_models, n, m)`.
        """
        n = len(x)
        code_x = self.of_x(x[:, None])
        right, grid = self.of_y(y[:, None]).split([n, len(y) - n], dim=1)
        return (code_x - right).abs().sum(-1), _manhattan(code_x, grid)


class Regression(nn.Module):
    """E(x, y) = |G(x) - y|: steep in y by construction."""

    def __init__(self, n_models: int, generator: torch.Generator, hidden: int = 20):
        super().__init__()
        self.of_x = Networks((1, hidden, 1), n_models, generator)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As `Implicit.forward`."""
        n = len(x)
        predicted = self.of_x(x[:, None])
        return (predicted[..., 0] - y[:n]).abs(), (predicted - y[n:]).abs()


def _manhattan(a: Tensor, b: Tensor) -> Tensor:
    """`(k, n, d)` and `(k, m, d)` to `(k, n, m)`, the sum over d of |a - b|."""
    return (a[:, :, None] - b[:, None]).abs().sum(-1)


class Score(NamedTuple):
    """How a learned energy does on the parabola; `(n_models,)` each.

    Attributes:
        error: mean over x of |argmin_y E(x, y) - x^2|, the argmin taken on the grid.
        relief: mean over x of max_y E - min_y E; a flat energy has none.
        contrast: mean over x of (max_y E - min_y E) / mean_y E, for energies >= 0. It is
            the same at every scale of E; a V with its foot on the parabola has 2 to 2.4.
        ranking: share of (x, y) on the grid, y farther than `radius` from x^2, whose energy
            is above that of (x, x^2).
    """

    error: Tensor
    relief: Tensor
    contrast: Tensor
    ranking: Tensor


def grid_of_answers(low: float = -0.5, high: float = 1.5, n: int = 41) -> Tensor:
    """The answers that inference searches: `(n,)`, evenly spaced."""
    return torch.linspace(low, high, n)


def train(
    model: nn.Module,
    objectives: list[tuple[losses.Loss, float]],
    n_steps: int,
    generator: torch.Generator,
    *,
    batch: int = 32,
    n_data: int = 200,
    learning_rate: float = 3e-3,
    grid: Tensor | None = None,
    anneal: bool = False,
) -> Iterator[Tensor]:
    """Fit the parabola with Adam; yields the loss of each model after each step.

    Args:
        model: maps `(x, y)` to energies, see `Implicit.forward`; its models are split evenly
            among the objectives, in order.
        objectives: a loss with the radius outside which an answer counts as wrong.
        n_steps: steps of Adam.
        generator: draws the data and the batches, the same for every model.
        anneal: see `training.fit`.

    Raises:
        ValueError: the models cannot be split evenly among the objectives.
    """
    device = generator.device
    grid = (grid_of_answers() if grid is None else grid).to(device)
    cell = float(grid[1] - grid[0])
    data = 2 * torch.rand(n_data, generator=generator, device=device) - 1

    def loss() -> Tensor:
        chosen = torch.randint(n_data, (batch,), generator=generator, device=device)
        x = data[chosen]
        right, energy = model(x, torch.cat([x.square(), grid]))
        if len(right) % len(objectives):
            raise ValueError(
                f"objectives: {len(right)} models cannot be split among {len(objectives)} of them"
            )
        shape = (len(objectives), -1)
        right, energy = right.unflatten(0, shape), energy.unflatten(0, shape)
        distance = (x.square()[:, None] - grid).abs()
        values = [
            function(losses.answers_on_grid(energy[i], right[i], distance, radius, cell)).mean(-1)
            for i, (function, radius) in enumerate(objectives)
        ]
        return torch.stack(values).flatten()

    return fit(model, loss, n_steps, learning_rate, anneal=anneal)


@torch.no_grad()
def score(model: nn.Module, radius: float = 0.3, n: int = 101, grid: Tensor | None = None) -> Score:
    """Score every model on an even grid of x in [-1, 1].

    The contrast of an energy that is zero everywhere is NaN.

    Raises:
        ValueError: a radius that leaves no answer farther than it.
    """
    device = next(model.parameters()).device
    grid = (grid_of_answers(n=201) if grid is None else grid).to(device)
    x = torch.linspace(-1, 1, n, device=device)
    right, energy = model(x, torch.cat([x.square(), grid]))
    distance = (x.square()[:, None] - grid).abs()
    error = (grid[energy.argmin(-1)] - x.square()).abs().mean(-1)
    relief = energy.amax(-1) - energy.amin(-1)
    contrast = (relief / energy.mean(-1)).mean(-1)
    if not (distance > radius).any():
        raise ValueError(f"radius: expected one that some answer is farther than; got {radius}")
    above = (energy > right[..., None]) & (distance > radius)
    ranking = above.sum((-1, -2)) / (distance > radius).sum()
    return Score(error, relief.mean(-1), contrast, ranking)
