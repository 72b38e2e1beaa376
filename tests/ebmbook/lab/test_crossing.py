"""Modes, necks and normalisers whose answers are known."""

import math

import pytest
import torch

from ebmbook.lab import crossing
from ebmref import samplers

LIKE = {"dtype": torch.float64}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_barriers_and_shares_by_hand():
    """The pass is where both modes have the same density, at log(.7 / .3) / 14 from the middle."""
    beyond = 7 + math.log(0.7 / 0.3) / 14
    assert crossing.barrier(14.0) == pytest.approx(beyond**2 / 2 - math.log(2), abs=1e-2)
    assert 0 < crossing.barrier(4.0) < 2 < crossing.barrier(6.0) < 5
    assert crossing.true_share(14.0) == pytest.approx(0.3)
    x = crossing.modes(2.0, LIKE).sample(100_000, source())
    assert float((x[:, 0] > 0).double().mean()) == pytest.approx(crossing.true_share(2.0), abs=0.01)


def test_visits():
    """Near modes are shared, far ones not; R-hat hears only those that were started in both."""
    kernel = {d: samplers.mala(crossing.modes(d, LIKE), 1.5) for d in (2.0, 14.0)}
    near = crossing.visit(kernel[2.0], 2.0, 20, 800, source(1))
    far = crossing.visit(kernel[14.0], 14.0, 20, 800, source(2))
    spread = crossing.visit(kernel[14.0], 14.0, 20, 800, source(3), spread=True)
    assert float(near.share.mean()) == pytest.approx(crossing.true_share(2.0), abs=0.05)
    assert near.rhat < 1.05
    assert far.share.sum() == 0 and far.rhat < 1.05
    assert spread.share.tolist() == [1.0, 0.0] * 10 and spread.rhat == pytest.approx(1.67, abs=0.03)


def test_funnel():
    straight = crossing.straightened(100, 200, source(1))
    assert float(straight.neck.mean()) == pytest.approx(0.05, abs=0.02)
    assert float(straight.mouth.mean()) == pytest.approx(0.05, abs=0.02)
    short = crossing.funnel(0.01, 50, 300, source(2))
    long = crossing.funnel(3.0, 50, 300, source(3))
    assert short.mouth.mean() < 0.01 and long.neck.mean() < 0.01
    middle = crossing.funnel(1.0, 200, 600, source(4))
    assert float(middle.mouth.mean()) == pytest.approx(0.05, abs=0.025)
    assert long.mouth.mean() > short.mouth.mean()


def test_the_best_acceptance():
    assert crossing.best_acceptance(2) == pytest.approx(0.234, abs=5e-4)
    assert crossing.best_acceptance(2 / 3) == pytest.approx(0.574, abs=5e-4)
    law = crossing.wide(50, 1.0, LIKE)
    rate, jump = crossing.jump_worth(samplers.random_walk(law, 2.38 / 50**0.5), law, 60, source())
    assert rate == pytest.approx(float(crossing.acceptance(2.38)), abs=0.02)
    assert jump == pytest.approx(rate * 2.38**2 / 50, rel=0.15)


def test_neighbours_of_an_autoregressive_chain():
    law = crossing.wide(20, 1.0, LIKE)
    kernel = samplers.ula(law, 0.5)
    got = crossing.neighbours(kernel, law.sample(40, source()), 60, source(1))
    assert got == pytest.approx(0.75, abs=0.03)


def test_scaling_comes_by_rising_acceptance():
    for name, (_, steps) in crossing.SCALED.items():
        found = crossing.scaling(name, 60, 20, source(2), LIKE)
        assert found.shape == (len(steps), 2) and (found[1:, 0] > found[:-1, 0]).all()
        law = crossing.acceptance(steps[::-1])
        assert abs(found[:, 0] - law).max() < 0.08


def test_ways_out():
    """The global ones cross at once, the local ones never."""
    for name, kernel in crossing.ways_out(14.0, LIKE).items():
        found = crossing.visit(kernel, 14.0, 10, 40, source(3))
        assert (float(found.share.sum()) > 0) == (name in ("i-SIR", "Ex2MCMC", "tempering")), name


def test_log_z():
    law, q, h = crossing.known_z(LIKE)["ring"]
    got = crossing.log_z(samplers.annealed_importance_sampling, law, q, h, 200, 6, source())
    assert got.error.shape == got.claimed.shape == (6,)
    assert float(got.error.abs().max()) < 0.5 and (got.claimed > 0).all()
    assert crossing.LogZ(torch.tensor([0.15, -0.5]), torch.tensor([0.1, 0.1])).covered.tolist() == [
        1,
        0,
    ]
    assert float(crossing.wide(3, 2.0, LIKE).sample(20_000, source()).std()) == pytest.approx(
        2, 0.02
    )
    plain = crossing.naive_log_z(law, q, 4000, 6, source(1))
    assert plain.shape == (6,) and float(plain.abs().max()) < 0.2
    for one, _, _ in crossing.known_z(LIKE).values():
        assert math.isfinite(one.log_z)
