"""The relational energy against its formula; learning repeats, resumes to the bit, stops on NaN."""

import copy
import dataclasses
import io
import itertools
import math
import zipfile
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from torch.nn.functional import softplus

from ebmref import concepts, training
from ebmref.concepts import Energy, Recipe, infer_code, infer_mask, infer_scene, scenes
from ebmref.concepts.energy import energy_at, own_weights
from ebmref.concepts.scenes import Family, Scenes, attended
from ebmref.concepts.unrolling import Inner, descend, longest_chain, saved_bytes
from ebmref.seeds import derive_seed

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


FAMILY = Family(("near", "square"))


def energy(k=2, seed=0, hidden=6, code=3, dtype=DOUBLE, **options):
    return Energy(k, generator(seed), hidden=hidden, code=code, **options).to(dtype)


def draw(k=2, n=3, n_demos=2, seed=1, family=FAMILY, dtype=DOUBLE):
    return family.tasks(k, n, n_demos, generator(seed), dtype=dtype)


def variables(k=2, n=3, size=5, code=3, seed=2):
    g = generator(seed)
    x = torch.randn(k, n, size, 5, generator=g, dtype=DOUBLE)
    s = torch.rand(k, n, size, generator=g, dtype=DOUBLE)
    return x, s, torch.randn(k, n, code, generator=g, dtype=DOUBLE)


# --- the energy ------------------------------------------------------------------------


def by_pairs(model, x, s, w):
    """E of one scene of one model, `(N, 5)`, `(N,)`, `(c,)`, as the formula has it: a loop over the
    pairs, g with all its layers on each, f on the sum; weights as `model(...)` has them."""
    act = functional.silu

    def layers(net):
        return [
            (weight[0], bias[0, 0]) for weight, bias in zip(net.weights, net.biases, strict=True)
        ]

    def g(a, b):
        d = ((a[:2] - b[:2]).square().sum() + 1e-4).sqrt()
        centres = [concepts.FARTHEST * i / (model.bumps - 1) for i in range(model.bumps)]
        bumps = [(-0.5 * ((d - c) / concepts.WIDTH) ** 2).exp() for c in centres]
        h = torch.cat([a, b, torch.stack([d.square() - 1e-4, *bumps]), w])
        hidden = layers(model.enter) + (layers(model.further) if model.further else [])
        for weight, bias in hidden:
            h = act(h @ weight + bias)
        h = h * (1 + w @ model.scale[0])
        weight, bias = layers(model.pool)[0]
        return h @ weight + bias

    total = sum(s[i] * s[j] * g(x[i], x[j]) for i in range(len(x)) for j in range(len(x)))
    h = torch.cat([act(total / 16), w])
    *before, (weight, bias) = layers(model.judge)
    for one, shift in before:
        h = act(h @ one + shift)
    return (h @ weight + bias).square()[0]


@pytest.mark.parametrize("depth, bumps", [((2, 1), 8), ((2, 3), 0), ((3, 2), 3), ((4, 1), 8)])
def test_the_energy_is_its_formula(depth, bumps):
    """Each pair by hand, each model alone."""
    model = energy(depth=depth, bumps=bumps)
    x, s, w = variables(size=4)
    got = model(x, s, w)
    assert got.shape == (2, 3) and (got >= 0).all()
    for k, n in itertools.product(range(2), range(3)):
        alone = energy(k=1, depth=depth, bumps=bumps)
        state = {name: value[k : k + 1] for name, value in model.state_dict().items()}
        alone.load_state_dict(state)
        assert got[k, n].item() == pytest.approx(by_pairs(alone, x[k, n], s[k, n], w[k, n]).item())


@pytest.mark.parametrize("way", ["full", "implicit"])
def test_a_mask_whose_pairs_are_made_once_is_the_plain_descent(way):
    """`infer_mask` makes the pairs once; E itself, pairs and all in each step, has the same path
    and the same gradients. So has `infer_code` with its first layer. 1e-10: rounding of float64.
    """
    model = energy(depth=(3, 2))
    x, s, w = variables(size=6)
    mask = s > s.median(-1, keepdim=True).values
    inner, weights = Inner(4, way), own_weights(model)
    w = w.requires_grad_()

    def seen(a, w, *weights):
        return energy_at(model, weights, x, a.sigmoid(), w)

    size = model.log_steps[:, 3:, None].exp()
    bound = dataclasses.replace(inner, bound=inner.bound * concepts.REACHES["a"])
    plain = descend(seen, torch.zeros_like(s), size, (w, *weights), bound)[-1]
    once = infer_mask(model, x, w, inner)[-1]

    demos = Scenes(x[:, :, None], x[:, :, None], mask[:, :, None])
    group, attention, _ = attended(x, mask)

    def heard(w, *weights):
        return energy_at(model, weights, group, attention, w)

    size = model.log_steps[:, :1, None].exp()
    start = torch.zeros_like(w.detach())
    slow = descend(heard, start, size, weights, inner)[-1]
    quick = infer_code(model, demos, inner)[-1]
    for one, other, inputs in ((plain, once, (w, *weights)), (slow, quick, weights)):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        slopes = [
            torch.autograd.grad(v.square().sum(), inputs, allow_unused=True) for v in (one, other)
        ]
        for a, b in zip(*slopes, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_order_does_not_matter_for_any_number_of_entities(size):
    """And the mask follows the entities: gradients are permuted, too."""
    model = energy(depth=(3, 2))
    x, s, w = variables(size=size)
    order = torch.randperm(size, generator=generator())
    x, s = x.requires_grad_(), s.requires_grad_()
    one, other = model(x, s, w), model(x[:, :, order], s[:, :, order], w)
    assert torch.allclose(one, other, rtol=1e-10)
    slopes = [torch.autograd.grad(e.sum(), (x, s)) for e in (one, other)]
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(*slopes, strict=True))


