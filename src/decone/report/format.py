"""Numbers and foreign strings as text, the same in a terminal, in markdown and on a page."""

import math
from collections.abc import Iterable

from decone.files.foreign import visible
from decone.metrics.intervals import Interval
from decone.studies.table import MAIN as MAIN
from decone.studies.table import Measure

DASH = "—"
NOT_RUN = "not run"
LARGE = 1e5  # from here on digits after the point say nothing

LANGUAGES = {"HR": "high-resource language", "LR": "low-resource language", "all": "whole text"}


def language(name: str) -> str:
    """A language in words.

    Example:
        >>> language("LR"), language("Maltese")
        ('low-resource language (LR)', 'Maltese')
    """
    if name not in LANGUAGES:
        return visible(name)
    return LANGUAGES[name] if name == "all" else f"{LANGUAGES[name]} ({name})"


def number(value: float, digits: int, signed: bool = False) -> str:
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


def half(interval: Interval, digits: int) -> str:
    """Half the width of an interval around its mean, "±0.31"; empty where there is none.

    Example:
        >>> half(Interval(2.0, 1.5, 2.5, 3), 2)
        '±0.50'
    """
    reach = (interval.high - interval.low) / 2
    return "" if math.isnan(reach) else f"±{number(reach, digits)}"


def estimate(interval: Interval, digits: int, signed: bool = False) -> str:
    """A mean with its half-width, or the bare value of one seed; a dash for none.

    Example:
        >>> estimate(Interval(2.0, 1.5, 2.5, 3), 1), estimate(Interval(2.0, float("nan"), float("nan"), 1), 1)
        ('2.0 ±0.5', '2.0')
    """
    return f"{number(interval.mean, digits, signed)} {half(interval, digits)}".rstrip()


def bounds(interval: Interval, digits: int, signed: bool = False) -> str:
    """The ends of an interval.

    Example:
        >>> bounds(Interval(0.0, -0.5, 0.5, 3), 1, signed=True)
        '−0.5 to +0.5'
    """
    return f"{number(interval.low, digits, signed)} to {number(interval.high, digits, signed)}"


def percent(share: float) -> str:
    r"""A share in [0, 1] in percent, with a space that does not break.

    Example:
        >>> percent(0.894)
        '89\xa0%'
    """
    return DASH if math.isnan(share) else f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def count(amount: int, noun: str) -> str:
    """An amount with its noun.

    Example:
        >>> count(1, "seed"), count(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{amount} {noun}{'' if amount == 1 else 's'}"


def seeds(counts: Iterable[int]) -> str:
    """How many seeds are behind the cells of a line: one number, or the least and the most.

    Example:
        >>> seeds([3, 3]), seeds([2, 0, 3]), seeds([0])
        ('3', '0–3', 'not run')
    """
    found = sorted(set(counts))
    if not found or found == [0]:
        return NOT_RUN
    return str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}"


def clear(difference: Interval) -> bool:
    """Whether an interval excludes 0; one seed has no interval, so nothing is clear."""
    return difference.low > 0 or difference.high < 0


def verdict(measure: Measure, difference: Interval) -> str:
    """What a difference means: better, worse, higher or lower; not clear while its interval includes 0.

    Example:
        >>> verdict(Measure("perplexity", "PPL", False, 2), Interval(-2.0, -3.0, -1.0, 3))
        'better'
        >>> verdict(Measure("perplexity", "PPL", False, 2), Interval(-2.0, -5.0, 1.0, 3))
        'not clear with 3 seeds'
    """
    if not clear(difference):
        return f"not clear with {count(difference.count, 'seed')}"
    if measure.higher is None:
        return "higher" if difference.mean > 0 else "lower"
    return "better" if (difference.mean > 0) == measure.higher else "worse"
