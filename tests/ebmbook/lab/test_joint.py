"""JEM on digits: what is strange, what is descended, and what is judged."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from ebmbook.lab import joint as lab
from ebmbook.lab import judging
from ebmref import likelihood as L
from ebmref.samplers import mala

GIVEN = lab.task(3, 0)
SMALL = lab.Setting(
    learning_rate=1e-2, decay=0.0, hidden=(32,), n_chain=3, size=100, batch=32, average=0.0
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_task_leaves_one_class_out():
    train, validation, held_out, strange, noise = GIVEN
    n = len(train.x) + len(validation.x)
    assert n + len(held_out.x) + len(strange["left out"]) == 1797
    assert len(validation.x) == n // 5
    assert sorted(train.y.unique().tolist()) == sorted(held_out.y.unique().tolist()) == [*range(9)]
    # Without noise of training alone; all that is judged has it.
    assert train.x.min() == -1 and train.x.max() == 1
    dark = train.x.std(0) < 1e-3
    assert dark.any()
    for x in (validation.x, held_out.x, *strange.values()):
        assert x.shape[1] == 64
    assert held_out.x[:, dark].std().item() == pytest.approx(noise, rel=0.1)
    assert strange["Gaussian noise"][:, dark].std().item() == pytest.approx(noise, rel=0.1)
    for name in ("mirrored", "turned", "blends"):
        assert strange[name].shape == held_out.x.shape
    mirrored = strange["mirrored"].view(-1, 8, 8).flip(2).flatten(1)
    assert (mirrored - held_out.x).std().item() == pytest.approx(2**0.5 * noise, rel=0.03)
    turned = strange["turned"].view(-1, 8, 8).rot90(-1, (1, 2)).flatten(1)
    assert (turned - held_out.x).std().item() == pytest.approx(2**0.5 * noise, rel=0.03)
    # Half of a picture: what is left of a blend is half of another one, of another class.
    other = 2 * strange["blends"] - held_out.x
    laws = lab.Densities(GIVEN)
    assert (laws.logits(other).argmax(1) == held_out.y).float().mean() < 0.15
    assert torch.equal(lab.task(3, 0).held_out.x, held_out.x)
    with pytest.raises(ValueError, match=r"left_out: expected a class in 0 .. 9; got 10"):
        lab.task(10, 0)


def classifier(k=2, confine=1.5):
    return lab.Classifier((12,), k, confine, generator(1)).double()


def test_the_energy_is_the_joint_one_summed_over_classes():
    model, x = classifier(), torch.randn(5, 64, generator=generator()).double()
    joint = (model.logits(x) - 0.5 * x.square().sum(1)[:, None] / 1.5**2).exp()
    assert torch.allclose((-model(x)).exp(), joint.sum(-1))
    assert torch.allclose(model.logits(x).softmax(-1), joint / joint.sum(-1, keepdim=True))
    first = classifier(1)
    want = sum(w.square().sum() for w in first.networks.weights)
    assert first.squares().shape == (1,) and torch.allclose(first.squares(), want)


def test_jem_descends_both_parts():
    """Cross-entropy, contrast of the chains and decay, each as it is alone."""
    model = classifier()
    x, y = torch.randn(2, 20, 64, generator=generator()).double(), torch.arange(40).view(2, 20) % 9
    rows = torch.cat([x, y[..., None]], -1)
    chains = L.cd(lambda energy: mala(energy, 0.01), 2)
    phases = {}
    for name, weight, decay in (("plain", 0, 0), ("decay", 0, 0.5), ("both", 2, 0)):
        setting = lab.Setting(weight=weight, decay=decay)
        method = lab.joint(setting, chains, 1e-12)
        phases[name] = method.phase(model, rows, method.memory(2, x, generator()), generator())
        assert method.name == ("JEM" if weight else "cross-entropy")
    want = torch.stack([functional.cross_entropy(model.logits(x)[i], y[i]) for i in range(2)])
    assert torch.allclose(phases["plain"].loss, want)
    assert torch.allclose(phases["decay"].loss, want + 0.25 * model.squares())
    both = phases["both"]
    contrast = model(x).mean(-1) - model(both.negatives).mean(-1)
    assert torch.allclose(both.loss, want + 2 * contrast)
    assert both.n_gradients == 20 + 20 + 20 * (1 + 1 + 2)
    assert (both.negatives - x).abs().max() > 0.05
    noisy = lab.joint(lab.Setting(weight=0), chains, 0.5).phase(model, rows, None, generator())
    assert (noisy.loss - want).abs().min() > 1e-3


def test_joint_training_lowers_the_energy_of_digits():
    """Both kinds classify; JEM has learned that digits are not turned."""
    fits = {
        name: lab.fit(GIVEN, dataclasses.replace(SMALL, weight=weight), 2, 150, 0)
        for name, weight in (("plain", 0.0), ("JEM", 1.0))
    }
    assert fits["plain"].acceptance_rate is None and fits["plain"].contrast is None
    rate = fits["JEM"].acceptance_rate
    assert rate.shape == fits["JEM"].contrast.shape == (2,) and (rate > 0.5).all()
    told = {}
    for name, found in fits.items():
        judged = lab.judge(GIVEN, found.model, 0)
        assert (judged.raw.accuracy > 0.75).all(), name
        assert torch.equal(judged.raw.accuracy, judged.cooled.accuracy)
        t = judging.temperatures(found.model.logits(GIVEN.validation.x), GIVEN.validation.y)
        assert torch.equal(judged.temperature, t)
        cooled = found.model.logits(GIVEN.held_out.x) / t[:, None, None]
        want = functional.cross_entropy(cooled[1], GIVEN.held_out.y)
        assert judged.cooled.nll[1].item() == pytest.approx(want.item(), rel=1e-4)
        told[name] = judged.told
    assert told["JEM"].keys() == {"density", "logits", "confidence"}
    assert told["JEM"]["density"].keys() == GIVEN.strange.keys()
    turned = {name: scores["density"]["turned"].value for name, scores in told.items()}
    assert turned["JEM"].min() > turned["plain"].max() + 0.1


def test_closed_laws_are_densities_and_classify():
    few = GIVEN._replace(train=lab.Labelled(GIVEN.train.x[:300], GIVEN.train.y[:300]))
    laws = lab.Densities(few, shrink=0.2, width=1.5)
    (x, y), noise = few.train, GIVEN.noise
    point = x[:4] + noise * torch.randn(4, 64, generator=generator())
    found, blur = laws.log_prob(point), noise**2 * torch.eye(64)
    normal = torch.distributions.MultivariateNormal
    whole = normal(x.mean(0), x.T.cov() + blur)
    assert torch.allclose(found["Gaussian"], whole.log_prob(point), atol=1e-2)
    # By hand: a class has four fifths of its own covariance.
    parts = [x[y == c] for c in range(9)]
    within = sum((part - part.mean(0)).T @ (part - part.mean(0)) for part in parts) / 300
    third = normal(parts[3].mean(0), 0.8 * parts[3].T.cov() + 0.2 * within + blur)
    want = third.log_prob(point) + math.log(len(parts[3]) / 300)
    assert torch.allclose(laws.logits(point)[:, 3], want, atol=1e-2)
    assert torch.allclose(found["classes"], laws.logits(point).logsumexp(1))
    each = [normal(mean, 1.5**2 * blur).log_prob(point) for mean in x]
    want = torch.stack(each).logsumexp(0) - math.log(300)
    assert torch.allclose(found["kernel"], want, atol=1e-2)
    laws = lab.Densities(GIVEN)
    judged = lab.judge_densities(GIVEN, laws, 0)
    assert judged.raw.accuracy.item() > 0.95
    assert judged.told["kernel"]["uniform noise"].value.item() > 0.99
    assert abs(judged.told["Gaussian"]["Gaussian noise"].value.item() - 0.5) < 0.1


def test_a_sweep_is_judged_on_validation():
    plain = dataclasses.replace(SMALL, weight=0.0)
    settings = {"slow": dataclasses.replace(plain, learning_rate=1e-5), "fast": plain}
    found = lab.sweep(settings, 3, 2, 60, (200, 201))
    assert found["slow"].accuracy.shape == found["fast"].nll.shape == (2, 2)
    assert (found["fast"].nll < found["slow"].nll).all()
    given = lab.task(3, 201)
    model = lab.fit(given, plain, 2, 60, 201).model
    right = (model.logits(given.validation.x).argmax(-1) == given.validation.y).double().mean(1)
    assert torch.allclose(found["fast"].accuracy[1], right)
