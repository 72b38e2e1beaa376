"""The negative phase by chains: where they begin, how they move, and what they leave out.

    contrastive divergence     k steps from the data                          (Hinton 2002)
    persistent                 k steps from where the last ones ended         (Tieleman 2008)
    short run                  k steps from noise, each time anew             (Nijkamp et al. 2019)

The first knows the data's basins and not their masses, the second keeps what it had wrong for as
long as its chains do not mix, the third learns an energy for its k steps and for no others.
"""

import math

import torch
from torch import Tensor, nn

from ebmref.checks import check_draws, check_tensors, positive_number, whole_number
from ebmref.energies import Energy, value_and_gradient
from ebmref.likelihood.losses import NotFinite
from ebmref.samplers import Kernel, sample


def run(
    kernel: Kernel, start: Tensor, n_steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Where n_steps steps of a kernel lead, `(n, *event)`, and their acceptance rate `(n,)`.

    Raises:
        NotFinite: an energy or a gradient of it that is no number at the start.
        ValueError: as `ebmref.samplers.sample`; n_steps below 1.
    """
    n_steps = whole_number("n_steps", n_steps, 1)
    try:
        chain = sample(kernel, start, n_steps, thin=n_steps, generator=generator)
    except ValueError as error:
        lost = _lost(kernel, start) if isinstance(start, Tensor) else None
        if lost is not None and lost.any():
            raise NotFinite(f"chains cannot start: {error}", lost) from error
        raise
    return chain.samples[0], chain.acceptance_rate


def _lost(kernel: Kernel, x: Tensor) -> Tensor:
    """At which points it is the energy that is at fault, `(n,)`: no number, or no slope."""
    bad = ~x.flatten(1).isfinite().all(1)
    if bad.any() or kernel.energy is None:
        return bad
    with torch.no_grad():
        bad = ~kernel.energy(x).isfinite()
    if bad.any() or not kernel.n_gradients:
        return bad
    value, slope = value_and_gradient(kernel.energy, x)
    return ~value.isfinite() | ~slope.flatten(1).isfinite().all(1)


def tempered(energy: Energy, beta: float) -> Energy:
    """beta E, at whose temperature chains move; the energy itself at beta = 1."""
    beta = positive_number("beta", beta)
    return energy if beta == 1 else lambda x: beta * energy(x)


def as_langevin(rate: float, noise: float) -> tuple[float, float]:
    """What x' = x - rate grad E + noise xi is: `ula` with this step_size under this beta.

        step_size = noise^2,   beta = 2 rate / noise^2

    A rate far above noise^2 / 2 makes chains that are far colder than the model.
    """
    rate, noise = positive_number("rate", rate), positive_number("noise", noise)
    return noise**2, 2 * rate / noise**2


class Buffer(nn.Module):
    """Chains that are kept between the steps of training; a part of its checkpoint.

    Args:
        x: `(size, *event)`, or `(k, size, *event)` for k models side by side: at first.
        n_models: k, or None.

    Raises:
        ValueError: an empty buffer.
    """

    def __init__(self, x: Tensor, n_models: int | None = None):
        super().__init__()
        check_tensors(buffer=x)
        self.lead = 0 if n_models is None else 1
        if x.dim() < 2 + self.lead or not x.numel() or (n_models and len(x) != n_models):
            raise ValueError(
                f"buffer: expected one chain or more for each model; got {tuple(x.shape)}"
            )
        self.register_buffer("x", x)

    def draw(
        self, n: int, generator: torch.Generator, restart: float = 0.0, noise=None
    ) -> tuple[Tensor, Tensor]:
        """Places of n different chains of each model, and where these are.

        Args:
            n: at most the size of the buffer.
            restart: share of them that begin anew, each by a toss of its own.
            noise: what they begin from, has `sample(n, generator)`.
        """
        size = self.x.shape[self.lead]
        check_draws(n, 1, generator)
        if n > size:
            raise ValueError(f"buffer: expected {n} chains or more, as are drawn; it has {size}")
        shape = (*self.x.shape[: self.lead], size)
        like = {"generator": generator, "device": self.x.device}
        places = torch.rand(shape, **like).argsort(-1)[..., :n]
        start = self.x.gather(self.lead, self._at(places))
        if restart:
            anew = torch.rand(places.shape, **like) < restart
            fresh = draw_noise(noise, places.numel(), generator, self.x).view(start.shape)
            start = torch.where(self._at(anew), fresh, start)
        return places, start

    @torch.no_grad()
    def put(self, places: Tensor, x: Tensor) -> None:
        """Keep where the chains of these places have come to."""
        self.x.scatter_(self.lead, self._at(places), x)

    def _at(self, places: Tensor) -> Tensor:
        event = self.x.shape[self.lead + 1 :]
        return places.view(*places.shape, *(1,) * len(event)).expand(*places.shape, *event)


def draw_noise(noise, n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """n draws of a law `(n, *event)`.

    Raises:
        ValueError: other than that many finite ones, in the dtype of `like`.
    """
    with torch.no_grad():
        x = noise.sample(n, generator)
    check_tensors(noise=x)
    if len(x) != n or x.dtype != like.dtype or not x.isfinite().all():
        raise ValueError(
            f"noise: expected {n} finite draws of {like.dtype}; got {tuple(x.shape)}, {x.dtype}"
        )
    return x.to(like.device)


# What contrastive divergence leaves out ------------------------------------------------------


def held(energy: Energy, x: Tensor) -> Tensor:
    """E(x) as a function of x alone: no gradient reaches the weights but through x."""
    value, slope = value_and_gradient(energy, x.detach())
    way = (x - x.detach()) * slope
    return value + way.reshape(len(x), -1).sum(1)


def last_step(
    energy: Energy, x: Tensor, step_size: float, generator: torch.Generator, beta: float = 1.0
) -> Tensor:
    """One step of `ula` that can be differentiated by the weights, from points that are held.

    x' = x - step_size / 2 beta grad E(x) + sqrt(step_size) xi
    """
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    xi = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return x.detach() - 0.5 * step_size * beta * slope + math.sqrt(step_size) * xi


def nearest_entropy(x: Tensor, others: Tensor | None = None, own: Tensor | None = None) -> Tensor:
    """d mean log |x - its nearest neighbour|: the entropy of the law of x, up to a constant.

    The estimate of Kozachenko & Leonenko (1987), of which only the gradient counts here; a point
    that coincides with its neighbour has none.

    Args:
        x: `(n, d)` or `(k, n, d)`.
        others: `(m, d)` or `(k, m, d)`, to look for neighbours in; they are held. None looks among
            x, each point itself left out.
        own: `(n,)` or `(k, n)`, which of the others is not to count for each point, such as the one
            it comes from; None leaves none out.

    Returns:
        0-d or `(k,)`.
    """
    among = x if others is None else others.detach()
    check_tensors(x=x, others=among)
    if x.dim() not in (2, 3) or among.shape[:-2] != x.shape[:-2] or among.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"x, others: expected (n, d) and (m, d); got {tuple(x.shape)}, {tuple(among.shape)}"
        )
    if others is None:
        own = torch.arange(x.shape[-2], device=x.device).expand(x.shape[:-1])
    if among.shape[-2] < 1 + (own is not None):
        raise ValueError("others: expected one point or more besides each")
    with torch.no_grad():
        distance = torch.cdist(x, among)
        if own is not None:
            distance.scatter_(-1, own[..., None], math.inf)
        nearest = distance.argmin(-1, keepdim=True)
    neighbour = among.gather(-2, nearest.expand_as(x))
    # The square, as the root has no slope at zero.
    square = (x - neighbour).square().sum(-1)
    return 0.5 * x.shape[-1] * square.clamp(min=torch.finfo(x.dtype).tiny).log().mean(-1)
