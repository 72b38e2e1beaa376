"""Pens are drawn where they fell, angles have their law, and missing data says what to do."""

import gzip
import hashlib
import http.client
import io
import math
import os
import pickle
import struct
import urllib.error
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from scipy.special import logsumexp
from sklearn.datasets import load_digits

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


def idx_bytes(array):
    """An array of bytes in MNIST's own file format."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def test_mnist_is_read_from_a_folder_and_damage_is_named(tmp_path):
    """A small set in torchvision's layout reads; a truncated or missing file is an error."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pictures = np.arange(4 * 28 * 28, dtype=np.uint64).reshape(4, 28, 28).astype(np.uint8)
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(pictures))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(4, dtype=np.uint8)))
    got = data.frames("mnist", 4, generator(), root=tmp_path)
    assert torch.equal(got.sum().round(), torch.tensor(pictures / 255.0).sum().float().round())
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(gzip.compress(images.read_bytes())[:50])
    with pytest.raises(FileNotFoundError, match="missing or damaged"):
        data.frames("mnist", 4, generator(), root=tmp_path)
    images.unlink()
    with pytest.raises(FileNotFoundError, match="missing or damaged"):
        data.frames("mnist", 4, generator(), root=tmp_path)


# --- laws on the plane -----------------------------------------------------------------


def scipy_log_prob(law, x):
    """The mixture's log density, a term a mode, by SciPy."""
    terms = [
        stats.multivariate_normal(mean, scale**2).logpdf(x)
        for mean, scale in zip(law.means.numpy(), law.scales.tolist(), strict=True)
    ]
    return logsumexp(terms, axis=0) - math.log(len(terms))


APART = [
    (data.gaussian_grid, {}),
    (data.gaussian_grid, {"side": 2, "spacing": 3.0, "scale": 0.3}),
    (data.gaussian_ring, {}),
]
OVERLAPPING = (data.gaussian_ring, {"n_modes": 5, "radius": 1.0, "scale": 0.3})


