"""Small energies in closed form, whose minima, laws and normalisers are known.

An energy is any callable `energy(x: (n, *event)) -> (n,)`, lower is likelier. It may offer
`value_and_gradient(x) -> ((n,), (n, *event))`, which samplers then use instead of autograd,
once `ebmref.probes.check_gradient` has held it against the energy at a few points.

It is a function of the point alone: a network with dropout throws dice and has no law to sample.
And it is a number of so many digits: near 10^8 those of float32 lie 8 apart, and so do the
differences that a sampler decides by.

The classes below are distributions too, so that a sampler can be held against an exact law
and any of them can serve as a proposal: `log_z` is the exact log of equation (10)'s integral,
`sample(n, generator)` draws exactly, and `log_prob(x) = -energy(x) - log_z`. They live on the
device and in the dtype of the tensors they are made from.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Energy = Callable[[Tensor], Tensor]


def value_and_gradient(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """Energies `(n,)` and their gradients `(n, *event)`: one pass for the whole batch.

    The energy's own `value_and_gradient` where it has one; else autograd. The rows do not
    meet, so the gradient of the summed energy holds each row's own. In `torch.inference_mode`
    it is taken all the same.

    Raises:
        ValueError: the energy has a wrong shape, or does not depend on x differentiably.
    """
    analytic = getattr(energy, "value_and_gradient", None)
    if analytic is not None:
        return analytic(x)
    if torch.compiler.is_compiling():
        # Slower than a backward pass in eager mode, but the one that a graph can hold.
        gradient, value = torch.func.grad_and_value(_summed(energy), has_aux=True)(x)
        return value[1], gradient
    if torch.is_inference_mode_enabled() or x.is_inference():
        with torch.inference_mode(False):
            return value_and_gradient(energy, x.clone())  # made outside, it can have a gradient
    with torch.enable_grad():  # a caller inside no_grad still needs this one gradient
        x = x.detach().requires_grad_()
        value = energy(x)
        if not isinstance(value, Tensor) or value.shape != (len(x),):
            check_energy(value, len(x))
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    if gradient is None:
        raise ValueError("energy: expected one that depends on x differentiably")
    return value.detach(), gradient


def _summed(energy: Energy):
    def summed(x: Tensor) -> tuple[Tensor, Tensor]:
        value = energy(x)
        return value.sum(), value

    return summed


def check_energy(values: Tensor, n: int) -> None:
    """Raise ValueError unless the energy gave `(n,)` numbers without a NaN."""
    if not isinstance(values, Tensor) or values.shape != (n,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"energy: expected shape ({n},) for {n} points; got {got}")
    if values.isnan().any():
        raise ValueError("energy: is NaN for some of the points")


def level(energy: Tensor, dim: int = -1, beta: float = 1.0) -> Tensor:
    """The least energy along an axis where beta times it is beyond a thousand, else 0; kept as an
    axis of one, without a gradient.

    To be taken off before a sum of e^{-beta E}, and added after it. The shares of the sum, which
    are its gradient, otherwise are off by the rounding of beta E at its whole size. Below a
    thousand that is little, and recorded numbers hang on the last bit.
    """
    least = energy.detach().amin(dim, keepdim=True)
    size = (beta * least).abs()
    return torch.where((size > 1000) & least.isfinite(), least, 0.0)


def matmul(one: Tensor, two: Tensor) -> Tensor:
    """`one @ two` in their own precision, also where autocast would take half the digits."""
    device = one.device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return one @ two
    return one @ two


def double_well(y: Tensor, tilt: float = 0.5) -> Tensor:
    """Product of double wells: E(y) = sum_k (y_k^2 - 1)^2 + tilt * y_k.

    Each coordinate has a deep well near -1, a shallow one near +1 and a ridge between; d
    coordinates have 2^d minima, of which the one with every y_k near -1 is the global one.

    Args:
        y: `(n, d)`.
        tilt: in (0, 8 / sqrt(27)), so that both wells exist.

    Returns:
        `(n,)`.
    """
    return ((y.square() - 1).square() + tilt * y).sum(1)


def double_well_points(tilt: float = 0.5) -> tuple[float, float, float]:
    """Deep minimum, ridge and shallow minimum of one coordinate: the roots of its gradient.

    Raises:
        ValueError: the tilt is outside (0, 8 / sqrt(27)), where there is one minimum only.
    """
    if not 0 < tilt < 8 / 27**0.5:
        raise ValueError(f"tilt: expected between 0 and {8 / 27**0.5:.3f}; got {tilt}")
    # 4 y^3 - 4 y + tilt = 0; three real roots, by Viete's cosines.
    phase = torch.tensor(-tilt / 8 * 27**0.5, dtype=torch.float64).acos() / 3
    turns = torch.tensor([2.0, 4.0, 0.0], dtype=torch.float64) * torch.pi / 3
    deep, ridge, shallow = (2 / 3**0.5 * (phase + turns).cos()).tolist()
    return deep, ridge, shallow


class Gaussian:
    """E(x) = (x - mean)^T covariance^-1 (x - mean) / 2 on vectors of d.

    Args:
        mean: `(d,)`.
        covariance: `(d, d)`, positive definite.

    Raises:
        ValueError: no float tensors of one dtype, shapes that do not fit, or a covariance that
            is not positive definite.
    """

    def __init__(self, mean: Tensor, covariance: Tensor):
        _check_floats(mean=mean, covariance=covariance)
        d = mean.shape[-1] if mean.dim() else 0
        if mean.dim() != 1 or covariance.shape != (d, d):
            raise ValueError(
                f"covariance: expected (d, d) for a mean (d,); got {tuple(covariance.shape)} "
                f"and {tuple(mean.shape)}"
            )
        if mean.dtype != covariance.dtype:
            raise ValueError(
                f"mean, covariance: expected one dtype; got {mean.dtype} and {covariance.dtype}"
            )
        # In double precision once, so that a chain in single precision meets the exact law.
        factor, info = torch.linalg.cholesky_ex(covariance.double())
        if info.any() or not torch.allclose(covariance, covariance.mT):
            raise ValueError("covariance: expected a symmetric positive definite matrix")
        self.mean, self.covariance = mean, covariance
        self.factor = factor.to(covariance.dtype)
        self.precision = torch.cholesky_inverse(factor).to(covariance.dtype)
        if not mean.isfinite().all() or not self.precision.isfinite().all():
            raise ValueError(
                "mean, covariance: expected finite, with an inverse that is so, too, in "
                f"{covariance.dtype}"
            )
        self.log_z = 0.5 * d * math.log(2 * math.pi) + float(factor.diagonal().log().sum())

    def __call__(self, x: Tensor) -> Tensor:
        centred = x - self.mean
        return 0.5 * (centred * matmul(centred, self.precision)).sum(1)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centred = x - self.mean
        gradient = matmul(centred, self.precision)
        return 0.5 * (centred * gradient).sum(1), gradient

    def log_prob(self, x: Tensor) -> Tensor:
        return -self(x) - self.log_z

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, len(self.mean), generator=generator, **_like(self.mean))
        return self.mean + matmul(noise, self.factor.mT)


class GaussianMixture:
    """E(x) = -log sum_k w_k N(x; mean_k, scale_k^2 I): a mixture of round Gaussians, log_z = 0.

    Args:
        means: `(k, d)`.
        scales: `(k,)`, > 0, the standard deviation of each.
        weights: `(k,)`, > 0, made to sum to one; None for equal ones.

    Raises:
        ValueError: shapes that do not fit, or a scale or weight that is not > 0.
    """

    log_z = 0.0

    def __init__(self, means: Tensor, scales: Tensor, weights: Tensor | None = None):
        _check_floats(means=means, scales=scales)
        weights = torch.ones_like(scales) if weights is None else weights
        _check_floats(weights=weights)
        if means.dim() != 2 or scales.shape != means.shape[:1] or weights.shape != scales.shape:
            raise ValueError(
                "means, scales, weights: expected (k, d), (k,), (k,); got "
                f"{tuple(means.shape)}, {tuple(scales.shape)}, {tuple(weights.shape)}"
            )
        if not (scales > 0).all() or not (weights > 0).all():
            raise ValueError("scales, weights: expected all > 0")
        self.means, self.scales, self.weights = means, scales, weights / weights.sum()
        self._rate = scales.pow(-2)
        numbers = (means, self._rate, scales, weights.sum(), self.weights.log())
        if not all(x.isfinite().all() for x in numbers):
            raise ValueError(
                "means, scales, weights: expected finite, with squares, inverses and sums that are "
                f"so, too, in {scales.dtype}"
            )
        self._log_mass = self.weights.log() - means.shape[1] * (
            scales.log() + 0.5 * math.log(2 * math.pi)
        )

    def _terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets `(n, k, d)` from the means and each component's log mass at x `(n, k)`."""
        offset = x[:, None] - self.means
        return offset, self._log_mass - 0.5 * self._rate * offset.square().sum(-1)

    def __call__(self, x: Tensor) -> Tensor:
        return -self._terms(x)[1].logsumexp(1)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        offset, terms = self._terms(x)
        share = terms.softmax(1) * self._rate
        return -terms.logsumexp(1), (share[..., None] * offset).sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        return -self(x)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, **_like(self.means))
        return self.means[component] + self.scales[component, None] * noise


