"""Laws of resting places, energies that know them, and what is wrong with others by a known bit."""

import math

import pytest
import torch

from ebmbook.lab import resting as lab
from ebmref import outcomes

SPOTS, RIMS = lab.Spots(), lab.Rims()
AVERAGE = SPOTS.weights @ SPOTS.centres
ENTROPY = -sum(w * math.log(w) for w in lab.WEIGHTS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Exact:
    """Energies that know a law, as `Networks`; each is off by a function of the place."""

    def __init__(self, law, *changes):
        self.law, self.changes = law, changes or (lambda y: 0 * y[..., 0],)
        self.weights = [torch.zeros(1, 2, 1)]

    def __call__(self, y):
        values = [(7 + change(y) - self.law.log_prob(y))[0] for change in self.changes]
        return torch.stack(values)[..., None]


def in_disc(depth):
    """Lower by so much within 0.3 of the average."""
    return lambda y: -depth * ((y - AVERAGE).norm(dim=-1) < 0.3).to(y)


def mixture(weights):
    """A mixture density network that is the round notches, with these weights."""
    net = lab.mixture_network(5, 1, generator()).requires_grad_(False)
    for part in net.parameters():
        part.zero_()
    parts = [torch.tensor(weights).log(), torch.full((5,), math.log(0.08)), *SPOTS.centres.T]
    net.biases[-1].copy_(torch.stack(parts, -1).flatten())
    return net


@pytest.mark.parametrize("law", [SPOTS, RIMS])
def test_laws_are_laws_and_draws_are_theirs(law):
    points, cell = outcomes.plane_grid(law.reach, 8 * law.n_side)
    p = law.log_prob(points).exp() * cell
    assert p.sum().item() == pytest.approx(1, abs=2e-3)
    y = law.draw(generator(), 3, 20_000)
    assert y.shape == (3, 20_000, 2)
    entropy = -(p * law.log_prob(points)).sum()
    assert -law.log_prob(y).mean().item() == pytest.approx(entropy.item(), abs=0.02)
    owner = torch.cdist(y, law.centres).argmin(-1)
    shares = torch.stack([torch.bincount(one, minlength=5) / 20_000 for one in owner])
    assert (shares - law.weights).abs().max() < 0.015
    assert (y[0] - y[1]).abs().max() > 1


def test_a_rim_is_round_and_empty():
    away = torch.cdist(RIMS.draw(generator(), 1, 20_000)[0], RIMS.centres).amin(1)
    assert away.mean().item() == pytest.approx(0.3 + 0.06**2 / 0.3, abs=0.003)
    assert away.std().item() == pytest.approx(0.06, rel=0.05)
    hole, rim = RIMS.centres[0], RIMS.centres[0] + torch.tensor([0.3, 0.0])
    fall = RIMS.log_prob(rim[None]) - RIMS.log_prob(hole[None])
    assert fall.item() == pytest.approx(0.5 * (0.3 / 0.06) ** 2, abs=0.01)


def test_losses_by_hand():
    """No energy is the uniform law of the square."""
    net = lab.plane_network(4, 2, generator()).requires_grad_(False)
    for part in net.parameters():
        part.zero_()
    points, cell = outcomes.plane_grid(1.6, 10)
    loss = lab.energy_loss(net, SPOTS.draw(generator(), 2, 9), points, cell)
    assert loss.tolist() == pytest.approx([math.log(3.2**2)] * 2, rel=1e-5)
    y = SPOTS.draw(generator(1), 1, 50)
    got = lab.mixture_log_prob(mixture(lab.WEIGHTS), y)
    assert torch.allclose(got, SPOTS.log_prob(y), atol=1e-3)


def test_first_weights_are_steep():
    flat, steep = (lab.plane_network(4, 2, generator(), s) for s in (1.0, 4.0))
    assert torch.allclose(steep.weights[0], 4 * flat.weights[0])
    assert torch.equal(steep.weights[1], flat.weights[1])


def test_a_grid_moves_as_a_whole_by_half_a_cell_at_most():
    points, cell = outcomes.plane_grid(1.6, 4)
    draws = generator()
    moves = torch.stack([lab.shifted(points, cell, draws) - points for _ in range(200)])
    assert torch.allclose(moves, moves[:, :1].expand_as(moves), atol=1e-6)
    assert 0.38 < moves.abs().max() <= 0.4 and moves.mean().abs() < 0.05
    assert (moves[:, 0, 0] - moves[:, 0, 1]).abs().max() > 0.1


def test_divergence_by_hand():
    """Zero for the truth; between mixtures that do not overlap it is that of their weights."""
    assert lab.divergence(Exact(SPOTS), SPOTS).abs().max() < 1e-4
    assert lab.divergence(mixture(lab.WEIGHTS), SPOTS).abs().max() < 1e-4
    equal = lab.divergence(mixture([0.2] * 5), SPOTS).item()
    assert equal == pytest.approx(math.log(5) - ENTROPY, abs=1e-4)
    assert equal == pytest.approx(0.064, abs=1e-3)


def test_one_gaussian_by_hand():
    """Its entropy less that of the truth; off the average by d, with d^2 / 2 more variance."""
    within = 2 * 0.08**2
    truth = ENTROPY + math.log(2 * math.pi * math.e * 0.08**2)
    for off in (0.0, 0.5):
        variance = (1 - AVERAGE.square().sum().item() + within + off**2) / 2
        want = math.log(2 * math.pi * math.e * variance) - truth
        at = AVERAGE + torch.tensor([off, 0.0])
        assert lab.one_gaussian(SPOTS, at[None]).item() == pytest.approx(want, abs=2e-3)


def test_wells_by_hand():
    """The truth has the weights; lowered by two near the average, its height is two less."""
    tilt = -torch.tensor([0.0, 0.0, 0.0, 0.0, math.log(2)])

    def second(y):
        return tilt[torch.cdist(y, SPOTS.centres).argmin(-1)] + in_disc(2.0)(y)

    got = lab.wells(Exact(SPOTS, lambda y: 0 * y[..., 0], second), SPOTS, AVERAGE)
    doubled = torch.tensor([0.30, 0.25, 0.20, 0.15, 0.20]) / 1.1
    assert torch.allclose(got.mass[0].float(), SPOTS.weights, atol=1e-4)
    assert torch.allclose(got.mass[1].float(), doubled, atol=1e-4)
    want = (doubled - SPOTS.weights).abs().max().item()
    assert got.worst.tolist() == pytest.approx([0, want], abs=1e-4)
    true = lab.true_height(SPOTS, AVERAGE).item()
    nearest = (SPOTS.centres - AVERAGE).norm(dim=1)
    terms = SPOTS.weights.log() - 0.5 * (nearest / 0.08).square()
    assert true == pytest.approx(math.log(0.1) - terms.logsumexp(0).item(), abs=1e-3)
    # Doubled, the rarest notch is as deep as the 0.2: the shallowest is then that of 0.15.
    assert got.above.tolist() == pytest.approx([true, true - 2 + math.log(1.5)], abs=1e-3)


def test_descents_end_in_the_notch_they_start_at():
    starts = (SPOTS.centres[[0, 4, 4]] + 0.1).expand(2, 3, 2)
    arrived, found = lab.descents(lambda y: -SPOTS.log_prob(y), starts, SPOTS)
    assert arrived.shape == (2, 3, 5) and found.path.shape[1:] == (6, 2)
    assert arrived[0].int().argmax(1).tolist() == [0, 4, 4]
    assert arrived.sum(-1).tolist() == [[1, 1, 1]] * 2
    nowhere, _ = lab.descents(lambda y: y.square().sum(-1), starts, SPOTS)
    assert not nowhere.any()


def test_nearest_share_by_hand():
    law = lab.Spots()
    law.centres = torch.tensor([[-1.0, 0.0], [1.0, 1.0], [1.0, -1.0], [9.0, 9.0], [9.0, -9.0]])
    shares = lab.nearest_share(law, 1.0, 400)
    # The left one is nearer where 4 x + 2 |y| < 1: an eighth right of the middle at y = 0.
    assert shares.tolist() == pytest.approx([0.5, 0.25, 0.25, 0, 0], abs=0.01)
    assert lab.nearest_share(SPOTS, 1.5).sum().item() == pytest.approx(1)


def test_blindness_is_what_a_changed_energy_would_lose():
    """Models whose energy is lower in the disc, and what happens as it is raised or lowered."""
    depths = (30.0, 40.0)
    net = Exact(SPOTS, *map(in_disc, depths))
    got = lab.blindness(net, SPOTS, AVERAGE, 0.3, torch.tensor([-3.0, 0.0, 5.0]))
    points, cell = outcomes.plane_grid(1.6, 128)
    p = SPOTS.log_prob(points).double().exp() * cell
    law = p[(points - AVERAGE).norm(dim=1) < 0.3].sum().item()
    assert got.law.item() == pytest.approx(law, rel=1e-6)
    for i, depth in enumerate(depths):
        weight = law * math.exp(depth)
        assert got.mass[i].item() == pytest.approx(weight / (1 - law + weight), rel=1e-3)
        for j, h in enumerate((-3.0, 0.0, 5.0)):

            def kl(lower):
                return law * -lower + math.log(1 - law + law * math.exp(lower))

            want = kl(depth - h) - kl(depth)
            assert got.change[j, i].item() == pytest.approx(want, rel=1e-3, abs=1e-9)
    seen = lab.blindness(Exact(SPOTS), SPOTS, SPOTS.centres[0], 0.5, torch.ones(1))
    want = 0.3 + math.log(1 + 0.3 * (math.exp(-1) - 1))
    assert seen.change.item() == pytest.approx(want, abs=1e-4)
    assert seen.mass.item() == pytest.approx(0.3, abs=1e-4)
    free = lab.blindness(net, SPOTS, AVERAGE, 0.3, -got.free).change.diagonal()
    assert free.tolist() == pytest.approx([1e-3] * 2, rel=1e-3)


def test_learning_finds_the_notches_and_more_so_at_the_better_rate():
    found = lab.compare(SPOTS, "energy", (8,), (1e-4, 5e-2), 2, 150, 0, batch=64)
    arm = found[8]
    assert arm.rate == 5e-2 and arm.swept.shape == (2, 2)
    assert torch.equal(arm.kl, arm.swept[1]) and arm.kl.max() < 2 < arm.swept[0].min()
    assert arm.weights == arm.free == 3 * 8 + 9 * 8 + 9
    assert torch.allclose(lab.divergence(arm.net, SPOTS), arm.kl)
    parts = lab.compare(SPOTS, "mixture", (6,), (3e-2,), 2, 300, 0, batch=64)[6]
    assert parts.kl.median() < 0.1 and parts.weights == 2 * 16 + 17 * 24
    assert parts.free == 6 - 1 + 6 + 12
    with pytest.raises(ValueError, match="kind: expected energy or mixture; got 'flow'"):
        lab.learn(SPOTS, "flow", 8, 1e-2, 2, 10, 0)
    one, two = (lab.learn(SPOTS, "energy", 4, 1e-2, 2, 2, 0, steep=s) for s in (1.0, 4.0))
    assert (one.weights[0] - two.weights[0]).abs().max() > 0.1


def test_the_grid_moves_at_each_step(monkeypatch):
    """Else an energy learns to hide wells between its points."""
    seen = []

    def spy(points, cell, draws, move=lab.shifted):
        seen.append(move(points, cell, draws))
        return seen[-1]

    monkeypatch.setattr(lab, "shifted", spy)
    lab.learn(SPOTS, "energy", 4, 1e-2, 1, 3, 0)
    assert len(seen) == 3 and (seen[0] - seen[1]).abs().max() > 1e-3


def test_a_finer_grid_has_more_points(monkeypatch):
    seen = []
    monkeypatch.setattr(
        lab, "shifted", lambda points, cell, draws: seen.append((points, cell)) or points
    )
    for refine in (1, 2):
        lab.compare(SPOTS, "energy", (4,), (1e-2,), 1, 1, 0, refine=refine)
    (one, cell), (two, small) = seen
    assert len(one) == 32**2 and len(two) == 64**2 and small == pytest.approx(cell / 4)


def test_log_density_of_the_first_model_up_to_a_number():
    points = torch.tensor([[0.0, 0.3], [1.0, 0.2], [-0.7, 0.7]])
    true = SPOTS.log_prob(points)
    by_energy = lab.log_density(Exact(SPOTS, lambda y: 0 * y[..., 0], in_disc(9)), points)
    assert torch.allclose(by_energy.diff(), true.diff(), atol=1e-3)
    by_mixture = lab.log_density(mixture(lab.WEIGHTS), points)
    assert torch.allclose(by_mixture, true, atol=1e-2)


def test_weights_and_draws_are_crossed(monkeypatch):
    """Rows begin alike; columns see the same draws and the same grids, and others do not."""
    nets, seen = [], []
    fit, draw, move = lab.training.fit, lab.Spots.draw, lab.shifted

    def begin(net, *given, **named):
        nets.append([part.detach().clone() for part in net.parameters()])
        return fit(net, *given, **named)

    monkeypatch.setattr(lab.training, "fit", begin)
    monkeypatch.setattr(
        lab.Spots, "draw", lambda self, *given: seen.append(draw(self, *given)) or seen[-1]
    )
    grids = []
    monkeypatch.setattr(lab, "shifted", lambda *given: grids.append(move(*given)) or grids[-1])
    got = lab.crossed(SPOTS, AVERAGE, 2, 3e-2, 3, 0, hidden=6, batch=16)
    assert got.shape == (2, 2) and len(got.unique()) == 4
    for part in nets[0]:
        assert torch.equal(part[0], part[1]) and torch.equal(part[2], part[3])
    assert not torch.equal(nets[0][0][1], nets[0][0][2]) and nets[0][0].shape == (4, 2, 6)
    assert seen[0].shape == (2, 16, 2) and not torch.equal(seen[0][0], seen[0][1])
    assert len(grids) == 6 and not torch.equal(grids[0], grids[1])
    again = lab.crossed(SPOTS, AVERAGE, 2, 3e-2, 3, 0, hidden=6, batch=16)
    assert torch.equal(again, got)
    steep = lab.crossed(SPOTS, AVERAGE, 2, 3e-2, 3, 0, hidden=6, batch=16, steep=8.0)
    assert (steep - got).abs().min() > 1e-4
    assert torch.allclose(nets[2][0], 2 * nets[0][0])


def test_crossed_models_learn_from_their_own_column(monkeypatch):
    """With weights and grids alike, what is left between models is their draws."""
    monkeypatch.setattr(lab, "shifted", lambda points, cell, draws: points)
    monkeypatch.setattr(lab.Spots, "_around", lambda self, draws, shape: torch.zeros(*shape, 2))
    monkeypatch.setattr(
        torch,
        "multinomial",
        lambda shares, n, **_: torch.arange(len(shares))[:, None].expand(-1, n),
    )
    got = lab.crossed(SPOTS, SPOTS.centres[0], 2, 3e-2, 40, 0, hidden=8, batch=4)
    # The first column has seen the first notch alone, the second one the second.
    assert (got[:, 0] < got[:, 1]).all()


def test_spread_by_hand():
    """Rows that differ by 3 and columns by 1, and nothing else."""
    heights = torch.tensor([[0.0, 1.0], [3.0, 4.0]])
    got = lab.spread(heights)
    assert got.by_weights == pytest.approx(3 / 2**0.5)
    assert got.by_draws == pytest.approx(1 / 2**0.5)
