"""The spectrum of a table: how fast its singular values fall, and its rows seen in the main plane.

A degenerate table has one singular value far above the rest: a few directions carry everything (Yu et al. 2022, AGG,
Figure 3; Wang et al. 2020, "Improving Neural Language Generation with Spectrum Control").
"""

import torch
from jaxtyping import Float, Float64
from scipy.linalg import eigh
from torch import Tensor

from decone.metrics.inputs import require_table


def singular_decay(weight: Float[Tensor, "V H"]) -> Float64[Tensor, " R"]:
    """Compute the singular values of a table, not centred, relative to the largest.

    Args:
        weight: One row per token.

    Returns:
        min(V, H) falling values in [0, 1], the first of them 1.

    Raises:
        ValueError: If `weight` is not a finite, non-empty table, or all its entries are 0.

    Example:
        >>> singular_decay(torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 0.0]])).tolist()
        [1.0, 0.25]
    """
    require_table(weight)
    if not bool(weight.any()):
        raise ValueError("weight is all zeros and has no spectrum: pass a trained table")
    values: Tensor = torch.linalg.svdvals(weight.detach().double())
    return values / values[0]


def principal_plane(weight: Float[Tensor, "V H"], dimensions: int = 2) -> Float64[Tensor, "V D"]:
    """Project the centred rows of a table on their first principal components.

    The sign of a component is arbitrary; here its loading of largest magnitude (the first such) is positive, so that
    a plot does not flip between machines.

    Args:
        weight: One row per token.
        dimensions: Number of components, at most min(V, H).

    Returns:
        Coordinates of each row, of falling variance and mean 0.

    Raises:
        ValueError: If `weight` is not a finite, non-empty table, or `dimensions` is outside 1 to min(V, H).

    Example:
        >>> table = torch.tensor([[0.0, 0.0], [0.0, 4.0], [1.0, 2.0], [-1.0, 2.0]])
        >>> principal_plane(table).round(decimals=6).abs().tolist()
        [[2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    require_table(weight)
    if not 1 <= dimensions <= min(weight.shape):
        raise ValueError(
            f"dimensions must lie in 1 to {min(weight.shape)}, the smaller side of weight, not {dimensions}"
        )
    rows = weight.detach().double()
    centred = rows - rows.mean(0)
    loadings = torch.linalg.svd(centred, full_matrices=False).Vh[:dimensions]
    return centred @ _turned(loadings).T


def principal_axes(covariance: Float64[Tensor, "H H"], dimensions: int = 2) -> Float64[Tensor, "D H"]:
    """Find the first principal components of a table from the covariance of its rows, signed as in `principal_plane`.

    Args:
        covariance: Symmetric, up to any positive factor.
        dimensions: Number of components, at most H.

    Returns:
        Unit loadings of falling variance.

    Raises:
        ValueError: If `covariance` is not finite, or `dimensions` is outside 1 to H.

    Example:
        >>> principal_axes(torch.diag(torch.tensor([1.0, 9.0, 4.0]).double())).abs().round().tolist()
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    width = len(covariance)
    if not 1 <= dimensions <= width:
        raise ValueError(f"dimensions must lie in 1 to {width}, the width, not {dimensions}")
    if not bool(torch.isfinite(covariance).all()):
        raise ValueError("the covariance holds NaN or infinite entries: drop such rows first")
    # Only the pairs asked for: a third of the time of all of them.
    _, axes = eigh(covariance.cpu().numpy(), subset_by_index=[width - dimensions, width - 1])
    return _turned(torch.from_numpy(axes.T[::-1].copy()).to(covariance))


def _turned(loadings: Float64[Tensor, "D H"]) -> Float64[Tensor, "D H"]:
    leading = loadings.gather(1, loadings.abs().argmax(1, keepdim=True))
    return torch.where(leading < 0, -loadings, loadings)
