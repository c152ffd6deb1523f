"""Result of a scan as data: the JSON of `decone scan --json`, and all that pages and terminals show.

The schema is published: `decone scan --schema` prints it. A field may be added; one that changes its meaning or goes
raises the number in `SCHEMA`. A number that could not be determined is null, never a guess.
"""

import math
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from decone.document import Document, DocumentModel
from decone.document.blocks import Severity
from decone.frequencies import FrequencyFacts
from decone.metrics.table_survey import TableSample

SCHEMA: Literal["decone.scan/1"] = "decone.scan/1"

SUSPECTS = 500  # suspects that a result holds at most
Group = Literal["all", "frequent", "medium", "rare", "special"]


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


# An overflowed perplexity is infinite, which JSON cannot say.
Measured = Annotated[float | None, BeforeValidator(_finite)]


class ScanRecord(BaseModel):
    """Base of all records in a result: unknown keys are refused; a key of the schema may be the alias of a field."""

    model_config = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class ModelFacts(ScanRecord):
    """Identity of the model and names of the tensors that were read."""

    name: str
    family: str = Field(description="model_type of the configuration, 'decone' for a run, 'unknown' without one")
    kind: Literal["causal", "masked", "encoder", "seq2seq", "run", "tables"]
    embedding: str = Field(description="name of the tensor")
    head: str | None = Field(description="name of the output table when it is one of its own; null when tied or absent")
    tied: bool
    rows: int = Field(description="V, rows of the tables")
    width: int = Field(description="H")
    dtype: str
    vocabulary: int | None = Field(description="tokens the tokenizer knows; null without a tokenizer")
    reach: bool = Field(True, description="false where no text was cut, so that unreachable rows are not known")
    padded: int = Field(0, description="rows beyond the tokenizer's last id")
    bias: bool = False
    softcap: float | None = None
    state_scale: float = Field(1.0, description="factor of the last states before the head is given them")
    logit_scale: float = Field(1.0, description="factor of the logits that the head makes")
    notes: list[str] = Field(default_factory=list, description="what a reader of the numbers must know")


class Spectrum(ScanRecord):
    """Singular values of a table and what they say; covariances are centred, singular values are not."""

    singular_values: list[float] = Field(description="relative to the largest, falling; at most 512, thinned after 32")
    ranks: list[int] = Field(
        validation_alias="places", serialization_alias="places", description="rank of each, from 1"
    )
    energy_first: float = Field(description="share of the squared singular values in the first")
    energy_ten: float = Field(description="share in the first ten")
    effective_rank: float = Field(description="exp of the entropy of the singular values (Roy and Vetterli 2007)")
    isoscore: float = Field(description="Rudman et al. 2022, in [0, 1]")


class RowNorms(ScanRecord):
    """Lengths of the rows."""

    quantiles: dict[str, float] = Field(description="'0', '0.05', '0.25', '0.5', '0.75', '0.95', '1'")
    rank_correlation: float | None = Field(description="Spearman correlation of norm and frequency rank")
    by_rank: list[tuple[float, float, float, float]] = Field(
        description="bins of frequency rank: middle rank, 25th, 50th and 75th percentile of the norm"
    )


class CosineHistogram(ScanRecord):
    """Cosines between rows of two groups, from a sample of pairs of different rows."""

    groups: tuple[str, str]
    counts: list[int] = Field(description="pairs per bin; bins of equal width from -1 to 1")


class TableFacts(ScanRecord):
    """Geometry of one table; `groups` are those of the frequencies and 'all'."""

    isotropy: dict[str, dict[str, float]] = Field(description="by group: 'raw' and 'plus_minus' I(W)")
    cosine: dict[str, dict[str, float | None]] = Field(
        description="mean cosine between different rows of group and group; null where there is no pair"
    )
    spectrum: Spectrum
    norms: RowNorms
    mean_direction: float = Field(description="length of the mean row over the mean length of rows, in [0, 1]")
    metrics: dict[str, float | dict[str, float | None] | None] = Field(
        default_factory=dict, description="every metric of `diagnosis.table_metrics` by name, or by name and group"
    )
    histograms: list[CosineHistogram] = Field(default_factory=list)

    @model_validator(mode="after")
    def metrics_of_fields(self) -> Self:
        """Fills in metrics that have fields of their own: results of earlier versions lack `metrics`."""
        if not self.metrics:
            spectrum = self.spectrum
            self.metrics = {
                "isotropy": {group: values.get("raw") for group, values in self.isotropy.items()},
                "isotropy_plus_minus": {group: values.get("plus_minus") for group, values in self.isotropy.items()},
                "cosine": {group: cosines.get(group) for group, cosines in self.cosine.items()},
                "cosine_to_frequent": {group: cosines.get("frequent") for group, cosines in self.cosine.items()},
                "cosine_to_all": {group: cosines.get("all") for group, cosines in self.cosine.items()},
                "effective_rank": spectrum.effective_rank,
                "isoscore": spectrum.isoscore,
                "energy_first": spectrum.energy_first,
                "energy_ten": spectrum.energy_ten,
                "mean_direction": self.mean_direction,
                "median_norm": self.norms.quantiles.get("0.5"),
                "norm_rank_correlation": self.norms.rank_correlation,
            }
        return self


class RowFinding(ScanRecord):
    """Rows of one kind that were never trained, or can never be used; of "beyond" ids for which there is no row."""

    kind: Literal[
        "zero", "non-finite", "identical", "padded", "gap", "beyond", "shared", "reserved", "chat", "unreachable",
        "partial", "untrained",
    ]  # fmt: skip
    count: int
    ids: list[int] = Field(description="the first 2,000")
    tokens: list[str] = Field(description="of the first 200 ids; foreign strings")
    note: str = ""


