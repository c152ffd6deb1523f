"""Which tensors of a checkpoint a repair changes: a table, and every tensor stored apart that is the same table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decone.files.safetensors import FileTable, open_weights
from decone.models.tables import ModelTables, same_table

Which = Literal["input", "output", "both"]
Role = Literal["input", "output"]
INPUTS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "shared.weight")  # of models with both


@dataclass(frozen=True)
class Target:
    """A table to repair.

    Attributes:
        role: what the model uses it for; "input" where it is both.
        table: its rows; without those that only one of two tables has.
        whole: all rows that the file holds.
        names: its tensor, and then others with the same bytes: tied tables that are stored twice stay tied.
    """

    role: Role
    table: FileTable
    whole: FileTable
    names: tuple[str, ...]


def targets(model_tables: ModelTables, which: Which = "input") -> list[Target]:
    """Finds the tensors that hold the tables of a model.

    Args:
        model_tables: the model.
        which: of two tables; a model with one, tied or without an output, has it repaired in any case but "output"
            without an output.

    Raises:
        ValueError: the model has no output table and one is asked for, or the tables are not in a file.
    """
    if which != "input" and model_tables.head is None and not model_tables.tied:
        raise ValueError(f"{model_tables.name} has no output table; repair its input table: --table input")
    chosen: list[tuple[Role, object]] = []
    if which != "output" or model_tables.head is None:
        chosen.append(("input", model_tables.embedding))
    if which != "input" and model_tables.head is not None:
        chosen.append(("output", model_tables.head))
    found: list[Target] = []
    for role, table in chosen:
        if not isinstance(table, FileTable):
            raise ValueError(f"the {role} table of {model_tables.name} is not in a file; save the model first")
        found.append(_target(role, table, home(model_tables)))
    return found


def other_inputs(model_tables: ModelTables, target: Target) -> list[str]:
    """Names of input tables that are not the one to repair: T5Gemma's encoder and decoder have one each."""
    if model_tables.kind != "seq2seq":
        return []
    names = open_weights(home(model_tables)).tensors
    return [name for name in names if name.endswith(INPUTS) and name not in target.names]


def home(model_tables: ModelTables) -> Path:
    """The folder of a located model, or its file where it is one."""
    path = Path(model_tables.name)
    if path.exists():
        return path
    # A name at a hub: what is fetched lies flat in one folder.
    assert isinstance(model_tables.embedding, FileTable)
    return model_tables.embedding.file.parent


def _target(role: Role, table: FileTable, place: Path) -> Target:
    weights = open_weights(place)
    whole = weights.table(table.name)
    entry = weights.tensors[table.name]
    twins = [
        name
        for name, other in weights.tensors.items()
        if name != table.name and (other.shape, other.dtype) == (entry.shape, entry.dtype)
        if same_table(whole, weights.table(name))
    ]
    return Target(role, table, whole, (table.name, *twins))
