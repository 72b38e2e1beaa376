"""Compiled loops of kernels: made once, and used again only for what they were made of.

What decides the numbers of a graph is looked at twice. Which graph may serve is a matter of
identity: the very functions, energies and tensors of the step, not others that are equal to them,
and plain numbers of one type and value. Inside one graph the compiler then guards what it has
read, attributes, globals, closures, keywords, buffers, dtypes and autocast, and compiles anew
where one has changed. It does not guard everything, hooks of modules for one. So where a graph is
used again, the energy is asked for its own values where the graph has led the chains.

The cache holds no energy: it refers to one weakly, and a graph goes when something that it was
made of does. (Objects without weak references, such as those with slots alone, stay until their
graph is the oldest.)
"""

import functools
import itertools
import time
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from ebmref.probes import agree
from ebmref.samplers.kernels import Kernel

_OPTIONS = {
    # The compiler's own checks of shapes cost a tenth of a step of one chain.
    "size_asserts": False,
    "alignment_asserts": False,
    "scalar_asserts": False,
    # tanh by exp, right to 2e-7, takes a third of the time.
    "cpp.use_decompose_tanh": True,
    # What was compiled is kept on disk for processes to come, under a name that holds all of the
    # graph; PyTorch leaves out scans, but their bodies are parts of the graph like others.
    "unsafe_marked_cacheable_functions": {"torch.ops.higher_order.scan": "1"},
}
# Graphs kept for kernels to come, the least recently used dropped first.
_KEPT = 32
_graphs: OrderedDict = OrderedDict()
_numbers = itertools.count()


class Stale(Exception):
    """The energy has changed in a way that the compiler did not see, or could not follow."""


class Graph:
    """A kernel's compiled loop over blocks of noise, for states of one shape.

    Attributes:
        unroll, every: the steps an iteration of the scan makes, and of which of them it hands
            out the state.
        is_new: whether it was not in the cache: the first call makes the compiler work.
        compile_seconds: spent in the compiler.
    """

    def __init__(self, kernel: Kernel, state, unroll: int, every: int):
        self.unroll, self.every, self.compile_seconds = unroll, every, 0.0
        self._kernel = kernel
        held: list = []
        shapes = tuple((p.shape, p.stride(), p.dtype, p.device) for p in state)
        self._key = (_name(kernel.step, held), type(state), unroll, every, shapes)
        entry = _graphs.get(self._key)
        self.is_new, self._has_run = entry is None, False
        if entry is None:
            loop = _compile(type(state), unroll, every, state.x)
            entry = _Entry(loop, _watch(self._key, held))
        self._entry = entry

    def __call__(self, state, noise, step_size):
        """Make the noise's steps, a multiple of unroll.

        Returns:
            The state; the states handed out, `(n_out, n, *event)` and `(n_out, n)`; the sum of
            the acceptance probabilities `(n,)`.

        Raises:
            Stale: the graph was made earlier, and could not be adapted to its energy as it is
                now; it is dropped.
        """
        blocks = [part.unflatten(0, (-1, self.unroll)) for part in noise]
        for part in blocks:
            torch._dynamo.maybe_mark_dynamic(part, 0)
        began, before = time.perf_counter(), _n_compiled()
        try:
            out = self._entry.graph(self._kernel.step, tuple(state), blocks, step_size)
        except Exception as error:
            self.drop()
            if self.is_new or self._has_run:
                raise
            # A number that has changed is a variable to the compiler now, which scans do not
            # take; in a graph from scratch it is a constant again.
            raise Stale from error
        if _n_compiled() > before:
            self.compile_seconds += time.perf_counter() - began
        self._has_run = True
        *parts, xs, energies, total = out
        return type(state)(*parts), xs.flatten(0, 1), energies.flatten(0, 1), total.sum(0)

    def keep(self, state) -> None:
        """Keep the graph for kernels to come.

        Args:
            state: where it has led some chains.

        Raises:
            Stale: it was made earlier, and is not of its energy any more; it is dropped.
        """
        energy, entry = self._kernel.energy, self._entry
        if energy is not None and (self.is_new or entry.can_tell):
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                holds = agree(energy(state.x), state.energy)
            if self.is_new:
                # A step of one's own may be of another energy: then nothing can be told later.
                entry.can_tell = holds
            elif not holds:
                self.drop()
                raise Stale
        _graphs[self._key] = entry
        _graphs.move_to_end(self._key)
        while len(_graphs) > _KEPT:
            _graphs.popitem(last=False)

    def drop(self) -> None:
        """Let the graph go: another call compiles anew."""
        _graphs.pop(self._key, None)


class _Entry:
    """A graph in the cache.

    Attributes:
        graph: what the compiler made.
        watched: weak references to what it was made of.
        can_tell: whether its energies were the kernel's when it was new.
    """

    def __init__(self, graph: Callable, watched: list):
        self.graph, self.watched, self.can_tell = graph, watched, False


def _watch(key, held: list) -> list:
    """References that drop the graph of a key when what it was made of goes."""

    def forget(_) -> None:
        _graphs.pop(key, None)

    watched = []
    for thing in held:
        try:
            watched.append(weakref.ref(thing, forget))
        except TypeError:
            watched.append(thing)
    return watched


def _name(thing, held: list):
    """What a step is, as a key: its parts by identity, plain values by type and value.

    Args:
        held: takes the objects whose identities are in the key, and which must outlive it.
    """
    if isinstance(thing, functools.partial):
        parts = (thing.func, thing.args, *sorted(thing.keywords.items()))
    elif isinstance(thing, types.MethodType):
        parts = (thing.__func__, thing.__self__)
    elif isinstance(thing, tuple):
        parts = thing
    elif thing is None or isinstance(thing, bool | int | float | complex | str | bytes):
        return type(thing), repr(thing)  # 1, 1.0 and True are equal, and so are 0.0 and -0.0
    else:
        held.append(thing)
        return id(thing)
    return type(thing), *(_name(part, held) for part in parts)


def _n_compiled() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def _compile(make, unroll: int, every: int, x: Tensor):
    """The graph: `unroll` steps an iteration, each `every`-th state handed out.

    The step is an argument, so that the graph does not keep it, nor the energy in it.
    """
    from torch._higher_order_ops.scan import scan

    from ebmref.samplers.products import ByOneDNN

    def loop(step, state, noise, step_size):
        def body(carry, noise):
            state = make(*carry)
            xs, energies, total = [], [], 0
            for k in range(unroll):
                state, acceptance = step(state, tuple(part[k] for part in noise), step_size)
                total = total + in_full(acceptance)
                if (k + 1) % every == 0:
                    xs.append(state.x)
                    energies.append(state.energy)
            # A scan may not hand out the same tensor twice.
            return [part.clone() for part in state], [
                torch.stack(xs),
                torch.stack(energies),
                total.clone(),
            ]

        carry, kept = scan(body, list(state), list(noise))
        return *carry, *kept

    # The compiler counts and mixes up what it knows of one code object: each graph has its own.
    code = loop.__code__.replace(co_name=f"loop_{next(_numbers)}")
    loop = types.FunctionType(code, loop.__globals__, closure=loop.__closure__)
    options = _OPTIONS | {"cpp_wrapper": x.device.type == "cpu"}
    options |= {"post_grad_custom_post_pass": ByOneDNN()}
    return torch.compile(loop, fullgraph=True, options=options)


def in_full(x: Tensor) -> Tensor:
    """x in float32 at least: half precision cannot add up more than some hundred numbers."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
