"""The peers' half of the sampler benchmark: blackjax, torchebm and TFP on the same cells.

A cell is an algorithm on a target with so many chains. Each `*_cell` function prepares one,
compiler included, and gives an `advance()` that runs `n_steps` steps of every chain from where
the last call left them and returns the chains' last positions. Steps are in ebmref's units
and are put into each peer's own here:

    ULA, MALA     x' = x - h/2 grad E(x) + sqrt(h) xi         step_size = h
    random walk   x' = x + s xi                               step_size = s
    HMC           LEAPFROGS leapfrog steps, unit mass         step_size = that of one leapfrog

Every peer gets the log density as its users write it and takes gradients by its own autodiff.

    python bench/peers.py --check    has every peer the right energies and laws?

Needs the extra `peers`.
"""

import argparse
import functools
import importlib.metadata
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ALGORITHMS = ("ula", "mala", "hmc", "random_walk")
LEAPFROGS = 10
PRNGS = ("threefry2x32", "rbg")  # JAX's generators; which is faster depends on the cell
WIDTHS = {"mlp": 128, "mlp-32": 32, "mlp-512": 512}  # of the networks' hidden layers
STEP_SIZES = {
    "mixture": {"ula": 0.2, "mala": 0.2, "hmc": 0.2, "random_walk": 0.8},
    "gaussian": {"ula": 0.2, "mala": 0.2, "hmc": 0.2, "random_walk": 0.15},
    **{name: {"ula": 0.1, "mala": 0.1, "hmc": 0.2, "random_walk": 0.3} for name in WIDTHS},
}


class Target(NamedTuple):
    """A law as plain arrays, float32, from which each library builds its own energy.

    Attributes:
        name: "mixture", "gaussian" or one of `WIDTHS`.
        dim: length of x.
        parameters: of the mixture, means `(k, d)`, scales `(k,)` and weights `(k,)`; of the
            Gaussian, mean `(d,)` and covariance `(d, d)`; of the MLP, weight_i
            `(n_in, n_out)` and bias_i `(n_out,)`, i = 1, 2, 3: with
            h = tanh(tanh(x W_1 + b_1) W_2 + b_2), E(x) = h W_3 + b_3 + |x|^2 / 2.
    """

    name: str
    dim: int
    parameters: dict[str, np.ndarray]


class Cell(NamedTuple):
    """A prepared cell.

    Attributes:
        advance: makes n_steps steps of all chains; returns their positions `(n_chains, dim)`.
        compile_seconds: of the compiler, or of the first call where nothing is compiled.
        note: what was chosen, or what it took.
    """

    advance: Callable[[], np.ndarray]
    compile_seconds: float
    note: str


def targets(seed: int = 0) -> dict[str, Target]:
    """The benchmark's laws by name; only the networks' weights depend on the seed."""
    corners = 1.5 * np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    mixture = {"means": corners, "scales": [0.6, 0.7, 0.8, 0.9], "weights": [0.1, 0.2, 0.3, 0.4]}

    return {
        "mixture": _target("mixture", 2, mixture),
        "gaussian": gaussian(100),
        **{name: _mlp(name, width, seed) for name, width in WIDTHS.items()},
    }


def _mlp(name: str, width: int, seed: int) -> Target:
    rng = np.random.default_rng(seed)
    values = {}
    for i, (n_in, n_out) in enumerate([(16, width), (width, width), (width, 1)], 1):
        values[f"weight_{i}"] = 2 * rng.standard_normal((n_in, n_out)) / n_in**0.5
        values[f"bias_{i}"] = 0.1 * rng.standard_normal(n_out)
    return _target(name, 16, values)


def gaussian(dim: int) -> Target:
    """A correlated Gaussian; the eigenvalues of its covariance lie between 1/3 and 3."""
    index = np.arange(dim)
    covariance = 0.5 ** np.abs(index[:, None] - index)
    return _target("gaussian", dim, {"mean": np.linspace(-1, 1, dim), "covariance": covariance})


def _target(name: str, dim: int, values: dict) -> Target:
    return Target(name, dim, {key: np.asarray(v, np.float32) for key, v in values.items()})


