"""Frequent, medium and rare tokens: a split of the vocabulary by rank of training frequency."""

import itertools
import math

import torch
from jaxtyping import Int64, Integer
from torch import Tensor

NAMES = ("frequent", "medium", "rare")


def frequency_groups(
    counts: Integer[Tensor, " V"], shares: tuple[float, float, float] = (0.3, 0.5, 0.2)
) -> dict[str, Int64[Tensor, " M"]]:
    """Split the vocabulary's types into frequent, medium and rare by rank of their count.

    Ranks run by falling count, equal counts by rising id. A group is a half-open range of ranks whose borders are the
    cumulative shares times V, rounded (halves to even); the shares are of types, not of occurrences. A group may be
    empty when V is small. The 30/50/20 split is that of Yu et al. 2022 (AGG), section 3.

    Args:
        counts: Occurrences per token id.
        shares: Share of the types in each group, summing to 1.

    Returns:
        Rising token ids under "frequent", "medium" and "rare"; together every id exactly once.

    Raises:
        ValueError: If `counts` is not a vector, or the shares are not three non-negative numbers that sum to 1.

    Example:
        >>> groups = frequency_groups(torch.tensor([5, 0, 9, 1, 1, 1, 0, 2, 0, 3]))
        >>> {name: ids.tolist() for name, ids in groups.items()}
        {'frequent': [0, 2, 9], 'medium': [1, 3, 4, 5, 7], 'rare': [6, 8]}
    """
    if counts.ndim != 1:
        raise ValueError(f"counts must have one entry per token, not shape {tuple(counts.shape)}")
    if len(shares) != len(NAMES) or not all(share >= 0 for share in shares) or not math.isclose(sum(shares), 1.0):
        raise ValueError(f"shares must be three non-negative numbers that sum to 1, not {shares}")
    size = counts.numel()
    ranked = torch.sort(counts, descending=True, stable=True).indices
    inner = [round(math.fsum(shares[:end]) * size) for end in (1, 2)]
    borders = itertools.pairwise([0, *inner, size])
    return {name: ranked[low:high].sort().values for name, (low, high) in zip(NAMES, borders, strict=True)}
