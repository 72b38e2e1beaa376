"""Keys of meaning: what changes nothing, what changes just the chapters that reach it."""

import ast
import re
import shutil
import sys
import textwrap
from pathlib import Path

import jupytext
import pytest
from unfollowed import bound_twice, unfollowed

from ebmbook import keys

ROOT = Path(__file__).resolve().parents[2]

PACKAGE = {
    "__init__.py": '"""A package."""\n__all__ = ["a"]\n',
    "a.py": """
        import math
        from dataclasses import dataclass

        from ebmref import b
        from ebmref.deep import c as sea
        from ebmref.deep.d import scaled as resized

        LIMIT = 3
        UNUSED = 4


        @dataclass
        class Recipe:
            \"\"\"A recipe.\"\"\"

            rate: float = 0.1


        def play(n, recipe=Recipe()):
            \"\"\"Play.\"\"\"
            total = 0.0  # so far
            for i in range(min(n, LIMIT)):
                total += b.step(i, recipe)
            return resized(total) + sea.DEEP


        def beside(value: int) -> int:
            return value


        def lazily():
            from ebmref.late import thing

            return thing()


        def whole():
            return list(vars(sea))
        """,
    "b.py": """
        import functools

        OFFSET = 1.0


        def cached(function):
            return functools.cache(function)


        @cached
        def step(i, recipe, by=1):
            return even(i) * by + OFFSET


        def even(i):
            return True if i == 0 else odd(i - 1)


        def odd(i):
            return False if i == 0 else even(i - 1)
        """,
    "deep/__init__.py": "",
    "deep/c.py": "DEEP = 7\nOTHER = 8\n",
    "deep/d.py": "from ebmref.far import FACTOR\n\n\ndef scaled(x):\n    return FACTOR * x\n",
    "far.py": "import torch\n\nFACTOR = 2\n",
    "late.py": "def thing():\n    return 1\n",
    "plots.py": "from ebmref import far\n\nCOLOUR = 'red'\ndef show(x):\n    return COLOUR, x\n",
}
PLAY = ["from ebmref import a, plots\nn = 3", "plots.show(a.play(n))"]


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with a small package of the book's name."""
    for name, text in PACKAGE.items():
        path = tmp_path / "ebmref" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path


def reached(root: Path, cells: list[str], chapter: str | None = None) -> keys.Closure:
    sources = keys.Sources(root)
    return keys.closure(keys.form_of_cells(cells, sources, chapter), sources)


def key(root: Path, cells: list[str] | None = None) -> str:
    return reached(root, PLAY if cells is None else cells).key()


def edit(root: Path, name: str, old: str, new: str) -> None:
    path = root / "ebmref" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_what_the_cells_reach(root):
    """Through attributes, other names, decorators, defaults, circles; and no further."""
    names = {str(one).removeprefix("ebmref.") for one in reached(root, PLAY).numbers}
    assert names == {
        "a.play", "a.Recipe", "a.LIMIT", "b.step", "b.cached", "b.even", "b.odd", "b.OFFSET",
        "deep.c.DEEP", "deep.d.scaled", "far.FACTOR",
    }  # fmt: skip
    assert {str(one) for one in reached(root, PLAY).look} == {
        "ebmref.plots.show",
        "ebmref.plots.COLOUR",
    }


