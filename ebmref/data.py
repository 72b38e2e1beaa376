"""Data: pens that fall, a horn of ellipses, and pictures from well-kept sets.

`frames` is where a chapter's `dataset` parameter leads; the embedded sets need no file.
"""

import os
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

DATASETS = ("pen", "digits", "mnist")


def von_mises(n: int | tuple[int, ...], concentration: float, generator: torch.Generator) -> Tensor:
    """Angles around 0 with density proportional to exp(kappa cos theta), by NumPy.

    Args:
        n: shape of the draw.
        concentration: kappa >= 0; 0 is uniform on the circle.

    Raises:
        ValueError: a negative concentration.
    """
    if not concentration >= 0:
        raise ValueError(f"concentration: expected >= 0; got {concentration}")
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    angles = np.random.default_rng(int(seed)).vonmises(0.0, concentration, n)
    return torch.as_tensor(angles, dtype=torch.float32).to(generator.device)


def tips(angles: Tensor) -> Tensor:
    """Where the tip of a pen of length one comes to lie: `(...)` to `(..., 2)`."""
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def horn_radii(x: Tensor, a: float = 1.5, b: float = 2.0) -> Tensor:
    """Radii of the horn's ellipse at x, `(...)` to `(..., 2)`.

    ((a x + b (1 - x)) e^{2x}, (b x + a (1 - x)) e^{2x}): (b, a) at x = 0, turning as it grows.
    The example is of the NYU deep learning course (Canziani & LeCun 2021).
    """
    return torch.stack([a * x + b * (1 - x), b * x + a * (1 - x)], -1) * (2 * x).exp()[..., None]


def horn(x: Tensor, generator: torch.Generator, noise: float = 0.05) -> tuple[Tensor, Tensor]:
    """Points of the horn, each at a random angle of the ellipse at its x.

    Args:
        x: `(...)`, in [0, 1] for the horn, all zero for its first ellipse.
        noise: standard deviation of what is added to each coordinate, >= 0.

    Returns:
        y `(..., 2)` and the angles `(...)` that were hidden, in [0, 2 pi).

    Raises:
        ValueError: a negative noise.
    """
    if not noise >= 0:
        raise ValueError(f"noise: expected >= 0; got {noise}")
    like = {"generator": generator, "device": x.device, "dtype": x.dtype}
    angles = 2 * torch.pi * torch.rand(x.shape, **like)
    y = horn_radii(x) * tips(angles)
    return y + noise * torch.randn(y.shape, **like), angles


def pen_frames(angles: Tensor, size: int = 32, length: float = 0.85, width: float = 0.1) -> Tensor:
    """Pens that fell from the middle of the picture, seen from above.

    A pixel's ink is how far it lies inside the pen, with an edge one pixel wide.

    Args:
        angles: `(n,)`, directions of fall in radians.
        size: pixels a side; the picture spans [-1, 1] both ways.
        length, width: of the pen, in the picture's units; length 0 is the upright pen.

    Returns:
        `(n, size, size)`, ink in [0, 1].

    Raises:
        ValueError: angles are no float vector, or a size below 8.
    """
    if angles.dim() != 1 or not angles.is_floating_point():
        raise ValueError(f"angles: expected a float vector; got {tuple(angles.shape)}")
    if size < 8:
        raise ValueError(f"size: expected >= 8 pixels; got {size}")
    pixel = 2 / size
    side = (torch.arange(size, device=angles.device) + 0.5) * pixel - 1
    y, x = torch.meshgrid(-side, side, indexing="ij")
    u = tips(angles)[:, :, None, None]
    along = (x * u[:, 0] + y * u[:, 1]).clamp(0, length)
    away = torch.hypot(x - along * u[:, 0], y - along * u[:, 1])
    return ((width / 2 - away) / pixel + 0.5).clamp(0, 1)


def frames(
    name: str,
    n: int,
    generator: torch.Generator,
    *,
    root: str | Path | None = None,
    download: bool = False,
) -> Tensor:
    """`n` pictures of a named set, `(n, height, width)` in [0, 1], on the generator's device.

    Args:
        name: "pen" (fallen in every direction, evenly), "digits" (scikit-learn's, 8 by 8,
            embedded) or "mnist" (torchvision's, 28 by 28).
        n: how many; the embedded sets hold no more than they hold.
        root: folder of "mnist", as torchvision lays it out; by default `$EBMREF_DATA`.
        download: fetch "mnist" into `root` where it is missing.

    Raises:
        ValueError: unknown name, or more pictures than the set has.
        FileNotFoundError: "mnist" is not there; the message says how to get it.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}; got {name!r}")
    if name == "pen":
        turn = 2 * torch.pi / n
        return pen_frames(torch.arange(n, device=generator.device) * turn)
    if name == "digits":
        pictures = torch.tensor(load_digits().images / 16, dtype=torch.float32)
    else:
        pictures = _mnist(root, download)
    if not 1 <= n <= len(pictures):
        raise ValueError(f"n: {name} has {len(pictures)} pictures; asked for {n}")
    chosen = torch.randperm(len(pictures), generator=generator, device=generator.device)[:n]
    return pictures.to(generator.device)[chosen]


def _mnist(root: str | Path | None, download: bool) -> Tensor:
    """MNIST's training pictures, by torchvision."""
    from torchvision.datasets import MNIST  # slow to import, and only this needs it

    folder = root or os.environ.get("EBMREF_DATA")
    if not folder:
        raise FileNotFoundError(
            "mnist: no folder given; set EBMREF_DATA to the folder that holds MNIST/, "
            "or pass root= and download=True"
        )
    try:
        return MNIST(folder, train=True, download=download).data.float() / 255
    except (RuntimeError, ValueError, OSError, AssertionError) as error:
        reason = (str(error) or "not an IDX file").splitlines()[0]
        raise FileNotFoundError(
            f"mnist: missing or damaged under {folder} ({reason}); "
            "delete what is there and pass download=True, or point EBMREF_DATA elsewhere"
        ) from None
