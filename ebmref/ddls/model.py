"""The GAN as an energy-based model, and every way to use its discriminator (report 2.3.2.2).

With d the logit of a discriminator, minus d is an energy relative to the generator's law p_g:

    p_d*(x) = p_g(x) e^{d(x)} / Z_0,   Z_0 = E_{p_g}[e^{d(x)}]                       (18), (19)

It is p_d if d = log p_d - log p_g and p_g misses nothing of p_d (Theorem 1); if p_g does miss a
part, Z_0 is the share of the data that it reaches, and p_d* is p_d restricted to that share. By
a change of measure, for every G, injective or not, and every bounded h (Theorem 2),

    E_{p_t}[h(G(z))] = E_{p_0}[h(G(z)) e^{d(G(z))}] / Z_0,
    p_t(z) = e^{-E(z)} / Z,   E(z) = -log p_0(z) - d(G(z))                           (20), (21)

so that to draw from p_d* is to draw z from p_t. `rejection`, `metropolis_hastings` and
`resampling` do so with fresh latents, `chains` and `langevin` by moving them with a kernel of
`ebmref.samplers`; `gradient_flow` and `transport` move them by rules that keep no law.

All methods take k models at once. A `Model` holds them; *states* are `(k, n, d)`, logits
`(k, n)`. A state is the latent itself or, for a uniform prior, a smooth function of it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ebmref import samplers
from ebmref.ddls.calibration import Calibration
from ebmref.energies import Energy

# A gradient is a pass forward and one back to the latent. No weight's gradient is taken, so that
# both cost about the same: together 2.0 to 2.4 passes, measured on this book's networks.
GRADIENT_COST = 2
# Samples, of all models together, that go through the networks at a time. On a CPU a hidden layer
# of so many stays in the cache, which halves the time of the grid's networks.
ROWS_CPU, ROWS = 1600, 2**18


# --- priors ----------------------------------------------------------------------------


class Normal(NamedTuple):
    """p_0 = N(0, I_d); a state is the latent itself."""

    d: int
    dtype: torch.dtype = torch.float32

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`(n, d)` exact draws."""
        return torch.randn(
            n, self.d, generator=generator, device=generator.device, dtype=self.dtype
        )

    def log_prob(self, v: Tensor, temperature: float = 1.0) -> Tensor:
        """log p_0 / temperature, `(..., d)` to `(...)`; a log-density where that is one."""
        log_p = -0.5 * v.square().sum(-1) - 0.5 * self.d * math.log(2 * math.pi)
        return log_p / temperature

    def latent(self, v: Tensor) -> Tensor:
        """The latent of a state."""
        return v

    def state(self, z: Tensor) -> Tensor:
        """The state of a latent."""
        return z


class Uniform(NamedTuple):
    """p_0 uniform on (-1, 1)^d; a state v in R^d has the latent z = 2 sigmoid(v) - 1.

    v then is logistic. Nothing is clipped, so that gradients and detailed balance are whole.
    """

    d: int
    dtype: torch.dtype = torch.float32

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`(n, d)` exact draws of v."""
        # In double precision: a float32 is 0 once in 2^24, and the tails would end early.
        u = torch.rand(n, self.d, generator=generator, device=generator.device, dtype=torch.float64)
        return torch.logit(u, eps=1e-16).to(self.dtype)

    def log_prob(self, v: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-density of v, `(..., d)` to `(...)`.

        The same at every temperature: a power of a uniform law is that law, and what is left
        is the change of variable.
        """
        return (logsigmoid(v) + logsigmoid(-v)).sum(-1)

    def latent(self, v: Tensor) -> Tensor:
        """The latent of a state, in (-1, 1)."""
        return (0.5 * v).tanh()

    def state(self, z: Tensor) -> Tensor:
        """The state of a latent; one on the wall or beyond is first put just inside."""
        inside = 1 - torch.finfo(z.dtype).eps
        return 2 * z.clamp(-inside, inside).atanh()


