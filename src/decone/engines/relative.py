"""One chunk of logits, vocabulary-major and relative to the target's logit, without the rows that nobody keeps.

The target's logit costs N products of H numbers, so it is known before the sweep. Every logit is formed less that
number: then exp needs no maximum, and with `rest` the sum over all tokens but the target, and `own` what is left of
the target's logit (rounding, or a shift),

    loss = log(1 + rest exp(-own)),   d loss / d own = -rest / total,   total = rest + exp(own).

The target never enters the sum, so that a confident prediction keeps its digits; its pull on hidden states and table
is formed apart from the large products, in float32.

With a floor, a row of the table that no position of the chunk keeps gets a gradient of exactly zero and is left out of
both products of the gradient. Rows are picked with a tolerance, block by block while the logits are in the cache, and
then compared exactly: with the target's logit as it came out of the same product as all total, so that ties are ties.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from decone.engines.contract import Rule, Tokens, to_float64
from decone.engines.job import Job, tokens_of
from decone.engines.looking_back import Seen, split

BLOCK = 2**18  # logits between the product and exp: few enough to stay in the cache
SMALL = 1024  # a table of fewer rows has none to leave out that would pay for the search
LOG2E = math.log2(math.e)  # torch's exp2 costs a third of its exp
LARGE, FAR = 1e30, 60.0  # a sum, an exponent beyond this leaves no room for what is multiplied with it
FAR_SEEN = 27.0  # the same for a token seen before: its slope, up to 1e5 or so, is divided by its share
DENSE = 0.7  # from this share of live rows on, gathering them costs more than it saves


@dataclass
class Segment:
    """Rows of the table whose logits lie in rows `begin` to `end` of the chunk's matrix."""

    rows: slice | Tensor
    begin: int
    end: int


@dataclass
class Plain:
    """Of the model's own logits: the sum of all exponentials, and what is left of the target's logit, both [n]."""

    total: Tensor
    own: Tensor


