"""What a checkpoint holds, held against what it is for."""

from collections.abc import Iterator

import torch
from torch import Tensor


def not_finite(state: dict) -> str | None:
    """The name of a tensor with a NaN or an infinity, if there is one."""
    return next((name for name, x in _tensors(state) if not x.isfinite().all()), None)


def same(held, now) -> bool:
    """Whether a checkpoint's value is the plain one that is wanted."""
    try:
        return type(held) is type(now) and bool(held == now)
    except Exception:  # a file can hold anything, such as tensors where numbers belong
        return False


def fits(state, part) -> bool:
    """Whether a part's state has the names, shapes and dtypes of the part."""
    if not isinstance(state, dict):
        return False
    if isinstance(part, torch.optim.Optimizer):
        return _fits_optimizer(state, part)
    return _kinds(state) == _kinds(part.state_dict())


def _fits_optimizer(state: dict, optimizer: torch.optim.Optimizer) -> bool:
    """Whether groups are as large, and each moment is of its parameter's shape."""
    groups = [group["params"] for group in optimizer.param_groups]
    held = state.get("param_groups")
    if not isinstance(held, list) or not isinstance(state.get("state"), dict):
        return False
    if [len(group.get("params", ())) for group in held] != [len(group) for group in groups]:
        return False
    parameters = [p for group in groups for p in group]
    return all(
        type(i) is int
        and 0 <= i < len(parameters)
        and all(x.dim() == 0 or x.shape == parameters[i].shape for _, x in _tensors(moments))
        for i, moments in state["state"].items()
    )


def _kinds(state: dict) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (x.shape, x.dtype) for name, x in _tensors(state)}


def _tensors(state, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of a state, however deep, each with the way to it."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, list | tuple):
        for i, value in enumerate(state):
            yield from _tensors(value, f"{name}.{i}")
