"""How well classifiers know what they know, and whether a score tells two kinds apart.

calibration    accuracy, a proper score, calibration error and its floor
temperatures   by which logits are best divided
auroc          with its error
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ebmbook.lab.likelihood_exact import Estimate
from ebmref.seeds import derive_seed


class Calibration(NamedTuple):
    """Of k classifiers; each `(k,)`.

    Attributes:
        accuracy: share of pictures classified rightly.
        nll: mean -log p(y | x), a proper score.
        ece: calibration error: mean over pictures of |accuracy - confidence| of their bin.
        floor: the same of labels drawn by the very confidences, on average: what is measured of a
            classifier that is calibrated.
    """

    accuracy: Tensor
    nll: Tensor
    ece: Tensor
    floor: Tensor


def calibration(
    logits: Tensor, y: Tensor, seed: int, *, n_bins: int = 15, n_draws: int = 200
) -> Calibration:
    """Of k classifiers on the same pictures.

    Args:
        logits: `(k, n, c)`.
        y: `(n,)`.
        n_bins: of confidence, of equal width.
        n_draws: of labels, for the floor.
    """
    log_p = logits.double().log_softmax(-1)
    confidence, chosen = log_p.exp().max(-1)
    right = chosen == y
    nll = -log_p.gather(-1, y.expand(len(log_p), -1)[..., None])[..., 0].mean(-1)
    draws = torch.Generator(logits.device).manual_seed(derive_seed(seed, "floor"))
    u = torch.rand(n_draws, *confidence.shape, generator=draws, device=logits.device)
    floor = _ece(confidence, u < confidence, n_bins).mean(0)
    return Calibration(right.double().mean(-1), nll, _ece(confidence, right, n_bins), floor)


def _ece(confidence: Tensor, right: Tensor, n_bins: int) -> Tensor:
    """Of `(k, n)` and `(..., k, n)` to `(..., k)`."""
    bins = (confidence * n_bins).long().clamp(max=n_bins - 1).expand(right.shape)
    gap = right.double() - confidence
    sums = gap.new_zeros(*right.shape[:-1], n_bins).scatter_add(-1, bins, gap)
    return sums.abs().sum(-1) / right.shape[-1]


def temperatures(logits: Tensor, y: Tensor) -> Tensor:
    """For each of k classifiers the T in 1/4 .. 8 of which logits / T have the best nll, `(k,)`.

    Args:
        logits: `(k, n, c)`, of pictures that are not judged later.
    """
    tried = 2 ** torch.linspace(-2, 3, 101, dtype=torch.float64, device=logits.device)
    cooled = (logits.double() / tried[:, None, None, None]).log_softmax(-1)
    at = y.expand(cooled.shape[:-1])[..., None]
    return tried[(-cooled.gather(-1, at)[..., 0].mean(-1)).argmin(0)]


def auroc(inside: Tensor, outside: Tensor) -> Estimate:
    """P(a score inside is above one outside), equal ones counted by half; its error by DeLong et
    al. (1988).

    Args:
        inside, outside: scores, `(..., n)` and `(..., m)`, n and m >= 2.

    Returns:
        `(...)`.
    """
    above = (inside[..., :, None] > outside[..., None, :]).double()
    above += 0.5 * (inside[..., :, None] == outside[..., None, :])
    variance = sum(
        above.mean(dim).var(-1) / above.shape[other] for dim, other in ((-1, -2), (-2, -1))
    )
    return Estimate(above.mean((-2, -1)), variance.sqrt())
