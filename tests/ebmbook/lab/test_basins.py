"""Basins whose boundaries are known."""

import torch

from ebmbook.lab import basins
from ebmref import energies, inference


def test_basins_are_numbered_by_the_coordinates_beyond_the_ridge():
    y = torch.tensor([[-1.0, -1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [0.2, 0.1, 0.3]])
    assert basins.which(y, 0.15).tolist() == [0, 1, 2, 5]


def test_plain_steps_end_in_the_basin_in_which_they_begin():
    """Every one of the 25 starts of the page; and each accepted step is a plain one of 0.02."""
    deep, ridge, shallow = energies.double_well_points(0.5)
    ticks = torch.tensor([-1.6, -0.8, 0.0, 0.8, 1.6])
    starts = torch.cartesian_prod(ticks, ticks)
    path = inference.gradient_argmin(energies.double_well, starts, 0.02, 150, keep_path=True).path
    plain = path[:-1] - 0.02 * (4 * path[:-1] ** 3 - 4 * path[:-1] + 0.5)
    assert torch.allclose(path[1:], plain, atol=1e-6)
    ends = torch.where(starts > ridge, shallow, deep)
    assert torch.allclose(path[-1], ends, atol=1e-3)
    assert torch.equal(basins.which(path[-1], ridge), basins.which(starts, ridge))
    assert basins.which(starts, ridge).bincount().tolist() == [9, 6, 6, 4]
