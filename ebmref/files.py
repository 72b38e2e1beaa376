"""Files written whole or not at all: under a temporary name, then renamed."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there has the name at the end.

    A reader meets the old file or the new one, never a half. Whatever ends the writing early, an
    error or an interrupt, leaves the old file and no other.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    with whole(path) as fresh:
        fresh.write_text(text, encoding="utf-8")
