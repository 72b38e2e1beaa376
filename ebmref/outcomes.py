"""Three ways to answer a question that has several outcomes (report section 1.1).

*Least squares* predicts one point, and the best one is the conditional mean. A *mixture
density network* predicts the parameters of a mixture. An *energy* scores every point, and
is normalised here by quadrature, so that its likelihood is exact. All are `Networks`,
many models at a time, so the three differ in their loss and in nothing else.
"""

import math

import torch
from scipy.special import ive
from torch import Tensor

from ebmref.energies import level


def mean_resultant(concentration: float) -> float:
    """A(kappa) = I1(kappa) / I0(kappa), the length of the mean of a von Mises tip.

    The least-squares prediction of a pen that falls with concentration kappa around its
    lean lies at this radius; its mean squared error is 1 - A^2 plus the noise.
    """
    return float(ive(1, concentration) / ive(0, concentration))


def squared_error(predicted: Tensor, y: Tensor) -> Tensor:
    """Mean over the batch of |f(x) - y|^2: `(k, n, d)` twice, to `(k,)`."""
    return (predicted - y).square().sum(-1).mean(-1)


def mixture_log_prob(parameters: Tensor, y: Tensor) -> Tensor:
    """log sum_j w_j N(y; mu_j, s_j^2 I), the density of a mixture density network.

    Args:
        parameters: `(k, n or 1, m * (d + 2))`, the network's output: for each of m components
            a logit, a log standard deviation and d coordinates.
        y: `(k or 1, n, d)`.

    Returns:
        `(k, n)`, in nats.

    Raises:
        ValueError: the output cannot be split into components of d + 2 numbers.
    """
    d = y.shape[-1]
    if parameters.shape[-1] % (d + 2):
        raise ValueError(f"parameters: {parameters.shape[-1]} is no multiple of d + 2 = {d + 2}")
    split = parameters.unflatten(-1, (-1, d + 2))
    logit, log_sd, centre = split[..., 0], split[..., 1], split[..., 2:]
    distance = (y[..., None, :] - centre).square().sum(-1)
    log_normal = -0.5 * distance * (-2 * log_sd).exp() - d * (log_sd + 0.5 * math.log(2 * math.pi))
    return (logit.log_softmax(-1) + log_normal).logsumexp(-1)


def plane_grid(reach: float, n: int, device: torch.device | str = "cpu") -> tuple[Tensor, float]:
    """Midpoints of an n by n grid of [-reach, reach]^2, `(n * n, 2)`, and the area of a cell."""
    cell = 2 * reach / n
    side = (torch.arange(n, device=device) + 0.5) * cell - reach
    return torch.cartesian_prod(side, side), cell**2


def log_partition(energy: Tensor, cell: float) -> Tensor:
    """log Z = log of the integral of exp(-E), by the midpoint rule: `(k, m)` to `(k,)`."""
    c = level(energy)
    return (c - energy).logsumexp(-1) - c[..., 0] + math.log(cell)
