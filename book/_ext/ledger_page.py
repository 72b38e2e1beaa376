"""The `{ledger}` directive: claims, verdicts and measured numbers, where the page asks.

    ```{ledger} why-energy      the claims of one chapter, each with its checks
    ```{ledger} all                every claim of the report, a table a chapter
    ```{ledger} summary            how many claims have which verdict
    ```{ledger} badges why-energy  the claims of one chapter, each with its verdict, on a line
    ```{ledger} runs               which run of each chapter is shown
    ```{ledger} rates              how often the verdicts hold, a row a chapter, and what failed

Reads the claims, the results that the notebooks carry and the rates that a sweep left, so that a
page can only show what the notebooks beside it measured. Leaves `_static/ledger.json` for machines.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError

from ebmbook import claims, rates
from ebmbook.press import notebooks, sweep
from ebmref.files import write_atomic

BADGES = {
    "open": "muted",
    "reproduced": "success",
    "corrected": "primary",
    "qualified": "warning",
    "refuted": "danger",
    "not reproduced": "danger",
}


def load(srcdir: str) -> tuple[list[claims.Judgement], dict[str, dict]]:
    """Every judgement, and each chapter's results, of the book in `srcdir`."""
    book = Path(srcdir) / "book"
    try:
        results = {}
        for chapter in notebooks.chapters():
            path = book / f"{chapter}.ipynb"
            run = notebooks.read(path)
            results[chapter] = notebooks.results_of(run, path.name)
            results[chapter]["made"] = how_made(run.metadata["ebmref"])
            results[chapter]["made-when"] = when_made(run.metadata["ebmref"])
        measures = {chapter: result["measures"] for chapter, result in results.items()}
        return claims.judge_all(notebooks.claims_in_order(), measures), results
    except (claims.LedgerError, notebooks.BookError) as error:
        raise ExtensionError(str(error)) from None


def load_rates(srcdir: str) -> dict[str, dict]:
    """The rates of each chapter that was swept, each with whether they are "stale"."""
    found = {}
    try:
        for chapter in notebooks.chapters():
            got = rates.read(Path(srcdir) / "book" / "rates" / f"{chapter}.json")
            if got is not None and got["runs"]:
                found[chapter] = got | {"stale": sweep.is_stale(chapter, got)}
    except (claims.LedgerError, notebooks.BookError) as error:
        raise ExtensionError(str(error)) from None
    return found


def how_often(claim: claims.Claim, swept: dict[str, dict]) -> str:
    """In how many runs of a sweep a claim's verdict was borne out; "" where none was made."""
    found = swept.get(claim.chapter)
    if found is None or not claim.checks or not rates.knows(found, claim):
        return ""
    earlier = ", of earlier code" if found["stale"] else ""
    return f"held in {rates.of_claim(found, claim)}{earlier}"


def when_made(stamp: dict) -> str:
    """When and from which commit a record was made, and over how many changes it was carried."""
    if "made_by" not in stamp:
        return "by the run of this build"
    made = stamp["made_by"]
    told = f"on {made['date']} from commit {made['commit'] or 'unknown'}"
    steps = len(stamp.get("carried", []))
    return told + (f", carried over {steps} change{'s' * (steps > 1)}" if steps else "")


def how_made(stamp: dict) -> str:
    """When a record was made, and why it may stand though the code was changed since."""
    told, steps = when_made(stamp), stamp.get("carried", [])
    if steps:
        places = sum(step["places"] for step in steps)
        told += (
            f" of the code since: in the quick profile all results and outputs were equal to the "
            f"last bit, and each of the {places} changed places ran{_vouched(steps)} "
            f"(evidence {steps[-1]['evidence']})"
        )
    return told


def _vouched(steps: list[dict]) -> str:
    """The places that did not run, and why they change no number."""
    reasons = {of: why for step in steps for of, why in step.get("vouched", {}).items()}
    if not reasons:
        return ""
    return ", or was read: " + "; ".join(f"`{of}` ({why})" for of, why in reasons.items())


def badge(judgement: claims.Judgement) -> str:
    """The verdict that stands, as a coloured label; a broken one says so."""
    if not judgement.holds:
        return f"{{bdg-danger}}`open: {judgement.claim.verdict} not borne out`"
    return f"{{bdg-{BADGES[judgement.verdict]}}}`{judgement.verdict}`"


