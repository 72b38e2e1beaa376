"""The negative phase by chains: where they begin, how they move, and what they leave out.

    contrastive divergence     k steps from the data                          (Hinton 2002)
    persistent                 k steps from where the last ones ended         (Tieleman 2008)
    short run                  k steps from noise, each time anew             (Nijkamp et al. 2019)

Each has its fault where chains do not mix. The first learns the shapes of the basins that have data
and not how much mass each has. The second keeps chains where the energy was low some time ago. The
third learns an energy whose k steps lead to the data, while more steps may lead elsewhere.
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
    """Make some steps of a kernel, without a gradient to the weights.

    Args:
        kernel: of `ebmref.samplers`, or `ebmref.rbm.gibbs`; made of its energy already.
        start: `(n, *event)`, a chain for each.
        n_steps: >= 1.
        generator: source of all randomness, on the device of `start`.

    Returns:
        Where the chains end, `(n, *event)`, and the mean acceptance rate of each, `(n,)`.

    Raises:
        NotFinite: some of `start`, or the energy or its gradient there, is NaN or infinite.
        ValueError: n_steps < 1, or what `ebmref.samplers.sample` refuses.
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
    """beta E as an energy; E itself at beta = 1. Its law is exp(-beta E), colder for a larger beta.

    Raises:
        ValueError: a beta that is not > 0 and finite.
    """
    beta = positive_number("beta", beta)
    return energy if beta == 1 else lambda x: beta * energy(x)


def as_langevin(rate: float, noise: float) -> tuple[float, float]:
    """The step_size and the beta by which `ula` makes the steps x' = x - rate grad E(x) + noise xi.

        step_size = noise^2,   beta = 2 rate / noise^2

    That is `ula(tempered(energy, beta), step_size)`. Steps of a rate far above noise^2 / 2 do not
    draw from exp(-E), but from a much colder law.

    Args:
        rate: factor of the gradient, > 0.
        noise: factor of the standard normal xi, > 0.

    Raises:
        ValueError: one that is not > 0 and finite.
    """
    rate, noise = positive_number("rate", rate), positive_number("noise", noise)
    return noise**2, 2 * rate / noise**2


class Buffer(nn.Module):
    """Chains that are kept between the steps of training; a part of its checkpoint.

    Args:
        x: where the chains are at first, `(size, *event)`, or `(k, size, *event)` for k models
            side by side.
        n_models: k, or None for a single model.

    Attributes:
        x: where they are now, of the same shape.

    Raises:
        ValueError: no chain, an x that is no tensor or has too few axes, or not k models.
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
        """Choose n different chains of each model.

        Args:
            n: >= 1, at most the size of the buffer.
            generator: source of all randomness, on the device of the buffer.
            restart: the probability of each to begin anew, from a draw of the noise.
            noise: has `sample(n, generator)`; may be None where restart is 0.

        Returns:
            Places in the buffer, `(n,)` or `(k, n)`, for `put`; and where the chains of these
            places begin, `(n, *event)` or `(k, n, *event)`.

        Raises:
            ValueError: an n out of range, or draws of the noise that do not fit.
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
        """Keep where chains have come to.

        Args:
            places: of `draw`, `(n,)` or `(k, n)`.
            x: `(n, *event)` or `(k, n, *event)`.
        """
        self.x.scatter_(self.lead, self._at(places), x)

    def _at(self, places: Tensor) -> Tensor:
        event = self.x.shape[self.lead + 1 :]
        return places.view(*places.shape, *(1,) * len(event)).expand(*places.shape, *event)


def draw_noise(noise, n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """n draws of a law, `(n, *event)`, on the device of `like`.

    Args:
        noise: has `sample(n, generator)`.

    Raises:
        ValueError: the law gives another number of draws, some that are not finite, or another
            dtype than that of `like`.
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
    """E(x), `(n,)`, whose gradient reaches the weights through x alone.

    As a function of the weights it is E(x) with the energy's own weights held, to first order.

    Args:
        energy: `(n, *event)` to `(n,)`, differentiable.
        x: `(n, *event)`, made by something that depends on the weights, such as `last_step`.
    """
    value, slope = value_and_gradient(energy, x.detach())
    way = (x - x.detach()) * slope
    return value + way.reshape(len(x), -1).sum(1)


def last_step(
    energy: Energy, x: Tensor, step_size: float, generator: torch.Generator, beta: float = 1.0
) -> Tensor:
    """One step of `ula` as a function of the weights: x', `(n, *event)`.

        x' = x - step_size / 2 beta grad E(x) + sqrt(step_size) xi,   xi ~ N(0, I)

    Its gradient goes through grad E and not through x, whatever that was made from.

    Args:
        energy: `(n, *event)` to `(n,)`, differentiable twice.
        x: `(n, *event)`.
        step_size: > 0.
        generator: draws xi, on the device of x.
        beta: the step is one under beta E.
    """
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    xi = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return x.detach() - 0.5 * step_size * beta * slope + math.sqrt(step_size) * xi


def nearest_entropy(x: Tensor, others: Tensor | None = None, own: Tensor | None = None) -> Tensor:
    """d times the mean of log |x - its nearest neighbour|: an entropy, up to a constant.

    It is the estimate of Kozachenko & Leonenko (1987) for the law of x, large where points are
    spread out. Only its gradient counts here; a point that coincides with its neighbour has none.

    Args:
        x: `(n, d)` or `(k, n, d)`.
        others: `(m, d)` or `(k, m, d)`, to look for neighbours in; they are held. None looks among
            x, each point itself left out.
        own: `(n,)` or `(k, n)`, for each point the index of one of the others that does not count,
            such as the one it comes from; None leaves none out. Not looked at without others.

    Returns:
        0-d or `(k,)`.

    Raises:
        ValueError: shapes that do not fit, or no point left to be a neighbour.
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
