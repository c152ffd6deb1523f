"""Sums over the rows of a table, by group: the basis of its geometry, gathered in one reading.

The table is never converted as one: a chunk of rows at a time becomes float64, or float32 where products of a large
table would take too long; the sums are float64 in any case.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from decone.files.foreign import quoted
from decone.metrics.table_geometry import row_norms
from decone.models.tables import Table, blocks

CHUNK = 1 << 26  # bytes of rows converted at once
WIDEST = 1 << 14  # columns; their products are as large as the table of a large model
FLOAT64_PRODUCTS = 1 << 35  # V x H x H up to which products are float64
RETAINED = 512  # rows of a group up to which they are retained themselves, where that is less than their products
SAMPLE = 1000  # rows of a group that a histogram uses
COMFORTABLE = (1e-12, 1e12)  # lengths of rows whose squares are safe in float32


@dataclass(frozen=True)
class GroupLayout:
    """Group of each row of a table: `label` is the index of its group among the names, -1 for none."""

    names: tuple[str, ...]
    label: Int64[Tensor, " V"]
    sizes: tuple[int, ...]


class SortedRows(NamedTuple):
    """A chunk of rows of a table, those of one group side by side."""

    ids: Int64[Tensor, " n"]
    rows: Float[Tensor, "n H"]
    groups: list[tuple[int, slice]]


@dataclass
class GroupSums:
    """Sums over the rows of one group."""

    directed: int
    total: Float64[Tensor, " H"]
    units: Float64[Tensor, " H"]
    gram: Float64[Tensor, "H H"] | None  # W^T W, [H, H]; None where `rows` stand for it
    rows: list[Float64[Tensor, "n H"]]  # the rows themselves, of a small group
    sample: list[Float[Tensor, "n H"]]  # a sample of unit rows, [S, H], float32
    # while sums are made, taken off every row before products: close to the mean, so that in a cone the small
    # remainders are not rounded like the large rows
    shift: Float[Tensor, " H"] | None = None

    @classmethod
    def zeros(cls, width: int, retain_rows: bool) -> "GroupSums":
        """Sums over no row yet."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        return cls(0, zeros(width), zeros(width), None if retain_rows else zeros(width, width), [], [])

    def add(self, rows: Float[Tensor, "n H"], lengths: Float64[Tensor, " n"], sampled: Bool[Tensor, " n"]) -> None:
        """Adds rows, given their lengths and which of them the sample holds."""
        if self.gram is None:
            self.rows.append(rows.double())
            self.total += rows.sum(0)
        else:
            self.shift = rows.mean(0) if self.shift is None else self.shift
            remainder = rows - self.shift
            # NumPy sees that both factors are one matrix and computes half of the product.
            array = remainder.numpy()
            with np.errstate(over="ignore", invalid="ignore"):  # `gather` refuses what overflows
                self.gram += torch.from_numpy(array.T @ array)
            self.total += remainder.sum(0)
        self.directed += int((lengths > 0).sum())
        plain = (lengths >= COMFORTABLE[0]) & (lengths <= COMFORTABLE[1])
        inverse = torch.where(plain, 1 / lengths, 0.0)
        self.units += inverse.to(rows.dtype) @ rows
        odd = ~plain & (lengths > 0)
        if bool(odd.any()):
            self.units += (rows[odd].double() / lengths[odd, None]).sum(0)
        directed = sampled & (lengths > 0)
        if bool(directed.any()):
            self.sample.append((rows[directed].double() / lengths[directed, None]).float())

    def unshift(self, size: int) -> None:
        """Turns sums of rows minus `shift`, which are added up first, into sums of rows."""
        if self.gram is not None and self.shift is not None:
            shift = self.shift.double()
            crossed = torch.outer(self.total, shift)
            self.gram += crossed + crossed.T + size * torch.outer(shift, shift)
            self.total += size * shift
        self.shift = None


@dataclass(frozen=True)
class Moments:
    """Sums by group, and lengths of single rows."""

    layout: GroupLayout
    groups: list[GroupSums]
    norms: Float64[Tensor, " V"]  # length of each row, NaN for rows of no group
    dtype: torch.dtype  # of the products

    @property
    def count(self) -> int:
        """Rows of all groups."""
        return sum(self.layout.sizes)

    @property
    def total(self) -> Float64[Tensor, " H"]:
        """Sum of all rows."""
        return torch.stack([sums.total for sums in self.groups]).sum(0)

    @property
    def by_name(self) -> list[tuple[str, GroupSums]]:
        """Sums with the name of their group."""
        return list(zip(self.layout.names, self.groups, strict=True))

    def gram(self) -> Float64[Tensor, "H H"]:
        """W^T W over all groups."""
        width = len(self.groups[0].total)
        gram = torch.zeros(width, width, dtype=torch.float64)
        for sums in self.groups:
            if sums.gram is not None:
                gram += sums.gram
            for rows in sums.rows:
                gram.addmm_(rows.T, rows)
        return gram

    def covariance(self, gram: Float64[Tensor, "H H"]) -> Float64[Tensor, "H H"]:
        """Scatter of all rows around their mean, over their number."""
        mean = self.total / self.count
        return gram / self.count - torch.outer(mean, mean)


