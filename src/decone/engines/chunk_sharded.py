"""One chunk of positions against one rank's rows of the table: its sums, and the gradient of its logits.

Logits lie vocabulary-major, [v, n]: the rows that a threshold leaves are then gathered as whole stretches of memory.
While a chunk is alive, ranks exchange three numbers per position (largest logit, sum of exponentials, target's
logit), one more before them where a floor stands on the target's logit, and one after them where the rule charges
earlier tokens. Where a rank keeps nothing of a position, its sum is -1 and counts for nothing.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decone.engines.contract import Pairs, Tokens, upcast
from decone.engines.shard import Shard
from decone.engines.sweep import SweepGradients, SweepInputs

WORTH_GATHERING = 0.7  # live share of the rows from which on the products take all of them


@dataclass
class ShardInputs(SweepInputs):
    """Inputs of a sweep over one rank's rows of the table, with positions in the order of the sweep.

    The tokens carry hidden states and target rows where the rule asks for vectors.
    """

    shard: Shard
    has_floor: bool
    has_charge: bool

    def chunk_tokens(self, positions: slice) -> Tokens:
        """The tokens of a chunk."""
        vectors = (self.tokens.hidden, self.tokens.target_row)
        return self.tokens.select(positions, *(None if v is None else v[positions] for v in vectors))


@dataclass
class ShardLosses:
    """Results of a sweep per position; the first two are the same on all ranks. None where they are not requested."""

    nll: Float[Tensor, " N"]
    lse: Float[Tensor, " N"]
    cost: Float[Tensor, " N"] | None  # this rank's charges
    plain_lse: Float[Tensor, " N"] | None  # log-sum-exp of this rank's logits before the rule
    plain_target: Float[Tensor, " N"] | None  # logit of the target before the rule, zero where another rank holds it
    support: Float[Tensor, " N"] | None  # number of this rank's logits that were kept
    touched: int = 0  # rows of the table times positions that the products of the gradient took


@dataclass(frozen=True)
class _Targets:
    """Mask of the chunk's targets that this rank holds, and their rows; anything for the others."""

    is_local: Bool[Tensor, " n"]
    row: Int[Tensor, " n"]

    def read(self, logits: Float[Tensor, "v n"]) -> Float[Tensor, " n"]:
        """The entry of each target, 0 where another rank holds it."""
        if not logits.size(0):
            return logits.new_zeros(logits.size(1))
        return torch.where(self.is_local, logits.gather(0, self.row[None])[0], 0.0)

    def write(self, values: Tensor, logits: Tensor) -> None:
        """Puts values at the targets that this rank holds."""
        if logits.size(0):
            row = self.row[None]
            logits.scatter_(0, row, torch.where(self.is_local, values, logits.gather(0, row)[0])[None])

    def among(self, live: Bool[Tensor, " v"]) -> "_Targets":
        """The same after rows that are not live have been taken out; a target's row always is."""
        spot = (live.cumsum(0) - 1).clamp(min=0)  # a row that stands in for another rank's may be gone
        return _Targets(self.is_local, spot[self.row]) if live.numel() else self


