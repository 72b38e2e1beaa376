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
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import logsigmoid
from torch.nn.utils import parametrize
from tqdm import tqdm

from ebmref.learning import Networks
from ebmref.seeds import derive_seed

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
    centre = 0.5 * (p + q)
    return 0.5 * (torch.xlogy(p, p / centre) + torch.xlogy(q, q / centre)).nan_to_num().sum(-1)


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


def spectral_norm(module: nn.Module, n_models: int, generator: torch.Generator) -> None:
    """Divide each weight of the module by its largest singular value (Miyato et al. 2018).

    Per model, by one power iteration a forward pass in training; biases are left alone.
    """
    for name, weight in list(module.named_parameters(recurse=False)):
        if weight.dim() > 1 and name != "bias":
            norm = _Spectral(weight, n_models, generator)
            parametrize.register_parametrization(module, name, norm)


class _Spectral(nn.Module):
    def __init__(self, weight: Tensor, n_models: int, generator: torch.Generator):
        super().__init__()
        rows = weight.shape[1] if weight.dim() == 3 else weight.shape[0] // n_models
        self.shape = (n_models, rows, -1)
        u = torch.randn(n_models, 1, rows, generator=generator, device=weight.device)
        self.register_buffer("u", functional.normalize(u, dim=-1))
        self.register_buffer(
            "v", functional.normalize(u @ weight.detach().view(self.shape), dim=-1)
        )

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.reshape(self.shape)
            if self.training:
                with torch.no_grad():  # new tensors: an earlier pass may still need the old ones
                    self.v = functional.normalize(self.u @ matrix, dim=-1)
                    self.u = functional.normalize(self.v @ matrix.mT, dim=-1)
            sigma = self.u @ matrix @ self.v.mT
            return (matrix / sigma).view_as(weight)


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
        for name in ("batch", "penalty_every", "n_critic"):
            _check(self, name, "a whole number >= 1", lambda v: type(v) is int and v >= 1)
        _check(self, "anneal_over", "a whole number >= 0", lambda v: type(v) is int and v >= 0)
        for name in ("penalty", "noise"):
            _check(self, name, "a number >= 0", lambda v: _is_number(v) and v >= 0)
        _check(self, "average", "a number in [0, 1)", lambda v: _is_number(v) and 0 <= v < 1)
        _check(self, "learning_rate", "two numbers > 0", lambda v: _is_pair(v) and min(v) > 0)
        _check(
            self, "momenta", "two numbers in [0, 1)",
            lambda v: _is_pair(v) and min(v) >= 0 and max(v) < 1,
        )  # fmt: skip


def _is_number(value) -> bool:
    """A plain one: checkpoints hold no NumPy scalars."""
    return type(value) in (int, float) and math.isfinite(value)


def _is_pair(value) -> bool:
    return type(value) is tuple and len(value) == 2 and all(map(_is_number, value))


def _check(recipe: Recipe, name: str, expected: str, holds: Callable) -> None:
    if not holds(getattr(recipe, name)):
        raise ValueError(f"{name}: expected {expected}; got {getattr(recipe, name)!r}")


