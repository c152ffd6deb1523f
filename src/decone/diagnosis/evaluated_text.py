"""The model and the text of a behaviour scan, ready to be read window by window: ours or of transformers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from decone.data.corpora import read_text
from decone.data.tokenizers import TextTokenizer
from decone.models.generation import Decoding, extend, nano_scores
from decone.models.huggingface import HuggingFaceModel
from decone.models.load import is_run
from decone.training.evaluation import CACHE_BYTES
from decone.training.machine import resolve_device
from decone.training.run import Run

LINES = 4096  # lines tokenized at once


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
    return max(1, min(context, CACHE_BYTES // (4 * vocabulary)))