SAME = {
    "docstring": ("a.py", '"""Play."""', '"""Play on.\n\n    And on."""'),
    "comment": ("a.py", "# so far", "# until now"),
    "annotation of an argument": ("a.py", "def play(n,", "def play(n: int,"),
    "layout": ("b.py", "return even(i) * by + OFFSET", "return (\n        even(i) * by + OFFSET)"),
    "new function": ("b.py", "OFFSET = 1.0", "OFFSET = 1.0\n\n\ndef total(i):\n    return i\n"),
    "unused constant": ("a.py", "UNUSED = 4", "UNUSED = 5"),
    "unused import": ("a.py", "import math\n", "import math\nimport torch\n"),
    "way of an import": ("a.py", "from ebmref.deep import c as sea", "import ebmref.deep.c as sea"),
    "order": ("a.py", "LIMIT = 3\nUNUSED = 4\n", "UNUSED = 4\nLIMIT = 3\n"),
    "what is loaded late elsewhere": ("late.py", "return 1", "return 2"),
    "colour of a figure": ("plots.py", "'red'", "'blue'"),
}  # fmt: skip
OTHER = {
    "constant": ("a.py", "LIMIT = 3", "LIMIT = 2"),
    "default": ("b.py", "by=1", "by=2"),
    "decorator": ("b.py", "@cached\n", ""),
    "of the decorator": ("b.py", "functools.cache(", "functools.lru_cache("),
    "field": ("a.py", "rate: float = 0.1", "rate: float = 0.2"),
    "annotation of a field": ("a.py", "rate: float", "rate: int"),
    "three imports away": ("far.py", "FACTOR = 2", "FACTOR = 3"),
    "in a circle": ("b.py", "return False if", "return None if"),
    "sign": ("b.py", "* by + OFFSET", "* by - OFFSET"),
    "another library's function": ("b.py", "import functools", "import itertools as functools"),
    "another definition of that name": ("a.py", "deep.d import scaled", "late import thing"),
}


@pytest.mark.parametrize("name", SAME)
def test_what_changes_nothing(root, name):
    before = key(root)
    edit(root, *SAME[name])
    assert key(root) == before


@pytest.mark.parametrize("name", OTHER)
def test_what_changes_the_key(root, name):
    before = key(root), key(root, ["from ebmref import a\na.beside(1)"])
    edit(root, *OTHER[name])
    after = key(root), key(root, ["from ebmref import a\na.beside(1)"])
    assert after[0] != before[0] and after[1] == before[1]


def test_code_that_moves_is_the_same(root):
    """A function in another module, a renamed module, a function of another name."""
    before = key(root)
    step = re.search(r"@cached\ndef step.*?\n\n\n", (root / "ebmref/b.py").read_text(), re.S)[0]
    edit(root, "b.py", step, "")
    head = "from ebmref.b import OFFSET as AT, cached as kept, even\n\n\n"
    text = step.replace("OFFSET", "AT").replace("cached", "kept")
    (root / "ebmref/steps.py").write_text(head + text)
    edit(root, "a.py", "import b\n", "import steps\n")
    edit(root, "a.py", "b.step", "steps.step")
    assert key(root) == before
    (root / "ebmref/far.py").rename(root / "ebmref/near.py")
    edit(root, "deep/d.py", "ebmref.far", "ebmref.near")
    edit(root, "plots.py", "far", "near")
    assert key(root) == before
    edit(root, "deep/d.py", "def scaled", "def times")
    edit(root, "a.py", "import scaled as", "import times as")
    assert key(root) == before


def test_names_that_change_places_are_seen(root):
    """Two functions of one body but for what they name: which is called counts."""
    (root / "ebmref/twins.py").write_text(
        "from ebmref.b import even, odd\n\n\ndef one(i):\n    return even(i)\n\n\n"
        "def two(i):\n    return odd(i)\n"
    )
    cell = "from ebmref import twins\ntwins.one(1), twins.two(2)"
    swapped = "from ebmref import twins\ntwins.two(1), twins.one(2)"
    assert key(root, [cell]) != key(root, [swapped])


def test_a_local_name_is_not_the_module_s(root):
    """A variable that is called like a function of the module names nothing of it."""
    cell = "from ebmref import a\n\ndef f(play):\n    return [play for play in play]\n"
    assert reached(root, [cell]).numbers == set()
    cell = "from ebmref import a\n\ndef f(x):\n    return [a.play for a.play in x] or a.beside\n"
    assert "ebmref.a.beside" in {str(one) for one in reached(root, [cell]).numbers}


def test_imports_inside_functions_and_whole_modules(root):
    """Late imports count where the function does; a module handed around counts whole."""
    late = ["from ebmref.a import lazily\nlazily()"]
    whole = ["from ebmref.a import whole\nwhole()"]
    before = key(root, late), key(root, whole)
    edit(root, "late.py", "return 1", "return 2")
    edit(root, "deep/c.py", "OTHER = 8", "OTHER = 9")
    assert key(root, late) != before[0] and key(root, whole) != before[1]
    before = key(root, whole)
    edit(root, "deep/c.py", "OTHER = 9\n", "OTHER = 9\nNEW = 1\n")
    assert key(root, whole) != before


