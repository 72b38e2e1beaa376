"""The refinement benchmark: seconds beside passes, for every method of `ebmref.ddls`.

    make bench-refining              two minutes on two cores
    python bench/refining.py --rounds 5

Five GANs of the plane, of the width of chapter 11b, unschooled: time does not depend on what the
weights are. Each method makes 2,500 samples of each at the budget of that chapter, in rounds, so
that a machine that slows down slows all. Below, the longest run in use: 10,000 Langevin chains of
1,000 steps on one GAN, at that width and at that of chapter 6b.

The table goes to _build/bench/refining.md.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from ebmref import ddls, gan  # noqa: E402
from ebmref.files import write_atomic  # noqa: E402

K, N, BUDGET = 5, 2_500, 200
CHAINS, STEPS = 10_000, 1_000
WIDTHS = (64, 128)


def make_model(k: int, width: int) -> ddls.Model:
    source = torch.Generator().manual_seed(0)
    g_net = gan.Generator(2, 3 * (width,), (2,), k, source).requires_grad_(False)
    d_net = gan.Discriminator((2,), 3 * (width,), k, source).requires_grad_(False)
    return ddls.Model(g_net, d_net, ddls.Normal(2), k)


def seconds(make) -> tuple[float, ddls.Refined]:
    began = time.perf_counter()
    made = make(torch.Generator().manual_seed(1))
    return time.perf_counter() - began, made


def measure(rounds: int, n: int = N) -> dict[str, tuple[list[float], float]]:
    """Seconds of each method, one number a round, and the passes a sample took."""
    model = make_model(K, WIDTHS[0])
    times = {method: [] for method in ddls.METHODS if method != "prior"}
    cost = {}
    for _ in tqdm(range(rounds), unit="round"):
        for method, got in times.items():
            spent, made = seconds(lambda g, m=method: ddls.refine(model, n, m, BUDGET, g))
            got.append(spent)
            cost[method] = made.cost
    return {method: (got, cost[method]) for method, got in times.items()}


def long_runs(rounds: int, chains: int = CHAINS, steps: int = STEPS) -> dict[int, list[float]]:
    """Seconds of the long Langevin run at each width."""
    times = {width: [] for width in WIDTHS}
    for _ in range(rounds):
        for width, got in times.items():
            model = make_model(1, width)
            spent, _ = seconds(lambda g, m=model: ddls.langevin(m, chains, steps, g))
            got.append(spent)
    return times


def table(rows: dict[str, tuple[list[float], float]], long: dict[int, list[float]]) -> str:
    lines = [
        "# Refinement benchmark",
        "",
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; torch "
        f"{torch.__version__.split('+')[0]}.",
        "",
        f"{K} GANs with three hidden layers of {WIDTHS[0]}, {N:,} samples of each, a budget of "
        f"{BUDGET} passes a sample, a gradient counted as {ddls.GRADIENT_COST}. Seconds: least / "
        "**median** / largest. Rejection stops early: these discriminators are not trained.",
        "",
        "| method | passes a sample | seconds | microseconds a pass |",
        "|---|---:|---|---:|",
    ]
    for method, (times, cost) in rows.items():
        each = 1e6 * statistics.median(times) / (cost * K * N)
        lines.append(f"| {method} | {cost:.0f} | {spread(times)} | {each:.2f} |")
    lines += [
        "",
        f"{CHAINS:,} Langevin chains of {STEPS:,} steps on one GAN:",
        "",
        "| width | seconds |",
        "|---:|---|",
        *(f"| {width} | {spread(times)} |" for width, times in long.items()),
    ]
    return "\n".join(lines) + "\n"


def spread(times: list[float]) -> str:
    return f"{min(times):.1f} / **{statistics.median(times):.1f}** / {max(times):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "bench")
    chosen = parser.parse_args()
    made = table(measure(chosen.rounds), long_runs(chosen.rounds))
    write_atomic(chosen.out / "refining.md", made)
    print(made)


if __name__ == "__main__":
    main()
