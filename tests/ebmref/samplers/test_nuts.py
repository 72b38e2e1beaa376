"""The No-U-Turn sampler keeps every law that it should, and is the textbook's, step by step.

Three things carry this. A recursive NUTS of one chain, written out below as the papers have it,
takes the very points that the batched one takes from the same noise. Of the textbook's, the
probability of going from one point of an orbit to another can be written down, and the weights of
the orbit are stationary under it to rounding, without any chance. And thousands of independent
chains that start from exact draws still follow the law, in p-values of `laws`: each case raises a
false alarm for at most one seed in a million, so all do for less than one in 10,000 as long as they
are fewer than MOST. The last part breaks the sampler's own source, a line at a time: what is
broken falls below that floor by a factor of a million.
"""

import functools
import importlib
import inspect
import itertools
import math
import types

import laws
import pytest
import torch
from laws import FLOOR, LAWS, generator, one_thread, run, smallest  # noqa: F401
from scipy import special

from ebmref import energies
from ebmref.energies import value_and_gradient
from ebmref.samplers import hmc, nuts, sample

MODULE = importlib.import_module("ebmref.samplers.nuts")
MOST = 100
DOUBLE = {"dtype": torch.float64}


def half_line(d):
    """exp(-sum x_k), x_k > 0: a wall on one side, an exponential tail on the other."""

    def energy(x):
        return torch.where((x > 0).all(1), x.sum(1), math.inf)

    energy.sample = lambda n, g: torch.empty(n, d, **DOUBLE).exponential_(generator=g)
    return laws.Law(
        energy,
        lambda x: laws.from_tails(-(-x).expm1(), (-x).exp()),
        None,
        None,
        1.0,
        wall=True,
    )


def stretched(d):
    """Correlated by 0.9 between neighbours, sds from 0.1 to 10."""
    rank = torch.arange(d, **DOUBLE)
    sd = torch.logspace(-1, 1, d, **DOUBLE)
    covariance = sd * 0.9 ** (rank - rank[:, None]).abs() * sd[:, None]
    scale = float(torch.linalg.eigvalsh(covariance)[0]) ** 0.5
    return laws._gaussian(torch.linspace(-1, 1, d, **DOUBLE), covariance, scale)


# name -> (law of a dimension, step size over its scale)
CASES = {
    "gaussian": (laws.gaussian, 1.2),
    "correlated": (laws.correlated, 1.0),
    "stretched": (stretched, 1.0),
    "mixture": (laws.mixture, 1.0),
    "box": (laws.box, 0.4),
    "half_line": (half_line, 0.4),
    "heavy": (laws.heavy_tail, 1.3),
}


def case(name, d, max_depth=6, module=MODULE, **options):
    make, size = CASES[name]
    law = make(d)
    size *= law.scale * (1 if law.wall else d**-0.25)
    return law, module.nuts(law.energy, size, max_depth, **options)


# The textbook's, one chain at a time --------------------------------------------------------------


def orbit_point(energy, z, step):
    """One leapfrog step from z = (x, p), each `(d,)`; (x, p) and H."""
    x, p = z
    _, slope = value_and_gradient(energy, x[None])
    p = p - 0.5 * step * slope[0]
    x = x + step * p
    value, slope = value_and_gradient(energy, x[None])
    p = p - 0.5 * step * slope[0]
    return (x, p), float(value + 0.5 * p.square().sum())


def turned(leaves):
    """Whether a path of leaves ((x, p), H) in the order of their making, one way or the other."""
    rho = sum(p for (_, p), _ in leaves)
    return not (float(leaves[0][0][1] @ rho) > 0 and float(leaves[-1][0][1] @ rho) > 0)


def build(energy, z, step, depth, start):
    """2^depth leaves beyond z, and whether all is well: recursive, as in Hoffman & Gelman.

    Args:
        start: H of the present point.
    """
    if depth == 0:
        z, h = orbit_point(energy, z, step)
        return [(z, h)], h - start <= 1000
    leaves, fine = build(energy, z, step, depth - 1, start)
    if fine:
        more, fine = build(energy, leaves[-1][0], step, depth - 1, start)
        leaves = leaves + more
    return leaves, fine and not turned(leaves)


