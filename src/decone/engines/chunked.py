"""The engine for any device: logits in chunks of rows, gradients made while each chunk is alive.

Memory does not grow with N x V: one chunk of logits lives at a time. Declarative rules (scale, shift, floor, gate)
have the closed gradient softmax - onehot, and so has `charge`, whose few numbers alone are differentiated by autograd;
`adjust` and `extra` are differentiated by autograd on the chunk. With a gate, positions are taken class by class.
Gradients are summed in float32 whatever the precision of the model. One loss per target (`each`) keeps no gradient
from the forward pass: the backward pass sweeps again with the gradient that came for each target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from decone.engines.chunk import Job, Sums, closed, general
from decone.engines.contract import Evaluation, Rule, Tokens, wide

CHUNK_BYTES = 32 * 2**20  # one chunk of float32 logits; larger gains nothing measurable, smaller slows the products
PAIR_BYTES = 32  # what one pair of a position and an earlier target takes while a chunk is alive


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
    if rule.history:
        tokens = tokens.remembering(weight.size(0))
        assert tokens.earlier is not None
        longest = int(tokens.earlier.length.max()) if tokens.target.numel() else 0
        chunk = max(1, min(chunk, chunk_bytes // (PAIR_BYTES * max(1, longest))))
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
        prepare = partial(Job, tokens=tokens, rule=rule, chunk=chunk, gate=rule.gate())
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


def _sweep(job: Job, up: Tensor | None, learning: bool, nll: bool) -> tuple[Tensor, Tensor | None, Sums | None]:
    """Goes over all rows once: losses, plain NLL, and (if learning) the gradients weighted by `up`."""
    N, kind = job.hidden.size(0), wide(job.hidden[:0]).dtype
    if job.gate is not None and learning:
        # Rare targets last: each chunk but one holds a single class, and nothing is copied to tell classes apart.
        order = job.gate.rare[job.tokens.target].long().argsort(stable=True)
        common = N - int(job.gate.rare[job.tokens.target].sum())
        sorted_job = replace(job, hidden=job.hidden[order], tokens=job.tokens.part(order))
        loss, plain, sums = _in_order(sorted_job, None if up is None else up[order], kind, True, nll, common)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(N, device=order.device))
        assert sums is not None
        sums.hidden = sums.hidden[back]
        return loss[back], None if plain is None else plain[back], sums
    return _in_order(job, up, kind, learning, nll, N)


def _in_order(
    job: Job, up: Tensor | None, kind: torch.dtype, learning: bool, nll: bool, common: int
) -> tuple[Tensor, Tensor | None, Sums | None]:
    N = job.hidden.size(0)
    loss = job.hidden.new_empty(N, dtype=kind)
    plain = job.hidden.new_empty(N, dtype=kind) if nll else None
    sums = _start(job, kind) if learning else None
    for part in _parts(N, job.chunk, common):
        hidden = job.hidden[part]
        target = job.tokens.target[part, None]
        dz = _slope(job, part, hidden, target, loss, plain, up, sums)
        if sums is not None and dz is not None:
            _add(job, sums, part, hidden, target, dz)
    return loss, plain, sums


def _parts(N: int, chunk: int, common: int) -> Iterator[slice]:
    """Slices of at most `chunk` rows, none of which goes over the border between common and rare targets."""
    for low, high in ((0, common), (common, N)):
        for start in range(low, high, chunk):
            yield slice(start, min(high, start + chunk))


def _slope(
    job: Job,
    part: slice,
    hidden: Tensor,
    target: Tensor,
    loss: Tensor,
    plain: Tensor | None,
    up: Tensor | None,
    sums: Sums | None,
) -> Tensor | None:
    """Gradient of the logits of one chunk; the logits themselves are gone when it returns."""
    logits = wide(F.linear(hidden, job.weight, job.bias))
    if plain is not None:
        plain[part] = logits.logsumexp(1) - logits.gather(1, target).squeeze(1)
    return (general if job.rule.general else closed)(job, part, logits, loss, up, sums)


def _start(job: Job, kind: torch.dtype) -> Sums:
    bias = None if job.bias is None else torch.zeros_like(job.bias, dtype=kind)
    return Sums(torch.zeros_like(job.hidden, dtype=kind), torch.zeros_like(job.weight, dtype=kind), bias)


def _add(job: Job, sums: Sums, part: slice, hidden: Tensor, target: Tensor, dz: Tensor) -> None:
    """The two large products of a chunk."""
    sums.hidden[part] += dz.to(hidden.dtype) @ job.weight
    if job.gate is None:
        sums.table += dz.to(hidden.dtype).T @ hidden
        if sums.bias is not None:
            sums.bias += dz.sum(0)
        return
    # A gate factor depends only on the row and on the class of the target, which is one for the whole chunk. The
    # target's own entry is never gated, so it takes the direct way.
    own, ids = dz.gather(1, target), target.squeeze(1)
    sums.table.index_add_(0, ids, own * wide(hidden))
    factor = (job.gate.on_rare if job.gate.rare[ids[0]] else job.gate.on_common).to(sums.table.dtype)
    dz.scatter_(1, target, 0.0)
    sums.table.addcmul_(wide(dz.to(hidden.dtype).T @ hidden), factor[:, None])
    if sums.bias is not None:
        sums.bias.index_add_(0, ids, own.squeeze(1))
        sums.bias.addcmul_(dz.sum(0), factor)


def _finish(job: Job, sums: Sums) -> tuple[Tensor | None, ...]:
    """Gradients of hidden, table and bias, still in the precision of the sums."""
    return sums.hidden, sums.table, sums.bias


def _cast(grads: tuple[Tensor | None, ...], types: Sequence[torch.dtype | None]) -> tuple[Tensor | None, ...]:
    return tuple(None if g is None else g.to(kind) for g, kind in zip(grads, types, strict=True))
