"""Restricted Boltzmann machines: an energy of bits whose hidden half can be summed out.

    E(v, h) = -b.v - c.h - v.W h,   v in {0, 1}^d, h in {0, 1}^m             (Smolensky 1986)
    F(v) = -log sum_h e^{-E(v, h)} = -b.v - sum_j log(1 + e^{(c + v W)_j})

Lower energy is likelier: p(v) = e^{-F(v)} / Z. The free energy F is the energy of v alone, and what
a machine gives when it is called. So the methods of `ebmref.likelihood` take one as it is: `exact`
with `log_z`, chains with `gibbs` for their kernel, `noise_contrastive` with `Bits`. Those that need
slopes by v, such as Langevin steps and score matching, have no meaning for bits.

Given one half, the units of the other are independent, so that Gibbs sampling moves a half at once.
Z is a sum over the states of the smaller half, where these are few enough. What was learned can be
checked in two ways: by the exact likelihood, or by log Z from annealing, from either end.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ebmref.checks import check_draws, check_tensors, positive_number, whole_number
from ebmref.samplers.importance import Importance, weighted_estimate
from ebmref.samplers.kernels import Kernel, Point
from ebmref.samplers.noise import uniform

# States that are summed at once, and units of the smaller half beyond which none are.
_CHUNK, _MOST = 2**12, 24


class RBM(nn.Module):
    """A machine; called on v `(n, d)` it gives the free energy F `(n,)`.

    Args:
        n_visible, n_hidden: d and m, >= 1.
        generator: draws the weights; its device is theirs.
        scale: > 0, standard deviation of W at first; biases begin at zero.

    Attributes:
        weight: W `(d, m)`.
        visible, hidden: the biases b `(d,)` and c `(m,)`.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self, n_visible: int, n_hidden: int, generator: torch.Generator, scale: float = 0.01
    ):
        super().__init__()
        d, m = whole_number("n_visible", n_visible, 1), whole_number("n_hidden", n_hidden, 1)
        scale = positive_number("scale", scale)
        weight = scale * torch.randn(d, m, generator=generator, device=generator.device)
        self.weight = nn.Parameter(weight)
        self.visible = nn.Parameter(torch.zeros_like(weight[:, 0]))
        self.hidden = nn.Parameter(torch.zeros_like(weight[0]))

    def forward(self, v: Tensor) -> Tensor:
        """F(v), `(n, d)` to `(n,)`."""
        return -v @ self.visible - functional.softplus(self.hidden_logits(v)).sum(-1)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), of `(n, d)` and `(n, m)` to `(n,)`."""
        return -v @ self.visible - h @ self.hidden - ((v @ self.weight) * h).sum(-1)

    def hidden_logits(self, v: Tensor) -> Tensor:
        """Log-odds of each hidden unit being 1 given v, `(n, d)` to `(n, m)`."""
        return self.hidden + v @ self.weight

    def visible_logits(self, h: Tensor) -> Tensor:
        """Log-odds of each visible unit being 1 given h, `(n, m)` to `(n, d)`."""
        return self.visible + h @ self.weight.T


class Bits:
    """Independent bits: a noise for chains and for noise contrast, `sample` and `log_prob`.

    Args:
        log_odds: `(d,)`, of each being 1; zeros make all states equally likely.

    Raises:
        ValueError: log-odds of another shape, or not finite.
    """

    def __init__(self, log_odds: Tensor):
        check_tensors(log_odds=log_odds)
        if log_odds.dim() != 1 or not log_odds.isfinite().all():
            raise ValueError(f"log_odds: expected (d,), finite; got {tuple(log_odds.shape)}")
        self.log_odds = log_odds.detach()

    @classmethod
    def of_data(cls, v: Tensor, smooth: float = 1.0) -> "Bits":
        """Bits with the means of the data.

        Args:
            v: `(n, d)` of zeros and ones.
            smooth: > 0; each bit is counted as 1 and as 0 so many times more than it was, so that
                one which never changes has finite log-odds.

        Raises:
            ValueError: a smooth that is not > 0.
        """
        ones = v.sum(0) + positive_number("smooth", smooth)
        return cls((ones / (len(v) + 2 * smooth - ones)).log())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws, `(n, d)`."""
        logits = self.log_odds.expand(n, -1)
        return _toss(logits, torch.rand(logits.shape, generator=generator, **_like(logits)))

    def log_prob(self, v: Tensor) -> Tensor:
        """Log probabilities, `(n, d)` to `(n,)`."""
        return v @ self.log_odds - functional.softplus(self.log_odds).sum()


