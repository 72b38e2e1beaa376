"""Energies of pictures, learned at the temperature they are meant for: log Z, samples, likelihood.

What is learned is the law of pictures with noise N(0, sigma^2) on every pixel. Pictures as they are
lie on a grid of grey levels, and some pixels never change: they have no density to be learned.

    u = V^T (x - mean)                      principal coordinates: a rotation, so that lengths, the
                                            noise and nats are those of x
    E(u) = -log N(u; 0, variances) + f(u)   of the first `rank` of them; the others stay Gaussian

f is a perceptron that grows no faster than |u|, hence exp(-E) has an integral; this is 1 where
f = 0, as at the start. As f does not see the coordinates beyond the rank, these are Gaussian in
the model and independent, and chains need not move in them.

Chains are MALA at beta = 1, in training as after it, with steps longer where the law is wider:
along u_i by the root of its deviation. They are exact, and so can be run for as long as one likes.

    learn          the energy, by persistent chains
    bracket        log Z from below and from above
    likelihoods    in nats a picture, beside a Gaussian, mixtures of them, and a memory of the data
    experiment     all of these
"""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from ebmbook.lab.likelihood_exact import Estimate
from ebmbook.lab.pictures import Axes, Grade, Memory, Sets, grade, memory, noised, ruler, sets
from ebmref import likelihood as L
from ebmref import metrics, training
from ebmref.checks import check_positive, check_whole
from ebmref.energies import Energy, value_and_gradient
from ebmref.samplers import Kernel, annealed_importance_sampling, hmc, sample
from ebmref.seeds import derive_seed


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


@dataclasses.dataclass(frozen=True)
class Plan:
    """The sizes of an experiment; those given are for 8 x 8 digits on one core.

    Attributes:
        sigma: deviation of the noise on each pixel; the less it is, the narrower are the modes.
        rank: how many coordinates f sees.
        hidden: widths of f's layers.
        unit: of length for f, see `L.Perceptrons`.
        step_size: of MALA in the coordinates u / variances^(1/4), in units of their square.
        n_steps: of a chain between two steps of training.
        size: of the buffer.
        batch, learning_rate, average, n_train: of training, see `L.Recipe`.
        n_chains, n_long: how many chains are run after training, and how far.
        n_particles, n_betas: of annealing.
        n_epochs: of the judge's training.
        n_memory: pictures that are asked for their neighbours.
        components: numbers of Gaussians in the mixtures that are tried.

    Raises:
        ValueError: a number out of range.
    """

    sigma: float = 0.15
    rank: int = 64
    hidden: tuple[int, ...] = (128, 128)
    unit: float = 0.5
    step_size: float = 0.05
    n_steps: int = 5
    size: int = 2000
    batch: int = 256
    learning_rate: float = 6e-3
    average: float = 0.99
    n_train: int = 750
    n_chains: int = 360
    n_long: int = 2000
    n_particles: int = 200
    n_betas: int = 600
    n_epochs: int = 12
    n_memory: int = 1000
    components: tuple[int, ...] = (10, 20)

    def __post_init__(self):
        check_positive(self, "sigma", "unit", "step_size", "learning_rate")
        check_whole(
            self, 1, "rank", "n_steps", "size", "batch", "n_train", "n_long", "n_betas",
            "n_epochs", "n_memory",
        )  # fmt: skip
        check_whole(self, 2, "n_chains", "n_particles")


DIGITS = Plan()
MNIST = Plan(
    sigma=0.3, rank=150, hidden=(256, 256), unit=1.0, step_size=0.08, n_steps=10, size=5000,
    learning_rate=3e-3, n_train=10_000, n_chains=500, n_long=20_000, n_particles=500,
    n_betas=4000, n_epochs=2, n_memory=2000, components=(20,),
)  # fmt: skip


# The energy ---------------------------------------------------------------------------------------


class Tilted(nn.Module):
    """E(u) = -log N(u; 0, diag(variances)) + f(u), `(n, r)` to `(n,)`; f is zero at first.

    Args:
        variances: `(r,)`, > 0.
        hidden, unit: of f, see `L.Perceptrons`.
        generator: draws its weights.
    """

    def __init__(
        self, variances: Tensor, hidden: tuple[int, ...], unit: float, generator: torch.Generator
    ):
        super().__init__()
        self.tilt = L.Perceptrons(len(variances), hidden, None, generator, unit=unit)
        nn.init.zeros_(self.tilt.layers.weights[-1])
        nn.init.zeros_(self.tilt.layers.biases[-1])
        self.register_buffer("precision", 1 / variances)
        self.log_norm = 0.5 * float((2 * math.pi * variances).log().sum())

    def forward(self, u: Tensor) -> Tensor:
        return 0.5 * u.square() @ self.precision + self.log_norm + self.tilt(u)


