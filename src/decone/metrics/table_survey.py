"""Geometry of a table by frequency group, in two readings of it, and a sample of its rows for figures.

The first reading sums up (see `table_moments`), the second projects every row on the axes of all rows and on those of
its own group. Nothing of the size of the table is made.

Exactness: in float64, as for tables with V x H x H up to 3e10, everything agrees with `table_geometry` to about 1e-9.
Larger tables are multiplied in float32 and added in float64: singular values above a hundredth of the largest then
agree to 1e-5, log I(W) to 1e-5 (of itself where it is beyond 1), mean cosines to 2e-6. Singular values come from the
eigenvalues of W^T W; those below 1e-7 of the largest (in float32 1e-4) are rounding.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from decone.metrics.table_geometry import (
    Isotropy,
    cosine_of_sums,
    from_log_partition,
    isotropy,
    log_partition,
    principal_axes,
    row_norms,
    signed_axes,
)
from decone.metrics.table_moments import Moments, gather, layout, sweep
from decone.models.tables import Table, blocks

PAIRS = 20_000  # of each two groups in a histogram; fewer where there are no more
BINS = 80
DOTS = 4000  # rows in a figure

Cosines = dict[str, dict[str, float | None]]


class Plane(NamedTuple):
    """Mean of a table's rows, and unit loadings of its first two principal components; zero where it has one column."""

    mean: Float64[Tensor, " H"]
    axes: Float64[Tensor, "2 H"]


class CosineCounts(NamedTuple):
    """Cosines between rows of two groups: pairs per bin, in bins of equal width from -1 to 1."""

    groups: tuple[str, str]
    counts: list[int]


@dataclass(frozen=True)
class TableSurvey:
    """Geometry of the rows of all groups of a table.

    Attributes:
        isotropy: I(W) by group and of "all"; empty groups have none.
        cosine: mean cosine between different rows of group and group, "all" among them; None where there is no pair.
        singular_values: of all rows, not centred, relative to the largest, falling, [R].
        rank: frequency rank of the rows of all groups, [n]; None when nothing is known.
        histograms: of cosines of sampled pairs, by two groups.
    """

    moments: Moments
    isotropy: dict[str, Isotropy]
    cosine: Cosines
    singular_values: Float64[Tensor, " R"]
    covariance: Float64[Tensor, "H H"]
    rank: Int64[Tensor, " n"] | None
    histograms: list[CosineCounts]

    @property
    def norms(self) -> Float64[Tensor, " n"]:
        """Lengths of the rows of all groups."""
        return self.moments.norms[self.moments.layout.label >= 0]

    @property
    def mean_direction(self) -> float:
        """Length of the mean row over the mean length of rows, in [0, 1]."""
        return min(1.0, float(self.moments.total.norm() / self.norms.sum()))

    @property
    def plane(self) -> Plane:
        """Main plane of the table."""
        return _plane(self.moments, self.covariance)


def survey_table(
    table: Table, groups: Mapping[str, Int64[Tensor, " M"]], rank: Int64[Tensor, " V"] | None = None, seed: int = 0
) -> TableSurvey:
    """Measures the geometry of a table by group and for "all", their union; rows of zeros count but in cosines.

    Groups are different ids by name, no id in two groups; other rows are not read, and may be NaN. Ranks count from 1,
    the most frequent; None when nothing is known.

    Raises:
        ValueError: no group has a row, an id is outside the table or in two groups, the rows are all zero or not
            finite, or the table is wider than any table of tokens.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> survey = survey_table(MemoryTable("weight", torch.eye(3)), {"frequent": torch.arange(3)})
        >>> survey.cosine["all"]["all"], survey.singular_values.tolist()
        (0.0, [1.0, 1.0, 1.0])
    """
    labels = layout(table, groups)
    if rank is not None and len(rank) != table.shape[0]:
        raise ValueError(f"rank has {len(rank)} entries, {table.name} has {table.shape[0]} rows; give one per row")
    moments = gather(table, labels, seed)
    if not any(sums.directed for sums in moments.groups):
        raise ValueError(f"{table.name} holds nothing but zeros; name a trained table with --embedding or --head")
    gram = moments.gram()
    squares, axes = signed_axes(gram, moments.total)
    values = squares.flip(0)[: moments.count].clamp_min(0).sqrt()
    return TableSurvey(
        moments=moments,
        isotropy=_isotropy(table, moments, axes),
        cosine=_cosines(moments),
        singular_values=values / values[0],
        covariance=moments.covariance(gram),
        rank=None if rank is None else rank[labels.label >= 0],
        histograms=cosine_histograms({name: sums.sample for name, sums in moments.by_name}, seed),
    )


