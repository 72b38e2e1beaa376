"""Energies of pictures: held against laws whose density, log Z and clean pictures are known."""

import dataclasses
import math

import pytest
import torch

from ebmbook.lab import divergence_pictures, likelihood_bits, pictures
from ebmbook.lab import likelihood_pictures as lab
from ebmbook.lab.folk import Setting
from ebmbook.lab.likelihood_exact import Estimate
from ebmref import likelihood as L
from ebmref import rbm

NOUGHT = Estimate(torch.zeros(()), torch.zeros(()))
# Two pictures of 2 x 2 and nothing else: with noise, a mixture of two Gaussians.
TWO = torch.tensor([[1.0, 0.2, 0.2, 0.0], [0.0, 0.2, 0.2, 1.0]]).view(2, 1, 2, 2)
TOY = lab.Plan(
    sigma=0.3, rank=4, hidden=(32, 32), unit=0.5, step_size=0.1, n_steps=5, size=500,
    n_train=400, learning_rate=5e-3, n_particles=300, n_betas=300, components=(1, 2),
)  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(n=600, share=0.75):
    """The first picture in three of four places."""
    which = (torch.arange(n) % 4 >= 4 * share).long()
    return pictures.Sets(TWO[which], TWO[which[:400]], which, which[:400], ["one", "two"])


@pytest.fixture(scope="module")
def digits():
    known = pictures.sets("digits", 360, 0)
    return known, pictures.Axes(known.train, 0.15), pictures.ruler(known, 0.15, 6, 0)


def test_pictures_are_held_out_by_chance(digits):
    known, _, _ = digits
    assert known.train.shape == (1437, 1, 8, 8) and known.held.shape == (360, 1, 8, 8)
    both = torch.cat([known.train, known.held]).flatten(1)
    assert len(both.unique(dim=0)) > 1780  # no picture is on both sides
    assert torch.equal(pictures.sets("digits", 360, 0).held, known.held)
    assert not torch.equal(pictures.sets("digits", 360, 1).held, known.held)
    shares = torch.bincount(known.held_labels) / 360
    assert (shares - 0.1).abs().max() < 0.05
    for bad in (3, 2, 5, 1797):
        with pytest.raises(ValueError, match=r"n_held: expected even, 4 \.\. 1796; got"):
            pictures.sets("digits", bad, 0)


def test_coordinates_are_a_rotation_and_the_gaussian_is_that_of_the_pictures(digits):
    known, axes, _ = digits
    x = pictures.noised(known.held[:50], 0.15, generator())
    u = axes.into(x)
    assert torch.allclose(axes.back(u), x, atol=1e-5)
    assert torch.allclose((u[1:] - u[:-1]).norm(dim=1), (x[1:] - x[:-1]).flatten(1).norm(dim=1))
    flat = known.train.flatten(1).double()
    law = torch.distributions.MultivariateNormal(
        flat.mean(0), flat.T.cov() + 0.15**2 * torch.eye(64)
    )
    want = law.log_prob(x.flatten(1).double())
    for rank in (10, 64):
        found = axes.base(rank).log_prob(u[:, :rank]) + axes.log_rest(u, rank)
        assert torch.allclose(found.double(), want, atol=2e-3)
    whole = axes.whole(axes.base(10).sample(20_000, generator(1)), generator(2)).flatten(1)
    gap = (whole.T.cov() - law.covariance_matrix).abs().max()
    assert gap < 0.02 and whole.mean(0).double().sub(law.mean).abs().max() < 0.02