Prior = Normal | Uniform


# --- the model -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Model:
    """k generators with their critics.

    Attributes:
        generator: `(k, n, d)` to `(k, n, *event)`. Networks that differ between training and use
            (dropout, spectral norms) belong in eval mode, or the law changes with every pass.
        critic: `(k, n, *event)` to logits `(k, n)`: log-odds that an event is data; minus
            infinity where it cannot be. One that was not trained as a classifier needs a
            `calibrate` first.
        prior: of the latents.
        k: how many.

    Raises:
        ValueError: k or prior.d below 1, or a generator of another dtype than the prior.
    """

    generator: Callable[[Tensor], Tensor]
    critic: Callable[[Tensor], Tensor]
    prior: Prior
    k: int = 1

    def __post_init__(self):
        for name, value in (("k", self.k), ("prior", self.prior.d)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}: expected a whole number >= 1; got {value!r}")
        if isinstance(self.generator, nn.Module):
            like = next((p.dtype for p in self.generator.parameters()), self.prior.dtype)
            if like != self.prior.dtype:
                raise ValueError(
                    f"prior: expected {like}, as the generator; got {self.prior.dtype}"
                )

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n states of the prior for each model, `(k, n, d)`."""
        return self.prior.sample(self.k * n, generator).view(self.k, n, -1)

    def judge(self, z: Tensor) -> Tensor:
        """d(G(z)) of latents `(k, n, d)`, `(k, n)`.

        Raises:
            ValueError: the critic gives another shape.
        """
        logits = self.critic(self.generator(z))
        if logits.shape != z.shape[:2]:
            raise ValueError(
                f"critic: expected logits of shape {tuple(z.shape[:2])}; got {tuple(logits.shape)}"
            )
        return logits

    def logits(self, v: Tensor) -> Tensor:
        """d(G(z)) of states `(k, n, d)`, `(k, n)` in double precision, without a gradient.

        Raises:
            ValueError: the critic gives another shape, NaN or infinity.
        """
        with torch.no_grad():
            parts = [self.judge(self.prior.latent(part)) for part in pieces(v)]
        # Their differences are exponentiated: double precision from here on.
        logits = torch.cat(parts, 1).double()
        wrong = int((~(logits < math.inf)).sum())
        if wrong:
            raise ValueError(
                f"critic: gave NaN or infinity for {wrong} of {logits.numel()} samples"
            )
        return logits

    def events(self, v: Tensor) -> Tensor:
        """G(z) of states `(k, n, d)`, `(k, n, *event)`, without a gradient."""
        with torch.no_grad():
            parts = [self.generator(self.prior.latent(part)) for part in pieces(v)]
        return torch.cat(parts, 1)

    def calibrated(self, calibration: Calibration) -> "Model":
        """The same with the critic's logits calibrated."""
        critic = self.critic
        return dataclasses.replace(self, critic=lambda x: calibration.apply(critic(x)))


