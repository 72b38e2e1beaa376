"""Waiting for something, and looking whether a process lives."""

import time
from pathlib import Path


def wait_for(condition, seconds: float = 120) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and that nobody has asked after does not."""
    state = _stat(pid)
    return bool(state) and state[0] != "Z"


def parent(pid: int) -> int:
    """The process that started it."""
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """State, parent, and what follows; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
