"""Learning an energy without its normaliser: losses, chains, methods, and one `Learner`.

The law is p(x) = exp(-E(x)) / Z: lower energy is likelier, and Z is not known. `losses` has what is
descended, `chains` the draws that stand for those of the model, `methods` puts both together in
ways that are called alike, and `Learner` trains an energy by any of them.
"""

from ebmref.likelihood.chains import (
    Buffer,
    as_langevin,
    held,
    last_step,
    nearest_entropy,
    run,
    tempered,
)
from ebmref.likelihood.learner import CAUSES, Learner, Perceptrons, Recipe, Step
from ebmref.likelihood.losses import (
    NotFinite,
    cd_loss,
    denoising,
    energy_penalty,
    exact_loss,
    gradient_penalty,
    nce_loss,
    on_grid,
    over,
    score_matching,
    sliced_score_matching,
)
from ebmref.likelihood.methods import (
    Method,
    Phase,
    cd,
    denoised,
    exact,
    matching,
    noise_contrastive,
    persistent_cd,
    short_run,
)

__all__ = [
    "CAUSES",
    "Buffer",
    "Learner",
    "Method",
    "NotFinite",
    "Perceptrons",
    "Phase",
    "Recipe",
    "Step",
    "as_langevin",
    "cd",
    "cd_loss",
    "denoised",
    "denoising",
    "energy_penalty",
    "exact",
    "exact_loss",
    "gradient_penalty",
    "held",
    "last_step",
    "matching",
    "nce_loss",
    "nearest_entropy",
    "noise_contrastive",
    "on_grid",
    "over",
    "persistent_cd",
    "run",
    "score_matching",
    "short_run",
    "sliced_score_matching",
    "tempered",
]
