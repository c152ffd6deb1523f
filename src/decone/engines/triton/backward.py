"""The two large products of the gradient, over live columns only.

Nothing is added by two programs at a time, so sums have one order and two runs give the same bits.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decone.engines.triton.columns import Columns
from decone.engines.triton.language import dot, jit, tl
from decone.engines.triton.tiles import Tile


@jit
def _hidden(
    entry: tl.tensor,
    table: tl.tensor,
    of_tile: tl.tensor,
    counts: tl.tensor,
    busiest: tl.tensor,
    out: tl.tensor,
    C: tl.tensor,
    V: tl.tensor,
    H: tl.tensor,
    SPLIT: tl.constexpr,
    DENSE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    share = tl.program_id(0) % SPLIT
    width = (tl.program_id(0) // SPLIT) * COLUMNS + tl.arange(0, COLUMNS)
    if DENSE:
        group = tl.program_id(1)
        count = V
        listed = of_tile
    else:
        # The tile with most live columns is begun first, so that nobody waits for it in the end.
        group = tl.load(busiest + tl.program_id(1)).to(tl.int32)
        count = tl.load(counts + group)
        listed = of_tile + group.to(tl.int64) * V
    rows = group * ROWS + tl.arange(0, ROWS)
    span = tl.cdiv(tl.cdiv(count, SPLIT), DEPTH) * DEPTH
    begin = share * span
    end = tl.minimum(begin + span, count)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(begin, end, DEPTH):
        index = start + tl.arange(0, DEPTH)
        inside = index < end
        columns = index.to(tl.int64) if DENSE else tl.load(listed + index, mask=inside, other=0).to(tl.int64)
        left = tl.load(entry + columns[:, None] * C + rows[None, :], mask=inside[:, None], other=0.0)
        right = tl.load(
            table + columns[:, None] * H + width[None, :], mask=inside[:, None] & (width < H)[None, :], other=0.0
        )
        total = dot(tl.trans(left), right, total, PRECISION)
    at = (share.to(tl.int64) * C + rows)[:, None] * H + width[None, :]
    tl.store(out + at, total, mask=(width < H)[None, :])


def hidden_gradient(
    entry: Float[Tensor, "V C"],
    weight: Float[Tensor, "V H"],
    columns: Columns | None,
    rows: int,
    split: int,
    tile: Tile,
    precision: str,
) -> Float[Tensor, "C H"]:
    """Gradient of the logits times the table, in float32.

    Args:
        entry: gradient of the logits.
        weight: output table.
        columns: which live; None where all do.
        rows: positions per tile of the sweep.
        split: into how many sums the live columns of a tile are divided, to keep a large device busy.
        tile: sizes; its rows are not used.
        precision: how float32 is multiplied.
    """
    (V, C), H = entry.shape, weight.size(1)
    out = torch.empty(split, C, H, device=entry.device)
    _hidden[(-(-H // tile.columns) * split, C // rows)](
        entry,
        weight,
        None if columns is None else columns.of_tile,
        None if columns is None else columns.counts,
        None if columns is None else columns.counts.argsort(descending=True, stable=True),
        out,
        C,
        V,
        H,
        SPLIT=split,
        DENSE=columns is None,
        ROWS=rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        PRECISION=precision,
        **tile.options(),
    )
    return out[0] if split == 1 else out.sum(0)


@jit
def _table_class(
    total: tl.tensor,
    entry: tl.tensor,
    hidden: tl.tensor,
    tiles: tl.tensor,
    columns: tl.tensor,
    alive: tl.tensor,
    width: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    C: tl.tensor,
    H: tl.tensor,
    DENSE: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Adds the tiles of positions `begin` to `end` of a group's list; one flat loop, so that loads run ahead."""
    STEPS: tl.constexpr = ROWS // DEPTH
    for step in range(begin * STEPS, end * STEPS):
        group = step // STEPS if DENSE else tl.load(tiles + step // STEPS)
        rows = group * ROWS + (step % STEPS) * DEPTH + tl.arange(0, DEPTH)
        left = tl.load(entry + columns[:, None] * C + rows[None, :], mask=alive[:, None], other=0.0)
        right = tl.load(hidden + rows.to(tl.int64)[:, None] * H + width[None, :], mask=(width < H)[None, :], other=0.0)
        total = dot(left, right, total, PRECISION)
    return total


