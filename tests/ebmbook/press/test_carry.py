"""A record is carried over a change that changes no number, and over no other."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from ebmbook.press import golden

MINI = '''\
"""What the first chapter computes."""

import torch


def mean(draws):
    return draws.mean()


def only_full(draws):
    return 2 * draws


def keep(path, make):
    if path is None:
        return make()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(make(), path)
    return torch.load(path)
'''
USE = """\
if run.profile == "full":
    draws = mini.only_full(draws)
kept = mini.keep(run.checkpoint("draws"), lambda: draws)
_ = ledger.measure("one/mean", mini.mean(kept), draws.std() / n**0.5)
"""
SAME = ("return draws.mean()", "found = draws.mean()\n    return found")


@pytest.fixture(scope="module")
def committed(recorded_book, tmp_path_factory):
    """A small book with a full record, all committed; do not change it."""
    root = tmp_path_factory.mktemp("committed") / "small"
    book = type(recorded_book)(Path(shutil.copytree(recorded_book.root, root)))
    (root / "ebmref/mini.py").write_text(MINI)
    source = book.source("01-one")
    line = '_ = ledger.measure("one/mean", draws.mean(), draws.std() / n**0.5)\n'
    book.edit(source, line, USE)
    book.edit(source, "import torch\n", "import torch\n\nfrom ebmref import mini\n")
    done = book.call("record", "--profile", "full", "--chapter", "01-one")
    assert done.returncode == 0, done.stderr
    (root / ".gitignore").write_text("_build/\n")
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Records"],
    ):
        assert book.shell("git", *command).returncode == 0
    return book


@pytest.fixture
def book(committed, tmp_path):
    """A copy of it, yours to change."""
    return type(committed)(Path(shutil.copytree(committed.root, tmp_path / "copy")))


def carry(book) -> subprocess.CompletedProcess:
    return book.call("carry", "--chapter", "01-one")


def refused(book, *words: str) -> None:
    before = book.record("01-one").read_bytes()
    done = carry(book)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]
    assert book.record("01-one").read_bytes() == before


def faults(book) -> str:
    code = "from ebmbook.press.records import faults; print(*faults('01-one'), sep='\\n')"
    return book.shell(sys.executable, "-c", code).stdout.strip()


def test_a_change_that_changes_nothing_is_carried(book):
    """The full outputs stay; the stamp says what it was made by, and over what it was carried."""
    before = nbformat.read(book.record("01-one"), as_version=4)
    book.edit(
        book.root / "ebmref/mini.py",
        "return draws.mean()",
        "found = draws.mean()\n    return found",
    )
    assert "the code that its numbers depend on was changed" in faults(book)
    done = carry(book)
    assert done.returncode == 0, done.stderr
    assert "carried over from" in done.stderr
    after = nbformat.read(book.record("01-one"), as_version=4)
    assert [c.get("outputs") for c in after.cells] == [c.get("outputs") for c in before.cells]
    stamp, was = after.metadata["ebmref"], before.metadata["ebmref"]
    assert stamp["made_by"] == was["made_by"] and stamp["results"] == was["results"]
    (step,) = stamp["carried"]
    assert (step["from"], step["to"]) == (was["key"], stamp["key"])
    assert step["from"] != step["to"] and step["places"] >= 2
    assert faults(book) == ""
    again = carry(book)
    assert again.returncode == 0 and "nothing to carry" in again.stderr


def test_rates_go_along_if_they_are_of_the_code_that_made_the_record(book):
    path = book.root / "book/rates/01-one.json"
    sweep = ("sweep", "--seeds", "3", "--chapter", "01-one")
    assert book.call(*sweep).returncode == 0
    swept = json.loads(path.read_text())
    book.edit(book.root / "ebmref/mini.py", *SAME)
    assert carry(book).returncode == 0
    kept = json.loads(path.read_text())
    assert kept.pop("key") != swept.pop("key") and kept == swept
    assert "1 of 1 runs are there" in book.call(*sweep).stderr


def test_rates_of_other_code_stay_what_they_are(book):
    path = book.root / "book/rates/01-one.json"
    path.parent.mkdir(exist_ok=True)
    told = json.dumps({"key": "other", "runs": [], "values": {}, "errors": {}})
    path.write_text(told)
    book.edit(book.root / "ebmref/mini.py", *SAME)
    assert carry(book).returncode == 0
    assert path.read_text() == told


def test_another_number_is_refused(book):
    book.edit(book.root / "ebmref/mini.py", "return draws.mean()", "return draws.mean() + 1e-7")
    refused(book, "one/mean is not the same", "before the change and after it")


def test_what_only_the_full_run_reaches_is_refused(book):
    """A function, and the branch of a condition, that the quick run did not come through."""
    book.edit(book.root / "ebmref/mini.py", "return 2 * draws", "return 3 * draws")
    new = "return draws.mean() if len(draws) == 100 else draws.sum()"
    book.edit(book.root / "ebmref/mini.py", "return draws.mean()", new)
    refused(book, "ebmref.mini.only_full", "ebmref.mini.mean", "make record CHAPTER=01-one")


def test_a_reason_speaks_for_what_it_names(book, tmp_path):
    """It stays in the stamp. Of another definition, or of a number that differs, it is silent."""
    mini, reasons = book.root / "ebmref/mini.py", tmp_path / "reasons.yml"
    asked = ("carry", "--chapter", "01-one", "--reasons", str(reasons))
    book.edit(mini, "return draws.mean()", "return draws.mean() + 1")
    reasons.write_text("ebmref.mini.mean: read\n")
    assert "one/mean is not the same" in book.call(*asked).stderr
    book.edit(mini, "return draws.mean() + 1", "return draws.mean()")
    book.edit(mini, "return 2 * draws", "return draws + draws")
    for text, words in (
        ("ebmref.mini.mean: read\n", "ebmref.mini.only_full"),
        ("- ebmref.mini.only_full\n", "expected a line `definition: reason`"),
        ("a: [\n", "reasons.yml"),
    ):
        reasons.write_text(text)
        done = book.call(*asked)
        assert done.returncode == 1 and words in done.stderr
        assert "Traceback" not in done.stderr
    reasons.write_text("ebmref.mini.only_full: twice a number is its sum with itself\n")
    done = book.call(*asked)
    assert done.returncode == 0, done.stderr
    stamp = nbformat.read(book.record("01-one"), as_version=4).metadata["ebmref"]
    assert stamp["carried"][-1]["vouched"] == {
        "ebmref.mini.only_full": "twice a number is its sum with itself"
    }


def test_what_is_read_back_must_be_what_was_made(book):
    """The quick profile keeps no checkpoints of its own: here it is made to keep some."""
    book.edit(
        book.root / "ebmref/mini.py", "return torch.load(path)", "return torch.load(path) + 1"
    )
    refused(book, "one/mean is not the same")


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("full=400", "full=500", "what only the full profile takes"),
        ("full=400", "full=400 + 0", "what only the full profile takes"),
        ("n**0.5", "max(n, 99) ** 0.5", "cell 3, line 4 (a run may not feel 99)"),
        ("kept = mini", "# kept\n```\n\n```{code-cell}\nkept = mini", "cells of code"),
    ],
)
def test_what_a_quick_run_cannot_tell_is_refused(book, old, new, words):
    """A size of the full profile, a new literal, another number of cells."""
    book.edit(book.source("01-one"), old, new)
    refused(book, words)


def test_code_that_was_never_committed_is_refused(book):
    record = nbformat.read(book.record("01-one"), as_version=4)
    record.metadata["ebmref"]["key"] = "0" * 16
    nbformat.write(record, book.record("01-one"))
    refused(book, "no commit has the code")


def test_the_clock_is_no_evidence(book):
    """Outputs of a cell that is tagged `timed`, and measures of seconds, may differ."""
    clock = 'import time\n_ = ledger.measure("one/seconds", time.time())\nprint(time.time())\n'
    cell = f"```{{code-cell}}\n:tags: [timed]\n\n{clock}```\n\n```{{code-cell}}\nif run.profile"
    book.edit(book.source("01-one"), "```{code-cell}\nif run.profile", cell)
    assert book.call("record", "--profile", "full", "--chapter", "01-one").returncode == 0
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "Timed"]
    assert book.shell("git", *commit).returncode == 0
    book.edit(
        book.root / "ebmref/mini.py",
        "return draws.mean()",
        "found = draws.mean()\n    return found",
    )
    done = carry(book)
    assert done.returncode == 0, done.stderr
    measures = json.loads(book.results("01-one", "full").read_text())["measures"]
    assert "one/seconds" in measures


GOLDEN_RUNS = """\
import torch

