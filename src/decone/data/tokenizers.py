"""Text to ids: characters in sorted order, or byte-level BPE, both as one `tokenizers` file."""

from pathlib import Path

import torch
from jaxtyping import Int64
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

UNKNOWN = "<unk>"


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