def ranked_by_place(model, x, s, w):
    """An energy to which the first entity is something special."""
    s = s * torch.linspace(1, 2, s.shape[-1], dtype=s.dtype)
    return model(x, s, w)


def test_an_energy_that_knows_places_is_told():
    model = energy()
    x, s, w = variables()
    order = torch.tensor([1, 0, 2, 4, 3])
    one, other = (ranked_by_place(model, *v, w) for v in ((x, s), (x[:, :, order], s[:, :, order])))
    assert not torch.allclose(one, other, rtol=1e-3)


def test_what_is_not_attended_does_not_count():
    """Entities of no weight can be left out, moved, or coloured; with weight they cannot."""
    model = energy()
    x, _, w = variables()
    mask = torch.tensor([True, False, True, True, False]).expand(2, 3, 5)
    whole = model(x, mask.to(DOUBLE), w)
    group, weight, _ = scenes.attended(x, mask)
    assert group.shape[2] == 3
    assert torch.allclose(model(group, weight, w), whole, rtol=1e-12)
    other = torch.where(
        mask[..., None], x, torch.randn(x.shape, generator=generator(), dtype=DOUBLE)
    )
    assert torch.allclose(model(other, mask.to(DOUBLE), w), whole, rtol=1e-12)
    assert not torch.allclose(model(other, torch.ones_like(x[..., 0]), w), whole, rtol=1e-3)


def test_models_and_tasks_do_not_meet():
    model = energy()
    leaves = [v.requires_grad_() for v in variables()]
    for slope in torch.autograd.grad(model(*leaves)[1, 2], leaves):
        assert slope[1, 2].abs().max() > 0
        slope[1, 2] = 0
        assert slope.abs().max() == 0


def test_first_weights_are_even_and_twice_as_large_as_those_of_a_linear_layer():
    """All singular values of a layer alike; its mean square is GAIN^2 times that of a uniform law
    on 1 / sqrt(inputs), whose own is a third of its square."""
    model = energy(k=5, hidden=40, code=8, dtype=torch.float32)
    nets = (model.enter, model.pool, model.judge)
    for weight in (model.scale, *(weight for net in nets for weight in net.weights)):
        values = torch.linalg.svdvals(weight)
        assert torch.allclose(values, values[:, :1].expand_as(values), rtol=1e-4)
        size = weight.square().mean() * 3 * weight.shape[1]
        # 200 numbers or more in all; the share of a uniform square's deviation is 0.9.
        assert size.item() == pytest.approx(concepts.GAIN**2, rel=4 * 0.9 / weight.numel() ** 0.5)


def test_first_codes_leave_an_energy_to_descend():
    """Five steps of w leave more than half of E in every first network; with steps ten times as
    long less than a quarter in the middle one."""
    demos = Family(("near",)).tasks(20, 32, 3, generator(1)).demos
    x, s, _ = attended(demos.end, demos.mask)

    def left(**options):
        model = energy(20, 3, hidden=32, code=8, dtype=torch.float32, bumps=0, **options)
        w = infer_code(model, demos, Inner(5, "none"))[-1]
        with torch.no_grad():
            there, before = (
                sum(model(x[:, :, d], s[:, :, d], v) for d in range(3))
                for v in (w, torch.zeros_like(w))
            )
        return (there / before).median(1).values

    assert left().min() > 0.5
    assert left(steps=(3.0, 0.6, 0.6, 3.0)).median() < 0.25


# --- inference -------------------------------------------------------------------------


def test_only_attended_entities_move():
    model, tasks = energy(), draw()
    w = infer_code(model, tasks.demos, Inner(3))[-1]
    path = infer_scene(model, tasks.query.start, tasks.query.mask, w, Inner(4))
    assert len(path) == 4
    moved = (path[-1] != tasks.query.start).any(-1)
    assert torch.equal(moved, tasks.query.mask)


