"""What a reader gets: pages without the theme's faults, and notebooks that are complete."""

import html
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from books import Book

from ebmbook.press import notebooks, site

sys.path.append(str(notebooks.BOOK / "_ext"))
import code_pages

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

ERRATA = """\
- claim: claim-one
  title: $n$ is missing
  printed: the mean is small
  correct: it is about $1 / \\sqrt n$
  proof: the variance of a mean
  number: it is {glue:text}`one/mean`
  holds: one/mean -1..1
  consequence: none
"""

FRONT = """\
- claim: claim-one
  title: Nobody expected it
  verdict: reproduced
  told: It is {glue:text}`one/mean`.
  holds: one/mean -1..1
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
    index += "See {claim}`claim-one`.\n\n"
    index += "```{ledger} rates\n```\n\n```{bibliography}\n```\n"
    (root / "book/index.md").write_text(index)
    (root / "book/ledger.md").write_text("# Ledger\n\n## All\n\n```{ledger} all\n```\n")
    errata = "# Errata\n\n```{errata}\n```\n\n## Too wide\n\n```{errata} too-wide\n```\n"
    errata += "\n## Front\n\n```{front} verdicts\n```\n\n```{front} live 01-one/fig-one\n```\n"
    (root / "book/front.yml").write_text(FRONT)
    (root / "book/errata.md").write_text(errata)
    (root / "book/errata.yml").write_text(ERRATA)
    with (root / "_toc.yml").open("a") as toc:
        toc.write("      - file: book/ledger\n      - file: book/errata\n")
    commands = (["record"], ["sweep", "--seeds", "3..4", "--jobs", "2"], ["html"])
    for command in commands:
        done = book.call(*command)
        assert done.returncode == 0, done.stderr
    return book


@pytest.fixture(scope="module")
def page(rendered) -> str:
    return (rendered.root / "_build/html/book/01-one.html").read_text()


def page_of(book: Book, name: str) -> str:
    return (book.root / f"_build/html/book/{name}.html").read_text()


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())


def test_how_often_a_verdict_held_stands_beside_it(rendered, page):
    """On the chapter's page, in the whole ledger and in the table of rates."""
    told = "held in 2 of 2 runs (2 seeds: 0.16 to 1.00)"
    assert f"One reproduced (1) {told} The mean of" in text_of(page)
    assert text_of(page_of(rendered, "ledger")).count(f"One ✓ reproduced {told} The") == 1
    index = text_of(page_of(rendered, "index"))
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


class Elements(HTMLParser):
    """The elements of a page, each with its tag, its attributes and the text within it."""

    VOID = ("br", "circle", "hr", "img", "input", "link", "meta", "path")

    def __init__(self, page: str):
        super().__init__()
        self.all, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.all.append((tag, dict(attrs), []))
        if tag not in self.VOID:
            self.open.append(self.all[-1])

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            if tag in ("dd", "dt", "h2", "li", "p", "td", "th"):
                self.handle_data(" ")
            assert self.open.pop()[0] == tag, (tag, self.getpos())

    def handle_data(self, data):
        for _, _, text in self.open:
            text.append(data)

    def find(self, tag: str = "", name: str = "") -> list[tuple[dict, str]]:
        """Those of a tag and a class."""
        return [
            (attrs, " ".join("".join(text).split()))
            for got, attrs, text in self.all
            if (not tag or got == tag) and (not name or name in (attrs.get("class") or "").split())
        ]


@pytest.fixture(scope="module")
def ledger(rendered) -> Elements:
    """Of the ledger's page, closed in order, which the parser asserts."""
    return Elements(page_of(rendered, "ledger"))


@pytest.fixture(scope="module")
def rows(ledger) -> dict[str, tuple[dict, str]]:
    return {attrs["id"]: (attrs, text) for attrs, text in ledger.find("tbody", "claim")}