def chains(energy: Energy, axes: Axes, plan: Plan) -> Kernel:
    """MALA, its steps along each coordinate as long as the root of the deviation says.

    A leapfrog step with masses is a step of MALA so preconditioned.
    """
    mass = axes.variances[: plan.rank].rsqrt()
    return hmc(energy, math.sqrt(plan.step_size), 1, mass)


def learn(
    known: Sets, axes: Axes, plan: Plan, seed: int, *, checkpoint: Path | None = None,
    progress: bool = False,
) -> L.Learner:  # fmt: skip
    """Learn the energy by persistent chains that begin as draws of the Gaussian.

    Args:
        checkpoint: where to go on from, see `training.bring`; its name should tell the set and
            how many pictures are held out.

    Returns:
        The learner: `model(averaged=True)` is the energy, `memory.x` are the chains `(size, rank)`.

    Raises:
        ValueError: a rank beyond the number of pixels; what `training.bring` refuses.
    """
    if plan.rank > len(axes.mean):
        raise ValueError(f"rank: expected at most {len(axes.mean)} coordinates; got {plan.rank}")
    base = axes.base(plan.rank)
    weights = _source(seed, "weights", axes.mean.device)
    net = Tilted(axes.variances[: plan.rank], plan.hidden, plan.unit, weights)
    method = L.persistent_cd(
        lambda energy: chains(energy, axes, plan), plan.n_steps, base, size=plan.size, restart=0.0
    )
    recipe = L.Recipe(
        plan.batch, plan.learning_rate, data_noise=plan.sigma, average=plan.average,
        anneal_over=plan.n_train,
    )  # fmt: skip
    learner = L.Learner(net, method, recipe, seed)
    u = axes.into(known.train)[:, : plan.rank].contiguous()
    training.bring(
        learner, plan.n_train, data=u, checkpoint=checkpoint, save_every=500, progress=progress
    )
    return learner


def denoised(energy: Energy, axes: Axes, u: Tensor) -> Tensor:
    """The model's mean of the clean picture, given noised ones `(n, rank)`: `(n, *event)`.

    It is u - sigma^2 grad E(u) (Miyasawa 1961); coordinates beyond the rank have their mean.
    """
    clean = u - axes.sigma**2 * value_and_gradient(energy, u)[1]
    return axes.back(nn.functional.pad(clean, (0, len(axes.mean) - u.shape[1])))


# log Z and the likelihood -------------------------------------------------------------------------


class Scaled:
    """A law in the coordinates v = u / scale, for `annealed_importance_sampling`.

    Its density by u serves: the factor of the change of variables is in both ends of a path.

    Args:
        draw: `(n, generator)` to u `(n, r)`.
        log_density: of u, `(n, r)` to `(n,)`.
        scale: `(r,)`.
    """

    def __init__(self, draw, log_density, scale: Tensor):
        self.draw, self.log_density, self.scale = draw, log_density, scale

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.draw(n, generator) / self.scale

    def log_prob(self, v: Tensor) -> Tensor:
        return self.log_density(v * self.scale)


class Bracket(NamedTuple):
    """log Z by annealing from both ends; 0-d.

    Attributes:
        forward: from the Gaussian: on average below log Z, and seldom far above.
        reverse: from draws of the model, back to the Gaussian: on average above log Z. That holds
            of exact draws; chains that have not mixed prove nothing.
        data: the same from held pictures in place of draws. They are none of the model, so that it
            is no bound; where the model is good it is near.
        ess: the effective number of weights of each of the three, `(3,)`.
        samples: the forward particles, `(n, rank)`, and their log weights `(n,)`.
    """

    forward: Estimate
    reverse: Estimate
    data: Estimate
    ess: Tensor
    samples: Tensor
    log_weights: Tensor

    @property
    def log_z(self) -> Estimate:
        """The middle of the bracket; half its width counts as error."""
        middle = 0.5 * (self.forward.value + self.reverse.value)
        half = 0.5 * (self.reverse.value - self.forward.value)
        own = 0.5 * torch.hypot(self.forward.se, self.reverse.se)
        return Estimate(middle, torch.hypot(half, own))


