"""Results of repairs as data: the description inside a delta, and the JSON that the commands print.

A field may be added; one that changes its meaning or goes raises the number in its schema. A number that could not be
determined is null.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from decone.document import Document, DocumentModel

DELTA: Literal["decone.delta/1"] = "decone.delta/1"
REPAIR: Literal["decone.repair/1"] = "decone.repair/1"
WRITTEN: Literal["decone.written/1"] = "decone.written/1"

Role = Literal["input", "output", "bias"]  # of a table in a model; a bias is a table of width 1

Digest = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the bytes of the whole tensor")


class RepairModel(BaseModel):
    """A section of a result: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class TableDelta(RepairModel):
    """One table in a delta; its rows are the delta's tensors "N.ids", "N.old" and "N.new" with N its index."""

    role: Role
    tensors: list[str] = Field(min_length=1, description="names of the tensors with the table's bytes, foreign strings")
    shape: tuple[int, int]
    dtype: str = Field(description="as in the header of safetensors")
    changed: int = Field(description="rows in the delta")
    before: str = Digest
    after: str = Digest


class DeltaFacts(RepairModel, DocumentModel):
    """Description of a delta, in its metadata."""

    schema_: Literal["decone.delta/1"] = Field(DELTA, alias="schema")
    method: str
    settings: dict[str, Any] = Field(description="as the method was called")
    results: dict[str, Any] = Field(default_factory=dict, alias="found", description="of the method")
    model: str = Field(description="name of the model, without its folder")
    tables: list[TableDelta] = Field(min_length=1)
    notes: list[str] = Field(default_factory=list)
    decone: str = Field(description="version")
    date: str
    provenance: dict[str, Any] = Field(default_factory=dict)

    def to_document(self) -> Document:
        """The result for a page, a terminal and markdown."""
        from decone.repair import view

        return view.delta_document(self)


class RowGeometry(RepairModel):
    """Geometry of rows."""

    rows: int
    isotropy: float = Field(description="I(W), each eigenvector once, turned towards the rows")
    isotropy_plus_minus: float = Field(description="I(W), each eigenvector in both directions")
    mean_cosine: float | None = Field(description="over pairs of different rows; null without a pair")
    mean_direction: float = Field(description="length of the mean row over the mean length of rows, in [0, 1]")
    effective_rank: float | None = Field(description="exp of the entropy of the singular values; null for zeros alone")
    norms: dict[str, float] = Field(description="lengths of the rows: 'mean', and quantiles '0', '0.05' ... '1'")


class NeighbourRow(RepairModel):
    """A row near a changed one."""

    id: int
    token: str


class TokenChange(RepairModel):
    """One row before and after; tokens are foreign strings."""

    id: int
    token: str
    norm_before: float
    norm_after: float
    cosine: float = Field(description="of the new row with the old one")
    neighbours_before: list[NeighbourRow] = Field(description="nearest rows in cosine, nearest first")
    neighbours_after: list[NeighbourRow]


class GeometryComparison(RepairModel):
    """Rows before and after, and the control for shrinkage."""

    before: RowGeometry
    after: RowGeometry
    control: RowGeometry = Field(
        description="the original rows, each scaled to the length of its repaired one: I(W) rises when rows shrink, "
        "so the gain of a repair is `after` beside `control`, not beside `before`"
    )
    norm_ratio: float | None = Field(description="mean length after over before; null where rows were as good as 0")
    cosine: float = Field(description="mean cosine of a row with its old one")


class TableRepair(RepairModel):
    """Effect of a repair on one table."""

    role: Role
    tensors: list[str]
    shape: tuple[int, int] = Field(description="rows of tokens, and width")
    dtype: str
    changed: int
    groups: dict[str, GeometryComparison] = Field(
        description="'all' rows, and the 'changed' ones where these are fewer"
    )
    tokens: list[TokenChange] = Field(description="a sample of the changed rows")


class RepairReport(RepairModel, DocumentModel):
    """Result of a repair: `decone repair METHOD --json`."""

    schema_: Literal["decone.repair/1"] = Field(REPAIR, alias="schema")
    model: str
    method: str
    settings: dict[str, Any]
    results: dict[str, Any] = Field(alias="found", description="of the method, by table")
    tables: list[TableRepair]
    notes: list[str] = Field(default_factory=list)
    delta: str | None = Field(description="the file written; null in a dry run")
    bytes: int | None = Field(description="of that file")

    def to_document(self) -> Document:
        """The result for a page, a terminal and markdown."""
        from decone.repair import view

        return view.repair_document(self)


class WrittenCheckpoint(RepairModel, DocumentModel):
    """Files that `decone repair apply` or `undo` wrote."""

    schema_: Literal["decone.written/1"] = Field(WRITTEN, alias="schema")
    folder: str
    rewritten: list[str] = Field(description="files with a table in them")
    copied: list[str]
    linked: list[str] = Field(description="files that share their bytes on disk with the source")
    notes: list[str] = Field(default_factory=list)

    def to_document(self) -> Document:
        """The result for a page, a terminal and markdown."""
        from decone.repair import view

        return view.checkpoint_document(self)
