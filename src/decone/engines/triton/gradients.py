"""The gradients of one chunk, made while its tiles are alive and added to the sums."""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decone.engines.contract import Gate
from decone.engines.sweep import SweepGradients
from decone.engines.triton.history import EarlierCharge, pair_slopes
from decone.engines.triton.launch import (
    LogitRecipe,
    TileChunk,
    TileSums,
    add_table_gradient,
    float16_lift,
    hidden_gradient,
    to_slopes,
)
from decone.engines.triton.tiles import LiveColumns, LogSum, Tile, Tiles, quickest

_FULL = 4  # programs per multiprocessor from which on nothing is gained by dividing the sums further
_MOST = 8  # sums into which one tile's live columns are divided at most


@dataclass
class ChunkTerms:
    """Terms of a chunk's gradient beside its tiles.

    Attributes:
        index: position of each entry of the chunk, [C].
        above: greatest logit of each column tile less it, [T, C].
        columns: live columns; None where all are live.
        common: number of the first tiles with common targets.
    """

    index: Int[Tensor, " C"]
    filled: Bool[Tensor, " C"]
    up: Float[Tensor, " C"]
    log_sum: LogSum
    above: Float[Tensor, "T C"]
    charge: EarlierCharge | None
    columns: LiveColumns | None
    common: Int[Tensor, ""] | None


def add_gradients(
    gradients: SweepGradients,
    chunk: TileChunk,
    sums: TileSums,
    terms: ChunkTerms,
    weight: Tensor,
    gate: Gate | None,
    recipe: LogitRecipe,
    tiles: Tiles,
) -> None:
    """Adds the gradients of one chunk; those through targets' logits to table and bias wait in `target_logit`."""
    factor = torch.where(terms.filled, terms.up, 0.0) * recipe.temperature
    # p - 1 at the target, formed in float32 and without cancellation.
    logprob = -terms.log_sum.less(chunk.target_logit)
    target_slope, gain, pair_slope = torch.expm1(logprob), torch.ones_like(logprob), None
    if terms.charge is not None and sums.pair_logit is not None:
        target_slope = target_slope - torch.exp(logprob) * terms.charge.total + terms.charge.target
        gain = 1 - terms.charge.total
        pair_slope = pair_slopes(terms.charge, sums.pair_logit, terms.log_sum)
        pair_slope = (pair_slope * factor[:, None] * _readout_slope(sums.pair_logit, recipe)).contiguous()
    target_slope = torch.where(terms.filled, target_slope, 0.0) * factor
    target_slope = target_slope * recipe.readout.slope(chunk.plain_target_logit)
    gain = gain * factor * recipe.readout.scale
    entry, rows, key = sums.entry, recipe.tile.rows, tuning_key(weight, recipe.precision)
    assert entry is not None
    up, down = _float16_range(entry.dtype, gain, pair_slope)
    gain = gain / float16_lift(entry.dtype)
    bias_sum = to_slopes(chunk, sums, terms.above, gain, pair_slope, recipe.tile, gradients.bias is not None, up)
    gradients.target_logit[terms.index] = target_slope
    factors = None if gate is None else (gate.on_common.float(), gate.on_rare.float())
    if gradients.bias is not None and bias_sum is not None:
        gradients.bias += _gated_sum(bias_sum, factors, terms.common)
    if gradients.hidden is not None:
        choices = tiles.hidden
        split = _split(weight, choices[0].columns, entry.size(1) // rows)

        def multiply(tile: Tile) -> Tensor:
            return hidden_gradient(entry, weight, terms.columns, rows, split, tile, recipe.precision)

        product = multiply(quickest(("hidden", *key), choices, multiply))
        if down is not None:
            product *= down
        product.addcmul_(target_slope[:, None], weight[chunk.target.clamp(min=0)].float())
        gradients.hidden[terms.index] = product.to(gradients.hidden.dtype)
    if gradients.table is not None:
        table = gradients.table

        def add_product(tile: Tile) -> None:
            add_table_gradient(
                entry, chunk.hidden, terms.columns, terms.common, factors, table, rows, tile, recipe.precision, down
            )

        # Trying tiles adds to the sum, which is still zero at the first chunk ever.
        add_product(quickest(("table", *key), tiles.table, add_product, table.zero_))


def _float16_range(
    dtype: torch.dtype, gain: Tensor, pair_slope: Tensor | None
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """A power of two that brings float16 entries to the upper end of their range, and one over it; else nothing.

    The factor on a loss, that of a gradient scaler too, is in the entries: without this they overflow or vanish.
    """
    if dtype != torch.float16:
        return None, None
    bound = gain.abs().amax()
    if pair_slope is not None and pair_slope.numel():
        bound = torch.maximum(bound, pair_slope.abs().amax())
    exponent = (15 - torch.frexp(bound).exponent).clamp(-100, 100)
    unit = torch.ones((), device=bound.device)
    return torch.ldexp(unit, exponent), torch.ldexp(unit, -exponent)


def _readout_slope(pair_logit: Tensor, recipe: LogitRecipe) -> Tensor | float:
    """Derivative of the readout at the logits of earlier targets."""
    if recipe.readout.softcap is None:
        return recipe.readout.scale
    # All ids are earlier targets, so the shift is theirs; dropped ones have slope zero anyway.
    shift = 0.0 if recipe.shift is None else recipe.shift.earlier
    plain = (torch.where(pair_logit == -torch.inf, shift, pair_logit) - shift) / recipe.temperature
    return recipe.readout.slope(plain)


def _gated_sum(bias_sum: Tensor, factors: tuple[Tensor, Tensor] | None, common: Tensor | None) -> Tensor:
    if factors is None:
        return bias_sum.sum(0)
    assert common is not None
    early = (torch.arange(bias_sum.size(0), device=bias_sum.device) < common)[:, None]
    sums = (torch.where(early, bias_sum, 0.0).sum(0), torch.where(early, 0.0, bias_sum).sum(0))
    return factors[0] * sums[0] + factors[1] * sums[1]


def _split(weight: Tensor, columns: int, groups: int) -> int:
    """Number of sums into which live columns are divided so that every multiprocessor has work, at most a few."""
    programs = -(-weight.size(1) // columns) * groups
    return max(1, min(_MOST, _FULL * _processors(weight.device) // programs))


@cache
def _processors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 1


def tuning_key(weight: Tensor, precision: str) -> tuple[object, ...]:
    """All that the quickest tile depends on."""
    return weight.device, weight.dtype, weight.shape, precision
