"""Sums over the rows of a table, by group: what its geometry follows from, gathered in one reading.

The table is never converted as a whole: some rows at a time become float64, or float32 where products of a large table
would take too long; what they add up to is float64 in any case.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from decone.metrics.norms import row_norms
from decone.models.tables import Table, blocks

CHUNK = 1 << 26  # bytes of rows converted at once
WIDEST = 1 << 14  # columns; their products are as large as the table of a large model
FLOAT64_PRODUCTS = 1 << 35  # V x H x H up to which products are float64
HELD = 512  # rows of a group up to which they are kept themselves, where that is less than their products
SAMPLE = 1000  # rows of a group kept for a histogram
COMFORTABLE = (1e-12, 1e12)  # lengths of rows whose squares are safe in float32


@dataclass(frozen=True)
class GroupLayout:
    """Which rows of a table belong to which group.

    Attributes:
        names: of the groups.
        label: place of each row's group among the names, -1 for none, [V].
        sizes: rows by group.
    """

    names: tuple[str, ...]
    label: Int64[Tensor, " V"]
    sizes: tuple[int, ...]


class SortedRows(NamedTuple):
    """Some rows of a table, those of one group side by side."""

    ids: Int64[Tensor, " n"]
    rows: Float[Tensor, "n H"]
    groups: list[tuple[int, slice]]


@dataclass
class GroupSums:
    """What the rows of one group add up to.

    Attributes:
        directed: how many rows are not zero.
        total: their sum, [H].
        units: sum of the unit rows, [H].
        gram: W^T W, [H, H]; None where `rows` stand for it.
        rows: the rows themselves, of a small group.
        sample: some unit rows, [S, H], float32.
        shift: while sums are made, taken off every row before products: close to the mean, so that in a cone the
            small remainders are not rounded like the large rows.
    """

    directed: int
    total: Float64[Tensor, " H"]
    units: Float64[Tensor, " H"]
    gram: Float64[Tensor, "H H"] | None
    rows: list[Float64[Tensor, "n H"]]
    sample: list[Float[Tensor, "n H"]]
    shift: Float[Tensor, " H"] | None = None

    def unshift(self, size: int) -> None:
        """Makes sums of rows out of sums of rows minus `shift`, which is what is added up first."""
        if self.gram is not None and self.shift is not None:
            shift = self.shift.double()
            crossed = torch.outer(self.total, shift)
            self.gram += crossed + crossed.T + size * torch.outer(shift, shift)
            self.total += size * shift
        self.shift = None


@dataclass(frozen=True)
class Moments:
    """Sums by group, and what belongs to single rows.

    Attributes:
        layout: the groups.
        groups: sums in the order of the names.
        norms: length of each row, NaN for rows of no group, [V].
        dtype: of the products.
    """

    layout: GroupLayout
    groups: list[GroupSums]
    norms: Float64[Tensor, " V"]
    dtype: torch.dtype

    @property
    def count(self) -> int:
        """Rows of all groups."""
        return sum(self.layout.sizes)

    @property
    def total(self) -> Float64[Tensor, " H"]:
        """Sum of all rows."""
        return torch.stack([sums.total for sums in self.groups]).sum(0)

    def gram(self) -> Float64[Tensor, "H H"]:
        """W^T W over all groups."""
        width = len(self.groups[0].total)
        whole = torch.zeros(width, width, dtype=torch.float64)
        for sums in self.groups:
            if sums.gram is not None:
                whole += sums.gram
            for rows in sums.rows:
                whole.addmm_(rows.T, rows)
        return whole

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
    for place, (name, ids) in enumerate(groups.items()):
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= V):
            raise ValueError(f"group {name!r} has ids {int(ids.min())} to {int(ids.max())}, {table.name} has {V} rows")
        if bool((label[ids] >= 0).any()) or len(torch.unique(ids)) < len(ids):
            raise ValueError(f"group {name!r} holds an id twice, or one of another group; a row belongs to one group")
        label[ids] = place
    sizes = tuple(len(ids) for ids in groups.values())
    if not sum(sizes) or not H:
        raise ValueError(f"no row of {table.name} ({V} x {H}) can be measured; name another table with --embedding")
    return GroupLayout(tuple(groups), label, sizes)


def sweep(table: Table, layout: GroupLayout, dtype: torch.dtype) -> Iterator[SortedRows]:
    """Reads the rows of all groups once, some at a time."""
    limit = max(1, CHUNK // (table.shape[1] * dtype.itemsize))
    for start, block in blocks(table):
        label = layout.label[start : start + len(block)]
        order = label.argsort(stable=True)
        for chosen in torch.split(order[int((label < 0).sum()) :], limit):
            if not len(chosen):
                continue
            places, sizes = torch.unique_consecutive(label[chosen], return_counts=True)
            ends = sizes.cumsum(0)
            parts = zip(places.tolist(), (ends - sizes).tolist(), ends.tolist(), strict=True)
            spans = [(place, slice(low, high)) for place, low, high in parts]
            yield SortedRows(start + chosen, block[chosen].to(dtype), spans)


def gather(table: Table, layout: GroupLayout, seed: int = 0) -> Moments:
    """Sums up the rows of a table.

    Products of a small table are float64. Those of a large one (V x H x H above 3e10) are float32 within a chunk of
    rows, unless its entries are so large or small that their squares could leave float32.

    Args:
        table: finite in all rows of the layout.
        layout: its groups.
        seed: of the samples.

    Raises:
        ValueError: rows are not finite, or their squares leave float64.
    """
    V, H = table.shape
    dtype = torch.float64 if V * H * H <= FLOAT64_PRODUCTS else torch.float32
    found = _gather(table, layout, dtype, seed)
    if dtype == torch.float32:
        typical = float(found.norms[layout.label >= 0].square().mean().sqrt())
        if not COMFORTABLE[0] < typical < COMFORTABLE[1]:
            found = _gather(table, layout, torch.float64, seed)
    if not all(bool(torch.isfinite(part).all()) for part in (found.norms[layout.label >= 0], found.gram())):
        raise ValueError(f"rows of {table.name} hold NaN, infinity, or entries whose squares are beyond float64")
    return found


def _gather(table: Table, layout: GroupLayout, dtype: torch.dtype, seed: int) -> Moments:
    V, H = table.shape
    groups = [_empty(H, held=size <= min(HELD, H - 1)) for size in layout.sizes]
    norms = torch.full((V,), torch.nan, dtype=torch.float64)
    sampled = _sampled(layout, seed)
    for ids, rows, spans in sweep(table, layout, dtype):
        lengths = _lengths(rows)
        norms[ids] = lengths
        for place, span in spans:
            _add(groups[place], rows[span], lengths[span], sampled[ids[span]])
    for sums, size in zip(groups, layout.sizes, strict=True):
        sums.unshift(size)
    return Moments(layout, groups, norms, dtype)


def _empty(width: int, held: bool) -> GroupSums:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64)

    return GroupSums(0, zeros(width), zeros(width), None if held else zeros(width, width), [], [])


def _sampled(layout: GroupLayout, seed: int) -> Tensor:
    """Which rows are kept for the histograms, [V]."""
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.zeros(len(layout.label), dtype=torch.bool)
    for place in range(len(layout.names)):
        ids = (layout.label == place).nonzero().squeeze(1)
        wanted[ids[torch.randperm(len(ids), generator=generator)[:SAMPLE]]] = True
    return wanted


def _lengths(rows: Float[Tensor, "n H"]) -> Float64[Tensor, " n"]:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1).double()
    odd = ~((lengths > COMFORTABLE[0]) & (lengths < COMFORTABLE[1])) & rows.isfinite().all(1)
    if bool(odd.any()):  # squares left the dtype, or are about to; zeros land here too
        lengths[odd] = row_norms(rows[odd].double())
    return lengths


def _add(sums: GroupSums, rows: Float[Tensor, "n H"], lengths: Float64[Tensor, " n"], sampled: Tensor) -> None:
    if sums.gram is None:
        sums.rows.append(rows.double())
        sums.total += rows.sum(0)
    else:
        sums.shift = rows.mean(0) if sums.shift is None else sums.shift
        rest = rows - sums.shift
        # NumPy sees that both factors are one matrix and computes half of the product.
        array = rest.numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # met by `gather`
            sums.gram += torch.from_numpy(array.T @ array)
        sums.total += rest.sum(0)
    sums.directed += int((lengths > 0).sum())
    plain = (lengths >= COMFORTABLE[0]) & (lengths <= COMFORTABLE[1])
    inverse = torch.where(plain, 1 / lengths, 0.0)
    sums.units += inverse.to(rows.dtype) @ rows
    odd = ~plain & (lengths > 0)
    if bool(odd.any()):
        sums.units += (rows[odd].double() / lengths[odd, None]).sum(0)
    kept = sampled & (lengths > 0)
    if bool(kept.any()):
        sums.sample.append((rows[kept].double() / lengths[kept, None]).float())
