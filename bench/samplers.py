"""The sampler benchmark: ebmref against public peers, cell by cell, on the same work.

    make bench                                     all cells, some 40 minutes on two cores
    python bench/samplers.py --only 'hmc/*/100'    some of them
    python bench/samplers.py --rounds 9            more rounds

A cell is an algorithm on a target with so many chains: `hmc/gaussian/100`. Each library runs in
a process of its own, so that no thread pool waits in another's way, and the libraries take
turns, A B C A B C: a machine that slows down slows all of them. Every library makes the same
number of steps of the same size from the same start, in float32, with all cores. Compile time
is kept apart. A figure is the ratio of our rate to a peer's in the same round; the table shows
the least, the median and the largest ratio over the rounds.

Results go to _build/bench/samplers.json and, as tables, to _build/bench/samplers.md.
"""

import argparse
import contextlib
import fnmatch
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import peers  # noqa: E402

from ebmref.claims import write_atomic  # noqa: E402

OURS = {
    "ebmref": {"analytic": True, "compile": True},
    "ebmref, autograd": {"analytic": False, "compile": True},
    "ebmref, eager": {"analytic": False, "compile": False},
}
PEERS = ("blackjax", "torchebm", "tfp")
N_CHAINS = (1, 100, 10_000)
# Steps a call, so that one takes a fraction of a second in the fast libraries.
N_STEPS = {
    "mixture": {1: 20_000, 100: 20_000, 10_000: 1000},
    "gaussian": {1: 10_000, 100: 4000, 10_000: 80},
    "mlp": {1000: 400},
}


class Work(NamedTuple):
    """One cell of the table."""

    algorithm: str
    target: str
    n_chains: int

    @property
    def name(self) -> str:
        return f"{self.algorithm}/{self.target}/{self.n_chains}"

    @property
    def n_steps(self) -> int:
        steps = N_STEPS[self.target][self.n_chains]
        return steps // 5 if self.algorithm == "hmc" else steps

    @property
    def step_size(self) -> float:
        return peers.STEP_SIZES[self.target][self.algorithm]


def cells() -> list[Work]:
    """The cells in the order of the table."""
    table = [
        Work(algorithm, target, n)
        for target in ("mixture", "gaussian")
        for algorithm in peers.ALGORITHMS
        for n in N_CHAINS
    ]
    return table + [Work(algorithm, "mlp", 1000) for algorithm in ("ula", "mala", "hmc")]


def floor(work: Work, peer: str) -> float | None:
    """The ratio that we ask of ourselves in this cell; None where the cell is only reported."""
    algorithm, target, n = work
    if peer == "torchebm":
        return 3.5 if n <= 100 else 1.5
    if peer != "blackjax":
        return None
    if target == "mlp":
        return 0.95 if algorithm == "hmc" else 1.1
    if n == 10_000:
        return 1.8
    if target == "gaussian":
        return 1.5 if n == 100 else 1.2
    if n == 100:
        return 0.5 if algorithm in ("ula", "hmc") else 1.5
    return None


# Our half


def our_energy(target: peers.Target, analytic: bool):
    """The target as an energy of ebmref's kind; with its own gradient or without."""
    import torch

    from ebmref import energies

    if target.name == "mlp":  # as its users write it, the gradient left to autograd
        return peers.torchebm_model(target).energy
    values = {key: torch.from_numpy(value) for key, value in target.parameters.items()}
    make = {"mixture": energies.GaussianMixture, "gaussian": energies.Gaussian}[target.name]
    energy = make(**values)
    return energy if analytic else energy.__call__


def our_kernel(algorithm: str, energy, step_size: float):
    from ebmref import samplers

    if algorithm == "hmc":
        return samplers.hmc(energy, step_size, peers.LEAPFROGS)
    return getattr(samplers, algorithm)(energy, step_size)


def our_cell(algorithm, target, n_chains, n_steps, step_size, analytic, compile) -> peers.Cell:
    import torch

    from ebmref import samplers

    kernel = our_kernel(algorithm, our_energy(target, analytic), step_size)
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(peers.start(target, n_chains))

    def advance() -> np.ndarray:
        nonlocal x
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # falling back is not our cell
            chain = samplers.sample(
                kernel, x, n_steps, thin=n_steps, generator=generator, compile=compile
            )
        x = chain.samples[0]
        return x.numpy()

    began = time.perf_counter()
    advance()
    return peers.Cell(advance, time.perf_counter() - began, "")


# A process a library


def build(library: str, work: Work, dim: int | None = None) -> peers.Cell | str:
    """The library's cell, or why it has none."""
    target = peers.targets()[work.target] if dim is None else peers.gaussian(dim)
    arguments = (work.algorithm, target, work.n_chains, work.n_steps, work.step_size)
    if library in OURS:
        if OURS[library]["analytic"] and work.target == "mlp":
            return "the MLP has no analytic gradient; see autograd"
        return our_cell(*arguments, **OURS[library])
    reason = peers.missing(library, work.algorithm)
    if reason:
        return reason
    if library == "torchebm":
        return peers.torchebm_cell(*arguments)
    made = [peers.CELLS[library](*arguments, prng) for prng in peers.PRNGS]
    work_done = work.n_chains * work.n_steps
    return max(made, key=lambda cell: peers.rate(cell, work_done, rounds=3))