@pytest.mark.parametrize("make, options", [*APART, OVERLAPPING])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixtures_have_scipys_density(make, options, dtype):
    """-energy is the log density of equal Gaussians at the modes; the dtype is that of `like`."""
    law = make(torch.zeros(3, dtype=dtype), **options)
    x = law.sample(50, generator())
    assert x.dtype == law.means.dtype == dtype
    expected = torch.as_tensor(scipy_log_prob(law, x.numpy()), dtype=dtype)
    assert torch.allclose(-law(x), expected, atol=1e-3 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("make, options", APART)
def test_mixtures_draw_each_mode_alike(make, options):
    """Chi-squared of the modes' counts and Kolmogorov-Smirnov of what is left, over the scale:
    three tests at a false alarm of 1e-3, at a fixed seed. Ten scales lie between any two modes,
    so the nearest is the one that a point was drawn from."""
    law = make(torch.zeros(1, dtype=torch.float64), **options)
    k, x, scale = len(law.means), law.sample(4000, generator(3)), float(law.scales[0])
    assert float(torch.pdist(law.means).min()) >= 10 * scale
    nearest = torch.cdist(x, law.means).argmin(1)
    assert stats.chisquare(torch.bincount(nearest, minlength=k)).pvalue > 1e-3
    for coordinate in ((x - law.means[nearest]) / scale).T:
        assert stats.kstest(coordinate.numpy(), stats.norm.cdf).pvalue > 1e-3


def test_the_grid_and_the_ring_are_where_they_are_said_to_be():
    """25 modes at -2 .. 2 of scale .05; 8 modes at radius 2, an eighth of a turn apart, of .02."""
    grid, ring = data.gaussian_grid(torch.zeros(1)), data.gaussian_ring(torch.zeros(1))
    assert sorted(map(tuple, grid.means.tolist())) == [
        (float(x), float(y)) for x in range(-2, 3) for y in range(-2, 3)
    ]
    assert set(grid.scales.tolist()) == {torch.tensor(0.05).item()}
    assert torch.allclose(ring.means.norm(dim=1), torch.tensor(2.0))
    turn = torch.atan2(ring.means[:, 1], ring.means[:, 0]) / (2 * math.pi) * 8 % 8
    assert torch.allclose(turn, torch.arange(8.0), atol=1e-5)
    assert set(ring.scales.tolist()) == {torch.tensor(0.02).item()}
    for make in (data.gaussian_grid, data.gaussian_ring):
        with pytest.raises(ValueError, match="expected all > 0"):
            make(torch.zeros(1), scale=0.0)


def test_the_swiss_roll_is_a_spiral():
    """Without noise its angle is 7.5 times its radius, t, even over 1.5 pi .. 4.5 pi; with it, the
    same points are off by N(0, (.25 / 7.5)^2). False alarm 1e-3 each, at a fixed seed."""
    x = data.swiss_roll(4000, generator(), noise=0.0).double()
    t = 7.5 * x.norm(dim=1)
    assert torch.allclose(x * 7.5, t[:, None] * data.tips(t), atol=1e-4)
    law = stats.uniform(1.5 * math.pi, 3 * math.pi)
    assert stats.kstest(t.numpy(), law.cdf).pvalue > 1e-3
    noisy = data.swiss_roll(4000, generator())
    assert noisy.dtype == torch.float32 and noisy.shape == (4000, 2)
    for coordinate in ((noisy - x) / (0.25 / 7.5)).T:
        assert stats.kstest(coordinate.numpy(), stats.norm.cdf).pvalue > 1e-3
    assert torch.equal(noisy, data.swiss_roll(4000, generator()))
    assert not torch.equal(noisy, data.swiss_roll(4000, generator(1)))
    with pytest.raises(ValueError, match="noise"):
        data.swiss_roll(5, generator(), noise=-1.0)


# --- embedded pictures -----------------------------------------------------------------


def test_digits_are_split_once_and_for_all():
    """1,438 and 359 of scikit-learn's 1,797, no picture in both places of the split; ink / 16."""
    bunch = load_digits()
    train, test = (data.pictures("digits", split) for split in data.SPLITS)
    assert (len(train.pixels), len(test.pixels)) == (1438, 359)
    assert train.pixels.shape[1:] == (1, 8, 8) and train.classes == [*"0123456789"]
    assert torch.equal(test.labels, torch.tensor(bunch.target[4::5]))
    together = torch.empty(1797, 8, 8)
    together[4::5] = test.pixels[:, 0]
    together[torch.arange(1797) % 5 != 4] = train.pixels[:, 0]
    assert torch.equal(together, torch.tensor(bunch.images / 16, dtype=torch.float32))


def test_frames_are_different_pictures_of_the_set():
    """Drawn without replacement, again the same with the same generator."""
    some = data.frames("digits", 500, generator())
    assert torch.equal(some, data.frames("digits", 500, generator()))
    assert not torch.equal(some, data.frames("digits", 500, generator(1)))
    all_of_them = data.frames("digits", 1438, generator())
    one, other = (
        sorted(map(tuple, pixels.flatten(1).tolist()))
        for pixels in (all_of_them, data.pictures("digits").pixels)
    )
    assert one == other


@pytest.mark.parametrize("name", ["pen", "digits"])
@pytest.mark.parametrize("n", [0, -1])
def test_no_frames_are_named(name, n):
    with pytest.raises(ValueError, match="n: "):
        data.frames(name, n, generator())


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: data.pictures("pen"), "dataset must be one of digits, mnist"),
        (lambda: data.pictures("MNIST"), "dataset must be one of digits, mnist"),
        (lambda: data.pictures("digits", "valid"), "split must be train or test; got 'valid'"),
    ],
)
def test_unknown_pictures_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "folder"])
def test_without_a_root_it_says_what_to_set(name, monkeypatch):
    """Only where there is something to download is a download spoken of."""
    monkeypatch.delenv("EBMREF_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set EBMREF_DATA") as error:
        data.pictures(name)
    assert ("download=True" in str(error.value)) == (name != "folder")


# --- torchvision's sets, in miniature --------------------------------------------------

STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
KIN = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


def idx_files():
    """Six pictures to train, three to test, as MNIST's four files: their names and bytes."""
    source = np.random.default_rng(0)
    arrays = [
        source.integers(0, 256, (6, 28, 28)), np.arange(6) % 10,
        source.integers(0, 256, (3, 28, 28)), 9 - np.arange(3),
    ]  # fmt: skip
    return {
        f"{stem}-ubyte": idx_bytes(array.astype(np.uint8))
        for stem, array in zip(STEMS, arrays, strict=True)
    }