def start(target: Target, n_chains: int, seed: int = 0) -> np.ndarray:
    """The same starting positions for every library: `(n_chains, dim)`, standard normal."""
    rng = np.random.default_rng([seed, n_chains, target.dim])
    return rng.standard_normal((n_chains, target.dim), np.float32)


def missing(peer: str, algorithm: str) -> str:
    """Why the peer has no cell for the algorithm; empty where it has one."""
    if peer == "torchebm" and algorithm in ("mala", "random_walk"):
        return f"torchebm {importlib.metadata.version(peer)} has no {algorithm}"
    if peer == "tfp":
        return _tfp()[1]
    return ""


def _precision(target: Target) -> np.ndarray:
    inverse = np.linalg.inv(target.parameters["covariance"].astype(np.float64))
    return ((inverse + inverse.T) / 2).astype(np.float32)


def _log_mass(target: Target) -> np.ndarray:
    """Of each component of the mixture, at its mean."""
    scales, weights = target.parameters["scales"], target.parameters["weights"]
    return np.log(weights) - target.dim * np.log(scales * np.sqrt(2 * np.pi, dtype=np.float32))


# blackjax


def log_density(target: Target) -> Callable:
    """log p(x) of x `(..., dim)` up to a constant, in jax.numpy."""
    import jax
    import jax.numpy as jnp

    p = {key: jnp.asarray(value) for key, value in target.parameters.items()}
    if target.name == "mixture":
        log_mass, rate = jnp.asarray(_log_mass(target)), p["scales"] ** -2

        def log_p(x):
            squares = jnp.square(x[..., None, :] - p["means"]).sum(-1)
            return jax.nn.logsumexp(log_mass - 0.5 * rate * squares, -1)

    elif target.name == "gaussian":
        precision = jnp.asarray(_precision(target))

        def log_p(x):
            centred = x - p["mean"]
            return -0.5 * (centred * (centred @ precision)).sum(-1)

    else:

        def log_p(x):
            hidden = jnp.tanh(x @ p["weight_1"] + p["bias_1"])
            hidden = jnp.tanh(hidden @ p["weight_2"] + p["bias_2"])
            energy = (hidden @ p["weight_3"] + p["bias_3"])[..., 0]
            return -energy - 0.5 * jnp.square(x).sum(-1)

    return log_p


def blackjax_cell(
    algorithm: str,
    target: Target,
    n_chains: int,
    n_steps: int,
    step_size: float,
    prng: str = "threefry2x32",
    vmap: bool = False,
) -> Cell:
    """blackjax with the whole run one jitted scan over its kernels.

    With `vmap`, as its documentation runs many chains: the kernel of one chain under vmap, a
    key a chain and step. Without, as fast as we know how (2 cores, jax 0.10.2): ULA takes all
    chains as one position, with one key a step, which saves the splitting (the other kernels
    accept or reject a position whole, so they need vmap), and one chain alone goes without
    vmap (1.3 times as fast).

    Either way the keys are split ahead of the scan, or carried and split inside it: either is
    up to three times as fast as the other, and it is hard to say where. Both are compiled and
    timed, and the faster is kept. Tried and left: vmap over scans, a key carried a chain
    (slower by 1.3 to 3), unroll in the scan and a donated state (no gain).

    The keys split ahead take n_steps * n_chains * 8 bytes (16 with rbg).
    """
    import jax
    import jax.numpy as jnp

    positions = start(target, n_chains)
    init, step = _blackjax_kernel(algorithm, target, step_size)
    batched = vmap or (algorithm != "ula" and n_chains > 1)
    if batched:
        init, step = jax.vmap(init), jax.vmap(step)
    elif algorithm != "ula":
        positions = positions[0]
    shape = (n_chains,) if batched else ()
    state = jax.jit(init)(jnp.asarray(positions))
    key = jax.random.key(0, impl=prng)

    def ahead(key, state):
        key, use = jax.random.split(key)
        keys = jax.random.split(use, (n_steps, *shape))
        return key, jax.lax.scan(lambda state, k: (step(k, state), None), state, keys)[0]

    def carried(key, state):
        def body(carry, _):
            key, state = carry
            key, use = jax.random.split(key)
            return (key, step(jax.random.split(use, shape) if shape else use, state)), None

        return jax.lax.scan(body, (key, state), None, length=n_steps)[0]

    tried = []
    for run, note in [(ahead, "keys split ahead"), (carried, "keys carried")]:
        began = time.perf_counter()
        compiled = jax.jit(run).lower(key, state).compile()
        cell = Cell(
            _jax_advance(compiled, key, state, lambda s: getattr(s, "position", s), target.dim),
            time.perf_counter() - began,
            f"{prng}, {note}",
        )
        tried.append((rate(cell, n_chains * n_steps, rounds=1), cell))
    return max(tried, key=lambda pair: pair[0])[1]


