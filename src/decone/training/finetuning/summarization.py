"""An encoder-decoder that writes summaries, as the loop trains it."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from jaxtyping import Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from decone.data.summaries import Pair
from decone.metrics.generation import rouge
from decone.training.finetuning.loop import FinetuneConfig, ordered, shuffled, steps
from decone.training.finetuning.pretrained import quiet_library

IGNORED = -100  # what transformers takes for "no target" when it shifts targets into inputs
TAKEN = ("input_ids", "attention_mask")  # some tokenizers give more than an encoder-decoder takes
TOKENS = ("bos", "eos", "pad", "decoder_start", "forced_bos", "forced_eos")


class SummaryConfig(FinetuneConfig):
    """Teacher forcing in training, beam search to be measured; the search ends with as many summaries as beams."""

    length: int = Field(default=512, ge=8, description="tokens of a document; what is longer is cut")
    target: int = Field(default=256, ge=2, description="tokens of a summary in training; what is longer is cut")
    prefix: str = Field(default="", description="words before every document, for models that want a command")
    smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target that goes to all tokens alike")
    beams: int = Field(default=4, ge=1, description="of the search; 1 is greedy")
    shortest: int = Field(default=0, ge=0, description="tokens that are written at least")
    longest: int = Field(default=128, ge=1, description="tokens that are written at most")
    length_penalty: float = Field(default=1.0, description="power of the length that log probabilities are divided by")
    no_repeat: int = Field(default=0, ge=0, description="so many tokens in a row are written once only; 0 is any")

    @model_validator(mode="after")
    def _longest_is_not_below_shortest(self) -> Self:
        if self.longest < self.shortest:
            raise ValueError(
                f"longest = {self.longest} is below shortest = {self.shortest}; raise it, or lower shortest"
            )
        return self


class Summarization:
    """An encoder-decoder with documents and their summaries.

    Args:
        model: of transformers; how it decodes is set here.
        tokenizer: of transformers.
        train: pairs to learn from.
        dev: pairs to be measured on.
        config: seed, size of batches, lengths, the search.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, train: Sequence[Pair], dev: Sequence[Pair], config: SummaryConfig
    ) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.train = [self._document(pair) for pair in train]
        self.dev = [self._document(pair) for pair in dev]
        self.targets = [self._target(pair) for pair in train]
        self.wanted = [pair.summary for pair in dev]
        model.generation_config = decoding(model, config)

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return steps(len(self.train), self.config.batch)

    def batches(self, epoch: int) -> Iterable[Sequence[int]]:
        """Documents of similar length together; the seed and the epoch decide the order."""
        return shuffled([len(one["input_ids"]) for one in self.train], self.config.batch, (self.config.seed, epoch))

    def loss(self, places: Sequence[int]) -> Tensor:
        """Cross-entropy of the tokens of the summaries, the decoder being given those before.

        The sum is divided by the mean length of a training summary, not that of these: then every token counts alike,
        and parts of a batch add up to it.
        """
        inputs = self._padded([self.train[place] for place in places])
        chosen = [self.targets[place] for place in places]
        labels = pad_sequence(chosen, batch_first=True, padding_value=IGNORED).to(inputs["input_ids"].device)
        logits = self.model(**inputs, labels=labels).logits.float()
        total = F.cross_entropy(
            logits.flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.config.smoothing,
        )
        mean = sum(map(len, self.targets)) / len(self.targets)
        return total / (len(places) * mean)

    def measure(self) -> dict[str, float]:
        """ROUGE of what is written of the development documents."""
        return rouge(self.write(), self.wanted)

    def write(self) -> list[str]:
        """Summaries of the development documents, by beam search."""
        found = [""] * len(self.dev)
        # As many at once as are trained at once: beams take what the way back took.
        size = steps(self.config.batch, self.config.accumulate)
        generate: Any = self.model.generate
        for places in ordered([len(one["input_ids"]) for one in self.dev], size):
            tokens = generate(**self._padded([self.dev[place] for place in places]))
            for place, text in zip(places, self.tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
                found[place] = text.strip()
        return found

    def _document(self, pair: Pair) -> dict[str, list[int]]:
        text = f"{self.config.prefix} {pair.document}" if self.config.prefix else pair.document
        encoded: Any = self.tokenizer(text, truncation=True, max_length=self.config.length)
        return {key: encoded[key] for key in TAKEN}

    def _target(self, pair: Pair) -> Int[Tensor, " T"]:
        encoded: Any = self.tokenizer(text_target=pair.summary, truncation=True, max_length=self.config.target)
        return torch.tensor(encoded["input_ids"])

    def _padded(self, encoded: Sequence[dict[str, list[int]]]) -> Any:
        device = next(self.model.parameters()).device
        return self.tokenizer.pad(list(encoded), return_tensors="pt").to(device)


def decoding(model: Any, config: SummaryConfig) -> Any:
    """How a model decodes: its own special tokens, and settings in place of all else that its folder may ask for.

    Args:
        model: of transformers, an encoder-decoder.
        config: beams and lengths.
    """
    known = model.generation_config
    return quiet_library().GenerationConfig(
        **{f"{token}_token_id": getattr(known, f"{token}_token_id") for token in TOKENS},
        do_sample=False,
        num_beams=config.beams,
        early_stopping=config.beams > 1,
        length_penalty=config.length_penalty,
        min_new_tokens=config.shortest,
        max_new_tokens=config.longest,
        no_repeat_ngram_size=config.no_repeat,
    )
