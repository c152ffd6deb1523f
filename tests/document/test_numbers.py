import math

from hypothesis import given
from hypothesis import strategies as st

from decone.document.numbers import number


@given(st.floats(-99999, 99999), st.integers(0, 4))
def test_numbers_read_back(value: float, digits: int) -> None:
    shown = number(value, digits)
    assert math.isclose(float(shown.replace("−", "-")), round(value, digits), abs_tol=0.51 * 10**-digits)
    assert shown != number(-value, digits) or float(shown.replace("−", "-")) == 0


def test_numbers_without_a_value() -> None:
    assert [number(value, 2) for value in (math.nan, math.inf, -math.inf, -0.001)] == ["—", "∞", "−∞", "0.00"]
