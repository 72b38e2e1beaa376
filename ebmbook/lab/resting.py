"""Where the tip of a fallen pen comes to rest: laws of the plane, and what learns them.

    Spots, Rims     five round notches, and five whose rim alone holds the tip; both known exactly
    energies        networks of the plane, learned by their exact likelihood on a grid
    mixtures        mixture density networks, learned from as many draws
    compare         either at several sizes, each at the best of several rates
    judge           an energy against the law: divergence, masses, where descents end
    crossed         heights off the data, of each first weights with each stream of draws
    blindness       what the likelihood could still tell of an energy inside a disc

k models that differ in their weights and draws stand side by side, and never meet.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmref import data, inference, outcomes, training
from ebmref.energies import Ring
from ebmref.networks import Networks
from ebmref.seeds import derive_seed

WEIGHTS = (0.30, 0.25, 0.20, 0.15, 0.10)


def _source(seed: int, stream: str, device="cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, stream))


# The laws ----------------------------------------------------------------------------------------


class Spots:
    """Five round notches on the circle of radius one, a Gaussian each; `WEIGHTS` are their masses.

    Args:
        jitter: standard deviation in each coordinate.
    """

    reach, n_side = 1.6, 32  # a square that holds the law, and the points a side of a grid of it

    def __init__(self, jitter: float = 0.08, device="cpu"):
        self.jitter = jitter
        self.weights = torch.tensor(WEIGHTS, device=device)
        turn = 2 * torch.pi * torch.arange(5, device=device) / 5
        self.centres = data.tips(turn + 0.3)

    def draw(self, generator: torch.Generator, *shape: int) -> Tensor:
        """Resting places, `(*shape, 2)`."""
        shares = self.weights.expand(math.prod(shape[:-1]), 5)
        which = torch.multinomial(shares, shape[-1], replacement=True, generator=generator)
        return self.centres[which.view(shape)] + self._around(generator, shape)

    def _around(self, generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
        return self.jitter * torch.randn(*shape, 2, generator=generator, device=generator.device)

    def log_prob(self, y: Tensor) -> Tensor:
        """Exact log density, `(*, 2)` to `(*,)`."""
        away = y[..., None, :] - self.centres
        return (self.weights.log() + self._log_notch(away)).logsumexp(-1)

    def _log_notch(self, away: Tensor) -> Tensor:
        squares = away.square().sum(-1) / self.jitter**2
        return -0.5 * squares - math.log(2 * math.pi * self.jitter**2)


class Rims(Spots):
    """As `Spots`, but the tip comes to rest on the rim of a round hole: a ring about each centre.

    Args:
        radius: of the holes.
        jitter: standard deviation across the rim.
    """

    reach, n_side = 1.8, 36

    def __init__(self, radius: float = 0.3, jitter: float = 0.06, device="cpu"):
        super().__init__(jitter, device)
        self.ring = Ring(self.centres[0], radius, jitter)

    def _around(self, generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
        return self.ring.sample(math.prod(shape), generator).view(*shape, 2)

    def _log_notch(self, away: Tensor) -> Tensor:
        return self.ring.log_prob(away.flatten(0, -2)).view(away.shape[:-1])


# What learns them --------------------------------------------------------------------------------


def plane_network(
    hidden: int, n_models: int, generator: torch.Generator, steep: float = 4.0
) -> Networks:
    """Energies of the plane, two hidden layers.

    Args:
        steep: times which the first weights are taken: notches are narrow, and a flat start learns
            them late.
    """
    net = Networks((2, hidden, hidden, 1), n_models, generator)
    with torch.no_grad():
        net.weights[0].mul_(steep)
    return net


def energy_of(net: Networks, y: Tensor) -> Tensor:
    """`(k or 1, n, 2)` to `(k, n)`."""
    return net(y)[..., 0]


def energy_loss(net: Networks, y: Tensor, points: Tensor, cell: float) -> Tensor:
    """-log likelihood of draws `(k, n, 2)`, the mean: `(k,)`."""
    log_z = outcomes.log_partition(energy_of(net, points[None]), cell)
    return energy_of(net, y).mean(1) + log_z


def mixture_network(n_parts: int, n_models: int, generator: torch.Generator) -> Networks:
    """Mixture density networks of one fixed question, with this many round Gaussians."""
    return Networks((1, 16, 4 * n_parts), n_models, generator)


def mixture_log_prob(net: Networks, y: Tensor) -> Tensor:
    """Log density at `(k or 1, n, 2)`, `(k, n)`."""
    return outcomes.mixture_log_prob(net(y.new_ones(1, 1)), y)


def learn(
    law: Spots, kind: str, size: int, learning_rate: float, n_models: int, n_steps: int,
    seed: int, *, batch: int = 512, steep: float = 4.0, refine: int = 1, device="cpu",
) -> Networks:  # fmt: skip
    """k models that learn side by side, each from draws of its own.

    Args:
        kind: "energy", `size` being the width of its layers, or "mixture", its number of Gaussians.
        batch: draws a step.
        steep: of "energy", see `plane_network`.
        refine: times the law's number of points a side, of the grid that "energy" learns on.

    Raises:
        ValueError: another kind.
    """
    if kind not in ("energy", "mixture"):
        raise ValueError(f"kind: expected energy or mixture; got {kind!r}")
    draws = _source(seed, "resting draws", device)
    weights = _source(seed, f"resting weights {kind} {size}", device)
    points, cell = outcomes.plane_grid(law.reach, refine * law.n_side, device)
    if kind == "energy":
        net = plane_network(size, n_models, weights, steep)
    else:
        net = mixture_network(size, n_models, weights)

    def loss() -> Tensor:
        y = law.draw(draws, n_models, batch)
        if kind == "mixture":
            return -mixture_log_prob(net, y).mean(1)
        return energy_loss(net, y, shifted(points, cell, draws), cell)

    for _ in training.fit(net, loss, n_steps, learning_rate, anneal=True):
        pass
    return net.requires_grad_(False)


def shifted(points: Tensor, cell: float, generator: torch.Generator) -> Tensor:
    """The grid, moved by up to half a cell each way: between fixed points a well could hide."""
    shift = torch.rand(2, generator=generator, device=points.device) - 0.5
    return points + cell**0.5 * shift


# What they are worth -----------------------------------------------------------------------------


def log_probs(net: Networks, law: Spots, refine: int = 2) -> tuple[Tensor, Tensor, float]:
    """Log densities of k models on a grid finer than the one they learned on.

    Returns:
        points `(n, 2)`, log densities `(k, n)` in double precision, and the area of a cell.
    """
    device = law.centres.device
    points, cell = outcomes.plane_grid(law.reach, refine * law.n_side, device)
    with torch.no_grad():
        if net.weights[0].shape[1] == 1:
            return points, mixture_log_prob(net, points[None]).double(), cell
        values = energy_of(net, points[None]).double()
        return points, -values - outcomes.log_partition(values, cell)[:, None], cell


def log_density(net: Networks, points: Tensor) -> Tensor:
    """Of the first of k models, at points `(n, 2)`, up to a number that is the same at all."""
    with torch.no_grad():
        if net.weights[0].shape[1] == 1:
            return mixture_log_prob(net, points[None])[0]
        return -energy_of(net, points[None])[0]


def divergence(net: Networks, law: Spots) -> Tensor:
    """KL(law || model) in nats, of an energy or of a mixture: `(k,)`."""
    points, log_q, cell = log_probs(net, law)
    log_p = law.log_prob(points).double()
    return (log_p.exp() * (log_p - log_q)).sum(1) * cell


def one_gaussian(law: Spots, centre: Tensor) -> Tensor:
    """KL(law || the best round Gaussian about each of k centres `(k, 2)`), `(k,)`."""
    points, cell = outcomes.plane_grid(law.reach, 2 * law.n_side, centre.device)
    log_p = law.log_prob(points).double()
    p = log_p.exp() * cell
    variance = (torch.cdist(centre, points).square().double() @ p) / 2
    return (p * log_p).sum() + 1 + (2 * math.pi * variance).log()


class Arm(NamedTuple):
    """One size of one kind, at the rate of least median.

    Attributes:
        rate: that one.
        weights: that a network has.
        free: numbers that its law is fixed by. A mixture's question is always the same, so that
            its network is a way to write a weight, a width and a centre for each Gaussian; the
            weights sum to one.
        kl: KL(law || model) at that rate, `(k,)`.
        swept: the same at all rates, `(rates, k)`.
        net: the models at that rate.
    """

    rate: float
    weights: int
    free: int
    kl: Tensor
    swept: Tensor
    net: Networks


def compare(
    law: Spots, kind: str, sizes: tuple[int, ...], rates: tuple[float, ...], n_models: int,
    n_steps: int, seed: int, *, batch: int = 512, refine: int = 1, device="cpu",
) -> dict[int, Arm]:  # fmt: skip
    """Learn a law at each size, with each of the rates; see `learn`."""
    arms = {}
    for size in sizes:
        nets = [
            learn(
                law,
                kind,
                size,
                rate,
                n_models,
                n_steps,
                seed,
                batch=batch,
                refine=refine,
                device=device,
            )
            for rate in rates
        ]
        swept = torch.stack([divergence(net, law) for net in nets])
        best = int(swept.median(1).values.argmin())
        n_weights = sum(part[0].numel() for part in nets[best].parameters())
        free = 4 * size - 1 if kind == "mixture" else n_weights
        arms[size] = Arm(rates[best], n_weights, free, swept[best], swept, nets[best])
    return arms


class Wells(NamedTuple):
    """What k energies make of the five notches.

    Attributes:
        mass: that falls nearest to each notch, `(k, 5)`.
        worst: largest error of these masses, `(k,)`.
        above: height of a point over the shallowest of the notches' centres, `(k,)`.
    """

    mass: Tensor
    worst: Tensor
    above: Tensor


def wells(net: Networks, law: Spots, point: Tensor) -> Wells:
    """Of energies, with the height at a point `(2,)`."""
    points, log_q, cell = log_probs(net, law)
    owner = torch.cdist(points, law.centres).argmin(1)
    inside = torch.nn.functional.one_hot(owner, 5).double()
    mass = log_q.exp() @ inside * cell
    with torch.no_grad():
        at = energy_of(net, torch.cat([point[None], law.centres])[None])
    worst = (mass - law.weights).abs().amax(1)
    return Wells(mass, worst, at[:, 0] - at[:, 1:].amax(1))


def true_height(law: Spots, point: Tensor) -> Tensor:
    """Height of -log p at a point `(2,)` over the shallowest of the notches' centres."""
    at = -law.log_prob(torch.cat([point[None], law.centres]))
    return at[0] - at[1:].amax()


