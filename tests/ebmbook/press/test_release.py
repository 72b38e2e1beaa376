"""What a release keeps: made of its own files, installed from its own files."""

import email
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
import setuptools
import yaml
from books import Book, at
from installs import Environment
from packaging.requirements import Requirement

from ebmbook.press import project, release
from ebmbook.press.notebooks import ROOT, BookError

ADDRESS = "https://github.com/somebody/something"
README = """\
# It

![A picture](book/_static/cover.png)
<img src="book/one.png" alt="one">
See [this](book/x.md), [that](https://example.org/x) and [here](#it).

```sh
[not](a-link)
```
"""


@pytest.fixture(scope="module")
def released(recorded_book, tmp_path_factory) -> Book:
    """A small book in a repository of its own, with an address, tagged, rendered and released."""
    root = tmp_path_factory.mktemp("released") / "small"
    book = Book(Path(shutil.copytree(recorded_book.root, root)))
    at(root, ADDRESS)
    (root / "README.md").write_text(README)
    (root / ".gitignore").write_text("/_build/\n__pycache__/\n")
    shutil.copy(ROOT / "LICENSE", root)
    tag = project.read(root).tag
    me = ("-c", "user.name=toy", "-c", "user.email=toy@localhost")
    for command in (["init", "-q"], ["add", "-A"], [*me, "commit", "-qm", "x"], ["tag", tag]):
        subprocess.run(["git", "-C", root, *command], check=True)
    for command in (["html"], ["release", "--tag", tag]):
        done = book.call(*command)
        assert done.returncode == 0, done.stderr
    return book


@pytest.fixture(scope="module")
def made(released) -> Path:
    return released.root / "_build/release"


@pytest.fixture(scope="module")
def tag(released) -> str:
    return project.read(released.root).tag


def test_the_files_and_their_sums(made, tag):
    version = tag.removeprefix("v")
    files = [f"ebmref-{version}-py3-none-any.whl", f"ebmref-{version}.tar.gz",
             f"ebmref-book-{tag}.zip"]  # fmt: skip
    got = sorted(path.name for path in made.iterdir())
    assert got == sorted([*files, f"ebmref-{tag}.sha256", "CHANGES.md", "notebooks"])
    lines = (made / f"ebmref-{tag}.sha256").read_text().splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    assert sums == {name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in files}
    assert (made / "CHANGES.md").read_text() == "The first release.\n"


def test_the_zip_is_the_pages_and_the_same_every_time(released, made, tag, tmp_path):
    with zipfile.ZipFile(made / f"ebmref-book-{tag}.zip") as archive:
        archive.extractall(tmp_path)
        assert archive.testzip() is None
    html, unpacked = released.root / "_build/html", tmp_path / f"ebmref-book-{tag}"
    files = {path.relative_to(html) for path in html.rglob("*") if path.is_file()}
    assert Path("index.html") in files
    assert files - {Path(".buildinfo")} == {
        path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()
    }
    before = (made / f"ebmref-book-{tag}.zip").read_bytes()
    shutil.copytree(html, tmp_path / "later")  # with other times
    zips = tmp_path / "zips"
    zips.mkdir()
    code = (
        "import pathlib, sys; from ebmbook.press import project, release; "
        "release.zipped(project.read(), *map(pathlib.Path, sys.argv[1:]))"
    )
    done = released.shell(sys.executable, "-c", code, str(tmp_path / "later"), str(zips))
    assert done.returncode == 0, done.stderr
    assert (zips / f"ebmref-book-{tag}.zip").read_bytes() == before


@pytest.mark.parametrize(
    "before, since, told",
    [
        ("", "", "The first release."),
        ("v0.1.0", "", "from v0.1.0 to HEAD"),
        ("v0.1.0", "v0.0.1", "from v0.0.1 to HEAD"),
        # One whose form is another: said, and no end of all releases.
        ("v0.0.0", "", "Since v0.0.0. The ledgers cannot be compared: of old"),
    ],
)
def test_the_changelog_is_from_the_release_before(monkeypatch, before, since, told):
    def between(since, until):
        if since == "v0.0.0":
            raise BookError("of old")
        return f"from {since} to {until}\n"

    monkeypatch.setattr(release.difference, "release_before", lambda at: before)
    monkeypatch.setattr(release.difference, "between", between)
    assert release.changelog("HEAD", since) == f"{told}\n"
    with pytest.raises(BookError):
        release.changelog("HEAD", "v0.0.0")


def test_another_tag_is_refused(released):
    done = released.call("release", "--tag", "v9.9.9")
    assert done.returncode == 1 and "the tag v9.9.9 is not v" in done.stderr


def test_without_pages_there_is_no_release(released, tmp_path):
    book = Book(Path(shutil.copytree(released.root, tmp_path / "copy")))
    shutil.rmtree(book.root / "_build/html")
    done = book.call("release")
    assert done.returncode == 1 and "make html" in done.stderr


