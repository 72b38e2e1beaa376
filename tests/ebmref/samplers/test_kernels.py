"""The kernels keep the laws they promise: exact targets, their own where they are unadjusted.

Invariance: thousands of independent chains start from exact draws and must still follow the
law some steps later. Convergence: they start all at one far point and must arrive. Both end in
the p-values of `laws`, whose module says at which false-alarm rate; `test_mutants` shows that
broken kernels do not get through. Where a kernel's transition density can be written down, its
detailed balance is checked to rounding, without any chance.
"""

import math

import laws
import numpy as np
import pytest
import torch
from laws import (
    FLOOR,
    LAWS,
    MOST_CASES,
    generator,
    one_thread,  # noqa: F401
    run,
    smallest,
    stationary,
    steps,
)
from scipy import linalg, ndimage, stats
from scipy.sparse import linalg as sparse_linalg

from ebmref import energies
from ebmref.samplers import (
    ex2mcmc,
    hmc,
    independence,
    isir,
    kinetic_langevin,
    mala,
    parallel_tempering,
    random_walk,
    sample,
    ula,
)

CHAINS = {1: 20_000, 10: 8_000, 100: 3_000}


def reach(law, d, power):
    """The sd of a proposal that is accepted about half the time; d^-power where no wall rules."""
    return law.scale if law.wall else law.scale * d**-power


def betas(d):
    """Neighbours close enough to swap: the energies' sd grows as sqrt(d / 2)."""
    return (1.0, 0.85, 0.7) if d > 10 else (1.0, 0.6, 0.35)


def mixed_mass(d):
    """From 1/4 to 4, so that a mass forgotten anywhere shows."""
    return torch.logspace(-2, 2, d, 2, dtype=torch.float64) if d > 1 else 4.0


# name -> (kernel from a law and its dimension, steps from exact draws)
ADJUSTED = {
    "random_walk": (lambda law, d: random_walk(law.energy, 2 * reach(law, d, 0.5)), 40),
    "independence": (lambda law, d: independence(law.energy, law.proposal), 15),
    "mala": (lambda law, d: mala(law.energy, (1.5 * reach(law, d, 1 / 6)) ** 2), 40),
    "hmc": (lambda law, d: hmc(law.energy, 1.1 * reach(law, d, 0.25), 3), 20),
    "hmc_mass": (
        lambda law, d: hmc(law.energy, 0.6 * reach(law, d, 0.25), 3, mass=mixed_mass(d)),
        20,
    ),
    "isir": (lambda law, d: isir(law.energy, law.proposal, 3), 8),
    "ex2mcmc": (
        lambda law, d: ex2mcmc(law.energy, law.proposal, reach(law, d, 1 / 6) ** 2, 2, n_local=2),
        8,
    ),
    "parallel_tempering": (
        lambda law, d: parallel_tempering(law.energy, reach(law, d, 1 / 6) ** 2, betas(d)),
        30,
    ),
}

# Steps after which nothing is left of a far start that 2,000 chains could show. Not in 100
# dimensions for all: a random walk then needs thousands of steps, and a global proposal that
# covered both start and target would have no acceptance. In the box of 10 dimensions steps are
# short, and those of the heaviest mass too short to wait for.
ARRIVALS = [
    *(
        (name, law, d, n_steps)
        for name, n_steps in {
            "random_walk": 400,
            "independence": 60,
            "mala": 150,
            "hmc": 60,
            "hmc_mass": 150,
            "isir": 40,
            "ex2mcmc": 40,
            "parallel_tempering": 200,
        }.items()
        for law in ("gaussian", "mixture")
        for d in (1, 10)
    ),
    *(
        (name, "box", 10, n_steps)
        for name, n_steps in {
            "random_walk": 500,
            "independence": 60,
            "mala": 600,
            "hmc": 500,
            "isir": 40,
            "ex2mcmc": 100,
            "parallel_tempering": 800,
        }.items()
    ),
    ("mala", "gaussian", 100, 150),
    ("hmc", "gaussian", 100, 150),
]


def held(kernel, law, x0, n_steps, seed, *, distinct=True):
    """Run the kernel and return the p-value of the law, after what must hold of any chain."""
    n = len(x0)
    before = x0.clone()
    chain = run(kernel, x0, n_steps, seed)
    x = chain.samples[0]
    assert x.shape == x0.shape and x.dtype == x0.dtype
    assert torch.equal(x0, before)
    # What is stored as a draw's energy is its own, and finite: no draw outside a wall.
    torch.testing.assert_close(chain.energy[0], law.energy(x))
    assert chain.energy.isfinite().all()
    assert not torch.equal(x, x0)
    if distinct:
        # A clamp would put many chains on one value; a continuous law puts no two.
        assert len(x[:, 0].unique()) == n
    return smallest(law.scores(x))