def textbook(energy, z, size, forward):
    """All additions to the path of z that were kept, and how many leaves were made.

    Args:
        forward: a bool for each doubling.

    Returns:
        [(k, H) ...] for each addition, k the place on the orbit, the start's own first; the
        leaves made, as (k, H), kept or not.
    """
    value = float(energy(z[0][None])) + 0.5 * float(z[1].square().sum())
    path, made = [(z, value)], []
    kept, low, high = [[(0, z, value)]], 0, 0
    for depth, ahead in enumerate(forward):
        end = path[-1][0] if ahead else path[0][0]
        leaves, fine = build(energy, end, size if ahead else -size, depth, value)
        places = [high + k if ahead else low - k for k in range(1, len(leaves) + 1)]
        named = [(k, *leaf) for k, leaf in zip(places, leaves, strict=True)]
        made += named
        if not fine:
            break
        kept.append(named)
        path = path + leaves if ahead else leaves[::-1] + path
        low, high = min(low, *places), max(high, *places)
        if turned(path):
            break
    return kept, made


def chosen(kept, choices, among):
    """The point that uniform numbers choose: one for each doubling, one for each leaf."""
    start = kept[0][0][2]
    choice, total = kept[0][0], 1.0
    for addition, v in zip(kept[1:], choices, strict=False):
        sum_new = 0.0
        for leaf, u in zip(addition, among, strict=False):
            weight = math.exp(start - leaf[2])
            sum_new += weight
            if 1 - u <= weight / sum_new:
                candidate = leaf
        if 1 - v <= sum_new / total:
            choice = candidate
        total += sum_new
    return choice


@pytest.mark.parametrize("max_depth", [1, 2, 5])
@pytest.mark.parametrize(("name", "d"), [("correlated", 3), ("box", 2), ("mixture", 1)])
def test_it_is_the_textbooks(name, d, max_depth):
    """Same noise, same points, acceptance, leaves and divergences; 60 chains, each by itself."""
    law, kernel = case(name, d, max_depth)
    x = law.draw(60, seed=3)
    state = kernel.init(x, generator())
    (xi,), (u,) = kernel.draw(1, x, generator(4))
    after, acceptance = kernel.step(state, (xi, u), torch.tensor(kernel.step_size, **DOUBLE))
    for i in range(60):
        ways, choices, among = u[:, i].split((max_depth, max_depth, 2 ** (max_depth - 1)))
        z = (x[i], xi[i])
        kept, made = textbook(law.energy, z, kernel.step_size, (ways < 0.5).tolist())
        _, (y, _), _ = chosen(kept, choices.tolist(), among.tolist())
        torch.testing.assert_close(after.x[i], y, rtol=0, atol=1e-10)
        start = kept[0][0][2]
        rates = [min(1.0, math.exp(min(0.0, start - h))) for *_, h in made]
        assert float(acceptance[i]) == pytest.approx(sum(rates) / len(rates), abs=1e-10)
        assert int(after.n_leapfrog[i]) == len(made)
        assert int(after.n_divergent[i]) == sum(h - start > 1000 for *_, h in made)
    torch.testing.assert_close(after.energy, law.energy(after.x))
    torch.testing.assert_close(after.gradient, value_and_gradient(law.energy, after.x)[1])


def passage(energy, z, size, max_depth):
    """Probability of every place k on the orbit of z, as the next point: {k: probability}."""
    found = {}
    for forward in itertools.product((True, False), repeat=max_depth):
        kept, _ = textbook(energy, z, size, forward)
        start = kept[0][0][2]
        law, total = {0: 1.0}, 1.0
        for addition in kept[1:]:
            weights = {k: math.exp(start - h) for k, _, h in addition}
            new = sum(weights.values())
            leap = min(1.0, new / total)
            law = {k: p * (1 - leap) for k, p in law.items()}
            law |= {k: leap * w / new for k, w in weights.items() if new > 0}
            total += new
        for k, p in law.items():
            found[k] = found.get(k, 0.0) + p / 2**max_depth
    return found


