"""Places of the code that a run must have come through, and whether one did."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from ebmbook.press.lines import Line, Owner

Span = tuple[int, int, int, int]  # line, end line, column, end column
# A line that was entered: no instruction stands there.
ENTERED = (0, 0, 0)


@dataclass(frozen=True)
class Place:
    """A piece of changed code that must have run.

    Attributes:
        owner: where it stands.
        line: its first line.
        spans: in each of them an instruction must have been executed.
        ways: in each of them, and exactly at them where they are `exact`, every condition that
            was asked must have come out both ways.
        exact: see above.
        entered: first line of the function that must have been called, or 0.
        literal: a number or text of it that stood nowhere before; a quick run alone does not
            speak for that.
        why: what no run at all speaks for, or "".
    """

    owner: Owner
    line: int
    spans: tuple[Span, ...] = ()
    ways: tuple[Span, ...] = ()
    exact: tuple[Span, ...] = ()
    entered: int = 0
    literal: str = ""
    why: str = ""

    def ran(self, seen: dict[str, list[list[int]]]) -> bool:
        """Whether a run, noted by `press.traced`, came through all of it."""
        if self.why:
            return False
        at = seen.get(self.owner.file, [])
        if self.entered and not any(tuple(one[:4]) == (self.entered, *ENTERED) for one in at):
            return False
        if not all(any(_inside(one, span) for one in at) for span in self.spans):
            return False
        return not any(
            n_ways == 1
            and (any(_inside(one, span) for span in self.ways) or tuple(one) in self.exact)
            for *one, n_ways in at
        )

    def __str__(self) -> str:
        why = self.why or (self.literal and f"a run may not feel {self.literal}")
        told = f" ({why})" if why else ""
        return f"{self.owner.of}, line {self.line}{told}"


def places_of(line: Line) -> Iterator[Place]:
    """What must have run of a line that is new, or was taken away."""
    node = line.node
    if line.kind == "def":
        if "body" not in line.fatal:
            yield Place(line.owner, node.lineno, entered=first_line(node))
        return
    is_handler = isinstance(node, ast.ExceptHandler)
    if line.made or line.kind == "class" or (is_handler and line.fatal):
        return
    parts = [one.context_expr if isinstance(one, ast.withitem) else one for one in line.parts]
    parts = [part for part in parts if not _is_free(part)]
    if is_handler and not parts:
        parts = [node]
    if not parts:
        return
    spans = [span(inner) for part in parts for inner in (part, *_arms(part))]
    ways = () if _only_one_way(line) else tuple(map(span, parts))
    exact = (span(node),) if isinstance(node, ast.If) and ways else ()
    yield Place(line.owner, parts[0].lineno, tuple(spans), ways, exact)


def both_ways(line: Line) -> Place | None:
    """That a condition came out both ways; None where the line is no such condition."""
    if not isinstance(line.node, ast.If) or line.fatal:
        return None
    test = span(line.node.test)
    return Place(line.owner, line.node.lineno, (test,), (test,), (span(line.node),))


def span(node: ast.AST) -> Span:
    """Where it stands."""
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def first_line(node: ast.FunctionDef) -> int:
    """Where Python says that a function begins."""
    return min(one.lineno for one in (node, *node.decorator_list))


def _only_one_way(line: Line) -> bool:
    """Whether one outcome of its condition ends the run, or ends the loop in any case."""
    return bool(line.fatal) or isinstance(line.node, ast.While)


def _is_free(part: ast.AST) -> bool:
    """Whether no instruction stands for it: a constant condition, a pattern that takes all."""
    if isinstance(part, ast.MatchAs):
        return part.pattern is None
    return isinstance(part, ast.Constant) or not hasattr(part, "lineno")


def _arms(part: ast.AST) -> Iterator[ast.AST]:
    """The pieces of an expression that run or do not."""
    for node in ast.walk(part):
        if isinstance(node, ast.IfExp):
            yield from (node.body, node.orelse)
        elif isinstance(node, ast.BoolOp):
            yield from node.values
        elif isinstance(node, ast.Lambda):
            yield node.body
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp):
            yield node.elt
        elif isinstance(node, ast.DictComp):
            yield node.value


def _inside(one: list[int], span: Span) -> bool:
    line, end_line, column, end_column = span
    return (line, column) <= (one[0], one[2]) and (one[1], one[3]) <= (end_line, end_column)
