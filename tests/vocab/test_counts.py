"""Token counts against a Counter."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.vocab import count_tokens


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
