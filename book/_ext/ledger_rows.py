"""The ledger as an instrument: a row a claim, and in it everything that the verdict stands on.

Plain tables that need no script; `_static/ledger.js` filters them where there is one. A row's
anchor is the claim's id, `ledger.html#eq-4`. Raw HTML carries the structure, MyST the words.
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby

from docutils import nodes

from ebmbook import rates
from ebmbook.claims import Check, Judgement, Measure
from ebmbook.press import gauges, report
from ebmbook.press.told import Told

MARKS = {
    "reproduced": "✓",
    "corrected": "✎",
    "qualified": "≈",
    "refuted": "✗",
    "not reproduced": "∅",
    "open": "?",
}
ANCHOR = re.compile(r"%%([\w-]+)/(\d+)%%")


@dataclass(frozen=True)
class Chapter:
    """What a row tells of the chapter that answers for its claim.

    Attributes:
        title: of the page, in MyST.
        headings: of the page, its title first, in MyST.
        told: where each measure is told.
        made: when its record was made.
        page: its address, seen from the ledger.
        swept: its rates; None where none were made.
    """

    title: str
    headings: list[str]
    told: dict[str, Told]
    made: str
    page: str
    swept: dict | None


@dataclass(frozen=True)
class Writer:
    """What turns words and places into nodes on this page.

    Attributes:
        words: of MyST, the nodes of a line.
        code: the address of a module's listing, seen from the ledger.
        how_often: in how many runs of a sweep a claim held; "" for unknown.
        errata: the address of the erratum of a claim, by its id.
    """

    words: Callable[[str], list[nodes.Node]]
    code: Callable[[str], str]
    how_often: Callable[[Judgement], str]
    errata: dict[str, str] = field(default_factory=dict)


def raw(text: str) -> nodes.raw:
    """HTML as it is."""
    return nodes.raw("", text, format="html")


def slug(verdict: str) -> str:
    """A verdict as a class."""
    return verdict.replace(" ", "-")


def anchor(chapter: str, heading: int) -> str:
    """Stands for a heading's anchor until all pages are read; see `resolve`."""
    return f"%%{chapter}/{heading}%%"


def resolve(doctree: nodes.document, anchors: Callable[[str], list[str]]) -> None:
    """Put the anchors of headings in their places.

    Args:
        anchors: of a chapter, those of its headings in order; the title's is "".
    """
    for node in doctree.findall(nodes.raw):
        text = node.astext()
        if "%%" in text:
            node.children = []
            node += nodes.Text(ANCHOR.sub(lambda found: _anchor(found, anchors), text))


def _anchor(found: re.Match, anchors: Callable[[str], list[str]]) -> str:
    known, heading = anchors(found[1]), int(found[2])
    return known[heading] if heading < len(known) else ""


def verdict_mark(verdict: str) -> str:
    """A verdict as a mark and a word, in its colour."""
    return (
        f'<span class="verdict v-{slug(verdict)}"><span aria-hidden="true">{MARKS[verdict]}</span> '
        f"{verdict}</span>"
    )


# --- the map: every claim of the report, a mark each -----------------------------------------


def overview(judgements: Iterable[Judgement]) -> nodes.raw:
    """Links to the rows of the report's claims, by kind."""
    claims = sorted((one for one in judgements if not one.claim.is_of_paper), key=_place)
    claims.sort(key=lambda one: [*report.KINDS].index(_kind(one)))
    rows = []
    for kind, mine in groupby(claims, key=_kind):
        links = " ".join(_chip(one, numbered=kind in ("def", "eq", "fig", "thm")) for one in mine)
        plural = "s" * (kind != "def")
        rows.append(f"<dt>{report.KINDS[kind]}{plural}</dt><dd>{links}</dd>")
    if not rows:
        return raw("")
    legend = " ".join(verdict_mark(one) for one in MARKS if _has(one, claims))
    return raw(
        '<nav class="ledger-map" aria-label="The report\'s claims">'
        f'<dl>{"".join(rows)}</dl><p class="legend">{legend}</p></nav>'
    )


def _has(verdict: str, judgements: Iterable[Judgement]) -> bool:
    return any(one.verdict == verdict for one in judgements)


def _place(judgement: Judgement) -> tuple:
    return report.place(judgement.claim)


def _kind(judgement: Judgement) -> str:
    return report.kind(judgement.claim)


