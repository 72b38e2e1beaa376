"""Games on circles: side by side and alone, moves in their order, cures that do what they say."""

import pytest
import torch

from ebmbook.lab import circle_games as lab
from ebmref import gan


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def played(ways, n_steps=3, **how):
    return lab.play(ways, 2, n_steps, generator(), hidden=(4,), batch=16, **how)


def test_draws_are_on_circles():
    x = lab.rings(3, 50, generator())
    assert x.shape == (2, 3, 50, 2)
    assert torch.allclose(x.norm(dim=-1), torch.ones(2, 3, 50), atol=1e-6)
    assert x.mean(2).norm(dim=-1).max() < 0.5


def test_ways_do_not_meet_and_share_their_draws():
    ways = [lab.Way(0.1), lab.Way(0.2, penalty=1.0), lab.Way(0.1, noise=0.5), lab.Way(0.1)]
    together = played(ways)
    for k, way in enumerate(ways):
        assert torch.allclose(together[:, k], played([way])[:, 0], atol=1e-5)
    assert torch.allclose(together[:, 0], together[:, 3], atol=1e-6)
    assert (together[-1, 0] - together[-1, 2]).abs().max() > 1e-4


def test_first_moves_by_hand():
    """One step against autograd on the package's discriminator, at once and in turn."""
    for at_once in (False, True):
        g = generator()
        net = gan.Discriminator((2,), (4,), 2, g)
        theta = torch.tensor([[0.5, 0.0, 1.25]]).repeat(2, 1).requires_grad_()
        way = lab.rings(2, 16, g)
        fake = theta[:, None, :2] + theta[:, None, 2:] * way[1]
        loss = 0.7 / 2 * gan.slope_penalty(net, way[0]).sum()
        loss = loss - gan.value(net(way[0]), net(fake.detach())).sum()
        own = list(net.parameters())
        slopes = torch.autograd.grad(loss, own, allow_unused=True)
        (old,) = torch.autograd.grad(gan.generator_loss(net(fake)).sum(), theta, retain_graph=True)
        with torch.no_grad():
            for w, slope in zip(own, slopes, strict=True):
                w -= 0.3 * slope
        (new,) = torch.autograd.grad(gan.generator_loss(net(fake)).sum(), theta)
        end = theta - 0.3 * (old if at_once else new)
        want = (end - torch.tensor(lab.GOAL)).norm(dim=1)
        got = played([lab.Way(0.3, penalty=0.7)], 1, at_once=at_once)[0, 0]
        assert torch.allclose(got, want.detach(), atol=1e-5)


def test_noise_falls_to_zero():
    """From the width that constant noise has at the first step."""
    constant, falling = played([lab.Way(0.1, noise=1.0), lab.Way(0.1, noise=1.0, anneal=True)], 1)[
        0
    ]
    assert torch.allclose(constant, falling)
    long = played([lab.Way(0.1, noise=1.0), lab.Way(0.1, noise=1.0, anneal=True)], 4)
    assert (long[1:, 0] - long[1:, 1]).abs().max() > 1e-5


def test_the_best_is_chosen_by_one_half_and_judged_by_the_other():
    distance = torch.ones(9, 3, 4)
    distance[6:, 1, :2] = 0.1  # looks good to those that choose
    distance[6:, 1, 2:] = 3.0
    distance[6:, 2, 2:] = 0.0
    distance[:, 0] = torch.nan
    ways = [lab.Way(0.1), lab.Way(0.2), lab.Way(0.3)]
    best = lab.best(ways, distance)
    assert best.way == ways[1] and best.late.tolist() == [3, 3] and best.middle.tolist() == [1, 1]


def test_no_way_is_a_fault():
    with pytest.raises(ValueError, match="ways: expected"):
        played([])
