"""Methods that move latents: by a kernel of `ebmref.samplers`, or by a rule that keeps no law."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ebmref import samplers
from ebmref.checks import check_draws
from ebmref.ddls.model import Model, Refined, latent_energy, pieces, with_slope

DIVERGENCES = ("KL", "logD", "JS")
# Kernels of `ebmref.samplers` that `chains` knows by name, and those that draw from the prior.
KERNELS = (
    "random_walk", "ula", "mala", "hmc", "kinetic_langevin", "parallel_tempering",
    "independence", "isir", "ex2mcmc",
)  # fmt: skip
_GLOBAL = ("independence", "isir", "ex2mcmc")


def chains(
    model: Model,
    n: int,
    kernel: str | Callable[..., samplers.Kernel],
    n_steps: int,
    generator: torch.Generator,
    *,
    start: Tensor | None = None,
    beta: float = 1.0,
    temperature: float = 1.0,
    warmup: int = 0,
    target_acceptance: float | None = None,
    progress: bool = False,
    **options,
) -> Refined:
    """Run any kernel of `ebmref.samplers` on the latent energy: n chains, their last states.

        chains(model, 1000, "mala", 200, generator, step_size=0.1, warmup=50,
               target_acceptance=0.57)

    All chains of all models move at once, at one step size.

    Args:
        n: chains a model.
        kernel: one of `KERNELS`, or a function that makes one from an energy. Those with
            proposals of their own (independence, isir, ex2mcmc) take them from the prior.
        n_steps: after the warm-up; the last state is the sample.
        start: states `(k, n, d)`, for example those of `resampling`; None for the prior's.
        beta, temperature: of `latent_energy`.
        warmup, target_acceptance, progress: see `samplers.sample`.
        options: of the kernel, such as `step_size`, `n_leapfrog`, `n_proposals`, `betas`.

    Raises:
        ValueError: an argument out of range, a start of another shape or outside the support.
    """
    return chains_as_planned(
        model,
        n,
        kernel,
        lambda _: (n_steps, warmup),
        generator,
        start=start,
        beta=beta,
        temperature=temperature,
        target_acceptance=target_acceptance,
        progress=progress,
        **options,
    )


def chains_as_planned(
    model, n, kernel, plan, generator, *, start=None, beta=1.0, temperature=1.0,
    target_acceptance=None, progress=False, **options,
) -> Refined:  # fmt: skip
    """`chains`, with steps and warm-up as `plan` has them for the kernel."""
    energy = latent_energy(model, beta, temperature)
    if not callable(kernel):
        if kernel not in KERNELS:
            raise ValueError(f"kernel: expected one of {', '.join(KERNELS)}; got {kernel!r}")
        if kernel in _GLOBAL:
            options = {"proposal": model.prior, **options}
        kernel = getattr(samplers, kernel)
    start = start_states(model, n, start, generator)
    kernel = kernel(energy, **options)
    n_steps, warmup = plan(kernel)
    run = {"warmup": warmup, "target_acceptance": target_acceptance, "progress": progress}
    made = _run(model, kernel, start, n_steps, generator, **run)
    return made._replace(temperature=float(temperature))


def langevin(
    model: Model,
    n: int,
    n_steps: int,
    generator: torch.Generator,
    *,
    step_size: float = 0.01,
    noise_scale: float | None = None,
    decay: float = 1.0,
    decay_every: int | None = None,
    start: Tensor | None = None,
    beta: float = 1.0,
    progress: bool = False,
) -> Refined:
    """Discriminator-driven latent sampling (Che et al. 2020), unadjusted, with its noise told:

        z' = z - step_size / 2 grad E(z) + noise_scale xi,   xi ~ N(0, I).

    This is `samplers.ula` with a step of noise_scale^2 at the temperature
    noise_scale^2 / step_size, which `Refined.temperature` tells. It is 1 for the noise of the
    equation, sqrt(step_size); published code often takes less, and draws from a colder law.

    Args:
        n: chains a model.
        step_size, noise_scale: as above; noise_scale None for sqrt(step_size).
        decay, decay_every: after so many steps take the step so many times as large, and the
            noise by the root of it, which keeps the temperature.
        start, beta, progress: see `chains`.

    Raises:
        ValueError: as `chains`.
    """
    check_draws(n_steps, 1, generator, "n_steps")
    noise_scale = step_size**0.5 if noise_scale is None and step_size > 0 else noise_scale
    for name, value in (("step_size", step_size), ("noise_scale", noise_scale)):
        if value is None or not 0 < value < math.inf:
            raise ValueError(f"{name}: expected a finite number > 0; got {value!r}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay: expected a number in (0, 1]; got {decay!r}")
    if decay < 1 and decay_every is None:
        raise ValueError("decay_every: expected a number of steps, as decay < 1")
    every = n_steps if decay_every is None else decay_every
    check_draws(every, 1, generator, "decay_every")
    temperature = noise_scale**2 / step_size
    energy = latent_energy(model, beta, temperature)
    states = first = start_states(model, n, start, generator)
    n_gradients = 0.0
    for stage, done in enumerate(range(0, n_steps, every)):
        kernel = samplers.ula(energy, noise_scale**2 * decay**stage)
        steps = min(every, n_steps - done)
        made = _run(model, kernel, states, steps, generator, progress=progress)
        states, n_gradients = made.states, n_gradients + made.n_gradients
    return made._replace(
        n_gradients=n_gradients, stuck=_unmoved(first, states), temperature=temperature
    )


def start_states(model: Model, n: int, start: Tensor | None, generator: torch.Generator) -> Tensor:
    """The states to begin with, `(k, n, d)`: those given, or draws of the prior.

    Raises:
        ValueError: they are of another shape.
    """
    check_draws(n, 1, generator)
    if start is None:
        return model.draw(n, generator)
    expected = (model.k, n, model.prior.d)
    if tuple(start.shape) != expected:
        raise ValueError(f"start: expected states {expected}; got {tuple(start.shape)}")
    return start


def _unmoved(start: Tensor, states: Tensor) -> Tensor:
    return (start == states).all(-1).double().mean(1)


def _run(model, kernel, start, n_steps, generator, **run) -> Refined:
    """The last states of a kernel's chains, and what they cost."""
    chain = samplers.sample(
        kernel, start.flatten(0, 1), n_steps, thin=n_steps, generator=generator, **run
    )
    states = chain.samples[0].view_as(start)
    acceptance = chain.acceptance_rate.view(start.shape[:2]).double().mean(1)
    calls, gradients = cost_of_start(kernel)
    return Refined(
        states,
        acceptance if kernel.adjusted else torch.full_like(acceptance, math.nan),
        _unmoved(start, states),
        float(chain.n_energies + calls),
        float(chain.n_gradients + gradients),
    )


