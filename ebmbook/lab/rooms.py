"""A translation whose answer is known: rooms as an engine draws them, and as a phone sees them.

    task         sets that were never paired, pairs held out, and nets that read what is shown
    judge        translations held against the truth: error, content, kind, Frechet distance
    opponents    what needs no adversary: the mean picture, colour maps, training with pairs
    hidden       what a cycle smuggles through the picture between

Inside all pictures are in [-1, 1]; errors are told in [0, 1], black to white.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ebmref import training, world
from ebmref import translation as T
from ebmref.metrics import frechet_distance
from ebmref.networks import Networks
from ebmref.seeds import derive_seed
from ebmref.translation.losses import distance

SEEN = ("x", "yaw", "column", "depth")


def _source(seed: int, stream: str, device) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


def signed(x: Tensor) -> Tensor:
    """Pictures of [0, 1] in [-1, 1]."""
    return 2 * x - 1


# The task ----------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Reads a picture: 48 features, and from them four numbers and the logit of the ball's kind."""

    def __init__(self, picture, generator: torch.Generator):
        super().__init__()
        self.body = T.Siamese(picture, 1, 16, generator, dims=48)
        self.head = Networks((48, len(SEEN) + 1), 1, generator)

    def features(self, x: Tensor) -> Tensor:
        """`(n, 3, side, side)` to `(n, 48)`, before the last rectifier."""
        return self.body(x[None])[0]

    def forward(self, x: Tensor) -> Tensor:
        """`(n, 3, side, side)` to `(n, 5)`."""
        return self.head(self.body(x[None]).relu())[0]


class Domain(NamedTuple):
    """One of the two sets.

    Attributes:
        train: `(n, 3, side, side)`, what translators learn from.
        test: `(m, 3, side, side)`, of the states that are held out: of the phone as the lens sees
            them, without chance in exposure and noise.
        other: `(m, 3, side, side)`, pictures of yet other states, with all chance: the reference
            of the Frechet distance.
        reader: of such pictures.
    """

    train: Tensor
    test: Tensor
    other: Tensor
    reader: Reader


class Task(NamedTuple):
    """Two sets, never paired, and pairs held out.

    Attributes:
        a, b: the engine's and the phone's.
        shown: `(m, 4)`, what the pictures held out show, see `world.seen`, each with mean 0 and
            variance 1 over the law of states.
        kind: `(m,)`, of their balls.
        developed: `(m, 3, side, side)`, the same states by the phone, with all chance.
    """

    a: Domain
    b: Domain
    shown: Tensor
    kind: Tensor
    developed: Tensor

    @property
    def picture(self) -> torch.Size:
        """Shape of one picture."""
        return self.a.train.shape[1:]


def task(
    side: int, n_train: int, seed: int, *, n_test: int = 500, n_reading: int = 900,
    share: tuple[float, float] = (0.7, 0.7), device="cpu",
) -> Task:  # fmt: skip
    """Rooms of one seed.

    Args:
        side: of the pictures.
        n_train: pictures of either set.
        n_test: pairs held out.
        n_reading: steps by which the readers are trained, on other pictures yet.
        share: of balls of kind 1 in the training set of A, and of B; those held out are drawn as
            A's, the readers' own pictures have either kind as often.
    """

    def rooms(n: int, stream: str, share: float) -> world.States:
        return world.states(n, _source(seed, stream, device), share=share)

    def engine(states: world.States, stream: str) -> Tensor:
        return signed(world.engine(states, side))

    def phone(states: world.States, stream: str) -> Tensor:
        clean = world.phone(states, side)
        return signed(world.develop(clean, _source(seed, f"{stream}-chance", device)))

    taught = rooms(3000, "reading", 0.5)
    shown = world.seen(taught)
    mean, sd = shown.mean(0), shown.std(0)
    held = rooms(n_test, "test", share[0])

    def domain(name: str, camera, share: float, test: Tensor) -> Domain:
        train = camera(rooms(n_train, f"train-{name}", share), f"train-{name}")
        other = camera(rooms(n_test, f"other-{name}", share), f"other-{name}")
        reader = Reader(train.shape[1:], _source(seed, f"reader-{name}", device))
        pictures = camera(taught, f"reading-{name}")
        read = _source(seed, f"batches-{name}", device)
        teach(reader, pictures, (shown - mean) / sd, taught.kind, n_reading, read)
        return Domain(train, test, other, reader)

    return Task(
        domain("a", engine, share[0], signed(world.engine(held, side))),
        domain("b", phone, share[1], signed(world.phone(held, side))),
        (world.seen(held) - mean) / sd,
        held.kind,
        phone(held, "test"),
    )


