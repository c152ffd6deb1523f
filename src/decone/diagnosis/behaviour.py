"""Behaviour of a model on a text: prediction by group of tokens, repetition, and continuations beside the text's own.

The model, of decone or of transformers, and the text are read window by window.
Continuations follow the papers: prefixes of 50 tokens, 100 new ones (Welleck et al. 2020; Lin et al. 2021, ScaleGrad).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from decone.data.corpora import read_text
from decone.data.tokens import TextTokenizer
from decone.diagnosis.result import Behaviour, Perplexities, Repetition
from decone.files.settings import Progress
from decone.metrics.generation import repeat_distance, repeated_ngrams, repetition, uniq, uniq_words, words
from decone.metrics.text import (
    TemperatureSearch,
    best_temperature,
    bits_per_byte,
    group_scores,
    nll,
    ranking,
    target_rank,
)
from decone.models.generation import DECODINGS, Decoding, extend, nano_scores
from decone.models.huggingface import HuggingFaceModel
from decone.models.load import is_run
from decone.training.evaluation import CACHE_BYTES
from decone.training.machine import resolve_device
from decone.training.run import Run
from decone.vocab.counts import count_tokens, frequency_groups
from decone.vocab.scripts import script

LINES = 4096  # lines tokenized at once
WINDOW_BYTES = CACHE_BYTES  # logits of one window, at most
WINDOWS = (16, 32, 128)  # l of Rep/l
BATCH, TOKENS = 2**27, 2**13  # bytes of logits and tokens at once, where one window is no larger
OUTSIDE = "other"  # tokens that no group holds
PREFIX, LENGTH = 50, 100  # tokens
GRAMS = (1, 2, 3, 4)
WORDS = 4  # fewer say nothing, and Lin et al. drop such a continuation
SAMPLES = 5  # continuations in a result
ROWS = 32  # sequences written at once: a beam counts as one


@dataclass(frozen=True)
class EvaluatedText:
    """A model that reads text from left to right, and a text as it sees it.

    Attributes:
        text: the text.
        ids: its tokens, [N].
        ends: one past the last character of each token, [N].
        starts: first character of each token, [N]; white space that a tokenizer skips counts to the token after it.
        vocabulary: columns of the logits, V.
        types: tokens of the language that the text is in; below V for a run with a simulated second language.
        context: tokens of one window. A very large vocabulary makes it shorter, so that its logits fit into memory.
        logits: scores of the next token at every position, float32 [B, T, V] for ids [B, T].
        extend: adds tokens to prompts: ids [B, T], how many, the rule, the seed.
        decode: text of ids.
    """

    text: str
    ids: Int64[Tensor, " N"]
    starts: Int64[Tensor, " N"]
    ends: Int64[Tensor, " N"]
    vocabulary: int
    types: int
    context: int
    logits: Callable[[Tensor], Tensor]
    extend: Callable[[Tensor, int, Decoding, int], Tensor]
    decode: Callable[[list[int]], str]

    def token_texts(self) -> list[str]:
        """The characters that each token stands for, a shared character whole."""
        spans = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [self.text[start:end] for start, end in spans]


def load_evaluated_text(model: str, text: Path, device: str = "auto", limit: int | None = None) -> EvaluatedText:
    """Loads a model and reads a text with its tokenizer.

    Args:
        model: folder of a decone run, or folder or hub name of a Hugging Face causal model.
        text: UTF-8 file.
        device: as on the command line.
        limit: of a longer text only the beginning is read, which holds that many tokens to predict.

    Raises:
        ValueError: the model or the text cannot be read, the model is not causal, or there is nothing to predict.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; score at least one token, or leave it out to score the whole text")
    content, where = read_text(text), resolve_device(device)
    load = _run if is_run(model) else _hugging_face
    evaluated = load(model, content, where, None if limit is None else limit + 1)
    if len(evaluated.ids) < 2:
        raise ValueError(f"{text} has {len(evaluated.ids)} tokens, nothing can be predicted in it; give a longer text")
    if int(evaluated.ids.max()) >= evaluated.vocabulary:
        raise ValueError(
            f"the tokenizer of {model} gives the id {int(evaluated.ids.max())} but the model scores "
            f"{evaluated.vocabulary} tokens only; give the tokenizer that belongs to it, or enlarge its tables"
        )
    return evaluated


