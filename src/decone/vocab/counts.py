"""How often every token of the vocabulary occurs."""

import torch
from jaxtyping import Int64, Integer
from torch import Tensor


def count_tokens(ids: Integer[Tensor, "..."], size: int) -> Int64[Tensor, " V"]:
    """Count every token id of a text, zeros included.

    Args:
        ids: Token ids in any shape, each in [0, size).
        size: Number of tokens in the vocabulary, V.

    Returns:
        Occurrences per id, on the device of `ids`.

    Raises:
        ValueError: If `ids` are not integers, or an id (such as an ignored -100) lies outside the vocabulary.

    Example:
        >>> count_tokens(torch.tensor([[0, 2], [2, 2]]), size=4).tolist()
        [1, 0, 3, 0]
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}: pass the number of tokens in the vocabulary")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"ids must be integers, not {ids.dtype}: pass token ids")
    flat = ids.reshape(-1).long()
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= size):
        raise ValueError(
            f"ids run from {int(flat.min())} to {int(flat.max())} but the vocabulary is 0 to {size - 1}: "
            "drop ignored positions first, or pass the size of the tokenizer's vocabulary"
        )
    return torch.bincount(flat, minlength=size)
