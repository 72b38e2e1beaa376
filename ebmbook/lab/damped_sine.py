"""The report's figure 7: data on a damped sine, dense at its ends, and models that have the curve.

    x = (4 u - 2,  2 sin(8 pi u) / (1 + 4 pi u)),    u in (0, 1),
    log p(u) = 2.4 sigmoid((|u - 1/2| - 0.29) / 0.025) + const

A base is a curve of five numbers and moves along it evenly, u = Phi(z) with z ~ N(0, 1): it can
bend, and cannot move its mass. Energies are perceptrons on the plane. k models stand side by side,
(k, n, 2) in single precision; laws of u are masses on CELLS even cells, in double precision.
"""

import copy
import dataclasses
import math
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn

from ebmref import ddls, gan, gebm, training

NUMBERS = (4.0, -2.0, 2.0, 4.0, 4 * math.pi)  # stretch, start, height, waves, damping
CELLS, BINS, FAR = 20_000, 20, 0.05
HIDDEN = (64, 64, 64)
BATCH, RATE = 256, 3e-3


class Curve(nn.Module):
    """k curves of five numbers `(k, 5)`, as in NUMBERS: latents `(k, n, 1)` to `(k, n, 2)`."""

    def __init__(self, numbers: Tensor):
        super().__init__()
        self.numbers = nn.Parameter(numbers.clone())

    def forward(self, z: Tensor) -> Tensor:
        u = torch.special.ndtr(z)
        a, b, height, waves, damping = self.numbers.T[:, :, None, None]
        wave = (2 * math.pi * waves * u).sin() / (1 + damping * u)
        return torch.cat([a * u + b, height * wave], -1)


def known(device="cpu") -> Curve:
    """The curve of the data, which does not learn."""
    return Curve(torch.tensor([NUMBERS], device=device)).requires_grad_(False)


def bent(k: int, share: float, generator: torch.Generator) -> Curve:
    """k curves whose numbers are off by up to a share of their size."""
    off = 2 * torch.rand(k, 5, generator=generator, device=generator.device) - 1
    return Curve(torch.tensor(NUMBERS, device=generator.device) * (1 + share * off))


def above(x: Tensor) -> Tensor:
    """Height of points `(..., 2)` above the data's curve, in double precision; zero on it."""
    x = x.double()
    wave = 2 * (2 * math.pi * (x[..., 0] + 2)).sin()
    return x[..., 1] - wave / (1 + math.pi * (x[..., 0] + 2))


def places(device="cpu") -> Tensor:
    """The middles of the cells, `(CELLS,)`."""
    return (torch.arange(CELLS, dtype=torch.float64, device=device) + 0.5) / CELLS


def masses(device="cpu") -> Tensor:
    """Of the data, `(CELLS,)`."""
    u = places(device)
    return (2.4 * (((u - 0.5).abs() - 0.29) / 0.025).sigmoid()).softmax(0)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL of masses p `(m,)` from q `(..., m)`, `(...)`."""
    return torch.xlogy(p, p / q).sum(-1)


def binned(mass: Tensor) -> Tensor:
    """Masses on the cells `(..., CELLS)` on BINS bins."""
    return mass.unflatten(-1, (BINS, -1)).sum(-1)


def bin_counts(u: Tensor) -> Tensor:
    """Of places `(k, n)` in [0, 1], `(k, BINS)`."""
    at = (BINS * u).long().clamp(0, BINS - 1)
    return torch.stack([torch.bincount(row, minlength=BINS) for row in at]).double()


def counted(u: Tensor) -> Tensor:
    """KL of the data from places `(k, n)` over the bins, `(k,)`; half a count is added to each."""
    share = (bin_counts(u) + 0.5) / (u.shape[1] + BINS / 2)
    return divergence(binned(masses(u.device)), share)


def draw_places(n: int, generator: torch.Generator) -> Tensor:
    """Of the data, `(n,)`."""
    mass = masses(generator.device)
    at = torch.multinomial(mass, n, replacement=True, generator=generator)
    return (at + torch.rand(n, generator=generator, device=mass.device)).double() / CELLS


def draw(n: int, generator: torch.Generator) -> Tensor:
    """Points of the data, `(n, 2)`."""
    z = torch.special.ndtri(draw_places(n, generator)).float()
    with torch.no_grad():
        return known(z.device)(z[None, :, None])[0]


def lifted(x: Tensor, generator: torch.Generator, noise: float = 0.2) -> Tensor:
    """Points `(n, 2)`, moved up or down by normal noise."""
    up = noise * torch.randn(len(x), generator=generator, device=x.device)
    return torch.stack([x[:, 0], x[:, 1] + up], 1)


# --- judging ---------------------------------------------------------------------------


def law(model: ddls.Model) -> Tensor:
    """Masses of u, `(k, CELLS)`, by the model's own weights: no draws."""
    z = torch.special.ndtri(places(model_device(model))).float()[None, :, None]
    return model.logits(z.expand(model.k, -1, -1)).softmax(1)


def model_device(model: ddls.Model) -> torch.device:
    """That of its base."""
    return next(model.generator.parameters()).device


def along(x: Tensor) -> Tensor:
    """Place on the data's curve of points `(..., 2)`, by their first coordinate."""
    return ((x[..., 0].double() + 2) / 4).clamp(0, 1)


