"""Concepts as energies: what to look at, where to put it, what it is called (report 2.2.1).

A scene x has N entities, a mask a attends to some of them, a code w names a concept, and one energy
says how well the three agree (Mordatch 2018):

    E(x, a, w) = f(sum_ij s(a_i) s(a_j) g(x_i, x_j, w), w)^2,   s the logistic function,

with small perceptrons f and g; N is free, and the order of the entities does not matter. Each of
the three is found from the other two by K steps down E: the code from demonstrations, then a scene
from code and mask, or a mask from code and scene. Learning differentiates through these steps, see
`ebmref.unrolling`; what is to be learned is drawn by `ebmref.scenes`.

Shapes: k models side by side that never meet, n tasks of each: scenes `(k, n, N, 5)`, masks
`(k, n, N)`, codes `(k, n, c)`, energies `(k, n)`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import softplus
from tqdm import tqdm

from ebmref import checkpoints
from ebmref.learning import Networks
from ebmref.scenes import ENTITY, POSITION, Family, Scenes, Tasks, attended
from ebmref.seeds import derive_seed
from ebmref.unrolling import Inner, check_field, descend, is_number

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
        steps: first sizes of the steps of w, positions, colours and a; learned.
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
        steps: tuple[float, float, float, float] = (1.0, 0.6, 0.6, 3.0),
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
        return _at(model, weights, None, s, each, met).view(k, n, n_demos).mean(2)

    start = x.new_zeros(k, n, model.code)
    size = model.log_steps[:, :1, None].exp()
    inner = dataclasses.replace(inner, temperature=0.0)
    inputs = (model.meet(group), *_weights(model))
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
        return _at(model, weights, group, s, w)

    # Two numbers of a position, three of a colour.
    size = model.log_steps[:, [1, 1, 2, 2, 2]].exp()[:, None, None]
    path = descend(energy, group, size, (w, *_weights(model)), _for(inner, "x"), generator)
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
        return _at(model, weights, None, a.sigmoid(), w, None, related)

    size = model.log_steps[:, 3:, None].exp()
    inputs = (w, model.relate(model.meet(x), w), *_weights(model))
    return descend(energy, start, size, inputs, _for(inner, "a"), generator)


def _for(inner: Inner, name: str) -> Inner:
    return dataclasses.replace(inner, bound=inner.bound * REACHES[name])


def _weights(model: Energy) -> tuple[Tensor, ...]:
    """All that the energy itself is made of."""
    return tuple(p for name, p in model.named_parameters() if name != "log_steps")


def _at(model: Energy, weights: tuple[Tensor, ...], *variables: Tensor | None) -> Tensor:
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


# --- learning --------------------------------------------------------------------------

LOSSES = ("truth", "contrast")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How concepts are learned.

    Attributes:
        inner: the steps of inference, and how they are differentiated.
        loss: "truth", the report's: the error of what inference finds, backpropagated through it;
            or "contrast", the paper's: see `contrast_loss`.
        batch: tasks a step and model.
        n_demos: demonstrations a task.
        generate, identify: weights of the two questions; 0 leaves one out.
        kl: weight of the contrast's second term.
        learning_rate: of Adam, after a warm-up of a twentieth of `anneal_over`.
        step_rate: how many times as fast the sizes of the inner steps are learned.
        clip: longest gradient of one model.
        anneal_over: over so many steps the rate falls to zero along a cosine; 0 keeps it.

    Raises:
        ValueError: a field out of range.
    """

    inner: Inner = dataclasses.field(default_factory=Inner)
    loss: str = "truth"
    batch: int = 32
    n_demos: int = 3
    generate: float = 2.0
    identify: float = 1.0
    kl: float = 1.0
    learning_rate: float = 4e-3
    step_rate: float = 5.0
    clip: float = 1.0
    anneal_over: int = 0

    def __post_init__(self):
        check_field(self, "inner", "an Inner that is differentiated", _is_differentiated)
        check_field(self, "loss", f"one of {', '.join(LOSSES)}", lambda v: v in LOSSES)
        for name in ("batch", "n_demos"):
            check_field(self, name, "a whole number >= 1", lambda v: type(v) is int and v >= 1)
        check_field(self, "anneal_over", "a whole number >= 0", lambda v: type(v) is int and v >= 0)
        for name in ("generate", "identify", "kl", "step_rate"):
            check_field(self, name, "a number >= 0", lambda v: is_number(v) and v >= 0)
        for name in ("learning_rate", "clip"):
            check_field(self, name, "a number > 0", lambda v: is_number(v) and v > 0)
        if not self.generate + self.identify > 0:
            raise ValueError("generate, identify: expected one of them > 0; got 0 and 0")


