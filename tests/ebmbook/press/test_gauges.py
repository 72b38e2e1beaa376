"""The picture of a check: what it shows is what its words say."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from ebmbook.claims import Check, Measure
from ebmbook.press import gauges
from ebmbook.press.gauges import HALF, MIDDLE, WIDTH


def check(comparison: str, threshold: float, **reach: float) -> Check:
    return Check("a/b", comparison, threshold, "by hand", **reach)


def drawn(one: Check, got: Measure) -> dict[str, ElementTree.Element]:
    """The shapes of a picture, by class."""
    shapes = ElementTree.fromstring(gauges.gauge(one, got, one.holds(got)))
    return {shape.get("class"): shape for shape in shapes}


def numbers(shape: ElementTree.Element) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", shape.get("d"))]


@pytest.mark.parametrize(
    "one, value, at",
    [
        (check("at_most", 0.5), 0.25, MIDDLE - HALF / 2),
        (check("at_most", 0.5), 0.0, MIDDLE - HALF),
        (check("at_least", 2.0), 3.0, MIDDLE + HALF / 2),
        (check("at_most", -2.0), -3.0, MIDDLE - HALF / 2),
        (check("equals", 7.0, tolerance=1.0), 8.0, MIDDLE + HALF / 3),
        # Ten times finer, and a hundred times.
        (check("at_least", 100.0), 105.0, MIDDLE + HALF / 2),
        (check("at_least", 100.0), 100.5, MIDDLE + HALF / 2),
    ],
)
def test_the_mark_is_in_its_place(one, value, at):
    assert float(drawn(one, Measure(value))["good"].get("cx")) == pytest.approx(at, abs=0.06)


def test_the_interval_is_two_standard_errors():
    one, got = check("at_most", 1.0), Measure(0.5, 0.1)
    start, _, stop = numbers(drawn(one, got)["span"])
    assert start == pytest.approx(MIDDLE + HALF * (0.5 - 0.196 - 1), abs=0.06)
    assert stop == pytest.approx(MIDDLE + HALF * (0.5 + 0.196 - 1), abs=0.06)


def test_exact_numbers_have_none():
    assert "span" not in drawn(check("at_most", 1.0), Measure(0.5))
    assert "span" not in drawn(check("at_most", 1.0), Measure(0.5, 0.0))


@pytest.mark.parametrize(
    "one, got, left, right",
    [
        (check("at_most", 1.0), Measure(0.5), 0, MIDDLE),
        (check("at_least", 1.0), Measure(1.5), MIDDLE, WIDTH),
        (check("equals", 5.0, tolerance=0.3), Measure(5.0), MIDDLE - HALF / 3, MIDDLE + HALF / 3),
        (check("equals", 5.0, sigmas=4), Measure(5.0, 0.1), MIDDLE - HALF / 3, MIDDLE + HALF / 3),
        (check("equals", 5.0, tolerance=0.0), Measure(5.0), MIDDLE, MIDDLE),
    ],
)
def test_the_side_is_where_the_number_must_lie(one, got, left, right):
    found = numbers(drawn(one, got)["side"])
    assert [found[0], found[2]] == pytest.approx([left, right], abs=0.06)


def test_tolerances_fill_a_third():
    """One in standard errors is of the number's."""
    got = gauges.half_width(check("equals", 5.0, tolerance=0.3), Measure(5.0))
    assert got == pytest.approx(0.9)
    got = gauges.half_width(check("equals", 5.0, sigmas=4), Measure(5.0, 0.1))
    assert got == pytest.approx(1.2)


def test_failing_differs_in_shape_and_class():
    shapes = drawn(check("at_most", 1.0), Measure(1.5))
    assert "good" not in shapes and shapes["bad"].tag == "path"


@pytest.mark.parametrize(
    "one, value, kind, tip",
    [
        (check("at_least", 1e-4), 0.3, "good", WIDTH - 1),
        (check("at_most", 1.0), -9.0, "good", 1),
        (check("at_most", 1.0), 9.0, "bad", WIDTH - 1),
        (check("equals", 1.0, tolerance=0.1), -9.0, "bad", 1),
    ],
)
def test_beyond_an_end_is_an_arrow(one, value, kind, tip):
    assert numbers(drawn(one, Measure(value))[kind])[2] == tip


@pytest.mark.parametrize(
    "one, got",
    [
        (check("at_most", 0.0), Measure(0.0)),
        (check("at_most", 0.0), Measure(-3.0, 1.0)),
        (check("equals", 0.0, tolerance=0.0), Measure(0.0)),
        (check("equals", 0.0, sigmas=4), Measure(0.0)),
        (check("equals", 0.0, tolerance=0.0), Measure(2.0)),
        (check("at_least", 1.0), Measure(1.0)),
    ],
)
def test_thresholds_of_zero_and_numbers_on_them_are_drawn(one, got):
    assert gauges.half_width(one, got) > 0
    assert {"side", "bar"} < drawn(one, got).keys()


def test_the_alternative_says_number_threshold_and_verdict():
    one, got = check("at_most", 0.5), Measure(0.446, 0.02)
    wanted = "0.446 ± 0.020, wanted at most 0.5: holds; drawn from 0 to 1"
    assert gauges.in_words(one, got, True) == wanted
    assert f'role="img" aria-label="{wanted}"' in gauges.gauge(one, got, True)
    assert ": fails;" in gauges.in_words(one, got, False)


def test_what_was_not_measured_has_no_shapes():
    found = gauges.gauge(check("at_most", 0.5), None, False)
    assert 'aria-label="not measured, wanted at most 0.5"></svg>' in found