def item(text: str, first: bool = False) -> list[str]:
    """One cell of a MyST list-table row."""
    head, *rest = text.splitlines() or [""]
    return [("* - " if first else "  - ") + head] + [f"    {line}" for line in rest]


def table(header: list[str], widths: str, rows: list[list[str]]) -> list[str]:
    """A MyST list-table."""
    lines = ["````{list-table}", ":header-rows: 1", f":widths: {widths}", ":width: 100%", ""]
    for row in [header, *rows]:
        for i, text in enumerate(row):
            lines += item(text, first=i == 0)
    return [*lines, "````", ""]


def chapter_lines(
    judgements: list[claims.Judgement], chapter: str, swept: dict[str, dict]
) -> list[str]:
    """The claims of one chapter, each with what was found and what it stands on."""
    lines = []
    for judgement in judgements:
        claim = judgement.claim
        if claim.chapter != chapter:
            continue
        lines += [
            f"**{claim.id}** ({claim.where}) {badge(judgement)} {how_often(claim, swept)}".rstrip(),
            f": {claim.says}",
            "",
        ]
        if claim.finding:
            lines += [f"  *Found:* {claim.finding}", ""]
        for check, got, good in judgement.outcomes:
            number = "not measured" if got is None else str(got)
            mark = "holds" if good else "**FAILS**"
            lines += [
                f"  - `{check.measure}` = **{number}**; wanted {check}: {mark}"
                f"{where_failed(check, swept.get(chapter))}. *{check.because}*"
            ]
        lines += [""]
    return lines


def where_failed(check: claims.Check, found: dict | None) -> str:
    """The runs of a sweep in which a check did not hold."""
    known = found is not None and check.measure in found["values"]
    failed = rates.of_check(found, check).failed if known else ()
    return f"; it failed with seed {', '.join(failed)}" if failed else ""


def rate_lines(judgements: list[claims.Judgement], swept: dict[str, dict]) -> list[str]:
    """How often all verdicts of a chapter held at once, and each check that failed somewhere."""
    rows, failures = [], []
    for chapter, found in swept.items():
        claimed = [one.claim for one in judgements if one.claim.chapter == chapter]
        claimed = [claim for claim in claimed if rates.knows(found, claim)]
        checks = {check: rates.of_check(found, check) for one in claimed for check in one.checks}
        margins = {check: got.margin for check, got in checks.items() if got.margin is not None}
        died = [run for run in found["runs"] if "error" in run]
        least = min(margins, key=margins.get, default=None)
        machines = sorted({run["machine"] or "as it is" for run in found["runs"]})
        rows.append(
            [
                f"[](/book/{chapter}.ipynb)",
                f"{rates.of_all(found, claimed)}{' **of earlier code**' * found['stale']}"
                + (f"; {len(died)} died" if died else ""),
                ", ".join(machines),
                "" if least is None else f"{margins[least]:.1f}: {rates.name_of(least)}",
            ]
        )
        for check, got in checks.items():
            if got.failed:
                margin = "" if got.margin is None else f"{got.margin:.1f}"
                told = f"{got.rate.held} of {got.rate.of}"
                where = ", ".join(got.failed)
                failures.append(
                    [f"[](/book/{chapter}.ipynb)", rates.name_of(check), told, where, margin]
                )
    if not rows:
        return ["No sweep has been made yet."]
    header = ["Chapter", "All verdicts held in", "Processors", "Least margin"]
    lines = table(header, "24 28 14 34", rows)
    if failures:
        lines += ["Checks that did not hold in every run:", ""]
        header = ["Chapter", "Check", "Held in", "Failed with seed", "Margin"]
        lines += table(header, "20 36 12 22 10", failures)
    return lines


def all_lines(
    judgements: list[claims.Judgement], chapters: set[str], swept: dict[str, dict]
) -> list[str]:
    """Every claim, a table a chapter, the report's first; a chapter's name leads to it."""
    rows = defaultdict(list)
    order = {one.claim.chapter: i for i, one in reversed(list(enumerate(judgements)))}
    for judgement in sorted(
        judgements, key=lambda one: (order[one.claim.chapter], one.claim.is_of_paper)
    ):
        claim = judgement.claim
        told = [claim.says]
        if claim.finding:
            told.append(f"*Found:* {claim.finding}")
        told += [
            f"{check.measure}: **{got or 'not measured'}**, wanted {check}"
            f"{'' if good else ': **fails**'}"
            for check, got, good in judgement.outcomes
        ]
        name = "\n\n".join(filter(None, [claim.id, badge(judgement), how_often(claim, swept)]))
        rows[claim.chapter].append([name, "\n\n".join(told)])
    lines = []
    for chapter, claimed in rows.items():
        home = f"[](/book/{chapter}.ipynb)" if chapter in chapters else f"{chapter}, to come"
        lines += [f"```{{rubric}} {home}", "```", ""]
        lines += table(["Claim", "It says"], "25 75", claimed)
    return lines


