"""The front page: three verdicts that the ledger bears out, in few words, and how to cite."""

import sys

import pytest
import yaml

from ebmbook.claims import Check, Claim, LedgerError, Measure
from ebmbook.press import front, notebooks

sys.path.append(str(notebooks.BOOK / "_ext"))
import front_page

ENTRY = {
    "claim": "eq-1",
    "title": "A surprise",
    "verdict": "corrected",
    "told": "It is {glue:text}`hand/value`.",
    "holds": "hand/value 1..2",
}
CHECK = Check("hand/value", "at_most", 2, "by hand")
CLAIMS = [
    Claim(f"eq-{i}", f"chapter-{i}", "2.2", "It says.", "corrected", "It is not.", (CHECK,))
    for i in (1, 2, 3)
]


def load(tmp_path, *entries) -> list[front.Surprise]:
    path = tmp_path / "front.yml"
    path.write_text(yaml.safe_dump(list(entries)))
    return front.load_front(path)


def faults(tmp_path, *, value=1.5, claims=CLAIMS, **change) -> list[str]:
    """Of three entries, the first of them changed."""
    entries = [ENTRY | change, *(ENTRY | {"claim": f"eq-{i}"} for i in (2, 3))]
    measures = {claim.chapter: {"hand/value": Measure(1.5)} for claim in claims}
    measures["chapter-1"] = {"hand/value": Measure(value)}
    return list(front.faults(load(tmp_path, *entries), claims, measures))


def test_three_that_fit_have_no_fault(tmp_path):
    assert faults(tmp_path) == []


@pytest.mark.parametrize(
    "change, told",
    [
        ({"value": 3.0}, "eq-1: its words were written for hand/value 1..2, and the record has 3"),
        ({"verdict": "refuted"}, "eq-1: its words were written for 'refuted'; it is 'corrected'"),
        ({"claim": "eq-9"}, "eq-9: no such claim"),
        ({"claim": "eq-2"}, "2 verdicts of chapter-2; each is to be of another chapter"),
        ({"told": "Three."}, "eq-1: it has no {glue:text}"),
        ({"told": "{glue:text}`hand/other`"}, "eq-1: chapter-1 does not measure hand/other"),
        ({"holds": ""}, "eq-1: no 'holds' says for which hand/value its words are true"),
        ({"told": ENTRY["told"] * 20}, "characters, more than"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, change, told):
    found = faults(tmp_path, **change)
    assert any(told in line for line in found), found


@pytest.mark.parametrize("verdict", ["open", "reproduced"])
def test_what_was_to_be_expected_is_no_surprise(tmp_path, verdict):
    of = CLAIMS[0]
    one = Claim(of.id, of.chapter, of.where, of.says, verdict, of.finding, of.checks)
    assert any(
        f"that it is {verdict} surprises nobody" in line
        for line in faults(tmp_path, claims=[one, *CLAIMS[1:]])
    )


def test_another_number_of_them_is_told(tmp_path):
    found = front.faults(load(tmp_path, ENTRY), CLAIMS, {"chapter-1": {"hand/value": Measure(1.5)}})
    assert list(found) == ["front: 1 verdicts, and the page has room for 3"]


@pytest.mark.parametrize("text", ["- [1, 2]", "a: b", "- {claim: eq-1}", "- a: [", "- 3"])
def test_another_form_is_refused_in_a_line(tmp_path, text):
    path = tmp_path / "front.yml"
    path.write_text(text)
    with pytest.raises(LedgerError, match=r"front\.yml"):
        front.load_front(path)


def test_the_book_s_front_page_says_what_its_records_say():
    """Verdicts and numbers; a record that leaves a range wants its sentence read again."""
    claims = notebooks.claims_in_order()
    found = front.load_front(notebooks.BOOK / "front.yml")
    homes = {claim.chapter for claim in claims for one in found if claim.id == one.claim}
    measures = {}
    for chapter in homes:
        record = notebooks.read(notebooks.record_path(chapter))
        measures[chapter] = notebooks.results_of(record, chapter)["measures"]
    assert list(front.faults(found, claims, measures)) == []


def test_the_front_page_shows_what_it_is_for():
    text = (notebooks.BOOK / "index.md").read_text()
    for view in ("{ledger} summary", "{front} live ", "{front} verdicts", "{front} cite"):
        assert text.count(view) == 1, view
    # A newcomer's first questions, in this order.
    order = ["## An energy answers", "## Three verdicts", '## What "the report" is',
             "## Four ways to read", "## How to cite it", "## Chapters"]  # fmt: skip
    places = [text.index(heading) for heading in order]
    assert places == sorted(places)


GIVEN = {"title": "A Book", "version": "0.1.0", "authors": [{"name": "The authors"}]}


@pytest.mark.parametrize(
    "more, line, entries",
    [
        ({}, "The authors. *A Book.* Version 0.1.0.", 3),
        (
            {"date-released": "2026-12-01", "doi": "10.5281/1"},
            "The authors (2026). *A Book.* Version 0.1.0. <https://doi.org/10.5281/1>",
            5,
        ),
        (
            {"authors": [{"given-names": "Ada", "family-names": "Lovelace"}], "url": "https://a.b"},
            "Ada Lovelace. *A Book.* Version 0.1.0. <https://a.b>",
            4,
        ),
    ],
)
def test_how_to_cite(more, line, entries):
    told, bibtex = front_page.citation(GIVEN | more)
    assert told == line
    first, *rows, last = bibtex.splitlines()
    assert first == "@software{ebmref," and last == "}" and len(rows) == entries
    assert all(row.endswith("},") and row.count("{") == row.count("}") for row in rows)


def test_a_picture_of_no_chapter_is_none():
    path = notebooks.record_path("inference")
    kind, data, alt = front_page.recorded(path, "fig-descent-basins")
    assert kind == "png" and data.startswith(b"\x89PNG") and len(alt) > 40
    assert front_page.recorded(path, "fig-nowhere") is None