def _blackjax_kernel(algorithm: str, target: Target, step_size: float) -> tuple:
    """`(init, step(key, state) -> state)` in blackjax's units: its Langevin step is h / 2."""
    import blackjax
    import jax
    import jax.numpy as jnp

    log_p = log_density(target)
    if algorithm == "ula":
        gradient = jax.grad(lambda x: log_p(x).sum())
        kernel = blackjax.sgld(lambda x, _: gradient(x))  # with all the data: no minibatch
        return kernel.init, lambda key, x: kernel.step(key, x, None, step_size / 2)
    if algorithm == "mala":
        kernel = blackjax.mala(log_p, step_size / 2)
    elif algorithm == "hmc":
        kernel = blackjax.hmc(log_p, step_size, jnp.ones(target.dim), LEAPFROGS)
    else:
        proposal = blackjax.mcmc.random_walk.normal(jnp.float32(step_size))
        kernel = blackjax.additive_step_random_walk(log_p, proposal)
    return kernel.init, lambda key, state: kernel.step(key, state)[0]


def _jax_advance(compiled: Callable, key, state, position: Callable, dim: int) -> Callable:
    import jax

    def advance() -> np.ndarray:
        nonlocal key, state
        key, state = jax.block_until_ready(compiled(key, state))
        return np.asarray(position(state)).reshape(-1, dim)

    return advance


# TensorFlow Probability on JAX


@functools.cache
def _tfp():
    """The module, or None, and why it is missing or what it took."""
    import jax
    from jax.interpreters import xla

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not hasattr(xla, "pytype_aval_mappings"):
                # jax 0.7 took this alias away and TFP 0.25 still asks for it (TFP issue 2009).
                xla.pytype_aval_mappings = jax.core.pytype_aval_mappings
            import tensorflow_probability.substrates.jax as tfp

            _ = tfp.mcmc.sample_chain  # loads what is loaded lazily
    except (ImportError, AttributeError) as error:
        return None, f"tfp does not load with jax {jax.__version__}: {error}"
    return tfp, ""


def tfp_cell(
    algorithm: str,
    target: Target,
    n_chains: int,
    n_steps: int,
    step_size: float,
    prng: str = "threefry2x32",
) -> Cell | None:
    """TFP's kernels, which take a batch of chains whole, in its `sample_chain` under jit.

    TFP's Langevin step is h. None where TFP does not load; `missing` says why.
    """
    tfp = _tfp()[0]
    if tfp is None:
        return None
    import jax
    import jax.numpy as jnp

    mcmc, log_p = tfp.mcmc, log_density(target)
    if algorithm == "ula":
        kernel = mcmc.UncalibratedLangevin(log_p, step_size, compute_acceptance=False)
    elif algorithm == "mala":
        kernel = mcmc.MetropolisAdjustedLangevinAlgorithm(log_p, step_size)
    elif algorithm == "hmc":
        kernel = mcmc.HamiltonianMonteCarlo(log_p, step_size, LEAPFROGS)
    else:
        proposal = mcmc.random_walk_normal_fn(scale=step_size)
        kernel = mcmc.RandomWalkMetropolis(log_p, new_state_fn=proposal)

    def run(key, x):
        key, use = jax.random.split(key)
        last = mcmc.sample_chain(
            num_results=1,
            num_burnin_steps=n_steps - 1,
            current_state=x,
            kernel=kernel,
            trace_fn=None,
            seed=use,
        )
        return key, last[0]

    key, x = jax.random.key(0, impl=prng), jnp.asarray(start(target, n_chains))
    began = time.perf_counter()
    compiled = jax.jit(run).lower(key, x).compile()
    seconds = time.perf_counter() - began
    return Cell(_jax_advance(compiled, key, x, lambda x: x, target.dim), seconds, prng)


