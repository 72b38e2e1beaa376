"""A small machine against the sum over all of its states, from every side."""

import math

import pytest
import torch
from torch.nn import functional

from ebmref import likelihood as L
from ebmref import rbm as machines
from ebmref import samplers, training
from ebmref.rbm import RBM, Bits, gibbs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def machine(d=5, m=3, scale=1.0, seed=1):
    """With biases that are not zero, in double precision."""
    g = generator(seed)
    rbm = RBM(d, m, g, scale).double()
    with torch.no_grad():
        rbm.visible.copy_(torch.randn(d, generator=g))
        rbm.hidden.copy_(torch.randn(m, generator=g))
    return rbm


def bits(d):
    return machines.states(d, torch.zeros(1, dtype=torch.float64))


def law(rbm):
    """p(v, h) over all states, `(2^d, 2^m)`, by the joint energy alone."""
    v, h = bits(len(rbm.visible)), bits(len(rbm.hidden))
    pairs = rbm.energy(v.repeat_interleave(len(h), 0), h.repeat(len(v), 1)).detach()
    return (-pairs).softmax(0).view(len(v), len(h)), float((-pairs).logsumexp(0))


SHAPES = [(5, 3), (3, 5), (4, 4), (1, 2)]


@pytest.mark.parametrize("d, m", SHAPES)
def test_free_energy_and_log_z_are_sums_over_states(d, m):
    rbm = machine(d, m)
    joint, log_z = law(rbm)
    v = bits(d)
    assert torch.allclose(-rbm(v) - log_z, joint.sum(1).log(), atol=1e-12)
    assert machines.log_z(rbm).item() == pytest.approx(log_z, abs=1e-12)
    assert L.over(v)(rbm).item() == pytest.approx(log_z, abs=1e-12)
    h = torch.full((1, m), 1.0, dtype=torch.float64)
    ratio = joint[-1, -1] / joint[:, -1].sum()
    assert rbm.visible_logits(h).sigmoid().prod().item() == pytest.approx(ratio.item())


