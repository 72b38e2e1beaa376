"""Ways to learn at one price, folk recipes that run away, short runs: small, and can fail."""

import math

import pytest
import torch

from ebmbook.lab import likelihood as lab
from ebmbook.lab import plane

LAW = plane.law("ring", n_side=40)
DATA = LAW.draws.sample(2000, torch.Generator().manual_seed(100))
WAYS = lab.entries(LAW, DATA)
SMALL = {"hidden": (16,), "batch": 64}


def test_a_price_counts_gradients_and_half_of_energies_alone():
    """By hand, each a datum of 64; chains of two steps that jump ask 16 energies a step."""
    for name, want in {
        "exact": 64 + 1600,
        "CD-1": 64 * (2 + 2),
        "CD-10": 64 * (2 + 11),
        "CD-10, both terms": 64 * (2 + 10 + 3),
        "PCD, jumps": 64 * (2 + 1 + 2 * 5) + 0.5 * 64 * 2 * 16,
        "short run": 64 * (2 + 21),
        "NCE": 64 * 5,
        "score matching": 64 * 2 * 3,
        "sliced": 64 * 2 * 2,
        "denoising": 64 * 2,
    }.items():
        assert lab.price(WAYS[name], DATA, 2, **SMALL) == want, name


def test_all_ways_are_held_at_one_price():
    budgets = (8000, 20_000)
    found = lab.compare(LAW, WAYS, DATA, budgets, 2, 0, **SMALL)
    assert found.keys() == WAYS.keys()
    for name, curve in found.items():
        whole = lab.price(WAYS[name], DATA, 2, **SMALL)
        assert [0 <= b - s < whole for b, s in zip(budgets, curve.spent, strict=True)] == [True] * 2
        assert torch.equal(curve.spent, curve.n_steps * whole)
        assert curve.kl.shape == (2, 2, 2) and curve.masses.shape == (2, 2, 2, 8)
        assert curve.kl.isfinite().all() and curve.alive.all()
        assert torch.allclose(curve.masses.sum(-1), torch.ones(()).double(), atol=1e-6)
        assert (curve.constant is not None) == name.startswith("NCE")
        # Plain weights and averaged ones, and the two models, differ.
        assert (curve.kl[-1, 0] != curve.kl[-1, 1]).all() and curve.kl[0, 0, 0] != curve.kl[0, 0, 1]
    again = lab.compare(LAW, {"PCD": WAYS["PCD"]}, DATA, budgets, 2, 0, **SMALL)["PCD"]
    assert torch.equal(again.kl, found["PCD"].kl)
    with pytest.raises(ValueError, match="budgets: expected to increase by a step of CD-10"):
        lab.compare(LAW, {"CD-10": WAYS["CD-10"]}, DATA, (8000, 8001), 2, 0, **SMALL)


def test_what_is_exact_learns_the_masses_and_noise_contrast_the_constant():
    ways = {name: WAYS[name] for name in ("exact", "NCE")}
    found = lab.compare(LAW, ways, DATA, (20_000, 300_000), 2, 0, hidden=(32, 32), batch=64)
    for curve in found.values():
        assert (curve.kl[1] < 0.6 * curve.kl[0]).all()
        assert (curve.masses[1, 1] - LAW.masses).abs().max() < 0.03
    assert found["NCE"].constant[1].max() < 0.25


def test_the_density_that_is_shown_is_the_first_models():
    """Normalised on the grid, and as far from the law as its KL says."""
    curve = lab.compare(LAW, {"NCE": WAYS["NCE"]}, DATA, (20_000,), 2, 0, **SMALL)["NCE"]
    assert float((curve.log_q.double().exp() * LAW.cell).sum()) == pytest.approx(1, abs=1e-4)
    found = plane.scores_of(LAW, curve.log_q[None]).kl[0]
    assert float(found) == pytest.approx(float(curve.kl[-1, 1, 0]), abs=1e-5)


