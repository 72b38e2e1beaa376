"""Heights off the data: bands of the plane, and energies that are right or wrong by a known bit."""

import pytest
import torch

from ebmbook.lab import off_data as lab
from ebmbook.lab import plane
from ebmref.energies import Box

LAW = plane.law("ring", n_side=40)
DATA = LAW.draws.sample(2000, torch.Generator().manual_seed(100))


def test_bands_are_between_levels_of_the_density():
    band = lab.bands(LAW)
    mass = torch.zeros(5).double().index_add(0, band, LAW.log_p.exp() * LAW.cell)
    want = torch.tensor([0.5, 0.4, 0.09, 0.0099, 0.0001])
    assert torch.allclose(mass.float(), want, atol=0.02)
    least = [float(LAW.log_p[band == i].min()) for i in range(5)]
    most = [float(LAW.log_p[band == i].max()) for i in range(5)]
    assert all(low >= high for low, high in zip(least[:-1], most[1:], strict=True))
    for bad in ((), (0.5, 0.5), (0.9, 0.5), (0.5, 1.0)):
        with pytest.raises(ValueError, match="shares: expected numbers in"):
            lab.bands(LAW, bad)
    with pytest.raises(ValueError, match="shares: the grid has no point"):
        lab.bands(LAW, (0.5, 0.5 + 1e-9))


def test_heights_by_hand():
    """The truth up to a constant; and the truth cut off at a height of twenty."""

    def energy(x):
        true = -LAW.draws.log_prob(x)
        return torch.stack([true + 9, true.clamp(max=20.0)])

    found = lab.heights(LAW, energy)
    assert found.area.sum().item() == pytest.approx(64)
    assert found.error[:, 0].max() < 1e-3 and found.kl.abs().max() < 1e-3
    assert torch.allclose(found.learned[:, 0], found.truth, atol=1e-3)
    assert (found.error[:4] < 1e-3).all()
    outside = -LAW.log_p[lab.bands(LAW) == 4]
    want = (outside - 20).clamp(min=0).mean()
    assert found.error[4, 1].item() == pytest.approx(want.item(), rel=1e-3) and want > 10
    assert (found.truth[4] - found.learned[4, 1]).item() == pytest.approx(want.item(), rel=1e-3)
    assert (found.truth.diff() > 0).all()
    with pytest.raises(ValueError, match=r"law: expected a density above zero .*; got board"):
        board = plane.law("board", reach=8.0)
        lab.heights(board, energy)


def test_ways_change_the_noise_alone():
    ways = lab.ways(LAW, DATA)
    base = ways["NCE"]
    changed = [name for name in ways if name.startswith("NCE, ")]
    assert changed == ["NCE, nu 32", "NCE, near noise", "NCE, far noise", "NCE, uniform noise"]
    for name in changed:
        assert ways[name][1:] == base[1:]
    spread = {"NCE": 1, "NCE, nu 32": 1, "NCE, near noise": 0.5, "NCE, far noise": 5}
    spread = {name: ratio * DATA.std(0) for name, ratio in spread.items()}
    spread["NCE, uniform noise"] = torch.full((2,), 4 / 3**0.5)
    for name, want in spread.items():
        method, draws = ways[name].method, torch.Generator().manual_seed(0)
        memory = method.memory(None, DATA, draws)
        made = method.phase(lambda x: x.square().sum(1), DATA, memory, draws).negatives
        assert torch.allclose(made.std(0), want, rtol=0.05), name
    told = {name: ways[name].method.identity(None) for name in changed}
    assert told["NCE, nu 32"] == {"noise": "Gaussian", "nu": 32}
    assert told["NCE, uniform noise"] == {"noise": Box.__name__, "nu": 4}


def test_energies_are_right_on_the_data_and_not_off_them():
    ways = lab.ways(LAW, DATA)
    small = {"hidden": (32, 32), "batch": 64}
    chosen = {name: ways[name] for name in ("NCE", "NCE, uniform noise")}
    found = lab.learned(LAW, chosen, DATA, 600, 3, 0, **small)
    for one in found.values():
        assert one.error.shape == one.learned.shape == (5, 3) and one.kl.shape == (3,)
        assert (one.error[0] < 1).all() and (one.kl < 0.8).all()
        assert (one.error[4] > 10 * one.error[0]).all()
        assert (one.learned[4] < one.truth[4]).all()
