"""Render the book: stage sources and notebooks, build strictly, check every link."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import yaml

from ebmbook.press import notebooks, outputs, project, readers
from ebmbook.press.notebooks import BOOK, CLAIMS, MOVED, ROOT, BookError
from ebmbook.press.runner import has_run
from ebmbook.press.variants import Variant

SITE = ROOT / "_build" / "site"
HTML = ROOT / "_build" / "html"
LEADS_ON = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Moved</title>
<meta http-equiv="refresh" content="0; url={name}.html">
<link rel="canonical" href="{name}.html">
<p>This page has moved: <a href="{name}.html">{name}</a>.</p>
</html>
"""


def shown(variant: Variant | None) -> dict[str, Path]:
    """The notebook of each chapter that the pages are made of.

    Args:
        variant: its runs, and the records of the chapters that it did not run; None: records.

    Raises:
        BookError: nothing was run, a notebook is missing, or its outputs were altered.
    """
    chosen = {chapter: notebooks.record_path(chapter) for chapter in notebooks.chapters()}
    if variant is not None:
        ran = [chapter for chapter in chosen if has_run(chapter, variant)]
        if not ran:
            raise BookError(
                f"{', '.join(chosen)}: no run in {variant.folder.relative_to(ROOT)} to be "
                "rendered; make run makes it"
            )
        if rest := [chapter for chapter in chosen if chapter not in ran]:
            print(f"not run, shown by their records: {', '.join(rest)}", file=sys.stderr)
        chosen |= {chapter: variant.folder / f"{chapter}.ipynb" for chapter in ran}
    for chapter, path in chosen.items():
        if not path.is_file():
            raise BookError(f"{path.name}: not there to be rendered; make run makes it")
        if altered := outputs.faults(chapter, notebooks.read(path)):
            raise BookError(altered[0])
    return chosen


def stage(name: str, chosen: dict[str, Path]) -> Path:
    """Lay the book out in `_build/site/<name>` with a notebook for each chapter.

    Unchanged files keep their times, so that a second build renders only what changed.
    """
    target = SITE / name
    sources = [
        ROOT / "_config.yml",
        ROOT / "_toc.yml",
        ROOT / "pyproject.toml",
        BOOK / "references.bib",
    ]
    sources += [path for path in BOOK.glob("*.md") if path.stem not in chosen]
    sources += [
        *CLAIMS.glob("*.yml"),
        *BOOK.glob("rates/*.json"),
        *(path for path in BOOK.glob("_static/**/*") if path.is_file()),
        *BOOK.glob("_ext/*.py"),
        *BOOK.glob("_templates/*"),
        *BOOK.glob("errata.yml"),
        *BOOK.glob("front.yml"),
        *BOOK.glob("api/*.md"),
    ]
    wanted = {path.relative_to(ROOT): path for path in sources}
    wanted |= {Path("book") / f"{chapter}.ipynb": path for chapter, path in chosen.items()}
    for inside, path in wanted.items():
        copy = target / inside
        if not copy.is_file() or copy.read_bytes() != path.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            if {"_static", "_ext", "_templates", "pyproject.toml"} & set(inside.parts):
                # Sphinx looks at these only where a page has changed as well.
                shutil.rmtree(target / "_build", ignore_errors=True)
    for copy in target.rglob("*"):
        inside = copy.relative_to(target)
        if copy.is_file() and inside.parts[0] != "_build" and inside not in wanted:
            copy.unlink()
    return target


