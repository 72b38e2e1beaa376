"""Claims and results as data: what the report says, the numbers of a run, the verdicts.

`book/claims/<chapter>.yml` holds what the report says and the thresholds a verdict stands on,
in the form of `claims.schema.json`; a run leaves `results/<chapter>.json`. This module reads
both and holds one against the other. It needs no torch, so that tools start at once.
"""

import functools
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError

from ebmbook import forms

SCHEMA = Path(__file__).with_name("claims.schema.json")
COMPARISONS = ("at_most", "at_least", "equals")


class LedgerError(ValueError):
    """Something is wrong with the claims, the results or a measurement; the text says what."""


# --- results: what a chapter measured -------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A measured number.

    Attributes:
        value: the number (the mean, where it was measured on several seeds).
        se: its standard error; None where the number is exact up to rounding.
        n: how many independent measurements the value is the mean of.
        unit: what it is counted in; "" for a pure number.
    """

    value: float
    se: float | None = None
    n: int | None = None
    unit: str = ""

    def __str__(self) -> str:
        """The value to the digits its standard error allows: `0.446 ± 0.002`."""
        unit = f" {self.unit}" if self.unit else ""
        if self.se is None or self.se == 0:
            whole = abs(self.value) >= 1e4 or float(self.value).is_integer()
            whole &= abs(self.value) < 1e15  # beyond, a float has no more digits to show
            return (f"{self.value:,.0f}" if whole else f"{self.value:.4g}") + unit
        digits = max(0, 1 - math.floor(math.log10(self.se)))
        return f"{self.value:.{digits}f} ± {self.se:.{digits}f}{unit}"


def parse_results(text: str, source: str) -> dict[str, Any]:
    """A chapter's results from JSON text, with `measures` as `Measure`s.

    Raises:
        LedgerError: the text is not a results file; the message names `source`.
    """
    try:
        results = json.loads(text)
        results["measures"] = {
            name: Measure(**entry) for name, entry in results["measures"].items()
        }
        for name, entry in results["measures"].items():
            if not math.isfinite(entry.value):
                raise ValueError(f"{name} is not finite")
        for key in ("chapter", "profile", "seed"):
            results[key]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(
            f"{source}: not a results file ({type(error).__name__}: {error})"
        ) from None
    return results


# --- claims: what the report says, and what would bear it out --------------------------


@dataclass(frozen=True)
class Check:
    """One threshold on one measured number.

    Attributes:
        measure: name of the number, of the same chapter.
        comparison: "at_most", "at_least" or "equals".
        threshold: what it is compared with.
        tolerance: for "equals", the largest distance allowed, absolute.
        sigmas: for "equals", that distance in standard errors of the number instead.
        because: where threshold and tolerance come from.
    """

    measure: str
    comparison: str
    threshold: float
    because: str
    tolerance: float | None = None
    sigmas: float | None = None

    def holds(self, got: Measure) -> bool:
        """Whether the measured number is within the threshold."""
        if self.comparison == "at_most":
            return got.value <= self.threshold
        if self.comparison == "at_least":
            return got.value >= self.threshold
        reach = self.tolerance if self.sigmas is None else self.sigmas * (got.se or 0.0)
        return abs(got.value - self.threshold) <= reach

    def __str__(self) -> str:
        if self.comparison != "equals":
            return f"{self.comparison.replace('_', ' ')} {self.threshold:g}"
        reach = f"{self.tolerance:g}" if self.sigmas is None else f"{self.sigmas:g} standard errors"
        return f"{self.threshold:g} within {reach}"


@dataclass(frozen=True)
class Claim:
    """A statement of the report, in our words, and the verdict it earned.

    Attributes:
        id: "eq-4", "fig-5", "thm-2", "def-1", "claim-...", "sys-...", or "paper-..." for a
            statement of a cited paper.
        chapter: the chapter that answers for it.
        where: section of the report.
        says: the claim.
        verdict: "open", "reproduced", "corrected", "qualified", "refuted" or "not reproduced".
        finding: what the book found; asked for with every verdict but "open".
        checks: what must hold for the verdict to stand.
    """

    id: str
    chapter: str
    where: str
    says: str
    verdict: str = "open"
    finding: str = ""
    checks: tuple[Check, ...] = field(default=())

    @property
    def is_of_paper(self) -> bool:
        """Whether a cited paper says it, and not the report."""
        return self.id.startswith("paper-")


def find_claims() -> Path | None:
    """`$EBMREF_CLAIMS`, else the folder `claims` with its files here, in `book/`, or above."""
    if named := os.environ.get("EBMREF_CLAIMS"):
        return Path(named)
    for folder in (Path.cwd(), *Path.cwd().parents):
        for path in (folder / "claims", folder / "book" / "claims"):
            if any(path.glob("*.yml")):
                return path
    return None


def load_claims(path: Path) -> list[Claim]:
    """Read and validate claims: a file a chapter, which its name is, or a folder of such files.

    Raises:
        LedgerError: one line that names the file, the claim and what is wrong with it.
    """
    files = [path] if path.suffix == ".yml" else sorted(path.glob("*.yml"))
    if not files:
        raise LedgerError(f"{path.name}: cannot be read (no folder with claims, <chapter>.yml)")
    claims: dict[str, Claim] = {}
    for file in files:
        for claim in _load_file(file):
            if claim.id in claims:
                also = claims[claim.id].chapter
                raise LedgerError(
                    f"{file.name}: {claim.id}: this id stands twice"
                    + (f", also in {also}.yml" if also != claim.chapter else "")
                )
            claims[claim.id] = claim
    return list(claims.values())


def _load_file(path: Path) -> list[Claim]:
    """The claims of one chapter."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise LedgerError(f"{path.name}: cannot be read ({reason})") from None
    if fault := next(_form().iter_errors(entries), None):
        raise LedgerError(f"{path.name}: {_in_words(fault, entries)}")
    claims = []
    for entry in entries:
        try:
            claims.append(_as_claim(path.stem, entry))
        except LedgerError as error:
            raise LedgerError(f"{path.name}: {entry['id']}: {error}") from None
    return claims


