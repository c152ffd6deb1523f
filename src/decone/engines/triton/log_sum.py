"""The log of a sum of exponentials as two terms, so that no digit is lost to an offset that all logits share."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class LogSum(NamedTuple):
    """A log-sum-exp that is never rounded at the size of the logits unless asked for.

    Attributes:
        highest: greatest logit of each position, [C].
        remainder: log of the sum of exponentials over it, with all digits where the greatest outweighs the others, [C].
    """

    highest: Float[Tensor, " C"]
    remainder: Float[Tensor, " C"]

    def value(self) -> Float[Tensor, " C"]:
        """The log-sum-exp itself."""
        return self.highest + self.remainder

    def less(self, logit: Float[Tensor, "*D C"]) -> Float[Tensor, "*D C"]:
        """The log-sum-exp less logits: their negative log-likelihood."""
        return (self.highest - logit) + self.remainder

    def select(self, index: slice | Tensor) -> "LogSum":
        """The same of a selection of positions, which may repeat."""
        return LogSum(self.highest[index], self.remainder[index])


def log_sum(
    top: Float[Tensor, "T C"],
    beyond: Float[Tensor, "T C"],
    filled: Bool[Tensor, " C"],
    target_logit: Float[Tensor, " C"] | None = None,
) -> LogSum:
    """Joins the sums of column tiles.

    Args:
        top: greatest logit per column tile.
        beyond: sum of exponentials over it, less the 1 that is the greatest's; anything where the greatest is -inf.
        filled: mask of entries with a position; both terms are 0 where there is none.
        target_logit: logit of the target where the tiles leave it out.

    Example:
        >>> total = log_sum(torch.tensor([[100.0], [90.0]]), torch.tensor([[1e-9], [0.0]]), torch.tensor([True]))
        >>> total.highest.item(), f"{total.remainder.item():.4g}"
        (100.0, '4.54e-05')
    """
    heights = top if target_logit is None else torch.cat((top, target_logit[None]))
    highest, first = heights.max(0)
    empty = highest == -torch.inf
    highest = torch.where(empty, 0.0, highest)
    share = (heights - highest).exp()
    sums = (share[: top.size(0)] * beyond).sum(0)
    # The greatest of all is the 1 of log1p, not a term of the sum.
    sums = sums + share.scatter(0, first[None], 0.0).sum(0)
    remainder = torch.where(empty, -torch.inf, sums.log1p())
    return LogSum(torch.where(filled, highest, 0.0), torch.where(filled, remainder, 0.0))
