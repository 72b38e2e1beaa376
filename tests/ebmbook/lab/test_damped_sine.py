"""The damped sine: its law and its judges against closed forms, its trainings on a few steps."""

import math

import pytest
import torch

from ebmbook.lab import damped_sine as sine
from ebmref import ddls, gebm


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def on_curve(critic, k=1):
    return ddls.Model(sine.known(), critic, ddls.Normal(1), k)


def test_the_curve_is_that_of_the_report_and_the_height_above_it_is_zero_on_it():
    x = sine.known()(torch.zeros(1, 1, 1))[0, 0]  # u = 1/2
    assert x.tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    x = sine.known()(torch.special.ndtri(torch.tensor([[[1 / 16]]])))[0, 0]
    assert x.tolist() == pytest.approx([-1.75, 2 / (1 + math.pi / 4)], abs=1e-5)
    many = sine.draw(500, g())
    assert sine.above(many).abs().max() < 1e-5
    assert sine.above(many + torch.tensor([0.0, 0.3])) == pytest.approx(0.3, abs=1e-5)


def test_the_data_are_eleven_times_as_dense_at_the_ends():
    mass = sine.masses()
    assert float(mass.sum()) == pytest.approx(1)
    assert float(mass[0] / mass[sine.CELLS // 2]) == pytest.approx(math.exp(2.4), rel=1e-3)
    even = torch.full_like(mass, 1 / sine.CELLS)
    assert float(sine.divergence(mass, even)) == pytest.approx(0.430857, abs=1e-6)
    share = sine.bin_counts(sine.draw_places(40_000, g())[None])[0] / 40_000
    assert (share - sine.binned(mass)).abs().max() < 4 * (0.11 / 40_000) ** 0.5


def test_counts_of_the_data_are_near_and_even_ones_far():
    data, even = sine.draw_places(20_000, g())[None], torch.rand(1, 20_000, generator=g()).double()
    assert float(sine.counted(data)) == pytest.approx(19 / 40_000, abs=19 / 40_000)
    assert float(sine.counted(even)) == pytest.approx(0.4246, abs=0.02)


def test_bent_curves_are_off_by_a_share_of_each_number():
    off = sine.bent(400, 0.1, g()).numbers / torch.tensor(sine.NUMBERS) - 1
    assert 0.09 < off.abs().max() <= 0.1 + 1e-6
    assert off.mean().abs() < 0.01


def test_distance_is_to_the_nearest_place():
    x = torch.tensor([[[0.0, 0.0], [-3.0, 0.0], [-1.75, 3.0]]])
    found = sine.distance(x)[0].tolist()
    assert found[:2] == pytest.approx([0, 1], abs=2e-3)
    x1 = torch.linspace(-2, 2, 100_001).double()
    wave = -sine.above(torch.stack([x1, 0 * x1], 1))
    nearest = float(((x1 + 1.75).square() + (3 - wave).square()).min()) ** 0.5
    assert found[2] == pytest.approx(nearest, abs=2e-3)


def test_the_best_energy_has_the_law_of_the_data_and_none_has_an_even_one():
    mass = sine.masses()

    def best(x):
        at = (sine.CELLS * sine.along(x)).long().clamp(0, sine.CELLS - 1)
        return mass[at].log().float()

    model, plain = on_curve(best), on_curve(lambda x: 0 * x[..., 0])
    assert (sine.law(model)[0] - mass).abs().max() < 1e-6
    assert (sine.law(plain)[0] - 1 / sine.CELLS).abs().max() < 1e-12
    judged = sine.judge(model)
    assert float(judged.kl) < 1e-4 and float(judged.far) == 0 and float(judged.distance) < 3e-3
    assert float(sine.judge(plain).kl) == pytest.approx(0.4246, abs=1e-3)


def test_a_curve_that_is_lifted_is_off_with_all_its_mass():
    numbers = torch.tensor([sine.NUMBERS])
    numbers[0, 1] -= 10
    away = ddls.Model(sine.Curve(numbers), lambda x: 0 * x[..., 0], ddls.Normal(1))
    judged = sine.judge(away)
    assert float(judged.far) == pytest.approx(1) and float(judged.distance) > 5


def test_chi_square_knows_draws_of_the_law_from_others():
    mass = sine.masses()[None].expand(2, -1)
    data = torch.stack([sine.draw_places(5000, g(i)) for i in range(2)])
    even = torch.rand(2, 5000, generator=g(3)).double()
    p = sine.samplers_p({"data": data, "even": even}, mass)
    assert 1e-3 < p["data"] < 0.999 and p["even"] < 1e-12


def test_what_vanishes_on_the_base_changes_the_objective_and_never_the_model():
    """Three identities, for an energy of no training and t a^2 or t a added to it."""
    energy, t = sine.Minus(sine.perceptrons(1, g())), 100.0
    model = on_curve(lambda x: -energy(x).detach())
    bent = on_curve(lambda x: -energy(x).detach() + (t * sine.above(x).square()).float())
    states = model.draw(500, g(1))
    assert (model.logits(states) - bent.logits(states)).abs().max() < 1e-5
    noise = g(2)
    off = sine.lifted(sine.draw(4000, noise), noise)
    square = sine.above(off).square()
    assert float(square.mean()) == pytest.approx(0.04, rel=0.1)
    real, fake = energy(off[None]).double().detach(), -model.logits(states)
    rise = gebm.likelihood(real - t * square, fake) - gebm.likelihood(real, fake)
    assert float(rise) == pytest.approx(float(t * square.mean()), rel=1e-9)
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    x = model.events(states).double() + theta * torch.tensor([0.0, 1.0])
    slopes = [torch.autograd.grad(gebm.base_loss(
        energy(x.float()).double() + s * sine.above(x)).sum(), theta, retain_graph=True)[0]
        for s in (0.0, 10.0)]  # fmt: skip
    assert float(slopes[1] - slopes[0]) == pytest.approx(10, rel=1e-4)


def test_a_game_leads_to_the_curve_and_what_is_kept_mends_its_mass():
    data = sine.draw(5000, g())
    game = sine.play(data, 2, 200, 0.15, g(1), 0)
    start = sine.bent(2, 0.15, g(1)).requires_grad_(False)
    begun = ddls.Model(start, lambda x: 0 * x[..., 0], ddls.Normal(1), 2)
    kept = sine.keep(game, data, 60, g(2))
    judged = {name: sine.judge(model) for name, model in kept._asdict().items()}
    assert judged["alone"].distance.mean() < sine.judge(begun).distance.mean()
    for name in ("played", "logistic", "kale"):
        assert (judged[name].kl < judged["alone"].kl / 2).all(), name
    # Trained on from the same weights, and none of them is the one that played.
    assert not torch.equal(judged["played"].kl, judged["kale"].kl)
    assert not torch.equal(judged["played"].kl, judged["logistic"].kl)
    assert not torch.equal(judged["logistic"].kl, judged["kale"].kl)


def test_without_a_base_the_plane_is_covered():
    data = sine.draw(2000, g())
    model = sine.without_base(data, 2, 3, g(1), 0).model()
    x = model.events(model.draw(4000, g(2)))
    assert x.shape == (2, 4000, 2)
    spread = torch.cov(x[0].T) / torch.cov(data.T)
    assert spread.diagonal().tolist() == pytest.approx([1.44, 1.44], rel=0.1)
