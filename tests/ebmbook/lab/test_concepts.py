"""Concepts in the laboratory: what is asked, the controls, and many networks in a few numbers."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from ebmbook.lab import concepts as lab
from ebmref import concepts
from ebmref.concepts.scenes import COLOUR, POSITION, Family
from ebmref.concepts.unrolling import Inner

K, N = 2, 6
NEAR = Family(("near",))


@pytest.fixture(scope="module")
def tasks():
    return NEAR.tasks(K, N, 3, lab.source(1, "tasks"))


@pytest.fixture(scope="module")
def model():
    return lab.first(K, 2, "near", hidden=8, bumps=0).requires_grad_(False)


@pytest.fixture(scope="module")
def w(model, tasks):
    return lab.codes(model, tasks)


def learned(**recipe):
    return lab.learn(
        NEAR, K, 3, 5, weights="near", energy={"hidden": 8, "bumps": 0}, batch=4, **recipe
    )


def weights(model):
    return torch.cat([p.flatten(1) for p in model.parameters()], 1)


class TestLearn:
    def test_it_is_the_packages_learner(self):
        wanted = lab.first(K, 5, "near", hidden=8, bumps=0)
        learner = concepts.Learner(wanted, NEAR, concepts.Recipe(batch=4, anneal_over=3), 5)
        for _ in range(3):
            learner.advance()
        assert torch.equal(weights(learned()), weights(wanted))
        assert not any(p.requires_grad for p in learned().parameters())

    def test_the_recipe_and_the_path_through_the_code_are_passed_on(self):
        whole, cut = learned(), learned(through_code=False)
        assert not torch.equal(weights(whole), weights(cut))
        assert not torch.equal(weights(whole), weights(learned(generate=0.0)))

    def test_first_weights_follow_seed_and_stream(self):
        one = weights(lab.first(K, 2, "near", hidden=8))
        assert torch.equal(one, weights(lab.first(K, 2, "near", hidden=8)))
        assert not torch.equal(one, weights(lab.first(K, 3, "near", hidden=8)))
        assert not torch.equal(one, weights(lab.first(K, 2, "square", hidden=8)))

    def test_a_copy_in_double_precision_leaves_the_network_alone(self, model):
        assert lab.double(model).log_steps.dtype == torch.double
        assert model.log_steps.dtype == torch.float


class TestAsking:
    def test_means_over_tasks_and_over_rows(self):
        values = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
        rows = torch.tensor([[True, True, False], [False, False, True]])
        assert lab.by_model(values).tolist() == [3, 1]
        assert lab.by_model(values, rows).tolist() == [1.5, 3]
        assert lab.by_model(values > 1).tolist() == pytest.approx([2 / 3, 1 / 3])

    def test_answers_are_the_packages_means(self, model, tasks):
        found, wanted = lab.inquire(model, NEAR, tasks), concepts.measure(
            model, NEAR, tasks, Inner(5)
        )  # fmt: skip
        for name in lab.Answers._fields:
            mean = getattr(wanted, name).double().mean(1)
            assert torch.allclose(getattr(found, name), mean), name
        again = lab.inquire(model, NEAR, tasks, 1)
        assert not torch.equal(found.after, again.after)

    def test_the_held_out_loss_weighs_both_questions(self, model, tasks):
        made, found = concepts.truth_loss(model, tasks, concepts.Recipe())
        assert torch.allclose(lab.held_out_loss(model, tasks), 2 * made + found, atol=1e-6)
        alone = lab.held_out_loss(model, tasks, identify=0.0)
        assert torch.allclose(alone, 2 * made, atol=1e-6)

    def test_fewer_demonstrations(self, tasks):
        fewer = lab.with_demos(tasks, 2)
        assert torch.equal(fewer.demos.end, tasks.demos.end[:, :, :2])
        assert torch.equal(fewer.query.end, tasks.query.end)

    def test_the_first_tasks(self, model, tasks, w):
        few = lab.head(tasks, 2)
        assert torch.allclose(lab.codes(model, few), w[:, :2], atol=1e-6)
        assert torch.equal(few.query.start, tasks.query.start[:, :2])
        assert few.concept.shape == (K, 2) and few.parameter.shape == (K, 2, 4)

    def test_codes_of_others_are_those_rolled(self, model, tasks, w):
        other = lab.others(tasks)
        assert torch.allclose(lab.codes(model, other), w.roll(1, 1), atol=1e-6)
        assert torch.equal(other.parameter[:, 1], tasks.parameter[:, 0])
        assert torch.equal(other.query.end, tasks.query.end)

    def test_entities_that_lie_farthest_apart(self, tasks):
        group = concepts.scenes.attended(tasks.query.end, tasks.query.mask)[0][1, ..., POSITION]
        least = [torch.pdist(four).min().item() for four in group]
        assert lab.spread_out(tasks, 1) == int(np.argmax(least))

    def test_the_code_that_is_farthest_away(self, tasks, w):
        found = lab.away(tasks, w, 1)
        assert found.shape == w.shape
        for k in range(K):
            gap = [(p - tasks.parameter[k, 1]).norm() for p in tasks.parameter[k]]
            assert torch.equal(found[k, 3], w[k, int(np.argmax(gap))])

    def test_misled_to_the_decoys_and_to_the_others_place(self, model, tasks, w, monkeypatch):
        """Of an inference that attends to the decoys in two of three tasks, and moves all
        attended entities to where the other's place is."""
        decoys = (~tasks.query.mask).float()
        decoys[:, ::3] = tasks.query.mask[:, ::3].float()

        def mask(model, x, code, inner):
            assert torch.equal(code, w.roll(1, 1))
            return [decoys]

        def scene(model, start, mask, code, inner):
            assert torch.equal(code, w.roll(1, 1))
            x = start.clone()
            x[..., POSITION] = tasks.parameter.roll(1, 1)[:, :, None, :2] + 0.05
            return [x]

        monkeypatch.setattr(concepts, "infer_mask", mask)
        monkeypatch.setattr(concepts, "infer_scene", scene)
        found = lab.misled(model, NEAR, tasks, w)
        assert found.decoys.tolist() == pytest.approx([2 / 3, 2 / 3])
        assert found.theirs.abs().max() < 1e-6


