"""The report's figure 4 as a measurement: a game on the line in which all densities are known.

Increasing   generators that are increasing maps of (0, 1), with an exact density
play         the game, looked at after some steps
judge        discriminators that are trained to the end against the generators of each moment
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from ebmref import energies, gan, training

DOUBLE = torch.float64
N_UNITS = 12


class Increasing(nn.Module):
    """k increasing maps from z in (0, 1), `(k, n, 1)` to `(k, n, 1)`.

    G(z) = a + s(b) t + sum_j s(h_j) tanh(s(r_j) (t - c_j)), with t = log z / (1 - z), s softplus.
    """

    def __init__(self, k: int, generator: torch.Generator):
        super().__init__()

        def even(low: float, high: float, n: int = N_UNITS) -> nn.Parameter:
            u = torch.rand(k, 1, n, generator=generator, device=generator.device)
            return nn.Parameter(low + (high - low) * u)

        self.centre, self.rate = even(-4, 4), even(0, 1)
        self.height = even(-3, -2)
        self.shift, self.slope = even(-2.5, -1.5, 1), even(-1.5, -1.5, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.of_logit(torch.logit(z))

    def of_logit(self, t: Tensor, slope: bool = False) -> Tensor:
        """x, or dx/dt, at t = logit(z)."""
        centre, shift = self.centre.to(t.dtype), self.shift.to(t.dtype)
        rate, height, base = (softplus(p.to(t.dtype)) for p in (self.rate, self.height, self.slope))
        bent = torch.tanh(rate * (t - centre))
        if slope:
            return base + (height * rate * (1 - bent.square())).sum(-1, True)
        return shift + base * t + (height * bent).sum(-1, True)

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log density, `(k, n, 1)` to `(k, n)`; the inverse is found by halving."""
        low, high = torch.full_like(x, -60), torch.full_like(x, 60)
        for _ in range(54):  # 120 / 2^54 is below 1e-14
            middle = (low + high) / 2
            below = self.of_logit(middle) < x
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        log_q = logsigmoid(low) + logsigmoid(-low) - self.of_logit(low, slope=True).log()
        return log_q.squeeze(-1)


class EvenGame(gan.Game):
    """A game whose z is uniform on (0, 1)."""

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        k, d = self.latent
        z = torch.rand(k, n, d, generator=generator, device=self.device)
        return z.clamp(1e-6, 1 - 1e-6)


def truth(device="cpu") -> energies.GaussianMixture:
    """Two humps."""
    return energies.GaussianMixture(
        torch.tensor([[-1.0], [1.2]], dtype=DOUBLE, device=device),
        torch.tensor([0.4, 0.5], dtype=DOUBLE, device=device),
    )


def grid(device="cpu") -> Tensor:
    """Points on which densities are held, `(901, 1)`, 0.02 apart."""
    return torch.linspace(-9, 9, 901, dtype=DOUBLE, device=device)[:, None]


CELL = 0.02


class Moment(NamedTuple):
    """k games at one moment, on the grid of m points.

    Attributes:
        step: how many were made.
        p, q: densities of data `(m,)` and samples `(k, m)`.
        played: logits of the discriminators that play, `(k, m)`.
        generator: a copy.
    """

    step: int
    p: Tensor
    q: Tensor
    played: Tensor
    generator: Increasing

    @property
    def best(self) -> Tensor:
        """D* = p / (p + q), `(k, m)`."""
        return self.p / (self.p + self.q)

    @property
    def jsd(self) -> Tensor:
        """Between data and samples, `(k,)`."""
        return gan.jensen_shannon(self.p.expand_as(self.q) * CELL, self.q * CELL)

    @property
    def weight(self) -> Tensor:
        """Where points are: (p + q) / 2 a cell, `(k, m)`."""
        return (self.p + self.q) / 2 * CELL

    def off(self, logits: Tensor) -> Tensor:
        """Mean error of D against D*, where points are, `(k,)`."""
        return ((logits.sigmoid() - self.best).abs() * self.weight).sum(1)

    def reweighted(self, logits: Tensor) -> Tensor:
        """JSD of the data from q exp(d), normalised: what a discriminator that is kept leaves."""
        weighted = (self.q.log() + logits).softmax(1)
        return gan.jensen_shannon(self.p.expand_as(weighted) * CELL, weighted)

    def value(self, logits: Tensor) -> Tensor:
        """Of the game, for logits on the grid `(k, m)`, by quadrature: `(k,)`."""
        return (self.p * logsigmoid(logits) + self.q * logsigmoid(-logits)).sum(1) * CELL


