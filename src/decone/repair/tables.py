"""Tensors of a checkpoint that a repair changes: a table, and every tensor stored apart that is the same table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decone.files.safetensors import FileTable, open_weights
from decone.models.tables import ModelTables, same_table
from decone.repair.methods.base import TableChoice

Role = Literal["input", "output"]
INPUTS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "shared.weight")  # of models with both


@dataclass(frozen=True)
class RepairTarget:
    """A table to repair.

    Attributes:
        role: of the table in the model; "input" where it is both.
        table: its rows; without those that only one of two tables has.
        full_table: all rows that the file holds.
        names: its tensor, and then others with the same bytes: tied tables that are stored twice stay tied.
    """

    role: Role
    table: FileTable
    full_table: FileTable
    names: tuple[str, ...]


def repair_targets(model_tables: ModelTables, table: TableChoice = "input") -> list[RepairTarget]:
    """Finds the tensors that hold the tables of a model.

    Args:
        model_tables: the model.
        table: of two; a model with one, tied or without an output, has it repaired in any case but "output" without an
            output.

    Raises:
        ValueError: the model has no output table although one is to be repaired, or the tables are not in a file.
    """
    if table != "input" and model_tables.head is None and not model_tables.tied:
        raise ValueError(f"{model_tables.name} has no output table; repair its input table: --table input")
    selection: list[tuple[Role, object]] = []
    if table != "output" or model_tables.head is None:
        selection.append(("input", model_tables.embedding))
    if table != "input" and model_tables.head is not None:
        selection.append(("output", model_tables.head))
    targets: list[RepairTarget] = []
    for role, rows in selection:
        if not isinstance(rows, FileTable):
            raise ValueError(f"the {role} table of {model_tables.name} is not in a file; save the model first")
        targets.append(_target(role, rows, model_path(model_tables)))
    return targets


def separate_inputs(model_tables: ModelTables, target: RepairTarget) -> list[str]:
    """Names of input tables that are not the one to repair: T5Gemma's encoder and decoder have one each."""
    if model_tables.kind != "seq2seq":
        return []
    names = open_weights(model_path(model_tables)).tensors
    return [name for name in names if name.endswith(INPUTS) and name not in target.names]


def model_path(model_tables: ModelTables) -> Path:
    """The folder of a model whose tables were found, or its file where it is one."""
    path = Path(model_tables.name)
    if path.exists():
        return path
    # A name at a hub: its files lie flat in one folder.
    assert isinstance(model_tables.embedding, FileTable)
    return model_tables.embedding.file.parent


def _target(role: Role, table: FileTable, path: Path) -> RepairTarget:
    weights = open_weights(path)
    full_table = weights.table(table.name)
    entry = weights.tensors[table.name]
    twins = [
        name
        for name, candidate in weights.tensors.items()
        if name != table.name and (candidate.shape, candidate.dtype) == (entry.shape, entry.dtype)
        if same_table(full_table, weights.table(name))
    ]
    return RepairTarget(role, table, full_table, (table.name, *twins))
