"""Results of growing and trimming as data: decone.json in the new folder, and the JSON that the commands print.

A field may be added; one that changes its meaning or goes raises the number in its schema.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from decone import __version__
from decone.document import Document, DocumentModel
from decone.files.folder import read_text
from decone.files.foreign import plain
from decone.repair.result import Digest, NeighbourRow, RepairModel
from decone.training.machine import provenance

SCHEMA: Literal["decone.vocabulary/1"] = "decone.vocabulary/1"
GROW_SCHEMA: Literal["decone.grow/1"] = "decone.grow/1"
TRIM_SCHEMA: Literal["decone.trim/1"] = "decone.trim/1"
HISTORY_FILE = "decone.json"
# In a folder to itself: some programs load every safetensors file that lies beside the weights.
IDS_FILE = "decone/ids.safetensors"


class ResizedTable(RepairModel):
    """One table or bias, and the tensors with its bytes."""

    role: Literal["input", "output", "bias"]
    tensors: list[str] = Field(min_length=1, description="names, foreign strings")
    dtype: str = Field(description="as in the header of safetensors")
    shape_before: list[int]
    shape_after: list[int]
    before: str = Digest
    after: str = Digest


class VocabularyStep(RepairModel):
    """One change of a vocabulary."""

    method: Literal["grow", "trim"]
    settings: dict[str, Any] = Field(description="as the method was called")
    model: str = Field(description="name of the source, without its folder")
    tokens_before: int
    tokens_after: int
    rows_before: int
    rows_after: int
    tables: list[ResizedTable]
    notes: list[str] = Field(default_factory=list)
    decone: str = Field(description="version")
    date: str
    provenance: dict[str, Any] = Field(default_factory=dict)


_STEP_FIELDS = {"settings", "tokens_before", "tokens_after", "rows_before", "rows_after", "tables", "notes"}


class VocabularyHistory(RepairModel):
    """decone.json: every change of a model's vocabulary by decone, oldest first."""

    schema_: Literal["decone.vocabulary/1"] = Field(SCHEMA, alias="schema")
    steps: list[VocabularyStep] = Field(min_length=1)


class NormComparison(RepairModel):
    """Lengths of the rows of a table: 'mean', and quantiles '0', '0.05' ... '1'."""

    role: Literal["input", "output"]
    tensors: list[str]
    old: dict[str, float] = Field(description="of the rows that were trained")
    new: dict[str, float] = Field(description="of the rows of the new tokens")


class NewToken(RepairModel):
    """One new token; strings are foreign."""

    id: int
    token: str
    pieces: list[str] = Field(description="what the old tokenizer cut it into")
    norm: float = Field(description="length of its input row")
    neighbours: list[NeighbourRow] = Field(description="nearest old rows in cosine, nearest first")


class Divergence(RepairModel):
    """Outputs of the model before and after, on the same text as the old tokenizer cuts it."""

    text: str = Field(description="name of the file")
    kind: str = Field(description="causal, masked or seq2seq")
    positions: int = Field(description="predictions compared")
    largest_change: float = Field(description="of a logit of an old token; 0 is bit for bit the same")
    kl_mean: float = Field(description="nats, of the distributions over old tokens alone")
    kl_max: float
    mass_mean: float = Field(description="probability that goes to new tokens")
    mass_max: float


class WrittenFiles(RepairModel):
    """Files of a new folder."""

    folder: str
    rewritten: list[str]
    copied: list[str]
    linked: list[str]
    bytes_saved: int = Field(description="all files; below 0 where the new folder is larger")


class VocabularyReport(RepairModel, DocumentModel):
    """Fields of both reports."""

    schema_: str = Field(alias="schema")
    model: str
    settings: dict[str, Any]
    tokens_before: int
    tokens_after: int
    rows_before: int
    rows_after: int
    tables: list[ResizedTable] = Field(description="empty in a dry run")
    notes: list[str] = Field(default_factory=list)
    written: WrittenFiles | None = Field(description="null in a dry run")


class GrowthReport(VocabularyReport):
    """Everything that `decone grow` reports."""

    schema_: Literal["decone.grow/1"] = Field(GROW_SCHEMA, alias="schema")
    added: int = Field(description="new tokens")
    in_padding: int = Field(description="of these, in rows that the table had already")
    norms: list[NormComparison] = Field(description="of each table")
    tokens: list[NewToken] = Field(description="the first of the new tokens")
    divergence: Divergence | None = None

    def to_document(self) -> Document:
        """The report as a document."""
        from decone.repair.vocabulary.view import growth_document

        return growth_document(self)


class TrimReport(VocabularyReport):
    """Everything that `decone trim` reports."""

    schema_: Literal["decone.trim/1"] = Field(TRIM_SCHEMA, alias="schema")
    retained: dict[str, int] = Field(alias="kept", description="tokens that stay, by the first reason that holds")
    dropped: list[str] = Field(description="a sample of what goes, foreign strings")
    bytes_of_rows: int = Field(description="that go, of all tensors that go by tokens")
    checked: int = Field(description="tokens that are cut as before, of texts as a whole and by the line")

    def to_document(self) -> Document:
        """The report as a document."""
        from decone.repair.vocabulary.view import trim_document

        return trim_document(self)


def read_history(folder: Path) -> list[VocabularyStep]:
    """Reads the changes that were made to a model before, oldest first; none where it has no decone.json.

    Raises:
        ValueError: the file is not ours.
    """
    text = read_text(folder, HISTORY_FILE)
    if text is None:
        return []
    try:
        return VocabularyHistory.model_validate_json(text).steps
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            f"{folder / HISTORY_FILE} is no history of a vocabulary that this version can read ({plain(first['loc'])}: "
            f"{plain(first['msg'])}); move it out of the folder"
        ) from None


def extend_history(steps: Sequence[VocabularyStep], report: VocabularyReport) -> bytes:
    """Content of decone.json with the change of a report as the last step."""
    path = Path(report.model)
    step = VocabularyStep(
        method="grow" if isinstance(report, GrowthReport) else "trim",
        model=path.resolve().name if path.exists() else report.model,
        decone=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        provenance=provenance(),
        **report.model_dump(include=_STEP_FIELDS),
    )
    history = VocabularyHistory(schema=SCHEMA, steps=[*steps, step])
    return (history.model_dump_json(by_alias=True, indent=2) + "\n").encode()
