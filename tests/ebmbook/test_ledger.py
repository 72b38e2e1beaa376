"""The ledger: measures, thresholds and claims mean what they say, and bad ones are refused."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ebmbook import claims, ledger
from ebmbook.claims import Check, LedgerError, Measure

CLAIM = """\
- id: eq-1
  where: "1"
  says: It holds.
  verdict: reproduced
  finding: It does.
  checks:
    - measure: x/a
      at_most: 1
      because: a bound
"""
FINITE = st.floats(-1e6, 1e6)


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """An open chapter whose results and claims lie in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBMREF_RESULTS", str(tmp_path / "results"))
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "one.yml").write_text(CLAIM)
    monkeypatch.setenv("EBMREF_CLAIMS", str(tmp_path / "claims"))
    ledger.start("one", "quick", seed=0, device="cpu")
    return tmp_path


def test_values_become_mean_and_standard_error(chapter):
    """By hand: 1, 2, 3, 6 has mean 3, variance 14/3, standard error sqrt(14/12)."""
    got = ledger.measure("x/a", values=torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert (got.value, got.n) == (3.0, 4)
    assert got.se == pytest.approx(math.sqrt(14 / 12), rel=1e-12)


@pytest.mark.parametrize(
    "measure, text",
    [
        (Measure(0.44567, 0.0023), "0.4457 ± 0.0023"),
        (Measure(0.44567, 0.23), "0.45 ± 0.23"),
        (Measure(12345.6, 120.0), "12346 ± 120"),
        (Measure(5.0), "5"),
        (Measure(70390.4), "70,390"),
        (Measure(-70390.4), "-70,390"),
        (Measure(999_999_999_999_999.0), "999,999,999,999,999"),
        (Measure(1e15), "1e+15"),
        (Measure(8.4e22), "8.4e+22"),
        (Measure(-8.4e22, 0.0, None, "nats"), "-8.4e+22 nats"),
        (Measure(0.000123456), "0.0001235"),
        (Measure(2.0, 0.0), "2"),
        (Measure(3.25, None, None, "nats"), "3.25 nats"),
    ],
)
def test_numbers_are_shown_to_the_digits_they_have(measure, text):
    """Two digits of the standard error decide how many of the value are shown."""
    assert str(measure) == text


def test_several_numbers_enter_under_one_topic(chapter):
    """A value, a value with its error, one a seed as a list or a tensor, a tensor of one number."""
    values = [1.0, 2.0, 3.0, 6.0]
    ledger.enter("x", {"a": 0.5, "b": (2.0, 0.5), "c": values, "d": torch.tensor(values)})
    ledger.enter("y", {"a": torch.tensor(3)})
    ledger.verdicts()
    path = chapter / "results" / "one.json"
    got = claims.parse_results(path.read_text(), path.name)["measures"]
    mean = Measure(3.0, math.sqrt(14 / 12), 4)
    assert got.pop("x/c") == got.pop("x/d") == mean
    assert got == {"x/a": Measure(0.5), "x/b": Measure(2.0, 0.5), "y/a": Measure(3.0)}


@pytest.mark.parametrize(
    "call, word",
    [
        (lambda: ledger.enter("x", {"a": [1.0]}), "'x/a': values needs two or more"),
        (lambda: ledger.enter("x", {"a b": 1.0}), "topic/quantity"),
        (lambda: ledger.measure("no-topic", 1.0), "topic/quantity"),
        (lambda: ledger.measure("x/a", float("nan")), "finite"),
        (lambda: ledger.measure("x/a", 1.0, se=-1.0), "se >= 0"),
        (lambda: ledger.measure("x/a", 1.0, se=float("inf")), "finite"),
        (lambda: ledger.measure("x/a"), "one of them"),
        (lambda: ledger.measure("x/a", 1.0, values=[1.0, 2.0]), "one of them"),
        (lambda: ledger.measure("x/a", values=[1.0]), "two or more"),
        (lambda: (ledger.measure("x/a", 1.0), ledger.measure("x/a", 1.0)), "already"),
    ],
)
def test_bad_measures_are_refused(chapter, call, word):
    with pytest.raises(LedgerError, match=word):
        call()


def test_results_are_written_at_the_end_and_whole(chapter, capsys):
    """No file before the verdicts; then one that reads back as what was measured."""
    ledger.measure("x/a", 0.5, se=0.1)
    path = chapter / "results" / "one.json"
    assert not path.exists()
    ledger.verdicts()
    assert capsys.readouterr().out == "eq-1: reproduced (1 checks hold)\n"
    results = claims.parse_results(path.read_text(), path.name)
    assert results["measures"] == {"x/a": Measure(0.5, 0.1)}
    assert [entry.name for entry in path.parent.iterdir()] == ["one.json"]


def test_a_failed_check_prints_open_with_number_and_threshold(chapter, capsys):
    ledger.measure("x/a", 1.5)
    ledger.verdicts()
    line = capsys.readouterr().out
    assert line == "eq-1: OPEN, one.yml says reproduced: x/a is 1.5, wanted at most 1\n"


def test_an_unmeasured_check_does_not_hold(chapter, capsys):
    """A claim cannot stand on a number nobody measured."""
    ledger.verdicts()
    assert "x/a is not measured" in capsys.readouterr().out


@given(FINITE, FINITE)
def test_at_most_and_at_least_split_the_line(value, threshold):
    """Exactly one of them holds, both where the numbers meet."""
    most = Check("x/a", "at_most", threshold, "").holds(Measure(value))
    least = Check("x/a", "at_least", threshold, "").holds(Measure(value))
    assert (most and least) == (value == threshold)
    assert most or least


@given(FINITE, FINITE, st.floats(0, 100), st.floats(0, 10))
def test_equals_by_tolerance_and_by_standard_errors_agree(value, threshold, se, sigmas):
    """k standard errors is the tolerance k * se; a number without one has no slack."""
    by_sigmas = Check("x/a", "equals", threshold, "", sigmas=sigmas)
    by_tolerance = Check("x/a", "equals", threshold, "", tolerance=sigmas * se)
    assert by_sigmas.holds(Measure(value, se)) == by_tolerance.holds(Measure(value))
    assert by_sigmas.holds(Measure(value)) == (value == threshold)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("reproduced", "wonderful", ["eq-1", "unknown verdict 'wonderful'", "refuted"]),
        ("eq-1", "equation-1", ["equation-1", "id must", "lower case", "paper-"]),
        ("eq-1", "eq-One", ["eq-One", "id must", "lower case"]),
        ("id: eq-1\n  ", "", ["claim 1", "'id' is missing"]),
        ("  says: It holds.\n", "", ["eq-1", "'says' is missing"]),
        ("says: It holds.", "says:", ["eq-1", "'says' is missing"]),
        ("says: It holds.", 'says: ""', ["eq-1", "'says' is missing"]),
        ("says: It holds.", "says: 7", ["eq-1", "'says' must be string", "7"]),
        ("  finding: It does.\n", "", ["eq-1", "finding"]),
        ("finding", "findings", ["eq-1", "unknown field 'findings'"]),
        ("measure: x/a\n      ", "", ["eq-1", "check 1", "'measure' is missing"]),
        ("at_most: 1", "about: 1", ["eq-1", "x/a", "unknown field 'about'"]),
        ("at_most: 1", "at_most: one", ["eq-1", "x/a", "'at_most' must be number", "'one'"]),
        ("at_most: 1", "at_most: true", ["eq-1", "x/a", "'at_most' must be number", "True"]),
        ("at_most: 1", "equals: 1", ["eq-1", "x/a", "tolerance"]),
        ("at_most: 1", "at_most: 1\n      tolerance: 2", ["eq-1", "x/a", "tolerance"]),
        ("at_most: 1", "at_most: 1\n      at_least: 0", ["eq-1", "x/a", "exactly one"]),
        ("      at_most: 1\n", "", ["eq-1", "x/a", "exactly one"]),
        ("      because: a bound\n", "", ["eq-1", "x/a", "because"]),
        ("- id", "- [\n- id", ["cannot be read"]),
        ("- id", "one:\n- id", ["expected a list of claims"]),
        ("- id", "- eq-0\n- id", ["claim 1", "expected fields", "'eq-0'"]),
        ("    - measure", "    - x/b\n    - measure", ["eq-1", "check 'x/b'", "expected fields"]),
        ("checks:\n", "checks: 3\n", ["cannot be read"]),
    ],
)
def test_bad_claims_are_refused_by_name(tmp_path, old, new, words):
    """Each error is one line with the file, the claim and the fault; of a folder as of a file."""
    assert old in CLAIM
    path = tmp_path / "one.yml"
    path.write_text(CLAIM.replace(old, new, 1))
    for named in (path, tmp_path):
        with pytest.raises(LedgerError) as caught:
            claims.load_claims(named)
        text = str(caught.value)
        assert "\n" not in text
        for word in ["one.yml: ", *words]:
            assert word in text


