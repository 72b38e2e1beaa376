"""Concepts as sets: projections land on them, stay there, and nothing on them is nearer."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from ebmref.concepts import scenes
from ebmref.concepts.scenes import CONCEPTS, DISC, NEAR, Family

DOUBLE = torch.float64
NAMES = pytest.mark.parametrize("name", CONCEPTS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(name, n=40, m=4, seed=0, spread=1.0):
    """Entities anywhere, and parameters of the concept, in double precision."""
    g = generator(seed)
    x = torch.rand(n, m, 5, generator=g, dtype=DOUBLE)
    x[..., :2] = spread * (2 * x[..., :2] - 1)
    kind = CONCEPTS[name]
    low, high = (
        torch.tensor([*side, *[0.0] * (4 - len(side))], dtype=DOUBLE)
        for side in (kind.low, kind.high)
    )
    return x, low + (high - low) * torch.rand(n, 4, generator=g, dtype=DOUBLE)


def violation(name, x, p, slack=1e-9):
    """How badly one scene `(m, 5)` misses the concept, by its definition and nothing else."""
    position, colour = x[:, :2], x[:, 2:]
    if name == "near":
        return max(0.0, float((position - p[:2]).norm(dim=1).max()) - NEAR)
    if name == "square":
        lengths = sorted(float((a - b).norm()) for a, b in itertools.combinations(position, 2))
        side = float(p[0])
        wanted = [side] * 4 + [side * 2**0.5] * 2
        return max(abs(a - b) for a, b in zip(lengths, wanted, strict=True))
    if name == "circle":
        # The centre from three of the points; if the circle is right, it is right for all.
        a, b, c = position[:3]
        matrix = 2 * torch.stack([b - a, c - a])
        centre = torch.linalg.solve(
            matrix, torch.stack([b.square().sum() - a.square().sum(),
                                 c.square().sum() - a.square().sum()]),
        )  # fmt: skip
        return float(((position - centre).norm(dim=1) - p[0]).abs().max())
    if name == "line":
        way = position[1:] - position[0]
        return float((way[:, 0] * p[0].sin() - way[:, 1] * p[0].cos()).abs().max())
    if name == "between":
        # The two ways add up to the whole way.
        a, b = p[:2], p[2:]
        detour = (position - a).norm(dim=1) + (position - b).norm(dim=1) - (a - b).norm()
        return float(detour.abs().max())
    if name == "left":
        return max(0.0, float((position[:, 0] - p[0]).max()))
    if name == "right":
        return max(0.0, float((p[0] - position[:, 0]).max()))
    if name == "above":
        return max(0.0, float((p[0] - position[:, 1]).max()))
    if name == "colour":
        return float((colour - p[:3]).abs().max())
    assert name == "quantity"
    far = position.norm(dim=1)
    inside, outside = int((far < DISC - slack).sum()), int((far > DISC + slack).sum())
    count = math.floor(p[0])  # those on the edge count as either
    return 0.0 if inside <= count <= len(x) - outside or (count == 4 and outside == 0) else 1.0


@NAMES
def test_projections_are_on_the_set(name):
    x, p = draw(name)
    found = scenes.project(name, x, p)
    assert max(violation(name, one, q) for one, q in zip(found, p, strict=True)) < 1e-9
    assert max(violation(name, one, q) for one, q in zip(x, p, strict=True)) > 0.05


@NAMES
def test_projections_are_idempotent(name):
    x, p = draw(name)
    once = scenes.project(name, x, p)
    assert torch.allclose(scenes.project(name, once, p), once, atol=1e-9)
    once = once.float()
    assert torch.allclose(scenes.project(name, once, p.float()), once, atol=1e-5)


def excess(name, project, n=60):
    """How much nearer than the projection another scene of the set comes, at most.

    Others are what `scenes.project` makes of scenes near x and far from it: all are on the set.
    """
    x, p = draw(name, n)
    taken = (project(x, p) - x).square().sum((1, 2))
    worst = -math.inf
    for seed, scale in enumerate((0.01, 0.03, 0.1, 0.3, 1.0, 3.0) * 5):
        noise = scale * torch.randn(x.shape, generator=generator(seed), dtype=DOUBLE)
        other = scenes.project(name, x + noise, p)
        worst = max(worst, float((taken - (other - x).square().sum((1, 2))).max()))
    return worst


@NAMES
def test_nothing_on_the_set_is_nearer(name):
    assert excess(name, lambda x, p: scenes.project(name, x, p)) < 1e-9


def by_angle(x, p):
    """A square whose corners are given out by the angle about the mean."""
    position = x[..., :2]
    away = position - position.mean(1, keepdim=True)
    rank = torch.atan2(away[..., 1], away[..., 0]).argsort(1).argsort(1)
    corner = torch.polar(torch.ones_like(away[..., 0]), rank.to(DOUBLE) * (math.pi / 2))
    z = torch.view_as_complex(away.contiguous())
    turn = (z * corner.conj()).sum(1, keepdim=True)
    corner = corner * turn / turn.abs() * p[:, :1] / 2**0.5
    return torch.cat([position.mean(1, keepdim=True) + torch.view_as_real(corner), x[..., 2:]], -1)


def about_the_mean(x, p):
    """A circle about the mean of the points."""
    centre = x[..., :2].mean(1, keepdim=True)
    away = x[..., :2] - centre
    position = centre + p[:, :1, None] * away / away.norm(dim=-1, keepdim=True)
    return torch.cat([position, x[..., 2:]], -1)


def to_the_place(x, p):
    return torch.cat([p[:, None, :2].expand(-1, x.shape[1], -1), x[..., 2:]], -1)


def through_the_origin(x, p):
    normal = torch.stack([-p[:, 0].sin(), p[:, 0].cos()], -1)[:, None]
    position = x[..., :2]
    off = (position * normal).sum(-1, keepdim=True)
    return torch.cat([position - off * normal, x[..., 2:]], -1)


def first_in(x, p):
    """The first of the entities go into the disc, not the nearest."""
    position, m = x[..., :2], x.shape[1]
    far = position.norm(dim=-1, keepdim=True)
    first = torch.arange(m)[None, :, None] < p[:, :1, None].floor()
    edge = DISC * position / far
    moved = torch.where(first & (far > DISC), edge, position)
    moved = torch.where(~first & (far < DISC), edge, moved)
    return torch.cat([moved, x[..., 2:]], -1)


def grey(x, p):
    return torch.cat([x[..., :2], x[..., 2:].mean(-1, keepdim=True).expand(-1, -1, 3)], -1)


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("square", by_angle),
        ("circle", about_the_mean),
        ("near", to_the_place),
        ("line", through_the_origin),
        ("quantity", first_in),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_lands_on_the_set_farther_away_is_told(name, wrong):
    """Each of these gives scenes of the concept (the circle's too), but not the nearest."""
    x, p = draw(name)
    assert max(violation(name, one, q) for one, q in zip(wrong(x, p), p, strict=True)) < 1e-9
    assert excess(name, wrong) > 1e-3


@NAMES
def test_a_step_short_of_the_set_is_told(name):
    """The test of membership sees a scene a thousandth of the way back; of a count, halfway."""
    x, p = draw(name)
    found = scenes.project(name, x, p)
    short = 0.5 if name == "quantity" else 1e-3
    back = found + short * (x - found)
    assert max(violation(name, one, q) for one, q in zip(back, p, strict=True)) > 1e-5


def test_the_square_is_the_best_of_all_orders():
    """Against the plain search: all 24 orders, the angle by SciPy, in a sum over the corners."""
    x, p = draw("square", n=6)
    found = (scenes.project("square", x, p) - x).square().sum((1, 2))
    for row in range(6):
        z = torch.view_as_complex(x[row, :, :2].contiguous())
        z = (z - z.mean()).numpy()
        best = math.inf
        for order in itertools.permutations([1, 1j, -1, -1j]):
            corner = torch.tensor(order).numpy() * float(p[row, 0]) / 2**0.5

            def cost(angle, corner=corner, z=z):
                turned = corner * complex(math.cos(angle), math.sin(angle))
                return float((abs(z - turned) ** 2).sum())

            for start in range(4):
                bounds = (start * math.pi / 2, (start + 1) * math.pi / 2)
                found_there = optimize.minimize_scalar(cost, bounds=bounds, method="bounded")
                best = min(best, found_there.fun)
        assert float(found[row]) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6])
