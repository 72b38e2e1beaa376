"""What a release keeps, made into `_build/release` from this commit and its rendered pages.

NAME-X.Y.Z.tar.gz, .whl        the package, for an index
NAME-book-vX.Y.Z.zip           the pages, to be read from the disk
NAME-vX.Y.Z.sha256             what `sha256sum --check` takes, for the three
CHANGES.md                     what the ledger's difference from the release before is
notebooks/                     the legible notebooks, for the branch that Colab and Binder read
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from ebmbook.press import difference, project, records
from ebmbook.press.notebooks import ROOT, BookError
from ebmbook.press.project import Project
from ebmbook.press.site import HTML
from ebmref.files import write_atomic

RELEASE = ROOT / "_build" / "release"
# What the package is built from.
PACKAGES = ("ebmref", "ebmbook")
BESIDE = ("pyproject.toml", "LICENSE")
# conda's names where they are others; with the CPU's build, which is all that Binder has.
IN_CONDA = {"torch": "pytorch-cpu"}
MARKDOWN = re.compile(r"(?P<is_picture>!?)\[(?P<text>[^\]]*)\]\((?P<where>[^)\s]+)\)")
HTML_PICTURE = re.compile(r"<img\b[^>]*\bsrc=[\"'](?P<where>[^\"']+)[\"'][^>]*>")
README_OF_NOTEBOOKS = """\
# Notebooks of {title}

A folder for each release, made by its workflow; edits here are lost. The first cell of a notebook
installs the package of that release and leaves PyTorch and the numeric libraries as they are. The
sources are on the main branch, and the ledger of all numbers is in the book.
"""


def make(tag: str = "", since: str = "") -> list[Path]:
    """Make all of it anew; returns the files.

    Args:
        tag: that the release is to have; "" for a rehearsal.
        since: the release before; "" to look for it.

    Raises:
        BookError: the tag is not of this version, no pages are rendered, or the package is not
            built.
    """
    made = project.read()
    if tag and tag != made.tag:
        raise BookError(f"the tag {tag} is not {made.tag}, of the version in pyproject.toml")
    if not (HTML / "index.html").is_file():
        raise BookError("no pages are rendered: make html")
    shutil.rmtree(RELEASE, ignore_errors=True)
    RELEASE.mkdir(parents=True)
    files = [*package(made, RELEASE), zipped(made, HTML, RELEASE)]
    sums = RELEASE / f"{made.name}-{made.tag}.sha256"
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    write_atomic(sums, "".join(lines))
    changes = RELEASE / "CHANGES.md"
    write_atomic(changes, changelog(tag or "HEAD", since))
    for_elsewhere(made, HTML, RELEASE / "notebooks")
    return [*files, sums, changes]


def changelog(at: str, since: str = "") -> str:
    """What the ledger's difference from the release before is.

    Raises:
        BookError: a `since` that was asked for cannot be read.
    """
    if since:
        return difference.between(since, at)
    before = difference.release_before(at)
    if not before:
        return "The first release.\n"
    try:
        return difference.between(before, at)
    except BookError as error:
        # A ledger of another form must not stand in the way of all releases to come.
        return f"Since {before}. The ledgers cannot be compared: {error}\n"


def when() -> int:
    """The time of this commit, so that the same commit makes the same zip."""
    if told := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(told)
    try:
        return int(records.git("log", "-1", "--format=%ct"))
    except (OSError, subprocess.CalledProcessError, ValueError):  # no checkout of git
        return 315532800  # the first day that a zip can tell, of 1980


def zipped(made: Project, html: Path, target: Path) -> Path:
    """The pages in one file, below one folder."""
    folder = f"{made.name}-book-{made.tag}"
    path, day = target / f"{folder}.zip", time.gmtime(when())[:6]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(html.rglob("*")):
            # Where the theme's notes of the build are, is of no use to a reader.
            if file.is_file() and file.name != ".buildinfo":
                entry = zipfile.ZipInfo(f"{folder}/{file.relative_to(html).as_posix()}", day)
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, file.read_bytes())
    return path


def for_index(text: str, made: Project) -> str:
    """The README where its neighbours are not: links lead to the repository, or are words.

    Pictures that are nowhere yet are left out.
    """

    def there(where: str, kind: str) -> str:
        if re.match(r"[a-z]+:|#", where):
            return where
        return f"{made.address}/{kind}/{made.tag}/{where}" if made.on_github else ""

    def link(found: re.Match) -> str:
        where = there(found["where"], "raw" if found["is_picture"] else "blob")
        if not where:
            return "" if found["is_picture"] else found["text"]
        return f"{found['is_picture']}[{found['text']}]({where})"

    def picture(found: re.Match) -> str:
        where = there(found["where"], "raw")
        return found[0].replace(found["where"], where) if where else ""

    # What stands in blocks of code is no link.
    parts = re.split(r"(^```.*?^```[^\n]*$)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [HTML_PICTURE.sub(picture, MARKDOWN.sub(link, part)) for part in parts[::2]]
    return "".join(parts)


def package(made: Project, target: Path) -> list[Path]:
    """The sdist, and the wheel that is built from it.

    Raises:
        BookError: the build backend refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        for name in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        for name in BESIDE:
            shutil.copy(ROOT / name, source / name)
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        (source / "README.md").write_text(for_index(readme, made), encoding="utf-8")
        sdist = target / _built("sdist", source, target)
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        inside = Path(folder) / sdist.name.removesuffix(".tar.gz")
        return [sdist, target / _built("wheel", inside, target)]


def _built(kind: str, source: Path, target: Path) -> str:
    """The name of what the build backend makes of a folder."""
    code = (
        "import sys; from setuptools import build_meta; "
        f"print(build_meta.build_{kind}(sys.argv[1]))"
    )
    told = {"SOURCE_DATE_EPOCH": str(when())}
    command = [sys.executable, "-c", code, target]
    done = subprocess.run(
        command, cwd=source, env=os.environ | told, capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise BookError(f"the {kind} was not built: {lines[-1] if lines else 'no word of why'}")
    return done.stdout.splitlines()[-1]


def environment(root: Path = ROOT) -> str:
    """What Binder makes for the notebooks: the package's dependencies, as conda calls them."""
    told = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(text) for text in told["dependencies"]]
    rows = [f"{IN_CONDA.get(one.name, one.name)}{one.specifier}" for one in wanted]
    return yaml.safe_dump(
        {
            "name": "notebooks",
            "channels": ["conda-forge", "nodefaults"],
            "dependencies": [f"python{told['requires-python']}", "pip", *sorted(rows)],
        },
        sort_keys=False,
    )


def for_elsewhere(made: Project, html: Path, target: Path) -> None:
    """What is laid on the branch of notebooks: those of this release, and what Binder needs."""
    target.mkdir(parents=True)
    write_atomic(target / "README.md", README_OF_NOTEBOOKS.format(title=made.short_title))
    write_atomic(target / ".binder" / "environment.yml", environment())
    for path in sorted((html / "_sources").rglob("*.ipynb")):
        copy = target / made.tag / path.relative_to(html / "_sources")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
