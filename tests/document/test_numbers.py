import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decone.document.numbers import id_ranges, number, proportion, significant


@given(st.floats(-99999, 99999), st.integers(0, 4))
def test_numbers_read_back(value: float, digits: int) -> None:
    shown = number(value, digits)
    assert math.isclose(float(shown.replace("−", "-")), round(value, digits), abs_tol=0.51 * 10**-digits)
    assert shown != number(-value, digits) or float(shown.replace("−", "-")) == 0


def test_numbers_without_a_value() -> None:
    assert [number(value, 2) for value in (math.nan, math.inf, -math.inf, -0.001)] == ["—", "∞", "−∞", "0.00"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1234, "1,234"), (999.4, "999"), (73.14, "73.1"), (7.314, "7.31"), (0.7314, "0.731"),
        (4e-5, "4.0e−05"), (-2e8, "−2.0e+08"), (math.inf, "∞"), (math.nan, "—"), (None, "—"),
    ],
)  # fmt: skip
def test_significant_digits(value: float | None, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("count", "total", "text"),
    [
        (1, 0, "—"), (math.nan, 1, "—"), (0, 5, "0\xa0%"), (1, 3, "33\xa0%"), (1, 30, "3.3\xa0%"),
        (1, 10**8, "<\xa00.001\xa0%"), (None, 1, "—"),
    ],
)  # fmt: skip
def test_shares_of_something_are_never_zero(count: float | None, total: int, text: str) -> None:
    assert proportion(count, total) == text


@given(st.sets(st.integers(0, 50)))
def test_ranges_hold_every_id(ids: set[int]) -> None:
    ranges = [text.split("–") for text in id_ranges(list(ids)).split(", ") if text]
    assert {id for ends in ranges for id in range(int(ends[0]), int(ends[-1]) + 1)} == ids


def test_ranges_beyond_the_limit_are_left_out() -> None:
    assert id_ranges([1, 2, 3, 5, 7, 8], 2) == "1–3, 5, …"
    assert id_ranges([1, 2, 3, 5, 7, 8], 3) == "1–3, 5, 7, 8"