def _is_differentiated(inner) -> bool:
    return isinstance(inner, Inner) and inner.differentiate != "none"


def truth_loss(
    model: Energy, tasks: Tasks, recipe: Recipe, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The report's loss: demonstrations to w, w to a scene and to a mask, each against the truth.

    The squared error of an attended entity, and the cross-entropy of an entity's attention, each
    averaged over the inner steps with weights that rise from 1/5 to 1, so that early steps
    learn, too.

    Returns:
        `(k,)`, `(k,)`: of generation and of identification; zeros for one left out.
    """
    query, inner = tasks.query, recipe.inner
    w = infer_code(model, tasks.demos, inner)[-1]
    generated = identified = w.new_zeros(len(w))
    if recipe.generate:
        path = infer_scene(model, query.start, query.mask, w, inner, generator)
        share = query.mask[..., None] / query.mask.sum(-1)[..., None, None]
        generated = _averaged(
            [((x - query.end).square() * share).sum((2, 3)).mean(1) for x in path]
        )
    if recipe.identify:
        target = query.mask.to(w.dtype)
        cost = functools.partial(functional.binary_cross_entropy_with_logits, reduction="none")
        path = infer_mask(model, query.end, w, inner, generator)
        identified = _averaged([cost(a, target).mean((1, 2)) for a in path])
    return generated, identified


def _averaged(losses: list[Tensor]) -> Tensor:
    losses = torch.stack(losses, -1)
    rise = torch.linspace(0.2, 1, losses.shape[-1], dtype=losses.dtype, device=losses.device)
    if len(rise) == 1:
        return losses[..., 0]
    return (losses * rise).sum(-1) / rise.sum()


def contrast_loss(
    model: Energy, tasks: Tasks, recipe: Recipe, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The paper's loss: data below samples, and samples low.

        softplus(E(x1, a, w) - E(x~, a, w)) + kl * E_frozen(x~, a, w),   x~ ~ sampler,

    and the same with a~ for x~. In the first term the sample is given and E learns; in the second
    E is frozen and the gradient goes into the sampler, through its steps. The code is inferred
    from the demonstrations and learned through: it is in the first term, and steers the sampler.
    The entropy of the sampler is left out; noise it has where the recipe has a temperature.

    Returns:
        `(k,)`, `(k,)`: of generation and of identification; zeros for one left out.
    """
    query, inner = tasks.query, recipe.inner
    w = infer_code(model, tasks.demos, inner)[-1]
    group, s, _ = attended(query.end, query.mask)
    right = model(group, s, w)
    frozen = tuple(p.detach() for p in _weights(model))

    def compare(x: Tensor, s: Tensor) -> Tensor:
        given = model(x.detach(), s.detach(), w)
        low = _at(model, frozen, x, s, w.detach())
        return (softplus(right - given) + recipe.kl * low).mean(1)

    generated = identified = w.new_zeros(len(w))
    if recipe.generate:
        x = infer_scene(model, query.start, query.mask, w, inner, generator)[-1]
        generated = compare(*attended(x, query.mask)[:2])
    if recipe.identify:
        a = infer_mask(model, query.end, w, inner, generator)[-1]
        identified = compare(query.end, a.sigmoid())
    return generated, identified


class Diverged(RuntimeError):
    """A loss or its gradient was not finite; the message says where, and the last good save."""


class Step(NamedTuple):
    """One step of learning, of each of the k models.

    Attributes:
        step: how many were made, with this one.
        generate, identify: `(k,)`, the two losses on the batch, unweighted.
        slope: `(k,)`, the length of the gradient before it was clipped.
    """

    step: int
    generate: Tensor
    identify: Tensor
    slope: Tensor


class Learner:
    """k energies with all that their learning remembers.

    Weights, moments of the optimiser and the number of steps made: `save` and `load` keep them. All
    else that a step needs follows from the seed and its number, so learning that is stopped and
    resumed makes the very steps it would have made.

    Args:
        model: the energies.
        family: from which tasks are drawn.
        recipe: how they learn.
        seed: of the tasks and the noise.

    Attributes:
        step: how many steps were made.
        saved: the last checkpoint that was written or read, in words; None before.

    Raises:
        ValueError: a seed that is no integer.
    """

    def __init__(self, model: Energy, family: Family, recipe: Recipe, seed: int):
        if type(seed) is not int:
            raise ValueError(f"seed: expected an integer; got {seed!r}")
        self.model, self.family, self.recipe, self.seed = model, family, recipe, seed
        self.step = 0
        self.saved: str | None = None
        self.device = model.log_steps.device
        groups = [{"params": _weights(model)}, {"params": [model.log_steps]}]
        self._adam = torch.optim.Adam(groups, lr=recipe.learning_rate, fused=True)
        self._parts = {"model": model, "adam": self._adam}

    def _identity(self) -> dict:
        """What makes another learner of a checkpoint, its networks apart."""
        return {
            "seed": self.seed,
            "recipe": dataclasses.asdict(self.recipe),
            "family": dataclasses.asdict(self.family),
        }

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        checkpoints.write(path, state | self._identity() | {"step": self.step})
        self.saved = f"{path}, step {self.step}"

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: no checkpoint, a damaged one, or one of another learner; this one is then
                unchanged.
        """
        state = checkpoints.read(path, self.device)
        if any(state.get(name) != now for name, now in self._identity().items()):
            raise ValueError(f"checkpoint {path}: of another learner (recipe, family, seed differ)")
        if {"step", *self._parts} - state.keys() or _shapes(state["model"]) != _shapes(
            self.model.state_dict()
        ):
            raise ValueError(f"checkpoint {path}: of other networks")
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.step = state["step"]
        self.saved = f"{path}, step {self.step}"


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def train(
    learner: Learner, n_steps: int, *, checkpoint: Path | None = None, save_every: int = 200
) -> Iterator[Step]:
    """Learn until `n_steps` steps were made in all; yields each one's numbers.

    Args:
        learner: changed in place; one that made steps already goes on from there.
        n_steps: where to stop.
        checkpoint: a file to save to at every `save_every` steps and at the end.

    Raises:
        ValueError: save_every below 1.
        Diverged: a loss or a gradient is NaN or infinite. Nothing was moved by it.
    """
    if save_every < 1:
        raise ValueError(f"save_every: expected >= 1; got {save_every}")
    while learner.step < n_steps:
        made = _one_step(learner)
        if checkpoint and (learner.step % save_every == 0 or learner.step == n_steps):
            learner.save(checkpoint)
        yield made


def learn(
    learner: Learner,
    n_steps: int,
    *,
    checkpoint: Path | None = None,
    save_every: int = 200,
    progress: bool = False,
) -> None:
    """Bring a learner to `n_steps` steps: by its checkpoint where there is one, else by training.

    Args:
        learner: changed in place; it must not be beyond `n_steps`.
        n_steps, save_every: as for `train`.
        checkpoint: of this learner; None keeps nothing. It stays, so that to call this again costs
            a read.
        progress: show a bar.

    Raises:
        ValueError, Diverged: as `train` and `Learner.load`; a learner beyond n_steps.
    """
    if checkpoint is not None and Path(checkpoint).exists():
        learner.load(checkpoint)
    if learner.step > n_steps:
        raise ValueError(f"n_steps: the learner has made {learner.step} already; got {n_steps}")
    steps = train(learner, n_steps, checkpoint=checkpoint, save_every=save_every)
    bar = {"initial": learner.step, "total": n_steps, "unit": "step", "mininterval": 1.0}
    for _ in tqdm(steps, desc="concepts", disable=not progress, **bar):
        pass


def _one_step(learner: Learner) -> Step:
    recipe, model = learner.recipe, learner.model
    source = torch.Generator(learner.device)
    source.manual_seed(derive_seed(learner.seed, f"step-{learner.step}"))
    tasks = learner.family.tasks(
        len(model.log_steps), recipe.batch, recipe.n_demos, source, dtype=model.log_steps.dtype
    )
    loss = truth_loss if recipe.loss == "truth" else contrast_loss
    generated, identified = loss(model, tasks, recipe, source)
    total = recipe.generate * generated + recipe.identify * identified
    parameters = list(model.parameters())
    # Models never meet, so the gradient of the summed losses holds each model's own.
    gradients = torch.autograd.grad(total.sum(), parameters, allow_unused=True)
    gradients = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
    ]
    slope = sum(g.flatten(1).square().sum(1) for g in gradients).sqrt()
    if not (total.isfinite() & slope.isfinite()).all():
        raise Diverged(
            f"step {learner.step + 1}: generate {generated.tolist()}, identify "
            f"{identified.tolist()}, gradient {slope.tolist()}; last good checkpoint: "
            f"{learner.saved or 'none'}"
        )
    shrink = (recipe.clip / slope).clamp(max=1)
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = (g * shrink.view(-1, *[1] * (g.dim() - 1))).contiguous()
    rate = recipe.learning_rate * _rise_and_fall(learner.step, recipe.anneal_over)
    for group, times in zip(learner._adam.param_groups, (1, recipe.step_rate), strict=True):
        group["lr"] = rate * times
    learner._adam.step()
    learner.step += 1
    return Step(learner.step, generated.detach(), identified.detach(), slope)


def _rise_and_fall(step: int, over: int) -> float:
    if not over:
        return 1.0
    passed = min(1.0, step / over)
    return min(1.0, 20 * (step + 1) / over) * 0.5 * (1 + math.cos(math.pi * passed))


# --- measuring -------------------------------------------------------------------------


class Measured(NamedTuple):
    """What k models do on n tasks they never saw, `(k, n)` each.

    Attributes:
        before, after: mean distance of the attended entities to the concept's set, in the scene
            that is given and in the one that is found.
        after_wrong: the same, with the code of another task.
        exact, exact_wrong: whether the m entities of most attention are the true ones, of which a
            blind choice has `Family.chance`; with the code of another task.
        strict: whether besides every attention is on the right side of 1/2.
        accuracy: share of entities whose attention is on the right side of 1/2.
        code: `(k, n, c)`.
    """

    before: Tensor
    after: Tensor
    after_wrong: Tensor
    exact: Tensor
    exact_wrong: Tensor
    strict: Tensor
    accuracy: Tensor
    code: Tensor


def is_exact(a: Tensor, mask: Tensor) -> Tensor:
    """Whether the m entities of most attention are the m of the mask, `(..., N)` to `(...)`."""
    rank = a.argsort(-1, descending=True).argsort(-1)
    return ((rank < mask.sum(-1, keepdim=True)) == mask).all(-1)


def measure(model: Energy, family: Family, tasks: Tasks, inner: Inner) -> Measured:
    """Infer codes, scenes and masks, and hold them against the truth.

    The wrong code is that of the next task, the control that a code is needed at all.

    Raises:
        ValueError: fewer than two tasks, or shapes that do not fit.
    """
    if tasks.concept.shape[1] < 2:
        raise ValueError(f"tasks: expected n >= 2; got {tasks.concept.shape[1]}")
    inner = dataclasses.replace(inner, differentiate="none", temperature=0.0)
    query = tasks.query
    w = infer_code(model, tasks.demos, inner)[-1]

    def found(w: Tensor) -> tuple[Tensor, Tensor]:
        x = infer_scene(model, query.start, query.mask, w, inner)[-1]
        return family.distance(x, query.mask, tasks), infer_mask(model, query.end, w, inner)[-1]

    after, a = found(w)
    after_wrong, a_wrong = found(w.roll(1, 1))
    return Measured(
        family.distance(query.start, query.mask, tasks),
        after,
        after_wrong,
        is_exact(a, query.mask),
        is_exact(a_wrong, query.mask),
        ((a > 0) == query.mask).all(-1),
        ((a > 0) == query.mask).to(a.dtype).mean(-1),
        w,
    )
