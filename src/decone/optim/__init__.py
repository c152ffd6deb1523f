"""Optimisers that know a table is a list of rows: a row without gradient can be left alone."""

from decone.optim.row_adamw import RowAdamW

__all__ = ["RowAdamW"]