@pytest.mark.parametrize("name", ["gaussian", "correlated", "mixture", "box", "heavy"])
def test_the_weights_of_an_orbit_are_stationary(name):
    """sum_i exp(-H_i) P(i -> j) = exp(-H_j), to rounding, at every j that 7 points about it can
    reach: of paths of up to 8 points, that turn, diverge, or end by length. No chance but in x, p.
    """
    law, kernel = case(name, 2)
    size, reach, ended = 1.5 * kernel.step_size, 7, set()
    for seed in range(8):
        xs = law.draw(1, seed)
        z = (xs[0], torch.randn(2, generator=generator(50 + seed), **DOUBLE))
        orbit, energy = [z], [float(law.energy(xs)) + 0.5 * float(z[1].square().sum())]
        for way in (size, -size):
            for _ in range(reach):
                z, h = orbit_point(law.energy, orbit[-1 if way > 0 else 0], way)
                at = len(orbit) if way > 0 else 0
                orbit.insert(at, z)
                energy.insert(at, h)
        into = 0.0
        for i, (z, h) in enumerate(zip(orbit, energy, strict=True)):
            if math.isfinite(h):
                found = passage(law.energy, z, size, 3)
                assert sum(found.values()) == pytest.approx(1)
                into += math.exp(energy[reach] - h) * found.get(reach - i, 0.0)
                ended.add(len(found))
        assert into == pytest.approx(1, rel=1e-9)
    assert len(ended) > 1  # paths of more than one length


# Laws -------------------------------------------------------------------------------------------

INVARIANT = [
    (name, d, n_steps)
    for name, dims in {
        "gaussian": (1, 3, 10, 100),
        "correlated": (3, 10),
        "stretched": (4,),
        "mixture": (1, 10),
        "box": (1, 3, 10),
        "half_line": (1, 3),
        "heavy": (1, 3),
    }.items()
    for d in dims
    for n_steps in (1, 10)
]
N = {1: 20_000, 3: 10_000, 4: 10_000, 10: 6_000, 100: 1_500}


@pytest.mark.parametrize(("name", "d", "n_steps"), INVARIANT)
def test_invariance(name, d, n_steps):
    """Exact draws are still exact draws after one step, and after ten."""
    law, kernel = case(name, d)
    x0 = law.draw(N[d], seed=0)
    chain = run(kernel, x0, n_steps, 0)
    x = chain.samples[0]
    assert x.shape == x0.shape and x.dtype == x0.dtype
    torch.testing.assert_close(chain.energy[0], law.energy(x))
    assert (x != x0).any(1).double().mean() > 0.5
    assert smallest(law.scores(x)) > FLOOR


def drift_p_value(before, after):
    """p-value of "the mean has not moved", of pairs `(n, k)`, Bonferroni over the k."""
    move = (after - before).double()
    z = move.mean(0) / (move.std(0) / len(move) ** 0.5)
    return min(1.0, len(z) * 2 * float(special.ndtr(-float(z.abs().max()))))


MOMENTS = [("correlated", 3), ("stretched", 4), ("box", 3), ("half_line", 3), ("mixture", 1)]


@pytest.mark.parametrize(("name", "d"), MOMENTS)
def test_one_step_moves_no_mean(name, d):
    """Of x, x^2 and the energy: each chain against where it started, 20,000 of them."""
    law, kernel = case(name, d)
    x0 = law.draw(20_000, seed=7)
    x = run(kernel, x0, 1, 7).samples[0]
    before, after = (torch.cat([y, y.square(), law.energy(y)[:, None]], 1) for y in (x0, x))
    assert drift_p_value(before, after) > FLOOR


ARRIVALS = [("gaussian", 10, 15), ("stretched", 4, 20), ("box", 3, 40), ("half_line", 3, 60)]


@pytest.mark.parametrize(("name", "d", "n_steps"), ARRIVALS)
def test_convergence(name, d, n_steps):
    """From one point every one of 2,000 chains arrives at the law.

    Where the law is narrow in one direction only a step is short until that one is at rest: few
    steps are left then for the wide ones, which a start too far out would spend.
    """
    law, kernel = case(name, d, max_depth=9)
    x0 = torch.full((2_000, d), {"gaussian": 3.0}.get(name, 0.9), **DOUBLE)
    assert smallest(law.scores(run(kernel, x0, n_steps, 1).samples[0])) > FLOOR


