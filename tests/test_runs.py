"""Profiles, devices and random streams resolve as said, and unknown ones are refused."""

import pytest
import torch

from ebmref import profiles, runs


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("EBMREF_PROFILE", "EBMREF_DEVICE"):
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
