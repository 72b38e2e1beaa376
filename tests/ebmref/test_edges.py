"""Estimators and weights at the edge: offsets, scales, sizes, dtypes and infinities.

Each is held against the same number by sums that lose nothing (`math.fsum`, in double precision,
after the common offset is taken off), within the rounding of what it was given.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmref import ddls, energies, gan, gebm, losses, metrics, samplers
from ebmref.free_energy import free_energy, softmin

HELD = settings(max_examples=60)
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
OFFSETS = st.sampled_from([0.0, 1.0, -300.0, 1e4, -1e6, 1e8])
SCALES = st.sampled_from([1e-20, 1e-6, 1.0, 1e6, 1e20])
SEEDS = st.integers(0, 2**31)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def exact_log_mean(logs: torch.Tensor) -> float:
    """log of the mean of exp, of a row."""
    top = float(logs.max())
    return math.log(math.fsum(math.exp(float(v) - top) for v in logs)) + top - math.log(len(logs))


# Free energies ---------------------------------------------------------------------------------


@HELD
@given(
    st.sampled_from(DTYPES),
    st.sampled_from([1, 2, 48, 2000]),
    st.sampled_from([0.0, 3.0, -250.0, 3e4, -1e6]),
    st.sampled_from([1e-6, 0.1, 1.0, 7.0, 1e3, 1e30]),
    st.sampled_from(["counting", "normalised"]),
    SEEDS,
)
def test_a_free_energy_is_right_to_the_dtypes_rounding(dtype, n, offset, beta, measure, seed):
    """Off by the rounding of F and of the sum, an epsilon of either, and no more: also where nearly
    all weights are zero, where all are one, and where the sum does not fit the dtype."""
    energy = (5 * normal(n, seed=seed) + offset).to(dtype)
    given = energy.double()
    if not given.isfinite().all():
        return  # an offset that half precision does not have
    got = float(free_energy(energy, beta, measure))
    least = given.min()
    log_mean = exact_log_mean(-beta * (given - least))
    if beta < 1e-3:  # where the logarithm of the mean would lose what expm1 keeps
        log_mean = math.log1p(math.fsum((-beta * (given - least)).expm1().tolist()) / n)
    log_sum = log_mean + (math.log(n) if measure == "counting" else 0)
    right = float(least) - log_sum / beta
    if abs(right) > torch.finfo(dtype).max:
        assert got == math.copysign(math.inf, right)
        return
    eps = torch.finfo(dtype).eps
    room = eps * (abs(right) + float((given - least).max())) + 1e-6 * eps / beta
    if measure == "counting" or beta > 1e-3:
        rounding = 2e-12 if dtype == torch.float64 else torch.finfo(torch.float32).eps
        room += rounding * (2 + abs(log_sum)) / beta
    assert abs(got - right) <= 4 * room


@pytest.mark.parametrize("beta", [1e-6, 1e-9])
def test_a_hot_free_energy_keeps_all_digits(beta):
    """The mean less beta / 2 of the variance, to the rounding of the energies, not to that over
    beta; the next order is beta^2 times a sixth of a third moment."""
    energy = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    right = energy.mean() - beta * energy.var(correction=0) / 2
    assert abs(free_energy(energy, beta) - right) < 4 * beta**2 + 2e-15


@pytest.mark.parametrize("dtype, n", [(torch.float32, 10**6), (torch.bfloat16, 1000),
                                      (torch.float16, 70_000), (torch.float64, 10**5)])  # fmt: skip
def test_one_possible_z_of_many_is_the_free_energy(dtype, n):
    """All others weigh e^-100: the counting F is the least energy, the normalised one log n more,
    and the gradient is on that one."""
    energy = torch.full((n,), 100.0, dtype=dtype)
    energy[n // 2] = 3.0
    energy.requires_grad_()
    value = free_energy(energy, 1.0, "counting")
    assert value.dtype == dtype and float(value.detach()) == pytest.approx(3.0, abs=1e-6)
    (gradient,) = torch.autograd.grad(value, energy)
    assert float(gradient[n // 2]) == 1 and float(gradient.abs().sum()) == 1
    assert float(free_energy(energy.detach(), 1.0)) == pytest.approx(3 + math.log(n), rel=5e-3)


@HELD
@given(st.sampled_from(DTYPES), OFFSETS, st.sampled_from([0.1, 3.0, 1e3, 1e25]), SEEDS)
def test_a_softmin_has_no_offset(dtype, offset, beta, seed):
    """Of energies as they were given: the weights of their differences from the least."""
    energy = (normal(30, seed=seed) / beta + offset).to(dtype)
    if not energy.isfinite().all():
        return
    given = energy.double()
    right = (-beta * (given - given.min())).softmax(-1)
    got = softmin(energy, beta)
    eps = torch.finfo(dtype).eps
    assert got.dtype == dtype
    assert (got.double() - right).abs().max() <= 8 * max(eps, 1e-12)


@pytest.mark.parametrize("beta", [1e-50, 1e-3, 10.0, 1e39, 1e300])
def test_any_beta_is_right_in_single_precision(beta):
    """beta E, or beta itself, need not fit the dtype of the energies."""
    energy = torch.tensor([3.0e38, 3.1e38, 2.0, 2.0])
    cold = beta > 1e-30
    assert free_energy(energy, beta).isfinite()
    if cold:
        assert softmin(energy, beta).tolist() == [0.0, 0.0, 0.5, 0.5]
        least = free_energy(energy, beta, "counting")
        assert float(least) == pytest.approx(2 - math.log(2) / beta, rel=1e-6)


@HELD
@given(st.sampled_from(DTYPES), OFFSETS, st.sampled_from([0.1, 1.0, 3.0]), SEEDS)
def test_the_free_energy_of_a_loss_is_that_of_its_grid(dtype, offset, beta, seed):
    """The likelihood's gradient is the softmin, at any beta; the value that of `free_energy`."""
    energy = (normal(20, seed=seed) + offset).to(dtype).requires_grad_()
    if not energy.isfinite().all():
        return
    distance = torch.arange(20.0)
    seen = losses.answers_on_grid(energy, energy[0], distance, 0.5, 0.05, beta)
    eps = torch.finfo(dtype).eps
    right = free_energy(energy.detach().double(), beta, "lebesgue", cell=0.05)
    assert abs(float(seen.free.detach()) - float(right)) <= 4 * eps * (abs(offset) + 4 + 4 / beta)
    (slope,) = torch.autograd.grad(seen.free, energy)
    # Up to a level of a thousand the rounding of beta E at its whole size is left in.
    room = 8 * eps + 4 * max(eps if dtype == torch.float64 else 1.2e-7, 0) * min(abs(offset), 1000)
    assert (slope.double() - softmin(energy.detach().double(), beta)).abs().max() <= room


