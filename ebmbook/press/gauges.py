"""A check as a small picture: the number with its interval against the bar of its threshold.

The bar stands in the middle and the side on which the number must lie is shaded. Either half is as
wide as the threshold itself, so that a number at the left end of a bar from above is zero; where
that would hide the distance it is ten times finer, as often as needed, and a number beyond an end
is an arrow there. The text alternative says all of it in words.

Colours are those of the style sheet, `.gauge` with `.side`, `.bar`, `.span`, `.good` and `.bad`.
"""

import html
import math

from ebmbook.claims import Check, Measure

WIDTH, HEIGHT = 120, 16
MIDDLE, HALF = WIDTH / 2, WIDTH / 2 - 6  # a mark at either end stands inside
SIGMAS = 1.96
FINER, MOST_FINER = 10, 3  # three times: less than a thousandth of a threshold is no distance


def interval(got: Measure) -> tuple[float, float]:
    """The number with 1.96 standard errors to either side; without one, the number twice."""
    reach = SIGMAS * (got.se or 0.0)
    return got.value - reach, got.value + reach


def reach_of(check: Check, got: Measure) -> float:
    """For "equals", how far from the threshold a number may be."""
    if check.sigmas is not None:
        return check.sigmas * (got.se or 0.0)
    return check.tolerance or 0.0


def half_width(check: Check, got: Measure) -> float:
    """How much of the number's axis lies to either side of the bar."""
    low, high = interval(got)
    far = max(abs(low - check.threshold), abs(high - check.threshold))
    if check.comparison == "equals":
        return 3 * reach_of(check, got) or 1.25 * far or abs(check.threshold) or 1.0
    half = abs(check.threshold) or 1.25 * far or 1.0
    for _ in range(MOST_FINER):
        if 0 < far < 0.8 * half / FINER:
            half /= FINER
    return half


def gauge(check: Check, got: Measure | None, good: bool) -> str:
    """The picture as an SVG element.

    Args:
        check: the threshold.
        got: the number; None: not measured.
        good: whether the check holds.
    """
    told = html.escape(in_words(check, got, good), quote=True)
    shapes = "" if got is None else _shapes(check, got, good)
    return (
        f'<svg class="gauge" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">'
        f"{shapes}</svg>"
    )


def in_words(check: Check, got: Measure | None, good: bool) -> str:
    """What the picture shows."""
    if got is None:
        return f"not measured, wanted {check}"
    half = half_width(check, got)
    low, high = check.threshold - half, check.threshold + half
    return (
        f"{got}, wanted {check}: {'holds' if good else 'fails'}; drawn from {low:.6g} to {high:.6g}"
    )


def _shapes(check: Check, got: Measure, good: bool) -> str:
    half = half_width(check, got)

    def place(value: float) -> float:
        along = MIDDLE + HALF * (value - check.threshold) / half
        return min(max(along, 0.0), float(WIDTH))

    parts = [_side(check, got, place), f'<path class="bar" d="M{MIDDLE:g} 0v{HEIGHT}"/>']
    low, high = (place(end) for end in interval(got))
    if _n(low) != _n(high):
        parts.append(f'<path class="span" d="M{_n(low)} 8H{_n(high)}"/>')
    parts.append(_mark(MIDDLE + HALF * (got.value - check.threshold) / half, good))
    return "".join(parts)


def _side(check: Check, got: Measure, place) -> str:
    """Where the number must lie."""
    if check.comparison == "equals":
        reach = reach_of(check, got)
        left, right = place(check.threshold - reach), place(check.threshold + reach)
    else:
        left, right = (0, MIDDLE) if check.comparison == "at_most" else (MIDDLE, WIDTH)
    return f'<path class="side" d="M{_n(left)} 2H{_n(right)}V14H{_n(left)}z"/>'


def _mark(at: float, good: bool) -> str:
    """A disc that holds, a cross that fails; an arrow where the number is beyond an end."""
    kind = "good" if good else "bad"
    if not math.isfinite(at) or at < 2 or at > WIDTH - 2:
        tip, back = (1, 8) if at < MIDDLE else (WIDTH - 1, WIDTH - 8)
        cross = "" if good else f"M{back} 3v10"
        return f'<path class="{kind}" d="M{back} 3L{tip} 8L{back} 13{"z" if good else ""}{cross}"/>'
    x = _n(at)
    if good:
        return f'<circle class="good" cx="{x}" cy="8" r="3.5"/>'
    return f'<path class="bad" d="M{_n(at - 4)} 4l8 8m0-8l-8 8"/>'


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
