"""The `{front}` directive: what the front page draws from the book by machine.

    ```{front} live inference/fig-descent-basins   a chapter's figure, live where scripts run
    ```{front} verdicts                            three verdicts, in the words of `book/front.yml`
    ```{front} cite                                how to cite the book, from `CITATION.cff`

The figure is the recorded picture of the chapter's run, under the name by which `live_figures`
finds its script.
"""

import base64
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from ledger_page import load, read_files, require_names
from sphinx.errors import ExtensionError

from ebmbook.claims import LedgerError
from ebmbook.press import errata, front, notebooks, wording
from ebmref.files import whole

KINDS = {"image/svg+xml": "svg", "image/png": "png"}
KEPT = Path("_build") / "recorded"  # below the sources, where Sphinx takes pictures from


class Front(Directive):
    """Renders one view."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env = self.state.document.settings.env
        self.book = Path(self.env.srcdir) / "book"
        views = {"live": self.live, "verdicts": self.verdicts, "cite": self.cite}
        view, asked = self.arguments[0], self.arguments[1:]
        if view not in views or (view == "live") != bool(asked):
            raise self.error(f"front: {' '.join(self.arguments)!r} is no view")
        self.env.note_dependency(__file__)
        return views[view](*asked)

    def live(self, figure: str) -> list[nodes.Node]:
        """The recorded picture of a chapter's figure."""
        chapter, _, name = figure.partition("/")
        path = self.book / f"{chapter}.ipynb"
        self.env.note_dependency(str(path.relative_to(self.env.srcdir)))
        found = recorded(path, name)
        if found is None:
            raise self.error(f"front: {chapter} shows no {name}")
        kind, data, alt = found
        inside = KEPT / f"{name}.{kind}"
        copy = Path(self.env.srcdir) / inside
        copy.parent.mkdir(parents=True, exist_ok=True)
        with whole(copy) as fresh:
            fresh.write_bytes(data)
        node = nodes.figure("", ids=[name], names=[name], classes=["front-figure"])
        node += nodes.image("", uri=f"/{inside.as_posix()}", alt=alt)
        return [node]

    def verdicts(self) -> list[nodes.Node]:
        """A card each: what was found, in a newcomer's words, and where the proof is."""
        judgements, results = load(self.env.srcdir)
        measures = {chapter: result["measures"] for chapter, result in results.items()}
        try:
            surprises = front.load_front(self.book / "front.yml")
            places = {name: one.claim for one in errata.load_errata(self.book / "errata.yml")
                      for name in (one.claim, *one.also)}  # fmt: skip
        except LedgerError as error:
            raise ExtensionError(str(error)) from None
        for file in [*self.book.glob("*.yml"), *read_files(self.env.srcdir)]:
            self.env.note_dependency(str(file.relative_to(self.env.srcdir)))
        for code in (front.__file__, wording.__file__):
            self.env.note_dependency(code)
        claims = {one.claim.id: one.claim for one in judgements}
        require_names(front.faults(surprises, claims.values(), measures))
        proofs = self.env.app.builder.get_relative_uri(
            self.env.docname, self.env.config.errata_page
        )
        lines = ["````{grid} 1 1 3 3", ":gutter: 3", ""]
        for one in surprises:
            chapter = claims[one.claim].chapter
            links = [f"{{claim}}`{one.claim}`"]
            if one.claim in places:
                links.append(f'<a href="{proofs}#{places[one.claim]}">The proof</a>')
            links.append(f"[](/book/{chapter}.ipynb)")
            lines += ["```{grid-item-card}", "", f"**{one.title}**", ""]
            lines += [wording.filled(one.told, measures[chapter]), ""]
            lines += [*(f"- {link}" for link in links), "```", ""]
        return self.parse([*lines, "````"], "verdicts")

    def cite(self) -> list[nodes.Node]:
        """The reference in a line, and for BibTeX."""
        path = notebooks.ROOT / "CITATION.cff"
        self.env.note_dependency(str(path))
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        line, bibtex = citation(given)
        return self.parse([line, "", "```bibtex", *bibtex.splitlines(), "```"], "cite")

    def parse(self, lines: list[str], name: str) -> list[nodes.Node]:
        """MyST in a container."""
        node = nodes.container(classes=[f"front-{name}"])
        self.state.nested_parse(StringList(lines, "front"), self.content_offset, node)
        return [node]


def recorded(path: Path, name: str) -> tuple[str, bytes, str] | None:
    """Kind, bytes and alternative text of a figure of a run; None if it shows no such."""
    for cell in notebooks.code_cells(notebooks.read(path)):
        texts = cell.metadata.get("mystnb", {})
        if texts.get("figure", {}).get("name") != name:
            continue
        for output in cell.outputs:
            for mime, kind in KINDS.items():
                if mime in output.get("data", {}):
                    text = "".join(output.data[mime])
                    data = text.encode() if kind == "svg" else base64.b64decode(text)
                    return kind, data, texts.get("image", {}).get("alt", "")
    return None


def citation(given: dict) -> tuple[str, str]:
    """What a citation file says, as a line of MyST and as an entry of BibTeX."""
    names = [one.get("name") or f"{one['given-names']} {one['family-names']}"
             for one in given["authors"]]  # fmt: skip
    year = str(given.get("date-released", ""))[:4]
    place = given.get("doi") and f"https://doi.org/{given['doi']}"
    place = place or given.get("url") or given.get("repository-code") or ""
    told = [f"{', '.join(names)}{f' ({year})' if year else ''}.", f"*{given['title']}.*"]
    told += [f"Version {given['version']}."] + [f"<{place}>"] * bool(place)
    entry = {
        # Braces within braces: a team is no person with a family name.
        "author": " and ".join(f"{{{name}}}" for name in names),
        "title": f"{{{given['title']}}}",
        "year": year,
        "version": str(given["version"]),
        "url": place,
    }
    rows = [f"  {key:7} = {{{text}}}," for key, text in entry.items() if text]
    return " ".join(told), "\n".join(["@software{ebmref,", *rows, "}"])


def setup(app):
    """Register with Sphinx."""
    app.add_directive("front", Front)
    return {"version": "1", "parallel_read_safe": True}