def test_the_cell_of_a_loss_is_in_the_dtype_of_the_energies():
    """log(0.1) of single precision is 1.5e-8 off."""
    energy = torch.zeros(4, dtype=torch.float64)
    seen = losses.answers_on_grid(energy, energy[0], torch.arange(4.0), 0.5, 0.1)
    assert float(seen.free) == pytest.approx(-math.log(0.4), abs=1e-15)


# Weights ---------------------------------------------------------------------------------------


@HELD
@given(st.sampled_from([2, 5, 30, 400]), OFFSETS, st.sampled_from([1e-9, 1.0, 30.0, 1e4]),
       st.sampled_from([0, 1, 3]), SEEDS)  # fmt: skip
def test_weighted_estimates_at_any_offset_and_spread(n, offset, spread, n_zero, seed):
    """Seven fields by exact sums: log Z moves with the offset and nothing else does; draws without
    weight count as draws, whatever their value."""
    log_w, values = spread * normal(n, seed=seed) + offset, normal(n, seed=seed + 1)
    log_w[: min(n_zero, n - 1)] = -math.inf
    values[: min(n_zero, n - 1)] = torch.tensor([math.nan, math.inf, -math.inf])[: n - 1][:n_zero]
    got = samplers.weighted_estimate(values, log_w)
    top = log_w.max()
    w = [math.exp(v) for v in (log_w - top).tolist()]
    total = math.fsum(w)
    share = [v / total for v in w]
    kept = [0.0 if s == 0 and not math.isfinite(v) else v
            for s, v in zip(share, values.tolist(), strict=True)]  # fmt: skip
    value = math.fsum(s * v for s, v in zip(share, kept, strict=True))
    error = math.sqrt(math.fsum((s * (v - value)) ** 2 for s, v in zip(share, kept, strict=True)))
    room = 1e-15 * (10 + abs(offset) + spread)  # of the rounding of log w itself
    assert float(got.value) == pytest.approx(value, abs=20 * room)
    assert float(got.se) == pytest.approx(error, rel=1e-6, abs=20 * room)
    assert float(got.ess) == pytest.approx(1 / math.fsum(s * s for s in share), rel=1e-6)
    assert float(got.log_z - top) == pytest.approx(math.log(total / n), abs=10 * room)
    assert float(got.log_z_se) == pytest.approx(
        np.std(share, ddof=1) * math.sqrt(n), rel=1e-5, abs=1e-7
    )
    assert float(got.max_share) == pytest.approx(max(share), rel=1e-6)
    assert not got.pareto_k.isnan()
    known = samplers.weighted_estimate(values, log_w, float(got.log_z))
    assert float(known.value) == pytest.approx(value, abs=1e-6)


