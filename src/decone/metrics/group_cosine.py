"""Mean cosine between different rows of groups of tokens, in closed form.

Within a group of n unit rows with sum s the mean over pairs of different rows is (s . s - n) / (n (n - 1)), between two
groups without common rows s . t / (n m): the cost is one reading of the table, not one of every pair.
A row of zeros has no direction and is left out.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from decone.metrics.inputs import require_table, row_blocks
from decone.metrics.norms import row_norms


def group_cosines(
    weight: Float[Tensor, "V H"], groups: Mapping[str, Int64[Tensor, " M"]]
) -> dict[str, dict[str, float | None]]:
    """Average the cosine over all pairs of different rows, one from each of two groups, for every two groups.

    Args:
        weight: One row per token.
        groups: Different ids by name; groups may overlap, and be empty.

    Returns:
        By name and name a cosine in [-1, 1]; None where there is no pair.

    Raises:
        ValueError: If `weight` is not a finite, non-empty table, or an id is outside it or twice in a group.

    Example:
        >>> table = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
        >>> group_cosines(table, {"a": torch.tensor([0, 1]), "b": torch.tensor([2, 3])})
        {'a': {'a': 1.0, 'b': 0.0}, 'b': {'a': 0.0, 'b': None}}
    """
    require_table(weight)
    member = torch.zeros(len(groups), len(weight), dtype=torch.float64, device=weight.device)
    for place, (name, ids) in enumerate(groups.items()):
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= len(weight) or len(torch.unique(ids)) < len(ids)):
            raise ValueError(f"ids of {name!r} must lie in 0 to {len(weight) - 1}, each once")
        member[place, ids] = 1.0
    sums = torch.zeros(len(groups), weight.shape[1], dtype=torch.float64, device=weight.device)
    norms = row_norms(weight)
    member *= norms > 0
    start = 0
    for block in row_blocks(weight):
        length = norms[start : start + len(block), None]
        sums += member[:, start : start + len(block)] @ (block / length.where(length > 0, 1.0))
        start += len(block)
    common = (member @ member.T).long()
    return {
        name: {
            other: cosine_of_sums(sums[i], sums[j], int(common[i, i]), int(common[j, j]), int(common[i, j]))
            for j, other in enumerate(groups)
        }
        for i, name in enumerate(groups)
    }


def cosine_of_sums(
    first: Float64[Tensor, " H"], second: Float64[Tensor, " H"], size: int, other: int, common: int
) -> float | None:
    """Average the cosine over pairs of different rows from the sums of two groups' unit rows.

    Args:
        first: Sum of the unit rows of one group.
        second: That of the other.
        size: Rows of the one that are not zero.
        other: Those of the other.
        common: How many rows are in both; all of them when a group is compared with itself.

    Returns:
        A cosine in [-1, 1]; None where there is no pair.

    Example:
        >>> cosine_of_sums(torch.tensor([1.0, 1.0]).double(), torch.tensor([1.0, 1.0]).double(), 2, 2, 2)
        0.0
    """
    pairs = size * other - common
    if pairs == 0:
        return None
    return max(-1.0, min(1.0, (float(first @ second) - common) / pairs))
