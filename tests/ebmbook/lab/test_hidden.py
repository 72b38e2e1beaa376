"""Hidden angles: radii that are learned, basins whose shares are known, arms that reach."""

import math

import pytest
import torch

from ebmbook.lab import hidden as lab
from ebmref import data, inference


def test_the_relative_error_by_hand():
    at = torch.tensor([0.0, 1.0])
    truth = data.horn_radii(at)
    radii = torch.stack([truth, 1.1 * truth, truth * torch.tensor([0.5, 1.0])])
    assert lab.relative_error(radii, at).tolist() == pytest.approx([0, 0.1, 0.25], abs=1e-6)


def test_a_horn_is_learned_and_heat_closes_its_narrow_end():
    cold = lab.learn_horn(math.inf, 4, 300, 201)
    assert cold.x.shape == (4, 2000) and cold.y.shape == (4, 2000, 2)
    assert cold.radii.shape == (4, 51, 2) and (cold.radii >= 0).all()
    assert float(cold.error.median()) < 0.1
    assert torch.allclose(cold.error, lab.relative_error(cold.radii, cold.at))
    # Each network's energy is that of its own data, near the noise where it has learned.
    assert cold.energy.shape == (4,) and float(cold.energy.min()) < 1
    hot = lab.learn_horn(0.3, 4, 300, 201)
    assert torch.equal(hot.x, cold.x) and torch.equal(hot.y, cold.y)
    assert float(hot.radii[:, 0].mean()) < float(cold.radii[:, 0].mean()) - 0.3
    other = lab.learn_horn(math.inf, 1, 1, 202, n=100)
    assert other.x.shape == (1, 100) and not torch.equal(other.x[0], cold.x[0, :100])


def test_two_wells_an_angle_are_found_as_often_as_they_are_wide():
    """cos 2z + 0.1 cos z: its deeper well is at -1.1, and both are half of the circle."""

    def wells(z):
        return ((2 * z).cos() + 0.1 * z.cos()).sum(1)

    # The minima are at cos z = -0.025, equal by symmetry: none is lost.
    assert lab.success(wells, -2 * 1.00125, 2, 500, 100, 0, step_size=0.1).all()

    def tilted(z):
        return ((2 * z).cos() + 0.3 * z.sin()).sum(1)

    share = lab.success(tilted, -2 * 1.3, 2, 4000, 200, 0, step_size=0.1).double().mean()
    # Ridges at sin z = 0.075: the deeper side, below, is a little more than half of the circle.
    deeper = (0.5 + math.asin(0.075) / math.pi) ** 2
    assert float(share) == pytest.approx(deeper, abs=4 * (deeper * (1 - deeper) / 4000) ** 0.5)
    leaps = lab.success(tilted, -2.6, 2, 400, 50, 0).double().mean()
    assert 0.1 < float(leaps) < 0.6


def test_one_by_one_solves_a_sum_and_is_held_by_a_coupling():
    def apart(z):
        return ((2 * z).cos() + 0.3 * z.sin()).sum(1)

    assert lab.one_by_one(apart, -2 * 1.3, 2, 50, 1, 0).all()
    assert not lab.one_by_one(apart, -2 * 1.3 - 0.01, 2, 50, 1, 0).any()

    def chain(z):
        return apart(z.cumsum(1))

    one, four = (
        float(lab.one_by_one(chain, -6 * 1.3, 6, 300, n, 0).double().mean()) for n in (1, 4)
    )
    assert one < 0.5 and one <= four < 1


def test_reach_counts_until_the_energy_stays_below():
    def line(z):
        return (z - 1).square().sum(1)

    found = lab.reach(line, 2, 50, 30, 0)
    assert found.arrived.all() and found.evaluations.shape == (50,)
    path = inference.lbfgs_argmin(line, lab.angles(50, 2, 0), 30, keep_path=True).path
    for i in range(50):
        over = [k for k, z in enumerate(path[:, i]) if float(line(z[None])) > 1e-6]
        assert found.evaluations[i] == (over[-1] + 2 if over else 1)
    never = lab.reach(lambda z: line(z) + 1, 2, 50, 30, 0)
    assert not never.arrived.any()


def test_angles_are_even_and_repeat():
    z = lab.angles(4000, 3, 0)
    assert z.shape == (4000, 3) and float(z.min()) >= 0 and float(z.max()) < 2 * math.pi
    assert float(data.tips(z).mean((0, 1)).norm()) < 0.03
    assert torch.equal(z, lab.angles(4000, 3, 0)) and not torch.equal(z, lab.angles(4000, 3, 1))
