"""Calibration: a map of a critic's logits after which they are log-odds (Turner et al. 2019)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import logsigmoid

from ebmref.checks import check_tensors

CALIBRATIONS = ("none", "logistic", "beta", "isotonic")


class Calibration(NamedTuple):
    """A map of logits to better ones, and Dawid's statistic before and after on held-out data.

    Attributes:
        apply: `(k, n)` to `(k, n)`, differentiable; minus infinity, a wall, stays.
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

    Returns:
        `(...)`; 0 where D is sure of all and right, +-inf where it is sure and wrong.
    """
    check_tensors(real=real, fake=fake)
    d = torch.cat([real, fake], -1).double()
    y = torch.cat([torch.ones_like(real), torch.zeros_like(fake)], -1).double()
    p = d.sigmoid()
    off = (y - p).sum(-1)
    return torch.where(off == 0, 0.0, off / (p * d.neg().sigmoid()).sum(-1).sqrt())


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
    check_tensors(real=real, fake=fake)
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
        # At a scale of one, whatever the critic's, and not far off: the solver counts on it.
        scale, middle = row.std(0), row.mean(0)
        scale = torch.where(
            scale > 1e-14 * middle.abs(), scale, math.inf
        )  # a constant tells nothing
        middle = torch.where(middle.abs() > 30 * scale, middle, 0.0)
        found = LogisticRegression(C=1e6, max_iter=10_000)
        found.fit(((row - middle) / scale).numpy(), y)
        slopes.append(torch.from_numpy(found.coef_[0]) / scale)
        shifts.append(torch.from_numpy(found.intercept_) - (slopes[-1] * middle).sum())
    slope, shift = torch.stack(slopes), torch.stack(shifts)

    def apply(logits: Tensor) -> Tensor:
        x = features(logits.double()) * slope.to(logits.device)[:, None]
        made = (x.sum(-1) + shift.to(logits.device)).to(logits.dtype)
        return torch.where(logits == -math.inf, logits, made)

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
        made = (low + share * (high - low)).to(logits.dtype)
        return torch.where(logits == -math.inf, logits, made)

    return apply
