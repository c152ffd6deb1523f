"""Text to token ids, and windows of them: random ones to train on, consecutive ones to evaluate on.

A tokenizer has characters in sorted order, or byte-level BPE, both as one `tokenizers` file.

A batch depends on (seed, stream, step) alone. So resuming needs no state, methods with the same seed see the same
batches (their differences are paired), and any process can make its share of a batch.

A low-resource language is simulated by a second copy of the vocabulary, which a share of the training windows is in
(Turumtaev, "Stop Jostling", Section 4.1, after K et al. 2020): the ids of such a window are shifted by the size of the
vocabulary. Both copies obey the same text, so every low-resource token has one true translation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

TRAINING, VALIDATION = 0, 1  # streams of randomness that never meet
UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Languages:
    """Tokens of one copy of the vocabulary, and the probability that a training window is in the second copy."""

    size: int
    low_resource: float

    @property
    def simulated(self) -> bool:
        """True with a second copy."""
        return self.low_resource > 0

    @property
    def vocabulary(self) -> int:
        """Token ids of all copies together."""
        return self.size * (2 if self.simulated else 1)

    def offsets(self) -> dict[str, int]:
        """First id of each language by name: HR and LR, or `all` when there is one.

        Example:
            >>> Languages(65, 0.02).offsets()
            {'HR': 0, 'LR': 65}
        """
        return {"HR": 0, "LR": self.size} if self.simulated else {"all": 0}

    def spread(self, counts: Int64[Tensor, " V"]) -> Int64[Tensor, " W"]:
        """Occurrences in a text, over the copies of the vocabulary, as training windows are; their sums stay.

        Example:
            >>> Languages(2, 0.25).spread(torch.tensor([8, 1])).tolist()
            [6, 1, 2, 0]
        """
        if not self.simulated:
            return counts
        low = (counts.double() * self.low_resource).round().long()
        return torch.cat((counts - low, low))

    def ids(self, name: str) -> Int64[Tensor, " V"]:
        """All token ids of a language."""
        start = self.offsets()[name]
        return torch.arange(start, start + self.size)


def split(ids: Int64[Tensor, " N"], validation: float, context: int) -> tuple[Tensor, Tensor]:
    """Cuts a text by position into training ids and validation ids, a share at its end, in (0, 1).

    Raises:
        ValueError: one of both is shorter than one window and its last target.

    Example:
        >>> [len(ids) for ids in split(torch.arange(100), 0.1, context=4)]
        [90, 10]
    """
    border = int(len(ids) * (1 - validation))
    train_ids, validation_ids = ids[:border], ids[border:]
    if min(len(train_ids), len(validation_ids)) < context + 1:
        raise ValueError(
            f"the text is too short: {len(train_ids)} training and {len(validation_ids)} validation tokens, one window "
            f"needs {context + 1}; give a longer text or a smaller model.context"
        )
    return train_ids, validation_ids


def random_batch(
    ids: Int64[Tensor, " N"], context: int, size: int, languages: Languages, key: tuple[int, int, int]
) -> Int64[Tensor, "B T"]:
    """Random windows of context + 1 ids, each in the low-resource language with its probability.

    Inputs are [:, :-1], targets [:, 1:]; the key is (seed, stream, step).

    Example:
        >>> batch = random_batch(torch.arange(50), 4, 2, Languages(50, 0.0), (1337, TRAINING, 0))
        >>> bool((batch[:, 1:] == batch[:, :-1] + 1).all())
        True
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    start = torch.from_numpy(random.integers(0, len(ids) - context, size=size))
    low = torch.from_numpy(random.random(size) < languages.low_resource)
    windows = ids[start[:, None] + torch.arange(context + 1)]
    return windows + low[:, None] * languages.size


def consecutive(ids: Int64[Tensor, " N"], context: int, size: int) -> Iterator[Int64[Tensor, "B T"]]:
    """All windows of context + 1 ids in order, in groups of `size`, overlapping by the one that is target and input.

    An incomplete last group is dropped unless it is alone.

    Example:
        >>> [group.shape[0] for group in consecutive(torch.arange(41), context=4, size=3)]
        [3, 3, 3]
    """
    count = (len(ids) - 1) // context
    groups = count // size or 1
    size = min(size, count)
    windows = ids[: count * context + 1].unfold(0, context + 1, context)
    yield from torch.split(windows[: groups * size], size)


class TextTokenizer:
    """A `tokenizers.Tokenizer` with ids as tensors.

    Example:
        >>> tokenizer = TextTokenizer.characters("banana")
        >>> tokenizer.encode("nab").tolist(), tokenizer.decode([2, 0, 1])
        ([2, 0, 1], 'nab')
    """

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner

    @classmethod
    def characters(cls, text: str) -> "TextTokenizer":
        """One id per distinct character of the text, in sorted order."""
        vocabulary = {character: index for index, character in enumerate(sorted(set(text)))}
        inner = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        inner.decoder = decoders.Fuse()
        return cls(inner)

    @classmethod
    def bpe(cls, text: str, size: int) -> "TextTokenizer":
        """Byte-level BPE trained on the text, at most `size` ids (at least the 256 bytes)."""
        if size < 256:
            raise ValueError(f"a byte-level BPE has at least 256 tokens, got {size}; raise tokenizer.size")
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        inner.train_from_iterator(text.splitlines(keepends=True), trainer)
        return cls(inner)

    @classmethod
    def load(cls, path: Path) -> "TextTokenizer":
        """Reads a tokenizer.json; ValueError when it is missing or damaged."""
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"cannot read the tokenizer {path}: {error}; is this a decone run?") from None

    def save(self, path: Path) -> None:
        """Writes a tokenizer.json."""
        self.inner.save(str(path))

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.inner.get_vocab_size()

    def tokens(self) -> list[str]:
        """The readable string of every id, in order of ids."""
        return [self.decode([index]) for index in range(self.size)]

    def encode(self, text: str) -> Int64[Tensor, " N"]:
        """Ids of a text.

        Raises:
            ValueError: a character is not in the vocabulary.
        """
        # Line by line: the library is linear in the text only for short inputs. No token crosses a line end.
        try:
            lines = self.inner.encode_batch(text.splitlines(keepends=True), add_special_tokens=False)
        except Exception:  # the library raises bare Exception for an unknown character
            strange = sorted(set(text) - self.inner.get_vocab().keys())
            raise ValueError(
                f"the text has characters the tokenizer does not know, e.g. {strange[:5]}; remove them, or train "
                "with tokenizer.kind=bpe"
            ) from None
        return torch.tensor([index for line in lines for index in line.ids], dtype=torch.long)

    def decode(self, ids: list[int]) -> str:
        """Text of ids."""
        text: str = self.inner.decode(ids, skip_special_tokens=False)
        return text
