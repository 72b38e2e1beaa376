"""Basins that can be counted, the evolute against brute force, courses of known price."""

import math

import pytest
import torch

from ebmbook.lab import unknowns as lab
from ebmref import data, latent

RADII = torch.tensor([2.0, 1.5]).double()


def horn(x, y, z):
    return (y - data.horn_radii(x) * data.tips(z)).square().sum(-1)


def around(n):
    return torch.arange(n).double() * (2 * math.pi / n)


def test_triples_have_no_energy_and_starts_fill_their_ranges():
    drawn = lab.draw(200, 8, 0)
    assert float(horn(**drawn.truth).max()) < 1e-20
    x, y, z = (drawn.start[name] for name in "xyz")
    assert x.shape == z.shape == (200, 8) and y.shape == (200, 8, 2)
    for value, low, high in ((x, 0, 1), (y, -15, 15), (z, 0, 2 * math.pi)):
        assert low <= float(value.min()) and float(value.max()) <= high
        assert float(value.mean()) == pytest.approx((low + high) / 2, abs=0.05 * (high - low))
    assert not torch.equal(drawn.truth["x"], lab.draw(200, 8, 1).truth["x"])


@pytest.mark.parametrize("name", ["x", "y", "z"])
def test_what_is_hidden_is_found(name):
    drawn = lab.draw(20, 4, 0)
    found = lab.hide(horn, drawn, name, 200)
    assert float(found.error.max()) < 1e-6 and found.success == 1
    assert found.error.shape == (20,) and 2 < found.evaluations < 60
    plain = lab.hide(horn, drawn, name, 300, step_size=lab.STEPS[name])
    assert float(plain.error.max()) < 1e-5 and plain.evaluations > found.evaluations


def test_noise_on_the_answer_costs_what_the_cramer_rao_bound_says():
    drawn = lab.draw(600, 4, 0)
    noise = 0.05 * torch.randn(600, 2, generator=torch.Generator().manual_seed(0)).double()
    noisy = drawn._replace(truth=drawn.truth | {"y": drawn.truth["y"] + noise})
    x, z = drawn.truth["x"], drawn.truth["z"]
    slope = (data.horn_radii(x + 1e-5) - data.horn_radii(x - 1e-5)) / 2e-5 * data.tips(z)
    bound = 0.05 / slope.norm(dim=1)
    share = (lab.hide(horn, noisy, "x", 60).error / bound).square().mean().sqrt()
    assert float(share) == pytest.approx(1, abs=4 / 1200**0.5)


def test_a_restart_that_loses_is_no_success():
    """A double well in x: half of the starts end in the shallower one."""

    def wells(x, y, z):
        return (x.square() - 1).square() + 0.1 * x + 0 * y.sum(-1) + 0 * z

    drawn = lab.draw(4, 2, 0)
    starts = torch.tensor([0.9, -0.9]).double().expand(4, 2).contiguous()
    truth = drawn.truth | {"x": torch.full((4,), -1.0).double()}
    found = lab.hide(wells, lab.Triples(truth, {"x": starts}), "x", 100)
    assert found.success == 0.5 and float(found.error.max()) < 0.02


def test_distances_are_by_kind():
    a, b = torch.tensor([0.1]), torch.tensor([2 * math.pi - 0.1])
    assert float(lab.distance("z", a, b)) == pytest.approx(0.2, abs=1e-5)
    assert float(lab.distance("x", a, b)) == pytest.approx(2 * math.pi - 0.2, abs=1e-5)
    assert float(lab.distance("y", torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))) == 5


def test_the_evolute_tells_how_many_minima_there_are():
    even = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)).double()
    for radii in (RADII, RADII.flip(0)):
        y = (2 * even - 1) * radii
        level = (y[:, None] - radii * data.tips(around(7200))).square().sum(-1)
        assert torch.equal(lab.basins(level).number, 1 + lab.inside_evolute(y, radii).long())
    curve = lab.evolute(RADII, around(40) + 0.01)
    assert not lab.inside_evolute(1.001 * curve, RADII).any()
    assert lab.inside_evolute(0.999 * curve, RADII).all()


