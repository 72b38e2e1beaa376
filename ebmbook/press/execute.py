"""Execute one notebook in this process: the child end of `ebmbook.press.children`.

Prints a line of JSON per finished cell, for each line on a cell's stderr, and for the error that
ended it.
"""

import json
import os
import signal
import sys
import time
from threading import Thread

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from ebmbook import ENDINGS, INTERRUPTED


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def report(**message) -> None:
    """Tell the parent."""
    print(json.dumps(message), flush=True)


class Whispers:
    """Where cells' stderr goes, which is their progress bars: line by line to the parent."""

    def write(self, text: str) -> None:
        if line := last_line(text.replace("\r", "\n")):
            report(said=line)

    def flush(self) -> None:
        """Nothing is held back."""


def follow_parent() -> None:
    """End, and the kernel with it, when the parent does: its end of our stdin closes then."""
    # Not sys.stdin: a thread that waits in it would hold up the exit of this process.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    # A kernel ends by itself when we are gone.
    time.sleep(20)
    os._exit(INTERRUPTED)


def main(path: str, cwd: str, parameters: str) -> int:
    """Run the notebook at `path` in place, with the folder `cwd` as its own."""
    # A polite kill must end the kernel as well: let it unwind like an interrupt.
    for how in ENDINGS:
        signal.signal(how, signal.default_int_handler)
    Thread(target=follow_parent, daemon=True).start()
    if tree := os.environ.get("EBMREF_TREE"):  # the packages that the kernel is to import
        os.environ["PYTHONPATH"] = tree
    try:
        papermill.execute_notebook(
            path,
            path,
            parameters=json.loads(parameters),
            kernel_name="python3",
            cwd=cwd,
            progress_bar=False,
            record_timing=False,
            stderr_file=Whispers(),
            on_cell_executed=lambda cell, cell_index, execute_reply: report(cell=cell_index),
        )
    except papermill.PapermillExecutionError as error:
        what = last_line(f"{error.ename}: {error.evalue}".replace("\n", " "))
        report(error=f"cell {error.cell_index + 1} raised {what}")
        return 1
    except CellTimeoutError as error:
        report(error=f"a cell ran out of time: {last_line(str(error))}")
        return 1
    except DeadKernelError:
        report(error="the kernel died (out of memory?)")
        return 1
    except OSError as error:
        report(error=f"not written: {error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    # The kernel must not print its own paths or warnings into the record.
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main(*sys.argv[1:]))
