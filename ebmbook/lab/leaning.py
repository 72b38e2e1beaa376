"""A pen that leans before it falls into a notch: an energy of the lean and of the fall.

The lean is seen, an angle x. The fall ends in one of five notches, an angle y: notch j, at theta_j,
with a probability that is proportional to w_j exp(kappa cos(x - theta_j)), and y scatters about it
by a von Mises law. kappa fixes how much the lean says. F(x, y) is learned from pairs, by the exact
likelihood of y given x on a grid of falls; that fixes F up to a function of x. Networks that see x
and answer with a whole law of y learn from the same pairs.

    Notches     the law of y given x, exactly, for several kappas side by side
    energy      F, a network of both
    maps        F and the densities over all leans and falls
    judge       for each lean, how far the learned law is from the true one, and trivial ones are
    floored     the same of a bump on a flat floor
    compare     the energy beside a mixture and a softmax over bins, which see the lean as well
    backwards   leans read off a fall, by the energy and by the law
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ebmbook.lab.resting import WEIGHTS
from ebmref import data, training
from ebmref.networks import Networks
from ebmref.seeds import derive_seed

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
def floored(
    laws: Notches, n_leans: int = 48, n_falls: int = 120, n_steps: int = 60
) -> Tensor:  # fmt: skip
    """KL to the best von Mises law on a flat floor, for each of l leans, `(m, l)`.

    Weight, direction and width are each lean's own, by expectation-maximisation under the true law
    of the fall, from narrow and wide bumps at the notches and between them; the best is kept.
    """
    lean = ring(n_leans, laws.kappas.device).expand(len(laws.kappas), n_leans)
    fall = ring(n_falls, laws.kappas.device).double()
    truth = laws.log_prob(lean, fall.float().expand(*lean.shape, n_falls)).double()
    p = (truth.exp() / truth.exp().sum(-1, keepdim=True))[..., None, :]
    notches = laws.at.double()
    starts = torch.cat([notches, notches + FULL_TURN / 10]).repeat(2)
    at = starts.expand(*lean.shape, len(starts))
    k, weight = torch.ones_like(at), torch.full_like(at, 0.5)
    k[..., : len(starts) // 2] = 20.0

    def parts() -> Tensor:
        """Log density of bump and floor, `(2, m, l, starts, n_falls)`."""
        about = k[..., None] * ((fall - at[..., None]).cos() - 1)
        bump = about - (FULL_TURN * torch.special.i0e(k)).log()[..., None] + weight.log()[..., None]
        floor = (-weight).log1p()[..., None] - math.log(FULL_TURN)
        return torch.stack([bump, floor.expand_as(bump)])

    for _ in range(n_steps):
        own = p * parts().softmax(0)[0]
        weight = own.sum(-1).clamp(1e-6, 1 - 1e-6)
        mean = own @ data.tips(fall)
        length = (mean.norm(dim=-1) / own.sum(-1).clamp_min(1e-12)).clamp(1e-6, 0.999)
        at, k = torch.atan2(mean[..., 1], mean[..., 0]), concentration(length)
    log_q = parts().logsumexp(0)
    return (p * (truth[..., None, :] - log_q)).sum(-1).amin(-1)


# Networks that answer with a law -----------------------------------------------------------------


KINDS = ("energy", "mixture", "bins")


def shape(kind: str, size: int, n_weights: int = 1250) -> tuple[int, ...]:
    """Widths of the layers, two of them hidden, whose weights and biases are nearest n_weights.

    Args:
        kind: "energy", "mixture" of von Mises laws, `size` of them, or "bins", so many.

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}; got {kind!r}")
    n_in, n_out = {"energy": (4, 1), "mixture": (2, 4 * size), "bins": (2, size)}[kind]

    def count(width: int) -> int:
        return sum((a + 1) * b for a, b in pairwise((n_in, width, width, n_out)))

    width = min(range(1, 200), key=lambda width: abs(count(width) - n_weights))
    return n_in, width, width, n_out


def log_law(kind: str, net: Networks, lean: Tensor, fall: Tensor, grid: Tensor) -> Tensor:
    """Log density of falls `(m, n, j)` given leans `(m, n)`, as a network says.

    A mixture's network gives a logit, a log concentration and a direction for each part.

    Args:
        grid: a ring of falls for each lean, on which an energy is normalised.
    """
    if kind == "energy":
        return -energy(net, lean, fall) - log_z(energy(net, lean, grid))[..., None]
    out = net(data.tips(lean))
    if kind == "bins":
        which = (fall.remainder(FULL_TURN) * (out.shape[-1] / FULL_TURN)).long()
        law = out.log_softmax(-1) + math.log(out.shape[-1] / FULL_TURN)
        return law.gather(-1, which.clamp(0, out.shape[-1] - 1))
    logit, log_k, c, s = out.unflatten(-1, (-1, 4))[:, :, None].unbind(-1)
    k = (log_k + 2).exp()
    about = k * ((fall[..., None] - torch.atan2(s, c)).cos() - 1)
    part = about - (FULL_TURN * torch.special.i0e(k)).log()
    return (logit.log_softmax(-1) + part).logsumexp(-1)


def learn(
    laws: Notches, kind: str, size: int, learning_rate: float, n_steps: int, seed: int
) -> Networks:
    """Networks of one kind, one for each of the laws, all kinds from the same pairs."""
    device = laws.kappas.device
    weights, pairs = (
        torch.Generator(device).manual_seed(derive_seed(seed, name))
        for name in (f"lean weights {kind} {size}", "lean pairs")
    )
    net = Networks(shape(kind, size), len(laws.kappas), weights)

    def loss() -> Tensor:
        lean, fall, grid = batch(laws, 32, 8, 48, pairs)
        return -log_law(kind, net, lean, fall, grid).mean((1, 2))

    for _ in training.fit(net, loss, n_steps, learning_rate, anneal=True):
        pass
    return net.requires_grad_(False)


@torch.no_grad()
def divergence(kind: str, net: Networks, laws: Notches) -> Tensor:
    """KL from the true law of the fall, the mean over leans, `(m,)`."""
    m, device = len(laws.kappas), laws.kappas.device
    lean = ring(48, device).expand(m, 48)
    # Half a step aside, so that no point lies on the border of two bins.
    fall = (ring(480, device) + FULL_TURN / 960).expand(m, 48, 480)
    truth = laws.log_prob(lean, fall).double()
    gap = truth - log_law(kind, net, lean, fall, fall).double()
    return (truth.exp() * gap).sum(-1).mean(-1) * FULL_TURN / 480


class Arm(NamedTuple):
    """One kind and size, at the rate of least median.

    Attributes:
        rate: that one.
        weights: that a network has.
        kl: see `divergence`, `(m,)`.
        swept: the same at all rates, `(rates, m)`.
    """

    rate: float
    weights: int
    kl: Tensor
    swept: Tensor


def compare(
    laws: Notches, asked: tuple[tuple[str, int], ...], rates: tuple[float, ...], n_steps: int,
    seed: int,
) -> dict[tuple[str, int], Arm]:  # fmt: skip
    """Learn with each kind and size, at each of the rates; see `learn`."""
    arms = {}
    for kind, size in asked:
        nets = [learn(laws, kind, size, rate, n_steps, seed) for rate in rates]
        swept = torch.stack([divergence(kind, net, laws) for net in nets])
        best = int(swept.median(1).values.argmin())
        n_weights = sum(part[0].numel() for part in nets[best].parameters())
        arms[kind, size] = Arm(rates[best], n_weights, swept[best], swept)
    return arms


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
