"""How often a verdict holds, from made-up runs: counts, exact intervals, margins, files."""

import json
import math

import pytest

from ebmbook import rates
from ebmbook.claims import Check, Claim, LedgerError, Measure

HIGH = Check("a/high", "at_least", 1.0, "")
NEAR = Check("a/near", "equals", 0.0, "", sigmas=3.0)
BOTH = Claim("claim-both", "one", "1", "", "reproduced", "", (HIGH, NEAR))
OPEN = Claim("claim-open", "one", "1", "")


def run(seed: int, high: float, near: float = 0.0, machine: str = "") -> dict:
    measures = {"a/high": Measure(high), "a/near": Measure(near, se=1.0)}
    return {"seed": seed, "machine": machine, "seconds": 1.0, "measures": measures}


def died(seed: int) -> dict:
    return {"seed": seed, "machine": "", "seconds": 1.0, "error": "cell 3 raised"}


def collected(*runs: dict) -> dict:
    return rates.collect([BOTH, OPEN], "key", "quick", [*runs])


@pytest.mark.parametrize(
    ("held", "of", "low", "high"),
    [(20, 20, 0.8316, 1.0), (60, 60, 0.9404, 1.0), (99, 100, 0.9455, 0.9997), (0, 1, 0.0, 0.975)],
)
def test_intervals_are_the_published_ones(held, of, low, high):
    """Clopper and Pearson's; of all or none by hand, (alpha / 2) to the power of 1 / n."""
    got = rates.Rate(held, of, held, of).interval
    assert got == pytest.approx((low, high), abs=1e-4)
    if held == of:
        assert got[0] == pytest.approx(0.025 ** (1 / of))


def test_a_seed_holds_where_all_its_runs_do():
    """One of two roundings failed, whichever: three of four runs, one of two seeds."""
    for one, other in ((2, 0.5), (0.5, 2)):
        runs = [run(0, 2), run(0, 2, machine="avx2"), run(1, one), run(1, other, machine="avx2")]
        got = rates.of_claim(collected(*runs), BOTH)
        assert (got.held, got.of, got.seeds_held, got.seeds) == (3, 4, 1, 2)


def test_no_digit_is_lost(tmp_path):
    """An identity is held to the last digits, by numbers that were written and read again."""
    third = Check("a/high", "equals", 2 / 3, "", tolerance=1e-15)
    path = tmp_path / "rates.json"
    path.write_text(rates.as_text(collected(run(0, 2 / 3), run(1, 2 / 3 + 1e-12))))
    assert rates.of_check(rates.read(path), third).failed == ("1",)


def test_a_run_that_died_counts_as_not_held():
    found = collected(run(0, 2), died(1), run(2, 2))
    assert (rates.of_claim(found, BOTH).held, rates.of_all(found, [OPEN]).held) == (2, 2)
    assert found["checks"]["a/high at least 1"]["failed"] == ["1"]
    assert found["claims"] == {"claim-both": {"held": 2, "of": 3, "seeds": [2, 3]}}
    assert found["runs"][1] == died(1)


def test_the_runs_in_which_a_check_failed_are_named():
    found = collected(run(7, 0.9), run(3, 2, near=3.1, machine="avx2"), run(4, 1.0))
    assert [told["seed"] for told in found["runs"]] == [3, 4, 7]
    assert rates.of_check(found, HIGH).failed == ("7",)
    assert rates.of_check(found, NEAR).failed == ("3 avx2",)
    assert rates.of_claim(found, BOTH).held == 1


@pytest.mark.parametrize(
    ("check", "values", "margin"),
    [
        (HIGH, (2, 3, 4), 2.0),  # mean 3, two beyond 1, spread 1
        (HIGH, (1, 3, 5), 1.0),
        (Check("a/high", "at_most", 5.0, ""), (2, 3, 4), 2.0),
        (Check("a/high", "at_most", 1.0, ""), (2, 3, 4), -2.0),
        (Check("a/high", "equals", 3.5, "", tolerance=2.5), (2, 3, 4), 2.0),
        (HIGH, (2, 2, 2), math.inf),
        (HIGH, (0, 0, 0), -math.inf),
        (HIGH, (1, 1, 1), math.inf),
        (HIGH, (2,), None),
    ],
)
def test_margins_in_standard_deviations(check, values, margin):
    found = collected(*(run(seed, value) for seed, value in enumerate(values)))
    assert rates.of_check(found, check).margin == margin


def test_margins_of_checks_in_standard_errors():
    """Of z of 0, 1 and 2 the mean is 1, the spread 1, and three are allowed; to either side."""
    for sign in (1, -1):
        found = collected(*(run(seed, 2, sign * seed) for seed in range(3)))
        assert rates.of_check(found, NEAR).margin == pytest.approx(2.0)


def test_what_was_stored_is_what_was_run():
    """Every judgement can be made from the file, and another one when a threshold moves."""
    runs = [run(0, 1.23456789012), run(1, 0.5), died(2)]
    found = collected(*runs)
    again = json.loads(rates.as_text(found))
    assert again == found
    assert rates.collect([BOTH, OPEN], "key", "quick", rates.runs_of(again)) == found
    checks = (Check("a/high", "at_least", 0.4, ""),)
    lower = Claim("claim-both", "one", "1", "", "reproduced", "", checks)
    assert rates.of_claim(again, lower).held == 2


def test_a_new_check_is_not_held_against_old_runs():
    new = Claim("claim-new", "one", "1", "", "reproduced", "", (Check("a/new", "at_least", 0, ""),))
    found = collected(run(0, 2))
    assert rates.knows(found, BOTH) and not rates.knows(found, new)


UNEVEN = '{"key": "", "runs": [], "values": {"a": [1]}, "errors": {}}'


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": 1, "runs": [1], "values": {}}', UNEVEN])
def test_a_damaged_file_is_named_in_a_line(tmp_path, text):
    path = tmp_path / "one.json"
    path.write_text(text)
    with pytest.raises(LedgerError, match=r"one\.json: not a file of rates") as error:
        rates.read(path)
    assert "\n" not in str(error.value)


def test_no_file_is_no_rates(tmp_path):
    assert rates.read(tmp_path / "one.json") is None
