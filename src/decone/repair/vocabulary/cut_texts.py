"""Texts as a tokenizer cuts them, by the piece and by the line: what is used, and what must stay the same."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from decone.data.corpora import read_text
from decone.files.foreign import plain
from decone.repair.vocabulary.tokenizer_parts import encoded

PIECE = 1 << 18  # characters tokenized at once, to the next end of a line
BATCH = 256  # texts tokenized at once


def pieces(paths: Iterable[Path]) -> Iterator[str]:
    """Texts in pieces of many lines.

    Raises:
        ValueError: a file cannot be read or is no text.
    """
    for path in paths:
        text, start = read_text(path), 0
        while start < len(text):
            end = text.find("\n", start + PIECE) + 1 or len(text)
            yield text[start:end]
            start = end


def lines(paths: Iterable[Path]) -> Iterator[str]:
    """The same texts line by line: a tokenizer may treat the beginning of a text otherwise.

    Raises:
        ValueError: as `pieces`.
    """
    for piece in pieces(paths):
        yield from piece.split("\n")


def spelled(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """The text of single tokens, alone and behind a word: what to check where no text is given."""
    for index in ids:
        text = tokenizer.decode([index], skip_special_tokens=False)
        yield from (text, f"a {text}", f"a{text}")


def cut(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[tuple[str, list[int]]]:
    """Texts and their ids, without marks around them."""
    batch: list[str] = []

    def done() -> Iterator[tuple[str, list[int]]]:
        yield from zip(batch, (found.ids for found in encoded(tokenizer, batch)), strict=True)

    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) >= BATCH or size >= PIECE:
            yield from done()
            batch, size = [], 0
    if batch:
        yield from done()


def count(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    """How often each id is in some texts."""
    found: Counter[int] = Counter()
    for _, ids in cut(tokenizer, texts):
        found.update(ids)
    return found


def require_same(old: Tokenizer, new: Tokenizer, texts: Iterable[str], ids: Mapping[int, int]) -> int:
    """Compares how two tokenizers cut texts; those with a token that went are passed over.

    Args:
        old: the tokenizer before.
        new: the one after.
        texts: to cut.
        ids: the new id of every old one that stays.

    Returns:
        Tokens compared.

    Raises:
        ValueError: a text is cut otherwise.
    """
    whole = (pair for pair in cut(old, texts) if all(index in ids for index in pair[1]))
    compared = 0
    while batch := list(islice(whole, BATCH)):
        for (_, before), after in zip(batch, encoded(new, [text for text, _ in batch]), strict=True):
            if [ids[index] for index in before] != after.ids:
                raise ValueError(_difference(old, before, after.ids, ids))
            compared += len(before)
    return compared


def _difference(tokenizer: Tokenizer, before: list[int], after: list[int], ids: Mapping[int, int]) -> str:
    pairs = enumerate(zip(before, after, strict=False))
    place = next((place for place, (old, new) in pairs if ids[old] != new), min(len(before), len(after)))
    near = tokenizer.decode(before[max(0, place - 3) : place + 3], skip_special_tokens=False)
    return (
        f"the trimmed tokenizer cuts the text near {plain(near, 60)!r} otherwise than the old one; keep more tokens "
        "with --keep FILE, and please report this tokenizer"
    )