@pytest.mark.parametrize("d", CHAINS)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ADJUSTED)
def test_invariance(name, law, d):
    """Exact draws are still exact draws after the kernel, and most chains have moved."""
    make, n_steps = ADJUSTED[name]
    law = LAWS[law](d)
    kernel = make(law, d)
    if name == "parallel_tempering":
        kernel = stationary(kernel, law, betas(d))
    x0 = law.draw(CHAINS[d], seed=0)
    moved = steps(kernel, x0, n_steps, 0) != x0
    assert moved.any(1).double().mean() > 0.8
    assert held(kernel, law, x0, n_steps, 0) > FLOOR


@pytest.mark.parametrize(("name", "law", "d", "n_steps"), ARRIVALS)
def test_convergence(name, law, d, n_steps):
    """From one point far from the middle every chain arrives at the law."""
    kernel, law = ADJUSTED[name][0](LAWS[law](d), d), LAWS[law](d)
    far = torch.full((2_000, d), 0.6 if law.wall else 3.0, dtype=torch.float64)
    assert held(kernel, law, far, n_steps, 1) > FLOOR


def test_the_false_alarm_rate_is_kept():
    """The number of cases that share it, here and in the other suites, stays below its bound.

    And the p-value is one: over 400 sets of standard normals it is below 0.1 at most one time
    in ten, up to four sd.
    """
    n_cases = len(ADJUSTED) * len(LAWS) * len(CHAINS) + len(ARRIVALS)
    assert n_cases < MOST_CASES - 100
    stream = generator()
    for d in (1, 10):
        found = [
            smallest(torch.randn(1_000, d, generator=stream, dtype=torch.float64))
            for _ in range(200)
        ]
        assert np.mean(np.array(found) < 0.1) < 0.1 + 4 * (0.1 * 0.9 / 200) ** 0.5


# Any event, any precision --------------------------------------------------------------------


class Reshaped:
    """A law on vectors, on events of another shape."""

    def __init__(self, law, event):
        self.law, self.event = law, event

    def flat(self, x):
        return x.reshape(len(x), -1)

    def __call__(self, x):
        return self.law(self.flat(x))

    def log_prob(self, x):
        return self.law.log_prob(self.flat(x))

    def sample(self, n, generator):
        return self.law.sample(n, generator).view(n, *self.event)


def on_events(law, event):
    return law._replace(
        energy=Reshaped(law.energy, event),
        proposal=Reshaped(law.proposal, event),
        scores=lambda x: law.scores(x.reshape(len(x), -1)),
    )


@pytest.mark.parametrize("event", [(), (3, 4)])
@pytest.mark.parametrize("name", ADJUSTED)
def test_events_of_any_shape(name, event):
    """Scalars and matrices, gradients by autograd: the law is kept as for vectors."""
    d = math.prod(event)
    law = on_events(laws.gaussian(d), event)
    make, n_steps = ADJUSTED[name]
    if name == "hmc_mass":
        mass = mixed_mass(d)
        mass = mass.view(event) if event else mass
        kernel = hmc(law.energy, 0.6 * reach(law, d, 0.25), 3, mass=mass)
    else:
        kernel = make(law, d)
    if name == "parallel_tempering":
        kernel = stationary(kernel, law, betas(d))
    x0 = law.energy.sample(6_000, generator())
    assert x0.shape == (6_000, *event)
    assert held(kernel, law, x0, n_steps, 2, distinct=False) > FLOOR


@pytest.mark.parametrize("name", ADJUSTED)
def test_single_precision(name):
    """float32 in, float32 out, the same law."""
    law = laws.gaussian(10, dtype=torch.float32)
    make, n_steps = ADJUSTED[name]
    kernel = make(law, 10)
    if name == "hmc_mass":
        kernel = hmc(law.energy, 0.2, 3, mass=mixed_mass(10).float())
    if name == "parallel_tempering":
        kernel = stationary(kernel, law, betas(10))
    x0 = law.draw(8_000, seed=0)
    assert held(kernel, law, x0, n_steps, 3, distinct=False) > FLOOR


# Unadjusted kernels: a law of their own ---------------------------------------------------------


