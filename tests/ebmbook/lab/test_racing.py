"""A race on laws that are known: the ruler counts exact draws, and the grid is searched."""

import math

import pytest
import torch

from ebmbook.lab import racing
from ebmref import energies, samplers

LIKE = {"dtype": torch.float64}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def law(*sd):
    return racing.normal(torch.tensor(sd, **LIKE))


def test_exact_draws_are_worth_themselves():
    """Chains of 50 independent draws; a bias takes away what it is."""
    known = racing.Truth(torch.zeros(1, **LIKE), torch.ones(1, **LIKE))
    means = torch.randn(4000, 50, 1, generator=source(), **LIKE).mean(1)
    got = racing.worth(means, known)
    assert got.draws[0] == pytest.approx(50, rel=0.1)
    assert got.se[0] == pytest.approx(50 * math.sqrt(2 / 4000), rel=0.1)
    wide = racing.worth(2 * means, racing.Truth(known.mean, 4 * known.variance))
    torch.testing.assert_close(wide.draws, got.draws)
    biased = racing.worth(means + 0.3, known).draws[0]
    assert biased == pytest.approx(1 / (1 / 50 + 0.09), rel=0.05)


def test_deviations_are_in_standard_errors_of_both():
    known = racing.Truth(torch.tensor([1.0, 0.0]), torch.tensor([0.0, float(racing.MANY)]))
    means = torch.tensor([[2.0, 3.0], [4.0, 3.0]])  # of 3 and 3, with errors 1 and 0
    assert racing.deviation(means, known).tolist() == [2.0, 3.0]


def test_the_grids():
    assert len(racing.SCALES) == 22 and racing.SCALES[0] == 0.06
    assert racing.SCALES[2] == pytest.approx(0.06 * 1.75) and 21 < racing.SCALES[-1] < 22
    assert [racing.patience(*one) for one in ((1, 10.0), (5, 3.0), (19, 10.0))] == [2, 4, 12]
    for target, most in ((law(1.0), 21.4), (law(*[1.0] * 4), 3.99)):
        field = racing.entries(target)
        for name in ("random walk", "MALA", "HMC", "kinetic *", "tempering"):
            assert field[name].scales[-1] == pytest.approx(most, abs=0.05)
        assert field["NUTS"].scales == racing.LONG and len(racing.LONG) == 13
    powers = {name: one.power for name, one in racing.entries(law(1.0)).items() if one.power != 1}
    assert powers == {"ULA *": 2, "MALA": 2, "Ex2MCMC": 2, "tempering": 2}


def test_tempering_goes_down_to_a_twentieth_each_row_with_its_own_step():
    target = law(1.5, 1.0)
    x0 = target.sample(30, source(1))
    make = racing.entries(target)["tempering"].makes[3]
    scales = torch.tensor([0.01, 30.0], **LIKE)
    got = racing.race(make(1.0), x0, 20, scales, source(2))
    assert got.acceptance[0] > 0.9 and got.acceptance[1] < 0.2
    ladder = samplers.parallel_tempering(target.energy, 0.01, (1.0, 0.05**0.5, 0.05))
    want = racing.race(ladder, x0, 20, scales, source(2))
    torch.testing.assert_close(got.means, want.means)


def test_the_worst_is_taken_of_each_kind():
    draws = torch.tensor([3.0, 2.0, 9.0, 4.0, 1.0])
    assert racing.worst(draws).tolist() == [2.0, 4.0, 1.0]


def test_truth_and_tests_by_hand():
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-1.0, 0.0, 1.0, 5.0]])
    f = racing.tests(x, torch.tensor([7.0, 8.0]), 3)
    assert f.tolist() == [[1, 2, 3, 1, 4, 9, 7], [-1, 0, 1, 1, 0, 1, 8]]
    known = racing.truth(law(2.0, 1.0), source(), 100_000)
    want = torch.tensor([0, 0, 4, 1, 1], **LIKE)
    assert (known.mean - want).abs().max() < 0.1
    assert known.variance[0] == pytest.approx(4, rel=0.05)
    assert known.variance[2] == pytest.approx(32, rel=0.1)


@pytest.mark.parametrize("name", ["random walk", "MALA", "HMC", "kinetic *", "tempering", "NUTS"])
def test_a_race_of_one_is_a_chain(name):
    """The same noise gives the mean of the package's chain."""
    target = law(1.5, 1.0)
    x0 = target.sample(5, source(1))
    entry = racing.entries(target)[name]
    make = next(iter(entry.makes.values()))
    got = racing.race(make(1.0), x0, 20, torch.tensor([0.5], **LIKE), source(2))
    chain = samplers.sample(make(0.5), x0, 20, generator=source(2))
    f = torch.stack(
        [racing.tests(x, e, 2) for x, e in zip(chain.samples, chain.energy, strict=True)]
    )
    torch.testing.assert_close(got.means[0], f.mean(0))
    assert got.acceptance[0] == pytest.approx(float(chain.acceptance_rate.mean()))


def test_each_row_has_its_own_step():
    target = law(1.0, 1.0)
    x0 = target.sample(200, source(1))
    scales = torch.tensor([0.1, 1.0, 5.0], **LIKE)
    got = racing.race(samplers.random_walk(target.energy, 1.0), x0, 100, scales, source())
    assert got.acceptance[0] > 0.9 > got.acceptance[1] > 0.3 > got.acceptance[2]
    assert got.spent.tolist() == [100] * 3 and got.means.shape == (3, 200, 5)


