"""The `{errata}` directive: the report's errors, each with the number that exposes it.

Also `{errata} too-wide`: the claims that hold under a condition that the report leaves out, from
the ledger alone.
"""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from ledger_page import load, read_files, require_names
from sphinx.errors import ExtensionError

from ebmbook.claims import Claim, LedgerError
from ebmbook.press import errata, report

PARTS = (
    ("Printed", "printed"),
    ("Correct", "correct"),
    ("Why", "proof"),
    ("The number", "number"),
    ("If you used it", "consequence"),
)


class Errata(Directive):
    """Renders the errata, a section each."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        judgements, results = load(env.srcdir)
        path = Path(env.srcdir) / "book" / "errata.yml"
        try:
            found = errata.load_errata(path)
        except LedgerError as error:
            raise ExtensionError(str(error)) from None
        for file in [path, *read_files(env.srcdir)]:
            env.note_dependency(str(file.relative_to(env.srcdir)))
        for code in (__file__, errata.__file__):
            env.note_dependency(code)
        claims = {one.claim.id: one.claim for one in judgements}
        measures = {chapter: result["measures"] for chapter, result in results.items()}
        require_names(errata.faults(found, claims.values(), measures))
        if self.arguments:
            if self.arguments != ["too-wide"]:
                raise self.error(f"errata: {self.arguments[0]!r} is no view")
            return self.too_wide(list(claims.values()), found)
        sections = []
        for one in errata.in_order(found, claims.values()):
            sections.append(self.section(one, claims, measures[claims[one.claim].chapter]))
        return sections

    def section(
        self, one: errata.Erratum, claims: dict[str, Claim], measures: dict
    ) -> nodes.section:
        """One error, under a heading of its own."""
        claim = claims[one.claim]
        section = nodes.section(ids=[one.claim], classes=["erratum"])
        titles = ", ".join(report.name(claims[name]) for name in (one.claim, *one.also))
        section += nodes.title("", "", *self.words(f"{titles}: {one.title}"))
        where = f"Section {report.section(claim)} of the report."
        links = " ".join(f"{{claim}}`{name}`" for name in (one.claim, *one.also))
        link = f"{where} {links} Measured in [](/book/{claim.chapter}.ipynb)."
        lines = [link, ""]
        for label, field in PARTS:
            text = one.told(measures) if field == "number" else getattr(one, field)
            lines += [label, f": {text}", ""]
        self.parse(lines, section)
        return section

    def too_wide(self, claims: list[Claim], found: list[errata.Erratum]) -> list[nodes.Node]:
        """What the ledger calls qualified and no erratum tells, in the report's order."""
        told = {name for one in found for name in (one.claim, *one.also)}
        rest = [
            claim
            for claim in claims
            if claim.verdict == "qualified" and not claim.is_of_paper and claim.id not in told
        ]
        lines = []
        for claim in sorted(rest, key=report.place):
            lines += [f"{{claim}}`{claim.id}`", f": {claim.says} *Found:* {claim.finding}", ""]
        node = nodes.container(classes=["too-wide"])
        self.parse(lines or ["None."], node)
        return [node]

    def parse(self, lines: list[str], node: nodes.Element) -> None:
        """MyST into a node."""
        self.state.nested_parse(StringList(lines, "errata"), self.content_offset, node)

    def words(self, text: str) -> list[nodes.Node]:
        """A line of MyST."""
        node = nodes.container()
        self.parse([text], node)
        return node[0].children


def setup(app):
    """Register with Sphinx."""
    app.add_directive("errata", Errata)
    return {"version": "1", "parallel_read_safe": True}
