"""What it costs to learn through a descent: depth, work, memory, and whether the gradient is right.

    Depth, depth          longest chains of matrix products, counted in the graph
    products              multiplications of whatever a call does, backward passes included
    steps_of_a_scene      those of a step of inference, over a forward pass
    Price, price          what one learning step holds, computes and takes
    end_loss, gradient    the loss of where the steps end, and its gradient
    against_differences   the gradient held against central differences
    Agreement, agreement  a cheaper gradient held against the full one

Shapes: k networks side by side, n tasks of each.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils._python_dispatch import TorchDispatchMode

from ebmref import concepts
from ebmref.concepts.scenes import Tasks, attended
from ebmref.concepts.unrolling import Inner, longest_chain, saved_bytes

WAYS = ("full", "checkpoint", "last", "implicit")


# Depth and work ----------------------------------------------------------------------------------


class Depth(NamedTuple):
    """Longest chains of matrix products.

    Attributes:
        energy: of one evaluation.
        one: of the descent that finds a code.
        all: of the loss: a code, then a scene and a mask side by side.
    """

    energy: int
    one: int
    all: int


def depth(model: concepts.Energy, tasks: Tasks, n_steps: int) -> Depth:
    """Counted in the graphs that learning differentiates, for so many steps of each descent."""
    inner = Inner(n_steps)
    group, s, _ = attended(tasks.query.end, tasks.query.mask)
    w = group.new_zeros(*group.shape[:2], model.code)
    code = concepts.infer_code(model, tasks.demos, inner)[-1]
    loss = sum(concepts.truth_loss(model, tasks, concepts.Recipe(inner)))
    ends = (model(group, s, w), code, loss)
    return Depth(*(longest_chain(end.sum()) for end in ends))


class _Products(TorchDispatchMode):
    """Counts the multiplications of matrix products, backward or not."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.count += args[0].numel() * args[1].shape[-1]
        elif name in ("addmm", "baddbmm"):
            self.count += args[1].numel() * args[2].shape[-1]
        return func(*args, **(kwargs or {}))


def products(work: Callable[[], object]) -> int:
    """Multiplications in matrix products while it works."""
    with _Products() as counter:
        work()
    return counter.count


class Step(NamedTuple):
    """Multiplications of one step of a scene, over those of one evaluation of its energy.

    Attributes:
        used: where the step is only made.
        learned: where the weights' gradient goes through it as well.
    """

    used: float
    learned: float


def steps_of_a_scene(model: concepts.Energy, tasks: Tasks) -> Step:
    """What one more step costs: from the first to the second, and from the second to the third."""
    query = tasks.query
    w = query.start.new_zeros(*query.start.shape[:2], model.code)
    group, s, _ = attended(query.start, query.mask)

    def used(n_steps: int) -> None:
        concepts.infer_scene(model, query.start, query.mask, w, Inner(n_steps, "none"))

    def learned(n_steps: int) -> None:
        x = concepts.infer_scene(model, query.start, query.mask, w, Inner(n_steps))[-1]
        torch.autograd.grad(x.sum(), list(model.parameters()), allow_unused=True)

    with torch.no_grad():
        evaluation = products(lambda: model(group, s, w))
    made = products(lambda: used(2)) - products(lambda: used(1))
    taught = products(lambda: learned(3)) - products(lambda: learned(2))
    return Step(made / evaluation, taught / evaluation)


# What a learning step takes ----------------------------------------------------------------------


class Price(NamedTuple):
    """Of one learning step, forward and backward.

    Attributes:
        saved: the most that graphs hold at any one time for their backward pass, MiB.
        work: multiplications in matrix products.
        seconds: the least of several tries.
    """

    saved: float
    work: int
    seconds: float


