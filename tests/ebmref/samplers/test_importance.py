"""Importance estimates meet closed forms, their errors mean what they say, and alarms ring."""

import math

import pytest
import torch

from ebmref import energies
from ebmref.samplers.importance import importance_estimate, log_weights, weighted_estimate


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(d, variance=1.0, mean=0.0):
    """N(mean, variance I) as an energy, with its Z."""
    eye = torch.eye(d, dtype=torch.float64)
    return energies.Gaussian(torch.full((d,), mean, dtype=torch.float64), variance * eye)


def first(x):
    return x[:, 0]


def square(x):
    return x[:, 0].square()


def one(x):
    return torch.ones_like(x[:, 0])


def mean_z(values, truth):
    """Deviation of the mean of replicates from the truth in standard errors of that mean."""
    return float((values.mean() - truth) / (values.std() / len(values) ** 0.5))


@pytest.mark.parametrize("d", [1, 3])
def test_plain_estimate_is_unbiased_and_its_error_right(d):
    """2000 replicates of 400 draws, E x_1^2 = 1: z below 4 (6e-5), coverage 0.95 to four sd.

    The sd of a coverage of 0.95 over 2000 is 0.0049; the normal approximation itself is off
    by less than 0.01 at these weights, hence 0.03.
    """
    target = normal(d)
    got = importance_estimate(
        square, target, normal(d, 2.0), 400, generator(d), log_z=target.log_z, n_replicates=2000
    )
    assert abs(mean_z(got.value, 1.0)) < 4
    assert float(got.se.square().mean() / got.value.var()) == pytest.approx(1, abs=0.2)
    covered = ((got.value - 1).abs() < 1.96 * got.se).double().mean()
    assert float(covered) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_self_normalised_error_and_coverage(shift):
    """E x_1 = shift from draws of N(0, 2 I) without Z: the same two tests."""
    target = normal(2, mean=shift)
    got = importance_estimate(first, target, normal(2, 2.0), 400, generator(), n_replicates=2000)
    assert float(got.value.mean()) == pytest.approx(shift, abs=0.01)
    assert float(got.se.square().mean() / got.value.var()) == pytest.approx(1, abs=0.2)
    covered = ((got.value - shift).abs() < 1.96 * got.se).double().mean()
    assert float(covered) == pytest.approx(0.95, abs=0.03)


def test_self_normalised_bias_is_the_first_order_term():
    """Bias of E x under q = N(0, s^2 = 2), p = N(0.5, 1), 20 draws, against the closed form.

    First order: -E_p[w (x - mu)] / n with w = p / q. p^2 / q is proportional to a Gaussian of
    precision 2 - 1/s^2 = 1.5 and mean (2 * 0.5) / 1.5 = 2/3, of mass 1 + chi^2 = c: bias
    -c (2/3 - 1/2) / 20. The next order is a few per cent of it; four sigma besides.
    """
    mass = _mass_of_square(0.5, 1.0, 2.0)
    bias = -mass * (2 / 3 - 0.5) / 20
    got = importance_estimate(
        first, normal(1, mean=0.5), normal(1, 2.0), 20, generator(), n_replicates=60_000
    )
    se = float(got.value.std()) / 60_000**0.5
    assert abs(float(got.value.mean()) - 0.5 - bias) < 4 * se + 0.2 * abs(bias)
    assert abs(bias) > 10 * se  # so that no bias at all would fail


def _mass_of_square(mean, variance, s2):
    """int p^2 / q for p = N(mean, variance), q = N(0, s2), on a fine grid."""
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64)
    log_p = -((x - mean) ** 2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)
    log_q = -(x**2) / (2 * s2) - 0.5 * math.log(2 * math.pi * s2)
    return float(torch.trapezoid((2 * log_p - log_q).exp(), x))


@pytest.mark.parametrize("d", [1, 2, 4])
def test_weights_have_the_variance_of_chi_square(d):
    """f = 1 with Z known is the mean weight: its variance is ((1 + chi^2)^d - 1) / n.

    N(0, 1) under N(0, 2): 1 + chi^2 = 2 / sqrt 3. The weights are bounded, so the sample
    variance over 4000 replicates is within 4 sqrt(2 / 4000) = 9 %, and ESS within as much
    of n / (1 + chi^2)^d.
    """
    target = normal(d)
    got = importance_estimate(
        one, target, normal(d, 2.0), 500, generator(d), log_z=target.log_z, n_replicates=4000
    )
    growth = (2 / 3**0.5) ** d
    assert float(got.value.var() * 500 / (growth - 1)) == pytest.approx(1, abs=0.1)
    assert float(got.ess.mean() / (500 / growth)) == pytest.approx(1, abs=0.1)
    assert abs(mean_z(got.value, 1.0)) < 4


