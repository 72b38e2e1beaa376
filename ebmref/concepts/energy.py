"""Concepts as energies: what to look at, where to put it, what it is called (report 2.2.1).

A scene x has N entities, a mask a attends to some of them, a code w names a concept, and one energy
says how well the three agree (Mordatch 2018):

    E(x, a, w) = f(sum_ij s(a_i) s(a_j) g(x_i, x_j, w), w)^2,   s the logistic function,

with small perceptrons f and g; N is free, and the order of the entities does not matter. Each of
the three is found from the other two by K steps down E: the code from demonstrations, then a scene
from code and mask, or a mask from code and scene. Learning differentiates through these steps, see
`ebmref.concepts.unrolling`; what is to be learned is drawn by `ebmref.concepts.scenes`.

Shapes: k models side by side that never meet, n tasks of each: scenes `(k, n, N, 5)`, masks
`(k, n, N)`, codes `(k, n, c)`, energies `(k, n)`.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ebmref.concepts.scenes import ENTITY, POSITION, Scenes, attended
from ebmref.concepts.unrolling import Inner, descend
from ebmref.networks import Networks

# --- the energy ------------------------------------------------------------------------

FARTHEST, WIDTH = 1.6, 0.2  # up to where bumps tell a pair's distance, and how wide they are
REACHES = {"w": 1.0, "x": 1.0, "a": 3.0}  # longest step of each, in units of the bound
GAIN = 2.0  # size of the first weights, in units of those of `nn.Linear`


class Energy(nn.Module):
    """k energies E(x, a, w), and the sizes of the steps that go down them.

    g has `depth[0]` layers and f `depth[1]`, in sequence. g sees both entities, the code, and the
    distance between the two, squared and as bumps, so that a length need not be made from scratch;
    the code also scales its last hidden layer. The last layer of g is linear and thus taken after
    the sum.

    Args:
        n_models: k.
        generator: draws the weights.
        hidden: width of f and g.
        code: c, the size of w.
        bumps: how many; 0 for none.
        depth: layers of g, >= 2, and of f, >= 1.
        steps: first sizes of the steps of w, positions, colours and a; learned. Those of w are to
            begin short. A first f hardly depends on the scene, f = f_0 + v w, so that five steps
            of size eta leave (1 - 2 eta |v|^2)^10 of E, for all scenes alike. With little left
            there is little for x and a to descend, and some networks then learn slowly.
        activation: smooth: learning needs its second derivative.

    Raises:
        ValueError: a size out of range.
    """

    def __init__(
        self,
        n_models: int,
        generator: torch.Generator,
        *,
        hidden: int = 48,
        code: int = 8,
        bumps: int = 8,
        depth: tuple[int, int] = (2, 3),
        steps: tuple[float, float, float, float] = (0.3, 0.6, 0.6, 3.0),
        activation: Callable[[Tensor], Tensor] = functional.silu,
    ):
        super().__init__()
        least = {"n_models": (n_models, 1), "hidden": (hidden, 1), "code": (code, 1)}
        least |= {"bumps": (bumps, 0), "depth[0]": (depth[0], 2), "depth[1]": (depth[1], 1)}
        for name, (value, low) in least.items():
            if value < low:
                raise ValueError(f"{name}: expected >= {low}; got {value}")
        if not min(steps) > 0:
            raise ValueError(f"steps: expected numbers > 0; got {steps}")
        self.code, self.bumps, self.activation = code, bumps, activation

        def layers(*sizes: int) -> Networks:
            return Networks(sizes, n_models, generator, activation)

        self.enter = layers(2 * ENTITY + 1 + bumps + code, hidden)
        self.further = layers(*[hidden] * (depth[0] - 1)) if depth[0] > 2 else None
        self.scale = layers(code, hidden).weights[0]
        self.pool = layers(hidden, hidden)
        self.judge = layers(hidden + code, *[hidden] * (depth[1] - 1), 1)
        # As `nn.Linear` begins E is so flat that w stays where it is, and is never learned to be
        # used: for "near" in three models of five. And in one of twenty-five the unlike singular
        # values of several layers leave the codes one direction, and learning never finds another.
        # So layers begin larger, and with all their singular values alike.
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if "biases" not in name:
                    weight.copy_(GAIN * _evened(weight))
        start = torch.tensor(steps, device=generator.device).log()
        self.log_steps = nn.Parameter(start.repeat(n_models, 1))

    def forward(
        self,
        x: Tensor | None,
        s: Tensor,
        w: Tensor,
        met: Tensor | None = None,
        related: Tensor | None = None,
    ) -> Tensor:
        """Energies `(k, n)` of scenes `(k, n, N, 5)`, attention `(k, n, N)`, codes `(k, n, c)`.

        The code enters after `meet`, and the attention after `relate`. So a descent of w or a may
        make those once; with `met`, or `related`, the scenes are not looked at.
        """
        if related is None:
            related = self.relate(self.meet(x) if met is None else met, w)
        pair = s[..., None] * s[..., None, :]
        pooled = (related * pair[..., None]).sum((2, 3)) * (1 + w @ self.scale)
        u = pooled @ self.pool.weights[0] + pair.sum((2, 3))[..., None] * self.pool.biases[0]
        # Sixteen pairs is the usual number; the scale only sets where learning begins.
        return self.judge(torch.cat([self.activation(u / 16), w], -1))[..., 0].square()

    def meet(self, x: Tensor) -> Tensor:
        """The first layer's part of scenes `(k, n, N, 5)`, pair by pair: `(k, n, N, N, hidden)`."""
        k, n, size, _ = x.shape
        first, second, apart, _ = self._entrance()
        # By parts: only their sum is as large as the pairs are many.
        flat = x.flatten(1, 2)
        one = (flat @ first).view(k, n, size, 1, -1)
        other = (flat @ second).view(k, n, 1, size, -1)
        h = (one + other).flatten(1, 3)
        h = torch.baddbmm(h, _distances(x[..., POSITION], self.bumps).flatten(1, 3), apart)
        return h.view(k, n, size, size, -1)

    def relate(self, met: Tensor, w: Tensor) -> Tensor:
        """The last hidden layer of g: of `meet` and codes `(k, n, c)`, of the shape of `meet`."""
        h = self.activation(
            met + torch.baddbmm(self.enter.biases[0], w, self._entrance()[3])[:, :, None, None]
        )
        if self.further is not None:
            h = self.activation(self.further(h.flatten(1, 3))).view_as(h)
        return h

    def _entrance(self) -> tuple[Tensor, ...]:
        """First weights: of one entity, of the other, of their distance, of the code."""
        return self.enter.weights[0].split([ENTITY, ENTITY, 1 + self.bumps, self.code], 1)


