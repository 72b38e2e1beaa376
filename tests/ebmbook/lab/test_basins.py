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
