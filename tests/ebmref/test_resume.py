"""Every trainee, cut and resumed, makes the steps that it would have made: with dropout, statistics
of batches, spectral norms, a frozen layer, in double precision. What cannot is refused by name."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from trainees import numbers

from ebmref import concepts, ddls, gan, gebm, training, translation
from ebmref.concepts.scenes import Family
from ebmref.concepts.unrolling import Inner
from ebmref.networks import Networks
from ebmref.spectral import settle

TRAITS = ["plain", "dropout", "batch", "spectral", "torch-spectral", "frozen", "double", "noise"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Noise(nn.Module):
    """Adds numbers from PyTorch's own generator, as a network may do without a dropout layer."""

    def forward(self, x):
        return x + 0.1 * torch.randn_like(x)


class Net(nn.Module):
    """One perceptron, `(1, n, d)` to `(1, n, out)`, or to `(1, n)`; with a trait."""

    def __init__(self, d, out, trait, g):
        super().__init__()
        self.one, self.two = nn.Linear(d, 8), nn.Linear(8, out or 1)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.rand(p.shape, generator=g) - 0.5)
        self.between = {
            "dropout": lambda: nn.Dropout(0.5),
            "batch": lambda: nn.BatchNorm1d(8),
            "noise": Noise,
        }.get(trait, nn.Identity)()
        self.out = out
        if trait == "spectral":
            gan.spectral_norm(self.one, 1, g)
        if trait == "torch-spectral":
            parametrizations.spectral_norm(self.one)
        if trait == "frozen":
            self.one.requires_grad_(False)

    def forward(self, x):
        x = self.two(self.between(self.one(x[0])).tanh())[None]
        return x if self.out else x[..., 0]


def points(trait, n=50):
    return torch.randn(n, 2, generator=generator(9)).to(dtype_of(trait))


def dtype_of(trait):
    return torch.float64 if trait == "double" else torch.float32


def make_gan(trait):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # PyTorch's spectral norm begins with a draw of its own
        nets = [Net(2, 2, trait, generator(1)), Net(2, None, trait, generator(2))]
    nets = [net.to(dtype_of(trait)) for net in nets]
    recipe = gan.Recipe(batch=16, average=0.9, penalty=0.1, penalty_every=2, n_critic=2, noise=0.1)
    return gan.Game(*nets, (1, 2), recipe, 3)


def make_gebm(trait):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [Net(2, 2, trait, generator(1)), Net(2, None, trait, generator(2))]
    nets = [net.to(dtype_of(trait)) for net in nets]
    recipe = gebm.Recipe(batch=16, average=0.9, penalty=0.1, n_energy=2, n_long=3, constant=0.1)
    return gebm.Game(*nets, (1, 2), recipe, 3)


def make_learner(trait):
    activations = {"dropout": nn.Dropout(0.2), "noise": Noise()}
    act = activations.get(trait, nn.Identity())
    model = concepts.Energy(
        1, generator(1), hidden=8, code=3, bumps=2, activation=lambda x: act(nn.functional.silu(x))
    ).to(dtype_of(trait))
    if trait == "spectral":
        gan.spectral_norm(model.pool.weights, 1, generator(2))
    if trait == "frozen":
        model.enter.requires_grad_(False)
    family = Family(("near", "line"), n_entities=4, n_attended=2, n_decoys=2)
    recipe = concepts.Recipe(inner=Inner(2), batch=4, n_demos=2)
    return concepts.Learner(model, family, recipe, 7)


def make_fit(trait):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net(2, None, trait, generator(1)).to(dtype_of(trait))
    source, data = generator(5), points(trait)

    def loss():
        at = torch.randint(len(data), (16,), generator=source)
        return (model(data[None, at]) - data[at, 0]).square().mean(-1)

    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    return training.Fit(model, loss, adam, generator=source)


def make_translation(trait):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [Net(2, out, trait, generator(i)) for i, out in enumerate((2, None, 2, None, 3))]
    players = translation.Players(*(net.to(dtype_of(trait)) for net in nets))
    recipe = translation.Recipe(
        cycle=1.0, identity=0.5, travel=0.5, margin=1.0, pool=16, batch=16, average=0.9,
        anneal_over=8,
    )  # fmt: skip
    return translation.Game(players, (1, 2), recipe, 3)


