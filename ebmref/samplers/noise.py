"""All the randomness of a block of steps, drawn at once from the caller's generator.

Kernels are deterministic given their noise, so the same block feeds the eager loop and the
compiled graph, where drawing inside the graph would be slow. Long blocks are cut into a fixed
number of pieces, each with a generator seeded from the caller's, and filled by all threads:
the numbers depend on the seed alone, not on how many threads there are.
"""

import functools
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_PIECES = 8
_LONG = 1 << 19  # numbers; below, handing out the pieces costs more than it saves


def normal(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator, out: Tensor | None = None
) -> Tensor:
    """Standard normal numbers of `shape`, in the dtype and on the device of `like`.

    A tensor `out` of that shape is filled in place of a new one: fresh memory is slow.
    """
    return _fill(Tensor.normal_, shape, like, generator, out)


def uniform(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator, out: Tensor | None = None
) -> Tensor:
    """Numbers uniform on [0, 1); otherwise as `normal`."""
    return _fill(Tensor.uniform_, shape, like, generator, out)


def _fill(draw, shape, like, generator, out) -> Tensor:
    if out is None or out.shape != torch.Size(shape):
        out = torch.empty(shape, dtype=like.dtype, device=like.device)
    if out.numel() < _LONG or out.device.type != "cpu":
        return draw(out, generator=generator)
    pieces = out.view(-1).chunk(_PIECES)
    seeds = torch.randint(2**32, (_PIECES,), generator=generator).tolist()

    def fill(piece, seed):
        draw(piece, generator=torch.Generator().manual_seed(seed))

    list(_threads(torch.get_num_threads()).map(fill, pieces, seeds))
    return out


@functools.cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="noise")
