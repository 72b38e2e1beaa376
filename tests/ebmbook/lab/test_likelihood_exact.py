"""The smallest examples of learning without Z: formula and simulation are one, and can differ."""

import math

import pytest
import torch

from ebmbook.lab import likelihood_exact as exact
from ebmref.samplers import mala, ula

S, H = 2.0, 0.8


def within(estimate, truth, sigmas=4.5):
    return bool(((estimate.value - torch.as_tensor(truth)).abs() <= sigmas * estimate.se).all())


def test_the_slope_of_cd_is_the_formula_and_only_of_its_sampler():
    ks = (1, 2, 5, 20)
    want = torch.tensor([exact.cd_slope(0.3, k, H, S) for k in ks])
    found = exact.cd_slopes(ula, 0.3, ks, H, S, 60_000, 0)
    assert within(found, want) and (found.se < 0.02).all()
    # By hand: one step leaves r^2 s + h.
    assert want[0] == pytest.approx((S - ((1 - 0.12) ** 2 * S + H)) / 2)
    assert not within(exact.cd_slopes(ula, 0.3, ks, H, S, 60_000, 0), 1.2 * want)
    # Long chains: ULA's own law is wider than the model's, MALA's is not.
    own = (S - 1 / 0.3) / 2
    assert within(exact.cd_slopes(mala, 0.3, (100,), H, S, 60_000, 1), own)
    assert not within(exact.cd_slopes(ula, 0.3, (100,), H, S, 60_000, 1), own)


def test_the_bias_of_the_sampler_is_the_fixed_point():
    biased = exact.cd_fixed_point(H, S)
    assert biased * (1 - H * biased / 4) == pytest.approx(1 / S)
    assert [exact.cd_slope(biased, k, H, S) for k in (1, 7)] == pytest.approx([0, 0], abs=1e-12)
    assert abs(biased - 1 / S) > 0.05
    for bad in (2.1, 0.0):
        with pytest.raises(ValueError, match="step_size: expected > 0 and at most s"):
            exact.cd_fixed_point(bad, S)
    with pytest.raises(ValueError, match="a, step_size: expected > 0, and a step below"):
        exact.cd_slope(5.0, 1, 0.9, S)


def test_k_is_a_speed():
    """Longer chains are sooner at the same place; with MALA the place is the right one."""
    more = {"a": 0.25, "rate": 0.1, "batch": 400, "n_models": 24, "seed": 0}
    paths = exact.cd_learning(ula, (1, 4), H, S, n_steps=60, **more)
    assert paths.formula.shape == paths.learned.value.shape == (2, 61)
    gap = (paths.learned.value - paths.formula).abs()
    assert (gap <= 5 * paths.learned.se + 2e-3).all()
    assert (paths.formula[1, 1:40] > paths.formula[0, 1:40] + 1e-3).all()
    right = exact.cd_learning(mala, (4,), H, S, n_steps=80, **more)
    assert float(right.learned.value[0, -1]) == pytest.approx(1 / S, abs=0.012)
    assert float(paths.formula[1, -1]) == pytest.approx(exact.cd_fixed_point(H, S), abs=0.02)


def test_cd_sees_masses_by_the_share_that_crosses():
    formula, found = exact.crossing_slopes(0.8, 0.5, (0.0, 0.05, 0.5), (1, 3, 10), 60_000, 0)
    assert within(found, formula)
    assert formula[1, 1] == pytest.approx(1 - 0.95**3)
    assert (found.value[0] == 0).all() and not within(found, 0.8 * formula)
    with pytest.raises(ValueError, match="share, depth: the exact slope is zero"):
        exact.crossing_slopes(0.5, 0.0, (0.1,), (1,), 9, 0)
    with pytest.raises(ValueError, match="rate: expected a share"):
        exact.crossed(1.5, 1)


def test_cd_is_late_and_persistent_chains_overshoot():
    found = exact.basin_learning(
        0.9, 0.02, 1, learning_rate=0.5, n_steps=150, n_chains=400, n_models=24, seed=0
    )
    for way, paths in found.items():
        gap = (paths.learned.value - paths.formula).abs()
        assert (gap <= 5 * paths.learned.se + 0.012).all(), way
    masses = {way: paths.formula for way, paths in found.items()}
    # By hand: the first step of the exact one is along 0.9 - 0.5.
    assert masses["exact"][1].item() == pytest.approx(1 / (1 + math.exp(-0.5 * 0.4)))
    assert masses["exact"][100] > 0.88 and masses["exact"].max() < 0.9
    assert masses["cd"][100] < 0.8 and masses["cd"].diff().min() > 0
    assert masses["pcd"].max() > 0.97


def test_score_matching_is_blind_to_far_masses():
    found = exact.blindness((0.0, 2.0, 6.0, 12.0), 0.8, 0.3)
    assert [found.kl[0].item(), found.fisher[0].item()] == pytest.approx([0, 0], abs=1e-12)
    want = 0.8 * math.log(0.8 / 0.3) + 0.2 * math.log(0.2 / 0.7)
    assert found.kl[-1].item() == pytest.approx(want, abs=1e-6)
    assert found.fisher[1] > 0.05 and found.fisher[2] < 0.05 and found.fisher[3] < 1e-6


def test_denoising_learns_the_blurred_law():
    formula, found = exact.denoised_precision((0.1, 0.5, 2.0), S, 100_000, 0)
    assert formula.tolist() == pytest.approx([1 / 2.01, 1 / 2.25, 1 / 6])
    assert within(found, formula)
    assert not within(found, torch.full((3,), 1 / S))


def test_the_constant_is_learned_as_well_as_the_noise_is_near():
    found = exact.nce_constant((0.5, 1.0, 3.0), (1, 8), S, 3600, 300, 0)
    assert found.truth == pytest.approx(-0.5 * math.log(2 * math.pi * S))
    far = [0, 2]
    assert within(exact.Estimate(found.mean.value[far], found.mean.se[far]), found.truth)
    assert found.formula[1].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert found.deviation.value[1].max() < 1e-9  # the odds are the same everywhere
    ratio = (found.deviation.value / found.formula)[far]
    assert ((ratio - 1).abs() < 4.5 * (found.deviation.se / found.formula)[far]).all()
    assert (found.formula[far] > 0.01).all()
    with pytest.raises(ValueError, match="n_points: expected more than nu = 8"):
        exact.nce_constant((1.0,), (8,), S, 5, 4, 0)
