"""The model itself trained to rebuild rows: a student copy and a linear map, by squared error on their tokens' rows.

    loss = 100 * mean over prompts and dimensions of (L h_slot - E[token])^2

Zhang, Li and Okumura 2024 (arXiv 2408.01308), as released: the student begins as a copy of the model, E is the table of
the model, which never changes. Some tokens are held out; the student of the epoch that rebuilt them best is kept.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from decone.repair.definitions.body import Body, Progress, reading
from decone.repair.definitions.prompts import Batch, Prompt, collate
from decone.repair.definitions.readout import Readout, averaged
from decone.repair.definitions.recipe import Recipe
from decone.training.machine import accelerator

FACTOR = 100.0  # of the loss, so that clipping means what it means in the released code
POOL = 32  # batches among which prompts are sorted by length


@dataclass(frozen=True)
class Trained:
    """A student that was trained.

    Attributes:
        body: the model.
        out: the linear map to rows.
        errors: mean squared error on the held-out tokens, before training and after each epoch.
        best: the epoch that is kept, 0 before training.
    """

    body: Body
    out: nn.Linear
    errors: list[float]
    best: int

    @torch.no_grad()
    def rows(
        self, prompts: Sequence[Prompt], owner: Int64[Tensor, " P"], size: int, progress: Progress | None = None
    ) -> Float[Tensor, "N H"]:
        """Rebuilds the rows of some tokens, each the mean over its prompts."""
        features = self.body.features(prompts, progress)
        return averaged(self.out.cpu()(features), owner, size)[0]


def train(
    body: Body,
    start: Readout | None,
    prompts: Sequence[Prompt],
    owner: Int64[Tensor, " P"],
    rows: Float[Tensor, "N H"],
    held: Int64[Tensor, " M"],
    ordinary: Sequence[int],
    recipe: Recipe,
    device: str,
    progress: Progress | None = None,
) -> Trained:
    """Trains a student.

    Args:
        body: the model; it stays as it is.
        start: of the linear map; None begins at random, without an offset, as released.
        prompts: of the tokens to learn from, and of those held out.
        owner: which token each prompt is of, [P].
        rows: of the tokens.
        held: tokens that are only looked at.
        ordinary: ids that noise may put into a slot.
        recipe: settings.
        device: by name.
        progress: told how far it is.

    Raises:
        ValueError: nothing is left to learn from, noise is asked of a model with a decoder, or training diverges.
    """
    if body.decoder_start is not None and recipe.noise[0] < 1:
        raise ValueError("noise is put into the slots of encoders; a decoder reads none: set noise=1,0,0")
    aside = torch.zeros(len(rows), dtype=torch.bool)
    aside[held] = True
    places = [place for place, token in enumerate(owner.tolist()) if not aside[token]]
    shown = [place for place, token in enumerate(owner.tolist()) if aside[token]]
    if not places or not shown:
        raise ValueError("no token is left to learn from, or none to hold out; define more tokens, or replace fewer")
    prepared = accelerator(device, "float32")  # the precision is ours, see `reading`
    draw = random.Random(recipe.seed)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        student = body.student().to(prepared.device)
        student.model.requires_grad_(True)
        for table in student.tables:
            table.requires_grad_(recipe.train_table)
        out = _map(start, body, prompts[0], rows.shape[1]).to(prepared.device)
        groups = [
            {"params": [part for part in student.parameters() if part.requires_grad], "lr": recipe.rate},
            {"params": list(out.parameters()), "lr": recipe.map_rate},
        ]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=recipe.decay)
        steps = recipe.epochs * -(-len(places) // recipe.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps, recipe.warmup))
        together, optimizer = prepared.prepare(nn.ModuleList([student, out]), optimizer)
        trained = list(together.parameters())

        def error() -> float:
            with reading(prepared.device, recipe.precision):
                features = student.features([prompts[place] for place in shown])
            with torch.no_grad():
                found, count = averaged(out(features.to(prepared.device)).cpu(), owner[shown], len(rows))
            seen = count > 0
            return float((found[seen] - rows[seen]).square().mean())

        errors, best, done = [error()], _state(together), 0
        for epoch in range(recipe.epochs):
            student.train()
            for chosen in _shuffled(places, prompts, recipe.batch, draw):
                batch = collate([prompts[place] for place in chosen], body.pad, body.decoder_start)
                batch = _noised(batch, [prompts[place].id for place in chosen], recipe.noise, ordinary, draw)
                with reading(prepared.device, recipe.precision):
                    features = student(batch.to(prepared.device))
                target = rows[owner[chosen]].to(prepared.device)
                loss = FACTOR * (out(features.float()) - target).square().mean()
                prepared.backward(loss)
                prepared.clip_grad_norm_(trained, recipe.clip)
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
                best = _state(together)
            if len(errors) - 1 - errors.index(min(errors)) >= recipe.patience:
                break
        together.load_state_dict(best)
    student.eval()
    return Trained(student, out, errors, errors.index(min(errors)))


def _map(start: Readout | None, body: Body, prompt: Prompt, width: int) -> nn.Linear:
    if start is None:
        size = body.features([prompt]).shape[1]
        out = nn.Linear(size, width, bias=False)
        nn.init.normal_(out.weight, std=size**-0.5)
        return out
    out = nn.Linear(len(start.scale), width)
    with torch.no_grad():
        out.weight.copy_((start.matrix * start.scale[:, None]).T)
        out.bias.copy_(start.mean - start.centre @ start.matrix)
    return out


def _share(step: int, steps: int, warmup: float) -> float:
    """Of the peak rate: up in a straight line, then down to nothing."""
    rising = max(1.0, warmup * steps)
    return min((step + 1) / rising, max(0.0, (steps - step) / max(1.0, steps - rising)))


def _shuffled(places: Sequence[int], prompts: Sequence[Prompt], size: int, draw: random.Random) -> list[list[int]]:
    """An epoch's batches: prompts of about equal length together, in an order of chance."""
    order = draw.sample(list(places), len(places))
    batches: list[list[int]] = []
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL], key=lambda place: len(prompts[place].ids))
        batches += [pool[first : first + size] for first in range(0, len(pool), size)]
    draw.shuffle(batches)
    return batches


def _noised(
    batch: Batch, ids: Sequence[int], noise: tuple[float, float, float], ordinary: Sequence[int], draw: random.Random
) -> Batch:
    """A batch whose slots hold the mask, an ordinary token, or the token itself; definitions are never touched."""
    if noise[0] == 1:
        return batch
    changed = batch.ids.clone()
    for row, place in batch.slots.nonzero().tolist():
        luck = draw.random()
        if luck >= noise[0]:
            changed[row, place] = draw.choice(ordinary) if luck < noise[0] + noise[1] else ids[row]
    return Batch(changed, batch.attention, batch.slots, batch.gloss, batch.decoder)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: part.detach().cpu().clone() for name, part in module.state_dict().items()}
