"""Which places of the code a kernel came through: the half of `press.carry` that runs there.

Python's own tracing, instruction by instruction, in the files and functions that are asked for
and nowhere else; what runs because a module is read is left out. Of each conditional jump it is
noted whether it went one way or both.

The file stands alone: it runs in kernels of earlier trees too.
"""

import json
import linecache
import opcode
import os
import sys
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path

# For each file, or cell: by code and instruction, the instructions that came next.
_seen: dict[str, dict[tuple, set[int]]] = {}
_called: dict[str, set[int]] = {}
_names: dict = {}


def start(files: dict[str, list[list[int]]], cells: dict[str, str]) -> None:
    """Begin to note what runs.

    Args:
        files: for each file the first and last lines of what is of interest.
        cells: for the source of a cell the name under which it is noted.
    """

    n_reading = 0  # modules that are being read

    def name_of(code) -> str | None:
        if code.co_filename in files:
            inside = any(a <= code.co_firstlineno <= b for a, b in files[code.co_filename])
            return code.co_filename if inside else None
        if code.co_filename.endswith(".py") and os.path.exists(code.co_filename):
            return None
        return cells.get("".join(linecache.getlines(code.co_filename)).strip("\n"))

    def leave(frame, event, argument):
        nonlocal n_reading
        n_reading -= event == "return"
        return leave

    def enter(frame, event, argument):
        nonlocal n_reading
        code = frame.f_code
        if code.co_name == "<module>" and os.path.exists(code.co_filename):
            n_reading += 1
            frame.f_trace_lines = False
            return leave
        if n_reading:  # what makes a constant says nothing of who uses it
            return None
        # Code of one text is equal in two files.
        known = (code.co_filename, code)
        if known not in _names:
            _names[known] = name_of(code)
        name = _names[known]
        if name is None:
            return None
        seen = _seen.setdefault(name, {})
        if code.co_flags & CO_OPTIMIZED and not code.co_name.startswith("<"):
            _called.setdefault(name, set()).add(code.co_firstlineno)
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        last = None

        def each(frame, event, argument):
            nonlocal last
            if event == "opcode":
                at = frame.f_lasti
                seen.setdefault((code, at), set())
                if last is not None:
                    seen[code, last].add(at)
                last = at
            return each

        return each

    threading.settrace(enter)
    sys.settrace(enter)


def stop(path: str) -> None:
    """End, and leave the places as JSON: `{name: [[line, end line, column, end column, ways]]}`.

    The ways that an instruction went on count for conditional jumps alone, of others they are 0.
    Of a function that was called there is its first line, with zeros.
    """
    sys.settrace(None)
    threading.settrace(None)
    told = {name: {(line, 0, 0, 0, 0) for line in lines} for name, lines in _called.items()}
    positions: dict = {}
    for name, instructions in _seen.items():
        for (code, at), came_next in instructions.items():
            if code not in positions:
                positions[code] = [*code.co_positions()]
            line, end_line, column, end_column = positions[code][at // 2]
            if None not in (line, end_line, column, end_column):
                ways = min(len(came_next), 2) if _is_condition(code, at) else 0
                found = line, end_line, column, end_column, ways
                told.setdefault(name, set()).add(found)
    Path(path).write_text(json.dumps({name: sorted(found) for name, found in told.items()}))


def _is_condition(code, at: int) -> bool:
    name = opcode.opname[code.co_code[at]]
    return "JUMP" in name and "_IF_" in name
