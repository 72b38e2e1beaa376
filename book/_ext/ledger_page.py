"""The `{ledger}` directive: claims, verdicts and measured numbers, where the page asks.

    ```{ledger} why-energy      the claims of one chapter, each with its checks
    ```{ledger} all                every claim with all it stands on, a row each: the instrument
    ```{ledger} summary            how many claims have which verdict
    ```{ledger} badges why-energy  the claims of one chapter, each with its verdict, on a line
    ```{ledger} runs               which run of each chapter is shown
    ```{ledger} rates              how often the verdicts hold, a row a chapter, and what failed

and the `{claim}` role, whose text is a claim's id: its name and verdict, which lead to its row on
the page that the configuration calls `ledger_page`.

Reads the claims, the results that the notebooks carry and the rates that a sweep left, so that a
page can only show what the notebooks beside it measured. Leaves `_static/ledger.json` for machines.
"""

import json
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path

import code_pages
import ledger_rows
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxRole

from ebmbook import claims, rates
from ebmbook.press import errata, notebooks, report, sweep, told
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
    """Every judgement, and each chapter's results, of the book in `srcdir`.

    Raises:
        ExtensionError: the claims or a notebook cannot be read; the text says which, and why.
    """
    return _load(srcdir, _state(srcdir))


def load_rates(srcdir: str) -> dict[str, dict]:
    """The rates of each chapter that was swept, each with whether they are "stale".

    Raises:
        ExtensionError: a file of rates is damaged.
    """
    return _load_rates(srcdir, _state(srcdir))


def require_names(faults: Iterable[str]) -> None:
    """Look whether a page names only claims and measures that there are.

    Raises:
        ExtensionError: it does not. That its words want to be read again is for a test to say.
    """
    unknown = [one for one in faults if "no such claim" in one or "does not measure" in one]
    if unknown:
        raise ExtensionError("; ".join(unknown))


def read_files(srcdir: str) -> list[Path]:
    """What the ledger is made of."""
    book = Path(srcdir) / "book"
    return sorted([*book.glob("*.ipynb"), *book.glob("claims/*.yml"), *book.glob("rates/*.json")])


def _state(srcdir: str) -> tuple:
    """Changes when anything that was read does."""
    return tuple((path, path.stat().st_mtime_ns) for path in read_files(srcdir))


@lru_cache(maxsize=1)
def _load(srcdir: str, state: tuple) -> tuple[list[claims.Judgement], dict[str, dict]]:
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


@lru_cache(maxsize=1)
def _load_rates(srcdir: str, state: tuple) -> dict[str, dict]:
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
    """The verdict that stands; a broken one says so."""
    if not judgement.holds:
        return f"open: {judgement.claim.verdict} not borne out"
    return judgement.verdict


def colour(judgement: claims.Judgement) -> str:
    """Of its badge, by the names of the theme."""
    return BADGES[judgement.verdict] if judgement.holds else "danger"


class ClaimRole(SphinxRole):
    """A claim's name and verdict, in one link to its row."""

    def run(self) -> tuple[list[nodes.Node], list]:
        judgements, _ = load(self.env.srcdir)
        found = next((one for one in judgements if one.claim.id == self.text), None)
        if found is None:
            told = self.inliner.reporter.error(f"claim: no claim is called {self.text!r}")
            return [], [told]
        for path in read_files(self.env.srcdir):
            if path.stem == found.claim.chapter:
                self.env.note_dependency(str(path.relative_to(self.env.srcdir)))
        shade = colour(found)
        label = nodes.inline(
            "",
            badge(found),
            classes=["sd-sphinx-override", "sd-badge", f"sd-bg-{shade}", f"sd-bg-text-{shade}"],
        )
        # No line may end between a name and its verdict's badge.
        children = [nodes.Text(f"{report.name(found.claim)}\u00a0"), label]
        page = self.env.config.ledger_page
        if page not in self.env.found_docs:
            return [nodes.inline("", "", *children, classes=["claim-link"])], []
        address = self.env.app.builder.get_relative_uri(self.env.docname, page)
        link = nodes.reference(
            "", "", *children, refuri=f"{address}#{found.claim.id}", classes=["claim-link"]
        )
        return [link], []


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
            f"{{claim}}`{claim.id}` ({claim.where}) {how_often(claim, swept)}".rstrip(),
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
    return [" ".join(f"{{claim}}`{one.claim.id}`" for one in mine)]


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


class Words(nodes.General, nodes.TextElement):
    """A line without an element around it."""


