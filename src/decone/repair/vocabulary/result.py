"""Results of growing and trimming as data: decone.json in the new folder, JSON and documents of the commands.

A field may be added; one that changes its meaning or goes raises the number in its schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from decone import __version__
from decone.document import DocumentModel
from decone.document.blocks import ContentBlock, Document, Grid, GridColumn, Note, Section, Styled, Title, Token
from decone.files.folder import read_text
from decone.files.foreign import LONG, join_names, plain
from decone.repair.result import Digest, NeighbourRow, RepairModel
from decone.training.machine import provenance

SCHEMA: Literal["decone.vocabulary/1"] = "decone.vocabulary/1"
GROW_SCHEMA: Literal["decone.grow/1"] = "decone.grow/1"
TRIM_SCHEMA: Literal["decone.trim/1"] = "decone.trim/1"
HISTORY_FILE = "decone.json"
# In a folder to itself: some programs load every safetensors file that lies beside the weights.
IDS_FILE = "decone/ids.safetensors"
_STEP_FIELDS = {"settings", "tokens_before", "tokens_after", "rows_before", "rows_after", "tables", "notes"}
TOKEN_LENGTH, NEIGHBOURS = 20, 3  # characters of a token; neighbours in a row
NAMES = 8  # files or pieces in a list
QUANTILES = {"mean": "mean", "0.05": "5%", "0.5": "50%", "0.95": "95%"}  # keys of the norms, and their headings


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


def growth_document(report: GrowthReport) -> Document:
    """The report of `decone grow`: counts, lengths of the new rows, new tokens, outputs, files."""
    counts = (
        f"{report.added:,} new tokens, {report.in_padding:,} of them in rows that were free; tokens "
        f"{report.tokens_before:,} → {report.tokens_after:,}, rows {report.rows_before:,} → {report.rows_after:,}"
    )
    sections = [Section("counts", "Counts", (Note(counts),)), Section("rows", "Rows", (_norms(report.norms),))]
    if report.tokens:
        sections.append(Section("tokens", "New tokens", (_tokens(report.tokens),)))
    if report.divergence is not None:
        sections.append(Section("outputs", "Outputs", (Note(_divergence(report.divergence)),)))
    return _document("Grown vocabulary", report, sections)


def trim_document(report: TrimReport) -> Document:
    """The report of `decone trim`: counts, reasons, a sample of dropped tokens, files."""
    share = 1 - report.rows_after / report.rows_before
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.retained.items() if count)
    blocks = [
        Note(
            f"tokens {report.tokens_before:,} → {report.tokens_after:,}, rows {report.rows_before:,} → "
            f"{report.rows_after:,}: {share:.0%} less, {report.bytes_of_rows:,} bytes"
        ),
        Note(f"stay: {reasons}"),
        Note(f"{report.checked:,} tokens of text are cut as before"),
    ]
    if report.dropped:
        blocks.append(Note(("go, among others: ", *_token_list(report.dropped)), "hint"))
    return _document("Trimmed vocabulary", report, [Section("counts", "Counts", tuple(blocks))])


def _document(kicker: str, report: VocabularyReport, sections: Sequence[Section]) -> Document:
    title = Title(report.model, kicker=kicker, about=_settings(report.settings))
    details = tuple(_details(report))
    middle = (Section("details", "Tensors and notes", details),) if details else ()
    return Document(title, (*sections, *middle, Section("files", "Files", tuple(_files(report)))))


def _settings(settings: Mapping[str, Any]) -> str:
    values = {key: value for key, value in settings.items() if value not in (None, [], False)}
    return ", ".join(
        f"{key} {join_names(value) if isinstance(value, list) else plain(value, 60)}" for key, value in values.items()
    )


def _norms(norms: Sequence[NormComparison]) -> Grid:
    columns: tuple[GridColumn | str, ...] = (GridColumn("", wrap=True), *QUANTILES.values())
    rows = [
        (
            f"{name}, {', '.join(plain(tensor, 60) for tensor in table.tensors)}",
            *(f"{values[key]:.4g}" for key in QUANTILES),
        )
        for table in norms
        for name, values in (("old", table.old), ("new", table.new))
    ]
    return Grid(columns, tuple(rows), caption="lengths of rows")


def _tokens(tokens: Sequence[NewToken]) -> Grid:
    text = [GridColumn(heading, align="left") for heading in ("pieces before", "nearest tokens")]
    columns: tuple[GridColumn | str, ...] = (GridColumn("new token", wrap=False), "id", "length", *text)
    rows = [
        (
            Token(token.token, TOKEN_LENGTH),
            str(token.id),
            f"{token.norm:.4g}",
            _token_list(token.pieces[:NAMES]),
            _token_list([neighbour.token for neighbour in token.neighbours[:NEIGHBOURS]]),
        )
        for token in tokens
    ]
    return Grid(columns, tuple(rows))


def _token_list(tokens: Sequence[str]) -> tuple[str | Token, ...]:
    items = [(" ", Token(token, TOKEN_LENGTH)) for token in tokens]
    return tuple(span for item in items for span in item)[1:]


def _divergence(outputs: Divergence) -> str:
    change = "bit for bit the same" if outputs.largest_change == 0 else f"changed by up to {outputs.largest_change:.3g}"
    return (
        f"outputs on {plain(outputs.text, 60)}, {outputs.positions:,} predictions: logits of old tokens {change}; KL "
        f"over them {outputs.kl_mean:.3g} nats, at most {outputs.kl_max:.3g}; new tokens get {outputs.mass_mean:.3g} "
        f"of the probability, at most {outputs.mass_max:.3g}"
    )


def _details(report: VocabularyReport) -> Iterator[ContentBlock]:
    for table in report.tables:
        tensors = ", ".join(plain(name, 100) for name in table.tensors)
        yield Note(f"{tensors} {table.dtype} {table.shape_before} → {table.shape_after}", "hint")
    for note in report.notes:
        yield Note(plain(note, LONG), "hint")


def _files(report: VocabularyReport) -> Iterator[ContentBlock]:
    files = report.written
    if files is None:
        yield Note("a dry run: nothing was written")
        return
    yield Note(Styled(files.folder, "strong"))
    for verb, names in (("written", files.rewritten), ("copied", files.copied), ("linked", files.linked)):
        if names:
            more = f" and {len(names) - NAMES:,} more" if len(names) > NAMES else ""
            yield Note(f"{verb}: {', '.join(plain(name, 100) for name in names[:NAMES])}{more}")
