"""The game's values against closed forms; training repeats, resumes to the bit and stops on NaN."""

import dataclasses
import io
import math
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon
from torch.nn import functional
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.utils import parametrizations

from ebmref import data, gan, training

DOUBLE = {"dtype": torch.float64}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- the game --------------------------------------------------------------------------


def test_value_at_the_best_discriminator_is_minus_log_4_plus_2_jsd():
    """p = (.5, .5), q = (.9, .1): -1.18280, and no other discriminator does better."""
    p, q = torch.tensor([0.5, 0.5], **DOUBLE), torch.tensor([0.9, 0.1], **DOUBLE)

    def exact(d):
        """V with sums for means: logits d of the two points."""
        log = torch.nn.functional.logsigmoid
        return (p * log(d)).sum() + (q * log(-d)).sum()

    best = p.log() - q.log()
    bound = -math.log(4) + 2 * gan.jensen_shannon(p, q)
    assert float(exact(best)) == pytest.approx(-1.18280, abs=5e-6)
    assert float(exact(best)) == pytest.approx(float(bound), abs=1e-12)
    for seed in range(50):
        move = torch.randn(2, generator=generator(seed), **DOUBLE)
        assert exact(best + move) <= exact(best)


def test_value_is_minus_twice_the_cross_entropy():
    """Against PyTorch's own loss, a row each model, far into the tails."""
    real, fake = 30 * torch.randn(2, 3, 8, generator=generator(), **DOUBLE)
    got = gan.value(real, fake)
    for k in range(3):
        expected = bce(real[k], torch.ones(8, **DOUBLE)) + bce(fake[k], torch.zeros(8, **DOUBLE))
        assert float(got[k]) == pytest.approx(-float(expected))


def test_generator_losses_and_their_gradients():
    """log(1 - D) and -log D; by the logit -D and -(1 - D): where D is sure, only one pulls."""
    d = torch.tensor([-12.0, 0.0, 3.0], **DOUBLE).requires_grad_()
    share = torch.sigmoid(d)
    for kind, value, slope in (
        ("saturating", (1 - share).log(), -share),
        ("non-saturating", -share.log(), share - 1),
    ):
        loss = gan.generator_loss(d[:, None], kind)
        assert torch.allclose(loss, value, atol=1e-10)
        (got,) = torch.autograd.grad(loss.sum(), d)
        assert torch.allclose(got, slope, atol=1e-12)


def test_jensen_shannon_is_scipys():
    """The square of SciPy's distance; log 2 without a common point; 0 for one law."""
    p, q = torch.rand(2, 6, generator=generator(), **DOUBLE)
    p, q = p / p.sum(), q / q.sum()
    assert float(gan.jensen_shannon(p, q)) == pytest.approx(jensenshannon(p, q) ** 2)
    one, other = torch.eye(2, **DOUBLE)
    assert float(gan.jensen_shannon(one, other)) == pytest.approx(math.log(2))
    assert float(gan.jensen_shannon(p, p)) == 0


def test_slope_penalty_of_a_linear_discriminator_is_its_squared_weight():
    """d(x) = a . x has slope a everywhere; and the penalty's own gradient is 2 a."""
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0]], **DOUBLE).requires_grad_()

    def linear(x):
        return (x * a[:, None]).sum(-1)

    penalty = gan.slope_penalty(linear, torch.randn(2, 5, 2, generator=generator(), **DOUBLE))
    assert penalty.tolist() == pytest.approx([25, 1])
    (slope,) = torch.autograd.grad(penalty.sum(), a)
    assert torch.allclose(slope, 2 * a)


def test_jacobian_of_the_dirac_game():
    """Data at 0, a sample at theta, d(x) = psi x (Mescheder et al. 2018): purely imaginary
    eigenvalues +-i/2 without a penalty, a negative real part with R1."""

    def field(point, weight):
        """Both players move along their own gradient of log(1 - D(theta)) and -R1."""
        theta, psi = point
        share = torch.sigmoid(psi * theta)
        return torch.stack([psi * share, -theta * share - weight * psi])

    zero = torch.zeros(2, **DOUBLE)
    turning = torch.linalg.eigvals(gan.field_jacobian(lambda v: field(v, 0.0), zero))
    assert torch.allclose(turning.real, zero, atol=1e-12)
    assert sorted(turning.imag.tolist()) == pytest.approx([-0.5, 0.5])
    held = torch.linalg.eigvals(gan.field_jacobian(lambda v: field(v, 1.0), zero))
    assert (held.real < 0).all()


# --- networks --------------------------------------------------------------------------


def nets(kind, k, seed=0, spectral=False):
    g = generator(seed)
    if kind == "perceptron":
        return (
            gan.Generator(4, (16,), (1, 12, 12), k, g, normalise=True, squash=True),
            gan.Discriminator((1, 12, 12), (16,), k, g, spectral=spectral),
        )
    return (
        gan.ConvGenerator(4, (1, 12, 12), 8, k, g),
        gan.ConvDiscriminator((1, 12, 12), 8, k, g, spectral=spectral),
    )


KINDS = pytest.mark.parametrize("kind", ["perceptron", "convolution"])


@KINDS
def test_shapes_and_range(kind):
    """(k, n, d) to pictures in [0, 1] to logits (k, n)."""
    g, d = nets(kind, 3)
    x = g(torch.randn(3, 5, 4, generator=generator()))
    assert x.shape == (3, 5, 1, 12, 12)
    assert x.min() >= 0 and x.max() <= 1
    assert d(x).shape == (3, 5)


