"""The tokens before each position of a chunk: their logits are shifted, and the rule may charge for them."""

import math

import torch
from torch import Tensor

from decone.engines.contract import Readout, Rule, Tokens


def split(ids: Tensor, vocabulary: int, block: int) -> list[Tensor]:
    """Places of ids that lie in each block of the vocabulary, in the order of the ids.

    Example:
        >>> split(torch.tensor([5, 0, 4]), 6, 4)
        [tensor([1]), tensor([2, 0])]
    """
    ordered, order = ids.sort(stable=True)
    edges = torch.tensor(range(block, vocabulary, block), device=ids.device, dtype=ids.dtype)
    return list(order.tensor_split(torch.searchsorted(ordered, edges).cpu()))


class Seen:
    """Pairs of a position and a token seen before it, and what becomes of their logits.

    Args:
        rule: the objective.
        readout: what the model does to its logits.
        tokens: the chunk's targets and their history, n of them.
        vocabulary: V.
        block: rows of the table that are visited at a time.
        reference: what was taken off every logit, [n].

    Attributes:
        position: position of each pair, [P].
        token: its token, [P].
        logit: its relative logit after the shift, [P]; -inf where it was dropped.
        slope: slope of the readout there, [P]; None without a softcap.
    """

    def __init__(
        self, rule: Rule, readout: Readout, tokens: Tokens, vocabulary: int, block: int, reference: Tensor
    ) -> None:
        self.pairs = tokens.pairs()
        self.position, self.token, target = self.pairs
        self.is_target = self.token == target
        self.rule, self.readout, self.reference = rule, readout, reference
        self.logit = reference.new_empty(self.token.numel())
        self.slope = None if readout.softcap is None else torch.empty_like(self.logit)
        self._of_block = split(self.token, vocabulary, block)

    def visit(self, index: int, start: int, logits: Tensor) -> None:
        """Shifts the pairs that lie in a block of logits, [rows, n], and reads what they are now."""
        chosen, entry = self._entries(index, start, logits.size(1))
        flat, shift = logits.view(-1), self.rule.shift()
        if self.slope is not None:
            absolute = (flat[entry] + self.reference[self.position[chosen]]) / self.rule.scale()
            self.slope[chosen] = torch.as_tensor(self.readout.slope(absolute), dtype=flat.dtype)
        if shift is not None:
            # What all logits share does not matter to a softmax; no pair occurs twice, so no order of additions does.
            flat.index_add_(0, entry, flat.new_full((1,), shift.seen - shift.novel).expand(entry.numel()))
        self.logit[chosen] = flat[entry]

    def unshift(self, index: int, start: int, slope: Tensor) -> None:
        """Puts the slope of the logits as they were before the shift into a block of slopes, [rows, n]."""
        chosen, entry = self._entries(index, start, slope.size(1))
        if self.slope is not None:
            slope.view(-1)[entry] = self.slope[chosen]

    def _entries(self, index: int, start: int, n: int) -> tuple[Tensor, Tensor]:
        chosen = self._of_block[index]
        return chosen, (self.token[chosen] - start) * n + self.position[chosen]

    def drop_under(self, floor: Tensor) -> None:
        """Marks the pairs that lie under the floor, [n]; a target is never dropped."""
        self.logit.masked_fill_((self.logit < floor[self.position]) & ~self.is_target, -math.inf)

    def charge(self, total: Tensor, learning: bool) -> tuple[Tensor, Tensor | None, Tensor | None] | None:
        """The rule's charge.

        Args:
            total: sum of the exponentials over all tokens, [n].
            learning: also find the slopes.

        Returns:
            Cost per position, [n], slope per pair with respect to its log-probability, [P], and the sum of slopes per
            position, [n]; None if the rule charges nothing.
        """
        with torch.set_grad_enabled(learning):
            leaf = (self.logit - total.log()[self.position]).requires_grad_(learning)
            cost = self.rule.charge(leaf, self.pairs)
        if cost is None:
            return None
        each = torch.zeros_like(total).index_add_(0, self.position, cost.detach())
        if not learning:
            return each, None, None
        (slope,) = torch.autograd.grad(cost, leaf, torch.ones_like(cost))
        return each, slope, torch.zeros_like(total).index_add_(0, self.position, slope)
