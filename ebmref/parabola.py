"""Learning an energy of (x, y): LeCun et al.'s parabola, many models at a time.

Y = X^2 is to be learned from samples. The *regression* architecture E = |G(x) - y| cannot
be flat in y, whatever it learns; the *implicit* one, E = |G1(x) - G2(y)|_1, can, by mapping
everything to one point. A loss that only pulls the right answer down then collapses it.

Models that differ in seed and loss are trained in one pass: parameters and energies carry
a leading dimension of models, and models never meet.
"""

from collections.abc import Iterator, Sequence
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
            x: `(n,)`, for all models, or `(n_models, n)`.
            y: `(n + m,)` or `(n_models, n + m)`, the right answers followed by the grid.

        Returns:
            `(n_models, n)` and `(n_models, n, m)`.
        """
        n = x.shape[-1]
        code_x = self.of_x(x[..., None])
        right, grid = self.of_y(y[..., None]).split([n, y.shape[-1] - n], dim=1)
        return (code_x - right).abs().sum(-1), _manhattan(code_x, grid)


class Regression(nn.Module):
    """E(x, y) = |G(x) - y|: steep in y by construction."""

    def __init__(self, n_models: int, generator: torch.Generator, hidden: int = 20):
        super().__init__()
        self.of_x = Networks((1, hidden, 1), n_models, generator)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As `Implicit.forward`."""
        n = x.shape[-1]
        predicted = self.of_x(x[..., None])
        return (predicted[..., 0] - y[..., :n]).abs(), (predicted - y[..., None, n:]).abs()


def _manhattan(a: Tensor, b: Tensor) -> Tensor:
    """`(k, n, d)` and `(k, m, d)` to `(k, n, m)`, the sum over d of |a - b|."""
    return (a[:, :, None] - b[:, None]).abs().sum(-1)


class Objective(NamedTuple):
    """What a model is to minimise, and over which answers.

    Attributes:
        loss: of `losses`, or another function of `losses.Answers`.
        radius: answers farther than this from the right one count as wrong.
        finite: the grid is all the answers there are, the one nearest to x^2 is right, and the
            free energy is of a sum: losses see probabilities. Else the right answer is x^2 itself
            and the free energy is of an integral: losses see densities, which can exceed one.
    """

    loss: losses.Loss
    radius: float = 0.3
    finite: bool = False


class Score(NamedTuple):
    """How a learned energy does on the parabola; `(n_models,)` each.

    None of them is changed by a constant, or a function of x, that is added to the energy; error,
    lead and ranking are not by a positive factor either.

    Attributes:
        error: mean over x of |argmin_y E(x, y) - x^2|, the argmin taken on the grid.
        relief: mean over x of max_y E - min_y E; a flat energy has none.
        lead: mean over x of (mean_y E - E(x, x^2)) / sd_y E, the standard deviation being over
            the answers: a V with its foot on the parabola has 1.42 to 1.73, chance has 0. Of an
            energy without any relief it is NaN.
        ranking: share of (x, y) on the grid, y farther than `radius` from x^2, whose energy
            is above that of (x, x^2).
    """

    error: Tensor
    relief: Tensor
    lead: Tensor
    ranking: Tensor


def grid_of_answers(low: float = -0.5, high: float = 1.5, n: int = 41) -> Tensor:
    """The answers that inference searches: `(n,)`, evenly spaced."""
    return torch.linspace(low, high, n)


def train(
    model: nn.Module,
    objectives: Sequence[Objective | tuple],
    n_steps: int,
    generator: torch.Generator,
    *,
    batch: int = 32,
    n_data: int = 200,
    learning_rate: float = 3e-3,
    grid: Tensor | None = None,
    anneal: bool = False,
    own_data: bool = False,
) -> Iterator[Tensor]:
    """Fit the parabola with Adam; yields the loss of each model after each step.

    Args:
        model: maps `(x, y)` to energies, see `Implicit.forward`; its models are split evenly
            among the objectives, in order.
        objectives: see `Objective`; a tuple of its first fields will do.
        n_steps: steps of Adam.
        generator: draws the data and the batches.
        anneal: see `training.fit`.
        own_data: the i-th model of each objective has data and batches of its own, the same for all
            objectives; else all models have the same.

    Raises:
        ValueError: the models cannot be split evenly among the objectives.
    """
    device = generator.device
    grid = (grid_of_answers() if grid is None else grid).to(device)
    cell = float(grid[1] - grid[0])
    n_models, n_objectives = len(next(model.parameters())), len(objectives)
    if n_models % n_objectives:
        raise ValueError(
            f"objectives: {n_models} models cannot be split among {n_objectives} of them"
        )
    each = (n_models // n_objectives,) if own_data else ()
    data = 2 * torch.rand(*each, n_data, generator=generator, device=device) - 1

    def loss() -> Tensor:
        chosen = torch.randint(n_data, (*each, batch), generator=generator, device=device)
        x = data.gather(-1, chosen)
        asked = x.repeat(n_objectives, 1) if own_data else x
        answers = torch.cat([asked.square(), grid.expand(*asked.shape[:-1], -1)], -1)
        right, energy = model(asked, answers)
        right, energy = (e.unflatten(0, (n_objectives, -1)) for e in (right, energy))
        distance = (x.square()[..., None] - grid).abs()
        nearest = distance.argmin(-1, keepdim=True)
        values = []
        for i, (function, radius, finite) in enumerate(Objective(*given) for given in objectives):
            exact = nearest.expand(*right[i].shape, 1)
            known = energy[i].gather(-1, exact)[..., 0] if finite else right[i]
            weight = 1.0 if finite else cell
            seen = losses.answers_on_grid(energy[i], known, distance, radius, weight)
            values.append(function(seen).mean(-1))
        return torch.stack(values).flatten()

    return fit(model, loss, n_steps, learning_rate, anneal=anneal)


@torch.no_grad()
def score(model: nn.Module, radius: float = 0.3, n: int = 101, grid: Tensor | None = None) -> Score:
    """Score every model on an even grid of x in [-1, 1].

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
    lead = ((energy.mean(-1) - right) / energy.std(-1, correction=0)).mean(-1)
    if not (distance > radius).any():
        raise ValueError(f"radius: expected one that some answer is farther than; got {radius}")
    above = (energy > right[..., None]) & (distance > radius)
    ranking = above.sum((-1, -2)) / (distance > radius).sum()
    return Score(error, relief.mean(-1), lead, ranking)
