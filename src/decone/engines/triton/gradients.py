"""The gradients of one chunk, made while its tiles are alive and added to the sums."""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decone.engines.contract import Gate
from decone.engines.triton.backward import add_table_gradient, hidden_gradient
from decone.engines.triton.columns import Columns
from decone.engines.triton.forward import Chunk, Swept, lift
from decone.engines.triton.history import Charge, pair_entries
from decone.engines.triton.log_sum import LogSum
from decone.engines.triton.logits import Recipe
from decone.engines.triton.slopes import to_slopes
from decone.engines.triton.tiles import Tile, Tiles, quickest

_FULL = 4  # programs per multiprocessor from which on nothing is gained by dividing the sums further
_MOST = 8  # sums into which one tile's live columns are divided at most


@dataclass
class Sums:
    """Gradients under construction; a part that nobody asked for is None.

    Attributes:
        hidden: of hidden states; the last row takes what only fills a tile, [N + 1, H].
        table: of the output table, float32, [V, H].
        bias: of the output bias, float32, [V].
        own: of the targets' logits, float32, [N + 1]; not in the others until the end.
    """

    hidden: Float[Tensor, "M H"] | None
    table: Float[Tensor, "V H"] | None
    bias: Float[Tensor, " V"] | None
    own: Float[Tensor, " M"]


@dataclass
class Rest:
    """What a chunk's gradient needs beside its tiles.

    Attributes:
        index: position of each place, [C].
        filled: whether a place holds a position, [C].
        up: what its loss counts, [C].
        sums: log of the sum of exponentials.
        above: greatest logit of each column tile less it, [T, C].
        charge: for earlier targets.
        columns: which live; None where all do.
        common: how many of the first tiles hold common targets.
    """

    index: Int[Tensor, " C"]
    filled: Tensor
    up: Float[Tensor, " C"]
    sums: LogSum
    above: Float[Tensor, "T C"]
    charge: Charge | None
    columns: Columns | None
    common: Int[Tensor, ""] | None


def add(
    sums: Sums, chunk: Chunk, swept: Swept, rest: Rest, weight: Tensor, gate: Gate | None, recipe: Recipe, tiles: Tiles
) -> None:
    """Adds the gradients of one chunk; what the targets' logits owe to table and bias is only noted in `sums.own`."""
    factor = torch.where(rest.filled, rest.up, 0.0) * recipe.temperature
    # p - 1 at the target, formed in float32 and without cancellation.
    logprob = -rest.sums.less(chunk.own)
    own, gain, slope = torch.expm1(logprob), torch.ones_like(logprob), None
    if rest.charge is not None and swept.pair_logit is not None:
        own = own - torch.exp(logprob) * rest.charge.total + rest.charge.own
        gain = 1 - rest.charge.total
        slope = pair_entries(rest.charge, swept.pair_logit, rest.sums)
        slope = (slope * factor[:, None] * _at_pairs(swept.pair_logit, recipe)).contiguous()
    own = torch.where(rest.filled, own, 0.0) * factor * recipe.readout.slope(chunk.own_plain)
    gain = gain * factor * recipe.readout.scale
    entry, rows, key = swept.entry, recipe.tile.rows, tuning_key(weight, recipe.precision)
    assert entry is not None
    up, down = _room(entry.dtype, gain, slope)
    gain = gain / lift(entry.dtype)
    bias_sum = to_slopes(chunk, swept, rest.above, gain, slope, recipe.tile, sums.bias is not None, up)
    sums.own[rest.index] = own
    factors = None if gate is None else (gate.on_common.float(), gate.on_rare.float())
    if sums.bias is not None and bias_sum is not None:
        sums.bias += _gated_sum(bias_sum, factors, rest.common)
    if sums.hidden is not None:
        choices = tiles.hidden
        split = _split(weight, choices[0].columns, entry.size(1) // rows)

        def product(tile: Tile) -> Tensor:
            return hidden_gradient(entry, weight, rest.columns, rows, split, tile, recipe.precision)

        found = product(quickest(("hidden", *key), choices, product))
        if down is not None:
            found *= down
        target = weight[chunk.target.clamp(min=0)]
        found.addcmul_(own[:, None], target.float())
        sums.hidden[rest.index] = found.to(sums.hidden.dtype)
    if sums.table is not None:
        table = sums.table

        def add_product(tile: Tile) -> None:
            add_table_gradient(
                entry, chunk.hidden, rest.columns, rest.common, factors, table, rows, tile, recipe.precision, down
            )

        # Trying tiles adds to the sum, which is still zero at the first chunk ever.
        add_product(quickest(("table", *key), tiles.table, add_product, table.zero_))


def _room(dtype: torch.dtype, gain: Tensor, slope: Tensor | None) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """A power of two that brings float16 entries to the upper end of their range, and one over it; else nothing.

    What a loss counts, a gradient scaler's factor too, is in the entries: without this they overflow or vanish.
    """
    if dtype != torch.float16:
        return None, None
    bound = gain.abs().amax()
    if slope is not None and slope.numel():
        bound = torch.maximum(bound, slope.abs().amax())
    exponent = (15 - torch.frexp(bound).exponent).clamp(-100, 100)
    one = torch.ones((), device=bound.device)
    return torch.ldexp(one, exponent), torch.ldexp(one, -exponent)


def _at_pairs(pair_logit: Tensor, recipe: Recipe) -> Tensor | float:
    """Derivative of the readout at the logits of earlier targets."""
    if recipe.readout.softcap is None:
        return recipe.readout.scale
    # Only seen ids are asked for, so the shift is theirs; dropped ones have slope zero anyway.
    seen = 0.0 if recipe.shift is None else recipe.shift.earlier
    plain = (torch.where(pair_logit == -torch.inf, seen, pair_logit) - seen) / recipe.temperature
    return recipe.readout.slope(plain)


def _gated_sum(bias_sum: Tensor, factors: tuple[Tensor, Tensor] | None, common: Tensor | None) -> Tensor:
    if factors is None:
        return bias_sum.sum(0)
    assert common is not None
    early = (torch.arange(bias_sum.size(0), device=bias_sum.device) < common)[:, None]
    sums = (torch.where(early, bias_sum, 0.0).sum(0), torch.where(early, 0.0, bias_sum).sum(0))
    return factors[0] * sums[0] + factors[1] * sums[1]


def _split(weight: Tensor, columns: int, groups: int) -> int:
    """Into how many sums live columns are divided so that every multiprocessor has work, at most a few."""
    programs = -(-weight.size(1) // columns) * groups
    return max(1, min(_MOST, _FULL * _processors(weight.device) // programs))


@cache
def _processors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 1


def tuning_key(weight: Tensor, precision: str) -> tuple[object, ...]:
    """What the quickest tile depends on."""
    return weight.device, weight.dtype, weight.shape, precision