def test_the_circle_is_the_best_of_all_centres(m):
    """No centre on a fine grid does better, for any number of points."""
    x, p = draw("circle", n=12, m=m)
    found = (scenes.project("circle", x, p) - x).square().sum((1, 2))
    axis = torch.linspace(-2.5, 2.5, 251, dtype=DOUBLE)
    centres = torch.cartesian_prod(axis, axis)
    for row in range(12):
        d = torch.cdist(centres, x[row, :, :2])
        assert float(found[row]) <= float((d - p[row, 0]).square().sum(1).min()) + 1e-9


@NAMES
def test_order_does_not_matter_and_only_what_is_asked_moves(name):
    x, p = draw(name)
    found = scenes.project(name, x, p)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(scenes.project(name, x[:, order], p), found[:, order], atol=1e-8)
    kept = slice(0, 2) if name == "colour" else slice(2, 5)
    assert torch.equal(found[..., kept], x[..., kept])


@pytest.mark.parametrize("name", ["square", "circle", "line"])
def test_shapes_are_anywhere(name):
    """The projection of a shifted scene is the shifted projection."""
    x, p = draw(name)
    shift = torch.tensor([0.3, -0.7, 0, 0, 0], dtype=DOUBLE)
    shifted = scenes.project(name, x + shift, p)
    assert torch.allclose(shifted, scenes.project(name, x, p) + shift, atol=1e-8)


