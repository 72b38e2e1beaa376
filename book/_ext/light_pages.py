"""Pages that are quick to read: what comes late holds its place, films that wait, few icons.

A formula is drawn when the page is there, and has its room before. Each picture says its size, so
that nothing moves when it comes, and all but those at the top of a page are loaded when they are
near. A film is its last frame and, where scripts run, a player that loads the rest when it is asked
to. Of the theme's icons the pages keep those that they show.
"""

import html
import re
from pathlib import Path
from urllib.parse import unquote

from ebmbook.press import pictures
from ebmbook.press.room import width
from ebmref.files import whole, write_atomic

IMAGE = re.compile(r"<img\b[^>]*>")
SOURCE = re.compile(r'\ssrc="([^"]*)"')
SIZED = re.compile(r'\s(?:width|height|loading|decoding)="[^"]*"')
AT_ONCE = 1  # pictures at the top of a page
# A name, its size, other names, a sign and the lines of one icon or two.
ICON = re.compile(r'"?([a-z0-9-]+)"?:\[\d+,\d+,(\[[^\]]*\]),"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?')
WORD = re.compile(r"[a-z0-9-]+")
NAMED = re.compile(r"\bfa-([a-z0-9-]+)")
UNUSED_FONT = re.compile(
    r'[ \t]*<link rel="preload" as="font"[^>]*/fa-(?:brands-400|regular-400)\.woff2" />\n'
)


FORMULA = re.compile(r'<div class="math notranslate nohighlight"([^>]*)>(.*?)</div>', re.DOTALL)
INLINE = re.compile(r'<span class="math notranslate nohighlight">\\\((.*?)\\\)</span>', re.DOTALL)
TALL = re.compile(r"\\(?:[dt]?frac|int|sum|prod|binom)(?![a-zA-Z])")
AROUND, ROW, TALL_ROW = 2.4, 1.6, 2.9  # em, as drawn


def roomy(body: str) -> str:
    """A page's body with the room of its formulas.

    Of displayed ones the height, by their rows and what is tall in them; of others the width.
    """

    def mend(found: re.Match) -> str:
        rows = found[2].split(r"\\")
        room = AROUND + sum(TALL_ROW if TALL.search(row) else ROW for row in rows)
        given = f' style="min-height: {room:.1f}em"'
        return f'<div class="math notranslate nohighlight"{found[1]}{given}>{found[2]}</div>'

    def mend_inline(found: re.Match) -> str:
        room = width(html.unescape(found[1]))
        given = f' style="--room: {room}em"'
        return f'<span class="math notranslate nohighlight"{given}>\\({found[1]}\\)</span>'

    return INLINE.sub(mend_inline, FORMULA.sub(mend, body))


def sized(body: str, read) -> tuple[str, bool]:
    """A page's body with its pictures' sizes; and whether there is a film among them.

    Args:
        read: from a picture's address to its bytes; None for what is not of the book.
    """
    seen, films = 0, False

    def mend(found: re.Match) -> str:
        nonlocal seen, films
        tag = found[0]
        source = SOURCE.search(tag)
        data = read(html.unescape(source[1])) if source else None
        if data is None:
            return tag
        seen += 1
        wide, high = pictures.size(data)
        given = f' width="{wide}" height="{high}" decoding="async"'
        if seen > AT_ONCE:
            given += ' loading="lazy"'
        is_film, more = pictures.is_film(data), ""
        if is_film:
            films = True
            path = source[1].rpartition(".")[0]
            given += f' data-film="{path}.film.js"'
            more = f'<noscript><p><a href="{path}.film.png">Play the film</a></p></noscript>'
        return f"<img{given}{SIZED.sub('', tag)[4:]}{more}"

    return IMAGE.sub(mend, body), films


def mend(app, pagename, templatename, context, doctree) -> None:
    """Before a page is written."""
    if "body" not in context or app.builder.format != "html":
        return
    paths = {name: Path(app.srcdir) / source for source, name in app.builder.images.items()}

    def read(address: str) -> bytes | None:
        path = paths.get(unquote(address).rpartition("/")[2]) if "_images/" in address else None
        return None if path is None else path.read_bytes()

    context["body"], films = sized(roomy(context["body"]), read)
    if films:
        app.add_js_file("film.js", loading_method="defer")


def leave_films(folder: Path) -> None:
    """Put a still in the place of each film, and beside it the film, and as a script."""
    for path in folder.glob("*.png"):
        data = path.read_bytes()
        if not path.stem.endswith(".film") and pictures.is_film(data):
            write_atomic(path.with_suffix(".film.js"), pictures.script(path.stem, data))
            for place, text in (
                (path.with_suffix(".film.png"), data),
                (path, pictures.still(data)),
            ):
                with whole(place) as fresh:
                    fresh.write_bytes(text)


def fewer_icons(script: str, wanted: set[str]) -> str:
    """The theme's script of icons with those that are wanted alone."""

    def kept(found: re.Match) -> str:
        names = {found[1], *WORD.findall(found[2])}
        return "" if wanted.isdisjoint(names) else found[0]

    return ICON.sub(kept, script)


def lighten(app, exception) -> None:
    """When all pages are written."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    leave_films(out / "_images")
    wanted: set[str] = set()
    for path in out.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        wanted.update(NAMED.findall(text))
        if (lighter := UNUSED_FONT.sub("", text)) != text:
            path.write_text(lighter, encoding="utf-8")
    for path in [*out.glob("_static/scripts/*.js"), *out.glob("_static/*.js")]:
        wanted.update(NAMED.findall(path.read_text(encoding="utf-8")))
    for path in out.glob("_static/vendor/fontawesome/*/js/all.min.js"):
        text = path.read_text(encoding="utf-8")
        path.write_text(fewer_icons(text, wanted), encoding="utf-8")


def setup(app):
    """Register with Sphinx, before the list of scripts is closed by `page_faults`."""
    app.connect("html-page-context", mend, priority=850)
    app.connect("build-finished", lighten)
    return {"version": "1", "parallel_read_safe": True}