@pytest.mark.parametrize("files", [{}, {"one.md": CLAIM}])
def test_a_folder_without_claims_is_refused(tmp_path, files):
    folder = tmp_path / "claims"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    for path in (folder, tmp_path / "gone", tmp_path / "gone.yml"):
        with pytest.raises(LedgerError, match=rf"^{path.name}: cannot be read"):
            claims.load_claims(path)


def test_the_form_is_a_schema():
    """A slip in the schema itself would let anything pass."""
    Draft202012Validator.check_schema(json.loads(claims.SCHEMA.read_text()))


def test_duplicate_ids_are_refused(tmp_path):
    """In one file or in two."""
    (tmp_path / "one.yml").write_text(CLAIM)
    (tmp_path / "two.yml").write_text(CLAIM)
    with pytest.raises(LedgerError, match=r"two\.yml: eq-1: this id stands twice.*one\.yml"):
        claims.load_claims(tmp_path)
    (tmp_path / "one.yml").write_text(CLAIM + CLAIM)
    with pytest.raises(LedgerError, match=r"one\.yml: eq-1: this id stands twice$"):
        claims.load_claims(tmp_path)


def test_the_chapter_is_the_files_name(tmp_path):
    """Each claim is of the chapter whose file it stands in."""
    (tmp_path / "one.yml").write_text(CLAIM)
    (tmp_path / "two.yml").write_text(CLAIM.replace("eq-1", "eq-2"))
    (tmp_path / "README.md").write_text("about them")
    got = {claim.id: claim.chapter for claim in claims.load_claims(tmp_path)}
    assert got == {"eq-1": "one", "eq-2": "two"}
    assert [claim.id for claim in claims.load_claims(tmp_path / "two.yml")] == ["eq-2"]


