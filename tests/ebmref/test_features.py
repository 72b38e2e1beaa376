"""The classifier learns digits, repeats, and reads out what it is; bad pictures are named."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ebmref import data, features, training

DIGITS = data.pictures("digits")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def classifier(seed=0, width=64):
    return features.Classifier((1, 8, 8), 10, generator(seed), width)


def train(net, seed=1, pixels=DIGITS.pixels, labels=DIGITS.labels, **options):
    return list(features.train_classifier(net, pixels, labels, generator(seed), **options))


# --- the network -----------------------------------------------------------------------


def test_it_is_two_convolutions_a_hidden_layer_and_a_head():
    """PyTorch's own layers with the same weights, on pictures that are not square."""
    net = features.Classifier((3, 12, 9), 5, generator(), width=7)
    body = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 3 * 2, 7),
    )  # fmt: skip
    head = nn.Sequential(nn.ReLU(), nn.Linear(7, 5))
    plain = [*body.parameters(), *head.parameters()]
    with torch.no_grad():
        for theirs, ours in zip(plain, net.parameters(), strict=True):
            theirs.copy_(ours)
    x = torch.rand(4, 3, 12, 9, generator=generator())
    assert torch.allclose(net.features(x), body(x), atol=1e-6)
    assert torch.allclose(net(x), head(body(x)), atol=1e-6)


def test_weights_are_hes_and_of_the_generator():
    """Variance 2 / fan in, biases zero; the head's 640 weights have a variance within 4 standard
    errors, sqrt(2 / 640) of it each. The same generator draws the same, whatever else was drawn."""
    net = classifier()
    torch.rand(3)
    again, other = classifier(), classifier(1)
    for one, same, another in zip(
        net.parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(one, same)
        if one.dim() == 1:
            assert not one.any()
        else:
            assert not torch.equal(one, another)
            n, expected = one.numel(), 2 / one[0].numel()
            assert abs(one.var() / expected - 1) < 4 * math.sqrt(2 / n)


def test_read_is_features_and_softmax_of_forward():
    """In pieces of 1,000, the last not full; features are before the rectifier, so some are
    negative; nothing is kept for a gradient."""
    net = classifier()
    x = torch.rand(2300, 1, 8, 8, generator=generator())
    got, share = net.read(x)
    assert got.shape == (2300, 64) and share.shape == (2300, 10)
    assert torch.allclose(got, net.features(x), atol=1e-6)
    assert torch.allclose(share, net(x).softmax(1), atol=1e-6)
    assert not got.requires_grad and not share.requires_grad
    assert got.min() < 0


@pytest.mark.parametrize("picture", [(1, 7, 8), (1, 8, 4)])
def test_too_small_a_picture_is_named(picture):
    with pytest.raises(ValueError, match="picture: expected sides of 8 or more"):
        features.Classifier(picture, 10, generator())


# --- training --------------------------------------------------------------------------


def test_digits_are_learnt():
    """Ten epochs, about a second: 95 % of the held-out digits, with weights and batches of seeds
    that were not looked at before. Chance is 10 %."""
    test = data.pictures("digits", "test")
    net = classifier(21)
    losses = train(net, 22, n_epochs=10)
    guess = net.read(test.pixels)[1].argmax(1)
    assert (guess == test.labels).float().mean() >= 0.95
    assert sum(losses[-11:]) < sum(losses[:11]) / 4


def test_training_repeats_exactly_and_differs_by_generator():
    """The same weights and batches end in the same weights; other batches in others."""
    one, same, other = classifier(), classifier(), classifier()
    first = train(one, n_epochs=1)
    torch.rand(3)
    assert train(same, n_epochs=1) == first
    assert train(other, 2, n_epochs=1) != first
    pairs = [*zip(one.parameters(), same.parameters(), strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs)


class Watcher(nn.Module):
    """Two logits, a slope times the picture; keeps what it saw and how its slope moved."""

    def __init__(self):
        super().__init__()
        self.picture, self.head = torch.Size((1, 1, 1)), SimpleNamespace(out_features=2)
        self.slope = nn.Parameter(torch.zeros(1, 2))
        self.seen, self.slopes = [], []

    def forward(self, x):
        self.seen.append(x.flatten())
        self.slopes.append(self.slope.detach().clone())
        return x.flatten(1) * self.slope


def test_an_epoch_is_every_picture_once_and_the_rate_falls_to_zero():
    """Three batches of 16 of 50 pictures, twice: 48 different ones, in another order the second
    time; one loss a batch, log 2 where both classes are alike; and the last step of the slope is
    a hundredth of the largest at most."""
    net = Watcher()
    pixels = torch.arange(1.0, 51)[:, None, None, None] / 50
    losses = train(net, pixels=pixels, labels=torch.arange(50) % 2, n_epochs=2, batch=16)
    assert len(losses) == len(net.seen) == 6
    assert losses[0] == pytest.approx(math.log(2))
    one, two = torch.cat(net.seen[:3]), torch.cat(net.seen[3:])
    assert len(set(one.tolist())) == len(set(two.tolist())) == 48
    assert not torch.equal(one, two)
    way = torch.cat([*net.slopes, net.slope.detach()])
    moved = way.diff(dim=0).abs().amax(1)
    assert moved[-1] < moved.max() / 100


NAN = DIGITS.pixels.clone()
NAN[1437, 0, 3, 3] = math.nan


@pytest.mark.parametrize(
    "change, words",
    [
        ({"labels": DIGITS.labels[:-1]}, "pixels, labels: .* got 1438 and 1437"),
        ({"pixels": DIGITS.pixels[:99], "labels": DIGITS.labels[:99]}, "128 or more; got 99"),
        ({"pixels": NAN}, "pixels"),
        ({"pixels": DIGITS.pixels[:, 0]}, "pixels"),
        ({"pixels": DIGITS.pixels.repeat(1, 3, 1, 1)}, "pixels"),
        ({"pixels": DIGITS.pixels[..., :7]}, "pixels"),
        ({"labels": DIGITS.labels + 1}, "labels"),
        ({"labels": DIGITS.labels - 1}, "labels"),
        ({"labels": DIGITS.labels.float()}, "labels"),
        ({"labels": DIGITS.labels[:, None]}, "labels"),
    ],
)
def test_bad_input_is_named(change, words):
    """Each is a ValueError that says which argument is wrong, and no weight has become NaN."""
    net = classifier()
    with pytest.raises(ValueError, match=words):
        train(net, **change)
    assert all(p.isfinite().all() for p in net.parameters())


def test_a_loss_that_is_not_finite_stops_the_training():
    words = r"loss: not finite at step \d+; a smaller learning_rate may help"
    with pytest.raises(training.Diverged, match=words):
        train(classifier(), learning_rate=1e30)