def _evened(weight: Tensor) -> Tensor:
    """The nearest matrices whose singular values are equal, as large in all as those given."""
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    return values.square().mean(-1).sqrt()[..., None, None] * (left @ right)


def _distances(position: Tensor, bumps: int) -> Tensor:
    """Of each pair d^2 and exp(-(d - c)^2 / 2 width^2) for each bump's centre c.

    `(..., N, 2)` to `(..., N, N, 1 + bumps)`.
    """
    gap = (position[..., :, None, :] - position[..., None, :, :]).square().sum(-1, keepdim=True)
    centres = torch.linspace(0, FARTHEST, bumps, dtype=gap.dtype, device=gap.device)
    d = (gap + 1e-4).sqrt()  # smooth at zero
    return torch.cat([gap, (-0.5 * ((d - centres) / WIDTH).square()).exp()], -1)


# --- inference -------------------------------------------------------------------------


def infer_code(model: Energy, demos: Scenes, inner: Inner) -> list[Tensor]:
    """w = argmin of the mean of E over the demonstrations, from w = 0.

    Args:
        demos: `(k, n, D)` events, of which `end` and `mask` are read.

    Returns:
        As `descend`, of `(k, n, c)`.

    Raises:
        ValueError: no demonstrations, or scenes that do not fit the model or their masks.
    """
    x, mask = demos.end, demos.mask
    if x.dim() != 5 or x.shape[2] < 1:
        raise ValueError(
            f"demos: expected (k, n, D, N, {ENTITY}), one demonstration or more; got "
            f"{tuple(x.shape)}"
        )
    _check_scenes("demos", model, x)
    k, n, n_demos = x.shape[:3]
    group, s, _ = attended(x, mask)
    group, s = group.flatten(1, 2), s.flatten(1, 2)

    def energy(w: Tensor, met: Tensor, *weights: Tensor) -> Tensor:
        each = w[:, :, None].expand(-1, -1, n_demos, -1).flatten(1, 2)
        return energy_at(model, weights, None, s, each, met).view(k, n, n_demos).mean(2)

    start = x.new_zeros(k, n, model.code)
    size = model.log_steps[:, :1, None].exp()
    inner = dataclasses.replace(inner, temperature=0.0)
    inputs = (model.meet(group), *own_weights(model))
    return descend(energy, start, size, inputs, _for(inner, "w"))


