"""Flows inside energies, whose normaliser and density are known: E = log g - log p + s.

A flow of density p is trained as an energy on a base of density g; then log Z = -s and the model's
law is p, exactly. In the plane on bases at several distances from the data; in eleven dimensions
with a base that learns too, beside maximum likelihood.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import ddls, flows, gebm, training

N_TRAIN, DIMENSION, WIDTHS, COUPLINGS = 5000, 11, (32,), 4


@torch.no_grad()
def shake(flow: flows.RealNVP, scale: float | Tensor, generator: torch.Generator) -> None:
    """Normal noise on all weights of a flow, in place; a scale each or one for all."""
    for weight in flow.parameters():
        noise = torch.randn(weight.shape, generator=generator, device=generator.device)
        weight.add_(scale * noise)


class OnBases(NamedTuple):
    """Of each base `(k,)`.

    Attributes:
        kl: of the data from the base.
        share: effective share of its samples, at weights dP/dQ.
        missing: share of KL that F, exact, is short of.
        constant: c - log Z at the end.
        of_a_batch: standard deviation of log Z estimated on one batch of the training.
    """

    kl: Tensor
    share: Tensor
    missing: Tensor
    constant: Tensor
    of_a_batch: Tensor


def on_bases(
    noises: tuple[float, ...], n_steps: int, generator: torch.Generator, seed: int
) -> OnBases:
    """Energies of flows, by KALE, on bases that are the data's flow with noise on its weights.

    Args:
        noises: scale of the noise of each base, k of them; a base is also wider than the data.
    """
    k, batch, samples = len(noises), 500, 2
    device = generator.device
    target = flows.RealNVP(2, (16,), 4, 1, generator)
    shake(target, 0.12, generator)
    base = flows.RealNVP(2, (16,), 4, k, generator)
    with torch.no_grad():
        for weight, of_target in zip(base.parameters(), target.parameters(), strict=True):
            weight.copy_(of_target.expand_as(weight))
    shake(base, torch.tensor(noises, device=device)[:, None, None], generator)
    with torch.no_grad():
        base.log_scale.add_(0.4)
    energy = flows.FlowEnergy(flows.RealNVP(2, (16,), 4, k, generator), base.log_prob, 1.0)
    recipe = gebm.Recipe(
        batch=batch, samples=samples, learning_rate=(1.0, 0.01, 0.01), momenta=(0.9, 0.999),
        frozen=True, constant=0.0, anneal_over=n_steps,
    )  # fmt: skip
    game = gebm.Game(base, energy, (k, 2), recipe, seed)
    training.bring(game, n_steps, data=target.sample(60_000, generator)[0])
    with torch.no_grad():
        x, y = target.sample(50_000, generator), base.sample(50_000, generator)
        log_p, wide = target.log_prob(x), x.expand(k, -1, -1)
        kl = (log_p - base.log_prob(wide)).double().mean(1)
        short = (log_p - energy.flow.log_prob(wide)).double().mean(1)
        at_best = target.log_prob(y.view(1, -1, 2)).view(k, -1) - base.log_prob(y)
        weights = -energy(y).double().view(k, -1, batch * samples)
    behind = energy.log_z.double() - game.constant.detach().double()
    estimates = weights.logsumexp(-1) - math.log(batch * samples)
    return OnBases(
        kl, ddls.log_z0(at_best.double()).share, (short + behind.expm1() - behind) / kl,
        -behind, estimates.std(1),
    )  # fmt: skip


# --- eleven dimensions -----------------------------------------------------------------


class Mixture:
    """Three correlated normal laws in eleven dimensions, whitened as a whole; drawn at random."""

    def __init__(self, generator: torch.Generator):
        d, device = DIMENSION, generator.device
        self.shares = torch.tensor([0.5, 0.3, 0.2], device=device)
        means = 0.8 * torch.randn(3, d, generator=generator, device=device)
        mix = torch.randn(3, d, d, generator=generator, device=device)
        mix = 0.7 * torch.eye(d, device=device) + 0.15 * mix
        middle = self.shares @ means
        second = mix @ mix.mT + means[:, :, None] * means[:, None]
        whole = (self.shares[:, None, None] * second).sum(0) - middle[:, None] * middle
        white = torch.linalg.inv(torch.linalg.cholesky(whole))
        self.means, self.mix = (means - middle) @ white.T, white @ mix

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`(n, 11)`."""
        at = torch.multinomial(self.shares, n, replacement=True, generator=generator)
        noise = torch.randn(n, DIMENSION, 1, generator=generator, device=self.means.device)
        return self.means[at] + (self.mix[at] @ noise)[..., 0]

    def log_prob(self, x: Tensor) -> Tensor:
        """Of `(n, 11)`, `(n,)`."""
        parts = torch.distributions.MultivariateNormal(
            self.means, scale_tril=torch.linalg.cholesky(self.mix @ self.mix.mT)
        ).log_prob(x[:, None])
        return (parts + self.shares.log()).logsumexp(1)


def new_flow(k: int, generator: torch.Generator) -> flows.RealNVP:
    """k flows of the size that all of them have here."""
    return flows.RealNVP(DIMENSION, WIDTHS, COUPLINGS, k, generator)


@torch.no_grad()
def nats(flow: flows.RealNVP, test: Tensor) -> Tensor:
    """-log p of the points `(n, 11)`, exact, `(k, n)`."""
    k = len(flow.shift)
    return -flow.log_prob(test.expand(k, -1, -1)).double()


def by_likelihood(
    k: int, data: Tensor, n_steps: int, rate: float, weights: torch.Generator,
    batches: torch.Generator,
) -> flows.RealNVP:  # fmt: skip
    """k flows by maximum likelihood, batches of 200, Adam's rate annealed to zero."""
    flow = new_flow(k, weights)

    def loss() -> Tensor:
        at = torch.randint(len(data), (k, 200), generator=batches, device=batches.device)
        return -flow.log_prob(data[at]).mean(1)

    for _ in training.fit(flow, loss, n_steps, rate, anneal=True):
        pass
    return flow


class Pair(NamedTuple):
    """k flows as energies and k as bases after their game, and c - log Z, `(k,)`."""

    energy: flows.RealNVP
    base: flows.RealNVP
    constant: Tensor
    log_z: Tensor


WAYS = ("KALE", "DV", "KALE, c known")


def by_game(
    way: str, k: int, data: Tensor, n_steps: int, rate: float, weights: torch.Generator,
    bases: torch.Generator, seed: int,
) -> Pair:  # fmt: skip
    """k flows as energies, and bases that learn from them: as many steps of the energy as n_steps.

    Args:
        way: of WAYS. "KALE, c known" holds s and c at zero, where log Z is zero exactly.
        rate: Adam's, of the energy and of c; the base's is a third of it.
    """
    base = new_flow(k, bases)
    energy = flows.FlowEnergy(new_flow(k, weights), base.log_prob)
    known = way == WAYS[2]
    if known:
        energy.shift.requires_grad_(False)
    recipe = gebm.Recipe(
        "DV" if way == "DV" else "KALE", batch=200, samples=2,
        learning_rate=(rate / 3, rate, 1e-30 if known else rate), momenta=(0.9, 0.999),
        n_energy=2, long_every=0, constant=0.0, anneal_over=n_steps // 2,
    )  # fmt: skip
    game = gebm.Game(base, energy, (k, DIMENSION), recipe, seed)
    training.bring(game, n_steps // 2, data=data)
    return Pair(energy.flow, base, game.constant.detach() - energy.log_z, energy.log_z)
