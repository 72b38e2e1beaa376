"""Notebooks as data: drafts from the text sources, runs in one normal form, records.

A chapter's source is `book/<topic>.md`; everything else is made from it. A draft is the
source as an unexecuted notebook; a run is that notebook executed and normalised; a record
is a run installed beside its source.
"""

import ast
import json
import os
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from nbformat import NotebookNode
from sphinx_external_toc.parsing import MalformedError, parse_toc_yaml

from ebmbook import claims, keys
from ebmref.files import write_atomic

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
CLAIMS = BOOK / "claims"
MOVED = BOOK / "moved.yml"
RUNS = ROOT / "_build" / "run"
CHECKPOINTS = ROOT / "_build" / "checkpoints"
# What decides a cell's look and behaviour; the rest of its metadata is noise.
CELL_METADATA = ("tags", "mystnb")


class BookError(Exception):
    """Something the user can mend; the text is one line that says what."""


def chapters() -> list[str]:
    """The executed chapters, in the order of `_toc.yml`, which names their notebooks.

    Raises:
        BookError: it cannot be read, has entries of no known form, or names one twice.
    """
    try:
        toc = parse_toc_yaml(ROOT / "_toc.yml")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, MalformedError) as error:
        raise BookError(f"_toc.yml: {' '.join(str(error).split())}") from None

    def below(page: str) -> Iterator[str]:
        for file in toc[page].child_files():
            yield file
            yield from below(file)

    paths = map(Path, below(toc.root.docname))
    return [path.stem for path in paths if path.suffix == ".ipynb"]


def python_path() -> str:
    """For the environment of a child: this checkout's packages before any installed ones."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def require_chapter(name: str) -> str:
    """`name` itself.

    Raises:
        BookError: no such chapter.
    """
    if name not in chapters():
        raise BookError(f"unknown chapter {name!r}; one of {', '.join(chapters())}")
    return name


def claims_in_order() -> list[claims.Claim]:
    """All claims, in the order of their chapters; those of chapters to come stand last.

    Raises:
        LedgerError: the claims are not valid.
    """
    place = {name: i for i, name in enumerate(chapters())}
    found = claims.load_claims(CLAIMS)
    return sorted(found, key=lambda claim: place.get(claim.chapter, len(place)))


def former_names(chapter: str) -> list[str]:
    """Names that the chapter had before, by `book/moved.yml`."""
    moved = yaml.safe_load(MOVED.read_text()) if MOVED.is_file() else {}
    return [old for old, name in moved.items() if name == chapter]


def source_path(chapter: str) -> Path:
    """The text notebook, the only thing that is edited."""
    return BOOK / f"{chapter}.md"


def record_path(chapter: str) -> Path:
    """The committed, executed notebook."""
    return BOOK / f"{chapter}.ipynb"


def draft(chapter: str) -> NotebookNode:
    """The source as a notebook without outputs; cell ids are stable.

    Raises:
        BookError: there is no such source, it is no text notebook, or it has no cell of code.
    """
    path = source_path(chapter)
    try:
        notebook = jupytext.read(path)
    except FileNotFoundError:
        raise BookError(f"{path.name}: no such chapter, though _toc.yml names it") from None
    except (ValueError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise BookError(f"{path.name}: not a text notebook ({reason})") from None
    if not code_cells(notebook):
        raise BookError(f"{path.name}: not a text notebook (it has no {{code-cell}})")
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{chapter}-{i:02d}"
    return notebook


def prose(chapter: str) -> str:
    """The words of the source, without its cells of code.

    Raises:
        BookError: as `draft`.
    """
    return "\n\n".join(cell.source for cell in draft(chapter).cells if cell.cell_type == "markdown")


def parameters(chapter: str) -> dict[str, Any]:
    """Names and defaults in the chapter's parameters cell.

    Raises:
        BookError: it has no such cell, or one whose defaults are no plain values.
    """
    for cell in draft(chapter).cells:
        if "parameters" in cell.metadata.get("tags", []):
            try:
                return {
                    node.targets[0].id: ast.literal_eval(node.value)
                    for node in ast.parse(cell.source).body
                    if isinstance(node, ast.Assign)
                }
            except (ValueError, SyntaxError, AttributeError):
                raise BookError(
                    f"{chapter}: its parameters cell must hold lines 'name = value', with plain "
                    "values"
                ) from None
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
    write_atomic(path, nbformat.writes(notebook).rstrip("\n") + "\n")


def results_of(notebook: NotebookNode, name: str) -> dict[str, Any]:
    """The results a run or a record carries in its metadata.

    Raises:
        LedgerError: it carries none, or damaged ones.
    """
    return claims.parse_results(
        json.dumps(notebook.metadata.get("ebmref", {}).get("results")), name
    )


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Its cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_of(notebook: NotebookNode) -> list[str]:
    """The sources of its cells of code."""
    return [cell.source for cell in code_cells(notebook)]


def keys_of(chapter: str, profile: str, parameters: dict[str, Any]) -> dict[str, str]:
    """What a run of the chapter depends on, by meaning: see `ebmbook.keys`.

    Returns:
        "key", of its numbers: the code of its cells and all that they reach, the pinned numeric
        libraries, profile and parameters; and "look", of what only shows them. Data are told
        apart by their content, see `ebmbook.inputs`.
    """
    pins = keys.numeric_pins(ROOT / "requirements.lock")
    with _reading:
        reached = closure_of(code_of(draft(chapter)), chapter, profile)
        return {
            "key": whole_key(reached, profile, parameters, pins),
            "look": reached.look_key(),
        }


def whole_key(
    reached: keys.Closure, profile: str, parameters: dict[str, Any], pins: list[str]
) -> str:
    """The key of a run's numbers: of its code, its size and parameters, and what computes."""
    return keys.digest(reached.key(), json.dumps([profile, parameters], sort_keys=True), *pins)


