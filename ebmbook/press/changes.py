"""What was changed in all that a chapter reaches, place by place, between two source trees.

A place is a function, a statement, or a branch within one, that must have run for a quick run to
speak for it. A statement that stood in code that is gone has moved: of it the function must run.
"""

import ast
import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from ebmbook import keys
from ebmbook.press import notebooks
from ebmbook.press.notebooks import BookError

DOES_NOTHING = (ast.Pass, ast.Break, ast.Continue, ast.Global, ast.Nonlocal)
NEED_NOT_RUN = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, *DOES_NOTHING)


@dataclasses.dataclass(frozen=True)
class Tree:
    """The sources of the book at some commit, or as they lie here."""

    root: Path
    source: Path

    @property
    def chapter(self) -> str:
        """The chapter's name there."""
        return self.source.stem

    @property
    def golden(self) -> Path | None:
        """The file of golden runs, if the tree has one."""
        return next((self.root / "tests").rglob("test_golden.py"), None)

    def draft(self) -> NotebookNode:
        """The chapter, not executed."""
        return jupytext.read(self.source)

    def closure(self, profile: str, without=None) -> keys.Closure:
        """What its cells reach in a profile; see `keys.Sources`."""
        sources = keys.Sources(self.root, profile, without)
        cells = notebooks.code_of(self.draft())
        return keys.closure(keys.form_of_cells(cells, sources, self.chapter), sources)

    def key(self, profile: str, parameters: dict) -> str:
        """The key of the chapter's numbers there."""
        pins = keys.numeric_pins(self.root / "requirements.lock")
        return notebooks.whole_key(self.closure(profile), profile, parameters, pins)


@dataclasses.dataclass(frozen=True)
class Place:
    """A piece of changed code that must have run.

    Attributes:
        file: its file, or "cell 3".
        of: the definition, or the cell, in words.
        span: line, end line, column, end column.
        within: first and last line of the definition.
    """

    file: str
    of: str
    span: tuple[int, int, int, int]
    within: tuple[int, int]

    def ran(self, seen: dict[str, list[list[int]]]) -> bool:
        """Whether an instruction of it was executed."""
        line, end_line, column, end_column = self.span
        return any(
            (line, column) <= (at[0], at[2]) and (at[1], at[3]) <= (end_line, end_column)
            for at in seen.get(self.file, [])
        )

    def __str__(self) -> str:
        return f"{self.of}, line {self.span[0]}"


def changed_places(before: Tree, now: Tree, profile: str) -> list[Place]:
    """The places of what the chapter reaches now that were not so before.

    Raises:
        BookError: a change that no quick run can vouch for.
    """
    old, new = before.closure(profile), now.closure(profile)
    known = {_own_text(old, one) for one in old.numbers}
    kept = {_own_text(new, one) for one in new.numbers}
    gone = [one.nodes for one in old.numbers if _own_text(old, one) not in kept]
    # A statement that stood in code that is gone has moved.
    moved = {line for nodes in gone for line in _lines(_received(nodes))}
    same = {_told(part) for one in old.numbers for part in _functions(_received(one.nodes))}
    cells = [notebooks.code_of(tree.draft()) for tree in (before, now)]
    bodies = [ast.parse(keys.plain(cell)).body for cell in cells[1]]
    # Errors are not raised, and without checkpoints nothing is saved or read.
    saves = any("checkpoint" in cell for cell in cells[1])
    without = _is_raise if saves else _is_raise_or_saves
    reached = {str(one) for one in now.closure(profile, without).numbers}
    candidates = [
        one for one in new.numbers if str(one) in reached and _own_text(new, one) not in known
    ]
    all_nodes = [node for one in new.numbers if str(one) in reached for node in one.nodes]
    asked = _asked_of_classes([*all_nodes, *(node for body in bodies for node in body)], without)
    places, constants = [], []
    for one in sorted(candidates, key=str):
        if not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in one.nodes):
            constants += one.nodes  # made on import, whatever runs
            continue
        file = str(new.sources.path(one.module))
        nodes = _received(_without_methods(one.nodes, asked))
        # A function that was shortened, or put in another order, has no statement that is new.
        changed = [part for part in _functions(nodes) if _told(part) not in same]
        spans = [*map(_body, changed), *_spans(nodes, moved, without)]
        places += [Place(file, str(one), span, _extent(one.nodes)) for span in spans]
    _check_literals(before.chapter, now.chapter, *cells, gone, constants)
    if len(cells[0]) != len(cells[1]):
        raise BookError(
            f"{now.chapter}: it has {len(cells[1])} cells of code, and had {len(cells[0])}: the "
            "record's outputs have no place"
        )
    told = {line for cell in cells[0] for line in _lines(ast.parse(keys.plain(cell)).body)}
    for i, body in enumerate(bodies):
        spans = _spans(body, told, without)
        places += [Place(f"cell {i}", f"cell {i + 1}", span, (0, 0)) for span in spans]
    return places


