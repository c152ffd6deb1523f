"""One pass over all positions, as the engines share it: inputs, order, losses, gradients, precision.

An engine sweeps over positions in chunks. It decides what a chunk is and how its logits are made; the state of the
sweep, the order in which positions are taken, the types of inputs and gradients, and the logits of
earlier targets, which are shifted and may be charged for, are treated here.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from decone.engines.contract import Gate, Pairs, Readout, Request, Rule, Tokens, to_float64, upcast

PAIR_BYTES = 32  # size of one pair of a position and an earlier target while a chunk is alive


@dataclass(frozen=True)
class SweepCall:
    """One call of an engine beside its differentiable inputs; `gate` is the rule's, asked for once."""

    tokens: Tokens
    rule: Rule
    gate: Gate | None
    request: Request


@dataclass
class SweepInputs:
    """Inputs of a sweep, in the precision of the large products."""

    hidden: Float[Tensor, "N H"]
    weight: Float[Tensor, "V H"]  # output table, or the rows of it that this process holds
    bias: Float[Tensor, " V"] | None
    tokens: Tokens
    rule: Rule
    gate: Gate | None
    readout: Readout

    def gate_factor(self, rare: bool) -> Tensor | None:
        """The gate's factor per row of the table for a chunk whose targets are all rare or all common, [V]."""
        if self.gate is None:
            return None
        return self.gate.on_rare if rare else self.gate.on_common


@dataclass
class TableInputs(SweepInputs):
    """Inputs of a sweep over a complete table whose targets' logits are computed before it."""

    # the targets' logits after the readout and the rule's scale, [N], at least float32
    target_logit: Float[Tensor, " N"]
    slack: float  # bound on the rounding error of the products against `target_logit`
    detail: bool

    def select(self, index: Int[Tensor, " M"]) -> "TableInputs":
        """The positions in another order."""
        hidden, target_logit = self.hidden[index], self.target_logit[index]
        return replace(self, hidden=hidden, tokens=self.tokens.select(index), target_logit=target_logit)

    def chunk_tokens(self, positions: slice, learning: bool = False) -> Tokens:
        """The tokens of a chunk, with the vectors that the rule asks for; if `learning`, as leaves of a new graph."""
        if not self.rule.vectors:
            return self.tokens.select(positions)
        hidden = upcast(self.hidden[positions]).detach()
        row = upcast(self.weight[self.tokens.target[positions]]).detach()
        return self.tokens.select(positions, hidden.requires_grad_(learning), row.requires_grad_(learning))


@dataclass
class SweepLosses:
    """Results of a sweep per position, [N]; None where they are not requested; `loss` is without importance."""

    loss: Float[Tensor, " N"]
    nll: Float[Tensor, " N"] | None
    lse: Float[Tensor, " N"] | None
    support: Int[Tensor, " N"] | None
    touched: int = 0  # rows of the table that the gradient's products had to touch, summed over positions

    @classmethod
    def empty(cls, like: Tensor, nll: bool, detail: bool) -> "SweepLosses":
        """Uninitialised results, of the size and the type of a tensor."""
        lse = torch.empty_like(like) if detail else None
        support = torch.empty_like(like, dtype=torch.int64) if detail else None
        return cls(torch.empty_like(like), torch.empty_like(like) if nll else None, lse, support)

    def restore(self, order: Int[Tensor, " N"]) -> "SweepLosses":
        """The results of positions that were swept in `order`, as the positions came."""
        values = (self.loss, self.nll, self.lse, self.support)
        loss, nll, lse, support = (None if v is None else restore_order(v, order) for v in values)
        assert loss is not None
        return SweepLosses(loss, nll, lse, support, self.touched)


@dataclass
class SweepGradients:
    """Gradients under construction; None where none is requested."""

    hidden: Float[Tensor, "N H"] | None
    table: Float[Tensor, "V H"] | None
    bias: Float[Tensor, " V"] | None
    # gradient of each target's logit, [N]; zero where a chunk adds it to the others itself
    target_logit: Float[Tensor, " N"]

    def add_target_logits(self, inputs: SweepInputs) -> None:
        """Adds the gradient through the targets' logits, formed apart from the large products and never gated."""
        target = inputs.tokens.target
        if self.hidden is not None:
            self.hidden.addcmul_(self.target_logit[:, None], upcast(inputs.weight[target]))
        if self.table is not None:
            self.table.index_add_(0, target, self.target_logit[:, None] * upcast(inputs.hidden))
        if self.bias is not None:
            self.bias.index_add_(0, target, self.target_logit)

    def cast(self, types: Sequence[torch.dtype | None]) -> tuple[Tensor | None, ...]:
        """Gradients of hidden states, table and bias in the types of the inputs."""
        return cast_gradients((self.hidden, self.table, self.bias), types)


def zero_gradients(inputs: SweepInputs, requires_grad: Sequence[bool], dtype: torch.dtype) -> SweepGradients:
    """Gradients of zero for those of hidden states, table and bias that require one."""
    pairs = zip((inputs.hidden, inputs.weight, inputs.bias), requires_grad, strict=True)
    hidden, table, bias = (
        torch.zeros_like(t, dtype=dtype) if t is not None and needed else None for t, needed in pairs
    )
    return SweepGradients(hidden, table, bias, inputs.hidden.new_zeros(inputs.hidden.size(0), dtype=dtype))


