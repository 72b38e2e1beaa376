"""Where a page tells a measure, in which words, and which code measured it."""

import nbformat
import pytest

from ebmbook.claims import Measure
from ebmbook.press import told

INTRO = """\
# A page, with $z$

````{admonition} In short
It is {glue:text}`fit/error`.

# not a heading
````

Before any section stands {glue:text}`fit/early`.
"""
BODY = """\
(label)=
## First

It falls to {glue:text}`fit/error`, as the formula of Smith et al. Says so. (Then it stays at
{glue:text}`fit/early`.) A *slope of {glue:text}`fit/slope`. It is steep*, and $a. B = 1$ holds.

% holds: fit/error 0..1

- an item with {glue:text}`fit/listed`;
- another.

| law | error | slope |
|---|---|---|
| wide | {glue:text}`table/wide` | {glue:text}`table/steep` |
"""
LAST = """\
### Below

The [third](other.md) is {glue:text}`late/third`.

## What to remember

The late one is {glue:text}`late/third`.

### Within it

And here {glue:text}`late/only`.

## After

And {glue:text}`late/only`.
"""
FIGURE = {"figure": {"name": "fig-one", "caption": "It shows {glue:text}`late/shown` here."}}
NAMES = [
    "fit/error",
    "fit/early",
    "fit/slope",
    "fit/listed",
    "table/wide",
    "table/steep",
    "late/third",
    "late/only",
    "late/shown",
    "late/untold",
]
MEASURES = {name: Measure(float(i)) for i, name in enumerate(NAMES)}


def code(source: str, *measures: str, **metadata) -> nbformat.NotebookNode:
    outputs = [
        nbformat.v4.new_output("display_data", metadata={"scrapbook": {"name": name}})
        for name in measures
    ]
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata=metadata)


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    """Cells 0, 2 and 6 are prose."""
    return nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(INTRO),
            code("from ebmbook import ledger, plots\nfrom ebmbook.lab import rooms\n"
                 "from ebmref import energies\nfrom ebmref.energies import Gaussian as Law"),
            nbformat.v4.new_markdown_cell(BODY),
            code("law = energies.double_well(2)\nx = rooms.signed(law)"),
            code("law = Law(0, 1)"),
            code("x = energies.Box(x, law)\nledger.enter('fit', x)", "fit/error", "late/only"),
            nbformat.v4.new_markdown_cell(LAST),
            code("%matplotlib inline\nplots.show(fig)", "late/third", mystnb=FIGURE),
            code("this is no Python", "late/untold"),
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(notebook) -> dict[str, told.Told]:
    return told.told(notebook, MEASURES)


def test_headings_are_those_of_the_page(notebook):
    """What looks like one in a box is none."""
    wanted = ["A page, with $z$", "First", "Below", "What to remember", "Within it", "After"]
    assert told.headings(notebook) == wanted


@pytest.mark.parametrize(
    "name, heading, words",
    [
        ("fit/error", 1, "It falls to 0, as the formula of Smith et al. Says so."),
        ("fit/early", 1, "(Then it stays at 1.)"),
        ("fit/slope", 1, "A slope of 2."),
        ("fit/listed", 1, "an item with 3;"),
        ("table/wide", 1, "wide, error: 4"),
        ("table/steep", 1, "wide, slope: 5"),
        ("late/third", 2, "The third is 6."),
        ("late/only", 5, "And 7."),
        ("late/shown", 0, ""),
    ],
)
def test_the_first_sentence_behind_the_box_tells_it(found, name, heading, words):
    """Sections that repeat come last, and so does what stands before any section."""
    assert (found[name].heading, found[name].words) == (heading, words)


def test_what_no_words_tell_is_where_it_is_entered(found):
    assert (found["late/untold"].heading, found["late/untold"].words) == (5, "")


def test_sentences_are_not_cut_in_a_formula():
    assert told._sentences("As $a. B = 1$ says. So. *It.* Is *cut. Here now.") == [
        "As $a. B = 1$ says.",
        "So.",
        "It. Is cut.",
        "Here now.",
    ]


def test_the_figure_is_the_captions_the_cells_or_the_sections(found):
    assert found["late/shown"].figure == "fig-one"
    assert found["late/third"].figure == "fig-one"
    assert found["late/only"].figure == "fig-one"
    assert found["fit/error"].figure == ""


def test_the_cell_is_the_one_that_entered_it(found):
    assert found["fit/error"].cell == 5 and found["late/untold"].cell == 8
    assert found["table/wide"].cell is None and found["table/wide"].functions == ()


def test_functions_are_of_the_cell_and_of_what_it_takes(found):
    """Those of the laboratory first; a helper that shows or enters numbers is none."""
    wanted = (("ebmbook.lab.rooms", "signed"), ("ebmref.energies", "Box"),
              ("ebmref.energies", "Gaussian"), ("ebmref.energies", "double_well"))  # fmt: skip
    assert found["fit/error"].functions == wanted
    assert found["late/third"].functions == () == found["late/untold"].functions


def test_a_name_is_of_the_last_cell_that_bound_it():
    """An earlier one of the same name made something else."""
    cells = [
        code("from ebmbook import ledger\nfrom ebmref import energies"),
        code("law = energies.double_well(2)"),
        code("law = energies.Gaussian(0, 1)"),
        code("ledger.enter('fit', law)", "fit/error"),
    ]
    found = told.told(nbformat.v4.new_notebook(cells=cells), MEASURES, ["fit/error"])
    assert found["fit/error"].functions == (("ebmref.energies", "Gaussian"),)


def test_only_what_is_wanted_is_told(notebook):
    assert list(told.told(notebook, MEASURES, ["fit/error"])) == ["fit/error"]
