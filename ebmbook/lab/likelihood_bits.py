"""A restricted Boltzmann machine of pictures in black and white: log Z, samples, likelihood.

Bits need no noise to have a law of their own. Chains are block Gibbs: exact at beta = 1, with no
step size to be chosen. `experiment` learns a machine by persistent chains, and judges it as
`lab.likelihood_pictures` judges energies of grey levels. Its nats are of another law than theirs.
"""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ebmbook.lab.likelihood_exact import Estimate
from ebmbook.lab.pictures import Grade, Sets, grade, ruler, sets
from ebmref import likelihood as L
from ebmref import training
from ebmref.checks import check_positive, check_whole
from ebmref.rbm import RBM, Bits, annealed_log_z, gibbs, reverse_annealed_log_z
from ebmref.samplers import sample
from ebmref.seeds import derive_seed


@dataclasses.dataclass(frozen=True)
class Plan:
    """The sizes of an experiment; those given are for MNIST on one core.

    Attributes:
        n_hidden: units.
        n_steps: of Gibbs between two steps of training.
        size: of the buffer.
        batch, learning_rate, average, n_train: of training, see `L.Recipe`.
        n_chains, n_long: how many chains are run after training, and how far.
        n_particles, n_betas: of annealing.
        n_epochs: of the judge's training.

    Raises:
        ValueError: a number out of range.
    """

    n_hidden: int = 300
    n_steps: int = 5
    size: int = 1000
    batch: int = 200
    learning_rate: float = 2e-3
    average: float = 0.99
    n_train: int = 2500
    n_chains: int = 150
    n_long: int = 10_000
    n_particles: int = 100
    n_betas: int = 2000
    n_epochs: int = 1

    def __post_init__(self):
        check_positive(self, "learning_rate")
        check_whole(
            self, 1, "n_hidden", "n_steps", "size", "batch", "n_train", "n_long", "n_betas",
            "n_epochs",
        )  # fmt: skip
        check_whole(self, 2, "n_chains", "n_particles")


class Found(NamedTuple):
    """What was found.

    Attributes:
        forward, reverse: log Z by annealing from independent bits, and back to them from the ends
            of the long chains: on average below and, were these ends exact draws, above.
        model, independent: log-likelihoods in nats a picture, of the machine and of independent
            bits with the data's means; of held and of training pictures, `(2,)`. That of the model
            is by the middle of the two.
        accuracy: of the judge.
        grades: by name: "held", "independent", "training", "from independent", "from data"; see
            `lab.likelihood_pictures.Found`.
        kept: share of the chains from data that are read as the class they began as, and what
            independent draws of the same shares would have.
        draws: ends of the chains from independent bits and from data, `(2, n_chains, *event)`.
        training_steps: that a chain of the training made, on average.
    """

    forward: Estimate
    reverse: Estimate
    model: Estimate
    independent: Estimate
    accuracy: float
    grades: dict[str, Grade]
    kept: tuple[float, float]
    draws: Tensor
    training_steps: float


def black_and_white(known: Sets) -> Sets:
    """Pixels above one half are one, the others zero."""
    train, held = ((part > 0.5).to(part.dtype) for part in (known.train, known.held))
    return known._replace(train=train, held=held)


def learn(
    v: Tensor, plan: Plan, seed: int, *, checkpoint: Path | None = None, progress: bool = False
) -> L.Learner:
    """A machine of bits `(n, d)` by persistent chains that begin as independent bits.

    Its visible biases begin at the log-odds of these, so that it begins as their law.
    """
    weights = torch.Generator(v.device).manual_seed(derive_seed(seed, "weights"))
    machine, noise = RBM(v.shape[1], plan.n_hidden, weights), Bits.of_data(v)
    with torch.no_grad():
        machine.visible.copy_(noise.log_odds)
    method = L.persistent_cd(gibbs, plan.n_steps, noise, size=plan.size, restart=0.0)
    recipe = L.Recipe(
        plan.batch, plan.learning_rate, average=plan.average, anneal_over=plan.n_train
    )
    learner = L.Learner(machine, method, recipe, seed)
    training.bring(
        learner, plan.n_train, data=v, checkpoint=checkpoint, save_every=500, progress=progress
    )
    return learner


def experiment(
    name: str, plan: Plan, seed: int, *, n_held: int, device="cpu",
    checkpoint: Path | None = None, download: bool = False, progress: bool = False,
) -> Found:  # fmt: skip
    """Learn a machine of a set's pictures, and judge its samples and its likelihood.

    Args:
        name: of a set, see `data.pictures`.
        n_held: see `sets`.
        checkpoint: of the learning, see `training.bring`.

    Raises:
        ValueError: as `sets`; fewer chains than particles.
    """
    if plan.n_chains < plan.n_particles:
        raise ValueError(f"n_chains: expected {plan.n_particles} or more; got {plan.n_chains}")
    known = black_and_white(sets(name, n_held, seed, device=device, download=download))
    v, n, event = known.train.flatten(1), plan.n_chains, known.train.shape[1:]
    learner = learn(v, plan, seed, checkpoint=checkpoint, progress=progress)
    machine, base = learner.model(averaged=True), Bits.of_data(v)
    draws = torch.Generator(v.device).manual_seed(derive_seed(seed, "chains"))
    start = torch.cat([base.sample(n, draws), v[:n]])
    chain = sample(
        gibbs(machine), start, plan.n_long, thin=plan.n_long, generator=draws, progress=progress
    )
    ends = chain.samples[0].view(2, n, *event)
    there = annealed_log_z(machine, plan.n_particles, plan.n_betas, draws, base)
    given = ends[0, : plan.n_particles].flatten(1)
    back = reverse_annealed_log_z(machine, given, plan.n_betas, draws, base)
    forward, reverse = (Estimate(found.log_z, found.log_z_se) for found in (there, back))
    middle = 0.5 * (forward.value + reverse.value)
    error = 0.5 * math.hypot(reverse.value - forward.value, forward.se, reverse.se)
    shown = torch.stack([known.held, known.train[: len(known.held)]]).flatten(2)
    with torch.no_grad():
        of_model = -machine(shown.flatten(0, 1)).view(2, -1).double() - middle
    of_bits = base.log_prob(shown).double()
    by = ruler(known, 0.0, plan.n_epochs, seed)
    clouds = {
        "held": known.held[:n],
        "independent": base.sample(n, draws).view(n, *event),
        "training": learner.memory.x[:n].unflatten(1, event),
        "from independent": ends[0],
        "from data": ends[1],
    }
    grades = {key: grade(by, x, draws) for key, x in clouds.items()}
    first, end = grade(by, known.train[:n], draws), grades["from data"]
    return Found(
        forward,
        reverse,
        Estimate(of_model.mean(1), (of_model.var(1) / of_model.shape[1] + error**2).sqrt()),
        Estimate(of_bits.mean(1), of_bits.std(1) / math.sqrt(of_bits.shape[1])),
        by.accuracy,
        grades,
        (float((first.read == end.read).double().mean()), float(first.shares @ end.shares)),
        ends,
        plan.n_train * plan.n_steps * plan.batch / plan.size,
    )
