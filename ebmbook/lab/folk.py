"""Folk recipes for energies that learn by chains: how often they run away, and what they learn.

Setting, REMEDIES   a recipe, and what is changed in it against divergence
folk                k trainings by a recipe
divergence          how many of them diverge in the plane, and what the others know
"""

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmbook.lab.likelihood import bring_living
from ebmbook.lab.plane import Law, scores, scores_of
from ebmbook.rates import Rate
from ebmref import likelihood as L
from ebmref.energies import Gaussian
from ebmref.samplers import ula
from ebmref.seeds import derive_seed


@dataclasses.dataclass(frozen=True)
class Setting:
    """A folk recipe for the training of an energy by kept chains.

    Attributes:
        rate, noise: of a step x' = x - rate grad E + noise xi; see `L.as_langevin`.
        n_steps: of a chain.
        restart: share of chains that begin anew.
        size: of the buffer.
        smooth: SiLU in place of ReLU.
        spectral: hold the norms of the weight matrices at one.
        confine: of a bowl that holds the energy together, see `L.Perceptrons`.
        learning_rate: of Adam; and of `L.Recipe` the penalties, data noise, clipping, average.
        kl, entropy: weights of the two terms of improved contrastive divergence, see `L.cd`.
    """

    rate: float = 10.0
    noise: float = 0.005
    n_steps: int = 10
    restart: float = 0.0
    size: int = 2000
    smooth: bool = False
    spectral: bool = False
    confine: float | None = None
    learning_rate: float = 1e-3
    energy_penalty: float = 0.0
    gradient_penalty: float = 0.0
    data_noise: float = 0.0
    clip: float | None = None
    average: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0

    @property
    def beta(self) -> float:
        """The inverse temperature at which the chains move; that of the model is one."""
        return L.as_langevin(self.rate, self.noise)[1]


_BUNDLE = {
    "energy_penalty": 1.0, "clip": 0.1, "data_noise": 0.03, "smooth": True, "restart": 0.05,
    "spectral": True, "average": 0.99,
}  # fmt: skip
REMEDIES = {
    "none": {},
    "energy penalty": {"energy_penalty": 1.0},
    "gradient penalty": {"gradient_penalty": 0.1},
    "spectral norm": {"spectral": True},
    "smooth activation": {"smooth": True},
    "data noise": {"data_noise": 0.03},
    "clipping": {"clip": 0.1},
    "restarts": {"restart": 0.05},
    "longer chains": {"n_steps": 30},
    "slower weights": {"learning_rate": 1e-4},
    # A thousandth of the rate, as long as fits the modes: as cold as before, or at beta = 1.
    "small steps": {"rate": 0.01, "noise": 0.005 * 1e-3**0.5},
    "true temperature": {"rate": 0.01, "noise": 0.02**0.5},
    # Narrower by a half, and steps at a rate of 10 would leap across it, farther each time.
    "bowl": {"confine": 5.0},
    "averaged weights": {"average": 0.99},
    "term left out": {"kl": 1.0},
    "both terms": {"kl": 1.0, "entropy": 1.0},
    "bundle": _BUNDLE,
}


# Inverse temperatures among which `divergence` looks for the best, a factor of two apart.
BETAS = tuple(2.0**i for i in range(-4, 21))


class Divergence(NamedTuple):
    """What became of k trainings of one recipe.

    Attributes:
        died: the step at which each diverged, 0 of those that did not, `(k,)`.
        causes: why, places in `L.CAUSES`, `(k,)`.
        share: of those that diverged.
        interval: the exact 95 % one of that share.
        kl: KL(law || model) at the end of the weights and of their average, `(2, k)`, NaN of those
            that diverged. Not to diverge is not to learn: that of a flat energy is a number too.
        at_best: KL of the weights at the inverse temperature that suits them best, `(k,)`: to
            what those know whose level of energies is off.
        beta: at which the chains moved.
    """

    died: Tensor
    causes: Tensor
    share: float
    interval: tuple[float, float]
    kl: Tensor
    at_best: Tensor
    beta: float


def setting(remedy: str | Setting, **base) -> Setting:
    """A recipe by the name of its remedy; one that is given stays as it is.

    Args:
        remedy: of `REMEDIES`, or any `Setting`.
        base: what else of the folk recipe is another, such as its rate; a remedy goes before it.

    Raises:
        ValueError: an unknown remedy.
    """
    if isinstance(remedy, Setting):
        return remedy
    if remedy not in REMEDIES:
        raise ValueError(f"remedy: expected one of {', '.join(REMEDIES)}; got {remedy!r}")
    return Setting(**(base | REMEDIES[remedy]))


def folk(
    made: Setting, data: Tensor, noise, n_models: int, n_steps: int, seed: int, *,
    limit: float = 1e3, reach: float = 1e2, hidden: tuple[int, ...] = (64, 64), batch: int = 64,
) -> L.Learner:  # fmt: skip
    """Train k models by a folk recipe, each as far as it goes.

    A model has diverged once its contrast is beyond the limit, something is not finite, or one of
    its chains is farther out than the reach. It is judged alone, and stays as it is then.

    Args:
        data: `(n, d)`.
        noise: what chains begin from, see `L.persistent_cd`.
    """
    step_size, beta = L.as_langevin(made.rate, made.noise)
    draws = torch.Generator(data.device).manual_seed(derive_seed(seed, "folk"))
    net = L.Perceptrons(
        data.shape[1], hidden, n_models, draws,
        nn.functional.silu if made.smooth else nn.functional.relu,
        spectral=made.spectral, confine=made.confine,
    )  # fmt: skip
    recipe = L.Recipe(
        batch, made.learning_rate, energy_penalty=made.energy_penalty,
        gradient_penalty=made.gradient_penalty, data_noise=made.data_noise, clip=made.clip,
        average=made.average, limit=limit, reach=reach, alone=True,
    )  # fmt: skip
    method = L.persistent_cd(
        lambda energy: ula(energy, step_size), made.n_steps, noise, size=made.size,
        restart=made.restart, beta=beta, kl=made.kl, entropy=made.entropy,
    )  # fmt: skip
    learner = L.Learner(net, method, recipe, seed, n_models)
    bring_living(learner, n_steps, data)
    return learner


def divergence(
    remedy: str | Setting, law: Law, data: Tensor, n_models: int, n_steps: int, seed: int, **more
) -> Divergence:
    """Train k models by the folk recipe with one remedy, and count those that diverge.

    Args:
        remedy: of `REMEDIES`, or any `Setting`.
        data: `(n, 2)`.
        more: limit, reach, hidden and batch of `folk`, which says when a model has diverged.

    Raises:
        ValueError: an unknown remedy.
    """
    made = setting(remedy)
    noise = Gaussian(data.mean(0), data.T.cov())
    learner = folk(made, data, noise, n_models, n_steps, seed, **more)
    alive = learner.alive
    kl = torch.stack([scores(law, learner.model(mean)).kl for mean in (False, True)])
    energies = learner.model()(law.points).detach()
    warmed = [scores_of(law, -beta * energies).kl for beta in BETAS]
    n_died = int((~alive).sum())
    return Divergence(
        learner.died,
        learner.causes,
        n_died / n_models,
        Rate(n_died, n_models, n_died, n_models).interval,
        kl.masked_fill(~alive, math.nan),
        torch.stack(warmed).amin(0).masked_fill(~alive, math.nan),
        made.beta,
    )
