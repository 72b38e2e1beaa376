"""The changelog: what two commits of a toy repository have different in their ledgers."""

import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml

from ebmbook.claims import Check, Claim, Judgement, Measure
from ebmbook.press import difference, notebooks, records
from ebmbook.press.difference import Move, State
from ebmbook.press.notebooks import BookError

GOOD = {"finding": "It is.", "verdict": "reproduced"}


def check(measure: str, at_most: float) -> dict:
    return {"measure": measure, "at_most": at_most, "because": "by hand"}


class Toy:
    """A repository with claims and results, and nothing else."""

    def __init__(self, root: Path):
        self.root = root
        self.git("init", "--quiet")

    def git(self, *args: str) -> str:
        told = ["-c", "user.name=toy", "-c", "user.email=toy@localhost"]
        command = ["git", "-C", str(self.root), *told, *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def write(self, chapter: str, claims: list[dict], **measures: tuple) -> None:
        """A chapter with its claims, and with measures (value, se)."""
        file = self.root / "book" / "claims" / f"{chapter}.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(claims))
        told = {name.replace("_", "/"): {"value": value} | ({"se": se} if se else {})
                for name, (value, se) in measures.items()}  # fmt: skip
        results = {"chapter": chapter, "profile": "full", "seed": 0, "measures": told}
        notebook = nbformat.v4.new_notebook(metadata={"ebmref": {"results": results}})
        nbformat.write(notebook, self.root / "book" / f"{chapter}.ipynb")

    def commit(self, tag: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", tag)
        self.git("tag", tag)


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Toy:
    """Two releases: one claim stays, one turns, one is broken, one is gone, one is new; of the
    numbers one moves, one stays within its error, one has no error; a chapter is renamed."""
    toy = Toy(tmp_path)
    one = {"where": "1", "says": "It is small."}
    stays = one | {"id": "eq-1", "checks": [check("a/moves", 9)], **GOOD}
    turns = one | {"id": "eq-2", "checks": [check("a/stays", 9)], **GOOD}
    breaks = one | {"id": "eq-3", "checks": [check("a/moves", 9)], **GOOD}
    toy.write(
        "old", [stays, turns, breaks, one | {"id": "claim-gone"}],
        a_moves=(1.0, 0.3), a_stays=(1.0, 0.3), a_bare=(4.0, None), a_same=(7.0, None),
        a_gone=(1.0, None),
    )  # fmt: skip
    toy.commit("v0.1.0")
    (tmp_path / "book" / "claims" / "old.yml").unlink()
    (tmp_path / "book" / "old.ipynb").unlink()
    (tmp_path / "book" / "moved.yml").write_text("old: new\n")
    turns = turns | {"verdict": "corrected", "finding": "It is half as large."}
    breaks = breaks | {"checks": [check("a/moves", 1.5)]}
    toy.write(
        "new", [stays, turns, breaks, one | {"id": "paper-new", "where": "Doe 2001"}],
        a_moves=(2.0, 0.4), a_stays=(1.4, 0.3), a_bare=(5.0, None), a_same=(7.0, None),
        a_fresh=(1.0, None), a_late=(1.0, None),
    )  # fmt: skip
    toy.commit("v0.2.0")
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    return toy


def test_two_releases(toy):
    told = difference.between("v0.1.0", "v0.2.0")
    blocks = dict(block.partition("\n\n")[::2] for block in told.split("\n\n## "))
    assert [*blocks] == [
        "# The ledger from v0.1.0 to v0.2.0",
        "Verdicts that changed",
        "Claims added",
        "Claims gone",
        "Numbers that moved by more than their joint error",
        "Numbers that changed and have no error of their own",
    ]
    turned = blocks["Verdicts that changed"].strip().splitlines()
    assert turned[0] == (
        "- Equation (R2) (`eq-2`, 1): reproduced → **corrected**. It is small. "
        "*Found:* It is half as large."
    )
    # One that its own run does not bear out is open, whatever its file says.
    assert turned[1].startswith("- Equation (R3) (`eq-3`, 1): reproduced → **open**.")
    assert "a/moves is 2.00 ± 0.40, wanted at most 1.5" in turned[1] and len(turned) == 2
    assert blocks["Claims added"].strip() == "- New (`paper-new`, Doe 2001): **open**. It is small."
    assert blocks["Claims gone"].strip() == (
        "- Gone (`claim-gone`, 1), which was open: It is small."
    )
    moved = blocks["Numbers that moved by more than their joint error"].strip().splitlines()
    # By 1 with a joint error of 0.5; under the chapter's name of today.
    assert moved[2:] == ["| new | `a/moves` | 1.00 ± 0.30 | 2.00 ± 0.40 | 2.0 |"]
    bare = blocks["Numbers that changed and have no error of their own"].strip().splitlines()
    assert bare[2] == "| new | `a/bare` | 4 | 5 |"
    assert bare[-1] == "2 measures stayed within their joint error, 2 are new, 1 are gone."


def test_nothing_changed(toy):
    told = difference.between("v0.2.0")  # to what lies here
    assert told == (
        "# The ledger from v0.2.0 to now\n\n"
        "No claim was added or dropped, and no verdict changed.\n\n"
        "6 measures stayed within their joint error, 0 are new, 0 are gone.\n"
    )


def test_the_release_before(toy):
    assert difference.release_before("v0.2.0") == "v0.1.0"
    assert difference.release_before("v0.1.0") == ""
    toy.git("tag", "other")
    toy.git("commit", "--quiet", "--allow-empty", "-m", "later")
    assert difference.release_before("HEAD") == "v0.2.0"


@pytest.mark.parametrize("commit", ["v9", "HEAD:book", "--output=x"])
def test_a_commit_that_is_none(toy, commit):
    with pytest.raises(BookError, match="no commit of this repository"):
        difference.between(commit)


def test_a_commit_that_is_not_named():
    with pytest.raises(BookError, match="since which commit"):
        difference.between("")


def test_a_ledger_that_cannot_be_read_is_named(toy):
    (toy.root / "book" / "claims" / "new.yml").write_text("- id: nonsense\n")
    toy.commit("v0.3.0")
    with pytest.raises(BookError, match=r"at v0\.3\.0: new\.yml: nonsense"):
        difference.between("v0.1.0", "v0.3.0")


@pytest.mark.parametrize(
    "old, new, moved",
    [
        # The joint error of .3 and .4 is .5: within it, at it, beyond it.
        (Measure(1.0, 0.3), Measure(1.49, 0.4), False),
        (Measure(1.0, 0.3), Measure(1.5, 0.4), False),
        (Measure(1.0, 0.3), Measure(1.51, 0.4), True),
        (Measure(1.0, 0.3), Measure(0.49, 0.4), True),
        # An error on one side alone.
        (Measure(1.0, 0.3), Measure(1.2), False),
        (Measure(1.0), Measure(1.4, 0.3), True),
        # None has one: as it is printed.
        (Measure(1.0), Measure(1.0), False),
        (Measure(1.23456789), Measure(1.23456780), False),
        (Measure(1.0), Measure(2.0), True),
    ],
)
def test_what_has_moved(old, new, moved):
    found = difference.difference(State({}, {("one", "x"): old}), State({}, {("one", "x"): new}))
    bare = old.se is None and new.se is None
    assert found.moved == ((Move("one", "x", old, new),) if moved and not bare else ())
    assert found.bare == ((Move("one", "x", old, new),) if moved and bare else ())
    assert found.same == 1 - moved


def test_the_farthest_comes_first():
    measures = {name: Measure(0.0, 0.1) for name in "abc"}
    there = {"a": Measure(1.0, 0.1), "b": Measure(9.0, 0.1), "c": Measure(-4.0, 0.1)}
    states = [State({}, {("one", name): got for name, got in all_.items()})
              for all_ in (measures, there)]  # fmt: skip
    assert [one.name for one in difference.difference(*states).moved] == ["b", "c", "a"]


def test_claims_come_in_the_reports_order():
    names = ["paper-a", "claim-b", "eq-12", "eq-2"]
    one = [
        Judgement(Claim(name, "one", "2.1", "x", "open", "", (Check("a", "at_most", 1, "x"),)), ())
        for name in names
    ]
    found = difference.difference(State({}, {}), State({got.claim.id: got for got in one}, {}))
    assert [got.claim.id for got in found.added] == ["eq-2", "eq-12", "claim-b", "paper-a"]