def _isotropy(table: Table, moments: Moments, common: Float64[Tensor, "H H"]) -> dict[str, Isotropy]:
    """I(W) of all rows and of each group, whose eigenvectors are its own: the second reading of the table."""
    axes = {-1: common.to(moments.dtype)}
    for index, sums in enumerate(moments.groups):
        if sums.gram is not None:
            axes[index] = signed_axes(sums.gram, sums.total)[1].to(moments.dtype)
    logs = {index: torch.full((2, table.shape[1]), -torch.inf, dtype=torch.float64) for index in axes}
    for _, rows, spans in sweep(table, moments.layout, moments.dtype):
        for index, span in [(-1, slice(None)), *spans]:
            if index in axes:
                logs[index] = torch.logaddexp(logs[index], log_partition(rows[span] @ axes[index]))
    by_group = {"all": from_log_partition(logs[-1])}
    for index, (name, sums) in enumerate(moments.by_name):
        if index in axes:
            by_group[name] = from_log_partition(logs[index])
        elif sums.rows:
            by_group[name] = isotropy(torch.cat(sums.rows))
    return by_group


def _cosines(moments: Moments) -> Cosines:
    groups = {name: (sums.units, sums.directed) for name, sums in moments.by_name}
    units, sizes = zip(*groups.values(), strict=True)
    everything = {"all": (torch.stack(units).sum(0), sum(sizes)), **groups}

    def cosine(first: str, second: str) -> float | None:
        (first_units, size), (second_units, count) = everything[first], everything[second]
        common = min(size, count) if "all" in (first, second) or first == second else 0
        return cosine_of_sums(first_units, second_units, size, count, common)

    return {first: {second: cosine(first, second) for second in everything} for first in everything}


def _plane(moments: Moments, covariance: Float64[Tensor, "H H"]) -> Plane:
    width = len(covariance)
    axes = torch.zeros(2, width, dtype=torch.float64)
    axes[:width] = principal_axes(covariance, min(2, width))
    return Plane(moments.total / moments.count, axes)


def cosine_histograms(
    samples: Mapping[str, Sequence[Float[Tensor, "_ H"]]], seed: int = 0, pairs: int = PAIRS, bins: int = BINS
) -> list[CosineCounts]:
    """Counts cosines between different unit rows of each two groups, a group with itself too, from -1 to 1.

    So many pairs of each two groups are drawn evenly with replacement, all where there are no more; groups without a
    pair are left out.

    Example:
        >>> cosine_histograms({"rare": [torch.eye(3)]}, bins=4)
        [CosineCounts(groups=('rare', 'rare'), counts=[0, 0, 3, 0])]
    """
    generator = torch.Generator().manual_seed(seed)
    rows = {name: torch.cat(list(sample)) for name, sample in samples.items() if sample}
    histograms = []
    for first, second in itertools.combinations_with_replacement(rows, 2):
        a, b = rows[first], rows[second]
        i, j = (
            _pairs_within(len(a), pairs, generator)
            if first == second
            else _pairs_across(len(a), len(b), pairs, generator)
        )
        if not len(i):
            continue
        cosine = (a @ b.T)[i, j].clamp(-1.0, 1.0)
        counts = torch.histc(cosine, bins=bins, min=-1.0, max=1.0)
        histograms.append(CosineCounts((first, second), counts.long().tolist()))
    return histograms


def _pairs_within(size: int, pairs: int, generator: torch.Generator) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
    if size * (size - 1) // 2 <= pairs:
        i, j = torch.triu_indices(size, size, offset=1)
        return i, j
    i = torch.randint(size, (pairs,), generator=generator)
    j = torch.randint(size - 1, (pairs,), generator=generator)
    return i, j + (j >= i)  # never the row itself