def infer_scene(
    model: Energy,
    start: Tensor,
    mask: Tensor,
    w: Tensor,
    inner: Inner,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """x = argmin of E(., a, w): the attended entities move, the others stay.

    Args:
        start: `(k, n, N, 5)`.
        mask: `(k, n, N)`, bool.
        w: `(k, n, c)`.
        generator: of the noise, if there is any.

    Returns:
        As `descend`, of `(k, n, N, 5)`.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_scenes("start", model, start)
    _check_code(model, start, w)
    group, s, index = attended(start, mask)

    def energy(group: Tensor, w: Tensor, *weights: Tensor) -> Tensor:
        return energy_at(model, weights, group, s, w)

    # Two numbers of a position, three of a colour.
    size = model.log_steps[:, [1, 1, 2, 2, 2]].exp()[:, None, None]
    path = descend(energy, group, size, (w, *own_weights(model)), _for(inner, "x"), generator)
    index = index[..., None].expand(*index.shape, ENTITY)
    return [start.scatter(2, index, group) for group in path]


def infer_mask(
    model: Energy, x: Tensor, w: Tensor, inner: Inner, generator: torch.Generator | None = None
) -> list[Tensor]:
    """a = argmin of E(x, ., w), from a = 0, where every entity has half the attention.

    Args:
        x: `(k, n, N, 5)`.
        w: `(k, n, c)`.
        generator: of the noise, if there is any.

    Returns:
        As `descend`, of `(k, n, N)`; the attention is its logistic function.

    Raises:
        ValueError: shapes that do not fit.
    """
    return _mask_from(torch.zeros_like(x[..., 0]), model, x, w, inner, generator)


def best_mask(
    model: Energy, x: Tensor, w: Tensor, inner: Inner, n_starts: int, generator: torch.Generator
) -> Tensor:
    """The mask of least energy that several descents find: one from a = 0, others from N(0, 1).

    Args:
        x: `(k, n, N, 5)`.
        w: `(k, n, c)`.
        inner: of each descent; not differentiated.
        n_starts: how many descents.
        generator: of where they start, and of the noise, if there is any.

    Returns:
        `(k, n, N)`.

    Raises:
        ValueError: shapes that do not fit, or n_starts below 1.
    """
    if n_starts < 1:
        raise ValueError(f"n_starts: expected >= 1; got {n_starts}")
    inner = dataclasses.replace(inner, differentiate="none")
    best = infer_mask(model, x, w, inner, generator)[-1]
    with torch.no_grad():
        least = model(x, best.sigmoid(), w)
        for _ in range(n_starts - 1):
            start = torch.randn(best.shape, generator=generator, device=x.device, dtype=x.dtype)
            a = _mask_from(start, model, x, w, inner, generator)[-1]
            energy = model(x, a.sigmoid(), w)
            best = torch.where((energy < least)[..., None], a, best)
            least = torch.minimum(energy, least)
    return best


def _mask_from(
    start: Tensor,
    model: Energy,
    x: Tensor,
    w: Tensor,
    inner: Inner,
    generator: torch.Generator | None,
) -> list[Tensor]:
    _check_scenes("x", model, x)
    _check_code(model, x, w)

    def energy(a: Tensor, w: Tensor, related: Tensor, *weights: Tensor) -> Tensor:
        return energy_at(model, weights, None, a.sigmoid(), w, None, related)

    size = model.log_steps[:, 3:, None].exp()
    inputs = (w, model.relate(model.meet(x), w), *own_weights(model))
    return descend(energy, start, size, inputs, _for(inner, "a"), generator)


def _for(inner: Inner, name: str) -> Inner:
    return dataclasses.replace(inner, bound=inner.bound * REACHES[name])


def own_weights(model: Energy) -> tuple[Tensor, ...]:
    """All that the energy itself is made of."""
    return tuple(p for name, p in model.named_parameters() if name != "log_steps")


def energy_at(model: Energy, weights: tuple[Tensor, ...], *variables: Tensor | None) -> Tensor:
    """The energy with other weights in the place of its own."""
    names = [name for name, _ in model.named_parameters() if name != "log_steps"]
    return torch.func.functional_call(model, dict(zip(names, weights, strict=True)), variables)


def _check_scenes(name: str, model: Energy, x: Tensor) -> None:
    k = len(model.log_steps)
    if x.dim() < 4 or x.shape[-1] != ENTITY or len(x) != k or x.dtype != model.log_steps.dtype:
        raise ValueError(
            f"{name}: expected scenes ({k}, n, N, {ENTITY}) for {k} models, of "
            f"{model.log_steps.dtype}; got {x.dtype} {tuple(x.shape)}"
        )


def _check_code(model: Energy, x: Tensor, w: Tensor) -> None:
    expected = (*x.shape[:2], model.code)
    if w.shape != expected:
        raise ValueError(f"w: expected {expected}; got {tuple(w.shape)}")
