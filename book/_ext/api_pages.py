"""The reference of the package, from its docstrings, and its links with the chapters.

    ```{api}            the public names of modules, a section each
    ebmref.energies
    ```
    ```{api} index      every public name, a row each, by the page that lists it

autodoc reads the docstrings and napoleon their sections; what is listed, what it is called and
which cells use it is told by `ebmbook.press.api`. At the end of each chapter stand the names that
its cells use.
"""

import posixpath
import re
from functools import lru_cache
from pathlib import Path

import code_pages
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx import addnodes

from ebmbook.press import api, notebooks
from ebmbook.press.told import headings

PAGES = "book/api/"
FENCE = "`" * 8


@lru_cache(maxsize=1)
def package() -> api.Package:
    """The package, read once."""
    return api.Package(notebooks.ROOT)


@lru_cache(maxsize=1)
def _used(paths: tuple[Path, ...], times: tuple) -> tuple[dict[str, api.Uses], dict[str, str]]:
    read = {path.stem: notebooks.read(path) for path in paths}
    titles = {name: headings(notebook)[0] for name, notebook in read.items()}
    return package().used(read), titles


def chapters(srcdir: str) -> tuple[Path, ...]:
    """The notebooks of the book in `srcdir`."""
    wanted = (Path(srcdir) / "book" / f"{name}.ipynb" for name in notebooks.chapters())
    return tuple(path for path in wanted if path.is_file())


def used(srcdir: str) -> tuple[dict[str, api.Uses], dict[str, str]]:
    """The uses of every public name in the chapters, and the chapters' titles."""
    paths = chapters(srcdir)
    return _used(paths, tuple(path.stat().st_mtime_ns for path in paths))


def groups() -> list[tuple[str, str, list[str]]]:
    """The pages of the reference in the book's order: name, title, and modules."""
    found = []
    toc = (notebooks.ROOT / "_toc.yml").read_text(encoding="utf-8")
    for page in re.findall(rf"file: {PAGES}([\w-]+)", toc):
        text = (notebooks.ROOT / PAGES / f"{page}.md").read_text(encoding="utf-8")
        listed = re.search(r"```\{api\}\n(.*?)```", text, re.DOTALL)
        if listed:
            title = re.search(r"^# (.*)$", text, re.MULTILINE)[1]
            found.append((page, title, listed[1].split()))
    return found


def in_the_book(uses: api.Uses, titles: dict[str, str]) -> list[str]:
    """The fields that lead to the chapters, for a page below `book/api`."""

    def links(places: dict[str, str]) -> str:
        short = {name: titles[name].partition(":")[0] for name in places}
        return ", ".join(f"`{short[name]} <../{name}.html{at}>`__" for name, at in places.items())

    fields = []
    if uses.cells:
        places = {name: f"#cell-{cell}" for name, cell in uses.cells.items()}
        fields.append(f":Used in: {links(places)}")
    if uses.behind:
        fields.append(f":Behind the numbers of: {links(dict.fromkeys(uses.behind, ''))}")
    return fields


class Api(Directive):
    """Lists public names."""

    optional_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        self.env = self.state.document.settings.env
        for path in chapters(self.env.srcdir):
            self.env.note_dependency(str(path.relative_to(self.env.srcdir)))
        for code in (__file__, api.__file__):
            self.env.note_dependency(code)
        if self.arguments == ["index"]:
            return self.index()
        return [self.section(module) for module in self.content if module.strip()]

    def section(self, module: str) -> nodes.section:
        """A module under its heading."""
        known = package()
        if module not in known.modules:
            raise self.error(f"api: {module!r} is no public module")
        self.env.note_dependency(str(known.sources.path(module)))
        section = nodes.section(ids=[module.replace(".", "-")], classes=["api-module"])
        section += nodes.title("", "", nodes.literal("", module))
        lines = api.as_rst(known.doc(module), _linked(module)).splitlines()
        uses, titles = used(self.env.srcdir)
        for name in known.names(module):
            lines += ["", f".. py:currentmodule:: {name.path.rpartition('.')[0]}", ""]
            if name.kind == "data":
                lines += [f".. py:data:: {name.name}"]
                lines += [f"   :value: {name.value}"] if name.value else []
                text = api.as_rst(name.doc, _linked(module)).splitlines()
                text += ["", *in_the_book(uses[name.path], titles)]
                lines += ["", *(f"   {line}".rstrip() for line in text)]
            else:
                lines.append(f".. auto{name.kind}:: {name.path}")
                if name.kind == "class":
                    lines += ["   :members:", "   :undoc-members:"]
        self.parse([f"{FENCE}{{eval-rst}}", *lines, FENCE], section)
        return section

    def index(self) -> list[nodes.section]:
        """Every public name with what it does and where it is first used, by its page."""
        uses, titles = used(self.env.srcdir)
        sections = []
        for page, title, modules in groups():
            section = nodes.section(ids=[f"group-{page}"], classes=["api-index"])
            section += nodes.title("", title)
            lines = ["| Name | is | first in |", "|---|---|---|"]
            for name in (one for module in modules for one in package().names(module)):
                found = uses[name.path]
                first = next(iter([*found.cells, *found.behind]), None)
                words = titles[first].partition(":")[0] if first else ""
                where = f"{{doc}}`{words} </book/{first}>`" if first else ""
                says = api.as_cell(name.summary)
                own = name.path.partition(".")[2]
                lines.append(f"| {{py:obj}}`{own} <{name.path}>` | {says} | {where} |")
            self.parse(lines, section)
            sections.append(section)
        return sections

    def parse(self, lines: list[str], node: nodes.Element) -> None:
        """MyST into a node."""
        self.state.nested_parse(StringList(lines, "api"), self.content_offset, node)


