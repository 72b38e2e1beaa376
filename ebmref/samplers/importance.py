"""Importance sampling (report section 2.3.2.1): draws of q, weighted, stand for draws of p.

    w(x) = e^{-E(x)} / q(x),   E_p[f] = E_q[w f] / E_q[w],   Z = E_q[w]

The report ends this with an equality between an integral and an average of N draws. The
average is a random number with that mean: here it comes with its standard error, and with
two alarms for when the error itself is not to be believed, the effective sample size and
the Pareto k-hat. Weights live in log space throughout.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ebmref.checks import check_draws, check_tensors
from ebmref.energies import Energy, check_energy
from ebmref.samplers.diagnostics import arviz


class Importance(NamedTuple):
    """An estimate by weighted draws; every field 0-d, or `(n_replicates,)` where asked for.

    Attributes:
        value: of E_p[f].
        se: its standard error, as far as these draws can tell.
        ess: effective sample size (sum w)^2 / sum w^2, between 1 and n (Kish 1965).
        log_z: log of the mean weight, the estimate of log Z.
        log_z_se: standard error of `log_z`, by the delta method.
        max_share: the largest weight's share of the sum of all.
        pareto_k: k-hat, the shape of a Pareto tail fitted to the largest weights (Vehtari et
            al. 2024). Above 1/2 the weights seem to have no variance, above 0.7 the estimate
            is not to be relied on at any practical n. -inf where the largest weights are
            equal, so that there is no tail; +inf where too few draws have any weight.
    """

    value: Tensor
    se: Tensor
    ess: Tensor
    log_z: Tensor
    log_z_se: Tensor
    max_share: Tensor
    pareto_k: Tensor


def log_weights(energy: Energy, proposal, x: Tensor) -> Tensor:
    """log w = -E(x) - log q(x) at draws x of the proposal: `(n,)`, -inf outside the support.

    Raises:
        ValueError: an energy of wrong shape, NaN or -inf, or a log_prob of wrong shape or
            not finite at one of the proposal's own draws.
    """
    energies, log_q = energy(x), proposal.log_prob(x)
    check_energy(energies, len(x))
    check_tensors(log_prob=log_q)
    if (energies == -math.inf).any():
        raise ValueError("energy: is -inf for some of the points, so that Z is infinite")
    if log_q.shape != (len(x),) or not log_q.isfinite().all():
        raise ValueError(
            f"proposal: expected log_prob of shape ({len(x)},), finite at its own draws; got "
            f"shape {tuple(log_q.shape)} with {int((~log_q.isfinite()).sum())} not finite"
        )
    return -energies - log_q


def importance_estimate(
    f: Callable[[Tensor], Tensor],
    energy: Energy,
    proposal,
    n: int,
    generator: torch.Generator,
    *,
    log_z: float | None = None,
    n_replicates: int | None = None,
) -> Importance:
    """Estimate E_p[f] for p = e^{-E} / Z from n draws of the proposal.

    With `log_z` the weights are normalised and the estimate is plain and unbiased,

        value = 1/n sum_i f(x_i) w(x_i) / Z,   se^2 = var(f w / Z) / n.

    Without, the weights are divided by their own sum (self-normalised; Owen 2013, section
    9.2). That needs no Z and costs a bias of order 1/n:

        value = sum_i v_i f(x_i),  v_i = w_i / sum_j w_j,   se^2 = sum_i v_i^2 (f(x_i) - value)^2.

    Either standard error is an estimate too, from the same draws, and too small just when
    the draws missed what carries the weight; see `Importance.pareto_k`.

    Args:
        f: `(n, *event) -> (n,)`.
        energy: `(n, *event) -> (n,)`, +inf outside the support of p.
        proposal: has `sample(n, generator)` and `log_prob(x)`; must cover the support of p.
        n: >= 2, draws.
        generator: source of all randomness.
        log_z: the exact log of the integral of e^{-E}, where it is known.
        n_replicates: make so many independent estimates of n draws each, all at once.

    Raises:
        ValueError: an argument out of range, an energy or log_prob that `log_weights`
            refuses, an f of wrong shape or not finite where there is weight, or draws that
            all have weight zero.
    """
    check_draws(n, 2, generator)
    if n_replicates is not None:
        check_draws(n_replicates, 1, generator, "n_replicates")
    if log_z is not None and not math.isfinite(log_z):
        raise ValueError(f"log_z: expected a finite number or None; got {log_z}")
    with torch.no_grad():
        x = proposal.sample(n * (n_replicates or 1), generator)
        log_w = log_weights(energy, proposal, x)
        values = f(x)
    check_tensors(f=values)
    if values.shape != (len(x),):
        raise ValueError(f"f: expected shape ({len(x)},); got {tuple(values.shape)}")
    # A point without weight does not count, whatever f is there.
    values = torch.where(log_w == -math.inf, 0.0, values)
    if not values.isfinite().all():
        raise ValueError("f: is not finite at some points of positive weight")
    shape = (n,) if n_replicates is None else (n_replicates, n)
    return weighted_estimate(values.view(shape), log_w.view(shape), log_z)


def weighted_estimate(values: Tensor, log_w: Tensor, log_z: float | None = None) -> Importance:
    """The estimates of `importance_estimate` from draws that have their weights already.

    A draw of weight zero counts as a draw, whatever its value. Sums are in double precision; what
    the weights have lost by then, such as the digits of a float32 energy of size 10^8, is lost.

    Args:
        values: `(..., n)`, of f at the draws; n >= 2.
        log_w: `(..., n)`, logs of the weights, such that their mean estimates Z.
        log_z: the exact log Z, where it is known.

    Raises:
        ValueError: shapes that differ, fewer than two draws, a weight that is NaN or infinite,
            draws that all have weight zero, a value that is not finite where there is weight, or
            a log_z that is not finite.
    """
    _check_weighted(values, log_w, log_z)
    n = values.shape[-1]
    values, log_w = values.double(), log_w.double()
    # Zero times a value that is not finite would be NaN.
    values = torch.where(log_w == -math.inf, 0.0, values)
    if not values.isfinite().all():
        raise ValueError("values: expected finite numbers wherever there is weight")
    log_sum = log_w.logsumexp(-1)
    if not log_sum.isfinite().all():
        raise ValueError("proposal: all its draws have weight zero; it misses the support")
    share = (log_w - log_sum[..., None]).exp()
    if log_z is None:
        value = (share * values).sum(-1)
        se = (share * (values - value[..., None])).square().sum(-1).sqrt()
    else:
        terms = values * (log_w - log_z).exp()
        value, se = terms.mean(-1), terms.std(-1) / math.sqrt(n)
    return Importance(
        value,
        se,
        1 / share.square().sum(-1),
        log_sum - math.log(n),
        share.std(-1) * math.sqrt(n),
        share.amax(-1),
        _pareto_k(log_w),
    )


def _check_weighted(values: Tensor, log_w: Tensor, log_z: float | None) -> None:
    check_tensors(values=values, log_w=log_w)
    if values.shape != log_w.shape or values.dim() < 1 or values.shape[-1] < 2:
        raise ValueError(
            f"values, log_w: expected (..., n) both, n >= 2; got {tuple(values.shape)} and "
            f"{tuple(log_w.shape)}"
        )
    if log_w.isnan().any():
        raise ValueError(f"log_w: {int(log_w.isnan().sum())} of {log_w.numel()} weights are NaN")
    infinite = int((log_w == math.inf).sum())
    if infinite:
        raise ValueError(
            f"log_w: {infinite} of {log_w.numel()} weights are infinite: the proposal has no mass "
            "there and does not cover the target"
        )
    if log_z is not None and not math.isfinite(log_z):
        raise ValueError(f"log_z: expected a finite number or None; got {log_z}")


def _pareto_k(log_w: Tensor) -> Tensor:
    """k-hat of each row of log weights, by ArviZ."""
    rows = log_w.reshape(-1, log_w.shape[-1])
    n = rows.shape[1]
    # ArviZ fits what exceeds the tail's lower end; where the tail is all ties nothing does.
    n_tail = math.ceil(min(n / 5, 3 * math.sqrt(n)))
    ends = rows.sort(1, descending=True).values[:, [0, min(n_tail, n - 1)]]
    k = torch.full_like(rows[:, 0], -math.inf)
    loose = ends[:, 0] - ends[:, 1] > 1e-9
    if loose.any():
        with np.errstate(all="ignore"):  # it divides by zero on its way to a k of inf
            _, fitted = arviz().psislw(rows[loose].cpu().numpy())
        k[loose] = torch.as_tensor(fitted, dtype=k.dtype, device=k.device)
    return k.view(log_w.shape[:-1])