def pieces(v: Tensor) -> tuple[Tensor, ...]:
    """States or latents `(k, n, d)` in the parts that the networks take at a time."""
    rows = ROWS_CPU if v.device.type == "cpu" else ROWS
    return v.split(max(1, rows // len(v)), 1)


def latent_energy(model: Model, beta: float = 1.0, temperature: float = 1.0) -> Energy:
    """Equation (20): an energy on states `(k * n, d)` to `(k * n,)`, model after model.

        E(v) = (-log p_0(z) - beta d(G(z))) / temperature - log |dz/dv|

    beta = temperature = 1 is the theorem's. A `temperature` below one is what noise smaller than
    the step asks for does, in most published code: it sharpens prior and critic alike.

    Value and gradient take the chains in pieces, see `pieces`. The compiled loop of
    `ebmref.samplers` would cut them anew, and models could no longer be told apart by their
    places: this energy refuses it.

    Raises:
        ValueError: beta < 0, a temperature that is not > 0, either not finite.
    """
    if not 0 <= beta < math.inf or not 0 < temperature < math.inf:
        raise ValueError(
            f"beta, temperature: expected >= 0 and > 0, finite; got {beta} and {temperature}"
        )

    def of_piece(v: Tensor) -> Tensor:
        logits = model.judge(model.prior.latent(v))
        return -model.prior.log_prob(v, temperature) - beta / temperature * logits

    def by_model(v: Tensor) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():
            raise RuntimeError("compile: a latent energy is not for the compiled loop")
        if len(v) % model.k:
            raise ValueError(f"v: expected a multiple of k = {model.k} states; got {len(v)}")
        return pieces(v.unflatten(0, (model.k, -1)))

    def energy(v: Tensor) -> Tensor:
        return torch.cat([of_piece(part) for part in by_model(v)], 1).flatten()

    def value_and_gradient(v: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = with_slope(of_piece, by_model(v.detach()))
        return values.flatten(), slopes.flatten(0, 1)

    energy.value_and_gradient = value_and_gradient
    return energy


def with_slope(
    function: Callable[[Tensor], Tensor], pieces: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Values `(k, n)` of a function of `(k, n, d)` and their gradients, piece by piece.

    Raises:
        RuntimeError: in inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("critic: its slope needs gradients; use torch.no_grad(), not inference")
    found = []
    for part in pieces:
        with torch.enable_grad():  # a caller inside no_grad still needs this one gradient
            part = part.detach().requires_grad_()
            value = function(part)
            (slope,) = torch.autograd.grad(value.sum(), part)
        found.append((value.detach(), slope))
    values, slopes = zip(*found, strict=True)
    return torch.cat(values, 1), torch.cat(slopes, 1)


class Normaliser(NamedTuple):
    """Z_0 from logits of samples; `(k,)` each.

    Attributes:
        log_z: log of the mean of e^d.
        se: its standard error, by the delta method; too small where `pareto_k` is large.
        share: effective share of the samples, (sum w)^2 / (n sum w^2) with w = e^d.
        pareto_k: above 0.7 none of these is to be relied on (see `samplers.Importance`).
    """

    log_z: Tensor
    se: Tensor
    share: Tensor
    pareto_k: Tensor


def log_z0(logits: Tensor) -> Normaliser:
    """Estimate Z_0 = E_{p_g}[e^d] of equation (19); 1 in Theorem 1.

    Args:
        logits: `(k, n)`, of samples of the generators.

    Raises:
        ValueError: all logits of a model are minus infinity.
    """
    found = samplers.weighted_estimate(torch.ones_like(logits), logits)
    return Normaliser(found.log_z, found.log_z_se, found.ess / logits.shape[-1], found.pareto_k)


# --- what a method makes of it -----------------------------------------------------------


class Refined(NamedTuple):
    """What a method made of its budget.

    Attributes:
        states: `(k, n, d)`; `Model.events` makes samples of them.
        acceptance: `(k,)`, share of proposals that were taken, or for kernels the mean probability
            to take one; NaN where none can be refused. For resampling it is the effective share
            of the pool, for i-SIR the probability of leaving the point, for Ex2MCMC and parallel
            tempering that of the local step, in the latter at temperature one.
        stuck: `(k,)`, share of samples for which the budget was not enough to accept anything, or
            to leave the start.
        n_calls: passes through generator and critic without a gradient, for one sample; what all
            samples share is divided among them.
        n_gradients: passes with a gradient, for one sample.
        temperature: of the law that the method draws from, exactly or nearly, see
            `latent_energy`; NaN for a rule that keeps none.
    """

    states: Tensor
    acceptance: Tensor
    stuck: Tensor
    n_calls: float
    n_gradients: float = 0.0
    temperature: float = 1.0

    @property
    def cost(self) -> float:
        """In passes, a gradient counted as GRADIENT_COST."""
        return self.n_calls + GRADIENT_COST * self.n_gradients
