"""The game's values against closed forms; training repeats, resumes to the bit and stops on NaN."""

import math
from pathlib import Path

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ebmref import data, gan

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


def test_28_and_32_are_pictures_of_dcgan_size():
    for side, width in ((28, 16), (32, 8)):
        g = gan.ConvGenerator(10, (3, side, side), width, 1, generator())
        d = gan.ConvDiscriminator((3, side, side), width, 1, generator())
        assert d(g(torch.randn(1, 2, 10, generator=generator()))).shape == (1, 2)


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
    return list(gan.train(game, POINTS, n_steps, **options))


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
    second.load(tmp_path / "game.pt")
    rest = play(second, 31)
    assert second.step == 31
    assert all(map(torch.equal, weights(straight), weights(second)))
    assert [step.step for step in rest] == list(range(18, 32))
    for a, b in zip(steps[17:], rest, strict=True):
        assert torch.equal(a.value, b.value) and torch.equal(a.generator_loss, b.generator_loss)


def test_same_seed_same_game_and_another_seed_another():
    one, same, other = small(), small(), small()
    other.seed = 1
    for game in (one, same, other):
        play(game, 5)
    assert all(map(torch.equal, weights(one), weights(same)))
    assert not all(map(torch.equal, weights(one), weights(other)))


def plain_loop(game, twin):
    """The textbook's loop on the batches of `game`: PyTorch's losses, Adam, backward, twice."""
    recipe, g, d = game.recipe, twin.generator, twin.discriminator
    batches = gan._Batches(game, POINTS)
    adam_g = torch.optim.Adam(g.parameters(), recipe.learning_rate[0], betas=recipe.momenta)
    adam_d = torch.optim.Adam(d.parameters(), recipe.learning_rate[1], betas=recipe.momenta)
    for step in range(12):
        z = game.latents(recipe.batch, gan._source(game, f"step-{step}"))
        real, fake = batches[step].clone().requires_grad_(), g(z).detach()
        adam_d.zero_grad()
        on_real, on_fake = d(real), d(fake)
        loss = bce(on_real, torch.ones_like(on_real)) + bce(on_fake, torch.zeros_like(on_fake))
        if recipe.penalty:
            (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            loss = loss + 0.5 * recipe.penalty * slope.square().sum(-1).mean()
        loss.backward()
        adam_d.step()
        adam_g.zero_grad()
        logit = d(g(z))
        if recipe.loss == "saturating":
            loss = -bce(logit, torch.zeros_like(logit))
        else:
            loss = bce(logit, torch.ones_like(logit))
        loss.backward()
        adam_g.step()


@pytest.mark.parametrize("loss", gan.LOSSES)
@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_training_is_the_plain_loop(loss, penalty):
    """Twelve steps on the same batches end in the same weights, to rounding of single precision.

    With the penalty some gradients come transposed in memory, which a fused optimiser misreads.
    """
    recipe = gan.Recipe(loss=loss, batch=16, learning_rate=(1e-2, 1e-2), penalty=penalty)
    game, twin = small(recipe, k=1, spectral=False), small(recipe, k=1, spectral=False)
    plain_loop(game, twin)
    play(game, 12)
    start = weights(small(recipe, k=1, spectral=False))
    for ours, theirs, before in zip(weights(game), weights(twin), start, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5)
        assert not torch.allclose(ours, before, atol=1e-3)


def test_average_is_the_moving_average():
    """After each step average = 0.9 average + 0.1 weights."""
    game = small(gan.Recipe(batch=16, average=0.9), spectral=False)
    kept = [p.detach().clone() for p in game.generator.parameters()]
    for _ in gan.train(game, POINTS, 6):
        kept = [
            0.9 * a + 0.1 * p.detach()
            for a, p in zip(kept, game.generator.parameters(), strict=True)
        ]
    assert all(map(torch.allclose, kept, game.average.parameters()))
    assert small(gan.Recipe(batch=16)).average is not None


def test_an_epoch_is_every_point_once():
    """Six batches of 16 of 100 points: 96 different ones, in another order for each model and
    epoch."""
    game = small()
    batches = gan._Batches(game, torch.arange(100.0)[:, None])
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
    with pytest.raises(gan.Diverged, match=f"step 8: {what} is .*nan.*game.pt, step 5"):
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
    again.load(path)
    assert again.step == 5


def test_nothing_half_written(tmp_path, monkeypatch):
    """A save that fails leaves the old checkpoint and no other file."""
    game, path = small(), tmp_path / "game.pt"
    game.save(path)
    before = path.read_bytes()

    def fail(state, file):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        game.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["game.pt"]


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    game, path = small(), tmp_path / "game.pt"
    game.save(path)
    with pytest.raises(ValueError, match="missing or damaged"):
        game.load(tmp_path / "none.pt")
    (tmp_path / "half.pt").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="missing or damaged"):
        game.load(tmp_path / "half.pt")
    with pytest.raises(ValueError, match="of another game"):
        small(gan.Recipe(batch=16, average=0.5), seed=1).load(path)
    with pytest.raises(ValueError, match="of other networks"):
        small(k=3).load(path)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: gan.generator_loss(torch.zeros(3), "hinge"), "loss: expected one of"),
        (lambda: gan.Recipe(loss="minimax"), "loss: expected one of"),
        (lambda: gan.Recipe(batch=0), "batch: expected >= 1"),
        (lambda: gan.Recipe(n_critic=0), "n_critic: expected >= 1"),
        (lambda: gan.Recipe(penalty_every=0), "penalty_every"),
        (lambda: gan.Recipe(learning_rate=(1e-3, 0.0)), "learning_rate: expected two"),
        (lambda: gan.Recipe(learning_rate=(math.nan, 1.0)), "learning_rate"),
        (lambda: gan.Recipe(penalty=-1.0), "penalty: expected >= 0"),
        (lambda: gan.Recipe(noise=math.nan), "noise: expected >= 0"),
        (lambda: gan.Recipe(average=1.0), r"average: expected in \[0, 1\)"),
        (lambda: list(gan.train(small(), POINTS[:10], 5)), "data: expected .* batch = 16"),
        (lambda: play(small(), 5, save_every=0), "save_every: expected >= 1"),
        (lambda: gan.ConvGenerator(4, (1, 18, 18), 8, 1, generator()), "picture: expected"),
        (lambda: gan.ConvDiscriminator((1, 28, 14), 8, 1, generator()), "picture: expected"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