def assert_is_idx(got, files, split):
    prefix = "train" if split == "train" else "t10k"
    pixels = np.frombuffer(files[f"{prefix}-images-idx3-ubyte"][16:], np.uint8)
    labels = np.frombuffer(files[f"{prefix}-labels-idx1-ubyte"][8:], np.uint8)
    expected = torch.tensor(pixels.reshape(-1, 1, 28, 28) / 255, dtype=torch.float32)
    assert torch.allclose(got.pixels, expected)
    assert got.labels.tolist() == labels.tolist()
    assert len(got.classes) == 10


class Server:
    """Stands in for `urlopen`: gives the files it knows, and may break off in the middle of one.

    Args:
        files: bytes by the last part of the address.
        broken: the file that breaks off, with `error` or, without one, in silence; None for none.
    """

    def __init__(self, files, broken=None, error=None):
        self.files, self.broken, self.error, self.asked = files, broken, error, []

    def __call__(self, request, *args, **options):
        name = request.full_url.rsplit("/")[-1]
        self.asked.append(name)
        return Answer(self, request.full_url, name)


class Answer:
    def __init__(self, server, url, name):
        self.server, self.url, self.name = server, url, name
        content = server.files[name]
        self.length, self.broken = len(content), name == server.broken
        self.left = io.BytesIO(content[: len(content) // 2] if self.broken else content)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return None

    def read(self, size):
        got = self.left.read(size)
        if not got and self.broken and self.server.error:
            raise self.server.error
        return got


@pytest.fixture
def served(monkeypatch):
    """MNIST and its kin with the checksums of `idx_files`, gzipped: these files by their names."""
    from torchvision import datasets

    files = {f"{name}.gz": gzip.compress(content) for name, content in idx_files().items()}
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in files.items()]
    for name in KIN.values():
        monkeypatch.setattr(getattr(datasets, name), "resources", sums)
        monkeypatch.setattr(getattr(datasets, name), "mirrors", ["https://example.org/"])
    return files


def found(root):
    """Every file under root, by its name."""
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", KIN)
@pytest.mark.parametrize("split", data.SPLITS)
def test_idx_files_are_read(name, split, tmp_path, monkeypatch):
    """From `root`, or from $EBMREF_DATA; a grey channel, ink / 255, the labels as they stand."""
    raw, files = tmp_path / KIN[name] / "raw", idx_files()
    raw.mkdir(parents=True)
    for stem, content in files.items():
        (raw / stem).write_bytes(content)
    assert_is_idx(data.pictures(name, split, root=tmp_path), files, split)
    monkeypatch.setenv("EBMREF_DATA", str(tmp_path))
    assert_is_idx(data.pictures(name, split), files, split)


@pytest.mark.parametrize("name", KIN)
def test_a_download_fetches_what_is_missing_once(name, tmp_path, served, monkeypatch, capfd):
    """Four files; a second call asks nobody; the bar is on the error stream."""
    server = Server(served)
    monkeypatch.setattr("urllib.request.urlopen", server)
    root = tmp_path / "new"
    assert_is_idx(data.pictures(name, root=root, download=True), idx_files(), "train")
    assert set(server.asked) == set(served)
    assert "100%" in capfd.readouterr().err
    server.asked.clear()
    assert_is_idx(data.pictures(name, "test", root=root, download=True), idx_files(), "test")
    assert server.asked == []


@pytest.mark.parametrize("name", [*KIN, "cifar10"])
def test_offline_the_cause_is_told_and_no_file_made(name, tmp_path, monkeypatch):
    def offline(*args, **options):
        raise urllib.error.URLError("name resolution failed")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(FileNotFoundError, match=f"^{name}: .*name resolution failed") as error:
        data.pictures(name, root=tmp_path / "new", download=True)
    assert "\n" not in str(error.value)
    assert found(tmp_path) == {}


def test_a_root_that_cannot_hold_a_download_is_named(tmp_path, monkeypatch):
    """A file where the folder should be; nothing is asked of the network."""
    server = Server({})
    monkeypatch.setattr("urllib.request.urlopen", server)
    file = tmp_path / "taken"
    file.write_text("a file")
    with pytest.raises(FileNotFoundError, match=r"^mnist: .*taken"):
        data.pictures("mnist", root=file, download=True)
    assert server.asked == [] and file.read_text() == "a file"


def test_a_damaged_set_is_fetched_anew_whole(tmp_path, served, monkeypatch):
    """What is damaged stays as it is where the download fails, and goes where it succeeds."""
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.parent.mkdir(parents=True)
    for name, content in idx_files().items():
        (images.parent / name).write_bytes(content)
    images.write_bytes(b"damaged")
    before = found(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", Server(served, "t10k-labels-idx1-ubyte.gz"))
    with pytest.raises(FileNotFoundError, match=r"^mnist: "):
        data.pictures("mnist", root=tmp_path, download=True)
    assert found(tmp_path) == before
    monkeypatch.setattr("urllib.request.urlopen", Server(served))
    assert_is_idx(data.pictures("mnist", root=tmp_path, download=True), idx_files(), "train")
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


CUTS = pytest.mark.parametrize(
    "cut",
    [
        ConnectionResetError("reset by peer"),
        TimeoutError("timed out"),
        http.client.IncompleteRead(b"", 500),
        None,
    ],
    ids=["reset", "timeout", "incomplete", "silent"],
)


@CUTS
def test_a_download_cut_off_leaves_no_half_file(cut, tmp_path, served, monkeypatch):
    """The second of MNIST's files breaks off: whatever is left is whole, and the next call,
    the network mended, gets the set."""
    server = Server(served, "train-labels-idx1-ubyte.gz", cut)
    monkeypatch.setattr("urllib.request.urlopen", server)
    with pytest.raises(FileNotFoundError, match=r"^mnist: "):
        data.pictures("mnist", root=tmp_path, download=True)
    whole = served | idx_files()
    assert all(content == whole.get(name) for name, content in found(tmp_path).items())
    monkeypatch.setattr("urllib.request.urlopen", Server(served))
    assert_is_idx(data.pictures("mnist", root=tmp_path, download=True), idx_files(), "train")


@CUTS
def test_an_archive_cut_off_leaves_nothing(cut, tmp_path, monkeypatch):
    """CIFAR-10 is one archive."""
    server = Server({"cifar-10-python.tar.gz": bytes(9999)}, "cifar-10-python.tar.gz", cut)
    monkeypatch.setattr("urllib.request.urlopen", server)
    with pytest.raises(FileNotFoundError, match=r"^cifar10: "):
        data.pictures("cifar10", root=tmp_path, download=True)
    assert found(tmp_path) == {}


def test_a_changed_file_is_not_taken_from_the_network(tmp_path, served, monkeypatch):
    """A file that has not the published checksum is refused, and not kept."""
    bad = served | {"t10k-labels-idx1-ubyte.gz": gzip.compress(b"not what was published")}
    monkeypatch.setattr("urllib.request.urlopen", Server(bad))
    with pytest.raises(FileNotFoundError, match=r"^mnist: "):
        data.pictures("mnist", root=tmp_path, download=True)
    assert "t10k-labels-idx1-ubyte" not in found(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\0\0\x09\x03",  # signed bytes
        b"\0\0\x0a\x03",  # no such type
        b"\0\0\x08\x09",  # nine dimensions
        b"\0\0\x08\x03\xff\xff\xff\xff",  # four billion pictures
    ],
)
def test_a_bad_idx_header_is_damage(header, tmp_path):
    raw, files = tmp_path / "MNIST" / "raw", idx_files()
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(header + images.read_bytes()[len(header) :] if header else b"")
    with pytest.raises(FileNotFoundError, match=r"^mnist: missing or damaged"):
        data.pictures("mnist", root=tmp_path)


def cifar_batches(root):
    """CIFAR-10's six files and its names, ten pictures each: random bytes, red first."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    source = np.random.default_rng(0)
    pixels, labels = source.integers(0, 256, (6, 10, 3072)).astype(np.uint8), [*range(10)]
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, batch in zip(names, pixels, strict=True):
        (folder / name).write_bytes(pickle.dumps({"data": batch, "labels": labels}))
    meta = {"label_names": [f"class {i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    return pixels.reshape(6, 10, 3, 32, 32), folder


def test_cifar_is_read_where_its_checksums_are_right(tmp_path, monkeypatch):
    """50 and 10 pictures, channels first; with torchvision's own checksums it is refused, and
    nothing of the pickles is looked at."""
    from torchvision import datasets

    pixels, folder = cifar_batches(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^cifar10: missing or damaged"):
        data.pictures("cifar10", root=tmp_path)
    sums = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    for kind in ("train_list", "test_list"):
        old = getattr(datasets.CIFAR10, kind)
        monkeypatch.setattr(datasets.CIFAR10, kind, [[name, sums[name]] for name, _ in old])
    meta = datasets.CIFAR10.meta | {"md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    for split, expected in (("train", pixels[:5]), ("test", pixels[5:])):
        got = data.pictures("cifar10", split, root=tmp_path)
        assert torch.equal(got.pixels, torch.tensor(expected.reshape(-1, 3, 32, 32)).float() / 255)
        assert got.labels.tolist() == [*range(10)] * len(expected)
        assert got.classes == [f"class {i}" for i in range(10)]


# --- a folder of pictures --------------------------------------------------------------


def grey(value, size=(8, 8)):
    return Image.new("L", size, value)


def save(picture, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def zipped(root, path, top=""):
    """The folder as a zip, deflated, its names below `top`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, f"{top}{file.relative_to(root)}")
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_a_class(packed, tmp_path):
    """Classes and files in the order of their names, other files left out, both splits alike."""
    root = tmp_path / "mine"
    for i, name in enumerate(["b/2.png", "b/10.PNG", "a/x.bmp", "c/x.jpg"]):
        save(grey(10 * i), root / name)
    (root / "a" / "notes.txt").write_text("not a picture")
    (root / "readme.txt").write_text("not a class")
    at = zipped(root, tmp_path / "mine.zip") if packed else root
    for split in data.SPLITS:
        got = data.pictures("folder", split, root=at)
        assert got.classes == ["a", "b", "c"]
        assert got.labels.tolist() == [0, 1, 1, 2]
        # 10.PNG comes before 2.png.
        ink = got.pixels.mean((1, 2, 3)) * 255
        assert torch.allclose(ink, torch.tensor([20.0, 10.0, 0.0, 30.0]), atol=1)


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_with_a_split(packed, tmp_path):
    """train/ and test/ are told apart, and a root may be given as text."""
    root = tmp_path / "mine"
    for split, value in (("train", 100), ("test", 200)):
        for name in ("a", "b"):
            save(grey(value), root / split / name / "1.png")
    at = zipped(root, tmp_path / "mine.zip") if packed else root
    for split, value in (("train", 100), ("test", 200)):
        got = data.pictures("folder", split, root=str(at))
        assert (got.pixels * 255).round().unique().tolist() == [value]
        assert (got.labels.tolist(), got.classes) == ([0, 1], ["a", "b"])


