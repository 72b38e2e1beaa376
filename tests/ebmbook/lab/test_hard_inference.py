"""Chains whose answers are known, and networks that answer them exactly, built by hand."""

import dataclasses

import pytest
import torch

from ebmbook.lab import hard_inference as lab
from ebmref import inference
from ebmref.networks import Networks

CHAIN = lab.Chain(4, 1.2, 1.7)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(k=2, n=50, seed=0):
    x = CHAIN.draw(generator(seed), k, n).x.double()
    return lab.Pairs(x, CHAIN.solve(x))


def by_hand(way):
    """Two networks that know the chain; a sine of small angles is as good as a line."""
    d, small = CHAIN.length, 1e-4
    first = torch.eye(d).double() * CHAIN.turns
    last = torch.diag(torch.full((d - 1,), CHAIN.swing).double(), 1)
    if way == "repeated":
        first = torch.cat([torch.zeros(d, d), first])
    else:
        first = torch.cat([first, small * torch.eye(d)], 1)
        last = torch.cat([-last, torch.eye(d) / small])
    net = Networks((*first.shape, d), 2, generator(), torch.sin).double().requires_grad_(False)
    for weight, value in zip(net.weights, (first, last), strict=True):
        weight.copy_(value.expand_as(weight))
    for bias in net.biases:
        bias.zero_()
    return net


def test_an_answer_is_checked_by_what_it_solves():
    x, y = CHAIN.draw(generator(1), 3, 1000)
    assert x.shape == y.shape == (3, 1000, 4)
    assert torch.allclose(CHAIN.check(y), x, atol=1e-5)
    assert x.mean().abs() < 0.05 and x.std().item() == pytest.approx(1, abs=0.03)
    one = torch.tensor([0.5, -1.0, 2.0, 0.0]).double()
    want = 2.0 - 1.2 * torch.tensor(1.7 * -1.0).double().sin()
    assert CHAIN.check(one)[2].item() == pytest.approx(want.item())


def test_the_energy_has_one_stationary_point():
    """J of the check is never singular, so J^T (x - check(y)) = 0 only where x = check(y)."""
    for at in pairs().y[0, :5]:
        jacobian = torch.autograd.functional.jacobian(CHAIN.check, at)
        assert torch.equal(jacobian.triu(), torch.eye(4).double())
        assert torch.linalg.det(jacobian).item() == pytest.approx(1)
        assert torch.allclose(jacobian.diagonal(-1), -1.2 * 1.7 * (1.7 * at[:-1]).cos())
    x, y = (part[0, 0] for part in pairs())
    starts = 3 * torch.randn(40, 4, generator=generator(2)).double()
    found = inference.lbfgs_argmin(lambda z: (x - CHAIN.check(z)).square().sum(-1), starts, 400)
    assert (found.y - y).abs().max() < 1e-5


def test_unexplained_by_hand():
    y = torch.randn(2, 4000, 3, generator=generator()) * torch.tensor([1.0, 5.0, 0.1]) + 3
    assert [part.tolist() for part in lab.unexplained(y, y)] == [[0, 0]] * 3
    middle = y.mean((0, 1)).expand_as(y)
    assert lab.unexplained(middle, y).error.mean().item() == pytest.approx(1, abs=1e-3)
    wrong = y.clone()
    wrong[1, :, 1] = 3 + 2 * (y[1, :, 1] - 3)
    off = lab.unexplained(wrong, y).error
    assert off[0] == 0 and off[1].item() == pytest.approx(1 / 3, abs=0.02)


def test_an_answer_that_ran_away_is_as_bad_as_one_to_another_question():
    y = torch.randn(1, 20_000, 3, generator=generator())
    other = lab.unexplained(y.roll(1, 1), y)
    assert other.error.item() == pytest.approx(2, abs=0.05) and other.capped < other.error
    ran = y.clone()
    ran[0, :2000] = 1e3
    left = lab.unexplained(ran, y)
    assert left.error > 1e4 and left.typical == 0
    assert left.capped.item() == pytest.approx(0.2)


@pytest.mark.parametrize("way", lab.LEARNED)
def test_sizes_are_nearest(way):
    for depth, wanted in ((1, 300), (3, 1000)):
        widths = lab.sizes(way, 6, depth, wanted)
        wanted = wanted / 6 if way == "untied" else wanted
        net = Networks(widths, 1, generator())
        assert sum(p.numel() for p in net.parameters()) == lab.count(widths)
        assert widths[0] == (12 if way in ("repeated", "untied") else 6) and widths[-1] == 6
        assert len(widths) == depth + 2 and len(set(widths[1:-1])) == 1
        gap = abs(lab.count(widths) - wanted)
        for other in (widths[1] - 1, widths[1] + 1):
            changed = (widths[0], *[other] * depth, 6)
            assert abs(lab.count(changed) - wanted) >= gap
    with pytest.raises(ValueError, match=r"way: expected one of one pass, .*; got 'fed back'"):
        lab.sizes("fed back", 6, 1, 300)


