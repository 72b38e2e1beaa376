"""Gradients through a descent against closed forms and differences; what they cost, counted."""

import dataclasses
import functools
import gc
import math

import pytest
import torch
from scipy import stats

from ebmref.concepts import unrolling
from ebmref.concepts.unrolling import Inner, descend, longest_chain, saved_bytes
from ebmref.networks import Networks

DOUBLE = torch.float64
FREE = 1e9  # a bound that never binds


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bowl(v, centre, curvature):
    """0.5 h |v - c|^2: `(k, n, d)` to `(k, n)`."""
    return 0.5 * curvature * (v - centre).square().sum(-1)


SIZE = torch.full((1, 1, 1), 0.3, dtype=DOUBLE)


@pytest.mark.parametrize("n_steps", [1, 2, 5, 9])
def test_gradients_of_a_bowl_are_known(n_steps):
    """v_K = c + r^K (v_0 - c) with r = 1 - size h. By c it is 1 - r^K in full, 1 - r for the last
    step alone, and 1 at the optimum, wherever the steps ended."""
    h, start = 1.7, torch.full((1, 1, 1), 2.0, dtype=DOUBLE)
    r = 1 - 0.3 * h
    wanted = {"full": 1 - r**n_steps, "checkpoint": 1 - r**n_steps, "last": 1 - r, "implicit": 1}
    for way, value in wanted.items():
        centre = torch.full((1, 1, 1), -1.0, dtype=DOUBLE, requires_grad=True)
        curvature = torch.tensor(h, dtype=DOUBLE)
        inner = Inner(n_steps, way, bound=FREE)
        end = descend(bowl, start, SIZE, (centre, curvature), inner)[-1]
        assert end.item() == pytest.approx(-1 + r**n_steps * 3)
        (got,) = torch.autograd.grad(end.sum(), centre)
        assert float(got) == pytest.approx(value), way


def test_the_path_is_kept_where_it_is_differentiated():
    start, centre = torch.ones(1, 2, 3, dtype=DOUBLE), torch.zeros(1, 2, 3, dtype=DOUBLE)
    one = torch.tensor(1.0, dtype=DOUBLE)
    lengths = {
        way: len(descend(bowl, start, SIZE, (centre, one), Inner(4, way))) for way in unrolling.WAYS
    }
    assert lengths == {"full": 4, "checkpoint": 4, "last": 1, "implicit": 1, "none": 4}
    assert torch.equal(start, torch.ones_like(start))


class Net(torch.nn.Module):
    """A small energy |net(v, c)|^2 + pull |v - c|^2 / 2 of k models, not convex for small pulls."""

    def __init__(self, k=2, d=3, pull=0.0, seed=0, hidden=16):
        super().__init__()
        self.pull = pull
        self.net = Networks((2 * d, hidden, 4), k, generator(seed), torch.nn.functional.silu)
        with torch.no_grad():
            for weight in self.net.weights:
                weight.mul_(2.0)
        self.double()

    def forward(self, v, c):
        value = self.net(torch.cat([v, c], -1)).square().sum(-1)
        return value + 0.5 * self.pull * (v - c).square().sum(-1)


def ends(net, inner, *, n=3, d=3, seed=1, scale=1.0, given=None):
    """Where the steps lead, from fixed starts, as a function of all that can be learned."""
    g = generator(seed)
    k = len(net.net.weights[0])
    start, c = torch.randn(2, k, n, d, generator=g, dtype=DOUBLE)
    names, weights = zip(*net.named_parameters(), strict=True)
    size = torch.full((k, 1, 1), 0.2, dtype=DOUBLE).log().requires_grad_()
    c = (scale * c).requires_grad_()
    leaves = [*weights, size, c] if given is None else given
    *weights, size, c = leaves

    def energy(v, c, *weights):
        return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (v, c))

    path = descend(energy, start, size.exp(), (c, *weights), inner, generator(seed + 7))
    return path, leaves


def outer(path, seed=3):
    """A fixed linear function of the end and of the path."""
    pull = torch.randn(path[-1].shape, generator=generator(seed), dtype=DOUBLE)
    return sum((1 + i) * (state * pull).sum() for i, state in enumerate(path))


