"""Run a kernel: warm-up, adaptation, thinning, and what comes out of it."""

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ebmref.checks import whole_number
from ebmref.energies import check_energy
from ebmref.probes import check_gradient, repeats
from ebmref.samplers import adaptation, loop
from ebmref.samplers.graphs import in_full
from ebmref.samplers.kernels import Kernel

# Draws that are enough to call a chain stuck.
_MANY = 100


@dataclass(frozen=True)
class Chain:
    """What `sample` returns.

    Attributes:
        samples: `(n_draws, n_chains, *event)`, every thin-th state after the warm-up.
        energy: `(n_draws, n_chains)`, theirs.
        acceptance_rate: `(n_chains,)`, the mean probability of acceptance after the warm-up;
            in float32 where the energy has less. One chain's is a noisy number: an adapted step
            aims at the mean over all chains and steps of the warm-up.
        step_size: the one used after the warm-up, None where the kernel has none.
        n_gradients: gradients of the energy a chain, warm-up included.
        n_energies: energies without gradient a chain, warm-up included.
        compile_seconds: what compiling took; 0.0 without it, or where it was done before.
        counts: what a kernel counts itself, by name, each `(n_chains,)`, after the warm-up.
    """

    samples: Tensor
    energy: Tensor
    acceptance_rate: Tensor
    step_size: float | None
    n_gradients: int
    n_energies: int
    compile_seconds: float
    counts: dict[str, Tensor] = field(default_factory=dict)

    def to_arviz(self):
        """The chain as an `arviz.InferenceData`: variable `x` and sample statistic `lp`."""
        from ebmref.samplers.diagnostics import arviz

        return arviz().from_dict(
            posterior={"x": in_full(self.samples).transpose(0, 1).cpu().numpy()},
            sample_stats={"lp": -in_full(self.energy).T.cpu().numpy()},
        )


def sample(
    kernel: Kernel,
    x0: Tensor,
    n_steps: int,
    *,
    warmup: int = 0,
    thin: int = 1,
    generator: torch.Generator,
    target_acceptance: float | None = None,
    progress: bool = False,
    compile: bool = False,
) -> Chain:
    """Run all chains of a kernel together, from x0.

    The start itself is never a draw. The same seed gives the same chain on one machine. With
    `compile` the loop runs as one compiled graph, the gradient inside. Its law is the same and
    its rounding is not; with many chains on a CPU, 32 and more a thread, each thread has a part
    of them and noise of its own, so that the draws are others and depend on the number of
    threads. Where the compiler is missing or refuses the energy, a warning says so and the
    chain goes on without it. A graph is kept as long as the energy lives, and made anew when
    the energy has changed.

    What the energy promises is tried at the start, in a few calls: its gradient, and that it
    gives the same value twice. Autocast holds for the energy as it does outside, and so does
    `torch.inference_mode`, but for the gradient, which is taken all the same. Under
    `torch.autocast("cpu", torch.bfloat16)` a compiled network of width 512 takes half the time, one
    of width 128 no less; the law is that of the rounded energy.

    Args:
        kernel: from `ebmref.samplers.kernels`.
        x0: `(n_chains, *event)`, floating point, inside the support; left as it is.
        n_steps: steps after the warm-up; `n_steps // thin` draws are kept, and no step is
            made after the last.
        warmup: steps before the first that may be kept.
        thin: keep one state in so many.
        generator: source of all randomness, on the device of x0.
        target_acceptance: in (0, 1): adapt the step size towards this acceptance during the
            warm-up (which then needs some), and freeze it.
        progress: show a progress bar.
        compile: run as one compiled graph; seconds to compile, once for the same kernel,
            energy and shapes.

    Raises:
        ValueError: an argument out of range, an x0 that is not a batch of finite numbers or
            lies outside the support or where the energy has no finite gradient, a generator on
            another device, an energy of wrong shape or with a gradient that is not its own.

    Warns:
        RuntimeWarning: an energy whose value changes from call to call, or is so large that
            rounding decides; a target acceptance that no step size reached; chains that never
            moved; a graph that could not be made.
    """
    n_steps = whole_number("n_steps", n_steps, 1)
    warmup = whole_number("warmup", warmup, 0)
    thin = whole_number("thin", thin, 1)
    _check_start(x0, generator)
    if n_steps < thin:
        raise ValueError(f"thin: expected at most n_steps = {n_steps}; got {thin}")
    if target_acceptance is not None:
        adaptation.check_target(kernel, target_acceptance, warmup)

    n_draws = n_steps // thin
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        tqdm(
            total=(warmup + n_draws * thin) * len(x0),
            desc=kernel.name,
            unit="step",
            unit_scale=True,
            disable=not progress,
        ) as bar,
    ):
        x0 = x0.detach().clone()
        if kernel.energy is not None and kernel.n_gradients:
            check_gradient(kernel.energy, x0)
        state = kernel.init(x0, generator)
        check_energy(state.energy, len(x0))
        if not state.energy.is_floating_point():
            raise ValueError(f"energy: expected floating-point numbers; got {state.energy.dtype}")
        if not state.energy.isfinite().all():
            raise ValueError("x0: its energy is not finite everywhere: it is outside the support")
        _warn_of_energy(kernel, state)
        if compile and "n_gradients" in _counts(state):
            compile = False
            warnings.warn(
                f"compile: goes on without, as the steps of {kernel.name} differ in length",
                RuntimeWarning,
                stacklevel=2,
            )
        # In float32 at least: adapting it means adding up.
        dtype = torch.promote_types(x0.dtype, torch.float32)
        step_size = torch.tensor(kernel.step_size or 0.0, dtype=dtype, device=x0.device)
        compile_seconds = 0.0
        if target_acceptance is not None:
            state, step_size = adaptation.warm_up(
                kernel, state, warmup, step_size, target_acceptance, generator, bar
            )
        elif warmup:
            state, _, compile_seconds = loop.advance(
                kernel, state, warmup, step_size, generator, bar, thin=thin, compile=compile
            )
        before = _counts(state)
        samples = x0.new_empty(n_draws, *x0.shape)
        energy = x0.new_empty(n_draws, len(x0))
        state, total, seconds = loop.advance(
            kernel,
            state,
            n_draws * thin,
            step_size,
            generator,
            bar,
            thin=thin,
            samples=samples,
            energy=energy,
            compile=compile,
        )
    _warn_of_stuck(kernel, samples)
    n_all = warmup + n_draws * thin
    counts = _counts(state)
    # Where steps differ in length the kernel's number is a bound, and its state has counted.
    spent = counts.get("n_gradients")
    return Chain(
        samples,
        energy,
        total / (n_draws * thin),
        None if kernel.step_size is None else float(step_size),
        n_all * kernel.n_gradients if spent is None else int(spent.max()),
        n_all * kernel.n_energies,
        compile_seconds + seconds,
        {name: count - before[name] for name, count in counts.items()},
    )