@pytest.mark.parametrize("way", ["repeated", "fed back"])
def test_a_pass_sets_one_more_link_right(way):
    found = lab.answer(way, by_hand(way), pairs(), 5)
    assert found.error.shape == (5, 2)
    # The first link is right from the start.
    assert (found.error[2:] < 1e-12).all() and (found.error[:2] > 1e-3).all()
    n_products = 8 * 4 + 4 * 4 if way == "repeated" else 4 * 8 + 8 * 4
    assert found.cost.tolist() == [n_products * done for done in range(1, 6)]


def test_untied_blocks_are_each_a_pass_and_all_together_the_size():
    """Blocks that are all the same are one that is repeated; changed in one, from there on."""
    chain, same = by_hand("repeated"), lab.Stack((8, 4, 4), 2, 3, generator()).double()
    same.nets = torch.nn.ModuleList([chain, chain, by_hand("repeated")])
    given = pairs()
    tied, untied = lab.answer("repeated", chain, given, 3), lab.answer("untied", same, given, 9)
    assert torch.equal(untied.error, tied.error) and untied.cost.tolist() == tied.cost.tolist()
    same.nets[2].weights[1].zero_()
    changed = lab.answer("untied", same, given, 9)
    assert torch.equal(changed.error[:2], tied.error[:2]) and changed.error[2, 0] > tied.error[2, 0]
    setting = lab.Setting(1, 1e-2, passes=5, batch=8)
    net = lab.learn("untied", lab.Chain(5), 600, setting, 2, 2, 0)
    assert len(net.nets) == 5 and len(net.weights) == 10
    assert abs(sum(part[0].numel() for part in net.parameters()) - 600) < 60
    assert not torch.equal(net.nets[0].weights[0], net.nets[1].weights[0])


def test_where_an_answer_costs_most_nearly_so_much():
    errors = torch.zeros(3, 2)
    found = lab.Answered(torch.tensor([10, 100, 1000]), errors, errors, errors)
    assert [found.at(cost) for cost in (1, 30, 40, 5000)] == [0, 0, 1, 2]


def test_descent_answers_by_a_network_that_knows_the_check():
    given = pairs()
    found = lab.answer("descent", by_hand("descent"), given, 60)
    assert found.error.shape == (60, 2) and (found.error[-1] < 1e-6).all()
    assert found.error[4].min() > 1e-3
    assert found.cost[[0, -1]].tolist() == [2 * 64 * 2, 2 * 64 * 61]
    path = lab.descend(CHAIN.check, given.x, 60)
    assert torch.equal(path[0], given.x) and path.shape == (61, 2, 50, 4)
    energy = (given.x - CHAIN.check(path)).square().sum(-1)
    assert (energy.diff(dim=0) <= 0).all()


def test_one_pass_is_one_pass():
    net = Networks(lab.sizes("one pass", 4, 2, 200), 2, generator()).double().requires_grad_(False)
    given = pairs()
    found = lab.answer("one pass", net, given, 9)
    assert found.error.shape == (1, 2)
    left = lab.unexplained(given.x + net(given.x), given.y)
    assert torch.equal(found.error[0], left.error) and torch.equal(found.typical[0], left.typical)
    assert torch.equal(found.capped[0], left.capped)
    assert found.cost.tolist() == [sum(w[0].numel() for w in net.weights)]


@pytest.mark.parametrize("way", lab.LEARNED)
def test_a_short_chain_is_learned(way):
    chain = lab.Chain(2, 0.5, 1.0)
    setting = lab.Setting(1, 3e-2, passes=2, batch=64)
    one, two = (lab.learn(way, chain, 100, setting, 2, 300, 3) for _ in range(2))
    assert all(map(torch.equal, one.parameters(), two.parameters()))
    found = lab.answer(way, one, lab.held_out(chain, 2, 500, 3), 30 if way == "descent" else 2)
    assert (found.error[-1] < 0.02).all()


def test_ways_see_the_same_pairs(monkeypatch):
    seen = {}

    class Spy(lab.Chain):
        def draw(self, *given):
            made = super().draw(*given)
            seen.setdefault(way, []).append(made.x)
            return made

    for way in lab.LEARNED:
        lab.learn(way, Spy(3), 60, lab.Setting(1, 1e-2, batch=8), 2, 3, 5)
    first, *others = seen.values()
    assert len(first) == 4 and first[1].shape == (2, 8, 3)
    assert not torch.equal(first[1], first[2]) and not torch.equal(first[1][0], first[1][1])
    for other in others:
        assert all(map(torch.equal, first, other))


