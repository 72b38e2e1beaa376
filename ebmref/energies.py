"""Small energies in closed form, whose minima, basins and shares are known."""

import torch
from torch import Tensor


def double_well(y: Tensor, tilt: float = 0.5) -> Tensor:
    """Product of double wells: E(y) = sum_k (y_k^2 - 1)^2 + tilt * y_k.

    Each coordinate has a deep well near -1, a shallow one near +1 and a ridge between; d
    coordinates have 2^d minima, of which the one with every y_k near -1 is the global one.

    Args:
        y: `(n, d)`.
        tilt: in (0, 8 / sqrt(27)), so that both wells exist.

    Returns:
        `(n,)`.
    """
    return ((y.square() - 1).square() + tilt * y).sum(1)


def double_well_points(tilt: float = 0.5) -> tuple[float, float, float]:
    """Deep minimum, ridge and shallow minimum of one coordinate: the roots of its gradient.

    Raises:
        ValueError: the tilt is outside (0, 8 / sqrt(27)), where there is one minimum only.
    """
    if not 0 < tilt < 8 / 27**0.5:
        raise ValueError(f"tilt: expected between 0 and {8 / 27**0.5:.3f}; got {tilt}")
    # 4 y^3 - 4 y + tilt = 0; three real roots, by Viete's cosines.
    phase = torch.tensor(-tilt / 8 * 27**0.5, dtype=torch.float64).acos() / 3
    turns = torch.tensor([2.0, 4.0, 0.0], dtype=torch.float64) * torch.pi / 3
    deep, ridge, shallow = (2 / 3**0.5 * (phase + turns).cos()).tolist()
    return deep, ridge, shallow