def test_inference_follows_the_entities_and_not_the_order_of_demonstrations():
    model, tasks = energy(), draw(n_demos=3)
    order = torch.tensor([3, 1, 0, 2, 5, 4, 7, 6])
    demos = Scenes(*(part[:, :, [2, 0, 1]][:, :, :, order] for part in tasks.demos))
    w, other = (infer_code(model, d, Inner(3))[-1] for d in (tasks.demos, demos))
    assert torch.allclose(w, other, rtol=1e-9)
    query = Scenes(*(part[:, :, order] for part in tasks.query))
    x, y = (infer_scene(model, q.start, q.mask, w, Inner(3))[-1] for q in (tasks.query, query))
    assert torch.allclose(x[:, :, order], y, rtol=1e-9)
    a, b = (infer_mask(model, q.end, w, Inner(3))[-1] for q in (tasks.query, query))
    assert torch.allclose(a[:, :, order], b, rtol=1e-9)


def test_masks_of_several_sizes_in_one_batch():
    """A scene alone is inferred as in a batch where another attends to more."""
    model, tasks = energy(), draw(n=2)
    mask = tasks.query.mask.clone()
    mask[:, 0] = False
    mask[:, 0, 2:4] = True
    w = torch.randn(2, 2, 3, generator=generator(), dtype=DOUBLE)
    both = infer_scene(model, tasks.query.start, mask, w, Inner(3))[-1]
    alone = infer_scene(model, tasks.query.start[:, :1], mask[:, :1], w[:, :1], Inner(3))[-1]
    assert torch.allclose(both[:, :1], alone, rtol=1e-10)


def test_steps_go_down_the_energy_they_say():
    """Small ones: codes down the mean over the demonstrations, scenes and masks down their own."""
    model, tasks = energy(), draw()
    with torch.no_grad():
        model.log_steps.fill_(math.log(1e-3))
    inner = Inner(20, "none")
    query, demos = tasks.query, tasks.demos

    def of_code(w):
        x, s = demos.end.flatten(1, 2), demos.mask.flatten(1, 2).to(DOUBLE)
        return model(x, s, w.repeat_interleave(2, 1)).unflatten(1, (3, 2)).mean(2)

    w = infer_code(model, demos, inner)[-1]
    assert (of_code(w) < of_code(torch.zeros_like(w))).all()
    s = query.mask.to(DOUBLE)
    x = infer_scene(model, query.start, query.mask, w, inner)[-1]
    assert (model(x, s, w) < model(query.start, s, w)).all()
    a = infer_mask(model, query.end, w, inner)[-1]
    assert (model(query.end, a.sigmoid(), w) < model(query.end, torch.full_like(a, 0.5), w)).all()
    # One step by hand: half the attention everywhere, the derivative of the logistic is 1/4.
    half = torch.full_like(a, 0.5).requires_grad_()
    (slope,) = torch.autograd.grad(model(query.end, half, w).sum(), half)
    step = 1e-3 * 0.25 * slope
    wanted = -step / (1 + step.square().sum(-1, keepdim=True) / concepts.REACHES["a"] ** 2).sqrt()
    one = infer_mask(model, query.end, w, Inner(1, "none"))[-1]
    assert torch.allclose(one, wanted, rtol=1e-9)


def test_positions_and_colours_have_step_sizes_of_their_own():
    model, tasks = energy(), draw()
    with torch.no_grad():
        model.log_steps[:, 2] = -math.inf
    w = torch.ones(2, 3, 3, dtype=DOUBLE)
    x = infer_scene(model, tasks.query.start, tasks.query.mask, w, Inner(2))[-1]
    assert torch.equal(x[..., scenes.COLOUR], tasks.query.start[..., scenes.COLOUR])
    assert not torch.equal(x[..., scenes.POSITION], tasks.query.start[..., scenes.POSITION])


def test_the_best_mask_is_the_lowest_of_its_starts():
    """One start is plain descent; more find no higher energy, and a lower one for some."""
    model, query = energy(), draw(n=20).query
    w = torch.randn(2, 20, model.code, generator=generator(3), dtype=query.end.dtype)

    def found(n_starts):
        return concepts.best_mask(model, query.end, w, Inner(4), n_starts, generator(4))

    def height(a):
        return model(query.end, a.sigmoid(), w)

    plain = infer_mask(model, query.end, w, Inner(4, "none"))[-1]
    assert torch.equal(found(1), plain)
    assert (height(found(3)) <= height(plain)).all()
    assert (height(found(9)) < height(plain)).any()
    assert (height(found(9)) <= height(found(3))).all()
    with pytest.raises(ValueError, match="n_starts: expected >= 1; got 0"):
        found(0)


def test_noise_is_on_scenes_and_masks_and_not_on_codes():
    model, tasks = energy(), draw()
    cold, hot = Inner(3), Inner(3, temperature=0.1)
    w = infer_code(model, tasks.demos, cold)[-1]
    assert torch.equal(infer_code(model, tasks.demos, hot)[-1], w)
    for infer, at in (
        (lambda i, g: infer_scene(model, tasks.query.start, tasks.query.mask, w, i, g), "x"),
        (lambda i, g: infer_mask(model, tasks.query.end, w, i, g), "a"),
    ):
        still, one, same = (
            infer(cold, None)[-1],
            infer(hot, generator())[-1],
            infer(hot, generator())[-1],
        )
        assert torch.equal(one, same) and not torch.allclose(one, still), at


# --- losses, and how they are differentiated -------------------------------------------


