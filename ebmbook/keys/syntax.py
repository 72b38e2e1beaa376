"""Syntax in one normal form, with the definitions that it names."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from ebmbook.keys.definitions import (
    Alias,
    Definition,
    Sources,
    bound_names,
    is_import,
    is_text,
    local_imports,
)


@dataclass
class Form:
    """Syntax as text in pieces; between them stand the definitions it names.

    Attributes:
        pieces: strings, definitions, and for a whole module a tuple of (name, definition).
        imports: what the code has Python read, whether it names it or not.
    """

    pieces: list
    imports: list[Alias] = field(default_factory=list)

    def targets(self) -> Iterator[Definition]:
        """The definitions it names."""
        for piece in self.pieces:
            if isinstance(piece, Definition):
                yield piece
            elif isinstance(piece, tuple):
                yield from (target for _, target in piece)

    def text(self, name_of) -> str:
        """The syntax with `name_of(definition)` in the place of each definition."""
        parts = []
        for piece in self.pieces:
            if isinstance(piece, Definition):
                parts.append(f"<{name_of(piece)}>")
            elif isinstance(piece, tuple):
                parts += sorted(f"<{own}={name_of(target)}>" for own, target in piece)
            else:
                parts.append(piece)
        return "".join(parts)


class Scope:
    """Which names a place in the code sees: local ones (None), aliases and definitions."""

    def __init__(self, names: dict[str, list | None], outer: "Scope | None" = None, kind="module"):
        self.names, self.outer, self.kind = names, outer, kind

    def look_up(self, name: str) -> list | None:
        scope, first = self, True
        while scope is not None:
            # The names of a class are not those of its methods.
            if name in scope.names and (first or scope.kind != "class"):
                return scope.names[name]
            first = first and scope.kind == "comprehension"
            scope = scope.outer
        return None


def form_of(sources: Sources, definition: Definition) -> Form:
    """A definition's normalised syntax."""
    if definition not in sources.forms:
        writer = Writer(sources)
        scope = Scope(sources.module(definition.module).names)
        for node in definition.nodes:
            writer.statement(node, scope, own=definition.name)
        sources.forms[definition] = Form(writer.pieces)
    return sources.forms[definition]


def inner_scope(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, scope: Scope) -> Scope:
    """What the body of a function or a class sees."""
    of_class = isinstance(node, ast.ClassDef)
    body = without_docstring(node.body)
    names: dict[str, list | None] = {} if of_class else dict.fromkeys(_arguments(node.args))
    names |= dict.fromkeys(bound_names(body))
    names |= local_imports(body)
    return Scope(names, scope, "class" if of_class else "function")


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """The body of a function or a class, without the text that it may begin with."""
    return body[1:] if is_text(body[0]) else body


