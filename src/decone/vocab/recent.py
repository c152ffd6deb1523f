"""Occurrences of every token over the last optimiser steps: a running sum, and what each step added to it."""

from collections import deque
from typing import Any

import torch
from jaxtyping import Int, Int64
from torch import Tensor, distributed, nn


def step_counts(
    target: Int[Tensor, " N"], vocabulary: int, processes: distributed.ProcessGroup | None = None
) -> Int64[Tensor, " V"]:
    """Occurrences of each id among the targets of one optimiser step, over the processes that share it.

    Args:
        target: the counted targets that this process holds, each in [0, vocabulary).
        vocabulary: number of tokens, V.
        processes: the group that shares the step; None for all processes.

    Raises:
        ValueError: a target lies above the vocabulary.

    Example:
        >>> step_counts(torch.tensor([2, 0, 2]), 4).tolist()
        [1, 0, 2, 0]
    """
    counts = torch.bincount(target, minlength=vocabulary)
    if counts.numel() != vocabulary:
        raise ValueError(
            f"target {counts.numel() - 1} is outside the vocabulary of {vocabulary}; "
            "mark positions that do not count with ignore_index"
        )
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(counts, group=processes)
    return counts


class RecentCounts(nn.Module):
    """Sum of the counts of the last steps, which costs a vector and the distinct tokens of each step.

    The sum is a buffer; all of the state is saved and loaded exactly, also into an object that was not prepared yet.

    Args:
        window: steps that are remembered, >= 1.

    Example:
        >>> recent = RecentCounts(window=2)
        >>> recent.prepare(3)
        >>> for counts in ([1, 0, 0], [0, 2, 0], [0, 0, 3]):
        ...     recent.add(torch.tensor(counts))
        >>> recent.total.tolist(), len(recent)
        ([0, 2, 3], 2)
    """

    total: Tensor | None

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("total", None, persistent=False)  # saved by get_extra_state, with the steps it sums
        self._steps: deque[tuple[Tensor, Tensor]] = deque()  # ids and their counts

    def __len__(self) -> int:
        return len(self._steps)

    def prepare(self, vocabulary: int) -> None:
        """Makes the sum for a vocabulary; harmless when it is there, ValueError when it is of another size."""
        if self.total is None:
            self.total = torch.zeros(vocabulary, dtype=torch.int64)
        elif self.total.numel() != vocabulary:
            raise ValueError(
                f"the counters hold a vocabulary of {self.total.numel()}, the table has {vocabulary} rows; "
                "make a new objective for it"
            )

    def add(self, counts: Int64[Tensor, " V"]) -> None:
        """Adds a step and drops the one that leaves the window."""
        if self.total is None:
            raise ValueError("the vocabulary is not known yet; call prepare(vocabulary) before the first step")
        if self.total.device != counts.device:
            self.total = self.total.to(counts.device)
        ids = counts.nonzero().squeeze(1)
        self._steps.append((ids, counts[ids]))
        self.total += counts
        if len(self._steps) > self.window:
            past, gone = (part.to(counts.device) for part in self._steps.popleft())
            self.total.index_add_(0, past, -gone)

    def get_extra_state(self) -> dict[str, Any]:
        """The state as a few tensors and numbers; the steps one after another."""
        ids, counts = zip(*self._steps, strict=True) if self._steps else ((), ())
        return {
            "total": self.total,
            "lengths": [part.numel() for part in ids],
            "ids": torch.cat([part.cpu() for part in ids]) if ids else None,
            "counts": torch.cat([part.cpu() for part in counts]) if counts else None,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes over a saved state; ValueError if it is of another vocabulary or of a longer window."""
        if len(state["lengths"]) > self.window:
            raise ValueError(
                f"the saved counters remember {len(state['lengths'])} steps, the window is {self.window}; "
                "use the window they were saved with"
            )
        self._steps.clear()
        if state["total"] is None:
            self.total = None
            return
        self.prepare(state["total"].numel())
        assert self.total is not None
        self.total.copy_(state["total"])
        if state["lengths"]:
            parts = [state[name].to(self.total.device, copy=True).split(state["lengths"]) for name in ("ids", "counts")]
            self._steps.extend(zip(*parts, strict=True))
