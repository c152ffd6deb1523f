"""One evaluation: the targets' logits, an order, then a sweep chunk by chunk and the gradients of each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from decone.engines.contract import Gate, Readout, Rule, Tokens, upcast
from decone.engines.triton.columns import compact
from decone.engines.triton.forward import Chunk, sweep
from decone.engines.triton.gradients import Rest, Sums, add, tuning_key
from decone.engines.triton.history import KEPT_BYTES, History, charge, charges, look_back
from decone.engines.triton.log_sum import log_sum
from decone.engines.triton.logits import Recipe, input_precision, target_logits
from decone.engines.triton.order import Order, arrange
from decone.engines.triton.own import add_own
from decone.engines.triton.tiles import Tile, candidates, quickest

_VECTOR_ROWS = 2048  # positions whose hidden states and rows a floor by norms sees in float32 at a time


@dataclass
class Job:
    """One call's inputs, contiguous and in the precision of the large products; at least one position."""

    hidden: Float[Tensor, "N H"]
    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, " V"] | None
    tokens: Tokens
    rule: Rule
    readout: Readout
    chunk_bytes: int
    gate: Gate | None


@dataclass
class Wanted:
    """Which gradients are asked for, and what the loss of each target counts in them."""

    hidden: bool
    table: bool
    bias: bool
    up: Float[Tensor, " N"]


@dataclass
class Outcome:
    """What `Evaluation` holds, one number per position, and the gradients of the weighted sum of losses."""

    loss: Float[Tensor, " N"]
    nll: Float[Tensor, " N"]
    lse: Float[Tensor, " N"]
    kept: Int64[Tensor, " N"]
    live: Float[Tensor, ""]
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None] | None


def evaluate(job: Job, wanted: Wanted | None, nll: bool) -> Outcome:
    """Goes over all logits once; with `wanted`, makes gradients on the way.

    Args:
        job: the inputs.
        wanted: the gradients to make; None makes none and does no work for any.
        nll: whether the plain negative log-likelihood is wanted; without it `nll` of the outcome holds anything.

    Raises:
        ValueError: `chunk_bytes` holds no tile of positions.
    """
    N, V, device = job.hidden.size(0), job.weight.size(0), job.weight.device
    tiles, precision, history = candidates(job.hidden.dtype), input_precision(job.hidden.dtype), None
    tokens = job.tokens
    if job.rule.history:
        tokens = tokens.with_earlier(V)
        history = look_back(tokens, V)
    charging = charges(job.rule, device)
    C = _chunk_rows(job, tiles.logits[0].rows, history if charging else None)
    entry = None if wanted is None else job.weight.new_empty(V * C)

    def trial(tile: Tile) -> None:
        _try(job, tile, precision, C, entry)

    # One choice for a forward pass alone and for the backward pass that sweeps again: in another shape the same logit
    # could fall on the other side of a floor.
    tile = quickest(("logits", *tuning_key(job.weight, precision)), tiles.logits, trial)
    recipe = Recipe(tile, precision, job.readout, job.rule.scale(), job.rule.shift())
    own_plain, own = target_logits(job.hidden, job.weight, job.bias, tokens.target, history, recipe)
    floor = _floor(job, tokens, own)
    order = arrange(N, tile.rows, floor, None if job.gate is None else job.gate.rare[tokens.target], device)
    plain = nll and (floor is not None or recipe.shift is not None or recipe.temperature != 1.0)
    sums = None if wanted is None else _start(job, wanted)
    numbers = torch.zeros(4, N + 1, device=device)  # loss, nll, lse, live share
    kept = torch.zeros(N + 1, dtype=torch.int64, device=device)
    for part, common in _parts(order, C, tile.rows):
        index, filled = order.position[part], order.filled[part]
        chunk = _chunk(job, tokens, index, filled, own, own_plain, floor, history)
        room = None if entry is None else entry[: V * index.numel()].view(V, -1)
        swept = sweep(chunk, job.weight, job.bias, recipe, plain=plain, charged=charging, entry=room)
        whole = log_sum(swept.top, swept.beyond, filled, chunk.own)
        above = torch.where(filled, -whole.less(swept.top), -torch.inf)
        bare = loss = whole.less(chunk.own)
        charged = None
        if swept.pair_logit is not None and chunk.tokens is not None:
            charged = charge(
                job.rule, chunk.tokens, swept.pair_logit, chunk.own, whole, wanted is not None, job.chunk_bytes
            )
            loss = loss if charged is None else loss + charged.cost
        if swept.plain_top is not None and swept.plain_beyond is not None:
            bare = log_sum(swept.plain_top, swept.plain_beyond, filled).less(chunk.own_plain)
        columns, share = None, torch.ones_like(loss)
        if swept.live is not None:
            columns = compact(swept.live, tiles.table[0].rows, swept.live.size(0) if common is None else common)
            share = (columns.counts / V).repeat_interleave(tile.rows, output_size=loss.numel())
        numbers[:, index] = torch.stack((loss, bare, whole.value(), share))
        kept[index] = swept.count.sum(0) + (chunk.own > -torch.inf)
        if sums is not None and wanted is not None:
            up = wanted.up[index.clamp(max=N - 1)]
            rest = Rest(index, filled, up, whole, above, charged, columns, common)
            add(sums, chunk, swept, rest, job.weight, job.gate, recipe, tiles)
    if sums is not None:
        add_own(job.hidden, sums.own[:N], tokens.target, sums.table, sums.bias)
    loss, bare, lse, share = (row.clone() for row in numbers[:, :N])
    found = None if sums is None else (None if sums.hidden is None else sums.hidden[:N], sums.table, sums.bias)
    return Outcome(loss, bare, lse, kept[:N], share.mean(), found)


