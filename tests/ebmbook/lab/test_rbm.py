"""Machines on digits: likelihoods, annealing and angles against sums over all states."""

import pytest
import torch

from ebmbook.lab import rbm as lab
from ebmref.rbm import RBM, Bits, annealed_log_z, states
from ebmref.seeds import derive_seed

DATA = lab.digits()
FEW = lab.Digits(DATA.train[:400], DATA.held_out)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def machine(d=5, m=3, scale=1.0):
    rbm = RBM(d, m, generator(1), scale).double()
    with torch.no_grad():
        rbm.visible.copy_(torch.randn(d, generator=generator(2)))
        rbm.hidden.copy_(torch.randn(m, generator=generator(3)))
    return rbm


def test_digits_are_bits_and_validation_is_a_part_of_what_is_learned_from():
    assert DATA.train.shape == (1438, 64) and DATA.held_out.shape == (359, 64)
    assert set(DATA.train.unique().tolist()) == {0, 1}
    assert lab.digits(0.1).train.mean() > DATA.train.mean() + 0.1
    part = lab.validation(DATA, 0)
    assert len(part.held_out) == 287
    again = torch.cat(part)
    weights = torch.rand(64, generator=generator())
    assert torch.allclose((again @ weights).sort()[0], (DATA.train @ weights).sort()[0])
    assert not torch.equal(part.train, lab.validation(DATA, 1).train)
    with pytest.raises(ValueError, match="threshold: expected in"):
        lab.digits(0.0)


@pytest.mark.parametrize("way", lab.WAYS)
def test_every_way_learns(way):
    """A likelihood over all states sums to one, and rises far above that of independent bits."""
    found = lab.learn(FEW, way, 6, (1, 300), 0, learning_rate=0.03)
    assert found.log_p.shape == (2, 359) and found.train.shape == (2,)
    assert found.n_steps.tolist() == [1, 300] and len(found.machines) == 2
    bits = lab.opponents(FEW, 4, 0)["independent bits"]
    gain = lab.mean_of_pictures(found.log_p - bits)
    assert gain.value[0].abs() < 0.2
    assert gain.value[1] > (1.0 if way == "PCD" else 3.0)
    assert gain.se[1] < 0.3
    own = lab.log_likelihoods(found.machines[1], FEW.train).mean()
    assert torch.equal(own, found.train[1])


def test_likelihoods_sum_to_one_over_all_states():
    v = states(5, torch.zeros(1, dtype=torch.float64))
    assert lab.log_likelihoods(machine(), v).exp().sum().item() == pytest.approx(1)
    mixed = lab.mixture(v[:20], 3, 0)
    assert mixed.log_prob(v).exp().sum().item() == pytest.approx(1)


def test_ways_and_steps_are_checked():
    with pytest.raises(ValueError, match=r"way: expected exact, PCD or CD-k, .*; got 'CD-x'"):
        lab.learn(FEW, "CD-x", 4, (1,), 0, learning_rate=0.01)
    for bad in ((), (5, 5), (9, 3)):
        with pytest.raises(ValueError, match="n_steps: expected numbers that increase"):
            lab.learn(FEW, "CD-1", 4, bad, 0, learning_rate=0.01)
    assert lab.method("CD-7", FEW.train, 4, 50).name == "CD-7"
    with pytest.raises(ValueError, match="learning_rate: expected one for CD-7; known are exact"):
        lab.learn(FEW, "CD-7", 4, (1,), 0)
    own, given = (
        lab.learn(FEW, "CD-1", 4, (5,), 0, learning_rate=rate).log_p
        for rate in (None, lab.RATES["CD-1"])
    )
    assert torch.equal(own, given)


def test_the_error_of_a_mean_is_over_pictures():
    found = lab.mean_of_pictures(torch.tensor([[1.0, 3.0, 5.0, 7.0]]))
    assert found.value.item() == 4 and found.se.item() == pytest.approx((20 / 3) ** 0.5 / 2)


def test_a_mixture_finds_its_components():
    """Two kinds of pictures, 3 to 1; each step of expectation maximisation makes them likelier."""
    odds = torch.tensor([[3.0] * 6 + [-3.0] * 6, [-3.0] * 6 + [3.0] * 6])
    kind = (torch.arange(2000) % 4 == 0).long()
    v = (torch.rand(2000, 12, generator=generator()) < odds[kind].sigmoid()).float()
    found = lab.mixture(v, 2, 0, smooth=1e-3)
    order = found.log_weights.argsort(descending=True)
    assert found.log_weights[order].exp().tolist() == pytest.approx([0.75, 0.25], abs=0.03)
    assert torch.allclose(found.log_odds[order].float(), odds, atol=0.8)
    x = FEW.train
    runs = [lab.mixture(x, 8, 0, smooth=1e-6, n_starts=1, n_steps=n) for n in (1, 2, 5, 20)]
    rising = [float(one.log_prob(x).mean()) for one in runs]
    assert rising == sorted(rising) and rising[-1] > rising[0] + 0.2
    several = lab.mixture(x, 8, 0, smooth=1e-6, n_starts=5, n_steps=20)
    assert several.log_prob(x).mean() > rising[-1]
    alone = lab.mixture(v, 1, 0, smooth=1.0)
    assert torch.allclose(alone.log_prob(v), Bits.of_data(v).log_prob(v).double(), atol=1e-4)


