"""Keep a full record across a change that should change no number, on evidence.

The chapter runs twice in the quick profile on this machine: with the code that made the record,
and with the code as it is. All results and all outputs must be equal to the last bit. That says
nothing of code that only the full run comes through, and so every line that was changed, in
whatever the chapter reaches, must have run: the new one now, the old one before, see
`press.changes`. Errors need not be raised: a record is there, so none was.

Where a chapter keeps checkpoints it runs a third time, from those that the second one left: what
is read must be what was made.

The *golden runs* of the tests, short trainings of every kind, are held against each other too, in
every byte of the tensors that they end in: one file of them runs with both trees. They can also
speak for a place that the chapter's quick run does not come through, or does not feel.

Where neither speaks for a place, somebody who has read it may: a file of reasons, one for each
definition. They stay in the record's stamp and stand on its page. A number that differs is beyond
any reason.

What was swept with the code that made the record, the rates of its verdicts, goes along.

This is no proof. A line can run in all of these and matter in none, and in the full run matter:
what is switched off, what saturates. Where that can be, make the record anew.
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

import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from ebmbook import keys, rates
from ebmbook.press import notebooks, records, sweep
from ebmbook.press.changes import Changes, Tree, changes
from ebmbook.press.children import execute
from ebmbook.press.notebooks import BookError
from ebmbook.press.places import Place
from ebmbook.press.variants import Variant
from ebmref.files import write_atomic

QUICK = "quick"
KEPT = notebooks.RUNS.parent / "carried"  # quick runs of earlier code
HERE = Path(__file__).parent
# What the clock decides: outputs of cells with this tag, measures with this word in their name.
TIMED, CLOCK = "timed", "seconds"


def carry(name: str, reasons: dict[str, str] | None = None) -> str:
    """Find evidence that the record still stands, and stamp it; returns what was done, in a line.

    Args:
        reasons: for definitions, as a refusal names them, why the places in them that did not run
            change no number; see `read_reasons`.

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
        changed = changes(before, now, results["profile"])
        evidence = weigh(name, before, now, changed, reasons or {}, Path(work))
        _keep_rates(name, before.key(QUICK, {}), now.key(QUICK, {}))
    stamp["key"], was = key, stamp["key"]
    stamp["look"] = notebooks.keys_of(name, *asked)["look"]
    step = {"from": was, "to": key, "commit": commit, **evidence}
    stamp["carried"] = [*stamp.get("carried", []), step]
    notebooks.write(notebooks.renewed(name, record), path)
    told = f"{evidence['places']} changed places"
    if vouched := evidence.get("vouched"):
        told += f", of which reasons speak for those in {', '.join(vouched)}"
    return f"{name}: carried over from {commit}, all results are equal; {told}"


def _keep_rates(name: str, before: str, now: str) -> None:
    """What was swept with the code that the record was made by holds for this code as well."""
    path = sweep.rates_path(name)
    found = rates.read(path)
    if found is not None and found["key"] == before:
        write_atomic(path, rates.as_text(found | {"key": now}))


def read_reasons(path: str) -> dict[str, str]:
    """Reasons from a YAML file, `definition: reason`.

    Raises:
        BookError: no such file, or something else in it.
    """
    try:
        reasons = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BookError(f"reasons: {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(reasons, dict) or not all(
        isinstance(text, str) and text.strip() for pair in reasons.items() for text in pair
    ):
        raise BookError(f"reasons: {path}: expected a line `definition: reason` for each")
    return reasons


def _made_by(name: str, key: str, asked: tuple, work: Path) -> tuple[Tree, str]:
    """The newest commit of the main line whose code has the record's key, laid out in a folder.

    A branch that was merged may have other quick sizes, which are no part of a full record's key.
    """
    names = [name, *notebooks.former_names(name)]
    asked_for = ("--first-parent", "--abbrev-commit", "--abbrev=12", "HEAD")
    listed = records.git("rev-list", *asked_for).splitlines()
    for commit in listed:
        root = work / commit
        _lay_out(commit, root)
        for known in names:
            tree = Tree(root, root / "book" / f"{known}.md")
            with contextlib.suppress(keys.SourceError):
                if tree.source.is_file() and tree.key(*asked) == key:
                    return tree, commit
    raise BookError(f"{name}: no commit has the code that made its record; make record makes one")


