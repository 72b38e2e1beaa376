"""Latent variables: what is asked for is found, what was lost is counted, nonsense is refused."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmref import data, energies, latent

DTYPES = [torch.float32, torch.float64]


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def coupled(r):
    """Quadratic in y and z with its minimum 0 at y = z = x, and curvatures 2 (1 -+ r)."""

    def energy(x, y, z):
        u, v = y - x, z - x
        return (u.square() + v.square() - 2 * r * u * v).flatten(1).sum(1)

    return energy


def wells(x, y, z):
    """A bowl for y about x; for z a deep well near -1 and a shallow one near +1, about 1 higher."""
    return energies.double_well(z) + (y - x).square().sum(1)


def horn(x, y, z):
    """E = |y - radii(x) (cos z, sin z)|^2."""
    return (y - data.horn_radii(x) * data.tips(z)).square().sum(1)


class Counted:
    """An energy that knows for how many rows it was asked."""

    def __init__(self, energy):
        self.energy, self.rows = energy, 0

    def __call__(self, **variables):
        value = self.energy(**variables)
        self.rows += len(value)
        return value


def joint(energy, known, start, **options):
    return latent.joint_argmin(energy, known, start, 200, **options)


def alternating(energy, known, start, **options):
    return latent.alternating_argmin(energy, known, start, 60, 20, **options)


BOTH = pytest.mark.parametrize("argmin", [joint, alternating])


# Search --------------------------------------------------------------------------------------


def ripples(x, y, z):
    """An energy without symmetry: x (n, 2), y (n, 2), z (n,)."""
    return (3 * x * y).sin().sum(1) + (z * x[:, 0] - y[:, 1]).square() + 0.3 * (5 * z).cos()


def test_search_is_the_least_of_every_combination():
    """Three questions, five y and four z: the same as sixty calls of one row each."""
    x, y, z = draw(3, 2), draw(5, 2, seed=1), draw(4, seed=2)
    found = latent.search(ripples, {"x": x}, {"y": y, "z": z})
    for question in range(3):
        table = {
            (j, k): ripples(x[question, None], y[j, None], z[k, None]).item()
            for j, k in itertools.product(range(5), range(4))
        }
        j, k = min(table, key=table.get)
        assert found.energy[question].item() == pytest.approx(table[j, k], rel=1e-12)
        assert torch.equal(found.best["y"][question], y[j])
        assert torch.equal(found.best["z"][question], z[k])
        assert found.energies[question].tolist() == pytest.approx(list(table.values()), rel=1e-12)
    assert found.n_evaluations == 60
    assert found.ends is None and found.slope is None


def test_search_counts_as_lost_what_is_above_the_best_by_more_than_asked():
    """Energies 0, 0.5, 2: with 1 to spare one is lost, with the default two, ties never."""
    z = torch.tensor([0.0, 0.5, 2.0, 0.0])
    near = latent.search(lambda z: z, {}, {"z": z}, lost_above=1.0)
    assert near.lost.tolist() == [[False, False, True, False]]
    assert latent.search(lambda z: z, {}, {"z": z}).lost.tolist() == [[False, True, True, False]]


def test_the_last_candidate_runs_fastest():
    """Rows of the table are questions; column j * 4 + k holds y_j and z_k."""
    x, y, z = draw(3, 2), draw(5, 2, seed=1), draw(4, seed=2)
    values, combined = latent.energy_table(ripples, {"x": x}, {"y": y, "z": z})
    assert values.shape == (3, 20)
    for i, j, k in itertools.product(range(3), range(5), range(4)):
        one = ripples(x[i, None], y[j, None], z[k, None])
        assert values[i, j * 4 + k].item() == pytest.approx(one.item(), rel=1e-12)
        assert torch.equal(combined["y"][j * 4 + k], y[j])
        assert torch.equal(combined["z"][j * 4 + k], z[k])


def test_the_table_is_differentiable_in_all_that_enters():
    """Knowns, candidates and a weight of the energy: autograd against central differences."""
    x, y, z, weight = draw(2, 2), draw(3, 2, seed=1), draw(2, seed=2), draw(1, seed=3)
    inputs = [part.requires_grad_() for part in (x, y, z, weight)]

    def table(x, y, z, weight):
        return latent.energy_table(
            lambda x, y, z: weight * ripples(x, y, z), {"x": x}, {"y": y, "z": z}
        )[0]

    assert torch.autograd.gradcheck(table, inputs)


def test_search_takes_no_gradient():
    found = latent.search(ripples, {"x": draw(2, 2).requires_grad_()}, {
        "y": draw(3, 2), "z": draw(2)
    })  # fmt: skip
    assert not found.energies.requires_grad


# Descent against closed forms ----------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_minimum_of_a_coupled_quadratic_is_found(argmin, dtype):
    """y = z = x whatever the start, to what an energy of rounding size leaves.

    Near the minimum E >= (1 - r) (|y - x|^2 + |z - x|^2), so that an energy that rounding
    hides, of some eps |x|^2, is a distance of 10 sqrt(eps) at most at r = 0.5.
    """
    x = draw(3, 2, dtype=dtype)
    start = {"y": 3 * draw(3, 4, 2, seed=1, dtype=dtype), "z": draw(3, 4, 2, seed=2, dtype=dtype)}
    before = {name: value.clone() for name, value in (start | {"x": x}).items()}
    found = argmin(coupled(0.5), {"x": x}, start)
    atol = 10 * torch.finfo(dtype).eps ** 0.5
    for name in ("y", "z"):
        assert found.best[name].dtype == found.ends[name].dtype == dtype
        assert found.best[name].shape == (3, 2) and found.ends[name].shape == (3, 4, 2)
        assert torch.allclose(found.best[name], x, rtol=0, atol=atol)
        assert torch.allclose(found.ends[name], x[:, None].expand(3, 4, 2), rtol=0, atol=atol)
    assert found.energies.shape == found.lost.shape == found.slope.shape == (3, 4)
    assert not found.lost.any()
    for name, value in (start | {"x": x}).items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("r", [0.3, 0.8, -0.9])
@pytest.mark.parametrize("first, second", ["yz", "zy"])
def test_each_sweep_shrinks_a_coupled_quadratic_by_r_squared(r, first, second):
    """A turn of u ends at u = r v, so that k sweeps leave v at r^(2k) v_0 and u at r^(2k - 1) v_0.

    A turn in one dimension ends exactly after two steps of L-BFGS, each halved a few times;
    rounding of the energy leaves some sqrt(eps).
    """
    x = draw(2, 1)
    start = {first: draw(2, 3, 1, seed=1), second: x[:, None] + draw(2, 3, 1, seed=2)}
    away = start[second] - x[:, None]
    for n_sweeps in (1, 2, 5):
        found = latent.alternating_argmin(coupled(r), {"x": x}, start, n_sweeps, 8)
        for name, power in ((first, 2 * n_sweeps - 1), (second, 2 * n_sweeps)):
            left = found.ends[name] - x[:, None]
            assert torch.allclose(left, r**power * away, rtol=0, atol=1e-7)


def test_the_valley_that_turns_zigzag_along_is_followed_jointly():
    """At r = 0.99 ten sweeps leave 0.99^20 = 0.82 of the way; the joint descent has arrived.

    The slope leaves a distance of slope * sqrt(2) / (2 (1 - r)) at most.
    """
    x, start = torch.zeros(1, 1).double(), {name: draw(1, 3, 1) for name in "yz"}
    turns = latent.alternating_argmin(coupled(0.99), {"x": x}, start, 10, 8)
    left = (turns.ends["z"] / start["z"]).flatten()
    assert left.tolist() == pytest.approx([0.99**20] * 3, abs=1e-6)
    together = latent.joint_argmin(coupled(0.99), {"x": x}, start, 80, tolerance=1e-9)
    assert together.slope.max() <= 1e-9
    assert together.ends["z"].abs().max() < 1e-9 * 2**0.5 / 0.02
    assert together.n_evaluations < turns.n_evaluations


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(-0.95, 0.95), st.sampled_from([None, 1e-3, 0.3]))
def test_no_restart_ends_above_its_start(seed, r, step_size):
    """Neither all together nor in turns, by L-BFGS or by steps of any size."""

    def energy(x, y, z):
        return coupled(r)(x, y, z) + energies.double_well(z)

    known = {"x": draw(3, 2, seed=seed)}
    start = {"y": draw(3, 4, 2, seed=seed + 1), "z": draw(3, 4, 2, seed=seed + 2)}
    rows = {name: value.flatten(0, 1) for name, value in start.items()}
    first = energy(known["x"].repeat_interleave(4, 0), **rows).view(3, 4)
    together = latent.joint_argmin(energy, known, start, 7, step_size=step_size)
    turns = latent.alternating_argmin(energy, known, start, 2, 3, step_size=step_size)
    assert (together.energies <= first).all()
    assert (turns.energies <= first + 1e-12 * first.abs()).all()


@BOTH
def test_questions_do_not_meet(argmin):
    """Five questions at once are five questions alone, with starts in either basin."""
    x = draw(5, 1)
    start = {"y": draw(5, 3, 1, seed=1), "z": 1.5 * draw(5, 3, 1, seed=2)}
    together = argmin(wells, {"x": x}, start, step_size=0.02)
    for i in range(5):
        one = {name: value[i : i + 1] for name, value in start.items()}
        alone = argmin(wells, {"x": x[i : i + 1]}, one, step_size=0.02)
        assert torch.equal(together.lost[i], alone.lost[0])
        for name in ("y", "z"):
            assert torch.allclose(together.ends[name][i], alone.ends[name][0], rtol=0, atol=1e-9)
            assert torch.allclose(together.best[name][i], alone.best[name][0], rtol=0, atol=1e-9)


@BOTH
def test_variables_may_be_matrices(argmin):
    """x (n, 2, 3) known, y (n, 2, 3) and its transpose z (n, 3, 2) asked for."""
    x = draw(2, 2, 3)

    def energy(x, y, z):
        u, v = (y - x).flatten(1), (z - x.mT).mT.flatten(1)
        return (u.square() + v.square() - u * v).sum(1)

    found = argmin(energy, {"x": x}, {"z": draw(2, 4, 3, 2, seed=1), "y": draw(2, 4, 2, 3, seed=2)})
    assert found.ends["y"].shape == (2, 4, 2, 3) and found.best["z"].shape == (2, 3, 2)
    assert torch.allclose(found.best["y"], x, rtol=0, atol=1e-7)
    assert torch.allclose(found.best["z"], x.mT, rtol=0, atol=1e-7)


@BOTH
def test_nothing_known_is_one_question(argmin):
    """With {} the rows of the answer are one; search and descent agree on the deep well."""
    start = {"z": torch.linspace(-2, 2, 9).double().view(1, 9, 1)}
    found = argmin(lambda z: energies.double_well(z), {}, start)
    deep, _, _ = energies.double_well_points()
    assert found.best["z"].shape == (1, 1)
    assert found.best["z"].item() == pytest.approx(deep, abs=1e-7)
    grid = {"z": torch.linspace(-2, 2, 4001).double()[:, None]}
    searched = latent.search(lambda z: energies.double_well(z), {}, grid)
    # On a grid of 0.001 the nearest point is 0.0005 away, of curvature 12 z^2 - 4 < 9.
    assert 0 <= searched.energy.item() - found.energy.item() < 9 / 2 * 0.0005**2 * 1.01


# The horn: any of x, y, z from the other two -------------------------------------------------


@pytest.fixture(scope="module")
def truth():
    """Points of the horn without noise: x (20,), y (20, 2), z (20,)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, generator=generator, dtype=torch.float64)
    y, z = data.horn(x, generator, noise=0.0)
    return {"x": x, "y": y, "z": z}


