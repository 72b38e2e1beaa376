"""Rays meet what geometry says, light follows its formula, and states have their laws."""

import math

import pytest
import torch
from scipy import stats

from ebmref import world


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def state(x=0.0, yaw=0.0, bearing=0.45, distance=1.6, kind=1):
    """One state; by default the camera looks straight on and the ball is to the right."""
    floats = (torch.tensor([value]) for value in (x, yaw, bearing, distance))
    return world.States(*floats, torch.tensor([kind]))


def corners():
    """Of the box in which states lie."""
    ends = [(-end, end) for end in (world.REACH, world.TURN, world.BEARING)]
    grid = torch.cartesian_prod(*map(torch.tensor, ends), torch.tensor(world.DISTANCE))
    return world.States(*grid.T, torch.ones(len(grid), dtype=torch.int64))


def colours_of(picture, column):
    """The colours of a column, by the engine's numbers; -1 where a pixel has several."""
    palette = torch.tensor(world.ENGINE)
    away = (picture[0, :, :, column].T[:, None] - palette).abs().amax(-1)
    return torch.where(away.amin(1) < 1e-6, away.argmin(1), -1).tolist()


# --- geometry --------------------------------------------------------------------------


def test_looking_straight_on():
    """The end wall is 2.7 m away, so it reaches to |v| = .6 / 2.7 = .222 and |u| = 1 / 2.7 = .370:
    of 32 pixels, from 12.44 to 19.56 down and from 10.07 to 21.93 across. At u = -.719 the left
    wall is 1.39 m away and reaches to |v| = .43."""
    picture = world.engine(state(), 32)
    ceiling, floor, end = world.CEILING, world.FLOOR, world.END
    expected = [ceiling] * 12 + [-1] + [end] * 6 + [-1] + [floor] * 12
    assert colours_of(picture, 12) == expected
    flat = torch.tensor(world.ENGINE)
    assert torch.allclose(picture[0, :, 12, 12], (flat[ceiling] + flat[end]) / 2)
    across = colours_of(picture.mT, 15)  # just above the horizon, where no ball is
    assert across == [world.LEFT] * 10 + [end] * 12 + [world.RIGHT] * 10
    left = colours_of(picture, 4)
    assert left[:9] == [ceiling] * 9 and left[10:22] == [world.LEFT] * 12
    assert left[23:] == [floor] * 9


@pytest.mark.parametrize("x, yaw", [(0.25, 0.0), (0.0, 0.3), (-0.4, 0.2), (0.5, -0.6)])
def test_the_corners_of_the_end_wall(x, yaw):
    """Seen from where the camera is, less where it looks; to one of 128 pixels."""
    row = colours_of(world.engine(state(x, yaw), 128).mT, 63)
    for corner, wall in ((-1, world.LEFT), (1, world.RIGHT)):
        column = math.tan(math.atan2(corner - x, 2.7) - yaw)
        beyond = (1 + corner * -column) / 2  # the wall's part of the picture
        assert row.count(wall) == pytest.approx(128 * max(beyond, 0), abs=1)


