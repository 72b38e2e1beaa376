"""What the values and losses of the game do to Gaussians on the line, where the best is known.

either_value    discriminators that are trained on the value, corrected and as printed
by_point        equations (R7) and (R8) written out, a point at a time
pulls           how hard either loss pulls a generator, under a logit a + b x
train_lines     such logits, trained from samples
fit_line        the same with exact expectations
goals           where either loss sends one Gaussian that is to be two humps
"""

import math

import numpy as np
import torch
from scipy import optimize, stats
from torch import Tensor
from torch.nn.functional import logsigmoid

from ebmref import gan, training


def two_gaussians(k: int, n: int, generator: torch.Generator, shift: float = 1.0):
    """Data N(-shift, 1) and samples N(shift, 1), `(k, n, 1)` each."""
    noise = torch.randn(2, k, n, 1, generator=generator, device=generator.device)
    return noise[0] - shift, noise[1] + shift


def best_value(shift: float = 1.0) -> float:
    """Of the game of `two_gaussians`, by quadrature."""
    t = np.linspace(-12, 12, 4801)
    p, q = stats.norm.pdf(t, -shift), stats.norm.pdf(t, shift)
    return float(np.trapezoid(-p * np.logaddexp(0, 2 * shift * t), t)) + float(
        np.trapezoid(-q * np.logaddexp(0, -2 * shift * t), t)
    )


def printed_value(real: Tensor, fake: Tensor) -> Tensor:
    """V with the parenthesis where the report prints it, of logits `(..., n)`: `(...)`."""
    return logsigmoid(real).mean(-1) + 1 - logsigmoid(fake).mean(-1)


def either_value(n_models: int, n_steps: int, generator: torch.Generator) -> Tensor:
    """Values on the way of discriminators that are trained on them, `(n_steps, 2, n_models)`.

    First on the corrected value, then on the printed one, with the same draws.
    """
    net = gan.Discriminator((1,), (16,), 2 * n_models, generator)

    def loss() -> Tensor:
        drawn = two_gaussians(n_models, 256, generator)
        real, fake = (net(x.repeat(2, 1, 1)).split(n_models) for x in drawn)
        return -torch.cat([gan.value(real[0], fake[0]), printed_value(real[1], fake[1])])

    paid = [-found for found in training.fit(net, loss, n_steps, 5e-3)]
    return torch.stack(paid).view(n_steps, 2, n_models).cpu()


