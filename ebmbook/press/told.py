"""Where a page tells a measure, in which words, and which code measured it.

Read from the record alone, so that it moves with the page: the section and sentence in which
`{glue:text}` first stands, the figure that shows it, the cell that entered it, and the functions
of the packages that this cell and those it takes from name.
"""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from nbformat import NotebookNode

from ebmbook.claims import Measure
from ebmbook.keys.cells import form_of_cells, plain
from ebmbook.keys.definitions import Definition, Sources, bound_names, is_import
from ebmbook.press.notebooks import ROOT
from ebmbook.press.wording import GLUE

HEADING = re.compile(r"(#{1,6}) +(.*\S)")
FENCE = re.compile(r" {0,3}(`{3,}|:{3,}|~{3,})")
ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
LABEL = re.compile(r"\([\w-]+\)=\s*|%.*")
DISPLAY = re.compile(r"\$\$.*?\$\$(?:[ ]*\([\w-]+\))?", re.DOTALL)
LINK = re.compile(r"\[([^]]+)\]\([^)]*\)|\[\^[^]]*\]")
# A sentence ends before a capital, a formula, a role or emphasis, but not behind a shortened word.
END = re.compile(
    r"(?:(?<=[.!?])(?<!\bal\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bcf\.)|(?<=[.!?]\)))\s+(?=[A-Z${*`(])"
)
# Sections that repeat what the page has told before.
REPEATS = {"What to remember", "What holds", "Exercises", "Measured against the report"}
# Helpers that say nothing about how a number came about.
HELPERS = {"ebmbook.runs", "ebmbook.tables", "ebmbook.plots", "ebmbook.measures", "ebmbook.ledger"}
MOST_FUNCTIONS = 4


@dataclass(frozen=True)
class Told:
    """Where a page tells a measure.

    Attributes:
        heading: of the page, counted from 0, its title.
        words: the sentence, or the place in a table, with its numbers; "" if no words tell it.
        figure: name of a figure that shows it; "" if there is none.
        cell: place in the notebook of the cell that enters it; None if no cell did.
        functions: module and name of what this cell calls, those of the laboratory first.
    """

    heading: int = 0
    words: str = ""
    figure: str = ""
    cell: int | None = None
    functions: tuple[tuple[str, str], ...] = ()


def told(
    notebook: NotebookNode, measures: dict[str, Measure], wanted: Iterable[str] | None = None
) -> dict[str, Told]:
    """Where the page of a run tells its measures.

    Args:
        notebook: the run.
        measures: all that it measured, for the numbers in the words.
        wanted: names of those that are asked for; None: all.
    """
    sections, passages = _pages(notebook)
    entered = _entered(notebook)
    captions, figures = _figures(notebook)
    functions = _Functions(notebook)
    found = {}
    for name in measures if wanted is None else wanted:
        cell = entered.get(name)
        first = min(passages.get(name, ()), default=None)
        heading = first[1] if first else sections.get(cell, 0)
        found[name] = Told(
            heading,
            _filled(first[3], measures) if first else "",
            captions.get(name) or figures.get(cell) or _near(figures, sections, heading, cell),
            cell,
            functions.of(cell) if cell is not None else (),
        )
    return found


def headings(notebook: NotebookNode) -> list[str]:
    """The headings of a page, its title first, as they are written."""
    return [found[2] for _, lines in _outside_fences(notebook) for found in _heads(lines)]


def _heads(lines: list[str]):
    return filter(None, map(HEADING.fullmatch, lines))


def _outside_fences(notebook: NotebookNode):
    """The lines of each cell of prose that stand in no directive."""
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        lines, fence = [], ""
        for line in cell.source.splitlines():
            found = FENCE.match(line)
            if fence:
                if found and line.strip() == found[1] and found[1].startswith(fence):
                    fence = ""
                lines.append("")
            elif found:
                fence = found[1]
                lines.append("")
            else:
                lines.append(line)
        yield i, lines


def _pages(notebook: NotebookNode) -> tuple[dict[int, int], dict[str, list[tuple]]]:
    """The heading above each cell, and the passages in which a measure is glued.

    A passage is (whether it repeats, heading, order, text), so that the least is the one to show.
    """
    sections: dict[int, int] = {}
    passages: dict[str, list[tuple]] = {}
    heading, repeats, order = -1, False, 0
    prose = dict(_outside_fences(notebook))
    for i in range(len(notebook.cells)):
        for block in _blocks(prose.get(i, [])):
            if found := HEADING.fullmatch(block[0]):
                heading += 1
                repeats = found[2] in REPEATS if len(found[1]) < 3 else repeats
                continue
            for passage in _passages(block):
                for name in GLUE.findall(passage):
                    order += 1
                    late = repeats or heading < 1
                    passages.setdefault(name, []).append((late, max(heading, 0), order, passage))
        sections[i] = max(heading, 0)
    return sections, passages