@KINDS
def test_models_and_samples_do_not_meet(kind):
    """The gradient of one sample's logit is zero in every other latent, of any model."""
    g, d = nets(kind, 3)
    z = torch.randn(3, 5, 4, generator=generator()).requires_grad_()
    (slope,) = torch.autograd.grad(d(g(z))[1, 2], z)
    assert slope[1, 2].abs().max() > 0
    slope[1, 2] = 0
    assert slope.abs().max() == 0


@pytest.mark.parametrize("side, stages", [(6, 0), (8, 1), (12, 1), (28, 2), (32, 3)])
def test_sides_of_convolutional_nets(side, stages):
    """8 is 4 doubled once, 28 is 7 twice, 32 is 4 three times; 6 need not be doubled: no net."""
    if not stages:
        with pytest.raises(ValueError, match="picture: expected"):
            gan.ConvGenerator(10, (3, side, side), 4, 2, generator())
        return
    g = gan.ConvGenerator(10, (3, side, side), 4, 2, generator())
    d = gan.ConvDiscriminator((3, side, side), 4, 2, generator())
    x = g(torch.randn(2, 5, 10, generator=generator()))
    assert x.shape == (2, 5, 3, side, side)
    assert x.min() > 0 and x.max() < 1
    assert d(x).shape == (2, 5)
    assert len(g.stages) == len(d.stages) == stages


