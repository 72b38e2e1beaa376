"""Pens are drawn where they fell, angles have their law, and missing data says what to do."""

import gzip
import math
import os
import struct

import numpy as np
import pytest
import torch
from scipy import stats

from ebmref import data


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kappa", [0.0, 1.0, 4.0])
def test_angles_are_von_mises(kappa):
    """Kolmogorov-Smirnov against SciPy's law; false alarm 1e-3, at a fixed seed."""
    angles = data.von_mises(4000, kappa, generator()).numpy()
    law = stats.vonmises(kappa) if kappa else stats.uniform(-math.pi, 2 * math.pi)
    assert stats.kstest(angles, law.cdf).pvalue > 1e-3


def test_angles_repeat_and_differ_by_generator():
    assert torch.equal(data.von_mises(5, 1.0, generator()), data.von_mises(5, 1.0, generator()))
    assert not torch.equal(data.von_mises(5, 1, generator()), data.von_mises(5, 1, generator(1)))


def test_pen_points_where_it_fell():
    """The centre of its ink lies half its length away, in the direction of fall."""
    angles = torch.tensor([0.0, math.pi / 2, 2.0, 4.0])
    ink = data.pen_frames(angles, size=64, length=0.8)
    side = (torch.arange(64) + 0.5) / 32 - 1
    mass = ink.sum((1, 2))
    x = (ink.sum(1) * side).sum(1) / mass
    y = (ink.sum(2) * -side).sum(1) / mass
    centre = torch.stack([x, y], dim=1)
    assert torch.allclose(centre, 0.4 * data.tips(angles), atol=0.02)


def test_pens_have_the_same_ink_in_every_direction():
    """Anti-aliasing: area length * width plus two half discs, within two percent."""
    ink = data.pen_frames(torch.linspace(0, 6, 50), size=64, length=0.8, width=0.1)
    area = 0.8 * 0.1 + math.pi * 0.05**2
    assert torch.allclose(ink.sum((1, 2)) * (2 / 64) ** 2, torch.tensor(area), rtol=0.02)


def test_upright_pen_is_a_dot():
    """A pen of length zero has no direction."""
    two = data.pen_frames(torch.tensor([0.0, 2.0]), length=0.0)
    assert torch.equal(two[0], two[1])
    assert two[0].sum() > 0


def test_the_radii_of_the_horn():
    """(2, 1.5) at x = 0, (1.5, 2) e^2 = (11.08, 14.78) at x = 1, equal half-way."""
    radii = data.horn_radii(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    e = math.e
    by_hand = [[2.0, 1.5], [1.75 * e, 1.75 * e], [1.5 * e**2, 2 * e**2]]
    assert torch.allclose(radii, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-12)
    assert data.horn_radii(torch.tensor(0.0), a=3.0, b=5.0).tolist() == [5.0, 3.0]


@pytest.mark.parametrize("shape", [(), (7,), (3, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_horn_without_noise_lies_on_its_ellipses(shape, dtype):
    """Shapes and dtype of x come back, and (y / radii)^2 sums to one at the angle told."""
    x = torch.rand(shape, generator=generator(), dtype=dtype)
    y, angles = data.horn(x, generator(1), noise=0.0)
    assert y.shape == (*shape, 2) and angles.shape == shape
    assert y.dtype == angles.dtype == dtype
    scaled = y / data.horn_radii(x)
    assert torch.allclose(scaled, data.tips(angles), atol=1e-6)
    assert torch.allclose(scaled.square().sum(-1), torch.ones_like(x), atol=1e-6)


def test_the_horns_noise_is_white_and_its_angles_are_even():
    """Four tests at a false alarm of 1e-3, at a fixed seed: angles, each noise, no correlation.

    One draw for both coordinates, as the course's formula reads, would have correlation 1.
    """
    x = torch.linspace(0, 1, 4000, dtype=torch.float64)
    y, angles = data.horn(x, generator(), noise=0.05)
    noise = ((y - data.horn_radii(x) * data.tips(angles)) / 0.05).numpy()
    assert stats.kstest(angles.numpy(), stats.uniform(0, 2 * math.pi).cdf).pvalue > 1e-3
    for coordinate in noise.T:
        assert stats.kstest(coordinate, stats.norm.cdf).pvalue > 1e-3
    assert stats.pearsonr(*noise.T).pvalue > 1e-3


def test_the_horn_repeats_and_differs_by_generator():
    x = torch.zeros(5)
    for one, same, other in zip(
        data.horn(x, generator()),
        data.horn(x, generator()),
        data.horn(x, generator(1)),
        strict=True,
    ):
        assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: data.von_mises(3, -1.0, generator()), "concentration: expected >= 0"),
        (lambda: data.horn(torch.zeros(3), generator(), -0.1), "noise: expected >= 0"),
        (lambda: data.horn(torch.zeros(3), generator(), math.nan), "noise: expected >= 0"),
        (lambda: data.pen_frames(torch.zeros(2, 2)), "angles: expected a float vector"),
        (lambda: data.pen_frames(torch.zeros(2, dtype=torch.int64)), "angles"),
        (lambda: data.pen_frames(torch.zeros(2), size=3), "size: expected >= 8"),
        (lambda: data.frames("cats", 3, generator()), "dataset must be one of pen, digits, mnist"),
        (lambda: data.frames("digits", 9999, generator()), "digits has 1438 pictures"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("name, shape", [("pen", (10, 32, 32)), ("digits", (10, 8, 8))])
def test_embedded_sets(name, shape):
    """They need no file, and ink is in [0, 1]."""
    pictures = data.frames(name, 10, generator())
    assert pictures.shape == shape
    assert pictures.min() == 0 and 0.5 < pictures.max() <= 1


def test_mnist_without_a_folder_says_what_to_set(monkeypatch):
    monkeypatch.delenv("EBMREF_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="EBMREF_DATA"):
        data.frames("mnist", 3, generator())


def write_idx(path, array):
    """An array in MNIST's own file format."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


def test_mnist_is_read_from_a_folder_and_damage_is_named(tmp_path):
    """A small set in torchvision's layout reads; a truncated or missing file is an error."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pictures = np.arange(4 * 28 * 28, dtype=np.uint64).reshape(4, 28, 28).astype(np.uint8)
    for split in ("train", "t10k"):
        write_idx(raw / f"{split}-images-idx3-ubyte", pictures)
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(4, dtype=np.uint8))
    got = data.frames("mnist", 4, generator(), root=tmp_path)
    assert torch.equal(got.sum().round(), torch.tensor(pictures / 255.0).sum().float().round())
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(gzip.compress(images.read_bytes())[:50])
    with pytest.raises(FileNotFoundError, match="missing or damaged"):
        data.frames("mnist", 4, generator(), root=tmp_path)
    images.unlink()
    with pytest.raises(FileNotFoundError, match="missing or damaged"):
        data.frames("mnist", 4, generator(), root=tmp_path)


@pytest.mark.skipif("EBMREF_DATA" not in os.environ, reason="EBMREF_DATA names no data folder")
def test_real_mnist():
    pictures = data.frames("mnist", 100, generator())
    assert pictures.shape == (100, 28, 28)
    assert 0.1 < pictures.mean() < 0.2
