"""The loop over steps: in Python, or as one compiled graph.

The graph is a scan over a block of noise, several steps an iteration, with the gradient inside.
Its time goes into arithmetic; a loop in Python pays for dispatch at every step, which with few
chains is nearly all it does.

With many chains on a CPU the graph runs on tiles of them, each small enough for a core's cache
and with a source of noise of its own, as many at a time as there are threads. Chains never
meet, so no step has to wait for another tile's. An energy whose rows do meet, or have models of
their own, is found out by a test call and has all its chains in one tile.
"""

import functools
import itertools
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed, wait

import torch
from torch import Tensor

from ebmref.probes import stands_alone, widest
from ebmref.samplers.graphs import Graph, Stale, in_full
from ebmref.samplers.kernels import Kernel
from ebmref.samplers.noise import Source

# Noise is drawn for this many bytes or steps at a time, whichever is less.
_BLOCK_BYTES = 1 << 24
_TILE_BYTES = 1 << 21
_BLOCK_STEPS = 4096
# Gradients in the body of the scan. With 10 one chain is a tenth faster, and compiling takes twice
# the time.
_BODY = 4
# Numbers of a state above which a step is long enough to be an iteration by itself.
_WIDE = 1 << 18
# Numbers in the widest layer of a tile, as many as a core's own cache holds, and chains in the
# smallest.
_TILE = 1 << 18
_FEWEST = 32


class Refused(Exception):
    """The compiler does not take this kernel or its energy."""