def linear_part(kernel, d):
    """A and B of s' = A s + B xi for a kernel that is linear, s = (x, velocity): read off steps.

    The noise is the step's one normal tensor; the state's energy and gradient follow from x.
    """
    size = torch.tensor(kernel.step_size, dtype=torch.float64)

    def advance(x, velocity, xi):
        state = kernel.init(x, generator())
        moving = hasattr(state, "velocity")
        state = state._replace(velocity=velocity) if moving else state
        state, _ = kernel.step(state, (xi,), size)
        return torch.cat([state.x, state.velocity], 1) if moving else state.x

    eye, zero = torch.eye(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    rest = advance(zero, zero, zero)
    by_x, by_velocity, by_noise = (
        (advance(*parts) - rest).T
        for parts in ((eye, zero, zero), (zero, eye, zero), (zero, zero, eye))
    )
    if len(by_x) == d:
        by_velocity = by_velocity[:, :0]
    return torch.cat([by_x, by_velocity], 1).numpy(), by_noise.numpy()


def stationary_covariance(kernel, d):
    """C = A C A^T + B B^T, solved; the map must contract for it to be the limit."""
    a, b = linear_part(kernel, d)
    assert np.abs(np.linalg.eigvals(a)).max() < 1
    return linalg.solve_discrete_lyapunov(a, b @ b.T)


@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.0, 2.0])
def test_ula_settles_in_its_closed_form(step_size):
    """N(0, 1): variance 1 / (1 - h / 4). Precision P: (P - h P^2 / 4)^-1. To rounding."""
    one = stationary_covariance(ula(laws.gaussian(1).energy, step_size), 1)
    assert float(one[0, 0]) == pytest.approx(1 / (1 - step_size / 4), rel=1e-12)
    target = laws.correlated(5)
    h = step_size * target.scale**2
    precision = target.energy.precision
    expected = torch.linalg.inv(precision - 0.25 * h * precision @ precision).numpy()
    got = stationary_covariance(ula(target.energy, h), 5)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("friction", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.0, 1.9])
