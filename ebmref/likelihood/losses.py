"""The losses by which an energy is learned from data, as functions of points that are given.

The law is p(x) = exp(-E(x)) / Z and lower energy is likelier. The gradient of -log p(x) is

    grad E(x) - E_p[grad E]                     the data's energy down, the model's own up

and Z enters by the second term alone. The losses differ in what they put in its place: the exact
sum, the draws of some chain, the draws of a known law, or no draws at all, where only slopes are
compared. All randomness comes in as an argument, so that each loss is a plain function.

An energy takes `(n, *event)` to `(n,)`, or, for k models side by side, `(k, n, *event)` to
`(k, n)`. A loss then is 0-d or `(k,)`; each model gets the gradient of its own by the sum.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ebmref.checks import check_tensors, positive_number
from ebmref.energies import Energy
from ebmref.free_energy import free_energy

LogZ = Callable[[Energy], Tensor]


class NotFinite(ValueError):
    """An energy or a slope that is NaN or infinite where it must be a number.

    Attributes:
        bad: at which of the points, `(n,)` or `(k, n)`; None where that is not known.
    """

    def __init__(self, message: str, bad: Tensor | None = None):
        super().__init__(message)
        self.bad = bad


def energies_at(energy: Energy, x: Tensor, what: str) -> Tensor:
    """E(x), `(n,)` or `(k, n)`.

    Args:
        what: the points are, for messages.

    Raises:
        NotFinite: an energy that is NaN or infinite.
        ValueError: no points, or energies of another shape.
    """
    check_tensors(**{what: x})
    if x.dim() < 2 or not x.numel():
        raise ValueError(f"{what}: expected (n, *event) with n >= 1; got {tuple(x.shape)}")
    values = energy(x)
    shapes = (x.shape[:1], x.shape[:2]) if x.dim() > 2 else (x.shape[:1],)
    if not isinstance(values, Tensor) or values.shape not in shapes:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"energy: expected one number for each of {what}; got {got}")
    if not values.isfinite().all():
        bad = ~values.isfinite()
        raise NotFinite(
            f"energy: is not finite at {int(bad.sum())} of {values.numel()} of the {what}", bad
        )
    return values


# With a negative phase ----------------------------------------------------------------------


def cd_loss(energy: Energy, data: Tensor, negatives: Tensor) -> Tensor:
    """mean E(data) - mean E(negatives): the contrast whose gradient stands for that of -log p.

    The negatives are held: the gradient does not go through how they were made. From exact draws
    of the model it is the likelihood's; from k steps of a chain begun at the data it is that of
    contrastive divergence (Hinton 2002), which drops the term through the chain. Its *value* is
    no likelihood and need not fall.

    Raises:
        ValueError, NotFinite: see `energies_at`.
    """
    of_data = energies_at(energy, data, "data")
    of_negatives = energies_at(energy, negatives.detach(), "negatives")
    return of_data.mean(-1) - of_negatives.mean(-1)


def exact_loss(energy: Energy, data: Tensor, log_z: LogZ) -> Tensor:
    """mean E(data) + log Z: the negative log-likelihood itself.

    Args:
        log_z: of an energy, differentiable, such as `on_grid(points, cell)`, `over(states)` or
            `ebmref.rbm.log_z`.
    """
    return energies_at(energy, data, "data").mean(-1) + log_z(energy)


def on_grid(points: Tensor, cell: float) -> LogZ:
    """log int e^{-E} by the sum over a grid, each point standing for a cell of one volume.

    Args:
        points: `(m, *event)`; what lies outside has no mass, and learns nothing.
        cell: the volume of a cell, > 0.
    """
    cell = positive_number("cell", cell)
    return lambda energy: _log_sum(energy, points) + math.log(cell)


def over(states: Tensor) -> LogZ:
    """log sum e^{-E} over the states of a discrete law, `(m, *event)`."""
    return lambda energy: _log_sum(energy, states)


def _log_sum(energy: Energy, points: Tensor) -> Tensor:
    check_tensors(points=points)
    values = energy(points)
    bad = values.isnan() | (values == -math.inf)
    if bad.any():
        raise NotFinite("energy: is NaN or -inf at some points of the sum", bad)
    return -free_energy(values, 1.0, "counting")


def energy_penalty(of_data: Tensor, of_negatives: Tensor | None = None) -> Tensor:
    """mean E(data)^2 + mean E(negatives)^2, which ties the level of the energy down.

    The likelihood does not know that level. Nor does the penalty know the law: its minimum is not
    the data's, as it prefers both to the same energy (Du & Mordatch 2019).
    """
    penalty = of_data.square().mean(-1)
    return penalty if of_negatives is None else penalty + of_negatives.square().mean(-1)


def gradient_penalty(energy: Energy, x: Tensor) -> Tensor:
    """mean |grad E(x)|^2 at points that are held."""
    _, values, slope = _slope(energy, x)
    return slope.flatten(values.dim()).square().sum(-1).mean(-1)


# With a known law beside ---------------------------------------------------------------------


def nce_loss(energy: Energy, constant: Tensor, data: Tensor, draws: Tensor, noise) -> Tensor:
    """Data told from nu draws a datum of a known law q (Gutmann & Hyvarinen 2010).

    With log p(x) = -E(x) + c the log-odds of a point being a datum are

        u(x) = -E(x) + c - log q(x) - log nu
        loss = mean over data of log(1 + e^-u) + nu mean over draws of log(1 + e^u)

    Where E can be anything the least loss is at the law of the data, normalised: the constant c
    converges to -log Z, Z being that of the energy as it is by then.

    Args:
        constant: c, 0-d or `(k,)`; learned beside the energy.
        draws: of q, nu times as many as the data.
        noise: q, has `log_prob(x)` of `(n, *event)`, normalised.

    Raises:
        ValueError: a noise without mass at some of the data or of its own draws; see also
            `energies_at`.
    """
    of_data, of_draws = energies_at(energy, data, "data"), energies_at(energy, draws, "draws")
    log_q_data = log_noise(noise, data, of_data, "data")
    log_q_draws = log_noise(noise, draws, of_draws, "draws")
    return nce_of(of_data, of_draws, constant, log_q_data, log_q_draws)


def nce_of(
    of_data: Tensor, of_draws: Tensor, constant: Tensor, log_q_data: Tensor, log_q_draws: Tensor
) -> Tensor:
    """`nce_loss` from the energies and the noise's log densities at data and draws."""
    nu = of_draws.shape[-1] / of_data.shape[-1]
    level = constant[..., None] - math.log(nu)
    u_data = level - of_data - log_q_data
    u_draws = level - of_draws - log_q_draws
    return functional.softplus(-u_data).mean(-1) + nu * functional.softplus(u_draws).mean(-1)