def closure_of(cells: list[str], chapter: str, profile: str) -> keys.Closure:
    """All that the cells of a chapter reach in this checkout, in a profile."""
    files = sorted(path for name in keys.PACKAGES for path in (ROOT / name).rglob("*.py"))
    state = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    sources = _sources(ROOT, profile, state)
    return keys.closure(keys.form_of_cells(cells, sources, chapter), sources)


# Definitions are told apart by identity: two threads must not read a module twice.
_reading = threading.Lock()


@lru_cache(maxsize=2)
def _sources(root: Path, profile: str, state: tuple) -> keys.Sources:
    """Read once, as long as no file changes."""
    return keys.Sources(root, profile)


def verdict_lines(chapter: str, measures: dict[str, claims.Measure]) -> str:
    """What the last cell prints, from the measures and the claims as they are now."""
    judged = claims.judge_all(claims.load_claims(CLAIMS), {chapter: measures})
    return "".join(got.line() + "\n" for got in judged if got.claim.chapter == chapter)


def is_of_its_words(chapter: str, notebook: NotebookNode) -> bool:
    """Whether its cells are those of the source."""
    return [*map(look, notebook.cells)] == [*map(look, draft(chapter).cells)]


def is_of_its_verdicts(chapter: str, notebook: NotebookNode) -> bool:
    """Whether its last cell shows the verdicts that its numbers earn under today's claims."""
    measures = results_of(notebook, chapter)["measures"]
    outputs = code_cells(notebook)[-1].outputs if code_cells(notebook) else []
    # Whatever else stood there would be on the page, and held against nothing.
    printed = "".join(output.get("text", repr(output)) for output in outputs)
    return printed == verdict_lines(chapter, measures)


def renewed(chapter: str, notebook: NotebookNode) -> NotebookNode:
    """A run of the same code with the source's words and the verdicts of today's claims.

    Raises:
        BookError: its cells are not those of the source.
    """
    fresh = draft(chapter)
    if len(code_of(fresh)) != len(code_of(notebook)):
        raise BookError(f"{chapter}: the source and its run have not the same cells of code")
    for cell, old in zip(code_cells(fresh), code_cells(notebook), strict=True):
        cell.outputs = old.outputs
    if not is_of_its_verdicts(chapter, notebook):
        text = verdict_lines(chapter, results_of(notebook, chapter)["measures"])
        last = nbformat.v4.new_output("stream", name="stdout", text=text)
        code_cells(fresh)[-1].outputs = [last]
    fresh.metadata = notebook.metadata
    fresh.metadata["ebmref"]["results"]["chapter"] = chapter
    return normalise(fresh)
