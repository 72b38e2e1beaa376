"""Restricted Boltzmann machines on small digits, where every likelihood is exact.

    learn        by the exact gradient, by CD-k and by PCD, looked at as steps are made
    opponents    what a machine has to beat: independent bits, a mixture of such
    sweep        learning rates, judged on pictures held out for that alone
    annealing    log Z from either end of a path, beside the exact one
    angles       of the gradient of CD-k to the exact one

A machine of m hidden units has its log Z by a sum over 2^m states: m = 12 is a matter of
milliseconds, m = 16 of some tens of them.
"""

import copy
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ebmbook.lab.likelihood_exact import Estimate
from ebmref import likelihood as L
from ebmref import training
from ebmref.data import pictures
from ebmref.rbm import RBM, Bits, annealed_log_z, exact_draws, gibbs, log_z, reverse_annealed_log_z
from ebmref.samplers import sample
from ebmref.seeds import derive_seed

WAYS = ("exact", "CD-1", "CD-10", "PCD")
# The rates that were best of `sweep` for 600 steps of 10 or 12 hidden units, and for 3000 of 16,
# where that of PCD is 0.01.
RATES = {"exact": 0.06, "CD-1": 0.03, "CD-10": 0.03, "PCD": 0.03}


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


class Digits(NamedTuple):
    """Pictures of 64 bits, `(n, 64)` each.

    Attributes:
        train: learned from.
        held_out: looked at in the end.
    """

    train: Tensor
    held_out: Tensor


