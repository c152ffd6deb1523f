"""Colours of a scan's plots, for each frequency group, each table and suspects; and their logarithmic axes."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from decone.report.style import DARK, HIGH, HIGH_DARK, LIGHT, LOW, LOW_DARK, exchange

GROUP = {"frequent": LIGHT[1], "medium": LIGHT[0], "rare": LIGHT[2], "special": LIGHT[3], "all": LIGHT[5]}
SUSPECT = LOW
MODEL = {"model": LIGHT[1], "human": LIGHT[0]}
TABLE = {"embedding": HIGH, "head": LIGHT[4]}
TABLES = {"embedding": "embedding", "head": "output table"}
FAINT = 0.22  # of an area under a line


def group_colour(name: str) -> str:
    """The colour of a frequency group."""
    return GROUP.get(name, LIGHT[5])


def faint(colour: str) -> str:
    """A colour for an area.

    Example:
        >>> faint("#0955ce")
        'rgba(9,85,206,0.22)'
    """
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{FAINT})"


def colours() -> dict[str, str]:
    """For each light colour, faint ones too, the one that takes its place on a dark ground."""
    light, dark = (*LIGHT, HIGH, LOW), (*DARK, HIGH_DARK, LOW_DARK)
    return exchange() | {faint(one): faint(other) for one, other in zip(light, dark, strict=True)}


def swatches(names: Sequence[str]) -> str:
    """Style rules for the dot of each group, in both lights."""
    dark = exchange()
    lights = "".join(f".own-{name}{{--own:{group_colour(name)}}}" for name in names)
    darks = "".join(f".own-{name}{{--own:{dark[group_colour(name)]}}}" for name in names)
    return f"{lights}@media (prefers-color-scheme:dark){{{darks}}}"


def human_first(names: Iterable[str]) -> list[str]:
    """Names in order, the human reference before all others."""
    return sorted(names, key=lambda name: name != "human")


def log_axis(title: str, low: float | int, high: float | int) -> dict[str, Any]:
    """A logarithmic axis from `low` to `high`, with ticks at 1, 2 and 5 where there is room for them.

    Example:
        >>> log_axis("pull", 1, 100)["range"], log_axis("pull", 1, 1000)["dtick"]
        ([0.0, 2.0], 1)
    """
    ends = [math.log10(low), math.log10(high)]
    decades = ends[1] - ends[0]
    ticks: dict[str, Any] = {"dtick": "D2" if decades <= 2 else 1}
    ticks |= {"tickformat": "~g"} if decades <= 5 else {"exponentformat": "power"}
    return {"type": "log", "range": ends, "title": {"text": title}, **ticks}