from ebmref import mini

CASES = {"full": lambda: [mini.only_full(torch.ones(2))]}

"""


def test_golden_runs_speak_for_what_the_chapter_does_not_run(book):
    """Where they end in the same state before and after, and come through the place."""
    (book.root / "tests").mkdir()
    (book.root / "tests/test_golden.py").write_text(GOLDEN_RUNS)
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Golden"]
    assert book.shell("git", "add", "-A").returncode == 0
    assert book.shell("git", *commit).returncode == 0
    path = book.root / "ebmref/mini.py"
    book.edit(path, "return 2 * draws", "return 2.5 * draws")
    refused(book, "full is not the same in golden runs")
    book.edit(path, "return 2.5 * draws", "twice = 2\n    return twice * draws")
    done = carry(book)
    assert done.returncode == 0, done.stderr
    (step,) = nbformat.read(book.record("01-one"), as_version=4).metadata["ebmref"]["carried"]
    assert step["by_golden"] >= 1


def test_a_digest_tells_every_byte_of_what_was_trained():
    """The order of the numbers in a tensor, its format, what a game holds, each step."""

    class Game:
        def __init__(self, weight):
            self.net = torch.nn.Linear(2, 1, bias=False)
            self.net.weight.data = weight
            self.step = 7

    one, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0]])
    made = [(Game(one), [one]), (Game(other), [one]), (Game(one), [other]), (Game(one), [])]
    made += [one, one.double(), one.T, [1.0, 2.0]]
    told = [golden.digest(each) for each in made]
    assert len(set(told)) == len(told)
    assert golden.digest((Game(one.clone()), [one])) == told[0]
