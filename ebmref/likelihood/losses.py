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

# Of an energy, log Z: 0-d, or `(k,)` for k models.
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
    """E(x), `(n,)` or `(k, n)`, checked.

    Args:
        x: `(n, *event)` or `(k, n, *event)`.
        what: what to call the points in messages.

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

    Args:
        data: `(n, *event)` or `(k, n, *event)`.
        negatives: as many or others, `(m, *event)` or `(k, m, *event)`.

    Raises:
        ValueError, NotFinite: see `energies_at`.
    """
    of_data = energies_at(energy, data, "data")
    of_negatives = energies_at(energy, negatives.detach(), "negatives")
    return of_data.mean(-1) - of_negatives.mean(-1)


def exact_loss(energy: Energy, data: Tensor, log_z: LogZ) -> Tensor:
    """mean E(data) + log Z: the negative log-likelihood itself.

    Args:
        data: `(n, *event)` or `(k, n, *event)`.
        log_z: of an energy, differentiable, such as `on_grid(points, cell)`, `over(states)` or
            `ebmref.rbm.log_z`.

    Raises:
        ValueError, NotFinite: see `energies_at`; of a sum, an energy that is NaN or -inf. One of
            +inf has no mass there.
    """
    return energies_at(energy, data, "data").mean(-1) + log_z(energy)


def on_grid(points: Tensor, cell: float) -> LogZ:
    """log of the integral of e^{-E}, by the sum over a grid of cells of one volume.

    Args:
        points: `(m, *event)`, one for each cell, on the device of the energy. What lies outside
            does not count, so that the energy learns nothing of it.
        cell: the volume of a cell, > 0.

    Raises:
        ValueError: a cell that is not > 0 and finite.
    """
    cell = positive_number("cell", cell)
    return lambda energy: _log_sum(energy, points) + math.log(cell)


def over(states: Tensor) -> LogZ:
    """log of the sum of e^{-E} over all states of a discrete law.

    Args:
        states: `(m, *event)`, each once, on the device of the energy.
    """
    return lambda energy: _log_sum(energy, states)


def _log_sum(energy: Energy, points: Tensor) -> Tensor:
    check_tensors(points=points)
    values = energy(points)
    bad = values.isnan() | (values == -math.inf)
    if bad.any():
        raise NotFinite("energy: is NaN or -inf at some points of the sum", bad)
    return -free_energy(values, 1.0, "counting")


def energy_penalty(of_data: Tensor, of_negatives: Tensor | None = None) -> Tensor:
    """mean E(data)^2 + mean E(negatives)^2, which ties the level of the energy down
    (Du & Mordatch 2019).

    The likelihood is the same for E and E plus a constant; the penalty is not. It also draws all
    energies together, and so away from those of the data's law.

    Args:
        of_data, of_negatives: energies, `(n,)` and `(m,)`, or `(k, n)` and `(k, m)`; None leaves
            the second term out.
    """
    penalty = of_data.square().mean(-1)
    return penalty if of_negatives is None else penalty + of_negatives.square().mean(-1)


def gradient_penalty(energy: Energy, x: Tensor) -> Tensor:
    """mean |grad E(x)|^2 at points that are held.

    Args:
        x: `(n, *event)` or `(k, n, *event)`.

    Raises:
        ValueError: an energy that does not depend on x differentiably; see also `energies_at`.
        NotFinite: an energy or a gradient that is NaN or infinite.
    """
    _, values, slope = _slope(energy, x)
    return slope.flatten(values.dim()).square().sum(-1).mean(-1)


# With a known law beside ---------------------------------------------------------------------


