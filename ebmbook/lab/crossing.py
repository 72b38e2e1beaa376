"""What local moves cannot reach: far modes, the neck of a funnel; and Z by a path to the target."""

import math
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy import optimize, stats
from torch import Tensor

from ebmref import energies, samplers
from ebmref.samplers.diagnostics import arviz

HEAVY, LIGHT = 0.7, 0.3
CUT = 3 * float(stats.norm.ppf(0.95))  # of the funnel's x_1


def modes(distance: float, like: dict) -> energies.GaussianMixture:
    """Two round modes of width 1 in the plane, the heavy one on the left."""
    poles = torch.tensor([[-distance / 2, 0.0], [distance / 2, 0.0]], **like)
    weights = torch.tensor([HEAVY, LIGHT], **like)
    return energies.GaussianMixture(poles, torch.ones(2, **like), weights)


def barrier(distance: float) -> float:
    """Energy of the pass above the heavy mode's bottom, of modes that are some widths apart."""
    axis = torch.linspace(-distance / 2, distance / 2, 4001, dtype=torch.float64)
    along = torch.stack([axis, torch.zeros_like(axis)], 1)
    energy = modes(distance, {"dtype": torch.float64})(along)
    half = int(energy.argmax())
    return float((energy[half] - energy[: half + 1].min()).clamp(min=0))


class Visit(NamedTuple):
    """Shares of time beyond the middle, one a chain `(n,)`, and R-hat of x_1 over the chains."""

    share: Tensor
    rhat: float


def visit(
    kernel: samplers.Kernel, distance: float, n_chains: int, n_steps: int, generator, spread=False
) -> Visit:  # fmt: skip
    """Chains that begin in the heavy mode, or (`spread`) every other one in the light one."""
    like = {"dtype": torch.float64, "device": generator.device}
    x0 = torch.randn(n_chains, 2, generator=generator, **like)
    x0[:, 0] -= distance / 2
    if spread:
        x0[::2, 0] += distance
    x = samplers.sample(
        kernel, x0, n_steps, warmup=n_steps // 10, generator=generator
    ).samples[..., 0]  # fmt: skip
    rhat = float(arviz().rhat(x.T.cpu().numpy(), method="rank"))
    return Visit((x > 0).double().mean(0), rhat)


def ways_out(distance: float, like: dict) -> dict[str, samplers.Kernel]:
    """Other kernels for the two modes; the hottest replica sees 0.02 of the barrier."""
    law, q = modes(distance, like), wide(2, 7.0, like)
    ladder = (1.0, 0.4, 0.16, 0.06, 0.02)
    return {
        "random walk": samplers.random_walk(law, 1.7),
        "HMC": samplers.hmc(law, 0.3, 7),
        "NUTS": samplers.nuts(law, 0.6, 6),
        "i-SIR": samplers.isir(law, q, 10),
        "Ex2MCMC": samplers.ex2mcmc(law, q, 1.5, 10),
        "tempering": samplers.parallel_tempering(law, 1.5, ladder),
    }


def true_share(distance: float) -> float:
    """P(x_1 > 0): the light mode, and what of the heavy one lies beyond the middle."""
    tail = float(stats.norm.sf(distance / 2))
    return LIGHT * (1 - tail) + HEAVY * tail


class Ends(NamedTuple):
    """Shares of time in the neck and in the mouth of the funnel, one a chain, `(n,)` each."""

    neck: Tensor
    mouth: Tensor


def _ends(first: Tensor) -> Ends:
    return Ends((first < -CUT).double().mean(0), (first > CUT).double().mean(0))


def funnel(h: float, n_chains: int, n_steps: int, generator) -> Ends:
    """MALA on Neal's funnel in three dimensions, from its waist; 0.05 is due in either end."""
    like = {"dtype": torch.float64, "device": generator.device}
    x0 = torch.randn(n_chains, 3, generator=generator, **like)
    x0[:, 0] = 0.0
    law = energies.Funnel(torch.zeros(3, **like), 3.0)
    with warnings.catch_warnings():
        # Chains that stand still in the neck are what is looked for.
        warnings.filterwarnings("ignore", "chain: .* never moved", RuntimeWarning)
        chain = samplers.sample(
            samplers.mala(law, h), x0, n_steps, warmup=n_steps // 2, generator=generator
        )
    return _ends(chain.samples[..., 0])


