"""Measures of every row of a table in one pass: length, zeros, equal rows, and nearness to rows known to be unused."""

from collections import defaultdict
from collections.abc import Set
from dataclasses import dataclass
from hashlib import sha256

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from decone.metrics.undertrained import distance_limit
from decone.models.tables import Table, blocks

LEAST = 8  # unused rows that make a reference; fewer may lie anywhere
AT_MEAN = 0.01  # distance from the mean of trained rows, over its length: as far as rounding to bfloat16 moves a row
NOTHING = 1e-6  # of the median length: rows that weight decay alone has moved end below it, at 1e-23 in Llama 3


@dataclass(frozen=True)
class RowSurvey:
    """Measures of each row of a table from one pass over it.

    Attributes:
        table: the rows.
        norm: length, NaN or infinity where a row is not finite, [V].
        zero: all entries are 0, [V].
        clusters: groups of rows that are equal byte by byte, neither zero nor non-finite.
        centre: mean of the rows known to be unused, [H]; None where there are too few.
        distance: of every row from the centre, [V].
        limit: distance up to which a row lies as near to the centre as the unused rows do.
    """

    table: Table
    norm: Float64[Tensor, " V"]
    zero: Bool[Tensor, " V"]
    clusters: list[list[int]]
    centre: Float64[Tensor, " H"] | None = None
    distance: Float64[Tensor, " V"] | None = None
    limit: float = 0.0

    @property
    def finite(self) -> Bool[Tensor, " V"]:
        """Rows without NaN and infinity."""
        return torch.isfinite(self.norm)

    @property
    def like_unused(self) -> Bool[Tensor, " V"]:
        """Rows as near to the mean of the unused ones as those are themselves; none where there are too few."""
        return torch.zeros_like(self.zero) if self.distance is None else self.distance <= self.limit

    def untrained(self, unused: Set[int], special: Set[int], marks: Set[int] = frozenset()) -> Bool[Tensor, " V"]:
        """Rows that no training has shaped: not finite, as good as zero, like unused ones, or equal to such.

        Where rows equal each other to the last bit, they count if one of them is unused or all are special: a copy of
        a trained row was made on purpose. So was a row at the mean of the trained ones, unless that is as good as 0.

        Args:
            unused: rows that no text leads to.
            special: rows of tokens that programs write, not texts.
            marks: those of them that training texts hold, such as the end of a text.

        Example:
            >>> from decone.models.tables import MemoryTable
            >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1e-23, 0.0], [5.0, 5.0], [5.0, 5.0]])
            >>> measures = survey_rows(MemoryTable("weight", rows), torch.zeros(0, dtype=torch.int64))
            >>> measures.untrained(unused=set(), special={2, 3, 4}).tolist()
            [False, False, True, True, True]
        """
        usable = self.finite & ~self.zero
        shortest = NOTHING * float(self.norm[usable].median()) if bool(usable.any()) else 0.0
        result = ~self.finite | (self.norm <= shortest)
        doubtful = self.like_unused.clone()
        for cluster in self.clusters:
            if not unused.isdisjoint(cluster) or set(cluster) <= special - marks:
                doubtful[cluster] = True
        doubtful &= ~result
        if bool(doubtful.any()):
            trained = ~result & ~doubtful
            trained[[row for row in (*unused, *special) if row < len(trained)]] = False
            doubtful &= ~self._at_mean(trained)
        return result | doubtful

    def _at_mean(self, trained: Bool[Tensor, " V"]) -> Bool[Tensor, " V"]:
        """Rows at the mean of some."""
        mean = torch.zeros(self.table.shape[1], dtype=torch.float64)
        for start, block in blocks(self.table):
            mean += block[trained[start : start + len(block)]].sum(0, dtype=torch.float64)
        mean /= max(1, int(trained.sum()))
        return distances(self.table, mean) <= AT_MEAN * float(mean.norm())


def survey_rows(table: Table, unused: Int64[Tensor, " U"]) -> RowSurvey:
    """Measures every row of a table.

    Args:
        table: read a block at a time.
        unused: unused rows, rising; they make the centre. Those that are zero or not finite are left out.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = MemoryTable("w", torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]]))
        >>> result = survey_rows(table, torch.zeros(0, dtype=torch.int64))
        >>> result.norm.tolist(), result.zero.tolist(), result.clusters
        ([5.0, 0.0, 5.0], [False, True, False], [[0, 2]])
    """
    size, width = table.shape
    norm = torch.zeros(size, dtype=torch.float64)
    largest = torch.zeros(size, dtype=torch.float64)
    total, counted = torch.zeros(width, dtype=torch.float64), 0
    by_content: dict[bytes, list[int]] = defaultdict(list)
    marked = torch.zeros(size, dtype=torch.bool)
    marked[unused[unused < size]] = True
    for start, block in blocks(table):
        span = slice(start, start + len(block))
        values = block.float() if block.dtype != torch.float64 else block
        low, high = torch.aminmax(values, dim=1)
        largest[span] = torch.maximum(-low, high).double()  # NaN stays NaN
        norm[span] = _lengths(values, largest[span])
        # A digest stands for the bytes: that two rows share one by chance is rarer than a failing disk.
        content = block.contiguous().view(torch.uint8).numpy()
        for row, entries in enumerate(content, start):
            by_content[sha256(entries).digest()].append(row)
        counted_rows = marked[span] & torch.isfinite(largest[span]) & (largest[span] > 0)
        total += values[counted_rows].double().sum(0)
        counted += int(counted_rows.sum())
    norm[~torch.isfinite(largest)] = torch.nan
    zero = largest == 0
    clusters = [
        rows for rows in by_content.values() if len(rows) > 1 and not zero[rows[0]] and torch.isfinite(norm[rows[0]])
    ]
    if counted < LEAST:
        return RowSurvey(table, norm, zero, clusters)
    centre = total / counted
    distance = distances(table, centre)
    usable = torch.isfinite(norm) & ~zero
    limit = distance_limit(distance[usable & marked], distance[usable & ~marked])
    return RowSurvey(table, norm, zero, clusters, centre, distance, limit)


def _lengths(values: Float[Tensor, "n H"], largest: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Euclidean lengths; twice as fast in float32, where no square leaves its range."""
    result: Tensor = torch.linalg.vector_norm(values, dim=1).double()
    odd = (largest > 1e15) | (largest < 1e-15)
    result[odd] = torch.linalg.vector_norm(values[odd], dim=1, dtype=torch.float64)
    return result


def distances(table: Table, centre: Float64[Tensor, " H"]) -> Float64[Tensor, " V"]:
    """Euclidean distance of every row from a point."""
    point = centre.float()
    lengths = [torch.linalg.vector_norm(block.float() - point, dim=1) for _, block in blocks(table)]
    return torch.cat(lengths).double()
