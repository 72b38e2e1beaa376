"""The No-U-Turn benchmark: effective draws a second, ours against public ones and against HMC.

    make bench-nuts                          some minutes on two cores
    python bench/nuts.py --only funnel       one target

Three targets, 100 chains, float32: Neal's funnel in 10 dimensions, a Gaussian in 100 whose
deviations lie evenly in logarithm from 0.1 to 10, and the network of `bench/peers.py`. Each
library has a process of its own and they take turns, as in `bench/samplers.py`. Paths double 8
times at most; masses are one. In a warm-up that is not timed each library's own dual averaging
finds the step size for the target's acceptance, all chains together. Ours runs in Python; the
peers are compiled whole, and our HMC is, whose number of leapfrogs is the best of a few in a pilot.

An effective draw is ArviZ's bulk ESS of the worst coordinate, of x and of x^2, by the steps a
second of the timed rounds: least / **median** / largest.

Results go to _build/bench/nuts.json and, as a table, to _build/bench/nuts.md.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import peers  # noqa: E402
import samplers  # noqa: E402

from ebmref.files import write_atomic  # noqa: E402

LIBRARIES = ("ebmref", "ebmref, HMC", "blackjax", "tfp", "numpyro")
CHAINS, DEPTH = 100, 8


class Work(NamedTuple):
    """A target's cell.

    Attributes:
        target: "funnel", "stretched" or "mlp".
        n_steps, warmup: steps a timed call and before all.
        acceptance: that the step size is made for.
        first: the step size that the warm-up begins with.
        lengths: the numbers of leapfrogs among which HMC's is chosen.
    """

    target: str
    n_steps: int
    warmup: int
    acceptance: float
    first: float
    lengths: tuple[int, ...]


WORKS = (
    Work("funnel", 50, 100, 0.9, 0.1, (8, 32, 128)),
    Work("stretched", 25, 100, 0.8, 0.1, (32, 64, 128)),
    Work("mlp", 100, 100, 0.8, 0.3, (2, 4, 8, 16)),
)


def target_of(name: str) -> peers.Target:
    if name == "mlp":
        return peers.targets()["mlp"]
    if name == "funnel":
        return peers.Target("funnel", 10, {})
    sd = np.logspace(-1, 1, 100)
    return peers._target("gaussian", 100, {"mean": 0 * sd, "covariance": np.diag(sd**2)})


def our_energy(target: peers.Target):
    import torch

    from ebmref import energies

    if target.name == "funnel":
        return energies.Funnel(torch.zeros(target.dim))
    if target.name == "gaussian":
        return samplers.our_energy(target, analytic=True)
    return peers.torch_energy(target)


def log_density(target: peers.Target):
    """log p(x) of x `(..., dim)`, in jax.numpy."""
    if target.name != "funnel":
        return peers.log_density(target)
    import jax.numpy as jnp

    def log_p(x):
        neck, rest = x[..., 0], x[..., 1:]
        width = jnp.exp(-neck) * jnp.square(rest).sum(-1)
        return -0.5 * (jnp.square(neck) / 9 + width + (target.dim - 1) * neck)

    return log_p


def start(target: peers.Target) -> np.ndarray:
    """`(CHAINS, dim)`, the same for every library: exact draws, but of the network."""
    import torch

    if target.name == "mlp":
        return peers.start(target, CHAINS)
    return our_energy(target).sample(CHAINS, torch.Generator().manual_seed(0)).numpy()


# A cell a library: its `advance` returns the draws of all steps, `(n_steps, CHAINS, dim)`


def our_cell(work: Work, target: peers.Target, make, compile: bool, note: str = "") -> peers.Cell:
    """Our `sample`, with make(step_size) the kernel."""
    import torch

    from ebmref.samplers import sample

    generator, x = torch.Generator().manual_seed(0), torch.from_numpy(start(target))
    options = {"warmup": work.warmup, "target_acceptance": work.acceptance}
    began = time.perf_counter()
    chain = sample(make(work.first), x, 1, generator=generator, **options)
    kernel, x = make(chain.step_size), chain.samples[-1]

    def advance() -> np.ndarray:
        nonlocal x, chain
        chain = sample(kernel, x, work.n_steps, generator=generator, compile=compile)
        x = chain.samples[-1]
        return chain.samples.numpy()

    advance()
    leaves = chain.counts.get("n_leapfrog")
    leaps = chain.n_gradients if leaves is None else float(leaves.float().mean())
    told = f"step {kernel.step_size:.3g}, {leaps / work.n_steps:.0f} leapfrogs{note}"
    if leaves is not None:
        told += f", {chain.n_gradients / work.n_steps:.0f} with the wait for the longest"
    return peers.Cell(advance, time.perf_counter() - began, told)


def hmc_cell(work: Work, target: peers.Target) -> peers.Cell:
    """The length with most effective draws a gradient, of x and x^2, in a pilot of 100 draws."""
    import torch

    from ebmref.samplers import hmc, sample

    energy, worth = our_energy(target), {}
    for length in work.lengths:
        chain = sample(
            hmc(energy, work.first, length),
            torch.from_numpy(start(target)),
            100,
            warmup=work.warmup,
            target_acceptance=work.acceptance,
            generator=torch.Generator().manual_seed(1),
        )
        worth[length] = min(values(chain.samples.numpy())) / length
    best = max(worth, key=worth.get)
    return our_cell(
        work, target, lambda h: hmc(energy, h, best), True, f" of {', '.join(map(str, worth))}"
    )


def blackjax_cell(work: Work, target: peers.Target) -> peers.Cell:
    """The kernel of one chain under vmap, in a jitted scan; keys carried."""
    import blackjax
    import jax
    import jax.numpy as jnp
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    log_p, kernel = log_density(target), blackjax.nuts.build_kernel()
    init, update, final = dual_averaging_adaptation(work.acceptance)

    def one(key, state, size):
        return kernel(key, state, log_p, size, jnp.ones(target.dim), max_num_doublings=DEPTH)

    def move(key, state, size):
        key, use = jax.random.split(key)
        return key, *jax.vmap(one, (0, 0, None))(jax.random.split(use, CHAINS), state, size)

    def warm(key, state):
        def body(carry, _):
            key, state, tuning = carry
            key, state, info = move(key, state, jnp.exp(tuning.log_step_size))
            return (key, state, update(tuning, info.acceptance_rate.mean())), None

        tuned = jax.lax.scan(body, (key, state, init(work.first)), length=work.warmup)[0]
        return *tuned[:2], final(tuned[2])

    def run(key, state, size):
        def body(carry, _):
            key, state, info = move(*carry, size)
            return (key, state), (state.position, info.num_integration_steps)

        return jax.lax.scan(body, (key, state), length=work.n_steps)

    began = time.perf_counter()
    state = jax.vmap(lambda x: blackjax.nuts.init(x, log_p))(jnp.asarray(start(target)))
    key, state, size = jax.jit(warm)(jax.random.key(0), state)
    compiled = jax.jit(run)
    leaps = 0.0

    def advance() -> np.ndarray:
        nonlocal key, state, leaps
        (key, state), (x, n) = jax.block_until_ready(compiled(key, state, size))
        leaps = float(n.mean())
        return np.asarray(x)

    advance()
    told = f"step {float(size):.3g}, {leaps:.0f} leapfrogs"
    return peers.Cell(advance, time.perf_counter() - began, told)


def tfp_cell(work: Work, target: peers.Target) -> peers.Cell:
    """TFP's batched NUTS in its `sample_chain` under jit."""
    import jax
    import jax.numpy as jnp

    mcmc, log_p = peers._tfp()[0].mcmc, log_density(target)

    def warm(key, x):
        inner = mcmc.NoUTurnSampler(log_p, jnp.float32(work.first), max_tree_depth=DEPTH)
        kernel = mcmc.DualAveragingStepSizeAdaptation(
            inner, work.warmup, target_accept_prob=work.acceptance
        )
        xs, size = mcmc.sample_chain(
            num_results=1,
            num_burnin_steps=work.warmup,
            current_state=x,
            kernel=kernel,
            trace_fn=lambda _, r: r.new_step_size,
            seed=key,
        )
        return xs[-1], size[-1]

    def run(key, x, size):
        key, use = jax.random.split(key)
        xs, n = mcmc.sample_chain(
            num_results=work.n_steps,
            current_state=x,
            kernel=mcmc.NoUTurnSampler(log_p, size, max_tree_depth=DEPTH),
            trace_fn=lambda _, r: r.leapfrogs_taken,
            seed=use,
        )
        return key, xs, n

    began = time.perf_counter()
    key = jax.random.key(0)
    x, size = jax.jit(warm)(key, jnp.asarray(start(target)))
    compiled = jax.jit(run)
    leaps = 0.0

    def advance() -> np.ndarray:
        nonlocal key, x, leaps
        key, xs, n = jax.block_until_ready(compiled(key, x, size))
        x, leaps = xs[-1], float(n.mean())
        return np.asarray(xs)

    advance()
    told = f"step {float(size):.3g}, {leaps:.0f} leapfrogs"
    return peers.Cell(advance, time.perf_counter() - began, told)


