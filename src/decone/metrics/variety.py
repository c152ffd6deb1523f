"""Variety: how many different tokens a model predicts (Uniq), and how many different words it writes (uniq-w).

A degenerate model leaves most of its vocabulary unused (Yu et al. 2022, AGG, section 5; Lin et al. 2021, ScaleGrad).
These are counts: they grow with the text, so compare models on the same text only.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor


def used_tokens(ids: Int[Tensor, "*shape"], size: int) -> Bool[Tensor, " V"]:
    """Mark the tokens that occur; Uniq is the number of marks.

    Args:
        ids: Likeliest next tokens, or for the human reference the text's own, in [0, size).
        size: Tokens in the vocabulary, V.

    Raises:
        ValueError: If an id lies outside the vocabulary.

    Example:
        >>> used_tokens(torch.tensor([3, 1, 3]), size=4).tolist()
        [False, True, False, True]
    """
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= size):
        raise ValueError(f"ids run from {int(ids.min())} to {int(ids.max())} but the vocabulary is 0 to {size - 1}")
    used = torch.zeros(size, dtype=torch.bool, device=ids.device)
    used[ids.flatten().long()] = True
    return used


def uniq(ids: Int[Tensor, "*shape"], label: Int64[Tensor, " V"], groups: int) -> list[int]:
    """Count the different tokens of each group.

    Args:
        ids: Likeliest next tokens, or for the human reference the text's own, in [0, V).
        label: Group of each token of the vocabulary, in [0, groups).
        groups: Number of groups.

    Returns:
        One count per group; their sum is the Uniq of all.

    Raises:
        ValueError: If an id lies outside the vocabulary.

    Example:
        >>> uniq(torch.tensor([3, 1, 3, 2]), torch.tensor([0, 0, 1, 1]), groups=2)
        [1, 2]
    """
    used = used_tokens(ids, len(label))
    return [int(count) for count in torch.bincount(label.to(used.device)[used], minlength=groups)]


def uniq_words(texts: Iterable[str]) -> int:
    """Count uniq-w: different strings after splitting all texts at single spaces.

    Punctuation stays on its word, and two spaces in a row make an empty string, which counts, as in the paper.

    Args:
        texts: Continuations without their prompts.

    Example:
        >>> uniq_words(["the cat sat", "the dog sat."])
        5
    """
    return len({word for text in texts for word in text.split(" ")})
