"""Training of bases and energies: `Game`, played as its `Recipe` says.

The energy ascends F of equation (14), or L, and c with it; the base descends what is left of L.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmref import ddls, training
from ebmref.checks import (
    check_field,
    check_not_negative,
    check_seed,
    check_whole,
    is_number,
    is_numbers,
)
from ebmref.gebm.objective import (
    base_loss,
    bound,
    likelihood,
    log_mean_weight,
    model,
    slope_penalty,
)

CRITERIA = ("KALE", "DV")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How base and energy are trained; what is trained are the networks.

    Attributes:
        criterion: of the energy: "KALE" ascends F in E and c together; "DV" ascends the
            `likelihood` of each batch in E, and F in c alone. L does not care for the level of
            E, which may drift: c follows log Z only as fast as its rate lets it.
        batch: of data.
        samples: of the base, for each datum of a batch.
        learning_rate: of Adam: of the base, of the energy and of c.
        momenta: Adam's two.
        penalty: weight of `slope_penalty` (once, not half of it); 0 for none. It makes the class
            of energies smaller: KALE falls below KL, and so does what the energy can mend.
        penalty_every: take it at every so many steps of the energy, and as many times as heavy.
        n_energy: steps of the energy for one of the base.
        n_long, long_every: so many instead at the first step and at every so many-th after it;
            long_every 0 for never. The authors have 5, 100 and 500, and 100 at the second step.
        frozen: leave the base as it is; a step then is one step of the energy. To tune an energy
            to a base that is done, or for a base that is known.
        constant: where c starts; None for `log_mean_weight` of the first batch. One far below
            log Z makes e^{-(E + c)} huge, which Adam's second moment remembers long.
        average: decay of the moving average of the base's weights; 0 for none. See `gan.Recipe`.
        anneal_over: over so many steps let the rates fall to zero along a cosine; 0 keeps them.
        half: matrix products in bfloat16; energies are summed in single precision.

    Raises:
        ValueError: a field out of range.
    """

    criterion: str = "KALE"
    batch: int = 128
    samples: int = 1
    learning_rate: tuple[float, float, float] = (2e-4, 2e-4, 2e-4)
    momenta: tuple[float, float] = (0.5, 0.999)
    penalty: float = 0.0
    penalty_every: int = 1
    n_energy: int = 5
    n_long: int = 100
    long_every: int = 500
    frozen: bool = False
    constant: float | None = None
    average: float = 0.0
    anneal_over: int = 0
    half: bool = False

    def __post_init__(self):
        check_field(self, "criterion", f"one of {', '.join(CRITERIA)}", lambda v: v in CRITERIA)
        check_whole(self, 1, "batch", "samples", "penalty_every", "n_energy", "n_long")
        check_whole(self, 0, "long_every", "anneal_over")
        for name in ("frozen", "half"):
            check_field(self, name, "True or False", lambda v: type(v) is bool)
        check_not_negative(self, "penalty")
        check_field(self, "constant", "a number or None", lambda v: v is None or is_number(v))
        check_field(self, "average", "a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
        check_field(
            self, "learning_rate", "three numbers > 0", lambda v: is_numbers(v, 3) and min(v) > 0
        )
        check_field(
            self, "momenta", "two numbers in [0, 1)",
            lambda v: is_numbers(v, 2) and min(v) >= 0 and max(v) < 1,
        )  # fmt: skip

    def energy_steps(self, step: int) -> int:
        """How many steps the energy makes in step number `step`, from 0."""
        if self.frozen:
            return 1
        return self.n_long if self.long_every and step % self.long_every == 0 else self.n_energy

    def energy_steps_before(self, step: int) -> int:
        """How many it has made before that."""
        if self.frozen:
            return step
        n_long = -(-step // self.long_every) if self.long_every else 0
        return n_long * self.n_long + (step - n_long) * self.n_energy


class Step(NamedTuple):
    """One step of the training, of each of its k models; numbers of the last batches.

    Attributes:
        step: how many were made, with this one.
        bound: `(k,)`, F.
        likelihood: `(k,)`, L on the same batch; never below F.
        constant: `(k,)`, c after the step.
        base_loss: `(k,)`; None where the base is frozen.
        penalty: `(k,)`, the mean squared slope, the last one taken; None at a step without one.
    """

    step: int
    bound: Tensor
    likelihood: Tensor
    constant: Tensor
    base_loss: Tensor | None
    penalty: Tensor | None


class Game:
    """k bases and energies, with all that their training remembers: a `training.Trainee`.

        training.bring(game, n_steps, data=data)

    In a step the energy and c ascend the criterion, `Recipe.energy_steps` times, each time on
    new data and new samples; then the base descends `base_loss` once, on new samples and with
    the energy held as a function of x. A frozen layer stays as it is; dropout is led by seed and
    step. Networks stay in the mode, training or eval, that they are in: a base that a recipe
    freezes belongs in eval mode if it has statistics of batches or spectral norms, which move
    with each pass in training.

    Args:
        base: `(k, n, d)` to `(k, n, *event)`. Any function where the recipe freezes it.
        energy: `(k, n, *event)` to `(k, n)`; with spectral norm or not as it was made.
        latent: (k, d); z is N(0, I_d).
        recipe: how they are trained.
        seed: of the batches and the latents.

    Attributes:
        constant: c, `(k,)`.
        average: the base with averaged weights; the base itself without an average.
        step, saved: see `training.Trainee`.

    Raises:
        ValueError: a seed that is no integer, a `latent` that is not two whole numbers >= 1, or
            a base that is to learn and has nothing to.
    """

    kind = "game"

    def __init__(
        self,
        base: Callable[[Tensor], Tensor],
        energy: nn.Module,
        latent: tuple[int, int],
        recipe: Recipe,
        seed: int,
    ):
        check_seed(seed)
        self.latent = tuple(latent)
        if [type(n) for n in self.latent] != [int, int] or min(self.latent) < 1:
            raise ValueError(f"latent: expected two whole numbers >= 1, (k, d); got {latent!r}")
        learns = isinstance(base, nn.Module) and any(p.requires_grad for p in base.parameters())
        if not learns and not recipe.frozen:
            raise ValueError("base: expected an nn.Module with parameters, or a frozen recipe")
        self.base, self.energy = base, energy
        self.recipe, self.seed = recipe, seed
        self.step = 0
        self.saved: str | None = None
        like = next(energy.parameters())
        self.device, self.dtype = like.device, like.dtype
        of = {"device": like.device, "dtype": like.dtype}
        self.constant = nn.Parameter(torch.full(self.latent[:1], recipe.constant or 0.0, **of))
        rates = recipe.learning_rate
        adam = {"betas": recipe.momenta, "fused": True}
        groups = [
            {"params": list(energy.parameters()), "lr": rates[1]},
            {"params": [self.constant], "lr": rates[2]},
        ]
        self.adam_energy = torch.optim.Adam(groups, **adam)
        self.adam_base = None
        self.average = base
        if not recipe.frozen:
            self.adam_base = torch.optim.Adam(base.parameters(), lr=rates[0], **adam)
            if recipe.average:
                self.average = copy.deepcopy(base).requires_grad_(False)
        self._batches: training.Batches | None = None

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of z for each model, `(k, n, d)`."""
        k, d = self.latent
        return torch.randn(k, n, d, generator=generator, device=self.device, dtype=self.dtype)

    def model(self, averaged: bool = False) -> ddls.Model:
        """Base and energy as they are now, to draw from: copies, in eval mode.

        Args:
            averaged: with the average of the base, to which the energy was not trained; tune it
                with a frozen recipe first.
        """
        base, energy = copy.deepcopy((self.average if averaged else self.base, self.energy))
        for net in (base, energy):
            if isinstance(net, nn.Module):
                net.eval().requires_grad_(False)
        k, d = self.latent
        return model(base, energy, ddls.Normal(d, self.dtype), k)

    def parts(self) -> dict:
        """Weights, c, the moments of the optimisers, and the moving average."""
        parts = {
            "energy": self.energy,
            "constant": nn.ParameterList([self.constant]),
            "adam_energy": self.adam_energy,
        }
        if isinstance(self.base, nn.Module):
            parts["base"] = self.base
        if self.adam_base is not None:
            parts["adam_base"] = self.adam_base
            if self.recipe.average:
                parts["average"] = self.average
        return parts

    def identity(self) -> dict:
        """Recipe and seed."""
        return {"seed": self.seed, "recipe": dataclasses.asdict(self.recipe)}

    def advance(self, data: Tensor) -> Step:
        """One step of the base, and those of the energy before it.

        Args:
            data: `(n, *event)`, n >= the batch.

        Raises:
            ValueError: too few data; data or energies of another shape.
            Diverged: a loss is NaN or infinite. Nothing was moved by that loss.
        """
        recipe = self.recipe
        if self._batches is None or self._batches.given is not data:
            self._batches = training.Batches(self, data, self.latent[0], recipe.batch)
        _set_rates(self)
        draws = training.source(self, f"step-{self.step}")
        first = recipe.energy_steps_before(self.step)
        slope = None
        with training.seeded(self):
            for made in range(first, first + recipe.energy_steps(self.step)):
                worth, height, taken = _energy_step(self, self._batches[made], draws, made)
                slope = slope if taken is None else taken
            loss = None if recipe.frozen else _base_step(self, draws)
        self.step += 1
        return Step(self.step, worth, height, self.constant.detach().clone(), loss, slope)


def _energy_step(game: Game, real: Tensor, source: torch.Generator, made: int):
    """One ascent in E and c; F, L and the penalty, or None, before it."""
    recipe, n = game.recipe, real.shape[1]
    with training.half_precision(game.device, recipe.half):
        with torch.no_grad():
            fake = game.base(game.latents(n * recipe.samples, source))
        if fake.shape[2:] != real.shape[2:]:
            raise ValueError(
                f"data: expected events of the base's shape, {tuple(fake.shape[2:])}; got "
                f"{tuple(real.shape[2:])}"
            )
        fake = fake.to(real.dtype)
        energies = _energies(game, torch.cat([real, fake], 1))
    of_real, of_fake = energies[:, :n], energies[:, n:]
    if made == 0 and recipe.constant is None:
        with torch.no_grad():
            game.constant.copy_(log_mean_weight(of_fake))
    worth, height = bound(of_real, of_fake, game.constant), likelihood(of_real, of_fake)
    if recipe.criterion == "KALE":
        loss = -worth
    else:
        loss = -height - bound(of_real.detach(), of_fake.detach(), game.constant)
    slope = None
    if recipe.penalty and made % recipe.penalty_every == 0:
        t = torch.rand(real.shape[:2], generator=source, device=real.device, dtype=real.dtype)
        slope = slope_penalty(game.energy, real, fake[:, :n], t)
        loss = loss + recipe.penalty * recipe.penalty_every * slope
    if not loss.isfinite().all():
        raise training.diverged(game, {"bound": worth, "likelihood": height, "penalty": slope})
    parameters = [*game.energy.parameters(), game.constant]
    training.descend(game.adam_energy, parameters, training.gradients(loss.sum(), parameters))
    return worth.detach(), height.detach(), None if slope is None else slope.detach()


def _base_step(game: Game, source: torch.Generator) -> Tensor:
    """One descent of the base; its loss before it."""
    recipe = game.recipe
    with training.half_precision(game.device, recipe.half):
        fake = game.base(game.latents(recipe.batch * recipe.samples, source))
        # The energy is held as a function of x, even one that knows the base's density.
        x = fake.detach().to(game.dtype).requires_grad_()
        loss = base_loss(_energies(game, x))
    if not loss.isfinite().all():
        raise training.diverged(game, {"base loss": loss})
    (slope,) = torch.autograd.grad(loss.sum(), x)
    parameters = list(game.base.parameters())
    gradients = training.gradients(fake, parameters, slope.to(fake.dtype))
    training.descend(game.adam_base, parameters, gradients)
    if recipe.average:
        training.take_into_average(game.average, game.base, recipe.average, game.step)
    return loss.detach()


def _energies(game: Game, x: Tensor) -> Tensor:
    energies = game.energy(x)
    if energies.shape != x.shape[:2]:
        raise ValueError(
            f"energy: expected energies of shape {tuple(x.shape[:2])}; got {tuple(energies.shape)}"
        )
    return energies.to(game.dtype)


def _set_rates(game: Game) -> None:
    left = training.cosine_fall(game.step, game.recipe.anneal_over)
    groups = list(game.adam_energy.param_groups)
    rates = list(game.recipe.learning_rate[1:])
    if game.adam_base is not None:
        groups, rates = [*game.adam_base.param_groups, *groups], list(game.recipe.learning_rate)
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate * left