class Funnel:
    """Neal's funnel: x_1 ~ N(0, scale^2), every other x_k ~ N(0, e^{x_1}); log_z = 0.

    The width of the neck falls without bound, so no one step size suits all of it.

    Args:
        like: `(d,)`, d >= 2, any tensor whose length, dtype and device the funnel takes.
        scale: standard deviation of x_1, > 0; at eight of them e^|x_1| must fit the dtype, which it
            does up to 11 in single and 88 in double precision.

    Raises:
        ValueError: a scale out of this range, another shape.
    """

    log_z = 0.0

    def __init__(self, like: Tensor, scale: float = 3.0):
        _check_floats(like=like)
        if like.dim() != 1 or len(like) < 2 or not scale > 0:
            raise ValueError(
                f"like, scale: expected (d,) with d >= 2 and a scale > 0; got "
                f"{tuple(like.shape)} and {scale}"
            )
        if 8 * scale > math.log(torch.finfo(like.dtype).max):
            raise ValueError(f"scale: e^(8 scale) does not fit {like.dtype}; got {scale}")
        self._like, self.scale = like, scale

    def __call__(self, x: Tensor) -> Tensor:
        neck, rest = x[:, 0], x[:, 1:]
        d = rest.shape[1]
        constant = 0.5 * (d + 1) * math.log(2 * math.pi) + math.log(self.scale)
        quadratic = neck.square() / self.scale**2 + (-neck).exp() * rest.square().sum(1)
        return 0.5 * (quadratic + d * neck) + constant

    def log_prob(self, x: Tensor) -> Tensor:
        return -self(x)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, len(self._like), generator=generator, **_like(self._like))
        neck = self.scale * noise[:, :1]
        return torch.cat([neck, (0.5 * neck).exp() * noise[:, 1:]], 1)


