"""What is on a page, and beside the pages, for those who come from elsewhere.

For search engines and for programs: the book and its claims as JSON-LD (schema.org), OpenGraph
tags with a card, a canonical address, `sitemap.xml`, `robots.txt` and `llms.txt`. For readers: the
buttons that lead to the repository and, of a release, to its notebooks on Colab and Binder; the
choice of versions.

All that needs the repository's address is left out while `pyproject.toml` has none.
"""

import html
import io
import json
import re
from collections import Counter
from pathlib import Path
from urllib.parse import quote, urlsplit

import matplotlib
from ledger_page import BADGES, load
from matplotlib.figure import Figure
from page_faults import description
from sphinx_external_toc.parsing import parse_toc_yaml

from ebmbook.claims import Judgement
from ebmbook.press import project, report
from ebmbook.press.project import Project
from ebmref.files import whole, write_atomic

NOTEBOOKS = "notebooks"  # the branch with the legible notebooks, a folder for each release
CARD = "_static/card.png"
COVER = "_static/cover.png"
LICENCE = "https://creativecommons.org/licenses/by/4.0/"
# How good a verdict is, for programs that want a number.
RATINGS = {"reproduced": 5, "corrected": 3, "qualified": 3, "refuted": 1, "not reproduced": 1}

ROLE = re.compile(r"\{[\w:-]+\}`([^`]+)`")


def find(app) -> None:
    """The project, and whether this build is a release's."""
    app.told_project = project.read(Path(app.srcdir))
    app.told_release = project.released(app.told_project)


def set_base(app, config) -> None:
    """Sphinx makes the canonical addresses: those of the newest release, whichever this is."""
    if newest := project.read(Path(app.srcdir)).newest:
        config.html_baseurl = newest


def buttons(made: Project, tag: str, page: str, is_chapter: bool) -> list[dict]:
    """Those of a page, for the theme.

    Args:
        made: the project.
        tag: of the release that the page is of; "" for none, whose notebooks are nowhere.
        page: its name.
        is_chapter: whether it has a notebook.
    """
    if not made.address:
        return []
    where = made.on_github
    found = []
    if tag and is_chapter and where:
        place = f"{NOTEBOOKS}/{tag}/{page}.ipynb"
        repository = "/".join(where)
        inside = quote(f"{tag}/{page}.ipynb", safe="")
        launch = {
            "Colab": (
                f"https://colab.research.google.com/github/{repository}/blob/{place}",
                "_static/images/logo_colab.png",
            ),
            "Binder": (
                f"https://mybinder.org/v2/gh/{repository}/{NOTEBOOKS}?labpath={inside}",
                "_static/images/logo_binder.svg",
            ),
        }
        found.append(
            {
                "type": "group",
                "tooltip": "Run this page elsewhere",
                "icon": "fas fa-rocket",
                "label": "launch-buttons",
                "buttons": [
                    {
                        "type": "link",
                        "text": name,
                        "url": url,
                        "icon": icon,
                        "tooltip": f"Open the notebook on {name}",
                    }
                    for name, (url, icon) in launch.items()
                ],
            }
        )
    sources = [{"type": "link", "text": "Repository", "url": made.address,
                "tooltip": "Source repository", "icon": "fas fa-code-branch",
                "label": "source-repository-button"}]  # fmt: skip
    if where:
        sources.append({"type": "link", "text": "Report a number",
                        "url": f"{made.address}/issues/new/choose", "icon": "fas fa-lightbulb",
                        "tooltip": "This did not reproduce, or is wrong",
                        "label": "source-issues-button"})  # fmt: skip
    found.append({"type": "group", "tooltip": "Source repository", "icon": "fas fa-code-branch",
                  "label": "source-buttons", "buttons": sources})  # fmt: skip
    return found


def plain(text: str) -> str:
    """Words of the ledger without roles; formulas stay as they are."""
    return ROLE.sub(r"\1", text)


