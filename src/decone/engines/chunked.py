"""The engine for any device: logits in chunks of rows, gradients made while each chunk is alive.

Memory does not grow with N x V: one chunk of logits lives at a time. Declarative rules (scale, shift, floor, gate,
charge) have a closed gradient, see `engines.chunk_target_relative`; `adjust` and `extra` are differentiated by autograd
on the chunk of logits as they are. With a floor, positions are taken in the order of their targets' logits, so that
the rows of the table that no position keeps are the same for a complete chunk and can be left out; with a gate, class
by class. Gradients are summed in float32 whatever the precision of the model. One loss per target (`per_token`)
keeps no gradient from the forward pass: the backward pass sweeps again with the gradient that came for each target.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from decone.engines.chunk_target_relative import accumulate, leaves_out_rows, relative_chunk
from decone.engines.contract import LOSS, Evaluation, Readout, Request, Rule, Tokens, apply_rule, position_costs, upcast
from decone.engines.sweep import (
    PAIR_BYTES,
    SweepCall,
    SweepGradients,
    SweepLosses,
    TableInputs,
    cast_gradients,
    chunk_positions,
    input_types,
    longest_history,
    low_product,
    product_dtype,
    refuse_second_derivative,
    restore_order,
    sort_positions,
    zero_gradients,
)

CHUNK_BYTES = 16 * 2**20  # larger gains nothing measurable
CHUNK_ROWS = 128  # with fewer, products of the usual widths slow down: a large vocabulary gets a larger chunk
FLOOR_LOGITS = 2**21  # of a chunk with a floor: the fewer positions, the more rows of the table are left out
FLOAT16_ROWS = 1024  # the products sum a complete chunk in float16, which ends at 65504


def chunked(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Tokens,
    rule: Rule,
    request: Request = LOSS,
    *,
    chunk_bytes: int | None = None,
) -> Evaluation:
    """Evaluates a rule chunk by chunk; arguments as in `Engine`, values as of `reference`.

    `chunk_bytes` is the largest size of one chunk of logits, in float32 (float64 takes twice as many); None stands for
    16 MiB, or 128 rows where those take more.

    Raises:
        ValueError: `chunk_bytes` does not hold the logits of one position.

    Example:
        >>> from decone.objectives import MLE
        >>> tokens = Tokens(torch.tensor([1]), torch.tensor([0]), torch.tensor([0]))
        >>> chunked(torch.zeros(1, 2), torch.zeros(4, 2), None, tokens, MLE()).loss
        tensor(1.3863)
    """
    row = 4 * max(1, weight.size(0))
    if chunk_bytes is not None and chunk_bytes < row:
        raise ValueError(
            f"chunk_bytes={chunk_bytes} does not hold the logits of one position over a vocabulary of "
            f"{weight.size(0)}; give at least {row}"
        )
    if rule.history:
        tokens = tokens.with_earlier(weight.size(0))
    call = _ChunkedCall(tokens, rule, rule.gate(), request, chunk_bytes, product_dtype(hidden), torch.is_grad_enabled())
    return Evaluation(*_Chunked.apply(hidden, weight, bias, call))  # type: ignore[no-untyped-call]  # untyped in torch


@dataclass(frozen=True)
class _ChunkedCall(SweepCall):
    """One call beside its differentiable inputs, for the forward pass and for a sweep of the backward pass."""

    chunk_bytes: int | None
    dtype: torch.dtype
    learning: bool

    def sweep(
        self, inputs: Sequence[Tensor | None], up: Tensor | None, requires_grad: Sequence[bool], nll: bool, detail: bool
    ) -> tuple[SweepLosses, SweepGradients | None]:
        """Sweeps over all positions; `up` is the gradient that came for each loss, None for ones."""
        hidden, weight, bias = (None if t is None else t.detach().to(self.dtype) for t in inputs)
        assert hidden is not None and weight is not None
        rule, readout = self.rule, self.request.readout
        with torch.autocast(hidden.device.type, enabled=False):
            slack = not rule.general and leaves_out_rows(weight, rule)
            logit, bound = _target_logits(hidden, weight, bias, self.tokens.target, readout, rule.scale(), slack)
            table = TableInputs(hidden, weight, bias, self.tokens, rule, self.gate, readout, logit, bound, detail)
            return _sweep(table, up, requires_grad, nll, self.chunk_bytes)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, call: _ChunkedCall
    ) -> tuple[Tensor | None, ...]:
        request, importance = call.request, call.tokens.importance
        requires_grad = [bool(needed) and call.learning for needed in ctx.needs_input_grad[:3]]
        now = [needed and not request.per_token for needed in requires_grad]
        losses, gradients = call.sweep((hidden, weight, bias), None, now, request.nll, request.detail)
        # A second backward pass sweeps again: the first one gives its gradients away, to save a copy.
        ctx.call, ctx.gradients, ctx.learning = call, gradients, requires_grad
        ctx.types = input_types(hidden, weight, bias)
        ctx.save_for_backward(hidden, weight, bias)
        loss = losses.loss if importance is None else losses.loss * importance.to(losses.loss.dtype)
        live = None
        if request.detail:
            size = hidden.size(0) * weight.size(0)
            live = loss.new_tensor(losses.touched / size if size else 1.0)
        details = losses.nll, losses.lse, losses.support, live
        ctx.mark_non_differentiable(*(values for values in details if values is not None))
        return (loss if request.per_token else loss.sum(), *details)

    @staticmethod
    def backward(ctx: Any, up: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("the chunked engine")
        gradients, ctx.gradients = ctx.gradients, None
        per_token = ctx.call.request.per_token
        if gradients is None:
            _, gradients = ctx.call.sweep(ctx.saved_tensors, up if per_token else None, ctx.learning, False, False)
        tensors = [gradients.hidden, gradients.table, gradients.bias]
        if not per_token:
            # In float16 a sum over many tokens overflows before `up` divides it: it waited in float32.
            tensors = [None if g is None else g.mul_(up) for g in tensors]
        return *cast_gradients(tensors, ctx.types), None


def _sweep(
    inputs: TableInputs, up: Tensor | None, requires_grad: Sequence[bool], nll: bool, chunk_bytes: int | None
) -> tuple[SweepLosses, SweepGradients | None]:
    """Goes over all positions once, in the order that saves most; values come back in the order of the positions."""
    N, importance = inputs.tokens.target.numel(), inputs.tokens.importance
    if importance is not None:
        importance = importance.to(inputs.target_logit.dtype)
        up = importance if up is None else up * importance
    floor = _has_floor(inputs)
    rare = inputs.gate.rare[inputs.tokens.target] if inputs.gate is not None and any(requires_grad) else None
    order = sort_positions(inputs.target_logit if floor and leaves_out_rows(inputs.weight, inputs.rule) else None, rare)
    rows = _chunk_rows(inputs, chunk_bytes, floor)
    if order is not None:
        inputs, up = inputs.select(order), None if up is None else up[order]
    rule, losses = inputs.rule, SweepLosses.empty(inputs.target_logit, nll, inputs.detail)
    gradients = zero_gradients(inputs, requires_grad, losses.loss.dtype) if any(requires_grad) else None
    # Plain cross-entropy is its own plain NLL.
    plain = nll and (floor or rule.scale() != 1.0 or rule.shift() is not None)
    memory = inputs.target_logit.new_empty(0 if rule.general else min(rows, N) * inputs.weight.size(0))
    for positions, is_rare in chunk_positions(N, rows, N if rare is None else N - int(rare.sum())):
        chunk_up = None if up is None else up[positions]
        factor = None if gradients is None else inputs.gate_factor(is_rare)
        chunk = None if rule.general else relative_chunk(inputs, positions, memory, plain)
        if chunk is None:
            accumulate_dense(inputs, positions, chunk_up, factor, losses, gradients)
        else:
            accumulate(inputs, positions, chunk, chunk_up, factor, losses, gradients)
    if gradients is not None:
        gradients.add_target_logits(inputs)
    if order is None:
        return losses, gradients
    if gradients is not None and gradients.hidden is not None:
        gradients.hidden = restore_order(gradients.hidden, order)
    return losses.restore(order), gradients


def _has_floor(inputs: TableInputs) -> bool:
    """True if a declarative rule drops logits; it is asked with no position at all."""
    if inputs.rule.general:
        return False
    tokens = inputs.tokens.select(slice(0, 0))
    if inputs.rule.vectors:
        tokens = replace(tokens, hidden=upcast(inputs.hidden[:0]), target_row=upcast(inputs.weight[:0]))
    return inputs.rule.floor(inputs.target_logit[:0], tokens) is not None


def _chunk_rows(inputs: TableInputs, chunk_bytes: int | None, floor: bool) -> int:
    """The number of positions of a chunk."""
    V = max(1, inputs.weight.size(0))
    rows = max(CHUNK_ROWS, CHUNK_BYTES // (4 * V)) if chunk_bytes is None else chunk_bytes // (4 * V)
    if floor and leaves_out_rows(inputs.weight, inputs.rule) and chunk_bytes is None:
        rows = min(rows, max(CHUNK_ROWS, FLOOR_LOGITS // V))
    if inputs.hidden.dtype == torch.float16:
        rows = min(rows, FLOAT16_ROWS)
    longest = longest_history(inputs.tokens)
    return max(1, min(rows, (chunk_bytes or CHUNK_BYTES) // (PAIR_BYTES * longest))) if longest else rows


def _target_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, readout: Readout, scale: float, slack: bool
) -> tuple[Tensor, float]:
    """The targets' logits after readout and scale, [N]; with `slack`, the products' largest distance from them."""
    rows, states = upcast(weight[target]), upcast(hidden)
    raw = (states * rows).sum(1)
    if bias is not None:
        raw = raw + upcast(bias[target])
    logit = readout(raw) * scale
    if not slack or not target.numel():
        return logit, 0.0
    # A product of H numbers errs by some units of |h||w|; in low precision its result is rounded as well.
    sizes = states.norm(dim=1) * rows.norm(dim=1) * abs(readout.scale * scale)
    bound = 16 * torch.finfo(raw.dtype).eps * sizes.max() + 2 * torch.finfo(hidden.dtype).eps * logit.abs().max()
    return logit, float(bound)


def accumulate_dense(
    inputs: TableInputs,
    positions: slice,
    up: Tensor | None,
    factor: Tensor | None,
    losses: SweepLosses,
    gradients: SweepGradients | None,
) -> None:
    """Writes a chunk's losses and adds its gradients, from its logits as they are, token-major, by autograd.

    For rules with `adjust` or `extra`, and for numbers that exp cannot take: declarative rules come here with a chunk
    in which a logit lies so far above the target's that its exponential overflows, or is no number. Arguments as of
    `accumulate`.
    """
    learning, target = gradients is not None, inputs.tokens.target[positions, None]
    logits = inputs.readout(upcast(F.linear(inputs.hidden[positions], inputs.weight, inputs.bias)))
    if losses.nll is not None:
        losses.nll[positions] = logits.logsumexp(1) - logits.gather(1, target).squeeze(1)
    losses.touched += logits.numel()
    with torch.set_grad_enabled(learning):
        tokens = inputs.chunk_tokens(positions, learning)
        leaves = [logits.detach().requires_grad_(learning)]
        leaves += [vectors for vectors in (tokens.hidden, tokens.target_row) if vectors is not None]
        ruled = apply_rule(inputs.rule, leaves[0], tokens)
        logprob = ruled.log_softmax(1)
        loss = -logprob.gather(1, target).squeeze(1)
        for cost in (position_costs(inputs.rule, logprob, tokens), inputs.rule.extra(logprob, tokens)):
            loss = loss if cost is None else loss + cost
    losses.loss[positions] = loss.detach()
    if losses.lse is not None and losses.support is not None:
        losses.lse[positions] = ruled.detach().logsumexp(1)
        losses.support[positions] = (ruled > -math.inf).sum(1)
    if gradients is None:
        return
    weights = torch.ones_like(loss) if up is None else up.to(loss.dtype)
    # The gradients of vectors that the rule used beside the logits are added at once.
    slope, *past_logits = torch.autograd.grad(loss, leaves, weights, allow_unused=True)
    if past_logits:
        to_hidden, to_row = past_logits
        if to_hidden is not None and gradients.hidden is not None:
            gradients.hidden[positions] += to_hidden
        if to_row is not None and gradients.table is not None:
            gradients.table.index_add_(0, tokens.target, to_row)
    slope = torch.zeros_like(logits) if slope is None else slope
    if inputs.readout.softcap is not None or inputs.readout.scale != 1.0:
        slope = slope * inputs.readout.slope(logits)
    del logits, leaves, ruled, logprob  # room for the products
    _add_products(inputs, positions, slope, factor, gradients)


def _add_products(
    inputs: TableInputs, positions: slice, slope: Tensor, factor: Tensor | None, gradients: SweepGradients
) -> None:
    """The two large products of a chunk."""
    hidden, target = inputs.hidden[positions], inputs.tokens.target[positions]
    if gradients.hidden is not None:
        gradients.hidden[positions] += low_product(slope, inputs.weight)
    if factor is None:
        if gradients.table is not None:
            gradients.table += low_product(slope.T, hidden)
        if gradients.bias is not None:
            gradients.bias += slope.sum(0)
        return
    # The target's own entry is never gated, so it is taken out of the products.
    factor = factor.to(slope.dtype)
    target_slope = slope.gather(1, target[:, None])
    slope.scatter_(1, target[:, None], 0.0)
    if gradients.table is not None:
        gradients.table.index_add_(0, target, target_slope * upcast(hidden))
        gradients.table.addcmul_(low_product(slope.T, hidden), factor[:, None])
    if gradients.bias is not None:
        gradients.bias.index_add_(0, target, target_slope.squeeze(1))
        gradients.bias.addcmul_(slope.sum(0), factor)