def test_log_z_is_bracketed_whatever_the_scales():
    """Of a Gaussian off the base's place, times a constant; coordinates are scaled on the way."""
    known = toy()
    axes = pictures.Axes(known.train, 0.3)
    mean, spread = torch.tensor([0.5, 0.1, -0.2, 0.0]), torch.tensor([0.4, 0.3, 0.2, 0.3])

    def energy(u):
        return 0.5 * ((u - mean) / spread).square().sum(1)

    base, scale = axes.base(4), torch.tensor([1.0, 2.0, 3.0, 4.0])
    scaled = lab.Scaled(base.sample, base.log_prob, scale)
    v = scaled.sample(9, generator(1))
    assert torch.allclose(v * scale, base.sample(9, generator(1)))
    assert torch.allclose(scaled.log_prob(v), base.log_prob(v * scale))
    log_z = float((spread * math.sqrt(2 * math.pi)).log().sum())
    own = mean + spread * torch.randn(300, 4, generator=generator())
    found = lab.bracket(energy, axes, own, own, TOY, 0)
    for one in (found.forward, found.reverse, found.log_z):
        assert abs(float(one.value) - log_z) < 4.5 * float(one.se) + 1e-3 and one.se < 0.1
    # Points that are none of the law's prove nothing where there are few steps to forget them.
    short = dataclasses.replace(TOY, n_betas=4)
    far = lab.bracket(energy, axes, own, own + 1, short, 0)
    assert float(far.forward.value) < log_z + 0.2 and float(far.reverse.value) > log_z - 0.2
    assert float(far.data.value) < log_z - 1
    assert found.samples.shape == (300, 4) and found.ess.shape == (3,) and found.ess[0] > 100
    share = found.log_weights.softmax(0)
    assert torch.allclose(share @ found.samples, mean, atol=0.15)
    half = float(found.reverse.value - found.forward.value) / 2
    assert float(found.log_z.se) >= abs(half)
    with pytest.raises(ValueError, match="draws: expected 300 or more, as particles; got 299"):
        lab.bracket(energy, axes, own[:299], own, TOY, 0)
    with pytest.raises(ValueError, match="held: expected 300 or more"):
        lab.bracket(energy, axes, own, own[:299], TOY, 0)


def test_the_law_with_noise_is_learned():
    """Two pictures with noise: a memory of them is the law itself, and the energy comes near it."""
    known = toy()
    axes = pictures.Axes(known.train, 0.3)
    learner = lab.learn(known, axes, TOY, 0)
    energy = learner.model(averaged=True)
    x = pictures.noised(known.held, 0.3, generator(1))
    u = axes.into(x)
    bounds = lab.bracket(energy, axes, learner.memory.x[:300], u, TOY, 0)
    tried = lab.mixtures(known, axes, TOY, 0)
    found = lab.likelihoods(energy, bounds.log_z, known, axes, tried, TOY, 0)
    far = found.memory.value - found.model.value
    assert (far.abs() < 0.06).all()
    assert (found.memory.value - found.gaussian.value > 0.2).all()
    assert torch.allclose(found.gain.value, found.model.value - found.gaussian.value, atol=1e-4)
    assert found.n_components == 2 and (found.memory.value - found.mixture.value).abs().max() < 0.05
    # By hand, the density of the two with noise.
    squared = torch.cdist(x.flatten(1), TWO.flatten(1)).square()
    own = (-squared / 0.18 + torch.tensor([0.75, 0.25]).log()).logsumexp(1)
    own = own - 2 * math.log(2 * math.pi * 0.09)
    assert abs(float(own.mean() - found.memory.value[0])) < 5 * float(found.memory.se[0])
    # The model's mean of the clean picture: near the one or the other, by the odds.
    odds = (-squared / 0.18 + torch.tensor([0.75, 0.25]).log()).softmax(1)
    clean = lab.denoised(energy, axes, u)
    error = (clean - (odds @ TWO.flatten(1)).view_as(clean)).square().mean().sqrt()
    assert clean.shape == x.shape and error < 0.06
    # And its chains have the masses.
    ends = lab.sample(
        lab.chains(energy, axes, TOY), axes.base(4).sample(2000, generator(2)), 200, thin=200,
        generator=generator(3),
    )  # fmt: skip
    first = torch.cdist(axes.back(ends.samples[0]).flatten(1), TWO.flatten(1)).argmin(1) == 0
    assert abs(float(first.float().mean()) - 0.75) < 0.06
    with pytest.raises(ValueError, match="rank: expected at most 4 coordinates; got 5"):
        lab.learn(known, axes, dataclasses.replace(TOY, rank=5), 0)