def gibbs(rbm: RBM) -> Kernel:
    """Block Gibbs: all hidden units given v, then all visible ones given these; no rejection.

    A kernel on v alone, reversible, for `ebmref.samplers.sample` and the chains of
    `ebmref.likelihood`. Chains start at `(n, d)` of zeros and ones.

    Raises:
        ValueError: anything but an `RBM`, such as its energy times a beta; in use, a start of
            another shape or other numbers.
    """
    if not isinstance(rbm, RBM):
        raise ValueError(f"energy: expected an RBM, at beta = 1; got {type(rbm).__name__}")

    def init(x, generator):
        check_bits("x0", x, len(rbm.visible))
        return Point(x, rbm(x))

    def draw(n_steps, x, generator, out=None):
        one, other = out or (None, None)
        m = len(rbm.hidden)
        return (
            uniform((n_steps, len(x), m), x, generator, one),
            uniform((n_steps, *x.shape), x, generator, other),
        )

    def step(state, noise, step_size):
        h = _toss(rbm.hidden_logits(state.x), noise[0])
        v = _toss(rbm.visible_logits(h), noise[1])
        return Point(v, rbm(v)), torch.ones_like(state.energy)

    per_number = 1 + math.ceil(len(rbm.hidden) / len(rbm.visible))
    return Kernel("gibbs", init, draw, step, None, 0, 1, per_number, False, rbm)


def _toss(logits: Tensor, u: Tensor) -> Tensor:
    """Bits that are 1 with probability sigmoid(logits)."""
    return (u < logits.sigmoid()).to(logits.dtype)


def check_bits(name: str, v: Tensor, d: int) -> None:
    """Raise ValueError unless v is `(n, d)` of zeros and ones."""
    check_tensors(**{name: v})
    if v.dim() != 2 or v.shape[1] != d or not ((v == 0) | (v == 1)).all():
        raise ValueError(f"{name}: expected (n, {d}) of zeros and ones; got {tuple(v.shape)}")


# By enumeration ------------------------------------------------------------------------------


def states(d: int, like: Tensor) -> Tensor:
    """All of {0, 1}^d, `(2^d, d)`, in the dtype and on the device of `like`.

    Raises:
        ValueError: d < 1, or d > 24.
    """
    if whole_number("d", d, 1) > _MOST:
        raise ValueError(f"d: 2^{d} states are too many; expected at most {_MOST} bits")
    return _states(d, 0, 2**d, like)


def _states(d: int, start: int, stop: int, like: Tensor) -> Tensor:
    number = torch.arange(start, stop, device=like.device)[:, None]
    return (number >> torch.arange(d, device=like.device) & 1).to(like.dtype)


def log_z(rbm: RBM) -> Tensor:
    """log of the sum of e^{-F(v)} over all v, exactly, 0-d in double precision.

        Z = sum_v e^{b.v} prod_j (1 + e^{(c + v W)_j}) = sum_h e^{c.h} prod_i (1 + e^{(b + W h)_i})

    The sum is over the states of the smaller half. It can be differentiated, so that
    `likelihood.exact_loss(rbm, v, log_z)` has the exact gradient of the likelihood. States are
    summed in chunks, which the backward pass computes again, so that memory stays small.

    Raises:
        ValueError: the smaller half has more than 24 units.
    """
    weight, own, other = _smaller_half(rbm)
    d = len(own)
    parts = [
        checkpoint(
            _log_sum, weight, own, other, start, min(start + _CHUNK, 2**d),
            use_reentrant=False, preserve_rng_state=False,
        )
        for start in range(0, 2**d, _CHUNK)
    ]  # fmt: skip
    return torch.stack(parts).logsumexp(0)


