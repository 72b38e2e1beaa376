"""How often folk recipes for energies of pictures run away, and what their chains look like."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmbook.lab.folk import Setting, folk, setting
from ebmbook.lab.pictures import Axes, Ruler, Sets, grade, noised
from ebmbook.rates import Rate
from ebmref.seeds import derive_seed


class PicturesDivergence(NamedTuple):
    """What became of k trainings of one recipe.

    Attributes:
        died: the step at which each diverged, 0 of those that did not, `(k,)`.
        causes: why, places in `ebmref.likelihood.CAUSES`, `(k,)`.
        share: of those that diverged.
        interval: the exact 95 % one of that share.
        frechet: of each one's chains to training pictures, both with the ruler's noise, `(k,)`;
            NaN of those that diverged.
        beta: at which the chains moved.
    """

    died: Tensor
    causes: Tensor
    share: float
    interval: tuple[float, float]
    frechet: Tensor
    beta: float


def divergence(
    remedy: str | Setting, known: Sets, axes: Axes, by: Ruler, n_models: int, n_steps: int,
    seed: int, *, rate: float = 30.0, n_judged: int = 360, hidden: tuple[int, ...] = (64, 64),
    **more,
) -> PicturesDivergence:  # fmt: skip
    """Train k models of pictures by the folk recipe with one remedy, and count those that diverge.

    They see the pictures as they are, in all principal coordinates; chains begin at the Gaussian of
    the noised law.

    Args:
        remedy: of `lab.folk.REMEDIES`, or any `Setting`.
        axes: of `known`.
        rate: of the folk recipe that a named remedy is given to. At 10, as on the plane, chains of
            8 x 8 digits hold together for a thousand steps of training and more.
        n_judged: chains of each model that are judged, at most as many as its buffer has.
        more: limit, reach and batch of `lab.folk.folk`.

    Raises:
        ValueError: an unknown remedy.
    """
    made, u = setting(remedy, rate=rate), axes.into(known.train)
    learner = folk(
        made, u, axes.base(u.shape[1]), n_models, n_steps, seed, hidden=hidden, **more
    )  # fmt: skip
    draws = torch.Generator(u.device).manual_seed(derive_seed(seed, "judged"))
    # What the recipe has learned of already, its own noise, is not added once more.
    missing = math.sqrt(max(0.0, axes.sigma**2 - made.data_noise**2))
    alive = learner.alive
    frechet = torch.full((n_models,), math.nan)
    for k in alive.nonzero()[:, 0].tolist():
        x = noised(axes.back(learner.memory.x[k, :n_judged]), missing, draws)
        frechet[k] = grade(by, x, draws).frechet
    n_died = int((~alive).sum())
    return PicturesDivergence(
        learner.died,
        learner.causes,
        n_died / n_models,
        Rate(n_died, n_models, n_died, n_models).interval,
        frechet,
        made.beta,
    )