@dataclass
class Chunk:
    """What is known of one chunk of n positions.

    Attributes:
        hidden: hidden states, [n, H].
        scaled: the same times the factor that the rule and the readout put on logits.
        tokens: their targets.
        matrix: exponentials of relative logits times the readout's slope, [V, n]; rows up to the last segment's end
            are in use. Zero at targets, at tokens seen before and under the floor.
        segments: which rows of the table those are.
        reference: what was taken off every logit, [n].
        own: what is left of the target's logit, [n].
        rest: sum of the exponentials over all tokens but the target and those seen before, [n].
        kept: how many logits stayed, [n]; counted if the job asks for it.
        plain: what the plain NLL needs, if asked for.
        seen: the tokens before each position, if the rule looks back.
        floor: relative logits below it are dropped, [n]; None without a floor.
    """

    hidden: Tensor
    scaled: Tensor
    tokens: Tokens
    matrix: Tensor
    segments: list[Segment]
    reference: Tensor
    own: Tensor
    rest: Tensor
    kept: Tensor
    plain: Plain | None
    seen: Seen | None
    floor: Tensor | None = None

    @property
    def block(self) -> int:
        """Rows of the table to take at a time."""
        return max(64, BLOCK // max(1, self.own.numel()))

    @property
    def used(self) -> int:
        """Rows of the matrix in use."""
        return self.segments[-1].end if self.segments else 0


def relative(job: Job, part: slice, memory: Tensor, plain: bool) -> Chunk | None:
    """Forms the exponentials of one chunk.

    Args:
        job: the call.
        part: positions of the chunk, n of them.
        memory: room for n x V numbers, overwritten.
        plain: also find the plain NLL.

    Returns:
        The chunk, or None where a number overflowed or is none: then it must be taken another way.
    """
    chunk = _start(job, part, memory, plain)
    V = chunk.matrix.size(0)
    gap = _gap(job, chunk, chunk.reference)
    lowest = -float(gap.max()) - job.slack if gap is not None and picks(job.weight, job.rule) else None
    block = chunk.block
    by_target = split(chunk.tokens.target, V, block)
    for index, start in enumerate(range(0, V, block)):
        rows = slice(start, min(V, start + block))
        logits = _product(job, chunk, rows)
        _take_targets(job, chunk, logits, index, start, by_target[index])
        if lowest is not None:
            live = (logits.amax(1) < lowest).logical_not().nonzero().squeeze(1)  # NaN is not below
            if live.numel() < DENSE * logits.size(0):
                _append_some(chunk, live + start, logits[live])
                continue
        _append_all(chunk, rows)
        if gap is None:
            _exponentiate(job, chunk, logits, None)
    if gap is not None:
        if chunk.seen is not None:
            gap = _gap(job, chunk, chunk.reference + chunk.own)
            assert gap is not None
        chunk.floor = floor = chunk.own - gap
        for begin in range(0, chunk.used, block):
            _exponentiate(job, chunk, chunk.matrix[begin : min(chunk.used, begin + block)], floor)
    return chunk if _sound(job, chunk, picked=lowest is not None) else None


def picks(weight: Tensor, rule: Rule) -> bool:
    """Whether rows that nobody keeps are looked for: not in small tables, nor where pairs need every row."""
    return weight.size(0) >= SMALL and not rule.history


def _start(job: Job, part: slice, memory: Tensor, plain: bool) -> Chunk:
    tokens, reference = tokens_of(job, part), job.reference[part]
    n, V = reference.numel(), job.weight.size(0)
    zero, hidden = torch.zeros_like(reference), job.hidden[part]
    factor = job.rule.scale() * job.readout.scale
    chunk = Chunk(
        hidden=hidden,
        scaled=hidden if factor == 1.0 else hidden * factor,
        tokens=tokens,
        matrix=memory.view(-1)[: V * n].view(V, n),
        segments=[],
        reference=reference,
        own=zero.clone(),
        rest=zero,
        kept=torch.ones(n, dtype=torch.int64, device=reference.device),
        plain=Plain(zero.clone(), zero.clone()) if plain else None,
        seen=None,
    )
    if job.rule.history:
        chunk.seen = Seen(job.rule, job.readout, tokens, V, chunk.block, reference)
    return chunk


def _gap(job: Job, chunk: Chunk, target_logit: Tensor) -> Tensor | None:
    """How far below the target's logit the floor lies, [n]; None without a floor."""
    shift = job.rule.shift()
    target = to_float64(target_logit) + (0.0 if shift is None else shift.novel)
    # In float64, so that a floor of target - margin gives the margin back to the last digit.
    floor = job.rule.floor(target, chunk.tokens)
    if floor is None:
        return None
    gap = (target - floor).to(chunk.reference.dtype)
    return None if bool((gap == math.inf).all()) else gap


def _product(job: Job, chunk: Chunk, rows: slice) -> Tensor:
    """Relative logits of one block of the table, written behind the rows that the chunk holds already."""
    weight, bias = job.weight[rows], None if job.bias is None else job.bias[rows, None]
    out = chunk.matrix[chunk.used : chunk.used + weight.size(0)]
    softcap, factor = job.readout.softcap, job.rule.scale() * job.readout.scale
    if softcap is None and weight.dtype == out.dtype:
        torch.addmm(-chunk.reference, weight, chunk.scaled.T, out=out)
        return out if bias is None else out.add_(bias if factor == 1.0 else bias * factor)
    # In low precision the model's own logits are rounded, and only then looked at, as the model itself does.
    out.copy_(weight @ chunk.hidden.T if bias is None else torch.addmm(bias, weight, chunk.hidden.T))
    if softcap is None:
        out.mul_(factor)
    else:
        out.mul_(job.readout.scale / softcap).tanh_().mul_(softcap * job.rule.scale())
    return out.sub_(chunk.reference)


def _take_targets(job: Job, chunk: Chunk, logits: Tensor, index: int, start: int, column: Tensor) -> None:
    """Reads the targets' own logits out of a block and takes them out of the sum; shifts the logits of seen tokens."""
    row = chunk.tokens.target[column] - start
    if chunk.plain is not None:
        scale = 1 / job.rule.scale()
        chunk.plain.total += torch.exp2(logits * (scale * LOG2E)).sum(0)
        chunk.plain.own[column] = logits[row, column] * scale
    if chunk.seen is not None:
        chunk.seen.visit(index, start, logits)
    if column.numel():
        chunk.own[column] = logits[row, column]
        logits[row, column] = -math.inf


def _append_all(chunk: Chunk, rows: slice) -> None:
    last = chunk.segments[-1] if chunk.segments else None
    count = rows.stop - rows.start
    if last is not None and isinstance(last.rows, slice) and last.rows.stop == rows.start:
        last.rows, last.end = slice(last.rows.start, rows.stop), last.end + count
    else:
        chunk.segments.append(Segment(rows, chunk.used, chunk.used + count))


def _append_some(chunk: Chunk, rows: Tensor, logits: Tensor) -> None:
    begin, count = chunk.used, rows.numel()
    chunk.matrix[begin : begin + count] = logits
    last = chunk.segments[-1] if chunk.segments else None
    if last is not None and isinstance(last.rows, Tensor) and last.rows.numel() + count <= chunk.block:
        last.rows, last.end = torch.cat((last.rows, rows)), last.end + count
    elif count:
        chunk.segments.append(Segment(rows, begin, begin + count))


def _exponentiate(job: Job, chunk: Chunk, logits: Tensor, floor: Tensor | None) -> None:
    """Exp in place, zero under the floor; adds to the sum, and leaves the readout's slope in the matrix."""
    # The comparison is written as numbers: multiplying by booleans is many times slower than all the rest.
    keep = None if floor is None else torch.ge(logits, floor, out=torch.empty_like(logits))
    if job.detail:
        there = logits > -math.inf
        chunk.kept += (there if keep is None else there.logical_and_(keep > 0)).sum(0)
    slope = None
    if job.readout.softcap is not None:
        slope = job.readout.slope((logits + chunk.reference) / job.rule.scale())
    logits.mul_(LOG2E).exp2_()
    if keep is not None:
        logits.mul_(keep)
    chunk.rest += logits.sum(0)
    if slope is not None:
        logits.mul_(slope)


def _sound(job: Job, chunk: Chunk, picked: bool) -> bool:
    """Whether every number can be multiplied and divided by the others; NaN is not sound."""
    if chunk.seen is not None and not chunk.seen.greatest() < FAR_SEEN:
        return False
    own, sums = [chunk.own], [chunk.rest, chunk.rest * (-chunk.own).exp()]
    if chunk.plain is not None:
        own, sums = [*own, chunk.plain.own], [*sums, chunk.plain.total]
    # Rows were picked before all targets' own logits were known: the tolerance must have been enough.
    to_float64 = not picked or float(chunk.own.abs().max()) <= job.slack
    return to_float64 and all(bool((t < LARGE).all()) for t in sums) and all(bool((t.abs() < FAR).all()) for t in own)