def test_evaluations_are_counted():
    target = law(1.0, 1.0)
    x0, one = target.sample(4, source()), torch.ones(1, **LIKE)
    for name, want in (("HMC", 4), ("i-SIR", 5), ("Ex2MCMC", 8), ("tempering", 3)):
        make = next(iter(racing.entries(target)[name].makes.values()))
        assert racing.race(make(0.3), x0, 6, 0.3 * one, source()).spent[0] == 6 * want
    path = racing.race(samplers.nuts(target.energy, 0.3, 6), x0, 6, 0.3 * one, source())
    assert 6 * 3 < path.spent[0] < 6 * 63


def test_tuning_takes_the_best_of_the_grid():
    """Among three steps of which two are absurd."""
    target = law(1.0, 1.0)
    known = racing.truth(target, source(), 50_000)
    walk = {0: lambda s: samplers.random_walk(target.energy, s)}
    got = racing.tune(walk, 1, target, known, 40, 400, source(3), (0.01, 2.0, 60.0))
    assert got.scale == 2.0 and not got.edge and 0.2 < got.acceptance < 0.5
    assert got.per_thousand.shape == got.se.shape == (3,) and got.means.shape == (320, 5)
    value, se = racing.least(got)
    assert value == got.per_thousand.min() and 0 < se < value
    assert float(got.means[:, 2].mean()) == pytest.approx(1, abs=0.2)
    again = racing.worth(got.means, known)
    assert got.se[1] == 1000 / 400 * again.se[2 + int(again.draws[2:4].argmin())]
    assert racing.tune(walk, 1, target, known, 40, 400, source(3), (2.0, 60.0)).edge
    root = {0: lambda h: samplers.mala(target.energy, h)}
    assert racing.tune(root, 2, target, known, 40, 400, source(3), (0.01, 1.2)).edge


def test_tuning_takes_the_better_length():
    """Of two proposals, one of which hardly meets the law, in either order."""
    target = law(1.0, 1.0)
    known = racing.truth(target, source(), 50_000)
    far = energies.Gaussian(torch.full((2,), 9.0, **LIKE), torch.eye(2, **LIKE))
    good, bad = (lambda s, q=q: samplers.isir(target.energy, q, 5) for q in (target.wide, far))
    for makes in ({1: bad, 2: good}, {2: good, 1: bad}):
        assert racing.tune(makes, 1, target, known, 20, 200, source(1)).length == 2


@pytest.mark.parametrize("name", ["HMC", "NUTS"])
def test_a_chain_spends_its_budget(name):
    """NUTS as nearly as the pilot foretells."""
    target = law(1.0, 1.0)
    known = racing.truth(target, source(), 50_000)
    makes = dict([next(iter(racing.entries(target)[name].makes.items()))])
    got = racing.tune(makes, 1, target, known, 20, 400, source(1), (0.3,))
    spent = 1000 * racing.worst(got.all_draws) / got.per_thousand
    assert spent.tolist() == pytest.approx([400] * 3, rel=0.0001 if name == "HMC" else 0.2)


def test_independence_has_no_step():
    target = law(1.0, 1.0)
    known = racing.truth(target, source(), 50_000)
    entry = racing.entries(target)["independence"]
    got = racing.tune(*entry[:2], target, known, 20, 200, source())
    assert math.isnan(got.scale) and not got.edge and 0.6 < got.acceptance < 0.95


def test_the_gain_is_that_of_the_shape():
    """Round in the plane above one, a long ridge below."""
    plain = racing.gain(racing.ridge(1, 1.0, LIKE), 60, 1500, source(4))
    long = racing.gain(racing.ridge(1, 10.0, LIKE), 60, 1500, source(5))
    assert plain.log > 0.3 > -0.3 > long.log
    assert long.walk.scale > 6 > 3 > long.mala.scale
    ratio, se = racing.over(long.mala, long.walk)
    assert long.log == pytest.approx(math.log(ratio)) and long.se == pytest.approx(se / ratio)


def test_a_ratio_of_results_by_hand():
    def result(draws, se):
        pair = torch.tensor([draws, 90.0, 99.0]), torch.tensor([se, 1.0, 1.0])
        return racing.Result(1.0, 0, 0.5, *pair, torch.ones(5), torch.ones(2, 5), False)

    ratio, se = racing.over(result(30.0, 9.0), result(10.0, 4.0))
    assert ratio == pytest.approx(3) and se == pytest.approx(3 * 0.5)


def test_the_zoo_is_of_its_dimensions():
    zoo = racing.zoo(LIKE)
    assert zoo["funnel"].judged == 1
    for name, d in (("ring", 2), ("funnel", 3), ("round, 50-d", 50), ("stretched, 50-d", 50)):
        x = zoo[name].sample(20_000, source())
        assert x.shape == (20_000, d) and zoo[name].wide.sample(2, source()).shape == (2, d)
    assert x[:, 0].std() == pytest.approx(10, rel=0.03) and x[:, -1].std() == pytest.approx(1, 0.03)
    x = racing.ridge(3, 4.0, LIKE).sample(20_000, source())
    assert x.std(0).tolist() == pytest.approx([4, 1, 1, 1], rel=0.05)


def test_a_pilot_can_be_wrong_about_langevin_on_the_ring():
    """Long steps get stuck, seldom: many chains find the shorter one twice as good."""
    ring = racing.zoo(LIKE)["ring"]
    known = racing.truth(ring, source())
    scales = torch.tensor([racing.SCALES[8], racing.SCALES[11]], **LIKE)
    kernel = samplers.mala(ring.energy, 1.0)
    got = racing.race(kernel, ring.sample(2000, source(1)), 1000, scales**2, source(2))
    found = racing.worth(got.means, known)
    short, long = found.draws.amin(-1)
    assert 1.4 < short / long < 4
    few = got.means[1, :, -1].sub(known.mean[-1]).square().sort(descending=True).values
    assert few[:20].sum() > 0.25 * few.sum()  # a hundredth of the chains; of normal means 0.08
