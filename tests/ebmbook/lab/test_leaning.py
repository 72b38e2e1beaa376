"""Energies of lean and fall that are right, or wrong by a function of the lean."""

import math

import pytest
import torch

from ebmbook.lab import leaning as lab
from ebmbook.lab.resting import WEIGHTS
from ebmref import outcomes
from ebmref.networks import Networks

LAWS = lab.Notches(torch.tensor([0.0, 1.0, 4.0]))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Exact:
    """-log p of the fall given the lean, as a network of both, plus c(lean)."""

    def __init__(self, laws, c=lambda lean: 0 * lean):
        self.laws, self.c = laws, c

    def __call__(self, pair):
        lean = torch.atan2(pair[..., 1], pair[..., 0])
        fall = torch.atan2(pair[..., 3], pair[..., 2])
        return (self.c(lean) - self.laws.log_prob(lean, fall[..., None])[..., 0])[..., None]


def test_the_law_is_one_for_each_lean_and_its_shares_follow_kappa():
    lean = lab.ring(7).expand(3, 7)
    fall = lab.ring(400).expand(3, 7, 400)
    mass = LAWS.log_prob(lean, fall).exp().mean(-1) * 2 * math.pi
    assert torch.allclose(mass, torch.ones(3, 7), atol=1e-4)
    shares = LAWS.log_shares(lean).exp()
    assert torch.allclose(shares[0], torch.tensor(WEIGHTS).expand(7, 5))
    want = torch.tensor(WEIGHTS) * (4 * (lean[2, 3] - LAWS.at).cos()).exp()
    assert torch.allclose(shares[2, 3], want / want.sum())


def test_draws_have_the_shares_and_the_scatter():
    lean = torch.tensor([[0.3], [2.0], [5.0]])
    fall = LAWS.draw(lean, 20_000, generator())
    assert fall.shape == (3, 1, 20_000)
    off = fall[..., None] - LAWS.at
    off = torch.atan2(off.sin(), off.cos())
    which = off.abs().argmin(-1)
    for law in range(3):
        seen = torch.bincount(which[law, 0], minlength=5) / 20_000
        assert (seen - LAWS.log_shares(lean)[law, 0].exp()).abs().max() < 0.015
    mean = off.gather(-1, which[..., None]).cos().mean().item()
    assert mean == pytest.approx(outcomes.mean_resultant(40.0), abs=1e-3)


def test_energy_is_of_both_and_knows_full_turns():
    net = Networks((4, 8, 1), 3, generator())
    lean, fall = torch.rand(3, 5, generator=generator(1)), torch.rand(3, 5, 6)
    at = lab.energy(net, lean, fall)
    assert at.shape == (3, 5, 6)
    assert torch.allclose(lab.energy(net, lean + 2 * math.pi, fall - 2 * math.pi), at, atol=1e-5)
    assert (lab.energy(net, lean + 1, fall) - at).abs().min() > 0
    assert (lab.energy(net, lean, fall + 1) - at).abs().min() > 0
    one = net(torch.cat([lean[1, 2].cos()[None], lean[1, 2].sin()[None],
                         fall[1, 2, 3].cos()[None], fall[1, 2, 3].sin()[None]])[None])  # fmt: skip
    assert at[1, 2, 3].item() == pytest.approx(one[1, 0, 0].item(), abs=1e-6)


def test_log_z_by_hand():
    """No energy has the whole turn; F = -k cos y has 2 pi I0(k)."""
    assert lab.log_z(torch.zeros(2, 9)).tolist() == pytest.approx([math.log(2 * math.pi)] * 2)
    k = 3.0
    want = math.log(2 * math.pi * float(torch.special.i0(torch.tensor(k))))
    assert lab.log_z(-k * lab.ring(50).cos()).item() == pytest.approx(want, abs=1e-5)


def test_a_batch_has_falls_of_its_leans_and_a_ring_that_turns():
    sharp = lab.Notches(torch.tensor([1e3, 1e3]))
    draws = generator(3)
    lean, fall, ring = lab.batch(sharp, 50, 8, 12, draws)
    assert lean.shape == (2, 50) and fall.shape == (2, 50, 8) and ring.shape == (2, 50, 12)
    own = sharp.at[sharp.log_shares(lean).argmax(-1)]
    assert (fall - own[..., None]).cos().min() > 0.7
    assert torch.allclose(ring.diff(), torch.full((2, 50, 11), 2 * math.pi / 12), atol=1e-5)
    again = lab.batch(sharp, 50, 8, 12, draws)[2]
    assert (again[0, 0, 0] - ring[0, 0, 0]).abs() > 1e-3
    assert (lean[0] - lean[1]).abs().min() > 0


def test_judge_sees_no_function_of_the_lean():
    shift = Exact(LAWS, lambda lean: 3 * lean.cos())
    right, shifted = lab.judge(Exact(LAWS), LAWS), lab.judge(shift, LAWS)
    assert right.learned.shape == (3, 48)
    assert right.learned.abs().max() < 1e-4 and shifted.learned.abs().max() < 1e-4
    assert right.log_z.abs().max() < 1e-4
    assert torch.allclose(shifted.log_z, -3 * lab.ring(48).cos().double().expand(3, 48), atol=1e-4)
    wrong = lab.judge(Exact(lab.Notches(torch.tensor([1.0, 1.0, 1.0]))), LAWS)
    assert wrong.learned[1].abs().max() < 1e-4
    assert (wrong.learned[[0, 2]] > 1e-2).all()


