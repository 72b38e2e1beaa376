"""Translation of rooms: the task is unpaired, rulers know the truth, opponents are as told."""

import pytest
import torch

from ebmbook.lab import rooms, translating
from ebmbook.lab.translating import CYCLE, OFFICIAL_CYCLE, TRAVEL
from ebmref import data, world
from ebmref import translation as T


@pytest.fixture(scope="module")
def given():
    return rooms.task(16, 300, 7, n_test=200, n_reading=500)


def test_the_sets_have_the_law_and_no_partner(given):
    """No picture of A's training set shows a state of B's, nor of what is held out."""
    assert given.a.train.shape == given.b.train.shape == (300, 3, 16, 16)
    assert given.a.train.min() >= -1 and given.b.train.max() <= 1
    pairs = rooms.signed(world.engine(states_of("train-b", 300, 7), 16))
    assert torch.cdist(given.a.train.flatten(1), pairs.flatten(1)).min() > 0.1
    assert torch.cdist(given.a.train.flatten(1), given.a.test.flatten(1)).min() > 0.1
    assert torch.cdist(given.a.other.flatten(1), given.a.test.flatten(1)).min() > 0.1


def states_of(stream, n, seed, share=0.7):
    return world.states(n, rooms._source(seed, stream, "cpu"), share=share)


def test_what_is_held_out_is_pairs(given):
    states = states_of("test", 200, 7)
    assert torch.equal(given.a.test, 2 * world.engine(states, 16) - 1)
    assert torch.equal(given.b.test, 2 * world.phone(states, 16) - 1)
    assert torch.equal(given.kind, states.kind)
    off = (given.developed - given.b.test).abs().mean((1, 2, 3))
    assert 0.02 < off.mean() < 0.3
    assert given.shown.mean(0).abs().max() < 0.35
    assert given.shown.std(0).sub(1).abs().max() < 0.25


def test_laws_can_differ():
    other = rooms.task(16, 400, 7, n_test=200, n_reading=1, share=(0.15, 0.85))
    assert other.kind.double().mean() == pytest.approx(0.15, abs=0.1)
    red = other.a.train[:, 0].amax((1, 2)) > 2 * 0.75 - 1
    plain = other.a.train[:, 2].amax((1, 2))
    assert red.double().mean() > 0.5 and plain.isfinite().all()


def test_the_truth_is_read_as_itself_and_all_else_as_worse(given):
    """The ruler in order: another shot of the truth, the cubic colour map, the mean picture."""
    found = rooms.opponents(given, 7, n_steps=40, n_models=2)
    shot, mean = found["another shot"], found["mean picture"]
    assert shot.content < 0.35 and shot.kind > 0.97
    assert mean.content > 0.8 and mean.spread < 1e-6
    assert shot.content < found["cubic"].content < found["affine"].content
    assert shot.frechet < 0.5 * found["cubic"].frechet < 0.5 * found["unchanged"].frechet
    assert found["cubic"].error < found["affine"].error < found["unchanged"].error
    assert found["pairs"].error.shape == (2,)
    exact = rooms.judge(given, given.b.test[None])
    assert exact.error == 0


def test_a_judgement_by_hand(given):
    """Pictures of others: one in two of a wrong kind, all contents another's."""
    k = 2
    turned = torch.stack([given.b.test, given.b.test.roll(1, 0)])
    judged = rooms.judge(given, turned)
    wrong = (given.kind.roll(1, 0) == given.kind).double().mean()
    assert judged.kind[1] == pytest.approx(float(wrong), abs=0.03)
    apart = (given.shown.roll(1, 0) - given.shown).square().mean(0).sqrt()
    assert torch.allclose(judged.parts[1], apart, atol=0.25)
    assert judged.content.shape == (k,)
    own = (given.b.test - given.b.test.roll(1, 0)).abs().mean() / 2
    assert judged.error.tolist() == pytest.approx([0.0, float(own)], rel=1e-4)
    assert judged.spread[0] == pytest.approx(float(given.b.test.std(0).mean() / 2), rel=1e-4)


