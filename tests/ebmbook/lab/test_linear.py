"""Linear decoders against integrals, scikit-learn and Gaussians."""

import math

import pytest
import torch
from sklearn.decomposition import sparse_encode

from ebmbook.lab import linear as lab
from ebmref.free_energy import free_energy


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_digits_are_split_and_shuffling_keeps_each_pixels_values():
    seen = lab.digits(0)
    assert seen.train.shape == (1200, 64) and seen.test.shape == seen.shuffled.shape == (597, 64)
    assert torch.allclose(seen.train.mean(0), torch.zeros(64).double(), atol=1e-9)
    assert torch.equal(seen.test.sort(0).values, seen.shuffled.sort(0).values)
    assert not torch.equal(seen.test, seen.shuffled)
    # Pixels no longer know one another: the covariance is gone off its diagonal.
    off = ~torch.eye(64).bool()
    before, after = (torch.cov(y.T)[off].abs().mean() for y in (seen.test, seen.shuffled))
    assert float(after) < 0.4 * float(before)
    assert not torch.equal(seen.train, lab.digits(1).train)


def test_settings_are_chosen_on_digits_that_nothing_learned_from():
    train = lab.digits(0).train
    split = lab.validation(train, 0)
    assert torch.equal(torch.cat([split.train, split.test]), train) and len(split.test) == 300
    assert torch.equal(split.test.sort(0).values, split.shuffled.sort(0).values)
    assert not torch.equal(split.shuffled, lab.validation(train, 1).shuffled)


def test_roughness_by_hand():
    picture = torch.zeros(3, 8, 8)
    picture[1, 3, 3] = 2.0  # four neighbours
    picture[2, :, 4:] = 1.0  # an edge of eight pixels
    assert lab.rough(picture.flatten(1)).tolist() == [0, 16, 8]


def test_the_plane_of_the_largest_variances_is_nearest():
    y = normal(200, 5) * torch.tensor([3.0, 0.1, 2.0, 0.2, 0.5]).double()
    ways = lab.axes(y)
    assert torch.allclose(ways.T @ ways, torch.eye(5).double(), atol=1e-9)
    means = [float(lab.plane(y, ways[:, :k]).mean()) for k in range(6)]
    assert means == sorted(means, reverse=True) and means[5] < 1e-20
    assert means[0] == pytest.approx(float(y.square().sum(1).mean()))
    others = lab.plane(y, torch.eye(5)[:, [0, 1]].double()).mean()
    assert means[2] < float(others)


@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_the_bowl_is_the_integral_over_a_normal_z(beta):
    w = torch.tensor([[1.2, 0.4], [-0.5, 0.9]]).double()
    line = torch.linspace(-8, 8, 401).double()
    z = torch.cartesian_prod(line, line)
    prior = -z.square().sum(1) / 2 - math.log(2 * math.pi)
    y = normal(20, 2)
    table = torch.cdist(y, z @ w.T).square() - prior / beta
    cell = float(line[1] - line[0]) ** 2
    want = free_energy(table, beta, "lebesgue", cell=cell)
    c = w @ w.T + torch.eye(2).double() / (2 * beta)
    assert torch.allclose(lab.bowl(y, c, beta), want, atol=1e-9)
    assert (lab.bowl(y, c, beta) >= lab.bowl(0 * y[:1], c, beta)).all()


def test_the_likeliest_covariance_has_the_floor():
    y = normal(4000, 3) * torch.tensor([2.0, 1.0, 0.1]).double()
    c = lab.spectrum_at_least(y, 0.25)
    assert torch.linalg.eigvalsh(c).tolist() == pytest.approx([0.25, 1, 4], rel=0.1)
    assert [lab.kept(y, floor) for floor in (0.001, 0.25, 2, 9)] == [3, 2, 1, 0]


def test_fista_finds_what_coordinate_descent_finds():
    y, atoms = normal(30, 8), normal(8, 20, seed=1)
    atoms = atoms / atoms.norm(dim=0)
    z, energy = lab.sparse_code(y, atoms, 0.5, 400)
    peer = sparse_encode(
        y.numpy(), atoms.T.numpy(), algorithm="lasso_cd", alpha=0.25, max_iter=20000
    )
    peer = torch.tensor(peer)
    theirs = (y - peer @ atoms.T).square().sum(1) + 0.5 * peer.abs().sum(1)
    assert torch.allclose(energy, theirs, atol=1e-4)
    assert (z == 0).any(1).all()
    assert lab.sparse_code(0 * y, atoms, 0.5, 5)[1].abs().max() == 0


def test_atoms_are_learned_and_of_unit_length():
    """Data on three rays: their directions are the atoms."""
    rays = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-0.6, 0.8]]).double()
    y = rays.repeat(50, 1) * (1 + normal(150, 1).abs())
    draws = torch.Generator().manual_seed(0)
    atoms = lab.learn_atoms(y, 12, 0.1, 20, draws)
    assert atoms.shape == (2, 12)
    assert torch.allclose(atoms.norm(dim=0), torch.ones(12).double())
    before = atoms.new_tensor([[1.0, 0.0], [0.0, 1.0]])
    learned, plain = (lab.sparse_code(y, a, 0.1, 200)[1].mean() for a in (atoms, before))
    assert float(learned) < float(plain)


def test_prototypes_are_the_means():
    places = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]).double()
    y = (places[:, None] + 0.1 * normal(3, 50, 2)).flatten(0, 1)
    found = lab.prototypes(y, 3, 0)
    assert found.dtype == y.dtype and torch.cdist(places, found).amin(1).max() < 0.1
    far = lab.nearest(places + 1, places)
    assert torch.allclose(far, torch.full((3,), 2.0).double())
