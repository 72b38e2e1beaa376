"""One source of versions: pyproject has the ranges, the lock the pins, everything else follows."""

import ast
import importlib.metadata
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def pins() -> list[Requirement]:
    """The lock's lines without their hashes."""
    lines = re.findall(r"^([a-z0-9][^\n\\]*==[^\n\\]*)", LOCK, flags=re.MULTILINE | re.IGNORECASE)
    return [Requirement(line.strip()) for line in lines]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    return [Requirement(text) for text in PROJECT["dependencies"] + extras["book"] + extras["test"]]


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_the_lock_is_of_pyproject(requirement):
    """Each range has its pin, inside the range; after an edit: make lock."""
    found = [pin for pin in pins() if canonical(pin.name) == canonical(requirement.name)]
    assert found, "make lock"
    for pin in found:
        (version,) = pin.specifier
        assert requirement.specifier.contains(version.version), "make lock"


def test_this_environment_is_the_lock():
    """What runs the tests is what the lock names."""
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate():
            (version,) = pin.specifier
            assert importlib.metadata.version(pin.name) == version.version, pin


def test_every_pin_is_hashed_and_names_no_place():
    """No download address, no path: only names, versions and hashes."""
    for block in re.split(r"^(?=[a-z0-9][^\n]*==)", LOCK, flags=re.MULTILINE | re.IGNORECASE)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
    assert re.search(r"://|index-url|find-links|@ ", LOCK) is None


