"""What a chapter makes of several measurements of a number; of every key that enters one."""

import math

import torch
from torch import Tensor


def mean_and_error(values) -> tuple[Tensor, Tensor, int]:
    """The mean of independent measurements, its standard error, and how many they are.

    Args:
        values: numbers of any shape, two or more.

    Raises:
        ValueError: fewer than two.
    """
    values = torch.as_tensor(values, dtype=torch.float64).flatten().cpu()
    n = len(values)
    if n < 2:
        raise ValueError(f"values needs two or more numbers; got {n}")
    return values.mean(), values.std() / math.sqrt(n), n