def test_log_z_and_its_error():
    """Over 2000 replicates: mean of Z-hat over Z is 1 at four sigma; the error's size is right."""
    target = normal(3)
    got = importance_estimate(one, target, normal(3, 2.0), 500, generator(), n_replicates=2000)
    assert abs(mean_z((got.log_z - target.log_z).exp(), 1.0)) < 4
    assert float(got.log_z_se.square().mean() / got.log_z.var()) == pytest.approx(1, abs=0.2)
    # Self-normalised, the mean of a constant is that constant, without error.
    assert torch.allclose(got.value, torch.ones_like(got.value))
    assert float(got.se.max()) < 1e-12


def test_weights_of_any_size_do_not_overflow():
    """The same energy 5000 units up or down: same estimate, log Z moved by as much."""
    proposal = normal(2, 2.0)
    base = importance_estimate(square, normal(2), proposal, 1000, generator())
    for offset in (-5000.0, 5000.0):
        got = importance_estimate(
            square, lambda x, c=offset: normal(2)(x) + c, proposal, 1000, generator()
        )
        assert float(got.value) == pytest.approx(float(base.value), rel=1e-9)
        assert float(got.log_z + offset) == pytest.approx(float(base.log_z), abs=1e-9)


def test_a_perfect_proposal_has_every_draw():
    """q = p: ESS n, no error of log Z, no tail for k-hat to find."""
    law = normal(2)
    got = importance_estimate(first, law, law, 1000, generator())
    assert float(got.ess) == pytest.approx(1000)
    assert float(got.log_z) == pytest.approx(law.log_z)
    assert float(got.log_z_se) < 1e-10
    assert float(got.max_share) == pytest.approx(1e-3)
    assert got.pareto_k == -math.inf


def test_pareto_k_tells_a_bounded_tail_from_one_without_variance():
    """k is 1 - s^2 for N(0, 1) under N(0, s^2): the weights' tail index, s^2 < 1.

    P(w > t) ~ t^(-1/k) up to logarithms, which pull k-hat below: at s^2 = 0.2 some 0.6 to 0.9;
    s^2 = 2 is bounded, k = -1/2.
    """
    wide = importance_estimate(one, normal(1), normal(1, 2.0), 20_000, generator())
    narrow = importance_estimate(one, normal(1), normal(1, 0.2), 20_000, generator())
    assert float(wide.pareto_k) < 0.2
    assert float(narrow.pareto_k) > 0.5


def test_one_point_of_weight_takes_all():
    """A target that one draw in a hundred meets: the share of the largest says so."""
    target = energies.Gaussian(
        torch.tensor([6.0], dtype=torch.float64), torch.tensor([[1e-4]], dtype=torch.float64)
    )
    got = importance_estimate(first, target, normal(1, 4.0), 200, generator())
    assert float(got.max_share) > 0.99
    assert float(got.ess) < 1.1


def test_points_outside_the_support_count_as_draws():
    """A box under a wider one: E x = 0, Z = 2 from a share of 1/4; f may be infinite outside."""
    like = torch.zeros(1, dtype=torch.float64)
    target, proposal = energies.Box(like), energies.Box(like, -4.0, 4.0)
    got = importance_estimate(
        lambda x: torch.where(x[:, 0].abs() > 1, math.inf, x[:, 0]),
        target,
        proposal,
        10_000,
        generator(),
    )
    assert abs(float(got.value)) < 4 * float(got.se)
    assert abs(float(got.log_z) - math.log(2)) < 4 * float(got.log_z_se)
    assert float(got.log_z_se) == pytest.approx((3 / 10_000) ** 0.5, rel=0.1)


def test_replicates_are_single_runs():
    """The first replicate of many equals a run of its own with those draws; seeds repeat."""
    many = importance_estimate(square, normal(1), normal(1, 2.0), 100, generator(3), n_replicates=5)
    again = importance_estimate(
        square, normal(1), normal(1, 2.0), 100, generator(3), n_replicates=5
    )
    for a, b in zip(many, again, strict=True):
        assert a.shape == (5,)
        assert torch.equal(a, b)
    x = normal(1, 2.0).sample(500, generator(3))

    class Fixed:
        log_prob = staticmethod(normal(1, 2.0).log_prob)

        def sample(self, n, generator):
            return x[:n]

    alone = importance_estimate(square, normal(1), Fixed(), 100, generator())
    for a, b in zip(many, alone, strict=True):
        assert b.dim() == 0
        assert float(a[0]) == pytest.approx(float(b), rel=1e-12)


def test_log_weights_by_hand():
    """E = 3 and q = 1/4 everywhere: log w = -3 + log 4; infinite energy has weight zero."""

    class Flat:
        def log_prob(self, x):
            return torch.full((len(x),), -math.log(4.0))

    def energy(x):
        return torch.where(x[:, 0] > 0, 3.0, math.inf)

    got = log_weights(energy, Flat(), torch.tensor([[1.0], [-1.0]]))
    assert got.tolist() == [pytest.approx(-3 + math.log(4)), -math.inf]