@BOTH
@pytest.mark.parametrize("asked", ["x", "y", "z"])
def test_any_variable_of_the_horn_from_the_other_two(truth, asked, argmin):
    """Without noise the least energy is 0; below 1e-14 it misses y by less than 1e-7.

    So it misses z by less than 1e-7 / 1.5, the least radius, and x by less than 1e-7 / 3.5: the
    radii grow at the rate (3.5 -+ x) e^(2x), which on [0, 1] is least at x = 0.
    """
    known = {name: value for name, value in truth.items() if name != asked}
    starts = {
        "x": torch.linspace(0, 1, 6).double().expand(20, 6),
        "y": draw(20, 3, 2),
        "z": (torch.arange(8).double() * math.pi / 4).expand(20, 8),
    }
    found = argmin(horn, known, {asked: starts[asked]})
    assert found.energy.max() < 1e-14
    best, wanted = found.best[asked], truth[asked]
    if asked == "z":  # an angle is known up to full turns
        best, wanted = data.tips(best), data.tips(wanted)
    assert torch.allclose(best, wanted, rtol=0, atol=1e-7)


def test_a_search_of_the_horns_angle_is_within_half_a_cell(truth):
    """On 720 angles, from x and y: cells of half a degree, so at most a quarter is missed.

    The nearest angle misses y by no more than the largest radius times half a cell.
    """
    angles = torch.arange(720).double() * math.pi / 360
    known = {"x": truth["x"], "y": truth["y"]}
    found = latent.search(horn, known, {"z": angles})
    radius = data.horn_radii(truth["x"]).amax(1)
    assert (found.energy.sqrt() <= radius * math.pi / 720).all()
    assert found.n_evaluations == 20 * 720


