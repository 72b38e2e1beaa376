"""Where the tasks of a sweep run: in processes of this machine, or with the workers of dask.

An engine takes tasks and gives back pairs of a task and its outcome as they finish, see
`ebmbook.press.tasks.perform`; closing it ends what runs.
"""

import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ebmbook.press import notebooks
from ebmbook.press.children import side_by_side
from ebmbook.press.notebooks import BookError
from ebmbook.press.tasks import Refusal, Task, perform

Outcomes = Iterator[tuple[Task, dict[str, Any]]]
Engine = Callable[[list[Task]], Outcomes]
PATIENCE = 10  # seconds, until a scheduler has answered


def engine(scheduler: str, jobs: int) -> Engine:
    """The engine that was asked for.

    Args:
        scheduler: "", this machine's processes; "local:2", dask's with so many workers; the file
            that a scheduler wrote; or its address.
        jobs: without a scheduler, runs at a time.

    Raises:
        BookError: it is none of these, or dask is not installed.
    """
    if not scheduler:
        return lambda tasks: here(tasks, jobs)
    kind, _, number = scheduler.partition(":")
    if kind == "local":
        if not (number.isascii() and number.isdigit() and int(number)):
            raise BookError(f"SCHEDULER: local:N wants a number of workers; got {scheduler!r}")
    elif "://" in scheduler:
        if not scheduler.startswith(("tcp://", "tls://", "ws://", "wss://")):
            raise BookError(f"SCHEDULER: expected tcp://host:port or tls://...; got {scheduler!r}")
    elif not Path(scheduler).is_file():
        raise BookError(
            "SCHEDULER: expected local:N, the file of a scheduler, or tcp://host:port; got "
            f"{scheduler!r}, and there is no such file"
        )
    if importlib.util.find_spec("distributed") is None:
        raise BookError("SCHEDULER: dask is not installed; pip install '.[sweep]' adds it")
    return lambda tasks: with_dask(tasks, scheduler)


def here(tasks: list[Task], jobs: int) -> Outcomes:
    """In processes of this machine, so many at a time."""
    with side_by_side(jobs) as (pool, children):
        futures = {pool.submit(perform, task, children): task for task in tasks}
        for future in as_completed(futures):
            try:
                outcome = future.result()
            except Refusal as error:
                raise BookError(str(error)) from None
            yield futures[future], outcome


def with_dask(tasks: list[Task], scheduler: str) -> Outcomes:
    """With the workers of a scheduler of dask.

    A task whose worker died runs again elsewhere; after some deaths it counts as died itself.
    """
    import distributed

    # Workers that are started from here import this checkout.
    os.environ["PYTHONPATH"] = notebooks.python_path()
    with ExitStack() as stack:
        client = stack.enter_context(_client(scheduler, stack))
        _tell(client)
        futures = {
            client.submit(perform, task, key=f"{task.label}:{task.key}", pure=False): task
            for task in tasks
        }
        finished = distributed.as_completed(list(futures), with_results=True, raise_errors=False)
        for future, outcome in finished:
            task = futures.pop(future)
            if future.status == "error":
                outcome = _died(task, future.exception())
            elif future.status != "finished":
                raise BookError("the scheduler was lost; what has finished is kept: call again")
            # Kept no longer, or a worker that dies now would take what it finished along.
            future.release()
            yield task, outcome


def _client(scheduler: str, stack: ExitStack):
    """A client of the scheduler; of a local one, which is started, too."""
    from distributed import Client, LocalCluster

    kind, _, number = scheduler.partition(":")
    try:
        if kind == "local":
            cluster = LocalCluster(
                n_workers=int(number),
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0" if _has_dashboard() else None,
                silence_logs=logging.CRITICAL,
            )
            return Client(stack.enter_context(cluster))
        if "://" in scheduler:
            return Client(scheduler, timeout=PATIENCE)
        json.loads(Path(scheduler).read_text())
        return Client(scheduler_file=scheduler, timeout=PATIENCE)
    except (OSError, TimeoutError):
        raise BookError(f"SCHEDULER: nothing answers at {scheduler}") from None
    except ValueError as error:
        raise BookError(f"SCHEDULER: {scheduler}: not the file of a scheduler ({error})") from None


def _has_dashboard() -> bool:
    return importlib.util.find_spec("bokeh") is not None


def _tell(client) -> None:
    """Say who will work, and where that can be watched."""
    n = len(client.scheduler_info(n_workers=-1)["workers"])
    waiting = "" if n else "; waiting for the first"
    tqdm.write(f"workers: {n}{waiting}", file=sys.stderr)
    if _has_dashboard():
        tqdm.write(f"dashboard: {client.dashboard_link}", file=sys.stderr)


def _died(task: Task, error: BaseException) -> dict[str, Any]:
    """The outcome of a task that ended in an error of its worker.

    Raises:
        BookError: it was refused.
    """
    from distributed import KilledWorker

    if isinstance(error, Refusal):
        raise BookError(str(error))
    if isinstance(error, KilledWorker):
        return {"error": "each of the workers that took it died (out of memory?)"}
    # Another version of this package may fail in any way.
    raise BookError(f"{task.label}: the worker could not take it ({type(error).__name__}: {error})")
