"""Which places of the code a kernel came through: the half of `press.carry` that runs there.

Python's own tracing, instruction by instruction, in the files and functions that are asked for
and nowhere else.
"""

import json
import linecache
import os
import sys
import threading
from pathlib import Path

_seen: dict[str, set[tuple[int, int, int, int]]] = {}
_places: dict = {}


def start(files: dict[str, list[list[int]]], cells: dict[str, str]) -> None:
    """Begin to note what runs.

    Args:
        files: for each file the first and last lines of what is of interest.
        cells: for the source of a cell the name under which it is noted.
    """

    def names_of(code) -> str | None:
        if code.co_filename in files:
            inside = any(a <= code.co_firstlineno <= b for a, b in files[code.co_filename])
            return code.co_filename if inside else None
        if code.co_filename.endswith(".py") and os.path.exists(code.co_filename):
            return None
        return cells.get("".join(linecache.getlines(code.co_filename)).strip("\n"))

    def enter(frame, event, argument):
        code = frame.f_code
        if code not in _places:
            name = names_of(code)
            _places[code] = name and (_seen.setdefault(name, set()), [*code.co_positions()])
        if not _places[code]:
            return None
        seen, positions = _places[code]
        frame.f_trace_opcodes, frame.f_trace_lines = True, False

        def each(frame, event, argument):
            if event == "opcode":
                seen.add(positions[frame.f_lasti // 2])
            return each

        return each

    threading.settrace(enter)
    sys.settrace(enter)


def stop(path: str) -> None:
    """End, and leave the places as JSON: `{name: [[line, end line, column, end column], ...]}`."""
    sys.settrace(None)
    threading.settrace(None)
    told = {
        name: sorted([at[0], at[1], at[2], at[3]] for at in seen if None not in at)
        for name, seen in _seen.items()
    }
    Path(path).write_text(json.dumps(told))