def test_points_lie_on_what_was_hit_and_on_their_rays():
    """On the plane or sphere of their number, in the room, and where the camera sees them."""
    states = world.states(50, generator())._replace(x=torch.linspace(-0.5, 0.5, 50))
    states = world.States(*(v.double() if v.is_floating_point() else v for v in states))
    surface, point, centre = world._trace(states, 8)
    x, y, z = point.unbind(-1)
    beyond = {
        world.FLOOR: y,
        world.CEILING: y - 1.2,
        world.LEFT: x + 1,
        world.RIGHT: x - 1,
        world.END: z - 3,
    }
    kinds = states.kind[:, None, None]
    for ball in (0, 1):
        beyond[world.BALL + ball] = (point - centre).norm(dim=-1) - 0.28
        assert (kinds.expand_as(surface)[surface == world.BALL + ball] == ball).all()
    for number, away in beyond.items():
        assert (surface == number).sum() > 10
        assert away[surface == number].abs().max() < 1e-9
    assert x.abs().max() < 1 + 1e-9 and y.min() > -1e-9 and y.max() < 1.2 + 1e-9

    # Of the ball, the side that is turned to the camera.
    eye = torch.stack([states.x, torch.full_like(states.x, 0.6), torch.full_like(states.x, 0.3)], 1)
    turned = ((point - centre) * (point - eye[:, None, None])).sum(-1)
    assert turned[surface >= world.BALL].max() < 0

    across, ahead = x - states.x[:, None, None], z - 0.3
    column = (torch.atan2(across, ahead) - states.yaw[:, None, None]).tan()
    assert torch.allclose(column, (torch.arange(16).double() / 8 - 15 / 16).expand_as(column))
    depth = torch.hypot(across, ahead) / (1 + column.square()).sqrt()
    row = (15 / 16 - torch.arange(16).double() / 8)[:, None]
    assert torch.allclose((y - 0.6) / depth, row.expand_as(column))


@pytest.mark.parametrize("side", [15, 32])
def test_a_mirrored_state_is_a_mirrored_picture(side, monkeypatch):
    """Of the engine, once the walls' colours are exchanged; of the phone not, its walls differ."""
    states = world.states(60, generator())
    mirrored = states._replace(x=-states.x, yaw=-states.yaw, bearing=-states.bearing)
    straight, phone = world.engine(states, side), world.phone(states, side)
    assert (world.phone(mirrored, side).flip(3) - phone).abs().mean() > 0.05
    assert (world.engine(mirrored, side).flip(3) - straight).abs().mean() > 0.02
    floor, ceiling, left, right, *others = world.ENGINE
    monkeypatch.setattr(world, "ENGINE", (floor, ceiling, right, left, *others))
    away = (world.engine(mirrored, side).flip(3) - straight).abs()
    assert (away > 1e-5).float().mean() < 1e-4  # a sample on an edge may fall on either side


# --- the ball --------------------------------------------------------------------------


def test_where_the_ball_is_by_hand():
    """Free, it is where bearing and distance say; held back by a wall, it is not, and is seen at
    another place. The wall before it counts as well, though no state of `states` reaches it."""
    states = state(x=-0.2, yaw=0.1, bearing=0.3, distance=1.5)
    expected = torch.tensor([[-0.2 + 1.5 * math.sin(0.4), 0.28, 0.3 + 1.5 * math.cos(0.4)]])
    assert torch.allclose(world.ball(states), expected)
    expected = torch.tensor([[-0.2, 0.1, math.tan(0.3), 1.5 * math.cos(0.3)]])
    assert torch.allclose(world.seen(states), expected)

    states = state(x=0.5, yaw=0.6, bearing=0.45, distance=1.6)
    ahead = 1.6 * math.cos(1.05)
    assert torch.allclose(world.ball(states), torch.tensor([[0.7, 0.28, 0.3 + ahead]]))
    column, depth = world.seen(states)[0, 2:].tolist()
    assert column == pytest.approx(math.tan(math.atan2(0.2, ahead) - 0.6), rel=1e-5)
    assert depth == pytest.approx(0.2 * math.sin(0.6) + ahead * math.cos(0.6), rel=1e-5)
    left = world.ball(state(x=-0.5, yaw=-0.6, bearing=-0.45))
    assert torch.allclose(left, torch.tensor([[-0.7, 0.28, 0.3 + ahead]]))
    ends = [world.ball(state(bearing=b, distance=9.0))[0, 2].item() for b in (0.0, math.pi)]
    assert ends == pytest.approx([2.7, 0.3])