def losses(model, tasks, recipe):
    loss = concepts.truth_loss if recipe.loss == "truth" else concepts.contrast_loss
    generated, identified = loss(model, tasks, recipe, generator(9))
    return recipe.generate * generated + recipe.identify * identified


def gradients(model, tasks, recipe):
    found = torch.autograd.grad(
        losses(model, tasks, recipe).sum(), list(model.parameters()), allow_unused=True
    )
    pairs = zip(model.parameters(), found, strict=True)
    return [torch.zeros_like(p) if g is None else g for p, g in pairs]


def error_against_differences(model, tasks, recipe, found, h=1e-6):
    """Largest error of a gradient by a whole tensor, along a random direction each."""
    worst = 0.0
    for i, (parameter, gradient) in enumerate(zip(model.parameters(), found, strict=True)):
        way = torch.randn(parameter.shape, generator=generator(i), dtype=DOUBLE)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * h * way)
            values.append(losses(model, tasks, recipe).sum().item())
            with torch.no_grad():
                parameter.sub_(sign * h * way)
        wanted = (values[0] - values[1]) / (2 * h)
        got = float((gradient * way).sum())
        worst = max(worst, abs(got - wanted) / (1e-3 + abs(wanted)))
    return worst


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5])
def test_gradients_of_the_truth_loss_are_central_differences(n_steps):
    """Through both optimisations: by every weight and by the sizes of the steps."""
    model, tasks = energy(), draw()
    recipe = Recipe(Inner(n_steps))
    found = gradients(model, tasks, recipe)
    assert error_against_differences(model, tasks, recipe, found) < 1e-5
    again = gradients(model, tasks, Recipe(Inner(n_steps, "checkpoint")))
    assert all(
        torch.allclose(a, b, rtol=1e-8, atol=1e-12) for a, b in zip(found, again, strict=True)
    )


def code_is_given(model, tasks, recipe):
    """The gradient with w taken as given: the second half of the whole."""
    right = concepts.learning.infer_code
    try:
        concepts.learning.infer_code = lambda *args: [w.detach() for w in right(*args)]
        return gradients(model, tasks, recipe)
    finally:
        concepts.learning.infer_code = right


@pytest.mark.parametrize("loss", concepts.LOSSES)
def test_a_code_that_is_taken_as_given(loss):
    model, tasks, recipe = energy(), draw(), Recipe(Inner(3), loss=loss)
    wanted = code_is_given(model, tasks, recipe)
    found = gradients(model, tasks, dataclasses.replace(recipe, through_code=False))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    whole = gradients(model, tasks, recipe)
    assert not all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))


@pytest.mark.parametrize(
    "wrong",
    [
        code_is_given,
        lambda m, t, r: gradients(m, t, dataclasses.replace(r, inner=Inner(3, "last"))),
        lambda m, t, r: gradients(m, t, dataclasses.replace(r, inner=Inner(3, "implicit"))),
        lambda m, t, r: [0.99 * g for g in gradients(m, t, r)],
    ],
    ids=["code is given", "last", "implicit", "one in a hundred"],
)
def test_other_gradients_are_told(wrong):
    model, tasks, recipe = energy(), draw(), Recipe(Inner(3))
    assert error_against_differences(model, tasks, recipe, wrong(model, tasks, recipe)) > 3e-3


def test_the_truth_loss_by_hand():
    """One step, so no averaging: squared error of the attended, cross-entropy of all entities."""
    model, tasks = energy(), draw()
    w = infer_code(model, tasks.demos, Inner(1))[-1]
    x = infer_scene(model, tasks.query.start, tasks.query.mask, w, Inner(1))[-1]
    a = infer_mask(model, tasks.query.end, w, Inner(1))[-1]
    generated, identified = concepts.truth_loss(model, tasks, Recipe(Inner(1)))
    for k in range(2):
        errors, costs = [], []
        for n in range(3):
            mask = tasks.query.mask[k, n]
            off = (x[k, n] - tasks.query.end[k, n])[mask]
            errors.append(off.square().sum(1).mean().item())
            p = a[k, n].sigmoid()
            costs.append(-torch.where(mask, p.log(), (1 - p).log()).mean().item())
        assert generated[k].item() == pytest.approx(sum(errors) / 3)
        assert identified[k].item() == pytest.approx(sum(costs) / 3)


def test_inner_steps_are_averaged_with_rising_weights():
    """.2, .6, 1 of three."""
    model, tasks = energy(), draw()
    inner = Inner(3)
    w = infer_code(model, tasks.demos, inner)[-1]
    path = infer_scene(model, tasks.query.start, tasks.query.mask, w, inner)
    each = [
        ((x - tasks.query.end).square().sum(-1) * tasks.query.mask).sum(-1).mean(1) / 4
        for x in path
    ]
    wanted = (0.2 * each[0] + 0.6 * each[1] + each[2]) / 1.8
    got, _ = concepts.truth_loss(model, tasks, Recipe(inner))
    assert torch.allclose(got, wanted)


