"""Earlier targets of every sequence as lists, whose memory follows the tokens, never tokens x vocabulary."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class Earlier(NamedTuple):
    """The distinct targets of every sequence in order of first use; the earlier ones are a beginning of the list.

    Attributes:
        token: ids, one list after the other, [U] with U <= N.
        begin: where the list of each position's sequence begins in `token`, [N].
        length: how many ids of that list were targets before the position, [N].
    """

    token: Int[Tensor, " U"]
    begin: Int[Tensor, " N"]
    length: Int[Tensor, " N"]


def earlier_targets(target: Int[Tensor, " N"], sequence: Int[Tensor, " N"], offset: Int[Tensor, " N"]) -> Earlier:
    """Lists the distinct targets of every sequence, and how many of them each position looks back on.

    Args:
        target: token ids, [N], 0 or more.
        sequence: index of the sequence of each position, [N], 0 or more.
        offset: position inside that sequence, [N]; none twice in one sequence.

    Returns:
        The lists. Sorting costs O(N log N); no table of sequences x vocabulary is made.

    Example:
        >>> earlier = earlier_targets(torch.tensor([2, 0, 2, 1]), torch.zeros(4, dtype=torch.long), torch.arange(4))
        >>> earlier.token.tolist(), earlier.length.tolist()
        ([2, 0, 1], [0, 1, 2, 2])
    """
    order = _lexicographic_order(offset, sequence)
    target, sequence = target[order].long(), sequence[order]
    # Sorted by sequence and id, stably in offset: the head of each run of equals is the first use.
    by_id = _lexicographic_order(target, sequence)
    runs = torch.stack((sequence[by_id], target[by_id]), 1)
    new = torch.ones_like(target, dtype=torch.bool)
    new[by_id[1:]] = (runs[1:] != runs[:-1]).any(1)
    before = new.long().cumsum(0) - new.long()
    # Sequences are sorted, so the list of one begins at the count that stands before its first position.
    begin = before[torch.searchsorted(sequence, sequence)]
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    return Earlier(target[new], begin[inverse], (before - begin)[inverse])


def _lexicographic_order(minor: Tensor, major: Tensor) -> Tensor:
    """Order by major, then minor; equals stay as they come."""
    order = minor.argsort(stable=True)
    return order[major[order].argsort(stable=True)]
