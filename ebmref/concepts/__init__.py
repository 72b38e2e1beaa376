"""Concepts as energies of scenes: inferred by descent, learned through it (report 2.2.1)."""

from ebmref.concepts.energy import (
    FARTHEST,
    GAIN,
    REACHES,
    WIDTH,
    Energy,
    best_mask,
    infer_code,
    infer_mask,
    infer_scene,
)
from ebmref.concepts.learning import (
    LOSSES,
    Learner,
    Measured,
    Recipe,
    Step,
    contrast_loss,
    is_exact,
    measure,
    truth_loss,
)

__all__ = [
    "FARTHEST",
    "GAIN",
    "LOSSES",
    "REACHES",
    "WIDTH",
    "Energy",
    "Learner",
    "Measured",
    "Recipe",
    "Step",
    "best_mask",
    "contrast_loss",
    "infer_code",
    "infer_mask",
    "infer_scene",
    "is_exact",
    "measure",
    "truth_loss",
]
