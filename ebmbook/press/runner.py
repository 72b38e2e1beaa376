"""Run chapters: drafts through papermill, in parallel, each whole or not at all.

A run lives in `_build/run/<variant>/`: `<chapter>.ipynb` and `results/<chapter>.json`, both
put there by renaming once the chapter has finished. A chapter that fails leaves
`<chapter>.failed.ipynb`; an interrupted one leaves nothing. Until then the run is at work in
the hidden folder `.<chapter>` beside, alone: its lock is held by this process and by the child
that executes the chapter. A killed run's folder is swept by the next run of any chapter.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from tqdm import tqdm

from ebmbook import inputs
from ebmbook.claims import LedgerError, parse_results
from ebmbook.press import notebooks, outputs
from ebmbook.press.children import Children, execute, rounding, side_by_side, why_no_results
from ebmbook.press.notebooks import CLAIMS, BookError
from ebmbook.press.variants import Variant
from ebmbook.press.work import alone, clear


def run_chapters(names: list[str], variant: Variant, jobs: int = 1) -> list[str]:
    """Run those of the chapters that changed since their last run; returns their names.

    Raises:
        BookError: names every chapter whose data are missing, and then nothing is run; or every
            chapter that failed, its cell and its error.
    """
    clear()
    stale = []
    for name in names:
        _failed_path(name, variant).unlink(missing_ok=True)
        run = _of_same_code(name, variant)
        if run is None:
            stale.append(name)
        elif _is_of_its_page(name, run):
            tqdm.write(f"{name}: unchanged, not run again", file=sys.stderr)
        else:
            notebooks.write(notebooks.renewed(name, run), variant.folder / f"{name}.ipynb")
            tqdm.write(f"{name}: same code, its words and verdicts are new", file=sys.stderr)
    _require_data(stale, variant)
    failures = []
    with side_by_side(max(1, min(jobs, len(stale)))) as (pool, children):
        futures = [
            pool.submit(run_chapter, name, variant, i % jobs, children)
            for i, name in enumerate(sorted(stale, key=_n_measures, reverse=True))
        ]
        for future in futures:
            try:
                future.result()
            except BookError as error:
                failures.append(str(error))
    if failures:
        raise BookError("\n".join(failures))
    return stale


def _n_measures(name: str) -> int:
    """How much a chapter's record has measured; what measures more takes longer, as a rule.

    Begun first, the longest leave no core idle at the end. A chapter without a record may be such.
    """
    path = notebooks.record_path(name)
    try:
        return len(notebooks.results_of(notebooks.read(path), path.name)["measures"])
    except (BookError, LedgerError):
        return sys.maxsize


def _require_data(names: list[str], variant: Variant) -> None:
    """Look for the data of all chapters before the first is run.

    Raises:
        BookError: names every chapter whose data are missing.
    """
    missing = []
    for name in names:
        try:
            given = notebooks.parameters(name) | variant.parameters
            inputs.require(name, variant.profile, given, CLAIMS)
        except LedgerError as error:
            missing.append(f"{error}; nothing was run")
    if missing:
        raise BookError("\n".join(missing))


def has_run(chapter: str, variant: Variant) -> bool:
    """Whether a run of the chapter, of whatever code, is in place with its results."""
    notebook = variant.folder / f"{chapter}.ipynb"
    return notebook.is_file() and _results_path(chapter, variant).is_file()


def results_of_run(chapter: str, variant: Variant) -> dict[str, Any]:
    """The results that a run left, which must be those of the notebook beside it.

    Raises:
        LedgerError: they are damaged.
        BookError: they are of another run.
    """
    path = _results_path(chapter, variant)
    results = parse_results(path.read_text(), path.name)
    notebook = variant.folder / f"{chapter}.ipynb"
    if results != notebooks.results_of(notebooks.read(notebook), notebook.name):
        raise BookError(f"{path.name} is not of the run that left {notebook.name}; run it again")
    return results


def _results_path(chapter: str, variant: Variant) -> Path:
    return variant.folder / "results" / f"{chapter}.json"


def is_fresh(chapter: str, variant: Variant) -> bool:
    """Whether the chapter's last run is whole and of the present source, code, data and claims."""
    run = _of_same_code(chapter, variant)
    return run is not None and _is_of_its_page(chapter, run)


