"""Rows that look as if they were never trained: scores from a table alone, without a list of ids.

The indicators follow Land and Bartolo 2024 ("Fishing for Magikarp", section 3.2): the length of a row and its nearness
to rows known to be unused. Where no unused row is known, noise still shows: a trained row points where other rows point
too, a random direction does not. Scores are in robust z units: 3.5 is unusual (Iglewicz and Hoaglin 1993).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Float64, Integer
from torch import Tensor

UNUSUAL = 3.5  # modified z-score of an outlier
RANDOM = 7.0  # score of a row that is as little like the others as the median random direction
GAUSSIAN = 1.4826  # standard deviations in a median absolute deviation
BINS, LEAST = 20, 12  # bins of rank, and rows in one at least
RIDGE = 0.3  # rows' worth of energy below which a direction explains nothing
AXES = 128  # leading directions that are kept of a wide table


def robust_scores(
    values: Float[Tensor, " N"], rank: Integer[Tensor, " N"] | None = None, bins: int = BINS
) -> Float64[Tensor, " N"]:
    """Signed distances from the median of rows of similar frequency rank, in robust standard deviations.

    The median of these finite values follows the rank: that of equally filled bins of 12 rows or more, with straight
    lines between. The scale does so where bins hold 100 rows or more. Each side has its own: the larger of the median
    absolute deviation and the 10 % quantile's distance over 1.2816, so that a heavy tail is not a crowd of outliers.

    Example:
        >>> values = torch.cat((torch.linspace(-1, 1, 21), torch.tensor([9.0])))
        >>> robust_scores(values).round(decimals=1)[[0, 10, 21]].tolist()
        [-1.3, -0.1, 11.0]
    """
    values = values.double()
    count = values.numel()
    if not count:
        return values
    order = torch.arange(count) if rank is None else torch.argsort(rank, stable=True)
    bins = 1 if rank is None else max(1, min(bins, count // LEAST))
    chunks = order.tensor_split(bins)
    position = torch.empty(count, dtype=torch.float64)
    position[order] = torch.arange(count, dtype=torch.float64)
    centres = torch.stack([position[chunk].mean() for chunk in chunks])
    residual = values - _between(position, centres, torch.stack([values[chunk].quantile(0.5) for chunk in chunks]))
    if count < 100 * bins:
        below, above = (torch.full_like(values, scale) for scale in _scales(residual))
    else:
        sides = torch.tensor([_scales(residual[chunk]) for chunk in chunks], dtype=torch.float64)
        below, above = _between(position, centres, sides[:, 0]), _between(position, centres, sides[:, 1])
    scale = torch.where(residual < 0, below, above)
    return torch.where(scale > 0, residual / scale.where(scale > 0, 1.0), 0.0)


class Structure(NamedTuple):
    """Directions in which rows point, learned from a set of them."""

    axes: Float32[Tensor, "H K"]
    weight: Float64[Tensor, " K"]  # 1 / (energy of the direction, a column of `axes`, + ridge)
    remainder: float  # the same of what lies in no direction of these


def structure(units: Float32[Tensor, "N H"], seed: int = 0) -> Structure:
    """Learns the directions in which unit rows point; the seed is of the search in tables wider than 1,024.

    Example:
        >>> found = structure(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        >>> (1 / found.weight - 0.3).round(decimals=4).tolist()
        [1.0, 2.0]
    """
    width = units.shape[1]
    gram = units.T @ units
    if width <= 1024:
        energy, axes = torch.linalg.eigh(gram.double())
        return Structure(axes.float(), 1 / (energy.clamp(min=0) + RIDGE), 0.0)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    axes, energy, _ = torch.svd_lowrank(gram, q=AXES, niter=6)
    torch.random.set_rng_state(state)
    remainder = float((gram.diagonal().double().sum() - energy.double().sum()).clamp(min=0)) / (width - AXES)
    return Structure(axes, 1 / (energy.double() + RIDGE), 1 / (remainder + RIDGE))


def unexplained(
    shadows: Float32[Tensor, "N K"], learned: Structure, inside: Bool[Tensor, " N"] | None = None
) -> Float64[Tensor, " N"]:
    """Log of the share of each row that the other rows do not explain, at most 0.

    This is ridge regression of a row on the others: with S the sum of the outer products of the rows it was learned
    from, h = x' (S + ridge)^-1 x is the leverage of x, and a row inside of S (mask `inside`) is judged by the others
    alone with h / (1 - h). Shadows are unit rows times `learned.axes`.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> learned = structure(rows)
        >>> unexplained(rows @ learned.axes, learned, torch.ones(3, dtype=torch.bool)).exp().round(decimals=3).tolist()
        [0.231, 0.231, 1.0]
    """
    leverage = shadows.square().double() @ (learned.weight - learned.remainder) + learned.remainder
    leverage = leverage.clamp(min=1e-12, max=1 / RIDGE)
    if inside is not None:
        without = leverage / (1 - leverage).clamp(min=1e-12)
        leverage = torch.where(inside, without.clamp(max=1 / RIDGE), leverage)
    return (RIDGE * leverage).log()


def noise_scores(
    values: Float64[Tensor, " N"],
    ordinary: Float64[Tensor, " M"],
    random: Float64[Tensor, " R"],
    tail: float = 1.5,
) -> Float64[Tensor, " N"] | None:
    """Places values between ordinary rows and random directions: 0 at the median of those, 7 at that of these.

    In between lies 3.5: where 5 % of the random directions lie below, or at the end of the rows' upper tail if that
    comes first (the median plus `tail` times the 99 % quantile's distance from it), yet never where more than 20 % of
    the rows lie above. None where the median random direction does not stand out from one row in five.

    Example:
        >>> rows, random = torch.linspace(0, 1, 101).double(), torch.linspace(2, 3, 101).double()
        >>> noise_scores(torch.tensor([0.5, 1.235, 2.5, 9.0]).double(), rows, random).round(decimals=2).tolist()
        [0.0, 3.5, 7.0, 7.0]
    """
    middle, crowd, edge = ordinary.quantile(torch.tensor([0.5, 0.8, 0.99], dtype=torch.float64)).tolist()
    near, far = random.quantile(torch.tensor([0.05, 0.5], dtype=torch.float64)).tolist()
    if far <= crowd or crowd <= middle:
        return None
    limit = min(max(near, crowd), max(middle + tail * (edge - middle), crowd))
    low = UNUSUAL * (values - middle) / (limit - middle)
    high = UNUSUAL + (RANDOM - UNUSUAL) * (values - limit) / max(far - limit, 1e-12)
    return torch.where(values <= limit, low.clamp(min=0), high.clamp(max=RANDOM))


def distance_limit(unused: Float64[Tensor, " U"], used: Float64[Tensor, " N"]) -> float:
    """Distance from the mean of unused rows up to which a row lies among them: their own 95 % quantile.

    Unused rows that scatter as widely as the others say nothing; then the limit is 0. Where they are all the same, a
    row may lie off by 1 % of the others' median distance.

    Example:
        >>> round(distance_limit(torch.linspace(0, 1, 101).double(), torch.linspace(4, 5, 101).double()), 6)
        0.95
    """
    if not unused.numel() or not used.numel():
        return 0.0
    usual = float(used.quantile(0.5))
    limit = float(unused.quantile(0.95))
    return 0.0 if limit > 0.5 * usual else max(limit, 0.01 * usual)


def nearness_scores(distance: Float64[Tensor, " N"], limit: float, usual: float) -> Float64[Tensor, " N"]:
    """Nearness to the mean of unused rows: 0 at the usual distance or beyond, 3.5 at the limit, on a log scale.

    Example:
        >>> distance = torch.tensor([8.0, 4.0, 2.0, 1.0]).double()
        >>> nearness_scores(distance, limit=2.0, usual=8.0).round(decimals=6).tolist()
        [0.0, 1.75, 3.5, 5.25]
    """
    ratio = (usual / distance.clamp(min=1e-3 * limit)).log()
    return (UNUSUAL * ratio / math.log(usual / limit)).clamp(min=0)


def ownership(
    units: Float32[Tensor, "N H"],
    features: Float64[Tensor, "N F"],
    queries: Float32[Tensor, "Q H"],
    query_features: Float64[Tensor, "Q F"],
) -> Float64[Tensor, " Q"]:
    """Log odds that a row belongs to a token with certain features: log p(features | row) / p(features).

    Unit rows predict features, such as rank and spelling, by ridge regression, whose errors are taken as normal; they
    are those of leaving one out. Of equal rows the one whose own features fit best is the original.

    Example:
        >>> rows = torch.eye(2).repeat(20, 1)
        >>> odds = ownership(rows, rows[:, :1].double(), rows[:2], torch.tensor([[1.0], [1.0]]).double())
        >>> bool(odds[0] > 0 > odds[1])
        True
    """
    middle, spread = features.mean(0), features.std(0)
    varying = spread > 0
    features, query_features = (
        (values - middle)[:, varying] / spread[varying] for values in (features, query_features)
    )
    centre = units.mean(0)
    rows = (units - centre).double()
    energy, axes = torch.linalg.eigh(rows.T @ rows)
    best = None
    for ridge in (0.1, 0.3, 1.0, 3.0, 10.0):
        inverse = axes / (energy.clamp(min=0) + ridge) @ axes.T
        slope = inverse @ (rows.T @ features)
        leverage = ((rows @ inverse) * rows).sum(1, keepdim=True) + 1 / len(rows)
        error = ((features - rows @ slope) / (1 - leverage).clamp(min=0.01)).square().mean(0).clamp(0.01, 1.0)
        if best is None or error.log().sum() < best[0]:
            best = (error.log().sum(), error, slope)
    assert best is not None
    _, error, slope = best
    guess = (queries - centre).double() @ slope
    gain = 0.5 * (query_features.square() - (query_features - guess).square() / error - error.log())
    total: Tensor = gain.clamp(-4, 4).sum(1)  # one odd feature decides nothing
    return total


def _between(position: Tensor, centres: Tensor, heights: Tensor) -> Tensor:
    """Straight lines between points; level before the first and after the last."""
    if len(centres) == 1:
        return heights[:1].expand(len(position))
    right = torch.searchsorted(centres, position).clamp(1, len(centres) - 1)
    x, y = centres[right - 1], heights[right - 1]
    along = ((position - x) / (centres[right] - x)).clamp(0, 1)
    return y + along * (heights[right] - y)


def _scales(residual: Tensor) -> tuple[float, float]:
    """Standard deviation below and above the middle, robustly."""
    low, middle, high = residual.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist()
    deviation = (residual - middle).abs()
    usual = GAUSSIAN * float(deviation.quantile(0.5)) or 1.2533 * float(deviation.mean())
    return max(usual, (middle - low) / 1.2816), max(usual, (high - middle) / 1.2816)
