"""Mends what the theme and its extensions leave wrong on every page.

Scripts for code that runs in the browser, which no page has, and which are declared twice; ids
that an exercise shares with all others; header cells of tables with nothing in them; tables that
scroll and cannot be reached by the keyboard; buttons that are called otherwise than they read,
or by no name; signatures that are lists without terms; lists of references whose entries are no
items; pages without a description.
"""

import html
import re

from docutils import nodes

SCRIPT = re.compile(r"thebe", re.IGNORECASE)
THEBE_CONFIG = re.compile(r'<script type="text/x-thebe-config">.*?</script>', re.DOTALL)
THEBE_KERNEL = re.compile(r"<script>kernelName = .*?</script>", re.DOTALL)
SHARED_ID = re.compile(r'<section id="((?:exercise|solution)-content)">')
EMPTY_HEADER = re.compile(r"<th\b([^>]*)>\s*(?:<p>\s*</p>)?\s*</th>")
SCROLLS = re.compile(r'<div class="((?:ledger docutils|pst-scrollable-table-container)[^"]*)">')
CALLED = re.compile(r'<summary aria-label="Toggle hidden content">')
# Of a list, by its role, whose entries have another.
CITED = re.compile(r'(<div class="citation" id="[^"]*") role="doc-biblioentry"')
PARAMETERS = re.compile(r"<dl>\s*((?:<dd>(?:(?!</?d[dlt]>).)*</dd>\s*)+)</dl>", re.DOTALL)
MOST = 160  # characters that search engines show


def without_live_code(context: dict) -> None:
    """Take out what would load a kernel."""

    def is_live(asset) -> bool:
        told = f"{getattr(asset, 'filename', asset)} {getattr(asset, 'attributes', '')}"
        return bool(SCRIPT.search(told))

    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, []) if not is_live(asset)]


def mended(body: str) -> str:
    """A page's body with its faults mended."""
    body = THEBE_KERNEL.sub("", THEBE_CONFIG.sub("", body))
    body = SHARED_ID.sub(r'<section class="\1">', body)
    body = EMPTY_HEADER.sub(r"<td\1></td>", body)
    body = CALLED.sub("<summary>", body)
    body = CITED.sub(r'\1 role="listitem"', body)
    body = PARAMETERS.sub(_lines, body)
    return SCROLLS.sub(r'<div class="\1" tabindex="0">', body)


def _lines(found: re.Match) -> str:
    """The parameters of a signature, a line each, as no list."""
    lines = found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


def with_names(render):
    """The theme's table of contents, with a name for each button that unfolds a part of it."""

    def named(*args, **kwargs):
        tree = render(*args, **kwargs)
        for button in tree.find_all("summary"):
            button["aria-label"] = "Pages below"
        return tree

    return named


def description(doctree: nodes.document) -> str:
    """The first paragraph of a page, as far as it fits; "" where it has none."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) > 40:
            return text if len(text) <= MOST else text[: MOST - 3].rpartition(" ")[0] + "..."
    return ""


def mend(app, pagename, templatename, context, doctree) -> None:
    """Before a page is written."""
    without_live_code(context)
    if "body" in context:
        context["body"] = mended(context["body"])
    if "generate_toctree_html" in context:
        context["generate_toctree_html"] = with_names(context["generate_toctree_html"])
    if doctree is not None and (text := description(doctree)):
        tag = f'<meta name="description" content="{html.escape(text)}" />'
        context["metatags"] = context.get("metatags", "") + tag


def setup(app):
    """Register with Sphinx, behind the theme and its extensions."""
    app.connect("html-page-context", mend, priority=900)
    return {"version": "1", "parallel_read_safe": True}
