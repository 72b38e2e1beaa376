"""What the front page says in a newcomer's words: `book/front.yml`, held against the ledger.

An entry names a claim; its verdict and its numbers are the ledger's and the records', and the page
shows them as they stand in the run that it shows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from ebmbook.claims import Claim, LedgerError, Measure
from ebmbook.press import wording

MANY = 3
# A newcomer reads no more.
MOST = 360


@dataclass(frozen=True)
class Surprise:
    """A verdict that one would not have expected.

    Attributes:
        claim: id of a claim of the report.
        title: it in a few words.
        verdict: the claim's, for which the words were written.
        told: it in two sentences or three, with measures of the claim's chapter as `{glue:text}`.
        holds: for which numbers the words are true, as on a page.
    """

    claim: str
    title: str
    verdict: str
    told: str
    holds: str


def load_front(path: Path) -> list[Surprise]:
    """Read the front page's file.

    Raises:
        LedgerError: one line that names the file and what is wrong with it.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LedgerError(f"{path.name}: cannot be read ({' '.join(str(error).split())})") from None
    wanted = {field.name for field in fields(Surprise)}
    if not isinstance(entries, list):
        raise LedgerError(f"{path.name}: expected a list")
    for i, entry in enumerate(entries, start=1):
        got = entry if isinstance(entry, dict) else {}
        if set(got) != wanted or not all(isinstance(text, str) for text in got.values()):
            raise LedgerError(f"{path.name}: entry {i}: expected texts for {', '.join(wanted)}")
    return [
        Surprise(**{name: " ".join(text.split()) for name, text in one.items()}) for one in entries
    ]


def faults(
    surprises: list[Surprise], claims: Iterable[Claim], measures: dict[str, dict[str, Measure]]
) -> Iterator[str]:
    """Where the front page and the ledger part, a line each.

    Args:
        measures: of each chapter.
    """
    known = {claim.id: claim for claim in claims}
    if len(surprises) != MANY:
        yield f"front: {len(surprises)} verdicts, and the page has room for {MANY}"
    for one in surprises:
        name = f"front: {one.claim}"
        claim = known.get(one.claim)
        if claim is None:
            yield f"{name}: no such claim"
            continue
        if claim.is_of_paper:
            yield f"{name}: it is no claim of the report"
        if claim.verdict in ("open", "reproduced"):
            yield f"{name}: that it is {claim.verdict} surprises nobody"
        if claim.verdict != one.verdict:
            yield f"{name}: its words were written for {one.verdict!r}; it is {claim.verdict!r}"
        if len(one.told) > MOST:
            yield f"{name}: {len(one.told)} characters, more than {MOST}"
        if not wording.GLUE.search(one.told):
            yield f"{name}: it has no {{glue:text}}"
        yield from wording.faults_of(
            name, claim.chapter, one.told, one.holds, measures.get(claim.chapter, {})
        )
    homes = Counter(known[one.claim].chapter for one in surprises if one.claim in known)
    for chapter, n in homes.items():
        if n > 1:
            yield f"front: {n} verdicts of {chapter}; each is to be of another chapter"
