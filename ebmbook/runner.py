"""Run chapters: drafts through papermill, in parallel, each whole or not at all.

A run lives in `_build/run/<variant>/`: `NN-name.ipynb` and `results/NN-name.json`, both
put there by renaming once the chapter has finished. A chapter that fails leaves
`NN-name.failed.ipynb`; an interrupted one leaves nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ebmbook import INTERRUPTED, notebooks
from ebmbook.notebooks import BOOK, CHECKPOINTS, ROOT, RUNS, BookError
from ebmref import files


@dataclass(frozen=True)
class Variant:
    """One way of running the book: a profile and the parameters given on top of it."""

    profile: str = "quick"
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its runs live: the plain profile's own folder, others beside it."""
        extras = [f"{name}-{value}" for name, value in sorted(self.parameters.items())]
        return RUNS / "-".join([self.profile, *extras]).replace("/", "_")


def run_chapters(names: list[str], variant: Variant, jobs: int = 1) -> list[str]:
    """Run those of the chapters that changed since their last run; returns their names.

    Raises:
        BookError: names every chapter that failed, its cell and its error.
    """
    stale = [name for name in names if not is_fresh(name, variant)]
    for name in names:
        _failed_path(name, variant).unlink(missing_ok=True)
        if name not in stale:
            tqdm.write(f"{name}: unchanged, not run again", file=sys.stderr)
    # Chapters side by side share the cores; more threads than cores is slower than fewer.
    at_once = max(1, min(jobs, len(stale)))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // at_once)))
    children: list[subprocess.Popen] = []
    failures = []
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        futures = [
            pool.submit(run_chapter, name, variant, i % jobs, children)
            for i, name in enumerate(stale)
        ]
        for future in futures:
            try:
                future.result()
            except BookError as error:
                failures.append(str(error))
    finally:
        # Reached early only by an interrupt: nothing new starts, what runs is ended.
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.terminate()
        pool.shutdown()
    if failures:
        raise BookError("\n".join(failures))
    return stale


def is_fresh(chapter: str, variant: Variant) -> bool:
    """Whether the chapter's last run is whole and of the present source, code and parameters."""
    path = variant.folder / f"{chapter}.ipynb"
    if not path.is_file() or not (variant.folder / "results" / f"{chapter}.json").is_file():
        return False
    try:
        key = notebooks.read(path).metadata["ebmref"]["key"]
    except (BookError, KeyError):
        return False
    return key == notebooks.run_key(chapter, variant.profile, variant.parameters)


def _failed_path(chapter: str, variant: Variant) -> Path:
    """Where the notebook of a failed run is left to be looked at."""
    return variant.folder / f"{chapter}.failed.ipynb"


def run_chapter(
    chapter: str, variant: Variant, place: int, children: list[subprocess.Popen]
) -> None:
    """Run one chapter and install its notebook and results.

    Args:
        place: the line of its progress bar.
        children: where its process is entered, so that an interrupt can end it.

    Raises:
        BookError: it failed; names the chapter, the cell and the error.
    """
    folder = variant.folder
    folder.mkdir(parents=True, exist_ok=True)
    # Before the run, so that an edit made while it runs is seen by the next one.
    stamp = {
        "key": notebooks.run_key(chapter, variant.profile, variant.parameters),
        "code_key": notebooks.code_key(chapter, variant.profile, variant.parameters),
        "parameters": variant.parameters,
    }
    notebook = notebooks.draft(chapter)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f".{chapter}-", dir=folder) as work:
        draft = Path(work) / f"{chapter}.ipynb"
        notebooks.write(notebook, draft)
        error = _execute(draft, chapter, variant, place, len(notebook.cells), children)
        if error:
            failed = _failed_path(chapter, variant)
            os.replace(draft, failed)
            shown = os.path.relpath(failed)
            raise BookError(f"{chapter}: {error} (the notebook up to there: {shown})")
        results = Path(work) / f"{chapter}.json"
        if not results.is_file():
            raise BookError(f"{chapter}: the last cell must call ledger.verdicts()")
        executed = notebooks.normalise(notebooks.read(draft))
        executed.metadata["ebmref"] = stamp | {"results": json.loads(results.read_text())}
        files.write_atomic(folder / "results" / results.name, results.read_text())
        notebooks.write(executed, folder / draft.name)
    tqdm.write(f"{chapter}: {time.monotonic() - began:.0f} s", file=sys.stderr)


def in_short(said: str) -> str:
    """A line of a cell's stderr within the chapter's bar; of a bar its words and numbers."""
    words, *_, numbers = said.split("|") if "|" in said else (said, "")
    return f"{words.rstrip()} {numbers.strip()}".strip()[:60]


def _execute(
    draft: Path, chapter: str, variant: Variant, place: int, n_cells: int, children: list
) -> str:
    """Execute the draft in a child process under a progress bar; returns the error, or ""."""
    environment = os.environ | {
        "EBMREF_PROFILE": variant.profile,
        "EBMREF_RESULTS": str(draft.parent),
        "EBMREF_CLAIMS": str(BOOK / "claims.yml"),
        "EBMREF_CHECKPOINTS": os.environ.get("EBMREF_CHECKPOINTS") or str(CHECKPOINTS),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "ebmbook.execute", str(draft), str(BOOK)]
    command.append(json.dumps(variant.parameters))
    error = ""
    with (
        tempfile.TemporaryFile("w+") as complaints,
        tqdm(
            total=n_cells,
            desc=chapter,
            unit="cell",
            position=place,
            leave=False,
            disable=not sys.stderr.isatty(),
        ) as bar,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as child,
    ):
        children.append(child)
        for line in child.stdout:
            message = json.loads(line)
            error = message.get("error", error)
            if "said" in message:
                bar.set_postfix_str(in_short(message["said"]))
            if "cell" in message:
                bar.set_postfix_str("", refresh=False)
                bar.update(message["cell"] + 1 - bar.n)
        status = child.wait()
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        if status and not error:
            complaints.seek(0)
            said = [line.strip() for line in complaints if line.strip()]
            error = f"the run ended with status {status}" + (f": {said[-1]}" if said else "")
    return error
