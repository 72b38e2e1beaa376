"""Fallen pens, as pictures and as points, and how blurred an answer to them is.

    frames, blur       pictures of fallen pens; how far an answer is from being one of them
    grey, degrees      what a mean picture is by hand, and in pens that fell askew
    strokes, read_off  pens in notches, and their probabilities read off a mean picture
    falls, scores      leans and tips; radius and error of a prediction of the tip

Pictures are ink of [0, 1]; answers are of k networks side by side.
"""

import io
import math
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ebmref import data

LENGTH, WIDTH = 0.85, 0.1  # of a pen, where the picture spans [-1, 1] both ways


# Pictures ----------------------------------------------------------------------------------------


def frames(dataset: str, n: int, side: int, generator: torch.Generator) -> Tensor:
    """Pens fallen in every direction, `(n, side, side)`; or pictures of a set, of its own side.

    Args:
        dataset: "pen", or one that `data.frames` knows.

    Raises:
        ValueError, FileNotFoundError: as `data.frames`.
    """
    if dataset != "pen":
        return data.frames(dataset, n, generator)
    turn = torch.arange(n, device=generator.device) * 2 * torch.pi / n
    return data.pen_frames(turn, side, LENGTH, WIDTH)


def grey(r: float) -> float:
    """Share of all directions in which a pen covers a point r from its foot, r < LENGTH.

    A pen covers it when it falls within arcsin(WIDTH / 2r) to either side.
    """
    return math.asin(WIDTH / (2 * r)) / math.pi


class Blur(NamedTuple):
    """What is wrong with k answers beside n outcomes; each `(k,)` but `away`, and the last two.

    Attributes:
        gap: distance from the mean of the outcomes, over its norm.
        ink: total, over that of an outcome.
        peak: most ink farther from the middle than a pen is wide, over that of an outcome.
        edge: total variation, over that of an outcome.
        half_way: mean ink at half a pen's length, over a ring two pixels wide.
        away: distance from each outcome, `(k, n)`.
        nearest: the least of these.
        pairs: mean squared distance of two independent outcomes over the answer's mean squared
            error. It is 2 for the mean of the outcomes, and less for anything else.
        typical: root of that mean squared distance.
        batch: what `gap` would be for the average of 64 outcomes.
    """

    gap: Tensor
    ink: Tensor
    peak: Tensor
    edge: Tensor
    half_way: Tensor
    away: Tensor
    nearest: Tensor
    pairs: Tensor
    typical: Tensor
    batch: Tensor


def blur(answers: Tensor, outcomes: Tensor) -> Blur:
    """Compare answers `(k, h, h)` with outcomes `(n, h, h)`."""
    side = outcomes.shape[-1]
    a, y = answers.flatten(1).double(), outcomes.flatten(1).double()
    mean = y.mean(0)
    variance = (y - mean).square().sum(1).mean()
    error = variance + (a - mean).square().sum(1)
    at = (torch.arange(side, device=y.device) + 0.5) * 2 / side - 1
    away = torch.hypot(*torch.meshgrid(at, at, indexing="ij")).flatten()
    far = away > WIDTH
    ring = (away - LENGTH / 2).abs() < 2 / side
    apart = torch.cdist(a, y)
    return Blur(
        (a - mean).norm(dim=1) / mean.norm(),
        a.sum(1) / y.sum(1).mean(),
        a[:, far].amax(1) / y[:, far].amax(1).mean(),
        variation(answers).double() / variation(outcomes).double().mean(),
        a[:, ring].mean(1),
        apart,
        apart.amin(1),
        2 * variance / error,
        (2 * variance).sqrt(),
        (variance / 64).sqrt() / mean.norm(),
    )


def variation(pictures: Tensor) -> Tensor:
    """Sum of the absolute steps between neighbouring pixels, `(n, h, w)` to `(n,)`."""
    down = (pictures[:, 1:] - pictures[:, :-1]).abs().sum((1, 2))
    across = (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().sum((1, 2))
    return down + across


def strokes(at: Tensor, side: int) -> Tensor:
    """Pens that have fallen to these angles `(n,)`, `(n, side, side)`."""
    return data.pen_frames(at, side, LENGTH, WIDTH)


def read_off(answers: Tensor, outcomes: Tensor) -> Tensor:
    """Mean ink of answers `(k, h, h)` where one outcome of `(n, h, h)` alone is black, `(k, n)`.

    Of a mean picture these are the probabilities of the outcomes.
    """
    others = outcomes.sum(0) - outcomes
    alone = ((outcomes > 0.999) & (others < 0.001)).flatten(1).to(answers)
    return answers.flatten(1) @ alone.T / alone.sum(1)


def degrees(distance: Tensor, side: int) -> Tensor:
    """By how many degrees two pens differ that are so far apart, the mean over directions.

    Args:
        distance: `(k,)`, of pictures of `side` pixels a side; beyond what 30 degrees make it is 30.
    """
    first = torch.arange(24, dtype=torch.float64) * torch.pi / 12
    turns = torch.linspace(0, torch.pi / 6, 61, dtype=torch.float64)
    one = data.pen_frames(first, side, LENGTH, WIDTH).flatten(1)
    two = data.pen_frames((first + turns[:, None]).flatten(), side, LENGTH, WIDTH)
    apart = (two.view(61, 24, -1) - one).norm(dim=-1).mean(1)
    wanted = distance.double().cpu()
    above = torch.searchsorted(apart, wanted).clamp(1, 60)
    low, high = apart[above - 1], apart[above]
    share = ((wanted - low) / (high - low)).clamp(0, 1)
    return (above - 1 + share) * 0.5


def show_fading(fig: Figure) -> None:
    """Display a figure as PNG in all its colours, and close it.

    `plots.show` keeps 256 of them, few enough to see steps in ink that fades as opacity.
    """
    from IPython.display import Image, display

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", metadata={"Software": None}, dpi=150)
    plt.close(fig)
    display(Image(buffer.getvalue()))


# Points ------------------------------------------------------------------------------------------


def falls(
    kappas: tuple[float, ...], n_models: int, n: int, sigma: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Leans and noisy tips, `(len(kappas) * n_models, n, 2)` each, the models of a kappa together.

    A pen that leans to phi falls to phi + epsilon, epsilon of the von Mises law of its kappa.
    """
    shape = (len(kappas) * n_models, n)
    lean = data.von_mises(shape, 0.0, generator)
    scatter = torch.cat([data.von_mises((n_models, n), k, generator) for k in kappas])
    noise = torch.randn(*shape, 2, generator=generator, device=generator.device)
    return data.tips(lean), data.tips(lean + scatter) + sigma * noise


def scores(guess: Tensor, lean: Tensor, tip: Tensor, n_models: int) -> tuple[Tensor, Tensor]:
    """How far along the lean the tip is predicted, and the mean squared error.

    Args:
        guess, lean, tip: `(m, n, 2)`, see `falls`; m is a multiple of n_models.

    Returns:
        `(m / n_models, n_models)` both.
    """
    radius = (guess * lean).sum(-1).mean(1)
    error = (guess - tip).square().sum(-1).mean(1)
    return radius.view(-1, n_models).cpu(), error.view(-1, n_models).cpu()
