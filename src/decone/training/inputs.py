"""Inputs of a run, read before its first step: the text, its tokenizer, ids to train and to measure on."""

from dataclasses import dataclass
from importlib.util import find_spec

from jaxtyping import Int64
from torch import Tensor

from decone.data import corpora
from decone.data.tokenizers import TextTokenizer
from decone.data.windows import Languages, split
from decone.engines.select import choose
from decone.training.config import RunConfig
from decone.training.machine import resolve_device


@dataclass(frozen=True)
class Inputs:
    """A text ready to train on.

    Attributes:
        corpus: the text and where it comes from.
        tokenizer: text to ids.
        languages: copies of the vocabulary.
        train: ids to train on, [N].
        validation: ids to measure on, [M].
    """

    corpus: corpora.Corpus
    tokenizer: TextTokenizer
    languages: Languages
    train: Int64[Tensor, " N"]
    validation: Int64[Tensor, " M"]


def read(config: RunConfig, tokenizer: TextTokenizer | None = None) -> Inputs:
    """Reads the text of a run and cuts it.

    Args:
        config: the resolved configuration.
        tokenizer: of a run that has one already; made from the text otherwise.

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
    """Refuses what would stop a run before its first step; nothing is written and no device is started.

    Args:
        config: the resolved configuration.
        tokenizer: of a run that has one already.

    Returns:
        The text, since it had to be read.

    Raises:
        ValueError: the device, the engine or TensorBoard is not here, or the text will not do.
    """
    machine = config.machine
    resolve_device(machine.device)
    choose(machine.engine)
    if machine.tensorboard and find_spec("tensorboard") is None:
        raise ValueError('machine.tensorboard needs the package: pip install "decone[report]"')
    return read(config, tokenizer)
