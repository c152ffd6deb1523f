"""Where the page of a scan draws the rows of a table: its main plane, and which rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from decone.diagnosis.drawing import Drawing
from decone.diagnosis.moments import gather, layout
from decone.metrics.norms import row_norms
from decone.metrics.spectrum import principal_axes
from decone.models.tables import Table, blocks

DRAWN = 4000


@dataclass(frozen=True)
class Plane:
    """The first two principal components of a table.

    Attributes:
        mean: of its rows, [H].
        axes: unit loadings, [2, H]; the second is zero in a table of one column.
    """

    mean: Float64[Tensor, " H"]
    axes: Float64[Tensor, "2 H"]


def plane_of(mean: Float64[Tensor, " H"], covariance: Float64[Tensor, "H H"]) -> Plane:
    """Finds the main plane from mean and covariance (up to a factor) of all rows."""
    axes = torch.zeros(2, len(mean), dtype=torch.float64)
    known = min(2, len(mean))
    axes[:known] = principal_axes(covariance, known)
    return Plane(mean, axes)


def draw(
    name: str,
    table: Table,
    tokens: Sequence[str],
    groups: Mapping[str, Int64[Tensor, " M"]],
    rank: Int64[Tensor, " V"] | None,
    suspects: set[int],
    seed: int = 0,
    plane: Plane | None = None,
) -> Drawing:
    """Chooses rows of a table and puts them on its two main components, which are those of all rows of the groups.

    Args:
        name: "embedding" or "head".
        table: where the rows are.
        tokens: text of every row.
        groups: different ids by name, no id in two groups.
        rank: frequency rank of each row; None stands for id + 1.
        suspects: ids that must be drawn; those in no group are left out, as their rows may hold NaN.
        seed: of the sample.
        plane: from `survey` of the same table and groups; without it the table is read once more.

    Returns:
        At most 4,000 rows by rising id: the suspects, and as many of each group, or all of a small one.

    Raises:
        ValueError: as of `measure_table`, or there is not one text per row.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = MemoryTable("weight", torch.tensor([[1.0, 5.0], [-1.0, 5.0], [0.0, 8.0]]))
        >>> drawing = draw("head", table, ["a", "b", "c"], {"rare": torch.arange(3)}, None, {2})
        >>> drawing.plane.round(6).tolist(), drawing.suspect.tolist()
        ([[-1.0, 1.0], [-1.0, -1.0], [2.0, 0.0]], [False, False, True])
    """
    arranged = layout(table, groups)
    if len(tokens) != table.shape[0]:
        raise ValueError(f"{table.name} has {table.shape[0]} rows and {len(tokens)} texts; give one text per row")
    if plane is None:
        moments = gather(table, arranged, seed)
        plane = plane_of(moments.total / moments.count, moments.covariance(moments.gram()))
    marked = torch.tensor(sorted(id for id in suspects if 0 <= id < table.shape[0]), dtype=torch.long)
    ids = _chosen(arranged.label, marked[arranged.label[marked] >= 0], seed)
    rows = torch.cat([block[ids[_inside(ids, start, block)] - start].double() for start, block in blocks(table)])
    drawn = ids.tolist()
    return Drawing(
        table=name,
        ids=ids.numpy(),
        tokens=[tokens[id] for id in drawn],
        groups=[arranged.names[place] for place in arranged.label[ids].tolist()],
        plane=((rows - plane.mean) @ plane.axes.T).numpy(),
        rank=(ids + 1 if rank is None else rank[ids]).numpy(),
        norm=row_norms(rows).numpy(),
        suspect=torch.isin(ids, marked).numpy(),
    )


def _chosen(label: Int64[Tensor, " V"], marked: Int64[Tensor, " S"], seed: int) -> Int64[Tensor, " M"]:
    generator = torch.Generator().manual_seed(seed)
    chosen = [marked[torch.randperm(len(marked), generator=generator)[:DRAWN]]]
    left = DRAWN - len(chosen[0])
    open_to = label.clone()
    open_to[marked] = -1
    members = [(open_to == place).nonzero().squeeze(1) for place in range(int(label.max()) + 1)]
    members.sort(key=len)
    for turn, ids in enumerate(members):  # what a small group does not need is left to the larger ones
        share = left // (len(members) - turn)
        taken = ids[torch.randperm(len(ids), generator=generator)[:share]]
        chosen.append(taken)
        left -= len(taken)
    return torch.cat(chosen).sort().values


def _inside(ids: Int64[Tensor, " M"], start: int, block: Tensor) -> Tensor:
    return (ids >= start) & (ids < start + len(block))
