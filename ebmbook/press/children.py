"""The child process that executes a notebook, and what of its progress is shown."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TextIO

from tqdm import tqdm

from ebmbook import INTERRUPTED
from ebmbook.press import notebooks
from ebmbook.press.notebooks import BOOK, CHECKPOINTS, CLAIMS
from ebmbook.press.variants import Variant

COMPLAINTS = "stderr.txt"  # of the child, beside the draft
# PyTorch's, oneDNN's and MKL's: what of the processor they may use, and so how they round.
SWITCHES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def rounding(environment: Mapping[str, str]) -> str:
    """What the switches say, in one word; "" of the processor as it is."""
    return "-".join(filter(None, map(environment.get, SWITCHES))).lower()


def in_short(said: str) -> str:
    """A line of a cell's stderr within the chapter's bar; of a bar its words and numbers."""
    words, *_, numbers = said.split("|") if "|" in said else (said, "")
    return f"{words.rstrip()} {numbers.strip()}".strip()[:60]


class Children:
    """The processes that run side by side, so that an interrupt can end them all."""

    def __init__(self):
        self.running: list[subprocess.Popen] = []
        self.ended = Event()

    def enter(self, child: subprocess.Popen) -> None:
        """Count a process in; one that comes too late is ended at once."""
        self.running.append(child)
        if self.ended.is_set():
            child.terminate()

    def leave(self, child: subprocess.Popen) -> None:
        """Count a process out.

        Raises:
            KeyboardInterrupt: all were ended.
        """
        self.running.remove(child)
        if self.ended.is_set():
            raise KeyboardInterrupt

    def end(self) -> None:
        """End what runs, and what is yet to be entered."""
        self.ended.set()
        for child in [*self.running]:
            child.terminate()


@contextmanager
def side_by_side(jobs: int) -> Iterator[tuple[ThreadPoolExecutor, Children]]:
    """Threads for so many runs at a time, which share the cores, and the place of their processes.

    When the block is left early, by an interrupt or an error, nothing new starts and what runs is
    ended.
    """
    # More threads than cores is slower than fewer.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    children, pool = Children(), ThreadPoolExecutor(max_workers=jobs)
    try:
        yield pool, children
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        children.end()
        pool.shutdown()


def execute(
    draft: Path,
    variant: Variant,
    *,
    lock: TextIO | None = None,
    book: Path = BOOK,
    more: dict[str, str] | None = None,
    children: Children | None = None,
    place: int | None = 0,
) -> str:
    """Execute a draft in place; returns the error, or "".

    Args:
        lock: held by the child, too.
        book: the folder that it runs in.
        more: of its environment.
        children: among which its process counts while it runs.
        place: the line of its progress bar; None: no bar.

    Raises:
        KeyboardInterrupt: it was ended.
    """
    n_cells = len(notebooks.read(draft).cells)
    children = children or Children()
    child = start(draft, variant, lock, book, more)
    children.enter(child)
    error = _follow(child, draft, place, n_cells)
    children.leave(child)
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
    environment = os.environ | (more or {})
    kept = environment.get("EBMREF_CHECKPOINTS") or str(CHECKPOINTS)
    environment |= {
        "EBMREF_PROFILE": variant.profile,
        "EBMREF_RESULTS": str(draft.parent),
        "EBMREF_CLAIMS": str(CLAIMS),
        # Trainings that round otherwise part ways: what one has trained is nothing for another.
        "EBMREF_CHECKPOINTS": os.path.join(kept, rounding(environment)),
        "PYTHONPATH": notebooks.python_path(),
    }
    command = [sys.executable, "-m", "ebmbook.press.execute", str(draft), str(book)]
    command.append(json.dumps(variant.parameters))
    with (draft.parent / COMPLAINTS).open("w") as complaints:
        return subprocess.Popen(
            command,
            env=environment,
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
