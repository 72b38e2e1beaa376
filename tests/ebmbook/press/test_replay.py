"""nbval passes on a sound record and fails on each kind of unsound one, whoever answers it: the
run just made, or a kernel."""

import os
import subprocess
import sys
from pathlib import Path
from queue import Empty

import nbformat
import pytest
from nbformat import v4

from ebmbook.press import outputs
from ebmbook.press.replay import Replay

ROOT = Path(__file__).resolve().parents[3]
NBVAL = ["-p", "no:cacheprovider", "-W", "default", "--nbval-lax", "--nbval-current-env"]
REPLAY = ["-p", "ebmbook.press.replay"]
BY_RUN = "01-one.ipynb: answered by its run"
BY_KERNEL = "01-one.ipynb: answered by a kernel"


def nbval(book, *args: str) -> subprocess.CompletedProcess:
    """Judge the first chapter's record, as `make nbval` does; without REPLAY: with FRESH=1."""
    return book.shell(sys.executable, "-m", "pytest", "-q", *NBVAL, *args, "book/01-one.ipynb")


def code_cells(path: Path) -> tuple[nbformat.NotebookNode, list[nbformat.NotebookNode]]:
    """A notebook and its code cells."""
    notebook = nbformat.read(path, as_version=4)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


def drop_the_draws(path: Path) -> None:
    """Take the cell that starts the chapter out of a notebook."""
    notebook, code = code_cells(path)
    notebook.cells.remove(code[1])
    nbformat.write(notebook, path)


def test_silent_on_a_sound_record(copy_of_judged):
    """Nothing is executed for it: no results are written; and workers tell who answered."""
    book = copy_of_judged
    for args in ([], ["-n", "1", "--dist", "loadscope"]):
        done = nbval(book, *REPLAY, *args)
        assert done.returncode == 0, done.stdout
        assert BY_RUN in done.stdout and "4 passed" in done.stdout
    assert not (book.root / "book" / "results").exists()


def test_empty_lines_around_a_cell_say_nothing(copy_of_judged):
    """As for the records' own checks: such a record is of its source, and its run answers."""
    record = copy_of_judged.record("01-one")
    notebook, code = code_cells(record)
    code[1].source = "\n" + code[1].source
    nbformat.write(notebook, record)
    done = nbval(copy_of_judged, *REPLAY)
    assert BY_RUN in done.stdout and "4 passed" in done.stdout


def test_silent_on_a_sound_record_in_a_kernel(copy_of_judged):
    """Without the plugin, as ever, though there is a fresh run."""
    done = nbval(copy_of_judged)
    assert done.returncode == 0, done.stdout
    assert "answered" not in done.stdout and "4 passed" in done.stdout
    assert (copy_of_judged.root / "book" / "results" / "01-one.json").is_file()


def test_make_asks_for_a_kernel():
    """FRESH=1 takes the plugin away, and nothing else."""
    # Whatever the make was told that runs these tests.
    told = ("FRESH", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES")
    plain = {name: value for name, value in os.environ.items() if name not in told}
    usual, fresh = (
        subprocess.run(
            ["make", "-n", "nbval", *args],
            cwd=ROOT, env=plain, capture_output=True, text=True, check=True,
        ).stdout
        for args in ([], ["FRESH=1"])
    )  # fmt: skip
    assert " ".join(REPLAY) in usual and " ".join(REPLAY) not in fresh
    assert usual.replace(" ".join(REPLAY), "").split() == fresh.split()


@pytest.mark.parametrize("args, who", [(REPLAY, BY_RUN), ([], "")], ids=["replay", "kernel"])
def test_rings_when_a_verdict_is_altered(copy_of_judged, args, who):
    book = copy_of_judged
    book.edit(book.record("01-one"), "claim-one: reproduced", "claim-one: refuted")
    done = nbval(book, *args)
    assert done.returncode == 1 and who in done.stdout
    assert "1 failed, 3 passed" in done.stdout and "claim-one: refuted" in done.stdout


def test_rings_when_a_cell_is_missing(copy_of_judged):
    """A run of more cells cannot speak for the record, whose cells a kernel executes."""
    drop_the_draws(copy_of_judged.record("01-one"))
    done = nbval(copy_of_judged, *REPLAY)
    assert done.returncode == 1 and BY_KERNEL in done.stdout
    assert "NameError" in done.stdout


def test_rings_when_a_run_has_an_error(copy_of_judged):
    """As a kernel's error would; and one that came into it later has a kernel asked."""
    path = copy_of_judged.run_folder() / "01-one.ipynb"
    notebook, code = code_cells(path)
    error = {"ename": "ValueError", "evalue": "no", "traceback": ["cell 3 went wrong"]}
    code[2].outputs.append(v4.new_output("error", **error))
    nbformat.write(notebook, path)
    assert BY_KERNEL in nbval(copy_of_judged, *REPLAY).stdout
    outputs.seal(notebook)
    nbformat.write(notebook, path)
    done = nbval(copy_of_judged, *REPLAY)
    assert done.returncode == 1 and BY_RUN in done.stdout
    assert "1 failed, 3 passed" in done.stdout and "cell 3 went wrong" in done.stdout


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("    n = None\n", "    n = None + 1\n", "TypeError"),
        ("    value = float(value)\n", "    value = float(value) + 2\n", "OPEN"),
    ],
    ids=["a chapter raises", "a number leaves its threshold"],
)
def test_rings_when_the_package_changed(copy_of_judged, old, new, words):
    """The run is of other code, the record still says reproduced: a kernel finds out."""
    copy_of_judged.edit(copy_of_judged.root / "ebmbook/ledger.py", old, new)
    done = nbval(copy_of_judged, *REPLAY)
    assert done.returncode == 1 and BY_KERNEL in done.stdout
    assert words in done.stdout