def build(library: str, work: Work) -> peers.Cell | str:
    """The library's cell, or why it has none."""
    target = target_of(work.target)
    if library == "ebmref":
        from ebmref.samplers import nuts

        energy = our_energy(target)
        return our_cell(work, target, lambda h: nuts(energy, h, DEPTH), compile=False)
    if library == "ebmref, HMC":
        return hmc_cell(work, target)
    if importlib.util.find_spec(library) is None and library != "tfp":
        return f"{library} is not installed"
    if library == "numpyro":
        return "numpyro has no cell here"
    if library == "tfp" and peers.missing("tfp", "nuts"):
        return peers.missing("tfp", "nuts")
    return {"blackjax": blackjax_cell, "tfp": tfp_cell}[library](work, target)


# Measuring


def values(draws: np.ndarray) -> tuple[float, float]:
    """Effective draws of the worst coordinate a step of a chain, of x and of x^2."""
    return samplers.ess_a_step(draws, 1), samplers.ess_a_step(np.square(draws), 1)


def measure(work: Work, running, rounds: int, calls: int) -> dict:
    """One target: of each library the steps a second, a number a round, and a step's worth.

    Args:
        calls: that draws for the worth are made of, after the rounds.
    """
    entries, ready = {}, []
    for library in running:
        answer = library.call("build", work)
        if isinstance(answer, str):
            entries[library.name] = {"missing": answer}
            continue
        seconds, note = answer
        entries[library.name] = {"warmup_seconds": seconds, "note": note, "rates": []}
        ready.append(library)
    for _ in range(rounds):
        for library in ready:
            seconds = _told(library, library.call("advance"))
            entries[library.name]["rates"].append(CHAINS * work.n_steps / seconds)
    for library in ready:
        draws = _told(library, library.call("draws", calls))
        draws = draws.reshape(-1, *draws.shape[2:])
        entries[library.name]["ess_per_step"] = values(draws.astype(np.float64))
    return {"target": work.target, "acceptance": work.acceptance, "libraries": entries}


