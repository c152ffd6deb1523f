"""A model that has learned to tell rows from definitions, and how well it does on rows it has not seen."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from decone.models.tables import ModelTables, Table
from decone.repair.definitions.body import Body, Progress, load_body, reading
from decone.repair.definitions.lengths import scaled
from decone.repair.definitions.prompts import Prompt, Writer
from decone.repair.definitions.readout import Readout, averaged, crossfit, fit
from decone.repair.definitions.recipe import Recipe
from decone.repair.definitions.scores import Scores, ranks, score
from decone.repair.definitions.student import Trained, train
from decone.repair.entries import Alignment, Entry
from decone.training.machine import resolve_device


@dataclass(frozen=True)
class Told:
    """What was learned.

    Attributes:
        honest: a prediction for every token that did not see its row, [N, H], from the frozen model.
        ridge: penalty of the map.
        readout: the map from the frozen model's features, of all tokens that were learned from.
        trained: the student; None where the model stayed frozen.
        choosing: tokens that chose the epoch of training; none where the model stayed frozen.
        held: tokens that `scores` is of.
        scores: of predictions that did not see the row.
        frozen: of the frozen model on the same tokens; None where it is the same.
    """

    honest: Float[Tensor, "N H"]
    ridge: float
    readout: Readout
    trained: Trained | None
    choosing: Int64[Tensor, " C"]
    held: Int64[Tensor, " M"]
    scores: Scores
    frozen: Scores | None


class Reconstructor:
    """The tokens of a model that have a definition, read, and ready to be learned from.

    Args:
        model_tables: the model; it stays as it is.
        table: whose rows are rebuilt.
        alignment: of the vocabulary.
        recipe: settings.
        device: by name.
        mask: the token that stands for what is asked; without it the usual one.
        progress: told how far it is.

    Attributes:
        ids: tokens with a prompt, rising, [N].
        rows: theirs, float32, [N, H].
        body: the model.
        writer: of prompts; its tally tells what was cut or left out.

    Raises:
        ValueError: the model cannot read definitions, no token has a prompt, or rows of the table are not finite.
    """

    def __init__(
        self,
        model_tables: ModelTables,
        table: Table,
        alignment: Alignment,
        recipe: Recipe,
        device: str = "auto",
        mask: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        assert model_tables.tokenizer is not None  # there would be no alignment
        self.table, self.alignment, self.recipe = table, alignment, recipe
        self.device, self.progress = device, progress
        whole = table.read()
        wrong = (~torch.isfinite(whole).all(1)).nonzero().squeeze(1).tolist()
        if wrong:
            some = ", ".join(map(str, wrong[:10]))
            raise ValueError(f"rows of {table.name} are not finite ({len(wrong):,}: {some}); give them a value first")
        self.body: Body = load_body(model_tables, recipe.read, resolve_device(device))
        self.writer = Writer(model_tables.tokenizer, recipe, self.body.limit, mask)
        entries = [entry for entry in alignment.entries.values() if entry.id < table.shape[0]]
        self.prompts = self.writer.write(entries)
        if not self.prompts:
            raise ValueError(f"no definition fits into {self.body.limit} positions; raise prompt_tokens")
        places = {id: place for place, id in enumerate(dict.fromkeys(prompt.id for prompt in self.prompts))}
        highest = max(max((*prompt.ids, *prompt.pieces)) for prompt in self.prompts)
        if highest >= len(self.body.rows):
            raise ValueError(
                f"the tokenizer of {model_tables.name} gives id {highest}, and the model has {len(self.body.rows):,} "
                "rows; resize its table, or name another --mask"
            )
        self.ids = torch.tensor(list(places))
        self.owner = torch.tensor([places[prompt.id] for prompt in self.prompts])
        self.rows = whole[self.ids].float()
        self.size = len(whole)

    @cached_property
    def features(self) -> Float[Tensor, "N F"]:
        """What the frozen model makes of each token's definitions, the mean over its prompts."""
        found = self._read(self.prompts)
        if not bool(torch.isfinite(found).all()):
            wrong = sorted(set(self.owner[~torch.isfinite(found).all(1)].tolist()))
            some = ", ".join(str(id) for id in self.ids[wrong[:10]].tolist())
            raise ValueError(f"the model's states for the definitions of {some} are not finite; it is damaged")
        return averaged(found, self.owner, len(self.ids))[0]

    def crossfit(self, learn: Bool[Tensor, " N"]) -> tuple[Float[Tensor, "N H"], float]:
        """A prediction for every token that did not see its row, by the frozen model; and the penalty of the map."""
        recipe = self.recipe
        # The features go first: they tell how they are made up.
        found = crossfit(self.features, self.rows, learn, recipe.ridge, recipe.folds, recipe.seed, self.body.blocks)
        return found[0], found[1]

    def read_again(self, learn: Bool[Tensor, " N"], lost: Bool[Tensor, " N"]) -> int:
        """Reads all definitions anew with rows that were lost rebuilt, for definitions are made of words that were.

        The model in memory gets the rows, its files and `rows` do not. Nothing is done where the table is not the one
        that the model reads with.

        Args:
            learn: tokens to learn from.
            lost: tokens whose rows are not to be read with.

        Returns:
            How often everything was read anew.
        """
        ids = self.ids[lost]
        read_with = self.body.rows
        if read_with.shape[1] != self.rows.shape[1] or not torch.equal(read_with[ids].cpu(), self.rows[lost]):
            return 0
        for _ in range(self.recipe.rounds - 1):
            honest, _ = self.crossfit(learn)
            rows, _ = scaled(honest[lost], self.rows[lost], self.rows[~lost], "spread")
            with torch.no_grad():
                read_with[ids] = rows.to(read_with)
            del self.features
        return self.recipe.rounds - 1

    def ranks(self, predicted: Float[Tensor, "N H"], chosen: Tensor) -> Int64[Tensor, " M"]:
        """How many rows of the table are nearer to some tokens' predictions than their own row."""
        return self._rank(predicted[chosen], chosen, predicted.mean(0))

    def learn(self, learn: Bool[Tensor, " N"]) -> Told:
        """Learns to rebuild rows from those of some tokens.

        Args:
            learn: the tokens.

        Raises:
            ValueError: they are too few.
        """
        honest, ridge = self.crossfit(learn)
        readout = fit(self.features[learn], self.rows[learn], ridge, self.body.blocks)
        known = learn.nonzero().squeeze(1)
        mean = self.rows[known].mean(0)
        if self.recipe.solver == "ridge":
            scores = score(honest[known], self.rows[known], mean, self.ranks(honest, known), self.size)
            return Told(honest, ridge, readout, None, known[:0], known, scores, None)
        draw = torch.Generator().manual_seed(self.recipe.seed)
        order = known[torch.randperm(len(known), generator=draw)]
        # Two halves: the tokens that choose the epoch would flatter it, so others tell how good it is.
        half = max(1, int(self.recipe.holdout * len(order)) // 2)
        choosing, held = order[:half].sort().values, order[half : 2 * half].sort().values
        if not len(held):
            raise ValueError("training needs tokens to choose by and to be scored on; define more, or replace fewer")
        scored, aside = torch.zeros(2, len(self.ids), dtype=torch.bool)
        scored[held] = True
        aside[order[: 2 * half]] = True
        start = None
        if self.recipe.start == "ridge":  # of what is not held out, or the student would begin by knowing it
            seen = learn & ~aside
            start = fit(self.features[seen], self.rows[seen], ridge, self.body.blocks)
        asked = (learn & ~scored)[self.owner]
        places = asked.nonzero().squeeze(1).tolist()
        trained = train(
            self.body,
            start,
            [self.prompts[place] for place in places],
            self.owner[asked],
            self.rows,
            choosing,
            self._ordinary,
            self.recipe,
            self.device,
            self.progress,
        )
        prompts, owner = self._of(held)
        after = trained.rows(prompts, owner, len(held))
        before = start(self.features[held]) if start is not None else honest[held]
        centre = honest.mean(0)  # the held-out ones may be few
        told = [
            score(part, self.rows[held], mean, self._rank(part, held, centre), self.size) for part in (after, before)
        ]
        return Told(honest, ridge, readout, trained, choosing, held, told[0], told[1])

    def alike(self, chosen: Bool[Tensor, " N"]) -> list[list[int]]:
        """Ids of some tokens whose prompts are the same, each group rising: their rows are rebuilt the same."""
        read: defaultdict[int, list[Hashable]] = defaultdict(list)
        for place, prompt in zip(self.owner.tolist(), self.prompts, strict=True):
            read[place].append((prompt.ids, prompt.pieces[:-1], prompt.slots))
        same: defaultdict[Hashable, list[int]] = defaultdict(list)
        for place in chosen.nonzero().squeeze(1).tolist():
            same[tuple(read[place])].append(int(self.ids[place]))
        return [ids for ids in same.values() if len(ids) > 1]

    def predict(self, told: Told, tokens: Int64[Tensor, " M"]) -> Float[Tensor, "M H"]:
        """Rebuilds the rows of some tokens, by place among `ids`."""
        if told.trained is None:
            return told.readout(self.features[tokens])
        prompts, owner = self._of(tokens)
        return told.trained.rows(prompts, owner, len(tokens), self.progress)

    def define(self, told: Told, entries: Sequence[Entry]) -> tuple[Float[Tensor, "M H"], Bool[Tensor, " M"]]:
        """Builds rows for tokens that are not in the table yet.

        Returns:
            The rows, and which tokens had a prompt; the rows of others are zeros.
        """
        prompts = self.writer.write(entries)
        places = {entry.id: place for place, entry in enumerate(entries)}
        owner = torch.tensor([places[prompt.id] for prompt in prompts], dtype=torch.long)
        known = torch.bincount(owner, minlength=len(entries)) > 0
        if not prompts:
            return torch.zeros(len(entries), self.rows.shape[1]), known
        if told.trained is not None:
            return told.trained.rows(prompts, owner, len(entries), self.progress), known
        features = averaged(self._read(prompts), owner, len(entries))[0]
        found = told.readout(features)
        found[~known] = 0
        return found, known

    def _read(self, prompts: Sequence[Prompt]) -> Float[Tensor, "P F"]:
        with reading(self.body.rows.device, self.recipe.precision):
            return self.body.features(prompts, self.progress)

    def _rank(
        self, predicted: Float[Tensor, "M H"], tokens: Tensor, centre: Float[Tensor, " H"]
    ) -> Int64[Tensor, " M"]:
        usable = torch.ones(self.size, dtype=torch.bool)
        return ranks(predicted, self.rows[tokens], self.table, usable, centre)

    def _of(self, tokens: Tensor) -> tuple[list[Prompt], Int64[Tensor, " P"]]:
        """The prompts of some tokens, and which of these each is of."""
        place = torch.full((len(self.ids),), -1)
        place[tokens] = torch.arange(len(tokens))
        mine = place[self.owner]
        chosen = (mine >= 0).nonzero().squeeze(1)
        return [self.prompts[index] for index in chosen.tolist()], mine[chosen]

    @property
    def _ordinary(self) -> list[int]:
        """Ids that are words or parts of words."""
        fixed = ("special", "unused", "padding", "byte")
        return [id for id, surface in enumerate(self.alignment.surfaces[: self.size]) if surface.kind not in fixed]
