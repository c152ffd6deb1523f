"""Measures of GLUE against scipy and counting by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from decone.metrics.agreement import accuracy, correlations, f1, matthews


@pytest.mark.parametrize("seed", range(5))
def test_two_classes_are_counted_by_hand(seed: int) -> None:
    random = np.random.default_rng(seed)
    answers, labels = random.integers(0, 2, 50), random.integers(0, 2, 50)
    pairs = list(zip(answers.tolist(), labels.tolist(), strict=True))
    hits = sum(pair == (1, 1) for pair in pairs)
    precision, recall = hits / sum(answers.tolist()), hits / sum(labels.tolist())
    assert accuracy(answers, labels) == sum(a == b for a, b in pairs) / 50
    assert math.isclose(f1(answers, labels), 2 * precision * recall / (precision + recall))
    # Matthews' correlation is Pearson's of the two lists of zeros and ones.
    assert math.isclose(matthews(answers, labels), stats.pearsonr(answers, labels).statistic, abs_tol=1e-12)


def test_answers_that_say_nothing() -> None:
    none, some = np.zeros(4, dtype=np.int64), np.array([1, 0, 1, 1])
    assert matthews(none, some) == matthews(some, none) == f1(none, some) == f1(none, none) == 0.0
    assert accuracy(none, some) == 0.25
    assert correlations(np.full(4, 2.5), np.arange(4.0)) == (0.0, 0.0)


def test_correlations_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    answers = random.normal(size=200)
    scores = np.round(answers + random.normal(size=200))  # many are equal
    pearson, spearman = correlations(answers, scores)
    assert math.isclose(pearson, stats.pearsonr(answers, scores).statistic, abs_tol=1e-12)
    assert math.isclose(spearman, stats.spearmanr(answers, scores).statistic, abs_tol=1e-12)


def test_lists_that_do_not_fit_are_refused() -> None:
    for first, second in (([1, 0], [1]), ([], []), ([[1]], [[1]])):
        for measure in (accuracy, f1, matthews):
            with pytest.raises(ValueError, match="vectors of one length, not empty"):
                measure(np.array(first, dtype=np.int64), np.array(second, dtype=np.int64))
    with pytest.raises(ValueError, match=r"finite|NaN"):
        correlations(np.array([1.0, math.nan]), np.array([1.0, 2.0]))
