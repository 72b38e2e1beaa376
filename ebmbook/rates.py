"""How often a verdict holds: over seeds, and over processors that round in other ways.

`book/rates/<chapter>.json` is what a sweep left of its runs: for each run what every check of the
chapter looks at, and what follows from that under the claims as they are:

    {"key": ..., "profile": "quick",
     "runs": [{"seed": 0, "machine": "avx2", "seconds": 31.2}, ... "error" of one that died],
     "values": {measure: [one a run]}, "errors": {measure: [standard errors]},
     "claims": {id: {"held": n, "of": N, "seeds": [held, of]}},
     "checks": {"measure wanted": {"held": n, "of": N, "margin": z, "failed": ["3 avx2", ...]}}}

Runs of one seed on several processors are no independent trials, so an interval is of the seeds:
one holds where all its runs hold. A run that died counts as not held.
"""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.special import betaincinv

from ebmbook.claims import Check, Claim, LedgerError, Measure, judge


@dataclass(frozen=True)
class Rate:
    """How often something held.

    Attributes:
        held, of: runs.
        seeds_held, seeds: seeds, of which one holds where all its runs do.
    """

    held: int
    of: int
    seeds_held: int
    seeds: int

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the share of seeds (Clopper and Pearson 1934)."""
        # As scipy.stats.binomtest has it, which takes seconds to import.
        k, n = self.seeds_held, self.seeds
        low = betaincinv(k, n - k + 1, 0.025) if k else 0.0
        high = betaincinv(k + 1, n - k, 0.975) if k < n else 1.0
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        seeds = f"{self.seeds} seed{'s' * (self.seeds != 1)}"
        return f"{self.held} of {self.of} runs ({seeds}: {low:.2f} to {high:.2f})"


@dataclass(frozen=True)
class CheckRate:
    """How often a check held.

    Attributes:
        rate: of it.
        margin: how far, on average, the number is on the right side of the threshold, in standard
            deviations of its spread over the runs; inf where it has none; None without a run.
        failed: the runs in which it did not hold: "3 avx2".
    """

    rate: Rate
    margin: float | None
    failed: tuple[str, ...]


def collect(claims: Iterable[Claim], key: str, profile: str, runs: list[dict]) -> dict[str, Any]:
    """What a file of rates holds.

    Args:
        claims: of the chapter.
        runs: "seed", "machine", "seconds", and "measures", a `Measure` by name, or "error".
    """
    checks = [check for claim in claims for check in claim.checks]
    runs = sorted(runs, key=lambda run: (run["seed"], run["machine"]))
    values: dict[str, list] = {}
    errors: dict[str, list] = {}
    for check in checks:
        got = [run.get("measures", {}).get(check.measure) for run in runs]
        values[check.measure] = [None if one is None else one.value for one in got]
        if check.sigmas is not None:
            errors[check.measure] = [one and one.se for one in got]
    told = [{name: got for name, got in run.items() if name != "measures"} for run in runs]
    rates = {"key": key, "profile": profile, "runs": told, "values": values, "errors": errors}
    return rates | _judged(rates, claims)


def runs_of(rates: dict[str, Any]) -> list[dict]:
    """The runs of a file of rates, each with its measures: what `collect` takes."""
    runs = []
    for i, run in enumerate(rates["runs"]):
        measures = {
            name: Measure(got[i], rates["errors"].get(name, [None] * (i + 1))[i])
            for name, got in rates["values"].items()
            if got[i] is not None
        }
        runs.append(run | {"measures": measures})
    return runs


def knows(rates: dict[str, Any], claim: Claim) -> bool:
    """Whether the runs kept what the claim's checks look at; a check that is new they did not."""
    return all(check.measure in rates["values"] for check in claim.checks)


def of_claim(rates: dict[str, Any], claim: Claim) -> Rate:
    """How often a claim's verdict was borne out."""
    return of_all(rates, [claim])


