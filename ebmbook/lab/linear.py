"""Linear decoders W z with as many latent numbers as pixels or more, and three ways to limit them.

plane          min_z |y - W z|^2 of the likeliest W: the distance to a plane, PCA
bowl           temperature: -1/beta log of the mean of exp(-beta |y - W z|^2) over a normal z,
               with the likeliest W (Tipping and Bishop 1999)
sparse_code    min_z |y - W z|^2 + penalty |z|_1 by FISTA (Beck and Teboulle 2009), with atoms
               learned in turn (Olshausen and Field 1996)
prototypes     z one of K: k-means
rough          no latent variable: how unlike neighbouring pixels are
"""

from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from torch import Tensor

from ebmref.seeds import derive_seed


class Digits(NamedTuple):
    """scikit-learn's digits less their mean, pixels of [0, 1], `(n, 64)` each, float64.

    Attributes:
        train, test: 1,200 and the rest.
        shuffled: the test digits, each pixel shuffled among the pictures: each pixel keeps its
            values, and what pixels say about one another is gone.
    """

    train: Tensor
    test: Tensor
    shuffled: Tensor


def digits(seed: int, *, device="cpu") -> Digits:
    """A split of the 1,797 digits, and a shuffle, that the seed decides."""
    images = torch.tensor(load_digits().data / 16, dtype=torch.float64, device=device)
    source = torch.Generator(device).manual_seed(derive_seed(seed, "digits"))
    images = images[torch.randperm(len(images), generator=source, device=device)]
    return _split(images - images[:1200].mean(0), 1200, source)


def validation(train: Tensor, seed: int) -> Digits:
    """The training digits once more in two, 900 to learn from and the rest to choose settings."""
    source = torch.Generator(train.device).manual_seed(derive_seed(seed, "validation"))
    return _split(train, 900, source)


def _split(images: Tensor, n: int, source: torch.Generator) -> Digits:
    train, test = images.tensor_split([n])
    order = torch.rand(test.shape, generator=source, device=images.device).argsort(0)
    return Digits(train, test, test.gather(0, order))


def rough(y: Tensor) -> Tensor:
    """Squared differences of neighbouring pixels of `(n, 64)`, summed, `(n,)`."""
    picture = y.view(-1, 8, 8)
    return picture.diff(dim=1).square().sum((1, 2)) + picture.diff(dim=2).square().sum((1, 2))


def axes(y: Tensor) -> Tensor:
    """Principal directions of centred answers `(n, D)`, the largest variance first, `(D, D)`."""
    return torch.linalg.eigh(y.T @ y / len(y))[1].flip(1)


def plane(y: Tensor, directions: Tensor) -> Tensor:
    """Squared distance of `(n, D)` to the span of orthonormal columns `(D, k)`, `(n,)`."""
    return (y - y @ directions @ directions.T).square().sum(1)


def spectrum_at_least(y: Tensor, floor: float) -> Tensor:
    """C = W W^T + I / 2 beta of the likeliest W, floor = 1 / 2 beta: no variance below it."""
    values, vectors = torch.linalg.eigh(y.T @ y / len(y))
    return (vectors * values.clamp(min=floor)) @ vectors.T


def kept(y: Tensor, floor: float) -> int:
    """In how many directions the likeliest W is not zero: those of more variance than the floor."""
    return int((torch.linalg.eigvalsh(y.T @ y / len(y)) > floor).sum())


def bowl(y: Tensor, covariance: Tensor, beta: float) -> Tensor:
    """F_beta of `(n, D)` for a normal z, `(n,)`: (y^T C^-1 y + log det(2 beta C)) / 2 beta."""
    solved = torch.linalg.solve(covariance, y.T).T
    return ((y * solved).sum(1) + torch.logdet(2 * beta * covariance)) / (2 * beta)


def sparse_code(y: Tensor, atoms: Tensor, penalty: float, n_steps: int) -> tuple[Tensor, Tensor]:
    """The z `(n, K)` of answers `(n, D)` on atoms `(D, K)`, and their energy `(n,)`."""
    step = 1 / (2 * torch.linalg.matrix_norm(atoms, 2) ** 2)
    z = ahead = y.new_zeros(len(y), atoms.shape[1])
    t = 1.0
    for _ in range(n_steps):
        moved = ahead - step * 2 * (ahead @ atoms.T - y) @ atoms
        new = moved.sign() * (moved.abs() - step * penalty).clamp(min=0)
        t, before = (1 + (1 + 4 * t**2) ** 0.5) / 2, t
        ahead = new + (before - 1) / t * (new - z)
        z = new
    return z, (y - z @ atoms.T).square().sum(1) + penalty * z.abs().sum(1)


def learn_atoms(
    y: Tensor, n_atoms: int, penalty: float, n_rounds: int, generator: torch.Generator
) -> Tensor:
    """Atoms of unit length, `(D, n_atoms)`, by the argmin over z and over W in turn.

    Of unit length, or they would grow to make z small for nothing.
    """
    chosen = torch.randperm(len(y), generator=generator, device=y.device)[:n_atoms]
    atoms = y[chosen].T / y[chosen].norm(dim=1)
    ridge = 1e-3 * torch.eye(n_atoms).to(y)
    for _ in range(n_rounds):
        z, _ = sparse_code(y, atoms, penalty, 40)
        new = torch.linalg.solve(z.T @ z + ridge, z.T @ y).T
        size = new.norm(dim=0)
        # An atom that nobody uses stays as it is.
        atoms = torch.where(size > 1e-6, new / size.clamp(min=1e-6), atoms)
    return atoms


def prototypes(y: Tensor, k: int, seed: int) -> Tensor:
    """The means of k-means, `(k, D)`."""
    found = KMeans(k, n_init=1, random_state=seed).fit(y.cpu().numpy())
    return torch.tensor(found.cluster_centers_).to(y)


def nearest(y: Tensor, places: Tensor) -> Tensor:
    """Squared distance of `(n, D)` to the nearest of `(k, D)`, `(n,)`."""
    return torch.cdist(y, places).square().amin(1)
