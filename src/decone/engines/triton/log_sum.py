"""The log of a sum of exponentials in two parts, so that no digit is lost to an offset that all logits share."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class LogSum(NamedTuple):
    """A log-sum-exp that is never rounded at the size of the logits unless asked for.

    Attributes:
        highest: greatest logit of each position, [C].
        rest: log of the sum of exponentials over it, with all digits where the greatest outweighs the others, [C].
    """

    highest: Float[Tensor, " C"]
    rest: Float[Tensor, " C"]

    def value(self) -> Float[Tensor, " C"]:
        """The log-sum-exp itself."""
        return self.highest + self.rest

    def less(self, logit: Float[Tensor, "*D C"]) -> Float[Tensor, "*D C"]:
        """The log-sum-exp less logits: their negative log-likelihood."""
        return (self.highest - logit) + self.rest

    def part(self, index: slice | Tensor) -> "LogSum":
        """The same of some positions, or of each as often as it is named."""
        return LogSum(self.highest[index], self.rest[index])


def log_sum(
    top: Float[Tensor, "T C"],
    beyond: Float[Tensor, "T C"],
    filled: Bool[Tensor, " C"],
    own: Float[Tensor, " C"] | None = None,
) -> LogSum:
    """Joins what the column tiles found.

    Args:
        top: greatest logit per column tile.
        beyond: sum of exponentials over it, less the 1 that is the greatest's; anything where the greatest is -inf.
        filled: whether a place holds a position; both parts are 0 where it does not.
        own: logit of the target where the tiles leave it out.

    Example:
        >>> found = log_sum(torch.tensor([[100.0], [90.0]]), torch.tensor([[1e-9], [0.0]]), torch.tensor([True]))
        >>> found.highest.item(), f"{found.rest.item():.4g}"
        (100.0, '4.54e-05')
    """
    heights = top if own is None else torch.cat((top, own[None]))
    highest, first = heights.max(0)
    empty = highest == -torch.inf
    highest = torch.where(empty, 0.0, highest)
    share = (heights - highest).exp()
    others = (share[: top.size(0)] * beyond).sum(0)
    # The greatest of all is the 1 of log1p, not a term of the sum.
    others = others + share.scatter(0, first[None], 0.0).sum(0)
    rest = torch.where(empty, -torch.inf, others.log1p())
    return LogSum(torch.where(filled, highest, 0.0), torch.where(filled, rest, 0.0))
