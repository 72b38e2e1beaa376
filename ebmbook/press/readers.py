"""What a built site owes its readers: light pages, pictures that keep their place, short ways."""

from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

from ebmbook.press import pictures

# Bytes of a page with its pictures and its films.
MOST = 1_500_000
CLICKS = 2
ROOT_PAGE = "book/index.html"
LEDGER = "book/ledger.html"


class _Page(HTMLParser):
    """The pictures of a page and its links."""

    def __init__(self):
        super().__init__()
        self.pictures: list[dict[str, str]] = []
        self.links: set[str] = set()

    def handle_starttag(self, tag, attrs):
        given = {name: got or "" for name, got in attrs}
        # The theme's style sets the size of the icons in its buttons.
        if tag == "img" and "_static/images/" not in given.get("src", ""):
            self.pictures.append(given)
        elif tag == "a" and given.get("href"):
            self.links.add(given["href"])


def faults(html: Path, claims: Iterable[str] = ()) -> list[str]:
    """What is amiss on the pages of a site, a line each; empty when all is well.

    Args:
        claims: ids of those whose rows in the ledger are to be near the first page.
    """
    pages = {}
    for path in sorted(html.rglob("*.html")):
        if "_static" not in path.relative_to(html).parts:
            pages[path] = page = _Page()
            page.feed(path.read_text(encoding="utf-8"))
    found = []
    for path, page in pages.items():
        found += _pictures(path, page, path.relative_to(html).as_posix())
    near = _near(html, pages)
    row = f"{LEDGER}#"
    found += [f"{name}: no {CLICKS} clicks lead from {ROOT_PAGE} to its row"
              for name in claims if row + name not in near]  # fmt: skip
    return found


def weight(path: Path) -> int:
    """Bytes of a page with all of its pictures and films, loaded or not."""
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return _weight(path, page)


def _weight(path: Path, page: _Page) -> int:
    named = {given[kind] for given in page.pictures for kind in ("src", "data-film")
             if kind in given}  # fmt: skip
    files = {file for name in named if (file := _file(path, name)) is not None}
    return sum(file.stat().st_size for file in [path, *files])


def _file(page: Path, address: str) -> Path | None:
    """The file of the site that an address is of."""
    file = page.parent / unquote(urldefrag(address)[0].partition("?")[0])
    return file.resolve() if file.is_file() else None


def _pictures(path: Path, page: _Page, where: str) -> Iterator[str]:
    if (got := _weight(path, page)) > MOST:
        yield f"{where}: {got} bytes with its pictures, more than {MOST}"
    for i, given in enumerate(page.pictures):
        name = given.get("src", "")
        file = _file(path, name)
        if file is None:
            continue
        if not {"width", "height"} <= given.keys():
            yield f"{where}: {name}: says no width and height, so that the page moves"
        elif [given["width"], given["height"]] != [*map(str, pictures.size(file.read_bytes()))]:
            yield f"{where}: {name}: has another size than it says"
        if i and given.get("loading") != "lazy":
            yield f"{where}: {name}: is loaded before anybody looks"
        if pictures.is_film(file.read_bytes()):
            yield f"{where}: {name}: moves, and nobody can stop it"
        if "data-film" in given and _file(path, given["data-film"]) is None:
            yield f"{where}: {name}: its film is not there"


def _near(html: Path, pages: dict[Path, _Page]) -> set[str]:
    """Places that few clicks lead to from the first page, as `page#anchor`."""

    def places(path: Path) -> Iterator[tuple[Path, str]]:
        for link in pages[path].links:
            file = path if link.startswith("#") else _file(path, link)
            if file in known:
                yield known[file], urldefrag(link)[1]

    known = {path.resolve(): path for path in pages} | {path: path for path in pages}
    seen, at, found = set(), {html / ROOT_PAGE} & pages.keys(), set()
    for _ in range(CLICKS):
        seen |= at
        led = {place for path in at for place in places(path)}
        found |= {f"{path.relative_to(html).as_posix()}#{anchor}" for path, anchor in led}
        at = {path for path, _ in led} - seen
    return found