def test_what_a_module_does_besides_counts_with_it(root):
    """A call at the top level, and an attribute set on a function."""
    before = key(root)
    path = root / "ebmref/b.py"
    text = path.read_text()
    path.write_text(text + "\nfunctools.register(even)\n")
    assert key(root) != before
    path.write_text(text + "\neven.order = 2\n")
    assert key(root) != before
    path.write_text(text + "\ncached.order = 2\n")
    assert key(root) != before
    assert key(root, ["from ebmref import a\na.beside(1)"]) == key(
        root, ["from ebmref import a\na.beside(1)"]
    )


EFFECTS = {
    "loop": ("mini.py", "T = {}\nfor k in (1, 2):\n    T[k] = 5\n"),
    "attribute of another library": ("mini.py", "import decimal\ndecimal.thing = 5\n"),
    "attribute of an own module": ("mini.py", "from ebmref import far\nfar.FACTOR = 5\n"),
    "imported name, bound again": ("mini.py", "from ebmref.b import odd\nodd = (odd, 5)\n"),
    "module that is imported for it": ("late.py", "import math\nmath.thing = 5\n"),
    "package around": ("deep/__init__.py", "import math\nmath.thing = 5\n"),
    "package around another": ("__init__.py", "import math\nmath.thing = 5\n"),
}


@pytest.mark.parametrize("name", EFFECTS)
def test_what_reading_a_module_does_counts(root, name):
    """Wherever it is told; in the module itself, around it, or in one that it imports."""
    head = "import ebmref.late\nfrom ebmref.deep.d import scaled\n"
    (root / "ebmref/mini.py").write_text(f"{head}\n\ndef f(n):\n    return scaled(n)\n")
    cells = ["from ebmref.mini import f\nf(1)"]
    file, text = EFFECTS[name]
    path = root / "ebmref" / file
    path.write_text(text + path.read_text())
    before = key(root, cells)
    edit(root, file, "5", "6")
    assert key(root, cells) != before


def test_an_import_for_its_effect_counts_in_cells(root):
    cells = ["import ebmref.late\n1"]
    edit(root, "late.py", "def", "import math\nmath.thing = 5\n\n\ndef")
    before = key(root, cells)
    edit(root, "late.py", "5", "6")
    assert key(root, cells) != before


def test_cells_count_as_they_are_cut(root):
    """Code, its cuts and a magic count; the chapter's own name, comments and imports do not."""
    assert key(root, [*PLAY, "1"]) != key(root)
    assert key(root, ["\n".join(PLAY)]) != key(root)
    assert key(root, [PLAY[0].replace("3", "4"), PLAY[1]]) != key(root)
    assert key(root, [PLAY[0] + "  # three", PLAY[1]]) == key(root)
    assert key(
        root, ["from ebmref import plots\nfrom ebmref import a as a\nn = 3", PLAY[1]]
    ) == key(root)
    assert key(root, ["%precision 3", *PLAY]) != key(root, ["%precision 4", *PLAY])
    assert key(root, ["def (", *PLAY]) != key(root, ["def [", *PLAY])
    named = [reached(root, [f"start({name!r})"], name).key() for name in ("01-one", "one")]
    assert named[0] == named[1] != reached(root, ["start('x')"], "one").key()


def test_only_the_choice_of_the_profile_counts(root):
    """What the other profile picks is not run; what is no such choice counts as ever."""

    def of(cell: str, profile: str | None) -> str:
        sources = keys.Sources(root, profile)
        return keys.closure(keys.form_of_cells([cell], sources), sources).key()

    cells = [f"n = run.pick(quick={a}, full={b})" for a, b in ((1, 2), (3, 2), (1, 4))]
    assert of(cells[0], "full") == of(cells[1], "full") != of(cells[2], "full")
    assert of(cells[0], "quick") == of(cells[2], "quick") != of(cells[1], "quick")
    assert len({of(cell, None) for cell in cells}) == 3
    others = [cell.replace("full", "whole") for cell in cells]
    assert len({of(cell, "quick") for cell in others}) == 3


