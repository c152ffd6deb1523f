"""Objectives by name: the file name is the name. A new file in this folder is found without any list to edit."""

import difflib
import importlib
import inspect
import pkgutil
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from decone.objectives.base import Objective

_ROOM = "decone.objectives"
# `sequence_unlikelihood` needs the model itself, not its hidden states: it is called in a loop of one's own.
_NOT_METHODS = {"base", "cards", "registry", "compose", "sequence_unlikelihood"}


def names() -> list[str]:
    """Names of all objectives, ours and those other packages offer under the entry-point group `decone.objectives`.

    Example:
        >>> "mle" in names() and "threshold" in names()
        True
    """
    room = importlib.import_module(_ROOM)
    ours = {module.name for module in pkgutil.iter_modules(room.__path__)} - _NOT_METHODS
    return sorted(ours | {point.name for point in entry_points(group=_ROOM)})


def find(name: str) -> type[Objective]:
    """The class of an objective.

    Args:
        name: as in `names()`.

    Raises:
        ValueError: no objective has that name; the nearest one is suggested.

    Example:
        >>> find("threshold").__name__
        'Threshold'
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"
        raise ValueError(f"unknown method {name!r}; {hint}")
    for point in entry_points(group=_ROOM):
        if point.name == name:
            offered: type[Objective] = point.load()
            return offered
    module = importlib.import_module(f"{_ROOM}.{name}")
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, Objective) and found.__module__ == module.__name__:
            return found
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
    found = find(name)
    known = list(inspect.signature(found.__init__).parameters)[1:]
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known) or 'no settings'}"
            raise ValueError(f"method {name!r} has no setting {key!r}; {hint}")
    hints = get_type_hints(found.__init__)
    typed = {}
    for key, value in settings.items():
        try:
            typed[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"method {name!r}, setting {key}={value}: {error.errors()[0]['msg']}") from None
    return found(**typed)
