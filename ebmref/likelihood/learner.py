"""An energy that learns from data by a method: `Learner`, trained as its `Recipe` says."""

import copy
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmref import training
from ebmref.checks import (
    check_field,
    check_not_negative,
    check_positive,
    check_seed,
    check_whole,
    is_number,
    is_numbers,
)
from ebmref.likelihood import losses
from ebmref.likelihood.methods import Method, Phase
from ebmref.networks import Networks
from ebmref.spectral import spectral_norm


class Perceptrons(nn.Module):
    """Energies by perceptrons: `(k, n, d)`, or `(n, d)` shared by all, to `(k, n)`.

    Smooth by default: a slope is all that Langevin chains and score matching see, and that of a
    rectifier has jumps. The last layer is linear, so that the integral of e^{-E} need not exist.
    `confine` adds |x|^2 / (2 confine^2) to the energy; networks of the default activation grow no
    faster than |x|, and so the integral exists.

    Args:
        d: dimension of an event.
        hidden: widths of the hidden layers.
        n_models: k; None for a single one, `(n, d)` to `(n,)`.
        generator: draws the weights; its device is theirs.
        activation: between the layers.
        spectral: hold the spectral norm of each weight matrix at one.
        confine: > 0, or None.
        unit: > 0, the length that counts as one for the networks, which are given x / unit. A
            smooth network is late to learn what is much narrower than that: take it not far above
            the width of the narrowest modes.

    Raises:
        ValueError: a unit or a confine that is not > 0.
    """

    def __init__(
        self,
        d: int,
        hidden: tuple[int, ...],
        n_models: int | None,
        generator: torch.Generator,
        activation: Callable[[Tensor], Tensor] = nn.functional.silu,
        *,
        spectral: bool = False,
        confine: float | None = None,
        unit: float = 1.0,
    ):
        super().__init__()
        self.n_models, self.confine, self.unit = n_models, confine, unit
        check_positive(self, "unit", *(("confine",) if confine is not None else ()))
        self.layers = Networks((d, *hidden, 1), n_models or 1, generator, activation)
        if spectral:
            spectral_norm(self.layers.weights, n_models or 1, generator)

    def forward(self, x: Tensor) -> Tensor:
        energy = self.layers(x / self.unit)[..., 0]
        energy = energy[0] if self.n_models is None else energy
        return (
            energy if self.confine is None else energy + 0.5 * (x / self.confine).square().sum(-1)
        )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an energy is trained, whatever the method; 0 or None leaves a remedy out.

    Attributes:
        batch: of data.
        learning_rate: of Adam.
        constant_rate: learning rate of what a method learns beside the energy, such as the
            constant of `noise_contrastive`; None for the same.
        momenta: Adam's two.
        energy_penalty: alpha of alpha (E(data)^2 + E(negatives)^2), see `losses.energy_penalty`.
        gradient_penalty: weight of the mean of |grad E|^2 at data and negatives.
        data_noise: standard deviation of what is added to the data: the law that is learned is
            blurred by as much.
        clip: the largest norm of a gradient over all weights of a model.
        average: decay of the moving average of the weights, see `training.take_into_average`.
        anneal_over: over so many steps let the rates fall to zero along a cosine; 0 keeps them.
        limit: a loss beyond it, above or below, counts as diverged, as one that is NaN does.

    Raises:
        ValueError: a field out of range.
    """

    batch: int = 128
    learning_rate: float = 1e-3
    constant_rate: float | None = None
    momenta: tuple[float, float] = (0.9, 0.999)
    energy_penalty: float = 0.0
    gradient_penalty: float = 0.0
    data_noise: float = 0.0
    clip: float | None = None
    average: float = 0.0
    anneal_over: int = 0
    limit: float | None = None

    def __post_init__(self):
        check_whole(self, 1, "batch")
        check_whole(self, 0, "anneal_over")
        check_positive(self, "learning_rate")
        check_not_negative(self, "energy_penalty", "gradient_penalty", "data_noise")
        for name in ("constant_rate", "clip", "limit"):
            check_field(
                self, name, "a number > 0 or None",
                lambda v: v is None or (is_number(v) and v > 0),
            )  # fmt: skip
        check_field(self, "average", "a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
        check_field(
            self, "momenta", "two numbers in [0, 1)",
            lambda v: is_numbers(v, 2) and min(v) >= 0 and max(v) < 1,
        )  # fmt: skip


class Step(NamedTuple):
    """One step of the training: numbers of the weights before it, `(k,)`, or 0-d for one model.

    Attributes:
        step: how many were made, with this one.
        loss: of the method, without penalties. That of chains is a contrast, and no likelihood.
        positive, negative: mean energies of data and negatives; None where there are no negatives.
        gradient: the norm of the loss's gradient, penalties included, before clipping.
        acceptance_rate: of the chains; None without.
        n_gradients: backward passes so far, see `methods.Phase`; gradient penalties not counted.
    """

    step: int
    loss: Tensor
    positive: Tensor
    negative: Tensor | None
    gradient: Tensor
    acceptance_rate: Tensor | None
    n_gradients: int


class Learner:
    """An energy, or k side by side, that a method trains on data: a `training.Trainee`.

        learner = Learner(energy, persistent_cd(kernel, 20, noise), Recipe(), seed=0)
        training.bring(learner, n_steps, data=data)

    Chains run on the energy in eval mode; the loss takes the energy in the mode that it is in.
    What dropout draws depends on seed and step alone. The k models share the settings of method
    and recipe and nothing else: each has batches, chains and noise of its own.

    Args:
        energy: `(n, *event)` to `(n,)`, or with `n_models` `(k, n, *event)` to `(k, n)`.
        method: from `ebmref.likelihood.methods`.
        recipe: how it is trained.
        seed: of batches, chains and noise.
        n_models: k; None for a single one.

    Attributes:
        memory: what the method keeps or learns: the buffer's chains `memory.x` of `persistent_cd`,
            the constant `memory.value` of `noise_contrastive`.
        average: the energy with averaged weights; the energy itself without an average.
        n_gradients: see `Step`.
        step, saved: see `training.Trainee`.

    Raises:
        ValueError: a seed that is no integer, an energy without parameters, or what the method
            refuses, such as an empty buffer.
    """

    kind = "energy"

    def __init__(
        self, energy: nn.Module, method: Method, recipe: Recipe, seed: int,
        n_models: int | None = None,
    ):  # fmt: skip
        check_seed(seed)
        if not isinstance(energy, nn.Module) or not any(True for _ in energy.parameters()):
            raise ValueError("energy: expected an nn.Module with parameters")
        if n_models is not None and (type(n_models) is not int or n_models < 1):
            raise ValueError(f"n_models: expected a whole number >= 1, or None; got {n_models!r}")
        self.energy, self.method, self.recipe, self.seed = energy, method, recipe, seed
        self.n_models = n_models
        self.step, self.saved = 0, None
        like = next(energy.parameters())
        self.device, self.dtype = like.device, like.dtype
        self.memory = method.memory(n_models, like.detach(), training.source(self, "memory"))
        groups = [{"params": list(energy.parameters()), "lr": recipe.learning_rate}]
        if learned := list(self.memory.parameters()):
            groups.append({"params": learned, "lr": recipe.constant_rate or recipe.learning_rate})
        self._rates = [group["lr"] for group in groups]
        self.adam = torch.optim.Adam(groups, betas=recipe.momenta)
        self.average = energy
        if recipe.average:
            self.average = copy.deepcopy(energy).requires_grad_(False)
        self._count = _Count()
        self._batches: training.Batches | None = None

    @property
    def n_gradients(self) -> int:
        """Backward passes so far, by points, for one model."""
        return self._count.made

    def model(self, averaged: bool = False) -> nn.Module:
        """The energy as it is now, or its average: a copy, in eval mode, without gradients."""
        made = copy.deepcopy(self.average if averaged else self.energy)
        return made.eval().requires_grad_(False)

    def parts(self) -> dict:
        """Weights, what the method keeps, the optimiser's moments, the average, the count."""
        parts = {
            "energy": self.energy, "memory": self.memory, "adam": self.adam, "count": self._count
        }  # fmt: skip
        return parts | ({"average": self.average} if self.recipe.average else {})

    def identity(self) -> dict:
        """Method, recipe and seed."""
        return {
            "seed": self.seed,
            "method": {"name": self.method.name} | self.method.identity(self.energy),
            "recipe": dataclasses.asdict(self.recipe),
        }

    def advance(self, data: Tensor) -> Step:
        """One step.

        Args:
            data: `(n, *event)`, n >= the batch; of all models, which draw batches of their own.

        Raises:
            ValueError: data, noise or energies that do not fit.
            training.Diverged: a loss, an energy or a gradient is not finite, or a loss is beyond
                the recipe's limit. The weights were not moved.
        """
        recipe = self.recipe
        if self._batches is None or self._batches.given is not data:
            self._batches = training.Batches(self, data, self.n_models or 1, recipe.batch)
        batch = self._batches[self.step]
        batch = batch[0] if self.n_models is None else batch
        draws = training.source(self, f"step-{self.step}")
        if recipe.data_noise:
            batch = batch + recipe.data_noise * torch.randn(
                batch.shape, generator=draws, dtype=batch.dtype, device=batch.device
            )
        with training.seeded(self):
            try:
                phase = self.method.phase(self.energy, batch, self.memory, draws)
                total = phase.loss + self._penalties(phase, batch)
            except losses.NotFinite as error:
                raise self._diverged(str(error)) from error
        self._check(phase, total)
        parameters = [*self.energy.parameters(), *self.memory.parameters()]
        gradients = training.gradients(total.sum(), parameters)
        norm = self._norms(gradients)
        if not norm.isfinite().all():
            raise self._diverged("the gradient is not finite", phase)
        if recipe.clip is not None:
            share = (recipe.clip / norm.clamp(min=recipe.clip)).flatten()
            gradients = [g if g is None else _scaled(g, share) for g in gradients]
        fall = training.cosine_fall(self.step, recipe.anneal_over)
        for group, rate in zip(self.adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * fall
        training.descend(self.adam, parameters, gradients)
        if recipe.average:
            training.take_into_average(self.average, self.energy, recipe.average, self.step)
        self.step += 1
        self._count.made += phase.n_gradients
        return Step(
            self.step,
            phase.loss.detach(),
            phase.of_data.detach().mean(-1),
            None if phase.of_negatives is None else phase.of_negatives.detach().mean(-1),
            norm,
            phase.acceptance_rate,
            self.n_gradients,
        )

    def _penalties(self, phase: Phase, batch: Tensor):
        recipe, total = self.recipe, 0.0
        if recipe.energy_penalty:
            squares = losses.energy_penalty(phase.of_data, phase.of_negatives)
            total = total + recipe.energy_penalty * squares
        if recipe.gradient_penalty:
            points = batch
            if phase.negatives is not None:
                points = torch.cat([batch, phase.negatives], phase.of_data.dim() - 1)
            slopes = losses.gradient_penalty(self.energy, points)
            total = total + recipe.gradient_penalty * slopes
        return total

    def _check(self, phase: Phase, total: Tensor) -> None:
        """Raise Diverged where a loss is no number, or beyond the limit."""
        limit = self.recipe.limit
        if not total.isfinite().all():
            raise self._diverged("the loss is not finite", phase)
        if limit is not None and (phase.loss.abs() > limit).any():
            raise self._diverged(f"the loss is beyond the limit {limit:g}", phase)

    def _diverged(self, why: str, phase: Phase | None = None) -> training.Diverged:
        told = {} if phase is None else {
            "loss": phase.loss,
            "positive": phase.of_data.mean(-1),
            "negative": None if phase.of_negatives is None else phase.of_negatives.mean(-1),
        }  # fmt: skip
        error = training.diverged(self, told)
        return type(error)(f"{self.method.name}: {why}; {error}")

    def _norms(self, gradients: list[Tensor | None]) -> Tensor:
        """Of each model over all its weights, `(k,)`, or 0-d for a single one."""
        k = self.n_models or 1
        squares = 0.0
        for gradient in gradients:
            if gradient is not None:
                if self.n_models and (not gradient.dim() or len(gradient) % k):
                    raise ValueError(
                        f"energy: expected weights of {k} models, one after another; got "
                        f"{tuple(gradient.shape)}"
                    )
                squares = squares + gradient.reshape(k, -1).square().sum(1)
        return squares.sqrt() if self.n_models else squares.sqrt()[0]


class _Count:
    """A plain number as part of a checkpoint: it has no device to be waited for."""

    made = 0

    def state_dict(self) -> dict:
        return {"made": self.made}

    def load_state_dict(self, state: dict) -> None:
        self.made = int(state["made"])


def _scaled(gradient: Tensor, share: Tensor) -> Tensor:
    """The gradients of k models, each times its own number `(k,)`."""
    return (gradient.reshape(len(share), -1) * share[:, None]).view_as(gradient)
