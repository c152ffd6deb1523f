"""From the exponentials of one chunk to its losses and its share of the gradients: the two large products."""

from collections.abc import Iterator

import torch
from torch import Tensor

from decone.engines.job import Found, Job, Sums, low_product
from decone.engines.looking_back import Seen
from decone.engines.relative import Chunk


def settle(job: Job, part: slice, chunk: Chunk, up: Tensor | None, found: Found, sums: Sums | None) -> None:
    """Writes a chunk's losses and adds its gradients.

    Args:
        job: the call.
        part: positions of the chunk, n of them.
        chunk: their exponentials; spent afterwards.
        up: gradient that came for each loss of the chunk, importance included, [n]; None for ones.
        found: where losses go.
        sums: where gradients go, None if there are none to make.
    """
    total = chunk.total
    loss = (chunk.rest * (-chunk.own).exp()).log1p()
    charge = None if chunk.seen is None else chunk.seen.charge(total, chunk.floor, sums is not None)
    plain = None if chunk.plain is None else chunk.plain.total.log() - chunk.plain.own
    if found.nll is not None:
        found.nll[part] = loss if plain is None else plain
    found.loss[part] = loss if charge is None else loss + charge[0]
    if found.lse is not None and found.kept is not None:
        shift = job.rule.shift()
        found.lse[part] = total.log() + chunk.reference + (0.0 if shift is None else shift.novel)
        found.kept[part] = chunk.kept
        found.touched += chunk.used * total.numel()
    if sums is None:
        return
    # Every logit's gradient is its exponential times `share`, which waits for the products: one number per position.
    share, own = 1 / total, -chunk.rest / total
    if charge is not None:
        _, slope, slopes = charge
        assert chunk.seen is not None and slope is not None and slopes is not None
        mine = chunk.seen.of_target(slope)
        own = own - chunk.own.exp() / total * slopes + mine
        share = _charged(chunk, chunk.seen, share, slope, slopes)
    if job.readout.softcap is not None:
        own = own * job.readout.slope(chunk.reference / job.rule.scale())
    chain = job.rule.scale() * (job.readout.scale if job.readout.softcap is None else 1.0)
    up = torch.ones_like(share) if up is None else up.to(share.dtype)
    sums.own[part] = own * chain * up
    _multiply(job, part, chunk, share * chain * up, sums)


def _charged(chunk: Chunk, seen: Seen, share: Tensor, slope: Tensor, slopes: Tensor) -> Tensor:
    """Puts the slope of a charge at its token, so that it comes out whole when the column is multiplied by `share`."""
    # d sum_c f(log p_c) / dz = f'(log p_c) at each c, minus p times the sum of all f'. What is left of 1 after that sum
    # is rounded already: it may be as small as the rounding, but not zero.
    least = torch.finfo(share.dtype).eps / 2
    left = 1 - slopes
    share = share * torch.where(left.abs() < least, least, left)
    slope = slope if (readout := seen.slope) is None else slope * readout
    # The target's own entry has been taken out of the matrix: it is never gated.
    slope = slope.masked_fill(seen.is_target, 0.0)
    chunk.matrix.view(-1).index_add_(0, seen.entry, slope / share[seen.pairs.position])
    return share


def _multiply(job: Job, part: slice, chunk: Chunk, share: Tensor, sums: Sums) -> None:
    """The two large products of a chunk, over the rows of the table that it holds."""
    low = job.weight.dtype != chunk.matrix.dtype
    to_hidden = None if sums.hidden is None else sums.hidden[part]
    factor = None
    if job.gate is not None:
        # The factor depends on the row and on the class of the target, which is one for the whole chunk.
        rare = job.gate.rare[chunk.tokens.target[0]]
        factor = torch.where(rare, job.gate.on_rare, job.gate.on_common).to(chunk.matrix.dtype)
    scaled = chunk.hidden if low else chunk.hidden * share[:, None]
    for rows, block in _blocks(chunk):
        slope = block * share if low else block
        if to_hidden is not None:
            if low:
                to_hidden += low_product(slope.T, job.weight[rows])
            else:
                to_hidden.addmm_(slope.T, job.weight[rows])
        if factor is not None:
            block = block.mul_(factor[rows, None])
        if sums.bias is not None:
            _add(sums.bias, rows, block @ share)
        if sums.table is None:
            continue
        if low:
            product = low_product(slope, scaled)
            _add(sums.table, rows, product if factor is None else product.mul_(factor[rows, None]))
        elif isinstance(rows, slice):
            sums.table[rows].addmm_(block, scaled)
        else:
            _add(sums.table, rows, block @ scaled)
    if to_hidden is not None and not low:
        to_hidden.mul_(share[:, None])


def _blocks(chunk: Chunk) -> Iterator[tuple[slice | Tensor, Tensor]]:
    """Rows of the table and their part of the matrix, so few at a time that they stay in the cache."""
    for segment in chunk.segments:
        for begin in range(segment.begin, segment.end, chunk.block):
            end, rows = min(segment.end, begin + chunk.block), segment.rows
            if isinstance(rows, slice):
                first = rows.start + begin - segment.begin
                yield slice(first, first + end - begin), chunk.matrix[begin:end]
            else:
                yield rows[begin - segment.begin : end - segment.begin], chunk.matrix[begin:end]


def _add(whole: Tensor, rows: slice | Tensor, part: Tensor) -> None:
    if isinstance(rows, slice):
        whole[rows] += part
    else:
        whole.index_add_(0, rows, part)  # no row occurs twice
