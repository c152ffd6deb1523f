"""One chunk of positions against one rank's rows of the table: its sums, and the gradient of its logits.

Logits lie vocabulary-major, [v, n]: the rows that a threshold leaves are then gathered as whole stretches of memory.
While a chunk is alive, ranks tell each other three numbers per position (largest logit, sum of exponentials, target's
logit), one more before them where a floor stands on the target's logit, and one after them where the rule charges
earlier tokens. Where a rank keeps nothing of a position, its sum is -1 and counts for nothing.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decone.engines.contract import Gate, Pairs, Readout, Rule, Tokens, upcast
from decone.engines.shard import Shard

WORTH_GATHERING = 0.7  # live share of the rows from which on the products take all of them


@dataclass(frozen=True)
class Job:
    """What a sweep goes over; all that belongs to positions stands in the order of the sweep."""

    hidden: Float[Tensor, "N H"]
    table: Float[Tensor, "v H"]
    bias: Float[Tensor, " v"] | None
    tokens: Tokens  # with hidden states and target rows where the rule asks for vectors
    rule: Rule
    readout: Readout
    shard: Shard
    gate: Gate | None
    floored: bool
    charged: bool


@dataclass
class Found:
    """Per position; the first two are known on all ranks, of the others each rank holds its part. None: not wanted."""

    nll: Float[Tensor, " N"]  # of the target, under the rule
    lse: Float[Tensor, " N"]
    cost: Float[Tensor, " N"] | None
    plain_lse: Float[Tensor, " N"] | None
    plain_target: Float[Tensor, " N"] | None
    kept: Float[Tensor, " N"] | None
    touched: int = 0  # rows of the table times positions that the products of the gradient took


@dataclass
class Sums:
    """Gradients under construction; that of hidden states lacks the other ranks. None where nobody wants them."""

    hidden: Float[Tensor, "N H"] | None
    table: Float[Tensor, "v H"] | None
    bias: Float[Tensor, " v"] | None


@dataclass(frozen=True)
class _Targets:
    """Which targets of the chunk this rank holds, and where."""

    mine: Bool[Tensor, " n"]
    row: Int[Tensor, " n"]

    def read(self, logits: Float[Tensor, "v n"]) -> Float[Tensor, " n"]:
        """The entry of each target, 0 where another rank holds it."""
        if not logits.size(0):
            return logits.new_zeros(logits.size(1))
        return torch.where(self.mine, logits.gather(0, self.row[None])[0], 0.0)

    def write(self, values: Tensor, logits: Tensor) -> None:
        """Puts values at the targets that this rank holds."""
        if logits.size(0):
            row = self.row[None]
            logits.scatter_(0, row, torch.where(self.mine, values, logits.gather(0, row)[0])[None])

    def among(self, live: Bool[Tensor, " v"]) -> "_Targets":
        """The same after rows that are not live have been taken out; a target's row always is."""
        spot = (live.cumsum(0) - 1).clamp(min=0)  # a row that stands in for another rank's may be gone
        return _Targets(self.mine, spot[self.row]) if live.numel() else self


