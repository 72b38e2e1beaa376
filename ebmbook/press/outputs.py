"""Whether a run's outputs are those of its results: they are what readers see.

When a run is made, a digest of its outputs and results goes into its stamp. Whatever changes them
later, a "run all" and a save in Jupyter first of all, is found by that. The last cell is left out:
it shows verdicts, which are judged anew when claims change, and held against the claims.
"""

import ast
import json
from collections.abc import Iterator

from nbformat import NotebookNode

from ebmbook import claims, keys
from ebmbook.press import notebooks

# What `ledger.measure` glues.
GLUED = "application/papermill.record/text/plain"
# Of results: a chapter that gets another name keeps its record.
NAME = "chapter"


def digest(notebook: NotebookNode) -> str:
    """Of what a run's cells show, figures and all, and of the results and parameters it carries."""
    stamp = notebook.metadata["ebmref"]
    results = {name: got for name, got in stamp["results"].items() if name != NAME}
    shown = [cell.outputs for cell in notebooks.code_cells(notebook)[:-1]]
    return keys.digest(
        *(json.dumps(part, sort_keys=True) for part in (shown, results, stamp["parameters"]))
    )


def seal(notebook: NotebookNode) -> None:
    """Enter the digest into a run's stamp, when it is made."""
    notebook.metadata["ebmref"]["outputs"] = digest(notebook)


def faults(name: str, notebook: NotebookNode) -> list[str]:
    """What of a run's outputs is not as it was made, a line each; empty when all is well.

    Args:
        name: of the chapter.

    Raises:
        LedgerError: the run carries no results.
    """
    results = notebooks.results_of(notebook, name)
    found = list(_of_glued(name, notebook, results["measures"]))
    stamp = notebook.metadata["ebmref"]
    if results["chapter"] not in (name, *notebooks.former_names(name)):
        found.append(f"{name}: these are the results of {results['chapter']!r}")
    if "outputs" not in stamp or "parameters" not in stamp:
        found.append(f"{name}: nothing tells whether its outputs are those of the run that made it")
    elif stamp["outputs"] != digest(notebook):
        found.append(
            f"{name}: its outputs or results were changed since the run that made them; if a "
            f"notebook program executed and saved it: git checkout book/{name}.ipynb puts it back"
        )
    return found


def _of_glued(
    name: str, notebook: NotebookNode, measures: dict[str, claims.Measure]
) -> Iterator[str]:
    """Numbers that the prose reads and that are not those which were measured."""
    shown = set()
    for cell in notebooks.code_cells(notebook):
        for output in cell.outputs:
            label = output.get("metadata", {}).get("scrapbook", {}).get("name")
            if label is None:
                continue
            shown.add(label)
            text = _text(output.get("data", {}).get(GLUED, ""))
            measured = str(measures[label]) if label in measures else "not measured"
            if text != measured:
                yield f"{name}: the prose reads {label} = {text}, and it is {measured}"
    for label in sorted(measures.keys() - shown):
        yield f"{name}: {label} was measured, and no output has it for the prose"


def _text(glued: str) -> str:
    try:
        return str(ast.literal_eval(glued))
    except (ValueError, SyntaxError):
        return glued
