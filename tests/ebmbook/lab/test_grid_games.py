"""Grades of clouds on the grid against areas and counts by hand; games; the counted critic."""

import math

import pytest
import torch

from ebmbook.lab import grid_games as G
from ebmref import data, ddls, gan, gebm
from ebmref.energies import GaussianMixture

LAW = data.gaussian_grid(torch.zeros(1))
THREE = data.gaussian_grid(torch.zeros(1), side=3)


def source(seed=5):
    return torch.Generator().manual_seed(seed)


def close(got, want, **tolerance):
    assert got.tolist() == pytest.approx(want, **tolerance)


def test_a_point_on_each_mode_is_even_and_has_no_width():
    found = G.grade(LAW.means[None], LAW)
    for what, want in (("quality", 1), ("least", 1), ("ratio", 1), ("kl", 0), ("spread", 0)):
        close(getattr(found, what), [want], abs=1e-6)
    assert 0.2 < found.jsd < math.log(2)  # all in the innermost ring


def test_twenty_of_25_modes_and_a_half_between_them():
    some = LAW.means[:20]
    found = G.grade(torch.stack([some, some + 0.5]), LAW)
    close(found.kl[:1], [math.log(25 / 20)], abs=1e-6)
    close(found.least, [0, 0])
    close(found.quality, [1, 0])
    # The rim has 16 modes, of which the last row's five are missing; all nine others are there.
    close(found.ratio[:1], [(9 / 9) / (11 / 16)], rel=1e-5)
    close(found.jsd[1:], [math.log(2)], abs=2e-3)  # of the law e^-8 is elsewhere


def test_draws_of_the_law_are_as_wide_as_it_is():
    found = G.grade(LAW.sample(200_000, source())[None], LAW)
    close(found.quality, [1 - math.exp(-8)], abs=2e-4)
    close(found.spread, [1], abs=0.01)
    assert found.jsd < 1e-3 and abs(found.ratio - 1) < 0.02


def test_weights_count():
    twice = torch.cat([LAW.means, LAW.means + 0.5])[None]
    weights = torch.cat([torch.zeros(25), torch.full((25,), -math.log(3))])[None]
    close(G.grade(twice, LAW, weights).quality, [0.75], rel=1e-6)
    with pytest.raises(ValueError, match="log_weights"):
        G.grade(twice, LAW, weights[:, 1:])


def test_the_trivial_ones_have_the_areas_of_discs():
    disc = math.pi * 0.2**2
    found = G.grade(G.square(2.2, 800), LAW)
    close(found.quality, [25 * disc / 4.4**2], abs=5e-4)
    close(found.least, [25 * disc / 4.4**2], abs=3e-3)
    # Through the rim's modes: half of an edge's disc is left, a quarter of a corner's.
    found = G.grade(G.square(2.0, 800), LAW)
    close(found.quality, [16 * disc / 16], abs=5e-4)
    close(found.ratio, [16 / 7], abs=0.01)
    found = G.grade(G.blob(LAW), LAW)
    assert found.ratio > 2 and found.least < 0.5 and found.quality < 0.2


def test_the_gate():
    gate = G.Gate(quality=0.7, least=0.5, skew=1.5)
    good = G.grade(LAW.means[None], LAW)
    assert gate.passes(good).tolist() == [True]
    for change in ({"quality": 0.6}, {"least": 0.4}, {"ratio": 1.6}, {"ratio": 0.6}):
        ((name, value),) = change.items()
        bad = good._replace(**{name: torch.tensor([value])})
        assert gate.passes(bad).tolist() == [False]


class Evenly(torch.nn.Module):
    """Normal latents to the uniform law of a square."""

    def forward(self, z):
        return 2.2 * torch.erf(z / math.sqrt(2))


def test_the_exact_critic_makes_the_law_of_a_square():
    critic = ddls.density_ratio_critic(
        LAW.log_prob, lambda x: x.new_full(x.shape[:1], -2 * math.log(4.4))
    )
    model = ddls.Model(Evenly(), critic, ddls.Normal(2), 2)
    alone, mended = (G.law_of(model, LAW, 400, beta=beta) for beta in (0.0, 1.0))
    close(alone.quality, 2 * [25 * math.pi * 0.04 / 4.4**2], abs=2e-3)
    close(mended.quality, 2 * [1 - math.exp(-8)], abs=1e-3)
    close(mended.ratio, [1, 1], abs=0.02)
    assert mended.jsd.max() < 1e-3


def test_the_counted_critic_is_the_ratio_of_blurred_laws():
    model = ddls.Model(lambda z: z, lambda x: x[..., 0], ddls.Normal(2), 2)
    critic = G.smooth_ratio(model, THREE, 400_000, source(), blur=0.1, cell=0.025)
    x = torch.tensor([[0.0, 0.0], [0.05, 0.02], [1.0, 1.0], [0.9, 1.0]]).expand(2, -1, -1)
    wide = GaussianMixture(THREE.means, torch.full((9,), math.hypot(0.05, 0.1)))
    of_g = -0.5 * x[0].square().sum(1) / 1.01 - math.log(2 * math.pi * 1.01)
    want = wide.log_prob(x[0]) - of_g
    assert (critic(x) - want).abs().max() < 0.07
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x)
    assert slope[0, 3, 0] > 1 and slope[0, 3].abs()[1] < 1  # towards the mode
    with pytest.raises(ValueError, match="cell"):
        G.smooth_ratio(model, THREE, 10, source(), blur=0.1, cell=0.06)


def test_a_game_gives_a_model_to_draw_from_and_a_critic_to_train():
    points = THREE.sample(200, source())
    recipe = gan.Recipe(batch=16, learning_rate=(1e-2, 1e-2), average=0.9)
    model, critic = G.play(points, 2, recipe, 4, 7, widths=(8,))
    again, _ = G.play(points, 2, recipe, 4, 7, widths=(8,))
    other, _ = G.play(points, 2, recipe, 4, 8, widths=(8,))
    z = G.lattice(3).expand(2, -1, -1)
    assert torch.equal(model.events(z), again.events(z))
    assert not torch.equal(model.events(z), other.events(z))
    assert not any(
        p.requires_grad for p in (*model.generator.parameters(), *model.critic.parameters())
    )
    assert all(p.requires_grad for p in critic.parameters())
    live, _ = G.play(points, 2, gan.Recipe(batch=16, learning_rate=(1e-2, 1e-2)), 4, 7, widths=(8,))
    assert not torch.equal(model.events(z), live.events(z))


def test_a_game_of_bases():
    points = THREE.sample(200, source())
    recipe = gebm.Recipe(batch=16, n_long=2, n_energy=1)
    game = G.play_kale(points, 2, recipe, 3, 7, widths=(8,), floor=-1.0)
    assert game.step == 3
    assert game.energy(points.expand(2, -1, -1)).min() >= -1.0