def _lay_out(commit: str, root: Path) -> None:
    command = ["git", "-C", str(notebooks.ROOT), "archive", commit]
    done = subprocess.run(command, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(root, filter="data")


# --- the evidence ---------------------------------------------------------------------------


def weigh(
    name: str, before: Tree, now: Tree, changed: Changes, reasons: dict[str, str], work: Path
) -> dict:
    """Run before and now, hold them against each other; returns the evidence.

    Raises:
        BookError: something differs, or a changed place did not run and no reason speaks for it;
            names all such.
    """
    kept = work / "checkpoints"
    exempt = [a and b for a, b in zip(_exempt(before), _exempt(now), strict=True)]
    old = _run_once(before, work / "before", changed.before)
    old = (old[0], _left(old[1], exempt), old[2])
    new = _run(now, work / "now", changed.now, kept)
    seen = new[2]
    _same(name, old, (new[0], _left(new[1], exempt)), "before the change and after it")
    if kept.is_dir() and any(kept.iterdir()):
        again = _run(now, work / "again", changed.now, kept)
        when = "before the change and from the checkpoints after it"
        _same(name, old, (again[0], _left(again[1], exempt)), when)
        for file, more in again[2].items():
            seen.setdefault(file, []).extend(more)
    sides = [
        [place for place in places if place.literal or not place.ran(ran)]
        for places, ran in ((changed.before, old[2]), (changed.now, seen))
    ]
    evidence = {"evidence": _digest(old), "places": len(changed.before) + len(changed.now)}
    n_missed = sum(map(len, sides))
    if golden := _golden_runs(before, now, sides, work):
        _same(name, golden[0], golden[1], "in golden runs before the change and after")
        evidence |= {"golden": _digest(golden[0]), "by_golden": n_missed}
        sides = [
            [place for place in places if not place.ran(ran[2])]
            for places, ran in zip(sides, golden, strict=True)
        ]
    missed = {place.owner.of for places in sides for place in places}
    if vouched := {of: reasons[of] for of in sorted(missed) if of in reasons}:
        evidence["vouched"] = vouched
        sides = [[place for place in places if place.owner.of not in vouched] for places in sides]
    if any(sides):
        told = [f"{place} (as it was)" for place in sides[0]] + [str(place) for place in sides[1]]
        raise BookError(
            f"{name}: changed, and not run in the quick profile: "
            f"{', '.join(dict.fromkeys(told))}; a full run can vouch for it (make record "
            f"CHAPTER={name}), or a reason (make carry CHAPTER={name} REASONS=file.yml)"
        )
    return evidence


def _digest(made: tuple) -> str:
    return keys.digest(json.dumps(made[0], sort_keys=True), json.dumps(made[1]))


def _exempt(tree: Tree) -> list[bool]:
    """For each cell of code whether its outputs may differ from run to run."""
    tags = [cell.metadata.get("tags", []) for cell in notebooks.code_cells(tree.draft())]
    return [TIMED in of_cell or "nbval-check-output" in of_cell for of_cell in tags]


def _left(outputs: list, exempt: list[bool]) -> list:
    """Outputs without those that may differ."""
    return [[] if free else out for out, free in zip(outputs, exempt, strict=True)]


def _run_once(tree: Tree, folder: Path, places: list[Place]) -> tuple:
    """`_run` of the code that made the record: once on a machine is enough."""
    of = tree.key(QUICK, {}), os.environ.get("ATEN_CPU_CAPABILITY", ""), _asked(tree, places)
    kept = KEPT / f"{tree.chapter}-{keys.digest(*of)}.json"
    if not kept.is_file():
        measures, outputs, seen = _run(tree, folder, places)
        seen = {_within(tree, file): ran for file, ran in seen.items()}
        write_atomic(kept, json.dumps([measures, outputs, seen]))
    measures, outputs, seen = json.loads(kept.read_text())
    files = {_within(tree, place.owner.file): place.owner.file for place in places}
    return measures, outputs, {files[file]: ran for file, ran in seen.items()}


def _asked(tree: Tree, places: list[Place]) -> str:
    """What a run is traced for, and how, whatever folder the tree lies in."""
    extents = sorted((_within(tree, place.owner.file), place.owner.within) for place in places)
    return json.dumps(extents) + (HERE / "traced.py").read_text()


def _within(tree: Tree, file: str) -> str:
    return str(Path(file).relative_to(tree.root)) if Path(file).is_absolute() else file


def _golden_runs(before: Tree, now: Tree, sides: list[list[Place]], work: Path) -> list | None:
    """What golden runs end in before and now, as `_run`; None where no file runs with both."""
    for tree in (now, before):
        if tree.golden is None:
            continue
        made = []
        for i, (of, places) in enumerate(zip((before, now), sides, strict=True)):
            made.append(_golden(of, tree.golden, places, work / f"golden-{i}.json"))
            if made[-1] is None:
                break
        else:
            return made
    return None


def _golden(tree: Tree, file: Path, places: list[Place], seen: Path) -> tuple | None:
    asked = {
        "path": str(file),
        "traced": str(HERE / "traced.py"),
        "files": _extents(places),
        "seen": str(seen) if places else "",
    }
    done = subprocess.run(
        [sys.executable, "-P", HERE / "golden.py", json.dumps(asked)],
        cwd=seen.parent,
        env=os.environ | {"PYTHONPATH": str(tree.root), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return None
    return json.loads(done.stdout), [], json.loads(seen.read_text()) if places else {}


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


def _run(tree: Tree, folder: Path, places: list[Place], kept: Path | None = None) -> tuple:
    """Quick results, outputs a cell, and what ran of the places."""
    folder.mkdir(parents=True)
    notebook = tree.draft()
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    seen = folder / "seen.json"
    _trace(notebook, places, seen)
    draft = folder / f"{tree.chapter}.ipynb"
    notebooks.write(notebook, draft)
    # Claims are looked for in the tree.
    environment = {"EBMREF_TREE": str(tree.root), "EBMREF_CLAIMS": "", "EBMREF_CHECKPOINTS": ""}
    if kept is not None:
        environment |= {"EBMREF_CHECKPOINTS": str(kept), "EBMREF_KEEP": "1"}
    error = execute(draft, Variant(QUICK), book=tree.root / "book", more=environment)
    if error:
        raise BookError(f"{tree.chapter}, {folder.name}: {error}")
    executed = notebooks.normalise(notebooks.read(draft))
    measures = json.loads((folder / f"{tree.chapter}.json").read_text())["measures"]
    measures = {name: got for name, got in measures.items() if CLOCK not in name}
    outputs = [
        [_without_place(output) for output in cell.outputs if not _of_clock(output)]
        for cell in notebooks.code_cells(executed)[1:-1]
    ]
    return measures, outputs, json.loads(seen.read_text())


def _of_clock(output: NotebookNode) -> bool:
    return CLOCK in output.get("metadata", {}).get("scrapbook", {}).get("name", "")


def _without_place(output: NotebookNode) -> dict:
    return {key: got for key, got in output.items() if key != "execution_count"}


def _trace(notebook: NotebookNode, places: list[Place], seen: Path) -> None:
    """Have a cell before all others note what runs, and one after them leave it in a file."""
    named = {place.owner.file for place in places}
    cells = {
        text.strip("\n"): f"cell {i}"
        for i, text in enumerate(notebooks.code_of(notebook))
        if f"cell {i}" in named
    }
    # The tracer of now, whatever the tree has.
    traced = str(HERE / "traced.py")
    start = f"import runpy\n_traced = runpy.run_path({traced!r})\n"
    start += f"_traced['start']({_extents(places)!r}, {cells!r})"
    notebook.cells.insert(0, new_code_cell(start))
    notebook.cells.append(new_code_cell(f"_traced['stop']({str(seen)!r})"))


def _extents(places: list[Place]) -> dict[str, list[tuple[int, int]]]:
    """For each file the definitions that the places are of, by first and last line."""
    files: dict[str, list] = {}
    for place in places:
        if not place.owner.file.startswith("cell "):
            files.setdefault(place.owner.file, []).append(place.owner.within)
    return {file: sorted(set(spans)) for file, spans in files.items()}
