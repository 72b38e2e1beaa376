"""The smallest exact examples of learning without Z: by formula, and by simulation with an error.

    a Gaussian's precision    k of CD-k is a speed; what its sampler gets wrong is what is learned
    two basins                CD sees their masses by the share of its chains that cross
    denoising                 learns the law blurred
    noise contrast            learns -log Z, and how well depends on the noise

All in double precision. E(x) = a x^2 / 2 is the Gaussian of precision a; s is the variance of the
data, so that a = 1 / s is right.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref.samplers import Kernel, sample
from ebmref.seeds import derive_seed

DOUBLE = torch.float64


class Estimate(NamedTuple):
    """A simulated value and its standard error, tensors of one shape."""

    value: Tensor
    se: Tensor


class Paths(NamedTuple):
    """What is learned, step by step: by the recursion of the mean, and simulated.

    Attributes:
        formula: `(..., n_steps + 1)`.
        learned: the mean over models and its error, of the same shape.
    """

    formula: Tensor
    learned: Estimate


def _mean(x: Tensor, dim: int = 0) -> Estimate:
    return Estimate(x.mean(dim), x.std(dim) / math.sqrt(x.shape[dim]))


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


def _check_stable(a, step_size: float) -> None:
    a = torch.as_tensor(a, dtype=DOUBLE)
    if not step_size > 0 or not ((a > 0) & (a * step_size < 4)).all():
        raise ValueError(
            f"a, step_size: expected > 0, and a step below 4 / a, beyond which ULA runs away; got "
            f"{a.tolist()} and {step_size}"
        )


# A Gaussian's precision --------------------------------------------------------------------------


def cd_variance(a: float | Tensor, k: int, step_size: float, s: float) -> float | Tensor:
    """Of the negatives of CD-k by ULA: r^2k s + (1 - r^2k) v, between the data's and the chain's.

    A step x' = (1 - h a / 2) x + sqrt(h) xi has r = 1 - h a / 2, and for its own law the variance
    v = 1 / (a (1 - h a / 4)), which is not 1 / a.
    """
    _check_stable(a, step_size)
    forgotten = (1 - step_size * a / 2) ** (2 * k)
    return forgotten * s + (1 - forgotten) / (a * (1 - step_size * a / 4))


def cd_slope(a: float | Tensor, k: int, step_size: float, s: float) -> float | Tensor:
    """Of the loss of CD-k by ULA along a, by the formula; the exact one is (s - 1 / a) / 2."""
    return (s - cd_variance(a, k, step_size, s)) / 2


def cd_fixed_point(step_size: float, s: float) -> float:
    """Where that slope is zero for every k: a (1 - h a / 4) = 1 / s.

    Raises:
        ValueError: a step above s, for which there is none.
    """
    if not 0 < step_size <= s:
        raise ValueError(f"step_size: expected > 0 and at most s = {s}; got {step_size}")
    return 2 / step_size * (1 - math.sqrt(1 - step_size / s))


def _precision(a: Tensor) -> Callable[[Tensor], Tensor]:
    """E of rows, those of each of the models `(m,)` in one piece."""

    def energy(x: Tensor) -> Tensor:
        return 0.5 * (a[:, None] * x.view(len(a), -1).square()).flatten()

    return energy


def cd_slopes(
    kernel: Callable[..., Kernel], a: float, ks: tuple[int, ...], step_size: float, s: float,
    n: int, seed: int, device="cpu",
) -> Estimate:  # fmt: skip
    """`cd_slope` simulated with n chains, `(len(ks),)`: one run, looked at after k steps.

    Args:
        kernel: `ula`, `mala` or another of an energy and a step size.
    """
    draws = _source(seed, "cd-slopes", device)
    x = math.sqrt(s) * torch.randn(n, 1, generator=draws, dtype=DOUBLE, device=device)
    energy = _precision(torch.full((1,), a, dtype=DOUBLE, device=device))
    chain = sample(kernel(energy, step_size), x, max(ks), generator=draws)
    after = chain.samples[[k - 1 for k in ks], :, 0]
    return _mean(0.5 * (x[:, 0].square() - after.square()), 1)


def cd_learning(
    kernel: Callable[..., Kernel], ks: tuple[int, ...], step_size: float, s: float, *,
    a: float, rate: float, n_steps: int, batch: int, n_models: int, seed: int, device="cpu",
) -> Paths:  # fmt: skip
    """A precision learned by CD-k, from a on, along the slope times a rate: `(len(ks), steps + 1)`.

    The formula is ULA's, whatever the kernel; the models differ by their draws alone.
    """
    formula, learned = [], []
    for k in ks:
        path = [a]
        for _ in range(n_steps):
            path.append(path[-1] - rate * cd_slope(path[-1], k, step_size, s))
        formula.append(path)
        draws = _source(seed, f"cd-learning-{k}", device)
        at = torch.full((n_models,), a, dtype=DOUBLE, device=device)
        made = [at]
        for _ in range(n_steps):
            x = torch.randn(n_models * batch, 1, generator=draws, dtype=DOUBLE, device=device)
            x = math.sqrt(s) * x
            chain = sample(kernel(_precision(at), step_size), x, k, thin=k, generator=draws)
            slopes = 0.5 * (x.square() - chain.samples[0].square()).view(n_models, batch).mean(1)
            at = at - rate * slopes
            made.append(at)
        learned.append(_mean(torch.stack(made, 1)))
    found = Estimate(*(torch.stack(parts) for parts in zip(*learned, strict=True)))
    return Paths(torch.tensor(formula, dtype=DOUBLE), found)


# Two basins --------------------------------------------------------------------------------------


def crossed(rate: float, k: int) -> float:
    """e_k = 1 - (1 - e)^k: the share of chains that crossed in k steps, e of them in each.

    To cross is to be drawn from the model's own law of the two basins, be it the same one again.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: expected a share in [0, 1]; got {rate}")
    return 1 - (1 - rate) ** k