def _is_raise(node: ast.AST) -> bool:
    return isinstance(node, ast.Raise)


def _is_raise_or_saves(node: ast.AST) -> bool:
    """An error, or a call that keeps no result of `training.save` or `training.load`."""
    call = node.value if isinstance(node, ast.Expr) else None
    saves = isinstance(call, ast.Call) and ast.unparse(call.func) in ("save", "load")
    return saves or _is_raise(node)


def _asked_of_classes(nodes: list[ast.AST], without) -> set[str]:
    """Names of attributes that the code mentions; a method of no such name is never called.

    What only such methods mention does not count.
    """
    methods: dict[str, list[ast.AST]] = {}
    ahead, asked = [], set()
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not _is_special(part.name):
                    methods.setdefault(part.name, []).append(part)
                else:
                    ahead.append(part)
        else:
            ahead.append(node)
    while ahead:
        node = ahead.pop()
        if without(node):
            continue
        name = node.attr if isinstance(node, ast.Attribute) else None
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value  # for getattr
        if name is not None and name not in asked:
            asked.add(name)
            ahead += methods.get(name, [])
        ahead += ast.iter_child_nodes(node)
    return asked


def _is_special(name: str) -> bool:
    return name.startswith("__") or name == "forward"


def _without_methods(nodes: tuple[ast.AST, ...], asked: set[str]) -> Iterator[ast.AST]:
    """The nodes, of classes the parts, without methods that nobody asks for."""
    for node in nodes:
        if not isinstance(node, ast.ClassDef):
            yield node
            continue
        for part in node.body:
            if (
                not isinstance(part, ast.FunctionDef)
                or _is_special(part.name)
                or part.name in asked
            ):
                yield part


def _received(nodes) -> list[ast.AST]:
    """The nodes with the first parameter of each function called `self`, as of a method it is, and
    with all names public."""

    class Rename(ast.NodeTransformer):
        def __init__(self, name: str):
            self.name = name

        def visit_Name(self, node):
            node.id = "self" if node.id == self.name else _public(node.id)
            return node

        def visit_Attribute(self, node):
            node.attr = _public(node.attr)
            return self.generic_visit(node)

    renamed = []
    for node in copy.deepcopy(list(nodes)):
        parts = node.body if isinstance(node, ast.ClassDef) else [node]
        for part in parts:
            first = part.args.args[:1] if isinstance(part, ast.FunctionDef) else []
            Rename(first[0].arg if first else "").visit(part)
        renamed.append(node)
    return renamed


def _public(name: str) -> str:
    return name if name.startswith("__") else name.lstrip("_") or name


def _extent(nodes: tuple[ast.AST, ...]) -> tuple[int, int]:
    first = [part.lineno for node in nodes for part in (node, *getattr(node, "decorator_list", []))]
    return min(first), max(node.end_lineno for node in nodes)


def _own_text(closure: keys.Closure, one: keys.Definition) -> str:
    return keys.form_of(closure.sources, one).text(lambda named: named.name)