def cost_of_start(kernel: samplers.Kernel) -> tuple[int, int]:
    """Energies and gradients of the start: kernels that count energies apart need no gradient."""
    return (1, 0) if kernel.n_energies else (0, 1)


def gradient_flow(
    model: Model,
    n: int,
    n_steps: int,
    generator: torch.Generator,
    *,
    divergence: str = "KL",
    step_size: float = 0.1,
    gamma: float = 0.01,
    start: Tensor | None = None,
) -> Refined:
    """Discriminator gradient flow (Ansari et al. 2021), in latents:

        z' = z + step_size s(d) grad_z d(G(z)) + sqrt(2 step_size gamma) xi,   xi ~ N(0, I),

    s = 1 (KL), 1 / (1 + e^d) (logD) or 1 / (1 + e^-d) (JS). No prior pulls back, so that no law
    is kept: with many steps samples gather where d is large. The step, gamma and 25 steps are
    those of their code. Latents of a uniform prior that leave the cube are put back on its wall.

    Raises:
        ValueError: an argument out of range, a gradient that is not finite.
    """
    check_draws(n_steps, 1, generator, "n_steps")
    if divergence not in DIVERGENCES:
        raise ValueError(
            f"divergence: expected one of {', '.join(DIVERGENCES)}; got {divergence!r}"
        )
    if not 0 < step_size < math.inf or not 0 <= gamma < math.inf:
        raise ValueError(
            f"step_size, gamma: expected > 0 and >= 0, finite; got {step_size} and {gamma}"
        )
    first = states = start_states(model, n, start, generator)
    for _ in range(n_steps):
        z = model.prior.latent(states)
        d, slope = _slope(model, z)
        if divergence != "KL":
            slope = slope * (-d if divergence == "logD" else d).sigmoid()[..., None]
        xi = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        states = model.prior.state(z + step_size * slope + (2 * step_size * gamma) ** 0.5 * xi)
    return moved(first, states, 0.0, n_steps)


