"""Golden states: what fifty steps of each kind of training made when `golden.json` was written.

A change of the loop, of the order of draws, of a loss or of an optimiser shows here. The file
holds the mean and the norm of each tensor that was trained, and the numbers of the last step.
`python tests/ebmref/test_golden.py` writes it anew, which is right only where the numbers should
change.
"""

import contextlib
import json
import math
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from ebmref import concepts, ddls, gan, gebm, losses, parabola, training
from ebmref.concepts.scenes import Family
from ebmref.concepts.unrolling import Inner
from ebmref.networks import Networks

GOLDEN = Path(__file__).with_name("golden.json")
N_STEPS = 50


def _generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@contextlib.contextmanager
def _double():
    """Where a loss does not see some direction, such as the level of an energy, Adam makes steps of
    rounding in single precision."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def _points(n: int = 150) -> torch.Tensor:
    """Two clusters in the plane; no multiple of the batches."""
    g = _generator(1)
    side = torch.rand(n, generator=g) < 0.4
    return torch.randn(n, 2, generator=g) * 0.3 + torch.where(side, 1.0, -0.5)[:, None]


def _trained(trainee, data=None) -> list:
    """All steps; half-way it is saved, spoiled, and read back: the states must not tell."""
    steps = list(training.train(trainee, N_STEPS // 2, data=data))
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / "half.pt"
        training.save(trainee, half)
        with torch.no_grad():
            for part in trainee.parts().values():
                for p in part.parameters() if isinstance(part, nn.Module) else []:
                    p.zero_()
        training.bring(trainee, N_STEPS // 2, data=data, checkpoint=half)
    return steps + list(training.train(trainee, N_STEPS, data=data))


def _gan_game(recipe, *, pack=1, spectral=False, normalise=False):
    g = _generator()
    g_net = gan.Generator(2, (12, 12), (2,), 2, g, normalise=normalise)
    d_net = gan.Discriminator((2,), (12, 12), 2, g, pack=pack, spectral=spectral)
    return gan.Game(g_net, d_net, (2, 2), recipe, 7)


def _gan(recipe, **nets):
    game = _gan_game(gan.Recipe(batch=32, learning_rate=(2e-3, 3e-3), **recipe), **nets)
    return game, _trained(game, _points())


def _gan_conv(**recipe):
    g = _generator()
    g_net = gan.ConvGenerator(3, (1, 12, 12), 4, 2, g)
    d_net = gan.ConvDiscriminator((1, 12, 12), 4, 2, g, spectral=True)
    recipe = gan.Recipe(batch=8, learning_rate=(2e-3, 2e-3), **recipe)
    game = gan.Game(g_net, d_net, (2, 3), recipe, 7)
    pictures = torch.rand(20, 1, 12, 12, generator=_generator(2))
    return game, _trained(game, pictures)


def _gebm(floored=False, **recipe):
    g = _generator()
    base = gan.Generator(2, (12,), (2,), 2, g)
    energy = gan.Discriminator((2,), (12, 12), 2, g)
    if floored:
        energy = gebm.Floored(energy)
    recipe = gebm.Recipe(batch=32, learning_rate=(2e-3, 2e-3, 5e-3), n_energy=2, **recipe)
    game = gebm.Game(base, energy, (2, 2), recipe, 7)
    return game, _trained(game, _points())


def _gebm_double(**recipe):
    with _double():
        return _gebm(**recipe)


def _concepts(**recipe):
    model = concepts.Energy(2, _generator(), hidden=12, code=4, bumps=4)
    family = Family(("near", "line"), n_entities=4, n_attended=2, n_decoys=2)
    recipe = concepts.Recipe(batch=6, n_demos=2, anneal_over=60, **recipe)
    learner = concepts.Learner(model, family, recipe, 7)
    return learner, _trained(learner)


def _critic(**options):
    g = _generator()
    g_net = gan.Generator(2, (12,), (2,), 2, g).requires_grad_(False)
    d_net = gan.Discriminator((2,), (12, 12), 2, g)
    model = ddls.Model(g_net, d_net, ddls.Normal(2), 2)
    return d_net, list(ddls.train_critic(model, _points(), N_STEPS, g, batch=32, **options))


def _parabola(net):
    g = _generator()
    objectives = [(losses.ZOO["hinge"], 0.3), (losses.ZOO["NLL"], 0.1)]
    with _double():
        model = net(4, g)
        return model, list(parabola.train(model, objectives, N_STEPS, g, anneal=True))


def _fit(anneal):
    g = _generator()
    model = Networks((1, 10, 1), 3, g)
    x = torch.linspace(-1, 1, 30)[:, None]

    def loss():
        noise = 0.1 * torch.randn(x.shape, generator=g)
        return (model(x) - x.square() - noise).square().mean((1, 2))

    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    fall = None
    if anneal:
        fall = torch.optim.lr_scheduler.LambdaLR(
            adam, lambda step: (1 + math.cos(math.pi * step / N_STEPS)) / 2
        )
    return model, _trained(training.Fit(model, loss, adam, fall))


CASES = {
    "gan": lambda: _gan({}),
    "gan-saturating-noise": lambda: _gan(
        {"loss": "saturating", "noise": 0.3, "anneal_over": 40, "momenta": (0.0, 0.9)}
    ),
    "gan-penalty-packs": lambda: _gan(
        {"penalty": 1.0, "penalty_every": 3, "n_critic": 2, "average": 0.99, "noise": 0.1}, pack=4
    ),
    "gan-half-spectral": lambda: _gan({"half": True, "average": 0.9}, spectral=True),
    "gan-conv": lambda: _gan_conv(penalty=0.5, penalty_every=2, anneal_over=80),
    "gan-normalised": lambda: _gan({"n_critic": 3}, normalise=True),
    "gebm-kale": lambda: _gebm_double(n_long=4, long_every=20, penalty=0.1, penalty_every=3),
    "gebm-dv": lambda: _gebm_double(
        criterion="DV", n_long=3, long_every=0, samples=2, anneal_over=60
    ),
    "gebm-frozen": lambda: _gebm(frozen=True, constant=0.5, penalty=0.2),
    "gebm-averaged": lambda: _gebm_double(
        floored=True, average=0.98, n_long=10, long_every=25, momenta=(0.0, 0.99)
    ),
    "gebm-half": lambda: _gebm(half=True, average=0.9, n_long=2, long_every=10),
    "concepts-truth": lambda: _concepts(inner=Inner(3)),
    "concepts-contrast": lambda: _concepts(
        inner=Inner(3, "last", temperature=0.01), loss="contrast", identify=0.5, kl=0.7
    ),
    "critic-noise": lambda: _critic(noise=0.2),
    "critic-penalty": lambda: _critic(penalty=0.5, anneal=False, learning_rate=3e-3),
    "parabola-implicit": lambda: _parabola(parabola.Implicit),
    "parabola-regression": lambda: _parabola(parabola.Regression),
    "fit": lambda: _fit(False),
    "fit-annealed": lambda: _fit(True),
}
# All that a trainee holds which is trained, under the name it has in the file.
TRAINED = ("generator", "discriminator", "base", "energy", "average", "model")
# The rounding of another processor moved these numbers by no more than 6e-7, and by 5e-5 in
# bfloat16, whose products round to eight bits.
TOLERANCE, TOLERANCE_HALF = 2e-5, 5e-3


def summary(trained, steps) -> dict[str, list[float]]:
    """Mean and norm of each tensor that was trained, and the numbers of the last step."""
    if isinstance(trained, nn.Module):
        modules = {"net": trained}
    else:
        modules = {name: getattr(trained, name, None) for name in TRAINED}
    found = {
        f"{name}.{key}": [float(p.detach().double().mean()), float(p.detach().double().norm())]
        for name, module in modules.items()
        if isinstance(module, nn.Module)
        for key, p in module.named_parameters()
    }
    last = steps[-1]
    last = last._asdict() if hasattr(last, "_asdict") else {"loss": last}
    found |= {
        f"step.{name}": value.double().flatten().tolist()
        for name, value in last.items()
        if isinstance(value, torch.Tensor)
    }
    if hasattr(trained, "constant"):
        found["constant"] = trained.constant.detach().double().tolist()
    return found


@pytest.mark.parametrize("name", CASES)
def test_fifty_steps_end_where_they_did(name):
    trained, steps = CASES[name]()
    found, golden = summary(trained, steps), json.loads(GOLDEN.read_text())[name]
    assert len(steps) == N_STEPS
    assert found.keys() == golden.keys()
    tolerance = TOLERANCE_HALF if "half" in name else TOLERANCE
    for key, expected in golden.items():
        assert found[key] == pytest.approx(expected, rel=tolerance, abs=tolerance), key


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = {name: summary(*case()) for name, case in CASES.items()}
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n")
