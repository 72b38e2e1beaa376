"""What was changed in all that a chapter reaches, line by line, between two source trees.

Each definition of now is paired with the one that it was: by its full name, by its name alone
where it moved, by what it does where it was renamed. Names in the code stand for pairs. Of a pair
the lines are held against each other, in order, each among those below the same head. A line
that is there now alone must run now, and one that was there before alone must have run before:
each condition in it both ways, each branch of it.

What no run can vouch for is told as such: another value of a constant, a field or a default; what
a module does when it is read. What the full profile alone takes, and another numeric library, are
refused. A number or a text that stood nowhere before needs more than a quick run. See
`press.carry`.

All this is evidence and no proof. A line can run in the quick profile and not matter there: a
number format under a switch that is off, a cap that nothing reaches.
"""

import ast
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from ebmbook import keys
from ebmbook.keys.cells import scope_of_cells
from ebmbook.keys.definitions import Definition, Sources
from ebmbook.press import literals, notebooks
from ebmbook.press.lines import Line, Owner, Reader, binds, lines_of, parameters
from ebmbook.press.notebooks import BookError
from ebmbook.press.places import Place, both_ways, places_of
from ebmbook.press.reached import reached

# Attributes, arguments and texts that tell the profiles apart.
TELLS = {"attr": {"profile", "pick"}, "id": {"profile"}, "arg": {"full", "quick"}}
TELLS["value"] = TELLS["arg"]


@dataclass(frozen=True)
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

    @property
    def pins(self) -> list[str]:
        """The numeric libraries that it is made for."""
        return keys.numeric_pins(self.root / "requirements.lock")

    def draft(self) -> NotebookNode:
        """The chapter, not executed."""
        return jupytext.read(self.source)

    def closure(self, profile: str) -> keys.Closure:
        """What its cells reach in a profile; see `keys.Sources`."""
        sources = Sources(self.root, profile)
        cells = notebooks.code_of(self.draft())
        return keys.closure(keys.form_of_cells(cells, sources, self.chapter), sources)

    def key(self, profile: str, parameters: dict) -> str:
        """The key of the chapter's numbers there."""
        return notebooks.whole_key(self.closure(profile), profile, parameters, self.pins)


@dataclass
class Changes:
    """The places that must have run: now what is new, before what was taken away."""

    before: list[Place] = field(default_factory=list)
    now: list[Place] = field(default_factory=list)


def changes(before: Tree, now: Tree, profile: str) -> Changes:
    """The places of what the chapter reaches that are not the same in two trees.

    Args:
        profile: that of the record.

    Raises:
        BookError: a change that no quick run can vouch for; it names the place.
    """
    if before.pins != now.pins:
        differ = ", ".join(sorted(set(before.pins) ^ set(now.pins)))
        raise BookError(f"{now.chapter}: computed by other libraries: {differ}")
    old, new = _Program(before, profile), _Program(now, profile)
    if len(old.cells) != len(new.cells):
        raise BookError(
            f"{now.chapter}: it has {len(new.cells)} cells of code, and had {len(old.cells)}: the "
            "record's outputs have no place"
        )
    return _Comparison(old, new).changes()


class _Program:
    """A chapter of a tree as lines: of its cells, and of all that can matter to its numbers."""

    def __init__(self, tree: Tree, profile: str):
        self.chapter = tree.chapter
        closure = tree.closure(profile)
        self.trees = [ast.parse(keys.plain(cell)).body for cell in notebooks.code_of(tree.draft())]
        scope = scope_of_cells(self.trees)
        self.cells = [
            Reader(closure.sources, Owner(f"cell {i}", f"cell {i + 1}", (0, 0)), tree.chapter).body(
                body, scope
            )
            for i, body in enumerate(self.trees)
        ]
        known = {one: lines_of(closure.sources, one) for one in closure.numbers}
        self.reached = reached(closure, self.cells, known)

    def for_full(self) -> set[str]:
        """Names that the cells use for what only the full profile takes, and what makes them."""
        nodes = [node for body in self.trees for one in body for node in ast.walk(one)]
        chosen = [
            k.value
            for node in nodes
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".pick")
            for k in node.keywords
            if k.arg == "full"
        ]
        needed, n_before = _names(chosen), -1
        while len(needed) > n_before:
            n_before = len(needed)
            for lines in self.cells:
                for top in lines:
                    bound = set().union(*map(binds, top.below()))
                    needed |= _names([top.node]) if bound & needed else set()
        return needed


