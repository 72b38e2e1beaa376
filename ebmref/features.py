"""Features of pictures: a small classifier, trained here, whose last hidden layer is the space
in which sets of pictures are compared (`ebmref.metrics`).

A Frechet distance means nothing without the network it was measured in: this one is named
after the set it was trained on, and its test accuracy is part of what a chapter reports.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ebmref import training
from ebmref.checks import check_tensors


class Classifier(nn.Module):
    """Two convolutions, a hidden layer of `width` features, one logit a class.

    Args:
        picture: (channels, height, width), the sides 8 or more.
        n_classes: how many logits.
        generator: draws the weights.
        width: how many features.
    """

    def __init__(self, picture, n_classes, generator: torch.Generator, width: int = 64):
        super().__init__()
        self.picture = torch.Size(picture)
        channels, height, breadth = picture
        if min(height, breadth) < 8:
            raise ValueError(f"picture: expected sides of 8 or more; got {tuple(picture)}")
        self.one = nn.Conv2d(channels, 32, 3, padding=1)
        self.two = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * (height // 4) * (breadth // 4), width)
        self.head = nn.Linear(width, n_classes)
        self.to(generator.device)
        for weight in self.parameters():
            if weight.dim() == 1:
                nn.init.zeros_(weight)
            else:
                nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)

    def features(self, x: Tensor) -> Tensor:
        """`(n, channels, height, width)` to `(n, width)`, before the last rectifier."""
        x = functional.max_pool2d(self.one(x).relu(), 2)
        x = functional.max_pool2d(self.two(x).relu(), 2)
        return self.hidden(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).relu())

    @torch.no_grad()
    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features `(n, width)` and class probabilities `(n, n_classes)`, in pieces."""
        features = torch.cat([self.features(part) for part in x.split(1000)])
        return features, self.head(features.relu()).softmax(1)


def train_classifier(
    classifier: Classifier,
    pixels: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    n_epochs: int = 3,
    batch: int = 128,
    learning_rate: float = 2e-3,
) -> Iterator[float]:
    """Adam on the cross-entropy, the rate rising, then falling to zero; yields each batch's loss.

    Args:
        pixels: `(n, channels, height, width)` in [0, 1].
        labels: `(n,)`, integers.
        generator: of the batches.

    Raises:
        ValueError: pixels and labels that do not fit.
        Diverged: a loss is not finite.
    """
    check_tensors(pixels=pixels, labels=labels)
    dtype = next(iter(classifier.parameters())).dtype
    if pixels.dtype != dtype:
        raise ValueError(f"pixels: expected {dtype}, as the classifier; got {pixels.dtype}")
    if pixels.dim() != 4 or pixels.shape[1:] != classifier.picture:
        raise ValueError(
            f"pixels: expected (n, {', '.join(map(str, classifier.picture))}); got "
            f"{tuple(pixels.shape)}"
        )
    if not pixels.isfinite().all():
        raise ValueError("pixels: has values that are not finite")
    n_classes = classifier.head.out_features
    if labels.dim() != 1 or labels.dtype != torch.int64:
        raise ValueError(
            f"labels: expected integers (n,), torch.int64; got {labels.dtype} {tuple(labels.shape)}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < n_classes:
        raise ValueError(f"labels: expected 0 .. {n_classes - 1}; got others")
    if len(pixels) != len(labels) or len(pixels) < batch:
        raise ValueError(
            f"pixels, labels: expected as many of each, {batch} or more; got {len(pixels)} and "
            f"{len(labels)}"
        )
    device = generator.device
    pixels, labels = pixels.to(device), labels.to(device)
    n_batches = len(pixels) // batch

    def batches() -> Iterator[Tensor]:
        for _ in range(n_epochs):
            order = torch.randperm(len(pixels), generator=generator, device=device)
            yield from order.split(batch)[:n_batches]

    chosen = batches()

    def loss() -> Tensor:
        at = next(chosen)
        return functional.cross_entropy(classifier(pixels[at]), labels[at])

    n_steps = n_epochs * n_batches
    adam = torch.optim.Adam(classifier.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, learning_rate, total_steps=n_steps)
    for value in training.train(training.Fit(classifier, loss, adam, schedule), n_steps):
        yield value.item()
