"""Metropolis on finite graphs: equations (11) and (12) against loops, closed forms and chance."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ebmref.samplers import finite

SWAP = torch.tensor([[0.0, 1.0], [1.0, 0.0]])


def random_problem(seed, n=None, lazy=False):
    """A random walk on a random graph, some of its edges one-way, and a random target."""
    rng = np.random.default_rng(seed)
    n = n or int(rng.integers(2, 13))
    weights = rng.exponential(size=(n, n)) * (rng.random((n, n)) < rng.uniform(0.2, 1))
    ring = np.roll(np.eye(n), 1, axis=1)
    weights = weights + ring + ring.T  # connected, by edges with a way back
    if lazy:
        weights += np.diag(weights.sum(1))
    p = np.exp(3 * rng.normal(size=n))
    return finite.graph_walk(torch.tensor(weights)), torch.tensor(p)


problems = st.integers(0, 2**32 - 1).map(random_problem)


@settings(max_examples=150)
@given(problems)
def test_rows_sum_to_one_and_balance_holds_to_1e_15(problem):
    """Equation (11) on random graphs: a kernel, in detailed balance, hence stationary."""
    J, p = problem
    K = finite.metropolis_matrix(J, p)
    assert (K >= 0).all()
    assert (K.sum(1) - 1).abs().max() < 1e-14  # a dozen roundings of numbers <= 1
    flow = (p / p.sum())[:, None] * K
    assert (flow - flow.T).abs().max() <= 1e-15
    assert finite.detailed_balance_error(K, p) <= 1e-15
    torch.testing.assert_close(p @ K, p, rtol=1e-13, atol=0)


@settings(max_examples=60)
@given(problems)
def test_equations_written_out_node_by_node(problem):
    """Both equations in plain loops, with the report's three cases."""
    J, p = (x.tolist() for x in problem)
    n = len(p)
    A = [
        [p[y] * J[y][x] / (p[x] * J[x][y]) if J[x][y] else math.nan for y in range(n)]
        for x in range(n)
    ]
    K = torch.zeros(n, n, dtype=torch.float64)
    for x in range(n):
        K[x, x] = J[x][x]
        for y in range(n):
            if y != x and J[x][y]:
                K[x, y] = J[x][y] if A[x][y] >= 1 else J[x][y] * A[x][y]
            if J[x][y] and A[x][y] < 1:
                K[x, x] += J[x][y] * (1 - A[x][y])
    torch.testing.assert_close(finite.metropolis_matrix(*problem), K, rtol=1e-13, atol=1e-15)
    got, want = finite.acceptance_ratio(*problem), torch.tensor(A, dtype=torch.float64)
    used = want.isfinite()
    torch.testing.assert_close(got[used], want[used], rtol=1e-13, atol=0)


def test_three_nodes_by_hand():
    """A path 0 - 1 - 2 with p = (1, 2, 3) / 6: every entry is a fraction one can check."""
    J = torch.tensor([[0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]])
    A = finite.acceptance_ratio(J, torch.tensor([1.0, 2, 3]))
    # p(1) J(1, 0) / (p(0) J(0, 1)) = 2 (1/2) / 1 = 1; p(1) J(1, 2) / (p(2) J(2, 1)) = 1 / 3.
    assert A[0, 1] == A[1, 0] == 1
    assert A[1, 2] == pytest.approx(3) and A[2, 1] == pytest.approx(1 / 3)
    K = finite.metropolis_matrix(J, torch.tensor([1.0, 2, 3]))
    want = torch.tensor([[0, 1, 0], [1 / 2, 0, 1 / 2], [0, 1 / 3, 2 / 3]], dtype=torch.float64)
    torch.testing.assert_close(K, want, rtol=1e-15, atol=1e-15)


def test_a_move_without_a_way_back_is_never_taken():
    """J(y, x) = 0 makes A(x, y) = 0; J(x, y) = 0 makes A a number that is never used."""
    J = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    p = torch.tensor([1.0, 2.0, 3.0])
    A, K = finite.acceptance_ratio(J, p), finite.metropolis_matrix(J, p)
    assert A[0, 2] == 0 and A[2, 1] == 0 and K[0, 2] == 0 and K[2, 2] == 1
    assert A[1, 2] == 1 and K[1, 2] == 0
    assert A.isfinite().all()


@settings(max_examples=60)
@given(problems, st.integers(-900, 900))
def test_only_ratios_of_p_matter(problem, exponent):
    """p times a power of two gives the same bits; p times anything the same up to rounding."""
    J, p = problem
    K = finite.metropolis_matrix(J, p)
    assert torch.equal(finite.metropolis_matrix(J, torch.ldexp(p, torch.tensor(exponent))), K)
    torch.testing.assert_close(finite.metropolis_matrix(J, p / 3), K, rtol=1e-13, atol=1e-15)