def _linked(module: str):
    return lambda code: package().meant(module, code)


def into_rst(app, what, name, obj, options, lines) -> None:
    """A docstring, before napoleon reads its sections."""
    module = getattr(obj, "__module__", None) or name.rpartition(".")[0]
    lines[:] = [*api.as_rst("\n".join(lines), _linked(module)).splitlines(), ""]


def with_chapters(app, what, name, obj, options, lines) -> None:
    """A docstring, behind napoleon."""
    uses, titles = used(app.srcdir)
    if name in uses:
        lines += ["", *in_the_book(uses[name], titles), ""]


def left_out(app, what, name, obj, skip, options) -> bool | None:
    """Fields are told by the docstring of their class; methods and properties are members."""
    if skip or callable(obj) or isinstance(obj, property | classmethod | staticmethod):
        return None
    return True


def link_sources(app, doctree: nodes.document) -> None:
    """Lead from each signature to the lines of code."""
    docname = app.env.docname
    if not docname.startswith(PAGES):
        return
    for desc in doctree.findall(addnodes.desc):
        for signature in desc.findall(addnodes.desc_signature):
            if signature.parent is not desc:
                continue
            name = package().all.get(f"{signature.get('module')}.{signature.get('fullname')}")
            if name is not None:
                page = code_pages.ask_for(app.env, name.module)
                uri = f"{posixpath.relpath(page, posixpath.dirname(docname))}.html"
                # A listing has no anchors at what is not a function or a class.
                uri += "" if name.kind == "data" else f"#{name.name}"
                words = nodes.inline("", "source", classes=["viewcode-link"])
                signature += nodes.reference("", "", words, internal=True, refuri=uri)


def name_functions(app, doctree: nodes.document) -> None:
    """At the end of a chapter, what of the package its cells use."""
    docname = app.env.docname
    if not any(one.startswith(PAGES) for one in app.env.found_docs):
        return
    uses, titles = used(app.srcdir)
    chapter = docname.removeprefix("book/")
    mine = [path for path, found in uses.items() if chapter in found.cells]
    if chapter not in titles or not mine:
        return
    paragraph = nodes.paragraph("", "Of the package, this page uses ", classes=["api-of-page"])
    for i, path in enumerate(sorted(mine)):
        paragraph += nodes.Text(", " if i else "")
        link = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=path, refexplicit=True, refdoc=docname
        )
        link += nodes.literal("", path.partition(".")[2])
        paragraph += link
    paragraph += nodes.Text(".")
    doctree.next_node(nodes.section).append(paragraph)


def configure(app, config) -> None:
    """How signatures and sections look; names of other libraries lead nowhere."""
    config.autodoc_typehints_format = "short"
    config.autodoc_preserve_defaults = True
    config.autodoc_member_order = "bysource"
    config.napoleon_numpy_docstring = False
    config.napoleon_use_ivar = True
    config.python_maximum_signature_line_length = 70
    config.nitpick_ignore_regex = [*config.nitpick_ignore_regex, ("py:.*", r"(?!ebmref\b).*")]


def setup(app):
    """Register with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.add_directive("api", Api)
    app.connect("config-inited", configure)
    app.connect("autodoc-process-docstring", into_rst, priority=100)
    app.connect("autodoc-process-docstring", with_chapters, priority=900)
    app.connect("autodoc-skip-member", left_out)
    app.connect("doctree-read", link_sources)
    app.connect("doctree-read", name_functions)
    return {"version": "1", "parallel_read_safe": True}
