"""Rejection sampling draws from exact laws, prices them exactly, and refuses a false envelope."""

import math

import pytest
import torch
from scipy import stats

from ebmref import energies
from ebmref.samplers.rejection import envelope_constant, rejection_sample


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(d, variance=1.0, dtype=torch.float64):
    """N(0, variance I) as an energy, with its Z."""
    return energies.Gaussian(torch.zeros(d, dtype=dtype), variance * torch.eye(d, dtype=dtype))


def wide_log_m(d):
    """log sup e^{-E} / q for N(0, I) under N(0, 2 I): Z 2^(d/2), reached at 0."""
    return 0.5 * d * math.log(2 * math.pi) + 0.5 * d * math.log(2)


def test_draws_follow_the_target():
    """KS in one dimension against the exact law, three seeds, each at 1e-4."""
    target = energies.Box(torch.zeros(1, dtype=torch.float64), 0.0, 1.0, tilt=2.0)
    proposal = energies.Box(torch.zeros(1, dtype=torch.float64), 0.0, 1.0)
    for seed in range(3):
        got = rejection_sample(target, proposal, 0.0, 5000, generator(seed))
        assert got.samples.shape == (5000, 1)
        p = stats.kstest(
            got.samples[:, 0].numpy(), lambda x: target.cdf(torch.tensor(x)).numpy()
        ).pvalue
        assert p > 1e-4


def test_proposal_density_is_divided_out():
    """A proposal that is not flat: KS at 1e-4 in each of two coordinates and in their sum."""
    got = rejection_sample(normal(2), normal(2, 2.0), wide_log_m(2), 5000, generator())
    columns = [*got.samples.T, got.samples.sum(1) / 2**0.5]
    for column in columns:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("slack", [0.0, 1.0])
@pytest.mark.parametrize("d", [1, 4, 8])
def test_cost_is_the_negative_binomial_law(d, slack):
    """n_proposals for n samples at acceptance 2^(-d/2) e^-slack: two-sided tail above 1e-4."""
    log_m = wide_log_m(d) + slack
    got = rejection_sample(normal(d), normal(d, 2.0), log_m, 400, generator(d))
    law = stats.nbinom(400, 2 ** (-d / 2) * math.exp(-slack))
    failures = got.n_proposals - 400
    assert min(law.cdf(failures), law.sf(failures - 1)) > 5e-5
    assert got.acceptance_rate == 399 / (got.n_proposals - 1)


@pytest.mark.parametrize("slack", [0.0, 0.7])
def test_log_z_and_its_error(slack):
    """Over 200 runs: log Z on average right (z below 4, 6e-5), its error of the right size.

    The mean over 200 of a squared z of 1 has sd 0.1; 0.6 to 1.5 is four of them and more.
    """
    target, log_m = normal(2), wide_log_m(2) + slack
    runs = [rejection_sample(target, normal(2, 2.0), log_m, 200, generator(s)) for s in range(200)]
    z = torch.tensor([(run.log_z - target.log_z) / run.log_z_se for run in runs])
    assert abs(z.mean()) * 200**0.5 < 4
    assert 0.6 < z.square().mean() < 1.5


def test_acceptance_is_unbiased_for_few_samples():
    """Five kept, 4000 times, at 2^-1/2: z below 4; n / n_proposals would be 5 % too high."""
    stream = generator()
    rates = torch.tensor(
        [
            rejection_sample(normal(1), normal(1, 2.0), wide_log_m(1), 5, stream).acceptance_rate
            for _ in range(4000)
        ]
    )
    se = float(rates.std()) / 4000**0.5
    assert abs(float(rates.mean()) - 2**-0.5) < 4 * se
    assert 4 * se < 0.03 * 2**-0.5  # so that the bias would show


def test_one_sample_is_enough():
    got = rejection_sample(normal(1), normal(1, 2.0), wide_log_m(1), 1, generator())
    assert got.samples.shape == (1, 1)
    assert got.acceptance_rate == 1 / got.n_proposals


