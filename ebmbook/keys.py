"""Keys of meaning: what a run's numbers depend on, told from the code and not from its text.

The root is the code of a chapter's cells. A *definition* is what binds a name at the top level of
a module of the book's own packages: a function with its decorators and defaults, a class with its
fields, a constant. The cells reach definitions by name, these reach others, through imports,
however they are written; a module that is handed around as a whole reaches all that it holds.

Of each definition the syntax counts, without docstrings, comments and annotations of arguments.
A name of another definition in it stands for that definition, and a name of another library for
the place it was imported from. So neither where code stands nor what a function is called is
part of a key, and code that nothing reaches is none of it.

What makes a page look as it does (`LOOK`: figures, the ledger, this module) has a key of its own.
"""

import ast
import contextlib
import functools
import hashlib
import linecache
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("ebmref", "ebmbook")
# Modules, by their last name, that numbers pass through on their way to the page.
LOOK = ("plots", "ledger", "claims", "keys")
# What the ledger hands out that numbers do depend on: seeds, sizes, devices.
NOT_LOOK = "runs"
PINS = ("torch", "numpy", "scipy", "scikit-learn", "torchvision")


class SourceError(ValueError):
    """A module of the package cannot be read; the text says which, and where."""


def digest(*parts: str) -> str:
    """A short name for the parts, each of which counts."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part.encode())
    return whole.hexdigest()[:16]


def numeric_pins(lock: Path) -> list[str]:
    """The lines of a lock that pin what computes, for every platform alike."""
    pattern = rf"^(?:{'|'.join(PINS)})==[^\s;\\]+"
    return sorted(set(re.findall(pattern, lock.read_text(), flags=re.MULTILINE)))


# --- definitions ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Definition:
    """What binds one name of a module, or, without a name, what the module does besides."""

    module: str
    name: str
    nodes: tuple[ast.AST, ...] = field(repr=False)

    @property
    def is_look(self) -> bool:
        """Whether it is of the page's look."""
        return self.module.rpartition(".")[2] in LOOK

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


@dataclass(frozen=True)
class Alias:
    """A name that an import binds: a module, or an attribute of one."""

    module: str
    attribute: str | None = None


@dataclass
class Module:
    """The names of a module, each with its definition or alias, and what it does besides."""

    name: str
    names: dict[str, list[Definition | Alias]]
    rest: Definition | None


class Sources:
    """The definitions of a source tree, read as they are asked for.

    Args:
        root: the folder that holds the packages.
        profile: the one that runs: of `run.pick(quick=..., full=...)` the other choice is no part
            of what it does. None: both are.
        without: tells syntax to be left out; None leaves out nothing.
    """

    def __init__(
        self,
        root: Path,
        profile: str | None = None,
        without: Callable[[ast.AST], bool] | None = None,
    ):
        self.root, self.profile, self.without = root, profile, without
        self._modules: dict[str, Module | None] = {}
        self._forms: dict[Definition, Form] = {}

    def module(self, name: str) -> Module | None:
        """The module of that dotted name; None where the tree has none.

        Raises:
            SourceError: it is no Python.
        """
        if name not in self._modules:
            self._modules[name] = self._read(name)
        return self._modules[name]

    def path(self, name: str) -> Path | None:
        """Its file."""
        if name.split(".")[0] not in PACKAGES:
            return None
        stem = self.root.joinpath(*name.split("."))
        found = [path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()]
        return found[0] if found else None

    def _read(self, name: str) -> Module | None:
        path = self.path(name)
        if path is None:
            return None
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            inside = path.relative_to(self.root)
            raise SourceError(f"{inside}: line {error.lineno}: SyntaxError: {error.msg}") from None
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        return _module(name, package, tree.body)

    def form(self, definition: Definition) -> "Form":
        """Its normalised syntax."""
        if definition not in self._forms:
            module = self.module(definition.module)
            self._forms[definition] = _form(self, _Scope(module.names), definition)
        return self._forms[definition]

    def whole(self, name: str) -> Iterator[tuple[str, Definition]]:
        """All that a module holds, by the names it has there."""
        module = self.module(name)
        for own, bound in module.names.items():
            for target in bound:
                if isinstance(target, Definition):
                    yield own, target
                elif target.attribute is not None:
                    found, _ = self.follow(target, [])
                    yield from ((own, one) for one in found if isinstance(one, Definition))
        if module.rest:
            yield "", module.rest

    def follow(
        self, alias: Alias, attributes: list[str]
    ) -> tuple[list["Definition | str"], list[str]]:
        """What an alias and the attributes asked of it lead to, and the attributes left over.

        A module that is meant as a whole is given by its name. Empty for other libraries.
        """
        names = [*([alias.attribute] if alias.attribute else []), *attributes]
        module = self.module(alias.module)
        if module is None:
            return [], names
        if not names:
            return [alias.module], []
        first, rest = names[0], names[1:]
        if bound := module.names.get(first):
            found, left = [], rest
            for target in bound:
                if isinstance(target, Definition):
                    found.append(target)
                else:
                    got, left = self.follow(target, rest)
                    found += got
            return found, left
        if self.path(f"{alias.module}.{first}"):
            return self.follow(Alias(f"{alias.module}.{first}"), rest)
        # A name that comes to be while the module runs: it may be anything of it.
        return [alias.module], names


