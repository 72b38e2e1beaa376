"""p-values against laws that are known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ebmbook.lab import pvalues


def test_bonferroni_by_hand():
    assert pvalues.of_all([0.5, 0.0123, 0.9]) == 0.037
    assert pvalues.of_all(np.array([0.9, 0.7])) == 1
    assert pvalues.of_all([3.21e-9, 1.0]) == 6.4e-9


def test_known_skewness_is_a_gamma_law():
    """The mean of n exponentials has the skewness 2 / sqrt(n), and its law is Pearson's exactly."""
    n = 25
    for z in (-3.0, -0.5, 2.0, 4.0):
        law = stats.gamma(n)
        exact = 2 * min(law.cdf(n + z * 5), law.sf(n + z * 5))
        assert pvalues.of_known(z, 2 / math.sqrt(n)) == pytest.approx(exact)
    assert pvalues.of_known(1.96, 0) == pytest.approx(0.05, abs=1e-4)
    assert pvalues.of_known(0, 0) == 1


def test_waiting_by_hand():
    """Of a chance of one half: two of two has 1/4, of two or three 1/2, of five or more 5/16."""
    assert pvalues.of_waiting(2, 2, 0.5) == pytest.approx(2 / 4)
    assert pvalues.of_waiting(3, 2, 0.5) == 1
    assert pvalues.of_waiting(5, 2, 0.5) == pytest.approx(2 * 5 / 16)
    assert pvalues.of_waiting(20, 2, 0.5) < 1e-4


def test_of_a_mean_by_hand():
    x = torch.tensor([1.0, 2.0, 4.0, 9.0])
    t, g = 4 / (math.sqrt(38 / 3) / 2), (-27 - 8 + 0 + 125) / 4 / (38 / 4) ** 1.5 / 2
    hall = t + g * (1 + 2 * t * t) / 6 + g * g * t**3 / 27
    assert pvalues.of_mean(x, 0.0) == pytest.approx(2 * stats.t.sf(hall, 3))
    assert pvalues.of_mean(x, 4.0) == pytest.approx(2 * stats.t.sf(abs(g / 6), 3))


def test_of_a_skewed_mean_both_tails_are_right():
    """Of fifty exponentials plain t is ten times as often far below as far above."""
    x = -torch.rand(4000, 50, generator=torch.Generator().manual_seed(0)).double().log()
    p = np.array([pvalues.of_mean(row, 1.0) for row in x])
    above = (x.mean(1) > 1).numpy()
    for side in (above, ~above):
        assert 0.4 < (p[side] < 0.02).sum() / 40 < 1.9
    assert stats.kstest(p, "uniform").pvalue > 1e-4
    assert pvalues.of_mean(1.5 * x[:200].flatten(), 1.0) < 1e-10
