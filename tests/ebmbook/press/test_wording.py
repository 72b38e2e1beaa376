"""Words are held to the numbers that they were written for."""

import pytest

from ebmbook.claims import LedgerError, Measure
from ebmbook.press import wording
from ebmbook.press.wording import Held

TOLD = "All 64 end there, {glue:text}`basin/error` away.\n\n"


def faults(text, **measures):
    found = {name.replace("_", "/"): Measure(*got) for name, got in measures.items()}
    return list(wording._faults("page", text, found))


class TestHeld:
    def test_all_forms(self):
        text = "Words.\n\n% holds: a/b 0.5..1; a/c ..-2e-3; a/d -3..\n% holds: a/e = 5 x\n"
        assert wording.held(text) == [
            Held("a/b", 0.5, 1.0),
            Held("a/c", high=-2e-3),
            Held("a/d", low=-3.0),
            Held("a/e", printed="5 x"),
        ]

    @pytest.mark.parametrize(
        "entry", ["a/b", "a/b ..", "a/b 2..1", "a/b 1.2.3..4", "a/b 1", "a/b =", ""]
    )
    def test_what_holds_nothing_is_named(self, entry):
        with pytest.raises(ValueError, match=r"holds: .*expected"):
            wording.held(f"% holds: {entry}\n")

    def test_text_that_only_looks_like_it(self):
        assert wording.held("see % holds: a/b 1..2\n%holds: a/b 1..2\n") == []

    @pytest.mark.parametrize(
        ("value", "good"), [(0.5, True), (1.0, True), (0.49, False), (1.01, False)]
    )
    def test_ends_belong_to_the_range(self, value, good):
        assert Held("a/b", 0.5, 1.0).admits(Measure(value)) is good

    def test_one_end(self):
        assert Held("a/b", low=0.0).admits(Measure(1e9))
        assert not Held("a/b", low=0.0).admits(Measure(-1e-9))
        assert Held("a/b", high=0.0).admits(Measure(-1e9))
        assert not Held("a/b", high=0.0).admits(Measure(1e-9))

    def test_what_is_printed(self):
        assert Held("a/b", printed="64").admits(Measure(64))
        assert not Held("a/b", printed="64").admits(Measure(63))
        assert Held("a/b", printed="0.451").admits(Measure(0.4512, 0.03))


class TestFaults:
    def test_none_where_the_words_are_true(self):
        assert faults(TOLD + "% holds: basin/error 0.5..1\n", basin_error=(0.7, 0.1)) == []

    def test_a_number_that_left_its_range(self):
        (line,) = faults(TOLD + "% holds: basin/error 0.5..1\n", basin_error=(1.7, 0.1))
        assert line.startswith("page: the words about basin/error were written for 0.5..1")
        assert "1.70 ± 0.10" in line

    def test_a_number_that_is_told_and_not_held(self):
        (line,) = faults(TOLD, basin_error=(0.7,))
        assert "tells basin/error" in line

    def test_a_name_that_nobody_measured(self):
        (line,) = faults("% holds: basin/err 0.5..1\n", basin_error=(0.7,))
        assert "basin/err, which is not measured" in line

    def test_a_line_that_cannot_be_read_names_the_page(self):
        with pytest.raises(LedgerError, match="page: holds"):
            faults("% holds: basin/error\n")