class Diverged(RuntimeError):
    """A loss was not finite; the message says where, and which checkpoint was the last good."""


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
    """k generators and discriminators, with all that their training remembers.

    Weights, the moments of both optimisers, the moving average and the number of steps made:
    `save` and `load` keep them. All else that a step needs follows from the seed and its number,
    so a game that is stopped and resumed makes the very steps it would have made.

    Args:
        generator: `(k, n, d)` to `(k, n, *event)`.
        discriminator: `(k, n, *event)` to logits `(k, n)`.
        latent: (k, d); z is N(0, I_d).
        recipe: how it is played.
        seed: of the batches and the latents.

    Attributes:
        average: the generator with averaged weights; the generator itself without an average.
        step: how many steps were made.
        saved: the last checkpoint that was written or read, in words; None before.

    Raises:
        ValueError: a seed that is no integer.
    """

    def __init__(self, generator, discriminator, latent, recipe: Recipe, seed: int):
        if type(seed) is not int:
            raise ValueError(f"seed: expected an integer; got {seed!r}")
        self.generator, self.discriminator = generator, discriminator
        self.latent, self.recipe, self.seed = tuple(latent), recipe, seed
        self.step = 0
        self.saved: str | None = None
        self.average = generator
        if recipe.average:
            self.average = copy.deepcopy(generator).requires_grad_(False)
        self.device = next(generator.parameters()).device
        self._adam_g, self._adam_d = (
            torch.optim.Adam(net.parameters(), lr=rate, betas=recipe.momenta, fused=True)
            for net, rate in zip((generator, discriminator), recipe.learning_rate, strict=True)
        )
        self._parts = {
            "generator": generator,
            "discriminator": discriminator,
            "adam_g": self._adam_g,
            "adam_d": self._adam_d,
        }
        if recipe.average:
            self._parts["average"] = self.average

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of z for each model, `(k, n, d)`."""
        k, d = self.latent
        return torch.randn(k, n, d, generator=generator, device=self.device)

    def _identity(self) -> dict:
        """What makes another game of a checkpoint, its networks apart."""
        return {"seed": self.seed, "recipe": dataclasses.asdict(self.recipe)}

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in self._parts.items()}
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            torch.save(state | self._identity() | {"step": self.step}, temporary)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        self.saved = f"{path}, step {self.step}"

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: no checkpoint, a damaged one, or one of another game; the game is then
                unchanged.
        """
        state = _read(path, self.device)
        if any(state.get(name) != now for name, now in self._identity().items()):
            raise ValueError(f"checkpoint {path}: of another game (recipe or seed differ)")
        if {"step", *self._parts} - state.keys() or any(
            _shapes(state[name]) != _shapes(part.state_dict())
            for name, part in self._parts.items()
            if isinstance(part, nn.Module)
        ):
            raise ValueError(f"checkpoint {path}: of other networks")
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.step = state["step"]
        self.saved = f"{path}, step {self.step}"