def of_all(rates: dict[str, Any], claims: Iterable[Claim]) -> Rate:
    """How often all these verdicts were borne out at once."""
    claims = list(claims)
    held = [
        "error" not in run and all(judge(claim, run["measures"]).holds for claim in claims)
        for run in runs_of(rates)
    ]
    return _rate(rates["runs"], held)


def of_check(rates: dict[str, Any], check: Check) -> CheckRate:
    """How often a check held, and how well."""
    got = [run["measures"].get(check.measure) for run in runs_of(rates)]
    held = [one is not None and check.holds(one) for one in got]
    failed = [_told(run) for run, good in zip(rates["runs"], held, strict=True) if not good]
    margin = _margin(check, [one for one in got if one is not None])
    return CheckRate(_rate(rates["runs"], held), margin, tuple(failed))


def name_of(check: Check) -> str:
    """What a check is called in a file of rates; two of one number differ in what is wanted."""
    return f"{check.measure} {check}"


def read(path: Path) -> dict[str, Any] | None:
    """A file of rates; None where there is none.

    Raises:
        LedgerError: it is damaged.
    """
    try:
        rates = json.loads(path.read_text(encoding="utf-8"))
        n = len(rates["runs"])
        if any(len(got) != n for got in [*rates["values"].values(), *rates["errors"].values()]):
            raise ValueError("not one value a run")
        for run in rates["runs"]:
            run["seed"], run["machine"], rates["key"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise LedgerError(
            f"{path.name}: not a file of rates ({type(error).__name__}: {error}); make sweep "
            "makes it"
        ) from None
    return rates


def as_text(rates: dict[str, Any]) -> str:
    """Rates as JSON, a line an entry."""
    parts = []
    for name, got in rates.items():
        if isinstance(got, dict):
            lines = [f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in got.items()]
            told = "{\n  " + ",\n  ".join(lines) + "\n }"
        elif isinstance(got, list):
            told = "[\n  " + ",\n  ".join(map(json.dumps, got)) + "\n ]"
        else:
            told = json.dumps(got)
        parts.append(f' "{name}": {told}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _judged(rates: dict[str, Any], claims: Iterable[Claim]) -> dict[str, Any]:
    told: dict[str, Any] = {"claims": {}, "checks": {}}
    for claim in claims:
        if not claim.checks:
            continue
        rate = of_claim(rates, claim)
        told["claims"][claim.id] = _as_dict(rate)
        for check in claim.checks:
            got = of_check(rates, check)
            finite = got.margin is not None and math.isfinite(got.margin)
            told["checks"][name_of(check)] = {
                "held": got.rate.held,
                "of": got.rate.of,
                "margin": round(got.margin, 2) if finite else None,
                "failed": list(got.failed),
            }
    return told


def _as_dict(rate: Rate) -> dict[str, Any]:
    return {"held": rate.held, "of": rate.of, "seeds": [rate.seeds_held, rate.seeds]}


def _rate(runs: list[dict], held: list[bool]) -> Rate:
    seeds: dict[int, bool] = {}
    for run, good in zip(runs, held, strict=True):
        seeds[run["seed"]] = seeds.get(run["seed"], True) and good
    return Rate(sum(held), len(held), sum(seeds.values()), len(seeds))


def _margin(check: Check, got: list[Measure]) -> float | None:
    """See `CheckRate`; of a check in standard errors, of the number in its own."""
    if len(got) < 2:
        return None
    if check.sigmas is not None:
        values = [(one.value - check.threshold) / (one.se or math.inf) for one in got]
        inside = check.sigmas - abs(statistics.fmean(values))
    else:
        values = [one.value for one in got]
        over = statistics.fmean(values) - check.threshold
        if check.comparison == "equals":
            inside = check.tolerance - abs(over)
        else:
            inside = over if check.comparison == "at_least" else -over
    spread = statistics.stdev(values)
    if spread == 0:
        return math.copysign(math.inf, inside) if inside else math.inf
    return inside / spread


def _told(run: dict) -> str:
    return " ".join(filter(None, (str(run["seed"]), run["machine"])))
