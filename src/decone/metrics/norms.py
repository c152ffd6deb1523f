"""Lengths of the rows of a table, and how far the rows share one direction.

Rows of frequent and of rare tokens tend to differ in length, so lengths are looked at by frequency rank.
"""

import itertools

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from decone.metrics.inputs import require_table, row_blocks


def row_norms(weight: Float[Tensor, "V H"]) -> Float64[Tensor, " V"]:
    """Measure the Euclidean length of every row.

    Args:
        weight: One row per token.

    Returns:
        Lengths, >= 0; 0 for rows of zeros alone, however small the entries of others.

    Raises:
        ValueError: If `weight` is not a finite, non-empty table.

    Example:
        >>> row_norms(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [5.0, 0.0]
    """
    require_table(weight)
    lengths = []
    for block in row_blocks(weight):
        largest = block.abs().amax(1)
        scaled = block / largest.where(largest > 0, 1.0)[:, None]  # squares of tiny or huge entries leave float64
        lengths.append(largest * torch.linalg.vector_norm(scaled, dim=1))
    return torch.cat(lengths)


def mean_direction(weight: Float[Tensor, "V H"]) -> float:
    """Compare the length of the mean row with the mean length of the rows.

    Args:
        weight: One row per token.

    Returns:
        1 when all rows point one way, 0 when they cancel (or are all zero).

    Raises:
        ValueError: If `weight` is not a finite, non-empty table.

    Example:
        >>> mean_direction(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0]]))
        0.5
    """
    length = float(row_norms(weight).sum())
    total = torch.stack([block.sum(0) for block in row_blocks(weight)]).sum(0)
    return min(1.0, float(total.norm()) / length) if length else 0.0


def norms_by_rank(
    norms: Float64[Tensor, " n"], rank: Int64[Tensor, " n"], bins: int = 60
) -> list[tuple[float, float, float, float]]:
    """Summarise lengths by frequency rank, in bins that are evenly wide on a logarithmic axis.

    Args:
        norms: Length of each row.
        rank: Frequency rank of each row, from 1.
        bins: At most so many.

    Returns:
        By rising rank, for every bin with rows in it: their median rank, and the 25th, 50th and 75th percentile of
        their lengths.

    Raises:
        ValueError: If the vectors do not pair, or a rank or `bins` is below 1.

    Example:
        >>> norms_by_rank(torch.tensor([4.0, 2.0, 1.0]).double(), torch.tensor([1, 2, 3]), bins=2)
        [(1.0, 4.0, 4.0, 4.0), (2.5, 1.25, 1.5, 1.75)]
    """
    if norms.shape != rank.shape or bins < 1 or (rank.numel() and int(rank.min()) < 1):
        raise ValueError(
            f"norms {tuple(norms.shape)} and rank {tuple(rank.shape)} must pair, ranks and bins begin at 1"
        )
    if not rank.numel():
        return []
    order = rank.argsort(stable=True)
    ranked, lengths = rank[order].cpu().numpy(), norms[order].cpu().numpy()
    edges = np.unique(np.geomspace(1, int(ranked[-1]) + 1, bins + 1).round())
    borders = np.searchsorted(ranked, edges)
    pairs = [(low, high) for low, high in itertools.pairwise(borders) if low < high]
    return [(float(np.median(ranked[low:high])), *_quarters(lengths[low:high])) for low, high in pairs]


def _quarters(lengths: NDArray[np.float64]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(lengths, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)