def book_ld(made: Project) -> dict:
    """The book, for schema.org."""
    told = {
        "@type": "Book",
        "@id": f"{made.newest}#book",
        "name": made.title,
        "abstract": made.abstract,
        "author": [{"@type": "Organization", "name": name} for name in made.authors],
        "bookEdition": made.version,
        "bookFormat": "https://schema.org/EBook",
        "inLanguage": "en",
        "isAccessibleForFree": True,
        "keywords": ", ".join(made.keywords),
        "license": LICENCE,
    }
    if made.newest:
        told |= {"url": made.newest, "image": f"{made.newest}{CARD}"}
    if made.doi:
        told["identifier"] = f"https://doi.org/{made.doi}"
    return told


def claim_ld(one: Judgement, page: str, made: Project) -> dict:
    """A row of the ledger: a claim of the report, and the book's review of it."""
    claim = one.claim
    told = {
        "@type": "Claim",
        "@id": f"{page}#{claim.id}",
        "name": report.name(claim),
        "text": plain(claim.says),
        "appearance": {"@type": "CreativeWork", "name": f"the report, {claim.where}"},
    }
    if claim.is_of_paper:
        told["appearance"]["name"] = claim.where
    if one.verdict != "open":
        told["review"] = {
            "@type": "Review",
            "reviewBody": plain(claim.finding),
            "author": [{"@type": "Organization", "name": name} for name in made.authors],
            "reviewRating": {
                "@type": "Rating",
                "ratingValue": RATINGS[one.verdict],
                "worstRating": 1,
                "bestRating": 5,
                "alternateName": one.verdict,
            },
        }
    return told


def script(graph: list[dict]) -> str:
    """JSON-LD in an element; no text in it can end that."""
    text = json.dumps({"@context": "https://schema.org", "@graph": graph}, ensure_ascii=False)
    text = text.replace("<", "\\u003c")
    return f'<script type="application/ld+json">{text}</script>'


def graph_tags(made: Project, page: str, title: str, words: str, is_first: bool) -> str:
    """The OpenGraph tags of a page; those that need an address only where there is one."""
    told = {
        "og:site_name": made.short_title,
        "og:type": "website" if is_first else "article",
        "og:title": title,
        "og:description": words,
    }
    if made.newest:
        told |= {
            "og:url": f"{made.newest}{page}.html",
            "og:image": f"{made.newest}{CARD}",
            "og:image:width": str(WIDE),
            "og:image:height": str(HIGH),
            "og:image:alt": made.title,
        }
    tags = [f'<meta property="{name}" content="{html.escape(text)}" />'
            for name, text in told.items() if text]  # fmt: skip
    if made.newest:
        tags.append('<meta name="twitter:card" content="summary_large_image" />')
    return "".join(tags)


def dress(app, pagename, templatename, context, doctree) -> None:
    """Before a page is written."""
    if doctree is None:
        return
    made, env = app.told_project, app.env
    is_first = pagename == app.config.root_doc
    title = html.unescape(re.sub("<[^>]*>", "", context.get("title", "")))
    words = description(doctree) or made.abstract
    tags = graph_tags(made, pagename, made.short_title if is_first else title, words, is_first)
    if is_first:
        tags += script([book_ld(made)])
    if env.metadata.get(pagename, {}).get("ledger"):
        judgements, _ = load(app.srcdir)
        page = f"{made.newest}{pagename}.html" if made.newest else ""
        tags += script([claim_ld(one, page, made) for one in judgements])
    context["metatags"] = context.get("metatags", "") + tags
    is_chapter = Path(env.doc2path(pagename)).suffix == ".ipynb"
    context["header_buttons"] = [
        *context.get("header_buttons", []),
        *buttons(made, app.told_release, pagename, is_chapter),
    ]


WIDE, HIGH = 1200, 630  # what all who show cards agree on


def card(made: Project, counts: Counter, cover: Path) -> bytes:
    """The picture that is shown where somebody tells of the book, as PNG."""
    with matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure((WIDE / 100, HIGH / 100), dpi=100, facecolor="white")
        figure.text(0.05, 0.84, made.short_title, fontsize=34, weight="bold")
        figure.text(0.05, 0.76, "an executable replication", fontsize=22, color="0.35")
        if cover.is_file():
            axes = figure.add_axes((0.03, 0.3, 0.94, 0.36))
            axes.imshow(matplotlib.image.imread(cover))
            axes.axis("off")
        told = [f"{counts[name]} {name}" for name in BADGES if counts[name]]
        figure.text(0.05, 0.17, f"{counts.total()} claims of a report:", fontsize=18)
        figure.text(0.05, 0.09, ", ".join(told), fontsize=18)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def sitemap(made: Project, pages: list[str]) -> str:
    """Every page at its address in the newest release."""
    rows = "".join(f"<url><loc>{made.newest}{page}.html</loc></url>\n" for page in pages)
    space = "http://www.sitemaps.org/schemas/sitemap/0.9"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="{space}">\n{rows}</urlset>\n'


