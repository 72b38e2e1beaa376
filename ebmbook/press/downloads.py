"""The notebook that a reader downloads: complete and legible in any notebook program.

Pages are made of records, whose prose has roles and directives that Sphinx alone understands. What
a page's download button gives is the record with its numbers and references as plain text, its
captions, and a first cell that installs the package.
"""

import re
import subprocess
from collections.abc import Callable, Iterable

import nbformat
from nbformat import NotebookNode

from ebmbook import claims
from ebmbook.press import notebooks, outputs, project, records

ROLE = re.compile(r"\{(?P<role>[a-z]+(?::[a-z]+)?)\}`(?P<target>[^`]+)`")
FENCE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<kind>[a-z-]+)\}[ ]*(?P<argument>.*)\n"
    r"(?P<body>(?:.*\n)*?)(?P=fence)[ ]*$",
    re.MULTILINE,
)
OPTION = re.compile(r"\A\s*(?::[a-z-]+:.*\n)+")
LABEL = re.compile(r"^\([\w-]+\)=\n", re.MULTILINE)
EQUATION = re.compile(r"\s*\$\$[ ]*\((?P<label>[\w-]+)\)[ ]*$", re.MULTILINE)
# Where notebooks are run for others, torch fits the machine's driver, and what else is compiled may
# be in use already: of these nothing is changed, and what cannot do with them is told.
INSTALL = """\
# The book's package, where it is not there yet. What is here of
# PyTorch and the numeric libraries stays as it is.
import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "{package}"
KEEP = "{keep}"

if importlib.util.find_spec("ebmbook") is None:
    kept = []
    for name in KEEP.split():
        try:
            kept.append(f"{{name}}=={{importlib.metadata.version(name)}}")
        except importlib.metadata.PackageNotFoundError:
            pass
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kept.txt")
        file.write_text("\\n".join(kept))
        pip = [sys.executable, "-m", "pip", "install"]
        pip += ["--constraint", str(file), PACKAGE]
        done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        said = done.stdout.splitlines()[-10:] + done.stderr.splitlines()
        print(*said, "kept: " + " ".join(kept), sep="\\n")
        raise RuntimeError("the package does not fit what is here")
    importlib.invalidate_caches()"""
KEEP = "torch torchvision torchaudio numpy scipy scikit-learn pandas matplotlib"


def package(made: project.Project) -> str:
    """What pip installs: this version's tag in the repository, else this commit.

    While the repository has no address, the clone that the notebook is in.
    """
    if not made.address:
        return "."
    try:
        at = project.released(made) or records.git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):  # no checkout of git
        at = made.tag
    return f"{made.name} @ git+{made.address}@{at}"


def install_cell() -> str:
    """The first cell of a notebook."""
    return INSTALL.format(package=package(project.read()), keep=KEEP)


def legible(
    chapter: str,
    notebook: NotebookNode,
    told: Callable[[str, str], str],
    judgements: Iterable[claims.Judgement],
) -> NotebookNode:
    """A copy of a run for readers.

    Args:
        chapter: its name.
        told: of a role and its target the text on the page; "eq" and a label give "(6.1)".
        judgements: of the chapter's claims, for the ledger.
    """
    measures = notebooks.results_of(notebook, chapter)["measures"]
    ledger = "\n".join(line for judgement in judgements for line in _ledger_lines(judgement))

    def fill(text: str) -> str:
        return _plain(text, measures, told, ledger)

    cells = [nbformat.v4.new_code_cell(install_cell(), id="install")]
    for cell in notebook.cells:
        if cell.cell_type != "code":
            cells.append(nbformat.v4.new_markdown_cell(fill(cell.source), id=cell.id))
            continue
        tags = {"tags": cell.metadata.tags} if cell.metadata.get("tags") else {}
        made = nbformat.v4.new_code_cell(cell.source, id=cell.id, metadata=tags)
        made.execution_count = cell.execution_count
        # What is glued says nothing by itself.
        made.outputs = [out for out in cell.outputs if outputs.GLUED not in out.get("data", {})]
        cells.append(made)
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if figure.get("caption"):
            name = told("numref", figure["name"]) if figure.get("name") else "Figure"
            caption = f"**{name}.** {fill(figure['caption'])}"
            cells.append(nbformat.v4.new_markdown_cell(caption, id=f"{cell.id}-caption"))
    kept = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")
            if name in notebook.metadata}  # fmt: skip
    return nbformat.v4.new_notebook(cells=cells, metadata=kept)


def _ledger_lines(judgement: claims.Judgement) -> list[str]:
    claim = judgement.claim
    lines = [f"- **{claim.id}** ({claim.where}), *{judgement.verdict}*: {claim.says}"]
    if claim.finding:
        lines.append(f"  Found: {claim.finding}")
    lines += [
        f"  - `{check.measure}` = **{'not measured' if got is None else got}**; wanted {check}: "
        f"{'holds' if good else 'FAILS'}"
        for check, got, good in judgement.outcomes
    ]
    return lines


def _plain(text: str, measures: dict, told: Callable[[str, str], str], ledger: str) -> str:
    """Markdown without what Sphinx alone understands."""

    def directive(found: re.Match) -> str:
        body = OPTION.sub("", found["body"]).strip("\n")
        if found["kind"] == "ledger":
            return ledger
        if found["kind"] == "solution":
            return f"<details><summary>Solution</summary>\n\n{body}\n\n</details>"
        name = found["kind"].capitalize()
        title = f"{name} ({found['argument']})" if found["argument"] else name
        return f"**{title}.** {body}"

    def role(found: re.Match) -> str:
        if found["role"] == "glue:text":
            return str(measures.get(found["target"], found["target"]))
        return told(found["role"], found["target"])

    text = FENCE.sub(directive, f"{text}\n")
    text = EQUATION.sub(
        lambda found: f" \\tag{{{told('eq', found['label']).strip('()')}}}\n$$", text
    )
    return ROLE.sub(role, LABEL.sub("", text)).strip("\n")
