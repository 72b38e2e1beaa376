"""Translation: losses in closed form, networks that never meet, one step against the plain loop."""

import dataclasses
import math
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

from ebmref import training
from ebmref import translation as T
from ebmref.gan import leaky
from ebmref.networks import Networks
from ebmref.seeds import derive_seed
from ebmref.translation.networks import Convolution, fold, unfold

PICTURE = (3, 16, 16)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, seed: int = 1, side: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=source(seed)) * 2 - 1


# Losses ------------------------------------------------------------------------------------------


def test_adversarial_losses_by_hand():
    """Two patches of two pictures; log 3 is the logit of three quarters."""
    real = torch.full((2, 2, 2), math.log(3.0))
    fake = -real
    assert T.discriminator_loss(real, fake).tolist() == pytest.approx([-2 * math.log(0.75)] * 2)
    assert T.generator_loss(fake).tolist() == pytest.approx([math.log(4)] * 2)
    none = torch.zeros(2, 3)
    assert T.discriminator_loss(none, none).tolist() == pytest.approx([2 * math.log(2)] * 2)
    real, fake = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 2.0]])
    assert T.discriminator_loss(real, fake, "least-squares").item() == pytest.approx(2.0)
    assert T.generator_loss(fake, "least-squares").item() == pytest.approx(1.0)
    half = torch.full((1, 4), 0.5)
    assert T.discriminator_loss(half, half, "least-squares").item() == pytest.approx(0.25)


def test_travel_by_hand():
    """Differences (3, 4) and its turn by a right angle: 50 over two dimensions, and no cosine."""
    u, w = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), torch.tensor([[[-4.0, 3.0], [0.0, 0.0]]])
    assert T.travel_loss(u, w).item() == pytest.approx(25.0)
    assert T.travel_loss(u, 2 * u).item() == pytest.approx(25 / 2 - 1)
    assert T.travel_loss(u, -u).item() == pytest.approx(50 + 1)
    assert T.margin_loss(u, 26.0).item() == pytest.approx(1.0)
    assert T.margin_loss(u, 24.0).item() == 0.0
    assert T.margin_loss(u.expand(2, 2, 2), torch.tensor([[26.0], [28.0]])).tolist() == [1.0, 3.0]


def test_travel_is_least_where_differences_are_kept():
    """-1 at u plus a constant, whatever the constant, and more anywhere near."""
    u = torch.randn(3, 7, 5, generator=source(), dtype=torch.float64)
    assert T.travel_loss(u, u + 3.0).tolist() == pytest.approx([-1.0] * 3)
    near = u + 0.1 * torch.randn(u.shape, generator=source(1), dtype=torch.float64)
    assert (T.travel_loss(u, near) > -1 + 1e-4).all()
    both = T.travel_loss(u - 2.0, near + 5.0)
    assert both.tolist() == pytest.approx(T.travel_loss(u, near).tolist())
    assert T.differences(u).shape == (3, 21, 5)


def test_travel_of_equal_pictures_is_finite():
    u = torch.zeros(1, 3, 2, requires_grad=True)
    loss = T.travel_loss(u, 2 * u) + T.margin_loss(u, 1.0)
    (slope,) = torch.autograd.grad(loss.sum(), u)
    assert loss.isfinite().all() and slope.isfinite().all()


def test_distance_is_a_mean_over_everything_but_the_models():
    x = torch.zeros(2, 3, *PICTURE)
    assert T.distance(x, x + torch.tensor([1.0, -2.0]).view(2, 1, 1, 1, 1)).tolist() == [1.0, 2.0]


# Networks ----------------------------------------------------------------------------------------


def test_folding_is_undone():
    x = torch.randn(2, 5, 3, 4, 6, generator=source())
    assert torch.equal(unfold(fold(x), 2), x)
    assert torch.equal(fold(x)[4, 3:], x[1, 4])


@pytest.mark.parametrize("size, up, side", [(3, False, 8), (4, False, 4), (4, True, 16)])
def test_a_convolution_keeps_the_variance_of_its_input(size, up, side):
    layer = Convolution(40, 40, 2, source(), size=size, up=up, gain=0.5)
    y = layer(torch.randn(20, 80, 8, 8, generator=source(1)))
    assert y.shape == (20, 80, side, side)
    inner = y[:, :, 1:-1, 1:-1].var().item()
    assert inner == pytest.approx(0.25, rel=0.1)