def _counts(state) -> dict[str, Tensor]:
    """What the state has counted since the start: its parts called n_something, `(n,)` each."""
    return {name: part for name, part in state._asdict().items() if name.startswith("n_")}


def _warn_of_energy(kernel: Kernel, state) -> None:
    """Warn where the energy throws dice, or has no digits left for a difference of 0.1."""
    if kernel.energy is not None and not repeats(kernel.energy, state.x, state.energy):
        warnings.warn(
            "energy: its value at x0 changes from call to call, as with dropout: there is no law "
            "that the chain could follow",
            RuntimeWarning,
            stacklevel=3,
        )
    largest = float(state.energy.abs().max())
    spacing = largest * torch.finfo(state.energy.dtype).eps
    if kernel.adjusted and spacing > 0.1:
        warnings.warn(
            f"energy: {largest:.2g} at x0, where numbers of its dtype lie {spacing:.2g} apart: "
            "rounding decides what is accepted; subtract a constant or use a longer dtype",
            RuntimeWarning,
            stacklevel=3,
        )


def _warn_of_stuck(kernel: Kernel, samples: Tensor) -> None:
    """Warn where a chain of many draws is one point; some hundred of them tell."""
    n_draws, n_chains = samples.shape[:2]
    if n_draws < _MANY:
        return
    some = samples[:: n_draws // _MANY]
    stuck = int((some == some[0]).all(0).reshape(n_chains, -1).all(1).sum())
    if stuck:
        warnings.warn(
            f"chain: {stuck} of {n_chains} chains never moved in {n_draws} draws of "
            f"{kernel.name}: every proposal was refused, or a step is too short for the digits "
            "of x; try another step size or start",
            RuntimeWarning,
            stacklevel=3,
        )


def _check_start(x0: Tensor, generator: torch.Generator) -> None:
    if not isinstance(x0, Tensor) or not x0.is_floating_point() or x0.dim() < 1:
        got = f"{x0.dtype} {tuple(x0.shape)}" if isinstance(x0, Tensor) else type(x0).__name__
        raise ValueError(f"x0: expected a float tensor (n_chains, *event); got {got}")
    if x0.numel() == 0:
        raise ValueError(f"x0: expected one chain or more, got shape {tuple(x0.shape)}")
    if not x0.isfinite().all():
        raise ValueError("x0: expected finite numbers; it holds NaN or infinity")
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator: expected a torch.Generator; got {type(generator).__name__}")
    if generator.device.type != x0.device.type:
        raise ValueError(
            f"generator: expected one on {x0.device.type}, as x0; it is on {generator.device}"
        )
