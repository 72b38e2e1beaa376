"""Implicit generative models and the adversarial game (report section 2.3.1).

An *implicit* model (Definition 1) is a map G of a latent law eta: draw z ~ eta, return G(z).
It is trained against a discriminator D(x) = sigmoid(d(x)), the probability that x is data:

    min_G max_D V,   V = E_data[log D(x)] + E_eta[log(1 - D(G(z)))]                  (6)

The report prints (6) with the parenthesis closed too early, 1 - log D; then the inner maximum
is infinite unless p_g = p_data. All here is in logits d, and d* = log p_data - log p_g is the
best of them: minus a discriminator's logit is an energy, relative to the generator's law.

Models that differ in their seed are trained side by side: latents, data and logits carry a
leading dimension of models, `(k, n, ...)`, and models never meet.
"""

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import logsigmoid

from ebmref import training
from ebmref.checks import (
    check_field,
    check_not_negative,
    check_seed,
    check_tensors,
    check_whole,
    is_number,
    is_numbers,
)
from ebmref.networks import Networks
from ebmref.spectral import spectral_norm

LOSSES = ("non-saturating", "saturating")


# --- the game --------------------------------------------------------------------------


def value(real: Tensor, fake: Tensor) -> Tensor:
    """V of equation (6), corrected, from logits of data and of samples: `(..., n)` to `(...)`.

    It is at most -log 4 + 2 JSD(p_data, p_g), with equality at the best discriminator.
    """
    return logsigmoid(real).mean(-1) + logsigmoid(-fake).mean(-1)


