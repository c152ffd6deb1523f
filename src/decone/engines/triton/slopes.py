"""From the sweep's exponentials to the gradient of the logits, in place and on live columns only."""

import torch
from jaxtyping import Float
from torch import Tensor

from decone.engines.triton.forward import Chunk, Swept
from decone.engines.triton.language import jit, tl
from decone.engines.triton.tiles import Tile


@jit
def _slopes(
    entry: tl.tensor,
    live: tl.tensor,
    above: tl.tensor,
    gain: tl.tensor,
    target: tl.tensor,
    list_of: tl.tensor,
    length: tl.tensor,
    slot: tl.tensor,
    rank: tl.tensor,
    slope: tl.tensor,
    bias_sum: tl.tensor,
    up: tl.tensor,
    C: tl.tensor,
    V: tl.tensor,
    U: tl.tensor,
    L: tl.tensor,
    DENSE: tl.constexpr,
    CHARGED: tl.constexpr,
    BIASED: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    group = tl.program_id(0)
    rows = group * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    alive = columns < V
    if not DENSE:
        alive = tl.load(live + group.to(tl.int64) * V + columns, mask=alive, other=0) > 0
        if tl.max(alive.to(tl.int32), 0) == 0:
            return
    part = entry + columns.to(tl.int64)[:, None] * C + rows[None, :]
    factor = tl.exp(tl.load(above + tl.program_id(1).to(tl.int64) * C + rows)) * tl.load(gain + rows)
    found = tl.load(part, mask=alive[:, None], other=0.0).to(tl.float32) * factor[None, :]
    if CHARGED:
        place = tl.load(slot + columns, mask=alive, other=-1)
        goal = tl.load(target + rows)
        known = (place >= 0)[:, None] & (columns[:, None] != goal[None, :])
        sequence = tl.load(list_of + rows)
        order = tl.load(rank + sequence[None, :] * U + place[:, None], mask=known, other=2147483647)
        seen = known & (order < tl.load(length + rows)[None, :])
        found = tl.where(seen, tl.load(slope + rows.to(tl.int64)[None, :] * L + order, mask=seen, other=0.0), found)
    if BIASED:
        tl.store(bias_sum + group.to(tl.int64) * V + columns, tl.sum(found, 1), mask=alive)
    if up is not None:
        found *= tl.load(up)
    tl.store(part, found, mask=alive[:, None])


def to_slopes(
    chunk: Chunk,
    swept: Swept,
    above: Float[Tensor, "T C"],
    gain: Float[Tensor, " C"],
    slope: Float[Tensor, "C L"] | None,
    tile: Tile,
    biased: bool,
    up: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "G V"] | None:
    """Makes `swept.entry` the gradient of the logits without the targets' own entries.

    Args:
        chunk: the positions.
        swept: what the sweep left of them.
        above: greatest logit of each column tile less the log-sum-exp.
        gain: factor on the probabilities of each position.
        slope: entries of earlier targets, by their place in the list; None leaves them as all others.
        tile: the sweep's.
        biased: whether sums over the positions of each tile are wanted.
        up: factor on what is stored, not on the sums; None for 1.

    Returns:
        These sums in float32, or None.
    """
    assert swept.entry is not None
    V, C = swept.entry.shape
    G, lists = C // tile.rows, chunk.history if slope is not None else None
    bias_sum = torch.zeros(G, V, device=gain.device) if biased else None
    _slopes[(G, above.size(0))](
        swept.entry,
        swept.live,
        above,
        gain,
        chunk.target,
        None if lists is None else lists.list_of,
        None if lists is None else lists.length,
        None if lists is None else lists.slot,
        None if lists is None else lists.rank,
        slope,
        bias_sum,
        up,
        C,
        V,
        0 if lists is None else lists.rank.size(1),
        0 if lists is None else lists.longest,
        DENSE=swept.live is None,
        CHARGED=slope is not None,
        BIASED=biased,
        COLUMNS=tile.columns,
        ROWS=tile.rows,
        **tile.options(),
    )
    return bias_sum
