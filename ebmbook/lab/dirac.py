"""The smallest GAN: all data at 0, all samples at theta, and d(x) = psi x (Mescheder et al. 2018).

    Game       which losses, and what was proposed to make them converge
    field      what each player moves along, at points (theta, psi), batched
    advance    one step: both players at once, in turn, or with a look ahead
    play       many games side by side, by the distance from the equilibrium (0, 0)
    search     each rule at its best, over a sweep of steps and strengths

Step sizes and strengths may be tensors that broadcast with the games. In float64.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ebmref import gan

LOSSES = ("saturating", "non-saturating", "Wasserstein")
RULES = ("at once", "in turn", "ahead")
PRICE = {"at once": 1, "in turn": 1, "ahead": 2}  # gradients of a player in one step


@dataclasses.dataclass(frozen=True)
class Game:
    """Losses of the players, at data 0 and samples theta.

    Attributes:
        loss: of the generator, one of `LOSSES`; "Wasserstein" has V = -psi theta for both.
        penalty: gamma of R1, half the squared slope psi of the logit: a number or a tensor.
        noise: standard deviation s of what is added to data and samples alike; the same.
        consensus: c; both players also descend c / 2 times the squared length of the field.

    Raises:
        ValueError: an unknown loss.
    """

    loss: str = "saturating"
    penalty: float | Tensor = 0.0
    noise: float | Tensor | None = None
    consensus: float | Tensor | None = None

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(LOSSES)}; got {self.loss!r}")


def field(game: Game, point: Tensor) -> Tensor:
    """(-dL_G/dtheta, -dL_D/dpsi) at points `(..., 2)`, with consensus if the game has it."""
    if game.consensus is None:
        return _plain(game, point)

    def half_square(at: Tensor) -> Tensor:
        return _plain(game, at).square().sum() / 2  # points do not meet

    push = torch.func.grad(half_square)(point)
    strength = torch.as_tensor(game.consensus, dtype=point.dtype, device=point.device)
    return _plain(game, point) - strength[..., None] * push


def _plain(game: Game, point: Tensor) -> Tensor:
    theta, psi = point.unbind(-1)
    if game.loss == "Wasserstein":
        return torch.stack([psi, -theta - game.penalty * psi], -1)
    if game.noise is None:
        told = (psi * theta).sigmoid()  # D of a sample
        weight = told if game.loss == "saturating" else 1 - told
        return torch.stack([psi * weight, -theta * told - game.penalty * psi], -1)
    nodes, shares = _normal(point)
    at_data = torch.as_tensor(game.noise).to(point)[..., None] * nodes
    at_sample = theta[..., None] + at_data
    told = (psi[..., None] * at_sample).sigmoid()
    weight = told if game.loss == "saturating" else 1 - told
    by_theta = psi * (weight * shares).sum(-1)
    at_data = at_data * (-psi[..., None] * at_data).sigmoid()
    by_psi = ((at_data - at_sample * told) * shares).sum(-1)
    return torch.stack([by_theta, by_psi - game.penalty * psi], -1)


def _normal(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and shares of a quadrature for N(0, 1), `(24,)` each."""
    nodes, shares = np.polynomial.hermite_e.hermegauss(24)
    return torch.tensor(nodes).to(like), torch.tensor(shares / shares.sum()).to(like)


def advance(game: Game, point: Tensor, step: float | Tensor, rule: str) -> Tensor:
    """One step of both players, `(..., 2)` to the same.

    "in turn" lets the discriminator move and the generator answer to its move, as in training;
    "ahead" moves by the field where a step would lead (extragradient; Gidel et al. 2019).

    Raises:
        ValueError: an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}; got {rule!r}")
    step = torch.as_tensor(step, dtype=point.dtype, device=point.device)[..., None]
    move = step * field(game, point)
    if rule == "at once":
        return point + move
    if rule == "ahead":
        return point + step * field(game, point + move)
    after = torch.stack([point[..., 0], point[..., 1] + move[..., 1]], -1)
    theta = point[..., 0] + step[..., 0] * field(game, after)[..., 0]
    return torch.stack([theta, after[..., 1]], -1)


def path(game: Game, start, step, rule: str, n_steps: int) -> Tensor:
    """Points from the start on, `(n_steps + 1, ..., 2)`."""
    points = [torch.as_tensor(start, dtype=torch.float64)]
    for _ in range(n_steps):
        points.append(advance(game, points[-1], step, rule))
    return torch.stack(points)


def eigenvalues(game: Game) -> Tensor:
    """Of the field's Jacobian at the equilibrium, complex, `(2,)`."""
    origin = torch.zeros(2, dtype=torch.float64)
    return torch.linalg.eigvals(gan.field_jacobian(lambda at: field(game, at), origin))


