"""Optimisers, one file per name of the command line; those here know that a table is a list of rows."""

from decone.optim.adamw import FrozenRows
from decone.optim.registry import build, find, names, options
from decone.optim.row_adamw import RowAdamW

__all__ = ["FrozenRows", "RowAdamW", "build", "find", "names", "options"]