def test_conda_users_get_the_lock():
    """environment.yml has no versions of its own but Python's, and that is pyproject's."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip == {"pip": ["--require-hashes", "-r requirements.lock"]}


def test_a_change_is_checked_once_on_all_cores():
    """CI: not as a push and as a pull request; with its packages kept; each Python to its end."""
    flow = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text())
    events = flow[True]  # "on", to YAML
    assert events["push"] == {"branches": ["main"]} and "pull_request" in events
    assert "pull_request" in flow["concurrency"]["cancel-in-progress"]
    book = flow["jobs"]["book"]
    assert book["strategy"]["fail-fast"] is False
    (cache,) = (step["with"] for step in book["steps"] if "actions/cache@" in step.get("uses", ""))
    makefile = (ROOT / "Makefile").read_text()
    (needed,) = re.findall(r"^\.venv/ready: (.*)$", makefile, re.MULTILINE)
    assert cache["path"] == ".venv" and all(name in cache["key"] for name in needed.split())
    assert "getconf _NPROCESSORS_ONLN" in (ROOT / ".ci/run").read_text()
    bounds = Requirement(f"python{PROJECT['requires-python']}").specifier
    assert all(bounds.contains(version) for version in book["strategy"]["matrix"]["python"])


def test_jupyter_book_is_one():
    """2.x is another program: it reads neither _config.yml nor _toc.yml."""
    assert importlib.metadata.version("jupyter-book").startswith("1.")


def test_torch_and_torchvision_are_a_pair():
    """A mismatched pair imports and then fails at its first compiled operator, which this runs."""
    import torch
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9], [2.0, 2.0, 3.0, 3.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]


def test_readme_names_real_targets():
    """Every `make X` of the README is a target of the Makefile."""
    named = set(re.findall(r"\bmake ([a-z]+)\b", (ROOT / "README.md").read_text()))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"book", "test", "run", "record", "check"} <= named
    assert named <= targets


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """What the wheel holds, in a folder that knows nothing of this checkout."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("ebmref", "ebmbook"):
        shutil.copytree(ROOT / name, place / "src" / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "src" / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    command = [sys.executable, "-c", build]
    done = subprocess.run(command, cwd=place / "src", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def alone(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess:
    """A command in a bare folder, with the wheel's packages and none of this checkout."""
    environment = {name: got for name, got in os.environ.items() if "EBMREF" not in name}
    environment |= {"PYTHONPATH": str(installed), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_both_packages(installed):
    """Each module, and what is read beside them."""
    here, there = (
        {
            path.relative_to(root).as_posix()
            for name in ("ebmref", "ebmbook")
            for path in (root / name).rglob("*")
            if path.suffix in (".py", ".json")
        }
        for root in (ROOT, installed)
    )
    assert there == here


# Runs the README's Python blocks one after the other, and tells where the package came from.
BLOCKS = """
import re, sys
import ebmref
print(ebmref.__file__)
names = {}
for i, block in enumerate(re.findall(r"```python\\n(.*?)```", open(sys.argv[1]).read(), re.DOTALL)):
    print("-----")
    if i > 1:  # the first two belong together
        seconds = seconds if i > 2 else names["chain"].compile_seconds
        names = {}
    exec(compile(block, "README.md", "exec"), names)
print("-----", seconds, sep="\\n")
"""


def test_readme_snippets_run(installed, tmp_path):
    """The package examples do what the README says, the second after the first and the others
    alone, from the wheel: the
    first finds a corner of the four wells, the second draws from them, 64 chains at once, and
    compiled, the third draws with four methods, three of which come to the mean that quadrature
    has, the fourth comes near the divergence of two normal laws, from below, the fifth learns to
    bring entities near a place that only the code tells, the sixth translates four pictures."""
    done = alone(installed, tmp_path, sys.executable, "-c", BLOCKS, str(ROOT / "README.md"))
    assert done.returncode == 0, done.stderr
    where, *said, seconds = done.stdout.split("-----\n")
    assert where.startswith(str(installed)) and float(seconds) > 0
    assert len(said) == 6
    assert said[5].strip() == "torch.Size([1, 4, 3, 16, 16])"
    values = [abs(float(text)) for text in re.findall(r"-?\d+\.\d*", said[0])]
    assert values == pytest.approx([1.0, 1.0], abs=1e-3)
    assert said[1].startswith("torch.Size([2000, 64, 2])")
    rows = [line.split() for line in said[2].splitlines()]
    means = {row[0]: float(re.search(r"-?\d\.\d+", " ".join(row[1:]))[0]) for row in rows}
    # A standard deviation of .8 and 1000 draws, of which resampling's share a pool: six errors.
    langevin = means.pop("langevin")
    assert len(means) == 3 and langevin < 0.7
    assert list(means.values()) == pytest.approx([0.948] * 3, abs=0.15)
    found = re.findall(r"(bound|likelihood|bound_se)=tensor\(\[(.*?)\]", said[3])
    found = {name: float(value) for name, value in found}
    divergence = 2 * math.log(2) + 0.25  # of N(1, 1/4) from N(0, 1), in two dimensions
    assert found["bound"] <= found["likelihood"]
    # Four standard errors, and a thirtieth of it for an energy of 500 steps.
    error = divergence / 30 + 4 * found["bound_se"]
    assert found["bound"] == pytest.approx(divergence, abs=error)
    before, after, wrong, exact = map(float, re.findall(r"\d\.\d*", said[4]))
    # The bars of the chapter; a wrong code leaves entities where another place is.
    assert after < before / 10 and wrong > before / 2 and exact >= 0.95


def test_a_record_alone_runs_from_the_wheel(installed, tmp_path):
    """A notebook that somebody downloads, in a bare folder: its first cells, its ledger, and a
    checkpoint named, without a clone."""
    notebook = nbformat.read(ROOT / "book" / "inference.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    last = code[-1]
    more = nbformat.v4.new_code_cell("print(ledger.__file__, run.checkpoint('x'))")
    notebook.cells = [*code[:2], more, last]
    nbformat.write(notebook, tmp_path / "inference.ipynb")
    papermill = [sys.executable, "-m", "papermill", "inference.ipynb", "out.ipynb"]
    done = alone(installed, tmp_path, *papermill, "-p", "profile", "full")
    assert done.returncode == 0, done.stderr
    ran = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    said = ["".join(out.get("text", "") for out in cell.outputs) for cell in ran]
    assert any(text.startswith(str(installed)) and "checkpoints/x-seed-0-" in text for text in said)
    assert "no claims here" in said[-1]
    assert json.loads((tmp_path / "results" / "inference.json").read_text())["profile"] == "full"


def test_sources_name_no_machine():
    """No absolute home or scratch paths in what is committed by hand."""
    here = re.compile(r"/(?:home|root|tmp|Users)/\w")
    places = [("ebmref", "**/*.py"), ("ebmbook", "**/*.py"), ("bench", "*"), ("book", "*")]
    for folder, pattern in [*places, ("book", "claims/*"), (".", "*.yml")]:
        for path in (ROOT / folder).glob(pattern):
            if path.is_file():
                assert here.search(path.read_text(encoding="utf-8")) is None, path


def test_the_package_knows_nothing_of_the_book():
    """No module of `ebmref` imports one of `ebmbook`."""
    for path in (ROOT / "ebmref").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in getattr(node, "names", [])]
            assert not [name for name in names if str(name).startswith("ebmbook")], path


def test_what_a_chapter_imports_is_light():
    """A notebook opened alone has the package's dependencies, not the tools that make pages."""
    code = "import sys; from ebmbook import claims, ledger, plots, runs; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tools = {"jupytext", "papermill", "nbformat", "nbclient", "sphinx", "jupyter_book"}
    assert tools & set(done.stdout.split()) == set()


def setup(tmp_path, **programs: str) -> subprocess.CompletedProcess:
    """`sh tools/setup.sh` in a bare folder, with shell scripts in the place of programs."""
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(ROOT / "tools" / "setup.sh")],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYTHON": "python3"},
        capture_output=True,
        text=True,
    )


def of_version(version: str) -> str:
    """A Python that says it is of another version."""
    return f'exec {sys.executable} -c "import sys; sys.version_info = {version}; $2"'


@pytest.mark.parametrize("version", ["(3, 10, 9)", "(3, 15, 0)"])
def test_setup_refuses_other_pythons(tmp_path, version):
    """In a line, before anything is made; the bounds are pyproject's."""
    done = setup(tmp_path, python3=of_version(version))
    assert done.returncode == 1 and not (tmp_path / ".venv").exists()
    (line,) = done.stderr.splitlines()
    assert "no Python 3.11 to 3.14 found" in line and "make PYTHON=" in line
    assert PROJECT["requires-python"] == ">=3.11,<3.15"


def test_setup_knows_for_which_machines_there_is_no_torch(tmp_path):
    uname = "case $1 in -s) echo Darwin;; -m) echo x86_64;; esac"
    done = setup(tmp_path, uname=uname, python3=of_version("(3, 12, 1)"))
    assert done.returncode == 1 and not (tmp_path / ".venv").exists()
    (line,) = done.stderr.splitlines()
    assert "Intel" in line


def test_setup_blames_the_index_and_no_package(tmp_path):
    """An index that does not answer has installers name whichever package was first."""
    uv = "case $1 in venv) mkdir .venv;; *) echo 'error: no wheel of h5py' >&2; exit 1;; esac"
    done = setup(tmp_path, uv=uv, python3=of_version("(3, 12, 1)"))
    assert done.returncode == 1 and not (tmp_path / ".venv" / "ready").exists()
    assert "h5py" in done.stderr
    assert "the network or the package index" in done.stderr.splitlines()[-1]


def test_a_clone_works_without_run_bits_and_with_windows_line_ends():
    """Scripts are handed to a shell, and git checks them out as they are."""
    makefile = (ROOT / "Makefile").read_text()
    assert len(re.findall(r"tools/setup\.sh", makefile)) == 1 + len(
        re.findall(r"@sh tools/setup\.sh", makefile)
    )
    command = ["git", "check-attr", "eol", "--", "tools/setup.sh", ".ci/run", "book/gan.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("eol: lf") == 3