class TestLeastEnergy:
    def test_search_finds_the_least_of_all_masks(self, model, tasks, w):
        x = tasks.query.end
        found = lab.searched(model, x, w)
        for k, n in ((0, 0), (1, 5)):
            best, chosen = min(
                (
                    model(
                        x[:, n : n + 1],
                        torch.tensor([float(i in four) for i in range(8)]).expand(K, 1, 8),
                        w[:, n : n + 1],
                    )[k].item(),
                    four,
                )
                for four in itertools.combinations(range(8), 4)
            )
            assert found[k, n].nonzero()[:, 0].tolist() == list(chosen), best
        assert (lab.searched(model, x, w, 3).sum(-1) == 3).all()

    def test_the_best_of_several_is_no_worse_than_one(self, model, tasks, w):
        x = tasks.query.end
        one = lab.masks_of(model, tasks, w)[-1]
        best = lab.from_starts(model, x, w, 4, lab.source(0, "starts"))
        assert (model(x, best.sigmoid(), w) <= model(x, one.sigmoid(), w) + 1e-7).all()

    def test_undercut_counts_attentions_below_the_truth(self, model, tasks, w):
        least = lab.searched(model, tasks.query.end, w)
        same = lab.undercut(model, tasks, (2 * tasks.query.mask - 1) * 100.0, w)
        assert same.tolist() == [0, 0]
        differ = (least != tasks.query.mask).any(-1).double().mean(1)
        assert torch.equal(lab.undercut(model, tasks, (2 * least - 1) * 100, w), differ)


class TestTheEnergy:
    def test_over_one_place(self, model, tasks, w):
        """Where the entity is moved to its own place, the energy is that of the scene."""
        group, s, _ = concepts.scenes.attended(tasks.query.end, tasks.query.mask)
        for n in (0, 4):
            energy = lab.over_one(model, tasks, w, group[1, n, :1, POSITION])
            assert energy.shape == (K, N, 1)
            assert energy[1, n, 0] == pytest.approx(model(group, s, w)[1, n].item(), rel=1e-4)

    def test_places_and_the_lowest_of_them(self):
        places = lab.grid(3, 1.0)
        assert places[0].tolist() == [-1, -1] and places[1].tolist() == [-1, 0]
        energy = torch.ones(1, 3, 9)
        energy[0, :, 1] = 0
        target = torch.tensor([[[-1.0, 0.0], [-1.0, 0.5], [2.0, 0.0]]])
        assert lab.lowest(energy, places, target).tolist() == [0.5]

    def test_zeros_of_an_energy_that_is_known(self, tasks):
        class Known(torch.nn.Module):
            """2 where the scene is the end, 6 at its start and 1 elsewhere; single precision sees
            1e-3 more."""

            def forward(self, x, s, w):
                value = torch.ones(K, N, dtype=torch.double)
                for scene, energy in ((tasks.query.start, 6.0), (tasks.query.end, 2.0)):
                    place = concepts.scenes.attended(scene, tasks.query.mask)[0]
                    same = (x.double() - place.double()).abs().amax((2, 3)) < 1e-9
                    value[same] = energy
                return value if x.dtype == torch.double else (value + 1e-3).float()

        found = lab.zeros(Known(), tasks, torch.zeros(K, N, 1))
        assert found.below_start.tolist() == [1, 1] and found.below_decoys.tolist() == [0, 0]
        assert found.of_start.tolist() == pytest.approx([1 / 3] * K, rel=1e-3)
        assert found.over_rounding.tolist() == pytest.approx([2000] * K, rel=1e-2)


