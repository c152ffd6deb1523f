"""Summaries by encoder-decoders such as BART and T5: teacher forcing in training, beam search and ROUGE after it.

Documents are those of DialogSum (Chen et al. 2021) and CNN/DailyMail (Hermann et al. 2015, See et al. 2017). Of each
set one file is used, and it is cut: every fifth pair is for measuring, the others are for training. The file of
DialogSum is its development set, that of CNN/DailyMail 1,000 pairs of its validation set.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from decone.data.corpora import decode
from decone.data.published import Published, find
from decone.files.foreign import quoted
from decone.metrics.generation import rouge, scorer
from decone.training.finetuning import FinetuneConfig, TaskLearner, batch_count, finetune
from decone.training.tasks import LOADER, FinetuneTask, Split, load_model, quiet_library

IGNORED = -100  # what transformers takes for "no target" when it shifts targets into inputs
INPUTS = ("input_ids", "attention_mask")  # some tokenizers give more than an encoder-decoder takes
TOKENS = ("bos", "eos", "pad", "decoder_start", "forced_bos", "forced_eos")
FOLDS = 5  # one of so many pairs is measured on


@dataclass(frozen=True)
class Pair:
    """A document and its summary."""

    document: str
    summary: str


@dataclass(frozen=True)
class SummarySet:
    """A file of pairs, one JSON object a line, and the keys of a document and its summary in it."""

    name: str
    file: Published
    document: str
    summary: str


SOURCES = {
    source.name: source
    for source in (
        SummarySet(
            "dialogsum",
            Published(
                "dialogsum/dialogsum.dev.jsonl",
                "https://raw.githubusercontent.com/cylnlp/dialogsum/848cc8c05e0a04def79326539de827f1b28786a0/"
                "DialogSum_Data/dialogsum.dev.jsonl",
                "436721e0a3571eef7072964f80e042fb151d8c6178db1a688ce8f803bbf0a13f",
            ),
            "dialogue",
            "summary",
        ),
        SummarySet(
            "cnn_dailymail",
            Published(
                "cnn_dailymail/validation_subset.jsonl",
                None,
                "7d6a8f44439384068dd192a4b1daaac85036821c9f60439baed19bfbb4a51e94",
                "write the 1,000 rows of data/collection/cnn_dailymail_validation_subset.csv in "
                "github.com/hillaryke/rag-optimization-cnn-dailymail as JSON lines (keys id, article, highlights; "
                "ensure_ascii off)",
            ),
            "article",
            "highlights",
        ),
    )
}


def load(name: str, split: Split) -> list[Pair]:
    """Reads a split of one of `SOURCES`, from this machine or fetched once; see `published.find`.

    The first pair of the file and every fifth after it are "dev", the others "train".

    Raises:
        ValueError: there is no such set, or its file is nowhere, another one, or damaged.
    """
    if name not in SOURCES:
        raise ValueError(f"no summaries {quoted(name)}; choose from {', '.join(SOURCES)}")
    data, path = find(SOURCES[name].file)
    pairs = parse(SOURCES[name], decode(data, path), path)
    return [pair for index, pair in enumerate(pairs) if (index % FOLDS == 0) == (split == "dev")]


def parse(source: SummarySet, text: str, path: Path) -> list[Pair]:
    r"""Reads JSON lines; blanks at the ends of a document go, and a summary becomes one line.

    Raises:
        ValueError: a line is no JSON object with two texts; the message names it and the file `path`.

    Example:
        >>> parse(SOURCES["dialogsum"], '{"dialogue": "A: Hi.\\nB: Oh.", "summary": "A and\\nB."}', Path("a.jsonl"))
        [Pair(document='A: Hi.\nB: Oh.', summary='A and B.')]
    """
    pairs = []
    # Not splitlines(): it would also cut at separators that a text may hold.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"{path}, line {number}: no JSON; get the file again") from None
        texts = []
        for key in (source.document, source.summary):
            content = row.get(key) if isinstance(row, dict) else None
            if not isinstance(content, str) or not content.strip():
                raise ValueError(f"{path}, line {number}: no text under {quoted(key)}; get the file again")
            texts.append(content)
        pairs.append(Pair(texts[0].strip(), " ".join(texts[1].split())))
    return pairs


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


class SummaryTask(FinetuneTask):
    """A set of documents with summaries, of which every fifth pair is measured on after the last epoch.

    Args:
        name: of the set, as in `SOURCES`.
        short: its name in headings.
        decoding: settings of the search.
    """

    suite: ClassVar[str] = "summarization"
    config_type: ClassVar[type[FinetuneConfig]] = SummaryConfig

    def __init__(self, name: str, short: str, decoding: Mapping[str, Any]) -> None:
        self.name, self.defaults = name, decoding
        self.headings = {"rouge1": f"{short} R-1", "rouge2": f"{short} R-2", "rougeL": f"{short} R-L"}

    def count(self, config: FinetuneConfig) -> int:
        """Number of training pairs; ValueError where they or rouge-score cannot be had."""
        scorer()  # better missed now than after an epoch
        return len(load(self.name, "train")[: config.examples or None])

    def run(
        self, config: FinetuneConfig, model: str, folder: Path, device: str, stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Fine-tunes an encoder-decoder; see `FinetuneTask.run`."""
        if not isinstance(config, SummaryConfig):
            raise TypeError("settings of summaries are made by SummaryTask.build")
        train, dev = load(self.name, "train")[: config.examples or None], load(self.name, "dev")
        network, tokenizer = load_encoder_decoder(model, max(config.length, config.target, config.longest))
        epochs = finetune(Summarization(network, tokenizer, train, dev, config), config, folder, device, stop)
        return {"epochs": epochs, "examples": {"train": len(train), "dev": len(dev)}}


