"""Numbers in English words, for tokens of digits that no lexicon defines."""

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_UNITS = (*_DIGITS, "ten", "eleven", "twelve", *_TEENS)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_POWERS = (("billion", 10**9), ("million", 10**6), ("thousand", 10**3), ("hundred", 100))
LONGEST = 12  # digits; longer ones, and those with a zero in front, are read digit by digit


def spelled(digits: str) -> str:
    """A number in words.

    Args:
        digits: decimal digits of any script.

    Raises:
        ValueError: it holds anything else.

    Example:
        >>> spelled("1984"), spelled("007"), spelled("40")
        ('one thousand nine hundred eighty-four', 'zero zero seven', 'forty')
    """
    if not digits.isdecimal():
        raise ValueError(f"{digits[:40]!r} is not a number in digits")
    if len(digits) > LONGEST or (len(digits) > 1 and int(digits[0]) == 0):
        return " ".join(_UNITS[int(digit)] for digit in digits)
    return _said(int(digits))


def _said(number: int) -> str:
    if number < 20:
        return _UNITS[number]
    if number < 100:
        tens, unit = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_UNITS[unit]}" if unit else "")
    name, power = next((name, power) for name, power in _POWERS if number >= power)
    many, rest = divmod(number, power)
    return f"{_said(many)} {name}" + (f" {_said(rest)}" if rest else "")
