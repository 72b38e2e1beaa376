"""The losses against hand-computed numbers, their limits, and the models that learn by them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebmref import losses, parabola, training
from ebmref.losses import ZOO, Answers
from ebmref.networks import Networks

RIGHT, WRONG = torch.tensor([0.5, 2.0]), torch.tensor([2.0, 1.0])
ENERGY = st.floats(-5, 5)


def test_the_zoo_by_hand():
    """Two examples in the two-answer world: right by 1.5, wrong by 1."""
    e = math.exp
    by_hand = {
        "energy": [0.5, 2.0],
        "perceptron": [0.0, 1.0],
        "hinge": [0.0, 2.0],
        "log": [math.log(1 + e(-1.5)), math.log(1 + e(1))],
        "LVQ2": [0.0, 1.0],
        "MCE": [1 / (1 + e(1.5)), 1 / (1 + e(-1))],
        "square-square": [0.25, 4.0],
        "square-square, printed": [0.25, 4.0],
        "square-exp": [0.25 + e(-2), 4 + e(-1)],
        "NLL": [math.log(1 + e(-1.5)), math.log(1 + e(1))],
        "MEE": [1 - 1 / (1 + e(-1.5)), 1 - 1 / (1 + e(1))],
    }
    assert list(by_hand) == list(ZOO)
    answers = losses.two_answers(RIGHT, WRONG)
    for name, values in by_hand.items():
        assert ZOO[name](answers).tolist() == pytest.approx(values, rel=1e-6), name


def test_the_two_signs_of_square_square():
    """Inside the margin they part: at (0, 0) the right one costs m^2, the printed one -m^2."""
    zero = torch.zeros(1)
    assert losses.square_square(losses.two_answers(zero, zero)).item() == 1.0
    assert losses.square_square_printed(losses.two_answers(zero, zero)).item() == -1.0


@pytest.mark.parametrize("name", ZOO)
def test_gradients_are_right_and_pull_the_right_answer_down(name):
    """Autograd against finite differences, away from every corner; dL/dE+ >= 0 throughout."""
    right = torch.tensor([0.4, 0.3, 2.2, 0.9], dtype=torch.float64, requires_grad=True)
    wrong = torch.tensor([0.7, 2.6, 0.6, 0.2], dtype=torch.float64, requires_grad=True)

    def loss(right, wrong):
        return ZOO[name](losses.two_answers(right, wrong))

    assert torch.autograd.gradcheck(loss, (right, wrong))
    (slope,) = torch.autograd.grad(loss(right, wrong).sum(), right)
    assert (slope >= 0).all()
    assert (slope > 0).any()


@given(st.lists(ENERGY, min_size=2, max_size=8), st.floats(0.1, 50))
def test_nll_tends_to_the_perceptron(energies, beta):
    """They differ by at most log |Y| / beta, and NLL is never the smaller one."""
    energy = torch.tensor(energies, dtype=torch.float64)
    free = -(-beta * energy).logsumexp(0) / beta
    answers = Answers(energy[0], energy[1:].min(), energy.min(), free)
    gap = losses.negative_log_likelihood(answers) - losses.perceptron(answers)
    assert -1e-9 <= gap <= math.log(len(energies)) / beta + 1e-9


@given(st.lists(ENERGY, min_size=2, max_size=8))
def test_nll_is_cross_entropy_of_minus_energy(energies):
    """A softmax classifier is an energy-based model with E = -logit."""
    energy = torch.tensor(energies, dtype=torch.float64)
    free = -(-energy).logsumexp(0)
    got = losses.negative_log_likelihood(Answers(energy[0], energy[1], energy.min(), free))
    wanted = torch.nn.functional.cross_entropy(-energy[None], torch.tensor([0]))
    assert got.item() == pytest.approx(wanted.item(), abs=1e-9)


@given(ENERGY, ENERGY, st.floats(-3, 3))
def test_difference_losses_ignore_the_level(right, wrong, shift):
    """Adding a constant to every energy changes no answer and none of these losses."""
    for name in ("perceptron", "hinge", "log", "LVQ2", "MCE", "NLL", "MEE"):
        a, b = (
            ZOO[name](losses.two_answers(torch.tensor(right + s, dtype=torch.float64),
                                         torch.tensor(wrong + s, dtype=torch.float64)))
            for s in (0.0, shift)
        )  # fmt: skip
        assert a.item() == pytest.approx(b.item(), abs=1e-9), name


def test_answers_on_a_grid_by_hand():
    """Five answers, right at 0.1 off the grid, radius 0.3: the offender is the third."""
    grid = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    energy = torch.tensor([[0.0, 5.0, 1.0, 2.0, 3.0]])
    answers = losses.answers_on_grid(
        energy, torch.tensor([0.2]), (grid - 0.1).abs()[None], radius=0.3, cell=0.25
    )
    assert answers.wrong.item() == 1.0
    assert answers.lowest.item() == 0.0
    z = 0.25 * sum(math.exp(-e) for e in (0, 5, 1, 2, 3))
    assert answers.free.item() == pytest.approx(-math.log(z), rel=1e-6)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"radius": 2.0}, "radius: 2.0 leaves some example without a wrong answer"),
        ({"cell": 0.0}, "cell: expected > 0"),
        ({"beta": -1.0}, "beta: expected > 0"),
    ],
)
def test_bad_grids_are_refused(change, words):
    arguments = {"radius": 0.1, "cell": 0.5} | change
    distance = torch.tensor([[0.0, 0.5, 1.0]])
    with pytest.raises(ValueError, match=words):
        losses.answers_on_grid(torch.zeros(1, 3), torch.zeros(1), distance, **arguments)


class TestMargin:
    """The sufficient condition by brute force."""

    def test_square_square_prefers_the_gap_by_an_eighth(self):
        """Closed form: the best point without the gap is (1/4, 3/4)."""
        assert losses.separation(losses.square_square, 0.5) == pytest.approx(0.125, abs=1e-12)

    @pytest.mark.parametrize("name", ["hinge", "square-square"])
    def test_the_margin_of_a_loss_is_its_m(self, name):
        """It holds below m = 1 and no longer at it."""
        assert losses.separation(ZOO[name], 0.9) > 0
        assert losses.separation(ZOO[name], 1.0) <= 1e-12

    def test_the_printed_sign_has_none(self):
        assert losses.separation(losses.square_square_printed, 0.5) < 0

    def test_bad_margin(self):
        with pytest.raises(ValueError, match="margin: expected between 0 and reach"):
            losses.separation(losses.hinge, 7.0)


class Distance(torch.nn.Module):
    """The energy slope |y - x^2| + level(x), of one model."""

    def __init__(self, slope=1.0, level=torch.zeros_like):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.slope, self.level = slope, level

    def forward(self, x, y):
        n = len(x)
        distance = (x.square()[:, None] - y[n:]).abs()
        right = self.slope * (x.square() - y[:n]).abs() + self.level(x)
        return right[None], (self.slope * distance + self.level(x)[:, None])[None]


class TestLearning:
    """Many models in one pass are many models."""

    def test_a_model_learns_as_it_would_alone(self):
        """The gradient of the second of three models is the one it has by itself."""
        data = parabola.Implicit(3, torch.Generator().manual_seed(0))
        alone = parabola.Implicit(1, torch.Generator().manual_seed(1))
        with torch.no_grad():
            for one, three in zip(alone.parameters(), data.parameters(), strict=True):
                one.copy_(three[1:2])
        objective = [(losses.negative_log_likelihood, 0.3)]
        for model in (data, alone):
            for _ in parabola.train(model, objective, 1, torch.Generator().manual_seed(2)):
                pass
        for one, three in zip(alone.parameters(), data.parameters(), strict=True):
            assert torch.allclose(one.grad[0], three.grad[1], rtol=1e-4, atol=1e-6)
            assert three.grad[1].abs().max() > 1e-3

    def test_a_long_run_in_company_is_a_long_run_alone(self):
        """Fifty steps of Adam, two losses at once: the weights agree to the rounding of float64."""
        objectives = [(losses.hinge, 0.3), (losses.square_square, 0.3)]
        torch.set_default_dtype(torch.float64)
        try:
            together = parabola.Implicit(4, torch.Generator().manual_seed(0))
            alone = parabola.Implicit(1, torch.Generator().manual_seed(1))
            with torch.no_grad():
                for one, four in zip(alone.parameters(), together.parameters(), strict=True):
                    one.copy_(four[3:])
            start = [one.detach().clone() for one in alone.parameters()]
            for model, chosen in ((together, objectives), (alone, objectives[1:])):
                for _ in parabola.train(model, chosen, 50, torch.Generator().manual_seed(2)):
                    pass
        finally:
            torch.set_default_dtype(torch.float32)
        for one, four, was in zip(alone.parameters(), together.parameters(), start, strict=True):
            assert torch.allclose(one[0], four[3], rtol=1e-8, atol=1e-10)
            assert (one - was).abs().max() > 1e-3

    def test_objectives_split_the_models(self):
        """The first half descends the energy, the second the NLL: each its own loss."""
        model = parabola.Regression(4, torch.Generator().manual_seed(0))
        objectives = [(losses.energy_loss, 0.3), (losses.negative_log_likelihood, 0.3)]
        values = list(parabola.train(model, objectives, 150, torch.Generator().manual_seed(1)))
        assert (values[-1] < values[0]).all()
        assert len(values[0]) == 4

    def test_networks_are_torchs(self):
        """One model of the batch against nn.Linear layers with its weights."""
        networks = Networks((2, 5, 3), 4, torch.Generator().manual_seed(0))
        x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
        layers = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
        with torch.no_grad():
            for layer, w, b in zip((layers[0], layers[2]), networks.weights, networks.biases,
                                   strict=True):  # fmt: skip
                layer.weight.copy_(w[2].T)
                layer.bias.copy_(b[2, 0])
            assert torch.allclose(networks(x)[2], layers(x), atol=1e-6)

    def test_score_of_the_truth(self):
        """The energy |y - x^2|: error below half a cell, relief above 1, no slip, a lead of a V.

        With u = x^2 the foot of the V divides [-0.5, 1.5] into a = u + 1/2 and b = 2 - a. Its mean
        is (a^2 + b^2) / 4 and its mean square (a^3 + b^3) / 6; the lead is averaged over x here.
        """
        score = parabola.score(Distance())
        assert score.error.item() <= 0.005 + 1e-6
        assert score.relief.item() > 1
        a = torch.linspace(-1, 1, 101).square() + 0.5
        mean = (a.square() + (2 - a).square()) / 4
        spread = ((a**3 + (2 - a) ** 3) / 6 - mean.square()).sqrt()
        lead = mean / spread
        assert lead.min() > 1.42 and lead.max() < 1.74
        # The grid's ends count whole, which makes means of a V larger by less than its cell, 0.01.
        assert score.lead.item() == pytest.approx(lead.mean().item(), rel=0.02)
        away = (torch.linspace(-1, 1, 101).square()[:, None] - torch.linspace(-0.5, 1.5, 201)).abs()
        on_grid = (away.mean(1) / (away.square().mean(1) - away.mean(1).square()).sqrt()).mean()
        assert score.lead.item() == pytest.approx(on_grid.item(), rel=1e-4)
        assert score.ranking.item() == 1.0

    def test_no_added_level_moves_a_score(self):
        """A function of x on top changes nothing, a factor nothing but the relief."""
        plain = parabola.score(Distance())
        lifted = parabola.score(Distance(3.0, lambda x: 5 + x))
        assert lifted.relief.item() == pytest.approx(3 * plain.relief.item(), rel=1e-5)
        for name in ("error", "lead", "ranking"):
            wanted = getattr(plain, name).item()
            assert getattr(lifted, name).item() == pytest.approx(wanted, rel=1e-4), name

    def test_the_regression_family_cannot_be_flat(self):
        """A V of slope one has a relief of half the interval's length or more, untrained too."""
        score = parabola.score(parabola.Regression(50, torch.Generator().manual_seed(0)))
        assert score.relief.min() > 0.99

    def test_answers_that_are_finite_have_probabilities(self):
        """The right one is the nearest of the grid, and the loss a sum's; by hand, for one model.

        MEE is then 1 minus the softmax of minus the energies. A density would have 1 / cell of it.
        """
        model = parabola.Implicit(2, torch.Generator().manual_seed(0))
        grid = torch.linspace(-0.5, 1.5, 9)
        objectives = [
            parabola.Objective(losses.minimum_empirical_error, finite=True),
            (losses.minimum_empirical_error,),
        ]
        for weights in model.parameters():
            weights.data = weights.data[:1].repeat(2, 1, 1)
        draws = torch.Generator().manual_seed(4)
        x = 2 * torch.rand(5, generator=draws) - 1
        chosen = torch.randint(5, (3,), generator=draws)
        with torch.no_grad():
            asked = x[chosen]
            right, energy = model(asked, torch.cat([asked.square(), grid]))
        nearest = (asked.square()[:, None] - grid).abs().argmin(1)
        finite = 1 - (-energy[0]).softmax(-1)[range(3), nearest].mean()
        density = 1 - ((-right[1]).exp() / (0.25 * (-energy[1]).exp().sum(-1))).mean()
        steps = parabola.train(
            model, objectives, 1, torch.Generator().manual_seed(4), batch=3, n_data=5, grid=grid
        )
        assert torch.allclose(next(steps), torch.stack([finite, density]), atol=1e-6)

    @pytest.mark.parametrize("family", [parabola.Implicit, parabola.Regression])
    def test_each_model_may_have_questions_of_its_own(self, family):
        """Energies of two models at two batches are those of each at its own."""
        model = family(2, torch.Generator().manual_seed(0))
        x = torch.tensor([[0.1, -0.7, 0.4], [0.9, 0.0, -0.2]])
        grid = torch.linspace(-0.5, 1.5, 7)
        both = model(x, torch.cat([x.square(), grid.expand(2, -1)], -1))
        for i in range(2):
            alone = model(x[i], torch.cat([x[i].square(), grid]))
            for together, by_itself in zip(both, alone, strict=True):
                assert torch.allclose(together[i], by_itself[i], atol=1e-6)

    def test_training_repeats(self):
        """The same seeds, the same weights, bit for bit."""

        def weights():
            model = parabola.Implicit(2, torch.Generator().manual_seed(0))
            objective = [(losses.hinge, 0.3)]
            for _ in parabola.train(model, objective, 10, torch.Generator().manual_seed(1)):
                pass
            return [parameter.detach().clone() for parameter in model.parameters()]

        assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))

    def test_annealing_ends_near_zero_rate(self):
        """On a noisy quadratic the annealed end is nearer the minimum than the constant one."""

        def distance(anneal):
            point = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(500))])
            noise = torch.Generator().manual_seed(0)

            def loss():
                shaken = point[0] - torch.randn(500, generator=noise)
                return shaken.square()

            for _ in training.fit(point, loss, 300, 0.1, anneal=anneal):
                pass
            return point[0].detach().square().mean().sqrt()

        assert distance(True) < 0.6 * distance(False)

    @pytest.mark.parametrize(
        "change, words",
        [
            ({"n_steps": 0}, "n_steps, learning_rate: expected > 0"),
            ({"learning_rate": 0.0}, "n_steps, learning_rate: expected > 0"),
        ],
    )
    def test_bad_training_is_refused(self, change, words):
        model = parabola.Regression(1, torch.Generator().manual_seed(0))
        arguments = {"loss": lambda: torch.zeros(1), "n_steps": 1, "learning_rate": 0.1} | change
        with pytest.raises(ValueError, match=words):
            list(training.fit(model, **arguments))

    def test_a_loss_that_is_not_finite_stops_the_fit(self):
        model = parabola.Regression(1, torch.Generator().manual_seed(0))
        with pytest.raises(training.Diverged, match="loss: not finite at step 0"):
            list(training.fit(model, lambda: torch.full((1,), torch.nan), 1, 0.1))

    def test_models_that_cannot_be_split(self):
        model = parabola.Regression(3, torch.Generator().manual_seed(0))
        objectives = [(losses.hinge, 0.3)] * 2
        with pytest.raises(ValueError, match="3 models cannot be split among 2"):
            list(parabola.train(model, objectives, 1, torch.Generator().manual_seed(0)))