def test_a_slip_in_a_module_is_named(root):
    (root / "ebmref/far.py").write_text("FACTOR = 2\ndef (\n")
    with pytest.raises(keys.SourceError, match=r"ebmref/far.py: line 2: SyntaxError"):
        key(root)


def test_keys_are_the_same_in_every_python(root):
    """Golden: this number was made by Python 3.11, and is that of 3.12 and 3.13."""
    cells = [
        *PLAY,
        "x = {**{}, 'a': 1j}\nprint(f'{x!r:>{n}} {n:.2f}' 'and', b'', ..., -1e300, None)",
        "async def f(*a, b=1, **c):\n    global n\n    try:\n        [n := 1 for i in a if i]\n"
        "    except* ValueError as e:\n        raise KeyError from e\n    match a:\n"
        "        case [1, *rest] | {'k': rest, **more} as whole: yield lambda y: (y, rest, whole)",
    ]
    assert key(root, cells) == GOLDEN


GOLDEN = "1ef7792fda53255d"


class TestSlice:
    """Of the cells that ran, a checkpoint's name takes what its statement depends on."""

    CELLS = (
        "import torch\nfrom ebmref import a, plots\nseed = 1\nn = 5",
        "def make(k):\n    return a.play(k)\n\nsize = n + 1",
        "fig = plots.show(n)\nother = 3\nprint(other)",
        "made = make(size)\nother = made",
    )

    def test_keeps_what_is_needed(self):
        kept = "\n".join(keys.slice_of_cells([*self.CELLS], 1))
        assert "def make" in kept and "size = n + 1" in kept and "n = 5" in kept
        assert "from ebmref import a, plots" in kept
        assert "fig" not in kept and "other" not in kept and "seed" not in kept

    def test_a_change_by_a_call_or_an_item_counts(self):
        more = "size.append(1)\nprint(seed)\nmade = []\nplots.show(size)"
        kept = keys.slice_of_cells([*self.CELLS[:2], more, self.CELLS[3]], 1)
        assert "size.append(1)" in kept and "plots.show(size)" not in kept
        assert "print(seed)" not in kept
        kept = keys.slice_of_cells([*self.CELLS[:3], "size[0] = 2\nmake(size)"], 2)
        assert "size[0] = 2" in kept


# --- the book itself -----------------------------------------------------------------------


