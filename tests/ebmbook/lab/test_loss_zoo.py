"""Losses side by side: the pairing, the limits of a weight, and what MEE pays."""

import math

import pytest
import torch
from scipy import stats

from ebmbook.lab import loss_zoo as lab
from ebmref import losses, parabola
from ebmref.losses import Answers
from ebmref.parabola import Objective

NLL, MEE = losses.negative_log_likelihood, losses.minimum_empirical_error


def gradient(loss, energies):
    """Of the energies of all answers, the first being right; `(m,)` to the same."""
    e = torch.tensor(energies, dtype=torch.float64, requires_grad=True)
    free = -(-e).logsumexp(0)
    loss(Answers(e[0], e[1:].min(), e.min(), free)).backward()
    return e.grad


class TestWeighted:
    @pytest.mark.parametrize("energies", [[0.3, 1.0, -0.5], [4.0, 0.0, 1.0], [-3.0, 0.0, 2.0]])
    def test_without_limits_it_has_the_gradient_of_mee_and_with_one_weight_that_of_nll(
        self, energies
    ):
        assert torch.allclose(gradient(lab.weighted(), energies), gradient(MEE, energies))
        half = gradient(lab.weighted(0.5, 0.5), energies)
        assert torch.allclose(half, 0.5 * gradient(NLL, energies))

    def test_limits_bind_where_they_should(self):
        """p = 0.9 of the right answer, or 0.1; the weight is p, at least 0.3 or at most 0.3."""
        good, bad = [0.0, math.log(9)], [math.log(9), 0.0]
        for low, high, weights in ((0.3, math.inf, (0.9, 0.3)), (0.0, 0.3, (0.3, 0.1))):
            for energies, weight in zip((good, bad), weights, strict=True):
                found = gradient(lab.weighted(low, high), energies)
                assert torch.allclose(found, weight * gradient(NLL, energies))

    @pytest.mark.parametrize("loss", [
        lab.weighted(), lab.weighted(low=1.0), lab.Weights().kept, lab.redealt("at random"),
    ])  # fmt: skip
    def test_no_density_is_too_large_for_adam(self, loss):
        """A right answer between those that are summed over has any density: here e^60."""
        right = torch.tensor([-60.0], requires_grad=True)
        rest = torch.zeros(1)
        loss(Answers(right, rest, rest, rest)).sum().backward()
        assert right.grad.item() == pytest.approx(1e6)


class TestLearn:
    OBJECTIVES = {  # noqa: RUF012
        "first": Objective(losses.square_square),
        "again": Objective(losses.square_square),
        "other": Objective(losses.hinge),
    }

    def test_what_is_compared_is_paired(self):
        """The same objective twice is the same models; seeds differ, and so does another loss."""
        learned = lab.learn(self.OBJECTIVES, 3, 20, 5)
        error = learned.score.error
        assert error.shape == (3, 3) and learned.off.shape == (3, 3, 101)
        assert torch.equal(error[0], error[1]) and not torch.equal(error[0], error[2])
        assert len(error[0].unique()) == 3
        assert torch.equal(learned.of("other"), error[2])
        assert torch.equal(learned.of("other", "lead"), learned.score.lead[2])
        assert torch.allclose(learned.of("again", "off").mean(-1), error[1], atol=1e-6)

    def test_seeds_see_data_of_their_own(self):
        """From equal weights two seeds part in the first step."""

        class Same(parabola.Regression):
            def __init__(self, n_models, generator):
                super().__init__(n_models, generator)
                for weights in self.parameters():
                    weights.data = weights.data[:1].repeat(n_models, 1, 1)

        objective = {"energy": Objective(losses.energy_loss)}
        before, after = (lab.learn(objective, 2, n, 5, family=Same) for n in (0, 1))
        assert torch.equal(*before.of("energy", "off"))
        assert not torch.equal(*after.model.of_x.weights[0])

    def test_no_steps_leave_the_first_weights(self):
        learned = lab.learn({"a": Objective(NLL), "b": Objective(MEE)}, 2, 0, 5)
        assert torch.equal(learned.score.lead[0], learned.score.lead[1])

    def test_counts(self):
        score = parabola.Score(
            torch.tensor([[0.1, 0.2, 0.126]]), torch.tensor([[0.7, 0.1, 0.6]]), *2 * [None]
        )
        learned = lab.Learned(("only",), None, score, None, None)
        assert learned.wrong("only") == 2 and learned.flat("only") == 2

    def test_a_surface_is_above_its_floor(self):
        learned = lab.learn(self.OBJECTIVES, 2, 3, 5)
        x, y, energy = lab.surface(learned, "other", n=21)
        assert energy.shape == (21, 21) and torch.equal(energy.amin(1), torch.zeros(21))
        with torch.no_grad():
            whole = learned.model(x, torch.cat([x, y]))[1][4]
        assert torch.allclose(energy, whole - whole.amin(1, keepdim=True), atol=1e-6)


