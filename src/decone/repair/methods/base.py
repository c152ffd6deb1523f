"""Interface of a repair: settings that a command line and a function share, and new rows of a table; repairs by name.

A repair is one file in this folder, found by its name: a frozen dataclass derived from `RepairMethod`, whose fields are
its settings. `decone repair NAME`, `decone.repair.api.repair_with` and the downstream studies take it from there.
"""

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from decone.files.foreign import quoted
from decone.files.settings import Progress, suggest, typed_arguments

if TYPE_CHECKING:  # names are listed and settings are read for help, which needs no torch
    from decone.models.tables import ModelTables
    from decone.repair.delta import RowDelta

TableChoice = Literal["input", "output", "both"]
ROWS = "rare|rare:SHARE|seen:SHARE|last:SHARE|all|LIST|FILE"
ROWS_HELP = (
    "rare or rare:SHARE (by --counts, or the order of ids), seen:SHARE (the rarest that occur in --counts), last:SHARE "
    "of the ids, all, a list such as 5,7-9,<s> of ids and tokens, or a file of them"
)
_FOLDER = "decone.repair.methods"
_NOT_REPAIRS = {"base"}


@dataclass(frozen=True)
class Setting:
    """Option of a field on the command line, in its annotation: `Annotated[int, Setting("...")]`.

    Attributes:
        help: text of the option.
        flags: names of the option; without them the field's name.
        minimum: of a number.
        default: text in place of a default that depends on the model.
        metavar: name of its value; without one the type's.
    """

    help: str
    flags: tuple[str, ...] = ()
    minimum: int | None = None
    default: str | None = None
    metavar: str | None = None


# Settings of several repairs.
CountsFile = Annotated[Path | None, Setting("Token frequencies: lines of id or token, tab, count.", metavar="FILE")]
InputName = Annotated[str | None, Setting("Name of the input table in the file.", metavar="NAME")]
OutputName = Annotated[str | None, Setting("Name of the output table in the file.", metavar="NAME")]


@dataclass(frozen=True)
class SettingField:
    """A field of a repair: its name, type, option, and default; `MISSING` without one."""

    name: str
    type: Any
    setting: Setting
    default: Any


@dataclass
class RepairedRows:
    """New rows of the tables of a model, with their description.

    Attributes:
        deltas: new rows, one per table.
        settings: of the method, as they stand in the delta.
        results: of the method, by the role of the table.
        notes: sentences for the user.
    """

    deltas: "list[RowDelta]"
    settings: dict[str, Any]
    results: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RepairVariant:
    """A repair with fixed settings: a row of the downstream studies.

    Attributes:
        name: of the row.
        label: heading of the row.
        settings: called when the repair is made, for they may name files that have to be there.
    """

    name: str
    label: str
    settings: Callable[[], Mapping[str, Any]] = dict


class RepairMethod(ABC):
    """A repair: settings in, new rows out. Its docstring is the help of its command.

    Attributes:
        model: help of the argument.
        seed: the option `--seed`.
        controlled: its gain is held against rows that merely shrink, which rows made anew are not.
        variants: rows of the downstream studies.
    """

    model: ClassVar[str] = "A Hugging Face model (folder or hub name), a file, or a decone run."
    seed: ClassVar[Setting] = Setting("Of the rows shown.")
    controlled: ClassVar[bool] = True
    variants: ClassVar[tuple[RepairVariant, ...]] = ()

    def find_tables(self, model: str) -> "ModelTables":
        """Finds the tables of a model, under the names in the settings `embedding` and `head` where it has them."""
        from decone.models.find_tables import find_tables

        return find_tables(model, getattr(self, "embedding", None), getattr(self, "head", None))

    @abstractmethod
    def repair(self, model_tables: "ModelTables", seed: int, progress: Progress) -> RepairedRows:
        """Makes new rows; the model stays as it is.

        Args:
            model_tables: of the model.
            seed: of everything random.
            progress: called with a stage, the steps done and their number.

        Raises:
            ValueError: the model or the settings do not allow it.
        """

    @classmethod
    def settings_of(cls) -> list[SettingField]:
        """The settings in their order, from the fields' annotations."""
        settings = []
        for name, hint in get_type_hints(cls, include_extras=True).items():
            if get_origin(hint) is Annotated:
                kind, setting = get_args(hint)
                settings.append(SettingField(name, kind, setting, getattr(cls, name, MISSING)))
        return settings


def method_names() -> list[str]:
    """Names of all repairs.

    Example:
        >>> "definitions" in method_names() and "directions" in method_names()
        True
    """
    folder = importlib.import_module(_FOLDER)
    files = {module.name for module in pkgutil.iter_modules(folder.__path__)}
    return sorted(file.replace("_", "-") for file in files - _NOT_REPAIRS)


def find_method(name: str) -> type[RepairMethod]:
    """The class of a repair.

    Raises:
        ValueError: no repair has that name; the nearest one is suggested.

    Example:
        >>> find_method("directions").__name__
        'Directions'
    """
    names = method_names()
    if name not in names:
        raise ValueError(f"unknown repair {quoted(name)}; {suggest(name, names, 'choose one of ' + ', '.join(names))}")
    module = importlib.import_module(f"{_FOLDER}.{name.replace('-', '_')}")
    for _, candidate in inspect.getmembers(module, inspect.isclass):
        if issubclass(candidate, RepairMethod) and candidate.__module__ == module.__name__:
            return candidate
    raise ValueError(f"{module.__name__} defines no repair; add a class derived from RepairMethod")


def build_method(name: str, settings: Mapping[str, Any]) -> RepairMethod:
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
            hint = suggest(key, list(declared), f"it knows {', '.join(declared)}")
            raise ValueError(f"repair {quoted(name)} has no setting {quoted(key)}; {hint}")
    for key, setting in declared.items():
        if setting.default is MISSING and key not in settings:
            raise ValueError(f"repair {quoted(name)} needs the setting {quoted(key)}")
    return method(**typed_arguments(method, settings, f"repair {name!r}: {{}}={{!r:.80}}: {{}}".format))


def repair_variants() -> dict[str, tuple[str, RepairVariant]]:
    """Variants of all repairs by name, with the name of their repair."""
    return {variant.name: (name, variant) for name in method_names() for variant in find_method(name).variants}
