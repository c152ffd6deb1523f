"""Repetition, variety and ROUGE against loops and the definitions."""

import sys
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.metrics.generation import (
    repeat_distance,
    repeated_ngrams,
    repetition,
    rouge,
    uniq,
    uniq_words,
    used_tokens,
    words,
)

BLOCKS = st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 7), st.integers(0, 10**6))


def drawn(blocks: int, length: int, vocabulary: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randint(vocabulary, (2, blocks, length), generator=generator)
    return prediction, target


@settings(max_examples=100)
@given(BLOCKS, st.integers(1, 40))
def test_rep_matches_loops(shape: tuple[int, int, int, int], window: int) -> None:
    prediction, target = drawn(*shape)
    hits = sum(
        guess in row[max(0, place - window) : place]
        for guesses, row in zip(prediction.tolist(), target.tolist(), strict=True)
        for place, guess in enumerate(guesses)
    )
    assert repetition(repeat_distance(prediction, target), window) == hits / target.numel()


@settings(max_examples=50)
@given(BLOCKS)
def test_distances_match_loops(shape: tuple[int, int, int, int]) -> None:
    prediction, target = drawn(*shape)
    expected = []
    for guesses, row in zip(prediction.tolist(), target.tolist(), strict=True):
        for place, guess in enumerate(guesses):
            expected.append(next((back for back in range(1, place + 1) if row[place - back] == guess), 0))
    assert repeat_distance(prediction, target).flatten().tolist() == expected


def test_a_window_begins_with_its_block_and_early_positions_count() -> None:
    target = torch.tensor([[1, 2, 3, 4], [5, 5, 5, 5]])
    prediction = torch.tensor([[1, 1, 1, 1], [4, 4, 4, 5]])  # 4 stood in the other block only
    assert repeat_distance(prediction, target).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert repetition(repeat_distance(prediction, target), 2) == 3 / 8


def test_the_human_reference_is_the_text_itself() -> None:
    target = torch.tensor([[3, 1, 3, 3]])
    assert repeat_distance(target, target).tolist() == [[0, 0, 2, 1]]


def test_large_ids_of_any_integer_type_do_not_overflow() -> None:
    prediction = torch.full((2, 1000), 250_000, dtype=torch.int32)
    target = torch.zeros(2, 1000, dtype=torch.int32)
    target[1, 0] = 250_000
    found = repeat_distance(prediction, target)
    assert found[0].tolist() == [0] * 1000
    assert found[1].tolist() == list(range(1000))


def test_an_empty_text_has_no_repeats_and_no_rate() -> None:
    empty = torch.zeros(0, 5, dtype=torch.long)
    assert repeat_distance(empty, empty).shape == (0, 5)
    with pytest.raises(ValueError, match="give positions"):
        repetition(repeat_distance(empty, empty), 16)
    with pytest.raises(ValueError, match="length >= 1"):
        repetition(torch.tensor([1]), 0)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="a row per block"):
        repeat_distance(torch.zeros(2, 3, dtype=torch.long), torch.zeros(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="drop ignored positions"):
        repeat_distance(torch.tensor([[1]]), torch.tensor([[-100]]))


@settings(max_examples=80)
@given(st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=6), st.integers(1, 4))
def test_rep_n_matches_loops(sequences: list[list[int]], n: int) -> None:
    shares = []
    for sequence in sequences:
        seen: list[list[int]] = []
        total = 0
        for start in range(len(sequence)):
            gram = sequence[start : start + n]
            if len(gram) == n:
                total += 1
                if gram not in seen:
                    seen.append(gram)
        if total:
            shares.append(1 - len(seen) / total)
    expected = sum(shares) / len(shares) if shares else None
    assert repeated_ngrams(sequences, n) == (None if expected is None else pytest.approx(expected, abs=1e-12))


@pytest.mark.parametrize(
    ("sequence", "n", "expected"),
    [([7] * 100, 1, 0.99), ([7] * 100, 4, 1 - 1 / 97), (list(range(100)), 1, 0.0), ("abab", 2, 1 / 3), ([1], 2, None)],
)
def test_known_rates(sequence: Sequence[int], n: int, expected: float | None) -> None:
    assert repeated_ngrams([sequence], n) == (None if expected is None else pytest.approx(expected))


def test_an_n_gram_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one element"):
        repeated_ngrams([[1]], 0)


def test_words_are_those_of_any_script() -> None:
    assert words("Ça va?  日本 x_1\t-\n\n") == ["Ça", "va", "?", "日", "本", "x_1", "-", "\n", "\n"]
    assert words("ฮา 한국어 жил") == ["ฮ", "า", "한국어", "жил"]


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


def test_counted_by_hand() -> None:
    """The dog sat on the mat / the cat sat on a mat: words the, sat, on, mat are shared, once each.

    4 of 6 words on both sides; of 5 pairs of words only "sat on"; the longest common subsequence is "the sat on mat".
    """
    found = rouge(["The dog sat on the mat."], ["the cat sat on a mat"])
    assert found == pytest.approx({"rouge1": 4 / 6, "rouge2": 1 / 5, "rougeL": 4 / 6})


def test_lengths_order_and_stems_count() -> None:
    """Two of two words are right, two of four are found: F1 = 2 * 1 * 0.5 / 1.5; in the other order half of one."""
    found = rouge(["cats running"], ["the running cat sat"])
    assert found == pytest.approx({"rouge1": 2 / 3, "rouge2": 0, "rougeL": 2 * 0.5 * 0.25 / 0.75})


def test_it_is_a_mean_over_texts() -> None:
    assert rouge(["a b", "c"], ["a b", "d"]) == {"rouge1": 0.5, "rouge2": 0.5, "rougeL": 0.5}
    assert rouge([""], ["a b"]) == {"rouge1": 0, "rouge2": 0, "rougeL": 0}


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="1 answers for 2 texts; give one for each"):
        rouge(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="0 answers for 0 texts"):
        rouge([], [])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ValueError, match=r'ROUGE needs the package rouge-score: pip install "decone\[eval\]"'):
        rouge(["a"], ["a"])