def _of_same_code(chapter: str, variant: Variant) -> NotebookNode | None:
    """The chapter's last run, if a new one could differ in words and verdicts alone."""
    path = variant.folder / f"{chapter}.ipynb"
    if not has_run(chapter, variant):
        return None
    try:
        run = notebooks.read(path)
        stamp = run.metadata["ebmref"]
        same = all(stamp[name] == value for name, value in _asked(variant).items())
        read = stamp["results"].get("data", {})
        made_by = {name: stamp[name] for name in ("key", "look")}
        if outputs.faults(chapter, run):
            return None
    except (BookError, LedgerError, KeyError):
        return None
    now = notebooks.keys_of(chapter, variant.profile, variant.parameters)
    return run if same and made_by == now and not inputs.changed(read) else None


def _is_of_its_page(chapter: str, run: NotebookNode) -> bool:
    return notebooks.is_of_its_words(chapter, run) and notebooks.is_of_its_verdicts(chapter, run)


def _asked(variant: Variant) -> dict[str, Any]:
    """What a run was asked to be: its parameters, its device if any, and how it is to round."""
    return {
        "parameters": variant.parameters,
        "device": os.environ.get("EBMREF_DEVICE", ""),
        "rounding": rounding(os.environ),
    }


def _failed_path(chapter: str, variant: Variant) -> Path:
    """Where the notebook of a failed run is left to be looked at."""
    return variant.folder / f"{chapter}.failed.ipynb"


def run_chapter(chapter: str, variant: Variant, place: int, children: Children) -> None:
    """Run one chapter and install its notebook and results, unless another process just did.

    Args:
        place: the line of its progress bar.
        children: among which its process counts while it runs.

    Raises:
        BookError: it failed; names the chapter, the cell and the error.
    """
    try:
        with alone(variant.folder / chapter, chapter, children.ended) as (work, lock):
            if _of_same_code(chapter, variant) is not None:
                tqdm.write(f"{chapter}: another run made it, not run again", file=sys.stderr)
                return
            began = time.monotonic()
            # Before the run, so that an edit made while it runs is seen by the next one.
            stamp = notebooks.keys_of(chapter, variant.profile, variant.parameters)
            stamp |= _asked(variant)
            draft = work / f"{chapter}.ipynb"
            notebooks.write(notebooks.draft(chapter), draft)
            error = execute(draft, variant, lock=lock, children=children, place=place)
            if error:
                raise BookError(f"{chapter}: {error}{_keep_failed(draft, chapter, variant)}")
            results = work / f"{chapter}.json"
            if not results.is_file():
                raise BookError(f"{chapter}: {why_no_results(work)}")
            executed = notebooks.normalise(notebooks.read(draft))
            executed.metadata["ebmref"] = stamp | {"results": json.loads(results.read_text())}
            outputs.seal(executed)
            notebooks.write(executed, draft)
            _install(results, draft, variant)
    except OSError as error:
        raise BookError(f"{chapter}: not run: {error.strerror or error}") from None
    tqdm.write(f"{chapter}: {time.monotonic() - began:.0f} s", file=sys.stderr)


def _keep_failed(draft: Path, chapter: str, variant: Variant) -> str:
    """Leave the notebook of a failed run to be looked at; says where, if it is whole."""
    try:
        notebooks.read(draft)
    except BookError:
        return ""
    failed = _failed_path(chapter, variant)
    draft.replace(failed)
    return f" (the notebook up to there: {os.path.relpath(failed)})"


def _install(results: Path, notebook: Path, variant: Variant) -> None:
    """Rename a run's two files into their places, both or none.

    Between the two renames the notebook's key is not yet there: a run killed then is not fresh.
    """
    place = _results_path(results.stem, variant)
    place.parent.mkdir(exist_ok=True)
    before = results.with_suffix(".before")
    if place.exists():
        place.replace(before)
    try:
        results.replace(place)
        notebook.replace(variant.folder / notebook.name)
    except OSError:
        place.unlink(missing_ok=True)
        if before.exists():
            before.replace(place)
        raise
