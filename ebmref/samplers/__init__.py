"""Samplers for energies (report section 2.3.2): all made alike, all run by `sample`."""

from ebmref.samplers.annealed import (
    Annealed,
    annealed_importance_sampling,
    sequential_monte_carlo,
)
from ebmref.samplers.chain import Chain, sample
from ebmref.samplers.diagnostics import Diagnostics, diagnose
from ebmref.samplers.importance import (
    Importance,
    importance_estimate,
    log_weights,
    weighted_estimate,
)
from ebmref.samplers.kernels import (
    Kernel,
    Proposal,
    ex2mcmc,
    hmc,
    independence,
    isir,
    kinetic_langevin,
    mala,
    random_walk,
    ula,
)
from ebmref.samplers.nuts import nuts
from ebmref.samplers.rejection import Envelope, Rejection, envelope_constant, rejection_sample
from ebmref.samplers.tempering import parallel_tempering

__all__ = [
    "Annealed",
    "Chain",
    "Diagnostics",
    "Envelope",
    "Importance",
    "Kernel",
    "Proposal",
    "Rejection",
    "annealed_importance_sampling",
    "diagnose",
    "envelope_constant",
    "ex2mcmc",
    "hmc",
    "importance_estimate",
    "independence",
    "isir",
    "kinetic_langevin",
    "log_weights",
    "mala",
    "nuts",
    "parallel_tempering",
    "random_walk",
    "rejection_sample",
    "sample",
    "sequential_monte_carlo",
    "ula",
    "weighted_estimate",
]
