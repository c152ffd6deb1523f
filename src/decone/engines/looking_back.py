"""The tokens before each position of a chunk: their logits are shifted, and the rule may charge for them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from decone.engines.contract import Readout, Rule, Tokens, to_float64


def split(ids: Tensor, vocabulary: int, block: int) -> list[Tensor]:
    """Places of ids that lie in each block of the vocabulary, in the order of the ids.

    Example:
        >>> split(torch.tensor([5, 0, 4]), 6, 4)
        [tensor([1]), tensor([2, 0])]
    """
    ordered, order = ids.sort(stable=True)
    edges = torch.tensor(range(block, vocabulary, block), device=ids.device, dtype=ids.dtype)
    return list(order.tensor_split(torch.searchsorted(ordered, edges).cpu()))


@dataclass
class Settled:
    """What the pairs of a chunk of n positions come to, in float64.

    Attributes:
        rest: sum of the exponentials over all tokens but the target, [n].
        kept: how many of the pairs' logits stayed, targets apart, [n].
        charge: what each position is charged, [n]; None if the rule charges nothing.
        left: 1 less the sum of a charge's slopes, [n]: a factor on the gradient of every other logit.
        entry: gradient of each pair's logit, zero at targets, [P].
        own: what a charge adds to the gradient of the target's logit, [n].
    """

    rest: Tensor
    kept: Tensor
    charge: Tensor | None
    left: Tensor | None = None
    entry: Tensor | None = None
    own: Tensor | None = None


class Seen:
    """Pairs of a position and a token seen before it, and what becomes of their logits.

    They are taken out of the matrix and kept apart, in float64: a token used before may be nearly certain, and then
    all that its charge is about is the small rest that the others leave it.

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
        self._target_in_order = self.is_target[self._order]
        self._slope = None if readout.softcap is None else torch.empty_like(self._logit)

    @property
    def slope(self) -> Tensor | None:
        return None if self._slope is None else self._in_pairs(self._slope)

    def visit(self, index: int, start: int, logits: Tensor) -> None:
        """Shifts the pairs that lie in a block of logits, [rows, n], and reads what they are now."""
        part, entry = self._block(index, start, logits.size(1))
        flat, shift = logits.view(-1), self.rule.shift()
        found = flat[entry]
        if self._slope is not None:
            absolute = (found + self.reference[entry % logits.size(1)]) / self.rule.scale()
            self._slope[part] = torch.as_tensor(self.readout.slope(absolute), dtype=flat.dtype)
        if shift is not None:
            # What all logits share does not matter to a softmax.
            found += shift.earlier - shift.novel
        self._logit[part] = found
        flat[entry] = found.masked_fill_(~self._target_in_order[part], -math.inf)

    def greatest(self) -> float:
        """The greatest logit of a pair after the shift; -inf without pairs."""
        return float(self._logit.max()) if self._logit.numel() else -math.inf

    def settle(self, rest: Tensor, own: Tensor, floor: Tensor | None, learning: bool) -> "Settled":
        """Adds the pairs to the sum, charges for them, and finds the gradients of their logits.

        Args:
            rest: sum of the exponentials over all tokens but the target and the pairs', [n].
            own: what is left of the target's logit, [n].
            floor: relative logits below it are dropped, [n]; a target never is.
            learning: also find the gradients.
        """
        position = self.pairs.position
        logit = to_float64(self._in_pairs(self._logit))
        if floor is not None:
            logit.masked_fill_((logit < floor[position]) & ~self.is_target, -math.inf)
        others = logit.exp().masked_fill_(self.is_target, 0.0)
        rest = to_float64(rest) + self._sum(others)
        total = rest + to_float64(own).exp()
        with torch.set_grad_enabled(learning):
            leaf = (logit - total.log()[position]).requires_grad_(learning)
            cost = self.rule.charge(leaf, self.pairs)
        kept = self._sum(((logit > -math.inf) & ~self.is_target).to(total.dtype)).long()
        settled = Settled(rest, kept, None if cost is None else self._sum(cost.detach()))
        if learning:
            slope, slopes = torch.zeros_like(leaf), torch.zeros_like(total)
            if cost is not None:
                (slope,) = torch.autograd.grad(cost, leaf, torch.ones_like(cost))
                slopes = self._sum(slope)
            # d sum_c f(log p_c) / dz = f'(log p_c) at each c, minus p times the sum of all f'.
            settled.left = 1 - slopes
            settled.entry = (leaf.detach().exp() * settled.left[position] + slope).masked_fill_(self.is_target, 0.0)
            settled.own = self._sum(slope.masked_fill(~self.is_target, 0.0))
        return settled

    def _sum(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.reference.numel()).index_add_(0, self.pairs.position, values)

    def _block(self, index: int, start: int, n: int) -> tuple[slice, Tensor]:
        part = slice(self._edges[index], self._edges[index + 1])
        return part, self._ordered[part] - start * n

    def _in_pairs(self, ordered: Tensor) -> Tensor:
        return torch.empty_like(ordered).index_copy_(0, self._order, ordered)
