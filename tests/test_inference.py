"""Inference finds the minima that closed forms name, never climbs, and refuses nonsense."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmref import energies, inference


def bowl(centre, scale=1.0):
    """A quadratic energy with its minimum at `centre`."""
    return lambda y: scale * (y - centre).square().sum(1)


def test_search_is_the_table_look_up():
    """Three answers with energies 4, 1, 9: the second, after three evaluations."""
    found = inference.search_argmin(bowl(torch.tensor([1.0])), torch.tensor([[3.0], [2.0], [4.0]]))
    assert found.energy.tolist() == [4.0, 1.0, 9.0]
    assert found.best.tolist() == [2.0]
    assert found.n_evaluations == 3


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 4)])
def test_descent_reaches_the_minimum_of_a_quadratic(shape):
    """Any event shape; a step of 1/4 halves the distance each time: 2^-30 after 30."""
    generator = torch.Generator().manual_seed(0)
    y0 = torch.randn(shape, generator=generator, dtype=torch.float64)
    before = y0.clone()
    found = inference.gradient_argmin(
        lambda y: (y - 0.7).square().reshape(len(y), -1).sum(1), y0, 0.25, 30, keep_path=True
    )
    assert torch.allclose(found.y, torch.full_like(y0, 0.7), atol=1e-8)
    assert torch.equal(y0, before)
    assert found.path.shape == (31, *shape)
    assert torch.equal(found.path[0], before)
    assert found.n_evaluations == 5 * 31


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-3, 1e4), st.floats(1e-3, 1e3), st.integers(0, 10))
def test_no_restart_ever_climbs(step_size, scale, seed):
    """Whatever the step: backtracking makes the energy of each restart non-increasing."""
    generator = torch.Generator().manual_seed(seed)
    y0 = 4 * torch.rand(6, 2, generator=generator, dtype=torch.float64) - 2

    def energy(y):
        return scale * energies.double_well(y)

    path = inference.gradient_argmin(energy, y0, step_size, 30, keep_path=True).path
    values = torch.stack([energy(y) for y in path])
    assert (values.diff(dim=0) <= 0).all()


def test_restarts_do_not_meet():
    """A batch of restarts ends where each would end alone."""
    generator = torch.Generator().manual_seed(0)
    y0 = 4 * torch.rand(7, 3, generator=generator, dtype=torch.float64) - 2
    together = inference.gradient_argmin(energies.double_well, y0, 0.02, 200).y
    alone = [inference.gradient_argmin(energies.double_well, y[None], 0.02, 200).y for y in y0]
    assert torch.allclose(together, torch.cat(alone), atol=1e-12)


def test_descent_stays_inside_a_wall():
    """Where the energy turns infinite or NaN, the step is not taken."""

    def walled(y):
        inside = (y[:, 0] + 0.5).square()
        return torch.where(y[:, 0] > 0, inside, torch.full_like(inside, torch.nan))

    found = inference.gradient_argmin(walled, torch.tensor([[2.0]]), 1.0, 200)
    assert 0 < float(found.y) < 1e-3
    assert math.isfinite(found.energy)


def test_slope_tells_the_finished_from_the_unfinished():
    """One start in reach of its minimum, one on a slope too gentle for the steps allowed."""
    stiffness = torch.tensor([1.0, 1e-4])
    found = inference.gradient_argmin(
        lambda y: stiffness * y[:, 0].square(), torch.ones(2, 1), 0.25, 40
    )
    assert found.slope[0] < 1e-6
    assert found.slope[1].item() == pytest.approx(2e-4 * float(found.y[1]), rel=1e-5)
    assert found.slope[1] > 1e-4


def test_a_step_too_large_shows_in_the_slope():
    """Ten halvings of 1e9 are too few to move: the start is returned, with its slope."""
    found = inference.gradient_argmin(bowl(0.0), ONE, 1e9, 10)
    assert torch.equal(found.y, ONE)
    assert found.slope.tolist() == [2.0, 2.0]


def test_descent_inside_no_grad():
    """Inference needs its own gradient whatever the caller switched off."""
    with torch.no_grad():
        found = inference.gradient_argmin(bowl(0.0), ONE, 0.5, 1)
    assert found.y.abs().max() == 0


def test_tolerance_stops_early():
    """At the minimum there is nothing to do: one evaluation."""
    found = inference.gradient_argmin(bowl(0.0), torch.zeros(1, 2), 0.1, 50, tolerance=1e-9)
    assert found.n_evaluations == 1


@pytest.mark.parametrize("tilt", [0.01, 0.5, 1.0, 1.5])
def test_double_well_points_are_numpys_roots(tilt):
    deep, ridge, shallow = energies.double_well_points(tilt)
    assert [deep, ridge, shallow] == pytest.approx(
        sorted(np.roots([4, 0, -4, tilt]).real), rel=1e-9
    )
    assert energies.double_well(torch.tensor([[deep]])) < energies.double_well(
        torch.tensor([[shallow]])
    )


@pytest.mark.parametrize("tilt", [0.0, -1.0, 1.6])
def test_one_well_is_refused(tilt):
    with pytest.raises(ValueError, match="tilt: expected between 0"):
        energies.double_well_points(tilt)


def test_success_follows_the_law_of_the_basins():
    """1 - (1 - p^d)^R, within four standard deviations; false alarm 6e-5 at a fixed seed."""
    deep, ridge, _ = energies.double_well_points(0.5)
    p, n, restarts = (ridge + 2) / 4, 2000, 3
    generator = torch.Generator().manual_seed(5)
    y0 = 4 * torch.rand(n * restarts, 2, generator=generator) - 2
    ends = inference.gradient_argmin(energies.double_well, y0, 0.02, 150).y
    share = ((ends - deep).abs() < 0.05).all(1).view(n, restarts).any(1).double().mean()
    law = 1 - (1 - p**2) ** restarts
    assert abs(float(share) - law) < 4 * math.sqrt(law * (1 - law) / n)


ONE = torch.ones(2, 1)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: inference.gradient_argmin(bowl(0.0), ONE, 0.0, 5), "step_size: expected > 0"),
        (lambda: inference.gradient_argmin(bowl(0.0), ONE, float("nan"), 5), "step_size"),
        (lambda: inference.gradient_argmin(bowl(0.0), ONE, math.inf, 5), "step_size"),
        (lambda: inference.gradient_argmin(lambda y: y[:, 0].detach(), ONE, 0.1, 5), "depends on"),
        (lambda: inference.gradient_argmin(lambda y: 3.0, ONE, 0.1, 5), "energy: expected shape"),
        (lambda: inference.gradient_argmin(bowl(0.0), ONE, 0.1, 0), "n_steps: expected >= 1"),
        (lambda: inference.gradient_argmin(bowl(0.0), ONE.long(), 0.1, 5), "y0: expected a float"),
        (lambda: inference.gradient_argmin(bowl(0.0), ONE[:0], 0.1, 5), "y0: expected"),
        (lambda: inference.gradient_argmin(bowl(0.0), torch.tensor(1.0), 0.1, 5), "y0: expected"),
        (lambda: inference.gradient_argmin(lambda y: y, ONE, 0.1, 5), r"energy: expected shape"),
        (lambda: inference.gradient_argmin(lambda y: y[:, 0].log(), -ONE, 0.1, 5), "not finite"),
        (lambda: inference.search_argmin(lambda y: y, ONE), "energy: expected shape"),
        (lambda: inference.search_argmin(lambda y: y[:, 0] * torch.nan, ONE), "is NaN"),
        (lambda: inference.search_argmin(bowl(0.0), [1.0]), "candidates: expected a float tensor"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