def by_point(d_net, g_net, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """(R7) and (R8) as sums over points, each weighted by how wrong it was, flattened.

    Args:
        d_net, g_net: one model each.
        x, z: data `(1, m, d)` and latents `(1, m, d)`.
    """
    of_d, of_g = list(d_net.parameters()), list(g_net.parameters())

    def flat(value: Tensor, parameters: list[Tensor]) -> Tensor:
        parts = torch.autograd.grad(value, parameters, retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    up, down = 0, 0
    for i in range(x.shape[1]):
        d = d_net(x[:, i : i + 1])
        up = up + (1 - d.sigmoid()).item() * flat(d.sum(), of_d)
        fake = g_net(z[:, i : i + 1])
        d = d_net(fake)
        up = up - d.sigmoid().item() * flat(d.sum(), of_d)
        down = down - d.sigmoid().item() * flat(d.sum(), of_g)
    return up / x.shape[1], down / x.shape[1]


def batch_noise(n_batches: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Gradients (R7) and (R8) of minibatches of data N(-1, 1), a row each, for two fixed nets.

    The nets are a discriminator of eight units and an affine generator.
    """
    exact = {"dtype": torch.float64, "device": generator.device}
    d_net = gan.Discriminator((1,), (8,), 1, generator).to(**exact)
    g_net = gan.Generator(1, (), (1,), 1, generator).to(**exact)
    x, z = torch.randn(2, n_batches, size, 1, generator=generator, **exact)
    rows = []
    for real, latent in zip(x - 1, z, strict=True):
        logits = d_net(g_net(latent[None]))
        up = torch.autograd.grad(
            gan.value(d_net(real[None]), logits).sum(), list(d_net.parameters()), retain_graph=True
        )
        down = torch.autograd.grad(
            gan.generator_loss(logits, "saturating").sum(), list(g_net.parameters())
        )
        rows.append([torch.cat([p.flatten() for p in parts]) for parts in (up, down)])
    up, down = zip(*rows, strict=True)
    return torch.stack(up), torch.stack(down)


# Logits a + b x ----------------------------------------------------------------------------------


def pulls(a, b, gap) -> np.ndarray:
    """Both pulls on the mean of samples N(gap, 1), saturating first: `(..., 2)`, by quadrature.

    With the best logit of data N(0, 1), a = gap^2 / 2 and b = -gap, they are what 2 JSD, and
    KL(q, p) less 2 JSD, lose as the samples come nearer.
    """
    a, b, gap = (np.asarray(v, dtype=float)[..., None] for v in (a, b, gap))
    t = np.linspace(-9, 9, 1801)
    told = np.exp(-np.logaddexp(0, -(a + b * (t + gap))))
    share = np.trapezoid(told * stats.norm.pdf(t), t)
    return np.abs(b) * np.stack([share, 1 - share], -1)


def best_pulls(gap) -> np.ndarray:
    """Of the best discriminator, `(..., 2)`."""
    gap = np.asarray(gap, dtype=float)
    return pulls(gap**2 / 2, -gap, gap)


def train_lines(
    gaps: list[float], n_models: int, marks: list[int], generator: torch.Generator,
    *, batch: int = 256, rate: float = 0.1,
) -> np.ndarray:  # fmt: skip
    """Pulls on samples N(gap, 1) while logits a + b x learn to tell them from data N(0, 1).

    Adam on fresh batches, its rate annealed to zero at the last mark.

    Returns:
        `(marks, gaps, n_models, 2)`.
    """
    delta = torch.tensor(gaps, device=generator.device).repeat_interleave(n_models)
    net = gan.Discriminator((1,), (), len(delta), generator)
    apart, rows = delta[:, None, None], []

    def loss() -> Tensor:
        noise = torch.randn(
            2, len(delta), batch, 1, generator=generator, device=generator.device
        )  # fmt: skip
        return -gan.value(net(noise[0]), net(noise[1] + apart))

    for step, _ in enumerate(training.fit(net, loss, marks[-1], rate, anneal=True), start=1):
        if step in marks:
            b, a = (p[0].detach().flatten().cpu() for p in (net.layers.weights, net.layers.biases))
            rows.append(pulls(a, b, delta.cpu()))
    return np.stack(rows).reshape(len(marks), len(gaps), n_models, 2)


def fit_line(gap: float, n_steps: int, rate: float = 0.1) -> tuple[float, float]:
    """(a, b) after as many steps of the same Adam, with exact expectations for its batches."""
    t = np.linspace(-8, 8, 401)
    share = stats.norm.pdf(t) * (t[1] - t[0])
    x = np.stack([t, t + gap])
    first, second, line = np.zeros(2), np.zeros(2), np.zeros(2)
    for step in range(1, n_steps + 1):
        told = 1 / (1 + np.exp(-(line[0] + line[1] * x)))
        wrong = share * np.stack([told[0] - 1, told[1]])  # of the loss, by the logit
        slope = np.array([wrong.sum(), (wrong * x).sum()])
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        move = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        line = line - rate * (1 + math.cos(math.pi * (step - 1) / n_steps)) / 2 * move
    return float(line[0]), float(line[1])


def goals(centres=(-1.6, 1.6), weights=(0.4, 0.6), width: float = 0.5) -> dict[str, np.ndarray]:
    """The Gaussian (mean, deviation) at which either loss comes to rest, by quadrature.

    Data are two humps; the discriminator is at its best for every generator.

    Returns:
        By loss, `(2,)`.
    """
    t = np.linspace(-9, 9, 3601)
    p = sum(w * stats.norm.pdf(t, c, width) for w, c in zip(weights, centres, strict=True))

    def of(kind: str, u: np.ndarray) -> float:
        q = stats.norm.pdf(t, u[0], math.exp(u[1]))
        mixed = np.log((p + q) / 2 + 1e-300)
        twice_js = np.trapezoid(
            p * (np.log(p + 1e-300) - mixed) + q * (np.log(q + 1e-300) - mixed), t
        )
        if kind == "saturating":
            return twice_js
        return np.trapezoid(q * (np.log(q + 1e-300) - np.log(p + 1e-300)), t) - twice_js

    found = {}
    for kind in gan.LOSSES:
        tries = [
            optimize.minimize(lambda u, kind=kind: of(kind, u), start, method="Nelder-Mead",
                              options={"xatol": 1e-6, "fatol": 1e-10})
            for start in ([0.0, 0.5], [centres[0], -0.5], [centres[1], -0.5])
        ]  # fmt: skip
        best = min(tries, key=lambda one: one.fun).x
        found[kind] = np.array([best[0], math.exp(best[1])])
    return found
