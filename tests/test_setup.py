"""One source of versions: pyproject has the ranges, the lock the pins, everything else follows."""

import ast
import importlib.metadata
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_readme_snippets_run(capsys):
    """The package examples do what the README says, one after the other: the first finds a
    corner of the four wells, the second draws from them, 64 chains at once, and compiled, the
    third draws with four methods, three of which come to the mean that quadrature has, the fourth
    comes near the divergence of two normal laws, from below, the fifth
    learns to bring entities near a place that only the code tells."""
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(snippets) == 5
    names: dict = {}
    exec(compile(snippets[0], "README.md", "exec"), names)
    values = [abs(float(text)) for text in re.findall(r"-?\d+\.\d*", capsys.readouterr().out)]
    assert values == pytest.approx([1.0, 1.0], abs=1e-3)
    exec(compile(snippets[1], "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("torch.Size([2000, 64, 2])")
    assert names["chain"].compile_seconds > 0
    exec(compile(snippets[2], "README.md", "exec"), names)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    means = {row[0]: float(re.search(r"-?\d\.\d+", " ".join(row[1:]))[0]) for row in rows}
    # A standard deviation of .8 and 1000 draws, of which resampling's share a pool: six errors.
    langevin = means.pop("langevin")
    assert len(means) == 3 and langevin < 0.7
    assert list(means.values()) == pytest.approx([0.948] * 3, abs=0.15)
    exec(compile(snippets[3], "README.md", "exec"), names)
    found = re.findall(r"(bound|likelihood|bound_se)=tensor\(\[(.*?)\]", capsys.readouterr().out)
    found = {name: float(value) for name, value in found}
    divergence = 2 * math.log(2) + 0.25  # of N(1, 1/4) from N(0, 1), in two dimensions
    assert found["bound"] <= found["likelihood"]
    # Four standard errors, and a thirtieth of it for an energy of 500 steps.
    error = divergence / 30 + 4 * found["bound_se"]
    assert found["bound"] == pytest.approx(divergence, abs=error)
    exec(compile(snippets[4], "README.md", "exec"), names)
    before, after, wrong, exact = map(float, re.findall(r"\d\.\d*", capsys.readouterr().out))
    # The bars of `book/claims/concepts.yml`; a wrong code leaves entities where another place is.
    assert after < before / 10 and wrong > before / 2 and exact >= 0.95


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