def log_noise(noise, x: Tensor, like: Tensor, what: str) -> Tensor:
    """log q(x), of the shape of the energies `like`.

    Raises:
        ValueError: it is not finite, or of another shape.
    """
    with torch.no_grad():
        value = noise.log_prob(x.flatten(0, like.dim() - 1))
    check_tensors(log_prob=value)
    if value.numel() != like.numel():
        raise ValueError(
            f"noise: expected a log_prob for each of the {what}; got {tuple(value.shape)}"
        )
    if not value.isfinite().all():
        bad = int((~value.isfinite()).sum())
        raise ValueError(f"noise: has no finite log_prob at {bad} of {len(value)} of the {what}")
    return value.view(like.shape)


# By slopes alone -----------------------------------------------------------------------------


def score_matching(energy: Energy, data: Tensor) -> Tensor:
    """mean |grad E|^2 / 2 - tr(hess E) over the data (Hyvarinen 2005).

    Up to a constant of the data's law it is half the mean squared distance of the scores, -grad E
    and grad log p_data, by an integration by parts: the density has to vanish at the borders.
    Slopes say nothing of the masses of basins far apart. The trace costs one backward pass a
    coordinate; of a rectifier (ReLU) it is zero almost everywhere, and nothing can be learned so.
    """
    x, values, slope = _slope(energy, data)
    flat = slope.flatten(values.dim())
    trace = 0.0
    for i in range(flat.shape[-1]):
        trace = trace + _along(flat[..., i].sum(), x).flatten(values.dim())[..., i]
    return (0.5 * flat.square().sum(-1) - trace).mean(-1)


