"""The recipes, as somebody copies them: alone, without the book, and true of their exact values."""

import ast
import re

import pytest

from ebmbook.press import notebooks

NUMBER = re.compile(r"(-?[\d.]+) ± ([\d.]+)")
# What each prints last is held against, and how many of its errors it may be off.
EXACT = {
    "recipe-sample": (0.5, 4),
    "recipe-check": (1, None),
    "recipe-log-z": (1.8379, 4),
    "recipe-gan": (2, 10),  # the discriminator has an error of its own
    "recipe-train": (0, None),
}


def recipes() -> dict[str, list[str]]:
    """The cells that a reader sees, by the label of the section."""
    found: dict[str, list[str]] = {}
    label = ""
    for cell in notebooks.draft("recipes").cells:
        if cell.cell_type == "markdown":
            label = (re.findall(r"^\((recipe-[\w-]+)\)=$", cell.source, re.M) or [label])[-1]
        elif label and not {"hide-input", "nbval-check-output"} & {*cell.metadata.get("tags", [])}:
            found.setdefault(label, []).append(cell.source)
    return found


RECIPES = recipes()


def test_there_are_five():
    assert [*RECIPES] == [*EXACT]


@pytest.mark.parametrize("name", EXACT)
class TestRecipe:
    def test_it_begins_with_what_is_the_readers_and_is_short(self, name):
        cells = RECIPES[name]
        assert max(len(cell.splitlines()) for cell in cells) <= 25
        assert "# yours" in cells[0] and "ebmref" not in cells[0]
        imported = {
            alias.name if isinstance(node, ast.Import) else node.module
            for cell in cells
            for node in ast.walk(ast.parse(cell))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert "ebmref" in imported and imported <= {"ebmref", "torch", "math"}

    def test_it_runs_alone_and_meets_the_exact_value(self, name, capsys):
        exec("\n".join(RECIPES[name]), {"__name__": "__main__"})
        printed = capsys.readouterr().out
        assert "exact" in printed
        value, error = map(float, NUMBER.findall(printed)[-1])
        exact, errors = EXACT[name]
        if errors is not None:
            assert abs(value - exact) <= errors * error
        elif name == "recipe-check":  # the last is the broken one
            assert value + 20 * error < exact
            right, its = map(float, NUMBER.findall(printed)[0])
            assert abs(right - exact) <= 4 * its
        else:
            assert -4 * error < value < 0.02
