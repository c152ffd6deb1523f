"""The objectives as a catalogue: what each cures, what it costs, its settings, its paper."""

import inspect
from typing import Any

from pydantic import BaseModel

from decone.objectives import registry


class MethodCard(BaseModel, frozen=True):
    """One objective.

    Attributes:
        name: as in a method, e.g. "threshold".
        cures: what it is for.
        cost: what it takes.
        paper: where it comes from.
        settings: default of each argument by its name, None where there is none.
        description: the docstring of its class.
    """

    name: str
    cures: str
    cost: str
    paper: str
    settings: dict[str, Any]
    description: str


class MethodCatalogue(BaseModel, frozen=True):
    """Objectives in alphabetical order."""

    methods: tuple[MethodCard, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the content for JSON."""
        return self.model_dump(mode="json")


def methods(name: str | None = None) -> MethodCatalogue:
    """Lists the objectives, ours and those that other packages offer.

    Args:
        name: one of them only.

    Raises:
        ValueError: no objective has that name; the nearest one is suggested.

    Example:
        >>> methods("threshold").methods[0].settings["margin"]
        1.0
    """
    return MethodCatalogue(methods=tuple(map(_card, [name] if name else registry.names())))


def _card(name: str) -> MethodCard:
    objective = registry.find(name)
    parameters = list(inspect.signature(objective.__init__).parameters.values())[1:]
    return MethodCard(
        name=name,
        cures=objective.cures,
        cost=objective.cost,
        paper=objective.paper,
        settings={item.name: None if item.default is item.empty else item.default for item in parameters},
        description=inspect.cleandoc(objective.__doc__ or ""),
    )
