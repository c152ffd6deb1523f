"""Which engine evaluates a loss, and why."""

from typing import NamedTuple

from torch import Tensor

from decone.engines.chunked import chunked
from decone.engines.contract import Engine, Rule
from decone.engines.reference import reference

ENGINES: dict[str, Engine] = {"reference": reference, "chunked": chunked}


class Choice(NamedTuple):
    """An engine's name and one sentence that says why it was taken."""

    name: str
    reason: str


def choose(engine: str = "auto") -> Choice:
    """Resolves an engine's name.

    Args:
        engine: "auto", "chunked" or "reference".

    Returns:
        The engine's name and the reason for it.

    Raises:
        ValueError: the name is not known.

    Example:
        >>> choose("auto").name
        'chunked'
    """
    if engine == "auto":
        return Choice("chunked", "right on every device, and its memory does not grow with tokens x vocabulary")
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; choose one of auto, {', '.join(sorted(ENGINES))}")
    return Choice(engine, "asked for by name")


def get(
    engine: str | Engine = "auto",
    hidden: Tensor | None = None,
    weight: Tensor | None = None,
    rule: Rule | None = None,
) -> Engine:
    """The engine of that name, see `choose`; an engine is returned as it is."""
    return ENGINES[choose(engine).name] if isinstance(engine, str) else engine