def nce_loss(energy: Energy, constant: Tensor, data: Tensor, draws: Tensor, noise) -> Tensor:
    """The data told from draws of a known law q, nu for each datum (Gutmann & Hyvarinen 2010).

    With log p(x) = -E(x) + c the log-odds of a point being a datum are

        u(x) = -E(x) + c - log q(x) - log nu
        loss = mean over data of log(1 + e^-u) + nu mean over draws of log(1 + e^u)

    Of all functions -E + c the loss is least at the log density of the data. So c, learned beside
    the energy, comes to be -log Z of the energy beside it.

    Args:
        constant: c, 0-d or `(k,)`.
        data: `(n, *event)` or `(k, n, *event)`.
        draws: of q, nu times as many as the data; nu is found by counting.
        noise: q, has `log_prob(x)` of `(n, *event)`, normalised.

    Raises:
        ValueError: a noise whose log_prob is not finite at some of the data or of its own draws;
            see also `energies_at`.
        NotFinite: see `energies_at`.
    """
    of_data, of_draws = energies_at(energy, data, "data"), energies_at(energy, draws, "draws")
    log_q_data = log_noise(noise, data, of_data, "data")
    log_q_draws = log_noise(noise, draws, of_draws, "draws")
    return nce_of(of_data, of_draws, constant, log_q_data, log_q_draws)


def nce_of(
    of_data: Tensor, of_draws: Tensor, constant: Tensor, log_q_data: Tensor, log_q_draws: Tensor
) -> Tensor:
    """`nce_loss` from the energies and the noise's log densities at data and draws.

    Args:
        of_data, log_q_data: `(n,)` or `(k, n)`.
        of_draws, log_q_draws: `(nu n,)` or `(k, nu n)`.
        constant: 0-d or `(k,)`.
    """
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

    Up to a constant that depends on the data alone it is half the mean squared distance of -grad E
    from grad log p_data, by an integration by parts: the density has to vanish at the borders.
    Slopes say nothing of how the mass is shared among basins far apart. The trace costs one
    backward pass for each coordinate. A network of rectifiers (ReLU) has a trace of zero almost
    everywhere, and cannot learn by this loss.

    Args:
        energy: differentiable twice, and once more by its weights.
        data: `(n, *event)` or `(k, n, *event)`.

    Raises:
        ValueError, NotFinite: as `gradient_penalty`.
    """
    x, values, slope = _slope(energy, data)
    flat = slope.flatten(values.dim())
    trace = 0.0
    for i in range(flat.shape[-1]):
        trace = trace + _along(flat[..., i].sum(), x).flatten(values.dim())[..., i]
    return (0.5 * flat.square().sum(-1) - trace).mean(-1)


def sliced_score_matching(energy: Energy, data: Tensor, directions: Tensor) -> Tensor:
    """`score_matching` with v^T (hess E) v in place of the trace, v ~ N(0, I) (Song et al. 2019).

    Its mean over v is the trace, so that this loss is right on average. The term |grad E|^2 / 2 is
    not sliced, which makes less variance than slicing both.

    Args:
        energy: as for `score_matching`.
        data: `(n, *event)` or `(k, n, *event)`.
        directions: v, `(s, *data.shape)`: s draws for each datum.

    Raises:
        ValueError: directions of another shape; see also `gradient_penalty`.
        NotFinite: as `gradient_penalty`.
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
    """mean |sigma grad E(x + sigma noise) - noise|^2 / 2: the slope is to tell the noise put in.

    What is learned is the law of the data blurred by N(0, sigma^2) and not that of the data
    (Vincent 2011): a Gaussian of variance s is learned as one of variance s + sigma^2. The squared
    distance of the scores is weighed by sigma^2, which lets several sigmas weigh alike. One energy
    for several sigmas is a compromise between as many laws, unless it is told sigma.

    Args:
        energy: differentiable, and once more by its weights.
        data: `(n, *event)` or `(k, n, *event)`.
        noise: draws of N(0, I), of the shape of the data.
        sigma: > 0; a number, or one for each datum, `(n,)` or `(k, n)`.
        conditional: the energy is called as `energy(x, sigma)`, sigma being a tensor.

    Raises:
        ValueError: a sigma that is not > 0 and finite, or noise of another shape; see also
            `gradient_penalty`.
        NotFinite: as `gradient_penalty`.
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
