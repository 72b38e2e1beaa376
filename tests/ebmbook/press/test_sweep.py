"""Sweeps: nothing twice, nothing lost, whatever is killed; here and with dask's workers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from books import Book
from processes import alive, parent, wait_for

from ebmbook.press import sweep, tasks
from ebmbook.press.notebooks import BookError
from ebmbook.press.variants import Variant

# In place of a kernel: leaves its number and that of the run; the first waits for the file "go".
AT_WORK = """\
import select
seed = json.loads(sys.argv[3])["seed"]
with open(os.environ["HERE"], "a") as file:
    file.write(f"{seed} {os.getpid()}\\n")
while seed == int(os.environ["SLOW"]) and not os.path.exists(os.environ["GO"]):
    if select.select([0], [], [], 0.05)[0] and not os.read(0, 1):
        sys.exit("the parent is gone")
"""


class Sweep:
    """A sweep over a dry book, whose run of one seed waits until it is told to go on."""

    def __init__(self, book: Book, slow: int = -1):
        self.book = book
        self.here, self.go = book.root / "here", book.root / "go"
        self.more = {"INSTEAD": AT_WORK, "HERE": str(self.here), "GO": str(self.go)}
        self.more |= {"SLOW": str(slow)}

    def start(self, *args: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.book.command("sweep", "--chapter", "01-one", *args),
            cwd=self.book.root,
            env=self.book.environment() | self.more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *args: str) -> str:
        """What it says, once it has ended well."""
        process = self.start(*args)
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return out + said

    def began(self) -> list[tuple[int, int]]:
        """Seed and process of each run that began."""
        lines = self.here.read_text().splitlines() if self.here.is_file() else []
        return [(int(seed), int(pid)) for seed, pid in map(str.split, lines)]

    def pid_of(self, seed: int) -> int:
        assert wait_for(lambda: seed in dict(self.began()))
        return dict(self.began())[seed]

    def outcomes(self) -> list[int]:
        """The seeds whose outcomes are there, each of them whole."""
        paths = [*self.book.root.glob("_build/sweep/quick/here/01-one-*.json")]
        assert all("seconds" in json.loads(path.read_text()) for path in paths)
        return sorted(int(path.stem.rpartition("-")[2]) for path in paths)

    def lies_about(self) -> list[Path]:
        """Hidden or temporary files and folders."""
        return [path for path in (self.book.root / "_build").rglob(".*")]


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0..3", [0, 1, 2, 3]), ("7", [7]), ("5,0..2, 1", [5, 0, 1, 2]), (" 3 .. 4 ", [3, 4])],
)
def test_seeds(text, seeds):
    assert sweep.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "3..1", "-1", "1..", "0..2,,4", "1.5", "0...2", "²"])
def test_seeds_that_are_none(text):
    with pytest.raises(BookError, match="SEEDS: "):
        sweep.parse_seeds(text)


def test_machines():
    assert sweep.parse_machines("") == [""]
    assert sweep.parse_machines("avx2, default") == ["avx2", "default"]
    for text in ("sse", "avx2,", "AVX2"):
        with pytest.raises(BookError, match="MACHINES: expected some of default, avx2, avx512"):
            sweep.parse_machines(text)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--seeds", "4..2"), "SEEDS: 4..2 is empty"),
        (("--machines", "neon"), "MACHINES: expected some of"),
        (("--scheduler", "nowhere.json"), "there is no such file"),
        (("--scheduler", "local:0"), "local:N wants a number"),
        (("--scheduler", "http://here"), "expected tcp://"),
        (("--scheduler", "tcp://127.0.0.1:9"), "nothing answers at tcp://127.0.0.1:9"),
        (("--scheduler", "_toc.yml"), "not the file of a scheduler"),
        (("--parameter", "seed=3"), "a sweep takes SEEDS="),
        (("--jobs", "0"), "--jobs must be 1 or more"),
    ],
)
def test_bad_input_is_told_in_its_last_line(dry_book, args, told):
    done = dry_book.call("sweep", "--chapter", "01-one", *args)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert told in done.stderr.strip().splitlines()[-1]


def test_a_sweep_of_real_chapters(book):
    """Two seeds give two results, each its own, and rates under which the verdict holds."""
    done = book.call("sweep", "--seeds", "3..4", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "01-one: all verdicts held in 2 of 2 runs (2 seeds: 0.16 to 1.00)" in done.stdout
    found = json.loads((book.root / "book/rates/01-one.json").read_text())
    assert [run["seed"] for run in found["runs"]] == [3, 4]
    one, other = found["values"]["one/mean"]
    assert one != other
    assert found["claims"] == {"claim-one": {"held": 2, "of": 2, "seeds": [2, 2]}}
    # What has finished is not run again, though only the rates are left of it.
    shutil.rmtree(book.root / "_build")
    done = book.call("sweep", "--seeds", "3..4", "--chapter", "01-one")
    assert "2 of 2 runs are there" in done.stderr and done.returncode == 0
    # A run that fails a check is told, by its seed and the number's distance.
    book.edit(book.claims("01-one"), "tolerance: 1", "tolerance: 0")
    done = book.call("sweep", "--seeds", "3", "--chapter", "01-one")
    assert "one/mean 0 within 0: held in 0 of 2, not in 3, 4" in done.stdout
    # Who reads is told how often, and is not stopped; who judges is.
    assert book.call("run", "--chapter", "01-one").returncode == 0
    read, judged = book.call("check", "--brief"), book.call("check")
    assert (read.returncode, judged.returncode) == (0, 1)
    for done in (read, judged):
        assert "claim-one: OPEN" in done.stderr and "Traceback" not in done.stderr
        assert "(in the sweep it held in 0 of 2 runs (2 seeds: 0.00 to 0.84))" in done.stderr


def test_nothing_is_run_twice_until_the_code_changes(dry_book):
    one = Sweep(dry_book)
    assert "0 of 3 runs are there" in one.call("--seeds", "0..2", "--jobs", "2")
    assert "3 of 5 runs are there" in one.call("--seeds", "0..4")
    assert sorted(seed for seed, _ in one.began()) == [0, 1, 2, 3, 4] == one.outcomes()
    dry_book.edit(dry_book.source("01-one"), "quick=100", "quick=101")
    assert "0 of 2 runs are there" in one.call("--seeds", "0..1")
    found = json.loads((dry_book.root / "book/rates/01-one.json").read_text())
    assert [run["seed"] for run in found["runs"]] == [0, 1], "rates of two codes mixed"


def test_a_run_that_died_is_kept_and_not_tried_until_it_lives(dry_book):
    one = Sweep(dry_book)
    one.more["INSTEAD"] = AT_WORK + "if seed == 1: sys.exit('out of luck')\n"
    said = one.call("--seeds", "0..2")
    assert "died: seed 1: the run ended with status 1: out of luck" in said
    assert "3 of 3 runs are there" in one.call("--seeds", "0..2")
    assert len(one.began()) == 3


def test_other_parameters_have_rates_of_their_own(dry_book):
    one = Sweep(dry_book)
    one.call("--seeds", "0", "--parameter", "n=7")
    assert not (dry_book.root / "book/rates").exists()
    assert (dry_book.root / "_build/sweep/quick-n-7/rates/01-one.json").is_file()


def test_machines_are_told_to_pytorch_and_kept_apart(dry_book):
    one = Sweep(dry_book)
    told = ", ".join(f"os.environ.get({name!r})" for name in tasks.SWITCHES)
    one.more["INSTEAD"] = f"print({told}, file=open(os.environ['HERE'], 'a'))"
    one.call("--seeds", "0", "--machines", "default")
    one.call("--seeds", "0")
    assert one.here.read_text().splitlines() == ["default SSE41 SSE4_2", "None None None"]
    found = json.loads((dry_book.root / "book/rates/01-one.json").read_text())
    assert [run["machine"] for run in found["runs"]] == ["", "default"]


def test_a_switch_changes_what_pytorch_computes_with():
    """Where it does not, `is_here` says so; the processor as it is always is."""
    assert tasks.is_here("default") and tasks.is_here("")


def test_a_machine_that_is_not_here_is_skipped(monkeypatch):
    """It is no run: neither held nor not."""
    monkeypatch.setattr(tasks, "is_here", lambda machine: False)
    variant = Variant("quick")
    key = tasks.code_key("why-energy", variant)
    got = tasks.perform(tasks.Task("why-energy", 0, "avx512", variant, key))
    assert list(got) == ["skipped"] and "has no avx512" in got["skipped"]


def test_a_skipped_run_leaves_no_outcome_and_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sweep, "SWEEPS", tmp_path)
    monkeypatch.setattr(sweep, "RATES", tmp_path / "rates")

    def skips(left):
        for task in left:
            yield task, {"skipped": "no avx512"}

    found = sweep.sweep(["why-energy"], Variant("quick"), [0, 1], ["avx512"], skips)
    assert found["why-energy"]["runs"] == [] and [*tmp_path.rglob("*.json")] == []
    assert capsys.readouterr().err.count("skipped: no avx512") == 1


@pytest.mark.parametrize("where", [(), ("--scheduler", "local:2")])
def test_a_killed_driver_is_finished_by_the_next_call(dry_book, where):
    """kill -9: what had finished is kept, what ran ends with it, nothing half-written is left."""
    one = Sweep(dry_book, slow=2)
    process = one.start("--seeds", "0..4", "--jobs", "2", *where)
    slow = one.pid_of(2)
    assert wait_for(lambda: one.outcomes() == [0, 1, 3, 4])
    process.kill()
    process.communicate(timeout=60)
    assert wait_for(lambda: not alive(slow)), "an orphan"
    assert one.outcomes() == [0, 1, 3, 4]
    one.go.touch()
    assert "4 of 5 runs are there" in one.call("--seeds", "0..4", *where)
    assert sorted(seed for seed, _ in one.began()) == [0, 1, 2, 2, 3, 4]
    assert one.outcomes() == [0, 1, 2, 3, 4] and one.lies_about() == []


@pytest.mark.parametrize("where", [(), ("--scheduler", "local:2")])
def test_an_interrupted_driver_leaves_nothing_at_work(dry_book, where):
    one = Sweep(dry_book, slow=0)
    process = one.start("--seeds", "0..1", *where)
    slow = one.pid_of(0)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "nothing half-written" in said
    assert wait_for(lambda: not alive(slow))
    if where:  # dask kills its workers, and the next call sweeps up after them
        one.call("--seeds", "1")
    assert one.lies_about() == []


@pytest.mark.parametrize("n", [1, 2])
def test_a_killed_worker_loses_the_run_it_was_at_and_no_other(dry_book, n):
    # The last: of one worker it had all others before, which must not go with it.
    one = Sweep(dry_book, slow=4)
    process = one.start("--seeds", "0..4", "--scheduler", f"local:{n}")
    slow = one.pid_of(4)
    assert wait_for(lambda: one.outcomes() == [0, 1, 2, 3])
    worker = parent(slow)
    assert worker != process.pid
    os.kill(worker, signal.SIGKILL)
    one.go.touch()
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert sorted(seed for seed, _ in one.began()) == [0, 1, 2, 3, 4, 4]
    assert one.outcomes() == [0, 1, 2, 3, 4] and one.lies_about() == []
    assert wait_for(lambda: not alive(slow)), "the run of a killed worker went on"


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler of dask by its file, on this machine alone."""
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    command += ["--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=tmp_path)
    assert wait_for(file.is_file)
    yield file
    process.kill()
    process.wait()


def worker(book: Book, scheduler: Path, more: dict) -> subprocess.Popen:
    """A worker with the checkout of a book."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1"]
    command += ["--scheduler-file", str(scheduler), "--no-dashboard"]
    return subprocess.Popen(
        command,
        cwd=book.root,
        env=book.environment() | more,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_workers_of_a_scheduler_that_was_there(dry_book, scheduler, tmp_path):
    """By its file and by its address; one with other code refuses, and no run is counted."""
    one = Sweep(dry_book)
    other = Book(Path(shutil.copytree(dry_book.root, tmp_path / "other")))
    other.edit(other.source("01-one"), "quick=100", "quick=101")
    stranger = worker(other, scheduler, one.more)
    try:
        process = one.start("--seeds", "0..1", "--scheduler", str(scheduler))
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 1 and "Traceback" not in said
        last = said.strip().splitlines()[-1]
        assert re.search(r"the worker at tcp://\S+ has other code than this checkout", last)
        assert one.outcomes() == [] == one.began()
    finally:
        stranger.kill()
        stranger.wait()
    friend = worker(dry_book, scheduler, one.more)
    try:
        one.call("--seeds", "0..1", "--scheduler", str(scheduler))
        address = json.loads(scheduler.read_text())["address"]
        assert "2 of 3 runs are there" in one.call("--seeds", "0..2", "--scheduler", address)
    finally:
        friend.kill()
        friend.wait()
    assert one.outcomes() == [0, 1, 2] and one.lies_about() == []


def test_committed_rates_follow_from_their_runs_and_the_claims():
    """A threshold that moved asks for `make sweep`, which then runs nothing."""
    from ebmbook import rates

    for path in sorted(sweep.RATES.glob("*.json")):
        found = rates.read(path)
        if not sweep.is_stale(path.stem, found):
            claims = sweep.claims_of(path.stem)
            again = rates.collect(claims, found["key"], found["profile"], rates.runs_of(found))
            assert rates.as_text(again) == path.read_text(), path.name
