"""The engine for a table cut along the vocabulary over several ranks that hold the same hidden states.

Every rank makes the logits of its own rows. The softmax needs what all ranks know, and the gradient of the table sums
over positions with a factor 1 / S per position, which cannot be put in afterwards: either S is known while the chunk
is alive, or the products are made again. Here S is: one gather of three numbers per position, between the forward
product and the two of the gradient, beside 3 v H multiplications per position with v rows on a rank. So one sweep
suffices, memory is one chunk of local logits, and nothing is computed twice.

A threshold needs the target's logit only. It is summed over ranks before the sweep (one rank holds the row, the
others add zero), so all ranks sort positions alike; in the sweep the owner gives it once more, from the product that
is compared. Then every rank gathers its own live rows. The gradient of hidden states is summed over ranks once, at
the end; that of the table stays where the rows are. With a gate, positions are taken class by class. Gradients are
summed in float32 whatever the precision of the model.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from decone.engines.contract import LOSS, Evaluation, Gate, Pairs, Request, Rule, Tokens, upcast
from decone.engines.shard import Shard, rows_of, shard_of, stated
from decone.engines.sharded_chunk import Found, Job, Sums, evaluate

CHUNK_BYTES = 32 * 2**20  # one chunk of float32 logits of one rank
PAIR_BYTES = 32  # what one pair of a position and an earlier target takes while a chunk is alive
SORTED_ROWS = 256  # positions at a time behind a threshold on a CPU: few share their live rows, 64 slow the products


def vocab_parallel(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Tokens,
    rule: Rule,
    request: Request = LOSS,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> Evaluation:
    """Evaluates a rule on a table cut along the vocabulary; same values as `reference` on the whole table.

    All ranks of the mesh dimension call it together with the same hidden states and tokens, and all of them get the
    whole loss and the whole gradient of the hidden states. The gradient of a weight is a DTensor cut like the weight;
    over dimensions of the mesh where the weight is replicated it is this rank's own and still to be averaged.

    Args:
        hidden: hidden states of the counted positions, [N, H], a plain tensor.
        weight: output table, [V, H], a DTensor with Shard(0) over one mesh dimension and Replicate over the others;
            see `decone.engines.shard.shard` for plain shards.
        bias: output bias, [V], cut like the weight, or None.
        tokens: targets and their places, N of them.
        rule: the objective, without `adjust` and `extra`.
        request: see `Request`; with `per_token` the backward pass speaks to the other ranks again.
        chunk_bytes: size of one chunk of float32 logits on one rank, in bytes.

    Returns:
        See `Evaluation`; `kept` counts over all ranks, `live` is their mean.

    Raises:
        ValueError: the weight is not cut in this way, the rule needs whole rows of logits, the ranks do not fit each
            other, a target is outside the vocabulary, or not one position fits into chunk_bytes.

    Example:
        >>> from torch.distributed import HashStore, destroy_process_group, init_process_group
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> from decone.engines.shard import shard
        >>> from decone.objectives import MLE
        >>> init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        >>> weight = shard(torch.zeros(4, 2), init_device_mesh("cpu", (1,)))
        >>> tokens = Tokens(torch.tensor([1]), torch.tensor([0]), torch.tensor([0]))
        >>> vocab_parallel(torch.zeros(1, 2), weight, None, tokens, MLE()).loss
        tensor(1.3863)
        >>> destroy_process_group()
    """
    shard = shard_of(weight, bias)
    if hasattr(hidden, "device_mesh"):
        raise ValueError("hidden is a DTensor; pass the plain states that every rank holds, hidden.full_tensor()")
    if rule.history:
        tokens = tokens.with_earlier(shard.vocabulary)
    table, own_bias = rows_of(weight), None if bias is None else rows_of(bias)
    wanted = tuple(t is not None and t.requires_grad and torch.is_grad_enabled() for t in (hidden, table, own_bias))
    gate, longest = rule.gate(), 0
    if tokens.earlier is not None and tokens.target.numel():
        longest = int(tokens.earlier.length.max())
    kinds = [t if t is None else t.dtype for t in (hidden, table, own_bias, tokens.importance)]
    device = hidden.device.type
    automatic = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    settings = stated(rule, gate, hidden, shard.vocabulary) | {
        "histories": longest,
        "readouts": request.readout,
        "shapes": (*hidden.shape, table.size(1)),
        "types, biases or importance": (kinds, automatic),
        "settings": (chunk_bytes, request.per_token, request.nll, request.detail),
        "tensors that need gradients": wanted,
    }
    # Nothing about the call is refused before this: a rank that stops alone lets the others wait for ever.
    shard.agree(table.size(0), tokens.target, settings)
    if rule.general:
        raise ValueError(
            f"{type(rule).__name__} looks at whole rows of logits, of which every rank holds a part; pass "
            "weight.full_tensor() with engine='chunked'"
        )
    rows = _rows(longest, shard, chunk_bytes)
    call = _Call(tokens, rule, request, shard, rows, gate, wanted)
    return Evaluation(*_VocabParallel.apply(hidden, table, own_bias, call))  # type: ignore[no-untyped-call]  # in torch


@dataclass(frozen=True)
class _Call:
    """One call's settings; once planned, tokens stand in the order of the sweep."""

    tokens: Tokens
    rule: Rule
    request: Request
    shard: Shard
    rows: int
    gate: Gate | None
    wanted: tuple[bool, ...]
    order: Tensor | None = None
    common: int = 0  # positions before this one have common targets, the others rare ones
    floored: bool = False
    charged: bool = False

    @property
    def plain(self) -> bool:
        """Whether the rule leaves logits as the readout gives them, so that its log-sum-exp is the plain one."""
        return not self.floored and self.rule.shift() is None and self.rule.scale() == 1.0


