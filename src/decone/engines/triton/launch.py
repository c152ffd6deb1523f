"""Launches of the kernels: their inputs, their results, and the sizes of their grids."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from decone.engines.contract import Readout, Shift, Tokens
from decone.engines.triton import kernels
from decone.engines.triton.history import History
from decone.engines.triton.tiles import LiveColumns, Tile

_ROWS, _WIDTH = 32, 256  # positions and hidden units that a program takes at a time


def float16_lift(dtype: torch.dtype) -> float:
    """Factor on exponentials before they are rounded: float16 has no small numbers, but room above 1."""
    return 2.0**15 if dtype == torch.float16 else 1.0


class LogitRecipe(NamedTuple):
    """Settings of the logits: tile, precision of float32 products, readout, and the declarative part of the rule."""

    tile: Tile
    precision: str
    readout: Readout
    temperature: float = 1.0
    shift: Shift | None = None

    def constants(self, bias: Tensor | None) -> dict[str, Any]:
        """Constants of a kernel that makes logits, and options of its launch."""
        return {
            "BIASED": bias is not None,
            "CAPPED": self.readout.softcap is not None,
            "SHIFTED": self.shift is not None,
            "PRECISION": self.precision,
            "DEPTH": self.tile.depth,
            **self.tile.area(),
            **self.tile.options(),
        }

    def numbers(self) -> tuple[float, float, float, float, float]:
        """Scale, cap, temperature, and the constants for earlier targets and for novel ids."""
        shift = self.shift or Shift()
        return self.readout.scale, self.readout.softcap or 1.0, self.temperature, shift.earlier, shift.novel


@dataclass
class TileChunk:
    """Positions that go through the sweep together, in their order there; a whole number of tiles."""

    hidden: Float[Tensor, "C H"]
    target: Int[Tensor, " C"]  # token ids, -1 where a position only fills the last tile
    target_logit: Float[Tensor, " C"]  # logit of the target after scale and shift, float32
    plain_target_logit: Float[Tensor, " C"]  # the same as the model puts it out
    floor: Float[Tensor, " C"] | None  # logits below it are dropped, [C]; None where the rule drops none
    history: History | None
    tokens: Tokens | None = None


@dataclass
class TileSums:
    """Results of a sweep over a chunk; T tiles of columns, G tiles of positions. Targets' own logits are left out."""

    # exponentials over the greatest of their column tile, times the softcap's slope and `float16_lift`
    entry: Float[Tensor, "V C"] | None
    # 1 where a tile of positions keeps a logit that is no target; None where the rule drops none
    live: Int8[Tensor, "G V"] | None
    top: Float[Tensor, "T C"]  # greatest kept logit per column tile
    beyond: Float[Tensor, "T C"]  # sum of exponentials over it, less the greatest's own 1
    count: Int[Tensor, "T C"]  # kept logits
    # like `top`, of all logits as the model puts them out; None unless asked for
    plain_top: Float[Tensor, "T C"] | None
    plain_beyond: Float[Tensor, "T C"] | None
    # kept logits of earlier targets, by their index in the list, [C, L]; None without a charge
    pair_logit: Float[Tensor, "C L"] | None


def _tables(history: History | None) -> tuple[Tensor | None, ...]:
    """Earlier targets as kernels take them: lists, lengths, slots and ranks."""
    if history is None:
        return None, None, None, None
    return history.list_of, history.length, history.slot, history.rank


def _sizes(history: History | None) -> tuple[int, int]:
    """Their sizes as kernels take them: distinct targets, and the longest list."""
    return (0, 0) if history is None else (history.rank.size(1), history.longest)


