"""Freezing: terms of the gradient of rare rows, or all of it, are switched off; the microscope behind AGG.

Yu et al., "Rare Tokens Degenerate All Tokens", ACL 2022, arXiv 2109.03127, Section 3. The gradient of a rare row w_r
has three terms (equation 4; in (c) the row's own targets are left out, which the printed sum counts twice):

    (a) positions with target r:          (p_r - 1) h     pull
    (b) positions with a common target:    p_r h           push
    (c) positions with another rare target: p_r h          push

The rare group is the least frequent share of the types. `optim.FrozenRows` freezes rows of a tied table altogether.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from decone.engines.contract import Engine, Evaluation, Gate, Request, Tokens
from decone.files.foreign import quoted
from decone.objectives.agg import AGG
from decone.objectives.base import Objective
from decone.vocab.counts import RecentCounts, frequency_groups, step_counts


class Freeze(Objective):
    """Cross-entropy that withholds terms of the gradient from the rare rows of the output table.

    Without `counts` the targets of the first `collect` optimiser steps are counted, and learned with plain
    cross-entropy meanwhile. In a tied model the rows still learn as input embeddings; `optim.FrozenRows`
    stops that too.

    Args:
        share: share of the types that is rare, in [0, 1]; 0 is plain cross-entropy, 0.2 the paper's.
        terms: terms that are switched off: "b", "c", "bc" (Table 2), or "abc", the whole row.
        counts: occurrences of each id in the training text, V whole numbers (tensor, array or list).
        until: the last optimiser step that freezes; None freezes to the end.
        collect: optimiser steps in which targets are counted when `counts` is not given, >= 1.

    Raises:
        ValueError: a setting is outside its range.

    Example:
        >>> objective = Freeze(share=0.5, terms="b", counts=[9, 7, 1, 0])
        >>> weight = torch.zeros(4, 2, requires_grad=True)
        >>> objective(torch.ones(2, 2), weight, torch.tensor([0, 1])).mean().backward()
        >>> weight.grad[:, 0].tolist()
        [-0.25, -0.25, 0.0, 0.0]
    """

    paper: ClassVar[str] = "Yu et al. 2022, Rare Tokens Degenerate All Tokens, ACL, arXiv 2109.03127, Section 3"
    cures: ClassVar[str] = "nothing by itself; shows which part of the gradient bends the table"
    cost: ClassVar[str] = "1"
    identity: ClassVar[dict[str, Any] | None] = {"share": 0.0}
    renamed: ClassVar[dict[str, str]] = {"parts": "terms"}
    citation: ClassVar[str] = AGG.citation

    def __init__(
        self,
        share: float = 0.2,
        terms: Literal["b", "c", "bc", "abc"] = "bc",
        counts: Any = None,
        until: int | None = None,
        collect: int = 200,
    ) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(
                f"share must lie in [0, 1], got {share}; 0.2 freezes the least frequent fifth of the types"
            )
        if terms not in ("b", "c", "bc", "abc"):
            raise ValueError(f"unknown terms {quoted(terms)}; choose b, c, bc, or abc for the whole row")
        if collect < 1:
            raise ValueError(f"collect must be 1 or more steps, got {collect}; or pass counts")
        first = 0 if counts is not None else collect
        if until is not None and until <= first:
            raise ValueError(f"until must be above {first}, the steps before freezing begins, got {until}; raise it")
        self.share, self.terms, self.until, self.collect = share, terms, until, first
        self.steps = 0
        self.counted = RecentCounts(max(1, first))
        self._group: Tensor | None = None
        if counts is not None:
            occurrences = torch.as_tensor(counts) if not isinstance(counts, str) else torch.zeros(())
            if occurrences.dim() != 1 or occurrences.is_floating_point() or bool((occurrences < 0).any()):
                raise ValueError("counts must be whole numbers, one per token; from a command line use collect")
            self.counted.prepare(occurrences.numel())
            self.counted.add(occurrences.long())

    def prepare(self, vocabulary: int) -> None:
        self.counted.prepare(vocabulary)

    def observe(self, target: Int[Tensor, " N"]) -> None:
        total = self.counted.total
        if total is None:
            raise ValueError("Freeze does not know the vocabulary yet; call prepare(vocabulary) before the first step")
        if self.steps < self.collect:
            self.counted.add(step_counts(target, total.numel(), self.processes))
        elif total.device != target.device:
            self.counted.to(target.device)
        self.steps += 1

    def rare(self) -> Bool[Tensor, " V"] | None:
        """The rare group, [V]; None while its tokens are still being counted."""
        total = self.counted.total
        if total is None or not len(self.counted) or self.steps < self.collect + bool(self.collect):
            return None
        if self._group is None or self._group.device != total.device:
            ids = frequency_groups(total, (0.0, 1.0 - self.share, self.share))["rare"]
            self._group = torch.zeros_like(total, dtype=torch.bool).index_fill(0, ids, True)
        return self._group

    def gate(self) -> Gate | None:
        rare = None if self.share == 0 or (self.until is not None and self.steps > self.until) else self.rare()
        if rare is None:
            return None
        common, full = (~rare).float(), torch.ones_like(rare, dtype=torch.float32)
        return Gate(rare, common if "b" in self.terms else full, common if "c" in self.terms else full)

    def evaluate(
        self,
        hidden: Float[Tensor, "N H"],
        weight: Float[Tensor, "V H"],
        bias: Float[Tensor, " V"] | None,
        tokens: Tokens,
        *,
        engine: Engine,
        request: Request,
    ) -> Evaluation:
        gate = self.gate() if self.terms == "abc" else None
        if gate is not None:
            # A gate never withholds a target's own pull, term (a); here the rows have no gradient to receive.
            weight = _WithoutGradient.apply(weight, gate.rare)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            bias = None if bias is None else _WithoutGradient.apply(bias, gate.rare)  # type: ignore[no-untyped-call]  # likewise
        return super().evaluate(hidden, weight, bias, tokens, engine=engine, request=request)

    def get_extra_state(self) -> Int64[Tensor, ""]:
        """The steps."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Int64[Tensor, ""] | dict[str, int]) -> None:
        """Takes over a saved state; earlier versions saved a dict."""
        self.steps, self._group = int(state["steps"] if isinstance(state, dict) else state), None


class _WithoutGradient(torch.autograd.Function):
    """The same values, whose gradient is zero in the rows of the mask."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rare: Tensor) -> Tensor:
        ctx.save_for_backward(rare)
        return table.view_as(table)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None]:
        (rare,) = ctx.saved_tensors
        return up.masked_fill(rare.view(-1, *[1] * (up.dim() - 1)), 0.0), None
