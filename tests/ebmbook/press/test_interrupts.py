"""Whatever ends a run leaves the last good one whole, and nothing that the next does not sweep."""

import functools
import select
import shutil
import signal
import subprocess
import sys

import pytest
from books import STAND_IN
from processes import alive, wait_for


def at_work(book) -> list[str]:
    """Hidden files and folders in the build folder."""
    return [path.name for path in (book.root / "_build").rglob("*") if path.name.startswith(".")]


def installed(book) -> list[str]:
    """Notebooks and results in place."""
    folders = [*book.root.glob("_build/run/*/"), *book.root.glob("_build/run/*/results/")]
    return sorted(path.name for folder in folders for path in folder.glob("*.*") if path.is_file())


TELL = "import os, time\nopen(os.environ['HERE'], 'a').write(f'{os.getpid()}\\n')\n"
SLEEP = TELL + "time.sleep(300)\n"


def sleep_in(book) -> None:
    """Have the first chapter write its kernel's number to a file, and then sleep."""
    book.edit(book.source("01-one"), "import torch\n", f"{SLEEP}import torch\n")


def begin(book, how: int = signal.SIGINT, instead: str = "") -> subprocess.Popen:
    """Start a run of the first chapter."""
    return subprocess.Popen(
        book.command("run", "--chapter", "01-one"),
        cwd=book.root,
        env=book.environment() | {"HERE": str(book.root / "pid"), "INSTEAD": instead},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs deaf to SIGINT, and their children inherit that.
        preexec_fn=functools.partial(signal.signal, how, signal.SIG_DFL),
    )


def kernel_of(book) -> int:
    """The number of the process at work on the first chapter, once it is."""
    here = book.root / "pid"
    assert wait_for(lambda: here.is_file() and here.read_text().endswith("\n"))
    return int(here.read_text())


def first_words(process: subprocess.Popen) -> str:
    """Its first line on stderr, without waiting for its end; "" when it says none in time."""
    said, _, _ = select.select([process.stderr], [], [], 60)
    return process.stderr.readline() if said else ""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing(book, how):
    """Neither a notebook nor results nor a kernel that goes on."""
    sleep_in(book)
    child = begin(book, how)
    kernel = kernel_of(book)
    child.send_signal(how)
    said = child.communicate(timeout=60)[1]
    assert child.returncode != 0 and "Traceback" not in said
    assert wait_for(lambda: not alive(kernel), 60)
    assert installed(book) == [] == at_work(book)


def test_a_killed_run_takes_its_kernel_along_and_is_swept(book):
    """kill -9 lets nobody tidy up: the kernel ends all the same, and the next run, though of
    another chapter, removes what lies about."""
    sleep_in(book)
    child = begin(book)
    kernel = kernel_of(book)
    child.kill()
    child.communicate(timeout=60)
    assert at_work(book) != [] and installed(book) == []
    assert wait_for(lambda: not alive(kernel), 60)
    (book.root / "ebmbook" / "press" / "execute.py").write_text(STAND_IN)
    done = book.call("run", "--chapter", "02-two")
    assert done.returncode == 0, done.stderr
    assert at_work(book) == []
    assert installed(book) == ["02-two.ipynb", "02-two.json"]


def test_two_runs_at_once_run_a_chapter_once(dry_book):
    """The second leaves the first's folder alone, waits, and finds the chapter made."""
    book = dry_book
    # Time for the second to come upon it.
    wait = TELL + "for _ in range(1200):\n    os.path.exists('go') or time.sleep(0.1)\n"
    first = begin(book, instead=wait)
    kernel_of(book)
    second = begin(book, instead=wait)
    assert "waiting for another run" in first_words(second)
    assert at_work(book) != []
    (book.root / "go").touch()
    said = second.communicate(timeout=120)[1]
    first.communicate(timeout=120)
    assert first.returncode == second.returncode == 0
    assert "not run again" in said
    kernel_of(book)  # one
    assert installed(book) == ["01-one.ipynb", "01-one.json"] and at_work(book) == []


def test_who_waits_can_be_interrupted(dry_book):
    """Waiting is no hanging; the other run goes on."""
    book = dry_book
    first = begin(book, signal.SIGTERM, SLEEP)
    kernel_of(book)
    second = begin(book, instead=SLEEP)
    assert "waiting for another run" in first_words(second)
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=60)
    assert second.returncode == 130
    assert first.poll() is None and at_work(book) != []
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert at_work(book) == []