def test_a_sweep_changes_step_or_rate_and_leaves_the_rest():
    """The first variant is the comparison's own; a way without a step has no other step."""
    names = ("CD-10", "NCE")
    found = lab.sweep(LAW, names, DATA, 20_000, 2, 0, **SMALL)
    own = lab.compare(LAW, {name: WAYS[name] for name in names}, DATA, (20_000,), 2, 0, **SMALL)
    for name, kl in found.items():
        assert kl.shape == (len(lab.VARIANTS), 2)
        assert torch.equal(kl[0], own[name].kl[-1, 1].to(kl))
        assert kl[:3].isfinite().all() and (kl[1:3] != kl[0]).all()
    assert found["CD-10"][3:].isfinite().all() and (found["CD-10"][3:] != found["CD-10"][0]).all()
    assert found["NCE"][3:].isnan().all()
    assert set(lab.STEPLESS) == {
        name for name, entry in lab.entries(LAW, DATA, step=2.0).items()
        if _told(entry, WAYS[name])
    }  # fmt: skip
    slower = lab.entries(LAW, DATA, rate=0.5)
    for name, entry in slower.items():
        assert entry.learning_rate == 0.5 * WAYS[name].learning_rate
        if WAYS[name].constant_rate:
            assert entry.constant_rate == 0.5 * WAYS[name].constant_rate


def _told(one, other) -> bool:
    """Whether two entries are of the same method with the same settings."""
    net = lab.network(2, 0, hidden=(8,))
    return one.method.identity(net) == other.method.identity(net)


def test_opponents_that_learn_no_energy():
    """The Gaussian of the moments by hand; a kernel density is better, and better with more data.

    KL of the ring from its Gaussian is nearly the latter's entropy less the law's: that the moments
    are those of 2,000 draws is a hundredth.
    """
    law = plane.law("ring", reach=8.0, n_side=160)  # all of the Gaussian's mass
    few, many = (lab.opponents(law, DATA[:n]) for n in (200, 2000))
    p = law.log_p.exp() * law.cell
    entropy = -float(torch.where(p > 0, p * law.log_p, 0.0).sum())
    cross = 0.5 * math.log((2 * math.pi * math.e) ** 2 * float(torch.det(DATA.T.cov())))
    assert float(many["gaussian"]) == pytest.approx(cross - entropy, abs=0.03)
    assert many["kernels"] < 0.5 * few["kernels"] < 0.25 * many["gaussian"]
    assert 0.02 < many["kernel-width"] < few["kernel-width"] < 0.3


def test_the_middle_of_models_counts_those_that_diverged():
    values = torch.tensor([3.0, 1.0, math.nan, 2.0])
    assert float(lab.middle(values).value) == 3  # the upper one of 2 and 3
    assert float(lab.middle(torch.tensor([3.0, 1.0, 2.0])).value) == 2
    assert float(lab.middle(torch.tensor([math.nan, 1.0])).value) == math.inf
    many = torch.randn(400, generator=torch.Generator().manual_seed(3))
    found = lab.middle(many)
    # The median of n normal draws varies by 1.2533 / sqrt(n).
    assert float(found.se) == pytest.approx(1.2533 / 20, rel=0.3)
    assert abs(float(found.value)) < 4 * float(found.se)


def test_the_unit_of_length_is_of_the_networks_alone():
    """Twice the unit and points twice as far: the same networks; the bowl is not of the unit."""
    x = DATA[:50]
    one, two = (lab.network(2, 0, hidden=(8,), unit=unit) for unit in (0.5, 1.0))
    bowl = x.square().sum(1) / 8
    assert torch.allclose(one(x) - bowl, two(2 * x) - 4 * bowl, atol=1e-5)
    budget = (20_000,)
    fine, coarse = (
        lab.compare(LAW, {"NCE": WAYS["NCE"]}, DATA, budget, 2, 0, unit=unit, **SMALL)["NCE"]
        for unit in (1 / 3, 1.0)
    )
    assert (fine.kl != coarse.kl).all()


def test_short_runs_are_held_beside_long_chains_and_the_density():
    """Chains that jump have the masses of the density; short ones those of where they began."""
    law = plane.law("ring", reach=8.0, n_side=160)
    found = lab.short_run_law(
        law, DATA, 2, 30, 0, n_steps=5, ratios=(1, 4), n_long=60, n_draws=1500, **SMALL
    )
    assert found.lengths == (5, 20) and found.draws.shape == (3, 2, 1500, 2)
    error = (found.masses[-1].double() - found.density.masses).abs()
    assert (error < 5 * (found.density.masses / 1500).sqrt()).all()
    assert torch.allclose(found.masses.sum(-1), torch.ones(()))
    assert found.inside.shape == found.distance.value.shape == (3, 2)
    assert (found.distance.value > 4 * found.distance.se).all()
    # Draws of the law itself: no distance, and nearly all inside.
    own = law.draws.sample(3000, torch.Generator().manual_seed(1)).view(1, 2, 1500, 2)
    near = lab.distances(own, DATA[:1500])
    assert (near.value.abs() < 4.5 * near.se).all()
