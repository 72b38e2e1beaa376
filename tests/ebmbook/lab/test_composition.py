"""Energies put together, against exact laws by quadrature and by hand."""

import math

import pytest
import torch

from ebmbook.lab import composition as lab

GIVEN = lab.pair(n_side=50)
SMALL = {"n_data": 2000, "n_models": 2, "n_steps": 300, "seed": 0, "hidden": (32, 32), "batch": 128}


@pytest.fixture(scope="module")
def learned():
    return lab.learn(GIVEN, **SMALL)


def perfect(shift=(3.0, -2.0)):
    """What exact energies would be, each with a constant of its own, and a second model that is
    half as steep."""
    level = torch.tensor(shift).double()
    values = torch.stack([-GIVEN.log_p + level[:, None], -0.5 * GIVEN.log_p], 1)
    log_z = (-values).logsumexp(-1) + math.log(GIVEN.cell)
    models = tuple(
        lambda x, law=law, c=c: torch.stack([c - law.log_prob(x[0]), -0.5 * law.log_prob(x[1])])
        for law, c in zip(GIVEN.laws, shift, strict=True)
    )
    return lab.Learned(models, values, -log_z, log_z, torch.zeros(2, 2))


def test_the_pair_is_two_laws():
    assert (GIVEN.log_p.exp().sum(1) * GIVEN.cell).tolist() == pytest.approx([1, 1], abs=3e-3)
    for law, log_p in zip(GIVEN.laws, GIVEN.log_p, strict=True):
        x = law.sample(20_000, torch.Generator().manual_seed(0))
        up = (log_p.exp()[GIVEN.region].sum() * GIVEN.cell).item()
        assert (x[:, 1] > 0).float().mean().item() == pytest.approx(up, abs=0.016)


def test_perfect_energies_have_exact_compositions():
    """Whatever their constants: "or" alone needs them."""
    found = lab.compose(GIVEN, perfect(), gamma=0.3, weight=0.25)
    for name in ("and", "not", "or", "or, log Z"):
        assert found[name].kl[0].item() == pytest.approx(0, abs=1e-6), name
        assert found[name].share[0].item() == pytest.approx(found[name].exact, rel=1e-5), name
        assert found[name].kl[1] > 0.02, name
    # By hand: the ring's mass, over that of both, each times its Z = e^-shift.
    wrong = found["or, no constants"]
    want = 0.25 * math.exp(-3) / (0.25 * math.exp(-3) + 0.75 * math.exp(2))
    assert wrong.first[0].item() == pytest.approx(want, rel=0.01)
    assert found["or"].first[0].item() == pytest.approx(0.25)
    assert wrong.kl[0] > 0.3 and found["and"].first is None


def test_compositions_by_points():
    """Two Gaussians of variance 1 about +-1/2: their product is one of variance 1/2 about 0."""
    points = GIVEN.points.double()
    x = points[:, 0]
    log_p = torch.stack([-0.5 * (points - torch.tensor([c, 0.0])).square().sum(1)
                         for c in (0.5, -0.5)]) - math.log(2 * math.pi)  # fmt: skip
    given = GIVEN._replace(log_p=log_p, region=x > 0.25)
    values = -log_p[:, None]
    zero = torch.zeros(2, 1).double()
    found = lab.compose(given, lab.Learned((None, None), values, zero, zero, zero), gamma=0.5)

    def above(mean, variance):
        return 0.5 * math.erfc((0.25 - mean) / math.sqrt(2 * variance))

    # A cell's border is at a quarter, where the region begins; off by 0.02 without a cut cell.
    near = {"abs": 0.03}
    assert found["and"].exact == pytest.approx(above(0, 0.5), **near)
    # (x - .5)^2 - (x + .5)^2 / 2 = (x - 1.5)^2 / 2 + ...
    assert found["not"].exact == pytest.approx(above(1.5, 2), **near)
    assert found["or"].exact == pytest.approx((above(0.5, 1) + above(-0.5, 1)) / 2, **near)
    for bad in ({"gamma": 1.0}, {"weight": 0.0}):
        with pytest.raises(ValueError, match=r"(gamma|weight): expected in \(0, 1\)"):
            lab.compose(given, perfect(), **bad)


