"""p-values, two-sided, of a deviation from a known number, where normal tails would not do.

A mean of skewed numbers passes four standard errors more often on one side than a normal variable
does. Here the skewness is either known, or taken out, or the law is exact.
"""

import math

import numpy as np
from scipy import stats
from torch import Tensor


def of_all(p) -> float:
    """Of several comparisons at once: their number times the least (Bonferroni), to two digits."""
    p = np.asarray(list(p), float)
    return float(f"{min(1.0, len(p) * p.min()):.2g}")


def of_mean(x: Tensor, truth: float) -> float:
    """Of the mean of independent x `(n,)`: Student's law of Hall's T, whose skewness is gone.

    With t the usual ratio and g the skewness of x over sqrt(n),
    T = t + g (1 + 2 t^2) / 6 + g^2 t^3 / 27 (Hall 1992, J. R. Statist. Soc. B 54, 221-228).
    """
    x = x.double().cpu().numpy()
    root = math.sqrt(len(x))
    t = (x.mean() - truth) / x.std(ddof=1) * root
    g = stats.skew(x) / root
    hall = t + g * (1 + 2 * t**2) / 6 + g**2 * t**3 / 27
    return 2 * float(stats.t.sf(abs(hall), len(x) - 1))


def of_known(z: float, skewness: float) -> float:
    """Of a mean that is z exact standard errors off: Pearson's type III of its exact skewness."""
    law = stats.pearson3(skewness)
    return 2 * float(min(law.cdf(z), law.sf(z), 0.5))


def of_waiting(n_proposals: int, n_kept: int, share: float) -> float:
    """Of the proposals up to the n-th that was kept, each with this chance: negative binomial."""
    law, missed = stats.nbinom(n_kept, share), n_proposals - n_kept
    return 2 * float(min(law.cdf(missed), law.sf(missed - 1), 0.5))
