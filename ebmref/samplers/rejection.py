"""Rejection sampling (report section 2.3.2.1, figure 6): points under an envelope, kept under p.

    x ~ q,  u ~ uniform(0, 1):   keep x  if  u M q(x) < e^{-E(x)},   where e^{-E} <= M q.

The points (x, u M q(x)) are uniform under M q; those kept are uniform under e^{-E}, so their x
have the law p = e^{-E} / Z. A share Z / M of all points is kept, which is an estimate of Z.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref.checks import check_draws
from ebmref.energies import Energy, check_energy
from ebmref.inference import gradient_argmin
from ebmref.samplers.importance import log_weights


class Rejection(NamedTuple):
    """What rejection sampling drew, and what it cost.

    Attributes:
        samples: `(n, *event)`, independent draws of p = e^{-E} / Z.
        acceptance_rate: (n - 1) / (n_proposals - 1), the unbiased estimate where one draws until
            n are kept (Haldane 1945); n / n_proposals is too high on average. 1 / n_proposals
            for n = 1.
        n_proposals: points drawn up to and including the n-th that was kept; it has the
            negative binomial law of n successes of probability Z / M.
        log_z: log_m + log(acceptance_rate).
        log_z_se: its standard error, sqrt((1 - acceptance) / n) by the delta method.
    """

    samples: Tensor
    acceptance_rate: float
    n_proposals: int
    log_z: float
    log_z_se: float


def rejection_sample(
    energy: Energy,
    proposal,
    log_m: float,
    n: int,
    generator: torch.Generator,
    *,
    max_proposals: int = 100_000_000,
) -> Rejection:
    """Draw n exact samples of p = e^{-E} / Z under the envelope M q.

    An observed ratio above the envelope is an error, not a warning: the draws kept so far
    would follow min(e^{-E}, M q), a law with its peaks cut off, and nothing in them shows it.

    Args:
        energy: `(n, *event) -> (n,)`, +inf outside the support of p.
        proposal: has `sample(n, generator)` and `log_prob(x)`.
        log_m: log M, at least the supremum of -E - log q; see `envelope_constant`.
        n: >= 1, samples to return.
        generator: source of all randomness.
        max_proposals: give up after so many.

    Raises:
        ValueError: an argument out of range, an energy or log_prob that is NaN or of wrong
            shape, or a point where e^{-E} is above the envelope.
        RuntimeError: max_proposals were drawn and fewer than n kept.
    """
    check_draws(n, 1, generator)
    if max_proposals < n:
        raise ValueError(f"max_proposals: expected >= n = {n}; got {max_proposals}")
    if not math.isfinite(log_m):
        raise ValueError(f"log_m: expected a finite number; got {log_m}")
    kept, n_kept, n_drawn, batch = [], 0, 0, max(n, 1024)
    while n_kept < n:
        if n_drawn == max_proposals:
            raise RuntimeError(
                f"max_proposals: {n_drawn} proposals gave {n_kept} of {n} samples; the "
                f"acceptance is about {n_kept / n_drawn:.1e}, so a closer proposal or a "
                "smaller log_m is needed"
            )
        batch = min(batch, max_proposals - n_drawn)
        with torch.no_grad():
            x = proposal.sample(batch, generator)
            log_w = log_weights(energy, proposal, x)
            excess = _excess(log_w, log_m, proposal, x)
        if len(excess):
            raise ValueError(
                f"log_m: the envelope is too low. {len(excess)} of {batch} points have e^-E "
                f"above M q, by up to {float(excess.max()):.3g} in the log; log_m = {log_m:.6g}"
            )
        # In double precision: a float32 is 0 once in 2^24, and 0 keeps anything.
        u = torch.rand(batch, generator=generator, dtype=torch.float64, device=x.device)
        index = (u.log() < log_w - log_m).nonzero()[: n - n_kept, 0]
        kept.append(x[index])
        n_kept += len(index)
        n_drawn += batch if n_kept < n else int(index[-1]) + 1
        # Enough for the rest at the rate so far, in blocks of bounded memory.
        batch = math.ceil(1.1 * (n - n_kept) * n_drawn / max(n_kept, 1)) + 64
        batch = min(batch, max(1024, (1 << 23) // x[0].numel()))
    rate = (n - 1) / (n_drawn - 1) if n > 1 else 1 / n_drawn
    return Rejection(
        torch.cat(kept), rate, n_drawn, log_m + math.log(rate), math.sqrt((1 - rate) / n)
    )


def _rounding(log_w: Tensor, log_q: Tensor) -> Tensor:
    """How far log w = -E - log q can be off by rounding alone."""
    size = 1 + log_q.abs() + (log_w + log_q).abs()
    return 32 * torch.finfo(log_w.dtype).eps * size


def _excess(log_w: Tensor, log_m: float, proposal, x: Tensor) -> Tensor:
    """log w - log_m of the points that lie above the envelope by more than rounding."""
    above = log_w > log_m
    log_w = log_w[above]
    excess = log_w - log_m
    return excess[excess > _rounding(log_w, proposal.log_prob(x[above]))]


class Envelope(NamedTuple):
    """The least envelope that was found.

    Attributes:
        log_m: the largest -E - log q met by the ascents.
        x: `(*event)`, where.
        slope: the largest component of the gradient there; not small at a wall, or where the
            steps ran out first.
    """

    log_m: float
    x: Tensor
    slope: float


def envelope_constant(
    energy: Energy,
    proposal,
    generator: torch.Generator,
    *,
    n_starts: int = 64,
    n_steps: int = 500,
    step_size: float = 1.0,
    n_check: int = 100_000,
) -> Envelope:
    """Estimate log M = sup_x (-E(x) - log q(x)) by ascents from many draws of the proposal.

    What an ascent finds is a lower bound of the supremum, and the supremum only where the
    highest peak was among those climbed. Two things are tested: fresh draws must not lie
    above the value found, and the ratio must not still be growing 2^20 times as far out as
    the proposal's draws lie, in any of the directions tried. A growth slower than a hundredth
    a doubling, or in a direction not tried, goes unnoticed, and a peak against a wall is only
    found if it is against one wall at a time; `rejection_sample` checks each point again.

    Args:
        energy: `(n, *event) -> (n,)`, differentiable where finite.
        proposal: has `sample(n, generator)` and a differentiable `log_prob(x)`.
        generator: source of all randomness.
        n_starts: >= 2 ascents, from draws of the proposal.
        n_steps, step_size: of each ascent; see `ebmref.inference.gradient_argmin`.
        n_check: >= 1 fresh draws.

    Raises:
        ValueError: an argument out of range, an energy or log_prob refused, no start inside
            the support, a ratio without bound (no envelope exists), or a fresh draw above
            the value found.
    """
    check_draws(n_starts, 2, generator, "n_starts")
    check_draws(n_check, 1, generator, "n_check")

    def ratio(x: Tensor) -> tuple[Tensor, Tensor]:
        """-E - log q anywhere, and its rounding; -inf outside the support."""
        energies, log_q = energy(x), proposal.log_prob(x)
        check_energy(energies, len(x))
        log_w = torch.where(energies == math.inf, -math.inf, -energies - log_q)
        return log_w, _rounding(log_w, log_q)

    with torch.no_grad():
        starts = proposal.sample(n_starts, generator)
        starts = starts[log_weights(energy, proposal, starts) > -math.inf]
    if not len(starts):
        raise ValueError("n_starts: none of the proposal's draws lies in the energy's support")
    centre = starts.mean(0)

    def distance(x: Tensor) -> Tensor:
        return (x - centre).reshape(len(x), -1).norm(dim=1)

    spread = distance(starts).square().mean().sqrt().clamp(min=1e-12)

    def walled(x: Tensor) -> Tensor:
        """The ratio's negative, for descent, inside a ball: an escape must end somewhere."""
        return torch.where(distance(x) < 2**20 * spread, -ratio(x)[0], math.inf)

    found = gradient_argmin(walled, starts, step_size, n_steps)
    best = found.energy.argmin()
    log_m = -float(found.energy[best])
    with torch.no_grad():
        _check_bounded(ratio, torch.cat([starts, found.y]), centre, spread)
        fresh = proposal.sample(n_check, generator)
        excess = _excess(log_weights(energy, proposal, fresh), log_m, proposal, fresh)
    if len(excess):
        raise ValueError(
            f"n_starts: {len(excess)} of {n_check} fresh draws lie above the best of "
            f"{len(starts)} ascents, by up to {float(excess.max()):.3g} in the log; more starts "
            "or steps are needed"
        )
    return Envelope(log_m, found.y[best], float(found.slope[best]))


def _check_bounded(ratio, through: Tensor, centre: Tensor, spread: Tensor) -> None:
    """Raise ValueError where the ratio grows along a ray from the centre and does not stop."""
    ray = through - centre
    length = ray.reshape(len(ray), -1).norm(dim=1).view((-1,) + (1,) * (ray.dim() - 1))
    ray = ray / length.clamp(min=1e-30) * spread
    (last, rounding), (before, _) = (ratio(centre + 2.0**k * ray) for k in (20, 19))
    growing = (last > before + 0.01 + 2 * rounding) | (last == math.inf)
    if growing.any():
        raise ValueError(
            "proposal: e^-E / q has no bound: far outside the draws it is infinite or still "
            f"grows, along {int(growing.sum())} of {len(ray)} rays; no M q is an envelope"
        )
