"""Work folders: where something is made alone, and swept when its maker was killed."""

import fcntl
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TextIO

from tqdm import tqdm

from ebmbook.press.notebooks import RUNS

LOCKS = RUNS.parent / "locks"


@contextmanager
def alone(place: Path, label: str, ended: Event) -> Iterator[tuple[Path, TextIO]]:
    """An empty work folder and its lock, once no other process is at work in it.

    Args:
        place: what is made; the work folder stands beside it, hidden.
        label: what to call it when somebody has to wait for it.
        ended: set by an interrupt, which ends the waiting.

    Raises:
        KeyboardInterrupt: the run was ended while it waited.
    """
    work = place.with_name(f".{place.name}")
    told = False
    while (lock := _lock(work)) is None:
        if not told:
            tqdm.write(f"{label}: waiting for another run of it", file=sys.stderr)
            told = True
        if ended.wait(0.2):
            raise KeyboardInterrupt
    with lock:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work, lock
        finally:
            shutil.rmtree(work, ignore_errors=True)


def clear() -> None:
    """Remove the work folders of what was killed: nobody holds their locks."""
    for work in RUNS.glob("*/.*/"):
        if (lock := _lock(work)) is not None:
            with lock:
                shutil.rmtree(work, ignore_errors=True)


def _lock(work: Path) -> TextIO | None:
    """The lock of a work folder, held until this file is closed; None while another has it.

    A process that inherits the file holds it as well; death, of whatever kind, lets go.
    """
    # Not in the folder: who waits for a lock must find the file that the holder has.
    path = LOCKS / f"{work.parent.name}{work.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
