"""How well rows are told by their definitions, on tokens that were not learned from, and which rows are told badly.

A row *agrees* with its definition when few rows of the table are nearer, in cosine around the mean prediction, to what
the definition predicts. Of a row that means nothing any other one is nearer as often as not: its rank is uniform.
Among trained rows ranks pile up at the top. From the share of ranks in the lower half the number of rows that are
unrelated to their definitions follows, as the share of true null hypotheses does from p-values (Storey 2002, eq. 6).
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from decone.metrics.intervals import Interval, mean_interval, share_interval
from decone.models.tables import Table, blocks

HALF = 0.5
DOUBTFUL = 0.1  # a row is in doubt when more than this share of the table is nearer to what its definition predicts
COSINES = 1 << 24  # made at once


@dataclass(frozen=True)
class Scores:
    """How predictions meet the rows of tokens that were not learned from.

    Attributes:
        tokens: how many were looked at.
        r2: 1 - squared error over that of the mean row.
        cosine: with the row, mean over tokens with its 95 % interval.
        norm_ratio: length of predictions over that of rows.
        nearest: share whose own row is the nearest of the table, with its 95 % interval.
        top10: share whose own row is among the ten nearest.
        median_rank: of the own row, 1 is nearest.
        unrelated: estimated share of rows that have nothing to do with their definitions.
    """

    tokens: int
    r2: float
    cosine: Interval
    norm_ratio: float
    nearest: Interval
    top10: Interval
    median_rank: int
    unrelated: float

    def facts(self) -> dict[str, Any]:
        """As data."""
        return {
            "tokens": self.tokens,
            "r2": self.r2,
            "cosine": [self.cosine.mean, self.cosine.low, self.cosine.high],
            "norm_ratio": self.norm_ratio,
            "nearest": [self.nearest.mean, self.nearest.low, self.nearest.high],
            "top10": [self.top10.mean, self.top10.low, self.top10.high],
            "median_rank": self.median_rank,
            "unrelated": self.unrelated,
        }


def ranks(
    predicted: Float[Tensor, "N H"],
    rows: Float[Tensor, "N H"],
    table: Table,
    usable: Bool[Tensor, " V"],
    centre: Float[Tensor, " H"] | None = None,
) -> Int64[Tensor, " N"]:
    """How many rows of the table are nearer to a prediction than the token's own row; 0 is nearest.

    Args:
        predicted: one per token.
        rows: of the tokens.
        table: all rows.
        usable: rows that count.
        centre: cosines are around it; without it around the mean of the predictions, which a few do not tell.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> eye = torch.eye(3)
        >>> ranks(eye, eye.flip(0), MemoryTable("weight", eye), torch.ones(3, dtype=torch.bool)).tolist()
        [1, 0, 1]
    """
    centre = predicted.float().mean(0) if centre is None else centre.float()
    asked = F.normalize(predicted.float() - centre, dim=1)
    # Two ways to the same cosine differ in the last digits: the own row is not to count against itself.
    own = torch.linalg.vecdot(asked, F.normalize(rows.float() - centre, dim=1)) + 1e-6
    found = torch.zeros(len(predicted), dtype=torch.long)
    for start, block in blocks(table):
        others = F.normalize(block[usable[start : start + len(block)]].float() - centre, dim=1)
        for first in range(0, len(asked), max(1, COSINES // max(1, len(others)))):
            last = first + max(1, COSINES // max(1, len(others)))
            found[first:last] += (asked[first:last] @ others.T > own[first:last, None]).sum(1)
    return found


def score(
    predicted: Float[Tensor, "N H"],
    rows: Float[Tensor, "N H"],
    mean: Float[Tensor, " H"],
    found: Int64[Tensor, " N"],
    size: int,
) -> Scores:
    """Sums up predictions of tokens that were not learned from.

    Args:
        predicted: one per token.
        rows: their own.
        mean: of the rows learned from, what is predicted without a definition.
        found: `ranks` of the predictions.
        size: rows that were ranked.

    Raises:
        ValueError: there is no token.
    """
    count = len(predicted)
    if not count:
        raise ValueError("no token is left to look at; define more of them")
    exact, target = predicted.double(), rows.double()
    error, without = (exact - target).square().sum(), (target - mean.double()).square().sum()
    cosine = torch.cosine_similarity(exact, target, dim=1)
    lengths = torch.linalg.vector_norm(target, dim=1)
    return Scores(
        tokens=count,
        r2=float(1 - error / without) if float(without) else 0.0,
        cosine=mean_interval(cosine.tolist()),
        norm_ratio=float(torch.linalg.vector_norm(exact, dim=1).mean() / lengths.mean().clamp_min(1e-30)),
        nearest=share_interval(int((found == 0).sum()), count),
        top10=share_interval(int((found < 10).sum()), count),
        median_rank=int(found.median()) + 1,
        unrelated=min(1.0, float((found > HALF * size).double().mean()) / (1 - HALF)),
    )


def doubtful(found: Int64[Tensor, " N"], size: int) -> Bool[Tensor, " N"]:
    """Which tokens have a row that their definition contradicts: over a tenth of the table is nearer to the prediction.

    Example:
        >>> doubtful(torch.tensor([0, 9, 60]), 100).tolist()
        [False, False, True]
    """
    return found > DOUBTFUL * size