MAKE = {
    "gan": make_gan,
    "gebm": make_gebm,
    "learner": make_learner,
    "fit": make_fit,
    "translation": make_translation,
}


# A concept's energy has no place for the others.
CASES = [
    (kind, trait)
    for kind in MAKE
    for trait in TRAITS
    if kind != "learner" or trait not in ("batch", "torch-spectral")
]


@pytest.mark.parametrize("kind, trait", CASES)
def test_a_resume_is_equal_to_the_bit_or_refused(kind, trait, tmp_path):
    """Seven steps at once, and three and four by way of a file, with other draws from PyTorch's own
    generator in between. A fit has no seed to lead dropout by: that is refused, not forgotten."""
    path, data = tmp_path / "half.pt", None if kind in ("learner", "fit") else points(trait)
    if kind == "translation":
        data = (data, data.flip(0))
    first = MAKE[kind](trait)
    if kind == "fit" and trait in ("dropout", "noise"):
        with pytest.raises(ValueError, match="checkpoint: step 1 of the fit drew from PyTorch's"):
            training.bring(first, 3, checkpoint=path)
        assert not path.exists()
        return
    straight, second = MAKE[kind](trait), MAKE[kind](trait)
    own = torch.get_rng_state()
    training.bring(straight, 7, data=data)
    assert torch.equal(own, torch.get_rng_state())
    training.bring(first, 3, data=data, checkpoint=path)
    torch.rand(5)
    training.bring(second, 3, data=data, checkpoint=path)
    training.bring(second, 7, data=data)
    one, other = numbers(straight), numbers(second)
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    before = numbers(MAKE[kind](trait))
    moved = {key for key in before if not torch.equal(before[key], one[key])}
    assert any(".two." in key or "judge" in key for key in moved)
    frozen = [key for key in before if ".one." in key or ".enter." in key]
    assert trait != "frozen" or (frozen and not moved & set(frozen))


def test_dropout_goes_by_seed_and_step():
    """Not by PyTorch's own generator, and not twice by the same number."""
    games = [make_gan("dropout") for _ in range(3)]
    games[2].seed = 4
    made = []
    for i, game in enumerate(games):
        torch.manual_seed(i)
        made.append([s.value.item() for s in training.train(game, 3, data=points("dropout"))])
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("kind", MAKE)
def test_a_layer_frozen_on_the_way_stays(kind):
    """Also where the optimiser still has its last gradient."""
    trainee = MAKE[kind]("plain")
    data = None if kind in ("learner", "fit") else points("plain")
    if kind == "translation":
        data = (data, data.flip(0))
    training.bring(trainee, 2, data=data)
    held = trainee.model.enter if kind == "learner" else {
        "gan": lambda: trainee.discriminator.one, "gebm": lambda: trainee.energy.one,
        "fit": lambda: trainee.model.one,
        "translation": lambda: trainee.players.ab.one}[kind]()  # fmt: skip
    held.requires_grad_(False)
    before = copy.deepcopy(held.state_dict())
    training.bring(trainee, 4, data=data)
    assert all(torch.equal(x, before[name]) for name, x in held.state_dict().items())


def test_a_net_with_nothing_left_to_learn_is_named():
    game = make_gan("plain")
    game.discriminator.requires_grad_(False)
    with pytest.raises(ValueError, match="all are frozen"):
        next(training.train(game, 1, data=points("plain")))
    base = Net(2, 2, "plain", generator()).requires_grad_(False)
    with pytest.raises(ValueError, match=r"base: expected an nn\.Module with parameters"):
        gebm.Game(base, Net(2, None, "plain", generator()), (1, 2), gebm.Recipe(), 0)


def test_networks_of_two_dtypes_are_named():
    nets = Net(2, 2, "plain", generator()).double(), Net(2, None, "plain", generator())
    with pytest.raises(ValueError, match=r"discriminator: expected torch\.float64"):
        gan.Game(*nets, (1, 2), gan.Recipe(), 0)


