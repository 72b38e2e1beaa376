"""What of the code that a chapter names can run, and matter to a number.

A record is there, so its run came to its end: an error that would have ended it was not raised.
Lines that only lead to such an error are left out, and what only they name. So are methods that
nobody calls: no code that is reached mentions their name.
"""

import ast
import builtins
import importlib
from collections.abc import Iterator

from ebmbook import keys
from ebmbook.keys.closures import goes_on
from ebmbook.keys.definitions import Definition
from ebmbook.press.lines import Line

# Bases that call no method of a class whose name they do not know; others might.
PLAIN_BASES = ("typing.NamedTuple", "typing.Protocol", "torch.nn.Module", "torch.autograd.Function")
LOOKS_UP = ("getattr", "attrgetter", "methodcaller")


def reached(
    closure: keys.Closure, cells: list[list[Line]], known: dict[Definition, list[Line]]
) -> dict[Definition, list[Line]]:
    """The definitions that can matter, each by its lines without those that cannot.

    Args:
        closure: all that the cells name.
        cells: their lines; errors are taken out of them.
        known: the lines of each definition in the closure.
    """
    _leave_out_errors(closure, cells, known)
    return _Reach(closure, cells, known).found


# --- errors --------------------------------------------------------------------------------


def _leave_out_errors(closure, cells: list[list[Line]], known: dict) -> None:
    """Take out each `raise` and `assert` that nobody would catch, and what leads straight to it."""
    handlers = []
    for owner, lines in [*((None, lines) for lines in cells), *known.items()]:
        for line in (one for top in lines for one in top.below()):
            handlers += [(caught, _within(closure, known, owner, line)) for caught in _caught(line)]
    bases = {
        line.node.name: [ast.unparse(base).rpartition(".")[2] for base in line.node.bases]
        for lines in known.values()
        for line in lines
        if line.kind == "class"
    }

    def ends_the_run(owner: Definition | None, line: Line) -> bool:
        if not isinstance(line.node, ast.Raise | ast.Assert):
            return False
        error = line.node.exc if isinstance(line.node, ast.Raise) else ast.Name("AssertionError")
        kinds = _kinds(error, bases)
        return not any(
            owner in within and (kinds is None or caught in kinds) for caught, within in handlers
        )

    for owner, lines in [*((None, lines) for lines in cells), *known.items()]:
        _prune(lines, lambda line, owner=owner: ends_the_run(owner, line))


def _prune(lines: list[Line], ends) -> None:
    for line in lines:
        for name, below in line.branches.items():
            n_before = len(below)
            _prune(below, ends)
            if n_before and not below:
                line.fatal.add(name)
    raised = [isinstance(one.node, ast.Raise) and ends(one) for one in lines]
    if any(raised) and not any(one.branches for one in lines[: raised.index(True)]):
        lines.clear()
    lines[:] = [one for one in lines if not ends(one)]


def _caught(line: Line) -> Iterator[str]:
    """Names of the errors after which the run goes on."""
    if isinstance(line.node, ast.Try):
        for handler in line.node.handlers:
            if not isinstance(handler.body[-1], ast.Raise):
                yield from _named(handler.type)
    elif isinstance(line.node, ast.With):
        for item in line.node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("suppress"):
                yield from (name for one in call.args for name in _named(one))


def _named(kind: ast.expr | None) -> list[str]:
    if kind is None:
        return ["BaseException"]
    each = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return [ast.unparse(one).rpartition(".")[2] for one in each]


def _within(closure, known: dict, owner: Definition | None, line: Line) -> set:
    """Whose errors can come to a handler: all that the guarded code names."""
    inside = [node for one in line.node.body for node in ast.walk(one)]
    found = {owner} if any(isinstance(node, ast.Raise | ast.Assert) for node in inside) else set()
    guarded = [one for top in line.branches["body"] for one in top.below()]
    ahead = [target for one in guarded for target in one.form.targets()]
    while ahead:
        one = ahead.pop()
        if one in found or one not in known:
            continue
        found.add(one)
        ahead += keys.form_of(closure.sources, one).targets()
    return found


