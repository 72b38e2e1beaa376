"""Loads the scripts of live figures, on the pages that have one.

A figure named `fig-NAME` is live if there is a `_static/live/NAME.js`; how to write one stands in
`_static/live/kit/live.js`. The page holds the recorded picture and no word of a script, so that
notebooks, paper and readers without scripts lack nothing.
"""

from pathlib import Path

from docutils import nodes

LIVE = Path(__file__).parent.parent / "_static" / "live"
KIT = ("pen.js", "live.js")  # in this order


def scripts(doctree: nodes.document) -> list[str]:
    """What the figures of a page need, in the order of loading, below `_static/`; [] for none."""
    names = {name for figure in doctree.findall(nodes.figure) for name in figure["names"]}
    live = sorted(path.name for path in LIVE.glob("*.js") if f"fig-{path.stem}" in names)
    return [f"live/kit/{name}" for name in KIT if live] + [f"live/{name}" for name in live]


def load(app, pagename, templatename, context, doctree) -> None:
    """Before a page is written: Sphinx keeps what is added here for this page alone."""
    needed = [] if doctree is None else scripts(doctree)
    for script in needed:
        app.add_js_file(script, loading_method="defer")
    if needed:
        app.add_css_file("live/kit/live.css")


def setup(app):
    """Register with Sphinx."""
    app.connect("html-page-context", load)
    return {"version": "1", "parallel_read_safe": True}