def test_a_sweep_judges_by_validation():
    """Rates of nothing, of some use, and values of the mixture; one seed is as `learn` has it."""
    grid = {"CD-1": (1e-6, 0.03), "mixture": (0.1,)}
    found = lab.sweep(FEW, grid, 4, 100, (200, 201))
    assert found["CD-1"].shape == (2, 2) and found["mixture"].shape == (1, 2)
    assert (found["CD-1"][1] > found["CD-1"][0] + 0.3).all()
    part = lab.validation(FEW, 201)
    want = lab.learn(part, "CD-1", 4, (100,), 201, learning_rate=0.03).log_p.mean()
    assert found["CD-1"][1, 1].item() == pytest.approx(want.item(), abs=1e-5)
    want = lab.mixture(part.train, 4, 201, smooth=0.1).log_prob(part.held_out).mean()
    assert found["mixture"][0, 1].item() == pytest.approx(want.item(), abs=1e-5)


def test_annealing_is_low_from_one_end_and_high_from_the_other():
    rbm = machine(8, 4, 3.0)
    base = Bits(torch.linspace(-1, 1, 8, dtype=torch.float64))
    found = lab.annealing(rbm, base, (1, 100), 10, 30, 0)
    v = states(8, torch.zeros(1, dtype=torch.float64))
    assert found.truth == pytest.approx(float((-rbm(v)).logsumexp(0).detach()))
    assert found.forward.value.shape == (2, 30)
    assert found.forward.value[0].mean() < found.truth - 0.2
    assert found.reverse.value[0].mean() > found.truth + 0.2
    draws = generator(derive_seed(0, "annealing"))
    first = annealed_log_z(rbm, 10, 1, draws, base)
    assert found.forward.value[0, 0] == first.log_z and found.forward.se[0, 0] == first.log_z_se
    gap = found.gap()
    assert gap.value[0] > 0.5 > gap.value[1] and (gap.se > 0).all()
    # Errors of themselves, of few particles each: about right, with tails.
    for z, way in zip(found.z_scores(), (found.forward, found.reverse), strict=True):
        assert torch.equal(z, (way.value - found.truth) / way.se)
        assert 0.5 < z[1].square().mean().sqrt() < 2.5


def test_angles_are_those_of_the_mean_gradient():
    """CD-k's by the matrix of block Gibbs over all states; and long chains point the right way."""
    rbm = machine(5, 3, 3.0)
    v = states(5, torch.zeros(1, dtype=torch.float64))
    h = states(3, v)
    given_v = (rbm.hidden_logits(v)[:, None] * (2 * h - 1)).sigmoid().prod(-1)
    given_h = (rbm.visible_logits(h)[:, None] * (2 * v - 1)).sigmoid().prod(-1)
    step = (given_v @ given_h).detach()
    data = (torch.rand(3000, 5, generator=generator(5)) < 0.3).double()
    share = torch.bincount((data @ (2.0 ** torch.arange(5)).double()).long(), minlength=32) / 3000

    def slope(weights):
        parts = torch.autograd.grad((weights * rbm(v)).sum(), list(rbm.parameters()))
        return torch.cat([part.flatten() for part in parts])

    law = (-rbm(v)).softmax(0).detach()
    exact = slope(share.double() - law)
    found = lab.angles(rbm, data, (1, 3, 60), 5, 0)
    for i, k in enumerate((1, 3, 60)):
        of_k = slope(share.double() - share.double() @ torch.linalg.matrix_power(step, k))
        want = torch.nn.functional.cosine_similarity(of_k, exact, dim=0)
        length = of_k.norm() / exact.norm()
        assert abs(float(found.cosine.value[i] - want)) < max(4.5 * found.cosine.se[i], 1e-3)
        assert abs(float(found.length.value[i] - length)) < max(4.5 * found.length.se[i], 0.01)
    assert found.exact == pytest.approx(float(exact.norm()), rel=1e-5)
    assert found.degrees[0] > 10 and found.degrees[2] < 4
    assert found.length.value[0] < 0.8 and found.length.value[2] == pytest.approx(1, abs=0.05)
    # Few pictures: noise of the chains would make CD's gradient too long.
    few = torch.cat([lab.angles(rbm, data[:100], (60,), 3, i).length.value for i in range(60)])
    assert abs(float(few.mean()) - 1) < 4.5 * float(few.std()) / 60**0.5 < 0.1
