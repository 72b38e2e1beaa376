"""What keeps energies from being learned: lost networks, and codes that leave nothing."""

import pytest
import torch

from ebmbook.lab import concept_breaks as breaks
from ebmbook.lab import concepts as lab
from ebmref.concepts.scenes import Family, attended

NEAR = Family(("near",))


@pytest.fixture(scope="module")
def tasks():
    return NEAR.tasks(2, 5, 3, lab.source(1, "tasks"))


class TestBegun:
    def test_the_first_loss_is_that_of_held_out_tasks(self):
        got = breaks.begun(NEAR, 2, 3)
        model = lab.first(2, 3, "steep", **breaks.SMALL)
        tasks = NEAR.tasks(2, 8, 3, lab.source(3, "steep-tasks"))
        assert torch.allclose(got.loss, lab.held_out_loss(model, tasks), rtol=1e-5)
        assert not got.lost.any() and bool((got.slope > 0).all())

    def test_steep_energies_are_lost_without_a_bound_only(self):
        assert breaks.begun(NEAR, 4, 3, times=4, bound=1e9).lost.any()
        bound = breaks.begun(NEAR, 4, 3, times=4)
        # Four entities start at most 5.7 from their end in all and move by at most 5; an attention
        # moves by at most 15, over eight entities.
        assert bool((bound.loss <= 2 * 10.7**2 / 4 + 15 / 8**0.5 + 0.7).all())
        assert not (bound.loss > breaks.THROWN).any()

    def test_times_are_of_the_weights_and_not_of_the_steps(self):
        one, two = breaks.begun(NEAR, 2, 3), breaks.begun(NEAR, 2, 3, times=2)
        assert bool((two.slope > 3 * one.slope).all())
        model = lab.first(2, 3, "steep", **breaks.SMALL)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p *= 1 if name == "log_steps" else 2
        tasks = NEAR.tasks(2, 8, 3, lab.source(3, "steep-tasks"))
        assert torch.allclose(two.loss, lab.held_out_loss(model, tasks), rtol=1e-5)


class TestPaced:
    def test_only_the_codes_steps_differ(self):
        one, two = (lab.first(2, 1, "paced", **breaks.paced(eta)) for eta in (0.3, 3.0))
        assert torch.equal(one.enter.weights[0], two.enter.weights[0])
        assert (two.log_steps - one.log_steps).exp()[0].tolist() == pytest.approx([10, 1, 1, 1])

    def test_loss_after_learning(self, tasks):
        got = breaks.after(NEAR, 0.3, 2, 3, tasks, 1, batch=4)
        begun = lab.held_out_loss(lab.first(2, 1, "paced", **breaks.paced(0.3)), tasks)
        assert got.shape == (2,) and not torch.equal(got, begun)
        none = breaks.after(NEAR, 0.3, 2, 1, tasks, 1, batch=4, learning_rate=1e-9)
        assert torch.allclose(none, begun, rtol=1e-4)

    def test_what_is_left_of_the_energy(self, tasks):
        model = lab.first(2, 1, "paced", **breaks.paced(0.3))
        x, s, _ = attended(tasks.demos.end, tasks.demos.mask)
        w = lab.codes(model, tasks)
        ratio = [
            sum(model(x[:, :, d], s[:, :, d], code) for d in range(3))
            for code in (w, torch.zeros_like(w))
        ]
        wanted = (ratio[0] / ratio[1]).median(1).values
        assert torch.allclose(breaks.left(model, tasks), wanted.detach())
        assert bool((wanted < 1).all())