def _check_literals(
    old_name: str,
    chapter: str,
    before: list[str],
    now: list[str],
    gone: list[tuple],
    constants: list[ast.AST],
) -> None:
    """Nothing new for the full profile alone, no new literal in the cells or in constants.

    One that stood in code that is gone may have moved here, as a default does into a call.
    """
    trees = [[ast.parse(keys.plain(cell)) for cell in cells] for cells in (before, now)]
    old = _literals(trees[0]) + _literals(node for nodes in gone for node in nodes)
    new = _literals(trees[1]) + _literals(constants)
    old["0"] = old["1"] = max(new["0"], new["1"])  # an index, a place
    old[repr(chapter)] += old[repr(old_name)]
    if added := sorted((new - old).elements()):
        told = ", ".join(added[:5])
        raise BookError(
            f"{chapter}: its cells, or constants that they reach, have new literals ({told}), for "
            "which a quick run cannot vouch"
        )
    old_full, new_full = (Counter(_for_full(cells)) for cells in (before, now))
    if added := sorted((new_full - old_full).elements()):
        raise BookError(f"{chapter}: what only the full profile takes was changed: {added[0]}")


def _literals(nodes) -> Counter:
    """The numbers and texts in code, without docstrings."""
    found: Counter = Counter()
    ahead = list(nodes)
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Constant) and type(node.value) in (int, float, complex, str):
            found[repr(node.value)] += 1
        ahead += ast.iter_child_nodes(node)
    return found


def _for_full(cells: list[str]) -> Iterator[str]:
    """What the cells pick for the full profile."""
    for cell in cells:
        for node in ast.walk(ast.parse(keys.plain(cell))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr == "pick":
                yield from (ast.unparse(k.value) for k in node.keywords if k.arg == "full")


def _lines(nodes) -> set[str]:
    """The statements, as text; of one with a body its head."""
    return {ast.unparse(part) for part in _parts(nodes, _is_raise)}


def _spans(nodes, known: set[str], without) -> list[tuple[int, int, int, int]]:
    """Where the statements stand that are not known, and the branches within them."""
    found = []
    for part in _parts(nodes, without):
        if ast.unparse(part) in known:
            continue
        found.append(_span(part))
        for node in ast.walk(part):
            if isinstance(node, ast.IfExp):
                found += [_span(node.body), _span(node.orelse)]
            elif isinstance(node, ast.BoolOp):
                found += [_span(value) for value in node.values]
            elif isinstance(node, ast.Lambda):
                found.append(_span(node.body))
            elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
                made = node.value if isinstance(node, ast.DictComp) else node.elt
                # A name alone computes nothing.
                found += [] if isinstance(made, ast.Name) else [_span(made)]
    return [span for span in found if span is not None]


def _functions(nodes) -> Iterator[ast.FunctionDef]:
    """The functions among the nodes, and the methods of the classes."""
    for node in nodes:
        for part in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(part, ast.FunctionDef):
                yield part


def _told(function: ast.FunctionDef) -> tuple[str, ...]:
    """What a function does, statement by statement."""
    return ast.unparse(function.args), *map(ast.unparse, _parts(function.body, lambda _: False))


def _body(function: ast.FunctionDef) -> tuple[int, int, int, int]:
    """Where a function's code stands: some of it must run."""
    first, last = function.body[0], function.body[-1]
    return first.lineno, last.end_lineno, first.col_offset, last.end_col_offset


def _span(node: ast.AST) -> tuple[int, int, int, int] | None:
    if isinstance(node, ast.Constant):  # the compiler may have folded it away
        return None
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _parts(nodes, without) -> Iterator[ast.AST]:
    """What can run or not: statements, and the heads of those with a body."""
    for node in nodes:
        if isinstance(node, NEED_NOT_RUN) or without(node):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.AnnAssign) and node.value is None:
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _parts(node.body, without)
            continue
        if not hasattr(node, "body"):
            yield node
            continue
        bodies = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
        bodies += [case.body for case in getattr(node, "cases", [])]
        # What handles an error does not run where there is none, and a guard gives up early.
        inside = [
            part
            for body in bodies
            if body and not _gives_up(body)
            for part in _parts(body, without)
        ]
        heads = [value for _, value in ast.iter_fields(node) if isinstance(value, ast.expr)]
        heads += [item.context_expr for item in getattr(node, "items", [])]
        if inside or not isinstance(node, ast.If):
            yield from heads
        yield from inside


def _gives_up(body: list[ast.stmt]) -> bool:
    """Whether it ends in an error, or does nothing but return a constant."""
    only = body[0] if len(body) == 1 else None
    constant = isinstance(only, ast.Return) and (
        only.value is None or isinstance(only.value, ast.Constant)
    )
    return isinstance(body[-1], ast.Raise) or constant