@pytest.mark.parametrize("way", ["full", "checkpoint", "last"])
def test_the_contrast_loss_is_two_terms(way):
    """Samples are given in the first, the energy in the second: a copy of the model that learns
    nothing evaluates what the model's own sampler made."""
    model, tasks = energy(), draw()
    recipe = Recipe(Inner(2, way, temperature=0.02), loss="contrast", kl=0.7, identify=0.4)
    found = gradients(model, tasks, recipe)
    frozen = copy.deepcopy(model).requires_grad_(False)
    source = generator(9)
    w = infer_code(model, tasks.demos, recipe.inner)[-1]
    query = tasks.query
    s = query.mask.to(DOUBLE)
    x = infer_scene(model, query.start, query.mask, w, recipe.inner, source)[-1]
    a = infer_mask(model, query.end, w, recipe.inner, source)[-1].sigmoid()
    right = model(query.end, s, w)
    wrong_x = model(x.detach(), s, w)
    wrong_a = model(query.end, a.detach(), w)
    given = w.detach()
    total = (
        2 * (softplus(right - wrong_x) + 0.7 * frozen(x, s, given))
        + 0.4 * (softplus(right - wrong_a) + 0.7 * frozen(query.end, a, given))
    )  # fmt: skip
    wanted = torch.autograd.grad(total.mean(1).sum(), list(model.parameters()), allow_unused=True)
    for one, other in zip(found, wanted, strict=True):
        other = torch.zeros_like(one) if other is None else other
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-12)
    for kl in (0.0, 1.4):
        mutant = gradients(model, tasks, dataclasses.replace(recipe, kl=kl))
        assert not all(torch.allclose(a, b, rtol=1e-3) for a, b in zip(mutant, found, strict=True))


@pytest.mark.parametrize("loss", concepts.LOSSES)
@pytest.mark.parametrize("left_out", ["generate", "identify"])
def test_a_question_of_no_weight_is_not_asked(left_out, loss):
    model, tasks = energy(), draw()
    recipe = Recipe(Inner(2), loss=loss, **{left_out: 0.0})
    fn = concepts.truth_loss if loss == "truth" else concepts.contrast_loss
    found = dict(zip(("generate", "identify"), fn(model, tasks, recipe), strict=True))
    assert found[left_out].tolist() == [0, 0]
    (other,) = {"generate", "identify"} - {left_out}
    assert (found[other] > 0).all()


# --- what it costs ---------------------------------------------------------------------


@pytest.mark.parametrize("depth", [(2, 3), (3, 2)])
@pytest.mark.parametrize("n_steps", [1, 2, 10])
def test_five_layers_twice_are_twenty_products_a_step(n_steps, depth):
    """Two optimisations in a row, each step there and back through five layers: 20 K, so 200 at
    K = 10 and not 100; one optimisation 10 K. The last step alone: 20."""
    model, tasks = energy(depth=depth), draw(n_demos=1, n=1)
    w = infer_code(model, tasks.demos, Inner(n_steps))[-1]
    assert longest_chain(w.sum()) == 10 * n_steps
    for way, wanted in (("full", 20 * n_steps), ("last", 20)):
        recipe = Recipe(Inner(n_steps, way))
        assert longest_chain(losses(model, tasks, recipe).sum()) == wanted


def peak(n_steps, way, family=FAMILY):
    model, tasks = energy(hidden=32, dtype=torch.float32), draw(n_demos=2, dtype=torch.float32)
    with saved_bytes() as saved:
        gradients(model, tasks, Recipe(Inner(n_steps, way)))
    return saved.peak


def test_peak_memory_of_learning():
    """Forward and backward: a straight line in K in full, else under 1.5 times from 5 to 40."""
    full = {n: peak(n, "full") for n in (5, 10, 40)}
    assert full[40] - full[10] == pytest.approx(6 * (full[10] - full[5]), rel=0.02)
    for way in ("checkpoint", "last", "implicit"):
        five, forty = peak(5, way), peak(40, way)
        assert forty < 1.5 * five, way
        assert forty < full[40] / 5, way


# --- learning --------------------------------------------------------------------------

RECIPE = Recipe(Inner(2), batch=4, n_demos=2, anneal_over=30)


def learner(recipe=RECIPE, k=2, seed=0, family=FAMILY, hidden=6, code=3):
    model = energy(k, seed, hidden=hidden, code=code, dtype=torch.float32)
    return concepts.Learner(model, family, recipe, seed)


def weights(one):
    return list(one.model.state_dict().values())


def train(one, n_steps, **options):
    return list(training.train(one, n_steps, **options))


VARIANTS = {
    "truth": RECIPE,
    "contrast": dataclasses.replace(RECIPE, loss="contrast", inner=Inner(2, temperature=0.01)),
    "checkpoint": dataclasses.replace(RECIPE, inner=Inner(2, "checkpoint", temperature=0.01)),
    "implicit": dataclasses.replace(RECIPE, inner=Inner(2, "implicit")),
}


