"""Checks of arguments: each raises ValueError with the argument's name and what was expected."""

import math
import numbers
import operator
from collections.abc import Callable

import torch


def is_number(value) -> bool:
    """A plain finite one: checkpoints hold no NumPy scalars."""
    return type(value) in (int, float) and math.isfinite(value)


def is_numbers(value, n: int) -> bool:
    """A tuple of n such."""
    return type(value) is tuple and len(value) == n and all(map(is_number, value))


def whole_number(name: str, value, least: int) -> int:
    """The value as a plain integer; NumPy's are taken too.

    Raises:
        ValueError: not an integer, or below `least`.
    """
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < least:
        raise ValueError(f"{name}: expected an integer >= {least}; got {value!r}")
    return operator.index(value)


def positive_number(name: str, value) -> float:
    """The value as a plain float; NumPy's are taken too.

    Raises:
        ValueError: not a number, or not > 0 and finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a number > 0 and finite; got {value!r}")
    return float(value)


def check_field(recipe, name: str, expected: str, holds: Callable) -> None:
    """Raise ValueError unless the named attribute is as it should be."""
    if not holds(getattr(recipe, name)):
        raise ValueError(f"{name}: expected {expected}; got {getattr(recipe, name)!r}")


def check_whole(recipe, least: int, *names: str) -> None:
    """Raise ValueError unless the named attributes are whole numbers >= least."""
    for name in names:
        check_field(
            recipe, name, f"a whole number >= {least}", lambda v: type(v) is int and v >= least
        )


def check_not_negative(recipe, *names: str) -> None:
    """Raise ValueError unless the named attributes are numbers >= 0."""
    for name in names:
        check_field(recipe, name, "a number >= 0", lambda v: is_number(v) and v >= 0)


def check_positive(recipe, *names: str) -> None:
    """Raise ValueError unless the named attributes are numbers > 0."""
    for name in names:
        check_field(recipe, name, "a number > 0", lambda v: is_number(v) and v > 0)


def check_seed(seed) -> None:
    """Raise ValueError unless the seed is a plain integer."""
    if type(seed) is not int:
        raise ValueError(f"seed: expected an integer; got {seed!r}")


def check_tensors(**named) -> None:
    """Raise ValueError unless all are tensors; a NumPy array has to be made one."""
    for name, value in named.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{name}: expected a torch.Tensor; got {type(value).__name__}")


def check_draws(n: int, least: int, generator: torch.Generator, name: str = "n") -> None:
    """Raise ValueError unless n is an integer >= least and the randomness has a source."""
    whole_number(name, n, least)
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator: expected a torch.Generator; got {type(generator).__name__}")
