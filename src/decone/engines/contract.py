"""What an engine and an objective know of each other.

An objective never multiplies hidden states with the table and never sees all logits at once. It states a `Rule` for
one chunk of logits; an engine does the two large products and calls the rule. The order is fixed:

    logits -> scale -> shift -> adjust -> floor -> softmax -> extra
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


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
    """

    target: Int[Tensor, " N"]
    row: Int[Tensor, " N"]
    place: Int[Tensor, " N"]
    first: Int[Tensor, "R V"] | None = None
    hidden: Float[Tensor, "n H"] | None = None
    target_row: Float[Tensor, "n H"] | None = None

    def part(self, part: slice, hidden: Tensor | None = None, target_row: Tensor | None = None) -> "Tokens":
        """The tokens of one chunk, with the vectors that belong to it."""
        return replace(
            self,
            target=self.target[part],
            row=self.row[part],
            place=self.place[part],
            hidden=hidden,
            target_row=target_row,
        )

    def seen(self) -> Bool[Tensor, "n V"]:
        """Which ids were targets earlier in the sequence of each position, [n, V]."""
        if self.first is None:
            raise ValueError("this objective looks back along the sequence; set `history = True` on its class")
        return self.first[self.row] < self.place[:, None]


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

    def extra(self, logprob: Tensor, tokens: Tokens) -> Tensor | None: ...

    def gate(self) -> Gate | None: ...


class Evaluation(NamedTuple):
    """What an engine returns: the loss (scalar sum, or one per target), and the plain NLL of each target or None."""

    loss: Tensor
    nll: Tensor | None


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
        each: bool,
        nll: bool,
    ) -> Evaluation: ...


def wide(tensor: Tensor) -> Tensor:
    """The tensor in at least float32, in which logits are compared, exponentiated and summed."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def ruled(rule: Rule, logits: Float[Tensor, "n V"], tokens: Tokens) -> Float[Tensor, "n V"]:
    """Logits after scale, shift, adjust and floor; dropped entries are -inf, the target is never dropped."""
    scale, shift = rule.scale(), rule.shift()
    if scale != 1.0:
        logits = logits * scale
    if shift is not None:
        seen, novel = logits.new_tensor(shift.seen), logits.new_tensor(shift.novel)
        logits = logits + torch.where(tokens.seen(), seen, novel)
    if rule.general:
        logits = rule.adjust(logits, tokens)
    target = tokens.target[:, None]
    floor = rule.floor(logits.detach().gather(1, target).squeeze(1), tokens)
    if floor is not None:
        # The comparison selects and nothing else: no gradient goes through the floor.
        dropped = (logits.detach() < floor[:, None]).scatter_(1, target, False)
        logits = logits.masked_fill(dropped, -math.inf)
    return logits
