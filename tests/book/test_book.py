"""The real book: every record is of its source, every claim of the report is in the ledger."""

import re
from pathlib import Path

import jupytext
import pytest
import yaml
from jupytext.config import load_jupytext_config

from ebmbook import claims
from ebmbook.press import notebooks, records, site

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = notebooks.chapters()
SYSTEMS = ["ebm-inference", "concept-learning", "free-energy", "gan", "mh-gan", "travelgan"]
SYSTEMS += ["cyclegan", "rejection", "importance", "metropolis", "gebm", "ddls"]
CLAIMS = claims.load_claims(notebooks.CLAIMS)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_record_is_of_its_source(chapter):
    """Edited source, stale verdicts, an unexecuted or swollen record: each names the command."""
    assert records.faults(chapter) == []


def test_every_text_notebook_is_in_the_table_of_contents():
    """A chapter nobody lists would be neither run nor judged."""
    sources = [path for path in (ROOT / "book").glob("*.md") if "kernelspec:" in path.read_text()]
    assert sorted(path.stem for path in sources) == sorted(CHAPTERS)


def test_every_numbered_thing_of_the_report_is_claimed():
    """Equations 1 to 21, figures 1 to 8, theorems 1 and 2, definition 1, and the systems."""
    numbered = {f"eq-{i}" for i in range(1, 22)} | {f"fig-{i}" for i in range(1, 9)}
    wanted = numbered | {"thm-1", "thm-2", "def-1"} | {f"sys-{name}" for name in SYSTEMS}
    assert wanted - {claim.id for claim in CLAIMS} == set()


@pytest.mark.parametrize("chapter", CHAPTERS)
class TestChapter:
    """What a reader and a machine may rely on in each source."""

    def test_parameters(self, chapter):
        """Profile, seed and device can be set from outside."""
        assert {"profile", "seed", "device"} <= set(notebooks.parameters(chapter))

    def test_figures_have_captions_and_alt_text(self, chapter):
        for cell in notebooks.draft(chapter).cells:
            if re.search(r"plots\.(show|animate)\(", cell.source):
                texts = cell.metadata["mystnb"]
                assert len(texts["figure"]["caption"]) > 40, cell.source
                assert len(texts["image"]["alt"]) > 40, cell.source

    def test_code_fits_the_page(self, chapter):
        """Beyond 76 characters a reader has to scroll sideways."""
        lines = [
            line
            for cell in notebooks.draft(chapter).cells
            if cell.cell_type == "code"
            for line in cell.source.splitlines()
        ]
        assert [line for line in lines if len(line) > 76] == []

    def test_a_notebook_program_saves_it_as_it_is(self, chapter):
        """Captions are wrapped as YAML wraps them, so that a save shows what was edited alone."""
        path = notebooks.source_path(chapter)
        notebook = jupytext.read(path)
        config = load_jupytext_config(str(path))
        saved = jupytext.writes(notebook, fmt="md:myst", config=config)
        assert saved.splitlines() == path.read_text().splitlines()

    def test_verdict_lines_are_compared(self, chapter):
        """The last code cell prints the verdicts under nbval's eye."""
        last = [cell for cell in notebooks.draft(chapter).cells if cell.cell_type == "code"][-1]
        assert last.source.strip() == "ledger.verdicts()"
        assert "nbval-check-output" in last.metadata["tags"]

    def test_every_settled_claim_stands_on_numbers_of_the_record(self, chapter):
        record = notebooks.read(notebooks.record_path(chapter))
        measures = notebooks.results_of(record, chapter)["measures"]
        judged = [claims.judge(claim, measures) for claim in CLAIMS if claim.chapter == chapter]
        assert [got.line() for got in judged if not got.holds] == []

    def test_data_are_looked_for_at_the_start(self, chapter):
        """What `book/data.yml` says is what the chapter picks, and all that its record read."""
        source, names = notebooks.source_path(chapter).read_text(), notebooks.parameters(chapter)
        declared = yaml.safe_load((ROOT / "book/data.yml").read_text()).get(chapter, {})
        record = notebooks.results_of(notebooks.read(notebooks.record_path(chapter)), chapter)
        assert bool(declared) == ("download" in names) == bool(record.get("data"))
        for name, sets in declared.items():
            assert names[name] is None and set(sets) == {"full"}
            assert re.search(rf'(?:full=|^ +)"{sets["full"]}"', source, re.M), name

    def test_glued_numbers_were_measured(self, chapter):
        """A typed name that nobody measured would render as an error or, worse, not at all."""
        record = notebooks.read(notebooks.record_path(chapter))
        measured = notebooks.results_of(record, chapter)["measures"]
        text = notebooks.source_path(chapter).read_text()
        assert set(re.findall(r"\{glue:text\}`([^`]+)`", text)) - set(measured) == set()


def test_old_addresses_lead_to_pages():
    """Each goes to a page of the book, and none is a page's own address."""
    toc = (ROOT / "_toc.yml").read_text()
    pages = {Path(file).stem for file in re.findall(r"file: (\S+)", toc)}
    moved = yaml.safe_load(site.MOVED.read_text())
    assert set(moved.values()) <= pages
    assert not set(moved) & pages
    assert {"01-why-energy", "06b-gan-pictures", "13-ledger"} <= set(moved)


def test_no_number_of_a_chapter_is_typed():
    """Order and numbers are the table of contents'; a typed one would be wrong after a change."""
    sources = [*(ROOT / "book").glob("*.md"), *notebooks.CLAIMS.glob("*"), ROOT / "README.md"]
    for path in sources:
        text = path.read_text()
        assert re.findall(r"(?i)\bchapters? \d+\w?|\b\d\d\w?-(?:gan|ddls|mcmc)", text) == [], path


def test_equations_of_the_report_are_told_from_the_books():
    """(R4) is the report's; the book's own are numbered by chapter and cited by label."""
    for path in (ROOT / "book").glob("*.md"):
        named = re.findall(r"(?i)equations? \(?\d+\)?", path.read_text())
        assert named == [], path


@pytest.mark.parametrize("page", sorted(path.stem for path in notebooks.BOOK.glob("*.md")))
def test_no_formula_of_a_line_is_cut_by_a_list(page):
    """A line of text that begins with a sign and a space is an item, also within a formula."""
    open_ = False
    for line in (notebooks.BOOK / f"{page}.md").read_text().splitlines():
        if not line.strip() or line.startswith("```"):
            open_ = False
        assert not (open_ and re.match(r"\s*([-+*]|\d+[.)])\s", line)), line
        open_ ^= len(re.findall(r"(?<!\\)\$", line)) % 2 == 1


def test_citations_are_in_the_bibliography():
    """Every key cited in a page has an entry, and every entry is cited."""
    entries = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "book/references.bib").read_text(), re.M))
    text = "".join(path.read_text() for path in (ROOT / "book").glob("*.md"))
    cited = {key.strip() for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
             for key in keys.split(",")}  # fmt: skip
    assert cited == entries


def test_claims_of_the_ledger_have_known_homes():
    """A claim's chapter is one of the plan, so that none is filed under a misspelt name."""
    files = {path.stem for path in notebooks.CLAIMS.glob("*.yml")}
    assert files == set(CHAPTERS)
