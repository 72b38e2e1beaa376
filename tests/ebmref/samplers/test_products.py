"""Products inside a compiled loop: the same numbers, by the library that is faster."""

import time

import pytest
import torch
from laws import generator, one_thread  # noqa: F401
from torch._dynamo.utils import counters
from torch.fx.experimental.proxy_tensor import make_fx

from ebmref.samplers import sample, ula
from ebmref.samplers.products import ByOneDNN

LINEAR = torch.ops.ebmref.linear.default


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=generator(sum(shape)), dtype=dtype)


X, W, BIAS, MATRIX = numbers(64, 128), numbers(128, 96), numbers(96), numbers(64, 96)


def layers(x):
    hidden = torch.addmm(BIAS, x, W)
    return hidden.tanh() + hidden  # both are asked for: the tanh cannot go along


LARGE = {
    "mm": lambda x: x @ W,
    "of a weight by rows": lambda x: x @ W.mT.contiguous().mT,
    "with a bias": lambda x: torch.addmm(BIAS, x, W),
    "with a matrix": lambda x: torch.addmm(MATRIX, x, W),
    "with a bias and tanh": lambda x: torch.addmm(BIAS, x, W).tanh(),
    "with a matrix and tanh": lambda x: torch.addmm(MATRIX, x, W).tanh(),
    "asked for twice": layers,
}
LEFT = {
    "small": (lambda x: x[:, :32] @ W[:32], X),
    "double": (lambda x: x @ W.double(), X.double()),
    "scaled": (lambda x: torch.addmm(BIAS, x, W, beta=0.5), X),
    "a column by a row": (lambda x: x[:, :1] @ W[:1], X),
}


def replaced(function, x):
    """The function as a graph, before and after the pass: its operators, what it gives."""
    traced = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(x)
    ByOneDNN()(traced.graph)
    traced.graph.lint()
    traced.recompile()
    return [node.target for node in traced.graph.nodes], traced(x)


@pytest.mark.parametrize("name", LARGE)
def test_large_products_change_their_library_and_no_number(name):
    function = LARGE[name]
    operators, got = replaced(function, X)
    assert operators.count(LINEAR) == 1
    assert torch.ops.aten.mm.default not in operators
    assert torch.ops.aten.addmm.default not in operators
    torch.testing.assert_close(got, function(X), rtol=1e-5, atol=1e-5)


def test_only_a_tanh_that_is_asked_for_alone_goes_along():
    tanh = torch.ops.aten.tanh.default
    assert tanh not in replaced(LARGE["with a bias and tanh"], X)[0]
    assert tanh in replaced(LARGE["asked for twice"], X)[0]
    assert tanh in replaced(LARGE["with a matrix and tanh"], X)[0]


@pytest.mark.parametrize("name", LEFT)
def test_all_other_products_stay(name):
    function, x = LEFT[name]
    operators, got = replaced(function, x)
    assert LINEAR not in operators
    torch.testing.assert_close(got, function(x), rtol=1e-6, atol=1e-6)


def test_a_network_compiled_has_the_chain_of_one_that_is_not():
    weight = W / 10  # of a slope that does not blow up what rounding does

    def energy(x):
        hidden = torch.addmm(BIAS, x, weight).tanh()
        hidden = torch.addmm(BIAS, hidden, weight[:96]).tanh()
        return (hidden @ weight[:96, :1])[:, 0] + 0.5 * x.square().sum(1)

    eager, compiled = (
        sample(ula(energy, 0.05), X, 12, generator=generator(3), compile=compile)
        for compile in (False, True)
    )
    torch.testing.assert_close(compiled.samples, eager.samples, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(compiled.energy, eager.energy, rtol=1e-4, atol=1e-3)


def test_the_cache_on_disk_tells_energies_apart():
    """They differ in a number inside the loop; one that is the same is not compiled again."""
    scale = 0.5 + 1e-7 * (time.time_ns() // 1000 % 10**6)  # that no run before has compiled
    hits = []
    for one in (scale, scale + 0.2, scale):
        kernel = ula(lambda x, one=one: one * x.square().sum(1), 0.1)
        eager = sample(kernel, torch.ones(3, 2), 8, generator=generator(0))
        torch._dynamo.reset()  # the process forgets, the disk does not
        before = counters["aot_autograd"]["autograd_cache_hit"]
        own = sample(kernel, torch.ones(3, 2), 8, generator=generator(0), compile=True)
        hits.append(counters["aot_autograd"]["autograd_cache_hit"] - before)
        torch.testing.assert_close(own.samples, eager.samples, rtol=1e-5, atol=1e-5)
    assert hits == [0, 0, 1]
