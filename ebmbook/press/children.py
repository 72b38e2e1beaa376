"""The child process that executes a notebook, and what of its progress is shown."""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import TextIO

from tqdm import tqdm

from ebmbook import INTERRUPTED
from ebmbook.press import notebooks
from ebmbook.press.notebooks import BOOK, CHECKPOINTS, CLAIMS
from ebmbook.press.variants import Variant

COMPLAINTS = "stderr.txt"  # of the child, beside the draft


def in_short(said: str) -> str:
    """A line of a cell's stderr within the chapter's bar; of a bar its words and numbers."""
    words, *_, numbers = said.split("|") if "|" in said else (said, "")
    return f"{words.rstrip()} {numbers.strip()}".strip()[:60]


def execute(
    draft: Path,
    variant: Variant,
    *,
    lock: TextIO | None = None,
    book: Path = BOOK,
    more: dict[str, str] | None = None,
    children: list[subprocess.Popen] | None = None,
    ended: Event | None = None,
    place: int | None = 0,
) -> str:
    """Execute a draft in place; returns the error, or "".

    Args:
        lock: held by the child, too.
        book: the folder that it runs in.
        more: of its environment.
        children: where its process is entered while it runs, so that an interrupt can end it.
        ended: set by that interrupt.
        place: the line of its progress bar; None: no bar.

    Raises:
        KeyboardInterrupt: it was ended.
    """
    n_cells = len(notebooks.read(draft).cells)
    child = start(draft, variant, lock, book, more)
    entered = [] if children is None else children
    entered.append(child)
    if ended is not None and ended.is_set():
        child.terminate()
    error = _follow(child, draft, place, n_cells)
    entered.remove(child)
    if ended is not None and ended.is_set():
        raise KeyboardInterrupt
    return error


def why_no_results(work: Path) -> str:
    """What a chapter that ran to its end did wrong."""
    if others := [path.stem for path in work.glob("*.json")]:
        return f"its ledger.start names {others[0]!r}; it must name the chapter, as its file does"
    return "the last cell must call ledger.verdicts()"


def start(
    draft: Path, variant: Variant, lock: TextIO | None, book: Path = BOOK, more: dict | None = None
) -> subprocess.Popen:
    """Start the child process that executes the draft.

    It holds the lock too, and ends when its stdin does: at the latest when this process dies.
    """
    environment = os.environ | {
        "EBMREF_PROFILE": variant.profile,
        "EBMREF_RESULTS": str(draft.parent),
        "EBMREF_CLAIMS": str(CLAIMS),
        "EBMREF_CHECKPOINTS": os.environ.get("EBMREF_CHECKPOINTS") or str(CHECKPOINTS),
        "PYTHONPATH": notebooks.python_path(),
    }
    command = [sys.executable, "-m", "ebmbook.press.execute", str(draft), str(book)]
    command.append(json.dumps(variant.parameters))
    with (draft.parent / COMPLAINTS).open("w") as complaints:
        return subprocess.Popen(
            command,
            env=environment | (more or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            pass_fds=[lock.fileno()] if lock else [],
            text=True,
        )


def _follow(child: subprocess.Popen, draft: Path, place: int | None, n_cells: int) -> str:
    """Show the child's progress until it ends; returns its error, or ""."""
    error = ""
    with (
        child,
        tqdm(
            total=n_cells,
            desc=draft.stem,
            unit="cell",
            position=place or 0,
            leave=False,
            disable=place is None or not sys.stderr.isatty(),
        ) as bar,
    ):
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
        complaints = (draft.parent / COMPLAINTS).read_text()
        said = [line.strip() for line in complaints.splitlines() if line.strip()]
        error = f"the run ended with status {status}" + (f": {said[-1]}" if said else "")
    return error
