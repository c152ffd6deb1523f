"""Rows predicted from definitions: the fit, its scores on rows that it has not seen, and the scale of new rows.

A row *agrees* with its definition when few rows of the table are nearer, in cosine around the mean prediction, to what
the definition predicts. Of a row that means nothing any other one is nearer as often as not: its rank is uniform.
Among trained rows ranks pile up at the top. From the share of ranks in the lower half the number of rows that are
unrelated to their definitions follows, as the share of true null hypotheses does from p-values (Storey 2002, eq. 6).
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from decone.files.settings import Progress
from decone.metrics.statistics import Interval, mean_interval, share_interval
from decone.models.tables import ModelTables, Table, blocks
from decone.repair.alignment.result import TokenAlignment, TokenEntry
from decone.repair.definitions.encoder import DefinitionEncoder, load_encoder, reading_precision
from decone.repair.definitions.finetuning import TrainedEncoder, finetune_encoder
from decone.repair.definitions.prompts import Prompt, PromptWriter
from decone.repair.definitions.recipe import DefinitionRecipe, Scale
from decone.repair.definitions.ridge import RidgeMap, crossfit, fit_ridge, mean_by_token
from decone.training.machine import resolve_device

HALF = 0.5
DOUBTFUL = 0.1  # a row is in doubt when more than this share of the table is nearer to what its definition predicts
COSINES = 1 << 24  # computed at once
TINY = 1e-30


@dataclass(frozen=True)
class PredictionScores:
    """Agreement of predictions with the rows of tokens that were not learned from.

    Attributes:
        tokens: number of tokens scored.
        r2: 1 - squared error over that of the mean row.
        cosine: with the row, mean over tokens with its 95 % interval.
        norm_ratio: length of predictions over that of rows.
        nearest: share whose own row is the nearest of the table, with its 95 % interval.
        top10: share whose own row is among the ten nearest.
        median_rank: of the own row, 1 is nearest.
        unrelated: estimated share of rows that have nothing to do with their definitions.
    """

    tokens: int
    r2: float
    cosine: Interval
    norm_ratio: float
    nearest: Interval
    top10: Interval
    median_rank: int
    unrelated: float

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain data, an interval as [mean, low, high]."""
        intervals = {
            name: [interval.mean, interval.low, interval.high]
            for name, interval in (("cosine", self.cosine), ("nearest", self.nearest), ("top10", self.top10))
        }
        return {
            "tokens": self.tokens,
            "r2": self.r2,
            "cosine": intervals["cosine"],
            "norm_ratio": self.norm_ratio,
            "nearest": intervals["nearest"],
            "top10": intervals["top10"],
            "median_rank": self.median_rank,
            "unrelated": self.unrelated,
        }


@dataclass(frozen=True)
class Fit:
    """A fit of rows on definitions.

    Attributes:
        out_of_fold: a prediction for every token that did not see its row, [N, H], from the frozen model.
        ridge: penalty of the map.
        ridge_map: from the frozen model's features, fitted on all tokens that are learned from.
        trained: the trained copy of the model; None where the model stayed frozen.
        validation: tokens that selected the epoch of training; none where the model stayed frozen.
        scored: tokens of `scores`.
        scores: of predictions that did not see the row.
        frozen_scores: of the frozen model on the same tokens; None where it is the same.
    """

    out_of_fold: Float[Tensor, "N H"]
    ridge: float
    ridge_map: RidgeMap
    trained: TrainedEncoder | None
    validation: Int64[Tensor, " C"]
    scored: Int64[Tensor, " M"]
    scores: PredictionScores
    frozen_scores: PredictionScores | None