@pytest.mark.parametrize("shift", [0, 300, 900])
def test_the_deepest_basin_is_as_long_as_the_ridges_say(shift):
    """At (0, 1): ridges at sin z = -6/7, wherever the circle is cut."""
    y = torch.tensor([[0.0, 1.0]]).double()
    level = (y[:, None] - RADII * data.tips(around(3600))).square().sum(-1).roll(shift, 1)
    found = lab.basins(level)
    assert found.number.tolist() == [2]
    assert float(found.deepest) == pytest.approx(1 - math.acos(6 / 7) / math.pi, abs=2e-3)
    wavy = (3 * around(3600)).cos() + 0.1 * around(3600).cos()
    found = lab.basins(wavy[None].roll(shift, 1))
    assert found.number.tolist() == [3]


def test_the_misfit_is_standard_normal_by_chance_and_sees_what_a_sum_does_not():
    share = torch.linspace(0.3, 0.9, 200).double()
    draws = torch.Generator().manual_seed(0)
    hits = torch.rand(60, 200, 32, generator=draws) < share[:, None]
    by_chance = torch.tensor([lab.misfit(each.double().mean(1), share, 32) for each in hits])
    assert abs(float(by_chance.mean())) < 0.6 and 0.7 < float(by_chance.std()) < 1.4
    sign = torch.ones(200).double()
    sign[::2] = -1  # too many here, too few there: the sum is right
    assert lab.misfit(share + 0.15 * sign, share, 32) > 4


def bowl(x, z, y):
    return (x - 1).square() + (z - x).square() + 0 * y


def test_courses_rise_and_their_prices_are_evaluations():
    known = {"y": torch.zeros(5).double()}
    start = {"x": torch.zeros(5, 3).double(), "z": torch.full((5, 3), 2.0).double()}
    course = lab.together(bowl, known, start, (2, 5, 40))
    # A quadratic bowl is solved, and the descent stops, before its budget is spent.
    assert course.evaluations[:2].tolist() == [2, 5] and 5 < course.evaluations[2] < 40
    assert course.arrived[0] == 0 and course.arrived[-1] == 1
    turns = lab.in_turn(bowl, known, start, (2, 24, 24, 240), 5)
    # Two turns of five steps and a start: 1, 2 and 20 sweeps.
    found = [latent.alternating_argmin(bowl, known, start, n, 5) for n in (1, 2, 20)]
    assert turns.evaluations.tolist() == [each.n_evaluations / 15 for each in found]
    assert turns.arrived.tolist() == [
        float((each.energies < 1e-6).double().mean()) for each in found
    ]
    assert turns.arrived[0] == 0 and turns.arrived[-1] == 1
    slow = lab.together(bowl, known, start, (2,), step_size=1e-3)
    assert slow.arrived.tolist() == [0]


def test_finished_turns_shrink_a_quadratic_by_what_their_coupling_says():
    """r = 0.9: each sweep multiplies z by 0.81, and the energy by 0.81^2."""

    def valley(y, z, x):
        return y.square() / 2 - 0.9 * y * z + z.square() / 2 + 0 * x

    known = {"x": torch.zeros(2).double()}
    start = {"y": torch.zeros(2, 3).double(), "z": torch.ones(2, 3).double()}
    shares = lab.sweeps(valley, known, start, 40, 20)
    # With y = 0.9 z the energy is 0.095 z^2, met below 1e-6 at z = 0.81^28.
    first = next(i for i in range(40) if 0.095 * 0.81 ** (2 * i) < 1e-6)
    assert shares.tolist() == [float(i >= shares.tolist().index(1.0)) for i in range(40)]
    assert abs(shares.tolist().index(1.0) - first) <= 1


def test_turns_of_plain_descent_have_the_price_of_their_steps():
    known = {"y": torch.zeros(5).double()}
    start = {"x": torch.zeros(5, 3).double(), "z": torch.full((5, 3), 2.0).double()}
    course = lab.in_turn(bowl, known, start, (100, 400), 4, step_size=0.2)
    assert course.evaluations.tolist() == [101, 401] and course.arrived[-1] == 1


def test_the_price_of_a_share_lies_between_budgets():
    course = lab.Course(torch.tensor([10.0, 20.0, 30.0]), torch.tensor([0.1, 0.5, 0.9]))
    assert course.price(0.7) == pytest.approx(25) and course.price(0.5) == pytest.approx(20)
    assert course.price(0.05) == 10 and course.price(0.95) == math.inf


def test_what_has_arrived_by_a_price_is_the_last_that_was_paid():
    course = lab.Course(torch.tensor([10.0, 20.0, 30.0]), torch.tensor([0.1, 0.5, 0.9]))
    assert [round(course.by(n), 6) for n in (9, 10, 29, 30, 99)] == [0, 0.1, 0.5, 0.9, 0.9]