def test_learned_energies_are_put_together(learned):
    assert learned.values.shape == (2, 2, 2500) and learned.kl.shape == (2, 2)
    assert (learned.kl < 1).all() and (learned.kl > 0).all()
    assert (learned.constant + learned.log_z).abs().max() < 0.5
    assert (learned.kl[0, 0] != learned.kl[0, 1]) and learned.models[0] is not learned.models[1]
    found = lab.compose(GIVEN, learned)
    assert (found["or"].kl < 0.6).all() and (found["or"].first - 0.5).abs().max() < 0.15
    assert found["and"].kl.max() < 2
    own = lab.learn(GIVEN, **SMALL, noise="own")
    assert not torch.equal(own.values[0], learned.values[0])
    # Of the other law, what is learned by its own noise knows nothing.
    other = lab.learn(lab.pair(n_side=50, centre=2.0), **SMALL, noise="own")
    assert torch.equal(own.values[0], other.values[0])
    assert not torch.equal(own.values[1], other.values[1])
    for bad in ("noise", "way"):
        with pytest.raises(ValueError, match=f"{bad}: expected one of .*; got 'none'"):
            lab.learn(GIVEN, **SMALL, **{bad: "none"})


def test_likelihood_leaves_the_constant_open():
    """So that "or" has other weights without it, and nothing else is learned in its place."""
    found = lab.learn(GIVEN, **SMALL | {"n_steps": 60}, way="exact")
    assert found.constant is None
    made = lab.compose(GIVEN, found)
    assert "or" not in made
    assert made["or, log Z"].first.tolist() == pytest.approx([0.5, 0.5])
    want = (found.log_z[0] - found.log_z[1]).sigmoid()
    assert torch.allclose(made["or, no constants"].first, want)
    assert (want - 0.5).abs().max() > 0.08


def test_the_overlap_is_less_as_the_bar_is_moved_away():
    overlaps = [lab.pair(centre=c, n_side=50).overlap for c in (1.0, 2.5, 4.0)]
    assert 0.1 < overlaps[0] < 0.3 and overlaps[0] > 1.5 * overlaps[1] > 3 * overlaps[2] > 0
    same = GIVEN._replace(log_p=GIVEN.log_p[:1].repeat(2, 1))
    assert same.overlap == pytest.approx(1, abs=1e-3)


def test_a_sum_of_blurred_energies_is_not_that_of_the_blurred_product():
    summed, right = lab.blurred_precisions(1.0, 1.0, (0.0, 1.0, 10.0))
    assert summed.tolist() == pytest.approx([2, 1, 2 / 101])
    assert right.tolist() == pytest.approx([2, 1 / 1.5, 1 / 100.5])
    with pytest.raises(ValueError, match="s, t: expected variances > 0"):
        lab.blurred_precisions(0.0, 1.0, (1.0,))
    # On the grid: round Gaussians about the middle, of variances 1/4 and 1.
    square = GIVEN.points.double().square().sum(1)
    log_p = torch.stack([-0.5 * square / s - math.log(2 * math.pi * s) for s in (0.25, 1.0)])
    found = lab.diffused(GIVEN._replace(log_p=log_p), (1e-3, 0.5, 0.8))
    summed, right = lab.blurred_precisions(0.25, 1.0, (0.5, 0.8))
    ratio = summed / right
    # KL of round Gaussians in the plane: ratio of precisions less one, less its logarithm.
    want = ratio - 1 - ratio.log()
    assert found.kl[0].item() == pytest.approx(0, abs=1e-3)
    assert found.kl[1:].tolist() == pytest.approx(want.tolist(), rel=0.03)
    assert found.share.tolist() == pytest.approx([0.5] * 3, abs=1e-6)
    ring = lab.diffused(GIVEN, (0.2, 0.4, 0.8))
    assert (ring.kl.diff() > 0).all() and ring.kl[0] > 0.01


def test_chains_under_the_sum():
    """MALA keeps the mean energy, ULA does not, and the more so the longer its steps."""
    found = lab.sampled(GIVEN, perfect(), (0.005, 0.04), 2000, 60, 0)
    assert found.exact.shape == (2,) and found.ula.value.shape == (2, 2)
    assert (found.mala.value.abs() < 4.5 * found.mala.se + 0.01).all()
    assert (found.exact[0] - found.exact[1]).abs() > 0.5
    ula = found.ula.value[:, 0] / found.ula.se[:, 0]
    assert ula[1] > 6 and found.ula.value[1, 0] > 4 * found.ula.value[0, 0]
    assert found.acceptance_rate[0, 0] > 0.95 > found.acceptance_rate[1, 0]
