"""What a key of the code could not follow, and so must not be in it; see `ebmbook.keys`."""

import ast
import builtins
from collections.abc import Iterator

UNFOLLOWED = {"importlib", "runpy", "__import__", "exec", "eval", "globals", "locals"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def unfollowed(body: list[ast.stmt]) -> Iterator[str]:
    """Each such thing in the statements of a module, or of the cells of a chapter, in words."""
    known = {one.name for one in body if isinstance(one, (*FUNCTIONS, ast.ClassDef))}
    own_imports: dict[str, str] = {}
    for node in (inner for one in body for inner in ast.walk(one)):
        if isinstance(node, ast.Import):
            yield from _named(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _named([(node.module or "").split(".")[0]])
            yield from ("import of *" for alias in node.names if alias.name == "*")
            if node.level and node not in body:
                yield "relative import inside a function or class"
        elif isinstance(node, ast.Name):
            yield from _named([node.id])
        elif isinstance(node, ast.Attribute) and node.attr in ("__name__", "__qualname__"):
            if not (isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "type"):
                yield f"name of a function: {ast.unparse(node)}"
        elif isinstance(node, ast.ClassDef):
            yield from _in_class(node)
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            for one in node.decorator_list:
                called = one.func if isinstance(one, ast.Call) else one
                if isinstance(called, ast.Name) and called.id in known:
                    yield f"decorator of its own: {called.id}, which may keep what it is given"
    for node in (inner for one in body for inner in ast.walk(one)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                own = alias.asname or alias.name
                means = f"{getattr(node, 'module', '')}.{alias.name}"
                if own_imports.setdefault(own, means) != means:
                    yield f"one name for two imports: {own}"


def _named(names) -> Iterator[str]:
    yield from (name for name in names if name in UNFOLLOWED)


def _in_class(node: ast.ClassDef) -> Iterator[str]:
    """A class body sees its own names, and before they are bound those of the module."""
    bound: set[str] = set()
    for one in node.body:
        if isinstance(one, ast.Import | ast.ImportFrom):
            yield "import in a class"
        target = one.targets[0] if isinstance(one, ast.Assign) else None
        if isinstance(target, ast.Name):
            used = {n.id for n in ast.walk(one.value) if isinstance(n, ast.Name)}
            if target.id in used - bound - set(dir(builtins)):
                yield f"name of a class made of the module's: {target.id}"
            bound.add(target.id)
        elif isinstance(one, FUNCTIONS):
            bound.add(one.name)


def bound_twice(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a module binds in two statements: what stands between them counts."""
    seen: set[str] = set()
    for one in body:
        targets = one.targets if isinstance(one, ast.Assign) else []
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        names += [one.name] if isinstance(one, (*FUNCTIONS, ast.ClassDef)) else []
        yield from (f"bound twice: {name}" for name in names if name in seen)
        seen |= {*names}
