"""What the project is called, who made it, and where it is: from `pyproject.toml` alone.

The repository's address stands there once, as `Repository` of `[project.urls]`, or not at all:
then whatever would need it is left out. `CITATION.cff` and `.zenodo.json` are made from it.
"""

import json
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ebmbook.press import records
from ebmbook.press.notebooks import ROOT, BookError
from ebmref.files import write_atomic

HOST = r"https://[\w.-]+(?::\d+)?"
ADDRESS = re.compile(rf"{HOST}/[\w./-]+")
SITE = re.compile(rf"{HOST}(?:/[\w./-]+)?")
ON_GITHUB = re.compile(r"https://github\.com/(?P<owner>[\w-]+)/(?P<name>[\w.-]+)")
MADE = "# Made by `make cite` from pyproject.toml.\n"


@dataclass(frozen=True)
class Project:
    """The project as its metadata have it.

    Attributes:
        name: of the package.
        version: of package and book.
        title: of the book, in full.
        abstract: what it is, in a few sentences.
        authors: their names.
        keywords: of both.
        licence: of the code, by its SPDX name.
        address: of the repository, without an end of "/" or ".git"; "" while it has none.
        site: where the pages are, with "/" at the end; "" while nobody can know.
        doi: of all versions together; "" while it has none.
    """

    name: str
    version: str
    title: str
    abstract: str
    authors: tuple[str, ...]
    keywords: tuple[str, ...]
    licence: str
    address: str = ""
    site: str = ""
    doi: str = ""

    @property
    def tag(self) -> str:
        """Of the commit that this version is."""
        return f"v{self.version}"

    @property
    def short_title(self) -> str:
        """What stands before the colon."""
        return self.title.partition(":")[0]

    @property
    def on_github(self) -> tuple[str, str] | None:
        """Owner and name of the repository, if it is there."""
        found = ON_GITHUB.fullmatch(self.address)
        return (found["owner"], found["name"]) if found else None

    @property
    def newest(self) -> str:
        """Where the pages of the newest release are; "" while nobody can know."""
        return f"{self.site}latest/" if self.site else ""


def read(root: Path = ROOT) -> Project:
    """The project whose `pyproject.toml` is in `root`.

    Raises:
        BookError: it has none, or one whose addresses are no addresses.
    """
    try:
        text = (root / "pyproject.toml").read_text(encoding="utf-8")
        whole = tomllib.loads(text)
        told, more = whole["project"], whole["tool"]["ebmbook"]
        address = _address("Repository", told.get("urls", {}).get("Repository", ""), ADDRESS)
        site = _address("site", more.get("site", ""), SITE)
        made = Project(
            name=told["name"],
            version=told["version"],
            title=more["title"],
            abstract=" ".join(more["abstract"].split()),
            authors=tuple(one["name"] for one in told["authors"]),
            keywords=tuple(told["keywords"]),
            licence=told["license"],
            address=address,
            site=f"{site}/" if site else _pages_of(address),
            doi=more.get("doi", ""),
        )
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BookError(f"pyproject.toml: {' '.join(str(error).split())}") from None
    except KeyError as error:
        raise BookError(f"pyproject.toml: {error} is missing") from None
    return made


def _address(what: str, text: str, form: re.Pattern) -> str:
    """An address in its one form; "" of ""."""
    text = text.strip().rstrip("/").removesuffix(".git")
    # Of "OWNER" and other words that stand for what is yet to be filled in nothing is made.
    if text and (not form.fullmatch(text) or "OWNER" in text):
        raise BookError(
            f"pyproject.toml: {what}: {text!r} is no address such as "
            "https://github.com/somebody/something"
        )
    return text


def _pages_of(address: str) -> str:
    """Where GitHub shows the pages of a repository; "" for one that is elsewhere."""
    found = ON_GITHUB.fullmatch(address)
    if not found:
        return ""
    host = f"{found['owner'].lower()}.github.io"
    return (
        f"https://{host}/" if found["name"].lower() == host else f"https://{host}/{found['name']}/"
    )


def released(project: Project) -> str:
    """The tag of this version, if it is this very commit; else ""."""
    try:
        tags = records.git("tag", "--points-at", "HEAD").split()
    except (OSError, subprocess.CalledProcessError):  # no checkout of git
        return ""
    return project.tag if project.tag in tags else ""


def citation(project: Project) -> str:
    """`CITATION.cff`."""
    told: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If the book or its package helps your work, please cite it.",
        "title": project.title,
        "abstract": project.abstract,
        "type": "software",
        "authors": [{"name": name} for name in project.authors],
        "version": project.version,
        "license": project.licence,
        "keywords": [*project.keywords],
    }
    more = {"repository-code": project.address, "url": project.newest, "doi": project.doi}
    told |= {name: got for name, got in more.items() if got}
    return MADE + yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100)


def deposit(project: Project) -> str:
    """`.zenodo.json`: what Zenodo asks when it keeps a release."""
    told: dict[str, Any] = {
        "title": project.title,
        "description": project.abstract,
        "upload_type": "software",
        "access_right": "open",
        "creators": [{"name": name} for name in project.authors],
        "version": project.version,
        "license": project.licence,
        "keywords": [*project.keywords],
        "language": "eng",
    }
    if project.newest:
        pages = {"identifier": project.newest, "relation": "isDocumentedBy", "scheme": "url"}
        told["related_identifiers"] = [pages]
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


FILES = {"CITATION.cff": citation, ".zenodo.json": deposit}


def write(root: Path = ROOT) -> list[Path]:
    """Make both files anew; returns those that changed."""
    project, changed = read(root), []
    for name, made in FILES.items():
        path, text = root / name, made(project)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, text)
            changed.append(path)
    return changed