def test_tiny_probabilities_do_not_underflow():
    """A(x, y) is formed from ratios: 1e-200 times 1e-200 never comes up."""
    J = torch.tensor([[1 - 1e-200, 1e-200], [1e-200, 1 - 1e-200]], dtype=torch.float64)
    p = torch.tensor([1e-200, 1.0], dtype=torch.float64)
    assert finite.acceptance_ratio(J, p)[1, 0] == pytest.approx(1e-200, rel=1e-12, abs=0)
    # p(1) / p(0) overflows; where there is no way back that must not make a NaN.
    one_way = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    p = torch.tensor([1e-310, 1.0], dtype=torch.float64)
    assert torch.equal(finite.metropolis_matrix(one_way, p), torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_algorithm_run_by_chance_has_this_matrix(seed):
    """Propose from J, accept with min(1, A): transition counts against the rows of K."""
    J, p = random_problem(seed, n=5)
    K = finite.metropolis_matrix(J, p).numpy()
    J, p = J.numpy(), p.numpy()
    rng = np.random.default_rng(seed)
    n_draws = 40_000
    for x in range(5):
        y = rng.choice(5, size=n_draws, p=J[x])
        ratio = p[y] * J[y, x] / (p[x] * J[x, y])
        end = np.where(rng.random(n_draws) < ratio, y, x)
        counts = np.bincount(end, minlength=5)
        assert (counts[K[x] < 1e-12] == 0).all()
        likely = K[x] * n_draws > 5
        expected = K[x][likely] / K[x][likely].sum() * counts[likely].sum()
        if likely.sum() > 1:  # 15 rows: one false alarm in some 70,000 choices of the seeds
            assert stats.chisquare(counts[likely], expected).pvalue > 1e-6


def test_a_long_walk_visits_nodes_as_often_as_p_says():
    """20,000 chains from one node, past the mixing time to 1e-4: chi-square at 1e-6."""
    J, p = random_problem(5, n=6)
    K = finite.metropolis_matrix(J, p)
    steps = finite.mixing_time(K, p, 1e-4)
    generator = torch.Generator().manual_seed(5)
    x = torch.zeros(20_000, dtype=torch.long)
    for _ in range(steps):
        x = torch.multinomial(K[x], 1, generator=generator)[:, 0]
    expected = (p / p.sum()).numpy() * len(x)
    assert stats.chisquare(torch.bincount(x, minlength=6).numpy(), expected).pvalue > 1e-6


@settings(max_examples=60)
@given(problems)
def test_stationary_law_of_a_metropolis_matrix_is_its_target(problem):
    """The linear system knows nothing of p and gives it back."""
    K = finite.metropolis_matrix(*problem)
    got, want = finite.stationary(K), problem[1] / problem[1].sum()
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)


def test_stationary_law_with_nodes_that_are_left_for_good():
    """Transient nodes have probability zero, wherever they stand in the order."""
    K = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.9, 0.1], [0.0, 0.3, 0.7]], dtype=torch.float64)
    want = torch.tensor([0, 0.75, 0.25], dtype=torch.float64)
    torch.testing.assert_close(finite.stationary(K), want, rtol=0, atol=1e-14)
    turn = torch.tensor([2, 1, 0])
    got = finite.stationary(K[turn][:, turn])
    torch.testing.assert_close(got, want[turn], rtol=0, atol=1e-14)


def test_the_swap_chain_never_converges():
    """Two nodes, J always swaps, p even: A = 1, K = J, period two; it is missing aperiodicity."""
    p = torch.tensor([0.5, 0.5])
    K = finite.metropolis_matrix(SWAP, p)
    assert torch.equal(K, SWAP.double())
    assert finite.detailed_balance_error(K, p) == 0
    torch.testing.assert_close(finite.stationary(K), p.double())
    assert finite.spectral_gap(K) == pytest.approx(0, abs=1e-12)
    assert finite.distance(torch.linalg.matrix_power(K, 1001), p) == 0.5
    assert finite.mixing_time(K, p) == math.inf
    # One rejection in sight and it converges: an uneven target, or a lazy walk.
    assert (
        finite.mixing_time(finite.metropolis_matrix(SWAP, torch.tensor([1.0, 2.0])), p=[1, 2]) == 2
    )
    assert finite.mixing_time((K + torch.eye(2)) / 2, p) == 1


def test_a_graph_in_two_pieces_never_converges():
    """Balance holds, p is stationary, the gap is zero: it is missing irreducibility."""
    piece = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    K = finite.metropolis_matrix(torch.block_diag(piece, piece), p)
    assert finite.detailed_balance_error(K, p) <= 1e-15
    assert finite.spectral_gap(K) == pytest.approx(0, abs=1e-12)
    assert finite.mixing_time(K, p) == math.inf
    # The worst start is in the piece of mass 0.3 and never reaches the other 0.7.
    far = finite.distance(torch.linalg.matrix_power(K, 10_000), p)
    assert far == pytest.approx(0.7, abs=1e-7)  # p is float32 here
    with pytest.raises(ValueError, match="K: 2 sets of nodes cannot be left"):
        finite.stationary(K)


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.2), (0.01, 0.002), (0.9, 0.8)])
@pytest.mark.parametrize("epsilon", [0.25, 0.01])
def test_two_nodes_in_closed_form(a, b, epsilon):
    """lambda = 1 - a - b, and the distance after t steps is max(p) |lambda|^t."""
    K = torch.tensor([[1 - a, a], [b, 1 - b]], dtype=torch.float64)
    p = torch.tensor([b, a], dtype=torch.float64)
    rate, top = abs(1 - a - b), max(a, b) / (a + b)
    assert finite.spectral_gap(K) == pytest.approx(1 - rate)
    want = math.ceil(math.log(epsilon / top) / math.log(rate))
    assert finite.mixing_time(K, p, epsilon) == want
    torch.testing.assert_close(finite.stationary(K), p / p.sum())