def serve(library: str, pipe) -> None:
    """Answer calls until there are no more: ("build", ...), ("advance",), ("draws", n)."""
    cell = None
    while True:
        try:
            call, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            if call == "build":
                cell = None
                cell = build(library, *arguments)
                if not isinstance(cell, str):
                    cell.advance()
                    pipe.send((cell.compile_seconds, cell.note))
                else:
                    pipe.send(cell)
            elif call == "advance":
                began = time.perf_counter()
                cell.advance()
                pipe.send(time.perf_counter() - began)
            else:  # the positions after each of n calls of advance
                pipe.send(np.stack([cell.advance() for _ in range(arguments[0])]))
        except Exception:
            pipe.send(f"failed: {traceback.format_exc().strip().splitlines()[-1]}")


class Library:
    """A library in its process."""

    def __init__(self, name: str):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(name, other), daemon=True)
        self._process.start()
        other.close()

    def call(self, *message):
        self._pipe.send(message)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


@contextlib.contextmanager
def libraries(names):
    """The named libraries, each in its process, until the block ends."""
    started = [Library(name) for name in names]
    try:
        yield started
    finally:
        for library in started:
            library.close()


def measure(work: Work, running: list[Library], rounds: int, dim: int | None = None) -> dict:
    """Rates of every library in one cell: chain-steps a second, one number a round."""
    result = {"cell": work.name, "n_steps": work.n_steps, "step_size": work.step_size}
    result["libraries"] = entries = {}
    ready = []
    for library in running:
        answer = library.call("build", work, dim)
        if isinstance(answer, str):
            entries[library.name] = {"missing": answer}
        else:
            compile_seconds, note = answer
            entries[library.name] = {"compile_seconds": compile_seconds, "note": note, "rates": []}
            ready.append(library)
    for _ in range(rounds):
        for library in ready:
            seconds = library.call("advance")
            if isinstance(seconds, str):
                raise RuntimeError(f"{library.name} in {work.name}: {seconds}")
            entries[library.name]["rates"].append(work.n_chains * work.n_steps / seconds)
    return result


def ratios(result: dict, ours: str, peer: str) -> tuple[float, float, float] | None:
    """(min, median, max) over the rounds of our rate over the peer's; None where one lacks."""
    pair = [result["libraries"].get(name, {}).get("rates") for name in (ours, peer)]
    if not all(pair):
        return None
    each = [a / b for a, b in zip(*pair, strict=True)]
    return min(each), statistics.median(each), max(each)


# ESS a second and scaling


def ess_per_second(work: Work, running: list[Library], rate_of: dict[str, float]) -> dict:
    """Effective draws a second, worst coordinate: ESS a step on each library's own draws."""
    from ebmref.samplers.diagnostics import arviz

    out = {}
    for library in running:
        if library.name not in rate_of:
            continue
        answer = library.call("build", work, None)
        if isinstance(answer, str):
            continue
        library.call("draws", 100)
        draws = library.call("draws", 500)  # (draws, chains, dim)
        ess = arviz().ess(arviz().convert_to_dataset(draws.swapaxes(0, 1)))
        worst = float(ess["x"].min()) / (500 * work.n_steps * work.n_chains)
        out[library.name] = {
            "ess_per_step": worst,
            "ess_per_second": worst * rate_of[library.name],
        }
    return out


# Tables