def test_a_label_means_the_same_in_both_splits(tmp_path):
    """A class of which the test set has no picture keeps its place."""
    for name in ("train/a", "train/b", "train/c", "test/a", "test/c"):
        save(grey(0), tmp_path / name / "1.png")
    train, test = (data.pictures("folder", split, root=tmp_path) for split in data.SPLITS)
    assert [train.classes[i] for i in train.labels] == ["a", "b", "c"]
    assert [train.classes[i] for i in test.labels] == ["a", "c"]


@pytest.mark.parametrize("junk", ["__MACOSX/a/._1.png", ".git/1.png", "a/._1.png"])
def test_what_a_machine_put_there_is_no_class(junk, tmp_path):
    """What packers and editors leave behind is neither a class nor a picture."""
    root = tmp_path / "mine"
    save(grey(50), root / "a" / "1.png")
    (root / junk).parent.mkdir(parents=True, exist_ok=True)
    (root / junk).write_bytes(b"resource fork")
    for at in (root, zipped(root, tmp_path / "mine.zip")):
        got = data.pictures("folder", root=at)
        assert (got.classes, len(got.pixels)) == (["a"], 1)


def sixteen_bit(values):
    """One row of the values, eight times, as a picture of 16 bits a pixel."""
    return Image.fromarray(np.tile(np.asarray(values, np.uint16), (8, 1)))