def advance(
    kernel: Kernel,
    state,
    n_steps: int,
    step_size: Tensor,
    generator: torch.Generator,
    bar,
    *,
    thin: int = 1,
    samples: Tensor | None = None,
    energy: Tensor | None = None,
    compile: bool = False,
):
    """Make n_steps steps of all chains.

    Args:
        kernel: what steps.
        state: the kernel's, of n chains.
        n_steps: >= 0.
        step_size: 0-d.
        generator: source of all randomness.
        bar: a progress bar, told the steps of single chains.
        thin: every thin-th state goes into samples and energy.
        samples, energy: `(n_steps // thin, n, *event)` and `(n_steps // thin, n)`, to be filled;
            None to keep nothing.
        compile: run as one graph; with a warning, in Python where the compiler refuses.

    Returns:
        The state, the sum over the steps of the acceptance probability `(n,)`, and the seconds
        spent in the compiler.
    """
    if compile:
        before = generator.get_state()
        for _ in range(2):  # a graph that is stale is made anew
            try:
                return _advance_compiled(
                    kernel, state, n_steps, step_size, generator, bar, thin, samples, energy
                )
            except Stale:
                generator.set_state(before)
            except Refused as refused:
                generator.set_state(before)
                warnings.warn(str(refused), RuntimeWarning, stacklevel=3)
                break
    total = in_full(torch.zeros_like(state.energy))
    done = 0
    length = _block(kernel, state.x, _BLOCK_BYTES, 1)
    for noise in _noise(kernel, state.x, n_steps, length, generator):
        for one in _unbind(noise):
            state, acceptance = kernel.step(state, one, step_size)
            total += acceptance
            done += 1
            if samples is not None and done % thin == 0:
                samples[done // thin - 1], energy[done // thin - 1] = state.x, state.energy
        bar.update(len(noise[0]) * len(total))
    return state, total, 0.0


def _advance_compiled(kernel, state, n_steps, step_size, generator, bar, thin, samples, energy):
    n, threads = len(state.energy), torch.get_num_threads()
    n_tiles = _n_tiles(kernel, state.x, threads)
    size = -(-n // n_tiles)
    sources, block_bytes = [generator], _BLOCK_BYTES
    if n_tiles > 1:
        seeds = torch.randint(2**63 - 1, (n_tiles,), generator=generator, device="cpu").tolist()
        sources = [Source(seed) for seed in seeds]
        block_bytes = _TILE_BYTES
    # All tiles are of one size, for one graph: the last is filled up with chains of the one
    # before it, and what it makes of those is left aside.
    wanted = [slice(k * size, min(n, (k + 1) * size)) for k in range(n_tiles)]
    inside = [slice(max(0, n - size) if w.stop == n else w.start, w.stop) for w in wanted]
    states = [type(state)(*(part[i].clone() for part in state)) for i in inside]
    unroll, every = _layout(kernel, states[0].x, thin)
    graph = Graph(kernel, states[0], unroll, every)
    tiles = [
        _tile(graph, kernel, tile, n_steps, step_size, source, thin, block_bytes)
        for tile, source in zip(states, sources, strict=True)
    ]
    totals = [in_full(torch.zeros_like(tile.energy)) for tile in states]
    kept = [0] * n_tiles
    stopped = threading.Event()

    def run(k: int, n_blocks: int | None = None) -> None:
        if stopped.is_set():
            return
        new = slice(wanted[k].start - inside[k].start, size)
        with torch.no_grad():
            for length, state, total, draws in itertools.islice(tiles[k], n_blocks):
                states[k], totals[k] = state, totals[k] + total
                for xs, energies in draws if samples is not None else ():
                    to = slice(kept[k], kept[k] + len(xs))
                    samples[to, wanted[k]], energy[to, wanted[k]] = xs[:, new], energies[:, new]
                    kept[k] = to.stop
                bar.update(length * (wanted[k].stop - wanted[k].start))
                if stopped.is_set():
                    return

    pool = _workers(threads) if n_tiles > 1 else None
    try:
        if graph.is_new:
            # The first block makes the compiler work; the other tiles find it done.
            _each(functools.partial(run, n_blocks=1), [0], pool, stopped)
            stopped.clear()
            graph.keep(states[0])
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise Refused(
            f"compile: goes on without, as the compiler refused {kernel.name} "
            f"({type(error).__name__}: {reason})"
        ) from error
    _each(run, range(n_tiles), pool, stopped)
    if not graph.is_new:
        graph.keep(states[0])

    def whole(parts):
        new = (slice(w.start - i.start, size) for w, i in zip(wanted, inside, strict=True))
        return torch.cat([part[s] for part, s in zip(parts, new, strict=True)])

    return (
        type(state)(*map(whole, zip(*states, strict=True))),
        whole(totals),
        graph.compile_seconds,
    )


def _n_tiles(kernel: Kernel, x: Tensor, threads: int) -> int:
    """How many tiles: a multiple of the threads, or one.

    One where they would be too small, and where a part of the chains would be another thing in
    another thread: the energy looks at the batch as a whole, or autocast is on for this thread.
    """
    most = len(x) // _FEWEST
    if x.device.type != "cpu" or most < threads or torch.is_autocast_enabled("cpu"):
        return 1
    width = x[0].numel()
    if kernel.energy is not None:
        if not stands_alone(kernel.energy, x):
            return 1
        width = max(width, widest(kernel.energy, x))
    wanted = len(x) * width * kernel.n_noise // _TILE
    return max(threads, min(most, wanted)) // threads * threads


def _layout(kernel: Kernel, x: Tensor, thin: int) -> tuple[int, int]:
    """Steps an iteration of the scan makes, and of which of them it hands out the state.

    Each `every`-th state is handed out: all that the grid of thin needs, and few besides.
    """
    most = max(1, min(_BODY // max(1, kernel.n_gradients), _WIDE // x.numel()))
    if thin <= most:
        return most // thin * thin, thin
    unroll = max(k for k in range(1, most + 1) if thin % k == 0)
    return unroll, unroll


def _tile(graph, kernel, state, n_steps, step_size, generator, thin, block_bytes):
    """Step some chains; after each block of noise, what happened in it.

    Yields:
        The number of steps, the state, the sum of the acceptance probabilities `(n,)`, and what
        fell on the grid of thin: pairs of positions `(k, n, *event)` and energies `(k, n)`.
    """
    unroll, every = graph.unroll, graph.every
    stride = thin // every
    done = 0
    length = _block(kernel, state.x, block_bytes, unroll)
    for noise in _noise(kernel, state.x, n_steps, length, generator):
        draws, total = [], 0
        whole = len(noise[0]) // unroll * unroll
        if whole:
            state, xs, energies, total = graph(state, [part[:whole] for part in noise], step_size)
            # States after steps every, 2 every, ... of this block; those on the grid are kept.
            first = -(done // every + 1) % stride
            draws.append((xs[first::stride], energies[first::stride]))
        for k, one in enumerate(_unbind([part[whole:] for part in noise]), done + whole + 1):
            state, acceptance = kernel.step(state, one, step_size)
            total = total + in_full(acceptance)
            if k % thin == 0:
                draws.append((state.x[None], state.energy[None]))
        done += len(noise[0])
        yield len(noise[0]), state, total, draws


def _each(run, tiles, pool: ThreadPoolExecutor | None, stopped: threading.Event) -> None:
    """Run the tiles, as many at a time as the pool has threads; without one, here.

    After an error, or an interrupt, none goes on when this has ended.
    """
    if pool is None:
        for k in tiles:
            run(k)
        return
    running = [pool.submit(run, k) for k in tiles]
    try:
        for one in as_completed(running):
            one.result()
    finally:
        stopped.set()
        wait(running)


@functools.cache
def _workers(n: int) -> ThreadPoolExecutor:
    """n threads that compute on one core each."""
    before = torch.get_num_threads()
    ready = threading.Barrier(n + 1)

    def begin():
        torch.get_num_threads()  # a thread's first look would undo a choice made before it
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(n, thread_name_prefix="chains", initializer=begin)
    for _ in range(n):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(before)  # the workers' choice would be that of threads to come
    return pool


# A fork copies the pool and none of its threads: the child needs one of its own.
os.register_at_fork(after_in_child=_workers.cache_clear)


def _block(kernel: Kernel, x: Tensor, block_bytes: int, unroll: int) -> int:
    """Steps whose noise is drawn at once."""
    width = kernel.n_noise * x.numel() * x.element_size()
    length = min(_BLOCK_STEPS, max(1, block_bytes // width))
    return max(unroll, length // unroll * unroll)


def _noise(kernel: Kernel, x: Tensor, n_steps: int, length: int, generator: torch.Generator):
    """The noise of n_steps steps, `length` at a time; one buffer for all."""
    noise = None
    for start in range(0, n_steps, length):
        noise = kernel.draw(min(length, n_steps - start), x, generator, noise)
        yield noise


def _unbind(noise):
    """The noise of one step after another."""
    return zip(*(part.unbind(0) for part in noise), strict=True)
