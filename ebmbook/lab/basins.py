"""Descents on an energy of several basins: where each ends, and how often one finds the answer.

    E(y) = sum_k (y_k^2 - 1)^2 + tilt y_k

has two minima a coordinate, hence 2^d of them, and the boundaries of their basins are known: the
ridge of one coordinate lies between its wells, whatever the others do. A descent by plain steps of
0.02 does not cross it from anywhere in [-2, 2]^d, since y - 0.02 E'(y) rises with y there, so that
its basins are those of the flow. A start drawn evenly from that cube is in the deepest one with
probability p^d.
"""

import torch
from torch import Tensor


def which(y: Tensor, ridge: float) -> Tensor:
    """The number of the basin, 0 the deepest: `(n, d)` to `(n,)` of [0, 2^d).

    Coordinate k adds 2^k where it lies beyond the ridge.
    """
    return ((y > ridge).long() << torch.arange(y.shape[1], device=y.device)).sum(1)
