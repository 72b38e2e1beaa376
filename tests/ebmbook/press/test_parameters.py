"""A text on the command line means what the parameter's default is, or is refused in a line."""

import os
import subprocess
from pathlib import Path

import pytest

from ebmbook.press import notebooks, parameters
from ebmbook.press.notebooks import RUNS, BookError
from ebmbook.press.variants import Variant

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "text, found",
    [
        ("", {}),
        ("n=7", {"n": "7"}),
        (" n=7  rate=1e-3 ", {"n": "7", "rate": "1e-3"}),
        ("n=[1, 2] m=3", {"n": "[1, 2]", "m": "3"}),
        ("dataset=a b n=3", {"dataset": "a b", "n": "3"}),
        ('dataset="a n=3" n=4', {"dataset": "a n=3", "n": "4"}),
        ("dataset='a b'", {"dataset": "a b"}),
        ("dataset='a' 'b'", {"dataset": "'a' 'b'"}),
        ("dataset=", {"dataset": ""}),
        ("dataset=a=b n=1", {"dataset": "a=b", "n": "1"}),
        ("dataset=a #b", {"dataset": "a #b"}),
        ("dataset=it's", {"dataset": "it's"}),
        ("größe=1\nn=2", {"größe": "1", "n": "2"}),
    ],
)
def test_split(text, found):
    """A value ends where the next name begins, and quotes hold it together."""
    assert parameters.split(text) == found


@pytest.mark.parametrize("text", ["colour", "=3", "2n=3", "a-b=3", "a b=3", "n = 3"])
def test_no_pairs(text):
    with pytest.raises(BookError, match="a parameter is NAME=VALUE; got "):
        parameters.split(text)


@pytest.mark.parametrize(
    "text, default, value",
    [
        ("010", 5, 10),
        ("-3", 5, -3),
        ("1e-3", 0.1, 1e-3),
        ("3", 0.1, 3.0),
        ("True", False, True),
        ("false", True, False),
        ("12:30:45", "x", "12:30:45"),
        ("010", "x", "010"),
        ("1e-3", "x", "1e-3"),
        ("[1,", "x", "[1,"),
        ("None", "x", "None"),
        ("", "x", ""),
        ("[1, 2]", [0], [1, 2]),
        ("(1, 2)", (0,), (1, 2)),
        ("1e-3", None, 1e-3),
        ("010", None, 10),
        ("12:30:45", None, "12:30:45"),
        ("2020-01-01", None, "2020-01-01"),
        ("a #b", None, "a #b"),
        ("@x", None, "@x"),
        ("yes", None, "yes"),
        ("true", None, True),
        ("nan", None, "nan"),
        ("None", None, None),
        ("", None, None),
        ("[1, 2]", None, [1, 2]),
        ("{'a': 1}", None, {"a": 1}),
        ("cifar10", None, "cifar10"),
    ],
)
def test_the_default_decides(text, default, value):
    got = parameters.value_of("n", text, default)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    "text, default, words",
    [
        ("1e3", 5, "a whole number, as in 5; got '1e3'"),
        ("12:30:45", 5, "a whole number"),
        ("True", 5, "a whole number"),
        ("", 5, "a whole number"),
        ("x", 0.1, "a number, as in 0.1"),
        ("nan", 0.1, "a number"),
        ("inf", 0.1, "a number"),
        ("1", False, "true or false"),
        ("[1,", [0], "a list"),
        ("3", [0], "a list"),
        ("__import__('os')", [0], "a list"),
        ("[1,", None, "a whole list or dict"),
        ("[" * 150, None, "a whole list or dict"),
        ("x" * 300, "x", "at most 200 characters; got 300"),
    ],
)
def test_refused_in_a_line(text, default, words):
    with pytest.raises(BookError, match=r"^n: expected ") as error:
        parameters.value_of("n", text, default)
    assert words in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["-1", "1.5", "x"])
def test_a_seed_is_a_whole_number(text):
    with pytest.raises(BookError, match="seed: expected a whole number >= 0"):
        parameters.value_of("seed", text, 0)


def test_of_the_chapters(monkeypatch):
    """Each must have it, and mean the same by it."""
    defaults = {"one": {"seed": 0, "n": 5}, "two": {"seed": 0, "n": None}, "three": {"n": "x"}}
    monkeypatch.setattr(notebooks, "parameters", defaults.get)
    assert parameters.parse(["one", "two"], {"n": "7", "seed": "3"}) == {"n": 7, "seed": 3}
    with pytest.raises(BookError, match="n: chapters take it differently"):
        parameters.parse(["one", "three"], {"n": "7"})
    with pytest.raises(BookError, match="three: no parameter 'seed'; it has n"):
        parameters.parse(["one", "three"], {"seed": "7"})
    with pytest.raises(BookError, match=r"profile: set it with PROFILE="):
        parameters.parse(["one"], {"profile": "full"})


def test_every_value_has_a_folder_of_its_own():
    """A plain one reads as it is; none leaves the folder of runs, or is too long for a name."""
    assert Variant("quick", {"seed": 3}).folder == RUNS / "quick-seed-3"
    values = ["a/b", "a_b", "a b", "../../x", "x" * 200, "x" * 199, "a\nb", "größe", "", [1, 2]]
    folders = [Variant("quick", {"n": value}).folder for value in values]
    assert len(set(folders)) == len(values)
    for folder in folders:
        assert folder.parent == RUNS and len(folder.name.encode()) < 200


def test_make_hands_them_over_whole():
    """Spaces, quotes and brackets arrive as they were given."""
    given = "n=[1, 2] dataset=\"a b\" other='c'"
    show = "include Makefile\nshow:\n\t@printf '%s\\n' $(GIVEN)\n"
    environment = {name: got for name, got in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "-s", "-f", "-", "show", f"PARAMS={given}", "SEED=3", "PROFILE=full"],
        cwd=ROOT, env=environment, input=show, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["--profile", "full", "--seed", "3", "--parameter", given]
