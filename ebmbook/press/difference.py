"""What changed in the ledger between two commits: the changelog of a release.

Read from what is committed in each: `book/claims/*.yml` and the results in `book/*.ipynb`. Claims
are paired by id, measures by chapter and name, with chapters followed through `book/moved.yml`. A
number has moved if the two differ by more than their joint standard error.
"""

import math
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ebmbook import claims
from ebmbook.claims import Judgement, LedgerError, Measure
from ebmbook.press import notebooks, records, report
from ebmbook.press.notebooks import BookError

HERE = ""  # as a commit: the files as they lie in this folder


@dataclass(frozen=True)
class State:
    """The ledger at some commit.

    Attributes:
        judgements: by id of the claim.
        measures: by chapter and name.
        moved: today's name of a chapter, by its old one.
    """

    judgements: dict[str, Judgement]
    measures: dict[tuple[str, str], Measure]
    moved: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """A measure whose two numbers differ.

    Attributes:
        chapter, name: of the measure.
        old, new: its numbers.
    """

    chapter: str
    name: str
    old: Measure
    new: Measure

    @property
    def error(self) -> float:
        """The joint standard error; 0 where neither number has one."""
        return math.hypot(self.old.se or 0.0, self.new.se or 0.0)

    @property
    def errors(self) -> float:
        """By how many of its joint errors it moved; inf where it has none."""
        by = abs(self.new.value - self.old.value)
        return by / self.error if self.error else math.inf


@dataclass(frozen=True)
class Difference:
    """What changed from one state to another.

    Attributes:
        added, gone: claims of one of them alone.
        turned: claims of both whose verdict is another one, old and new.
        moved: measures that differ by more than their joint error, the farthest first.
        bare: measures that differ and have no error to be held against.
        fresh, dropped: how many measures are of one of them alone.
        same: how many are of both, and did not move.
    """

    added: tuple[Judgement, ...]
    gone: tuple[Judgement, ...]
    turned: tuple[tuple[Judgement, Judgement], ...]
    moved: tuple[Move, ...]
    bare: tuple[Move, ...]
    fresh: int
    dropped: int
    same: int


def difference(old: State, new: State) -> Difference:
    """What changed from `old` to `new`."""
    before, after = old.judgements, new.judgements
    was = {
        (new.moved.get(chapter, chapter), name): got
        for (chapter, name), got in old.measures.items()
    }
    both = was.keys() & new.measures.keys()
    pairs = [Move(*key, was[key], new.measures[key]) for key in sorted(both)]
    differ = [one for one in pairs if one.errors > 1 and str(one.old) != str(one.new)]
    moved = sorted((one for one in differ if one.error), key=lambda one: -one.errors)
    bare = [one for one in differ if not one.error]
    return Difference(
        added=tuple(in_order(got for name, got in after.items() if name not in before)),
        gone=tuple(in_order(got for name, got in before.items() if name not in after)),
        turned=tuple(
            (before[got.claim.id], got)
            for got in in_order(after.values())
            if got.claim.id in before and before[got.claim.id].verdict != got.verdict
        ),
        moved=tuple(moved),
        bare=tuple(bare),
        fresh=len(new.measures.keys() - both),
        dropped=len(was.keys() - both),
        same=len(pairs) - len(differ),
    )


def in_order(judgements: Iterable[Judgement]) -> list[Judgement]:
    """In the report's order; claims of papers come last."""
    return sorted(judgements, key=lambda one: (one.claim.is_of_paper, report.place(one.claim)))


