"""The pipeline keeps its promises: whole or not at all, only what changed, errors in a line."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from ebmbook import claims
from ebmbook.press import children, execute, notebooks, site
from ebmbook.press.notebooks import BookError

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("01-one", "02-two")


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


def test_a_run_is_whole_and_repeats_byte_for_byte(copy_of_judged, judged_book):
    """Same seed, same machine: equal results, equal notebooks, no trace of time or place."""
    book = copy_of_judged
    first = {path: path.read_bytes() for path in book.run_folder().rglob("*.*") if path.is_file()}
    assert {path.name for path in first} == {
        "01-one.ipynb", "01-one.json", "02-two.ipynb", "02-two.json",
    }  # fmt: skip
    for path in first:
        assert str(judged_book.root).encode() not in first[path]
        path.unlink()
    assert book.call("run", "--jobs", "1").returncode == 0
    assert {path: path.read_bytes() for path in first} == first
    assert leftovers(book) == []


def test_what_rounds_otherwise_is_another_run(dry_book, monkeypatch):
    """A switch of the processor runs a chapter again, and its trainings keep apart."""
    keep = "import os, pathlib; pathlib.Path('kept').write_text(os.environ['EBMREF_CHECKPOINTS'])"
    monkeypatch.setenv("INSTEAD", keep)

    def ran() -> tuple[bool, str]:
        done = dry_book.call("run", "--chapter", "01-one")
        assert done.returncode == 0, done.stderr
        again = any(line.endswith(" s") for line in done.stderr.splitlines())
        return again, (dry_book.root / "kept").read_text()

    for name in children.SWITCHES:
        monkeypatch.delenv(name, raising=False)
    plain = ran()[1]
    assert not ran()[0] and plain.rstrip("/").endswith("checkpoints")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert ran() == (True, plain.rstrip("/") + "/avx2") and not ran()[0]
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert ran() == (True, plain.rstrip("/") + "/default-avx2")


def test_only_what_changed_runs_again(dry_book):
    """Code runs its chapter, what it reaches runs those that reach it; words and thresholds run
    nothing, and stand on the page all the same."""
    book = dry_book

    def ran() -> set[str]:
        done = book.call("run", "--jobs", "2")
        assert done.returncode == 0, done.stderr
        lines = [line.split(": ") for line in done.stderr.splitlines()]
        return {name for name, what in lines if what.endswith(" s")}

    assert ran() == {"01-one", "02-two"}
    assert ran() == set()
    book.edit(book.source("02-two"), "Some prose", "Other prose")
    assert ran() == set()
    assert "Other prose" in (book.run_folder() / "02-two.ipynb").read_text()
    book.edit(book.claims("01-one"), "claim-one\n", "claim-uno\n")
    book.edit(book.claims("01-one"), "tolerance: 1\n", "tolerance: 0.000001\n")
    assert ran() == set()
    assert "claim-uno: OPEN, 01-one.yml says" in (book.run_folder() / "01-one.ipynb").read_text()
    book.edit(book.source("02-two"), "quick=100", "quick=101")
    assert ran() == {"02-two"}
    book.edit(book.root / "ebmbook/plots.py", '"figure.dpi": 100', '"figure.dpi": 101')
    assert ran() == {"01-one", "02-two"}
    with (book.root / "ebmbook/runs.py").open("a") as file:
        file.write("# changed\n")
    assert ran() == set()
    path = book.root / "ebmbook/runs.py"
    book.edit(path, "torch.set_num_threads(1)", "torch.set_num_threads(2)")
    assert ran() == {"01-one", "02-two"}
    assert ran() == set()


def keys_of(book) -> list[str]:
    """Keys of the numbers of both chapters."""
    code = (
        "from ebmbook.press.notebooks import keys_of\n"
        "print(*[keys_of(c, 'quick', {})['key'] for c in ('01-one', '02-two')])"
    )
    return book.shell(sys.executable, "-c", code).stdout.split()


def test_an_edit_counts_where_it_is_reached(book):
    """Of a chapter's key: what it reaches counts, what it does not does not."""
    before = keys_of(book)
    assert len(set(before)) == 2
    book.edit(book.root / "ebmref/gan.py", "leaky_relu(x, 0.2)", "leaky_relu(x, 0.3)")
    assert keys_of(book) == before
    use = "import torch\n\nfrom ebmref import gan\n\nnet = gan.Generator\n"
    book.edit(book.source("02-two"), "import torch\n", use)
    using = keys_of(book)
    assert using[0] == before[0] and using[1] != before[1]
    # The generator is made of networks of another module: that reaches the second chapter alone.
    book.edit(book.root / "ebmref/networks.py", "torch.baddbmm(bias, ", "torch.baddbmm(0 * bias, ")
    assert keys_of(book)[0] == using[0] and keys_of(book)[1] != using[1]


