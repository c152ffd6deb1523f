"""Cosine neighbours of rows: in one table, between translations, and before and after a change of the table.

A row of zeros has no direction; its cosine with anything is taken as 0. Cosines are float64, rounded to 12 decimals,
so that equal rows tie whatever the order in which a machine adds; ties go by rising id. Functions of a weight [V, H],
one row per token, raise ValueError where it is empty or not finite. A row's neighbours can be compared between tables
of any widths, and between tables that are only rotated against each other, where the row's own cosine says nothing.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64
from torch import Tensor
from torch.nn import functional as F

from decone.metrics.table_geometry import require_table, row_blocks

TINY = 1e-150  # shorter rows have no direction; their squares leave float64
MOST_ROWS = 1 << 22  # cosine and id must fit in 63 bits
COSINES = 1 << 23  # computed at once: 64 MiB in float64


class RowChanges(NamedTuple):
    """Change of each row of a block: its cosine, both lengths, equality; NaN where one of the rows is not finite."""

    # of the row with itself, in [-1, 1]; 1 for a row that did not change, zero or not, and 0 for one that is
    # zero in only one of the tables
    cosine: Float64[Tensor, " n"]
    before: Float64[Tensor, " n"]
    after: Float64[Tensor, " n"]
    same: Bool[Tensor, " n"]


def cosine_matrix(weight: Float[Tensor, "V H"]) -> Float64[Tensor, "V V"]:
    """Computes the cosine in [-1, 1] of every pair of rows; the result holds V x V entries of 8 bytes.

    Example:
        >>> cosine_matrix(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])).tolist()[0]
        [1.0, 0.0, -1.0]
    """
    require_table(weight)
    rows = weight.detach().double()
    return _cosine(rows, rows)


def neighbours(weight: Float[Tensor, "V H"], ids: Int[Tensor, " M"], k: int = 3) -> list[list[tuple[int, float]]]:
    """Finds the k rows nearest in cosine to each of some rows, itself left out, as (neighbour, cosine), nearest first.

    Raises:
        ValueError: an id is outside the table, or k is below 1.

    Example:
        >>> neighbours(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), torch.tensor([0]), k=1)
        [[(2, 1.0)]]
    """
    require_table(weight)
    _require_rows(weight, ids)
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    rows = weight.detach()[ids].double()
    cosine = torch.cat([_cosine(rows, block) for block in row_blocks(weight)], dim=1)
    cosine[torch.arange(len(ids)), ids] = -torch.inf
    nearest = torch.sort(cosine, dim=1, descending=True, stable=True)
    count = min(k, len(weight) - 1)
    return [
        list(zip(row.tolist(), value.tolist(), strict=True))
        for row, value in zip(nearest.indices[:, :count], nearest.values[:, :count], strict=True)
    ]


def translation_alignment(weight: Float[Tensor, "V H"], high: Int[Tensor, " M"], low: Int[Tensor, " M"]) -> float:
    """Share of low-resource rows whose nearest high-resource row, by cosine, is their own translation.

    `low` holds ids of the translations of `high`, in its order. A tie with another row does not count, so a collapsed
    table scores 0.

    Raises:
        ValueError: an id is outside the table, or `high` and `low` do not pair.

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
    translation = cosine.diagonal().clone()
    nearest = cosine.fill_diagonal_(-torch.inf).amax(1)
    return int((translation > nearest).sum()) / len(translation)


def row_changes(before: Float[Tensor, "n H"], after: Float[Tensor, "n H"]) -> RowChanges:
    """Compares the rows of two tables of one width, row by row, in float64.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> change = row_changes(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
        >>> change.cosine.tolist(), change.after.tolist(), change.same.tolist()
        ([0.0, 1.0], [2.0, 0.0], [False, True])
    """
    if before.shape != after.shape or before.ndim != 2:
        raise ValueError(
            f"the rows have shapes {tuple(before.shape)} and {tuple(after.shape)}; compare tables of one width"
        )
    a, b = before.detach().double(), after.detach().double()
    same = (a == b).all(1)
    first, second = torch.linalg.vector_norm(a, dim=1), torch.linalg.vector_norm(b, dim=1)
    cosine = torch.linalg.vecdot(a, b) / first.clamp(min=TINY) / second.clamp(min=TINY)
    cosine = cosine.round(decimals=12).clamp(-1.0, 1.0)
    return RowChanges(cosine.masked_fill(same, 1.0), first, second, same)