def lines(found: Difference, since: str, until: str) -> Iterator[str]:
    """The difference in Markdown."""
    yield f"# The ledger from {since} to {until}"
    yield ""
    if found.turned:
        yield from ["## Verdicts that changed", ""]
        for old, new in found.turned:
            yield f"- {_name(new)}: {old.verdict} → **{new.verdict}**. {_told(new)}"
        yield ""
    if found.added:
        yield from ["## Claims added", ""]
        yield from (f"- {_name(one)}: **{one.verdict}**. {_told(one)}" for one in found.added)
        yield ""
    if found.gone:
        yield from ["## Claims gone", ""]
        yield from (f"- {_name(one)}, which was {one.verdict}: {_says(one)}" for one in found.gone)
        yield ""
    if found.moved:
        yield from ["## Numbers that moved by more than their joint error", ""]
        yield from ["| chapter | measure | was | is | errors |", "|---|---|---|---|---|"]
        yield from (f"{_row(one)} {one.errors:.1f} |" for one in found.moved)
        yield ""
    if found.bare:
        yield from ["## Numbers that changed and have no error of their own", ""]
        yield from ["| chapter | measure | was | is |", "|---|---|---|---|"]
        yield from (_row(one) for one in found.bare)
        yield ""
    if not (found.turned or found.added or found.gone):
        yield from ["No claim was added or dropped, and no verdict changed.", ""]
    yield (
        f"{found.same} measures stayed within their joint error, {found.fresh} are new, "
        f"{found.dropped} are gone."
    )


def _name(one: Judgement) -> str:
    return f"{report.name(one.claim)} (`{one.claim.id}`, {one.claim.where})"


def _says(one: Judgement) -> str:
    return " ".join(one.claim.says.split())


def _told(one: Judgement) -> str:
    """The claim, and what was found; of one that a run does not bear out, which check failed."""
    if not one.holds:
        return f"{_says(one)} *Not borne out:* {one.line().partition(': ')[2]}"
    found = " ".join(one.claim.finding.split())
    return f"{_says(one)} *Found:* {found}" if found else _says(one)


def _row(one: Move) -> str:
    return f"| {one.chapter} | `{one.name}` | {one.old} | {one.new} |"


def state(folder: Path) -> State:
    """The ledger of the tree in a folder.

    Raises:
        BookError: its claims or the results of a notebook cannot be read.
    """
    book = folder / "book"
    measures = {}
    try:
        for path in sorted(book.glob("*.ipynb")):
            results = notebooks.results_of(notebooks.read(path), path.name)
            measures[path.stem] = results["measures"]
        judged = claims.judge_all(claims.load_claims(book / "claims"), measures)
        file = book / "moved.yml"
        moved = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (LedgerError, yaml.YAMLError) as error:
        raise BookError(" ".join(str(error).split())) from None
    return State(
        {one.claim.id: one for one in judged},
        {(chapter, name): got for chapter, all_ in measures.items() for name, got in all_.items()},
        moved or {},
    )


def state_of(commit: str) -> State:
    """The ledger as a commit has it, or as it lies here.

    Raises:
        BookError: there is no such commit, or its ledger cannot be read.
    """
    if commit == HERE:
        return state(notebooks.ROOT)
    with tempfile.TemporaryDirectory() as folder:
        try:
            records.git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
            archive = Path(folder) / "book.tar"
            records.git("archive", f"--output={archive}", commit, "book")
            with tarfile.open(archive) as files:
                files.extractall(folder, filter="data")
        except subprocess.CalledProcessError:
            raise BookError(f"{commit}: no commit of this repository with a book") from None
        try:
            return state(Path(folder))
        except BookError as error:
            raise BookError(f"at {commit}: {error}") from None


def between(since: str, until: str = HERE) -> str:
    """What changed from one commit to another, or to the files as they lie here.

    Raises:
        BookError: none was named; and see `state_of`.
    """
    if since == HERE:
        raise BookError("since which commit? make diff FROM=v0.1.0, for example")
    found = difference(state_of(since), state_of(until))
    return "\n".join(lines(found, since, until or "now")) + "\n"


def release_before(tag: str) -> str:
    """The release before this one: the nearest earlier tag of a version; "" if it is the first."""
    try:
        return records.git("describe", "--tags", "--abbrev=0", "--match=v[0-9]*", f"{tag}^")
    except (OSError, subprocess.CalledProcessError):
        return ""
