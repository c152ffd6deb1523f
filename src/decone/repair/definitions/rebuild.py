"""Rows of a table rebuilt from definitions: which ones, from what, and whether it is worth it.

Zhang, Li and Okumura 2024, DefinitionEMB (arXiv 2408.01308): a model reads the dictionary's definition of a token and
gives back its row. Deviations of the released code are settings by name, see `recipe`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from decone.data.lexicons import Lexicon, Sense
from decone.files.foreign import quoted
from decone.files.settings import Progress
from decone.metrics.statistics import share_interval
from decone.models.tables import MemoryTable, ModelTables
from decone.repair.alignment.align import align
from decone.repair.alignment.result import AlignmentSettings, TokenEntry
from decone.repair.alignment.surfaces import Surface, kind_of
from decone.repair.definitions.fit import (
    HALF,
    Fit,
    Reconstructor,
    blend_rows,
    doubtful,
    require_finite,
    scale_rows,
    unrelated_share,
)
from decone.repair.definitions.recipe import DefinitionRecipe
from decone.repair.delta import RepairTarget, RowDelta
from decone.repair.vocabulary.initialisations import Initialisation, NewRows, RowRequest, pieces

SHORT = 0.5  # of the old length; below it a note is written
MOST = 0.5  # of the defined tokens; above it a note is written
ENOUGH = 2  # tokens to learn from per dimension; below it a note is written
NAMED = 5  # tokens in a message


def find_doubtful_rows(
    reconstructor: Reconstructor, candidates: Int64[Tensor, " K"]
) -> tuple[Int64[Tensor, " M"], dict[str, Any]]:
    """Finds the candidates that their definitions contradict, if there are more of them than elsewhere.

    Function words, names and bad definitions contradict good rows too: about 3 % of a healthy table. So the candidates
    are compared with the remaining rows.

    Args:
        reconstructor: of the model.
        candidates: ids to look at.

    Returns:
        Rising ids, and counts of the comparison.

    Raises:
        ValueError: none has a definition, or they agree with theirs as well as the other rows do.
    """
    inside = torch.isin(reconstructor.ids, candidates)
    if not bool(inside.any()) or bool(inside.all()):
        raise ValueError("rows in doubt are looked for among some of the defined rows, beside others; name rows")
    predicted, _ = reconstructor.crossfit(torch.ones(len(inside), dtype=torch.bool))
    ranks = reconstructor.ranks(predicted, torch.arange(len(inside)))
    low = ranks > HALF * reconstructor.size
    share_inside = share_interval(int(low[inside].sum()), int(inside.sum()))
    share_outside = share_interval(int(low[~inside].sum()), int((~inside).sum()))
    wrong = doubtful(ranks, reconstructor.size)
    results = {
        "looked_at": int(inside.sum()),
        "in_doubt": int((wrong & inside).sum()),
        "unrelated_rare": min(1.0, share_inside.mean / (1 - HALF)),
        "unrelated_elsewhere": min(1.0, share_outside.mean / (1 - HALF)),
    }
    if share_inside.low <= share_outside.high:
        raise ValueError(
            f"nothing seems lost: the {results['looked_at']:,} rarest defined rows agree with their definitions about "
            f"as well as the others do (unrelated {results['unrelated_rare']:.1%}, elsewhere "
            f"{results['unrelated_elsewhere']:.1%}), and a rebuilt row knows less than a good old one; to rebuild rows "
            "all the same, name them: --rows rare"
        )
    return reconstructor.ids[wrong & inside], results


def rebuild_rows(
    target: RepairTarget, reconstructor: Reconstructor, ids: Int64[Tensor, " M"]
) -> tuple[RowDelta, dict[str, Any], list[str]]:
    """Rebuilds rows of a model's table from the definitions of their tokens.

    Args:
        target: the table.
        reconstructor: of the model.
        ids: rows to rebuild; those without a definition stay as they are, and are counted in a note.

    Returns:
        The new rows, the results as data, and notes for the user.

    Raises:
        ValueError: none of the rows has a definition, or too few tokens are left to learn from.
    """
    recipe = reconstructor.recipe
    replaced, notes = _replaced(reconstructor, ids)
    train = ~replaced if recipe.train_on == "kept" else torch.ones_like(replaced)
    if recipe.train_on == "others" and recipe.solver != "ridge":
        raise ValueError("each row from all others needs a map in closed form: set solver=ridge, or train_on=kept")
    if not bool(train.any()):
        raise ValueError(
            "all defined rows are to be replaced, so none is left to learn from; replace fewer, or set "
            "train_on=others, which rebuilds each row from all others"
        )
    tokens = replaced.nonzero().squeeze(1)
    # Of the old rows: is there anything to mend?
    unrelated = unrelated_share(reconstructor.ranks(reconstructor.crossfit(train)[0], tokens), reconstructor.size)
    refine = unrelated > HALF and recipe.train_on == "kept"
    readings = 1 + (reconstructor.refine_features(train, replaced) if refine else 0)
    fit = reconstructor.fit(train)
    rebuilt = fit.out_of_fold[tokens] if recipe.train_on == "others" else reconstructor.predict(fit, tokens)
    # Before they are scaled: one that is no number would spoil the spread of all.
    ids = reconstructor.ids[tokens]
    require_finite(rebuilt, torch.float32, target.table.name, ids)
    old, retained = reconstructor.rows[tokens], reconstructor.rows[~replaced if bool((~replaced).any()) else replaced]
    rows, flat = scale_rows(rebuilt, old, retained, recipe.scale)
    new = blend_rows(rows, old, recipe.blend, target.full_table.dtype, target.table.name, ids)
    results = _results(reconstructor, fit, train, len(tokens), flat) | {"unrelated": unrelated, "read": readings}
    results["length"] = float(rebuilt.norm(dim=1).mean() / old.norm(dim=1).mean().clamp_min(1e-30))
    notes += _warnings(reconstructor, results, fit, replaced, train)
    return RowDelta(target, ids, MemoryTable(target.table.name, new)), results, notes


def _replaced(reconstructor: Reconstructor, ids: Int64[Tensor, " M"]) -> tuple[Bool[Tensor, " N"], list[str]]:
    """Mask of the defined tokens that are rebuilt, and sentences about those that are not."""
    replaced, notes = torch.isin(reconstructor.ids, ids), list[str]()
    if not bool(replaced.any()):
        raise ValueError(f"none of the {len(ids):,} rows has a definition; choose others, or another lexicon")
    if (without := len(ids) - int(replaced.sum())) > 0:
        notes.append(f"{without:,} of the {len(ids):,} rows have no definition and stay as they are")
    groups = reconstructor.identical_groups(replaced)
    if groups and reconstructor.recipe.collision == "keep-old":
        later = torch.tensor([id for group in groups for id in group[1:]])
        replaced &= ~torch.isin(reconstructor.ids, later)
        notes.append(f"{len(later):,} rows keep their old values: an earlier token has the same definitions")
    elif groups:
        examples = "; ".join(
            " = ".join(repr(reconstructor.alignment.surfaces[id].token[:24]) for id in group[:3])
            for group in groups[:3]
        )
        notes.append(
            f"{sum(map(len, groups)):,} rows in {len(groups):,} groups get the same values, for their tokens have the "
            f"same definitions ({examples}); collision=keep-old leaves all but the first as they are"
        )
    return replaced, notes


def _results(
    reconstructor: Reconstructor, fit: Fit, train: Bool[Tensor, " N"], rebuilt: int, flat: int
) -> dict[str, Any]:
    results: dict[str, Any] = {
        "defined": len(reconstructor.ids),
        "learned_from": int(train.sum()),
        "rebuilt": rebuilt,
        "ridge": fit.ridge,
        "held_out": fit.scores.to_dict(),
    }
    if fit.trained is not None:
        results["errors"], results["best_epoch"] = fit.trained.errors, fit.trained.best_epoch
    if fit.frozen_scores is not None:
        results["frozen"] = fit.frozen_scores.to_dict()
    if flat:
        results["without_direction"] = flat
    return results | {"prompts": len(reconstructor.prompts), **dict(reconstructor.writer.tally)}


def _warnings(
    reconstructor: Reconstructor, results: dict[str, Any], fit: Fit, replaced: Bool[Tensor, " N"], train: Tensor
) -> list[str]:
    """Reasons not to apply a repair, in sentences."""
    name, notes, scores = reconstructor.table.name, list[str](), fit.scores
    if scores.r2 <= 0:
        notes.append(
            f"{name}: definitions tell nothing of rows that were not learned from (R2 {scores.r2:.3f}); the mean row "
            "would do as well, so do not apply this"
        )
    if fit.frozen_scores is not None and fit.frozen_scores.r2 > scores.r2:
        notes.append(
            f"{name}: training did not help (R2 {scores.r2:.3f}, frozen {fit.frozen_scores.r2:.3f}); set solver=ridge"
        )
    if results["unrelated"] < HALF:
        notes.append(
            f"{name}: {1 - results['unrelated']:.0%} of the old rows agree with their definitions, so little was lost; "
            "a rebuilt row knows less than a good old one. Apply this only before fine-tuning, and look at a task"
        )
    share = float(replaced.float().mean())
    if share > MOST:
        notes.append(
            f"{name}: {share:.0%} of the defined rows are replaced; without fine-tuning afterwards the "
            "model gets worse, so replace fewer, or keep part of the old rows with blend=0.5"
        )
    if results["length"] < SHORT and reconstructor.recipe.scale == "none":
        notes.append(
            f"{name}: rebuilt rows have {results['length']:.0%} of the old length; set scale=spread, or blend=0.5"
        )
    if int(train.sum()) < ENOUGH * reconstructor.rows.shape[1]:
        notes.append(
            f"{name}: {int(train.sum()):,} tokens are few to learn {reconstructor.rows.shape[1]} dimensions from; rows "
            "will mostly be the mean"
        )
    return notes


def from_definitions(
    model_tables: ModelTables,
    lexicon: Lexicon,
    recipe: DefinitionRecipe | None = None,
    settings: AlignmentSettings | None = None,
    device: str = "auto",
    mask: str | None = None,
    progress: Progress | None = None,
) -> Initialisation:
    """Makes rows for new tokens: learned from the defined tokens of a table, applied to their definitions.

    Args:
        model_tables: the model, an encoder or an encoder with a decoder.
        lexicon: defines old tokens, to learn from, and every new one.
        recipe: settings; everything that is defined is learned from. A scale of "row" has no old row to go by.
        settings: of the matching of old tokens.
        device: by name.
        mask: the token that stands for the defined one; without it the usual one.
        progress: called with a stage, the steps done and their number.

    Returns:
        A function for `grow`; it raises ValueError where a new token has no definition, or `Reconstructor` does.
    """
    recipe = recipe or DefinitionRecipe()

    def definitions(request: RowRequest) -> NewRows:
        if recipe.scale == "row" or recipe.blend < 1:
            raise ValueError("a new token has no old row to go by; leave scale=row and blend out")
        if model_tables.tokenizer is None:
            raise ValueError(f"{model_tables.name} has no tokenizer to align a lexicon with")
        entries = _new_entries(request.surfaces, lexicon, model_tables)
        alignment = align(model_tables.tokenizer, lexicon, request.table.shape[0], model_tables.special, settings)
        reconstructor = Reconstructor(model_tables, request.table, alignment, recipe, device, mask, progress)
        fit = reconstructor.fit(torch.ones(len(reconstructor.ids), dtype=torch.bool))
        rows, defined = reconstructor.predict_new(fit, entries)
        if not bool(defined.all()):
            _refuse([surface for surface, ok in zip(request.surfaces, defined.tolist(), strict=True) if not ok])
        scaled, _ = scale_rows(rows, rows, reconstructor.rows, recipe.scale)
        return NewRows(scaled, pieces(request).sources)

    return definitions


def _new_entries(surfaces: Sequence[str], lexicon: Lexicon, model_tables: ModelTables) -> list[TokenEntry]:
    """New tokens with their senses, numbered by ids that no row has."""
    normalizer = None if model_tables.tokenizer is None else model_tables.tokenizer.normalizer

    def key(text: str) -> str:
        return (text if normalizer is None else normalizer.normalize_str(text)).replace("▁", " ").strip()

    by_key = {key(surface): list[Sense]() for surface in surfaces}
    for sense in lexicon:
        if (senses := by_key.get(key(sense.word))) is not None:
            senses.append(sense)
    missing = [surface for surface in surfaces if not by_key[key(surface)]]
    if missing:
        _refuse(missing)
    return [
        TokenEntry(-1 - index, Surface(surface, surface, kind_of(surface)), "exact", tuple(by_key[key(surface)]))
        for index, surface in enumerate(surfaces)
    ]


def _refuse(missing: Sequence[str]) -> None:
    names = ", ".join(quoted(surface) for surface in missing[:NAMED])
    raise ValueError(
        f"{len(missing):,} new tokens have no definition in the lexicon: {names}; add lines word<TAB>definition to a "
        "lexicon of your own and name it too, or leave them out"
    )
