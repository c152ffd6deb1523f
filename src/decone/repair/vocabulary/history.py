"""decone.json: what was done to the vocabulary of a model, kept with it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from decone import __version__
from decone.files.folder import read_text
from decone.files.foreign import plain
from decone.models.tables import ModelTables
from decone.repair.vocabulary.result import HISTORY, History, Step, TableFacts
from decone.training.provenance import provenance

NAME = "decone.json"
# In a folder of its own: some programs load every safetensors file that lies beside the weights.
IDS = "decone/ids.safetensors"


def read_history(folder: Path) -> list[Step]:
    """What was done to a model before, oldest first; nothing where it has no decone.json.

    Raises:
        ValueError: the file is not ours.
    """
    text = read_text(folder, NAME)
    if text is None:
        return []
    try:
        return History.model_validate_json(text).steps
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            f"{folder / NAME} is no history of a vocabulary that this version can read ({plain(first['loc'])}: "
            f"{plain(first['msg'])}); move it out of the folder"
        ) from None


def step(
    method: Literal["grow", "trim"],
    model_tables: ModelTables,
    settings: dict[str, Any],
    tokens: tuple[int, int],
    rows: tuple[int, int],
    tables: list[TableFacts],
    notes: list[str],
) -> Step:
    """What is done now.

    Args:
        method: its name.
        model_tables: the source.
        settings: as it was called.
        tokens: of the tokenizer, before and after.
        rows: of the tables, before and after.
        tables: that were resized.
        notes: what a user must know.
    """
    return Step(
        method=method,
        settings=settings,
        model=Path(model_tables.name).resolve().name if Path(model_tables.name).exists() else model_tables.name,
        tokens_before=tokens[0],
        tokens_after=tokens[1],
        rows_before=rows[0],
        rows_after=rows[1],
        tables=tables,
        notes=notes,
        decone=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        provenance=provenance(),
    )


def content(steps: list[Step]) -> bytes:
    """The file."""
    return (History(schema=HISTORY, steps=steps).model_dump_json(by_alias=True, indent=2) + "\n").encode()
