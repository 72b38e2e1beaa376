"""Increasing generators, whose densities are exact, and the game that they play."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ebmbook.lab import figure_four as lab


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def moments():
    return lab.play(2, [0, 40, 80], generator(), 201)


def test_densities_are_those_of_the_draws():
    """They sum to one, and draws pass a test against them; so they do not against the data."""
    net = lab.Increasing(2, generator())
    at = lab.grid().expand(2, -1, -1)
    q = net.log_prob(at).exp()
    assert (q.sum(1) * lab.CELL).tolist() == pytest.approx([1, 1], abs=1e-5)
    z = torch.rand(2, 3000, 1, generator=generator(1), dtype=lab.DOUBLE)
    x = net(z).detach()[..., 0]
    for k in range(2):
        below = torch.cumsum(q[k] * lab.CELL, 0).numpy()
        edge = lab.grid()[:, 0].numpy() + lab.CELL / 2
        p_value = stats.kstest(x[k].numpy(), lambda t, b=below, e=edge: np.interp(t, e, b)).pvalue
        assert p_value > 1e-4


def test_a_generator_is_increasing_and_its_slope_is_its_derivative():
    net = lab.Increasing(2, generator()).double()
    t = torch.linspace(-6, 6, 40, dtype=lab.DOUBLE).view(1, -1, 1).repeat(2, 1, 1)
    t.requires_grad_()
    x = net.of_logit(t)
    (slope,) = torch.autograd.grad(x.sum(), t)
    assert (slope > 0).all()
    assert torch.allclose(net.of_logit(t, slope=True), slope, atol=1e-12)
    assert torch.allclose(net(t.detach().sigmoid()), x, atol=1e-9)


def test_latents_are_even(moments):
    game = lab.EvenGame(
        lab.Increasing(1, generator()), lab.gan.Discriminator((1,), (2,), 1, generator()), (1, 1),
        lab.gan.Recipe(), 0,
    )  # fmt: skip
    z = game.latents(20_000, generator())
    assert z.shape == (1, 20_000, 1) and z.min() > 0 and z.max() < 1
    assert float(z.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(z.std()) == pytest.approx(12**-0.5, abs=0.005)


def test_moments_hold_copies(moments):
    assert [now.step for now in moments] == [0, 40, 80]
    assert (moments[0].q - moments[2].q).abs().max() > 1e-3
    again = moments[0].generator.log_prob(lab.grid().expand(2, -1, -1)).exp()
    assert torch.allclose(again, moments[0].q)


def test_numbers_of_a_moment(moments):
    now = moments[0]
    assert float(now.p.sum() * lab.CELL) == pytest.approx(1, abs=1e-6)
    best = now.p.log() - now.q.log()
    assert now.off(best).max() < 1e-9 and now.off(best + 1).min() > 0.05
    bound = 2 * now.jsd - math.log(4)
    assert torch.allclose(now.value(best), bound, atol=1e-6)
    assert (now.value(best + 0.5) < bound).all()
    assert torch.allclose(now.best, best.sigmoid(), atol=1e-9)
    assert now.reweighted(best).max() < 1e-9
    assert torch.allclose(now.reweighted(0 * best + 3), now.jsd, atol=1e-6)
    assert now.weight.sum(1).tolist() == pytest.approx([1, 1], abs=1e-4)


def test_losses_play_other_games(moments):
    other = lab.play(2, [0, 40], generator(), 201, loss="saturating")
    assert torch.allclose(other[0].q, moments[0].q)
    assert (other[1].q - moments[1].q).abs().max() > 1e-3


def test_judges_face_the_generators_of_their_moment(moments):
    judged = lab.judge([moments[0], moments[2]], 150, generator())
    assert [part.shape for part in judged] == [(2, 901)] * 2
    for now, logits in zip((moments[0], moments[2]), judged, strict=True):
        assert (now.value(logits) <= 2 * now.jsd - math.log(4) + 1e-6).all()
        assert now.off(logits).max() < 0.1
    own = torch.stack([moments[0].off(part).mean() for part in judged])
    assert own[0] < own[1]


def test_one_hump_alone():
    """3/4 log 4/3 if the humps did not overlap."""
    assert lab.one_hump_divergence() == pytest.approx(0.2095, abs=1e-3)
    assert lab.one_hump_divergence() < 0.75 * math.log(4 / 3)
