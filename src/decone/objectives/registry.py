"""Objectives by name, and their catalogue: what each cures, what it costs, its settings, its paper.

The file name is the name. A new file in this folder is found without any list to edit.
"""

import importlib
import inspect
import pkgutil
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ConfigDict

from decone.document.blocks import Document, DocumentModel, Facts, Grid, GridColumn, Passage, Section, Title
from decone.files.foreign import quoted
from decone.files.settings import parameter_names, suggest, typed_arguments
from decone.objectives.base import Objective

_GROUP = "decone.objectives"  # the package, and the entry-point group of other packages
# `sequence_unlikelihood` needs the model itself, not its hidden states: it is called in a loop of one's own.
_NOT_METHODS = {"base", "registry", "compose", "sequence_unlikelihood"}


def names() -> list[str]:
    """Names of all objectives, ours and those other packages offer under the entry-point group `decone.objectives`.

    Example:
        >>> "mle" in names() and "threshold" in names()
        True
    """
    package = importlib.import_module(_GROUP)
    files = {module.name for module in pkgutil.iter_modules(package.__path__)} - _NOT_METHODS
    return sorted(files | {point.name for point in entry_points(group=_GROUP)})


def find(name: str) -> type[Objective]:
    """Returns the class of an objective.

    Args:
        name: as in `names()`.

    Raises:
        ValueError: no objective has that name; the nearest one is suggested.

    Example:
        >>> find("threshold").__name__
        'Threshold'
    """
    if name not in (available := names()):
        hint = suggest(name, available, f"choose one of {', '.join(available)}")
        raise ValueError(f"unknown method {quoted(name)}; {hint}")
    for point in entry_points(group=_GROUP):
        if point.name == name:
            foreign: type[Objective] = point.load()
            return foreign
    module = importlib.import_module(f"{_GROUP}.{name}")
    for _, member in inspect.getmembers(module, inspect.isclass):
        if issubclass(member, Objective) and member.__module__ == module.__name__:
            return member
    raise ValueError(f"{module.__name__} defines no objective; add a class derived from Objective")


def get(name: str, **settings: Any) -> Objective:
    """Builds an objective; settings may be strings, as they come from a command line.

    Args:
        name: as in `names()`.
        settings: arguments of the class.

    Raises:
        ValueError: unknown name or setting (the nearest one is suggested), or a value out of range.

    Example:
        >>> get("threshold", margin="0.5").margin
        0.5
    """
    objective = find(name)
    parameters = parameter_names(objective.__init__)
    settings = {objective.renamed.get(key, key): value for key, value in settings.items()}
    for key in settings:
        if key not in parameters:
            hint = suggest(key, parameters, f"it knows {', '.join(parameters) or 'no settings'}")
            raise ValueError(f"method {quoted(name)} has no setting {quoted(key)}; {hint}")
    message = f"method {quoted(name)}, setting {{}}={{}}: {{}}"
    return objective(**typed_arguments(objective.__init__, settings, message.format))


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
    return MethodCatalogue(methods=tuple(map(_card, [name] if name else names())))


def _card(name: str) -> MethodCard:
    objective = find(name)
    parameters = list(inspect.signature(objective.__init__).parameters.values())[1:]
    return MethodCard(
        name=name,
        cures=objective.cures,
        cost=objective.cost,
        paper=objective.paper,
        settings={item.name: None if item.default is item.empty else item.default for item in parameters},
        description=inspect.cleandoc(objective.__doc__ or ""),
    )