def _module(name: str, package: str, body: list[ast.stmt]) -> Module:
    names: dict[str, list] = {}
    statements: dict[str, list[ast.stmt]] = {}
    rest = []
    for statement in body:
        if _is_text(statement):
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for own, alias in _imports(statement, package):
                names.setdefault(own, []).append(alias)
            continue
        inner = [node for node in ast.walk(statement) if _is_import(node)]
        if inner and not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            for node in inner:
                for own, alias in _imports(node, package):
                    names.setdefault(own, []).append(alias)
        bound = _bound([statement]) | _written(statement)
        bound -= {"__all__"}
        for own in bound - names.keys():
            statements.setdefault(own, []).append(statement)
        if not bound and "__all__" not in _bound([statement]):
            rest.append(statement)
    for own, nodes in statements.items():
        names.setdefault(own, []).append(Definition(name, own, tuple(nodes)))
    return Module(name, names, Definition(name, "", tuple(rest)) if rest else None)


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, Alias]]:
    """The names that an import binds."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname:
                yield alias.asname, Alias(alias.name)
            else:
                yield alias.name.split(".")[0], Alias(alias.name.split(".")[0])
        return
    base = node.module or ""
    if node.level:
        parts = package.split(".")
        above = ".".join(parts[: len(parts) - node.level + 1])
        base = f"{above}.{base}".strip(".")
    for alias in node.names:
        yield alias.asname or alias.name, Alias(base, alias.name)


def _written(statement: ast.stmt) -> set[str]:
    """Names whose attributes or items a statement sets."""
    targets = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
        targets = [statement.target]
    names = set()
    for target in targets:
        while isinstance(target, ast.Attribute | ast.Subscript | ast.Starred):
            target = target.value
        if isinstance(target, ast.Name):
            names.add(target.id)
    return names


class _Bound(ast.NodeVisitor):
    """The names that statements bind in their own scope."""

    def __init__(self):
        self.names: set[str] = set()
        self.outer: set[str] = set()

    def visit_Name(self, node):
        if not isinstance(node.ctx, ast.Load):
            self.names.add(node.id)

    def visit_FunctionDef(self, node):
        self.names.add(node.name)
        for part in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if part is not None:
                self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node):
        self.names.add(node.name)
        for part in (*node.decorator_list, *node.bases):
            self.visit(part)

    def visit_Lambda(self, node):
        for part in (*node.args.defaults, *node.args.kw_defaults):
            if part is not None:
                self.visit(part)

    def visit_comprehension(self, node):
        self.visit(node.iter)
        for condition in node.ifs:
            self.visit(condition)

    def visit_ExceptHandler(self, node):
        if node.name:
            self.names.add(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node):
        if node.name:
            self.names.add(node.name)
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node):
        if node.rest:
            self.names.add(node.rest)
        self.generic_visit(node)

    def visit_Global(self, node):
        self.outer |= set(node.names)

    visit_Nonlocal = visit_Global


def _bound(nodes: Iterable[ast.AST]) -> set[str]:
    visitor = _Bound()
    for node in nodes:
        visitor.visit(node)
    return visitor.names - visitor.outer


# --- normalised syntax -------------------------------------------------------------------


@dataclass
class Form:
    """Syntax as text in pieces; between them stand the definitions it names.

    Attributes:
        pieces: strings, definitions, and for a whole module a tuple of (name, definition).
    """

    pieces: list

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


class _Scope:
    """Which names a place in the code sees: local ones (None), aliases and definitions."""

    def __init__(self, names: dict[str, list | None], outer: "_Scope | None" = None, kind="module"):
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


def _form(sources: Sources, scope: _Scope, definition: Definition) -> Form:
    writer = _Writer(sources)
    for node in definition.nodes:
        writer.statement(node, scope, own=definition.name)
    return Form(writer.pieces)


class _Writer:
    """Writes syntax in one way, whatever the version of Python that parsed it."""

    def __init__(self, sources: Sources, placeholder: str | None = None):
        self.sources, self.placeholder = sources, placeholder
        self.pieces: list = []

    def put(self, text: str) -> None:
        if self.pieces and isinstance(self.pieces[-1], str):
            self.pieces[-1] += text
        else:
            self.pieces.append(text)

    def statement(self, node: ast.AST, scope: _Scope, own: str = "") -> None:
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

    def node(self, node, scope: _Scope) -> None:
        """Any piece of syntax."""
        left_out = self.sources.without
        if node is None or _is_import(node) or (left_out and left_out(node)):
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
            inner = _Scope(dict.fromkeys(_arguments(node.args)), scope, "function")
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

    def plain(self, node: ast.AST, scope: _Scope) -> None:
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

    def body(self, nodes: list, scope: _Scope) -> None:
        self.put("[")
        for node in nodes:
            if isinstance(node, ast.AST) or node is None:
                self.node(node, scope)
            else:
                self.put(f"{node!r} ")
            self.put(";")
        self.put("]")

    def joined(self, node: ast.JoinedStr, scope: _Scope) -> None:
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

    def name(self, node: ast.Name, attributes: list[str], scope: _Scope) -> None:
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

    def attribute(self, node: ast.Attribute, scope: _Scope) -> None:
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

    def arguments(self, arguments: ast.arguments, scope: _Scope) -> None:
        parts = ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg")
        for part in parts:
            given = getattr(arguments, part)
            given = given if isinstance(given, list) else [given] if given else []
            self.put(f"{part}={[one.arg for one in given]}")
        self.body([*arguments.defaults, *arguments.kw_defaults], scope)

    def function(self, node, scope: _Scope, name: str) -> None:
        self.put(f"{type(node).__name__} {name}(")
        self.body(node.decorator_list, scope)
        self.arguments(node.args, scope)
        body = node.body[1:] if _is_text(node.body[0]) else node.body
        names: dict[str, list | None] = dict.fromkeys(_arguments(node.args))
        names |= dict.fromkeys(_bound(body))
        names |= _local_imports(body)
        self.body(body, _Scope(names, scope, "function"))
        self.put(")")

    def class_(self, node: ast.ClassDef, scope: _Scope) -> None:
        self.put(f"ClassDef {node.name}(")
        self.body([*node.decorator_list, None, *node.bases, *node.keywords], scope)
        body = node.body[1:] if _is_text(node.body[0]) else node.body
        names: dict[str, list | None] = dict.fromkeys(_bound(body))
        names |= _local_imports(body)
        self.body(body, _Scope(names, scope, "class"))
        self.put(")")

    def comprehension(self, node, scope: _Scope) -> None:
        bound = _bound([part.target for part in node.generators])
        inner = _Scope(dict.fromkeys(bound), scope, "comprehension")
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


def _local_imports(body: list[ast.stmt]) -> dict[str, list]:
    """Names that imports bind inside a function, without those of functions within."""
    found: dict[str, list] = {}
    ahead = list(body)
    while ahead:
        node = ahead.pop()
        if _is_import(node):
            for own, alias in _imports(node, ""):
                found.setdefault(own, []).append(alias)
        elif not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            ahead += ast.iter_child_nodes(node)
    return found


# --- closures ----------------------------------------------------------------------------


@dataclass
class Closure:
    """What some code reaches.

    Attributes:
        root: the code itself.
        numbers: the definitions that its numbers depend on.
        look: those that only the page's look depends on.
    """

    root: Form
    numbers: set[Definition]
    look: set[Definition]
    sources: Sources

    def key(self) -> str:
        """The meaning of all that numbers depend on; what is of the look counts by its name."""
        meaning = self._meaning(self.numbers)
        return digest(self.root.text(meaning), *sorted({meaning(one) for one in self.numbers}))

    def look_key(self) -> str:
        """The meaning of what the look alone depends on."""
        meaning = self._meaning(self.look)
        return digest(*sorted({meaning(one) for one in self.look}))

    def _meaning(self, members: set[Definition]) -> Callable[[Definition], str]:
        """Of each member its syntax with the meaning of what it names, of others the name.

        Definitions that name each other in a circle have no innermost one to begin with. So all
        begin alike, and are told apart in rounds, each by what it named in the round before.
        """

        def round_after(told: dict[Definition, str]) -> dict[Definition, str]:
            def name_of(one: Definition) -> str:
                return told.get(one, one.name)

            return {one: digest(self.sources.form(one).text(name_of)) for one in members}

        told, n_told = dict.fromkeys(members, ""), 0
        while len(set(told.values())) > n_told:
            n_told = len(set(told.values()))
            told = round_after(told)
        return lambda one: told.get(one, one.name)


def closure(root: Form, sources: Sources) -> Closure:
    """All that a piece of code reaches."""
    numbers: set[Definition] = set()
    look: set[Definition] = set()

    def with_rest(targets: Iterable[Definition]) -> Iterator[Definition]:
        for target in targets:
            yield target
            rest = sources.module(target.module).rest
            if rest:
                yield rest

    ahead = list(with_rest(root.targets()))
    while ahead:
        one = ahead.pop()
        if one in numbers or one in look:
            continue
        if one.is_look:
            look.add(one)
            beyond = with_rest(sources.form(one).targets())
            # From there on all is look, but for the run itself.
            ahead += [t for t in beyond if t.is_look or t.module.rpartition(".")[2] == NOT_LOOK]
        else:
            numbers.add(one)
            ahead += with_rest(sources.form(one).targets())
    return Closure(root, numbers, look, sources)


# --- chapters ----------------------------------------------------------------------------


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
    trees, names = [], {}
    for cell in cells:
        try:
            tree = ast.parse(plain(cell)).body
        except SyntaxError:
            trees.append(cell)
            continue
        trees.append(tree)
        names |= dict.fromkeys(_bound(tree))
    for tree in trees:
        if not isinstance(tree, str):
            for own, aliases in _local_imports(tree).items():
                names[own] = [*(names.get(own) or []), *aliases]
    scope = _Scope(names)
    writer = _Writer(sources, chapter)
    for tree in trees:
        writer.put("\ncell ")
        if isinstance(tree, str):
            writer.put(tree)
            continue
        for statement in tree:
            if not _is_import(statement):
                writer.node(statement, scope)
                writer.put("\n")
    return Form(writer.pieces)


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
    if _is_import(statement):
        return any(own in needed for own, _ in _imports(statement, ""))
    if (_bound([statement]) | _written(statement)) & needed:
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
    here = Path(__file__).resolve().parents[1]
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
