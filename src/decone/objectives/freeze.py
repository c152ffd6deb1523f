"""Freezing: parts of the gradient of rare rows, or these rows as a whole, are switched off; the microscope behind AGG.

Yu et al., "Rare Tokens Degenerate All Tokens", ACL 2022, arXiv 2109.03127, Section 3. The gradient of a rare row w_r
has three parts (equation 4; in (c) the row's own targets are left out, which the printed sum counts twice):

    (a) positions with target r:          (p_r - 1) h     pull
    (b) positions with a common target:    p_r h           push
    (c) positions with another rare target: p_r h          push

The rare group is the least frequent share of the types. `Freeze` switches parts off; `Rows` holds whole rows.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decone.engines.contract import Engine, Evaluation, Gate, Request, Tokens
from decone.objectives.base import Objective
from decone.vocab.counts import RecentCounts, frequency_groups, step_counts


class Freeze(Objective):
    """Cross-entropy that withholds parts of the gradient from the rare rows of the output table.

    Without `counts` the targets of the first `collect` optimiser steps are counted, and learned with plain
    cross-entropy meanwhile. In a tied model the rows still learn as input embeddings; `Rows` stops that too.

    Args:
        share: share of the types that is rare, in [0, 1]; 0 is plain cross-entropy, 0.2 the paper's.
        parts: which parts are switched off: "b", "c", "bc" (Table 2), or "abc", the whole row.
        counts: occurrences of each id in the training text, V whole numbers (tensor, array or list).
        until: the last optimiser step that freezes; None freezes to the end.
        collect: optimiser steps in which targets are counted when `counts` is not given, >= 1.

    Raises:
        ValueError: a setting is outside its range.

    Example:
        >>> objective = Freeze(share=0.5, parts="b", counts=[9, 7, 1, 0])
        >>> weight = torch.zeros(4, 2, requires_grad=True)
        >>> objective(torch.ones(2, 2), weight, torch.tensor([0, 1])).mean().backward()
        >>> weight.grad[:, 0].tolist()
        [-0.25, -0.25, 0.0, 0.0]
    """

    paper: ClassVar[str] = "Yu et al. 2022, Rare Tokens Degenerate All Tokens, ACL, arXiv 2109.03127, Section 3"
    cures: ClassVar[str] = "nothing by itself; shows which part of the gradient bends the table"
    cost: ClassVar[str] = "1"
    identity: ClassVar[dict[str, Any] | None] = {"share": 0.0}
    citation: ClassVar[str] = """@inproceedings{yu2022rare,
  title = {Rare Tokens Degenerate All Tokens: Improving Neural Text Generation
           via Adaptive Gradient Gating for Rare Token Embeddings},
  author = {Yu, Sangwon and Song, Jongyoon and Kim, Heeseung and Lee, Seong-min and Ryu, Woo-Jong and Yoon, Sungroh},
  booktitle = {Proceedings of the 60th Annual Meeting of the Association for Computational Linguistics},
  year = {2022},
  note = {arXiv:2109.03127}
}"""

    def __init__(
        self,
        share: float = 0.2,
        parts: Literal["b", "c", "bc", "abc"] = "bc",
        counts: Any = None,
        until: int | None = None,
        collect: int = 200,
    ) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(
                f"share must lie in [0, 1], got {share}; 0.2 freezes the least frequent fifth of the types"
            )
        if parts not in ("b", "c", "bc", "abc"):
            raise ValueError(f"unknown parts {parts!r}; choose b, c, bc, or abc for the whole row")
        if collect < 1:
            raise ValueError(f"collect must be 1 or more steps, got {collect}; or pass counts")
        first = 0 if counts is not None else collect
        if until is not None and until <= first:
            raise ValueError(f"until must be above {first}, the steps before freezing begins, got {until}; raise it")
        self.share, self.parts, self.until, self.collect = share, parts, until, first
        self.steps = 0
        self.counted = RecentCounts(max(1, first))
        self._group: Tensor | None = None
        if counts is not None:
            given = torch.as_tensor(counts) if not isinstance(counts, str) else torch.zeros(())
            if given.dim() != 1 or given.is_floating_point() or bool((given < 0).any()):
                raise ValueError("counts must be whole numbers, one per token; from a command line use collect")
            self.counted.prepare(given.numel())
            self.counted.add(given.long())

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
        kept, one = (~rare).float(), torch.ones_like(rare, dtype=torch.float32)
        return Gate(rare, kept if "b" in self.parts else one, kept if "c" in self.parts else one)

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
        gate = self.gate() if self.parts == "abc" else None
        if gate is not None:
            # A gate never withholds a target's own pull, part (a); here the rows have no gradient to receive.
            weight = _Held.apply(weight, gate.rare)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            bias = None if bias is None else _Held.apply(bias, gate.rare)  # type: ignore[no-untyped-call]  # likewise
        return super().evaluate(hidden, weight, bias, tokens, engine=engine, request=request)

    def get_extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.steps, self._group = state["steps"], None


class _Held(torch.autograd.Function):
    """The same values; on the way back the rows of the mask receive zero."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rare: Tensor) -> Tensor:
        ctx.save_for_backward(rare)
        return table.view_as(table)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None]:
        (rare,) = ctx.saved_tensors
        return up.masked_fill(rare.view(-1, *[1] * (up.dim() - 1)), 0.0), None


class Rows:
    """Rows of a table that stay where they are, input and output side, against momentum and weight decay too.

    Args:
        table: the parameter, [V, H]; tied or not.
        ids: which rows; their present values are kept.

    Example:
        >>> table = torch.nn.Parameter(torch.ones(3, 2))
        >>> rows, optimizer = Rows(table, torch.tensor([2])), torch.optim.AdamW([table], lr=0.1)
        >>> table.sum().backward()
        >>> optimizer.step()
        >>> rows.restore(optimizer)
        >>> table[2].tolist(), bool((table[:2] < 1).all())
        ([1.0, 1.0], True)
    """

    def __init__(self, table: Float[Tensor, "V H"], ids: Int[Tensor, " M"]) -> None:
        self.table, self.ids = table, ids.to(table.device)
        self._kept = table.detach()[self.ids].clone()

    @torch.no_grad()
    def restore(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Puts the rows back and forgets what the optimiser remembers of them; call it after every `step()`."""
        self.table[self.ids] = self._kept
        state = {} if optimizer is None else optimizer.state.get(self.table, {})
        for value in state.values():
            if isinstance(value, Tensor) and value.dim() and value.size(0) == self.table.size(0):
                value[self.ids] = 0
