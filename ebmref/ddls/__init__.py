"""The GAN as an energy-based model, and every way to use its discriminator (report 2.3.2.2)."""

from ebmref.ddls.budget import METHODS, refine
from ebmref.ddls.calibration import CALIBRATIONS, Calibration, calibrate, calibration_z
from ebmref.ddls.critics import Counted, CriticStep, counted, density_ratio_critic, train_critic
from ebmref.ddls.fresh import metropolis_hastings, rejection, resampling
from ebmref.ddls.model import (
    GRADIENT_COST,
    Model,
    Normal,
    Normaliser,
    Prior,
    Refined,
    Uniform,
    latent_energy,
    log_z0,
)
from ebmref.ddls.moving import DIVERGENCES, KERNELS, chains, gradient_flow, langevin, transport

__all__ = [
    "CALIBRATIONS",
    "DIVERGENCES",
    "GRADIENT_COST",
    "KERNELS",
    "METHODS",
    "Calibration",
    "Counted",
    "CriticStep",
    "Model",
    "Normal",
    "Normaliser",
    "Prior",
    "Refined",
    "Uniform",
    "calibrate",
    "calibration_z",
    "chains",
    "counted",
    "density_ratio_critic",
    "gradient_flow",
    "langevin",
    "latent_energy",
    "log_z0",
    "metropolis_hastings",
    "refine",
    "rejection",
    "resampling",
    "train_critic",
    "transport",
]
