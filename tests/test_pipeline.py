"""The pipeline keeps its promises: whole or not at all, only what changed, errors in a line."""

import ast
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from ebmbook import execute, notebooks, runner

ROOT = Path(__file__).resolve().parents[1]
NBVAL = ["-p", "no:cacheprovider", "-W", "default", "--nbval-lax", "--nbval-current-env"]


def assert_one_line(done: subprocess.CompletedProcess, *names: str) -> None:
    """The command failed, and its only word to the user names the thing."""
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for name in names:
        assert name in lines[0]


def leftovers(book) -> list[Path]:
    """Temporary files that a run left behind."""
    return [path for path in (book.root / "_build").rglob("*") if path.name.startswith(".")]


def test_a_run_is_whole_and_repeats_byte_for_byte(book):
    """Same seed, same machine: equal results, equal notebooks, no trace of time or place."""
    assert book.call("run", "--jobs", "2").returncode == 0
    first = {path: path.read_bytes() for path in book.run_folder().rglob("*.*") if path.is_file()}
    assert {path.name for path in first} == {
        "01-one.ipynb", "01-one.json", "02-two.ipynb", "02-two.json",
    }  # fmt: skip
    for path in first:
        assert str(book.root).encode() not in first[path]
        path.unlink()
    assert book.call("run", "--jobs", "1").returncode == 0
    assert {path: path.read_bytes() for path in first} == first
    assert leftovers(book) == []


def test_only_what_changed_runs_again(book):
    """A touched source runs its chapter alone, a touched package runs all, nothing runs nothing."""

    def ran() -> set[str]:
        done = book.call("run", "--jobs", "2")
        assert done.returncode == 0, done.stderr
        lines = [line.split(": ") for line in done.stderr.splitlines()]
        return {name for name, what in lines if what.endswith(" s")}

    assert ran() == {"01-one", "02-two"}
    assert ran() == set()
    book.edit(book.source("02-two"), "Some prose", "Other prose")
    assert ran() == {"02-two"}
    book.edit(book.root / "book/claims.yml", "claim-one\n", "claim-uno\n")
    assert ran() == {"01-one"}
    book.edit(book.root / "book/claims.yml", "because: ten", "because: some ten")
    assert ran() == set()
    with (book.root / "ebmref/runs.py").open("a") as file:
        file.write("# changed\n")
    assert ran() == {"01-one", "02-two"}
    assert ran() == set()


PACKAGE = {
    "__init__.py": "",
    "a.py": "import math\n\n\ndef late():\n    from ebmref.b import thing\n\n    return thing\n",
    "b.py": "import torch, ebmref.deep.c as c\nif c:\n    import other.ebmref\n",
    "deep/__init__.py": "from ebmref import d\n",
    "deep/c.py": "from ebmref import a, b\nfrom ebmref.deep.c import nothing\n",
    "deep/e.py": "class E:\n    import ebmref.unused as unused\n",
    "d.py": "try:\n    import ebmref.gone\nexcept ImportError:\n    from ebmref import a as b\n",
    "unused.py": "VALUE = 1\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of the real one; its folder."""
    root = tmp_path / "outer" / "root"
    for name, text in PACKAGE.items():
        path = root / "ebmref" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "requirements.lock").write_text("torch==1\n")
    monkeypatch.setattr(notebooks, "ROOT", root)
    notebooks._imported.cache_clear()
    yield root / "ebmref"
    notebooks._imported.cache_clear()


ALL_OF_A = ["__init__.py", "a.py", "b.py", "d.py", "deep/__init__.py", "deep/c.py"]