def test_the_notebooks_are_for_colab_and_binder(made, tag):
    folder = made / "notebooks"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")
                   if path.is_file())  # fmt: skip
    chapters = [f"{tag}/book/01-one.ipynb", f"{tag}/book/02-two.ipynb"]
    assert files == [".binder/environment.yml", "README.md", *chapters]
    first = nbformat.read(folder / chapters[0], as_version=4).cells[0]
    assert f'PACKAGE = "ebmref @ git+{ADDRESS}@{tag}"' in first.source


def test_binder_gets_what_the_package_needs(made):
    told = yaml.safe_load((made / "notebooks/.binder/environment.yml").read_text())
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = told["dependencies"]
    assert f"python{needed['requires-python']}" in rows and "pip" in rows
    for text in needed["dependencies"]:
        one = Requirement(text)
        name = {"torch": "pytorch-cpu"}.get(one.name, one.name)
        assert f"{name}{one.specifier}" in rows
    assert len(rows) == len(needed["dependencies"]) + 2


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Environment:
    return Environment(tmp_path_factory.mktemp("bare") / "env")


def files_of(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for name in ("ebmref", "ebmbook")
        for path in (folder / name).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_it_installs_from_its_own_files(released, made, bare, tmp_path, kind):
    """Wheel and sdist, in an empty environment without a network, with every file that is here."""
    (path,) = made.glob(f"*.{kind}")
    # The build backend of the sdist, and nothing else that is installed here.
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend/setuptools").symlink_to(Path(setuptools.__file__).parent)
    done = bare.pip(
        "install", "--no-deps", "--no-build-isolation", "--target", str(tmp_path / "site"),
        str(path), PYTHONPATH=str(tmp_path / "backend"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "site") == files_of(released.root)
    code = "import ebmref, ebmbook.ledger, importlib.metadata as m; "
    code += "print(ebmref.__file__, m.version('ebmref'))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    version = project.read(released.root).version
    where = tmp_path / "site/ebmref/__init__.py"
    assert done.stdout == f"{where} {version}\n", done.stderr


def test_the_index_gets_complete_metadata(made, tag):
    """And a description whose links lead somewhere from there."""
    (wheel,) = made.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        told = email.message_from_string(archive.read(name).decode())
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    for field in ("Name", "Version", "Summary", "Author", "License-Expression", "Keywords",
                  "Requires-Python", "Classifier", "Requires-Dist", "License-File"):  # fmt: skip
        assert told[field], field
    assert told["Project-URL"] == f"Repository, {ADDRESS}"
    assert told["Description-Content-Type"] == "text/markdown"
    words = told.get_payload()
    assert f"![A picture]({ADDRESS}/raw/{tag}/book/_static/cover.png)" in words
    assert f'<img src="{ADDRESS}/raw/{tag}/book/one.png" alt="one">' in words
    assert f"See [this]({ADDRESS}/blob/{tag}/book/x.md), [that](https://example.org/x)" in words
    assert "[here](#it)" in words and "[not](a-link)" in words
    (sdist,) = made.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "PKG-INFO", "pyproject.toml"} <= names


def test_without_an_address_the_description_has_no_dead_link(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    at(tmp_path, "")
    made = project.read(tmp_path)
    words = release.for_index(README, made)
    assert "picture" not in words and "<img" not in words
    assert "See this, [that](https://example.org/x) and [here](#it)." in words
    real = release.for_index((ROOT / "README.md").read_text(), made)
    parts = re.split(r"^```.*?^```", real, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)]+)\)|(?:src|href)=\"([^\"]+)\"", "".join(parts))
    assert [one for one in links if not re.match(r"[a-z]+:|#", "".join(one))] == []


