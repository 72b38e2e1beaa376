"""Small books as fixtures, see `support/books.py`; and how examples are drawn."""

import shutil
from pathlib import Path

import pytest
from books import STAND_IN, Book, make_book
from hypothesis import settings

# The same examples in every run: one that fails does so for whoever runs it next.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def book(tmp_path) -> Book:
    """A fresh small book; nothing run yet."""
    return make_book(tmp_path / "small")


@pytest.fixture
def dry_book(book) -> Book:
    """A fresh small book whose chapters are not executed, for tests of all that is around that:
    in place of a kernel, the Python in the environment's INSTEAD, and results without measures."""
    (book.root / "ebmbook" / "press" / "execute.py").write_text(STAND_IN)
    return book


@pytest.fixture(scope="session")
def recorded_book(tmp_path_factory) -> Book:
    """A small book with its records made; do not change it, take a `copy_of_recorded`."""
    book = make_book(tmp_path_factory.mktemp("recorded") / "small")
    done = book.call("record", "--profile", "full", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    return book


@pytest.fixture(scope="session")
def judged_book(recorded_book, tmp_path_factory) -> Book:
    """A small book with its records and its quick runs; do not change it."""
    root = tmp_path_factory.mktemp("judged") / "small"
    book = Book(Path(shutil.copytree(recorded_book.root, root)))
    done = book.call("run", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    return book


@pytest.fixture
def copy_of_judged(judged_book, tmp_path) -> Book:
    """A small book with its records and its quick runs, yours to break."""
    return Book(Path(shutil.copytree(judged_book.root, tmp_path / "copy")))


@pytest.fixture
def copy_of_recorded(recorded_book, tmp_path) -> Book:
    """A small book with its records made, yours to break."""
    return Book(Path(shutil.copytree(recorded_book.root, tmp_path / "copy")))
