"""Counts of tokens and words against sets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.metrics.variety import uniq, uniq_words, used_tokens


@given(st.lists(st.integers(0, 9), max_size=40), st.lists(st.integers(0, 2), min_size=10, max_size=10))
def test_uniq_matches_sets(ids: list[int], label: list[int]) -> None:
    tensor = torch.tensor(ids, dtype=torch.long)
    assert used_tokens(tensor, 10).nonzero().flatten().tolist() == sorted(set(ids))
    expected = [len({index for index in ids if label[index] == group}) for group in range(3)]
    assert uniq(tensor, torch.tensor(label), groups=3) == expected
    assert sum(expected) == len(set(ids))


@pytest.mark.parametrize("ids", [[-1], [10]])
def test_ids_outside_the_vocabulary_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="the vocabulary is 0 to 9"):
        used_tokens(torch.tensor(ids), 10)


@given(st.lists(st.text(alphabet="ab \n", max_size=12), max_size=5))
def test_uniq_words_matches_a_loop(texts: list[str]) -> None:
    seen: list[str] = []
    for text in texts:
        word = ""
        for character in text + " ":
            if character == " ":
                if word not in seen:
                    seen.append(word)
                word = ""
            else:
                word += character
    assert uniq_words(texts) == len(seen)
