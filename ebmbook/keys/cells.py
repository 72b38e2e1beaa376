"""The cells of a notebook as code: whole, or what one statement depends on."""

import ast
import contextlib
import functools
import linecache
import os
import sys
from pathlib import Path

from ebmbook.keys.closures import closure
from ebmbook.keys.definitions import (
    LOOK,
    PACKAGES,
    Sources,
    bound_names,
    imported_modules,
    imported_names,
    is_import,
    local_imports,
    written_names,
)
from ebmbook.keys.syntax import Form, Scope, Writer


def plain(cell: str) -> str:
    """A cell's code as Python: lines of IPython's own become text that counts."""
    lines = cell.splitlines()
    return "\n".join(
        f"{line[: len(line) - len(line.lstrip())]}{line.strip()!r}"
        if line.lstrip()[:1] in ("%", "!")
        else line
        for line in lines
    )


def form_of_cells(cells: list[str], sources: Sources, chapter: str | None = None) -> Form:
    """The cells of a notebook as one piece of code, cut where they are cut.

    Args:
        cells: their sources.
        chapter: its name, which is no part of what it does.

    A cell that is no Python counts as its text: running it will say where it is wrong.
    """
    trees = []
    for cell in cells:
        try:
            trees.append(ast.parse(plain(cell)).body)
        except SyntaxError:
            trees.append(cell)
    read = [tree for tree in trees if not isinstance(tree, str)]
    scope = scope_of_cells(read)
    nodes = [node for tree in read for statement in tree for node in ast.walk(statement)]
    imports = [alias for node in nodes if is_import(node) for alias in imported_modules(node, "")]
    writer = Writer(sources, chapter)
    for tree in trees:
        writer.put("\ncell ")
        if isinstance(tree, str):
            writer.put(tree)
            continue
        for statement in tree:
            if not is_import(statement):
                writer.node(statement, scope)
                writer.put("\n")
    return Form(writer.pieces, imports)


def scope_of_cells(trees: list[list[ast.stmt]]) -> Scope:
    """What the statements of a notebook's cells see: each others' names, and what they import."""
    names: dict[str, list | None] = {}
    for tree in trees:
        names |= dict.fromkeys(bound_names(tree))
    for tree in trees:
        for own, aliases in local_imports(tree).items():
            names[own] = [*(names.get(own) or []), *aliases]
    return Scope(names)


def slice_of_cells(cells: list[str], line: int) -> list[str]:
    """Of the cells so far, the statements that the last one's statement at a line depends on.

    A statement is in it if it binds a name that is needed, or hands one that is needed to a call
    that keeps no result and is not of the page's look.

    Args:
        cells: the sources, in the order in which they ran; the last one is running.
        line: of the last cell, from 1.
    """
    statements = []
    for cell in cells[:-1]:
        # One that is no Python has failed, and the reader went on.
        with contextlib.suppress(SyntaxError):
            statements += ast.parse(plain(cell)).body
    for statement in ast.parse(plain(cells[-1])).body:
        statements.append(statement)
        if statement.end_lineno >= line:
            break
    kept = {len(statements) - 1}
    needed = _used(statements[-1])
    while True:
        more = {
            i
            for i, statement in enumerate(statements)
            if i not in kept and _matters(statement, needed)
        }
        if not more:
            return [ast.unparse(statements[i]) for i in sorted(kept)]
        kept |= more
        needed = needed.union(*(_used(statements[i]) for i in more))


def _used(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _matters(statement: ast.stmt, needed: set[str]) -> bool:
    if is_import(statement):
        return any(own in needed for own, _ in imported_names(statement, ""))
    if (bound_names([statement]) | written_names(statement)) & needed:
        return True
    call = statement.value if isinstance(statement, ast.Expr) else None
    if call is None:
        return not isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Assign) and bool(
            _used(statement) & needed
        )
    root = call
    while isinstance(root, ast.Attribute | ast.Call):
        root = root.func if isinstance(root, ast.Call) else root.value
    of_look = isinstance(root, ast.Name) and root.id in LOOK
    return not of_look and bool(_used(statement) & needed)


def of_caller(profile: str) -> str:
    """The meaning of the code that calls into the packages, with all that it depends on.

    Of a notebook that is the running statement and what it needs of the cells before; elsewhere
    the file.

    Args:
        profile: the one that runs, see `Sources`.
    """
    here = Path(__file__).resolve().parents[2]
    own = tuple(f"{here / package}{os.sep}" for package in PACKAGES)
    frame = sys._getframe(1)
    while os.path.abspath(frame.f_code.co_filename).startswith(own):
        frame = frame.f_back
    outermost = frame
    while outermost is not None and outermost.f_locals is not outermost.f_globals:
        outermost = outermost.f_back
    cells = outermost.f_globals.get("In") if outermost is not None else None
    if cells:
        cells = slice_of_cells(cells[1:], outermost.f_lineno)
    else:
        cells = ["".join(linecache.getlines(frame.f_code.co_filename))]
    sources = _installed(here, profile)
    return closure(form_of_cells(cells, sources), sources).key()


@functools.cache
def _installed(root: Path, profile: str) -> Sources:
    """Read once a process: what is edited later is not what runs here."""
    return Sources(root, profile)
