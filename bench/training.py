"""The training benchmark: games of `ebmref.gan` against the plain loop of the tutorials.

    make bench-training              two minutes on two cores
    python bench/training.py --rounds 9

Both train the same networks from the same weights at the same batch with the same recipe, in
single precision, with all cores (that such loops end in the same weights is a test of
tests/ebmref/test_gan.py). The plain loop is `nn.Sequential` of `nn.Linear`, a pass of the
discriminator for the data and one for the samples, two calls of `backward`, PyTorch's Adam as it
comes, and where there are k models one after the other. The two take turns, so that a machine that
slows down slows both. A figure is the ratio of their times in the same round: least / median /
largest.

The table goes to _build/bench/training.md.
"""

import argparse
import dataclasses
import itertools
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from ebmref import gan, training  # noqa: E402
from ebmref.files import write_atomic  # noqa: E402


class Work(NamedTuple):
    """One row: networks of these widths from `latent` numbers to `event`, k of them, a recipe."""

    name: str
    latent: int
    hidden: tuple[int, ...]
    event: tuple[int, ...]
    k: int
    recipe: gan.Recipe
    n_steps: int
    n_data: int


# Of `book/gan-pictures.md`, without the averages, which the plain loop has not.
PICTURES = gan.Recipe(learning_rate=(1e-3, 1e-3), penalty=1.0, penalty_every=8)
GRID = gan.Recipe(batch=64, learning_rate=(1e-3, 1e-3), penalty=0.3, penalty_every=4)
WORKS = [
    Work("pictures, 1 model", 64, (256, 512), (1, 28, 28), 1, PICTURES, 40, 50_000),
    Work("pictures, 3 models", 64, (256, 512), (1, 28, 28), 3, PICTURES, 16, 50_000),
    Work("grid, 1 model", 2, (128, 128, 128), (2,), 1, GRID, 80, 50_000),
    Work("grid, 5 models", 2, (128, 128, 128), (2,), 5, GRID, 40, 50_000),
]


def make_game(work: Work, half: bool = False) -> gan.Game:
    source = torch.Generator().manual_seed(0)
    squash = len(work.event) == 3
    g_net = gan.Generator(work.latent, work.hidden, work.event, work.k, source, squash=squash)
    d_net = gan.Discriminator(work.event, work.hidden[::-1], work.k, source)
    recipe = dataclasses.replace(work.recipe, half=half)
    return gan.Game(g_net, d_net, (work.k, work.latent), recipe, 0)


def sequential(networks, i: int, last: nn.Module | None) -> nn.Sequential:
    """Model i of `Networks` as a `nn.Sequential` of the same weights."""
    layers = []
    for weight, bias in zip(networks.weights, networks.biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data.copy_(weight[i].T)
        linear.bias.data.copy_(bias[i, 0])
        layers += [linear, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1], *([last] if last else []))


def plain_loop(game: gan.Game, data: torch.Tensor):
    """An endless iterator over steps of all k models, each by itself."""
    recipe, squash = game.recipe, game.generator.squash
    k, latent = game.latent
    flat = data.flatten(1)
    real_label, fake_label = torch.ones(recipe.batch), torch.zeros(recipe.batch)
    bce = binary_cross_entropy_with_logits
    models = []
    for i in range(k):
        g_net = sequential(game.generator.layers, i, nn.Sigmoid() if squash else None)
        d_net = sequential(game.discriminator.layers, i, None)
        optimizers = [
            torch.optim.Adam(net.parameters(), lr=rate, betas=recipe.momenta)
            for net, rate in zip((g_net, d_net), recipe.learning_rate, strict=True)
        ]
        models.append((g_net, d_net, *optimizers))
    for step in itertools.count():
        for g_net, d_net, adam_g, adam_d in models:
            real = flat[torch.randint(len(flat), (recipe.batch,))]
            fake = g_net(torch.randn(recipe.batch, latent))
            adam_d.zero_grad()
            bce(d_net(real)[:, 0], real_label).backward()
            bce(d_net(fake.detach())[:, 0], fake_label).backward()
            if step % recipe.penalty_every == 0:
                x = real.clone().requires_grad_()
                (slope,) = torch.autograd.grad(d_net(x).sum(), x, create_graph=True)
                weight = 0.5 * recipe.penalty * recipe.penalty_every
                (weight * slope.square().sum(1).mean()).backward()
            adam_d.step()
            adam_g.zero_grad()
            bce(d_net(fake)[:, 0], real_label).backward()
            adam_g.step()
        yield


