"""Laws of the plane: draws and densities are of one law; scores are what a hand computes."""

import math

import pytest
import torch

from ebmbook.lab import plane
from ebmref import data
from ebmref.energies import GaussianMixture

WEIGHTS = torch.arange(1.0, 9.0).double() / 36


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", plane.LAWS)
def test_draws_and_density_are_of_one_law(name):
    law = plane.law(name)
    p = law.log_p.exp() * law.cell
    assert float(p.sum()) == pytest.approx(1, abs=1e-4)
    x = law.draws.sample(20_000, generator())
    assert x.dtype == torch.float32 and x.shape == (20_000, 2)
    # The mean of log p is minus the entropy, and parts have their masses.
    log_p = law.draws.log_prob(x).double()
    entropy = -torch.where(p > 0, p * law.log_p, 0.0).sum()
    assert abs(float(log_p.mean() + entropy)) < 4.5 * float(log_p.std()) / 20_000**0.5
    counts = torch.bincount(plane.owner(x, law.centres), minlength=8)
    chi = ((counts - 20_000 * law.masses).square() / (20_000 * law.masses)).sum()
    assert float(chi) < 26  # one in two thousand by chance
    other = law._replace(masses=law.masses.roll(1))
    wrong = ((counts - 20_000 * other.masses).square() / (20_000 * other.masses)).sum()
    assert name != "ring" or float(wrong) > 100
    above = law.draws.log_prob(x) > plane.level(law)
    assert float(above.float().mean()) == pytest.approx(0.99, abs=0.004)


@pytest.mark.parametrize("name", plane.LAWS)
def test_a_blurred_law_is_that_of_draws_with_noise(name):
    law, sharp = plane.law(name, blur=0.2), plane.law(name)
    noise = 0.2 * torch.randn(20_000, 2, generator=generator(1))
    given = law.draws.log_prob(sharp.draws.sample(20_000, generator(2)) + noise)
    own = law.draws.log_prob(law.draws.sample(20_000, generator(3)))
    se = float((given.var() + own.var()).sqrt()) / 20_000**0.5
    assert abs(float(given.mean() - own.mean())) < 4.5 * se
    without = law.draws.log_prob(sharp.draws.sample(20_000, generator(2)))
    assert abs(float(without.mean() - own.mean())) > 10 * se
    assert float(law.log_p.exp().sum() * law.cell) == pytest.approx(1, abs=1e-3)


def test_masses_and_densities_by_hand():
    assert torch.allclose(plane.law("ring").masses, WEIGHTS, atol=2e-4)
    board = plane.law("board")
    # Points half way between two centres go to either.
    assert torch.allclose(board.masses, torch.full((8,), 0.125).double(), atol=2e-3)
    middle = board.draws.log_prob(torch.tensor([[-1.5, -1.5], [-1.5, -0.5], [-1.5, -1.0]]))
    # A filled square, an empty one, and the edge between.
    assert middle.exp().tolist() == pytest.approx([1 / 8, 0, 1 / 16], abs=1e-5)
    assert torch.allclose(plane.law("roll").masses, torch.full((8,), 0.125).double(), atol=0.03)
    with pytest.raises(ValueError, match="law: expected one of ring, board, roll; got 'moons'"):
        plane.law("moons")


def test_the_roll_is_that_of_scikit_learn():
    """With its noise of 0.75, which is 0.1 in our unit."""
    law = plane.law("roll")
    own = law.draws.log_prob(law.draws.sample(5000, generator()))
    theirs = law.draws.log_prob(data.swiss_roll(5000, generator(1), noise=0.75))
    assert abs(float(own.mean() - theirs.mean())) < 4.5 * float(own.std()) * (2 / 5000) ** 0.5
    wider = law.draws.log_prob(data.swiss_roll(5000, generator(1), noise=1.0))
    assert float(own.mean() - wider.mean()) > 0.1


def test_scores_by_hand():
    """The law itself up to a constant, and the ring of equal weights, side by side."""
    law = plane.law("ring")
    even = GaussianMixture(law.centres, torch.full((8,), 0.2))

    def energy(x):
        return torch.stack([-law.draws.log_prob(x) + 3, even(x)])

    found = plane.scores(law, energy)
    assert found.kl[0].item() == pytest.approx(0, abs=1e-4)
    assert found.kl[1].item() == pytest.approx(float((WEIGHTS * (8 * WEIGHTS).log()).sum()), 1e-3)
    assert found.log_z.tolist() == pytest.approx([-3, 0], abs=1e-4)
    assert torch.allclose(found.masses[0], WEIGHTS, atol=1e-3)
    assert torch.allclose(found.masses[1], torch.full((8,), 1 / 8).double(), atol=1e-3)
    assert found.kl.dtype == torch.float64 and math.isfinite(plane.level(law))