# torchebm


def torch_energy(target: Target, device="cpu") -> Callable:
    """The energy of x `(n, dim)` in torch, as its users would write it."""
    import torch

    p = {key: torch.from_numpy(value).to(device) for key, value in target.parameters.items()}
    if target.name == "mixture":
        log_mass, rate = torch.from_numpy(_log_mass(target)).to(device), p["scales"] ** -2

        def energy(x):
            squares = (x[:, None] - p["means"]).square().sum(-1)
            return -(log_mass - 0.5 * rate * squares).logsumexp(1)

    elif target.name == "gaussian":
        precision = torch.from_numpy(_precision(target)).to(device)

        def energy(x):
            centred = x - p["mean"]
            return 0.5 * (centred * (centred @ precision)).sum(1)

    else:

        def energy(x):
            hidden = torch.addmm(p["bias_1"], x, p["weight_1"]).tanh()
            hidden = torch.addmm(p["bias_2"], hidden, p["weight_2"]).tanh()
            value = torch.addmm(p["bias_3"], hidden, p["weight_3"])[:, 0]
            return value + 0.5 * x.square().sum(1)

    return energy


def torchebm_model(target: Target):
    """The target as a `torchebm.core.BaseModel`, whose `gradient` is torchebm's autograd."""
    from torchebm.core import BaseModel

    energy = torch_energy(target)

    class Model(BaseModel):
        def forward(self, x):
            return energy(x)

    return Model()


def torchebm_cell(
    algorithm: str, target: Target, n_chains: int, n_steps: int, step_size: float
) -> Cell | None:
    """torchebm's `sample`, the way its documentation runs it; it offers nothing to compile.

    Its Langevin step is h / 2. None for MALA and the random walk, which it does not have.
    """
    if missing("torchebm", algorithm):
        return None
    import torch
    from torchebm.samplers import HamiltonianMonteCarlo, LangevinDynamics

    model = torchebm_model(target)
    if algorithm == "ula":
        sampler = LangevinDynamics(model, step_size=step_size / 2)
    else:
        sampler = HamiltonianMonteCarlo(model, step_size=step_size, n_leapfrog_steps=LEAPFROGS)
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(start(target, n_chains))

    def advance() -> np.ndarray:
        nonlocal x
        x = sampler.sample(x=x, n_steps=n_steps, generator=generator)
        return x.numpy()

    began = time.perf_counter()
    advance()
    return Cell(advance, time.perf_counter() - began, "eager")


CELLS = {"blackjax": blackjax_cell, "torchebm": torchebm_cell, "tfp": tfp_cell}


def rate(cell: Cell, chain_steps: int, rounds: int = 5) -> float:
    """Chain-steps a second: the median of some calls of advance after one that is not timed."""
    cell.advance()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        cell.advance()
        seconds.append(time.perf_counter() - began)
    return chain_steps / statistics.median(seconds)


# The check


def spread(target: Target, x: np.ndarray) -> np.ndarray:
    """`(n,)`, a number a chain whose mean tells a law's width: that of the Gaussian is 1.

    The squared distance from the law's mean over the dimension; for the Gaussian in units of
    its covariance, so that no direction is drowned by the wide ones.
    """
    p, x = target.parameters, x.astype(np.float64)
    if target.name == "gaussian":
        centred = x - p["mean"]
        return np.einsum("ni,ij,nj->n", centred, _precision(target), centred) / target.dim
    return np.square(x - p["weights"] @ p["means"]).sum(1) / target.dim