class _VocabParallel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, bias: Tensor | None, call: _Call) -> tuple[Tensor | None, ...]:
        ctx.types = hidden.dtype, table.dtype, None if bias is None else bias.dtype
        if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:  # as F.linear decides
            dtype = torch.get_autocast_dtype(hidden.device.type)
            hidden, table, bias = hidden.to(dtype), table.to(dtype), None if bias is None else bias.to(dtype)
        call = _planned(call, hidden, table)
        learning = any(call.wanted)
        found, sums = _sweep(call, hidden, table, bias, None, learning and not call.request.per_token)
        result = _joined(call, found)
        ctx.call = None
        if sums is not None:
            # In float16 a sum over many tokens overflows before `up` divides it: it waits in float32.
            waiting = [torch.float32 if kind == torch.float16 else kind for kind in ctx.types]
            ctx.save_for_backward(*_cast(sums, waiting))
        elif learning:
            ctx.call = call
            ctx.save_for_backward(hidden, table, bias)
        ctx.mark_non_differentiable(*(values for values in result[1:] if values is not None))
        return result

    @staticmethod
    def backward(ctx: Any, up: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # Gradients made by hand carry no graph: a penalty on them would be left out without a word.
            raise RuntimeError(
                "vocab_parallel gives no second derivative (create_graph); pass weight.full_tensor() with "
                "engine='reference'"
            )
        if ctx.call is not None:
            hidden, table, bias = ctx.saved_tensors
            sums = _sweep(ctx.call, hidden, table, bias, up, True)[1]
            assert sums is not None
            return *_cast(sums, ctx.types), None
        grads = (None if grad is None else upcast(grad) * up for grad in ctx.saved_tensors)
        return *(None if g is None else g.to(kind) for g, kind in zip(grads, ctx.types, strict=True)), None


def _planned(call: _Call, hidden: Tensor, table: Tensor) -> _Call:
    """Settles what the sweep must know beforehand: the order of positions, and which hooks the rule uses."""
    tokens, shard = call.tokens, call.shard
    if tokens.importance is not None:  # of another type it would change that of the loss
        tokens = replace(tokens, importance=tokens.importance.to(upcast(hidden[:0]).dtype))
    mine, row = shard.place(tokens.target)
    logit = hidden.new_zeros(tokens.target.numel(), dtype=upcast(hidden[:0]).dtype)
    own = mine.nonzero().squeeze(1)
    for some in torch.split(own, 1024):
        logit[some] = (hidden[some] * table[row[some]]).sum(1, dtype=logit.dtype)
    logit, target_row = shard.total(logit), None
    if call.rule.vectors:
        target_row = logit.new_zeros(hidden.shape)
        target_row[own] = upcast(table[row[own]])
        target_row = shard.total(target_row)
    everything = tokens.select(slice(None), upcast(hidden) if call.rule.vectors else None, target_row)
    floored = call.rule.floor(logit, everything) is not None
    order = logit.argsort(stable=True) if floored else None
    common = logit.numel()
    if call.gate is not None:
        rare = call.gate.rare[tokens.target]
        # Rare targets last: each chunk but one holds a single class.
        order = rare.long().argsort(stable=True) if order is None else order[rare[order].long().argsort(stable=True)]
        common -= int(rare.sum())
    nobody = tokens.target.new_empty(0, dtype=torch.int64)
    charged = call.rule.history and call.rule.charge(logit[:0], Pairs(nobody, nobody, nobody)) is not None
    if order is not None:
        vectors = (everything.hidden, everything.target_row)
        everything = everything.select(order, *(None if v is None else v[order] for v in vectors))
    rows = call.rows
    if floored and hidden.device.type == "cpu":
        rows = min(rows, SORTED_ROWS)
    return replace(call, tokens=everything, rows=rows, order=order, common=common, floored=floored, charged=charged)


def _sweep(
    call: _Call, hidden: Tensor, table: Tensor, bias: Tensor | None, up: Tensor | None, learning: bool
) -> tuple[Found, Sums | None]:
    """Goes over all positions once; values in the order of the sweep, gradients in that of the hidden states."""
    order, importance, N = call.order, call.tokens.importance, hidden.size(0)
    ordered = hidden if order is None else hidden[order]
    rule, shard = call.rule, call.shard
    job = Job(
        ordered, table, bias, call.tokens, rule, call.request.readout, shard, call.gate, call.floored, call.charged
    )
    kind = upcast(hidden[:0]).dtype
    weights = hidden.new_ones(N, dtype=kind) if up is None else up.to(kind)
    weights = weights if up is None or order is None else weights[order]
    weights = weights if importance is None else weights * importance
    plain = call.request.nll and not call.plain

    def room(asked: bool) -> Tensor | None:
        return hidden.new_zeros(N, dtype=kind) if asked else None

    nll, lse = hidden.new_zeros(2, N, dtype=kind)
    found, sums = Found(nll, lse, room(call.charged), room(plain), room(plain), room(call.request.detail)), None
    if learning:
        given = zip((hidden, table, bias), call.wanted, strict=True)
        sums = Sums(*(torch.zeros_like(t, dtype=kind) if t is not None and asked else None for t, asked in given))
    for rare, low, high in ((False, 0, call.common), (True, call.common, N)):
        for start in range(low, high, call.rows):
            evaluate(job, slice(start, min(high, start + call.rows)), weights, found, sums, rare)
    if sums is not None and sums.hidden is not None:
        sums.hidden = call.shard.total(sums.hidden)
        sums.hidden = sums.hidden if order is None else torch.empty_like(sums.hidden).index_copy_(0, order, sums.hidden)
    return found, sums


def _joined(call: _Call, found: Found) -> tuple[Tensor | None, ...]:
    """What the ranks know together: loss, NLL, log-sum-exp, kept logits and live share, as positions came."""
    N, order, importance = found.nll.numel(), call.order, call.tokens.importance
    parts = [found.cost, found.plain_target, found.kept, found.plain_lse]
    wanted = [part for part in parts if part is not None]
    every = iter(call.shard.joined(torch.stack(wanted)).unbind(1) if wanted else ())
    cost, target, kept, lse = (None if part is None else next(every) for part in parts)

    def back(values: Tensor) -> Tensor:
        return values if order is None else torch.empty_like(values).index_copy_(0, order, values)

    # A copy, since autograd must tell the loss from what has no gradient.
    nll = found.nll.clone() if lse is None or target is None else lse.logsumexp(0) - target.sum(0)
    loss = found.nll if cost is None else found.nll + cost.sum(0)
    loss = loss if importance is None else loss * importance
    loss = back(loss) if call.request.per_token else loss.sum()
    if not call.request.detail or kept is None:
        return loss, back(nll) if call.request.nll else None
    live = call.shard.total(loss.new_tensor([found.touched], dtype=torch.float64)).to(loss.dtype)[0]
    live = live / (N * call.shard.vocabulary) if N else torch.ones_like(live)
    return loss, back(nll) if call.request.nll else None, back(found.lse), back(kept.sum(0)).long(), live


def _cast(sums: Sums, types: Any) -> tuple[Tensor | None, ...]:
    made = (sums.hidden, sums.table, sums.bias)
    return tuple(None if grad is None else grad.to(kind) for grad, kind in zip(made, types, strict=True))


def _rows(longest: int, shard: Shard, chunk_bytes: int) -> int:
    """Positions per chunk, the same on all ranks; `longest` is the largest number of earlier targets."""
    position = max(4 * max(1, shard.most), PAIR_BYTES * longest)
    if position > chunk_bytes:
        raise ValueError(f"chunk_bytes {chunk_bytes} cannot hold one position; give at least {position}")
    return chunk_bytes // position
