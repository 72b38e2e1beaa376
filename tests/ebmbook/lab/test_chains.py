"""Chains whose law is known."""

import math

import numpy as np
import pytest
import torch

from ebmbook.lab import chains
from ebmref import energies, samplers
from ebmref.samplers import finite

LIKE = {"dtype": torch.float64}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_counts_tell_a_law_from_another():
    p = torch.tensor([1.0, 2.0, 3.0], **LIKE)
    ends = torch.multinomial(p, 3000, replacement=True, generator=source())
    assert chains.counts_p(ends, p) > 1e-3
    assert chains.counts_p(ends, torch.tensor([1.0, 4.0, 3.0], **LIKE)) < 1e-20


def test_a_barrier_costs_nearly_e_for_a_unit():
    """Finer lattices come to the integrals, which come to Laplace's method where it is high."""
    limit = chains.growth_of_integrals(10.0, 12.0)
    off = [abs(chains.growth(n, 10.0, 12.0) - limit) for n in (21, 61, 161)]
    assert off[0] > 0.03 > off[1] > off[2] and off[2] < 0.008
    for low, high, most in ((10.0, 12.0, 0.012), (40.0, 42.0, 0.001)):
        leading = math.e * (low / high) ** (1 / (high - low))
        assert abs(chains.growth_of_integrals(low, high) - leading) < most
    u = torch.tensor([-1.5, 0.0, 1.5], **LIKE)  # by hand: the ends are higher than the middle
    p = torch.exp(-2.0 * torch.tensor([1.5625, 1.0, 1.5625], **LIKE))
    kernel = finite.metropolis_matrix(chains.line(len(u)), p)
    assert chains.barrier_time(3, 2.0) == finite.mixing_time(kernel, p) > 1
    assert chains.barrier_time(21, 0.0) < chains.barrier_time(21, 1.0)


def test_langevin_s_own_law_is_the_formula_s_on_a_parabola():
    normal = energies.Gaussian(torch.zeros(1, **LIKE), torch.eye(1, **LIKE))
    for h in (0.1, 1.0):
        own = chains.own_law(normal, h, reach=9.0)
        assert own.mean(lambda x: x**2) == pytest.approx(1 / (1 - h / 4), abs=2e-3)
    exact = chains.boltzmann(normal, reach=9.0)
    assert exact.mean(np.square) == pytest.approx(1, abs=1e-4)


def test_draws_have_their_own_law_and_not_the_other():
    bumps, h = chains.bumps(LIKE), 0.3
    own, wanted = chains.own_law(bumps, h), chains.boltzmann(bumps)
    unadjusted = chains.last_draws(samplers.ula(bumps, h), 5000, 130, source(1))
    adjusted = chains.last_draws(samplers.mala(bumps, h), 5000, 130, source(2))
    assert own.p(unadjusted) > 1e-3 and wanted.p(adjusted) > 1e-3
    assert wanted.p(unadjusted) < 1e-6 and own.p(adjusted) < 1e-6
    assert wanted.mean(lambda x: x) == pytest.approx(-0.4, abs=1e-4)


def test_variance_and_its_worst_deviation():
    normal = energies.Gaussian(torch.zeros(1, **LIKE), torch.eye(1, **LIKE))
    wide = chains.variance(samplers.ula(normal, 1.0), 500, source())
    assert wide.shape == (500,) and float(wide.mean()) == pytest.approx(4 / 3, rel=0.05)
    assert chains.worst_z([wide], [4 / 3]) < 4.5 < 10 < chains.worst_z([wide], [1.0])
    aside = energies.Gaussian(torch.full((1,), 3.0, **LIKE), torch.eye(1, **LIKE))
    square = chains.variance(samplers.ula(aside, 1.0), 100, source())  # of x, not about its mean
    assert float(square.mean()) == pytest.approx(9 + 4 / 3, rel=0.05)
    broad = energies.Gaussian(torch.zeros(1, **LIKE), 9 * torch.eye(1, **LIKE))
    late = chains.variance(samplers.ula(broad, 0.5), 2000, source())  # 36 steps forget the start
    assert float(late.mean()) == pytest.approx(9 / (1 - 0.5 / 36), rel=0.025)
    by_hand = torch.tensor([0.0, 2.0], **LIKE)  # mean 1, standard error 1
    assert chains.worst_z([by_hand, by_hand], [1.0, 4.0]) == pytest.approx(3)


def test_sizes_of_an_autoregressive_chain():
    got = chains.size_ratios(0.5, 4, source(), n_steps=2000)
    assert got.x.shape == got.square.shape == (4,)
    assert got.x.mean() == pytest.approx(1, abs=0.25)
    assert got.square.mean() == pytest.approx(1, abs=0.25)