def _chip(judgement: Judgement, numbered: bool) -> str:
    claim, verdict = judgement.claim, judgement.verdict
    name = report.name(claim)
    # What is shown must be words of what is read aloud.
    aloud = re.sub("[()]", "", name) if numbered else name
    number = claim.id.rpartition("-")[2]
    short = (f"R{number}" if _kind(judgement) == "eq" else number) if numbered else name
    return (
        f'<a class="chip v-{slug(verdict)}" href="#{claim.id}" '
        f'aria-label="{html.escape(aloud)}: {verdict}">{html.escape(short)}'
        f'<span aria-hidden="true"> {MARKS[verdict]}</span></a>'
    )


# --- the form: filled in by people, read by the script ---------------------------------------


def controls(judgements: list[Judgement], titles: dict[str, str]) -> nodes.raw:
    """The filter; hidden until a script says that it works."""
    claims = [one.claim for one in judgements]
    sections = {report.section(claim) for claim in claims if not claim.is_of_paper} - {""}
    found = Counter(one.verdict for one in judgements)
    verdicts = [(one, f"{one} ({found[one]})") for one in MARKS if found[one]]
    order = sorted(sections, key=lambda one: [int(part) for part in one.split(".")])
    told = [(one, f"{one} {report.SECTIONS.get(one, '')}".strip()) for one in order]
    named = [(one, titles[one]) for one in titles if any(c.chapter == one for c in claims)]
    return raw(
        '<form class="ledger-filter" role="search" aria-label="Claims" hidden>'
        + _choice("verdict", "Verdict", "any", verdicts)
        + _choice("section", "Section of the report", "any", told)
        + _choice("chapter", "Chapter", "any", named)
        + '<label>Search<input type="search" name="q" autocomplete="off"></label>'
        '<button type="reset">Show all</button>'
        '<p role="status" aria-live="polite"></p></form>'
    )


def _choice(name: str, label: str, any_: str, options: list[tuple[str, str]]) -> str:
    told = "".join(
        f'<option value="{html.escape(value)}">{html.escape(text)}</option>'
        for value, text in options
    )
    return (
        f'<label>{label}<select name="{name}"><option value="">{any_}</option>{told}'
        "</select></label>"
    )


# --- the rows --------------------------------------------------------------------------------


def tables(
    judgements: Iterable[Judgement], chapters: dict[str, Chapter], writer: Writer
) -> list[nodes.Node]:
    """The report's claims, a section a section of the report; then the papers', a chapter each."""
    ours = sorted((one for one in judgements if not one.claim.is_of_paper), key=_place)
    made = []
    for number, mine in groupby(ours, key=lambda one: report.section(one.claim)):
        title = f"{number} {report.SECTIONS.get(number, '')}".strip() or "Elsewhere"
        made.append(_section(f"section-{number.replace('.', '-')}", title, mine, chapters, writer))
    papers = [one for one in judgements if one.claim.is_of_paper]
    for chapter, mine in groupby(papers, key=lambda one: one.claim.chapter):
        title = chapters[chapter].title if chapter in chapters else chapter
        made.append(_section(f"papers-{chapter}", f"Papers: {title}", mine, chapters, writer))
    return made


def _section(
    name: str,
    title: str,
    judgements: Iterable[Judgement],
    chapters: dict[str, Chapter],
    writer: Writer,
) -> nodes.section:
    section = nodes.section(ids=[name], names=[name], classes=["ledger-section"])
    section += nodes.title("", "", *writer.words(title))
    header = "".join(
        f'<th role="columnheader" scope="col">{text}</th>'
        for text in ("Claim", "It says", "The book found")
    )
    section += raw(
        '<table class="ledger-table" role="table"><thead role="rowgroup">'
        f'<tr role="row">{header}</tr></thead>'
    )
    for judgement in judgements:
        section.extend(_row(judgement, chapters.get(judgement.claim.chapter), writer))
    section += raw("</table>")
    return section