def price(model: concepts.Energy, tasks: Tasks, inner: Inner, tries: int = 3) -> Price:
    """Of the report's loss, with so many steps that are differentiated in such a way."""

    def learning_step() -> None:
        recipe = concepts.Recipe(inner)
        generated, identified = concepts.truth_loss(model, tasks, recipe)
        loss = recipe.generate * generated + recipe.identify * identified
        # Step sizes get no gradient from an optimum.
        torch.autograd.grad(loss.sum(), list(model.parameters()), allow_unused=True)

    with saved_bytes() as saved:
        work = products(learning_step)
    seconds = []
    for _ in range(tries):
        begun = time.perf_counter()
        learning_step()
        seconds.append(time.perf_counter() - begun)
    return Price(saved.peak / 2**20, work, min(seconds))


def unevenness(values: dict[int, float], *spans: tuple[int, int]) -> float:
    """By what share the slopes of a curve differ between its spans; 0 of a straight line."""
    rise = [(values[b] - values[a]) / (b - a) for a, b in spans]
    return max(rise) / min(rise) - 1


# Is the gradient right? --------------------------------------------------------------------------


def end_loss(model: concepts.Energy, tasks: Tasks, inner: Inner) -> Tensor:
    """The loss of where the steps end, and of nothing before: summed over tasks, `(k,)`."""
    query = tasks.query
    w = concepts.infer_code(model, tasks.demos, inner)[-1]
    x = concepts.infer_scene(model, query.start, query.mask, w, inner)[-1]
    a = concepts.infer_mask(model, query.end, w, inner)[-1]
    target = query.mask.to(a.dtype)
    found = binary_cross_entropy_with_logits(a, target, reduction="none")
    return (x - query.end).square().sum((1, 2, 3)) + found.sum((1, 2))


def gradient(model: concepts.Energy, tasks: Tasks, inner: Inner) -> Tensor:
    """Of `end_loss` by all weights of each network, step sizes apart: `(k, P)`."""
    slopes = torch.autograd.grad(end_loss(model, tasks, inner).sum(), _weights(model))
    return torch.cat([slope.flatten(1) for slope in slopes], 1)


def _weights(model: concepts.Energy) -> list[Tensor]:
    return [p for name, p in model.named_parameters() if name != "log_steps"]


def against_differences(
    model: concepts.Energy,
    tasks: Tasks,
    inner: Inner,
    generator: torch.Generator,
    h: float = 1e-5,
) -> Tensor:
    """Error of the gradient along a direction, over the gradient's length: `(k,)`.

    The directions are drawn, one for each network; the other side is a central difference of
    `end_loss`, which errs by h^2 times a third of a half of the third derivative.
    """
    found = gradient(model, tasks, inner)
    along = torch.randn(
        found.shape, generator=generator, dtype=found.dtype, device=found.device
    )  # fmt: skip
    along = along / along.norm(dim=1, keepdim=True)
    plain = Inner(inner.n_steps, "none", inner.bound)
    ends = []
    for by in (h, -2 * h):
        _shift(model, by * along)
        ends.append(end_loss(model, tasks, plain).detach())
    _shift(model, h * along)
    difference = (ends[0] - ends[1]) / (2 * h)
    return ((found * along).sum(1) - difference).abs() / found.norm(dim=1)


@torch.no_grad()
def _shift(model: concepts.Energy, by: Tensor) -> None:
    sizes = [p[0].numel() for p in _weights(model)]
    for p, part in zip(_weights(model), by.split(sizes, 1), strict=True):
        p += part.view_as(p)


class Agreement(NamedTuple):
    """A gradient beside the full one, `(k,)` each.

    Attributes:
        cosine: of the angle between the two.
        off: length of the difference over that of the full one.
    """

    cosine: Tensor
    off: Tensor


def agreement(model: concepts.Energy, tasks: Tasks, n_steps: int, way: str) -> Agreement:
    """Of the gradient of `end_loss` that one of the ways gives, see `Inner`."""
    full = gradient(model, tasks, Inner(n_steps))
    other = gradient(model, tasks, Inner(n_steps, way))
    off = (other - full).norm(dim=1) / full.norm(dim=1)
    return Agreement(torch.cosine_similarity(full, other), off)
