"""The losses of unpaired translation, each `(k, n, ...)` to `(k,)`: k models side by side.

G takes A to B, F takes B to A; no picture of A has a partner in B that anybody knows.

    adversarial   G(a) should be taken for b by a discriminator D_B
    cycle         E|F(G(a)) - a| + E|G(F(b)) - b|                        Zhu et al. 2017
    identity      E|G(b) - b| + E|F(a) - a|                              the same, as an option
    travel        differences S(a_i) - S(a_j) should survive translation, in angle and length
    margin        and be no shorter than a margin, so that S keeps pictures apart
                                                               Amodio & Krishnaswamy 2019

A discriminator's logits are `(k, n)`, or `(k, n, p)` where it judges p patches of each picture.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ebmref import gan

ADVERSARIES = ("logistic", "least-squares")


def discriminator_loss(real: Tensor, fake: Tensor, adversary: str = "logistic") -> Tensor:
    """What D descends, from logits of true and of translated pictures.

    "logistic" is -V of equation (6), 2 log 2 where D cannot tell; "least-squares" is the mean of
    (D(real) - 1)^2 and D(fake)^2 over two, 1/4 where it cannot.

    Raises:
        ValueError: an unknown adversary.
    """
    _check(adversary)
    real, fake = real.flatten(1), fake.flatten(1)
    if adversary == "logistic":
        return -gan.value(real, fake)
    return 0.5 * ((real - 1).square().mean(-1) + fake.square().mean(-1))


def generator_loss(fake: Tensor, adversary: str = "logistic") -> Tensor:
    """What the translator descends, from logits of its pictures.

    "logistic" is the non-saturating -log D, "least-squares" (D(fake) - 1)^2.

    Raises:
        ValueError: an unknown adversary.
    """
    _check(adversary)
    if adversary == "logistic":
        return gan.generator_loss(fake.flatten(1))
    return (fake.flatten(1) - 1).square().mean(-1)


def _check(adversary: str) -> None:
    if adversary not in ADVERSARIES:
        raise ValueError(f"adversary: expected one of {', '.join(ADVERSARIES)}; got {adversary!r}")


def distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of pictures: of the cycle loss and of the identity loss."""
    return (x - y).abs().flatten(1).mean(-1)


def travel_loss(u: Tensor, w: Tensor) -> Tensor:
    """How far translation bends the differences of pictures, in the space of a third net S.

    With d = u_i - u_j, u = S(a), and e = w_i - w_j, w = S(G(a)), over all pairs of a batch: the
    mean of |d - e|^2 / dims, less the mean cosine of the angle between d and e. The least value
    is -1, where w = u plus a constant.

    Args:
        u, w: `(k, n, dims)`, n >= 2.

    Raises:
        ValueError: a batch without a pair.
    """
    d, e = differences(u), differences(w)
    cosine = functional.cosine_similarity(d, e, dim=-1)
    return (d - e).square().mean((1, 2)) - cosine.mean(1)


def margin_loss(u: Tensor, margin: float | Tensor) -> Tensor:
    """By how much the squared differences of pairs fall short of a margin, on average.

    Args:
        u: `(k, n, dims)`, S(a), n >= 2.
        margin: a number, or `(k, 1)`, in the unit of |u|^2.

    Raises:
        ValueError: a batch without a pair.
    """
    return (margin - differences(u).square().sum(-1)).relu().mean(1)


def differences(u: Tensor) -> Tensor:
    """u_i - u_j of all pairs i < j: `(k, n, dims)` to `(k, n (n - 1) / 2, dims)`.

    Raises:
        ValueError: a batch without a pair.
    """
    n = u.shape[1]
    if n < 2:
        raise ValueError(f"batch: expected two or more, travel is of pairs; got {n}")
    i, j = torch.triu_indices(n, n, 1, device=u.device)
    return u[:, i] - u[:, j]
