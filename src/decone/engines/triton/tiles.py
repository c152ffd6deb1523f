"""Tiles of logits: their sizes, the positions and the columns in them, and the sums over them.

Sizes are candidates that fit the precision, and the quickest of a few by trying them on the device at hand. The log of
a sum of exponentials is kept as two terms, so that no digit is lost to an offset that all logits share.
"""

import os
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from decone.engines.sweep import sort_positions
from decone.engines.triton.triton_compat import interpreted
from decone.files.foreign import quoted


class Tile(NamedTuple):
    """Sizes of the work of one program of a kernel."""

    rows: int  # positions (products with the table's columns: columns of the table), a power of two, >= 16
    columns: int  # rows of the table (products with the table: hidden units), a power of two, >= 16
    depth: int  # steps of the summed axis, a power of two, >= 16
    warps: int = 4
    stages: int = 2  # number of steps that are loaded from memory at a time

    def area(self) -> dict[str, int]:
        """Constants of a kernel that works on a tile of logits."""
        return {"ROWS": self.rows, "COLUMNS": self.columns}

    def options(self) -> dict[str, int | bool]:
        """Settings of a launch; fused multiply-add by name, because Triton's default is about to change."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


class Tiles(NamedTuple):
    """Candidates per kernel; all have the same number of rows, which is the grain of live columns."""

    logits: Sequence[Tile]  # tiles of logits, columns >= rows
    hidden: Sequence[Tile]  # tiles of the gradient of hidden states
    # tiles of the gradient of the table, all with the same rows; their depth divides the rows of `logits`
    table: Sequence[Tile]


# Products of float32 without TF32 run on ordinary cores and keep their tile in registers: it must be smaller.
_WIDE = Tiles(
    [Tile(64, 64, 32, 4, 2), Tile(64, 64, 32, 8, 2), Tile(64, 128, 16, 8, 3)],
    [Tile(64, 64, 32, 4, 2), Tile(64, 128, 16, 8, 2)],
    [Tile(64, 64, 32, 4, 2), Tile(64, 128, 16, 8, 2)],
)
_HALF = Tiles(
    [Tile(128, 128, 32, 4, 4), Tile(128, 128, 64, 8, 3), Tile(128, 256, 64, 8, 3), Tile(128, 256, 32, 8, 4)],
    [Tile(128, 128, 32, 4, 4), Tile(128, 128, 64, 8, 3), Tile(128, 256, 64, 8, 3)],
    [Tile(128, 128, 32, 4, 4), Tile(128, 128, 64, 8, 3), Tile(128, 256, 64, 8, 3)],
)
_TINY = Tiles([Tile(16, 16, 16)], [Tile(16, 16, 16)], [Tile(16, 16, 16)])


def candidates(dtype: torch.dtype) -> Tiles:
    """Tiles worth trying for inputs of this type; one of each, and small ones, in the interpreter."""
    if interpreted():
        return _TINY
    return _WIDE if dtype == torch.float32 else _HALF


FIXED = "DECONE_TRITON_TILES"
Candidate = TypeVar("Candidate")
_FASTEST: dict[Hashable, int] = {}


def quickest(
    key: Hashable,
    choices: Sequence[Candidate],
    run: Callable[[Candidate], object],
    reset: Callable[[], object] | None = None,
) -> Candidate:
    """The choice that runs fastest, timed once per key (all that the answer depends on) and process.

    The environment variable DECONE_TRITON_TILES, a whole number from 0, takes the choice of that index (or the last)
    untried, for every kernel: sums then have the same order, and results the same bits, in every process. A choice
    that the device has no room for is passed over. `run` launches the kernel, many times; `reset` is called at the
    end, where it adds to something.

    Raises:
        ValueError: DECONE_TRITON_TILES is no such number.
        RuntimeError: none of them runs; the last failure is its cause.
    """
    if len(choices) == 1:
        return choices[0]
    fixed = os.environ.get(FIXED)
    if fixed is not None:
        if not fixed.isdecimal():
            raise ValueError(
                f"{FIXED} must be 0 or a larger whole number, got {quoted(fixed)}; unset it to try all tiles"
            )
        return choices[min(int(fixed), len(choices) - 1)]
    if key not in _FASTEST:
        times = [_time(run, choice) for choice in choices]
        best = min(range(len(choices)), key=lambda i: times[i][0])
        if times[best][1] is not None:
            raise RuntimeError(f"no tile of the triton engine fits this device, tried {choices}") from times[best][1]
        _FASTEST[key] = best
        if reset is not None:
            reset()
    return choices[_FASTEST[key]]


def _time(run: Callable[[Candidate], object], choice: Candidate, rounds: int = 3) -> tuple[float, Exception | None]:
    """Milliseconds of one launch, the least of a few; infinite where the kernel does not fit."""
    least = float("inf")
    try:
        run(choice)  # compiles
        for _ in range(rounds):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            run(choice)
            end.record()
            end.synchronize()
            least = min(least, begin.elapsed_time(end))
    except _no_room() as error:
        return float("inf"), error
    return least, None


@cache
def _no_room() -> tuple[type[Exception], ...]:
    from triton.runtime.errors import OutOfResources

    return (OutOfResources,)


class TileOrder(NamedTuple):
    """An order of positions that fills complete tiles."""

    position: Int[Tensor, " M"]  # position of each entry of the order, N where it only fills a tile
    filled: Bool[Tensor, " M"]  # mask of entries with a position
    common: Int[Tensor, ""] | None  # number of the first tiles with common targets; None where classes do not matter


def arrange_tiles(
    N: int,
    rows: int,
    key: Float[Tensor, " N"] | None,
    rare: Bool[Tensor, " N"] | None,
    device: torch.device | None = None,
) -> TileOrder:
    """Makes positions that need the same columns neighbours, by ascending key; no tile mixes the two classes.

    The number of rare targets stays on the device, so there may be one tile more than needed.

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
    """Live columns by tile of positions and by group of columns; G tiles, K groups."""

    of_tile: Int[Tensor, "G V"]  # the live columns of each tile of positions, then anything
    counts: Int[Tensor, " G"]  # number of live columns of each tile
    # all columns, those that live in most tiles first, so that neighbours live in the same tiles
    by_life: Int[Tensor, " V"]
    # the tiles of positions in which a group of neighbours in `by_life` has a live column, ascending
    tiles: Int[Tensor, "K G"]
    common: Int[Tensor, " K"]  # number of these tiles with common targets; all without a gate
    reach: Int[Tensor, " K"]  # number of tiles in which a group has a live column


