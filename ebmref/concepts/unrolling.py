"""Descent whose result is differentiated, and what that costs (report section 2.2.1.1).

Where inference is itself a descent, learning differentiates through its steps. Through all of them
it is as deep as they are many, and holds each step's graph. There are cheaper ways: to make each
step anew when its turn comes, to look at the last step only, or to differentiate the optimum that
the steps lead to. `descend` has them all; `longest_chain` and `saved_bytes` measure what they take.

Shapes: k models side by side that never meet, n rows of each, `(k, n, *event)`; energies `(k, n)`.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from ebmref.checks import check_field, check_not_negative, check_positive, check_whole

WAYS = ("full", "checkpoint", "last", "implicit", "none")


@dataclasses.dataclass(frozen=True)
class Inner:
    """K steps down an energy:

        v <- v - u / sqrt(1 + |u|^2 / bound^2) + noise,   u = size * grad E,

    so that no step is longer than the bound, however steep E is; short ones and the fixed points
    are those of plain descent. The noise makes it Langevin's at a temperature, N(0, 2 size t).

    Attributes:
        n_steps: K.
        bound: > 0, of a row's step.
        temperature: 0 for descent. Only scenes and masks are sampled; codes descend.
        differentiate: how gradients pass through the steps:

            - "full": through all of them; memory and depth grow as K.
            - "checkpoint": the same gradients up to rounding; each step is made anew when its turn
              comes, so that only one step's graph is held at a time.
            - "last": through the last step alone, as if what it started from were given.
            - "implicit": as if the steps had ended in an optimum: dv = -H^+ d(grad E), H the
              Hessian there. Directions without curvature are held. Step sizes get no gradient.
            - "none": not at all.

    Raises:
        ValueError: a field out of range.
    """

    n_steps: int = 5
    differentiate: str = "full"
    bound: float = 1.0
    temperature: float = 0.0

    def __post_init__(self):
        check_whole(self, 1, "n_steps")
        check_field(self, "differentiate", f"one of {', '.join(WAYS)}", lambda v: v in WAYS)
        check_positive(self, "bound")
        check_not_negative(self, "temperature")
        if self.temperature and self.differentiate == "implicit":
            raise ValueError("temperature: expected 0 with implicit, which is about an optimum")


def descend(
    energy: Callable[..., Tensor],
    start: Tensor,
    size: Tensor,
    inputs: tuple[Tensor, ...],
    inner: Inner,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """K steps down `energy(v, *inputs)` from `start`.

    Args:
        energy: `(k, n, *event), *inputs` to `(k, n)`.
        start: `(k, n, *event)`.
        size: of the steps; broadcasts with `start`.
        inputs: all else that the energy depends on and gradients are wanted for.
        inner: how many steps, and how they are differentiated.
        generator: of the noise.

    Returns:
        The states after each step; with "last" and "implicit" only the last.

    Raises:
        ValueError: a temperature without a generator.
        RuntimeError: in inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "energy: steps down it need gradients; use torch.no_grad(), not inference"
        )
    if inner.temperature and generator is None:
        raise ValueError("generator: expected one, since the temperature is not 0")
    event = tuple(range(2, start.dim()))

    def slope(v: Tensor, *inputs: Tensor, create_graph: bool) -> Tensor:
        (gradient,) = torch.autograd.grad(energy(v, *inputs).sum(), v, create_graph=create_graph)
        return gradient

    def step(v: Tensor, noise: Tensor | None, size: Tensor, *inputs: Tensor, create_graph=False):
        with torch.enable_grad():
            if not v.requires_grad:
                v = v.detach().requires_grad_()
            u = slope(v, *inputs, create_graph=create_graph)
        u = size * u
        long = u.square().sum(event, keepdim=True) / inner.bound**2
        v = v - u * torch.rsqrt(1 + long)
        return v if noise is None else v + noise * (2 * inner.temperature * size).sqrt()

    def noise() -> Tensor | None:
        if not inner.temperature:
            return None
        return torch.randn(start.shape, generator=generator, device=start.device, dtype=start.dtype)

    def free(v: Tensor, n_steps: int) -> list[Tensor]:
        """Start and steps, without a graph."""
        path = [v.detach()]
        with torch.no_grad():
            held, known = size.detach(), [part.detach() for part in inputs]
            for _ in range(n_steps):
                path.append(step(path[-1], noise(), held, *known))
        return path

    way, n_steps = inner.differentiate, inner.n_steps
    if way == "none":
        return free(start, n_steps)[1:]
    if way == "last":
        v = free(start, n_steps - 1)[-1]
        return [step(v, noise(), size, *inputs, create_graph=True)]
    if way == "implicit":
        return [_Implicit.apply(slope, free(start, n_steps)[-1], *inputs)]
    path = [start]
    for _ in range(n_steps):
        if way == "full":
            path.append(step(path[-1], noise(), size, *inputs, create_graph=True))
        else:
            path.append(_Recomputed.apply(step, path[-1], noise(), size, *inputs))
    return path[1:]


