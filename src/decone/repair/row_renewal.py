"""New rows for tokens that exist but were never trained, such as the chat tokens of a base model.

Each table is judged and mended by itself: an input row that was trained stays, though the output row of its token was
not. New rows come from the trained rows of their own table by the methods of `vocabulary.initialisations`, and the
output bias from the biases of the same tokens. Pieces of a token are what the tokenizer makes of its text without it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from tokenizers import Tokenizer
from torch import Tensor

from decone.files.folder import read_object
from decone.files.foreign import join_names, plain
from decone.files.safetensors import FileTable, open_weights
from decone.files.settings import Progress
from decone.frequencies import rows_by_reach, rows_by_token, token_rows, token_texts
from decone.metrics.row_survey import survey_rows
from decone.metrics.table_geometry import row_norms
from decone.models.tables import MemoryTable, ModelTables, Table, blocks
from decone.repair.alignment.surfaces import surfaces
from decone.repair.delta import RepairTarget, RowDelta, model_path, repair_targets, separate_inputs
from decone.repair.methods.base import RepairedRows, TableChoice
from decone.repair.row_selection import RowSelection, parse_rows, select_rows
from decone.repair.vocabulary.initialisations import LIKE, NewRows, RowRequest, find_initialisation, find_row, row_means
from decone.repair.vocabulary.tensors import bias_tensors
from decone.repair.vocabulary.tokenizer import build_tokenizer, encode, merge_pair, read_merges, unknown_ids
from decone.vocab.reach import reach

STATES = 128  # rows of trained tokens that stand for states of the model
OPTION = "--ids"
MARKS = ("bos", "eos", "cls", "sep", "mask", "unk")  # roles of tokens that training texts hold
_BY_PIECES = ("pieces", "neighbours")  # initialisations that need a tokenizer
_HIDDEN = "\U0010fffd"  # begins the names that tokens are hidden under; no text holds it


@dataclass(frozen=True)
class RowRoles:
    """Rows of a model by the role of their tokens.

    Attributes:
        unused: without a token, or with one that no text gives.
        special: of tokens that programs write.
        marks: of tokens that training texts hold, as those that begin and end them.
        padding: of the padding token, where it has no other role; one at most.
        candidates: rows that may be in need: of tokens that are met, and not for padding alone.
    """

    unused: frozenset[int]
    special: frozenset[int]
    marks: frozenset[int]
    padding: frozenset[int]
    candidates: Bool[Tensor, " V"]

    def trained(self, sound: Bool[Tensor, " V"]) -> Bool[Tensor, " V"]:
        """The sound rows that are neither unused nor special: what new rows are made from."""
        mask = sound.clone()
        mask[[row for row in (*self.unused, *self.special) if row < len(mask)]] = False
        return mask


def row_roles(model_tables: ModelTables) -> RowRoles:
    """Tells apart the rows of a model by their tokens; without a tokenizer every row may be in need."""
    size = model_tables.output.shape[0]
    reached = None if model_tables.tokenizer is None else reach(model_tables.tokenizer)
    kinds = rows_by_reach(model_tables, reached)
    unused = {row for kind in ("padded", "gap", "unreachable") for row in kinds.get(kind, ())}
    inside = set() if reached is None else {*token_rows(model_tables, reached.inside)}
    marks = role_ids(model_tables, *MARKS)
    padding = role_ids(model_tables, "pad") - marks
    candidates = torch.ones(size, dtype=torch.bool)
    candidates[[row for row in {*unused, *padding, *kinds["partial"]} - inside if row < size]] = False
    special = model_tables.special | {*kinds["reserved"]}
    return RowRoles(frozenset(unused), frozenset(special), marks, padding, candidates)


def renew_rows(
    model_tables: ModelTables,
    ids: str,
    init: str,
    neighbours: int,
    table: TableChoice,
    seed: int,
    progress: Progress,
) -> RepairedRows:
    """Makes new rows, and biases, for tokens of a model.

    Args:
        model_tables: of the model.
        ids: "untrained", or rows by name, see `row_selection`.
        init: name of a method of `vocabulary.initialisations`, or "like=TOKEN".
        neighbours: K of the method "neighbours".
        table: of two.
        seed: of random methods, and of the states that logits are compared at.
        progress: called with a stage, the steps done and their number.

    Raises:
        ValueError: no row is untrained, a row or token does not exist, the method needs a tokenizer that is not there,
            or nothing is trained that rows could be made from.
    """
    selection, make_rows = parse_rows(ids, "untrained", OPTION), find_initialisation(init)
    if init in _BY_PIECES and model_tables.tokenizer is None:
        raise ValueError(f"--init {init} cuts tokens into pieces, and {model_tables.name} has no tokenizer; take mean")
    has_output = model_tables.tied or model_tables.head is not None
    targets = repair_targets(model_tables, table if has_output or table != "both" else "input")
    progress("rows that no training has shaped", 0, 1)
    roles, names = row_roles(model_tables), rows_by_token(model_tables)
    unused = torch.tensor(sorted(roles.unused), dtype=torch.int64)
    plans = [_plan(target, selection, roles, unused, names) for target in targets]
    renewed = torch.tensor(sorted({row for plan in plans for row in plan.ids.tolist()}), dtype=torch.int64)
    if not len(renewed):
        raise ValueError(
            f"no token of {model_tables.name} has an untrained row: none is zero, not finite, or like the rows of no "
            f"token; name the rows to be made anew all the same: {OPTION} '<|im_start|>,<|im_end|>'"
        )
    texts = token_texts(model_tables)
    pieces: dict[int, list[int]] = {row: [] for row in renewed.tolist()}
    if init in _BY_PIECES and model_tables.tokenizer is not None:
        pieces = dict(zip(pieces, pieces_without(model_tables.tokenizer, [*pieces]), strict=True))
    settings: dict[str, Any] = {"ids": ids, "init": init, "table": table}
    settings |= {"neighbours": neighbours if init == "neighbours" else None, "seed": seed if init == "sample" else None}
    repaired = RepairedRows([], settings, {}, _notes(model_tables, targets, roles, selection, plans))
    for plan in plans:
        if not len(plan.ids):
            repaired.notes.append(f"all rows of {plan.target.table.name} are trained, so it stays as it is")
            continue
        progress(f"new rows of the {plan.target.role} table", 0, 1)
        source = plan.target.table
        if init.startswith(LIKE):
            _require_trained(find_row(init.removeprefix(LIKE), names, source.shape[0]), plan, init)
        trained = roles.trained(plan.sound)
        trained[renewed] = False
        if not bool(trained.any()):
            raise ValueError(f"no row of {source.name} was trained, so there is nothing to make new ones from")
        pieces_of = [[piece for piece in pieces[row] if plan.sound[piece]] for row in plan.ids.tolist()]
        if init in _BY_PIECES and not all(pieces_of):
            pieceless = [texts[row] for row, sources in zip(plan.ids.tolist(), pieces_of, strict=True) if not sources]
            repaired.notes.append(f"{source.name}: no trained piece of {join_names(pieceless)}; the mean stands in")
        request = RowRequest(
            [texts[row] for row in plan.ids.tolist()], pieces_of, source, trained, neighbours, seed, names
        )
        new = make_rows(request)
        rows = _finite(new.rows.to(source.dtype), source.name)
        repaired.deltas.append(RowDelta(plan.target, plan.ids, MemoryTable(source.name, rows)))
        results: dict[str, Any] = {"rows": len(plan.ids), **_lengths(source, plan.ids, rows, trained)}
        if has_output and source is (model_tables.head or model_tables.embedding):
            biases = _bias_deltas(model_tables, plan, new)
            repaired.deltas += biases
            results |= {"biases": [delta.target.names[0] for delta in biases]} if biases else {}
            results |= compare_logits(source, plan.ids, rows, trained, seed)
            if results["first_after"] > 0:
                repaired.notes.append(
                    f"{source.name}: in {results['first_after']:.1%} of the states tried a new row has the highest "
                    "logit of all, so the model would write its token where nothing calls for it; --init mean or "
                    "pieces cannot win"
                )
        repaired.results[plan.target.role] = results
        if len(rows) > 1 and bool((rows == rows[0]).all()):
            repaired.notes.append(
                f"{source.name}: the {len(rows):,} new rows are equal, so the model cannot tell their tokens apart "
                "until it is trained; --init pieces or sample makes them differ"
            )
    return repaired


@dataclass(frozen=True)
class _Plan:
    """Rows of one table: to be made anew, and good enough to be pieces or copied."""

    target: RepairTarget
    ids: Int64[Tensor, " M"]
    sound: Bool[Tensor, " V"]


def _plan(
    target: RepairTarget,
    selection: RowSelection,
    roles: RowRoles,
    unused: Int64[Tensor, " U"],
    names: dict[str, int],
) -> _Plan:
    measures = survey_rows(target.table, unused)
    untrained = measures.untrained(roles.unused, roles.special, roles.marks)
    if selection.kind == "untrained":
        ids = (untrained & roles.candidates).nonzero().squeeze(1)
    else:
        ids = select_rows(selection, target.table.shape[0], tokens=names)
    sound = measures.finite & ~measures.zero & ~untrained
    sound[ids] = False
    return _Plan(target, ids, sound)


def pieces_without(tokenizer: Tokenizer, ids: Sequence[int]) -> list[list[int]]:
    """Cuts tokens into the pieces that a tokenizer would make of their texts if it had none of them.

    The tokens are hidden under names that no text holds, so that all others keep their ids.

    Args:
        tokenizer: left as it is.
        ids: of the tokens; rows without a token have no pieces.

    Returns:
        Ids of the pieces of each, without unknown ones.

    Example:
        >>> from tokenizers import models
        >>> vocabulary = {"[UNK]": 0, "ice": 1, "##berg": 2, "iceberg": 3}
        >>> pieces_without(Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")), [3])
        [[1, 2]]
    """
    spec: dict[str, Any] = json.loads(tokenizer.to_str())
    texts = [
        " " * surface.spaced + (surface.text or surface.token) if surface.kind not in ("padding", "byte") else ""
        for surface in surfaces(tokenizer, max(ids, default=-1) + 1)
    ]
    hidden = {index: f"{_HIDDEN}{index}" for index in ids}
    model = spec["model"]
    for entry in spec["added_tokens"]:
        if entry["id"] in hidden:
            entry |= {"content": hidden[entry["id"]], "normalized": False}
    if isinstance(model["vocab"], list):
        model["vocab"] = [[hidden.get(index, piece), score] for index, (piece, score) in enumerate(model["vocab"])]
    else:
        gone = {token for token, index in model["vocab"].items() if index in hidden}
        model["vocab"] = {hidden.get(index, token): index for token, index in model["vocab"].items()}
        if "merges" in model:
            prefix = model.get("continuing_subword_prefix") or ""
            pairs = zip(model["merges"], read_merges(model), strict=True)
            model["merges"] = [merge for merge, pair in pairs if gone.isdisjoint((*pair, merge_pair(pair, prefix)))]
    without = build_tokenizer(spec, "the model")
    unknown = unknown_ids(spec, without) | set(ids)
    encodings = encode(without, [texts[index] for index in ids])
    return [[piece for piece in encoding.ids if piece not in unknown] for encoding in encodings]


def compare_logits(
    table: Table, ids: Int64[Tensor, " M"], rows: Float[Tensor, "M H"], trained: Bool[Tensor, " V"], seed: int = 0
) -> dict[str, Any]:
    """Compares the logits of old and new rows with those of all others, where the model is sure of some token.

    Rows of trained tokens stand for the states: where a model is sure of a token, its state points as that row does.
    Biases are left aside.

    Args:
        table: the output table.
        ids: rows that change, rising.
        rows: the new ones.
        trained: mask of rows of trained tokens.
        seed: of the choice among them.

    Returns:
        "first_before" and "first_after", shares of the states in which one of these rows has the highest logit of the
        table; "median_rank_before" and "median_rank_after", of their logits among those of the others, from 1. Null
        where no old row is finite.

    Example:
        >>> table, trained = MemoryTable("weight", torch.eye(4) - 0.5), torch.tensor([True, True, True, False])
        >>> compare_logits(table, torch.tensor([3]), torch.full((1, 4), -0.25), trained)["median_rank_after"]
        2.0
    """
    choice = torch.randperm(int(trained.sum()), generator=torch.Generator().manual_seed(seed))[:STATES]
    states = row_means(table, [*trained.nonzero()[choice]]).float()
    unchanged = torch.ones(table.shape[0], dtype=torch.bool)
    unchanged[ids] = False
    logits = []
    for start, block in blocks(table):
        mask = unchanged[start : start + len(block)] & torch.isfinite(block).all(1)
        logits.append(states @ block[mask].float().T)
    ordered = torch.cat(logits, 1).sort(1).values
    old = row_means(table, [*ids[:, None]]).float()
    results: dict[str, Any] = {}
    for moment, changed in (("before", old[torch.isfinite(old).all(1)]), ("after", rows.float())):
        scores = states @ changed.T
        first = (scores > ordered[:, -1:]).any(1).double().mean() if ordered.shape[1] else None
        ranks = 1 + ordered.shape[1] - torch.searchsorted(ordered, scores.contiguous(), right=True)
        results[f"first_{moment}"] = float(first) if first is not None and len(changed) else None
        results[f"median_rank_{moment}"] = float(ranks.double().median()) if len(changed) else None
    return results


def _lengths(
    table: Table, ids: Int64[Tensor, " M"], rows: Float[Tensor, "M H"], trained: Bool[Tensor, " V"]
) -> dict[str, float]:
    """Median length of the trained rows, and mean length of the others before and after."""
    lengths = torch.cat([row_norms(block) for _, block in blocks(table)])
    old = lengths[ids]
    old = old[torch.isfinite(old)]
    return {
        "length_of_trained": float(lengths[trained].median()),
        "length_before": float(old.mean()) if len(old) else 0.0,
        "length_after": float(row_norms(rows).mean()),
    }


def _bias_deltas(model_tables: ModelTables, plan: _Plan, new: NewRows) -> list[RowDelta]:
    """New biases of the tokens, each the mean over the rows that its row comes from."""
    weights, full = open_weights(model_path(model_tables)), plan.target.full_table.shape[0]
    names = {name for target in repair_targets(model_tables, "both") for name in target.names}
    deltas = []
    for tensor in bias_tensors(weights, full, names):
        bias = weights.column(tensor.names[0])
        means = torch.stack([bias[sources].double().mean(0) for sources in new.sources])
        numbers = _finite(means.to(bias.dtype), tensor.names[0])
        if not torch.equal(numbers, bias[plan.ids]):
            stored = MemoryTable(tensor.names[0], bias)
            target = RepairTarget("bias", stored, stored, tensor.names)
            deltas.append(RowDelta(target, plan.ids, MemoryTable(tensor.names[0], numbers)))
    return deltas


def _notes(
    model_tables: ModelTables,
    targets: list[RepairTarget],
    roles: RowRoles,
    selection: RowSelection,
    plans: list[_Plan],
) -> list[str]:
    notes = [
        "a new row is a start, not knowledge: fine-tune the model on texts with these tokens, and these rows with it "
        "(PEFT: trainable_token_indices, or modules_to_save)"
    ]
    separate = separate_inputs(model_tables, targets[0]) if targets[0].role == "input" else []
    if separate:
        notes.append(f"{join_names(separate)} is another input table and stays; mend it too: --embedding {separate[0]}")
    if selection.kind == "untrained" and roles.padding:
        notes.append(f"the padding token, id {min(roles.padding)}, is trained by nothing and stays as it is")
    return notes


def _require_trained(row: int, plan: _Plan, init: str) -> None:
    """Refuses to copy a row that is itself to be made anew, or was never trained."""
    if not bool(plan.sound[row]):
        reason = "is one of the rows to be made anew" if bool((plan.ids == row).any()) else "was never trained itself"
        raise ValueError(
            f"--init {plain(init, 60)}: row {row} of {plan.target.table.name} {reason}; name another token"
        )


def _finite(rows: Float[Tensor, "M H"], name: str) -> Float[Tensor, "M H"]:
    if not bool(torch.isfinite(rows).all()):
        raise ValueError(f"new rows of {plain(name)} are not finite in {rows.dtype}; take another --init")
    return rows


def role_ids(model_tables: ModelTables, *roles: str) -> frozenset[int]:
    """Ids of the tokens that a folder gives some role, such as "eos", in any section of its configurations."""
    if not isinstance(model_tables.embedding, FileTable) or not (folder := model_path(model_tables)).is_dir():
        return frozenset()
    ids, names = set[object](), rows_by_token(model_tables)
    files = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
    contents = [read_object(folder, name) or {} for name in files]
    for section in (entry for content in contents for entry in (content, *content.values()) if isinstance(entry, dict)):
        for role in roles:
            token, index = section.get(f"{role}_token"), section.get(f"{role}_token_id")
            text = token.get("content") if isinstance(token, dict) else token
            ids |= {
                names.get(text) if isinstance(text, str) else None,
                *(index if isinstance(index, list) else [index]),
            }
    return frozenset(index for index in ids if isinstance(index, int) and index >= 0)
