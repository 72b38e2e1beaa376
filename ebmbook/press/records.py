"""Records: the committed, executed notebooks, and what keeps them honest."""

import base64
import datetime
import subprocess
import sys
from collections.abc import Iterator

from nbformat import NotebookNode

from ebmbook import claims, inputs
from ebmbook.press import notebooks, outputs
from ebmbook.press.notebooks import BOOK, ROOT, BookError
from ebmbook.press.runner import run_chapters
from ebmbook.press.variants import Variant
from ebmref.files import whole

# A clone carries every record: figures stay few and small, though sharp on dense screens.
MAX_BYTES = 1_000_000
COVER = BOOK / "_static" / "cover.png"
PROFILE = "full"


def make_records(names: list[str], profile: str, jobs: int, *, anew: bool = False) -> None:
    """Run the chapters in the profile and install the runs beside their sources.

    A record whose numbers depend on nothing that changed keeps its outputs, and takes the
    source's words and the verdicts of today's claims.

    Args:
        anew: run it all the same, for example to have its figures in a new style.
    """
    variant = Variant(profile)
    kept = [name for name in names if not anew and _is_of_same_code(name, variant)]
    for name in kept:
        record = notebooks.read(notebooks.record_path(name))
        notebooks.write(notebooks.renewed(name, record), notebooks.record_path(name))
        print(f"{name}: same code, the record keeps its outputs", file=sys.stderr)
    rest = [name for name in names if name not in kept]
    run_chapters(rest, variant, jobs)
    for name in rest:
        run = notebooks.read(variant.folder / f"{name}.ipynb")
        run.metadata["ebmref"]["made_by"] = provenance()
        notebooks.write(run, notebooks.record_path(name))
        if (cover := cover_of(run)) is not None:
            with whole(COVER) as fresh:
                fresh.write_bytes(cover)
        print(f"{name}: recorded ({profile})", file=sys.stderr)


def provenance() -> dict[str, str]:
    """When, and from which commit; "+" behind it where files were changed since."""
    made = {"date": datetime.date.today().isoformat()}
    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        made["commit"] = commit + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):  # no checkout of git
        made["commit"] = ""
    return made


def git(*args: str) -> str:
    """What git says in this checkout."""
    command = ["git", "-C", str(ROOT), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def cover_of(notebook: NotebookNode) -> bytes | None:
    """The picture of the cell tagged "cover", which the README shows; None without one."""
    for cell in notebooks.code_cells(notebook):
        if "cover" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    return None


def _is_of_same_code(name: str, variant: Variant) -> bool:
    """Whether a new run could differ from the record in what it shows alone."""
    try:
        record = notebooks.read(notebooks.record_path(name))
        stamp = record.metadata["ebmref"]
        made_by = stamp["key"]
        read = stamp["results"].get("data", {})
        if outputs.faults(name, record) or list(_of_size(name, stamp)):
            return False
    except (BookError, claims.LedgerError, KeyError):
        return False
    now = notebooks.keys_of(name, variant.profile, variant.parameters)
    return made_by == now["key"] and not inputs.changed(read)


def require_unaltered(name: str, record: NotebookNode) -> None:
    """Look whether a record's outputs are those of its run.

    Raises:
        BookError: they are not; says what is, and what to do.
    """
    if altered := outputs.faults(name, record):
        raise BookError(altered[0])


def faults(name: str) -> list[str]:
    """What of a chapter's record is not of its source, its code, its data or its claims.

    Empty when all is well. Each line ends in the command that makes the record anew.
    """
    path = notebooks.record_path(name)
    try:
        record = notebooks.read(path)
        found = list(_faults(name, record, notebooks.results_of(record, path.name)))
    except (BookError, claims.LedgerError) as error:
        found = [str(error)]
    return [f"{line}; make it anew with: make record CHAPTER={name}" for line in found]


def _of_size(name: str, stamp: dict) -> Iterator[str]:
    """Records are of the full profile, the chapter's own seed and no other parameter."""
    results, usual = stamp["results"], notebooks.parameters(name).get("seed", 0)
    if results["profile"] != PROFILE:
        yield f"{name}: the record is of the {results['profile']} profile; records are {PROFILE}"
    if results["seed"] != usual:
        yield f"{name}: the record is of seed {results['seed']}; the chapter's is {usual}"
    if given := stamp.get("parameters"):
        yield f"{name}: the record was made with {', '.join(given)} set; records set nothing"


def _faults(name: str, record: NotebookNode, results: dict) -> Iterator[str]:
    stamp = record.metadata["ebmref"]
    yield from outputs.faults(name, record)
    yield from _of_size(name, stamp)
    now = notebooks.keys_of(name, results["profile"], stamp.get("parameters", {}))
    if stamp.get("key") != now["key"]:
        yield (
            f"{name}: the code that its numbers depend on was changed since its record was made "
            f"(where no number should change, keep it by proof: make carry CHAPTER={name})"
        )
    for file in inputs.changed(results.get("data", {})):
        yield f"{name}: the record was made from other data than {file} holds"
    if not notebooks.is_of_its_words(name, record):
        yield f"{name}: the source was edited since its record was made"
    code = notebooks.code_cells(record)
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield f"{name}: the record was not executed from its first cell to its last"
    if not notebooks.is_of_its_verdicts(name, record):
        yield f"{name}: the record's verdicts are not those of its claims"
    cover = cover_of(record)
    if cover is not None and not (COVER.is_file() and COVER.read_bytes() == cover):
        yield f"{name}: {COVER.name} is not the picture of the record"
    size = notebooks.record_path(name).stat().st_size
    if size > MAX_BYTES:
        yield f"{name}: the record has {size} bytes, more than {MAX_BYTES}"