CHAPTERS = {
    path.stem: [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    for path in sorted((ROOT / "book").glob("*.md"))
    if "kernelspec:" in path.read_text()
}


@pytest.fixture(scope="module")
def before() -> dict[str, keys.Closure]:
    return all_reached(ROOT)


@pytest.fixture
def copy(tmp_path) -> Path:
    for package in keys.PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    return tmp_path


def all_reached(root: Path) -> dict[str, keys.Closure]:
    sources = keys.Sources(root)
    return {
        name: keys.closure(keys.form_of_cells(cells, sources, name), sources)
        for name, cells in CHAPTERS.items()
    }


def changed(before: dict[str, keys.Closure], root: Path) -> set[str]:
    after = all_reached(root)
    return {name for name, got in after.items() if got.key() != before[name].key()}


def edit_where(root: Path, old: str, new: str) -> None:
    """Edit the one place of the packages that has `old`."""
    paths = [path for path in root.rglob("*.py") if old in path.read_text()]
    assert len(paths) == 1, paths
    paths[0].write_text(paths[0].read_text().replace(old, new))


def reaching(before: dict[str, keys.Closure], name: str) -> set[str]:
    """Chapters that reach a definition of that name."""
    return {
        chapter for chapter, got in before.items() if any(one.name == name for one in got.numbers)
    }


@pytest.mark.parametrize(
    "old, new, name",
    [
        ("-logsigmoid(fake).mean(-1)\n", "-2 * logsigmoid(fake).mean(-1)\n", "generator_loss"),
        ("leaky_relu(x, 0.2)", "leaky_relu(x, 0.3)", "leaky"),
    ],
)
def test_a_doubled_loss_is_of_each_chapter_that_trains_by_it(before, copy, old, new, name):
    edit_where(copy, old, new)
    assert changed(before, copy) == reaching(before, name) != set()
    assert reaching(before, name) < set(CHAPTERS)


def test_how_the_ledger_makes_means_is_of_each_chapter(before, copy):
    """The rest of the ledger is of the look."""
    edit_where(copy, "values.std() / math.sqrt(n)", "values.std() / math.sqrt(n - 1)")
    assert changed(before, copy) == set(CHAPTERS)


def checkpoint_code(root: Path, chapter: str, call: str) -> str:
    """The meaning of the statement of a chapter that makes such a call."""
    cells = CHAPTERS[chapter]
    (i,) = [i for i, cell in enumerate(cells) if call in cell]
    line = cells[i][: cells[i].index(call)].count("\n") + 1
    sources = keys.Sources(root, "full")
    kept = keys.slice_of_cells(cells[: i + 1], line)
    return keys.closure(keys.form_of_cells(kept, sources), sources).key()


def test_checkpoints_are_named_by_what_makes_them(before, copy):
    """A sampler's sign flipped renames what it refined, and not the GANs that it refines."""
    calls = [("refining", 'f"refined-{name}-{group}"'), ("gan-pictures", 'f"grid-{key}-{side}"')]
    was = [checkpoint_code(ROOT, *call) for call in calls]
    edit_where(copy, "proposed.energy + back, u)", "proposed.energy - back, u)")
    now = [checkpoint_code(copy, *call) for call in calls]
    assert now[0] != was[0] and now[1] == was[1]
    assert "refining" in changed(before, copy) and "gan-pictures" not in changed(before, copy)


def test_prose_of_the_code_is_of_no_chapter(before, copy):
    """A docstring and a comment in every module."""
    for path in copy.rglob("*.py"):
        text = re.sub(r"^(def \w+\([^)]*\)[^:\n]*:\n)    (?=\"\"\")", r"\1    # Mind.\n    ",
                      path.read_text(), flags=re.M)  # fmt: skip
        path.write_text(text.replace('"""', '"""Words. ', 1))
    assert changed(before, copy) == set()


def test_the_look_is_apart(before, copy):
    """A colour of the figures, a word of the ledger."""
    edit_where(copy, 'MODEL = "#d55e00"', 'MODEL = "#d55e01"')
    after = all_reached(copy)
    assert changed(before, copy) == set()
    assert all(got.look_key() != before[name].look_key() for name, got in after.items())


FORBIDDEN = {
    "from .b import K": "relative",
    "class A:\n    from b import K": "import in a class",
    "class A:\n    s = staticmethod(s)": "made of the module's: s",
    "from b import *": "import of *",
    "globals()['K']": "globals",
    "import importlib": "importlib",
    "f.__name__": "name of a function",
    "def reg(g):\n    T.append(g)\n@reg\ndef one(): pass": "decorator of its own",
    "from b import K\nx = K\nfrom c import K": "one name for two imports",
    "X = 1\nY = X\nX = 2": "bound twice",
}


def forbidden(body: list[ast.stmt], *, is_module: bool = True) -> list[str]:
    return [*unfollowed(body), *(bound_twice(body) if is_module else ())]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_what_a_key_cannot_follow_is_told(text):
    inside = f"def f():\n    {text}" if text.startswith("from .") else text
    (told,) = forbidden(ast.parse(inside).body)
    assert FORBIDDEN[text] in told


def test_nothing_is_there_that_a_key_cannot_follow():
    """In no module of the packages, and in no cell."""
    foreign = "func.overloadpacket.__name__"  # what PyTorch calls its own
    for package in keys.PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            outside = path.parent.name == "press"  # tools, which no chapter reaches
            told = [] if outside else forbidden(ast.parse(path.read_text()).body)
            assert [one for one in told if foreign not in one] == [], path
    for name, cells in CHAPTERS.items():
        body = [one for cell in cells for one in ast.parse(keys.plain(cell)).body]
        told = forbidden(body, is_module=False)
        assert [one for one in told if foreign not in one] == [], name


def test_no_chapter_reaches_the_tools(before):
    """That run and render: what they import by computed names is of no key."""
    for got in before.values():
        assert not [str(one) for one in got.numbers if ".press." in str(one)]


if __name__ == "__main__":  # which Python agrees with which
    print(sys.version, {name: got.key() for name, got in all_reached(ROOT).items()})
