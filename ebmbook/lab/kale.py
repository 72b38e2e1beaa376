"""The bound of equation (R14), its signs and its bias, where Z and KL are known.

F(E, c) = -E_P[E + c] - E_Q[exp(-(E + c))] + 1 is at most L(E) = -E_P[E] - log Z, which is at most
KL(P || Q). All in double precision.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn

from ebmref import ddls, gebm, training

DOUBLE = torch.float64
RIGHT = (-1, 1, -1)
# Points as often as they weigh, of six of which P misses two: a mean over them is an expectation.
OF_P, OF_Q = (0, 0, 0, 0, 1, 1, 1, 2, 3, 3), (0, 1, 1, 2, 2, 2, 3, 4, 5, 5)


def signed(of_data: int, inner: int, of_samples: int) -> Callable:
    """(R14) with other signs, of energies `(..., n)`, `(..., m)` and c `(...)`; RIGHT are right."""
    return lambda real, fake, c: (
        of_data * (real.mean(-1) + c)
        + of_samples * (-fake - inner * c[..., None]).exp().mean(-1)
        + 1
    )


def least_excess(n: int, generator: torch.Generator) -> Tensor:
    """How far each of the eight sign choices gets above L at most, over n random energies and c.

    Returns:
        `(8,)`, in the order of `sign_choices`.
    """
    device = generator.device
    sizes = torch.logspace(-2, 1, n, dtype=DOUBLE, device=device)[:, None]
    energy = sizes * torch.randn(n, 6, generator=generator, dtype=DOUBLE, device=device)
    real, fake = energy[:, OF_P], energy[:, OF_Q]
    noise = torch.randn(n, generator=generator, dtype=DOUBLE, device=device)
    c = gebm.log_mean_weight(fake) + 2 * noise
    height = gebm.likelihood(real, fake)
    return torch.stack([(signed(*s)(real, fake, c) - height).max() for s in sign_choices()])


def sign_choices() -> list[tuple[int, int, int]]:
    """All eight."""
    return list(itertools.product((-1, 1), repeat=3))


def batch_bias(m: int, n: int, generator: torch.Generator) -> Tensor:
    """F and L less KL = 1/2, on n batches of m samples: `(2, n)`.

    Q = N(0, 1), P = N(1, 1), the best energy 1/2 - x and c = log Z = 0. The weight is log-normal
    with mean 1 and variance e - 1.
    """
    like = {"dtype": DOUBLE, "device": generator.device}
    fake = 0.5 - torch.randn(n, m, generator=generator, **like)
    real = -0.5 - torch.randn(n, m, generator=generator, **like)
    zero = torch.zeros((), **like)
    return torch.stack([gebm.bound(real, fake, zero), gebm.likelihood(real, fake)]) - 0.5


# --- two Gaussians ---------------------------------------------------------------------

MEAN, COVARIANCE = (0.8, -0.5), ((0.6, 0.3), (0.3, 0.9))


def gaussian_kl() -> float:
    """Of N(MEAN, COVARIANCE) from N(0, I)."""
    mean, covariance = (torch.tensor(v, dtype=DOUBLE) for v in (MEAN, COVARIANCE))
    return float((covariance.trace() + mean @ mean - 2 - torch.logdet(covariance)) / 2)


class Quadratic(nn.Module):
    """E = x A x / 2 + b x, of k models, in the plane."""

    def __init__(self, k: int, device="cpu"):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(k, 2, 2, dtype=DOUBLE, device=device))
        self.b = nn.Parameter(torch.zeros(k, 1, 2, dtype=DOUBLE, device=device))

    def symmetric(self) -> Tensor:
        """A, `(k, 2, 2)`."""
        return (self.a + self.a.mT) / 2

    def forward(self, x: Tensor) -> Tensor:
        return ((x @ self.symmetric()) * x).sum(-1) / 2 + (self.b * x).sum(-1)

    @torch.no_grad()
    def known(self) -> tuple[Tensor, Tensor]:
        """log Z under N(0, I) and L for the data's Gaussian, exactly, `(k,)` each."""
        a, b = self.symmetric(), self.b[:, 0]
        mean, covariance = (torch.tensor(v, dtype=DOUBLE, device=a.device)
                            for v in (MEAN, COVARIANCE))  # fmt: skip
        precision = torch.eye(2, dtype=DOUBLE, device=a.device) + a
        inner = (b * torch.linalg.solve(precision, b)).sum(-1)
        log_z = (inner - torch.logdet(precision)) / 2
        second = covariance + mean[:, None] * mean
        return log_z, -(a * second).sum((1, 2)) / 2 - b @ mean - log_z