def test_a_mirrored_room_is_read_as_one(given):
    """Yaw's error in standard deviations is two where it has the wrong sign."""
    judged = rooms.judge(given, given.b.test.flip(3)[None])
    assert judged.parts[0, 1] > 1.2 and judged.error > 0.05


def test_arrived_takes_all_three():
    ones = torch.ones(4)
    parts = torch.tensor([0.4, 0.4, 0.5, 0.4])[:, None].expand(4, 4)
    judged = rooms.Judgement(
        torch.tensor([0.05, 0.06, 0.05, 0.05]), parts, torch.tensor([1, 1, 1, 0.9]),
        ones[:, None].expand(4, 2), ones, ones,
    )  # fmt: skip
    assert rooms.arrived(judged).tolist() == [True, False, False, False]
    assert rooms.arrived(judged, error=0.07).tolist() == [True, True, False, False]
    assert rooms.arrived(judged, kind=0.9).tolist() == [True, False, False, True]


def test_hiding_is_measured_against_its_floor(given):
    """A way back that is the identity hides all, one that forgets what A cannot show is no nearer
    than the floor."""
    game = translating.game(given, CYCLE.but(average=0.0), 1, 10, 0, width=2)

    class Fixed(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    game.average = {"ab": Fixed(lambda x: x), "ba": Fixed(lambda x: x)}
    found = rooms.hidden(given, game, 0)
    assert found.back == 0 and 0.01 < found.noised < 0.03
    own = (given.a.test - given.developed).abs().mean() / 2
    assert found.clean.item() == pytest.approx(float(own), rel=1e-5)
    assert found.clean_noised > found.clean and found.clean_blurred != found.clean
    even = torch.nn.functional.avg_pool2d(given.developed, 3, 1, 1, count_include_pad=False)
    off = (even - given.developed).abs().mean() / 2
    assert found.blurred.item() == pytest.approx(float(off), rel=1e-4)
    # The true translation of the clean picture, whatever F is given.
    clean = given.b.test[None]
    game.average = {"ab": Fixed(lambda x: clean), "ba": Fixed(lambda x: x)}
    found = rooms.hidden(given, game, 0)
    assert found.back.item() == pytest.approx(found.floor.item(), rel=1e-5)
    assert found.clean_noised.item() == pytest.approx(found.floor.item(), rel=1e-5)


# Arms --------------------------------------------------------------------------------------------


def test_arms_with_equal_networks_start_from_equal_weights(given):
    one = translating.game(given, CYCLE, 2, 100, 3, width=2)
    other = translating.game(given, CYCLE.but(cycle=0.0), 2, 50, 3, width=2)
    assert torch.equal(one.players.ba.out.weight, other.players.ba.out.weight)
    assert one.recipe.anneal_over == 100 and other.recipe.anneal_over == 50
    plain = translating.game(given, CYCLE.but(start="plain"), 2, 100, 3, width=2)
    assert plain.players.ab.start == "plain"
    assert torch.equal(plain.players.ab.into.weight, one.players.ab.into.weight)
    assert translating.game(given, TRAVEL, 2, 9, 3, width=2).players.siamese is not None
    assert translating.game(given, OFFICIAL_CYCLE, 2, 9, 3, width=2).players.ab.norm == "instance"


def test_a_course_is_judged_on_the_way_and_resumed(given, tmp_path):
    show = given.a.test[:3]
    path = tmp_path / "course.pt"
    straight = translating.follow(given, CYCLE, 2, (2, 5), 3, width=2, show=show)
    kept = translating.follow(given, CYCLE, 2, (2, 5), 3, width=2, show=show, checkpoint=path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["course-2.pt", "course-5.pt"]
    again = translating.follow(given, CYCLE, 2, (2, 5), 3, width=2, show=show, checkpoint=path)
    for course in (kept, again):
        assert torch.equal(course.end.error, straight.end.error)
        assert torch.equal(course.judged[0]["ba"].error, straight.judged[0]["ba"].error)
        assert torch.equal(course.shown, straight.shown)
    assert straight.shown.shape == (2, 3, 3, 16, 16)
    assert not torch.equal(straight.shown[0], straight.shown[1])


def test_bend_is_the_travel_loss_of_what_is_held_out(given):
    made = translating.follow(given, TRAVEL, 2, (1,), 3, width=2).game
    a = given.a.test[:200].expand(2, 200, *given.picture)
    u, w = made.players.siamese(a), made.players.siamese(T.translate(made.average["ab"], a))
    assert torch.allclose(translating.bend(given, made), T.travel_loss(u, w), atol=1e-5)


def test_shares_have_exact_intervals():
    """Of none of ten, 1 - .025^(1/10)."""
    none = translating.share(torch.zeros(10, dtype=torch.bool))
    assert (none.n, none.of, none.low) == (0, 10, 0.0)
    assert none.high == pytest.approx(1 - 0.025**0.1)
    assert none.told() == "0 of 10 (0.00 to 0.31)" and none.value == 0


def test_a_tally_by_hand(given):
    """True pictures arrive; mirrored ones, balls of the other colour, and one picture do not."""
    true = given.b.test
    states = states_of("test", 200, 7)
    other = rooms.signed(world.phone(states._replace(kind=1 - states.kind), 16))
    teal = rooms.judge(given, torch.stack([true, other])).teal
    assert torch.allclose(teal, torch.tensor([[0, 1], [1, 0]]).double(), atol=0.05)
    turned = {name: -getattr(states, name) for name in ("x", "yaw", "bearing")}
    mirrored = rooms.signed(world.phone(states._replace(**turned), 16))
    mean = true.mean(0).expand_as(true)
    judged = rooms.judge(given, torch.stack([true, mirrored, other, mean]))
    found = translating.tally(given, judged)
    assert [each.n for each in found] == [1, 1, 1, 1]
    assert translating.tally(given, judged, error=0.0).arrived.n == 1
    assert translating.tally(given, judged, content=0.0).arrived.n == 0


def test_a_trial_pairs_its_arms(given, tmp_path):
    arms = {"cycle": CYCLE, "adversary alone": CYCLE.but(cycle=0.0)}
    path = tmp_path / "some.pt"
    found = translating.trial(given, arms, 2, (2,), 3, width=2, checkpoint=path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "some-cycle-2.pt", "some-adversary-alone-2.pt"
    }  # fmt: skip
    assert found["cycle"].game.recipe.cycle == 2 and found["adversary alone"].game.recipe.cycle == 0
    less = found["cycle"].end.content - found["adversary alone"].end.content
    told = translating.row(given, found["cycle"], error=1, content=9, kind=0)
    assert told["arrived"].startswith("2 of 2") and told["collapsed"] == 0
    assert told["content"] == f"{found['cycle'].end.content.median():.2f}"
    gap = translating.apart(found["cycle"], found["adversary alone"])
    assert gap.value == pytest.approx(float(less.mean()))
    assert gap.se == pytest.approx(float(less.std() / 2**0.5))


def test_pictures_of_a_folder_come_back(given, tmp_path):
    """To half a grey level."""
    folder = rooms.as_folder(given.a.train[:3], tmp_path / "a")
    back, _ = data.domains(folder, folder)
    assert (rooms.signed(back) - given.a.train[:3]).abs().max() <= 1 / 255 + 1e-6
    shown = rooms.seen(given.a.train[:3])
    assert shown.shape == (3, 16, 16, 3) and shown.min() >= 0 and shown.max() <= 1


def test_rows_and_numbers_say_the_same(given):
    judged = rooms.judge(given, torch.stack([given.b.test, given.b.test.flip(3)]))
    assert rooms.row(judged)["error"].startswith("0.000 to 0.")
    assert rooms.numbers(judged)["error"].shape == (2,)
    one = rooms.judge(given, given.b.test[None])
    assert rooms.row(one)["error"] == "0.000" and rooms.numbers(one)["kind"].dim() == 0
