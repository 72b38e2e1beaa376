"""Methods with fresh latents: draw many, keep some, each in proportion to e^d."""

import math

import torch
from torch import Tensor

from ebmref.checks import check_draws
from ebmref.ddls.model import Model, Refined


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