def bracket(
    energy: Energy, axes: Axes, draws: Tensor, held: Tensor, plan: Plan, seed: int
) -> Bracket:
    """log Z of exp(-energy) between the estimates of both directions.

    To walk back is to anneal from the model to the Gaussian: its Z is then 1 / Z of the former.

    Args:
        draws: of the model, `(n, rank)`, n >= the plan's n_particles.
        held: noised pictures, likewise.

    Raises:
        ValueError: fewer of them than particles.
    """
    n, base, scale = plan.n_particles, axes.base(plan.rank), axes.variances[: plan.rank].pow(0.25)
    for name, given in (("draws", draws), ("held", held)):
        if len(given) < n:
            raise ValueError(f"{name}: expected {n} or more, as particles; got {len(given)}")

    def at(energy: Energy) -> Energy:
        return lambda v: energy(v * scale)

    def log_model(u: Tensor) -> Tensor:
        return -energy(u)

    def log_base(u: Tensor) -> Tensor:
        return base.log_prob(u)

    def annealed(target, start, stream):
        return annealed_importance_sampling(
            at(target), start, n, plan.n_betas, plan.step_size,
            generator=_source(seed, stream, axes.mean.device),
        )  # fmt: skip

    forward = annealed(energy, Scaled(base.sample, log_base, scale), "forward")
    back = [
        annealed(
            lambda u: -base.log_prob(u),
            Scaled(lambda n, generator, x=x: x[:n], log_model, scale),
            stream,
        )
        for stream, x in (("reverse", draws), ("reverse-data", held))
    ]
    ess = torch.stack([found.ess for found in (forward, *back)])
    return Bracket(
        Estimate(forward.log_z, forward.log_z_se),
        *(Estimate(-found.log_z, found.log_z_se) for found in back),
        ess,
        forward.samples * scale,
        forward.log_weights,
    )


class Likelihoods(NamedTuple):
    """Log-likelihoods of the noised law, in nats a picture, `(2,)`: of held and training pictures.

    Attributes:
        model: of the energy, by the middle of the bracket, whose error is in this one's.
        gaussian: of the Gaussian with the moments of the data.
        gain: of the model over the Gaussian, picture by picture.
        mixture: of the mixture of Gaussians that suits the held pictures best.
        n_components: how many it has.
        memory: of the training pictures plus noise, by heart.
    """

    model: Estimate
    gaussian: Estimate
    gain: Estimate
    mixture: Estimate
    n_components: int
    memory: Estimate


def mixtures(known: Sets, axes: Axes, plan: Plan, seed: int) -> dict[int, GaussianMixture]:
    """Mixtures of full Gaussians on the first coordinates, by their number.

    EM is on clean pictures, and sigma^2 is added to each covariance as the noise would do.
    """
    u = axes.into(known.train)[:, : plan.rank].double().cpu().numpy()
    return {
        k: GaussianMixture(
            k, reg_covar=plan.sigma**2, random_state=derive_seed(seed, "mixture") % 2**32,
            max_iter=40, tol=1e-2,
        ).fit(u)
        for k in plan.components
    }  # fmt: skip


def likelihoods(
    energy: Energy, log_z: Estimate, known: Sets, axes: Axes, tried: dict[int, GaussianMixture],
    plan: Plan, seed: int,
) -> Likelihoods:  # fmt: skip
    """Of as many training pictures as held ones, each with fresh noise.

    Args:
        tried: of `mixtures`. The best on the held pictures is taken, to its advantage.
    """
    draws = _source(seed, "likelihood", axes.mean.device)
    n, base = len(known.held), axes.base(plan.rank)
    x = torch.stack([noised(part, plan.sigma, draws) for part in (known.held, known.train[:n])])
    u = axes.into(x.flatten(0, 1))
    seen, rest = u[:, : plan.rank], axes.log_rest(u, plan.rank)

    def estimate(log_p: Tensor, error: Tensor | float = 0.0) -> Estimate:
        log_p = log_p.double().view(2, n)
        return Estimate(log_p.mean(1), (log_p.var(1) / n + error**2).sqrt())

    with torch.no_grad():
        of_model = -energy(seen) - log_z.value
        of_base = base.log_prob(seen)
    scores = {
        k: torch.from_numpy(mixture.score_samples(seen.double().cpu().numpy())).to(rest) + rest
        for k, mixture in tried.items()
    }
    best = max(scores, key=lambda k: scores[k][:n].mean())
    # The width of the kernels is that of the noise; nothing is chosen by the pictures given for it.
    by_heart = torch.tensor([
        metrics.parzen_log_likelihood(
            known.train.flatten(1), part[:2].flatten(1), part.flatten(1),
            torch.tensor([plan.sigma]),
        )[:2]
        for part in x[:, : plan.n_memory]
    ], device=rest.device)  # fmt: skip
    return Likelihoods(
        estimate(of_model + rest, log_z.se),
        estimate(of_base + rest),
        estimate(of_model - of_base, log_z.se),
        estimate(scores[best]),
        best,
        Estimate(by_heart[:, 0], by_heart[:, 1]),
    )


