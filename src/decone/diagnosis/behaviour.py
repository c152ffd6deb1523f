"""What a model does on a text: how well it predicts, whom it neglects, how it repeats itself."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from decone.diagnosis.continuations import continuations
from decone.diagnosis.result import Behaviour, Perplexities
from decone.diagnosis.subject import EvaluatedText, subject
from decone.metrics.generation import repeat_distance, repetition, uniq
from decone.metrics.ranking import ranking, target_rank
from decone.metrics.text import TemperatureSearch, best_temperature, bits_per_byte, group_scores, nll
from decone.training.evaluation import CACHE_BYTES
from decone.vocab.counts import count_tokens, frequency_groups
from decone.vocab.scripts import script

WINDOWS = (16, 32, 128)  # l of Rep/l
BATCH, TOKENS = 2**27, 2**13  # bytes of logits and tokens at once, where one window is no larger
OUTSIDE = "other"  # tokens that no group holds

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Reading:
    """What a model made of every token of a text but the first.

    Attributes:
        target: the token, [N].
        prediction: the likeliest one in its place, [N].
        loss: negative log-likelihood of the target in nats, [N].
        rank: of the target among all tokens, from 1, [N].
        back: how far back the prediction last stood in its window, 0 for never, [N].
        back_human: the same of the target.
        search: perplexity by temperature.
    """

    target: Int64[Tensor, " N"]
    prediction: Int64[Tensor, " N"]
    loss: Float64[Tensor, " N"]
    rank: Int64[Tensor, " N"]
    back: Int64[Tensor, " N"]
    back_human: Int64[Tensor, " N"]
    search: TemperatureSearch


def behave(
    model: str,
    text: Path,
    groups: dict[str, Int64[Tensor, " M"]] | None = None,
    *,
    device: str = "auto",
    seed: int = 0,
    prompts: int = 50,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Behaviour:
    """Scores a text with a model and lets it write.

    The text is read in consecutive windows that overlap by one token, so every token but the very first is scored,
    the incomplete last window too. A run with a simulated second language is measured in its first.

    Args:
        model: folder of a decone run, or folder or hub name of a Hugging Face causal model.
        text: UTF-8 file.
        groups: ids of each frequency group, disjoint; counted on the text itself when None. Tokens that no group
            holds are gathered in "other" where they occur.
        device: as on the command line.
        seed: of the sampled continuations.
        prompts: prefixes that are continued, evenly spread over the text; 0 leaves the writing out.
        limit: tokens to score; only the beginning of the text that holds them is read.
        progress: called with a stage ("scoring", "temperature", then each rule of decoding), steps done and all steps.

    Returns:
        Every number; `tokens` says how many were scored and `bytes` how much text they stand for.

    Raises:
        ValueError: the model or the text cannot be read, the model is not causal, there is nothing to score, or the
            model's scores are not numbers.
    """
    if prompts < 0:
        raise ValueError(f"prompts is {prompts}; 0 leaves the writing out")
    about = subject(model, text, device, limit)
    reading = read(about, progress)
    if groups is None:
        groups = frequency_groups(count_tokens(about.ids, about.types))
    names, label = labels(groups, about.vocabulary)
    overall = ranking(reading.rank, (5,))
    predicted, own = (uniq(ids, label, len(names)) for ids in (reading.prediction, reading.target))
    scripts = [script(token) for token in about.token_texts()[1:]]
    found = [name for name, _ in Counter(scripts).most_common()]
    place = {name: index for index, name in enumerate(found)}
    by_group = _parts(reading, label[reading.target], names)
    if OUTSIDE not in groups and not predicted[-1] and not own[-1]:
        del by_group[OUTSIDE]
    size = len(about.text[int(about.ends[0]) : int(about.ends[-1])].encode())
    return Behaviour(
        text=text.name,
        tokens=len(reading.target),
        bytes=size,
        perplexity=reading.search.perplexity,
        best_perplexity=reading.search.best_perplexity,
        best_temperature=reading.search.best_temperature,
        bits_per_byte=bits_per_byte(float(reading.loss.sum()), size),
        accuracy=overall.accuracy,
        recall5=overall.recall[5],
        mrr=overall.mrr,
        groups=by_group,
        scripts=_parts(reading, torch.tensor([place[name] for name in scripts]), found),
        rep_at={str(length): repetition(reading.back, length) for length in WINDOWS},
        rep_at_human={str(length): repetition(reading.back_human, length) for length in WINDOWS},
        uniq={"all": sum(predicted)} | dict(zip(by_group, predicted, strict=False)),
        uniq_human={"all": sum(own)} | dict(zip(by_group, own, strict=False)),
        decoding=continuations(about, prompts, seed, progress),
    )


@torch.no_grad()
def read(about: EvaluatedText, progress: Progress | None = None) -> Reading:
    """Scores every token but the first; logits are kept for the temperatures only where they are small.

    Raises:
        ValueError: the model's scores are not numbers.
    """
    positions = len(about.ids) - 1
    size = min(TOKENS, BATCH // (4 * about.vocabulary)) // about.context or 1
    keep = positions * about.vocabulary * 4 <= CACHE_BYTES
    kept: list[tuple[Tensor, Tensor]] = []
    seen: list[tuple[Tensor, ...]] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        if kept:
            yield from kept
            return
        first, done = not seen, 0
        for window in windows(about.ids, about.context, size):
            scores = about.logits(window[:, :-1])
            if scores.device.type == "mps":  # it has no float64
                scores = scores.cpu()
            target = window[:, 1:].to(scores.device)
            batch = scores.flatten(0, 1), target.flatten()
            if first:
                seen.append(_observed(scores, target))
            if keep:
                kept.append(batch)
            done += target.numel()
            if progress is not None:
                progress("scoring" if first else "temperature", done, positions)
            yield batch

    search = best_temperature(batches)
    target, prediction, loss, rank, back, back_human = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return Reading(target, prediction, loss, rank, back, back_human, search)


def windows(ids: Int64[Tensor, " N"], context: int, size: int) -> Iterator[Int64[Tensor, "B T"]]:
    """All of a text in windows of context + 1 ids that overlap by one, in groups, and then the incomplete last one.

    Example:
        >>> [group.tolist() for group in windows(torch.arange(8), context=3, size=5)]
        [[[0, 1, 2, 3], [3, 4, 5, 6]], [[6, 7]]]
    """
    count = (len(ids) - 1) // context
    if count:
        yield from torch.split(ids[: count * context + 1].unfold(0, context + 1, context), size)
    if len(ids) > count * context + 1:
        yield ids[None, count * context :]


def labels(groups: dict[str, Int64[Tensor, " M"]], vocabulary: int) -> tuple[list[str], Int64[Tensor, " V"]]:
    """Names of the groups with one for tokens outside all of them, and the place of each token's group in them.

    Raises:
        ValueError: a token is in two groups.

    Example:
        >>> labels({"rare": torch.tensor([1])}, vocabulary=3)
        (['rare', 'other'], tensor([1, 0, 1]))
    """
    names = [*groups, *([] if OUTSIDE in groups else [OUTSIDE])]
    label = torch.full((vocabulary,), -1)
    for place, ids in enumerate(groups.values()):
        inside = ids[ids < vocabulary]  # a padded row of the input table has no column in the logits
        if bool((label[inside] >= 0).any()):
            raise ValueError(f"the group {names[place]} shares tokens with another; give disjoint groups")
        label[inside] = place
    label[label < 0] = names.index(OUTSIDE)
    return names, label


def _observed(scores: Tensor, target: Int[Tensor, "B T"]) -> tuple[Tensor, ...]:
    flat, chosen = scores.flatten(0, 1), target.flatten()
    loss = nll(flat, chosen)
    if bool(loss.isnan().any()):
        raise ValueError("the model's scores are not numbers (NaN or infinite); scan its weights for broken rows")
    prediction = flat.argmax(1)
    back = repeat_distance(prediction.view_as(target), target), repeat_distance(target, target)
    found = chosen, prediction, loss, target_rank(flat, chosen), *(distance.flatten() for distance in back)
    return tuple(part.cpu() for part in found)


def _parts(reading: Reading, part: Int64[Tensor, " N"], names: list[str]) -> dict[str, Perplexities]:
    scores = group_scores(reading.loss, reading.rank == 1, part, len(names))
    return {name: Perplexities(**asdict(score)) for name, score in zip(names, scores, strict=True)}