def seconds_a_step(steps, n: int) -> float:
    began = time.perf_counter()
    for _ in itertools.islice(steps, n):
        pass
    return (time.perf_counter() - began) / n


def measure(work: Work, rounds: int) -> dict[str, list[float]]:
    """Seconds a step of all models, one number a round: plain, ours, ours in bfloat16."""
    data = torch.rand(work.n_data, *work.event, generator=torch.Generator().manual_seed(1))
    games = [make_game(work), make_game(work, half=True)]
    running = {
        "plain": plain_loop(games[0], data),
        "ours": training.train(games[0], 10**9, data=data),
        "half": training.train(games[1], 10**9, data=data),
    }
    for steps in running.values():
        seconds_a_step(steps, 8)
    times = {name: [] for name in running}
    for _ in range(rounds):
        for name, steps in running.items():
            times[name].append(seconds_a_step(steps, work.n_steps))
    return times


def product_share(work: Work) -> float:
    """Share of our time that is spent in matrix products, in single precision."""
    steps = training.train(make_game(work), 10**9, data=torch.rand(work.n_data, *work.event))
    seconds_a_step(steps, 8)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        seconds_a_step(steps, 2 * work.recipe.penalty_every)
    spent = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    products = sum(spent.get(f"aten::{name}", 0) for name in ("bmm", "baddbmm", "mm", "addmm"))
    return products / sum(spent.values())


def table(rows: list[tuple[Work, dict[str, list[float]], float]]) -> str:
    lines = [
        "# Training benchmark",
        "",
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; torch "
        f"{torch.__version__.split('+')[0]}.",
        "",
        "Milliseconds a step of all models (median), and the plain loop's time over ours in the "
        "same round: least / **median** / largest. An epoch is a pass over 50,000 pictures or "
        "points. bfloat16 is an option of the recipe that changes the rounding. Products: the "
        "share of our time that is spent in matrix products, by PyTorch's profiler; what is left "
        "is all that a better loop can save. (The plain loop also takes gradients that it throws "
        "away, the discriminator's in the generator's step.)",
        "",
        "| networks | plain, ms | ours, ms | plain over ours | products | ours, bfloat16, ms | "
        "plain over bfloat16 | seconds an epoch: plain, ours, bfloat16 |",
        "|---|---:|---:|---|---:|---:|---|---|",
    ]
    for work, times, share in rows:
        middle = {name: statistics.median(got) for name, got in times.items()}
        per_epoch = work.n_data // work.recipe.batch
        epochs = ", ".join(f"{per_epoch * middle[name]:.1f}" for name in middle)
        lines.append(
            f"| {work.name} | {1e3 * middle['plain']:.2f} | {1e3 * middle['ours']:.2f} | "
            f"{spread(times, 'ours')} | {100 * share:.0f} % | {1e3 * middle['half']:.2f} | "
            f"{spread(times, 'half')} | {epochs} |"
        )
    return "\n".join(lines) + "\n"


def spread(times: dict[str, list[float]], name: str) -> str:
    each = sorted(a / b for a, b in zip(times["plain"], times[name], strict=True))
    return f"{each[0]:.2f} / **{statistics.median(each):.2f}** / {each[-1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "bench")
    chosen = parser.parse_args()
    rows = [
        (work, measure(work, chosen.rounds), product_share(work))
        for work in tqdm(WORKS, unit="row")
    ]
    write_atomic(chosen.out / "training.md", table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