class Summarization(TaskLearner):
    """An encoder-decoder with documents and their summaries, as the loop trains it; how it decodes is set here."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        train: Sequence[Pair],
        dev: Sequence[Pair],
        config: SummaryConfig,
    ) -> None:
        def encode(pair: Pair) -> dict[str, list[int]]:
            text = f"{config.prefix} {pair.document}" if config.prefix else pair.document
            encoded = tokenizer(text, truncation=True, max_length=config.length)
            return {key: encoded[key] for key in INPUTS}

        super().__init__(model, tokenizer, config, list(map(encode, train)), list(map(encode, dev)))
        self.smoothing = config.smoothing
        targets = (tokenizer(text_target=pair.summary, truncation=True, max_length=config.target) for pair in train)
        self.targets = [torch.tensor(target["input_ids"]) for target in targets]
        self.references = [pair.summary for pair in dev]
        model.generation_config = generation_config(model, config)

    def loss(self, indices: Sequence[int]) -> Tensor:
        """Cross-entropy of the tokens of the summaries, the decoder being given those before.

        The sum is divided by the mean length of a training summary, not that of these: then every token counts alike,
        and parts of a batch add up to it.
        """
        inputs = self.padded([self.train[index] for index in indices])
        targets = [self.targets[index] for index in indices]
        labels = pad_sequence(targets, batch_first=True, padding_value=IGNORED).to(inputs["input_ids"].device)
        logits = self.model(**inputs, labels=labels).logits.float()
        total = F.cross_entropy(
            logits.flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.smoothing,
        )
        mean = sum(map(len, self.targets)) / len(self.targets)
        return total / (len(indices) * mean)

    def measure(self) -> dict[str, float]:
        """ROUGE of what is written of the development documents."""
        return rouge(self.write(), self.references)

    def write(self) -> list[str]:
        """Summaries of the development documents, by beam search."""
        texts = [""] * len(self.dev)
        # As many at once as in training: beams take the memory that backward takes there.
        size = batch_count(self.config.batch, self.config.accumulate)
        generate: Any = self.model.generate
        for indices in self.dev_batches(size):
            tokens = generate(**self.padded([self.dev[index] for index in indices]))
            for index, text in zip(indices, self.tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
                texts[index] = text.strip()
        return texts


def generation_config(model: Any, config: SummaryConfig) -> Any:
    """Settings of decoding: the model's special tokens, and these settings in place of others in its folder."""
    original = model.generation_config
    return quiet_library().GenerationConfig(
        **{f"{token}_token_id": getattr(original, f"{token}_token_id") for token in TOKENS},
        do_sample=False,
        num_beams=config.beams,
        early_stopping=config.beams > 1,
        length_penalty=config.length_penalty,
        min_new_tokens=config.shortest,
        max_new_tokens=config.longest,
        no_repeat_ngram_size=config.no_repeat,
    )


def load_encoder_decoder(name: str, tokens: int) -> tuple[Any, Any]:
    """Loads a model that reads a text and writes another, such as BART or T5, and its tokenizer; nothing in it is new.

    Raises:
        ValueError: transformers is missing, there is no such model in safetensors, it is no encoder-decoder, lacks
            weights, does not say what its decoder starts with, or takes texts shorter than so many tokens only.
    """
    settings = LOADER.config(name)
    if not getattr(settings, "is_encoder_decoder", False):
        raise ValueError(
            f"{name} is no encoder-decoder (its type is {settings.model_type}), so it is not fine-tuned to summarise; "
            "name a model such as BART or T5"
        )
    limit = getattr(settings, "max_position_embeddings", None)
    if limit is not None and tokens > limit:
        raise ValueError(
            f"{name} takes {limit} tokens at most, not {tokens}; lower length, target and longest, e.g. "
            f"--set length={limit}"
        )
    model, tokenizer, _ = load_model(LOADER, "AutoModelForSeq2SeqLM", name)
    if model.generation_config.decoder_start_token_id is None:
        raise ValueError(f"{name} does not say what its decoder starts with; set decoder_start_token_id in config.json")
    return model, tokenizer


# As BART's paper decodes (Lewis et al. 2020, by its released commands): CNN/DailyMail's own; DialogSum is not in it and
# has what the other set of short summaries, XSum, has there.
TASKS = (
    SummaryTask(
        "dialogsum",
        "DialogSum",
        {"beams": 6, "shortest": 10, "longest": 60, "length_penalty": 1.0, "no_repeat": 3},
    ),
    SummaryTask(
        "cnn_dailymail",
        "CNN/DM",
        {"beams": 4, "shortest": 55, "longest": 140, "length_penalty": 2.0, "no_repeat": 3},
    ),
)