def _names(nodes: list[ast.AST]) -> set[str]:
    return {node.id for one in nodes for node in ast.walk(one) if isinstance(node, ast.Name)}


# --- pairs ---------------------------------------------------------------------------------


def _pairs(old: _Program, new: _Program) -> dict[Definition, Definition]:
    """For definitions of now those that they were; each stands in one pair.

    Whatever the pairs, what is not the same in them is found: a pair chosen badly asks for more.
    """
    pairs: dict[Definition, Definition] = {}

    def join(name_of_old, name_of_new) -> None:
        left: dict = {}
        for one in sorted(set(old.reached) - set(pairs.values()), key=str):
            left.setdefault(name_of_old(one), []).append(one)
        for one in sorted(set(new.reached) - set(pairs), key=str):
            if candidates := left.get(name_of_new(one)):
                pairs[one] = candidates.pop(0)

    join(str, str)
    join(_bare, _bare)
    blank = {one: "" for one in (*old.reached, *new.reached)}
    named = blank | {one: str(was) for one, was in pairs.items()}
    named |= {one: str(one) for one in pairs.values()}
    join(*(lambda one, of=of: _dump(of.reached[one], named) for of in (old, new)))
    return pairs


def _bare(one: Definition) -> str:
    return one.name.lstrip("_") or str(one)


def _dump(lines: list[Line], named: dict) -> str:
    """Lines in one text, structure and all."""
    told = []
    for line in lines:
        told.append(line.label + line.text(lambda one: named.get(one, one.name)))
        told += [f"{name}({_dump(below, named)})" for name, below in line.branches.items()]
    return "\n".join(told)


# --- lines ---------------------------------------------------------------------------------