def straightened(n_chains: int, n_steps: int, generator) -> Ends:
    """HMC in the coordinates (x_1, u), x_k = exp(x_1 / 2) u_k, where the funnel is normal."""
    like = {"dtype": torch.float64, "device": generator.device}
    covariance = torch.diag(torch.tensor([9.0, 1.0, 1.0], **like))
    law = energies.Gaussian(torch.zeros(3, **like), covariance)
    x0 = law.sample(n_chains, generator)
    chain = samplers.sample(samplers.hmc(law, 0.5, 7), x0, n_steps, generator=generator)
    return _ends(chain.samples[..., 0])


# The best acceptance -------------------------------------------------------------------------


# Of either kernel: the power of s that a jump's square is of, and what is tried of s, where
# s^2 is the variance of log A.
SCALED = {"walk": (2, np.linspace(0.6, 5.4, 9)), "mala": (2 / 3, np.linspace(0.2, 3.2, 9))}


def scaling(name: str, d: int, n_chains: int, generator, like: dict) -> np.ndarray:
    """Acceptance and mean squared jump on N(0, I), by rising acceptance: `(len(s), 2)`."""
    law = wide(d, 1.0, like)
    make = {
        "walk": lambda s: samplers.random_walk(law, s / d**0.5),
        "mala": lambda s: samplers.mala(law, (16 * s**2 / d) ** (1 / 3)),
    }[name]
    steps = SCALED[name][1][::-1]
    return np.array([jump_worth(make(float(s)), law, n_chains, generator) for s in steps])


def acceptance(s):
    """2 Phi(-s/2), of a log A that is normal with variance s^2 and mean -s^2/2."""
    return 2 * stats.norm.cdf(-s / 2)


def best_acceptance(power: float) -> float:
    """2 Phi(-s/2) where s^power Phi(-s/2) is largest: 2 for the walk, 2/3 for MALA."""
    best = optimize.minimize_scalar(
        lambda s: -(s**power) * acceptance(s), bounds=(0.1, 6), method="bounded"
    )
    return float(acceptance(best.x))


def jump_worth(kernel: samplers.Kernel, law, n_chains: int, generator) -> tuple[float, float]:
    """Acceptance, and the mean squared jump of a coordinate in one step."""
    x0 = law.sample(n_chains, generator)
    chain = samplers.sample(kernel, x0, 90, generator=generator)
    jump = chain.samples.diff(dim=0).square().mean()
    return float(chain.acceptance_rate.mean()), float(jump)


def neighbours(kernel: samplers.Kernel, x0: Tensor, n_steps: int, generator) -> float:
    """Correlation of a coordinate with its next draw, over all of N(0, I) from exact draws x0."""
    x = samplers.sample(kernel, x0, n_steps, generator=generator).samples
    return float((x[1:] * x[:-1]).mean() / x.square().mean())


# Z -------------------------------------------------------------------------------------------


class LogZ(NamedTuple):
    """Of repeated runs, `(n,)` each: the error of log Z, and the standard error a run claims."""

    error: Tensor
    claimed: Tensor

    @property
    def covered(self) -> Tensor:
        """1 where two claimed errors hold the truth, else 0."""
        return (self.error.abs() <= 2 * self.claimed).double()


def wide(d: int, scale: float, like: dict) -> energies.Gaussian:
    """N(0, scale^2 I)."""
    return energies.Gaussian(torch.zeros(d, **like), scale**2 * torch.eye(d, **like))


def known_z(like: dict) -> Mapping[str, tuple]:
    """Energies of known log Z, a wide law to begin from, and MALA's step."""
    return {
        "ring": (energies.Ring(torch.zeros(2, **like)), wide(2, 3.0, like), 0.2),
        "modes": (modes(14.0, like), wide(2, 7.0, like), 1.0),
        "funnel": (energies.Funnel(torch.zeros(3, **like), 2.0), wide(3, 4.0, like), 0.5),
        "normal": (wide(50, 1.0, like), wide(50, 1.5, like), 0.5),
    }


def log_z(method, law, q, h: float, particles: int, repeats: int, generator) -> LogZ:
    """Runs of `annealed_importance_sampling` or `sequential_monte_carlo`, 40 temperatures each."""
    runs = [method(law, q, particles, 40, h, generator=generator) for _ in range(repeats)]
    found = torch.tensor([[float(r.log_z) - law.log_z, float(r.log_z_se)] for r in runs])
    return LogZ(*found.double().T)


def naive_log_z(law, q, n: int, repeats: int, generator) -> Tensor:
    """The error of log Z by n plain draws of q a run: `(repeats,)`."""
    x = q.sample(n * repeats, generator)
    log_w = (-law(x) - q.log_prob(x)).view(repeats, n)
    return log_w.logsumexp(1) - math.log(n) - law.log_z
