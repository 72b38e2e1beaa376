"""Samplers wherever they are called: the same chain, or an error that names the cause."""

import math

import numpy as np
import pytest
import torch
from laws import generator, one_thread  # noqa: F401

from ebmref import energies
from ebmref.samplers import (
    annealed_importance_sampling,
    diagnose,
    ex2mcmc,
    hmc,
    independence,
    isir,
    kinetic_langevin,
    mala,
    parallel_tempering,
    random_walk,
    sample,
    sequential_monte_carlo,
    ula,
)

WIDE = energies.Gaussian(torch.zeros(3), 4 * torch.eye(3))


def rough(x):
    """By autograd."""
    return 0.5 * x.square().sum(1) + x.cos().sum(1)


KERNELS = {
    "random_walk": random_walk(rough, 1.0),
    "independence": independence(rough, WIDE),
    "ula": ula(rough, 0.3),
    "mala": mala(rough, 0.5),
    "hmc": hmc(rough, 0.3, 3, torch.tensor([0.5, 1.0, 2.0])),
    "kinetic": kinetic_langevin(rough, 0.3),
    "isir": isir(rough, WIDE, 4),
    "ex2mcmc": ex2mcmc(rough, WIDE, 0.3, 3),
    "tempering": parallel_tempering(rough, 0.3, (1.0, 0.5)),
}


def run(kernel, x0=None, n_steps=20, **more):
    x0 = torch.randn(5, 3, generator=generator(1)) if x0 is None else x0
    return sample(kernel, x0, n_steps, generator=generator(2), **more)


def in_inference_mode():
    return torch.inference_mode()


def with_a_device():
    return torch.device("meta")


class DoubleByDefault:
    def __enter__(self):
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_):
        torch.set_default_dtype(torch.float32)


CONTEXTS = [in_inference_mode, with_a_device, DoubleByDefault, torch.enable_grad]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", KERNELS)
def test_the_same_chain_in_any_context(name, context):
    """Bit by bit; and what comes out can be worked on outside."""
    expected = run(KERNELS[name])
    x0 = torch.randn(5, 3, generator=generator(1))
    with context():
        found = run(KERNELS[name], x0 + 0 if context is in_inference_mode else x0)
    assert torch.equal(found.samples, expected.samples)
    assert torch.equal(found.energy, expected.energy)
    assert not found.samples.is_inference() and not found.samples.requires_grad


@pytest.mark.parametrize("method", [annealed_importance_sampling, sequential_monte_carlo])
@pytest.mark.parametrize("context", CONTEXTS)
def test_the_same_annealing_in_any_context(method, context):
    expected = method(rough, WIDE, 20, 3, 0.1, generator=generator(3))
    with context():
        found = method(rough, WIDE, 20, 3, 0.1, generator=generator(3))
    assert torch.equal(found.samples, expected.samples) and found.log_z == expected.log_z


def test_a_gradient_in_inference_mode():
    with torch.inference_mode():
        x = torch.ones(2, 3)
        _, gradient = energies.value_and_gradient(rough, x)
    _, expected = energies.value_and_gradient(rough, torch.ones(2, 3))
    assert torch.equal(gradient, expected)
    assert torch.equal(energies.value_and_gradient(rough, x)[1], expected)


