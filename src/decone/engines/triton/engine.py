"""The triton engine: targets' logits, an order, a sweep chunk by chunk, and the gradients handed to autograd."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decone.engines.contract import LOSS, Evaluation, Gate, Request, Rule, Tokens, upcast
from decone.engines.sweep import (
    SweepCall,
    SweepGradients,
    SweepInputs,
    autocast_inputs,
    charges_earlier,
    input_types,
    refuse_second_derivative,
    storage_types,
)
from decone.engines.triton.history import (
    CHUNK_PAIR_BYTES,
    EarlierCharge,
    History,
    build_history,
    charge_earlier,
    pair_slopes,
)
from decone.engines.triton.launch import (
    LogitRecipe,
    TileChunk,
    TileSums,
    add_table_gradient,
    add_target_rows,
    float16_lift,
    hidden_gradient,
    input_precision,
    sweep_tiles,
    target_logits,
    to_slopes,
)
from decone.engines.triton.tiles import (
    LiveColumns,
    LogSum,
    Tile,
    TileOrder,
    Tiles,
    arrange_tiles,
    candidates,
    list_live_columns,
    log_sum,
    quickest,
)
from decone.engines.triton.triton_compat import check

CHUNK_BYTES = 512 * 2**20  # one chunk of exponentials in the inputs' precision
_VECTOR_ROWS = 2048  # positions whose hidden states and rows a floor by norms sees in float32 at a time
_PRODUCT_ROWS = 16384  # rows of a gradient that are multiplied at a time
_FULL = 4  # programs per multiprocessor from which on nothing is gained by dividing the sums further
_MOST = 8  # sums into which one tile's live columns are divided at most


def triton(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Tokens,
    rule: Rule,
    request: Request = LOSS,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> Evaluation:
    """Evaluates a rule on an NVIDIA GPU; arguments as in `Engine`, values as of `reference`.

    Sums have one order for one choice of tiles: two runs in one process give the same bits. The choice is made by
    timing, once per process; DECONE_TRITON_TILES=0 in the environment (or the index of another candidate) fixes it, and
    the bits with it, for every process on the same kind of GPU.

    The host waits for the device where a rule looks back (sizes of lists), where it charges (pairs of each block), and
    while tiles are tried at the first call with new sizes; nowhere else.

    `chunk_bytes` is the size of one chunk of exponentials; the float32 sum of the table's gradient comes on top.

    Raises:
        ValueError: the device, the precision or the rule is none for these kernels, or `chunk_bytes` is too small, or
            (in the interpreter; a GPU stops with an assertion, later) a target is no row of the table.
    """
    check(hidden.device)
    if rule.general:
        raise ValueError(
            f"the triton engine has no kernel for {type(rule).__name__} with these settings: its hooks `adjust` and "
            "`extra` see whole rows of logits; pass engine='chunked'"
        )
    _check_targets(tokens.target, weight.size(0))
    call = _TritonCall(tokens, rule, rule.gate(), request, chunk_bytes, torch.is_grad_enabled())
    result = _Triton.apply(hidden, weight, bias, call)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    loss, nll, lse, support, live = result
    return Evaluation(loss, nll if request.nll else None, *((lse, support, live) if request.detail else ()))


@dataclass
class TiledInputs(SweepInputs):
    """Inputs of a sweep by tiles, contiguous, with at least one position; `chunk_bytes` is for exponentials."""

    chunk_bytes: int


@dataclass(frozen=True)
class _TritonCall(SweepCall):
    """One call on one GPU."""

    chunk_bytes: int
    learning: bool

    def inputs(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> TiledInputs:
        """The inputs of a sweep."""
        readout = self.request.readout
        return TiledInputs(hidden, weight, bias, self.tokens, self.rule, self.gate, readout, self.chunk_bytes)


class _Triton(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, call: _TritonCall) -> tuple[Tensor, ...]:
        ctx.types = input_types(hidden, weight, bias)
        hidden, weight, bias = _prepare(hidden, weight, bias)
        N, device, request = hidden.size(0), hidden.device, call.request
        importance = None if call.tokens.importance is None else call.tokens.importance.float()
        ctx.importance, ctx.call = importance, None
        ctx.learning = ctx.needs_input_grad[:3] if call.learning else (False,) * 3
        if N == 0:
            ctx.save_for_backward(*(torch.zeros_like(t) if t is not None else None for t in (hidden, weight, bias)))
            loss, nll, lse = (torch.zeros(0, device=device) for _ in range(3))
            details: tuple[Tensor, ...] = (nll, lse, loss.long(), torch.ones((), device=device))
        else:
            up = None
            if any(ctx.learning) and not request.per_token:
                up = torch.ones(N, device=device) if importance is None else importance
            with _on_device(hidden):
                result, gradients = evaluate(call.inputs(hidden, weight, bias), ctx.learning, up, request.nll)
            if gradients is not None:
                ctx.save_for_backward(*gradients.cast(storage_types(ctx.types)))
            elif any(ctx.learning):
                ctx.call = call
                ctx.save_for_backward(hidden, weight, bias)
            loss, *rows = result
            loss, details = loss if importance is None else loss * importance, tuple(t for t in rows if t is not None)
        ctx.mark_non_differentiable(*details)
        return loss if request.per_token else loss.sum(), *details

    @staticmethod
    def backward(ctx: Any, up: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("the triton engine")
        if ctx.call is None:
            # An empty batch has no losses to weigh.
            factor = up if up.dim() == 0 else up.sum()
            return *map(partial(_multiply, factor=factor), ctx.saved_tensors, ctx.types), None
        up = up.float() if ctx.importance is None else up.float() * ctx.importance
        with _on_device(up):
            inputs = ctx.call.inputs(*ctx.saved_tensors)
            gradients = evaluate(inputs, ctx.learning, up.contiguous(), False)[1]
        assert gradients is not None
        return *gradients.cast(ctx.types), None


def evaluate(
    inputs: TiledInputs, requires_grad: Sequence[bool], up: Float[Tensor, " N"] | None, nll: bool
) -> tuple[Evaluation, SweepGradients | None]:
    """Goes over all logits once; with `up`, a factor on the loss of each target, makes gradients on the way.

    Returns one number per position, importance left out (`nll` holds anything unless asked for), and the gradients of
    the weighted sum of losses.

    Raises:
        ValueError: `chunk_bytes` holds no tile of positions.
    """
    N, V, device = inputs.hidden.size(0), inputs.weight.size(0), inputs.weight.device
    tiles, precision, history = candidates(inputs.hidden.dtype), input_precision(inputs.hidden.dtype), None
    tokens, rule = inputs.tokens, inputs.rule
    if rule.history:
        tokens = tokens.with_earlier(V)
        history = build_history(tokens, V)
    has_charge = charges_earlier(rule, torch.zeros((), device=device))
    C = _chunk_rows(inputs, tiles.logits[0].rows, history if has_charge else None)
    entry = None if up is None else inputs.weight.new_empty(V * C)

    def trial(tile: Tile) -> None:
        _try_tile(inputs, tile, precision, C, entry)

    # One choice for a forward pass alone and for the backward pass that sweeps again: in another shape the same logit
    # could fall on the other side of a floor.
    tile = quickest(("logits", *tuning_key(inputs.weight, precision)), tiles.logits, trial)
    recipe = LogitRecipe(tile, precision, inputs.readout, rule.scale(), rule.shift())
    plain_logit, logit = target_logits(inputs.hidden, inputs.weight, inputs.bias, tokens.target, history, recipe)
    floor = _floor(inputs, tokens, logit)
    rare = None if inputs.gate is None else inputs.gate.rare[tokens.target]
    order = arrange_tiles(N, tile.rows, floor, rare, device)
    plain = nll and (floor is not None or recipe.shift is not None or recipe.temperature != 1.0)
    gradients = None if up is None else _zero_gradients(inputs, requires_grad)
    numbers = torch.zeros(4, N + 1, device=device)  # loss, nll, lse, live share; the last column is for filled up tiles
    support = torch.zeros(N + 1, dtype=torch.int64, device=device)
    for entries, common in _chunk_slices(order, C, tile.rows):
        index, filled = order.position[entries], order.filled[entries]
        chunk = _chunk(inputs, tokens, index, filled, logit, plain_logit, floor, history)
        room = None if entry is None else entry[: V * index.numel()].view(V, -1)
        sums = sweep_tiles(chunk, inputs.weight, inputs.bias, recipe, plain=plain, charged=has_charge, entry=room)
        total = log_sum(sums.top, sums.beyond, filled, chunk.target_logit)
        above = torch.where(filled, -total.less(sums.top), -torch.inf)
        plain_nll = loss = total.less(chunk.target_logit)
        charge = None
        if sums.pair_logit is not None and chunk.tokens is not None:
            charge = charge_earlier(
                rule, chunk.tokens, sums.pair_logit, chunk.target_logit, total, up is not None, inputs.chunk_bytes
            )
            loss = loss if charge is None else loss + charge.cost
        if sums.plain_top is not None and sums.plain_beyond is not None:
            plain_nll = log_sum(sums.plain_top, sums.plain_beyond, filled).less(chunk.plain_target_logit)
        columns, share = None, torch.ones_like(loss)
        if sums.live is not None:
            columns = list_live_columns(sums.live, tiles.table[0].rows, sums.live.size(0) if common is None else common)
            share = (columns.counts / V).repeat_interleave(tile.rows, output_size=loss.numel())
        numbers[:, index] = torch.stack((loss, plain_nll, total.value(), share))
        support[index] = sums.count.sum(0) + (chunk.target_logit > -torch.inf)
        if gradients is not None and up is not None:
            terms = ChunkTerms(index, filled, up[index.clamp(max=N - 1)], total, above, charge, columns, common)
            add_gradients(gradients, chunk, sums, terms, inputs.weight, inputs.gate, recipe, tiles)
    if gradients is not None:
        add_target_rows(inputs.hidden, gradients.target_logit[:N], tokens.target, gradients.table, gradients.bias)
        gradients.hidden = None if gradients.hidden is None else gradients.hidden[:N]
    loss, plain_nll, lse, share = (row.clone() for row in numbers[:, :N])
    return Evaluation(loss, plain_nll, lse, support[:N], share.mean()), gradients


def _chunk_rows(inputs: TiledInputs, rows: int, history: History | None) -> int:
    """Positions per chunk, a number of complete tiles: as the budget allows, and not more than there are.

    `history` is None unless the rule charges: no room is needed for pairs that only shift logits.
    """
    tile_bytes = rows * inputs.weight.size(0) * inputs.weight.element_size()
    if history is not None:
        pair_bytes = rows * CHUNK_PAIR_BYTES * history.longest
        if inputs.chunk_bytes < pair_bytes:
            raise ValueError(
                f"chunk_bytes must hold what {rows} positions keep of up to {history.longest} earlier targets each, "
                f"{pair_bytes} bytes, got {inputs.chunk_bytes}; raise it, shorten the sequences, or pass "
                "engine='chunked'"
            )
        tile_bytes = max(tile_bytes, pair_bytes)
    if inputs.chunk_bytes < tile_bytes:
        raise ValueError(
            f"chunk_bytes must hold {rows} rows of the logits, {tile_bytes} bytes, got {inputs.chunk_bytes}; raise it, "
            "or pass engine='chunked', which goes down to one row"
        )
    most = -(-inputs.hidden.size(0) // rows) + (inputs.gate is not None)
    return min(inputs.chunk_bytes // tile_bytes, most) * rows


def _floor(inputs: TiledInputs, tokens: Tokens, target_logit: Tensor) -> Tensor | None:
    """The rule's floor of every position; hidden states and rows of targets are visited a few at a time."""
    rule = inputs.rule
    if not rule.vectors:
        floor = rule.floor(target_logit, tokens)
        return None if floor is None else floor.float().expand_as(target_logit).contiguous()
    floors = []
    for start in range(0, target_logit.numel(), _VECTOR_ROWS):
        block = slice(start, start + _VECTOR_ROWS)
        row = upcast(inputs.weight[tokens.target[block]])
        floor = rule.floor(target_logit[block], tokens.select(block, upcast(inputs.hidden[block]), row))
        if floor is None:
            return None
        floors.append(floor.float().expand_as(target_logit[block]))
    return torch.cat(floors)


