"""Values, gradients and pulls on Gaussians of the line, against what is known of them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ebmbook.lab import adversaries as lab
from ebmref import gan

DOUBLE = {"dtype": torch.float64}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_best_value_is_that_of_the_best_logit():
    real, fake = lab.two_gaussians(1, 400_000, generator())
    got = gan.value(*(-2 * x.double()[..., 0] for x in (real, fake)))
    assert float(got) == pytest.approx(lab.best_value(), abs=0.005)
    assert lab.best_value(0.0) == pytest.approx(-math.log(4), abs=1e-9)


def test_the_printed_value_has_no_discriminator_where_the_laws_agree():
    """One whatever D is; elsewhere it grows without end as D falls where q is larger."""
    for seed in range(5):
        d = torch.randn(3, 50, generator=generator(seed), **DOUBLE)
        assert lab.printed_value(d, d).tolist() == pytest.approx([1, 1, 1])
    falling = [float(lab.printed_value(torch.zeros(1), torch.full((1,), -t))) for t in (1.0, 10.0)]
    assert falling[1] - falling[0] == pytest.approx(9, abs=0.4)


def test_the_printed_value_has_the_generator_s_gradient_of_the_other_loss():
    d = torch.randn(2, 9, generator=generator(), **DOUBLE).requires_grad_()
    (one,) = torch.autograd.grad(lab.printed_value(torch.zeros_like(d), d).sum(), d)
    (other,) = torch.autograd.grad(gan.generator_loss(d, "non-saturating").sum(), d)
    assert torch.allclose(one, other, atol=1e-14)


def test_networks_on_either_value():
    paid = lab.either_value(2, 40, generator())
    assert paid.shape == (40, 2, 2)
    assert (paid[-1, 0] > paid[0, 0]).all() and (paid[:, 0] <= 0).all()
    assert (paid[-1, 1] > paid[0, 1]).all()
    assert paid[0, 1].mean() == pytest.approx(1, abs=0.7)


def nets(g):
    d_net = gan.Discriminator((1,), (8,), 1, g).double()
    return d_net, gan.Generator(1, (), (1,), 1, g).double()


def test_both_gradients_are_the_sums_over_points():
    g = generator()
    d_net, g_net = nets(g)
    x, z = torch.randn(2, 1, 12, 1, generator=g, **DOUBLE)
    up, down = lab.by_point(d_net, g_net, x, z)
    logits = d_net(g_net(z))
    value = gan.value(d_net(x), logits).sum()
    loss = gan.generator_loss(logits, "saturating").sum()
    for got, total, net in ((up, value, d_net), (down, loss, g_net)):
        parts = torch.autograd.grad(total, list(net.parameters()), retain_graph=True)
        assert torch.allclose(got, torch.cat([p.flatten() for p in parts]), atol=1e-13)


def test_losses_are_opposite_only_for_the_saturating_one():
    g = generator()
    d_net, g_net = nets(g)
    x, z = torch.randn(2, 1, 12, 1, generator=g, **DOUBLE)
    logits, of_g = d_net(g_net(z)), list(g_net.parameters())
    for kind, opposite in (("saturating", True), ("non-saturating", False)):
        both = gan.generator_loss(logits, kind) - gan.value(d_net(x), logits)
        left = torch.autograd.grad(both.sum(), of_g, retain_graph=True)
        assert (max(float(part.abs().max()) for part in left) < 1e-14) == opposite


def test_minibatches_are_unbiased():
    """Their mean over many is the mean of half as many, within its error."""
    rows = lab.batch_noise(600, 8, generator())
    assert [r.shape[1] for r in rows] == [25, 2]
    for r in rows:
        one, other = r.chunk(2)
        z = (one.mean(0) - other.mean(0)) / ((one.var(0) + other.var(0)) / 300).sqrt()
        assert z[r.std(0) > 1e-12].abs().max() < 4.5
    small, large = rows[0], lab.batch_noise(600, 32, generator())[0]
    assert float(small.std(0).norm() / large.std(0).norm()) == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("gap", [0.5, 2.0, 4.0])
def test_best_pulls_are_slopes_of_their_goals(gap):
    """Of 2 JSD, and of KL(q, p) less 2 JSD, for N(0, 1) and N(gap, 1)."""
    t = np.linspace(-12, 16, 8001)

    def goals(at):
        p, q = stats.norm.pdf(t), stats.norm.pdf(t, at)
        mixed = (p + q) / 2 + 1e-300
        twice = np.trapezoid(
            p * np.log(p / mixed + 1e-300) + q * np.log(q / mixed + 1e-300), t
        )  # fmt: skip
        return np.array([twice, at**2 / 2 - twice])

    slope = (goals(gap + 1e-3) - goals(gap - 1e-3)) / 2e-3
    assert lab.best_pulls(gap) == pytest.approx(slope, abs=1e-5)


def test_pulls_stand_in_rows():
    both = lab.pulls(np.array([[0.5], [2.0]]), np.array([[-1.0], [-2.0]]), np.array([[1.0], [2.0]]))
    assert both.shape == (2, 1, 2)
    assert both[1, 0] == pytest.approx(lab.best_pulls(2.0))
    assert both.sum(-1).flatten() == pytest.approx([1.0, 2.0])


def test_fits_arrive_where_steps_are_enough():
    assert lab.fit_line(1.0, 2000) == pytest.approx((0.5, -1.0), abs=1e-3)
    # Adam's first step is as long as its rate.
    assert lab.fit_line(2.0, 1)[1] == pytest.approx(-0.1)
    early, late = lab.fit_line(6.0, 300), lab.fit_line(6.0, 3000)
    assert -6 < late[1] < early[1] < 0
    trained = lab.train_lines([1.0, 3.0], 2, [1, 300], generator())
    assert trained.shape == (2, 2, 2, 2)
    assert trained[-1, 0].mean(0) == pytest.approx(lab.best_pulls(1.0), rel=0.05)


def test_an_exact_fit_is_the_limit_of_large_batches():
    """After as many steps of the same optimiser."""
    trained = lab.train_lines([4.0], 1, [60], generator(), batch=20_000)
    exact = lab.pulls(*lab.fit_line(4.0, 60), 4.0)
    # Networks start within one of zero, the exact fit at zero.
    assert trained[-1, 0, 0] == pytest.approx(exact, rel=0.15)


def test_one_gaussian_covers_both_humps_or_one():
    goals = lab.goals()
    mean, width = goals["saturating"]
    assert mean == pytest.approx(0.32, abs=0.03) and width == pytest.approx(1.63, abs=0.05)
    # KL(q, p) alone would have 1.6 and 0.5.
    assert goals["non-saturating"] == pytest.approx([1.5981, 0.5030], abs=5e-4)
    near = lab.goals(centres=(-0.3, 0.3))
    assert near["non-saturating"] == pytest.approx(near["saturating"], abs=0.03)