def descents(
    energy, starts: Tensor, law: Spots, n_steps: int = 400
) -> tuple[Tensor, inference.Inference]:
    """Descend k energies, `(k, n, 2)` to `(k, n)`, from starts `(k, n, 2)`.

    Returns:
        Whether a descent ended within three jitters of each notch, `(k, n, 5)`, and the descents.
    """

    def flat(y: Tensor) -> Tensor:
        return energy(y.view_as(starts)).flatten()

    found = inference.gradient_argmin(flat, starts.flatten(0, 1), 0.02, n_steps, keep_path=True)
    away = torch.cdist(found.y, law.centres)
    return (away < 3 * law.jitter).view(*starts.shape[:2], 5), found


def nearest_share(law: Spots, half: float, n: int = 600) -> Tensor:
    """Share of the square [-half, half]^2 that is nearest to each notch, `(5,)`."""
    points, _ = outcomes.plane_grid(half, n, law.centres.device)
    owner = torch.cdist(points, law.centres).argmin(1)
    return torch.bincount(owner, minlength=5) / len(points)


# Off the data ------------------------------------------------------------------------------------


def crossed(
    law: Spots, point: Tensor, k: int, learning_rate: float, n_steps: int, seed: int, *,
    hidden: int = 48, steep: float = 4.0, batch: int = 512, device="cpu",
) -> Tensor:  # fmt: skip
    """Height of energies at a point, see `Wells.above`: `(k, k)`, first weights by draws.

    All of a row begin with the same weights; all of a column see the same draws and grids.
    """
    net = plane_network(hidden, k, _source(seed, "crossed weights", device), steep)
    for parts in (net.weights, net.biases):
        for i, part in enumerate(parts):
            parts[i] = torch.nn.Parameter(part.detach().repeat_interleave(k, 0))
    draws = _source(seed, "crossed draws", device)
    points, cell = outcomes.plane_grid(law.reach, law.n_side, device)

    def loss() -> Tensor:
        y = law.draw(draws, k, batch)
        grid = torch.stack([shifted(points, cell, draws) for _ in range(k)])
        log_z = outcomes.log_partition(energy_of(net, grid.repeat(k, 1, 1)), cell)
        return energy_of(net, y.repeat(k, 1, 1)).mean(1) + log_z

    for _ in training.fit(net, loss, n_steps, learning_rate, anneal=True):
        pass
    return wells(net.requires_grad_(False), law, point).above.view(k, k)


