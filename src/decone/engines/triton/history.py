"""Earlier targets as a table that a tile of logits can look into, and the charge for them.

Every sequence has a list of its distinct targets in order of first use; a position looks back on a beginning of its
list. So one number per (sequence, id), the id's place in the list, tells a tile who is seen and where the pair of
position and id is kept. Only ids that occur as targets have a column: the table holds sequences x distinct targets.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decone.engines.contract import Pairs, Rule, Tokens
from decone.engines.triton.log_sum import LogSum

PAIR_BYTES = 32  # what one pair of a position and an earlier target takes while its piece is alive
KEPT_BYTES = 20  # what it takes while its chunk is alive: its logit, its slope, and what the gradient makes of both
_NEVER = 2**31 - 1


class History(NamedTuple):
    """Who was a target earlier.

    Attributes:
        list_of: index of the list (the sequence) of each position, [N].
        length: on how many ids of its list each position looks back, [N].
        slot: column of each id in `rank`, -1 where it is no target, [V].
        rank: place of an id in a list, larger than any length where it is not in it, [R, U].
        longest: the greatest length.
    """

    list_of: Int[Tensor, " N"]
    length: Int[Tensor, " N"]
    slot: Int[Tensor, " V"]
    rank: Int[Tensor, "R U"]
    longest: int


def look_back(tokens: Tokens, vocabulary: int) -> History:
    """Builds the table; the sizes of it are data, so the host waits for them here.

    Args:
        tokens: at least one, which know their earlier targets (`Tokens.with_earlier`).
        vocabulary: rows of the output table.

    Example:
        >>> zeros = torch.zeros(3, dtype=torch.long)
        >>> tokens = Tokens(torch.tensor([4, 1, 4]), zeros, torch.arange(3)).with_earlier(6)
        >>> found = look_back(tokens, 6)
        >>> found.slot.tolist(), found.rank.tolist(), found.length.tolist()
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


def charges(rule: Rule, device: torch.device) -> bool:
    """Whether the rule charges anything for earlier targets, asked with no pair at all."""
    if not rule.history:
        return False
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return rule.charge(torch.zeros(0, device=device), Pairs(none, none, none)) is not None


class Charge(NamedTuple):
    """What the rule charges a chunk for earlier targets.

    Attributes:
        cost: per position, [C].
        slope: derivative of the cost by the log-probability of each pair, zero elsewhere, [C, L].
        total: sum of the slopes of a position, [C].
        own: slope of the pair whose id is the target itself, [C].
    """

    cost: Float[Tensor, " C"]
    slope: Float[Tensor, "C L"]
    total: Float[Tensor, " C"]
    own: Float[Tensor, " C"]


def charge(
    rule: Rule,
    tokens: Tokens,
    pair_logit: Float[Tensor, "C L"],
    own: Float[Tensor, " C"],
    sums: LogSum,
    learning: bool,
    pair_bytes: int,
) -> Charge | None:
    """Costs of all pairs of a chunk, by autograd on these numbers alone; None where the rule charges nothing.

    How many pairs a piece has is data, and the host waits for it, as for every `Tokens.pairs`.

    Args:
        rule: the objective.
        tokens: the chunk's, with lists of earlier targets.
        pair_logit: the logit after scale, shift and floor of each position and each id of its list.
        own: the same of the target, which its pair has instead.
        sums: log of the sum of exponentials per position.
        learning: whether slopes are wanted.
        pair_bytes: what the pairs of one piece of the chunk may take.
    """
    assert tokens.earlier is not None
    C, L = pair_logit.shape
    cost, total, mine = (torch.zeros(C, device=own.device) for _ in range(3))
    slope = torch.zeros(C, L if learning else 0, device=own.device)
    rows = max(1, pair_bytes // (PAIR_BYTES * max(1, L)))
    for start in range(0, C, rows):
        part = slice(start, min(C, start + rows))
        pairs = tokens.select(part).pairs()
        inside: Bool[Tensor, "c L"] = torch.arange(L, device=own.device) < tokens.earlier.length[part, None]
        with torch.set_grad_enabled(learning):
            logit = torch.where(pairs.token == pairs.target, own[part][pairs.position], pair_logit[part][inside])
            leaf = (-sums.part(part).part(pairs.position).less(logit)).requires_grad_(learning)
            found = rule.charge(leaf, pairs)
        if found is None:
            return None
        # Sums over a padded rectangle, not by scattered additions, whose order a GPU leaves to chance.
        cost[part] = torch.zeros_like(pair_logit[part]).masked_scatter_(inside, found.detach()).sum(1)
        if learning:
            (steep,) = torch.autograd.grad(found, leaf, torch.ones_like(found))
            slope[part] = torch.zeros_like(pair_logit[part]).masked_scatter_(inside, steep)
            total[part] = slope[part].sum(1)
            steep = torch.where(pairs.token == pairs.target, steep, 0.0)
            mine[part] = torch.zeros_like(pair_logit[part]).masked_scatter_(inside, steep).sum(1)
    return Charge(cost, slope, total, mine)


def pair_entries(charge: Charge, pair_logit: Float[Tensor, "C L"], sums: LogSum) -> Float[Tensor, "C L"]:
    """Derivative of loss and cost by the logit of every pair, p (1 - total) + slope, without the cancellation in it.

    Where one earlier target has nearly all the probability, its slope and p times the total are large and nearly
    equal; so its own part, slope (1 - p), is taken out of both. Of the target's own pair it is not asked for.

    Example:
        >>> one, far = torch.ones(1), torch.tensor([[-1.0]])
        >>> pair_entries(Charge(one, one[:, None], one, 0 * one), far, LogSum(0 * one, 0 * one))
        tensor([[1.]])
    """
    slope = charge.slope
    if slope.numel() == 0:
        return slope
    logprob = -sums.less(pair_logit.T).T
    chance, first = logprob.exp(), slope.abs().argmax(1, keepdim=True)
    # The total less a slope that is nearly all of it has no digits: there the others are summed by themselves.
    others = (charge.total[:, None] - slope).scatter(1, first, slope.scatter(1, first, 0.0).sum(1, keepdim=True))
    return chance - chance * others - slope * torch.expm1(logprob)