def test_where_claims_are_found(tmp_path, monkeypatch):
    """Here, in `book/`, or above; the environment's word before all; else nowhere, and said so."""
    monkeypatch.delenv("EBMREF_CLAIMS", raising=False)
    (tmp_path / "bare" / "claims").mkdir(parents=True)  # of something else: no claims in it
    monkeypatch.chdir(tmp_path / "bare")
    assert claims.find_claims() is None
    for folder in (tmp_path / "book" / "claims", tmp_path / "bare" / "claims"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "one.yml").write_text(CLAIM)
        assert claims.find_claims() == folder
    monkeypatch.setenv("EBMREF_CLAIMS", "named.yml")
    assert claims.find_claims() == Path("named.yml")


def test_a_lone_notebook_says_that_it_has_no_claims(tmp_path, monkeypatch, capsys):
    """Its numbers are written all the same."""
    monkeypatch.chdir(tmp_path)
    for name in ("EBMREF_CLAIMS", "EBMREF_RESULTS"):
        monkeypatch.delenv(name, raising=False)
    ledger.start("one", "quick", seed=0, device="cpu")
    ledger.measure("x/a", 0.5)
    ledger.verdicts()
    assert capsys.readouterr().out.startswith("no claims here: numbers measured")
    assert [path.as_posix() for path in Path().rglob("*.*")] == ["results/one.json"]


def test_a_verdict_needs_a_check(tmp_path):
    path = tmp_path / "one.yml"
    path.write_text(CLAIM[: CLAIM.index("  checks:")])
    with pytest.raises(LedgerError, match="without a check"):
        claims.load_claims(path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"measures": {"a": {"worth": 1}}}'])
def test_damaged_results_are_refused(text):
    with pytest.raises(LedgerError, match=r"r\.json: not a results file"):
        claims.parse_results(text, "r.json")


def test_judgement_for_machines_is_json():
    claim = claims.Claim("eq-1", "one", "1", "It holds.", "reproduced", "Yes.", (
        Check("x/a", "at_most", 1.0, "a bound"),
    ))  # fmt: skip
    row = claims.judge(claim, {"x/a": Measure(2.0)}).as_dict()
    assert (row["verdict"], row["declared"]) == ("open", "reproduced")
    assert json.loads(json.dumps(row)) == row
