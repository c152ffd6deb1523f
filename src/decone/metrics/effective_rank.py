"""How many directions a table uses: entropy and energy of its singular values, not centred, as in `singular_decay`.

Effective rank is from Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (EUSIPCO 2007).
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from decone.metrics.spectrum import singular_decay


def effective_rank(weight: Float[Tensor, "V H"]) -> float:
    """Compute the effective rank of a table.

    Args:
        weight: One row per token.

    Returns:
        A number from 1 (all rows are parallel) to min(V, H) (all singular values are equal).

    Raises:
        ValueError: If `weight` is not a finite, non-empty table, or all its entries are 0.

    Example:
        >>> round(effective_rank(torch.eye(3)), 6), round(effective_rank(torch.ones(5, 3)), 6)
        (3.0, 1.0)
    """
    return effective_rank_of(singular_decay(weight))


def effective_rank_of(values: Float64[Tensor, " R"]) -> float:
    """Compute exp(-sum p log p) with p the singular values divided by their sum.

    Args:
        values: Singular values up to any positive factor, >= 0.

    Returns:
        A number in [1, R].

    Raises:
        ValueError: If no value is positive, or one is negative or not finite.

    Example:
        >>> round(effective_rank_of(torch.tensor([2.0, 2.0, 0.0], dtype=torch.float64)), 6)
        2.0
    """
    _require_values(values)
    share = values / values.max()
    share = share / share.sum()
    return float(torch.special.entr(share).sum().exp())


def energy_share(values: Float64[Tensor, " R"], first: int) -> float:
    """Compute the share of the squared singular values that lies in the first of them.

    Args:
        values: Falling singular values up to any positive factor, >= 0.
        first: How many, at least 1; all when there are fewer.

    Returns:
        A share in (0, 1].

    Raises:
        ValueError: As of `effective_rank_of`, or `first` is below 1.

    Example:
        >>> energy_share(torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64), first=1)
        0.5
    """
    _require_values(values)
    if first < 1:
        raise ValueError(f"first must be at least 1, not {first}")
    energy = (values / values.max()).square()
    return min(1.0, float(energy[:first].sum() / energy.sum()))


def _require_values(values: Float64[Tensor, " R"]) -> None:
    if not len(values) or not bool(torch.isfinite(values).all()) or bool((values < 0).any()) or not bool(values.any()):
        raise ValueError("singular values must be finite, not negative and not all 0: pass those of a trained table")
