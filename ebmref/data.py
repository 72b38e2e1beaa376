"""Data: pens that fall, a horn of ellipses, and pictures from well-kept sets.

`frames` and `pictures` are where a chapter's `dataset` parameter leads. The pens and the digits
of scikit-learn need no file; larger sets are read from the folder that `$EBMREF_DATA` names, as
torchvision lays them out, and are fetched only where that is asked for.
"""

import http.client
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits, make_swiss_roll
from torch import Tensor

from ebmref.energies import GaussianMixture

# By name: torchvision's class, and its subfolder.
TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}
PICTURES = ("digits", *TORCHVISION, "folder")
DATASETS = ("pen", *PICTURES)
SPLITS = ("train", "test")
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


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


def gaussian_grid(like: Tensor, side: int = 5, spacing: float = 1.0, scale: float = 0.05):
    """The mixture of side^2 equal Gaussians on a square grid around 0, a `GaussianMixture`.

    The defaults are the 25 Gaussians of Turner et al. (2019).

    Args:
        like: any tensor whose dtype and device the law takes.
    """
    at = (torch.arange(side, dtype=like.dtype, device=like.device) - (side - 1) / 2) * spacing
    means = torch.cartesian_prod(at, at)
    return GaussianMixture(means, torch.full_like(means[:, 0], scale))


def gaussian_ring(like: Tensor, n_modes: int = 8, radius: float = 2.0, scale: float = 0.02):
    """The mixture of equal Gaussians evenly spaced on a circle, a `GaussianMixture`.

    Args:
        like: any tensor whose dtype and device the law takes.
    """
    turn = torch.arange(n_modes, dtype=like.dtype, device=like.device) * 2 * torch.pi / n_modes
    means = radius * tips(turn)
    return GaussianMixture(means, torch.full_like(means[:, 0], scale))


def swiss_roll(n: int, generator: torch.Generator, noise: float = 0.25) -> Tensor:
    """`(n, 2)` points of a spiral, by scikit-learn, over 7.5 (Gulrajani et al. 2017)."""
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    x, _ = make_swiss_roll(n, noise=noise, random_state=seed)
    return torch.tensor(x[:, [0, 2]] / 7.5, dtype=torch.float32).to(generator.device)


class Pictures(NamedTuple):
    """A set of labelled pictures.

    Attributes:
        pixels: `(n, channels, height, width)` in [0, 1], on the CPU.
        labels: `(n,)`, integers.
        classes: their names.
    """

    pixels: Tensor
    labels: Tensor
    classes: list[str]


def pictures(
    name: str,
    split: str = "train",
    *,
    root: str | Path | None = None,
    download: bool = False,
    side: int | None = None,
) -> Pictures:
    """A whole set of pictures.

    Args:
        name: "digits" (scikit-learn's, 8 by 8, embedded; every fifth is of the test set),
            "mnist", "fashion-mnist" or "cifar10" (torchvision's), or "folder", your own: `root`
            holds a folder a class, or train/ and test/ with these inside, or is a zip of it;
            names that begin with a dot or an underscore are skipped.
        split: "train" or "test"; a folder without the two is the same in both.
        root: where the files are; by default `$EBMREF_DATA`. CIFAR-10 is also found there as
            `cifar10-jpeg.zip`, a folder of pictures zipped.
        download: fetch one of torchvision's sets into `root` where it is missing; a progress bar
            shows, checksums are verified.
        side: of "folder": pictures are cropped to a square and resized to it; None where they
            all have one size.

    Raises:
        ValueError: an unknown name or split, a side below 1, or pictures of different sizes
            without a side.
        FileNotFoundError: the set is not there or damaged; the message says how to get it.
    """
    if name not in PICTURES:
        raise ValueError(f"dataset must be one of {', '.join(PICTURES)}; got {name!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be train or test; got {split!r}")
    if side is not None and side < 1:
        raise ValueError(f"side: expected >= 1 pixels; got {side}")
    if name == "digits":
        digits = load_digits()
        held_out = (np.arange(len(digits.target)) % 5 == 4) == (split == "test")
        pixels = torch.tensor(digits.images[held_out] / 16, dtype=torch.float32)[:, None]
        return Pictures(pixels, torch.tensor(digits.target[held_out]), [*"0123456789"])
    folder = root or os.environ.get("EBMREF_DATA")
    if not folder:
        raise FileNotFoundError(
            f"{name}: no folder given; set EBMREF_DATA to the folder that holds the data, or pass "
            "root=" + ("" if name == "folder" else " and download=True")
        )
    folder = Path(folder).expanduser()
    zipped = folder / "cifar10-jpeg.zip"
    if name == "cifar10" and not (folder / "cifar-10-batches-py").exists() and zipped.exists():
        return _folder(zipped, split, None)
    return (
        _folder(folder, split, side)
        if name == "folder"
        else _torchvision(name, split, folder, download)
    )


