"""Tables that a cell makes."""

import pytest

from ebmbook import tables


def test_rows_become_markdown():
    rows = {"one": {"a": 1, "b": "x"}, "two": {"a": 2.5, "b": ""}}
    assert tables.markdown(rows, "name").splitlines() == [
        "| name | a | b |",
        "| --- | --- | --- |",
        "| one | 1 | x |",
        "| two | 2.5 |  |",
    ]


@pytest.mark.parametrize("rows", [{}, {"one": {"a": 1}, "two": {"b": 1}}])
def test_rows_of_other_columns_are_refused(rows):
    with pytest.raises(ValueError, match="rows: expected"):
        tables.markdown(rows)