class _Comparison:
    """Holds two programs against each other; `gone` and `come` are the lines that differ."""

    def __init__(self, old: _Program, new: _Program):
        self.old, self.new = old, new
        self.pairs = _pairs(old, new)
        self.names = {one: str(one) for one in old.reached}
        self.names |= {one: f"new {one}" for one in new.reached}
        self.names |= {one: str(was) for one, was in self.pairs.items()}
        self.gone: list[Line] = []
        self.come: list[Line] = []
        # The ifs around lines that went, with none in their place, and around those that came.
        self.losing: list[tuple[Line, Line]] = []
        self.gaining: list[tuple[Line, Line]] = []
        self.loses = self.gains = False
        self.untold: list[Place] = []
        self.owners = {
            line.owner: self.name_of(one) for one, lines in new.reached.items() for line in lines
        }

    def name_of(self, one: Definition) -> str:
        return self.names.get(one, one.name)

    def changes(self) -> Changes:
        """What must have run, before and now."""
        was = set(self.pairs.values())
        for lines, others in zip(self.old.cells, self.new.cells, strict=True):
            self.block(lines, others, ())
        for one, lines in self.new.reached.items():
            self.block(self.old.reached[self.pairs[one]] if one in self.pairs else [], lines, ())
        for one in self.old.reached.keys() - was:
            self.block(self.old.reached[one], [], ())
        self.refuse_what_no_run_tells()
        found = Changes(
            [place for line in self.gone for place in places_of(line)],
            [place for line in self.come for place in places_of(line)],
        )
        # A line that leaves a branch may have gone where it always runs.
        around = (self.losing if self.gains else []) + (self.gaining if self.loses else [])
        for pair in around:
            for side, line in zip((found.before, found.now), pair, strict=True):
                if place := both_ways(line):
                    side.append(place)
        sides = ((self.gone, found.before), (self.come, found.now))
        told = literals.unheard_of(self.gone, self.come, self.owner_of)
        for (lines, places), new in zip(sides, told, strict=True):
            places[:] = [*dict.fromkeys(places)]
            self.ask_for_literals(lines, places, new)
        found.now += dict.fromkeys(self.untold)
        return found

    def owner_of(self, line: Line) -> str:
        """The pair, or the cell, that a line belongs to."""
        return self.owners.get(line.owner, line.owner.of)

    def block(self, old: list[Line], new: list[Line], around: tuple) -> None:
        """Lines that stood below one head, and those that stand there now."""
        keys_of = [[line.key(self.name_of) for line in lines] for lines in (old, new)]
        matcher = SequenceMatcher(None, *keys_of, autojunk=False)
        for what, a, b, c, d in matcher.get_opcodes():
            if what == "equal":
                for was, line in zip(old[a:b], new[c:d], strict=True):
                    self.same(was, line, around)
                continue
            gone = [one for top in old[a:b] for one in top.below()]
            come = [one for top in new[c:d] for one in top.below()]
            self.gone += gone
            self.come += come
            n_gone, n_come = (len([*_counting(lines)]) for lines in (gone, come))
            if n_gone and not n_come:
                self.loses = True
                self.losing += around
            if n_come and not n_gone:
                self.gains = True
                self.gaining += around

    def same(self, old: Line, new: Line, around: tuple) -> None:
        """A line that is still there; what is below it may not be."""
        if old.text(self.name_of) != new.text(self.name_of):
            self.gone.append(old)
            self.come.append(new)
            if old.made:
                self.refuse(new, "its value is another; who uses it may not run")
            if old.kind == "def" and _moved(parameters(old.node)[0], parameters(new.node)[0]):
                self.refuse(new, "it takes its arguments in another order")
        if isinstance(new.node, ast.If):
            around = (*around, (old, new))
        for name in dict.fromkeys((*old.branches, *new.branches)):
            below = old.branches.get(name, []), new.branches.get(name, [])
            self.block(*below, around)
            if name == "fields" and _moved(*([one.label for one in lines] for lines in below)):
                self.refuse(new, "its fields stand in another order")
            if name == "fields" and (old.node.bases or new.node.bases):
                labels = [{one.label for one in lines} for lines in below]
                if labels[0] != labels[1] and not _is_tuple(new):
                    self.refuse(new, "it has other fields, which may be those of a base")

    def refuse(self, line: Line, why: str) -> None:
        """In a cell: the record is another one. In a module no run speaks for it."""
        at = next(one.lineno for one in (line.node, *line.parts) if hasattr(one, "lineno"))
        if not line.owner.file.startswith("cell "):
            self.untold.append(Place(line.owner, at, why=why))
            return
        raise BookError(
            f"{self.new.chapter}: {line.owner.of}, line {at}: {why}; only a full run can vouch "
            f"for it: make record CHAPTER={self.new.chapter}"
        )

    def refuse_what_no_run_tells(self) -> None:
        """What ran because it was read, and what tells the profiles apart."""
        paired = {self.name_of(one) for one in self.pairs}
        needed = self.old.for_full() | self.new.for_full()
        for line in (*self.gone, *self.come):
            if line.kind == "effect":
                self.refuse(line, "it does something when its module is read")
            if line.kind == "base" and not _only_new(line, self.names, paired):
                self.refuse(line, "a class has another base")
            if any(_tells_profile(part) for part in line.parts):
                self.refuse(line, "what only the full profile takes may be another")
            if line.owner.file.startswith("cell ") and binds(line) & needed:
                self.refuse(line, "what only the full profile takes is made of it")

    def ask_for_literals(self, lines: list[Line], places: list[Place], new: dict) -> None:
        """Have places say what literals they hold that stood nowhere before.

        One that is made counts where it is used.
        """
        used = {_made_name(line): told for line, told in new.items() if line.made}
        n_before = -1
        while len(used) > n_before:
            n_before = len(used)
            for line in lines:
                names = [name for part in line.parts for name in _mentioned(part)]
                told = next((used[name] for name in names if name in used), "")
                if told and line.made:
                    used.setdefault(_made_name(line), told)
                elif told:
                    new.setdefault(line, told)
        for line in lines:
            if line in new and not line.made:
                fresh = {*places_of(line)}
                places[:] = [
                    dataclasses.replace(place, literal=new[line]) if place in fresh else place
                    for place in places
                ]


def _made_name(line: Line) -> str:
    return line.owner.of.rpartition(".")[2] if line.kind == "value" else line.label


def _counting(lines: list[Line]) -> Iterator[Line]:
    """Lines that do something, where all goes well."""
    return (line for line in lines if not line.made and not line.fatal)


def _moved(old: list[str], new: list[str]) -> bool:
    """Whether one that is in both stands in another place."""
    return any(name and name in new and new.index(name) != i for i, name in enumerate(old))


def _is_tuple(line: Line) -> bool:
    return [ast.unparse(base).rpartition(".")[2] for base in line.node.bases] == ["NamedTuple"]


def _only_new(line: Line, names: dict, paired: set[str]) -> bool:
    """Whether a base is a class that is there on one side alone."""
    targets = [*line.form.targets()]
    return bool(targets) and all(names.get(one) not in paired for one in targets)


def _tells_profile(part: ast.AST) -> bool:
    return any(
        isinstance(told := getattr(node, name, None), str) and told in texts
        for node in ast.walk(part)
        for name, texts in TELLS.items()
    )


def _mentioned(part: ast.AST) -> Iterator[str]:
    for node in ast.walk(part):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
