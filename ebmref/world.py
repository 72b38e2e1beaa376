"""A small world in two styles: a room, a ball and a moving camera, for unpaired translation.

`engine` draws a state of the world as a cheap renderer would, in flat colours; `phone` draws the
same state as a camera would see it, with patterns, light and shadow. So the true translation of
every picture is known, and what a picture shows (`seen`) can be read off and compared.

Lengths are in metres, angles in radians. x points to the right, y up, z away from the camera, whose
yaw is positive to the right. The room is the box -1 <= x <= 1, 0 <= y <= 1.2, 0 <= z <= 3.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ebmref.checks import check_draws, check_tensors, whole_number

HALF, HEIGHT, LENGTH = 1.0, 1.2, 3.0  # of the room; its width is twice HALF
EYE = (0.6, 0.3)  # y and z of the camera, which moves along x
RADIUS = 0.28  # of the ball
FREE = 0.3  # how far from a wall the ball's centre stays
# Bounds of the uniform laws. Whatever lies in them shows the ball.
REACH, TURN, BEARING, DISTANCE = 0.5, 0.6, 0.45, (0.8, 1.6)
LAMP = (-0.5, 1.0, 1.3)
PIECE = 100  # pictures rendered at once: memory stays small

# What a ray meets, by number. Seven entries: a ball of each kind counts as a surface.
FLOOR, CEILING, LEFT, RIGHT, END, BALL = range(6)
ENGINE = (
    (0.30, 0.34, 0.42),
    (0.82, 0.86, 0.92),
    (0.55, 0.68, 0.80),
    (0.34, 0.46, 0.62),
    (0.66, 0.74, 0.70),
    (0.86, 0.22, 0.20),
    (0.18, 0.32, 0.86),
)
# Of the phone, each surface has two colours, and a pattern chooses.
DARK = (
    (0.36, 0.24, 0.16),
    (0.84, 0.82, 0.80),
    (0.72, 0.62, 0.46),
    (0.58, 0.24, 0.17),
    (0.34, 0.52, 0.32),
    (1.00, 0.82, 0.06),
    (0.04, 0.62, 0.68),
)
BRIGHT = (
    (0.68, 0.50, 0.33),
    (0.84, 0.82, 0.80),
    (0.94, 0.88, 0.74),
    (0.88, 0.74, 0.62),
    (1.00, 1.00, 1.00),
    (1.00, 0.82, 0.06),
    (0.04, 0.62, 0.68),
)
# Into the room; that of the ball depends on where it is hit.
NORMALS = ((0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0), (0, 0, -1), (0, 0, 0), (0, 0, 0))
WARM = ((1.04, 0.06, 0.00), (0.02, 0.98, 0.00), (0.00, 0.08, 0.80))  # rows: red, green, blue


class States(NamedTuple):
    """States of the world, each of shape `(n,)`.

    Attributes:
        x: where the camera is between the walls, in metres.
        yaw: where it looks, in radians from the z axis, positive to the right.
        bearing: of the ball from where the camera looks, in radians, positive to the right.
        distance: of the ball from the camera along the floor, in metres.
        kind: of the ball, int64: 0 is red for the engine and yellow for the phone, 1 blue and teal.
    """

    x: Tensor
    yaw: Tensor
    bearing: Tensor
    distance: Tensor
    kind: Tensor


def states(
    n: int,
    generator: torch.Generator,
    *,
    share: float = 0.7,
    reach: float = REACH,
    turn: float = TURN,
) -> States:
    """Independent states, uniform but for the kind, on the generator's device.

    Args:
        n: how many, >= 1.
        share: probability of kind 1.
        reach: the camera's |x| is at most this, in metres.
        turn: its |yaw| is at most this, in radians.

    Raises:
        ValueError: n, generator or a bound is not as it should be.
    """
    check_draws(n, 1, generator)
    for name, value, most in (("share", share, 1), ("reach", reach, REACH), ("turn", turn, TURN)):
        if not 0 <= value <= most:
            raise ValueError(f"{name}: expected a number from 0 to {most}; got {value}")
    x, yaw, bearing, distance, kind = torch.rand(
        (5, n), generator=generator, device=generator.device
    )
    near, far = DISTANCE
    return States(
        reach * (2 * x - 1),
        turn * (2 * yaw - 1),
        BEARING * (2 * bearing - 1),
        near + (far - near) * distance,
        (kind < share).long(),
    )


def walk(n: int, *, kind: int = 1, device: str | torch.device = "cpu") -> States:
    """A smooth walk past a ball that lies still; the last state leads back to the first.

    Args:
        n: how many states, >= 2.
        kind: of the ball, 0 or 1.

    Raises:
        ValueError: fewer than two states, or an unknown kind.
    """
    whole_number("n", n, 2)
    if kind not in (0, 1):
        raise ValueError(f"kind: expected 0 or 1; got {kind!r}")
    phase = torch.arange(n, device=device) * (2 * math.pi / n)
    x, yaw = 0.45 * phase.sin(), 0.25 * phase.cos() - 0.15 * phase.sin()
    across, along = 0.05 - x, torch.full_like(x, 1.1)
    bearing = torch.atan2(across, along) - yaw
    return States(x, yaw, bearing, torch.hypot(across, along), torch.full_like(phase, kind).long())


def ball(states: States) -> Tensor:
    """The ball's centre, `(n, 3)`: on the floor, held back where it would touch a wall."""
    at = states.yaw + states.bearing
    x = (states.x + states.distance * at.sin()).clamp(FREE - HALF, HALF - FREE)
    z = (EYE[1] + states.distance * at.cos()).clamp(FREE, LENGTH - FREE)
    return torch.stack([x, torch.full_like(x, RADIUS), z], 1)


