"""An energy that learns from data by a method: `Learner`, trained as its `Recipe` says."""

import copy
import dataclasses
import math
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
        reach: negatives farther than this from the origin count as diverged.
        alone: each of k models is judged alone. One that diverges stays as it is then, weights,
            average and chains, and the others go on as if it had not; see `Learner.died`.

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
    reach: float | None = None
    alone: bool = False

    def __post_init__(self):
        check_whole(self, 1, "batch")
        check_whole(self, 0, "anneal_over")
        check_positive(self, "learning_rate")
        check_not_negative(self, "energy_penalty", "gradient_penalty", "data_noise")
        for name in ("constant_rate", "clip", "limit", "reach"):
            check_field(
                self, name, "a number > 0 or None",
                lambda v: v is None or (is_number(v) and v > 0),
            )  # fmt: skip
        check_field(self, "average", "a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
        check_field(
            self, "momenta", "two numbers in [0, 1)",
            lambda v: is_numbers(v, 2) and min(v) >= 0 and max(v) < 1,
        )  # fmt: skip
        check_field(self, "alone", "True or False", lambda v: type(v) is bool)


class Step(NamedTuple):
    """One step of the training: numbers of the weights before it, `(k,)`, or 0-d for one model.

    Those of a model that has diverged are NaN.

    Attributes:
        step: how many were made, with this one.
        loss: of the method, without penalties. That of chains is a contrast, and no likelihood.
        positive, negative: mean energies of data and negatives; None where there are no negatives.
        gradient: the norm of the loss's gradient, penalties included, before clipping.
        acceptance_rate: of the chains; None without.
        n_gradients: backward passes so far, see `methods.Phase`; gradient penalties not counted.
        n_energies: passes forward alone so far.
    """

    step: int
    loss: Tensor
    positive: Tensor
    negative: Tensor | None
    gradient: Tensor
    acceptance_rate: Tensor | None
    n_gradients: int
    n_energies: int


# Why a model is held to have diverged, by the number that `Learner.causes` has of it.
CAUSES = ("", "not finite", "loss", "chains")


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
        n_gradients, n_energies: see `Step`.
        alive: which models have not diverged, `(k,)`, or 0-d for a single one.
        died: the step at which each diverged, counted from one; 0 of those that have not.
        causes: why, a place in `CAUSES`.
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
        self._count = _Count(() if n_models is None else (n_models,), self.device)
        self._batches: training.Batches | None = None

    @property
    def n_gradients(self) -> int:
        """Backward passes so far, by points, for one model."""
        return self._count.made

    @property
    def n_energies(self) -> int:
        """Energies without a gradient so far, by points, for one model."""
        return self._count.energies

    @property
    def alive(self) -> Tensor:
        """Which models have not diverged."""
        return self._count.died == 0

    @property
    def died(self) -> Tensor:
        """The step at which each model diverged, or 0."""
        return self._count.died.clone()

    @property
    def causes(self) -> Tensor:
        """Why each model diverged, a place in `CAUSES`."""
        return self._count.cause.clone()

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
                the recipe's limit, or chains beyond its reach. The weights were not moved. Where
                models are judged alone: all have diverged.
        """
        recipe = self.recipe
        if self._batches is None or self._batches.given is not data:
            self._batches = training.Batches(self, data, self.n_models or 1, recipe.batch)
        batch = self._batches[self.step]
        batch = batch[0] if self.n_models is None else batch
        if not self.alive.any():
            raise self._diverged("all models have diverged")
        before = [x.detach().clone() for x in self._tensors()] if recipe.alone else []
        phase, total = self._made(batch, before)
        self._check(phase, total)
        parameters = [*self.energy.parameters(), *self.memory.parameters()]
        gradients = training.gradients(total.sum(), parameters)
        norm = self._norms(gradients)
        self._lose(~norm.isfinite(), 1, "the gradient is not finite", phase)
        dead = ~self.alive
        if dead.any():
            gradients = [g if g is None else _emptied(g, dead) for g in gradients]
            norm = norm.masked_fill(dead, 0.0)
        if recipe.clip is not None:
            share = (recipe.clip / norm.clamp(min=recipe.clip)).flatten()
            gradients = [g if g is None else _scaled(g, share) for g in gradients]
        fall = training.cosine_fall(self.step, recipe.anneal_over)
        for group, rate in zip(self.adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * fall
        training.descend(self.adam, parameters, gradients)
        if recipe.average:
            training.take_into_average(self.average, self.energy, recipe.average, self.step)
        if dead.any():
            self._hold(before, dead)
        self.step += 1
        self._count.made += phase.n_gradients
        self._count.energies += phase.n_energies

        def told(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.detach().masked_fill(dead, math.nan)

        return Step(
            self.step,
            told(phase.loss),
            told(phase.of_data.mean(-1)),
            None if phase.of_negatives is None else told(phase.of_negatives.mean(-1)),
            told(norm),
            told(phase.acceptance_rate),
            self.n_gradients,
            self.n_energies,
        )

    def _made(self, batch: Tensor, before: list[Tensor]) -> tuple[Phase, Tensor]:
        """The phase of this step, and its loss with the penalties.

        Made anew without the models that it failed by, where these are judged alone: with the
        same draws, so that the others do not notice.
        """
        given = batch
        while True:
            draws = training.source(self, f"step-{self.step}")
            if self.recipe.data_noise:
                batch = given + self.recipe.data_noise * torch.randn(
                    given.shape, generator=draws, dtype=given.dtype, device=given.device
                )
            energy = self.energy if self.alive.all() else _Living(self.energy, ~self.alive)
            try:
                with training.seeded(self):
                    phase = self.method.phase(energy, batch, self.memory, draws)
                    return phase, phase.loss + self._penalties(energy, phase, batch)
            except losses.NotFinite as error:
                lost = None if error.bad is None else _by_model(error.bad, self.alive)
                # Of one that is left out already, to try again would be of no use.
                if not self.recipe.alone or lost is None or not (lost & self.alive).any():
                    raise self._diverged(str(error)) from error
                for x, was in zip(self._tensors(), before, strict=True):
                    x.data.copy_(was)
                self._lose(lost, 1, str(error))

    def _tensors(self) -> list[Tensor]:
        """All that a step moves but for the optimiser's moments."""
        modules = [self.energy, self.memory]
        modules += [self.average] if self.average is not self.energy else []
        return [x for module in modules for x in (*module.parameters(), *module.buffers())]

    @torch.no_grad()
    def _hold(self, before: list[Tensor], dead: Tensor) -> None:
        """Give models that have diverged what they had before the step."""
        for x, was in zip(self._tensors(), before, strict=True):
            if x.dim() and len(x) % len(dead) == 0:
                rows = x.data.reshape(len(dead), -1)
                kept = torch.where(dead[:, None], was.reshape(len(dead), -1), rows)
                x.data.copy_(kept.view_as(x))

    def _penalties(self, energy, phase: Phase, batch: Tensor):
        recipe, total = self.recipe, 0.0
        if recipe.energy_penalty:
            squares = losses.energy_penalty(phase.of_data, phase.of_negatives)
            total = total + recipe.energy_penalty * squares
        if recipe.gradient_penalty:
            points = batch
            if phase.negatives is not None:
                points = torch.cat([batch, phase.negatives], phase.of_data.dim() - 1)
            slopes = losses.gradient_penalty(energy, points)
            total = total + recipe.gradient_penalty * slopes
        return total

    def _check(self, phase: Phase, total: Tensor) -> None:
        """Find the models whose loss is no number or beyond the limit, or whose chains are lost."""
        limit, reach = self.recipe.limit, self.recipe.reach
        self._lose(~total.isfinite(), 1, "the loss is not finite", phase)
        if limit is not None:
            why = f"the loss is beyond the limit {limit:g}"
            self._lose(phase.loss.abs() > limit, 2, why, phase)
        if reach is not None and phase.negatives is not None:
            far = phase.negatives.flatten(phase.of_data.dim()).norm(dim=-1) > reach
            why = f"negatives are beyond the reach {reach:g}"
            self._lose(_by_model(far, self.alive), 3, why, phase)

    def _lose(self, lost: Tensor, cause: int, why: str, phase: Phase | None = None) -> None:
        """Note which models have diverged now.

        Raises:
            training.Diverged: one has, and they are not judged alone; or none is left.
        """
        lost = lost & self.alive
        if not lost.any():
            return
        if not self.recipe.alone:
            raise self._diverged(why, phase)
        count = self._count
        count.died.copy_(torch.where(lost, self.step + 1, count.died))
        count.cause.copy_(torch.where(lost, cause, count.cause))
        if not self.alive.any():
            raise self._diverged(f"all models have diverged, the last as {why}", phase)

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
    """What was spent, and which models have diverged; a part of a checkpoint.

    What was spent are plain numbers: they have no device to be waited for.
    """

    def __init__(self, models: tuple[int, ...], device: torch.device):
        self.made = self.energies = 0
        self.died = torch.zeros(models, dtype=torch.int64, device=device)
        self.cause = torch.zeros(models, dtype=torch.int64, device=device)

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in ("made", "energies", "died", "cause")}

    def load_state_dict(self, state: dict) -> None:
        self.made, self.energies = int(state["made"]), int(state["energies"])
        self.died = state["died"].to(self.died.device, copy=True)
        self.cause = state["cause"].to(self.cause.device, copy=True)