class Writer:
    """Writes syntax in one way, whatever the version of Python that parsed it."""

    def __init__(self, sources: Sources, placeholder: str | None = None):
        self.sources, self.placeholder = sources, placeholder
        self.pieces: list = []

    def put(self, text: str) -> None:
        if self.pieces and isinstance(self.pieces[-1], str):
            self.pieces[-1] += text
        else:
            self.pieces.append(text)

    def statement(self, node: ast.AST, scope: Scope, own: str = "") -> None:
        """One at the top level; its own name is no part of what a function or constant is."""
        simple = (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == own
        )
        if simple or (isinstance(node, ast.AnnAssign) and node.value and _names(node, own)):
            self.put("constant ")
            self.node(node.value, scope)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == own:
            self.function(node, scope, "")
        else:
            self.put(f"{own}: ")
            self.node(node, scope)
        self.put("\n")

    def node(self, node, scope: Scope) -> None:
        """Any piece of syntax."""
        if node is None or is_import(node):
            self.put("-")
        elif isinstance(node, ast.Name):
            self.name(node, [], scope)
        elif isinstance(node, ast.Attribute):
            self.attribute(node, scope)
        elif isinstance(node, ast.Constant):
            given = node.value
            self.put("<chapter>" if given == self.placeholder and given is not None else
                     f"{type(given).__name__} {given!r} ")  # fmt: skip
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.function(node, scope, node.name)
        elif isinstance(node, ast.Lambda):
            inner = Scope(dict.fromkeys(_arguments(node.args)), scope, "function")
            self.put("Lambda(")
            self.arguments(node.args, scope)
            self.node(node.body, inner)
            self.put(")")
        elif isinstance(node, ast.ClassDef):
            self.class_(node, scope)
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            self.comprehension(node, scope)
        elif isinstance(node, ast.AnnAssign) and scope.kind != "class":
            if node.value is not None:  # an annotation alone does nothing
                self.put("Assign(")
                self.node(node.target, scope)
                self.node(node.value, scope)
                self.put(")")
        elif isinstance(node, ast.JoinedStr):
            self.joined(node, scope)
        elif isinstance(node, ast.Call) and self.is_pick(node):
            self.put("pick(")
            self.node(node.func, scope)
            chosen = [k.value for k in node.keywords if k.arg == self.sources.profile]
            self.body(chosen, scope)
            self.put(")")
        else:
            self.plain(node, scope)

    def is_pick(self, node: ast.Call) -> bool:
        """Whether a call takes the choice of the running profile."""
        named = [k.arg for k in node.keywords]
        return (
            isinstance(node.func, ast.Attribute)
            and node.func.attr == "pick"
            and not node.args
            and self.sources.profile in named
            and sorted(named) == ["full", "quick"]
        )

    def plain(self, node: ast.AST, scope: Scope) -> None:
        self.put(f"{type(node).__name__}(")
        for name, value in ast.iter_fields(node):
            if name in ("ctx", "kind", "type_comment", "type_ignores"):
                continue
            if value is None or value == []:  # fields that only newer versions have
                continue
            self.put(f"{name}=")
            if isinstance(value, list):
                self.body(value, scope)
            elif isinstance(value, ast.AST):
                self.node(value, scope)
            else:
                self.put(f"{value!r} ")
        self.put(")")

    def body(self, nodes: list, scope: Scope) -> None:
        self.put("[")
        for node in nodes:
            if isinstance(node, ast.AST) or node is None:
                self.node(node, scope)
            else:
                self.put(f"{node!r} ")
            self.put(";")
        self.put("]")

    def joined(self, node: ast.JoinedStr, scope: Scope) -> None:
        # Versions differ in how they cut the text between the values.
        text = ""
        self.put("JoinedStr[")
        for value in node.values:
            if isinstance(value, ast.Constant):
                text += value.value
            else:
                self.put(repr(text))
                text = ""
                self.node(value, scope)
        self.put(f"{text!r}]")

    def name(self, node: ast.Name, attributes: list[str], scope: Scope) -> None:
        bound = scope.look_up(node.id)
        if not bound:
            self.put(".".join([node.id, *attributes]) + " ")
            return
        left = attributes
        for target in bound:
            if isinstance(target, Definition):
                self.pieces.append(target)
                continue
            found, left = self.sources.follow(target, attributes)
            if not found:
                self.put(".".join([target.module, *left]) + " ")
                left = []
            for one in found:
                if isinstance(one, str):
                    self.pieces.append(tuple(self.sources.whole(one)))
                else:
                    self.pieces.append(one)
        self.put("." + ".".join(left) + " ")

    def attribute(self, node: ast.Attribute, scope: Scope) -> None:
        chain, root = [], node
        while isinstance(root, ast.Attribute):
            chain.insert(0, root.attr)
            root = root.value
        if isinstance(root, ast.Name):
            self.name(root, chain, scope)
        else:
            self.put("Attribute(")
            self.node(root, scope)
            self.put("." + ".".join(chain) + ")")

    def arguments(self, arguments: ast.arguments, scope: Scope) -> None:
        parts = ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg")
        for part in parts:
            given = getattr(arguments, part)
            given = given if isinstance(given, list) else [given] if given else []
            self.put(f"{part}={[one.arg for one in given]}")
        self.body([*arguments.defaults, *arguments.kw_defaults], scope)

    def function(self, node, scope: Scope, name: str) -> None:
        self.put(f"{type(node).__name__} {name}(")
        self.body(node.decorator_list, scope)
        self.arguments(node.args, scope)
        self.body(without_docstring(node.body), inner_scope(node, scope))
        self.put(")")

    def class_(self, node: ast.ClassDef, scope: Scope) -> None:
        self.put(f"ClassDef {node.name}(")
        self.body([*node.decorator_list, None, *node.bases, *node.keywords], scope)
        self.body(without_docstring(node.body), inner_scope(node, scope))
        self.put(")")

    def comprehension(self, node, scope: Scope) -> None:
        bound = bound_names([part.target for part in node.generators])
        inner = Scope(dict.fromkeys(bound), scope, "comprehension")
        self.put(f"{type(node).__name__}(")
        for i, part in enumerate(node.generators):
            self.node(part.target, inner)
            self.node(part.iter, inner if i else scope)
            self.body(part.ifs, inner)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self.body(parts, inner)
        self.put(")")


def _names(node: ast.AnnAssign, own: str) -> bool:
    return isinstance(node.target, ast.Name) and node.target.id == own


def _arguments(arguments: ast.arguments) -> list[str]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [one for one in (arguments.vararg, arguments.kwarg) if one]
    return [one.arg for one in every]
