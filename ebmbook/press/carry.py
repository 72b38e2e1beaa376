"""Keep a full record across a change that should change no number, by proof.

The chapter runs twice in the quick profile on this machine: with the code that made the record,
and with the code as it is. All results and all outputs must be equal to the last bit. That says
nothing of code that only the full run comes through, and so every place that was changed, in
whatever the chapter reaches, must have run in the quick one: each statement, each branch of a
condition within one. Errors need not be raised: a record is there, so none was. Nor can a quick
run speak for a number that only the full profile uses, so no literal of a cell may be new.

Where a chapter keeps checkpoints it runs a third time, from those that the second one left: what
is read must be what was made. And for a place that the chapter's quick run does not come through,
the *golden runs* of the tests can speak, short trainings of every kind, where the commits have
them: they must end in the same states, to the last bit, before and after.
"""

import contextlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from ebmbook import keys
from ebmbook.press import notebooks, records
from ebmbook.press.changes import Place, Tree, changed_places
from ebmbook.press.notebooks import BookError
from ebmbook.press.runner import Variant, execute_draft
from ebmref.files import write_atomic

QUICK = "quick"
KEPT = notebooks.RUNS.parent / "carried"  # quick runs of earlier code
FAR = 40  # commits
# Runs every case of a file of golden states, under the tracer where that is asked for.
GOLDEN = """
import json, runpy, sys
import torch
path, traced = json.loads(sys.argv[1])
if traced:
    from ebmbook.press import traced as tracer
    tracer.start(traced[0], {})
golden = runpy.run_path(path)
torch.set_num_threads(1)
made = {name: golden["summary"](*case()) for name, case in golden["CASES"].items()}
if traced:
    tracer.stop(traced[1])
print(json.dumps(made))
"""
# What the clock decides: outputs of cells with this tag, measures with this word in their name.
TIMED, CLOCK = "timed", "seconds"


def carry(name: str) -> str:
    """Prove that the record still stands, and stamp it; returns what was done, in a line.

    Raises:
        BookError: it does not, or that cannot be told; the message says why.
    """
    path = notebooks.record_path(name)
    record = notebooks.read(path)
    results = notebooks.results_of(record, path.name)
    records.require_unaltered(name, record)
    stamp = record.metadata["ebmref"]
    asked = (results["profile"], stamp["parameters"])
    now = Tree(notebooks.ROOT, notebooks.source_path(name))
    key = now.key(*asked)
    if key == stamp["key"]:
        return f"{name}: the record is of this code; nothing to carry"
    with tempfile.TemporaryDirectory(prefix="carry-") as work:
        before, commit = _made_by(name, stamp["key"], asked, Path(work))
        places = changed_places(before, now, results["profile"])
        evidence = prove(name, before, now, places, Path(work))
    stamp["key"], was = key, stamp["key"]
    stamp["look"] = notebooks.keys_of(name, *asked)["look"]
    step = {"from": was, "to": key, "commit": commit, **evidence}
    stamp["carried"] = [*stamp.get("carried", []), step]
    notebooks.write(notebooks.renewed(name, record), path)
    ran = len(places)
    return f"{name}: carried over from {commit}; {ran} changed places ran, all results are equal"


def _made_by(name: str, key: str, asked: tuple, work: Path) -> tuple[Tree, str]:
    """The newest commit whose code has the record's key, laid out in a folder.

    One that has golden runs is taken first, if it is not far.
    """
    names = [name, *notebooks.former_names(name)]
    found, n_since = None, 0
    listed = records.git("rev-list", "--abbrev-commit", "--abbrev=12", "HEAD").splitlines()
    for commit in listed:
        n_since += found is not None
        if n_since > FAR:
            break
        root = work / commit
        _lay_out(commit, root)
        for known in names:
            tree = Tree(root, root / "book" / f"{known}.md")
            with contextlib.suppress(keys.SourceError):
                if tree.source.is_file() and tree.key(*asked) == key:
                    found = found or (tree, commit)
                    if tree.golden:
                        return tree, commit
    if found:
        return found
    raise BookError(f"{name}: no commit has the code that made its record; make record makes one")


