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


LOG2E = math.log2(math.e)  # torch's exp2 costs a third of its exp


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
        pairs: position, token and target of every pair, [P].
        entry: place of each pair in a matrix [V, n], [P].
        is_target: whether the token is its position's target, [P].
        slope: slope of the readout at each pair before the shift, [P]; None without a softcap.
    """

    def __init__(
        self, rule: Rule, readout: Readout, tokens: Tokens, vocabulary: int, block: int, reference: Tensor
    ) -> None:
        self.rule, self.readout, self.reference, self.pairs = rule, readout, reference, tokens.pairs()
        position, token, target = self.pairs
        self.is_target = token == target
        self.entry = token * reference.numel() + position
        # Blocks are visited in the order of tokens, so what is read there is kept in that order.
        ordered, self._order = self.entry.sort()
        starts = torch.tensor(range(0, vocabulary, block), device=token.device) * reference.numel()
        self._edges = [*torch.searchsorted(ordered, starts).tolist(), ordered.numel()]
        self._ordered, self._logit = ordered, reference.new_empty(ordered.numel())
        self._slope = None if readout.softcap is None else torch.empty_like(self._logit)

    @property
    def slope(self) -> Tensor | None:
        return None if self._slope is None else self._in_pairs(self._slope)

    def visit(self, index: int, start: int, logits: Tensor) -> None:
        """Shifts the pairs that lie in a block of logits, [rows, n], and reads what they are now."""
        part, entry = self._block(index, start, logits.size(1))
        flat, shift = logits.view(-1), self.rule.shift()
        if self._slope is not None:
            absolute = (flat[entry] + self.reference[entry % logits.size(1)]) / self.rule.scale()
            self._slope[part] = torch.as_tensor(self.readout.slope(absolute), dtype=flat.dtype)
        if shift is not None:
            # What all logits share does not matter to a softmax; no pair occurs twice, so no order of additions does.
            flat.index_add_(0, entry, flat.new_full((1,), shift.seen - shift.novel).expand(entry.numel()))
        torch.index_select(flat, 0, entry, out=self._logit[part])

    def unshift(self, index: int, start: int, slope: Tensor) -> None:
        """Puts the slope of the logits as they were before the shift into a block of slopes, [rows, n]."""
        part, entry = self._block(index, start, slope.size(1))
        if self._slope is not None:
            slope.view(-1)[entry] = self._slope[part]

    def charge(
        self, total: Tensor, floor: Tensor | None, learning: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None] | None:
        """The rule's charge.

        Args:
            total: sum of the exponentials over all tokens, [n].
            floor: relative logits below it were dropped, [n]; a target never is.
            learning: also find the slopes.

        Returns:
            Cost per position, [n], slope per pair with respect to its log-probability, [P], and the sum of slopes per
            position, [n]; None if the rule charges nothing.
        """
        position = self.pairs.position
        logit = self._in_pairs(self._logit)
        if floor is not None:
            logit.masked_fill_((logit < floor[position]) & ~self.is_target, -math.inf)
        # Relative to the greatest, so that 1 - p of a token that is nearly certain keeps its digits; by the same exp2
        # as the sum, so that their roundings cancel.
        top = torch.zeros_like(total).scatter_reduce_(0, position, logit, "amax")
        rest = (total * torch.exp2(-(top * LOG2E))).log()
        with torch.set_grad_enabled(learning):
            leaf = (logit - top[position] - rest[position]).requires_grad_(learning)
            cost = self.rule.charge(leaf, self.pairs)
        if cost is None:
            return None
        each = torch.zeros_like(total).index_add_(0, position, cost.detach())
        if not learning:
            return each, None, None
        (slope,) = torch.autograd.grad(cost, leaf, torch.ones_like(cost))
        return each, slope, torch.zeros_like(total).index_add_(0, position, slope)

    def of_target(self, slope: Tensor) -> Tensor:
        """Of numbers per pair, [P], the sum of those at the positions' own targets, [n]."""
        mine = slope.masked_fill(~self.is_target, 0.0)
        return torch.zeros_like(self.reference).index_add_(0, self.pairs.position, mine)

    def _block(self, index: int, start: int, n: int) -> tuple[slice, Tensor]:
        part = slice(self._edges[index], self._edges[index + 1])
        return part, self._ordered[part] - start * n

    def _in_pairs(self, ordered: Tensor) -> Tensor:
        return torch.empty_like(ordered).index_copy_(0, self._order, ordered)
