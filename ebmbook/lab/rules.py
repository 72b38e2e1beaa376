"""Every rule at its best step: worlds quick enough to try all steps in, and one protocol for all.

square, known     generators whose law is known; their events carry the critic's logit along
settled           how wide a mode becomes at a step, in closed form
floors, faults    exact draws, and laws with one fault each: what a measure sees
tune              the best options of each rule at each budget, on development models
judge             each rule at its best options, on other models
ahead, leaders    paired differences over models, and which rules are not told apart
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn

from ebmbook.lab import grid_games, known_bases, races
from ebmbook.lab.grid_games import Grade
from ebmbook.lab.races import Rule
from ebmref import ddls
from ebmref.energies import GaussianMixture

_FINER = 10**0.5  # between steps that are tried

# By the name of a rule: what it may be made of, all but the step, and where its search begins.
RULES: dict[str, tuple[Rule, ...]] = {
    "flow": (Rule("gradient_flow", (1e-3,)),),
    "transport": tuple(
        Rule("transport", (3e-3,), options={"lipschitz": bound}) for bound in (2.0, 20.0)
    ),
    "Langevin": (Rule("langevin", (1e-3,)),),
    "MALA": (Rule("mala", (3e-3,)),),
    "HMC": tuple(Rule("hmc", (0.03,), options={"n_leapfrog": n}) for n in (2, 6)),
    "kinetic": tuple(
        Rule("kinetic_langevin", (0.03,), options={"friction": friction})
        for friction in (2.0, 20.0)
    ),
    "MH": (Rule("metropolis_hastings"),),
    "rejection": (Rule("rejection"),),
    "resampling": (Rule("resampling"),),
}
FRESH = ("MH", "rejection", "resampling")


# --- worlds ------------------------------------------------------------------------------


class Box(NamedTuple):
    """A prior uniform on (-reach, reach)^d whose state is the latent itself.

    It has no walls for a chain: the energy on the square pulls back from beyond by itself. Rules
    that keep no law are put back on the wall.
    """

    d: int
    reach: float
    dtype: torch.dtype = torch.float32

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`(n, d)` draws."""
        u = torch.rand(n, self.d, generator=generator, device=generator.device, dtype=self.dtype)
        return self.reach * (2 * u - 1)

    def log_prob(self, v: Tensor, temperature: float = 1.0) -> Tensor:
        """`(..., d)` to `(...)`, up to a constant."""
        return v.new_zeros(v.shape[:-1])

    def latent(self, v: Tensor) -> Tensor:
        """The latent of a state."""
        return v

    def state(self, z: Tensor) -> Tensor:
        """The state of a latent."""
        return z.clamp(-self.reach, self.reach)


def _ride(events: Tensor) -> Tensor:
    """The critic of events `(k, n, 3)` that carry their logit."""
    return events[..., 2]


def _axis(law: GaussianMixture) -> Tensor:
    """`(m,)`, the centres of an even grid along an axis."""
    return law.means[:, 0].unique()


def _log_along(x: Tensor, centres: Tensor, scale: float) -> Tensor:
    """Log-density of an axis of the grid, elementwise."""
    off = (x[..., None] - centres) / scale
    log_p = (-0.5 * off.square()).logsumexp(-1)
    return log_p - math.log(len(centres) * scale * (2 * math.pi) ** 0.5)


def square(law: GaussianMixture, reach: float, k: int = 1) -> ddls.Model:
    """The uniform law of a square, G(z) = z, with the exact critic; events `(k, n, 3)`.

    Args:
        law: an even grid of equal round modes.
    """
    centres, scale = _axis(law), float(law.scales[0])
    log_g = -2 * math.log(2 * reach)

    def generator(z):
        d = _log_along(z, centres, scale).sum(-1) - log_g
        return torch.cat([z, d[..., None]], -1)

    return ddls.Model(generator, _ride, Box(2, reach), k)


class Kind(NamedTuple):
    """Of a known base: share of bridges and width an axis, tilt and unevenness of its weights."""

    bridge: float
    width: float
    tilt: tuple | None
    uneven: float


BASES = {
    "good": Kind(0.13, 1.0, None, 0.12),
    "rim": Kind(0.28, 1.3, (0.34, 0.13, 0.06, 0.13, 0.34), 0.1),
    "weak": Kind(0.5, 1.66, (0.26, 0.2, 0.08, 0.2, 0.26), 0.3),
}
CRITICS = {
    "exact": {},
    "trained on": {"blur": 0.03, "mistake": 0.38, "floor": -2.5},
    "beside": {"blur": 0.05, "mistake": 0.6, "floor": -1.2},
    "floored": {"floor": -2.5},  # exact, but for the one fault
}