def test_any_event_shape_and_precision():
    """A batch of pictures in single precision: same shape and dtype out, right mean energy."""

    class Pictures:
        def sample(self, n, generator):
            return math.sqrt(2) * torch.randn(n, 2, 3, generator=generator)

        def log_prob(self, x):
            return -(x.square() / 4).sum((1, 2)) - 3 * math.log(4 * math.pi)

    def energy(x):
        return 0.5 * x.square().sum((1, 2))

    got = rejection_sample(energy, Pictures(), wide_log_m(6), 2000, generator())
    assert got.samples.shape == (2000, 2, 3)
    assert got.samples.dtype == torch.float32
    # The energy is Gamma(3): mean 3, variance 3; four sigma.
    assert abs(float(energy(got.samples).mean()) - 3) < 4 * (3 / 2000) ** 0.5


def test_same_seed_same_draws_and_global_state_untouched():
    state = torch.get_rng_state()
    one, two = (
        rejection_sample(normal(3), normal(3, 2.0), wide_log_m(3), 50, generator(7))
        for _ in range(2)
    )
    assert torch.equal(one.samples, two.samples)
    assert one[1:] == two[1:]
    assert torch.equal(state, torch.get_rng_state())


def test_an_envelope_too_low_is_an_error():
    """Half the least envelope: refused with the excess, here log 2, to one digit."""
    with pytest.raises(ValueError, match=r"log_m: the envelope is too low.*by up to 0\.69"):
        rejection_sample(normal(1), normal(1, 2.0), wide_log_m(1) - math.log(2), 5000, generator())


def test_a_tight_envelope_survives_rounding():
    """A flat ratio touches the envelope everywhere, in float32 to rounding only: all kept."""
    law = normal(20, dtype=torch.float32)
    got = rejection_sample(law, law, law.log_z, 20_000, generator())
    assert got.acceptance_rate > 0.999


def test_a_hopeless_acceptance_ends_in_an_error():
    """Acceptance 2^-20: the bound is kept, and the message says what was found."""
    with pytest.raises(RuntimeError, match="max_proposals: 20000 proposals gave 0 of 10 samples"):
        rejection_sample(
            normal(40), normal(40, 2.0), wide_log_m(40), 10, generator(), max_proposals=20_000
        )


def nan_energy(x):
    return torch.where(x[:, 0] > 1, torch.nan, x[:, 0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0}, "n: expected an integer >= 1; got 0"),
        ({"n": 2.5}, "n: expected an integer"),
        ({"log_m": math.inf}, "log_m: expected a finite number"),
        ({"log_m": math.nan}, "log_m: expected a finite number"),
        ({"max_proposals": 3}, "max_proposals: expected >= n = 10"),
        ({"generator": None}, "generator: expected a torch.Generator"),
        ({"energy": nan_energy}, "energy: is NaN"),
        ({"energy": lambda x: x}, "energy: expected shape"),
        ({"energy": lambda x: -math.inf * x[:, 0].abs()}, "energy: is -inf"),
    ],
)
def test_bad_input_is_named(changed, message):
    arguments = {
        "energy": normal(1),
        "proposal": normal(1, 2.0),
        "log_m": wide_log_m(1),
        "n": 10,
        "generator": generator(),
    }
    with pytest.raises(ValueError, match=message):
        rejection_sample(**arguments | changed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 5, 24])
def test_envelope_of_a_gaussian(d, dtype):
    """The closed form to rounding, also where no draw of the proposal comes near the peak."""
    found = envelope_constant(normal(d, dtype=dtype), normal(d, 2.0, dtype), generator())
    assert found.log_m == pytest.approx(wide_log_m(d), abs=1e-5)
    assert found.x.shape == (d,)
    assert float(found.x.abs().max()) < 1e-2