def distance(x: Tensor) -> Tensor:
    """Of points `(k, n, 2)` to the data's curve, `(k, n)`, to about a thousandth."""
    u = torch.linspace(1e-6, 1 - 1e-6, 4001, dtype=torch.float64, device=x.device)
    with torch.no_grad():
        fine = known(x.device)(torch.special.ndtri(u).float()[None, :, None])[0]
    return torch.stack([torch.cdist(row, fine).amin(1) for row in x])


class Judged(NamedTuple):
    """By quantiles of z, each model `(k,)`: KL over the bins, mean distance, mass beyond FAR."""

    kl: Tensor
    distance: Tensor
    far: Tensor


def judge(model: ddls.Model) -> Judged:
    """How far a model, whose curve need not be the data's, is from the data; no draws."""
    u = places(model_device(model))[2::5]
    z = torch.special.ndtri(u).float()[None, :, None].expand(model.k, -1, -1)
    w, x = model.logits(z).softmax(1), model.events(z)
    at = (BINS * along(x)).long().clamp(0, BINS - 1)
    share = torch.zeros(model.k, BINS, dtype=w.dtype, device=w.device).scatter_add_(1, at, w)
    share = (len(u) * share + 0.5) / (len(u) + BINS / 2)  # as if counted
    off = distance(x).double()
    kl = divergence(binned(masses(w.device)), share)
    return Judged(kl, (w * off).sum(1), (w * (off > FAR)).sum(1))


def samplers_p(places_by: dict[str, Tensor], mass: Tensor) -> dict[str, float]:
    """Pearson's chi-square over the bins: are the places `(k, n)` of the laws `(k, CELLS)`?"""
    found = {}
    for name, u in places_by.items():
        expected = u.shape[1] * binned(mass)
        total = ((bin_counts(u) - expected).square() / expected).sum()
        found[name] = float(stats.chi2.sf(float(total), len(u) * (BINS - 1)))
    return found


# --- training --------------------------------------------------------------------------


class Minus(nn.Module):
    """A discriminator as an energy: minus its logits."""

    def __init__(self, critic: nn.Module):
        super().__init__()
        self.critic = critic

    def forward(self, x: Tensor) -> Tensor:
        return -self.critic(x)


def perceptrons(k: int, generator: torch.Generator) -> gan.Discriminator:
    """k energies, or discriminators, on the plane."""
    return gan.Discriminator((2,), HIDDEN, k, generator)


def recipe(n_steps: int) -> gebm.Recipe:
    """KALE on a base that does not move, its rate annealed to zero."""
    return gebm.Recipe(
        batch=BATCH, learning_rate=(RATE,) * 3, momenta=(0.9, 0.999), penalty=0.001,
        penalty_every=4, frozen=True, anneal_over=n_steps,
    )  # fmt: skip


def tilt(base, energy: nn.Module, data: Tensor, k: int, n_steps: int, seed: int) -> gebm.Game:
    """The game after training the energies, in place, for a base that is done."""
    game = gebm.Game(base, energy, (k, 1), recipe(n_steps), seed)
    training.bring(game, n_steps, data=data)
    return game


def play(
    data: Tensor, k: int, n_steps: int, share: float, generator: torch.Generator, seed: int
) -> gan.Game:
    """k GANs whose generators are `bent` curves, after their game.

    Args:
        share: see `bent`.
        generator: of the first weights.
    """
    start = bent(k, share, generator)
    plan = gan.Recipe(
        batch=BATCH, learning_rate=(RATE, RATE), momenta=(0.5, 0.9), n_critic=2,
        anneal_over=n_steps,
    )  # fmt: skip
    game = gan.Game(start, perceptrons(k, generator), (k, 1), plan, seed)
    training.bring(game, n_steps, data=data)
    return game


class Kept(NamedTuple):
    """Models on one generator: alone, with its discriminator, with that trained on in two ways."""

    alone: ddls.Model
    played: ddls.Model
    logistic: ddls.Model
    kale: ddls.Model


def keep(game: gan.Game, data: Tensor, n_steps: int, generator: torch.Generator) -> Kept:
    """What the discriminators of a finished game are worth, and what they can come to be worth.

    Trained on from the same weights, at the same rate and for as many steps, by the logistic loss
    and by KALE.
    """
    base = copy.deepcopy(game.generator).requires_grad_(False)
    k = game.latent[0]

    def on(critic) -> ddls.Model:
        return ddls.Model(base, critic, ddls.Normal(1), k)

    played, logistic, kale = (copy.deepcopy(game.discriminator) for _ in range(3))
    for _ in ddls.train_critic(
        on(logistic), data, n_steps, generator, batch=BATCH, learning_rate=RATE
    ):
        pass
    tilted = tilt(base, Minus(kale), data, k, n_steps, game.seed)
    for net in (played, logistic):
        net.requires_grad_(False)
    return Kept(on(lambda x: 0 * x[..., 0]), on(played), on(logistic), tilted.model())


def without_base(
    data: Tensor, k: int, n_steps: int, generator: torch.Generator, seed: int
) -> gebm.Game:
    """Energies on a Gaussian as wide as the data and a bit, by `recipe` with twice the samples."""
    centre = data.mean(0)
    spread = 1.2 * torch.linalg.cholesky(torch.cov(data.T))
    game = gebm.Game(
        lambda z: centre + z @ spread.T, perceptrons(k, generator), (k, 2),
        dataclasses.replace(recipe(n_steps), samples=2), seed,
    )  # fmt: skip
    training.bring(game, n_steps, data=data)
    return game
