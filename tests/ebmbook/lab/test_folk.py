"""Folk recipes that run away, counted model by model."""

import dataclasses

import pytest
import torch

from ebmbook.lab import folk as lab
from ebmbook.lab import plane
from ebmref import likelihood as L
from ebmref.energies import Gaussian

LAW = plane.law("ring", n_side=40)
DATA = LAW.draws.sample(2000, torch.Generator().manual_seed(100))


def test_every_remedy_is_a_recipe():
    base = lab.Setting()
    for name, change in lab.REMEDIES.items():
        made = lab.Setting(**change)
        differs = {
            field.name
            for field in dataclasses.fields(made)
            if getattr(made, field.name) != getattr(base, field.name)
        }
        assert differs == change.keys(), name
        found = lab.divergence(name, LAW, DATA, 2, 2, 0, hidden=(8,), batch=16)
        assert found.share == 0 and found.kl.isfinite().all(), name
    with pytest.raises(ValueError, match=r"remedy: expected one of none, .*; got 'pills'"):
        lab.divergence("pills", LAW, DATA, 2, 2, 0)
    assert base.beta == pytest.approx(2 * 10 / 0.005**2)
    assert lab.Setting(**lab.REMEDIES["true temperature"]).beta == pytest.approx(1)


def test_a_recipe_that_runs_away_is_counted_model_by_model():
    """Steps so long that all run away at once, some do, or none does; with what is told of each."""
    more = {"hidden": (16, 16), "batch": 32}
    wild = dataclasses.replace(lab.Setting(), rate=1e4)
    some = dataclasses.replace(lab.Setting(), rate=120.0)
    found = lab.divergence(wild, LAW, DATA, 6, 40, 0, **more)
    assert found.share == 1 and (found.died > 0).all() and found.kl.isnan().all()
    assert found.interval[0] == pytest.approx(0.025 ** (1 / 6)) and found.interval[1] == 1
    part = lab.divergence(some, LAW, DATA, 6, 60, 0, **more)
    assert 0 < part.share < 1 and part.share == int((part.died > 0).sum()) / 6
    assert torch.equal(part.kl[0].isnan(), part.died > 0)
    assert torch.equal(part.died > 0, part.causes > 0)
    assert {L.CAUSES[i] for i in part.causes.tolist()} <= {"", "chains", "loss", "not finite"}
    assert lab.divergence("true temperature", LAW, DATA, 6, 60, 0, **more).share == 0


def test_what_survivors_know_is_looked_for_at_every_temperature():
    """Those of a chain that is far too cold are nearer to the law when they are warmed."""
    more = {"hidden": (16, 16), "batch": 32}
    found = lab.divergence("small steps", LAW, DATA, 3, 200, 0, **more)
    noise = Gaussian(DATA.mean(0), DATA.T.cov())
    learner = lab.folk(lab.setting("small steps"), DATA, noise, 3, 200, 0, **more)
    energies = learner.model()(LAW.points).detach()
    kl = torch.stack([plane.scores_of(LAW, -beta * energies).kl for beta in lab.BETAS])
    assert torch.equal(found.at_best, kl.amin(0))
    assert torch.equal(kl[lab.BETAS.index(1.0)], found.kl[0])
    assert (found.at_best < found.kl[0] - 1e-3).any()
    wild = dataclasses.replace(lab.Setting(), rate=1e4)
    assert lab.divergence(wild, LAW, DATA, 2, 40, 0, **more).at_best.isnan().all()


def test_each_half_of_the_term_left_out_is_descended():
    """From the same weights and draws, a few steps with none, one and both of them part ways."""
    more = {"hidden": (16, 16), "batch": 32}
    none, one, both = (
        lab.divergence(name, LAW, DATA, 2, 3, 0, **more).kl[0]
        for name in ("none", "term left out", "both terms")
    )
    assert (none != one).all() and (one != both).all()
