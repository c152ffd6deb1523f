"""The sweep: every logit of a chunk of positions once, tile by tile; only exponentials and sums leave a tile."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from decone.engines.contract import Tokens
from decone.engines.triton.history import History
from decone.engines.triton.language import jit, tl
from decone.engines.triton.logits import Recipe, product, read, scaled


def lift(dtype: torch.dtype) -> float:
    """What exponentials are multiplied by before they are rounded: float16 has no small numbers, but room above 1."""
    return 2.0**15 if dtype == torch.float16 else 1.0


@jit
def over_top(logits: tl.tensor, highest: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Exponentials of a tile over the greatest of each row, and their sum less the 1 of the greatest itself."""
    from_top = tl.exp(logits - tl.where(highest == float("-inf"), 0.0, highest)[None, :])
    # Ones are counted apart: a sum that begins with 1 forgets what is smaller than its last digit.
    ones = tl.sum((from_top == 1.0).to(tl.float32), 0)
    return from_top, tl.sum(tl.where(from_top == 1.0, 0.0, from_top), 0) + (ones - 1.0)


@jit
def _sweep(
    table: tl.tensor,
    hidden: tl.tensor,
    bias: tl.tensor,
    target: tl.tensor,
    floor: tl.tensor,
    list_of: tl.tensor,
    length: tl.tensor,
    slot: tl.tensor,
    rank: tl.tensor,
    pair_logit: tl.tensor,
    entry: tl.tensor,
    live: tl.tensor,
    top: tl.tensor,
    beyond: tl.tensor,
    count: tl.tensor,
    plain_top: tl.tensor,
    plain_beyond: tl.tensor,
    C: tl.tensor,
    V: tl.tensor,
    H: tl.tensor,
    U: tl.tensor,
    L: tl.tensor,
    scale: tl.tensor,
    cap: tl.tensor,
    temperature: tl.tensor,
    seen_shift: tl.tensor,
    novel_shift: tl.tensor,
    BIASED: tl.constexpr,
    CAPPED: tl.constexpr,
    SHIFTED: tl.constexpr,
    CHARGED: tl.constexpr,
    FLOORED: tl.constexpr,
    PLAIN: tl.constexpr,
    LEARNING: tl.constexpr,
    LIFT: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    # Programs of one column tile follow each other: its part of the table is read once and stays in the cache.
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    logits = product(table, hidden, columns, rows, V, C, H, COLUMNS, ROWS, DEPTH, PRECISION)
    if BIASED:
        logits += tl.load(bias + columns, mask=columns < V, other=0.0).to(tl.float32)[:, None]
    # No mask of the tile's size outlives its line: what is out of range or dropped is minus infinity.
    edge = tl.where(columns < V, 0.0, float("-inf"))[:, None]
    plain = read(logits, scale, cap, CAPPED)
    at = tl.program_id(1).to(tl.int64) * C + rows
    if PLAIN:
        bare = plain + edge
        highest = tl.max(bare, 0)
        tl.store(plain_top + at, highest)
        tl.store(plain_beyond + at, over_top(bare, highest)[1])
    shift = 0.0
    if SHIFTED or CHARGED:
        place = tl.load(slot + columns, mask=columns < V, other=-1)
        sequence = tl.load(list_of + rows)
        known = tl.broadcast_to((place >= 0)[:, None], COLUMNS, ROWS)
        order = tl.load(rank + sequence[None, :] * U + place[:, None], mask=known, other=2147483647)
        seen = order < tl.load(length + rows)[None, :]
    if SHIFTED:
        shift = tl.where(seen, seen_shift, novel_shift)
    ruled = scaled(plain, temperature, shift, SHIFTED) + edge
    if FLOORED:
        # Compared in float32, before anything is rounded; NaN stays, so that it shows.
        ruled = tl.where(ruled < tl.load(floor + rows)[None, :], float("-inf"), ruled)
    if CHARGED:
        tl.store(pair_logit + rows.to(tl.int64)[None, :] * L + order, ruled, mask=seen)
    # The target takes a way of its own, in float32 to the end, whatever its logit here.
    ruled = tl.where(columns[:, None] == tl.load(target + rows)[None, :], float("-inf"), ruled)
    highest = tl.max(ruled, 0)
    tl.store(top + at, highest)
    tl.store(count + at, tl.sum((ruled > float("-inf")).to(tl.int32), 0))
    if FLOORED:
        alive = tl.max(ruled, 1) > float("-inf")
        tl.store(live + tl.program_id(0).to(tl.int64) * V + columns, alive.to(tl.int8), mask=columns < V)
    from_top, over = over_top(ruled, highest)
    tl.store(beyond + at, over)
    if LEARNING:
        if CAPPED:
            from_top *= 1.0 - (plain / cap) * (plain / cap)
        part = entry + columns.to(tl.int64)[:, None] * C + rows[None, :]
        tl.store(part, from_top * LIFT, mask=(columns < V)[:, None])


@dataclass
class Chunk:
    """Positions that go through the sweep together, in their order there; a whole number of tiles.

    Attributes:
        hidden: hidden states, [C, H].
        target: token ids, -1 where a position only fills the last tile, [C].
        own: logit of the target after scale and shift, float32, [C].
        own_plain: the same as the model puts it out, [C].
        floor: logits below it are dropped, [C]; None where the rule drops none.
        history: what the positions look back on; None unless the rule looks back.
        tokens: the same positions for the rule's own charge; None unless it looks back.
    """

    hidden: Float[Tensor, "C H"]
    target: Int[Tensor, " C"]
    own: Float[Tensor, " C"]
    own_plain: Float[Tensor, " C"]
    floor: Float[Tensor, " C"] | None
    history: History | None
    tokens: Tokens | None = None


@dataclass
class Swept:
    """What a sweep leaves of a chunk; T tiles of columns, G tiles of positions. The targets' own logits count nowhere.

    Attributes:
        entry: exponentials over the greatest of their column tile, times the softcap's slope and `lift`; [V, C].
        live: whether a logit that is no target is kept in a tile of positions; None where the rule drops none.
        top: greatest kept logit per column tile, [T, C].
        beyond: sum of exponentials over it, less the greatest's own 1, [T, C].
        count: kept logits, [T, C].
        plain_top: like `top`, of all logits as the model puts them out; None unless asked for.
        plain_beyond: like `beyond`.
        pair_logit: kept logits of earlier targets, by their place in the list, [C, L]; None without a charge.
    """

    entry: Float[Tensor, "V C"] | None
    live: Int8[Tensor, "G V"] | None
    top: Float[Tensor, "T C"]
    beyond: Float[Tensor, "T C"]
    count: Int[Tensor, "T C"]
    plain_top: Float[Tensor, "T C"] | None
    plain_beyond: Float[Tensor, "T C"] | None
    pair_logit: Float[Tensor, "C L"] | None


def sweep(
    chunk: Chunk,
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    recipe: Recipe,
    *,
    plain: bool,
    charged: bool,
    entry: Float[Tensor, "V C"] | None,
) -> Swept:
    """Runs the sweep.

    Args:
        chunk: the positions.
        weight: output table.
        bias: output bias.
        recipe: how logits are made.
        plain: also sum the logits as the model puts them out.
        charged: also keep the logits of earlier targets.
        entry: room for the exponentials; None where no gradient is wanted.
    """
    C, V, tile = chunk.hidden.size(0), weight.size(0), recipe.tile
    T, device = -(-V // tile.columns), weight.device
    lists = chunk.history

    def room(wanted: bool = True, dtype: torch.dtype = torch.float32) -> Tensor | None:
        return torch.empty(T, C, dtype=dtype, device=device) if wanted else None

    top, beyond, count = room(), room(), room(dtype=torch.int32)
    assert top is not None and beyond is not None and count is not None
    live = None if chunk.floor is None else torch.empty(C // tile.rows, V, dtype=torch.int8, device=device)
    pair_logit = None
    if charged:
        assert lists is not None
        pair_logit = torch.full((C, lists.longest), float("-inf"), device=device)
    found = Swept(entry, live, top, beyond, count, room(plain), room(plain), pair_logit)
    _sweep[(C // tile.rows, T)](
        weight,
        chunk.hidden,
        bias,
        chunk.target,
        chunk.floor,
        None if lists is None else lists.list_of,
        None if lists is None else lists.length,
        None if lists is None else lists.slot,
        None if lists is None else lists.rank,
        pair_logit,
        entry,
        live,
        top,
        beyond,
        count,
        found.plain_top,
        found.plain_beyond,
        C,
        V,
        weight.size(1),
        0 if lists is None else lists.rank.size(1),
        0 if lists is None else lists.longest,
        *recipe.numbers(),
        BIASED=bias is not None,
        CAPPED=recipe.readout.softcap is not None,
        SHIFTED=recipe.shift is not None,
        CHARGED=charged,
        FLOORED=chunk.floor is not None,
        PLAIN=plain,
        LEARNING=entry is not None,
        LIFT=1.0 if entry is None else lift(entry.dtype),
        COLUMNS=tile.columns,
        ROWS=tile.rows,
        DEPTH=tile.depth,
        PRECISION=recipe.precision,
        **tile.options(),
    )
    return found