# Half precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["independence", "isir", "ex2mcmc"])
def test_autocast_leaves_the_sampler_its_digits(name):
    """It is the energy's to use. The proposal's draws, its density and the choice among them are
    as they were: with an energy without products the chain is the same bit by bit."""
    x0 = torch.randn(500, 3, generator=generator(1))
    expected = run(KERNELS[name], x0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(KERNELS[name], x0)
    assert torch.equal(found.samples, expected.samples)


def test_a_gaussian_keeps_its_digits_under_autocast():
    law = energies.Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    x = law.sample(50, generator())
    expected = law(x), *law.value_and_gradient(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(law.sample(50, generator()), x)
        for one, two in zip((law(x), *law.value_and_gradient(x)), expected, strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_acceptance_of_half_precision_is_summed_in_full(dtype):
    """MALA at h = 0.5 on the plane accepts 0.96; sums of ones in bfloat16 end at 256."""

    def energy(x):
        return (0.5 * x.square().sum(1)).to(dtype)

    x0 = torch.randn(400, 2, generator=generator())
    rates = [run(mala(energy, 0.5), x0, n, thin=n).acceptance_rate for n in (100, 1200)]
    for rate in rates:
        assert rate.dtype == torch.float32
        assert float(rate.mean()) == pytest.approx(0.957, abs=0.005)


@pytest.mark.filterwarnings("error")
def test_compiled_acceptance_of_half_precision_is_summed_in_full(monkeypatch):
    full = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, fullgraph, options: full(f, fullgraph=True, backend="eager")
    )

    def energy(x):
        return (0.5 * x.square().sum(1)).bfloat16()

    x0 = torch.randn(100, 2, generator=generator())
    kernel = random_walk(energy, 1.0)
    one, two = (run(kernel, x0, 1000, thin=1000, compile=c) for c in (True, False))
    torch.testing.assert_close(one.acceptance_rate, two.acceptance_rate, rtol=1e-4, atol=0)


def test_a_step_is_adapted_in_full_precision():
    """bfloat16 counts to 256: the 400 steps of the warm-up would be lost in it."""
    x0 = torch.randn(200, 2, generator=generator()).bfloat16()
    kernel = random_walk(lambda x: 0.5 * x.square().sum(1), 0.1)
    chain = run(kernel, x0, 100, warmup=400, target_acceptance=0.4)
    assert chain.samples.dtype == torch.bfloat16
    assert float(chain.acceptance_rate.mean()) == pytest.approx(0.4, abs=0.05)


def test_chains_of_half_precision_are_diagnosed():
    chain = run(random_walk(rough, 1.0), torch.randn(4, 3, generator=generator()).bfloat16(), 300)
    found = diagnose(chain)
    assert ((found.ess > 5) & (found.ess < 1200)).all() and found.rhat.isfinite().all()


def test_log_weights_of_half_precision_are_added_in_full():
    target = energies.Gaussian(torch.zeros(3), torch.eye(3))
    found = annealed_importance_sampling(
        lambda x: target(x).bfloat16(), WIDE, 500, 200, 0.1, generator=generator()
    )
    assert found.log_weights.dtype == torch.float32
    assert float(found.log_z) == pytest.approx(target.log_z, abs=0.1)


# NumPy's numbers and arrays ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_numbers_of_numpy_are_numbers(number):
    h, whole = number(0.25), np.int64(3)
    pairs = [
        (random_walk(rough, h), random_walk(rough, 0.25)),
        (hmc(rough, h, whole, number(2)), hmc(rough, 0.25, 3, 2.0)),
        (kinetic_langevin(rough, h, number(1)), kinetic_langevin(rough, 0.25)),
        (isir(rough, WIDE, whole), isir(rough, WIDE, 3)),
        (parallel_tempering(rough, h, np.array([1, 0.5])), KERNELS["tempering"]),
    ]
    for one, two in pairs[:-1]:
        expected = sample(two, torch.zeros(4, 3), 6, warmup=5, thin=2, generator=generator())
        found = sample(
            one,
            torch.zeros(4, 3),
            np.int64(6),
            warmup=np.int32(5),
            thin=np.int64(2),
            generator=generator(),
        )
        assert torch.equal(found.samples, expected.samples)
    run(pairs[-1][0])
    target = number(0.5)
    run(random_walk(rough, 1.0), warmup=20, target_acceptance=target)
    one, two = (
        annealed_importance_sampling(rough, WIDE, n, n, step, generator=generator())
        for n, step in ((3, 0.25), (whole, h))
    )
    assert torch.equal(one.samples, two.samples)


@pytest.mark.parametrize(
    "mass",
    [np.array([0.5, 1.0, 2.0]), [0.5, 1, 2], torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)],
)
def test_a_mass_of_another_make_is_taken(mass):
    """To the chains' own dtype: so that a network in float32 can take what comes of it."""
    net = torch.nn.Linear(3, 1)

    def energy(x):
        return net(x)[:, 0] + x.square().sum(1)

    expected = run(hmc(energy, 0.1, 3, torch.tensor([0.5, 1.0, 2.0])))
    assert torch.equal(run(hmc(energy, 0.1, 3, mass)).samples, expected.samples)


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("shape", [(3, 3), (2,), (4, 1), (4,), (1, 3)])
def test_a_mass_that_does_not_fit_the_event_is_named(shape, n):
    """Also with as many chains as coordinates, where a dense one would be taken for a mass a
    chain."""
    with pytest.raises(ValueError, match=r"mass: expected a number, or .* event \(3,\)"):
        sample(hmc(rough, 0.1, 3, torch.ones(shape)), torch.zeros(n, 3), 3, generator=generator())


def test_a_mass_fits_an_event_of_several_dimensions():
    for mass in (torch.ones(4), torch.ones(3, 1), torch.ones(3, 4), torch.ones(1, 4), 2.0):
        kernel = hmc(lambda x: x.square().sum((1, 2)), 0.1, 2, mass)
        assert (
            sample(kernel, torch.zeros(2, 3, 4), 3, generator=generator()).samples.isfinite().all()
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: energies.Gaussian(np.zeros(2), torch.eye(2)), "mean: .* got ndarray"),
        (lambda: energies.Gaussian(torch.zeros(2), np.eye(2)), "covariance: .* got ndarray"),
        (lambda: energies.Gaussian(torch.zeros(2), torch.eye(2).double()), "expected one dtype"),
        (lambda: energies.GaussianMixture(np.zeros((1, 2)), torch.ones(1)), "means: .* ndarray"),
        (lambda: energies.GaussianMixture(torch.zeros(1, 2), [1.0]), "scales: .* got list"),
        (lambda: energies.Funnel([0.0, 0.0]), "like: expected a float tensor; got list"),
        (lambda: energies.Ring(torch.zeros(2, dtype=torch.long)), "like: .* got torch.int64"),
        (lambda: energies.Box(np.zeros(2)), "like: .* got ndarray"),
        (lambda: energies.StudentT(None), "like: .* got NoneType"),
        (lambda: energies.two_moons(np.zeros(2)), "like: .* got ndarray"),
    ],
)
def test_what_is_no_tensor_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_ring_near_its_middle_has_a_slope():
    """Right up to it: its radius there is still a length, to rounding."""
    ring = energies.Ring(torch.zeros(2, dtype=torch.float64))
    x = torch.tensor([[1e-150, 0.0], [0.0, -1e-150]], dtype=torch.float64)
    _, gradient = energies.value_and_gradient(ring, x)
    expected = -torch.sign(x) * 3.0 / 0.3**2
    torch.testing.assert_close(gradient, expected)
    assert math.isnan(float(energies.value_and_gradient(ring, 0 * x)[1][0, 0]))
