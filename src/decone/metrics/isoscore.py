"""IsoScore: how evenly the variance of a table is spread over its directions.

Rudman et al., "IsoScore: Measuring the Uniformity of Embedding Space Utilization" (Findings of ACL 2022).

The paper turns the rows to their principal components, takes the diagonal of the covariance there, scales it to length
sqrt(d), measures its distance to (1, ..., 1), divides that by sqrt(2 (d - sqrt(d))) (the isotropy defect) and maps it
to the share of evenly used dimensions, stretched to [0, 1]. With x the variances along the components all this comes to

    ((sum x)^2 / sum x^2 - 1) / (d - 1)

and both sums can be read off the covariance in any basis: its trace, and the sum of its squared entries.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from decone.metrics.inputs import require_table, row_blocks


def isoscore(weight: Float[Tensor, "V H"]) -> float:
    """Compute the IsoScore of a table. It does not depend on the table's scale or mean.

    Args:
        weight: One row per token.

    Returns:
        A number from 0 (all variance in one direction) to 1 (as much in each); see `isoscore_of` for its edges.

    Raises:
        ValueError: If `weight` is not a finite, non-empty table.

    Example:
        >>> isoscore(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        1.0
        >>> round(isoscore(torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])), 12)
        0.0
    """
    require_table(weight)
    mean = torch.stack([block.sum(0) for block in row_blocks(weight)]).sum(0) / len(weight)
    scatter = torch.zeros(weight.shape[1], weight.shape[1], dtype=torch.float64, device=weight.device)
    for block in row_blocks(weight):
        centred = block - mean
        scatter.addmm_(centred.T, centred)
    return isoscore_of(scatter)


def isoscore_of(covariance: Float64[Tensor, "H H"]) -> float:
    """Compute the IsoScore of rows with this covariance.

    Args:
        covariance: Symmetric, up to any positive factor.

    Returns:
        A number in [0, 1]. Rows that do not vary at all (a single one, for instance) score 0; where there is but one
        direction, rows that vary score 1.

    Raises:
        ValueError: If `covariance` is not finite.

    Example:
        >>> isoscore_of(torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)))
        0.5
    """
    if not bool(torch.isfinite(covariance).all()):
        raise ValueError("the covariance holds NaN or infinite entries: drop such rows first")
    largest = covariance.abs().max()
    if largest == 0:
        return 0.0
    if len(covariance) == 1:
        return 1.0
    scaled = covariance / largest
    even = scaled.trace().square() / scaled.square().sum()
    return float(((even - 1) / (len(covariance) - 1)).clamp(0.0, 1.0))