def test_the_outline_of_the_ball():
    """Planes through the eye that touch the ball stand at asin(r / distance) from its centre, seen
    from above and from the side; to one and a half of 64 pixels."""
    states = world.states(200, generator())._replace(kind=torch.ones(200, dtype=torch.int64))
    is_ball = (world.engine(states, 64) - torch.tensor(world.ENGINE[6])[:, None, None]).abs()
    is_ball = is_ball.amax(1) < 1e-6
    _, _, column, depth = world.seen(states).unbind(1)
    for place, way, axis in ((column * depth, "across", 1), (torch.tensor(0.6 - 0.28), "down", 2)):
        at = torch.atan2(place.expand_as(depth), depth)
        half = (0.28 / torch.hypot(place.expand_as(depth), depth)).asin()
        low, high = (((at + sign * half).tan() + 1) * 32 for sign in (-1, 1))
        seen = is_ball.any(axis).float()
        first = seen.argmax(1)
        last = 64 - seen.flip(1).argmax(1)
        assert (first - low.clamp(min=0)).abs().max() < 1.5, way
        assert (last - high.clamp(max=64)).abs().max() < 1.5, way


def test_the_column_of_the_ball_is_that_of_its_pixels():
    """To one of 16, for balls that lie whole in the picture; what is near is larger."""
    states = world.states(1000, generator(), share=0.0)
    share = red_of(world.engine(states, 16))
    _, _, column, depth = world.seen(states).unbind(1)
    pixels = share.sum((1, 2))
    centroid = (share.sum(1) * ((torch.arange(16) + 0.5) / 8 - 1)).sum(1) / pixels
    whole = (column.abs() < 0.6) & (depth > 0.9)
    assert whole.sum() > 400
    assert ((centroid - column)[whole].abs() * 8).max() < 1
    assert stats.spearmanr(pixels[whole], depth[whole]).statistic < -0.95


def red_of(pictures):
    """How much of a pixel a red ball fills; whatever is behind it is bluer than red."""
    red, _, blue = world.ENGINE[world.BALL]
    return ((pictures[:, 0] - pictures[:, 2]) / (red - blue)).clamp(0, 1)


@pytest.mark.parametrize("style", [world.engine, world.phone])
def test_the_ball_is_always_visible(style):
    """At the corners of the law and in it, its kind changes at least four of 16 x 16 pixels."""
    for states in (corners(), world.states(1000, generator())):
        ones = torch.ones_like(states.kind)
        two = (style(states._replace(kind=kind), 16) for kind in (ones, 0 * ones))
        changed = torch.stack([*two]).diff(dim=0)[0].abs().amax(1) > 0.2
        assert changed.sum((1, 2)).min() >= 4


def test_a_ball_behind_the_camera_is_not_seen():
    """Nor is its mirror image before it."""
    behind = world.engine(state(yaw=3.1, bearing=-3.1), 16)
    assert behind.max() < 1 and not torch.isnan(behind).any()
    flat = torch.tensor(world.ENGINE[world.BALL + 1])[:, None, None]
    assert (behind[0] - flat).abs().amax(0).min() > 0.2


# --- light -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number, point, expected",
    [
        (world.FLOOR, (0.2, 0.0, 1.0), True),
        (world.FLOOR, (-0.2, 0.0, 1.0), False),
        (world.FLOOR, (0.2, 0.0, 1.3), False),
        (world.LEFT, (-1.0, 0.5, 0.7), True),
        (world.LEFT, (-1.0, 0.9, 1.0), False),
        (world.RIGHT, (1.0, 0.32, 1.0), True),
        (world.RIGHT, (1.0, 0.4, 1.0), False),
        (world.RIGHT, (1.0, 0.4, 0.92), True),
        (world.RIGHT, (1.0, 0.8, 0.92), False),
        (world.RIGHT, (1.0, 0.8, 1.22), True),
        (world.END, (0.6, 1.0, 3.0), True),
        (world.END, (-0.3, 0.75, 3.0), False),
        (world.END, (0.2, 0.4, 3.0), False),
        (world.CEILING, (0.2, 1.2, 1.0), False),
        (world.BALL, (0.2, 0.4, 1.0), False),
        (world.BALL + 1, (0.2, 0.4, 1.0), False),
    ],
)
def test_patterns_by_hand(number, point, expected):
    """Tiles of .4 m, stripes of .3, mortar of .05 between courses of .3 and bricks of .6, every
    other course moved by .3, and a window .9 wide and .56 high."""
    hits = world._Hits(torch.tensor([number]), torch.tensor([point]), torch.zeros(1, 3))
    assert world._pattern(hits).tolist() == [expected]


