"""How well a model's answers agree with the labels of a task: the measures of GLUE (Wang et al. 2018)."""

import math

import numpy as np
from numpy.typing import NDArray

from decone.metrics.word_similarity import spearman


def accuracy(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Share of answers that are the label.

    Args:
        answers: classes, [N].
        labels: classes, [N].

    Raises:
        ValueError: the two are not vectors of one length, or are empty.

    Example:
        >>> accuracy(np.array([1, 0, 1]), np.array([1, 1, 1]))
        0.6666666666666666
    """
    _check(answers, labels)
    return float((answers == labels).mean())


def f1(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Harmonic mean of precision and recall of class 1; 0 where no answer is rightly 1.

    Args:
        answers: 0 or 1, [N].
        labels: 0 or 1, [N].

    Raises:
        ValueError: as `accuracy`.

    Example:
        >>> f1(np.array([1, 1, 0]), np.array([1, 0, 1]))
        0.5
    """
    _check(answers, labels)
    right = int(((answers == 1) & (labels == 1)).sum())
    return 2 * right / (int((answers == 1).sum()) + int((labels == 1).sum())) if right else 0.0


def matthews(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Matthews' correlation of two classes, in [-1, 1]; 0 where all answers or all labels are one class.

    Args:
        answers: 0 or 1, [N].
        labels: 0 or 1, [N].

    Raises:
        ValueError: as `accuracy`.

    Example:
        >>> matthews(np.array([1, 1, 0, 0]), np.array([1, 1, 0, 1]))
        0.5773502691896258
    """
    _check(answers, labels)
    both = int(((answers == 1) & (labels == 1)).sum())
    neither = int(((answers == 0) & (labels == 0)).sum())
    over = int(((answers == 1) & (labels == 0)).sum())
    under = int(((answers == 0) & (labels == 1)).sum())
    product = (both + over) * (both + under) * (neither + over) * (neither + under)
    return (both * neither - over * under) / math.sqrt(product) if product else 0.0


def correlations(answers: NDArray[np.float64], scores: NDArray[np.float64]) -> tuple[float, float]:
    """Pearson's and Spearman's correlation; 0 where all answers or all scores are equal, as a model that says nothing.

    Args:
        answers: numbers, [N], finite.
        scores: numbers, [N], finite.

    Raises:
        ValueError: as `accuracy`, or a number is not finite.

    Example:
        >>> correlations(np.array([1.0, 2.0, 5.0]), np.array([2.0, 4.0, 10.0]))
        (1.0, 1.0)
    """
    _check(answers, scores)
    ranks = spearman(answers.astype(np.float64), scores.astype(np.float64))
    if ranks is None:
        return 0.0, 0.0
    first, second = answers - answers.mean(), scores - scores.mean()
    length = math.sqrt(float(first @ first) * float(second @ second))
    return (float(first @ second) / length if length else 0.0), ranks


def _check(answers: NDArray[np.generic], labels: NDArray[np.generic]) -> None:
    if answers.ndim != 1 or answers.shape != labels.shape or not len(answers):
        raise ValueError(f"answers {answers.shape} and labels {labels.shape} must be vectors of one length, not empty")