def test_an_energy_without_a_tilt_is_the_gaussian(digits):
    known, axes, _ = digits
    plan = dataclasses.replace(lab.DIGITS, rank=20, n_memory=200, components=(1,))
    energy = lab.Tilted(axes.variances[:20], (8,), 0.5, generator()).requires_grad_(False)
    tried = lab.mixtures(known, axes, plan, 0)
    found = lab.likelihoods(energy, NOUGHT, known, axes, tried, plan, 0)
    assert torch.allclose(found.model.value, found.gaussian.value, atol=1e-3)
    assert torch.allclose(found.gain.value, torch.zeros(2).double(), atol=1e-3)
    assert torch.allclose(found.mixture.value, found.gaussian.value, atol=0.05)
    assert torch.allclose(found.mixture.se, found.gaussian.se, rtol=0.05)
    # What log Z does not know is no knowledge of the likelihood either.
    blurred = Estimate(torch.tensor(1.5), torch.tensor(2.0))
    other = lab.likelihoods(energy, blurred, known, axes, tried, plan, 0)
    assert torch.allclose(other.model.value, found.model.value - 1.5, atol=1e-3)
    assert torch.allclose(other.model.se.square(), found.model.se.square() + 4)
    # Who knows the training pictures by heart is not surprised by them.
    assert found.memory.value[1] > found.memory.value[0] + 10
    # Its clean pictures are those of a Gaussian.
    x = pictures.noised(known.held[:20], 0.15, generator(1))
    share = (axes.variances - 0.15**2) / axes.variances
    share[20:] = 0
    want = axes.back(axes.into(x) * share)
    clean = lab.denoised(energy, axes, axes.into(x)[:, :20])
    assert torch.allclose(clean, want, atol=1e-4)


def test_the_ruler_tells_pictures_from_others(digits):
    known, axes, by = digits
    assert by.accuracy > 0.85
    held = pictures.grade(by, pictures.noised(known.held, 0.15, generator()), generator(4))
    drawn = axes.whole(axes.base(64).sample(360, generator()), generator())
    other = pictures.grade(by, drawn, generator())
    assert held.frechet < 0.5 * other.frechet and held.confidence > other.confidence + 0.1
    assert float(held.shares.sum()) == pytest.approx(1)
    assert torch.equal(held.shares, torch.bincount(held.read, minlength=10).double() / 360)
    ones = known.train[known.labels == 1][:100]
    few = pictures.grade(by, pictures.noised(ones, 0.15, generator()), generator())
    assert few.shares[1] > 0.7
    # The bootstrap knows how much sets of one size differ.
    x = pictures.noised(known.train, 0.15, generator(5)).split(120)
    apart = torch.tensor([pictures.grade(by, part, generator()).frechet for part in x[:11]]).std()
    told = pictures.grade(by, x[0], generator(), n_bootstraps=200).frechet_se
    assert 0.4 < told / float(apart) < 2.5


def test_copies_are_found_and_fresh_pictures_are_not_accused(digits):
    known, axes, _ = digits
    u = axes.into(pictures.noised(known.train[500:860], 0.15, generator()))
    copied = pictures.memory(u, known, axes, 0)
    assert copied.null == pytest.approx(1437 / (1437 + 180))
    assert copied.samples > 0.99 and copied.copies > 0.99 and copied.z > 3
    honest = axes.base(64).sample(360, generator())
    assert abs(pictures.memory(honest, known, axes, 0).z) < 3
    error = math.sqrt(copied.null * (1 - copied.null) / 180)
    assert abs(copied.fresh - copied.null) < 4 * error