@pytest.mark.parametrize("event", [(), (3, 4)])
def test_events_of_any_shape(event):
    """Scalars and matrices with a mass of their shape, gradients by autograd."""
    d = math.prod(event)
    mass = torch.logspace(-2, 2, d, 2, **DOUBLE).view(event)
    x0 = torch.randn(6_000, *event, generator=generator(), **DOUBLE)

    def energy(x):
        return 0.5 * x.reshape(len(x), -1).square().sum(1)

    chain = run(nuts(energy, 0.4, mass=mass), x0, 4, 2)
    assert chain.samples.shape == (1, 6_000, *event)
    assert smallest(chain.samples[0].reshape(-1, d)) > FLOOR


def test_single_precision():
    law = laws.gaussian(10, dtype=torch.float32)
    chain = run(nuts(law.energy, 0.7), law.draw(8_000, seed=0), 8, 3)
    assert chain.samples.dtype == chain.energy.dtype == torch.float32
    assert smallest(law.scores(chain.samples[0])) > FLOOR


def test_the_false_alarm_rate_is_kept():
    assert len(INVARIANT) + len(MOMENTS) + len(ARRIVALS) + 2 + 1 + len(MUTANTS) < MOST


# What a step is and costs ------------------------------------------------------------------------


@pytest.mark.parametrize("mass", [4.0, torch.tensor([0.25, 1.0, 9.0], **DOUBLE)])
def test_a_mass_is_a_change_of_variables(mass):
    """On E(x) with the mass m the path is that of E(y / sqrt m), y = sqrt(m) x, with mass one."""
    law = laws.correlated(3)
    root = torch.as_tensor(mass, **DOUBLE).sqrt()
    x0 = law.draw(50, seed=5)
    one = run(nuts(law.energy, 0.4, 5, mass=mass), x0, 5, 0).samples
    two = run(nuts(lambda y: law.energy(y / root), 0.4, 5), x0 * root, 5, 0).samples
    torch.testing.assert_close(one * root, two, rtol=0, atol=1e-9)


def test_same_seed_same_chain():
    law, kernel = case("mixture", 2)
    x0 = law.draw(30, seed=0)
    before = x0.clone()
    one, two, other = (run(kernel, x0, 20, seed) for seed in (0, 0, 1))
    assert torch.equal(one.samples, two.samples) and torch.equal(x0, before)
    assert not torch.equal(one.samples, other.samples)


@pytest.mark.parametrize("name", ["heavy", "box"])
def test_a_chain_alone_is_the_same(name):
    """A batch of one makes the path it makes among others, given its part of the noise."""
    law, kernel = case(name, 3)
    x = law.draw(25, seed=0)
    size = torch.tensor(kernel.step_size, **DOUBLE)
    (xi,), (u,) = kernel.draw(1, x, generator(1))
    whole, rate = kernel.step(kernel.init(x, generator()), (xi, u), size)
    for i in range(25):
        k = slice(i, i + 1)
        alone, own = kernel.step(kernel.init(x[k], generator()), (xi[k], u[:, k]), size)
        torch.testing.assert_close(alone.x, whole.x[k], rtol=0, atol=1e-10)
        torch.testing.assert_close(own, rate[k])
        assert alone.n_leapfrog == whole.n_leapfrog[i] == alone.n_gradients
        assert alone.n_divergent == whole.n_divergent[i]


class Counting:
    """N(0, I) that counts its gradients, and holds on to no point that is not finite."""

    def __init__(self):
        self.gradients = 0

    def __call__(self, x):
        return 0.5 * x.square().sum(1)

    def value_and_gradient(self, x):
        assert x.isfinite().all()
        self.gradients += len(x)
        return self(x), x


def test_what_is_spent_is_counted():
    """Gradients of all chains, warm-up included; a chain's own leaves, after the warm-up."""
    energy, x0 = Counting(), torch.randn(40, 3, generator=generator(), **DOUBLE)
    sample(nuts(energy, 0.3), x0, 1, generator=generator())  # the start's own few are in both
    first, energy.gradients = energy.gradients, 0
    one = sample(nuts(energy, 0.3), x0, 1, generator=generator())
    at_start = first - 40 * one.n_gradients
    energy.gradients = 0
    chain = sample(nuts(energy, 0.3), x0, 30, warmup=10, thin=3, generator=generator())
    assert energy.gradients == at_start + 40 * chain.n_gradients
    leaves, calls = chain.counts["n_leapfrog"], chain.counts["n_gradients"]
    assert int(leaves.min()) > 30 and (leaves < calls).any() and (leaves <= calls).all()
    assert int(calls[0]) < chain.n_gradients and int(chain.counts["n_divergent"].sum()) == 0