def teach(
    reader: Reader, pictures: Tensor, shown: Tensor, kind: Tensor, n_steps: int,
    generator: torch.Generator,
) -> None:  # fmt: skip
    """Train a reader; gains and offsets at random teach it to read pictures a little off.

    Args:
        pictures: `(n, 3, side, side)`.
        shown: `(n, 4)`.
        kind: `(n,)`.
    """

    def loss() -> Tensor:
        at = torch.randint(len(pictures), (64,), generator=generator, device=pictures.device)
        like = {"generator": generator, "device": pictures.device}
        gain = 1 + 0.1 * torch.randn(64, 1, 1, 1, **like)
        offset = 0.05 * torch.randn(64, 3, 1, 1, **like)
        read = reader((gain * pictures[at] + offset).clamp(-1, 1))
        wrong = functional.binary_cross_entropy_with_logits(read[:, 4], kind[at].to(read))
        return (read[:, :4] - shown[at]).square().mean() + wrong

    for _ in training.fit(reader, loss, n_steps, 3e-3, anneal=True):
        pass


# Judging -----------------------------------------------------------------------------------------


class Judgement(NamedTuple):
    """Of k translations of what is held out, `(k,)` each.

    Attributes:
        error: mean |G(a) - b| over pixels and colours, in [0, 1].
        parts: `(k, 4)`, root mean square of what is read less what is true, in standard
            deviations, of x, yaw, column and depth.
        kind: share of pictures whose ball is read to be of the right kind.
        teal: `(k, 2)`, share of balls read to be of kind 1, teal in B and blue in A, where they
            should be of kind 0, and where of kind 1.
        frechet: to pictures of other states, in the reader's features.
        spread: standard deviation of a pixel over pictures, in [0, 1]; near 0 where a translator
            knows one picture.
    """

    error: Tensor
    parts: Tensor
    kind: Tensor
    teal: Tensor
    frechet: Tensor
    spread: Tensor

    @property
    def content(self) -> Tensor:
        """Mean of the four parts; 1 is what the mean of all states would have."""
        return self.parts.mean(1)


# A translation has arrived where all three hold. Stated before any of the judged runs was made:
# they are those of an earlier world, smaller and less varied, in which the mean picture of B had an
# error of .07 and a content error of 1.1, and the best map of colours .07 and .5.
ERROR, CONTENT, KIND = 0.055, 0.46, 0.95


def arrived(
    judged: Judgement, *, error: float = ERROR, content: float = CONTENT, kind: float = KIND
) -> Tensor:
    """Which of k translations have arrived, `(k,)` booleans."""
    return (judged.error <= error) & (judged.content <= content) & (judged.kind >= kind)


@torch.no_grad()
def judge(given: Task, made: Tensor, way: str = "ab") -> Judgement:
    """Translations of the pictures held out, against the truth.

    Args:
        made: `(k, m, 3, side, side)`, of `given.a.test`, or of `given.developed` for "ba".
    """
    to = {"ab": given.b, "ba": given.a}[way]
    made = made.clamp(-1, 1)
    read = torch.stack([to.reader(each) for each in made])
    teal = (read[..., 4] > 0).long()
    reference = to.reader.features(to.other)
    clouds = [to.reader.features(each) for each in made]
    return Judgement(
        distance(made, to.test.expand_as(made)) / 2,
        (read[..., :4] - given.shown).square().mean(1).sqrt(),
        (teal == given.kind).double().mean(1),
        torch.stack([teal[:, given.kind == kind].double().mean(1) for kind in (0, 1)], 1),
        torch.tensor([frechet_distance(cloud, reference) for cloud in clouds]),
        made.std(1).flatten(1).mean(1) / 2,
    )


class Hidden(NamedTuple):
    """What a picture of B keeps of itself on its way through A, `(k,)` each but the floor.

    Attributes:
        back: mean |G(F(b)) - b|, in [0, 1].
        noised, blurred: the same after noise on F(b), and after the mean of 3 by 3 pixels.
        clean: mean |G(a) - b|, a the engine's own picture of the same state: what G makes of a
            picture that holds no secret.
        clean_noised, clean_blurred: the same after noise on a, and after the mean.
        floor: `(1,)`, mean |b - T(a)|: the least that a way back can have that is told no more
            than a clean picture of A tells.
    """

    back: Tensor
    noised: Tensor
    blurred: Tensor
    clean: Tensor
    clean_noised: Tensor
    clean_blurred: Tensor
    floor: Tensor


@torch.no_grad()
def hidden(given: Task, game: T.Game, seed: int, *, noise: float = 0.03) -> Hidden:
    """The way B to A to B of a game of two ways, and from pictures of A that hold nothing.

    Args:
        noise: standard deviation on the picture between, in [0, 1].
    """
    k = game.shape[0]
    b = given.developed.expand(k, *given.developed.shape)
    draws = _source(seed, "grain", b.device)
    grain = 2 * noise * torch.randn(b.shape, generator=draws, device=b.device)

    def blur(x: Tensor) -> Tensor:
        mean = functional.avg_pool2d(x.flatten(0, 1), 3, 1, 1, count_include_pad=False)
        return mean.view_as(x)

    found = []
    for between in (T.translate(game.average["ba"], b), given.a.test.expand_as(b)):
        for x in (between, (between + grain).clamp(-1, 1), blur(between)):
            found.append(distance(T.translate(game.average["ab"], x), b) / 2)
    return Hidden(*found, distance(given.b.test[None], given.developed[None]) / 2)