class _Living(nn.Module):
    """k energies of which some are left out: they count as flat, at whatever points.

    They are asked at the origin and not believed, so that no NaN of theirs enters a slope by x.
    """

    def __init__(self, energy: nn.Module, dead: Tensor):
        super().__init__()
        self.energy, self.dead = energy, dead

    def forward(self, x: Tensor, *more) -> Tensor:
        own = x.dim() > 2 and len(x) == len(self.dead)  # else points are shared by all models
        at = torch.where(self.dead.view(-1, *(1,) * (x.dim() - 1)), 0.0, x) if own else x
        values = self.energy(at, *more)
        flat = (0 * x).flatten(2).sum(-1) if own else torch.zeros_like(values)
        return torch.where(self.dead[:, None], flat, values)


def _by_model(bad: Tensor, alive: Tensor) -> Tensor:
    """Of which models some points are bad, `(k,)` or 0-d."""
    return bad.reshape(*alive.shape, -1).any(-1)


def _emptied(gradient: Tensor, dead: Tensor) -> Tensor:
    """The gradients of k models, zero for those that are dead."""
    rows = gradient.reshape(dead.numel(), -1)
    return rows.masked_fill(dead.view(-1, 1), 0.0).view_as(gradient)


def _scaled(gradient: Tensor, share: Tensor) -> Tensor:
    """The gradients of k models, each times its own number `(k,)`."""
    return (gradient.reshape(len(share), -1) * share[:, None]).view_as(gradient)
