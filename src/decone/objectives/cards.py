"""The objectives as a catalogue: what each cures, what it costs, its settings, its paper."""

import inspect
from typing import Any

from pydantic import BaseModel, ConfigDict

from decone.document.blocks import Document, DocumentModel, Facts, Grid, GridColumn, Passage, Section, Title
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


class MethodCatalogue(DocumentModel):
    """Objectives in alphabetical order."""

    model_config = ConfigDict(frozen=True)

    methods: tuple[MethodCard, ...]

    def to_document(self) -> Document:
        """A table of the objectives; a single one in full."""
        if len(self.methods) == 1:
            (card,) = self.methods
            facts = Facts((("cures", card.cures), ("cost", card.cost), ("settings", ", ".join(card.settings) or "-")))
            passage = Passage("Description", "", card.description)
            return Document(Title(card.name, about=card.paper), (Section("method", "", (facts, passage)),))
        columns = (GridColumn(name, "left") for name in ("cures", "cost", "settings", "paper"))
        rows = ((m.name, m.cures, m.cost, ", ".join(m.settings) or "-", m.paper) for m in self.methods)
        grid = Grid(("method", *columns), tuple(rows))
        return Document(Title("Objectives"), (Section("methods", "", (grid,)),))


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
