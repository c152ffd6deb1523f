"""How the rows of one table differ from those of another: their own direction, and the company they keep.

A row's neighbours can be compared between tables of any widths, and between tables that are only rotated against each
other, where the row's own cosine says nothing.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-150  # shorter rows have no direction; their squares leave float64
MOST_ROWS = 1 << 22  # cosine and id must fit in 63 bits
COSINES = 1 << 23  # made at once: 64 MiB in float64


class RowChanges(NamedTuple):
    """What became of each row of a block; NaN where the row is not finite in one of the tables.

    Attributes:
        cosine: of the row with itself, in [-1, 1]; 1 for a row that did not change, zero or not, and 0 for one that is
            zero in only one of the tables.
        before: its length in the first table.
        after: its length in the second.
        same: whether all its entries are equal.
    """

    cosine: Float64[Tensor, " n"]
    before: Float64[Tensor, " n"]
    after: Float64[Tensor, " n"]
    same: Bool[Tensor, " n"]


def row_changes(before: Float[Tensor, "n H"], after: Float[Tensor, "n H"]) -> RowChanges:
    """Compares the rows of two tables of one width, one by one, in float64.

    Args:
        before: rows of the first table.
        after: the same rows of the second.

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
    length, other = torch.linalg.vector_norm(a, dim=1), torch.linalg.vector_norm(b, dim=1)
    cosine = torch.linalg.vecdot(a, b) / length.clamp(min=TINY) / other.clamp(min=TINY)
    cosine = cosine.round(decimals=12).clamp(-1.0, 1.0)
    return RowChanges(cosine.masked_fill(same, 1.0), length, other, same)


def nearest_rows(
    asked: Int[Tensor, " M"],
    rows: Float[Tensor, "M H"],
    blocks: Iterable[tuple[int, Float[Tensor, "_ H"]]],
    allowed: Bool[Tensor, " V"],
    k: int = 10,
) -> Int64[Tensor, "M K"]:
    """Finds the k rows nearest in cosine to each asked row, itself left out, in one sweep over a table.

    Cosines are rounded to 12 decimals; equal ones go by rising id, so that the answer does not hang on the machine.

    Args:
        asked: ids asked for.
        rows: their rows.
        blocks: the table as blocks of rows in any order, each with its first row's id.
        allowed: which rows may be neighbours, at most 2^22 rows in all.
        k: how many neighbours, >= 1.

    Returns:
        Ids, nearest first, [M, k]; -1 where there are not so many.

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
    unit = _unit(rows.detach().double())
    lowest = torch.iinfo(torch.int64).min
    best = torch.full((asked.numel(), k), lowest)
    for start, block in _cut(blocks, max(1, COSINES // max(1, asked.numel()))):
        cosine = torch.nan_to_num(unit @ _unit(block.detach().double()).T)  # what is not finite should not be allowed
        ids = torch.arange(start, start + len(block))
        # Cosine and id in one whole number: every key differs, so the k largest are the same everywhere.
        key = (cosine * 1e12).round_().long().mul_(size).sub_(ids)
        key.masked_fill_((asked[:, None] == ids) | ~allowed[ids], lowest)
        best = torch.cat((best, key), dim=1).topk(k).values
    return torch.where(best == lowest, -1, (-best) % size)


def shared(first: Int[Tensor, "M K"], second: Int[Tensor, "M K"]) -> Float64[Tensor, " M"]:
    """Counts which share of the neighbours in one list is also in the other; -1 stands for none.

    Returns:
        Shares in [0, 1], [M]; NaN where the first list is empty.

    Example:
        >>> shared(torch.tensor([[4, 2, 7]]), torch.tensor([[2, 9, 4]])).tolist()
        [0.6666666666666666]
    """
    found = (first[:, :, None] == second[:, None, :]) & (first >= 0)[:, :, None]
    return found.any(2).sum(1).double() / (first >= 0).sum(1)


def _cut(blocks: Iterable[tuple[int, Tensor]], rows: int) -> Iterator[tuple[int, Tensor]]:
    """The same blocks in pieces of so many rows at most; a narrow table has many rows in a block."""
    for start, block in blocks:
        for offset in range(0, len(block), rows):
            yield start + offset, block[offset : offset + rows]


def _unit(rows: Float64[Tensor, "n H"]) -> Float64[Tensor, "n H"]:
    return F.normalize(rows, dim=1, eps=TINY)
