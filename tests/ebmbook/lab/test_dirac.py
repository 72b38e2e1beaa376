"""The smallest GAN: closed fields against the losses they come from, eigenvalues, laws of steps."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from ebmbook.lab import dirac
from ebmref import gan

DOUBLE = {"dtype": torch.float64}
GAMES = {
    "saturating": dirac.Game(),
    "non-saturating": dirac.Game("non-saturating"),
    "Wasserstein": dirac.Game("Wasserstein"),
    "R1": dirac.Game(penalty=0.7),
    "noise": dirac.Game(noise=0.6),
    "noise, non-saturating": dirac.Game("non-saturating", noise=0.6),
}


def points(n=20, seed=201):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def losses(name, theta, psi):
    """Of generator and discriminator, by the package's game; noise by a fine sum."""
    if name == "Wasserstein":
        return -psi * theta, psi * theta
    at_data, at_sample, share = 0 * psi[None], (psi * theta)[None], torch.ones(1, **DOUBLE)
    if name.startswith("noise"):
        n = torch.linspace(-9, 9, 4001, **DOUBLE)
        share = torch.exp(-n.square() / 2) * (n[1] - n[0]) / math.sqrt(2 * math.pi)
        at_data, at_sample = psi * 0.6 * n, psi * (theta + 0.6 * n)
    value = (share * (logsigmoid(at_data) + logsigmoid(-at_sample))).sum()
    kind = "non-saturating" if "non-saturating" in name else "saturating"
    own = torch.stack([gan.generator_loss(d[None], kind) for d in at_sample])
    penalty = 0.35 * psi**2 if name == "R1" else 0.0
    return (share * own).sum(), penalty - value


@pytest.mark.parametrize("name", GAMES)
def test_the_field_is_minus_the_gradient_of_the_losses(name):
    at = points(6)
    for theta, psi in at:
        by_theta = torch.func.grad(lambda t, psi=psi: losses(name, t, psi)[0])(theta)
        by_psi = torch.func.grad(lambda s, theta=theta: losses(name, theta, s)[1])(psi)
        got = dirac.field(GAMES[name], torch.stack([theta, psi]))
        assert torch.allclose(got, -torch.stack([by_theta, by_psi]), atol=1e-6)
    together = dirac.field(GAMES[name], at)
    assert torch.allclose(together[3], dirac.field(GAMES[name], at[3]), atol=1e-14)


def test_consensus_descends_the_length_of_the_field():
    game, plain = dirac.Game("non-saturating", consensus=0.8), GAMES["non-saturating"]
    at = points(5)
    for one, got in zip(at, dirac.field(game, at), strict=True):
        jacobian = gan.field_jacobian(lambda x: dirac.field(plain, x), one)
        v = dirac.field(plain, one)
        assert torch.allclose(got, v - 0.8 * jacobian.mT @ v, atol=1e-12)


@pytest.mark.parametrize(
    "game, closed",
    [
        (GAMES["saturating"], 0.5j),
        (GAMES["non-saturating"], 0.5j),
        (GAMES["Wasserstein"], 1j),
        (dirac.Game("non-saturating", penalty=0.5), -0.25 + complex(0.0625 - 0.25) ** 0.5),
        (dirac.Game(penalty=3.0), -1.5 + math.sqrt(2)),
        (dirac.Game("non-saturating", noise=1.0), -0.25 + complex(1 / 16 - 0.25) ** 0.5),
        (dirac.Game(consensus=1.0), -0.25 + 0.5j),
    ],
)
def test_eigenvalues_are_those_of_the_table(game, closed):
    found = dirac.eigenvalues(game)
    assert (found - closed).abs().min() < 1e-10
    assert (found - closed.conjugate()).abs().min() < 1e-10


def test_r1_is_fastest_at_one():
    slowest = [float(dirac.eigenvalues(dirac.Game(penalty=g)).real.max()) for g in (0.9, 1.0, 1.1)]
    assert slowest[1] == min(slowest) == pytest.approx(-0.5, abs=1e-6)