# Averages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("trait", ["spectral", "torch-spectral"])
@pytest.mark.parametrize("mode", [True, False])
def test_an_average_has_the_spectral_norm_of_its_own_weights(trait, mode):
    """After steps that have moved the weights far its largest singular value is one, whatever mode
    the average is in. With the vectors of the start, or of the net, it would be more."""
    net = Net(6, 6, trait, generator(1))
    average = copy.deepcopy(net).requires_grad_(False).train(mode)
    for step in range(300):
        with torch.no_grad():
            original = net.one.parametrizations.weight.original
            original += torch.randn(original.shape, generator=generator(step)) / 10
            net.one.weight  # noqa: B018  what a pass does
        training.take_into_average(average, net, 0.99, 1000)
    assert average.one.parametrizations.weight.training is mode
    assert average.one.parametrizations.weight.original.std() > 0.2
    average.eval()
    norm = torch.linalg.matrix_norm(average.one.weight, 2)
    assert float(norm.detach()) == pytest.approx(1, abs=1e-3)


def test_an_average_takes_buffers_over():
    """Statistics of batches and their count are the net's own; weights are averaged."""
    net = Net(2, 2, "batch", generator(1))
    average = copy.deepcopy(net).requires_grad_(False)
    with torch.no_grad():
        net(torch.randn(1, 30, 2, generator=generator(2)) + 5)
        net.two.weight += 1
    training.take_into_average(average, net, 0.5, 100)
    for name, held in average.named_buffers():
        assert torch.equal(held, dict(net.named_buffers())[name]), name
    assert average.between.num_batches_tracked == 1
    assert torch.allclose(average.two.weight, net.two.weight - 0.5)


def test_to_settle_leaves_weights_and_modes():
    net = Net(2, 2, "spectral", generator(1)).eval()
    before = {name: p.clone() for name, p in net.named_parameters()}
    u = net.one.parametrizations.weight[0].u.clone()
    settle(net)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert not torch.equal(u, net.one.parametrizations.weight[0].u)
    assert not any(module.training for module in net.modules())


def test_double_precision_is_kept():
    """In the spectral norm of weights that have it, and in what a step tells."""
    nets = Networks((2, 3), 2, generator()).double()
    gan.spectral_norm(nets.weights, 2, generator())
    assert nets(torch.ones(4, 2, dtype=torch.float64)).dtype == torch.float64
    step = next(training.train(make_gan("double"), 1, data=points("double")))
    assert step.value.dtype == step.generator_loss.dtype == torch.float64
    constant = make_gebm("double").constant
    assert float(constant.detach()) == 0.1 and constant.dtype == torch.float64


def test_a_spectral_norm_of_zero_is_refused():
    nets = Networks((2, 3), 2, generator())
    with torch.no_grad():
        nets.weights[0][1] = 0
    with pytest.raises(ValueError, match="weight: expected one that is not zero"):
        gan.spectral_norm(nets.weights, 2, generator())


# What is not finite ----------------------------------------------------------------------------


class Radial(Net):
    """Looks at |x|, whose slope at the origin is not a number though its value is."""

    def __init__(self):
        super().__init__(1, None, "plain", generator(1))

    def forward(self, x):
        return super().forward(x.square().sum(-1, keepdim=True).sqrt())


def origin_game():
    net = Net(2, 2, "plain", generator(1))
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    return gan.Game(net, Radial(), (1, 2), gan.Recipe(batch=16), 0)


def test_weights_that_a_slope_has_spoilt_are_not_the_last_good_ones(tmp_path):
    """The loss is finite and the weights are not: no file, and with a file the old one stays. A
    run's last step is looked at without a checkpoint, too."""
    path, data = tmp_path / "game.pt", points("plain") + 3
    with pytest.raises(training.Diverged, match=r"step 1: generator.* last good checkpoint: none"):
        training.bring(origin_game(), 5, data=data, checkpoint=path, save_every=1)
    assert not path.exists()
    with pytest.raises(training.Diverged, match="step 1: generator"):
        training.bring(origin_game(), 1, data=data)