class Ring:
    """E(x) = (|x| - radius)^2 / (2 width^2) in the plane: a circular valley.

    Its radius has the density r exp(-(r - radius)^2 / (2 width^2)), its angle is uniform. At the
    very middle it has a peak like a tent's and no slope (autograd: NaN): start elsewhere.

    Args:
        like: any tensor whose dtype and device the ring takes.
        radius, width: > 0, of size 1e-100 to 1e100.
    """

    def __init__(self, like: Tensor, radius: float = 3.0, width: float = 0.3):
        _check_floats(like=like)
        if not 1e-100 <= radius <= 1e100 or not 1e-100 <= width <= 1e100:
            raise ValueError(
                f"radius, width: expected > 0, 1e-100 to 1e100; got {radius} and {width}"
            )
        self._like, self.radius, self.width = like, radius, width
        reach = radius / width
        # int_0^inf r exp(-(r - R)^2 / 2w^2) dr, in closed form.
        tail = math.sqrt(math.pi / 2) * math.erfc(-reach / math.sqrt(2))
        self.log_z = math.log(
            2 * math.pi * width**2 * (math.exp(-reach * reach / 2) + reach * tail)
        )

    def __call__(self, x: Tensor) -> Tensor:
        return 0.5 * ((x.square().sum(1).sqrt() - self.radius) / self.width).square()

    def log_prob(self, x: Tensor) -> Tensor:
        return -self(x) - self.log_z

    def radius_cdf(self, r: Tensor) -> Tensor:
        """P(|x| <= r), for r `(n,)`."""
        reach = self.radius / self.width
        u = (r - self.radius) / self.width

        def antiderivative(u):
            return (
                reach * math.sqrt(math.pi / 2) * torch.special.erfc(-u / math.sqrt(2))
                - (-u.square() / 2).exp()
            )

        low = antiderivative(torch.full_like(u, -reach))
        high = reach * math.sqrt(2 * math.pi)
        return (antiderivative(u) - low) / (high - low)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        like = _like(self._like)
        grid = torch.linspace(
            max(0.0, self.radius - 9 * self.width),
            self.radius + 9 * self.width,
            20001,
            dtype=torch.float64,
            device=self._like.device,
        )
        u = torch.rand(n, generator=generator, **like)
        radius = grid[torch.searchsorted(self.radius_cdf(grid), u.double()).clamp(1, 20000)]
        angle = 2 * math.pi * torch.rand(n, generator=generator, **like)
        radius = radius.to(angle.dtype)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


