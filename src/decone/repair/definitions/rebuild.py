"""Rows of a table rebuilt from definitions: which ones, from what, and whether it is worth it.

Zhang, Li and Okumura 2024, DefinitionEMB (arXiv 2408.01308): a model reads what a dictionary says of a token and gives
back its row. What the released code does differently is a setting by name, see `recipe`.
"""

from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from decone.metrics.intervals import share_interval
from decone.models.tables import MemoryTable
from decone.repair.definitions.lengths import mixed, require_finite, scaled
from decone.repair.definitions.reconstructor import Reconstructor, Told
from decone.repair.definitions.scores import HALF, doubtful
from decone.repair.delta import Change
from decone.repair.tables import Target

SHORT = 0.5  # of the old length; less is told
MOST = 0.5  # of the defined tokens; more is told
ENOUGH = 2  # tokens to learn from per dimension; fewer is told


def in_doubt(reconstructor: Reconstructor, among: Int64[Tensor, " K"]) -> tuple[Int64[Tensor, " M"], dict[str, Any]]:
    """Finds the rows among some that their definitions contradict, if there are more of them than elsewhere.

    Function words, names and bad definitions contradict good rows too: about 3 % of a healthy table. So the rows looked
    at are held against the others.

    Args:
        reconstructor: of the model.
        among: ids to look at.

    Returns:
        Rising ids, and what was found.

    Raises:
        ValueError: none has a definition, or they agree with theirs as well as the other rows do.
    """
    looked = torch.isin(reconstructor.ids, among)
    if not bool(looked.any()) or bool(looked.all()):
        raise ValueError("rows in doubt are looked for among some of the defined rows, beside others; name rows")
    predicted, _ = reconstructor.crossfit(torch.ones(len(looked), dtype=torch.bool))
    found = reconstructor.ranks(predicted, torch.arange(len(looked)))
    low = found > HALF * reconstructor.size
    inside = share_interval(int(low[looked].sum()), int(looked.sum()))
    outside = share_interval(int(low[~looked].sum()), int((~looked).sum()))
    wrong = doubtful(found, reconstructor.size)
    facts = {
        "looked_at": int(looked.sum()),
        "in_doubt": int((wrong & looked).sum()),
        "unrelated_rare": min(1.0, inside.mean / (1 - HALF)),
        "unrelated_elsewhere": min(1.0, outside.mean / (1 - HALF)),
    }
    if inside.low <= outside.high:
        raise ValueError(
            f"nothing seems lost: the {facts['looked_at']:,} rarest defined rows agree with their definitions about as "
            f"well as the others do (unrelated {facts['unrelated_rare']:.1%}, elsewhere "
            f"{facts['unrelated_elsewhere']:.1%}), and a rebuilt row knows less than a good old one; to rebuild rows "
            "all the same, name them: --rows rare"
        )
    return reconstructor.ids[wrong & looked], facts


def rebuild(
    target: Target, reconstructor: Reconstructor, ids: Int64[Tensor, " M"]
) -> tuple[Change, dict[str, Any], list[str]]:
    """Rebuilds rows of a model's table from the definitions of their tokens.

    Args:
        target: the table.
        reconstructor: of the model.
        ids: rows to rebuild; those without a definition stay as they are, and are told.

    Returns:
        The change, what was found, and what a user must know.

    Raises:
        ValueError: none of the rows has a definition, or too few tokens are left to learn from.
    """
    recipe = reconstructor.recipe
    chosen, notes = _chosen(reconstructor, ids)
    learn = ~chosen if recipe.train_on == "kept" else torch.ones_like(chosen)
    if recipe.train_on == "others" and recipe.solver != "ridge":
        raise ValueError("each row from all others needs a map in closed form: set solver=ridge, or train_on=kept")
    if not bool(learn.any()):
        raise ValueError(
            "all defined rows are to be replaced, so none is left to learn from; replace fewer, or set "
            "train_on=others, which rebuilds each row from all others"
        )
    places = chosen.nonzero().squeeze(1)
    # Of the old rows: whether there is anything to mend.
    ranks = reconstructor.ranks(reconstructor.crossfit(learn)[0], places)
    unrelated = min(1.0, float((ranks > HALF * reconstructor.size).double().mean()) / (1 - HALF))
    again = reconstructor.read_again(learn, chosen) if unrelated > HALF and recipe.train_on == "kept" else 0
    told = reconstructor.learn(learn)
    rebuilt = told.honest[places] if recipe.train_on == "others" else reconstructor.predict(told, places)
    # Before they are scaled: one that is no number would spoil the spread of all.
    ids = reconstructor.ids[places]
    require_finite(rebuilt, torch.float32, target.table.name, ids)
    old, kept = reconstructor.rows[places], reconstructor.rows[~chosen if bool((~chosen).any()) else chosen]
    rows, flat = scaled(rebuilt, old, kept, recipe.scale)
    new = mixed(rows, old, recipe.blend, target.whole.dtype, target.table.name, ids)
    found = _facts(reconstructor, told, learn, places, flat) | {"unrelated": unrelated, "read": 1 + again}
    found["length"] = float(rebuilt.norm(dim=1).mean() / old.norm(dim=1).mean().clamp_min(1e-30))
    notes += _notes(reconstructor, found, told, chosen, learn)
    return Change(target, ids, MemoryTable(target.table.name, new)), found, notes