def test_a_contest_has_every_way():
    asked = {"one pass": (60, 120), "repeated": (60,), "untied": (180,), "descent": (60,)}
    few = {"n": 40, "batch": 16, "n_passes": 3, "n_evaluations": 20}
    found = lab.contest(lab.Chain(3), asked, 2, 5, 0, **few)
    want = [("one pass", 60), ("one pass", 120), ("repeated", 60), ("untied", 180),
            ("descent", 60)]  # fmt: skip
    assert [*found.answered] == [*found.weights] == [*want, ("fed back", 60)] == [*found.rates]
    assert found.rates["fed back", 60] == found.rates["descent", 60] == 6e-2
    last = {"one pass": 0, "repeated": 1}
    one, two = (lab.cost_of(found, way, 60, last) for way in last)
    assert one == found.answered["one pass", 60].cost[0]
    assert two == found.answered["repeated", 60].cost[1]
    assert lab.median(torch.tensor([5.0, 1.0, 3.0, 4.0])) == 4
    for (way, wanted), done in found.answered.items():
        shape = {"one pass": 1, "descent": 20}.get(way, 3)
        assert done.error.shape == (shape, 2) and done.cost.shape == (shape,)
        assert abs(found.weights[way, wanted] - wanted) < 30
    assert found.known.shape == (20, 2) and (found.known[-1] < 0.02).all()
    setting = lab.best("descent", 60)
    slow = dataclasses.replace(setting, learning_rate=1e-6)
    errors = lab.sweep("descent", lab.Chain(3), 60, (setting, slow), 2, 100, 0)
    assert errors.shape == (2, 2) and (errors[0] < errors[1]).all()


def test_a_contest_trains_through_a_pass_for_each_link(monkeypatch):
    through, passes = [], lab.passes
    monkeypatch.setattr(lab, "passes", lambda *given: through.append(given[-1]) or passes(*given))
    lab.contest(lab.Chain(3), {"repeated": (60,)}, 1, 2, 0, n=9, n_passes=5)
    assert through == [3, 3, 5]


def test_one_pass_keeps_its_best_depth():
    few = {"n": 40, "batch": 16, "n_evaluations": 2}

    def of(*depths):
        found = lab.contest(lab.Chain(3), {"one pass": (80,)}, 3, 40, 1, depths=depths, **few)
        return found.answered["one pass", 80], found.weights["one pass", 80]

    shallow, deep = of(1), of(4)
    better = min(shallow, deep, key=lambda found: found[0].error[-1].median())
    assert not torch.equal(shallow[0].error, deep[0].error) and shallow[1] != deep[1]
    for both in (of(1, 4), of(4, 1)):
        assert torch.equal(both[0].error, better[0].error) and both[1] == better[1]


def test_a_contest_keeps_the_best_rate():
    """By the capped error, and with the weights and the feeding back of that network."""
    few = {"n": 60, "batch": 32, "n_passes": 3, "n_evaluations": 20}

    def of(*factors):
        return lab.contest(lab.Chain(3), {"descent": (80,)}, 3, 60, 1, factors=factors, **few)

    key, back = ("descent", 80), ("fed back", 80)
    usual, slow = of(1.0), of(1e-4)
    assert usual.answered[key].capped[-1].median() < slow.answered[key].capped[-1].median()
    for both in (of(1e-4, 1.0), of(1.0, 1e-4)):
        assert both.rates == usual.rates and slow.rates[key] == pytest.approx(6e-6)
        assert torch.equal(both.answered[key].error, usual.answered[key].error)
        assert torch.equal(both.answered[back].error, usual.answered[back].error)


def test_figures_show_every_network_and_its_cost():
    import matplotlib.pyplot as plt

    found = lab.contest(lab.Chain(3), {"one pass": (60, 120)}, 3, 2, 0, n=20, n_evaluations=2)
    final = {key: got.error[0] for key, got in found.answered.items()}
    fig, (left, right) = plt.subplots(1, 2)
    lab.show_sizes(left, found, final, [*final], "k")
    lab.show_costs(right, found, final, [*final], "k")
    *dots, line = left.lines
    assert len(dots) == 3 and line.get_label() == "one pass"
    assert [*line.get_xdata()] == [*found.weights.values()]
    medians = [float(part.median()) for part in final.values()]
    assert [*line.get_ydata()] == pytest.approx(medians)
    (course,) = right.lines
    assert [*course.get_ydata()] == pytest.approx(medians)
    assert [*course.get_xdata()] == [int(got.cost[0]) for got in found.answered.values()]
    plt.close(fig)