def test_all_states_once():
    v = bits(3)
    assert v.tolist() == [[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]


def test_log_z_of_many_states_is_summed_in_chunks():
    """13 units in the smaller half: two chunks, and 8192 states of it. Single precision, too."""
    rbm = machine(13, 14, 0.5)
    whole = L.over(bits(13))(rbm).item()
    assert machines.log_z(rbm).item() == pytest.approx(whole, abs=1e-10)
    assert machines.log_z(rbm.float()).dtype == torch.float64
    assert machines.log_z(rbm).item() == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("d, m", SHAPES)
def test_the_gradient_of_the_likelihood_is_the_difference_of_correlations(d, m):
    """Autograd of mean F + log Z against E_p[v h] - E_data[v h], by enumeration, of all biases."""
    rbm = machine(d, m)
    data = (torch.rand(7, d, generator=generator(4)) < 0.4).double()
    loss = L.exact_loss(rbm, data, machines.log_z)
    parts = [rbm.weight, rbm.visible, rbm.hidden]
    slopes = torch.autograd.grad(loss, parts)
    joint, log_z = law(rbm)
    v, h = bits(d), bits(m)
    active = rbm.hidden_logits(data).sigmoid()
    want = (
        torch.einsum("ab,ai,bj->ij", joint, v, h) - data.T @ active / 7,
        joint.sum(1) @ v - data.mean(0),
        joint.sum(0) @ h - active.mean(0),
    )
    for got, by_sum in zip(slopes, want, strict=True):
        assert torch.allclose(got, by_sum, atol=1e-12)
    assert loss.item() == pytest.approx(rbm(data).mean().item() + log_z, abs=1e-12)


def step_matrix(rbm):
    """Gibbs from v to v', `(2^d, 2^d)`, from the joint law."""
    joint, _ = law(rbm)
    up = joint / joint.sum(1, keepdim=True)
    down = joint / joint.sum(0, keepdim=True)
    return up @ down.T


def test_gibbs_is_the_matrix_of_the_joint_law():
    """Where 200,000 chains go from one state, and that the law stays as it is."""
    rbm, n = machine(3, 2), 200_000
    K, p = step_matrix(rbm), law(rbm)[0].sum(1)
    assert torch.allclose(p @ K, p)
    for start in (0, 5):
        x0 = bits(3)[start].expand(n, -1)
        chain = samplers.sample(gibbs(rbm), x0, 1, generator=generator(start))
        index = (chain.samples[0] @ torch.tensor([1.0, 2.0, 4.0]).double()).long()
        share = torch.bincount(index, minlength=8) / n
        assert torch.all((share - K[start]).abs() < 5 * (K[start] / n).sqrt() + 1e-5)
        assert torch.equal(chain.energy[0], rbm(chain.samples[0]).detach())
        assert (chain.acceptance_rate == 1).all() and chain.n_gradients == 0


@pytest.mark.parametrize("d, m", [(3, 5), (5, 3)])
def test_exact_draws_have_the_law(d, m):
    rbm, n = machine(d, m), 100_000
    v = machines.exact_draws(rbm, n, generator(3))
    index = (v @ (2.0 ** torch.arange(d)).double()).long()
    share, p = torch.bincount(index, minlength=2**d) / n, law(rbm)[0].sum(1)
    assert torch.all((share - p).abs() < 5 * (p / n).sqrt() + 1e-5)


# Annealing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [None, "data"])
def test_annealing_brackets_log_z(base):
    """Within four of their own errors from either end, with many temperatures and with few."""
    rbm = machine(6, 4)
    exact = machines.log_z(rbm).item()
    draws = machines.exact_draws(rbm, 4000, generator(2))
    base = base and Bits.of_data(draws)
    for n_betas in (5, 40):
        forth = machines.annealed_log_z(rbm, 4000, n_betas, generator(), base)
        back = machines.reverse_annealed_log_z(rbm, draws, n_betas, generator(1), base)
        for found in (forth, back):
            assert abs(found.log_z.item() - exact) < 4 * found.log_z_se.item()
            assert found.log_z_se < (0.1 if n_betas == 5 else 0.03)


def test_short_paths_are_low_forth_and_high_back():
    """On average over runs of few particles, by more than the error of the average."""
    rbm = machine(6, 4, 2.0)
    exact = machines.log_z(rbm).item()
    forth, back = [], []
    for seed in range(60):
        forth.append(machines.annealed_log_z(rbm, 5, 2, generator(seed)).log_z)
        draws = machines.exact_draws(rbm, 5, generator(seed + 100))
        back.append(machines.reverse_annealed_log_z(rbm, draws, 2, generator(seed)).log_z)
    for values, sign in ((forth, -1), (back, 1)):
        gap = torch.stack(values) - exact
        assert sign * gap.mean() > 2 * gap.std() / 60**0.5


def test_a_machine_that_is_its_base_needs_no_path():
    """Every weight is Z at once."""
    rbm = machine(4, 2)
    with torch.no_grad():
        rbm.weight.zero_()
        rbm.hidden.zero_()
    found = machines.annealed_log_z(rbm, 3, 5, generator(), Bits(rbm.visible))
    want = functional.softplus(rbm.visible).sum().item() + 2 * math.log(2)
    assert found.log_z.item() == pytest.approx(want, abs=1e-12)
    assert found.log_z_se.item() == pytest.approx(0, abs=1e-12)


# Learning --------------------------------------------------------------------------------------


def test_cd_points_nearly_where_the_likelihood_does():
    """CD-1's mean update makes a sharp angle with the exact one, the sharper for a longer chain."""
    rbm, data = machine(6, 4, 0.7), machines.exact_draws(machine(6, 4, 1.5, 8), 20_000, generator())
    exact = torch.autograd.grad(L.exact_loss(rbm, data, machines.log_z), rbm.weight)[0]
    cosines = {}
    for k in (1, 10):
        moved, _ = L.run(gibbs(rbm), data, k, generator(k))
        update = torch.autograd.grad(L.cd_loss(rbm, data, moved), rbm.weight)[0]
        cosines[k] = float(functional.cosine_similarity(update.flatten(), exact.flatten(), 0))
    assert 0.5 < cosines[1] < cosines[10] and cosines[10] > 0.99


@pytest.mark.parametrize("method", ["exact", "cd", "pcd"])
def test_a_machine_learns_another(method):
    """Its likelihood comes near that of the one that made the data; from independent bits."""
    teacher = machine(6, 3, 2.0, 5)
    with torch.no_grad():  # a state and its opposite alike: independent bits see nothing
        teacher.visible.copy_(-teacher.weight.sum(1) / 2)
        teacher.hidden.copy_(-teacher.weight.sum(0) / 2)
    data = machines.exact_draws(teacher, 5000, generator()).float()
    made = {
        "exact": lambda: L.exact(machines.log_z),
        "cd": lambda: L.cd(gibbs, 1),
        "pcd": lambda: L.persistent_cd(gibbs, 1, Bits.of_data(data), size=500, restart=0.0),
    }[method]()
    student = RBM(6, 3, generator(2), 0.5)
    learner = L.Learner(student, made, L.Recipe(250, 0.03, average=0.98), 0)
    training.bring(learner, 400, data=data)
    best = L.exact_loss(teacher, data.double(), machines.log_z).item()
    flat = -Bits.of_data(data).log_prob(data).mean().item()
    got = L.exact_loss(learner.model(averaged=True), data, machines.log_z).item()
    assert flat - best > 0.3 and got - best < 0.2 * (flat - best)


# Bits and bad inputs ---------------------------------------------------------------------------


def test_independent_bits():
    law = Bits(torch.tensor([0.0, 2.0, -1.0], dtype=torch.float64))
    assert law.log_prob(bits(3)).exp().sum().item() == pytest.approx(1)
    v = law.sample(50_000, generator())
    assert torch.allclose(v.mean(0), law.log_odds.sigmoid(), atol=0.01)
    data = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    odds = Bits.of_data(data).log_odds
    assert odds.tolist() == pytest.approx([math.log(3), 0.0])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: RBM(0, 3, generator()), "n_visible: expected an integer >= 1"),
        (lambda: RBM(2, 3, generator(), 0.0), "scale: expected a number > 0"),
        (lambda: machines.states(30, torch.zeros(1)), "d: 2\\^30 states are too many"),
        (lambda: machines.log_z(RBM(30, 26, generator())), "24 units or fewer .* it has 26"),
        (lambda: gibbs(L.tempered(machine(), 2.0)), "energy: expected an RBM, at beta = 1"),
        (
            lambda: samplers.sample(gibbs(machine()), torch.rand(2, 5).double(), 1,
                                    generator=generator()),
            r"x0: expected \(n, 5\) of zeros and ones",
        ),
        (
            lambda: machines.reverse_annealed_log_z(machine(), torch.rand(3, 5), 2, generator()),
            "draws: expected",
        ),
        (lambda: machines.annealed_log_z(machine(), 1, 2, generator()), "n: expected an integer"),
        (lambda: machines.annealed_log_z(machine(), 2, 0, generator()), "n_betas: expected"),
        (
            lambda: machines.annealed_log_z(machine(), 2, 2, generator(), Bits(torch.zeros(3))),
            "base: expected 5 bits",
        ),
        (lambda: Bits(torch.tensor([math.inf])), "log_odds: expected"),
        (lambda: machines.exact_draws(machine(), 0, generator()), "n: expected an integer >= 1"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
