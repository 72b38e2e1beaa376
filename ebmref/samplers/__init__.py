"""Samplers for energies (report section 2.3.2): all made alike, all run by `sample`."""

from ebmref.samplers.chain import Chain, sample
from ebmref.samplers.diagnostics import Diagnostics, diagnose
from ebmref.samplers.kernels import (
    Kernel,
    Proposal,
    ex2mcmc,
    hmc,
    independence,
    isir,
    kinetic_langevin,
    mala,
    parallel_tempering,
    random_walk,
    ula,
)

__all__ = [
    "Chain",
    "Diagnostics",
    "Kernel",
    "Proposal",
    "diagnose",
    "ex2mcmc",
    "hmc",
    "independence",
    "isir",
    "kinetic_langevin",
    "mala",
    "parallel_tempering",
    "random_walk",
    "sample",
    "ula",
]