@functools.cache
def _form() -> Draft202012Validator:
    """The form of a file of claims."""
    return Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def _in_words(fault: ValidationError, entries: Any) -> str:
    """What is wrong with the form, and of which claim and check, in a line."""
    if not fault.absolute_path:
        return "expected a list of claims"
    position, *inside = fault.absolute_path
    entry = entries[position]
    name = entry.get("id") if isinstance(entry, dict) else None
    label = f"{name or f'claim {position + 1}'}: "
    if len(inside) > 1:
        check = entry["checks"][inside[1]]
        name = check.get("measure") if isinstance(check, dict) else check
        label += f"check {inside[1] + 1 if name is None else repr(name)}: "
    field = inside[-1] if inside and isinstance(inside[-1], str) else ""
    return " ".join((label + forms.in_words(fault, field)).split())


def _as_claim(chapter: str, entry: dict[str, Any]) -> Claim:
    """A claim of the right form, its verdict and checks held against what no schema says well."""
    fields = {name: _one_line(got) for name, got in entry.items() if name != "checks"}
    verdict = fields.get("verdict", "open")
    checks = tuple(_as_check(check) for check in entry.get("checks", []))
    if verdict != "open" and not checks:
        raise LedgerError(f"verdict {verdict!r} without a check: a claim without one is open")
    if verdict != "open" and not fields.get("finding"):
        raise LedgerError(f"verdict {verdict!r} needs a 'finding': what the book found")
    return Claim(chapter=chapter, checks=checks, **fields)


def _as_check(entry: dict[str, Any]) -> Check:
    label = f"check {entry['measure']!r}"
    chosen = [name for name in COMPARISONS if name in entry]
    if len(chosen) != 1:
        raise LedgerError(f"{label}: give exactly one of {', '.join(COMPARISONS)}")
    reach = {name: float(entry[name]) for name in ("tolerance", "sigmas") if name in entry}
    if len(reach) != (1 if chosen == ["equals"] else 0):
        raise LedgerError(
            f"{label}: 'equals' takes one of 'tolerance' and 'sigmas', the others neither"
        )
    return Check(
        measure=_one_line(entry["measure"]),
        comparison=chosen[0],
        threshold=float(entry[chosen[0]]),
        because=_one_line(entry["because"]),
        **reach,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- judging: claims against results --------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """A claim held against a run.

    Attributes:
        claim: the claim.
        outcomes: for each check, the measured number (None: not measured) and whether it holds.
    """

    claim: Claim
    outcomes: tuple[tuple[Check, Measure | None, bool], ...]

    @property
    def verdict(self) -> str:
        """The claim's verdict if every check holds, else "open"."""
        return self.claim.verdict if self.holds else "open"

    @property
    def holds(self) -> bool:
        """Whether the run bears the claim's verdict out."""
        return all(good for _, _, good in self.outcomes)

    def line(self) -> str:
        """One line: the verdict that stands, and any check that broke it."""
        claim = self.claim
        if not claim.checks:
            return f"{claim.id}: open"
        if self.holds:
            return f"{claim.id}: {self.verdict} ({len(self.outcomes)} checks hold)"
        broken = "; ".join(
            f"{check.measure} is {'not measured' if got is None else got}, wanted {check}"
            for check, got, good in self.outcomes
            if not good
        )
        return f"{claim.id}: OPEN, {claim.chapter}.yml says {claim.verdict}: {broken}"

    def rows(self) -> list[str]:
        """The claim as lines of a table: verdict, then each check with its number."""
        mark = self.verdict if self.holds else "OPEN"
        return [f"{mark:<15} {self.claim.id}"] + [
            f"{'':<15}   {'holds' if good else 'FAILS'}: {check.measure} = "
            f"{'not measured' if got is None else got}, wanted {check}"
            for check, got, good in self.outcomes
        ]

    def as_dict(self) -> dict[str, Any]:
        """The judgement for machines."""
        claim = self.claim
        return {
            "id": claim.id,
            "chapter": claim.chapter,
            "where": claim.where,
            "verdict": self.verdict,
            "declared": claim.verdict,
            "checks": [
                {
                    "measure": check.measure,
                    "value": None if got is None else got.value,
                    "se": None if got is None else got.se,
                    "wanted": str(check),
                    "holds": good,
                }
                for check, got, good in self.outcomes
            ],
        }


def judge(claim: Claim, measures: dict[str, Measure]) -> Judgement:
    """Hold one claim against the measures of its chapter."""
    return Judgement(
        claim,
        tuple(
            (check, got := measures.get(check.measure), got is not None and check.holds(got))
            for check in claim.checks
        ),
    )


def judge_all(claims: list[Claim], measures: dict[str, dict[str, Measure]]) -> list[Judgement]:
    """Hold every claim against its chapter's measures; a chapter not run measured nothing."""
    return [judge(claim, measures.get(claim.chapter, {})) for claim in claims]
