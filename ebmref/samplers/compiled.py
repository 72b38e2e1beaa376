"""The loop over steps: in Python, or as one compiled graph.

The graph is a scan over the noise of a block, several steps an iteration, with the gradient
inside. Its time goes into arithmetic; a loop in Python pays for dispatch at every step,
which with few chains is nearly all it does.
"""

import itertools
import time
import types
import warnings
from collections import OrderedDict

import torch
from torch import Tensor

from ebmref.samplers.kernels import Kernel

# Gradients in the body of the scan: more are faster to run and slower to compile.
_BODY = 10
# Numbers of a state above which a step is long enough to be an iteration by itself.
_WIDE = 1 << 18
# Graphs kept for kernels to come, the least recently used dropped first.
_KEPT = 32
_graphs: OrderedDict = OrderedDict()
_numbers = itertools.count()


class Loop:
    """Advances the chains of one kernel, a block of noise at a time.

    Attributes:
        unroll: steps an iteration of the scan; divides thin, or is divided by it.
        compile_seconds: spent in the compiler so far.
    """

    def __init__(self, kernel: Kernel, x0: Tensor, thin: int, enabled: bool):
        most = min(_BODY // max(1, kernel.n_gradients), _WIDE // x0.numel())
        most = max(1, most)
        if thin <= most:
            self.unroll = most // thin * thin
        else:
            self.unroll = max(k for k in range(1, most + 1) if thin % k == 0)
        self.compile_seconds = 0.0
        self._kernel, self._thin, self._enabled = kernel, thin, enabled

    def __call__(
        self,
        state,
        noise: tuple[Tensor, ...],
        step_size: Tensor,
        samples: Tensor | None = None,
        energy: Tensor | None = None,
        phase: int = 0,
    ):
        """Make the block's steps; fill samples and energy with every thin-th state.

        Args:
            state: of the kernel.
            noise: tensors `(n_steps, ...)`.
            samples, energy: `(n_kept, n, *event)` and `(n_kept, n)`, or None to keep nothing.
            phase: steps made since the last state on the grid of thin.

        Returns:
            The state, and the sum of the acceptance probabilities `(n,)`.
        """
        whole = len(noise[0]) // self.unroll * self.unroll if self._enabled else 0
        total = 0
        kept = 0
        if whole:
            try:
                state, total, kept = self._compiled(
                    state, [part[:whole] for part in noise], step_size, samples, energy, phase
                )
            except Exception as error:
                if type(error).__module__.startswith("ebmref"):
                    raise
                reason = str(error).strip().splitlines()[0]
                warnings.warn(
                    f"compile: goes on without, as the compiler refused {self._kernel.name} "
                    f"({type(error).__name__}: {reason})",
                    RuntimeWarning,
                    stacklevel=3,
                )
                self._enabled, whole = False, 0
        for k, one in enumerate(zip(*(part[whole:].unbind(0) for part in noise), strict=True)):
            state, acceptance = self._kernel.step(state, one, step_size)
            total = total + acceptance
            if samples is not None and (phase + whole + k + 1) % self._thin == 0:
                samples[kept], energy[kept] = state.x, state.energy
                kept += 1
        return state, total

    def _compiled(self, state, noise, step_size, samples, energy, phase):
        u = self.unroll
        every = min(self._thin, u)
        step = self._kernel.step
        key = (step.func, step.args, u, every, _shapes(state))
        graph = _graphs.pop(key, None)
        fresh = graph is None
        if fresh:
            graph = torch.compile(
                _scan(self._kernel.step, type(state), u, every),
                fullgraph=True,
                options={"cpp_wrapper": state.x.device.type == "cpu"},
            )
        blocks = [part.unflatten(0, (-1, u)) for part in noise]
        for part in blocks:
            torch._dynamo.maybe_mark_dynamic(part, 0)
        begin = time.perf_counter()
        *parts, xs, energies, acceptance = graph(tuple(state), blocks, step_size)
        if fresh:
            self.compile_seconds += time.perf_counter() - begin
        _graphs[key] = graph
        while len(_graphs) > _KEPT:
            _graphs.popitem(last=False)
        kept = 0
        if samples is not None:
            # xs holds the states after steps every, 2 every, ...; pick those of the thin grid.
            grid = slice(-(phase + every) % self._thin // every, None, self._thin // every)
            xs = xs.flatten(0, 1)[grid]
            kept = len(xs)
            samples[:kept], energy[:kept] = xs, energies.flatten(0, 1)[grid]
        return type(state)(*parts), acceptance.sum(0), kept


def _scan(step, make, unroll, every):
    """The graph: `unroll` steps an iteration, each `every`-th state handed out."""
    from torch._higher_order_ops.scan import scan

    def loop(state, noise, step_size):
        def body(carry, noise):
            state = make(*carry)
            xs, energies, total = [], [], 0
            for k in range(unroll):
                state, acceptance = step(state, tuple(part[k] for part in noise), step_size)
                total = total + acceptance
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
    return types.FunctionType(code, loop.__globals__, closure=loop.__closure__)


def _shapes(state) -> tuple:
    return tuple((part.shape, part.stride(), part.dtype, part.device) for part in state)
