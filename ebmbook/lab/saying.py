"""Is what a discriminator says a probability? Trained at several shares of data, and on few points.

Data are two humps on the line, samples a wide Gaussian, so that log p - log q is known. k models
that differ in their weights and draws stand side by side, `(k, n, 1)`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ebmref import energies, gan, training

WAYS = {"equal": 0.5, "few": 0.2, "many": 0.8, "overfit": 0.5}  # share of data in training
N_FEW = 100  # points that "overfit" sees again and again
DATA_MEAN, BASE_MEAN = -0.3, 0.4


def laws(device="cpu") -> tuple[energies.GaussianMixture, energies.Gaussian]:
    """Data, of mean `DATA_MEAN`, and samples, of mean `BASE_MEAN`."""
    data = energies.GaussianMixture(
        torch.tensor([[-1.6], [1.0]], device=device), torch.tensor([0.5, 0.8], device=device)
    )
    wide = torch.tensor([BASE_MEAN], device=device), torch.tensor([[2.25]], device=device)
    return data, energies.Gaussian(*wide)


def best_logit(x: Tensor) -> Tensor:
    """log p - log q, `(..., 1)` to `(...)`."""
    data, wide = laws(x.device)
    flat = x.reshape(-1, 1)
    return (data.log_prob(flat) - wide.log_prob(flat)).view(x.shape[:-1])


def labelled(n: int, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points and whether each is of the data, with these shares `(k,)`: `(k, n)`, `(k, n, 1)`."""
    k, (data, wide) = len(share), laws(generator.device)
    dice = torch.rand(k, n, generator=generator, device=generator.device)
    is_data = dice < share[:, None]
    real = data.sample(k * n, generator).view(k, n, 1)
    fake = wide.sample(k * n, generator).view(k, n, 1)
    return is_data, torch.where(is_data[..., None], real, fake)


class Judges(NamedTuple):
    """Discriminators of all `WAYS`, `n_models` each, in that order.

    Attributes:
        net: trained to the end.
        early: `(n_models, n)`, what those at equal shares said of the points after 15 steps.
        logits: by way, `(n_models, n)`, at the end.
    """

    net: gan.Discriminator
    early: Tensor
    logits: dict[str, Tensor]


def train(n_models: int, n_steps: int, points: Tensor, generator: torch.Generator) -> Judges:
    """Train all, on fresh points at each step but for those that are to overfit.

    Args:
        points: `(n_models, n, 1)`, at which they are asked.
    """
    k = len(WAYS) * n_models
    net = gan.Discriminator((1,), (32, 32), k, generator)
    share = torch.tensor(list(WAYS.values()), device=generator.device).repeat_interleave(n_models)
    held_y, held_x = labelled(N_FEW, share[-n_models:], generator)

    def loss() -> Tensor:
        is_data, x = labelled(4 * N_FEW, share[:-n_models], generator)
        d = net(torch.cat([x, held_x.repeat(1, 4, 1)]))
        is_data = torch.cat([is_data, held_y.repeat(1, 4)])
        return -torch.where(is_data, logsigmoid(d), logsigmoid(-d)).mean(-1)

    def said() -> list[Tensor]:
        with torch.no_grad():
            return list(net(points.repeat(len(WAYS), 1, 1)).split(n_models))

    fitted = training.fit(net, loss, n_steps, 1e-2, anneal=True)
    for step, _ in enumerate(fitted, start=1):
        if step == 15:
            early = said()[0]
    return Judges(net, early, dict(zip(WAYS, said(), strict=True)))


def reliability(told: Tensor, is_data: Tensor, n_bins: int = 10) -> tuple[Tensor, Tensor]:
    """Bins of as many points, in the order of what is said of them, `(k, n)` to `(k, n_bins)`.

    Returns:
        The probability that is said, and the share of the bin that is data.
    """
    claimed, order = told.sort(1)
    parts = claimed, is_data.gather(1, order)
    claimed, found = (part.double().unflatten(1, (n_bins, -1)).mean(-1) for part in parts)
    return claimed, found


def error(told: Tensor, is_data: Tensor) -> Tensor:
    """Expected calibration error in ten bins, `(k,)`."""
    claimed, found = reliability(told, is_data)
    return (found - claimed).abs().mean(1)


def shifted(logit: Tensor, share: float) -> Tensor:
    """The best logit where this share of the points is of the data."""
    return logit + math.log(share / (1 - share))


def reweighted_mean(net: gan.Discriminator, n_models: int) -> Tensor:
    """Mean of q exp(d), normalised, of the discriminators at equal shares: `(n_models,)`."""
    device = net.layers.weights[0].device
    line = torch.linspace(-7, 7, 2801, device=device)[:, None]
    with torch.no_grad():
        d = net(line[None])[:n_models].double()
    weight = laws(device)[1].log_prob(line).double().exp() * d.exp()
    return (weight * line[:, 0].double()).sum(1) / weight.sum(1)