# What was lost, and what it cost -------------------------------------------------------------


def test_the_share_that_is_lost_is_the_width_of_the_shallow_basin():
    """n questions, r starts in [-2, 2]: those right of the ridge are lost, unless all r are.

    With k ~ Bin(r, q) in the shallow basin, k are lost, but none where k = r. Four standard
    deviations of the mean over the questions; false alarm 6e-5 at a fixed seed.
    """
    _, ridge, _ = energies.double_well_points(0.5)
    n, r, q = 500, 4, (2 - ridge) / 4
    generator = torch.Generator().manual_seed(0)
    z = 4 * torch.rand(n, r, 1, generator=generator) - 2
    start = {"y": torch.zeros_like(z), "z": z}
    found = latent.joint_argmin(
        wells, {"x": torch.ones(n, 1)}, start, 400, step_size=0.02, lost_above=0.1
    )
    chance = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    mean = sum(k * p for k, p in enumerate(chance[:r]))
    variance = sum(k * k * p for k, p in enumerate(chance[:r])) - mean**2
    lost = found.lost.sum(1).double().mean()
    assert abs(float(lost) - mean) < 4 * math.sqrt(variance / n)
    # Exactly those: right of the ridge, in a question with a start left of it.
    right = z[..., 0] > ridge
    assert torch.equal(found.lost, right & ~right.all(1, keepdim=True))
    # The best lies in the deep well wherever a start did.
    assert torch.equal(found.best["z"][:, 0] > ridge, right.all(1))


