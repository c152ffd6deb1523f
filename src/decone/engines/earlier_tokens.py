"""Earlier targets of each position of a chunk: their logits are shifted, and the rule may charge for them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from decone.engines.contract import Readout, Rule, Tokens, to_float64


def split_by_block(ids: Tensor, vocabulary: int, block: int) -> list[Tensor]:
    """Indices of the ids that lie in each block of the vocabulary, in the order of the ids.

    Example:
        >>> split_by_block(torch.tensor([5, 0, 4]), 6, 4)
        [tensor([1]), tensor([2, 0])]
    """
    ordered, order = ids.sort(stable=True)
    edges = torch.tensor(range(block, vocabulary, block), device=ids.device, dtype=ids.dtype)
    return list(order.tensor_split(torch.searchsorted(ordered, edges).cpu()))


@dataclass
class EarlierTerms:
    """Terms of the pairs of a chunk of n positions in its loss and its gradient, in float64.

    Attributes:
        remainder: sum of the exponentials over all tokens but the target, [n].
        support: number of the pairs' logits that stayed, targets apart, [n].
        charge: charge of each position, [n]; None if the rule charges nothing.
        factor: 1 less the sum of a charge's slopes, [n]: a factor on the gradient of all logits without a pair.
        pair_slope: gradient of each pair's logit, zero at targets, [P].
        target_slope: contribution of a charge to the gradient of the target's logit, [n].
    """

    remainder: Tensor
    support: Tensor
    charge: Tensor | None
    factor: Tensor | None = None
    pair_slope: Tensor | None = None
    target_slope: Tensor | None = None


class EarlierLogits:
    """Logits of the pairs of a position and an earlier target of its sequence.

    They are taken out of the matrix and stored apart, in float64: an earlier target may be nearly certain, and then its
    charge is about the small probability that remains for all other tokens.

    Args:
        rule: the objective.
        readout: the model's own treatment of its logits.
        tokens: the chunk's targets and their history, n of them.
        vocabulary: V.
        block: rows of the table that are visited at a time.
        target_logit: number that is subtracted from every logit, [n].

    Attributes:
        pairs: position, token and target of every pair, [P].
        entry: index of each pair in a flat matrix [V, n], [P].
        is_target: mask of pairs whose token is its position's target, [P].
        slope: slope of the readout at each pair before the shift, [P]; None without a softcap.
    """

    def __init__(
        self, rule: Rule, readout: Readout, tokens: Tokens, vocabulary: int, block: int, target_logit: Tensor
    ) -> None:
        self.rule, self.readout, self.target_logit, self.pairs = rule, readout, target_logit, tokens.pairs()
        position, token, target = self.pairs
        self.is_target = token == target
        self.entry = token * target_logit.numel() + position
        # Blocks are visited in the order of tokens, so the logits read from them are stored in that order.
        ordered, self._order = self.entry.sort()
        starts = torch.tensor(range(0, vocabulary, block), device=token.device) * target_logit.numel()
        self._edges = [*torch.searchsorted(ordered, starts).tolist(), ordered.numel()]
        self._ordered, self._logit = ordered, target_logit.new_empty(ordered.numel())
        self._target_in_order = self.is_target[self._order]
        self._slope = None if readout.softcap is None else torch.empty_like(self._logit)

    @property
    def slope(self) -> Tensor | None:
        return None if self._slope is None else self._in_pairs(self._slope)

    def visit(self, index: int, start: int, logits: Tensor) -> None:
        """Shifts the pairs that lie in a block of logits, [rows, n], and stores their logits."""
        pairs = slice(self._edges[index], self._edges[index + 1])
        entry = self._ordered[pairs] - start * logits.size(1)
        flat, shift = logits.view(-1), self.rule.shift()
        values = flat[entry]
        if self._slope is not None:
            absolute = (values + self.target_logit[entry % logits.size(1)]) / self.rule.scale()
            self._slope[pairs] = torch.as_tensor(self.readout.slope(absolute), dtype=flat.dtype)
        if shift is not None:
            # A constant in all logits does not matter to a softmax.
            values += shift.earlier - shift.novel
        self._logit[pairs] = values
        flat[entry] = values.masked_fill_(~self._target_in_order[pairs], -math.inf)

    def greatest(self) -> float:
        """The greatest logit of a pair after the shift; -inf without pairs."""
        return float(self._logit.max()) if self._logit.numel() else -math.inf

    def terms(self, remainder: Tensor, residual: Tensor, floor: Tensor | None, learning: bool) -> EarlierTerms:
        """Adds the pairs to the sum, charges for them, and differentiates by their logits.

        Args:
            remainder: sum of the exponentials over all tokens but the target and the pairs', [n].
            residual: relative logit of the target, [n].
            floor: relative logits below it are dropped, [n]; a target never is.
            learning: also compute the gradients.
        """
        position = self.pairs.position
        logit = to_float64(self._in_pairs(self._logit))
        if floor is not None:
            logit.masked_fill_((logit < floor[position]) & ~self.is_target, -math.inf)
        exponentials = logit.exp().masked_fill_(self.is_target, 0.0)
        remainder = to_float64(remainder) + self._sum(exponentials)
        total = remainder + to_float64(residual).exp()
        with torch.set_grad_enabled(learning):
            leaf = (logit - total.log()[position]).requires_grad_(learning)
            cost = self.rule.charge(leaf, self.pairs)
        support = self._sum(((logit > -math.inf) & ~self.is_target).to(total.dtype)).long()
        terms = EarlierTerms(remainder, support, None if cost is None else self._sum(cost.detach()))
        if learning:
            slope, slopes = torch.zeros_like(leaf), torch.zeros_like(total)
            if cost is not None:
                (slope,) = torch.autograd.grad(cost, leaf, torch.ones_like(cost))
                slopes = self._sum(slope)
            # d sum_c f(log p_c) / dz = f'(log p_c) at each c, minus p times the sum of all f'.
            terms.factor = 1 - slopes
            terms.pair_slope = (leaf.detach().exp() * terms.factor[position] + slope).masked_fill_(self.is_target, 0.0)
            terms.target_slope = self._sum(slope.masked_fill(~self.is_target, 0.0))
        return terms

    def _sum(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.target_logit.numel()).index_add_(0, self.pairs.position, values)

    def _in_pairs(self, ordered: Tensor) -> Tensor:
        return torch.empty_like(ordered).index_copy_(0, self._order, ordered)
