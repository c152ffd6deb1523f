"""Rows that were never trained, or that nothing can ever use."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from decone.diagnosis.result import RowFinding
from decone.frequencies import special_ids, token_rows, token_strings, token_texts
from decone.metrics.undertrained import distance_limit
from decone.models.tables import ModelTables, Table, blocks
from decone.vocab.reach import Reach, reach

LISTED, SPELT = 2000, 200  # ids of a finding that are listed, and those whose tokens are
LONGEST = 200  # characters of a token that are shown
LEAST = 8  # unused rows that make a reference; fewer may lie anywhere


@dataclass(frozen=True)
class RowSurvey:
    """Measures of each row of a table from one pass over it.

    Attributes:
        norm: length, NaN or infinity where a row is not finite, [V].
        zero: all entries are 0, [V].
        clusters: groups of rows that are equal byte by byte, neither zero nor non-finite.
        centre: mean of the rows known to be unused, [H]; None where there are too few.
        distance: of every row from the centre, [V].
        limit: distance up to which a row lies as near to the centre as the unused rows do.
    """

    norm: Float64[Tensor, " V"]
    zero: Bool[Tensor, " V"]
    clusters: list[list[int]]
    centre: Float64[Tensor, " H"] | None = None
    distance: Float64[Tensor, " V"] | None = None
    limit: float = 0.0

    @property
    def finite(self) -> Bool[Tensor, " V"]:
        """Rows without NaN and infinity."""
        return torch.isfinite(self.norm)


@dataclass(frozen=True)
class RowKinds:
    """Rows by kind.

    Attributes:
        findings: kinds with at least one row.
        ids: all rows of each of these kinds, rising.
        inside: those of "partial" that a longer character was seen to produce, rising.
        surveys: what was measured on each row, by "embedding" and, where it is a table of its own, "head".
    """

    findings: list[RowFinding]
    ids: dict[str, Int64[Tensor, " M"]]
    inside: Int64[Tensor, " P"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    surveys: dict[str, RowSurvey] = field(default_factory=dict)

    def of(self, *kinds: str) -> set[int]:
        """Rows of any of these kinds."""
        return {row for kind in kinds if kind in self.ids for row in self.ids[kind].tolist()}


def find_rows(model_tables: ModelTables) -> RowKinds:
    """Sorts out rows that are zero, not finite, equal, without a token, reserved, unreachable, or like unused ones.

    A row may be of several kinds. Tables are read a block at a time, twice where unused rows are known.
    """
    size = model_tables.output.shape[0]
    reached = None if model_tables.tokenizer is None else reach(model_tables.tokenizer)
    unused = _of_tokenizer(model_tables, reached, size)
    unused_ids = torch.tensor(sorted({*unused["padded"], *unused["unreachable"]}), dtype=torch.int64)
    surveys = {name: survey(table, unused_ids) for name, table in tables_by_name(model_tables).items()}
    kinds = {**unused, **_of_tables(surveys, size)}
    explained = {row for kind in kinds for row in kinds[kind] if kind not in ("partial", "reserved")}
    kinds["untrained"] = _like_unused(surveys, explained, size)
    tokens = token_texts(model_tables)
    findings = [
        RowFinding(
            kind=kind,  # type: ignore[arg-type]
            count=len(ids),
            ids=ids[:LISTED],
            tokens=[tokens[row][:LONGEST] for row in ids[:SPELT]],
            note=_note(kind, ids, model_tables, surveys, reached),
        )
        for kind, ids in kinds.items()
        if ids
    ]
    inside = token_rows(model_tables, reached.inside) if reached else []
    ids = {kind: torch.tensor(rows, dtype=torch.int64) for kind, rows in kinds.items() if rows}
    return RowKinds(findings, ids, torch.tensor(inside, dtype=torch.int64), surveys)


def tables_by_name(model_tables: ModelTables) -> dict[str, Table]:
    """Tables of a model by role; the head only where it is its own."""
    return {"embedding": model_tables.embedding} | ({} if model_tables.head is None else {"head": model_tables.head})


def survey(table: Table, unused: Int64[Tensor, " U"]) -> RowSurvey:
    """Measures every row of a table.

    Args:
        table: read a block at a time.
        unused: unused rows, rising; they make the centre. Those that are zero or not finite are left out.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = MemoryTable("w", torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]]))
        >>> result = survey(table, torch.zeros(0, dtype=torch.int64))
        >>> result.norm.tolist(), result.zero.tolist(), result.clusters
        ([5.0, 0.0, 5.0], [False, True, False], [[0, 2]])
    """
    size, width = table.shape
    norm = torch.zeros(size, dtype=torch.float64)
    largest = torch.zeros(size, dtype=torch.float64)
    total, counted = torch.zeros(width, dtype=torch.float64), 0
    by_content: dict[bytes, list[int]] = defaultdict(list)
    marked = torch.zeros(size, dtype=torch.bool)
    marked[unused[unused < size]] = True
    for start, block in blocks(table):
        span = slice(start, start + len(block))
        values = block.float() if block.dtype != torch.float64 else block
        low, high = torch.aminmax(values, dim=1)
        largest[span] = torch.maximum(-low, high).double()  # NaN stays NaN
        norm[span] = _lengths(values, largest[span])
        # A digest stands for the bytes: that two rows share one by chance is rarer than a failing disk.
        content = block.contiguous().view(torch.uint8).numpy()
        for row, entries in enumerate(content, start):
            by_content[sha256(entries).digest()].append(row)
        counted_rows = marked[span] & torch.isfinite(largest[span]) & (largest[span] > 0)
        total += values[counted_rows].double().sum(0)
        counted += int(counted_rows.sum())
    norm[~torch.isfinite(largest)] = torch.nan
    zero = largest == 0
    clusters = [
        rows for rows in by_content.values() if len(rows) > 1 and not zero[rows[0]] and torch.isfinite(norm[rows[0]])
    ]
    if counted < LEAST:
        return RowSurvey(norm, zero, clusters)
    centre = total / counted
    distance = distances(table, centre)
    usable = torch.isfinite(norm) & ~zero
    limit = distance_limit(distance[usable & marked], distance[usable & ~marked])
    return RowSurvey(norm, zero, clusters, centre, distance, limit)


def _lengths(values: Float[Tensor, "n H"], largest: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Euclidean lengths; twice as fast in float32, where no square leaves its range."""
    result: Tensor = torch.linalg.vector_norm(values, dim=1).double()
    odd = (largest > 1e15) | (largest < 1e-15)
    result[odd] = torch.linalg.vector_norm(values[odd], dim=1, dtype=torch.float64)
    return result


