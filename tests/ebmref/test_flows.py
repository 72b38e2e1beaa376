"""Flows against their own Jacobians, against quadrature, and against what inverts them."""

import copy

import pytest
import torch
from laws import (
    FLOOR,
    generator,
    one_thread,  # noqa: F401
    smallest,
)

from ebmref.flows import FlowEnergy, RealNVP


def flow(d=3, k=2, seed=0, scale=0.3, n_couplings=3):
    """Away from the identity, in double precision."""
    made, g = RealNVP(d, (8,), n_couplings, k, generator(seed)), generator(seed + 100)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(scale * torch.randn(p.shape, generator=g))
    return made.double()


def plane(reach=12.0, n=241):
    """A grid `(n * n, 2)` and the area of its cells."""
    axis = torch.linspace(-reach, reach, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def normals(k, n, d, seed):
    return torch.randn(k, n, d, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("d", [2, 3, 5])
@pytest.mark.parametrize("n_couplings", [1, 2, 3])
def test_density_is_that_of_the_map(d, n_couplings):
    """log p(T(z)) = log N(z) - log |det dT/dz|, the determinant by autograd, and T^-1 T = 1."""
    one, z = flow(d, n_couplings=n_couplings), normals(2, 4, d, 1)
    x = one(z)
    back, log_det = one.inverse(x)
    assert torch.allclose(back, z, atol=1e-10)
    normal = torch.distributions.Normal(0.0, 1.0)
    for model in range(2):
        for i in range(4):

            def event(point, model=model):
                return one(point.expand(2, 1, d))[model, 0]

            exact = torch.linalg.slogdet(torch.func.jacrev(event)(z[model, i])).logabsdet
            assert torch.allclose(log_det[model, i], -exact, atol=1e-10)
            assert torch.allclose(
                one.log_prob(x)[model, i], normal.log_prob(z[model, i]).sum() - exact, atol=1e-10
            )


@torch.no_grad()
def test_density_integrates_to_one():
    points, area = plane()
    mass = flow(2).log_prob(points.expand(2, -1, -1)).exp().sum(1) * area
    assert torch.allclose(mass, torch.ones(2).double(), atol=1e-4)


def test_a_fresh_flow_is_the_identity_or_changes_the_halves_places():
    one, z = RealNVP(3, (8, 8), 4, 2, generator()), normals(2, 5, 3, 2).float()
    assert torch.equal(one(z), z)
    assert torch.allclose(one.log_prob(z), -0.5 * z.square().sum(-1) - 2.756816, atol=1e-5)
    assert torch.equal(RealNVP(3, (8, 8), 1, 2, generator())(z), z[..., [1, 2, 0]])


def test_every_coordinate_is_moved_by_every_other():
    """After three couplings; of one alone the kept half is only shifted and scaled."""
    one, z = flow(4, k=1), normals(1, 1, 4, 3)
    slopes = torch.func.jacrev(lambda v: one(v[None, None])[0, 0])(z[0, 0])
    assert (slopes.abs() > 1e-6).all()
    one = flow(4, k=1, n_couplings=1)
    slopes = torch.func.jacrev(lambda v: one(v[None, None])[0, 0])(z[0, 0])
    assert int((slopes.abs() > 1e-6).sum()) == 2 + 2 + 4


def test_samples_have_the_density():
    """Their mean of N(x) / p(x) is one, to five standard errors, where that ratio is bounded;
    and the same seed gives the same."""
    one = flow(2, scale=0.1)
    with torch.no_grad():
        one.log_scale.add_(0.4)
    x = one.sample(40_000, generator(4))
    assert torch.equal(x, one.sample(40_000, generator(4)))
    assert not x.requires_grad and x.dtype == torch.float64
    normal = -0.5 * x.square().sum(-1) - torch.log(torch.tensor(2 * torch.pi))
    ratio = (normal - one.log_prob(x)).exp().detach()
    error = (ratio.mean(1) - 1) / (ratio.std(1) / 200)
    assert ratio.max() < 50 and error.abs().max() < 5
    assert all(smallest(z) > FLOOR for z in one.inverse(x)[0].detach())


def test_flows_do_not_meet():
    one, other, x = flow(), flow(), normals(2, 6, 3, 5)
    with torch.no_grad():
        for p in other.parameters():
            p[1].add_(0.1)
    assert torch.equal(one.log_prob(x)[0], other.log_prob(x)[0])
    assert not torch.allclose(one.log_prob(x)[1], other.log_prob(x)[1])


@torch.no_grad()
def test_normaliser_of_a_flow_energy_is_known():
    """Z = E_g[e^{-E}], by quadrature, for other shifts and weights; g e^{-E} / Z is the flow."""
    base, points, area = flow(2, seed=5), *plane()
    x = points.expand(2, -1, -1)
    for shift in (0.0, 1.5, torch.tensor([-1.0, 2.0])):
        energy = FlowEnergy(flow(2, seed=7), base.log_prob, shift)
        log_g = base.log_prob(x)
        z = (log_g - energy(x)).exp().sum(1) * area
        assert torch.allclose(z.log(), energy.log_z, atol=1e-4)
        assert torch.allclose(
            log_g - energy(x) - energy.log_z[:, None], energy.flow.log_prob(x), atol=1e-9
        )


def test_a_flow_energy_learns_its_flow_and_its_shift_alone():
    base = flow(2, seed=5)
    energy = FlowEnergy(flow(2, seed=7), base.log_prob, 0.5)
    assert not {id(p) for p in base.parameters()} & {id(p) for p in energy.parameters()}
    assert len(list(energy.parameters())) == len(list(energy.flow.parameters())) + 1
    # A copy has a base of its own: what is done to the first is not done to it.
    x, twin = normals(2, 3, 2, 6), copy.deepcopy(energy)
    before = twin(x)
    with torch.no_grad():
        base.shift.add_(1.0)
    assert torch.equal(twin(x), before) and not torch.allclose(energy(x), before)


@pytest.mark.parametrize(
    ("d", "n_couplings", "words"), [(1, 2, "d: "), (2, 0, "n_couplings: "), (2.0, 1, "d: ")]
)
def test_bad_input_is_named(d, n_couplings, words):
    with pytest.raises(ValueError, match=words):
        RealNVP(d, (4,), n_couplings, 1, generator())
