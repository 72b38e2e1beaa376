"""A pen that leans before it falls into a notch: an energy of the lean and of the fall.

The lean is seen, an angle x. The fall ends in one of five notches, an angle y: notch j, at theta_j,
with a probability that is proportional to w_j exp(kappa cos(x - theta_j)), and y scatters about it
by a von Mises law. kappa fixes how much the lean says. F(x, y) is learned from pairs, by the exact
likelihood of y given x on a grid of falls; that fixes F up to a function of x.

    Notches     the law of y given x, exactly, for several kappas side by side
    energy      F, a network of both
    maps        F and the densities over all leans and falls
    judge       for each lean, how far the learned law is from the true one, and trivial ones are
    backwards   leans read off a fall, by the energy and by the law
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmbook.lab.resting import WEIGHTS
from ebmref import data
from ebmref.networks import Networks

FULL_TURN = 2 * math.pi


def ring(n: int, device="cpu") -> Tensor:
    """n angles, evenly all around, `(n,)`."""
    return torch.arange(n, device=device) * FULL_TURN / n


class Notches:
    """Laws of the fall given the lean, one for each kappa.

    Args:
        kappas: `(m,)`, how much the lean says.
        tightness: concentration of the falls about a notch; its root is one over their scatter.
    """

    def __init__(self, kappas: Tensor, tightness: float = 40.0):
        self.kappas, self.tightness = kappas, tightness
        self.weights = torch.tensor(WEIGHTS, device=kappas.device)
        self.at = ring(5, kappas.device) + 0.3

    def log_shares(self, lean: Tensor) -> Tensor:
        """Log probabilities of the notches, `(m, n)` to `(m, n, 5)`."""
        pull = self.kappas[:, None, None] * (lean[..., None] - self.at).cos()
        return (self.weights.log() + pull).log_softmax(-1)

    def log_prob(self, lean: Tensor, fall: Tensor) -> Tensor:
        """Log density of falls `(m, n, j)` given leans `(m, n)`, `(m, n, j)`."""
        size = torch.special.i0e(torch.tensor(self.tightness, dtype=torch.float64))
        about = self.tightness * ((fall[..., None] - self.at).cos() - 1)
        about = about - math.log(FULL_TURN * float(size))
        return (self.log_shares(lean)[..., None, :] + about).logsumexp(-1)

    def draw(self, lean: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """n falls for each lean, `(m, l)` to `(m, l, n)`."""
        shares = self.log_shares(lean).exp().flatten(0, 1)
        which = torch.multinomial(shares, n, replacement=True, generator=generator)
        scatter = data.von_mises((*lean.shape, n), self.tightness, generator)
        return self.at[which].view(scatter.shape) + scatter


def energy(net: Networks, lean: Tensor, fall: Tensor) -> Tensor:
    """F of leans `(m, n)` and falls `(m, n, j)`, both by their cosine and sine: `(m, n, j)`."""
    x = data.tips(lean)[:, :, None].expand(*fall.shape, 2)
    pair = torch.cat([x, data.tips(fall)], -1)
    return net(pair.flatten(1, 2)).view(fall.shape)


def log_z(values: Tensor) -> Tensor:
    """log of the integral of e^{-F} over falls, F given on a ring of them, `(..., n)`: `(...)`."""
    return (-values).logsumexp(-1) + math.log(FULL_TURN / values.shape[-1])


def batch(
    laws: Notches, n_leans: int, n_falls: int, n_grid: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """What a step learns from: leans, falls from each of them, and a grid of falls for each.

    The grid is turned at random, so that no well can hide between its points.

    Returns:
        `(m, n_leans)`, `(m, n_leans, n_falls)` and `(m, n_leans, n_grid)`.
    """
    shape, device = (len(laws.kappas), n_leans), laws.kappas.device
    lean = FULL_TURN * torch.rand(shape, generator=generator, device=device)
    fall = laws.draw(lean, n_falls, generator)
    turn = FULL_TURN * torch.rand(1, generator=generator, device=device)
    return lean, fall, (ring(n_grid, device) + turn).expand(*shape, n_grid)


class Maps(NamedTuple):
    """F, and log densities of the fall given the lean, learned and true, `(m, n_leans, n_falls)`.

    Rows are leans and columns falls, both in rings.
    """

    energy: Tensor
    learned: Tensor
    true: Tensor


@torch.no_grad()
def maps(net: Networks, laws: Notches, n_leans: int, n_falls: int) -> Maps:
    """On rings of leans and falls."""
    m, device = len(laws.kappas), laws.kappas.device
    lean = ring(n_leans, device).expand(m, n_leans)
    fall = ring(n_falls, device).expand(m, n_leans, n_falls)
    values = energy(net, lean, fall).double()
    true = laws.log_prob(lean, fall).double()
    return Maps(values, -values - log_z(values)[..., None], true)


class Judged(NamedTuple):
    """For each of l leans, KL from the true law of the fall, `(m, l)` each but the last.

    Attributes:
        learned: to e^{-F(x, y)} / Z(x).
        blind: to the best law that ignores the lean, the mean of all; its mean over leans is the
            mutual information of lean and fall.
        bump: to the best von Mises law for that lean, with the true mean and spread.
        even: to the uniform law.
        log_z: log Z(x), which no likelihood of y given x fixes.
    """

    learned: Tensor
    blind: Tensor
    bump: Tensor
    even: Tensor
    log_z: Tensor


@torch.no_grad()
def judge(net: Networks, laws: Notches, n_leans: int = 48, n_falls: int = 240) -> Judged:
    """Hold energies against their laws, on rings of leans and falls."""
    values, learned, truth = maps(net, laws, n_leans, n_falls)
    fall = ring(n_falls, laws.kappas.device).double()
    cell = FULL_TURN / n_falls

    def kl(log_q: Tensor) -> Tensor:
        return (truth.exp() * (truth - log_q)).sum(-1) * cell

    # The best von Mises law has the mean direction and the mean resultant length of the truth.
    mean = truth.exp() @ data.tips(fall) * cell
    length, middle = mean.norm(dim=-1), torch.atan2(mean[..., 1], mean[..., 0])
    k = concentration(length)[..., None]
    bump = k * ((fall - middle[..., None]).cos() - 1)
    bump = bump - (FULL_TURN * torch.special.i0e(k)).log()
    return Judged(
        kl(learned),
        kl(truth.exp().mean(1, True).log().expand_as(truth)),
        kl(bump),
        kl(torch.full_like(truth, -math.log(FULL_TURN))),
        log_z(values),
    )


def concentration(length: Tensor) -> Tensor:
    """kappa of the von Mises law with this mean resultant length, in [0, 1); by bisection."""
    low, high = torch.zeros_like(length), torch.full_like(length, 1e4)
    for _ in range(60):
        middle = 0.5 * (low + high)
        short = torch.special.i1e(middle) / torch.special.i0e(middle) < length
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return low


@torch.no_grad()
def backwards(net: Networks, laws: Notches, n_leans: int = 240) -> tuple[Tensor, Tensor]:
    """Leans read off a fall into each notch, in degrees off the lean that makes it likeliest.

    Returns:
        `(m, 5)` twice: by the least F over leans, and by the least F + log Z.
    """
    m = len(laws.kappas)
    lean = ring(n_leans, laws.kappas.device).expand(m, n_leans)
    fall = laws.at.expand(m, n_leans, 5)
    truth = laws.log_prob(lean, fall).argmax(1)
    values = energy(net, lean, fall)
    grid = ring(240, laws.kappas.device).expand(m, n_leans, 240)
    z = log_z(energy(net, lean, grid))[..., None]

    def off(found: Tensor) -> Tensor:
        steps = (found - truth).abs()
        return torch.minimum(steps, n_leans - steps) * 360.0 / n_leans

    return off(values.argmin(1)), off((values + z).argmin(1))
