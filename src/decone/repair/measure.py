"""A table before and after a repair: its geometry beside a control for shrinkage, and what became of single tokens."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from decone.metrics.effective_rank import effective_rank
from decone.metrics.group_cosine import group_cosines
from decone.metrics.isotropy import isotropy
from decone.metrics.norms import mean_direction, row_norms
from decone.metrics.row_change import nearest_rows, row_changes
from decone.models.tables import MemoryTable, blocks
from decone.repair.delta import Change
from decone.repair.result import Compared, Geometry, Neighbour, TableReport, TokenChange

QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
NEIGHBOURS = 5
SHOWN = 200  # characters of a token
ROWS = 1 << 12  # compared at once
HALF = 0.5  # of the mean length; less is told


def geometry(weight: Float[Tensor, "V H"]) -> Geometry:
    """Measures rows.

    Raises:
        ValueError: there is none, or one is not finite.

    Example:
        >>> found = geometry(torch.eye(4))
        >>> found.mean_cosine, found.norms["mean"], round(found.isotropy_plus_minus, 4)
        (0.0, 1.0, 0.589)
    """
    found, lengths = isotropy(weight), row_norms(weight)
    shares = np.quantile(lengths.numpy(), QUANTILES)
    return Geometry(
        rows=len(weight),
        isotropy=found.raw,
        isotropy_plus_minus=found.plus_minus,
        mean_cosine=group_cosines(weight, {"all": torch.arange(len(weight))})["all"]["all"],
        mean_direction=mean_direction(weight),
        effective_rank=effective_rank(weight) if bool(lengths.any()) else None,
        norms={
            "mean": float(lengths.mean()),
            **{str(share): float(value) for share, value in zip(QUANTILES, shares, strict=True)},
        },
    )


def shrunk(before: Float[Tensor, "V H"], after: Float[Tensor, "V H"]) -> Float[Tensor, "V H"]:
    """Scales each row to the length of another table's row; a row of zeros stays as it is.

    Example:
        >>> shrunk(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([[0.6000, 0.8000]])
    """
    lengths = row_norms(before)
    ratio = torch.where(lengths > 0, row_norms(after) / lengths.where(lengths > 0, 1.0), 0.0)
    exact = before if before.dtype == torch.float64 else before.float()
    return exact * ratio.to(exact.dtype)[:, None]


def compare(before: Float[Tensor, "V H"], after: Float[Tensor, "V H"]) -> Compared:
    """Measures rows before and after a repair, and the old rows at their new lengths."""
    old, new = geometry(before), geometry(after)
    pairs = zip(torch.split(before, ROWS), torch.split(after, ROWS), strict=True)
    cosine = torch.cat([row_changes(*pair).cosine for pair in pairs])
    return Compared(
        before=old,
        after=new,
        control=geometry(shrunk(before, after)),
        norm_ratio=new.norms["mean"] / old.norms["mean"] if old.norms["mean"] else None,
        cosine=float(cosine.mean()),
    )


def measure(change: Change, tokens: Sequence[str] | None = None, listed: int = 10, seed: int = 0) -> TableReport:
    """Measures what a change does to its table; both tables are held in memory, as they are stored.

    Rows that are not finite are left out.

    Args:
        change: the new rows.
        tokens: what stands in each row; None where it is unknown.
        listed: how many of the changed rows are shown one by one.
        seed: of their drawing.

    Raises:
        ValueError: no row can be measured, or new rows cannot be made.
    """
    table = change.target.table
    V = table.shape[0]
    before = table.read()
    ids = change.ids[change.ids < V]
    after = before.clone()
    after[ids] = change.rows.read()[: len(ids)]
    usable = torch.isfinite(before).all(1) & torch.isfinite(after).all(1)
    everything, changed = usable.nonzero().squeeze(1), ids[usable[ids]]
    groups = {"all": everything} | ({"changed": changed} if 0 < len(changed) < len(everything) else {})
    drawn = torch.randperm(len(changed), generator=torch.Generator().manual_seed(seed))[:listed]
    asked = changed[drawn].sort().values
    compared = {name: compare(_chosen(before, chosen), _chosen(after, chosen)) for name, chosen in groups.items()}
    return TableReport(
        role=change.target.role,
        tensors=list(change.target.names),
        shape=table.shape,
        dtype=str(table.dtype).removeprefix("torch."),
        changed=len(change.ids),
        groups=compared,
        tokens=_tokens(before, after, asked, usable, tokens),
    )


def _tokens(
    before: Float[Tensor, "V H"],
    after: Float[Tensor, "V H"],
    asked: Int64[Tensor, " M"],
    usable: Bool[Tensor, " V"],
    tokens: Sequence[str] | None,
) -> list[TokenChange]:
    if not len(asked):
        return []

    def text(row: int) -> str:
        return tokens[row][:SHOWN] if tokens is not None and row < len(tokens) else f"<row {row}>"

    near = [
        nearest_rows(asked, weight[asked], blocks(MemoryTable("weight", weight)), usable, NEIGHBOURS).tolist()
        for weight in (before, after)
    ]
    change = row_changes(before[asked], after[asked])
    return [
        TokenChange(
            id=row,
            token=text(row),
            norm_before=float(change.before[place]),
            norm_after=float(change.after[place]),
            cosine=float(change.cosine[place]),
            neighbours_before=[Neighbour(id=other, token=text(other)) for other in near[0][place] if other >= 0],
            neighbours_after=[Neighbour(id=other, token=text(other)) for other in near[1][place] if other >= 0],
        )
        for place, row in enumerate(asked.tolist())
    ]


def _chosen(weight: Float[Tensor, "V H"], ids: Int64[Tensor, " M"]) -> Float[Tensor, "M H"]:
    return weight if len(ids) == len(weight) else weight[ids]


def warnings(report: TableReport) -> list[str]:
    """What the numbers of a table say against a repair, in sentences."""
    found = report.groups["all"]
    name, said = report.tensors[0], []
    after, control = found.after.isotropy_plus_minus, found.control.isotropy_plus_minus
    if after <= control:  # with both signs, for one sign of an axis may flatter either
        said.append(
            f"{name}: I(W) of both signs, {after:.3f}, is no higher than {control:.3f}, that of the "
            "original rows at the repaired lengths; rows that merely shrink would do as well"
        )
    if found.norm_ratio is not None and found.norm_ratio < HALF:
        said.append(
            f"{name}: rows have {found.norm_ratio:.0%} of their length; beside positions and types that are added to "
            "them they count for less, so fine-tune the model"
        )
    return said
