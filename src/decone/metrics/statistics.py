"""Intervals over seeds, and agreement of a model's answers with labels: the measures of GLUE (Wang et al. 2018).

One run is an anecdote, several are a mean with an interval. Quantiles are those of `scipy.special`: exact where
`scipy.stats.binomtest` iterates to 1e-12, and imported in less than half the time of `scipy.stats`.

Measures raise ValueError unless both are vectors of one length and not empty. Classes are compared by scikit-learn,
which the extra `eval` brings. Spearman's correlation is our own because its bootstrap draws a thousand resamples at
once and leaves out those without a correlation, which `scipy.stats.bootstrap` cannot.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

RESAMPLES = 1000
BLOCK = 1 << 21  # ranks computed at once: 16 MiB in float64


@dataclass(frozen=True)
class Interval:
    """An estimate from `count` values and the interval around it, whose ends are NaN when they do not determine one."""

    mean: float
    low: float
    high: float
    count: int


def mean_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Estimates a mean with Student's t interval, mean -+ t * s / sqrt(n), s the sample standard deviation.

    The interval takes the values as draws from one bell curve, and covers the true mean with probability `level`.
    Where runs fall into two kinds, show each run and give the share of each kind by `share_interval`. The ends are NaN
    for a single value, and where one is infinite or NaN.

    Raises:
        ValueError: there are no values or the level is outside (0, 1).

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> interval.mean, round(interval.low, 3), round(interval.high, 3), interval.count
        (2.0, -0.484, 4.484, 3)
    """
    _require_level(level)
    sample = np.array(list(values), dtype=np.float64)
    if sample.size == 0:
        raise ValueError("there are no values to average: finish at least one run")
    with np.errstate(invalid="ignore", over="ignore"):  # an overflowed perplexity is a result, not a mishap
        mean = float(sample.mean())
        if sample.size == 1 or not math.isfinite(mean):
            return Interval(mean, math.nan, math.nan, sample.size)
        reach = float(stdtrit(sample.size - 1, (1 + level) / 2) * sample.std(ddof=1) / math.sqrt(sample.size))
    return Interval(mean, mean - reach, mean + reach, sample.size)


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float], level: float = 0.95) -> Interval:
    """Estimates the mean of value minus reference, each by seed, over the seeds in common, with Student's t interval.

    Pairing takes out what a seed does to both methods (data order, initial weights), so it sees smaller differences.

    Raises:
        ValueError: no seed is common or the level is outside (0, 1).

    Example:
        >>> paired_difference({1: 3.0, 2: 5.0, 7: 9.0}, {1: 2.0, 2: 4.0, 3: 0.0})
        Interval(mean=1.0, low=1.0, high=1.0, count=2)
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        raise ValueError(
            f"no common seed in {sorted(values)} and {sorted(reference)}: run both methods on the same seeds"
        )
    return mean_interval([values[seed] - reference[seed] for seed in seeds], level)


def share_interval(successes: int, count: int, level: float = 0.95) -> Interval:
    """Estimates the share of successes with the exact interval of Clopper and Pearson (Biometrika 1934).

    It covers the true share with at least the stated probability for any count, also at 0 and `count` successes.

    Raises:
        ValueError: `count` is below 1, `successes` is outside 0 to `count`, or the level is outside (0, 1).

    Example:
        >>> interval = share_interval(5, 5)
        >>> interval.mean, round(interval.low, 3), interval.high
        (1.0, 0.478, 1.0)
    """
    _require_level(level)
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"{successes} of {count} is no share: count at least one run, and no more successes than runs")
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, count - successes + 1, tail))
    high = 1.0 if successes == count else float(betaincinv(successes + 1, count - successes, 1 - tail))
    return Interval(successes / count, low, high, count)


def accuracy(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Share of answers that are the label.

    Example:
        >>> accuracy(np.array([1, 0, 1]), np.array([1, 1, 1]))
        0.6666666666666666
    """
    _require_pairs(answers, labels)
    return float((answers == labels).mean())


