"""RealNVP (Dinh et al. 2017): networks that can be inverted, so that densities are exact.

A flow is a generator, x = T(z) with z ~ N(0, I_d), and its density is known:

    log p(x) = log N(T^-1(x); 0, I) + log |det dT^-1/dx|

As base and as energy of a generalized energy-based model it makes log Z, KL and the likelihood
exact. Flows that differ in their seed stand side by side: `(k, n, d)`, and never meet.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ebmref.networks import Networks


class RealNVP(nn.Module):
    """k flows on R^d: couplings, then a shift and a scale of each coordinate.

    A coupling keeps one half of the coordinates, a, and moves the other by what a says,
    b' = b exp(tanh(s(a))) + t(a); the next one keeps b'. At first a flow of an even number of
    couplings is the identity, and one of an odd number changes the halves' places.

    Args:
        d: dimension, >= 2.
        hidden: widths of the hidden layers of s and t.
        n_couplings: how many, >= 1.
        n_models: k.
        generator: draws the weights; its device is theirs.

    Raises:
        ValueError: a dimension or a number of couplings too small.
    """

    def __init__(
        self,
        d: int,
        hidden: tuple[int, ...],
        n_couplings: int,
        n_models: int,
        generator: torch.Generator,
    ):
        super().__init__()
        for name, value, least in (("d", d, 2), ("n_couplings", n_couplings, 1)):
            if type(value) is not int or value < least:
                raise ValueError(f"{name}: expected a whole number >= {least}; got {value!r}")
        self.kept = [d // 2 if i % 2 == 0 else d - d // 2 for i in range(n_couplings)]
        self.nets = nn.ModuleList(
            Networks((kept, *hidden, 2 * (d - kept)), n_models, generator, functional.silu)
            for kept in self.kept
        )
        for net in self.nets:
            nn.init.zeros_(net.weights[-1])
            nn.init.zeros_(net.biases[-1])
        zeros = torch.zeros(n_models, 1, d, device=generator.device)
        self.shift, self.log_scale = nn.Parameter(zeros), nn.Parameter(zeros.clone())

    def forward(self, z: Tensor) -> Tensor:
        """T: latents `(k, n, d)` to events `(k, n, d)`."""
        for kept, net in zip(self.kept, self.nets, strict=True):
            a, b = z[..., :kept], z[..., kept:]
            s, t = net(a).chunk(2, -1)
            z = torch.cat([b * s.tanh().exp() + t, a], -1)
        return z * self.log_scale.exp() + self.shift

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """T^-1(x) `(k, n, d)` and log |det dT^-1/dx| `(k, n)`."""
        z = (x - self.shift) * (-self.log_scale).exp()
        log_det = -self.log_scale.sum(-1)
        for kept, net in zip(reversed(self.kept), reversed(self.nets), strict=True):
            moved = z.shape[-1] - kept
            b, a = z[..., :moved], z[..., moved:]
            s, t = net(a).chunk(2, -1)
            s = s.tanh()
            z = torch.cat([a, (b - t) * (-s).exp()], -1)
            log_det = log_det - s.sum(-1)
        return z, log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density of events, `(k, n, d)` to `(k, n)`."""
        z, log_det = self.inverse(x)
        return log_det - 0.5 * z.square().sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n exact draws of each flow, `(k, n, d)`."""
        k, _, d = self.shift.shape
        like = {"device": self.shift.device, "dtype": self.shift.dtype}
        return self(torch.randn(k, n, d, generator=generator, **like))


class FlowEnergy(nn.Module):
    """The energy that turns a base of known density g into a flow of density p:

        E(x) = log g(x) - log p(x) + s,   so that   log Z = -s   and   g e^{-E} / Z = p.

    Whatever g and p are, the normaliser is known; s is learned beside p, so that it moves.

    Args:
        flow: p, `(k, n, d)` to `(k, n)` by its `log_prob`.
        log_base: log g, the same shapes; no parameters of it become this energy's.
        shift: s at first, `(k,)` or a number.
    """

    def __init__(
        self, flow: RealNVP, log_base: Callable[[Tensor], Tensor], shift: float | Tensor = 0.0
    ):
        super().__init__()
        self.flow, self.log_base = flow, log_base
        k = len(flow.shift)
        shift = torch.as_tensor(shift, dtype=flow.shift.dtype, device=flow.shift.device)
        self.shift = nn.Parameter(shift.expand(k).clone())

    @property
    def log_z(self) -> Tensor:
        """Exact, `(k,)`."""
        return -self.shift.detach()

    def forward(self, x: Tensor) -> Tensor:
        return self.log_base(x) - self.flow.log_prob(x) + self.shift[:, None]
