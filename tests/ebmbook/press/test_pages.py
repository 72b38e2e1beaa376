"""What a reader gets: pages without the theme's faults, and notebooks that are complete."""

import html
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from books import Book

from ebmbook.press import downloads, notebooks, site

MORE = """\
See {eq}`eq-one`, {ref}`second`, {doc}`the other <02-two>`, {numref}`fig-one`, and of {cite:t}`one`
what {cite:p}`one,three` say.

$$
x = 1
$$ (eq-one)

|  | a |
|---|---|
| b | 1 |

```{exercise}
:label: ex-one

Why?
```

```{solution} ex-one
:class: dropdown

So.
```

```{exercise}
:label: ex-two

And {glue:text}`one/mean`?
```

```{code-cell}
:tags: [hide-input]
:mystnb:
:  figure:
:    name: fig-one
:    caption: "One number, {glue:text}`one/mean`."
:  image:
:    alt: a line

import matplotlib.pyplot as plt

from ebmbook import plots

fig, ax = plt.subplots()
plots.show(fig)
```

```{code-cell}
:tags: [nbval-check-output]
"""
BIB = """\
@article{one, author={Doe, Jane}, title={One}, journal={J}, year={2001}}
@misc{three, author={Doe, Jane and Roe, Richard and Poe, Ed}, title={T}, year={2003}}
"""


@pytest.fixture(scope="module")
def rendered(recorded_book, tmp_path_factory) -> Book:
    """A small book with every kind of thing that the chapters have, rendered; do not change it."""
    root = tmp_path_factory.mktemp("rendered") / "small"
    book = Book(shutil.copytree(recorded_book.root, root))
    book.edit(book.source("01-one"), "```{code-cell}\n:tags: [nbval-check-output]\n", MORE)
    book.edit(book.source("02-two"), "# Chapter two", "(second)=\n# Chapter two")
    (root / "book/references.bib").write_text(BIB)
    (root / "book/_static/live/one.js").write_text("// the live figure of fig-one\n")
    index = "# Small\n\nA small book, with a first paragraph that says what it is & does.\n\n"
    index += "```{ledger} all\n```\n\n```{ledger} rates\n```\n\n```{bibliography}\n```\n"
    (root / "book/index.md").write_text(index)
    commands = (["record"], ["sweep", "--seeds", "3..4", "--jobs", "2"], ["html"])
    for command in commands:
        done = book.call(*command)
        assert done.returncode == 0, done.stderr
    return book


@pytest.fixture(scope="module")
def page(rendered) -> str:
    return (rendered.root / "_build/html/book/01-one.html").read_text()


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())


def test_how_often_a_verdict_held_stands_beside_it(rendered, page):
    """On the chapter's page, in the whole ledger and in the table of rates."""
    told = "held in 2 of 2 runs (2 seeds: 0.16 to 1.00)"
    assert f"reproduced {told} The mean of" in text_of(page)
    index = text_of((rendered.root / "_build/html/book/index.html").read_text())
    assert index.count(f"claim-one reproduced {told}") == 1
    assert "Chapter one 2 of 2 runs (2 seeds: 0.16 to 1.00) as it is" in index
    assert "of earlier code" not in index and "Failed with seed" not in index


def test_rates_of_earlier_code_and_failures_are_said(rendered, tmp_path):
    """They are shown, with what they are of, and the seed that failed."""
    book = Book(Path(shutil.copytree(rendered.root, tmp_path / "copy")))
    file = book.root / "book/rates/01-one.json"
    book.edit(file, '"key": "', '"key": "0')
    book.edit(file, '"one/mean": [', '"one/mean": [5.0, ')
    book.edit(file, '"seed": 3', '"seed": 2, "machine": "avx2", "seconds": 1.0}, {"seed": 3')
    assert book.call("html").returncode == 0
    page = text_of((book.root / "_build/html/book/01-one.html").read_text())
    assert "held in 2 of 3 runs (3 seeds: 0.09 to 0.99), of earlier code" in page
    assert "wanted 0 within 1: holds; it failed with seed 2 avx2" in page
    index = text_of((book.root / "_build/html/book/index.html").read_text())
    assert "of earlier code" in index and "2 of 3 2 avx2" in index