class TestInstrument:
    """The ledger's page: a row a claim, with all that its verdict stands on."""

    def test_every_claim_has_a_row_and_the_map_leads_to_it(self, ledger, rows):
        assert list(rows) == ["eq-1", "eq-2", "claim-one", "claim-two"]
        links = {attrs["href"]: attrs["aria-label"] for attrs, _ in ledger.find("a", "chip")}
        assert links.keys() == {f"#{name}" for name in rows}
        assert links["#eq-1"] == "Equation R1: open"

    def test_a_row_says_all_without_a_script(self, rendered, rows):
        record = notebooks.read(rendered.record("01-one"))
        mean = str(notebooks.results_of(record, "01-one")["measures"]["one/mean"])
        attrs, text = rows["claim-one"]
        assert (attrs["data-verdict"], attrs["data-section"]) == ("reproduced", "1")
        assert attrs["data-chapter"] == "01-one" and "hidden" not in attrs
        assert "It is. Erratum, with proof" in text and "1 check, it holds" in text
        assert f"Some prose, and the number {mean}. {mean}, wanted 0 within 1 one/mean ten" in text
        assert "Record made on " in text and " from commit " in text
        assert "Not looked into yet." in rows["eq-1"][1] and "Record" not in rows["eq-1"][1]

    def test_a_row_leads_to_section_cell_and_code(self, rendered, ledger):
        links = {text: attrs["href"] for attrs, text in ledger.find("a")}
        assert links["Chapter one"].startswith("01-one.html")
        (cell,) = {attrs["href"] for attrs, text in ledger.find("a")
                   if text == "this cell" and attrs["href"].startswith("01")}  # fmt: skip
        shown = Elements(page_of(rendered, "01-one"))
        (text,) = [text for attrs, text in shown.find("div", "cell")
                   if f"01-one.html#{attrs.get('id')}" == cell]  # fmt: skip
        assert 'ledger.measure("one/mean"' in text

    def test_a_check_has_its_picture(self, ledger):
        pictures = ledger.find("svg", "gauge")
        assert len(pictures) == 2 == len(ledger.find("circle", "good"))
        assert all("wanted 0 within 1: holds" in attrs["aria-label"] for attrs, _ in pictures)

    def test_the_filter_waits_for_its_script(self, rendered, ledger):
        (form,) = ledger.find("form", "ledger-filter")
        assert "hidden" in form[0]
        scripts = [attrs for attrs, _ in ledger.find("script")
                   if "ledger.js" in attrs.get("src", "")]  # fmt: skip
        assert len(scripts) == 1 and "defer" in scripts[0] and "type" not in scripts[0]
        assert "ledger.js" not in page_of(rendered, "index")

    def test_chapter_and_ledger_lead_to_each_other(self, rendered):
        for name in ("01-one", "index"):
            links = Elements(page_of(rendered, name)).find("a", "claim-link")
            found = [(attrs["href"], text) for attrs, text in links if "claim-one" in attrs["href"]]
            assert found == [("ledger.html#claim-one", "One reproduced")]

    def test_no_page_of_the_ledger_means_no_link(self, recorded_book, tmp_path):
        book = Book(Path(shutil.copytree(recorded_book.root, tmp_path / "copy")))
        done = book.call("html")
        assert done.returncode == 0, done.stderr
        shown = Elements(page_of(book, "01-one"))
        assert shown.find("a", "claim-link") == []
        assert [text for _, text in shown.find("span", "claim-link")] == [
            "One reproduced", "Equation (R1) open"
        ]  # fmt: skip

    def test_a_broken_claim_shows_everywhere(self, rendered, tmp_path):
        """A threshold that is moved turns it back to open on every page, and in the status."""
        book = Book(Path(shutil.copytree(rendered.root, tmp_path / "copy")))
        book.edit(book.claims("01-one"), "tolerance: 1", "tolerance: 1.0e-9")
        assert book.call("html").returncode == 0
        ledger = Elements(page_of(book, "ledger"))
        rows = {attrs["id"]: (attrs, text) for attrs, text in ledger.find("tbody", "claim")}
        attrs, text = rows["claim-one"]
        assert attrs["data-verdict"] == "open" and "1 check, 1 FAILS" in text
        assert "reproduced is not borne out" in text and "within 1e-09 FAILS" in text
        assert len(ledger.find("path", "bad")) == 1
        assert rows["claim-two"][0]["data-verdict"] == "reproduced"
        for name in ("01-one", "index", "errata"):
            links = Elements(page_of(book, name)).find("a", "claim-link")
            assert "One open: reproduced not borne out" in [text for _, text in links], name
        ((_, text),) = Elements(page_of(book, "errata")).find("div", "front-verdicts")
        assert "One open: reproduced not borne out" in text
        done = book.call("check", "--chapter", "01-one")
        assert done.returncode != 0