def _told(library, answer):
    if isinstance(answer, str):
        raise RuntimeError(f"{library.name}: {answer}")
    return answer


def table(results: dict) -> str:
    lines = [
        "# No-U-Turn benchmark",
        "",
        results["machine"],
        "",
        f"{CHAINS} chains, {DEPTH} doublings at most, step sizes adapted in a warm-up that is not "
        "timed. Effective draws a second of all chains, worst coordinate: least / **median** / "
        "largest over the rounds. They count what chains did, not whether they came everywhere: a "
        "leapfrog of 0.13 is unstable where the funnel is narrower than half of that, with a first "
        "coordinate below -5.5, where 3 % of the law are.",
        "",
        "| target, acceptance | library | of x | of x² | effective draws a 1,000 steps: x, x² "
        "| warm-up and compiling, s | a step |",
        "|---|---|---|---|---|---:|---|",
    ]
    for result in results["targets"]:
        for name, entry in result["libraries"].items():
            row = [f"{result['target']}, {result['acceptance']}", name]
            if "missing" in entry:
                row += [*4 * "-", entry["missing"]]
            else:
                worths = entry["ess_per_step"]
                row += [_spread([worth * rate for rate in entry["rates"]]) for worth in worths]
                row.append(", ".join(f"{1000 * worth:.3g}" for worth in worths))
                row += [f"{entry['warmup_seconds']:.0f}", entry["note"]]
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _spread(rates: list[float]) -> str:
    return f"{min(rates):,.0f} / **{statistics.median(rates):,.0f}** / {max(rates):,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=[work.target for work in WORKS])
    parser.add_argument("--library", action="append", choices=LIBRARIES, help="leave out others")
    parser.add_argument("--rounds", type=int, default=4, help="of turns")
    parser.add_argument("--calls", type=int, default=8, help="that the effective draws are of")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "bench")
    chosen = parser.parse_args()
    todo = [work for work in WORKS if not chosen.only or work.target in chosen.only]
    results = {"machine": samplers.machine(), "targets": []}
    with samplers.libraries(chosen.library or LIBRARIES, build) as running:
        for work in tqdm(todo, desc="targets", unit="target"):
            results["targets"].append(measure(work, running, chosen.rounds, chosen.calls))
            write_atomic(chosen.out / "nuts.json", json.dumps(results, indent=1) + "\n")
            write_atomic(chosen.out / "nuts.md", table(results))
    print(table(results))


if __name__ == "__main__":
    main()
