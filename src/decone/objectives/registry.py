"""Objectives by name: the file name is the name. A new file in this folder is found without any list to edit."""

import importlib
import inspect
import pkgutil
from importlib.metadata import entry_points
from typing import Any

from decone.files.settings import parameter_names, suggest, typed_arguments
from decone.objectives.base import Objective

_GROUP = "decone.objectives"  # the package, and the entry-point group of other packages
# `sequence_unlikelihood` needs the model itself, not its hidden states: it is called in a loop of one's own.
_NOT_METHODS = {"base", "cards", "registry", "compose", "sequence_unlikelihood"}


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
        raise ValueError(f"unknown method {name!r}; {hint}")
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
            raise ValueError(f"method {name!r} has no setting {key!r}; {hint}")
    message = f"method {name!r}, setting {{}}={{}}: {{}}"
    return objective(**typed_arguments(objective.__init__, settings, message.format))