def test_rings_when_a_threshold_changed(copy_of_judged):
    """The run is of this code, and yet not fresh: its verdicts are not those of the claims."""
    book = copy_of_judged
    book.edit(book.claims("01-one"), "tolerance: 1\n", "tolerance: 0.000001\n")
    done = nbval(book, *REPLAY)
    assert done.returncode == 1 and BY_KERNEL in done.stdout
    assert "OPEN" in done.stdout


def test_a_run_answers_for_its_record_alone(copy_of_judged):
    """Not for a notebook of the same name elsewhere, in a profile that was not run, with another
    cell, once a cell of the run is gone, or the source or a verdict was edited."""
    book = copy_of_judged
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ebmbook.press import notebooks, replay\n"
        "record = notebooks.record_path('01-one')\n"
        "cells = [cell for cell in notebooks.read(record).cells if cell.cell_type == 'code']\n"
        "if sys.argv[1] == 'edited':\n"
        "    cells[1].source += ' '\n"
        "path = Path('01-one.ipynb').resolve() if sys.argv[1] == 'elsewhere' else record\n"
        "print(replay.answers(path, cells) is not None)\n"
    )

    def answered(*how: str, profile: str = "quick") -> bool:
        command = ["env", f"EBMREF_PROFILE={profile}", sys.executable, "-c", code, *(how or [""])]
        done = book.shell(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip() == "True"

    assert answered()
    assert not answered("elsewhere") and not answered("edited")
    run, source = book.run_folder() / "01-one.ipynb", book.source("01-one")
    (book.run_folder("full") / "01-one.ipynb").unlink()
    assert not answered(profile="full")
    whole = run.read_bytes()
    drop_the_draws(run)
    assert not answered()
    run.write_bytes(whole)
    assert answered()
    book.edit(source, "Some prose", "Other prose")
    assert not answered()
    book.edit(source, "Other prose", "Some prose")
    assert answered()
    book.edit(book.claims("01-one"), "verdict: reproduced", "verdict: corrected")
    assert not answered()


def test_replay_speaks_as_a_kernel_does():
    """All kinds of messages, each with the id of its cell, from busy to idle."""
    outputs = [
        v4.new_output("stream", name="stdout", text="a\n"),
        v4.new_output("display_data", data={"text/plain": "b"}),
        v4.new_output("execute_result", data={"text/plain": "c"}, execution_count=2),
        v4.new_output("error", ename="E", evalue="e", traceback=["t"]),
    ]
    cells = [v4.new_code_cell(text) for text in ("x = 1", "skipped", "x", "x = 2")]
    cells[2].outputs = outputs
    kernel = Replay(cells)
    asked = kernel.execute_cell_input("x = 1")
    assert [kernel.get_message("iopub")["content"] for _ in range(2)] == [
        {"execution_state": "busy"},
        {"execution_state": "idle"},
    ]
    with pytest.raises(Empty):
        kernel.get_message("iopub")
    other = kernel.execute_cell_input("x")
    kernel.await_reply(other)
    said = [kernel.get_message("iopub") for _ in range(6)]
    assert {message["parent_header"]["msg_id"] for message in said} == {other} != {asked}
    kinds = ["status", "stream", "display_data", "execute_result", "error", "status"]
    assert [message["msg_type"] for message in said] == kinds
    assert [message["content"] for message in said[1:5]] == outputs
    kernel.execute_cell_input("x = 2")
    kernel.await_idle("3", timeout=1)
    with pytest.raises(Empty):
        kernel.get_message("iopub")
    # Nothing is ahead any more: neither an earlier cell nor another.
    for source in ("x", "y"):
        with pytest.raises(RuntimeError, match="no such cell"):
            kernel.execute_cell_input(source)
    assert kernel.is_alive()