def test_light_by_hand():
    """A ray straight up to the ceiling and ahead: u = 1/16, v = 9/16 meets it .6 / v m ahead."""
    light = world._phone(state(), 8)[0, 3, 8]
    ahead = 0.6 * 16 / 9
    away = (-0.5 - ahead / 16, 1.0 - 1.2, 1.3 - 0.3 - ahead)
    square = sum(part**2 for part in away)
    shed = 0.47 + 1.4 * (0.2 / math.sqrt(square)) / (1 + square)
    assert light.tolist() == pytest.approx([0.84 * shed, 0.82 * shed, 0.80 * shed], rel=1e-5)


def test_light_on_the_sides():
    """Each by its distance from the lamp at (-.5, 1, 1.3); a shadow takes some of it, never more
    than all that is the lamp's."""
    states = world.states(20, generator())
    surface, point, _ = hits = world._trace(states, 16)
    bright = world._pattern(hits)[..., None]
    colour = torch.where(
        bright, torch.tensor(world.BRIGHT)[surface], torch.tensor(world.DARK)[surface]
    )
    shed = (world._phone(states, 16) / colour)[..., 1]
    x, y, z = point.unbind(-1)
    square = (x + 0.5) ** 2 + (y - 1.0) ** 2 + (z - 1.3) ** 2
    heights = {world.FLOOR: 1.0, world.CEILING: 0.2, world.LEFT: 0.5, world.RIGHT: 1.5}
    for number, height in heights.items():
        here = surface == number
        full = 0.47 + 1.4 * height / square[here].sqrt() / (1 + square[here])
        assert (shed[here] < full + 1e-4).all() and (shed[here] > 0.47 - 1e-4).all()
        assert ((shed[here] - full).abs() < 1e-4).float().mean() > 0.6
    # The lamp is before the end wall.
    here = (surface == world.END) & ~bright[..., 0]
    full = 0.47 + 1.4 * 1.7 / square[here].sqrt() / (1 + square[here])
    assert ((shed[here] - full).abs() < 1e-4).float().mean() > 0.6


def test_light_on_the_ball():
    """It falls as the cosine between its normal and the way to the lamp, over 1 + distance^2; the
    side turned away has what the room sheds, and no ball has a shadow on itself."""
    states = world.states(20, generator(), share=1.0)
    surface, point, centre = world._trace(states, 16)
    is_ball = surface == world.BALL + 1
    shed = world._phone(states, 16)[is_ball][:, 1] / 0.62
    way = torch.tensor([-0.5, 1.0, 1.3]) - point
    cosine = torch.cosine_similarity(way, point - centre, dim=-1)[is_ball]
    falls = 0.47 + 1.4 * cosine.clamp(min=0) / (1 + way.square().sum(-1)[is_ball])
    assert torch.allclose(shed, falls, atol=1e-4)
    assert (cosine < 0).any() and (cosine > 0.9).any()


