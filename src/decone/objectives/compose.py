"""Several objectives as one: every hook joined in the only way that keeps its meaning."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from decone.engines.contract import Gate, Pairs, Shift, Tokens
from decone.objectives.base import Objective


class Compose(Objective):
    """Several objectives acting together on one loss.

    Scales multiply, shifts add, adjusts act one after the other in the order given, of two floors the higher holds,
    charges, extras and penalties on the table add. Only one may gate the gradient of the table, and only rules on the
    logits of the whole vocabulary can be joined. Counters of every member are saved too.

    Args:
        objectives: at least one; members of a composed objective join one by one.

    Raises:
        ValueError: no objective, two gates, an objective that evaluates itself, or two that look back differently.

    Attributes:
        members: the objectives, in the order of the call.

    Example:
        >>> from decone.objectives import Threshold, get
        >>> both = Compose(Threshold(margin=0.5), get("scalegrad", gamma=0.5))
        >>> both(torch.zeros(2, 4), torch.zeros(8, 4), torch.tensor([3, 3]), reduction="none").tokens.exp()
        tensor([8., 1.])
    """

    members: list[Objective]

    def __init__(self, *objectives: Objective) -> None:
        super().__init__()
        members: list[Objective] = [
            member
            for objective in objectives
            for member in (objective.members if isinstance(objective, Compose) else [objective])
        ]
        if not members:
            raise ValueError("nothing to compose; pass objectives, for example Compose(Threshold(), ScaleGrad())")
        for member in members:
            if type(member).evaluate is not Objective.evaluate or type(member).forward is not Objective.forward:
                raise ValueError(
                    f"{_name(member)} evaluates the loss in its own way and not as a rule on the logits of the whole "
                    "vocabulary, so the other parts would have nothing to act on; use it alone"
                )
        gates = [_name(member) for member in members if type(member).gate is not Objective.gate]
        if len(gates) > 1:
            raise ValueError(
                f"{' and '.join(gates)} each gate the gradient of the table, and a product of gates is neither "
                "method; keep one of them"
            )
        if len({member.whole_batch for member in members if member.history}) > 1:
            raise ValueError("one part looks back along its sequence, another along the whole batch; drop `flatten`")
        self.members = members
        self.register_module("parts", nn.ModuleList(members))  # the name that checkpoints have
        self.history = any(member.history for member in members)
        self.whole_batch = any(member.whole_batch for member in members if member.history)
        self.vectors = any(member.vectors for member in members)

    @property
    def general(self) -> bool:
        return any(member.general for member in self.members)

    def prepare(self, vocabulary: int) -> None:
        for member in self.members:
            member.prepare(vocabulary)

    def observe(self, target: Int[Tensor, " N"]) -> None:
        for member in self._members_of_step():
            member.observe(target)

    def _observe_call(self, target: Int[Tensor, " N"]) -> None:
        for member in self._members_of_step():
            member._observe_call(target)

    def _members_of_step(self) -> list[Objective]:
        """The members, which count over the processes of the whole unless they have their own."""
        for member in self.members:
            member.processes = member.processes or self.processes
        return self.members

    @contextmanager
    def step(self, target: Int[Tensor, "..."], ignore_index: int = -100) -> Iterator[None]:
        with ExitStack() as stack:
            for member in self._members_of_step():  # each decides itself what a step is
                stack.enter_context(member.step(target, ignore_index))
            yield

    def scale(self) -> float:
        product = 1.0
        for member in self.members:
            product *= member.scale()
        return product

    def shift(self) -> Shift | None:
        shifts = [shift for member in self.members if (shift := member.shift()) is not None]
        return Shift(sum(s.earlier for s in shifts), sum(s.novel for s in shifts)) if shifts else None

    def adjust(self, logits: Tensor, tokens: Tokens) -> Tensor:
        for member in self.members:
            # A rule that is not general keeps its say for `floor` and `shift`; its adjust may not stand alone.
            if member.general:
                logits = member.adjust(logits, tokens)
        return logits

    def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor | None:
        floors = [floor for member in self.members if (floor := member.floor(target_logit, tokens)) is not None]
        return torch.stack([floor.expand_as(target_logit) for floor in floors]).amax(0) if floors else None

    def charge(self, logprob: Tensor, pairs: Pairs) -> Tensor | None:
        # `history` alone tells who may charge: a member that does not look back has no say here.
        return _total(member.charge(logprob, pairs) for member in self.members if member.history)

    def extra(self, logprob: Tensor, tokens: Tokens) -> Tensor | None:
        return _total(member.extra(logprob, tokens) for member in self.members if member.general)

    def gate(self) -> Gate | None:
        return next((gate for member in self.members if (gate := member.gate()) is not None), None)

    def matrix(self, weight: Float[Tensor, "V H"]) -> Float[Tensor, ""]:
        penalty = weight.new_zeros(())
        for member in self.members:
            penalty = penalty + member.matrix(weight)
        return penalty


def _total(costs: Iterator[Tensor | None]) -> Tensor | None:
    total = None
    for cost in costs:
        if cost is not None:
            total = cost if total is None else total + cost
    return total


def _name(member: Objective) -> str:
    return type(member).__name__
