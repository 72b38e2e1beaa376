"""Links out of the book, held against a server of this test's own."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ebmbook.press import links
from ebmbook.press.notebooks import BookError


class Handler(BaseHTTPRequestHandler):
    """/200 is there, /404 is not; /head answers a question for the whole alone."""

    def answer(self):
        code = int(self.path[1:4]) if self.path[1:4].isdigit() else 200
        if self.path == "/head":
            code = 405 if self.command == "HEAD" else 200
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = answer

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def pages(folder, **found: str):
    for name, link in found.items():
        (folder / f"{name}.html").write_text(f'<p><a class="x" href="{link}">there</a></p>')
    return folder


def test_what_is_gone_is_told_with_its_pages(server, tmp_path):
    html = pages(
        tmp_path, a=f"{server}/200", b=f"{server}/404#place", c=f"{server}/410",
        d=f"{server}/404", e=f"{server}/503", f=f"{server}/head", g="other.html",
        h=f"{server}/404/ours?a=1&amp;b=2",
    )  # fmt: skip
    found = links.check(html, ("", f"{server}/404/ours"))
    assert [(one.address, one.said, one.gone, one.pages) for one in found] == [
        (f"{server}/404", "404", True, ("b.html", "d.html")),
        (f"{server}/410", "410", True, ("c.html",)),
        # A server that is down for a day is no fault of the book.
        (f"{server}/503", "503", False, ("e.html",)),
    ]


def test_all_is_well(server, tmp_path):
    assert links.check(pages(tmp_path, a=f"{server}/200")) == []
    (tmp_path / "inside").mkdir()
    assert links.check(pages(tmp_path / "inside", b="other.html")) == []


def test_without_a_network_no_link_is_called_gone(tmp_path):
    html = pages(tmp_path, a="http://no-such-host.invalid/x", b="http://127.0.0.1:9/x")
    with pytest.raises(BookError, match="none of 2 links answers"):
        links.check(html)


def test_a_host_without_a_name_is_gone(server, tmp_path):
    html = pages(tmp_path, a="http://no-such-host.invalid/x", b=f"{server}/200")
    (one,) = links.check(html)
    assert one.gone and one.pages == ("a.html",)
