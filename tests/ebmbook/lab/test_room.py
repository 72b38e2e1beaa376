"""Energies with too much room: areas under the curve, grids of angles, and small trainings."""

import math

import pytest
import torch

from ebmbook.lab import room as lab
from ebmref import data
from ebmref.free_energy import free_energy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_area_counts_pairs_and_halves_ties():
    low, high = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0])
    assert lab.auc(low, high + 0.01, digits=1).value == lab.auc(low, high).value
    assert lab.auc(low, high + 0.01).value > lab.auc(low, high).value
    pairs = [(b > a) + 0.5 * (b == a) for a in low.tolist() for b in high.tolist()]
    assert lab.auc(low, high).value == pytest.approx(sum(pairs) / 6)
    assert lab.auc(high, low).value == pytest.approx(1 - sum(pairs) / 6)
    # Rounding is no order.
    assert lab.auc(torch.zeros(9), 1e-12 * torch.arange(5.0)).value == 0.5


def test_the_error_of_the_area_is_its_spread():
    """Two normals one apart, 300 times."""
    draws = torch.randn(300, 2, 40, generator=generator())
    found = [lab.auc(a, 1 + b) for a, b in draws]
    areas = torch.tensor([each.value for each in found])
    assert float(areas.mean()) == pytest.approx(0.7602, abs=0.01)
    assert sum(each.se for each in found) / 300 == pytest.approx(float(areas.std()), rel=0.15)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_grid_holds_every_combination(d):
    codes = lab.grid(d, 4)
    assert codes.shape == (4**d, 2 * d)
    assert len({tuple(row) for row in codes.mul(10).round().long().tolist()}) == 4**d
    assert torch.allclose(codes.view(-1, d, 2).norm(dim=-1), torch.ones(4**d, d))
    assert torch.allclose(codes.mean(0), torch.zeros(2 * d), atol=1e-6)
    assert len(lab.grid(d)) == lab.PER_ANGLE[d] ** d


def test_the_warm_energy_is_the_free_energy_of_the_grid():
    learned = lab.learn(2, 7.0, 3, 1, 0)
    y = torch.randn(5, 2, generator=generator())
    points = learned.net(learned.codes)
    table = (y[:, None] - points[:, None]).square().sum(-1)
    want = free_energy(table, 7.0)
    assert learned.energy(y).shape == (3, 5)
    assert torch.allclose(learned.energy(y), want, atol=1e-5)
    assert torch.allclose(learned.energy(y.expand(3, 5, 2)), want, atol=1e-5)


@pytest.mark.parametrize("d, fine", [(1, 20_000), (2, 300)])
def test_the_cold_energy_is_the_least_of_all_angles_not_of_the_grid(d, fine):
    learned = lab.learn(d, math.inf, 2, 60, 0)
    y = 2 * torch.randn(40, 2, generator=generator())
    with torch.no_grad():
        grid, every = (
            torch.cdist(y.expand(2, -1, -1), learned.net(codes)).square().amin(-1)
            for codes in (learned.codes, lab.grid(d, fine))
        )
    found = learned.energy(y)
    assert found.shape == (2, 40) and (found <= grid + 1e-5).all()
    # Here and there the best of a coarse grid lies in a basin that is not the deepest.
    off, coarse = ((each - every).abs().quantile(0.9) for each in (found, grid))
    assert float(off) < 1e-3 < float(coarse)


