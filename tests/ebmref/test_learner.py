"""One learner for all methods: resumed to the bit, side by side without meeting, loud when lost."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from trainees import numbers

from ebmref import energies, training
from ebmref import likelihood as L
from ebmref.rbm import RBM, Bits, gibbs
from ebmref.rbm import log_z as rbm_log_z
from ebmref.samplers import ex2mcmc, hmc, mala, ula


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def points(n=60, dtype=torch.float32):
    return torch.randn(n, 2, generator=generator(9)).to(dtype)


LAW = energies.Gaussian(torch.zeros(2), 4 * torch.eye(2))
SIDE = torch.linspace(-4, 4, 9)
GRID = torch.cartesian_prod(SIDE, SIDE)


def langevin(energy):
    return ula(energy, 0.05)


METHODS = {
    "exact": lambda: L.exact(L.on_grid(GRID, 1.0)),
    "cd": lambda: L.cd(langevin, 2),
    "cd-mala": lambda: L.cd(lambda e: mala(e, 0.1), 2, beta=2.0),
    "pcd": lambda: L.persistent_cd(langevin, 2, LAW, size=40, restart=0.2, n_chains=20),
    "pcd-hmc": lambda: L.persistent_cd(lambda e: hmc(e, 0.1, 2), 2, LAW, size=40),
    "improved": lambda: L.persistent_cd(langevin, 2, LAW, size=40, kl=1.0, entropy=0.3),
    "improved-cd": lambda: L.cd(lambda e: mala(e, 0.1), 2, kl=0.5, entropy=0.5),
    "short": lambda: L.short_run(langevin, 3, LAW, n_chains=8),
    "nce": lambda: L.noise_contrastive(LAW, 2),
    "matching": lambda: L.matching(),
    "sliced": lambda: L.matching(2),
    "denoised": lambda: L.denoised((0.1, 0.3)),
}
RECIPES = {
    "plain": L.Recipe(16),
    "remedies": L.Recipe(
        16, energy_penalty=0.1, gradient_penalty=0.1, data_noise=0.05, clip=1.0, average=0.9,
        anneal_over=20, limit=1e4, constant_rate=0.1,
    ),
}  # fmt: skip


class Dropped(L.Perceptrons):
    """With dropout in the loss; chains see none."""

    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.3, self.training))


def make(method, recipe="plain", n_models=None, trait="plain", seed=3):
    kind = Dropped if trait == "dropout" else L.Perceptrons
    net = kind(2, (8, 8), n_models, generator(1), spectral=trait == "spectral", confine=4.0)
    return L.Learner(net, METHODS[method](), RECIPES[recipe], seed, n_models)


# Resuming --------------------------------------------------------------------------------------

CASES = [(m, "remedies" if i % 2 else "plain", k, "plain")
         for i, m in enumerate(METHODS) for k in (None, 3)]  # fmt: skip
CASES += [("pcd", r, k, t) for r in RECIPES for k in (None, 2) for t in ("spectral", "dropout")]


@pytest.mark.parametrize("method, recipe, n_models, trait", CASES)
def test_a_resume_is_equal_to_the_bit(method, recipe, n_models, trait, tmp_path):
    """Seven steps at once, and three and four by way of a file, with other draws in between."""
    path, data = tmp_path / "half.pt", points()
    straight, first, second = (make(method, recipe, n_models, trait) for _ in range(3))
    own = torch.get_rng_state()
    training.bring(straight, 7, data=data)
    assert torch.equal(own, torch.get_rng_state())
    training.bring(first, 3, data=data, checkpoint=path)
    torch.rand(5)
    training.bring(second, 3, data=data, checkpoint=path)
    training.bring(second, 7, data=data)
    one, other = numbers(straight), numbers(second)
    assert one.keys() == other.keys() and straight.n_gradients == second.n_gradients > 0
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    before = numbers(make(method, recipe, n_models, trait))
    moved = {key for key in before if not torch.equal(before[key], one[key])}
    assert any(key.startswith("energy.") for key in moved)
    assert "pcd" not in method or "memory.x" in moved
    assert method != "nce" or "memory.value" in moved


@pytest.mark.parametrize("method", ["exact", "cd", "pcd", "nce"])
def test_a_machine_is_resumed_to_the_bit(method, tmp_path):
    v = (torch.rand(60, 5, generator=generator(2)) < 0.3).float()
    made = {
        "exact": lambda: L.exact(rbm_log_z),
        "cd": lambda: L.cd(gibbs, 1),
        "pcd": lambda: L.persistent_cd(gibbs, 2, Bits.of_data(v), size=30),
        "nce": lambda: L.noise_contrastive(Bits.of_data(v), 2),
    }[method]

    def start():
        return L.Learner(RBM(5, 3, generator(1), 0.3), made(), L.Recipe(16, 0.01), 4)

    path = tmp_path / "half.pt"
    straight, first, second = start(), start(), start()
    training.bring(straight, 7, data=v)
    training.bring(first, 3, data=v, checkpoint=path)
    training.bring(second, 7, data=v, checkpoint=path)
    one, other = numbers(straight), numbers(second)
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_what_differs_is_named(tmp_path):
    path, data = tmp_path / "one.pt", points()
    training.bring(make("pcd"), 1, data=data, checkpoint=path)
    for other, words in (
        (make("pcd", seed=4), "seed"),
        (make("cd"), "method"),
        (make("pcd-hmc"), "method"),
        (make("pcd", "remedies"), "recipe"),
    ):
        with pytest.raises(ValueError, match=rf"of another energy \(.*{words}.*differ\)"):
            training.load(other, path)
    longer = L.persistent_cd(langevin, 3, LAW, size=40, restart=0.2, n_chains=20)
    net = L.Perceptrons(2, (8, 8), None, generator(1), confine=4.0)
    with pytest.raises(ValueError, match=r"\(method differ\)"):
        training.load(L.Learner(net, longer, RECIPES["plain"], 3), path)


# Side by side ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_models_side_by_side_never_meet(method, recipe):
    """Other weights of the second leave the first as it was, to the bit, its chains included."""
    one, other = make(method, recipe, 2), make(method, recipe, 2)
    with torch.no_grad():
        for parameter in other.energy.parameters():
            parameter[1] *= 1.5
    training.bring(one, 4, data=points())
    training.bring(other, 4, data=points())
    for name, x in numbers(one).items():
        y = numbers(other)[name]
        if x.dim() and len(x) == 2 and not name.startswith("adam"):
            assert torch.equal(x[0], y[0]), name
    assert not torch.equal(one.energy.layers.weights[0][1], other.energy.layers.weights[0][1])
    chosen = one.energy.layers.weights[0]
    assert not torch.equal(chosen[0], chosen[1])


def test_numbers_of_a_step_are_one_a_model():
    for n_models, shape in ((None, ()), (3, (3,))):
        step = next(training.train(make("pcd", "remedies", n_models), 1, data=points()))
        for name in ("loss", "positive", "negative", "gradient", "acceptance_rate"):
            assert getattr(step, name).shape == shape, name
        assert step.n_gradients == 16 + 20 * 4
        assert torch.allclose(step.loss, step.positive - step.negative, atol=1e-6)
    assert next(training.train(make("matching"), 1, data=points())).negative is None


def test_perceptrons_are_confined_and_have_a_unit():
    """Doubled lengths in a doubled unit are the same networks; |x|^2 / (2 confine^2) is on top."""
    x = points(5)
    plain = L.Perceptrons(2, (8,), 2, generator(1))
    wide = L.Perceptrons(2, (8,), 2, generator(1), unit=2.0, confine=3.0)
    bowl = (2 * x).square().sum(-1) / 18
    assert torch.allclose(wide(2 * x), plain(x) + bowl, atol=1e-6)
    alone = L.Perceptrons(2, (8,), None, generator(1))
    assert plain(x).shape == (2, 5) and alone(x).shape == (5,)


# Remedies --------------------------------------------------------------------------------------


def first_step(recipe, method="cd", n_models=None):
    net = L.Perceptrons(2, (8, 8), n_models, generator(1), confine=4.0)
    learner = L.Learner(net, METHODS[method](), recipe, 3, n_models)
    before = [p.detach().clone() for p in net.parameters()]
    step = next(training.train(learner, 1, data=points()))
    return learner, step, before


def test_clipping_holds_the_gradient_of_each_model():
    """Adam's first moment after a step is a tenth of the gradient it was given."""
    for limit in (1e-3, 1e6):
        learner, step, _ = first_step(L.Recipe(16, clip=limit), n_models=2)
        given = torch.stack([
            learner.adam.state[p]["exp_avg"].reshape(2, -1).square().sum(1) * 100
            for p in learner.energy.parameters()
        ]).sum(0).sqrt()  # fmt: skip
        assert torch.allclose(given, step.gradient.clamp(max=limit), rtol=1e-4)