class Ascent(NamedTuple):
    """Exact values at each step, `(n_steps, k)`: L, F, c and log Z."""

    likelihood: Tensor
    bound: Tensor
    constant: Tensor
    log_z: Tensor


def ascend(criterion: str, k: int, n_steps: int, generator: torch.Generator, seed: int) -> Ascent:
    """Quadratic energies and c from zero, by KALE or DV, on batches of 500 of 100,000 points."""
    like = {"dtype": DOUBLE, "device": generator.device}
    mean, covariance = (torch.tensor(v, **like) for v in (MEAN, COVARIANCE))
    points = torch.randn(100_000, 2, generator=generator, **like)
    points = mean + points @ torch.linalg.cholesky(covariance).T
    energy = Quadratic(k, generator.device)
    recipe = gebm.Recipe(
        criterion, batch=500, samples=2, learning_rate=(1.0, 0.03, 0.03), frozen=True,
        anneal_over=n_steps,
    )  # fmt: skip
    rows = []
    for step in training.train(
        gebm.Game(lambda z: z, energy, (k, 2), recipe, seed), n_steps, data=points
    ):
        log_z, height = energy.known()
        behind = log_z - step.constant
        rows.append(torch.stack([height, height - (behind.expm1() - behind), step.constant, log_z]))
    return Ascent(*torch.stack(rows, 1))


# --- the base, and draws ---------------------------------------------------------------


def base_slope(loss: Callable[[Tensor], Tensor], n: int = 200_000) -> tuple[Tensor, Tensor]:
    """By (m, log s) of the base m + s z: of a loss at the best energy of it, and of the exact KL.

    Args:
        loss: of energies `(n,)`, at quantiles of z, which are held as functions of x.

    Returns:
        `(2,)` each, at m = 0.2 and log s = 0.1, with data of N(0.6, 0.7^2).
    """
    m = torch.tensor(0.2, dtype=DOUBLE, requires_grad=True)
    log_s = torch.tensor(0.1, dtype=DOUBLE, requires_grad=True)
    z = torch.special.ndtri((torch.arange(n, dtype=DOUBLE) + 0.5) / n)
    x = m + log_s.exp() * z
    log_p = -0.5 * ((x - 0.6) / 0.7).square() - math.log(0.7)
    log_q = -0.5 * ((x - m.detach()) / log_s.detach().exp()).square() - log_s.detach()
    found = torch.autograd.grad(loss(log_q - log_p + 4.0), (m, log_s))
    spread = (0.49 + (0.6 - m).square()) / 2 * (-2 * log_s).exp()
    truth = torch.autograd.grad(log_s + spread, (m, log_s))
    return torch.stack(found), torch.stack(truth)


SAMPLERS = {
    "KLA": lambda model, n, g: gebm.langevin(model, n, 150, g, step_size=0.15, friction=1.0),
    "ULA": lambda model, n, g: ddls.chains(model, n, "ula", 400, g, step_size=0.01),
    "MALA": lambda model, n, g: ddls.chains(model, n, "mala", 200, g, step_size=0.06),
    "resampling": lambda model, n, g: ddls.resampling(model, n, 50, g),
}


def drawn(
    model: ddls.Model, n: int, generator: torch.Generator, names: Iterable[str] = tuple(SAMPLERS)
) -> dict[str, Tensor]:
    """States of z of a model of one latent number, by samplers of SAMPLERS, `(k, n, 1)` each."""
    return {name: SAMPLERS[name](model, n, generator).states for name in names}


def gamma_p(x: Tensor, scale: float = 0.5) -> float:
    """Kolmogorov-Smirnov's p-value of "x `(n,)` is scale times a gamma variable of shape 1/2"."""
    return float(stats.kstest(x.cpu().numpy(), stats.gamma(0.5, scale=scale).cdf).pvalue)
