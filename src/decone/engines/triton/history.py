"""Earlier targets as a table that a tile of logits can look into, and the charge for them.

Every sequence has a list of its distinct targets in order of first use; a position looks back on a beginning of its
list. So one number per (sequence, id), the id's index in the list, tells a tile which ids are earlier targets and where
the pair of position and id is stored. Only ids that occur as targets have a column: the table holds sequences x
distinct targets.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decone.engines.contract import Rule, Tokens
from decone.engines.sweep import PAIR_BYTES
from decone.engines.triton.tiles import LogSum

CHUNK_PAIR_BYTES = 20  # size of a pair while its chunk is alive: its logit, its slope, and their gradients
_NEVER = 2**31 - 1


class History(NamedTuple):
    """Earlier targets of every position."""

    list_of: Int[Tensor, " N"]  # index of the list (the sequence) of each position
    length: Int[Tensor, " N"]  # number of ids of its list on which each position looks back
    slot: Int[Tensor, " V"]  # column of each id in `rank`, -1 where it is no target
    rank: Int[Tensor, "R U"]  # index of an id in a list, larger than any length where it is not in it
    longest: int  # the greatest length


def build_history(tokens: Tokens, vocabulary: int) -> History:
    """Builds the table of tokens with lists of earlier targets; its sizes are data, so the host waits for them here.

    Example:
        >>> zeros = torch.zeros(3, dtype=torch.long)
        >>> tokens = Tokens(torch.tensor([4, 1, 4]), zeros, torch.arange(3)).with_earlier(6)
        >>> history = build_history(tokens, 6)
        >>> history.slot.tolist(), history.rank.tolist(), history.length.tolist()
        ([-1, 0, -1, -1, 1, -1], [[1, 0]], [0, 1, 2])
    """
    assert tokens.earlier is not None
    token, begin, length = tokens.earlier
    heads, list_of = torch.unique(begin, return_inverse=True)
    ids, column = torch.unique(token, return_inverse=True)
    entry = torch.arange(token.numel(), device=token.device)
    row = torch.searchsorted(heads, entry, right=True) - 1
    rank = torch.full((heads.numel(), ids.numel()), _NEVER, dtype=torch.int32, device=token.device)
    rank[row, column] = (entry - heads[row]).int()
    slot = torch.full((vocabulary,), -1, dtype=torch.int32, device=token.device)
    slot[ids] = torch.arange(ids.numel(), dtype=torch.int32, device=token.device)
    return History(list_of, length.int(), slot, rank, int(length.max()))


class EarlierCharge(NamedTuple):
    """The rule's charge for the earlier targets of a chunk."""

    cost: Float[Tensor, " C"]  # per position
    slope: Float[Tensor, "C L"]  # derivative of the cost by the log-probability of each pair, zero elsewhere
    total: Float[Tensor, " C"]  # sum of the slopes of a position
    target: Float[Tensor, " C"]  # slope of the pair whose id is the target itself


def charge_earlier(
    rule: Rule,
    tokens: Tokens,
    pair_logit: Float[Tensor, "C L"],
    target_logit: Float[Tensor, " C"],
    sums: LogSum,
    learning: bool,
    pair_bytes: int,
) -> EarlierCharge | None:
    """Charges all pairs of a chunk, by autograd on these numbers alone; None where the rule charges nothing.

    Logits are those after scale, shift and floor, of each position and each id of its list, and of the target for the
    pair whose id it is. The number of pairs of a block, which may take `pair_bytes`, is data, and the host waits for
    it, as for every `Tokens.pairs`.
    """
    assert tokens.earlier is not None
    C, L = pair_logit.shape
    cost, total, target = (torch.zeros(C, device=target_logit.device) for _ in range(3))
    slope = torch.zeros(C, L if learning else 0, device=target_logit.device)
    rows = max(1, pair_bytes // (PAIR_BYTES * max(1, L)))
    for start in range(0, C, rows):
        block = slice(start, min(C, start + rows))
        pairs = tokens.select(block).pairs()
        inside: Bool[Tensor, "c L"] = torch.arange(L, device=target_logit.device) < tokens.earlier.length[block, None]
        with torch.set_grad_enabled(learning):
            logit = torch.where(
                pairs.token == pairs.target, target_logit[block][pairs.position], pair_logit[block][inside]
            )
            leaf = (-sums.select(block).select(pairs.position).less(logit)).requires_grad_(learning)
            pair_cost = rule.charge(leaf, pairs)
        if pair_cost is None:
            return None
        # Sums over a padded rectangle, not by scattered additions, whose order a GPU leaves to chance.
        cost[block] = torch.zeros_like(pair_logit[block]).masked_scatter_(inside, pair_cost.detach()).sum(1)
        if learning:
            (pair_slope,) = torch.autograd.grad(pair_cost, leaf, torch.ones_like(pair_cost))
            slope[block] = torch.zeros_like(pair_logit[block]).masked_scatter_(inside, pair_slope)
            total[block] = slope[block].sum(1)
            pair_slope = torch.where(pairs.token == pairs.target, pair_slope, 0.0)
            target[block] = torch.zeros_like(pair_logit[block]).masked_scatter_(inside, pair_slope).sum(1)
    return EarlierCharge(cost, slope, total, target)


def pair_slopes(charge: EarlierCharge, pair_logit: Float[Tensor, "C L"], sums: LogSum) -> Float[Tensor, "C L"]:
    """Derivative of loss and cost by the logit of every pair, p (1 - total) + slope, without the cancellation in it.

    Where one earlier target has nearly all the probability, its slope and p times the total are large and nearly
    equal; so the pair's own term, slope (1 - p), is taken out of both. The entry of the target's pair is not used.

    Example:
        >>> one, far = torch.ones(1), torch.tensor([[-1.0]])
        >>> pair_slopes(EarlierCharge(one, one[:, None], one, 0 * one), far, LogSum(0 * one, 0 * one))
        tensor([[1.]])
    """
    slope = charge.slope
    if slope.numel() == 0:
        return slope
    logprob = -sums.less(pair_logit.T).T
    chance, largest = logprob.exp(), slope.abs().argmax(1, keepdim=True)
    # The total less a slope that is nearly all of it has no digits: there the remaining slopes are summed alone.
    remainder = (charge.total[:, None] - slope).scatter(1, largest, slope.scatter(1, largest, 0.0).sum(1, keepdim=True))
    return chance - chance * remainder - slope * torch.expm1(logprob)