def test_mean_density_by_hand():
    """A V of slope a on the right answer: a / (2 - the tails that [-0.5, 1.5] cuts off)."""
    slope = 20.0

    class Vs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x, y):
            n = len(x)
            distance = slope * (x.square()[:, None] - y[n:]).abs()
            right = slope * (x.square() - y[:n]).abs()
            return right.expand(2, -1), torch.stack([distance, 0 * distance])

    x = torch.linspace(-1, 1, 101)
    learned = lab.Learned(("V", "flat"), Vs(), None, x, None)
    a = x.square() + 0.5
    mass = (2 - (-slope * a).exp() - (-slope * (2 - a)).exp()) / slope
    assert lab.mean_density(learned, "V").item() == pytest.approx(
        (1 / mass).mean().item(), rel=1e-3
    )
    assert lab.mean_density(learned, "flat").item() == pytest.approx(0.5, rel=1e-3)
    # Between answers 0.05 apart a sum is no integral: of 1 / (0.05 sum exp(-20 |x^2 - y|)).
    sums = 0.05 * (-slope * (x.square()[:, None] - torch.linspace(-0.5, 1.5, 41)).abs()).exp().sum(
        1
    )
    coarse = lab.mean_density(learned, "V", n_answers=41)
    assert coarse.item() == pytest.approx((1 / sums).mean().item(), rel=1e-4)


def test_losses_see_as_many_answers_as_told():
    """The same start and data; with a finer grid the sum of NLL is another."""
    objective = {"NLL": Objective(NLL)}
    coarse = lab.learn(objective, 2, 5, 3)
    assert torch.equal(coarse.score.lead, lab.learn(objective, 2, 5, 3, n_answers=41).score.lead)
    finer = lab.learn(objective, 2, 5, 3, n_answers=81)
    assert not torch.equal(coarse.score.lead, finer.score.lead)


def test_over_is_a_median_of_pairs():
    worse, better = torch.tensor([1.0, 6.0, 8.0]), torch.tensor([1.0, 2.0, 1.0])
    assert lab.over(worse, better)[0] == 3


class TestMiddle:
    def test_by_hand(self):
        """Of four the ranks are 1.5 -+ 1, in any order; of nine 4 -+ 1.5."""
        assert [float(part) for part in lab.middle(torch.tensor([8.0, 0, 4, 1]))] == [2.5, 2.75]
        value, se = lab.middle(torch.arange(9.0) ** 2)
        assert (value, se) == (16, ((25 + 36) / 2 - (4 + 9) / 2) / 2)

    def test_the_error_is_that_of_a_normal_median(self):
        draws = torch.Generator().manual_seed(1)
        rows = torch.randn(4000, 20, generator=draws)
        value, se = (torch.stack(part) for part in zip(*map(lab.middle, rows), strict=True))
        assert se.mean() == pytest.approx(value.std().item(), rel=0.1)