class Reconstructor:
    """The tokens of a model that have a definition, read, and ready to be learned from.

    Args:
        model_tables: the model; it stays as it is.
        table: whose rows are rebuilt.
        alignment: of the vocabulary.
        recipe: settings.
        device: by name.
        mask: the token that stands for the defined one; without it the usual one.
        progress: called with a stage, the steps done and their number.

    Attributes:
        ids: tokens with a prompt, rising, [N].
        rows: theirs, float32, [N, H].
        encoder: the model.
        writer: of prompts; its tally counts prompts that were cut or left out.

    Raises:
        ValueError: the model cannot read definitions, no token has a prompt, or rows of the table are not finite.
    """

    def __init__(
        self,
        model_tables: ModelTables,
        table: Table,
        alignment: TokenAlignment,
        recipe: DefinitionRecipe,
        device: str = "auto",
        mask: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        assert model_tables.tokenizer is not None  # there would be no alignment
        self.table, self.alignment, self.recipe = table, alignment, recipe
        self.device, self.progress = device, progress
        weight = table.read()
        wrong = (~torch.isfinite(weight).all(1)).nonzero().squeeze(1).tolist()
        if wrong:
            ids = ", ".join(map(str, wrong[:10]))
            raise ValueError(f"rows of {table.name} are not finite ({len(wrong):,}: {ids}); give them a value first")
        self.encoder: DefinitionEncoder = load_encoder(model_tables, recipe.read, resolve_device(device))
        self.writer = PromptWriter(model_tables.tokenizer, recipe, self.encoder.limit, mask)
        self.prompts = self.writer.write([entry for entry in alignment.entries.values() if entry.id < table.shape[0]])
        if not self.prompts:
            raise ValueError(f"no definition fits into {self.encoder.limit} positions; raise prompt_tokens")
        index = {id: index for index, id in enumerate(dict.fromkeys(prompt.id for prompt in self.prompts))}
        highest = max(max((*prompt.ids, *prompt.pieces)) for prompt in self.prompts)
        if highest >= len(self.encoder.rows):
            raise ValueError(
                f"the tokenizer of {model_tables.name} gives id {highest}, and the model has "
                f"{len(self.encoder.rows):,} rows; resize its table, or name another --mask"
            )
        self.ids = torch.tensor(list(index))
        self.owner = torch.tensor([index[prompt.id] for prompt in self.prompts])  # index in `ids`, [P]
        self.rows = weight[self.ids].float()
        self.size = len(weight)

    @cached_property
    def features(self) -> Float[Tensor, "N F"]:
        """Features of each token's definitions by the frozen model, the mean over its prompts."""
        features = self._read(self.prompts)
        if not bool(torch.isfinite(features).all()):
            wrong = sorted(set(self.owner[~torch.isfinite(features).all(1)].tolist()))
            ids = ", ".join(str(id) for id in self.ids[wrong[:10]].tolist())
            raise ValueError(f"the model's states for the definitions of {ids} are not finite; it is damaged")
        return mean_by_token(features, self.owner, len(self.ids))[0]

    def crossfit(self, learn: Bool[Tensor, " N"]) -> tuple[Float[Tensor, "N H"], float]:
        """Predictions of the frozen model that did not see their rows, one per token; and the penalty of the map."""
        recipe = self.recipe
        features = self.features  # first: only then are the blocks known
        return crossfit(features, self.rows, learn, recipe.ridge, recipe.folds, recipe.seed, self.encoder.blocks)

    def refine_features(self, train: Bool[Tensor, " N"], replaced: Bool[Tensor, " N"]) -> int:
        """Reads all definitions anew with rows that were lost rebuilt, for definitions are made of words that were.

        The model in memory gets the rows, its files and `rows` do not. Nothing is done where the table is not the one
        that the model reads with.

        Args:
            train: tokens to learn from.
            replaced: tokens whose rows are not to be read with.

        Returns:
            Number of further readings.
        """
        ids = self.ids[replaced]
        weight = self.encoder.rows
        if weight.shape[1] != self.rows.shape[1] or not torch.equal(weight[ids].cpu(), self.rows[replaced]):
            return 0
        for _ in range(self.recipe.rounds - 1):
            out_of_fold, _ = self.crossfit(train)
            rows, _ = scale_rows(out_of_fold[replaced], self.rows[replaced], self.rows[~replaced], "spread")
            with torch.no_grad():
                weight[ids] = rows.to(weight)
            del self.features
        return self.recipe.rounds - 1

    def ranks(self, predicted: Float[Tensor, "N H"], tokens: Tensor) -> Int64[Tensor, " M"]:
        """Number of rows of the table that are nearer to the predictions of some tokens than their own row."""
        return self._ranks(predicted[tokens], tokens, predicted.mean(0))

    def fit(self, train: Bool[Tensor, " N"]) -> Fit:
        """Learns to rebuild rows from those of some tokens.

        Args:
            train: the tokens.

        Raises:
            ValueError: they are too few.
        """
        out_of_fold, ridge = self.crossfit(train)
        ridge_map = fit_ridge(self.features[train], self.rows[train], ridge, self.encoder.blocks)
        tokens = train.nonzero().squeeze(1)
        mean = self.rows[tokens].mean(0)
        if self.recipe.solver == "ridge":
            ranks = self.ranks(out_of_fold, tokens)
            scores = score_predictions(out_of_fold[tokens], self.rows[tokens], mean, ranks, self.size)
            return Fit(out_of_fold, ridge, ridge_map, None, tokens[:0], tokens, scores, None)
        generator = torch.Generator().manual_seed(self.recipe.seed)
        order = tokens[torch.randperm(len(tokens), generator=generator)]
        # Two halves: the tokens that choose the epoch would flatter it, so others are scored.
        half = max(1, int(self.recipe.holdout * len(order)) // 2)
        validation, scored = order[:half].sort().values, order[half : 2 * half].sort().values
        if not len(scored):
            raise ValueError("training needs tokens to choose by and to be scored on; define more, or replace fewer")
        is_scored, held_out = torch.zeros(2, len(self.ids), dtype=torch.bool)
        is_scored[scored] = True
        held_out[order[: 2 * half]] = True
        start = None
        if self.recipe.start == "ridge":  # of what is not held out, or the copy would begin by knowing it
            fitted = train & ~held_out
            start = fit_ridge(self.features[fitted], self.rows[fitted], ridge, self.encoder.blocks)
        used = (train & ~is_scored)[self.owner]
        trained = finetune_encoder(
            self.encoder,
            start,
            [self.prompts[index] for index in used.nonzero().squeeze(1).tolist()],
            self.owner[used],
            self.rows,
            validation,
            self._ordinary_ids,
            self.recipe,
            self.device,
            self.progress,
        )
        prompts, owner = self._prompts_of(scored)
        after = trained.predict(prompts, owner, len(scored))
        before = start(self.features[scored]) if start is not None else out_of_fold[scored]
        centre = out_of_fold.mean(0)  # the scored ones may be few
        scores, frozen_scores = (
            score_predictions(predicted, self.rows[scored], mean, self._ranks(predicted, scored, centre), self.size)
            for predicted in (after, before)
        )
        return Fit(out_of_fold, ridge, ridge_map, trained, validation, scored, scores, frozen_scores)

    def identical_groups(self, tokens: Bool[Tensor, " N"]) -> list[list[int]]:
        """Ids of tokens whose prompts are the same, in rising groups: their rows are rebuilt the same."""
        contents: defaultdict[int, list[Hashable]] = defaultdict(list)
        for index, prompt in zip(self.owner.tolist(), self.prompts, strict=True):
            contents[index].append((prompt.ids, prompt.pieces[:-1], prompt.slots))
        same: defaultdict[Hashable, list[int]] = defaultdict(list)
        for index in tokens.nonzero().squeeze(1).tolist():
            same[tuple(contents[index])].append(int(self.ids[index]))
        return [ids for ids in same.values() if len(ids) > 1]

    def predict(self, fit: Fit, tokens: Int64[Tensor, " M"]) -> Float[Tensor, "M H"]:
        """Rebuilds the rows of some tokens, by index in `ids`."""
        if fit.trained is None:
            return fit.ridge_map(self.features[tokens])
        prompts, owner = self._prompts_of(tokens)
        return fit.trained.predict(prompts, owner, len(tokens), self.progress)

    def predict_new(self, fit: Fit, entries: Sequence[TokenEntry]) -> tuple[Float[Tensor, "M H"], Bool[Tensor, " M"]]:
        """Builds rows for tokens that are not in the table yet.

        Returns:
            The rows, and a mask of the tokens that had a prompt; the rows of the others are zeros.
        """
        prompts = self.writer.write(entries)
        index = {entry.id: index for index, entry in enumerate(entries)}
        owner = torch.tensor([index[prompt.id] for prompt in prompts], dtype=torch.long)
        defined = torch.bincount(owner, minlength=len(entries)) > 0
        if not prompts:
            return torch.zeros(len(entries), self.rows.shape[1]), defined
        if fit.trained is not None:
            return fit.trained.predict(prompts, owner, len(entries), self.progress), defined
        rows = fit.ridge_map(mean_by_token(self._read(prompts), owner, len(entries))[0])
        rows[~defined] = 0
        return rows, defined

    def _read(self, prompts: Sequence[Prompt]) -> Float[Tensor, "P F"]:
        with reading_precision(self.encoder.rows.device, self.recipe.precision):
            return self.encoder.features(prompts, self.progress)

    def _ranks(
        self, predicted: Float[Tensor, "M H"], tokens: Tensor, centre: Float[Tensor, " H"]
    ) -> Int64[Tensor, " M"]:
        usable = torch.ones(self.size, dtype=torch.bool)
        return row_ranks(predicted, self.rows[tokens], self.table, usable, centre)

    def _prompts_of(self, tokens: Tensor) -> tuple[list[Prompt], Int64[Tensor, " P"]]:
        """The prompts of some tokens, and the index in `tokens` that each prompt belongs to."""
        index = torch.full((len(self.ids),), -1)
        index[tokens] = torch.arange(len(tokens))
        owner = index[self.owner]
        selection = (owner >= 0).nonzero().squeeze(1)
        return [self.prompts[position] for position in selection.tolist()], owner[selection]

    @property
    def _ordinary_ids(self) -> list[int]:
        """Ids that are words or pieces of words."""
        fixed = ("special", "unused", "padding", "byte")
        return [id for id, surface in enumerate(self.alignment.surfaces[: self.size]) if surface.kind not in fixed]


def row_ranks(
    predicted: Float[Tensor, "N H"],
    rows: Float[Tensor, "N H"],
    table: Table,
    usable: Bool[Tensor, " V"],
    centre: Float[Tensor, " H"] | None = None,
) -> Int64[Tensor, " N"]:
    """Number of rows of the table that are nearer to a prediction than the token's own row; 0 is nearest.

    Args:
        predicted: one per token.
        rows: of the tokens.
        table: all rows.
        usable: rows that count.
        centre: cosines are around it; without it around the mean of the predictions, which few do not determine.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> eye = torch.eye(3)
        >>> row_ranks(eye, eye.flip(0), MemoryTable("weight", eye), torch.ones(3, dtype=torch.bool)).tolist()
        [1, 0, 1]
    """
    centre = predicted.float().mean(0) if centre is None else centre.float()
    directions = F.normalize(predicted.float() - centre, dim=1)
    # Two computations of the same cosine differ in the last digits: a row is not to count against itself.
    threshold = torch.linalg.vecdot(directions, F.normalize(rows.float() - centre, dim=1)) + 1e-6
    ranks = torch.zeros(len(predicted), dtype=torch.long)
    for start, block in blocks(table):
        candidates = F.normalize(block[usable[start : start + len(block)]].float() - centre, dim=1)
        step = max(1, COSINES // max(1, len(candidates)))
        for first in range(0, len(directions), step):
            last = first + step
            ranks[first:last] += (directions[first:last] @ candidates.T > threshold[first:last, None]).sum(1)
    return ranks


def score_predictions(
    predicted: Float[Tensor, "N H"],
    rows: Float[Tensor, "N H"],
    mean: Float[Tensor, " H"],
    ranks: Int64[Tensor, " N"],
    size: int,
) -> PredictionScores:
    """Sums up predictions of tokens that were not learned from.

    Args:
        predicted: one per token.
        rows: of these tokens.
        mean: of the rows learned from, which is the prediction without a definition.
        ranks: of the predictions, see `row_ranks`.
        size: rows that were ranked.

    Raises:
        ValueError: there is no token.
    """
    count = len(predicted)
    if not count:
        raise ValueError("no token is left to look at; define more of them")
    exact, target = predicted.double(), rows.double()
    error, without = (exact - target).square().sum(), (target - mean.double()).square().sum()
    cosine = torch.cosine_similarity(exact, target, dim=1)
    lengths = torch.linalg.vector_norm(target, dim=1)
    return PredictionScores(
        tokens=count,
        r2=float(1 - error / without) if float(without) else 0.0,
        cosine=mean_interval(cosine.tolist()),
        norm_ratio=float(torch.linalg.vector_norm(exact, dim=1).mean() / lengths.mean().clamp_min(1e-30)),
        nearest=share_interval(int((ranks == 0).sum()), count),
        top10=share_interval(int((ranks < 10).sum()), count),
        median_rank=int(ranks.median()) + 1,
        unrelated=unrelated_share(ranks, size),
    )


def unrelated_share(ranks: Int64[Tensor, " N"], size: int) -> float:
    """Estimated share of rows that have nothing to do with their definitions, from their ranks among `size` rows.

    Example:
        >>> unrelated_share(torch.tensor([0, 1, 2, 80]), 100)
        0.5
    """
    return min(1.0, float((ranks > HALF * size).double().mean()) / (1 - HALF))


def doubtful(ranks: Int64[Tensor, " N"], size: int) -> Bool[Tensor, " N"]:
    """Mask of the rows that their definitions contradict: over a tenth of the table is nearer to the prediction.

    Example:
        >>> doubtful(torch.tensor([0, 9, 60]), 100).tolist()
        [False, False, True]
    """
    return ranks > DOUBTFUL * size


def scale_rows(
    rebuilt: Float[Tensor, "M H"], old: Float[Tensor, "M H"], retained: Float[Tensor, "K H"], scale: Scale
) -> tuple[Float64[Tensor, "M H"], int]:
    """Gives rebuilt rows a length; least squares makes them short.

    Args:
        rebuilt: as predicted.
        old: the rows they replace.
        retained: rows that were learned from, whose lengths are a model.
        scale: "none" as they are; "row" the length of the old row; "table" the mean length of the retained rows;
            "spread" around the mean of the retained rows, by one factor that gives them the retained rows' mean square
            distance from it; rows without a spread of their own, such as a single one, keep their direction from that
            mean.

    Returns:
        Rows in float64, and how many had no direction to be made longer in; these are the old ones.

    Example:
        >>> scale_rows(torch.tensor([[0.0, 0.5]]), torch.tensor([[3.0, 4.0]]), torch.eye(2), "row")[0].tolist()
        [[0.0, 5.0]]
    """
    new, before, model = rebuilt.double(), old.double(), retained.double()
    if scale == "none":
        return new, 0
    if scale == "spread":
        mean, centre = model.mean(0), new.mean(0)
        spread = (new - centre).square().sum(1).mean()
        if float(spread) <= TINY:
            centre, spread = mean, (new - mean).square().sum(1).mean()
        if float(spread) <= TINY:
            return before, len(before)
        return mean + (new - centre) * ((model - mean).square().sum(1).mean() / spread).sqrt(), 0
    lengths = torch.linalg.vector_norm(new, dim=1, keepdim=True)
    target = torch.linalg.vector_norm(before, dim=1, keepdim=True)
    if scale == "table":
        target = torch.linalg.vector_norm(model, dim=1).mean().expand_as(target)
    flat = (lengths <= TINY).squeeze(1)
    return torch.where(flat[:, None], before, new * target / lengths.clamp_min(TINY)), int(flat.sum())


def blend_rows(
    new: Float64[Tensor, "M H"], old: Float[Tensor, "M H"], blend: float, dtype: torch.dtype, name: str, ids: Tensor
) -> Float[Tensor, "M H"]:
    """Mixes new rows with the old ones and rounds them to the dtype of the table.

    Raises:
        ValueError: a row is not finite, or does not fit the dtype; up to ten ids are named.

    Example:
        >>> blend_rows(torch.ones(1, 2).double(), torch.zeros(1, 2), 0.25, torch.float16, "weight", torch.tensor([4]))
        tensor([[0.2500, 0.2500]], dtype=torch.float16)
    """
    # An old row that is not finite has nothing to give.
    mix = new if blend == 1 else blend * new + (1 - blend) * old.double()
    rows = mix.to(dtype)
    require_finite(rows, dtype, name, ids)
    return rows


def require_finite(rows: Float[Tensor, "M H"], dtype: torch.dtype, name: str, ids: Int64[Tensor, " M"]) -> None:
    """Refuses rows that are not finite.

    Raises:
        ValueError: there are some; up to ten ids are named.
    """
    wrong = ids[~torch.isfinite(rows).all(1)].tolist()
    if wrong:
        names = ", ".join(map(str, wrong[:10]))
        raise ValueError(
            f"{len(wrong)} rebuilt rows of {name} are not finite or do not fit {dtype}: {names}; leave them out"
        )
