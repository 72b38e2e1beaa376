"""The noise of the compiled loop: normal numbers made of SFC64's bits."""

import pytest
import torch
from scipy import stats

from ebmref.samplers.noise import Source, normal, uniform

FLOATS = [torch.float32, torch.float64]
# Of one seed of one test: 2e-6, so that a thousand tests raise a false alarm in 1 of 500 seeds.
ALARM = 2e-6


def like(dtype):
    return torch.empty(0, dtype=dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_are_normal(dtype):
    """KS of 2,000,000 numbers, and the share beyond 4, where a bad transform shows first."""
    z = normal((2_000_000,), like(dtype), Source(1))
    assert stats.kstest(z.double().numpy(), "norm").pvalue > ALARM
    beyond = int((z.abs() > 4).sum())
    assert stats.binomtest(beyond, len(z), 2 * stats.norm.sf(4)).pvalue > ALARM
    assert z.isfinite().all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_pairs_are_independent(dtype):
    """Cosine and sine of one angle share their radius: neither they, nor their squares, nor
    neighbours are correlated, within the normal law of a correlation, sd 1 / sqrt(n)."""
    n = 1_000_000
    z = normal((2 * n,), like(dtype), Source(2)).double()
    pairs = [(z[:n], z[n:]), (z[:n].square(), z[n:].square()), (z[:-1], z[1:])]
    for one, two in pairs:
        score = torch.corrcoef(torch.stack([one, two]))[0, 1] * len(one) ** 0.5
        assert 2 * stats.norm.sf(abs(float(score))) > ALARM


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1,), (2,), (3, 5), (7, 4, 3), (129,)])
def test_shapes_seeds_and_buffers(dtype, shape):
    """Same seed, same numbers, in a new tensor or in a given one; the next draw is another."""
    source = Source(3)
    one, two = (normal(shape, like(dtype), source) for _ in range(2))
    assert one.shape == shape and one.dtype == dtype and not torch.equal(one, two)
    buffer = torch.full(shape, torch.nan, dtype=dtype)
    assert normal(shape, like(dtype), Source(3), buffer) is buffer
    assert torch.equal(buffer, one)


@pytest.mark.parametrize("dtype", FLOATS)
def test_uniform_numbers(dtype):
    """KS; never 1, which as the number of a rejection would be a ratio of zero taken."""
    u = uniform((1_000_000,), like(dtype), Source(4))
    assert stats.kstest(u.double().numpy(), "uniform").pvalue > ALARM
    assert u.min() >= 0 and u.max() < 1


def test_other_draws_follow_the_seed_too():
    """A proposal draws by PyTorch's own functions, from the generator that a Source is."""
    one, two = (torch.randn(5, generator=Source(seed)) for seed in (6, 6))
    assert torch.equal(one, two)