def test_envelope_of_two_peaks_is_the_higher():
    """Double well under N(0, 4): the maximum of the ratio by a fine grid, to 1e-6."""
    proposal = normal(1, 4.0)
    grid = torch.linspace(-3, 3, 600_001, dtype=torch.float64)[:, None]
    exact = float((-energies.double_well(grid) - proposal.log_prob(grid)).max())
    found = envelope_constant(energies.double_well, proposal, generator())
    assert found.log_m == pytest.approx(exact, abs=1e-6)
    assert found.slope < 1e-4


def test_heavier_tails_are_an_envelope():
    """t_10 under t_5 is bounded, its ratio highest at |x| = 1 in every coordinate."""
    like = torch.zeros(3, dtype=torch.float64)
    target, proposal = energies.StudentT(like, 10.0), energies.StudentT(like, 5.0)
    found = envelope_constant(target, proposal, generator())
    assert torch.allclose(found.x.abs(), torch.ones_like(like), atol=1e-3)


LIKE = torch.zeros(2, dtype=torch.float64)
# Wider than the target in nineteen coordinates, narrower in one: rays through draws go down.
MIXED = torch.tensor([0.9] + [4.0] * 19, dtype=torch.float64)


@pytest.mark.parametrize(
    ("target", "proposal"),
    [
        (normal(2), normal(2, 0.5)),
        (normal(2), normal(2, 0.999)),
        (energies.StudentT(LIKE, 1.0), normal(2)),
        (energies.StudentT(LIKE, 5.0), energies.StudentT(LIKE, 10.0)),
        (normal(2), energies.Box(LIKE)),
        (normal(20), energies.Gaussian(torch.zeros_like(MIXED), torch.diag(MIXED))),
    ],
    ids=["narrow", "barely narrow", "cauchy", "t5 under t10", "box", "one narrow coordinate"],
)
def test_no_envelope_exists(target, proposal):
    """sup p / q is infinite: refused, whether it grows like an exponential or like a power."""
    with pytest.raises(ValueError, match="proposal: e\\^-E / q has no bound"):
        envelope_constant(target, proposal, generator())


def test_a_missed_peak_is_noticed():
    """The higher peak has one in a hundred of the proposal's draws; two starts miss it."""
    means = torch.tensor([[-6.0], [6.0]], dtype=torch.float64)
    scales = torch.ones(2, dtype=torch.float64)
    weights = torch.tensor([0.99, 0.01], dtype=torch.float64)
    proposal = energies.GaussianMixture(means, scales, weights)
    target = energies.GaussianMixture(means, scales * 0.9)
    with pytest.raises(ValueError, match=r"n_starts: .* fresh draws lie above the best of 2"):
        envelope_constant(target, proposal, generator(), n_starts=2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_starts": 1}, "n_starts: expected an integer >= 2"),
        ({"n_check": 0}, "n_check: expected an integer >= 1"),
        ({"step_size": 0.0}, "step_size: expected > 0"),
        ({"generator": 0}, "generator: expected a torch.Generator"),
        ({"energy": nan_energy}, "energy: is NaN"),
        ({"energy": energies.Box(LIKE[:1], 100.0, 101.0)}, "n_starts: none of the proposal's"),
    ],
)
def test_bad_input_of_the_envelope_is_named(changed, message):
    arguments = {"energy": normal(1), "proposal": normal(1, 2.0), "generator": generator()}
    with pytest.raises(ValueError, match=message):
        envelope_constant(**arguments | changed)


def test_estimated_envelope_drives_the_sampler():
    """Envelope found, then used: Z of a double well against quadrature, four sigma."""
    proposal = normal(2, 4.0)
    log_m = envelope_constant(energies.double_well, proposal, generator()).log_m
    got = rejection_sample(energies.double_well, proposal, log_m, 5000, generator(1))
    side = torch.linspace(-6, 6, 20_001, dtype=torch.float64)
    one = torch.trapezoid((-energies.double_well(side[:, None])).exp(), side)
    assert abs(got.log_z - 2 * float(one.log())) < 4 * got.log_z_se
