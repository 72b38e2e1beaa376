"""What a piece of code reaches, and what all of it means."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ebmbook.keys.definitions import Alias, Definition, Sources
from ebmbook.keys.syntax import Form, form_of

# What the ledger hands out that numbers do depend on: seeds, sizes, devices; means.
NOT_LOOK = {"runs", "measures"}
PINS = ("torch", "numpy", "scipy", "scikit-learn", "torchvision")


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


def goes_on(one: Definition) -> bool:
    """Whether numbers depend on what is of no look, and is reached from there."""
    return one.module.rpartition(".")[2] in NOT_LOOK


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

            return {one: digest(form_of(self.sources, one).text(name_of)) for one in members}

        told, n_told = dict.fromkeys(members, ""), 0
        while len(set(told.values())) > n_told:
            n_told = len(set(told.values()))
            told = round_after(told)
        return lambda one: told.get(one, one.name)


def closure(root: Form, sources: Sources) -> Closure:
    """All that a piece of code reaches."""
    numbers: set[Definition] = set()
    look: set[Definition] = set()
    read: set[str] = set()

    def with_rest(targets: Iterable[Definition]) -> Iterator[Definition]:
        for target in targets:
            yield target
            if target.module not in read:
                read.add(target.module)
                yield from rest_of([Alias(target.module)])

    def rest_of(imports: Iterable[Alias]) -> list[Definition]:
        modules = [sources.module(name) for name in sorted(sources.read_with(imports))]
        return [module.rest for module in modules if module.rest]

    ahead = [*with_rest(root.targets()), *rest_of(root.imports)]
    while ahead:
        one = ahead.pop()
        if one in numbers or one in look:
            continue
        if one.is_look:
            look.add(one)
            # From there on all is look, but for the run itself and the means.
            beyond = form_of(sources, one).targets()
            ahead += with_rest(t for t in beyond if t.is_look or goes_on(t))
        else:
            numbers.add(one)
            ahead += with_rest(form_of(sources, one).targets())
    return Closure(root, numbers, look, sources)
