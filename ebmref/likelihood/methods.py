"""Ways to learn an energy without Z, made alike and trained by one `Learner`.

Lower energy is likelier: all but those by slopes push the energy of the data down, and that of
other points up. A method is made by a function below and is four things:

    name
    identity(energy) -> dict                    plain values that tell it from others
    memory(n_models, like, generator) -> Module what it keeps or learns beside the energy
    phase(energy, data, memory, generator) -> Phase

    exact(log_z)                                the likelihood, Z being summed
    cd, persistent_cd, short_run                draws of a chain for those of the model
    noise_contrastive(noise, nu)                a known law to be told from the data
    matching(n_directions), denoised(sigmas)    slopes alone
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmref.checks import positive_number, whole_number
from ebmref.energies import Energy
from ebmref.likelihood import losses
from ebmref.likelihood.chains import (
    Buffer,
    draw_noise,
    held,
    last_step,
    nearest_entropy,
    run,
    tempered,
)
from ebmref.samplers import Kernel


class Phase(NamedTuple):
    """What a method makes of a batch; numbers `(k,)`, or 0-d for a single model.

    Attributes:
        loss: to be descended.
        of_data: energies of the data, `(n,)` or `(k, n)`; of a conditional one at the least sigma.
        of_negatives: energies of the points that are pushed up, `(m,)` or `(k, m)`; None where
            there are none.
        negatives: these points, `(m, *event)` or `(k, m, *event)`; None where there are none.
        acceptance_rate: mean of the chains'; None without chains.
        n_gradients: backward passes of one model, each counted once for every point. A gradient
            that a chain needs counts one, that by the weights one, and a slope by x that is
            differentiated again two.
        n_energies: passes forward alone, counted likewise: those of chains that ask for an energy
            without its gradient.
    """

    loss: Tensor
    of_data: Tensor
    of_negatives: Tensor | None
    negatives: Tensor | None
    acceptance_rate: Tensor | None
    n_gradients: int
    n_energies: int = 0


class Method(NamedTuple):
    """A way to learn; see the head of this module."""

    name: str
    identity: Callable[[Energy], dict]
    memory: Callable[[int | None, Tensor, torch.Generator], nn.Module]
    phase: Callable[[Energy, Tensor, nn.Module, torch.Generator], Phase]


def _nothing(n_models, like, generator) -> nn.Module:
    return nn.Module()


# The likelihood itself ------------------------------------------------------------------------


def exact(log_z: losses.LogZ, n_points: int = 0) -> Method:
    """Descends the negative log-likelihood, see `losses.exact_loss`.

    Args:
        log_z: of an energy: `on_grid(points, cell)`, `over(states)`, `ebmref.rbm.log_z`, or
            another exact one.
        n_points: how many points that sums over; it enters the count of gradients alone.
    """

    def phase(energy, data, memory, generator):
        of_data = losses.energies_at(energy, data, "data")
        loss = of_data.mean(-1) + log_z(energy)
        return Phase(loss, of_data, None, None, None, of_data.shape[-1] + n_points)

    return Method("exact", lambda energy: {"n_points": n_points}, _nothing, phase)


# Chains --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Chains:
    """How negatives are made; see `cd`, `persistent_cd` and `short_run`."""

    start: str
    kernel: Callable[[Energy], Kernel]
    n_steps: int
    noise: object = None
    size: int = 0
    restart: float = 0.0
    beta: float = 1.0
    n_chains: int | None = None
    kl: float = 0.0
    entropy: float = 0.0

    def __post_init__(self):
        whole_number("n_steps", self.n_steps, 1)
        positive_number("beta", self.beta)
        if self.n_chains is not None:
            whole_number("n_chains", self.n_chains, 1)
        if self.start == "data" and self.n_chains is not None:
            raise ValueError("n_chains: chains that start at the data are as many as these")
        for name in ("kl", "entropy", "restart"):
            value = getattr(self, name)
            if isinstance(value, bool) or not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a number >= 0; got {value!r}")
        if self.restart > 1:
            raise ValueError(f"restart: expected a share in [0, 1]; got {self.restart!r}")
        if self.start != "data" and not hasattr(self.noise, "sample"):
            raise ValueError("noise: expected a law with sample(n, generator)")
        if self.start == "buffer":
            whole_number("size", self.size, 1)


def cd(
    kernel: Callable[[Energy], Kernel],
    n_steps: int = 1,
    *,
    beta: float = 1.0,
    kl: float = 0.0,
    entropy: float = 0.0,
) -> Method:
    """Contrastive divergence, CD-k: a chain of k steps from each datum (Hinton 2002).

    Args:
        kernel: of an energy, such as `lambda energy: mala(energy, 0.1)`.
        n_steps: k, >= 1.
        beta: > 0; chains move under beta E. It is then exp(-beta E) and not exp(-E) that comes to
            be the law of the data.
        kl: weight, >= 0, of the term that contrastive divergence leaves out: E at the chains' ends
            x', as a function of the weights through the last step alone (Du et al. 2021).
        entropy: weight, >= 0, of `nearest_entropy` at x', which is made large. Neighbours are
            looked for among the other chains of the buffer, or without one among x' themselves.

    With kl or entropy the kernel has to be `ula` or `mala`; the last step is then one of `ula`.

    Raises:
        ValueError: n_steps < 1, a beta that is not > 0, a negative weight; in training, another
            kernel than `ula` and `mala` with kl or entropy.
    """
    return _by_chains(
        _Chains("data", kernel, n_steps, beta=beta, kl=kl, entropy=entropy), f"CD-{n_steps}"
    )


def persistent_cd(
    kernel: Callable[[Energy], Kernel],
    n_steps: int,
    noise,
    *,
    size: int = 10_000,
    restart: float = 0.05,
    n_chains: int | None = None,
    beta: float = 1.0,
    kl: float = 0.0,
    entropy: float = 0.0,
) -> Method:
    """Persistent contrastive divergence: chains are kept in a buffer, and some begin anew.

    Tieleman (2008) kept one chain for each datum of the batch; a buffer with restarts is what Du &
    Mordatch (2019) use. The defaults here are this package's own. The memory of a `Learner` is the
    `Buffer`: `learner.memory.x`.

    Args:
        noise: what chains begin from, has `sample(n, generator)` that gives `(n, *event)`.
        size: chains in the buffer of each model, >= 1.
        restart: the probability of a chain that is drawn to begin anew, in [0, 1].
        n_chains: how many are drawn for a step of training; None for as many as data.
        kernel, n_steps, beta, kl, entropy: as for `cd`.

    Raises:
        ValueError: as `cd`; a size or n_chains < 1, a restart outside [0, 1], a noise without
            `sample`; in training, fewer chains in the buffer than are drawn, or a noise whose
            draws are not like the data.
    """
    chains = _Chains(
        "buffer", kernel, n_steps, noise, size, restart, beta, n_chains, kl, entropy
    )  # fmt: skip
    return _by_chains(chains, "PCD")


def short_run(
    kernel: Callable[[Energy], Kernel],
    n_steps: int,
    noise,
    *,
    n_chains: int | None = None,
    beta: float = 1.0,
    kl: float = 0.0,
    entropy: float = 0.0,
) -> Method:
    """Short runs: k steps from noise, each time anew (Nijkamp et al. 2019).

    What is learned is a sampler of k steps: its draws may look right where the law of the energy
    does not.

    Args:
        noise, n_chains, kernel, n_steps, beta, kl, entropy: as for `persistent_cd`.

    Raises:
        ValueError: as `persistent_cd`.
    """
    return _by_chains(
        _Chains(
            "noise", kernel, n_steps, noise, beta=beta, n_chains=n_chains, kl=kl, entropy=entropy
        ),
        "short run",
    )


def _by_chains(chains: _Chains, name: str) -> Method:
    def identity(energy):
        made = chains.kernel(energy)
        plain = {
            field.name: getattr(chains, field.name)
            for field in dataclasses.fields(chains)
            if field.name not in ("kernel", "noise")
        }
        return plain | {
            "kernel": [made.name, made.step_size, made.n_gradients],
            "noise": type(chains.noise).__name__,
        }

    def memory(n_models, like, generator):
        if chains.start != "buffer":
            return nn.Module()
        x = draw_noise(chains.noise, (n_models or 1) * chains.size, generator, like)
        return Buffer(x if n_models is None else x.unflatten(0, (n_models, -1)), n_models)

    return Method(name, identity, memory, functools.partial(_chain_phase, chains))


def _chain_phase(chains: _Chains, energy, data, memory, generator) -> Phase:
    """A contrast of data and chains; all points of one model after another for the kernel."""
    of_data = losses.energies_at(energy, data, "data")
    models = of_data.shape[:-1]
    start, places = _start(chains, data, memory, generator, models)
    flat = _by_rows(energy, models)
    rows = start.flatten(0, 1) if models else start
    with still(energy):
        kernel = chains.kernel(tempered(flat, chains.beta))
        improved = chains.kl or chains.entropy
        n_steps = chains.n_steps - bool(improved)
        rate = rows.new_ones(len(rows))
        if n_steps:
            try:
                rows, rate = run(kernel, rows, n_steps, generator)
            except losses.NotFinite as error:
                raise losses.NotFinite(str(error), _grouped(error.bad, models)) from error
        left_out = 0.0
        if improved:
            _check_langevin(kernel)
            moved = last_step(flat, rows, kernel.step_size, generator, chains.beta)
            rows = moved.detach()
            left_out = chains.kl * _grouped(held(flat, moved), models).mean(-1)
            if chains.entropy:
                among = None if places is None else memory.x.flatten(len(models) + 1)
                spread = nearest_entropy(_grouped(moved.flatten(1), models), among, places)
                left_out = left_out - chains.entropy * spread
    negatives = _grouped(rows, models)
    if places is not None:
        memory.put(places, negatives)
    of_negatives = losses.energies_at(energy, negatives, "negatives")
    n, m = of_data.shape[-1], of_negatives.shape[-1]
    # One gradient to begin with and those of the steps; the term left out has three of its own.
    per_chain = 1 + n_steps * kernel.n_gradients if n_steps and kernel.n_gradients else 0
    # Of kernels that ask for fresh points, at each step; the one to begin with is counted above.
    alone = n_steps * kernel.n_energies
    return Phase(
        of_data.mean(-1) - of_negatives.mean(-1) + left_out,
        of_data,
        of_negatives,
        negatives,
        _grouped(rate, models).mean(-1),
        n + m * (1 + per_chain + 3 * bool(improved)),
        m * alone,
    )


def _check_langevin(kernel: Kernel) -> None:
    if kernel.name not in ("ula", "mala"):
        raise ValueError(f"kernel: expected ula or mala with kl or entropy > 0; got {kernel.name}")


def _start(chains: _Chains, data, memory, generator, models):
    """Where the chains begin, and their places in the buffer where there is one."""
    n = chains.n_chains or data.shape[len(models)]
    if chains.start == "data":
        start, places = data.detach(), None
    elif chains.start == "noise":
        fresh = draw_noise(chains.noise, math.prod(models) * n, generator, data)
        start, places = _grouped(fresh, models), None
    else:
        places, start = memory.draw(n, generator, chains.restart, chains.noise)
    if start.shape[len(models) + 1 :] != data.shape[len(models) + 1 :]:
        raise ValueError(
            f"noise: expected events of {tuple(data.shape[len(models) + 1 :])}, as data; got "
            f"{tuple(start.shape[len(models) + 1 :])}"
        )
    return start, places


def _grouped(x: Tensor, models: torch.Size) -> Tensor:
    return x.unflatten(0, (*models, -1)) if models else x


def _by_rows(energy: Energy, models: torch.Size) -> Energy:
    """k models as one energy of rows, those of each model in one piece."""
    return (lambda x: energy(_grouped(x, models)).flatten()) if models else energy


class still:
    """A context in which an energy is in eval mode: one law for a whole chain.

    In training mode a spectral norm moves with each pass, and dropout throws dice.
    """

    def __init__(self, energy):
        self.modules = list(energy.modules()) if isinstance(energy, nn.Module) else []

    def __enter__(self):
        self.training = [module.training for module in self.modules]
        for module in self.modules:
            module.training = False

    def __exit__(self, *_):
        for module, training in zip(self.modules, self.training, strict=True):
            module.training = training


# Noise contrast ------------------------------------------------------------------------------


class Constant(nn.Module):
    """c of `losses.nce_loss`, learned beside the energy: -log Z in the end."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.value = nn.Parameter(value)


