"""The sentence with two completions: words as vectors, and answers that are words or are not.

    vocabulary   words in random directions
    nearness     how near an answer is to words
    scored       what energies over the words say
    third_word   how often the average of two words is nearest to a third one

Each of k vocabularies has its own network; the first two words of each are the completions.
"""

import math
from typing import NamedTuple

import torch
from scipy import integrate, stats
from torch import Tensor


def vocabulary(n_models: int, n: int, width: int, generator: torch.Generator) -> Tensor:
    """Words of unit length in random directions, `(n_models, n, width)`."""
    words = torch.randn(n_models, n, width, generator=generator, device=generator.device)
    return words / words.norm(dim=-1, keepdim=True)


class Nearness(NamedTuple):
    """Of answers to a question that two words complete, the first two of each vocabulary.

    Attributes:
        off_average: distance from the average of the two, `(k,)`.
        length: of the answer, `(k,)`.
        to_words: distance from each word, `(k, n)`.
        neighbour: mean distance of a word from the one nearest to it, `(k,)`.
    """

    off_average: Tensor
    length: Tensor
    to_words: Tensor
    neighbour: Tensor


def nearness(answers: Tensor, words: Tensor) -> Nearness:
    """Of answers `(k, width)` in vocabularies `(k, n, width)`."""
    apart = torch.cdist(words, words)
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    return Nearness(
        (answers - words[:, :2].mean(1)).norm(dim=-1),
        answers.norm(dim=-1),
        (answers[:, None] - words).norm(dim=-1),
        apart.amin(2).mean(1),
    )


class Scored(NamedTuple):
    """Of energies over words, `(k, n)`, when the first two are the completions.

    Attributes:
        p: probabilities, `(k, n)`.
        lowest: whether the two lie lowest, `(k,)`.
        gap: energy of the lowest other word over the higher of the two, `(k,)`.
    """

    p: Tensor
    lowest: Tensor
    gap: Tensor


def scored(energy: Tensor) -> Scored:
    """Read energies `(k, n)` as a law over the words."""
    gap = energy[:, 2:].amin(1) - energy[:, :2].amax(1)
    return Scored((-energy).softmax(-1), gap > 0, gap)


def third_word(n: int, width: int) -> float:
    """How often the word nearest to the average of two is one of the other n - 2.

    The words are independent and of uniform direction. With m the average, u = |m|^2 has the law
    Beta((d - 1) / 2, (d - 1) / 2). A third word is nearer than the two exactly if the cosine c of
    it and m is above sqrt(u), and (1 + c) / 2 has the same law.
    """
    law = stats.beta((width - 1) / 2, (width - 1) / 2)

    def missed(u: float) -> float:
        return law.pdf(u) * (1 - law.cdf((1 + math.sqrt(u)) / 2) ** (n - 2))

    return integrate.quad(missed, 0, 1)[0]
