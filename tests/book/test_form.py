"""The form of a page that begins with a box: the idea in short cells, measurement out of sight, and
no number that is measured and neither told nor checked."""

import re
import statistics

import pytest

from ebmbook.press import notebooks, wording

SOURCES = {chapter: notebooks.source_path(chapter).read_text() for chapter in notebooks.chapters()}
IN_FORM = [chapter for chapter, text in SOURCES.items() if "{admonition} In short" in text]


@pytest.mark.parametrize("chapter", IN_FORM)
class TestForm:
    def test_it_begins_with_an_answer_and_ends_with_what_to_remember(self, chapter):
        text = SOURCES[chapter]
        assert f"```{{ledger}} badges {chapter}" in text
        assert "\n## What to remember\n" in text and "\n```{exercise}\n" in text

    def test_visible_cells_are_short_and_none_enters_a_number(self, chapter):
        cells = [cell for cell in notebooks.draft(chapter).cells if cell.cell_type == "code"]
        shown = [cell.source for cell in cells if "hide-input" not in cell.metadata.get("tags", [])]
        lengths = [len(source.splitlines()) for source in shown]
        assert max(len(cell.source.splitlines()) for cell in cells) <= 25
        assert statistics.median(lengths) <= 12
        entered = re.compile(r"ledger\.(enter|measure)\(")
        assert [source for source in shown if entered.search(source)] == []

    def test_what_is_measured_is_told_or_checked(self, chapter):
        record = notebooks.read(notebooks.record_path(chapter))
        measured = set(notebooks.results_of(record, chapter)["measures"])
        told = set(re.findall(r"\{glue:text\}`([^`]+)`", SOURCES[chapter]))
        checked = {
            check.measure
            for claim in notebooks.claims_in_order()
            if claim.chapter == chapter
            for check in claim.checks
        }
        assert measured - told - checked == set()

    def test_the_words_are_true_of_the_record(self, chapter):
        """A new record that leaves a range is no mistake: read the paragraph it names again."""
        assert wording.faults(chapter) == []


def test_some_page_has_the_form():
    assert "likelihood" in IN_FORM