class Spread(NamedTuple):
    """Standard deviations of heights `(k, k)`, see `crossed`.

    Attributes:
        by_weights: among first weights that see the same draws.
        by_draws: among draws that begin with the same weights.
    """

    by_weights: float
    by_draws: float


def spread(heights: Tensor) -> Spread:
    """The root of the mean variance of columns, and of rows."""
    return Spread(*(float(heights.double().var(i).mean().sqrt()) for i in (0, 1)))


class Blind(NamedTuple):
    """What the likelihood can tell of the height of k energies in a disc.

    Attributes:
        mass: of each model in the disc, `(k,)`; all that its loss could gain by raising the energy
            there without end is -log(1 - mass).
        law: the true mass in the disc.
        change: of KL(law || model) when the energy in the disc is raised by each of s amounts,
            `(s, k)`.
        free: how far it can be lowered until KL has grown by the tolerance, `(k,)`.
    """

    mass: Tensor
    law: Tensor
    change: Tensor
    free: Tensor


def blindness(
    net: Networks, law: Spots, centre: Tensor, radius: float, shifts: Tensor,
    tolerance: float = 1e-3,
) -> Blind:  # fmt: skip
    """Change the energy in one disc and nothing else.

    Raised by h there, the mean energy of the data grows by h times the law's mass in the disc, and
    log Z by log(1 + mass (e^{-h} - 1)).

    Args:
        centre: `(2,)`.
        shifts: `(s,)`, h.
    """
    points, log_q, cell = log_probs(net, law, refine=4)
    inside = (points - centre).norm(dim=1) < radius
    mass = log_q[:, inside].exp().sum(1) * cell
    p = law.log_prob(points[inside]).double().exp().sum() * cell
    h = shifts.double()[:, None]
    change = h * p + (mass * torch.expm1(-h)).log1p()
    return Blind(mass, p, change, (math.expm1(tolerance) / mass).log1p())
