"""Training of translators: `Game`, played as its `Recipe` says; CycleGAN and TraVeLGAN are two.

    L = adversarial + cycle L_cycle + identity L_identity + travel (L_travel + L_margin)

Translators and S descend L together, each discriminator its own loss.
"""

import copy
import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmref import gan, training
from ebmref.checks import check_field, check_seed, check_whole, is_number, is_numbers
from ebmref.seeds import derive_seed
from ebmref.translation import losses
from ebmref.translation.networks import Players

Weight = float | tuple[float, ...]
WEIGHTS = ("cycle", "identity", "travel", "margin", "penalty")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How translators are trained; a weight is a number, or a tuple with one for each model.

    One batch so holds an experiment and its control.

    Attributes:
        cycle, identity, travel: weights beside the adversarial loss, summed over the ways.
        margin: of the squared differences in the space of S; 0 for none.
        penalty: weight of half of R1, the mean squared slope at true pictures of the mean logit.
        adversary: one of `losses.ADVERSARIES`.
        pool: how many old translations a discriminator is shown from, see `Pool`; 0 for none.
        batch: pictures of either domain.
        learning_rate: of Adam: of translators and S, and of discriminators.
        momenta: Adam's two.
        average: decay of the moving average of the translators' weights; 0 for none. See
            `training.take_into_average`.
        anneal_over: the rates keep for half of so many steps, then fall to zero in a straight
            line; 0 keeps them.

    Raises:
        ValueError: a field out of range.
    """

    cycle: Weight = 0.0
    identity: Weight = 0.0
    travel: Weight = 0.0
    margin: Weight = 0.0
    penalty: Weight = 0.1
    adversary: str = "logistic"
    pool: int = 0
    batch: int = 4
    learning_rate: tuple[float, float] = (1e-3, 1e-3)
    momenta: tuple[float, float] = (0.5, 0.999)
    average: float = 0.995
    anneal_over: int = 0

    def __post_init__(self):
        for name in WEIGHTS:
            check_field(self, name, "a number >= 0, or a tuple of them", _is_weight)
        kinds = losses.ADVERSARIES
        check_field(self, "adversary", f"one of {', '.join(kinds)}", lambda v: v in kinds)
        check_whole(self, 1, "batch")
        check_whole(self, 0, "pool", "anneal_over")
        check_field(
            self, "pool", f"a multiple of the batch, {self.batch}", lambda v: v % self.batch == 0
        )
        check_field(self, "average", "a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
        check_field(
            self, "learning_rate", "two numbers > 0", lambda v: is_numbers(v, 2) and min(v) > 0
        )
        check_field(
            self, "momenta", "two numbers in [0, 1)",
            lambda v: is_numbers(v, 2) and min(v) >= 0 and max(v) < 1,
        )  # fmt: skip


def _is_weight(value) -> bool:
    each = value if type(value) is tuple else (value,)
    return len(each) > 0 and all(is_number(v) and v >= 0 for v in each)


class Pool(nn.Module):
    """Old translations of k models, from which a discriminator is shown some (Zhu et al. 2017).

    Until it is full it keeps what it meets. From then on half of the new ones, chosen at random,
    change places with old ones; so a discriminator forgets less.

    Args:
        shape: (k, *event).
        size: how many are kept of each model.
        like: a tensor whose dtype and device they take.
    """

    def __init__(self, shape, size: int, like: Tensor):
        super().__init__()
        self.register_buffer("kept", like.new_zeros(shape[0], size, *shape[1:]))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64, device=like.device))

    def exchange(self, new: Tensor, generator: torch.Generator) -> Tensor:
        """What the discriminator is shown for `(k, n, *event)` new ones; n divides the size."""
        k, n = new.shape[:2]
        size, filled = self.kept.shape[1], int(self.filled)
        if filled < size:
            self.kept[:, filled : filled + n] = new
            self.filled += n
            return new
        uniform = torch.rand(k, size + n, generator=generator, device=new.device)
        at = uniform[:, :size].argsort(1)[:, :n]
        model = torch.arange(k, device=new.device)[:, None]
        old = self.kept[model, at]
        swapped = (uniform[:, size:] < 0.5).view(k, n, *[1] * (new.dim() - 2))
        self.kept[model, at] = torch.where(swapped, new, old)
        return torch.where(swapped, old, new)


class Step(NamedTuple):
    """One step, of each of k models, `(k,)`; losses before it, None where none has a weight.

    Attributes:
        step: how many were made, with this one.
        discriminator: the loss of the discriminators, the mean over the ways.
        adversarial: of the translators, the mean over the ways.
        cycle, identity: the mean over the two directions.
        travel: the mean over the ways; -1 at least.
        margin: the same.
        penalty: R1 without its weight, the mean over the ways.
    """

    step: int
    discriminator: Tensor
    adversarial: Tensor
    cycle: Tensor | None
    identity: Tensor | None
    travel: Tensor | None
    margin: Tensor | None
    penalty: Tensor | None


class _Side(NamedTuple):
    """What `training.Batches` asks of a trainee, with a seed for each domain: else equal places
    of the two sets would meet again and again, as if they were pairs.
    """

    seed: int
    device: torch.device
    dtype: torch.dtype


class Game:
    """k translations of unpaired domains, with all that their training remembers: a `Trainee`.

        training.bring(game, n_steps, data=(a, b))

    In a step the translators (and S, which works with them) descend L on a new batch of either
    domain; then the discriminators see true pictures and the translations just made, or old ones
    from a pool.

    Args:
        players: the networks.
        shape: (k, *event).
        recipe: how they are trained.
        seed: of the batches and the pools.

    Attributes:
        average: by way, "ab" and "ba", the translators with averaged weights; the translators
            themselves without an average.
        step, saved: see `training.Trainee`.

    Raises:
        ValueError: a seed that is no integer; weights for another number of models; a weight on a
            loss that a player is missing for, or two ways with one discriminator.
    """

    kind = "translation"

    def __init__(self, players: Players, shape, recipe: Recipe, seed: int):
        check_seed(seed)
        self.players, self.shape, self.recipe, self.seed = players, tuple(shape), recipe, seed
        self.step = 0
        self.saved: str | None = None
        like = next(players.ab.parameters())
        self.device, self.dtype = like.device, like.dtype
        self.weights = {name: self._weight(name, like) for name in WEIGHTS}
        self._check_players()
        self.ways = {"ab": (players.ab, players.judge_b)}
        if players.ba is not None:
            self.ways["ba"] = (players.ba, players.judge_a)
        self.average = {way: translator for way, (translator, _) in self.ways.items()}
        if recipe.average:
            self.average = {
                way: copy.deepcopy(net).requires_grad_(False) for way, net in self.average.items()
            }
        self.pools = {}
        if recipe.pool:
            self.pools = {way: Pool(self.shape, recipe.pool, like.detach()) for way in self.ways}
        thirds = [net for net in (players.siamese, players.siamese_b) if net is not None]
        makers = [*(net for net, _ in self.ways.values()), *thirds]
        self._makers = list(dict.fromkeys(p for net in makers for p in net.parameters()))
        self._judges = [p for _, judge in self.ways.values() for p in judge.parameters()]
        rate, adam = recipe.learning_rate, {"betas": recipe.momenta, "fused": True}
        self.adam = torch.optim.Adam(self._makers, lr=rate[0], **adam)
        self.adam_judges = torch.optim.Adam(self._judges, lr=rate[1], **adam)
        self._batches: tuple[training.Batches, ...] = ()

    def _weight(self, name: str, like: Tensor) -> Tensor:
        """`(k,)`, of one loss."""
        given, k = getattr(self.recipe, name), self.shape[0]
        if type(given) is tuple and len(given) != k:
            raise ValueError(f"{name}: expected {k} weights, one a model; got {len(given)}")
        return torch.tensor(given, dtype=like.dtype, device=like.device).expand(k)

    def _check_players(self) -> None:
        players, weights = self.players, self.weights
        if (players.ba is None) != (players.judge_a is None):
            raise ValueError("players: expected ba and judge_a, both or neither")
        needed = {"cycle": players.ba, "identity": players.ba, "travel": players.siamese}
        for name, player in needed.items():
            if player is None and weights[name].any():
                missing = "siamese" if name == "travel" else "ba"
                raise ValueError(
                    f"{name}: expected 0 without {missing}; got {getattr(self.recipe, name)}"
                )

    def parts(self) -> dict:
        """Weights, averages, pools, and the moments of both optimisers."""
        given = self.players._asdict()
        parts = {name: net for name, net in given.items() if net is not None}
        parts |= {"adam": self.adam, "adam_judges": self.adam_judges}
        if self.recipe.average:
            parts |= {f"average_{way}": net for way, net in self.average.items()}
        return parts | {f"pool_{way}": pool for way, pool in self.pools.items()}

    def identity(self) -> dict:
        """Recipe and seed."""
        return {"seed": self.seed, "recipe": dataclasses.asdict(self.recipe)}

    def advance(self, data: tuple[Tensor, Tensor]) -> Step:
        """One step of translators, then one of discriminators.

        Args:
            data: a and b, each `(n, *event)`, n >= the batch; they need not be as many.

        Raises:
            ValueError: no pair of sets, too few data, or events of another shape or dtype.
            Diverged: a loss is NaN or infinite. Nothing was moved by that loss.
        """
        a, b = (batches[self.step] for batches in self._sides(data))
        left = _left(self.step, self.recipe.anneal_over)
        optimizers = (self.adam, self.adam_judges)
        for adam, rate in zip(optimizers, self.recipe.learning_rate, strict=True):
            adam.param_groups[0]["lr"] = rate * left
        with training.seeded(self):
            fakes, told = self._translate(a, b)
            told |= self._judge({"ab": b, "ba": a}, fakes)
        if self.recipe.average:
            for way, (net, _) in self.ways.items():
                training.take_into_average(
                    self.average[way], net, self.recipe.average, self.step
                )  # fmt: skip
        self.step += 1
        return Step(self.step, **told)

    def _sides(self, data) -> tuple[training.Batches, ...]:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise ValueError(f"data: expected two sets, (a, b); got {type(data).__name__}")
        held = [side.given for side in self._batches]
        if len(held) != 2 or held[0] is not data[0] or held[1] is not data[1]:
            for name, x in zip("ab", data, strict=True):
                if x.shape[1:] != self.shape[1:]:
                    raise ValueError(
                        f"{name}: expected (n, {', '.join(map(str, self.shape[1:]))}); got "
                        f"{tuple(x.shape)}"
                    )
            self._batches = tuple(
                training.Batches(
                    _Side(derive_seed(self.seed, name), self.device, self.dtype), x,
                    self.shape[0], self.recipe.batch,
                )
                for name, x in zip("ab", data, strict=True)
            )  # fmt: skip
        return self._batches

    def _translate(self, a: Tensor, b: Tensor) -> tuple[dict[str, Tensor], dict]:
        """One descent of L by translators and S; the translations, and the losses before it."""
        players, weights = self.players, self.weights
        sources = {"ab": a, "ba": b}
        fakes = {way: net(sources[way]) for way, (net, _) in self.ways.items()}
        found = dict.fromkeys(("cycle", "identity", "travel", "margin"))
        adversary = self.recipe.adversary
        scores = [
            losses.generator_loss(judge(fakes[way]), adversary)
            for way, (_, judge) in self.ways.items()
        ]
        loss = sum(scores)
        if weights["cycle"].any():
            back = (players.ba(fakes["ab"]), players.ab(fakes["ba"]))
            cycle = [losses.distance(x, y) for x, y in zip(back, (a, b), strict=True)]
            loss = loss + weights["cycle"] * sum(cycle)
            found["cycle"] = cycle
        if weights["identity"].any():
            same = (players.ab(b), players.ba(a))
            kept = [losses.distance(x, y) for x, y in zip(same, (b, a), strict=True)]
            loss = loss + weights["identity"] * sum(kept)
            found["identity"] = kept
        if weights["travel"].any():
            of_a, of_b = players.siamese, players.siamese_b or players.siamese
            reads = {"ab": (of_a, of_b), "ba": (of_b, of_a)}
            seen = {way: reads[way][0](sources[way]) for way in self.ways}
            travel = [
                losses.travel_loss(u, reads[way][1](fakes[way])) for way, u in seen.items()
            ]  # fmt: skip
            margin = [losses.margin_loss(u, weights["margin"][:, None]) for u in seen.values()]
            loss = loss + weights["travel"] * (sum(travel) + sum(margin))
            found["travel"], found["margin"] = travel, margin
        told = {name: None if each is None else _mean(each) for name, each in found.items()}
        told["adversarial"] = _mean(scores)
        if not loss.isfinite().all():
            raise training.diverged(self, told)
        training.descend(
            self.adam, self._makers, training.gradients(loss.sum(), self._makers)
        )  # fmt: skip
        return {way: fake.detach() for way, fake in fakes.items()}, told

    def _judge(self, real: dict[str, Tensor], fakes: dict[str, Tensor]) -> dict:
        """One descent of the discriminators; their losses before it."""
        draws = training.source(self, f"step-{self.step}")
        found, slopes = [], []
        for way, (_, judge) in self.ways.items():
            fake = fakes[way]
            if self.pools:
                fake = self.pools[way].exchange(fake, draws)
            logits = judge(torch.cat([real[way], fake], 1))
            n = fake.shape[1]
            found.append(
                losses.discriminator_loss(logits[:, :n], logits[:, n:], self.recipe.adversary)
            )
            if self.weights["penalty"].any():
                slopes.append(gan.slope_penalty(_mean_logit(judge), real[way]))
        loss = sum(found)
        if slopes:
            loss = loss + 0.5 * self.weights["penalty"] * sum(slopes)
        told = {"discriminator": _mean(found), "penalty": _mean(slopes) if slopes else None}
        if not loss.isfinite().all():
            raise training.diverged(self, told)
        training.descend(
            self.adam_judges, self._judges, training.gradients(loss.sum(), self._judges)
        )  # fmt: skip
        return told


def _mean_logit(judge: nn.Module):
    """A discriminator by the mean over the patches of each event."""

    def mean(x: Tensor) -> Tensor:
        logits = judge(x)
        return logits if logits.dim() == 2 else logits.mean(2)

    return mean


def _mean(each: list[Tensor]) -> Tensor:
    return sum(loss.detach() for loss in each) / len(each)


def _left(step: int, over: int) -> float:
    """What is left of the rates: all for half of the steps, then ever less in a straight line."""
    return min(1.0, 2 * max(0.0, 1 - step / over)) if over else 1.0


@torch.no_grad()
def translate(translator: nn.Module, x: Tensor, *, piece: int = 250) -> Tensor:
    """Translations of `(k, n, *event)`, without gradients, so many events at a time.

    Events that all models are to translate are `x.expand(k, *x.shape)`, which copies nothing.

    Args:
        translator: such as `Game.average["ab"]`.
    """
    return torch.cat([translator(part) for part in x.split(piece, 1)], 1)
