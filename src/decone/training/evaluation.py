"""Measures of a run: every language on the same windows, plain softmax over the full vocabulary.

Turumtaev, "Stop Jostling", Section 4.3: the validation text is scored once in each language; nothing is thresholded.
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from decone.data.tokens import VALIDATION, Languages, consecutive, random_batch
from decone.metrics.neighbours import translation_alignment
from decone.metrics.table_geometry import isotropy
from decone.metrics.text import best_temperature, nll, ranking, target_rank
from decone.models.nano import Nano
from decone.vocab.counts import frequency_groups

CACHE_BYTES = 2**29  # logits of one language up to this size are cached for the second pass


@runtime_checkable  # the shape checks of the tests ask for instances
class Scorer(Protocol):
    """A model that can be measured: it gives logits for ids."""

    @property
    def context(self) -> int:
        """Longest input in tokens."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the inputs."""
        ...

    @property
    def vocabulary(self) -> int:
        """Columns of the logits."""
        ...

    def logits(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Scores of the next token at every position, float32, without dropout and gradients."""
        ...


@torch.no_grad()
def validation_loss(
    model: Nano, ids: Int[Tensor, " N"], languages: Languages, size: int, batches: int, key: tuple[int, int]
) -> float:
    """Mean plain cross-entropy in nats on random windows of the training mixture.

    Args:
        model: the decoder.
        ids: validation text in one language, [N].
        languages: copies of the vocabulary and their mixture.
        size: windows per batch.
        batches: number of batches.
        key: (seed, step); equal keys see equal windows.
    """
    total = 0.0
    for index in range(batches):
        batch = random_batch(ids, model.context, size, languages, (key[0], VALIDATION, key[1] * 10_000 + index))
        batch = batch.to(model.device)
        total += float(F.cross_entropy(model.logits(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()))
    return total / batches


def measure(
    model: Nano,
    ids: Int[Tensor, " N"],
    languages: Languages,
    size: int,
    counts: Int[Tensor, " V"],
    recall: tuple[int, ...] = (5,),
) -> dict[str, Any]:
    """Every metric of a model, as plain numbers ready for JSON.

    Args:
        model: the decoder.
        ids: validation text in one language, [N].
        languages: copies of the vocabulary.
        size: windows scored at once; a last incomplete group is dropped.
        counts: occurrences of the tokens of one copy in the training text, [V]; they make the frequency groups.
        recall: cut-offs k of Recall@k.

    Returns:
        `languages` (by name: perplexity, best_perplexity, best_temperature, accuracy, recall, mrr, isotropy, groups,
        curve, count) and, with two languages, `alignment`: the share of low-resource rows of the input table whose
        nearest high-resource row is their own translation.
    """
    table = model.embedding.weight.detach().cpu()
    result: dict[str, Any] = {"languages": {}}
    for name, offset in languages.offsets().items():
        rows = languages.ids(name)
        result["languages"][name] = {
            **scores(model, ids, offset, size, counts, recall),
            "isotropy": isotropy(model.head.detach().cpu()[rows])._asdict(),
        }
    if languages.simulated:
        result["alignment"] = translation_alignment(table, languages.ids("HR"), languages.ids("LR"))
    return result


@torch.no_grad()
def scores(
    model: Scorer,
    ids: Int[Tensor, " N"],
    offset: int,
    size: int,
    counts: Int[Tensor, " V"],
    recall: tuple[int, ...] = (5,),
) -> dict[str, Any]:
    """Perplexity, ranks and frequency groups of a model on a text whose ids are shifted by `offset`."""
    positions = sum(group[:, 1:].numel() for group in consecutive(ids, model.context, size))
    cached: list[tuple[Tensor, Tensor]] = []
    keep = positions * model.vocabulary * 4 <= CACHE_BYTES

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        if cached:
            yield from list(cached)
            return
        for group in consecutive(ids, model.context, size):
            group = (group + offset).to(model.device)
            yield model.logits(group[:, :-1]).flatten(0, 1), group[:, 1:].flatten()

    if keep:
        cached.extend(batches())
    search = best_temperature(batches)
    ranks, losses, targets = [], [], []
    for logits, target in batches():
        ranks.append(target_rank(logits, target).cpu())
        losses.append(nll(logits, target).cpu())
        targets.append(target.cpu() - offset)
    rank, loss, target = torch.cat(ranks), torch.cat(losses), torch.cat(targets)
    overall = ranking(rank, recall)
    groups = {}
    for name, members in frequency_groups(counts).items():
        inside = torch.isin(target, members)
        count = int(inside.sum())
        groups[name] = {
            "tokens": len(members),
            "count": count,
            "perplexity": float(loss[inside].mean().exp()) if count else None,
            "accuracy": float((rank[inside] == 1).double().mean()) if count else None,
        }
    return {
        "perplexity": search.perplexity,
        "best_perplexity": search.best_perplexity,
        "best_temperature": search.best_temperature,
        "accuracy": overall.accuracy,
        "recall": {str(k): value for k, value in overall.recall.items()},
        "mrr": overall.mrr,
        "count": overall.count,
        "groups": groups,
        "curve": [list(point) for point in zip(search.temperatures, search.perplexities, strict=True)],
    }
