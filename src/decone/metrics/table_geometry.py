"""Geometry of a table of embeddings: isotropy, spectrum, cosines between groups of rows, lengths of rows.

Functions of a weight [V, H], one row per token, read it in float64, a block of rows at a time, and raise ValueError
where it is empty or not finite. Each rests on a closed form of sums over rows (`signed_axes`, `isoscore_of`,
`cosine_of_sums`, ...), from which `table_survey` computes the same numbers of a table that is read from disk. Lengths
go by frequency rank because frequent and rare rows tend to differ in them.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

from decone.files.foreign import quoted

BLOCK = 1 << 22  # entries converted at once: 32 MiB in float64
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)


class Isotropy(NamedTuple):
    """I(W) under the two rules for the sign of an eigenvector, each in [0, 1], `raw` never below `plus_minus`.

    Attributes:
        raw: each eigenvector once, turned so that the rows' mean projection on it is not negative; closest to papers.
        plus_minus: each eigenvector in both directions, so that no sign has to be chosen.
    """

    raw: float
    plus_minus: float


def row_blocks(matrix: Float[Tensor, "N V"]) -> Iterator[Float64[Tensor, "n V"]]:
    """Yields the rows of a matrix in order, in float64, a block at a time, so that no full float64 copy is made.

    Example:
        >>> sum(block.sum().item() for block in row_blocks(torch.ones(5, 3)))
        15.0
    """
    rows = max(1, BLOCK // max(1, matrix.shape[1]))
    for block in torch.split(matrix.detach(), rows):
        yield block.double()


def require_table(weight: Float[Tensor, "V H"]) -> None:
    """Refuses anything but a finite table of embeddings.

    Raises:
        ValueError: `weight` is not 2-D and floating point, is empty, or holds NaN or infinity.

    Example:
        >>> require_table(torch.zeros(0, 3))
        Traceback (most recent call last):
        ValueError: weight of shape (0, 3) is empty: select at least one row
    """
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(
            f"weight must be a floating-point table [V, H], not {weight.dtype} of shape {tuple(weight.shape)}"
        )
    if weight.numel() == 0:
        raise ValueError(f"weight of shape {tuple(weight.shape)} is empty: select at least one row")
    if not all(bool(torch.isfinite(block).all()) for block in row_blocks(weight)):
        raise ValueError("weight holds NaN or infinite entries: drop those rows, or measure an earlier checkpoint")


def isotropy(weight: Float[Tensor, "V H"]) -> Isotropy:
    """Measures how evenly the rows of a table fill the directions of their space: 1 evenly, near 0 in a cone.

    I(W) = min_a Z(a) / max_a Z(a), with Z(a) = sum_i exp(w_i . a) and a over the unit eigenvectors of W^T W, not
    centred (Mu and Viswanath 2018, section 2; Arora et al. 2016). An eigenvector has no sign of its own, yet Z(a) and
    Z(-a) differ widely on a cone, so both sign rules are reported; 0.0 stands for what is below the smallest float64.

    The value depends on the scale of the table (a larger one is less isotropic), so compare tables as they are used.
    For a group of tokens pass its rows alone: they have their own eigenvectors.

    Example:
        >>> value = isotropy(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        >>> round(value.raw, 6), round(value.plus_minus, 6)
        (1.0, 1.0)
    """
    require_table(weight)
    size, width = weight.shape
    if size < width:
        # Fewer rows than directions: on every direction that they leave free, Z is their number.
        rows = weight.detach().double()
        axes = _turned(torch.linalg.svd(rows, full_matrices=False).Vh.T, rows.sum(0))
        free = torch.full((2, 1), math.log(size), dtype=torch.float64, device=rows.device)
        return from_log_partition(torch.cat((_log_partition_of(rows, axes), free), dim=1))
    gram = torch.zeros(width, width, dtype=torch.float64, device=weight.device)
    total = torch.zeros(width, dtype=torch.float64, device=weight.device)
    for block in row_blocks(weight):
        gram.addmm_(block.T, block)
        total += block.sum(0)
    return from_log_partition(_log_partition_of(weight, signed_axes(gram, total)[1]))


def signed_axes(
    gram: Float64[Tensor, "H H"], total: Float64[Tensor, " H"]
) -> tuple[Float64[Tensor, " H"], Float64[Tensor, "H H"]]:
    """Rising eigenvalues and unit eigenvectors of W^T W, one per column, from it and the sum of the rows.

    Each is turned so that the rows' mean projection on it is not negative.

    Example:
        >>> weight = torch.diag(torch.tensor([-1.0, 2.0], dtype=torch.float64))
        >>> values, axes = signed_axes(weight.T @ weight, weight.sum(0))
        >>> values.tolist(), axes.sum(0).tolist()
        ([1.0, 4.0], [-1.0, 1.0])
    """
    values, axes = torch.linalg.eigh(gram)
    return values, _turned(axes, total)


def log_partition(projections: Float[Tensor, "n A"]) -> Float64[Tensor, "2 A"]:
    """Computes log Z(a) and log Z(-a) of each axis over some rows, from projections in float32 or float64.

    Sums of several blocks of rows join by `torch.logaddexp`.

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
    """Computes I(W) from log Z(a) and log Z(-a) over all rows, for the axes of `signed_axes`.

    Example:
        >>> from_log_partition(torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64))
        Isotropy(raw=1.0, plus_minus=0.36787944117144233)
    """
    raw, plus_minus = (float(torch.exp(values.min() - values.max())) for values in (logs[0], logs))
    return Isotropy(raw, plus_minus)


def singular_decay(weight: Float[Tensor, "V H"]) -> Float64[Tensor, " R"]:
    """Computes the singular values of a table, not centred, relative to the largest: min(V, H) of them, falling from 1.

    A degenerate table has one far above the rest: a few directions carry everything (Yu et al. 2022, AGG, Figure 3;
    Wang et al. 2020, "Improving Neural Language Generation with Spectrum Control").

    Raises:
        ValueError: all entries are 0.

    Example:
        >>> singular_decay(torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 0.0]])).tolist()
        [1.0, 0.25]
    """
    require_table(weight)
    if not bool(weight.any()):
        raise ValueError("weight is all zeros and has no spectrum: pass a trained table")
    values: Tensor = torch.linalg.svdvals(weight.detach().double())
    return values / values[0]


def effective_rank(weight: Float[Tensor, "V H"]) -> float:
    """Computes the effective rank of a table: from 1 (parallel rows) to min(V, H) (equal singular values).

    Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (EUSIPCO 2007); errors as of
    `singular_decay`.

    Example:
        >>> round(effective_rank(torch.eye(3)), 6), round(effective_rank(torch.ones(5, 3)), 6)
        (3.0, 1.0)
    """
    return effective_rank_of(singular_decay(weight))


def effective_rank_of(values: Float64[Tensor, " R"]) -> float:
    """Computes exp(-sum p log p) with p the singular values, given up to any positive factor, over their sum.

    Raises:
        ValueError: no value is positive, or one is negative or not finite.

    Example:
        >>> round(effective_rank_of(torch.tensor([2.0, 2.0, 0.0], dtype=torch.float64)), 6)
        2.0
    """
    _require_values(values)
    share = values / values.max()
    share = share / share.sum()
    return float(torch.special.entr(share).sum().exp())


def energy_share(values: Float64[Tensor, " R"], first: int) -> float:
    """Computes the share of the squared singular values, falling, that lies in the first of them, in (0, 1].

    Raises:
        ValueError: as of `effective_rank_of`, or `first` is below 1.

    Example:
        >>> energy_share(torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64), first=1)
        0.5
    """
    _require_values(values)
    if first < 1:
        raise ValueError(f"first must be at least 1, not {first}")
    energy = (values / values.max()).square()
    return min(1.0, float(energy[:first].sum() / energy.sum()))


def isoscore(weight: Float[Tensor, "V H"]) -> float:
    """Computes the IsoScore of a table: 0 with all variance in one direction, 1 with as much in each.

    Rudman et al., "IsoScore: Measuring the Uniformity of Embedding Space Utilization" (Findings of ACL 2022). It does
    not depend on the table's scale or mean; `isoscore_of` says what happens at the edges.

    Example:
        >>> isoscore(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        1.0
    """
    require_table(weight)
    mean = torch.stack([block.sum(0) for block in row_blocks(weight)]).sum(0) / len(weight)
    scatter = torch.zeros(weight.shape[1], weight.shape[1], dtype=torch.float64, device=weight.device)
    for block in row_blocks(weight):
        centred = block - mean
        scatter.addmm_(centred.T, centred)
    return isoscore_of(scatter)


def isoscore_of(covariance: Float64[Tensor, "H H"]) -> float:
    """Computes the IsoScore of rows with this covariance, symmetric, up to any positive factor.

    The paper turns the rows to their principal components, scales the diagonal of the covariance there to length
    sqrt(d), divides its distance to (1, ..., 1) by sqrt(2 (d - sqrt(d))) and stretches the share of evenly used
    dimensions to [0, 1]. With x the variances along the components this comes to ((sum x)^2 / sum x^2 - 1) / (d - 1),
    and both sums can be read off the covariance in any basis: its trace, and the sum of its squared entries. Rows that
    do not vary score 0; where there is but one direction, rows that vary score 1.

    Raises:
        ValueError: the covariance is not finite.

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


def principal_plane(weight: Float[Tensor, "V H"], dimensions: int = 2) -> Float64[Tensor, "V D"]:
    """Projects the centred rows of a table on their first principal components, of falling variance.

    The sign of a component is arbitrary; here its loading of largest magnitude (the first such) is positive, so that a
    plot does not flip between machines.

    Raises:
        ValueError: `dimensions` is outside 1 to min(V, H).

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
    return centred @ _signed_loadings(torch.linalg.svd(centred, full_matrices=False).Vh[:dimensions]).T


def principal_axes(covariance: Float64[Tensor, "H H"], dimensions: int = 2) -> Float64[Tensor, "D H"]:
    """Computes unit loadings of the first principal components from a covariance, signed as in `principal_plane`.

    Raises:
        ValueError: the covariance is not finite, or `dimensions` is outside 1 to H.

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
    return _signed_loadings(torch.from_numpy(axes.T[::-1].copy()).to(covariance))


def group_cosines(
    weight: Float[Tensor, "V H"], groups: Mapping[str, Int64[Tensor, " M"]]
) -> dict[str, dict[str, float | None]]:
    """Averages the cosine over all pairs of different rows, one from each of two groups, for every two groups.

    Groups are ids by name, may overlap and be empty; None stands where there is no pair. Rows of zeros have no
    direction and are left out. The cost is one reading of the table: see `cosine_of_sums`.

    Raises:
        ValueError: an id is outside the table or twice in a group.

    Example:
        >>> table = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
        >>> group_cosines(table, {"a": torch.tensor([0, 1]), "b": torch.tensor([2, 3])})
        {'a': {'a': 1.0, 'b': 0.0}, 'b': {'a': 0.0, 'b': None}}
    """
    require_table(weight)
    member = torch.zeros(len(groups), len(weight), dtype=torch.float64, device=weight.device)
    for index, (name, ids) in enumerate(groups.items()):
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= len(weight) or len(torch.unique(ids)) < len(ids)):
            raise ValueError(f"ids of {quoted(name)} must lie in 0 to {len(weight) - 1}, each once")
        member[index, ids] = 1.0
    sums = torch.zeros(len(groups), weight.shape[1], dtype=torch.float64, device=weight.device)
    norms = row_norms(weight)
    member *= norms > 0
    start = 0
    for block in row_blocks(weight):
        length = norms[start : start + len(block), None]
        sums += member[:, start : start + len(block)] @ (block / length.where(length > 0, 1.0))
        start += len(block)
    common = (member @ member.T).long()
    return {
        name: {
            second: cosine_of_sums(sums[i], sums[j], int(common[i, i]), int(common[j, j]), int(common[i, j]))
            for j, second in enumerate(groups)
        }
        for i, name in enumerate(groups)
    }


def cosine_of_sums(
    first: Float64[Tensor, " H"], second: Float64[Tensor, " H"], first_size: int, second_size: int, common: int
) -> float | None:
    """Averages the cosine over pairs of different rows of two groups from the sums s and t of their unit rows.

    Within a group of n rows that are not zero the mean is (s . s - n) / (n (n - 1)), between groups without common
    rows s . t / (n m); None where there is no pair. `common` rows are in both, all when a group is compared with
    itself.

    Example:
        >>> cosine_of_sums(torch.tensor([1.0, 1.0]).double(), torch.tensor([1.0, 1.0]).double(), 2, 2, 2)
        0.0
    """
    pairs = first_size * second_size - common
    if pairs == 0:
        return None
    return max(-1.0, min(1.0, (float(first @ second) - common) / pairs))


def row_norms(weight: Float[Tensor, "V H"]) -> Float64[Tensor, " V"]:
    """Measures the Euclidean length of every row; 0 for rows of zeros alone, however small the entries of others.

    Example:
        >>> row_norms(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [5.0, 0.0]
    """
    require_table(weight)
    lengths = []
    for block in row_blocks(weight):
        largest = block.abs().amax(1)
        scaled = block / largest.where(largest > 0, 1.0)[:, None]  # squares of tiny or huge entries leave float64
        lengths.append(largest * torch.linalg.vector_norm(scaled, dim=1))
    return torch.cat(lengths)


def mean_direction(weight: Float[Tensor, "V H"]) -> float:
    """Length of the mean row over the mean length of rows: 1 when all point one way, 0 when they cancel or are zero.

    Example:
        >>> mean_direction(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0]]))
        0.5
    """
    length = float(row_norms(weight).sum())
    total = torch.stack([block.sum(0) for block in row_blocks(weight)]).sum(0)
    return min(1.0, float(total.norm()) / length) if length else 0.0


def norm_quantiles(norms: Float64[Tensor, " n"]) -> dict[str, float]:
    """Quantiles of lengths from the shortest ("0") to the longest ("1").

    Example:
        >>> norm_quantiles(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))["0.5"]
        2.0
    """
    values = np.quantile(norms.numpy(), QUANTILES)
    return {str(share): float(value) for share, value in zip(QUANTILES, values, strict=True)}


def norms_by_rank(
    norms: Float64[Tensor, " n"], rank: Int64[Tensor, " n"], bins: int = 60
) -> list[tuple[float, float, float, float]]:
    """Summarises lengths by frequency rank (from 1), in at most so many bins, evenly wide on a logarithmic axis.

    By rising rank, for every bin with rows in it: their median rank, and the 25th, 50th and 75th percentile of
    lengths.

    Raises:
        ValueError: the vectors do not pair, or a rank or `bins` is below 1.

    Example:
        >>> norms_by_rank(torch.tensor([4.0, 2.0, 1.0]).double(), torch.tensor([1, 2, 3]), bins=2)
        [(1.0, 4.0, 4.0, 4.0), (2.5, 1.25, 1.5, 1.75)]
    """
    if norms.shape != rank.shape or bins < 1 or (rank.numel() and int(rank.min()) < 1):
        raise ValueError(
            f"norms {tuple(norms.shape)} and rank {tuple(rank.shape)} must pair, ranks and bins begin at 1"
        )
    if not rank.numel():
        return []
    order = rank.argsort(stable=True)
    ranked, lengths = rank[order].cpu().numpy(), norms[order].cpu().numpy()
    edges = np.unique(np.geomspace(1, int(ranked[-1]) + 1, bins + 1).round())
    borders = np.searchsorted(ranked, edges)
    pairs = [(low, high) for low, high in itertools.pairwise(borders) if low < high]
    return [(float(np.median(ranked[low:high])), *_quartiles(lengths[low:high])) for low, high in pairs]


def _turned(axes: Float64[Tensor, "H A"], total: Float64[Tensor, " H"]) -> Float64[Tensor, "H A"]:
    return torch.where(total @ axes < 0, -axes, axes)


def _log_partition_of(weight: Float[Tensor, "V H"], axes: Float64[Tensor, "H A"]) -> Float64[Tensor, "2 A"]:
    return torch.logsumexp(torch.stack([log_partition(block @ axes) for block in row_blocks(weight)]), dim=0)


def _require_values(values: Float64[Tensor, " R"]) -> None:
    if not len(values) or not bool(torch.isfinite(values).all()) or bool((values < 0).any()) or not bool(values.any()):
        raise ValueError("singular values must be finite, not negative and not all 0: pass those of a trained table")


def _signed_loadings(loadings: Float64[Tensor, "D H"]) -> Float64[Tensor, "D H"]:
    leading = loadings.gather(1, loadings.abs().argmax(1, keepdim=True))
    return torch.where(leading < 0, -loadings, loadings)


def _quartiles(lengths: NDArray[np.float64]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(lengths, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)
