"""Which files of data a run reads, told by their content: a part of what its numbers depend on.

They are looked up in the folder that `$EBMREF_DATA` names, wherever that is.
"""

import hashlib
import os
import sys
from pathlib import Path

_read: set[Path] = set()
_watching = False


def folder() -> Path | None:
    """The folder of data, or None."""
    named = os.environ.get("EBMREF_DATA")
    return Path(named).expanduser().resolve() if named else None


def watch() -> None:
    """Begin to note the files of the data folder that this process opens, none so far."""
    global _watching
    _read.clear()
    if not _watching:
        sys.addaudithook(_note)
        _watching = True


def _note(event: str, args: tuple) -> None:
    if event == "open" and isinstance(args[0], str | os.PathLike):
        root = os.environ.get("EBMREF_DATA")
        if root:
            path = Path(os.path.abspath(os.path.expanduser(args[0])))
            if path.is_relative_to(os.path.abspath(os.path.expanduser(root))):
                _read.add(path)


def read() -> dict[str, str]:
    """The files that were opened since `watch`: path inside the folder, and digest."""
    root = folder()
    files = sorted(path.resolve() for path in _read if path.is_file())
    return {
        path.relative_to(root).as_posix(): digest(path)
        for path in files
        if root is not None and path.is_relative_to(root)
    }


def changed(data: dict[str, str]) -> list[str]:
    """Of files that a run read, those that are here and hold something else."""
    root = folder()
    return [
        name
        for name, was in data.items()
        if root is not None and (root / name).is_file() and digest(root / name) != was
    ]


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