@pytest.mark.parametrize("h", [0.2, 1.0])
def test_radii_of_the_three_rules(h):
    game = GAMES["non-saturating"]
    assert dirac.spectral_radius(game, h, "at once") == pytest.approx(math.sqrt(1 + h * h / 4))
    assert dirac.spectral_radius(game, h, "in turn") == pytest.approx(1, abs=1e-7)
    ahead = math.sqrt(1 - h**2 / 4 + h**4 / 16)
    assert dirac.spectral_radius(game, h, "ahead") == pytest.approx(ahead)


def test_steps_by_hand():
    """From (1, 1) by h = 1, Wasserstein: the field is (psi, -theta)."""
    start = torch.tensor([1.0, 1.0], **DOUBLE)
    for rule, end in (("at once", [2, 0]), ("in turn", [1, 0]), ("ahead", [1, -1])):
        assert dirac.advance(GAMES["Wasserstein"], start, 1.0, rule).tolist() == end
    path = dirac.path(GAMES["Wasserstein"], [1.0, 1.0], 1.0, "at once", 2)
    assert path.tolist() == [[1, 1], [2, 0], [2, -2]]


def test_steps_and_strengths_may_differ_from_game_to_game():
    h, gamma = torch.tensor([0.1, 0.5], **DOUBLE), torch.tensor([0.0, 2.0], **DOUBLE)
    start = torch.tensor([[1.0, 0.5], [1.0, 0.5]], **DOUBLE)
    for rule in dirac.RULES:
        both = dirac.advance(dirac.Game("non-saturating", penalty=gamma), start, h, rule)
        for k in range(2):
            game = dirac.Game("non-saturating", penalty=float(gamma[k]))
            one = dirac.advance(game, start[k], float(h[k]), rule)
            assert torch.allclose(both[k], one, atol=1e-14)


def test_the_flow_keeps_or_loses_its_distance():
    assert dirac.flow(GAMES["saturating"], [0.2, 0.0], 100) == pytest.approx(0.2, abs=1e-9)
    left = dirac.flow(GAMES["non-saturating"], [0.2, 0.0], 400)
    assert (left**-2 - 0.2**-2) / 400 == pytest.approx(1 / 8, abs=0.002)


def test_laws_of_the_circle_and_of_the_decay():
    found = dirac.laws([0.4], time=400.0)
    for ratio in (found.inside, found.outside, 8 * found.rate):
        assert float(ratio) == pytest.approx(1, abs=0.02)
    # 1 / r^2 starts at one and not at zero.
    assert float(found.left) == pytest.approx((1 + 8 / 394) ** -0.5, abs=0.01)


def test_search_finds_the_best_and_says_when_there_is_none():
    steps = torch.tensor([0.1, 1.0, 2.0], **DOUBLE)
    strengths = torch.tensor([0.3, 1.0], **DOUBLE)
    best = dirac.search("R1", "at once", steps, strengths, 60)
    assert (best.step, best.strength) == (2.0, 1.0) and best.price < 10
    game, start = dirac.Game("non-saturating", penalty=1.0), [1.0, 0.0]
    radii = dirac.path(game, start, 2.0, "at once", 60).norm(dim=-1)
    assert (radii[best.price :] <= 0.01).all() and radii[best.price - 1] > 0.01
    bare = dirac.search("saturating", "in turn", steps, strengths, 60)
    assert bare.price is None and bare.strength is None and bare.left > 0.5
    ahead = dirac.search("non-saturating", "ahead", steps, strengths, 100)
    radii = dirac.path(GAMES["non-saturating"], start, ahead.step, "ahead", 100).norm(dim=-1)
    assert (radii[ahead.price // 2 :] <= 0.01).all() and radii[ahead.price // 2 - 1] > 0.01


def test_faults():
    with pytest.raises(ValueError, match="loss: expected one of"):
        dirac.Game("hinge")
    with pytest.raises(ValueError, match="rule: expected one of"):
        dirac.advance(dirac.Game(), torch.zeros(2, **DOUBLE), 0.1, "later")
    with pytest.raises(ValueError, match="kind: expected one of"):
        dirac.search("hinge", "ahead", torch.ones(1), torch.ones(1), 5)