# Runs a chapter whose child executes nothing and leaves results that name the run, on a disk
# that is full from the n-th write or rename on; prints the first n with which it succeeds.
FULL = """\
import errno, os, subprocess
from ebmbook.press import children, notebooks, runner
from ebmbook.press.variants import Variant

def start(draft, *rest):
    results = '{"chapter": "01-one", "profile": "quick", "seed": %d, "measures": {}}' % seed
    draft.with_suffix(".json").write_text(results)
    return subprocess.Popen(["true"], stdout=subprocess.PIPE, text=True)

def limited(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        # What was there before may be put back.
        if left < 0 and not str(args[0]).endswith(".before"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)
    return call

def error():
    try:
        runner.run_chapters(["01-one"], Variant())
    except notebooks.BookError as error:
        return str(error)

def both():
    folder = Variant().folder
    return [(folder / name).read_bytes() for name in ("01-one.ipynb", "results/01-one.json")]

children.start = start
os.replace = limited(os.replace)
notebooks.write_atomic = limited(notebooks.write_atomic)
seed, left = 1, 99
assert error() is None
good = both()
assert all(b'"seed": 1' in file for file in good)
source = notebooks.source_path("01-one")
source.write_text(source.read_text().replace("quick=100", "quick=101"))
n, seed, left = 0, 2, 0
while said := error():
    assert said == "01-one: not run: No space left on device", said
    assert both() == good, n
    assert not list(Variant().folder.glob(".*")), n
    n = left = n + 1
assert all(b'"seed": 2' in file for file in both())
print(n)
"""


def test_a_full_disk_installs_both_files_or_none(book):
    """Whichever write or rename fails, notebook and results are of one run, the error is a line
    that says why, and nothing lies about."""
    done = book.shell(sys.executable, "-c", FULL)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4


def run_on_full_disk(book, free_kb: int) -> subprocess.CompletedProcess:
    """A run on a small disk of its own on which so much is left; then, with room, another."""
    script = f"""
        mount -t tmpfs -o size=2m none _build && {{ {sys.executable} -m ebmbook.press run \\
          --chapter 01-one
        echo "status $?"
        sed -i 's/quick=100/quick=101/' book/01-one.md
        cat _build/run/quick/01-one.ipynb _build/run/quick/results/* | cksum
        head -c {free_kb * 1024} /dev/zero > _build/spare
        cat /dev/zero > _build/full 2>/dev/null
        rm _build/spare
        {sys.executable} -m ebmbook.press run --chapter 01-one 2>&1
        echo "status $?"
        cat _build/run/quick/01-one.ipynb _build/run/quick/results/* | cksum
        find _build -name '.*'
        rm _build/full
        {sys.executable} -m ebmbook.press run --chapter 01-one
        echo "status $?"; }}
    """
    (book.root / "_build").mkdir()
    return book.shell("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script)


def may_mount() -> bool:
    """Whether we may mount a small disk of our own, which takes no root on most Linuxes."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no mounts without root here")
@pytest.mark.parametrize("free_kb", [0, 8])
def test_a_disk_that_is_really_full(dry_book, free_kb):
    """The last good run stays to the byte, the error is a line, a run with room succeeds."""
    done = run_on_full_disk(dry_book, free_kb)
    lines = done.stdout.splitlines()
    assert lines[0] == "status 0", done.stderr
    before, error, status, after, last = lines[1:]
    assert error.startswith("01-one: ") and error.endswith("No space left on device")
    assert (status, last) == ("status 1", "status 0")
    assert before == after


@pytest.mark.skipif(not may_mount(), reason="no mounts without root here")
def test_a_checkout_that_may_not_be_written(copy_of_recorded):
    """Each command that writes says so in a line, and of the chapter that it was at."""
    book = copy_of_recorded
    book.edit(book.source("01-one"), "Some prose", "Other prose")
    book.edit(book.source("02-two"), "quick=100", "quick=101")
    asked = ("run --chapter 02-two", "record --chapter 01-one", "html", "check --profile full")
    calls = "; ".join(f"{' '.join(book.command())} {call} >/dev/null" for call in asked)
    script = f"mount --bind . . && mount -o remount,ro,bind . && cd $PWD && {calls}"
    done = book.shell("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == len(asked), done.stderr
    assert all("Read-only file system" in line for line in lines)