def test_what_is_installed_and_where_data_lie(book, monkeypatch):
    """A numeric pin counts; a linter's version, and the path to data, do not."""
    before = keys_of(book)
    lock = book.root / "requirements.lock"
    text = lock.read_text()
    lock.write_text(re.sub(r"^ruff==[\d.]+", "ruff==0.0.1", text, flags=re.M))
    assert lock.read_text() != text and keys_of(book) == before
    monkeypatch.setenv("EBMREF_DATA", str(book.root))
    assert keys_of(book) == before
    lock.write_text(re.sub(r"^torch==[\d.]+", "torch==2.0.1", text, flags=re.M))
    assert set(keys_of(book)).isdisjoint(before)


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
    with (book.root / "ebmbook/plots.py").open("a") as file:
        file.write("from ebmref import outcomes\n")
    book.edit(book.source("01-one"), "import ledger\n", "import ledger, plots\n")
    done = book.call("run", "--chapter", "01-one")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "01-one" in done.stderr or "outcomes.py" in done.stderr
    assert "SyntaxError" in done.stderr or "syntax" in done.stderr


def test_parameters_reach_the_chapter(copy_of_judged):
    """Seed, profile and sizes arrive where they are used, each run in a folder of its own."""
    book = copy_of_judged
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


def test_a_copied_head_is_told_from_a_missing_end(book):
    """A chapter that starts as another, and one that leaves no results."""
    book.edit(book.source("01-one"), 'start("01-one"', 'start("02-two"')
    book.edit(book.source("02-two"), "ledger.verdicts()", "print()")
    done = book.call("run")
    assert done.returncode == 1
    assert "01-one: its ledger.start names '02-two'" in done.stderr
    assert "02-two: the last cell must call ledger.verdicts()" in done.stderr


def test_missing_data_stop_all_before_anything_is_run(book):
    """One chapter of two wants a set that is not here: neither is run."""
    (book.root / "book/data.yml").write_text("01-one:\n  dataset: {quick: mnist}\n")
    book.edit(book.source("01-one"), "n = None", "dataset = None\nn = None")
    assert_one_line(book.call("run"), "01-one", "mnist", "EBMREF_DATA", "nothing was run")
    assert not list(book.run_folder().glob("*.ipynb"))
    done = book.call("run", "--chapter", "01-one", "--parameter", "dataset=digits")
    assert done.returncode == 0, done.stderr


def test_progress_is_told_and_not_kept(book, capsys):
    """What a cell writes to stderr reaches whoever waits, line by line, and no notebook; long
    training keeps its state in the build folder, in the full profile alone."""
    bar = "import sys; print('\\rGAN:  50%|##  | 1/2', end='', file=sys.stderr)\n"
    keep = "if kept := run.checkpoint('game'):\n    kept.parent.mkdir()\n    kept.touch()\n"
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
    assert children.in_short("GAN:  20%|##  | 2/10 [00:01<00:04]") == "GAN:  20% 2/10 [00:01<00:04]"
    assert children.in_short("a plain line") == "a plain line"


def test_a_failing_cell_is_named_and_the_partial_notebook_kept(copy_of_judged):
    """The last line has chapter, cell and error; the last good run stays."""
    book = copy_of_judged
    book.results("02-two").unlink()
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


@pytest.mark.parametrize(
    "args, names",
    [
        (["run", "--chapter", "99-none"], ["99-none", "01-one"]),
        (["run", "--profile", "huge"], ["profile", "huge"]),
        (["run", "--device", "abacus"], ["device", "abacus"]),
        (["run", "--parameter", "colour=red"], ["colour", "seed"]),
        (["run", "--parameter", "colour"], ["NAME=VALUE", "colour"]),
        (["check"], ["01-one", "no results"]),
        (["check", "--chapter", "02-two", "--seed", "3"], ["02-two", "quick-seed-3"]),
        (["check", "--seed", "x"], ["seed", "whole number", "'x'"]),
        (["run", "--seed", "-1"], ["seed", "whole number >= 0", "'-1'"]),
        (["run", "--parameter", "n=[1,"], ["n", "a whole list", "'[1,'"]),
        (["html", "--profile", "quick"], ["01-one", "make run"]),
        (["html", "--seed", "3"], ["01-one", "quick-seed-3", "make run"]),
    ],
)
def test_bad_input_is_one_line(book, args, names):
    """Unknown names say what was given and what is known, and touch nothing."""
    assert_one_line(book.call(*args), *names)
    assert not (book.root / "_build" / "run").exists()


