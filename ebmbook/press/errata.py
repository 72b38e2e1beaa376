"""The errors found in the report, as data: `book/errata.yml`, in the form of `errata.schema.json`.

Each names the claim that is wrong; what it is held against, verdict and numbers, is the ledger's.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, ValidationError

from ebmbook import forms
from ebmbook.claims import Claim, LedgerError, Measure
from ebmbook.press import report, wording

SCHEMA = Path(__file__).with_name("errata.schema.json")


@dataclass(frozen=True)
class Erratum:
    """An error of the report.

    Attributes:
        claim: id of the claim that is wrong.
        also: ids of others that the same error is in.
        title: the error in a few words.
        printed: what is printed, in our words.
        correct: what it should be.
        proof: why, in two lines.
        number: what exposes it, with measures of the claim's chapter as `{glue:text}`.
        consequence: for someone who used it.
        holds: for which numbers the words are true, as on a page.
    """

    claim: str
    title: str
    printed: str
    correct: str
    proof: str
    number: str
    consequence: str
    also: tuple[str, ...] = ()
    holds: str = ""

    @property
    def measures(self) -> list[str]:
        """Those that its number tells."""
        return wording.GLUE.findall(self.number)

    def told(self, measures: dict[str, Measure]) -> str:
        """Its number, filled in."""
        return wording.filled(self.number, measures)


def load_errata(path: Path) -> list[Erratum]:
    """Read and validate a file of errata.

    Raises:
        LedgerError: one line that names the file, the erratum and what is wrong with it.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LedgerError(f"{path.name}: cannot be read ({' '.join(str(error).split())})") from None
    if fault := next(_form().iter_errors(entries), None):
        raise LedgerError(f"{path.name}: {_in_words(fault, entries)}")
    return [
        Erratum(
            **{
                name: tuple(got) if name == "also" else " ".join(got.split())
                for name, got in entry.items()
            }
        )
        for entry in entries
    ]


def in_order(errata: Iterable[Erratum], claims: Iterable[Claim]) -> list[Erratum]:
    """Errata in the order of the report; those of unknown claims last."""
    places = {claim.id: report.place(claim) for claim in claims}
    return sorted(errata, key=lambda one: places.get(one.claim, (True,)))


def faults(
    errata: Iterable[Erratum], claims: Iterable[Claim], measures: dict[str, dict[str, Measure]]
) -> Iterator[str]:
    """Where errata and ledger part, a line each.

    Args:
        measures: of each chapter.
    """
    known = {claim.id: claim for claim in claims}
    named: set[str] = set()
    for one in errata:
        for name in (one.claim, *one.also):
            if name not in known:
                yield f"errata: {name}: no such claim"
            elif known[name].verdict in ("open", "reproduced"):
                yield f"errata: {name}: its verdict is {known[name].verdict!r}, so it is no error"
            elif name in named:
                yield f"errata: {name}: it stands twice"
            named.add(name)
        if one.claim in known:
            chapter = known[one.claim].chapter
            yield from _numbers(one, chapter, measures.get(chapter, {}))
    for claim in known.values():
        wrong = claim.verdict in ("corrected", "refuted") and not claim.is_of_paper
        if wrong and claim.id not in named:
            yield f"errata: {claim.id} is {claim.verdict}, and no erratum tells it"


def _numbers(erratum: Erratum, chapter: str, measures: dict[str, Measure]) -> Iterator[str]:
    """Whether its words are true of the record's numbers."""
    name = f"errata: {erratum.claim}"
    if not erratum.measures:
        yield f"{name}: its number has no {{glue:text}}"
    yield from wording.faults_of(name, chapter, erratum.number, erratum.holds, measures)


@functools.cache
def _form() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def _in_words(fault: ValidationError, entries) -> str:
    """What is wrong with the form, and of which erratum, in a line."""
    if not fault.absolute_path:
        return "expected a list of errata"
    position, *inside = fault.absolute_path
    entry = entries[position]
    name = entry.get("claim") if isinstance(entry, dict) else None
    label = f"{name or f'erratum {position + 1}'}: "
    field = inside[0] if inside else ""
    if fault.validator == "pattern":
        told = f"field {field!r} must be a claim of the report, got {fault.instance!r}"
    elif fault.validator == "maxLength":
        length, most = len(fault.instance), fault.validator_value
        told = f"field {field!r} has {length} characters, and {most} are two lines"
    else:
        told = forms.in_words(fault, field)
    return re.sub(r"\s+", " ", label + told)