def palette():
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 255, 102, 0])
    return picture


@pytest.mark.parametrize(
    "picture, expected",
    [
        (grey(102), [0.4]),
        (Image.new("1", (8, 8), 1), [1.0]),
        (sixteen_bit([26214] * 8), [0.4]),
        (Image.new("RGB", (8, 8), (255, 102, 0)), [1.0, 0.4, 0.0]),
        (Image.new("RGBA", (8, 8), (255, 102, 0, 255)), [1.0, 0.4, 0.0]),
        (palette(), [1.0, 0.4, 0.0]),
    ],
    ids=["grey", "bits", "16 bits", "RGB", "RGBA", "palette"],
)
def test_a_picture_of_each_kind(picture, expected, tmp_path):
    """Ink in [0, 1] to a level of 8 bits; one channel for grey ones, three for coloured ones;
    `frames` averages the colours."""
    save(picture, tmp_path / "a" / "1.png")
    got = data.pictures("folder", root=tmp_path).pixels
    assert got.shape == (1, len(expected), 8, 8) and got.dtype == torch.float32
    assert torch.allclose(got.mean((2, 3))[0], torch.tensor(expected), atol=1 / 255)
    averaged = data.frames("folder", 1, generator(), root=tmp_path)
    assert averaged.shape == (1, 8, 8)
    assert float(averaged.mean()) == pytest.approx(np.mean(expected), abs=1 / 255)


