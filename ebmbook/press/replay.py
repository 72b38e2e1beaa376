"""nbval without a second execution: a pytest plugin that answers from the run just made.

nbval holds each cell of a record against what a kernel says when it executes the cell. Where
the chapter's run of this profile is fresh, the kernel has spoken already: papermill wrote down
its answers. `pytest -p ebmbook.press.replay` gives these to nbval in the kernel's place; nbval
compares as ever. A kernel is started where there is no such run, where the record's cells are
not the run's, and where the run's verdicts are no longer those of its claims.
"""

from collections import deque
from pathlib import Path
from queue import Empty

import pytest
from nbformat import NotebookNode
from nbval.plugin import IPyNbFile

from ebmbook.press import notebooks
from ebmbook.press.runner import is_fresh
from ebmbook.press.variants import Variant
from ebmbook.profiles import resolve_profile

# Under this name the tests' reports carry who answered; workers of xdist send it along.
ANSWERED = "answered by"


class Replay:
    """A kernel for nbval, as `nbval.kernel.RunningKernel` is, that says again what was said.

    Args:
        cells: the executed code cells of a run, in their order.
    """

    language = "python"

    def __init__(self, cells: list[NotebookNode]):
        self._ahead = iter(cells)
        self._messages: deque[dict] = deque()
        self._asked = 0

    def execute_cell_input(self, cell_input: str, allow_stdin: bool | None = None) -> str:
        """Queue what the cell's execution said; returns the id that its messages answer.

        A cell that nbval was told to skip is passed over.

        Raises:
            RuntimeError: no cell ahead has this source.
        """
        cell = next((cell for cell in self._ahead if _text(cell.source) == _text(cell_input)), None)
        if cell is None:
            raise RuntimeError("the run has no such cell; a kernel would: make nbval FRESH=1")
        self._asked += 1
        said = [
            ("status", {"execution_state": "busy"}),
            *((output.output_type, output) for output in cell.outputs),
            ("status", {"execution_state": "idle"}),
        ]
        self._messages = deque(
            {"parent_header": {"msg_id": str(self._asked)}, "msg_type": kind, "content": content}
            for kind, content in said
        )
        return str(self._asked)

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        """The next message of the cell.

        Raises:
            Empty: all was said.
        """
        if stream != "iopub" or not self._messages:
            raise Empty
        return self._messages.popleft()

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """The cell was executed before it was asked for."""

    def await_idle(self, parent_id: str, timeout: float) -> None:
        """Skip the rest of what the cell said."""
        self._messages.clear()

    def is_alive(self) -> bool:
        """It cannot die."""
        return True

    def interrupt(self) -> None:
        """Nothing runs."""

    def stop(self) -> None:
        """Nothing runs."""


def answers(record: Path, cells: list[NotebookNode]) -> Replay | None:
    """What stands in for a kernel that would execute the cells of a record; None: nothing can.

    Args:
        record: path of the notebook that is judged.
        cells: its code cells.
    """
    chapter, variant = record.stem, Variant(resolve_profile())
    if chapter not in notebooks.chapters() or record != notebooks.record_path(chapter):
        return None
    if not is_fresh(chapter, variant):
        return None
    run = notebooks.read(variant.folder / record.name)
    said = notebooks.code_cells(run)
    if [_text(cell.source) for cell in said] != [_text(cell.source) for cell in cells]:
        return None
    return Replay(said)


def _text(source: str) -> str:
    """Source as records are held to it: lines left empty around a cell say nothing."""
    return source.strip("\n")


class Record(IPyNbFile):
    """A notebook under nbval, answered by its run or by a kernel."""

    def setup(self) -> None:
        self.kernel = answers(self.path.resolve(), notebooks.code_cells(self.nb))
        if self.kernel is None:
            super().setup()
        else:
            self.setup_sanitize_files()


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    """Let nbval choose the files, and judge them as `Record`."""
    found = yield
    return [
        Record.from_parent(parent, path=file_path) if isinstance(file, IPyNbFile) else file
        for file in found
    ]


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item) -> None:
    """Once its notebook is set up: note who answers."""
    if isinstance(item.parent, Record):
        replayed = isinstance(item.parent.kernel, Replay)
        item.user_properties.append((ANSWERED, "its run" if replayed else "a kernel"))


def pytest_terminal_summary(terminalreporter) -> None:
    """A line for each notebook: whether it was executed for this."""
    answered = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, who in getattr(report, "user_properties", ()):
                if name == ANSWERED:
                    answered[report.fspath] = who
    for path, who in sorted(answered.items()):
        terminalreporter.write_line(f"{path}: answered by {who}")
