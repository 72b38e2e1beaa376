"""Notebooks as data: drafts from the text sources, runs in one normal form, records.

A chapter's source is `book/NN-name.md`; everything else is made from it. A draft is the
source as an unexecuted notebook; a run is that notebook executed and normalised; a record
is a run installed beside its source.
"""

import ast
import dataclasses
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from nbformat import NotebookNode

from ebmref import claims, files

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
RUNS = ROOT / "_build" / "run"
CHECKPOINTS = ROOT / "_build" / "checkpoints"
# What decides a cell's look and behaviour; the rest of its metadata is noise.
CELL_METADATA = ("tags", "mystnb")


class BookError(Exception):
    """Something the user can mend; the text is one line that says what."""


def chapters() -> list[str]:
    """The executed chapters, in the order of `_toc.yml`, which names their notebooks."""
    entries = yaml.safe_load((ROOT / "_toc.yml").read_text())["chapters"]
    paths = [Path(entry["file"]) for entry in entries]
    return [path.stem for path in paths if path.suffix == ".ipynb"]


def require_chapter(name: str) -> str:
    """`name` itself.

    Raises:
        BookError: no such chapter.
    """
    if name not in chapters():
        raise BookError(f"unknown chapter {name!r}; one of {', '.join(chapters())}")
    return name


def source_path(chapter: str) -> Path:
    """The text notebook, the only thing that is edited."""
    return BOOK / f"{chapter}.md"


def record_path(chapter: str) -> Path:
    """The committed, executed notebook."""
    return BOOK / f"{chapter}.ipynb"


def draft(chapter: str) -> NotebookNode:
    """The source as a notebook without outputs; cell ids are stable."""
    notebook = jupytext.read(source_path(chapter))
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{chapter}-{i:02d}"
    return notebook


def parameters(chapter: str) -> list[str]:
    """Names in the chapter's parameters cell."""
    for cell in draft(chapter).cells:
        if "parameters" in cell.metadata.get("tags", []):
            return [
                node.targets[0].id
                for node in ast.parse(cell.source).body
                if isinstance(node, ast.Assign)
            ]
    raise BookError(f"{chapter}: no cell is tagged 'parameters'")


def look(cell: NotebookNode) -> tuple[str, str, str]:
    """What of a cell comes from the source: its kind, its text, its tags and figure texts."""
    kept = {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}
    return cell.cell_type, cell.source.strip("\n"), json.dumps(kept, sort_keys=True)


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Strip what differs from one execution to the next: times, paths, bars, injected cells.

    The same chapter, run twice on one machine, gives the same bytes.
    """
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    count = 0
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}
        cell.metadata = NotebookNode(kept)
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            # What is on stderr, progress bars, is for those who wait.
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    notebook.metadata.pop("papermill", None)
    return notebook


def read(path: Path) -> NotebookNode:
    """Read a notebook.

    Raises:
        BookError: the file is missing or is no notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise BookError(f"{path.name}: no such notebook; make run makes it") from None
    except (ValueError, AttributeError, nbformat.ValidationError) as error:
        raise BookError(f"{path.name}: not a notebook ({type(error).__name__})") from None


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    files.write_atomic(path, nbformat.writes(notebook).rstrip("\n") + "\n")


def results_of(notebook: NotebookNode, name: str) -> dict[str, Any]:
    """The results a run or a record carries in its metadata.

    Raises:
        LedgerError: it carries none, or damaged ones.
    """
    return claims.parse_results(
        json.dumps(notebook.metadata.get("ebmref", {}).get("results")), name
    )


def digest(*parts: str) -> str:
    """A short name for what the parts hold."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def modules_of(source: str) -> list[Path]:
    """Files of the package that code imports, and what these import in turn, in order.

    Every `import` counts, wherever it stands; none goes by a computed name.
    """
    found, ahead = set(), _imported(source)
    while ahead:
        found |= ahead
        ahead = set().union(*(_imported(path.read_text()) for path in ahead)) - found
    return sorted(found)


@cache
def _imported(source: str) -> set[Path]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # running it will say where; until then it may depend on anything
        return set((ROOT / "ebmref").rglob("*.py"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    stems = [ROOT.joinpath(*name.split(".")) for name in names if name.split(".")[0] == "ebmref"]
    # Importing a module runs the __init__.py of each folder on the way.
    files = {stem.with_suffix(".py") for stem in stems}
    files |= {folder / "__init__.py" for stem in stems for folder in (stem, *stem.parents)}
    return {path for path in files if path.is_file() and ROOT / "ebmref" in path.parents}


def package_digest(source: str) -> str:
    """A name for the state of the package's code that `source` uses, and of the pinned versions."""
    files = [*modules_of(source), ROOT / "requirements.lock"]
    return digest(*(f"{path.relative_to(ROOT)}\n{path.read_text()}" for path in files))


def code_key(chapter: str, profile: str, parameters: dict[str, Any]) -> str:
    """What a run's outputs depend on: code, what it imports, parameters, verdicts, data, GPU.

    The words of a claim are not among it: they are rendered, not run.
    """
    claimed = [
        (
            claim.id,
            claim.verdict,
            [dataclasses.replace(check, because="") for check in claim.checks],
        )
        for claim in claims.load_claims(BOOK / "claims.yml")
        if claim.chapter == chapter
    ]
    settings = {name: os.environ.get(name, "") for name in ("EBMREF_DATA", "EBMREF_DEVICE")}
    code = [cell.source for cell in draft(chapter).cells if cell.cell_type == "code"]
    return digest(
        *code,
        package_digest("\n".join(code)),
        json.dumps([profile, parameters, settings], sort_keys=True),
        repr(claimed),
    )


def run_key(chapter: str, profile: str, parameters: dict[str, Any]) -> str:
    """What a run depends on as a page: all of `code_key`, and the prose."""
    return digest(code_key(chapter, profile, parameters), source_path(chapter).read_text())
