"""The contract between an engine and an objective, and the readable engine that defines what the others return.

An objective never multiplies hidden states with the table and never sees all logits at once. It states a `Rule` for
one chunk of logits; an engine does the two large products and calls the rule. The order is fixed:

    logits -> readout -> scale -> shift -> adjust -> floor -> softmax -> charge, extra
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


class Pairs(NamedTuple):
    """Every pair of a position and an id that was a target earlier in its sequence; T x T of them, not T x V.

    Attributes:
        position: index of the position in the chunk, [P], ascending.
        token: the id, [P]; no pair occurs twice.
        target: target of the position, [P].
    """

    position: Int[Tensor, " P"]
    token: Int[Tensor, " P"]
    target: Int[Tensor, " P"]

    @classmethod
    def none(cls, device: torch.device) -> "Pairs":
        """No pair at all, to ask a rule whether it charges anything."""
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(empty, empty, empty)


class Earlier(NamedTuple):
    """The distinct targets of every sequence in order of first use; the earlier ones are a beginning of the list."""

    token: Int[Tensor, " U"]  # ids, one list after the other, [U] with U <= N
    begin: Int[Tensor, " N"]  # where the list of each position's sequence begins in `token`
    length: Int[Tensor, " N"]  # how many ids of that list were targets before the position


@dataclass(frozen=True)
class Tokens:
    """The targets of a loss, without ignored positions, with the sequence (or packed document) and the offset of each.

    Attributes:
        hidden: hidden states of the chunk, [n, H]; None, as `target_row`, unless the rule asks for vectors.
        vocabulary: width of `earlier_mask()`.
        importance: factor on the loss of each target, [N]; None counts each once.
    """

    target: Int[Tensor, " N"]
    sequence: Int[Tensor, " N"]
    offset: Int[Tensor, " N"]
    hidden: Float[Tensor, "n H"] | None = None
    target_row: Float[Tensor, "n H"] | None = None
    earlier: Earlier | None = None
    vocabulary: int = 0
    importance: Float[Tensor, " N"] | None = None

    def select(self, index: slice | Tensor, hidden: Tensor | None = None, target_row: Tensor | None = None) -> "Tokens":
        """The tokens of one chunk (or in another order), with the vectors that belong to it."""
        earlier = self.earlier
        if earlier is not None:
            earlier = Earlier(earlier.token, earlier.begin[index], earlier.length[index])
        return replace(
            self,
            target=self.target[index],
            sequence=self.sequence[index],
            offset=self.offset[index],
            hidden=hidden,
            target_row=target_row,
            earlier=earlier,
            importance=None if self.importance is None else self.importance[index],
        )

    def with_earlier(self, vocabulary: int) -> "Tokens":
        """The tokens with lists of earlier targets; `vocabulary` is the width of `earlier_mask()`."""
        return replace(self, earlier=earlier_targets(self.target, self.sequence, self.offset), vocabulary=vocabulary)

    def pairs(self) -> Pairs:
        """All pairs of a position and an id that was a target earlier in its sequence."""
        if self.earlier is None:
            raise ValueError("this objective looks back along the sequence; set `history = True` on its class")
        token, begin, length = self.earlier
        position = torch.arange(length.numel(), device=length.device).repeat_interleave(length)
        start = begin - (length.cumsum(0) - length)  # where the list begins, less the pairs of the positions before
        entry = torch.arange(position.numel(), device=length.device) + start[position]
        return Pairs(position, token[entry], self.target[position].long())

    def earlier_mask(self) -> Bool[Tensor, "n V"]:
        """True where an id was a target earlier in the sequence of a position, [n, V]."""
        position, token, _ = self.pairs()
        mask = torch.zeros(self.target.numel(), self.vocabulary, dtype=torch.bool, device=self.target.device)
        mask[position, token] = True
        return mask


@dataclass(frozen=True)
class Shift:
    """A constant added to the logits of ids that were targets earlier in the sequence, and one to all others."""

    earlier: float = 0.0
    novel: float = 0.0


@dataclass(frozen=True)
class Gate:
    """Factors on the gradient that reaches each row of the table, by the group of the position's target.

    Hidden states get all of it, and so does the target's row.
    """

    rare: Bool[Tensor, " V"]
    on_common: Float[Tensor, " V"]
    on_rare: Float[Tensor, " V"]


@dataclass(frozen=True)
class Readout:
    """The last step of a model before its logits leave it: softcap * tanh(scale * logits / softcap).

    Args:
        scale: factor on the logits (Cohere's `logit_scale`, one over Granite's `logits_scaling`), not zero.
        softcap: bound on the size of a logit (Gemma 2's `final_logit_softcapping`), > 0; None for no bound.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> Readout(softcap=30.0)(torch.tensor([[1000.0]]))
        tensor([[30.]])
    """

    scale: float = 1.0
    softcap: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale != 0):
            raise ValueError(f"the readout's scale must be finite and not 0, got {self.scale}; 1 changes nothing")
        if self.softcap is not None and not 0 < self.softcap < math.inf:
            raise ValueError(f"softcap must be positive and finite, got {self.softcap}; None switches it off")

    def __call__(self, logits: Tensor) -> Tensor:
        """The logits a model puts out, differentiable."""
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def slope(self, logits: Tensor) -> Tensor | float:
        """Derivative of the readout, from the logits it put out."""
        if self.softcap is None:
            return self.scale
        # A logit of -inf lies at the cap, where the slope is zero.
        return (1 - (logits / self.softcap).square()).clamp(min=0) * self.scale


PLAIN = Readout()


@dataclass(frozen=True)
class Request:
    """Settings of one call of an engine.

    Attributes:
        per_token: one loss per target instead of their sum. The backward pass then evaluates the rule a second time,
            so its state must not change in between.
        detail: also return the log-sum-exp, the number of kept logits and the live share, detached.
    """

    per_token: bool = False
    nll: bool = True
    detail: bool = False
    readout: Readout = PLAIN


LOSS = Request()


@runtime_checkable
class Rule(Protocol):
    """Hooks of an objective, as engines call them."""

    history: bool
    vectors: bool

    @property
    def general(self) -> bool: ...

    def scale(self) -> float: ...

    def shift(self) -> Shift | None: ...

    def adjust(self, logits: Tensor, tokens: Tokens) -> Tensor: ...

    def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor | None: ...

    def charge(self, logprob: Tensor, pairs: Pairs) -> Tensor | None: ...

    def extra(self, logprob: Tensor, tokens: Tokens) -> Tensor | None: ...

    def gate(self) -> Gate | None: ...


class Evaluation(NamedTuple):
    """Result of an engine; all but the loss is detached, and None where the `Request` does not ask for it.

    Attributes:
        loss: the sum over targets, each times its importance; with `per_token`, [N].
        nll: plain negative log-likelihood of each target, [N], whatever the rule.
        lse: log of the sum of exponentials over the logits that the rule kept, [N].
        support: number of logits that the rule kept, int64, [N]; at least 1, the target's.
        live: share of the table's rows that the two products of the gradient had to touch, mean over targets; 1 for
            an engine or a rule that skips none.
    """

    loss: Tensor
    nll: Tensor | None
    lse: Tensor | None = None
    support: Tensor | None = None
    live: Tensor | None = None


@runtime_checkable
class Engine(Protocol):
    """Evaluates a rule over a large vocabulary."""

    def __call__(
        self,
        hidden: Float[Tensor, "N H"],
        weight: Float[Tensor, "V H"],
        bias: Float[Tensor, " V"] | None,
        tokens: Tokens,
        rule: Rule,
        request: Request = LOSS,
    ) -> Evaluation:
        """Evaluates a rule on hidden states of the counted positions, the output table and its bias."""
        ...


def upcast(tensor: Tensor) -> Tensor:
    """The tensor in at least float32, in which logits are compared, exponentiated and summed."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def to_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, as it is on a device that has none (MPS); for a few numbers per position."""
    return tensor if tensor.device.type == "mps" else tensor.double()


def apply_rule(rule: Rule, logits: Float[Tensor, "n V"], tokens: Tokens) -> Float[Tensor, "n V"]:
    """Logits after scale, shift, adjust and floor; dropped entries are -inf, the target is never dropped."""
    scale, shift = rule.scale(), rule.shift()
    if scale != 1.0:
        logits = logits * scale
    if shift is not None:
        logits = _add_shift(logits, shift, tokens)
    if rule.general:
        logits = rule.adjust(logits, tokens)
    target = tokens.target[:, None]
    floor = rule.floor(logits.detach().gather(1, target).squeeze(1), tokens)
    if floor is not None:
        # The comparison selects and nothing else: no gradient goes through the floor.
        dropped = (logits.detach() < floor[:, None]).scatter_(1, target, False)
        logits = logits.masked_fill(dropped, -math.inf)
    return logits


def position_costs(rule: Rule, logprob: Float[Tensor, "n V"], tokens: Tokens) -> Float[Tensor, " n"] | None:
    """The rule's charge for earlier targets, summed per position; differentiable."""
    if not rule.history:
        return None
    pairs = tokens.pairs()
    cost = rule.charge(logprob[pairs.position, pairs.token], pairs)
    return None if cost is None else cost.new_zeros(tokens.target.numel()).index_add(0, pairs.position, cost)


def _add_shift(logits: Tensor, shift: Shift, tokens: Tokens) -> Tensor:
    """Touches only the logits of earlier targets, one per pair, where `novel` is zero."""
    logits = logits.clone() if shift.novel == 0.0 else logits + shift.novel
    position, token, _ = tokens.pairs()
    step = logits.new_full((1,), shift.earlier - shift.novel).expand(position.numel())
    # No pair occurs twice, so nothing depends on the order of additions.
    logits.view(-1).index_add_(0, position * logits.size(1) + token, step)
    return logits


def earlier_targets(target: Int[Tensor, " N"], sequence: Int[Tensor, " N"], offset: Int[Tensor, " N"]) -> Earlier:
    """Lists the distinct targets of every sequence, and how many of them each position looks back on.

    No offset occurs twice in a sequence. Sorting costs O(N log N); no table of sequences x vocabulary is made.

    Example:
        >>> earlier = earlier_targets(torch.tensor([2, 0, 2, 1]), torch.zeros(4, dtype=torch.long), torch.arange(4))
        >>> earlier.token.tolist(), earlier.length.tolist()
        ([2, 0, 1], [0, 1, 2, 2])
    """
    order = _lexicographic_order(offset, sequence)
    target, sequence = target[order].long(), sequence[order]
    # Sorted by sequence and id, stably in offset: the head of each run of equals is the first use.
    by_id = _lexicographic_order(target, sequence)
    runs = torch.stack((sequence[by_id], target[by_id]), 1)
    new = torch.ones_like(target, dtype=torch.bool)
    new[by_id[1:]] = (runs[1:] != runs[:-1]).any(1)
    before = new.long().cumsum(0) - new.long()
    # Sequences are sorted, so the list of one begins at the count that stands before its first position.
    begin = before[torch.searchsorted(sequence, sequence)]
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    return Earlier(target[new], begin[inverse], (before - begin)[inverse])


def _lexicographic_order(minor: Tensor, major: Tensor) -> Tensor:
    """Order by major, then minor; equals stay as they come."""
    order = minor.argsort(stable=True)
    return order[major[order].argsort(stable=True)]


def reference(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Tokens,
    rule: Rule,
    request: Request = LOSS,
) -> Evaluation:
    """Evaluates a rule on all logits at once; the arguments are those of `Engine`."""
    if rule.history:
        tokens = tokens.with_earlier(weight.size(0))
    target_row = upcast(weight[tokens.target]) if rule.vectors else None
    tokens = tokens.select(slice(None), upcast(hidden) if rule.vectors else None, target_row)
    plain = request.readout(upcast(F.linear(hidden, weight, bias)))
    target, gate = tokens.target[:, None], rule.gate()
    if gate is None:
        logits = plain
    else:
        # The same values twice: hidden states get the true gradient, the table the gated one.
        to_hidden = request.readout(upcast(F.linear(hidden, weight.detach(), None if bias is None else bias.detach())))
        to_table = request.readout(upcast(F.linear(hidden.detach(), weight, bias)))
        factor = torch.where(gate.rare[target], gate.on_rare, gate.on_common).to(to_table.dtype)
        # A logit of -inf less itself is NaN; it carries no gradient, so zero is right.
        zero = torch.nan_to_num(to_table - to_table.detach())
        logits = to_hidden + factor.scatter(1, target, 1.0) * zero
    ruled = apply_rule(rule, logits, tokens)
    logprob = ruled.log_softmax(1)
    loss = -logprob.gather(1, target).squeeze(1)
    extra = rule.extra(logprob, tokens) if rule.general else None
    for cost in (position_costs(rule, logprob, tokens), extra):
        loss = loss if cost is None else loss + cost
    plain_nll = -plain.detach().log_softmax(1).gather(1, target).squeeze(1) if request.nll else None
    if tokens.importance is not None:
        loss = loss * tokens.importance.to(loss.dtype)
    total = loss if request.per_token else loss.sum()
    if not request.detail:
        return Evaluation(total, plain_nll)
    lse, live = ruled.detach().logsumexp(1), loss.detach().new_ones(())
    return Evaluation(total, plain_nll, lse, (ruled > -math.inf).sum(1), live)
