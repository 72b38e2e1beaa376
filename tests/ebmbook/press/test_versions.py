"""The site: a folder for each release, and the choice of versions on a page."""

import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest
from scripts import evaluate

from ebmbook.press import versions
from ebmbook.press.notebooks import BOOK, ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGE = """\
<!doctype html><html lang="en"><title>{tag}</title>
<script defer src="../_static/versions.js"></script>
<a class="navbar-brand" href="x">The book</a>
"""


def keep(folder: Path, tag: str, **files: str) -> Path:
    """The zip of a release, and its sums."""
    files = {"index.html": f"this is {tag}"} | files
    path = folder / f"small-book-{tag}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"small-book-{tag}/{name}", text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = ("0" * 64 + "  small.whl\n", f"{digest}  {path.name}\n")
    (folder / f"small-{tag}.sha256").write_text("".join(lines))
    return path


@pytest.fixture
def releases(tmp_path) -> Path:
    folder = tmp_path / "releases"
    folder.mkdir()
    for tag in ("v0.9.0", "v0.10.0", "v0.2.0"):
        keep(folder, tag, **{"llms.txt": f"of {tag}", "book/a.html": tag})
    return folder


def test_a_folder_each_and_the_newest_twice(releases, tmp_path):
    keep(releases, "v0.11.0rc1")
    (releases / "other.zip").write_text("of something else")
    target = tmp_path / "site"
    (target / "v0.0.1").mkdir(parents=True)
    tags = versions.lay_out(releases, target)
    assert tags == ["v0.11.0rc1", "v0.10.0", "v0.9.0", "v0.2.0"]
    assert sorted(path.name for path in target.iterdir()) == sorted(
        [*tags, "latest", "versions.json", "index.html", "llms.txt", ".nojekyll"]
    )
    # A candidate is not what one who asks for the newest means.
    assert (target / "latest/index.html").read_text() == "this is v0.10.0"
    assert (target / "v0.2.0/book/a.html").read_text() == "v0.2.0"
    assert (target / "llms.txt").read_text() == "of v0.10.0"
    assert json.loads((target / "versions.json").read_text()) == {
        "latest": "v0.10.0", "versions": tags
    }  # fmt: skip
    assert 'url=latest/"' in (target / "index.html").read_text()


def test_a_candidate_alone_is_the_newest(tmp_path):
    keep(tmp_path, "v0.1.0rc1")
    versions.lay_out(tmp_path, tmp_path / "site")
    assert (tmp_path / "site/latest/index.html").read_text() == "this is v0.1.0rc1"


def test_the_site_keeps_the_newest_few(tmp_path):
    for i in range(versions.MOST + 3):
        keep(tmp_path, f"v0.{i}.0")
    tags = versions.lay_out(tmp_path, tmp_path / "site")
    assert len(tags) == versions.MOST and tags[-1] == "v0.3.0"
    assert not (tmp_path / "site/v0.2.0").exists()


def broken(releases: Path, how: str) -> None:
    """Do something to the release 0.9.0."""
    path, sums = releases / "small-book-v0.9.0.zip", releases / "small-v0.9.0.sha256"
    if how == "altered":
        path.write_bytes(path.read_bytes() + b"x")
    elif how == "no sums":
        sums.unlink()
    elif how == "not in its sums":
        sums.write_text("0" * 64 + "  small.whl\n")
    elif how == "leads out":
        keep(releases, "v0.9.0", **{"../../out.html": "x"})


@pytest.mark.parametrize("how", ["altered", "no sums", "not in its sums", "leads out"])
def test_what_is_not_as_it_was_released_is_not_shown(releases, tmp_path, how):
    broken(releases, how)
    command = [sys.executable, "-S", "-m", "ebmbook.press.versions", releases, tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "v0.9.0" in line and not (tmp_path / "out.html").exists()


def test_without_a_release_there_is_no_site(tmp_path):
    with pytest.raises(ValueError, match="no zip of a release"):
        versions.lay_out(tmp_path, tmp_path / "site")


def test_it_needs_nothing_but_python(releases, tmp_path):
    """The workflow's last job installs nothing: `-S` leaves out all that is installed."""
    command = [sys.executable, "-S", "-m", "ebmbook.press.versions", releases, tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "v0.10.0 v0.9.0 v0.2.0\n"), done.stderr


@pytest.mark.parametrize(
    "path, place",
    [
        ("/some/v0.9.0/book/a.html", ["/some/", "v0.9.0", "book/a.html"]),
        ("/latest/", ["/", "latest", ""]),
        ("/some/book/a.html", None),
        ("/some/vision/a.html", None),
        ("/latest", None),
    ],
)
def test_a_page_knows_its_version(path, place):
    found = evaluate("../versions", f"laws.placeOf({json.dumps(path)})")
    assert found == (place and dict(zip(("root", "version", "page"), place, strict=True)))


def test_what_can_be_chosen():
    told = {"latest": "v0.10.0", "versions": ["v0.11.0rc1", "v0.10.0"]}
    found = evaluate("../versions", f"laws.choices({json.dumps(told)})")
    assert found == [
        ["latest", "latest (v0.10.0)"], ["v0.11.0rc1", "v0.11.0rc1"], ["v0.10.0", "v0.10.0"]
    ]  # fmt: skip


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Without a line for each request."""

    def log_message(self, *args):
        pass


def shown(address: str, profile: Path) -> str:
    """A page in a browser, after its scripts."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               f"--user-data-dir={profile}", "--virtual-time-budget=5000", address]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_switch(tmp_path):
    """Beside the title on a site with versions; nothing elsewhere, nor from the disk."""
    script = (BOOK / "_static/versions.js").read_text()
    for tag in ("v0.9.0", "v0.10.0"):
        keep(tmp_path, tag, **{"book/a.html": PAGE.format(tag=tag), "_static/versions.js": script})
    site = tmp_path / "site"
    versions.lay_out(tmp_path, site)
    shutil.copytree(site / "latest", site / "preview")
    handler = partial(Quiet, directory=site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        page = shown(f"{address}/v0.9.0/book/a.html", tmp_path / "one")
        assert page.count("<select") == 1 and 'aria-label="Version of the book"' in page
        assert page.index("navbar-brand") < page.index("<select")
        names = [part.partition("<")[0].rpartition(">")[2] for part in page.split("<option")[1:]]
        assert names == ["latest (v0.10.0)", "v0.10.0", "v0.9.0"]
        assert "<select" not in shown(f"{address}/preview/book/a.html", tmp_path / "two")
    finally:
        server.shutdown()
        server.server_close()
    assert "<select" not in shown((site / "v0.9.0/book/a.html").as_uri(), tmp_path / "three")