def evaluate(job: Job, part: slice, weights: Float[Tensor, " N"], found: Found, sums: Sums | None, rare: bool) -> None:
    """Evaluates the positions of `part` and adds their gradient, each times its weight, to the sums.

    With a gate the targets of a part are all rare or all common, which `rare` says.
    """
    hidden, shard, rule = job.hidden[part], job.shard, job.rule
    given = job.tokens.hidden, job.tokens.target_row
    tokens = job.tokens.select(part, *(None if vectors is None else vectors[part] for vectors in given))
    targets = _Targets(*shard.place(tokens.target))
    logits = job.readout(upcast(_product(job, hidden)))
    if found.plain_lse is not None and found.plain_target is not None:
        found.plain_lse[part], found.plain_target[part] = logits.logsumexp(0), targets.read(logits)
    slope = job.readout.slope(logits) if sums is not None else 1.0
    logits, pairs, entry = _ruled(job, tokens, logits)
    target, live = targets.read(logits), None
    if job.floored:
        # Read off the product that is compared: a separate inner product may differ in the last bit, and an exact
        # tie with the target has to stay.
        target = shard.total(target)
        logits, live, targets = _keep(job, part, tokens, logits, target, targets, found)
    elif found.kept is not None:
        found.kept[part] = (logits > -torch.inf).sum(0).to(found.kept.dtype)
    found.touched += logits.numel()
    pair_logit = logits.view(-1)[entry]

    # Largest logit and sum travel apart: a logarithm of both, rounded at the size of a logit, would cost digits.
    top = logits.amax(0) if logits.size(0) else torch.full_like(target, -torch.inf)
    chance = logits.sub_(torch.where(top == -torch.inf, 0.0, top)).exp_()  # this rank may keep nothing of a position
    tops, parts, owned = shard.joined(torch.stack((top, _rest(chance, job.charged), target))).unbind(1)
    highest, where = tops.max(0)
    # One 1 is left out of the sum and comes back inside the logarithm, so that 1 - p of a token that dominates keeps
    # its digits where a charge needs them.
    away = (tops - highest).exp()
    rest = (parts * away).sum(0) + away.scatter(0, where[None], 0.0).sum(0)
    total, log_total = rest + 1, rest.log1p()
    target = target if job.floored else owned.sum(0)
    found.lse[part], found.nll[part] = highest + log_total, highest - target + log_total
    factor = (top - highest).exp_() / total  # from this rank's exponentials to probabilities
    slopes = None
    if job.charged:
        logprob = pair_logit - highest[pairs.position] - log_total[pairs.position]
        slopes, sum_of_slopes = _charge(job, part, pairs, logprob, found, sums is not None)
        factor *= (1 - sum_of_slopes).to(factor.dtype)
    if sums is None:
        return
    pull = weights[part] * rule.scale() if isinstance(slope, Tensor) else weights[part] * (rule.scale() * slope)
    dz = chance.mul_(factor * pull)
    if slopes is not None:
        dz.view(-1).index_copy_(0, entry, slopes * pull[pairs.position])
    targets.write(targets.read(dz) - pull, dz)
    if isinstance(slope, Tensor):
        dz *= slope if live is None else slope[live]
    _add(job, sums, part, hidden, dz, live, targets, rare)


def _rest(chance: Float[Tensor, "v n"], exact: bool) -> Float[Tensor, " n"]:
    """The sum of a rank's exponentials, of which the largest is 1, less one 1; exact below 1 too where asked."""
    if not exact:
        return chance.sum(0) - 1
    ones = chance == 1
    rest = chance.masked_fill_(ones, 0.0).sum(0) + (ones.sum(0) - 1)
    chance.masked_fill_(ones, 1.0)
    return rest


def _product(job: Job, hidden: Float[Tensor, "n H"]) -> Float[Tensor, "v n"]:
    if job.bias is None:
        return job.table @ hidden.T
    return torch.addmm(job.bias[:, None], job.table, hidden.T)


def _ruled(job: Job, tokens: Tokens, logits: Tensor) -> tuple[Tensor, Pairs, Tensor]:
    """Scale and shift, in place; also this rank's pairs, with their entries where they are charged."""
    scale, shift, nobody = job.rule.scale(), job.rule.shift(), tokens.target.new_empty(0, dtype=torch.int64)
    logits = logits.mul_(scale) if scale != 1.0 else logits
    pairs = entry = None
    if job.rule.history:
        every = tokens.pairs()
        own = ((every.token >= job.shard.low) & (every.token < job.shard.high)).nonzero().squeeze(1)
        pairs = Pairs(*(column[own] for column in every))
        entry = (pairs.token - job.shard.low) * logits.size(1) + pairs.position
    if pairs is None or entry is None:
        return logits, Pairs(nobody, nobody, nobody), nobody
    if shift is not None:
        logits = logits.add_(shift.novel) if shift.novel != 0.0 else logits
        # No pair occurs twice, so nothing depends on the order of additions.
        step = logits.new_full((1,), shift.earlier - shift.novel).expand(entry.numel())
        logits.view(-1).index_add_(0, entry, step)
    return logits, pairs, entry if job.charged else nobody


def _keep(
    job: Job, part: slice, tokens: Tokens, logits: Tensor, target: Tensor, targets: _Targets, found: Found
) -> tuple[Tensor, Tensor | None, _Targets]:
    """Drops what lies below the floor; gathers the rows that are left where that pays, and says which they are."""
    floor = job.rule.floor(target, tokens)
    assert floor is not None
    index = None
    # Charges look their tokens up among all rows; with them the rows stay where they are.
    if not job.charged and logits.size(0):
        # Positions are sorted, so their floors are close and the lowest one finds few rows too many, in one reduction
        # without a mask. NaN stays to be seen.
        live = ~(logits.amax(1) < floor.amin())
        live |= torch.zeros_like(live, dtype=torch.int32).index_add_(0, targets.row, targets.mine.int()) > 0
        index = live.nonzero().squeeze(1)
        if index.numel() <= WORTH_GATHERING * live.numel():
            logits, targets = logits[index], targets.among(live)
        else:
            index = None
    below = logits < floor
    targets.write(torch.zeros_like(targets.mine), below)
    if index is not None:
        live = ~below.all(1)
        logits, below, index, targets = logits[live], below[live], index[live], targets.among(live)
    logits.masked_fill_(below, -torch.inf)
    if found.kept is not None:  # not what is below: a floor of -inf lies under no logit of -inf
        found.kept[part] = (logits > -torch.inf).sum(0).to(found.kept.dtype)
    return logits, index, targets


