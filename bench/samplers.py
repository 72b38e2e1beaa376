"""The sampler benchmark: ebmref against public peers, cell by cell, on the same work.

    make bench                                     all cells, an hour and a half on two cores
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
import functools
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import peers  # noqa: E402

from ebmref.files import write_atomic  # noqa: E402

OURS = {
    "ebmref": {"analytic": True, "compile": True},
    "ebmref, autograd": {"analytic": False, "compile": True},
    "ebmref, eager": {"analytic": False, "compile": False},
}
PEERS = ("blackjax", "blackjax, best form", "torchebm", "tfp")


class Work(NamedTuple):
    """One cell of the table: `n_steps` steps a call, of `n_chains` chains."""

    algorithm: str
    target: str
    n_chains: int
    n_steps: int

    @property
    def name(self) -> str:
        return f"{self.algorithm}/{self.target}/{self.n_chains}"

    @property
    def step_size(self) -> float:
        return peers.STEP_SIZES[self.target][self.algorithm]


# Steps a call, so that one takes a fraction of a second in the fast libraries.
N_STEPS = {
    "mixture": {1: 10_000, 100: 10_000, 10_000: 500},
    "gaussian": {1: 10_000, 100: 4000, 10_000: 100},
    "mlp-32": {1: 4000, 100: 4000, 10_000: 500},
    "mlp": {1: 4000, 100: 4000, 1000: 2000, 10_000: 200},
    "mlp-512": {1: 2000, 100: 1000, 10_000: 40},
}
# Steps a call where chains, dimension or steps grow, with the work kept about the same.
GROWING = {
    "chains, MALA on the mixture": {
        n: (Work("mala", "mixture", n, min(10_000, 4_000_000 // n)), None)
        for n in (10, 1000, 100_000)
    },
    "dimension, MALA on the Gaussian, 100 chains": {
        d: (Work("mala", "gaussian", 100, 400_000 // d), d) for d in (10, 30, 300, 1000)
    },
    "steps a call, MALA on the mixture, 100 chains": {
        n: (Work("mala", "mixture", 100, n), None) for n in (100, 1000, 10_000)
    },
}


def cells() -> list[Work]:
    """The cells in the order of the table."""
    return [
        Work(algorithm, target, n, steps // 5 if algorithm == "hmc" else steps)
        for target in N_STEPS
        for algorithm in peers.ALGORITHMS
        for n, steps in N_STEPS[target].items()
        if algorithm != "random_walk" or target not in peers.WIDTHS
    ]


def floor(work: Work, peer: str) -> float | None:
    """The ratio that we ask of ourselves in this cell; None where the cell is only reported."""
    algorithm, target, n, _ = work
    if peer == "torchebm":
        return 3.5 if n <= 100 else 1.5
    if peer != "blackjax":
        return None
    if target in peers.WIDTHS:
        return 1.0 if n >= 100 else None
    if n == 10_000:
        return 1.8
    if target == "gaussian":
        return 1.5 if n == 100 else 1.2
    if n == 100:
        return 0.5 if algorithm in ("ula", "hmc") else 1.5
    return None


# Our half


def our_energy(target: peers.Target, analytic: bool, device="cpu"):
    """The target as an energy; with an analytic gradient, or written as its users would."""
    if not analytic:
        return peers.torch_energy(target, device)
    import torch

    from ebmref import energies

    values = {key: torch.from_numpy(value).to(device) for key, value in target.parameters.items()}
    make = {"mixture": energies.GaussianMixture, "gaussian": energies.Gaussian}[target.name]
    return make(**values)


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
        if OURS[library]["analytic"] and work.target in peers.WIDTHS:
            return "the MLP has no analytic gradient; see autograd"
        return our_cell(*arguments, **OURS[library])
    reason = peers.missing(library, work.algorithm)
    if library == "blackjax, best form" and work.algorithm != "ula" and work.n_chains > 1:
        reason = "the same program as blackjax where chains are many and can reject"
    if reason:
        return reason
    if library == "torchebm":
        return peers.torchebm_cell(*arguments)
    make = {
        "tfp": peers.tfp_cell,
        "blackjax": functools.partial(peers.blackjax_cell, vmap=True),
        "blackjax, best form": peers.blackjax_cell,
    }[library]
    # TFP's loops take no other generator than the first.
    prngs = peers.PRNGS[:1] if library == "tfp" else peers.PRNGS
    made = [make(*arguments, prng) for prng in prngs]
    work_done = work.n_chains * work.n_steps
    return max(made, key=lambda cell: peers.rate(cell, work_done, rounds=1))


def serve(library: str, pipe, build) -> None:
    """Answer calls until there are no more: ("build", ...), ("advance",), ("draws", n).

    Args:
        build: makes a cell of the library's name and what comes with the call.
    """
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
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            pipe.send(f"failed: {type(error).__name__}: {reason}")


class Library:
    """A library in its process, whose cells `build` makes."""

    def __init__(self, name: str, build=build):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(name, other, build), daemon=True)
        self._process.start()
        other.close()

    def call(self, *message):
        self.begin(*message)
        return self.answer()

    def begin(self, *message) -> None:
        self._pipe.send(message)

    def answer(self):
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


@contextlib.contextmanager
def libraries(names, build=build):
    """The named libraries, each in its process, until the block ends."""
    started = [Library(name, build) for name in names]
    try:
        yield started
    finally:
        for library in started:
            library.close()


def measure(work: Work, running: list[Library], rounds: int, dim: int | None = None) -> dict:
    """Rates of every library in one cell: chain-steps a second, one number a round."""
    entries = {}
    result = {"cell": work.name, "n_steps": work.n_steps, "step_size": work.step_size}
    result["libraries"] = entries
    ready = []
    # Ours compile side by side; the peers choose between programs by timing them, alone.
    ours = [library for library in running if library.name in OURS]
    for library in ours:
        library.begin("build", work, dim)
    answers = [library.answer() for library in ours]
    answers += [library.call("build", work, dim) for library in running if library not in ours]
    for library, answer in zip(ours + [x for x in running if x not in ours], answers, strict=True):
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


# Effective draws, and growth


def effective_draws(running: list[Library], results: list[dict]) -> list[dict]:
    """MALA and HMC, 100 chains: effective draws a second of the worst coordinate.

    The rate is that of the cell; how much a step is worth is told by ArviZ, on draws of each
    library's own, five steps apart.
    """
    out = []
    for result in results:
        algorithm, _, n = result["cell"].split("/")
        if algorithm not in ("mala", "hmc") or n != "100":
            continue
        cell = next(work for work in cells() if work.name == result["cell"])
        for library in running:
            answer = library.call("build", cell._replace(n_steps=5), None)
            if isinstance(answer, str):
                continue
            library.call("draws", 200)
            worth = ess_a_step(library.call("draws", 500), 5)
            rate = statistics.median(result["libraries"][library.name]["rates"])
            out.append(
                {
                    "cell": cell.name,
                    "library": library.name,
                    "ess_per_step": worth,
                    "ess_per_second": worth * rate,
                }
            )
    return out


def ess_a_step(draws: np.ndarray, apart: int) -> float:
    """Effective draws of the worst coordinate for a step of a chain.

    Args:
        draws: `(n_draws, n_chains, dim)`, so many steps apart.
    """
    from ebmref.samplers.diagnostics import arviz

    ess = arviz().ess(arviz().convert_to_dataset(draws.swapaxes(0, 1)))
    return float(ess["x"].min()) / (draws.shape[0] * draws.shape[1] * apart)


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
        rates = result["libraries"].get(ours, {}).get("rates")
        row = [result["cell"], f"{statistics.median(rates):,.0f}" if rates else "-"]
        algorithm, target, n = result["cell"].split("/")
        for peer in PEERS:
            wanted = floor(Work(algorithm, target, int(n), 0), peer)
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
    if results["ess"]:
        lines += [
            "",
            "## Effective draws a second",
            "",
            "Worst coordinate, 100 chains, at the step of the cell.",
            "",
            "| cell | library | effective draws a 1,000 steps of a chain | a second, all chains |",
            "|---|---|---:|---:|",
        ]
        for got in results["ess"]:
            worth = f"{1000 * got['ess_per_step']:.3g} | {got['ess_per_second']:,.0f}"
            lines.append(f"| {got['cell']} | {got['library']} | {worth} |")
    if results["growth"]:
        lines += [
            "",
            "## How cost grows",
            "",
            "Microseconds a step of all chains (median); `sample` is called anew each time.",
            "",
            "| what grows | to | ebmref | blackjax | ebmref over blackjax |",
            "|---|---:|---:|---:|---|",
        ]
        for entry in results["growth"]:
            row = [entry["what"], f"{entry['value']:,}"]
            for name in ("ebmref", "blackjax"):
                rates = entry["libraries"].get(name, {}).get("rates")
                per_step = 1e6 * entry["n_chains"] / statistics.median(rates) if rates else None
                row.append("-" if per_step is None else f"{per_step:,.2f}")
            row.append(_ratio(ratios(entry, "ebmref", "blackjax")))
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _ours(result: dict) -> str:
    """Our entry of a cell, with the analytic gradient where there is one; "" without one."""
    return next((n for n in OURS if result["libraries"].get(n, {}).get("rates")), "")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="PATTERN", help="hmc/*/100")
    parser.add_argument("--rounds", type=int, default=4, help="of turns, in every cell")
    parser.add_argument("--library", action="append", help="leave out all others")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "bench")
    chosen = parser.parse_args()
    names = chosen.library or [*OURS, *PEERS]
    for name in names:
        if name not in (*OURS, *PEERS):
            sys.exit(f"--library: expected one of {', '.join((*OURS, *PEERS))}; got {name}")
    todo = [
        work
        for work in cells()
        if not chosen.only or any(fnmatch.fnmatch(work.name, p) for p in chosen.only)
    ]
    if not todo:
        sys.exit(f"--only: no cell is called {' or '.join(chosen.only)}")
    results = {"machine": machine(), "cells": [], "ess": [], "growth": []}
    with libraries(names) as running:
        for work in tqdm(todo, desc="cells", unit="cell"):
            results["cells"].append(measure(work, running, chosen.rounds))
            save(results, chosen.out)
        if not chosen.only:
            two = [library for library in running if library.name in ("ebmref", "blackjax")]
            results["ess"] = effective_draws(two, results["cells"])
            save(results, chosen.out)
            growing = [(what, *one) for what, sizes in GROWING.items() for one in sizes.items()]
            for what, value, (work, dim) in tqdm(growing, desc="growth", unit="cell"):
                result = measure(work, two, chosen.rounds, dim)
                entry = {"what": what, "value": value, "n_chains": work.n_chains}
                results["growth"].append(result | entry)
                save(results, chosen.out)
    print(tables(results))


def save(results: dict, folder: Path) -> None:
    """Both files, each whole or not at all."""
    write_atomic(folder / "samplers.json", json.dumps(results, indent=1) + "\n")
    write_atomic(folder / "samplers.md", tables(results))


if __name__ == "__main__":
    main()