def test_weighted_estimate_by_hand():
    """Weights 1, 2, 1 of the values 0, 3, 4: mean 2.5, ESS 16 / 6, Z = 4/3; with Z = 2, 5/3.

    The shares are 1/4, 1/2, 1/4, so that se^2 = (2.5^2 + 4 * 0.5^2 + 1.5^2) / 16 and the error of
    log Z is sqrt 3 times their standard deviation, 1 / sqrt 48. With Z known the terms are
    0, 3, 2 and se^2 is their variance, 7/3, over 3.
    """
    values = torch.tensor([0.0, 3.0, 4.0])
    log_w = torch.tensor([1.0, 2.0, 1.0]).log()
    got = weighted_estimate(values, log_w)
    assert float(got.value) == pytest.approx(2.5, rel=1e-6)
    assert float(got.se) == pytest.approx((9.5 / 16) ** 0.5, rel=1e-6)
    assert float(got.ess) == pytest.approx(16 / 6, rel=1e-6)
    assert float(got.log_z) == pytest.approx(math.log(4 / 3), rel=1e-6)
    assert float(got.log_z_se) == pytest.approx((3 / 48) ** 0.5, rel=1e-6)
    assert float(got.max_share) == pytest.approx(0.5, rel=1e-6)
    known = weighted_estimate(values, log_w, math.log(2))
    assert float(known.value) == pytest.approx(5 / 3, rel=1e-6)
    assert float(known.se) == pytest.approx((7 / 9) ** 0.5, rel=1e-6)


def test_weighted_estimate_is_what_an_importance_estimate_ends_with():
    """The same draws and weights give the same seven fields, in double precision."""
    target, proposal = normal(1), normal(1, 2.0)
    whole = importance_estimate(square, target, proposal, 300, generator(3), log_z=target.log_z)
    x = proposal.sample(300, generator(3))
    parts = weighted_estimate(square(x), log_weights(target, proposal, x), target.log_z)
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)


def test_weighted_rows_do_not_meet():
    """Batches of any shape; a common factor moves log Z alone, a weight of zero is none at all."""
    values = torch.randn(2, 3, 50, generator=generator(), dtype=torch.float64)
    log_w = 2 * torch.randn(2, 3, 50, generator=generator(1), dtype=torch.float64)
    log_w[0, 0, :5] = -math.inf
    shift = torch.tensor([[0.0, 900.0, -900.0], [3.0, -2.0, 1.0]], dtype=torch.float64)
    got = weighted_estimate(values, log_w + shift[..., None])
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        alone = weighted_estimate(values[i, j], log_w[i, j])
        for name, row, one in zip(got._fields, got, alone, strict=True):
            moved = shift[i, j] if name == "log_z" else 0.0
            assert row.shape == (2, 3) and one.dim() == 0
            assert float(row[i, j] - moved) == pytest.approx(float(one), rel=1e-9, abs=1e-12)
    fewer = weighted_estimate(values[0, 0, 5:], log_w[0, 0, 5:])
    assert float(fewer.value) == pytest.approx(float(got.value[0, 0]), rel=1e-12)
    assert float(fewer.log_z + math.log(45 / 50)) == pytest.approx(float(got.log_z[0, 0]))


def test_weights_that_are_all_zero_are_refused():
    """In one row of two is enough."""
    log_w = torch.tensor([[0.0, 0.0], [-math.inf, -math.inf]])
    with pytest.raises(ValueError, match="all its draws have weight zero"):
        weighted_estimate(torch.ones(2, 2), log_w)


class Broken:
    """Claims density zero, or NaN, at its own draws."""

    def __init__(self, value):
        self.value = value

    def sample(self, n, generator):
        return torch.randn(n, 1, generator=generator)

    def log_prob(self, x):
        return torch.full((len(x),), self.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 1}, "n: expected an integer >= 2; got 1"),
        ({"n": True}, "n: expected an integer"),
        ({"n_replicates": 0}, "n_replicates: expected an integer >= 1"),
        ({"log_z": math.nan}, "log_z: expected a finite number"),
        ({"generator": None}, "generator: expected a torch.Generator"),
        ({"f": lambda x: x}, r"f: expected shape \(10,\)"),
        ({"f": lambda x: x[:, 0] / 0}, "f: is not finite"),
        ({"energy": lambda x: x[:, 0] * math.nan}, "energy: is NaN"),
        ({"energy": lambda x: x}, "energy: expected shape"),
        ({"energy": lambda x: -math.inf * x[:, 0].abs()}, "energy: is -inf"),
        ({"energy": lambda x: math.inf * x[:, 0].abs()}, "all its draws have weight zero"),
        ({"proposal": Broken(-math.inf)}, "proposal: expected log_prob .* finite at its own"),
        ({"proposal": Broken(math.nan)}, "proposal: expected log_prob .* finite at its own"),
    ],
)
def test_bad_input_is_named(changed, message):
    arguments = {
        "f": first,
        "energy": normal(1),
        "proposal": normal(1, 2.0),
        "n": 10,
        "generator": generator(),
    }
    with pytest.raises(ValueError, match=message):
        importance_estimate(**arguments | changed)