def expected_spread(target: Target, algorithm: str, step_size: float) -> float:
    """The mean of `spread` under the law that the algorithm samples at that step.

    The target itself, but for ULA: on the Gaussian its variance along an eigenvector of
    eigenvalue v is v / (1 - h / (4 v)); on the mixture we run it, in NumPy.
    """
    p = target.parameters
    if target.name == "gaussian":
        if algorithm != "ula":
            return 1.0
        eigenvalues = np.linalg.eigvalsh(p["covariance"].astype(np.float64))
        return float((1 / (1 - step_size / (4 * eigenvalues))).mean())
    if algorithm == "ula":
        return float(np.mean([spread(target, x).mean() for x in _euler(target, step_size)]))
    offset = np.square(p["means"] - p["weights"] @ p["means"]).sum(1) / target.dim
    return float(p["weights"] @ (p["scales"] ** 2 + offset))


def _euler(target: Target, step_size: float):
    """ULA on the mixture, 20,000 chains: their positions at ten times after the burn-in."""
    means, scales, _ = target.parameters.values()
    rng = np.random.default_rng(1)
    x = start(target, 20_000, seed=1)
    for i in range(500):
        offset = x[:, None] - means
        share = np.exp(_log_mass(target) - 0.5 * np.square(offset).sum(-1) / scales**2)
        share /= share.sum(1, keepdims=True)
        gradient = ((share / scales**2)[..., None] * offset).sum(1)
        noise = rng.standard_normal(x.shape, np.float32)
        x = x - step_size / 2 * gradient + step_size**0.5 * noise
        if i >= 300 and i % 20 == 0:
            yield x


def check_energies() -> bool:
    """Whether torch and JAX hold the same energies, to float32."""
    import torch

    fine = True
    for target in targets().values():
        x = start(target, 64, seed=2)
        ours = torch_energy(target)(torch.from_numpy(x)).numpy()
        theirs = -np.asarray(log_density(target)(x))
        same = np.allclose(ours, theirs, rtol=1e-5, atol=1e-4)
        print(f"{target.name:9} same energy in torch and jax: {same}")
        fine &= same
    return fine


def check_law(peer: str, algorithm: str, target: Target) -> bool:
    """Whether 2,000 chains have the width that the algorithm should give them.

    To within 4 standard errors, chains being independent; and ULA's widening, which is what
    tells one convention of the step from another, to within 15 % of itself where the chains
    are enough to tell, as they are on the Gaussian.
    """
    if missing(peer, algorithm):
        print(f"{peer:9} {algorithm:12} {target.name:9} -  {missing(peer, algorithm)}")
        return True
    slow = target.name == "gaussian" and algorithm == "random_walk"
    n_chains, n_steps, n_burn, n_draws = 2000, 200 if slow else 40, 20 if slow else 10, 10
    step_size = STEP_SIZES[target.name][algorithm]
    if algorithm == "hmc":
        # At 0.2 ten leapfrogs turn some directions of the Gaussian by half a circle: x goes to
        # -x, and its square stays for ever what it was at the start. Not so at 0.17.
        step_size = 0.17
    cell = CELLS[peer](algorithm, target, n_chains, n_steps, step_size)
    for _ in range(n_burn):
        cell.advance()
    draws = np.mean([spread(target, cell.advance()) for _ in range(n_draws)], 0)
    mean, se = draws.mean(), draws.std() / n_chains**0.5
    expected = expected_spread(target, algorithm, step_size)
    error = abs(mean - expected)
    fine = error < 4 * se
    widening = ""
    if algorithm == "ula":
        exact = expected_spread(target, "mala", step_size)
        if se < 0.05 * (expected - exact):  # else so many chains cannot tell
            fine &= error < 0.15 * (expected - exact)
        widening = f", the target's {exact:.4f}"
    print(
        f"{peer:9} {algorithm:12} {target.name:9} {'right' if fine else 'WRONG'}  "
        f"{mean:.4f} +- {se:.4f}, expected {expected:.4f}{widening}",
        flush=True,
    )
    return fine


def check() -> bool:
    """Every peer's energies and laws; whether all were right."""
    fine = check_energies()
    for target in list(targets().values())[:2]:
        for algorithm in ALGORITHMS:
            for peer in CELLS:
                fine &= check_law(peer, algorithm, target)
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", required=True, help="energies and laws")
    parser.parse_args()
    sys.exit(0 if check() else "a peer's cell does not have the law it should")


if __name__ == "__main__":
    main()
