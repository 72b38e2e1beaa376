"""Claims and results as data: the statements of `claims.yml`, the numbers of a run, the verdicts.

`book/claims.yml` holds, chapter by chapter, what the report says and the thresholds a
verdict stands on; a run leaves `results/<chapter>.json`. This module reads both and holds
one against the other. It needs no torch, so that tools start at once.
"""

import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

VERDICTS = ("open", "reproduced", "corrected", "qualified", "refuted")
COMPARISONS = ("at_most", "at_least", "equals")
ID_PREFIXES = ("eq", "fig", "def", "thm", "claim", "sys", "paper")


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
        verdict: one of `VERDICTS`.
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


def find_claims() -> Path | None:
    """`$EBMREF_CLAIMS`, else the `claims.yml` of this folder, its `book/`, or one above."""
    if named := os.environ.get("EBMREF_CLAIMS"):
        return Path(named)
    for folder in (Path.cwd(), *Path.cwd().parents):
        for path in (folder / "claims.yml", folder / "book" / "claims.yml"):
            if path.is_file():
                return path
    return None


def load_claims(path: Path) -> list[Claim]:
    """Read and validate `claims.yml`: a list of claims under each chapter's name.

    Raises:
        LedgerError: one line that names the file, the claim and what is wrong with it.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise LedgerError(f"{path.name}: cannot be read ({reason})") from None
    if not isinstance(tree, dict):
        raise LedgerError(f"{path.name}: expected chapters, each with a list of claims")
    claims: dict[str, Claim] = {}
    for chapter, entries in tree.items():
        if not isinstance(entries, list):
            raise LedgerError(f"{path.name}: {chapter}: expected a list of claims")
        for position, entry in enumerate(entries, start=1):
            name = entry.get("id") if isinstance(entry, dict) else None
            label = f"{path.name}: {name or f'{chapter}, claim {position}'}"
            try:
                claim = _parse_claim(chapter, entry)
            except LedgerError as error:
                raise LedgerError(f"{label}: {error}") from None
            if claim.id in claims:
                raise LedgerError(f"{label}: this id stands twice")
            claims[claim.id] = claim
    return list(claims.values())


def _take(entry: Any, required: dict[str, type], optional: dict[str, type]) -> dict[str, Any]:
    """The entry's fields, each of its type, none missing and none unknown."""
    if not isinstance(entry, dict):
        raise LedgerError(f"expected fields, got {entry!r}")
    if unknown := sorted(entry.keys() - required.keys() - optional.keys()):
        raise LedgerError(f"unknown field {unknown[0]!r}")
    for name in required:
        if entry.get(name) in (None, ""):
            raise LedgerError(f"field {name!r} is missing")
    fields = {}
    for name, kind in (required | optional).items():
        if name not in entry:
            continue
        got = entry[name]
        if kind is float and isinstance(got, int) and not isinstance(got, bool):
            got = float(got)
        if not isinstance(got, kind):
            raise LedgerError(f"field {name!r} must be {kind.__name__}, got {got!r}")
        fields[name] = " ".join(got.split()) if kind is str else got
    return fields


def _parse_claim(chapter: str, entry: Any) -> Claim:
    fields = _take(
        entry,
        {"id": str, "where": str, "says": str},
        {"verdict": str, "finding": str, "checks": list},
    )
    if not re.fullmatch(rf"({'|'.join(ID_PREFIXES)})-[a-z0-9-]+", fields["id"]):
        raise LedgerError(f"id must be lower case and begin with one of {', '.join(ID_PREFIXES)}")
    verdict = fields.get("verdict", "open")
    if verdict not in VERDICTS:
        raise LedgerError(f"unknown verdict {verdict!r}; one of {', '.join(VERDICTS)}")
    checks = tuple(_parse_check(check) for check in fields.pop("checks", []))
    if verdict != "open" and not checks:
        raise LedgerError(f"verdict {verdict!r} without a check: a claim without one is open")
    if verdict != "open" and not fields.get("finding"):
        raise LedgerError(f"verdict {verdict!r} needs a 'finding': what the book found")
    return Claim(chapter=chapter, checks=checks, **fields)


def _parse_check(entry: Any) -> Check:
    if isinstance(entry, dict) and not entry.get("measure"):
        raise LedgerError("a check without measure")
    optional = dict.fromkeys((*COMPARISONS, "tolerance", "sigmas"), float)
    try:
        fields = _take(entry, {"measure": str, "because": str}, optional)
        chosen = [name for name in COMPARISONS if name in fields]
        if len(chosen) != 1:
            raise LedgerError(f"give exactly one of {', '.join(COMPARISONS)}")
        reach = [name for name in ("tolerance", "sigmas") if name in fields]
        if len(reach) != (1 if chosen == ["equals"] else 0):
            raise LedgerError("'equals' takes one of 'tolerance' and 'sigmas', the others neither")
    except LedgerError as error:
        name = entry.get("measure") if isinstance(entry, dict) else entry
        raise LedgerError(f"check {name!r}: {error}") from None
    return Check(comparison=chosen[0], threshold=fields.pop(chosen[0]), **fields)


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
        return f"{claim.id}: OPEN, claims.yml says {claim.verdict}: {broken}"

    def rows(self) -> list[str]:
        """The claim as lines of a table: verdict, then each check with its number."""
        mark = self.verdict if self.holds else "OPEN"
        return [f"{mark:<11} {self.claim.id}"] + [
            f"{'':<11}   {'holds' if good else 'FAILS'}: {check.measure} = "
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
