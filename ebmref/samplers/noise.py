"""All the randomness of a block of steps, drawn at once from the caller's generator.

Kernels are deterministic given their noise, so the same block feeds the eager loop and the
compiled graph, where drawing inside the graph would be slow.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

# The integer that has as many bits as a number.
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
# Pairs of numbers below which a call of the compiled kernel does not pay.
_FEW = 32


class Source(torch.Generator):
    """A CPU generator whose normal numbers cost half of PyTorch's: for compiled loops.

    The bits are SFC64's, the step to normal numbers is one compiled kernel. All other draws,
    a proposal's for example, are those of the `torch.Generator` that it is.

    Args:
        seed: >= 0.
    """

    def __new__(cls, seed: int):
        return super().__new__(cls)

    def __init__(self, seed: int):
        self.manual_seed(seed)
        self.numbers = np.random.Generator(np.random.SFC64(seed))


def normal(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator, out: Tensor | None = None
) -> Tensor:
    """Standard normal numbers of `shape`, in the dtype and on the device of `like`.

    A tensor `out` of that shape is filled in place of a new one: fresh memory is slow.
    """
    out = _space(shape, like, out)
    flat = out.view(-1)
    half = len(flat) // 2
    if not isinstance(generator, Source) or half < _FEW or out.dtype not in _BITS:
        return out.normal_(generator=generator)
    # A number takes as many random bits as it has.
    words = half * 2 * out.element_size() // 8
    bits = torch.from_numpy(generator.numbers.bit_generator.random_raw(words).view(np.int64))
    bits = bits.view(_BITS[out.dtype])
    with torch.no_grad():
        _box_muller()(bits[:half], bits[half:], flat[:half], flat[half : 2 * half])
    flat[2 * half :].normal_(generator=generator)
    return out


def uniform(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator, out: Tensor | None = None
) -> Tensor:
    """Numbers uniform on [0, 1); otherwise as `normal`."""
    out = _space(shape, like, out)
    if not isinstance(generator, Source) or out.dtype not in _BITS:
        return out.uniform_(generator=generator)
    generator.numbers.random(out=out.numpy(), dtype=out.numpy().dtype)
    return out


def _space(shape, like: Tensor, out: Tensor | None) -> Tensor:
    if out is None or out.shape != torch.Size(shape):
        out = torch.empty(shape, dtype=like.dtype, device=like.device)
    return out


# A block of steps for each kind of kernel: `draw(n_steps, x, generator, out)`, steps first -------


def draw_drift(n_steps, x, generator, out=None):
    """Normal numbers like x, for kernels that never reject."""
    (xi,) = out or (None,)
    return (normal((n_steps, *x.shape), x, generator, xi),)


def draw_move(n_steps, x, generator, out=None):
    """Normal numbers like x, and one uniform number a chain to accept by."""
    xi, u = out or (None, None)
    return (
        normal((n_steps, *x.shape), x, generator, xi),
        uniform((n_steps, len(x)), x, generator, u),
    )


def draw_proposals(proposal, n_proposals, n_steps, x, generator, out=None):
    """Draws of q for every chain, their log q, and a uniform number to choose by."""
    proposed = proposal.sample(n_steps * len(x) * n_proposals, generator)
    log_q = proposal.log_prob(proposed)
    return (
        proposed.view(n_steps, len(x), n_proposals, *x.shape[1:]),
        log_q.view(n_steps, len(x), n_proposals),
        uniform((n_steps, len(x)), x, generator),
    )


def draw_ex2(proposal, n_proposals, n_local, n_steps, x, generator, out=None):
    """What a global step needs, then what each of the local steps does."""
    proposed, log_q, u = draw_proposals(proposal, n_proposals, n_steps, x, generator)
    xi = normal((n_steps, n_local, *x.shape), x, generator)
    local_u = uniform((n_steps, n_local, len(x)), x, generator)
    return proposed, log_q, u, xi, local_u


def draw_doublings(max_depth, n_steps, x, generator, out=None):
    """Normal numbers like x; uniform ones in rows of one number a chain, `(n_steps, rows, n)`.

    Of the rows max_depth are for directions, as many for choices between a path and what is added
    to it, and 2 ** (max_depth - 1) for choices among the leaves of an addition.
    """
    xi, u = out or (None, None)
    rows = 2 * max_depth + 2 ** (max_depth - 1)
    return (
        normal((n_steps, *x.shape), x, generator, xi),
        uniform((n_steps, rows, len(x)), x, generator, u),
    )


def draw_replicas(n_betas, n_steps, x, generator, out=None):
    """Normal numbers for every replica, uniform ones to accept and to swap by."""
    xi, u, swap_u = out or (None, None, None)
    return (
        normal((n_steps, len(x), n_betas, *x.shape[1:]), x, generator, xi),
        uniform((n_steps, len(x), n_betas), x, generator, u),
        uniform((n_steps, len(x), n_betas), x, generator, swap_u),
    )


@functools.cache
def _box_muller():
    """`fill(bits_1, bits_2, first, second)`: two normal numbers of two of random bits.

    With u in (0, 1) and an angle t, both uniform, (r cos t, r sin t), r = sqrt(-2 log u), are
    independent and normal (Box & Muller 1958).
    """

    def fill(one: Tensor, two: Tensor, first: Tensor, second: Tensor) -> None:
        # One digit less than the type holds: u is the middle of its cell, never 0 or 1.
        digits = 23 if one.dtype == torch.int32 else 52
        mask, unit = 2**digits - 1, 2.0**-digits
        u = ((one & mask).to(first.dtype) + 0.5) * unit
        radius = (-2 * u.log()).sqrt()
        angle = (two & mask).to(first.dtype) * (2 * math.pi * unit)
        first.copy_(radius * angle.cos())
        second.copy_(radius * angle.sin())

    return torch.compile(fill, fullgraph=True, dynamic=True)