@pytest.mark.parametrize(
    "source, expected",
    [
        ("import torch\nx = 'import ebmref.a'\n# import ebmref.a\n", []),
        ("import ebmref", ["__init__.py"]),
        ("from ebmref import unused", ["__init__.py", "unused.py"]),
        ("from ebmref.unused import VALUE", ["__init__.py", "unused.py"]),
        ("import numpy, ebmref.unused as u", ["__init__.py", "unused.py"]),
        ("def f():\n    if 1:\n        from ebmref import unused", ["__init__.py", "unused.py"]),
        ("import ebmrefined.a, other.ebmref.a", []),
        ("from ebmref.a import late", ALL_OF_A),
        ("import ebmref.deep", ALL_OF_A),
        ("from ebmref.deep import e", [*ALL_OF_A, "deep/e.py", "unused.py"]),
    ],
)
def test_modules_that_code_imports(package, source, expected):
    """Wherever an import stands, and what that imports in turn, round cycles; with each module
    the __init__.py of its folders; strings, comments and other packages are none of it."""
    got = [path.relative_to(package).as_posix() for path in notebooks.modules_of(source)]
    assert got == sorted(got) and sorted(got) == sorted(expected)


def test_only_an_edit_of_what_is_used_changes_the_digest(package):
    """Every module that is used, the pinned versions; and nothing else."""
    source = "from ebmref import a"
    before = notebooks.package_digest(source)
    assert before == notebooks.package_digest(source)
    lock = package.parent / "requirements.lock"
    for path in [*package.rglob("*.py"), lock]:
        text = path.read_text()
        path.write_text(text + "# edited\n")
        used = path == lock or path.relative_to(package).as_posix() in ALL_OF_A
        assert (notebooks.package_digest(source) != before) == used, path
        path.write_text(text)
    assert notebooks.package_digest(source) == before
    # A module that comes into being where an import looked for it counts in the next process.
    (package / "gone.py").write_text("")
    notebooks._imported.cache_clear()
    assert notebooks.package_digest(source) != before


def test_a_module_that_moves_is_another(package):
    """The same text under another name is other code."""
    before = notebooks.package_digest("from ebmref import unused")
    (package / "unused.py").rename(package / "moved.py")
    assert notebooks.package_digest("from ebmref import moved") != before


def test_a_folder_above_the_book_may_be_a_package(package):
    """A checkout below somebody's __init__.py is none of the code's business."""
    before = notebooks.package_digest("from ebmref import a")
    (package.parent / "__init__.py").write_text("")
    (package.parent.parent / "__init__.py").write_text("")
    notebooks._imported.cache_clear()
    assert notebooks.package_digest("from ebmref import a") == before


def test_the_real_package_is_imported_by_name():
    """No import by a computed or a relative name, which `modules_of` would not see; and each of
    its modules, imported alone, loads no module of the package that is not found so."""
    modules = sorted((ROOT / "ebmref").rglob("*.py"))
    for path in modules:
        tree = ast.parse(path.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not names & {"importlib", "__import__", "exec", "eval"}, path
        relative = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
        assert not relative, path
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in notebooks.modules_of("from ebmref import ledger")
    }
    code = "import sys, ebmref.ledger; print(*[m for m in sys.modules if m.startswith('ebmref')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= found


def test_an_edit_of_a_module_counts_where_it_is_used(book):
    """Of a chapter's code key: what it imports counts, what it does not does not."""

    def keys() -> list[str]:
        code = (
            "from ebmbook.notebooks import code_key\n"
            "print(*[code_key(c, 'quick', {}) for c in ('01-one', '02-two')])"
        )
        return book.shell(sys.executable, "-c", code).stdout.split()

    before = keys()
    assert len(set(before)) == 2
    book.edit(book.root / "ebmref/gan.py", "import copy\n", "import copy  # edited\n")
    assert keys() == before
    book.edit(book.source("02-two"), "import torch\n", "import torch\n\nfrom ebmref import gan\n")
    using = keys()
    assert using[0] == before[0] and using[1] != before[1]
    # gan imports networks: an edit of that reaches the second chapter alone.
    path = book.root / "ebmref/networks.py"
    path.write_text(path.read_text() + "# edited\n")
    assert keys()[0] == using[0] and keys()[1] != using[1]


