"""Solutions that can be counted, and ends of trainings that are known by hand."""

import math

import pytest
import torch
from scipy.stats import binomtest, chisquare

from ebmbook.lab import ambiguity as lab
from ebmref.translation import margin_loss, travel_loss
from ebmref.translation.losses import distance

GRID = (torch.arange(400) + 0.5) / 400


def test_the_line_has_one_solution_up_and_one_down():
    """From U(0, 1) to an exponential law cut off at one, and from a law to itself."""
    whole = 1 - math.exp(-1)
    up, down = lab.line_solutions(lambda x: x, lambda u: -(-u * whole).log1p())
    for solution, sign in ((up, 1), (down, -1)):
        y = solution(GRID)
        assert (sign * y.diff() > 0).all()
        mean = (1 - 2 / math.e) / whole
        assert y.mean().item() == pytest.approx(mean, abs=1e-4)
    same, mirror = lab.line_solutions(lambda x: (x + 1) / 2, lambda u: 2 * u - 1)
    x = 2 * GRID - 1
    assert torch.allclose(same(x), x, atol=1e-6) and torch.allclose(mirror(x), -x, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_folds_keep_the_law_and_lose_the_way_back(n):
    x = (torch.arange(60_000).double() + 0.5) / 60_000
    y = lab.fold(x, n)
    assert torch.allclose(y.sort().values, x, atol=1e-3)
    assert (y.diff()[y.diff().abs() > 1e-9].sign().diff() != 0).sum() == n - 1
    # Points that share an image, which `fold` takes there one branch after the other.
    image = (torch.arange(600).double() + 0.5) / 600
    branch = torch.arange(n)[:, None]
    points = (branch + torch.where(branch % 2 == 0, image, 1 - image)) / n
    assert torch.allclose(lab.fold(points, n), image.expand(n, -1))
    best = (points - points.median(0).values).abs().mean()
    assert best.item() == pytest.approx(lab.unfolding_error(n), abs=1e-9)
    if n == 2:
        assert torch.allclose(y, 1 - (2 * x - 1).abs())
        assert lab.unfolding_error(n) == 0.25


def test_linear_solutions_of_a_polygon_are_its_rotations_and_mirrors():
    for m, of in ((3, 6), (4, 24), (5, 120)):
        found = lab.linear_permutations(m)
        want = lab.dihedral(m)
        assert len(found) == len(want) == len(want.unique(dim=0)) == 2 * m <= of
        assert set(map(tuple, found.tolist())) == set(map(tuple, want.tolist()))
        assert torch.equal(want[0], torch.arange(m)) and want[1, 0] == 1 and want[m, 1] == m - 1
    assert torch.allclose(lab.corners(4).abs(), torch.full((4, 2), 2**0.5), atol=1e-6)
    turned = lab.corners(4, math.pi / 2)
    assert torch.allclose(turned, lab.corners(4)[lab.dihedral(4)[1]], atol=1e-6)


def test_the_travel_loss_is_at_its_least_at_every_solution():
    """With S on B as S o F; and with one S for both where it is even, which no margin forbids."""
    draws = torch.Generator().manual_seed(0)
    a = torch.randn(1, 20, 2, generator=draws)
    s = lab.Map((2, 16, 8), 1, draws)
    for angle, mirror in ((0.3, 1.0), (2.0, 1.0), (1.1, -1.0)):
        c, d = math.cos(angle), math.sin(angle)
        g = torch.tensor([[c, -d * mirror], [d, c * mirror]])
        u, w = s(a), s((a @ g.T) @ g.T.inverse())
        assert travel_loss(u, w).item() == pytest.approx(-1, abs=1e-5)
        assert travel_loss(u, s(a @ g.T)).item() > -0.999
    x = 2 * torch.rand(1, 20, 1, generator=draws) - 1
    u, w = (1e6 * (y**2).expand(1, 20, 8) for y in (x, -x))
    assert travel_loss(u, w).item() == pytest.approx(-1, abs=1e-5)
    assert margin_loss(u, 0.5).item() == 0


def test_laws_are_what_they_say_and_unpaired():
    found = lab.line(0, n=2000)
    for x in found[:2]:
        assert x.shape == (2000, 1) and -1 <= x.min() < -0.99 < 0.99 < x.max() <= 1
        assert x.mean().abs() < 0.05
    assert abs(torch.corrcoef(torch.cat(found[:2], 1).T)[0, 1]) < 0.1
    weights = (0.4, 0.3, 0.2, 0.1)
    found = lab.polygon(0, math.pi / 6, weights=weights, n=2000)
    for x, modes in ((found.a, found.modes_a), (found.b, found.modes_b)):
        far, at = torch.cdist(x, modes).min(1)
        assert torch.allclose(torch.bincount(at) / 2000, torch.tensor(weights), atol=0.04)
        assert far.square().mean().item() == pytest.approx(2 * 0.25**2, rel=0.1)
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    turn = torch.tensor([[c, -s], [s, c]])
    assert torch.allclose(found.modes_b, found.modes_a @ turn.T, atol=1e-6)
    equal = lab.polygon(0, 0.0, m=3, n=3000)
    counts = torch.bincount(torch.cdist(equal.a, equal.modes_a).argmin(1))
    assert counts.tolist() == pytest.approx([1000] * 3, rel=0.1)


def test_ends_on_the_line_by_hand():
    x = 2 * GRID - 1
    slightly = -x + 0.01 * (40 * x).sin()
    images = torch.stack([
        x, -x, 2 * lab.fold(GRID, 2) - 1, 2 * lab.fold(GRID, 3) - 1, 0 * x, x + 0.3, slightly,
        x + math.nan,
    ])  # fmt: skip
    found = lab.line_ends(x, images, images)
    names = [lab.LINE_ENDS[i] for i in found.end.tolist()]
    assert names == [
        "increasing", "decreasing", "folded", "folded", *["not settled"] * 2, "decreasing",
        "not settled",
    ]  # fmt: skip
    assert found.back[:4].tolist() == pytest.approx([0, 0, 0.5, 1 / 3], abs=5e-3)
    assert found.apart[:6].tolist() == pytest.approx([0, 0, 0, 0, 0.5, 0.3], abs=5e-3)
    assert found.cycle[:2].tolist() == pytest.approx([0, 1], abs=1e-5)


def test_ends_in_the_plane_by_hand():
    laws = lab.polygon(0, math.pi / 6)
    b = laws.modes_b
    mode = torch.arange(4).repeat_interleave(25)
    draws = torch.Generator().manual_seed(0)
    noise = laws.spread * torch.randn(100, 2, generator=draws)
    ways = torch.cat([lab.dihedral(4), torch.tensor([[1, 0, 2, 3], [0, 0, 2, 3], [0, 1, 2, 3]])])
    images = b[ways[:, mode]] + noise
    divided = b[mode] + noise
    divided[:5], divided[25:30] = b[1], b[0]
    images[-1, :20] = 1.5 * b[0]  # a fifth of them four standard deviations off
    images = torch.cat([images, divided[None]])
    end, on, to = lab.plane_ends(images, mode, b, laws.spread)
    assert end.tolist() == [*range(8), 8, 9, 10, 9]
    names = lab.plane_names(4)
    assert len(names) == 11 and names[8:] == ["permuted", "merged", "not settled"]
    assert names[0] == "as paired" and names[1] == "turned by 1" and names[4] == "mirror 0"
    assert (on[:8] > 0.95).all() and on[10] < 0.85
    assert torch.equal(to[1].argmax(1), torch.tensor([1, 2, 3, 0]))
    assert to[-1, 0].tolist() == pytest.approx([0.8, 0.2, 0, 0])


def test_a_start_near_the_identity_is_one_and_others_are_shared():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(3, 50, 2, generator=draws)
    plain, near = (
        lab.Map((2, 16, 2), 3, torch.Generator().manual_seed(1), near=near)
        for near in (False, True)
    )
    assert torch.allclose(near(x) - x, 0.1 * plain(x), atol=1e-6)
    flat = lab.Map((2, 16, 1), 3, draws, flat=True)
    assert flat(x).shape == (3, 50)
    laws = lab.line(0, n=64)
    games = [lab.train(laws, lab.RECIPES[name], 3, 1, 7, width=8) for name in ("cycle", "travel")]
    for name in ("ab", "ba", "judge_a", "judge_b"):
        ones, others = (list(getattr(game.players, name).parameters()) for game in games)
        # One step of Adam moves a weight by its rate at most.
        for p, q in zip(ones, others, strict=True):
            assert (p - q).abs().max() <= 2 * 4e-3 * 1.001
    assert games[0].players.siamese is None and games[1].players.siamese is not None
    assert torch.equal(games[0]._batches[0][0], games[1]._batches[0][0])
    first, other = games[1].players.siamese, games[1].players.siamese_b
    assert first.net.weights[0] is not other.net.weights[0]
    assert all(first.net.weights[i] is other.net.weights[i] for i in (1, 2))
    one = lab.train(laws, lab.RECIPES["travel, one S"], 3, 1, 7, width=8).players
    assert all(
        p is q for p, q in zip(one.siamese.net.weights, one.siamese_b.net.weights, strict=True)
    )
    assert games[1].recipe.margin == lab.MARGIN and games[0].recipe.margin == 0
    assert games[1].recipe.travel == 1 and games[0].recipe.travel == 0
    assert games[0].recipe.anneal_over == 1


def test_trainings_end_at_both_solutions_and_the_cycle_makes_them_inverse():
    """Twelve on the line; the identity loss and a near start then leave one."""
    laws = lab.line(200)
    found = {
        name: lab.ends_on_line(lab.train(laws, lab.RECIPES[name], 12, 200, 200, width=24))
        for name in ("cycle", "identity", "near, cycle")
    }
    cycle = found["cycle"]
    assert set(cycle.end.tolist()) == {0, 1} and (cycle.cycle < 0.05).all()
    assert cycle.images.shape == (12, 400) and cycle.x.shape == (400,)
    for name in ("identity", "near, cycle"):
        assert (found[name].end == 0).all() and (found[name].cycle < 0.05).all(), name


def test_a_training_in_the_plane_is_read_with_its_own_modes():
    """Untrained maps near the identity leave the modes where they are, between those of B."""
    laws = lab.polygon(0, 0.1)
    game = lab.train(laws, lab.RECIPES["near, cycle"], 2, 1, 0, width=8)
    found = lab.ends_in_plane(laws, game, each=50)
    assert (found.end == 0).all() and (found.on > 0.9).all()
    assert found.images.shape == (2, 200, 2) and torch.bincount(found.mode).tolist() == [50] * 4
    assert torch.cdist(found.points, laws.modes_a).argmin(1).equal(found.mode)
    ab, ba = (game.average[way] for way in ("ab", "ba"))
    points = found.points.expand(2, 200, 2)
    assert torch.allclose(found.cycle, distance(ba(ab(points)), points))
    away = lab.ends_in_plane(lab.polygon(0, math.pi / 4), game, each=50)
    assert (away.end == 10).all()


def test_counts_have_exact_intervals_and_uneven_ones_a_small_tail():
    found = lab.interval(torch.tensor([True] * 7 + [False] * 5))
    want = binomtest(7, 12).proportion_ci()
    assert found == pytest.approx((want.low, want.high))
    counts = torch.tensor([3, 9, 4, 2, 5, 1, 7, 1])
    assert lab.tail(counts) == pytest.approx(chisquare(counts.numpy()).pvalue)
    assert lab.tail(torch.tensor([5, 5])) == 1