class TestPages:
    """What the pages of a release have, and those without an address have not."""

    def page(self, book: Book, name: str) -> str:
        return (book.root / f"_build/html/book/{name}.html").read_text()

    def test_a_chapter_opens_elsewhere(self, released, tag):
        page = self.page(released, "01-one")
        colab = f"https://colab.research.google.com/github/somebody/something/blob/notebooks/{tag}"
        assert f'href="{colab}/book/01-one.ipynb"' in page
        binder = "https://mybinder.org/v2/gh/somebody/something/notebooks?labpath="
        assert f'href="{binder}{tag}%2Fbook%2F01-one.ipynb"' in page
        for name in ("01-one", "index"):
            assert f'href="{ADDRESS}"' in self.page(released, name)
            assert f'href="{ADDRESS}/issues/new/choose"' in self.page(released, name)
        assert "colab" not in self.page(released, "index")

    def test_its_addresses_are_of_the_newest_release(self, released):
        newest = "https://somebody.github.io/something/latest/"
        page = self.page(released, "01-one")
        assert f'<link rel="canonical" href="{newest}book/01-one.html"' in page
        tags = dict(re.findall(r'<meta property="([^"]*)" content="([^"]*)" />', page))
        assert tags["og:url"] == f"{newest}book/01-one.html" and tags["og:type"] == "article"
        assert tags["og:image"] == f"{newest}_static/card.png"
        assert tags["og:title"].endswith("Chapter one") and tags["og:description"]
        html = released.root / "_build/html"
        assert (html / "_static/card.png").read_bytes()[16:24] == bytes.fromhex("000004b000000276")
        pages = re.findall(r"<loc>(.*)</loc>", (html / "sitemap.xml").read_text())
        assert pages == [f"{newest}book/{name}.html" for name in ("index", "01-one", "02-two")]
        for address in pages:
            assert (html / address.removeprefix(newest)).is_file()
        # A folder of a host has no say in what robots do.
        assert not (html / "robots.txt").exists()
        told = (html / "llms.txt").read_text()
        assert f"[Chapter one]({newest}book/01-one.html): Some prose" in told

    def test_at_a_hosts_root_robots_find_the_map(self, released, tmp_path):
        """And where this commit is no release, no button leads to notebooks that are nowhere."""
        book = Book(Path(shutil.copytree(released.root, tmp_path / "copy")))
        at(book.root, "https://github.com/me/me.github.io")
        tag = project.read(book.root).tag
        subprocess.run(["git", "-C", book.root, "tag", "-d", tag], check=True, capture_output=True)
        assert book.call("html").returncode == 0
        told = (book.root / "_build/html/robots.txt").read_text()
        assert "Sitemap: https://me.github.io/sitemap.xml" in told
        page = self.page(book, "01-one")
        assert "https://github.com/me/me.github.io" in page
        assert "colab" not in page and "mybinder" not in page

    def test_without_an_address_nothing_needs_one(self, recorded_book, tmp_path):
        """No button that leads away, no address that is made up, in any page."""
        book = Book(Path(shutil.copytree(recorded_book.root, tmp_path / "copy")))
        assert book.call("html").returncode == 0
        html = book.root / "_build/html"
        for name in ("sitemap.xml", "robots.txt", "_static/card.png"):
            assert not (html / name).exists()
        for path in html.rglob("*.html"):
            page = path.read_text()
            buttons = re.findall(r'<a href="(http[^"]*)"[^>]*\n?\s*class="btn', page)
            assert buttons == [], path
            for word in ("colab", "mybinder", "OWNER", 'rel="canonical" href="http', "og:url",
                         "og:image", "github.com", "github.io"):  # fmt: skip
                assert word not in page, (path, word)
        told = (html / "llms.txt").read_text()
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", told)
        assert links and all((html / link).is_file() for link in links)

    @pytest.mark.parametrize("fixture", ["released", "recorded_book"])
    def test_programs_are_told_the_book_and_each_claim(self, request, fixture, tmp_path):
        book = request.getfixturevalue(fixture)
        if fixture == "recorded_book":
            book = Book(Path(shutil.copytree(book.root, tmp_path / "copy")))
            assert book.call("html").returncode == 0
        page = self.page(book, "index")  # which has the ledger, in a small book
        scripts = re.findall(r'<script type="application/ld\+json">(.*?)</script>', page)
        (one,), claims = (json.loads(text)["@graph"] for text in scripts)
        assert one["@type"] == "Book" and one["name"] and one["author"]
        assert ("url" in one) == (fixture == "released")
        base = "https://somebody.github.io/something/latest/book/index.html"
        base = base if fixture == "released" else ""
        found = {claim["@id"]: claim for claim in claims}
        assert set(found) == {f"{base}#{name}"
                              for name in ("claim-one", "eq-1", "claim-two", "eq-2")}  # fmt: skip
        assert {claim["@type"] for claim in claims} == {"Claim"}
        told = found[f"{base}#claim-one"]
        assert told["text"] == "The mean of $n$ draws is small."
        assert told["review"]["reviewRating"]["alternateName"] == "reproduced"
        assert "review" not in found[f"{base}#eq-1"]  # open
        for name in ("claim-one", "eq-1"):
            assert f'id="{name}"' in page


def test_no_word_of_a_claim_ends_its_script():
    sys.path.append(str(ROOT / "book/_ext"))
    import publish_page

    text = publish_page.script([{"text": "a </script><b> & {x}"}])
    assert text.count("<") == 2
    inside = text.removeprefix('<script type="application/ld+json">').removesuffix("</script>")
    assert json.loads(inside)["@graph"][0]["text"] == "a </script><b> & {x}"
    assert publish_page.plain("see {ref}`gan` and $x$") == "see gan and $x$"