def gradient(net, inner, **options):
    path, leaves = ends(net, inner, **options)
    found = torch.autograd.grad(outer(path), leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def error_against_differences(net, inner, tested, h=1e-6):
    """Largest error of `tested` against central differences, a random direction a leaf."""
    _, leaves = ends(net, inner)
    worst = 0.0
    for i, leaf in enumerate(leaves):
        way = torch.randn(leaf.shape, generator=generator(i), dtype=DOUBLE)
        values = []
        for sign in (1, -1):
            given = [x.detach().clone() for x in leaves]
            given[i] += sign * h * way
            path, _ = ends(net, dataclasses.replace(inner, differentiate="full"), given=given)
            values.append(outer(path).item())
        wanted = (values[0] - values[1]) / (2 * h)
        got = float((tested[i] * way).sum())
        worst = max(worst, abs(got - wanted) / (1 + abs(wanted)))
    return worst


CASES = [(K, bound, t) for K in (1, 2, 3, 4, 5) for bound, t in ((1.0, 0.0), (0.3, 0.05))]


@pytest.mark.parametrize("n_steps, bound, temperature", CASES)
@pytest.mark.parametrize("way", ["full", "checkpoint"])
def test_unrolled_gradients_are_central_differences(way, n_steps, bound, temperature):
    """By every weight, the sizes of the steps and the given variable; bounded and noisy, too."""
    net = Net()
    inner = Inner(n_steps, way, bound=bound, temperature=temperature)
    assert error_against_differences(net, inner, gradient(net, inner)) < 1e-7


def test_checkpointed_gradients_are_the_full_ones():
    """To rounding, over forty noisy steps, and so are the states."""
    net = Net()
    full, again = (Inner(40, way, temperature=0.01) for way in ("full", "checkpoint"))
    for one, other in zip(ends(net, full)[0], ends(net, again)[0], strict=True):
        assert torch.allclose(one, other, rtol=1e-11)
    for one, other in zip(gradient(net, full), gradient(net, again), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12 * float(one.abs().max()))


def test_the_last_step_is_the_full_gradient_of_one_step_from_there():
    net = Net()
    path, leaves = ends(net, Inner(6, "none"))
    before = ends(net, Inner(5, "none"))[0][-1]
    *weights, size, c = leaves
    names = [name for name, _ in net.named_parameters()]

    def energy(v, c, *weights):
        return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (v, c))

    wanted = descend(energy, before, size.exp(), (c, *weights), Inner(1))
    wanted = torch.autograd.grad(outer(wanted), leaves)
    got = gradient(net, Inner(6, "last"))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(got, wanted, strict=True))
    assert torch.allclose(ends(net, Inner(6, "last"))[0][-1], path[-1], rtol=1e-12)


@pytest.mark.parametrize("bound", [1.0, FREE])
def test_implicit_is_full_at_a_converged_optimum(bound):
    """A unique optimum of another curvature in each direction; by the sizes of the steps the
    gradient is none, in full, too."""
    net = Net(pull=3.0)
    path, _ = ends(net, Inner(400, "full", bound=bound))
    assert (path[-1] - path[-2]).abs().max().item() < 1e-14
    only_end = functools.partial(torch.autograd.grad, allow_unused=True)
    found = []
    for way in ("full", "implicit"):
        path, leaves = ends(net, Inner(400, way, bound=bound))
        found.append(only_end(outer(path[-1:]), leaves))
    full, implicit = found
    for one, other in zip(full, implicit, strict=True):
        other = torch.zeros_like(one) if other is None else other
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-8 * float(1 + one.abs().max()))


def test_implicit_is_not_full_on_the_way():
    """After three steps the two differ by a tenth of the gradient: the test above sees."""
    net = Net(pull=3.0)
    full, implicit = (
        torch.autograd.grad(outer(path[-1:]), leaves, allow_unused=True)[0]
        for path, leaves in (ends(net, Inner(3, way)) for way in ("full", "implicit"))
    )
    assert (full - implicit).norm() > 0.1 * full.norm()


def test_implicit_holds_what_has_no_curvature():
    """E = (a . v - b)^2 / 2 fixes v along a alone: dv/db = a / |a|^2, the least motion."""
    a = torch.tensor([3.0, 4.0], dtype=DOUBLE)
    b = torch.full((1, 1), 0.7, dtype=DOUBLE, requires_grad=True)

    def valley(v, b):
        return 0.5 * (v @ a - b).square()

    start = torch.tensor([[[1.0, -2.0]]], dtype=DOUBLE)
    inner = Inner(200, "implicit", bound=FREE)
    end = descend(valley, start, torch.full((1, 1, 1), 0.05, dtype=DOUBLE), (b,), inner)[-1]
    assert (end @ a).item() == pytest.approx(0.7)
    for i in range(2):
        (got,) = torch.autograd.grad(end[0, 0, i], b, retain_graph=True)
        assert float(got) == pytest.approx(float(a[i] / 25))