def layout(table: Table, groups: Mapping[str, Int64[Tensor, " M"]]) -> GroupLayout:
    """Labels the rows of a table.

    Raises:
        ValueError: the table is too wide, an id is outside it or in two groups, or no group has a row.
    """
    V, H = table.shape
    if H > WIDEST:
        raise ValueError(f"{table.name} is {V} x {H}, too wide for a table of tokens; name another with --embedding")
    label = torch.full((V,), -1)
    for index, (name, ids) in enumerate(groups.items()):
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= V):
            raise ValueError(
                f"group {quoted(name)} has ids {int(ids.min())} to {int(ids.max())}, {table.name} has {V} rows"
            )
        if bool((label[ids] >= 0).any()) or len(torch.unique(ids)) < len(ids):
            raise ValueError(
                f"group {quoted(name)} holds an id twice, or one of another group; a row belongs to one group"
            )
        label[ids] = index
    sizes = tuple(len(ids) for ids in groups.values())
    if not sum(sizes) or not H:
        raise ValueError(f"no row of {table.name} ({V} x {H}) can be measured; name another table with --embedding")
    return GroupLayout(tuple(groups), label, sizes)


def sweep(table: Table, layout: GroupLayout, dtype: torch.dtype) -> Iterator[SortedRows]:
    """Reads the rows of all groups once, a chunk at a time."""
    limit = max(1, CHUNK // (table.shape[1] * dtype.itemsize))
    for start, block in blocks(table):
        label = layout.label[start : start + len(block)]
        order = label.argsort(stable=True)
        for selection in torch.split(order[int((label < 0).sum()) :], limit):
            if not len(selection):
                continue
            groups, sizes = torch.unique_consecutive(label[selection], return_counts=True)
            ends = sizes.cumsum(0)
            borders = zip(groups.tolist(), (ends - sizes).tolist(), ends.tolist(), strict=True)
            spans = [(group, slice(low, high)) for group, low, high in borders]
            yield SortedRows(start + selection, block[selection].to(dtype), spans)


def gather(table: Table, layout: GroupLayout, seed: int = 0) -> Moments:
    """Sums up the rows of a table.

    Products of a small table are float64. Those of a large one (V x H x H above 3e10) are float32 within a chunk of
    rows, unless its entries are so large or small that their squares could leave float32.

    Rows of the layout are finite; the seed is that of the samples.

    Raises:
        ValueError: rows are not finite, or their squares leave float64.
    """
    V, H = table.shape
    dtype = torch.float64 if V * H * H <= FLOAT64_PRODUCTS else torch.float32
    moments = _gather(table, layout, dtype, seed)
    if dtype == torch.float32:
        typical = float(moments.norms[layout.label >= 0].square().mean().sqrt())
        if not COMFORTABLE[0] < typical < COMFORTABLE[1]:
            moments = _gather(table, layout, torch.float64, seed)
    if not all(bool(torch.isfinite(sums).all()) for sums in (moments.norms[layout.label >= 0], moments.gram())):
        raise ValueError(f"rows of {table.name} hold NaN, infinity, or entries whose squares are beyond float64")
    return moments


def _gather(table: Table, layout: GroupLayout, dtype: torch.dtype, seed: int) -> Moments:
    V, H = table.shape
    groups = [GroupSums.zeros(H, retain_rows=size <= min(RETAINED, H - 1)) for size in layout.sizes]
    norms = torch.full((V,), torch.nan, dtype=torch.float64)
    sampled = _sampled(layout, seed)
    for ids, rows, spans in sweep(table, layout, dtype):
        lengths = _lengths(rows)
        norms[ids] = lengths
        for group, span in spans:
            groups[group].add(rows[span], lengths[span], sampled[ids[span]])
    for sums, size in zip(groups, layout.sizes, strict=True):
        sums.unshift(size)
    return Moments(layout, groups, norms, dtype)


def _sampled(layout: GroupLayout, seed: int) -> Bool[Tensor, " V"]:
    """Rows that histograms use."""
    generator = torch.Generator().manual_seed(seed)
    sampled = torch.zeros(len(layout.label), dtype=torch.bool)
    for group in range(len(layout.names)):
        ids = (layout.label == group).nonzero().squeeze(1)
        sampled[ids[torch.randperm(len(ids), generator=generator)[:SAMPLE]]] = True
    return sampled


def _lengths(rows: Float[Tensor, "n H"]) -> Float64[Tensor, " n"]:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1).double()
    odd = ~((lengths > COMFORTABLE[0]) & (lengths < COMFORTABLE[1])) & rows.isfinite().all(1)
    if bool(odd.any()):  # squares left the dtype, or are about to; zeros land here too
        lengths[odd] = row_norms(rows[odd].double())
    return lengths
