"""Generalized energy-based models (report section 2.3.2.2; Arbel, Zhou & Gretton 2021).

A *base* x = B(z), z ~ eta, says where samples can be; Q is its law. An *energy* E, a function of
x and not of z, says how much of that mass each place keeps. The model is Q reweighted,

    Q_E(dx) = f(x) Q(dx),   f(x) = e^{-E(x)} / Z,   Z = E_Q[e^{-E(x)}]                   (13)

and for data of the law P the energy ascends the generalized log-likelihood L by its bound F,

    L(E) = -E_P[E] - log Z  >=  F(E, c) = -E_P[E + c] - E_Q[e^{-(E + c)}] + 1,            (14)

with equality at c = log Z: F has no logarithm of a mean, so that batches do not bias it, and
its best c is the normaliser. The report prints (14) with E_P[E + c] and e^{-E + c}: for E = 1
and c = 0 that "lower bound" is 2 - 1/e, while L = 0.

The supremum of F over E and c is KALE(P || Q) <= KL(P || Q), reached at E + c = -log dP/dQ;
the base descends it. x ~ Q_E is x = B(z) with z from

    nu(z) = eta(z) f(B(z)),                                                          (15), (16)

which is equation (20) of the GAN as an energy-based model with d = -E: `model` makes an
`ebmref.ddls.Model` of base and energy, and all of that module's methods draw from it.

k models are trained side by side: events and energies are `(k, n, *event)` and `(k, n)`.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ebmref import ddls, gan
from ebmref.energies import value_and_gradient
from ebmref.samplers.importance import check_draws

CRITERIA = ("KALE", "DV")


# --- the objective ---------------------------------------------------------------------


def log_mean_weight(fake: Tensor) -> Tensor:
    """log of the mean of e^{-E}, the plug-in estimate of log Z; `(..., m)` to `(...)`."""
    return (-fake).logsumexp(-1) - math.log(fake.shape[-1])


def bound(real: Tensor, fake: Tensor, c: Tensor) -> Tensor:
    """F of equation (14), corrected: of energies of data and of the base's samples, and c.

    Args:
        real: `(..., n)`.
        fake: `(..., m)`.
        c: `(...)`.

    Returns:
        `(...)`, at most `likelihood` of the same energies.
    """
    return 1 - (real.mean(-1) + c) - (-(fake + c[..., None])).exp().mean(-1)


def likelihood(real: Tensor, fake: Tensor) -> Tensor:
    """L with the mean of e^{-E} for Z, `(..., n)` and `(..., m)` to `(...)`.

    This is the Donsker-Varadhan objective. On m samples it is too large on average, by
    about half the relative variance of e^{-E} over m, and its gradient is off as much.
    """
    return -real.mean(-1) - log_mean_weight(fake)


def base_loss(fake: Tensor) -> Tensor:
    """What the base descends, of energies of its samples: `(..., m)` to `(...)`.

    It is -log mean e^{-E}, what L keeps of the base. With E held, its gradient is

        sum_j w_j grad E(x_j),   w_j = e^{-E(x_j)} / sum_i e^{-E(x_i)},

    so that samples move down the energy, each by its self-normalised weight; at the best E this
    is the gradient of KALE (the envelope theorem). c is not needed; on m samples the gradient is
    off by about 1 / m, as that of `likelihood`.
    """
    return -log_mean_weight(fake)


def slope_penalty(energy: Callable, real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
    """Mean squared slope of E between data and samples, `(k,)`.

    Args:
        energy: `(k, n, *event)` to `(k, n)`.
        real, fake: `(k, n, *event)`.
        t: `(k, n)` in [0, 1]: where on the way from the sample to the datum.
    """
    t = t.view(*t.shape, *(1,) * (real.dim() - 2))
    return gan.slope_penalty(energy, t * real + (1 - t) * fake)


class Floored(nn.Module):
    """An energy that stays above a floor: floor + softplus(E - floor), which is E well above it.

    e^{-E} then is at most e^{-floor}. While base and data do not meet, as at the start of a game,
    KALE is all but infinite, and without a floor, or a strong penalty, e^{-E} soon overflows. (A
    floor does not bound KALE: E may rise instead where the base is, and c follows, but slowly.)
    The authors cut at -10, where the slope becomes zero; here it never does.

    Args:
        energy: `(k, n, *event)` to `(k, n)`.
        floor: a number.
    """

    def __init__(self, energy: nn.Module, floor: float = -10.0):
        super().__init__()
        if not math.isfinite(floor):
            raise ValueError(f"floor: expected a finite number; got {floor!r}")
        self.energy, self.floor = energy, floor

    def forward(self, x: Tensor) -> Tensor:
        return self.floor + functional.softplus(self.energy(x) - self.floor)


# --- the model -------------------------------------------------------------------------


def model(base: Callable, energy: Callable, prior: ddls.Prior, k: int = 1) -> ddls.Model:
    """Base and energy as an `ebmref.ddls.Model`, to draw from equation (16):

        ddls.chains(gebm.model(base, energy, ddls.Normal(2)), 1000, "mala", 200, g, step_size=0.1)

    The energy times beta is sampled where a method takes `beta`; 1 is the model.

    Args:
        base: `(k, n, d)` to `(k, n, *event)`; in eval mode, see `ebmref.ddls.Model`.
        energy: `(k, n, *event)` to `(k, n)`; in eval mode.
        prior: eta.
        k: how many.
    """
    return ddls.Model(base, lambda x: -energy(x), prior, k)


class Score(NamedTuple):
    """How well a model explains data, on samples of its base; `(k,)` each, in nats.

    Attributes:
        bound: F.
        likelihood: L.
        log_z: estimate of log Z; `c - log_z` is the error of a learned c.
        bound_se, likelihood_se, log_z_se: standard errors, those of L and log Z by the delta
            method; too small where `pareto_k` is above 0.7.
        share: effective share of the base's samples, at their weights e^{-E}.
        pareto_k: see `ebmref.samplers.Importance`.
    """

    bound: Tensor
    likelihood: Tensor
    log_z: Tensor
    bound_se: Tensor
    likelihood_se: Tensor
    log_z_se: Tensor
    share: Tensor
    pareto_k: Tensor


@torch.no_grad()
def score(model: ddls.Model, c: Tensor, data: Tensor, n: int, generator: torch.Generator) -> Score:
    """Measure F, L and log Z in double precision.

    Args:
        model: of `model`, or `Game.model`.
        c: `(k,)`.
        data: `(m, *event)`, held out; m >= 2.
        n: samples of the base for each model, >= 2.

    Raises:
        ValueError: too few data or samples, c of another shape, energies that are not finite.
    """
    check_draws(n, 2, generator)
    if data.dim() < 1 or len(data) < 2:
        raise ValueError(f"data: expected (m, *event) with m >= 2; got {tuple(data.shape)}")
    c = torch.as_tensor(c, device=data.device).double()
    if c.shape != (model.k,):
        raise ValueError(f"c: expected ({model.k},); got {tuple(c.shape)}")
    logits = model.logits(model.draw(n, generator))
    parts = [model.critic(part.expand(model.k, *part.shape)) for part in data.split(8192)]
    real = -torch.cat(parts, 1).double()
    if not real.isfinite().all():
        raise ValueError("energy: not finite at some of the data")
    found = ddls.log_z0(logits)
    terms = (logits - c[:, None]).exp()
    of_data = real.var(1) / real.shape[1]
    return Score(
        bound(real, -logits, c),
        likelihood(real, -logits),
        found.log_z,
        (of_data + terms.var(1) / n).sqrt(),
        (of_data + found.se.square()).sqrt(),
        found.se,
        found.share,
        found.pareto_k,
    )


@torch.no_grad()
def langevin(
    model: ddls.Model,
    n: int,
    n_steps: int,
    generator: torch.Generator,
    *,
    step_size: float,
    friction: float,
    beta: float = 1.0,
    decay: float = 1.0,
    decay_every: int | None = None,
    start: Tensor | None = None,
) -> ddls.Refined:
    """Kinetic Langevin in latents, in the order of steps of the authors' code (A B O B A):

        z <- z + h/2 v;   v <- v - h/2 grad U(z);   v <- e^{-friction h} v + noise;
        v <- v - h/2 grad U(z);   z <- z + h/2 v;       U(z) = -log eta(z) + beta E(B(z)),

    from v = 0, unadjusted; one gradient a step. The law of z is off by O(h^2), and exact for a
    Gaussian, as with `samplers.kinetic_langevin`, which has the order B A O A B.

    Their images are drawn at beta = 100, under the name of a temperature: that is not the
    model, for which beta is 1. Their `lmc_gamma` is (h / 2)^2.

    Args:
        n: chains a model.
        step_size: h.
        decay, decay_every: after so many steps take h so many times as large; the velocity goes
            on. Theirs: 200, and 0.1 for `lmc_gamma`, which is 0.1 ** 0.5 for h.
        start: states `(k, n, d)`; None for the prior's.

    Raises:
        ValueError: an argument out of range, a start of another shape.
    """
    check_draws(n_steps, 1, generator, "n_steps")
    for name, value in (("step_size", step_size), ("friction", friction)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: expected a finite number > 0; got {value!r}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay: expected a number in (0, 1]; got {decay!r}")
    if decay < 1 and decay_every is None:
        raise ValueError("decay_every: expected a number of steps, as decay < 1")
    every = n_steps if decay_every is None else decay_every
    check_draws(every, 1, generator, "decay_every")
    energy = ddls.latent_energy(model, beta)
    first = ddls._start(model, n, start, generator)
    z = first.flatten(0, 1)
    v = torch.zeros_like(z)
    for step in range(n_steps):
        h = step_size * decay ** (step // every)
        keep = math.exp(-friction * h)
        z = z + 0.5 * h * v
        _, slope = value_and_gradient(energy, z)
        xi = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        v = keep * (v - 0.5 * h * slope) + (1 - keep**2) ** 0.5 * xi - 0.5 * h * slope
        z = z + 0.5 * h * v
    if not z.isfinite().all():
        raise ValueError("step_size: too large; some chains have left for infinity")
    return ddls._moved(first, z.view_as(first), 0.0, n_steps)._replace(temperature=1.0)


# --- training --------------------------------------------------------------------------


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
        number, check = gan._is_number, gan._check
        check(self, "criterion", f"one of {', '.join(CRITERIA)}", lambda v: v in CRITERIA)
        for name in ("batch", "samples", "penalty_every", "n_energy", "n_long"):
            check(self, name, "a whole number >= 1", lambda v: type(v) is int and v >= 1)
        for name in ("long_every", "anneal_over"):
            check(self, name, "a whole number >= 0", lambda v: type(v) is int and v >= 0)
        for name in ("frozen", "half"):
            check(self, name, "True or False", lambda v: type(v) is bool)
        check(self, "penalty", "a number >= 0", lambda v: number(v) and v >= 0)
        check(self, "constant", "a number or None", lambda v: v is None or number(v))
        check(self, "average", "a number in [0, 1)", lambda v: number(v) and 0 <= v < 1)
        check(
            self, "learning_rate", "three numbers > 0",
            lambda v: type(v) is tuple and len(v) == 3 and all(map(number, v)) and min(v) > 0,
        )  # fmt: skip
        check(
            self, "momenta", "two numbers in [0, 1)",
            lambda v: gan._is_pair(v) and min(v) >= 0 and max(v) < 1,
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


class Game(gan.Game):
    """k bases and energies, with all that their training remembers; see `gan.Game`.

    `save` and `load` keep weights, c, the moments of Adam, the moving average and the number of
    steps; all else follows from the seed. Networks stay in the mode, training or eval, that
    they are in.

    Args:
        base: `(k, n, d)` to `(k, n, *event)`. Any function where the recipe freezes it.
        energy: `(k, n, *event)` to `(k, n)`; with spectral norm or not as it was made.
        latent: (k, d); z is N(0, I_d).
        recipe: how they are trained.
        seed: of the batches and the latents.

    Attributes:
        constant: c, `(k,)`.
        average: the base with averaged weights; the base itself without an average.
        step, saved: as for `gan.Game`.

    Raises:
        ValueError: a seed that is no integer, a `latent` that is not two whole numbers >= 1, or
            a base that is to learn and has nothing to.
    """

    def __init__(
        self,
        base: Callable[[Tensor], Tensor],
        energy: nn.Module,
        latent: tuple[int, int],
        recipe: Recipe,
        seed: int,
    ):
        if type(seed) is not int:
            raise ValueError(f"seed: expected an integer; got {seed!r}")
        self.latent = tuple(latent)
        if [type(n) for n in self.latent] != [int, int] or min(self.latent) < 1:
            raise ValueError(f"latent: expected two whole numbers >= 1, (k, d); got {latent!r}")
        learns = isinstance(base, nn.Module) and any(True for _ in base.parameters())
        if not learns and not recipe.frozen:
            raise ValueError("base: expected an nn.Module with parameters, or a frozen recipe")
        self.base, self.energy = base, energy
        self.recipe, self.seed = recipe, seed
        self.step = 0
        self.saved = None
        like = next(energy.parameters())
        self.device, self.dtype = like.device, like.dtype
        start = torch.full(self.latent[:1], recipe.constant or 0.0, device=like.device)
        self.constant = nn.Parameter(start.to(like.dtype))
        rates = recipe.learning_rate
        adam = {"betas": recipe.momenta, "fused": True}
        groups = [
            {"params": list(energy.parameters()), "lr": rates[1]},
            {"params": [self.constant], "lr": rates[2]},
        ]
        self._adam_energy = torch.optim.Adam(groups, **adam)
        self._parts = {
            "energy": energy,
            "constant": nn.ParameterList([self.constant]),
            "adam_energy": self._adam_energy,
        }
        self.average = base
        if isinstance(base, nn.Module):
            self._parts["base"] = base
        if not recipe.frozen:
            self._adam_base = torch.optim.Adam(base.parameters(), lr=rates[0], **adam)
            self._parts["adam_base"] = self._adam_base
            if recipe.average:
                self.average = copy.deepcopy(base).requires_grad_(False)
                self._parts["average"] = self.average

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


def train(
    game: Game,
    data: Tensor,
    n_steps: int,
    *,
    checkpoint: Path | None = None,
    save_every: int = 1000,
) -> Iterator[Step]:
    """Train until `n_steps` steps were made in all; yields each one's numbers.

    In a step the energy and c ascend the criterion, `Recipe.energy_steps` times, each time on
    new data and new samples; then the base descends `base_loss` once, on new samples and with
    the energy held as a function of x.

    Args:
        game: changed in place; one that made steps already goes on from there.
        data: `(n, *event)`, n >= the batch.
        n_steps: where to stop.
        checkpoint: a file to save to at every `save_every` steps and at the end.

    Raises:
        ValueError: too few data; data or energies of another shape.
        Diverged: a loss is NaN or infinite. Nothing was moved by that loss.
    """
    recipe = game.recipe
    if data.dim() < 2 or len(data) < recipe.batch:
        raise ValueError(
            f"data: expected (n, *event) with n >= batch = {recipe.batch}; got {tuple(data.shape)}"
        )
    if save_every < 1:
        raise ValueError(f"save_every: expected >= 1; got {save_every}")
    if data.dtype != game.dtype:
        raise ValueError(f"data: expected {game.dtype}, as the networks are of; got {data.dtype}")
    batches = gan._Batches(game, data.to(game.device))
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
    save_every: int = 1000,
    progress: bool = False,
) -> None:
    """Bring a game to `n_steps` steps: by its checkpoint where there is one, else by training.

    Args and errors are those of `gan.play`.
    """
    if checkpoint is not None and Path(checkpoint).exists():
        game.load(checkpoint)
    if game.step > n_steps:
        raise ValueError(f"n_steps: the game has made {game.step} already; got {n_steps}")
    steps = train(game, data, n_steps, checkpoint=checkpoint, save_every=save_every)
    bar = {"initial": game.step, "total": n_steps, "unit": "step", "mininterval": 1.0}
    for _ in tqdm(steps, desc="GEBM", disable=not progress, **bar):
        pass


def _one_step(game: Game, batches) -> Step:
    recipe = game.recipe
    _set_rates(game)
    source = gan._source(game, f"step-{game.step}")
    first = recipe.energy_steps_before(game.step)
    slope = None
    for made in range(first, first + recipe.energy_steps(game.step)):
        worth, height, taken = _energy_step(game, batches[made], source, made)
        slope = slope if taken is None else taken
    loss = None if recipe.frozen else _base_step(game, source)
    game.step += 1
    return Step(game.step, worth, height, game.constant.detach().clone(), loss, slope)


def _energy_step(game: Game, real: Tensor, source: torch.Generator, made: int):
    """One ascent in E and c; F, L and the penalty, or None, before it."""
    recipe, n = game.recipe, real.shape[1]
    with _half(game):
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
        raise gan._diverged(game, {"bound": worth, "likelihood": height, "penalty": slope})
    parameters = [*game.energy.parameters(), game.constant]
    _move(game._adam_energy, parameters, torch.autograd.grad(loss.sum(), parameters))
    return worth.detach(), height.detach(), None if slope is None else slope.detach()


def _base_step(game: Game, source: torch.Generator) -> Tensor:
    """One descent of the base; its loss before it."""
    recipe = game.recipe
    with _half(game):
        fake = game.base(game.latents(recipe.batch * recipe.samples, source))
        # The energy is held as a function of x, even one that knows the base's density.
        x = fake.detach().to(game.dtype).requires_grad_()
        loss = base_loss(_energies(game, x))
    if not loss.isfinite().all():
        raise gan._diverged(game, {"base loss": loss})
    (slope,) = torch.autograd.grad(loss.sum(), x)
    parameters = list(game.base.parameters())
    gradients = torch.autograd.grad(fake, parameters, slope.to(fake.dtype))
    _move(game._adam_base, parameters, gradients)
    if recipe.average:
        decay = min(recipe.average, (1 + game.step) / (10 + game.step))
        averaged = list(game.average.parameters())
        torch._foreach_lerp_(averaged, [p.detach() for p in parameters], 1 - decay)
    return loss.detach()


def _energies(game: Game, x: Tensor) -> Tensor:
    energies = game.energy(x)
    if energies.shape != x.shape[:2]:
        raise ValueError(
            f"energy: expected energies of shape {tuple(x.shape[:2])}; got {tuple(energies.shape)}"
        )
    return energies.to(game.dtype)


def _half(game: Game):
    return torch.autocast(game.device.type, torch.bfloat16, enabled=game.recipe.half)


def _move(optimizer: torch.optim.Optimizer, parameters, gradients) -> None:
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient.contiguous()  # the fused optimiser takes its layout for the parameter's
    optimizer.step()


def _set_rates(game: Game) -> None:
    recipe = game.recipe
    passed = min(1.0, game.step / recipe.anneal_over) if recipe.anneal_over else 0.0
    left = 0.5 * (1 + math.cos(math.pi * passed))
    groups = list(game._adam_energy.param_groups)
    rates = list(recipe.learning_rate[1:])
    if not recipe.frozen:
        groups, rates = [*game._adam_base.param_groups, *groups], list(recipe.learning_rate)
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate * left