def test_bad_claims_and_results_are_one_line(copy_of_recorded):
    """Neither a bad claim nor a damaged results file overwrites the last ledger."""
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
    book.edit(book.claims("01-one"), "verdict: reproduced", "verdict: splendid")
    for command in ("check", "run", "record", "html"):
        assert_one_line(book.call(command, "--profile", "full"), "01-one.yml", "splendid")
    assert ledger.read_bytes() == before


def test_what_ran_is_judged_and_rendered(copy_of_judged):
    """One chapter of another seed: its claims alone are judged; the pages show it, and the other
    by its record, and say so."""
    book = copy_of_judged
    seeded = ("--seed", "3", "--parameter", "n=50")
    assert book.call("run", "--chapter", "01-one", *seeded).returncode == 0
    done = book.call("check", *seeded)
    assert done.returncode == 0, done.stderr
    assert "claim-one" in done.stdout and "claim-two" not in done.stdout
    assert done.stdout.splitlines()[-1] == "1 of 2 claims settled, 0 not borne out"
    assert done.stderr.strip() == "judged 01-one; not run: 02-two"
    assert_one_line(book.call("check", "--chapter", "02-two", *seeded), "02-two", "no results")
    done = book.call("html", *seeded)
    assert done.returncode == 0, done.stderr
    assert "shown by their records: 02-two" in done.stderr
    run = book.run_folder("quick-n-50-seed-3")
    mean = claims.parse_results((run / "results/01-one.json").read_text(), "")["measures"]
    assert str(mean["one/mean"]) in (book.root / "_build/html/book/01-one.html").read_text()
    # A notebook and results that are not of one run are no run.
    shutil.copy(book.results("01-one"), run / "results" / "01-one.json")
    assert_one_line(book.call("check", *seeded), "01-one.json", "not of the run", "run it again")
    (run / "01-one.ipynb").unlink()
    assert_one_line(book.call("check", *seeded), "no results")


def test_claims_without_a_chapter_count_where_all_are_asked(copy_of_judged):
    book = copy_of_judged
    book.claims("later").write_text('- id: sys-later\n  where: "3"\n  says: It works.\n')
    for asked, told in (((), "2 of 5"), (("--chapter", "01-one"), "1 of 2")):
        done = book.call("check", "--profile", "quick", *asked)
        assert done.stdout.splitlines()[-1] == f"{told} claims settled, 0 not borne out"


def test_check_fails_when_a_number_leaves_its_threshold(copy_of_recorded):
    """The claim falls back to open, the failing check is named, the exit status is 1."""
    book = copy_of_recorded
    book.edit(book.claims("01-one"), "tolerance: 1\n", "tolerance: 0.000001\n")
    done = book.call("check", "--profile", "full")
    assert done.returncode == 1
    assert "claim-one: OPEN, 01-one.yml says reproduced: one/mean is" in done.stderr
    table = json.loads((book.run_folder("full") / "ledger.json").read_text())
    assert [row["verdict"] for row in table if row["id"] == "claim-one"] == ["open"]


class TestRecord:
    """A record is of its source, executed, and says what its claims say."""

    def faults(self, book) -> str:
        code = "from ebmbook.press.records import faults; print(*faults('01-one'), sep='\\n')"
        return book.shell(sys.executable, "-c", code).stdout

    def test_sound(self, recorded_book):
        assert self.faults(recorded_book).strip() == ""

    def test_edited_source_names_the_command(self, copy_of_recorded):
        book = copy_of_recorded
        book.edit(book.source("01-one"), "Some prose", "Other prose")
        assert "make record CHAPTER=01-one" in self.faults(book)

    def test_stale_code_names_the_commands(self, copy_of_recorded):
        """Code that the numbers depend on was changed, and nothing was run since."""
        book = copy_of_recorded
        path = book.root / "ebmbook/runs.py"
        book.edit(path, "torch.set_num_threads(1)", "torch.set_num_threads(2)")
        told = self.faults(book)
        assert "the code that its numbers depend on was changed" in told
        assert "make carry CHAPTER=01-one" in told and "make record CHAPTER=01-one" in told

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
        book.edit(book.claims("01-one"), "verdict: reproduced", "verdict: corrected")
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


