"""Learning of concepts: two losses, descended through the steps of inference, and how it went."""

import dataclasses
import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import softplus

from ebmref import training
from ebmref.checks import check_field, check_not_negative, check_positive, check_seed, check_whole
from ebmref.concepts.energy import (
    Energy,
    energy_at,
    infer_code,
    infer_mask,
    infer_scene,
    own_weights,
)
from ebmref.concepts.scenes import Family, Tasks, attended
from ebmref.concepts.unrolling import Inner

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
        through_code: whether gradients pass through the code into the steps that found it; if not,
            the code is taken as given.
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
    through_code: bool = True
    learning_rate: float = 4e-3
    step_rate: float = 5.0
    clip: float = 1.0
    anneal_over: int = 0

    def __post_init__(self):
        check_field(self, "inner", "an Inner that is differentiated", _is_differentiated)
        check_field(self, "loss", f"one of {', '.join(LOSSES)}", lambda v: v in LOSSES)
        check_whole(self, 1, "batch", "n_demos")
        check_whole(self, 0, "anneal_over")
        check_not_negative(self, "generate", "identify", "kl", "step_rate")
        check_positive(self, "learning_rate", "clip")
        check_field(self, "through_code", "a bool", lambda v: type(v) is bool)
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
    w = _code(model, tasks, recipe)
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


def _code(model: Energy, tasks: Tasks, recipe: Recipe) -> Tensor:
    w = infer_code(model, tasks.demos, recipe.inner)[-1]
    return w if recipe.through_code else w.detach()


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
    w = _code(model, tasks, recipe)
    group, s, _ = attended(query.end, query.mask)
    right = model(group, s, w)
    frozen = tuple(p.detach() for p in own_weights(model))

    def compare(x: Tensor, s: Tensor) -> Tensor:
        given = model(x.detach(), s.detach(), w)
        low = energy_at(model, frozen, x, s, w.detach())
        return (softplus(right - given) + recipe.kl * low).mean(1)

    generated = identified = w.new_zeros(len(w))
    if recipe.generate:
        x = infer_scene(model, query.start, query.mask, w, inner, generator)[-1]
        generated = compare(*attended(x, query.mask)[:2])
    if recipe.identify:
        a = infer_mask(model, query.end, w, inner, generator)[-1]
        identified = compare(query.end, a.sigmoid())
    return generated, identified


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
    """k energies with all that their learning remembers: a `training.Trainee`.

        training.bring(learner, n_steps)

    A frozen weight stays as it is; dropout is led by seed and step.

    Args:
        model: the energies.
        family: from which tasks are drawn.
        recipe: how they learn.
        seed: of the tasks and the noise.

    Attributes:
        step, saved: see `training.Trainee`.

    Raises:
        ValueError: a seed that is no integer.
    """

    kind = "learner"

    def __init__(self, model: Energy, family: Family, recipe: Recipe, seed: int):
        check_seed(seed)
        self.model, self.family, self.recipe, self.seed = model, family, recipe, seed
        self.step = 0
        self.saved: str | None = None
        self.device = model.log_steps.device
        groups = [{"params": own_weights(model)}, {"params": [model.log_steps]}]
        self.adam = torch.optim.Adam(groups, lr=recipe.learning_rate, fused=True)

    def parts(self) -> dict:
        """Weights and moments."""
        return {"model": self.model, "adam": self.adam}

    def identity(self) -> dict:
        """Recipe, family and seed."""
        return {
            "seed": self.seed,
            "recipe": dataclasses.asdict(self.recipe),
            "family": dataclasses.asdict(self.family),
        }

    def advance(self, data=None) -> Step:
        """One step, on tasks of its own; there are no other data.

        Raises:
            Diverged: a loss or a gradient is NaN or infinite. Nothing was moved by it.
        """
        recipe, model = self.recipe, self.model
        draws = training.source(self, f"step-{self.step}")
        tasks = self.family.tasks(
            len(model.log_steps), recipe.batch, recipe.n_demos, draws, dtype=model.log_steps.dtype
        )
        loss = truth_loss if recipe.loss == "truth" else contrast_loss
        parameters = list(model.parameters())
        with training.seeded(self):
            generated, identified = loss(model, tasks, recipe, draws)
            total = recipe.generate * generated + recipe.identify * identified
            # Models never meet, so the gradient of the summed losses holds each model's own.
            gradients = training.gradients(total.sum(), parameters)
        gradients = [
            torch.zeros_like(p) if g is None and p.requires_grad else g
            for p, g in zip(parameters, gradients, strict=True)
        ]
        slope = sum(g.flatten(1).square().sum(1) for g in gradients if g is not None).sqrt()
        if not (total.isfinite() & slope.isfinite()).all():
            told = {"generate": generated, "identify": identified, "gradient": slope}
            raise training.diverged(self, told)
        shrink = (recipe.clip / slope).clamp(max=1)
        rate = recipe.learning_rate * _rise_and_fall(self.step, recipe.anneal_over)
        for group, times in zip(self.adam.param_groups, (1, recipe.step_rate), strict=True):
            group["lr"] = rate * times
        cut = [None if g is None else g * shrink.view(-1, *[1] * (g.dim() - 1)) for g in gradients]
        training.descend(self.adam, parameters, cut)
        self.step += 1
        return Step(self.step, generated.detach(), identified.detach(), slope)


def _rise_and_fall(step: int, over: int) -> float:
    rise = min(1.0, 20 * (step + 1) / over) if over else 1.0
    return rise * training.cosine_fall(step, over)


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
