"""Discriminators that are asked for probabilities: laws, labels, calibration by hand."""

import math

import pytest
import torch

from ebmbook.lab import saying as lab


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_means_and_the_best_logit():
    data, wide = lab.laws()
    assert float(data.sample(100_000, generator()).mean()) == pytest.approx(lab.DATA_MEAN, abs=0.02)
    x = torch.tensor([[[0.4], [9.0]]])
    got = lab.best_logit(x)
    assert got.shape == (1, 2)
    want = data.log_prob(x[0]) - wide.log_prob(x[0])
    assert torch.allclose(got[0], want)


def test_labels_have_their_shares_and_points_their_laws():
    share = torch.tensor([0.2, 0.8])
    is_data, x = lab.labelled(50_000, share, generator())
    assert is_data.float().mean(1).tolist() == pytest.approx([0.2, 0.8], abs=0.01)
    for k in range(2):
        assert float(x[k][is_data[k]].mean()) == pytest.approx(lab.DATA_MEAN, abs=0.05)
        assert float(x[k][~is_data[k]].mean()) == pytest.approx(lab.BASE_MEAN, abs=0.05)


def test_bins_by_hand():
    """Two bins of two: said .1 and .3 with one of two, .5 and .9 with both."""
    told = torch.tensor([[0.9, 0.1, 0.5, 0.3]])
    is_data = torch.tensor([[True, False, True, True]])
    claimed, found = lab.reliability(told, is_data, 2)
    assert claimed[0].tolist() == pytest.approx([0.2, 0.7])
    assert found[0].tolist() == pytest.approx([0.5, 1.0])


def test_errors_of_either_sign_do_not_cancel():
    told = torch.tensor([[0.1] * 5 + [0.9] * 5])
    is_data = torch.tensor([[True] * 5 + [False] * 5])
    assert lab.error(told, is_data).tolist() == pytest.approx([0.9])


def test_the_truth_is_calibrated_and_a_shift_is_not():
    is_data, x = lab.labelled(20_000, torch.tensor([0.5, 0.5]), generator())
    best = lab.best_logit(x)
    assert lab.error(best.sigmoid(), is_data).max() < 0.015
    assert lab.error((best + 1).sigmoid(), is_data).min() > 0.1
    assert lab.shifted(0.3, 0.2) == pytest.approx(0.3 + math.log(0.25))
    few, y = lab.labelled(20_000, torch.tensor([0.2]), generator(1))
    assert lab.error(lab.shifted(lab.best_logit(y), 0.2).sigmoid(), few).max() < 0.015


def test_ways_are_trained_in_their_order():
    points = torch.linspace(-2, 2, 40).view(1, -1, 1).repeat(2, 1, 1)
    judges = lab.train(2, 120, points, generator())
    assert list(judges.logits) == list(lab.WAYS) and judges.early.shape == (2, 40)
    mean = {name: float(d.mean()) for name, d in judges.logits.items()}
    assert mean["few"] < mean["equal"] - 0.7 and mean["many"] > mean["equal"] + 0.7
    assert (judges.early - judges.logits["equal"]).abs().max() > 0.1
    with torch.no_grad():
        said = judges.net(points.repeat(4, 1, 1))
    assert torch.allclose(said[:2], judges.logits["equal"])
    # A hundred points are enough to tell where data are.
    both = torch.stack([judges.logits["overfit"].mean(0), lab.best_logit(points)[0]])
    assert float(torch.corrcoef(both)[0, 1]) > 0.5


def test_reweighting_by_nothing_leaves_the_base_s_mean():
    judges = lab.train(2, 15, torch.zeros(2, 3, 1), generator())
    for part in judges.net.parameters():
        part.data.zero_()
    assert lab.reweighted_mean(judges.net, 2).tolist() == pytest.approx([0.4, 0.4], abs=1e-4)