def test_a_file_with_nan_is_not_believed(tmp_path):
    path = tmp_path / "game.pt"
    training.bring(make_gan("plain"), 1, data=points("plain"), checkpoint=path)
    state = torch.load(path, weights_only=True)
    state["average"]["one.weight"][0, 0] = float("nan")
    torch.save(state, path)
    game = make_gan("plain")
    before = numbers(game)
    with pytest.raises(ValueError, match=r"average\.one\.weight is not finite"):
        training.load(game, path)
    assert game.step == 0 and all(torch.equal(x, before[k]) for k, x in numbers(game).items())


def test_a_nan_in_a_list_of_an_optimiser_is_seen(tmp_path):
    game = make_gan("plain")
    next(training.train(game, 9, data=points("plain")))
    p = next(game.generator.parameters())
    game.adam_g.state[p]["history"] = [torch.zeros(2), torch.tensor([1.0, float("inf")])]
    with pytest.raises(training.Diverged, match=r"adam_g\.state\.0\.history\.1 is not finite"):
        training.save(game, tmp_path / "game.pt")


# Contexts --------------------------------------------------------------------------------------


def test_a_file_of_another_dtype_is_refused(tmp_path):
    path = tmp_path / "game.pt"
    training.bring(make_gan("double"), 1, data=points("double"), checkpoint=path)
    with pytest.raises(ValueError, match="other networks; names, shapes or dtypes"):
        training.load(make_gan("plain"), path)


def test_a_file_made_with_another_default_dtype_is_refused(tmp_path):
    """Batches are drawn in it."""
    path = tmp_path / "game.pt"
    training.bring(make_gan("double"), 1, data=points("double"), checkpoint=path)
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match=r"default dtype torch\.float32; it is torch\.float64"):
            training.load(make_gan("double"), path)
        training.save(make_gan("double"), path)
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(ValueError, match=r"default dtype torch\.float64; it is torch\.float32"):
        training.load(make_gan("double"), path)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", MAKE)
def test_training_without_gradients_is_named(kind, context):
    trainee = MAKE[kind]("plain")
    with context(), pytest.raises(RuntimeError, match="training needs gradients"):
        training.bring(trainee, 1, data=points("plain"))


def test_arrays_and_data_of_another_dtype_are_named():
    data = points("plain")
    for kind in ("gan", "gebm"):
        with pytest.raises(ValueError, match=r"data: expected a torch\.Tensor; got ndarray"):
            training.bring(MAKE[kind]("plain"), 1, data=data.numpy())
    model = ddls.Model(
        Net(2, 2, "plain", generator()), Net(2, None, "plain", generator()), ddls.Normal(2)
    )
    for wrong, words in ((data.double(), r"data: .* torch\.float64"), (data.numpy(), "ndarray")):
        with pytest.raises(ValueError, match=words):
            next(ddls.train_critic(model, wrong, 1, generator()))
    with pytest.raises(ValueError, match=r"prior: expected torch\.float64"):
        ddls.Model(Net(2, 2, "plain", generator()).double(), lambda x: x[..., 0], ddls.Normal(2))


@pytest.mark.parametrize("trait", TRAITS)
def test_a_critic_with_any_trait_is_trained(trait):
    """Repeated by its generator's seed, and PyTorch's own where dropout draws from that."""
    dtype, made = dtype_of(trait), []
    for _ in range(2):
        torch.manual_seed(0)
        critic = Net(2, None, trait, generator(1)).to(dtype)
        before = copy.deepcopy(critic.one.state_dict())
        model = ddls.Model(lambda z: z, critic, ddls.Normal(2, dtype))
        steps = ddls.train_critic(model, points(trait), 3, generator(), batch=8, penalty=0.1)
        made.append([step.value.item() for step in steps])
        after = critic.one.state_dict()
        assert trait != "frozen" or all(torch.equal(before[k], after[k]) for k in before)
    assert made[0] == made[1] and len(made[0]) == 3
