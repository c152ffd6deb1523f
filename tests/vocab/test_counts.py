"""Token counts against a Counter, frequency groups against a sort in plain Python, recent counts against a deque.

The objectives' tests add accumulation, resuming and processes.
"""

from collections import Counter, deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.vocab import count_tokens, frequency_groups
from decone.vocab.counts import RecentCounts, step_counts


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 11), max_size=40),
    st.integers(12, 30),
    st.sampled_from([torch.int64, torch.int32, torch.int16, torch.uint8]),
)
def test_counts_match_a_counter(ids: list[int], size: int, dtype: torch.dtype) -> None:
    counts = count_tokens(torch.tensor(ids, dtype=dtype), size)
    expected = Counter(ids)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [expected[token] for token in range(size)]


def test_any_shape_is_counted_whole() -> None:
    ids = torch.tensor([[[1, 1], [0, 2]], [[2, 2], [2, 1]]])
    assert count_tokens(ids, 3).tolist() == [1, 3, 4]
    assert count_tokens(ids.transpose(0, 2), 3).tolist() == [1, 3, 4]


def test_uint8_ids_beyond_a_larger_vocabulary_do_not_wrap() -> None:
    assert count_tokens(torch.tensor([255], dtype=torch.uint8), 300)[255] == 1


@pytest.mark.parametrize("ids", [[0, 3], [-1, 0], [-100]])
def test_ids_outside_the_vocabulary_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="vocabulary is 0 to 2"):
        count_tokens(torch.tensor(ids), 3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_ids_must_be_integers(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="must be integers"):
        count_tokens(torch.tensor([0, 1]).to(dtype), 3)


def test_the_vocabulary_must_not_be_empty() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        count_tokens(torch.tensor([], dtype=torch.long), 0)


@settings(max_examples=100)
@given(st.lists(st.integers(0, 4), max_size=60))
def test_groups_match_a_python_sort(counts: list[int]) -> None:
    groups = frequency_groups(torch.tensor(counts, dtype=torch.long))
    ranked = sorted(range(len(counts)), key=lambda token: (-counts[token], token))
    first, second = round(0.3 * len(counts)), round(0.8 * len(counts))
    assert list(groups) == ["frequent", "medium", "rare"]
    assert groups["frequent"].tolist() == sorted(ranked[:first])
    assert groups["medium"].tolist() == sorted(ranked[first:second])
    assert groups["rare"].tolist() == sorted(ranked[second:])


@settings(max_examples=60)
@given(st.integers(0, 200), st.floats(0, 1), st.floats(0, 1))
def test_every_id_is_in_exactly_one_group(size: int, first: float, second: float) -> None:
    low, high = sorted((first, second))
    groups = frequency_groups(torch.arange(size) % 7, shares=(low, high - low, 1 - high))
    assert sorted(torch.cat(list(groups.values())).tolist()) == list(range(size))
    assert len(groups["frequent"]) == round(low * size)


def test_the_agg_vocabulary_is_cut_near_the_published_borders() -> None:
    groups = frequency_groups(torch.arange(44256, 0, -1))
    assert [len(groups[name]) for name in ("frequent", "medium", "rare")] == [13277, 22128, 8851]


def test_all_counts_equal_split_by_id() -> None:
    groups = frequency_groups(torch.zeros(10, dtype=torch.long))
    assert {name: ids.tolist() for name, ids in groups.items()} == {
        "frequent": [0, 1, 2],
        "medium": [3, 4, 5, 6, 7],
        "rare": [8, 9],
    }


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shares", [(0.3, 0.5, 0.3), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5), (0.5, 0.5)])
def test_shares_that_are_no_split_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        frequency_groups(torch.arange(5), shares)


@pytest.mark.usefixtures("unchecked")
def test_counts_must_be_a_vector() -> None:
    with pytest.raises(ValueError, match="one entry per token"):
        frequency_groups(torch.zeros(2, 3, dtype=torch.long))


@given(
    steps=st.lists(st.lists(st.integers(0, 6), max_size=9), max_size=12),
    window=st.integers(1, 5),
    dtype=st.sampled_from([torch.int32, torch.int64]),
)
def test_the_sum_is_that_of_the_last_steps(steps: list[list[int]], window: int, dtype: torch.dtype) -> None:
    recent, window_steps = RecentCounts(window), deque(maxlen=window)
    recent.prepare(7)
    for step in steps:
        counts = step_counts(torch.tensor(step, dtype=dtype), 7)
        assert counts.tolist() == [step.count(k) for k in range(7)]
        recent.add(counts)
        window_steps.append(step)
        assert recent.total is not None
        assert recent.total.tolist() == [sum(old.count(k) for old in window_steps) for k in range(7)]
        assert len(recent) == len(window_steps)
    again = RecentCounts(window)
    again.load_state_dict(recent.state_dict())
    assert len(again) == len(recent)
    for _ in range(window):  # what leaves the window is what came in
        again.add(torch.zeros(7, dtype=torch.int64))
    assert again.total is not None
    assert not again.total.any()


def test_loading_does_not_share_memory() -> None:
    recent, copy = RecentCounts(2), RecentCounts(2)
    recent.prepare(3)
    recent.add(torch.tensor([1, 0, 2]))
    state = recent.state_dict()
    copy.load_state_dict(state)
    copy.add(torch.tensor([5, 5, 5]))
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
