"""Counts over the last steps against a plain deque; the objectives' tests add accumulation, resuming and processes."""

from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.vocab.recent import RecentCounts, step_counts


@given(
    steps=st.lists(st.lists(st.integers(0, 6), max_size=9), max_size=12),
    window=st.integers(1, 5),
    dtype=st.sampled_from([torch.int32, torch.int64]),
)
def test_the_sum_is_that_of_the_last_steps(steps: list[list[int]], window: int, dtype: torch.dtype) -> None:
    recent, kept = RecentCounts(window), deque(maxlen=window)
    recent.prepare(7)
    for step in steps:
        counts = step_counts(torch.tensor(step, dtype=dtype), 7)
        assert counts.tolist() == [step.count(k) for k in range(7)]
        recent.add(counts)
        kept.append(step)
        assert recent.total is not None
        assert recent.total.tolist() == [sum(old.count(k) for old in kept) for k in range(7)]
        assert len(recent) == len(kept)
    again = RecentCounts(window)
    again.load_state_dict(recent.state_dict())
    assert len(again) == len(recent)
    for _ in range(window):  # what leaves the window is what came in
        again.add(torch.zeros(7, dtype=torch.int64))
    assert again.total is not None
    assert not again.total.any()


def test_loading_does_not_share_memory() -> None:
    recent, other = RecentCounts(2), RecentCounts(2)
    recent.prepare(3)
    recent.add(torch.tensor([1, 0, 2]))
    state = recent.state_dict()
    other.load_state_dict(state)
    other.add(torch.tensor([5, 5, 5]))
    assert recent.total is not None
    assert recent.total.tolist() == [1, 0, 2]


def test_errors_name_the_mend() -> None:
    with pytest.raises(ValueError, match=r"call prepare\(vocabulary\)"):
        RecentCounts(1).add(torch.zeros(3, dtype=torch.int64))
    recent = RecentCounts(1)
    recent.prepare(3)
    with pytest.raises(ValueError, match="make a new objective"):
        recent.prepare(4)
    with pytest.raises(ValueError, match=r"target 3 is outside the vocabulary of 3.*ignore_index"):
        step_counts(torch.tensor([3]), 3)