def test_quantities_by_hand():
    """Distances .1, .4, .6, .9 along the axis, the disc's radius .5: one, two, three, more."""
    x = torch.zeros(4, 4, 5, dtype=DOUBLE)
    x[..., 0] = torch.tensor([0.1, 0.4, 0.6, 0.9])
    p = torch.zeros(4, 4, dtype=DOUBLE)
    p[:, 0] = torch.tensor([1.9, 2.0, 3.5, 4.2])
    found = scenes.project("quantity", x, p)[..., 0]
    wanted = [
        [0.1, 0.5, 0.6, 0.9],
        [0.1, 0.4, 0.6, 0.9],
        [0.1, 0.4, 0.5, 0.9],
        [0.1, 0.4, 0.5, 0.5],
    ]
    assert torch.allclose(found, torch.tensor(wanted, dtype=DOUBLE))


# --- tasks -----------------------------------------------------------------------------

ALL = tuple(CONCEPTS)


def test_a_task_shows_its_concept():
    """m attended in each scene; they end on the set of the task's parameter, in the demonstrations,
    too; all others end where they started."""
    family = Family(ALL, n_entities=9)
    tasks = family.tasks(2, 60, 3, generator(), dtype=DOUBLE)
    for events in (tasks.demos, tasks.query):
        assert (events.mask.sum(-1) == 4).all()
        still = ~events.mask
        assert torch.equal(events.start[still], events.end[still])
    assert tasks.demos.start.shape == (2, 60, 3, 9, 5)
    assert tasks.query.start.shape == (2, 60, 9, 5)
    seen = set()
    for k, n in itertools.product(range(2), range(60)):
        name, p = ALL[tasks.concept[k, n]], tasks.parameter[k, n]
        seen.add(name)
        for end, mask in [
            (tasks.query.end[k, n], tasks.query.mask[k, n]),
            *zip(tasks.demos.end[k, n], tasks.demos.mask[k, n], strict=True),
        ]:
            assert violation(name, end[mask], p, slack=1e-6) < 3e-6
    assert seen == set(ALL)
    assert family.distance(tasks.query.end, tasks.query.mask, tasks).max() < 1e-5
    assert family.distance(tasks.query.start, tasks.query.mask, tasks).mean() > 0.1


@pytest.mark.parametrize("name", ["near", "square"])
def test_decoys_satisfy_another_parameter_and_not_this_one(name):
    """Of near, the four others lie within a disc; of square, they are the corners of one; and the
    task's own concept is at least the margin away, in more than 99 of 100 scenes."""
    family = Family((name,), margin=0.1)
    query = family.tasks(1, 1000, 1, generator())
    tasks, query = query, query.query
    decoys, _, _ = scenes.attended(query.end, ~query.mask)
    if name == "near":
        apart = torch.cdist(decoys[0, ..., :2], decoys[0, ..., :2]).amax((1, 2))
        assert apart.max() < 2 * NEAR + 1e-5
    else:
        for group in decoys[0, :50]:
            lengths = [float((a - b).norm()) for a, b in itertools.combinations(group[:, :2], 2)]
            side = min(lengths)
            assert violation(name, group.double(), torch.tensor([side])) < 1e-5
    off = family.distance(query.end, ~query.mask, tasks)
    assert float((off < 0.1 - 1e-6).float().mean()) < 0.01


def test_few_tasks_of_any_concept_are_ambiguous():
    """Where a concept asks something of each entity, none of the others satisfies it, but for
    3 scenes in 100 at most, whatever the concept."""
    family = Family(ALL)
    tasks = family.tasks(1, 1500, 1, generator())
    decoys, _, _ = scenes.attended(tasks.query.end, ~tasks.query.mask)
    for i, name in enumerate(ALL):
        rows = tasks.concept[0] == i
        group = decoys[0, rows]
        off = (group - scenes.project(name, group, tasks.parameter[0, rows])).norm(dim=-1)
        near = off.amin(1) if CONCEPTS[name].each else off.mean(1)
        assert float((near < 0.05).float().mean()) < 0.03, name


def test_groups_of_a_count_have_a_colour_of_their_own():
    """Of "quantity", where mixed groups could satisfy as well; of "near" all colours differ."""
    tasks = Family(("quantity", "near")).tasks(1, 40, 1, generator())
    for mask in (tasks.query.mask, ~tasks.query.mask):
        colours = scenes.attended(tasks.query.end, mask)[0][0, ..., scenes.COLOUR]
        same = (colours == colours[:, :1]).all(-1).all(-1)
        assert torch.equal(same, tasks.concept[0] == 0)