@pytest.mark.parametrize("cut", [1, 4, 8])
@pytest.mark.parametrize("kind", VARIANTS)
def test_stop_and_resume_is_straight_through_to_the_bit(kind, cut, tmp_path):
    """The same weights, and the same numbers at every later step, from fresh networks on."""
    path = tmp_path / "learner.pt"
    straight = learner(VARIANTS[kind])
    steps = train(straight, 9)
    first = learner(VARIANTS[kind])
    train(first, cut, checkpoint=path)
    second = learner(VARIANTS[kind])
    for parameter in second.model.parameters():
        torch.nn.init.zeros_(parameter)
    training.bring(second, cut, checkpoint=path)
    assert second.step == cut
    rest = train(second, 9)
    assert all(map(torch.equal, weights(straight), weights(second)))
    assert [step.step for step in rest] == list(range(cut + 1, 10))
    for a, b in zip(steps[cut:], rest, strict=True):
        assert all(map(torch.equal, a[1:], b[1:]))


def test_a_lost_moment_of_the_optimiser_is_told(tmp_path):
    """What the test above is for: without Adam's memory the weights are others."""
    straight, second = learner(), learner()
    train(straight, 9)
    train(second, 4, checkpoint=tmp_path / "learner.pt")
    third = learner()
    state = torch.load(tmp_path / "learner.pt", weights_only=True)
    third.model.load_state_dict(state["model"])
    third.step = 4
    train(third, 9)
    assert not all(map(torch.equal, weights(straight), weights(third)))


def test_seeds_differ_and_models_do_not_meet():
    """A model trained beside another is the model trained alone, on the same tasks."""
    one, same, other = learner(), learner(), learner(seed=1)
    for each in (one, same, other):
        train(each, 3)
    assert all(map(torch.equal, weights(one), weights(same)))
    assert not all(map(torch.equal, weights(one), weights(other)))
    nudged = learner()
    with torch.no_grad():
        for parameter in nudged.model.parameters():
            parameter[1] *= 0.9
    train(nudged, 3)
    for a, b in zip(weights(one), weights(nudged), strict=True):
        assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


