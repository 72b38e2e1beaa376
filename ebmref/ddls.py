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
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ebmref import gan, learning, samplers
from ebmref.energies import Energy
from ebmref.samplers.importance import check_draws

# A gradient is a pass forward and one back to the latent. No weight's gradient is taken, so that
# both cost about the same: together 2.0 to 2.4 passes, measured on this book's networks.
GRADIENT_COST = 2
CALIBRATIONS = ("none", "logistic", "beta", "isotonic")
DIVERGENCES = ("KL", "logD", "JS")
# Kernels of `ebmref.samplers` that `chains` knows by name, and those that draw from the prior.
KERNELS = (
    "random_walk", "ula", "mala", "hmc", "kinetic_langevin", "parallel_tempering",
    "independence", "isir", "ex2mcmc",
)  # fmt: skip
_GLOBAL = ("independence", "isir", "ex2mcmc")
# All that `refine` knows, and what it takes where it is told nothing.
METHODS = (
    "prior", "resampling", "rejection", "metropolis_hastings", "langevin", *KERNELS,
    "gradient_flow", "transport",
)  # fmt: skip
_DEFAULTS = {
    "random_walk": {"step_size": 0.5, "target_acceptance": 0.3},
    "ula": {"step_size": 0.01},
    "mala": {"step_size": 0.1, "target_acceptance": 0.57},
    "hmc": {"step_size": 0.1, "n_leapfrog": 5, "target_acceptance": 0.7},
    "kinetic_langevin": {"step_size": 0.1},
    "parallel_tempering": {"step_size": 0.1, "betas": (1.0, 0.3, 0.1)},
    "isir": {"n_proposals": 10},
    "ex2mcmc": {"step_size": 0.01, "n_proposals": 10},
}
# Samples, of all models together, that go through the networks at a time. On a CPU a hidden layer
# of so many stays in the cache, which halves the time of the grid's networks.
_ROWS_CPU, _ROWS = 1600, 2**18


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
        ValueError: k or prior.d below 1.
    """

    generator: Callable[[Tensor], Tensor]
    critic: Callable[[Tensor], Tensor]
    prior: Prior
    k: int = 1

    def __post_init__(self):
        for name, value in (("k", self.k), ("prior", self.prior.d)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}: expected a whole number >= 1; got {value!r}")

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
            parts = [self.judge(self.prior.latent(part)) for part in _pieces(v)]
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
            parts = [self.generator(self.prior.latent(part)) for part in _pieces(v)]
        return torch.cat(parts, 1)

    def calibrated(self, calibration: "Calibration") -> "Model":
        """The same with the critic's logits calibrated."""
        critic = self.critic
        return dataclasses.replace(self, critic=lambda x: calibration.apply(critic(x)))