def generator_loss(fake: Tensor, kind: str = "non-saturating") -> Tensor:
    """What G descends, from logits of its samples: `(..., n)` to `(...)`.

    "saturating" is (8), the mean of log(1 - D); where D tells samples well its gradient is
    all but gone. "non-saturating", the mean of -log D, has the same fixed points and a
    gradient just there (Goodfellow et al. 2014, section 3).

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}; got {kind!r}")
    if kind == "saturating":
        return logsigmoid(-fake).mean(-1)
    return -logsigmoid(fake).mean(-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """JSD in nats of two probability vectors, `(..., n)` to `(...)`; between 0 and log 2."""
    check_tensors(p=p, q=q)
    centre = 0.5 * (p + q)
    terms = torch.xlogy(p, p / centre) + torch.xlogy(q, q / centre)
    return 0.5 * torch.where(centre == 0, 0.0, terms).sum(-1)  # 0 / 0 where neither has anything


def slope_penalty(discriminator: nn.Module, x: Tensor) -> Tensor:
    """Mean squared gradient of the logit at x, `(k, n, ...)` to `(k,)`.

    At data it is R1 (Mescheder et al. 2018), which stops the rotation of the game.
    """
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return slope.flatten(2).square().sum(-1).mean(-1)


def field_jacobian(field: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """Jacobian `(d, d)` of a game's vector field at a point `(d,)`.

    The field is what each player moves along, (-dL_G/dtheta, -dL_D/dpsi). An equilibrium draws
    nearby points in if all eigenvalues have a negative real part; purely imaginary ones turn
    around it for ever, and with steps of finite size spiral out (Mescheder et al. 2018).
    """
    return torch.func.jacrev(field)(point)


# --- networks --------------------------------------------------------------------------


def leaky(x: Tensor) -> Tensor:
    """Leaky rectifier of slope 0.2."""
    return functional.leaky_relu(x, 0.2)


def normalised_leaky(x: Tensor) -> Tensor:
    """The same after each row was brought to mean 0 and variance 1.

    Rows of one sample, not columns of a batch: with batch statistics a sample would depend on
    its neighbours, and G would be no function of z (Definition 1).
    """
    return leaky(functional.layer_norm(x, x.shape[-1:]))


class Generator(nn.Module):
    """k perceptrons from latents to events: `(k, n, d)` to `(k, n, *event)`.

    Args:
        latent: d.
        hidden: widths of the hidden layers.
        event: shape of what is generated.
        n_models: k.
        generator: draws the weights.
        normalise: bring each hidden row to mean 0 and variance 1, see `normalised_leaky`.
        squash: end in a sigmoid, for events in [0, 1].
    """

    def __init__(
        self, latent, hidden, event, n_models, generator, *, normalise=False, squash=False
    ):
        super().__init__()
        self.event, self.squash = tuple(event), squash
        sizes = (latent, *hidden, math.prod(event))
        self.layers = Networks(sizes, n_models, generator, normalised_leaky if normalise else leaky)

    def forward(self, z: Tensor) -> Tensor:
        x = self.layers(z)
        return (x.sigmoid() if self.squash else x).unflatten(-1, self.event)


class Discriminator(nn.Module):
    """k perceptrons from events to logits: `(k, n, *event)` to `(k, n)`.

    Args:
        event: shape of an event.
        hidden: widths of the hidden layers.
        n_models: k.
        generator: draws the weights.
        spectral: hold the spectral norm of each weight matrix at one.
        pack: judge so many events together, one logit for all of them (Lin et al. 2018): a
            generator without variety then gives itself away. `(k, n, *event)` to `(k, n / pack)`;
            an n that does not divide raises ValueError.
    """

    def __init__(self, event, hidden, n_models, generator, *, spectral=False, pack=1):
        super().__init__()
        self.pack = pack
        sizes = (pack * math.prod(event), *hidden, 1)
        self.layers = Networks(sizes, n_models, generator, leaky)
        if spectral:
            spectral_norm(self.layers.weights, n_models, generator)

    def forward(self, x: Tensor) -> Tensor:
        k, n = x.shape[:2]
        if n % self.pack:
            raise ValueError(f"x: expected n, events a model, in packs of {self.pack}; got n = {n}")
        return self.layers(x.reshape(k, n // self.pack, -1))[..., 0]


class ConvGenerator(nn.Module):
    """k deconvolutional nets in the manner of DCGAN (Radford et al. 2016), for pictures.

    A linear layer makes a small picture of many channels; each transposed convolution doubles
    its side and halves its channels. Outputs lie in [0, 1].

    Args:
        latent: d.
        picture: (channels, side, side); the side is 3 to 7 times a power of two.
        width: channels of the last hidden picture.
        n_models: k.
        generator: draws the weights.
    """

    def __init__(self, latent, picture, width, n_models, generator):
        super().__init__()
        channels, first, n_stages = _stages(picture)
        widths = [width * 2**i for i in reversed(range(n_stages))]
        self.shape = (widths[0], first, first)
        self.stem = Networks((latent, math.prod(self.shape)), n_models, generator)
        pairs = zip(widths, [*widths[1:], channels], strict=True)
        self.stages = nn.ModuleList(
            _Convolution(a, b, n_models, generator, transposed=True) for a, b in pairs
        )

    def forward(self, z: Tensor) -> Tensor:
        x = self.stem(z).unflatten(-1, self.shape)
        for stage in self.stages:
            x = stage(leaky(functional.layer_norm(x, x.shape[2:])))
        return x.sigmoid()


class ConvDiscriminator(nn.Module):
    """k convolutional nets from pictures to logits, the mirror of `ConvGenerator`.

    Args:
        picture, width, n_models, generator: as for `ConvGenerator`.
        spectral: hold the spectral norm of each weight at one.
    """

    def __init__(self, picture, width, n_models, generator, *, spectral=False):
        super().__init__()
        channels, first, n_stages = _stages(picture)
        widths = [width * 2**i for i in range(n_stages)]
        pairs = zip([channels, *widths[:-1]], widths, strict=True)
        self.stages = nn.ModuleList(_Convolution(a, b, n_models, generator) for a, b in pairs)
        self.head = Networks((widths[-1] * first**2, 1), n_models, generator)
        if spectral:
            for stage in self.stages:
                spectral_norm(stage, n_models, generator)
            spectral_norm(self.head.weights, n_models, generator)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = leaky(stage(x))
        return self.head(x.flatten(2))[..., 0]


def _stages(picture) -> tuple[int, int, int]:
    """Channels, side of the smallest picture, and how often it is doubled."""
    channels, side, other = picture
    first, n_stages = side, 0
    while first > 7 and first % 2 == 0:
        first, n_stages = first // 2, n_stages + 1
    if side != other or not 3 <= first <= 7 or n_stages < 1:
        raise ValueError(
            f"picture: expected (channels, side, side), the side 3 to 7 times a power of two; "
            f"got {tuple(picture)}"
        )
    return channels, first, n_stages


class _Convolution(nn.Module):
    """k convolutions 4 by 4 of stride 2, side by side as the groups of one."""

    def __init__(self, a: int, b: int, n_models: int, generator, *, transposed: bool = False):
        super().__init__()
        self.transposed = transposed
        shape = (n_models * a, b, 4, 4) if transposed else (n_models * b, a, 4, 4)
        # A transposed one adds up a quarter of its kernel at each pixel.
        fan_in = a * 16 / (4 if transposed else 1)
        uniform = torch.rand(shape, generator=generator, device=generator.device)
        self.weight = nn.Parameter((2 * uniform - 1) * (3 / fan_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(n_models * b, device=generator.device))

    def forward(self, x: Tensor) -> Tensor:
        k, n = x.shape[:2]
        convolve = functional.conv_transpose2d if self.transposed else functional.conv2d
        x = x.transpose(0, 1).flatten(1, 2)
        x = convolve(x, self.weight, self.bias, stride=2, padding=1, groups=k)
        return x.view(n, k, -1, *x.shape[2:]).transpose(0, 1)


# --- training --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a game is played; what it is played with are the networks.

    Attributes:
        loss: of the generator, one of `LOSSES`.
        batch: size of a batch, of data and of samples alike.
        learning_rate: of Adam, of the generator and of the discriminator.
        momenta: Adam's two.
        penalty: weight of half the `slope_penalty` at the data (R1); 0 for none.
        penalty_every: take it at every so many steps, and as many times as heavy.
        n_critic: steps of the discriminator for one of the generator.
        average: decay of the moving average of the generator's weights; 0 for none. At step t it
            is no more than (1 + t) / (10 + t), or the average would long be that of the start.
        noise: standard deviation of normal noise on all that the discriminator sees, data and
            samples (Arjovsky & Bottou 2017); both laws then have densities that overlap.
        anneal_over: over so many steps let the noise fall to zero in a straight line and the
            learning rates along a cosine; 0 keeps both.
        half: matrix products in bfloat16.

    Raises:
        ValueError: a field out of range.
    """

    loss: str = "non-saturating"
    batch: int = 128
    learning_rate: tuple[float, float] = (2e-4, 2e-4)
    momenta: tuple[float, float] = (0.5, 0.999)
    penalty: float = 0.0
    penalty_every: int = 1
    n_critic: int = 1
    average: float = 0.0
    noise: float = 0.0
    anneal_over: int = 0
    half: bool = False

    def __post_init__(self):
        generator_loss(torch.zeros(1), self.loss)
        check_whole(self, 1, "batch", "penalty_every", "n_critic")
        check_whole(self, 0, "anneal_over")
        check_not_negative(self, "penalty", "noise")
        check_field(self, "average", "a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
        check_field(
            self, "learning_rate", "two numbers > 0", lambda v: is_numbers(v, 2) and min(v) > 0
        )
        check_field(
            self, "momenta", "two numbers in [0, 1)",
            lambda v: is_numbers(v, 2) and min(v) >= 0 and max(v) < 1,
        )  # fmt: skip


class Step(NamedTuple):
    """One step of a game, of each of its k models.

    Attributes:
        step: how many were made, with this one.
        value: `(k,)`, V of (6) on the last batch of the discriminator; -log 4 where it cannot
            tell data from samples.
        generator_loss: `(k,)`.
        penalty: `(k,)`, the mean squared slope at the data; None at a step without one.
    """

    step: int
    value: Tensor
    generator_loss: Tensor
    penalty: Tensor | None


class Game:
    """k generators and discriminators, with all that their training remembers: a `Trainee`.

        training.bring(game, n_steps, data=data)

    A step of the discriminator ascends V of (6), equation (7); then one of the generator
    descends its loss, equation (8) or the non-saturating one, on the samples that the
    discriminator has just seen. Each model meets the data in an order of its own. A frozen layer
    stays as it is; dropout is led by seed and step. Networks keep the mode that they are in.

    Args:
        generator: `(k, n, d)` to `(k, n, *event)`.
        discriminator: `(k, n, *event)` to logits `(k, n)`, of the generator's dtype.
        latent: (k, d); z is N(0, I_d).
        recipe: how it is played.
        seed: of the batches and the latents.

    Attributes:
        average: the generator with averaged weights, see `training.take_into_average`; the
            generator itself without an average.
        step, saved: see `training.Trainee`.

    Raises:
        ValueError: a seed that is no integer, or networks of two dtypes.
    """

    kind = "game"

    def __init__(self, generator, discriminator, latent, recipe: Recipe, seed: int):
        check_seed(seed)
        self.generator, self.discriminator = generator, discriminator
        self.latent, self.recipe, self.seed = tuple(latent), recipe, seed
        self.step = 0
        self.saved: str | None = None
        self.average = generator
        if recipe.average:
            self.average = copy.deepcopy(generator).requires_grad_(False)
        like = next(generator.parameters())
        self.device, self.dtype = like.device, like.dtype
        if (other := next(discriminator.parameters()).dtype) != self.dtype:
            raise ValueError(f"discriminator: expected {self.dtype}, as the generator; got {other}")
        self.adam_g, self.adam_d = (
            torch.optim.Adam(net.parameters(), lr=rate, betas=recipe.momenta, fused=True)
            for net, rate in zip((generator, discriminator), recipe.learning_rate, strict=True)
        )
        self._batches: training.Batches | None = None

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of z for each model, `(k, n, d)`."""
        k, d = self.latent
        return torch.randn(k, n, d, generator=generator, device=self.device, dtype=self.dtype)

    def parts(self) -> dict:
        """Weights, the moments of both optimisers, and the moving average."""
        parts = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "adam_g": self.adam_g,
            "adam_d": self.adam_d,
        }
        return parts | ({"average": self.average} if self.recipe.average else {})

    def identity(self) -> dict:
        """Recipe and seed."""
        return {"seed": self.seed, "recipe": dataclasses.asdict(self.recipe)}

    def advance(self, data: Tensor) -> Step:
        """One step of the game.

        Args:
            data: `(n, *event)`, n >= the batch.

        Raises:
            ValueError: too few data, or data that are not of the generator's shape and dtype.
            Diverged: a loss is NaN or infinite. Nothing was moved by that loss.
        """
        recipe = self.recipe
        if self._batches is None or self._batches.given is not data:
            self._batches = training.Batches(self, data, self.latent[0], recipe.batch)
        left = training.cosine_fall(self.step, recipe.anneal_over)
        for adam, rate in zip((self.adam_g, self.adam_d), recipe.learning_rate, strict=True):
            adam.param_groups[0]["lr"] = rate * left
        draws = training.source(self, f"step-{self.step}")
        with training.seeded(self):
            for critic in range(recipe.n_critic):
                real = self._noised(self._batches[self.step * recipe.n_critic + critic], draws)
                fake, worth, slope = self._judge(real, draws)
            loss = self._make(fake, worth)
        if recipe.average:
            training.take_into_average(self.average, self.generator, recipe.average, self.step)
        self.step += 1
        return Step(self.step, worth, loss, slope)

    def _noised(self, x: Tensor, draws: torch.Generator) -> Tensor:
        """What the discriminator sees of data or samples: noise that falls in a straight line."""
        recipe = self.recipe
        if not recipe.noise:
            return x
        passed = min(1.0, self.step / recipe.anneal_over) if recipe.anneal_over else 0.0
        noise = torch.randn(x.shape, generator=draws, device=x.device, dtype=x.dtype)
        return x + recipe.noise * (1 - passed) * noise

    def _judge(self, real: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """One ascent of the discriminator; the samples it saw, V and the penalty before it."""
        recipe = self.recipe
        with training.half_precision(self.device, recipe.half):
            fake = self._noised(self.generator(self.latents(recipe.batch, draws)), draws)
            if fake.shape != real.shape:
                raise ValueError(
                    f"data: expected events of the generator's shape, {tuple(fake.shape[2:])}; got "
                    f"{tuple(real.shape[2:])}"
                )
            logits = self.discriminator(torch.cat([real, fake.detach()], 1)).to(self.dtype)
        worth = value(*logits.chunk(2, 1))
        loss, slope = -worth, None
        if recipe.penalty > 0 and self.step % recipe.penalty_every == 0:
            slope = slope_penalty(self.discriminator, real)
            loss = loss + 0.5 * recipe.penalty * recipe.penalty_every * slope
        if not loss.isfinite().all():
            raise training.diverged(self, {"value": worth, "penalty": slope})
        _descend(self.adam_d, loss, self.discriminator)
        return fake, worth.detach(), None if slope is None else slope.detach()

    def _make(self, fake: Tensor, worth: Tensor) -> Tensor:
        """One descent of the generator; its loss before it."""
        with training.half_precision(self.device, self.recipe.half):
            logits = self.discriminator(fake).to(self.dtype)
        loss = generator_loss(logits, self.recipe.loss)
        if not loss.isfinite().all():
            raise training.diverged(self, {"value": worth, "generator loss": loss})
        _descend(self.adam_g, loss, self.generator)
        return loss.detach()


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, net: nn.Module) -> None:
    """Models never meet, so the gradient of the summed losses holds each model's own."""
    parameters = list(net.parameters())
    # Only the player's own gradients: those of the other would cost as much again.
    training.descend(optimizer, parameters, training.gradients(loss.sum(), parameters))