@pytest.mark.parametrize("curvature", [2.0, -2.0])
def test_implicit_knows_the_sign_of_curvature(curvature):
    """E = c (v - b)^2 / 2 is level at v = b, which moves as b, be it a valley or a ridge."""
    b = torch.full((1, 1), 0.7, dtype=DOUBLE, requires_grad=True)

    def bent(v, b):
        return 0.5 * curvature * (v[..., 0] - b).square()

    start, size = b.detach()[..., None], torch.full((1, 1, 1), 0.1, dtype=DOUBLE)
    end = descend(bent, start, size, (b,), Inner(3, "implicit", bound=FREE))[-1]
    assert torch.equal(end, start)
    assert torch.autograd.grad(end.sum(), b)[0].item() == pytest.approx(1.0)


# What each of these does to gradients, a test above sees.
def forgets_the_inputs(ctx, gradient):
    found = list(RIGHT_BACKWARD(ctx, gradient))
    return (*found[:4], *[None] * len(found[4:]))


def forgets_where_it_came_from(ctx, gradient):
    found = list(RIGHT_BACKWARD(ctx, gradient))
    found[1] = None
    return tuple(found)


def other_noise(ctx, gradient):
    ctx.noise = None if ctx.noise is None else ctx.noise.roll(1, 1)
    return RIGHT_BACKWARD(ctx, gradient)


RIGHT_BACKWARD = unrolling._Recomputed.backward


@pytest.mark.parametrize(
    "wrong", [forgets_the_inputs, forgets_where_it_came_from, other_noise], ids=lambda f: f.__name__
)
def test_a_wrong_backward_is_told(wrong, monkeypatch):
    net, inner = Net(), Inner(3, "checkpoint", temperature=0.05)
    monkeypatch.setattr(unrolling._Recomputed, "backward", staticmethod(wrong))
    assert error_against_differences(net, inner, gradient(net, inner)) > 1e-3


def test_truncation_is_told():
    """The gradient of the last step is not the whole: differences say so."""
    net, inner = Net(), Inner(3, "last")
    path, leaves = ends(net, inner)
    found = torch.autograd.grad(3 * outer(path), leaves, allow_unused=True)
    assert error_against_differences(net, inner, found) > 1e-3


# --- steps -----------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [1e-6, 0.1, 1.0, 30.0, 1e6])
def test_a_step_is_bounded_and_small_ones_are_plain(slope):
    """A step's length is l / sqrt(1 + l^2 / bound^2), l = size * |gradient of the whole row|."""
    a = slope * torch.tensor([0.6, 0.8], dtype=DOUBLE)
    start = torch.zeros(1, 1, 2, dtype=DOUBLE)
    end = descend(lambda v: v @ a, start, SIZE, (), Inner(1, "none", bound=2.0))[-1]
    wanted = 0.3 * slope / math.sqrt(1 + (0.3 * slope) ** 2 / 4)
    assert torch.allclose(end[0, 0], -wanted * a / slope)
    assert float(end.norm()) <= 2.0


def test_noise_settles_in_the_law_of_its_temperature():
    """ULA on a bowl of curvature h keeps N(0, t / (h (1 - size h / 2))) exactly; 20,000 chains,
    Kolmogorov-Smirnov at 1e-4. With a wrong factor in the noise it would fail."""
    h, t, size = 2.0, 0.5, 0.3
    start = torch.zeros(1, 20_000, 1, dtype=DOUBLE)
    c, curvature = torch.zeros(1, dtype=DOUBLE), torch.tensor(h, dtype=DOUBLE)
    inner = Inner(40, "none", bound=FREE, temperature=t)
    end = descend(bowl, start, SIZE, (c, curvature), inner, generator())[-1]
    sd = math.sqrt(t / (h * (1 - size * h / 2)))
    values = end.flatten().numpy()
    assert stats.kstest(values, stats.norm(0, sd).cdf).pvalue > 1e-4
    assert stats.kstest(values, stats.norm(0, sd * 2**0.5).cdf).pvalue < 1e-12
    again = descend(bowl, start, SIZE, (c, curvature), inner, generator())[-1]
    assert torch.equal(end, again)


@pytest.mark.parametrize("way", unrolling.WAYS)
def test_every_way_ends_in_the_same_place(way):
    """Only gradients differ, not what is inferred; rows and models do not meet."""
    net = Net()
    whole = ends(net, Inner(5, "none"))[0][-1]
    assert torch.allclose(ends(net, Inner(5, way))[0][-1], whole, rtol=1e-12)
    if way != "none":
        path, (*_, c) = ends(net, Inner(5, way))
        (slope,) = torch.autograd.grad(path[-1][1, 2].sum(), c)
        assert slope[1, 2].abs().max() > 0
        slope[1, 2] = 0
        assert slope.abs().max() == 0


