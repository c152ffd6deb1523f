"""Adaptive gradient gating: the rarer a row of the table lately, the less it is pushed; hidden states learn as ever.

Yu et al., "Rare Tokens Degenerate All Tokens", ACL 2022, arXiv 2109.03127, equations 5, 7, 8, 10. With a_k the
occurrences of token k among the targets of the last n optimiser steps, the present one included, and b the mean of a
over the rare group:

    k is rare  <=>  a_k / n < alpha
    dL/dw_k = sum over positions i with hidden state h_i:  g_ik (p_ik - [k = y_i]) h_i
    g_ik = a_k / n          k rare, y_i not rare
    g_ik = min(a_k / b, 1)  k rare, y_i rare
    g_ik = 1                k not rare, or k = y_i

The paper adds three cross-entropies in which terms are detached. Their values are equal and each parameter hears one
of them only, so one cross-entropy with the gradient above is the same, at half the value.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from decone.engines.contract import Gate, Tokens
from decone.files.foreign import quoted
from decone.objectives.base import Objective, require_choice, require_finite
from decone.objectives.label_smoothing import LabelSmoothing
from decone.vocab.counts import RecentCounts, step_counts

_EPSILON = 1e-7  # beside the mean over the rare group, as in the authors' code


class AGG(Objective):
    """Cross-entropy whose push on rare rows of the table is scaled down by how rare they have lately been.

    Args:
        alpha: border of the rare group in occurrences per optimiser step, >= 0; 0 is plain cross-entropy. It scales
            with the tokens per step: the paper's 0.03 belongs to 32 768 of them.
        window: optimiser steps that are remembered, K >= 1; the paper takes one epoch.
        alpha_frequency: replaces alpha by this relative frequency times the mean number of targets per step.
        g1: gate rare rows where the target is not rare (equation 7).
        g2: gate rare rows where the target is rare (equation 8).
        static_after: the rare group is fixed after this many optimiser steps (Table 9); None is dynamic.
        static_counts: with `static_after`, the occurrences are fixed too.
        special: ids that are never rare (padding, begin of text); as a string separated by commas, slashes or blanks.
        label_smoothing: share of the target spread over the vocabulary, in [0, 1); gates act on its pull too.
        micro_batches: "step" counts a whole optimiser step before its micro-batches are evaluated; "forward" lets
            every training call be a step, so that alpha and window are per micro-batch (the code of arXiv 2601.22439).

    Raises:
        ValueError: a setting is outside its range.

    Example:
        >>> objective = AGG(alpha=0.5)
        >>> weight = torch.zeros(4, 2, requires_grad=True)
        >>> objective(torch.ones(2, 2), weight, torch.tensor([0, 1])).mean().backward()
        >>> objective.rare().tolist(), weight.grad[2].tolist()
        ([False, False, True, True], [0.0, 0.0])
    """

    paper: ClassVar[str] = "Yu et al. 2022, Rare Tokens Degenerate All Tokens, ACL, arXiv 2109.03127, equations 5 to 10"
    cures: ClassVar[str] = "rare tokens pushed into a cone that bends the whole table"
    cost: ClassVar[str] = "1, and one count of the targets per step"
    identity: ClassVar[dict[str, Any] | None] = {"alpha": 0.0}
    citation: ClassVar[str] = """@inproceedings{yu2022rare,
  title = {Rare Tokens Degenerate All Tokens: Improving Neural Text Generation
           via Adaptive Gradient Gating for Rare Token Embeddings},
  author = {Yu, Sangwon and Song, Jongyoon and Kim, Heeseung and Lee, Seong-min and Ryu, Woo-Jong and Yoon, Sungroh},
  booktitle = {Proceedings of the 60th Annual Meeting of the Association for Computational Linguistics},
  year = {2022},
  note = {arXiv:2109.03127}
}"""

    frozen: Tensor | None

    def __init__(
        self,
        alpha: float = 0.03,
        window: int = 1600,
        alpha_frequency: float | None = None,
        g1: bool = True,
        g2: bool = True,
        static_after: int | None = None,
        static_counts: bool = True,
        special: Sequence[int] | str = (),
        label_smoothing: float = 0.0,
        micro_batches: Literal["step", "forward"] = "step",
    ) -> None:
        super().__init__()
        require_finite("alpha", alpha, "0 is plain cross-entropy")
        if window < 1:
            raise ValueError(f"window must be 1 or more optimiser steps, got {window}; one epoch is the paper's")
        if alpha_frequency is not None and not 0 <= alpha_frequency <= 1:
            raise ValueError(f"alpha_frequency must lie in [0, 1], got {alpha_frequency}; leave it out to use alpha")
        if static_after is not None and static_after < 1:
            raise ValueError(f"static_after must be 1 or more steps, got {static_after}; leave it out to stay dynamic")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}; 0 switches it off")
        require_choice("micro_batches", micro_batches, ("step", "forward"))
        self.alpha, self.alpha_frequency, self.g1, self.g2 = alpha, alpha_frequency, g1, g2
        self.static_after, self.static_counts = static_after, static_counts
        self.special = _ids(special)
        self.micro_batches = micro_batches
        self.smoothing = LabelSmoothing(label_smoothing)
        self.steps, self.frozen = 0, None
        self.recent = RecentCounts(window)

    @property
    def general(self) -> bool:
        return self.smoothing.general

    def prepare(self, vocabulary: int) -> None:
        if any(id >= vocabulary for id in self.special):
            raise ValueError(f"special {max(self.special)} is outside the vocabulary of {vocabulary}; correct it")
        self.recent.prepare(vocabulary)

    def observe(self, target: Int[Tensor, " N"]) -> None:
        if self.static_counts and self.static_after is not None and self.steps >= self.static_after:
            return
        self.recent.add(step_counts(target, self._total().numel(), self.processes))
        self.steps += 1
        if self.steps == self.static_after:
            self.frozen = self._group()

    @contextmanager
    def step(self, target: Int[Tensor, "..."], ignore_index: int = -100) -> Iterator[None]:
        if self.micro_batches == "forward":
            yield
            return
        with super().step(target, ignore_index):
            yield

    def rare(self) -> Bool[Tensor, " V"]:
        """The rare group after the last observed step, [V]; nothing is rare before the first."""
        return self._group() if self.frozen is None else self.frozen.to(self._total().device)

    def gate(self) -> Gate | None:
        if not len(self.recent) or (self.alpha_frequency is None and self.alpha == 0):
            return None
        rare = self.rare()
        if not bool(rare.any()):
            return None
        total = _real(self._total())
        full = torch.ones_like(total)
        # A gate lies in [0, 1]; with alpha above 1 a rare token can occur more than once per step.
        rate = (total / len(self.recent)).clamp(max=1)
        share = (total / ((total * rare).sum() / rare.sum() + _EPSILON)).clamp(max=1)
        return Gate(
            rare,
            torch.where(rare, rate, full) if self.g1 else full,
            torch.where(rare, share, full) if self.g2 else full,
        )

    def extra(self, logprob: Float[Tensor, "n V"], tokens: Tokens) -> Float[Tensor, " n"] | None:
        return self.smoothing.extra(logprob, tokens)

    def get_extra_state(self) -> Int64[Tensor, " S"]:
        """The steps, then the frozen group if there is one."""
        steps = torch.tensor([self.steps])
        return steps if self.frozen is None else torch.cat((steps, self.frozen.cpu().long()))

    def set_extra_state(self, state: Int64[Tensor, " S"] | dict[str, Any]) -> None:
        """Takes over a saved state; earlier versions saved a dict."""
        if isinstance(state, dict):
            self.steps, self.frozen = state["steps"], None if state["frozen"] is None else state["frozen"].clone()
        else:
            self.steps, self.frozen = int(state[0]), state[1:].bool() if len(state) > 1 else None

    def _total(self) -> Int64[Tensor, " V"]:
        if self.recent.total is None:
            raise ValueError("AGG does not know the vocabulary yet; call prepare(vocabulary) before the first step")
        return self.recent.total

    def _group(self) -> Bool[Tensor, " V"]:
        total, steps = self._total(), max(1, len(self.recent))
        border = self.alpha
        if self.alpha_frequency is not None:
            border = self.alpha_frequency * int(total.sum()) / steps
        rare = _real(total) / steps < border
        if self.special:
            rare[list(self.special)] = False
        return rare if len(self.recent) else torch.zeros_like(rare)


def _real(count: Tensor) -> Tensor:
    return count.to(torch.float32 if count.device.type == "mps" else torch.float64)


def _ids(special: Sequence[int] | str) -> tuple[int, ...]:
    words = re.split(r"[,/\s]+", special.strip()) if isinstance(special, str) else special
    try:
        ids = tuple(int(word) for word in words if word != "")
    except ValueError:
        ids = (-1,)
    if any(id < 0 for id in ids):
        raise ValueError(f"special must name token ids, 0 or more, got {quoted(special)}; for example 0/1/2/3")
    return ids
