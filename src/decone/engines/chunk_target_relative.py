"""One chunk of logits, vocabulary-major and relative to the target's logit, without the rows that no position keeps.

The target's logit costs N products of H numbers, so it is computed before the sweep. Every logit is formed less that
number: then exp needs no maximum. With `remainder`, the sum over all tokens but the target, and `residual`, the
relative logit of the target itself (rounding, or a shift),

    loss = log(1 + remainder exp(-residual)),   d loss / d residual = -remainder / total,
    total = remainder + exp(residual).

The target never enters the sum, so that a confident prediction keeps its digits; the gradient through its logit is
formed apart from the large products, in float32.

With a floor, a row of the table that no position of the chunk keeps gets a gradient of exactly zero and is left out of
both products of the gradient. Rows are picked with a tolerance, block by block while the logits are in the cache, and
then compared exactly: with the target's logit as it came out of the same product as the others, so that ties are ties.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from decone.engines.contract import Rule, Tokens, to_float64
from decone.engines.sweep import (
    EarlierLogits,
    EarlierTerms,
    SweepGradients,
    SweepLosses,
    TableInputs,
    low_product,
    split_by_block,
)

BLOCK = 2**18  # logits between the product and exp: few enough to stay in the cache
SMALL = 1024  # a table of fewer rows has none to leave out that would pay for the search
LOG2E = math.log2(math.e)  # torch's exp2 costs a third of its exp
LARGE, FAR = 1e30, 60.0  # a sum, an exponent beyond this leaves no room for its factors
FAR_EARLIER = 27.0  # the same for an earlier target: its slope, up to 1e5 or so, is divided by its share
DENSE = 0.7  # from this share of live rows on, gathering them costs more than it saves


@dataclass
class Segment:
    """Rows of the table whose logits lie in rows `begin` to `end` of the chunk's matrix."""

    rows: slice | Tensor
    begin: int
    end: int


@dataclass
class PlainSums:
    """Of the model's own logits: the sum of all exponentials, and the target's relative logit, both [n]."""

    total: Tensor
    residual: Tensor