def _charge(
    job: Job, part: slice, pairs: Pairs, logprob: Tensor, found: Found, learning: bool
) -> tuple[Tensor | None, Tensor]:
    """Notes the charge f for earlier tokens.

    Returns:
        The slope of the whole loss at the logit of each pair, and the sum of all f' per position over all ranks.
    """
    with torch.set_grad_enabled(learning):
        leaf = logprob.requires_grad_(learning)
        cost = job.rule.charge(leaf, pairs)
    assert cost is not None
    assert found.cost is not None
    position, many = pairs.position, logprob.new_zeros(part.stop - part.start, dtype=torch.float64)
    found.cost[part] = torch.zeros_like(many, dtype=logprob.dtype).index_add_(0, position, cost.detach())
    if not learning:
        return None, many
    (slopes,) = torch.autograd.grad(cost, leaf, torch.ones_like(cost))
    total = job.shard.total(many.index_add_(0, position, slopes.double()))
    # d sum_c f(log p_c) / dz = f'(log p_c) at each c, minus p times the sum of all f'. Where one token has almost all
    # probability both are large and nearly equal, so what stands at a token is put together from small parts.
    logprob, others = leaf.detach(), (total[position] - slopes).to(slopes.dtype)
    chance = logprob.exp()
    slopes = chance - slopes * logprob.expm1() - chance * others
    # A dropped logit is a constant: its charge counts, and no gradient goes through it.
    return torch.where(logprob > -torch.inf, slopes, 0.0), total


def _add(
    job: Job,
    sums: Sums,
    part: slice,
    hidden: Float[Tensor, "n H"],
    dz: Float[Tensor, "l n"],
    live: Int[Tensor, " l"] | None,
    targets: _Targets,
    rare: bool,
) -> None:
    """The two large products of a chunk; changes dz."""
    if sums.hidden is not None:
        table = job.table if live is None else job.table[live]
        sums.hidden[part] = _multiplied(dz.T, table)
    if job.gate is not None:
        # A gate factor depends only on the row and on the class of the target, which is one for the whole chunk. The
        # target's own entry is never gated.
        gate = (job.gate.on_rare if rare else job.gate.on_common)[job.shard.low : job.shard.high].to(dz.dtype)
        own = targets.read(dz)
        dz *= (gate if live is None else gate[live])[:, None]
        targets.write(own, dz)
    if sums.bias is not None:
        _add_rows(sums.bias, dz.sum(1), live)
    if sums.table is not None:
        if live is None and hidden.dtype == sums.table.dtype:
            sums.table.addmm_(dz, hidden)
        else:
            _add_rows(sums.table, _multiplied(dz, hidden), live)


def _multiplied(dz: Float[Tensor, "A B"], other: Float[Tensor, "B H"]) -> Float[Tensor, "A H"]:
    """The product in the precision of the model, as at least float32."""
    if other.dtype != torch.float16:
        return upcast(dz.to(other.dtype) @ other)
    # Sums over a chunk are made in float32, as float16 ends at 65504.
    if other.device.type != "cuda":
        return dz @ other.float()
    low, back = raised(dz)
    return torch.mm(low, other, out_dtype=torch.float32) * back


def raised(dz: Float[Tensor, "A B"]) -> tuple[Float[Tensor, "A B"], Float[Tensor, ""]]:
    """Slopes in float16, times a power of two that takes the largest to 2^14, and the factor that undoes it.

    Float16 ends at 6e-8. Slopes below it matter once the loss scaling of mixed precision has multiplied their sums,
    which happens later.

    Example:
        >>> low, back = raised(torch.tensor([[1.0, 1e-8]]))
        >>> low.float() * back
        tensor([[1.0000e+00, 9.9972e-09]])
    """
    largest = dz.abs().amax() if dz.numel() else dz.new_ones(())
    exponent = 14 - largest.clamp(min=1e-30).log2().ceil()
    return (dz * exponent.exp2()).half(), (-exponent).exp2()


def _add_rows(to: Tensor, values: Tensor, live: Tensor | None) -> None:
    if live is None:
        to += values
    else:
        to.index_add_(0, live, values)  # no row is named twice: the same bits every time
