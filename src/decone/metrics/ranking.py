"""Rank of the right token among all tokens: accuracy, recall at k, mean reciprocal rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from decone.metrics.inputs import score_blocks


@dataclass(frozen=True)
class Ranking:
    """Shares of targets with rank 1 and, for each k, with rank k or better; mean of 1 / rank; number of positions."""

    accuracy: float
    recall: dict[int, float]
    mrr: float
    count: int


def target_rank(logits: Float[Tensor, "N V"], target: Int[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """Ranks each target among all V tokens: 1 + the number of tokens with a strictly greater logit.

    Ties go to the target, so a model that gives every token one score is always "right": look at a perplexity beside
    it. A NaN counts as greater, so a broken model is never flattered; a target that is NaN itself ranks last, V.

    Raises:
        ValueError: the shapes do not fit or a target lies outside the vocabulary.

    Example:
        >>> target_rank(torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0]]), torch.tensor([1, 1])).tolist()
        [3, 1]
    """
    ranks = []
    for block, targets in score_blocks(logits, target):
        greater = ~(block <= block.gather(1, targets[:, None]))
        ranks.append((1 + greater.sum(1)).clamp_max(logits.shape[1]))
    return torch.cat(ranks)


def ranking(ranks: Int[Tensor, " N"], k: Sequence[int] = (5,)) -> Ranking:
    """Summarises ranks from 1 as accuracy, recall at each k and mean reciprocal rank.

    Raises:
        ValueError: there are no ranks, a rank is below 1, or a k is below 1.

    Example:
        >>> ranking(torch.tensor([1, 2, 10, 1]), k=(1, 5))
        Ranking(accuracy=0.5, recall={1: 0.5, 5: 0.75}, mrr=0.65, count=4)
    """
    if ranks.ndim != 1 or ranks.numel() == 0 or int(ranks.min()) < 1:
        raise ValueError("ranks must be a non-empty vector of numbers from 1: pass the result of target_rank")
    if any(depth < 1 for depth in k):
        raise ValueError(f"k must hold depths of at least 1, not {tuple(k)}")
    return Ranking(
        accuracy=_share(ranks == 1),
        recall={depth: _share(ranks <= depth) for depth in k},
        mrr=float(ranks.double().reciprocal().mean()),
        count=ranks.numel(),
    )


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / hits.numel()
