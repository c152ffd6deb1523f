"""Bits per byte."""

import math

import pytest

from decone.metrics.compression import bits_per_byte


def test_a_model_that_guesses_bytes_evenly_spends_eight_bits() -> None:
    assert bits_per_byte(70 * math.log(256), size=70) == pytest.approx(8.0, rel=1e-15)


def test_the_same_bits_in_longer_tokens_cost_the_same() -> None:
    """Two tokens of 4 bytes at 2**-12 each, or eight of one byte at 2**-3."""
    assert bits_per_byte(2 * 12 * math.log(2), 8) == pytest.approx(bits_per_byte(8 * 3 * math.log(2), 8))


def test_no_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="score at least one character"):
        bits_per_byte(1.0, 0)
