import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decone.metrics.intervals import Interval
from decone.report.format import number, verdict
from decone.studies.table import MEASURES

PERPLEXITY, TEMPERATURE = MEASURES[0], MEASURES[2]


@given(st.floats(-99999, 99999), st.integers(0, 4))
def test_numbers_read_back(value: float, digits: int) -> None:
    shown = number(value, digits)
    assert math.isclose(float(shown.replace("−", "-")), round(value, digits), abs_tol=0.51 * 10**-digits)
    assert shown != number(-value, digits) or float(shown.replace("−", "-")) == 0


def test_numbers_without_a_value() -> None:
    assert [number(value, 2) for value in (math.nan, math.inf, -math.inf, -0.001)] == ["—", "∞", "−∞", "0.00"]


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (1.0, 3.0, "worse"),
        (-3.0, -1.0, "better"),
        (-1.0, 3.0, "not clear with 4 seeds"),
        (0.0, 4.0, "not clear with 4 seeds"),
        (math.nan, math.nan, "not clear with 4 seeds"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(low: float, high: float, word: str) -> None:
    mean = -2.0 if high < 0 else 2.0
    assert verdict(PERPLEXITY, Interval(mean, low, high, 4)) == word


def test_a_temperature_is_neither_better_nor_worse() -> None:
    assert verdict(TEMPERATURE, Interval(2.0, 1.0, 3.0, 3)) == "higher"