def _chunk_slices(order: TileOrder, C: int, rows: int) -> Iterator[tuple[slice, Tensor | None]]:
    """Chunks of the order, and for each the number of its first tiles with common targets."""
    M = order.position.numel()
    for start in range(0, M, C):
        stop = min(M, start + C)
        tiles = (stop - start) // rows
        yield slice(start, stop), None if order.common is None else (order.common - start // rows).clamp(0, tiles)


def _chunk(
    inputs: TiledInputs,
    tokens: Tokens,
    index: Tensor,
    filled: Tensor,
    target_logit: Tensor,
    plain_target_logit: Tensor,
    floor: Tensor | None,
    history: History | None,
) -> TileChunk:
    index = index.clamp(max=inputs.hidden.size(0) - 1)
    target = torch.where(filled, tokens.target[index], -1)
    # An entry that only fills a tile repeats a position; it keeps no logit, and its gradient is zero.
    floor = None if floor is None else torch.where(filled, floor[index], torch.inf)
    chunk_tokens = None
    if history is not None:
        chunk_tokens = tokens.select(index)
        assert chunk_tokens.earlier is not None
        # An entry that only fills a tile looks back on nothing.
        length = torch.where(filled, history.length[index], 0)
        chunk_tokens = replace(chunk_tokens, earlier=chunk_tokens.earlier._replace(length=length.long()))
        history = history._replace(list_of=history.list_of[index], length=length)
    hidden, logit, plain_logit = inputs.hidden[index], target_logit[index], plain_target_logit[index]
    return TileChunk(hidden, target, logit, plain_logit, floor, history, chunk_tokens)


@dataclass
class ChunkTerms:
    """Terms of a chunk's gradient beside its tiles."""

    index: Int[Tensor, " C"]  # position of each entry of the chunk
    filled: Bool[Tensor, " C"]
    up: Float[Tensor, " C"]
    log_sum: LogSum
    above: Float[Tensor, "T C"]  # greatest logit of each column tile less the log-sum-exp
    charge: EarlierCharge | None
    columns: LiveColumns | None  # live columns; None where all are live
    common: Int[Tensor, ""] | None  # number of the first tiles with common targets


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


def _zero_gradients(inputs: TiledInputs, requires_grad: Sequence[bool]) -> SweepGradients:
    """Gradients of zero, with one more position for entries that only fill a tile."""
    (N, H), device = inputs.hidden.shape, inputs.weight.device
    (hidden_type,) = storage_types((inputs.hidden.dtype,))
    hidden, table, bias = requires_grad
    return SweepGradients(
        torch.zeros(N + 1, H, dtype=hidden_type, device=device) if hidden else None,
        torch.zeros(inputs.weight.shape, device=device) if table else None,
        torch.zeros(inputs.weight.size(0), device=device) if bias else None,
        torch.zeros(N + 1, device=device),
    )


def _try_tile(inputs: TiledInputs, tile: Tile, precision: str, C: int, entry: Tensor | None) -> None:
    """A sweep of any hidden states, to time a tile."""
    index = torch.arange(C, device=inputs.hidden.device) % inputs.hidden.size(0)
    zeros = torch.zeros(C, device=index.device)
    chunk = TileChunk(inputs.hidden[index], inputs.tokens.target[index], zeros, zeros, zeros, None)
    room = None if entry is None else entry.view(-1, C)
    recipe = LogitRecipe(tile, precision, inputs.readout)
    sweep_tiles(chunk, inputs.weight, inputs.bias, recipe, plain=True, charged=False, entry=room)


def _check_targets(target: Tensor, vocabulary: int) -> None:
    """Stops at targets that are no row of the table, on a GPU without waiting for it."""
    inside = ((target >= 0) & (target < vocabulary)).all()
    if target.is_cuda:
        torch._assert_async(inside)
    elif not inside:
        raise ValueError(
            f"targets must be ids from 0 to {vocabulary - 1}, got {int(target.min())} to {int(target.max())}; "
            "leave ignored positions out before the engine is called"
        )


def _on_device(tensor: Tensor) -> AbstractContextManager[None]:
    """Kernels go to the device where torch stands, which need not be that of their tensors."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _multiply(gradient: Tensor | None, dtype: torch.dtype | None, factor: Tensor) -> Tensor | None:
    """The product in float32, rounded once, without a float32 copy of a complete table."""
    if gradient is None:
        return None
    product = torch.empty_like(gradient, dtype=dtype)
    for start in range(0, gradient.size(0), _PRODUCT_ROWS):
        rows = slice(start, start + _PRODUCT_ROWS)
        product[rows] = gradient[rows].float() * factor
    return product


def _prepare(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs as the kernels read them: cast as autocast casts for a product, of one type, contiguous."""
    hidden, weight, bias = autocast_inputs(hidden, weight, bias)
    if hidden.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        name = str(hidden.dtype).removeprefix("torch.")
        raise ValueError(f"the triton engine has no kernels for {name}; cast to float32, or pass engine='chunked'")
    if weight.dtype != hidden.dtype:
        raise ValueError(f"hidden is {hidden.dtype} and weight {weight.dtype}; cast one, or call in torch.autocast")
    return hidden.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