def test_a_step_is_the_plain_one():
    """Tasks of the step's own seed, the gradient of each model cut to its length, PyTorch's Adam;
    sizes of the steps learn faster, the rate rises in a twentieth and falls along a cosine."""
    recipe = dataclasses.replace(RECIPE, clip=1e-2, anneal_over=40, step_rate=3.0)
    one, twin = learner(recipe), energy(2, 0, dtype=torch.float32)
    inner = [p for name, p in twin.named_parameters() if name == "log_steps"]
    rest = [p for name, p in twin.named_parameters() if name != "log_steps"]
    adam = torch.optim.Adam([{"params": rest}, {"params": inner}])
    for step, made in enumerate(training.train(one, 5)):
        source = generator(derive_seed(0, f"step-{step}"))
        tasks = FAMILY.tasks(2, 4, 2, source, dtype=torch.float32)
        generated, identified = concepts.truth_loss(twin, tasks, recipe)
        assert torch.allclose(made.generate, generated.detach(), rtol=1e-4)
        loss = 2 * generated + identified
        twin.zero_grad()
        loss.sum().backward()
        for k in range(2):
            length = math.sqrt(
                sum(
                    float(p.grad[k].square().sum()) for p in twin.parameters() if p.grad is not None
                )
            )
            assert float(made.slope[k]) == pytest.approx(length, rel=1e-4)
            for p in twin.parameters():
                if p.grad is not None:
                    p.grad[k] *= min(1.0, 1e-2 / length)
        rate = 4e-3 * min(1, 20 * (step + 1) / 40) * 0.5 * (1 + math.cos(math.pi * step / 40))
        adam.param_groups[0]["lr"], adam.param_groups[1]["lr"] = rate, 3 * rate
        adam.step()
    for a, b in zip(one.model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_learning_near_brings_entities_there():
    """Two models, two minutes' worth cut to seconds: on tasks never seen the distance to the
    place falls to less than a third, and not with the code of another task."""
    family = Family(("near",), n_entities=6, n_attended=3, n_decoys=3)
    model = energy(2, seed=5, hidden=24, code=6, dtype=torch.float32)
    recipe = Recipe(Inner(3), batch=24, n_demos=2, anneal_over=90, learning_rate=8e-3)
    one = concepts.Learner(model, family, recipe, 0)
    training.bring(one, 90)
    tasks = family.tasks(2, 100, 5, generator(77))
    found = concepts.measure(model, family, tasks, recipe.inner)
    assert (found.after.mean(1) < found.before.mean(1) / 3).all()
    assert (found.after_wrong.mean(1) > 2 * found.after.mean(1)).all()


def test_a_nan_stops_learning_and_names_the_checkpoint(tmp_path):
    """In a weight, or in a gradient alone; nothing is moved by it."""
    path = tmp_path / "learner.pt"
    one = learner()
    train(one, 2, checkpoint=path)
    with torch.no_grad():
        one.model.pool.weights[0][1, 0, 0] = math.nan
    before = [value.clone() for value in weights(one)]
    with pytest.raises(training.Diverged, match=r"step 3: generate .*learner\.pt, step 2"):
        train(one, 5)
    assert one.step == 2
    assert all(
        torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(before, weights(one), strict=True)
    )


def test_a_gradient_that_is_not_finite_stops_learning_under_a_finite_loss(monkeypatch):
    """The root at zero: its value is fine, its slope is not."""

    def rooted(model, tasks, recipe, generator=None):
        zero = 0 * model.log_steps.square().sum(1)
        return zero.sqrt(), zero

    monkeypatch.setattr(concepts.learning, "truth_loss", rooted)
    one = learner()
    before = [value.clone() for value in weights(one)]
    with pytest.raises(training.Diverged, match=r"generate \[0\.0.*last good checkpoint: none"):
        train(one, 1)
    assert all(map(torch.equal, weights(one), before))


@pytest.mark.parametrize("clip", [1e-3, 1e9])
def test_long_gradients_are_cut_and_short_ones_left(clip):
    """Model by model: what the optimiser was given is as long as the gradient, or the clip."""
    one = learner(dataclasses.replace(RECIPE, clip=clip))
    (made,) = training.train(one, 1)
    squares = [p.grad.flatten(1).square().sum(1) for p in one.model.parameters()]
    given = sum(squares).sqrt()
    assert (made.slope > 1e-3).all()
    assert torch.allclose(given, made.slope.clamp(max=clip), rtol=1e-4)


def test_the_same_demonstration_thrice_is_one():
    """Codes descend the mean over demonstrations, so that a step is as long for many as for one."""
    model, tasks = energy(), draw(n_demos=1)
    thrice = Scenes(*(part.repeat_interleave(3, 2) for part in tasks.demos))
    one, three = (infer_code(model, demos, Inner(4))[-1] for demos in (tasks.demos, thrice))
    assert torch.allclose(one, three, rtol=1e-10)


def test_learn_goes_on_and_stays_where_it_is(tmp_path, capsys):
    path = tmp_path / "learner.pt"
    one = learner()
    training.bring(one, 5, checkpoint=path, save_every=2, progress=True)
    assert "learner: " in capsys.readouterr().err
    stamp = path.read_bytes()
    again = learner()
    training.bring(again, 5, checkpoint=path)
    assert path.read_bytes() == stamp and all(map(torch.equal, weights(one), weights(again)))
    with pytest.raises(ValueError, match="n_steps: the learner has made 5 already"):
        training.bring(again, 4)


def refused(one, path, words):
    before, step = [value.clone() for value in weights(one)], one.step
    with pytest.raises(ValueError, match=words) as error:
        training.load(one, path)
    assert str(error.value).startswith(f"checkpoint {path}: ")
    assert one.step == step and all(map(torch.equal, weights(one), before))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: learner(seed=1), "of another learner"),
        (lambda: learner(VARIANTS["contrast"]), "of another learner"),
        (lambda: learner(family=Family(("near",))), "of another learner"),
        (lambda: learner(k=3), "of other networks"),
        (lambda: learner(hidden=7), "of other networks"),
        (lambda: learner(code=4), "of other networks"),
    ],
)
def test_a_checkpoint_of_another_learner_is_refused(make, words, tmp_path):
    train(learner(), 1, checkpoint=tmp_path / "learner.pt")
    refused(make(), tmp_path / "learner.pt", words)