def test_without_decoys_the_others_are_scattered():
    tasks = Family(("near",), n_entities=6, n_decoys=0).tasks(1, 500, 1, generator())
    others, _, _ = scenes.attended(tasks.query.end, ~tasks.query.mask)
    assert others.shape == (1, 500, 2, 5)
    assert stats.kstest(others[..., 0].flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-4


def test_any_entity_is_attended_as_often():
    """4 of 8: half, within 5 standard errors for each; and models draw tasks of their own."""
    tasks = Family().tasks(2, 2000, 1, generator())
    share = tasks.query.mask[0].float().mean(0)
    assert ((share - 0.5).abs() < 5 * 0.5 / 2000**0.5).all()
    assert not torch.equal(tasks.query.mask[0], tasks.query.mask[1])
    assert not torch.equal(tasks.parameter[0], tasks.parameter[1])


def test_the_generator_is_all_the_randomness():
    one, same, other = (Family(ALL).tasks(1, 5, 2, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.demos.end, same.demos.end)
    assert not torch.equal(one.demos.end, other.demos.end)


def test_chance_is_one_of_all_choices():
    assert Family(n_entities=6, n_decoys=2).chance == pytest.approx(1 / 15)
    assert Family().chance == pytest.approx(1 / 70)


def test_attended_gathers_and_weighs():
    """Two and one of three; the missing one weighs nothing."""
    x = torch.arange(30.0).view(2, 3, 5)
    mask = torch.tensor([[True, False, True], [False, True, False]])
    group, weight, index = scenes.attended(x, mask)
    assert torch.equal(group[0], x[0, [0, 2]]) and torch.equal(group[1, 0], x[1, 1])
    assert weight.tolist() == [[1, 1], [1, 0]]
    assert index[0].tolist() == [0, 2] and index[1, 0] == 1


X = torch.zeros(2, 4, 5)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: scenes.project("cube", X, torch.zeros(2, 4)), "concept: expected one of near"),
        (lambda: scenes.project("near", X[0], torch.zeros(2, 4)), "x: expected"),
        (lambda: scenes.project("near", X[..., :4], torch.zeros(2, 4)), "x: expected"),
        (lambda: scenes.project("near", X, torch.zeros(2, 2)), "parameter: expected"),
        (lambda: scenes.project("square", X[:, :3], torch.zeros(2, 4)), "x: square is of 4"),
        (lambda: Family(()), "concepts: expected"),
        (lambda: Family(["near"]), "concepts: expected"),
        (lambda: Family(("cube",)), "concept: expected one of"),
        (lambda: Family(("square",), n_attended=3), "n_attended, n_decoys: square is of 4"),
        (lambda: Family(("square",), n_decoys=2), "n_attended, n_decoys: square is of 4"),
        (lambda: Family(n_attended=0), "n_attended"),
        (lambda: Family(n_decoys=-1), "n_decoys"),
        (lambda: Family(n_entities=7), "n_entities: expected >= n_attended"),
        (lambda: Family(margin=math.nan), "margin: expected"),
        (lambda: Family(margin=np.float64(0.1)), "margin: expected"),
        (lambda: Family(n_entities=9.0), "n_entities: expected a whole number"),
        (lambda: Family().tasks(1, 0, 1, generator()), "n: expected >= 1"),
        (lambda: Family().tasks(1, 1, 0, generator()), "n_demos: expected >= 1"),
        (lambda: Family().tasks(0, 1, 1, generator()), "n_models: expected >= 1"),
        (lambda: scenes.attended(X, torch.ones(2, 5, dtype=torch.bool)), "mask: expected bool"),
        (lambda: scenes.attended(X, torch.ones(2, 4)), "mask: expected bool"),
        (lambda: scenes.attended(X, torch.zeros(2, 4, dtype=torch.bool)), "mask: expected one"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_concept_of_four_needs_no_decoys():
    """No decoys are no group of another size; a task without them is drawn as any other."""
    family = Family(("square",), n_decoys=0)
    tasks = family.tasks(1, 5, 1, torch.Generator().manual_seed(0))
    assert family.distance(tasks.query.end, tasks.query.mask, tasks).max() < 1e-5


def test_more_than_three_has_no_upper_end():
    """Six in the disc are more than three as they are; for three of them, three have to go."""
    x = torch.zeros(2, 6, 5)
    x[..., 0] = torch.linspace(0.1, 0.4, 6)
    p = torch.zeros(2, 4)
    p[:, 0] = torch.tensor([4.5, 3.5])
    moved = (scenes.project("quantity", x, p) != x).any(-1).sum(-1)
    assert moved.tolist() == [0, 3]