def seen(states: States) -> Tensor:
    """What a picture shows of the state, `(n, 4)`: x, yaw, column and depth of the ball.

    They are the ball's where it is after the room has held it back, which bearing and distance are
    not. The column is that of its centre, -1 at the left edge of the picture and 1 at the right
    one; the depth is along the line of sight, in metres.
    """
    right, _, depth = _from_camera(states)
    return torch.stack([states.x, states.yaw, right / depth, depth], 1)


def engine(states: States, side: int) -> Tensor:
    """The world in flat colours, `(n, 3, side, side)` in [0, 1].

    Args:
        side: pixels, >= 4.

    Raises:
        ValueError: states that do not belong together, or a side below 4.
    """
    return _rendered(states, side, lambda piece: _averaged(_engine(piece, side)))


def phone(states: States, side: int) -> Tensor:
    """The world as a good camera sees it, `(n, 3, side, side)` in [0, 1]; see `develop`.

    Args:
        side: pixels, >= 4.

    Raises:
        ValueError: states that do not belong together, or a side below 4.
    """

    def picture(piece: States) -> Tensor:
        light = _averaged(_phone(piece, side))
        warm = torch.einsum("dc,nchw->ndhw", light.new_tensor(WARM), light)
        toned = warm.clamp(max=1) ** 0.85
        # At an edge, the mean of those neighbours that there are.
        around = avg_pool2d(toned, 3, stride=1, padding=1, count_include_pad=False)
        at = _grid(side, light)
        vignette = 1 - 0.16 * (at.square() + at[:, None].square())
        return 0.5 * (toned + around) * vignette

    return _rendered(states, side, picture)


def develop(
    pictures: Tensor,
    generator: torch.Generator,
    *,
    exposure: float = 0.12,
    balance: float = 0.03,
    noise: float = 0.02,
) -> Tensor:
    """Pictures as a phone would store them: each exposed by chance, off in colour, noisy.

    Args:
        pictures: `(n, 3, side, side)` in [0, 1], on the generator's device.
        exposure: standard deviation of the logarithm of a picture's gain, >= 0.
        balance: of the logarithm of each colour's gain, >= 0.
        noise: of what is added to each value, >= 0.

    Returns:
        The same shape, clamped to [0, 1].

    Raises:
        ValueError: other pictures, or a negative standard deviation.
    """
    check_tensors(pictures=pictures)
    if pictures.dim() != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
        raise ValueError(
            f"pictures: expected floats (n, 3, side, side); got {tuple(pictures.shape)}"
        )
    check_draws(len(pictures), 0, generator)
    for name, value in (("exposure", exposure), ("balance", balance), ("noise", noise)):
        if not value >= 0:
            raise ValueError(f"{name}: expected >= 0; got {value}")
    like = {"generator": generator, "device": pictures.device, "dtype": pictures.dtype}
    gain = exposure * torch.randn((len(pictures), 1), **like)
    gain = gain + balance * torch.randn((len(pictures), 3), **like)
    grain = noise * torch.randn(pictures.shape, **like)
    return (pictures * gain.exp()[:, :, None, None] + grain).clamp(0, 1)


class _Hits(NamedTuple):
    """What the rays of n pictures meet; rays are `(n, 2 side, 2 side)`, four a pixel.

    Attributes:
        surface: its number, FLOOR to BALL + 1.
        point: where, `(..., 3)` in the room.
        centre: of the ball, `(n, 1, 1, 3)`.
    """

    surface: Tensor
    point: Tensor
    centre: Tensor


def _grid(n: int, like: Tensor) -> Tensor:
    """Middles of n equal parts of [-1, 1]; of opposite ones exactly opposite."""
    return (torch.arange(n, dtype=like.dtype, device=like.device) - (n - 1) / 2) * (2 / n)


def _from_camera(states: States) -> tuple[Tensor, Tensor, Tensor]:
    """The ball's centre to the right of the camera, above it, and along its line of sight."""
    x, y, z = ball(states).unbind(1)
    across, along = x - states.x, z - EYE[1]
    sin, cos = states.yaw.sin(), states.yaw.cos()
    return across * cos - along * sin, y - EYE[0], across * sin + along * cos


