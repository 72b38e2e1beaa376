"""What a record shows is what its run measured and drew: each way to differ is found and named."""

import json
import shutil
import sys

import nbformat
import pytest
from books import Book

from ebmbook.press import notebooks, outputs, records

FIGURE = """\
```{code-cell}
:tags: [figure]

from IPython.display import Image, display

display(Image(b"a picture", format="png"))
```

```{code-cell}
_ = ledger"""


@pytest.fixture(scope="module")
def drawn(recorded_book, tmp_path_factory):
    """A small book with a record that has a figure; do not change it."""
    root = tmp_path_factory.mktemp("drawn") / "small"
    book = Book(shutil.copytree(recorded_book.root, root))
    book.edit(book.source("01-one"), "```{code-cell}\n_ = ledger", FIGURE)
    done = book.call("record", "--chapter", "01-one")
    assert done.returncode == 0, done.stderr
    return book


@pytest.fixture
def book(drawn, tmp_path) -> Book:
    """A copy of it, yours to break."""
    return Book(shutil.copytree(drawn.root, tmp_path / "copy"))


def faults(book) -> str:
    code = "from ebmbook.press.records import faults; print(*faults('01-one'), sep='\\n')"
    done = book.shell(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def output_of(record, mime: str):
    """The first output of a kind."""
    return next(
        out
        for cell in notebooks.code_cells(record)
        for out in cell.outputs
        if mime in out.get("data", {})
    )


def other_number(record):
    glued = output_of(record, outputs.GLUED)
    glued.data[outputs.GLUED] = "'0.999 ± 0.001'"


def same_digits_other_name(record):
    output_of(record, outputs.GLUED).metadata["scrapbook"]["name"] = "one/other"


def other_figure(record):
    image = output_of(record, "image/png")
    image.data["image/png"] = image.data["image/png"][::-1]


def outputs_deleted(record):
    for cell in notebooks.code_cells(record)[:-1]:
        cell.outputs = []


def output_added(record):
    added = nbformat.v4.new_output("display_data", data={"text/plain": "more"})
    notebooks.code_cells(record)[1].outputs.append(added)


def more_than_verdicts(record):
    added = nbformat.v4.new_output("display_data", data={"text/html": "<b>more</b>"})
    notebooks.code_cells(record)[-1].outputs.append(added)


def measure_altered(record):
    record.metadata["ebmref"]["results"]["measures"]["one/mean"]["value"] += 1e-9


def measure_added(record):
    record.metadata["ebmref"]["results"]["measures"]["one/spare"] = {"value": 1.0}


def of_another_profile(record):
    record.metadata["ebmref"]["results"]["profile"] = "quick"


def of_another_seed(record):
    record.metadata["ebmref"]["results"]["seed"] = 7


def of_another_chapter(record):
    record.metadata["ebmref"]["results"]["chapter"] = "02-two"


def of_other_parameters(record):
    record.metadata["ebmref"]["parameters"] = {"n": 7}


def digest_gone(record):
    del record.metadata["ebmref"]["outputs"]


ALTERED = [
    (other_number, "the prose reads one/mean = 0.999 ± 0.001"),
    (same_digits_other_name, "not measured"),
    (other_figure, "outputs or results were changed"),
    (outputs_deleted, "one/mean was measured, and no output has it"),
    (output_added, "outputs or results were changed"),
    (more_than_verdicts, "verdicts are not those"),
    (measure_altered, "outputs or results were changed"),
    (measure_added, "one/spare was measured, and no output has it"),
    (of_another_profile, "records are full"),
    (of_another_seed, "of seed 7; the chapter's is 0"),
    (of_another_chapter, "the results of '02-two'"),
    (of_other_parameters, "with n set"),
    (digest_gone, "nothing tells whether its outputs"),
]


def test_sound(book):
    """As it was made, with its prose and verdicts renewed, and saved again as Jupyter saves."""
    assert faults(book) == ""
    path = book.record("01-one")
    before = notebooks.read(path).metadata["ebmref"]["outputs"]
    book.edit(book.source("01-one"), "Some prose", "Other prose")
    book.edit(book.claims("01-one"), "verdict: reproduced", "verdict: corrected")
    done = book.call("record", "--chapter", "01-one")
    assert "same code" in done.stderr and faults(book) == ""
    record = notebooks.read(path)
    assert record.metadata["ebmref"]["outputs"] == before
    path.write_text(json.dumps(record, indent=4))
    assert faults(book) == ""


@pytest.mark.parametrize("alter, words", ALTERED, ids=[alter.__name__ for alter, _ in ALTERED])
def test_altered(drawn, tmp_path, monkeypatch, alter, words):
    """Found, and named with the command that mends it."""
    shutil.copytree(drawn.root / "book", tmp_path / "book")
    for name, place in (("BOOK", "book"), ("CLAIMS", "book/claims"), ("MOVED", "book/moved.yml")):
        monkeypatch.setattr(notebooks, name, tmp_path / place)
    monkeypatch.setattr(notebooks, "ROOT", drawn.root)
    assert records.faults("01-one") == []
    path = notebooks.record_path("01-one")
    record = notebooks.read(path)
    alter(record)
    notebooks.write(record, path)
    told = records.faults("01-one")
    assert any(words in line for line in told)
    assert all("make record CHAPTER=01-one" in line for line in told)


def test_an_altered_record_is_made_anew(book):
    """Though its code is the same: it does not keep such outputs."""
    record = notebooks.read(book.record("01-one"))
    other_figure(record)
    notebooks.write(record, book.record("01-one"))
    assert "same code" not in book.call("record", "--chapter", "01-one").stderr
    assert faults(book) == ""


def test_executed_and_saved_by_a_notebook_program(book):
    """Its outputs are another run's: neither carried, nor rendered, and it is said what to do."""
    path = book.record("01-one")
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", str(path)]
    done = book.shell(*command, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    told = faults(book)
    assert "one/mean = " in told and "git checkout book/01-one.ipynb" in told
    for command in (["html"], ["carry", "--chapter", "01-one"]):
        done = book.call(*command)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert "01-one: the prose reads one/mean" in line


def test_a_run_that_was_altered_is_not_fresh(book):
    """Nor installed as a record: it is made again."""
    run = book.run_folder("full") / "01-one.ipynb"
    made = run.read_bytes()
    altered = notebooks.read(run)
    other_figure(altered)
    notebooks.write(altered, run)
    done = book.call("run", "--profile", "full")
    assert "02-two: unchanged" in done.stderr and "01-one: unchanged" not in done.stderr
    assert run.read_bytes() == made
