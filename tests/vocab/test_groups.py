"""Frequency groups against a sort in plain Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.vocab import frequency_groups


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
