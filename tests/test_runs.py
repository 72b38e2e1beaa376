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
    for name in ("EBMREF_PROFILE", "EBMREF_DEVICE", "EBMREF_CHECKPOINTS"):
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
    """Wherever the folder is said to be."""
    monkeypatch.setenv("EBMREF_CHECKPOINTS", "somewhere")
    assert runs.begin("01-x", "quick", 0, "cpu").checkpoint("gan", runs) is None


def test_a_checkpoint_is_named_after_what_made_it():
    """Name, seed and code each make another file; the same make the same one."""
    path = full().checkpoint("gan-mnist", runs)
    assert path == full().checkpoint("gan-mnist", runs)
    assert path.name.startswith("gan-mnist-seed-0-") and path.suffix == ".pt"
    others = [
        full().checkpoint("gan-digits", runs),
        full(3).checkpoint("gan-mnist", runs),
        full().checkpoint("gan-mnist", profiles),
        full().checkpoint("gan-mnist", runs, profiles),
        full().checkpoint("gan-mnist"),
    ]
    assert len({path, *others}) == 6
    assert "-seed-3-" in others[1].name


def test_an_edit_of_the_code_makes_another_name(tmp_path, monkeypatch):
    """An edit gives a name of its own, its undoing the old one; a module that is not named does
    not matter."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "trainer_of_a_test.py"

    def name(text):
        path.write_text(text)
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
        linecache.checkcache()
        importlib.invalidate_caches()
        return full().checkpoint("gan", importlib.import_module(path.stem))

    first, second = name("RATE = 1  # a\n"), name("RATE = 20  # a\n")
    assert first != second
    assert name("RATE = 1  # a\n") == first


def test_where_checkpoints_are_kept(monkeypatch, tmp_path):
    """In $EBMREF_CHECKPOINTS, else beside the run; no folder is made before something is saved."""
    assert full().checkpoint("gan", runs).parent == Path("checkpoints")
    monkeypatch.setenv("EBMREF_CHECKPOINTS", "")
    assert full().checkpoint("gan", runs).parent == Path("checkpoints")
    monkeypatch.setenv("EBMREF_CHECKPOINTS", str(tmp_path / "kept"))
    assert full().checkpoint("gan", runs).parent == tmp_path / "kept"
    assert not (tmp_path / "kept").exists()