def distances(table: Table, centre: Float64[Tensor, " H"]) -> Float64[Tensor, " V"]:
    """Euclidean distance of every row from a point."""
    point = centre.float()
    lengths = [torch.linalg.vector_norm(block.float() - point, dim=1) for _, block in blocks(table)]
    return torch.cat(lengths).double()


def _of_tokenizer(model_tables: ModelTables, reached: Reach | None, size: int) -> dict[str, list[int]]:
    if reached is None or model_tables.tokenizer is None:
        return {"padded": [], "reserved": [], "unreachable": [], "partial": []}
    named = set(token_rows(model_tables, token_strings(model_tables.tokenizer)))
    special = special_ids(model_tables)
    return {
        "padded": [row for row in range(size) if row not in named],
        "reserved": token_rows(model_tables, special),
        "unreachable": token_rows(model_tables, set(reached.unreachable) - special),
        "partial": token_rows(model_tables, reached.partial),
    }


def _of_tables(surveys: dict[str, RowSurvey], size: int) -> dict[str, list[int]]:
    def rows(masks: Iterable[Tensor]) -> list[int]:
        return sorted({row for mask in masks for row in mask[:size].nonzero().squeeze(1).tolist()})

    equal = {row for survey in surveys.values() for cluster in survey.clusters for row in cluster if row < size}
    return {
        "zero": rows(survey.zero for survey in surveys.values()),
        "non-finite": rows(~survey.finite for survey in surveys.values()),
        "identical": sorted(equal),
    }


def _like_unused(surveys: dict[str, RowSurvey], explained: set[int], size: int) -> list[int]:
    near = {
        row
        for survey in surveys.values()
        if survey.distance is not None
        for row in (survey.distance[:size] <= survey.limit).nonzero().squeeze(1).tolist()
    }
    return sorted(near - explained)


def _note(
    kind: str, ids: Sequence[int], model_tables: ModelTables, surveys: dict[str, RowSurvey], reached: Reach | None
) -> str:
    untied = len(surveys) > 1
    if kind in ("zero", "non-finite", "identical", "untrained") and untied:
        pieces = []
        for name, survey in surveys.items():
            masks = {"zero": survey.zero, "non-finite": ~survey.finite}
            if kind in masks:
                count = int(masks[kind].sum())
            elif kind == "identical":
                count = sum(map(len, survey.clusters))
            else:
                count = (
                    0 if survey.distance is None else int((survey.distance[torch.tensor(ids)] <= survey.limit).sum())
                )
            pieces.append(f"{name} {count:,}")
        where = f" ({', '.join(pieces)})"
    else:
        where = ""
    clusters = sum(len(survey.clusters) for survey in surveys.values())
    untested = len(reached.untested) if reached else 0
    too_long = f"; {untested:,} tokens are too long to try" if untested else ""
    notes = {
        "padded": "no token has these ids",
        "reserved": "marked special; added by programs, not by text, and no defect in themselves",
        "unreachable": f"no text that was tried gives these tokens{too_long}",
        "partial": "parts of characters, or single bytes for unknown ones; no defect",
        "zero": f"every entry is 0{where}",
        "non-finite": f"NaN or infinity{where}",
        "identical": f"{clusters:,} group{'s' * (clusters != 1)} of rows equal to the last bit{where}",
        "untrained": f"as near to the mean of the unused rows as those are themselves{where}",
    }
    return notes[kind]
