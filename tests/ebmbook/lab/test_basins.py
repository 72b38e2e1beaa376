"""Basins whose boundaries are known."""

import math

import pytest
import torch

from ebmbook.lab import basins
from ebmref import energies, inference


def test_basins_are_numbered_by_the_coordinates_beyond_the_ridge():
    y = torch.tensor([[-1.0, -1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [0.2, 0.1, 0.3]])
    assert basins.which(y, 0.15).tolist() == [0, 1, 2, 5]


def test_plain_steps_end_in_the_basin_in_which_they_begin():
    """Every one of the 25 starts of the page; and each accepted step is a plain one of 0.02."""
    deep, ridge, shallow = energies.double_well_points(0.5)
    ticks = torch.tensor([-1.6, -0.8, 0.0, 0.8, 1.6], dtype=torch.float64)
    starts = torch.cartesian_prod(ticks, ticks)
    path = inference.gradient_argmin(energies.double_well, starts, 0.02, 150, keep_path=True).path
    plain = path[:-1] - 0.02 * (4 * path[:-1] ** 3 - 4 * path[:-1] + 0.5)
    # Where energies are equal to rounding a step is refused, and would have been this short.
    assert torch.allclose(path[1:], plain, atol=1e-7)
    ends = torch.where(starts > ridge, shallow, deep).double()
    assert torch.allclose(path[-1], ends, atol=1e-3)
    assert torch.equal(basins.which(path[-1], ridge), basins.which(starts, ridge))
    assert basins.which(starts, ridge).bincount().tolist() == [9, 6, 6, 4]


def test_a_plain_step_crosses_no_ridge():
    """y - 0.02 E'(y) rises with y on [-2, 2], so that it keeps both sides of a fixed point."""
    y = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    assert (1 - 0.02 * (12 * y.square() - 4)).min() > 0.11


def test_success_by_hand():
    """Two dimensions, few starts: the share of trials is that of those that begin in the basin."""
    found = basins.success((1, 2), (1, 3), 400, 7)
    _, ridge, _ = energies.double_well_points(0.5)
    p = (ridge + 2) / 4
    by_hand = torch.tensor([[p, 1 - (1 - p) ** 3], [p**2, 1 - (1 - p**2) ** 3]])
    assert torch.allclose(found.law.float(), by_hand)
    assert torch.allclose(found.sd.float(), (by_hand * (1 - by_hand) / 400).sqrt())
    assert found.n_starts == 1200 and found.cost == 151
    # The first of the starts, and any of the three; the dimension decides.
    assert (found.share[:, 1] > found.share[:, 0]).all() and (found.share[0] > found.share[1]).all()
    assert (found.single - found.share[:, 0]).abs().max() < 0.1
    assert basins.worst_deviation(found) < 4.5


def test_worst_deviation_leaves_out_what_is_no_normal():
    law = torch.tensor([[0.5, 0.999]]).double()
    sd = (law * (1 - law) / 100).sqrt()
    share = law + torch.tensor([[2.0, 9.0]]) * sd
    found = basins.Success(law[0], 100, share, law, sd, 1)
    assert basins.worst_deviation(found).item() == pytest.approx(2)


def test_starts_needed():
    """Half or a fifth of the starts are right: 1 - (1 - q)^R = 0.95; the error by a difference."""
    for q, by_hand in ((0.5, math.log2(20)), (0.2, math.log(20) / math.log(1.25))):
        value, se = basins.needed(torch.tensor(q, dtype=torch.float64), 10_000)
        assert value.item() == pytest.approx(by_hand)
        moved = basins.needed(torch.tensor(q + 1e-6, dtype=torch.float64), 10_000)[0]
        slope = abs((moved - value).item()) / 1e-6
        assert se.item() == pytest.approx(slope * (q * (1 - q)) ** 0.5 / 100, rel=1e-3)


class TestRivals:
    def test_coupled_by_hand(self):
        coupling = torch.tensor([[0.0, 0.3], [0.3, 0.0]])
        y = torch.tensor([[1.0, -1.0], [2.0, 1.0]])
        plain = energies.double_well(y)
        assert torch.allclose(basins.coupled(y, coupling), plain + torch.tensor([-0.3, 0.6]))

    def test_coordinates_of_a_sum_need_a_round_and_one_to_see_it(self):
        y = torch.tensor([[1.0, 1.0, 0.3], [-1.1, -1.1, -1.1]])
        found, cost = basins.by_coordinates(energies.double_well, y)
        values = torch.linspace(-2, 2, 41)
        best = values[energies.double_well(values[:, None]).argmin()]
        assert torch.equal(found, best.expand(2, 3))
        assert cost.tolist() == [2 * 3 * 41, (2 if best != -1.1 else 1) * 3 * 41]

    def test_where_coordinates_are_coupled_they_get_stuck(self):
        """Wells at (+-1, +-1), both of which must move: each alone is better where it is."""

        def energy(y):
            return energies.double_well(y, 0.1) - 2 * y[:, 0] * y[:, 1]

        found, _ = basins.by_coordinates(energy, torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        assert (found[0] > 1).all() and (found[1] < -1).all()

    def test_on_the_sum(self):
        """Half as wide a distance as the basin: the grid is sure; so are coordinates."""
        found = basins.rivals(0.0, 3, 5, d=3, n_random=4, n_trials=50)
        _, ridge, _ = energies.double_well_points(0.5)
        p = ((ridge + 2) / 4) ** 3
        share, sd = found["random"].share.mean(), (p * 4 / 150) ** 0.5
        assert share == pytest.approx(1 - (1 - p) ** 4, abs=4 * sd)
        assert found["grid"].share.tolist() == found["coordinates"].share.tolist() == [1, 1, 1]
        assert found["random"].cost == 4 * 151 and found["grid"].cost == 8 * 151
        assert 3 * 41 + 151 < found["coordinates"].cost <= 2 * 3 * 41 + 151

    def test_couplings_make_coordinates_fail(self):
        found = basins.rivals(1.0, 4, 5, d=4, n_random=40, n_trials=20)
        assert found["coordinates"].share.mean() < 0.9 < found["random"].share.mean()

    def test_the_grid_is_laid_at_random(self, monkeypatch):
        """In each trial and coordinate two values, 2 apart, which differ from trial to trial."""
        seen, plain = [], inference.gradient_argmin

        def spy(energy, y, *given):
            seen.append(y)
            return plain(energy, y, *given)

        monkeypatch.setattr(inference, "gradient_argmin", spy)
        basins.rivals(0.0, 1, 5, d=3, n_random=4, n_trials=50)
        grid = seen[0][4 * 50 :][: 8 * 50].view(50, 8, 3)
        low, high = grid.amin(1), grid.amax(1)
        assert torch.allclose(high - low, torch.full((50, 3), 2.0))
        assert ((grid == low[:, None]) | (grid == high[:, None])).all()
        assert len(grid.unique(dim=1)[0]) == 8 and low.min() > -2 and low.max() < 0
        assert low.std() == pytest.approx(2 / 12**0.5, rel=0.15)
