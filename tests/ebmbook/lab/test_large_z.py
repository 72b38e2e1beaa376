"""A large z whose free energy is a sum of quadratures: the samplers meet it, or are too high."""

import math

import pytest
import torch

from ebmbook.lab import cooling, large_z
from ebmref.free_energy import free_energy


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_exact_value_is_a_sum_over_coordinates():
    """Two angles at once, on a grid of both: no coordinate knows of the other."""
    asked = large_z.answers(3, 2, source())
    z = cooling.angles(64)
    both = torch.cartesian_prod(z, z)
    at = cooling.radii() * torch.stack([both.cos(), both.sin()], -1)  # (m, 2, 2)
    energy = (asked.y[:, None] - at).square().sum((-2, -1))
    assert (free_energy(energy, 1.0) - asked.f).abs().max() < 1e-10
    p = (-energy).softmax(1)
    kl = (p * (p * len(both)).log()).sum(1).mean()
    assert asked.divergence == pytest.approx(float(kl), abs=1e-9)


def test_answers_are_draws_of_the_model():
    """Mean squares of w_k^2 / 2 + 1 / 2, and a divergence that adds up over coordinates."""
    asked = large_z.answers(4000, 2, source())
    want = cooling.radii().square() / 2 + 0.5
    assert ((asked.y.square().mean((0, 1)) - want).abs() < 0.15).all()
    twice = large_z.answers(4000, 4, source(1)).divergence
    assert twice / asked.divergence == pytest.approx(2, rel=0.05)


def test_steps_shrink_and_end_at_the_last_one():
    betas, steps = large_z.schedule(0.2)
    assert len(betas) == len(steps) == large_z.TEMPERATURES
    assert betas[-1] == 1 and steps[-1] == pytest.approx(0.2) and steps[0] == pytest.approx(1, 1e-4)
    assert betas == sorted(betas) and steps == sorted(steps, reverse=True)
    assert betas[127] == pytest.approx(0.25)


@pytest.mark.parametrize("d", [1, 4])
def test_all_ways_find_a_small_one(d):
    asked = large_z.answers(20, d, source(d))
    for found in (
        large_z.plainly(asked, source(5)),
        large_z.annealed(asked, 1, source(6)),
        large_z.annealed(asked, 16, source(7)),
    ):
        assert found.error.shape == (20,)
        assert float(found.error.mean().abs()) < 0.2
        assert found.covered.mean() > 0.6
        assert (found.ess > 1).all() and found.pareto_k.shape == (20,)


def test_walls_and_too_few_draws_leave_it_too_high():
    asked = large_z.answers(16, 16, source())
    free = large_z.annealed(asked, 16, source(1))
    walled = large_z.annealed(asked, 1, source(2))
    plain = large_z.plainly(asked, source(3))
    assert float(free.error.mean().abs()) < 0.7
    assert walled.error.mean() > free.error.mean() + 0.8
    assert plain.error.mean() > 6 and plain.covered.mean() < 0.2
    assert math.isclose(math.log(large_z.DRAWS), 9.0148, abs_tol=1e-4)


def test_bars_hold_where_two_of_them_reach():
    found = large_z.Found(
        torch.tensor([0.0, 1.0, -3.0]), torch.tensor([0.1, 0.6, 1.0]), *2 * [torch.ones(3)]
    )
    assert found.covered.tolist() == [1, 1, 0]


def test_ends_that_reflect_or_wrap_leave_f_as_it_is():
    asked = large_z.answers(20, 2, source())
    for ends in ("reflect", "wrap"):
        found = large_z.annealed(asked, 1, source(1), ends=ends)
        assert float(found.error.mean().abs()) < 0.15
    with pytest.raises(ValueError, match="ends: expected walls"):
        large_z.annealed(asked, 1, source(1), ends="none")


def test_a_folded_energy_is_mirrored_at_its_ends():
    fold = large_z._folded(lambda y, z: z, 1)
    end = 2 * math.pi
    z = torch.tensor([1.0, end + 0.5, -0.5, 2 * end + 0.25])
    assert torch.allclose(fold(None, z), torch.tensor([1.0, end - 0.5, 0.5, 0.25]), atol=1e-5)
