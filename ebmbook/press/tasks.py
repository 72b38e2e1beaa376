"""A task of a sweep: one run of one chapter, wherever there is a worker.

A worker has a checkout of its own. It gives back the results and leaves nothing: no notebook, no
figure, no file that another machine would have to see. What it does not do, a `Refusal` says, and
such a run tells nothing of a verdict; one that died tells that it was not borne out.
"""

import functools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from ebmbook import inputs
from ebmbook.claims import LedgerError
from ebmbook.press import notebooks
from ebmbook.press.children import SWITCHES, Children, execute, why_no_results
from ebmbook.press.notebooks import CLAIMS, RUNS
from ebmbook.press.variants import Variant
from ebmbook.press.work import alone

# Older processors, by what PyTorch, oneDNN and MKL are told to do without: sums in another order,
# other last digits, and after a training another network.
MACHINES = {
    "default": ("default", "SSE41", "SSE4_2"),
    "avx2": ("avx2", "AVX2", "AVX2"),
    "avx512": ("avx512", "AVX512_CORE", "AVX512"),
}
CAPABILITY = "import torch; print(torch.backends.cpu.get_cpu_capability())"


class Refusal(Exception):
    """A worker that will not do a task: its code or its data are others."""


@dataclass(frozen=True)
class Task:
    """One run of one chapter.

    Attributes:
        chapter, seed: what is run.
        machine: one of `MACHINES`, or "" for the processor as it is.
        variant: profile and parameters, the seed apart.
        key: of the code that is meant, see `code_key`.
    """

    chapter: str
    seed: int
    machine: str
    variant: Variant
    key: str

    @property
    def label(self) -> str:
        """What it is called where somebody reads it."""
        return ":".join(filter(None, (self.chapter, str(self.seed), self.machine)))


def code_key(chapter: str, variant: Variant) -> str:
    """What a chapter's numbers depend on here, the seed and the data apart."""
    return notebooks.keys_of(chapter, variant.profile, variant.parameters)["key"]


def environment(machine: str) -> dict[str, str]:
    """The switches of a machine, for the environment of a run."""
    return dict(zip(SWITCHES, MACHINES[machine], strict=True)) if machine else {}


@functools.cache
def is_here(machine: str) -> bool:
    """Whether this processor can do as that machine does."""
    if not machine:
        return True
    command = [sys.executable, "-c", CAPABILITY]
    told = os.environ | environment(machine)
    done = subprocess.run(command, env=told, capture_output=True, text=True)
    return done.stdout.strip().lower() == machine


def perform(task: Task, children: Children | None = None) -> dict[str, Any]:
    """Run the chapter.

    Args:
        children: among which its process counts while it runs.

    Returns:
        "seconds", and "results" or, of a run that died, "error"; or "skipped" alone: why this
        worker cannot do it.

    Raises:
        Refusal: this checkout is not of the task's code, or data are missing here.
        KeyboardInterrupt: the children were ended.
    """
    if code_key(task.chapter, task.variant) != task.key:
        raise Refusal(f"{task.chapter}: the worker at {_where()} has other code than this checkout")
    if not is_here(task.machine):
        return {"skipped": f"the processor at {_where()} has no {task.machine}"}
    given = notebooks.parameters(task.chapter) | task.variant.parameters
    try:
        inputs.require(task.chapter, task.variant.profile, given, CLAIMS)
    except LedgerError as error:
        raise Refusal(f"{error} (at {_where()})") from None
    children = children or Children()
    place = RUNS / f"sweep-{task.variant.name}" / task.label.replace(":", "-")
    with alone(place, task.label, children.ended) as (work, lock):
        began = time.monotonic()
        draft = work / f"{task.chapter}.ipynb"
        notebooks.write(notebooks.draft(task.chapter), draft)
        more = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        more |= environment(task.machine)
        variant = Variant(task.variant.profile, task.variant.parameters | {"seed": task.seed})
        error = execute(draft, variant, lock=lock, more=more, children=children, place=None)
        results = work / f"{task.chapter}.json"
        if not error and not results.is_file():
            error = why_no_results(work)
        outcome = {"error": error} if error else {"results": json.loads(results.read_text())}
    return {"seconds": round(time.monotonic() - began, 1)} | outcome


def _where() -> str:
    """Which worker this is."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            return get_worker().address
        except ValueError:  # no worker of dask runs this
            pass
    return os.uname().nodename