def _pieces(v: Tensor) -> tuple[Tensor, ...]:
    """States or latents `(k, n, d)` in the parts that the networks take at a time."""
    rows = _ROWS_CPU if v.device.type == "cpu" else _ROWS
    return v.split(max(1, rows // len(v)), 1)


def latent_energy(model: Model, beta: float = 1.0, temperature: float = 1.0) -> Energy:
    """Equation (20): an energy on states `(k * n, d)` to `(k * n,)`, model after model.

        E(v) = (-log p_0(z) - beta d(G(z))) / temperature - log |dz/dv|

    beta = temperature = 1 is the theorem's. A `temperature` below one is what noise smaller than
    the step asks for does, in most published code: it sharpens prior and critic alike.

    Value and gradient take the chains in pieces, see `_pieces`. The compiled loop of
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
        return _pieces(v.unflatten(0, (model.k, -1)))

    def energy(v: Tensor) -> Tensor:
        return torch.cat([of_piece(part) for part in by_model(v)], 1).flatten()

    def value_and_gradient(v: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = _with_slope(of_piece, by_model(v.detach()))
        return values.flatten(), slopes.flatten(0, 1)

    energy.value_and_gradient = value_and_gradient
    return energy


def _with_slope(
    function: Callable[[Tensor], Tensor], pieces: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Values `(k, n)` of a function of `(k, n, d)` and their gradients, piece by piece."""
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


def density_ratio_critic(
    log_data: Callable[[Tensor], Tensor], log_model: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The best critic, d = log p_d - log p_g, of two known densities.

    Args:
        log_data, log_model: `(n, *event)` to `(n,)`. Minus infinity outside the data is a wall.
    """

    def critic(x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        of_data = log_data(flat)
        ratio = torch.where(of_data == -math.inf, of_data, of_data - log_model(flat))
        return ratio.view(x.shape[:2])

    return critic


class Counted(NamedTuple):
    """Data and generators of the plane on one lattice of m square cells.

    Attributes:
        critic: d = log p_d - log p_g, `(k, n, 2)` to `(k, n)`; bilinear between the centres,
            beyond them as at the border.
        centres: `(m, 2)`.
        data: `(m,)`, share of the data in each cell, by its density at the centre.
        share: `(k, m)`, share of each generator's draws.
    """

    critic: Callable[[Tensor], Tensor]
    centres: Tensor
    data: Tensor
    share: Tensor


def counted(
    model: Model,
    log_data: Callable[[Tensor], Tensor],
    n: int,
    generator: torch.Generator,
    *,
    reach: float,
    cells: int,
) -> Counted:
    """The best critic where the data's density is known and the generator's is not: by counting.

    Each cell gets half a draw beside those that fell into it, so that d is finite where none did.
    What is finer than a cell is lost; cells of half the data's width leave a few per cent.

    Args:
        log_data: `(m, 2)` to `(m,)`, log p_d.
        n: draws of each generator, best many for each cell that matters.
        reach: the lattice covers (-reach, reach)^2.
        cells: on a side.

    Raises:
        ValueError: an argument out of range, events that are not of the plane.
    """
    check_draws(n, 1, generator)
    check_draws(cells, 2, generator, "cells")
    if not 0 < reach < math.inf:
        raise ValueError(f"reach: expected a finite number > 0; got {reach!r}")
    width = 2 * reach / cells
    counts, left = 0, n
    while left:
        x = model.events(model.draw(min(left, 100_000), generator))
        if x.shape[2:] != (2,):
            raise ValueError(f"model: expected events of shape (2,); got {tuple(x.shape[2:])}")
        at = ((x + reach) / width).floor().long()
        inside = ((at >= 0) & (at < cells)).all(-1)
        # A cell more takes what is outside.
        at = torch.where(inside, at[..., 0] * cells + at[..., 1], cells**2)
        found = [torch.bincount(row, minlength=cells**2 + 1) for row in at]
        counts, left = counts + torch.stack(found)[:, :-1], left - x.shape[1]
    side = (torch.arange(cells, device=x.device, dtype=x.dtype) + 0.5) * width - reach
    centres = torch.cartesian_prod(side, side)
    log_p = torch.cat([log_data(part) for part in centres.split(10_000)]).double()
    table = log_p + 2 * math.log(width) - ((counts + 0.5) / n).log()
    table = table.to(x.dtype)

    def critic(x: Tensor) -> Tensor:
        u = ((x + reach) / width - 0.5).clamp(0, cells - 1)
        low = u.detach().floor().clamp(max=cells - 2)
        share, low = u - low, low.long()
        corner = low[..., 0] * cells + low[..., 1]
        here, right, above, across = (
            table.gather(1, corner + step) for step in (0, cells, 1, cells + 1)
        )
        a, b = share.unbind(-1)
        return (1 - a) * ((1 - b) * here + b * above) + a * ((1 - b) * right + b * across)

    return Counted(critic, centres, log_p.softmax(0), counts.double() / n)


# --- a better critic -------------------------------------------------------------------


class CriticStep(NamedTuple):
    """One step of `train_critic`.

    Attributes:
        step: how many were made, with this one.
        value: `(k,)`, V of (6) on the batch: -log 4 where the critic tells nothing, below
            -log 4 + 2 JSD on average, 0 where it tells all.
        slope: `(k,)`, mean squared slope of the logit at the data; None without a penalty.
    """

    step: int
    value: Tensor
    slope: Tensor | None


def train_critic(
    model: Model,
    data: Tensor,
    n_steps: int,
    generator: torch.Generator,
    *,
    batch: int = 256,
    learning_rate: float = 1e-3,
    noise: float = 0.0,
    penalty: float = 0.0,
    anneal: bool = True,
) -> Iterator[CriticStep]:
    """Train the critics on with the generators frozen; yields after every step.

    The logistic loss, whose best critic is d = log p_d - log p_g; all models at once, by Adam.
    Stop when you like: the critic is left in the mode, training or eval, that it was in.

    Args:
        model: its critic, an `nn.Module`, is changed in place.
        data: `(n, *event)`, the same for all models.
        generator: draws batches, latents and noise.
        batch: of data and of samples, for each model.
        noise: standard deviation of normal noise on both; d then is the ratio of the blurred
            laws, which overlap.
        penalty: weight of half the mean squared slope at the data (R1).
        anneal: let the learning rate fall to zero along a cosine.

    Raises:
        ValueError: an argument out of range, events of another shape, a loss not finite.
    """
    check_draws(n_steps, 1, generator, "n_steps")
    check_draws(batch, 1, generator, "batch")
    critic = model.critic
    if not isinstance(critic, nn.Module):
        raise ValueError(f"critic: expected an nn.Module to train; got {type(critic).__name__}")
    for name, value in (("noise", noise), ("penalty", penalty)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number >= 0; got {value!r}")
    event = tuple(model.events(model.draw(1, generator)).shape[2:])
    if data.dim() < 1 or not len(data) or tuple(data.shape[1:]) != event:
        raise ValueError(f"data: expected (n, *{event}); got {tuple(data.shape)}")
    return _trained(model, data, n_steps, generator, batch, learning_rate, noise, penalty, anneal)


def _trained(model, data, n_steps, generator, batch, learning_rate, noise, penalty, anneal):
    found = []

    def loss() -> Tensor:
        at = torch.randint(
            len(data), (model.k, batch), generator=generator, device=generator.device
        )
        both = torch.cat([data[at], model.events(model.draw(batch, generator))], 1)
        if noise:
            both = both + noise * torch.randn(
                both.shape, generator=generator, device=both.device, dtype=both.dtype
            )
        value = gan.value(*model.critic(both).chunk(2, 1))
        slope = gan.slope_penalty(model.critic, both[:, :batch]) if penalty else None
        found[:] = value.detach(), None if slope is None else slope.detach()
        return -value if slope is None else 0.5 * penalty * slope - value

    was_training = model.critic.training
    model.critic.train()
    try:
        steps = learning.fit(model.critic, loss, n_steps, learning_rate, anneal=anneal)
        for step, _ in enumerate(steps, 1):
            yield CriticStep(step, *found)
    finally:
        model.critic.train(was_training)


class Calibration(NamedTuple):
    """A map of logits to better ones, and Dawid's statistic before and after on held-out data.

    Attributes:
        apply: `(k, n)` to `(k, n)`, differentiable.
        z_before, z_after: `(k,)`, see `calibration_z`; a fit doubles the variance of z_after.
    """

    apply: Callable[[Tensor], Tensor]
    z_before: Tensor
    z_after: Tensor


def calibration_z(real: Tensor, fake: Tensor) -> Tensor:
    """Dawid's sum(y - D) / sqrt(sum D (1 - D)), nearly normal about 0 for a calibrated D.

    As Turner et al. (2019) use it, with as many samples as data. The variance then is not 1 but
    1 - 4 E[D (1 - D)]: that the counts are fixed takes the rest. (It is 1 for labels drawn one
    by one.) A map fitted to as many points as are tested doubles it.

    Args:
        real, fake: logits, `(..., n)` each.
    """
    d = torch.cat([real, fake], -1).double()
    y = torch.cat([torch.ones_like(real), torch.zeros_like(fake)], -1).double()
    p = d.sigmoid()
    return (y - p).sum(-1) / (p * d.neg().sigmoid()).sum(-1).sqrt()


def calibrate(real: Tensor, fake: Tensor, method: str = "logistic") -> Calibration:
    """Fit a calibration on half of the logits and test it on the other half, model by model.

    none: d. logistic: a + b d. beta: a + b log D + c log(1 - D), b and c free (Kull et al. 2017).
    isotonic: the best increasing map, linear in between. Its first step, where it holds samples
    alone, and its last, where it holds data alone, would be infinite. They get the log-odds of
    their counts with half a point more of either kind, or those of the step beside them where
    these are larger. It has flat pieces, where a gradient finds nothing.

    Args:
        real, fake: logits of held-out data and of samples, `(k, n)` each, n >= 20, in no order;
            as many of either, or the odds of all change.
        method: one of `CALIBRATIONS`.

    Raises:
        ValueError: unknown method, too few or non-finite logits.
    """
    if method not in CALIBRATIONS:
        raise ValueError(f"method: expected one of {', '.join(CALIBRATIONS)}; got {method!r}")
    for name, x in (("real", real), ("fake", fake)):
        if x.dim() != 2 or x.shape[1] < 20 or not x.isfinite().all():
            raise ValueError(
                f"{name}: expected 20 finite logits or more a model, (k, n); got {tuple(x.shape)}"
            )
    if real.shape != fake.shape:
        raise ValueError(f"fake: expected {tuple(real.shape)}, as real; got {tuple(fake.shape)}")
    fitted = torch.cat([real[:, ::2], fake[:, ::2]], 1).double().cpu()
    y = np.repeat([1.0, 0.0], fitted.shape[1] // 2)
    if method == "none":
        apply = _as_it_is
    elif method == "isotonic":
        apply = _isotonic(fitted, y)
    else:
        apply = _linear(fitted, y, _log_both if method == "beta" else _itself)
    real, fake = real[:, 1::2], fake[:, 1::2]
    return Calibration(apply, calibration_z(real, fake), calibration_z(apply(real), apply(fake)))


def _as_it_is(logits: Tensor) -> Tensor:
    return logits


def _itself(d: Tensor) -> Tensor:
    return d[..., None]


def _log_both(d: Tensor) -> Tensor:
    return torch.stack([logsigmoid(d), logsigmoid(-d)], -1)


def _linear(fitted: Tensor, y: np.ndarray, features: Callable) -> Callable[[Tensor], Tensor]:
    slopes, shifts = [], []
    for row in features(fitted):
        # At a scale of one, whatever the critic's: the solver counts on it.
        scale = row.std(0).clamp(min=1e-12)
        found = LogisticRegression(C=1e6, max_iter=10_000).fit((row / scale).numpy(), y)
        slopes.append(torch.from_numpy(found.coef_[0]) / scale)
        shifts.append(torch.from_numpy(found.intercept_))
    slope, shift = torch.stack(slopes), torch.stack(shifts)

    def apply(logits: Tensor) -> Tensor:
        x = features(logits.double()) * slope.to(logits.device)[:, None]
        return (x.sum(-1) + shift.to(logits.device)).to(logits.dtype)

    return apply


def _isotonic(fitted: Tensor, y: np.ndarray) -> Callable[[Tensor], Tensor]:
    rows = []
    for row in fitted.numpy():
        found = IsotonicRegression(out_of_bounds="clip").fit(row, y)
        value = torch.logit(torch.from_numpy(found.y_thresholds_).double()).numpy()
        # A bound that all steps share will not do: the last step covers about one sample's share
        # of p_g, whatever its data, and a weight of the order of their number puts Z_0 far off.
        real, fake = row[y == 1], row[y == 0]
        low = -math.log(2 * (fake < real.min()).sum() + 1)
        high = math.log(2 * (real > fake.max()).sum() + 1)
        both = value[np.isfinite(value)]
        value = value.clip(both.min(initial=low), both.max(initial=high))
        rows.append((found.X_thresholds_, value))
    # Rows of one length: the last value goes on for ever.
    most = max(len(x) for x, _ in rows) + 1
    knots = torch.tensor(
        np.stack([np.r_[x, x[-1] + np.arange(1.0, most - len(x) + 1)] for x, _ in rows])
    )
    values = torch.tensor(np.stack([np.pad(v, (0, most - len(v)), "edge") for _, v in rows]))

    def apply(logits: Tensor) -> Tensor:
        x, at, value = logits.double(), knots.to(logits.device), values.to(logits.device)
        i = torch.searchsorted(at, x.detach().contiguous()).clamp(1, most - 1)
        left, right = at.gather(1, i - 1), at.gather(1, i)
        low, high = value.gather(1, i - 1), value.gather(1, i)
        share = ((x - left) / (right - left)).clamp(0, 1)
        return (low + share * (high - low)).to(logits.dtype)

    return apply


# --- methods ---------------------------------------------------------------------------


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


@torch.no_grad()
def resampling(model: Model, n: int, budget: int, generator: torch.Generator) -> Refined:
    """Sampling importance resampling: of n * budget latents draw n in proportion to e^d.

    Exact as the pool grows. The acceptance is the effective share of the pool,
    (sum w)^2 / (n_pool sum w^2); one below 1 / budget means many copies of a few. What a critic
    is worth: with the same critic no sampler can do better.
    """
    check_draws(n, 1, generator)
    check_draws(budget, 1, generator, "budget")
    states = model.draw(n, generator)
    log_sum = torch.full((model.k, 1), -math.inf, dtype=torch.float64, device=states.device)
    log_squares = log_sum.clone()
    for _ in range(budget):
        fresh = model.draw(n, generator)
        d = model.logits(fresh)
        log_part = d.logsumexp(1, keepdim=True)
        log_sum = torch.logaddexp(log_sum, log_part)
        log_squares = torch.logaddexp(log_squares, (2 * d).logsumexp(1, keepdim=True))
        # The pool is never held whole: a part of it takes over each draw with the probability
        # that is its share of all weight so far. Then the draw is one from the whole pool.
        # NaN where there is no weight so far: then none takes over.
        share = (log_part - log_sum).exp()
        weight = (d - d.amax(1, keepdim=True)).exp().nan_to_num(1.0)  # NaN: no weight at all
        chosen = weight.multinomial(n, replacement=True, generator=generator)
        taken = fresh.gather(1, chosen[..., None].expand_as(fresh))
        takes_over = _uniform(d, generator) < share
        states = torch.where(takes_over[..., None], taken, states)
    effective = (2 * log_sum - log_squares).exp()[:, 0] / (n * budget)
    nothing = (log_sum == -math.inf).double()[:, 0]
    return Refined(states, effective.nan_to_num(0.0), nothing, float(budget))


@torch.no_grad()
def rejection(
    model: Model,
    n: int,
    budget: int,
    generator: torch.Generator,
    *,
    gamma: float = 0.0,
    n_pilot: int = 10_000,
) -> Refined:
    """Discriminator rejection sampling (Azadi et al. 2019): accept with probability sigmoid(F),

        F = d - d_M - log(1 - exp(d - d_M - eps)) - gamma,   eps = 1e-6,

    d_M the largest logit seen: among a pilot's, and raised by any larger one that comes. With
    gamma = 0 that is e^{d - d_M}, and exact if d_M is the supremum. A gamma > 0 that takes a
    quantile of F to zero buys acceptance with exactness.

    Args:
        budget: proposals a sample at most; one for which all were refused is the best of them by
            logit, and counted as stuck.
        gamma: as a quantile of F over the pilot, in (0, 1); 0 for gamma = 0.
        n_pilot: proposals that look for d_M.
    """
    check_draws(n, 1, generator)
    check_draws(budget, 1, generator, "budget")
    check_draws(n_pilot, 1, generator, "n_pilot")
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma: expected a quantile in [0, 1); got {gamma!r}")
    pilot = model.logits(model.draw(n_pilot, generator))
    top = pilot.amax(1, keepdim=True)
    shift = torch.zeros_like(top)
    if gamma:
        # A value of the pilot's, not between two: one of them may be infinite.
        shift = _rejection_logit(pilot, top).quantile(gamma, 1, keepdim=True, interpolation="lower")
    states = model.draw(n, generator)
    best = torch.full((model.k, n), -math.inf, dtype=torch.float64, device=states.device)
    done = torch.zeros_like(best, dtype=torch.bool)
    asked = taken = 0
    calls = model.k * n_pilot
    for _ in range(budget):
        at, open_ = _unfinished(done)
        if not at.shape[1]:
            break
        fresh = model.draw(at.shape[1], generator)
        d = model.logits(fresh)
        calls += d.numel()
        top = torch.maximum(top, d.amax(1, keepdim=True))
        accept = _uniform(d, generator) < (_rejection_logit(d, top) - shift).sigmoid()
        accept &= open_
        asked, taken = asked + open_.sum(1), taken + accept.sum(1)
        better = accept | (open_ & (d > best.gather(1, at)))
        states = _put(states, at, better, fresh)
        best = _put(best, at, better, d)
        done = done.scatter(1, at, done.gather(1, at) | accept)
    return Refined(states, taken / asked, (~done).double().mean(1), calls / (model.k * n))


def _rejection_logit(d: Tensor, top: Tensor, eps: float = 1e-6) -> Tensor:
    gap = d - top  # NaN where all logits are minus infinity; then nothing is below sigmoid(F)
    return gap - torch.log(-torch.expm1(gap - eps))


@torch.no_grad()
def metropolis_hastings(
    model: Model,
    n: int,
    budget: int,
    generator: torch.Generator,
    *,
    real_logits: Tensor | None = None,
) -> Refined:
    """The Metropolis-Hastings GAN (Turner et al. 2019): chains whose proposals are fresh samples.

    Accept x' in place of x with probability min(1, e^{d(x') - d(x)}); return the last state. A
    chain that starts at real data is in its law from the start if d is the exact ratio. Data is
    never returned: a chain that has not moved makes its proposals once more from a sample.

    Args:
        budget: proposals of a chain; as many again where it has to begin anew.
        real_logits: `(k, m)`, finite, logits of held-out data, from which the starts are drawn;
            None starts at samples.

    Returns:
        `Refined`; `stuck` is the share of chains that did not move in their first `budget`.
    """
    check_draws(n, 1, generator)
    check_draws(budget, 1, generator, "budget")
    if real_logits is None:
        states = model.draw(n, generator)
        states, moved, asked, taken = _choose_among(
            model, states, model.logits(states), budget, generator
        )
        return Refined(states, taken / asked, (~moved).double().mean(1), budget + 1.0)
    if real_logits.dim() != 2 or len(real_logits) != model.k or not real_logits.isfinite().all():
        raise ValueError(
            f"real_logits: expected finite ones, ({model.k}, m); got {tuple(real_logits.shape)}"
        )
    shape, device = (model.k, n), real_logits.device
    at = torch.randint(real_logits.shape[1], shape, generator=generator, device=device)
    here = real_logits.double().gather(1, at)
    # Where a chain stays at the data there is no latent to return: its place is filled below.
    states, moved, asked, taken = _choose_among(
        model, model.draw(n, generator), here, budget, generator
    )
    calls = n * model.k * budget
    at, open_ = _unfinished(moved)
    if at.shape[1]:
        again = model.draw(at.shape[1], generator)
        again, _, more_asked, more_taken = _choose_among(
            model, again, model.logits(again), budget, generator, open_
        )
        states = _put(states, at, open_, again)
        asked, taken = asked + more_asked, taken + more_taken
        calls += at.numel() * (budget + 1)
    return Refined(states, taken / asked, (~moved).double().mean(1), calls / (n * model.k))


def _choose_among(model, states, here, budget, generator, counted=None):
    """Metropolis chains `(k, m)` with fresh proposals, from states whose logits are `here`.

    Returns:
        The states, which of them have moved, and proposals and acceptances a model, `(k,)` each,
        over the chains that are counted.
    """
    counted = torch.ones_like(here, dtype=torch.bool) if counted is None else counted
    moved = torch.zeros_like(here, dtype=torch.bool)
    taken = here.new_zeros(len(here))
    for _ in range(budget):
        fresh = model.draw(here.shape[1], generator)
        d = model.logits(fresh)
        # A point without weight is left for any with some; between two such, NaN, nothing moves.
        accept = torch.log1p(-_uniform(d, generator)) <= d - here
        states = torch.where(accept[..., None], fresh, states)
        here, moved = torch.where(accept, d, here), moved | accept
        taken = taken + (accept & counted).sum(1)
    return states, moved, counted.sum(1) * budget, taken


def _unfinished(done: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the open among `(k, n)`, `(k, m)` with m the most of any model, and which of
    them are open indeed: a model with fewer fills its row up with others."""
    most = int((~done).sum(1).max())
    at = done.to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return at, ~done.gather(1, at)