# All of it ----------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What an experiment found.

    Attributes:
        bracket, likelihoods, memory: see there; memory is of the chains from the Gaussian.
        accuracy: of the judge.
        grades: by name: "held" pictures, which nothing can be expected to beat; "gaussian";
            "mixture", the best; "training", the chains of the training where it left them; and
            "from gaussian", "from data", where long chains ended that began there.
        energies: mean energies of the last two, `(2,)`: they agree where chains have mixed.
        kept: share of the chains from data that are read as the class they began as, and what
            independent draws of the same shares would have.
        acceptance_rate: of the long chains.
        draws: the ends of the chains from the Gaussian and from data, `(2, n_chains, rank)`.
        clean: the model's means of the clean pictures there, `(2, n_chains, *event)`.
        training_steps: that a chain of the training made, on average.
    """

    bracket: Bracket
    likelihoods: Likelihoods
    memory: Memory
    accuracy: float
    grades: dict[str, Grade]
    energies: Estimate
    kept: tuple[float, float]
    acceptance_rate: float
    draws: Tensor
    clean: Tensor
    training_steps: float


def experiment(
    name: str, plan: Plan, seed: int, *, n_held: int, device="cpu",
    checkpoint: Path | None = None, download: bool = False, progress: bool = False,
) -> Found:  # fmt: skip
    """Learn an energy of a set's pictures, and judge its samples and its likelihood.

    Args:
        name: of a set, see `data.pictures`.
        n_held: see `sets`; at least the plan's n_chains and n_particles.
        checkpoint: of the learning, see `learn`.

    Raises:
        ValueError: too few chains or held pictures for the particles; as `sets` and `learn`.
    """
    known = sets(name, n_held, seed, device=device, download=download)
    axes = Axes(known.train, plan.sigma)
    learner = learn(known, axes, plan, seed, checkpoint=checkpoint, progress=progress)
    energy = learner.model(averaged=True)
    draws = _source(seed, "chains", device)
    base, n = axes.base(plan.rank), plan.n_chains

    def coordinates(x: Tensor) -> Tensor:
        return axes.into(noised(x, plan.sigma, draws))[:, : plan.rank]

    # As the pictures are in an order by chance, the first of them are a draw.
    begun = coordinates(known.train[:n])
    start = torch.cat([base.sample(n, draws), begun])
    chain = sample(
        chains(energy, axes, plan), start, plan.n_long, thin=plan.n_long, generator=draws,
        progress=progress,
    )  # fmt: skip
    ends = chain.samples[0].unflatten(0, (2, n))
    bounds = bracket(energy, axes, ends[0], coordinates(known.held), plan, seed)
    tried = mixtures(known, axes, plan, seed)
    scores = likelihoods(energy, bounds.log_z, known, axes, tried, plan, seed)
    drawn, _ = tried[scores.n_components].sample(n)
    by = ruler(known, plan.sigma, plan.n_epochs, seed)
    clouds = {
        "gaussian": base.sample(n, draws),
        "mixture": torch.from_numpy(drawn).to(ends),
        "training": learner.memory.x[:n],
        "from gaussian": ends[0],
        "from data": ends[1],
    }
    grades = {"held": grade(by, noised(known.held[:n], plan.sigma, draws), draws)} | {
        key: grade(by, axes.whole(u, draws), draws) for key, u in clouds.items()
    }
    first = grade(by, axes.whole(begun, draws), draws).read
    energies = chain.energy[0].view(2, n)
    end = grades["from data"]
    chance = float(metrics.class_shares(first, len(known.classes))[0] @ end.shares)
    return Found(
        bounds,
        scores,
        memory(ends[0][: plan.n_memory], known, axes, seed),
        by.accuracy,
        grades,
        Estimate(energies.mean(1), energies.std(1) / math.sqrt(n)),
        (float((first == end.read).double().mean()), chance),
        float(chain.acceptance_rate.mean()),
        ends,
        torch.stack([denoised(energy, axes, u) for u in ends]),
        plan.n_train * plan.n_steps * plan.batch / plan.size,
    )