def _blocks(lines: list[str]) -> list[list[str]]:
    """Paragraphs, tables, lists and headings; labels and comments are none."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if HEADING.fullmatch(line):
            blocks += [[line], []]
        elif not line.strip() or LABEL.fullmatch(line):
            blocks.append([])
        else:
            blocks[-1].append(line)
    return [block for block in blocks if block]


def _passages(block: list[str]) -> list[str]:
    """The sentences of a paragraph or a list, or what each cell of a table says."""
    if block[0].lstrip().startswith("|"):
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block]
        header, rows = rows[0], rows[2:]
        return [
            ", ".join(filter(None, [row[0] if j else "", header[j]])) + f": {cell}"
            for row in rows
            for j, cell in enumerate(row[: len(header)])
        ]
    items: list[list[str]] = [[]]
    for line in block:
        if found := ITEM.match(line):
            items.append([])
            line = line[found.end() :]
        items[-1].append(line.strip())
    texts = [LINK.sub(r"\1", DISPLAY.sub("", " ".join(item))) for item in items if item]
    return [sentence for text in texts for sentence in _sentences(text)]


def _sentences(text: str) -> list[str]:
    """The sentences of a text, none cut within a formula, and each with its emphasis closed."""
    sentences: list[str] = []
    for part in END.split(text.strip()):
        if sentences and sentences[-1].count("$") % 2:
            sentences[-1] += f" {part}"
        else:
            sentences.append(part)
    marks = re.compile(r"(?<![\w\\])\*{1,2}(?=\S)|(?<=\S)\*{1,2}(?!\w)")
    return [one if len(marks.findall(one)) % 2 == 0 else marks.sub("", one) for one in sentences]


def _filled(text: str, measures: dict[str, Measure]) -> str:
    """A passage with its numbers."""
    return GLUE.sub(lambda found: str(measures.get(found[1], found[1])), text)


def _entered(notebook: NotebookNode) -> dict[str, int]:
    """The cell that enters each measure, by what it left among its outputs."""
    entered: dict[str, int] = {}
    for i, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
                entered.setdefault(name, i)
    return entered


def _figures(notebook: NotebookNode) -> tuple[dict[str, str], dict[int, str]]:
    """The figure whose caption tells a measure, and the one that a cell draws."""
    captions: dict[str, str] = {}
    figures: dict[int, str] = {}
    for i, cell in enumerate(notebook.cells):
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if figure.get("name"):
            figures[i] = figure["name"]
            for name in GLUE.findall(figure.get("caption", "")):
                captions.setdefault(name, figure["name"])
    return captions, figures


def _near(figures: dict[int, str], sections: dict[int, int], heading: int, cell: int | None) -> str:
    """The figure of a section that is nearest to a cell."""
    inside = [i for i in figures if sections[i] == heading]
    return figures[min(inside, key=lambda i: abs(i - (cell or 0)))] if inside else ""


@cache
def _sources() -> Sources:
    return Sources(ROOT)


class _Functions:
    """What of the packages the cells of a notebook name."""

    def __init__(self, notebook: NotebookNode):
        self.cells: dict[int, list[ast.stmt]] = {}
        for i, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                try:
                    self.cells[i] = ast.parse(plain(cell.source)).body
                except SyntaxError:
                    self.cells[i] = []
        statements = [one for cell in self.cells.values() for one in cell]
        self.imports = [ast.unparse(one) for one in statements if is_import(one)]
        self.known: dict[int, tuple] = {}

    def of(self, cell: int) -> tuple[tuple[str, str], ...]:
        """Of the cell that enters a number, and of the cells that made what it enters."""
        if cell not in self.known:
            own = self._named(cell)
            for maker in self._makers(cell):
                own += [one for one in self._named(maker) if one not in own]
            own.sort(key=lambda one: not one[0].startswith("ebmbook.lab"))
            self.known[cell] = tuple(own[:MOST_FUNCTIONS])
        return self.known[cell]

    def _makers(self, cell: int) -> list[int]:
        """The last cells before it that bind a name it uses, the nearest first."""
        used = {
            node.id
            for statement in self.cells.get(cell, ())
            for node in ast.walk(statement)
            if isinstance(node, ast.Name)
        }
        makers = []
        for i in sorted((i for i in self.cells if i < cell), reverse=True):
            body = [one for one in self.cells[i] if not is_import(one)]
            if bound := bound_names(body) & used:
                makers.append(i)
                used -= bound
        return makers

    def _named(self, cell: int) -> list[tuple[str, str]]:
        body = [ast.unparse(one) for one in self.cells.get(cell, ()) if not is_import(one)]
        form = form_of_cells([*self.imports, *body], _sources())
        found = []
        for one in form.pieces:
            # A module that is handed around whole says nothing.
            if not isinstance(one, Definition) or one.module in HELPERS:
                continue
            callable_ = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in one.nodes)
            if callable_ and (one.module, one.name) not in found:
                found.append((one.module, one.name))
        return found
