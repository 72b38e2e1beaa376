"""Code as lines that run or do not: statements, and the heads of those with a body.

A line is written as `ebmbook.keys` writes syntax, with definitions and imports resolved, and
without docstrings and annotations. Its branches hold the lines below it. Two trees of lines can
so be held against each other, structure and all.

Some lines are *made*: values of constants and fields, defaults, bases. They are worked out once,
when the code is read, so that they ran says nothing of who uses them.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from ebmbook.keys.definitions import (
    Definition,
    Sources,
    bound_names,
    is_import,
    written_names,
)
from ebmbook.keys.syntax import Form, Scope, Writer, inner_scope, without_docstring

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# What annotations of fields say to `dataclasses`, beyond words for the reader.
TELLING = ("ClassVar", "InitVar", "KW_ONLY")
MAGIC = ("%", "!")  # lines of IPython's own, as `keys.plain` leaves them
BODIES = ("body", "orelse", "handlers", "finalbody", "cases")


@dataclass(frozen=True)
class Owner:
    """The definition, or the cell, that lines stand in.

    Attributes:
        file: the path of its file, or "cell 3", counted from 0.
        of: what it is called, in words.
        within: its first and last line.
    """

    file: str
    of: str
    within: tuple[int, int]


@dataclass(eq=False)
class Line:
    """A line of code, and what stands below it.

    Attributes:
        node: the statement; of a made line the value.
        parts: the syntax of the line itself, without what stands below it.
        label: of a function, a class or a made value its name, by which it is paired.
        kind: "run", "def", "class", or of a made line "value", "field", "default", "base",
            "effect".
        branches: the lines below it, by branch.
        fatal: branches that can do nothing but end the run in an error.
    """

    node: ast.AST
    parts: list[ast.AST]
    form: Form
    owner: Owner
    label: str = ""
    kind: str = "run"
    branches: dict[str, list["Line"]] = field(default_factory=dict)
    fatal: set[str] = field(default_factory=set)

    @property
    def made(self) -> bool:
        """Whether it runs where the code is read, whoever uses it."""
        return self.kind in ("value", "field", "default", "base", "effect")

    def text(self, name_of) -> str:
        """The line, with names for the definitions in it."""
        return self.form.text(name_of)

    def key(self, name_of) -> str:
        """What a line of the other tree must share to be this one; it may differ inside."""
        return f"{self.kind} {self.label}" if self.label else f"{self.kind}: {self.text(name_of)}"

    def below(self) -> Iterator["Line"]:
        """The line, and all lines below it."""
        yield self
        for lines in self.branches.values():
            for line in lines:
                yield from line.below()


def lines_of(sources: Sources, definition: Definition) -> list[Line]:
    """The lines of a definition of a module; its own name is no part of them."""
    nodes = definition.nodes
    first = min(n.lineno for node in nodes for n in (node, *getattr(node, "decorator_list", [])))
    within = first, max(node.end_lineno for node in nodes)
    owner = Owner(str(sources.path(definition.module)), str(definition), within)
    reader = Reader(sources, owner)
    scope = Scope(sources.module(definition.module).names)
    return [reader.top(node, scope, definition.name) for node in nodes]


class Reader:
    """Reads syntax as lines of one owner; `placeholder` is a text that does not count."""

    def __init__(self, sources: Sources, owner: Owner, placeholder: str | None = None):
        self.sources, self.owner, self.placeholder = sources, owner, placeholder

    def top(self, node: ast.stmt, scope: Scope, own: str) -> Line:
        """A statement at the top level of a module, which binds `own`, or nothing."""
        if isinstance(node, FUNCTIONS) and node.name == own:
            return self.function(node, scope, "its")
        if isinstance(node, ast.ClassDef) and node.name == own:
            return self.class_(node, scope, "its")
        if (value := _value_of(node, own)) is not None:
            return self.line(node, [value], scope, label="value", kind="value")
        return self.line(node, [node], scope, kind="effect")

    def line(self, node: ast.AST, parts: list, scope: Scope, **more) -> Line:
        """A line of some parts."""
        writer = Writer(self.sources, self.placeholder)
        writer.put(f"{type(node).__name__} ")
        for part in parts:
            writer.node(part, scope)
        return Line(node, parts, Form(writer.pieces), self.owner, **more)

    def body(self, nodes: list, scope: Scope) -> list[Line]:
        """Statements that run one after the other."""
        return [line for node in nodes for line in self.statement(node, scope)]

    def statement(self, node: ast.AST, scope: Scope) -> Iterator[Line]:
        """The line of a statement; of what does nothing, none."""
        if is_import(node) or isinstance(node, ast.Pass | ast.Global | ast.Nonlocal):
            return
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and str(value.value)[:1] not in MAGIC:
            return
        if isinstance(node, ast.AnnAssign):
            if node.value is None:
                return
            node = ast.copy_location(ast.Assign([node.target], node.value), node)
        if isinstance(node, FUNCTIONS):
            yield self.function(node, scope, node.name)
        elif isinstance(node, ast.ClassDef):
            yield self.class_(node, scope, node.name)
        else:
            heads = list(_heads(node))
            line = self.line(node, heads, scope)
            for name in BODIES:
                if below := getattr(node, name, []):
                    line.branches[name] = self.body(below, scope)
            yield line

    def function(self, node: ast.FunctionDef, scope: Scope, name: str) -> Line:
        """Its head is what it takes, its decorators, and the outer names that it binds."""
        writer = Writer(self.sources, self.placeholder)
        writer.put(type(node).__name__)
        writer.body(node.decorator_list, scope)
        writer.put(repr(parameters(node)))
        outer = [n for n in ast.walk(node) if isinstance(n, ast.Global | ast.Nonlocal)]
        writer.put(repr(sorted(name for one in outer for name in one.names)))
        form, parts = Form(writer.pieces), [*node.decorator_list]
        line = Line(node, parts, form, self.owner, label=name, kind="def")
        line.branches["defaults"] = [
            self.line(value, [value], scope, label=of, kind="default")
            for of, value in _defaults(node.args)
        ]
        inside = inner_scope(node, scope)
        line.branches["body"] = self.body(without_docstring(node.body), inside)
        return line

    def class_(self, node: ast.ClassDef, scope: Scope, name: str) -> Line:
        """Below it stand its bases, its fields in their order, and its methods."""
        line = Line(node, [], Form(["class"]), self.owner, label=name, kind="class")
        bases = [*node.bases, *(k.value for k in node.keywords), *node.decorator_list]
        line.branches["bases"] = [self.line(one, [one], scope, kind="base") for one in bases]
        inside = inner_scope(node, scope)
        members = without_docstring(node.body)
        line.branches["fields"] = [
            made
            for one in members
            if not isinstance(one, FUNCTIONS) and not is_import(one)
            for made in self.field(one, inside)
        ]
        methods = sorted(
            (one for one in members if isinstance(one, FUNCTIONS)), key=lambda one: one.name
        )
        line.branches["methods"] = [self.function(one, inside, one.name) for one in methods]
        return line

    def field(self, node: ast.stmt, scope: Scope) -> Iterator[Line]:
        """What a class holds besides its methods."""
        if isinstance(node, ast.Pass | ast.Expr) and not isinstance(
            getattr(node, "value", None), ast.Call
        ):
            return
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        if not isinstance(target, ast.Name):
            yield self.line(node, [node], scope, kind="effect")
            return
        parts = [node.value] if node.value else []
        if isinstance(node, ast.AnnAssign):
            words = ast.unparse(node.annotation)
            parts += [node.annotation] if any(word in words for word in TELLING) else []
        yield self.line(node, parts, scope, label=target.id, kind="field")


def parameters(node: ast.FunctionDef) -> list[list[str]]:
    """The names of what a function takes: by place, as a rest, by name, as named ones."""
    args = node.args
    rest = [[one.arg] if one else [] for one in (args.vararg, args.kwarg)]
    placed = [one.arg for one in (*args.posonlyargs, *args.args)]
    return [placed, rest[0], sorted(one.arg for one in args.kwonlyargs), rest[1]]


def binds(line: Line) -> set[str]:
    """The names that a line binds, or whose parts it sets, or may set by a call of a method."""
    bound = bound_names(line.parts) | written_names(line.node)
    root = line.node.value if isinstance(line.node, ast.Expr) else None
    while isinstance(root, ast.Attribute | ast.Call | ast.Subscript):
        root = root.func if isinstance(root, ast.Call) else root.value
    return bound | {root.id} if isinstance(root, ast.Name) else bound


def _value_of(node: ast.stmt, own: str) -> ast.expr | None:
    """What is bound to one name, where a statement does nothing else."""
    target = node.target if isinstance(node, ast.AnnAssign) else None
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    return node.value if isinstance(target, ast.Name) and target.id == own else None


def _heads(node: ast.AST) -> Iterator[ast.AST]:
    """What of a statement is not below it: all of one without a body."""
    if not any(hasattr(node, name) for name in BODIES):
        yield node
        return
    for name, value in ast.iter_fields(node):
        if name in BODIES or value is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, ast.AST):
                yield one
            elif name == "name":  # of a caught error
                yield ast.copy_location(ast.Name(one, ast.Store()), node)


def _defaults(args: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    """Each default, with the name of what it is the default of."""
    placed = [*args.posonlyargs, *args.args]
    behind = placed[len(placed) - len(args.defaults) :]
    yield from ((one.arg, value) for one, value in zip(behind, args.defaults, strict=True))
    named = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    yield from ((one.arg, value) for one, value in named if value is not None)