def two_ends(lost_above=1e-6):
    """One question, a start in each well, one at rest and one that is not."""
    start = {"y": torch.full((1, 3, 1), 2.0).double(), "z": torch.tensor([[[1.5], [-1.5], [-0.9]]])}
    start["z"] = start["z"].double()
    return latent.joint_argmin(
        wells, {"x": torch.ones(1, 1).double()}, start, 60, lost_above=lost_above
    )


def test_found_says_how_many_were_lost_and_by_how_much():
    """The shallow well lies above the deep one by what the closed form says."""
    found = two_ends()
    deep, _, shallow = energies.double_well_points(0.5)
    low, high = energies.double_well(torch.tensor([[deep], [shallow]]).double()).tolist()
    assert found.energies[0].tolist() == pytest.approx([high, low, low], abs=1e-9)
    assert found.lost.tolist() == [[True, False, False]]
    assert found.best["z"].item() == pytest.approx(deep, abs=1e-6)
    assert found.energy.item() == found.energies.min().item()
    assert torch.equal(found.best["z"], found.ends["z"][:, found.energies[0].argmin()])
    text = str(found)
    assert "1 x 3 restarts" in text and "1 lost" in text
    assert f"{high - low:.3g}" in text and "slope" in text
    assert not two_ends(lost_above=2.0).lost.any()
    assert "slope" not in str(latent.search(lambda z: z, {}, {"z": torch.zeros(2)}))


