"""The package as a reader finds it: every public name, where it is imported from, and which cells
of the chapters use it.

A name is public if no part of it begins with an underscore. It is called by the package that
exports it in its `__all__`, else by the module that defines it, and listed under that one name.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nbformat import NotebookNode

from ebmbook.keys.cells import form_of_cells
from ebmbook.keys.definitions import Definition, Sources, bound_names, is_import
from ebmbook.keys.syntax import form_of

SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Warns", "Yields")
HEADER = re.compile(rf"({'|'.join(SECTIONS)}):")
CODE = re.compile(r"`([^`]+)`")
EMPHASIS = re.compile(r"(?<![\w*])\*[^\W_](?:[^*\n]*\w)?\*(?![\w*])")
DOTTED = re.compile(r"[\w.]+")


@dataclass(frozen=True)
class Name:
    """A public name.

    Attributes:
        module: where it is defined.
        name: what it is called there.
        package: which exports it; "" where it is imported from its module.
        kind: "function", "class" or "data".
        doc: what it says of itself; of data, the comment above it or behind it.
        value: of data, what stands on the right, where that is short; else "".
    """

    module: str
    name: str
    package: str
    kind: str
    doc: str
    value: str = ""

    @property
    def path(self) -> str:
        """What a reader imports."""
        return f"{self.package or self.module}.{self.name}"

    @property
    def summary(self) -> str:
        """The first sentence of what it says of itself."""
        first = " ".join(self.doc.partition("\n\n")[0].split())
        return re.split(r"(?<=[^.]\.)\s+(?=[A-Z`])", first, maxsplit=1)[0]


@dataclass
class Uses:
    """Which cells of the chapters use a name.

    Attributes:
        cells: by chapter, the first cell that names it.
        behind: chapters whose cells name what is of the laboratory, and that names it.
    """

    cells: dict[str, int] = field(default_factory=dict)
    behind: list[str] = field(default_factory=list)


class Package:
    """The public names of a package.

    Args:
        root: the folder that holds it.
        name: the package.
    """

    def __init__(self, root: Path, name: str = "ebmref"):
        self.root, self.name = root, name
        self.sources = Sources(root)

    @cached_property
    def modules(self) -> list[str]:
        """All modules that define something, none of them private."""
        found = []
        for path in sorted((self.root / self.name).rglob("*.py")):
            parts = path.relative_to(self.root).with_suffix("").parts
            dotted = ".".join(parts).removesuffix(".__init__")
            if not any(part.startswith("_") for part in dotted.split(".")) and any(
                True for _ in self._defined(dotted)
            ):
                found.append(dotted)
        return found

    def doc(self, module: str) -> str:
        """What a module says of itself."""
        return ast.get_docstring(self._tree(module)) or ""

    def names(self, module: str) -> list[Name]:
        """The public names that a module defines: what its package exports first."""
        package = module.rpartition(".")[0]
        exported = self._exported(package)
        lines = self.sources.path(module).read_text(encoding="utf-8").splitlines()
        found = []
        for name, node in self._defined(module):
            home = package if exported.get(name) == module else ""
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                kind = "function" if isinstance(node, ast.FunctionDef) else "class"
                found.append(Name(module, name, home, kind, ast.get_docstring(node) or ""))
            else:
                value = ast.unparse(node.value) if node.value else ""
                value = value if len(value) <= 60 else ""
                found.append(Name(module, name, home, "data", _comment(lines, node), value))
        return sorted(found, key=lambda one: not one.package)

    @cached_property
    def all(self) -> dict[str, Name]:
        """Every public name, by what a reader imports."""
        return {one.path: one for module in self.modules for one in self.names(module)}

    @cached_property
    def _homes(self) -> dict[tuple[str, str], str]:
        return {(one.module, one.name): path for path, one in self.all.items()}

    def path_of(self, definition: Definition) -> str | None:
        """What a reader imports for a definition; None if it is not public."""
        return self._homes.get((definition.module, definition.name))

    def meant(self, module: str, text: str) -> str | None:
        """The public name that a docstring of a module means by some code; None if none."""
        if not DOTTED.fullmatch(text):
            return None
        if text in self.all:
            return text
        scope = self.sources.module(module)
        first, _, rest = text.partition(".")
        for target in scope.names.get(first, ()) if scope else ():
            if isinstance(target, Definition):
                return None if rest else self.path_of(target)
            found, left = self.sources.follow(target, rest.split(".") if rest else [])
            for one in found:
                if isinstance(one, Definition) and not left:
                    return self.path_of(one)
        if text.startswith(f"{self.name}."):  # by the module that defines it
            home, _, own = text.rpartition(".")
            return self._homes.get((home, own))
        return None

    def used(self, notebooks: dict[str, NotebookNode]) -> dict[str, Uses]:
        """The uses of every public name.

        Args:
            notebooks: by chapter, in their order.
        """
        found = {path: Uses() for path in self.all}
        for chapter, notebook in notebooks.items():
            for definition, cell in self._named(notebook):
                path = self.path_of(definition)
                if path is not None:
                    found[path].cells.setdefault(chapter, cell)
            for definition in self._behind(one for one, _ in self._named(notebook)):
                path = self.path_of(definition)
                if path is not None and chapter not in {*found[path].cells, *found[path].behind}:
                    found[path].behind.append(chapter)
        return found

    def _named(self, notebook: NotebookNode) -> Iterator[tuple[Definition, int]]:
        """What the cells of a notebook name, each with the number of its cell."""
        places = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
        at = -1
        for piece in form_of_cells([notebook.cells[i].source for i in places], self.sources).pieces:
            if isinstance(piece, Definition):
                yield piece, places[at]
            elif isinstance(piece, str):
                at += piece.count("\ncell ")

    def _behind(self, named: Iterator[Definition]) -> Iterator[Definition]:
        """What of the package the laboratory names, as far as it is named itself."""
        ahead, seen = [*named], set()
        while ahead:
            one = ahead.pop()
            if one in seen:
                continue
            seen.add(one)
            if one.module.startswith(f"{self.name}."):
                yield one
            elif one.module.startswith("ebmbook.lab."):
                ahead += form_of(self.sources, one).targets()

    def _tree(self, module: str) -> ast.Module:
        return ast.parse(self.sources.path(module).read_text(encoding="utf-8"))

    def _defined(self, module: str) -> Iterator[tuple[str, ast.stmt]]:
        for node in self._tree(module).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = {node.name}
            elif isinstance(node, ast.Assign | ast.AnnAssign) and not is_import(node):
                names = bound_names([node])
            else:
                continue
            for name in sorted(names):
                if not name.startswith("_"):
                    yield name, node

    def _exported(self, package: str) -> dict[str, str]:
        """The names that a package exports, each with the module that defines it."""
        if "." not in package:
            return {}
        scope = self.sources.module(package)
        node = next((one for name, one in self._assigned(package) if name == "__all__"), None)
        wanted = ast.literal_eval(node.value) if node else []
        return {
            name: target.module
            for name in wanted
            for alias in scope.names[name]
            for target in self.sources.follow(alias, [])[0]
        }

    def _assigned(self, module: str) -> Iterator[tuple[str, ast.Assign]]:
        for node in self._tree(module).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                yield node.targets[0].id, node


def _comment(lines: list[str], node: ast.stmt) -> str:
    """The comment above a statement, or behind it."""
    found, above = [], node.lineno - 2
    while above >= 0 and lines[above].startswith("# ") and not lines[above].startswith("# --"):
        found.insert(0, lines[above][2:].strip())
        above -= 1
    behind = lines[node.end_lineno - 1][node.end_col_offset :].strip()
    if not found and behind.startswith("# "):
        found = [behind[2:]]
    text = " ".join(found)
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else ".")


# --- docstrings: Markdown's code and emphasis, Google's sections ------------------------------


def as_rst(text: str, link=lambda code: None) -> str:
    """A docstring in reStructuredText; its sections stay Google's.

    Args:
        text: its code stands in single backticks, and what is indented outside of a section is
            shown as it is.
        link: the name that some code means, or None.
    """
    parts: list[tuple[bool, list[str]]] = []
    inside, literal = False, False
    for i, line in enumerate(lines := text.splitlines()):
        if HEADER.fullmatch(line):
            inside = True
        elif line.strip() and not line.startswith(" "):
            inside = inside and lines[i - 1].strip() != ""
        if line.strip():
            begins = i == 0 or not lines[i - 1].strip() or literal
            literal = not inside and line.startswith("    ") and begins
        if not parts or parts[-1][0] != literal:
            parts.append((literal, []))
        parts[-1][1].append(line)
    return "\n".join(
        "\n".join(["::", "", *part, ""]) if shown else _inline("\n".join(part), link)
        for shown, part in parts
    )


def _inline(text: str, link) -> str:
    made, at = [], 0
    for found in CODE.finditer(text):
        made.append(_plain(text[at : found.start()]))
        code, at = " ".join(found[1].split()), found.end()
        if made[-1][-1:] not in ("", *" \n([{</-"):
            made.append("\\ ")
        target = link(code)
        made.append(f":py:obj:`{code} <{target}>`" if target else f"``{code}``")
        if re.match(r"[^\s'\")\]}>/\\:.,;!?-]", text[at : at + 1]):
            made.append("\\ ")
    return "".join([*made, _plain(text[at:])])


def _plain(text: str) -> str:
    """Text whose signs mean themselves, but for emphasis."""
    made, at = [], 0
    for found in EMPHASIS.finditer(text):
        made += [_escaped(text[at : found.start()]), found[0]]
        at = found.end()
    return "".join([*made, _escaped(text[at:])])


def _escaped(text: str) -> str:
    return re.sub(r"([\\*|]|(?<=\w)_(?!\w))", r"\\\1", text)


def as_cell(text: str) -> str:
    """A line of a docstring for a cell of a table in Markdown."""
    parts = re.split(r"(`[^`]+`)", text.replace("|", "\\|"))
    return "".join(one if i % 2 else one.replace("*", "\\*") for i, one in enumerate(parts))
