"""Optimisers by name: the file name, with dashes. A new file in this folder is found without any list to edit.

A file holds a function `build`, as in `adamw`. Other packages offer theirs under the entry-point group
`decone.optimizers`.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

import torch
from torch import Tensor

from decone.files.foreign import quoted
from decone.files.settings import suggest, typed_arguments
from decone.optim import adamw

Builder = Callable[..., torch.optim.Optimizer]

_PACKAGE, _GROUP = "decone.optim", "decone.optimizers"
_NO_OPTIMIZERS = {"registry", "row_kernel", "row_update"}


def names() -> list[str]:
    """Names of all optimisers.

    Example:
        >>> "adamw" in names() and "row-adamw" in names()
        True
    """
    package = importlib.import_module(_PACKAGE)
    files = {module.name for module in pkgutil.iter_modules(package.__path__)} - _NO_OPTIMIZERS
    return sorted({file.replace("_", "-") for file in files} | {point.name for point in entry_points(group=_GROUP)})


def find(name: str) -> Builder:
    """Returns the function that builds an optimiser.

    Args:
        name: as in `names()`.

    Raises:
        ValueError: no optimiser has that name; the nearest one is suggested.

    Example:
        >>> find("adamw").__module__
        'decone.optim.adamw'
    """
    if name not in (available := names()):
        hint = suggest(name, available, f"choose one of {', '.join(available)}")
        raise ValueError(f"unknown optimiser {quoted(name)}; {hint}")
    for point in entry_points(group=_GROUP):
        if point.name == name:
            foreign: Builder = point.load()
            return foreign
    builder: Builder = importlib.import_module(f"{_PACKAGE}.{name.replace('-', '_')}").build
    return builder


def options(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the settings of an optimiser to their types; strings may come from a command line.

    Args:
        name: as in `names()`.
        settings: settings by name.

    Raises:
        ValueError: unknown name or setting, or a value out of range.

    Example:
        >>> options("row-adamw", {"compiled": "false"})
        {'compiled': False}
    """
    builder = find(name)
    keys = inspect.signature(builder).parameters.keys() - inspect.signature(adamw.build).parameters.keys()
    for key in settings:
        if key not in keys:
            parameters = [parameter for parameter in inspect.signature(builder).parameters if parameter in keys]
            hint = suggest(key, parameters, f"it knows {', '.join(parameters) or 'no settings'}")
            raise ValueError(f"optimiser {quoted(name)} has no setting {quoted(key)}; {hint}")
    return typed_arguments(builder, settings, f"{name} setting {{}}={{}}: {{}}".format)


def build(
    name: str,
    groups: list[dict[str, Any]],
    tables: Sequence[Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    fused: bool,
    settings: Mapping[str, Any],
) -> torch.optim.Optimizer:
    """Builds an optimiser.

    Args:
        name: as in `names()`.
        groups: parameter groups of torch, with the weight decay of each.
        tables: embedding tables among the parameters.
        lr: learning rate.
        betas: decay of the first and second moment.
        fused: torch's fused kernel can be used on the device.
        settings: settings of this optimiser; strings may come from a command line.

    Raises:
        ValueError: as `options`.
    """
    return find(name)(groups, tables, lr=lr, betas=betas, fused=fused, **options(name, settings))