def _on_grid(net: gan.Discriminator) -> Tensor:
    weights = net.layers.weights[0]
    with torch.no_grad():
        return net(grid(weights.device).float().expand(len(weights), -1, -1)).double()


def play(
    n_models: int, steps: list[int], source: torch.Generator, seed: int,
    *, loss: str = "non-saturating", rate: float = 2e-3,
) -> list[Moment]:  # fmt: skip
    """Play the game, without penalty or averaging; the moments after so many steps, rising.

    Args:
        source: draws the weights and the data.
        seed: of the batches and latents.
    """
    g_net = Increasing(n_models, source)
    d_net = gan.Discriminator((1,), (32, 32), n_models, source)
    recipe = gan.Recipe(loss=loss, batch=256, learning_rate=(rate, rate), momenta=(0.5, 0.99))
    game = EvenGame(g_net, d_net, (n_models, 1), recipe, seed)
    data = truth(source.device).sample(20_000, source).float()
    moments = [_look(0, g_net, d_net)] if steps[0] == 0 else []
    for made in training.train(game, steps[-1], data=data):
        if made.step in steps:
            moments.append(_look(made.step, g_net, d_net))
    return moments


def _look(step: int, g_net: Increasing, d_net: gan.Discriminator) -> Moment:
    at = grid(g_net.shift.device)
    q = g_net.log_prob(at.expand(len(g_net.shift), -1, -1)).exp()
    p = truth(at.device).log_prob(at).exp()
    return Moment(step, p, q, _on_grid(d_net), joined([g_net]))


def joined(generators: list[Increasing]) -> Increasing:
    """Copies of all of them, side by side."""
    states = [net.state_dict() for net in generators]
    k = sum(len(net.shift) for net in generators)
    both = Increasing(k, torch.Generator(generators[0].shift.device))
    both.load_state_dict({key: torch.cat([one[key] for one in states]) for key in states[0]})
    return both


def judge(moments: list[Moment], n_steps: int, source: torch.Generator) -> list[Tensor]:
    """Logits of new discriminators on the grid, `(k, m)` a moment, all trained at once.

    Each faces the generator of one moment, which stands still, with fresh draws at every step.
    """
    frozen = joined([moment.generator for moment in moments])
    k, law = len(frozen.shift), truth(source.device)
    net = gan.Discriminator((1,), (32, 32), k, source)

    def loss() -> Tensor:
        real = law.sample(k * 256, source).float().view(k, 256, 1)
        z = torch.rand(k, 256, 1, generator=source, device=source.device)
        with torch.no_grad():
            fake = frozen(z.clamp(1e-6, 1 - 1e-6))
        return -gan.value(net(real), net(fake))

    for _ in training.fit(net, loss, n_steps, 2e-2, anneal=True):
        pass
    return list(_on_grid(net).split(k // len(moments)))


def one_hump_divergence(device="cpu") -> float:
    """JSD of the data from its left hump alone."""
    law, at = truth(device), grid(device)
    hump = energies.Gaussian(law.means[0], law.scales[0].square()[None, None])
    return float(gan.jensen_shannon(law.log_prob(at).exp() * CELL, hump.log_prob(at).exp() * CELL))
