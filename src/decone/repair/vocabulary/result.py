"""What growing and trimming say and store, as data: decone.json in the new folder, and the JSON the commands print.

A field may be added; one that changes its meaning or goes raises the number in its schema.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from decone import __version__
from decone.files.folder import read_text
from decone.files.foreign import plain
from decone.models.tables import ModelTables
from decone.repair.result import Digest, Neighbour, Part
from decone.training.machine import provenance

HISTORY: Literal["decone.vocabulary/1"] = "decone.vocabulary/1"
GROWN: Literal["decone.grow/1"] = "decone.grow/1"
TRIMMED: Literal["decone.trim/1"] = "decone.trim/1"


class TableFacts(Part):
    """One table or bias, and the tensors with its bytes."""

    role: Literal["input", "output", "bias"]
    tensors: list[str] = Field(min_length=1, description="names, foreign strings")
    dtype: str = Field(description="as in the header of safetensors")
    shape_before: list[int]
    shape_after: list[int]
    before: str = Digest
    after: str = Digest


class Step(Part):
    """One change of a vocabulary."""

    method: Literal["grow", "trim"]
    settings: dict[str, Any] = Field(description="as the method was called")
    model: str = Field(description="name of the source, without its folder")
    tokens_before: int
    tokens_after: int
    rows_before: int
    rows_after: int
    tables: list[TableFacts]
    notes: list[str] = Field(default_factory=list)
    decone: str = Field(description="version")
    date: str
    provenance: dict[str, Any] = Field(default_factory=dict)


class History(Part):
    """decone.json: every change of a model's vocabulary that decone made, oldest first."""

    schema_: Literal["decone.vocabulary/1"] = Field(HISTORY, alias="schema")
    steps: list[Step] = Field(min_length=1)


class Norms(Part):
    """Lengths of the rows of a table: 'mean', and quantiles '0', '0.05' ... '1'."""

    role: Literal["input", "output"]
    tensors: list[str]
    old: dict[str, float] = Field(description="of the rows that were trained")
    new: dict[str, float] = Field(description="of the rows of the new tokens")


class NewToken(Part):
    """One new token; strings are foreign."""

    id: int
    token: str
    pieces: list[str] = Field(description="what the old tokenizer cut it into")
    norm: float = Field(description="length of its input row")
    neighbours: list[Neighbour] = Field(description="nearest old rows in cosine, nearest first")


class Divergence(Part):
    """Outputs of the model before and after, on the same text as the old tokenizer cuts it."""

    text: str = Field(description="name of the file")
    kind: str = Field(description="causal, masked or seq2seq")
    positions: int = Field(description="predictions compared")
    largest_change: float = Field(description="of a logit of an old token; 0 is bit for bit the same")
    kl_mean: float = Field(description="nats, of the distributions over old tokens alone")
    kl_max: float
    mass_mean: float = Field(description="probability that goes to new tokens")
    mass_max: float


class Written(Part):
    """Files of a new folder."""

    folder: str
    rewritten: list[str]
    copied: list[str]
    linked: list[str]
    bytes_saved: int = Field(description="all files; below 0 where the new folder is larger")


class Grown(Part):
    """Everything `decone grow` tells."""

    schema_: Literal["decone.grow/1"] = Field(GROWN, alias="schema")
    model: str
    settings: dict[str, Any]
    added: int = Field(description="new tokens")
    in_padding: int = Field(description="of these, in rows that the table had already")
    tokens_before: int
    tokens_after: int
    rows_before: int
    rows_after: int
    norms: list[Norms] = Field(description="of each table")
    tables: list[TableFacts] = Field(description="empty in a dry run")
    tokens: list[NewToken] = Field(description="the first of the new tokens")
    divergence: Divergence | None = None
    notes: list[str] = Field(default_factory=list)
    written: Written | None = Field(description="null in a dry run")


class Trimmed(Part):
    """Everything `decone trim` tells."""

    schema_: Literal["decone.trim/1"] = Field(TRIMMED, alias="schema")
    model: str
    settings: dict[str, Any]
    tokens_before: int
    tokens_after: int
    rows_before: int
    rows_after: int
    kept: dict[str, int] = Field(description="tokens that stay, by the first reason that holds")
    dropped: list[str] = Field(description="a sample of what goes, foreign strings")
    bytes_of_rows: int = Field(description="that go, of all tensors that go by tokens")
    checked: int = Field(description="tokens that are cut as before, of texts as a whole and by the line")
    tables: list[TableFacts] = Field(description="empty in a dry run")
    notes: list[str] = Field(default_factory=list)
    written: Written | None = Field(description="null in a dry run")


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
