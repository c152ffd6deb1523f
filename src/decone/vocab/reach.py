"""Reachability of token ids: a round trip of every id through the tokenizer, without a list of names.

A token that no text produces is never an input and never a target, so its rows are never trained. The idea is that of
Land and Bartolo 2024 ("Fishing for Magikarp", section 3.1): decode one id, encode the string, see whether it returns.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

from tokenizers import Tokenizer

LONGEST = 512  # characters of a token that is tried; the vocabularies in use stay below 300
BUDGET = 1 << 25  # characters encoded in all: a hostile vocabulary ends as untested, not as a long wait
BATCH = 8192  # texts encoded at once
EXAMPLES = 32  # characters tried that hold one sequence of bytes
# Neighbours of a token, for pieces that never begin or end a word; with some of these it will not merge.
NEIGHBOURS = ("a", " ", "1", "(", "\n", "Q", "é", "ж", "中", "_", "☃", "...")
STRANGE = ("\U000f0000", "☃", "𒀀", "\x7f")  # what hardly any vocabulary holds, so that the unknown token is met
LEADS = b"\xc3\xd0\xe0\xe1\xe2\xe4\xed\xef\xf0\xf1\xf4"
TAILS = b"\x80\x8f\x90\x9f\xa0\xa4\xb8\xbf"  # both ends of every range that UTF-8 allows after some lead


class Reach(NamedTuple):
    """Ids of a tokenizer, rising; each id is in exactly one of the first five lists.

    Attributes:
        text: some text produces them.
        literal: added tokens, special or not, that their own literal text produces.
        partial: fragments of characters, which stand for no text alone, and single bytes kept for unknown characters.
        unreachable: no text that was tried produces them, or their bytes belong to no character.
        untested: too long to try.
        inside: those of `partial` that a longer character was seen to produce.
    """

    text: list[int]
    literal: list[int]
    partial: list[int]
    unreachable: list[int]
    untested: list[int]
    inside: list[int]


def reach(tokenizer: Tokenizer, longest: int = LONGEST) -> Reach:
    """Decides for every id of a tokenizer whether a text can produce it.

    Each id is decoded alone, then beside other tokens, and the text encoded; all ids that any such text gives are
    reachable.

    Args:
        tokenizer: left as it is; truncation and padding are switched off in a copy.
        longest: tokens of more characters are not tried.

    Example:
        >>> from tokenizers import models, pre_tokenizers
        >>> tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "a b": 2, "?": 3}, unk_token="?"))
        >>> tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> ids = reach(tokenizer)
        >>> ids.text, ids.unreachable
        ([0, 1, 3], [2])
    """
    trial = _Trial(tokenizer)
    strings = trial.strings
    added = trial.tokenizer.get_added_tokens_decoder().keys() & strings.keys()
    long = {index for index, token in strings.items() if len(token) > longest}
    open_ids = sorted(strings.keys() - long)
    content = {index: trial.content(index) for index in open_ids if index not in added}
    alone = {index for index, data in content.items() if data is not None and _is_text(data)}
    trial.run([*STRANGE, *(f"a{text}" for text in STRANGE)])
    for texts in trial.spellings(longest):
        open_ids = [index for index in open_ids if index not in trial.reached]
        trial.run(texts(open_ids))
    fragments = {index: list(characters(data)) for index, data in content.items() if data is not None}
    trial.run([text for index, texts in fragments.items() if index not in trial.reached for text in texts])

    reached = trial.reached & strings.keys()
    pieces = {index for index, texts in fragments.items() if texts and not (index in alone and index in reached)}
    untried = long - reached if trial.budget > 0 else strings.keys() - reached - pieces
    unreachable = strings.keys() - reached - pieces - untried
    kinds = (reached - added - pieces, reached & added, pieces, unreachable, untried, pieces & reached)
    return Reach(*(sorted(kind) for kind in kinds))


def characters(data: bytes) -> Iterator[str]:
    """Texts with some bytes in them, at most 32: nothing is added to text, the least to other bytes.

    Args:
        data: any bytes; bytes that no UTF-8 text contains give nothing.

    Example:
        >>> list(characters(b"a")), next(characters(bytes([0xC3]))), list(characters(bytes([0xC0])))
        (['a'], 'À', [])
    """
    if _is_text(data):
        yield data.decode()
        return
    count = 0
    missing = [bytes(tail) for length in range(4) for tail in product(TAILS, repeat=length)]
    before = [
        b"",
        *(bytes([lead, *tail]) for length in range(3) for lead in LEADS for tail in product(TAILS, repeat=length)),
    ]
    begun = next((index for index, byte in enumerate(data) if byte & 0xC0 != 0x80), len(data))
    open_end = _open_end(data)
    if open_end is None:
        return
    tails = [tail for tail in missing if len(tail) == open_end]
    for head, tail in product(before if begun else [b""], tails):
        text = head + data + tail
        if _is_text(text):
            yield text.decode()
            count += 1
            if count == EXAMPLES:
                return


class _Trial:
    """A tokenizer, the ids that it has produced so far, and the characters that may still be tried."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        serialised = tokenizer.to_str()
        self.tokenizer = Tokenizer.from_str(serialised)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.strings: dict[int, str] = {}
        for token, index in self.tokenizer.get_vocab(with_added_tokens=True).items():
            self.strings.setdefault(index, token)
        description = json.loads(serialised)
        model: dict[str, Any] = description["model"]
        self.fallback = bool(model.get("byte_fallback"))
        self.prefix, self.suffix = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
        self.bytes = (
            _alphabet() if '"ByteLevel"' in json.dumps([description["pre_tokenizer"], description["decoder"]]) else {}
        )
        self.reached: set[int] = set()
        self.budget = BUDGET

    def content(self, index: int) -> bytes | None:
        """The bytes an id stands for where they are no text, or a single one for unknown characters; else None."""
        token = self.strings[index]
        if self.fallback and re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)])
        data = self._bytes(token)
        return None if data is None or _is_text(data) else data

    def bare(self, index: int) -> str:
        """A token without the marks of its position in a word; for tokenizers whose decoder does not remove them."""
        token = self.strings[index]
        data = self._bytes(token)
        return self._stem(token).replace("▁", " ") if data is None else data.decode(errors="replace")

    def _stem(self, token: str) -> str:
        return token.removeprefix(self.prefix or "").removesuffix(self.suffix or "")

    def _bytes(self, token: str) -> bytes | None:
        """The bytes a token of a byte-level vocabulary stands for; None where the vocabulary or the token is none."""
        stem = self._stem(token)
        if not self.bytes or not all(character in self.bytes for character in stem):
            return None
        return bytes(self.bytes[character] for character in stem)

    def spellings(self, longest: int) -> Iterator[Callable[[list[int]], list[str]]]:
        """Functions that make a text of each id, cheap and likely ones first."""
        yield lambda ids: self._decode([[index] for index in ids])
        yield lambda ids: [self.strings[index] for index in ids]
        yield lambda ids: [" " + text for text in self._decode([[index] for index in ids])]
        yield lambda ids: [self.bare(index) for index in ids]
        for word in (*self._words(longest), *NEIGHBOURS):
            if self._ids(word):
                yield partial(self._decode_between, self._ids(word), [])
                yield partial(self._bare_between, word, "")
        for word in NEIGHBOURS:
            if self._ids(word):
                yield partial(self._decode_between, [], self._ids(word))
                yield partial(self._decode_between, self._ids(word), self._ids(word))
            if self.suffix:  # pieces that a word goes on after; not every decoder takes the mark of its end away
                yield partial(self._bare_between, "", word)
                yield partial(self._bare_between, word, word)

    def run(self, texts: list[str]) -> None:
        """Encodes texts and notes the ids that came."""
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            self.budget -= sum(map(len, batch))
            if self.budget <= 0:
                return
            self.reached.update(*self._encode(batch))

    def _words(self, longest: int) -> list[str]:
        """Some long words: a piece that continues a word follows them without merging."""
        words = sorted(
            (token for token in self.strings.values() if len(token) < 16 and token.isascii() and token.isalpha()),
            key=lambda token: (-len(token), token),
        )
        return [word.lower() for word in words[:3] if len(word) <= longest]

    def _decode_between(self, before: list[int], after: list[int], ids: list[int]) -> list[str]:
        return self._decode([[*before, index, *after] for index in ids])

    def _bare_between(self, before: str, after: str, ids: list[int]) -> list[str]:
        return [before + self.bare(index) + after for index in ids]

    def _ids(self, text: str) -> list[int]:
        return next(iter(self._encode([text])), [])

    def _decode(self, batch: list[list[int]]) -> list[str]:
        texts: list[str] = self.tokenizer.decode_batch(batch, skip_special_tokens=False)
        return texts

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text; a text that the tokenizer cannot take is left out."""
        try:
            return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # the library raises bare Exception, and its panics are no Exception
            if len(texts) < 2:
                return []
            middle = len(texts) // 2
            return self._encode(texts[:middle]) + self._encode(texts[middle:])


def _alphabet() -> dict[str, int]:
    """Characters that stand for bytes in byte-level vocabularies: printable Latin-1 for itself, others from 256 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unprintable = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + index): byte for index, byte in enumerate(unprintable)}


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _open_end(data: bytes) -> int | None:
    """Bytes missing after the last one to end its character; None where the last lead byte is none of UTF-8."""
    for back, byte in enumerate(reversed(data[-4:])):
        if byte & 0xC0 == 0x80:
            continue
        need = 0 if byte < 0x80 else 1 if 0xC2 <= byte < 0xE0 else 2 if 0xE0 <= byte < 0xF0 else 3
        return None if 0x80 <= byte < 0xC2 or byte > 0xF4 or need < back else need - back
    return 0