def test_an_experiment_is_one_of_its_seed_and_can_be_resumed(tmp_path):
    plan = lab.Plan(
        hidden=(16,), n_train=20, n_steps=2, size=200, batch=64, n_chains=60, n_long=10,
        n_particles=50, n_betas=20, n_epochs=5, n_memory=50, components=(2,), rank=30,
    )  # fmt: skip
    one = lab.experiment("digits", plan, 0, n_held=100, checkpoint=tmp_path / "digits.pt")
    two = lab.experiment("digits", plan, 0, n_held=100, checkpoint=tmp_path / "digits.pt")
    assert torch.equal(one.draws, two.draws) and one.grades.keys() == two.grades.keys()
    assert all(one.grades[key].frechet == two.grades[key].frechet for key in one.grades)
    assert torch.equal(one.bracket.reverse.value, two.bracket.reverse.value)
    assert torch.equal(one.likelihoods.model.value, two.likelihoods.model.value)
    assert one.draws.shape == (2, 60, 30) and one.clean.shape == (2, 60, 1, 8, 8)
    assert one.grades.keys() == {
        "held", "gaussian", "mixture", "training", "from gaussian", "from data"
    }  # fmt: skip
    assert all(len(g.read) == 60 for g in one.grades.values())
    assert one.training_steps == 20 * 2 * 64 / 200
    # So short a chain forgets little: ends are near where they began.
    assert one.kept[0] > one.kept[1] + 0.2 and one.kept[1] < 0.2
    assert one.energies.value[0] != one.energies.value[1] and (one.energies.se > 0).all()
    assert 0.3 < one.acceptance_rate < 1
    other = lab.experiment("digits", plan, 1, n_held=100)
    assert not torch.equal(one.draws, other.draws)
    for bad in ({"sigma": 0.0}, {"n_long": 0}, {"n_chains": 1}, {"step_size": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            dataclasses.replace(plan, **bad)


def test_recipes_for_pictures_run_away_or_not(digits):
    known, axes, by = digits
    more = {"n_judged": 100, "hidden": (16, 16), "batch": 32}
    wild = Setting(rate=1e5, size=100)
    found = divergence_pictures.divergence(wild, known, axes, by, 3, 40, 0, **more)
    assert found.share == 1 and (found.died > 0).all() and found.frechet.isnan().all()
    assert found.interval[1] == 1 and found.interval[0] == pytest.approx(0.025 ** (1 / 3))
    assert {L.CAUSES[i] for i in found.causes.tolist()} <= {"chains", "loss", "not finite"}
    calm = Setting(rate=0.005, noise=0.1, data_noise=0.15, smooth=True, confine=1.0, size=100)
    found = divergence_pictures.divergence(calm, known, axes, by, 3, 40, 0, **more)
    assert found.share == 0 and found.frechet.isfinite().all() and found.beta == pytest.approx(1)
    assert found.died.shape == found.frechet.shape == (3,) and len(found.frechet.unique()) == 3
    # By name: the rate is that of pictures, but for a remedy that has its own.
    named = [
        divergence_pictures.divergence(name, known, axes, by, 2, 1, 0, rate=20.0, **more).beta
        for name in ("none", "true temperature")
    ]
    assert named == pytest.approx([2 * 20 / 0.005**2, 1])
    with pytest.raises(ValueError, match="remedy: expected one of none"):
        divergence_pictures.divergence("pills", known, axes, by, 3, 40, 0)


def test_a_machine_of_bits_is_held_against_its_exact_likelihood(tmp_path):
    """One of twelve hidden units, whose log Z is a sum."""
    plan = likelihood_bits.Plan(
        n_hidden=12, n_train=300, batch=100, size=200, n_chains=200, n_long=300, n_particles=200,
        n_betas=200, n_epochs=4, learning_rate=1e-2,
    )  # fmt: skip
    more = {"n_held": 360, "checkpoint": tmp_path / "bits.pt"}
    found = likelihood_bits.experiment("digits", plan, 0, **more)
    known = likelihood_bits.black_and_white(pictures.sets("digits", 360, 0))
    assert known.train.unique().tolist() == [0, 1]
    v = known.train.flatten(1)
    learner = likelihood_bits.learn(v, plan, 0, checkpoint=tmp_path / "bits.pt")
    machine = learner.model(averaged=True)
    exact = float(rbm.log_z(machine))
    for one in (found.forward, found.reverse):
        assert abs(float(one.value) - exact) < 4.5 * float(one.se) + 1e-3 and one.se < 0.1
    with torch.no_grad():
        want = (-machine(known.held.flatten(1))).mean() - exact
        train = (-machine(v[:360])).mean() - exact
    assert torch.allclose(found.model.value, torch.stack([want, train]).double(), atol=0.1)
    assert (found.model.value > found.independent.value + 1).all()
    p = (v.sum(0) + 1) / (len(v) + 2)
    bits = torch.distributions.Bernoulli(p).log_prob(known.held.flatten(1)).sum(1)
    assert float(found.independent.value[0]) == pytest.approx(float(bits.mean()), abs=1e-3)
    assert float(found.independent.se[0]) == pytest.approx(float(bits.std()) / 360**0.5, rel=1e-3)
    frechet = {key: grade.frechet for key, grade in found.grades.items()}
    assert frechet["held"] < frechet["from data"] < frechet["independent"]
    assert found.draws.shape == (2, 200, 1, 8, 8) and found.training_steps == 300 * 5 * 100 / 200
    again = likelihood_bits.experiment("digits", plan, 0, **more)
    assert torch.equal(again.draws, found.draws) and again.kept == found.kept
    # From either end, and so from either side where there are hardly any steps.
    short = likelihood_bits.experiment("digits", dataclasses.replace(plan, n_betas=1), 0, **more)
    assert short.forward.value < exact + 0.2 and short.reverse.value > exact - 0.2
    with pytest.raises(ValueError, match="n_chains: expected 200 or more; got 100"):
        likelihood_bits.experiment("digits", dataclasses.replace(plan, n_chains=100), 0, n_held=360)
    with pytest.raises(ValueError, match="n_hidden"):
        dataclasses.replace(plan, n_hidden=0)
