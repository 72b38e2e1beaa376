"""Unknowns that are inferred from what is known: how often a restart succeeds, and at what price.

    draw         triples (x, y, z) of the horn, and random starts of each
    hide         one variable is hidden and found again
    basins       how many minima a table of energies around the circle has, how wide the deepest is
    together     two unknowns in one descent: restarts that arrived, by evaluations
    in_turn      the same, one after the other; `sweeps` with turns that are finished

Of an ellipse with radii (a, b) a point y has two nearest points along the curve inside the
evolute, the curve of the centres of curvature, and one outside it:

    |a y_1|^(2/3) + |b y_2|^(2/3) < |a^2 - b^2|^(2/3)
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import data, latent
from ebmref.seeds import derive_seed

# Largest steps of plain descent on the horn. Of x and z they are too long where the horn is wide,
# with curvatures of 2,000 and 400, and are halved there until they lower the energy.
STEPS = {"x": 0.01, "y": 0.25, "z": 0.01}


class Triples(NamedTuple):
    """n triples of the horn without noise, and r starts of each variable.

    Attributes:
        truth: x `(n,)` in [0, 1], y `(n, 2)`, z `(n,)` in [0, 2 pi).
        start: the same with r starts a question, `(n, r, ...)`.
    """

    truth: dict[str, Tensor]
    start: dict[str, Tensor]


def draw(n: int, r: int, seed: int, *, device="cpu") -> Triples:
    """Everything evenly drawn, of y the starts from a square that holds the horn."""
    source = torch.Generator(device).manual_seed(derive_seed(seed, "unknowns"))

    def even(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=source, dtype=torch.float64, device=device)

    x, z = even(n), 2 * math.pi * even(n)
    truth = {"x": x, "y": data.horn_radii(x) * data.tips(z), "z": z}
    start = {"x": even(n, r), "y": 30 * even(n, r, 2) - 15, "z": 2 * math.pi * even(n, r)}
    return Triples(truth, start)


class Hidden(NamedTuple):
    """How a hidden variable was found.

    Attributes:
        error: `(n,)`, how far the best restart ended from the truth.
        success: share of all restarts that did not lose.
        evaluations: that a restart cost.
    """

    error: Tensor
    success: float
    evaluations: float


def hide(energy, triples: Triples, name: str, n_steps: int, *, step_size=None) -> Hidden:
    """Hide a variable, "x", "y" or "z", and find it by L-BFGS, or by descent with a step size."""
    known = {key: value for key, value in triples.truth.items() if key != name}
    found = latent.joint_argmin(
        energy, known, {name: triples.start[name]}, n_steps, step_size=step_size, tolerance=1e-9
    )
    error = distance(name, found.best[name], triples.truth[name])
    success = 1 - float(found.lost.double().mean())
    return Hidden(error, success, found.n_evaluations / found.lost.numel())


def distance(name: str, a: Tensor, b: Tensor) -> Tensor:
    """How far apart two values of a variable are: angles along the circle, answers in the plane."""
    if name == "y":
        return (a - b).norm(dim=-1)
    if name == "z":
        return (torch.remainder(a - b + math.pi, 2 * math.pi) - math.pi).abs()
    return (a - b).abs()


# One angle and its basins -------------------------------------------------------------------------


def inside_evolute(y: Tensor, radii: Tensor) -> Tensor:
    """Whether an ellipse has two nearest points along the curve to y, `(n, 2)` to `(n,)`."""
    a, b = radii
    side = (radii * y).abs().pow(2 / 3).sum(-1)
    return side < (a**2 - b**2).abs() ** (2 / 3)


def evolute(radii: Tensor, angles: Tensor) -> Tensor:
    """The curve itself, angles `(n,)` to points `(n, 2)`."""
    a, b = radii
    return (a**2 - b**2) * data.tips(angles) ** 3 / (radii * radii.new_tensor([1.0, -1.0]))


class Basins(NamedTuple):
    """Of n energies of an angle.

    Attributes:
        number: of minima, `(n,)`.
        deepest: the share of the circle from which descent leads to the deepest, `(n,)`.
    """

    number: Tensor
    deepest: Tensor


def basins(level: Tensor) -> Basins:
    """Basins on a fine grid of the circle, of energies `(n, m)` without flat stretches.

    A basin reaches from ridge to ridge.
    """
    rising = level.roll(-1, 1) > level
    bottom, top = rising & ~rising.roll(1, 1), ~rising & rising.roll(1, 1)
    number = bottom.sum(1)
    # The piece before the first ridge and the one after the last are one.
    piece = top.cumsum(1) % top.sum(1, keepdim=True)
    home = piece.gather(1, level.argmin(1, keepdim=True))
    return Basins(number, (piece == home).double().mean(1))


def misfit(success: Tensor, share: Tensor, r: int) -> float:
    """By how many standard deviations chi-square is off its mean.

    It sums, over points, the squared deviation of the success of r starts from the share that was
    predicted, in units of the binomial variance.

    Args:
        success, share: `(n,)`, shares between 0 and 1, none of the predicted ones at the ends.
    """
    terms = (success - share).square() / (share * (1 - share) / r)
    return float((terms.sum() - len(terms)) / (2 * len(terms)) ** 0.5)


# Two unknowns -------------------------------------------------------------------------------------


class Course(NamedTuple):
    """Restarts of a way to infer two unknowns.

    Attributes:
        evaluations: that a restart cost, `(k,)`, rising.
        arrived: share of restarts at energy zero by then, `(k,)`.
    """

    evaluations: Tensor
    arrived: Tensor

    def by(self, evaluations: float) -> float:
        """The share that has arrived for a price of at most that; 0 before the first."""
        within = self.arrived[self.evaluations <= evaluations]
        return float(within[-1]) if len(within) else 0.0

    def price(self, share: float) -> float:
        """Evaluations until that share has arrived, between two budgets on a line; inf: never."""
        late = (self.arrived >= share).nonzero()
        if not len(late):
            return math.inf
        i = int(late[0])
        if i == 0:
            return float(self.evaluations[0])
        (a, b), (low, high) = self.evaluations[i - 1 : i + 1], self.arrived[i - 1 : i + 1]
        return float(a + (b - a) * (share - low) / (high - low))


def together(energy, known, start, budgets: Iterable[int], *, step_size=None) -> Course:
    """All unknowns in one descent, once for each budget of evaluations a restart.

    Args:
        energy, known, start: of `latent.joint_argmin`; the least energy of each question is 0.
        budgets: >= 2 each, rising.
    """
    return _course(
        latent.joint_argmin(energy, known, start, n - 1, step_size=step_size) for n in budgets
    )


def in_turn(
    energy, known, start, budgets: Iterable[int], n_steps: int, *, step_size=None
) -> Course:
    """One unknown after the other, in the order of `start`, each turn of n_steps.

    By L-BFGS, which begins anew in each turn, or by plain descent, which has nothing to forget.
    """
    price = len(start) * (n_steps + 1)  # of a sweep
    return _course(
        latent.alternating_argmin(energy, known, start, n, n_steps, step_size=step_size)
        for n in sorted({max(1, n // price) for n in budgets})
    )


def sweeps(energy, known, start, n_sweeps: int, n_steps: int = 40) -> Tensor:
    """The share of restarts that has arrived after each sweep of turns, `(n_sweeps,)`.

    A turn has enough steps to end in a minimum of its unknown, whatever it costs.
    """
    shares = []
    for _ in range(n_sweeps):
        found = latent.alternating_argmin(energy, known, start, 1, n_steps)
        start = found.ends
        shares.append((found.energies < 1e-6).double().mean())
    return torch.stack(shares)


def _course(found: Iterable[latent.Found]) -> Course:
    rows = [
        (each.n_evaluations / each.energies.numel(), (each.energies < 1e-6).double().mean())
        for each in found
    ]
    price, share = torch.tensor(rows, dtype=torch.float64).T
    return Course(price, share)
