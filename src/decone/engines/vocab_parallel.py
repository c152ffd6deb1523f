"""The engine for a table cut along the vocabulary over several ranks that hold the same hidden states.

Every rank makes the logits of its own rows. The softmax needs the sums of all ranks, and the gradient of the table sums
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

from decone.engines.chunk_sharded import ShardInputs, ShardLosses, accumulate_shard
from decone.engines.contract import LOSS, Evaluation, Request, Rule, Tokens, upcast
from decone.engines.shard import Shard, describe_rule, rows_of, shard_of
from decone.engines.sweep import (
    PAIR_BYTES,
    SweepCall,
    SweepGradients,
    autocast_inputs,
    cast_gradients,
    charges_earlier,
    chunk_positions,
    input_types,
    longest_history,
    refuse_second_derivative,
    restore_order,
    sort_positions,
    storage_types,
    zero_gradients,
)

CHUNK_BYTES = 32 * 2**20  # one chunk of float32 logits of one rank
FLOOR_ROWS = 256  # positions at a time behind a threshold on a CPU: few share their live rows, 64 slow the products


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
    """Evaluates a rule on a table cut along the vocabulary; same values as `reference` on the complete table.

    The weight is a DTensor with Shard(0) over one mesh dimension and Replicate over the others, the bias is cut like
    it; see `decone.engines.shard.shard` for plain shards. All ranks of the mesh dimension call it together with the
    same plain hidden states and tokens, and all of them get the complete loss and the complete gradient of the hidden
    states. The gradient of a weight is a DTensor cut like the weight; over dimensions of the mesh where the weight is
    replicated it is this rank's own and still to be averaged. `chunk_bytes` is the size of one chunk of float32 logits
    on one rank; with `per_token` the backward pass speaks to the other ranks again. Of the results `support` counts
    over all ranks, and `live` is their mean.

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
    table, local_bias = rows_of(weight), None if bias is None else rows_of(bias)
    inputs = (hidden, table, local_bias)
    requires_grad = tuple(t is not None and t.requires_grad and torch.is_grad_enabled() for t in inputs)
    gate, longest, device = rule.gate(), longest_history(tokens), hidden.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    settings = describe_rule(rule, gate, hidden, shard.vocabulary) | {
        "histories": longest,
        "readouts": request.readout,
        "shapes": (*hidden.shape, table.size(1)),
        "types, biases or importance": (input_types(*inputs, tokens.importance), autocast),
        "settings": (chunk_bytes, request.per_token, request.nll, request.detail),
        "tensors that need gradients": requires_grad,
    }
    # Nothing about the call is refused before this: a rank that stops alone lets the others wait for ever.
    shard.agree(table.size(0), tokens.target, settings)
    if rule.general:
        raise ValueError(
            f"{type(rule).__name__} looks at whole rows of logits, of which every rank holds a part; pass "
            "weight.full_tensor() with engine='chunked'"
        )
    rows = _chunk_rows(longest, shard, chunk_bytes)
    call = _ShardCall(tokens, rule, gate, request, shard, rows, requires_grad)
    return Evaluation(*_VocabParallel.apply(*inputs, call))  # type: ignore[no-untyped-call]  # untyped in torch


@dataclass(frozen=True)
class _ShardCall(SweepCall):
    """One call on one rank, and what `_plan` decides before the sweep."""

    shard: Shard
    rows: int  # positions per chunk
    requires_grad: tuple[bool, ...]
    order: Tensor | None = None  # in which positions are taken; None as they come
    common: int = 0  # positions before this have common targets, all later ones rare targets
    has_floor: bool = False  # the rule drops logits
    has_charge: bool = False  # the rule charges earlier targets


