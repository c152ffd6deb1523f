"""Bits per byte: the one measure of prediction that models with different vocabularies share."""

import math


def bits_per_byte(total_nll: float, size: int) -> float:
    """Compute how many bits a model spends on a byte of text.

    A perplexity counts per token and so depends on the tokenizer; the bytes of a text are the same for every model.

    Args:
        total_nll: Sum of the negative log-likelihoods of the scored tokens, in nats.
        size: Bytes in UTF-8 of the text that those tokens stand for.

    Returns:
        Bits; 8 is no better than guessing bytes evenly.

    Raises:
        ValueError: If there are no bytes.

    Example:
        >>> bits_per_byte(100 * math.log(16), size=200)
        2.0
    """
    if size < 1:
        raise ValueError(f"the scored tokens stand for {size} bytes of text: score at least one character")
    return total_nll / math.log(2) / size