def test_kinetic_langevin_is_exact_in_x_for_a_gaussian(step_size, friction):
    """B A O A B on a Gaussian of precision P: C_xx = P^-1, C_vv = 1 - h^2 P / 4, C_xv = 0.

    One mode of frequency w, with a = 1 - h^2 w^2 / 4: B A takes the covariance diag(1 / w^2, a)
    to diag(a / w^2, 1), O leaves a velocity of variance one that x knows nothing of as it is,
    and A B, the mirror image, leads back. Here the Lyapunov equation of the kernel's own
    linear map is solved instead, and says the same to rounding.
    """
    target = laws.correlated(4)
    h = step_size * target.scale
    got = stationary_covariance(kinetic_langevin(target.energy, h, friction), 4)
    covariance = target.energy.covariance.numpy()
    np.testing.assert_allclose(got[:4, :4], covariance, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(got[:4, 4:], 0, atol=1e-9)
    expected = np.eye(4) - 0.25 * h**2 * target.energy.precision.numpy()
    np.testing.assert_allclose(got[4:, 4:], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("d", CHAINS)
@pytest.mark.parametrize("law", ["gaussian", "correlated", "mixture", "heavy"])
def test_ula_keeps_its_own_law(law, d):
    """Chains from exact draws of ULA's own law still follow it; the target they would fail.

    Gaussians: the closed form above. The other two energies are sums over coordinates, so
    the law is a product of laws on the line, each from its integral equation.
    """
    target = LAWS[law](d)
    h = 0.7 * target.scale**2
    kernel = ula(target.energy, h)
    n, stream = CHAINS[d], generator()
    if target.marginal is None:
        precision = target.energy.precision
        covariance = torch.linalg.inv(precision - 0.25 * h * precision @ precision)
        own = energies.Gaussian(target.energy.mean, covariance)
        scores, x0 = laws.gaussian_scores(own.mean, covariance), own.sample(n, stream)
    else:
        reach, n_grid = (60.0, 1_201) if law == "heavy" else (12.0, 401)
        one = [laws.own_law(ula(target.marginal(k), h), reach, n_grid) for k in range(min(d, 2))]
        one += one[1:] * (d - 2)
        x0 = torch.stack([own.draw(n, stream) for own in one], 1)

        def scores(x):
            return torch.stack([own.scores(x[:, k]) for k, own in enumerate(one)], 1)

    x = steps(kernel, x0, 25, 0)
    assert smallest(scores(x)) > FLOOR
    assert smallest(target.scores(x)) < FLOOR / 1e6


@pytest.mark.parametrize("d", CHAINS)
def test_ula_is_exact_in_a_flat_box(d):
    """No slope, and a step over the wall stays: a symmetric random walk, so the law is exact."""
    law = laws.box(d, tilt=0.0)
    kernel = ula(law.energy, (2 * law.scale) ** 2)
    assert held(kernel, law, law.draw(CHAINS[d], seed=0), 30, 0) > FLOOR


@pytest.mark.parametrize("d", CHAINS)
@pytest.mark.parametrize("law", ["gaussian", "correlated"])
def test_kinetic_langevin_keeps_gaussians(law, d):
    """x is exact, once the velocities have their own law, which is what they start with here."""
    law = LAWS[law](d)
    kernel = kinetic_langevin(law.energy, 0.9 * law.scale, friction=0.5)
    spread = torch.linalg.cholesky(torch.as_tensor(stationary_covariance(kernel, d)[d:, d:]))

    def init(x, g):
        state = kernel.init(x, g)
        return state._replace(velocity=state.velocity @ spread.T)

    own = kernel._replace(init=init)
    assert held(own, law, law.draw(CHAINS[d], seed=0), 40, 0) > FLOOR


@pytest.mark.parametrize("friction", [0.3, 3.0])
@pytest.mark.parametrize("d", CHAINS)
def test_kinetic_langevin_is_exact_in_a_tilted_box(d, friction):
    """Under a constant slope a every part of the step keeps exp(-a x - v^2 / 2), and the step
    over the wall that turns the velocity round keeps the balance: the law of x is exact."""
    law = laws.box(d)
    kernel = kinetic_langevin(law.energy, law.scale, friction / law.scale)
    assert held(kernel, law, law.draw(CHAINS[d], seed=0), 40, 0) > FLOOR


@pytest.mark.parametrize("event", [(), (3, 4)])
def test_unadjusted_kernels_on_events_of_any_shape(event):
    d = math.prod(event)
    law = on_events(laws.gaussian(d), event)
    x0 = law.energy.sample(6_000, generator())
    kinetic = kinetic_langevin(law.energy, 0.6, 1.0)
    assert held(kinetic, law, x0, 80, 2, distinct=False) > FLOOR
    h = 0.7
    x = steps(ula(law.energy, h), x0, 60, 2)
    assert x.shape == x0.shape
    # (1 - h / 2)^120 of the first variance is left: none.
    assert smallest(law.scores(x) * (1 - h / 4) ** 0.5) > FLOOR


@pytest.mark.parametrize("name", ["ula", "kinetic"])
def test_unadjusted_kernels_in_single_precision(name):
    law = laws.gaussian(10, dtype=torch.float32)
    kernel = ula(law.energy, 0.4) if name == "ula" else kinetic_langevin(law.energy, 0.6, 1.0)
    x = steps(kernel, law.draw(8_000, seed=0), 80, 3)
    assert x.dtype == torch.float32
    scores = law.scores(x)
    assert smallest(scores * 0.9**0.5 if name == "ula" else scores) > FLOOR


# The order of the bias --------------------------------------------------------------------------


def well(x):
    """E(x) = x^4 / 4 - x^2 / 2 on the line, far from Gaussian."""
    return (0.25 * x.pow(4) - 0.5 * x.square()).sum(1)


def exact_square():
    """E x^2 under exp(-well), by quadrature."""
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    density = (-well(x[:, None])).exp()
    return float((density * x.square()).sum() / density.sum())


def test_bias_of_ula_is_of_order_step():
    """E x^2 - truth ~ c h: slope 1 in log-log, from the integral equation, no Monte Carlo.

    The next term is c' h^2, so the slope between h and h / 2 is 1 + O(h): it must come nearer
    to 1 with every halving, to 0.02 at last, and so must its linear extrapolation.
    """
    sizes = [0.08 / 2**k for k in range(5)]
    own = [laws.own_law(ula(well, h), 4.0, 401) for h in sizes]
    bias = [float(law.weights @ law.grid.square()) - exact_square() for law in own]
    slopes = np.log2(np.array(bias[:-1]) / np.array(bias[1:]))
    gap = np.abs(slopes - 1)
    assert (gap[1:] < gap[:-1]).all()
    assert gap[-1] < 0.02
    assert abs(2 * slopes[-1] - slopes[-2] - 1) < 0.002


def wavy(x):
    """E(x) = x^2 / 2 + cos 2x on the line: two wells, and a slope that any step can follow."""
    return (0.5 * x.square() + (2 * x).cos()).sum(1)


def wavy_slope(x):
    return x - 2 * np.sin(2 * x)


def after_noise(step_size, x, w):
    """(x, w), a state just after O, to just before the next O: A B B A, in numpy."""
    x = x + 0.5 * step_size * w
    w = w - step_size * wavy_slope(x)
    return x + 0.5 * step_size * w, w


def test_kinetic_langevin_is_its_splitting():
    """One step of the kernel is the map above followed by O, to rounding.

    A step begins half a drift after O with half a kick still to come, and ends so.
    """
    h, friction = 0.3, 2.0
    x, w, xi = np.random.default_rng(0).normal(size=(3, 500))
    kernel = kinetic_langevin(wavy, h, friction)
    start = x + 0.5 * h * w
    state = kernel.init(torch.as_tensor(start)[:, None], generator())
    velocity = torch.as_tensor(w - 0.5 * h * wavy_slope(start))[:, None]
    state, _ = kernel.step(
        state._replace(velocity=velocity),
        (torch.as_tensor(xi)[:, None],),
        torch.tensor(h, dtype=torch.float64),
    )
    keep = math.exp(-friction * h)
    y, v = after_noise(h, x, w)
    v = keep * v + math.sqrt(1 - keep**2) * xi
    y = y + 0.5 * h * v
    np.testing.assert_allclose(state.x[:, 0], y, atol=1e-12)
    np.testing.assert_allclose(state.velocity[:, 0], v - 0.5 * h * wavy_slope(y), atol=1e-12)


def kinetic_mean(f, step_size, friction=2.0, reach=6.5, shape=(150, 100)):
    """E f(x) in the law that kinetic Langevin settles in, without Monte Carlo.

    The density of (x, w) just after O is carried along the map above, which keeps volume and
    is undone step by step, and blurred by O; the density that stays the same is the leading
    eigenvector. Splines of order 5 on this grid leave 1e-7; a finer one moves nothing.
    """
    x, v = (np.linspace(-reach, reach, n) for n in shape)
    keep = math.exp(-friction * step_size)
    blur = np.exp(-((v - keep * v[:, None]) ** 2) / (2 * (1 - keep**2)))
    blur /= blur.sum(1, keepdims=True)
    x, v = np.meshgrid(x, v, indexing="ij")
    # The map runs backwards when velocities are turned round before and after it.
    before_x, before_w = after_noise(step_size, x, -v)
    places = [
        (at + reach) / (2 * reach) * (n - 1)
        for at, n in zip((before_x, -before_w), shape, strict=True)
    ]

    def advance(density):
        carried = ndimage.map_coordinates(density.reshape(shape), places, order=5)
        return (carried @ blur).ravel()

    first = np.exp(-0.5 * x**2 - np.cos(2 * x) - 0.5 * v**2).ravel()
    size = len(first)
    operator = sparse_linalg.LinearOperator((size, size), matvec=advance, dtype=float)
    value, vector = sparse_linalg.eigs(operator, k=1, v0=first, tol=1e-9)
    assert abs(value[0] - 1) < 1e-6
    density = vector[:, 0].real / vector[:, 0].real.sum()
    return float(density @ f(x + 0.5 * step_size * v).ravel())


@pytest.mark.parametrize("f", [np.square, lambda x: np.cos(2 * x)], ids=["square", "cosine"])
def test_bias_of_kinetic_langevin_is_of_order_step_squared(f):
    """E f - truth ~ c h^2: slope 2 in log-log, without Monte Carlo, so without sampling error.

    The splitting is symmetric, so the next term is c' h^4 and the slope between h and h / 2
    is 2 + O(h^2): nearer to 2 with the halving, to 0.06 at last. A slope of 1 or 3 is far off.
    """
    x = np.linspace(-12, 12, 8001)
    density = np.exp(-0.5 * x**2 - np.cos(2 * x))
    truth = float((density * f(x)).sum() / density.sum())
    bias = np.array([kinetic_mean(f, h) - truth for h in (0.4, 0.2, 0.1)])
    gap = np.abs(np.log2(bias[:-1] / bias[1:]) - 2)
    assert gap[1] < 0.6 * gap[0]
    assert gap[1] < 0.06


# Detailed balance to rounding --------------------------------------------------------------------


def curved(x):
    """A smooth energy in several dimensions without symmetry, constant or line."""
    first, rest = x[:, 0], x[:, 1:]
    return 0.25 * first.pow(4) + first.sin() + 0.5 * (rest - first[:, None].cos()).square().sum(1)


def gradient(x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(curved(x).sum(), x)[0]


def propose(kernel, x, xi):
    """Where the noise xi leads, for the chains that take it, and the probability of taking it.

    The step is repeated with the same xi and fresh uniforms until it has been accepted.
    """
    size = torch.tensor(kernel.step_size or 0.0, dtype=x.dtype)
    state, stream = kernel.init(x, generator()), generator(5)
    y = x.clone()
    for _ in range(60):
        fresh = kernel.draw(1, x, stream)[1:]
        after, probability = kernel.step(state, (xi, *(part[0] for part in fresh)), size)
        y = torch.where((after.x != x).any(1, keepdim=True), after.x, y)
    return y, probability


def leapfrog(x, p, step_size, n_leapfrog, mass):
    """Hamilton's equations by the textbook: half kick, drift, half kick, n times."""
    for _ in range(n_leapfrog):
        p = p - 0.5 * step_size * gradient_of(x)
        x = x + step_size * p / mass
        p = p - 0.5 * step_size * gradient_of(x)
    return x, p


def gradient_of(x):
    """`gradient` of one point or many, itself differentiable."""
    return torch.func.grad(lambda x: curved(x.view(-1, 3)).sum())(x)


MASS = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
MAPS = {
    # kernel, and (x, y, xi) -> the noise that leads from y back to x
    "random_walk": (random_walk(curved, 0.7), lambda x, y, xi: -xi),
    "mala": (mala(curved, 0.6), lambda x, y, xi: (x - y + 0.3 * gradient(y)) / 0.6**0.5),
    "hmc": (
        hmc(curved, 0.3, 4, mass=MASS),
        lambda x, y, xi: -leapfrog(x, MASS**0.5 * xi, 0.3, 4, MASS)[1] / MASS**0.5,
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_detailed_balance_to_rounding(name):
    """p(x) J(x, y) min(1, A(x, y)) = p(y) J(y, x) min(1, A(y, x)) for 1,000 random pairs.

    y is where the kernel itself leads from x with noise xi, J(x, y) the normal density of xi up
    to the Jacobian of xi -> y, which is the same there and back (it is constant for the first
    two; the leapfrog keeps the volume of (x, xi)). Logarithms agree to 1e-11: of size some ten,
    from a dozen roundings each.
    """
    kernel, back = MAPS[name]
    stream = generator(0)
    x = torch.randn(1_000, 3, generator=stream, dtype=torch.float64)
    xi = torch.randn(1_000, 3, generator=stream, dtype=torch.float64)
    y, there = propose(kernel, x, xi)
    eta = back(x, y, xi)
    again, here = propose(kernel, y, eta)
    taken = (y != x).any(1) & (again != y).any(1)
    assert taken.double().mean() > 0.7
    torch.testing.assert_close(again[taken], x[taken], rtol=0, atol=1e-11)
    flow = -curved(x) - 0.5 * xi.square().sum(1) + there.log()
    flow_back = -curved(y) - 0.5 * eta.square().sum(1) + here.log()
    assert (flow - flow_back)[taken].abs().max() < 1e-11
    # Both sides of min(1, A) were met.
    assert (there[taken] < 0.99).any() and (there[taken] == 1).any()


class Fixed:
    """A proposal that draws what it is told to."""

    def __init__(self, law, points):
        self.law, self.points = law, points
        self.log_prob = law.log_prob

    def sample(self, n, generator):
        return self.points[torch.arange(n) % len(self.points)]


@pytest.mark.parametrize("name", ["independence", "isir"])
def test_detailed_balance_of_global_moves_to_rounding(name):
    """p(x) q(y) a(x, y) = p(y) q(x) a(y, x), a the probability of leaving x for the one y offered.

    With one proposal i-SIR leaves with w(y) / (w(x) + w(y)), Metropolis with min(1, w(y) / w(x)).
    Pairs with a below 1e-3 are left out: i-SIR reports 1 - the share of x, short of digits there.
    """
    law = laws.gaussian(3).energy
    x, y = (law.sample(1_000, generator(seed)) for seed in (0, 1))

    def probability(x, y):
        q = Fixed(law, y)
        kernel = independence(curved, q) if name == "independence" else isir(curved, q, 1)
        noise = kernel.draw(1, x, generator())
        state, probability = kernel.step(
            kernel.init(x, generator()), tuple(part[0] for part in noise), torch.tensor(0.0)
        )
        moved = (state.x != x).any(1)
        assert torch.equal(state.x[moved], y[moved])
        return probability

    there, back = probability(x, y), probability(y, x)
    flow = -curved(x) + law.log_prob(y) + there.log()
    flow_back = -curved(y) + law.log_prob(x) + back.log()
    likely = (there > 1e-3) & (back > 1e-3)
    assert likely.double().mean() > 0.8
    assert (flow - flow_back)[likely].abs().max() < 1e-12


def test_isir_chooses_in_proportion_to_the_weights():
    """With three fixed points the next one is x, y_1, y_2 or y_3 in the shares w / sum w.

    40,000 chains in one step from one x: chi-square of 3 degrees.
    """
    law = laws.gaussian(1).energy
    points = torch.tensor([[-1.0], [0.5], [2.0]], dtype=torch.float64)
    x = torch.full((40_000, 1), 0.1, dtype=torch.float64)

    def energy(x):
        return 0.5 * (x[:, 0] - 1).square()

    got = steps(isir(energy, Fixed(law, points), 3), x, 1, 0)
    places = torch.cat([x[:1], points])
    weight = (-energy(places) - law.log_prob(places)).softmax(0)
    counts = (got == places.T).sum(0)
    assert counts.sum() == len(x)
    assert stats.chisquare(counts.numpy(), (weight * len(x)).numpy()).pvalue > FLOOR


@pytest.mark.parametrize("n_leapfrog", [1, 4])
def test_leapfrog_keeps_volume_and_turns_round(n_leapfrog):
    """|det d(y, p') / d(x, p)| = 1 by autograd; from (y, -p') the map leads back to (x, -p).

    The kernel's own proposal is that map, to rounding, with masses that differ.
    """
    stream = generator(3)
    x, p = (torch.randn(6, 3, generator=stream, dtype=torch.float64) for _ in range(2))

    def flat(z):
        return torch.cat(leapfrog(z[:3], z[3:], 0.3, n_leapfrog, MASS))

    for z in torch.cat([x, p], 1):
        jacobian = torch.func.jacrev(flat)(z)
        assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-12)
    y, after = leapfrog(x, p, 0.3, n_leapfrog, MASS)
    again, turned = leapfrog(y, -after, 0.3, n_leapfrog, MASS)
    torch.testing.assert_close(again, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(turned, -p, rtol=0, atol=1e-12)
    kernel = hmc(curved, 0.3, n_leapfrog, mass=MASS)
    proposed, _ = propose(kernel, x, p / MASS**0.5)
    taken = (proposed != x).any(1)
    assert taken.sum() >= 3
    torch.testing.assert_close(proposed[taken], y[taken], rtol=0, atol=1e-12)


def test_isir_never_picks_a_point_without_weight():
    """Where the cumulated shares end below u by rounding, the last of the points would be taken.

    u is the largest number below one, the last point lies behind a wall, and some hundreds of
    4,000 sets of float32 shares add up to no more than u.
    """
    energy = energies.Box(torch.zeros(1))
    kernel = isir(energy, energies.Gaussian(torch.zeros(1), torch.eye(1)), 30)
    x = torch.rand(4_000, 1, generator=generator(1))
    proposed = torch.rand(4_000, 30, 1, generator=generator(2))
    proposed[:, -1] = 5.0
    log_q = 3 * torch.rand(4_000, 30, generator=generator(3))
    u = torch.full((4_000,), 1 - 2.0**-24)
    state = kernel.init(x, generator())
    share = torch.cat([state.log_weight[:, None], -log_q[:, :-1]], 1).softmax(1)
    short = (share @ torch.ones(30, 30).triu())[:, -1] <= u
    assert short.sum() > 100
    after, _ = kernel.step(state, (proposed, log_q, u), torch.tensor(0.0))
    assert after.energy.isfinite().all()
    assert torch.equal(after.x[short], x[short])


# The ladder of temperatures ---------------------------------------------------------------------


def test_each_replica_has_a_step_of_its_own():
    """Where nothing is rejected replica k moves by sqrt(h / beta_k) xi: 20,000 chains, to 3 %.

    All swaps of equal energies are made, in the first step those of neighbours (0, 1), (2, 3).
    """
    ladder, h = (1.0, 0.25, 0.04, 0.01), 0.5
    kernel = parallel_tempering(lambda x: 0 * x.sum(1), h, ladder)
    x = torch.zeros(20_000, 1, dtype=torch.float64)
    noise = tuple(part[0] for part in kernel.draw(1, x, generator()))
    state, _ = kernel.step(kernel.init(x, generator()), noise, torch.tensor(h, dtype=torch.float64))
    spread = state.xs.std(0)[[1, 0, 3, 2], 0]
    expected = (h / torch.tensor(ladder, dtype=torch.float64)).sqrt()
    torch.testing.assert_close(spread, expected, rtol=0.03, atol=0)


def test_neighbours_swap_in_turn():
    """With equal energies all do: what starts at the top walks down the ladder, one a step."""
    kernel = parallel_tempering(lambda x: 0 * x.sum(1), 1e-12, (1.0, 0.8, 0.6, 0.4, 0.2))
    x = torch.zeros(1, 1, dtype=torch.float64)
    state = kernel.init(x, generator())
    state = state._replace(xs=torch.arange(5.0, dtype=torch.float64).view(1, 5, 1))
    found = []
    for noise in zip(*kernel.draw(5, x, generator()), strict=True):
        state, _ = kernel.step(state, noise, torch.tensor(1e-24, dtype=torch.float64))
        found.append(state.xs[0, :, 0].round().int().tolist())
    assert found == [
        [1, 0, 3, 2, 4],
        [1, 3, 0, 4, 2],
        [3, 1, 4, 0, 2],
        [3, 4, 1, 2, 0],
        [4, 3, 2, 1, 0],
    ]


def test_what_the_hot_end_finds_comes_down_the_ladder():
    """From one mode all chains reach both, although only the hottest of three replicas crosses.

    The barrier is 50 / beta: exp(-12) of an attempt at the second level, against exp(-1). Half
    of 400 chains are in the other mode in the end, within four errors; without swaps between
    the second level and the third none would be.
    """
    means = torch.tensor([[-5.0], [5.0]], dtype=torch.float64)
    law = energies.GaussianMixture(means, torch.full((2,), 0.5, dtype=torch.float64))
    x0 = means[:1].expand(400, 1)
    cold = parallel_tempering(law, 0.3, (1.0, 0.3))
    chain = sample(cold, x0, 3_000, thin=30, generator=generator())
    assert (chain.samples < 0).all()
    kernel = parallel_tempering(law, 0.3, (1.0, 0.3, 0.04))
    chain = sample(kernel, x0, 3_000, thin=3_000, generator=generator())
    share = float((chain.samples[-1] > 0).double().mean())
    assert abs(share - 0.5) < 4 * 0.5 / 400**0.5


# Outside the support ------------------------------------------------------------------------------


# Of HMC's paths of half a turn and more all from far out end in the hole, and it says so.
@pytest.mark.filterwarnings("ignore:chain. .* never moved in 100 draws of hmc:RuntimeWarning")
@pytest.mark.parametrize("hole", [math.inf, math.nan, -math.inf])
@pytest.mark.parametrize("name", [*ADJUSTED, "ula", "kinetic"])
def test_no_draw_where_the_energy_is_not_finite(name, hole):
    """N(0, 1) with a hole at x > 0.5 whose energy is no finite number: no chain ever enters.

    What is left is the normal cut off there, a law known exactly; the adjusted kernels keep it.
    """
    law = laws.gaussian(1)

    def energy(x):
        return torch.where(x[:, 0] > 0.5, hole, 0.5 * x.square().sum(1))

    edge = stats.norm.cdf(0.5)
    u = torch.rand(6_000, 1, generator=generator(), dtype=torch.float64)
    x0 = torch.special.ndtri(edge * u)
    if name in ("ula", "kinetic"):
        kernel = ula(energy, 0.5) if name == "ula" else kinetic_langevin(energy, 0.5)
    else:
        kernel = ADJUSTED[name][0](law._replace(energy=energy), 1)
    # Tempered replicas start as copies here: 100 steps let them forget it.
    chain = sample(kernel, x0, 100, generator=generator(4))
    assert chain.energy.isfinite().all() and chain.acceptance_rate.isfinite().all()
    assert (chain.samples <= 0.5).all()
    if kernel.adjusted:
        below = torch.special.ndtr(chain.samples[-1]) / edge
        assert smallest(torch.special.ndtri(below)) > FLOOR


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("name", ["mala", "hmc", "parallel_tempering", "ex2mcmc", "ula", "kinetic"])
def test_no_draw_where_the_gradient_is_not_finite(name, bad):
    """A finite energy whose gradient is no number beyond x = 0.5: a step there is not taken."""

    class Energy:
        def __call__(self, x):
            return 0.5 * x.square().sum(1)

        def value_and_gradient(self, x):
            return self(x), torch.where(x > 0.5, bad, x)

    law = laws.gaussian(1)._replace(energy=Energy())
    if name in ("ula", "kinetic"):
        kernel = ula(law.energy, 0.5) if name == "ula" else kinetic_langevin(law.energy, 0.5)
    else:
        kernel = ADJUSTED[name][0](law, 1)
    x0 = -torch.rand(500, 1, generator=generator(), dtype=torch.float64)
    chain = sample(kernel, x0, 60, generator=generator(4))
    assert chain.samples.isfinite().all()
    if name != "ex2mcmc":  # its global moves ask for no gradient
        assert (chain.samples <= 0.5).all()