def _read(path: Path, device: torch.device) -> dict:
    """A checkpoint as it was written."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # PyTorch reads a damaged tensor without a word
        state = torch.load(path, map_location=device, weights_only=True)
        if damaged is None and isinstance(state, dict):
            return state
        reason = f"{damaged or 'its content'} is damaged"
    except Exception as error:  # what unpickling damaged bytes raises can be anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
    raise ValueError(f"checkpoint {path}: missing or damaged ({reason})")


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def train(
    game: Game,
    data: Tensor,
    n_steps: int,
    *,
    checkpoint: Path | None = None,
    save_every: int = 1000,
) -> Iterator[Step]:
    """Play until `n_steps` steps were made in all; yields each one's numbers.

    A step of the discriminator ascends V of (6), equation (7); then one of the generator
    descends its loss, equation (8) or the non-saturating one, on the samples that the
    discriminator has just seen. Each model meets the data in an order of its own.

    Args:
        game: changed in place; one that made steps already goes on from there.
        data: `(n, *event)`, n >= the batch.
        n_steps: where to stop.
        checkpoint: a file to save to at every `save_every` steps and at the end.

    Raises:
        ValueError: too few data, or data that are not of the generator's shape.
        Diverged: a loss is NaN or infinite. Nothing was moved by that loss.
    """
    recipe = game.recipe
    if data.dim() < 2 or len(data) < recipe.batch:
        raise ValueError(
            f"data: expected (n, *event) with n >= batch = {recipe.batch}; got {tuple(data.shape)}"
        )
    if save_every < 1:
        raise ValueError(f"save_every: expected >= 1; got {save_every}")
    dtype = next(game.generator.parameters()).dtype
    if data.dtype != dtype:
        raise ValueError(f"data: expected {dtype}, as the networks are of; got {data.dtype}")
    batches = _Batches(game, data.to(game.device))
    while game.step < n_steps:
        made = _one_step(game, batches)
        if checkpoint and (game.step % save_every == 0 or game.step == n_steps):
            game.save(checkpoint)
        yield made


def play(
    game: Game,
    data: Tensor,
    n_steps: int,
    *,
    checkpoint: Path | None = None,
    save_every: int = 2000,
    progress: bool = False,
) -> None:
    """Bring a game to `n_steps` steps: by its checkpoint where there is one, else by training.

    A game that was cut off goes on from its last save. At the end the checkpoint stays, so that
    to call this again, with the same game and steps, costs a read.

    Args:
        game: changed in place; it must not be beyond `n_steps`.
        data, n_steps, save_every: as for `train`.
        checkpoint: of this game at `n_steps`; None keeps nothing. Its name should tell apart what a
            checkpoint does not know: the data, and how the networks squash and normalise.
        progress: show a bar.

    Raises:
        ValueError, Diverged: as `train` and `Game.load`; a game, or a checkpoint, beyond n_steps.
    """
    if checkpoint is not None and Path(checkpoint).exists():
        game.load(checkpoint)
    if game.step > n_steps:
        raise ValueError(f"n_steps: the game has made {game.step} already; got {n_steps}")
    steps = train(game, data, n_steps, checkpoint=checkpoint, save_every=save_every)
    bar = {"initial": game.step, "total": n_steps, "unit": "step", "mininterval": 1.0}
    for _ in tqdm(steps, desc="GAN", disable=not progress, **bar):
        pass


class _Batches:
    """The data in batches; an epoch is a permutation of them, of each model its own."""

    def __init__(self, game: Game, data: Tensor):
        self.game, self.data, self.epoch = game, data, -1
        self.n_batches = len(data) // game.recipe.batch

    def __getitem__(self, index: int) -> Tensor:
        epoch, i = divmod(index, self.n_batches)
        if epoch != self.epoch:
            self.epoch = epoch
            k, n = self.game.latent[0], len(self.data)
            source = _source(self.game, f"epoch-{epoch}")
            self.order = torch.rand(k, n, generator=source, device=self.data.device).argsort(1)
        size = self.game.recipe.batch
        return self.data[self.order[:, i * size : (i + 1) * size]]


def _source(game: Game, stream: str) -> torch.Generator:
    return torch.Generator(game.device).manual_seed(derive_seed(game.seed, stream))


def _one_step(game: Game, batches: _Batches) -> Step:
    recipe = game.recipe
    passed = min(1.0, game.step / recipe.anneal_over) if recipe.anneal_over else 0.0
    _set_rates(game, passed)
    source = _source(game, f"step-{game.step}")

    def noised(x: Tensor) -> Tensor:
        if not recipe.noise:
            return x
        noise = torch.randn(x.shape, generator=source, device=x.device)
        return x + recipe.noise * (1 - passed) * noise

    half = torch.autocast(game.device.type, torch.bfloat16, enabled=recipe.half)
    penalised = recipe.penalty > 0 and game.step % recipe.penalty_every == 0
    for critic in range(recipe.n_critic):
        real = noised(batches[game.step * recipe.n_critic + critic])
        with half:
            fake = noised(game.generator(game.latents(recipe.batch, source)))
            if fake.shape != real.shape:
                raise ValueError(
                    f"data: expected events of the generator's shape, {tuple(fake.shape[2:])}; got "
                    f"{tuple(real.shape[2:])}"
                )
            logits = game.discriminator(torch.cat([real, fake.detach()], 1)).float()
        worth = value(*logits.chunk(2, 1))
        loss, slope = -worth, None
        if penalised:
            slope = slope_penalty(game.discriminator, real)
            loss = loss + 0.5 * recipe.penalty * recipe.penalty_every * slope
        if not loss.isfinite().all():
            raise _diverged(game, {"value": worth, "penalty": slope})
        _descend(game._adam_d, loss, game.discriminator)
    with half:
        logits = game.discriminator(fake).float()
    loss = generator_loss(logits, recipe.loss)
    if not loss.isfinite().all():
        raise _diverged(game, {"value": worth, "generator loss": loss})
    _descend(game._adam_g, loss, game.generator)
    if recipe.average:
        # Young weights count for little: the average reaches back a tenth of the run at most.
        decay = min(recipe.average, (1 + game.step) / (10 + game.step))
        averaged, now = game.average.parameters(), game.generator.parameters()
        torch._foreach_lerp_(list(averaged), [p.detach() for p in now], 1 - decay)
    game.step += 1
    return Step(game.step, worth.detach(), loss.detach(), None if slope is None else slope.detach())


def _diverged(game: Game, losses: dict[str, Tensor | None]) -> Diverged:
    told = ", ".join(f"{name} {got.tolist()}" for name, got in losses.items() if got is not None)
    return Diverged(f"step {game.step + 1}: {told}; last good checkpoint: {game.saved or 'none'}")


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, net: nn.Module) -> None:
    """Models never meet, so the gradient of the summed losses holds each model's own."""
    parameters = list(net.parameters())
    # Only the player's own gradients: those of the other would cost as much again.
    for p, g in zip(parameters, torch.autograd.grad(loss.sum(), parameters), strict=True):
        p.grad = g.contiguous()  # the fused optimiser takes its layout for the parameter's
    optimizer.step()


def _set_rates(game: Game, passed: float) -> None:
    left = 0.5 * (1 + math.cos(math.pi * passed))
    pairs = zip((game._adam_g, game._adam_d), game.recipe.learning_rate, strict=True)
    for optimizer, rate in pairs:
        optimizer.param_groups[0]["lr"] = rate * left