# --- what it costs ---------------------------------------------------------------------


def test_chains_of_known_graphs():
    """Products in a row add up, side by side the longest counts, sums count nothing."""
    a = torch.eye(3, requires_grad=True)
    one = a @ a
    assert longest_chain(one) == 1
    assert longest_chain(one @ a + a) == 2
    assert longest_chain((one @ one @ one) + one) == 3
    assert longest_chain((a * a).sin()) == 0
    assert longest_chain(torch.addmm(a, one, a)) == 2
    assert longest_chain(torch.addmm(one @ one, a, a)) == 2  # added, not multiplied
    batched = torch.ones(2, 3, 3, requires_grad=True)
    assert longest_chain(torch.baddbmm(batched, batched @ batched, batched)) == 2
    x = a
    for _ in range(5000):  # deeper than Python's stack
        x = x @ a
    assert longest_chain(x) == 5000


@pytest.mark.parametrize("n_layers", [2, 3, 5])
def test_a_step_doubles_the_chain_of_its_energy(n_layers):
    """A squared net of L products costs L forward and L back: K steps are 2 L K deep. The slope of
    the net itself does not need its last product: 2 (L - 1) K."""
    net = Networks((4, *[6] * (n_layers - 1), 1), 1, generator(), torch.tanh).double()
    names, weights = zip(*net.named_parameters(), strict=True)

    def output(v, *weights):
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(net, given, (v,))[..., 0]

    def squared(v, *weights):
        return output(v, *weights).square()

    start = torch.ones(1, 2, 4, dtype=DOUBLE)
    for energy, products in ((squared, n_layers), (output, n_layers - 1)):
        for n_steps in (1, 2, 7):
            end = descend(energy, start, SIZE, weights, Inner(n_steps))[-1]
            assert longest_chain(end.sum()) == 2 * products * n_steps
            last = descend(energy, start, SIZE, weights, Inner(n_steps, "last"))[-1]
            assert longest_chain(last.sum()) == 2 * products


def test_saved_bytes_of_known_graphs():
    """exp keeps its result; two nodes that hold one tensor hold it once; all is let go."""
    x = torch.zeros(1000, requires_grad=True)
    with saved_bytes() as saved:
        y = x.exp().exp().sum()
        assert saved.now == saved.peak == 2 * 4000
        y.backward()
        assert saved.now == 0 and saved.peak == 8000
        z = x.exp()
        w = z * z
        assert saved.now == 4000
        del z, w
        gc.collect()
        assert saved.now == 0


def peak(net, n_steps, way):
    with saved_bytes() as saved:
        path, leaves = ends(net, Inner(n_steps, way), n=20)
        torch.autograd.grad(outer(path[-1:]), leaves, allow_unused=True)
    return saved.peak


def test_peak_memory_is_flat_but_for_full_unrolling():
    """Forward and backward pass: full is a straight line in K, the others are under 1.5 times at
    K = 40 what they are at 5."""
    net = Net(hidden=64)
    for way in ("checkpoint", "last", "implicit"):
        assert peak(net, 40, way) < 1.5 * peak(net, 5, way), way
    five, ten, forty = (peak(net, n, "full") for n in (5, 10, 40))
    assert forty - ten == pytest.approx(6 * (ten - five), rel=0.02)
    assert forty > 6 * five
    assert peak(net, 40, "checkpoint") < forty / 10


def test_gradients_are_the_same_while_they_are_counted():
    """Double backward passes through the hooks."""
    net = Net()
    plain = gradient(net, Inner(3))
    with saved_bytes():
        counted = gradient(net, Inner(3))
    assert all(map(torch.equal, plain, counted))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: Inner(0), "n_steps: expected a whole number >= 1"),
        (lambda: Inner(-2), "n_steps: expected"),
        (lambda: Inner(2.0), "n_steps: expected"),
        (lambda: Inner(True), "n_steps: expected"),
        (lambda: Inner(differentiate="some"), "differentiate: expected one of full, checkpoint"),
        (lambda: Inner(bound=0.0), "bound: expected a number > 0"),
        (lambda: Inner(bound=math.inf), "bound: expected a number > 0"),
        (lambda: Inner(temperature=-1.0), "temperature: expected a number >= 0"),
        (lambda: Inner(differentiate="implicit", temperature=0.1), "temperature: expected 0"),
        (
            lambda: descend(bowl, SIZE, SIZE, (SIZE, SIZE), Inner(temperature=0.1)),
            "generator: expected one",
        ),
        (lambda: longest_chain(torch.ones(2)), "output: expected"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
