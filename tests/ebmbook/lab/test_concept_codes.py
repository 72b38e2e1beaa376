"""Several concepts in one network: pools, probes against exact cases, and runners-up."""

import itertools

import pytest
import torch

from ebmbook.lab import concept_codes as several
from ebmbook.lab import concepts as lab
from ebmref import concepts
from ebmref.concepts.scenes import POSITION, Family, attended
from ebmref.concepts.unrolling import Inner

NAMES = ("near", "left")
TWO = Family(NAMES)


@pytest.fixture(scope="module")
def tasks():
    return TWO.tasks(2, 40, 2, lab.source(1, "tasks"))


class TestPool:
    POOL = several.Pool(TWO, 7, 3)

    def test_its_tasks_are_the_familys(self):
        wanted = TWO.tasks(1, 7, 3, lab.source(3, "pool"))
        got = self.POOL.tasks(2, 50, 3, lab.source(1, "rows"))
        assert got.demos.end.shape == (2, 50, 3, 8, 5)
        same = (got.query.end[:, :, None] == wanted.query.end[0]).flatten(3).all(-1)
        assert bool((same.sum(-1) == 1).all()) and len(same.nonzero()[:, 2].unique()) == 7
        at = same.byte().argmax(-1)
        for part in ("concept", "parameter"):
            assert torch.equal(getattr(got, part), getattr(wanted, part)[0][at])
        assert torch.equal(got.demos.start, wanted.demos.start[0][at])
        assert torch.equal(got.query.mask, wanted.query.mask[0][at])

    def test_fewer_demonstrations_and_other_types(self):
        got = self.POOL.tasks(1, 4, 2, lab.source(1, "rows"), dtype=torch.float64)
        whole = self.POOL.tasks(1, 4, 3, lab.source(1, "rows"))
        assert torch.equal(got.demos.end.float(), whole.demos.end[:, :, :2])
        assert got.demos.end.shape[2] == 2 and got.demos.end.dtype == torch.float64
        assert got.query.mask.dtype == torch.bool and got.concept.dtype == torch.int64
        with pytest.raises(ValueError, match="n_demos: expected 3 at most"):
            self.POOL.tasks(1, 4, 4, lab.source(1, "rows"))

    def test_networks_learn_from_it(self):
        made = lab.learn(
            self.POOL, 2, 2, 5, weights="two", energy={"hidden": 8, "bumps": 0}, batch=4
        )
        assert not torch.equal(made.log_steps, lab.first(2, 5, "two", hidden=8, bumps=0).log_steps)


class TestByConcept:
    def test_means_over_the_tasks_of_each(self, tasks):
        model = lab.first(2, 2, "near", hidden=8, bumps=0)
        found = concepts.measure(model, TWO, tasks, Inner(2))
        got = several.by_concept(found, tasks, NAMES)
        for i, name in enumerate(NAMES):
            rows = tasks.concept[1] == i
            mean = float(found.after[1][rows].mean())
            assert float(got[name].after[1]) == pytest.approx(mean, abs=1e-6)
        assert set(got) == set(NAMES)