def f1(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Harmonic mean of precision and recall of class 1; 0 where no answer is rightly 1.

    Example:
        >>> f1(np.array([1, 1, 0]), np.array([1, 0, 1]))
        0.5
    """
    _require_pairs(answers, labels)
    return float(_sklearn_metrics().f1_score(labels, answers, zero_division=0))


def matthews(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Matthews' correlation of two classes, in [-1, 1]; 0 where all answers or all labels are one class.

    Example:
        >>> round(matthews(np.array([1, 1, 0, 0]), np.array([1, 1, 0, 1])), 6)
        0.57735
    """
    _require_pairs(answers, labels)
    return float(_sklearn_metrics().matthews_corrcoef(labels, answers))


def correlations(answers: NDArray[np.float64], scores: NDArray[np.float64]) -> tuple[float, float]:
    """Pearson's and Spearman's correlation; 0 where all answers or all scores are equal, as a model that says nothing.

    Raises:
        ValueError: a number is not finite.

    Example:
        >>> pearson, spearman = correlations(np.array([1.0, 2.0, 5.0]), np.array([2.0, 4.0, 10.0]))
        >>> round(pearson, 6), spearman
        (1.0, 1.0)
    """
    from scipy.stats import pearsonr

    _require_pairs(answers, scores)
    ranks = spearman(answers.astype(np.float64), scores.astype(np.float64))
    return (0.0, 0.0) if ranks is None else (float(pearsonr(answers, scores).statistic), ranks)


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Correlates the ranks of two lists; equal values share their mean rank.

    None for fewer than two pairs, or where all values of a list are equal.

    Raises:
        ValueError: the lists are not vectors of one length, or hold NaN or infinity.

    Example:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
        0.5
    """
    _require_numbers(first, second)
    (value,) = _rank_correlations(first[None], second[None])
    return None if np.isnan(value) else float(value)


def spearman_interval(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Computes an interval of Spearman's correlation by resampling the pairs with replacement (percentile bootstrap).

    A share `level` of the resampled correlations lies inside. Resamples in which all values of a list are equal have
    no correlation and are left out; None where `spearman` is.

    Raises:
        ValueError: as of `spearman`, or level or resamples is out of range.

    Example:
        >>> values = np.arange(30.0)
        >>> spearman_interval(values, values)
        (1.0, 1.0)
    """
    _require_numbers(first, second)
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must lie between 0 and 1 and resamples be 1 or more, not {level} and {resamples}")
    if spearman(first, second) is None:
        return None
    random = np.random.default_rng(seed)
    blocks = []
    step = max(1, BLOCK // len(first))
    for begin in range(0, resamples, step):
        pairs = random.integers(0, len(first), size=(min(step, resamples - begin), len(first)))
        blocks.append(_rank_correlations(first[pairs], second[pairs]))
    values = np.concatenate(blocks)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _rank_correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's correlation of each row of two matrices; NaN where a row is constant."""
    from scipy.stats import rankdata

    if first.shape[1] < 2:
        return np.full(len(first), np.nan)
    # Ranks are halves of whole numbers around an exact mean, so a constant row has a spread of exactly zero.
    a, b = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (first, second))
    spread = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    with np.errstate(invalid="ignore"):
        values: NDArray[np.float64] = np.clip((a * b).sum(1) / spread, -1.0, 1.0)
    return values


def _sklearn_metrics() -> Any:
    try:
        import sklearn.metrics
    except ImportError:
        raise ValueError('GLUE needs the package scikit-learn: pip install "decone[eval]"') from None
    return sklearn.metrics


def _require_pairs(answers: NDArray[np.generic], labels: NDArray[np.generic]) -> None:
    if answers.ndim != 1 or answers.shape != labels.shape or not len(answers):
        raise ValueError(f"answers {answers.shape} and labels {labels.shape} must be vectors of one length, not empty")


def _require_numbers(first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"the lists have shapes {first.shape} and {second.shape}; pass two vectors of one length")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("the lists hold NaN or infinity; drop those pairs first")


def _require_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}: 0.95 for a 95 % interval")
