"""Which columns the products of the gradient must touch, from the live bits of the sweep; nothing is compared again."""

from typing import NamedTuple

import torch
from jaxtyping import Int, Int8
from torch import Tensor


class Columns(NamedTuple):
    """Live columns from two sides; G tiles of positions, K groups of columns.

    Attributes:
        of_tile: the live columns of each tile of positions, then anything, [G, V].
        counts: how many they are, [G].
        by_life: all columns, those that live in most tiles first, so that neighbours live in the same tiles, [V].
        tiles: the tiles of positions in which a group of neighbours in `by_life` has a live column, ascending, [K, G].
        common: how many of those hold positions with a common target, [K]; all without a gate.
        reach: how many they are, [K].
    """

    of_tile: Int[Tensor, "G V"]
    counts: Int[Tensor, " G"]
    by_life: Int[Tensor, " V"]
    tiles: Int[Tensor, "K G"]
    common: Int[Tensor, " K"]
    reach: Int[Tensor, " K"]


def compact(live: Int8[Tensor, "G V"], group: int, common: int | Int[Tensor, ""]) -> Columns:
    """Lists live columns by prefix sums and one sort, without a wait of the host.

    Args:
        live: 1 where a tile of positions keeps a logit of that column.
        group: columns per group, >= 1.
        common: the first so many tiles hold positions with a common target; G without a gate.

    Example:
        >>> found = compact(torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]], dtype=torch.int8), 2, 2)
        >>> found.of_tile[0, :2].tolist(), found.counts.tolist(), found.by_life.tolist()
        ([1, 2], [2, 1], [2, 1, 0, 3])
        >>> found.tiles.tolist()[0], found.reach.tolist()
        ([0, 1], [2, 0])
    """
    G, V = live.shape
    counts, of_tile = _listed(live)
    by_life = live.sum(0, dtype=torch.int32).argsort(descending=True, stable=True)
    grouped = live.new_zeros(G, -(-V // group) * group)
    grouped[:, :V] = live[:, by_life]
    grouped = grouped.view(G, -1, group).amax(2).T.contiguous()
    reach, tiles = _listed(grouped)
    early = torch.arange(G, device=live.device) < common
    return Columns(of_tile, counts, by_life.int(), tiles, (grouped * early).sum(1, dtype=torch.int32), reach)


def _listed(flags: Int8[Tensor, "A B"]) -> tuple[Int[Tensor, " A"], Int[Tensor, "A B"]]:
    """How many flags each row has, and where they stand, in order, at the beginning of each row of the second."""
    A, B = flags.shape
    place = flags.cumsum(1, dtype=torch.int32)
    counts = place[:, -1].contiguous()
    # What is not flagged goes to a place behind the row's last.
    into = torch.where(flags > 0, place - 1, B).long()
    here = torch.arange(B, dtype=torch.int32, device=flags.device).expand(A, B)
    return counts, flags.new_zeros(A, B + 1, dtype=torch.int32).scatter_(1, into, here)[:, :B].contiguous()
