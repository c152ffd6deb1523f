"""Nested values in one line each."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as dotted keys with their values as text.

    Example:
        >>> list(flat({"model": {"width": 64}, "commit": None}))
        [('model.width', '64'), ('commit', 'not known')]
    """
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{dotted}.")
        elif value is None:
            yield dotted, "not known"
        else:
            yield dotted, value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