def test_a_ramp_of_16_bits_stays_a_ramp(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    save(sixteen_bit(ramp), tmp_path / "a" / "1.png")
    got = data.pictures("folder", root=tmp_path).pixels[0, 0, 0]
    assert torch.allclose(got, torch.linspace(0, 1, 64), atol=1 / 255)


def test_a_side_crops_to_the_middle_and_resizes(tmp_path):
    """Black ends of a long picture are cut off; a large one shrinks, a small one grows; without
    a side they do not go together."""
    wide = grey(0, (32, 8))
    wide.paste(255, (12, 0, 20, 8))
    save(wide, tmp_path / "a" / "1.png")
    save(grey(255, (4, 4)), tmp_path / "a" / "2.png")
    save(grey(255, (50, 60)), tmp_path / "b" / "1.png")
    with pytest.raises(ValueError, match=r"side: .* 3 sizes or kinds, such as .*give a side"):
        data.pictures("folder", root=tmp_path)
    got = data.pictures("folder", root=tmp_path, side=8).pixels
    assert got.shape == (3, 1, 8, 8)
    assert torch.equal(got, torch.ones_like(got))


def test_grey_and_coloured_do_not_go_together(tmp_path):
    save(grey(0), tmp_path / "a" / "1.png")
    save(Image.new("RGB", (8, 8)), tmp_path / "a" / "2.png")
    with pytest.raises(ValueError, match="grey ones or coloured ones alone"):
        data.pictures("folder", root=tmp_path, side=8)


@pytest.mark.parametrize("side", [0, -8])
def test_a_side_that_is_none_is_named(side, tmp_path):
    save(grey(0), tmp_path / "a" / "1.png")
    with pytest.raises(ValueError, match="side: "):
        data.pictures("folder", root=tmp_path, side=side)


def png():
    """A sound picture, as bytes."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    return file.getvalue()


def with_header(width, height):
    """The same with other sides in its header, and the header's checksum right."""
    header = b"IHDR" + struct.pack(">II", width, height) + png()[24:29]
    return png()[:12] + header + struct.pack(">I", zlib.crc32(header)) + png()[33:]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture at all",
        png()[: len(png()) // 2],
        png()[:20],
        png().replace(b"IDAT", b"\xff\xfe\x00\x01"),
        png()[:8] + b"\0\0\0\5IHDR" + png()[16:],
        with_header(100_000, 100_000),
    ],
    ids=["empty", "text", "half", "header alone", "no such part", "short header", "vast"],
)
def test_a_damaged_picture_is_named(content, packed, tmp_path):
    """Among good ones the bad file is found and named, whatever the reader raised."""
    root = tmp_path / "mine"
    save(grey(0), root / "a" / "good.png")
    (root / "a" / "worn.png").write_bytes(content)
    at = zipped(root, tmp_path / "mine.zip") if packed else root
    with pytest.raises(FileNotFoundError, match=r"^folder: .*worn\.png is damaged"):
        data.pictures("folder", root=at)


