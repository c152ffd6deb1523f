"""Repairs by name: that of the file, hyphens for underscores. A new file in this folder is found without any list."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # names are listed without loading what repairs need
    from decone.repair.methods.base import RepairMethod, RepairVariant

_FOLDER = "decone.repair.methods"
_NOT_REPAIRS = {"base", "registry"}


def method_names() -> list[str]:
    """Names of all repairs.

    Example:
        >>> "definitions" in method_names() and "directions" in method_names()
        True
    """
    folder = importlib.import_module(_FOLDER)
    files = {module.name for module in pkgutil.iter_modules(folder.__path__)}
    return sorted(file.replace("_", "-") for file in files - _NOT_REPAIRS)


def find_method(name: str) -> "type[RepairMethod]":
    """The class of a repair.

    Raises:
        ValueError: no repair has that name; the nearest one is suggested.

    Example:
        >>> find_method("directions").__name__
        'Directions'
    """
    from decone.repair.methods.base import RepairMethod

    names = method_names()
    if name not in names:
        from decone.files.settings import suggest

        raise ValueError(f"unknown repair {name!r}; {suggest(name, names, 'choose one of ' + ', '.join(names))}")
    module = importlib.import_module(f"{_FOLDER}.{name.replace('-', '_')}")
    for _, candidate in inspect.getmembers(module, inspect.isclass):
        if issubclass(candidate, RepairMethod) and candidate.__module__ == module.__name__:
            return candidate
    raise ValueError(f"{module.__name__} defines no repair; add a class derived from RepairMethod")


def build_method(name: str, settings: Mapping[str, Any]) -> "RepairMethod":
    """Builds a repair.

    Raises:
        ValueError: no repair has that name, it has no such setting, or one is missing.

    Example:
        >>> build_method("directions", {"component": 2})
        Traceback (most recent call last):
        ValueError: repair 'directions' has no setting 'component'; did you mean 'components'?
    """
    method = find_method(name)
    declared = {setting.name: setting for setting in method.settings_of()}
    for key in settings:
        if key not in declared:
            from decone.files.settings import suggest

            hint = suggest(key, list(declared), f"it knows {', '.join(declared)}")
            raise ValueError(f"repair {name!r} has no setting {key!r}; {hint}")
    for key, setting in declared.items():
        if setting.default is MISSING and key not in settings:
            raise ValueError(f"repair {name!r} needs the setting {key!r}")
    return method(**settings)


def repair_variants() -> "dict[str, tuple[str, RepairVariant]]":
    """Variants of all repairs by name, with the name of their repair."""
    return {variant.name: (name, variant) for name in method_names() for variant in find_method(name).variants}