class TestFront:
    """What the first page draws from the book."""

    def test_a_verdict_in_few_words_leads_to_its_proof(self, rendered):
        record = notebooks.read(rendered.record("01-one"))
        mean = str(notebooks.results_of(record, "01-one")["measures"]["one/mean"])
        page = Elements(page_of(rendered, "errata"))
        ((_, text),) = page.find("div", "front-verdicts")
        told = "One reproduced The proof Chapter one"
        assert text == f"Nobody expected it It is {mean}. {told}"
        links = {text: attrs["href"] for attrs, text in page.find("a")}
        assert links["One reproduced"] == "ledger.html#claim-one"
        assert links["The proof"].endswith("#claim-one")

    def test_a_figure_is_the_record_s_and_live(self, rendered):
        """Its script comes with it, and its number stays the chapter's."""
        page = Elements(page_of(rendered, "errata"))
        ((figure, text),) = page.find("figure", "front-figure")
        assert figure["id"] == "fig-one" and text == ""
        assert {"one.js", "live.js", "pen.js"} <= {
            attrs["src"].partition("?")[0].rpartition("/")[2]
            for attrs, _ in page.find("script") if "src" in attrs
        }  # fmt: skip
        shown = page_of(rendered, "01-one")
        pictures = [
            (rendered.root / "_build/html/book" / attrs["src"]).read_bytes()
            for of in (page_of(rendered, "errata"), shown)
            for attrs, _ in Elements(of).find("img")
        ]
        assert pictures[0] == pictures[-1]

    def test_pictures_and_formulas_keep_their_place(self, page):
        ((attrs, _),) = Elements(page).find("img")
        assert int(attrs["width"]) > 100 < int(attrs["height"]) and attrs["decoding"] == "async"
        ((formula, _),) = Elements(page).find("div", "math")
        assert formula["style"].startswith("min-height: ")

    def test_icons_and_fonts_that_no_page_shows_are_not_loaded(self, rendered, page):
        assert "fa-solid-900" in page and "fa-brands-400" not in page
        (script,) = rendered.root.glob("_build/html/_static/vendor/fontawesome/*/js/all.min.js")
        assert script.stat().st_size < 150_000 and "bars:[" in script.read_text()


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize(
    "asked, shown, told, opened",
    [
        ("", 4, "4 of 4 claims of the report and 0 of 0", []),
        ("?verdict=open", 2, "2 of 4", []),
        ("?chapter=01-one&verdict=reproduced", 1, "1 of 4", []),
        ("?section=1&q=tHREE+lines", 2, "2 of 4", []),
        ("?verdict=nonsense&q=absent", 0, "0 of 4", []),
        # What is linked to is shown, whatever was asked for.
        ("?verdict=open#claim-two", 4, "4 of 4", ["claim-two"]),
    ],
)
def test_the_filter(rendered, tmp_path, asked, shown, told, opened):
    """From the disk, with the state in the address."""
    address = (rendered.root / "_build/html/book/ledger.html").as_uri() + asked
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000", address]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    page = Elements(done.stdout)
    rows = page.find("tbody", "claim")
    assert len([attrs for attrs, _ in rows if "hidden" not in attrs]) == shown
    (form,) = page.find("form", "ledger-filter")
    assert "hidden" not in form[0] and told in form[1]
    sections = [attrs for attrs, _ in page.find("section", "ledger-section")]
    assert [attrs for attrs in sections if "hidden" not in attrs] == (sections if shown else [])
    inside = [attrs["id"] for attrs, _ in rows]
    found = [name for name, (attrs, _) in zip(["claim-one", "claim-two"], page.find("details"),
             strict=False) if "open" in attrs]  # fmt: skip
    assert found == opened and len(inside) == 4


class TestErrata:
    """The page of errata, from a file beside the claims."""

    def test_an_error_is_told_with_its_number(self, rendered):
        record = notebooks.read(rendered.record("01-one"))
        mean = str(notebooks.results_of(record, "01-one")["measures"]["one/mean"])
        page = Elements(page_of(rendered, "errata"))
        (section,) = [text for attrs, text in page.find("section", "erratum")
                      if attrs["id"] == "claim-one"]  # fmt: skip
        assert section.startswith(r"4.1. One: \(n\) is missing")
        assert f"The number it is {mean} If you used it none" in section
        assert "Section 1 of the report. One reproduced Measured in Chapter one." in section

    def test_what_is_missing_ends_the_build_in_a_line(self, rendered, tmp_path):
        book = Book(Path(shutil.copytree(rendered.root, tmp_path / "copy")))
        book.edit(book.root / "book/errata.yml", "one/mean`", "one/median`")
        done = book.call("html")
        assert done.returncode == 1
        assert "errata: claim-one: 01-one does not measure one/median" in done.stderr


def test_references_are_items_of_their_list(rendered):
    page = page_of(rendered, "index")
    assert page.count('role="list" class="citation-list"') == 1
    assert page.count('<div class="citation" ') == page.count('role="listitem"') > 0


def test_listings_show_definitions_where_they_stand():
    text = (
        '"""Two\nlines."""\n\n\n@wraps\ndef one(x):\n    return x < 1\n\n\nclass Two:\n    pass\n'
    )
    shown = code_pages.listing(text)
    lines = re.sub("<[^>]*>", "", shown).splitlines()
    assert [html.unescape(line) for line in lines] == text.splitlines()
    assert [line.partition('"')[2].partition('"')[0] for line in shown.splitlines()
            if "id=" in line] == ["one", "Two"]  # fmt: skip


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

    def test_its_first_cell_installs_the_package(self, notebook):
        first = notebook.cells[0]
        assert first.cell_type == "code" and 'PACKAGE = "."' in first.source


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