class Carrying(nn.Module):
    """Generators of the plane, latents `(k, n, 2)` to `(k, n, 3)`: an event and its logit.

    Of a `KnownBase` and the grid both densities are products over the axes, but for what a
    critic errs by: event and logit are two tables an axis, linear between their entries. That is
    some five times as quick as the densities.

    Args:
        base: k generators, their centres those of the law.
        law: an even grid of equal round modes.
        blur, floor: see `known_bases.erring`.
        wrong: `(k, m)`, nats that the critic is wrong by at each mode of the law.
        n_table: entries.
    """

    def __init__(self, base, law, blur=0.0, wrong=None, floor=-math.inf, n_table=20_001):
        super().__init__()
        k, centres = len(base.weights), base.centres
        z = torch.linspace(-known_bases.REACH, known_bases.REACH, n_table, device=centres.device)
        x = base(z.expand(2, -1).mT.expand(k, -1, -1))
        scale = math.hypot(float(law.scales[0]), blur)
        logits = _log_along(x, centres, scale) - base.log_along(x, blur)
        self.register_buffer("table", torch.stack([x, logits], -1).transpose(1, 2).flatten(0, 1))
        self.register_buffer("wrong", wrong)
        self.register_buffer("centres", centres)
        self.floor = floor

    def forward(self, z: Tensor) -> Tensor:
        k, n, _ = z.shape
        along = z.transpose(1, 2).reshape(2 * k, n)
        low, share = known_bases.column(along, self.table.shape[1])
        at = low[..., None].expand(-1, -1, 2)
        here, there = self.table.gather(1, at), self.table.gather(1, at + 1)
        found = torch.lerp(here, there, share[..., None]).view(k, 2, n, 2)
        x, d = found[..., 0].mT, found[..., 1].sum(1)
        if self.wrong is not None:
            m, first, gap = len(self.centres), self.centres[0], self.centres[1] - self.centres[0]
            place = ((x.detach() - first) / gap).round().clamp(0, m - 1).long()
            d = d + self.wrong.gather(1, place[..., 0] * m + place[..., 1])
        if self.floor > -math.inf:
            d = torch.logaddexp(d, torch.full_like(d, self.floor))
        return torch.cat([x, d[..., None]], -1)


def known(base: str, critic: str, k: int, law: GaussianMixture, generator) -> ddls.Model:
    """k generators of a kind of `BASES` with critics of a kind of `CRITICS`.

    The generators are drawn first: the same stream makes the same ones for every critic.
    """
    kind, faults, centres = BASES[base], dict(CRITICS[critic]), _axis(law)
    weights = known_bases.uneven(k, len(centres), kind.uneven, generator, kind.tilt)
    scale = kind.width * float(law.scales[0])
    made = known_bases.KnownBase(weights, centres, scale, kind.bridge)
    if mistake := faults.pop("mistake", 0.0):
        wrong = torch.randn(k, len(law.means), generator=generator, device=generator.device)
        faults["wrong"] = mistake * wrong
    return ddls.Model(Carrying(made, law, **faults), _ride, ddls.Normal(2), k)


def grade(x: Tensor, law: GaussianMixture) -> Grade:
    """`grid_games.grade` of events `(k, n, 2 or more)`."""
    return grid_games.grade(x[..., :2], law)


def kept(found: Grade) -> Tensor:
    """`(k,)`, how many modes have a tenth of their fair share or more."""
    m = found.mass.shape[1]
    return (found.mass >= 0.1 / m).sum(1)


def untouched(model: ddls.Model, n: int, law: GaussianMixture, generator) -> Grade:
    """What the base alone has, of n points a model."""
    return grade(model.events(model.draw(n, generator)), law)


def floors(law: GaussianMixture, k: int, n: int, generator: torch.Generator) -> Grade:
    """What k clouds of n exact draws have: the best that a measure can say at this size."""
    return grade(law.sample(k * n, generator).view(k, n, 2), law)


