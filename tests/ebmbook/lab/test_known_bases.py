"""Known generators: draws against their own density; the exact critic makes the law."""

import math

import pytest
import torch

from ebmbook.lab import grid_games as G
from ebmbook.lab import known_bases as K
from ebmref import data

LAW = data.gaussian_grid(torch.zeros(1))
CENTRES = torch.arange(-2.0, 3.0)


def source(seed=5):
    return torch.Generator().manual_seed(seed)


def base(k=2, spread=0.2, scale=0.05, bridge=0.2):
    return K.KnownBase(K.uneven(k, 5, spread, source()), CENTRES, scale, bridge)


def test_draws_have_the_masses_of_the_density():
    made = base(scale=0.06, bridge=0.01)
    found = G.law_of(K.model(made, LAW), LAW, 600)
    a, b = made.weights.unbind(1)
    frequencies = (a[:, :, None] * b[:, None]).flatten(1)
    share = found.mass / found.quality[:, None]
    assert (share - frequencies).abs().max() < 0.003
    # In a disc of 4 x 0.05: 0.99^2 of 1 - e^-5.56, and of the 0.02 with one place on a bridge
    # the share of it that a disc covers, 0.4.
    assert found.quality.tolist() == pytest.approx([0.984] * 2, abs=0.004)
    assert found.spread.tolist() == pytest.approx([1.19] * 2, abs=0.02)


def test_the_density_is_one_of_probability():
    x = torch.linspace(-2.5, 2.5, 1001)
    grid = torch.cartesian_prod(x, x).expand(2, -1, -1)
    for blur in (0.0, 0.05):
        mass = base().log_prob(grid, blur).exp().sum(1) * 0.005**2
        assert mass.tolist() == pytest.approx([1, 1], abs=2e-3)
    peak = base(bridge=1e-6).log_prob(torch.zeros(2, 1, 2))
    lower = base(bridge=1e-6).log_prob(torch.zeros(2, 1, 2), 0.05)
    assert (peak - lower).flatten().tolist() == pytest.approx([math.log(2)] * 2, rel=1e-3)


def test_the_exact_critic_makes_the_law_and_gradients_reach_the_latents():
    made = K.model(base(), LAW)
    found = G.law_of(made, LAW, 400, beta=1.0)
    assert found.jsd.max() < 2e-3 and (found.quality > 0.998).all()
    z = torch.tensor([[0.3, -0.2]]).expand(2, -1, -1).clone().requires_grad_()
    (slope,) = torch.autograd.grad(made.judge(z).sum(), z)
    step = 1e-3
    with torch.no_grad():
        ahead = made.judge(z + step * torch.tensor([1.0, 0.0])) - made.judge(z)
    assert slope[..., 0, 0].tolist() == pytest.approx((ahead[:, 0] / step).tolist(), rel=0.2)


def test_each_fault_of_a_critic_shows_where_it_should():
    made = base()

    def law(**faults):
        return G.law_of(K.erring(made, LAW, source(), **faults), LAW, 300, beta=1.0)

    exact = law()
    assert exact.jsd.max() < 3e-3
    assert (law(mistake=0.3).kl > exact.kl + 0.02).all()
    assert (law(floor=-2.0).quality < exact.quality - 0.02).all()  # e^-2 of the bridges
    wide = K.KnownBase(made.weights, CENTRES, 0.08, 0.2)
    narrowed = (
        G.law_of(K.erring(wide, LAW, source(), blur=blur), LAW, 300, beta=1.0).spread
        for blur in (0.0, 0.06)
    )
    sharp, blurred = narrowed
    assert (blurred > sharp + 0.1).all()


def test_arguments():
    with pytest.raises(ValueError, match="weights"):
        K.KnownBase(torch.ones(2, 2, 4), CENTRES, 0.05, 0.2)
    with pytest.raises(ValueError, match="bridge"):
        K.KnownBase(torch.ones(2, 2, 5), CENTRES, 0.05, 1.0)
    assert K.uneven(1, 3, 0.0, source(), (3.0, 1.0, 1.0))[0, 1].tolist() == [3, 1, 1]
    assert math.isclose(float(base().weights[0, 0].sum()), 1, rel_tol=1e-6)


def test_a_column_and_the_way_to_the_next():
    """Eleven nodes, one apart: whole numbers are nodes, and the slope is of the share."""
    z = torch.tensor([-7.0, -5.0, -1.75, 0.0, 4.5, 5.0, 7.0], requires_grad=True)
    low, share = K.column(z, 11)
    assert low.tolist() == [0, 0, 3, 5, 9, 9, 9]
    assert share.tolist() == pytest.approx([0, 0, 0.25, 0, 0.5, 1, 1])
    share[2].backward()
    assert z.grad[2] == pytest.approx(1)
