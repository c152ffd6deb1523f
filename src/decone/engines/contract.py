"""What an engine and an objective know of each other.

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

from decone.vocab.earlier import Earlier, earlier_targets


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


@dataclass(frozen=True)
class Tokens:
    """The targets of a loss, ignored positions already gone, and what an objective may look at.

    Attributes:
        target: token ids, [N].
        row: the sequence (or packed document) of each position, [N].
        place: position inside that sequence, [N].
        first: place at which each id is first a target of each sequence, [R, V]; None unless the rule asks for history.
        hidden: hidden states of the chunk, [n, H]; None unless the rule asks for vectors.
        target_row: output-table rows of the targets of the chunk, [n, H]; None unless the rule asks for vectors.
        earlier: the same knowledge as `first` as lists, whose size does not grow with V; engines make it from target,
            row and place where the rule asks for history.
        vocabulary: width of `seen()`.
        importance: factor on the loss of each target, [N]; None counts each once.
    """

    target: Int[Tensor, " N"]
    row: Int[Tensor, " N"]
    place: Int[Tensor, " N"]
    first: Int[Tensor, "R V"] | None = None
    hidden: Float[Tensor, "n H"] | None = None
    target_row: Float[Tensor, "n H"] | None = None
    earlier: Earlier | None = None
    vocabulary: int = 0
    importance: Float[Tensor, " N"] | None = None

    def part(self, part: slice | Tensor, hidden: Tensor | None = None, target_row: Tensor | None = None) -> "Tokens":
        """The tokens of one chunk (or in another order), with the vectors that belong to it."""
        earlier = self.earlier
        if earlier is not None:
            earlier = Earlier(earlier.token, earlier.begin[part], earlier.length[part])
        return replace(
            self,
            target=self.target[part],
            row=self.row[part],
            place=self.place[part],
            hidden=hidden,
            target_row=target_row,
            earlier=earlier,
            importance=None if self.importance is None else self.importance[part],
        )

    def remembering(self, vocabulary: int) -> "Tokens":
        """The tokens with lists of earlier targets; `vocabulary` is the width of `seen()`."""
        return replace(self, earlier=earlier_targets(self.target, self.row, self.place), vocabulary=vocabulary)

    def pairs(self) -> Pairs:
        """All pairs of a position and an id that was a target earlier in its sequence."""
        if self.earlier is None:
            raise ValueError(_LOOKS_BACK)
        token, begin, length = self.earlier
        position = torch.arange(length.numel(), device=length.device).repeat_interleave(length)
        start = begin - (length.cumsum(0) - length)  # where the list begins, less the pairs of the positions before
        entry = torch.arange(position.numel(), device=length.device) + start[position]
        return Pairs(position, token[entry], self.target[position].long())

    def seen(self) -> Bool[Tensor, "n V"]:
        """Which ids were targets earlier in the sequence of each position, [n, V]."""
        if self.earlier is not None:
            position, token, _ = self.pairs()
            seen = torch.zeros(self.target.numel(), self.vocabulary, dtype=torch.bool, device=self.target.device)
            seen[position, token] = True
            return seen
        if self.first is None:
            raise ValueError(_LOOKS_BACK)
        return self.first[self.row] < self.place[:, None]


_LOOKS_BACK = "this objective looks back along the sequence; set `history = True` on its class"


@dataclass(frozen=True)
class Shift:
    """A constant added to the logits of ids already seen in the sequence, and to all others."""

    seen: float = 0.0
    novel: float = 0.0


@dataclass(frozen=True)
class Gate:
    """How much of the gradient reaches each row of the table; hidden states keep all of it, the target's row too.

    Attributes:
        rare: which ids form the rare group, [V].
        on_common: factor per row where the position's target is common, [V].
        on_rare: factor per row where the position's target is rare, [V].
    """

    rare: Bool[Tensor, " V"]
    on_common: Float[Tensor, " V"]
    on_rare: Float[Tensor, " V"]


@dataclass(frozen=True)
class Readout:
    """What a model does to its logits before anyone looks at them: softcap * tanh(scale * logits / softcap).

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


@runtime_checkable
class Rule(Protocol):
    """What an engine asks of an objective."""

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
    """What an engine returns; all but the loss is detached, and None where it was not asked for.

    Attributes:
        loss: the sum over targets, each times its importance; with `each`, [N].
        nll: plain negative log-likelihood of each target, [N], whatever the rule.
        lse: log of the sum of exponentials over the logits that the rule kept, [N].
        kept: how many logits the rule kept, int64, [N]; at least 1, the target's.
        live: share of the table's rows that the two products of the gradient had to touch, mean over targets; 1 for
            an engine or a rule that skips none.
    """

    loss: Tensor
    nll: Tensor | None
    lse: Tensor | None = None
    kept: Tensor | None = None
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
        *,
        each: bool = False,
        nll: bool = True,
        detail: bool = False,
        readout: Readout = PLAIN,
    ) -> Evaluation: ...


def wide(tensor: Tensor) -> Tensor:
    """The tensor in at least float32, in which logits are compared, exponentiated and summed."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float64, as it is on a device that has none (MPS); for a few numbers per position."""
    return tensor if tensor.device.type == "mps" else tensor.double()


def ruled(rule: Rule, logits: Float[Tensor, "n V"], tokens: Tokens, own: bool = False) -> Float[Tensor, "n V"]:
    """Logits after scale, shift, adjust and floor; dropped entries are -inf, the target is never dropped.

    With `own` the logits belong to the caller alone, need no gradient, and may be changed in place.
    """
    scale, shift = rule.scale(), rule.shift()
    if scale != 1.0:
        logits = logits * scale
    if shift is not None:
        logits = _shifted(logits, shift, tokens, own)
    if rule.general:
        logits = rule.adjust(logits, tokens)
    target = tokens.target[:, None]
    floor = rule.floor(logits.detach().gather(1, target).squeeze(1), tokens)
    if floor is not None:
        # The comparison selects and nothing else: no gradient goes through the floor.
        dropped = (logits.detach() < floor[:, None]).scatter_(1, target, False)
        logits = logits.masked_fill(dropped, -math.inf)
    return logits


def charged(rule: Rule, logprob: Float[Tensor, "n V"], tokens: Tokens) -> Float[Tensor, " n"] | None:
    """What the rule charges each position for the tokens seen earlier; differentiable."""
    if not rule.history:
        return None
    pairs = tokens.pairs()
    cost = rule.charge(logprob[pairs.position, pairs.token], pairs)
    return None if cost is None else cost.new_zeros(tokens.target.numel()).index_add(0, pairs.position, cost)


def _shifted(logits: Tensor, shift: Shift, tokens: Tokens, own: bool) -> Tensor:
    """Touches only the logits of seen tokens, one per pair, where `novel` is zero."""
    if shift.novel != 0.0:
        logits = logits.add_(shift.novel) if own else logits + shift.novel
    elif not own:
        logits = logits.clone()
    position, token, _ = tokens.pairs()
    step = logits.new_full((1,), shift.seen - shift.novel).expand(position.numel())
    # No pair occurs twice, so nothing depends on the order of additions.
    logits.view(-1).index_add_(0, position * logits.size(1) + token, step)
    return logits