class Fixed(torch.nn.Module):
    """Energies that are a function of x and y, one a model."""

    def __init__(self, *functions):
        super().__init__()
        self.functions, self.unused = functions, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, y):
        n = len(x)
        grid = [f(x[:, None], y[n:]).expand(n, len(y) - n) for f in self.functions]
        return torch.stack([f(x, y[:n]) for f in self.functions]), torch.stack(grid)


def test_fits_is_spearmans_correlation():
    """A bowl of any scale on the right answer has 1, its negative -1; y alone by scipy."""
    bowl = Fixed(
        lambda x, y: 1e-3 * (y - x**2) ** 2, lambda x, y: -((y - x**2) ** 4), lambda x, y: y + 0 * x
    )
    x = torch.tensor([-0.5, 0.9])
    learned = lab.Learned(("bowl", "hill", "slope"), bowl, None, x, None)
    assert lab.fits(learned, "bowl").item() == pytest.approx(1, abs=1e-3)
    assert lab.fits(learned, "hill").item() == pytest.approx(-1, abs=1e-3)
    y = parabola.grid_of_answers(n=201)
    known = [stats.spearmanr(y, (y - at**2).abs()).statistic for at in x]
    assert lab.fits(learned, "slope").item() == pytest.approx(sum(known) / 2, abs=3e-3)


def test_a_hit_is_the_nearest_of_41_answers():
    """A bowl on x^2 + 0.03 misses where x^2 is nearer to the answer below: by quadrature."""
    bowls = Fixed(lambda x, y: (y - x**2).abs(), lambda x, y: (y - x**2 - 0.03).abs())
    x = torch.linspace(-1, 1, 101)
    learned = lab.Learned(("on", "off"), bowls, None, x, None)
    place = (x.double() ** 2 + 0.5) / 0.05
    moved = (place + 0.6).round() == place.round()
    assert lab.hits(learned, "on").item() == 1
    assert lab.hits(learned, "off").item() == pytest.approx(moved.double().mean().item(), abs=0.021)


def test_a_row_of_ends():
    off = torch.zeros(1, 3, 101)
    off[0, :2, -10:], off[0, 0] = 0.5, 0.3
    score = parabola.Score(off.mean(-1), None, None, None)
    learned = lab.Learned(("only",), None, score, torch.linspace(-1, 1, 101), off)
    assert lab.ends(learned, "only") == {
        "error": "0.050", "beyond the bar": 1, "give up an end": 2,
    }  # fmt: skip


def test_either_end_that_is_given_up_counts():
    x = torch.linspace(-1, 1, 101)
    off = torch.zeros(1, 5, 101)
    off[0, 0, x < -0.8], off[0, 1, x > 0.8], off[0, 2, x.abs() < 0.8] = 0.2, 0.2, 0.9
    off[0, 3, x > 0.8], off[0, 4] = 0.1, 1.0
    assert lab.given_up(lab.Learned(("only",), None, None, x, off), "only") == 3


def test_wilsons_interval():
    """Both ends are where the share that was seen lies 1.96 of that share's deviations off."""
    for count, n in ((11, 20), (0, 20), (20, 20), (3, 6)):
        low, high = lab.interval(count, n)
        for end in (low, high):
            assert (count / n - end) ** 2 == pytest.approx(1.96**2 * end * (1 - end) / n, abs=1e-9)
        assert low < high


