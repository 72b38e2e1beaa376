"""Listings of the modules that a page points at, and an anchor for each cell of code.

`code/<module>.html#name` shows a definition where it stands in its file; a chapter's `#cell-7` is
its cell of that number, folded or not.
"""

import ast
import html
from collections.abc import Iterator

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from ebmbook.keys.definitions import Sources
from ebmbook.press.notebooks import ROOT


def page_of(module: str) -> str:
    """The name of a module's page."""
    return f"code/{module}"


def ask_for(env, module: str) -> str:
    """Have a listing of a module made; returns the name of its page."""
    if not hasattr(env, "listed_modules"):
        env.listed_modules = set()
    env.listed_modules.add(module)
    return page_of(module)


def listing(text: str) -> str:
    """Python source as HTML, each definition at the top level with its name as an anchor."""
    shown = highlight(text, PythonLexer(), HtmlFormatter(nowrap=True)).splitlines()
    # The formatter drops blank lines at the beginning, and nothing else.
    shown = [""] * (len(text.rstrip("\n").splitlines()) - len(shown)) + shown
    for name, line in definitions(text):
        shown[line - 1] = f'<span id="{html.escape(name)}">{shown[line - 1]}</span>'
    return '<div class="highlight code-page"><pre>{}\n</pre></div>'.format("\n".join(shown))


def definitions(text: str) -> Iterator[tuple[str, int]]:
    """The functions and classes at the top level, each with its first line."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, min([node.lineno, *(one.lineno for one in node.decorator_list)])


def pages(app) -> Iterator[tuple[str, dict, str]]:
    """The listings asked for."""
    sources = Sources(ROOT)
    for module in sorted(getattr(app.env, "listed_modules", ())):
        if path := sources.path(module):
            inside = path.relative_to(ROOT).as_posix()
            body = f"<h1>{html.escape(inside)}</h1>{listing(path.read_text(encoding='utf-8'))}"
            yield page_of(module), {"title": inside, "body": body}, "page.html"


def name_cells(app, doctree: nodes.document) -> None:
    """Give each cell of code its anchor."""
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "cell_code" and "cell_index" in node:
            node["ids"].append(f"cell-{node['cell_index']}")


def merge(app, env, docnames, other) -> None:
    """Of pages that were read by another process."""
    env.listed_modules = getattr(env, "listed_modules", set()) | getattr(
        other, "listed_modules", set()
    )


def setup(app):
    """Register with Sphinx."""
    app.connect("doctree-read", name_cells)
    app.connect("env-merge-info", merge)
    app.connect("html-collect-pages", pages)
    return {"version": "1", "parallel_read_safe": True}