# Opponents ---------------------------------------------------------------------------------------


def opponents(
    given: Task, seed: int, *, n_steps: int = 1500, n_models: int = 2
) -> dict[str, Judgement]:
    """What needs no adversary, by name, judged as translations are.

    "unchanged"      A itself
    "mean picture"   of B, whatever A shows
    "affine", "cubic"    the best maps of colours, fitted with the pairs held out
    "pairs"          a translator trained with pairs, by the mean absolute error
    "another shot"   the phone once more: the truth, with the chance of exposure and noise
    "truth"          without
    """
    a, b = given.a, given.b
    n = len(a.test)
    made = {
        "unchanged": a.test[None],
        "mean picture": b.train.mean(0).expand(1, n, *given.picture),
        "affine": _colours(a.test, b.test, 1)[None],
        "cubic": _colours(a.test, b.test, 3)[None],
        "pairs": T.translate(
            supervised(given, seed, n_steps=n_steps, n_models=n_models),
            a.test.expand(n_models, *a.test.shape),
        ),
        "another shot": given.developed[None],
        "truth": b.test[None],
    }
    return {name: judge(given, pictures) for name, pictures in made.items()}


def _colours(a: Tensor, b: Tensor, degree: int) -> Tensor:
    """The map of a pixel's colour, a polynomial, nearest to b in the mean square."""
    x = a.movedim(1, -1).flatten(0, 2)
    powers = [torch.ones_like(x[:, :1])]
    for _ in range(degree):
        powers.append((powers[-1][:, :, None] * x[:, None]).flatten(1))
    design = torch.cat(powers, 1).double()
    target = b.movedim(1, -1).flatten(0, 2).double()
    # Products repeat, so that the equations have no full rank; only the CPU's driver minds that.
    normal, right = (design.T @ design).cpu(), (design.T @ target).cpu()
    weights = torch.linalg.lstsq(normal, right, driver="gelsd").solution.to(design)
    return (design @ weights).to(a).view(len(a), *a.shape[2:], 3).movedim(-1, 1)


def supervised(given: Task, seed: int, *, n_steps: int, n_models: int) -> T.Translator:
    """Translators trained with pairs: rooms of their own, as the engine and the phone see them."""
    device, side = given.a.train.device, given.picture[-1]
    net = T.Translator(n_models, 16, _source(seed, "supervised", device))
    states = world.states(len(given.a.train), _source(seed, "pairs", device))
    a = signed(world.engine(states, side))
    b = signed(world.develop(world.phone(states, side), _source(seed, "pairs-chance", device)))
    draws = _source(seed, "pairs-batches", device)

    def loss() -> Tensor:
        at = torch.randint(len(a), (n_models, 16), generator=draws, device=device)
        return distance(net(a[at]), b[at])

    for _ in training.fit(net, loss, n_steps, 1e-3, anneal=True):
        pass
    return net


# Showing -----------------------------------------------------------------------------------------


def seen(x: Tensor) -> Tensor:
    """Pictures `(n, 3, side, side)` in [-1, 1] as matplotlib shows them: `(n, side, side, 3)`."""
    return (0.5 * (x.clamp(-1, 1) + 1)).movedim(1, -1).cpu()


def numbers(judged: Judgement) -> dict[str, Tensor]:
    """What a ledger keeps of a judgement: one value a model, or the one that there is."""
    found = {
        "error": judged.error, "content": judged.content, "kind": judged.kind,
        "frechet": judged.frechet,
    }  # fmt: skip
    return {name: x if len(x) > 1 else x[0] for name, x in found.items()}


def row(judged: Judgement) -> dict[str, str]:
    """A row of a table; ranges where there are several models."""

    def told(x: Tensor, digits: int) -> str:
        low, high = f"{x.min():.{digits}f}", f"{x.max():.{digits}f}"
        return low if low == high else f"{low} to {high}"

    return {
        "error": told(judged.error, 3),
        "content": told(judged.content, 2),
        "kind": told(judged.kind, 2),
        "Frechet distance": told(judged.frechet, 1),
    }


def first(game: T.Game, way: str, x: Tensor) -> Tensor:
    """What the first of k translators makes of `(n, 3, side, side)`, by its averaged weights."""
    return T.translate(game.average[way], x.expand(game.shape[0], *x.shape))[0]


def as_folder(x: Tensor, folder: Path) -> Path:
    """Write `(n, 3, side, side)` in [-1, 1] as a folder of pictures, as a reader might have one."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate((255 * seen(x)).round().byte().numpy()):
        Image.fromarray(picture).save(folder / f"{i:04d}.png")
    return folder
