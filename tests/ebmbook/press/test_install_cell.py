"""The first cell of a notebook: it installs the package, and leaves what the host has alone."""

import ast
import shutil

import pytest
from books import at
from installs import Environment, make_wheel

from ebmbook.press import downloads, notebooks, project


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Environment:
    """A host with a PyTorch and a numpy of its own, and nothing of ours."""
    return Environment(tmp_path_factory.mktemp("host") / "env")


@pytest.fixture(scope="module")
def index(host, tmp_path_factory):
    """What pip finds: newer ones of all, of which some want a newer numpy."""
    folder = tmp_path_factory.mktemp("index")
    own = [make_wheel(folder, "torch", "2.5.1+cu121"), make_wheel(folder, "numpy", "1.26.4")]
    make_wheel(folder, "torch", "2.9.0")
    make_wheel(folder, "numpy", "2.3.0")
    make_wheel(folder, "arviz", "0.21.0", ["numpy>=1.26"])
    make_wheel(folder, "arviz", "0.22.0", ["numpy>=2"])
    done = host.pip("install", "--no-deps", *map(str, own))
    assert done.returncode == 0, done.stderr
    return folder


def cell(package: str) -> str:
    return downloads.INSTALL.format(package=package, keep=downloads.KEEP)


def test_what_does_not_fit_the_host_is_told_and_nothing_changes(host, index):
    make_wheel(index, "late", "1.0", ["torch>=2.6"])
    before = host.versions()
    done = host.run("-c", cell("late"), PIP_FIND_LINKS=str(index))
    assert done.returncode == 1
    assert "late 1.0 depends on torch>=2.6" in done.stdout
    assert "kept: torch==2.5.1+cu121 numpy==1.26.4" in done.stdout
    assert host.versions() == before


def test_the_package_comes_and_the_host_keeps_its_own(host, index):
    """Though an older arviz has to do."""
    make_wheel(index, "ebmref", "0.1.0", ["torch>=2.4", "numpy>=1.26", "arviz>=0.20"], "ebmbook")
    done = host.run("-c", cell("ebmref"), PIP_FIND_LINKS=str(index))
    assert done.returncode == 0, done.stderr
    got = host.versions()
    assert (got["torch"], got["numpy"]) == ("2.5.1+cu121", "1.26.4")
    assert (got["ebmref"], got["arviz"]) == ("0.1.0", "0.21.0")
    # It is there now: nothing is asked for.
    again = host.run("-c", cell("no such package"), PIP_FIND_LINKS=str(index))
    assert again.returncode == 0, again.stderr


def test_without_the_bounds_the_host_would_change(host, index):
    """What the cell is for: pip alone takes the newest of all."""
    asked = ["install", "--dry-run", "--upgrade", "arviz"]
    done = host.pip(*asked, PIP_FIND_LINKS=str(index))
    assert "numpy-2.3.0" in done.stdout


def test_it_is_short_lines_of_python():
    text = downloads.install_cell()
    ast.parse(text)
    lines = downloads.INSTALL.splitlines()
    assert max(map(len, lines)) <= 76


@pytest.mark.parametrize("tags", ["{tag}", "v0.0.9 other", "", None])
def test_it_installs_this_release_or_this_commit(tmp_path, monkeypatch, tags):
    """From the address in pyproject.toml, whatever the clone's origin is."""

    def git(*args: str) -> str:
        if tags is None:
            raise OSError  # no git, or no checkout
        return tags.format(tag=made.tag) if args[0] == "tag" else "0123abcd"

    monkeypatch.setattr(project.records, "git", git)
    shutil.copy(notebooks.ROOT / "pyproject.toml", tmp_path)
    at(tmp_path, "https://github.com/somebody/something")
    made = project.read(tmp_path)
    expected = made.tag if tags in ("{tag}", None) else "0123abcd"
    assert downloads.package(made) == (
        f"ebmref @ git+https://github.com/somebody/something@{expected}"
    )


def test_without_an_address_it_installs_the_clone(tmp_path):
    shutil.copy(notebooks.ROOT / "pyproject.toml", tmp_path)
    at(tmp_path, "")
    assert downloads.package(project.read(tmp_path)) == "."