def test_kernels_of_one_length_count_nothing():
    law = laws.gaussian(2)
    chain = run(hmc(law.energy, 0.5, 3), law.draw(5, seed=0), 4, 0)
    assert chain.counts == {} and chain.n_gradients == 12


@pytest.mark.parametrize("max_depth", [1, 4, 10])
def test_a_path_ends_by_its_length(max_depth):
    """Where nothing turns: 2^max_depth - 1 leaves, all of them accepted."""
    law = laws.gaussian(2)
    chain = run(nuts(law.energy, 1e-5, max_depth), law.draw(4, seed=0), 1, 0)
    assert chain.n_gradients == 2**max_depth - 1
    assert chain.counts["n_leapfrog"].tolist() == 4 * [2**max_depth - 1]
    assert float(chain.acceptance_rate.min()) > 0.999


@pytest.mark.parametrize("beyond", [math.inf, math.nan, 5_000.0])
def test_divergences_are_counted(beyond):
    """A wall, a NaN or a cliff ends a path, counts, and is no place to be."""

    def energy(x):
        r = 0.5 * x.square().sum(1)
        return torch.where(r < 1, r, r + beyond)

    chain = sample(
        nuts(energy, 0.5), torch.zeros(50, 2, **DOUBLE), 100, thin=100, generator=generator()
    )
    assert int(chain.counts["n_divergent"].min()) > 0
    assert float(chain.energy.max()) < 1 and float(chain.acceptance_rate.max()) < 1


def test_a_far_start_falls():
    """From an energy of some 10^4, of which a path gives thousands away; all move, none diverge."""
    law, kernel = case("stretched", 4, max_depth=9)
    x0 = torch.full((100, 4), 8.0, **DOUBLE)
    assert float(law.energy(x0)[0]) > 1e4
    chain = run(kernel, x0, 20, 0)
    assert float(chain.energy.max()) < 1000 and int(chain.counts["n_divergent"].sum()) == 0


@pytest.mark.parametrize("target", [0.65, 0.9])
@pytest.mark.parametrize("first", [0.01, 10.0])
def test_adaptation_reaches_its_target(first, target):
    """From steps a hundred times off, either way, to 0.05 of the target, mean over 100 chains."""
    law = laws.correlated(10)
    chain = sample(
        nuts(law.energy, first, 6),
        law.draw(100, seed=0),
        30,
        warmup=150,
        generator=generator(),
        target_acceptance=target,
    )
    assert float(chain.acceptance_rate.mean()) == pytest.approx(target, abs=0.05)


def test_compiling_is_refused_in_one_line():
    law, kernel = case("gaussian", 2)
    x0 = law.draw(20, seed=0)
    with pytest.warns(RuntimeWarning, match="compile: goes on without, as the steps of nuts"):
        one = sample(kernel, x0, 5, generator=generator(), compile=True)
    two = sample(kernel, x0, 5, generator=generator())
    assert torch.equal(one.samples, two.samples) and one.compile_seconds == 0


TARGET = energies.Gaussian(torch.zeros(2, **DOUBLE), torch.eye(2, **DOUBLE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_depth": 0}, "max_depth: expected an integer >= 1; got 0"),
        ({"max_depth": 2.0}, "max_depth: expected an integer"),
        ({"max_depth": True}, "max_depth: expected an integer"),
        ({"max_depth": 11}, "max_depth: expected an integer <= 10; got 11"),
        ({"step_size": 0.0}, "step_size: expected a number > 0"),
        ({"step_size": math.nan}, "step_size: expected a number > 0"),
        ({"mass": -1.0}, "mass: expected > 0"),
        ({"mass": math.inf}, "mass: expected > 0"),
    ],
)
def test_a_bad_kernel_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        nuts(TARGET, **{"step_size": 0.1} | arguments)