class TestManyNetworks:
    def test_the_middle_of_twenty_between_the_sixth_and_the_fifteenth(self):
        found = lab.middle(range(20, 0, -1))
        assert found == (10.5, 6, 15, 1, 20)
        assert lab.middle(range(5)) == (2, 0, 4, 0, 4)
        assert lab.middle(range(6)) == (2.5, 0, 5, 0, 5)
        with pytest.raises(ValueError, match="two or more"):
            lab.middle([1])

    def test_the_centre_has_an_error(self):
        assert lab.centre(range(1, 21)) == pytest.approx((10.5, 9 / 3.92))
        assert lab.centre([1.0, 1.0]) == (1, 0)
        assert [lab.short(v) for v in (0.01938, 7.675, -123.4)] == [0.019, 7.7, -120]

    def test_the_network_in_the_middle(self):
        assert lab.typical([3.0, 1.0, 2.0]) == 2
        assert lab.typical(torch.tensor([4.0, 1.0, 2.0, 3.0])) == 2

    def test_told(self):
        assert lab.told([0.5, 0.25, 1.0]) == "0.50 (0.25 to 1.0)"
        assert lab.told([6e-5, 2e-6, 16.0]) == (
            r"$6.0 \times 10^{-5}$ ($2.0 \times 10^{-6}$ to 16)"
        )
        assert lab.told([0.123456, 1, 2], 3) == "1.00 (0.123 to 2.00)"


class TestFigures:
    def test_dots_are_where_the_entities_are(self, tasks):
        x = tasks.query.end[0, 0]
        _, ax = plt.subplots()
        lab.dots(ax, x)
        assert np.allclose(ax.collections[0].get_offsets(), x[:, POSITION])
        assert np.allclose(ax.collections[0].get_facecolors()[:, :3], x[:, COLOUR], atol=1e-6)

    def test_an_event_is_open_before_and_full_after(self, tasks):
        start, end, mask = (part[0, 0] for part in tasks.query)
        _, ax = plt.subplots()
        lab.event(ax, start, end, mask, "title")
        others, before, after = (c.get_offsets() for c in ax.collections)
        assert np.allclose(others, start[~mask][:, POSITION])
        assert np.allclose(before, start[mask][:, POSITION])
        assert np.allclose(after, end[mask][:, POSITION])
        first = ax.lines[0].get_xydata()
        assert np.allclose(first, torch.stack([start, end])[:, mask][:, 0, POSITION])

    def test_a_way_ends_where_it_ends_and_the_truth_is_crossed(self, tasks):
        start, end, mask = (part[0, 0] for part in tasks.query)
        way = torch.stack([start, 0.5 * (start + end), 0.1 * start + 0.9 * end])
        _, ax = plt.subplots()
        lab.moved(ax, way, end, mask, "title")
        assert len(ax.lines) == 4
        assert np.allclose(ax.lines[0].get_xydata(), way[:, mask][:, 0, POSITION])
        assert np.allclose(ax.collections[1].get_offsets(), way[-1][mask][:, POSITION])
        assert np.allclose(ax.collections[2].get_offsets(), end[mask][:, POSITION])

    def test_a_landscape_stands_the_right_way(self):
        places = lab.grid(5, 1.0)
        values = (places - torch.tensor([1.0, -1.0])).norm(dim=-1)
        _, ax = plt.subplots()
        lab.landscape(ax, values, 1.0)
        shown = ax.images[0].get_array()
        assert shown[0, -1] == 0 and ax.images[0].origin == "lower"

    def test_rings_are_as_wide_as_the_attention(self, tasks):
        x, mask = tasks.query.end[0, 0], tasks.query.mask[0, 0]
        _, ax = plt.subplots()
        lab.ringed(ax, x, (2 * mask - 1) * 100.0, mask, "title")
        widths = torch.tensor([line.get_markeredgewidth() for line in ax.lines])
        assert torch.equal(widths > 1, mask)
        assert np.allclose(ax.collections[1].get_offsets(), x[mask][:, POSITION])
        assert ax.get_title() == "title" and ax.get_xlim() == (-1.25, 1.25)

    def test_bars_are_as_high_as_the_attention(self, tasks):
        mask = tasks.query.mask[0, 0]
        _, ax = plt.subplots()
        lab.bars(ax, torch.linspace(-2, 2, 8), mask)
        heights = [bar.get_height() for bar in ax.patches]
        assert np.allclose(heights, torch.linspace(-2, 2, 8).sigmoid())
        colours = {bool(m): bar.get_facecolor() for m, bar in zip(mask, ax.patches, strict=True)}
        assert colours[True] != colours[False]

    def test_strips_show_every_network_and_the_median(self):
        _, ax = plt.subplots()
        lab.strips(ax, {"one": [1.0, 2.0, 9.0], "two": torch.ones(3)})
        assert ax.lines[0].get_xdata().tolist() == [1, 2, 9]
        assert ax.lines[1].get_xdata().tolist() == [2, 2]
        assert [t.get_text() for t in ax.get_yticklabels()] == ["one", "two"]