def summary_lines(judgements: list[claims.Judgement]) -> list[str]:
    """How many claims have which verdict, the report's and those of other papers apart."""
    lines = []
    for of, is_paper in (("of the report", False), ("of the papers around it", True)):
        mine = [one for one in judgements if one.claim.is_of_paper == is_paper]
        count = Counter(judgement.verdict for judgement in mine)
        parts = [
            f"{{bdg-{colour}}}`{count[verdict]} {verdict}`"
            for verdict, colour in BADGES.items()
            if count[verdict]
        ]
        if mine:
            plural = "s" * (len(mine) != 1)
            lines += [f"**{len(mine)} claim{plural} {of}:** {' '.join(parts)}", ""]
    broken = sum(not judgement.holds for judgement in judgements)
    if broken:
        lines += [f"**{broken} declared verdicts are not borne out by this run.**"]
    return lines


def badge_lines(judgements: list[claims.Judgement], chapter: str) -> list[str]:
    """The verdicts of one chapter on a line, for the box at its top."""
    mine = [one for one in judgements if one.claim.chapter == chapter]
    return [" ".join(f"{one.claim.id} {badge(one)}" for one in mine)]


def run_lines(results: dict[str, dict]) -> list[str]:
    """Which run of each chapter the pages show."""
    rows = [
        [
            f"[](/book/{chapter}.ipynb)",
            result["profile"],
            str(result["seed"]),
            result.get("device", "?"),
            ", ".join(f"{name} {got}" for name, got in result.get("versions", {}).items()),
            result["made-when"],
        ]
        for chapter, result in results.items()
    ]
    header = ["Chapter", "Profile", "Seed", "Device", "Versions", "Made"]
    return table(header, "22 8 6 8 20 36", rows)


class Ledger(Directive):
    """Renders one view of the ledger."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        judgements, results = load(env.srcdir)
        book = Path(env.srcdir) / "book"
        swept = load_rates(env.srcdir)
        read = [*book.glob("claims/*.yml"), *book.glob("rates/*.json")]
        for path in [*read, *(book / f"{name}.ipynb" for name in results)]:
            env.note_dependency(str(path.relative_to(env.srcdir)))
        for code in (__file__, claims.__file__, rates.__file__):
            env.note_dependency(code)
        view, chapter = self.arguments[0], self.arguments[-1]
        known = {judgement.claim.chapter for judgement in judgements}
        if view == "all":
            lines = all_lines(judgements, set(results), swept)
        elif view == "summary":
            lines = summary_lines(judgements)
        elif view == "badges" and chapter in known:
            lines = badge_lines(judgements, chapter)
        elif view == "runs":
            lines = run_lines(results)
        elif view == "rates":
            lines = rate_lines(judgements, swept)
        elif view in known:
            lines = [f"The numbers of this page were made {results[view]['made']}.", ""]
            lines += chapter_lines(judgements, view, swept)
        else:
            asked = " ".join(self.arguments)
            raise self.error(f"ledger: {asked!r} is no chapter with claims, nor a view")
        node = nodes.container(classes=["ledger"])
        self.state.nested_parse(StringList(lines, "claims"), self.content_offset, node)
        return [node]


def leave_json(app, exception) -> None:
    """Write the whole ledger beside the pages, for machines."""
    if exception is None and app.builder.format == "html":
        judgements, _ = load(app.srcdir)
        text = json.dumps([judgement.as_dict() for judgement in judgements], indent=1) + "\n"
        write_atomic(Path(app.outdir) / "_static" / "ledger.json", text)


def setup(app):
    """Register with Sphinx."""
    app.add_directive("ledger", Ledger)
    app.connect("build-finished", leave_json)
    return {"version": "1", "parallel_read_safe": True}