def basin_share(depth: float | Tensor) -> float | Tensor:
    """The model's mass of the basin that lies higher by `depth` than the other one."""
    if isinstance(depth, Tensor):
        return (-depth).sigmoid()
    return 1 / (1 + math.exp(depth))


def crossing_slopes(
    share: float, depth: float, rates: tuple[float, ...], ks: tuple[int, ...], n: int, seed: int,
    device="cpu",
) -> tuple[Tensor, Estimate]:  # fmt: skip
    """The slope of CD-k's loss along the depth, over the exact one `share - basin_share(depth)`.

    Args:
        share: of the data in the basin that is higher by `depth` in the model.
        rates: e, the share of chains that cross in a step.
        n: chains.

    Returns:
        The formula, e_k, and the simulated ratio: `(len(rates), len(ks))` each.
    """
    exact = share - basin_share(depth)
    if abs(exact) < 1e-9:
        raise ValueError("share, depth: the exact slope is zero, there is no ratio to it")
    formula = torch.tensor([[crossed(e, k) for k in ks] for e in rates], dtype=DOUBLE)
    draws = _source(seed, "crossing", device)
    found = []
    for e in rates:
        up = torch.rand(n, generator=draws, device=device) < share
        x, after = up, {}
        for k in range(1, max(ks) + 1):
            x = _cross(x, torch.full((), depth, device=device), e, draws)
            after[k] = x
        differences = torch.stack([up.double() - after[k].double() for k in ks])
        found.append(_mean(differences / exact, 1))
    return formula, Estimate(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def _cross(up: Tensor, depth: Tensor, rate: float, draws: torch.Generator) -> Tensor:
    """A step of chains that are in the upper basin or not; depth as `basin_share` broadcasts."""
    u = torch.rand(2, *up.shape, generator=draws, device=up.device)
    return torch.where(u[0] < rate, u[1] < basin_share(depth), up)


def basin_learning(
    share: float, rate: float, k: int, *, learning_rate: float, n_steps: int, n_chains: int,
    n_models: int, seed: int, device="cpu",
) -> dict[str, Paths]:  # fmt: skip
    """The mass of a basin as it is learned, from one half on, by three ways to make negatives.

    "exact" ones; "cd", chains from the data; "pcd", chains kept from step to step, whose share b
    follows by b' = (1 - e_k) b + e_k p and still knows how the masses were wrong before.

    Args:
        share: of the data in the one basin.
        rate: the share of chains that cross in one of the k steps.

    Returns:
        Of each way the model's masses, `(n_steps + 1,)`.
    """
    e_k, paths = crossed(rate, k), {}
    for way in ("exact", "cd", "pcd"):
        depth, kept, formula = 0.0, 0.5, [0.5]
        draws = _source(seed, f"basins-{way}", device)
        shape = (n_models, n_chains)
        buffer = torch.rand(shape, generator=draws, device=device) < 0.5
        depths = torch.zeros(n_models, 1, dtype=DOUBLE, device=device)
        learned = [basin_share(depths)]
        for _ in range(n_steps):
            p = basin_share(depth)
            begun = {"exact": p, "cd": share, "pcd": kept}[way]
            kept = begun + e_k * (p - begun)
            depth -= learning_rate * (share - kept)
            formula.append(basin_share(depth))

            data = torch.rand(shape, generator=draws, device=device) < share
            if way == "exact":
                x = _cross(data, depths, 1.0, draws)
            else:
                x = data if way == "cd" else buffer
                for _ in range(k):
                    x = _cross(x, depths, rate, draws)
            buffer = x
            depths = depths - learning_rate * (data.double() - x.double()).mean(1, keepdim=True)
            learned.append(basin_share(depths))
        paths[way] = Paths(
            torch.tensor(formula, dtype=DOUBLE), _mean(torch.cat(learned, 1))
        )  # fmt: skip
    return paths


class Blindness(NamedTuple):
    """Two mixtures that differ in their weights alone, `(len(separations),)` each.

    Attributes:
        kl: in nats.
        fisher: half the mean squared distance of their scores, what score matching descends.
    """

    kl: Tensor
    fisher: Tensor


def blindness(separations: tuple[float, ...], share: float, other: float) -> Blindness:
    """Two unit Gaussians so far apart, the one of mass `share`, against one of mass `other`."""
    found = []
    for separation in separations:
        x = torch.linspace(-12, separation + 12, 20_001, dtype=DOUBLE)
        cell = x[1] - x[0]
        part = -0.5 * torch.stack([x, x - separation]).square() - 0.5 * math.log(2 * math.pi)
        log_p, log_q = (
            (part + torch.tensor([[1 - w], [w]], dtype=DOUBLE).log()).logsumexp(0)
            for w in (share, other)
        )
        # The score is minus the mean of x - centre, by the shares of the two at x.
        turn = [(part[1] + math.log(w) - log).exp() for w, log in ((share, log_p), (other, log_q))]
        gap = separation * (turn[0] - turn[1])
        p = log_p.exp()
        found.append([(p * (log_p - log_q)).sum() * cell, 0.5 * (p * gap.square()).sum() * cell])
    kl, fisher = torch.tensor(found, dtype=DOUBLE).T
    return Blindness(kl, fisher)


# Denoising ---------------------------------------------------------------------------------------


def denoised_precision(
    sigmas: tuple[float, ...], s: float, n: int, seed: int, device="cpu"
) -> tuple[Tensor, Estimate]:
    """The best a of denoising score matching: by the formula 1 / (s + sigma^2), and from n data.

    The loss mean |sigma a y - z|^2, y = x + sigma z, is a least squares fit of z by sigma y.
    """
    draws, found = _source(seed, "denoising", device), []
    for sigma in sigmas:
        x, z = torch.randn(2, n, generator=draws, dtype=DOUBLE, device=device)
        y = sigma * (math.sqrt(s) * x + sigma * z)
        square = y.square().mean()
        a = (y * z).mean() / square
        found.append((a, (y * (z - a * y)).std() / (math.sqrt(n) * square)))
    formula = torch.tensor([1 / (s + sigma**2) for sigma in sigmas], dtype=DOUBLE)
    return formula, Estimate(*(torch.stack(parts) for parts in zip(*found, strict=True)))


# Noise contrast ----------------------------------------------------------------------------------


class Constant(NamedTuple):
    """The constant of noise contrast, E being right; all `(len(scales), len(nus))` but the truth.

    Attributes:
        truth: -log Z.
        formula: standard deviation by the large-sample formula.
        mean, deviation: over replicates.
    """

    truth: float
    formula: Tensor
    mean: Estimate
    deviation: Estimate


def nce_constant(
    scales: tuple[float, ...], nus: tuple[int, ...], s: float, n_points: int, n_replicates: int,
    seed: int, device="cpu",
) -> Constant:  # fmt: skip
    """c learned alone, by the energy x^2 / 2s and noise N(0, (scale^2) s).

    With the share P(x) = nu q / (nu q + p) that noise has at x and I = E_p[P], the variance of the
    c of n data is (1 / I - 1 - 1 / nu) / n (from Gutmann & Hyvarinen 2012): none where the noise
    is the law itself, and without bound as they part.

    Args:
        scales: of the noise, over that of the data.
        n_points: data and noise together, so that ways of one price are held side by side.
    """
    draws = _source(seed, "nce-constant", device)
    truth = -0.5 * math.log(2 * math.pi * s)
    formula, means, deviations = [], [], []
    for scale in scales:
        for nu in nus:
            n = n_points // (1 + nu)
            if n < 1:
                raise ValueError(f"n_points: expected more than nu = {nu}; got {n_points}")
            share = _noise_share(scale, nu)
            formula.append(math.sqrt(max(1 / share - 1 - 1 / nu, 0.0) / n))
            shape = {"generator": draws, "dtype": DOUBLE, "device": device}
            data = torch.randn(n_replicates, n, **shape)
            noise = scale * torch.randn(n_replicates, nu * n, **shape)
            # In units of the data's deviation: log p - log q without their constants but for c's.
            offset = math.log(scale) - math.log(nu)
            u_data, u_noise = (
                0.5 * x.square() * (scale**-2 - 1) + offset for x in (data, noise)
            )  # fmt: skip
            error = _root(u_data, u_noise, nu)
            means.append(_mean(truth + error))
            deviation = error.std()
            deviations.append(Estimate(deviation, deviation / math.sqrt(2 * (n_replicates - 1))))
    shape = (len(scales), len(nus))

    def table(found: list[Estimate]) -> Estimate:
        return Estimate(*(torch.stack(part).view(shape) for part in zip(*found, strict=True)))

    by_formula = torch.tensor(formula, dtype=DOUBLE).view(shape)
    return Constant(truth, by_formula, table(means), table(deviations))


def _noise_share(scale: float, nu: int) -> float:
    """E_p[nu q / (nu q + p)] by quadrature, p a unit Gaussian."""
    x = torch.linspace(-12, 12, 20_001, dtype=DOUBLE)
    log_p = -0.5 * x.square() - 0.5 * math.log(2 * math.pi)
    log_q = -0.5 * (x / scale).square() - math.log(scale) - 0.5 * math.log(2 * math.pi)
    return float(((math.log(nu) + log_q - log_p).sigmoid() * log_p.exp()).sum() * (x[1] - x[0]))


def _root(u_data: Tensor, u_noise: Tensor, nu: int) -> Tensor:
    """What is to be added to the log-odds so that the loss has no slope by it, for each row.

    By halving: the slope grows with it.
    """
    low = torch.full_like(u_data[:, :1], -30.0)
    high = -low
    for _ in range(60):
        middle = (low + high) / 2
        slope = nu * (u_noise + middle).sigmoid().mean(1) - (-u_data - middle).sigmoid().mean(1)
        below = (slope < 0)[:, None]
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return ((low + high) / 2)[:, 0]