def accumulate_shard(
    inputs: ShardInputs,
    positions: slice,
    weights: Float[Tensor, " N"],
    factor: Float[Tensor, " V"] | None,
    losses: ShardLosses,
    gradients: SweepGradients | None,
) -> None:
    """Writes a chunk's losses and adds its gradients, if any are requested; ranks call it together.

    `weights` are factors on the gradient of each loss, `factor` is the gate's per row of the complete table.
    """
    hidden, shard, rule = inputs.hidden[positions], inputs.shard, inputs.rule
    tokens = inputs.chunk_tokens(positions)
    targets = _Targets(*shard.local_rows(tokens.target))
    logits = inputs.readout(upcast(_product(inputs, hidden)))
    if losses.plain_lse is not None and losses.plain_target is not None:
        losses.plain_lse[positions], losses.plain_target[positions] = logits.logsumexp(0), targets.read(logits)
    slope = inputs.readout.slope(logits) if gradients is not None else 1.0
    logits, pairs, entry = _apply_scale_and_shift(inputs, tokens, logits)
    target, live = targets.read(logits), None
    if inputs.has_floor:
        # Read off the product that is compared: a separate inner product may differ in the last bit, and an exact
        # tie with the target has to stay.
        target = shard.total(target)
        logits, live, targets = _apply_floor(inputs, positions, tokens, logits, target, targets, losses)
    elif losses.support is not None:
        losses.support[positions] = (logits > -torch.inf).sum(0).to(losses.support.dtype)
    losses.touched += logits.numel()
    pair_logit = logits.view(-1)[entry]

    # Largest logit and sum travel apart: a logarithm of both, rounded at the size of a logit, would cost digits.
    top = logits.amax(0) if logits.size(0) else torch.full_like(target, -torch.inf)
    chance = logits.sub_(torch.where(top == -torch.inf, 0.0, top)).exp_()  # this rank may keep nothing of a position
    remainder = _remainder(chance, inputs.has_charge)
    tops, remainders, target_logits = shard.gather(torch.stack((top, remainder, target))).unbind(1)
    highest, holder = tops.max(0)
    # One 1 is left out of the sum and comes back inside the logarithm, so that 1 - p of a token that dominates keeps
    # its digits where a charge needs them.
    ratio = (tops - highest).exp()
    remainder = (remainders * ratio).sum(0) + ratio.scatter(0, holder[None], 0.0).sum(0)
    total, log_total = remainder + 1, remainder.log1p()
    target = target if inputs.has_floor else target_logits.sum(0)
    losses.lse[positions], losses.nll[positions] = highest + log_total, highest - target + log_total
    to_chance = (top - highest).exp_() / total  # from this rank's exponentials to probabilities
    slopes = None
    if inputs.has_charge:
        logprob = pair_logit - highest[pairs.position] - log_total[pairs.position]
        slopes, sum_of_slopes = _add_charge(inputs, positions, pairs, logprob, losses, gradients is not None)
        to_chance *= (1 - sum_of_slopes).to(to_chance.dtype)
    if gradients is None:
        return
    pull = weights[positions] * (rule.scale() if isinstance(slope, Tensor) else rule.scale() * slope)
    dz = chance.mul_(to_chance * pull)
    if slopes is not None:
        dz.view(-1).index_copy_(0, entry, slopes * pull[pairs.position])
    targets.write(targets.read(dz) - pull, dz)
    if isinstance(slope, Tensor):
        dz *= slope if live is None else slope[live]
    _add_products(inputs, positions, hidden, dz, live, targets, factor, gradients)


def _remainder(chance: Float[Tensor, "v n"], exact: bool) -> Float[Tensor, " n"]:
    """The sum of a rank's exponentials, of which the largest is 1, less one 1; if `exact`, exact below 1 too."""
    if not exact:
        return chance.sum(0) - 1
    peak = chance == 1
    remainder = chance.masked_fill_(peak, 0.0).sum(0) + (peak.sum(0) - 1)
    chance.masked_fill_(peak, 1.0)
    return remainder


def _product(inputs: ShardInputs, hidden: Float[Tensor, "n H"]) -> Float[Tensor, "v n"]:
    if inputs.bias is None:
        return inputs.weight @ hidden.T
    return torch.addmm(inputs.bias[:, None], inputs.weight, hidden.T)


def _apply_scale_and_shift(inputs: ShardInputs, tokens: Tokens, logits: Tensor) -> tuple[Tensor, Pairs, Tensor]:
    """Scale and shift, in place; also this rank's pairs, with their entries where they are charged."""
    scale, shift = inputs.rule.scale(), inputs.rule.shift()
    logits = logits.mul_(scale) if scale != 1.0 else logits
    pairs = Pairs.none(logits.device)
    if not inputs.rule.history:
        return logits, pairs, pairs.token
    complete = tokens.pairs()
    local = ((complete.token >= inputs.shard.low) & (complete.token < inputs.shard.high)).nonzero().squeeze(1)
    entry = (complete.token[local] - inputs.shard.low) * logits.size(1) + complete.position[local]
    if shift is not None:
        logits = logits.add_(shift.novel) if shift.novel != 0.0 else logits
        # No pair occurs twice, so nothing depends on the order of additions.
        step = logits.new_full((1,), shift.earlier - shift.novel).expand(entry.numel())
        logits.view(-1).index_add_(0, entry, step)
    return logits, Pairs(*(column[local] for column in complete)), entry if inputs.has_charge else pairs.token