class Box:
    """E(x) = 0 inside the cube [low, high]^d and +inf outside: a uniform law with a wall.

    Args:
        like: `(d,)`, any tensor whose length, dtype and device the box takes.
        tilt: adds tilt * sum(x) inside, an exponential law on each side of the cube.
    """

    def __init__(self, like: Tensor, low: float = -1.0, high: float = 1.0, tilt: float = 0.0):
        _check_floats(like=like)
        if like.dim() != 1 or not -math.inf < low < high < math.inf or not math.isfinite(tilt):
            raise ValueError(
                f"like, low, high, tilt: expected (d,), low < high and finite; got "
                f"{tuple(like.shape)}, {low}, {high}, {tilt}"
            )
        self._like, self.low, self.high, self.tilt = like, low, high, tilt
        side = math.log(high - low)
        if tilt:
            # log of the integral of exp(-tilt x) over a side, from its lower end.
            fall = abs(tilt) * (high - low)
            side = math.log(-math.expm1(-fall) / abs(tilt)) - tilt * self._lower()
        self.log_z = len(like) * side

    def __call__(self, x: Tensor) -> Tensor:
        inside = ((x >= self.low) & (x <= self.high)).all(1)
        return torch.where(inside, self.tilt * x.sum(1), math.inf)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), torch.full_like(x, self.tilt)

    def log_prob(self, x: Tensor) -> Tensor:
        return -self(x) - self.log_z

    def cdf(self, x: Tensor) -> Tensor:
        """P(x_k <= x) of one coordinate."""
        x = x.clamp(self.low, self.high)
        if not self.tilt:
            return (x - self.low) / (self.high - self.low)
        # The share of the mass between x and the lower end.
        share = torch.expm1(-abs(self.tilt) * (x - self._lower()).abs()) / self._mass()
        return share if self.tilt > 0 else 1 - share

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(n, len(self._like), generator=generator, **_like(self._like))
        if not self.tilt:
            return self.low + (self.high - self.low) * u
        u = u if self.tilt > 0 else 1 - u
        x = self._lower() - (u * self._mass()).log1p() / self.tilt
        return x.clamp(self.low, self.high)

    def _lower(self) -> float:
        """The end of a side where the energy is least."""
        return self.low if self.tilt > 0 else self.high

    def _mass(self) -> float:
        """exp(-|tilt| side) - 1."""
        return math.expm1(-abs(self.tilt) * (self.high - self.low))


class StudentT:
    """E(x) = sum_k (nu + 1)/2 log(1 + x_k^2 / nu): independent heavy tails, nu degrees.

    Args:
        like: `(d,)`, any tensor whose length, dtype and device the law takes.
        nu: > 0; the variance nu / (nu - 2) of a coordinate exists for nu > 2. Draws reach sizes
            of 10^(k / nu) once in 10^k: for a nu far below one their squares leave the dtype.
    """

    def __init__(self, like: Tensor, nu: float = 5.0):
        _check_floats(like=like)
        if like.dim() != 1 or not 0 < nu <= 1e30:
            raise ValueError(
                f"like, nu: expected (d,) and 0 < nu <= 1e30; got {tuple(like.shape)}, {nu}"
            )
        self._like, self.nu = like, nu
        if nu <= 100:
            between = math.lgamma(nu / 2) - math.lgamma((nu + 1) / 2)
        else:  # two large numbers: their difference by Stirling's series, to 1e-15
            between = -0.5 * math.log(nu / 2) + 1 / (4 * nu) - 1 / (24 * nu**3) + 1 / (20 * nu**5)
        self.log_z = len(like) * (0.5 * math.log(nu * math.pi) + between)

    def __call__(self, x: Tensor) -> Tensor:
        return 0.5 * (self.nu + 1) * (x.square() / self.nu).log1p().sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        return -self(x) - self.log_z

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        shape, like = (n, len(self._like)), _like(self._like)
        normal = torch.randn(shape, generator=generator, **like)
        # chi2_nu / nu = Gamma(nu / 2) / (nu / 2)
        half = torch.full(shape, self.nu / 2, **like)
        return normal * (torch._standard_gamma(half, generator=generator) / half).rsqrt()


def two_moons(like: Tensor, width: float = 0.25, n_beads: int = 24) -> GaussianMixture:
    """Two interleaved half circles of radius 2 in the plane, of small Gaussians in a row.

    Args:
        like: any tensor whose dtype and device the law takes.
        width: standard deviation about the curves, > 0.
        n_beads: Gaussians a moon; the closer, the smoother the valley.
    """
    _check_floats(like=like)
    angle = torch.linspace(0, math.pi, n_beads, **_like(like))
    upper = 2 * torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    means = torch.cat([upper, -upper])
    return GaussianMixture(means, torch.full_like(means[:, 0], width))


def _check_floats(**tensors: Tensor) -> None:
    """Raise ValueError unless all are float tensors."""
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name}: expected a float tensor; got {got}")


def _like(x: Tensor) -> dict:
    return {"dtype": x.dtype, "device": x.device}