def _row(judgement: Judgement, chapter: Chapter | None, writer: Writer) -> list[nodes.Node]:
    claim = judgement.claim
    # What a paper says has no place in the report, though a chapter of the book answers for it.
    where = "" if claim.is_of_paper else report.section(claim)
    verdict = verdict_mark(judgement.verdict)
    if not judgement.holds:
        verdict += f' <strong class="broken">{claim.verdict} is not borne out</strong>'
    source = ""
    if claim.is_of_paper and not report.section(claim):
        source = f'<span class="source">{html.escape(claim.where)}</span>'
    home = claim.chapter
    place = writer.errata.get(claim.id)
    erratum = f' <a href="{place}">Erratum, with proof</a>' if place else ""
    found = [
        raw(
            f'<tbody id="{claim.id}" class="claim" role="rowgroup" '
            f'data-verdict="{judgement.verdict}" data-section="{where}" data-chapter="{home}" '
            f'data-words="{claim.id}"><tr role="row"><th role="rowheader" scope="row">'
            f'<a class="name" href="#{claim.id}">{html.escape(report.name(claim))}</a>'
            f" {source} {verdict} "
            f'<span class="held">{html.escape(writer.how_often(judgement))}</span></th>'
            '<td role="cell" data-label="It says">'
        ),
        *writer.words(claim.says),
        raw('</td><td role="cell" data-label="The book found">'),
        *(writer.words(claim.finding) if claim.finding else [raw("Not looked into yet.")]),
        raw(f"{erratum}</td></tr>"),
    ]
    if judgement.outcomes and chapter is not None:
        found.append(
            raw(
                '<tr role="row" class="more"><td role="cell" colspan="3"><details><summary>'
                f"{_counted(judgement)}</summary>"
            )
        )
        found += _proof(judgement, chapter, writer)
        found.append(raw("</details></td></tr>"))
    return [*found, raw("</tbody>")]


def _counted(judgement: Judgement) -> str:
    n = len(judgement.outcomes)
    held = sum(good for _, _, good in judgement.outcomes)
    checks = f"{n} check{'s' * (n != 1)}"
    if held < n:
        return f'{checks}, <strong class="broken">{n - held} FAIL{"S" * (n - held == 1)}</strong>'
    return f"{checks}, {'it holds' if n == 1 else 'all hold'}"


def _proof(judgement: Judgement, chapter: Chapter, writer: Writer) -> list[nodes.Node]:
    """The checks, by the place where each is told, the words of one sentence together."""
    places: dict[tuple, dict[str, list]] = {}
    for check, got, good in judgement.outcomes:
        told = chapter.told.get(check.measure, Told())
        place = (told.heading, told.figure, told.cell, told.functions)
        places.setdefault(place, {}).setdefault(told.words, []).append((check, got, good))
    made: list[nodes.Node] = []
    for place, sentences in places.items():
        made += _where(judgement, chapter, writer, *place)
        for words, outcomes in sentences.items():
            if words:
                made += [raw('<p class="said">'), *writer.words(words), raw("</p>")]
            made.append(raw('<ul class="checks">'))
            for outcome in outcomes:
                made += _check(*outcome, words, chapter.swept, writer)
            made.append(raw("</ul>"))
    made.append(raw(f'<p class="record">Record made {html.escape(chapter.made)}.</p>'))
    return made


def _where(
    judgement: Judgement,
    chapter: Chapter,
    writer: Writer,
    heading: int,
    figure: str,
    cell: int | None,
    functions: tuple[tuple[str, str], ...],
) -> list[nodes.Node]:
    """Links to section, figure, cell and code."""
    name = judgement.claim.chapter
    made = [raw(f'<p class="at"><a href="{chapter.page}#{anchor(name, heading)}">')]
    made += writer.words(chapter.title)
    if heading and heading < len(chapter.headings):
        made += [raw(" › "), *writer.words(chapter.headings[heading])]
    made.append(raw("</a>"))
    if figure:
        made += [raw(", "), *writer.words(f"{{numref}}`{figure}`")]
    if cell is not None:
        made.append(raw(f'; measured in <a href="{chapter.page}#cell-{cell}">this cell</a>'))
        links = [
            f'<a href="{writer.code(module)}#{one}"><code>{module.rpartition(".")[2]}.{one}</code>'
            "</a>"
            for module, one in functions
        ]
        if links:
            made.append(raw(f" with {', '.join(links)}"))
    return [*made, raw("</p>")]


def _check(
    check: Check, got: Measure | None, good: bool, words: str, swept: dict | None, writer: Writer
) -> list[nodes.Node]:
    number = "not measured" if got is None else str(got)
    # What no sentence tells has its name for words.
    own = "" if words else f"{html.escape(check.measure.replace('/', ': ').replace('-', ' '))}: "
    fails = "" if good else ' <strong class="broken">FAILS</strong>'
    known = swept is not None and check.measure in swept["values"]
    failed = rates.of_check(swept, check).failed if known else ()
    where = f"; failed with seed {', '.join(failed)}" if failed else ""
    return [
        raw(
            f"<li>{gauges.gauge(check, got, good)}<span>{own}<b>{html.escape(number)}</b>, wanted "
            f"{html.escape(str(check))}{fails}{html.escape(where)} "
            f'<code>{html.escape(check.measure)}</code> <span class="why">'
        ),
        *writer.words(check.because),
        raw("</span></span></li>"),
    ]
