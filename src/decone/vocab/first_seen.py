"""Where every token id first occurs as a target of its sequence."""

import torch
from jaxtyping import Int
from torch import Tensor


def first_seen(
    target: Int[Tensor, " N"], row: Int[Tensor, " N"], place: Int[Tensor, " N"], rows: int, vocabulary: int
) -> Int[Tensor, "R V"]:
    """Gives, for each sequence and each token id, the first place at which the id is a target.

    Args:
        target: token ids, [N], each in [0, vocabulary).
        row: index of the sequence a position belongs to, [N], each in [0, rows).
        place: position inside that sequence, [N].
        rows: number of sequences R.
        vocabulary: number of token ids V.

    Returns:
        Places, [R, V]; ids that never occur get one more than the largest place, so `first < place` is never true.

    Example:
        >>> ids, row, place = torch.tensor([2, 0, 2]), torch.zeros(3, dtype=torch.long), torch.arange(3)
        >>> first_seen(ids, row, place, rows=1, vocabulary=3).tolist()
        [[1, 3, 0]]
    """
    never = int(place.max()) + 1 if place.numel() else 0
    first = torch.full((rows * vocabulary,), never, dtype=torch.long, device=target.device)
    return first.scatter_reduce_(0, row * vocabulary + target, place, "amin").view(rows, vocabulary)