def _lay_out(commit: str, root: Path) -> None:
    command = ["git", "-C", str(notebooks.ROOT), "archive", commit]
    done = subprocess.run(command, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(root, filter="data")


# --- the proof -----------------------------------------------------------------------------


def prove(name: str, before: Tree, now: Tree, places: list[Place], work: Path) -> dict:
    """Run before and now, hold them against each other; returns the evidence.

    Raises:
        BookError: something differs, or a changed place did not run; names it.
    """
    kept = work / "checkpoints"
    tags = [cell.metadata.get("tags", []) for cell in notebooks.code_cells(now.draft())]
    exempt = [TIMED in of_cell or "nbval-check-output" in of_cell for of_cell in tags]
    old = _run_before(before, work / "before", exempt)
    new = _run(now, work / "now", exempt, places, kept)
    seen = new[2]
    _same(name, old, new, "before the change and after it")
    if kept.is_dir() and any(kept.iterdir()):
        again = _run(now, work / "again", exempt, places, kept)
        _same(name, old, again, "before the change and from the checkpoints after it")
        for file, more in again[2].items():
            seen.setdefault(file, []).extend(more)
    evidence = {"evidence": _digest(old), "places": len(places)}
    missed = [place for place in places if not place.ran(seen)]
    if missed and before.golden and now.golden:
        golden, again = _golden(before, work), _golden(now, work, missed)
        _same(name, (golden[0], []), (again[0], []), "in golden runs before the change and after")
        evidence |= {"golden": _digest(golden), "by_golden": len(missed)}
        missed = [place for place in missed if not place.ran(again[1])]
    if missed:
        told = ", ".join(dict.fromkeys(str(place) for place in missed))
        raise BookError(
            f"{name}: changed, and not run in the quick profile: {told}; only a full run can "
            f"vouch for it: make record CHAPTER={name}"
        )
    return evidence


def _digest(made: tuple) -> str:
    return keys.digest(json.dumps(made[0], sort_keys=True), json.dumps(made[1]))


def _run_before(tree: Tree, folder: Path, exempt: list[bool]) -> tuple:
    """`_run` of the code that made the record: once on a machine is enough."""
    made_by = keys.digest(tree.key(QUICK, {}), os.environ.get("ATEN_CPU_CAPABILITY", ""))
    kept = KEPT / f"{tree.chapter}-{made_by}.json"
    if not kept.is_file():
        nothing_exempt = [False] * len(exempt)
        write_atomic(kept, json.dumps(_run(tree, folder, nothing_exempt)[:2]))
    measures, outputs = json.loads(kept.read_text())
    return measures, [[] if free else out for out, free in zip(outputs, exempt, strict=True)], {}


def _golden(tree: Tree, work: Path, places: list[Place] | None = None) -> tuple:
    """The states that golden runs end in, and the places that they came through."""
    seen = work / "golden.json"
    traced = [_extents(places), str(seen)] if places else None
    done = subprocess.run(
        [sys.executable, "-c", GOLDEN, json.dumps([str(tree.golden), traced])],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(tree.root), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BookError(f"{tree.golden.name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout), json.loads(seen.read_text()) if places else {}


def _same(name: str, one: tuple, other: tuple, when: str) -> None:
    for measure in sorted(one[0].keys() | other[0].keys()):
        if one[0].get(measure) != other[0].get(measure):
            raise BookError(
                f"{name}: {measure} is not the same {when}: {one[0].get(measure)}, then "
                f"{other[0].get(measure)}"
            )
    for i, (left, right) in enumerate(zip(one[1], other[1], strict=True)):
        if left != right:
            raise BookError(f"{name}: the outputs of cell {i + 1} are not the same {when}")


def _run(
    tree: Tree,
    folder: Path,
    exempt: list[bool],
    places: list[Place] | None = None,
    kept: Path | None = None,
) -> tuple:
    """Quick results, outputs a cell, and the places that ran."""
    folder.mkdir(parents=True)
    notebook = tree.draft()
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    seen = folder / "seen.json"
    sources = notebooks.code_of(notebook)
    if places is not None:
        _trace(notebook, places, sources, seen)
    draft = folder / f"{tree.chapter}.ipynb"
    notebooks.write(notebook, draft)
    # Claims are looked for in the tree.
    environment = {"EBMREF_TREE": str(tree.root), "EBMREF_CLAIMS": "", "EBMREF_CHECKPOINTS": ""}
    if kept is not None:
        environment |= {"EBMREF_CHECKPOINTS": str(kept), "EBMREF_KEEP": "1"}
    error = execute_draft(draft, Variant(QUICK), tree.root / "book", environment)
    if error:
        raise BookError(f"{tree.chapter}, {folder.name}: {error}")
    executed = notebooks.normalise(notebooks.read(draft))
    cells = notebooks.code_cells(executed)
    cells = cells[1:-1] if places is not None else cells
    measures = json.loads((folder / f"{tree.chapter}.json").read_text())["measures"]
    measures = {name: got for name, got in measures.items() if CLOCK not in name}
    outputs = [
        [] if free else [_without_place(output) for output in cell.outputs if not _of_clock(output)]
        for cell, free in zip(cells, exempt, strict=True)
    ]
    return measures, outputs, json.loads(seen.read_text()) if seen.exists() else {}


def _of_clock(output: NotebookNode) -> bool:
    return CLOCK in output.get("metadata", {}).get("scrapbook", {}).get("name", "")


def _without_place(output: NotebookNode) -> dict:
    return {key: got for key, got in output.items() if key != "execution_count"}


def _trace(notebook: NotebookNode, places: list[Place], sources: list[str], seen: Path) -> None:
    """Have a cell before all others note what runs, and one after them leave it in a file."""
    files = _extents(places)
    named = {place.file for place in places}
    cells = {
        text.strip("\n"): f"cell {i}" for i, text in enumerate(sources) if f"cell {i}" in named
    }
    start = f"from ebmbook.press import traced\ntraced.start({files!r}, {cells!r})"
    notebook.cells.insert(0, new_code_cell(start))
    notebook.cells.append(new_code_cell(f"traced.stop({str(seen)!r})"))


def _extents(places: list[Place]) -> dict[str, list[tuple[int, int]]]:
    """For each file the definitions that the places are of, by first and last line."""
    files: dict[str, list] = {}
    for place in places:
        if not place.file.startswith("cell "):
            files.setdefault(place.file, []).append(place.within)
    return {file: sorted(set(spans)) for file, spans in files.items()}
