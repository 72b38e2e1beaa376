"""Rooms without a training: rulers with readers that are known, and who is fed with what."""

from types import SimpleNamespace

import pytest
import torch

from ebmbook.lab import rooms, translating
from ebmbook.lab.translating import CYCLE
from ebmref import translation as T
from ebmref import world
from ebmref.metrics import frechet_distance

SIDE = 8


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Reader:
    """Reads pixels of a picture's first row, and multiplies them."""

    def __init__(self, times: int):
        self.times = times

    def __call__(self, x):
        return self.times * x[:, 0, 0, :5]

    def features(self, x):
        return self.times * x[:, 1, 0, :3]


@pytest.fixture
def given():
    def domain(seed: int) -> rooms.Domain:
        sets = (noise(10 * seed + i, n, 3, SIDE, SIDE) for i, n in enumerate((12, 20, 20)))
        return rooms.Domain(*sets, Reader(seed))

    kind = (noise(6, 20) > 0).long()
    return rooms.Task(domain(1), domain(2), noise(5, 20, 4), kind, noise(7, 20, 3, SIDE, SIDE))


@pytest.mark.parametrize("way, times", [("ab", 2), ("ba", 1)])
def test_a_judgement_by_hand(given, way, times):
    """Against the truth, the reader and the reference of the domain that is translated to."""
    made = 1.2 * noise(8, 2, 20, 3, SIDE, SIDE)
    judged, to = rooms.judge(given, made, way), given.b if way == "ab" else given.a
    for k, x in enumerate(made.clamp(-1, 1)):
        off = (times * x[:, 0, 0, :4] - given.shown).square().mean(0).sqrt()
        right = (x[:, 0, 0, 4] > 0) == (given.kind == 1)
        apart = frechet_distance(times * x[:, 1, 0, :3], times * to.other[:, 1, 0, :3])
        assert judged.error[k].item() == pytest.approx((x - to.test).abs().mean().item() / 2)
        assert torch.allclose(judged.parts[k], off, atol=1e-6)
        assert judged.content[k].item() == pytest.approx(off.mean().item())
        assert judged.kind[k] == right.double().mean()
        assert judged.frechet[k].item() == pytest.approx(apart, rel=1e-4)
        assert judged.spread[k].item() == pytest.approx(x.std(0).mean().item() / 2)


def test_tallies_count_up_to_their_bounds(given):
    spread = given.b.test.std(0).mean() / 2
    parts = torch.zeros(6, 4)
    parts[:, 1] = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.5, 1.49])
    kind = torch.tensor([0.95, 0.94, 0.1, 0.11, 1.0, 1.0], dtype=torch.float64)
    vary = spread * torch.tensor([0.49, 0.51, 1.0, 1.0, 1.0, 1.0])
    error = torch.tensor([0.0549, 0.01, 0.01, 0.01, 0.01, 0.0551])
    judged = rooms.Judgement(error, parts, kind, torch.zeros(6, 2), torch.zeros(6), vary)
    assert rooms.arrived(judged).tolist() == [True, False, False, False, True, False]
    assert [each.n for each in translating.tally(given, judged)] == [2, 1, 1, 1]
    assert translating.tally(given, judged, error=0.056).arrived.n == 3


def test_what_is_hidden_by_hand(given):
    fed = []

    def ab(x):
        fed.append(x)
        return 0.5 * x + 0.1

    game = SimpleNamespace(shape=(2, 3, SIDE, SIDE), average={"ab": ab, "ba": lambda x: -0.4 * x})
    found, b = rooms.hidden(given, game, 3), given.developed
    for got, way in ((found.back, -0.2 * b + 0.1), (found.clean, 0.5 * given.a.test + 0.1)):
        assert got.tolist() == pytest.approx([(way - b).abs().mean().item() / 2] * 2)
    assert found.floor.tolist() == pytest.approx([(given.b.test - b).abs().mean().item() / 2])
    # A standard deviation of .03 in [0, 1], and of each model its own.
    grain = fed[1] - fed[0]
    assert grain.std().item() == pytest.approx(0.06, rel=0.05)
    assert grain.mean().abs() < 0.003 and not torch.equal(grain[0], grain[1])
    assert found.noised.tolist() == pytest.approx(
        ((0.5 * fed[1] + 0.1 - b).abs().flatten(1).mean(1) / 2).tolist()
    )


def test_each_opponent_is_as_told(given, monkeypatch):
    r, g, b = given.a.test.unbind(1)
    truth = torch.stack([0.3 * r * g * b - 0.2, 0.5 * r**3 + 0.2 * g, r * g - 0.3 * b**2], 1)
    given = given._replace(b=given.b._replace(test=truth))
    asked = {}

    def supervised(task, seed, **size):
        asked.update(size, seed=seed)
        return torch.neg

    monkeypatch.setattr(rooms, "judge", lambda task, pictures: pictures)
    monkeypatch.setattr(rooms, "supervised", supervised)
    found = rooms.opponents(given, 4, n_steps=5, n_models=3)
    assert asked == {"seed": 4, "n_steps": 5, "n_models": 3}
    assert torch.equal(found["unchanged"][0], given.a.test)
    assert torch.equal(found["mean picture"][0, 7], given.b.train.mean(0))
    assert found["mean picture"].shape == found["cubic"].shape == (1, *truth.shape)
    assert torch.equal(found["pairs"], -given.a.test.expand(3, *truth.shape))
    assert torch.equal(found["another shot"][0], given.developed)
    assert torch.allclose(found["cubic"][0], truth, atol=1e-4)
    # Of the straight maps the best: what is left has nothing to do with any colour.
    left = truth - found["affine"][0]
    assert left.square().mean() > 1e-3 and left.mean((0, 2, 3)).abs().max() < 1e-5
    assert torch.einsum("nchw,ndhw->cd", left, given.a.test).abs().max() < 1e-2


