"""Worlds for rules that need a step: tables against densities, widths against a formula, and the
search and the intervals against what is known by hand."""

import math

import pytest
import torch

from ebmbook.lab import grid_games, known_bases, races
from ebmbook.lab import rules as R
from ebmref import data, ddls

LAW = data.gaussian_grid(torch.zeros(1))
CENTRES = torch.arange(-2.0, 3.0)


def source(seed=5):
    return torch.Generator().manual_seed(seed)


class TestWorlds:
    def test_a_square_carries_the_exact_ratio(self):
        world = R.square(LAW, 2.2, 2)
        z = world.draw(300, source())
        x, d = world.events(z)[..., :2], world.judge(z)
        assert torch.equal(x, z) and float(z.abs().max()) < 2.2 < float(z.abs().max()) + 0.1
        want = LAW.log_prob(x.flatten(0, 1)).view(2, -1) + 2 * math.log(4.4)
        assert torch.allclose(d, want, atol=1e-3)

    @pytest.mark.parametrize("critic", R.CRITICS)
    def test_the_tables_are_the_densities(self, critic):
        """The same weights and mistakes by `known_bases`, which adds the densities up."""
        world, kind = R.known("rim", critic, 3, LAW, source()), R.BASES["rim"]
        draw = source()
        weights = known_bases.uneven(3, 5, kind.uneven, draw, kind.tilt)
        base = known_bases.KnownBase(weights, CENTRES, kind.width * 0.05, kind.bridge)
        faults = R.CRITICS[critic]
        slow = known_bases.erring(base, LAW, draw, **faults)
        z = torch.randn(3, 500, 2, generator=source(6))
        assert torch.allclose(world.events(z)[..., :2], base(z), atol=1e-3)
        off = (world.judge(z) - slow.judge(z)).abs()
        assert float(off.quantile(0.95)) < 0.02
        (slope,) = torch.autograd.grad(world.judge(z.requires_grad_()).sum(), z)
        (want,) = torch.autograd.grad(slow.judge(z).sum(), z)
        assert float((slope - want).abs().median()) < 0.05 * float(want.abs().median() + 1)

    def test_critics_share_their_generators(self):
        z = torch.randn(2, 50, 2, generator=source(6))
        made = (R.known("weak", c, 2, LAW, source()) for c in ("trained on", "beside"))
        one, other = (world.events(z) for world in made)
        assert torch.equal(one[..., :2], other[..., :2])
        assert not torch.equal(one[..., 2], other[..., 2])

    def test_a_box_has_walls_for_rules_without_a_law_alone(self):
        box = R.Box(2, 2.0)
        assert box.state(torch.tensor([3.0, -5.0])).tolist() == [2.0, -2.0]
        assert box.log_prob(torch.ones(4, 2)).tolist() == [0] * 4
        assert box.latent(torch.tensor([3.0])).tolist() == [3.0]

    def test_the_price_of_an_acceptance(self):
        """The square's area times the density at a mode, 1 / (25 2 pi sigma^2)."""
        for scale in (0.05, 0.025):
            grid = data.gaussian_grid(torch.zeros(1), scale=scale)
            price = R.dearness(R.square(grid, 2.2), 1500)
            assert price.tolist() == pytest.approx([4.4**2 / (50 * math.pi * scale**2)], rel=0.01)

    def test_basins(self):
        """By hand: 0.7 of a cell at either end of an axis of 4.4."""
        ends, middle = 0.7 / 4.4, 1 / 4.4
        want = 2 * (2 * ends * math.log(5 * ends) + 3 * middle * math.log(5 * middle))
        assert R.basins_kl(2.2, CENTRES) == pytest.approx(want, rel=1e-5)
        assert R.basins_kl(2.5, CENTRES) == pytest.approx(0, abs=1e-6)


class TestWidths:
    @pytest.mark.parametrize("share", [0.3, 1.0, 1.6])
    @pytest.mark.parametrize("noise", [0.01, 1.0])
    def test_a_mode_settles_where_the_formula_has_it(self, share, noise):
        """One axis of one mode, in its own widths, by the recursion."""
        draw = source()
        x = torch.zeros(40_000, 2)
        for _ in range(60):
            x = (1 - share) * x + (2 * share * noise) ** 0.5 * torch.randn(x.shape, generator=draw)
        near = x[x.norm(dim=1) < 4]
        assert R.settled(share, noise) == pytest.approx(
            float(near.square().mean().sqrt()), rel=0.01
        )

    def test_nothing_settles_beyond_two(self):
        with pytest.raises(ValueError, match="share"):
            R.settled(2.0, 0.01)

    def test_the_flow_keeps_modes_up_to_two_variances(self):
        world = R.square(LAW, 2.2, 1)

        def kept(share):
            found = ddls.gradient_flow(world, 1500, 25, source(), step_size=share * 0.05**2)
            one = R.grade(world.events(found.states), LAW)
            return int(R.kept(one)), float(one.quality)

        assert kept(1.5)[0] == 25 and kept(1.5)[1] > 0.99
        assert kept(2.5)[1] < 0.3


