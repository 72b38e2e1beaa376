"""Pictures with noise: coordinates in which their law is learned, and how samples of it are judged.

sets, Axes, noised    what is learned from, and its principal coordinates
ruler, grade          sets of pictures compared in a classifier's features
memory                whether samples are nearer to the training pictures than they should be
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import data, features, metrics
from ebmref.energies import Gaussian
from ebmref.seeds import derive_seed


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


# Pictures, and the coordinates in which they are learned ------------------------------------------


class Sets(NamedTuple):
    """Pictures to learn from and others of the same law.

    Attributes:
        train, held: `(n, channels, height, width)` and `(m, ...)`, in [0, 1].
        labels, held_labels: `(n,)` and `(m,)`.
        classes: their names.
    """

    train: Tensor
    held: Tensor
    labels: Tensor
    held_labels: Tensor
    classes: list[str]


def sets(name: str, n_held: int, seed: int, *, device="cpu", download: bool = False) -> Sets:
    """A set of `ebmref.data`, both its splits in one, from which some pictures are held out.

    They are chosen by chance. MNIST's own test set is by other writers, and so of another law.

    Args:
        n_held: even, >= 4, fewer than there are; half of them serves `memory`.

    Raises:
        ValueError: an n_held out of range.
        FileNotFoundError: see `data.pictures`.
    """
    splits = [data.pictures(name, split, download=download) for split in data.SPLITS]
    pixels = torch.cat([split.pixels for split in splits]).to(device)
    labels = torch.cat([split.labels for split in splits]).to(device)
    if not 4 <= n_held < len(pixels) or n_held % 2:
        raise ValueError(f"n_held: expected even, 4 .. {len(pixels) - 1}; got {n_held!r}")
    order = torch.randperm(len(pixels), generator=_source(seed, "held", device), device=device)
    held, train = order[:n_held], order[n_held:]
    return Sets(pixels[train], pixels[held], labels[train], labels[held], splits[0].classes)


class Axes:
    """Principal coordinates of pictures, and the Gaussian of the noised law's moments in them.

    Args:
        pixels: `(n, *event)`, n >= 2.
        sigma: of the noise.

    Attributes:
        mean: `(d,)`.
        vectors: V `(d, d)`, orthogonal, a coordinate a column.
        variances: `(d,)`, of the noised law, falling.
    """

    def __init__(self, pixels: Tensor, sigma: float):
        flat = pixels.flatten(1)
        self.event, self.sigma, self.mean = pixels.shape[1:], sigma, flat.mean(0)
        values, vectors = torch.linalg.eigh(flat.T.cov().double())
        self.vectors = vectors.flip(1).to(pixels.dtype)
        self.variances = (values.flip(0).clamp(min=0) + sigma**2).to(pixels.dtype)

    def into(self, x: Tensor) -> Tensor:
        """Pictures `(n, *event)` to u `(n, d)`."""
        return (x.flatten(1) - self.mean) @ self.vectors

    def back(self, u: Tensor) -> Tensor:
        """u `(n, d)` to pictures `(n, *event)`."""
        return (u @ self.vectors.T + self.mean).unflatten(1, self.event)

    def base(self, rank: int) -> Gaussian:
        """The Gaussian of the first coordinates."""
        return Gaussian(torch.zeros_like(self.mean[:rank]), self.variances[:rank].diag())

    def whole(self, u: Tensor, generator: torch.Generator) -> Tensor:
        """`(n, rank)` to pictures `(n, *event)`, the other coordinates drawn from the Gaussian."""
        rest = self.variances[u.shape[1] :].sqrt()
        noise = torch.randn(len(u), len(rest), generator=generator, dtype=u.dtype, device=u.device)
        return self.back(torch.cat([u, rest * noise], 1))

    def log_rest(self, u: Tensor, rank: int) -> Tensor:
        """Log density of the coordinates beyond the rank, `(n, d)` to `(n,)`."""
        variances = self.variances[rank:]
        return -0.5 * (u[:, rank:].square() / variances + (2 * math.pi * variances).log()).sum(1)


def noised(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + sigma xi."""
    return x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