def _chosen(reconstructor: Reconstructor, ids: Int64[Tensor, " M"]) -> tuple[Bool[Tensor, " N"], list[str]]:
    """Which defined tokens are rebuilt, and sentences about those that are not."""
    chosen, notes = torch.isin(reconstructor.ids, ids), list[str]()
    if not bool(chosen.any()):
        raise ValueError(f"none of the {len(ids):,} rows has a definition; choose others, or another lexicon")
    if (without := len(ids) - int(chosen.sum())) > 0:
        notes.append(f"{without:,} of the {len(ids):,} rows have no definition and stay as they are")
    same = reconstructor.alike(chosen)
    if same and reconstructor.recipe.collision == "keep-old":
        later = torch.tensor([id for group in same for id in group[1:]])
        chosen &= ~torch.isin(reconstructor.ids, later)
        notes.append(f"{len(later):,} rows keep their old values: an earlier token has the same definitions")
    elif same:
        some = "; ".join(
            " = ".join(repr(reconstructor.alignment.surfaces[id].token[:24]) for id in group[:3]) for group in same[:3]
        )
        notes.append(
            f"{sum(map(len, same)):,} rows in {len(same):,} groups get the same values, for their tokens have the same "
            f"definitions ({some}); collision=keep-old leaves all but the first as they are"
        )
    return chosen, notes


def _facts(
    reconstructor: Reconstructor, told: Told, learn: Bool[Tensor, " N"], places: Tensor, flat: int
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "defined": len(reconstructor.ids),
        "learned_from": int(learn.sum()),
        "rebuilt": len(places),
        "ridge": told.ridge,
        "held_out": told.scores.facts(),
    }
    if told.trained is not None:
        found["errors"], found["best_epoch"] = told.trained.errors, told.trained.best
    if told.frozen is not None:
        found["frozen"] = told.frozen.facts()
    if flat:
        found["without_direction"] = flat
    return found | {"prompts": len(reconstructor.prompts), **dict(reconstructor.writer.tally)}


def _notes(
    reconstructor: Reconstructor, found: dict[str, Any], told: Told, chosen: Bool[Tensor, " N"], learn: Tensor
) -> list[str]:
    """When a repair should not be applied, in sentences."""
    name, notes, scores = reconstructor.table.name, list[str](), told.scores
    if scores.r2 <= 0:
        notes.append(
            f"{name}: definitions tell nothing of rows that were not learned from (R2 {scores.r2:.3f}); the mean row "
            "would do as well, so do not apply this"
        )
    if told.frozen is not None and told.frozen.r2 > scores.r2:
        notes.append(
            f"{name}: training did not help (R2 {scores.r2:.3f}, frozen {told.frozen.r2:.3f}); set solver=ridge"
        )
    if found["unrelated"] < HALF:
        notes.append(
            f"{name}: {1 - found['unrelated']:.0%} of the old rows agree with their definitions, so little was lost; a "
            "rebuilt row knows less than a good old one. Apply this only before fine-tuning, and look at a task"
        )
    if float(chosen.float().mean()) > MOST:
        notes.append(
            f"{name}: {chosen.float().mean():.0%} of the defined rows are replaced; without fine-tuning afterwards the "
            "model gets worse, so replace fewer, or keep part of the old rows with blend=0.5"
        )
    if found["length"] < SHORT and reconstructor.recipe.scale == "none":
        notes.append(
            f"{name}: rebuilt rows have {found['length']:.0%} of the old length; set scale=spread, or blend=0.5"
        )
    if int(learn.sum()) < ENOUGH * reconstructor.rows.shape[1]:
        notes.append(
            f"{name}: {int(learn.sum()):,} tokens are few to learn {reconstructor.rows.shape[1]} dimensions from; rows "
            "will mostly be the mean"
        )
    return notes
