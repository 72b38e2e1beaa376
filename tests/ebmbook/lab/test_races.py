"""Rules on a square with its exact critic: stable steps keep all modes, long ones lose them."""

import math

import pytest
import torch

from ebmbook.lab import grid_games as G
from ebmbook.lab import races as R
from ebmref import data

LAW = data.gaussian_grid(torch.zeros(1))
REACH = 2.2
# A step in the square's own units is reach^2 steps in the latents of (-1, 1)^2.
UNIT = REACH**-2


def source(seed=5):
    return torch.Generator().manual_seed(seed)


def raced(rule, step, budgets, n=800, seed=5):
    model = R.square_model(LAW, REACH)
    found = R.race(model, n, rule, step, budgets, source(seed))
    return {budget: (G.grade(x, LAW), cost) for budget, x, cost in found}


def test_the_critic_is_exact():
    model = R.square_model(LAW, REACH, 2)
    z = torch.tensor([[0.0, 0.0], [0.3, 0.1]]).expand(2, -1, -1)
    want = LAW.log_prob(REACH * z[0]) + 2 * math.log(2 * REACH)
    assert torch.allclose(model.judge(z), want.expand(2, -1), atol=1e-5)


def test_climbing_at_a_stable_step_keeps_all_modes_and_makes_them_thin():
    """The Euler step multiplies the way to a mode by 1 - h / sigma^2: 0.8 at h = 0.0005."""
    ((fine, cost),) = raced(R.RULES["flow"], 5e-4 * UNIT, [50]).values()
    assert cost == 50
    assert fine.quality > 0.99 and fine.least > 0 and fine.kl < 0.1
    assert fine.spread < 0.3
    ((coarse, _),) = raced(R.RULES["flow"], 0.1 * UNIT, [50]).values()
    assert coarse.quality < 0.1


def test_a_chain_at_a_stable_step_keeps_their_width():
    """Its states are logits of the latents: at the rim it moves a sixth as far as in the middle.
    (Langevin without rejection would be 1.2 times too wide at this step.)"""
    chain = raced(R.RULES["MALA"], 3e-3, [800], n=300)[800][0]
    assert chain.quality > 0.95 and chain.spread == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("name", list(R.RULES))
def test_no_rule_spends_more_than_its_budget(name):
    rule = R.RULES[name]
    step = rule.steps[0] if rule.steps else None
    found = raced(rule, step, [40, 100], n=300)
    least = 0.4 if name == "rejection" else 0.7  # what is accepted early costs less
    assert all(least * budget <= cost <= budget for budget, (_, cost) in found.items())
    assert list(found) == [40, 100]


def test_a_walk_goes_on():
    """A flow has reached nothing after three passes' worth, and all after more of the same run."""
    found = raced(R.RULES["flow"], 2e-4 * UNIT, [2, 100], n=400)
    assert found[2][0].quality < 0.4 < 0.99 < found[100][0].quality
    with pytest.raises(ValueError, match="budgets"):
        raced(R.RULES["flow"], 1e-4, [10, 5])


def test_a_budget_below_one_step_is_left_out():
    assert list(raced(R.RULES["HMC"], 0.01, [5, 30], n=50)) == [30]


def test_the_sweep_finds_the_stable_step_and_tells_of_ends():
    rule = R.RULES["flow"]._replace(steps=tuple(h * UNIT for h in (1e-5, 3e-4, 0.03)))
    narrow = rule._replace(steps=rule.steps[:2])
    model = R.square_model(LAW, REACH)

    def score(x):
        return 1 - G.grade(x, LAW).quality

    best = R.sweep(model, 300, {"flow": rule, "narrow": narrow}, [50], score, source())
    assert best["flow", 50].step == rule.steps[1] and not best["flow", 50].at_end
    assert best["narrow", 50].at_end
    assert best["flow", 50].score < 0.05
