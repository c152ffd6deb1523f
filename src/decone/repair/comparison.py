"""A table before and after a repair: its geometry beside a control for shrinkage, and the change of single tokens."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from decone.metrics import table_geometry
from decone.metrics.neighbours import nearest_rows, row_changes
from decone.metrics.table_geometry import effective_rank, group_cosines, isotropy, mean_direction, row_norms
from decone.models.tables import MemoryTable, blocks
from decone.repair.delta import RowDelta
from decone.repair.result import GeometryComparison, NeighbourRow, RowGeometry, TableRepair, TokenChange

NEIGHBOURS = 5
TOKEN_LENGTH = 200  # characters of a token
ROWS = 1 << 12  # compared at once
NOTHING = 1e-6  # of the new length; old rows below it count as zero
HALF = 0.5  # of the mean length; below it a warning is written


def geometry(weight: Float[Tensor, "V H"]) -> RowGeometry:
    """Measures rows.

    Raises:
        ValueError: there is none, or one is not finite.

    Example:
        >>> eye = geometry(torch.eye(4))
        >>> eye.mean_cosine, eye.norms["mean"], round(eye.isotropy_plus_minus, 4)
        (0.0, 1.0, 0.589)
    """
    partition, lengths = isotropy(weight), row_norms(weight)
    return RowGeometry(
        rows=len(weight),
        isotropy=partition.raw,
        isotropy_plus_minus=partition.plus_minus,
        mean_cosine=group_cosines(weight, {"all": torch.arange(len(weight))})["all"]["all"],
        mean_direction=mean_direction(weight),
        effective_rank=effective_rank(weight) if bool(lengths.any()) else None,
        norms=norm_quantiles(lengths),
    )


def norm_quantiles(lengths: Float64[Tensor, " N"]) -> dict[str, float]:
    """Mean and quantiles of lengths, by their names.

    Example:
        >>> norm_quantiles(torch.ones(3, dtype=torch.float64))["mean"]
        1.0
    """
    return {"mean": float(lengths.mean()), **table_geometry.norm_quantiles(lengths)}


def scale_to_norms(before: Float[Tensor, "V H"], after: Float[Tensor, "V H"]) -> Float[Tensor, "V H"]:
    """Scales each row to the length of another table's row; a row of zeros stays as it is.

    Example:
        >>> scale_to_norms(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([[0.6000, 0.8000]])
    """
    lengths = row_norms(before)
    ratio = torch.where(lengths > 0, row_norms(after) / lengths.where(lengths > 0, 1.0), 0.0)
    exact = before if before.dtype == torch.float64 else before.float()
    return exact * ratio.to(exact.dtype)[:, None]


def compare_geometry(before: Float[Tensor, "V H"], after: Float[Tensor, "V H"]) -> GeometryComparison:
    """Measures rows before and after a repair, and the old rows at their new lengths."""
    old, new = geometry(before), geometry(after)
    pairs = zip(torch.split(before, ROWS), torch.split(after, ROWS), strict=True)
    cosine = torch.cat([row_changes(*pair).cosine for pair in pairs])
    return GeometryComparison(
        before=old,
        after=new,
        control=geometry(scale_to_norms(before, after)),
        norm_ratio=new.norms["mean"] / old.norms["mean"] if old.norms["mean"] > NOTHING * new.norms["mean"] else None,
        cosine=float(cosine.mean()),
    )


def measure_repair(
    delta: RowDelta, tokens: Sequence[str] | None = None, listed: int = 10, seed: int = 0
) -> TableRepair:
    """Measures the effect of new rows on their table; both tables are held in memory, as they are stored.

    Rows that are not finite are left out.

    Args:
        delta: the new rows.
        tokens: one per row; None where they are unknown.
        listed: number of changed rows that are listed one by one.
        seed: of their selection.

    Raises:
        ValueError: no row can be measured, or new rows cannot be made.
    """
    table = delta.target.table
    V = table.shape[0]
    before = table.read()
    ids = delta.ids[delta.ids < V]
    after = before.clone()
    after[ids] = delta.rows.read()[: len(ids)]
    usable = torch.isfinite(before).all(1) & torch.isfinite(after).all(1)
    everything, changed = usable.nonzero().squeeze(1), ids[usable[ids]]
    groups = {"all": everything} | ({"changed": changed} if 0 < len(changed) < len(everything) else {})
    sample = torch.randperm(len(changed), generator=torch.Generator().manual_seed(seed))[:listed]
    comparisons = {name: compare_geometry(_rows(before, rows), _rows(after, rows)) for name, rows in groups.items()}
    return TableRepair(
        role=delta.target.role,
        tensors=list(delta.target.names),
        shape=table.shape,
        dtype=str(table.dtype).removeprefix("torch."),
        changed=len(delta.ids),
        groups=comparisons,
        tokens=_token_changes(before, after, changed[sample].sort().values, usable, tokens),
    )


def _token_changes(
    before: Float[Tensor, "V H"],
    after: Float[Tensor, "V H"],
    ids: Int64[Tensor, " M"],
    usable: Bool[Tensor, " V"],
    tokens: Sequence[str] | None,
) -> list[TokenChange]:
    if not len(ids):
        return []

    def text(row: int) -> str:
        return tokens[row][:TOKEN_LENGTH] if tokens is not None and row < len(tokens) else f"<row {row}>"

    nearest = [
        nearest_rows(ids, weight[ids], blocks(MemoryTable("weight", weight)), usable, NEIGHBOURS).tolist()
        for weight in (before, after)
    ]
    change = row_changes(before[ids], after[ids])
    return [
        TokenChange(
            id=row,
            token=text(row),
            norm_before=float(change.before[index]),
            norm_after=float(change.after[index]),
            cosine=float(change.cosine[index]),
            neighbours_before=[NeighbourRow(id=near, token=text(near)) for near in nearest[0][index] if near >= 0],
            neighbours_after=[NeighbourRow(id=near, token=text(near)) for near in nearest[1][index] if near >= 0],
        )
        for index, row in enumerate(ids.tolist())
    ]


def _rows(weight: Float[Tensor, "V H"], ids: Int64[Tensor, " M"]) -> Float[Tensor, "M H"]:
    return weight if len(ids) == len(weight) else weight[ids]


def repair_warnings(table: TableRepair) -> list[str]:
    """Reasons in the numbers of a table not to apply a repair, in sentences."""
    comparison = table.groups["all"]
    name, warnings = table.tensors[0], list[str]()
    after, control = comparison.after.isotropy_plus_minus, comparison.control.isotropy_plus_minus
    if after <= control:  # with both signs, for one sign of an axis may flatter either
        warnings.append(
            f"{name}: I(W) of both signs, {after:.3f}, is no higher than {control:.3f}, that of the "
            "original rows at the repaired lengths; rows that merely shrink would do as well"
        )
    if comparison.norm_ratio is not None and comparison.norm_ratio < HALF:
        warnings.append(
            f"{name}: rows have {comparison.norm_ratio:.0%} of their length; beside positions and types that are added "
            "to them they count for less, so fine-tune the model"
        )
    return warnings