def _kinds(error: ast.expr | None, bases: dict[str, list[str]]) -> set[str] | None:
    """The names of an error's class and of all that it is a kind of; None if that is not told."""
    error = error.func if isinstance(error, ast.Call) else error
    if not isinstance(error, ast.Name | ast.Attribute):
        return None
    found: set[str] = set()
    ahead = [ast.unparse(error).rpartition(".")[2]]
    while ahead:
        name = ahead.pop()
        found.add(name)
        if name in bases:
            ahead += bases[name]
        elif isinstance(known := getattr(builtins, name, None), type):
            found |= {one.__name__ for one in known.__mro__}
        else:
            return None
    return found


# --- names ---------------------------------------------------------------------------------


class _Reach:
    """Follows names from the cells: of a definition to its lines, of a method where it is asked
    for."""

    def __init__(self, closure: keys.Closure, cells: list[list[Line]], known: dict):
        self.known = known
        self.found: dict[Definition, list[Line]] = {}
        self.asked: set[str] = set()
        self.texts: set[str] = set()  # whatever may be part of a name that is looked up
        self.computed = False  # whether any name is
        self.waiting: list[tuple[Line, list[Line]]] = []  # a method, and those it stands among
        self.ahead: list[Definition] = []
        for lines in cells:
            self.follow(lines)
        for one in closure.look:
            for node in (inner for top in one.nodes for inner in ast.walk(top)):
                self.mention(node)
            targets = keys.form_of(closure.sources, one).targets()
            self.ahead += [target for target in targets if goes_on(target)]
        self.ahead += [one for one in known if not one.name]
        while self.ahead or self.wake():
            while self.ahead:
                one = self.ahead.pop()
                if one in known and one not in self.found:
                    self.found[one] = known[one]
                    self.follow(known[one])
        for method, among in self.waiting:
            among.remove(method)

    def follow(self, lines: list[Line]) -> None:
        for line in lines:
            self.ahead += line.form.targets()
            for node in (inner for part in line.parts for inner in ast.walk(part)):
                self.mention(node)
            for name, below in line.branches.items():
                if name == "methods" and line.label == "its":
                    special = [one for one in below if self.is_special(line, one)]
                    self.waiting += [(one, below) for one in below if one not in special]
                    self.follow(special)
                else:
                    self.follow(below)

    def mention(self, node: ast.AST) -> None:
        if isinstance(node, ast.Attribute):
            self.asked.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.texts.add(node.value)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            name = node.args[called == "getattr" :][:1]
            self.computed |= called in LOOKS_UP and not isinstance(*name or [None], ast.Constant)

    def wake(self) -> bool:
        """Follow the methods that are asked for by now."""
        woken = [(one, among) for one, among in self.waiting if self.is_asked(one.label)]
        self.waiting = [pair for pair in self.waiting if pair not in woken]
        self.follow([one for one, _ in woken])
        return bool(woken)

    def is_asked(self, name: str) -> bool:
        parts = self.computed and any(len(text) > 1 and text in name for text in self.texts)
        return name in self.asked or name in self.texts or parts

    def is_special(self, of: Line, method: Line) -> bool:
        """Whether a method is called by what Python or a foreign base know of it."""
        plain = {"property", "staticmethod", "classmethod", "torch.no_grad()"}
        decorated = {ast.unparse(one) for one in method.node.decorator_list} - plain
        return (
            method.label.startswith("__")
            or bool(decorated)
            or any(_knows(base, method.label) for base in self.foreign(of))
        )

    def foreign(self, of: Line) -> Iterator[str]:
        """The bases of a class that are not of the book's packages."""
        n_bases = len(of.node.bases)
        for base in of.branches["bases"][:n_bases]:
            own = [one for one in base.form.targets() if one in self.known]
            for one in own:
                for line in self.known[one]:
                    yield from self.foreign(line) if line.kind == "class" else ["?"]
            if not own:
                yield base.text(str).partition(" ")[2].strip(" .")


def _knows(base: str, name: str) -> bool:
    if base not in PLAIN_BASES:
        return True
    module, _, attribute = base.rpartition(".")
    return hasattr(getattr(importlib.import_module(module), attribute), name)