def test_damaged_checkpoints_are_refused(tmp_path):
    """Missing, cut short, without one of its keys, with a byte of a tensor flipped."""
    path = tmp_path / "learner.pt"
    refused(learner(), path, "missing or damaged")
    train(learner(), 1, checkpoint=path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(learner(), path, "missing or damaged")
    state = torch.load(io.BytesIO(whole), weights_only=True)
    for key in state:
        torch.save({name: part for name, part in state.items() if name != key}, path)
        refused(learner(), path, "of another learner|of other networks")
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        part = max(archive.infolist(), key=lambda part: part.file_size)
    content = bytearray(whole)
    content[part.header_offset + part.file_size // 2 + 100] ^= 0xFF
    path.write_bytes(content)
    refused(learner(), path, "missing or damaged")


def test_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "learner.pt"
    one = learner()
    train(one, 1, checkpoint=path)
    before = path.read_bytes()

    written, save = [], torch.save
    monkeypatch.setattr(torch, "save", lambda s, file: written.append(file) or save(s, file))
    training.save(one, path)
    assert written and path not in map(Path, written)  # what has the name was whole before

    def fail(state, file):
        Path(file).write_bytes(before[: len(before) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        training.save(one, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["learner.pt"]


# --- measuring -------------------------------------------------------------------------


def test_what_finds_the_truth_is_measured_so(monkeypatch):
    """Inference replaced by the truth of the code's task, which the code names: no distance, every
    mask right; with the next task's code its place and its mask."""
    family = Family(("near",))
    tasks = family.tasks(2, 20, 1, generator())
    model = energy(dtype=torch.float32)
    query = tasks.query
    number = torch.arange(20.0).expand(2, 20)[..., None].expand(-1, -1, 3)
    monkeypatch.setattr(concepts.learning, "infer_code", lambda *args: [number])

    def told(w):
        return w[..., 0].long()

    def scene(model, start, mask, w, inner, generator=None):
        group, _, index = scenes.attended(start, mask)
        parameter = tasks.parameter.gather(1, told(w)[..., None].expand(-1, -1, 4))
        placed = scenes.project("near", group.flatten(0, 1), parameter.flatten(0, 1))
        return [start.scatter(2, index[..., None].expand(-1, -1, -1, 5), placed.view_as(group))]

    def attention(model, x, w, inner, generator=None):
        right = query.mask.gather(1, told(w)[..., None].expand(-1, -1, 8))
        return [torch.where(right, 3.0, -3.0)]

    monkeypatch.setattr(concepts.learning, "infer_scene", scene)
    monkeypatch.setattr(concepts.learning, "infer_mask", attention)
    found = concepts.measure(model, family, tasks, Inner())
    assert found.before.mean() > 0.5 and found.after.max() < 1e-5
    assert found.exact.all() and found.strict.all() and (found.accuracy == 1).all()
    place = tasks.parameter[..., :2]
    apart = (place - place.roll(1, 1)).norm(dim=-1)
    assert ((found.after_wrong - apart).abs() < 2 * scenes.NEAR + 1e-5)[apart > 0.2].all()
    same = (query.mask == query.mask.roll(1, 1)).all(-1)
    assert torch.equal(found.exact_wrong, same)


def test_accuracy_counts_entities_and_ranks_ignore_the_threshold(monkeypatch):
    family, model = Family(("near",)), energy(dtype=torch.float32)
    tasks = family.tasks(2, 4, 1, generator())
    mask = tasks.query.mask.float()
    monkeypatch.setattr(concepts.learning, "infer_mask", lambda *args: [mask + 1])
    found = concepts.measure(model, family, tasks, Inner(1))
    assert (found.accuracy == 0.5).all() and not found.strict.any() and found.exact.all()


TASKS = draw(dtype=torch.float32)
QUERY = TASKS.query


def model32():
    return energy(dtype=torch.float32)


W = torch.zeros(2, 3, 3)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: Recipe(loss="hinge"), "loss: expected one of truth, contrast"),
        (lambda: Recipe(Inner(differentiate="none")), "inner: expected an Inner that is diff"),
        (lambda: Recipe(inner=5), "inner: expected"),
        (lambda: Recipe(batch=0), "batch: expected a whole number >= 1"),
        (lambda: Recipe(n_demos=0), "n_demos: expected a whole number >= 1"),
        (lambda: Recipe(anneal_over=-1), "anneal_over"),
        (lambda: Recipe(kl=-1.0), "kl: expected a number >= 0"),
        (lambda: Recipe(clip=0.0), "clip: expected a number > 0"),
        (lambda: Recipe(through_code=1), "through_code: expected a bool"),
        (lambda: Recipe(learning_rate=math.nan), "learning_rate"),
        (lambda: Recipe(generate=0.0, identify=0.0), "generate, identify: expected one"),
        (lambda: Energy(0, generator()), "n_models: expected >= 1"),
        (lambda: Energy(1, generator(), bumps=-1), "bumps: expected >= 0"),
        (lambda: Energy(1, generator(), depth=(2, 0)), r"depth\[1\]: expected >= 1"),
        (lambda: Energy(1, generator(), depth=(1, 2)), r"depth\[0\]: expected >= 2"),
        (lambda: Energy(1, generator(), steps=(1.0, 1.0, 0.0, 1.0)), "steps: expected"),
        (lambda: concepts.Learner(model32(), FAMILY, RECIPE, 1.0), "seed: expected an integer"),
        (lambda: train(learner(), 5, save_every=0), "save_every: expected >= 1"),
        (
            lambda: infer_code(model32(), Scenes(*(p[:, :, :0] for p in TASKS.demos)), Inner()),
            "demos: expected .* one demonstration or more",
        ),
        (
            lambda: infer_code(model32(), TASKS.demos._replace(mask=QUERY.mask), Inner()),
            "mask: expected bool",
        ),
        (lambda: infer_code(energy(k=3), TASKS.demos, Inner()), "demos: expected scenes"),
        (lambda: infer_code(energy(), TASKS.demos, Inner()), "demos: .*float64"),
        (
            lambda: infer_scene(model32(), QUERY.start, QUERY.mask[..., :7], W, Inner()),
            "mask: expected bool",
        ),
        (
            lambda: infer_scene(model32(), QUERY.start[..., :4], QUERY.mask, W, Inner()),
            "start: expected scenes",
        ),
        (
            lambda: infer_scene(model32(), QUERY.start, QUERY.mask, W[..., :2], Inner()),
            "w: expected",
        ),
        (lambda: infer_mask(model32(), QUERY.end[0], W, Inner()), "x: expected scenes"),
        (lambda: infer_mask(model32(), QUERY.end, W[:, :2], Inner()), "w: expected"),
        (
            lambda: concepts.measure(model32(), FAMILY, draw(n=1, dtype=torch.float32), Inner()),
            "tasks: expected n >= 2",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