def test_the_shadow_of_the_ball():
    """Of a ball at (.2, .28, 1.3) it falls away from the lamp, on the floor at x = .47; without the
    ball there, and on the side of the lamp, the floor has its light. What lies beyond the lamp has
    it too."""
    near = state(bearing=math.atan2(0.2, 1.0), distance=math.hypot(0.2, 1.0))
    assert torch.allclose(world.ball(near), torch.tensor([[0.2, 0.28, 1.3]]))
    ratio = (world.phone(near, 32) / world.phone(state(bearing=-0.45), 32))[0].mean(0)
    row = int((1 + 0.6) * 16)  # of the floor one metre ahead
    assert ratio[row, int((1 + 0.6) * 16)] < 0.75
    assert ratio[row, int((1 - 0.2) * 16)] == pytest.approx(1, abs=0.03)
    # On the ceiling the line from the ball through the lamp ends at x = -.69.
    assert ratio[int((1 - 0.6) * 16), int((1 - 0.69) * 16)] == pytest.approx(1, abs=0.01)


def test_the_window_is_bright_by_itself():
    """Straight ahead and up, it is 2.7 m away, and the wall beside it is green and darker."""
    picture = world.phone(state(), 64)[0]
    window, wall = picture[:, 29, 34], picture[:, 29, 23]
    # White, warm, with its gamma: red saturates, .8 + .08 of blue remains.
    expected = torch.tensor([1.0, 1.0, 0.88**0.85])
    assert torch.allclose(window, expected, atol=0.02)
    assert wall.argmax() == 1 and wall.max() < 0.7


def test_what_the_camera_makes_of_light(monkeypatch):
    """Even grey: warm, gamma and vignette, by hand; then one bright pixel, and half its blur."""
    light = torch.full((1, 16, 16, 3), 0.5)
    monkeypatch.setattr(world, "_phone", lambda states, side: light)
    picture = world.phone(state(), 8)
    warm = torch.tensor([0.55, 0.5, 0.44]) ** 0.85
    assert torch.allclose(picture[0, :, 0, 7], warm * (1 - 0.16 * 2 * 0.875**2))
    assert torch.allclose(picture[0, :, 3, 0], warm * (1 - 0.16 * (0.125**2 + 0.875**2)))
    light = torch.full((1, 16, 16, 3), 2.0)  # too bright for it: white, but for the vignette
    assert torch.allclose(world.phone(state(), 8)[0, :, 3, 3], torch.tensor(1 - 0.16 * 2 / 64))
    light = torch.zeros(1, 16, 16, 3)
    light[:, 6, 6] = 1.0  # one of the four samples of pixel (3, 3)
    picture = world.phone(state(), 8)[0, 1]
    # The rows of the matrix sum to 1.1, 1 and .88.
    peak = 0.25**0.85
    inner = 1 - 0.16 * 2 * 0.125**2
    assert picture[3, 3].item() == pytest.approx(peak * (0.5 + 0.5 / 9) * inner, rel=1e-5)
    beside = 1 - 0.16 * (0.125**2 + 0.375**2)
    assert picture[3, 2].item() == pytest.approx(peak * 0.5 / 9 * beside, rel=1e-5)
    assert picture[3, 1] == 0


# --- laws ------------------------------------------------------------------------------


def test_the_laws_of_states():
    """Kolmogorov-Smirnov for the four, no correlation among them, and the share of kind 1: eleven
    tests at a false alarm of 1e-3, at a fixed seed."""
    states = world.states(4000, generator())
    assert [value.dtype for value in states] == [torch.float32] * 4 + [torch.int64]
    laws = ((-0.5, 1), (-0.6, 1.2), (-0.45, 0.9), (0.8, 0.8))
    for value, (low, width) in zip(states, laws, strict=False):
        assert stats.kstest(value.numpy(), stats.uniform(low, width).cdf).pvalue > 1e-3
    floats = torch.stack(states[:4]).numpy()
    for i in range(4):
        for j in range(i):
            assert stats.pearsonr(floats[i], floats[j]).pvalue > 1e-3
    assert stats.binomtest(int(states.kind.sum()), 4000, 0.7).pvalue > 1e-3
    assert set(states.kind.tolist()) == {0, 1}


