"""The engine for any device: logits in chunks of rows, gradients made while each chunk is alive.

Memory does not grow with N x V: one chunk of logits lives at a time. Declarative rules (scale, shift, floor, gate)
have the closed gradient softmax - onehot; `adjust` and `extra` are differentiated by autograd on the chunk alone.
Gradients are summed in float32 whatever the precision of the model. One loss per target (`each`) keeps no gradient
from the forward pass: the backward pass sweeps again with the gradient that came for each target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from decone.engines.contract import Evaluation, Gate, Rule, Tokens, ruled, wide

CHUNK_BYTES = 32 * 2**20  # one chunk of float32 logits; larger gains nothing measurable, smaller slows the products


@dataclass
class _Sums:
    """Gradients under construction; the gated parts of table and bias are kept apart by class of target."""

    hidden: Tensor
    table: Tensor
    bias: Tensor | None
    gated: dict[bool, tuple[Tensor, Tensor | None]]  # target is rare -> sums of table and bias


@dataclass
class _Job:
    """One call's inputs, in the precision of the large products."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    tokens: Tokens
    rule: Rule
    chunk: int
    gate: Gate | None


def chunked(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Tokens,
    rule: Rule,
    *,
    each: bool = False,
    nll: bool = True,
    chunk_bytes: int = CHUNK_BYTES,
) -> Evaluation:
    """Evaluates a rule chunk by chunk; same arguments and values as `reference`.

    Args:
        hidden: hidden states of the counted positions, [N, H].
        weight: output table, [V, H].
        bias: output bias, [V], or None.
        tokens: targets and their places, N of them.
        rule: the objective.
        each: one loss per target instead of their sum.
        nll: also return the plain negative log-likelihood, detached.
        chunk_bytes: size of one chunk of float32 logits in bytes; at least one row is taken.

    Returns:
        Loss (scalar, or [N] with `each`) and the plain NLL of each target, [N], or None.

    Example:
        >>> from decone.objectives import MLE
        >>> tokens = Tokens(torch.tensor([1]), torch.tensor([0]), torch.tensor([0]))
        >>> chunked(torch.zeros(1, 2), torch.zeros(4, 2), None, tokens, MLE()).loss
        tensor(1.3863)
    """
    chunk = max(1, chunk_bytes // (4 * max(1, weight.size(0))))
    result: tuple[Tensor, Tensor | None] = _Chunked.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        hidden, weight, bias, tokens, rule, chunk, each, nll, torch.is_grad_enabled()
    )
    return Evaluation(*result)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tokens,
        rule: Rule,
        chunk: int,
        each: bool,
        nll: bool,
        learning: bool,
    ) -> tuple[Tensor, Tensor | None]:
        types = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:  # as F.linear decides
            dtype = torch.get_autocast_dtype(hidden.device.type)
            hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        if hidden.dtype == torch.float16:
            chunk = min(chunk, 1024)  # the products sum a whole chunk in float16, which ends at 65504
        prepare = partial(_Job, tokens=tokens, rule=rule, chunk=chunk, gate=rule.gate())
        job = prepare(hidden, weight, bias)
        learning = learning and any(ctx.needs_input_grad[:3])
        loss, plain, sums = _sweep(job, None, learning and not each, nll)
        ctx.prepare, ctx.types = prepare if each else None, types
        if sums is not None:
            # In float16 a sum over many tokens overflows before `up` divides it: it waits in float32.
            waiting = [torch.float32 if kind == torch.float16 else kind for kind in types]
            ctx.save_for_backward(*_cast(_finish(job, sums), waiting))
        elif each and learning:
            ctx.save_for_backward(hidden, weight, bias)
        if plain is not None:
            ctx.mark_non_differentiable(plain)
        return (loss if each else loss.sum()), plain

    @staticmethod
    def backward(ctx: Any, up: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # Gradients made by hand carry no graph: a penalty on them would be left out without a word.
            raise RuntimeError("the chunked engine gives no second derivative (create_graph); use engine='reference'")
        if ctx.prepare is None:
            grads = tuple(None if g is None else wide(g) * up for g in ctx.saved_tensors)
        else:
            job = ctx.prepare(*ctx.saved_tensors)
            _, _, sums = _sweep(job, up, True, False)
            assert sums is not None
            grads = _finish(job, sums)
        return (*_cast(grads, ctx.types), *[None] * 6)


def _sweep(job: _Job, up: Tensor | None, learning: bool, nll: bool) -> tuple[Tensor, Tensor | None, _Sums | None]:
    """Goes over all rows once: losses, plain NLL, and (if learning) the gradients weighted by `up`."""
    N, kind = job.hidden.size(0), wide(job.hidden[:0]).dtype
    loss = job.hidden.new_empty(N, dtype=kind)
    plain = job.hidden.new_empty(N, dtype=kind) if nll else None
    sums = _start(job, kind) if learning else None
    for start in range(0, N, job.chunk):
        part = slice(start, min(N, start + job.chunk))
        hidden = job.hidden[part]
        logits = wide(F.linear(hidden, job.weight, job.bias))
        target = job.tokens.target[part, None]
        if plain is not None:
            plain[part] = logits.logsumexp(1) - logits.gather(1, target).squeeze(1)
        dz = (_general if job.rule.general else _closed)(job, part, logits, loss, up, sums)
        if sums is not None and dz is not None:
            _add(job, sums, part, hidden, target, dz)
    return loss, plain, sums


def _closed(
    job: _Job, part: slice, logits: Tensor, loss: Tensor, up: Tensor | None, sums: _Sums | None
) -> Tensor | None:
    """Loss and logit gradient of declarative rules: softmax over what is kept, minus one at the target."""
    tokens = _tokens(job, part)
    target = tokens.target[:, None]
    logprob = ruled(job.rule, logits, tokens).log_softmax(1)
    loss[part] = -logprob.gather(1, target).squeeze(1)
    if sums is None:
        return None
    dz = logprob.exp_()
    dz.scatter_add_(1, target, dz.new_full((1, 1), -1.0).expand_as(target))
    if job.rule.scale() != 1.0:
        dz *= job.rule.scale()
    return dz if up is None else dz.mul_(up[part, None])


def _general(
    job: _Job, part: slice, logits: Tensor, loss: Tensor, up: Tensor | None, sums: _Sums | None
) -> Tensor | None:
    """Loss and logit gradient by autograd on the chunk; what flows past the logits goes straight to the sums."""
    learning = sums is not None
    with torch.set_grad_enabled(learning):
        tokens = _tokens(job, part, learning)
        leaves = [logits.detach().requires_grad_(learning)]
        leaves += [v for v in (tokens.hidden, tokens.target_row) if v is not None]
        logprob = ruled(job.rule, leaves[0], tokens).log_softmax(1)
        each = -logprob.gather(1, tokens.target[:, None]).squeeze(1)
        extra = job.rule.extra(logprob, tokens)
        each = each if extra is None else each + extra
    loss[part] = each.detach()
    if sums is None:
        return None
    weights = torch.ones_like(each) if up is None else up[part].to(each.dtype)
    grads = torch.autograd.grad(each, leaves, weights, allow_unused=True)
    if len(grads) == 3 and grads[1] is not None:
        sums.hidden[part] += grads[1]
    if len(grads) == 3 and grads[2] is not None:
        sums.table.index_add_(0, tokens.target, grads[2])
    return grads[0] if grads[0] is not None else torch.zeros_like(logits)


def _tokens(job: _Job, part: slice, learning: bool = False) -> Tokens:
    if not job.rule.vectors:
        return job.tokens.part(part)
    hidden, row = wide(job.hidden[part]).detach(), wide(job.weight[job.tokens.target[part]]).detach()
    return job.tokens.part(part, hidden.requires_grad_(learning), row.requires_grad_(learning))


def _start(job: _Job, kind: torch.dtype) -> _Sums:
    def zeros() -> tuple[Tensor, Tensor | None]:
        bias = None if job.bias is None else torch.zeros_like(job.bias, dtype=kind)
        return torch.zeros_like(job.weight, dtype=kind), bias

    gated = {} if job.gate is None else {False: zeros(), True: zeros()}
    return _Sums(torch.zeros_like(job.hidden, dtype=kind), *zeros(), gated)


def _add(job: _Job, sums: _Sums, part: slice, hidden: Tensor, target: Tensor, dz: Tensor) -> None:
    """The two large products of a chunk."""
    sums.hidden[part] += dz.to(hidden.dtype) @ job.weight
    if job.gate is None:
        sums.table += dz.to(hidden.dtype).T @ hidden
        if sums.bias is not None:
            sums.bias += dz.sum(0)
        return
    # A gate factor depends only on the row and on whether the target is rare: one sum per class, scaled at the end.
    # The target's own entry is never gated, so it takes the direct way.
    own, ids = dz.gather(1, target), target.squeeze(1)
    sums.table.index_add_(0, ids, own * wide(hidden))
    if sums.bias is not None:
        sums.bias.index_add_(0, ids, own.squeeze(1))
    dz = dz.scatter(1, target, 0.0)
    rare = job.gate.rare[ids]
    for is_rare, (table, bias) in sums.gated.items():
        rows = rare if is_rare else ~rare
        table += dz[rows].to(hidden.dtype).T @ hidden[rows]
        if bias is not None:
            bias += dz[rows].sum(0)


def _finish(job: _Job, sums: _Sums) -> tuple[Tensor | None, ...]:
    """Gradients of hidden, table and bias, still in the precision of the sums."""
    for is_rare, (table, bias) in sums.gated.items():
        assert job.gate is not None
        factor = (job.gate.on_rare if is_rare else job.gate.on_common).to(table.dtype)
        sums.table += factor[:, None] * table
        if sums.bias is not None and bias is not None:
            sums.bias += factor * bias
    return sums.hidden, sums.table, sums.bias


def _cast(grads: tuple[Tensor | None, ...], types: Sequence[torch.dtype | None]) -> tuple[Tensor | None, ...]:
    return tuple(None if g is None else g.to(kind) for g, kind in zip(grads, types, strict=True))
