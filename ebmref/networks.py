"""k networks of one shape, evaluated side by side in one pass; they never meet."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


class Networks(nn.Module):
    """`n_models` independent networks of one shape, evaluated side by side.

    Initialised per model as `nn.Linear` is: uniform within 1 / sqrt(fan in).

    Args:
        sizes: widths from input to output, for example `(1, 20, 10)`.
        n_models: how many networks.
        generator: draws the weights; its device is theirs.
        activation: between the layers.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        n_models: int,
        generator: torch.Generator,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
    ):
        super().__init__()
        self.activation = activation

        def draw(fan_in: int, *shape: int) -> nn.Parameter:
            uniform = torch.rand(n_models, *shape, generator=generator, device=generator.device)
            return nn.Parameter((2 * uniform - 1) / fan_in**0.5)

        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(draw(a, a, b) for a, b in pairs)
        self.biases = nn.ParameterList(draw(a, 1, b) for a, b in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, sizes[0])`, shared, or `(n_models, n, sizes[0])`, to `(n_models, n, sizes[-1])`."""
        x = x.expand(self.weights[0].shape[0], *x.shape[-2:])
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x if i == 0 else self.activation(x), weight)
        return x