def _apply_floor(
    inputs: ShardInputs,
    positions: slice,
    tokens: Tokens,
    logits: Tensor,
    target: Tensor,
    targets: _Targets,
    losses: ShardLosses,
) -> tuple[Tensor, Tensor | None, _Targets]:
    """Drops logits below the floor; gathers the remaining rows where that pays, and returns their indices."""
    floor = inputs.rule.floor(target, tokens)
    assert floor is not None
    index = None
    # Charges look their tokens up among all rows; with them the rows stay where they are.
    if not inputs.has_charge and logits.size(0):
        # Positions are sorted, so their floors are close and the lowest one finds few rows too many, in one reduction
        # without a mask. NaN stays to be seen.
        live = ~(logits.amax(1) < floor.amin())
        live |= torch.zeros_like(live, dtype=torch.int32).index_add_(0, targets.row, targets.is_local.int()) > 0
        index = live.nonzero().squeeze(1)
        if index.numel() <= WORTH_GATHERING * live.numel():
            logits, targets = logits[index], targets.among(live)
        else:
            index = None
    below = logits < floor
    targets.write(torch.zeros_like(targets.is_local), below)
    if index is not None:
        live = ~below.all(1)
        logits, below, index, targets = logits[live], below[live], index[live], targets.among(live)
    logits.masked_fill_(below, -torch.inf)
    if losses.support is not None:  # not what is below: a floor of -inf lies under no logit of -inf
        losses.support[positions] = (logits > -torch.inf).sum(0).to(losses.support.dtype)
    return logits, index, targets


def _add_charge(
    inputs: ShardInputs, positions: slice, pairs: Pairs, logprob: Tensor, losses: ShardLosses, learning: bool
) -> tuple[Tensor | None, Tensor]:
    """Writes the charge f for earlier targets.

    Returns the slope of the complete loss at the logit of each pair, and the sum of all f' per position over all
    ranks.
    """
    with torch.set_grad_enabled(learning):
        leaf = logprob.requires_grad_(learning)
        cost = inputs.rule.charge(leaf, pairs)
    assert cost is not None
    assert losses.cost is not None
    position, zeros = pairs.position, logprob.new_zeros(positions.stop - positions.start, dtype=torch.float64)
    losses.cost[positions] = torch.zeros_like(zeros, dtype=logprob.dtype).index_add_(0, position, cost.detach())
    if not learning:
        return None, zeros
    (slopes,) = torch.autograd.grad(cost, leaf, torch.ones_like(cost))
    total = inputs.shard.total(zeros.index_add_(0, position, slopes.double()))
    # d sum_c f(log p_c) / dz = f'(log p_c) at each c, minus p times the sum of all f'. Where one token has almost all
    # probability both are large and nearly equal, so the slope of a token is put together from small terms.
    logprob, other_slopes = leaf.detach(), (total[position] - slopes).to(slopes.dtype)
    chance = logprob.exp()
    slopes = chance - slopes * logprob.expm1() - chance * other_slopes
    # A dropped logit is a constant: its charge counts, and no gradient goes through it.
    return torch.where(logprob > -torch.inf, slopes, 0.0), total


def _add_products(
    inputs: ShardInputs,
    positions: slice,
    hidden: Float[Tensor, "n H"],
    dz: Float[Tensor, "l n"],
    live: Int[Tensor, " l"] | None,
    targets: _Targets,
    factor: Float[Tensor, " V"] | None,
    gradients: SweepGradients,
) -> None:
    """The two large products of a chunk; changes dz."""
    if gradients.hidden is not None:
        table = inputs.weight if live is None else inputs.weight[live]
        gradients.hidden[positions] = _multiply(dz.T, table)
    if factor is not None:
        # The target's own entry is never gated.
        factor = factor[inputs.shard.low : inputs.shard.high].to(dz.dtype)
        target_slope = targets.read(dz)
        dz *= (factor if live is None else factor[live])[:, None]
        targets.write(target_slope, dz)
    if gradients.bias is not None:
        _add_rows(gradients.bias, dz.sum(1), live)
    if gradients.table is not None:
        if live is None and hidden.dtype == gradients.table.dtype:
            gradients.table.addmm_(dz, hidden)
        else:
            _add_rows(gradients.table, _multiply(dz, hidden), live)


def _multiply(dz: Float[Tensor, "A B"], vectors: Float[Tensor, "B H"]) -> Float[Tensor, "A H"]:
    """The product in the precision of the model, as at least float32."""
    if vectors.dtype != torch.float16:
        return upcast(dz.to(vectors.dtype) @ vectors)
    # Sums over a chunk are made in float32, as float16 ends at 65504.
    if vectors.device.type != "cuda":
        return dz @ vectors.float()
    low, inverse = scale_to_float16(dz)
    return torch.mm(low, vectors, out_dtype=torch.float32) * inverse


def scale_to_float16(dz: Float[Tensor, "A B"]) -> tuple[Float[Tensor, "A B"], Float[Tensor, ""]]:
    """Slopes in float16, times a power of two that takes the largest to 2^14, and the factor that undoes it.

    Float16 ends at 6e-8; mixed precision's loss scaling multiplies slopes below it later.

    Example:
        >>> low, inverse = scale_to_float16(torch.tensor([[1.0, 1e-8]]))
        >>> low.float() * inverse
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