class TestProbe:
    def test_types_that_a_line_parts_are_read_and_noise_is_not(self):
        concept = torch.arange(3).repeat(2, 40)
        w = torch.nn.functional.one_hot(concept, 3).float() @ torch.randn(
            3, 4, generator=lab.source(1, "turn")
        )
        assert several.types_read(w, concept).tolist() == [1, 1]
        noise = torch.randn(2, 120, 4, generator=lab.source(2, "noise"))
        # One in three by chance; four standard errors of 60 rows.
        assert (several.types_read(noise, concept) - 1 / 3).abs().max() < 4 * (2 / 9 / 60) ** 0.5

    def test_it_is_asked_on_rows_that_it_has_not_seen(self):
        concept = torch.tensor([[0, 1] * 8])
        w = torch.eye(16)[None]
        assert several.types_read(w, concept.roll(1, 1)).item() <= 0.5

    def test_the_share_of_variance_that_is_missed(self, tasks):
        left, near = tasks.concept == 1, tasks.concept == 0
        w = torch.zeros(2, 40, 2)
        w[..., 0] = tasks.parameter[..., 0]
        w[..., 1] = torch.where(near, tasks.parameter[..., 1], w[..., 1])
        missed = several.unread(w, tasks, NAMES)
        assert max(part.max() for part in missed.values()) < 1e-9
        # Half of the variance missed: numbers and noise of equal variance, of many tasks.
        many = TWO.tasks(1, 4000, 1, lab.source(3, "many"))
        c = many.parameter[..., :1]
        noise = c.std() * torch.randn(c.shape, generator=lab.source(4, "noise"))
        half = several.unread(c + noise, many, NAMES)["left"]
        assert 0.4 < float(half) < 0.95 and bool(left.any())

    def test_the_worst_number_of_a_place_counts(self, tasks):
        w = torch.zeros(2, 40, 1)
        w[..., 0] = tasks.parameter[..., 0]
        missed = several.unread(w, tasks, NAMES)
        assert missed["near"].min() > 0.5 and missed["left"].max() < 1e-9

    def test_of_a_segment_the_middle_is_asked(self):
        between = Family(("between",)).tasks(1, 30, 1, lab.source(1, "between"))
        p = between.parameter
        w = (p[..., :2] + p[..., 2:]) / 2
        assert several.unread(w, between, ("between",))["between"].max() < 1e-9


class TestRunnerUp:
    def test_near_by_hand(self, tasks):
        near = Family(("near",))
        some = near.tasks(1, 3, 1, lab.source(5, "near"))
        found = several.runner_up(near, some)[0]
        for i in range(3):
            x, mask = some.query.end[0, i, :, POSITION], some.query.mask[0, i]
            away = ((x - some.parameter[0, i, :2]).norm(dim=-1) - 0.1).clamp(min=0)
            means = [
                float(away[list(group)].mean())
                for group in itertools.combinations(range(8), 4)
                if not mask[list(group)].all()
            ]
            assert len(means) == 69
            assert float(found[i]) == pytest.approx(min(means), abs=1e-5)

    def test_a_bystander_is_moved_next_to_one_that_is_meant(self, tasks):
        got = several.crowd(tasks, 0.07, lab.source(1, "crowd"))
        x, mask = got.query.end, tasks.query.mask
        moved = (x != tasks.query.end).any(-1)
        assert bool((moved.sum(-1) == 1).all()) and not bool((moved & mask).any())
        at = x[moved][:, POSITION].view(2, 40, 1, 2)
        group = attended(x, mask)[0][..., POSITION]
        assert torch.allclose((group - at).norm(dim=-1)[..., 0], torch.tensor(0.07), atol=1e-5)
        assert torch.equal(got.demos.end, tasks.demos.end)
        assert bool((several.runner_up(TWO, got) <= 0.07 / 4 + 1e-5)[tasks.concept == 0].all())

    def test_scenes_are_read_with_a_rival_at_each_distance(self, tasks):
        model = lab.first(2, 2, "near", hidden=8, bumps=0)
        read, away = several.rivalled(model, TWO, tasks, (0.05, 0.4), lab.source(1, "crowd"))
        assert read.shape == away.shape == (2, 80) and read.dtype == torch.bool
        source = lab.source(1, "crowd")
        for i, d in enumerate((0.05, 0.4)):
            scenes = several.crowd(tasks, d, source)
            rows = slice(40 * i, 40 * (i + 1))
            wanted = concepts.measure(model, TWO, scenes, Inner(5)).exact
            assert torch.equal(read[:, rows], wanted) and bool(wanted.any())
            assert torch.equal(away[:, rows], several.runner_up(TWO, scenes))


class TestBinned:
    def test_shares_by_distance(self):
        away = torch.tensor([0.1, 0.2, 0.3, 1.1, 1.2, 5.0])
        exact = torch.tensor([True, False, False, True, True, True])
        got = several.binned(exact, away, (0, 1, 2, 9), least=2)
        assert got.share.tolist() == pytest.approx([1 / 3, 1])
        assert got.n.tolist() == [3, 2]
        assert got.middle.tolist() == pytest.approx([0.2, 1.1])