def test_the_longest_begin_first(dry_book):
    """By the measures of their records: what measures more takes longer, as a rule."""
    for n_measures in ((1, 2), (2, 1)):
        for name, n in zip(NAMES, n_measures, strict=True):
            measures = {f"a/{i}": {"value": 1.0} for i in range(n)}
            results = {"chapter": name, "profile": "full", "seed": 0, "measures": measures}
            record = nbformat.v4.new_notebook(metadata={"ebmref": {"results": results}})
            nbformat.write(record, dry_book.record(name))
        shutil.rmtree(dry_book.root / "_build", ignore_errors=True)
        done = dry_book.call("run", "--jobs", "1")
        assert done.returncode == 0, done.stderr
        begun = sorted(NAMES, key=lambda name: done.stderr.index(f"{name}: "))
        assert begun == sorted(NAMES, key=lambda name: -n_measures[NAMES.index(name)])


@pytest.mark.parametrize(
    "toc, expected",
    [
        ("chapters: [{file: book/b.ipynb}, {file: book/page}, {file: book/a.ipynb}]", ["b", "a"]),
        (
            "parts:\n"
            "- {caption: One, chapters: [{file: book/c.ipynb, sections: [{file: book/d.ipynb}]}]}\n"
            "- {chapters: [{file: book/a.ipynb}, {url: 'https://example.org', title: x}]}\n",
            ["c", "d", "a"],
        ),
        ("", []),
    ],
)
def test_the_order_is_the_table_of_contents(tmp_path, monkeypatch, toc, expected):
    """In parts, chapters and sections, as they are read; a page that is not executed is none."""
    (tmp_path / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\n{toc}")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    assert notebooks.chapters() == expected


@pytest.mark.parametrize(
    "toc, words",
    [
        (None, "No such file"),
        ("", "not a mapping"),
        ("chapters: [", "expected the node content"),
        ("chapter: [{file: a}]", "'chapter'"),
        ("chapters: [{fiel: a}]", "/chapters/0"),
        ("chapters: book/a.ipynb", "/chapters"),
        ("parts: [{caption: One}]", "/parts/0"),
        ("chapters: [{caption: One, chapters: [{file: a}]}]", "/chapters/0"),
        ("chapters: [{file: a}, {file: a}]", "'a'"),
    ],
)
def test_a_bad_table_of_contents_is_one_line(tmp_path, monkeypatch, toc, words):
    """Misspelt, empty, captioned where there is nothing to caption: what, and where."""
    if toc is not None:
        head = "format: jb-book\nroot: book/index\n" if toc else ""
        (tmp_path / "_toc.yml").write_text(head + toc)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    with pytest.raises(BookError, match=r"^_toc.yml: .*" + re.escape(words)) as error:
        notebooks.chapters()
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "no such chapter, though _toc.yml names it"),
        ("# Prose alone\n", "it has no {code-cell}"),
        ("---\njupytext: [\n---\n\n```{code-cell}\n1\n```\n", "not a text notebook"),
        ("\x89 \x00", "not a text notebook"),
    ],
)
def test_a_bad_source_is_one_line(book, text, words):
    """Absent, without code, damaged: whichever command meets it first."""
    if text is None:
        book.source("02-two").unlink()
    else:
        book.source("02-two").write_text(text)
    for command in ("run", "record"):
        done = book.call(command, "--chapter", "02-two")
        assert_one_line(done, "02-two", words)


def test_an_old_address_leads_on(tmp_path, monkeypatch):
    """By itself and by a link, which the check of links follows; to nowhere is told."""
    (tmp_path / "moved.yml").write_text("01-old: new\n")
    monkeypatch.setattr(site, "MOVED", tmp_path / "moved.yml")
    pages = tmp_path / "html"
    pages.mkdir()
    site.lead_on(pages)
    page = (pages / "01-old.html").read_text()
    assert 'http-equiv="refresh" content="0; url=new.html"' in page
    assert site.broken_links(pages) == ["01-old.html: new.html: no such file"]
    (pages / "new.html").write_text("<title>new</title>")
    assert site.broken_links(pages) == []
    monkeypatch.setattr(site, "MOVED", tmp_path / "none.yml")
    site.lead_on(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["html", "moved.yml"]


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