@dataclass
class RelativeChunk:
    """Exponentials of one chunk of n positions."""

    hidden: Tensor
    scaled: Tensor  # hidden states times the factor that the rule and the readout put on logits
    tokens: Tokens
    # exponentials of relative logits times the readout's slope, [V, n]; rows up to the last segment's end are
    # in use. Zero at targets, at earlier targets and under the floor
    matrix: Tensor
    segments: list[Segment]
    target_logit: Tensor  # number that is subtracted from every logit, [n]
    residual: Tensor  # relative logit of the target, [n]
    remainder: Tensor  # sum of the exponentials over all tokens but the target and earlier targets, [n]
    support: Tensor  # number of logits that stayed, [n]; counted if the inputs ask for details
    plain: PlainSums | None
    earlier: EarlierLogits | None
    floor: Tensor | None = None  # relative logits below it are dropped, [n]; None without a floor

    @property
    def block(self) -> int:
        """Rows of the table to take at a time."""
        return max(64, BLOCK // max(1, self.residual.numel()))

    @property
    def used(self) -> int:
        """Rows of the matrix in use."""
        return self.segments[-1].end if self.segments else 0

    def append_slice(self, rows: slice) -> None:
        """Takes rows of the table into use that already lie behind the used rows of the matrix."""
        last = self.segments[-1] if self.segments else None
        count = rows.stop - rows.start
        if last is not None and isinstance(last.rows, slice) and last.rows.stop == rows.start:
            last.rows, last.end = slice(last.rows.start, rows.stop), last.end + count
        else:
            self.segments.append(Segment(rows, self.used, self.used + count))

    def append_rows(self, rows: Tensor, logits: Tensor) -> None:
        """Copies the logits of single rows of the table behind the used rows of the matrix."""
        begin, count = self.used, rows.numel()
        self.matrix[begin : begin + count] = logits
        last = self.segments[-1] if self.segments else None
        if last is not None and isinstance(last.rows, Tensor) and last.rows.numel() + count <= self.block:
            last.rows, last.end = torch.cat((last.rows, rows)), last.end + count
        elif count:
            self.segments.append(Segment(rows, begin, begin + count))

    def blocks(self) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Rows of the table and their block of the matrix, so few at a time that they stay in the cache."""
        for segment in self.segments:
            for begin in range(segment.begin, segment.end, self.block):
                end, rows = min(segment.end, begin + self.block), segment.rows
                if isinstance(rows, slice):
                    start = rows.start + begin - segment.begin
                    yield slice(start, start + end - begin), self.matrix[begin:end]
                else:
                    yield rows[begin - segment.begin : end - segment.begin], self.matrix[begin:end]


def leaves_out_rows(weight: Tensor, rule: Rule) -> bool:
    """True if rows that no position keeps are looked for: not in small tables, nor where pairs need every row."""
    return weight.size(0) >= SMALL and not rule.history


def relative_chunk(inputs: TableInputs, positions: slice, memory: Tensor, plain: bool) -> RelativeChunk | None:
    """Forms the exponentials of one chunk of n positions, in `memory` with room for n x V numbers.

    None where a number overflowed or is none: then the chunk needs `accumulate_dense`.
    """
    chunk = _start(inputs, positions, memory, plain)
    V = chunk.matrix.size(0)
    gap = _floor_gap(inputs, chunk, chunk.target_logit)
    lowest = None
    if gap is not None and leaves_out_rows(inputs.weight, inputs.rule):
        lowest = -float(gap.max()) - inputs.slack
    block = chunk.block
    by_target = split_by_block(chunk.tokens.target, V, block)
    for index, start in enumerate(range(0, V, block)):
        rows = slice(start, min(V, start + block))
        logits = _relative_logits(inputs, chunk, rows)
        _take_targets(inputs, chunk, logits, index, start, by_target[index])
        if lowest is not None:
            live = (logits.amax(1) < lowest).logical_not().nonzero().squeeze(1)  # NaN is not below
            if live.numel() < DENSE * logits.size(0):
                chunk.append_rows(live + start, logits[live])
                continue
        chunk.append_slice(rows)
        if gap is None:
            _exponentiate(inputs, chunk, logits, None)
    if gap is not None:
        if chunk.earlier is not None:
            gap = _floor_gap(inputs, chunk, chunk.target_logit + chunk.residual)
            assert gap is not None
        chunk.floor = floor = chunk.residual - gap
        for begin in range(0, chunk.used, block):
            _exponentiate(inputs, chunk, chunk.matrix[begin : min(chunk.used, begin + block)], floor)
    return chunk if _is_finite(inputs, chunk, picked=lowest is not None) else None


def _start(inputs: TableInputs, positions: slice, memory: Tensor, plain: bool) -> RelativeChunk:
    tokens, target_logit = inputs.chunk_tokens(positions), inputs.target_logit[positions]
    n, V = target_logit.numel(), inputs.weight.size(0)
    zero, hidden = torch.zeros_like(target_logit), inputs.hidden[positions]
    factor = inputs.rule.scale() * inputs.readout.scale
    chunk = RelativeChunk(
        hidden=hidden,
        scaled=hidden if factor == 1.0 else hidden * factor,
        tokens=tokens,
        matrix=memory.view(-1)[: V * n].view(V, n),
        segments=[],
        target_logit=target_logit,
        residual=zero.clone(),
        remainder=zero,
        support=torch.ones(n, dtype=torch.int64, device=target_logit.device),
        plain=PlainSums(zero.clone(), zero.clone()) if plain else None,
        earlier=None,
    )
    if inputs.rule.history:
        chunk.earlier = EarlierLogits(inputs.rule, inputs.readout, tokens, V, chunk.block, target_logit)
    return chunk


def _floor_gap(inputs: TableInputs, chunk: RelativeChunk, target_logit: Tensor) -> Tensor | None:
    """Distance of the floor below the target's logit, [n]; None without a floor."""
    shift = inputs.rule.shift()
    target = to_float64(target_logit) + (0.0 if shift is None else shift.novel)
    # In float64, so that a floor of target - margin gives the margin back to the last digit.
    floor = inputs.rule.floor(target, chunk.tokens)
    if floor is None:
        return None
    gap = (target - floor).to(chunk.target_logit.dtype)
    return None if bool((gap == math.inf).all()) else gap


def _relative_logits(inputs: TableInputs, chunk: RelativeChunk, rows: slice) -> Tensor:
    """Relative logits of one block of the table, written behind the rows that the chunk already uses."""
    weight, bias = inputs.weight[rows], None if inputs.bias is None else inputs.bias[rows, None]
    out = chunk.matrix[chunk.used : chunk.used + weight.size(0)]
    softcap, factor = inputs.readout.softcap, inputs.rule.scale() * inputs.readout.scale
    if softcap is None and weight.dtype == out.dtype:
        torch.addmm(-chunk.target_logit, weight, chunk.scaled.T, out=out)
        return out if bias is None else out.add_(bias if factor == 1.0 else bias * factor)
    # In low precision the model's own logits are rounded, and only then looked at, as the model itself does.
    out.copy_(weight @ chunk.hidden.T if bias is None else torch.addmm(bias, weight, chunk.hidden.T))
    if softcap is None:
        out.mul_(factor)
    else:
        out.mul_(inputs.readout.scale / softcap).tanh_().mul_(softcap * inputs.rule.scale())
    return out.sub_(chunk.target_logit)


def _take_targets(
    inputs: TableInputs, chunk: RelativeChunk, logits: Tensor, index: int, start: int, column: Tensor
) -> None:
    """Takes the targets' own logits out of a block and of the sum; shifts the logits of earlier targets."""
    row = chunk.tokens.target[column] - start
    if chunk.plain is not None:
        scale = 1 / inputs.rule.scale()
        chunk.plain.total += torch.exp2(logits * (scale * LOG2E)).sum(0)
        chunk.plain.residual[column] = logits[row, column] * scale
    if chunk.earlier is not None:
        chunk.earlier.visit(index, start, logits)
    if column.numel():
        chunk.residual[column] = logits[row, column]
        logits[row, column] = -math.inf


def _exponentiate(inputs: TableInputs, chunk: RelativeChunk, logits: Tensor, floor: Tensor | None) -> None:
    """Exp in place, zero under the floor; adds to the sum, and leaves the readout's slope in the matrix."""
    # The comparison is written as numbers: multiplying by booleans is many times slower than all the rest.
    keep = None if floor is None else torch.ge(logits, floor, out=torch.empty_like(logits))
    if inputs.detail:
        counted = logits > -math.inf
        chunk.support += (counted if keep is None else counted.logical_and_(keep > 0)).sum(0)
    slope = None
    if inputs.readout.softcap is not None:
        slope = inputs.readout.slope((logits + chunk.target_logit) / inputs.rule.scale())
    logits.mul_(LOG2E).exp2_()
    if keep is not None:
        logits.mul_(keep)
    chunk.remainder += logits.sum(0)
    if slope is not None:
        logits.mul_(slope)


def _is_finite(inputs: TableInputs, chunk: RelativeChunk, picked: bool) -> bool:
    """True if every number can be multiplied and divided by the others; not with NaN."""
    if chunk.earlier is not None and not chunk.earlier.greatest() < FAR_EARLIER:
        return False
    residuals, sums = [chunk.residual], [chunk.remainder, chunk.remainder * (-chunk.residual).exp()]
    if chunk.plain is not None:
        residuals, sums = [*residuals, chunk.plain.residual], [*sums, chunk.plain.total]
    # Rows were picked before all targets' own logits were computed: the tolerance must have been enough.
    exact = not picked or float(chunk.residual.abs().max()) <= inputs.slack
    return exact and all(bool((t < LARGE).all()) for t in sums) and all(bool((t.abs() < FAR).all()) for t in residuals)


def accumulate(
    inputs: TableInputs,
    positions: slice,
    chunk: RelativeChunk,
    up: Tensor | None,
    factor: Tensor | None,
    losses: SweepLosses,
    gradients: SweepGradients | None,
) -> None:
    """Writes a chunk's losses and adds its gradients, if any are requested; the exponentials are spent afterwards.

    `up` is the gradient that came for each loss of the chunk, importance included, None for ones; `factor` the gate's
    per row of the table.
    """
    terms = None
    if chunk.earlier is not None:
        terms = chunk.earlier.terms(chunk.remainder, chunk.residual, chunk.floor, gradients is not None)
    remainder, residual = chunk.remainder, chunk.residual
    if terms is not None:
        remainder, residual = terms.remainder, to_float64(chunk.residual)
    total = remainder + residual.exp()
    loss = (remainder * (-residual).exp()).log1p()
    plain = None if chunk.plain is None else chunk.plain.total.log() - chunk.plain.residual
    if losses.nll is not None:
        losses.nll[positions] = loss if plain is None else plain
    losses.loss[positions] = loss if terms is None or terms.charge is None else loss + terms.charge
    if losses.lse is not None and losses.support is not None:
        shift = inputs.rule.shift()
        losses.lse[positions] = total.log() + chunk.target_logit + (0.0 if shift is None else shift.novel)
        losses.support[positions] = chunk.support if terms is None else chunk.support + terms.support
        losses.touched += chunk.used * total.numel()
    if gradients is None:
        return
    # Every logit's gradient is its exponential times `share`, which waits for the products: one number per position.
    share, target_slope = 1 / total, -remainder / total
    if terms is not None:
        assert chunk.earlier is not None and terms.factor is not None and terms.target_slope is not None
        target_slope = target_slope - (1 + target_slope) * (1 - terms.factor) + terms.target_slope
        share = _put_pairs(chunk.matrix, chunk.earlier, terms, share)
    share, target_slope = share.to(chunk.remainder.dtype), target_slope.to(chunk.remainder.dtype)
    if inputs.readout.softcap is not None:
        target_slope = target_slope * inputs.readout.slope(chunk.target_logit / inputs.rule.scale())
    chain = inputs.rule.scale() * (inputs.readout.scale if inputs.readout.softcap is None else 1.0)
    up = torch.ones_like(share) if up is None else up.to(share.dtype)
    gradients.target_logit[positions] = target_slope * chain * up
    _add_products(inputs, positions, chunk, share * chain * up, factor, gradients)


def _put_pairs(matrix: Tensor, earlier: EarlierLogits, terms: EarlierTerms, share: Tensor) -> Tensor:
    """Puts the gradients of pairs into the matrix, complete once a column is multiplied by the share it returns."""
    assert terms.factor is not None and terms.pair_slope is not None
    # The factor that a charge leaves is rounded: it may be as small as the rounding, but not zero.
    least = torch.finfo(matrix.dtype).eps / 2
    share = share * torch.where(terms.factor.abs() < least, least, terms.factor)
    slope = terms.pair_slope / share[earlier.pairs.position]
    matrix.view(-1)[earlier.entry] = (slope if earlier.slope is None else slope * earlier.slope).to(matrix.dtype)
    return share


def _add_products(
    inputs: TableInputs,
    positions: slice,
    chunk: RelativeChunk,
    share: Tensor,
    factor: Tensor | None,
    gradients: SweepGradients,
) -> None:
    """The two large products of a chunk, over the rows of the table that it holds."""
    low = inputs.weight.dtype != chunk.matrix.dtype
    to_hidden = None if gradients.hidden is None else gradients.hidden[positions]
    factor = None if factor is None else factor.to(chunk.matrix.dtype)
    scaled = chunk.hidden if low else chunk.hidden * share[:, None]
    for rows, block in chunk.blocks():
        slope = block * share if low else block
        if to_hidden is not None:
            if low:
                to_hidden += low_product(slope.T, inputs.weight[rows])
            else:
                to_hidden.addmm_(slope.T, inputs.weight[rows])
        if factor is not None:
            block = block.mul_(factor[rows, None])
        if gradients.bias is not None:
            _add_rows(gradients.bias, rows, block @ share)
        if gradients.table is None:
            continue
        if low:
            product = low_product(slope, scaled)
            _add_rows(gradients.table, rows, product if factor is None else product.mul_(factor[rows, None]))
        elif isinstance(rows, slice):
            gradients.table[rows].addmm_(block, scaled)
        else:
            _add_rows(gradients.table, rows, block @ scaled)
    if to_hidden is not None and not low:
        to_hidden.mul_(share[:, None])


def _add_rows(table: Tensor, rows: slice | Tensor, values: Tensor) -> None:
    if isinstance(rows, slice):
        table[rows] += values
    else:
        table.index_add_(0, rows, values)  # no row occurs twice
