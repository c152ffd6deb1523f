"""ROUGE against counting by hand, and without the package."""

import sys

import pytest

from decone.metrics.rouge import rouge


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
