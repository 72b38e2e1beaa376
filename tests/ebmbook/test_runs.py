"""Profiles, devices and random streams resolve as said, and unknown ones are refused."""

import importlib
import linecache
import sys
from pathlib import Path

import pytest
import torch

from ebmbook import profiles, runs


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("EBMREF_PROFILE", "EBMREF_DEVICE", "EBMREF_CHECKPOINTS", "EBMREF_KEEP"):
        monkeypatch.delenv(name, raising=False)


def test_argument_then_environment_then_quick(monkeypatch):
    assert profiles.resolve_profile() == "quick"
    monkeypatch.setenv("EBMREF_PROFILE", "full")
    assert profiles.resolve_profile() == "full"
    assert profiles.resolve_profile("quick") == "quick"


@pytest.mark.parametrize("name", ["Quick", "huge", "full "])
def test_unknown_profile_names_the_known(name):
    with pytest.raises(ValueError, match=r"profile must be one of quick, full"):
        profiles.resolve_profile(name)


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "cpu:x"])
def test_unknown_or_absent_device_is_refused(name):
    with pytest.raises(ValueError, match="device must be one this machine has"):
        runs.resolve_device(name)


@pytest.mark.parametrize("seed", [-1, 1.5, "3", True, None])
def test_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed must be an integer >= 0"):
        runs.begin("01-x", "quick", seed, "cpu")


def test_pick_follows_the_profile():
    assert runs.begin("01-x", "quick", 0, "cpu").pick(quick=1, full=2) == 1
    assert runs.begin("01-x", "full", 0, "cpu").pick(quick=1, full=2) == 2


def test_streams_repeat_and_differ():
    """One seed and name give one stream; another seed or name gives another."""
    run, other = (runs.begin("01-x", "quick", seed, "cpu") for seed in (0, 1))

    def draw(run, stream):
        return torch.rand(4, generator=run.generator(stream))

    assert torch.equal(draw(run, "data"), draw(run, "data"))
    assert not torch.equal(draw(run, "data"), draw(run, "model"))
    assert not torch.equal(draw(run, "data"), draw(other, "data"))


def full(seed=0):
    return runs.Run("01-x", "full", seed, torch.device("cpu"))


def test_quick_runs_keep_no_checkpoint(monkeypatch):
    """Wherever the folder is said to be; unless a carry asks for some."""
    monkeypatch.setenv("EBMREF_CHECKPOINTS", "somewhere")
    run = runs.begin("01-x", "quick", 0, "cpu")
    assert run.checkpoint("gan") is None
    monkeypatch.setenv("EBMREF_KEEP", "1")
    assert run.checkpoint("gan").parent == Path("somewhere")


def notebook(*cells: str, run=None) -> dict:
    """Execute cells as IPython does, with their sources in `In`; the names they bind."""
    names = {"In": [""], "run": run or full()}
    for cell in cells:
        names["In"].append(cell)
        exec(compile(cell, f"cell-{len(names['In'])}", "exec"), names)
    return names


CELLS = (
    "from ebmref import energies\nrate = 1",
    "def train(n):\n    return energies.double_well, n * rate",
    "shown = 3",
    "for name in ('a', 'b'):\n    train(2)\n    path = run.checkpoint(name)\nlater = 1",
)


def test_a_checkpoint_is_named_after_what_made_it():
    """Name, seed, and the code that the statement depends on each make another file."""
    path = notebook(*CELLS)["path"]
    assert path == notebook(*CELLS)["path"]
    assert path.name.startswith("b-seed-0-") and path.suffix == ".pt"
    others = [
        notebook(*CELLS[:3], CELLS[3].replace("'b'", "'c'"))["path"],
        notebook(*CELLS, run=full(3))["path"],
        notebook(CELLS[0].replace("1", "2"), *CELLS[1:])["path"],
        notebook(CELLS[0], CELLS[1].replace("n *", "n +"), *CELLS[2:])["path"],
        notebook(*CELLS[:3], CELLS[3].replace("train(2)", "train(3)"))["path"],
        notebook(CELLS[0], CELLS[1].replace("double_well", "double_well_points"), *CELLS[2:])[
            "path"
        ],
    ]
    assert len({path, *others}) == 7
    assert "-seed-3-" in others[1].name


def test_what_a_checkpoint_s_name_does_not_tell():
    """Other cells, comments, and what comes after the statement."""
    path = notebook(*CELLS)["path"]
    assert path == notebook(*CELLS[:2], "shown = 4", CELLS[3])["path"]
    assert path == notebook(CELLS[0] + "  # per step", *CELLS[1:])["path"]
    assert path == notebook(*CELLS[:3], CELLS[3].replace("later = 1", "later = 2"))["path"]


def test_outside_a_notebook_the_file_counts(tmp_path, monkeypatch):
    """An edit gives a name of its own, its undoing the old one."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "trainer_of_a_test.py"

    def name(text):
        path.write_text(f"{text}def kept(run):\n    return run.checkpoint('gan')\n")
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
        linecache.checkcache()
        importlib.invalidate_caches()
        return importlib.import_module(path.stem).kept(full())

    first, second = name("RATE = 1  # a\n"), name("RATE = 20  # a\n")
    assert first != second
    assert name("RATE = 1  # b\n") == first


def test_where_checkpoints_are_kept(monkeypatch, tmp_path):
    """In $EBMREF_CHECKPOINTS, else beside the run; no folder is made before something is saved."""
    assert full().checkpoint("gan").parent == Path("checkpoints")
    monkeypatch.setenv("EBMREF_CHECKPOINTS", "")
    assert full().checkpoint("gan").parent == Path("checkpoints")
    monkeypatch.setenv("EBMREF_CHECKPOINTS", str(tmp_path / "kept"))
    assert full().checkpoint("gan").parent == tmp_path / "kept"
    assert not (tmp_path / "kept").exists()