def _pairs_across(
    size: int, count: int, pairs: int, generator: torch.Generator
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
    if size * count <= pairs:
        return torch.arange(size).repeat_interleave(count), torch.arange(count).repeat(size)
    i = torch.randint(size, (pairs,), generator=generator)
    return i, torch.randint(count, (pairs,), generator=generator)


@dataclass(frozen=True, eq=False)
class TableSample:
    """A sample of the rows of one table on its two main components, and their lengths.

    Attributes:
        table: "embedding" or "head".
        ids: rows in the sample, [M]; at most 4,000, all groups and all suspects among them.
        plane: centred coordinates on the first two principal components, [M, 2].
        rank: frequency rank of each from 1, [M]; equal to id + 1 where no frequencies are known.
        suspect: which are suspects, [M].
    """

    table: str
    ids: NDArray[np.int64]
    tokens: list[str]
    groups: list[str]
    plane: NDArray[np.float64]
    rank: NDArray[np.int64]
    norm: NDArray[np.float64]
    suspect: NDArray[np.bool_]


def sample_table(
    name: str,
    table: Table,
    tokens: Sequence[str],
    groups: Mapping[str, Int64[Tensor, " M"]],
    rank: Int64[Tensor, " V"] | None,
    suspects: set[int],
    seed: int = 0,
    plane: Plane | None = None,
) -> TableSample:
    """Samples rows of a table and puts them on its two main components, which are those of all rows of the groups.

    At most 4,000 rows by rising id: the suspects, but those in no group, as their rows may hold NaN, and as many of
    each group, or all of a small one. Without ranks id + 1 stands for them; without the `plane` of `survey_table` the
    table is read once more.

    Raises:
        ValueError: as of `survey_table`, or there is not one text per row.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = MemoryTable("weight", torch.tensor([[1.0, 5.0], [-1.0, 5.0], [0.0, 8.0]]))
        >>> sample = sample_table("head", table, ["a", "b", "c"], {"rare": torch.arange(3)}, None, {2})
        >>> sample.plane.round(6).tolist(), sample.suspect.tolist()
        ([[-1.0, 1.0], [-1.0, -1.0], [2.0, 0.0]], [False, False, True])
    """
    labels = layout(table, groups)
    if len(tokens) != table.shape[0]:
        raise ValueError(f"{table.name} has {table.shape[0]} rows and {len(tokens)} texts; give one text per row")
    if plane is None:
        moments = gather(table, labels, seed)
        plane = _plane(moments, moments.covariance(moments.gram()))
    marked = torch.tensor(sorted(id for id in suspects if 0 <= id < table.shape[0]), dtype=torch.long)
    ids = _sample_ids(labels.label, marked[labels.label[marked] >= 0], seed)
    rows = torch.cat([block[ids[_inside(ids, start, block)] - start].double() for start, block in blocks(table)])
    return TableSample(
        table=name,
        ids=ids.numpy(),
        tokens=[tokens[id] for id in ids.tolist()],
        groups=[labels.names[group] for group in labels.label[ids].tolist()],
        plane=((rows - plane.mean) @ plane.axes.T).numpy(),
        rank=(ids + 1 if rank is None else rank[ids]).numpy(),
        norm=row_norms(rows).numpy(),
        suspect=torch.isin(ids, marked).numpy(),
    )


def _sample_ids(label: Int64[Tensor, " V"], marked: Int64[Tensor, " S"], seed: int) -> Int64[Tensor, " M"]:
    generator = torch.Generator().manual_seed(seed)
    selections = [marked[torch.randperm(len(marked), generator=generator)[:DOTS]]]
    remaining = DOTS - len(selections[0])
    unmarked = label.clone()
    unmarked[marked] = -1
    members = [(unmarked == group).nonzero().squeeze(1) for group in range(int(label.max()) + 1)]
    members.sort(key=len)
    for turn, ids in enumerate(members):  # what a small group does not need goes to the larger ones
        share = remaining // (len(members) - turn)
        selections.append(ids[torch.randperm(len(ids), generator=generator)[:share]])
        remaining -= len(selections[-1])
    return torch.cat(selections).sort().values


def _inside(ids: Int64[Tensor, " M"], start: int, block: Tensor) -> Bool[Tensor, " M"]:
    return (ids >= start) & (ids < start + len(block))