def sliced_score_matching(energy: Energy, data: Tensor, directions: Tensor) -> Tensor:
    """`score_matching` with v^T (hess E) v in place of the trace, v ~ N(0, I) (Song et al. 2019).

    The mean over v is exact. The first term is kept whole: the form of least variance.

    Args:
        directions: `(s, *data.shape)`, s draws for each datum.
    """
    if directions.shape[1:] != data.shape or not len(directions):
        raise ValueError(
            f"directions: expected (s, *data.shape) with s >= 1; got {tuple(directions.shape)}"
        )
    x, values, slope = _slope(energy, data)
    curvature = 0.0
    for v in directions:
        curvature = curvature + (_along((slope * v).sum(), x) * v).flatten(values.dim()).sum(-1)
    half_square = 0.5 * slope.flatten(values.dim()).square().sum(-1)
    return (half_square - curvature / len(directions)).mean(-1)


def denoising(
    energy: Callable,
    data: Tensor,
    noise: Tensor,
    sigma: float | Tensor,
    *,
    conditional: bool = False,
) -> Tensor:
    """mean |sigma grad E(x + sigma noise) - noise|^2 / 2: the slope points to the noise put in.

    Its minimum is the score of the data's law blurred by N(0, sigma^2) (Vincent 2011), not that
    of the data: a Gaussian of variance s is learned as one of s + sigma^2. The factor sigma^2
    against the squared distance of the scores lets several sigmas weigh alike; one energy for
    several sigmas is a compromise between as many laws, unless it sees which one it is for.

    Args:
        noise: N(0, I), of the shape of the data.
        sigma: > 0; a number, or one a datum, `(n,)` or `(k, n)`.
        conditional: the energy is called as `energy(x, sigma)`.

    Raises:
        ValueError: a sigma that is not > 0, or noise of another shape.
    """
    if noise.shape != data.shape:
        raise ValueError(f"noise: expected {tuple(data.shape)}, as data; got {tuple(noise.shape)}")
    sigma = torch.as_tensor(sigma, dtype=data.dtype, device=data.device)
    if not (sigma > 0).all() or not sigma.isfinite().all():
        raise ValueError("sigma: expected > 0 and finite everywhere")
    # One a datum, shaped to broadcast with the data.
    each = sigma.reshape(*sigma.shape, *(1,) * (data.dim() - sigma.dim())) if sigma.dim() else sigma
    given = (lambda x: energy(x, sigma)) if conditional else energy
    _, values, slope = _slope(given, data + each * noise)
    return 0.5 * (each * slope - noise).flatten(values.dim()).square().sum(-1).mean(-1)


def _slope(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x as a leaf, E(x), and grad E(x) as something that can be differentiated again."""
    check_tensors(data=x)
    x = x.detach().requires_grad_()
    values = energies_at(energy, x, "data")
    slope = torch.autograd.grad(values.sum(), x, create_graph=True, allow_unused=True)[0]
    if slope is None:
        raise ValueError("energy: expected one that depends on x differentiably")
    if not slope.isfinite().all():
        bad = ~slope.flatten(values.dim()).isfinite().all(-1)
        raise NotFinite("energy: its gradient is not finite at some of the data", bad)
    return x, values, slope


def _along(value: Tensor, x: Tensor) -> Tensor:
    """The gradient of a number made of slopes; zero where the slopes do not depend on x."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(value, x, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if found is None else found
