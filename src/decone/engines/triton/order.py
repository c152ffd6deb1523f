"""The order in which positions are swept: class by class, by threshold inside a class, in whole tiles."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Order(NamedTuple):
    """An order with room for whole tiles.

    Attributes:
        position: position of each place in the order, N where it is only filled up, [M].
        filled: whether a place holds a position, [M].
        common: how many of the first tiles hold common targets; None where classes do not matter.
    """

    position: Int[Tensor, " M"]
    filled: Bool[Tensor, " M"]
    common: Int[Tensor, ""] | None


def arrange(
    N: int,
    rows: int,
    key: Float[Tensor, " N"] | None,
    rare: Bool[Tensor, " N"] | None,
    device: torch.device | None = None,
) -> Order:
    """Positions that need the same columns become neighbours; no tile holds both classes.

    The host does not learn how many targets are rare: there is one tile more than needed at most.

    Args:
        N: number of positions.
        rows: positions per tile.
        key: sorted by, ascending; None leaves the order as it is.
        rare: whether the target is rare; None where classes do not matter.
        device: where the order is wanted.

    Example:
        >>> arrange(3, 2, torch.tensor([0.3, 0.1, 0.2]), None).position.tolist()
        [1, 2, 0, 3]
        >>> arrange(3, 2, None, torch.tensor([True, False, True])).position.tolist()
        [1, 3, 0, 2, 3, 3]
    """
    order = torch.arange(N, device=device) if key is None else key.argsort(stable=True)
    M = -(-N // rows) * rows
    if rare is None:
        index = torch.cat((order, order.new_full((M - N,), N)))
        return Order(index, index < N, None)
    order = order[rare[order].to(torch.uint8).argsort(stable=True)]
    here = torch.arange(N, device=device)
    plain = N - rare.sum()
    border = (plain + rows - 1) // rows
    index = here.new_full((M + rows,), N)
    index[here + torch.where(here < plain, 0, border * rows - plain)] = order
    return Order(index, index < N, border)
