"""The vocabulary: token counts, frequency groups, earlier targets, reachable ids and scripts."""

from decone.vocab.counts import count_tokens, frequency_groups

__all__ = ["count_tokens", "frequency_groups"]