def _smaller_half(rbm: RBM) -> tuple[Tensor, Tensor, Tensor]:
    """W from the smaller half on, that half's biases and the other's, in double precision."""
    weight, b, c = rbm.weight.double(), rbm.visible.double(), rbm.hidden.double()
    weight, own, other = (weight, b, c) if len(b) < len(c) else (weight.T, c, b)
    if len(own) > _MOST:
        raise ValueError(
            f"rbm: expected {_MOST} units or fewer in the smaller half, to sum over; it has "
            f"{len(own)}"
        )
    return weight, own, other


def _log_sum(weight, own, other, start, stop):
    """Over some states of the smaller half."""
    x = _states(len(own), start, stop, own)
    return (-_free(x, weight, own, other)).logsumexp(0)


def _free(x, weight, own, other):
    return -x @ own - functional.softplus(other + x @ weight).sum(-1)


@torch.no_grad()
def exact_draws(rbm: RBM, n: int, generator: torch.Generator) -> Tensor:
    """n independent draws of v, `(n, d)`: the smaller half by enumeration, the other given it.

    Raises:
        ValueError: n < 1, or the smaller half has more than 24 units.
    """
    check_draws(n, 1, generator)
    weight, own, other = _smaller_half(rbm)
    d = len(own)
    log_p = torch.cat(
        [
            -_free(_states(d, start, min(start + _CHUNK, 2**d), own), weight, own, other)
            for start in range(0, 2**d, _CHUNK)
        ]
    )
    # By the cumulated sum: `torch.multinomial` takes no more than 2^24 classes. It is made on the
    # CPU, as on a GPU it does not repeat.
    total = log_p.softmax(0).cpu().cumsum(0).to(own.device)
    u = torch.rand(n, generator=generator, dtype=torch.float64, device=own.device)
    chosen = torch.searchsorted(total, u * total[-1], right=True).clamp(max=2**d - 1)
    half = (chosen[:, None] >> torch.arange(d, device=own.device) & 1).to(rbm.weight.dtype)
    if len(rbm.visible) < len(rbm.hidden):
        return half
    logits = rbm.visible_logits(half)
    return _toss(logits, torch.rand(logits.shape, generator=generator, **_like(logits)))


# By annealing --------------------------------------------------------------------------------


@torch.no_grad()
def annealed_log_z(
    rbm: RBM, n: int, n_betas: int, generator: torch.Generator, base: Bits | None = None
) -> Importance:
    """log Z by annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008).

    The path leads from independent bits to the machine through machines with the weights t W, the
    hidden biases t c and the visible ones t b + (1 - t) base, t = 1/T .. 1:

        v ~ base,  log w = log Z_0;   for t = 1 .. T:  log w += F_{t-1}(v) - F_t(v);  Gibbs under t

    E[w] = Z, so that the log of the mean weight is on average below log Z.

    Args:
        n: >= 2 particles.
        n_betas: T, >= 1 steps, evenly spaced.
        base: None for fair bits; `Bits.of_data` of what the machine has learned is mostly nearer to
            it, and so better.

    Returns:
        An `Importance`: `log_z` is the estimate, `log_z_se` its standard error; `value` and `se`
        mean nothing here.

    Raises:
        ValueError: n < 2, n_betas < 1, or a base of another number of bits.
    """
    check_draws(n, 2, generator)
    whole_number("n_betas", n_betas, 1)
    base = _base(rbm, base)
    v = base.sample(n, generator).to(rbm.weight.dtype)
    log_w = torch.full((n,), _log_z_of_base(rbm, base), dtype=torch.float64, device=v.device)
    for t in range(1, n_betas + 1):
        log_w += _at(rbm, base, (t - 1) / n_betas)(v) - _at(rbm, base, t / n_betas)(v)
        if t < n_betas:
            v = _gibbs_step(_at(rbm, base, t / n_betas), v, generator)
    return weighted_estimate(torch.ones_like(log_w), log_w)