@pytest.mark.parametrize(
    "line, words",
    [("def (:", "01-one: cell 4 raised SyntaxError"), ("%precision 3", None)],
    ids=["syntax error", "magic"],
)
def test_a_cell_that_is_no_plain_python(book, line, words):
    """A slip of the pen is named with its cell, as any error of a chapter is; a magic runs."""
    book.edit(book.source("01-one"), "_ = ledger", f"{line}\n_ = ledger")
    done = book.call("run", "--chapter", "01-one")
    assert "Traceback" not in done.stderr
    if words:
        assert done.returncode == 1 and words in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_a_slip_in_the_package_is_one_line(book):
    """Which file, and where."""
    with (book.root / "ebmref/outcomes.py").open("a") as file:
        file.write("def (\n")
    with (book.root / "ebmref/plots.py").open("a") as file:
        file.write("from ebmref import outcomes\n")
    book.edit(book.source("01-one"), "import torch\n", "import torch\n\nfrom ebmref import plots\n")
    done = book.call("run", "--chapter", "01-one")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "01-one" in done.stderr or "outcomes.py" in done.stderr
    assert "SyntaxError" in done.stderr or "syntax" in done.stderr


def test_parameters_reach_the_chapter(book):
    """Seed, profile and sizes arrive where they are used, each run in a folder of its own."""
    assert book.call("run", "--chapter", "01-one").returncode == 0
    assert book.call("run", "--chapter", "01-one", "--seed", "3").returncode == 0
    done = book.call("run", "--chapter", "01-one", "--profile", "full", "--parameter", "n=7")
    assert done.returncode == 0, done.stderr
    plain, seeded, full = (
        json.loads(book.results("01-one", variant).read_text())
        for variant in ("quick", "quick-seed-3", "full-n-7")
    )
    assert (plain["seed"], seeded["seed"]) == (0, 3)
    assert plain["measures"] != seeded["measures"]
    assert full["profile"] == "full"
    # A mean of 7 draws has a standard error near 7 ** -0.5 = .38, one of 100 near .1.
    assert full["measures"]["one/mean"]["se"] > 2 * plain["measures"]["one/mean"]["se"]


def test_progress_is_told_and_not_kept(book, capsys):
    """What a cell writes to stderr reaches whoever waits, line by line, and no notebook; long
    training keeps its state in the build folder, in the full profile alone."""
    bar = "import sys; print('\\rGAN:  50%|##  | 1/2', end='', file=sys.stderr)\n"
    keep = "if kept := run.checkpoint('game', ledger):\n    kept.parent.mkdir()\n    kept.touch()\n"
    book.edit(book.source("01-one"), "_ = ledger", f"{bar}{keep}_ = ledger")
    for profile in ("quick", "full"):
        done = book.call("run", "--chapter", "01-one", "--profile", profile)
        assert done.returncode == 0, done.stderr
        run = nbformat.read(book.run_folder(profile) / "01-one.ipynb", as_version=4)
        names = [out.get("name") for cell in run.cells for out in cell.get("outputs", [])]
        assert "stdout" in names and "stderr" not in names
    kept = list((book.root / "_build" / "checkpoints").iterdir())
    assert len(kept) == 1 and kept[0].name.startswith("game-seed-0-")

    execute.Whispers().write("\rGAN:  10%|# | 1/10\rGAN:  20%|##| 2/10\n")
    execute.Whispers().write("\r\n")
    assert json.loads(capsys.readouterr().out) == {"said": "GAN:  20%|##| 2/10"}
    assert runner.in_short("GAN:  20%|##  | 2/10 [00:01<00:04]") == "GAN:  20% 2/10 [00:01<00:04]"
    assert runner.in_short("a plain line") == "a plain line"


