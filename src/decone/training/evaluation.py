"""What a run is measured by: every language on the same windows, plain softmax over the whole vocabulary.

Turumtaev, "Stop Jostling", Section 4.3: the validation text is scored once in each language; nothing is thresholded.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from decone.data.languages import Languages
from decone.data.windows import VALIDATION, consecutive, random_batch
from decone.metrics.isotropy import isotropy
from decone.metrics.perplexity import best_temperature, nll
from decone.metrics.ranking import ranking, target_rank
from decone.metrics.similarity import translation_alignment
from decone.models.nano import Nano
from decone.vocab.groups import frequency_groups

CACHE_BYTES = 2**29  # logits of one language up to this size are kept for the second pass


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
    with evaluating(model):
        for index in range(batches):
            batch = random_batch(ids, model.config.context, size, languages, (key[0], VALIDATION, key[1] * 10_000 + index))
            batch = batch.to(model.head.device)
            logits = F.linear(model(batch[:, :-1]), model.head).float()
            total += float(F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()))
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
            **_scores(model, ids, offset, size, counts, recall),
            "isotropy": isotropy(model.head.detach().cpu()[rows])._asdict(),
        }
    if languages.simulated:
        result["alignment"] = translation_alignment(table, languages.ids("HR"), languages.ids("LR"))
    return result


class evaluating:  # noqa: N801  # reads as a verb: with evaluating(model)
    """Puts a module in evaluation mode and back."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.was = module, module.training

    def __enter__(self) -> None:
        self.module.eval()

    def __exit__(self, *_: object) -> None:
        self.module.train(self.was)


@torch.no_grad()
def _scores(
    model: Nano, ids: Tensor, offset: int, size: int, counts: Tensor, recall: tuple[int, ...]
) -> dict[str, Any]:
    vocabulary, device = model.head.size(0), model.head.device
    positions = sum(group[:, 1:].numel() for group in consecutive(ids, model.config.context, size))
    kept: list[tuple[Tensor, Tensor]] = []
    keep = positions * vocabulary * 4 <= CACHE_BYTES

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        if kept:
            yield from list(kept)
            return
        with evaluating(model):
            for group in consecutive(ids, model.config.context, size):
                group = (group + offset).to(device)
                logits = F.linear(model(group[:, :-1]), model.head).float().flatten(0, 1)
                yield logits, group[:, 1:].flatten()

    if keep:
        kept.extend(batches())
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
