"""Which ids were targets earlier in the sequence, as lists: memory follows the tokens, never tokens x vocabulary."""

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


def earlier_targets(target: Int[Tensor, " N"], row: Int[Tensor, " N"], place: Int[Tensor, " N"]) -> Earlier:
    """Lists the distinct targets of every sequence, and how many of them each position looks back on.

    Args:
        target: token ids, [N], 0 or more.
        row: index of the sequence a position belongs to, [N], 0 or more.
        place: position inside that sequence, [N]; no place twice in one sequence.

    Returns:
        The lists. Sorting costs O(N log N); no table of sequences x vocabulary is made.

    Example:
        >>> found = earlier_targets(torch.tensor([2, 0, 2, 1]), torch.zeros(4, dtype=torch.long), torch.arange(4))
        >>> found.token.tolist(), found.length.tolist()
        ([2, 0, 1], [0, 1, 2, 2])
    """
    order = _sorted(place, row)
    target, row = target[order].long(), row[order]
    # Sorted by sequence and id, stably in place: the head of each run of equals is the first use.
    by_id = _sorted(target, row)
    runs = torch.stack((row[by_id], target[by_id]), 1)
    new = torch.ones_like(target, dtype=torch.bool)
    new[by_id[1:]] = (runs[1:] != runs[:-1]).any(1)
    before = new.long().cumsum(0) - new.long()
    # Rows are sorted, so a row's list begins at the count that stands before its first position.
    begin = before[torch.searchsorted(row, row)]
    back = torch.empty_like(order)
    back[order] = torch.arange(order.numel(), device=order.device)
    return Earlier(target[new], begin[back], (before - begin)[back])


def _sorted(minor: Tensor, major: Tensor) -> Tensor:
    """Order by major, then minor; equals stay as they come."""
    order = minor.argsort(stable=True)
    return order[major[order].argsort(stable=True)]
