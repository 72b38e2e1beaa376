"""How far a chain can be trusted, by ArviZ (Vehtari et al. 2021)."""

import functools
import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Diagnostics(NamedTuple):
    """One number for every component of the event, each `(*event)`.

    Attributes:
        ess: effective draws for the bulk of the law, all chains together; NaN where one of the
            chains never moved, as a constant draws nothing.
        ess_tail: effective draws for its 5 % and 95 % quantiles; NaN likewise.
        rhat: rank-normalised split R-hat; above 1.01 the chains disagree. NaN where all chains
            stand still.
    """

    ess: Tensor
    ess_tail: Tensor
    rhat: Tensor


def diagnose(chain) -> Diagnostics:
    """ESS and R-hat of a chain; needs two chains and four draws, or more.

    Draws of half precision are taken as float32, with the ties that they have.

    Raises:
        ValueError: fewer chains or draws than that.

    Warns:
        RuntimeWarning: chains that stand still in some component.
    """
    n_draws, n_chains = chain.samples.shape[:2]
    if n_draws < 4 or n_chains < 2:
        raise ValueError(
            f"chain: expected 4 draws of 2 chains or more; got {n_draws} of {n_chains}"
        )
    still = (chain.samples == chain.samples[0]).all(0).cpu()
    if still.any():
        n_still = int(still.reshape(n_chains, -1).any(1).sum())
        warnings.warn(
            f"chain: {n_still} of {n_chains} chains stand still, in one component or more, where "
            "there are no effective draws to count",
            RuntimeWarning,
            stacklevel=2,
        )
    az = arviz()
    data = chain.to_arviz()
    with np.errstate(all="ignore"):  # a variance of zero is divided by on the way to NaN
        results = (
            az.ess(data, method="bulk"),
            az.ess(data, method="tail"),
            az.rhat(data, method="rank"),
        )
    ess, ess_tail, rhat = (torch.as_tensor(result["x"].values) for result in results)
    return Diagnostics(
        torch.where(still.any(0), math.nan, ess),
        torch.where(still.any(0), math.nan, ess_tail),
        torch.where(still.all(0), math.nan, rhat),
    )


@functools.cache
def arviz():
    """ArviZ, imported where it is first needed; its yearly notice is not a user's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz as az
    return az
