"""What keeps energies of concepts from being learned: steep places, and codes that arrive too soon.

    begun, Begun    the loss and its gradient before anything is learned, with and without a bound
    after, left     networks whose codes begin with steps of some size: how they learn, what is left

Shapes: k networks side by side that never meet, n tasks of each; see `ebmbook.lab.concepts`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ebmbook.lab import concepts as lab
from ebmref import concepts
from ebmref.concepts.scenes import Family, Tasks, attended
from ebmref.concepts.unrolling import Inner

SMALL = {"hidden": 32, "bumps": 0}
# A loss beyond this is of states that were thrown out: entities are within some units of 0.
THROWN = 1e6


class Begun(NamedTuple):
    """First networks on one batch, `(k,)` each.

    Attributes:
        loss: the report's.
        slope: the length of its gradient.
        lost: whether a number is not finite, the loss is beyond `THROWN`, or the gradient zero in
            every digit, since states were thrown to where the energy is level.
    """

    loss: Tensor
    slope: Tensor
    lost: Tensor


def begun(
    family: Family, n_models: int, seed: int, *, times: float = 1.0, n_steps: int = 5,
    bound: float = 1.0, device="cpu",
) -> Begun:  # fmt: skip
    """Loss and gradient of networks that learned nothing.

    Args:
        times: what their first weights are multiplied with.
        n_steps: of each inference.
        bound: of a step of inference, see `concepts.unrolling.Inner`; 1e9 is none.
    """
    model = lab.first(n_models, seed, "steep", device, **SMALL)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name != "log_steps":
                p *= times
    tasks = family.tasks(n_models, 8, 3, lab.source(seed, "steep-tasks", device))
    recipe = concepts.Recipe(Inner(n_steps, bound=bound))
    made, found = concepts.truth_loss(model, tasks, recipe)
    loss = recipe.generate * made + recipe.identify * found
    slopes = torch.autograd.grad(loss.sum(), list(model.parameters()))
    slope = sum(s.flatten(1).double().square().sum(1) for s in slopes).sqrt()
    loss = loss.detach()
    lost = ~(loss < THROWN) | ~slope.isfinite() | (slope == 0)
    return Begun(loss, slope, lost)


def paced(eta: float) -> dict:
    """Sizes of networks whose codes begin with steps of eta; all else as ever."""
    return SMALL | {"steps": (eta, 0.6, 0.6, 3.0)}


def after(
    family: Family, eta: float, n_models: int, n_steps: int, tasks: Tasks, seed: int, **how
) -> Tensor:
    """Held-out loss of networks whose codes began with steps of eta, `(k,)`.

    Networks of other eta start from the same weights and see the same tasks.

    Args:
        how: see `lab.learn`.
    """
    model = lab.learn(
        family, n_models, n_steps, seed, weights="paced", energy=paced(eta), **how
    )  # fmt: skip
    return lab.held_out_loss(model, tasks)


@torch.no_grad()
def left(model: concepts.Energy, tasks: Tasks) -> Tensor:
    """Share of the demonstrations' energy that their codes leave, median over tasks, `(k,)`."""
    x, s, _ = attended(tasks.demos.end, tasks.demos.mask)
    w = lab.codes(model, tasks)
    there, before = (
        sum(model(x[:, :, d], s[:, :, d], code) for d in range(x.shape[2]))
        for code in (w, torch.zeros_like(w))
    )
    return (there / before).median(1).values