def digits(threshold: float = 0.5, device="cpu") -> Digits:
    """The digits of scikit-learn, 8 by 8, a pixel being 1 from the threshold on.

    Raises:
        ValueError: a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: expected in (0, 1]; got {threshold}")
    parts = (pictures("digits", split).pixels.flatten(1) for split in ("train", "test"))
    return Digits(*((part >= threshold).float().to(device) for part in parts))


def validation(data: Digits, seed: int, share: float = 0.2) -> Digits:
    """A part of what is learned from, held out in place of what is looked at in the end.

    Args:
        share: of the pictures that is held out, in (0, 1).
    """
    n = len(data.train)
    order = torch.rand(n, generator=_source(seed, "validation", data.train.device),
                       device=data.train.device).argsort()  # fmt: skip
    held_out, train = order.split([int(share * n), n - int(share * n)])
    return Digits(data.train[train], data.train[held_out])


# Learning ----------------------------------------------------------------------------------------


class Curve(NamedTuple):
    """How a machine learned, looked at after s numbers of steps.

    Attributes:
        n_steps: `(s,)`.
        train: mean exact log-likelihood of a picture learned from, in nats, `(s,)`.
        log_p: exact log-likelihoods of the n pictures held out, `(s, n)`.
        machines: s of them.
    """

    n_steps: Tensor
    train: Tensor
    log_p: Tensor
    machines: list[RBM]


def method(way: str, train: Tensor, n_hidden: int, batch: int) -> L.Method:
    """One of `WAYS`, or CD-k of any k. PCD has one chain for each of a batch and moves it by one
    step (Tieleman 2008).

    Raises:
        ValueError: an unknown way.
    """
    if way == "exact":
        return L.exact(log_z, 2**n_hidden)
    if way == "PCD":
        return L.persistent_cd(gibbs, 1, Bits.of_data(train), size=batch, restart=0.0)
    if way.startswith("CD-") and way[3:].isdecimal():
        return L.cd(gibbs, int(way[3:]))
    raise ValueError(f"way: expected exact, PCD or CD-k, such as CD-10; got {way!r}")


def machine(train: Tensor, n_hidden: int, seed: int) -> RBM:
    """A fresh one, whose visible biases are the log-odds of the data (Hinton 2012)."""
    rbm = RBM(train.shape[1], n_hidden, _source(seed, "weights", train.device))
    with torch.no_grad():
        rbm.visible.copy_(Bits.of_data(train).log_odds)
    return rbm


def learn(
    data: Digits, way: str, n_hidden: int, n_steps: tuple[int, ...], seed: int, *,
    learning_rate: float | None = None, batch: int = 100, anneal: bool = True,
) -> Curve:  # fmt: skip
    """Train a machine by one of the ways.

    Args:
        n_steps: when to look, increasing.
        learning_rate: of Adam; None for that of `RATES`, which has those of `WAYS`.
        anneal: let the rate fall to zero along a cosine, up to the last step.

    Raises:
        ValueError: an unknown way, one without a rate, or numbers of steps that do not increase.
    """
    if learning_rate is None and way not in RATES:
        raise ValueError(f"learning_rate: expected one for {way}; known are {', '.join(RATES)}")
    if not n_steps or sorted(set(n_steps)) != list(n_steps):
        raise ValueError(f"n_steps: expected numbers that increase; got {n_steps}")
    rate = RATES[way] if learning_rate is None else learning_rate
    recipe = L.Recipe(batch, rate, anneal_over=n_steps[-1] if anneal else 0)
    made = method(way, data.train, n_hidden, batch)
    learner = L.Learner(machine(data.train, n_hidden, seed), made, recipe, seed)
    machines, train, log_p = [], [], []
    for stop in n_steps:
        training.bring(learner, stop, data=data.train)
        machines.append(learner.model())
        train.append(log_likelihoods(machines[-1], data.train).mean())
        log_p.append(log_likelihoods(machines[-1], data.held_out))
    return Curve(torch.tensor(n_steps), torch.stack(train), torch.stack(log_p), machines)


@torch.no_grad()
def log_likelihoods(rbm: RBM, v: Tensor) -> Tensor:
    """Exact log p(v) of pictures `(n, d)`: `(n,)`, in double precision."""
    return -rbm(v).double() - log_z(rbm)


def mean_of_pictures(log_p: Tensor) -> Estimate:
    """The mean over pictures `(..., n)` and its standard error: of log-likelihoods, or of what two
    models differ by on the same pictures."""
    return Estimate(log_p.mean(-1), log_p.std(-1) / math.sqrt(log_p.shape[-1]))


def sweep(
    data: Digits, grid: Mapping[str, tuple[float, ...]], n_hidden: int, n_steps: int,
    seeds: tuple[int, ...], *, batch: int = 100,
) -> dict[str, Tensor]:  # fmt: skip
    """Mean log-likelihood of pictures of `validation` by way and rate, `(rates, seeds)`.

    Args:
        grid: of each way the rates to try. Of "mixture" they are the values of `smooth`, and
            n_hidden is the number of its components.
    """
    splits = [(seed, validation(data, seed)) for seed in seeds]

    def judged(way: str, value: float, seed: int, split: Digits) -> Tensor:
        if way == "mixture":
            return mixture(split.train, n_hidden, seed, smooth=value).log_prob(split.held_out)
        more = {"learning_rate": value, "batch": batch}
        return learn(split, way, n_hidden, (n_steps,), seed, **more).log_p[0]

    return {
        way: torch.tensor([
            [float(judged(way, value, *split).mean()) for split in splits] for value in values
        ])
        for way, values in grid.items()
    }  # fmt: skip


# What has to be beaten ---------------------------------------------------------------------------


class BitMixture(NamedTuple):
    """A mixture of k laws of independent bits.

    Attributes:
        log_weights: `(k,)`.
        log_odds: of each bit being 1, `(k, d)`.
    """

    log_weights: Tensor
    log_odds: Tensor

    def log_joint(self, v: Tensor) -> Tensor:
        """log p(v, component), `(n, d)` to `(n, k)`."""
        level = self.log_weights - torch.nn.functional.softplus(self.log_odds).sum(1)
        return v.to(level.dtype) @ self.log_odds.T + level

    def log_prob(self, v: Tensor) -> Tensor:
        """`(n, d)` to `(n,)`."""
        return self.log_joint(v).logsumexp(1)


def mixture(
    v: Tensor, n_components: int, seed: int, *, smooth: float = 0.1, n_starts: int = 4,
    n_steps: int = 60,
) -> BitMixture:  # fmt: skip
    """By expectation maximisation: of several starts the one that has the data likeliest.

    With as many components as a machine has hidden units it has about as many numbers to learn.

    Args:
        v: `(n, d)` of zeros and ones.
        smooth: > 0; each bit of a component is counted as 1 and as 0 so many times more than it
            was.
    """
    draws = _source(seed, "mixture", v.device)
    wide = v.double()
    found = []
    for _ in range(n_starts):
        # Components begin at pictures, blurred; from shares drawn at random all would stay alike.
        at = torch.rand(len(v), generator=draws, device=v.device).argsort()[:n_components]
        near = -torch.cdist(wide, wide[at]).square()
        for _ in range(n_steps):
            fitted = _bits(wide, near.softmax(1), smooth)
            near = fitted.log_joint(wide)
        found.append(fitted)
    return max(found, key=lambda fitted: float(fitted.log_prob(wide).mean()))


def _bits(v: Tensor, share: Tensor, smooth: float) -> BitMixture:
    """The mixture of which component j has the share `(n, k)` of each picture."""
    mass = share.sum(0)
    ones, zeros = share.T @ v + smooth, share.T @ (1 - v) + smooth
    # A component that lost its pictures keeps a weight, so that its logarithm is a number.
    weight = (mass + smooth) / (mass + smooth).sum()
    return BitMixture(weight.log(), (ones / zeros).log())


def opponents(data: Digits, n_components: int, seed: int, **more) -> dict[str, Tensor]:
    """Log-likelihoods of the pictures held out, `(n,)`, by name.

    Args:
        more: for `mixture`.
    """
    return {
        "independent bits": Bits.of_data(data.train).log_prob(data.held_out).double(),
        "mixture": mixture(data.train, n_components, seed, **more).log_prob(data.held_out),
    }


# Annealing ---------------------------------------------------------------------------------------


class Annealed(NamedTuple):
    """log Z by annealing, r times for each of b numbers of steps; both Estimates are `(b, r)`.

    Attributes:
        truth: the exact log Z.
        forward: from independent bits to the machine; low on average.
        reverse: from exact draws of the machine to the bits; high on average.
    """

    truth: float
    forward: Estimate
    reverse: Estimate

    def z_scores(self) -> tuple[Tensor, Tensor]:
        """(estimate - truth) / its own error, forward and reverse, `(b, r)` each."""
        ways = (self.forward, self.reverse)
        return tuple((way.value - self.truth) / way.se for way in ways)

    def gap(self) -> Estimate:
        """Reverse less forward, the mean over replicates and its error, `(b,)`: what is known of
        log Z without knowing it."""
        gaps = self.reverse.value - self.forward.value
        return Estimate(gaps.mean(1), gaps.std(1) / math.sqrt(gaps.shape[1]))


def annealing(
    rbm: RBM, base: Bits, n_betas: tuple[int, ...], n: int, n_replicates: int, seed: int
) -> Annealed:
    """log Z by paths of several lengths.

    Args:
        base: where paths begin, such as `Bits.of_data` of what was learned from.
        n_betas: steps of each path.
        n: particles of each estimate.
        n_replicates: r, >= 2.
    """
    draws = _source(seed, "annealing", rbm.weight.device)
    ways: list[list] = [[], []]
    for length in n_betas:
        for _ in range(n_replicates):
            ways[0].append(annealed_log_z(rbm, n, length, draws, base))
            own = exact_draws(rbm, n, draws)
            ways[1].append(reverse_annealed_log_z(rbm, own, length, draws, base))
    shape = (len(n_betas), n_replicates)
    estimates = (
        Estimate(*(torch.stack([getattr(one, name) for one in way]).view(shape).cpu()
                   for name in ("log_z", "log_z_se")))
        for way in ways
    )  # fmt: skip
    with torch.no_grad():
        return Annealed(float(log_z(rbm)), *estimates)


# The direction of CD -----------------------------------------------------------------------------


class Angles(NamedTuple):
    """The gradient of CD-k beside the exact one, for each of k's, `(len(ks),)`.

    Attributes:
        cosine: of the angle between the two; zero and less does not lead down. As the noise of
            chains is taken out of it, it can come out above one.
        length: of CD's over that of the exact one.
        exact: length of that one, which falls to zero as the likelihood comes to its top.
    """

    cosine: Estimate
    length: Estimate
    exact: float

    @property
    def degrees(self) -> Tensor:
        """The angle."""
        return self.cosine.value.clamp(-1, 1).acos().rad2deg()


def angles(
    rbm: RBM, v: Tensor, ks: tuple[int, ...], n_replicates: int, seed: int
) -> Angles:  # fmt: skip
    """At the weights of a machine, over all of its data: no noise of a batch.

    That of the chains is taken out of the length of CD's gradient by comparing replicates. Errors
    are of the jackknife.

    Args:
        v: `(n, d)`, of zeros and ones.
        ks: how many steps of `gibbs`.
        n_replicates: >= 3, of a chain for each picture.
    """
    draws = _source(seed, "angles", v.device)
    rbm = copy.deepcopy(rbm).requires_grad_(True)
    of_data = _slope(rbm, rbm(v).mean())
    exact = of_data + _slope(rbm, log_z(rbm))
    chains = sample(gibbs(rbm), v.repeat(n_replicates, 1), max(ks), generator=draws).samples
    gradients = torch.stack([
        torch.stack([of_data - _slope(rbm, rbm(one).mean()) for one in x.split(len(v))])
        for x in chains[[k - 1 for k in ks]]
    ])  # fmt: skip
    found = [_jackknife(of_k, exact) for of_k in gradients]
    cosine, length = (
        Estimate(*(torch.stack(part) for part in zip(*of, strict=True)))
        for of in zip(*found, strict=True)
    )
    return Angles(cosine, length, float(exact.norm()))


def _slope(rbm: RBM, value: Tensor) -> Tensor:
    """By all the weights, in double precision."""
    parts = torch.autograd.grad(value, list(rbm.parameters()), allow_unused=True)
    return torch.cat([part.flatten() for part in parts]).double()


def _jackknife(gradients: Tensor, exact: Tensor) -> tuple[tuple, tuple]:
    """Cosine and length from replicates `(r, p)`, each with its error."""
    r = len(gradients)
    without = torch.stack([_compared(gradients[torch.arange(r) != i], exact) for i in range(r)])
    whole = _compared(gradients, exact)
    error = ((r - 1) / r * (without - without.mean(0)).square().sum(0)).sqrt()
    return (whole[0], error[0]), (whole[1], error[1])


def _compared(gradients: Tensor, exact: Tensor) -> Tensor:
    """Cosine, and length over the exact one: the square of CD's is over pairs that differ, which
    the noise of chains does not add to."""
    r = len(gradients)
    total = gradients.sum(0)
    square = (total.square().sum() - gradients.square().sum()) / (r * (r - 1))
    length = square.clamp(min=1e-300).sqrt()
    cosine = (total @ exact) / (r * length * exact.norm())
    return torch.stack([cosine, length / exact.norm()])