@HELD
@given(st.integers(0, 5), st.sampled_from([math.nan, math.inf]), SEEDS)
def test_a_weight_that_is_no_number_is_named_as_such(at, bad, seed):
    """Not as weights that are all zero; in any row."""
    log_w = normal(2, 3, seed=seed).flatten()
    log_w[at] = bad
    words = "1 of 6 weights are NaN" if math.isnan(bad) else "1 of 6 weights are infinite: .* cover"
    with pytest.raises(ValueError, match=f"log_w: {words}"):
        samplers.weighted_estimate(torch.ones(2, 3), log_w.view(2, 3))
    with pytest.raises(ValueError, match="log_w: "):
        ddls.log_z0(log_w.view(2, 3))


@pytest.mark.parametrize(
    "values, log_w, log_z, words",
    [
        (torch.ones(1), torch.zeros(9), None, r"values, log_w: .* got \(1,\) and \(9,\)"),
        (torch.ones(9), torch.zeros(3, 9), None, "values, log_w: expected"),
        (torch.ones(1, 9), torch.zeros(3, 9), None, "values, log_w: expected"),
        (torch.ones(1), torch.zeros(1), None, "n >= 2"),
        (torch.tensor(1.0), torch.tensor(0.0), None, "values, log_w: expected"),
        (np.ones(3), torch.zeros(3), None, "values: expected a torch.Tensor; got ndarray"),
        (torch.ones(3), np.zeros(3), None, "log_w: expected a torch.Tensor; got ndarray"),
        (torch.tensor([math.nan, 1.0]), torch.zeros(2), None, "values: expected finite"),
        (torch.tensor([math.inf, 1.0]), torch.zeros(2), None, "values: expected finite"),
        (torch.ones(2), torch.zeros(2), math.nan, "log_z: expected a finite number"),
    ],
)
def test_values_that_do_not_fit_their_weights_are_named(values, log_w, log_z, words):
    with pytest.raises(ValueError, match=words):
        samplers.weighted_estimate(values, log_w, log_z)


@pytest.mark.parametrize(("f", "log_prob", "words"), [
    (lambda x: x[:, 0].numpy(), None, "f: expected a torch.Tensor"),
    (lambda x: x[:, 0], lambda x: np.zeros(len(x)), "log_prob: expected a torch.Tensor"),
])  # fmt: skip
def test_arrays_from_the_callers_functions_are_named(f, log_prob, words):
    law = energies.Box(torch.zeros(1))
    law.log_prob = log_prob or law.log_prob
    with pytest.raises(ValueError, match=words):
        samplers.importance_estimate(f, law, law, 4, torch.Generator())


def test_a_chain_keeps_its_law_where_the_global_proposal_has_no_mass():
    """Ex2MCMC for N(0, 1), whose q ends at -1 and 1: the variance is 1, that of 4,000 chains to 4
    standard errors of 0.022; chains that came back as soon as they left would have 0.61."""
    law = energies.Gaussian(torch.zeros(1), torch.eye(1))
    kernel = samplers.ex2mcmc(law, energies.Box(torch.zeros(1)), 0.5, 5)
    g = torch.Generator().manual_seed(0)
    chain = samplers.sample(kernel, torch.zeros(4000, 1), 100, warmup=50, thin=100, generator=g)
    assert float(chain.samples.var()) == pytest.approx(1, abs=0.09)
    assert float((chain.samples.abs() > 1).double().mean()) == pytest.approx(0.317, abs=0.03)


# Sums of energies ------------------------------------------------------------------------------


@HELD
@given(st.sampled_from([torch.float32, torch.float64]), OFFSETS, st.sampled_from([2, 50, 3000]),
       SEEDS)  # fmt: skip
