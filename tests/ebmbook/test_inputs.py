"""Which data a run read is told by their content, wherever they lie."""

import shutil

import pytest

from ebmbook import inputs, ledger
from ebmbook.claims import LedgerError


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


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A book in which one chapter reads a set in the full profile; without a folder of data."""
    claims = tmp_path / "claims"
    claims.mkdir()
    (tmp_path / "data.yml").write_text("pictures:\n  dataset: {full: mnist}\n")
    monkeypatch.setenv("EBMREF_CLAIMS", str(claims))
    monkeypatch.delenv("EBMREF_DATA", raising=False)
    return tmp_path / "data.yml"


def test_missing_data_are_named_at_once(table, tmp_path, monkeypatch):
    """By what the profile, or who runs it, asks for; with the chapter, and what to do."""
    with pytest.raises(LedgerError, match="pictures: the full profile reads mnist: no folder"):
        inputs.require("pictures", "full", {"dataset": None})
    monkeypatch.setenv("EBMREF_DATA", str(tmp_path))
    with pytest.raises(LedgerError, match="reads mnist: missing or damaged under"):
        inputs.require("pictures", "full", {})
    with pytest.raises(LedgerError, match="reads cifar10: missing or damaged under"):
        inputs.require("pictures", "quick", {"dataset": "cifar10"})
    with pytest.raises(LedgerError, match="dataset must be one of"):
        inputs.require("pictures", "quick", {"dataset": "cats"})


def test_nothing_missing(table):
    """Another profile or chapter, a set that is here, one that is to be fetched, no table."""
    inputs.require("pictures", "quick", {"dataset": None})
    inputs.require("other", "full", {"dataset": None})
    inputs.require("pictures", "full", {"dataset": "digits"})
    inputs.require("pictures", "full", {"download": True})
    table.unlink()
    inputs.require("pictures", "full", {})


def test_a_chapter_s_start_looks(table):
    """With the parameters of the notebook, its globals."""
    names = {"ledger": ledger, "dataset": None}
    with pytest.raises(LedgerError, match="pictures: the full profile reads mnist"):
        exec('ledger.start("pictures", "full", 0, "cpu")', names)
    exec('ledger.start("pictures", "full", 0, "cpu")', names | {"dataset": "digits"})