# Samples, judged ----------------------------------------------------------------------------------


class Ruler(NamedTuple):
    """What samples are measured with.

    Attributes:
        judge: a classifier of noised pictures.
        accuracy: on the held ones.
        reference: features of training pictures, `(n, width)`.
    """

    judge: features.Classifier
    accuracy: float
    reference: Tensor


def ruler(
    known: Sets, sigma: float, n_epochs: int, seed: int, *, n_reference: int = 10_000
) -> Ruler:
    """Train a judge on the training pictures with noise, and read some of them with it.

    Args:
        sigma: of the noise on all that is judged.
        n_epochs: of the judge's training.
        n_reference: how many training pictures, at most, samples are held against.
    """
    draws = _source(seed, "judge", known.train.device)
    judge = features.Classifier(known.train.shape[1:], len(known.classes), draws)
    x = noised(known.train, sigma, draws)
    for _ in features.train_classifier(judge, x, known.labels, draws, n_epochs=n_epochs):
        pass
    said = judge.read(noised(known.held, sigma, draws))[1].argmax(1)
    reference, _ = judge.read(noised(known.train[:n_reference], sigma, draws))
    return Ruler(judge, float((said == known.held_labels).double().mean()), reference)


class Grade(NamedTuple):
    """Of n noised pictures.

    Attributes:
        frechet: distance of their features to the reference.
        frechet_se: how much that varies with these n, by the bootstrap.
        shares: of the classes as the judge reads them, `(c,)`.
        confidence: mean probability of the class that is read.
        read: the classes, `(n,)`.
    """

    frechet: float
    frechet_se: float
    shares: Tensor
    confidence: float
    read: Tensor


def grade(by: Ruler, x: Tensor, generator: torch.Generator, *, n_bootstraps: int = 20) -> Grade:
    """Hold pictures against the training ones; sets to be compared must be of one size.

    Args:
        x: `(n, *event)`, with noise.
        generator: of the bootstrap, on the device of x.
        n_bootstraps: >= 2.
    """
    seen, said = by.judge.read(x)
    sure, read = said.max(1)
    shares, _ = metrics.class_shares(read, said.shape[1])
    again = torch.randint(len(x), (n_bootstraps, len(x)), generator=generator, device=x.device)
    distances = [metrics.frechet_distance(seen[rows], by.reference) for rows in again]
    return Grade(
        metrics.frechet_distance(seen, by.reference),
        float(torch.tensor(distances).std()),
        shares,
        float(sure.double().mean()),
        read,
    )


class Memory(NamedTuple):
    """Shares of pictures whose nearest neighbour is a training one, among these and held ones.

    Attributes:
        null: for pictures that owe nothing to particular ones, n / (n + m) by symmetry.
        samples, fresh: of samples, and of noised pictures that are in neither set.
        copies: of noised training pictures.
        z: how far samples are above fresh pictures, in standard errors.
    """

    null: float
    samples: float
    fresh: float
    copies: float
    z: float


def memory(u: Tensor, known: Sets, axes: Axes, seed: int) -> Memory:
    """Are samples nearer to the training pictures than they should be?

    Half of the held pictures are among those that may be nearest; the others are fresh ones.

    Args:
        u: samples of the noised law, `(n, rank)`; neighbours are those in these coordinates.
    """
    draws = _source(seed, "memory", axes.mean.device)
    half, rank = len(known.held) // 2, u.shape[1]
    pool = axes.into(torch.cat([known.train, known.held[:half]]))[:, :rank]
    null = len(known.train) / len(pool)

    def share(u: Tensor) -> float:
        return float((metrics.nearest(u, pool)[1] < len(known.train)).double().mean())

    def of(x: Tensor) -> Tensor:
        return axes.into(noised(x[: len(u)], axes.sigma, draws))[:, :rank]

    fresh = of(known.held[half:])
    found = [share(points) for points in (u, fresh, of(known.train))]
    se = math.sqrt(null * (1 - null) * (1 / len(u) + 1 / len(fresh)))
    return Memory(null, *found, (found[0] - found[1]) / se)
