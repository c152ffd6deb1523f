"""Which tensors of a checkpoint a repair changes: a table, and every tensor stored apart that is the same table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decone.models.located import Located
from decone.models.tensors import FileTable, open_weights, same_table

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


def targets(located: Located, which: Which = "input") -> list[Target]:
    """Finds the tensors that hold the tables of a model.

    Args:
        located: the model.
        which: of two tables; a model with one, tied or without an output, has it repaired in any case but "output"
            without an output.

    Raises:
        ValueError: the model has no output table and one is asked for, or the tables are not in a file.
    """
    if which != "input" and located.head is None and not located.tied:
        raise ValueError(f"{located.name} has no output table; repair its input table: --table input")
    chosen: list[tuple[Role, object]] = []
    if which != "output" or located.head is None:
        chosen.append(("input", located.embedding))
    if which != "input" and located.head is not None:
        chosen.append(("output", located.head))
    found: list[Target] = []
    for role, table in chosen:
        if not isinstance(table, FileTable):
            raise ValueError(f"the {role} table of {located.name} is not in a file; save the model first")
        found.append(_target(role, table, home(located)))
    return found


def other_inputs(located: Located, target: Target) -> list[str]:
    """Names of input tables that are not the one to repair: T5Gemma's encoder and decoder have one each."""
    if located.kind != "seq2seq":
        return []
    names = open_weights(home(located)).entries
    return [name for name in names if name.endswith(INPUTS) and name not in target.names]


def home(located: Located) -> Path:
    """The folder of a located model, or its file where it is one."""
    path = Path(located.name)
    if path.exists():
        return path
    # A name at a hub: what is fetched lies flat in one folder.
    assert isinstance(located.embedding, FileTable)
    return located.embedding.file.parent


def _target(role: Role, table: FileTable, place: Path) -> Target:
    weights = open_weights(place)
    whole = weights.table(table.name)
    entry = weights.entries[table.name]
    twins = [
        name
        for name, other in weights.entries.items()
        if name != table.name and (other.shape, other.dtype) == (entry.shape, entry.dtype)
        if same_table(whole, weights.table(name))
    ]
    return Target(role, table, whole, (table.name, *twins))