def build(variant: Variant | None = None) -> Path:
    """Render the book to `_build/html`, warnings being errors; returns its first page.

    Args:
        variant: the runs to show, see `shown`; None: the records.

    Raises:
        BookError: the build warned, a link leads nowhere, or a page is heavy or moves.
    """
    project.read()  # what is wrong with it is told in a line, before anything is read
    chosen = shown(variant)
    source = stage("record" if variant is None else variant.folder.name, chosen)
    # Not by its console script: that has the folder's name at installation in its first line.
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", "-W", "-n", "--keep-going"]
    log = source.with_suffix(".log")
    with log.open("w") as file:
        done = subprocess.run(
            [*command, source],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"NO_COLOR": "1", "PYTHONPATH": notebooks.python_path()},
        )
    if done.returncode:
        # The next build must meet the same warnings again, so nothing half-read is kept.
        shutil.rmtree(source / "_build", ignore_errors=True)
        told = re.findall(r"^.*(?:WARNING|ERROR|Error\b).*$", log.read_text(), flags=re.MULTILINE)
        for line in told[:20]:
            print(line, file=sys.stderr)
        raise BookError(
            f"the HTML build failed: {cause_of(log.read_text())}; the whole log: "
            f"{log.relative_to(ROOT)}"
        )
    built = source / "_build" / "html"
    lead_on(built / "book")
    if broken := broken_links(built):
        for line in broken[:20]:
            print(line, file=sys.stderr)
        raise BookError(f"{len(broken)} links of the HTML lead nowhere")
    if amiss := readers.faults(built, claims_to_reach(built)):
        for line in amiss[:20]:
            print(line, file=sys.stderr)
        raise BookError(f"{len(amiss)} faults of the pages for those who read them")
    fresh, old = HTML.with_name(".html.new"), HTML.with_name(".html.old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(built, fresh)
    if HTML.exists():
        HTML.rename(old)
    fresh.rename(HTML)
    shutil.rmtree(old, ignore_errors=True)
    return HTML / "index.html"


def claims_to_reach(html: Path) -> list[str]:
    """Claims of the report, whose rows are to be near the first page; none without a ledger."""
    if not (html / readers.LEDGER).is_file():
        return []
    return [claim.id for claim in notebooks.claims_in_order() if not claim.is_of_paper]


def cause_of(log: str) -> str:
    """The line of a build's log that says best why it failed.

    An error that ended it, before the one that a program raised because of that; else the first
    warning; else the last line.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for pattern in (r"[\w.]*(?:Error|Exception): .|.*: No module named ", r".*(?:ERROR|WARNING): "):
        if found := [line for line in lines if re.match(pattern, line)]:
            return found[0]
    return lines[-1] if lines else "it said nothing"


def lead_on(pages: Path) -> None:
    """Leave a page at every old address of `book/moved.yml` that leads to the new one."""
    moved = yaml.safe_load(MOVED.read_text()) if MOVED.is_file() else {}
    for old, name in moved.items():
        (pages / f"{old}.html").write_text(LEADS_ON.format(name=name), encoding="utf-8")


class _Links(HTMLParser):
    """The anchors a page defines, the links it makes and what it loads by itself."""

    def __init__(self):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        for key in ("id", "name"):
            if given.get(key):
                self.anchors.add(given[key])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(given["href"])
        elif given.get("src"):
            self.loads.append(given["src"])


def broken_links(html: Path) -> list[str]:
    """Internal links and anchors that lead nowhere, and anything loaded from the network."""
    pages = {}
    for path in sorted(html.rglob("*.html")):
        if "_static" not in path.relative_to(html).parts:
            pages[path.resolve()] = page = _Links()
            page.feed(path.read_text(encoding="utf-8"))
    broken = []
    for path, page in pages.items():
        where = path.relative_to(html.resolve())
        for link in page.loads:
            if re.match(r"(https?:)?//", link):
                broken.append(f"{where}: loads {link} from the network")
        for link in page.links + page.loads:
            if re.match(r"[a-z][a-z+.-]*:|//", link, flags=re.IGNORECASE):
                continue
            file, anchor = urldefrag(link)
            file = unquote(file.split("?")[0])
            target = (path.parent / file).resolve() if file else path
            if not target.exists():
                broken.append(f"{where}: {link}: no such file")
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                broken.append(f"{where}: {link}: no such place on the page")
    return broken