def spectral_radius(game: Game, step: float, rule: str) -> float:
    """Of one step's Jacobian at the equilibrium: below one it draws in, above one it drives out."""
    origin = torch.zeros(2, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda at: advance(game, at, step, rule))(origin)
    return float(torch.linalg.eigvals(jacobian).abs().max())


def flow(game: Game, start, time: float, step: float = 0.02) -> float:
    """Distance from the equilibrium after some time along the field, by Runge-Kutta."""
    point = torch.as_tensor(start, dtype=torch.float64)
    for _ in range(round(time / step)):
        a = field(game, point)
        b = field(game, point + step / 2 * a)
        c = field(game, point + step / 2 * b)
        d = field(game, point + step * c)
        point = point + step / 6 * (a + 2 * b + 2 * c + d)
    return float(point.norm())


class Laws(NamedTuple):
    """What the non-saturating game does with steps, over a sweep of h; a number each step size.

    Attributes:
        inside, outside: at once, from half and from twice the radius sqrt(2 h): where it ends, in
            units of that radius.
        rate: in turn, what 1 / r^2 gains in a unit of time; 1 / 8 by theory.
        left: in turn, the distance at the last time, in units of sqrt(8 / t).
    """

    inside: Tensor
    outside: Tensor
    rate: Tensor
    left: Tensor


def laws(steps: list[float], time: float = 1000.0) -> Laws:
    """Both ways of play from about (1, 0), to the same time of the flow for every step size.

    At once each game runs for 40 / h, ten times what it takes to settle; in turn to `time`, and the
    distance is averaged over the last turn, of length 4 pi.
    """
    game = Game("non-saturating")
    found = []
    for h in steps:
        circle = math.sqrt(2 * h)
        start = [[circle / 2, 0.0], [2 * circle, 0.0]]
        radii = path(game, start, h, "at once", round(40 / h**2)).norm(dim=-1)
        ends = radii[-len(radii) // 10 :].mean(0) / circle
        radii = path(game, [1.0, 0.0], h, "in turn", round(time / h)).norm(dim=-1)
        turn = round(4 * math.pi / h)
        half, last = radii[len(radii) // 2 - turn // 2 :][:turn].mean(), radii[-turn:].mean()
        passed = time / 2 - 2 * math.pi  # between the middles of the two turns
        rate = (last**-2 - half**-2) / passed
        left = last / math.sqrt(8 / (time - 2 * math.pi))
        found.append(torch.stack([*ends, rate, left]))
    return Laws(*torch.stack(found).T)


class Best(NamedTuple):
    """A rule at its best.

    Attributes:
        price: the least number of gradients of each player after which the game stays near its
            equilibrium; None if it does not for any step or strength.
        step, strength: where that is reached; strength is None where the game has none.
        left: the least distance at the end, over all steps and strengths.
    """

    price: int | None
    step: float
    strength: float | None
    left: float


def search(
    kind: str, rule: str, steps: Tensor, strengths: Tensor, n_steps: int, near: float = 0.01
) -> Best:
    """The best step and strength of a game that is played from (1, 0).

    Args:
        kind: "saturating" or "non-saturating", bare; or "R1", "noise", "consensus", which change
            the non-saturating game.
        rule: see `advance`.
        strengths: of the change; not used by the bare games.

    Raises:
        ValueError: an unknown kind or rule.
    """
    bare = kind in LOSSES
    strengths = torch.zeros(1).to(steps) if bare else strengths
    h, strength = (a.flatten() for a in torch.meshgrid(steps, strengths, indexing="ij"))
    changes = {"R1": "penalty", "noise": "noise", "consensus": "consensus"}
    if not bare and kind not in changes:
        raise ValueError(f"kind: expected one of {', '.join([*LOSSES, *changes])}; got {kind!r}")
    game = Game(kind) if bare else Game("non-saturating", **{changes[kind]: strength})
    start = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(len(h), 2)
    radii = path(game, start, h, rule, n_steps).norm(dim=-1).nan_to_num(torch.inf)
    away = radii > near
    # The first step after the last one that is away; n_steps + 1 where the end still is.
    when = n_steps + 1 - away.flip(0).to(torch.int8).argmax(0)
    when = torch.where(away.any(0), when, 0)
    best = int(when.argmin()) if when.min() <= n_steps else int(radii[-1].argmin())
    price = int(when[best]) * PRICE[rule] if when.min() <= n_steps else None
    held = None if bare else float(strength[best])
    return Best(price, float(h[best]), held, float(radii[-1].min()))
