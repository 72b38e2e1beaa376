"""The package on a GPU, in ten minutes at most: whether it runs there, and how fast.

    make gpu
    python bench/gpu.py --minutes 5

Three parts, each in what time the one before it has left:

    tests      tests/ebmref/test_devices.py on the GPU, in the mode in which PyTorch refuses what
               does not repeat, and the compiled loop
    samplers   chain-steps a second of ULA, MALA and HMC on the targets of `bench/samplers.py`, with
               10^2 to 10^6 chains, in Python and compiled
    chapters   those of pictures in the full profile; their data are in the folder `$EBMREF_DATA`

What did not fit is said. The report goes to _build/bench/gpu.md, whole after each part. Without a
GPU nothing is measured or written, and the exit status is 1; it is 1, too, where a test fails.
"""

import argparse
import itertools
import os
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import peers  # noqa: E402
import samplers as bench  # noqa: E402

from ebmref import samplers  # noqa: E402
from ebmref.files import write_atomic  # noqa: E402

# The wide steps and the extremes first: time may end before the rest.
CHAINS = (100, 10_000, 1_000_000, 1000, 100_000)
ALGORITHMS = ("ula", "mala", "hmc")
TARGETS = ("mixture", "gaussian", "mlp")
CHAPTERS = ("gebm-pictures", "gan-pictures", "refining")
# Shares of all time: the tests at most, and until when samplers are measured.
TESTS, SAMPLERS = 0.3, 0.7
# Seconds that a cell steps for, its compiler not counted, and calls that say nothing yet.
LEAST, FIRST = 0.5, 20


def run(command: list[str], seconds: float, **environment: str) -> tuple[int | None, str]:
    """Exit status and last line of a command; None where the time was over, and it was ended."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=max(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.terminate()  # an interrupt to a chapter: it goes on from its checkpoint next time
        try:
            said, _ = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        return None, _last(said)
    return process.returncode, _last(said)


def _last(said: str) -> str:
    return (said.strip().splitlines() or [""])[-1].strip("= ")


# Samplers


def rate(algorithm: str, target: str, n_chains: int, device: str, compile: bool) -> float:
    """Chain-steps a second, by the first call that takes long enough."""
    law = peers.targets()[target]
    energy = bench.our_energy(law, target != "mlp", device)
    kernel = bench.our_kernel(algorithm, energy, peers.STEP_SIZES[target][algorithm])
    x = torch.from_numpy(peers.start(law, n_chains)).to(device)
    generator = torch.Generator(device).manual_seed(0)
    n_steps = FIRST
    for call in itertools.count():
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # falling back is not this cell
            chain = samplers.sample(
                kernel, x, n_steps, thin=n_steps, generator=generator, compile=compile
            )
        chain.energy.sum().item()  # a GPU works on until it is asked
        seconds = time.perf_counter() - began - chain.compile_seconds
        if call and seconds > LEAST:
            return n_chains * n_steps / seconds
        if call:
            n_steps *= max(2, int(LEAST / seconds))


def cell(*arguments) -> str:
    """The rate, or why there is none."""
    try:
        return f"{rate(*arguments):,.3g}"
    except torch.cuda.OutOfMemoryError:
        return "does not fit"
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        return f"{type(error).__name__}: {reason[:60]}"


def rates(device: str, until: float, chains=CHAINS) -> dict[tuple, str]:
    """Cells by target, algorithm, number of chains and whether compiled; those in time."""
    found = {}
    every = list(itertools.product(chains, (False, True), TARGETS, ALGORITHMS))
    for n, compile, target, algorithm in tqdm(every, desc="cells", unit="cell"):
        if time.monotonic() > until:
            break
        found[target, algorithm, n, compile] = cell(algorithm, target, n, device, compile)
    return found


def table(found: dict[tuple, str], chains=CHAINS) -> list[str]:
    lines = [
        "Chain-steps a second, in Python / compiled; analytic gradients but for the MLP.",
        "",
        "| target | sampler | " + " | ".join(f"{n:,} chains" for n in sorted(chains)) + " |",
        "|---|---|" + "---|" * len(chains),
    ]
    for target, algorithm in itertools.product(TARGETS, ALGORITHMS):
        cells = [
            " / ".join(found.get((target, algorithm, n, c), "no time") for c in (False, True))
            for n in sorted(chains)
        ]
        lines.append("| " + " | ".join([target, algorithm, *cells]) + " |")
    return lines


# Chapters


def chapters(device: str, until: float, profile: str = "full") -> list[str]:
    """A line for each chapter of pictures."""
    lines = ["| chapter | seconds | how it ended |", "|---|---:|---|"]
    for chapter in CHAPTERS:
        began = time.monotonic()
        if began > until:
            lines.append(f"| {chapter} | 0 | no time |")
            continue
        command = [sys.executable, "-m", "ebmbook.press", "run", "--chapter", chapter]
        command += ["--profile", profile, "--device", device]
        status, said = run(command, until - began)
        how = {0: "whole", None: "did not fit: goes on from its checkpoint"}.get(status, said)
        lines.append(f"| {chapter} | {time.monotonic() - began:.0f} | {how} |")
    return lines


def report(parts: dict[str, list[str]], machine: str) -> str:
    lines = ["# On a GPU", "", machine]
    for title, part in parts.items():
        lines += ["", f"## {title}", "", *part]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="for all")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "bench")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing was measured", file=sys.stderr)
        return 1
    began, all_seconds = time.monotonic(), 60 * chosen.minutes
    machine = (
        f"{torch.cuda.get_device_name()}, Python {platform.python_version()}; torch "
        f"{torch.__version__}."
    )
    parts = {}

    def write(title: str, part: list[str]) -> None:
        parts[title] = part
        write_atomic(chosen.out / "gpu.md", report(parts, machine))

    tests = [sys.executable, "-m", "pytest", "-q", "tests/ebmref/test_devices.py"]
    status, said = run(tests, TESTS * all_seconds, EBMREF_TEST_DEVICE="cuda")
    write("Tests", [said if status is not None else f"did not fit: {said}"])
    write("Samplers", table(rates("cuda", began + SAMPLERS * all_seconds)))
    write("Chapters of pictures", chapters("cuda", began + all_seconds - 30))
    print(report(parts, machine))
    return 0 if status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
