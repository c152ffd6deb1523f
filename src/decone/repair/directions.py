"""Directions: the mean and the strongest principal components are taken out of the rows of a table.

With mu the mean of the rows and A [K, H] their first K principal axes, a row w becomes

    mean        (w - mu) - (w - mu) A^T A     all-but-the-top, Mu and Viswanath 2018, algorithm 1
    released    (w - mu) - w A^T A            DelDirection as released with DefinitionEMB (Zhang, Li and Okumura 2024)
    kept        w - (w - mu) A^T A            components alone; the mean stays
    origin      w - w A^T A                   components around 0: A are the first right singular vectors of the table

"mean" is the default: only with it the directions are gone completely. "released" leaves the constant -mu A^T A in
every row. Taken out of all rows of an output table, a constant adds the same to every logit, and so changes nothing.
"""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from decone.files.foreign import quoted
from decone.metrics.table_geometry import row_blocks
from decone.models.tables import Table, blocks
from decone.repair.delta import RepairTarget, RowDelta
from decone.repair.methods.directions import Centre, Statistics

EQUAL = 1e-9  # relative difference of variances below which the order of two axes is open


@dataclass(frozen=True)
class PrincipalDirections:
    """Mean and principal axes to take out of rows.

    Attributes:
        centre: name of the formula.
        mean: of the rows measured, [H].
        axes: their first principal axes, unit and orthogonal, [K, H].
        variances: along all axes, falling, [H]; around 0 for "origin".
        rows: number of rows measured.
    """

    centre: Centre
    mean: Float64[Tensor, " H"]
    axes: Float64[Tensor, "K H"]
    variances: Float64[Tensor, " H"]
    rows: int

    @property
    def energy(self) -> float:
        """Share of the variance along the axes taken out, in [0, 1]."""
        total = float(self.variances.sum())
        return float(self.variances[: len(self.axes)].sum()) / total if total else 0.0

    def remove(self, rows: Float[Tensor, "n H"]) -> Float64[Tensor, "n H"]:
        """The rows without these directions, in float64."""
        exact = rows.double()
        around = exact - self.mean if self.centre in ("mean", "kept") else exact
        shifted = exact - self.mean if self.centre in ("mean", "released") else exact
        return shifted - (around @ self.axes.T) @ self.axes


def components_for(width: int) -> int:
    """Number of components that all-but-the-top takes: a hundredth of the width, rounded, and at least 1.

    Example:
        >>> components_for(768), components_for(32)
        (8, 1)
    """
    return max(1, round(width / 100))


def find_directions(
    table: Table, components: int | None = None, centre: Centre = "mean", ids: Int64[Tensor, " M"] | None = None
) -> PrincipalDirections:
    """Finds the mean and the principal axes of rows; reads the table twice, a block at a time, and adds in float64.

    Args:
        table: V x H.
        components: K, from 0 (the mean alone) to H - 1; None is `components_for` of the width.
        centre: name of the formula.
        ids: rows to measure, rising; None is all.

    Raises:
        ValueError: a row is not finite, K is out of range or more than the rows differ in, or nothing would change.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = torch.tensor([[1.0, 5.0], [1.0, -5.0], [2.0, 0.0], [0.0, 0.0]])
        >>> find_directions(MemoryTable("weight", table), 1).remove(table).abs().tolist()
        [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]
    """
    V, H = table.shape
    count = components_for(H) if components is None else components
    if centre not in get_args(Centre):
        raise ValueError(f"centre must be one of {', '.join(get_args(Centre))}, not {quoted(str(centre))}")
    if not 0 <= count < H:
        raise ValueError(f"{count} components of a table of width {H}; take from 0 to {H - 1}, e.g. {min(4, H - 1)}")
    if count == 0 and centre in ("kept", "origin"):
        raise ValueError(f"0 components and centre {quoted(centre)} change nothing; take out a component, or the mean")
    measured = torch.zeros(V, dtype=torch.bool)
    measured[torch.arange(V) if ids is None else ids] = True
    size = int(measured.sum())
    if size < 2:
        raise ValueError(f"directions need at least 2 rows, not {size}; choose more rows, or look at all of them")
    mean = torch.zeros(H, dtype=torch.float64)
    for start, block in blocks(table):
        for rows in row_blocks(block[measured[start : start + len(block)]]):
            mean += rows.sum(0)
    mean /= size
    if not bool(torch.isfinite(mean).all()):
        raise ValueError(_not_finite(table, measured))
    # Squares around the mean: those around 0 would round away what is small beside a large mean.
    scatter = torch.zeros(H, H, dtype=torch.float64)
    shift = torch.zeros_like(mean) if centre == "origin" else mean
    for start, block in blocks(table):
        for rows in row_blocks(block[measured[start : start + len(block)]]):
            # NumPy sees that both factors are one matrix and computes half of the product.
            centred = (rows - shift).numpy()
            with np.errstate(over="ignore", invalid="ignore"):  # reported below
                scatter += torch.from_numpy(centred.T @ centred)
    if not bool(torch.isfinite(scatter).all()):
        raise ValueError(f"entries of {table.name} are so large that their squares leave float64; scale the table down")
    values, axes = torch.linalg.eigh(scatter / size)
    variances = values.flip(0).clamp_min(0)
    rank = int((variances > float(variances[0]) * H * torch.finfo(torch.float64).eps).sum())
    if count > rank:
        raise ValueError(f"the {size:,} rows looked at differ in {rank} directions, not {count}; take fewer components")
    return PrincipalDirections(centre, mean, axes.flip(1).T[:count].contiguous(), variances, size)


