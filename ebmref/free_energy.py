"""Free energy: the latent variable removed (report section 2.2.2, equations 4 and 5).

    F_beta(x, y) = -1/beta log int exp(-beta E(x, y, z)) mu(dz)                      (4)
    F_inf(x, y)  = min_z E(x, y, z)                                                  (5)

As printed, (4) has no logarithm and (5) minimises over a letter that does not occur. What
(4) leaves open is the measure mu, and it matters:

    counting      sum over the z_k     F grows with beta, towards the minimum
    normalised    mean over the z_k    F falls with beta, from the mean to the minimum
    lebesgue      integral over z      e^{-beta F} is the marginal; F need not be monotone

The first two differ by log(n) / beta. With each, F tends to the minimum as beta grows, and the
gradient of F is the mean of the gradients of E under p(z | x, y) ~ exp(-beta E), the softmin.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ebmref.checks import check_draws
from ebmref.energies import Energy, check_energy
from ebmref.inference import check_answers
from ebmref.latent import LatentEnergy, Variables, energy_table
from ebmref.samplers.annealed import annealed_importance_sampling
from ebmref.samplers.importance import (
    Importance,
    importance_estimate,
    weighted_estimate,
)

MEASURES = ("counting", "normalised", "lebesgue")
# Mean weights, relative to the largest, below which the cold form of F is taken. In double
# precision the other one is good to 2e-12 down to here, and recorded numbers hang on its last bit.
_FEW = {torch.float32: 0.5, torch.float64: 2.0**-13}


def free_energy(
    energy: Tensor, beta: float, measure: str = "normalised", *, cell: float | None = None
) -> Tensor:
    """Equation (4), or (5) for an infinite beta, from the energies of a grid of z.

    Args:
        energy: `(..., m)`, E(x, y, z_k); +inf where z_k is impossible. Differentiable.
        beta: > 0, one over temperature; `math.inf` takes the minimum.
        measure: "counting", "normalised" or "lebesgue".
        cell: of "lebesgue" alone, the volume of z that each point of the grid stands for.

    Returns:
        `(...)`, in the units and the dtype of the energy. Sums are in single precision at least; of
        energies about c no digit below c times the dtype's epsilon is known.

    Raises:
        ValueError: no grid, a NaN, -inf, or nothing but +inf over a grid; beta <= 0; an unknown
            measure; a cell that is missing, not > 0, or given to another measure.
    """
    least = _check_grid(energy)
    _check_beta(beta)
    if measure not in MEASURES:
        raise ValueError(f"measure: expected one of {', '.join(MEASURES)}; got {measure!r}")
    fits = _is_number(cell) and 0 < cell < math.inf if measure == "lebesgue" else cell is None
    if not fits:
        raise ValueError(
            f"cell: expected > 0 with the lebesgue measure, alone, and finite; got {cell!r}"
        )
    if math.isinf(beta):
        return energy.amin(-1)
    n = energy.shape[-1]
    volume = {"counting": n, "normalised": 1, "lebesgue": cell and n * cell}[measure]
    roomy = _roomy(energy, beta)
    least = least.to(roomy.dtype)
    scaled = -beta * (roomy - least[..., None])
    # Weights relative to the largest, less one: so that F keeps its digits in the heat, too.
    excess = scaled.expm1().mean(-1)
    cold = excess < _FEW[roomy.dtype] - 1
    log_mean = torch.where(cold, 0.0, excess).log1p()
    value = least - (log_mean + math.log(volume)) / beta
    if cold.any():
        # In the cold nearly all of these are -1, and their mean has lost the few that are not.
        log_sum = scaled.exp().sum(-1).log()
        in_cold = least - (log_sum + math.log(volume / n)) / beta
        value = torch.where(cold, in_cold, value)
    return value.to(energy.dtype)


def softmin(energy: Tensor, beta: float) -> Tensor:
    """p(z_k | x, y) on a grid of z, `(..., m)`: exp(-beta E), made to sum to one.

    It is the derivative of `free_energy` by the energies, whatever the measure. For an infinite
    beta all of it lies on the minimum, shared evenly where several energies are the least.

    Raises:
        ValueError: as `free_energy`.
    """
    least = _check_grid(energy)
    _check_beta(beta)
    if math.isinf(beta):
        at_least = (energy == least[..., None]).to(energy)
        return at_least / at_least.sum(-1, keepdim=True)
    roomy = _roomy(energy, beta)
    # The rounding of beta E goes into the weights as it is. Where it is to be seen the least energy
    # is taken off first; elsewhere not, because recorded numbers hang on the last bit.
    least = least.to(roomy.dtype)
    seen = beta * torch.finfo(roomy.dtype).eps * least.abs() > 1e-12
    if seen.any():
        roomy = roomy - torch.where(seen, least, 0.0)[..., None]
    return (-beta * roomy).softmax(-1).to(energy.dtype)


def marginal_energy(
    energy: LatentEnergy,
    z: Tensor,
    beta: float,
    measure: str = "normalised",
    *,
    cell: float | None = None,
    known: Variables | None = None,
) -> Energy:
    """F_beta as an energy of y alone, `(n, *event) -> (n,)`: for any sampler or argmin.

    Args:
        energy: `energy(y=..., z=..., **known) -> (n,)`.
        z: `(m, *event)`, the grid.
        known: other variables, one row each, the same for every y.
        beta, measure, cell: as for `free_energy`.

    Raises:
        ValueError: when it is called, as `free_energy` and `ebmref.latent.energy_table`.
    """

    def of_y(y: Tensor) -> Tensor:
        rows = {
            name: value.expand(len(y), *value.shape[1:]) for name, value in (known or {}).items()
        }
        return free_energy(
            energy_table(energy, {"y": y} | rows, {"z": z})[0], beta, measure, cell=cell
        )

    return of_y


def importance_free_energy(
    energy: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    prior,
    beta: float,
    n: int,
    generator: torch.Generator,
    *,
    proposal=None,
) -> Importance:
    """exp(-beta F_beta) of each y by n weighted draws of z, where no grid can be afforded.

    The measure mu is the prior, a law of z; `log_z` of the result is -beta F_beta:

        exp(-beta F(y)) = E_q[exp(-beta E(y, z)) prior(z) / q(z)]

    Its mean is exact; -log of it is too high on average, by half of `log_z_se`^2 and more, so
    that F is found too high where the draws are too few.

    Args:
        energy: `energy(y, z)`, rows `(n, *event)` of each, to `(n,)`.
        y: `(k, *event)`.
        prior: has `log_prob(z)`, normalised, and `sample(n, generator)` where it is the proposal.
        beta: > 0 and finite.
        n: >= 2, draws a y.
        proposal: q, has `sample(n, generator)` and `log_prob(z)`; None for the prior.

    Returns:
        an `Importance` whose fields are `(k,)`.

    Raises:
        ValueError: beta out of range, or as `ebmref.samplers.importance_estimate`.
    """
    rows = _rows(energy, y, beta, n, generator)

    def target(z: Tensor) -> Tensor:
        return rows(z) - prior.log_prob(z)

    return importance_estimate(_one, target, proposal or prior, n, generator, n_replicates=len(y))


def annealed_free_energy(
    energy: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    prior,
    beta: float,
    n: int,
    betas: int | Sequence[float],
    step_size: float | Sequence[float],
    generator: torch.Generator,
    *,
    n_moves: int = 1,
) -> Importance:
    """exp(-beta F_beta) of each y by n annealed particles, from the prior to the posterior of z.

    As `importance_free_energy`, but each particle is led from prior(z) to
    prior(z) exp(-beta E(y, z)) in small steps, with MALA moves between them (Neal 2001).

    Args:
        energy, y, prior, beta, n: as for `importance_free_energy`.
        betas, step_size, n_moves: as for `ebmref.samplers.annealed_importance_sampling`.

    Raises:
        ValueError: beta out of range, or as `annealed_importance_sampling`.
    """
    rows = _rows(energy, y, beta, n, generator)

    def target(z: Tensor) -> Tensor:
        return rows(z) - prior.log_prob(z)

    annealed = annealed_importance_sampling(
        target, prior, n * len(y), betas, step_size, generator=generator, n_moves=n_moves
    )
    log_w = annealed.log_weights.view(len(y), n)
    return weighted_estimate(torch.ones_like(log_w), log_w)


def _rows(energy, y: Tensor, beta: float, n: int, generator: torch.Generator):
    """beta E of z alone, n rows of z for each y in turn."""
    _check_beta(beta)
    if math.isinf(beta):
        raise ValueError("beta: expected finite where z is sampled; got inf")
    check_answers("y", y)
    check_draws(n, 2, generator)
    repeated = y.repeat_interleave(n, 0)

    def of_z(z: Tensor) -> Tensor:
        values = energy(repeated, z)
        if not isinstance(values, Tensor) or values.shape != (len(z),):
            check_energy(values, len(z))
        return beta * values

    return of_z


def _one(z: Tensor) -> Tensor:
    return z.new_ones(len(z))


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _roomy(energy: Tensor, beta: float) -> Tensor:
    """The energies in a dtype in which beta E and a sum over the grid have room."""
    if energy.dtype == torch.float64 or not 1e-20 < beta < 1e20:
        return energy.double()
    return energy.float()


def _check_beta(beta: float) -> None:
    if not _is_number(beta) or not beta > 0:
        raise ValueError(f"beta: expected a number > 0, or math.inf; got {beta!r}")


def _check_grid(energy: Tensor) -> Tensor:
    """The least energy of each grid, `(...)`, without a gradient."""
    if not isinstance(energy, Tensor) or not energy.is_floating_point() or energy.dim() < 1:
        got = tuple(energy.shape) if isinstance(energy, Tensor) else type(energy).__name__
        raise ValueError(f"energy: expected a float tensor (..., m); got {got}")
    if energy.shape[-1] < 1:
        raise ValueError(f"energy: expected a grid of one z or more; got {tuple(energy.shape)}")
    if energy.isnan().any():
        raise ValueError("energy: is NaN for some of the points")
    least = energy.detach().amin(-1)
    if not least.isfinite().all():
        raise ValueError("energy: is infinite for every z, or -inf for some")
    return least
