"""Energies learned without Z on the laws of `lab.plane`: which way is best.

    compare        all ways to learn at equal numbers of gradients
    sweep          the same with other step sizes and rates
    opponents      densities that need no energy
    short_run_law  whether what short runs learn is a sampler or a density

k models that differ in their seed stand side by side, and never meet.
"""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmbook.lab.likelihood_exact import Estimate
from ebmbook.lab.plane import Law, Scores, level, owner, scores, scores_of
from ebmref import likelihood as L
from ebmref import training
from ebmref.energies import Gaussian
from ebmref.metrics import gaussian_kernels, kernel_distance
from ebmref.samplers import Kernel, ex2mcmc, mala, sample, ula
from ebmref.seeds import derive_seed

# An energy alone is one pass, a gradient along x two: what a budget counts of the former.
FORWARD = 0.5


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


# All ways at one price ---------------------------------------------------------------------------


class Entry(NamedTuple):
    """A way to learn and the rates found to suit it."""

    method: L.Method
    learning_rate: float = 3e-3
    constant_rate: float | None = None


def entries(law: Law, data: Tensor, *, step: float = 1.0, rate: float = 1.0) -> dict[str, Entry]:
    """The ways that are compared, by name; noise is the Gaussian of the data's moments.

    Rates and step sizes are those that `sweep` found to do well on the ring. CD without jumps sees
    the masses of modes late, and persistent chains without jumps drive them about: hence each also
    with chains that jump, by fresh points of the noise among which the next one is chosen
    (Ex2MCMC).

    Args:
        step: times which the step sizes of chains are taken, and the blur of denoising.
        rate: times which the learning rates are.
    """
    noise = Gaussian(data.mean(0), data.T.cov())
    far = Gaussian(data.mean(0), 25 * data.T.cov())

    def local(energy) -> Kernel:
        return mala(energy, 0.04 * step)

    def jumping(energy) -> Kernel:
        return ex2mcmc(energy, noise, 0.04 * step, 16, 4)

    grid = L.exact(L.on_grid(law.points, law.cell), len(law.points))
    made = {
        "exact": Entry(grid, 1e-2),
        "CD-1": Entry(L.cd(lambda energy: ula(energy, 0.02 * step), 1)),
        "CD-10": Entry(L.cd(local, 10), 1e-2),
        "CD-10, both terms": Entry(L.cd(local, 10, kl=1.0, entropy=1.0), 2e-3),
        "PCD": Entry(L.persistent_cd(local, 10, noise), 1e-3),
        "CD, jumps": Entry(L.cd(jumping, 2), 2e-2),
        "PCD, jumps": Entry(L.persistent_cd(jumping, 2, noise), 2e-2),
        "short run": Entry(L.short_run(local, 20, noise)),
        "NCE": Entry(L.noise_contrastive(noise, 4), 1e-2, 1e-2),
        "NCE, far noise": Entry(L.noise_contrastive(far, 4), 1e-2, 1e-2),
        "score matching": Entry(L.matching(), 6e-3),
        "sliced": Entry(L.matching(1)),
        "denoising": Entry(L.denoised(0.1 * step), 1e-3),
        "denoising, three": Entry(L.denoised((0.05 * step, 0.2 * step, 0.8 * step))),
    }
    return {
        name: entry._replace(
            learning_rate=rate * entry.learning_rate,
            constant_rate=entry.constant_rate and rate * entry.constant_rate,
        )
        for name, entry in made.items()
    }


def network(
    n_models: int, seed: int, *, hidden: tuple[int, ...] = (128, 128), unit: float = 1 / 3,
    device="cpu",
) -> L.Perceptrons:  # fmt: skip
    """k energies of the plane in a wide bowl, in a unit in which modes are not narrow."""
    draws = _source(seed, "weights", device)
    return L.Perceptrons(2, hidden, n_models, draws, confine=2.0, unit=unit)


class Curve(NamedTuple):
    """How one way to learn went, at b budgets, for k models.

    Attributes:
        spent: evaluations by then, for one model, `(b,)`: gradients, and `FORWARD` times the
            energies without one that chains asked for.
        n_steps: of training, `(b,)`.
        kl: `(b, 2, k)`, of the weights as they are and of their average.
        masses: `(b, 2, k, 8)`.
        constant: |c + log Z| of the weights as they are, `(b, k)`; None but for noise contrast.
        alive: which models have not diverged, `(k,)`.
        log_q: of the first model's average at the last budget, on the law's grid, `(m,)`.
    """

    spent: Tensor
    n_steps: Tensor
    kl: Tensor
    masses: Tensor
    constant: Tensor | None
    alive: Tensor
    log_q: Tensor