def noise_contrastive(noise, nu: int = 1, constant: float = 0.0) -> Method:
    """Noise contrastive estimation, see `losses.nce_loss` (Gutmann & Hyvarinen 2010).

    The memory of a `Learner` holds c: `learner.memory.value`.

    Args:
        noise: q, has `sample(n, generator)` and `log_prob(x)`, normalised. It must have mass
            wherever the data have; the less it is like them, the less is learned from a draw.
        nu: draws for each datum, >= 1.
        constant: c at first.

    Raises:
        ValueError: nu < 1, a noise without `sample` or `log_prob`; in training, see
            `losses.nce_loss`.
    """
    nu = whole_number("nu", nu, 1)
    for needed in ("sample", "log_prob"):
        if not hasattr(noise, needed):
            raise ValueError("noise: expected a law with sample(n, generator) and log_prob(x)")

    def memory(n_models, like, generator):
        shape = () if n_models is None else (n_models,)
        return Constant(torch.full(shape, constant, dtype=like.dtype, device=like.device))

    def phase(energy, data, memory, generator):
        of_data = losses.energies_at(energy, data, "data")
        models = of_data.shape[:-1]
        n = nu * of_data.shape[-1]
        draws = _grouped(draw_noise(noise, math.prod(models) * n, generator, data), models)
        of_draws = losses.energies_at(energy, draws, "draws")
        loss = losses.nce_of(
            of_data,
            of_draws,
            memory.value,
            losses.log_noise(noise, data, of_data, "data"),
            losses.log_noise(noise, draws, of_draws, "draws"),
        )
        return Phase(loss, of_data, of_draws, draws, None, of_data.shape[-1] + n)

    def identity(energy):
        return {"noise": type(noise).__name__, "nu": nu}

    return Method("NCE", identity, memory, phase)


