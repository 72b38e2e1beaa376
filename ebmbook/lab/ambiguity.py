"""Unpaired translation is ambiguous: the solutions that can be counted, and where trainings end.

A map G that takes the law of A to that of B stays one after any automorphism of A's law, and its
inverse F goes along (Moriakov, Adler and Teuwen 2020):

    F(G(x)) = x   and   G(a) ~ b     imply     s^-1(F(G(s(x)))) = x   and   G(s(a)) ~ b

    on the line      two intervals with densities: exactly two, one up and one down
    in the plane     equal Gaussians at the corners of a regular m-gon: 2m linear ones, its
                     rotations and mirrors, and bent ones beyond number

In `train` k pairs of small networks play `translation.Game` side by side, from the same weights and
with the same batches by every recipe; `ends_on_line` and `ends_in_plane` say where each ended.

A plain start is symmetric: the weights have the same law after a change of sign or an exchange of
coordinates of A, and neither Adam nor the adversarial and the cycle loss notice it. If A's law has
that symmetry too, trainings are as likely to end at G as at G after the symmetry: at either of the
two on the line, at each of the eight of the square. That is exact, after any number of steps. It is
not so of a start near the identity, the identity loss and the travel loss, which compare A with B.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmbook.rates import Rate
from ebmref import training
from ebmref.gan import leaky
from ebmref.networks import Networks
from ebmref.seeds import derive_seed
from ebmref.translation import Game, Players, translate
from ebmref.translation import Recipe as Settings
from ebmref.translation.losses import distance

# What can be counted ------------------------------------------------------------------------------


def line_solutions(
    cdf: Callable[[Tensor], Tensor], quantile: Callable[[Tensor], Tensor]
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The two injective continuous maps of a law on an interval to another: increasing, decreasing.

    An injective continuous map of an interval is monotone, and then the laws leave no choice.

    Args:
        cdf: F of the first law, which has a density on an interval.
        quantile: Q of the second, from (0, 1).
    """
    return lambda x: quantile(cdf(x)), lambda x: quantile(1 - cdf(x))


def fold(x: Tensor, n: int) -> Tensor:
    """The zigzag of n straight branches, which takes U(0, 1) to itself; of two, 1 - |2x - 1|.

    Args:
        x: in [0, 1].
        n: branches, >= 1; one is the identity.
    """
    place = n * x
    turn = place.floor().clamp(max=n - 1)
    along = place - turn
    return torch.where(turn % 2 == 0, along, 1 - along)


def unfolding_error(n: int) -> float:
    """The least E|x - F(G(x))| of any F, for G = `fold` of n branches and x from U(0, 1).

    F can know no more than the n equally likely points that share an image, and the median of
    them is best: 1/4 for even n, (n^2 - 1) / (4 n^2) for odd n.
    """
    return 0.25 * (1 - n % 2 / n**2)


def corners(m: int, angle: float = 0.0, radius: float = 2.0) -> Tensor:
    """Corners of a regular m-gon, `(m, 2)`, turned by an angle in radians.

    The first lies half a step off the first axis, so that a square of angle 0 has its sides along
    the axes.
    """
    at = angle + (torch.arange(m) + 0.5) * 2 * math.pi / m
    return radius * torch.stack([at.cos(), at.sin()], 1)


def dihedral(m: int) -> Tensor:
    """Where the symmetries of a regular m-gon take its corners, `(2m, m)`.

    Row j < m is the rotation by j corners, i to i + j; row m + j a mirror, i to j - i.
    """
    i, j = torch.arange(m), torch.arange(m)[:, None]
    return torch.cat([(i + j) % m, (j - i) % m])


def linear_permutations(m: int) -> Tensor:
    """Permutations of the corners that some linear map makes, by trial of all, `(number, m)`.

    One that takes equal round Gaussians at the corners to themselves keeps all distances.
    """
    points = corners(m).double()
    apart = torch.cdist(points, points)
    every = torch.tensor(list(itertools.permutations(range(m))))
    turned = apart[every[:, :, None], every[:, None]]
    return every[(turned - apart).abs().amax((1, 2)) < 1e-4]


# Laws ---------------------------------------------------------------------------------------------


class Laws(NamedTuple):
    """A and B, without a partner for anybody.

    Attributes:
        a, b: draws, `(n, d)`, of separate streams.
        modes_a, modes_b: `(m, 2)`, means of the Gaussians in the plane; None on the line. The
            pairing that is called true takes each to the one of the same number.
        spread: standard deviation of the Gaussians.
    """

    a: Tensor
    b: Tensor
    modes_a: Tensor | None = None
    modes_b: Tensor | None = None
    spread: float = 0.25


def line(seed: int, *, n: int = 4096) -> Laws:
    """A and B are U(-1, 1), for the truth T(x) = x as for T(x) = -x: no data can tell the two."""
    return Laws(*(2 * torch.rand(n, 1, generator=_source(seed, name)) - 1 for name in ("a", "b")))


