"""One way in for all methods, each at the same budget of passes through the networks."""

import math

import torch

from ebmref import samplers
from ebmref.checks import check_draws
from ebmref.ddls.fresh import metropolis_hastings, rejection, resampling
from ebmref.ddls.model import GRADIENT_COST, Model, Refined
from ebmref.ddls.moving import (
    KERNELS,
    chains_as_planned,
    cost_of_start,
    gradient_flow,
    langevin,
    moved,
    transport,
)

# All that `refine` knows, and what it takes where it is told nothing.
METHODS = (
    "prior", "resampling", "rejection", "metropolis_hastings", "langevin", *KERNELS,
    "gradient_flow", "transport",
)  # fmt: skip
_DEFAULTS = {
    "random_walk": {"step_size": 0.5, "target_acceptance": 0.3},
    "ula": {"step_size": 0.01},
    "mala": {"step_size": 0.1, "target_acceptance": 0.57},
    "hmc": {"step_size": 0.1, "n_leapfrog": 5, "target_acceptance": 0.7},
    "kinetic_langevin": {"step_size": 0.1},
    "parallel_tempering": {"step_size": 0.1, "betas": (1.0, 0.3, 0.1)},
    "isir": {"n_proposals": 10},
    "ex2mcmc": {"step_size": 0.01, "n_proposals": 10},
}


def refine(
    model: Model, n: int, method: str, budget: int, generator: torch.Generator, **options
) -> Refined:
    """n samples of each model by any method, at a budget of passes for each of them.

        for method in ddls.METHODS:
            ddls.refine(model, 1000, method, 200, generator)

    A pass is one event made and judged; a gradient counts as GRADIENT_COST of them. What all
    samples share, as a pilot, is divided among them. The cost of what is returned is never above
    the budget, and below it only by what is left of a step, by samples that were accepted
    early, or where `n_steps` asks for fewer.

    Args:
        method: one of `METHODS`. "prior" refines nothing and costs nothing.
        options: of the method, see `resampling`, `rejection`, `metropolis_hastings`, `chains`,
            `langevin`, `gradient_flow` and `transport`. Where an acceptance is aimed at, a
            quarter of the steps are warm-up. Chains that start at data (`real_logits`) have
            half of the budget, because they may have to begin anew.

    Raises:
        ValueError: unknown method, a budget too small for one step, as the method itself.
    """
    check_draws(n, 1, generator)
    check_draws(budget, 1, generator, "budget")
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}; got {method!r}")
    options = {**_DEFAULTS.get(method, {}), **options}

    def steps(most: float, least: int = 1) -> int:
        """As many as the budget has, or as were asked for."""
        if most < least:
            raise ValueError(f"budget: expected more passes for one step of {method}; got {budget}")
        return min(int(most), options.pop("n_steps", int(most)))

    if method == "prior":
        states = model.draw(n, generator)
        return moved(states, states, 0.0, 0)._replace(temperature=1.0)
    if method == "resampling":
        return resampling(model, n, budget, generator, **options)
    if method == "rejection":
        # A tenth of all passes looks for the largest logit.
        pilot = options.setdefault("n_pilot", min(10_000, math.ceil(n * budget / 10)))
        return rejection(model, n, steps(budget - pilot / n), generator, **options)
    if method == "metropolis_hastings":
        n_steps = steps((budget - 1) / (1 if options.get("real_logits") is None else 2))
        return metropolis_hastings(model, n, n_steps, generator, **options)
    if method == "gradient_flow":
        return gradient_flow(model, n, steps(budget / GRADIENT_COST), generator, **options)
    if method == "transport":
        pairs = 0 if options.get("lipschitz") is not None else options.setdefault("n_pairs", 100)
        n_steps = steps((budget - 2 * pairs / n) / GRADIENT_COST)
        return transport(model, n, n_steps, generator, **options)
    if method == "langevin":
        # Each stage of a decaying step begins with a gradient of its own.
        gradients = budget // GRADIENT_COST
        every = options.get("decay_every") or max(1, gradients)
        return langevin(model, n, steps(gradients * every // (every + 1)), generator, **options)

    def plan(kernel: samplers.Kernel) -> tuple[int, int]:
        once, each = cost_of_start(kernel), (kernel.n_energies, kernel.n_gradients)
        once, each = (calls + GRADIENT_COST * gradients for calls, gradients in (once, each))
        tuned = options.get("target_acceptance") is not None
        n_steps = steps((budget - once) / each, 1 + tuned)
        warmup = math.ceil(n_steps / 4) if tuned else 0
        return n_steps - warmup, warmup

    return chains_as_planned(model, n, method, plan, generator, **options)