def compare(
    law: Law, ways: Mapping[str, Entry], data: Tensor, budgets: tuple[float, ...], n_models: int,
    seed: int, *, hidden: tuple[int, ...] = (128, 128), batch: int = 256, average: float = 0.999,
    unit: float = 1 / 3,
) -> dict[str, Curve]:  # fmt: skip
    """Train by each way up to the largest budget, looked at when each of the budgets is spent.

    All begin at the same weights. Rates fall along a cosine up to the largest budget, so that only
    there the weights as they are have settled; before it their average tells more.

    Args:
        ways: of `entries`.
        data: `(n, 2)`, on the device of the law.
        budgets: increasing; see `Curve.spent`.
        unit: of length, for the networks.
    """
    made = {}
    for name, entry in ways.items():
        whole = price(entry, data, n_models, hidden=hidden, batch=batch)
        stops = [max(1, int(budget / whole)) for budget in budgets]
        if sorted(set(stops)) != stops:
            raise ValueError(f"budgets: expected to increase by a step of {name} ({whole:g}) each")
        recipe = L.Recipe(
            batch, entry.learning_rate, entry.constant_rate, average=average,
            anneal_over=stops[-1], alone=True,
        )  # fmt: skip
        net = network(n_models, seed, hidden=hidden, unit=unit, device=data.device)
        learner = L.Learner(net, entry.method, recipe, seed, n_models)
        found = []
        for stop in stops:
            bring_living(learner, stop, data)
            plain, averaged = (scores(law, learner.model(mean)) for mean in (False, True))
            c = getattr(learner.memory, "value", None)
            found.append((
                torch.tensor(learner.n_gradients + FORWARD * learner.n_energies),
                torch.tensor(learner.step),
                torch.stack([plain.kl, averaged.kl]),
                torch.stack([plain.masses, averaged.masses]),
                torch.zeros(()) if c is None else (c.detach() + plain.log_z).abs(),
            ))  # fmt: skip
        *parts, constant = (torch.stack(part) for part in zip(*found, strict=True))
        is_told = hasattr(learner.memory, "value")
        log_q = -learner.model(averaged=True)(law.points)[0].detach() - averaged.log_z[0]
        made[name] = Curve(*parts, constant if is_told else None, learner.alive, log_q)
    return made


# What `sweep` tries beside the step sizes and rates as they are; and the ways without a step.
VARIANTS = ((1.0, 1.0), (1.0, 1 / 3), (1.0, 3.0), (0.5, 1.0), (2.0, 1.0))
STEPLESS = ("exact", "NCE", "NCE, far noise", "score matching", "sliced")


def sweep(
    law: Law, names: tuple[str, ...], data: Tensor, budget: float, n_models: int, seed: int, *,
    hidden: tuple[int, ...] = (128, 128), batch: int = 256,
) -> dict[str, Tensor]:  # fmt: skip
    """KL of the averaged weights when the step sizes and rates of `entries` are others.

    Args:
        names: of ways.

    Returns:
        By name `(len(VARIANTS), k)`, NaN of models that diverged, and where a way has no step that
        could be another.
    """
    kl = {name: torch.full((len(VARIANTS), n_models), math.nan) for name in names}
    for i, (step, rate) in enumerate(VARIANTS):
        made = entries(law, data, step=step, rate=rate)
        ways = {name: made[name] for name in names if step == 1 or name not in STEPLESS}
        curves = compare(
            law, ways, data, (budget,), n_models, seed, hidden=hidden, batch=batch
        )  # fmt: skip
        for name, curve in curves.items():
            kl[name][i] = curve.kl[-1, 1].masked_fill(~curve.alive, math.nan)
    return kl


def middle(values: Tensor) -> Estimate:
    """The median of models `(k,)`, the upper one of two; its error by the bootstrap.

    Models that diverged, NaN, count as the worst; where they are half of all it is infinite.
    """
    ranked = values.double().cpu().nan_to_num(nan=math.inf)
    draws = torch.Generator().manual_seed(0)
    again = torch.randint(len(ranked), (1000, len(ranked)), generator=draws)
    upper = len(ranked) // 2
    low, high = ranked[again].sort(1).values[:, upper].sort().values[[160, 840]]
    return Estimate(ranked.sort().values[upper], 0.5 * (high - low))


def opponents(law: Law, data: Tensor) -> dict[str, Tensor]:
    """KL of what needs no energy: the data's Gaussian, and kernel densities at their best width.

    The width is chosen by that KL itself, which no user could: an opponent at its strongest.

    Args:
        data: `(n, 2)`.
    """
    gaussian = Gaussian(data.mean(0), data.T.cov())
    square = torch.cdist(law.points, data).square()
    widths = torch.tensor([0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3])
    kernels = torch.stack([
        (square / (-2 * h**2)).logsumexp(1) - math.log(2 * math.pi * h**2 * len(data))
        for h in widths.tolist()
    ])  # fmt: skip
    kl = scores(law, lambda x: -gaussian.log_prob(x)[None]).kl[0]
    each = scores_of(law, kernels).kl
    return {"gaussian": kl, "kernels": each.min(), "kernel-width": widths[each.argmin().cpu()]}


