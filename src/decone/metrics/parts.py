"""Perplexity by part of a text: by frequency group, by script, or by anything else that sorts its tokens.

The parts recombine exactly: exp(sum of share * log perplexity) over the parts is the perplexity of the whole.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor


@dataclass(frozen=True)
class PartScore:
    """What a model makes of one part of a text.

    Attributes:
        tokens: Positions in the part.
        share: Of all positions, in [0, 1].
        perplexity: exp of the part's mean NLL; None for an empty part, inf when it overflows.
        accuracy: Share of the part's positions predicted rightly; None for an empty part.
    """

    tokens: int
    share: float
    perplexity: float | None
    accuracy: float | None


def part_scores(
    nll: Float64[Tensor, " N"], correct: Bool[Tensor, " N"], part: Int[Tensor, " N"], parts: int
) -> list[PartScore]:
    """Average the losses and the hits of each part, in one pass.

    Args:
        nll: Negative log-likelihood of each target in nats, as `perplexity.nll` gives it.
        correct: Whether the model predicted the target.
        part: The part each position belongs to, in [0, parts).
        parts: Number of parts.

    Returns:
        One score per part, in order; the shares sum to 1.

    Raises:
        ValueError: If the lengths differ, there is no position, or a part lies outside [0, parts).

    Example:
        >>> loss = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        >>> common, rare = part_scores(loss, loss < 1.5, torch.tensor([0, 0, 1]), parts=2)
        >>> round(common.perplexity, 3), common.accuracy, round(rare.perplexity, 3), rare.accuracy
        (1.649, 1.0, 7.389, 0.0)
    """
    if not nll.shape == correct.shape == part.shape or nll.numel() == 0:
        raise ValueError(
            f"nll, correct and part must be vectors of one length above 0, not {len(nll)}, {len(correct)}, {len(part)}"
        )
    if int(part.min()) < 0 or int(part.max()) >= parts:
        raise ValueError(f"parts run from {int(part.min())} to {int(part.max())} but there are {parts}, from 0")
    part = part.long()
    tokens = torch.bincount(part, minlength=parts).tolist()
    losses = torch.bincount(part, weights=nll, minlength=parts)
    hits = torch.bincount(part[correct], minlength=parts).tolist()
    return [
        PartScore(
            tokens=count,
            share=count / len(part),
            perplexity=float((loss / count).exp()) if count else None,
            accuracy=right / count if count else None,
        )
        for count, loss, right in zip(tokens, losses, hits, strict=True)
    ]