def test_rates_fall_and_weights_are_averaged():
    learner = make("exact", "remedies")
    training.bring(learner, 15, data=points())
    fall = training.cosine_fall(14, 20)
    assert [g["lr"] for g in learner.adam.param_groups] == pytest.approx([1e-3 * fall])
    averaged, plain = learner.model(averaged=True), learner.model()
    assert not averaged.training and not any(p.requires_grad for p in plain.parameters())
    assert torch.equal(plain.layers.weights[0], learner.energy.layers.weights[0])
    assert torch.equal(averaged.layers.weights[0], learner.average.layers.weights[0])
    assert not torch.equal(averaged.layers.weights[0], plain.layers.weights[0])
    assert make("exact").average is not None and make("exact").average.training


def test_data_noise_blurs_the_data():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.a * x.square().sum(-1)

    learner = L.Learner(Square(), L.matching(), L.Recipe(4000, data_noise=0.5), 0)
    step = next(training.train(learner, 1, data=torch.ones(4000, 2)))
    assert float(step.positive) == pytest.approx(2 * 1.25, rel=0.05)


@pytest.mark.parametrize("name", ["energy_penalty", "gradient_penalty"])
def test_penalties_are_part_of_the_gradient_and_not_of_the_loss(name):
    _, plain, _ = first_step(L.Recipe(16))
    _, weighed, _ = first_step(L.Recipe(16, **{name: 5.0}))
    assert torch.equal(plain.loss, weighed.loss)
    assert float(plain.gradient) != pytest.approx(float(weighed.gradient), rel=0.01)