@pytest.fixture
def flat(monkeypatch):
    """Pictures of one colour: the engine's rises with x and the kind, the phone's falls."""

    def camera(slope: float):
        def drawn(states, side):
            told = 0.5 + slope * (states.x + 0.3 * states.kind)
            return told[:, None, None, None].expand(-1, 3, side, side)

        return drawn

    monkeypatch.setattr(world, "engine", camera(0.25))
    monkeypatch.setattr(world, "phone", camera(-0.25))


def test_a_task_is_of_its_streams(flat, monkeypatch):
    """Each set has states and chance of its own, and shares of its domain."""
    taught = []
    monkeypatch.setattr(rooms, "teach", lambda *args: taught.append(args))
    task = rooms.task(SIDE, 30, 7, n_test=20, n_reading=9, share=(0.2, 0.9))

    def source(stream):
        return rooms._source(7, stream, "cpu")

    def engine(states, stream):
        return rooms.signed(world.engine(states, SIDE))

    def phone(states, stream):
        clean = world.phone(states, SIDE)
        return rooms.signed(world.develop(clean, source(f"{stream}-chance")))

    reading = world.states(3000, source("reading"), share=0.5)
    shown = world.seen(reading)
    mean, sd = shown.mean(0), shown.std(0)
    domains = (("a", engine, 0.2, task.a), ("b", phone, 0.9, task.b))
    for (name, camera, share, domain), args in zip(domains, taught, strict=True):
        for found, stream, n in ((domain.train, "train", 30), (domain.other, "other", 20)):
            states = world.states(n, source(f"{stream}-{name}"), share=share)
            assert torch.equal(found, camera(states, f"{stream}-{name}"))
        reader, pictures, numbers, kind, n_steps, _ = args
        assert reader is domain.reader and n_steps == 9
        assert torch.equal(pictures, camera(reading, f"reading-{name}"))
        assert torch.allclose(numbers, (shown - mean) / sd) and torch.equal(kind, reading.kind)
    held = world.states(20, source("test"), share=0.2)
    assert torch.equal(task.a.test, engine(held, "test"))
    assert torch.equal(task.b.test, rooms.signed(world.phone(held, SIDE)))
    assert torch.equal(task.developed, phone(held, "test"))
    assert torch.equal(task.kind, held.kind)
    assert torch.allclose(task.shown, (world.seen(held) - mean) / sd)


def test_pairs_are_pairs(flat, given, monkeypatch):
    """What is translated shows the engine's view, and what it is held against the phone's."""
    fed, distance = [], rooms.distance

    def watched(made, true):
        fed.append((made.detach(), true))
        return distance(made, true)

    monkeypatch.setattr(rooms, "distance", watched)
    rooms.supervised(given, 3, n_steps=2, n_models=2)
    for made, true in fed:
        assert made.shape == true.shape == (2, 16, 3, SIDE, SIDE)
        both = torch.stack([x.mean((2, 3, 4)).flatten() for x in (made, true)])
        assert torch.corrcoef(both)[0, 1] < -0.4
        assert true.std((3, 4)).min() > 0.02  # a phone's noise


def test_either_way_is_judged_on_its_own_pictures(given, monkeypatch):
    monkeypatch.setattr(rooms, "judge", lambda task, made, way: (made, way))
    average = {"ab": torch.neg, "ba": torch.square}
    found = translating.both_ways(given, SimpleNamespace(shape=(2,), average=average))
    for way, x in (("ab", -given.a.test), ("ba", given.developed.square())):
        assert found[way][1] == way and torch.equal(found[way][0], x.expand(2, *x.shape))


def test_a_course_falls_to_its_last_count_and_shows_the_first_model(given):
    show = given.a.test[:3]
    course = translating.follow(given, CYCLE, 2, (1, 2), 3, width=2, show=show)
    assert course.game.recipe.anneal_over == course.game.step == 2
    made = T.translate(course.game.average["ab"], show.expand(2, *show.shape))
    assert torch.equal(course.shown[1], made[0])
    assert torch.equal(rooms.first(course.game, "ab", show), made[0])
    assert torch.equal(course.end.error, translating.both_ways(given, course.game)["ab"].error)


def test_a_slug_has_neither_blanks_commas_nor_capitals():
    assert translating.slug("CycleGAN, plain start") == "cyclegan-plain-start"
    assert translating.share(torch.ones(10, dtype=torch.bool)).low == pytest.approx(0.025**0.1)