# Slopes --------------------------------------------------------------------------------------


def matching(n_directions: int | None = None) -> Method:
    """Score matching, see `losses.score_matching` and `losses.sliced_score_matching`.

    Args:
        n_directions: random directions for each datum, >= 1; None for the exact trace.

    Raises:
        ValueError: n_directions < 1.
    """
    if n_directions is not None:
        whole_number("n_directions", n_directions, 1)

    def phase(energy, data, memory, generator):
        of_data = losses.energies_at(energy, data, "data")
        if n_directions is None:
            loss = losses.score_matching(energy, data)
            each = data.flatten(of_data.dim()).shape[-1]
        else:
            directions = _normal((n_directions, *data.shape), data, generator)
            loss = losses.sliced_score_matching(energy, data, directions)
            each = n_directions
        return Phase(loss, of_data, None, None, None, of_data.shape[-1] * 2 * (1 + each))

    name = "score matching" if n_directions is None else "sliced score matching"
    return Method(name, lambda energy: {"n_directions": n_directions}, _nothing, phase)


def denoised(sigmas: float | tuple[float, ...], *, conditional: bool = False) -> Method:
    """Denoising score matching (Vincent 2011), see `losses.denoising`.

    Args:
        sigmas: > 0, one or several; of several each datum is given one by chance, all alike.
        conditional: the energy is called as `energy(x, sigma)`, sigma being 0-d or one for each
            datum, `(n,)` or `(k, n)`.

    Raises:
        ValueError: no sigma, or one that is not > 0 and finite.
    """
    given = tuple(sigmas) if isinstance(sigmas, tuple | list) else (sigmas,)
    given = tuple(positive_number("sigmas", sigma) for sigma in given)
    if not given:
        raise ValueError("sigmas: expected one or more")

    def phase(energy, data, memory, generator):
        scales = torch.tensor(given, dtype=data.dtype, device=data.device)
        of_data = losses.energies_at(
            (lambda x: energy(x, scales.min())) if conditional else energy, data, "data"
        )
        noise = _normal(data.shape, data, generator)
        at = torch.randint(len(given), of_data.shape, generator=generator, device=data.device)
        loss = losses.denoising(energy, data, noise, scales[at], conditional=conditional)
        return Phase(loss, of_data, None, None, None, 2 * of_data.shape[-1])

    def identity(energy):
        return {"sigmas": list(given), "conditional": conditional}

    return Method("denoising", identity, _nothing, phase)


def _normal(shape, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