def price(
    entry: Entry, data: Tensor, n_models: int, *, hidden: tuple[int, ...], batch: int
) -> float:
    """What a step costs, in the evaluations of `Curve.spent`, by making one."""
    net = network(n_models, 0, hidden=hidden, device=data.device)
    learner = L.Learner(net, entry.method, L.Recipe(batch), 0, n_models)
    step = learner.advance(data)
    return step.n_gradients + FORWARD * step.n_energies


def bring_living(learner: L.Learner, n_steps: int, data: Tensor) -> None:
    """As far as it goes: models that diverge are told by `learner.died`."""
    try:
        training.bring(learner, n_steps, data=data)
    except training.Diverged:
        if learner.alive.any():
            raise


# A sampler or a density --------------------------------------------------------------------------


class ShortRun(NamedTuple):
    """What short runs learned: draws of l lengths, then long exact chains, beside the density.

    Attributes:
        lengths: steps of each of the l kinds of draws.
        draws: `(l + 1, k, n, 2)`; the last of chains that also jump, from where the longest ended.
        masses: of the law's parts, `(l + 1, k, 8)`.
        inside: share of the draws where 99 % of the law is, `(l + 1, k)`.
        distance: squared kernel distance of the draws to data, `(l + 1, k)`; unbiased.
        density: of the models.
        log_q: of the first model, on the law's grid, `(m,)`.
    """

    lengths: tuple[int, ...]
    draws: Tensor
    masses: Tensor
    inside: Tensor
    distance: Estimate
    density: Scores
    log_q: Tensor


def short_run_law(
    law: Law, data: Tensor, n_models: int, n_train: int, seed: int, *, n_steps: int = 20,
    ratios: tuple[int, ...] = (1, 2, 5, 25), n_long: int = 200, n_draws: int = 1000,
    hidden: tuple[int, ...] = (128, 128), batch: int = 256, step_size: float = 0.04,
) -> ShortRun:  # fmt: skip
    """Learn by short runs of n_steps, then let the same chains run on.

    Args:
        n_train: steps of training.
        ratios: of the lengths to n_steps, increasing.
        n_long: steps of the chains that jump, which are exact and reach all modes.
        n_draws: for each model and length, of data as many: at least 4.
    """
    noise = Gaussian(data.mean(0), data.T.cov())
    net = network(n_models, seed, hidden=hidden, device=data.device)
    method = L.short_run(lambda energy: mala(energy, step_size), n_steps, noise)
    recipe = L.Recipe(batch, 3e-3, average=0.999, anneal_over=n_train)
    learner = L.Learner(net, method, recipe, seed, n_models)
    training.bring(learner, n_train, data=data)
    model = learner.model(averaged=True)

    def energy(x: Tensor) -> Tensor:
        """Of rows, those of each model in one piece."""
        return model(x.unflatten(0, (n_models, -1))).flatten()

    draws = _source(seed, "short-run", data.device)
    x, done, found = noise.sample(n_models * n_draws, draws), 0, []
    lengths = tuple(n_steps * ratio for ratio in ratios)
    for length in lengths:
        chain = sample(mala(energy, step_size), x, length - done, thin=length - done,
                       generator=draws)  # fmt: skip
        x, done = chain.samples[0], length
        found.append(x)
    kernel = ex2mcmc(energy, noise, step_size, 16, 4)
    found.append(sample(kernel, x, n_long, thin=n_long, generator=draws).samples[0])
    made = torch.stack(found).unflatten(1, (n_models, -1))
    inside = (law.draws.log_prob(made.flatten(0, 2)) > level(law)).view(made.shape[:-1])
    density = scores(law, model)
    parts = nn.functional.one_hot(owner(made.flatten(0, 2), law.centres), 8).float()
    return ShortRun(
        lengths,
        made,
        parts.view(*made.shape[:-1], 8).mean(2),
        inside.float().mean(-1),
        distances(made, law.draws.sample(n_draws, draws)),
        density,
        -model(law.points)[0] - density.log_z[0],
    )


def distances(made: Tensor, data: Tensor) -> Estimate:
    """Of draws `(l, k, n, 2)` to data `(n, 2)`, by kernels as wide as a mode and as the law."""
    widths = torch.tensor([0.2, 1.0], dtype=data.dtype, device=data.device)
    kernel = functools.partial(_mixed, widths)
    pairs = torch.tensor([
        kernel_distance(x, data, kernel) for x in made.flatten(0, 1)
    ], device=data.device).view(*made.shape[:2], 2)  # fmt: skip
    return Estimate(pairs[..., 0], pairs[..., 1])


def _mixed(widths: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return gaussian_kernels(x, y, widths)
