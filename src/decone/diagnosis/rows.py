"""Rows that were never trained, or that nothing can ever use."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor

from decone.diagnosis.result import RowFinding
from decone.frequencies import rows_by_reach, token_names, token_rows
from decone.metrics.row_survey import RowSurvey, survey_rows
from decone.models.tables import ModelTables, Table
from decone.repair.row_renewal import MARKS, role_ids
from decone.vocab.reach import Reach, reach

LISTED, SPELT = 2000, 200  # ids of a finding that are listed, and those whose tokens are
LONGEST = 200  # characters of a token that are shown


@dataclass(frozen=True)
class RowKinds:
    """Rows by kind.

    Attributes:
        findings: kinds with at least one row.
        ids: all rows of each of these kinds, rising; of "beyond" the ids, which have no row.
        inside: those of "partial" that a longer character was seen to produce, rising.
        surveys: what was measured on each row, by "embedding" and, where it is a table of its own, "head".
        marks: rows of tokens that training texts hold, as those that begin and end them.
    """

    findings: list[RowFinding]
    ids: dict[str, Int64[Tensor, " M"]]
    inside: Int64[Tensor, " P"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    surveys: dict[str, RowSurvey] = field(default_factory=dict)
    marks: frozenset[int] = frozenset()

    def of(self, *kinds: str) -> set[int]:
        """Rows of any of these kinds."""
        return {row for kind in kinds if kind in self.ids for row in self.ids[kind].tolist()}

    def untrained(self) -> set[int]:
        """Rows that no training has shaped in one of the tables, see `RowSurvey.untrained`."""
        unused, special = self.of("padded", "gap", "unreachable"), self.of("reserved")
        masks = (survey.untrained(unused, special, self.marks) for survey in self.surveys.values())
        return {row for mask in masks for row in mask.nonzero().squeeze(1).tolist()}


def find_rows(model_tables: ModelTables) -> RowKinds:
    """Sorts out rows that are zero, not finite, equal, without a token, reserved, unreachable, or like unused ones.

    A row may be of several kinds. Tables are read a block at a time, twice where unused rows are known. Ids beyond the
    table are a kind too, and so are ids that several tokens have.
    """
    size = model_tables.output.shape[0]
    reached = None if model_tables.tokenizer is None else reach(model_tables.tokenizer)
    unused = rows_by_reach(model_tables, reached)
    unused_ids = torch.tensor(sorted({*unused["padded"], *unused["gap"], *unused["unreachable"]}), dtype=torch.int64)
    surveys = {name: survey_rows(table, unused_ids) for name, table in tables_by_name(model_tables).items()}
    kinds = {**unused, **_of_tables(surveys, size)}
    explained = {row for kind in kinds for row in kinds[kind] if kind not in ("partial", "reserved", "shared")}
    near = (survey.like_unused[:size].nonzero().squeeze(1).tolist() for survey in surveys.values())
    kinds["untrained"] = sorted({row for rows in near for row in rows} - explained)
    names = token_names(model_tables)
    kinds["beyond"] = sorted(index for index in names if index >= size)
    findings = [
        row_finding(kind, ids, names, _note(kind, ids, model_tables, surveys, reached))
        for kind, ids in kinds.items()
        if ids
    ]
    inside = token_rows(model_tables, reached.inside) if reached else []
    ids = {kind: torch.tensor(rows, dtype=torch.int64) for kind, rows in kinds.items() if rows}
    marks = role_ids(model_tables, *MARKS)
    return RowKinds(findings, ids, torch.tensor(inside, dtype=torch.int64), surveys, marks)


def row_finding(kind: str, ids: Sequence[int], names: Mapping[int, str] | Sequence[str], note: str) -> RowFinding:
    """Rows of one kind as the result lists them: the first ids, and the tokens of fewer, cut where they are long."""
    tokens = [names[row][:LONGEST] for row in ids[:SPELT]]
    return RowFinding.model_validate(
        {"kind": kind, "count": len(ids), "ids": ids[:LISTED], "tokens": tokens, "note": note}
    )


def tables_by_name(model_tables: ModelTables) -> dict[str, Table]:
    """Tables of a model by role; the head only where it is its own."""
    return {"embedding": model_tables.embedding} | ({} if model_tables.head is None else {"head": model_tables.head})


def _of_tables(surveys: dict[str, RowSurvey], size: int) -> dict[str, list[int]]:
    def rows(masks: Iterable[Tensor]) -> list[int]:
        return sorted({row for mask in masks for row in mask[:size].nonzero().squeeze(1).tolist()})

    equal = {row for survey in surveys.values() for cluster in survey.clusters for row in cluster if row < size}
    return {
        "zero": rows(survey.zero for survey in surveys.values()),
        "non-finite": rows(~survey.finite for survey in surveys.values()),
        "identical": sorted(equal),
    }


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
                count = int(survey.like_unused[torch.tensor(ids)].sum())
            pieces.append(f"{name} {count:,}")
        where = f" ({', '.join(pieces)})"
    else:
        where = ""
    clusters = sum(len(survey.clusters) for survey in surveys.values())
    untested = len(reached.untested) if reached else 0
    too_long = f"; {untested:,} tokens are too long to try" if untested else ""
    notes = {
        "padded": "no token has these ids",
        "gap": "no token has these ids, though there are higher ones",
        "shared": "these ids stand for several tokens each, which the model cannot tell apart",
        "beyond": f"the table has {model_tables.output.shape[0]:,} rows; a text with such a token stops the model",
        "reserved": "marked special; added by programs, not by text, and no defect in themselves",
        "unreachable": f"no text that was tried gives these tokens{too_long}",
        "partial": "parts of characters, or single bytes for unknown ones; no defect",
        "zero": f"every entry is 0{where}",
        "non-finite": f"NaN or infinity{where}",
        "identical": f"{clusters:,} group{'s' * (clusters != 1)} of rows equal to the last bit{where}",
        "untrained": f"as near to the mean of the unused rows as those are themselves{where}",
    }
    return notes[kind]
