"""Spectral normalisation of k networks side by side, and of their moving averages."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize


def spectral_norm(module: nn.Module, n_models: int, generator: torch.Generator) -> None:
    """Divide each weight of the module by its largest singular value (Miyato et al. 2018).

    Per model, by one power iteration a forward pass in training; biases are left alone.

    Raises:
        ValueError: a weight that is zero, which has no norm to divide by.
    """
    for name, weight in list(module.named_parameters(recurse=False)):
        if weight.dim() > 1 and name != "bias":
            norm = _Spectral(weight, n_models, generator)
            parametrize.register_parametrization(module, name, norm)


class _Spectral(nn.Module):
    def __init__(self, weight: Tensor, n_models: int, generator: torch.Generator):
        super().__init__()
        rows = weight.shape[1] if weight.dim() == 3 else weight.shape[0] // n_models
        self.shape = (n_models, rows, -1)
        if not weight.detach().reshape(self.shape).flatten(1).any(1).all():
            raise ValueError("weight: expected one that is not zero, in each model")
        like = {"device": weight.device, "dtype": weight.dtype}
        u = torch.randn(n_models, 1, rows, generator=generator, **like)
        self.register_buffer("u", functional.normalize(u, dim=-1))
        self.register_buffer(
            "v", functional.normalize(u @ weight.detach().view(self.shape), dim=-1)
        )

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.reshape(self.shape)
            if self.training:
                with torch.no_grad():  # new tensors: an earlier pass may still need the old ones
                    self.v = functional.normalize(self.u @ matrix, dim=-1)
                    self.u = functional.normalize(self.v @ matrix.mT, dim=-1)
            sigma = self.u @ matrix @ self.v.mT
            return (matrix / sigma).view_as(weight)


@torch.no_grad()
def settle(net: nn.Module) -> None:
    """Let what the parametrizations of a net remember follow its weights by one pass in training.

    A spectral norm so makes a power iteration. The mode that each is in stays.
    """
    for module in net.modules():
        if parametrize.is_parametrized(module):
            for name, chain in module.parametrizations.items():
                was_training = chain.training
                chain.train()
                getattr(module, name)
                chain.train(was_training)