@settings(max_examples=60)
@given(problems, st.floats(0.01, 0.6))
def test_mixing_time_is_the_first_step_near_enough(problem, epsilon):
    """Bisection over squared powers against one step after the other."""
    J, p = problem
    K = finite.metropolis_matrix(J, p)
    found = finite.mixing_time(K, p, epsilon)
    power, p = torch.eye(len(p), dtype=torch.float64), p / p.sum()
    for t in range(2001):
        if 0.5 * (power - p).abs().sum(1).max() <= epsilon:
            assert found == t
            return
        power = power @ K
    assert found > 2000


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.floats(0.01, 0.4))
def test_mixing_time_lies_between_the_bounds_of_the_gap(seed, lazy, epsilon):
    """(t_rel - 1) log(1/2e) <= t_mix <= t_rel log(1/(e p_min)), for reversible chains
    (Levin and Peres, theorems 12.4 and 12.5), with t_rel from the largest modulus."""
    J, p = random_problem(seed, lazy=lazy)
    K = finite.metropolis_matrix(J, p)
    gap = finite.spectral_gap(K)
    if gap < 1e-9:  # p may come out such that a two-node walk swaps always
        return
    steps = finite.mixing_time(K, p, epsilon)
    smallest = float((p / p.sum()).min())
    assert steps >= (1 / gap - 1) * math.log(1 / (2 * epsilon)) - 1e-6
    assert steps <= math.ceil(math.log(1 / (epsilon * smallest)) / gap + 1e-6)


def test_long_mixing_times_are_exact():
    """A bottleneck of 1e-7: rounding does not grow with the millions of steps."""
    a = 1e-7
    K = torch.tensor([[1 - a, a], [a, 1 - a]], dtype=torch.float64)
    want = math.ceil(math.log(0.5) / math.log1p(-2 * a))
    assert abs(finite.mixing_time(K, torch.ones(2)) - want) <= 1  # 3.5 million steps


@pytest.mark.parametrize(
    ("J", "message"),
    [
        ([[0.5, 0.4], [0.5, 0.5]], "J: expected rows that sum to one .* row 0 sums to 0.9"),
        ([[1.5, -0.5], [0.5, 0.5]], "J: expected finite numbers >= 0"),
        ([[math.nan, 1.0], [0.5, 0.5]], "J: expected finite numbers >= 0"),
        ([[0.5, 0.5]], r"J: expected shape \(n, n\).*\(1, 2\)"),
        ([0.5, 0.5], r"J: expected shape \(n, n\)"),
    ],
)
def test_a_proposal_that_is_none_is_named(J, message):
    with pytest.raises(ValueError, match=message):
        finite.metropolis_matrix(torch.tensor(J), torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match=message):
        finite.acceptance_ratio(torch.tensor(J), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([0.5, 0.3, 0.2], r"p: expected shape \(2,\) for 2 nodes; got \(3,\)"),
        ([[0.5, 0.5]], r"p: expected shape \(2,\)"),
        ([1.0, 0.0], "p: expected finite numbers > 0"),
        ([1.0, -1.0], "p: expected finite numbers > 0"),
        ([1.0, math.nan], "p: expected finite numbers > 0"),
        ([1.0, math.inf], "p: expected finite numbers > 0"),
        ([1e-300, 1e300], "p: spans more orders"),
    ],
)
def test_a_target_that_is_none_is_named(p, message):
    p = torch.tensor(p, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        finite.metropolis_matrix(SWAP, p)
    with pytest.raises(ValueError, match=message):
        finite.mixing_time(SWAP, p)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match="weights: node 1 has no edge"):
        finite.graph_walk(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="p: expected the stationary law of K"):
        finite.mixing_time(SWAP, torch.tensor([1.0, 2.0]))
    for epsilon in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="epsilon: expected between 0 and 1"):
            finite.mixing_time(SWAP, torch.tensor([0.5, 0.5]), epsilon)


def test_one_node_is_there_already():
    one = torch.ones(1, 1)
    assert finite.spectral_gap(one) == 1 and finite.mixing_time(one, torch.ones(1)) == 0
    assert torch.equal(finite.stationary(one), torch.ones(1, dtype=torch.float64))
