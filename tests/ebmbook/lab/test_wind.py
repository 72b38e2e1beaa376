"""The pen in the wind against integrals, simulated falls and energies whose descent is known."""

import math

import pytest
import torch

from ebmbook.lab import wind as lab


def tip(push, soft=0.05):
    return push / (push.square().sum(-1, keepdim=True) + soft**2).sqrt()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rho", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("tau, noise, soft", [(1.0, 0.05, 0.05), (0.7, 0.2, 0.4)])
def test_what_the_lean_leaves_is_the_integral(rho, tau, noise, soft):
    x = torch.tensor([rho, 0.0]).double()
    draws = torch.randn(2, 40_000, 2, generator=generator(), dtype=torch.float64)
    y = tip(x + tau * draws[0], soft) + noise * draws[1]
    off = (y - y.mean(0)).square().sum(1)
    se = float(off.std()) / len(off) ** 0.5
    want = lab.left_over(rho, tau=tau, noise=noise, soft=soft)
    assert float(off.mean()) == pytest.approx(want, abs=4 * se)


def test_falls_are_of_lean_and_wind_and_repeat():
    asked = lab.falls(tip, 4000, 1, tau=2.0, noise=0.1)
    off = asked.y - tip(asked.x + asked.z)
    assert float(off.std()) == pytest.approx(0.1, rel=0.03)
    assert float(asked.x.std()) == pytest.approx(1, rel=0.03)
    assert float(asked.z.std()) == pytest.approx(2, rel=0.03)
    assert torch.equal(asked.y, lab.falls(tip, 4000, 1, tau=2.0, noise=0.1).y)
    y, z = lab.starts(4000, 1)
    assert 1.45 < float(y.abs().max()) <= 1.5 and float(z.std()) == pytest.approx(1, rel=0.03)


def test_arrival_is_the_first_evaluation_that_stays():
    away = torch.tensor([
        [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0],
    ])  # fmt: skip
    path = torch.stack([away.T, 0 * away.T], -1)
    assert lab.arrival(path, torch.zeros(4, 2)).tolist() == [2, 4, 1, 5]


def test_a_trial_of_bowls_arrives_and_keeps_the_restart_of_least_energy():
    """Two questions of three restarts; those of the second question start at a false minimum."""
    goal = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    at = goal.repeat_interleave(3, 0)
    start = at + torch.tensor([0.5, 0.2]).double()
    found = lab.trial(lambda v: (v - at).square().sum(1), goal, start, 50)
    assert found.arrived == 1 and found.evaluations <= 4
    assert torch.allclose(found.answer, goal, atol=1e-6)

    def high(v):
        wall = torch.tensor([0, 0, 0, 0, 1, 1]).double()
        return (v - at - wall[:, None] * 5).square().sum(1) + wall

    found = lab.trial(high, goal, start, 50)
    assert found.arrived == pytest.approx(4 / 6)
    assert torch.allclose(found.answer, goal, atol=1e-6)
    slow = lab.trial(high, goal, start, 3, step_size=1e-3)
    assert slow.arrived == 0 and slow.evaluations == math.inf
    sure = lab.trial(high, goal, start, 100, step_size=0.25)
    assert sure.arrived == pytest.approx(4 / 6) and 8 < sure.evaluations < 16


def test_a_trial_reads_its_answer_from_other_coordinates():
    goal = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    start = torch.full((4, 3), 0.5).double()
    at = goal.repeat_interleave(2, 0)
    found = lab.trial(
        lambda v: v.square().sum(1), goal, start, 50, read=lambda v: at + v[..., 1:] * 3
    )
    assert found.arrived == 1 and torch.allclose(found.answer, goal, atol=1e-6)
    off = lab.trial(lambda v: v.square().sum(1), goal, start, 50, read=lambda v: v[..., 1:])
    assert off.arrived == 0


def test_noise_of_the_same_size_has_the_same_mean_and_size_and_no_circle():
    angle = torch.tensor([0.0, 0.8])[:, None] + torch.randn(2, 20_000, generator=generator())
    y = torch.stack([angle.cos(), angle.sin()], -1).double()
    found = lab.noisy(y, generator(1))
    assert torch.allclose(found.mean(1), y.mean(1), atol=0.02)
    spread = [(v - v.mean(1, keepdim=True)).square().sum(-1).mean(1) for v in (y, found)]
    assert torch.allclose(*spread, rtol=0.05)
    each = (found - found.mean(1, keepdim=True)).square().mean(1)
    assert torch.allclose(each[:, 0], each[:, 1], rtol=0.05)
    assert float((found.norm(dim=-1) - 1).square().mean()) > 0.1


def test_the_mean_wind_is_the_mean_of_those_that_make_the_fall():
    x = torch.tensor([1.0, 0.0]).double().expand(400_000, 2)
    push = x + torch.randn(x.shape, generator=generator(), dtype=torch.float64)
    angle = torch.atan2(push[:, 1], push[:, 0])
    for at in (0.0, 1.2, 2.8):
        near = (angle - at).abs() < 0.03
        y = torch.tensor([[math.cos(at), math.sin(at)]]).double()
        winds = (push - x)[near]
        found = lab.mean_wind(x[:1], y)[0]
        se = winds.std(0) / len(winds) ** 0.5
        assert ((winds.mean(0) - found).abs() < 4 * se + 0.005).all()


def test_the_least_wind_explains_the_fall_and_is_the_weakest_of_those():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, -2.0]]).double()
    angle = torch.tensor([0.5, 3.0, -1.0]).double()
    y = torch.stack([angle.cos(), angle.sin()], 1)
    found = lab.least_wind(x, y)
    along = torch.linspace(0, 5, 5001).double()
    every = along[:, None, None] * y - x  # winds whose push points to y
    assert torch.allclose(found.norm(dim=1), every.norm(dim=2).amin(0), atol=1e-5)
    push = x + found
    assert float((push[[0, 2]] / push[[0, 2]].norm(dim=1, keepdim=True) - y[[0, 2]]).norm()) < 1e-9
    assert float(push[1].norm()) == 0


def test_seen_falls_lie_on_the_circle_ahead():
    seen = lab.seen_falls(500, 0, tau=1.5)
    assert torch.allclose(seen.y.norm(dim=1), torch.ones(len(seen.y)).double())
    assert (seen.y[:, 0] > 0.1).all() and 250 < len(seen.x) < 500
    push = seen.x + seen.z
    assert torch.allclose(push / push.norm(dim=1, keepdim=True), seen.y)
    assert (lab.least_wind(seen.x, seen.y).norm(dim=1) <= seen.z.norm(dim=1) + 1e-9).all()
