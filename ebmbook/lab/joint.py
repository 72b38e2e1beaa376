"""A classifier read as an energy, and trained as one: JEM (Grathwohl et al. 2020), on digits.

    E(x) = -log sum_y e^{f_y(x)} + |x|^2 / (2 confine^2)

The logits f have p(y | x) as they always had, and p(x, y) besides. The bowl, which takes no side in
p(y | x), is there for the integral of e^{-E} to exist. JEM descends -log p(y | x) - log p(x), the
slope of the latter by kept chains; the plain classifier descends the former alone.

    task          digits that are learned, one class left out, and what is strange to them
    fit           k models side by side, plain or joint
    Densities     opponents that no network is needed for
    judge         accuracy, calibration, and whether scores tell digits from what is strange
    sweep         settings, judged on digits held out for that alone

All that is judged has the noise that training adds, so that its lack tells nothing apart.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ebmbook.lab.judging import Calibration, auroc, calibration, temperatures
from ebmbook.lab.likelihood_exact import Estimate
from ebmref import likelihood as L
from ebmref import training
from ebmref.data import pictures
from ebmref.energies import Gaussian
from ebmref.networks import Networks
from ebmref.samplers import mala
from ebmref.seeds import derive_seed

# Classes that are learned of the ten; pixels of a picture.
N_CLASSES, N_PIXELS = 9, 64


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


# Digits, and what is strange to them --------------------------------------------------------------


class Labelled(NamedTuple):
    """Pictures `(n, 64)`, about within [-1, 1], and their classes `(n,)`, in 0 .. 8."""

    x: Tensor
    y: Tensor


class Task(NamedTuple):
    """What is learned and what is judged.

    Attributes:
        train: without noise.
        validation, held_out: with noise; the former for settings and temperatures.
        strange: pictures with noise `(m, 64)`, by what they are.
        noise: standard deviation of it.
    """

    train: Labelled
    validation: Labelled
    held_out: Labelled
    strange: dict[str, Tensor]
    noise: float


def task(left_out: int, seed: int, *, noise: float = 0.3, device="cpu") -> Task:
    """The digits of scikit-learn but one class.

    Args:
        left_out: the class, in 0 .. 9; later ones move up by one.
        seed: of the noise and of which fifth of the training set is for validation.

    Raises:
        ValueError: no such class.
    """
    if left_out not in range(10):
        raise ValueError(f"left_out: expected a class in 0 .. 9; got {left_out!r}")
    draws = _source(seed, "task", device)
    known, other = [], []
    for split in ("train", "test"):
        found = pictures("digits", split)
        x, y = (2 * found.pixels.flatten(1) - 1).to(device), found.labels.to(device)
        own = y != left_out
        known.append(Labelled(x[own], y[own] - (y[own] > left_out).long()))
        other.append(x[~own])

    def noised(x: Tensor) -> Tensor:
        return x + noise * torch.randn(x.shape, generator=draws, device=device)

    learned, (clean, labels) = known
    order = torch.rand(len(learned.x), generator=draws, device=device).argsort()
    at, rest = order.split([len(order) // 5, len(order) - len(order) // 5])
    train = Labelled(learned.x[rest], learned.y[rest])
    square = clean.view(-1, 8, 8)
    # Of each picture and one of another class, the one half of both.
    apart = labels[:, None] != labels
    partner = torch.multinomial(apart.float(), 1, generator=draws)[:, 0]
    covariance = train.x.T.cov() + noise**2 * torch.eye(N_PIXELS, device=device)
    uniform = 2 * torch.rand(clean.shape, generator=draws, device=device) - 1
    strange = {
        "uniform noise": noised(uniform),
        "Gaussian noise": Gaussian(train.x.mean(0), covariance).sample(len(clean), draws),
        "mirrored": noised(square.flip(2).flatten(1)),
        "turned": noised(square.rot90(1, (1, 2)).flatten(1)),
        "blends": noised((clean + clean[partner]) / 2),
        "left out": noised(torch.cat(other)),
    }
    return Task(
        train,
        Labelled(noised(learned.x[at]), learned.y[at]),
        Labelled(noised(clean), labels),
        strange,
        noise,
    )


# Training ----------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """k classifiers side by side, whose call is their energies: `(n, 64)` or `(k, n, 64)` to
    `(k, n)`.

    Args:
        hidden: widths of the hidden layers.
        n_models: k.
        confine: of the bowl, > 0.
        generator: draws the weights; its device is theirs.
    """

    def __init__(
        self, hidden: tuple[int, ...], n_models: int, confine: float, generator: torch.Generator
    ):
        super().__init__()
        sizes = (N_PIXELS, *hidden, N_CLASSES)
        self.networks = Networks(sizes, n_models, generator, functional.silu)
        self.confine = confine

    def logits(self, x: Tensor) -> Tensor:
        """f, `(n, 64)` or `(k, n, 64)` to `(k, n, 9)`."""
        return self.networks(x)

    def forward(self, x: Tensor) -> Tensor:
        bowl = 0.5 * (x / self.confine).square().sum(-1)
        return bowl - self.logits(x).logsumexp(-1)

    def squares(self) -> Tensor:
        """Sum of the squares of all weights but biases, `(k,)`."""
        return sum(weight.square().sum((1, 2)) for weight in self.networks.weights)


@dataclasses.dataclass(frozen=True)
class Setting:
    """How classifiers are trained; the defaults were best of `sweep` for either kind.

    Attributes:
        weight: of -log p(x) beside -log p(y | x); 0 for the plain classifier.
        learning_rate: of Adam, falling to zero along a cosine.
        decay: weight of half the squares of the weights.
        hidden, confine: of a `Classifier`.
        n_chain, step_size: of the chains of MALA, which are kept.
        size, restart: see `L.persistent_cd`.
        batch: of data.
        average: decay of the average of the weights, which is what is judged.
    """

    weight: float = 1.0
    learning_rate: float = 3e-2
    decay: float = 1e-3
    hidden: tuple[int, ...] = (256,)
    confine: float = 2.0
    n_chain: int = 10
    step_size: float = 0.05
    size: int = 500
    restart: float = 0.02
    batch: int = 64
    average: float = 0.99


def joint(setting: Setting, chains: L.Method, noise: float) -> L.Method:
    """A method for rows that are a picture and its class, `(n, 65)`: cross-entropy, and `weight`
    times what `chains` descends.

    Args:
        chains: of the pictures alone, such as `L.persistent_cd`; not called where weight is 0.
        noise: standard deviation of what is added to the pictures, and not to the classes.
    """

    def memory(n_models, like, generator):
        return chains.memory(n_models, like, generator) if setting.weight else nn.Module()

    def phase(energy, data, memory, generator) -> L.Phase:
        y = data[..., -1].long()
        x = data[..., :-1]
        x = x + noise * torch.randn(
            x.shape, generator=generator, dtype=x.dtype, device=x.device
        )  # fmt: skip
        entropy = functional.cross_entropy(
            energy.logits(x).movedim(-1, 1), y, reduction="none"
        ).mean(-1)
        loss = entropy + 0.5 * setting.decay * energy.squares()
        if not setting.weight:
            return L.Phase(loss, energy(x), None, None, None, y.shape[-1])
        made = chains.phase(energy, x, memory, generator)
        return made._replace(
            loss=loss + setting.weight * made.loss, n_gradients=made.n_gradients + y.shape[-1]
        )

    def identity(energy) -> dict:
        own = {"noise": noise, "weight": setting.weight, "decay": setting.decay}
        return own | ({"chains": chains.identity(energy)} if setting.weight else {})

    return L.Method("JEM" if setting.weight else "cross-entropy", identity, memory, phase)


class Fitted(NamedTuple):
    """What was trained, and how its chains were in the last tenth of the steps.

    Attributes:
        model: k classifiers, with averaged weights.
        acceptance_rate: mean, `(k,)`; None of plain ones.
        contrast: mean energy of data less that of chains, `(k,)`: near zero where these are where
            the data are; None of plain ones.
    """

    model: Classifier
    acceptance_rate: Tensor | None
    contrast: Tensor | None


def fit(given: Task, setting: Setting, n_models: int, n_steps: int, seed: int) -> Fitted:
    """Train k models side by side, which differ in weights, batches, noise and chains."""
    x, y = given.train
    draws = _source(seed, "weights", x.device)
    model = Classifier(setting.hidden, n_models, setting.confine, draws)
    blurred = x.T.cov() + given.noise**2 * torch.eye(N_PIXELS, device=x.device)
    chains = L.persistent_cd(
        lambda energy: mala(energy, setting.step_size), setting.n_chain,
        Gaussian(x.mean(0), blurred), size=setting.size, restart=setting.restart,
    )  # fmt: skip
    recipe = L.Recipe(
        setting.batch, setting.learning_rate, average=setting.average, anneal_over=n_steps
    )  # fmt: skip
    learner = L.Learner(model, joint(setting, chains, given.noise), recipe, seed, n_models)
    steps = list(training.train(learner, n_steps, data=torch.cat([x, y[:, None].to(x)], 1)))
    last = steps[-max(1, n_steps // 10) :]
    told = (None, None)
    if setting.weight:
        told = (
            torch.stack([step.acceptance_rate for step in last]).mean(0),
            torch.stack([step.positive - step.negative for step in last]).mean(0),
        )
    return Fitted(learner.model(averaged=True), *told)


# Opponents without a network ---------------------------------------------------------------------


class Densities:
    """Laws fitted to the training set in closed form, blurred; the defaults suit validation.

    "Gaussian"     of the moments of all
    "classes"      a Gaussian for each class, which also classify: `logits`
    "kernel"       one around each picture, of the noise's width times `width`

    Args:
        shrink: share, in (0, 1], of the covariance of a class that is that within all classes.
        width: > 0.
    """

    def __init__(self, given: Task, shrink: float = 0.1, width: float = 1.4):
        x, y = given.train
        blur = given.noise**2 * torch.eye(N_PIXELS, device=x.device)
        parts = [x[y == c] for c in range(N_CLASSES)]
        within = sum(len(part) * part.T.cov(correction=0) for part in parts) / len(x)
        self.whole = Gaussian(x.mean(0), x.T.cov() + blur)
        self.of_class = [
            Gaussian(part.mean(0), shrink * within + (1 - shrink) * part.T.cov() + blur)
            for part in parts
        ]
        self.log_share = torch.tensor([len(part) / len(x) for part in parts], device=x.device).log()
        self.points, self.width = x, width * given.noise

    def logits(self, x: Tensor) -> Tensor:
        """log p(x, y) of "classes", `(n, 64)` to `(n, 9)`."""
        return torch.stack([law.log_prob(x) for law in self.of_class], -1) + self.log_share

    def log_prob(self, x: Tensor) -> dict[str, Tensor]:
        """Of each law, `(n, 64)` to `(n,)`."""
        near = -0.5 * (torch.cdist(x, self.points) / self.width).square()
        level = math.log(len(self.points))
        level += N_PIXELS * (math.log(self.width) + 0.5 * math.log(2 * math.pi))
        return {
            "Gaussian": self.whole.log_prob(x),
            "classes": self.logits(x).logsumexp(-1),
            "kernel": near.logsumexp(1) - level,
        }


# Judging -----------------------------------------------------------------------------------------


@torch.no_grad()
def scores(model: Classifier, x: Tensor) -> dict[str, Tensor]:
    """High for what is like the data, `(n, 64)` to `(k, n)`.

    "density" is -E of the law, bowl and all; "logits" the same without the bowl, as the plain
    classifier has no law (Liu et al. 2020); "confidence" the largest p(y | x).
    """
    logits = model.logits(x)
    return {
        "density": -model(x),
        "logits": logits.logsumexp(-1),
        "confidence": logits.softmax(-1).amax(-1),
    }


class Judged(NamedTuple):
    """Of k classifiers.

    Attributes:
        raw, cooled: of the digits held out, as the logits are, and over the temperature that is
            best for those of validation.
        temperature: `(k,)`.
        told: AUROC `(k,)` by score and by what is strange.
    """

    raw: Calibration
    cooled: Calibration
    temperature: Tensor
    told: dict[str, dict[str, Estimate]]


@torch.no_grad()
def judge(given: Task, model: Classifier, seed: int) -> Judged:
    """k classifiers on what is held out and what is strange."""
    return _judged(given, model.logits, lambda x: scores(model, x), seed)


@torch.no_grad()
def judge_densities(given: Task, laws: Densities, seed: int) -> Judged:
    """The same of laws in closed form, k = 1; it is "classes" that classifies."""

    def rows(x: Tensor) -> dict[str, Tensor]:
        return {name: values[None] for name, values in laws.log_prob(x).items()}

    return _judged(given, lambda x: laws.logits(x)[None], rows, seed)


def _judged(given: Task, logits_at, scores_at, seed: int) -> Judged:
    x, y = given.held_out
    logits = logits_at(x)
    t = temperatures(logits_at(given.validation.x), given.validation.y)
    own = scores_at(x)
    strange = {what: scores_at(other) for what, other in given.strange.items()}
    told = {
        name: {what: auroc(own[name], found[name]) for what, found in strange.items()}
        for name in own
    }
    cooled = logits / t[:, None, None].to(logits)
    return Judged(calibration(logits, y, seed), calibration(cooled, y, seed), t, told)


def sweep(
    settings: Mapping[str, Setting], left_out: int, n_models: int, n_steps: int,
    seeds: tuple[int, ...],
) -> dict[str, Calibration]:  # fmt: skip
    """Settings judged on validation after the temperature that is best there.

    Returns:
        Of each setting, the fields `(seeds, k)`.
    """
    found = {}
    for name, setting in settings.items():
        rows = []
        for seed in seeds:
            given = task(left_out, seed)
            model = fit(given, setting, n_models, n_steps, seed).model
            x, y = given.validation
            with torch.no_grad():
                logits = model.logits(x)
            t = temperatures(logits, y)[:, None, None].to(logits)
            rows.append(calibration(logits / t, y, seed))
        found[name] = Calibration(*(torch.stack(part) for part in zip(*rows, strict=True)))
    return found