def test_laws_that_are_asked_for():
    states = world.states(4000, generator(), share=0.15, reach=0.2, turn=0.1)
    assert stats.kstest(states.x.numpy(), stats.uniform(-0.2, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(states.yaw.numpy(), stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-3
    assert stats.binomtest(int(states.kind.sum()), 4000, 0.15).pvalue > 1e-3
    for share in (0.0, 1.0):
        assert (world.states(500, generator(), share=share).kind == share).all()
    still = world.states(5, generator(), reach=0.0, turn=0.0)
    assert not still.x.any() and not still.yaw.any()


def spread(values):
    """An interval for the standard deviation of a normal law: chi squared, false alarm 1e-3."""
    n = values.numel() - 1
    low, high = stats.chi2.ppf([5e-4, 1 - 5e-4], n)
    sd = float(values.double().std())
    return sd * math.sqrt(n / high), sd * math.sqrt(n / low)


def test_what_development_adds():
    """Each nuisance alone, on grey: its standard deviation, and for whom it is the same."""
    grey = torch.full((2000, 3, 4, 4), 0.4)
    off = {"exposure": 0.0, "balance": 0.0, "noise": 0.0}
    assert torch.equal(world.develop(grey, generator(), **off), grey)
    gain = (world.develop(grey, generator(), balance=0.0, noise=0.0) / grey).log()
    low, high = spread(gain[:, 0, 0, 0])
    assert low < 0.12 < high
    assert torch.allclose(gain, gain[:, :1, :1, :1].expand_as(gain), atol=1e-6)
    gain = (world.develop(grey, generator(), exposure=0.0, noise=0.0) / grey).log()
    low, high = spread(gain[:, :, 0, 0])
    assert low < 0.03 < high
    assert torch.allclose(gain, gain[:, :, :1, :1].expand_as(gain), atol=1e-6)
    assert abs(stats.pearsonr(*gain[:, :2, 0, 0].T.numpy()).statistic) < 0.08
    grain = world.develop(grey, generator(), exposure=0.0, balance=0.0) - grey
    low, high = spread(grain)
    assert low < 0.02 < high
    assert abs(stats.pearsonr(*grain[:, 0, 0, :2].T.numpy()).statistic) < 0.08
    # All three are there by default, and together.
    mean = world.develop(grey, generator()).log().mean((2, 3))[:, 0]
    low, high = spread(mean)
    assert low < math.hypot(0.12, 0.03, 0.02 / 0.4 / 4) < high


def test_development_stays_in_bounds():
    for value in (0.0, 1.0):
        developed = world.develop(torch.full((50, 3, 4, 4), value), generator())
        assert developed.min() >= 0 and developed.max() <= 1
        assert (developed == value).float().mean() > 0.2


def test_the_same_generator_makes_the_same_pictures():
    def made(seed):
        g = generator(seed)
        states = world.states(5, g)
        return [*states, world.develop(world.phone(states, 8), g)]

    assert all(map(torch.equal, made(0), made(0)))
    assert not any(torch.equal(*pair) for pair in zip(made(0)[:4], made(1)[:4], strict=True))
    assert not torch.equal(made(0)[-1], made(1)[-1])


# --- a walk ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 1])
def test_a_walk_past_a_ball_that_lies_still(kind):
    """Closed and smooth, all of it states as `states` draws them; both walls come near."""
    walk = world.walk(200, kind=kind)
    assert [value.dtype for value in walk] == [torch.float32] * 4 + [torch.int64]
    assert (walk.kind == kind).all() and all(value.shape == (200,) for value in walk)
    assert world.ball(walk).std(0).max() < 1e-6
    low, high = world.DISTANCE
    assert walk.bearing.abs().max() < world.BEARING
    assert low < walk.distance.min() and walk.distance.max() < high
    for value, most in ((walk.x, world.REACH), (walk.yaw, world.TURN)):
        assert most / 3 < value.max() < most and most / 3 < -value.min() < most
        step = value - value.roll(1)
        assert step.abs().max() < 0.02
        assert (step - step.roll(1)).abs().max() < 1e-3
    pictures = world.engine(walk, 16)
    assert (pictures - pictures.roll(1, 0)).abs().mean((1, 2, 3)).max() < 0.03


# --- pictures --------------------------------------------------------------------------


@pytest.mark.parametrize("style", [world.engine, world.phone])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_picture_is_the_same_in_any_company(style, dtype, monkeypatch):
    """Alone, in a batch, and across the pieces in which a batch is rendered."""
    states = world.states(20, generator())
    states = world.States(*(v.to(dtype) if v.is_floating_point() else v for v in states))
    pictures = style(states, 9)
    assert pictures.shape == (20, 3, 9, 9) and pictures.dtype == dtype
    assert pictures.min() >= 0 and pictures.max() <= 1
    monkeypatch.setattr(world, "PIECE", 7)
    assert torch.allclose(style(states, 9), pictures, atol=1e-6)
    one = style(world.States(*(value[13:14] for value in states)), 9)
    assert torch.allclose(one, pictures[13:14], atol=1e-6)


def test_the_styles_differ():
    """In their mean colour, blue against warm; and a mean picture is no picture."""
    states = world.states(400, generator())
    a, b = world.engine(states, 16), world.phone(states, 16)
    cold, warm = a.mean((0, 2, 3)), b.mean((0, 2, 3))
    assert cold[2] - cold[0] > 0.1 and warm[0] - warm[2] > 0.1
    assert 0.4 < warm.mean() < 0.6
    assert (a - b).abs().mean() > 0.15
    assert (b - b.mean(0)).abs().mean() > 0.07


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: world.states(0, generator()), "n: expected an integer >= 1"),
        (lambda: world.states(3, 0), "generator: expected a torch.Generator"),
        (lambda: world.states(3, generator(), share=1.1), "share: expected a number from 0 to 1"),
        (lambda: world.states(3, generator(), share=math.nan), "share: "),
        (lambda: world.states(3, generator(), reach=0.51), "reach: .* 0 to 0.5; got 0.51"),
        (lambda: world.states(3, generator(), turn=-0.1), "turn: .* 0 to 0.6; got -0.1"),
        (lambda: world.walk(1), "n: expected an integer >= 2"),
        (lambda: world.walk(9, kind=2), "kind: expected 0 or 1; got 2"),
        (lambda: world.engine(state(), 3), "side: expected an integer >= 4; got 3"),
        (lambda: world.phone(state(), 16.0), "side: expected an integer >= 4"),
        (lambda: world.engine(state()._replace(yaw=0.0), 8), "yaw: expected a torch.Tensor"),
        (lambda: world.phone(state()._replace(x=torch.zeros(2)), 8), r"states: .*\(2,\), \(1,\)"),
        (lambda: world.engine(world.States(*torch.zeros(5)), 8), "states: expected five tensors"),
        (lambda: world.engine(state(kind=2), 8), "states: expected kinds 0 and 1"),
        (lambda: world.engine(state(kind=-1), 8), "states: expected kinds 0 and 1"),
        (lambda: world.engine(state(kind=1.0), 8), "states: expected kinds 0 and 1, as int64"),
        (lambda: world.develop([1], generator()), "pictures: expected a torch.Tensor"),
        (lambda: world.develop(torch.zeros(3, 8, 8), generator()), r"pictures: .* \(3, 8, 8\)"),
        (lambda: world.develop(torch.zeros(1, 1, 8, 8), generator()), "pictures: expected floats"),
        (lambda: world.develop(torch.zeros(1, 3, 8, 8).long(), generator()), "pictures: "),
        (lambda: world.develop(torch.zeros(1, 3, 8, 8), None), "generator: "),
        *(
            (lambda n=n: world.develop(torch.zeros(1, 3, 8, 8), generator(), **{n: -0.1}), f"{n}: ")
            for n in ("exposure", "balance", "noise")
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
