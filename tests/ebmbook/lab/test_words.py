"""Words in few dimensions, where what is nearest to what is seen."""

import math

import pytest
import torch

from ebmbook.lab import words as lab


def test_words_have_unit_length_and_no_direction():
    words = lab.vocabulary(3, 500, 4, torch.Generator().manual_seed(0))
    assert words.shape == (3, 500, 4)
    assert torch.allclose(words.norm(dim=-1), torch.ones(3, 500))
    assert words.mean(1).abs().max() < 4 * 0.5 / 500**0.5


def test_nearness_by_hand():
    """Good right, strong up, a third word down, and the answer half-way."""
    words = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]])
    got = lab.nearness(torch.tensor([[0.5, 0.5]]), words)
    assert got.off_average.item() == 0
    assert got.length.item() == pytest.approx(0.5**0.5)
    assert got.to_words[0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 2.5**0.5])
    assert got.neighbour.item() == pytest.approx(2**0.5)
    words[0, 2] = torch.tensor([0.6, 0.8])
    got = lab.nearness(torch.tensor([[0.5, 0.5]]), words)
    assert got.neighbour.item() == pytest.approx((0.8**0.5 + 2 * 0.4**0.5) / 3)
    assert lab.nearness(torch.tensor([[0.5, 0.8]]), words).off_average.item() == pytest.approx(0.3)


def test_scored_by_hand():
    energy = torch.tensor([[0.0, 0.0, math.log(4)], [1.0, 0.0, 0.5]])
    got = lab.scored(energy)
    assert got.p[0].tolist() == pytest.approx([4 / 9, 4 / 9, 1 / 9])
    assert got.lowest.tolist() == [True, False]
    assert got.gap.tolist() == pytest.approx([math.log(4), -0.5])


@pytest.mark.parametrize("width, share", [(8, 0.48947), (16, 0.08421)])
def test_how_often_a_third_word_is_nearest_the_average(width, share):
    """Simulated vocabularies of 40 against the quadrature. Four standard errors."""
    exact = lab.third_word(40, width)
    assert exact == pytest.approx(share, abs=1e-5)
    words = lab.vocabulary(2000, 40, width, torch.Generator().manual_seed(7))
    nearest = lab.nearness(words[:, :2].mean(1), words).to_words.argmin(1)
    assert abs(float((nearest > 1).double().mean()) - exact) < 4 * math.sqrt(
        exact * (1 - exact) / 2000
    )
    assert lab.third_word(2, width) == 0
