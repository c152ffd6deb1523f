"""What the targets' own logits owe to the gradient of the table: one row each, in float32 to the end, never gated."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decone.engines.triton.language import jit, tl

_ROWS, _WIDTH = 32, 256  # positions and hidden units that a program takes at a time


@jit
def _own(
    hidden: tl.tensor,
    own: tl.tensor,
    order: tl.tensor,
    target: tl.tensor,
    ends: tl.tensor,
    out: tl.tensor,
    bias_out: tl.tensor,
    V: tl.tensor,
    H: tl.tensor,
    BIASED: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    first = tl.program_id(0).to(tl.int64)
    column = tl.load(target + first)
    if (column < 0) | (column >= V):
        return
    # Positions are sorted by target; the first of each run of equals sums the run.
    before = tl.load(target + first - 1, mask=first > 0, other=-1)
    if before == column:
        return
    end = tl.load(ends + first)
    width = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), dtype=tl.float32)
    weights = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(first, end, ROWS):
        index = start + tl.arange(0, ROWS)
        inside = index < end
        rows = tl.load(order + index, mask=inside, other=0)
        weight = tl.load(own + rows, mask=inside, other=0.0)
        states = tl.load(
            hidden + rows[:, None] * H + width[None, :], mask=inside[:, None] & (width < H)[None, :], other=0.0
        )
        total += tl.sum(weight[:, None] * states.to(tl.float32), 0)
        weights += weight
    if out is not None:
        at = out + column * H + width
        tl.store(at, tl.load(at, mask=width < H, other=0.0) + total, mask=width < H)
    if BIASED and tl.program_id(1) == 0:
        tl.store(bias_out + column, tl.load(bias_out + column) + tl.sum(weights, 0))


def add_own(
    hidden: Float[Tensor, "N H"],
    own: Float[Tensor, " N"],
    target: Int[Tensor, " N"],
    out: Float[Tensor, "V H"] | None,
    bias_out: Float[Tensor, " V"] | None,
) -> None:
    """Adds what the targets' own logits owe to the gradients of the table and the bias, in float32.

    Args:
        hidden: hidden states.
        own: gradient of the target's logit.
        target: token ids; what is none of the table adds nothing.
        out: gradient of the table, added to; None leaves it out.
        bias_out: gradient of the bias, added to; None leaves it out.
    """
    if out is None and bias_out is None:
        return
    (N, H), V = hidden.shape, (bias_out if out is None else out).size(0)  # type: ignore[union-attr]  # one is there
    ids, order = target.long().sort(stable=True)
    ends = torch.searchsorted(ids, ids, right=True)
    width = min(_WIDTH, 1 << max(4, (H - 1).bit_length()))
    _own[(N, -(-H // width))](
        hidden,
        own,
        order,
        ids,
        ends,
        out,
        bias_out,
        V,
        H,
        BIASED=bias_out is not None,
        ROWS=_ROWS,
        WIDTH=width,
        enable_fp_fusion=True,
    )
