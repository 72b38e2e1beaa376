"""One source of what the project is called and where it is; the other files follow."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from books import at

from ebmbook.press import project
from ebmbook.press.notebooks import ROOT, BookError

HERE = "https://github.com/Somebody/some.thing"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with this project's metadata, and no address."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    at(tmp_path, "")
    return tmp_path


def more(folder: Path, line: str) -> project.Project:
    """The project with a line more in its own table."""
    path = folder / "pyproject.toml"
    path.write_text(path.read_text().replace("[tool.ebmbook]\n", f"[tool.ebmbook]\n{line}\n"))
    return project.read(folder)


@pytest.mark.parametrize("name", project.FILES)
def test_citation_and_deposit_are_of_pyproject(name):
    """After an edit of pyproject.toml: make cite."""
    made = project.FILES[name](project.read())
    assert (ROOT / name).read_text(encoding="utf-8") == made, "make cite"


@pytest.mark.parametrize("address", ["", HERE])
def test_they_say_the_same(folder, address):
    at(folder, address)
    made = more(folder, 'doi = "10.5281/zenodo.1"')
    cff = yaml.safe_load(project.citation(made))
    zenodo = json.loads(project.deposit(made))
    package = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert cff["title"] == zenodo["title"] and cff["abstract"] == zenodo["description"]
    assert cff["version"] == zenodo["version"] == package["version"]
    assert cff["license"] == zenodo["license"] == package["license"]
    assert cff["keywords"] == zenodo["keywords"] == package["keywords"]
    assert cff["authors"] == zenodo["creators"] == package["authors"]
    assert cff["doi"] == "10.5281/zenodo.1"
    told = (cff.get("repository-code"), cff.get("url"), zenodo.get("related_identifiers"))
    if not address:
        assert told == (None, None, None)
        return
    newest = "https://somebody.github.io/some.thing/latest/"
    assert told[:2] == (HERE, newest) and told[2][0]["identifier"] == newest


def test_the_citation_has_what_its_format_asks_for():
    """The required keys of version 1.2.0, with the forms that it gives them."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0" and cff["type"] == "software"
    assert all(cff[key] for key in ("message", "title", "authors"))
    assert all(set(one) == {"name"} for one in cff["authors"])  # an entity
    assert isinstance(cff["version"], str) and cff["license"] == "BSD-3-Clause"


@pytest.mark.parametrize(
    "address, site",
    [
        (HERE, "https://somebody.github.io/some.thing/"),
        (f"{HERE}.git", "https://somebody.github.io/some.thing/"),
        (f"{HERE}/", "https://somebody.github.io/some.thing/"),
        # The repository that a host's root is made of.
        ("https://github.com/Me/me.github.io", "https://me.github.io/"),
        # Elsewhere nobody knows where its pages are.
        ("https://example.org/a/b", ""),
        ("", ""),
    ],
)
def test_where_the_pages_are(folder, address, site):
    at(folder, address)
    made = project.read(folder)
    assert made.site == site and made.newest == (f"{site}latest/" if site else "")
    assert made.address == address.rstrip("/").removesuffix(".git")
    assert bool(made.on_github) == ("github.com" in address)
    assert more(folder, 'site = "https://book.example.org"').site == "https://book.example.org/"


@pytest.mark.parametrize(
    "address",
    ["https://github.com/OWNER/NAME", "git@github.com:a/b", "http://github.com/a/b", "github.com",
     "https://github.com/a b", "https://me:secret@github.com/a/b"],
)  # fmt: skip
def test_what_is_no_address(folder, address):
    """The example that stands in the comment, above all."""
    at(folder, address)
    with pytest.raises(BookError, match=r"Repository: .* is no address such as"):
        project.read(folder)


@pytest.mark.parametrize(
    "old, new, told",
    [('version = "', 'release = "', "'version' is missing"), ("[project]", "[proj", "pyproject")],
)
def test_what_cannot_be_read_is_told_in_a_line(folder, old, new, told):
    path = folder / "pyproject.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(BookError, match=told) as error:
        project.read(folder)
    assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(BookError, match="No such file"):
        project.read(folder)


def test_only_what_changed_is_written(folder):
    assert [path.name for path in project.write(folder)] == ["CITATION.cff", ".zenodo.json"]
    assert project.write(folder) == []
    at(folder, HERE)
    assert len(project.write(folder)) == 2


def test_the_address_stands_nowhere_else():
    """Nor an example of one, which a reader might follow; pyproject.toml has it in a comment."""
    made = project.read()
    wanted = re.compile(r"github\.com/OWNER|OWNER\.github\.io|github\.com/ebm")
    places = ("*.md", "*.yml", ".github/**/*.yml", "book/*.md", "book/_ext/*.py", "tools/*",
              "ebmbook/**/*.py", "ebmref/**/*.py", "Makefile")  # fmt: skip
    made_of_it = {"CITATION.cff", ".zenodo.json"}
    for pattern in places:
        for path in ROOT.glob(pattern):
            if path.is_file() and path.name not in made_of_it:
                text = path.read_text(encoding="utf-8")
                assert wanted.search(text) is None, path
                assert not made.address or made.address not in text, path


def test_the_package_is_described_for_an_index():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"name", "version", "description", "readme", "requires-python", "license", "authors",
            "keywords", "classifiers", "license-files", "dependencies"} <= set(told)  # fmt: skip
    assert len(told["description"]) < 512 and "\n" not in told["description"]
    kinds = {one.partition(" :: ")[0] for one in told["classifiers"]}
    assert {"Development Status", "Intended Audience", "Programming Language", "Topic"} <= kinds
    # The licence is an expression, beside which no classifier may stand.
    assert "License" not in kinds
    minors = {int(one.rpartition(".")[2]) for one in told["classifiers"] if " :: 3." in one}
    low, high = (int(part) for part in re.findall(r"3\.(\d+)", told["requires-python"]))
    assert minors == set(range(low, high))