@torch.no_grad()
def dearness(model: ddls.Model, per_axis: int = 300) -> Tensor:
    """`(k,)`: passes for one exact acceptance, max e^d over mean e^d, on a lattice of latents."""
    if isinstance(model.prior, Box):
        z = grid_games.square(model.prior.reach, per_axis)
    else:
        z = grid_games.lattice(per_axis)[None]
    d = model.logits(z.expand(model.k, -1, -1).to(model.prior.dtype))
    return (d.amax(1) - d.logsumexp(1)).exp() * z.shape[1]


def basins_kl(reach: float, centres: Tensor) -> float:
    """KL to even masses of a uniform square's nearest-mode cells: what going to the nearest
    mode makes of frequencies."""
    middle = (centres[1:] + centres[:-1]) / 2
    edges = torch.cat([middle.new_tensor([-reach]), middle, middle.new_tensor([reach])]).double()
    share = edges.diff() / (2 * reach)
    return 2 * float(torch.xlogy(share, share * len(centres)).sum())


def faults(law: GaussianMixture, n: int, generator: torch.Generator) -> dict[str, Grade]:
    """Grades of laws with one fault each, `(1, n)` points, by the fault's name."""
    first = law.means[:, 0].abs() == law.means.abs().max()
    uneven = torch.where(first, 1.6, 0.6)
    bridged = law.sample(n, generator)
    far = torch.rand(n, generator=generator, device=generator.device) < 0.1
    anywhere = Box(2, float(law.means.max())).sample(n, generator)
    clouds = {
        "none": law.sample(n, generator),
        "thin": GaussianMixture(law.means, 0.5 * law.scales).sample(n, generator),
        "wide": GaussianMixture(law.means, 1.3 * law.scales).sample(n, generator),
        "uneven": GaussianMixture(law.means, law.scales, uneven).sample(n, generator),
        "bridges": torch.where(far[:, None], anywhere, bridged),
    }
    return {name: grade(cloud[None], law) for name, cloud in clouds.items()}


def settled(share: float, noise: float) -> float:
    """Spread of a mode, in its own widths, where Euler steps end: root mean square within four.

    A step multiplies the way to the mode by 1 - share and adds noise of variance
    2 share noise, so that v = noise / (1 - share / 2), of which a disc of four widths is kept.

    Args:
        share: step over the mode's variance, in (0, 2).
        noise: temperature; 1 for Langevin's.

    Raises:
        ValueError: a share for which nothing settles.
    """
    if not 0 < share < 2:
        raise ValueError(f"share: expected a number in (0, 2); got {share}")
    v = noise / (1 - share / 2)
    a = 8 / v
    return math.sqrt(v * (1 - (a / math.expm1(a) if a < 700 else 0)))


# --- the protocol ------------------------------------------------------------------------


class Best(NamedTuple):
    """What a rule does best with at a budget.

    Attributes:
        rule, step: to race.
        score: mean ring JSD over the development models.
        at_end: no longer or no shorter step was tried.
    """

    rule: Rule
    step: float | None
    score: float
    at_end: bool


def tune(
    model: ddls.Model,
    n: int,
    budgets: Iterable[int],
    law: GaussianMixture,
    generator: torch.Generator,
    rules: Mapping[str, tuple[Rule, ...]] = RULES,
    most: int = 11,
) -> dict[tuple[str, int], Best]:
    """The best options of each rule at each budget, by the ring JSD: one protocol for all.

    Steps are half a decade apart. A search begins at three of them and goes on at either end
    while the best of some budget lies there.

    Args:
        model: development models.
        n: points of each.
        most: steps that are tried of each variant.

    Returns:
        By (rule, budget); budgets below one step of a rule are left out.
    """
    budgets, found = list(budgets), {}
    for name, variants in rules.items():
        for rule in variants:
            for budget, best in _search(model, n, budgets, law, generator, rule, most).items():
                old = found.get((name, budget))
                if old is None or best.score < old.score:
                    found[name, budget] = best
    return found


def _search(model, n, budgets, law, generator, rule, most) -> dict[int, Best]:
    if not rule.steps:
        return {budget: Best(rule, None, math.nan, False) for budget in budgets}
    tried: dict[int, dict[int, float]] = {}
    todo = [0, -1, 1]
    while todo and len(tried) < most:
        place = todo.pop(0)
        step = rule.steps[0] * _FINER**place
        tried[place] = _scores(model, n, budgets, law, generator, rule, step)
        if not todo:
            best = {_lowest(tried, budget) for budget in budgets} - {None}
            ends = ((min(tried), -1), (max(tried), 1))
            todo = [end + way for end, way in ends if end in best]
    made = {}
    for budget in budgets:
        place = _lowest(tried, budget)
        if place is not None:
            at_end = place in (min(tried), max(tried))
            step = rule.steps[0] * _FINER**place
            made[budget] = Best(rule, step, tried[place][budget], at_end)
    return made


