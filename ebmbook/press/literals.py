"""Numbers and texts in lines that changed: which of them stood nowhere before.

A quick run may come through a line and never feel a number in it, as of a cap that it does not
reach. So a number may only be handed on: from one line to another of its definition, in order, or
from a definition to another one.
"""

import ast
from collections.abc import Callable, Iterator

from ebmbook.press.lines import Line


def unheard_of(
    gone: list[Line], come: list[Line], owner_of: Callable[[Line], str]
) -> tuple[dict[Line, str], dict[Line, str]]:
    """Of lines that are gone, and of those that came for them, what was not handed on.

    Returns:
        For each side the lines that hold such literals, with one of them.
    """
    sides: list[dict[str, list[tuple[str, Line]]]] = [{}, {}]
    for side, lines in zip(sides, (gone, come), strict=True):
        for line in lines:
            for literal in _of_line(line):
                side.setdefault(owner_of(line), []).append((literal, line))
    free: list[list[tuple[str, Line]]] = [[], []]
    unheard: tuple[dict[Line, str], dict[Line, str]] = ({}, {})
    for owner in sorted(sides[0].keys() | sides[1].keys()):
        held = [side.get(owner, []) for side in sides]
        texts = [[literal for literal, _ in one] for one in held]
        own = [[pair for pair in held[i] if pair[0] not in texts[1 - i]] for i in (0, 1)]
        common = [[text for text in texts[i] if text in texts[1 - i]] for i in (0, 1)]
        mixed = common[0] != common[1] or all(own)
        for i in (0, 1):
            if mixed:
                unheard[i].update({line: text for text, line in own[i] or held[i]})
            else:
                free[i] += own[i]
    for i in (0, 1):
        others = {literal for literal, _ in free[1 - i]}
        unheard[i].update({line: text for text, line in free[i] if text not in others})
    return unheard


def _of_line(line: Line) -> Iterator[str]:
    """Its literals, in order; those of a check that can only end the run do not count."""
    if not line.fatal:
        for part in line.parts:
            yield from _literals(part)


def _literals(node: ast.AST) -> Iterator[str]:
    if _is_literal(node):
        if any(_counts(inner) for inner in ast.walk(node)):
            yield ast.unparse(node)
        return
    for inner in ast.iter_child_nodes(node):
        yield from _literals(inner)


def _is_literal(node: ast.AST) -> bool:
    """Whether an expression holds no name."""
    return isinstance(node, ast.expr) and not any(
        isinstance(inner, ast.Name | ast.Call | ast.JoinedStr | ast.Lambda)
        for inner in ast.walk(node)
    )


def _counts(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value not in (None, ...)