class Suspect(ScanRecord):
    """A token that a tokenizer produces but that seems never trained."""

    id: int
    token: str = Field(description="foreign string, shortened to 200 characters")
    score: float = Field(description="robust score; above 3.5 is unusual, see docs/scan.md")
    reasons: list[str]
    group: str
    norm: float
    count: int | None = None


class Perplexities(ScanRecord):
    """Prediction of the tokens of one kind in the text."""

    share: float = Field(description="of all scored tokens")
    tokens: int
    perplexity: Measured
    accuracy: float | None


class Repetition(ScanRecord):
    """Repetition and variety of continuations; each rate is in [0, 1]."""

    rep: dict[str, float] = Field(description="Rep-n by n: 1 - distinct / all n-grams, mean over continuations")
    uniq_words: int = Field(description="distinct words of all continuations")
    uniq_tokens: int
    continuations: int
    samples: list[tuple[str, str]] = Field(default_factory=list, description="prompt and continuation; foreign")


class Behaviour(ScanRecord):
    """Behaviour of the model on a text."""

    text: str
    tokens: int
    bytes: int
    perplexity: Measured
    best_perplexity: Measured
    best_temperature: float
    bits_per_byte: Measured
    accuracy: float
    recall5: float
    mrr: float
    groups: dict[str, Perplexities]
    scripts: dict[str, Perplexities] = Field(description="by Unicode script of the token's text")
    rep_at: dict[str, float] = Field(description="Rep/l of the model's argmax by l")
    rep_at_human: dict[str, float] = Field(description="the same of the text itself")
    uniq: dict[str, int] = Field(description="distinct argmax predictions: all and by group")
    uniq_human: dict[str, int]
    decoding: dict[str, Repetition] = Field(description="greedy, beam, top-k, top-p, and human: the text's own words")


class BlameRow(ScanRecord):
    """Mean gradient norms over steps of one row of the output table, by cause."""

    id: int
    token: str
    group: str
    count: int
    pull: float = Field(description="target alignment: positions whose target is this token")
    input: float = Field(description="context alignment: through the input table, the same one where they are tied")
    push_frequent: float = Field(description="marginalisation by frequent targets")
    push_medium: float
    push_rare: float
    push: float = Field(description="marginalisation by all other targets; not the sum of its parts, norms do not add")


class Blame(ScanRecord):
    """The gradient microscope (Turumtaev, "Stop Jostling", Figure 3)."""

    steps: int
    tokens: int
    ratio_of_average: dict[str, float | None] = Field(description="avg(|g1|+|g2|) / avg(|g3|), all and by group")
    average_of_ratio: dict[str, float | None] = Field(description="avg((|g1|+|g2|) / |g3|)")
    rows: list[BlameRow]


class WordSimilarity(ScanRecord):
    """Agreement with human judgements of word similarity: Spearman x 100."""

    file: str
    pairs: int
    used: int
    plain: float | None = Field(description="pieces without the leading space")
    plain_interval: tuple[float, float] | None
    spaced: float | None = Field(description="pieces with the leading space")
    spaced_interval: tuple[float, float] | None


class RowChange(ScanRecord):
    """Difference of one row between two models."""

    id: int
    token: str
    group: str
    cosine: float
    norm_before: float
    norm_after: float


class ModelDiff(ScanRecord):
    """This model beside another with the same vocabulary, the reference: the 'before' of the rows."""

    reference: str = Field(validation_alias="other", serialization_alias="other", description="name of the other model")
    same_width: bool
    metrics: dict[str, tuple[float | None, float | None]] = Field(description="name: the reference's value, this one's")
    cosine: dict[str, float | None] = Field(description="mean cosine of a row with itself, by group; same width only")
    changed: list[RowChange] = Field(description="at most 200, most changed first")
    neighbours: dict[str, float | None] = Field(description="share of the 10 nearest rows in common, by group")


class Finding(ScanRecord):
    """One verdict: what it means, what to do, and the evidence."""

    code: str
    severity: Severity
    title: str
    meaning: str
    remedy: str
    evidence: dict[str, Any]
    source: str = Field(description="where the threshold comes from")


class Check(ScanRecord):
    """A limit the user set, and whether it was exceeded."""

    name: str
    limit: float
    value: float | None
    passed: bool


class ScanResult(ScanRecord, DocumentModel):
    """All numbers and verdicts of a scan."""

    schema_: Literal["decone.scan/1"] = Field(SCHEMA, alias="schema")
    model: ModelFacts
    frequencies: FrequencyFacts
    tables: dict[str, TableFacts] = Field(description="'embedding', and 'head' when it is a table of its own")
    rows: list[RowFinding]
    suspects: list[Suspect] = Field(description="most suspicious first, at most 500")
    behaviour: Behaviour | None = None
    blame: Blame | None = None
    words: list[WordSimilarity] = Field(default_factory=list)
    against: ModelDiff | None = None
    findings: list[Finding] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)
    seconds: float = 0.0
    provenance: dict[str, Any] = Field(default_factory=dict)

    @cached_property
    def samples(self) -> list[TableSample]:
        """Rows that figures draw, by table; no field of the schema, so a result that was read from JSON has none."""
        return []

    def to_document(self) -> Document:
        """The scan as blocks: verdicts, numbers, figures, rows."""
        from decone.diagnosis.view import scan_document

        return scan_document(self, self.samples)
