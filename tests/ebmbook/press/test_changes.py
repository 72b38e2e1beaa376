"""Which edits a quick run can vouch for: tables of small ones in `edits/`, see the README there."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ebmbook.press import traced
from ebmbook.press.carry import _extents
from ebmbook.press.changes import Tree, changes
from ebmbook.press.notebooks import BookError

EDITS = Path(__file__).parent / "edits"
CELL = """\
from ebmref import mini
n = run.pick(quick=10, full=400)
result = mini.f(n)
"""
HEAD = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""
# Runs the cells in both profiles, the quick one under the tracer.
RUN = """
import json, linecache, runpy, sys
root, cells, files, names, traced, seen = json.loads(sys.argv[1])
sys.path.insert(0, root)

class Run:
    def __init__(self, profile):
        self.profile = profile
    def pick(self, *, quick, full):
        return {"quick": quick, "full": full}[self.profile]

def executed(profile):
    known = {"run": Run(profile), "__name__": "__main__"}
    for i, cell in enumerate(cells):
        linecache.cache[f"<{i}>"] = len(cell), None, cell.splitlines(True), f"<{i}>"
        exec(compile(cell, f"<{i}>", "exec"), known)
    return repr(known["result"])

tracer = runpy.run_path(traced)
tracer["start"](files, names)
quick = executed("quick")
tracer["stop"](seen)
for name in [name for name in sys.modules if name.startswith("ebmref")]:
    del sys.modules[name]
print(json.dumps([quick, executed("full")]))
"""


@dataclass
class Made:
    """What a tree makes: its numbers, and the places that its quick run came through."""

    quick: str
    full: str
    seen: dict


def cases(name: str) -> list:
    """The edits of a table, each as what stood in its files and cells before, and now."""
    found = []
    for block in (EDITS / f"{name}.txt").read_text().split("\n\n"):
        title, *lines = block.strip("\n").splitlines()
        sides = ({}, {})
        part, n_cells = "mini.py", 0
        for line in lines:
            if line.startswith("@ "):
                part = line[2:]
                if part == "cell":
                    part = n_cells
                    n_cells += 1
            for side, mark in zip(sides, "-+", strict=True):
                if line[:1] in (mark, " "):
                    side[part] = side.get(part, "") + line[1:] + "\n"
        found.append(pytest.param(*sides, id=title.removeprefix("# ")))
    return found


def tree(root: Path, files: dict) -> Tree:
    """A package and a chapter; of another folder is all that is handed to `changes`."""
    cells = [text for part, text in files.items() if isinstance(part, int)] or [CELL]
    for folder in ("ebmref", "book"):
        (root / folder).mkdir(parents=True)
    (root / "ebmref/__init__.py").touch()
    for name, text in files.items():
        if isinstance(name, str):
            (root / "ebmref" / name).write_text(text)
    blocks = [f"```{{code-cell}}\n{text}```\n" for text in cells]
    (root / "book/one.md").write_text(HEAD + "\n".join(blocks))
    (root / "requirements.lock").write_text("torch==2.0\n")
    return Tree(root, root / "book/one.md")


def run(of: Tree, places: list) -> Made:
    cells = [cell.source for cell in of.draft().cells if cell.cell_type == "code"]
    names = {cell.strip("\n"): f"cell {i}" for i, cell in enumerate(cells)}
    seen = of.root / "seen.json"
    asked = [str(of.root), cells, _extents(places), names, traced.__file__, str(seen)]
    done = subprocess.run(
        [sys.executable, "-SI", "-c", RUN, json.dumps(asked)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return Made(*json.loads(done.stdout), json.loads(seen.read_text()))


def judged(tmp_path: Path, before: dict, now: dict) -> tuple[Made, Made, str]:
    """What both trees make, and why the edit is refused; "" where it is carried."""
    trees = tree(tmp_path / "before", before), tree(tmp_path / "now", now)
    sides, refusal = ([], []), ""
    try:
        found = changes(*trees, "full")
        sides = found.before, found.now
    except BookError as error:
        refusal = str(error)
    made = [run(of, places) for of, places in zip(trees, sides, strict=True)]
    missed = [
        str(place)
        for places, got in zip(sides, made, strict=True)
        for place in places
        if place.literal or not place.ran(got.seen)
    ]
    return *made, refusal or ", ".join(missed)


@pytest.mark.parametrize("before, now", cases("refused"))
def test_what_changes_only_the_full_run_is_refused(tmp_path, before, now):
    was, made, refusal = judged(tmp_path, before, now)
    assert was.quick == made.quick and was.full != made.full
    assert "ebmref." in refusal or "cell " in refusal
    assert "line " in refusal


@pytest.mark.parametrize("before, now", cases("asks"))
def test_what_a_quick_run_does_not_show_is_refused(tmp_path, before, now):
    was, made, refusal = judged(tmp_path, before, now)
    assert was.quick == made.quick and was.full == made.full
    assert "ebmref.mini." in refusal and "line " in refusal


@pytest.mark.parametrize("before, now", cases("carried"))
def test_what_changes_nothing_is_carried(tmp_path, before, now):
    was, made, refusal = judged(tmp_path, before, now)
    assert was.quick == made.quick and was.full == made.full
    assert refusal == ""


def test_another_numeric_library_is_refused(tmp_path):
    """Both quick runs would take the one that is installed."""
    trees = [tree(tmp_path / side, {"mini.py": "def f(n):\n    return n\n"}) for side in "ab"]
    assert changes(*trees, "full").now == []
    (trees[1].root / "requirements.lock").write_text("torch==2.1\n")
    with pytest.raises(BookError, match=r"torch==2\.0, torch==2\.1"):
        changes(*trees, "full")


def test_a_line_that_runs_and_does_not_matter_is_carried(tmp_path):
    """The limit of it: of what is switched off in the quick run, its names may change."""
    text = "import math\ndef h(on, t):\n    return t if on else 0\n"
    text += "def f(n):\n    return h(n > 100, math.{})\n"
    before, now = ({"mini.py": text.format(name)} for name in ("pi", "e"))
    was, made, refusal = judged(tmp_path, before, now)
    assert was.full != made.full and refusal == ""