def _trace(states: States, side: int) -> _Hits:
    """Rays in closed form: the nearest of the room's sides and of the ball.

    The ray through a picture's point (u, v), both in [-1, 1] for a view of 90 degrees, goes along
    (u, v, 1) in the camera's axes. A column of rays turns only with u, and rises only with v.
    """
    u = _grid(2 * side, states.x)
    v = -u[:, None]
    sin, cos = states.yaw.sin()[:, None, None], states.yaw.cos()[:, None, None]
    x = states.x[:, None, None]
    dx, dz = u * cos + sin, cos - u * sin

    # Of two opposite sides the one ahead has the greater time; of those ahead the first is hit.
    t_side = torch.maximum((HALF - x) / dx, (-HALF - x) / dx)
    t_end = torch.maximum((LENGTH - EYE[1]) / dz, -EYE[1] / dz)
    t_level = torch.maximum((HEIGHT - EYE[0]) / v, -EYE[0] / v)
    wall = torch.where(t_end < t_side, END, torch.where(dx > 0, RIGHT, LEFT))
    level = torch.where(v > 0, CEILING, FLOOR)
    t_wall = torch.minimum(t_side, t_end)
    surface = torch.where(t_level < t_wall, level, wall)
    t = torch.minimum(t_level, t_wall)

    # |t d - c|^2 = r^2, and c lies ahead: the smaller root.
    right, up, depth = (c[:, None, None] for c in _from_camera(states))
    square = u.square() + v.square() + 1
    along = u * right + v * up + depth
    off = right.square() + up.square() + depth.square() - RADIUS**2
    rest = along.square() - square * off
    is_ball = (rest > 0) & (along > 0)
    t = torch.where(is_ball, (along - rest.clamp(min=0).sqrt()) / square, t)
    surface = torch.where(is_ball, BALL + states.kind[:, None, None], surface)

    point = torch.stack([x + t * dx, EYE[0] + t * v, EYE[1] + t * dz], -1)
    return _Hits(surface, point, ball(states)[:, None, None])


def _engine(states: States, side: int) -> Tensor:
    return states.x.new_tensor(ENGINE)[_trace(states, side).surface]


def _phone(states: States, side: int) -> Tensor:
    """Light that reaches the camera: a colour times what the lamp and the room shed on it."""
    surface, point, centre = hits = _trace(states, side)
    dark, bright = point.new_tensor(DARK), point.new_tensor(BRIGHT)
    pattern = _pattern(hits)
    colour = torch.where(pattern[..., None], bright[surface], dark[surface])

    is_ball = surface >= BALL
    outward = (point - centre) / RADIUS
    normal = torch.where(is_ball[..., None], outward, point.new_tensor(NORMALS)[surface])
    to_lamp = point.new_tensor(LAMP) - point
    square = to_lamp.square().sum(-1)
    facing = (normal * to_lamp).sum(-1).clamp(min=0) / square.sqrt()
    # How near the line from here to the lamp passes by the ball's centre.
    to_ball = centre - point
    share = ((to_ball * to_lamp).sum(-1) / square).clamp(0, 1)
    miss = (to_ball - share[..., None] * to_lamp).square().sum(-1).sqrt()
    lit = ((miss / RADIUS - 0.8) / 0.4).clamp(0, 1)  # a lamp of some size has soft shadows
    lit = torch.where(is_ball, 1, lit)
    shed = 0.47 + 1.4 * lit * facing / (1 + square)
    is_window = (surface == END) & pattern
    return colour * torch.where(is_window, 1, shed)[..., None]


def _pattern(hits: _Hits) -> Tensor:
    """Where a surface has its bright colour: tiles, stripes, bricks and the window."""
    x, y, z = hits.point.unbind(-1)
    tile = ((x / 0.4).floor() + (z / 0.4).floor()) % 2 == 0
    stripe = (z / 0.3).floor() % 2 == 0
    course = (y / 0.3).floor()
    mortar = (y % 0.3 < 0.05) | ((z + 0.3 * (course % 2)) % 0.6 < 0.05)
    window = ((x - 0.2).abs() < 0.45) & ((y - 0.75).abs() < 0.28)
    of = hits.surface
    return (
        ((of == FLOOR) & tile)
        | ((of == LEFT) & stripe)
        | ((of == RIGHT) & mortar)
        | ((of == END) & window)
    )


def _averaged(rays: Tensor) -> Tensor:
    """Colours of four rays a pixel, `(n, 2 side, 2 side, 3)`, to pictures `(n, 3, side, side)`."""
    return avg_pool2d(rays.movedim(-1, 1), 2)


def _rendered(states: States, side: int, picture: Callable[[States], Tensor]) -> Tensor:
    whole_number("side", side, 4)
    check_tensors(**states._asdict())
    n = len(states.x) if states.x.dim() else 0
    if n < 1 or any(value.shape != (n,) for value in states):
        shapes = ", ".join(str(tuple(value.shape)) for value in states)
        raise ValueError(f"states: expected five tensors (n,), n >= 1; got {shapes}")
    if states.kind.dtype != torch.int64 or bool(((states.kind < 0) | (states.kind > 1)).any()):
        raise ValueError("states: expected kinds 0 and 1, as int64")
    pieces = zip(*(value.split(PIECE) for value in states), strict=True)
    return torch.cat([picture(States(*piece)) for piece in pieces])