@BOTH
@pytest.mark.parametrize("step_size", [None, 0.03])
def test_slope_is_the_largest_component_of_the_gradient_in_all_unknowns(argmin, step_size):
    """Recomputed at the ends, by autograd, after too few steps to be at rest."""
    known = {"x": draw(2, 2)}
    start = {"y": draw(2, 3, 2, seed=1), "z": draw(2, 3, 2, seed=2)}
    if argmin is joint:
        found = latent.joint_argmin(coupled(0.9), known, start, 3, step_size=step_size)
    else:
        found = latent.alternating_argmin(coupled(0.9), known, start, 1, 3, step_size=step_size)
    ends = {name: end.flatten(0, 1).requires_grad_() for name, end in found.ends.items()}
    value = coupled(0.9)(known["x"].repeat_interleave(3, 0), **ends)
    assert torch.allclose(value.view(2, 3), found.energies, rtol=1e-12)
    slopes = torch.cat(torch.autograd.grad(value.sum(), list(ends.values())), 1).abs().amax(1)
    assert torch.allclose(slopes.view(2, 3), found.slope, rtol=1e-9)
    assert found.slope.min() > 1e-3


@pytest.mark.parametrize("step_size", [None, 0.03])
def test_evaluations_are_those_the_energy_was_asked_for(step_size):
    """An energy that counts its rows agrees with search, joint and alternating descent."""
    known = {"x": draw(2, 1)}
    start = {"y": draw(2, 3, 1, seed=1), "z": draw(2, 3, 1, seed=2)}
    counted = Counted(wells)
    found = latent.joint_argmin(counted, known, start, 7, step_size=step_size)
    assert found.n_evaluations == counted.rows == 6 * 8
    counted = Counted(wells)
    found = latent.alternating_argmin(counted, known, start, 2, 5, step_size=step_size)
    assert found.n_evaluations == counted.rows
    assert 6 <= counted.rows <= 6 * (2 * 2 * 6 + 1)
    counted = Counted(wells)
    found = latent.search(counted, known, {"y": draw(5, 1), "z": draw(3, 1)})
    assert found.n_evaluations == counted.rows == 2 * 5 * 3


def test_tolerance_saves_evaluations():
    """It stops once every gradient is small, and not before."""
    known, start = {"x": draw(2, 1)}, {"y": draw(2, 3, 1, seed=1), "z": draw(2, 3, 1, seed=2)}
    early = latent.joint_argmin(coupled(0.5), known, start, 200, tolerance=1e-3)
    assert early.slope.max() <= 1e-3
    assert early.n_evaluations < 6 * 201
    at_rest = {name: known["x"][:, None].expand(2, 3, 1) for name in "yz"}
    assert latent.joint_argmin(coupled(0.5), known, at_rest, 9, tolerance=1e-9).n_evaluations == 6


# Bad input -----------------------------------------------------------------------------------

