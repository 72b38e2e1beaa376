"""Small convolutional nets for translation, k side by side: pictures are `(k, n, c, h, w)`.

Inside they are `(n, k c, h, w)`, each model a group of every convolution, so that one pass is k
networks and models never meet. All are fully convolutional but the siamese net's last layer.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ebmref.gan import leaky
from ebmref.networks import Networks

STARTS = ("identity", "plain")
NORMS = ("layer", "instance", "none")
_SHRINK = 0.97  # a picture's white and black have no atanh


class Convolution(nn.Module):
    """k convolutions side by side, `(n, k a, h, w)` to `(n, k b, ...)`, padded with zeros.

    Args:
        a, b: channels of one model, in and out.
        n_models: k.
        generator: draws the weights, uniform with variance gain^2 / fan in.
        size: 3 keeps the side, 4 halves it.
        up: double the side instead, by a transposed convolution of size 4.
        gain: what the weights are multiplied by.
    """

    def __init__(self, a, b, n_models, generator, *, size=3, up=False, gain=1.0):
        super().__init__()
        self.n_models, self.up, self.stride = n_models, up, 1 if size == 3 else 2
        shape = (n_models * a, b, size, size) if up else (n_models * b, a, size, size)
        # A transposed one adds up a quarter of its kernel at each pixel.
        fan_in = a * size**2 / (4 if up else 1)
        uniform = torch.rand(shape, generator=generator, device=generator.device)
        self.weight = nn.Parameter(gain * (2 * uniform - 1) * (3 / fan_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(n_models * b, device=generator.device))

    def forward(self, x: Tensor) -> Tensor:
        convolve = functional.conv_transpose2d if self.up else functional.conv2d
        return convolve(
            x, self.weight, self.bias, stride=self.stride, padding=1, groups=self.n_models
        )


def fold(x: Tensor) -> Tensor:
    """`(k, n, c, h, w)` to `(n, k c, h, w)`."""
    return x.transpose(0, 1).flatten(1, 2)


def unfold(x: Tensor, n_models: int) -> Tensor:
    """`(n, k c, h, w)` to `(k, n, c, h, w)`."""
    return x.unflatten(1, (n_models, -1)).transpose(0, 1)


class Translator(nn.Module):
    """k maps from pictures to pictures of the same size, `(k, n, 3, h, w)` in [-1, 1], no others.

    A convolution, two that halve the side, a residual block, two that double it, a convolution;
    what has a quarter of the pixels is added once more on the way up.

    Args:
        n_models: k.
        width: channels at full size; there are twice as many below.
        generator: draws the weights.
        start: "identity": the net is tanh(atanh(.97 x) + f(x)), and its last layer starts ten
            times smaller, so that it begins near the identity. "plain": tanh(f(x)), as usual.
        norm: of hidden layers: "layer" (over all of a model's channels and pixels of a picture),
            "instance" (over the pixels of a channel), or "none".
        channels: of a picture.

    Raises:
        ValueError: an unknown start or norm.
    """

    def __init__(
        self, n_models, width, generator, *, start="identity", norm="layer", channels=3
    ):  # fmt: skip
        super().__init__()
        if start not in STARTS:
            raise ValueError(f"start: expected one of {', '.join(STARTS)}; got {start!r}")
        if norm not in NORMS:
            raise ValueError(f"norm: expected one of {', '.join(NORMS)}; got {norm!r}")
        self.n_models, self.start, self.norm = n_models, start, norm
        k, w, draws = n_models, width, generator
        self.into = Convolution(channels, w, k, draws)
        self.down_one = Convolution(w, 2 * w, k, draws, size=4)
        self.down_two = Convolution(2 * w, 2 * w, k, draws, size=4)
        self.block = nn.ModuleList(Convolution(2 * w, 2 * w, k, draws) for _ in range(2))
        self.up_one = Convolution(2 * w, 2 * w, k, draws, size=4, up=True)
        self.up_two = Convolution(2 * w, w, k, draws, size=4, up=True)
        gain = 0.1 if start == "identity" else 1.0
        self.out = Convolution(w, channels, k, draws, gain=gain)

    def _hidden(self, x: Tensor) -> Tensor:
        if self.norm == "none":
            return leaky(x)
        groups = self.n_models if self.norm == "layer" else x.shape[1]
        return leaky(functional.group_norm(x, groups))

    def forward(self, x: Tensor) -> Tensor:
        whole = self.into(fold(x))
        half = self.down_one(self._hidden(whole))
        quarter = self.down_two(self._hidden(half))
        turned = self.block[0](self._hidden(quarter))
        quarter = quarter + self.block[1](self._hidden(turned))
        half = half + self.up_one(self._hidden(quarter))
        change = unfold(self.out(self._hidden(self.up_two(self._hidden(half)))), self.n_models)
        return (change if self.start == "plain" else change + (_SHRINK * x).atanh()).tanh()


class PatchDiscriminator(nn.Module):
    """k nets that judge patches: `(k, n, 3, h, w)` to logits `(k, n, h w / 16)`.

    Args:
        n_models, generator, channels: as for `Translator`.
        width: channels at half the side; there are twice as many below.
    """

    def __init__(self, n_models, width, generator, *, channels=3):
        super().__init__()
        self.n_models = n_models
        k, w, draws = n_models, width, generator
        self.stages = nn.ModuleList([
            Convolution(channels, w, k, draws, size=4),
            Convolution(w, 2 * w, k, draws, size=4),
            Convolution(2 * w, 2 * w, k, draws),
        ])  # fmt: skip
        self.out = Convolution(2 * w, 1, k, draws)

    def forward(self, x: Tensor) -> Tensor:
        x = fold(x)
        for stage in self.stages:
            x = leaky(stage(x))
        return unfold(self.out(x), self.n_models).flatten(2)


class Siamese(nn.Module):
    """k nets S into the space where differences are compared, `(k, n, 3, h, w)` to `(k, n, dims)`.

    One net for either domain; of the authors' the first layer is of each its own, see `Players`.

    Args:
        picture: (channels, h, w), the sides multiples of 8.
        n_models, generator: as for `Translator`.
        width: channels at half the side; there are twice as many below.
        dims: of the space.
    """

    def __init__(self, picture, n_models, width, generator, *, dims=32):
        super().__init__()
        channels, h, w = picture
        self.n_models = n_models
        sizes = ((channels, width), (width, 2 * width), (2 * width, 2 * width))
        self.stages = nn.ModuleList(
            Convolution(a, b, n_models, generator, size=4) for a, b in sizes
        )
        self.head = Networks((2 * width * (h // 8) * (w // 8), dims), n_models, generator)

    def forward(self, x: Tensor) -> Tensor:
        x = fold(x)
        for stage in self.stages:
            x = leaky(stage(x))
        return self.head(unfold(x, self.n_models).flatten(2))


class Players(NamedTuple):
    """Who plays, each of `(k, n, *event)`; events need not be pictures.

    Attributes:
        ab, ba: translators; `ba` None for one way, from A to B, alone.
        judge_b, judge_a: discriminators, to `(k, n)` or `(k, n, p)`; `judge_a` None with `ba`.
        siamese: S, to `(k, n, dims)`; None without travel.
        siamese_b: S as it reads B, where that differs, as in the authors' net, whose first layer is
            of each domain its own; None: one net reads both. What the two share is trained once.
    """

    ab: nn.Module
    judge_b: nn.Module
    ba: nn.Module | None = None
    judge_a: nn.Module | None = None
    siamese: nn.Module | None = None
    siamese_b: nn.Module | None = None


def picture_players(
    picture, n_models, generator, *, ways=2, siamese=False, width=16, start="identity",
    norm="layer",
) -> Players:  # fmt: skip
    """The nets of this module for pictures (channels, h, w), the sides multiples of 8.

    Args:
        picture: shape of one.
        n_models: k.
        generator: draws the weights; its device is theirs.
        ways: 2, or 1 for A to B alone.
        siamese: whether there is one.
        width, start, norm: of the translators; discriminators are twice as wide.

    Raises:
        ValueError: sides that are no multiples of 8; ways that are neither 1 nor 2.
    """
    channels, *sides = picture
    if len(sides) != 2 or any(side % 8 or side < 8 for side in sides):
        raise ValueError(
            f"picture: expected (channels, h, w), sides multiples of 8; got {tuple(picture)}"
        )
    if ways not in (1, 2):
        raise ValueError(f"ways: expected 1 or 2; got {ways!r}")

    def translator() -> Translator:
        return Translator(n_models, width, generator, start=start, norm=norm, channels=channels)

    def judge() -> PatchDiscriminator:
        return PatchDiscriminator(n_models, 2 * width, generator, channels=channels)

    ab, judge_b = translator(), judge()
    ba, judge_a = (translator(), judge()) if ways == 2 else (None, None)
    third = Siamese(picture, n_models, width, generator) if siamese else None
    return Players(ab, judge_b, ba, judge_a, third)