def each_net():
    players = T.picture_players(PICTURE, 2, source(), siamese=True)
    return {name: net for name, net in players._asdict().items() if name not in ("ba", "siamese_b")}


@pytest.mark.parametrize("name", each_net())
def test_models_never_meet(name):
    """A change of one model's picture or weights reaches no other model's answer."""
    net, x = each_net()[name], pictures(6).view(2, 3, *PICTURE)
    before = net(x)
    other = x.clone()
    other[1] += 0.1
    after = net(other)
    assert torch.allclose(after[0], before[0], atol=1e-6)
    assert not torch.allclose(after[1], before[1], atol=1e-3)
    (slope,) = torch.autograd.grad(before[0].sum(), next(net.parameters()))
    k_rows = slope.shape[0] // 2
    assert slope[:k_rows].any() and not slope[k_rows:].any()


@pytest.mark.parametrize("norm", ["layer", "instance", "none"])
def test_a_translator_begins_near_the_identity_or_anywhere(norm):
    x = pictures(20).expand(3, 20, *PICTURE)
    near = T.Translator(3, 8, source(), norm=norm)(x)
    plain = T.Translator(3, 8, source(), norm=norm, start="plain")(x)
    assert near.shape == plain.shape == x.shape
    assert T.distance(near, x).max() < 0.1
    assert T.distance(plain, x).min() > 0.3
    assert plain.abs().max() <= 1 and near.abs().max() <= 1


def test_norms_are_over_pixels_of_one_picture_and_one_model():
    net = T.Translator(2, 4, source(), norm="layer")
    x = 3 + 2 * torch.randn(5, 8, 6, 6, generator=source(1))
    y = net._hidden(x).view(5, 2, 4 * 36)
    undone = torch.where(y < 0, y / 0.2, y)
    assert torch.allclose(undone.mean(2), torch.zeros(5, 2), atol=1e-5)
    assert torch.allclose(undone.var(2, correction=0), torch.ones(5, 2), atol=1e-3)
    net.norm = "instance"
    y = net._hidden(x).flatten(2)
    undone = torch.where(y < 0, y / 0.2, y)
    assert torch.allclose(undone.mean(2), torch.zeros(5, 8), atol=1e-5)


def moved(net):
    """The same net, with biases that are not zero."""
    draws = source(9)
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 1:
                p.copy_(torch.rand(p.shape, generator=draws) - 0.5)
    return net


def plain(layer, x, model: int):
    """What one model of a `Convolution` does."""
    weight, bias = (p.chunk(layer.n_models)[model] for p in (layer.weight, layer.bias))
    convolve = functional.conv_transpose2d if layer.up else functional.conv2d
    return convolve(x, weight, bias, stride=layer.stride, padding=1)


@pytest.mark.parametrize(
    "norm, start", [("layer", "identity"), ("instance", "plain"), ("none", "identity")]
)
def test_a_translator_is_as_written(norm, start):
    """Layer by layer, each model by itself: the block is added to, and half a side once more."""
    net = moved(T.Translator(2, 4, source(), norm=norm, start=start))
    x = pictures(6).view(2, 3, *PICTURE)
    over = {"layer": (1, 2, 3), "instance": (2, 3), "none": None}[norm]

    def hidden(h):
        if over:
            h = h - h.mean(over, keepdim=True)
            h = h / (h.square().mean(over, keepdim=True) + 1e-5).sqrt()
        return leaky(h)

    for k in range(2):
        half = plain(net.down_one, hidden(plain(net.into, x[k], k)), k)
        quarter = plain(net.down_two, hidden(half), k)
        turned = plain(net.block[0], hidden(quarter), k)
        quarter = quarter + plain(net.block[1], hidden(turned), k)
        half = half + plain(net.up_one, hidden(quarter), k)
        change = plain(net.out, hidden(plain(net.up_two, hidden(half), k)), k)
        made = (change if start == "plain" else change + (0.97 * x[k]).atanh()).tanh()
        assert torch.allclose(net(x)[k], made, atol=1e-5)