def test_no_id_stands_twice(page):
    """Though two exercises are on the page."""
    ids = Counter(re.findall(r'\sid="([^"]*)"', page))
    assert "ex-one" in ids and "ex-two" in ids
    assert [name for name, n in ids.items() if n > 1] == []


def test_nothing_is_declared_twice_or_loads_a_kernel(page):
    assert re.search("thebe", page, re.IGNORECASE) is None
    declared = Counter(re.findall(r"\bconst (\w+) =", page))
    assert [name for name, n in declared.items() if n > 1] == []


def test_tables_have_headers_that_say_something_and_scroll_by_keyboard(page):
    assert "<th" in page and re.search(r"<th\b[^>]*>\s*(<p>\s*</p>)?\s*</th>", page) is None
    scrolls = re.findall(r'<div class="pst-scrollable-table-container"[^>]*>', page)
    assert scrolls and all('tabindex="0"' in found for found in scrolls)


def test_buttons_are_called_what_they_read(page):
    """Who speaks to a page says what is to be seen."""
    assert "<summary>" in page and "<summary aria-label" not in page
    (search,) = re.findall('<button class="btn search-button-field[^>]*>', page)
    assert "aria-label" not in search


def test_a_live_figure_loads_its_scripts_on_its_page_alone(rendered, page):
    """In order, after the page is read, as plain files that a page from the disk can load; the
    picture of the record is there for those without scripts."""
    scripts = re.findall(r'<script ([^>]*)src="\.\./(_static/live/[^"?]*)[^>]*></script>', page)
    named = [f"_static/live/{name}" for name in ("kit/pen.js", "kit/live.js", "one.js")]
    assert [name for _, name in scripts] == named
    assert all("defer" in how and "module" not in how for how, _ in scripts)
    assert re.search(r'<link [^>]*href="\.\./_static/live/kit/live\.css', page)
    assert all((rendered.root / "_build/html" / name).is_file() for name in named)
    assert re.search(r'<figure[^>]* id="fig-one">\s*<img ', page)
    for other in ("02-two", "index"):
        assert "_static/live" not in (rendered.root / f"_build/html/book/{other}.html").read_text()


def test_pages_are_described(rendered):
    page = (rendered.root / "_build/html/book/index.html").read_text()
    told = "A small book, with a first paragraph that says what it is &amp; does."
    assert f'<meta name="description" content="{told}" />' in page


def test_figures_have_no_card_in_the_dark(rendered):
    """Our rule must name as much as the theme's strongest one, since it comes after it."""
    ours = (rendered.root / "_build/html/_static/book.css").read_text()
    theme = (rendered.root / "_build/html/_static/styles/pydata-sphinx-theme.css").read_text()
    selector = "html[data-theme=dark] .bd-content div.cell_output img"
    assert selector in theme
    assert f"{selector.replace('=dark', '=' + chr(34) + 'dark' + chr(34))}:not(" in ours


def luminance(colour: str) -> float:
    """Of "#rrggbb", by WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


@pytest.mark.parametrize(
    "theme, grounds",
    [("light", ["#ffffff", "#f3f4f5", "#ecf3ff"]), ("dark", ["#121212", "#29313d"])],
)
def test_links_can_be_read_where_they_stand(rendered, theme, grounds):
    """On the page, in tables and in exercises: WCAG's 4.5 to 1."""
    css = (rendered.root / "_build/html/_static/book.css").read_text()
    colour = re.search(rf'data-theme="{theme}"\] {{[^}}]*--pst-color-link: (#\w{{6}});', css)[1]
    for ground in grounds:
        dark, light = sorted([luminance(colour), luminance(ground)])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, ground


def test_a_new_style_reaches_the_pages(rendered, tmp_path):
    """Though no page has changed."""
    book = Book(shutil.copytree(rendered.root, tmp_path / "copy"))
    with (book.root / "book/_static/book.css").open("a") as file:
        file.write("/* new */\n")
    done = book.call("html")
    assert done.returncode == 0, done.stderr
    assert "/* new */" in (book.root / "_build/html/_static/book.css").read_text()


@pytest.fixture(scope="module")
def notebook(rendered) -> nbformat.NotebookNode:
    path = rendered.root / "_build/html/_sources/book/01-one.ipynb"
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