class _VocabParallel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, bias: Tensor | None, call: _ShardCall
    ) -> tuple[Tensor | None, ...]:
        ctx.types = input_types(hidden, table, bias)
        hidden, table, bias = autocast_inputs(hidden, table, bias)
        call = _plan(call, hidden, table)
        learning = any(call.requires_grad)
        losses, gradients = _sweep(call, hidden, table, bias, None, learning and not call.request.per_token)
        result = _join(call, losses)
        ctx.call = None
        if gradients is not None:
            ctx.save_for_backward(*gradients.cast(storage_types(ctx.types)))
        elif learning:
            ctx.call = call
            ctx.save_for_backward(hidden, table, bias)
        ctx.mark_non_differentiable(*(values for values in result[1:] if values is not None))
        return result

    @staticmethod
    def backward(ctx: Any, up: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("vocab_parallel", "pass weight.full_tensor() with engine='reference'")
        if ctx.call is not None:
            hidden, table, bias = ctx.saved_tensors
            gradients = _sweep(ctx.call, hidden, table, bias, up, True)[1]
            assert gradients is not None
            return *gradients.cast(ctx.types), None
        return *cast_gradients([None if g is None else upcast(g) * up for g in ctx.saved_tensors], ctx.types), None


def _plan(call: _ShardCall, hidden: Tensor, table: Tensor) -> _ShardCall:
    """Decides what the sweep must know beforehand, and takes tokens in its order; ranks call it together."""
    tokens, shard, rule, dtype = call.tokens, call.shard, call.rule, upcast(hidden[:0]).dtype
    if tokens.importance is not None:  # of another type it would change that of the loss
        tokens = replace(tokens, importance=tokens.importance.to(dtype))
    is_local, row = shard.local_rows(tokens.target)
    logit = hidden.new_zeros(tokens.target.numel(), dtype=dtype)
    local = is_local.nonzero().squeeze(1)
    for index in torch.split(local, 1024):
        logit[index] = (hidden[index] * table[row[index]]).sum(1, dtype=dtype)
    logit, states, target_row = shard.total(logit), None, None
    if rule.vectors:
        states, target_row = upcast(hidden), logit.new_zeros(hidden.shape)
        target_row[local] = upcast(table[row[local]])
        target_row = shard.total(target_row)
    has_floor = rule.floor(logit, tokens.select(slice(None), states, target_row)) is not None
    rare = None if call.gate is None else call.gate.rare[tokens.target]
    order = sort_positions(logit if has_floor else None, rare)
    every: slice | Tensor = slice(None) if order is None else order
    tokens = tokens.select(every, *(None if vectors is None else vectors[every] for vectors in (states, target_row)))
    common = logit.numel() - (0 if rare is None else int(rare.sum()))
    rows = min(call.rows, FLOOR_ROWS) if has_floor and hidden.device.type == "cpu" else call.rows
    return replace(
        call,
        tokens=tokens,
        order=order,
        common=common,
        rows=rows,
        has_floor=has_floor,
        has_charge=charges_earlier(rule, logit),
    )


def _sweep(
    call: _ShardCall, hidden: Tensor, table: Tensor, bias: Tensor | None, up: Tensor | None, learning: bool
) -> tuple[ShardLosses, SweepGradients | None]:
    """Goes over all positions once; values in the order of the sweep, gradients in that of the hidden states."""
    order, importance, N, rule = call.order, call.tokens.importance, hidden.size(0), call.rule
    ordered, flags = hidden if order is None else hidden[order], (call.has_floor, call.has_charge)
    inputs = ShardInputs(ordered, table, bias, call.tokens, rule, call.gate, call.request.readout, call.shard, *flags)
    dtype = upcast(hidden[:0]).dtype
    weights = hidden.new_ones(N, dtype=dtype) if up is None else up.to(dtype)
    weights = weights if up is None or order is None else weights[order]
    weights = weights if importance is None else weights * importance
    # A rule that leaves logits as the readout gives them has the plain log-sum-exp.
    plain = call.request.nll and (call.has_floor or rule.shift() is not None or rule.scale() != 1.0)

    def zeros(requested: bool) -> Tensor | None:
        return hidden.new_zeros(N, dtype=dtype) if requested else None

    nll, lse = hidden.new_zeros(2, N, dtype=dtype)
    losses = ShardLosses(nll, lse, zeros(call.has_charge), zeros(plain), zeros(plain), zeros(call.request.detail))
    gradients = zero_gradients(inputs, call.requires_grad, dtype) if learning else None
    for positions, rare in chunk_positions(N, call.rows, call.common):
        accumulate_shard(inputs, positions, weights, inputs.gate_factor(rare), losses, gradients)
    if gradients is not None and gradients.hidden is not None:
        total = call.shard.total(gradients.hidden)
        gradients.hidden = total if order is None else restore_order(total, order)
    return losses, gradients


def _join(call: _ShardCall, losses: ShardLosses) -> tuple[Tensor | None, ...]:
    """Joins the results of all ranks: loss, NLL, log-sum-exp, kept logits and live share, as positions came."""
    N, order, importance, request = losses.nll.numel(), call.order, call.tokens.importance, call.request
    local = [losses.cost, losses.plain_target, losses.support, losses.plain_lse]
    requested = [values for values in local if values is not None]
    gathered = iter(call.shard.gather(torch.stack(requested)).unbind(1) if requested else ())
    cost, target, support, lse = (None if values is None else next(gathered) for values in local)

    def restore(values: Tensor) -> Tensor:
        return values if order is None else restore_order(values, order)

    # A copy, since autograd must tell the loss from values without a gradient.
    nll = losses.nll.clone() if lse is None or target is None else lse.logsumexp(0) - target.sum(0)
    loss = losses.nll if cost is None else losses.nll + cost.sum(0)
    loss = loss if importance is None else loss * importance
    loss = restore(loss) if request.per_token else loss.sum()
    if not request.detail or support is None:
        return loss, restore(nll) if request.nll else None
    live = call.shard.total(loss.new_tensor([losses.touched], dtype=torch.float64)).to(loss.dtype)[0]
    live = live / (N * call.shard.vocabulary) if N else torch.ones_like(live)
    return loss, restore(nll) if request.nll else None, restore(losses.lse), restore(support.sum(0)).long(), live


def _chunk_rows(longest: int, shard: Shard, chunk_bytes: int) -> int:
    """Positions per chunk, the same on all ranks; `longest` is the largest number of earlier targets."""
    position = max(4 * max(1, shard.most), PAIR_BYTES * longest)
    if position > chunk_bytes:
        raise ValueError(f"chunk_bytes {chunk_bytes} cannot hold one position; give at least {position}")
    return chunk_bytes // position