def _chunk_rows(job: Job, rows: int, history: History | None) -> int:
    """Positions per chunk, a whole number of tiles: as many as the budget holds, and no more than there are.

    `history` is None unless the rule charges: nothing is kept of pairs that only shift logits.
    """
    tile_bytes = rows * job.weight.size(0) * job.weight.element_size()
    if history is not None:
        pair_bytes = rows * KEPT_BYTES * history.longest
        if job.chunk_bytes < pair_bytes:
            raise ValueError(
                f"chunk_bytes must hold what {rows} positions keep of up to {history.longest} earlier targets each, "
                f"{pair_bytes} bytes, got {job.chunk_bytes}; raise it, shorten the sequences, or pass engine='chunked'"
            )
        tile_bytes = max(tile_bytes, pair_bytes)
    if job.chunk_bytes < tile_bytes:
        raise ValueError(
            f"chunk_bytes must hold {rows} rows of the logits, {tile_bytes} bytes, got {job.chunk_bytes}; raise it, "
            "or pass engine='chunked', which goes down to one row"
        )
    most = -(-job.hidden.size(0) // rows) + (job.gate is not None)
    return min(job.chunk_bytes // tile_bytes, most) * rows


def _floor(job: Job, tokens: Tokens, own: Tensor) -> Tensor | None:
    """The rule's floor of every position; hidden states and rows of targets are seen a few at a time."""
    if not job.rule.vectors:
        floor = job.rule.floor(own, tokens)
        return None if floor is None else floor.float().expand_as(own).contiguous()
    found = []
    for start in range(0, own.numel(), _VECTOR_ROWS):
        part = slice(start, start + _VECTOR_ROWS)
        row = upcast(job.weight[tokens.target[part]])
        floor = job.rule.floor(own[part], tokens.select(part, upcast(job.hidden[part]), row))
        if floor is None:
            return None
        found.append(floor.float().expand_as(own[part]))
    return torch.cat(found)


def _parts(order: Order, C: int, rows: int) -> Iterator[tuple[slice, Tensor | None]]:
    """Chunks of the order, and how many of the first tiles of each hold common targets."""
    M = order.position.numel()
    for start in range(0, M, C):
        stop = min(M, start + C)
        tiles = (stop - start) // rows
        yield slice(start, stop), None if order.common is None else (order.common - start // rows).clamp(0, tiles)


def _chunk(
    job: Job,
    tokens: Tokens,
    index: Tensor,
    filled: Tensor,
    own: Tensor,
    own_plain: Tensor,
    floor: Tensor | None,
    history: History | None,
) -> Chunk:
    index = index.clamp(max=job.hidden.size(0) - 1)
    target = torch.where(filled, tokens.target[index], -1)
    # What only fills a tile repeats a position; it keeps nothing, and its gradient is nothing.
    floor = None if floor is None else torch.where(filled, floor[index], torch.inf)
    part = None
    if history is not None:
        part = tokens.select(index)
        assert part.earlier is not None
        # A place that only fills a tile looks back on nothing.
        length = torch.where(filled, history.length[index], 0)
        part = replace(part, earlier=part.earlier._replace(length=length.long()))
        history = history._replace(list_of=history.list_of[index], length=length)
    return Chunk(job.hidden[index], target, own[index], own_plain[index], floor, history, part)


def _start(job: Job, wanted: Wanted) -> Sums:
    (N, H), device = job.hidden.shape, job.weight.device
    # In float16 a sum over many tokens overflows before anybody divides it: it waits in float32.
    kind = torch.float32 if job.hidden.dtype == torch.float16 else job.hidden.dtype
    return Sums(
        torch.zeros(N + 1, H, dtype=kind, device=device) if wanted.hidden else None,
        torch.zeros(job.weight.shape, device=device) if wanted.table else None,
        torch.zeros(job.weight.size(0), device=device) if wanted.bias else None,
        torch.zeros(N + 1, device=device),
    )


def _try(job: Job, tile: Tile, precision: str, C: int, entry: Tensor | None) -> None:
    """A sweep of any hidden states, to time a tile."""
    index = torch.arange(C, device=job.hidden.device) % job.hidden.size(0)
    zeros = torch.zeros(C, device=index.device)
    chunk = Chunk(job.hidden[index], job.tokens.target[index], zeros, zeros, zeros, None)
    room = None if entry is None else entry.view(-1, C)
    sweep(chunk, job.weight, job.bias, Recipe(tile, precision, job.readout), plain=True, charged=False, entry=room)
