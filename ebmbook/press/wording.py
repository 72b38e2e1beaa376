"""Whether the prose of a page still says what its record measured.

A glued number moves with the record; the words around it do not. So a page says, in a comment that
nobody sees in the book, for which numbers its words were written:

    All 64 descents end in the wrong basin, {glue:text}`basin/error` from the answer.

    % holds: basin/wrong = 64; basin/error 0.5..1

A range has both its ends (`a..b`) or one (`a..`, `..b`), which belong to it, and is of the
measure's value; `= a` is what the page prints, without its error. A new record that leaves a range
is no mistake: its paragraph wants to be read again.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ebmbook.claims import LedgerError, Measure
from ebmbook.press import notebooks

COMMENT = re.compile(r"^% holds: (.*)$", re.MULTILINE)
GLUE = re.compile(r"\{glue:text\}`([^`]+)`")
HELD = re.compile(
    r"(?P<name>\S+) +(?:(?P<low>[-+.\de]*?)\.\.(?P<high>[-+.\de]*)|= *(?P<printed>\S.*))"
)


@dataclass(frozen=True)
class Held:
    """What the words around a number take for granted of it."""

    name: str
    low: float | None = None
    high: float | None = None
    printed: str | None = None

    def admits(self, measure: Measure) -> bool:
        """Whether the words are true of this number."""
        if self.printed is not None:
            return str(measure).split(" ± ")[0] == self.printed
        above = self.low is None or measure.value >= self.low
        return above and (self.high is None or measure.value <= self.high)

    def __str__(self) -> str:
        if self.printed is not None:
            return f"= {self.printed}"
        ends = ("" if end is None else f"{end:g}" for end in (self.low, self.high))
        return "..".join(ends)


def held(text: str) -> list[Held]:
    """All that the comments of a text hold, in order.

    Raises:
        ValueError: an entry that is no name with a range; it is quoted.
    """
    return [_parse(entry) for line in COMMENT.findall(text) for entry in line.split(";")]


def _parse(entry: str) -> Held:
    """One entry, "topic/quantity 0.5..1"."""
    wanted = "expected 'topic/quantity low..high' or '= printed'"
    found = HELD.fullmatch(entry.strip())
    if found is None:
        raise ValueError(f"holds: {entry.strip()!r}; {wanted}")
    if found["printed"] is not None:
        return Held(found["name"], printed=found["printed"])
    try:
        low, high = (float(found[end]) if found[end] else None for end in ("low", "high"))
    except ValueError:
        raise ValueError(f"holds: {entry.strip()!r}; {wanted}") from None
    if (low is None and high is None) or (None not in (low, high) and low > high):
        raise ValueError(f"holds: {entry.strip()!r}; {wanted}, one end or both, in order")
    return Held(found["name"], low, high)


def faults_of(
    name: str, chapter: str, text: str, holds: str, measures: dict[str, Measure]
) -> Iterator[str]:
    """Where words in a file of their own and the numbers of a record part, a line each.

    Args:
        name: of the words, with which each line begins.
        chapter: whose record it is.
        text: the words, with measures as `{glue:text}`.
        holds: for which numbers they are true, as on a page.
    """
    told = set(GLUE.findall(text))
    try:
        entries = held(f"% holds: {holds}") if holds else []
    except ValueError as error:
        yield f"{name}: {error}"
        return
    for measure in sorted(told - measures.keys()):
        yield f"{name}: {chapter} does not measure {measure}"
    for measure in sorted(told - {entry.name for entry in entries}):
        yield f"{name}: no 'holds' says for which {measure} its words are true"
    for entry in entries:
        if entry.name in measures and not entry.admits(measures[entry.name]):
            yield (
                f"{name}: its words were written for {entry.name} {entry}, and the record has "
                f"{measures[entry.name]}"
            )


def filled(text: str, measures: dict[str, Measure]) -> str:
    """A text with its measures filled in."""
    return GLUE.sub(lambda found: str(measures.get(found[1], found[1])), text)


def faults(chapter: str) -> list[str]:
    """Where the prose of a page and the numbers of its record part, a line each.

    Raises:
        BookError, LedgerError: source or record cannot be read.
    """
    record = notebooks.read(notebooks.record_path(chapter))
    measures = notebooks.results_of(record, chapter)["measures"]
    return list(_faults(chapter, notebooks.prose(chapter), measures))


def _faults(chapter: str, prose: str, measures: dict[str, Measure]) -> Iterator[str]:
    try:
        entries = held(prose)
    except ValueError as error:
        raise LedgerError(f"{chapter}: {error}") from None
    for entry in entries:
        if entry.name not in measures:
            yield f"{chapter}: words are held to {entry.name}, which is not measured"
        elif not entry.admits(measures[entry.name]):
            yield (
                f"{chapter}: the words about {entry.name} were written for {entry}, and the record "
                f"has {measures[entry.name]}; read the paragraph again"
            )
    told = set(GLUE.findall(prose))
    for name in sorted(told - {entry.name for entry in entries}):
        yield f"{chapter}: the prose tells {name}, and no '% holds:' says for which numbers"