class Ledger(Directive):
    """Renders one view of the ledger."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        judgements, results = load(env.srcdir)
        swept = load_rates(env.srcdir)
        for path in read_files(env.srcdir):
            env.note_dependency(str(path.relative_to(env.srcdir)))
        for code in (__file__, ledger_rows.__file__, claims.__file__, rates.__file__):
            env.note_dependency(code)
        view, chapter = self.arguments[0], self.arguments[-1]
        known = {judgement.claim.chapter for judgement in judgements}
        if view == "all":
            return self.instrument(env, judgements, results, swept)
        if view == "summary":
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
        self.parse(lines, node)
        return [node]

    def parse(self, lines: list[str], node: nodes.Element) -> None:
        """MyST into a node."""
        self.state.nested_parse(StringList(lines, "claims"), self.content_offset, node)

    def words(self, text: str) -> list[nodes.Node]:
        """A line of MyST."""
        node = nodes.container()
        self.parse([text], node)
        if len(node) == 1 and isinstance(node[0], nodes.paragraph):
            return [Words("", "", *node[0].children)]
        return node.children

    def instrument(
        self, env, judgements: list[claims.Judgement], results: dict, swept: dict
    ) -> list[nodes.Node]:
        """Map, filter and tables of all claims."""
        env.metadata[env.docname]["ledger"] = True

        def address(page: str) -> str:
            return env.app.builder.get_relative_uri(env.docname, page)

        chapters = {}
        for chapter, result in results.items():
            run = notebooks.read(Path(env.srcdir) / "book" / f"{chapter}.ipynb")
            checked = {
                check.measure: result["measures"][check.measure]
                for one in judgements
                if one.claim.chapter == chapter
                for check in one.claim.checks
                if check.measure in result["measures"]
            }
            headings = told.headings(run)
            chapters[chapter] = ledger_rows.Chapter(
                title=headings[0],
                headings=headings,
                told=told.told(run, result["measures"], checked),
                made=result["made-when"],
                page=address(f"book/{chapter}"),
                swept=swept.get(chapter),
            )
        writer = ledger_rows.Writer(
            words=self.words,
            code=lambda module: address(code_pages.ask_for(env, module)),
            how_often=lambda one: how_often(one.claim, swept),
            errata=self.errata(env),
        )
        return [
            ledger_rows.overview(judgements),
            ledger_rows.controls(judgements, {name: one.title for name, one in chapters.items()}),
            *ledger_rows.tables(judgements, chapters, writer),
        ]

    def errata(self, env) -> dict[str, str]:
        """The address of each claim's erratum."""
        page = env.config.errata_page
        if page not in env.found_docs:
            return {}
        file = Path(env.srcdir) / "book" / "errata.yml"
        env.note_dependency(str(file.relative_to(env.srcdir)))
        try:
            found = errata.load_errata(file)
        except claims.LedgerError as error:
            raise ExtensionError(str(error)) from None
        address = env.app.builder.get_relative_uri(env.docname, page)
        return {name: f"{address}#{one.claim}" for one in found for name in (one.claim, *one.also)}


def anchors_of(env, chapter: str) -> list[str]:
    """The anchors of a page's headings, in order; the title's is ""."""
    return [
        node["anchorname"].removeprefix("#")
        for node in env.tocs[f"book/{chapter}"].findall(nodes.reference)
    ]


def resolve_anchors(app, doctree: nodes.document, docname: str) -> None:
    """When all pages are read."""
    if app.env.metadata[docname].get("ledger"):
        ledger_rows.resolve(doctree, partial(anchors_of, app.env))


def add_script(app, pagename, templatename, context, doctree) -> None:
    """The filter, on the page that it filters."""
    if app.env.metadata.get(pagename, {}).get("ledger"):
        # Before MathJax, which draws what it is not told to leave.
        app.add_js_file("ledger.js", loading_method="defer", priority=400)


def leave_json(app, exception) -> None:
    """Write the whole ledger beside the pages, for machines."""
    if exception is None and app.builder.format == "html":
        judgements, _ = load(app.srcdir)
        text = json.dumps([judgement.as_dict() for judgement in judgements], indent=1) + "\n"
        write_atomic(Path(app.outdir) / "_static" / "ledger.json", text)


def setup(app):
    """Register with Sphinx."""
    app.add_config_value("ledger_page", "book/ledger", "env")
    app.add_config_value("errata_page", "book/errata", "env")
    bare = (lambda writer, node: None, lambda writer, node: None)
    app.add_node(Words, html=bare, latex=bare, text=bare)
    app.add_directive("ledger", Ledger)
    app.add_role("claim", ClaimRole())
    app.connect("doctree-resolved", resolve_anchors)
    app.connect("html-page-context", add_script)
    app.connect("build-finished", leave_json)
    return {"version": "2", "parallel_read_safe": True}
