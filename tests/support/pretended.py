"""A GPU where there is none: numbers on the CPU, in tensors that say they are on `cuda`.

Inside `pretended` a tensor made with `device="cuda"` holds one of the CPU, and every operator works
on that. Its values are real, so that code which branches on them runs to its end, as it does not
with PyTorch's own fake tensors. An operator is refused where CUDA would refuse it: tensors of both
devices, or a generator of the other one. A number (0-d) may be on the CPU, as CUDA allows it.

What is not seen: CUDA's kernels, what the compiler makes of a step, their rounding, and autocast.
One thing is refused that CUDA takes: indices on the CPU, which it would have to copy and wait for.

To PyTorch's own C++ the tensors are on `meta`, the one device beside the CPU that has no driver.
"""

import contextlib
import functools
from collections.abc import Iterator
from weakref import WeakValueDictionary

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

CUDA = torch.device("cuda", 0)
_META = torch.device("meta")
_MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class Mixed(RuntimeError):
    """An operator was given tensors of two devices, or a generator of another device."""


class OnCuda(Tensor):
    """A tensor that says it is on `cuda`; its numbers are in `held`."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor):
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=_META,
        )
        made.held = held
        return made

    def __repr__(self):
        return f"OnCuda({self.held})"

    @property
    def device(self):
        return CUDA

    def tolist(self):
        return self.cpu().tolist()

    def __format__(self, spec):
        return format(self.held, spec)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _work(func, args, kwargs or {})


class Generator(torch.Generator):
    """A generator of either device; that of `cuda` draws as the CPU's does."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls)

    def __init__(self, device="cpu"):
        self._device = torch.device(device)
        _generators[self._cdata] = self

    @property
    def device(self) -> torch.device:
        return self._device


# By what an operator is given in their place: another object of the same source.
_generators: WeakValueDictionary[int, Generator] = WeakValueDictionary()


class Operators(TorchDispatchMode):
    """All operators; `called` has those that met `cuda`, each with the number of its tensors."""

    def __init__(self):
        super().__init__()
        self.called: set[tuple[torch._ops.OpOverload, int]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = _work(func, args, kwargs or {})
        if any(isinstance(x, OnCuda) for x in tree_leaves((args, kwargs, out))):
            n_tensors = sum(isinstance(x, Tensor) for x in tree_leaves((args, kwargs)))
            self.called.add((func, n_tensors))
        return out


def _work(func, args, kwargs):
    """An operator, on what its tensors hold."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    is_cuda = any(isinstance(x, OnCuda) for x in tensors)
    others = [x for x in tensors if not isinstance(x, OnCuda) and x.dim()]
    if is_cuda and others and func not in _MOVES:
        raise Mixed(f"{func}: expected all tensors on cuda; one of {tuple(others[0].shape)} is not")
    device = kwargs.get("device")
    makes_cuda = is_cuda if device is None else device.type == "meta"
    generator = kwargs.get("generator")
    if generator is not None:
        at = _generators.get(generator._cdata, generator).device
        if (at.type == "cuda") != makes_cuda:
            raise Mixed(f"{func}: expected a generator on the tensor's device; got one on {at}")
    if func is torch.ops.aten.copy_.default:
        makes_cuda = isinstance(args[0], OnCuda)
    given, named = tree_map_only(OnCuda, lambda x: x.held, (args, kwargs))
    if device is not None:
        named["device"] = torch.device("cpu")
    out = func(*given, **named)
    if not makes_cuda:
        return out
    # An operator in place gives back what it was given.
    known = {id(x.held): x for x in tensors if isinstance(x, OnCuda)}
    return tree_map_only(Tensor, lambda x: known[id(x)] if id(x) in known else OnCuda(x), out)


class _Devices(TorchFunctionMode):
    """Names `cuda` otherwise before C++ looks for its driver."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.device:
            return func(*args, **kwargs or {})
        args, kwargs = tree_map(_renamed, (args, kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == _META:
            return func(*args, **kwargs | {"device": "cpu"}).to(_META)
        if func is Tensor.new_tensor and isinstance(args[0], OnCuda):
            x, data = args
            return torch.tensor(data, dtype=kwargs.get("dtype", x.dtype)).to(_META)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], OnCuda):
            x, index, *value = args
            args = (x, _filled(index), *value)
        return func(*args, **kwargs)


def _filled(index):
    """Lists of an index as tensors, which C++ would not fill on `meta`."""
    if isinstance(index, tuple):
        return tuple(map(_filled, index))
    return torch.tensor(index).to(_META) if isinstance(index, list) else index


def _renamed(x):
    is_cuda = isinstance(x, str) and x.partition(":")[0] == "cuda"
    return _META if is_cuda or (isinstance(x, torch.device) and x.type == "cuda") else x


@contextlib.contextmanager
def pretended() -> Iterator[Operators]:
    """Let `cuda` be a device of this process."""
    with pytest.MonkeyPatch.context() as patch, _Devices(), Operators() as operators:
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(torch.cuda, "default_generators", (Generator("cuda"),))
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.autograd, "_engine_run_backward", _run_backward)
        patch.setattr(torch, "save", functools.partial(_saved, torch.save))
        patch.setattr(torch, "load", functools.partial(_loaded, torch.load))
        yield operators


def _run_backward(*args, **kwargs):
    """In the pretence, which a call to PyTorch leaves, for what it calls back."""
    with _Devices():
        return torch.autograd.graph._engine_run_backward(*args, **kwargs)


def _saved(save, state, *args):
    save(tree_map_only(OnCuda, lambda x: x.held, state), *args)


def _loaded(load, path, *, map_location, **kwargs):
    with _disable_current_modes():
        state = load(path, map_location="cpu", **kwargs)
    is_cuda = torch.device(map_location).type == "cuda"
    return tree_map_only(Tensor, OnCuda, state) if is_cuda else state
