"""Numbers as text, the same in a terminal, in markdown and on a page."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

DASH = "—"
LARGE = 1e5  # from here on digits after the point say nothing


@runtime_checkable
class Estimate(Protocol):
    """A mean with the ends of its interval, which are NaN where there is none (`metrics.statistics.Interval`)."""

    @property
    def mean(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def number(value: float | int, digits: int, signed: bool = False) -> str:
    """A number with a fixed count of digits and a true minus sign; a dash for NaN.

    Example:
        >>> number(-0.0001, 2), number(9.5, 2, signed=True), number(3e7, 2), number(float("nan"), 2)
        ('0.00', '+9.50', '3.00e+07', '—')
    """
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "−∞" if value < 0 else "+∞" if signed else "∞"
    text = f"{value:.{digits}f}" if abs(value) < LARGE else f"{value:.2e}"
    if float(text) == 0:
        return text.lstrip("-")
    return f"{'+' if signed and value > 0 else ''}{text}".replace("-", "−", 1)


def significant(value: float | int | None, signed: bool = False) -> str:
    """A number with about three digits that say something; a dash for None.

    Example:
        >>> significant(73.14), significant(0.5), significant(0.00002), significant(None), significant(30522)
        ('73.1', '0.500', '2.0e−05', '—', '30,522')
    """
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value) or value == 0:
        return number(float(value), 0, signed)
    size = abs(value)
    if size >= 1e7 or size < 5e-4:
        return f"{value:{'+' if signed else ''}.1e}".replace("-", "−")
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:{'+' if signed else ''},.{digits}f}".replace("-", "−")


def amount(value: float | int | None) -> str:
    """A number that may be a count: without a point where it is an integer.

    Example:
        >>> amount(60.0), amount(0.45), amount(None)
        ('60', '0.450', '—')
    """
    if value is not None and float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return significant(value)


def half(interval: Estimate, digits: int) -> str:
    """Half the width of an interval around its mean, "±0.31"; empty where there is none.

    Example:
        >>> from types import SimpleNamespace
        >>> half(SimpleNamespace(mean=2.0, low=1.5, high=2.5), 2)
        '±0.50'
    """
    reach = (interval.high - interval.low) / 2
    return "" if math.isnan(reach) else f"±{number(reach, digits)}"


def estimate(interval: Estimate, digits: int, signed: bool = False) -> str:
    """A mean with its half-width, or the bare value of one seed; a dash for none.

    Example:
        >>> from types import SimpleNamespace
        >>> estimate(SimpleNamespace(mean=2.0, low=1.5, high=2.5), 1)
        '2.0 ±0.5'
        >>> estimate(SimpleNamespace(mean=2.0, low=float("nan"), high=float("nan")), 1)
        '2.0'
    """
    return f"{number(interval.mean, digits, signed)} {half(interval, digits)}".rstrip()


def bounds(interval: Estimate, digits: int, signed: bool = False) -> str:
    """The ends of an interval.

    Example:
        >>> from types import SimpleNamespace
        >>> bounds(SimpleNamespace(mean=0.0, low=-0.5, high=0.5), 1, signed=True)
        '−0.5 to +0.5'
    """
    return f"{number(interval.low, digits, signed)} to {number(interval.high, digits, signed)}"


def percent(share: float | int) -> str:
    r"""A share in [0, 1] in percent, with a space that does not break.

    Example:
        >>> percent(0.894)
        '89\xa0%'
    """
    return DASH if math.isnan(share) else f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def proportion(count: float | int | None, total: float | int = 1) -> str:
    r"""A share in percent; small ones with a digit more, and never 0 for something.

    Example:
        >>> proportion(1, 3000), proportion(0, 3000), proportion(0.2), proportion(None)
        ('0.033\xa0%', '0\xa0%', '20\xa0%', '—')
    """
    if count is None or not total or not math.isfinite(count):
        return DASH
    share = 100 * count / total
    if share == 0 or share >= 10:
        return percent(count / total)
    return f"{share:.2g}\N{NO-BREAK SPACE}%" if share >= 0.001 else "<\N{NO-BREAK SPACE}0.001\N{NO-BREAK SPACE}%"


def count(amount: int, noun: str) -> str:
    """An amount with its noun.

    Example:
        >>> count(1, "seed"), count(3, "seed"), count(2000, "row")
        ('1 seed', '3 seeds', '2000 rows')
    """
    return f"{amount} {noun}{'' if amount == 1 else 's'}"


def id_ranges(ids: Sequence[int], limit: int = 60) -> str:
    """Ids with neighbouring ones joined to ranges, at most `limit` of them.

    Example:
        >>> id_ranges([1, 2, 3, 7, 9, 10])
        '1–3, 7, 9, 10'
    """
    ordered = sorted(set(ids))
    breaks = [0, *(index for index, (a, b) in enumerate(pairwise(ordered), 1) if b != a + 1), len(ordered)]
    ranges = [ordered[low:high] for low, high in pairwise(breaks) if low < high]
    texts = [
        str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" if len(run) > 2 else f"{run[0]}, {run[1]}"
        for run in ranges[:limit]
    ]
    return ", ".join(texts) + (", …" if len(ranges) > limit else "")
