"""One tile of logits, and the logit of every target by the very same arithmetic."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decone.engines.contract import Readout, Shift
from decone.engines.triton.history import History
from decone.engines.triton.language import dot, jit, tl
from decone.engines.triton.tiles import Tile


@jit
def product(
    table: tl.tensor,
    hidden: tl.tensor,
    columns: tl.tensor,
    rows: tl.tensor,
    V: tl.tensor,
    N: tl.tensor,
    H: tl.tensor,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Rows of the table times hidden states, [COLUMNS, ROWS] in float32; zero where an index is out of range."""
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    known = (columns >= 0) & (columns < V)
    at = table + columns.to(tl.int64)[:, None] * H
    beside = hidden + rows.to(tl.int64)[None, :] * H
    for start in range(0, H, DEPTH):
        depth = start + tl.arange(0, DEPTH)
        left = tl.load(at + depth[None, :], mask=known[:, None] & (depth < H)[None, :], other=0.0)
        right = tl.load(beside + depth[:, None], mask=(rows < N)[None, :] & (depth < H)[:, None], other=0.0)
        total = dot(left, right, total, PRECISION)
    return total


@jit
def read(raw: tl.tensor, scale: tl.tensor, cap: tl.tensor, CAPPED: tl.constexpr) -> tl.tensor:
    """What the model puts out: cap * tanh(scale * raw / cap)."""
    plain = raw * scale
    if CAPPED:
        ratio = plain / cap
        part = tl.exp(-2.0 * tl.abs(ratio))
        bent = (1.0 - part) / (1.0 + part)
        # Near zero the difference has lost its digits, and a few terms of the series have them all.
        square = ratio * ratio
        series = tl.fma(square, -1382.0 / 155925.0, 62.0 / 2835.0)
        series = tl.fma(square, series, -17.0 / 315.0)
        series = tl.fma(square, series, 2.0 / 15.0)
        series = tl.fma(square, series, -1.0 / 3.0)
        near = tl.fma(ratio * square, series, ratio)
        plain = tl.where(tl.abs(ratio) < 0.3, near, tl.where(ratio < 0, -bent, bent)) * cap
    return plain


@jit
def scaled(plain: tl.tensor, temperature: tl.tensor, shift: tl.tensor, SHIFTED: tl.constexpr) -> tl.tensor:
    """The rule's scale and shift, rounded once by name: left to the compiler, two kernels may round differently."""
    if SHIFTED:
        return tl.fma(plain, temperature, shift)
    else:
        return plain * temperature


@jit
def _targets(
    table: tl.tensor,
    hidden: tl.tensor,
    bias: tl.tensor,
    target: tl.tensor,
    list_of: tl.tensor,
    length: tl.tensor,
    slot: tl.tensor,
    rank: tl.tensor,
    plain_out: tl.tensor,
    ruled_out: tl.tensor,
    N: tl.tensor,
    V: tl.tensor,
    H: tl.tensor,
    U: tl.tensor,
    scale: tl.tensor,
    cap: tl.tensor,
    temperature: tl.tensor,
    seen_shift: tl.tensor,
    novel_shift: tl.tensor,
    BIASED: tl.constexpr,
    CAPPED: tl.constexpr,
    SHIFTED: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    # A tile of the sweep's shape whose columns are the targets of its rows: only its diagonal is wanted, but it is
    # summed as the sweep sums, so that a token with the target's logit ties with it to the last bit.
    first = tl.program_id(0).to(tl.int64) * ROWS
    rows = first + tl.arange(0, ROWS)
    across = tl.arange(0, COLUMNS)
    columns = tl.load(target + first + across, mask=(across < ROWS) & (first + across < N), other=V)
    logits = product(table, hidden, columns, rows, V, N, H, COLUMNS, ROWS, DEPTH, PRECISION)
    raw = tl.sum(tl.where(across[:, None] == tl.arange(0, ROWS)[None, :], logits, 0.0), 0)
    inside = rows < N
    own = tl.load(target + rows, mask=inside, other=0)
    there = inside & (own >= 0) & (own < V)
    if BIASED:
        raw += tl.load(bias + own, mask=there, other=0.0).to(tl.float32)
    plain = read(raw, scale, cap, CAPPED)
    shift = 0.0
    if SHIFTED:
        place = tl.load(slot + own, mask=there, other=-1)
        known = inside & (place >= 0)
        sequence = tl.load(list_of + rows, mask=inside, other=0)
        order = tl.load(rank + sequence * U + place, mask=known, other=2147483647)
        seen = order < tl.load(length + rows, mask=inside, other=0)
        shift = tl.where(seen, seen_shift, novel_shift)
    ruled = scaled(plain, temperature, shift, SHIFTED)
    tl.store(plain_out + rows, plain, mask=inside)
    tl.store(ruled_out + rows, ruled, mask=inside)


class Recipe(NamedTuple):
    """How logits are made.

    Attributes:
        tile: sizes of a tile.
        precision: how float32 is multiplied, see `input_precision`.
        readout: what the model does to its logits.
        temperature: the rule's factor on them.
        shift: the rule's constants for seen and for novel ids.
    """

    tile: Tile
    precision: str
    readout: Readout
    temperature: float = 1.0
    shift: Shift | None = None

    def numbers(self) -> tuple[float, float, float, float, float]:
        """Scale, cap, temperature, and the constants for seen and for novel ids."""
        shift = self.shift or Shift()
        return self.readout.scale, self.readout.softcap or 1.0, self.temperature, shift.earlier, shift.novel


def target_logits(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    target: Int[Tensor, " N"],
    history: History | None,
    recipe: Recipe,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The logit of every target in float32, as the model puts it out, and after scale and shift.

    Costs 2NH flops times the tile's columns: about one column of tiles of the sweep.
    """
    (N, H), tile = hidden.shape, recipe.tile
    plain, ruled = (torch.empty(N, dtype=torch.float32, device=hidden.device) for _ in range(2))
    _targets[(-(-N // tile.rows),)](
        weight,
        hidden,
        bias,
        target,
        None if history is None else history.list_of,
        None if history is None else history.length,
        None if history is None else history.slot,
        None if history is None else history.rank,
        plain,
        ruled,
        N,
        weight.size(0),
        H,
        0 if history is None else history.rank.size(1),
        *recipe.numbers(),
        BIASED=bias is not None,
        CAPPED=recipe.readout.softcap is not None,
        SHIFTED=recipe.shift is not None,
        COLUMNS=tile.columns,
        ROWS=tile.rows,
        DEPTH=tile.depth,
        PRECISION=recipe.precision,
        **tile.options(),
    )
    return plain, ruled


def input_precision(dtype: torch.dtype) -> str:
    """How float32 is multiplied: as torch multiplies it, exactly or by TF32."""
    if dtype != torch.float32:
        return "ieee"
    # The older getter raises as soon as somebody has used the newer switches, so these are read first.
    newer = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    if newer is not None:
        chosen = newer if newer != "none" else getattr(torch.backends, "fp32_precision", "none")
        return "tf32" if chosen == "tf32" else "ieee"
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