X, S = torch.ones(2, 1), torch.ones(2, 3, 1)
SHARED = [
    ({"known": {"x": X, "w": X[:1]}}, "known: expected as many rows"),
    ({"known": {"x": X.long()}}, r"known\['x'\]: expected a float tensor"),
    ({"known": {"x": [1.0]}}, r"known\['x'\]: expected a float tensor"),
    ({"known": {"x": X[:0]}}, r"known\['x'\]: expected"),
    ({"known": {"x": torch.tensor(1.0)}}, r"known\['x'\]: expected"),
    ({"lost_above": 0}, "lost_above: expected > 0"),
    ({"lost_above": -1.0}, "lost_above: expected > 0"),
    ({"lost_above": math.nan}, "lost_above: expected > 0"),
    ({"lost_above": math.inf}, "lost_above: expected > 0"),
    ({"energy": lambda x, y, z: y}, "energy: expected shape"),
    ({"energy": lambda x, y, z: 3.0}, "energy: expected shape"),
]
OF_STARTS = [
    ({"start": {}}, "start: expected"),
    ({"start": {"y": S, "z": S[:, :2]}}, "start: expected .* r the same"),
    ({"start": {"y": S[:1], "z": S[:1]}}, r"start\['y'\]: expected .* n = 2"),
    ({"start": {"y": S[:, :0], "z": S[:, :0]}}, r"start\['y'\]: expected .* r >= 1"),
    ({"start": {"y": X[:, 0], "z": X[:, 0]}}, r"start\['y'\]: expected"),
    ({"start": {"y": S, "z": S.long()}}, r"start\['z'\]: expected a float tensor"),
    ({"start": {"y": S, "z": [1.0]}}, r"start\['z'\]: expected a float tensor"),
    ({"start": {"y": S, "z": S * math.nan}}, "not finite at some of the starts"),
    ({"start": {"x": S, "y": S, "z": S}}, "x: expected either known or asked for"),
    ({"known": {}}, r"start\['y'\]: expected .* n = 1"),
    ({"energy": lambda x, y, z: y[:, 0] * math.nan}, "energy: it or its gradient is not finite"),
    ({"energy": lambda x, y, z: y[:, 0] / 0}, "energy: it or its gradient is not finite"),
    ({"energy": lambda x, y, z: y[:, 0].detach()}, "energy: expected one that depends on"),
    ({"n_steps": 0}, "n_steps: expected >= 1"),
    ({"step_size": 0.0}, "step_size: expected > 0"),
    ({"step_size": -1.0}, "step_size: expected > 0"),
    ({"step_size": math.nan}, "step_size: expected > 0"),
    ({"step_size": math.inf}, "step_size: expected > 0"),
]


@pytest.mark.parametrize("changed, words", SHARED + OF_STARTS)
@pytest.mark.parametrize("n_sweeps", [None, 2])
def test_bad_input_of_a_descent_is_named(changed, words, n_sweeps):
    arguments = {"energy": coupled(0.5), "known": {"x": X}, "start": {"y": S, "z": S}, "n_steps": 3}
    argmin = latent.joint_argmin if n_sweeps is None else latent.alternating_argmin
    if n_sweeps is not None:
        arguments["n_sweeps"] = n_sweeps
    with pytest.raises(ValueError, match=words):
        argmin(**arguments | changed)


def test_no_sweep_is_refused():
    with pytest.raises(ValueError, match="n_sweeps: expected >= 1; got 0"):
        latent.alternating_argmin(coupled(0.5), {"x": X}, {"y": S, "z": S}, 0, 3)


@pytest.mark.parametrize(
    "changed, words",
    [
        *SHARED,
        ({"candidates": {}}, "candidates: expected one unknown or more"),
        ({"candidates": {"y": X, "z": X[:0]}}, r"candidates\['z'\]: expected"),
        ({"candidates": {"y": X, "z": X.long()}}, r"candidates\['z'\]: expected a float"),
        ({"candidates": {"y": X, "z": [1.0]}}, r"candidates\['z'\]: expected a float"),
        ({"candidates": {"x": X, "y": X}}, "x: expected either known or asked for"),
        ({"energy": lambda x, y, z: y[:, 0] * math.nan}, "energy: is NaN"),
    ],
)
def test_bad_input_of_a_search_is_named(changed, words):
    arguments = {"energy": coupled(0.5), "known": {"x": X}, "candidates": {"y": X, "z": X}}
    with pytest.raises(ValueError, match=words):
        latent.search(**arguments | changed)