def _put(old: Tensor, at: Tensor, where: Tensor, new: Tensor) -> Tensor:
    """`old` `(k, n, ...)` with `new` `(k, m, ...)` at the places `at` for which `where` holds."""
    wide = (...,) + (None,) * (old.dim() - 2)
    index = at[wide].expand_as(new)
    return old.scatter(1, index, torch.where(where[wide], new, old.gather(1, index)))


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)


# --- one way in for all of them -----------------------------------------------------------


def refine(
    model: Model, n: int, method: str, budget: int, generator: torch.Generator, **options
) -> Refined:
    """n samples of each model by any method, at a budget of passes for each of them.

        for method in ddls.METHODS:
            ddls.refine(model, 1000, method, 200, generator)

    A pass is one event made and judged; a gradient counts as GRADIENT_COST of them. What all
    samples share, as a pilot, is divided among them. The cost of what is returned is never above
    the budget, and below it only by what is left of a step, by samples that were accepted
    early, or where `n_steps` asks for fewer.

    Args:
        method: one of `METHODS`. "prior" refines nothing and costs nothing.
        options: of the method, see `resampling`, `rejection`, `metropolis_hastings`, `chains`,
            `langevin`, `gradient_flow` and `transport`. Where an acceptance is aimed at, a
            quarter of the steps are warm-up. Chains that start at data (`real_logits`) have
            half of the budget, because they may have to begin anew.

    Raises:
        ValueError: unknown method, a budget too small for one step, as the method itself.
    """
    check_draws(n, 1, generator)
    check_draws(budget, 1, generator, "budget")
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}; got {method!r}")
    options = {**_DEFAULTS.get(method, {}), **options}

    def steps(most: float, least: int = 1) -> int:
        """As many as the budget has, or as were asked for."""
        if most < least:
            raise ValueError(f"budget: expected more passes for one step of {method}; got {budget}")
        return min(int(most), options.pop("n_steps", int(most)))

    if method == "prior":
        states = model.draw(n, generator)
        return _moved(states, states, 0.0, 0)._replace(temperature=1.0)
    if method == "resampling":
        return resampling(model, n, budget, generator, **options)
    if method == "rejection":
        # A tenth of all passes looks for the largest logit.
        pilot = options.setdefault("n_pilot", min(10_000, math.ceil(n * budget / 10)))
        return rejection(model, n, steps(budget - pilot / n), generator, **options)
    if method == "metropolis_hastings":
        n_steps = steps((budget - 1) / (1 if options.get("real_logits") is None else 2))
        return metropolis_hastings(model, n, n_steps, generator, **options)
    if method == "gradient_flow":
        return gradient_flow(model, n, steps(budget / GRADIENT_COST), generator, **options)
    if method == "transport":
        pairs = 0 if options.get("lipschitz") is not None else options.setdefault("n_pairs", 100)
        n_steps = steps((budget - 2 * pairs / n) / GRADIENT_COST)
        return transport(model, n, n_steps, generator, **options)
    if method == "langevin":
        # Each stage of a decaying step begins with a gradient of its own.
        gradients = budget // GRADIENT_COST
        every = options.get("decay_every") or max(1, gradients)
        return langevin(model, n, steps(gradients * every // (every + 1)), generator, **options)

    def plan(kernel: samplers.Kernel) -> tuple[int, int]:
        once, each = _cost_of_start(kernel), (kernel.n_energies, kernel.n_gradients)
        once, each = (calls + GRADIENT_COST * gradients for calls, gradients in (once, each))
        tuned = options.get("target_acceptance") is not None
        n_steps = steps((budget - once) / each, 1 + tuned)
        warmup = math.ceil(n_steps / 4) if tuned else 0
        return n_steps - warmup, warmup

    return _chains(model, n, method, plan, generator, **options)


# --- methods that move latents -----------------------------------------------------------


def chains(
    model: Model,
    n: int,
    kernel: str | Callable[..., samplers.Kernel],
    n_steps: int,
    generator: torch.Generator,
    *,
    start: Tensor | None = None,
    beta: float = 1.0,
    temperature: float = 1.0,
    warmup: int = 0,
    target_acceptance: float | None = None,
    progress: bool = False,
    **options,
) -> Refined:
    """Run any kernel of `ebmref.samplers` on the latent energy: n chains, their last states.

        chains(model, 1000, "mala", 200, generator, step_size=0.1, warmup=50,
               target_acceptance=0.57)

    All chains of all models move at once, at one step size.

    Args:
        n: chains a model.
        kernel: one of `KERNELS`, or a function that makes one from an energy. Those with
            proposals of their own (independence, isir, ex2mcmc) take them from the prior.
        n_steps: after the warm-up; the last state is the sample.
        start: states `(k, n, d)`, for example those of `resampling`; None for the prior's.
        beta, temperature: of `latent_energy`.
        warmup, target_acceptance, progress: see `samplers.sample`.
        options: of the kernel, such as `step_size`, `n_leapfrog`, `n_proposals`, `betas`.

    Raises:
        ValueError: an argument out of range, a start of another shape or outside the support.
    """
    return _chains(
        model,
        n,
        kernel,
        lambda _: (n_steps, warmup),
        generator,
        start=start,
        beta=beta,
        temperature=temperature,
        target_acceptance=target_acceptance,
        progress=progress,
        **options,
    )


def _chains(
    model, n, kernel, plan, generator, *, start=None, beta=1.0, temperature=1.0,
    target_acceptance=None, progress=False, **options,
) -> Refined:  # fmt: skip
    """`chains`, with steps and warm-up as `plan` has them for the kernel."""
    energy = latent_energy(model, beta, temperature)
    if not callable(kernel):
        if kernel not in KERNELS:
            raise ValueError(f"kernel: expected one of {', '.join(KERNELS)}; got {kernel!r}")
        if kernel in _GLOBAL:
            options = {"proposal": model.prior, **options}
        kernel = getattr(samplers, kernel)
    start = _start(model, n, start, generator)
    kernel = kernel(energy, **options)
    n_steps, warmup = plan(kernel)
    run = {"warmup": warmup, "target_acceptance": target_acceptance, "progress": progress}
    made = _run(model, kernel, start, n_steps, generator, **run)
    return made._replace(temperature=float(temperature))


def langevin(
    model: Model,
    n: int,
    n_steps: int,
    generator: torch.Generator,
    *,
    step_size: float = 0.01,
    noise_scale: float | None = None,
    decay: float = 1.0,
    decay_every: int | None = None,
    start: Tensor | None = None,
    beta: float = 1.0,
    progress: bool = False,
) -> Refined:
    """Discriminator-driven latent sampling (Che et al. 2020), unadjusted, with its noise told:

        z' = z - step_size / 2 grad E(z) + noise_scale xi,   xi ~ N(0, I).

    This is `samplers.ula` with a step of noise_scale^2 at the temperature
    noise_scale^2 / step_size, which `Refined.temperature` tells. It is 1 for the noise of the
    equation, sqrt(step_size); published code often takes less, and draws from a colder law.

    Args:
        n: chains a model.
        step_size, noise_scale: as above; noise_scale None for sqrt(step_size).
        decay, decay_every: after so many steps take the step so many times as large, and the
            noise by the root of it, which keeps the temperature.
        start, beta, progress: see `chains`.

    Raises:
        ValueError: as `chains`.
    """
    check_draws(n_steps, 1, generator, "n_steps")
    noise_scale = step_size**0.5 if noise_scale is None and step_size > 0 else noise_scale
    for name, value in (("step_size", step_size), ("noise_scale", noise_scale)):
        if value is None or not 0 < value < math.inf:
            raise ValueError(f"{name}: expected a finite number > 0; got {value!r}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay: expected a number in (0, 1]; got {decay!r}")
    if decay < 1 and decay_every is None:
        raise ValueError("decay_every: expected a number of steps, as decay < 1")
    every = n_steps if decay_every is None else decay_every
    check_draws(every, 1, generator, "decay_every")
    temperature = noise_scale**2 / step_size
    energy = latent_energy(model, beta, temperature)
    states = first = _start(model, n, start, generator)
    n_gradients = 0.0
    for stage, done in enumerate(range(0, n_steps, every)):
        kernel = samplers.ula(energy, noise_scale**2 * decay**stage)
        steps = min(every, n_steps - done)
        made = _run(model, kernel, states, steps, generator, progress=progress)
        states, n_gradients = made.states, n_gradients + made.n_gradients
    return made._replace(
        n_gradients=n_gradients, stuck=_unmoved(first, states), temperature=temperature
    )


def _start(model: Model, n: int, start: Tensor | None, generator: torch.Generator) -> Tensor:
    check_draws(n, 1, generator)
    if start is None:
        return model.draw(n, generator)
    expected = (model.k, n, model.prior.d)
    if tuple(start.shape) != expected:
        raise ValueError(f"start: expected states {expected}; got {tuple(start.shape)}")
    return start


def _unmoved(start: Tensor, states: Tensor) -> Tensor:
    return (start == states).all(-1).double().mean(1)


def _run(model, kernel, start, n_steps, generator, **run) -> Refined:
    """The last states of a kernel's chains, and what they cost."""
    chain = samplers.sample(
        kernel, start.flatten(0, 1), n_steps, thin=n_steps, generator=generator, **run
    )
    states = chain.samples[0].view_as(start)
    acceptance = chain.acceptance_rate.view(start.shape[:2]).double().mean(1)
    calls, gradients = _cost_of_start(kernel)
    return Refined(
        states,
        acceptance if kernel.adjusted else torch.full_like(acceptance, math.nan),
        _unmoved(start, states),
        float(chain.n_energies + calls),
        float(chain.n_gradients + gradients),
    )


def _cost_of_start(kernel: samplers.Kernel) -> tuple[int, int]:
    """Energies and gradients of the start: kernels that count energies apart need no gradient."""
    return (1, 0) if kernel.n_energies else (0, 1)


def gradient_flow(
    model: Model,
    n: int,
    n_steps: int,
    generator: torch.Generator,
    *,
    divergence: str = "KL",
    step_size: float = 0.1,
    gamma: float = 0.01,
    start: Tensor | None = None,
) -> Refined:
    """Discriminator gradient flow (Ansari et al. 2021), in latents:

        z' = z + step_size s(d) grad_z d(G(z)) + sqrt(2 step_size gamma) xi,   xi ~ N(0, I),

    s = 1 (KL), 1 / (1 + e^d) (logD) or 1 / (1 + e^-d) (JS). No prior pulls back, so that no law
    is kept: with many steps samples gather where d is large. The step, gamma and 25 steps are
    those of their code. Latents of a uniform prior that leave the cube are put back on its wall.

    Raises:
        ValueError: an argument out of range, a gradient that is not finite.
    """
    check_draws(n_steps, 1, generator, "n_steps")
    if divergence not in DIVERGENCES:
        raise ValueError(
            f"divergence: expected one of {', '.join(DIVERGENCES)}; got {divergence!r}"
        )
    if not 0 < step_size < math.inf or not 0 <= gamma < math.inf:
        raise ValueError(
            f"step_size, gamma: expected > 0 and >= 0, finite; got {step_size} and {gamma}"
        )
    first = states = _start(model, n, start, generator)
    for _ in range(n_steps):
        z = model.prior.latent(states)
        d, slope = _slope(model, z)
        if divergence != "KL":
            slope = slope * (-d if divergence == "logD" else d).sigmoid()[..., None]
        xi = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        states = model.prior.state(z + step_size * slope + (2 * step_size * gamma) ** 0.5 * xi)
    return _moved(first, states, 0.0, n_steps)


def transport(
    model: Model,
    n: int,
    n_steps: int,
    generator: torch.Generator,
    *,
    step_size: float = 0.05,
    lipschitz: float | Tensor | None = None,
    n_pairs: int = 100,
    keep_radius: bool = False,
    start: Tensor | None = None,
) -> Refined:
    """Discriminator optimal transport (Tanaka 2019), in latents: descend, from z_0, by gradient

        |z - z_0 + 0.001| - d(G(z)) / lipschitz.

    Moves for which the critic gains less than it can over that distance do not pay. The form is
    that of the author's code. For a uniform prior the latents are put back on the cube's wall. No
    law is kept.

    Args:
        lipschitz: of d(G(.)), a number or `(k,)`; None for the steepest of n_pairs pairs of
            latents, which costs their passes.
        keep_radius: take the radial part z (z . g) / |z|^2 from the gradient g, so that latents
            stay near the sphere where a normal prior of many dimensions is. (The code does so
            for normal priors, with sqrt(d) in the place of |z|^2, which turns that part around.)

    Raises:
        ValueError: an argument out of range, a gradient that is not finite.
    """
    check_draws(n_steps, 1, generator, "n_steps")
    check_draws(n_pairs, 1, generator, "n_pairs")
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size: expected a finite number > 0; got {step_size!r}")
    calls = 0.0
    if lipschitz is None:
        pair = [model.draw(n_pairs, generator) for _ in range(2)]
        apart = (model.prior.latent(pair[0]) - model.prior.latent(pair[1])).double().norm(dim=-1)
        steepness = (model.logits(pair[0]) - model.logits(pair[1])).abs() / apart
        lipschitz, calls = steepness.amax(1), 2 * n_pairs / n
    first = states = _start(model, n, start, generator)
    lipschitz = torch.as_tensor(lipschitz, dtype=states.dtype, device=states.device)
    if (
        lipschitz.shape not in ((), (model.k,))
        or not ((lipschitz > 0) & lipschitz.isfinite()).all()
    ):
        raise ValueError(f"lipschitz: expected > 0, finite, one or ({model.k},); got {lipschitz}")
    lipschitz = lipschitz.view(-1, 1, 1)
    origin = model.prior.latent(first)
    for _ in range(n_steps):
        z = model.prior.latent(states)
        _, slope = _slope(model, z)
        away = z - origin + 0.001
        reach = away.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        descent = away / reach - slope / lipschitz
        if keep_radius:
            radial = (z * descent).sum(-1, keepdim=True)
            descent = descent - z * radial / z.square().sum(-1, keepdim=True).clamp(min=1e-12)
        states = model.prior.state(z - step_size * descent)
    return _moved(first, states, calls, n_steps)


def _slope(model: Model, z: Tensor) -> tuple[Tensor, Tensor]:
    """d(G(z)) of latents `(k, n, d)` and its gradient in them."""
    d, slope = _with_slope(model.judge, _pieces(z))
    if not slope.isfinite().all():
        raise ValueError("critic: its gradient in the latent is not finite everywhere")
    return d, slope


def _moved(first: Tensor, states: Tensor, n_calls: float, n_steps: int) -> Refined:
    nothing = torch.full((len(states),), math.nan, dtype=torch.float64, device=states.device)
    return Refined(states, nothing, _unmoved(first, states), n_calls, float(n_steps), math.nan)
