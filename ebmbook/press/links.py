"""Do the links that leave the book still lead somewhere? Links within it are held by each build.

One that is gone (404, 410, a host that no longer has a name) is a fault. One that does not answer
as asked is told and is none: many hosts refuse programs, and some are down for a day.
"""

import re
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urldefrag
from urllib.request import Request, urlopen

from ebmbook.press.notebooks import BookError

HREF = re.compile(r"""<a\b[^>]*\bhref=["'](https?://[^"']+)["']""")
GONE = {404, 410}
# Answers to a question for the head alone that say nothing of the page.
ASK_AGAIN = {400, 403, 404, 405, 406, 501}
AGENT = "Mozilla/5.0 (compatible; link check of a book)"
SIDE_BY_SIDE = 8


@dataclass(frozen=True)
class Answer:
    """What came of a link.

    Attributes:
        address: that was asked.
        said: its answer in a word or two; "" if it is as it should be.
        gone: whether nothing is there any more.
        pages: that have the link.
    """

    address: str
    said: str
    gone: bool
    pages: tuple[str, ...] = ()


def outward(html: Path, ours: Iterable[str] = ()) -> dict[str, list[str]]:
    """The pages that have each link out of the book.

    Args:
        html: folder of the pages.
        ours: beginnings of addresses that are the project's own, which a release may yet make.
    """
    ours, found = tuple(one for one in ours if one), {}
    for path in sorted(html.rglob("*.html")):
        page = path.relative_to(html)
        if "_static" in page.parts:
            continue
        for link in sorted(set(HREF.findall(path.read_text(encoding="utf-8")))):
            address = urldefrag(unescape(link)).url
            if not address.startswith(ours):
                pages = found.setdefault(address, [])
                if str(page) not in pages:
                    pages.append(str(page))
    return found


def ask(address: str, seconds: float = 20) -> Answer:
    """Whether something is at an address."""
    code = None
    for method in ("HEAD", "GET"):
        request = Request(address, headers={"User-Agent": AGENT}, method=method)
        try:
            with urlopen(request, timeout=seconds):
                return Answer(address, "", False)
        except HTTPError as error:
            code = error.code
            error.close()
            if method == "GET" or code not in ASK_AGAIN:
                break
        except URLError as error:
            nameless = isinstance(error.reason, socket.gaierror)
            return Answer(address, " ".join(str(error.reason).split()), nameless)
        except (OSError, ValueError) as error:
            return Answer(address, type(error).__name__, False)
    return Answer(address, str(code), code in GONE)


def check(html: Path, ours: Iterable[str] = ()) -> list[Answer]:
    """What is not as it should be, what is gone first.

    Raises:
        BookError: no link answers at all.
    """
    found = outward(html, ours)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        answers = [*pool.map(ask, found)]
    if answers and all(one.said and not one.said.isdigit() for one in answers):
        raise BookError(f"none of {len(answers)} links answers: is there a network?")
    told = [Answer(one.address, one.said, one.gone, tuple(found[one.address])) for one in answers]
    return sorted((one for one in told if one.said), key=lambda one: (not one.gone, one.address))