def test_a_failing_cell_is_named_and_the_partial_notebook_kept(book):
    """The last line has chapter, cell and error; the last good run stays."""
    assert book.call("run", "--chapter", "01-one").returncode == 0
    good = book.results("01-one").read_bytes()
    book.edit(book.source("01-one"), "_ = ledger", "int('seven')\n_ = ledger")
    done = book.call("run", "--jobs", "2")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "01-one: cell 4 raised ValueError: invalid literal" in last
    partial = nbformat.read(book.run_folder() / "01-one.failed.ipynb", as_version=4)
    assert any(out.output_type == "error" for c in partial.cells for out in c.get("outputs", []))
    assert book.results("01-one").read_bytes() == good
    assert book.results("02-two").is_file()
    assert leftovers(book) == []
    # Once mended, the remains of the failure go.
    book.edit(book.source("01-one"), "int('seven')\n", "")
    assert book.call("run").returncode == 0
    assert not (book.run_folder() / "01-one.failed.ipynb").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(book, how):
    """Neither a notebook nor results nor a kernel that goes on."""
    token = f"sleeping-{os.getpid()}-{how}"
    cell = f"import os, sys, time\nopen(os.environ['HERE'], 'w').write(str(os.getpid()))\n# {token}"
    book.edit(book.source("01-one"), "_ = ledger", f"{cell}\ntime.sleep(120)\n_ = ledger")
    here = book.root / "kernel.pid"
    child = subprocess.Popen(
        book.command("run", "--chapter", "01-one"),
        cwd=book.root,
        env=book.environment() | {"HERE": str(here)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell starts its background jobs deaf to SIGINT, and their children inherit that.
        preexec_fn=functools.partial(signal.signal, how, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (here.is_file() and here.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    kernel = int(here.read_text())
    child.send_signal(how)
    assert child.wait(timeout=30) != 0
    while Path(f"/proc/{kernel}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{kernel}").exists()
    assert [path for path in book.run_folder().rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "args, names",
    [
        (["run", "--chapter", "99-none"], ["99-none", "01-one"]),
        (["run", "--profile", "huge"], ["profile", "huge"]),
        (["run", "--device", "abacus"], ["device", "abacus"]),
        (["run", "--parameter", "colour=red"], ["colour", "seed"]),
        (["run", "--parameter", "colour"], ["NAME=VALUE", "colour"]),
        (["check"], ["01-one", "no results"]),
        (["html", "--profile", "quick"], ["01-one.ipynb", "make run"]),
    ],
)
def test_bad_input_is_one_line(book, args, names):
    """Unknown names say what was given and what is known, and touch nothing."""
    assert_one_line(book.call(*args), *names)
    assert not (book.root / "_build" / "run").exists()


def test_bad_claims_and_results_are_one_line(copy_of_recorded):
    """Neither a bad claims.yml nor a damaged results file overwrites the last ledger."""
    book = copy_of_recorded
    assert book.call("check", "--profile", "full").returncode == 0
    ledger = book.run_folder("full") / "ledger.json"
    before = ledger.read_bytes()
    good = book.results("01-one", "full").read_text()
    for text in (
        "{",
        good[: len(good) // 2],
        "[]",
        good.replace('"value": ', '"value": NaN, "x": '),
    ):
        book.results("01-one", "full").write_text(text)
        assert_one_line(book.call("check", "--profile", "full"), "01-one.json")
    book.results("01-one", "full").write_text(good)
    book.edit(book.root / "book/claims.yml", "verdict: reproduced", "verdict: splendid")
    for command in ("check", "run", "record", "html"):
        assert_one_line(book.call(command, "--profile", "full"), "claims.yml", "splendid")
    assert ledger.read_bytes() == before


def test_check_fails_when_a_number_leaves_its_threshold(copy_of_recorded):
    """The claim falls back to open, the failing check is named, the exit status is 1."""
    book = copy_of_recorded
    book.edit(book.root / "book/claims.yml", "tolerance: 1\n", "tolerance: 0.000001\n")
    done = book.call("check", "--profile", "full")
    assert done.returncode == 1
    assert "claim-one: OPEN, claims.yml says reproduced: one/mean is" in done.stderr
    table = json.loads((book.run_folder("full") / "ledger.json").read_text())
    assert [row["verdict"] for row in table if row["id"] == "claim-one"] == ["open"]


class TestAlarm:
    """nbval passes on a sound record and fails on each kind of unsound one."""

    def nbval(self, book) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "pytest", "-q", *NBVAL, "book/01-one.ipynb"]
        return book.shell(*command)

    def test_silent_on_a_sound_record(self, copy_of_recorded):
        done = self.nbval(copy_of_recorded)
        assert done.returncode == 0, done.stdout

    def test_rings_when_a_verdict_is_altered(self, copy_of_recorded):
        book = copy_of_recorded
        book.edit(book.record("01-one"), "claim-one: reproduced", "claim-one: refuted")
        assert self.nbval(book).returncode == 1

    def test_rings_when_a_chapter_raises(self, copy_of_recorded):
        book = copy_of_recorded
        book.edit(book.root / "ebmref/ledger.py", "    n = None\n", "    n = None + 1\n")
        assert self.nbval(book).returncode == 1

    def test_rings_when_a_number_leaves_its_threshold(self, copy_of_recorded):
        """The package now measures something else; the record still says reproduced."""
        book = copy_of_recorded
        path = book.root / "ebmref/ledger.py"
        book.edit(path, "    value = float(value)\n", "    value = float(value) + 2\n")
        done = self.nbval(book)
        assert done.returncode == 1
        assert "OPEN" in done.stdout


class TestRecord:
    """A record is of its source, executed, and says what claims.yml says."""

    def faults(self, book) -> str:
        code = "from ebmbook.records import faults; print(*faults('01-one'), sep='\\n')"
        return book.shell(sys.executable, "-c", code).stdout

    def test_sound(self, recorded_book):
        assert self.faults(recorded_book).strip() == ""

    def test_edited_source_names_the_command(self, copy_of_recorded):
        book = copy_of_recorded
        book.edit(book.source("01-one"), "Some prose", "Other prose")
        assert "make record CHAPTER=01-one" in self.faults(book)

    def test_edited_caption_or_tag_counts(self, copy_of_recorded):
        book = copy_of_recorded
        book.edit(book.source("01-one"), ":tags: [nbval-check-output]", ":tags: [hide-input]")
        assert "source was edited" in self.faults(book)

    def test_unexecuted_record_is_caught(self, copy_of_recorded):
        """nbval alone would pass it: it has nothing to compare."""
        book = copy_of_recorded
        notebook = nbformat.read(book.record("01-one"), as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, book.record("01-one"))
        assert "not executed" in self.faults(book)

    def test_changed_verdict_is_caught(self, copy_of_recorded):
        book = copy_of_recorded
        book.edit(book.root / "book/claims.yml", "verdict: reproduced", "verdict: corrected")
        assert "verdicts are not those" in self.faults(book)

    def test_prose_is_renewed_without_a_run(self, copy_of_recorded):
        """The outputs stay; the text is the source's."""
        book = copy_of_recorded
        book.edit(book.source("01-one"), "Some prose", "Other prose")
        (book.run_folder("full") / "01-one.ipynb").unlink()
        done = book.call("record", "--chapter", "01-one")
        assert "same code" in done.stderr
        assert "Other prose" in book.record("01-one").read_text()
        assert not (book.run_folder("full") / "01-one.ipynb").exists()
        assert self.faults(book).strip() == ""

    def test_plain_papermill_reruns_a_record(self, recorded_book, tmp_path):
        """The record is a notebook like any other: another seed by `papermill -p`."""
        command = [sys.executable, "-m", "papermill", str(recorded_book.record("01-one"))]
        done = recorded_book.shell(*command, "out.ipynb", "-p", "seed", "3", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "results/01-one.json").read_text())["seed"] == 3


def test_html_is_strict_and_stays_strict(copy_of_recorded):
    """A sound book renders; a dead reference fails the build, and fails it again the next time."""
    book = copy_of_recorded
    done = book.call("html")
    assert done.returncode == 0, done.stderr
    page = (book.root / "_build/html/book/01-one.html").read_text()
    assert "reproduced" in page and "±" in page
    assert "claim-one" in (book.root / "_build/html/_static/ledger.json").read_text()
    book.edit(book.root / "book/index.md", "# Small", "# Small\n\n{doc}`nowhere`")
    for _ in range(2):
        done = book.call("html")
        assert done.returncode == 1
        assert "nowhere" in done.stderr


def test_html_with_a_dead_raw_link_fails(copy_of_recorded):
    """Sphinx does not look into raw HTML; the link check does."""
    book = copy_of_recorded
    link = '# Small\n\n<a href="gone.html">x</a> <img src="https://example.org/x.png" alt="x">'
    book.edit(book.root / "book/index.md", "# Small", link)
    done = book.call("html")
    assert done.returncode == 1
    assert "gone.html" in done.stderr
    assert "from the network" in done.stderr