def robots(made: Project) -> str:
    """Where the map is; "" for a site that is no host's root, whose file nobody would read."""
    if not made.site or urlsplit(made.site).path != "/":
        return ""
    return f"User-agent: *\nAllow: /\nSitemap: {made.site}sitemap.xml\n"


def llms(
    made: Project,
    parts: list[tuple[str, list[str]]],
    told: dict[str, tuple[str, str]],
    judgements: list[Judgement],
    ledger: str,
) -> str:
    """`llms.txt` (llmstxt.org): what the book is and where its pages are, in Markdown.

    Args:
        made: the project.
        parts: of the table of contents, each with its pages.
        told: title and first words of each page.
        judgements: of all claims.
        ledger: the page with a row for each of them; "" for none.
    """
    base = made.newest
    lines = [f"# {made.short_title}", "", f"> {made.abstract}", ""]
    lines += [
        "Lower energy is likelier. Every number on a page was measured by the code on it; a "
        "verdict (reproduced, corrected, qualified, refuted, not reproduced, open) stands only "
        f"while its checks hold. For machines: [ledger.json]({base}_static/ledger.json).",
        "",
    ]
    for caption, pages in parts:
        lines += [f"## {caption}", ""]
        for page in pages:
            title, words = told[page]
            lines.append(f"- [{title}]({base}{page}.html)" + (f": {words}" if words else ""))
        lines.append("")
    lines += ["## Claims", ""]
    for one in judgements:
        name = report.name(one.claim)
        link = f"[{name}]({base}{ledger}.html#{one.claim.id})" if ledger else name
        lines.append(f"- {link} ({one.claim.where}), {one.verdict}: {plain(one.claim.says)}")
    return "\n".join(lines) + "\n"


def leave(app, exception) -> None:
    """Write what lies beside the pages."""
    if exception is not None or app.builder.format != "html":
        return
    made, env, out = app.told_project, app.env, Path(app.outdir)
    judgements, _ = load(app.srcdir)
    parts = parts_of(Path(app.srcdir) / "_toc.yml")
    pages = [page for _, all_ in parts for page in all_ if page in env.found_docs]
    told = {page: (env.titles[page].astext(), description(env.get_doctree(page))) for page in pages}
    ledger = env.config.ledger_page if env.config.ledger_page in env.found_docs else ""
    write_atomic(out / "llms.txt", llms(made, parts, told, judgements, ledger))
    if made.newest:
        write_atomic(out / "sitemap.xml", sitemap(made, [app.config.root_doc, *pages]))
        counts = Counter(one.verdict for one in judgements if not one.claim.is_of_paper)
        with whole(out / CARD) as fresh:
            fresh.write_bytes(card(made, counts, Path(app.srcdir) / "book" / COVER))
    if text := robots(made):
        write_atomic(out / "robots.txt", text)


def parts_of(toc: Path) -> list[tuple[str, list[str]]]:
    """The parts of the table of contents, each with its pages in order."""
    found = parse_toc_yaml(toc)

    def below(file: str) -> list[str]:
        return [page for one in found[file].child_files() for page in [one, *below(one)]]

    return [
        (part.caption or "Chapters",
         [str(Path(page).with_suffix("")) for one in part.items for page in [one, *below(one)]])
        for part in found.root.subtrees
    ]  # fmt: skip


def setup(app):
    """Register with Sphinx, behind the theme and what mends it."""
    app.connect("config-inited", set_base)
    app.connect("builder-inited", find)
    app.connect("html-page-context", dress, priority=910)
    app.connect("build-finished", leave)
    app.add_js_file("versions.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True}
