"""Inference finds the minima that closed forms name, never climbs, and refuses nonsense."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

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


@settings(max_examples=40)
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


# L-BFGS --------------------------------------------------------------------------------------


def rosenbrock(y):
    """A bent valley; in two dimensions its one stationary point is (1, 1), of curvature > 0.39."""
    return (100 * (y[:, 1:] - y[:, :-1] ** 2) ** 2 + (1 - y[:, :-1]) ** 2).sum(1)


def tilted_bowls(n, d, seed):
    """n quadratics of d dimensions, each turned its own way: energy, their centres, stiffnesses.

    The stiffnesses lie between 1 and 1000. `energy(y, rows)` is of those rows of the n alone.
    """
    generator = torch.Generator().manual_seed(seed)
    like = {"generator": generator, "dtype": torch.float64}
    turn = torch.linalg.qr(torch.randn(n, d, d, **like)).Q
    stiffness = 10 ** (3 * torch.rand(n, d, **like))
    centre = torch.randn(n, d, **like)

    def energy(y, rows=slice(None)):
        along = (turn[rows] * (y - centre[rows])[:, None]).sum(2)
        return 0.5 * (stiffness[rows] * along.square()).sum(1)

    return energy, centre, stiffness


def uniform(n, d, seed):
    """Starts in [-2, 2]^d."""
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.rand(n, d, generator=generator, dtype=torch.float64) - 2


@pytest.mark.parametrize("seed", [0, 21])
def test_lbfgs_ends_where_scipys_does(seed):
    """40 starts on Rosenbrock's valley: both end at (1, 1) to slope / curvature, below 1e-8.

    The curvature there is at least 0.39, so a slope of 1e-9 leaves a distance of 4e-9.
    """
    y0 = uniform(40, 2, seed)
    found = inference.lbfgs_argmin(rosenbrock, y0, 150, tolerance=1e-9)
    assert found.slope.max() <= 1e-9
    assert (found.y - 1).abs().max() < 1e-8
    for start, end in zip(y0.numpy(), found.y.numpy(), strict=True):
        scipy = optimize.minimize(
            lambda y: (optimize.rosen(y), optimize.rosen_der(y)),
            start,
            jac=True,
            method="L-BFGS-B",
            options={"gtol": 1e-9, "ftol": 0},
        )
        assert np.abs(scipy.x - end).max() < 1e-7


def test_lbfgs_leaves_a_stretch_of_negative_curvature():
    """Where the energy falls ever more steeply a pair tells nothing; the steps must yet grow.

    From here SciPy needs fewer than 60 evaluations; steps that kept the length of the last
    pair would still be on their way after 300.
    """
    y0 = torch.tensor([[-1.850553530746124, 0.741754893663892]], dtype=torch.float64)
    found = inference.lbfgs_argmin(rosenbrock, y0, 300, tolerance=1e-9)
    assert (found.y - 1).abs().max() < 1e-8


@pytest.mark.parametrize("d", [1, 3, 10])
@pytest.mark.parametrize("seed", [0, 21])
def test_lbfgs_finds_the_centre_of_a_quadratic(d, seed):
    """20 of condition up to 1000: the centre, to the distance that a slope allows.

    |y - centre| <= |gradient| / least stiffness <= sqrt(d) slope, the stiffnesses being >= 1.
    """
    energy, centre, _ = tilted_bowls(20, d, seed)
    found = inference.lbfgs_argmin(energy, uniform(20, d, seed), 400, tolerance=1e-9)
    assert found.slope.max() <= 1e-9
    assert (found.y - centre).norm(dim=1).max() <= d**0.5 * 1e-9 + 1e-14
    assert found.n_evaluations <= 20 * 401


@pytest.mark.parametrize("d", [1, 7])
@pytest.mark.parametrize("stiffness", [1e-3, 1.0, 1e3])
def test_lbfgs_needs_two_steps_where_all_directions_are_alike(d, stiffness):
    """One pair tells all of a round quadratic, so that the second step ends in its centre.

    The first step is t times the gradient with t = min(1, 1 / |gradient|), halved until
    Armijo's condition holds, which is from t <= 2 (1 - 1e-4) / stiffness on.
    """
    centre = uniform(1, d, 0)
    y0 = centre + 3.0
    gradient = stiffness * 3 * d**0.5
    t, most = min(1, 1 / gradient), 2 * (1 - 1e-4) / stiffness
    halvings = max(0, math.ceil(math.log2(t / most)))
    found = inference.lbfgs_argmin(bowl(centre, stiffness / 2), y0, halvings + 2)
    assert (found.y - centre).abs().max() < 1e-12
    assert found.n_evaluations == 1 + halvings + 2


def test_lbfgs_needs_a_tenth_of_the_gradients_steps_in_a_narrow_valley():
    """Stiffnesses 1 and 1e4: a step above 2 / 1e4 makes the steep side grow.

    At that step the flat side shrinks by 1 - 2e-4 a time: 0.82 of it is left after 1000 steps.
    L-BFGS has arrived within 100.
    """
    stiffness = torch.tensor([1.0, 1e4], dtype=torch.float64)
    y0 = torch.tensor([[1.0, 1.0], [-2.0, 0.5]], dtype=torch.float64)

    def energy(y):
        return 0.5 * (stiffness * y.square()).sum(1)

    slow = inference.gradient_argmin(energy, y0, 2e-4, 1000)
    assert (slow.y[:, 0] / y0[:, 0]).min() > 0.81
    fast = inference.lbfgs_argmin(energy, y0, 100, tolerance=1e-9)
    assert fast.y.abs().max() <= 1e-9
    assert fast.n_evaluations < slow.n_evaluations / 10


@settings(max_examples=40)
@given(st.floats(1e-3, 1e3), st.integers(1, 8), st.integers(0, 10), st.booleans())
def test_no_restart_of_lbfgs_ever_climbs(scale, history, seed, bent):
    """Whatever the scale and the memory, the energy of each restart is non-increasing."""

    def energy(y):
        return scale * (rosenbrock if bent else energies.double_well)(y)

    path = inference.lbfgs_argmin(
        energy, uniform(6, 3, seed), 30, history=history, keep_path=True
    ).path
    values = torch.stack([energy(y) for y in path])
    assert (values.diff(dim=0) <= 0).all()


def test_restarts_of_lbfgs_do_not_meet():
    """Each learns the shape of its own valley: its path in company is its path alone.

    The valleys are turned and scaled each in its own way, so that a pair of another row would
    lead elsewhere. Rounding grows with the condition, 1000, and stays far below 1e-8.
    """
    energy, _, _ = tilted_bowls(6, 4, 0)
    y0 = uniform(6, 4, 0)
    together = inference.lbfgs_argmin(energy, y0, 12, history=3, keep_path=True).path
    for row in range(6):
        one = slice(row, row + 1)
        alone = inference.lbfgs_argmin(
            lambda y, one=one: energy(y, one), y0[one], 12, history=3, keep_path=True
        ).path
        assert torch.allclose(together[:, one], alone, rtol=0, atol=1e-8)
    assert (together[-1] - together[-2]).abs().amax(1).min() > 1e-6  # all still on their way


def test_the_memory_of_lbfgs_is_as_long_as_asked():
    """A longer history is used: the paths part after the second step, and not before."""
    energy, _, _ = tilted_bowls(5, 6, 0)
    short, long = (
        inference.lbfgs_argmin(energy, uniform(5, 6, 0), 40, history=history, keep_path=True).path
        for history in (1, 8)
    )
    moved = (short.diff(dim=0).abs().amax(2) > 0).cumsum(0)  # accepted steps so far
    assert torch.equal(short[1:][moved <= 2], long[1:][moved <= 2])
    assert (short - long).abs().amax((0, 2)).min() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 4)])
def test_lbfgs_takes_any_event_shape(shape, dtype):
    """Shapes and dtype come back, the starts stay; the path holds one entry a step."""
    y0 = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    before = y0.clone()
    found = inference.lbfgs_argmin(
        lambda y: (y - 0.7).square().reshape(len(y), -1).sum(1), y0, 10, keep_path=True
    )
    assert found.y.shape == shape and found.y.dtype == dtype
    assert torch.allclose(found.y, torch.full_like(y0, 0.7), atol=10 * torch.finfo(dtype).eps)
    assert torch.equal(y0, before)
    assert found.path.shape[1:] == shape
    assert torch.equal(found.path[0], before) and torch.equal(found.path[-1], found.y)
    assert found.n_evaluations == 5 * len(found.path)
    assert torch.equal(found.best, found.y[found.energy.argmin()])
    assert found.slope.shape == found.energy.shape == (5,)


@pytest.mark.parametrize("argmin", ["gradient", "lbfgs"])
def test_a_gradient_may_lie_transposed_in_memory(argmin):
    """An energy of the transpose gives a gradient with strides of its own: the answer is x."""
    y0 = torch.zeros(2, 3, 4)
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))

    def energy(y):
        return (y.mT - x).flatten(1).square().sum(1)

    if argmin == "gradient":
        found = inference.gradient_argmin(energy, y0, 0.25, 30)
    else:
        found = inference.lbfgs_argmin(energy, y0, 10)
    assert torch.allclose(found.y, x.mT, atol=1e-5)


@pytest.mark.parametrize("beyond", [math.nan, math.inf])
def test_lbfgs_stays_inside_a_wall(beyond):
    """Where the energy turns infinite or NaN, the step is not taken, and shorter ones are."""

    def walled(y):
        inside = (y[:, 0] + 0.5).square()
        return torch.where(y[:, 0] > 0, inside, torch.full_like(inside, beyond))

    found = inference.lbfgs_argmin(walled, torch.tensor([[2.0], [0.5]]), 200, keep_path=True)
    assert (found.path > 0).all()
    assert found.y.max() < 1e-3
    assert found.energy.isfinite().all()


def test_lbfgs_leaves_no_nan_from_a_row_that_has_arrived():
    """A start in the minimum has no step and no curvature: it stays, and disturbs nobody."""
    y0 = torch.tensor([[1.0, 1.0], [-1.2, 1.0]], dtype=torch.float64)
    found = inference.lbfgs_argmin(rosenbrock, y0, 150)
    assert found.y[0].tolist() == [1.0, 1.0]
    assert (found.y[1] - 1).abs().max() < 1e-7


def test_slope_of_lbfgs_is_the_gradient_where_it_ended():
    """After too few steps: the largest component of the gradient, by hand."""
    y0 = torch.tensor([[-1.2, 1.0], [0.0, 2.0]], dtype=torch.float64)
    found = inference.lbfgs_argmin(rosenbrock, y0, 5)
    by_hand = [np.abs(optimize.rosen_der(y)).max() for y in found.y.numpy()]
    assert found.slope.tolist() == pytest.approx(by_hand, rel=1e-12)
    assert found.slope.min() > 0.1


def test_tolerance_stops_lbfgs_when_the_last_restart_has_arrived():
    """At the minimum nothing is done; else it goes on while any slope is above the tolerance."""
    assert inference.lbfgs_argmin(bowl(0.0), ONE * 0, 50).n_evaluations == 2
    y0 = uniform(8, 2, 0)
    found = inference.lbfgs_argmin(rosenbrock, y0, 150, tolerance=1e-3, keep_path=True)
    steps = len(found.path) - 1
    assert 0 < steps < 150 and found.slope.max() <= 1e-3
    before = torch.tensor([np.abs(optimize.rosen_der(y)).max() for y in found.path[-2].numpy()])
    assert before.max() > 1e-3


def test_lbfgs_inside_no_grad():
    """Inference needs its own gradient whatever the caller switched off."""
    with torch.no_grad():
        found = inference.lbfgs_argmin(bowl(0.0), ONE, 3)
    assert found.y.abs().max() < 1e-6


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
        (lambda: inference.lbfgs_argmin(bowl(0.0), ONE, 5, history=0), "history: expected >= 1"),
        (lambda: inference.lbfgs_argmin(bowl(0.0), ONE, 0), "n_steps: expected >= 1"),
        (lambda: inference.lbfgs_argmin(bowl(0.0), ONE * math.nan, 5), "not finite"),
        (lambda: inference.lbfgs_argmin(bowl(0.0), ONE * math.inf, 5), "not finite"),
        (lambda: inference.lbfgs_argmin(bowl(0.0), ONE.long(), 5), "y0: expected a float"),
        (lambda: inference.lbfgs_argmin(bowl(0.0), ONE[:0], 5), "y0: expected"),
        (lambda: inference.lbfgs_argmin(bowl(0.0), torch.tensor(1.0), 5), "y0: expected"),
        (lambda: inference.lbfgs_argmin(bowl(0.0), [1.0], 5), "y0: expected a float tensor"),
        (lambda: inference.lbfgs_argmin(lambda y: y, ONE, 5), "energy: expected shape"),
        (lambda: inference.lbfgs_argmin(lambda y: 3.0, ONE, 5), "energy: expected shape"),
        (lambda: inference.lbfgs_argmin(lambda y: y[:, 0].detach(), ONE, 5), "depends on"),
        (lambda: inference.lbfgs_argmin(lambda y: y[:, 0].log(), -ONE, 5), "not finite"),
        (lambda: inference.lbfgs_argmin(lambda y: y[:, 0].sqrt(), 0 * ONE, 5), "not finite"),
        (lambda: inference.search_argmin(lambda y: y, ONE), "energy: expected shape"),
        (lambda: inference.search_argmin(lambda y: y[:, 0] * torch.nan, ONE), "is NaN"),
        (lambda: inference.search_argmin(bowl(0.0), [1.0]), "candidates: expected a float tensor"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
