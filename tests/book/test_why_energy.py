"""What `book/why-energy.md` says of squares, mixtures and energies, in cases small enough."""

import math

import pytest
import torch

from ebmref import data, inference, outcomes
from ebmref.networks import Networks
from ebmref.training import fit


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def train(model, loss, n_steps, learning_rate=1e-2):
    for _ in fit(model, loss, n_steps, learning_rate, anneal=True):
        pass


LEFT_RIGHT = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
ONE = torch.ones(1, 1)


def test_two_random_frames_are_twice_as_far_apart_as_the_mean_is_wrong():
    """The variance identity over all pairs, the equal ones included; float64 rounding."""
    frames = data.pen_frames(torch.linspace(0, 6, 90), size=24).flatten(1).double()
    error = (frames - frames.mean(0)).square().sum(1).mean()
    pairs = torch.cdist(frames, frames, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(pairs.square().mean() / error) == pytest.approx(2, abs=1e-12)


def test_mean_picture_is_as_grey_as_the_directions_that_cover_it():
    """arcsin(w / 2r) / pi at radius r, at three radii, within two percent.

    A pen is 6.4 pixels wide, and 1000 directions are a third of a pixel apart at its tip.
    """
    size, width = 128, 0.1
    mean = torch.zeros(size, size)
    for angles in torch.arange(1000).mul(2 * math.pi / 1000).split(250):
        mean += data.pen_frames(angles, size=size, length=0.85, width=width).sum(0) / 1000
    side = (torch.arange(size) + 0.5) * 2 / size - 1
    radius = torch.hypot(*torch.meshgrid(side, side, indexing="ij"))
    for r in (0.2, 0.425, 0.7):
        grey = float(mean[(radius - r).abs() < 1 / size].mean())
        assert grey == pytest.approx(math.asin(width / (2 * r)) / math.pi, rel=0.02)


def test_same_network_averages_or_keeps_both_as_its_loss_says():
    """Two outcomes, one hidden layer. Least squares ends half-way; a mixture head has both.

    Entropy of the truth, log 2 + log(2 pi e s^2), is the mixture's floor; 0.05 nats is a
    fourteenth of the log 2 that a model of one of the outcomes would lose.
    """
    s, draws = 0.1, generator(1)

    def fall():
        which = torch.randint(2, (3, 256), generator=draws)
        return LEFT_RIGHT[which] + s * torch.randn(3, 256, 2, generator=draws)

    plain = Networks((1, 16, 2), 3, generator(2))
    train(plain, lambda: outcomes.squared_error(plain(ONE), fall()), 400)
    assert plain(ONE).norm(dim=-1).max() < 0.05

    mixture = Networks((1, 16, 4 * 4), 3, generator(3))
    train(mixture, lambda: -outcomes.mixture_log_prob(mixture(ONE), fall()).mean(1), 500)
    floor = math.log(2) + math.log(2 * math.pi * math.e * s**2)
    with torch.no_grad():
        cost = torch.stack(
            [-outcomes.mixture_log_prob(mixture(ONE), fall()).mean(1) for _ in range(20)]
        ).mean(0)
    assert (cost - floor).abs().max() < 0.05


def test_energy_learned_by_quadrature_has_a_well_at_each_outcome():
    """Maximum likelihood with log Z on a grid; descents end at both outcomes, in every model."""
    s, draws = 0.15, generator(4)
    points, cell = outcomes.plane_grid(1.6, 32)
    net = Networks((2, 24, 24, 1), 2, generator(5))
    with torch.no_grad():
        net.weights[0].mul_(4)

    def loss():
        which = torch.randint(2, (2, 256), generator=draws)
        y = LEFT_RIGHT[which] + s * torch.randn(2, 256, 2, generator=draws)
        return net(y)[..., 0].mean(1) + outcomes.log_partition(net(points[None])[..., 0], cell)

    train(net, loss, 400)
    starts = 3 * torch.rand(2 * 32, 2, generator=generator(6)) - 1.5
    found = inference.gradient_argmin(lambda y: net(y.view(2, -1, 2)).flatten(), starts, 0.02, 300)
    near = torch.cdist(found.y, LEFT_RIGHT).view(2, 32, 2) < 3 * s
    assert near.any(1).all()
    assert near.any(2).float().mean() > 0.9
    with torch.no_grad():
        middle = net(torch.zeros(1, 1, 2))[:, 0, 0]
        assert (middle > net(LEFT_RIGHT[None])[..., 0].max(1).values + 3).all()