def nearest_rows(
    ids: Int[Tensor, " M"],
    rows: Float[Tensor, "M H"],
    blocks: Iterable[tuple[int, Float[Tensor, "_ H"]]],
    allowed: Bool[Tensor, " V"],
    k: int = 10,
) -> Int64[Tensor, "M K"]:
    """Finds ids of the k rows nearest in cosine to each of some rows, itself left out, in one sweep over a table.

    Nearest first; -1 where there are not so many. Blocks of the table come in any order, each with its first row's id;
    `allowed` marks the rows that may be neighbours, at most 2^22 in all.

    Raises:
        ValueError: the table has too many rows, or k is below 1.

    Example:
        >>> table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1]])
        >>> nearest_rows(torch.tensor([0]), table[:1], [(0, table)], torch.ones(3, dtype=torch.bool), k=2).tolist()
        [[2, 1]]
    """
    size = allowed.numel()
    if size > MOST_ROWS or k < 1:
        raise ValueError(f"k must be at least 1 and the table have at most {MOST_ROWS} rows, not {k} and {size}")
    unit = F.normalize(rows.detach().double(), dim=1, eps=TINY)
    lowest = torch.iinfo(torch.int64).min
    best = torch.full((ids.numel(), k), lowest)
    for start, block in _split(blocks, max(1, COSINES // max(1, ids.numel()))):
        # Rows that are not finite should not be allowed.
        cosine = torch.nan_to_num(unit @ F.normalize(block.detach().double(), dim=1, eps=TINY).T)
        candidates = torch.arange(start, start + len(block))
        # Cosine and id in one whole number: every key differs, so the k largest are the same everywhere.
        key = (cosine * 1e12).round_().long().mul_(size).sub_(candidates)
        key.masked_fill_((ids[:, None] == candidates) | ~allowed[candidates], lowest)
        best = torch.cat((best, key), dim=1).topk(k).values
    return torch.where(best == lowest, -1, (-best) % size)


def common_share(first: Int[Tensor, "M K"], second: Int[Tensor, "M K"]) -> Float64[Tensor, " M"]:
    """Computes which share of the neighbours in one list is also in a second; -1 stands for none.

    NaN where the first list is empty.

    Example:
        >>> common_share(torch.tensor([[4, 2, 7]]), torch.tensor([[2, 9, 4]])).tolist()
        [0.6666666666666666]
    """
    matches = (first[:, :, None] == second[:, None, :]) & (first >= 0)[:, :, None]
    return matches.any(2).sum(1).double() / (first >= 0).sum(1)


def neighbour_cosine(
    units: Float32[Tensor, "N H"],
    candidates: Float32[Tensor, "M H"],
    self_index: Int64[Tensor, " N"] | None = None,
    k: int = 5,
) -> Float64[Tensor, " N"]:
    """Mean cosine of each unit row with its k nearest candidates, unit rows too and more than k.

    `self_index` is the index of each row among the candidates, itself left out; -1 where it is not among them.

    Example:
        >>> rows = torch.eye(3)
        >>> neighbour_cosine(rows, rows, torch.arange(3), k=1).tolist()
        [0.0, 0.0, 0.0]
    """
    best = torch.full((len(units), k), -1.0)
    chunk = max(1, (1 << 24) // max(1, len(units)))
    for start in range(0, len(candidates), chunk):
        cosine = units @ candidates[start : start + chunk].T
        if self_index is not None:
            inside = ((self_index >= start) & (self_index < start + cosine.shape[1])).nonzero().squeeze(1)
            cosine[inside, self_index[inside] - start] = -1.0
        best = torch.cat((best, cosine), 1).topk(k, 1).values
    return best.double().mean(1)


def _split(blocks: Iterable[tuple[int, Tensor]], rows: int) -> Iterator[tuple[int, Tensor]]:
    """The same blocks in pieces of so many rows at most; a narrow table has many rows in a block."""
    for start, block in blocks:
        for offset in range(0, len(block), rows):
            yield start + offset, block[offset : offset + rows]


def _cosine(a: Float64[Tensor, "N H"], b: Float64[Tensor, "M H"]) -> Float64[Tensor, "N M"]:
    return (_unit(a) @ _unit(b).T).round_(decimals=12).clamp_(-1.0, 1.0)


def _unit(rows: Float64[Tensor, "N H"]) -> Float64[Tensor, "N H"]:
    largest = rows.abs().amax(1, keepdim=True)
    scaled = rows / largest.where(largest > 0, 1.0)  # squares of tiny or huge entries would leave float64
    length: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / length.where(length > 0, 1.0)


def _require_rows(weight: Float[Tensor, "V H"], ids: Int[Tensor, " M"]) -> None:
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= len(weight)):
        raise ValueError(f"ids must lie in 0 to {len(weight) - 1}, not {int(ids.min())} to {int(ids.max())}")
