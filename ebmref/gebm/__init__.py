"""Generalized energy-based models (report section 2.3.2.2): a base, and an energy on top of it."""

from ebmref.gebm.game import CRITERIA, Game, Recipe, Step
from ebmref.gebm.objective import (
    Floored,
    Score,
    base_loss,
    bound,
    langevin,
    likelihood,
    log_mean_weight,
    model,
    score,
    slope_penalty,
)

__all__ = [
    "CRITERIA",
    "Floored",
    "Game",
    "Recipe",
    "Score",
    "Step",
    "base_loss",
    "bound",
    "langevin",
    "likelihood",
    "log_mean_weight",
    "model",
    "score",
    "slope_penalty",
]