def test_chains_leave_modes_and_spectral_norms_alone():
    """The vectors of a spectral norm move by the passes of the loss, not by those of the chain."""
    learners = []
    for k in (1, 9):
        net = L.Perceptrons(2, (8,), None, generator(1), spectral=True)
        method = L.cd(langevin, k)
        net.layers.biases.eval()
        method.phase(net, points(16), method.memory(None, points(1), generator()), generator())
        assert net.training and not net.layers.biases.training
        learners.append(net.layers.weights.parametrizations["0"][0].u.clone())
    assert torch.equal(*learners)


# Loud when lost --------------------------------------------------------------------------------


class Broken(L.Perceptrons):
    """Gives what it is told to from a step on."""

    value, at = math.nan, None

    def forward(self, x):
        energy = super().forward(x)
        return energy + self.value if self.at is not None and self.at() else energy


def broken(method, value, at_step, recipe=None):
    net = Broken(2, (8, 8), None, generator(1), confine=4.0)
    learner = L.Learner(net, METHODS[method](), recipe or L.Recipe(16), 3)
    net.value, net.at = value, lambda: learner.step >= at_step
    return learner


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_energies_that_are_no_numbers_stop_the_training(method, value, tmp_path):
    """The message names method, step and the last checkpoint; the weights stay."""
    path = tmp_path / "one.pt"
    learner = broken(method, value, 3)
    words = r"not finite.*; step 4: .*last good checkpoint: .*one\.pt, step 2$"
    with pytest.raises(training.Diverged, match=words) as caught:
        training.bring(learner, 9, data=points(), checkpoint=path, save_every=2)
    assert str(caught.value).startswith(learner.method.name)
    assert learner.step == 3
    assert all(p.isfinite().all() for p in learner.energy.parameters())


def test_a_loss_beyond_its_limit_counts_as_diverged():
    words = (
        r"CD-2: the loss is beyond the limit 1e-07; step 1: loss .*, positive .*, negative .*; last"
    )
    with pytest.raises(training.Diverged, match=words):
        first_step(L.Recipe(16, limit=1e-7))
    first_step(L.Recipe(16, limit=1e3))
    below = r"score matching: the loss is beyond the limit 1e-07; step 1: loss -0\."
    with pytest.raises(training.Diverged, match=below):
        first_step(L.Recipe(16, limit=1e-7), "matching")