def _run(model: str, content: str, device: torch.device, limit: int | None) -> EvaluatedText:
    run = Run.open(Path(model))
    nano, tokenizer = run.model().to(device), run.tokenizer()
    assert tokenizer is not None  # run.model() has checked
    size = tokenizer.size
    ids, spans = _spans(tokenizer, content, limit)
    scores = nano_scores(nano)

    def more(prompts: Int64[Tensor, "B T"], length: int, decoding: Decoding, seed: int) -> Int64[Tensor, "B L"]:
        return extend(scores, prompts.to(device), length, nano.context, decoding, seed).cpu()

    return EvaluatedText(
        text=content,
        ids=ids,
        **_starts_and_ends(spans),
        vocabulary=nano.vocabulary,
        types=size,
        context=_window(nano.context, nano.vocabulary),
        logits=lambda rows: nano.logits(rows.to(device)),
        extend=more,
        # A model may switch languages in the middle; both copies read the same.
        decode=lambda tokens: tokenizer.decode([index % size for index in tokens]),
    )


def _hugging_face(model: str, content: str, device: torch.device, limit: int | None) -> EvaluatedText:
    hugging = HuggingFaceModel(model, device)
    ids, spans = hugging.spans(content, limit)
    beginning = [] if hugging.beginning is None else [hugging.beginning]

    def logits(rows: Int64[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        # A model that has always seen a mark at the start is lost without it.
        marked = torch.cat((rows.new_tensor(beginning).expand(len(rows), len(beginning)), rows), 1)
        return hugging.logits(marked.to(device))[:, len(beginning) :]

    return EvaluatedText(
        text=content,
        ids=ids,
        **_starts_and_ends(spans),
        vocabulary=hugging.vocabulary,
        types=hugging.vocabulary,
        context=_window(hugging.context - len(beginning), hugging.vocabulary),
        logits=logits,
        extend=lambda prompts, length, decoding, seed: hugging.extend(prompts, length, decoding, seed).cpu(),
        decode=hugging.decode,
    )


def _spans(
    tokenizer: TextTokenizer, content: str, limit: int | None
) -> tuple[Int64[Tensor, " N"], Int64[Tensor, "N 2"]]:
    """Ids and places; line by line, as the tokenizer itself does it."""
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    before = 0
    lines = content.splitlines(keepends=True)
    for start in range(0, len(lines), LINES):
        if limit is not None and len(ids) >= limit:
            break
        batch = lines[start : start + LINES]
        try:
            encoded = tokenizer.inner.encode_batch(batch, add_special_tokens=False)
        except Exception:  # the library raises bare Exception for an unknown character
            tokenizer.encode("".join(batch))  # says which
            raise
        for line, encoding in zip(batch, encoded, strict=True):
            ids += encoding.ids
            spans += [(before + first, before + end) for first, end in encoding.offsets]
            before += len(line)
    return torch.tensor(ids, dtype=torch.long)[:limit], torch.tensor(spans, dtype=torch.long).view(-1, 2)[:limit]


def _starts_and_ends(spans: Int64[Tensor, "N 2"]) -> dict[str, Tensor]:
    """Starts and ends; white space that a tokenizer skipped goes to the token after it, and ends never fall."""
    starts, ends = spans.T
    ends = torch.cat((ends.new_zeros(1), ends)).cummax(0).values
    return {"starts": torch.minimum(starts, ends[:-1]), "ends": ends[1:]}


def _window(context: int, vocabulary: int) -> int:
    return max(1, min(context, WINDOW_BYTES // (4 * vocabulary)))


@dataclass(frozen=True)
class Reading:
    """Scores that a model gives to every token of a text but the first.

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


def measure_behaviour(
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
    evaluated = load_evaluated_text(model, text, device, limit)
    reading = read(evaluated, progress)
    if groups is None:
        groups = frequency_groups(count_tokens(evaluated.ids, evaluated.types))
    names, label = labels(groups, evaluated.vocabulary)
    overall = ranking(reading.rank, (5,))
    predicted, targets = (uniq(ids, label, len(names)) for ids in (reading.prediction, reading.target))
    scripts = [script(token) for token in evaluated.token_texts()[1:]]
    script_names = [name for name, _ in Counter(scripts).most_common()]
    index_of = {name: index for index, name in enumerate(script_names)}
    by_group = _by_group(reading, label[reading.target], names)
    if OUTSIDE not in groups and not predicted[-1] and not targets[-1]:
        del by_group[OUTSIDE]
    size = len(evaluated.text[int(evaluated.ends[0]) : int(evaluated.ends[-1])].encode())
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
        scripts=_by_group(reading, torch.tensor([index_of[name] for name in scripts]), script_names),
        rep_at={str(length): repetition(reading.back, length) for length in WINDOWS},
        rep_at_human={str(length): repetition(reading.back_human, length) for length in WINDOWS},
        uniq={"all": sum(predicted)} | dict(zip(by_group, predicted, strict=False)),
        uniq_human={"all": sum(targets)} | dict(zip(by_group, targets, strict=False)),
        decoding=continuations(evaluated, prompts, seed, progress),
    )


@torch.no_grad()
def read(evaluated: EvaluatedText, progress: Progress | None = None) -> Reading:
    """Scores every token but the first; logits are kept for the temperatures only where they are small.

    Raises:
        ValueError: the model's scores are not numbers.
    """
    positions = len(evaluated.ids) - 1
    size = min(TOKENS, BATCH // (4 * evaluated.vocabulary)) // evaluated.context or 1
    keep = positions * evaluated.vocabulary * 4 <= CACHE_BYTES
    cached: list[tuple[Tensor, Tensor]] = []
    observed: list[tuple[Tensor, ...]] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        if cached:
            yield from cached
            return
        first, done = not observed, 0
        for window in windows(evaluated.ids, evaluated.context, size):
            scores = evaluated.logits(window[:, :-1])
            if scores.device.type == "mps":  # it has no float64
                scores = scores.cpu()
            target = window[:, 1:].to(scores.device)
            batch = scores.flatten(0, 1), target.flatten()
            if first:
                observed.append(_observed(scores, target))
            if keep:
                cached.append(batch)
            done += target.numel()
            if progress is not None:
                progress("scoring" if first else "temperature", done, positions)
            yield batch

    search = best_temperature(batches)
    target, prediction, loss, rank, back, back_human = (torch.cat(columns) for columns in zip(*observed, strict=True))
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
    for index, ids in enumerate(groups.values()):
        inside = ids[ids < vocabulary]  # a padded row of the input table has no column in the logits
        if bool((label[inside] >= 0).any()):
            raise ValueError(f"the group {names[index]} shares tokens with another; give disjoint groups")
        label[inside] = index
    label[label < 0] = names.index(OUTSIDE)
    return names, label


def _observed(scores: Tensor, target: Int[Tensor, "B T"]) -> tuple[Tensor, ...]:
    flat, targets = scores.flatten(0, 1), target.flatten()
    loss = nll(flat, targets)
    if bool(loss.isnan().any()):
        raise ValueError("the model's scores are not numbers (NaN or infinite); scan its weights for broken rows")
    prediction = flat.argmax(1)
    back = repeat_distance(prediction.view_as(target), target), repeat_distance(target, target)
    columns = targets, prediction, loss, target_rank(flat, targets), *(distance.flatten() for distance in back)
    return tuple(column.cpu() for column in columns)


def _by_group(reading: Reading, group: Int64[Tensor, " N"], names: list[str]) -> dict[str, Perplexities]:
    scores = group_scores(reading.loss, reading.rank == 1, group, len(names))
    return {name: Perplexities(**asdict(score)) for name, score in zip(names, scores, strict=True)}


def prompts_of(
    ids: Int64[Tensor, " N"], prompts: int, prefix: int = PREFIX, length: int = LENGTH
) -> tuple[Int64[Tensor, "B P"], Int64[Tensor, "B L"]]:
    """Cuts a text into consecutive blocks of prefix and continuation and picks some, evenly spread.

    Args:
        ids: the text, [N].
        prompts: how many blocks; all there are where the text has fewer.
        prefix: tokens of each prefix.
        length: tokens to write. A text of one incomplete block gives one prefix and what remains after it.

    Returns:
        The prefixes and the text's own continuations; no rows where nothing follows the first prefix.

    Example:
        >>> prefixes, human = prompts_of(torch.arange(24), prompts=2, prefix=2, length=4)
        >>> prefixes.tolist(), human[:, 0].tolist()
        ([[0, 1], [12, 13]], [2, 14])
    """
    length = min(length, len(ids) - prefix)
    if length < 1 or prompts < 1:
        return ids.new_empty(0, prefix), ids.new_empty(0, 0)
    size = prefix + length
    count = len(ids) // size
    selection = min(prompts, count)
    indices = torch.arange(selection) * count // selection
    blocks = ids[: count * size].view(count, size)[indices]
    return blocks[:, :prefix], blocks[:, prefix:]


def continuations(
    evaluated: EvaluatedText, prompts: int, seed: int = 0, progress: Progress | None = None
) -> dict[str, Repetition]:
    """Lets a model continue prefixes of its text by every rule of `models.generation.DECODINGS`.

    Args:
        evaluated: the model and the text.
        prompts: how many prefixes.
        seed: of the draws.
        progress: called with the rule, prefixes done and all prefixes.

    Returns:
        Repetition and variety by rule, and of the text itself as "human"; empty where the text is no longer than one
        prefix. Rep-n counts words; an n that no continuation is long enough for is left out.
    """
    prefixes, human = prompts_of(evaluated.ids, prompts)
    if not len(prefixes):
        return {}
    by_rule = {}
    for name, rule in DECODINGS.items():
        if progress is not None:
            progress(name, 0, len(prefixes))
        written: list[Tensor] = []
        for batch in torch.split(prefixes, max(1, ROWS // rule.beams)):
            # Each group has draws of its own, the same ones however the text is cut.
            written.append(evaluated.extend(batch, human.size(1), rule, seed + len(written)))
            if progress is not None:
                progress(name, sum(map(len, written)), len(prefixes))
        by_rule[name] = measure_continuations(evaluated.decode, prefixes, torch.cat(written).tolist())
    return by_rule | {"human": measure_continuations(evaluated.decode, prefixes, human.tolist())}


def measure_continuations(
    decode: Callable[[list[int]], str], prefixes: Int64[Tensor, "B P"], written: Sequence[list[int]]
) -> Repetition:
    """Counts repetition and variety of continuations, and keeps the first few to be shown.

    Rep-n is at the word level. A continuation of fewer than four words is judged by its tokens: a model that writes
    one letter for ever must not pass for one that repeats nothing.

    Args:
        decode: text of ids.
        prefixes: the prefixes.
        written: ids of each continuation, without the prefix.
    """
    texts = [decode(ids) for ids in written]
    split = [words(text) for text in texts]
    units = [tokens if len(tokens) >= WORDS else ids for tokens, ids in zip(split, written, strict=True)]
    rep = {str(n): repeated_ngrams(units, n) for n in GRAMS}
    return Repetition(
        rep={n: share for n, share in rep.items() if share is not None},
        uniq_words=uniq_words(texts),
        uniq_tokens=len({index for ids in written for index in ids}),
        continuations=len(written),
        samples=list(zip(map(decode, prefixes[:SAMPLES].tolist()), texts, strict=False)),
    )
