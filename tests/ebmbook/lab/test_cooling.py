"""The ellipse from hot to cold, against closed forms and SciPy's adaptive quadrature."""

import math

import pytest
import torch
from scipy import integrate, optimize

from ebmbook.lab import cooling
from ebmref.free_energy import free_energy

W = cooling.radii()
ABOVE = cooling.energies(torch.tensor([0.0, 1.0]).double(), cooling.angles(4096), W)


def by_hand(z):
    """E at y = (0, 1): 5 - 3 sin z - 1.75 sin^2 z."""
    return 5 - 3 * math.sin(z) - 1.75 * math.sin(z) ** 2


def adaptive(f):
    """The integral over one turn; SciPy's rule knows nothing of our grid."""
    return integrate.quad(
        f, 0, 2 * math.pi, points=[math.pi / 2], epsabs=0, epsrel=1e-11, limit=200
    )[0]


def test_the_energies_are_the_parabola_in_sin_z():
    want = torch.tensor([by_hand(z) for z in cooling.angles(4096).tolist()], dtype=torch.float64)
    assert (ABOVE - want).abs().max() < 1e-13
    assert cooling.energies(torch.zeros(3, 5, 2).double(), cooling.angles(7), W).shape == (3, 5, 7)


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0, 100.0])
def test_both_forms_are_what_quadrature_says(beta):
    mean = adaptive(lambda z: math.exp(-beta * by_hand(z))) / (2 * math.pi)
    assert float(free_energy(ABOVE, beta)) == pytest.approx(-math.log(mean) / beta, abs=1e-10)
    assert float(cooling.printed(ABOVE, beta)) == pytest.approx(-mean / beta, rel=1e-9)


def test_the_printed_form_has_no_normaliser():
    """exp of a mean of weights: between 1 and 1 + (e - 1) times it, whose integral is pi."""
    low, high = 256 / (64 + (math.e - 1) * math.pi), 256 / 64
    assert low <= cooling.box_ratio(cooling.printed) < high
    assert 1 < cooling.box_ratio(free_energy) < 1.0052
    assert cooling.box_ratio(free_energy, 2.0) > 1.1  # the box of 2 cuts the ellipse


def test_two_rows_cross_where_their_weights_are_alike():
    """4 exp(-b / 2) = 1 + 3 exp(-3 b)."""
    a, b = torch.tensor([[0.0, 3, 3, 3], [0.5] * 4]).double()
    beta = cooling.reasons_cross(a, b, 1.0, 5.0)
    assert 4 * math.exp(-beta / 2) == pytest.approx(1 + 3 * math.exp(-3 * beta))
    with pytest.raises(ValueError, match="different signs"):
        cooling.reasons_cross(a, b, 3.0, 5.0)


def test_the_lebesgue_form_turns_where_the_entropy_vanishes():
    cell = 2 * math.pi / len(ABOVE)
    turn = cooling.lebesgue_turn(ABOVE, cell)
    peak = optimize.minimize_scalar(
        lambda b: -float(free_energy(ABOVE, b, "lebesgue", cell=cell)),
        bounds=(0.1, 100), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    assert turn.beta == pytest.approx(peak.x, rel=1e-6)
    assert turn.highest == pytest.approx(-peak.fun, abs=1e-12)
    # All alike over one turn: log 2 pi.
    assert cooling.entropy(torch.zeros(9), 1.0, 2 * math.pi / 9) == pytest.approx(
        math.log(2 * math.pi)
    )


def test_laplace_is_right_to_the_next_order():
    """The next term of 2 beta (F - F_inf) is -2 c / beta, c = 17 / (8 6.5^2)."""
    line = cooling.laplace(ABOVE, 6.5, (100.0, 1000.0))
    c = 17 / (8 * 6.5**2)
    assert line.rest == pytest.approx(-2 * c / 1000, rel=0.05)
    assert line.slope == pytest.approx(1 + 2 * c * (1 / 100 - 1 / 1000) / math.log(10), abs=2e-5)
    assert abs(cooling.laplace(ABOVE, 7.0, (100.0, 1000.0)).rest) > 0.05


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0, 100.0])
def test_the_normaliser_is_that_of_any_curve(beta):
    found = cooling.laws(beta)
    assert found.normaliser == pytest.approx(2 * math.pi**2 / beta, rel=1e-6)
    for masses in (found.marginal, found.minimum):
        assert masses.shape == (24, 4) and float(masses.sum()) == pytest.approx(1)


