"""From the exponentials of one chunk to its losses and its share of the gradients: the two large products."""

from collections.abc import Iterator

import torch
from torch import Tensor

from decone.engines.contract import to_float64
from decone.engines.job import Found, Job, Sums, low_product
from decone.engines.looking_back import Seen, Settled
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
    seen = None if chunk.seen is None else chunk.seen.settle(chunk.rest, chunk.own, chunk.floor, sums is not None)
    rest, own = (chunk.rest, chunk.own) if seen is None else (seen.rest, to_float64(chunk.own))
    total = rest + own.exp()
    loss = (rest * (-own).exp()).log1p()
    plain = None if chunk.plain is None else chunk.plain.total.log() - chunk.plain.own
    if found.nll is not None:
        found.nll[part] = loss if plain is None else plain
    found.loss[part] = loss if seen is None or seen.charge is None else loss + seen.charge
    if found.lse is not None and found.kept is not None:
        shift = job.rule.shift()
        found.lse[part] = total.log() + chunk.reference + (0.0 if shift is None else shift.novel)
        found.kept[part] = chunk.kept if seen is None else chunk.kept + seen.kept
        found.touched += chunk.used * total.numel()
    if sums is None:
        return
    # Every logit's gradient is its exponential times `share`, which waits for the products: one number per position.
    share, own = 1 / total, -rest / total
    if seen is not None:
        assert chunk.seen is not None and seen.left is not None and seen.own is not None
        own = own - (1 + own) * (1 - seen.left) + seen.own
        share = _with_pairs(chunk.matrix, chunk.seen, seen, share)
    share, own = share.to(chunk.rest.dtype), own.to(chunk.rest.dtype)
    if job.readout.softcap is not None:
        own = own * job.readout.slope(chunk.reference / job.rule.scale())
    chain = job.rule.scale() * (job.readout.scale if job.readout.softcap is None else 1.0)
    up = torch.ones_like(share) if up is None else up.to(share.dtype)
    sums.own[part] = own * chain * up
    _multiply(job, part, chunk, share * chain * up, sums)


def _with_pairs(matrix: Tensor, seen: Seen, settled: Settled, share: Tensor) -> Tensor:
    """Puts the gradients of pairs into the matrix, whole once a column is multiplied by the share it returns."""
    assert settled.left is not None and settled.entry is not None
    # What a charge leaves of 1 is rounded: it may be as small as the rounding, but not zero.
    least = torch.finfo(matrix.dtype).eps / 2
    share = share * torch.where(settled.left.abs() < least, least, settled.left)
    entry = settled.entry / share[seen.pairs.position]
    matrix.view(-1)[seen.entry] = (entry if seen.slope is None else entry * seen.slope).to(matrix.dtype)
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