def polygon(
    seed: int, angle: float, *, m: int = 4, weights: tuple[float, ...] | None = None,
    spread: float = 0.25, n: int = 4096,
) -> Laws:  # fmt: skip
    """Gaussians at the corners of a regular m-gon; those of B are turned by an angle, in radians.

    With equal weights a truth that turns by 2 pi / m more gives the very same B.

    Args:
        weights: of the m modes, the same in A and B; None for equal ones.
    """
    share = torch.tensor(weights or [1 / m] * m)

    def drawn(modes: Tensor, name: str) -> Tensor:
        draws = _source(seed, name)
        which = torch.multinomial(share, n, replacement=True, generator=draws)
        return modes[which] + spread * torch.randn(n, 2, generator=draws)

    modes_a, modes_b = corners(m), corners(m, angle)
    return Laws(drawn(modes_a, "a"), drawn(modes_b, "b"), modes_a, modes_b, spread)


def _source(seed: int, stream: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, f"ambiguity-{stream}"))


# Training -----------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """Weights beside the adversarial loss, whether translators start near the identity, and whether
    one S reads A and B; else its first layer is of each its own, as in the authors' code.
    """

    cycle: float = 0.0
    identity: float = 0.0
    travel: float = 0.0
    near: bool = False
    one_reader: bool = False


RECIPES = {
    "adversarial": Recipe(),
    "cycle": Recipe(cycle=3.0),
    "identity": Recipe(cycle=3.0, identity=1.5),
    "travel": Recipe(travel=1.0),
    "travel, one S": Recipe(travel=1.0, one_reader=True),
    "near": Recipe(near=True),
    "near, cycle": Recipe(cycle=3.0, near=True),
}
# Dimensions of the space of the siamese net, and the margin between squared differences there.
DIMS, MARGIN = 8, 0.5


class Map(nn.Module):
    """k perceptrons, `(k, n, a)` to `(k, n, b)`; `flat`, of a discriminator, to `(k, n)`.

    `near` adds the input, and has the last layer start ten times smaller.
    """

    def __init__(self, sizes, n_models, generator, *, near=False, flat=False):
        super().__init__()
        self.net, self.near, self.flat = Networks(sizes, n_models, generator, leaky), near, flat
        if near:
            for last in (self.net.weights[-1], self.net.biases[-1]):
                last.detach().mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        return y.squeeze(-1) if self.flat else x + y if self.near else y


def train(
    laws: Laws, recipe: Recipe, n_models: int, n_steps: int, seed: int, *, width: int = 32,
    batch: int = 16, learning_rate: float = 4e-3,
) -> Game:  # fmt: skip
    """k trainings side by side, each from its own weights and with its own batches.

    Those of another recipe and the same seed, k and sizes have the same weights, but for the last
    layer of a start near the identity, and the same batches: they are paired.
    """
    draws, d = _source(seed, "weights"), laws.a.shape[1]

    def translator() -> Map:
        return Map((d, width, width, d), n_models, draws, near=recipe.near)

    def judge() -> Map:
        return Map((d, width, width, 1), n_models, draws, flat=True)

    ab, judge_b, ba, judge_a = translator(), judge(), translator(), judge()
    # The last to be drawn, so that the others are the same without it.
    third, other = (
        (Map((d, width, width, DIMS), n_models, draws) for _ in range(2))
        if recipe.travel else (None, None)
    )  # fmt: skip
    if other is not None:
        for i in range(0 if recipe.one_reader else 1, len(other.net.weights)):
            other.net.weights[i], other.net.biases[i] = third.net.weights[i], third.net.biases[i]
    settings = Settings(
        cycle=recipe.cycle, identity=recipe.identity, travel=recipe.travel,
        margin=MARGIN if recipe.travel else 0.0, penalty=0.3, batch=batch,
        learning_rate=(learning_rate, learning_rate), momenta=(0.5, 0.99), anneal_over=n_steps,
    )  # fmt: skip
    game = Game(Players(ab, judge_b, ba, judge_a, third, other), (n_models, d), settings, seed)
    training.bring(game, n_steps, data=(laws.a, laws.b))
    return game


# Where trainings ended ----------------------------------------------------------------------------

# A training has settled where `apart` is at most, and `on` at least; more of `back` is a fold. Of a
# mode that is not divided as large a share has to be at one mode.
APART, ON, BENT = 0.15, 0.9, 0.02
LINE_ENDS = ("increasing", "decreasing", "folded", "not settled")


class LineEnds(NamedTuple):
    """Of k trainings on the line.

    Attributes:
        end: place in `LINE_ENDS`, `(k,)`.
        x, images: a grid of A `(n,)` and G there `(k, n)`.
        apart: W1 between the law of G(a) and B's, `(k,)`; that of U(-1, 1) and a point is 0.5.
        back: share of the way of G that is against its main direction, `(k,)`: 0 where it is
            monotone, at most 1/2.
        cycle: E|F(G(a)) - a|, `(k,)`.
    """

    end: Tensor
    x: Tensor
    images: Tensor
    apart: Tensor
    back: Tensor
    cycle: Tensor


def ends_on_line(game: Game, *, n: int = 400) -> LineEnds:
    """Where each training ended, by its averaged translators on n quantiles of A."""
    k = game.shape[0]
    x = 2 * (torch.arange(n) + 0.5) / n - 1
    images = translate(game.average["ab"], x[:, None].expand(k, n, 1))
    back = translate(game.average["ba"], images)
    return line_ends(x, images[..., 0], back[..., 0])


def line_ends(x: Tensor, images: Tensor, returned: Tensor) -> LineEnds:
    """The same of images `(k, n)` of quantiles x `(n,)` of U(-1, 1), and what F makes of them."""
    apart = (images.sort(1).values - x).abs().mean(1)
    steps = images.diff(dim=1)
    up, down = steps.relu().sum(1), (-steps).relu().sum(1)
    back = torch.minimum(up, down) / (up + down)
    end = (down > up).long()
    end[back > BENT] = 2
    end[~(apart <= APART)] = 3
    return LineEnds(end, x, images, apart, back, (returned - x).abs().mean(1))


class PlaneEnds(NamedTuple):
    """Of k trainings in the plane, m modes.

    Attributes:
        end: `(k,)`, j < 2m for the row j of `dihedral`, 2m for another permutation, 2m + 1 for
            none (two modes on one, or a mode divided), 2m + 2 for not settled.
        points, mode, images: draws of A `(n, 2)`, their modes `(n,)`, and G there `(k, n, 2)`.
        on: share of images within three standard deviations of a mode of B, `(k,)`; of B's own
            draws that is 0.989.
        to: share of the images of each mode of A nearest to each one of B, `(k, m, m)`.
        cycle: mean |F(G(a)) - a| of a coordinate, `(k,)`.
    """

    end: Tensor
    points: Tensor
    mode: Tensor
    images: Tensor
    on: Tensor
    to: Tensor
    cycle: Tensor


def ends_in_plane(laws: Laws, game: Game, *, each: int = 100) -> PlaneEnds:
    """Where each training ended, by its averaged translators on fresh draws of each mode of A."""
    k, m = game.shape[0], len(laws.modes_a)
    mode = torch.arange(m).repeat_interleave(each)
    noise = torch.randn(m * each, 2, generator=_source(0, "judged"))
    points = laws.modes_a[mode] + laws.spread * noise
    images = translate(game.average["ab"], points.expand(k, *points.shape))
    returned = translate(game.average["ba"], images)
    found = plane_ends(images, mode, laws.modes_b, laws.spread)
    return PlaneEnds(found[0], points, mode, images, *found[1:], distance(returned, points))


def plane_ends(
    images: Tensor, mode: Tensor, modes_b: Tensor, spread: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`end`, `on` and `to` of images `(k, n, 2)` of points of modes `(n,)`, see `PlaneEnds`."""
    m = len(modes_b)
    far, nearest = torch.cdist(images, modes_b.to(images)).min(-1)
    on = (far < 3 * spread).float().mean(1)
    share = nn.functional.one_hot(mode, m).float()
    to = (share / share.sum(0)).T @ nn.functional.one_hot(nearest, m).float()
    most, image = to.max(2)
    end = torch.full(on.shape, 2 * m)
    same = (image[:, None] == dihedral(m)).all(2)
    end = torch.where(same.any(1), same.long().argmax(1), end)
    end[(image.sort(1).values != torch.arange(m)).any(1) | (most < ON).any(1)] = 2 * m + 1
    end[~(on >= ON)] = 2 * m + 2
    return end, on, to


def plane_names(m: int) -> list[str]:
    """What the numbers of `PlaneEnds.end` are called."""
    turns = ["as paired", *(f"turned by {j}" for j in range(1, m))]
    return [*turns, *(f"mirror {j}" for j in range(m)), "permuted", "merged", "not settled"]


def interval(hit: Tensor) -> tuple[float, float]:
    """The exact 95 % one (Clopper and Pearson 1934) of the share that is true of `(n,)`."""
    number, of = int(hit.sum()), len(hit)
    return Rate(number, of, number, of).interval


def tail(counts: Tensor) -> float:
    """How often counts `(c,)` of equally likely outcomes are as uneven or more, by chi-square."""
    mean = counts.double().mean()
    half = 0.5 * (counts - mean).square().sum() / mean
    return torch.special.gammaincc(half.new_tensor((len(counts) - 1) / 2), half).item()