def test_convolutional_nets_are_pytorchs_one_by_one():
    """Each model alone, its weights cut out of the common ones, by PyTorch's convolutions: the
    generator's pictures and the discriminator's logits."""
    k, width = 3, 4
    g = gan.ConvGenerator(5, (2, 28, 28), width, k, generator())
    d = gan.ConvDiscriminator((2, 28, 28), width, k, generator(1))
    with torch.no_grad():
        for net in (g, d):
            for name, p in net.named_parameters():
                if "bias" in name:
                    p.copy_(torch.randn(p.shape, generator=generator(2)))
    z = torch.randn(k, 6, 5, generator=generator(3))
    pictures = g(z)
    logits = d(pictures)
    for i in range(k):

        def own(tensor, i=i):
            return tensor.chunk(k)[i]

        x = (z[i] @ g.stem.weights[0][i] + g.stem.biases[0][i]).view(6, 2 * width, 7, 7)
        for stage in g.stages:
            x = functional.leaky_relu(functional.layer_norm(x, x.shape[1:]), 0.2)
            x = functional.conv_transpose2d(x, own(stage.weight), own(stage.bias), 2, 1)
        assert torch.allclose(pictures[i], x.sigmoid(), atol=1e-5)
        x = pictures[i]
        for stage in d.stages:
            x = functional.leaky_relu(
                functional.conv2d(x, own(stage.weight), own(stage.bias), 2, 1), 0.2
            )
        x = x.flatten(1) @ d.head.weights[0][i] + d.head.biases[0][i]
        assert torch.allclose(logits[i], x[:, 0], atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_keep_the_variance(transposed):
    """White noise of variance 1 comes out with variance 1, away from the edge. The squares of the
    1,024 or 256 weights that meet in a pixel have a relative sd of 1.8 or 5.6 %, averaged over 64
    channels: .7 % at most; 3 % is four of these and the noise of 50,000 pixels."""
    stage = gan._Convolution(64, 64, 1, generator(), transposed=transposed)
    x = torch.randn(1, 8, 64, 20, 20, generator=generator(1))
    inner = stage(x).detach()[..., 2:-2, 2:-2]
    assert float(inner.var()) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("pack", [2, 5])
def test_a_packed_logit_is_of_neighbours_of_one_model(pack):
    """The same as an unpacked discriminator of the events joined by hand, n / pack logits; a
    logit's gradient is in its own events alone."""
    d = gan.Discriminator((3, 2), (8,), 2, generator(), pack=pack)
    joined = gan.Discriminator((pack * 6,), (8,), 2, generator())
    x = torch.randn(2, 10, 3, 2, generator=generator(1)).requires_grad_()
    by_hand = torch.stack(
        [
            torch.stack([torch.cat([e.flatten() for e in part]) for part in model.split(pack)])
            for model in x.detach()
        ]
    )
    logits = d(x)
    assert logits.shape == (2, 10 // pack)
    assert torch.equal(logits, joined(by_hand))
    (slope,) = torch.autograd.grad(logits[1, 1], x)
    met = slope.flatten(2).abs().amax(-1) > 0
    expected = torch.zeros(2, 10, dtype=torch.bool)
    expected[1, pack : 2 * pack] = True
    assert torch.equal(met, expected)


def test_a_pack_that_does_not_divide_is_named():
    """Neither of events nor, in training, of a batch: there a pack would mix data and samples,
    and no weight has moved by then."""
    d = gan.Discriminator((2,), (8,), 2, generator(), pack=2)
    with pytest.raises(ValueError, match="pack"):
        d(torch.zeros(2, 5, 2))
    game = gan.Game(
        gan.Generator(2, (8,), (2,), 2, generator()), d, (2, 2), gan.Recipe(batch=15), 0
    )
    before = weights(game)
    with pytest.raises(ValueError, match="pack"):
        play(game, 3)
    assert all(map(torch.equal, weights(game), before))


@KINDS
def test_spectral_norm_is_one(kind):
    """After some power iterations the largest singular value of each weight is one, per model;
    in evaluation nothing moves."""
    _, d = nets(kind, 2, spectral=True)
    x = torch.rand(2, 3, 1, 12, 12, generator=generator())
    for _ in range(200):
        d(x)
    checked = 0
    for module in d.modules():
        for name in getattr(module, "parametrizations", {}):
            weight = getattr(module, name).detach()
            rows = weight if weight.dim() == 3 else weight.view(2, len(weight) // 2, -1)
            norms = torch.linalg.matrix_norm(rows, 2)
            assert torch.allclose(norms, torch.ones(2), atol=1e-2)
            checked += 1
    assert checked >= 2
    d.eval()
    before = {name: value.clone() for name, value in d.state_dict().items()}
    d(x)
    assert all(torch.equal(value, before[name]) for name, value in d.state_dict().items())


@KINDS
def test_spectral_norm_divides_by_the_largest_singular_value_of_each_model(kind):
    """Models whose weights differ by a factor of 1,000: each weight is the original over PyTorch's
    largest singular value of its own model, and biases are as they were."""
    _, d = nets(kind, 3, spectral=True)
    d.double()
    scale = torch.tensor([1.0, 1e-2, 10.0], **DOUBLE)
    with torch.no_grad():
        for name, p in d.named_parameters():
            if "bias" in name:
                p.fill_(0.7)
            else:
                p.view(3, -1).mul_(scale[:, None])
    for _ in range(500):
        d(torch.rand(3, 2, 1, 12, 12, generator=generator(), **DOUBLE))
    checked = 0
    for module in d.modules():
        for name, norm in getattr(module, "parametrizations", {}).items():
            original = norm.original.detach()
            shape = original.shape if original.dim() == 3 else (3, len(original) // 3, -1)
            matrix = original.reshape(shape)
            sigma = torch.linalg.svdvals(matrix)[:, 0]
            expected = matrix / sigma[:, None, None]
            got = getattr(module, name).detach().reshape(shape)
            assert torch.allclose(got, expected, rtol=1e-4, atol=1e-9)
            checked += 1
    assert checked == 2
    biases = [p for name, p in d.named_parameters() if "bias" in name]
    assert biases and all((p == 0.7).all() for p in biases)


def test_spectral_norm_of_one_model_is_pytorchs():
    """A linear layer and a convolution against `torch.nn.utils.parametrizations.spectral_norm`,
    both run until they settle: the weights, and the gradients of what is behind them."""
    linear = gan.Discriminator((6,), (5,), 1, generator(), spectral=True).double()
    convolution = gan.ConvDiscriminator((2, 8, 8), 3, 1, generator(), spectral=True).double()
    for ours, name, theirs, turned in (
        (linear.layers.weights, "0", torch.nn.Linear(6, 5), True),
        (convolution.stages[0], "weight", torch.nn.Conv2d(2, 3, 4), False),
    ):
        theirs = theirs.double()
        original = ours.parametrizations[name].original
        with torch.no_grad():
            theirs.weight.copy_(original[0].T if turned else original)
        theirs = parametrizations.spectral_norm(theirs)
        for _ in range(300):
            one, other = getattr(ours, name), theirs.weight
        pull = torch.randn(other.shape, generator=generator(1), **DOUBLE)
        (there,) = torch.autograd.grad(
            (other * pull).sum(), theirs.parametrizations.weight.original
        )
        if turned:
            pull, other, there = pull.T[None], other.T[None], there.T[None]
        (here,) = torch.autograd.grad((one * pull).sum(), original)
        assert torch.allclose(one, other, rtol=1e-8)
        assert torch.allclose(here, there, rtol=1e-6, atol=1e-10)


# --- training --------------------------------------------------------------------------

RECIPE = gan.Recipe(batch=16, penalty=0.1, penalty_every=2, n_critic=2, average=0.9, anneal_over=40)
POINTS = data.gaussian_ring(torch.zeros(1)).sample(100, generator())


def small(recipe=RECIPE, k=2, seed=0, spectral=True):
    g = gan.Generator(2, (8,), (2,), k, generator(seed))
    d = gan.Discriminator((2,), (8,), k, generator(seed + 1), spectral=spectral)
    return gan.Game(g, d, (k, 2), recipe, seed)


def weights(game):
    parts = (game.generator, game.discriminator, game.average)
    return [value for part in parts for value in part.state_dict().values()]


def play(game, n_steps, **options):
    return list(training.train(game, n_steps, data=POINTS, **options))


def test_stop_and_resume_is_straight_through_to_the_bit(tmp_path):
    """Stopped in the middle of an epoch and between two penalties, loaded into fresh networks:
    the same weights, and the same numbers at every later step."""
    straight = small()
    steps = play(straight, 31)
    first = small()
    play(first, 17, checkpoint=tmp_path / "game.pt")
    second = small(seed=0)
    for parameter in second.generator.parameters():
        torch.nn.init.zeros_(parameter)
    training.load(second, tmp_path / "game.pt")
    rest = play(second, 31)
    assert second.step == 31
    assert all(map(torch.equal, weights(straight), weights(second)))
    assert [step.step for step in rest] == list(range(18, 32))
    for a, b in zip(steps[17:], rest, strict=True):
        assert torch.equal(a.value, b.value) and torch.equal(a.generator_loss, b.generator_loss)


def test_a_loaded_game_judges_as_the_saved_one(tmp_path):
    """In evaluation, too, where spectral norm takes its singular vectors as it finds them."""
    first, second = small(), small(seed=0)
    play(first, 3, checkpoint=tmp_path / "game.pt")
    training.load(second, tmp_path / "game.pt")
    one, other = (game.discriminator.eval()(POINTS.expand(2, -1, -1)) for game in (first, second))
    assert torch.equal(one, other)


def test_latents_are_normal_and_each_models_own():
    """Kolmogorov-Smirnov and correlation at a false alarm of 1e-3 each, at a fixed seed."""
    z = small().latents(1000, generator())
    assert z.shape == (2, 1000, 2)
    assert stats.kstest(z.flatten().numpy(), stats.norm.cdf).pvalue > 1e-3
    assert stats.pearsonr(*z.flatten(1).numpy()).pvalue > 1e-3
    assert torch.equal(z, small().latents(1000, generator()))


def test_same_seed_same_game_and_another_seed_another():
    one, same, other = small(), small(), small()
    other.seed = 1
    for game in (one, same, other):
        play(game, 5)
    assert all(map(torch.equal, weights(one), weights(same)))
    assert not all(map(torch.equal, weights(one), weights(other)))


def plain_loop(game, twin, n_steps):
    """The textbook's loop on the batches of `game`: PyTorch's losses, Adam, backward, twice.

    Returns the moving average of the generator's weights.
    """
    recipe, g, d = game.recipe, twin.generator, twin.discriminator
    batches = training.Batches(game, POINTS, game.latent[0], game.recipe.batch)
    adam_g = torch.optim.Adam(g.parameters(), recipe.learning_rate[0], betas=recipe.momenta)
    adam_d = torch.optim.Adam(d.parameters(), recipe.learning_rate[1], betas=recipe.momenta)
    average = [p.detach().clone() for p in g.parameters()]
    used = 0
    for step in range(n_steps):
        source = training.source(game, f"step-{step}")
        width = recipe.noise
        if recipe.anneal_over:
            passed = min(step / recipe.anneal_over, 1)
            width = recipe.noise * (1 - passed)
            for adam, rate in zip((adam_g, adam_d), recipe.learning_rate, strict=True):
                for group in adam.param_groups:
                    group["lr"] = rate * (1 + math.cos(math.pi * passed)) / 2

        def blur(x, width=width, source=source):
            return x + width * torch.randn(x.shape, generator=source) if recipe.noise else x

        for _ in range(recipe.n_critic):
            real = blur(batches[used]).clone().requires_grad_()
            used += 1
            fake = blur(g(game.latents(recipe.batch, source)))
            adam_d.zero_grad()
            on_real, on_fake = d(real), d(fake.detach())
            loss = bce(on_real, torch.ones_like(on_real)) + bce(on_fake, torch.zeros_like(on_fake))
            if recipe.penalty and step % recipe.penalty_every == 0:
                (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
                weight = recipe.penalty * recipe.penalty_every
                loss = loss + 0.5 * weight * slope.square().sum(-1).mean()
            loss.backward()
            adam_d.step()
        adam_g.zero_grad()
        logit = d(fake)
        if recipe.loss == "saturating":
            loss = -bce(logit, torch.zeros_like(logit))
        else:
            loss = bce(logit, torch.ones_like(logit))
        loss.backward()
        adam_g.step()
        decay = min(recipe.average, (1 + step) / (10 + step))
        average = [
            decay * a + (1 - decay) * p.detach()
            for a, p in zip(average, g.parameters(), strict=True)
        ]
    return average


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "saturating"},
        {"penalty": 0.5},
        {"penalty": 0.5, "loss": "saturating"},
        {"penalty": 0.5, "penalty_every": 3},
        {"n_critic": 3},
        {"noise": 0.4},
        {"noise": 0.4, "anneal_over": 9},
        {"average": 0.3},
        {"average": 0.999},
        {
            "penalty": 0.5, "penalty_every": 2, "n_critic": 2, "noise": 0.4, "anneal_over": 20,
            "average": 0.9, "momenta": (0.0, 0.9), "learning_rate": (1e-2, 2e-2),
        },
    ],
    ids=lambda options: ", ".join(options) or "plain",
)  # fmt: skip
def test_training_is_the_plain_loop(options):
    """Twelve steps on the same batches end in the same weights, to rounding of single precision,
    and in the same average, which at step t keeps min(average, (1 + t) / (10 + t)) of itself.

    With the penalty some gradients come transposed in memory, which a fused optimiser misreads.
    """
    recipe = gan.Recipe(**{"batch": 16, "learning_rate": (1e-2, 1e-2)} | options)
    game, twin = small(recipe, k=1, spectral=False), small(recipe, k=1, spectral=False)
    average = plain_loop(game, twin, 12)
    play(game, 12)
    start = small(recipe, k=1, spectral=False)
    for net in ("generator", "discriminator"):
        ours, theirs, before = (getattr(one, net).parameters() for one in (game, twin, start))
        for a, b, c in zip(ours, theirs, before, strict=True):
            assert torch.allclose(a, b, atol=2e-5)
            assert not torch.allclose(a, c, atol=1e-3)
    if recipe.average:
        pairs = [*zip(game.average.parameters(), average, strict=True)]
        assert all(torch.allclose(a, b, atol=2e-5) for a, b in pairs)
        assert not any(p.requires_grad for p in game.average.parameters())
    else:
        assert game.average is game.generator


class Watcher(torch.nn.Module):
    """A discriminator that keeps all that it is shown."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.inner(x)


def test_noise_is_on_data_and_samples_and_falls_to_zero():
    """Data and samples at 0, so the discriminator sees noise alone: at step i of 8 its standard
    deviation is .5 (1 - i / 8), and nothing at all from step 8 on. Chi-squared of each step and
    each of data and samples, 16 tests of 256 values, at a false alarm of 1e-3 together; data and
    samples, and the two models, are not correlated (1e-3 each). The generator is judged on the
    very samples that the discriminator saw."""
    recipe = gan.Recipe(batch=64, noise=0.5, anneal_over=8, learning_rate=(1e-12, 1e-12))
    game = small(recipe, spectral=False)
    for p in game.generator.parameters():
        torch.nn.init.zeros_(p)
    watcher = Watcher(game.discriminator)
    game = gan.Game(game.generator, watcher, (2, 2), recipe, 0)
    list(training.train(game, 12, data=torch.zeros(64, 2)))
    both, judged = watcher.seen[::2], watcher.seen[1::2]
    assert len(both) == len(judged) == 12
    for i, (shown, fake) in enumerate(zip(both, judged, strict=True)):
        assert torch.equal(shown[:, 64:], fake)
        if i >= 8:
            assert shown.abs().max() < 1e-9
            continue
        for part in shown.double().chunk(2, 1):
            law = stats.chi2(part.numel())
            total = float((part / (0.5 * (1 - i / 8))).square().sum())
            assert min(law.cdf(total), law.sf(total)) > 1e-3 / 32
    early = torch.cat(both[:7], -1).numpy()
    assert stats.pearsonr(early[:, :64].ravel(), early[:, 64:].ravel()).pvalue > 1e-3
    assert stats.pearsonr(early[0].ravel(), early[1].ravel()).pvalue > 1e-3


def test_steps_of_the_critic_have_batches_and_samples_of_their_own():
    """Three of them to one of the generator: the data go on batch by batch, an epoch through, and
    no samples come twice."""
    recipe = gan.Recipe(batch=16, n_critic=3)
    game = small(recipe, spectral=False)
    watcher = Watcher(game.discriminator)
    game = gan.Game(game.generator, watcher, (2, 2), recipe, 0)
    list(training.train(game, 4, data=POINTS))
    assert len(watcher.seen) == 4 * (3 + 1)
    critic = [x for i, x in enumerate(watcher.seen) if i % 4 < 3]
    batches = training.Batches(game, POINTS, game.latent[0], game.recipe.batch)
    assert all(torch.equal(x[:, :16], batches[i]) for i, x in enumerate(critic))
    samples = torch.cat([x[:, 16:] for x in critic], 1).flatten(0, 1)
    assert len({tuple(x) for x in samples.tolist()}) == len(samples)


@pytest.mark.parametrize("kind, pack", [("perceptron", 1), ("perceptron", 4), ("convolution", 1)])
def test_models_do_not_meet_in_training(kind, pack):
    """Six steps with all there is; the second model of one game starts elsewhere: the first is
    what it would have been, the second is not."""
    recipe = gan.Recipe(
        batch=8, penalty=1.0, penalty_every=2, n_critic=2, noise=0.1, average=0.5, anneal_over=50,
        learning_rate=(1e-3, 1e-3),
    )  # fmt: skip
    pictures = torch.rand(20, 1, 12, 12, generator=generator(5))
    games = []
    for seed in (0, 1):
        g, d = nets(kind, 2, spectral=True)
        if pack > 1:
            d = gan.Discriminator((1, 12, 12), (16,), 2, generator(), spectral=True, pack=pack)
        with torch.no_grad():
            for p in (*g.parameters(), *d.parameters()):
                p.chunk(2)[1].add_(seed * 0.1)
        games.append(gan.Game(g, d, (2, 4), recipe, 0))
        list(training.train(games[-1], 6, data=pictures))
    for net in ("generator", "discriminator", "average"):
        one, other = (getattr(game, net).state_dict() for game in games)
        for name in one:
            (first, second), (same, another) = one[name].chunk(2), other[name].chunk(2)
            assert torch.allclose(first, same, atol=1e-6)
            # The singular vector of a row is +-1, whatever the row.
            assert not torch.allclose(second, another, atol=1e-4) or second.numel() == 1


def test_half_is_half_precise_and_keeps_whole_weights(tmp_path):
    """bfloat16 keeps 8 bits, an error of .4 % in a product: the first numbers are within 2 % of
    the whole ones, and not within 1e-5; weights stay in single precision, learn, and resume to
    the bit."""
    recipe = gan.Recipe(batch=16, penalty=0.1, average=0.9, learning_rate=(1e-3, 1e-3))
    halved = dataclasses.replace(recipe, half=True)
    whole, half = play(small(recipe), 1)[0], play(small(halved), 1)[0]
    for name in ("value", "generator_loss"):
        one, other = getattr(whole, name), getattr(half, name)
        assert other.dtype == torch.float32
        assert torch.allclose(one, other, rtol=0.02)
        assert not torch.allclose(one, other, rtol=1e-5)
    straight, first, second = small(halved), small(halved), small(halved)
    play(straight, 6)
    play(first, 3, checkpoint=tmp_path / "game.pt")
    training.load(second, tmp_path / "game.pt")
    play(second, 6)
    assert all(map(torch.equal, weights(straight), weights(second)))
    assert all(value.dtype == torch.float32 for value in weights(straight))


def test_an_epoch_is_every_point_once():
    """Six batches of 16 of 100 points: 96 different ones, in another order for each model and
    epoch."""
    game = small()
    batches = training.Batches(game, torch.arange(100.0)[:, None], 2, 16)
    one, two = torch.cat([batches[i] for i in range(6)], 1)[..., 0]
    assert len(set(one.tolist())) == len(set(two.tolist())) == 96
    assert not torch.equal(one, two)
    assert not torch.equal(one, torch.cat([batches[i] for i in range(6, 12)], 1)[0, :, 0])


def test_penalty_comes_every_other_step_and_rates_fall_to_zero():
    game = small()
    steps = play(game, 40)
    assert [step.penalty is not None for step in steps] == [i % 2 == 0 for i in range(40)]
    before = [value.clone() for value in game.generator.state_dict().values()]
    play(game, 42)  # beyond the annealing: the rate is zero
    now = game.generator.state_dict().values()
    assert all(map(torch.equal, before, now))


class Broken(torch.nn.Module):
    """A discriminator whose logits turn into NaN at one of its calls."""

    def __init__(self, inner, at):
        super().__init__()
        self.inner, self.at, self.calls = inner, at, 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x) * (math.nan if self.calls == self.at else 1.0)


@pytest.mark.parametrize("call, what", [(15, "value"), (16, "generator loss")])
def test_nan_stops_the_run_and_names_the_checkpoint(tmp_path, call, what):
    """Step 8 fails, in its first or its second half; the one saved after step 5 is named, and is
    good; the generator is that of step 7."""
    recipe, path = gan.Recipe(batch=16), tmp_path / "game.pt"
    healthy = small(recipe, spectral=False)
    play(healthy, 7)
    game = small(recipe, spectral=False)
    broken = Broken(game.discriminator, call)
    sick = gan.Game(game.generator, broken, (2, 2), recipe, 0)
    with pytest.raises(training.Diverged, match=rf"step 8: .*{what} \[nan.*game\.pt, step 5$"):
        play(sick, 20, checkpoint=path, save_every=5)
    assert sick.step == 7
    assert all(
        map(
            torch.equal,
            healthy.generator.state_dict().values(),
            list(game.generator.state_dict().values()),
        )
    )
    again = gan.Game(game.generator, broken, (2, 2), recipe, 0)
    training.load(again, path)
    assert again.step == 5


@pytest.mark.parametrize("call", [15, 16, 24, 25, 26])
def test_nan_leaves_the_generator_of_the_step_before(call):
    """Step 8 with one step of the critic, its halves (calls 15 and 16); with two, the generator's
    half of step 8 (24) and both of the critic's of step 9 (25 and 26): the generator and its
    average are what a healthy game had, and so is the discriminator before its first loss."""
    n_critic = 1 if call < 20 else 2
    recipe = gan.Recipe(batch=16, n_critic=n_critic, average=0.5, learning_rate=(1e-2, 1e-2))
    done = (call - 1) // (n_critic + 1)
    healthy = small(recipe, spectral=False)
    play(healthy, done)
    game = small(recipe, spectral=False)
    sick = gan.Game(game.generator, Broken(game.discriminator, call), (2, 2), recipe, 0)
    with pytest.raises(training.Diverged, match=f"step {done + 1}: "):
        play(sick, 20)
    assert sick.step == done
    pairs = zip(
        [*healthy.generator.parameters(), *healthy.average.parameters()],
        [*sick.generator.parameters(), *sick.average.parameters()],
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    if call in (15, 25):  # the step's first loss: the discriminator has not moved either
        pairs = zip(
            healthy.discriminator.parameters(), game.discriminator.parameters(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)


class Steep(torch.nn.Module):
    """A discriminator of moderate logits whose slope at the data is infinite."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 1))

    def forward(self, x):
        return self.weight * (x[..., 0] * 0).sqrt()


def test_a_penalty_that_is_not_finite_is_told_from_the_value():
    """V is -log 4, and finite, when the penalty is what fails: the message has both."""
    g = gan.Generator(2, (8,), (2,), 2, generator())
    game = gan.Game(g, Steep(), (2, 2), gan.Recipe(batch=16, penalty=1.0), 0)
    with pytest.raises(training.Diverged, match=r"step 1: value \[-1\.386.*penalty \[nan"):
        play(game, 3)


def test_a_resumed_run_that_diverges_names_the_checkpoint_it_came_from(tmp_path):
    recipe, path = gan.Recipe(batch=16), tmp_path / "game.pt"
    g, d = small(recipe, spectral=False).generator, small(recipe, spectral=False).discriminator
    training.bring(gan.Game(g, Broken(d, 0), (2, 2), recipe, 0), 5, data=POINTS, checkpoint=path)
    game = gan.Game(g, Broken(d, 3), (2, 2), recipe, 0)
    with pytest.raises(training.Diverged, match=r"step 7: value \[nan.*game\.pt, step 5$"):
        training.bring(game, 20, data=POINTS, checkpoint=path)


def test_a_run_without_a_checkpoint_that_diverges_says_so():
    recipe = gan.Recipe(batch=16)
    game = small(recipe, spectral=False)
    sick = gan.Game(game.generator, Broken(game.discriminator, 1), (2, 2), recipe, 0)
    with pytest.raises(training.Diverged, match=r"step 1: value \[nan.*checkpoint: none$"):
        training.bring(sick, 3, data=POINTS)


class Cut(torch.nn.Module):
    """A discriminator at one of whose calls somebody pulls the plug."""

    def __init__(self, inner, at=0):
        super().__init__()
        self.inner, self.at, self.calls = inner, at, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return self.inner(x)


def cut(at=0):
    """A game as `small`'s, three calls of the discriminator a step, to be cut off at one."""
    recipe = dataclasses.replace(RECIPE, penalty=0.0)
    game = small(recipe)
    return gan.Game(game.generator, Cut(game.discriminator, at), (2, 2), recipe, 0)


@pytest.mark.parametrize("at", [14, 16, 32, 35, 36, 52])
def test_play_goes_on_after_a_cut(at, tmp_path):
    """Cut off in a first or second step of the critic, in one of the generator, before the first
    save or after some: played again by a fresh game or by the same one, it ends as one that was
    never cut off. Saved at every fifth step."""
    straight, path = cut(), tmp_path / "deep" / "game.pt"
    training.bring(straight, 23, data=POINTS)
    game = cut(at)
    with pytest.raises(KeyboardInterrupt):
        training.bring(game, 23, data=POINTS, checkpoint=path, save_every=5)
    steps = (at - 1) // 3 // 5 * 5
    assert path.exists() == (steps > 0)
    if steps:
        shutil.copytree(path.parent, tmp_path / "copy")
    fresh = cut()
    training.bring(fresh, 23, data=POINTS, checkpoint=path, save_every=5)
    assert fresh.discriminator.calls == 3 * (23 - steps)
    assert all(map(torch.equal, weights(straight), weights(fresh)))
    if steps:
        training.bring(
            game, 23, data=POINTS, checkpoint=tmp_path / "copy" / "game.pt", save_every=5
        )
        assert all(map(torch.equal, weights(straight), weights(game)))


def test_play_of_a_finished_game_is_a_read(tmp_path):
    """No call of a network and no byte of the file changes; without a checkpoint nothing is kept;
    a file of the last step is there though `save_every` does not divide it."""
    path = tmp_path / "game.pt"
    first, second = cut(), cut()
    training.bring(first, 7, data=POINTS, checkpoint=path)
    before = path.read_bytes()
    training.bring(second, 7, data=POINTS, checkpoint=path)
    assert second.step == 7 and second.discriminator.calls == 0
    assert path.read_bytes() == before
    assert all(map(torch.equal, weights(first), weights(second)))
    training.bring(second, 8, data=POINTS)
    assert [file.name for file in tmp_path.iterdir()] == ["game.pt"]
    assert path.read_bytes() == before
    # More steps go on from it.
    third = cut()
    training.bring(third, 8, data=POINTS, checkpoint=path)
    assert third.discriminator.calls == 3
    assert all(map(torch.equal, weights(second), weights(third)))


def test_play_does_not_go_back(tmp_path):
    game, path = cut(), tmp_path / "game.pt"
    training.bring(game, 4, data=POINTS, checkpoint=path)
    for one, options in ((game, {}), (cut(), {"checkpoint": path})):
        with pytest.raises(ValueError, match="n_steps: the game has made 4 already; got 3"):
            training.bring(one, 3, data=POINTS, **options)


def test_play_shows_a_bar_where_asked(tmp_path, capsys):
    path = tmp_path / "game.pt"
    training.bring(cut(), 2, data=POINTS, checkpoint=path)
    assert capsys.readouterr().err == ""
    training.bring(cut(), 4, data=POINTS, checkpoint=path, progress=True)
    assert "4/4" in capsys.readouterr().err


def test_saves_come_at_every_so_many_steps_and_at_the_end(tmp_path):
    """At 3, 6 and 7 of 7 steps, each before the step's numbers are given out."""
    game, path, saved = small(), tmp_path / "game.pt", []
    for step in training.train(game, 7, data=POINTS, checkpoint=path, save_every=3):
        if path.exists():
            saved.append((step.step, torch.load(path, weights_only=True)["step"]))
    assert saved == [(3, 3), (4, 3), (5, 3), (6, 6), (7, 7)]


def test_nothing_half_written(tmp_path, monkeypatch):
    """A save that fails leaves the old checkpoint and no other file."""
    game, path = small(), tmp_path / "game.pt"
    training.save(game, path)
    before = path.read_bytes()

    def fail(state, file):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        training.save(game, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["game.pt"]


def refused(game, path, words):
    """The load fails, in one line that names the file, and the game is as it was."""
    before, step = [value.clone() for value in weights(game)], game.step
    with pytest.raises(ValueError, match=words) as error:
        training.load(game, path)
    assert str(error.value).startswith(f"checkpoint {path}: ")
    assert "\n" not in str(error.value)
    assert game.step == step
    assert all(map(torch.equal, weights(game), before))


OTHERS = {
    "seed": (lambda: small(seed=1), "of another game"),
    "recipe": (lambda: small(gan.Recipe(batch=16, average=0.5)), "of another game"),
    "models": (lambda: small(k=3), "of other networks"),
    "no spectral norm": (lambda: small(spectral=False), "of other networks"),
    "width of the discriminator": (
        lambda: gan.Game(
            small().generator,
            gan.Discriminator((2,), (9,), 2, generator(1), spectral=True),
            (2, 2), RECIPE, 0,
        ),
        "of other networks",
    ),
    "depth of the generator": (
        lambda: gan.Game(
            gan.Generator(2, (8, 8), (2,), 2, generator()), small().discriminator,
            (2, 2), RECIPE, 0,
        ),
        "of other networks",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_game_is_refused(what, tmp_path):
    """Seed, recipe, or networks: which it is is said, and nothing of it is taken."""
    game, path = small(), tmp_path / "game.pt"
    play(game, 2, checkpoint=path)
    make, words = OTHERS[what]
    refused(make(), path, words)


@pytest.fixture(scope="module")
def good_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "game.pt"
    play(small(), 2, checkpoint=path)
    return path.read_bytes()


def saved(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world\n",
        b"\x80\x02}q\x00.",
        pickle.dumps(np.arange(3)),
        saved([1, 2]),
        saved(torch.zeros(3)),
        saved({"weights": torch.zeros(3)}),
    ],
    ids=["empty", "text", "pickle", "foreign pickle", "list", "tensor", "other keys"],
)
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "game.pt"
    path.write_bytes(content)
    refused(small(), path, "missing or damaged|of another game")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(small(), tmp_path / "none.pt", "missing or damaged")
    refused(small(), tmp_path, "missing or damaged")


def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path, good_bytes):
    """Each of its keys in turn."""
    path = tmp_path / "game.pt"
    whole = torch.load(io.BytesIO(good_bytes), weights_only=True)
    assert {"generator", "discriminator", "average", "adam_g", "adam_d", "step"} <= set(whole)
    for key in whole:
        torch.save({name: part for name, part in whole.items() if name != key}, path)
        refused(small(), path, "of another game|of other networks|damaged")


def test_a_truncated_checkpoint_is_refused(tmp_path, good_bytes):
    """At forty lengths, evenly, and one byte short."""
    path, n = tmp_path / "game.pt", len(good_bytes)
    for length in (*range(1, n, n // 40), n - 1):
        path.write_bytes(good_bytes[:length])
        refused(small(), path, "missing or damaged")


def test_a_flipped_byte_is_refused(tmp_path, good_bytes):
    """One byte in the pickle and in each tensor, where PyTorch alone may not look."""
    path = tmp_path / "game.pt"
    with zipfile.ZipFile(io.BytesIO(good_bytes)) as archive:
        parts = [part for part in archive.infolist() if "/data" in part.filename]
    assert len(parts) > 20
    for part in parts:
        # A local header is 30 bytes, the name and an extra field, whose length is at byte 28.
        begin = part.header_offset
        extra = int.from_bytes(good_bytes[begin + 28 : begin + 30], "little")
        middle = begin + 30 + len(part.filename) + extra + part.file_size // 2
        content = bytearray(good_bytes)
        content[middle] ^= 0xFF
        path.write_bytes(content)
        refused(small(), path, "missing or damaged")


def test_numpys_numbers_are_refused_before_they_are_saved():
    """A checkpoint that holds one could not be read again: neither in a recipe nor as a seed."""
    with pytest.raises(ValueError, match="penalty: expected a number"):
        gan.Recipe(penalty=np.float64(0.1))
    with pytest.raises(ValueError, match="seed: expected an integer"):
        gan.Game(small().generator, small().discriminator, (2, 2), RECIPE, np.int64(3))


@pytest.mark.parametrize(
    "points",
    [torch.zeros(100, 3), torch.zeros(100, 2, 2), torch.zeros(100, 2, dtype=torch.float64)],
    ids=["wider", "pictures", "double"],
)
def test_data_that_do_not_fit_the_networks_are_named(points):
    with pytest.raises(ValueError, match="data: "):
        list(training.train(small(), 1, data=points))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: gan.generator_loss(torch.zeros(3), "hinge"), "loss: expected one of"),
        (lambda: gan.Recipe(loss="minimax"), "loss: expected one of"),
        (lambda: gan.Recipe(batch=0), "batch: expected a whole number >= 1"),
        (lambda: gan.Recipe(n_critic=0), "n_critic: expected a whole number >= 1"),
        (lambda: gan.Recipe(penalty_every=0), "penalty_every"),
        (lambda: gan.Recipe(learning_rate=(1e-3, 0.0)), "learning_rate: expected two"),
        (lambda: gan.Recipe(learning_rate=(math.nan, 1.0)), "learning_rate"),
        (lambda: gan.Recipe(learning_rate=1e-3), "learning_rate: expected two"),
        (lambda: gan.Recipe(learning_rate=(1e-3,)), "learning_rate: expected two"),
        (lambda: gan.Recipe(momenta=(1.0, 0.9)), "momenta"),
        (lambda: gan.Recipe(batch=2.5), "batch: expected"),
        (lambda: gan.Recipe(anneal_over=-1), "anneal_over: expected a whole number >= 0"),
        (lambda: gan.Recipe(penalty=-1.0), "penalty: expected a number >= 0"),
        (lambda: gan.Recipe(noise=math.nan), "noise: expected a number >= 0"),
        (lambda: gan.Recipe(average=1.0), r"average: expected a number in \[0, 1\)"),
        (
            lambda: list(training.train(small(), 5, data=POINTS[:10])),
            "data: expected .* batch = 16",
        ),
        (lambda: play(small(), 5, save_every=0), "save_every: expected >= 1"),
        (lambda: gan.ConvGenerator(4, (1, 18, 18), 8, 1, generator()), "picture: expected"),
        (lambda: gan.ConvDiscriminator((1, 28, 14), 8, 1, generator()), "picture: expected"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
