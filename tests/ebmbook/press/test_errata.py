"""The errata: a strict form, and nothing in them that the ledger does not bear out."""

import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from ebmbook.claims import Check, Claim, LedgerError, Measure
from ebmbook.press import errata, notebooks

ENTRY = {
    "claim": "eq-4",
    "title": "a sign",
    "printed": "plus",
    "correct": "minus",
    "proof": "by hand",
    "number": "it is {glue:text}`hand/value`",
    "holds": "hand/value 1..2",
    "consequence": "none",
}
CHECK = Check("hand/value", "at_most", 2, "by hand")


def claim(name: str, verdict: str = "corrected", where: str = "2.2") -> Claim:
    return Claim(name, "chapter", where, "It says.", verdict, "It is not.", (CHECK,))


def load(tmp_path, *entries) -> list[errata.Erratum]:
    path = tmp_path / "errata.yml"
    path.write_text(yaml.safe_dump(list(entries)))
    return errata.load_errata(path)


def faults(*errors: errata.Erratum, claims=None, value: float = 1.5) -> list[str]:
    claims = [claim("eq-4")] if claims is None else claims
    return list(errata.faults(errors, claims, {"chapter": {"hand/value": Measure(value)}}))


def test_the_form_is_one():
    Draft202012Validator.check_schema(json.loads(errata.SCHEMA.read_text()))


def test_an_erratum_that_fits_has_no_fault(tmp_path):
    (one,) = load(tmp_path, ENTRY)
    assert faults(one) == []
    assert one.measures == ["hand/value"]
    assert one.told({"hand/value": Measure(1.5)}) == "it is 1.5"


@pytest.mark.parametrize(
    "change, told",
    [
        ({"proof": None}, "eq-4: field 'proof' is missing"),
        ({"proof": ""}, "eq-4: field 'proof' is missing"),
        ({"proof": "x" * 421}, "eq-4: field 'proof' has 421 characters, and 420 are two lines"),
        ({"colour": "red"}, "eq-4: unknown field 'colour'"),
        ({"claim": "paper-cd"}, "paper-cd: field 'claim' must be a claim of the report"),
        ({"also": "eq-5"}, "eq-4: field 'also' must be array, got 'eq-5'"),
        ({"title": 3}, "eq-4: field 'title' must be string, got 3"),
    ],
)
def test_bad_entries_say_what_is_wrong_in_a_line(tmp_path, change, told):
    with pytest.raises(LedgerError) as caught:
        load(tmp_path, ENTRY | change)
    assert str(caught.value).startswith(f"errata.yml: {told}")
    assert "\n" not in str(caught.value)


def test_missing_fields_and_files_are_named(tmp_path):
    with pytest.raises(LedgerError, match="eq-4: field 'printed' is missing"):
        load(tmp_path, {key: got for key, got in ENTRY.items() if key != "printed"})
    with pytest.raises(LedgerError, match="erratum 1: expected fields, got 'text'"):
        load(tmp_path, "text")
    with pytest.raises(LedgerError, match=r"absent\.yml: cannot be read"):
        errata.load_errata(tmp_path / "absent.yml")


@pytest.mark.parametrize("verdict", ["corrected", "refuted"])
def test_a_claim_that_is_wrong_needs_an_erratum(tmp_path, verdict):
    (one,) = load(tmp_path, ENTRY)
    other = claim("eq-5", verdict)
    told = [f"errata: eq-5 is {verdict}, and no erratum tells it"]
    assert faults(one, claims=[claim("eq-4"), other]) == told
    (both,) = load(tmp_path, ENTRY | {"also": ["eq-5"]})
    assert faults(both, claims=[claim("eq-4"), other]) == []


@pytest.mark.parametrize("name", ["eq-5", "paper-cd"])
def test_a_claim_that_is_right_or_a_papers_needs_none(tmp_path, name):
    (one,) = load(tmp_path, ENTRY)
    verdict = "corrected" if name.startswith("paper") else "qualified"
    assert faults(one, claims=[claim("eq-4"), claim(name, verdict)]) == []


def test_what_the_ledger_does_not_bear_out_is_named(tmp_path):
    (one,) = load(tmp_path, ENTRY)
    assert "errata: eq-4: no such claim" in faults(one, claims=[])
    (told,) = faults(one, claims=[claim("eq-4", "reproduced")])
    assert told == "errata: eq-4: its verdict is 'reproduced', so it is no error"
    assert faults(one, one) == ["errata: eq-4: it stands twice"]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"number": "it is 3", "holds": ""}, "errata: eq-4: its number has no {glue:text}"),
        ({"number": "{glue:text}`a/b`", "holds": "a/b 1.."}, "eq-4: chapter does not measure a/b"),
        ({"holds": ""}, "eq-4: no 'holds' says for which hand/value its words are true"),
        ({"holds": "hand/value"}, "errata: eq-4: holds: 'hand/value'; expected"),
        ({"holds": "hand/value 2..3"}, "were written for hand/value 2..3, and the record has 1.5"),
    ],
)
def test_numbers_are_held_to_the_record(tmp_path, change, told):
    (one,) = load(tmp_path, ENTRY | change)
    (found,) = faults(one)
    assert told in found


def test_order_is_the_reports(tmp_path):
    claims = [claim("eq-4", where="2.2.2"), claim("eq-5", where="2.2.1"), claim("eq-6")]
    found = load(tmp_path, *(ENTRY | {"claim": one.id} for one in claims))
    assert [one.claim for one in errata.in_order(found, claims)] == ["eq-6", "eq-5", "eq-4"]


def test_the_books_errata_are_of_its_ledger():
    """Every error of the report has its erratum, and each stands on numbers of the records."""
    measures = {}
    for chapter in notebooks.chapters():
        record = notebooks.read(notebooks.record_path(chapter))
        measures[chapter] = notebooks.results_of(record, chapter)["measures"]
    found = errata.load_errata(notebooks.BOOK / "errata.yml")
    assert list(errata.faults(found, notebooks.claims_in_order(), measures)) == []
