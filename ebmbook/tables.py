"""A table on the page, made by a cell: rows by name, each with the same columns."""

from collections.abc import Mapping


def markdown(rows: Mapping[str, Mapping[str, object]], corner: str = "") -> str:
    """Rows as a table in Markdown.

    Args:
        rows: by the name that stands before them; each by the heads of its columns.
        corner: the head of the names.

    Raises:
        ValueError: no rows, or one whose columns are others than the first one's.
    """
    if not rows:
        raise ValueError("rows: expected one or more")
    heads = list(next(iter(rows.values())))
    for name, row in rows.items():
        if list(row) != heads:
            raise ValueError(f"rows: expected the columns {heads} of {name!r}; got {list(row)}")
    lines = [[corner, *heads], ["---"] * (1 + len(heads))]
    lines += [[name, *map(str, row.values())] for name, row in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def show(rows: Mapping[str, Mapping[str, object]], corner: str = "") -> None:
    """Display the table, see `markdown`."""
    from IPython.display import Markdown, display

    display(Markdown(markdown(rows, corner)))
