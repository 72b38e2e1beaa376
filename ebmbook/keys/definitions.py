"""The definitions of a source tree: what binds each name at the top level of its modules."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGES = ("ebmref", "ebmbook")
# Modules, by name, that numbers pass through on their way to the page.
LOOK = {"plots", "ledger", "claims", "keys"}


class SourceError(ValueError):
    """A module of the package cannot be read; the text says which, and where."""


@dataclass(frozen=True, eq=False)
class Definition:
    """What binds one name of a module, or, without a name, what the module does besides."""

    module: str
    name: str
    nodes: tuple[ast.AST, ...] = field(repr=False)

    @property
    def is_look(self) -> bool:
        """Whether it is of the page's look."""
        return not LOOK.isdisjoint(self.module.split("."))

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


@dataclass(frozen=True)
class Alias:
    """A name that an import binds: a module, or an attribute of one."""

    module: str
    attribute: str | None = None


@dataclass
class Module:
    """The names of a module, each with its definition or alias, and what it does besides.

    Attributes:
        imports: all that it imports, whether it names it or not.
    """

    name: str
    names: dict[str, list[Definition | Alias]]
    rest: Definition | None
    imports: list[Alias]


class Sources:
    """The definitions of a source tree, read as they are asked for.

    Args:
        root: the folder that holds the packages.
        profile: the one that runs: of `run.pick(quick=..., full=...)` the other choice is no part
            of what it does. None: both are.
    """

    def __init__(self, root: Path, profile: str | None = None):
        self.root, self.profile = root, profile
        self._modules: dict[str, Module | None] = {}
        self.forms: dict[Definition, Any] = {}  # by `syntax.form_of`

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

    def read_with(self, aliases: Iterable[Alias]) -> set[str]:
        """The modules that imports have Python read: packages around them, what they import."""
        found: set[str] = set()
        ahead = list(aliases)
        while ahead:
            alias = ahead.pop()
            parts = [*alias.module.split("."), *([alias.attribute] if alias.attribute else [])]
            for n_parts in range(1, len(parts) + 1):
                name = ".".join(parts[:n_parts])
                module = None if name in found else self.module(name)
                if module is not None:
                    found.add(name)
                    ahead += module.imports
        return found

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
    rest, imports = [], []
    for statement in body:
        if is_text(statement):
            continue
        inner = [node for node in ast.walk(statement) if is_import(node)]
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            for node in inner:
                imports += imported_modules(node, package)
                for own, alias in imported_names(node, package):
                    names.setdefault(own, []).append(alias)
        if is_import(statement):
            continue
        bound = bound_names([statement]) | written_names(statement)
        has_all = "__all__" in bound
        bound -= {"__all__"}
        for own in bound - names.keys():
            statements.setdefault(own, []).append(statement)
        if (not bound and not has_all) or bound & names.keys() or _does_more(statement):
            rest.append(statement)
    for own, nodes in statements.items():
        names[own] = [*names.get(own, []), Definition(name, own, tuple(nodes))]
    return Module(name, names, Definition(name, "", tuple(rest)) if rest else None, imports)


def _does_more(statement: ast.stmt) -> bool:
    """Whether a statement sets parts of what it does not name, or, having a body, calls for
    effect."""
    written = written_names(statement)
    ahead: list[ast.AST] = [statement]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            return True
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            root: ast.AST = node
            while isinstance(root, ast.Attribute | ast.Subscript):
                root = root.value
            if not isinstance(root, ast.Name) or root.id not in written:
                return True
        ahead += ast.iter_child_nodes(node)
    return False


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def imported_names(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, Alias]]:
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


def imported_modules(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[Alias]:
    """What an import reads: a module by its whole name, or an attribute that may be one."""
    if isinstance(node, ast.Import):
        yield from (Alias(alias.name) for alias in node.names)
    else:
        yield from (alias for _, alias in imported_names(node, package))


def written_names(statement: ast.stmt) -> set[str]:
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


def bound_names(nodes: Iterable[ast.AST]) -> set[str]:
    visitor = _Bound()
    for node in nodes:
        visitor.visit(node)
    return visitor.names - visitor.outer


def local_imports(body: list[ast.stmt]) -> dict[str, list]:
    """Names that imports bind inside a function, without those of functions within."""
    found: dict[str, list] = {}
    ahead = list(body)
    while ahead:
        node = ahead.pop()
        if is_import(node):
            for own, alias in imported_names(node, ""):
                found.setdefault(own, []).append(alias)
        elif not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            ahead += ast.iter_child_nodes(node)
    return found
