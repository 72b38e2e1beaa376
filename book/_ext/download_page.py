"""The download button gives a legible notebook: see `ebmbook.press.downloads`.

Sphinx would hand out the source of a page, with roles where the numbers are.
"""

import posixpath
import re
from pathlib import Path

from docutils import nodes
from ledger_page import load
from sphinx.errors import ExtensionError

from ebmbook.press import downloads, notebooks, report

EXPLICIT = re.compile(r"(.+?)\s*<([^>]+)>", re.DOTALL)


class Texts:
    """What a role reads on the pages of this build."""

    def __init__(self, app, page: str, judgements: list):
        self.env, self.page, self.judgements = app.env, page, judgements
        self.figure = app.config.numfig_format["figure"]

    def __call__(self, role: str, target: str) -> str:
        """The text.

        Raises:
            ExtensionError: no such role is known here.
        """
        if role in ("cite:t", "cite:p"):
            told = [self._cited(key.strip(), role == "cite:t") for key in target.split(",")]
            return ", ".join(told) if role == "cite:t" else f"({', '.join(told)})"
        if explicit := EXPLICIT.fullmatch(target):
            return explicit[1]
        if role == "claim":
            found = next(one for one in self.judgements if one.claim.id == target)
            return f"{report.name(found.claim)} ({found.verdict})"
        if role == "eq":
            page, number = self.env.get_domain("math").equations[target]
            place = nodes.make_id(f"equation-{target}")
            return f"({self._number(page, 'displaymath', place) or number})"
        if role == "ref":
            return self.env.get_domain("std").labels[target.lower()][2]
        if role == "numref":
            page, place = self.env.get_domain("std").anonlabels[target.lower()]
            return self.figure % self._number(page, "figure", place)
        if role == "doc":
            page = posixpath.normpath(posixpath.join(posixpath.dirname(self.page), target))
            return self.env.titles[page.lstrip("/")].astext()
        raise ExtensionError(f"{self.page}: the downloaded notebook has no text for {{{role}}}")

    def _number(self, page: str, kind: str, place: str) -> str:
        numbers = self.env.toc_fignumbers.get(page, {}).get(kind, {}).get(place, ())
        return ".".join(map(str, numbers))

    def _cited(self, key: str, in_text: bool) -> str:
        entry = self.env.get_domain("cite").bibdata.data.entries[key]
        names = [" ".join(person.prelast_names + person.last_names).strip("{}")
                 for person in entry.persons["author"]]  # fmt: skip
        whole = names[0] if len(names) == 1 else " and ".join(names)
        who = whole if len(names) < 3 else f"{names[0]} et al."
        year = entry.fields["year"]
        return f"{who} ({year})" if in_text else f"{who}, {year}"


def leave_notebooks(app, exception) -> None:
    """Write the legible notebooks over the sources that the download buttons lead to."""
    if exception is not None or app.builder.format != "html":
        return
    judgements, results = load(app.srcdir)
    for chapter in results:
        run = notebooks.read(Path(app.srcdir) / "book" / f"{chapter}.ipynb")
        own = [judgement for judgement in judgements if judgement.claim.chapter == chapter]
        made = downloads.legible(chapter, run, Texts(app, f"book/{chapter}", judgements), own)
        notebooks.write(made, Path(app.outdir) / "_sources" / "book" / f"{chapter}.ipynb")


def setup(app):
    """Register with Sphinx."""
    app.connect("build-finished", leave_notebooks)
    return {"version": "1", "parallel_read_safe": True}