class TestDealt:
    """A batch of three examples, p = 0.5, 0.1 and 0.2, and another with 0.3, 0.9 and 0.6."""

    def see(self, *p):
        right = -torch.tensor(p, dtype=torch.float64).log()
        return right.requires_grad_(), Answers(right, right, right, torch.zeros_like(right))

    def weights(self, loss, p):
        right, seen = self.see(*p)
        loss(seen).sum().backward()
        return right.grad.tolist()

    def test_own_weights_are_mees_and_are_dealt_to_others(self):
        own = lab.Weights()
        first, second = (0.5, 0.1, 0.2), (0.3, 0.9, 0.6)
        assert self.weights(own.kept, first) == pytest.approx(first)
        assert self.weights(own.dealt("at random"), second) == pytest.approx((0.2, 0.5, 0.1))
        assert self.weights(own.dealt("falling"), second) == pytest.approx((0.5, 0.1, 0.2))
        assert self.weights(own.kept, second) == pytest.approx(second)

    def test_redealt(self):
        p = (0.5, 0.1, 0.2)
        assert self.weights(lab.redealt("at random"), p) == pytest.approx((0.2, 0.5, 0.1))
        assert self.weights(lab.redealt("falling"), p) == pytest.approx((0.1, 0.5, 0.2))

    def test_another_order(self):
        with pytest.raises(ValueError, match="'rising'"):
            self.weights(lab.redealt("rising"), (0.5, 0.1))

    def test_seeds_do_not_meet(self):
        _, seen = self.see((0.5, 0.1), (0.3, 0.9))
        loss = lab.redealt("falling")(seen)
        assert torch.allclose(loss, torch.tensor([[0.1, 0.5], [0.9, 0.3]]) * seen.right)


def test_a_stretched_hinge_has_a_wider_margin():
    for e in ([0.0, 0.4, 2.0], [0.3, 0.2, 0.9], [0.0, 3.0, 1.0]):
        found = gradient(lab.stretched(losses.hinge, 0.5), e)
        by_hand = gradient(lambda a: losses.hinge(a, margin=0.5), e)
        assert torch.allclose(found, 2 * by_hand)
    soft = gradient(lab.stretched(losses.log_loss, 2.0), [1.0, 0.0, 3.0])
    assert soft[0].item() == pytest.approx(0.5 / (1 + math.exp(-0.5)))


def test_another_rate_is_another_training():
    objective = {"NLL": Objective(NLL)}
    plain, slow = lab.learn(objective, 2, 5, 3), lab.learn(objective, 2, 5, 3, learning_rate=1e-4)
    same = lab.learn(objective, 2, 5, 3, learning_rate=3e-3)
    assert torch.equal(plain.score.lead, same.score.lead)
    assert not torch.equal(plain.score.lead, slow.score.lead)


@pytest.mark.parametrize("width", [1e-4, 0.01, 0.5])
def test_a_pit_that_ignores_the_question_pays(width):
    """By quadrature of exp(-x^2 / w) / (2 w) over x in [-1, 1]."""
    x = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    by_hand = ((-x.square() / width).exp() / (2 * width)).mean()
    assert lab.fixed_pit(width) == pytest.approx(by_hand.item(), rel=1e-4)


def test_what_is_told_of_an_objective():
    rows = torch.tensor([[0.1, 0.2, 0.9], [0.5, 3.0, 0.6], [1.0, 1.5, 1.1], [0.9, 1.0, 0.8]])
    score = parabola.Score(*rows[:, None])
    bowl = Fixed(*3 * [lambda x, y: (y - x**2) ** 2])
    learned = lab.Learned(("only",), bowl, score, torch.linspace(-1, 1, 11), None)
    otherwise = learned._replace(score=score._replace(error=rows[:1] / 2))
    assert lab.row(learned, "only", otherwise) == {
        "relief": "0.60", "collapsed": 2, "lead": "1.10", "fit": "1.00", "error": "0.200",
        "beyond the bar": 2, "annealed: error": "0.100", "annealed: beyond": 1,
    }  # fmt: skip
    bare = lab.row(learned, "only", otherwise._replace(names=("another",)))
    assert (bare["annealed: error"], bare["annealed: beyond"]) == ("", "")
    assert lab.told(learned, "only", "fit")["fit"][0].item() == pytest.approx(1, abs=1e-3)
    told = lab.told(learned, "only", "lead", "wrong", "error", "flat")
    assert list(told) == ["lead", "wrong", "error", "flat"]
    assert (told["wrong"], told["flat"]) == (2, 2)
    assert told["lead"] == lab.middle(rows[2]) and told["lead"][0].item() == pytest.approx(1.1)
    assert told["error"][0].item() == pytest.approx(0.2)