def test_objectives_of_a_base_and_an_energy_at_any_offset(dtype, offset, n, seed):
    """log of the mean weight, L and F = L at the best c, to the rounding of the energies."""
    real, fake = (normal(2, n, seed=seed) + offset).to(dtype)
    eps = torch.finfo(dtype).eps * (abs(offset) + 10)
    log_z = exact_log_mean(-fake.double())
    assert float(gebm.log_mean_weight(fake)) == pytest.approx(log_z, abs=4 * eps)
    height = -math.fsum(real.tolist()) / n - log_z
    assert float(gebm.likelihood(real, fake)) == pytest.approx(height, abs=8 * eps)
    c = torch.tensor(log_z, dtype=dtype)
    assert float(gebm.bound(real, fake, c)) == pytest.approx(height, abs=8 * eps)


MASSES = st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 0.3, 1.0]), min_size=6, max_size=6)


@HELD
@given(MASSES, MASSES)
def test_jensen_shannon_with_zeros_is_between_0_and_log_2(one, other):
    p, q = torch.tensor([one, other], dtype=torch.float64)
    if not p.sum() > 0.1 or not q.sum() > 0.1:
        return
    got = float(gan.jensen_shannon(p / p.sum(), q / q.sum()))
    assert -1e-15 <= got <= math.log(2) + 1e-15


def test_jensen_shannon_of_nan_is_nan():
    """Not the zero that 0 / 0 stands for."""
    p = torch.tensor([math.nan, 0.5])
    assert gan.jensen_shannon(p, torch.tensor([0.5, 0.5])).isnan()
    assert gan.jensen_shannon(torch.tensor([0.5, 0.5]), p).isnan()


# Distances -------------------------------------------------------------------------------------


@HELD
@given(st.sampled_from([0.0, 1e3, 1e6, 1e8]), SCALES, st.sampled_from([1, 2, 40]),
       st.sampled_from([6, 60]), SEEDS)  # fmt: skip
def test_metrics_do_not_know_where_the_origin_is(offset, scale, d, n, seed):
    """Clouds moved and stretched, rounding of the coordinates apart: the same neighbours, covered
    shares, modes and MMD; copies at a distance of exactly zero."""
    both = normal(2, n, d, seed=seed)
    held = (both + offset) - offset  # what is left of them that far out
    one, other = held
    far, away = scale * (held + offset)
    distance, at = metrics.nearest(far, far)
    assert (distance == 0).all() and (far[at] == far).all()
    distance, at = metrics.nearest(far, away)
    right = (one[:, None] - other).norm(dim=-1)
    least = right.min(1).values
    room = 1e-7 * least + 2e-13 * (1 + offset)  # seven digits, and what the offset has rounded
    assert ((distance / scale - least).abs() <= room).all()
    assert (right.gather(1, at[:, None])[:, 0] - least <= room).all()
    assert metrics.manifold(far, away, 2) == pytest.approx(metrics.manifold(one, other, 2))
    source = torch.Generator().manual_seed(0)
    test = metrics.mmd_test(far, away, source, n_permutations=9)
    source.manual_seed(0)
    plain = metrics.mmd_test(one, other, source, n_permutations=9)
    assert test.value == pytest.approx(plain.value, abs=1e-6)
    got = metrics.frechet_distance(far, away) / scale / scale
    assert got == pytest.approx(metrics.frechet_distance(one, other), rel=1e-5, abs=1e-5)
    counts = metrics.mode_statistics(far, far[:2], scale, 1.0).counts
    assert torch.equal(counts, metrics.mode_statistics(one, one[:2], 1.0, 1.0).counts)


@pytest.mark.parametrize("d", [1, 2, 40])
@pytest.mark.parametrize("apart", [10.0**-k for k in range(13)])
def test_the_nearest_is_as_near_as_it_is_to_seven_digits(apart, d):
    """At every distance, as the difference of squares alone is not: at 1e-8 it keeps no digit."""
    one, away = normal(2, 500, d, seed=4)
    other = one + apart * away / away.norm(dim=1, keepdim=True)
    right = (one[:, None] - other).norm(dim=-1).min(1).values
    assert torch.allclose(metrics.nearest(one, other)[0], right, rtol=1e-7, atol=0)


