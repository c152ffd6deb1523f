"""Several objectives as one: each hook of the parts joined in the only way that keeps its meaning."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from decone.engines.contract import Gate, Pairs, Shift, Tokens
from decone.objectives.base import Objective


class Compose(Objective):
    """The parts acting together on one loss.

    Scales multiply, shifts add, adjusts act one after the other in the order given, of two floors the higher holds,
    charges, extras and penalties on the table add. Only one part may gate the gradient of the table, and only rules
    on the logits of the whole vocabulary can be joined. Counters of every part are saved with the whole.

    Args:
        parts: objectives, at least one; composed parts are taken apart first.

    Raises:
        ValueError: no part, two gates, a part that evaluates itself, or parts that look back differently.

    Example:
        >>> from decone.objectives import Threshold, get
        >>> both = Compose(Threshold(margin=0.5), get("scalegrad", gamma=0.5))
        >>> both(torch.zeros(2, 4), torch.zeros(8, 4), torch.tensor([3, 3]), reduction="none").tokens.exp()
        tensor([8., 1.])
    """

    _each: list[Objective]

    def __init__(self, *parts: Objective) -> None:
        super().__init__()
        flat = [p for part in parts for p in (part._each if isinstance(part, Compose) else [part])]
        if not flat:
            raise ValueError("nothing to compose; pass objectives, for example Compose(Threshold(), ScaleGrad())")
        for part in flat:
            if type(part).evaluate is not Objective.evaluate or type(part).forward is not Objective.forward:
                raise ValueError(
                    f"{_name(part)} evaluates the loss in its own way and not as a rule on the logits of the whole "
                    "vocabulary, so the other parts would have nothing to act on; use it alone"
                )
        gates = [_name(part) for part in flat if type(part).gate is not Objective.gate]
        if len(gates) > 1:
            raise ValueError(
                f"{' and '.join(gates)} each gate the gradient of the table, and a product of gates is neither "
                "method; keep one of them"
            )
        if len({part.whole_batch for part in flat if part.history}) > 1:
            raise ValueError("one part looks back along its sequence, another along the whole batch; drop `flatten`")
        self.parts, self._each = nn.ModuleList(flat), flat
        self.history = any(part.history for part in flat)
        self.whole_batch = any(part.whole_batch for part in flat if part.history)
        self.vectors = any(part.vectors for part in flat)

    @property
    def general(self) -> bool:
        return any(part.general for part in self._each)

    def prepare(self, vocabulary: int) -> None:
        for part in self._each:
            part.prepare(vocabulary)

    def observe(self, target: Int[Tensor, " N"]) -> None:
        for part in self._each:
            if not part._observed:
                part.processes = part.processes or self.processes
                part.observe(target)

    @contextmanager
    def step(self, target: Int[Tensor, "..."], ignore_index: int = -100) -> Iterator[None]:
        # Each part decides itself what a step is; `observe` leaves those alone that have seen theirs.
        with ExitStack() as stack:
            for part in self._each:
                stack.enter_context(part.step(target, ignore_index))
            yield

    def scale(self) -> float:
        product = 1.0
        for part in self._each:
            product *= part.scale()
        return product

    def shift(self) -> Shift | None:
        shifts = [shift for part in self._each if (shift := part.shift()) is not None]
        return Shift(sum(s.earlier for s in shifts), sum(s.novel for s in shifts)) if shifts else None

    def adjust(self, logits: Tensor, tokens: Tokens) -> Tensor:
        for part in self._each:
            # A rule that is not general keeps its say for `floor` and `shift`; its adjust may not stand alone.
            if part.general:
                logits = part.adjust(logits, tokens)
        return logits

    def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor | None:
        floors = [floor for part in self._each if (floor := part.floor(target_logit, tokens)) is not None]
        return torch.stack([floor.expand_as(target_logit) for floor in floors]).amax(0) if floors else None

    def charge(self, logprob: Tensor, pairs: Pairs) -> Tensor | None:
        # `history` alone tells who may charge: a part that does not look back has no say here.
        return _total(part.charge(logprob, pairs) for part in self._each if part.history)

    def extra(self, logprob: Tensor, tokens: Tokens) -> Tensor | None:
        return _total(part.extra(logprob, tokens) for part in self._each if part.general)

    def gate(self) -> Gate | None:
        return next((gate for part in self._each if (gate := part.gate()) is not None), None)

    def matrix(self, weight: Float[Tensor, "V H"]) -> Float[Tensor, ""]:
        penalty = weight.new_zeros(())
        for part in self._each:
            penalty = penalty + part.matrix(weight)
        return penalty


def _total(costs: Iterator[Tensor | None]) -> Tensor | None:
    total = None
    for cost in costs:
        if cost is not None:
            total = cost if total is None else total + cost
    return total


def _name(part: Objective) -> str:
    return type(part).__name__
