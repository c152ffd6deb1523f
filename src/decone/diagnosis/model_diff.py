"""A model beside another of the same vocabulary: two checkpoints, before and after a cure, a base and its fine-tune."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from decone.diagnosis.result import ModelDiff, RowChange, TableFacts
from decone.diagnosis.table_metrics import table_metrics
from decone.files.foreign import quoted
from decone.metrics.neighbours import RowChanges, common_share, nearest_rows, row_changes
from decone.models.tables import ModelTables, Table, blocks

CHANGED = 200  # rows listed
COMPARED = 500  # rows whose neighbours are compared
NEIGHBOURS = 10
TOKEN_LENGTH = 200  # characters of a token

Groups = Mapping[str, Int64[Tensor, " M"]]


def diff_models(
    model_tables: ModelTables,
    reference: ModelTables,
    groups: dict[str, Int64[Tensor, " M"]],
    tokens: list[str],
    facts: dict[str, TableFacts],
    other_facts: dict[str, TableFacts],
) -> ModelDiff:
    """Compares the output tables of two models, row by row.

    Rows that are not finite in one of the tables take no part: they have no cosine. Neighbours are looked for among
    the rows of all groups, for a sample (with a fixed seed) of at most 500 of those that are zero in neither table.

    Args:
        model_tables: this model.
        reference: the model before.
        groups: frequency groups by name, of this model.
        tokens: text of every row.
        facts: geometry of this model's tables.
        other_facts: of the other's.

    Returns:
        Metrics of both; where the widths are equal also the cosine of each row with itself by group, and the rows that
        changed, by rising cosine and then by how much their length changed; the share of neighbours in common.

    Raises:
        ValueError: the vocabularies differ, see `require_same_vocabulary`.
    """
    require_same_vocabulary(model_tables, reference)
    table, before = model_tables.output, reference.output
    same_width = table.shape[1] == before.shape[1]
    everywhere = {"all": torch.cat(list(groups.values())) if groups else torch.arange(0), **groups}
    changes = _changes(before, table) if same_width else None
    return ModelDiff(
        reference=reference.name,
        same_width=same_width,
        metrics=_metrics(facts, other_facts),
        cosine={name: None if changes is None else _mean(changes.cosine[ids]) for name, ids in everywhere.items()},
        changed=[] if changes is None else _most_changed(changes, groups, tokens),
        neighbours=_neighbours(before, table, everywhere),
    )


def require_same_vocabulary(model_tables: ModelTables, reference: ModelTables) -> None:
    """Refuses two models whose rows do not belong to the same tokens.

    Raises:
        ValueError: their output tables differ in rows, or their tokenizers (where both have one) in tokens or ids.
    """
    rows, before = model_tables.output.shape[0], reference.output.shape[0]
    if rows != before:
        raise ValueError(
            f"{model_tables.name} has {rows:,} rows and {reference.name} has {before:,}; rows can only be compared "
            "between models of the same vocabulary, name another --against"
        )
    mine, theirs = model_tables.vocabulary, reference.vocabulary
    if mine is None or theirs is None:
        return
    strange = sorted(token for token in mine.keys() | theirs.keys() if mine.get(token) != theirs.get(token))
    if strange or model_tables.copies != reference.copies:
        example = f", e.g. {quoted(strange[0])}" if strange else ""
        raise ValueError(
            f"the tokenizers of {model_tables.name} and {reference.name} disagree on {len(strange):,} tokens{example}, "
            "so row by row they mean different things; name another --against"
        )


def _metrics(
    facts: dict[str, TableFacts], other_facts: dict[str, TableFacts]
) -> dict[str, tuple[float | None, float | None]]:
    mine, theirs = (
        _numbers(facts_by_table.get("head") or facts_by_table["embedding"]) for facts_by_table in (facts, other_facts)
    )
    return {name: (theirs[name], mine[name]) for name in mine}


def _numbers(facts: TableFacts) -> dict[str, float | None]:
    return {metric.comparison: metric.value(facts) for metric in table_metrics() if metric.comparison}


def _changes(before: Table, after: Table) -> RowChanges:
    """Both tables in one sweep; equal widths make equal blocks."""
    pairs = zip(blocks(before), blocks(after), strict=True)
    changes = [row_changes(a, b) for (_, a), (_, b) in pairs]
    return RowChanges(*(torch.cat(column) for column in zip(*changes, strict=True)))


def _most_changed(changes: RowChanges, groups: Groups, tokens: Sequence[str]) -> list[RowChange]:
    group_of = {int(id): name for name, ids in groups.items() for id in ids}
    finite = changes.cosine.isfinite() & changes.before.isfinite() & changes.after.isfinite()
    rows = (finite & ~changes.same).nonzero().squeeze(1)
    longer = torch.maximum(changes.before, changes.after)
    turned = ((changes.after - changes.before).abs() / longer.where(longer > 0, 1.0))[rows]
    order = turned.argsort(descending=True, stable=True)
    order = order[changes.cosine[rows][order].argsort(stable=True)][:CHANGED]
    return [
        RowChange(
            id=id,
            token=tokens[id][:TOKEN_LENGTH],
            group=group_of.get(id, "padded"),
            cosine=float(changes.cosine[id]),
            norm_before=float(changes.before[id]),
            norm_after=float(changes.after[id]),
        )
        for id in rows[order].tolist()
    ]


def _neighbours(before: Table, after: Table, groups: Groups) -> dict[str, float | None]:
    usable, pointing = (first & second for first, second in zip(_sound(before), _sound(after), strict=True))
    inside = torch.zeros_like(usable)
    inside[groups["all"]] = True
    members = (inside & pointing).nonzero().squeeze(1)
    sample = torch.randperm(len(members), generator=torch.Generator().manual_seed(0))[:COMPARED]
    ids_compared = members[sample].sort().values
    allowed = inside & usable
    first, second = (
        nearest_rows(ids_compared, _read(table, ids_compared), blocks(table), allowed, NEIGHBOURS)
        for table in (before, after)
    )
    share = common_share(first, second)
    return {name: _mean(share[torch.isin(ids_compared, ids)]) for name, ids in groups.items()}


def _sound(table: Table) -> tuple[Bool[Tensor, " V"], Bool[Tensor, " V"]]:
    """Masks of the rows that are finite, and of those among them that are not zero."""
    masks = [(block.isfinite().all(1), (block != 0).any(1)) for _, block in blocks(table)]
    finite, filled = (torch.cat(column) for column in zip(*masks, strict=True))
    return finite, finite & filled


def _read(table: Table, ids: Int64[Tensor, " M"]) -> Tensor:
    rows = [block[ids[(ids >= start) & (ids < start + len(block))] - start] for start, block in blocks(table)]
    return torch.cat(rows)


def _mean(values: Float64[Tensor, " n"]) -> float | None:
    defined = values[~values.isnan()]
    return float(defined.mean()) if len(defined) else None
