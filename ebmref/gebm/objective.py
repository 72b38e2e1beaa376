"""Generalized energy-based models (report section 2.3.2.2; Arbel, Zhou & Gretton 2021).

A *base* x = B(z), z ~ eta, says where samples can be; Q is its law. An *energy* E, a function of
x and not of z, says how much of that mass each place keeps. The model is Q reweighted,

    Q_E(dx) = f(x) Q(dx),   f(x) = e^{-E(x)} / Z,   Z = E_Q[e^{-E(x)}]                   (13)

and for data of the law P the energy ascends the generalized log-likelihood L by its bound F,

    L(E) = -E_P[E] - log Z  >=  F(E, c) = -E_P[E + c] - E_Q[e^{-(E + c)}] + 1,            (14)

with equality at c = log Z: F has no logarithm of a mean, so that batches do not bias it, and
its best c is the normaliser. The report prints (14) with E_P[E + c] and e^{-E + c}: for E = 1
and c = 0 that "lower bound" is 2 - 1/e, while L = 0.

The supremum of F over E and c is KALE(P || Q) <= KL(P || Q), reached at E + c = -log dP/dQ;
the base descends it. x ~ Q_E is x = B(z) with z from

    nu(z) = eta(z) f(B(z)),                                                          (15), (16)

which is equation (20) of the GAN as an energy-based model with d = -E: `model` makes an
`ebmref.ddls.Model` of base and energy, and all of that module's methods draw from it.

k models are trained side by side: events and energies are `(k, n, *event)` and `(k, n)`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ebmref import ddls, gan
from ebmref.checks import check_draws, check_tensors
from ebmref.ddls.moving import moved, start_states
from ebmref.energies import level, value_and_gradient

# --- the objective ---------------------------------------------------------------------


def log_mean_weight(fake: Tensor) -> Tensor:
    """log of the mean of e^{-E}, the plug-in estimate of log Z; `(..., m)` to `(...)`."""
    c = level(fake)
    return (c - fake).logsumexp(-1) - c[..., 0] - math.log(fake.shape[-1])


def bound(real: Tensor, fake: Tensor, c: Tensor) -> Tensor:
    """F of equation (14), corrected: of energies of data and of the base's samples, and c.

    Args:
        real: `(..., n)`.
        fake: `(..., m)`.
        c: `(...)`.

    Returns:
        `(...)`, at most `likelihood` of the same energies.
    """
    return 1 - (real.mean(-1) + c) - (-(fake + c[..., None])).exp().mean(-1)


def likelihood(real: Tensor, fake: Tensor) -> Tensor:
    """L with the mean of e^{-E} for Z, `(..., n)` and `(..., m)` to `(...)`.

    This is the Donsker-Varadhan objective. On m samples it is too large on average, by
    about half the relative variance of e^{-E} over m, and its gradient is off as much.
    """
    return -real.mean(-1) - log_mean_weight(fake)


def base_loss(fake: Tensor) -> Tensor:
    """What the base descends, of energies of its samples: `(..., m)` to `(...)`.

    It is -log mean e^{-E}, what L keeps of the base. With E held, its gradient is

        sum_j w_j grad E(x_j),   w_j = e^{-E(x_j)} / sum_i e^{-E(x_i)},

    so that samples move down the energy, each by its self-normalised weight; at the best E this
    is the gradient of KALE (the envelope theorem). c is not needed; on m samples the gradient is
    off by about 1 / m, as that of `likelihood`.
    """
    return -log_mean_weight(fake)


def slope_penalty(energy: Callable, real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
    """Mean squared slope of E between data and samples, `(k,)`.

    Args:
        energy: `(k, n, *event)` to `(k, n)`.
        real, fake: `(k, n, *event)`.
        t: `(k, n)` in [0, 1]: where on the way from the sample to the datum.
    """
    t = t.view(*t.shape, *(1,) * (real.dim() - 2))
    return gan.slope_penalty(energy, t * real + (1 - t) * fake)


class Floored(nn.Module):
    """An energy that stays above a floor: floor + softplus(E - floor), which is E well above it.

    e^{-E} then is at most e^{-floor}. While base and data do not meet, as at the start of a game,
    KALE is all but infinite, and without a floor, or a strong penalty, e^{-E} soon overflows. (A
    floor does not bound KALE: E may rise instead where the base is, and c follows, but slowly.)
    The authors cut at -10, where the slope becomes zero; here it never does.

    Args:
        energy: `(k, n, *event)` to `(k, n)`.
        floor: a number.
    """

    def __init__(self, energy: nn.Module, floor: float = -10.0):
        super().__init__()
        if not math.isfinite(floor):
            raise ValueError(f"floor: expected a finite number; got {floor!r}")
        self.energy, self.floor = energy, floor

    def forward(self, x: Tensor) -> Tensor:
        return self.floor + functional.softplus(self.energy(x) - self.floor)


# --- the model -------------------------------------------------------------------------


def model(base: Callable, energy: Callable, prior: ddls.Prior, k: int = 1) -> ddls.Model:
    """Base and energy as an `ebmref.ddls.Model`, to draw from equation (16):

        ddls.chains(gebm.model(base, energy, ddls.Normal(2)), 1000, "mala", 200, g, step_size=0.1)

    The energy times beta is sampled where a method takes `beta`; 1 is the model.

    Args:
        base: `(k, n, d)` to `(k, n, *event)`; in eval mode, see `ebmref.ddls.Model`.
        energy: `(k, n, *event)` to `(k, n)`; in eval mode.
        prior: eta.
        k: how many.
    """
    return ddls.Model(base, lambda x: -energy(x), prior, k)


class Score(NamedTuple):
    """How well a model explains data, on samples of its base; `(k,)` each, in nats.

    Attributes:
        bound: F.
        likelihood: L.
        log_z: estimate of log Z; `c - log_z` is the error of a learned c.
        bound_se, likelihood_se, log_z_se: standard errors, those of L and log Z by the delta
            method; too small where `pareto_k` is above 0.7.
        share: effective share of the base's samples, at their weights e^{-E}.
        pareto_k: see `ebmref.samplers.Importance`.
    """

    bound: Tensor
    likelihood: Tensor
    log_z: Tensor
    bound_se: Tensor
    likelihood_se: Tensor
    log_z_se: Tensor
    share: Tensor
    pareto_k: Tensor


@torch.no_grad()
def score(model: ddls.Model, c: Tensor, data: Tensor, n: int, generator: torch.Generator) -> Score:
    """Measure F, L and log Z in double precision.

    A c so far below log Z that e^{-(E + c)} overflows has a bound of -inf, and no error of it.

    Args:
        model: of `model`, or `Game.model`.
        c: `(k,)`.
        data: `(m, *event)`, held out; m >= 2.
        n: samples of the base for each model, >= 2.

    Raises:
        ValueError: too few data or samples, c of another shape or not finite, energies that are not
            finite.
    """
    check_draws(n, 2, generator)
    check_tensors(data=data)
    if data.dim() < 1 or len(data) < 2:
        raise ValueError(f"data: expected (m, *event) with m >= 2; got {tuple(data.shape)}")
    c = torch.as_tensor(c, device=data.device).double()
    if c.shape != (model.k,) or not c.isfinite().all():
        raise ValueError(f"c: expected finite, ({model.k},); got {c.tolist()}")
    logits = model.logits(model.draw(n, generator))
    parts = [model.critic(part.expand(model.k, *part.shape)) for part in data.split(8192)]
    real = -torch.cat(parts, 1).double()
    if not real.isfinite().all():
        raise ValueError("energy: not finite at some of the data")
    found = ddls.log_z0(logits)
    terms = (logits - c[:, None]).exp()
    of_data = real.var(1) / real.shape[1]
    return Score(
        bound(real, -logits, c),
        likelihood(real, -logits),
        found.log_z,
        (of_data + terms.var(1) / n).sqrt(),
        (of_data + found.se.square()).sqrt(),
        found.se,
        found.share,
        found.pareto_k,
    )


@torch.no_grad()
def langevin(
    model: ddls.Model,
    n: int,
    n_steps: int,
    generator: torch.Generator,
    *,
    step_size: float,
    friction: float,
    beta: float = 1.0,
    decay: float = 1.0,
    decay_every: int | None = None,
    start: Tensor | None = None,
) -> ddls.Refined:
    """Kinetic Langevin in latents, in the order of steps of the authors' code (A B O B A):

        z <- z + h/2 v;   v <- v - h/2 grad U(z);   v <- e^{-friction h} v + noise;
        v <- v - h/2 grad U(z);   z <- z + h/2 v;       U(z) = -log eta(z) + beta E(B(z)),

    from v = 0, unadjusted; one gradient a step. The law of z is off by O(h^2), and exact for a
    Gaussian, as with `samplers.kinetic_langevin`, which has the order B A O A B.

    Their images are drawn at beta = 100, under the name of a temperature: that is not the
    model, for which beta is 1. Their `lmc_gamma` is (h / 2)^2.

    Args:
        n: chains a model.
        step_size: h.
        decay, decay_every: after so many steps take h so many times as large; the velocity goes
            on. Theirs: 200, and 0.1 for `lmc_gamma`, which is 0.1 ** 0.5 for h.
        start: states `(k, n, d)`; None for the prior's.

    Raises:
        ValueError: an argument out of range, a start of another shape.
    """
    check_draws(n_steps, 1, generator, "n_steps")
    for name, value in (("step_size", step_size), ("friction", friction)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: expected a finite number > 0; got {value!r}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay: expected a number in (0, 1]; got {decay!r}")
    if decay < 1 and decay_every is None:
        raise ValueError("decay_every: expected a number of steps, as decay < 1")
    every = n_steps if decay_every is None else decay_every
    check_draws(every, 1, generator, "decay_every")
    energy = ddls.latent_energy(model, beta)
    first = start_states(model, n, start, generator)
    z = first.flatten(0, 1)
    v = torch.zeros_like(z)
    for step in range(n_steps):
        h = step_size * decay ** (step // every)
        keep = math.exp(-friction * h)
        z = z + 0.5 * h * v
        _, slope = value_and_gradient(energy, z)
        xi = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        v = keep * (v - 0.5 * h * slope) + (1 - keep**2) ** 0.5 * xi - 0.5 * h * slope
        z = z + 0.5 * h * v
    if not z.isfinite().all():
        raise ValueError("step_size: too large; some chains have left for infinity")
    return moved(first, z.view_as(first), 0.0, n_steps)._replace(temperature=1.0)
