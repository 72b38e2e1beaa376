"""Records: the committed, executed notebooks, and what keeps them honest."""

import base64
import sys

from nbformat import NotebookNode

from ebmbook import claims, notebooks
from ebmbook.notebooks import BOOK, CLAIMS, BookError
from ebmbook.runner import Variant, run_chapters

# A clone carries every record: figures stay few and small.
MAX_BYTES = 600_000
COVER = BOOK / "_static" / "cover.png"


def make_records(names: list[str], profile: str, jobs: int) -> None:
    """Run the chapters in the profile and install the runs beside their sources.

    A record whose source changed in its prose alone takes the new prose and keeps its
    outputs: the code that made them is the same.
    """
    variant = Variant(profile)
    prose_only = [name for name in names if _is_of_same_code(name, variant)]
    for name in prose_only:
        _renew_prose(name)
        print(f"{name}: same code, the record keeps its outputs", file=sys.stderr)
    rest = [name for name in names if name not in prose_only]
    run_chapters(rest, variant, jobs)
    for name in rest:
        run = notebooks.read(variant.folder / f"{name}.ipynb")
        notebooks.write(run, notebooks.record_path(name))
        if (cover := cover_of(run)) is not None:
            fresh = COVER.with_suffix(".new")
            fresh.write_bytes(cover)
            fresh.replace(COVER)
        print(f"{name}: recorded ({profile})", file=sys.stderr)


def cover_of(notebook: NotebookNode) -> bytes | None:
    """The picture of the cell tagged "cover", which the README shows; None without one."""
    for cell in _code_cells(notebook):
        if "cover" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    return None


def _is_of_same_code(name: str, variant: Variant) -> bool:
    """Whether a new run could differ from the record in its prose alone."""
    try:
        made_by = notebooks.read(notebooks.record_path(name)).metadata["ebmref"]["code_key"]
    except (BookError, KeyError):
        return False
    return made_by == notebooks.code_key(name, variant.profile, variant.parameters)


def _renew_prose(name: str) -> None:
    """Put the source's text around the record's outputs."""
    record = notebooks.read(notebooks.record_path(name))
    fresh = notebooks.draft(name)
    for cell, old in zip(_code_cells(fresh), _code_cells(record), strict=True):
        cell.outputs = old.outputs
    fresh.metadata = record.metadata
    notebooks.write(notebooks.normalise(fresh), notebooks.record_path(name))


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def faults(name: str) -> list[str]:
    """What of a chapter's record is not of its source or of its claims; empty when all is well.

    Each line ends in the command that makes the record anew.
    """
    path = notebooks.record_path(name)
    try:
        record = notebooks.read(path)
        results = notebooks.results_of(record, path.name)
        found = list(_faults(name, record, results["measures"]))
    except (BookError, claims.LedgerError) as error:
        found = [str(error)]
    return [f"{line}; make it anew with: make record CHAPTER={name}" for line in found]


def _faults(name: str, record: NotebookNode, measures: dict[str, claims.Measure]):
    if [*map(notebooks.look, record.cells)] != [*map(notebooks.look, notebooks.draft(name).cells)]:
        yield f"{name}: the source was edited since its record was made"
    code = _code_cells(record)
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield f"{name}: the record was not executed from its first cell to its last"
    printed = "".join(output.get("text", "") for output in code[-1].outputs)
    judged = claims.judge_all(claims.load_claims(CLAIMS), {name: measures})
    if printed != "".join(got.line() + "\n" for got in judged if got.claim.chapter == name):
        yield f"{name}: the record's verdicts are not those of its claims"
    cover = cover_of(record)
    if cover is not None and not (COVER.is_file() and COVER.read_bytes() == cover):
        yield f"{name}: {COVER.name} is not the picture of the record"
    size = notebooks.record_path(name).stat().st_size
    if size > MAX_BYTES:
        yield f"{name}: the record has {size} bytes, more than {MAX_BYTES}"
