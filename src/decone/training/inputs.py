"""Inputs of a run, read before its first step: the text, its tokenizer, ids to train and to measure on."""

from dataclasses import dataclass
from importlib.util import find_spec

from jaxtyping import Int64
from torch import Tensor

from decone.data import corpora
from decone.data.tokens import Languages, TextTokenizer, split
from decone.engines.select import choose
from decone.training.config import RunConfig
from decone.training.machine import resolve_device


@dataclass(frozen=True)
class Inputs:
    """A text ready to train on: its tokenizer, copies of the vocabulary, ids to train and to measure on."""

    corpus: corpora.Corpus
    tokenizer: TextTokenizer
    languages: Languages
    train: Int64[Tensor, " N"]
    validation: Int64[Tensor, " M"]


def read(config: RunConfig, tokenizer: TextTokenizer | None = None) -> Inputs:
    """Reads the text of a run and cuts it; without the tokenizer of a run one is made from the text.

    Raises:
        ValueError: the text cannot be read, is too short, or does not fit the tokenizer or `model.vocabulary`.

    Example:
        >>> inputs = read(RunConfig())
        >>> len(inputs.train) > 9 * len(inputs.validation) - 10
        True
    """
    corpus = corpora.load(config.corpus.name)
    tokenizer = tokenizer or train_tokenizer(config, corpus.text)
    languages = Languages(tokenizer.size, config.language.low_resource)
    if config.model.vocabulary not in (0, languages.vocabulary):
        raise ValueError(
            f"model.vocabulary is {config.model.vocabulary} but the text makes {languages.vocabulary} tokens; "
            "leave it 0"
        )
    train, validation = split(tokenizer.encode(corpus.text), config.corpus.validation, config.model.context)
    return Inputs(corpus, tokenizer, languages, train, validation)


def train_tokenizer(config: RunConfig, text: str) -> TextTokenizer:
    """The tokenizer a configuration asks for, made from the whole text."""
    if config.tokenizer.kind == "characters":
        return TextTokenizer.characters(text)
    return TextTokenizer.bpe(text, config.tokenizer.size)


def check(config: RunConfig, tokenizer: TextTokenizer | None = None) -> Inputs:
    """Refuses what would stop a run before its first step, and returns its inputs.

    Nothing is written and no device is started.

    Raises:
        ValueError: the device, the engine or TensorBoard is not here, or the text will not do.
    """
    machine = config.machine
    resolve_device(machine.device)
    choose(machine.engine)
    if machine.tensorboard and find_spec("tensorboard") is None:
        raise ValueError('machine.tensorboard needs the package: pip install "decone[report]"')
    return read(config, tokenizer)
