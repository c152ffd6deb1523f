"""The engine for any device: logits in chunks of rows, gradients made while each chunk is alive.

Memory does not grow with N x V: one chunk of logits lives at a time. Declarative rules (scale, shift, floor, gate,
charge) take the fast way, see `engines.relative`; `adjust` and `extra` are differentiated by autograd on the chunk, see
`engines.absolute`. With a floor, positions are taken in the order of their targets' logits, so that the rows of the
table that nobody keeps are the same for a whole chunk and can be left out; with a gate, class by class. Gradients are
summed in float32 whatever the precision of the model. One loss per target (`each`) keeps no gradient from the forward
pass: the backward pass sweeps again with the gradient that came for each target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from decone.engines.absolute import absolute
from decone.engines.contract import LOSS, Evaluation, Request, Rule, Tokens, upcast
from decone.engines.job import Found, Job, Sums, target_logits
from decone.engines.products import settle
from decone.engines.relative import picks, relative

CHUNK_BYTES = 16 * 2**20  # larger gains nothing measurable
CHUNK_ROWS = 128  # with fewer, products of the usual widths slow down: a large vocabulary gets a larger chunk
LOGITS = 2**21  # of a chunk with a floor: the fewer positions, the more rows of the table nobody keeps
PAIR_BYTES = 32  # what one pair of a position and an earlier target takes while a chunk is alive


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
    """Evaluates a rule chunk by chunk; same arguments and values as `reference`.

    Args:
        hidden: hidden states of the counted positions, [N, H].
        weight: output table, [V, H].
        bias: output bias, [V], or None.
        tokens: targets and their places, N of them.
        rule: the objective.
        request: see `Request`.
        chunk_bytes: most bytes that one chunk of logits may take, in float32 (float64 takes twice as many); None for
            16 MiB, or 128 rows where those take more.

    Returns:
        See `Evaluation`.

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
    result = _Chunked.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        hidden,
        weight,
        bias,
        tokens,
        rule,
        request,
        chunk_bytes,
        torch.is_grad_enabled(),
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
        request: Request,
        chunk_bytes: int | None,
        learning: bool,
    ) -> tuple[Tensor | None, ...]:
        ctx.types = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        dtype = hidden.dtype if hidden.dtype == torch.float64 else dtype  # as F.linear decides
        gate, wanted = rule.gate(), [bool(w) and learning for w in ctx.needs_input_grad[:3]]

        def sweep(inputs: Sequence[Tensor | None], up: Tensor | None, learn: bool, nll: bool, detail: bool) -> _Swept:
            h, w, b = (None if t is None else t.detach().to(dtype) for t in inputs)
            assert h is not None and w is not None
            with torch.autocast(device, enabled=False):
                choosy = not rule.general and picks(w, rule)
                reference, slack = target_logits(h, w, b, tokens.target, request.readout, rule.scale(), choosy)
                job = Job(h, w, b, tokens, rule, gate, request.readout, reference, slack, detail)
                return _sweep(job, up, wanted if learn else [False] * 3, nll, chunk_bytes)

        found, sums = sweep(
            (hidden, weight, bias), None, any(wanted) and not request.per_token, request.nll, request.detail
        )
        # A second backward pass sweeps again: what the first one hands out it also gives away, to save a copy.
        ctx.sweep, ctx.sums, ctx.each = sweep, sums, request.per_token
        ctx.save_for_backward(hidden, weight, bias)
        loss = found.loss if tokens.importance is None else found.loss * tokens.importance.to(found.loss.dtype)
        live = None
        if request.detail:
            size = hidden.size(0) * weight.size(0)
            live = found.loss.new_tensor(found.touched / size if size else 1.0)
        others = found.nll, found.lse, found.kept, live
        ctx.mark_non_differentiable(*(t for t in others if t is not None))
        return (loss if request.per_token else loss.sum(), *others)

    @staticmethod
    def backward(ctx: Any, up: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # Gradients made by hand carry no graph: a penalty on them would be left out without a word.
            raise RuntimeError("the chunked engine gives no second derivative (create_graph); use engine='reference'")
        sums, ctx.sums = ctx.sums, None
        if sums is None:
            _, sums = ctx.sweep(ctx.saved_tensors, up if ctx.each else None, True, False, False)
        grads = [sums.hidden, sums.table, sums.bias]
        if not ctx.each:
            # In float16 a sum over many tokens overflows before `up` divides it: it waited in float32.
            grads = [None if g is None else g.mul_(up) for g in grads]
        return (*(None if g is None else g.to(kind) for g, kind in zip(grads, ctx.types, strict=True)), *[None] * 5)


_Swept = tuple[Found, Sums | None]


def _sweep(job: Job, up: Tensor | None, wanted: Sequence[bool], nll: bool, chunk_bytes: int | None) -> _Swept:
    """Goes over all positions once, in the order that saves most; values come back in the order of the positions."""
    target, importance = job.tokens.target, job.tokens.importance
    if importance is not None:
        importance = importance.to(job.reference.dtype)
        up = importance if up is None else up * importance
    floor = not job.rule.general and job.rule.floor(job.reference[:0], _nobody(job)) is not None
    chunk = _positions(job, chunk_bytes, floor)
    order, common = _order(job, floor, any(wanted))
    if order is None:
        return _in_order(job, up, wanted, nll, chunk, common, floor)
    sorted_job = replace(job, hidden=job.hidden[order], tokens=job.tokens.select(order), reference=job.reference[order])
    found, sums = _in_order(sorted_job, None if up is None else up[order], wanted, nll, chunk, common, floor)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(target.numel(), device=order.device))

    def put(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[back]

    found = Found(found.loss[back], put(found.nll), put(found.lse), put(found.kept), found.touched)
    if sums is not None:
        sums.hidden = put(sums.hidden)
    return found, sums


def _positions(job: Job, chunk_bytes: int | None, floor: bool) -> int:
    """How many positions make a chunk."""
    V = max(1, job.weight.size(0))
    chunk = max(CHUNK_ROWS, CHUNK_BYTES // (4 * V)) if chunk_bytes is None else chunk_bytes // (4 * V)
    if floor and picks(job.weight, job.rule) and chunk_bytes is None:
        chunk = min(chunk, max(CHUNK_ROWS, LOGITS // V))
    if job.hidden.dtype == torch.float16:
        chunk = min(chunk, 1024)  # the products sum a whole chunk in float16, which ends at 65504
    earlier = job.tokens.earlier
    if earlier is not None and earlier.length.numel():
        longest = max(1, int(earlier.length.max()))
        chunk = max(1, min(chunk, (chunk_bytes or CHUNK_BYTES) // (PAIR_BYTES * longest)))
    return chunk


def _order(job: Job, floor: bool, learning: bool) -> tuple[Tensor | None, int]:
    """The order in which to take positions, None for their own, and how many of them have a common target."""
    N, order = job.tokens.target.numel(), None
    if floor and picks(job.weight, job.rule):
        order = job.reference.argsort(stable=True)
    if job.gate is None or not learning:
        return order, N
    # Rare targets last: each chunk but one holds a single class, and nothing is copied to tell classes apart.
    rare = job.gate.rare[job.tokens.target]
    by_class = (rare if order is None else rare[order]).long().argsort(stable=True)
    return (by_class if order is None else order[by_class]), N - int(rare.sum())


def _nobody(job: Job) -> Tokens:
    empty = job.tokens.select(slice(0, 0))
    if not job.rule.vectors:
        return empty
    return replace(empty, hidden=upcast(job.hidden[:0]), target_row=upcast(job.weight[:0]))


def _in_order(
    job: Job, up: Tensor | None, wanted: Sequence[bool], nll: bool, chunk: int, common: int, floor: bool
) -> tuple[Found, Sums | None]:
    N, V = job.tokens.target.numel(), job.weight.size(0)
    empty = partial(torch.empty_like, job.reference)
    kept = torch.empty(N, dtype=torch.int64, device=job.reference.device) if job.detail else None
    found = Found(empty(), empty() if nll else None, empty() if job.detail else None, kept)
    sums = _start(job, wanted) if any(wanted) else None
    # Plain cross-entropy is its own plain NLL.
    rule = job.rule
    other = floor or rule.scale() != 1.0 or rule.shift() is not None
    memory = job.reference.new_empty(0 if rule.general else min(chunk, N) * V)
    for part in _parts(N, chunk, common):
        share = None if up is None else up[part]
        made = None if rule.general else relative(job, part, memory, nll and other)
        if made is None:
            absolute(job, part, share, found, sums)
        else:
            settle(job, part, made, share, found, sums)
    if sums is not None:
        _pull(job, sums)
    return found, sums


def _parts(N: int, chunk: int, common: int) -> Iterator[slice]:
    """Slices of at most `chunk` rows, none of which goes over the border between common and rare targets."""
    for low, high in ((0, common), (common, N)):
        for start in range(low, high, chunk):
            yield slice(start, min(high, start + chunk))


def _start(job: Job, wanted: Sequence[bool]) -> Sums:
    def zeros(tensor: Tensor | None, want: bool) -> Tensor | None:
        return torch.zeros_like(tensor, dtype=job.reference.dtype) if want and tensor is not None else None

    inputs = zip((job.hidden, job.weight, job.bias), wanted, strict=True)
    hidden, table, bias = (zeros(tensor, want) for tensor, want in inputs)
    return Sums(hidden, table, bias, own=torch.zeros_like(job.reference))


def _pull(job: Job, sums: Sums) -> None:
    """What the targets' own logits pull; formed apart from the large products and never gated."""
    target = job.tokens.target
    if sums.hidden is not None:
        sums.hidden.addcmul_(sums.own[:, None], upcast(job.weight[target]))
    if sums.table is not None:
        sums.table.index_add_(0, target, sums.own[:, None] * upcast(job.hidden))
    if sums.bias is not None:
        sums.bias.index_add_(0, target, sums.own)
