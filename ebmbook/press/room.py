"""How much room a formula will take, before a browser has drawn it: an estimate, in em.

Text around a formula breaks into lines by its width. With about the right one the lines stay when
the formula comes; a tenth of it more or less moves few of them.
"""

import re


def _words(text: str) -> set[str]:
    return set(text.split())


# MathJax draws letters of a page's text size larger by this.
SCALE = 1.2
SMALL = 0.71  # of sub- and superscripts
SPACES = {",": 0.17, ":": 0.22, ";": 0.28, "!": -0.17, " ": 0.25, "quad": 1.0, "qquad": 2.0}
NAMES = _words(
    "log exp cos sin tan min max sup inf arg tanh cosh sinh coth arccos arcsin lim det Pr"
)
RELATIONS = _words("= < > le ge leq geq to sim approx in notin propto ne neq ll gg mid equiv")
RELATIONS |= _words("colon mapsto rightarrow leftarrow Rightarrow implies iff mapsto subset")
BINARY = _words("+ - * pm mp cdot times odot circ cap cup wedge setminus")
WIDTHS = dict.fromkeys("()[]!|:.", 0.3) | {",": 0.44, "/": 0.5, "'": 0.28, "m": 0.88, "w": 0.72}
WIDTHS |= dict.fromkeys("ijlt", 0.36) | dict.fromkeys("ABDEFGHKMNOQRUVWXYZ", 0.76)
WIDTHS |= {"infty": 1.0, "sum": 1.22, "prod": 1.1, "int": 0.73, "partial": 0.56, "nabla": 0.83}
WIDTHS |= {"ldots": 1.2, "dots": 1.2, "cdots": 1.2, "lVert": 0.5, "rVert": 0.5, "Vert": 0.5}
USUAL = 0.54
# What changes how its argument looks, and hardly its width.
DRESSED = _words("hat bar tilde check dot ddot vec mathrm mathbf mathcal mathbb mathit text")
DRESSED |= _words("operatorname textrm textbf widehat overline boldsymbol")
NOTHING = _words("left right displaystyle textstyle limits nolimits big Big bigl bigr Bigl Bigr")
NOTHING |= {"bigg", "Bigg", "biggl", "biggr", "Biggl", "Biggr", "*"}
TOKEN = re.compile(r"\\([a-zA-Z]+|.)|(\s+)|(.)", re.DOTALL)


def width(tex: str) -> float:
    """Of a formula in a line of text."""
    tokens = [(found[1] or found[3], bool(found[1])) for found in TOKEN.finditer(tex)
              if not found[2]]  # fmt: skip
    return round(SCALE * _row(tokens), 2)


def _row(tokens: list[tuple[str, bool]]) -> float:
    total, scripts, joins = 0.0, 0.0, False
    while tokens:
        token, is_command = tokens.pop(0)
        if token in "^_" and not is_command:
            # One over the other takes no more than the wider.
            scripts = max(scripts, SMALL * _atom(tokens))
            continue
        total, scripts = total + scripts, 0.0
        tokens.insert(0, (token, is_command))
        is_sign = token in BINARY and not joins
        total += 0.78 if is_sign else 0.0
        if is_sign:
            tokens.pop(0)
        else:
            total += _atom(tokens)
        # A minus behind an operator, or at the beginning, is a sign.
        joins = token not in RELATIONS | BINARY | set("([,")
    return total + scripts


def _atom(tokens: list[tuple[str, bool]]) -> float:
    if not tokens:
        return 0.0
    token, is_command = tokens.pop(0)
    if is_command:
        return _command(token, tokens)
    if token == "{":
        return _row(_group(tokens))
    if token in RELATIONS:
        return 1.33
    if token in BINARY:
        return 1.22
    return WIDTHS.get(token, 0.5 if token.isdigit() else USUAL)


def _command(name: str, tokens: list[tuple[str, bool]]) -> float:
    if name in NOTHING:
        return 0.0
    if name in SPACES:
        return SPACES[name]
    if name in NAMES:
        return 0.5 * len(name) + 0.17
    if name in DRESSED:
        if tokens and tokens[0][0] == "*":
            tokens.pop(0)
        return _atom(tokens)
    if name == "sqrt":
        return _atom(tokens) + 0.83
    if name in ("frac", "tfrac", "dfrac", "binom"):
        return SMALL * max(_atom(tokens), _atom(tokens)) + 0.25
    if name in RELATIONS:
        return 1.33
    if name in BINARY:
        return 1.22
    if name in "{}|":
        return 0.5
    return WIDTHS.get(name, 0.0 if name in "()[]" else USUAL)


def _group(tokens: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """What stands before the brace that closes."""
    inside, depth = [], 1
    while tokens:
        token = tokens.pop(0)
        depth += {("{", False): 1, ("}", False): -1}.get(token, 0)
        if not depth:
            break
        inside.append(token)
    return inside
