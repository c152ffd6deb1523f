"""The geometry of a table the slow way, with NumPy: the whole table at once, and pairs one by one."""

import math

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def log_isotropy(rows: Rows) -> tuple[float, float]:
    """log I(W), raw and plus-minus."""
    _, axes = np.linalg.eigh(rows.T @ rows)
    ahead, behind = [], []
    for axis in axes.T:
        projection = rows @ axis
        turned = -projection if projection.sum() < 0 else projection
        ahead.append(log_sum(turned))
        behind.append(log_sum(-turned))
    return min(ahead) - max(ahead), min(ahead + behind) - max(ahead + behind)


def log_sum(exponents: Rows) -> float:
    """log of the sum of exp."""
    largest = float(exponents.max())
    return largest + math.log(np.exp(exponents - largest).sum())


def mean_cosine(rows: Rows, first: list[int], second: list[int]) -> float | None:
    length = np.linalg.norm(rows, axis=1)
    first, second = ([place for place in places if length[place] > 0] for places in (first, second))
    unit = rows / np.where(length > 0, length, 1.0)[:, None]
    cosine = unit[first] @ unit[second].T
    apart = np.array([[i != j for j in second] for i in first]).reshape(cosine.shape)
    return float(cosine[apart].mean()) if apart.any() else None


def effective_rank(rows: Rows) -> float:
    values = np.linalg.svd(rows, compute_uv=False)
    share = values[values > 1e-7 * values[0]] / values.sum()
    return math.exp(-sum(part * math.log(part) for part in share))


def isoscore(rows: Rows) -> float:
    variances = np.linalg.eigvalsh(np.atleast_2d(np.cov(rows.T, ddof=0)))
    return float((variances.sum() ** 2 / (variances**2).sum() - 1) / (len(variances) - 1))
