"""The reference of the package: every public name once, nothing private, no raw markup, and links
from each name to the cells that use it and back."""

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ebmbook.press import api, notebooks

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "book/api").glob("*.md"))
PACKAGE = api.Package(ROOT)
CONF = """\
import sys
sys.path.append({ext!r})
extensions = ["myst_parser", "code_pages", "api_pages"]
root_doc = "index"
"""


def defined() -> Counter:
    """Names at the top level of each module, without underscore, told by the syntax alone."""
    found = Counter()
    for path in (ROOT / "ebmref").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                names = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [
                    one.id
                    for target in targets
                    for one in ast.walk(target)
                    if isinstance(one, ast.Name)
                ]
            else:
                continue
            found.update(f"{module}.{name}" for name in {*names} if not name.startswith("_"))
    return found


class Text(HTMLParser):
    """The ids of signatures, all ids, all links, and the words outside of code."""

    def __init__(self, html: str):
        super().__init__()
        self.signatures, self.ids, self.links, self.words = [], set(), [], []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag == "dt" and "sig-object" in given.get("class", ""):
            self.signatures.append(given.get("id"))
        if tag == "a":
            self.links.append(given.get("href"))
        if tag in ("pre", "code", "script", "style", "dt"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and tag == self.open[-1]:
            self.open.pop()

    def handle_data(self, data):
        if not self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The pages of the reference, with stubs of the chapters; warnings are errors."""
    root = tmp_path_factory.mktemp("api")
    (root / "conf.py").write_text(CONF.format(ext=str(ROOT / "book/_ext")))
    (root / "book/api").mkdir(parents=True)
    for page in PAGES:
        (root / "book/api" / page.name).write_text(page.read_text())
    for chapter in notebooks.chapters():
        (root / f"book/{chapter}.ipynb").symlink_to(notebooks.record_path(chapter))
        (root / f"book/{chapter}.md").write_text(f"({chapter})=\n# {chapter}\n")
    index = "# Index\n\n```{toctree}\n:glob:\n\nbook/*\nbook/api/*\n```\n"
    (root / "index.md").write_text(index)
    command = [sys.executable, "-m", "sphinx", "-qnW", "--keep-going", "-b", "html", root]
    done = subprocess.run(
        [*command, root / "html"],
        env=os.environ | {"PYTHONPATH": notebooks.python_path(), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return root / "html"


@pytest.fixture(scope="module")
def pages(built) -> dict[str, Text]:
    found = (built / "book/api").glob("*.html")
    return {path.stem: Text(path.read_text()) for path in found}


def test_every_public_name_has_one_place():
    """What is listed is what the modules define, told twice."""
    assert {f"{one.module}.{one.name}" for one in PACKAGE.all.values()} == {*defined()}
    listed = Counter(
        line
        for page in PAGES
        for block in re.findall(r"```\{api\}\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.split()
    )
    assert listed == Counter(PACKAGE.modules)


def test_every_public_name_is_shown_once(pages):
    shown = Counter(one for page in pages.values() for one in page.signatures if one in PACKAGE.all)
    assert shown == Counter([*PACKAGE.all])
    every = [one for page in pages.values() for one in page.signatures]
    assert max(Counter(every).values()) == 1
    assert [one for one in every if any(part.startswith("_") for part in one.split("."))] == []


def test_what_is_listed_is_what_a_reader_imports():
    import importlib

    for path, name in PACKAGE.all.items():
        home, _, own = path.rpartition(".")
        assert getattr(importlib.import_module(home), own, None) is not None, path
        assert bool(name.package) == (name.package == home)


def test_no_markup_is_left_raw(pages):
    for name, page in pages.items():
        words = " ".join(page.words)
        assert (
            re.findall(r"`+|:py:\w+:|(?<!\w)(?:Args|Raises|Returns|Attributes):\s*\n", words) == []
        ), name


def test_links_lead_to_cells_and_to_lines(built, pages):
    """Each name to the first cell of each chapter that names it, and to its definition."""
    paths = {one: notebooks.record_path(one) for one in notebooks.chapters()}
    used = PACKAGE.used({one: notebooks.read(path) for one, path in paths.items()})
    assert used["ebmref.samplers.mala"].cells["mcmc"] > 0
    links = {link for page in pages.values() for link in page.links if link}
    back = {
        one: Text((built / f"book/{one}.html").read_text()).links for one in notebooks.chapters()
    }
    ids = {one: Text((built / f"code/{one}.html").read_text()).ids for one in PACKAGE.modules}
    for path, uses in used.items():
        for chapter, cell in uses.cells.items():
            assert f"../{chapter}.html#cell-{cell}" in links
            here = [link for link in back[chapter] if link and link.endswith(f"#{path}")]
            assert here, (chapter, path)
        for chapter in uses.behind:
            assert f"../{chapter}.html" in links
    for name in PACKAGE.all.values():
        if name.kind != "data":
            assert f"../../code/{name.module}.html#{name.name}" in links
            assert name.name in ids[name.module]


def test_a_chapter_names_what_its_cells_name():
    """A function used in a cell, one used by the laboratory, and one in a comment alone."""
    from nbformat import v4

    cells = ["import math", "from ebmref import samplers\n# energies.Ring", "x = 1"]
    cells += ["samplers.mala(1, step_size=1)", "samplers.mala"]
    cells += ["from ebmbook.lab import warm\nwarm.train_all"]
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# T"), *map(v4.new_code_cell, cells)])
    used = PACKAGE.used({"t": notebook})
    assert used["ebmref.samplers.mala"].cells == {"t": 4}
    assert used["ebmref.energies.Ring"] == api.Uses()
    assert used["ebmref.free_energy.free_energy"].behind == ["t"]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("A `(n, d)`s and 2 * 3.", "A ``(n, d)``\\ s and 2 \\* 3."),
        ("*Lost* |x| of x_ and x_k.", "*Lost* \\|x\\| of x\\_ and x_k."),
        ("`sample`, `n`", ":py:obj:`sample <there>`, ``n``"),
        ("One:\n\n    E = a*b\n\nTwo.", "One:\n\n::\n\n    E = a*b\n\n\nTwo."),
        ("Args:\n    x: y\n\n        - z", "Args:\n    x: y\n\n        - z"),
    ],
)
def test_docstrings_become_rst(text, wanted):
    assert api.as_rst(text, {"sample": "there"}.get) == wanted


def test_a_summary_becomes_a_cell():
    assert api.as_cell("A 2*3 |x| of `(n, *event)`.") == "A 2\\*3 \\|x\\| of `(n, *event)`."


def test_a_signature_is_no_list_and_buttons_have_names(monkeypatch):
    """What axe calls serious: a `dl` of `dd` alone, and a `summary` without words."""
    from bs4 import BeautifulSoup

    monkeypatch.syspath_prepend(str(ROOT / "book/_ext"))
    import page_faults

    real = "<dl><dt>a</dt><dd>b</dd></dl>"
    body = page_faults.mended(f"(<dl>\n<dd>x,</dd>\n<dd>y,</dd>\n</dl>\n){real}")
    assert body.count("<dl>") == 1 and real in body and body.count('"sig-line"') == 2
    tree = BeautifulSoup("<details><summary><i></i></summary></details>", "html.parser")
    named = page_faults.with_names(lambda: tree)()
    assert 'summary aria-label="Pages below"' in str(named)


def test_a_name_of_a_docstring_means_what_its_module_sees():
    meant = PACKAGE.meant
    assert meant("ebmref.free_energy", "annealed_importance_sampling") == (
        "ebmref.samplers.annealed_importance_sampling"
    )
    assert meant("ebmref.data", "ebmref.samplers.kernels.mala") == "ebmref.samplers.mala"
    assert meant("ebmref.free_energy", "energy") is None
    assert meant("ebmref.free_energy", "a b") is None
