"""The ledger, from inside a chapter: enter what was measured, print what it settles.

    run = ledger.start("why-energy", profile, seed, device)
    ledger.measure("pen/radius", values=radius_of_each_seed)
    ledger.enter("fit", {"error": 0.02, "slope": (1.5, 0.1), "gap": gap_of_each_seed})
    ledger.verdicts()

The prose (by `{glue:text}`), the table and the tests then read the same number; what it
is held against stands in `claims/<chapter>.yml`, read by `ebmbook.claims`.
"""

import json
import math
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ebmbook import inputs, plots
from ebmbook.claims import LedgerError, Measure, find_claims, judge, load_claims
from ebmbook.measures import mean_and_error
from ebmbook.runs import Run, begin
from ebmref.files import write_atomic

MEASURE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.+-]*")


class _Open:
    """The chapter that is running in this process."""

    def __init__(self, run: Run):
        self.run = run
        self.measures: dict[str, Measure] = {}


_open: _Open | None = None


def start(
    chapter: str, profile: str | None = None, seed: int = 0, device: str | None = None
) -> Run:
    """Begin a chapter: resolve its parameters, set the figure style, open its results.

    Args:
        chapter: its topic, which names its files: "why-energy".
        profile, seed, device: the chapter's parameters; see `ebmbook.runs.begin`.

    Raises:
        ValueError: unknown profile or device, bad seed.
        LedgerError: data that the chapter reads, by its parameters, are missing.
    """
    global _open
    run = begin(chapter, profile, seed, device)
    # Here, and not after an hour: a notebook's parameters are its globals.
    inputs.require(chapter, run.profile, sys._getframe(1).f_globals)
    # The full profile makes what readers see.
    plots.use_style(sharp=run.profile == "full")
    inputs.watch()
    _open = _Open(run)
    return run


def measure(
    name: str,
    value: float | None = None,
    se: float | None = None,
    *,
    values=None,
    unit: str = "",
) -> Measure:
    """Enter a number in the ledger and make it available to the prose.

    Give either `value` (with its standard error `se`, or none where the number is exact
    up to rounding) or `values`, one a seed: their mean is entered with the standard error
    of that mean. In a notebook the number is glued under its name, for `{glue:text}`.

    Args:
        name: "topic/quantity" in lower case, unique in the chapter.
        values: `(n,)`, n >= 2.

    Raises:
        LedgerError: no chapter was started, a bad or repeated name, a number that is not
            finite, or both or neither of `value` and `values`.
    """
    if _open is None:
        raise LedgerError("measure: call ledger.start(chapter, ...) first")
    if not MEASURE_NAME.fullmatch(name):
        raise LedgerError(f"measure: name must look like 'topic/quantity'; got {name!r}")
    if name in _open.measures:
        raise LedgerError(f"measure: {name!r} was measured already in this chapter")
    if (value is None) == (values is None):
        raise LedgerError(f"measure {name!r}: give value or values, one of them")
    n = None
    if values is not None:
        try:
            value, se, n = mean_and_error(values)
        except ValueError as error:
            raise LedgerError(f"measure {name!r}: {error}") from None
    value = float(value)
    se = None if se is None else float(se)
    if not math.isfinite(value) or (se is not None and not (math.isfinite(se) and se >= 0)):
        raise LedgerError(f"measure {name!r}: must be finite, se >= 0; got {value} ± {se}")
    entry = Measure(value, se, n, unit)
    _open.measures[name] = entry
    _glue(name, str(entry))
    return entry


def enter(topic: str, numbers: Mapping[str, object]) -> None:
    """Enter several numbers of a topic, see `measure`; at the end of a cell it shows nothing.

    Args:
        topic: what their names begin with: "topic/quantity".
        numbers: by quantity; a number is a value, a pair `(value, se)` one with its standard error,
            and a list or tensor `(n,)` holds `values`, one a seed.

    Raises:
        LedgerError: as `measure`.
    """
    for quantity, number in numbers.items():
        name = f"{topic}/{quantity}"
        if isinstance(number, tuple):
            measure(name, *number)
        elif isinstance(number, list) or (isinstance(number, Tensor) and number.dim()):
            measure(name, values=number)
        else:
            measure(name, number)


def _glue(name: str, text: str) -> None:
    """Attach `text` to the notebook under `name`, in myst-nb's format; invisible on the page."""
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        return
    prefix = "application/papermill.record/"
    display(
        {f"{prefix}text/plain": repr(text)},
        raw=True,
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
    )


def verdicts() -> None:
    """Close the chapter: write its results, print a line for each of its claims.

    The lines hold no measured digits, so that they are the same in every profile as long
    as every check holds; a failed check names itself, with its number and threshold.
    The results go to `$EBMREF_RESULTS/<chapter>.json`, by default `results/` beside the run.

    Raises:
        LedgerError: no chapter was started; the claims are not valid.
    """
    if _open is None:
        raise LedgerError("verdicts: call ledger.start(chapter, ...) first")
    run = _open.run
    results = {
        "chapter": run.chapter,
        "profile": run.profile,
        "seed": run.seed,
        "device": _device_name(run.device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "measures": {
            name: {key: got for key, got in vars(entry).items() if got not in (None, "")}
            for name, entry in _open.measures.items()
        },
    }
    if data := inputs.read():
        results["data"] = data
    folder = Path(os.environ.get("EBMREF_RESULTS") or "results")
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    write_atomic(folder / f"{run.chapter}.json", text)
    path = find_claims()
    if path is None:
        print("no claims here: numbers measured, nothing to hold them against")
        return
    for claim in load_claims(path):
        if claim.chapter == run.chapter:
            print(judge(claim, _open.measures).line())


def _device_name(device: torch.device) -> str:
    """Either "cpu" or the model of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