def tables(results: dict) -> str:
    """All results as Markdown."""
    lines = [
        "# Sampler benchmark",
        "",
        results["machine"],
        "",
        "Ratios are our rate over the peer's in the same round: least / **median** / largest. "
        "A floor is what we ask of ourselves; ✗ marks a median below it.",
        "",
        "## Against peers",
        "",
        "| cell | ebmref, steps/s | " + " | ".join(f"over {p}, floor" for p in PEERS) + " |",
        "|---|---:|" + "---|" * len(PEERS),
    ]
    for result in results["cells"]:
        ours = _ours(result)
        rates = result["libraries"][ours]["rates"]
        row = [result["cell"], f"{statistics.median(rates):,.0f}"]
        algorithm, target, n = result["cell"].split("/")
        for peer in PEERS:
            wanted = floor(Work(algorithm, target, int(n)), peer)
            row.append(_ratio(ratios(result, ours, peer), wanted))
        lines.append("| " + " | ".join(row) + " |")
    lines += [
        "",
        "## What the gradient and the compiler give",
        "",
        "Rates in chain-steps a second (median), and seconds to compile.",
        "",
        "| cell | analytic, compiled | autograd, compiled | autograd over analytic | "
        "compiled over eager (autograd) | autograd over blackjax | compile: analytic, autograd "
        "| compile: blackjax |",
        "|---|---:|---:|---|---|---|---|---|",
    ]
    for result in results["cells"]:
        made = result["libraries"]
        row = [result["cell"]]
        for name in ("ebmref", "ebmref, autograd"):
            rates = made.get(name, {}).get("rates")
            row.append(f"{statistics.median(rates):,.0f}" if rates else "-")
        row.append(_ratio(ratios(result, "ebmref, autograd", "ebmref")))
        row.append(_ratio(ratios(result, "ebmref, autograd", "ebmref, eager")))
        row.append(_ratio(ratios(result, "ebmref, autograd", "blackjax")))
        row.append(", ".join(_seconds(made.get(name)) for name in ("ebmref", "ebmref, autograd")))
        row.append(_seconds(made.get("blackjax")))
        lines.append("| " + " | ".join(row) + " |")
    missing = {
        (name, entry["missing"])
        for result in results["cells"]
        for name, entry in result["libraries"].items()
        if "missing" in entry and name not in OURS
    }
    lines += ["", *(f"- {name}: {reason}" for name, reason in sorted(missing))]
    if results.get("ess"):
        lines += [
            "",
            "## Effective draws a second",
            "",
            "Worst coordinate, by ArviZ on each library's own draws; both at the cell's step.",
            "",
            "| cell | library | ESS a 1,000 steps of a chain | ESS a second |",
            "|---|---|---:|---:|",
        ]
        for name, made in results["ess"].items():
            for library, got in made.items():
                lines.append(
                    f"| {name} | {library} | {1000 * got['ess_per_step']:.3g} "
                    f"| {got['ess_per_second']:,.0f} |"
                )
    if results.get("scaling"):
        lines += [
            "",
            "## How cost grows",
            "",
            "Microseconds a step of all chains (median).",
            "",
            "| what grows | value | ebmref | blackjax | blackjax over ebmref |",
            "|---|---:|---:|---:|---|",
        ]
        for entry in results["scaling"]:
            result = entry["result"]
            row = [entry["what"], f"{entry['value']:,}"]
            for name in ("ebmref", "blackjax"):
                rates = result["libraries"].get(name, {}).get("rates")
                per_step = 1e6 * entry["n_chains"] / statistics.median(rates) if rates else None
                row.append("-" if per_step is None else f"{per_step:,.2f}")
            row.append(_ratio(ratios(result, "ebmref", "blackjax")))
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _ours(result: dict) -> str:
    """Our entry of a cell: with the analytic gradient where there is one."""
    return next(n for n in OURS if result["libraries"].get(n, {}).get("rates"))


def _ratio(spread: tuple | None, wanted: float | None = None) -> str:
    if spread is None:
        return "-"
    low, middle, high = spread
    text = f"{low:.2f} / **{middle:.2f}** / {high:.2f}"
    if wanted is not None:
        text += f", {wanted:g}" + (" ✗" if middle < wanted else "")
    return text


def _seconds(entry: dict | None) -> str:
    seconds = (entry or {}).get("compile_seconds")
    return "-" if seconds is None else f"{seconds:.1f}"


def machine() -> str:
    """What the figures were measured with."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "jax", "blackjax", "torchebm", "tensorflow-probability")
        if _installed(name)
    )
    hardware = f"{os.cpu_count()} cores, {platform.machine()}"
    return f"{hardware}, Python {platform.python_version()}; {versions}."


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def scaling_cells() -> list[tuple[str, int, Work, int | None]]:
    """(what grows, its value, the cell, dimension of the Gaussian or None for the mixture)."""
    out = []
    for n in (1, 10, 100, 1000, 10_000, 100_000):
        out.append(("chains, mala on the mixture", n, Work("mala", "mixture", n), None))
    for d in (2, 10, 30, 100, 300, 1000):
        out.append(
            ("dimension, mala on a Gaussian, 100 chains", d, Work("mala", "gaussian", 100), d)
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="PATTERN", help="hmc/*/100")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--library", action="append", help="leave out all others")
    parser.add_argument("--no-extras", action="store_true", help="no ESS, no scaling")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "bench")
    chosen = parser.parse_args()
    names = chosen.library or [*OURS, *PEERS]
    todo = [
        work
        for work in cells()
        if not chosen.only or any(fnmatch.fnmatch(work.name, p) for p in chosen.only)
    ]
    if not todo:
        sys.exit(f"--only: no cell is called {' or '.join(chosen.only)}")
    results = {"machine": machine(), "cells": [], "ess": {}, "scaling": []}
    with libraries(names) as running:
        for work in tqdm(todo, desc="cells", unit="cell"):
            results["cells"].append(measure(work, running, chosen.rounds))
            save(results, chosen.out)
    print(tables(results))


def save(results: dict, folder: Path) -> None:
    write_atomic(folder / "samplers.json", json.dumps(results, indent=1) + "\n")
    write_atomic(folder / "samplers.md", tables(results))


if __name__ == "__main__":
    main()
