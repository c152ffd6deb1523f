"""Isotropy I(W) of a table of embeddings: 1 when it looks alike in every direction, near 0 when it is a cone.

I(W) = min_a Z(a) / max_a Z(a), with Z(a) = sum_i exp(w_i . a) and a over the unit eigenvectors of W^T W, not centred
(Mu and Viswanath 2018, section 2; Arora et al. 2016). An eigenvector has no sign of its own, yet Z(a) and Z(-a) differ
widely on a cone, so a value without its sign rule cannot be compared with another: both rules are reported.
"""

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
    gram = torch.zeros(width, width, dtype=torch.float64, device=weight.device)
    total = torch.zeros(width, dtype=torch.float64, device=weight.device)
    for block in row_blocks(weight):
        gram.addmm_(block.T, block)
        total += block.sum(0)
    axes = torch.linalg.eigh(gram).eigenvectors
    axes = torch.where((total / size) @ axes < 0, -axes, axes)
    ahead, behind = _log_partition(weight, axes), _log_partition(weight, -axes)
    return Isotropy(raw=_ratio(ahead), plus_minus=_ratio(torch.cat((ahead, behind))))


def _log_partition(weight: Float[Tensor, "V H"], axes: Float64[Tensor, "H A"]) -> Float64[Tensor, " A"]:
    parts = [torch.logsumexp(block @ axes, dim=0) for block in row_blocks(weight)]
    return torch.logsumexp(torch.stack(parts), dim=0)


def _ratio(log_partition: Float64[Tensor, " A"]) -> float:
    return float(torch.exp(log_partition.min() - log_partition.max()))
