"""Which files of data a run reads, told by their content: a part of what its numbers depend on.

They are looked up in the folder that `$EBMREF_DATA` names, wherever that is. Which sets a chapter
is going to read stands in `book/data.yml`.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ebmbook.claims import LedgerError, find_claims

DOWNLOAD = "download"  # the parameter that asks for what is missing

_read: set[Path] = set()
_watching = False


def folder() -> Path | None:
    """The folder of data, or None."""
    named = os.environ.get("EBMREF_DATA")
    return Path(named).expanduser().resolve() if named else None


def require(
    chapter: str, profile: str, parameters: Mapping[str, Any], claims: Path | None = None
) -> None:
    """Look whether the sets are there that a chapter is going to read.

    Nothing is looked for where no `data.yml` lies beside the claims, as with a notebook alone.

    Args:
        parameters: the chapter's, by name; more names do no harm.
        claims: the folder of claims; None: looked for, see `ebmbook.claims.find_claims`.

    Raises:
        LedgerError: one of them is missing; the message says which, and how to get it.
    """
    claims = claims or find_claims()
    path = claims.parent / "data.yml" if claims else None
    if path is None or not path.is_file() or parameters.get(DOWNLOAD):
        return
    for name, usual in yaml.safe_load(path.read_text(encoding="utf-8")).get(chapter, {}).items():
        wanted = parameters.get(name) or usual.get(profile)
        if wanted is None:
            continue
        from ebmref import data  # torch takes seconds to import

        try:
            # torchvision looks for all files of a set, whichever part is asked for.
            data.pictures(wanted, "test")
        except (FileNotFoundError, ValueError) as error:
            raise LedgerError(f"{chapter}: the {profile} profile reads {error}") from None


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
