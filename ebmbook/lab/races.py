"""Rules that draw with a critic, raced: each at its best step, looked at along its budget.

race      one rule at one step: its points whenever it has spent so many passes
sweep     rules by steps on development models: the best step of each at each budget
square_model   the uniform generator of a square with the exact critic
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import ddls, samplers
from ebmref.ddls.moving import cost_of_start
from ebmref.energies import GaussianMixture

# Rules that go on from where they are: a run is looked at as it goes.
WALKS = ("gradient_flow", "langevin", "mala", "hmc", "kinetic_langevin")
# Rules that are made anew for each budget: they spend it on fresh latents, or on one target.
FRESH = ("resampling", "rejection", "metropolis_hastings", "transport")


class Rule(NamedTuple):
    """A rule with all but its step.

    Attributes:
        method: of `ddls.METHODS`.
        steps: what is tried, along one option; empty for a rule without one.
        option: the name of that option.
        options: others.
    """

    method: str
    steps: tuple = ()
    option: str = "step_size"
    options: Mapping = {}

    def at(self, step) -> dict:
        """Options at a step."""
        return dict(self.options) | ({} if step is None else {self.option: step})


RULES = {
    "resampling": Rule("resampling"),
    "rejection": Rule("rejection"),
    "MH": Rule("metropolis_hastings"),
    "flow": Rule("gradient_flow", (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0.1)),
    "transport": Rule("transport", (1e-3, 3e-3, 1e-2, 3e-2, 0.1)),
    "Langevin": Rule("langevin", (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
    "MALA": Rule("mala", (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
    "HMC": Rule("hmc", (0.005, 0.01, 0.02, 0.05), options={"n_leapfrog": 5}),
    "kinetic": Rule("kinetic_langevin", (0.005, 0.01, 0.03, 0.06), options={"friction": 5.0}),
}


def race(
    model: ddls.Model, n: int, rule: Rule, step, budgets, generator: torch.Generator
) -> Iterator[tuple[int, Tensor, float]]:
    """Yields (budget, events `(k, n, *event)`, passes spent) at each budget, in rising order.

    A walk goes on from its last states, but for the velocities of HMC and kinetic Langevin,
    which are fresh at each look, and one evaluation there. A budget too small for one step is
    left out.

    Raises:
        ValueError: budgets that do not rise, as the rule itself.
    """
    budgets = list(budgets)
    if sorted(set(budgets)) != budgets:
        raise ValueError(f"budgets: expected rising; got {budgets}")
    options = rule.at(step)
    if rule.method in FRESH:
        for budget in budgets:
            made = ddls.refine(model, n, rule.method, budget, generator, **options)
            yield budget, model.events(made.states), made.cost
        return
    once, each = _costs(rule.method, options)
    states, done = model.draw(n, generator), 0
    for budget in budgets:
        most = int((budget - once) / each)
        if most < 1:
            continue
        if most > done:
            states = _walk(model, rule.method, states, most - done, generator, options)
            done = most
        yield budget, model.events(states), once + each * done


def _costs(method: str, options: Mapping) -> tuple[float, float]:
    """Passes of the start, and of a step."""
    if method in ("gradient_flow", "langevin"):
        start = 0 if method == "gradient_flow" else ddls.GRADIENT_COST
        return start, ddls.GRADIENT_COST
    kernel = getattr(samplers, method)(lambda v: v.sum(1), **options)
    start, step = cost_of_start(kernel), (kernel.n_energies, kernel.n_gradients)
    return tuple(calls + ddls.GRADIENT_COST * slopes for calls, slopes in (start, step))


def _walk(model, method, states, n_steps, generator, options) -> Tensor:
    n = states.shape[1]
    if method in ("gradient_flow", "langevin"):
        run = getattr(ddls, method)
        return run(model, n, n_steps, generator, start=states, **options).states
    return ddls.chains(model, n, method, n_steps, generator, start=states, **options).states


class Best(NamedTuple):
    """The best step of a rule at a budget, on development models.

    Attributes:
        step: None for a rule without one.
        score: mean over the models; lower is better.
        at_end: it is the first or the last of those tried: the sweep was too narrow.
    """

    step: float | None
    score: float
    at_end: bool


def sweep(
    model: ddls.Model,
    n: int,
    rules: Mapping[str, Rule],
    budgets,
    score,
    generator: torch.Generator,
) -> dict[tuple[str, int], Best]:
    """The best step of each rule at each budget: one protocol for all.

    Args:
        model: k development models.
        n: points of each.
        score: `(k, n, *event)` to `(k,)`; lower is better, not finite counts as infinite.
        budgets: rising.
    """
    found: dict[tuple[str, int], list] = {}
    for name, rule in rules.items():
        for place, step in enumerate(rule.steps or (None,)):
            at_end = len(rule.steps) > 1 and place in (0, len(rule.steps) - 1)
            try:
                for budget, x, _ in race(model, n, rule, step, budgets, generator):
                    value = float(score(x).double().mean())
                    value = value if math.isfinite(value) else math.inf
                    found.setdefault((name, budget), []).append(Best(step, value, at_end))
            except ValueError:  # a step so long that the states left for infinity
                continue
    return {key: min(tried, key=lambda best: best.score) for key, tried in found.items()}


def square_model(law: GaussianMixture, reach: float, k: int = 1) -> ddls.Model:
    """G(z) = reach z of a uniform latent, with its exact critic."""

    def log_uniform(x):
        return x.new_full(x.shape[:1], -2 * math.log(2 * reach))

    critic = ddls.density_ratio_critic(law.log_prob, log_uniform)
    return ddls.Model(lambda z: reach * z, critic, ddls.Uniform(2), k)
