"""The No-U-Turn sampler: Hamiltonian Monte Carlo that finds the length of its paths itself.

A path is a run of leapfrog points z = (x, p) about the present one, doubled j = 0, 1, ... times:
with probability 1/2 forward, else backward in time, 2^j points are added to its end. It ends

    where it turns:      p_first . sum p <= 0  or  p_last . sum p <= 0            (1)
    where it diverges:   H - H_0 > 1000,  H(z) = E(x) + |p|^2 / 2                 (2)

over its points, p in units of the root of the mass, or after max_depth doublings. (1) is asked of
the whole path and of each balanced sub-tree of the points to be added, (2) of all points; where a
sub-tree turns or a point diverges, the whole addition is dropped, so that no point is kept from
which this path could not have been grown as well: all points of a path of 2^J points then have the
same probability 2^-J of leading to it, which the law asks for.

The next point is chosen among those of the path with weights w(z) = exp(H_0 - H(z)): within an
addition exactly so, each new leaf taking over with probability w / (sum of w up to it); between
the path and an addition with min(1, sum of w added / sum of w before), which leans to what is far
and leaves the law as it is (Betancourt 2017, appendix A.3.2).

Sources: Hoffman & Gelman 2014 (trees, sub-tree checks, statistic for the step size); Betancourt
2017 (weights, and momentum sums in the place of distances); Phan, Pradhan & Jankowiak 2019, and TFP
(no recursion: a sub-tree that ends at leaf k begins at an even one, and of those only O(log k) are
still open). (2) is Stan's, from the present point's H_0, so that two points of a path may differ on
it where an error lies between 1000 and 1000 + what their H differ by: at a wall never, else too
seldom to be seen in the law. The same for all points, max H - min H > 1000, would stop every path
that falls from a far start. Stan's further checks across the halves of a tree are not made.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref.checks import whole_number
from ebmref.energies import Energy, value_and_gradient
from ebmref.samplers.kernels import Kernel, Slope, hmc, per_chain
from ebmref.samplers.noise import draw_doublings

# Energy error at which a path is given up, as in Stan.
_DIVERGED = 1000.0
_DEEPEST = 10


class Counted(NamedTuple):
    """Where the chains are, and what they did since the start, `(n,)` each.

    Attributes:
        n_leapfrog: points of a chain's own paths.
        n_gradients: gradients that the energy was asked for. All chains' paths grow side by side
            until the last has ended, so it is that of the longest path, the same for all.
        n_divergent: paths that ended in a divergence, a wall among them.
    """

    x: Tensor
    energy: Tensor
    gradient: Tensor
    n_leapfrog: Tensor
    n_gradients: Tensor
    n_divergent: Tensor


class _Point(NamedTuple):
    """An end of a path, events as rows: `(n, d)` each; momentum over the root of the mass."""

    x: Tensor
    momentum: Tensor
    gradient: Tensor


class _Tree(NamedTuple):
    """Points added to a path.

    Attributes:
        end: the last of them.
        choice, log_weight: one of them, chosen by weight, events as rows, and log of the sum of
            all weights `(n,)`.
        momenta: their sum, `(n, d)`.
        whole: `(n,)`, whether it is complete: all points made, none diverged, none turned.
    """

    end: _Point
    choice: Slope
    log_weight: Tensor
    momenta: Tensor
    whole: Tensor


class _Tally:
    """Sums over the leaves of one step, `(n,)` each; `calls` is a number."""

    def __init__(self, start_energy: Tensor):
        self.start = start_energy
        self.acceptance = torch.zeros_like(start_energy)
        self.leaves = torch.zeros_like(start_energy, dtype=torch.int64)
        self.divergent = torch.zeros_like(self.leaves)
        self.calls = 0

    def add(self, energy: Tensor, growing: Tensor) -> tuple[Tensor, Tensor]:
        """Take in a leaf; its log weight, and the chains that go on."""
        log_weight = self.start - energy
        lost = growing & ~((log_weight >= -_DIVERGED) & (log_weight < math.inf))  # NaN too
        # A wall and a NaN are never accepted; a path that has ended does not count.
        probability = log_weight.clamp(max=0).exp().nan_to_num(0.0)
        self.acceptance = self.acceptance + probability.where(growing, 0)
        self.leaves = self.leaves + growing
        self.divergent = self.divergent + lost
        self.calls += 1
        return log_weight, growing & ~lost


def nuts(
    energy: Energy, step_size: float, max_depth: int = 8, mass: float | Tensor = 1.0
) -> Kernel:
    """No-U-Turn sampler: fresh momentum, a path doubled until it turns, a point of it by weight.

    The acceptance that a step reports, and `target_acceptance` aims at, is the mean of
    min(1, exp(H_0 - H)) over the path's points but the first; 0.8 is a good aim. The number of
    gradients a step varies: `Chain.n_gradients` is what was spent, and `Chain.counts` tells
    each chain's leapfrog steps and divergences.

    All chains grow their paths side by side and wait for the longest, which no graph can hold: with
    `compile=True` it goes on without, and a warning says so.

    Args:
        energy: `(n, *event) -> (n,)`, differentiable.
        step_size: of the leapfrog, > 0.
        max_depth: doublings at most, 1 to 10; a step makes 2**max_depth - 1 leapfrog steps or less,
            and draws half as many uniform numbers.
        mass: > 0, a number, or a tensor or array that broadcasts to `(*event)`: a diagonal.

    Raises:
        ValueError: one of these out of range; by `sample`, a mass that does not fit the event.
    """
    max_depth = whole_number("max_depth", max_depth, 1)
    if max_depth > _DEEPEST:
        raise ValueError(f"max_depth: expected an integer <= {_DEEPEST}; got {max_depth}")
    path = hmc(energy, step_size, 1, mass)  # checks what the two have in common
    _, mass = path.init.args
    return path._replace(
        name="nuts",
        init=functools.partial(_init, path.init),
        draw=functools.partial(draw_doublings, max_depth),
        step=functools.partial(_step, energy, max_depth, mass),
        n_gradients=2**max_depth - 1,
        n_noise=1 + 2 * max_depth + 2 ** (max_depth - 1),  # for an event of one number: the most
    )


def _init(init, x, generator):
    state = init(x, generator)
    zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return Counted(*state, zero, zero, zero)


def _step(energy, max_depth, mass, state, noise, step_size):
    momentum, u = noise
    # Of uniform numbers two rows are for each doubling, direction and choice. The others are a
    # leaf's, and serve all additions: the point that comes out is in one of them, in which does not
    # depend on these numbers, and what the others would have led to is forgotten.
    directions, choices, among = (
        u[:max_depth],
        *u[max_depth:].neg().log1p().split((max_depth, len(u) - 2 * max_depth)),
    )
    n, event = len(state.x), state.x.shape[1:]
    if isinstance(mass, Tensor):
        mass = mass.to(momentum).expand(event).reshape(1, -1)
    step_size = step_size / mass**0.5

    x, momentum, gradient = (part.reshape(n, -1) for part in (state.x, momentum, state.gradient))
    first = last = _Point(x, momentum, gradient)
    choice = Slope(x, state.energy, gradient)
    tally = _Tally(_hamiltonian(state.energy, momentum))
    log_weight = torch.zeros_like(state.energy)
    momenta = momentum
    going = torch.ones_like(log_weight, dtype=torch.bool)
    for depth in range(max_depth):
        forward = directions[depth] < 0.5
        sign = torch.where(forward, 1.0, -1.0).to(x)[:, None]
        end = _where(forward, last, first)
        tree = _grow(energy, event, end, sign * step_size, 2**depth, among, going, tally)
        going = tree.whole
        taken = going & (choices[depth] <= tree.log_weight - log_weight)
        choice = _where(taken, tree.choice, choice)
        log_weight = log_weight.logaddexp(tree.log_weight)
        first = _where(going & ~forward, tree.end, first)
        last = _where(going & forward, tree.end, last)
        momenta = momenta + tree.momenta
        going = going & ~_turns(first.momentum, last.momentum, momenta)
        if not going.any():
            break
    moved = Counted(
        choice.x.view_as(state.x),
        choice.energy,
        choice.gradient.view_as(state.x),
        state.n_leapfrog + tally.leaves,
        state.n_gradients + tally.calls,
        state.n_divergent + tally.divergent,
    )
    return moved, tally.acceptance / tally.leaves


def _grow(energy, event, point, step, n_leaves, among, growing, tally) -> _Tree:
    """Add n_leaves points to the paths of the growing chains; the others stand still.

    Args:
        point: the ends to go on from.
        step: step size with sign, `(n, 1)` or `(n, d)`.
        among: `(n_leaves or more, n)`, logs of uniform numbers to choose a leaf by.
    """
    momenta = torch.zeros_like(point.momentum)
    log_weight = torch.full_like(tally.start, -math.inf)
    choice = None
    opened = {}
    for leaf in range(n_leaves):
        half = torch.addcmul(point.momentum, step, point.gradient, value=-0.5)
        x = torch.where(growing[:, None], torch.addcmul(point.x, step, half), point.x)
        value, gradient = value_and_gradient(energy, x.view(-1, *event))
        gradient = gradient.reshape(x.shape)
        momentum = torch.addcmul(half, step, gradient, value=-0.5)
        point = _Point(x, momentum, gradient)
        log_w, growing = tally.add(_hamiltonian(value, momentum), growing)

        log_weight = log_weight.logaddexp(log_w)
        here = Slope(x, value, gradient)
        choice = here if leaf == 0 else _where(among[leaf] <= log_w - log_weight, here, choice)

        before, momenta = momenta, momenta + momentum
        if leaf % 2 == 0:
            opened[leaf.bit_count()] = momentum, before
        for begin in _ending(leaf):
            opening, before = opened[begin.bit_count()]
            growing = growing & ~_turns(opening, momentum, momenta - before)
        if not growing.any():
            break
    return _Tree(point, choice, log_weight, momenta, growing)


def _ending(leaf: int):
    """The first leaves of the balanced sub-trees of two leaves or more that end at this one.

    One for each 1 at the low end of its number: 7 = 111 ends 6..7, 4..7 and 0..7. A first leaf is
    kept under the number of its ones, until another of so many follows: then all is closed that
    began with it.
    """
    size = 2
    while leaf % size == size - 1:
        yield leaf + 1 - size
        size *= 2


def _turns(opening: Tensor, closing: Tensor, momenta: Tensor) -> Tensor:
    """Equation (1), `(n,)`; a NaN turns."""
    return ~(((opening * momenta).sum(1) > 0) & ((closing * momenta).sum(1) > 0))


def _hamiltonian(energy: Tensor, momentum: Tensor) -> Tensor:
    return torch.add(energy, momentum.square().sum(1), alpha=0.5)


def _where(condition: Tensor, one, other):
    """One tuple's parts where the condition `(n,)` holds, the other's elsewhere."""
    return type(one)(
        *(torch.where(per_chain(condition, a), a, b) for a, b in zip(one, other, strict=True))
    )