@jit
def _table(
    entry: tl.tensor,
    hidden: tl.tensor,
    by_life: tl.tensor,
    tiles: tl.tensor,
    common: tl.tensor,
    reach: tl.tensor,
    on_common: tl.tensor,
    on_rare: tl.tensor,
    down: tl.tensor,
    out: tl.tensor,
    C: tl.tensor,
    V: tl.tensor,
    H: tl.tensor,
    G: tl.tensor,
    DENSE: tl.constexpr,
    GATED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    width = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    index = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    alive = index < V
    if DENSE:
        columns = index.to(tl.int64)
        end = G
        listed = tiles
    else:
        columns = tl.load(by_life + index, mask=alive, other=0).to(tl.int64)
        end = tl.load(reach + tl.program_id(1))
        listed = tiles + tl.program_id(1).to(tl.int64) * G
        if end == 0:
            return
    at = out + columns[:, None] * H + width[None, :]
    there = alive[:, None] & (width < H)[None, :]
    total = tl.zeros((COLUMNS, WIDTH), dtype=tl.float32)
    if GATED:
        # A gate is one factor per column and class of target: it acts on a class's sum, once.
        border = tl.load(common) if DENSE else tl.load(common + tl.program_id(1))
        total = _table_class(
            total, entry, hidden, listed, columns, alive, width, 0, border, C, H, DENSE, ROWS, DEPTH, PRECISION
        )
        total *= tl.load(on_common + columns, mask=alive, other=0.0)[:, None]
        if down is not None:
            total *= tl.load(down)
        tl.store(at, tl.load(at, mask=there, other=0.0) + total, mask=there)
        tl.debug_barrier()  # another thread of the program may load what this one has stored
        total = tl.zeros((COLUMNS, WIDTH), dtype=tl.float32)
        total = _table_class(
            total, entry, hidden, listed, columns, alive, width, border, end, C, H, DENSE, ROWS, DEPTH, PRECISION
        )
        total *= tl.load(on_rare + columns, mask=alive, other=0.0)[:, None]
    else:
        total = _table_class(
            total, entry, hidden, listed, columns, alive, width, 0, end, C, H, DENSE, ROWS, DEPTH, PRECISION
        )
    if down is not None:
        total *= tl.load(down)
    tl.store(at, tl.load(at, mask=there, other=0.0) + total, mask=there)


def add_table_gradient(
    entry: Float[Tensor, "V C"],
    hidden: Float[Tensor, "C H"],
    columns: Columns | None,
    common: Int[Tensor, ""] | None,
    factors: tuple[Tensor, Tensor] | None,
    out: Float[Tensor, "V H"],
    rows: int,
    tile: Tile,
    precision: str,
    down: Float[Tensor, ""] | None = None,
) -> None:
    """Adds the gradient of the logits, transposed, times hidden states to `out`, in float32.

    Args:
        entry: gradient of the logits.
        hidden: hidden states of the chunk.
        columns: which live; None where all do.
        common: how many of the first tiles of positions have a common target; None without a gate.
        factors: the gate's, on rows of the table where the target is common, and where it is rare; None without one.
        out: what is added to; rows of the table that live nowhere in the chunk are not touched.
        rows: positions per tile of the sweep.
        tile: sizes: `rows` columns of the logits by `columns` hidden units, `depth` positions at a time.
        precision: how float32 is multiplied.
        down: factor on the product, in float32, before it is added; None for 1.
    """
    (V, C), H = entry.shape, hidden.size(1)
    _table[(-(-H // tile.columns), -(-V // tile.rows))](
        entry,
        hidden,
        None if columns is None else columns.by_life,
        None if columns is None else columns.tiles,
        common if columns is None else columns.common,
        None if columns is None else columns.reach,
        None if factors is None else factors[0],
        None if factors is None else factors[1],
        down,
        out,
        C,
        V,
        H,
        C // rows,
        DENSE=columns is None,
        GATED=factors is not None,
        ROWS=rows,
        COLUMNS=tile.rows,
        WIDTH=tile.columns,
        DEPTH=tile.depth,
        PRECISION=precision,
        **tile.options(),
    )
