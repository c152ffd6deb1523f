"""Who the tokens are: how often each occurs, and which are frequent, medium and rare."""

from decone.vocab.counts import count_tokens
from decone.vocab.groups import frequency_groups

__all__ = ["count_tokens", "frequency_groups"]