@dataclass(frozen=True)
class RowsWithoutDirections:
    """Rows of a table without some directions, computed when they are read.

    Attributes:
        source: the table.
        ids: of the rows, rising, [M].
        directions: to take out of them.
    """

    source: Table
    ids: Int64[Tensor, " M"]
    directions: PrincipalDirections

    @property
    def name(self) -> str:
        """That of the source."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows M and width H."""
        return len(self.ids), self.source.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """That of the source."""
        return self.source.dtype

    def read(self, start: int = 0, stop: int | None = None) -> Float[Tensor, "M H"]:
        """New rows, by position in `ids` from start to stop.

        Raises:
            ValueError: a row cannot be repaired or does not fit the dtype of the table.
        """
        ids = self.ids[start:stop]
        if not len(ids):
            return torch.zeros(0, self.shape[1], dtype=self.dtype)
        first = int(ids[0])
        rows = self.source.read(first, int(ids[-1]) + 1)[ids - first]
        new = self.directions.remove(rows).to(self.dtype)
        wrong = ids[~torch.isfinite(new).all(1)]
        if len(wrong):
            raise ValueError(
                f"row {int(wrong[0])} of {self.name} is not finite, or would not fit into {self.dtype}; leave it out "
                "with --rows FILE"
            )
        return new


def remove_directions(
    target: RepairTarget,
    ids: Int64[Tensor, " M"],
    components: int | None = None,
    centre: Centre = "mean",
    statistics: Statistics = "all",
) -> tuple[RowDelta, dict[str, Any]]:
    """Takes directions out of rows of a model's table.

    Args:
        target: the table.
        ids: rows to change, rising.
        components: K; None is `components_for` of the width.
        centre: name of the formula.
        statistics: mean and axes are those of all rows, as in both papers, or of the chosen ones alone.

    Returns:
        The new rows, computed when they are read; and the results as data.

    Raises:
        ValueError: as `find_directions`.
    """
    if statistics not in get_args(Statistics):
        raise ValueError(f"statistics must be of all or of the chosen rows, not {quoted(str(statistics))}")
    directions = find_directions(target.table, components, centre, ids if statistics == "chosen" else None)
    count = len(directions.axes)
    results: dict[str, Any] = {
        "components": count,
        "mean_norm": float(directions.mean.norm()),
        "energy": directions.energy,
        "rows": directions.rows,
    }
    # Two equal variances leave their axes open: another machine may take out another one.
    if count > 0 and float(directions.variances[count - 1]) <= float(directions.variances[count]) * (1 + EQUAL):
        results["tie"] = f"components {count} and {count + 1} are equally strong; which one went is chance"
    return RowDelta(target, ids, RowsWithoutDirections(target.table, ids, directions)), results


def _not_finite(table: Table, measured: Bool[Tensor, " V"]) -> str:
    ids: list[int] = []
    for start, block in blocks(table):
        wrong = ~torch.isfinite(block).all(1) & measured[start : start + len(block)]
        ids += (start + wrong.nonzero().squeeze(1)).tolist()
    names = ", ".join(map(str, ids[:10])) or "sums of rows"
    return (
        f"{table.name} holds NaN or infinity ({len(ids):,} rows: {names}); look at others: --rows FILE and "
        "--statistics chosen"
    )
