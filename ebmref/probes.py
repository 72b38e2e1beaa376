"""Probing calls: what a sampler relies on in an energy, tried at a few points before it runs.

An energy is a promise: a function of the point alone, that a point's place in the batch does not
enter, with a slope to follow and, where it brings a gradient of its own, the right one. A chain
that runs on a broken promise gives numbers that look like any others. Each probe costs a few
calls, once, and leaves the global CPU generator as it was.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ebmref.energies import Energy, check_energy, value_and_gradient

# Points probed, so that the start of a chain stays cheap: few for a gradient; more for the place
# in the batch, where models may have dozens of rows each.
_FEW, _ROWS = 8, 512
# As many points as no layer of a network has units.
_PRIME = 13


def nearby(x: Tensor) -> Tensor:
    """Points about those of x `(n, *event)`, a tenth of 1 + |x| away; the same at every call."""
    generator = torch.Generator(x.device).manual_seed(0)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return x + 0.1 * (1 + x.abs()) * noise


def agree(one: Tensor, two: Tensor, tolerance: float | None = None) -> bool:
    """Whether two tensors of one shape hold the same numbers up to rounding.

    Args:
        tolerance: of their difference, over 1 + the largest finite number; None for the square
            root of the coarser dtype's unit, autocast's included.
    """
    if tolerance is None:
        dtypes = [part.dtype for part in (one, two) if part.is_floating_point()]
        if torch.is_autocast_enabled(one.device.type):
            dtypes.append(torch.get_autocast_dtype(one.device.type))
        tolerance = max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0) ** 0.5
    size = 1 + torch.where(two.isfinite(), two, 0).abs().amax() if two.numel() else 1
    same = (one == two) | (one.isnan() & two.isnan()) | ((one - two).abs() <= tolerance * size)
    return bool(same.all())


def check_gradient(energy: Energy, x: Tensor) -> None:
    """Hold the energy's own `value_and_gradient`, where it has one, against the energy itself.

    By autograd; where that gives nothing, by a difference along one direction. A point at which
    either side is not finite says nothing, and near a kink of the energy either side is right,
    so that points near those of x are asked before x.

    Args:
        energy: `(n, *event) -> (n,)`.
        x: `(n, *event)`, inside the support.

    Raises:
        ValueError: values or gradients of wrong shape, or that are not the energy's.
    """
    analytic = getattr(energy, "value_and_gradient", None)
    if analytic is None:
        return
    with torch.random.fork_rng(devices=[]):
        few = x[:_FEW] if _takes(energy, x[:_FEW]) else x
        for points in (nearby(few), few):
            if _is_compared(energy, analytic, points):
                return


def _is_compared(energy: Energy, analytic: Callable, x: Tensor) -> bool:
    """Compare at these points; False where there was nothing to compare."""
    value, gradient = analytic(x)
    for name, got, shape in (("value", value, x.shape[:1]), ("gradient", gradient, x.shape)):
        if not isinstance(got, Tensor) or got.shape != shape:
            kind = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            raise ValueError(
                f"energy: expected a {name} of shape {tuple(shape)} from its value_and_gradient; "
                f"got {kind}"
            )
    with torch.no_grad():
        own = energy(x)
    if not isinstance(own, Tensor) or own.shape != value.shape:
        check_energy(own, len(x))
    value, gradient = value.detach(), gradient.detach()
    if not agree(value, own):
        raise ValueError("energy: expected the value of its value_and_gradient to be its own")
    try:
        _, right = value_and_gradient(lambda x: energy(x), x)
        tolerance = torch.finfo(right.dtype).eps ** (1 / 3)
    except (ValueError, RuntimeError):
        way = nearby(x) - x
        with torch.no_grad():
            right = (energy(x + 0.05 * way) - energy(x - 0.05 * way)) / 0.1
        gradient, tolerance = (gradient * way).reshape(len(x), -1).sum(1), 0.1
    known = own.isfinite()
    for part in (gradient, right):
        known &= part.reshape(len(part), -1).isfinite().all(1)
    if not agree(gradient[known], right[known], tolerance):
        raise ValueError(
            "energy: expected the gradient of its value_and_gradient to be that of its values; "
            "they differ by up to "
            f"{float((gradient[known] - right[known]).abs().amax()):.3g} near the start"
        )
    return bool(known.any())


def check_slope(value: Tensor, gradient: Tensor) -> None:
    """Raise ValueError where an energy is finite and its gradient is not.

    No step by the gradient leaves such a point, and a chain that starts there stays for ever.

    Args:
        value: `(n,)`, the energies of a start.
        gradient: `(n, *event)`.
    """
    lost = value.isfinite() & ~gradient.reshape(len(value), -1).isfinite().all(1)
    if lost.any():
        raise ValueError(
            f"x0: the gradient of its energy is not finite in {int(lost.sum())} of {len(value)} "
            "chains, which could never move; expected a start where the energy has a slope"
        )


def repeats(energy: Energy, x: Tensor, value: Tensor) -> bool:
    """Whether the energy of x is `value` when asked again: one with dropout throws dice."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return agree(energy(x), value)


def stands_alone(energy: Energy, x: Tensor) -> bool:
    """Whether a point's energy is its own: the same in another place, in a shorter batch.

    Models side by side, each with its rows of the batch, are not so, nor are batch statistics.
    Where the energy throws dice there is no telling, and the answer is yes.

    Args:
        energy: `(n, *event) -> (n,)`; one that refuses the batch does not stand alone.
        x: `(n, *event)`.
    """
    rows = x[:_ROWS]
    points = torch.cat([rows, nearby(rows)])
    order = torch.arange(len(points), device=x.device).flip(0)[: max(1, len(points) * 3 // 4)]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        if not _takes(energy, points) or not _takes(energy, points[order]):
            return False
        whole, part = energy(points), energy(points[order])
        return agree(part, whole[order]) or not agree(energy(points), whole)


def stands_in_rows(energy: Energy, x: Tensor) -> bool:
    """Whether a point's energy is its own where each chain asks for several points, in a row.

    It is for models side by side, each with its part of the batch: the parts stay in order. With
    batch statistics it is not. Where the energy throws dice the answer is yes.

    Args:
        energy: `(n, *event) -> (n,)`.
        x: `(n, *event)`.
    """
    rows = torch.stack([x, nearby(x)], 1)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        if not _takes(energy, rows.flatten(0, 1)):
            return False
        among = energy(rows.flatten(0, 1)).view(-1, 2)
        alone = torch.stack([energy(part) for part in rows.unbind(1)], 1)
        return agree(among, alone) or not agree(energy(x), alone[:, 0])


def widest(energy: Energy, x: Tensor) -> int:
    """The most numbers that an energy makes of one point on its way: its widest layer.

    Args:
        energy: `(n, *event) -> (n,)`, of each point alone.
        x: `(n, *event)`, a dozen points or more.
    """
    few = x[:_PRIME]
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _Widths(len(few)) as widths:
        energy(few)
    return widths.widest


class _Widths(TorchDispatchMode):
    """Looks at what every operator gives for a batch of n points."""

    def __init__(self, n: int):
        super().__init__()
        self.n, self.widest = n, 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor) and one.shape[:1] == (self.n,):
                self.widest = max(self.widest, one.numel() // self.n)
        return out


def _takes(energy: Energy, x: Tensor) -> bool:
    """Whether the energy takes a batch of this size."""
    try:
        with torch.no_grad():
            return energy(x).shape == x.shape[:1]
    except Exception:
        return False