def test_points_of_the_background_fill_box_and_middle():
    box, middle = lab.box_points(4000, generator()), lab.middle_points(4000, generator())
    assert box.abs().amax(0).tolist() == pytest.approx([3, 2.4], rel=0.01)
    size = (middle / torch.tensor([2.0, 1.5])).norm(dim=1)
    assert 0.69 < float(size.max()) <= 0.7001
    # Even in the plane: half of them within 1/sqrt(2) of the edge.
    assert float((size < 0.7 / 2**0.5).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert middle.mean(0).abs().max() < 0.05


def test_a_curve_keeps_the_middle_high_and_three_angles_do_not():
    one, three = (lab.judge(lab.learn(d, math.inf, 3, 250, 201), 201, n=400) for d in (1, 3))
    assert float(one.middle.median()) > 0.95 and float(one.height.median()) > 0.4
    assert float(three.middle.median()) < 0.85
    assert float(three.height.median()) < 0.1 * float(one.height.median())
    assert float(one.held_out.max()) < 0.1 and one.box.shape == (3,)
    assert (one.box > three.box).all()


def test_heat_gives_the_middle_back():
    cold, warm = (lab.judge(lab.learn(2, beta, 3, 250, 201), 201, n=400) for beta in (math.inf, 10))
    assert float(warm.middle.min()) > 0.95 > float(cold.middle.median())
    assert float(warm.height.median()) > 5 * float(cold.height.median())


def test_a_push_raises_the_box_and_a_pull_on_it_would_not():
    box = lab.box_points(300, generator())
    plain, pushed = (
        float(lab.learn(1, math.inf, 2, 150, 201, push=push).energy(box).mean())
        for push in (0.0, 4.0)
    )
    assert pushed > 1.1 * plain


def test_trainings_differ_in_what_is_asked_alone():
    """After one step of Adam no weight is farther from another's than two rates."""
    made = [lab.learn(2, beta, 2, 1, 0) for beta in (math.inf, 10)]
    made.append(lab.learn(2, math.inf, 2, 1, 0, push=0.5))
    first = list(made[0].net.parameters())
    for other in made[1:]:
        for p, q in zip(first, other.net.parameters(), strict=True):
            assert (p - q).abs().max() <= 2e-2 * 1.001
    assert any(not torch.equal(p, q) for p, q in zip(first, made[2].net.parameters(), strict=True))
    away = lab.learn(2, math.inf, 2, 1, 1).net.parameters()
    assert max((p - q).abs().max() for p, q in zip(first, away, strict=True)) > 0.1


def test_a_network_that_begins_as_a_curve_is_that_curve():
    curve = lab.learn(1, math.inf, 2, 30, 0)
    begun = lab.learn(3, math.inf, 2, 0, 0, begin=curve)
    angles = 7 * torch.rand(20, 3, generator=generator())
    with torch.no_grad():
        made = begun.net(data.tips(angles).flatten(1))
        wanted = curve.net(data.tips(angles[:, :1]).flatten(1))
    assert torch.allclose(made, wanted, atol=1e-6)
    later = lab.learn(3, math.inf, 2, 5, 0, begin=curve)
    assert (
        float(later.net.weights[0][:, 2:].detach().abs().min()) > 0
    )  # the other angles learn as well
    again = lab.learn(1, math.inf, 2, 0, 0, begin=curve)
    assert torch.equal(again.net.weights[1], curve.net.weights[1])
    fresh = lab.learn(3, math.inf, 2, 0, 0)
    assert float(fresh.net.weights[0].detach().abs().max()) <= 6**-0.5
    stepped = lab.learn(3, math.inf, 2, 1, 0)
    assert not torch.equal(stepped.net.weights[0], fresh.net.weights[0])
    assert len(lab.learn(1, math.inf, 1, 0, 0, per_angle=12).codes) == 12


def test_judged_heights_are_of_middle_over_answers():
    """A decoder that is the ellipse itself, by hand."""

    class Ellipse:
        def __call__(self, codes):
            return codes.expand(1, *codes.shape[-2:]) * torch.tensor([2.0, 1.5])

    judged = lab.judge(lab.Learned(Ellipse(), lab.grid(1, 360), math.inf), 0, n=600)
    points = lab.middle_points(600, generator(1))
    curve = data.tips(torch.arange(360.0) * (math.pi / 180)) * torch.tensor([2.0, 1.5])
    want = torch.cdist(points, curve).amin(1).square().median()
    assert float(judged.height) == pytest.approx(float(want), rel=0.1)
    assert float(judged.held_out) == pytest.approx(0.05**2, rel=0.3)
    assert float(judged.middle) == 1 and 0.9 < float(judged.box) < 1
