"""Which data a run read is told by their content, wherever they lie."""

import shutil

import pytest

from ebmbook import inputs


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of data with two files, named by the environment."""
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/a.bin").write_bytes(b"abc")
    (folder / "b.bin").write_bytes(b"b")
    monkeypatch.setenv("EBMREF_DATA", str(folder))
    return folder


def test_what_was_opened_is_told(data, tmp_path):
    """Files inside the folder, by their place in it; others not, nor those of an earlier run."""
    inputs.watch()
    (data / "b.bin").read_bytes()
    inputs.watch()
    assert inputs.read() == {}
    with open(data / "deep/a.bin", "rb") as file:
        file.read()
    (tmp_path / "other").write_text("x")
    told = inputs.read()
    assert list(told) == ["deep/a.bin"] and len(told["deep/a.bin"]) == 64


def test_content_counts_and_place_does_not(data, tmp_path, monkeypatch):
    """The same files elsewhere are the same; other content is named; what is not here is not."""
    inputs.watch()
    (data / "deep/a.bin").read_bytes()
    told = inputs.read()
    assert inputs.changed(told) == []
    moved = shutil.move(data, tmp_path / "elsewhere")
    monkeypatch.setenv("EBMREF_DATA", str(moved))
    assert inputs.changed(told) == []
    (moved / "deep/a.bin").write_bytes(b"abd")
    assert inputs.changed(told) == ["deep/a.bin"]
    monkeypatch.delenv("EBMREF_DATA")
    assert inputs.changed(told) == []