@pytest.mark.parametrize("scale", [1e-200, 1e-40, 1e40, 1e200])
def test_metrics_of_clouds_whose_squares_do_not_fit(scale):
    x, y = normal(2, 50, 3)
    assert metrics.manifold(scale * x, scale * y) == metrics.manifold(x, y)
    there = metrics.nearest(scale * x, scale * y)[0] / scale
    assert torch.allclose(there, metrics.nearest(x, y)[0], rtol=1e-12)
    test = [metrics.mmd_test(s * x, s * y, torch.Generator().manual_seed(0)) for s in (1, scale)]
    assert test[0].p_value == test[1].p_value and test[0].value == pytest.approx(test[1].value)
    frechet = metrics.frechet_distance(scale * x, scale * y)
    if 1e-100 < scale < 1e100:
        assert frechet / scale**2 == pytest.approx(metrics.frechet_distance(x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [2, 784])
def test_copies_are_at_distance_zero(dtype, d):
    """Each of 500 points from itself and from its copy; 1,500 rows are more than a block."""
    x = torch.rand(1500, d, generator=torch.Generator().manual_seed(0), dtype=dtype)
    distance, at = metrics.nearest(x, x.flip(0))
    assert (distance == 0).all() and torch.equal(at, torch.arange(1500).flip(0))


def test_two_tight_clusters_far_from_each_other():
    """A tenth of a millionth wide, two apart: each point's neighbour is in its own cluster, at the
    distance that NumPy finds by differences; one centre for both would not show it."""
    x = 1e-7 * normal(80, 2)
    x[40:] += 2.0
    y = x + 1e-9
    distance, at = metrics.nearest(y, x)
    right = np.linalg.norm((y[:, None] - x).numpy(), axis=-1)
    assert np.allclose(distance, right.min(1), rtol=1e-6)
    assert at.tolist() == right.argmin(1).tolist()


def test_a_point_on_the_edge_of_a_ball_is_inside():
    """Recall, then precision, density and coverage. Sums of such numbers are exact."""
    real = torch.tensor([[0.0], [3.0], [10.0]])
    fake = torch.tensor([[4.0], [5.0], [20.0], [21.0]])  # reaches 1, 1, 1, 1
    got = metrics.manifold(real, fake, 1)
    assert got.recall == pytest.approx(1 / 3)  # 3 is at 1 from 4, on the edge
    real = torch.tensor([[0.0], [2.0], [50.0], [52.0]])  # reach 2
    got = metrics.manifold(real, torch.tensor([[4.0], [54.0]]), 1)
    assert (got.precision, got.coverage) == (1, 0.5)  # both on the edge of one ball each
    assert got.density == 1


def test_what_a_kernel_gives_is_checked():
    x = normal(6, 2)
    with pytest.raises(ValueError, match="kernel: expected"):
        metrics.kernel_distance(x, x, lambda a, b: a @ b.mT.sum(1))
    with pytest.raises(ValueError, match="kernel: is not finite"):
        metrics.kernel_distance(1e150 * x, x)


# Closed forms ----------------------------------------------------------------------------------


def quadrature(law, low, high, n=200_001):
    """log Z of a law on the line."""
    x = torch.linspace(low, high, n, dtype=torch.float64)
    return math.log(float(torch.trapezoid((-law(x[:, None])).exp(), x)))


LINE = torch.zeros(1, dtype=torch.float64)


@pytest.mark.parametrize("tilt", [1e-300, 1e-12, 1e-6, 0.5, 30.0, 700.0, 1e5])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("middle", [0.0, 100.0])
def test_a_tilted_box_at_any_tilt(tilt, sign, middle):
    """log Z = log(2 sinh(t) / t) about the middle, without a sum that overflows or a difference
    that loses digits; the law's distribution function and its draws agree with it."""
    box = energies.Box(LINE, middle - 1, middle + 1, sign * tilt)
    # log(2 sinh t / t) = t + log(1 - e^-2t) - log t
    right = tilt + math.log(-math.expm1(-2 * tilt)) - math.log(tilt) - sign * tilt * middle
    assert box.log_z == pytest.approx(right, rel=1e-13, abs=1e-13)
    cdf = box.cdf(torch.linspace(middle - 1, middle + 1, 9, dtype=torch.float64))
    assert cdf[0] == 0 and cdf[-1] == 1 and (cdf.diff() >= 0).all()
    if tilt > 20:  # half of the mass lies within log(2) / t of the lower end
        half = torch.tensor([middle - sign * (1 - math.log(2) / tilt)], dtype=torch.float64)
        assert float(box.cdf(half)) == pytest.approx(0.5, abs=1e-12 * tilt * (1 + middle))
    draws = box.sample(2000, torch.Generator().manual_seed(0))
    assert draws.isfinite().all() and ((draws - middle).abs() <= 1).all()
    assert float(box.cdf(draws[:, 0]).mean()) == pytest.approx(0.5, abs=4 * 0.29 / 2000**0.5)


@pytest.mark.parametrize("nu", [0.5, 3.0, 99.0, 101.0, 1e4, 1e12, 1e30])
def test_students_normaliser_tends_to_the_normal_one(nu):
    """log Z by quadrature where it can be had, log(2 pi) / 2 + 1 / (4 nu) far out."""
    law = energies.StudentT(LINE, nu)
    if nu >= 99:
        right = 0.5 * math.log(2 * math.pi) + 1 / (4 * nu)
        assert law.log_z == pytest.approx(right, abs=0.1 / nu**3 + 1e-13)
    elif nu > 1:
        assert law.log_z == pytest.approx(quadrature(law, -300, 300), abs=1e-6)
    assert float(law.log_prob(LINE[None])) == pytest.approx(-law.log_z)


@pytest.mark.parametrize("call, words", [
    (lambda: energies.StudentT(LINE, math.inf), "like, nu: expected"),
    (lambda: energies.Funnel(LINE.float().repeat(2), 50.0), "scale: e"),
    (lambda: energies.Ring(LINE, 1e-200, 1.0), "radius, width: expected"),
    (lambda: energies.Ring(LINE, 1.0, math.inf), "radius, width: expected"),
    (lambda: energies.Box(LINE, -math.inf, 0.0), "like, low, high, tilt: expected"),
    (lambda: energies.Box(LINE, 0.0, 1.0, math.nan), "like, low, high, tilt: expected"),
    (lambda: energies.Gaussian(LINE * math.nan, torch.eye(1).double()), "mean, covariance"),
    (lambda: energies.Gaussian(LINE.float(), torch.full((1, 1), 1e-42)), "mean, covariance"),
    (lambda: energies.GaussianMixture(LINE[:, None].float(), torch.tensor([1e-25])), "scales"),
    (lambda: energies.GaussianMixture(LINE[:, None], torch.full((1,), math.inf)), "scales"),
])  # fmt: skip
def test_parameters_without_a_law_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("radius, width", [(1e-50, 1.0), (1.0, 1e-50), (1e90, 1e-90), (5.0, 0.1)])
def test_a_ring_of_any_size(radius, width):
    """Z is that of the whole disc, 2 pi width^2, or of a straight valley, 2 pi R sqrt(2 pi) w."""
    law = energies.Ring(torch.zeros(1, dtype=torch.float64), radius, width)
    if radius < width:
        right = math.log(2 * math.pi) + 2 * math.log(width)
    else:
        right = 1.5 * math.log(2 * math.pi) + math.log(radius) + math.log(width)
    assert law.log_z == pytest.approx(right, abs=1e-12)


# Critics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["logistic", "beta", "isotonic"])
def test_a_wall_stays_a_wall(method):
    """Minus infinity is calibrated to itself, also by a map that is flat."""
    for real in (normal(1, 40, seed=1) + 1, torch.full((1, 40), 3.0).double()):
        made = ddls.calibrate(real, normal(1, 40, seed=2) if real.std() else real, method)
        got = made.apply(torch.tensor([[-math.inf, 0.5]], dtype=torch.float64))
        assert got[0, 0] == -math.inf and got[0, 1].isfinite()


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
@pytest.mark.parametrize("offset", [1e3, -1e6])
def test_a_calibration_takes_an_offset_off(method, offset):
    """The same map of the same logits, however far they are moved: to the solver's tolerance."""
    real, fake = normal(2, 1, 400, seed=3) + torch.tensor([[[1.0]], [[-1.0]]])
    at = torch.linspace(-2, 2, 9, dtype=torch.float64)[None]
    one, other = (ddls.calibrate(real + c, fake + c, method) for c in (0.0, offset))
    assert torch.allclose(one.apply(at), other.apply(at + offset), atol=0.01)


def test_the_statistic_of_a_critic_that_is_sure():
    """Sure and right: zero. Sure and wrong: infinitely far off. Not the NaN of 0 / 0."""
    sure = torch.full((1, 30), 1000.0)
    assert float(ddls.calibration_z(sure, -sure)) == 0
    assert float(ddls.calibration_z(-sure, -sure)) == math.inf


def test_a_counted_critic_has_walls_and_no_nan():
    """Data on the left half alone: on the border, beyond it and on the centres of the cells it is
    finite where the nearest cells have data, minus infinite where they have none."""

    def log_data(x):
        return torch.where(x[:, 0] < 0, 0.0, -math.inf)

    model = ddls.Model(lambda z: z, lambda x: x[..., 0], ddls.Normal(2))
    made = ddls.counted(model, log_data, 500, torch.Generator(), reach=2.0, cells=4)
    x = torch.tensor([[[-0.5, 0.5], [-9.0, 9.0], [-1.5, -9.0], [0.5, 0.5], [9.0, 0.0]]])
    got = made.critic(x)[0]
    assert got[:3].isfinite().all() and (got[3:] == -math.inf).all()
    with pytest.raises(ValueError, match="log_data: expected"):
        ddls.counted(
            model, lambda x: x[:, 0] * 0 - math.inf, 9, torch.Generator(), reach=1.0, cells=2
        )


def test_a_wall_is_not_the_steepest_slope():
    """Where some of the pairs lie behind a wall the others tell how steep the critic is."""
    model = ddls.Model(
        lambda z: z, lambda x: torch.where(x[..., 0] > 1, -math.inf, 2 * x[..., 0]), ddls.Normal(1)
    )
    start = torch.zeros(1, 5, 1)
    g = torch.Generator().manual_seed(0)
    made = ddls.transport(model, 5, 3, g, start=start, n_pairs=200)
    known = ddls.transport(model, 5, 3, g, start=start, lipschitz=2.0)
    assert torch.allclose(made.states, known.states, atol=1e-6)


# Contexts --------------------------------------------------------------------------------------


def test_estimates_do_not_know_the_default_dtype():
    x, y = (normal(60, 2, seed=s, dtype=torch.float32) for s in (1, 2))

    def all_of_them():
        g = torch.Generator().manual_seed(0)
        energy = x[:, 0]
        return (
            metrics.parzen_log_likelihood(x, y, y),
            metrics.mmd_test(x, y, g, n_permutations=9),
            losses.answers_on_grid(energy, energy[0], energy.abs(), 0.1, 0.1, 0.7).free,
            samplers.weighted_estimate(energy, energy).value,
            free_energy(energy, 0.3),
        )

    before = all_of_them()
    torch.set_default_dtype(torch.float64)
    try:
        after = all_of_them()
    finally:
        torch.set_default_dtype(torch.float32)
    assert before == after


def test_estimates_in_inference_mode_are_the_same():
    x, y = normal(30, 2, seed=1), normal(30, 2, seed=2)

    def all_of_them():
        law = energies.Gaussian(torch.zeros(2).double(), torch.eye(2).double())
        g = torch.Generator().manual_seed(0)
        return (
            metrics.manifold(x, y),
            free_energy(x, 0.3).tolist(),
            samplers.importance_estimate(lambda x: x[:, 0], law, law, 9, g).value.item(),
        )

    with torch.inference_mode():
        inside = all_of_them()
    assert inside == all_of_them()


def test_a_slope_in_inference_mode_is_refused_by_name():
    model = ddls.Model(lambda z: z, lambda x: x[..., 0], ddls.Normal(1))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="needs gradients"):
        ddls.gradient_flow(model, 2, 1, torch.Generator())


@pytest.mark.parametrize("call, words", [
    (lambda a: metrics.class_shares(a, 2), "labels"),
    (lambda a: metrics.mmd_test(*normal(2, 5, 1), torch.Generator(), bandwidths=a), "bandwidths"),
    (lambda a: metrics.parzen_log_likelihood(*normal(3, 5, 1), a), "bandwidths"),
    (lambda a: gan.jensen_shannon(a, a), "p"),
    (lambda a: ddls.calibrate(a, a), "real"),
    (lambda a: ddls.calibration_z(a, a), "real"),
    (lambda a: losses.answers_on_grid(a, a, a, 1.0, 1.0), "energy"),
])  # fmt: skip
def test_arrays_are_named(call, words):
    with pytest.raises(ValueError, match=f"{words}: expected a torch.Tensor; got ndarray"):
        call(np.ones(5))
