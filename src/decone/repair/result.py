"""What repairs say and store, as data: the description inside a delta, and the JSON that the commands print.

A field may be added; one that changes its meaning or goes raises the number in its schema. A number that could not be
determined is null.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DELTA: Literal["decone.delta/1"] = "decone.delta/1"
REPAIR: Literal["decone.repair/1"] = "decone.repair/1"
WRITTEN: Literal["decone.written/1"] = "decone.written/1"

Digest = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the bytes of the whole tensor")


class Part(BaseModel):
    """A part of a document: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class TableDelta(Part):
    """One table in a delta; its rows are the delta's tensors "N.ids", "N.old" and "N.new" with N its place."""

    role: Literal["input", "output"]
    tensors: list[str] = Field(min_length=1, description="names of the tensors with the table's bytes, foreign strings")
    shape: tuple[int, int]
    dtype: str = Field(description="as in the header of safetensors")
    changed: int = Field(description="rows in the delta")
    before: str = Digest
    after: str = Digest


class DeltaFacts(Part):
    """What a delta says of itself, in its metadata."""

    schema_: Literal["decone.delta/1"] = Field(DELTA, alias="schema")
    method: str
    settings: dict[str, Any] = Field(description="as the method was called")
    found: dict[str, Any] = Field(default_factory=dict, description="what the method tells of its work")
    model: str = Field(description="name of the model, without its folder")
    tables: list[TableDelta] = Field(min_length=1)
    notes: list[str] = Field(default_factory=list)
    decone: str = Field(description="version")
    date: str
    provenance: dict[str, Any] = Field(default_factory=dict)


class Geometry(Part):
    """Geometry of rows."""

    rows: int
    isotropy: float = Field(description="I(W), each eigenvector once, turned towards the rows")
    isotropy_plus_minus: float = Field(description="I(W), each eigenvector in both directions")
    mean_cosine: float | None = Field(description="over pairs of different rows; null without a pair")
    mean_direction: float = Field(description="length of the mean row over the mean length of rows, in [0, 1]")
    effective_rank: float | None = Field(description="exp of the entropy of the singular values; null for zeros alone")
    norms: dict[str, float] = Field(description="lengths of the rows: 'mean', and quantiles '0', '0.05' ... '1'")


class Neighbour(Part):
    """A row near another."""

    id: int
    token: str


class TokenChange(Part):
    """One row before and after; tokens are foreign strings."""

    id: int
    token: str
    norm_before: float
    norm_after: float
    cosine: float = Field(description="of the new row with the old one")
    neighbours_before: list[Neighbour] = Field(description="nearest rows in cosine, nearest first")
    neighbours_after: list[Neighbour]


class Compared(Part):
    """Rows before and after, and the control for shrinkage."""

    before: Geometry
    after: Geometry
    control: Geometry = Field(
        description="the original rows, each scaled to the length of its repaired one: I(W) rises when rows shrink, "
        "so what a repair gains is `after` beside `control`, not beside `before`"
    )
    norm_ratio: float | None = Field(description="mean length after over before; null when all rows were zero")
    cosine: float = Field(description="mean cosine of a row with its old one")


class TableReport(Part):
    """What a repair does to one table."""

    role: Literal["input", "output"]
    tensors: list[str]
    shape: tuple[int, int] = Field(description="rows that have a token's place, and width")
    dtype: str
    changed: int
    groups: dict[str, Compared] = Field(description="'all' rows, and the 'changed' ones where these are fewer")
    tokens: list[TokenChange] = Field(description="a sample of the changed rows")


class Report(Part):
    """Everything `decone repair METHOD` tells."""

    schema_: Literal["decone.repair/1"] = Field(REPAIR, alias="schema")
    model: str
    method: str
    settings: dict[str, Any]
    found: dict[str, Any] = Field(description="what the method tells of its work, by table")
    tables: list[TableReport]
    notes: list[str] = Field(default_factory=list)
    delta: str | None = Field(description="the file written; null in a dry run")
    bytes: int | None = Field(description="of that file")


class Written(Part):
    """What `decone repair apply` and `undo` made."""

    schema_: Literal["decone.written/1"] = Field(WRITTEN, alias="schema")
    folder: str
    rewritten: list[str] = Field(description="files with a table in them")
    copied: list[str]
    linked: list[str] = Field(description="files that share their bytes on disk with the source")
    notes: list[str] = Field(default_factory=list)