def test_sectors_hold_what_draws_put_there():
    """Of exact draws, and not of draws that are even in length."""
    beta, generator = 10.0, torch.Generator().manual_seed(1)
    found = cooling.laws(beta)
    counts = cooling.counted(cooling.drawn(40_000, beta, generator))
    assert counts.sum() == 40_000
    assert cooling.p_value(counts, found.marginal) > 1e-4
    assert cooling.p_value(counts, found.minimum) < 1e-12
    even = 40_000 * found.minimum
    assert cooling.p_value(even, found.minimum) == 1
    assert cooling.p_value(even.roll(6, 0), found.minimum) < 1e-12
    # Neither another fog nor a circle passes.
    assert cooling.p_value(counts, cooling.laws(8.0).marginal) < 1e-12
    circle = torch.tensor([1.75, 1.75]).double()
    other = cooling.drawn(40_000, beta, torch.Generator().manual_seed(1), circle)
    assert cooling.p_value(cooling.counted(other), found.marginal) < 1e-12
    # Sectors of the angle in units of the radii, of which the second begins at 15 degrees.
    points = 1.1 * W * torch.tensor([[1.0, 0.0], [0.96, 0.28], [0.0, -1.0]]).double()
    assert cooling.counted(0.95 * points).nonzero().tolist() == [[0, 2], [1, 2], [18, 2]]
    assert cooling.counted(1.05 * points)[:, 3].sum() == 3
    for bad in (0, 6):
        with pytest.raises(ValueError, match="n_sectors: expected a multiple of four"):
            cooling.laws(beta, bad)


def test_draws_have_the_moments_of_the_blurred_curve():
    """w_k^2 / 2 + 1 / (2 beta): 2.5 and 1.625 at beta = 1, with an error below 0.01."""
    y = cooling.drawn(100_000, 1.0, torch.Generator().manual_seed(0))
    assert y.square().mean(0).tolist() == pytest.approx([2.5, 1.625], abs=0.04)


def test_in_the_cold_one_law_is_even_in_z_and_the_other_in_length():
    """At beta = 1000 the fog is 0.02 wide: sectors of z, and of length."""
    found = cooling.laws(1000.0)
    assert (found.marginal.sum(1) - 1 / 24).abs().max() < 2e-4
    lengths = cooling.speeds(24 * 200).view(24, 200).sum(1)
    assert (found.minimum.sum(1) - lengths / lengths.sum()).abs().max() < 2e-4
    limit = cooling.apart_in_the_cold()
    assert found.apart == pytest.approx(limit, abs=4e-4)
    length = adaptive(lambda z: math.hypot(2 * math.sin(z), 1.5 * math.cos(z)))
    uneven = adaptive(
        lambda z: abs(math.hypot(2 * math.sin(z), 1.5 * math.cos(z)) / length - 1 / (2 * math.pi))
    )
    assert limit == pytest.approx(uneven / 2, abs=1e-6)


def test_the_density_is_the_bessel_function_of_the_page():
    """A circle of radius 2, beta 3: beta / pi exp(-beta (|y|^2 + 4)) I_0(4 beta |y|)."""
    y, beta = torch.tensor([[1.2, 0.5], [0.1, 2.2]]).double(), 3.0
    energy = cooling.energies(y, cooling.angles(256), torch.tensor([2.0, 2.0]).double())
    r = y.norm(dim=1)
    want = beta / math.pi * (-beta * (r.square() + 4)).exp() * torch.special.i0(4 * beta * r)
    found = beta / math.pi * (-beta * free_energy(energy, beta)).exp()
    assert (found / want - 1).abs().max() < 1e-10


def test_a_descent_of_the_printed_form_stalls():
    found = [
        cooling.stalled(form, 100.0, torch.Generator().manual_seed(1))
        for form in (cooling.printed, free_energy)
    ]
    assert found[0].stuck >= 8 and found[0].off >= found[0].stuck
    assert found[1] == (0, 0)


def test_bounds_and_directions_can_be_broken():
    energy, betas = torch.tensor([[0.0, 1.0], [2.0, 5.0]]).double(), (0.3, 1.0, 3.0)
    assert cooling.bounds_broken(free_energy, energy, betas) < 1e-12
    assert cooling.bounds_broken(cooling.printed, energy, (3.0,)) == pytest.approx(
        2 + (math.exp(-6) + math.exp(-15)) / 6
    )
    up = cooling.bounds_broken(lambda e, b: e.mean(-1) + 0.25, energy, (0.01,))
    assert up == pytest.approx(0.25)
    assert cooling.wrong_ways(energy, betas) == 0
    assert cooling.wrong_ways(energy, betas[::-1]) == 8
