"""The engine for any device: logits in chunks of rows, gradients made while each chunk is alive.

Memory does not grow with N x V: one chunk of logits lives at a time. Declarative rules (scale, shift, floor, gate,
charge) have a closed gradient, see `engines.chunk_target_relative`; `adjust` and `extra` are differentiated by autograd
on the chunk, see `engines.chunk_dense`. With a floor, positions are taken in the order of their targets' logits, so
that the rows of the table that no position keeps are the same for a complete chunk and can be left out; with a gate,
class by class. Gradients are summed in float32 whatever the precision of the model. One loss per target (`per_token`)
keeps no gradient from the forward pass: the backward pass sweeps again with the gradient that came for each target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from decone.engines.chunk_dense import accumulate_dense
from decone.engines.chunk_target_relative import accumulate, leaves_out_rows, relative_chunk
from decone.engines.contract import LOSS, Evaluation, Readout, Request, Rule, Tokens, upcast
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
    common = N if rare is None else N - int(rare.sum())
    rows = _chunk_rows(inputs, chunk_bytes, floor)
    if order is None:
        return _sweep_in_order(inputs, up, requires_grad, nll, rows, common, floor)
    up = None if up is None else up[order]
    losses, gradients = _sweep_in_order(inputs.select(order), up, requires_grad, nll, rows, common, floor)
    if gradients is not None and gradients.hidden is not None:
        gradients.hidden = restore_order(gradients.hidden, order)
    return losses.restore(order), gradients


def _sweep_in_order(
    inputs: TableInputs,
    up: Tensor | None,
    requires_grad: Sequence[bool],
    nll: bool,
    rows: int,
    common: int,
    floor: bool,
) -> tuple[SweepLosses, SweepGradients | None]:
    N, V, rule = inputs.tokens.target.numel(), inputs.weight.size(0), inputs.rule
    losses = SweepLosses.empty(inputs.target_logit, nll, inputs.detail)
    gradients = None
    if any(requires_grad):
        gradients = zero_gradients(inputs, requires_grad, inputs.target_logit.dtype)
    # Plain cross-entropy is its own plain NLL.
    plain = nll and (floor or rule.scale() != 1.0 or rule.shift() is not None)
    memory = inputs.target_logit.new_empty(0 if rule.general else min(rows, N) * V)
    for positions, rare in chunk_positions(N, rows, common):
        chunk_up = None if up is None else up[positions]
        factor = None if gradients is None else inputs.gate_factor(rare)
        chunk = None if rule.general else relative_chunk(inputs, positions, memory, plain)
        if chunk is None:
            accumulate_dense(inputs, positions, chunk_up, factor, losses, gradients)
        else:
            accumulate(inputs, positions, chunk, chunk_up, factor, losses, gradients)
    if gradients is not None:
        gradients.add_target_logits(inputs)
    return losses, gradients


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
