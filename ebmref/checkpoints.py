"""Checkpoints of long training: written whole or not at all, checked before they are believed."""

import os
import tempfile
import zipfile
from pathlib import Path

import torch


def write(path: Path, state: dict) -> None:
    """Put `state` where `path` says; a reader meets the old file or the new one, never a half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read(path: Path, device: torch.device) -> dict:
    """A checkpoint as it was written.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # PyTorch reads a damaged tensor without a word
        state = torch.load(path, map_location=device, weights_only=True)
        if damaged is None and isinstance(state, dict):
            return state
        reason = f"{damaged or 'its content'} is damaged"
    except Exception as error:  # what unpickling damaged bytes raises can be anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
    raise ValueError(f"checkpoint {path}: missing or damaged ({reason})")
