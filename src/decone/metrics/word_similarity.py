"""How well cosines of words agree with human judgements: Spearman's rank correlation with a bootstrap interval."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

RESAMPLES = 1000
BLOCK = 1 << 21  # ranks made at once: 16 MiB in float64


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Correlates the ranks of two lists; equal values share their mean rank.

    Args:
        first: numbers, [P], finite.
        second: numbers in the same order, [P], finite.

    Returns:
        A correlation in [-1, 1]; None for fewer than two pairs, or where all values of a list are equal.

    Raises:
        ValueError: the lists are not vectors of one length, or hold NaN or infinity.

    Example:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
        0.5
    """
    _check(first, second)
    (value,) = _correlations(first[None], second[None])
    return None if np.isnan(value) else float(value)


def spearman_interval(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Finds an interval of Spearman's correlation by drawing the pairs again, with replacement (percentile bootstrap).

    Resamples in which all values of a list are equal have no correlation and are left out.

    Args:
        first: numbers, [P], finite.
        second: numbers in the same order, [P], finite.
        level: share of the resampled correlations inside, in (0, 1).
        resamples: how many draws, >= 1.
        seed: equal seeds draw equal pairs.

    Returns:
        Lower and upper end, each in [-1, 1]; None where `spearman` is None.

    Raises:
        ValueError: as of `spearman`, or level or resamples is out of range.

    Example:
        >>> values = np.arange(30.0)
        >>> spearman_interval(values, values)
        (1.0, 1.0)
    """
    _check(first, second)
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must lie between 0 and 1 and resamples be 1 or more, not {level} and {resamples}")
    if spearman(first, second) is None:
        return None
    random = np.random.default_rng(seed)
    found = []
    step = max(1, BLOCK // len(first))
    for begin in range(0, resamples, step):
        drawn = random.integers(0, len(first), size=(min(step, resamples - begin), len(first)))
        found.append(_correlations(first[drawn], second[drawn]))
    values = np.concatenate(found)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's correlation of each row of two matrices; NaN where a row is constant."""
    if first.shape[1] < 2:
        return np.full(len(first), np.nan)
    # Ranks are halves of whole numbers around an exact mean, so a constant row has a spread of exactly zero.
    a, b = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (first, second))
    spread = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = np.clip((a * b).sum(1) / spread, -1.0, 1.0)
    return found


def _check(first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"the lists have shapes {first.shape} and {second.shape}; pass two vectors of one length")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("the lists hold NaN or infinity; drop those pairs first")
