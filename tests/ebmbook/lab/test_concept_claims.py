"""The paper's claims in the laboratory: factors by network, ways of asking, ways down, arms."""

import math

import pytest
import torch

from ebmbook.lab import concept_claims as claims
from ebmbook.lab import concepts as lab
from ebmref.concepts.scenes import COLOUR, Family, attended

K, N = 2, 6
NEAR, LEFT = Family(("near",)), Family(("left",))
SMALL = {"hidden": 8, "bumps": 0}


@pytest.fixture(scope="module")
def tasks():
    return NEAR.tasks(K, N, 3, lab.source(1, "tasks"))


@pytest.fixture(scope="module")
def model():
    return lab.first(K, 2, "near", **SMALL).requires_grad_(False)


class TestChange:
    def test_the_median_of_factors_that_are_paired(self):
        found = claims.change(torch.tensor([8.0, 1.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
        assert found.factor == pytest.approx(3)
        assert (found.least, found.most) == (pytest.approx(0.5), pytest.approx(8))
        assert (found.shrank, found.of) == (2, 3)

    def test_an_even_number_takes_the_geometric_mean_of_the_middle_two(self):
        found = claims.change(torch.tensor([1.0, 4.0, 16.0, 99.0]), torch.ones(4))
        assert found.factor == pytest.approx(8)

    def test_the_error_is_that_of_the_median(self):
        before = 10.0 ** torch.arange(11.0)
        found = claims.change(before, torch.ones(11))
        # Of eleven the second least and the second most hold the median with 95 %.
        assert (found.low, found.high) == (pytest.approx(10), pytest.approx(1e9))
        assert found.centre == (pytest.approx(1e5), pytest.approx((1e9 - 10) / 3.92))

    def test_the_network_in_the_middle_is_rounded(self):
        assert claims.mid(torch.tensor([9.0, 0.123456, 0.1])) == 0.12
        assert claims.mid(torch.tensor([0.2, 0.123456]), 3) == 0.162

    def test_zeros_are_refused(self):
        with pytest.raises(ValueError, match="expected numbers > 0"):
            claims.change(torch.ones(2), torch.tensor([1.0, 0.0]))


class TestAsking:
    def test_answers_by_demonstrations_and_steps(self, model, tasks):
        shown = claims.by_demos(model, NEAR, tasks, (1, 3))
        assert torch.equal(shown[3].after, lab.inquire(model, NEAR, tasks).after)
        one = lab.inquire(model, NEAR, lab.with_demos(tasks, 1))
        assert torch.equal(shown[1].exact_wrong, one.exact_wrong)
        assert not torch.equal(shown[1].after, shown[3].after)
        stepped = claims.by_steps(model, NEAR, tasks, (1, 5))
        assert torch.equal(stepped[5].after, shown[3].after)
        assert not torch.equal(stepped[1].after, stepped[5].after)

    def test_families_of_other_sizes(self):
        assert claims.wider("square", 16).chance == 1 / 1820
        assert claims.groups("near", 6).chance == 1 / 924
        assert claims.groups("near", 6).n_decoys == 6

    def test_tasks_of_their_own_follow_the_stream(self, model):
        got, drawn = claims.asked(model, NEAR, 5, 3, "wide")
        again, _ = claims.asked(model, NEAR, 5, 3, "wide")
        assert torch.equal(got.after, again.after)
        assert not torch.equal(got.after, claims.asked(model, NEAR, 5, 3, "other")[0].after)
        assert drawn.demos.mask.shape == (K, 5, 5, 8)

    def test_search_and_descent_read_the_first_scenes(self, model, tasks):
        found = claims.sought(model, tasks, 3)
        w = lab.codes(model, tasks)[:, :3]
        mask = tasks.query.mask[:, :3]
        wanted = lab.searched(model, tasks.query.end[:, :3], w) == mask
        assert torch.equal(found.search, wanted.all(-1).double().mean(1))
        for share, n in ((found.descent, 5), (found.longer, 20)):
            read = lab.masks_of(model, tasks, lab.codes(model, tasks), n)[-1][:, :3]
            best = torch.zeros_like(mask).scatter(2, read.topk(4, -1).indices, True)
            assert torch.equal(share, (best == mask).all(-1).double().mean(1))

    def test_descent_ends_after_five_steps_or_twenty(self, model, tasks, monkeypatch):
        right = tasks.query.mask.float()
        for n in (5, 20):
            path = [1 - right[:, :2]] * 20
            path[n - 1] = right[:, :2]
            monkeypatch.setattr(lab, "masks_of", lambda *_, path=path: path)
            found = claims.sought(model, tasks, 2)
            assert found.descent.tolist() == [float(n == 5)] * K
            assert found.longer.tolist() == [float(n == 20)] * K


class TestEdgeShown:
    def test_counted_agrees_with_the_formula(self):
        """Four standard errors of 4000 demonstrations."""
        counted, expected = claims.edge_shown(LEFT.tasks(1, 4000, 1, lab.source(4, "edges")))
        assert abs(counted - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5
        # The mean of 1 - ((1 + c) / 2)^4 over c in [-0.8, -0.2], by hand.
        assert float(expected) == pytest.approx(1 - (0.4**5 - 0.1**5) / (5 * 0.3), abs=1e-3)


class TestTaught:
    def test_the_rate_of_least_loss_of_its_own(self, tasks):
        made = claims.taught(
            NEAR, "generation", (1e-9, 4e-3), tasks, K, 8, 5, weights="near", energy=SMALL, batch=4
        )
        assert set(made.models) == set(made.losses) == {1e-9, 4e-3}
        first = lab.first(K, 5, "near", **SMALL)
        lost = lab.held_out_loss(first, tasks, identify=0.0)
        assert made.losses[1e-9] == pytest.approx(lab.middle(lost).median, rel=1e-4)
        assert made.rate == min(made.losses, key=made.losses.get)
        assert made.best is made.models[made.rate]

    def test_questions_differ_in_what_they_ask(self, tasks):
        made = {
            question: lab.by_model(
                lab.codes(
                    claims.taught(
                        NEAR, question, (4e-3,), tasks, K, 2, 5, weights="near", energy=SMALL,
                        batch=4,
                    ).best,
                    tasks,
                )[..., 0]
            )
            for question in claims.QUESTIONS
        }  # fmt: skip
        values = torch.stack(list(made.values()))
        assert len(values.unique(dim=0)) == 5


class TestWaysDown:
    def test_each_network_takes_its_best_way(self, model, tasks):
        ways = ((1e-6, 1), (0.3, 5))
        found = claims.ways_down(model, NEAR, tasks, tasks, ways)
        query = tasks.query
        still = lab.by_model(NEAR.distance(query.start, query.mask, tasks))
        assert torch.equal(found.before, still)
        w, paced = lab.codes(model, tasks), lab.double(model).float()
        with torch.no_grad():
            paced.log_steps[:, 1:3] += math.log(0.3)
        x = lab.scenes_of(paced, tasks, w)[-1]
        moved = lab.by_model(NEAR.distance(x, query.mask, tasks))
        assert found.after.tolist() == pytest.approx(torch.minimum(still, moved).tolist(), abs=1e-4)
        assert found.steps.tolist() == torch.where(moved < still, 5.0, 1.0).tolist()

    def test_networks_choose_apart_and_by_the_tuning_tasks(self, model, tasks, monkeypatch):
        tuning = NEAR.tasks(K, N, 3, lab.source(9, "tuning"))
        left = {0.1: [1.0, 4.0], 1.0: [3.0, 2.0]}

        def generated(model, family, some, times, n_steps, shift=0):
            other = some is tasks
            return torch.tensor(left[times]) * (-1) ** other + 100 * other + 1000 * shift

        monkeypatch.setattr(claims, "_generated", generated)
        found = claims.ways_down(model, NEAR, tuning, tasks, ((0.1, 5), (1.0, 50)))
        assert found.times.tolist() == pytest.approx([0.1, 1.0])
        assert found.steps.tolist() == [5, 50]
        assert found.after.tolist() == [99, 98] and found.wrong.tolist() == [1099, 1098]

    def test_the_wrong_code_is_that_of_the_task_before(self, model, tasks):
        found = claims.ways_down(model, NEAR, tasks, tasks, ((1.0, 5),))
        w = lab.codes(model, tasks)
        x = lab.scenes_of(model, tasks, w.roll(1, 1))[-1]
        missed = lab.by_model(NEAR.distance(x, tasks.query.mask, tasks))
        assert found.wrong.tolist() == pytest.approx(missed.tolist(), abs=1e-6)

    def test_the_network_itself_is_left_alone(self, model, tasks):
        before = model.log_steps.clone()
        claims.ways_down(model, NEAR, tasks, tasks, ((3.0, 1),))
        assert torch.equal(model.log_steps, before)


class TestArms:
    def test_hands_and_elbows_by_hand(self):
        angles = torch.tensor([[0.0, 0.0], [math.pi / 2, 0.0], [0.0, math.pi]])
        assert claims.hands(angles).flatten().tolist() == pytest.approx(
            [1.5, 0, 0, 1.5, 0, 0], abs=1e-6
        )
        assert claims.elbows(angles).flatten().tolist() == pytest.approx(
            [0.75, 0, 0, 0.75, 0.75, 0], abs=1e-6
        )

    def test_hands_descend_the_energy_of_what_they_are(self, model, tasks):
        w = lab.codes(model, tasks)
        path = claims.reach(model, tasks, w, 20, lab.source(1, "arm"))
        assert len(path) == 21 and path[0].shape == (K, N, 4, 2)
        group, s, _ = attended(tasks.query.start, tasks.query.mask)
        start = path[0].clone().requires_grad_()

        def energy(angles):
            x = torch.cat([claims.hands(angles), group[..., COLOUR]], -1)
            return model(x, s, w)

        assert energy(path[-1]).mean() < energy(path[0]).mean()
        (slope,) = torch.autograd.grad(energy(start).sum(), start)
        u = model.log_steps[:, 1].exp()[:, None, None, None] * slope
        step = u / (1 + u.square().sum((2, 3), keepdim=True)).sqrt()
        assert torch.allclose(path[1], (start - step).detach(), atol=1e-6)

    def test_distance_of_hands_is_that_of_entities_there(self, tasks):
        angles = torch.rand(K, N, 4, 2, generator=lab.source(2, "angles"))
        found = claims.hands_off(NEAR, tasks, angles)
        place = tasks.parameter[:, :, None, :2]
        away = (claims.hands(angles) - place).norm(dim=-1) - 0.1
        assert torch.allclose(found, away.clamp(min=0).mean(-1), atol=1e-5)