def test_a_mass_of_another_shape_is_named():
    with pytest.raises(ValueError, match="mass: expected a number, or a tensor that broadcasts"):
        run(nuts(TARGET, 0.1, mass=torch.ones(3)), torch.zeros(2, 2, **DOUBLE), 1, 0)


# Mutants ----------------------------------------------------------------------------------------

# flaw -> (law, dimension, what stands in the source, what is put there)
MUTANTS = {
    "uniform choice in the place of weights": (
        "gaussian",
        3,
        "log_weight = self.start - energy\n",
        "log_weight = 0 * self.start\n",
    ),
    "additions chosen always": (
        "gaussian",
        3,
        "choices[depth] <= tree.log_weight - log_weight",
        "choices[depth] <= 0",
    ),
    "sub-trees not checked": ("correlated", 3, "in _ending(leaf):", "in ():"),
    "the whole path not checked": (
        "correlated",
        3,
        "going = going & ~_turns(first.momentum, last.momentum, momenta)",
        "pass",
    ),
    "only the later end checked": (
        "gaussian",
        1,
        "((opening * momenta).sum(1) > 0) & ",
        "",
    ),
    "forward nine times in ten": ("box", 1, "directions[depth] < 0.5", "directions[depth] < 0.9"),
    "an addition that turned or diverged is kept": (
        "box",
        3,
        "going = tree.whole\n        taken = going &",
        "was, going = going, tree.whole\n        taken = was &",
    ),
    "a sub-tree's first momentum left out of its sum": (
        "correlated",
        3,
        "before, momenta = momenta, momenta + momentum",
        "before = momenta = momenta + momentum",
    ),
    "the path's sum not carried on": ("correlated", 3, "momenta = momenta + tree.momenta", "pass"),
    "the ends swapped": (
        "gaussian",
        10,
        "forward, last, first)\n",
        "forward, first, last)\n",
    ),
    "one number for all leaves": ("mixture", 1, "among[leaf]", "among[0]"),
    "energy without momentum at the start": (
        "gaussian",
        3,
        "_Tally(_hamiltonian(state.energy, momentum))",
        "_Tally(state.energy)",
    ),
    "gradient of the start kept": (
        "gaussian",
        3,
        "choice.gradient.view_as(state.x)",
        "state.gradient",
    ),
    "last half kick left out": (
        "mixture",
        1,
        "torch.addcmul(half, step, gradient, value=-0.5)",
        "half",
    ),
}


def broken(old, new):
    """The module with one piece of its source replaced, wherever it stands."""
    source = inspect.getsource(MODULE)
    assert source.count(old) == 1, f"{source.count(old)} times in the source: {old}"
    module = types.ModuleType("broken")
    exec(compile(source.replace(old, new), "broken", "exec"), module.__dict__)
    return module


# Those that so many more chains are needed to see.
FAINT = {"only the later end checked", "the ends swapped", "last half kick left out"}


@functools.cache
def law_after(module, name, d, n=8_000):
    """p-value of the law after ten steps from exact draws."""
    law, kernel = case(name, d, module=module)
    x0 = law.draw(n, seed=0)
    return smallest(law.scores(run(kernel, x0, 10, 0).samples[0]))


@pytest.mark.parametrize("flaw", MUTANTS)
def test_what_is_broken_is_found(flaw):
    """The law of `test_invariance` is lost, where the right one keeps it with the same numbers."""
    name, d, old, new = MUTANTS[flaw]
    n = 20_000 if flaw in FAINT else 8_000
    assert law_after(MODULE, name, d, n) > FLOOR
    assert law_after(broken(old, new), name, d, n) < 1e-6 * FLOOR


def test_dropping_what_makes_the_path_turn_is_no_flaw():
    """The papers keep an addition after which the whole path turns; to drop it would be as right,
    so that no test of the law could tell, and the textbook's does."""
    dropped = broken(
        "going = tree.whole\n",
        "going = tree.whole & ~_turns(_where(forward, first, tree.end).momentum, "
        "_where(forward, tree.end, last).momentum, momenta + tree.momenta)\n",
    )
    assert law_after(dropped, "correlated", 3) > FLOOR
