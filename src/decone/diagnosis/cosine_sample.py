"""Histograms of the cosines between rows of two groups, from a sample of pairs of different rows."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from decone.diagnosis.result import CosineHistogram

PAIRS = 20_000  # of each two groups; fewer where there are no more
BINS = 80


def histograms(
    samples: Mapping[str, Sequence[Float[Tensor, "_ H"]]], seed: int = 0, pairs: int = PAIRS, bins: int = BINS
) -> list[CosineHistogram]:
    """Counts cosines by pair of groups.

    Args:
        samples: unit rows of each group, in parts.
        seed: of the pairs, drawn evenly with replacement; where there are at most so many pairs all are taken.
        pairs: how many of each two groups.
        bins: of equal width from -1 to 1.

    Returns:
        For every group with itself and with each later one; left out where there is no pair.

    Example:
        >>> [found] = histograms({"rare": [torch.eye(3)]}, bins=4)
        >>> found.groups, found.counts
        (('rare', 'rare'), [0, 0, 3, 0])
    """
    generator = torch.Generator().manual_seed(seed)
    rows = {name: torch.cat(list(parts)) for name, parts in samples.items() if parts}
    found = []
    for first, second in itertools.combinations_with_replacement(rows, 2):
        a, b = rows[first], rows[second]
        left, right = (
            _within(len(a), pairs, generator) if first == second else _across(len(a), len(b), pairs, generator)
        )
        if not len(left):
            continue
        cosine = (a @ b.T)[left, right].clamp(-1.0, 1.0)
        counts = torch.histc(cosine, bins=bins, min=-1.0, max=1.0)
        found.append(CosineHistogram(groups=(first, second), counts=counts.long().tolist()))
    return found


def _within(size: int, pairs: int, generator: torch.Generator) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
    if size * (size - 1) // 2 <= pairs:
        left, right = torch.triu_indices(size, size, offset=1)
        return left, right
    left = torch.randint(size, (pairs,), generator=generator)
    right = torch.randint(size - 1, (pairs,), generator=generator)
    return left, right + (right >= left)  # never the row itself


def _across(
    size: int, other: int, pairs: int, generator: torch.Generator
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
    if size * other <= pairs:
        return torch.arange(size).repeat_interleave(other), torch.arange(other).repeat(size)
    left = torch.randint(size, (pairs,), generator=generator)
    return left, torch.randint(other, (pairs,), generator=generator)
