"""Values of parameters from the command line: what a text means, the parameter's default decides.

n=7  rate=1e-3  dataset=digits  n_steps="[1, 2]"  n_games=None
"""

import ast
import math
import re
from typing import Any

from ebmbook.press import notebooks
from ebmbook.press.notebooks import BookError

# Each has a place of its own on the command line, and in a run's key.
ELSEWHERE = {"profile": "PROFILE=", "device": "DEVICE="}
MOST = 200  # characters
WORDS = {"true": True, "false": False}
# "a=1 b=x y c='z'": a value ends where the next name begins, unless it stands in quotes.
PAIR = re.compile(
    r"""\s*(?P<name>[^\s=]*)="""
    r"""(?:(?P<quote>["'])(?P<quoted>(?:(?!(?P=quote)).)*)(?P=quote)|(?P<value>.*?))"""
    r"""(?=\s+[^\W\d]\w*=|\s*$)""",
    re.DOTALL,
)


def split(text: str) -> dict[str, str]:
    """Names and values of one text with any number of them.

    Raises:
        BookError: something in it is no NAME=VALUE.
    """
    found, at = {}, 0
    while text[at:].strip():
        pair = PAIR.match(text, at)
        if pair is None or not pair["name"].isidentifier():
            raise BookError(f"a parameter is NAME=VALUE; got {_short(text[at:].strip())}")
        found[pair["name"]] = pair["value"] if pair["quote"] is None else pair["quoted"]
        at = pair.end()
    return found


def parse(chapters: list[str], given: dict[str, str]) -> dict[str, Any]:
    """The values that the chapters are to have.

    Args:
        given: texts, by parameter.

    Raises:
        BookError: a parameter that a chapter does not have, a value that is none of its kind,
            or one that means different things to two chapters.
    """
    values: dict[str, Any] = {}
    for chapter in chapters:
        defaults = notebooks.parameters(chapter)
        for name, text in given.items():
            if name in ELSEWHERE:
                raise BookError(f"{name}: set it with {ELSEWHERE[name]}, not as a parameter")
            # One that the chapter does not have would be injected and never read.
            if name not in defaults:
                raise BookError(f"{chapter}: no parameter {name!r}; it has {', '.join(defaults)}")
            value = value_of(name, text, defaults[name])
            if repr(values.setdefault(name, value)) != repr(value):
                raise BookError(f"{name}: chapters take it differently; name one with CHAPTER=")
    return values


def value_of(name: str, text: str, default: Any) -> Any:
    """What a text means for a parameter with such a default.

    A default of None takes whatever the text is: a number, a list, None, else words.

    Raises:
        BookError: the text is nothing of the kind.
    """
    if len(text) > MOST:
        raise BookError(f"{name}: expected at most {MOST} characters; got {len(text)}")
    if isinstance(default, str):
        return text
    if default is None:
        return _whatever(name, text)
    kinds = {bool: "true or false", int: "a whole number", float: "a number"}
    wanted = kinds.get(type(default), f"a {type(default).__name__}")
    value = _as_kind(text.strip(), type(default))
    if value is None or (name == "seed" and value < 0):
        least = " >= 0" if name == "seed" else ""
        raise BookError(f"{name}: expected {wanted}{least}, as in {default!r}; got {_short(text)}")
    return value


def _as_kind(text: str, kind: type) -> Any:
    """The value, or None where the text has none of the kind."""
    if kind is bool:
        return WORDS.get(text.lower())
    try:
        value = kind(text) if kind in (int, float) else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if kind is float and not math.isfinite(value):
        return None
    return value if isinstance(value, kind) else None


def _whatever(name: str, text: str) -> Any:
    plain = text.strip()
    if plain in ("", "None"):
        return None
    for kind in (int, float, bool):
        if (value := _as_kind(plain, kind)) is not None:
            return value
    if plain[0] in "[({":
        value = next((v for kind in (list, dict) if (v := _as_kind(plain, kind)) is not None), None)
        if value is None:
            raise BookError(f"{name}: expected a whole list or dict; got {_short(text)}")
        return value
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
