"""Batches of examples of similar length, so that little is padded, in an order that a seed decides."""

from collections.abc import Sequence

import numpy as np

POOL = 50  # batches whose examples are sorted together: larger pads less, smaller mixes better


def shuffled(lengths: Sequence[int], size: int, key: tuple[int, int]) -> list[list[int]]:
    """Cuts examples into batches of similar length, in random order.

    The order depends on the key and the lengths alone: models with the same tokenizer see the same batches, and their
    differences are paired.

    Args:
        lengths: tokens of every example.
        size: examples of a batch; the last of a pool may be smaller.
        key: (seed, epoch).

    Returns:
        Places of the examples, each in one batch.

    Example:
        >>> sorted(map(sorted, shuffled([9, 1, 8, 2], 2, (0, 0))))
        [[0, 2], [1, 3]]
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    order = random.permutation(len(lengths))
    batches: list[list[int]] = []
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL].tolist(), key=lambda place: lengths[place])
        batches += [pool[begin : begin + size] for begin in range(0, len(pool), size)]
    return [batches[place] for place in random.permutation(len(batches))]


def ordered(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Cuts examples into batches by length, the longest first, to be measured.

    Example:
        >>> ordered([3, 9, 4], 2)
        [[1, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    return [order[begin : begin + size] for begin in range(0, len(order), size)]


def steps(examples: int, size: int) -> int:
    """Batches of one pass over the examples.

    Example:
        >>> steps(33, 16)
        3
    """
    return -(-examples // size)
