"""Measures of GLUE and rank correlations against scipy, formulas by hand and a bootstrap in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from decone.metrics import statistics
from decone.metrics.statistics import accuracy, correlations, f1, matthews, spearman, spearman_interval


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


VALUES = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12)


def ranks(values: list[float]) -> list[float]:
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


def by_hand(first: list[float], second: list[float]) -> float | None:
    a, b = ranks(first), ranks(second)
    middle = (len(a) + 1) / 2
    spread = math.sqrt(sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b))
    return sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True)) / spread if spread else None


@given(VALUES)
def test_correlation_with_ties(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    value, expected = spearman(first, second), by_hand(list(first), list(second))
    assert value == (None if expected is None else pytest.approx(expected, abs=1e-12))
    if expected is not None:
        assert value == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)


def test_correlations_that_are_known() -> None:
    rising = np.arange(9.0)
    assert spearman(rising, np.exp(rising)) == 1.0
    assert spearman(rising, -rising) == -1.0
    assert spearman(rising, np.ones(9)) is None
    assert spearman_interval(rising, np.ones(9)) is None
    assert spearman(rising[:1], rising[:1]) is None
    assert spearman(rising[:0], rising[:0]) is None
    assert spearman_interval(rising[:0], rising[:0]) is None


def test_interval_is_that_of_a_plain_bootstrap() -> None:
    random = np.random.default_rng(5)
    first = random.integers(0, 6, 25).astype(np.float64)
    second = first + random.normal(size=25)
    low, high = spearman_interval(first, second, seed=3, resamples=200) or (0.0, 0.0)
    drawn = np.random.default_rng(3).integers(0, 25, size=(200, 25))
    values = [stats.spearmanr(first[row], second[row]).statistic for row in drawn]
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)
    assert low < (spearman(first, second) or 0.0) < high


def test_blocks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(2, 11))
    whole = spearman_interval(values[0], values[1], resamples=50)
    monkeypatch.setattr(statistics, "BLOCK", 7 * 11)
    assert spearman_interval(values[0], values[1], resamples=50) == whole


def test_seed_and_level_matter() -> None:
    values = np.random.default_rng(0).normal(size=(2, 40))
    wide = spearman_interval(values[0], values[1], seed=1)
    assert wide == spearman_interval(values[0], values[1], seed=1) != spearman_interval(values[0], values[1], seed=2)
    narrow = spearman_interval(values[0], values[1], level=0.5, seed=1)
    assert wide is not None
    assert narrow is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_constant_resamples_are_left_out() -> None:
    # Of two pairs half of the draws repeat one pair; all others agree perfectly.
    assert spearman_interval(np.array([1.0, 2.0]), np.array([3.0, 5.0])) == (1.0, 1.0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        spearman(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        spearman(np.array([1.0, np.nan]), np.ones(2))
    for settings in ({"level": 1.0}, {"resamples": 0}):
        with pytest.raises(ValueError, match="level must lie"):
            spearman_interval(np.arange(3.0), np.arange(3.0), **settings)
