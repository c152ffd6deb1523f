"""Cosine similarity between rows of a table: neighbours, translations, groups.

A row of zeros has no direction; its cosine with anything is taken as 0. Cosines are float64, rounded to 12 decimals, so
that equal rows tie whatever the order in which a machine adds.
"""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from decone.metrics.inputs import require_table, row_blocks


def cosine_matrix(weight: Float[Tensor, "V H"]) -> Float64[Tensor, "V V"]:
    """Compute the cosine of every pair of rows; the result holds V x V entries of 8 bytes.

    Args:
        weight: One row per token.

    Returns:
        Symmetric cosines in [-1, 1].

    Raises:
        ValueError: If `weight` is not a finite, non-empty table.

    Example:
        >>> cosine_matrix(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])).tolist()[0]
        [1.0, 0.0, -1.0]
    """
    require_table(weight)
    rows = weight.detach().double()
    return _cosine(rows, rows)


def neighbours(weight: Float[Tensor, "V H"], ids: Int[Tensor, " M"], k: int = 3) -> list[list[tuple[int, float]]]:
    """Find the k rows nearest in cosine to each asked row, itself left out.

    Args:
        weight: One row per token.
        ids: The rows asked for.
        k: How many neighbours; fewer come back when the table has fewer other rows.

    Returns:
        For each id its (neighbour, cosine) pairs, nearest first, equal cosines by rising id.

    Raises:
        ValueError: If `weight` is not a finite, non-empty table, an id is outside it, or k is below 1.

    Example:
        >>> neighbours(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), torch.tensor([0]), k=1)
        [[(2, 1.0)]]
    """
    require_table(weight)
    _require_rows(weight, ids)
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    asked = weight.detach()[ids].double()
    cosine = torch.cat([_cosine(asked, block) for block in row_blocks(weight)], dim=1)
    cosine[torch.arange(len(ids)), ids] = -torch.inf
    near = torch.sort(cosine, dim=1, descending=True, stable=True)
    kept = min(k, len(weight) - 1)
    return [
        list(zip(row.tolist(), value.tolist(), strict=True))
        for row, value in zip(near.indices[:, :kept], near.values[:, :kept], strict=True)
    ]


def translation_alignment(weight: Float[Tensor, "V H"], high: Int[Tensor, " M"], low: Int[Tensor, " M"]) -> float:
    """Compute the share of low-resource rows whose nearest high-resource row, by cosine, is their own translation.

    Args:
        weight: One row per token, both languages in it.
        high: Ids of the high-resource tokens.
        low: Ids of their translations, in the same order.

    Returns:
        A share in [0, 1]. A tie with another row does not count, so a collapsed table scores 0.

    Raises:
        ValueError: If `weight` is not a finite, non-empty table, an id is outside it, or `high` and `low` do not pair.

    Example:
        >>> table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 1.0], [1.0, 0.0]])
        >>> translation_alignment(table, torch.tensor([0, 1]), torch.tensor([2, 3]))
        0.5
    """
    require_table(weight)
    if high.shape != low.shape or high.ndim != 1 or high.numel() == 0:
        raise ValueError(
            f"high {tuple(high.shape)} and low {tuple(low.shape)} must be vectors of equal, positive length"
        )
    _require_rows(weight, high)
    _require_rows(weight, low)
    table = weight.detach()
    cosine = _cosine(table[low].double(), table[high].double())
    own = cosine.diagonal().clone()
    others = cosine.fill_diagonal_(-torch.inf).amax(1)
    return int((own > others).sum()) / len(own)


def mean_cosine(a: Float[Tensor, "N H"], b: Float[Tensor, "M H"]) -> float:
    """Average the cosine over all pairs of a row of one group and a row of another, as mean(unit a) . mean(unit b).

    Args:
        a: Rows of one group, for instance the rare tokens.
        b: Rows of the other, for instance the frequent tokens.

    Returns:
        A cosine in [-1, 1].

    Raises:
        ValueError: If a group is not a finite, non-empty table, or their widths differ.

    Example:
        >>> mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[5.0, 0.0]]))
        0.5
    """
    require_table(a)
    require_table(b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the groups have widths {a.shape[1]} and {b.shape[1]}: take both from one table")
    return float((_mean_unit(a) @ _mean_unit(b)).clamp(-1.0, 1.0))


def _cosine(a: Float64[Tensor, "N H"], b: Float64[Tensor, "M H"]) -> Float64[Tensor, "N M"]:
    return (_unit(a) @ _unit(b).T).round_(decimals=12).clamp_(-1.0, 1.0)


def _unit(rows: Float64[Tensor, "N H"]) -> Float64[Tensor, "N H"]:
    largest = rows.abs().amax(1, keepdim=True)
    scaled = rows / largest.where(largest > 0, 1.0)  # squares of tiny or huge entries would leave float64
    length: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / length.where(length > 0, 1.0)


def _mean_unit(rows: Float[Tensor, "N H"]) -> Float64[Tensor, " H"]:
    return torch.stack([_unit(block).sum(0) for block in row_blocks(rows)]).sum(0) / len(rows)


def _require_rows(weight: Float[Tensor, "V H"], ids: Int[Tensor, " M"]) -> None:
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= len(weight)):
        raise ValueError(f"ids must lie in 0 to {len(weight) - 1}, not {int(ids.min())} to {int(ids.max())}")