@torch.no_grad()
def reverse_annealed_log_z(
    rbm: RBM, draws: Tensor, n_betas: int, generator: torch.Generator, base: Bits | None = None
) -> Importance:
    """log Z by the same path walked back from draws of the machine (Grosse et al. 2015).

    The mean weight is 1 / Z without a bias, so that this estimate of log Z is high on average: with
    `annealed_log_z` it brackets the truth. That holds for exact draws, such as `exact_draws`; those
    of a chain that has not mixed prove nothing.

    Args:
        draws: `(n, d)`, n >= 2, of the machine.
        rbm, n_betas, generator, base: as for `annealed_log_z`.

    Returns:
        An `Importance`, as `annealed_log_z`.

    Raises:
        ValueError: draws that are not `(n, d)` of zeros and ones, n < 2, n_betas < 1, or a base of
            another number of bits.
    """
    check_bits("draws", draws, len(rbm.visible))
    check_draws(len(draws), 2, generator, "len(draws)")
    whole_number("n_betas", n_betas, 1)
    base = _base(rbm, base)
    v = draws.to(rbm.weight.dtype)
    log_w = torch.full((len(v),), -_log_z_of_base(rbm, base), dtype=torch.float64, device=v.device)
    for t in range(n_betas, 0, -1):
        log_w += _at(rbm, base, t / n_betas)(v) - _at(rbm, base, (t - 1) / n_betas)(v)
        if t > 1:
            v = _gibbs_step(_at(rbm, base, (t - 1) / n_betas), v, generator)
    found = weighted_estimate(torch.ones_like(log_w), log_w)
    return found._replace(log_z=-found.log_z)


def _base(rbm: RBM, base: Bits | None) -> Bits:
    base = Bits(torch.zeros_like(rbm.visible)) if base is None else base
    if base.log_odds.shape != rbm.visible.shape:
        raise ValueError(
            f"base: expected {len(rbm.visible)} bits; got {tuple(base.log_odds.shape)}"
        )
    return base


def _log_z_of_base(rbm: RBM, base: Bits) -> float:
    """At t = 0 the hidden units are free: each doubles the sum."""
    visible = functional.softplus(base.log_odds.double()).sum()
    return float(visible) + len(rbm.hidden) * math.log(2)


class _At:
    """The machine of a place on the path; its free energy in double precision."""

    def __init__(self, weight: Tensor, visible: Tensor, hidden: Tensor):
        self.weight, self.visible, self.hidden = weight, visible, hidden

    def __call__(self, v: Tensor) -> Tensor:
        wide = (part.double() for part in (v, self.weight, self.visible, self.hidden))
        v, weight, visible, hidden = wide
        return _free(v, weight, visible, hidden)


def _at(rbm: RBM, base: Bits, t: float) -> _At:
    visible = t * rbm.visible + (1 - t) * base.log_odds
    return _At(t * rbm.weight, visible, t * rbm.hidden)


def _gibbs_step(at: _At, v: Tensor, generator: torch.Generator) -> Tensor:
    logits = at.hidden + v @ at.weight
    h = _toss(logits, torch.rand(logits.shape, generator=generator, **_like(logits)))
    logits = at.visible + h @ at.weight.T
    return _toss(logits, torch.rand(logits.shape, generator=generator, **_like(logits)))


def _like(x: Tensor) -> dict:
    return {"dtype": x.dtype, "device": x.device}