def test_trivial_laws_by_hand():
    laws = lab.Notches(torch.tensor([0.0, 4.0, 1e4]))
    got = lab.judge(Exact(laws), laws)
    assert got.blind[0].abs().max() < 1e-6 and got.bump[0].min() > 0.5
    # One notch: a von Mises law, whose KL from the uniform one is k A(k) - log I0(k).
    k = 40.0
    size = float(torch.special.i0(torch.tensor(k).double()))
    want = k * outcomes.mean_resultant(k) - math.log(size)
    assert torch.allclose(got.even[2], torch.full((48,), want).double(), atol=1e-3)
    assert got.bump[2].abs().max() < 1e-3
    # Blind of one notch for each lean: the entropy of the notch, since they do not overlap.
    which = laws.log_shares(lab.ring(48).expand(3, 48))[2].argmax(-1)
    p = torch.bincount(which, minlength=5) / 48
    assert got.blind[2].mean().item() == pytest.approx(-(p * p.log()).sum().item(), abs=1e-3)
    assert (got.bump[1] > 0.1).all() and (got.blind[1] > got.bump[1] - 1).all()


def test_concentration_undoes_the_mean_resultant():
    kappas = (0.0, 0.5, 3.0, 200.0)
    lengths = torch.tensor([outcomes.mean_resultant(k) for k in kappas], dtype=torch.float64)
    assert lab.concentration(lengths).tolist() == pytest.approx(kappas, rel=1e-6, abs=1e-9)


def test_backwards_takes_the_normaliser():
    laws = lab.Notches(torch.tensor([2.0]))
    by_energy, by_law = lab.backwards(Exact(laws, lambda lean: 9 * (lean - 1).cos()), laws)
    assert by_energy.shape == by_law.shape == (1, 5)
    assert by_law.max() <= 1.5
    # The least F over leans is pulled to where c is least, 1 + pi, whatever the fall.
    at = lab.ring(240)
    truth = laws.log_prob(at[None], laws.at.expand(1, 240, 5)).argmax(1)
    off = (at[truth[0]] - (1 + math.pi)).cos().acos().rad2deg()
    assert (by_energy[0] > 0.4 * off - 3).all() and (by_energy[0] <= off + 3).all()
    assert by_energy.max() > 60


def test_maps_are_densities_of_the_fall_for_each_lean():
    got = lab.maps(Exact(LAWS, lambda lean: 2 * lean.sin()), LAWS, 6, 90)
    assert got.energy.shape == got.learned.shape == got.true.shape == (3, 6, 90)
    assert torch.allclose(got.learned, got.true, atol=1e-3)
    mass = got.true.exp().mean(-1) * 2 * math.pi
    assert torch.allclose(mass, torch.ones(3, 6).double(), atol=1e-4)
    want = 2 * lab.ring(6).sin().double()[:, None] - got.true[1]
    assert torch.allclose(got.energy[1], want, atol=1e-3)
    sharp = got.true[2].argmax(-1)  # the fall that each lean makes likeliest
    own = LAWS.log_shares(lab.ring(6).expand(3, 6))[2].argmax(-1)
    assert ((lab.ring(90)[sharp] - LAWS.at[own]).cos() > 0.99).all()


def test_a_bump_on_a_floor_by_hand():
    """None where the truth is one: a notch on an even floor. Never worse than a bump alone."""

    class OneOnFloor(lab.Notches):
        def log_prob(self, lean, fall):
            size = torch.special.i0e(torch.tensor(8.0))
            bump = (8 * ((fall - 1.0).cos() - 1)).exp() / (2 * math.pi * size)
            return (0.7 * bump + 0.3 / (2 * math.pi)).log()

    assert lab.floored(OneOnFloor(torch.zeros(1)), 3, n_steps=200).abs().max() < 1e-3
    got = lab.judge(Exact(LAWS), LAWS, 12)
    floored = lab.floored(LAWS, 12)
    assert floored.shape == (3, 12)
    assert (floored < got.bump + 1e-3).all() and (floored < got.even).all()
    assert floored.min() > 0.05 and floored[2].mean() < got.bump[2].mean() - 0.1
    assert (floored[0] - floored[0, 0]).abs().max() < 1e-3
    # By brute force, of 40 directions, 30 concentrations and 20 weights of the bump.
    fall = lab.ring(240)
    truth = LAWS.log_prob(lab.ring(12)[None, 3:4].expand(3, 1), fall.expand(3, 1, 240))[2, 0]
    k = torch.logspace(-1, 2.3, 30)[:, None]
    about = k * ((fall - lab.ring(40)[:, None, None]).cos() - 1)
    bump = about.exp() / (2 * math.pi * torch.special.i0e(k))
    w = torch.linspace(0.05, 1, 20)[:, None, None, None]
    log_q = (w * bump + (1 - w) / (2 * math.pi)).log()
    best = ((truth.exp() * (truth - log_q)).sum(-1) * 2 * math.pi / 240).min().item()
    assert best - 0.02 < floored[2, 3].item() < best + 1e-3


