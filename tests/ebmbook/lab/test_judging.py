"""Scores of classifiers, against hands and other people's code."""

import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from ebmbook.lab import judging


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_calibration_by_hand():
    """Four pictures of two classes in two bins of ten: .9 three times, of which two are right."""
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.55, 0.45]]).double()
    y = torch.tensor([0, 1, 1, 1])
    found = judging.calibration(p.log()[None] + 7, y, 0, n_bins=10)
    assert found.accuracy.item() == 0.5
    assert found.ece.item() == pytest.approx((abs(2 - 2.7) + abs(0 - 0.55)) / 4)
    assert found.nll.item() == pytest.approx(log_loss(y, p.numpy()))


def test_the_floor_is_what_a_calibrated_classifier_has():
    """Labels drawn by the very probabilities; then the same classifier too sure of itself."""
    logits = 2 * torch.randn(200, 300, 5, generator=generator()).double()
    u = torch.rand(200, 300, 1, generator=generator(1)).double()
    y = (logits.softmax(-1).cumsum(-1) < u).sum(-1)
    found = [judging.calibration(logits[i, None], y[i], i, n_draws=50) for i in range(200)]
    ece, floor = (torch.cat([getattr(one, name) for one in found]) for name in ("ece", "floor"))
    assert abs(float((ece - floor).mean())) < 4.5 * float((ece - floor).std()) / 200**0.5
    assert float(floor.mean()) > 0.02
    # Of more pictures it is smaller.
    many = judging.calibration(logits.view(1, -1, 5), y.flatten(), 0, n_draws=5)
    assert many.floor.item() < 0.01
    sure = judging.calibration(3 * logits.view(1, -1, 5), y.flatten(), 0, n_draws=5)
    assert sure.ece.item() > 10 * sure.floor.item() and sure.nll > many.nll
    t = judging.temperatures(torch.stack([logits, 6 * logits]).view(2, -1, 5), y.flatten())
    assert t.tolist() == pytest.approx([1, 6], rel=0.04)


def test_auroc_is_that_of_others_with_its_error():
    # Few, and so wide that it is they who make the error.
    inside = (3 * torch.randn(60, 12, generator=generator())).round(decimals=1) + 1
    outside = torch.randn(60, 150, generator=generator(1)).round(decimals=1)
    found = judging.auroc(inside, outside)
    y = [1] * 12 + [0] * 150
    want = roc_auc_score(y, torch.cat([inside[0], outside[0]]).numpy())
    assert found.value[0].item() == pytest.approx(want)
    # Sixty replicates: their spread is the error that each has of itself.
    assert float(found.value.std() / found.se.mean()) == pytest.approx(1, abs=0.35)
    # P(N(1, 9) > N(0, 1)).
    assert float(found.value.mean()) == pytest.approx(0.624, abs=0.06)
    assert judging.auroc(torch.ones(3), torch.ones(4)).value.item() == 0.5
