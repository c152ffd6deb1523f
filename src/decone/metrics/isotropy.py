"""Isotropy I(W) of a table of embeddings: 1 when it looks alike in every direction, near 0 when it is a cone.

I(W) = min_a Z(a) / max_a Z(a), with Z(a) = sum_i exp(w_i . a) and a over the unit eigenvectors of W^T W, not centred
(Mu and Viswanath 2018, section 2; Arora et al. 2016). An eigenvector has no sign of its own, yet Z(a) and Z(-a) differ
widely on a cone, so a value without its sign rule cannot be compared with another: both rules are reported.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from decone.metrics.inputs import require_table, row_blocks


class Isotropy(NamedTuple):
    """I(W) under the two rules for the sign of an eigenvector, each in [0, 1], `raw` never below `plus_minus`.

    Attributes:
        raw: Each eigenvector once, turned so that the rows' mean projection on it is not negative; closest to papers.
        plus_minus: Each eigenvector in both directions, so that no sign has to be chosen.
    """

    raw: float
    plus_minus: float


def isotropy(weight: Float[Tensor, "V H"]) -> Isotropy:
    """Measure how evenly the rows of a table fill the directions of their space.

    The value depends on the scale of the table (a larger one is less isotropic), so compare tables as they are used.
    For a group of tokens pass its rows alone: they have their own eigenvectors. Work is float64 and in log space.

    Args:
        weight: One row per token, any floating dtype.

    Returns:
        I(W) under both sign rules; 0.0 where the true value is below the smallest float64.

    Raises:
        ValueError: If `weight` is not a finite, non-empty table.

    Example:
        >>> value = isotropy(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        >>> round(value.raw, 6), round(value.plus_minus, 6)
        (1.0, 1.0)
    """
    require_table(weight)
    size, width = weight.shape
    if size < width:
        return _few(weight.detach().double())
    gram = torch.zeros(width, width, dtype=torch.float64, device=weight.device)
    total = torch.zeros(width, dtype=torch.float64, device=weight.device)
    for block in row_blocks(weight):
        gram.addmm_(block.T, block)
        total += block.sum(0)
    _, axes = signed_axes(gram, total)
    return from_log_partition(_over_blocks(weight, axes))


def signed_axes(
    gram: Float64[Tensor, "H H"], total: Float64[Tensor, " H"]
) -> tuple[Float64[Tensor, " H"], Float64[Tensor, "H H"]]:
    """Find the unit eigenvectors of W^T W, each turned so that the rows' mean projection on it is not negative.

    Args:
        gram: W^T W.
        total: Sum of the rows.

    Returns:
        The rising eigenvalues, and one eigenvector per column.

    Example:
        >>> weight = torch.diag(torch.tensor([-1.0, 2.0], dtype=torch.float64))
        >>> values, axes = signed_axes(weight.T @ weight, weight.sum(0))
        >>> values.tolist(), axes.sum(0).tolist()
        ([1.0, 4.0], [-1.0, 1.0])
    """
    values, axes = torch.linalg.eigh(gram)
    return values, _turned(axes, total)


def log_partition(projections: Float[Tensor, "n A"]) -> Float64[Tensor, "2 A"]:
    """Sum exp(w . a) and exp(-w . a) over some rows; sums of several such parts join by `torch.logaddexp`.

    Args:
        projections: Rows times axes, float32 or float64, in whose precision the terms are added.

    Returns:
        log Z(a) and log Z(-a) of each axis.

    Example:
        >>> log_partition(torch.zeros(3, 1, dtype=torch.float64)).exp().tolist()
        [[3.0000000000000004], [3.0000000000000004]]
    """
    low, high = torch.aminmax(projections)
    reach = 600.0 if projections.dtype == torch.float64 else 60.0  # exp and its sum stay far inside the dtype
    if -reach < low and high < reach:
        terms = projections.exp()
        ahead = terms.sum(0)
        return torch.stack((ahead, terms.reciprocal_().sum(0))).double().log()
    return torch.stack((torch.logsumexp(projections, 0), torch.logsumexp(-projections, 0))).double()


def from_log_partition(logs: Float64[Tensor, "2 A"]) -> Isotropy:
    """Compare the axes of a table.

    Args:
        logs: log Z(a) and log Z(-a) over all rows, for the axes of `signed_axes`.

    Example:
        >>> from_log_partition(torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64))
        Isotropy(raw=1.0, plus_minus=0.36787944117144233)
    """
    return Isotropy(raw=_ratio(logs[0]), plus_minus=_ratio(logs))


def _few(rows: Float64[Tensor, "V H"]) -> Isotropy:
    """Fewer rows than directions: on every direction that they leave free, Z is their number."""
    axes = _turned(torch.linalg.svd(rows, full_matrices=False).Vh.T, rows.sum(0))
    free = torch.full((2, 1), math.log(len(rows)), dtype=torch.float64, device=rows.device)
    return from_log_partition(torch.cat((_over_blocks(rows, axes), free), dim=1))


def _turned(axes: Float64[Tensor, "H A"], total: Float64[Tensor, " H"]) -> Float64[Tensor, "H A"]:
    return torch.where(total @ axes < 0, -axes, axes)


def _over_blocks(weight: Float[Tensor, "V H"], axes: Float64[Tensor, "H A"]) -> Float64[Tensor, "2 A"]:
    return torch.logsumexp(torch.stack([log_partition(block @ axes) for block in row_blocks(weight)]), dim=0)


def _ratio(logs: Float64[Tensor, "*A"]) -> float:
    return float(torch.exp(logs.min() - logs.max()))
