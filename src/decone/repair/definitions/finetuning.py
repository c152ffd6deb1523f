"""A copy of the model trained to rebuild rows, with a linear map, by squared error on its tokens' rows.

    loss = 100 * mean over prompts and dimensions of (L h_slot - E[token])^2

Zhang, Li and Okumura 2024 (arXiv 2408.01308), as released: E is the table of the model, which never changes. Some
tokens are held out; the copy is that of the epoch that rebuilt them best.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from decone.files.settings import Progress
from decone.repair.definitions.encoder import DefinitionEncoder, reading_precision
from decone.repair.definitions.prompts import Prompt, PromptBatch, collate
from decone.repair.definitions.recipe import DefinitionRecipe
from decone.repair.definitions.ridge import RidgeMap, mean_by_token
from decone.training.machine import accelerator

FACTOR = 100.0  # of the loss, so that clipping means what it means in the released code
POOL = 32  # batches among which prompts are sorted by length


@dataclass(frozen=True)
class TrainedEncoder:
    """A copy of the model that was trained.

    Attributes:
        encoder: the model.
        output_map: the linear map to rows.
        errors: mean squared error on the held-out tokens, before training and after each epoch.
        best_epoch: the epoch of these weights, 0 before training.
    """

    encoder: DefinitionEncoder
    output_map: nn.Linear
    errors: list[float]
    best_epoch: int

    @torch.no_grad()
    def predict(
        self, prompts: Sequence[Prompt], owner: Int64[Tensor, " P"], size: int, progress: Progress | None = None
    ) -> Float[Tensor, "N H"]:
        """Rebuilds the rows of some tokens, each the mean over its prompts."""
        features = self.encoder.features(prompts, progress)
        return mean_by_token(self.output_map.cpu()(features), owner, size)[0]


def finetune_encoder(
    encoder: DefinitionEncoder,
    start: RidgeMap | None,
    prompts: Sequence[Prompt],
    owner: Int64[Tensor, " P"],
    rows: Float[Tensor, "N H"],
    held_out: Int64[Tensor, " M"],
    ordinary_ids: Sequence[int],
    recipe: DefinitionRecipe,
    device: str,
    progress: Progress | None = None,
) -> TrainedEncoder:
    """Trains a copy of the model.

    Args:
        encoder: the model; it stays as it is.
        start: of the linear map; None begins at random, without an offset, as released.
        prompts: of the tokens to learn from, and of those held out.
        owner: index of each prompt's token, [P].
        rows: of the tokens.
        held_out: tokens that are only looked at.
        ordinary_ids: ids that noise may put into a slot.
        recipe: settings.
        device: by name.
        progress: called with a stage, the steps done and their number.

    Raises:
        ValueError: nothing is left to learn from, noise is set for a model with a decoder, or training diverges.
    """
    if encoder.decoder_start is not None and recipe.noise[0] < 1:
        raise ValueError("noise is put into the slots of encoders; a decoder reads none: set noise=1,0,0")
    is_held_out = torch.zeros(len(rows), dtype=torch.bool)
    is_held_out[held_out] = True
    training = [index for index, token in enumerate(owner.tolist()) if not is_held_out[token]]
    validation = [index for index, token in enumerate(owner.tolist()) if is_held_out[token]]
    if not training or not validation:
        raise ValueError("no token is left to learn from, or none to hold out; define more tokens, or replace fewer")
    prepared = accelerator(device, "float32")  # the precision is ours, see `reading_precision`
    draw = random.Random(recipe.seed)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        student = encoder.trainable_copy().to(prepared.device)
        student.model.requires_grad_(True)
        for table in student.tables:
            table.requires_grad_(recipe.train_table)
        output_map = _output_map(start, encoder, prompts[0], rows.shape[1]).to(prepared.device)
        groups = [
            {"params": [weight for weight in student.parameters() if weight.requires_grad], "lr": recipe.rate},
            {"params": list(output_map.parameters()), "lr": recipe.map_rate},
        ]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=recipe.decay)
        steps = recipe.epochs * -(-len(training) // recipe.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps, recipe.warmup))
        modules, optimizer = prepared.prepare(nn.ModuleList([student, output_map]), optimizer)
        parameters = list(modules.parameters())

        def error() -> float:
            with reading_precision(prepared.device, recipe.precision):
                features = student.features([prompts[index] for index in validation])
            with torch.no_grad():
                predicted, count = mean_by_token(
                    output_map(features.to(prepared.device)).cpu(), owner[validation], len(rows)
                )
            defined = count > 0
            return float((predicted[defined] - rows[defined]).square().mean())

        errors, best, done = [error()], _state(modules), 0
        for epoch in range(recipe.epochs):
            student.train()
            for indices in _shuffled_batches(training, prompts, recipe.batch, draw):
                batch = collate([prompts[index] for index in indices], encoder.pad, encoder.decoder_start)
                batch = _add_noise(batch, [prompts[index].id for index in indices], recipe.noise, ordinary_ids, draw)
                with reading_precision(prepared.device, recipe.precision):
                    features = student(batch.to(prepared.device))
                target = rows[owner[indices]].to(prepared.device)
                loss = FACTOR * (output_map(features.float()) - target).square().mean()
                prepared.backward(loss)
                prepared.clip_grad_norm_(parameters, recipe.clip)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                done += 1
                if progress is not None:
                    progress(f"training, epoch {epoch + 1} of {recipe.epochs}", done, steps)
            errors.append(error())
            if not math.isfinite(errors[-1]):
                raise ValueError("training diverged; set a lower rate, e.g. rate=3e-5")
            if errors[-1] <= min(errors):
                best = _state(modules)
            if len(errors) - 1 - errors.index(min(errors)) >= recipe.patience:
                break
        modules.load_state_dict(best)
    student.eval()
    return TrainedEncoder(student, output_map, errors, errors.index(min(errors)))


def _output_map(start: RidgeMap | None, encoder: DefinitionEncoder, prompt: Prompt, width: int) -> nn.Linear:
    if start is None:
        size = encoder.features([prompt]).shape[1]
        linear = nn.Linear(size, width, bias=False)
        nn.init.normal_(linear.weight, std=size**-0.5)
        return linear
    linear = nn.Linear(len(start.scale), width)
    with torch.no_grad():
        linear.weight.copy_((start.matrix * start.scale[:, None]).T)
        linear.bias.copy_(start.mean - start.centre @ start.matrix)
    return linear


def _share(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate: up in a straight line, then down to nothing."""
    rising = max(1.0, warmup * steps)
    return min((step + 1) / rising, max(0.0, (steps - step) / max(1.0, steps - rising)))


def _shuffled_batches(
    indices: Sequence[int], prompts: Sequence[Prompt], size: int, draw: random.Random
) -> list[list[int]]:
    """An epoch's batches: prompts of about equal length together, in an order of chance."""
    order = draw.sample(list(indices), len(indices))
    batches: list[list[int]] = []
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL], key=lambda index: len(prompts[index].ids))
        batches += [pool[first : first + size] for first in range(0, len(pool), size)]
    draw.shuffle(batches)
    return batches


def _add_noise(
    batch: PromptBatch,
    ids: Sequence[int],
    noise: tuple[float, float, float],
    ordinary_ids: Sequence[int],
    draw: random.Random,
) -> PromptBatch:
    """A batch whose slots hold the mask, an ordinary token, or the token itself; definitions are never touched."""
    if noise[0] == 1:
        return batch
    changed = batch.ids.clone()
    for row, column in batch.slots.nonzero().tolist():
        luck = draw.random()
        if luck >= noise[0]:
            changed[row, column] = draw.choice(ordinary_ids) if luck < noise[0] + noise[1] else ids[row]
    return PromptBatch(changed, batch.attention, batch.slots, batch.gloss, batch.decoder)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in module.state_dict().items()}