def _torchvision(name: str, split: str, folder: Path, download: bool) -> Pictures:
    from torchvision import datasets  # slow to import, and only these need it

    kind = getattr(datasets, TORCHVISION[name])
    try:
        got = kind(folder, train=split == "train")
    except Exception as error:  # what reading damaged bytes raises can be anything
        if not download:
            raise FileNotFoundError(
                f"{name}: missing or damaged under {folder} ({_reason(error)}); "
                "pass download=True, or point EBMREF_DATA elsewhere"
            ) from None
        _fetch(kind, name, folder)
        got = kind(folder, train=split == "train")
    pixels = torch.as_tensor(got.data)
    pixels = pixels.movedim(-1, 1) if pixels.dim() == 4 else pixels[:, None]
    return Pictures(pixels.float() / 255, torch.as_tensor(got.targets), list(got.classes))


def _fetch(kind, name: str, folder: Path) -> None:
    """Download a set beside where it belongs, and move it there once it is whole."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as fresh:
            kind(fresh, download=True)  # torchvision shows a bar and verifies checksums
            for entry in Path(fresh).iterdir():
                old = folder / entry.name
                shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
                entry.replace(old)
    except (RuntimeError, OSError, EOFError, http.client.HTTPException) as error:
        raise FileNotFoundError(
            f"{name}: the download to {folder} failed ({_reason(error)}); nothing was left behind"
        ) from None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines) or type(error).__name__


def _folder(root: Path, split: str, side: int | None) -> Pictures:
    """Pictures of a folder a class, or of such a folder zipped."""
    try:
        base = zipfile.Path(root) if zipfile.is_zipfile(root) else root
        # A class that one of the splits lacks must not move the labels of the others.
        parts = [base / part for part in SPLITS if (base / part).is_dir()] or [base]
        classes = sorted({entry.name for part in parts for entry in _visible(part)})
        chosen = base if parts == [base] else base / split
        files = [
            (entry, classes.index(folder.name))
            for folder in _visible(chosen)
            for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
            if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".")
        ]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise FileNotFoundError(f"folder: cannot read {root} ({error})") from None
    if not files:
        raise FileNotFoundError(
            f"folder: no pictures under {root}; expected a folder a class, with "
            f"{', '.join(ENDINGS)} inside"
        )
    pixels = [_picture(entry, side) for entry, _ in files]
    shapes = {picture.shape for picture in pixels}
    if len(shapes) > 1:
        raise ValueError(
            f"side: pictures under {root} have {len(shapes)} sizes or kinds, such as "
            f"{sorted(shapes)[:2]}; give a side, and grey ones or coloured ones alone"
        )
    stacked = torch.from_numpy(np.stack(pixels)).float() / 255
    stacked = stacked.movedim(-1, 1) if stacked.dim() == 4 else stacked[:, None]
    return Pictures(stacked, torch.tensor([label for _, label in files]), classes)


def _visible(folder):
    """Its folders by name, without those that systems hide there (.git, __MACOSX)."""
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [entry for entry in entries if entry.is_dir() and entry.name[0] not in "._"]


def _picture(entry, side: int | None) -> np.ndarray:
    """One picture, `(height, width)` or `(height, width, 3)` in 0 .. 255."""
    from PIL import Image, ImageOps

    try:
        with entry.open("rb") as file, Image.open(file) as picture:
            if picture.mode.startswith("I;16"):  # PIL would clip, not scale
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
            return np.asarray(picture if side is None else ImageOps.fit(picture, (side, side)))
    except Exception as error:  # what decoding damaged bytes raises can be anything
        raise FileNotFoundError(f"folder: {entry} is damaged ({_reason(error)})") from None


def domains(a: str | Path, b: str | Path, *, side: int | None = None) -> tuple[Tensor, Tensor]:
    """Two sets of pictures that nobody has paired, from a folder each.

    Args:
        a, b: folders with pictures right inside, read in the order of their names; grey ones are
            taken as coloured. Names that begin with a dot and other files are skipped.
        side: pictures are cropped to a square and resized to it; None where all of both folders
            are squares of one size.

    Returns:
        Pictures of a and of b, each `(n, 3, side, side)` in [0, 1], on the CPU.

    Raises:
        ValueError: a domain is None, a side below 1, or pictures of different sizes, or that are
            no squares, without a side.
        FileNotFoundError: a folder is not there, holds no picture or a damaged one.
    """
    if side is not None and side < 1:
        raise ValueError(f"side: expected >= 1 pixels; got {side}")
    folders = {"a": a, "b": b}
    for name, folder in folders.items():
        if folder is None:
            raise ValueError(
                f"{name}: expected a folder of pictures, one for each domain; got None"
            )
    read = {
        name: _domain(name, Path(folder).expanduser(), side) for name, folder in folders.items()
    }
    sizes = {name: sorted({picture.shape[:2] for picture in of}) for name, of in read.items()}
    found = sorted({size for of in sizes.values() for size in of})
    if len(found) > 1 or found[0][0] != found[0][1]:
        raise ValueError(
            "side: expected squares of one size in both domains, or a side to crop and resize "
            f"them to; got (height, width) such as {sizes['a'][:2]} in a ({a}) and "
            f"{sizes['b'][:2]} in b ({b})"
        )
    first, second = (
        torch.from_numpy(np.stack(of)).movedim(-1, 1).float() / 255 for of in read.values()
    )
    return first, second


def _domain(name: str, folder: Path, side: int | None) -> list[np.ndarray]:
    """The pictures in one folder, each `(height, width, 3)` in 0 .. 255."""
    expected = f"expected a folder with {', '.join(ENDINGS)} right inside"
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: no folder at {folder}; {expected}")
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    files = [
        entry
        for entry in entries
        if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".")
    ]
    if not files:
        raise FileNotFoundError(f"{name}: no pictures in {folder}; {expected}")
    try:
        read = [_picture(entry, side) for entry in files]
    except FileNotFoundError as error:  # it names the file, but not the argument
        reason = str(error).removeprefix("folder: ")
        raise FileNotFoundError(f"{name}: {reason}; expected readable pictures") from None
    return [np.repeat(p[..., None], 3, 2) if p.ndim == 2 else p for p in read]


def frames(
    name: str,
    n: int,
    generator: torch.Generator,
    *,
    root: str | Path | None = None,
    download: bool = False,
) -> Tensor:
    """`n` grey pictures of a named set, `(n, height, width)` in [0, 1], on the generator's device.

    Args:
        name: "pen" (fallen in every direction, evenly), or a set of `pictures`; colours are
            averaged.
        n: how many; a set holds no more than it holds.
        root, download: as for `pictures`.

    Raises:
        ValueError: unknown name, or more pictures than the set has.
        FileNotFoundError: the set is not there; the message says how to get it.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}; got {name!r}")
    if n < 1:
        raise ValueError(f"n: expected >= 1 pictures; got {n}")
    if name == "pen":
        turn = 2 * torch.pi / n
        return pen_frames(torch.arange(n, device=generator.device) * turn)
    grey = pictures(name, root=root, download=download).pixels.mean(1)
    if n > len(grey):
        raise ValueError(f"n: {name} has {len(grey)} pictures; asked for {n}")
    chosen = torch.randperm(len(grey), generator=generator, device=generator.device)[:n]
    return grey.to(generator.device)[chosen]
