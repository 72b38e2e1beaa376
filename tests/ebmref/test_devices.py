"""Every public function of `ebmref` on a GPU: no operator mixes devices, none is refused there.

Without a GPU the device is pretended, see `support/pretended.py`. `EBMREF_TEST_DEVICE=cuda` takes a
real one, in the mode in which PyTorch refuses what does not repeat; so does `make gpu`. A public
function that no case calls fails the tests, and so does a tensor that comes back on the CPU.
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import math
import os
import pkgutil
import sys
import tempfile
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import pytest
import torch
from laws import one_thread  # noqa: F401
from pretended import pretended
from refused import ALLOWED, REFUSED, documented, refused
from torch.utils._pytree import tree_leaves

import ebmref
from ebmref import (
    concepts,
    data,
    ddls,
    energies,
    features,
    flows,
    free_energy,
    gan,
    gebm,
    inference,
    latent,
    likelihood,
    losses,
    metrics,
    outcomes,
    parabola,
    rbm,
    samplers,
    spectral,
    training,
    translation,
    world,
)
from ebmref.concepts import scenes, unrolling
from ebmref.networks import Networks
from ebmref.samplers import finite

IS_REAL = os.environ.get("EBMREF_TEST_DEVICE") == "cuda"

# What no case has to call.
NO_TENSORS = {
    "files.write_atomic": "writes text",
    "data.domains": "reads files, to the CPU",
    "energies.double_well_points": "gives plain numbers",
    "outcomes.mean_resultant": "gives a plain number",
    "losses.separation": "gives a plain number, from a grid of its own on the CPU",
    "samplers.diagnostics.arviz": "is asked once in a process",
    "samplers.graphs.Graph.__call__": "needs a compiler for the device: see the compiled loop",
    "samplers.graphs.Graph.drop": "needs a compiler for the device: see the compiled loop",
    "samplers.graphs.Graph.keep": "needs a compiler for the device: see the compiled loop",
    "samplers.products.ByOneDNN.__call__": "is for the CPU",
    "samplers.products.ByOneDNN.uuid": "gives plain bytes",
    "probes.widest": "is asked on the CPU alone, before tiles are cut",
}


# Cases: each is given a device, and returns tensors that are to be there --------------------------

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def cases(**each):
    """A case for each name, of a function `(device, value)`."""

    def add(function):
        for name, value in each.items():
            CASES[f"{function.__name__}-{name}"] = functools.partial(_given, function, value)

    return add


def _given(function, value, device):
    return function(device, value)


def source(device, seed: int = 0) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def normal(device, *shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=source(device, seed), device=device)


def rough(x):
    """By autograd."""
    return 0.5 * x.square().sum(1) + x.cos().sum(1)


def wide(device) -> energies.Gaussian:
    return energies.Gaussian(torch.zeros(3, device=device), 4 * torch.eye(3, device=device))


def plane(device) -> energies.Gaussian:
    return energies.Gaussian(torch.zeros(2, device=device), torch.eye(2, device=device))


@cases(
    random_walk=lambda q: samplers.random_walk(rough, 1.0),
    independence=lambda q: samplers.independence(rough, q),
    ula=lambda q: samplers.ula(rough, 0.3),
    mala=lambda q: samplers.mala(q, 0.5),
    hmc=lambda q: samplers.hmc(rough, 0.3, 3, [0.5, 1.0, 2.0]),
    nuts=lambda q: samplers.nuts(rough, 0.3, 3, [0.5, 1.0, 2.0]),
    mass=lambda q: samplers.hmc(rough, 0.3, 3, q.covariance.diagonal()),
    kinetic=lambda q: samplers.kinetic_langevin(rough, 0.3),
    isir=lambda q: samplers.isir(rough, q, 4),
    ex2mcmc=lambda q: samplers.ex2mcmc(rough, q, 0.3, 3),
    tempering=lambda q: samplers.parallel_tempering(rough, 0.3, (1.0, 0.5)),
)
def sampler(device, make):
    kernel = make(wide(device))
    adapted = kernel.adjusted and kernel.step_size is not None
    chain = samplers.sample(
        kernel,
        normal(device, 5, 3),
        20,
        warmup=5,
        thin=2,
        target_acceptance=0.5 if adapted else None,
        generator=source(device),
    )
    samplers.diagnose(chain)  # by ArviZ, on the CPU
    return chain.samples, chain.energy, chain.acceptance_rate


@case
def annealing(device):
    more = {"generator": source(device), "n_moves": 2}
    q = wide(device)
    return (
        samplers.annealed_importance_sampling(rough, q, 20, 3, 0.1, **more),
        samplers.sequential_monte_carlo(q, q, 20, [0.2, 1.0], 0.1, resample_below=1, **more),
    )


@case
def weighted(device):
    q, target = wide(device), energies.Gaussian(normal(device, 3), torch.eye(3, device=device))
    found = [
        samplers.importance_estimate(lambda x: x[:, 0], target, q, 50, source(device), **more)
        for more in ({}, {"log_z": target.log_z, "n_replicates": 3})
    ]
    envelope = samplers.envelope_constant(target, q, source(device), n_steps=30, n_check=50)
    drawn = samplers.rejection_sample(target, q, envelope.log_m, 20, source(device))
    return found, envelope, drawn


@case
def chains_on_a_graph(device):
    p = torch.tensor([1.0, 2.0, 3.0], device=device)
    J = finite.graph_walk(torch.ones(3, 3, device=device))
    K = finite.metropolis_matrix(J, p)
    assert finite.detailed_balance_error(K, p) < 1e-9 and finite.spectral_gap(K) > 0
    assert finite.mixing_time(K, p) >= 1 and finite.distance(K, p) < 1
    return J, K, finite.stationary(K)


@cases(
    gaussian=wide,
    mixture=lambda d: energies.GaussianMixture(normal(d, 4, 3), torch.ones(4, device=d)),
    moons=lambda d: energies.two_moons(torch.zeros(2, device=d)),
    funnel=lambda d: energies.Funnel(torch.zeros(3, device=d)),
    ring=lambda d: energies.Ring(torch.zeros(2, device=d)),
    box=lambda d: energies.Box(torch.zeros(2, device=d)),
    tilted=lambda d: energies.Box(torch.zeros(2, device=d), tilt=0.7),
    student=lambda d: energies.StudentT(torch.zeros(3, device=d)),
    grid=lambda d: data.gaussian_grid(torch.zeros(2, device=d), side=2),
    modes=lambda d: data.gaussian_ring(torch.zeros(2, device=d)),
)
def law(device, make):
    energy = make(device)
    x = energy.sample(7, source(device))
    more = [
        getattr(energy, name)(x[:, 0]) for name in ("cdf", "radius_cdf") if hasattr(energy, name)
    ]
    return x, energy(x), energy.log_prob(x), energies.value_and_gradient(energy, x), more


@case
def descents(device):
    y = normal(device, 6, 2)
    more = {"tolerance": 1e-3, "keep_path": True}
    return (
        inference.search_argmin(energies.double_well, y),
        inference.gradient_argmin(energies.double_well, y, 0.1, 5, **more),
        inference.lbfgs_argmin(energies.double_well, y, 5, **more),
    )


def joint(x, y, z):
    return (x - y * z).square().sum(1) + z.square().sum(1)


@case
def latents(device):
    known, start = {"x": normal(device, 3, 2)}, {n: normal(device, 3, 4, 2) for n in "yz"}
    grid = {name: normal(device, 5, 2) for name in "yz"}
    found = [
        latent.search(joint, known, grid),
        latent.joint_argmin(joint, known, start, 5),
        latent.joint_argmin(joint, known, start, 5, step_size=0.1),
        latent.alternating_argmin(joint, known, start, 2, 3),
    ]
    assert all(str(one) for one in found)
    return [tree_leaves(one) for one in found]


def of_pair(y, z):
    return (y - z).square().sum(1)


@case
def free_energies(device):
    E, z, y = normal(device, 4, 9), normal(device, 9, 2), normal(device, 3, 2)
    E[0] -= 1e4
    sides = [
        free_energy.free_energy(E, beta, measure, cell=0.1 if measure == "lebesgue" else None)
        for beta in (0.1, 100.0, math.inf)
        for measure in free_energy.MEASURES
    ]
    marginal = free_energy.marginal_energy(
        lambda x, y, z: of_pair(x * y, z), z, 2.0, known={"x": y[:1]}
    )
    prior, g = plane(device), source(device)
    return (
        sides,
        [free_energy.softmin(E, beta) for beta in (1.0, math.inf)],
        marginal(y),
        free_energy.importance_free_energy(of_pair, y, prior, 1.0, 20, g),
        free_energy.annealed_free_energy(of_pair, y, prior, 1.0, 10, 3, 0.1, g),
    )


@case
def loss_functionals(device):
    E = normal(device, 5, 9).requires_grad_()
    right, distance = normal(device, 5), torch.arange(9.0, device=device)
    both = (
        losses.answers_on_grid(E, right, distance, 2.0, 0.1),
        losses.two_answers(right, right + 1),
    )
    values = [loss(answers) for loss in losses.ZOO.values() for answers in both]
    return values, torch.autograd.grad(sum(v.sum() for v in values), E)


@case
def several_outcomes(device):
    grid, cell = outcomes.plane_grid(1.0, 4, device)
    y = normal(device, 2, 5, 2)
    return (
        grid,
        outcomes.squared_error(y, y + 1),
        outcomes.mixture_log_prob(normal(device, 2, 5, 12), y),
        outcomes.log_partition(normal(device, 2, 16), cell),
    )


@cases(implicit=parabola.Implicit, regression=parabola.Regression)
def parabolas(device, kind):
    g = source(device)
    model = kind(2, g)
    objectives = [(losses.hinge, 0.3), (losses.negative_log_likelihood, 0.3)]
    steps = list(parabola.train(model, objectives, 2, g, anneal=True))
    return steps, parabola.score(model), list(model.parameters())


# Data, features, distances


@case
def drawn_data(device):
    g = source(device)
    x = torch.rand(6, generator=g, device=device)
    return (
        data.pen_frames(data.von_mises(6, 2.0, g)),
        data.horn(x, g),
        data.swiss_roll(6, g),
        [data.frames(name, 6, g) for name in ("pen", "digits")],
    )


@case
def worlds(device):
    g = source(device)
    drawn = world.states(4, g)
    made = world.develop(world.phone(drawn, 8), g), world.engine(world.walk(4, device=device), 8)
    return drawn, made, world.seen(drawn), world.ball(drawn)


@case
def classifier(device):
    g, digits = source(device), data.pictures("digits")
    net = features.Classifier((1, 8, 8), 10, g)
    taught = digits.pixels[:64], digits.labels[:64]
    assert list(features.train_classifier(net, *taught, g, n_epochs=1, batch=32))
    return list(net.parameters()), net.read(digits.pixels[:9].to(device))


@case
def distances(device):
    x, y, g = normal(device, 12, 3), normal(device, 12, 3, seed=2), source(device)
    h = torch.tensor([0.5, 1.0], device=device)
    near = torch.cat([x, x[:1] + 1e-7]) + 1e3
    metrics.frechet_distance(x, y)
    metrics.kernel_distance(x, y)
    metrics.kernel_distance(x, y, lambda x, y: metrics.gaussian_kernels(x, y, h))
    metrics.manifold(x, y, k=2)
    for bandwidths in (None, h):
        metrics.mmd_test(x, y, g, bandwidths=bandwidths, n_permutations=5)
        metrics.parzen_log_likelihood(x, y, near, bandwidths)
    return (
        metrics.mode_statistics(x, x[:3], 0.5).counts,
        metrics.nearest(near, near),
        metrics.class_shares(torch.arange(6, device=device) % 3, 3),
    )


# Networks and their training


@case
def networks_of_pictures(device):
    g = source(device)
    G = gan.ConvGenerator(2, (1, 8, 8), 4, 2, g)
    D = gan.ConvDiscriminator((1, 8, 8), 4, 2, g, spectral=True)
    x = G(normal(device, 2, 3, 2))
    slope = gan.slope_penalty(D, x)
    (gan.generator_loss(D(x), "saturating") + slope).sum().backward()
    spectral.settle(D)
    return x, slope, [p.grad for net in (G, D) for p in net.parameters()]


@case
def fields(device):
    p = torch.tensor([0.2, 0.8], device=device)
    return gan.jensen_shannon(p, p.flip(0)), gan.field_jacobian(lambda v: v.flip(0) * v, p)


@case
def flow(device):
    g = source(device)
    net = flows.RealNVP(3, (4,), 2, 2, g)
    energy = flows.FlowEnergy(net, lambda x: -x.square().sum(-1), 0.5)
    x = net.sample(5, g)
    return x, net.log_prob(x), energy(x), energy.log_z


def bring(trainee, taught=None):
    """Two steps, read back and brought on; all that a checkpoint holds, but what is drawn from."""
    with tempfile.TemporaryDirectory() as folder:
        for n_steps in (2, 3):
            training.bring(trainee, n_steps, data=taught, checkpoint=Path(folder) / "trainee.pt")
    return [part.state_dict() for name, part in trainee.parts().items() if name != "generator"]


@cases(
    plain=gan.Recipe(batch=8, average=0.9),
    all=gan.Recipe("saturating", 8, penalty=1.0, n_critic=2, noise=0.1, anneal_over=9),
    half=gan.Recipe(batch=8, half=True),
)
def game(device, recipe):
    g = source(device)
    G = gan.Generator(2, (4,), (3,), 2, g, normalise=True, squash=True)
    D = gan.Discriminator((3,), (4,), 2, g, spectral=True, pack=2)
    trainee = gan.Game(G, D, (2, 2), recipe, seed=0)
    # Data may be on the CPU: they are taken to the networks.
    kept = bring(trainee, normal("cpu", 20, 3))
    return kept, next(training.train(trainee, 4, data=normal(device, 20, 3)))


@cases(
    kale=gebm.Recipe("KALE", 8, average=0.9, long_every=2, n_long=2, n_energy=1),
    dv=gebm.Recipe("DV", 8, samples=2, penalty=1.0, n_energy=1, anneal_over=9),
    frozen=gebm.Recipe(batch=8, frozen=True, constant=0.5),
)
def tilted_base(device, recipe):
    g, taught = source(device), normal(device, 20, 3)
    base = gan.Generator(2, (4,), (3,), 2, g).requires_grad_(not recipe.frozen)
    trainee = gebm.Game(base, gebm.Floored(gan.Discriminator((3,), (4,), 2, g)), (2, 2), recipe, 0)
    kept = bring(trainee, taught)
    model = trainee.model()
    return (
        kept,
        next(training.train(trainee, 4, data=taught)),
        gebm.score(model, trainee.constant.detach(), taught, 20, g),
        gebm.langevin(model, 4, 3, g, step_size=0.1, friction=1.0, decay=0.5, decay_every=2),
    )


@cases(
    cycle=translation.Recipe(cycle=1.0, identity=(0.5, 0.0), pool=4, anneal_over=9),
    travel=translation.Recipe(travel=1.0, margin=1.0, adversary="least-squares", average=0.0),
)
def translated(device, recipe):
    g, picture = source(device), (3, 8, 8)
    ways = 2 if recipe.pool else 1
    players = translation.picture_players(
        picture, 2, g, ways=ways, siamese=bool(recipe.travel), width=2, norm="instance"
    )
    trainee = translation.Game(players, (2, *picture), recipe, 0)
    taught = normal(device, 9, *picture).tanh(), normal("cpu", 8, *picture).tanh()
    made = bring(trainee, taught)
    x = taught[0].expand(2, 9, *picture)
    y = translation.translate(trainee.average["ab"], x)
    return made, y, translation.distance(x, y), next(training.train(trainee, 4, data=taught))


@case
def fitted(device):
    g = source(device)
    net = Networks((3, 2), 2, g)

    def loss():
        return net(torch.randn(5, 3, generator=g, device=device)).square().mean((1, 2))

    adam = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.ConstantLR(adam)
    trainee = training.Fit(net, loss, adam, schedule, g)
    assert "step 1: loss" in str(training.diverged(trainee, {"loss": loss()}))
    return bring(trainee)


# Energies learned without their normaliser

PLAIN = likelihood.Recipe(8)
REMEDIES = likelihood.Recipe(
    8, energy_penalty=0.1, gradient_penalty=0.1, data_noise=0.1, clip=1.0, average=0.9,
    anneal_over=9, limit=1e6,
)  # fmt: skip


def langevin(energy):
    return samplers.mala(energy, 0.1)


@cases(
    exact=lambda q: likelihood.exact(likelihood.on_grid(q.sample(9, source(q.mean.device)), 0.5)),
    cd=lambda q: likelihood.cd(langevin, 2, beta=2.0),
    pcd=lambda q: likelihood.persistent_cd(langevin, 2, q, size=12, kl=0.5, entropy=0.5),
    short=lambda q: likelihood.short_run(langevin, 1, q, n_chains=4, entropy=0.5),
    nce=lambda q: likelihood.noise_contrastive(q, 2),
    trace=lambda q: likelihood.matching(),
    slices=lambda q: likelihood.matching(2),
    denoised=lambda q: likelihood.denoised((0.1, 0.3)),
)
def learned_by(device, make):
    """Two models side by side."""
    net = likelihood.Perceptrons(2, (4,), 2, source(device))
    trainee = likelihood.Learner(net, make(plane(device)), PLAIN, 0, 2)
    # Data may be on the CPU: they are taken to the energy.
    return bring(trainee, normal("cpu", 20, 2))


@cases(one=None, two=2)
def remedies(device, n_models):
    net = likelihood.Perceptrons(2, (4,), n_models, source(device), spectral=True, confine=2.0)
    method, x = likelihood.cd(langevin), normal(device, 20, 2)
    trainee = likelihood.Learner(net, method, REMEDIES, 0, n_models)
    step = next(training.train(trainee, 1, data=x))
    return step, trainee.model(averaged=True)(x)


@case
def losses_of_points(device):
    x, g, q = normal(device, 6, 3), source(device), wide(device)
    step_size, beta = likelihood.as_langevin(0.1, 0.2)
    moved = likelihood.last_step(q, x, step_size, g, beta)
    return (
        likelihood.cd_loss(rough, x, likelihood.run(samplers.ula(rough, 0.1), x, 2, g)[0]),
        likelihood.exact_loss(rough, x, likelihood.over(normal(device, 9, 3))),
        likelihood.nce_loss(rough, torch.zeros((), device=device), x, q.sample(12, g), q),
        likelihood.denoising(
            lambda x, sigma: rough(x) / sigma, x, normal(device, 6, 3), 0.3, conditional=True
        ),
        likelihood.nearest_entropy(moved),
        likelihood.held(rough, moved),
    )


@cases(visible=(3, 4), hidden=(4, 3))
def machine(device, shape):
    """Each half the smaller one."""
    g = source(device)
    model = rbm.RBM(*shape, g)
    v = rbm.states(shape[0], model.weight)
    noise = rbm.Bits.of_data(v)
    method = likelihood.persistent_cd(rbm.gibbs, 2, noise, size=9)
    trainee = likelihood.Learner(model, method, PLAIN, 0)
    kept, draws = bring(trainee, v), rbm.exact_draws(model, 6, g)
    loss = likelihood.exact_loss(model, v, rbm.log_z)
    return (
        kept,
        torch.autograd.grad(loss, list(model.parameters())),
        noise.log_prob(draws),
        model.energy(draws, torch.ones_like(model.hidden).expand(6, -1)),
        rbm.annealed_log_z(model, 5, 3, g, noise),
        rbm.reverse_annealed_log_z(model, draws, 3, g),
    )


class SecondLost(likelihood.Perceptrons):
    """Of two models the second has no finite energy anywhere."""

    def forward(self, x):
        return super().forward(x) + torch.tensor([[0.0], [math.inf]], device=x.device)


@cases(
    chains=lambda noise: likelihood.persistent_cd(lambda e: samplers.ula(e, 0.1), 2, noise, size=9),
    jumps=lambda noise: likelihood.cd(lambda e: samplers.ex2mcmc(e, noise, 0.1, 3), 2),
    noise=lambda noise: likelihood.noise_contrastive(noise, 2),
    slopes=lambda noise: likelihood.matching(),
)
def judged_alone(device, make):
    """Two models, of which the second has diverged at the first step."""
    net = SecondLost(2, (4,), 2, source(device), spectral=True, confine=3.0)
    recipe = likelihood.Recipe(8, average=0.9, clip=1.0, reach=50.0, alone=True)
    trainee = likelihood.Learner(net, make(plane(device)), recipe, seed=0, n_models=2)
    steps = list(training.train(trainee, 2, data=normal(device, 20, 2)))
    assert trainee.n_energies >= 0 and trainee.died.tolist() == [0, 1]
    return [step._asdict() for step in steps], trainee.alive, trainee.died, trainee.causes


# Concepts


@cases(
    full=concepts.Recipe(unrolling.Inner(2, temperature=0.1), batch=2, anneal_over=9),
    checkpoint=concepts.Recipe(unrolling.Inner(2, "checkpoint"), batch=2),
    last=concepts.Recipe(unrolling.Inner(2, "last"), batch=2, generate=0.0),
    implicit=concepts.Recipe(unrolling.Inner(2, "implicit"), batch=2),
    contrast=concepts.Recipe(unrolling.Inner(2), "contrast", batch=2),
)
def learner(device, recipe):
    g = source(device)
    model = concepts.Energy(2, g, hidden=6, code=2, bumps=2, depth=(3, 2))
    family = scenes.Family(("near", "left"))
    trainee = concepts.Learner(model, family, recipe, seed=0)
    kept = bring(trainee)
    tasks = family.tasks(2, 3, 2, g, dtype=torch.float32)
    w, inner = normal(device, 2, 3, 2), unrolling.Inner(2, temperature=0.1)
    mask = concepts.best_mask(model, tasks.query.end, w, inner, 2, g)
    return kept, concepts.measure(model, family, tasks, inner), mask


@cases(**{name: name for name in scenes.CONCEPTS})
def concept(device, name):
    kind = scenes.CONCEPTS[name]
    low, high = (
        torch.tensor([*side, *[0.0] * (4 - len(side))], device=device)
        for side in (kind.low, kind.high)
    )
    share = torch.rand(6, 4, generator=source(device), device=device)
    return scenes.project(name, normal(device, 6, 4, 5), low + (high - low) * share)


@case
def graphs_of_descents(device):
    v = normal(device, 1, 2, 3).requires_grad_()
    W = normal(device, 3, 3)
    with unrolling.saved_bytes():
        out = unrolling.descend(
            lambda v, W: (v @ W).square().sum(-1), v, W.new_ones(()), (W,), unrolling.Inner(2)
        )
    assert unrolling.longest_chain(out[-1]) > 0 and scenes.Family().chance > 0
    return out


# Refinement


def refined_model(device, prior=ddls.Normal) -> ddls.Model:
    g = source(device)
    nets = gan.Generator(2, (4,), (2,), 2, g), gan.Discriminator((2,), (4,), 2, g)
    return ddls.Model(*(net.requires_grad_(False) for net in nets), prior(2), 2)


@cases(**{method: method for method in ddls.METHODS})
def refine(device, method):
    priors = (ddls.Normal, ddls.Uniform)
    made = [ddls.refine(refined_model(device, p), 6, method, 60, source(device)) for p in priors]
    assert all(one.cost <= 60 for one in made)
    return made


@case
def refined_with_options(device):
    model, g = refined_model(device), source(device)
    start = ddls.resampling(model, 6, 3, g).states
    return (
        ddls.langevin(model, 6, 4, g, start=start, decay=0.5, decay_every=2),
        ddls.chains(model, 6, "mala", 4, g, step_size=0.1, start=start),
        ddls.rejection(model, 6, 5, g, gamma=0.8, n_pilot=20),
        ddls.metropolis_hastings(model, 6, 3, g, real_logits=normal(device, 2, 9) + 3),
        [ddls.gradient_flow(model, 6, 2, g, divergence=d) for d in ddls.DIVERGENCES],
        ddls.transport(model, 6, 2, g, keep_radius=True, lipschitz=torch.ones(2, device=device)),
    )


@case
def calibrated(device):
    model, g = refined_model(device), source(device)
    real, fake = normal(device, 2, 40), normal(device, 2, 40, seed=2) - 1
    found = [ddls.calibrate(real, fake, method) for method in ddls.CALIBRATIONS]
    better = [model.calibrated(one) for one in found]
    return [
        (one.z_before, one.z_after, b.logits(b.draw(4, g)), ddls.log_z0(one.apply(fake)))
        for one, b in zip(found, better, strict=True)
    ]


@case
def critics(device):
    model, g, taught = refined_model(device), source(device), normal(device, 30, 2)
    log_p = plane(device).log_prob
    counted = ddls.counted(model, log_p, 100, g, reach=3.0, cells=4)
    ratio = ddls.density_ratio_critic(log_p, log_p)
    learning = dataclasses.replace(model, critic=gan.Discriminator((2,), (4,), 2, g))
    steps = list(ddls.train_critic(learning, taught, 2, g, batch=8, noise=0.1, penalty=1.0))
    x = normal(device, 2, 5, 2)
    return counted[1:], counted.critic(x), ratio(x), steps


# What the cases are held to -----------------------------------------------------------------------


class Ran(NamedTuple):
    """A case: the tensors it returned, the functions or the operators that it called."""

    tensors: list[torch.Tensor]
    called: set


@functools.cache
def on_cpu(name: str) -> Ran:
    functions: set[CodeType] = set()
    sys.setprofile(lambda frame, event, _: functions.add(frame.f_code))
    try:
        return Ran(tensors_of(CASES[name]("cpu")), functions)
    finally:
        sys.setprofile(None)


@functools.cache
def on_cuda(name: str) -> Ran:
    with cuda() as operators:
        return Ran(tensors_of(CASES[name]("cuda")), operators)


@contextlib.contextmanager
def cuda():
    """The GPU, a real one or not; the operators that were called on one that is not."""
    if not IS_REAL:
        with pretended() as operators:
            yield operators.called
        return
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    yield set()
    torch.set_deterministic_debug_mode(before)


def tensors_of(made) -> list[torch.Tensor]:
    return [x for x in tree_leaves(made) if isinstance(x, torch.Tensor)]


def public() -> dict[str, CodeType]:
    """Functions, methods and properties without an underscore, of all modules."""
    found = {}
    for module in pkgutil.walk_packages(ebmref.__path__, "ebmref."):
        own = importlib.import_module(module.name)
        for name, thing in vars(own).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != own.__name__:
                continue
            for path, function in members(name, thing):
                code = getattr(inspect.unwrap(function), "__code__", None)
                if code is not None and code.co_filename == own.__file__:
                    found[f"{own.__name__.removeprefix('ebmref.')}.{path}"] = code
    return found


def members(name: str, thing):
    if not inspect.isclass(thing):
        yield name, thing
    elif not getattr(thing, "_is_protocol", False):
        for of, method in vars(thing).items():
            if not of.startswith("_") or of in ("__call__", "__getitem__"):
                yield (
                    f"{name}.{of}",
                    getattr(method, "fget", None) or getattr(method, "__func__", method),
                )


@pytest.mark.parametrize("name", CASES)
def test_it_runs_on_a_gpu(name):
    tensors = on_cuda(name).tensors
    assert tensors
    elsewhere = [tuple(x.shape) for x in tensors if x.device.type != "cuda"]
    assert not elsewhere, f"of these shapes, tensors came back on the CPU: {elsewhere}"


@pytest.mark.skipif(IS_REAL, reason="a GPU draws other numbers")
@pytest.mark.parametrize("name", [name for name in CASES if name != "game-half"])
def test_the_numbers_are_those_of_the_cpu(name):
    """What is pretended is the device alone: no number depends on it, but by autocast."""
    for one, two in zip(on_cuda(name).tensors, on_cpu(name).tensors, strict=True):
        torch.testing.assert_close(one.cpu(), two, equal_nan=True)


def test_every_public_function_is_called():
    called = set().union(*(on_cpu(name).called for name in CASES))
    missed = {name for name, code in public().items() if code not in called}
    assert missed | {"samplers.diagnostics.arviz"} == set(NO_TENSORS)  # it may have been asked here


@pytest.mark.skipif(IS_REAL, reason="a GPU refuses by itself")
def test_no_operator_is_refused_where_results_must_repeat():
    called = set().union(*(on_cuda(name).called for name in CASES))
    assert refused(called) == set(ALLOWED)


def test_the_refused_are_those_of_this_pytorch():
    assert documented() == set(REFUSED)
    for operators in REFUSED.values():
        assert all(hasattr(torch.ops.aten, name.partition(".")[0]) for name in operators)


# The pretence itself, and what it must not let pass -----------------------------------------------


def noise_without_device(n_steps, x, generator, out=None):
    return (torch.randn(n_steps, *x.shape),)


def noise_of_another_source(n_steps, x, generator, out=None):
    return (torch.randn(n_steps, *x.shape, device=x.device, generator=torch.Generator()),)


def step_with_zeros(state, noise, step_size):
    moved = state._replace(x=state.x + torch.zeros(len(state.x), 1))
    return samplers.ula(rough, 0.1).step(moved, noise, step_size)


@pytest.mark.parametrize(
    "mistake",
    [{"draw": noise_without_device}, {"draw": noise_of_another_source}, {"step": step_with_zeros}],
)
def test_a_sampler_of_two_devices_fails(mistake):
    kernel = samplers.ula(rough, 0.1)
    kernel = kernel._replace(**mistake)
    samplers.sample(kernel, normal("cpu", 4, 3), 2, generator=source("cpu"))
    with cuda(), pytest.raises(RuntimeError):
        samplers.sample(kernel, normal("cuda", 4, 3), 2, generator=source("cuda"))


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x + torch.ones(3),
        lambda x: x.numpy(),
        lambda x: x.normal_(generator=source("cpu")),
        lambda x: torch.empty(3).normal_(generator=source("cuda")),
        lambda x: torch.stack([x, torch.ones(3)]),
    ],
)
def test_what_cuda_refuses(mistake):
    with cuda():
        x = torch.ones(3, device="cuda")
        with pytest.raises((RuntimeError, TypeError)):
            mistake(x)


def test_what_cuda_takes():
    """Numbers of the CPU, and whatever moves tensors; views share what they look at."""
    with cuda():
        x = torch.zeros(2, 3, device="cuda")
        x[:, [0, 2]] += torch.tensor(2.0) * torch.ones(2, 2).to(x)
        x.T[1].copy_(torch.arange(2.0))
        assert x.tolist() == [[2, 0, 2], [2, 1, 2]]
        assert x.device == torch.device("cuda", 0) and x.cpu().device.type == "cpu"


@pytest.mark.skipif(IS_REAL, reason="a GPU refuses by itself")
def test_what_is_refused_is_seen():
    with cuda() as operators:
        x = torch.arange(3, device="cuda")
        torch.bincount(x)
        assert not refused(operators)
        torch.bincount(x, weights=x.float())
        x.median(0)
    assert refused(operators) == {"bincount", "median.dim"}


@pytest.mark.skipif(not IS_REAL, reason="its compiler needs a GPU")
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("sampler-")])
def test_the_compiled_loop_makes_the_same_chain(name):
    with cuda():
        kernel = CASES[name].args[1](wide("cuda"))
        one, two = (
            samplers.sample(
                kernel, normal("cuda", 50, 3), 20, generator=source("cuda"), compile=compile
            )
            for compile in (False, True)
        )
    torch.testing.assert_close(one.samples, two.samples, rtol=1e-3, atol=1e-3)