@pytest.mark.parametrize("kind, size", [("energy", 1), ("mixture", 5), ("bins", 48)])
def test_shapes_have_about_the_weights(kind, size):
    widths = lab.shape(kind, size, 1250)
    n_out = {"energy": 1, "mixture": 20, "bins": 48}[kind]
    assert widths[0] == (4 if kind == "energy" else 2) and widths[-1] == n_out
    assert widths[1] == widths[2]
    net = Networks(widths, 1, generator())
    assert sum(part.numel() for part in net.parameters()) == pytest.approx(1250, abs=40)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind: expected one of energy, mixture, bins; got 'flow'"):
        lab.shape("flow", 1)


@pytest.mark.parametrize("kind, size", [("energy", 1), ("mixture", 3), ("bins", 24)])
def test_networks_answer_with_laws_that_see_the_lean(kind, size):
    net = Networks(lab.shape(kind, size, 300), 2, generator())
    lean = torch.tensor([[0.5, 3.0]]).expand(2, 2)
    grid = (lab.ring(480) + math.pi / 480).expand(2, 2, 480)
    law = lab.log_law(kind, net, lean, grid, grid)
    assert law.shape == (2, 2, 480)
    assert torch.allclose(law.exp().mean(-1) * 2 * math.pi, torch.ones(2, 2), atol=1e-3)
    assert (law[:, 0] - law[:, 1]).abs().max() > 1e-3
    turned = lab.log_law(kind, net, lean, grid - 2 * math.pi, grid)
    assert torch.allclose(turned, law, atol=1e-3)


def test_laws_of_networks_by_hand():
    """Biases alone: two von Mises laws of weights 3 to 1; bins of 1, 2 and 5 tenths."""
    net = Networks((2, 3, 8), 1, generator()).requires_grad_(False)
    net.weights[-1].zero_()
    parts = [[math.log(3), math.log(4) - 2, 0.0, 2.0], [0.0, math.log(9) - 2, -1.0, 0.0]]
    net.biases[-1].copy_(torch.tensor(parts).flatten())
    lean, fall = torch.zeros(1, 1), torch.tensor([[[math.pi / 2, math.pi]]])
    got = lab.log_law("mixture", net, lean, fall, fall).exp()[0, 0]

    def von_mises(k, cosine):
        size = float(torch.special.i0(torch.tensor(k).double()))
        return math.exp(k * cosine) / (2 * math.pi * size)

    want = [0.75 * von_mises(4.0, 1) + 0.25 * von_mises(9.0, 0),
            0.75 * von_mises(4.0, 0) + 0.25 * von_mises(9.0, 1)]  # fmt: skip
    assert got.tolist() == pytest.approx(want, rel=1e-5)
    net = Networks((2, 3, 3), 1, generator()).requires_grad_(False)
    net.weights[-1].zero_()
    net.biases[-1].copy_(torch.tensor([0.1, 0.2, 0.7]).log())
    fall = torch.tensor([[[0.1, 2.0, 2.2, -0.1]]])
    got = lab.log_law("bins", net, lean, fall, fall).exp() * (2 * math.pi / 3)
    assert got[0, 0].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.7])


def test_divergence_of_an_energy_is_that_of_the_judge():
    laws = lab.Notches(torch.tensor([4.0, 0.0]))
    assert lab.divergence("energy", Exact(laws), laws).abs().max() < 1e-4
    other = lab.Notches(torch.tensor([1.0, 1.0]))
    want = lab.judge(Exact(other), laws, 48, 480).learned.mean(1)
    assert torch.allclose(lab.divergence("energy", Exact(other), laws), want, atol=1e-3)


def test_rivals_learn_and_the_better_rate_is_kept():
    laws = lab.Notches(torch.full((3,), 4.0))
    asked = (("energy", 1), ("mixture", 5), ("bins", 48))
    arms = lab.compare(laws, asked, (1e-5, 2e-2), 120, 0)
    assert [*arms] == [*asked]
    for arm in arms.values():
        assert arm.rate == 2e-2 and arm.swept.shape == (2, 3)
        assert torch.equal(arm.kl, arm.swept[1]) and 0 < arm.kl.median() < 0.5
        assert arm.swept[0].median() > 0.8 and 1150 < arm.weights < 1350


def test_rivals_see_the_same_pairs(monkeypatch):
    seen, made = {}, lab.batch

    def spy(*given):
        got = made(*given)
        seen.setdefault(kind, []).append(got[1])
        return got

    monkeypatch.setattr(lab, "batch", spy)
    for kind in lab.KINDS:
        lab.learn(lab.Notches(torch.ones(2)), kind, 4, 1e-2, 2, 5)
    first, *others = seen.values()
    assert len(first) == 2 and not torch.equal(*first)
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