def target_logits(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    target: Int[Tensor, " N"],
    history: History | None,
    recipe: LogitRecipe,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The logit of every target in float32, as the model puts it out, and after scale and shift.

    Costs 2NH flops times the tile's columns: about one column of tiles of the sweep.
    """
    N, H = hidden.shape
    plain, ruled = (torch.empty(N, dtype=torch.float32, device=hidden.device) for _ in range(2))
    inputs = (weight, hidden, bias, target, *_tables(history))
    sizes = (N, weight.size(0), H, _sizes(history)[0])
    kernels.target_logits_kernel[(-(-N // recipe.tile.rows),)](
        *inputs, plain, ruled, *sizes, *recipe.numbers(), **recipe.constants(bias)
    )
    return plain, ruled


def sweep_tiles(
    chunk: TileChunk,
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    recipe: LogitRecipe,
    *,
    plain: bool,
    charged: bool,
    entry: Float[Tensor, "V C"] | None,
) -> TileSums:
    """Forms the exponentials and sums of a chunk of positions.

    Also of the logits as the model puts them out if `plain`, and the logits of earlier targets if `charged`; `entry`
    is room for the exponentials, None where no gradient is requested.
    """
    C, V, tile = chunk.hidden.size(0), weight.size(0), recipe.tile
    T, device = -(-V // tile.columns), weight.device
    lists = chunk.history

    def room(requested: bool = True, dtype: torch.dtype = torch.float32) -> Tensor | None:
        return torch.empty(T, C, dtype=dtype, device=device) if requested else None

    top, beyond, count = room(), room(), room(dtype=torch.int32)
    assert top is not None and beyond is not None and count is not None
    live = None if chunk.floor is None else torch.empty(C // tile.rows, V, dtype=torch.int8, device=device)
    pair_logit = None
    if charged:
        assert lists is not None
        pair_logit = torch.full((C, lists.longest), float("-inf"), device=device)
    sums = TileSums(entry, live, top, beyond, count, room(plain), room(plain), pair_logit)
    inputs = (weight, chunk.hidden, bias, chunk.target, chunk.floor, *_tables(lists))
    results = (pair_logit, entry, live, top, beyond, count, sums.plain_top, sums.plain_beyond)
    sizes = (C, V, weight.size(1), *_sizes(lists))
    kernels.sweep_kernel[(C // tile.rows, T)](
        *inputs,
        *results,
        *sizes,
        *recipe.numbers(),
        CHARGED=charged,
        FLOORED=chunk.floor is not None,
        PLAIN=plain,
        LEARNING=entry is not None,
        LIFT=1.0 if entry is None else float16_lift(entry.dtype),
        **recipe.constants(bias),
    )
    return sums


def to_slopes(
    chunk: TileChunk,
    sums: TileSums,
    above: Float[Tensor, "T C"],
    gain: Float[Tensor, " C"],
    slope: Float[Tensor, "C L"] | None,
    tile: Tile,
    biased: bool,
    up: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "G V"] | None:
    """Makes `sums.entry` the gradient of the logits without the targets' own entries; sums over positions if `biased`.

    `above` is the greatest logit of each column tile less the log-sum-exp, `gain` a factor on the probabilities,
    `slope` has the entries of earlier targets (None leaves them like all others), and `up` is a factor on the stored
    entries, not on the sums.
    """
    assert sums.entry is not None
    V, C = sums.entry.shape
    G, lists = C // tile.rows, chunk.history if slope is not None else None
    bias_sum = torch.zeros(G, V, device=gain.device) if biased else None
    inputs = (sums.entry, sums.live, above, gain, chunk.target, *_tables(lists), slope)
    kernels.slopes_kernel[(G, above.size(0))](
        *inputs,
        *(bias_sum, up, C, V),
        *_sizes(lists),
        DENSE=sums.live is None,
        CHARGED=slope is not None,
        BIASED=biased,
        **tile.area(),
        **tile.options(),
    )
    return bias_sum


def hidden_gradient(
    entry: Float[Tensor, "V C"],
    weight: Float[Tensor, "V H"],
    columns: LiveColumns | None,
    rows: int,
    split: int,
    tile: Tile,
    precision: str,
) -> Float[Tensor, "C H"]:
    """Gradient of the logits times the table, in float32.

    Live columns of a tile of `rows` positions are divided into `split` sums, to keep a large device busy.
    """
    (V, C), H = entry.shape, weight.size(1)
    out = torch.empty(split, C, H, device=entry.device)
    lists: tuple[Tensor | None, ...] = (None, None, None)
    if columns is not None:
        lists = columns.of_tile, columns.counts, columns.counts.argsort(descending=True, stable=True)
    kernels.hidden_gradient_kernel[(-(-H // tile.columns) * split, C // rows)](
        *(entry, weight, *lists, out, C, V, H),
        SPLIT=split,
        DENSE=columns is None,
        ROWS=rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        PRECISION=precision,
        **tile.options(),
    )
    return out[0] if split == 1 else out.sum(0)


def add_table_gradient(
    entry: Float[Tensor, "V C"],
    hidden: Float[Tensor, "C H"],
    columns: LiveColumns | None,
    common: Int[Tensor, ""] | None,
    factors: tuple[Tensor, Tensor] | None,
    out: Float[Tensor, "V H"],
    rows: int,
    tile: Tile,
    precision: str,
    down: Float[Tensor, ""] | None = None,
) -> None:
    """Adds the gradient of the logits, transposed, times hidden states to `out`, in float32.

    The gate's factors are for rows of the table where the target is common, as in the `common` first tiles, and where
    it is rare. A tile has `rows` columns of the logits by `columns` hidden units. Rows of `out` that live nowhere in
    the chunk are not touched; `down` is a factor on what is added.
    """
    (V, C), H = entry.shape, hidden.size(1)
    lists: tuple[Tensor | None, ...] = (None, None, common, None)
    if columns is not None:
        lists = columns.by_life, columns.tiles, columns.common, columns.reach
    kernels.table_gradient_kernel[(-(-H // tile.columns), -(-V // tile.rows))](
        *(entry, hidden, *lists, *(factors or (None, None)), down, out),
        *(C, V, H, C // rows),
        DENSE=columns is None,
        GATED=factors is not None,
        ROWS=rows,
        COLUMNS=tile.rows,
        WIDTH=tile.columns,
        DEPTH=tile.depth,
        PRECISION=precision,
        **tile.options(),
    )


def add_target_rows(
    hidden: Float[Tensor, "N H"],
    target_slope: Float[Tensor, " N"],
    target: Int[Tensor, " N"],
    out: Float[Tensor, "V H"] | None,
    bias_out: Float[Tensor, " V"] | None,
) -> None:
    """Adds the gradient through the targets' logits to those of the table and the bias, in float32 and never gated.

    An id outside the table adds nothing.
    """
    if out is None and bias_out is None:
        return
    (N, H), V = hidden.shape, (bias_out if out is None else out).size(0)  # type: ignore[union-attr]  # one is there
    ids, order = target.long().sort(stable=True)
    ends = torch.searchsorted(ids, ids, right=True)
    width = min(_WIDTH, 1 << max(4, (H - 1).bit_length()))
    kernels.add_target_rows_kernel[(N, -(-H // width))](
        *(hidden, target_slope, order, ids, ends, out, bias_out, V, H),
        BIASED=bias_out is not None,
        ROWS=_ROWS,
        WIDTH=width,
        enable_fp_fusion=True,
    )


def input_precision(dtype: torch.dtype) -> str:
    """Precision of float32 products: that of torch, exact or TF32."""
    if dtype != torch.float32:
        return "ieee"
    # The older getter raises as soon as the newer switches have been used, so these are read first.
    newer = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    if newer is not None:
        precision = newer if newer != "none" else getattr(torch.backends, "fp32_precision", "none")
        return "tf32" if precision == "tf32" else "ieee"
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
