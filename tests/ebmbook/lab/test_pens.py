"""Pens whose blur is known by hand: their mean, one of them, and two that fell askew."""

import io
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from ebmbook.lab import pens
from ebmref import data


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


FRAMES = pens.frames("pen", 180, 64, generator())


def test_pens_fall_in_every_direction_and_other_sets_keep_their_side():
    assert FRAMES.shape == (180, 64, 64)
    quarter = data.pen_frames(torch.tensor([math.pi / 2]), 64, 0.85, 0.1)[0]
    assert torch.allclose(FRAMES[45], quarter, atol=1e-5)
    assert pens.frames("digits", 7, 64, generator()).shape == (7, 8, 8)


def test_the_mean_has_all_ink_and_is_as_grey_as_by_hand():
    got = pens.blur(FRAMES.mean(0)[None], FRAMES)
    assert got.gap.item() == pytest.approx(0, abs=1e-6)
    assert got.ink.item() == pytest.approx(1, abs=1e-6)
    assert got.pairs.item() == pytest.approx(2, abs=1e-9)
    assert got.half_way.item() == pytest.approx(pens.grey(0.425), rel=0.02)
    # A pen's width from the foot it covers a sixth of the directions; pixels are a third of that.
    assert 0.1 < got.peak.item() < 0.2
    assert 0.2 < got.edge.item() < 0.4
    # Nearly the same from all outcomes, so the nearest is a typical one: 1 / sqrt(2) of a pair.
    assert (got.nearest / got.typical).item() == pytest.approx(0.5**0.5, rel=0.03)


def test_an_outcome_is_sharp_and_a_bad_answer_to_the_others():
    flat = FRAMES.flatten(1).double()
    got = pens.blur(FRAMES[[10, 100]], FRAMES)
    assert torch.allclose(got.peak, torch.ones(2).double(), atol=0.01)
    assert torch.allclose(got.edge, torch.ones(2).double(), atol=0.1)
    assert got.nearest.max() < 1e-4
    error = (flat - flat[10]).square().sum(1).mean()
    apart = torch.cdist(flat, flat).square().mean()
    assert got.pairs[0].item() == pytest.approx((apart / error).item(), rel=1e-6)
    assert got.typical.item() == pytest.approx(apart.sqrt().item(), rel=1e-6)
    assert torch.allclose(got.ink, flat[[10, 100]].sum(1) / flat.sum(1).mean())


def test_gap_and_batch_by_hand():
    """Two outcomes of one pixel each: a mean of 1/2 and 1/2, a variance of 1/2."""
    two = torch.zeros(2, 16, 16)
    two[0, 0, 0] = two[1, 8, 8] = 1
    answer = torch.zeros(1, 16, 16)
    answer[0, 0, 0] = 0.5
    got = pens.blur(answer, two)
    assert got.gap.item() == pytest.approx(0.5 / 0.5**0.5)
    assert got.batch.item() == pytest.approx((0.5 / 64) ** 0.5 / 0.5**0.5)
    assert got.pairs.item() == pytest.approx(1 / 0.75)
    assert got.nearest.item() == pytest.approx(0.5)
    assert got.ink.item() == pytest.approx(0.5)


def test_variation_counts_steps_both_ways():
    board = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [1.0, 3.0]]])
    assert pens.variation(board).tolist() == [4.0, 6.0]


def test_grey_by_hand():
    assert pens.grey(0.1) == pytest.approx(1 / 6)
    assert pens.grey(0.05) == pytest.approx(1 / 2)


def test_degrees_undo_the_distance_of_two_pens():
    first = torch.arange(24, dtype=torch.float64) * math.pi / 12
    for wanted in (2.0, 6.25, 29.5):
        two = data.pen_frames(first + math.radians(wanted), 48, 0.85, 0.1).flatten(1)
        one = data.pen_frames(first, 48, 0.85, 0.1).flatten(1)
        apart = (two - one).norm(dim=1).mean()
        assert pens.degrees(apart[None], 48).item() == pytest.approx(wanted, abs=0.1)
    assert pens.degrees(torch.tensor([0.0, 1e6]), 48).tolist() == [0.0, 30.0]


def test_falls_scatter_about_the_lean_by_kappa():
    lean, tip = pens.falls((0.0, 1e4), 2, 4000, 0.1, generator(1))
    assert lean.shape == tip.shape == (4, 4000, 2)
    assert torch.allclose(lean.norm(dim=-1), torch.ones(4, 4000))
    along = (lean * tip).sum(-1).mean(1)
    assert along[:2].abs().max() < 0.06 and (along[2:] - 1).abs().max() < 0.01
    off = (tip - lean)[2:]
    assert off.std().item() == pytest.approx(math.hypot(0.1, 0.01 / 2**0.5), rel=0.03)
    assert (lean[0] - lean[1]).abs().max() > 0.5
    lean, tip = pens.falls((400.0,), 1, 4000, 0.0, generator(2))
    assert (tip - lean).norm(dim=-1).square().mean().item() == pytest.approx(1 / 400, rel=0.1)


def test_scores_by_hand():
    lean = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).repeat(4, 1, 1)
    guess = 0.5 * lean * torch.tensor([1.0, 1.0, 1.0, 2.0])[:, None, None]
    radius, error = pens.scores(guess, lean, lean, 2)
    assert radius.tolist() == [[0.5, 0.5], [0.5, 1.0]]
    assert error.tolist() == [[0.25, 0.25], [0.25, 0.0]]


def test_ink_that_fades_keeps_its_colours(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    ramp = np.zeros((1, 2000, 4))
    ramp[..., 3] = np.linspace(0, 1, 2000)
    fig, ax = plt.subplots(figsize=(6, 1))
    ax.imshow(ramp, aspect="auto")
    pens.show_fading(fig)
    assert not plt.fignum_exists(fig.number)
    picture = Image.open(io.BytesIO(shown[0].data))
    assert picture.size[0] == 900 and len(picture.getcolors(10**6)) > 200


def test_probabilities_are_read_off_a_mean_picture():
    """Where a pen alone is black the mean picture is as grey as it is likely."""
    frames = pens.strokes(torch.tensor([0.3, 1.6, 4.0]), 48)
    assert torch.equal(frames, data.pen_frames(
        torch.tensor([0.3, 1.6, 4.0]), 48, pens.LENGTH, pens.WIDTH))  # fmt: skip
    p = torch.tensor([0.5, 0.3, 0.2])
    mean = (p[:, None, None] * frames).sum(0)
    got = pens.read_off(torch.stack([mean, frames[1], 2 * mean]), frames)
    want = torch.stack([p, torch.tensor([0.0, 1.0, 0.0]), 2 * p])
    assert got.shape == (3, 3) and torch.allclose(got, want, atol=1e-3)
