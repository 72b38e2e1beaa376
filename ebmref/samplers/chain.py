"""Run a kernel: warm-up, thinning, adaptation, and what comes out of it."""

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ebmref.energies import check_energy
from ebmref.samplers import adaptation, compiled
from ebmref.samplers.kernels import Kernel

# Noise is drawn for this many bytes or steps at a time, whichever is less.
_BLOCK_BYTES = 1 << 24
_BLOCK_STEPS = 480


@dataclass(frozen=True)
class Chain:
    """What `sample` returns.

    Attributes:
        samples: `(n_draws, n_chains, *event)`, every thin-th state after the warm-up.
        energy: `(n_draws, n_chains)`, theirs.
        acceptance_rate: `(n_chains,)`, the mean probability of acceptance after the warm-up.
        step_size: the one used after the warm-up, None where the kernel has none.
        n_gradients: gradients of the energy a chain, warm-up included.
        n_energies: energies without gradient a chain, warm-up included.
        compile_seconds: what compiling took; 0.0 without it, or where it was done before.
    """

    samples: Tensor
    energy: Tensor
    acceptance_rate: Tensor
    step_size: float | None
    n_gradients: int
    n_energies: int
    compile_seconds: float

    def to_arviz(self):
        """The chain as an `arviz.InferenceData`: variable `x` and sample statistic `lp`."""
        from ebmref.samplers.diagnostics import arviz

        return arviz().from_dict(
            posterior={"x": self.samples.transpose(0, 1).cpu().numpy()},
            sample_stats={"lp": -self.energy.T.cpu().numpy()},
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

    The start itself is never a draw. The same seed gives the same chain on one machine, on
    any number of threads. With `compile` the loop runs as one compiled graph, the gradient
    inside, on the same noise; its law is the same and its rounding is not. Where the compiler
    is missing or refuses the energy, a warning says so and the chain goes on without it.

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
            lies outside the support, a generator on another device, an energy of wrong shape.
    """
    _check_count("n_steps", n_steps, 1)
    _check_count("warmup", warmup, 0)
    _check_count("thin", thin, 1)
    _check_start(x0, generator)
    if n_steps < thin:
        raise ValueError(f"thin: expected at most n_steps = {n_steps}; got {thin}")
    if target_acceptance is not None:
        adaptation.check_target(kernel, target_acceptance, warmup)

    with (
        torch.no_grad(),
        tqdm(total=warmup + n_steps, desc=kernel.name, unit="step", disable=not progress) as bar,
    ):
        state = kernel.init(x0.detach().clone(), generator)
        check_energy(state.energy, len(x0))
        if not state.energy.isfinite().all():
            raise ValueError(
                "x0: its energy is not finite everywhere, so it is outside the support"
            )
        step_size = torch.tensor(kernel.step_size or 0.0, dtype=x0.dtype, device=x0.device)
        run = compiled.Loop(kernel, x0, thin, enabled=compile)

        if target_acceptance is None:
            for noise in _blocks(kernel, x0, warmup, run.unroll, generator):
                state, _ = run(state, noise, step_size)
                bar.update(len(noise[0]))
        else:
            tuning = adaptation.start(step_size, target_acceptance)
            for noise in _blocks(kernel, x0, warmup, run.unroll, generator):
                for one in zip(*(part.unbind(0) for part in noise), strict=True):
                    state, acceptance = kernel.step(state, one, tuning.log_step.exp())
                    tuning = adaptation.update(tuning, acceptance.mean())
                bar.update(len(noise[0]))
            step_size = tuning.log_step_mean.exp()

        n_draws = n_steps // thin
        samples = x0.new_empty(n_draws, *x0.shape)
        energy = x0.new_empty(n_draws, len(x0))
        total = x0.new_zeros(len(x0))
        done = kept = 0
        for noise in _blocks(kernel, x0, n_draws * thin, run.unroll, generator):
            length = len(noise[0])
            # Steps done + 1, ..., done + length; those divisible by thin are kept.
            stop = (done + length) // thin
            state, acceptance = run(
                state, noise, step_size, samples[kept:stop], energy[kept:stop], done % thin
            )
            total += acceptance
            done, kept = done + length, stop
            bar.update(length)
    return Chain(
        samples,
        energy,
        total / done,
        None if kernel.step_size is None else float(step_size),
        (warmup + done) * kernel.n_gradients,
        (warmup + done) * kernel.n_energies,
        run.compile_seconds,
    )


def _blocks(kernel, x0, n_steps, unroll, generator):
    """The noise of n_steps steps, some hundred at a time; one buffer for all."""
    width = kernel.n_noise * x0.numel() * x0.element_size()
    length = min(_BLOCK_STEPS, max(1, _BLOCK_BYTES // width))
    length = max(unroll, length // unroll * unroll)
    noise = None
    for start in range(0, n_steps, length):
        noise = kernel.draw(min(length, n_steps - start), x0, generator, noise)
        yield noise


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected an integer >= {least}; got {value!r}")


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
