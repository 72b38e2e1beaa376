"""Metropolis on finitely many states, as matrices (report section 2.3.2.1, equations 11-12).

A law p over n nodes, a proposal J and the kernel K made from both: `J[x, y]` and `K[x, y]` are
the probabilities of going from x to y, so every row sums to one. All is in float64 and exact
up to rounding, so that what a sampler promises can be looked up instead of believed.
"""

import math

import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

_ROW_SUM = 1e-10  # float64 rows of some thousand entries are far closer, float32 rows are not
_LONGEST = 2**40  # a chain that needs more steps counts as one that never arrives


def graph_walk(weights: Tensor) -> Tensor:
    """J(x, y) = w(x, y) / sum_z w(x, z): the walk that takes a random edge of a graph.

    Args:
        weights: `(n, n)`, >= 0, of the edge from x to y; 0 for none, the diagonal for a loop.

    Returns:
        `(n, n)`, rows that sum to one.

    Raises:
        ValueError: not square, a weight that is negative or not finite, a node without edges.
    """
    weights = _square("weights", weights)
    total = weights.sum(1, keepdim=True)
    if (total == 0).any():
        raise ValueError(f"weights: node {int(total[:, 0].argmin())} has no edge to leave by")
    return weights / total


def acceptance_ratio(J: Tensor, p: Tensor) -> Tensor:
    """A(x, y) = p(y) J(y, x) / (p(x) J(x, y)), equation (12) of the report.

    The report calls A a probability. It is a ratio, as often above one as below; the
    probability of accepting is min(1, A). Only ratios of p enter, so p need not be normalised.

    Where J(x, y) = 0 the move is never proposed and A never used: it reads 1 there. Where
    J(y, x) = 0 < J(x, y) there is no way back and A = 0: such a move is always rejected.

    Args:
        J: `(n, n)`, >= 0, rows that sum to one: the proposal.
        p: `(n,)`, > 0: the target, up to a factor.

    Returns:
        `(n, n)`, >= 0.

    Raises:
        ValueError: J is not square or not row-stochastic; p has a wrong shape or is not
            positive and finite everywhere.
    """
    J, p = _stochastic("J", J), _positive_law(p, len(J))
    # Ratio by ratio: a product of two small numbers could underflow.
    ratio = (p / p[:, None]) * (J.T / J)
    # A ratio of p beyond the largest float, times the 0 of no way back, is no number.
    ratio = torch.where(J.T > 0, ratio, 0.0)
    return torch.where(J > 0, ratio, 1.0)


def metropolis_matrix(J: Tensor, p: Tensor) -> Tensor:
    """The Metropolis kernel K, equation (11) of the report.

        K(x, y) = J(x, y)                                               y != x, A(x, y) >= 1
        K(x, y) = J(x, y) A(x, y)                                       y != x, A(x, y) < 1
        K(x, x) = J(x, x) + sum_{z: A(x, z) < 1} J(x, z) (1 - A(x, z))

    The first two lines are J min(1, A); the sum is what was proposed and rejected. K is in
    detailed balance with p, so p is stationary, whatever J is. Whether the chain gets there is
    another matter: that also asks that K be irreducible and aperiodic.

    Args, Raises:
        as `acceptance_ratio`.

    Returns:
        `(n, n)`, rows that sum to one.
    """
    J = _stochastic("J", J)
    accept = acceptance_ratio(J, p).clamp(max=1)
    rejected = (J * (1 - accept)).sum(1)
    return J * accept + torch.diag(rejected)


def detailed_balance_error(K: Tensor, p: Tensor) -> float:
    """Largest |p(x) K(x, y) - p(y) K(y, x)|, with p made to sum to one.

    Args:
        K: `(n, n)`, row-stochastic.
        p: `(n,)`, > 0, up to a factor.
    """
    K, p = _stochastic("K", K), _positive_law(p, len(K))
    flow = p[:, None] * K
    return float((flow - flow.T).abs().max())


def stationary(K: Tensor) -> Tensor:
    """The law with pi K = pi, by linear algebra.

    Args:
        K: `(n, n)`, row-stochastic.

    Returns:
        `(n,)`, >= 0, sums to one.

    Raises:
        ValueError: K is not row-stochastic, or has several stationary laws, because the nodes
            fall apart into sets that the chain cannot leave.
    """
    K = _stochastic("K", K)
    n_classes, member = connected_components((K > 0).cpu().numpy(), connection="strong")
    member = torch.as_tensor(member, device=K.device)
    leaves = (K > 0) & (member[:, None] != member)
    n_closed = n_classes - len(member[leaves.any(1)].unique())
    if n_closed > 1:
        raise ValueError(f"K: {n_closed} sets of nodes cannot be left; each has its own law")
    system = K.T - torch.eye(len(K), dtype=K.dtype, device=K.device)
    system[-1] = 1  # the rows of K^T - I sum to zero: one of them is free for sum(pi) = 1
    target = torch.zeros_like(K[0])
    target[-1] = 1
    pi = torch.linalg.solve(system, target).clamp(min=0)
    return pi / pi.sum()