def list_live_columns(live: Int8[Tensor, "G V"], group: int, common: int | Int[Tensor, ""]) -> LiveColumns:
    """Lists live columns from the live bits of the sweep, by prefix sums and one sort; the host does not wait.

    Groups of `group` neighbours; `common` is the number of the first tiles with common targets, G without a gate.

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


class LogSum(NamedTuple):
    """A log-sum-exp that is never rounded at the size of the logits unless asked for."""

    highest: Float[Tensor, " C"]  # greatest logit of each position
    # log of the sum of exponentials over it, with all digits where the greatest outweighs the others
    remainder: Float[Tensor, " C"]

    def value(self) -> Float[Tensor, " C"]:
        """The log-sum-exp itself."""
        return self.highest + self.remainder

    def less(self, logit: Float[Tensor, "*D C"]) -> Float[Tensor, "*D C"]:
        """The log-sum-exp less logits: their negative log-likelihood."""
        return (self.highest - logit) + self.remainder

    def select(self, index: slice | Tensor) -> "LogSum":
        """The same of a selection of positions, which may repeat."""
        return LogSum(self.highest[index], self.remainder[index])


def log_sum(
    top: Float[Tensor, "T C"],
    beyond: Float[Tensor, "T C"],
    filled: Bool[Tensor, " C"],
    target_logit: Float[Tensor, " C"] | None = None,
) -> LogSum:
    """Joins the sums of column tiles: the greatest logit of each, and the sum beyond it less the greatest's own 1.

    Both terms are 0 where an entry is not filled; `target_logit` is given where the tiles leave the target out.

    Example:
        >>> total = log_sum(torch.tensor([[100.0], [90.0]]), torch.tensor([[1e-9], [0.0]]), torch.tensor([True]))
        >>> total.highest.item(), f"{total.remainder.item():.4g}"
        (100.0, '4.54e-05')
    """
    heights = top if target_logit is None else torch.cat((top, target_logit[None]))
    highest, first = heights.max(0)
    empty = highest == -torch.inf
    highest = torch.where(empty, 0.0, highest)
    share = (heights - highest).exp()
    sums = (share[: top.size(0)] * beyond).sum(0)
    # The greatest of all is the 1 of log1p, not a term of the sum.
    sums = sums + share.scatter(0, first[None], 0.0).sum(0)
    remainder = torch.where(empty, -torch.inf, sums.log1p())
    return LogSum(torch.where(filled, highest, 0.0), torch.where(filled, remainder, 0.0))