def _lowest(tried: dict[int, dict[int, float]], budget: int) -> int | None:
    scores = {place: row[budget] for place, row in tried.items() if budget in row}
    return min(scores, key=scores.get) if scores else None


def _scores(model, n, budgets, law, generator, rule, step) -> dict[int, float]:
    """Ring JSD by budget; infinite where the step is so long that states leave for infinity."""
    found = {}
    try:
        for budget, x, _ in races.race(model, n, rule, step, budgets, generator):
            value = float(grade(x, law).jsd.mean())
            found[budget] = value if math.isfinite(value) else math.inf
    except ValueError:
        found = {budget: found.get(budget, math.inf) for budget in budgets}
    return found


class Judged(NamedTuple):
    """A rule at its best options on k models.

    Attributes:
        grade: of its points.
        passes: spent a point.
        step: the one that was used.
    """

    grade: Grade
    passes: float
    step: float | None


def judge(
    model: ddls.Model,
    n: int,
    budgets: Iterable[int],
    best: Mapping[tuple[str, int], Best],
    law: GaussianMixture,
    generator: torch.Generator,
) -> dict[tuple[str, int], Judged]:
    """Each rule at each budget with the options that were best there.

    Budgets beyond the largest one that was tuned take its options.
    """
    found = {}
    for name in dict.fromkeys(name for name, _ in best):
        tuned = [budget for rule, budget in best if rule == name]
        groups: dict[tuple, list[int]] = {}
        for budget in budgets:
            at = min(budget, max(tuned))
            if at in tuned:
                use = best[name, at]
                groups.setdefault((id(use.rule), use.step), []).append(budget)
        rules = {id(use.rule): use.rule for use in best.values()}
        for (which, step), own in groups.items():
            for budget, x, cost in races.race(model, n, rules[which], step, own, generator):
                found[name, budget] = Judged(grade(x, law), cost, step)
    return found


class Ahead(NamedTuple):
    """A paired difference over models: its mean and interval."""

    mean: float
    low: float
    high: float


def ahead(a: Tensor, b: Tensor, level: float = 0.95) -> Ahead:
    """a - b of k >= 2 models each, with Student's interval."""
    off = (a - b).double()
    k = len(off)
    mean, se = float(off.mean()), float(off.std() / k**0.5)
    half = se * float(stats.t.ppf((1 + level) / 2, k - 1))
    return Ahead(mean, mean - half, mean + half)


def leaders(judged: Mapping[tuple[str, int], Judged], budget: int) -> list[str]:
    """The rule with the lowest ring JSD at a budget, and those whose interval holds no difference.

    Returns:
        Names, the best first, the others in the order of their means.
    """
    scores = {name: made.grade.jsd for (name, at), made in judged.items() if at == budget}
    order = sorted(scores, key=lambda name: float(scores[name].mean()))
    best = scores[order[0]]
    return [name for name in order if name == order[0] or ahead(scores[name], best).low <= 0]


def series(judged: Mapping[tuple[str, int], Judged], rule: str, what: str):
    """Budgets of a rule, and the mean of a part of its grade at each."""
    at = sorted(budget for name, budget in judged if name == rule)
    return at, [float(getattr(judged[rule, budget].grade, what).mean()) for budget in at]


def crossing(budgets: Iterable[int], local: Tensor, fresh: Tensor) -> float:
    """The budget from which `fresh` is below `local`, by a line between logarithms.

    Args:
        local, fresh: `(len(budgets),)`, scores, lower is better.

    Raises:
        ValueError: they do not cross.
    """
    budgets = list(budgets)
    gap = (fresh.log() - local.log()).tolist()
    last = max((i for i, value in enumerate(gap) if value > 0), default=-1)
    if last < 0 or last == len(gap) - 1:
        raise ValueError("fresh, local: expected to cross within the budgets")
    share = gap[last] / (gap[last] - gap[last + 1])
    a, b = math.log(budgets[last]), math.log(budgets[last + 1])
    return math.exp(a + share * (b - a))
