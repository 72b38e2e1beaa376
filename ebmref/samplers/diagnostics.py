"""How far a chain can be trusted, by ArviZ (Vehtari et al. 2021)."""

import functools
import warnings
from typing import NamedTuple

import torch
from torch import Tensor


class Diagnostics(NamedTuple):
    """One number for every component of the event, each `(*event)`.

    Attributes:
        ess: effective draws for the bulk of the law, all chains together.
        ess_tail: effective draws for its 5 % and 95 % quantiles.
        rhat: rank-normalised split R-hat; above 1.01 the chains disagree.
    """

    ess: Tensor
    ess_tail: Tensor
    rhat: Tensor


def diagnose(chain) -> Diagnostics:
    """ESS and R-hat of a chain; needs two chains and four draws, or more.

    Raises:
        ValueError: fewer chains or draws than that.
    """
    n_draws, n_chains = chain.samples.shape[:2]
    if n_draws < 4 or n_chains < 2:
        raise ValueError(
            f"chain: expected 4 draws of 2 chains or more; got {n_draws} of {n_chains}"
        )
    az = arviz()
    data = chain.to_arviz()
    results = (
        az.ess(data, method="bulk"),
        az.ess(data, method="tail"),
        az.rhat(data, method="rank"),
    )
    return Diagnostics(*(torch.as_tensor(result["x"].values) for result in results))


@functools.cache
def arviz():
    """ArviZ, imported where it is first needed; its yearly notice is not a user's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz as az
    return az