def test_discriminators_and_the_siamese_net_are_as_written():
    judge = moved(T.PatchDiscriminator(2, 4, source()))
    third = moved(T.Siamese(PICTURE, 2, 4, source(), dims=5))
    x = pictures(6).view(2, 3, *PICTURE)
    for k in range(2):
        seen, into = x[k], x[k]
        for stage in judge.stages:
            seen = leaky(plain(stage, seen, k))
        assert torch.allclose(judge(x)[k], plain(judge.out, seen, k).flatten(1), atol=1e-5)
        for stage in third.stages:
            into = leaky(plain(stage, into, k))
        head = into.flatten(1) @ third.head.weights[0][k] + third.head.biases[0][k]
        assert torch.allclose(third(x)[k], head, atol=1e-5)


def test_nets_take_other_sides():
    players = T.picture_players((3, 24, 24), 2, source(), siamese=True)
    x = pictures(4, side=24).view(2, 2, 3, 24, 24)
    assert players.ab(x).shape == x.shape
    assert players.judge_b(x).shape == (2, 2, 36)
    assert players.siamese(x).shape == (2, 2, 32)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: T.Translator(1, 4, source(), start="near"), "start: expected one of identity"),
        (lambda: T.Translator(1, 4, source(), norm="batch"), "norm: expected one of layer"),
        (lambda: T.picture_players((3, 20, 16), 1, source()), "picture: expected .channels"),
        (lambda: T.picture_players((3, 16), 1, source()), "picture: expected .channels"),
        (lambda: T.picture_players(PICTURE, 1, source(), ways=3), "ways: expected 1 or 2; got 3"),
        (lambda: T.generator_loss(torch.zeros(1, 1), "hinge"), "adversary: expected one of"),
        (lambda: T.travel_loss(*torch.zeros(2, 1, 1, 3)), "batch: expected two or more"),
        (lambda: T.Recipe(cycle=-1.0), "cycle: expected a number >= 0, or a tuple"),
        (lambda: T.Recipe(travel=()), "travel: expected a number >= 0, or a tuple"),
        (lambda: T.Recipe(penalty=math.nan), "penalty: expected"),
        (lambda: T.Recipe(pool=50, batch=4), "pool: expected a multiple of the batch, 4; got 50"),
        (lambda: T.Recipe(adversary="hinge"), "adversary: expected one of logistic"),
        (lambda: T.Recipe(learning_rate=(1e-3, 0.0)), "learning_rate: expected two numbers > 0"),
        (lambda: T.Recipe(momenta=(0.5, 1.0)), "momenta: expected two numbers"),
        (lambda: T.Recipe(average=1.0), "average: expected a number in"),
        (lambda: T.Recipe(anneal_over=-1), "anneal_over: expected a whole number >= 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The game ----------------------------------------------------------------------------------------


def players(k: int = 2, seed: int = 0, **kwargs) -> T.Players:
    return T.picture_players(PICTURE, k, source(seed), width=4, **kwargs)


def game(recipe: T.Recipe, k: int = 2, seed: int = 3, **kwargs) -> T.Game:
    return T.Game(players(k, **kwargs), (k, *PICTURE), recipe, seed)


@pytest.mark.parametrize(
    "kwargs, recipe, message",
    [
        ({"ways": 1}, T.Recipe(cycle=1.0), "cycle: expected 0 without ba; got 1.0"),
        ({"ways": 1}, T.Recipe(identity=1.0), "identity: expected 0 without ba"),
        ({}, T.Recipe(travel=1.0), "travel: expected 0 without siamese"),
        ({}, T.Recipe(cycle=(1.0, 2.0, 3.0)), "cycle: expected 2 weights, one a model; got 3"),
    ],
)
def test_a_loss_without_its_player_is_named(kwargs, recipe, message):
    with pytest.raises(ValueError, match=message):
        game(recipe, **kwargs)


def test_a_lone_discriminator_is_named():
    with pytest.raises(ValueError, match="players: expected ba and judge_a, both or neither"):
        T.Game(players()._replace(judge_a=None), (2, *PICTURE), T.Recipe(), 0)
    with pytest.raises(ValueError, match="seed"):
        game(T.Recipe(), seed=0.5)


@pytest.mark.parametrize(
    "data, message",
    [
        (pictures(8), "data: expected two sets"),
        ((pictures(8),), "data: expected two sets"),
        ((pictures(8), pictures(8, side=8)), "b: expected .n, 3, 16, 16.; got .8, 3, 8, 8"),
        ((pictures(8, side=8), pictures(8)), "a: expected .n, 3, 16, 16.; got .8, 3, 8, 8"),
        ((pictures(3), pictures(8)), "data: expected .n, .event. with n >= batch = 4"),
    ],
)
def test_data_that_do_not_fit_are_named(data, message):
    trainee = game(T.Recipe())
    with pytest.raises(ValueError, match=message):
        trainee.advance(data)
    assert trainee.step == 0


def batch_of(seed: int, name: str, x: torch.Tensor, size: int) -> torch.Tensor:
    """The first batch of a domain for one model, as `training.Batches` promises it."""
    own = source(derive_seed(derive_seed(seed, name), "epoch-0"))
    return x[torch.rand(1, len(x), generator=own).argsort(1)[0, :size]][None]


@pytest.mark.parametrize(
    "recipe, ways",
    [
        (T.Recipe(cycle=2.0, identity=0.5), 2),
        (T.Recipe(travel=3.0, margin=5.0, penalty=0.0), 2),
        (T.Recipe(travel=0.5, margin=5.0), 1),
        (T.Recipe(cycle=1.0, adversary="least-squares", learning_rate=(1e-3, 3e-3)), 2),
    ],
)
def test_a_step_is_that_of_the_plain_loop(recipe, ways):
    """Translators first, all losses written out, then discriminators on the same translations."""
    kwargs = {"k": 1, "ways": ways, "siamese": bool(recipe.travel)}
    trainee, (G, D_B, F, D_A, S, _) = game(recipe, **kwargs), players(**kwargs)
    data = pictures(9, 1), pictures(11, 2)
    told = trainee.advance(data)
    a, b = (batch_of(3, name, x, 4) for name, x in zip("ab", data, strict=True))
    pairs = [(G, D_B, a, b), (F, D_A, b, a)][:ways]
    makers = [p for net in (G, F, S) if net is not None for p in net.parameters()]
    adam = torch.optim.Adam(makers, lr=recipe.learning_rate[0], betas=(0.5, 0.999))
    logistic = recipe.adversary == "logistic"
    loss, fakes, sums = 0, [], Counter()
    for net, judge, x, _ in pairs:
        fake = net(x)
        fakes.append(fake.detach())
        scores = judge(fake)
        score = ((1 + (-scores).exp()).log() if logistic else (scores - 1) ** 2).mean()
        loss, sums["adversarial"] = loss + score, sums["adversarial"] + score.item()
        if recipe.travel:
            u, w = S(x)[0], S(fake)[0]
            for i in range(4):
                for j in range(i):
                    d, e = u[i] - u[j], w[i] - w[j]
                    bend = ((d - e) ** 2).mean() - d @ e / (d.norm() * e.norm())
                    short = (recipe.margin - d @ d).clamp(min=0)
                    loss = loss + recipe.travel * (bend + short) / 6
                    sums["travel"] += bend.item() / 6
                    sums["margin"] += short.item() / 6
    if recipe.cycle:
        back = (F(G(a)) - a).abs().mean() + (G(F(b)) - b).abs().mean()
        loss = loss + recipe.cycle * back
        sums["cycle"] = back.item()
    if recipe.identity:
        same = (G(b) - b).abs().mean() + (F(a) - a).abs().mean()
        loss = loss + recipe.identity * same
        sums["identity"] = same.item()
    adam.zero_grad()
    loss.backward()
    adam.step()
    judges = [p for _, judge, *_ in pairs for p in judge.parameters()]
    adam = torch.optim.Adam(judges, lr=recipe.learning_rate[1], betas=(0.5, 0.999))
    loss = 0
    for (_, judge, _, true), fake in zip(pairs, fakes, strict=True):
        true = true.clone().requires_grad_()
        real, made = judge(true), judge(fake)
        if logistic:
            wrong = (1 + (-real).exp()).log().mean() + (1 + made.exp()).log().mean()
        else:
            wrong = ((real - 1) ** 2).mean() / 2 + (made**2).mean() / 2
        (slope,) = torch.autograd.grad(real.mean(2).sum(), true, create_graph=True)
        steep = slope.flatten(2).square().sum(2).mean()
        loss = loss + wrong + recipe.penalty / 2 * steep
        sums["discriminator"] += wrong.item()
        sums["penalty"] += steep.item() if recipe.penalty else 0.0
    adam.zero_grad()
    loss.backward()
    adam.step()
    for name in T.Step._fields[1:]:
        number, mean = getattr(told, name), sums[name] / ways
        assert (0.0 if number is None else number.item()) == pytest.approx(mean, rel=1e-4), name
    for net, other in zip(trainee.players[:5], (G, D_B, F, D_A, S), strict=True):
        for name, p in net.named_parameters() if net is not None else ():
            # Travel sees differences alone, so that the last bias has a gradient of rounding.
            # And Adam's first step has the size of the rate: where rounding decides the sign of a
            # gradient it may differ.
            if not name.startswith("head.biases"):
                q = other.get_parameter(name)
                assert (p - q).abs().mean() < 2e-6, name
                # One step tells the gradient's sign alone, and a weight is in its size.
                assert (p.grad - q.grad).norm() <= 1e-3 * q.grad.norm() + 1e-6, name


def test_each_weight_is_of_its_model():
    """Gradients of a batch of two recipes are those of each recipe by itself."""
    data = pictures(12, 1), pictures(12, 2)
    weights = {
        "cycle": (0.5, 3.0), "identity": (1.0, 0.2), "travel": (2.0, 0.5), "margin": (5.0, 0.0),
        "penalty": (5.0, 0.3),
    }  # fmt: skip
    both = game(T.Recipe(**weights), siamese=True)
    both.advance(data)
    for k in range(2):
        own = {name: each[k] for name, each in weights.items()}
        one = game(T.Recipe(**own), siamese=True)
        one.advance(data)
        for ours, theirs in zip(both.players, one.players, strict=True):
            for name, p in ours.named_parameters() if ours is not None else ():
                if not name.startswith("head.biases"):
                    got, want = (x.grad.chunk(2)[k] for x in (p, theirs.get_parameter(name)))
                    assert (got - want).norm() <= 1e-4 * want.norm() + 1e-6, name


def test_a_batch_holds_an_experiment_and_its_control():
    """Models that differ in a weight alone: the one is trained as if the other were not there."""
    data = pictures(12, 1), pictures(12, 2)
    both = game(T.Recipe(cycle=(0.0, 5.0), penalty=(0.1, 0.0)))
    training.bring(both, 3, data=data)
    one = game(T.Recipe(cycle=5.0, penalty=0.0))
    training.bring(one, 3, data=data)
    for ours, theirs in zip(both.players, one.players, strict=True):
        for name, p in ours.named_parameters() if ours is not None else ():
            if p.dim() > 1:
                first, second = (p - theirs.get_parameter(name)).abs().chunk(2)
                assert second.mean() < 1e-5 and first.max() > 1e-4, name


def test_each_model_and_each_domain_has_an_order_of_its_own():
    seen = {}
    trainee = game(T.Recipe())
    data = (torch.arange(12.0) / 12).view(12, 1, 1, 1).expand(12, *PICTURE)
    trainee._translate = lambda a, b: (seen.update(a=a, b=b) or {"ab": a, "ba": b}, TOLD)
    trainee.advance((data, data.clone()))
    rows = [x[k, :, 0, 0, 0].tolist() for x in seen.values() for k in range(2)]
    assert len({tuple(row) for row in rows}) == 4


TOLD = dict.fromkeys(("adversarial", "cycle", "identity", "travel", "margin"))


def test_rates_keep_and_then_fall_in_a_straight_line():
    trainee, data = game(T.Recipe(anneal_over=8)), (pictures(8, 1), pictures(8, 2))
    rates = []
    for _ in range(9):
        trainee.advance(data)
        rates.append(trainee.adam.param_groups[0]["lr"] / 1e-3)
    assert rates == pytest.approx([1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])
    assert trainee.adam_judges.param_groups[0]["lr"] == 0


def test_an_average_follows_and_is_what_translates():
    trainee, data = game(T.Recipe(average=0.9)), (pictures(8, 1), pictures(8, 2))
    training.bring(trainee, 4, data=data)
    own, held = trainee.players.ab.out.weight, trainee.average["ab"].out.weight
    assert 0 < (own - held).abs().max() < 4e-3
    assert game(T.Recipe(average=0.0)).average["ba"].out.weight.requires_grad


def test_an_average_is_of_its_own_translator():
    """It keeps a tenth at the first step, and no more than its decay at the second."""
    trainee, data = game(T.Recipe(average=0.15)), (pictures(8, 1), pictures(8, 2))
    for kept in (0.1, 0.15):
        before = {way: net.out.weight.clone() for way, net in trainee.average.items()}
        trainee.advance(data)
        for way, held in before.items():
            own = getattr(trainee.players, way).out.weight
            mean = kept * held + (1 - kept) * own
            assert torch.allclose(trainee.average[way].out.weight, mean, rtol=0, atol=1e-7)


def test_a_checkpoint_holds_all_that_a_step_needs():
    trainee = game(T.Recipe(travel=1.0, pool=4, momenta=(0.3, 0.9)), siamese=True)
    assert set(trainee.parts()) == {
        *T.Players._fields[:5], "adam", "adam_judges", "average_ab", "average_ba",
        "pool_ab", "pool_ba",
    }  # fmt: skip
    for adam in (trainee.adam, trainee.adam_judges):
        assert adam.param_groups[0]["betas"] == (0.3, 0.9)


def test_translate_is_the_net_in_pieces():
    net = T.Translator(2, 4, source())
    x = pictures(7).expand(2, 7, *PICTURE)
    got = T.translate(net, x, piece=3)
    assert torch.allclose(got, net(x), atol=1e-6) and not got.requires_grad


def test_a_loss_that_is_not_finite_moves_nothing():
    trainee = game(T.Recipe(cycle=1.0))
    with torch.no_grad():
        trainee.players.ba.out.weight[0] = math.nan
    before = trainee.players.ab.out.weight.clone()
    with pytest.raises(training.Diverged, match=r"step 1: .*cycle"):
        trainee.advance((pictures(8, 1), pictures(8, 2)))
    assert torch.equal(trainee.players.ab.out.weight, before) and trainee.step == 0


def test_one_reader_or_two_with_what_they_share():
    """S given twice is S; a net for B reads what is of B; shared weights move once a step."""
    data, recipe = (pictures(8, 1), pictures(8, 2)), T.Recipe(travel=1.0, margin=1.0)
    once, twice, other = (players(siamese=True) for _ in range(3))
    twice = twice._replace(siamese_b=twice.siamese)
    second = players(siamese=True, seed=5).siamese
    share_all_but_the_first(second, other.siamese)
    other = other._replace(siamese_b=second)
    told = []
    for nets in (once, twice, other):
        trainee = T.Game(nets, (2, *PICTURE), recipe, 3)
        assert len(trainee._makers) == len(set(trainee._makers))
        told.append(trainee.advance(data))
    for p, q in zip(once.siamese.parameters(), twice.siamese.parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(told[0].travel, told[1].travel)
    a, b = (
        torch.cat([batch_of_k(3, name, x, k, 4) for k in range(2)])
        for name, x in zip("ab", data, strict=True)
    )
    fresh, reader_b = players(siamese=True), players(siamese=True, seed=5).siamese
    share_all_but_the_first(reader_b, fresh.siamese)
    forth = T.travel_loss(fresh.siamese(a), reader_b(fresh.ab(a)))
    back = T.travel_loss(reader_b(b), fresh.siamese(fresh.ba(b)))
    assert torch.allclose(told[2].travel, (forth + back) / 2, atol=1e-5)


def share_all_but_the_first(net, other):
    for i in (1, 2):
        net.stages[i] = other.stages[i]
    net.head = other.head


def batch_of_k(seed: int, name: str, x: torch.Tensor, k: int, size: int) -> torch.Tensor:
    """The first batch of a domain for model k of two."""
    own = source(derive_seed(derive_seed(seed, name), "epoch-0"))
    return x[torch.rand(2, len(x), generator=own).argsort(1)[k, :size]][None]


# The pool ----------------------------------------------------------------------------------------


def test_a_pool_first_fills_and_then_exchanges_half():
    """2,000 new ones after it is full; shown old with probability 1/2, five standard deviations."""
    pool, draws = T.Pool((2, 1), 50, torch.zeros(1)), source()
    shown, given = [], []
    for i in range(210):
        new = torch.arange(10.0 * i, 10 * i + 10).view(1, 10, 1).repeat(2, 1, 1)
        got = pool.exchange(new, draws)
        if i < 5:
            assert torch.equal(got, new)
            continue
        shown.append((got != new).float().mean(1).flatten())
        given.append(got)
        # What is not shown is kept, and nothing is there twice.
    share = torch.stack(shown).mean()
    assert abs(share - 0.5) < 5 * 0.5 / (2 * 2050) ** 0.5
    for k in range(2):
        everything = torch.cat([torch.stack(given)[:, k].flatten(), pool.kept[k].flatten()])
        assert sorted(everything.tolist()) == list(range(2100))
    assert not torch.equal(pool.kept[0], pool.kept[1])


def test_each_way_has_a_pool_of_its_own_translations():
    trainee, made = game(T.Recipe(pool=8)), []
    translated = trainee._translate

    def watched(a, b):
        made.append(translated(a, b))
        return made[-1]

    trainee._translate = watched
    trainee.advance((pictures(8, 1), pictures(8, 2)))
    for way, fake in made[0][0].items():
        kept = trainee.pools[way].kept
        assert torch.equal(kept[:, :4], fake) and not kept[:, 4:].any()
        assert not fake.requires_grad and not kept.requires_grad


def test_a_pool_is_what_discriminators_see():
    """With all weights frozen at a rate of almost nothing, old and new translations differ by the
    pictures alone: a game with a pool meets others than one without from the step after it is full.
    """
    data = pictures(40, 1), pictures(40, 2)
    rates = {"learning_rate": (1e-12, 1e-12)}
    one = game(T.Recipe(pool=8, penalty=0.0, **rates))
    other = game(T.Recipe(penalty=0.0, **rates))
    told = [
        [s.discriminator for s in training.train(trainee, 6, data=data)] for trainee in (one, other)
    ]
    apart = [(x - y).abs().max().item() for x, y in zip(*told, strict=True)]
    assert max(apart[:2]) < 1e-6 < max(apart[2:])


# It learns ---------------------------------------------------------------------------------------


def test_a_cycle_makes_maps_inverse_and_no_cycle_does_not():
    """On the line, two uniform laws: after 500 steps the cycle's error is a tenth, at the median of
    five models with the loss, of that of five without, which start from the same weights."""
    k = 10

    class Line(nn.Module):
        def __init__(self, n_out):
            super().__init__()
            draws = source(5)
            self.net = Networks((1, 24, 24, n_out), 5, draws, nn.functional.silu)
            for group in (self.net.weights, self.net.biases):
                for i, p in enumerate(group):
                    group[i] = nn.Parameter(p.detach().repeat(2, 1, 1))

        def forward(self, x):
            return self.net(x)

    class Judge(Line):
        def forward(self, x):
            return self.net(x)[..., 0]

    nets = T.Players(Line(1), Judge(1), Line(1), Judge(1))
    recipe = T.Recipe(cycle=(3.0,) * 5 + (0.0,) * 5, penalty=0.3, batch=64, momenta=(0.5, 0.99))
    trainee = T.Game(nets, (k, 1), recipe, 0)
    x = torch.rand(2000, 1, generator=source(1)) * 2 - 1
    y = torch.rand(2000, 1, generator=source(2)) * 2 - 1
    training.bring(trainee, 500, data=(x, y))
    back = T.translate(
        trainee.average["ba"], T.translate(trainee.average["ab"], x.expand(k, 2000, 1))
    )
    error = T.distance(back, x.expand(k, 2000, 1))
    assert error[:5].median() < 0.1 * error[5:].median()


def test_identity_names_every_field():
    recipe = T.Recipe(cycle=(1.0, 2.0))
    assert game(recipe).identity() == {"seed": 3, "recipe": dataclasses.asdict(recipe)}