class _Recomputed(torch.autograd.Function):
    """A step that is forgotten, and made once more for its gradient."""

    @staticmethod
    def forward(ctx, step, v, noise, *inputs):
        ctx.step, ctx.noise = step, noise
        ctx.save_for_backward(v, *inputs)
        return step(v.detach(), noise, *(part.detach() for part in inputs)).detach()

    @staticmethod
    def backward(ctx, gradient):
        needed = [ctx.needs_input_grad[1], *ctx.needs_input_grad[3:]]
        v, *inputs = _leaves(ctx.saved_tensors, needed)
        with torch.enable_grad():
            after = ctx.step(v, ctx.noise, *inputs, create_graph=True)
        v, *rest = _gradients(after, [v, *inputs], needed, gradient)
        return None, v, None, *rest


class _Implicit(torch.autograd.Function):
    """The identity at an optimum v, whose gradient is that of v as a function of the inputs."""

    @staticmethod
    def forward(ctx, slope, v, *inputs):
        ctx.slope = slope
        ctx.save_for_backward(v, *inputs)
        return v.clone()

    @staticmethod
    def backward(ctx, gradient):
        needed = list(ctx.needs_input_grad[2:])
        v, *inputs = _leaves(ctx.saved_tensors, [True, *needed])
        with torch.enable_grad():
            slope = ctx.slope(v, *inputs, create_graph=True)
            rows = [
                torch.autograd.grad(row.sum(), v, retain_graph=True)[0].flatten(2)
                for row in slope.flatten(2).unbind(-1)
            ]
        hessian = torch.stack(rows, -2)
        values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.mT))
        size = values.abs()
        floor = 10 * torch.finfo(v.dtype).eps ** 0.5 * size.amax(-1, keepdim=True)
        inverse = torch.where(size > floor, 1 / values, 0.0)
        move = vectors @ (inverse[..., None] * (vectors.mT @ gradient.flatten(2)[..., None]))
        return None, None, *_gradients(slope, inputs, needed, -move.view_as(slope))


def _leaves(tensors: Iterable[Tensor], needed: list[bool]) -> list[Tensor]:
    return [t.detach().requires_grad_(need) for t, need in zip(tensors, needed, strict=True)]


def _gradients(
    output: Tensor, inputs: list[Tensor], needed: list[bool], gradient: Tensor
) -> list[Tensor | None]:
    wanted = [part for part, need in zip(inputs, needed, strict=True) if need]
    if not wanted:
        return [None] * len(inputs)
    found = iter(torch.autograd.grad(output, wanted, gradient, allow_unused=True))
    return [next(found) if need else None for need in needed]


# --- what it costs ---------------------------------------------------------------------

# What a node of the graph is called that multiplies by a matrix.
PRODUCTS = ("MmBackward0", "AddmmBackward0", "BmmBackward0", "BaddbmmBackward0")


def longest_chain(output: Tensor) -> int:
    """The longest chain of matrix products from any leaf to `output`, in its autograd graph.

    It is the depth of the computation: products in a chain must wait for one another. Nodes that
    hide their work, as those of a checkpoint do, count as nothing.

    Raises:
        ValueError: an output that has no graph.
    """
    root = output.grad_fn
    if root is None:
        raise ValueError("output: expected a tensor that was computed with gradients")
    length: dict = {}
    stack = [root]
    while stack:
        node = stack[-1]
        if node in length:
            stack.pop()
            continue
        before = [parent for parent, _ in node.next_functions]
        waiting = [parent for parent in before if parent is not None and parent not in length]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        product = node.name() in PRODUCTS
        # What is only added to a product need not wait for it.
        added = node.name() in ("AddmmBackward0", "BaddbmmBackward0")
        length[node] = max(
            (
                length.get(parent, 0) + (product and not (added and i == 0))
                for i, parent in enumerate(before)
            ),
            default=0,
        )
    return length[root]


class SavedBytes:
    """Bytes that graphs hold for their backward pass: `now`, and the most there were, `peak`.

    A storage counts once, however many nodes hold it; those of parameters count, too.
    """

    def __init__(self):
        self.now = self.peak = 0
        self._held: Counter[int] = Counter()

    def _take(self, tensor: Tensor) -> "_Saved":
        return _Saved(self, tensor.detach())


class _Saved:
    """One tensor held by one node; it leaves the count when the node lets go."""

    def __init__(self, count: SavedBytes, tensor: Tensor):
        self.count, self.tensor = count, tensor
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        count._held[self.key] += 1
        if count._held[self.key] == 1:
            count.now += self.size
            count.peak = max(count.peak, count.now)

    def __del__(self):
        self.count._held[self.key] -= 1
        if not self.count._held[self.key]:
            self.count.now -= self.size


@contextlib.contextmanager
def saved_bytes() -> Iterator[SavedBytes]:
    """Count what graphs hold: those made inside, backward passes included, which must run inside,
    too, to be seen."""
    count = SavedBytes()
    with torch.autograd.graph.saved_tensors_hooks(count._take, lambda saved: saved.tensor):
        yield count
