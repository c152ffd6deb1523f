"""Token counts, over a text or over the last optimiser steps, and the split of the vocabulary by frequency."""

import itertools
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int, Int64, Integer
from torch import Tensor, distributed, nn

GROUPS = ("frequent", "medium", "rare")


def count_tokens(ids: Integer[Tensor, "..."], size: int) -> Int64[Tensor, " V"]:
    """Count every token id of a text, zeros included.

    Args:
        ids: Token ids in any shape, each in [0, size).
        size: Number of tokens in the vocabulary, V.

    Returns:
        Occurrences per id, on the device of `ids`.

    Raises:
        ValueError: If `ids` are not integers, or an id (such as an ignored -100) lies outside the vocabulary.

    Example:
        >>> count_tokens(torch.tensor([[0, 2], [2, 2]]), size=4).tolist()
        [1, 0, 3, 0]
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}: pass the number of tokens in the vocabulary")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"ids must be integers, not {ids.dtype}: pass token ids")
    flat = ids.reshape(-1).long()
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= size):
        raise ValueError(
            f"ids run from {int(flat.min())} to {int(flat.max())} but the vocabulary is 0 to {size - 1}: "
            "drop ignored positions first, or pass the size of the tokenizer's vocabulary"
        )
    return torch.bincount(flat, minlength=size)


def frequency_groups(
    counts: Integer[Tensor, " V"], shares: tuple[float, float, float] = (0.3, 0.5, 0.2)
) -> dict[str, Int64[Tensor, " M"]]:
    """Split the vocabulary's types into frequent, medium and rare by rank of their count.

    Ranks run by falling count, equal counts by rising id. A group is a half-open range of ranks whose borders are the
    cumulative shares times V, rounded (halves to even); the shares are of types, not of occurrences. A group may be
    empty when V is small. The 30/50/20 split is that of Yu et al. 2022 (AGG), section 3.

    Args:
        counts: Occurrences per token id.
        shares: Share of the types in each group, summing to 1.

    Returns:
        Rising token ids under "frequent", "medium" and "rare"; together every id exactly once.

    Raises:
        ValueError: If `counts` is not a vector, or the shares are not three non-negative numbers that sum to 1.

    Example:
        >>> groups = frequency_groups(torch.tensor([5, 0, 9, 1, 1, 1, 0, 2, 0, 3]))
        >>> {name: ids.tolist() for name, ids in groups.items()}
        {'frequent': [0, 2, 9], 'medium': [1, 3, 4, 5, 7], 'rare': [6, 8]}
    """
    if counts.ndim != 1:
        raise ValueError(f"counts must have one entry per token, not shape {tuple(counts.shape)}")
    if len(shares) != len(GROUPS) or not all(share >= 0 for share in shares) or not math.isclose(sum(shares), 1.0):
        raise ValueError(f"shares must be three non-negative numbers that sum to 1, not {shares}")
    size = counts.numel()
    ranked = torch.sort(counts, descending=True, stable=True).indices
    inner = [round(math.fsum(shares[:end]) * size) for end in (1, 2)]
    borders = itertools.pairwise([0, *inner, size])
    return {name: ranked[low:high].sort().values for name, (low, high) in zip(GROUPS, borders, strict=True)}


def count_lines(counts: Integer[Tensor, " V"], tokens: Sequence[str] | None = None) -> str:
    r"""The file of counts that every `--counts` reads: lines of a token, or its id, a tab and its count.

    Args:
        counts: Occurrences per token id; those that do not occur are left out.
        tokens: Token of each id; None for ids.

    Example:
        >>> count_lines(torch.tensor([3, 0, 7]))
        '0\t3\n2\t7\n'
    """
    ids = counts.nonzero().flatten().tolist()
    return "".join(f"{id if tokens is None else tokens[id]}\t{int(counts[id])}\n" for id in ids)


def step_counts(
    target: Int[Tensor, " N"], vocabulary: int, processes: distributed.ProcessGroup | None = None
) -> Int64[Tensor, " V"]:
    """Count the targets of one optimiser step, over the processes that share it.

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
    """Sum of the counts of the last optimiser steps; costs a vector and the distinct tokens of each step.

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
            old_ids, old_counts = (values.to(counts.device) for values in self._steps.popleft())
            self.total.index_add_(0, old_ids, -old_counts)

    def get_extra_state(self) -> Int64[Tensor, " S"]:
        """The state as one tensor: V or 0, the number of steps, the tokens of each, all their ids, all their counts."""
        steps = [(ids.cpu(), counts.cpu()) for ids, counts in self._steps]
        size = 0 if self.total is None else self.total.numel()
        sizes = torch.tensor([size, len(steps), *(ids.numel() for ids, _ in steps)])
        return torch.cat((sizes, *(ids for ids, _ in steps), *(counts for _, counts in steps)))

    def set_extra_state(self, state: Int64[Tensor, " S"] | dict[str, Any]) -> None:
        """Takes over a saved state; earlier versions saved a dict.

        Raises:
            ValueError: it is of another vocabulary or of a longer window.
        """
        if isinstance(state, dict):
            size, lengths = 0 if state["total"] is None else state["total"].numel(), state["lengths"]
            saved = torch.stack((state["ids"], state["counts"])) if lengths else torch.zeros(2, 0, dtype=torch.int64)
        else:
            size, steps = state[:2].tolist()
            lengths, saved = state[2 : 2 + steps].tolist(), state[2 + steps :].view(2, -1)
        if len(lengths) > self.window:
            raise ValueError(
                f"the saved counters remember {len(lengths)} steps, the window is {self.window}; "
                "use the window they were saved with"
            )
        self._steps.clear()
        if not size:
            self.total = None
            return
        self.prepare(size)
        assert self.total is not None
        ids, counts = saved.to(self.total.device, copy=True)
        self._steps.extend(zip(ids.split(lengths), counts.split(lengths), strict=True))
        self.total.zero_().index_add_(0, ids, counts)