def spectral_gap(K: Tensor) -> float:
    """1 - |lambda_2|, the second largest modulus among the eigenvalues of K; 1 for one node.

    What is far from p decays as |lambda_2|^t. Zero up to rounding for a chain that never
    converges: lambda_2 = 1 where it is reducible, |lambda_2| = 1 where it is periodic.

    Args:
        K: `(n, n)`, row-stochastic.
    """
    moduli = torch.linalg.eigvals(_stochastic("K", K)).abs().sort(descending=True).values
    return 1.0 - float(moduli[1]) if len(moduli) > 1 else 1.0


def distance(K: Tensor, p: Tensor) -> float:
    """max_x sum_y |K(x, y) - p(y)| / 2: total variation to p from the worst start.

    Args:
        K: `(n, n)`, row-stochastic: of one step or, as a power, of many.
        p: `(n,)`, > 0, up to a factor.
    """
    K, p = _stochastic("K", K), _positive_law(p, len(K))
    return _distance(K, p)


def mixing_time(K: Tensor, p: Tensor, epsilon: float = 0.25) -> float:
    """Least t with `distance(K^t, p)` <= epsilon, exactly; math.inf where there is none.

    K is squared until it is near enough, and the step is then found by bisection over the
    powers kept: some 2 log2(t) products of matrices. Steps beyond 2^40 count as never.

    Args:
        K: `(n, n)`, row-stochastic.
        p: `(n,)`, > 0, up to a factor: the stationary law of K.
        epsilon: in (0, 1).

    Raises:
        ValueError: as `acceptance_ratio`; p is not stationary for K; epsilon is outside (0, 1).
    """
    K, p = _stochastic("K", K), _positive_law(p, len(K))
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon: expected between 0 and 1; got {epsilon}")
    if not torch.allclose(p @ K, p, rtol=0, atol=1e-9):
        raise ValueError("p: expected the stationary law of K, with p K = p")
    power = torch.eye(len(K), dtype=K.dtype, device=K.device)
    if _distance(power, p) <= epsilon:
        return 0
    powers = [K]  # of 1, 2, 4, ... steps
    while _distance(powers[-1], p) > epsilon:
        if 2 ** len(powers) > _LONGEST:
            return math.inf
        powers.append(_product(powers[-1], powers[-1]))
    # The largest number of steps that is too few, bit by bit from the top.
    steps = 0
    for bit in range(len(powers) - 2, -1, -1):
        longer = _product(power, powers[bit])
        if _distance(longer, p) > epsilon:
            power, steps = longer, steps + 2**bit
    return steps + 1


def _product(one: Tensor, two: Tensor) -> Tensor:
    """One, then two; rows are made to sum to one, or their rounding would double each time."""
    product = one @ two
    return product / product.sum(1, keepdim=True)


def _distance(K: Tensor, p: Tensor) -> float:
    return 0.5 * float((K - p).abs().sum(1).max())


def _square(name: str, matrix: Tensor) -> Tensor:
    matrix = torch.as_tensor(matrix, dtype=torch.float64)
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"{name}: expected shape (n, n), n >= 1; got {tuple(matrix.shape)}")
    if not (matrix.isfinite() & (matrix >= 0)).all():
        raise ValueError(f"{name}: expected finite numbers >= 0 everywhere")
    return matrix


def _stochastic(name: str, matrix: Tensor) -> Tensor:
    matrix = _square(name, matrix)
    error = (matrix.sum(1) - 1).abs()
    if error.max() > _ROW_SUM:
        row = int(error.argmax())
        raise ValueError(
            f"{name}: expected rows that sum to one within {_ROW_SUM:g}; row {row} sums to "
            f"{float(matrix[row].sum()):.12g}"
        )
    return matrix


def _positive_law(p: Tensor, n: int) -> Tensor:
    """p in float64, made to sum to one."""
    p = torch.as_tensor(p, dtype=torch.float64)
    if p.shape != (n,):
        raise ValueError(f"p: expected shape ({n},) for {n} nodes; got {tuple(p.shape)}")
    if not (p.isfinite() & (p > 0)).all():
        raise ValueError("p: expected finite numbers > 0 everywhere")
    p = p / p.max()  # first, or the sum of large numbers overflows
    if not (p > 0).all():
        raise ValueError("p: spans more orders of magnitude than float64 has")
    return p / p.sum()
