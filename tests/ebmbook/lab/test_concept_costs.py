"""What learning through a descent costs: counts by hand, and gradients that are wrong are told."""

import pytest
import torch

from ebmbook.lab import concept_costs as lab
from ebmbook.lab import concepts as concepts_lab
from ebmref import concepts
from ebmref.concepts.scenes import Family
from ebmref.concepts.unrolling import Inner, saved_bytes

NEAR = Family(("near",))


def tasks(n=3, n_demos=2, k=2, dtype=None):
    return NEAR.tasks(k, n, n_demos, concepts_lab.source(1, "tasks"), dtype=dtype)


def model(hidden=8, k=2):
    return concepts_lab.first(k, 2, "near", hidden=hidden, bumps=0)


def test_depth_of_five_layers_forward_and_back():
    for n_steps in (1, 3):
        found = lab.depth(model(k=1), tasks(1, 1, 1), n_steps)
        assert found == (5, 2 * 5 * n_steps, 2 * 2 * 5 * n_steps)


def test_products_of_known_matrices():
    a, b, c = torch.ones(3, 4), torch.ones(4, 5), torch.ones(5)
    assert lab.products(lambda: a @ b) == 60
    assert lab.products(lambda: torch.addmm(c, a, b)) == 60
    assert lab.products(lambda: torch.ones(2, 3, 4) @ torch.ones(2, 4, 5)) == 120
    assert lab.products(lambda: torch.baddbmm(c, torch.ones(2, 3, 4), torch.ones(2, 4, 5))) == 120
    assert lab.products(lambda: a + 1) == 0
    a.requires_grad_()
    # The product, and one more for the gradient of one of its factors.
    assert lab.products(lambda: torch.autograd.grad((a @ b).sum(), a)) == 120


def test_a_step_of_a_scene_is_forward_and_back():
    """By hand, of 32 hidden units: 5664 multiplications a scene forward, and 5152 back."""
    found = lab.steps_of_a_scene(model(32, 1), tasks(4, 1, 1))
    assert found.used == pytest.approx(1 + 5152 / 5664)
    assert 5 < found.learned < 6


def test_the_price_of_more_steps():
    found = {
        (way, n): lab.price(model(), tasks(), Inner(n, way), 1) for way in lab.WAYS for n in (4, 8)
    }
    for way in lab.WAYS:
        grown = found[way, 8].saved / found[way, 4].saved
        assert (grown > 1.6) == (way == "full"), way
    assert found["checkpoint", 8].work > found["full", 8].work > found["last", 8].work
    assert all(each.seconds > 0 for each in found.values())


def test_what_is_saved_is_in_mebibytes():
    made, some, inner = model(), tasks(), Inner(2)
    recipe = concepts.Recipe(inner)
    with saved_bytes() as saved:
        generated, identified = concepts.truth_loss(made, some, recipe)
        loss = recipe.generate * generated + recipe.identify * identified
        torch.autograd.grad(loss.sum(), list(made.parameters()), allow_unused=True)
    assert lab.price(made, some, inner, 1).saved * 2**20 == pytest.approx(saved.peak)


def test_a_line_is_even():
    assert lab.unevenness({1: 3.0, 2: 5.0, 4: 9.0}, (1, 2), (2, 4)) == 0
    assert lab.unevenness({1: 3.0, 2: 5.0, 4: 10.0}, (1, 2), (2, 4)) == pytest.approx(0.25)


def double():
    return concepts_lab.double(model()).requires_grad_(True)


def test_the_full_gradient_is_right_and_leaves_the_network_as_it_was():
    made, some = double(), tasks(dtype=torch.double)
    before = [p.clone() for p in made.parameters()]
    source = concepts_lab.source(0, "along")
    assert lab.against_differences(made, some, Inner(3), source).max() < 1e-8
    assert lab.against_differences(made, some, Inner(3, "checkpoint"), source).max() < 1e-8
    for p, q in zip(before, made.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-14)


@pytest.mark.parametrize("way", ["last", "implicit"])
def test_another_gradient_is_told(way):
    made, some = double(), tasks(dtype=torch.double)
    source = concepts_lab.source(0, "along")
    assert lab.against_differences(made, some, Inner(3, way), source).min() > 1e-6
    found = lab.agreement(made, some, 3, way)
    assert (found.cosine < 1 - 1e-6).all()
    full, other = (lab.gradient(made, some, Inner(3, by)) for by in ("full", way))
    wanted = [((b - a).norm() / a.norm()).item() for a, b in zip(full, other, strict=True)]
    assert found.off.tolist() == pytest.approx(wanted) and min(wanted) > 1e-3


def test_checkpoints_agree_and_networks_are_apart():
    made, some = double(), tasks(dtype=torch.double)
    same = lab.agreement(made, some, 3, "checkpoint")
    assert same.off.max() < 1e-10 and same.cosine.min() > 1 - 1e-10
    both = lab.gradient(made, some, Inner(2))
    with torch.no_grad():
        for p in made.parameters():
            p[1] *= 1.1
    assert torch.equal(lab.gradient(made, some, Inner(2))[0], both[0])


def test_the_end_loss_by_hand():
    from ebmref.concepts import infer_code, infer_mask, infer_scene

    made, some, inner = model(), tasks(), Inner(2)
    query = some.query
    w = infer_code(made, some.demos, inner)[-1]
    x = infer_scene(made, query.start, query.mask, w, inner)[-1]
    s = infer_mask(made, query.end, w, inner)[-1].sigmoid()
    right = torch.where(query.mask, s, 1 - s)
    for k in range(2):
        wanted = (x - query.end)[k].square().sum() - right[k].log().sum()
        assert lab.end_loss(made, some, inner)[k].item() == pytest.approx(wanted.item(), rel=1e-4)