def cast_gradients(
    gradients: Sequence[Tensor | None], types: Sequence[torch.dtype | None]
) -> tuple[Tensor | None, ...]:
    """Gradients in the types of the inputs."""
    return tuple(None if g is None else g.to(kind) for g, kind in zip(gradients, types, strict=True))


def storage_types(types: Sequence[torch.dtype | None]) -> list[torch.dtype | None]:
    """Types in which gradients wait for the backward pass: a sum over many tokens overflows in float16."""
    return [torch.float32 if kind == torch.float16 else kind for kind in types]


def input_types(*inputs: Tensor | None) -> tuple[torch.dtype | None, ...]:
    """Types of the inputs, in which their gradients are returned."""
    return tuple(None if tensor is None else tensor.dtype for tensor in inputs)


def product_dtype(hidden: Tensor) -> torch.dtype:
    """The type of the large products, which autocast decides as it does for `F.linear`."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def autocast_inputs(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs as autocast casts them for a product; as they are without it, and in float64."""
    if not torch.is_autocast_enabled(hidden.device.type) or hidden.dtype == torch.float64:
        return hidden, weight, bias
    dtype = product_dtype(hidden)
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def refuse_second_derivative(engine: str, mend: str = "use engine='reference'") -> None:
    """Stops a backward pass that is itself to be differentiated.

    Gradients made by hand carry no graph: a penalty on them would be left out without a word.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(f"{engine} gives no second derivative (create_graph); {mend}")


def sort_positions(key: Float[Tensor, " N"] | None, rare: Bool[Tensor, " N"] | None) -> Int[Tensor, " N"] | None:
    """The order of a sweep: common targets before rare ones, by ascending key inside a class; None as they come.

    The key is the height of a floor: positions that need the same rows become neighbours. A chunk holds a single
    class.

    Example:
        >>> sort_positions(torch.tensor([0.3, 0.1, 0.2]), torch.tensor([False, True, False]))
        tensor([2, 0, 1])
    """
    order = None if key is None else key.argsort(stable=True)
    if rare is None:
        return order
    by_class = (rare if order is None else rare[order]).to(torch.uint8).argsort(stable=True)
    return by_class if order is None else order[by_class]


def restore_order(values: Shaped[Tensor, "N *S"], order: Int[Tensor, " N"]) -> Shaped[Tensor, "N *S"]:
    """Values that stand in `order`, as the positions came."""
    return torch.empty_like(values).index_copy_(0, order, values)


def chunk_positions(N: int, rows: int, common: int) -> Iterator[tuple[slice, bool]]:
    """Slices of at most `rows` positions, each with common targets alone or with rare ones alone, and True for rare.

    Example:
        >>> list(chunk_positions(5, 2, 3))
        [(slice(0, 2, None), False), (slice(2, 3, None), False), (slice(3, 5, None), True)]
    """
    for rare, low, high in ((False, 0, common), (True, common, N)):
        for start in range(low, high, rows):
            yield slice(start, min(high, start + rows)), rare


def charges_earlier(rule: Rule, like: Tensor) -> bool:
    """True if the rule charges anything for earlier targets; it is asked with no pair at all."""
    if not rule.history:
        return False
    return rule.charge(like.new_empty(0), Pairs.none(like.device)) is not None


def longest_history(tokens: Tokens) -> int:
    """The largest number of earlier targets of a position; waits for the device."""
    earlier = tokens.earlier
    return int(earlier.length.max()) if earlier is not None and earlier.length.numel() else 0


def low_product(slope: Float[Tensor, "M K"], vectors: Float[Tensor, "K L"]) -> Float[Tensor, "M L"]:
    """A product in the low precision of `vectors`, returned in that of `slope`.

    In float16 a slope of 1e-8 is zero and a sum ends at 65504, so slopes are scaled by a power of two that keeps the
    sum just below that.
    """
    if vectors.dtype != torch.float16:
        return (slope.to(vectors.dtype) @ vectors).to(slope.dtype)
    bound = slope.abs().sum(1).amax() * vectors.abs().amax().to(slope.dtype)
    scale = torch.exp2(torch.log2(32000 / bound).floor().clamp(-100, 20)) if bool(bound > 0) else torch.ones_like(bound)
    return ((slope * scale).half() @ vectors).to(slope.dtype) / scale


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
    """Terms of the pairs of a chunk of n positions in its loss and its gradient, in float64."""

    remainder: Tensor  # sum of the exponentials over all tokens but the target, [n]
    support: Tensor  # number of the pairs' logits that stayed, targets apart, [n]
    charge: Tensor | None
    # 1 less the sum of a charge's slopes, [n]: a factor on the gradient of all logits without a pair
    factor: Tensor | None = None
    pair_slope: Tensor | None = None  # gradient of each pair's logit, zero at targets, [P]
    target_slope: Tensor | None = None  # contribution of a charge to the gradient of the target's logit, [n]


class EarlierLogits:
    """Logits of the pairs of a position and an earlier target of its sequence.

    They are taken out of the matrix and stored apart, in float64: an earlier target may be nearly certain, and then
    its charge is about the small probability that remains for all other tokens. `block` rows of the table are visited
    at a time, `target_logit` is subtracted from every logit.

    Attributes:
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
        """Adds the pairs to the sum, charges for them, and differentiates by their logits if `learning`.

        The remainder is without them; relative logits below the floor are dropped, but a target never is.
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
