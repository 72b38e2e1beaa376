"""Flows inside energies: what is exact about them, and trainings of a few steps."""

import pytest
import torch

from ebmbook.lab import flow_energies as flow


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_shake_moves_each_flow_by_its_own_scale():
    net = flow.new_flow(2, g())
    before = net.shift.detach().clone()
    flow.shake(net, torch.tensor([0.0, 0.5])[:, None, None], g(1))
    moved = (net.shift - before).detach()
    assert moved[0].abs().max() == 0 and 0.2 < moved[1].std() < 1


def test_energies_on_bases_gain_on_the_divergence_and_find_the_normaliser():
    found = flow.on_bases((0.03, 0.12), 150, g(), 0)
    assert (found.kl > 0).all() and (found.share < 1).all()
    assert (found.missing > 0).all() and (found.missing < 0.3).all()
    assert (found.constant.abs() < 0.2).all()  # it begins 1 away
    # The relative variance of a mean of 1000 weights is (1 / share - 1) / 1000.
    theory = ((1 / float(found.share[0]) - 1) / 1000) ** 0.5
    assert float(found.of_a_batch[0]) == pytest.approx(theory, rel=0.5)


def test_the_mixture_is_white_and_has_the_density_that_it_is_drawn_from():
    mixture = flow.Mixture(g())
    x = mixture.sample(40_000, g(1))
    assert x.mean(0).abs().max() < 0.03
    assert (torch.cov(x.T) - torch.eye(11)).abs().max() < 0.05
    # E_p[q / p] = 1 for q = N(0, I): importance sampling by the density.
    log_q = torch.distributions.Normal(0, 0.5).log_prob(x - mixture.means[0]).sum(1)
    ratio = (log_q - mixture.log_prob(x)).exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=5 * float(ratio.std()) / 200)


def test_both_trainings_come_nearer_than_a_gaussian():
    mixture = flow.Mixture(g())
    data, test = mixture.sample(2000, g(1)), mixture.sample(2000, g(2))
    plain = flow.nats(flow.new_flow(2, g(3)), test).mean(1)  # N(0, I) at first
    ml = flow.nats(flow.by_likelihood(2, data, 60, 0.01, g(3), g(4)), test).mean(1)
    assert (ml < plain - 0.3).all()
    for way in flow.WAYS:
        pair = flow.by_game(way, 2, data, 60, 0.01, g(3), g(5), 0)
        assert (flow.nats(pair.energy, test).mean(1) < plain - 0.1).all(), way
        if way == "KALE, c known":
            assert pair.constant.abs().max() < 1e-20 and pair.log_z.abs().max() == 0
        else:
            assert pair.log_z.abs().max() > 0
        # The base has learned as well, and is not the energy's flow.
        base = flow.nats(pair.base, test).mean(1)
        assert (base < plain).all() and (base - flow.nats(pair.energy, test).mean(1)).min() > 0