def test_each_fault_shows_in_the_rings_and_nothing_else_sees_all():
    found = R.faults(LAW, 20_000, source())
    base = found.pop("none")
    assert float(base.jsd) < 2e-3
    assert all(float(one.jsd) > 0.02 for one in found.values())
    sees_quality = {name for name, one in found.items() if float(one.quality) < 0.97}
    sees_kl = {name for name, one in found.items() if float(one.kl) > 0.02}
    assert sees_quality == {"bridges"} and sees_kl == {"uneven"}


class TestProtocol:
    def test_the_search_leaves_the_ends(self):
        far = {"flow": (R.RULES["flow"][0]._replace(steps=(3e-6,)),), "MH": R.RULES["MH"]}
        world = R.square(LAW, 2.2, 1)
        best = R.tune(world, 300, [10, 60], LAW, source(), far)
        assert best["MH", 60].step is None and not best["MH", 60].at_end
        assert all(not one.at_end for one in best.values())
        assert all(3e-6 < best["flow", at].step < 2 * 0.05**2 for at in (10, 60))
        few = R.tune(world, 300, [10], LAW, source(), far, most=3)
        assert few["flow", 10].at_end

    def test_the_better_variant_is_taken(self):
        rule = R.RULES["flow"][0]
        worse = rule._replace(options={"gamma": 50.0})
        best = R.tune(R.square(LAW, 2.2, 1), 300, [40], LAW, source(), {"flow": (worse, rule)})
        assert best["flow", 40].rule.options == {}

    def test_judged_with_the_options_of_its_budget(self):
        rule = R.RULES["flow"][0]
        best = {
            ("flow", 10): R.Best(rule, 1e-3, 0.0, False),
            ("flow", 40): R.Best(rule, 2e-4, 0.0, False),
        }
        found = R.judge(R.square(LAW, 2.2, 2), 100, [10, 40, 60], best, LAW, source())
        assert {key: made.step for key, made in found.items()} == {
            ("flow", 10): 1e-3,
            ("flow", 40): 2e-4,
            ("flow", 60): 2e-4,
        }
        assert [found["flow", at].passes for at in (10, 40, 60)] == [10, 40, 60]
        assert found["flow", 40].grade.jsd.shape == (2,)
        at, values = R.series(dict(reversed(found.items())), "flow", "quality")
        assert at == [10, 40, 60] and values[1] > 0.9

    @pytest.mark.parametrize("name", R.RULES)
    def test_what_is_spent_counts_all(self, name):
        for rule in R.RULES[name]:
            step = rule.steps[0] if rule.steps else None
            for budget, _, cost in races.race(
                R.square(LAW, 2.2, 1), 200, rule, step, [10, 30], source()
            ):
                assert cost <= budget

    def test_paired(self):
        a = torch.tensor([1.0, 2.0, 3.0, 4.0])
        found = R.ahead(a, torch.zeros(4))
        half = 3.182446 * math.sqrt(5 / 3) / 2
        assert found == pytest.approx((2.5, 2.5 - half, 2.5 + half), rel=1e-5)

    def test_leaders(self):
        grade = grid_games.grade(torch.zeros(3, 4, 2), LAW)

        def made(*jsd):
            return R.Judged(grade._replace(jsd=torch.tensor(jsd)), 10, None)

        judged = {
            ("a", 10): made(0.3, 0.31, 0.32),
            ("b", 10): made(0.1, 0.2, 0.3),
            ("c", 10): made(0.2, 0.1, 0.4),
            ("c", 20): made(0.0, 0.0, 0.0),
            ("d", 10): made(0.6, 0.7, 0.8),
            ("e", 10): made(0.15, 0.25, 0.35),
        }
        assert R.leaders(judged, 10) == ["b", "c", "a"]

    def test_crossing(self):
        local, fresh = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([8.0, 4.0, 1.0])
        assert R.crossing([10, 100, 1000], local, fresh) == pytest.approx(100 * 10**0.5)
        with pytest.raises(ValueError, match="cross"):
            R.crossing([10, 100, 1000], local, fresh * 9)