def transport(
    model: Model,
    n: int,
    n_steps: int,
    generator: torch.Generator,
    *,
    step_size: float = 0.05,
    lipschitz: float | Tensor | None = None,
    n_pairs: int = 100,
    keep_radius: bool = False,
    start: Tensor | None = None,
) -> Refined:
    """Discriminator optimal transport (Tanaka 2019), in latents: descend, from z_0, by gradient

        |z - z_0 + 0.001| - d(G(z)) / lipschitz.

    Moves for which the critic gains less than it can over that distance do not pay. The form is
    that of the author's code. For a uniform prior the latents are put back on the cube's wall. No
    law is kept.

    Args:
        lipschitz: of d(G(.)), a number or `(k,)`; None for the steepest of n_pairs pairs of
            latents, which costs their passes.
        keep_radius: take the radial part z (z . g) / |z|^2 from the gradient g, so that latents
            stay near the sphere where a normal prior of many dimensions is. (The code does so
            for normal priors, with sqrt(d) in the place of |z|^2, which turns that part around.)

    Raises:
        ValueError: an argument out of range, a gradient that is not finite.
    """
    check_draws(n_steps, 1, generator, "n_steps")
    check_draws(n_pairs, 1, generator, "n_pairs")
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size: expected a finite number > 0; got {step_size!r}")
    calls = 0.0
    if lipschitz is None:
        pair = [model.draw(n_pairs, generator) for _ in range(2)]
        apart = (model.prior.latent(pair[0]) - model.prior.latent(pair[1])).double().norm(dim=-1)
        steepness = (model.logits(pair[0]) - model.logits(pair[1])).abs() / apart
        # A wall is not steep: what is infinite, or NaN for two of them, does not count.
        steepness = torch.where(steepness < math.inf, steepness, 0.0)
        lipschitz, calls = steepness.amax(1), 2 * n_pairs / n
    first = states = start_states(model, n, start, generator)
    lipschitz = torch.as_tensor(lipschitz, dtype=states.dtype, device=states.device)
    if (
        lipschitz.shape not in ((), (model.k,))
        or not ((lipschitz > 0) & lipschitz.isfinite()).all()
    ):
        raise ValueError(f"lipschitz: expected > 0, finite, one or ({model.k},); got {lipschitz}")
    lipschitz = lipschitz.view(-1, 1, 1)
    origin = model.prior.latent(first)
    for _ in range(n_steps):
        z = model.prior.latent(states)
        _, slope = _slope(model, z)
        away = z - origin + 0.001
        reach = away.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        descent = away / reach - slope / lipschitz
        if keep_radius:
            radial = (z * descent).sum(-1, keepdim=True)
            descent = descent - z * radial / z.square().sum(-1, keepdim=True).clamp(min=1e-12)
        states = model.prior.state(z - step_size * descent)
    return moved(first, states, calls, n_steps)


def _slope(model: Model, z: Tensor) -> tuple[Tensor, Tensor]:
    """d(G(z)) of latents `(k, n, d)` and its gradient in them."""
    d, slope = with_slope(model.judge, pieces(z))
    if not slope.isfinite().all():
        raise ValueError("critic: its gradient in the latent is not finite everywhere")
    return d, slope


def moved(first: Tensor, states: Tensor, n_calls: float, n_steps: int) -> Refined:
    """What moves without a test of acceptance give back, from `first` to `states`."""
    nothing = torch.full((len(states),), math.nan, dtype=torch.float64, device=states.device)
    return Refined(states, nothing, _unmoved(first, states), n_calls, float(n_steps), math.nan)
