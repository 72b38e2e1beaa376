"""The loss functionals of energy-based learning (LeCun et al. 2006, table 1).

Inference minimises the energy; learning minimises a loss *of* the energies, so that the
right answer ends up lowest. A loss sees an example through a few numbers (`Answers`): the
energy of the right answer, of the most offending wrong one, of the lowest answer of all,
and the free energy over the answers. Lower is better for every loss, and all of them pull
the right answer's energy down; they differ in what they push up.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref.checks import check_tensors
from ebmref.energies import level


class Answers(NamedTuple):
    """What a loss looks at; all of one shape, one entry an example.

    Attributes:
        right: energy of the right answer, E(y_i).
        wrong: energy of the most offending answer, the lowest among the wrong ones.
        lowest: min over all answers of E.
        free: F = -(1/beta) log of the sum, or integral, of exp(-beta E) over all answers.
    """

    right: Tensor
    wrong: Tensor
    lowest: Tensor
    free: Tensor


def answers_on_grid(
    energy: Tensor, right: Tensor, distance: Tensor, radius: float, cell: float, beta: float = 1.0
) -> Answers:
    """Read the four numbers off the energies of a grid of answers.

    Args:
        energy: `(..., m)`, E of each grid answer.
        right: `(...)`, E of the right answer, which need not lie on the grid.
        distance: broadcasts to `(..., m)`, |y - y_i| of each grid answer.
        radius: answers farther than this from the right one count as wrong.
        cell: length of a grid cell, the weight of one answer in the integral.
        beta: inverse temperature of the free energy, > 0.

    Raises:
        ValueError: no tensors, beta or cell is not positive, or an example has no wrong answer.
    """
    check_tensors(energy=energy, right=right, distance=distance)
    if not beta > 0:
        raise ValueError(f"beta: expected > 0; got {beta}")
    if not cell > 0:
        raise ValueError(f"cell: expected > 0; got {cell}")
    is_wrong = distance > radius
    if not is_wrong.any(-1).all():
        raise ValueError(f"radius: {radius} leaves some example without a wrong answer")
    wrong = energy.masked_fill(~is_wrong, torch.inf).amin(-1)
    lowest = torch.minimum(energy.amin(-1), right)
    c, log_sum = _log_sum(energy, beta, -1)
    free = c - (log_sum + torch.tensor(cell, dtype=log_sum.dtype).log()) / beta
    return Answers(right, wrong, lowest, free.to(energy.dtype))


def two_answers(right: Tensor, wrong: Tensor, beta: float = 1.0) -> Answers:
    """The smallest world: one right and one wrong answer, nothing else."""
    both = torch.stack([right, wrong])
    c, log_sum = _log_sum(both, beta, 0)
    return Answers(right, wrong, both.amin(0), (c - log_sum / beta).to(both.dtype))


def _log_sum(energy: Tensor, beta: float, dim: int) -> tuple[Tensor, Tensor]:
    """An energy c and log sum exp(-beta (E - c)) along an axis, in single precision at least."""
    roomy = energy if energy.dtype in (torch.float32, torch.float64) else energy.float()
    c = level(roomy, dim, beta)
    return c.squeeze(dim), (-beta * (roomy - c)).logsumexp(dim)


def energy_loss(a: Answers) -> Tensor:
    """E(y_i): pulls down, pushes nothing up."""
    return a.right


def perceptron(a: Answers) -> Tensor:
    """E(y_i) - min_y E(y): pushes up the model's own answer, with no margin."""
    return a.right - a.lowest


def hinge(a: Answers, margin: float = 1.0) -> Tensor:
    """max(0, m + E(y_i) - E(wrong))."""
    return (margin + a.right - a.wrong).relu()


def log_loss(a: Answers) -> Tensor:
    """log(1 + exp(E(y_i) - E(wrong))): a hinge without a corner."""
    return torch.nn.functional.softplus(a.right - a.wrong)


def lvq2(a: Answers, ceiling: float = 1.0) -> Tensor:
    """min(M, max(0, E(y_i) - E(wrong))): a perceptron that gives hopeless examples up."""
    return (a.right - a.wrong).clamp(0, ceiling)


def mce(a: Answers) -> Tensor:
    """1 / (1 + exp(-(E(y_i) - E(wrong)))): a smooth count of the errors."""
    return (a.right - a.wrong).sigmoid()


def square_square(a: Answers, margin: float = 1.0) -> Tensor:
    """E(y_i)^2 + max(0, m - E(wrong))^2: both energies to their own targets."""
    return a.right.square() + (margin - a.wrong).relu().square()


def square_square_printed(a: Answers, margin: float = 1.0) -> Tensor:
    """E(y_i)^2 - max(0, m - E(wrong))^2: the sign that table 1 prints, kept to be refuted."""
    return a.right.square() - (margin - a.wrong).relu().square()


def square_exponential(a: Answers, scale: float = 1.0) -> Tensor:
    """E(y_i)^2 + c exp(-E(wrong)): pushes the wrong answer up for ever, ever less."""
    return a.right.square() + scale * (-a.wrong).exp()


def negative_log_likelihood(a: Answers) -> Tensor:
    """E(y_i) - F = E(y_i) + (1/beta) log int exp(-beta E): pushes every answer up by its share."""
    return a.right - a.free


def minimum_empirical_error(a: Answers, beta: float = 1.0) -> Tensor:
    """1 - p(y_i), p = exp(-beta (E(y_i) - F)): the expected number of errors."""
    return 1 - (-beta * (a.right - a.free)).exp()


Loss = Callable[[Answers], Tensor]

# In the order of table 1; the printed square-square stands beside the right one.
ZOO: dict[str, Loss] = {
    "energy": energy_loss,
    "perceptron": perceptron,
    "hinge": hinge,
    "log": log_loss,
    "LVQ2": lvq2,
    "MCE": mce,
    "square-square": square_square,
    "square-square, printed": square_square_printed,
    "square-exp": square_exponential,
    "NLL": negative_log_likelihood,
    "MEE": minimum_empirical_error,
}


def separation(loss: Loss, margin: float, reach: float = 6.0, n: int = 241) -> float:
    """How far a loss prefers answers told apart by `margin`, by brute force.

    The sufficient condition of LeCun et al. 2006: some pair of energies with
    E(right) + m < E(wrong) has a smaller loss than every pair without that gap. On a grid
    of `[0, reach]^2` in the two-answer world, returns the smallest loss without the gap
    minus the smallest with it; the condition holds where this is positive.

    Args:
        margin: m > 0.
        reach: largest energy of the grid.
        n: grid points a side.

    Raises:
        ValueError: margin is not in (0, reach).
    """
    if not 0 < margin < reach:
        raise ValueError(f"margin: expected between 0 and reach = {reach}; got {margin}")
    side = torch.linspace(0, reach, n, dtype=torch.float64)
    right, wrong = torch.meshgrid(side, side, indexing="ij")
    value = loss(two_answers(right, wrong))
    apart = right + margin < wrong
    return float(value[~apart].min() - value[apart].min())
