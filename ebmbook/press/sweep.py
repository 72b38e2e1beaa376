"""Run chapters over seeds and machines, and say how often each verdict holds.

A run's outcome is `_build/sweep/<variant>/<machine>/<chapter>-<seed>.json`, written here by
renaming as it comes in, wherever it was made. What has finished with the present code, a run that
died among it, is not run again: who runs until it holds has measured his patience.

The quick profile without parameters leaves its rates in `book/rates/`, to be committed; any other
variant beside its runs. A committed run of the present code counts as finished.
"""

import json
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ebmbook import rates
from ebmbook.claims import Claim, LedgerError, parse_results
from ebmbook.press import notebooks
from ebmbook.press.engines import Engine
from ebmbook.press.notebooks import BOOK, ROOT, BookError
from ebmbook.press.tasks import MACHINES, Task, code_key
from ebmbook.press.variants import Variant
from ebmbook.press.work import clear
from ebmref.files import write_atomic

SWEEPS = ROOT / "_build" / "sweep"
RATES = BOOK / "rates"
COMMITTED = Variant("quick")


def parse_seeds(text: str) -> list[int]:
    """Seeds from "0..19", "3", "0,4,7..9".

    Raises:
        BookError: it names none, or something else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})\s*(?:\.\.\s*(\d{1,9})\s*)?", part, flags=re.ASCII)
        if found is None:
            raise BookError(f"SEEDS: expected whole numbers, as 0..19 or 0,3,7; got {text!r}")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise BookError(f"SEEDS: {part.strip()} is empty: {last} comes before {first}")
        seeds += range(first, last + 1)
    return [*dict.fromkeys(seeds)]


def parse_machines(text: str) -> list[str]:
    """Machines from "default,avx2"; [""], the processor as it is, from "".

    Raises:
        BookError: one of them is unknown.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else [""]
    for name in names:
        if (name and name not in MACHINES) or (len(names) > 1 and not name):
            raise BookError(f"MACHINES: expected some of {', '.join(MACHINES)}; got {name!r}")
    return [*dict.fromkeys(names)]


def sweep(
    chapters: list[str], variant: Variant, seeds: list[int], machines: list[str], engine: Engine
) -> dict[str, dict[str, Any]]:
    """Run what has not finished, and leave the rates of each chapter; returns them.

    Raises:
        BookError: a worker refused, or the scheduler was lost; what has finished is kept.
    """
    clear()
    keys = {chapter: code_key(chapter, variant) for chapter in chapters}
    tasks = [
        Task(chapter, seed, machine, variant, keys[chapter])
        for seed in seeds
        for machine in machines
        for chapter in chapters
    ]
    there = {
        (chapter, run["seed"], run["machine"])
        for chapter in chapters
        for run in _runs(chapter, variant, keys[chapter])
    }
    left = [task for task in tasks if (task.chapter, task.seed, task.machine) not in there]
    tqdm.write(f"{len(tasks) - len(left)} of {len(tasks)} runs are there", file=sys.stderr)
    skipped = set()
    bar = tqdm(
        total=len(tasks),
        initial=len(tasks) - len(left),
        unit="run",
        smoothing=0,
        disable=not sys.stderr.isatty(),
    )
    if left:
        with bar, closing(engine(left)) as outcomes:
            for task, outcome in outcomes:
                bar.update()
                if "skipped" in outcome:
                    skipped.add(outcome["skipped"])
                    continue
                _keep(task, outcome)
                told = outcome.get("error", f"{outcome['seconds']:.0f} s")
                tqdm.write(f"{task.label}: {told}", file=sys.stderr)
    for why in sorted(skipped):
        print(f"skipped: {why}", file=sys.stderr)
    return {chapter: _leave_rates(chapter, variant, keys[chapter]) for chapter in chapters}


def rates_path(chapter: str, variant: Variant = COMMITTED) -> Path:
    """Where a chapter's rates stand."""
    folder = RATES if variant == COMMITTED else SWEEPS / variant.name / "rates"
    return folder / f"{chapter}.json"


def is_stale(chapter: str, found: dict[str, Any]) -> bool:
    """Whether rates are of other code than the chapter's as it is."""
    return found["key"] != code_key(chapter, COMMITTED)


def table(chapter: str, found: dict[str, Any], claims: list[Claim]) -> list[str]:
    """A chapter's rates in lines: all at once, then each check that failed somewhere."""
    if not found["runs"]:
        return [f"{chapter}: no run"]
    lines = [f"{chapter}: all verdicts held in {rates.of_all(found, claims)}"]
    for run in found["runs"]:
        if "error" in run:
            where = f" {run['machine']}" if run["machine"] else ""
            lines.append(f"  died: seed {run['seed']}{where}: {run['error']}")
    for claim in claims:
        for check in claim.checks:
            got = rates.of_check(found, check)
            if got.failed:
                margin = "" if got.margin is None else f"; {got.margin:.1f} standard deviations"
                lines.append(
                    f"  {claim.id}: {rates.name_of(check)}: held in {got.rate.held} of "
                    f"{got.rate.of}, not in {', '.join(got.failed)}{margin}"
                )
    return lines


def claims_of(chapter: str) -> list[Claim]:
    """The claims that a chapter answers for."""
    return [claim for claim in notebooks.claims_in_order() if claim.chapter == chapter]


def _path(task: Task) -> Path:
    folder = SWEEPS / task.variant.name / (task.machine or "here")
    return folder / f"{task.chapter}-{task.seed}.json"


def _keep(task: Task, outcome: dict[str, Any]) -> None:
    told = {"key": task.key, "seed": task.seed, "machine": task.machine} | outcome
    write_atomic(_path(task), json.dumps(told, indent=1) + "\n")


def _leave_rates(chapter: str, variant: Variant, key: str) -> dict[str, Any]:
    runs = _runs(chapter, variant, key)
    found = rates.collect(claims_of(chapter), key, variant.profile, runs)
    if runs:
        write_atomic(rates_path(chapter, variant), rates.as_text(found))
    return found


def _runs(chapter: str, variant: Variant, key: str) -> list[dict]:
    """The finished runs of a code, each once: what is here, and what was committed."""
    runs = {}
    for path in (SWEEPS / variant.name).glob(f"*/{chapter}-*.json"):
        if re.fullmatch(re.escape(chapter) + r"-\d+", path.stem):
            run = _read(path)
            if run is not None and run["key"] == key:
                runs[run["seed"], run["machine"]] = run
    committed = rates.read(rates_path(chapter, variant))
    if committed is not None and committed["key"] == key:
        wanted = {check.measure for claim in claims_of(chapter) for check in claim.checks}
        # Of runs made elsewhere nothing is known but what was checked at that time.
        if wanted <= committed["values"].keys():
            for run in rates.runs_of(committed):
                runs.setdefault((run["seed"], run["machine"]), run)
    return [{name: got for name, got in run.items() if name != "key"} for run in runs.values()]


def _read(path: Path) -> dict[str, Any] | None:
    """An outcome in the form of `rates.collect`; None where the file is none."""
    try:
        run = json.loads(path.read_text())
        results = run.pop("results", None)
        if results is not None:
            run["measures"] = parse_results(json.dumps(results), path.name)["measures"]
        return run if {"key", "seed", "machine", "seconds"} <= run.keys() else None
    except (ValueError, AttributeError, LedgerError):
        return None
