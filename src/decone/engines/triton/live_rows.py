"""Order of positions in tiles, and the columns that the products of the gradient must touch."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from decone.engines.sweep import sort_positions


class TileOrder(NamedTuple):
    """An order of positions that fills complete tiles.

    Attributes:
        position: position of each entry of the order, N where it only fills a tile, [M].
        filled: mask of entries with a position, [M].
        common: number of the first tiles with common targets; None where classes do not matter.
    """

    position: Int[Tensor, " M"]
    filled: Bool[Tensor, " M"]
    common: Int[Tensor, ""] | None


def arrange_tiles(
    N: int,
    rows: int,
    key: Float[Tensor, " N"] | None,
    rare: Bool[Tensor, " N"] | None,
    device: torch.device | None = None,
) -> TileOrder:
    """Makes positions that need the same columns neighbours; no tile mixes the two classes.

    The number of rare targets stays on the device, so there may be one tile more than needed.

    Args:
        N: number of positions.
        rows: positions per tile.
        key: sorted by, ascending; None leaves the order as it is.
        rare: mask of rare targets; None where classes do not matter.
        device: of the order.

    Example:
        >>> arrange_tiles(3, 2, torch.tensor([0.3, 0.1, 0.2]), None).position.tolist()
        [1, 2, 0, 3]
        >>> arrange_tiles(3, 2, None, torch.tensor([True, False, True])).position.tolist()
        [1, 3, 0, 2, 3, 3]
    """
    order = sort_positions(key, rare)
    if order is None:
        order = torch.arange(N, device=device)
    M = -(-N // rows) * rows
    if rare is None:
        index = torch.cat((order, order.new_full((M - N,), N)))
        return TileOrder(index, index < N, None)
    rank = torch.arange(N, device=device)
    common = N - rare.sum()
    border = (common + rows - 1) // rows
    index = rank.new_full((M + rows,), N)
    index[rank + torch.where(rank < common, 0, border * rows - common)] = order
    return TileOrder(index, index < N, border)


class LiveColumns(NamedTuple):
    """Live columns by tile of positions and by group of columns; G tiles, K groups.

    Attributes:
        of_tile: the live columns of each tile of positions, then anything, [G, V].
        counts: number of live columns of each tile, [G].
        by_life: all columns, those that live in most tiles first, so that neighbours live in the same tiles, [V].
        tiles: the tiles of positions in which a group of neighbours in `by_life` has a live column, ascending, [K, G].
        common: number of those with common targets, [K]; all without a gate.
        reach: number of tiles in which a group has a live column, [K].
    """

    of_tile: Int[Tensor, "G V"]
    counts: Int[Tensor, " G"]
    by_life: Int[Tensor, " V"]
    tiles: Int[Tensor, "K G"]
    common: Int[Tensor, " K"]
    reach: Int[Tensor, " K"]


def list_live_columns(live: Int8[Tensor, "G V"], group: int, common: int | Int[Tensor, ""]) -> LiveColumns:
    """Lists live columns from the live bits of the sweep, by prefix sums and one sort; the host does not wait.

    Args:
        live: 1 where a tile of positions keeps a logit of that column.
        group: columns per group, >= 1.
        common: number of the first tiles with common targets; G without a gate.

    Example:
        >>> columns = list_live_columns(torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]], dtype=torch.int8), 2, 2)
        >>> columns.of_tile[0, :2].tolist(), columns.counts.tolist(), columns.by_life.tolist()
        ([1, 2], [2, 1], [2, 1, 0, 3])
        >>> columns.tiles.tolist()[0], columns.reach.tolist()
        ([0, 1], [2, 0])
    """
    G, V = live.shape
    counts, of_tile = _list_flags(live)
    by_life = live.sum(0, dtype=torch.int32).argsort(descending=True, stable=True)
    grouped = live.new_zeros(G, -(-V // group) * group)
    grouped[:, :V] = live[:, by_life]
    grouped = grouped.view(G, -1, group).amax(2).T.contiguous()
    reach, tiles = _list_flags(grouped)
    early = torch.arange(G, device=live.device) < common
    return LiveColumns(of_tile, counts, by_life.int(), tiles, (grouped * early).sum(1, dtype=torch.int32), reach)


def _list_flags(flags: Int8[Tensor, "A B"]) -> tuple[Int[Tensor, " A"], Int[Tensor, "A B"]]:
    """The number of flags of each row, and their columns in order, at the beginning of each row of the second."""
    A, B = flags.shape
    rank = flags.cumsum(1, dtype=torch.int32)
    counts = rank[:, -1].contiguous()
    # Columns without a flag go behind the end of the row.
    index = torch.where(flags > 0, rank - 1, B).long()
    column = torch.arange(B, dtype=torch.int32, device=flags.device).expand(A, B)
    return counts, flags.new_zeros(A, B + 1, dtype=torch.int32).scatter_(1, index, column)[:, :B].contiguous()