def test_a_gradient_that_is_no_number_moves_nothing():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return self.a.sqrt() + x.square().sum(-1)

    learner = L.Learner(Root(), L.exact(L.on_grid(GRID, 1.0)), L.Recipe(16), 0)
    with pytest.raises(training.Diverged, match=r"exact: the gradient is not finite; step 1: loss"):
        next(training.train(learner, 1, data=points()))
    assert learner.energy.a.item() == 0


def test_chains_that_cannot_start_are_a_divergence():
    """A buffer whose energies overflow."""
    learner = make("pcd")
    learner.memory.x.fill_(1e30)
    with pytest.raises(training.Diverged, match=r"PCD: chains cannot start: .*; step 1"):
        next(training.train(learner, 1, data=points()))


# Bad inputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_it, words",
    [
        (lambda: L.cd(langevin, 0), r"n_steps: expected an integer >= 1; got 0"),
        (lambda: L.cd(langevin, 1.5), "n_steps: expected an integer"),
        (lambda: L.cd(langevin, 1, beta=0), "beta: expected a number > 0"),
        (lambda: L.cd(langevin, 1, kl=-1), "kl: expected a number >= 0"),
        (lambda: L.cd(langevin, 1, entropy=math.nan), "entropy: expected a number >= 0"),
        (lambda: L.persistent_cd(langevin, 1, LAW, size=0), "size: expected an integer >= 1"),
        (lambda: L.persistent_cd(langevin, 1, LAW, restart=1.5), "restart: expected a share"),
        (lambda: L.persistent_cd(langevin, 1, None), "noise: expected a law with sample"),
        (lambda: L.short_run(langevin, 1, LAW, n_chains=0), "n_chains: expected an integer >= 1"),
        (lambda: L.noise_contrastive(LAW, 0), "nu: expected an integer >= 1"),
        (lambda: L.noise_contrastive(SimpleNamespace(sample=1)), "noise: expected a law"),
        (lambda: L.matching(0), "n_directions: expected an integer >= 1"),
        (lambda: L.denoised(0.0), "sigmas: expected a number > 0"),
        (lambda: L.denoised(()), "sigmas: expected one or more"),
        (lambda: L.on_grid(GRID, 0.0), "cell: expected a number > 0"),
        (lambda: L.tempered(LAW, -1.0), "beta: expected a number > 0"),
        (lambda: L.Buffer(torch.zeros(0, 2)), "buffer: expected one chain or more"),
        (lambda: L.Buffer(torch.zeros(3, 4, 2), 2), "buffer: expected one chain or more"),
        (lambda: L.Buffer(torch.zeros(3, 2)).draw(4, generator()), "expected 4 chains or more"),
        (lambda: L.run(ula(LAW, 0.1), points(3), 0, generator()), "n_steps: expected an integer"),
        (lambda: L.denoising(LAW, points(3), points(2), 0.1), "noise: expected"),
        (lambda: L.denoising(LAW, points(3), points(3), 0.0), "sigma: expected > 0"),
        (lambda: L.sliced_score_matching(LAW, points(3), points(3)), "directions: expected"),
        (lambda: L.nearest_entropy(points(1)), "others: expected one point or more"),
        (lambda: L.nearest_entropy(points(3), torch.zeros(3, 1)), "x, others: expected"),
        (lambda: L.Recipe(clip=0.0), "clip: expected a number > 0 or None"),
        (lambda: L.Recipe(average=1.0), "average: expected a number in"),
        (lambda: L.Recipe(energy_penalty=-1.0), "energy_penalty: expected a number >= 0"),
        (lambda: L.Recipe(reach=-1.0), "reach: expected a number > 0 or None"),
        (lambda: L.Recipe(alone=1), "alone: expected True or False"),
        (lambda: L.Recipe(batch=0), "batch: expected a whole number >= 1"),
        (lambda: L.Perceptrons(2, (8,), None, generator(), confine=0.0), "confine: expected"),
        (lambda: L.Perceptrons(2, (8,), None, generator(), unit=0.0), "unit: expected"),
        (lambda: L.Learner(LAW, L.matching(), L.Recipe(), 0), r"energy: expected an nn\.Module"),
        (lambda: L.Learner(nn.Linear(2, 1), L.matching(), L.Recipe(), 0.5), "seed: expected"),
        (lambda: L.Learner(nn.Linear(2, 1), L.matching(), L.Recipe(), 0, 0), "n_models: expected"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(make_it, words):
    with pytest.raises(ValueError, match=words):
        make_it()


def test_energies_that_are_no_numbers_are_named():
    data = torch.tensor([[0.0, 1.0], [math.nan, 1.0]])
    for loss in (
        lambda: L.cd_loss(LAW, data, points(3)),
        lambda: L.cd_loss(LAW, points(3), data),
        lambda: L.score_matching(LAW, data),
        lambda: L.nce_loss(LAW, torch.zeros(()), data, points(4), LAW),
        lambda: L.exact_loss(LAW, points(3), L.over(data)),
    ):
        with pytest.raises(L.NotFinite, match=r"energy: is (not finite|NaN)"):
            loss()
    with pytest.raises(ValueError, match="energy: expected one number for each of data"):
        L.cd_loss(lambda x: x, points(3), points(3))
    with pytest.raises(ValueError, match=r"data: expected \(n, \*event\)"):
        L.cd_loss(LAW, torch.zeros(0, 2), points(3))


def test_a_noise_without_support_or_of_another_kind_is_named():
    """NCE: no mass at the data. Chains: other events, another dtype."""
    box = energies.Box(torch.zeros(2))

    def train(method):
        learner = L.Learner(L.Perceptrons(2, (4,), None, generator()), method, L.Recipe(16), 0)
        next(training.train(learner, 1, data=points()))

    with pytest.raises(ValueError, match=r"noise: has no finite log_prob at \d+ of 16 of the data"):
        train(L.noise_contrastive(box))
    three = energies.Gaussian(torch.zeros(3), torch.eye(3))
    with pytest.raises(ValueError, match=r"noise: expected events of \(2,\), as data; got \(3,\)"):
        train(L.short_run(langevin, 1, three))
    wide = energies.Gaussian(torch.zeros(2).double(), torch.eye(2).double())
    with pytest.raises(ValueError, match=r"noise: expected \d+ finite draws of torch\.float32"):
        train(L.persistent_cd(langevin, 1, wide))
    with pytest.raises(ValueError, match=r"buffer: expected 16 chains or more, .* it has 5"):
        train(L.persistent_cd(langevin, 1, LAW, size=5))
    with pytest.raises(ValueError, match="kernel: expected ula or mala"):
        train(L.cd(lambda e: hmc(e, 0.1, 2), 2, kl=1.0))


def test_a_linear_energy_has_no_trace_and_no_error():
    """Its slope is the same everywhere: |w|^2 / 2."""
    net = nn.Linear(2, 1)
    loss = L.score_matching(lambda x: net(x)[:, 0], points(3))
    assert loss.item() == pytest.approx(0.5 * float(net.weight.detach().square().sum()))
    with pytest.raises(ValueError, match="energy: expected one that depends on x"):
        L.score_matching(lambda x: net.bias.expand(len(x)), points(3))


# Each judged alone -----------------------------------------------------------------------------


class OneBroken(L.Perceptrons):
    """The second of three gives what it is told to from a step on."""

    value, at = 0.0, None

    def forward(self, x):
        energy = super().forward(x)
        if self.at is None or not self.at():
            return energy
        # A factor, so that slopes are no numbers either.
        return energy * torch.tensor([1.0, 1 + self.value, 1.0])[:, None]


def three(method, value, at_step=3, **recipe):
    net = OneBroken(2, (8, 8), 3, generator(1), confine=4.0, spectral=method == "pcd")
    recipe = L.Recipe(
        16, alone=True, average=0.9, gradient_penalty=0.1, data_noise=0.05, **recipe
    )  # fmt: skip
    learner = L.Learner(net, METHODS[method](), recipe, 3, 3)
    net.value, net.at = value, lambda: learner.step >= at_step
    return learner


def rows(learner, i):
    """All numbers of one of three models."""
    return {
        name: x[i]
        for name, x in numbers(learner).items()
        if x.dim() and len(x) == 3 and "adam" not in name
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_that_diverges_does_not_stop_the_others(method, value, tmp_path):
    """They go on to the bit as if it had not, by way of a file, too; it stays as it was."""
    path, data = tmp_path / "half.pt", points()
    whole, lost, first, second = (three(method, v) for v in (0.0, *[value] * 3))
    training.bring(whole, 7, data=data)
    training.bring(lost, 3, data=data)
    before = rows(lost, 1)
    assert lost.alive.all() and lost.died.tolist() == lost.causes.tolist() == [0, 0, 0]
    steps = list(training.train(lost, 7, data=data))
    training.bring(first, 5, data=data, checkpoint=path)
    training.bring(second, 7, data=data, checkpoint=path)
    assert lost.alive.tolist() == [True, False, True]
    assert lost.died.tolist() == [0, 4, 0] and L.CAUSES[lost.causes[1]] == "not finite"
    assert steps[0].loss.isfinite().tolist() == [True, False, True]
    assert steps[-1].gradient.isfinite().tolist() == [True, False, True]
    after = rows(lost, 1)
    counted = ("count.died", "count.cause")
    assert before.keys() == after.keys() and set(counted) < after.keys()
    assert [n for n in before if n not in counted and not torch.equal(before[n], after[n])] == []
    for i in (0, 2):
        one, other = rows(whole, i), rows(lost, i)
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    one, other = numbers(lost), numbers(second)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize(
    "recipe, cause", [({"limit": 50.0}, "loss"), ({"reach": 40.0}, "chains"), ({}, "")]
)
def test_the_rules_by_which_one_has_diverged(recipe, cause):
    """A loss beyond the limit, or chains beyond the reach, of one of three."""

    class Steep(L.Perceptrons):
        """The third has a hill that drives chains away."""

        def forward(self, x):
            hill = torch.tensor([0.0, 0.0, 100.0])[:, None] if self.n_models else 100.0
            return super().forward(x) - hill * x.square().sum(-1)

    def make_it(n_models, **more):
        net = Steep(2, (8,), n_models, generator(1))
        return L.Learner(net, METHODS["cd"](), L.Recipe(16, **recipe, **more), 3, n_models)

    learner = make_it(3, alone=True)
    training.bring(learner, 3, data=points())
    assert learner.alive.tolist() == [True, True, not cause]
    assert learner.died.tolist() == [0, 0, int(bool(cause))]
    assert [L.CAUSES[i] for i in learner.causes.tolist()] == ["", "", cause]
    if cause:
        with pytest.raises(training.Diverged, match=r"CD-2: .* beyond the (limit 50|reach 40);"):
            training.bring(make_it(None), 3, data=points())


def test_a_gradient_that_is_no_number_kills_one_alone():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor([1.0, 0.0]))

        def forward(self, x):
            return self.a.sqrt()[:, None] * x.square().sum(-1)

    def learner(**more):
        return L.Learner(Root(), L.exact(L.on_grid(GRID, 1.0)), L.Recipe(16, **more), 0, 2)

    one = learner(alone=True)
    training.bring(one, 3, data=points())
    assert one.alive.tolist() == [True, False] and one.died.tolist() == [0, 1]
    assert one.energy.a[1] == 0 and one.energy.a[0] != 1
    with pytest.raises(training.Diverged, match="the gradient is not finite"):
        training.bring(learner(), 3, data=points())


def test_where_none_is_left_the_training_stops():
    learner = make("cd", n_models=2)
    recipe = L.Recipe(16, limit=1e-9, alone=True)
    learner = L.Learner(learner.energy, learner.method, recipe, 3, 2)
    for _ in range(2):
        with pytest.raises(training.Diverged, match="CD-2: all models have diverged"):
            training.bring(learner, 3, data=points())
    assert learner.step == 0 and learner.died.tolist() == [1, 1]


def test_energies_without_a_gradient_are_counted_apart():
    """Of ex2mcmc: the fresh points of each global step; two gradients a step, and one at first."""
    kernel = lambda e: ex2mcmc(e, LAW, 0.1, 5)  # noqa: E731
    net = L.Perceptrons(2, (8,), 2, generator(1))
    learner = L.Learner(net, L.cd(kernel, 3), L.Recipe(16), 0, 2)
    step = next(training.train(learner, 1, data=points()))
    assert step.n_energies == learner.n_energies == 16 * 3 * 5
    assert step.n_gradients == learner.n_gradients == 16 + 16 * (1 + 1 + 3 * 2)
    assert next(training.train(make("cd"), 1, data=points())).n_energies == 0
