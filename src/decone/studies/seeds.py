"""Which seeds a number of seeds means."""

import itertools

FIRST = 1337  # the papers' own seed comes first, so that one seed is their run


def seeds(text: str) -> list[int]:
    """Reads a number of seeds, or the seeds themselves.

    Args:
        text: "3" for three seeds (1337, 1, 2), "1337,7" for exactly these; one seed is written "7,".

    Raises:
        ValueError: not a positive number or a list of different numbers >= 0.

    Example:
        >>> seeds("3"), seeds("5,6")
        ([1337, 1, 2], [5, 6])
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"--seeds {text!r} is not a number; write 3, or a list such as 1337,1,2") from None
    if "," in text:
        if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
            raise ValueError(f"--seeds {text!r} needs different numbers of 0 or more")
        return numbers
    if not numbers or numbers[0] < 1:
        raise ValueError(f"--seeds {text!r} must be 1 or more; an interval needs at least 2")
    others = (seed for seed in itertools.count(1) if seed != FIRST)
    return [FIRST, *itertools.islice(others, numbers[0] - 1)]