class TestDownload:
    """The notebook behind a page's button."""

    def test_numbers_and_references_are_filled_in(self, rendered, prose):
        record = notebooks.read(rendered.record("01-one"))
        mean = str(notebooks.results_of(record, "01-one")["measures"]["one/mean"])
        assert f"the number {mean}." in prose
        assert f"**Exercise.** And {mean}?" in prose
        assert f"**Fig. 1.1.** One number, {mean}." in prose
        assert "See (1.1), Chapter two, the other, Fig. 1.1, and of Doe (2001)" in prose
        assert "what (Doe, 2001, Doe et al., 2003) say" in prose
        assert "x = 1 \\tag{1.1}\n$$" in prose
        assert "<details><summary>Solution</summary>\n\nSo.\n\n</details>" in prose
        assert f"`one/mean` = **{mean}**; wanted 0 within 1: holds" in prose

    def test_nothing_is_left_that_only_sphinx_reads(self, notebook, prose):
        assert re.findall(r"\{[\w:-]+\}`|^(?:```|:::)\{|^\(.*\)=$", prose, re.MULTILINE) == []
        assert set(notebook.metadata) <= {"kernelspec", "language_info"}
        shown = [out for cell in notebooks.code_cells(notebook) for out in cell.outputs]
        assert any("image/svg+xml" in out.get("data", {}) for out in shown)
        assert not any("papermill" in str(out.get("data", {}).keys()) for out in shown)

    def test_it_runs_anew(self, rendered, notebook, tmp_path):
        """From its first cell, which finds the package here, to its last."""
        nbformat.write(notebook, tmp_path / "one.ipynb")
        command = [sys.executable, "-m", "papermill", "one.ipynb", "out.ipynb"]
        done = rendered.shell(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize(
        "origin, expected",
        [
            ("https://example.org/a/b.git", "ebmref @ git+https://example.org/a/b.git@"),
            ("https://me:secret@example.org/a/b", "ebmref @ git+https://example.org/a/b@"),
            ("git@example.org:a/b.git", "ebmref @ git+https://example.org/a/b.git@"),
            ("ssh://git@example.org/a/b.git", "ebmref @ git+https://example.org/a/b.git@"),
            ("../elsewhere", "."),
            (None, "."),
        ],
    )
    def test_the_first_cell_installs_this_commit(self, monkeypatch, notebook, origin, expected):
        def git(*args: str) -> str:
            if origin is None:
                raise subprocess.CalledProcessError(2, args)
            return origin if args[0] == "remote" else "0123abcd"

        monkeypatch.setattr(downloads.records, "git", git)
        assert downloads.package() == (f"{expected}0123abcd" if expected != "." else ".")
        first = notebook.cells[0]
        assert first.cell_type == "code" and "%pip install" in first.source


@pytest.mark.parametrize(
    "log, cause",
    [
        ("a\nbook/x.md:3: WARNING: unknown document: 'y'\nb\n", "book/x.md:3: WARNING: unknown"),
        ("Traceback\nModuleNotFoundError: No module named 'x'\nRuntimeError: \n", "ModuleNotFound"),
        ("python: No module named jupyter_book\n", "python: No module named jupyter_book"),
        ("bin/python: cannot execute\n", "bin/python: cannot execute"),
        ("", "it said nothing"),
    ],
)
def test_the_cause_of_a_failed_build(log, cause):
    assert site.cause_of(log).startswith(cause)


def test_a_clone_that_was_renamed_renders(recorded_book, tmp_path):
    """No console script is asked for, whose first line has the folder's old name; and it is this
    checkout's code that reads the pages, whichever is installed."""
    book = Book(shutil.copytree(recorded_book.root, tmp_path / "renamed"))
    with (book.root / "ebmbook/claims.py").open("a") as file:
        file.write("RENAMED = True\n")
    extension = book.root / "book/_ext/ledger_page.py"
    extension.write_text(extension.read_text() + "\nassert claims.RENAMED\n")
    environment = book.environment() | {"PATH": "/usr/bin:/bin"}
    environment.pop("PYTHONPATH")
    done = subprocess.run(
        book.command("html"), cwd=book.root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
