"""Pieces of words as parts of a longer word that a lexicon defines, and why its other words are no single token."""

import json
from collections import Counter
from typing import NamedTuple

from tokenizers import Tokenizer

from decone.data.lexicons import Sense
from decone.repair.surfaces import Surface


class Host(NamedTuple):
    """A word that a piece is part of.

    Attributes:
        word: as the tokenizer writes it.
        ids: its tokens.
        place: of the piece among them, from 0.
        senses: of the word.
    """

    word: str
    ids: tuple[int, ...]
    place: int
    senses: tuple[Sense, ...]


class Hosts:
    """Looks at words that are no single token: counts why, and keeps for each piece the best word it is part of.

    The best is the shortest word without blanks or signs, of equal ones the alphabetically first.

    Args:
        tokenizer: of the model; a copy without truncation is used.
        known: what each token stands for.
        tally: counts words of the lexicon by why they are no token.
    """

    def __init__(self, tokenizer: Tokenizer, known: list[Surface], tally: Counter[str]) -> None:
        described = tokenizer.to_str()
        self.tokenizer = Tokenizer.from_str(described)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        model = json.loads(described)["model"]
        unknown = model.get("unk_id") if "unk_id" in model else tokenizer.token_to_id(model.get("unk_token") or "")
        self.unknown: int | None = unknown
        self.inner = {id for id, surface in enumerate(known) if surface.inner and surface.kind != "byte"}
        # Byte-level vocabularies write a word within a text with a space in front.
        self.lead = " " if any(surface.token.startswith("Ġ") for surface in known) else ""
        self.tally = tally
        self.best: dict[int, Host] = {}
        self.rank: dict[int, tuple[int, str]] = {}

    def look(self, words: list[tuple[str, str, list[Sense]]]) -> None:
        """Looks at words of the lexicon that are no single token, each also as the tokenizer writes it."""
        for (word, key, senses), ids in zip(words, self._encode([word for word, _, _ in words]), strict=True):
            several = len(word.split()) > 1
            if not ids or self.unknown in ids:
                self.tally["word with unknown characters"] += len(senses)
                continue
            if several or len(ids) > 1:
                self.tally["several words" if several else "word of several tokens"] += len(senses)
            else:
                self.tally["word of one token that is not matched"] += len(senses)
            if not key.isalnum():
                continue
            for place, id in enumerate(ids):
                if id in self.inner and (id not in self.best or (len(key), key) < self.rank[id]):
                    self.best[id], self.rank[id] = Host(key, tuple(ids), place, tuple(senses)), (len(key), key)

    def of(self, id: int) -> Host | None:
        """The best word that a piece is part of."""
        return self.best.get(id)

    def _encode(self, words: list[str]) -> list[list[int]]:
        """The tokens of each word; none for one that the tokenizer cannot take."""
        try:
            texts = [self.lead + word for word in words]
            return [found.ids for found in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # the library raises bare Exception for what it does not know, and its panics are none
            if len(words) < 2:
                return [[] for _ in words]
            middle = len(words) // 2
            return self._encode(words[:middle]) + self._encode(words[middle:])