@pytest.mark.parametrize("what", ["stream", "checksum", "password", "method", "end"])
def test_a_damaged_zip_is_named(what, tmp_path):
    """A bad stream, checksum, a password, an unknown method, a missing end."""
    root = tmp_path / "mine"
    save(grey(7, (64, 64)), root / "a" / "worn.bmp")
    path = zipped(root, tmp_path / "mine.zip")
    content = bytearray(path.read_bytes())
    listed = content.index(b"PK\1\2")
    begin = 30 + len("a/worn.bmp")
    if what == "stream":
        content[begin : begin + 4] = b"\xff\xff\xff\xff"
    elif what == "checksum":
        content[14:18] = content[listed + 16 : listed + 20] = b"\1\2\3\4"
    elif what == "password":
        content[6] |= 1
        content[listed + 8] |= 1
    elif what == "method":
        content[8] = content[listed + 10] = 77
    else:
        content = content[:listed]
    path.write_bytes(content)
    words = "cannot read" if what == "end" else r"worn\.bmp is damaged"
    with pytest.raises(FileNotFoundError, match=f"^folder: .*{words}"):
        data.pictures("folder", root=path)


def test_nothing_to_read_is_named(tmp_path):
    """An empty folder, classes without pictures, no folder, a file that is no zip, no test set."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder: no pictures under .*a folder a class"):
        data.pictures("folder", root=empty)
    (empty / "a").mkdir()
    with pytest.raises(FileNotFoundError, match="folder: no pictures under"):
        data.pictures("folder", root=empty)
    with pytest.raises(FileNotFoundError, match=r"folder: cannot read .*gone"):
        data.pictures("folder", root=tmp_path / "gone")
    file = tmp_path / "file.zip"
    file.write_text("no zip")
    with pytest.raises(FileNotFoundError, match=r"folder: cannot read .*file\.zip"):
        data.pictures("folder", root=file)
    save(grey(0), tmp_path / "half" / "train" / "a" / "1.png")
    assert len(data.pictures("folder", root=tmp_path / "half").pixels) == 1
    with pytest.raises(FileNotFoundError, match=r"folder: cannot read .*test"):
        data.pictures("folder", "test", root=tmp_path / "half")


def test_cifar_as_a_zip_of_pictures(tmp_path):
    """Read where the pickles are not; where they are, they count."""
    root = tmp_path / "mine"
    for split, value in (("train", 100), ("test", 200)):
        for name in ("cat", "dog"):
            save(Image.new("RGB", (32, 32), (value, 0, 0)), root / split / name / "0.png")
    zipped(root, tmp_path / "cifar10-jpeg.zip")
    for split, value in (("train", 100), ("test", 200)):
        got = data.pictures("cifar10", split, root=tmp_path)
        assert got.pixels.shape == (2, 3, 32, 32) and got.classes == ["cat", "dog"]
        assert (got.pixels * 255).round().unique().tolist() == [0, value]
    cifar_batches(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^cifar10: missing or damaged"):
        data.pictures("cifar10", root=tmp_path)


# --- two domains -----------------------------------------------------------------------


def two_domains(tmp_path, size=(8, 8)):
    """A folder of a grey and a red picture, and one of three blue ones; neither is a class."""
    save(grey(51, size), tmp_path / "a" / "2.png")
    save(Image.new("RGB", size, (255, 0, 0)), tmp_path / "a" / "10.PNG")
    for name in ("x.jpg", "y.bmp", "z.webp"):
        save(Image.new("RGB", size, (0, 0, 255)), tmp_path / "b" / name)
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize("kind", [str, Path])
def test_two_domains(kind, tmp_path):
    """Each in the order of its names, of its own number; grey as coloured; other files left out."""
    folders = two_domains(tmp_path)
    (folders[0] / "notes.txt").write_text("not a picture")
    (folders[1] / "._x.jpg").write_bytes(b"resource fork")
    save(grey(0), folders[1] / "inner" / "1.png")
    a, b = data.domains(*map(kind, folders))
    assert (a.shape, b.shape) == ((2, 3, 8, 8), (3, 3, 8, 8))
    assert a.dtype == b.dtype == torch.float32
    assert a.mean((2, 3)).flatten().tolist() == pytest.approx([1, 0, 0, 0.2, 0.2, 0.2])
    assert torch.allclose(b.mean((0, 2, 3)), torch.tensor([0.0, 0.0, 1.0]), atol=0.01)


def test_a_side_makes_two_domains_alike(tmp_path):
    """Pictures of different sizes, in a folder or between the two, or that are no squares, need a
    side; the message names both folders."""
    a, b = two_domains(tmp_path)
    wide = Image.new("RGB", (32, 8))
    wide.paste((0, 0, 255), (12, 0, 20, 8))
    save(wide, b / "wide.png")
    words = rf"side: .*\(8, 8\).* in a \({a}\) and .*\(8, 32\).* in b \({b}\)"
    with pytest.raises(ValueError, match=words):
        data.domains(a, b)
    got = data.domains(a, b, side=4)
    assert [of.shape for of in got] == [(2, 3, 4, 4), (4, 3, 4, 4)]
    assert torch.allclose(got[1].mean((2, 3))[:, 2], torch.ones(4), atol=0.05)
    larger = tmp_path / "larger"
    save(grey(0, (9, 9)), larger / "1.png")
    with pytest.raises(ValueError, match=r"side: .*\(8, 8\).*\(9, 9\)"):
        data.domains(a, larger)
    oblong, _ = two_domains(tmp_path / "oblong", (8, 6))
    with pytest.raises(ValueError, match=r"side: expected squares .*\(6, 8\)"):
        data.domains(oblong, oblong)


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_domain_that_cannot_be_read_is_named(which, tmp_path):
    """None, no such folder, a file in its place, nothing inside, a damaged picture, a bad side."""
    good, _ = two_domains(tmp_path / "good")

    def read(bad, **options):
        return data.domains(**{"a": good, "b": good, which: bad}, **options)

    with pytest.raises(ValueError, match=f"^{which}: expected a folder of pictures.* got None"):
        read(None)
    with pytest.raises(ValueError, match="side: expected >= 1 pixels"):
        read(good, side=0)
    bad = tmp_path / "bad"
    with pytest.raises(FileNotFoundError, match=f"^{which}: no folder at {bad}; expected a folder"):
        read(bad)
    save(grey(0), tmp_path / "picture.png")
    with pytest.raises(FileNotFoundError, match=rf"^{which}: no folder at .*picture\.png"):
        read(tmp_path / "picture.png")
    save(grey(0), bad / "class" / "1.png")
    words = rf"^{which}: no pictures in {bad}; expected .*\.png.* right inside"
    with pytest.raises(FileNotFoundError, match=words):
        read(bad)
    save(grey(0), bad / "good.png")
    (bad / "worn.png").write_bytes(png()[:50])
    with pytest.raises(FileNotFoundError, match=rf"^{which}: .*worn\.png is damaged .*; expected"):
        read(bad)


# --- the real sets ---------------------------------------------------------------------


@pytest.mark.skipif("EBMREF_DATA" not in os.environ, reason="EBMREF_DATA names no data folder")
def test_real_mnist():
    """60,000 and 10,000 pictures; how many of each digit is known."""
    frames = data.frames("mnist", 100, generator())
    assert frames.shape == (100, 28, 28)
    assert 0.1 < frames.mean() < 0.2
    train, test = (data.pictures("mnist", split) for split in data.SPLITS)
    assert train.pixels.shape == (60000, 1, 28, 28) and test.pixels.shape == (10000, 1, 28, 28)
    # LeCun, Cortes & Burges: the mean ink is .1307.
    assert float(train.pixels.mean()) == pytest.approx(0.1307, abs=5e-5)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.labels.bincount().tolist() == counts
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test.labels.bincount().tolist() == counts


@pytest.mark.skipif("EBMREF_DATA" not in os.environ, reason="EBMREF_DATA names no data folder")
@pytest.mark.parametrize("split, n", [("train", 50000), ("test", 10000)])
def test_real_cifar(split, n):
    """A tenth of each class, by its name."""
    got = data.pictures("cifar10", split)
    assert got.pixels.shape == (n, 3, 32, 32)
    assert got.labels.bincount().tolist() == [n // 10] * 10
    assert [got.classes[i] for i in (0, 3, 9)] == ["airplane", "cat", "truck"]
    # Means of the channels, as every CIFAR-10 recipe subtracts them: .491, .482, .447.
    means = got.pixels.mean((0, 2, 3)).tolist()
    assert means == pytest.approx([0.491, 0.482, 0.447], abs=0.005)
