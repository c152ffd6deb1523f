"""Basis of every lexicon: senses that can be used, and the lines of a stranger's file, plain, gzip or xz.

Lines are read one at a time, in bounded memory, with their numbers.
"""

import gzip
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

from decone.files.foreign import plain

LINE_LIMIT = 32 << 20  # bytes; the longest entries of Wiktionary take a few million
BLOCK = 1 << 20  # bytes read, or unpacked, at once
MEMORY = 512 << 20  # bytes an xz file may ask for; its strongest preset takes 65 MiB
SMALL = 256 << 20  # bytes that any file may unpack to
RATIO = 200  # beyond that, how many times its own size; text packs 5 to 30 times

_FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "packed with bzip2",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
}

WORD_LIMIT = 200  # characters; the longest lemmas published stay below
GLOSS_LIMIT = 20_000  # characters; no model reads more of a definition, and no dictionary writes it

PARTS_OF_SPEECH = {
    "n": "noun",
    "v": "verb",
    "a": "adjective",
    "s": "adjective",  # WordNet's satellites
    "r": "adverb",
    "adj": "adjective",
    "adv": "adverb",
    "name": "proper noun",
    "num": "number",
}


class Sense(NamedTuple):
    """One meaning of a word.

    Attributes:
        word: as the lexicon writes it, blanks for what a source writes as underscores.
        gloss: its meaning, one line, without examples.
        part_of_speech: "noun", "verb", "adjective", "adverb", else as the source calls it; empty where it does not say.
        source_rank: the source's own number of the sense among those of the word, else the number of its line: in one
            source, the lower of two senses of a word and part of speech is the earlier one.
        form_of: the word this one is a mere form of, where the gloss says no more than that; else empty.
    """

    word: str
    gloss: str
    part_of_speech: str = ""
    source_rank: int = 1
    form_of: str = ""


Skipped = Counter[str]  # entries left out, by reason


@lru_cache(256)  # of the few names there are, not of a stranger's many
def part_of_speech(name: str) -> str:
    """A part of speech in full; names that are not known stay as they are.

    Example:
        >>> part_of_speech("n-2"), part_of_speech("adj"), part_of_speech("phrase")
        ('noun', 'adjective', 'phrase')
    """
    full = PARTS_OF_SPEECH.get(name) or PARTS_OF_SPEECH.get(name.partition("-")[0], name)
    return " ".join(full.split())[:40]


def clean_sense(sense: Sense, skipped: Skipped) -> Sense | None:
    r"""A sense on one line, None and one count more where it cannot be used.

    Example:
        >>> skipped = Skipped()
        >>> clean_sense(Sense(" ice  cream ", "a frozen\ndessert"), skipped)
        Sense(word='ice cream', gloss='a frozen dessert', part_of_speech='', source_rank=1, form_of='')
        >>> clean_sense(Sense("ice", ""), skipped), dict(skipped)
        (None, {'without a gloss': 1})
    """
    word, gloss = " ".join(sense.word.split()), " ".join(sense.gloss.split())
    simple = word.isascii() and gloss.isascii() and 0 < len(word) <= WORD_LIMIT and 0 < len(gloss) <= GLOSS_LIMIT
    if not simple and (reason := _fault(word, gloss)):
        skipped[reason] += 1
        return None
    return Sense(word, gloss, *sense[2:])


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""The lines of a file with their numbers from 1, without their ends and without a byte-order mark.

    Args:
        path: an ordinary file of UTF-8 text, plain or packed with gzip or xz, recognised by its first bytes.

    Raises:
        ValueError: it cannot be read or unpacked, ends in the middle, is no UTF-8 text, has a line of more than 32 MiB,
            or unpacks to far more than a text can; the message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "words.gz"
        ...     _ = file.write_bytes(gzip.compress(b"a\tb\r\nc\td"))
        ...     list(read_lines(file))
        [(1, 'a\tb'), (2, 'c\td')]
    """
    number, remainder = 0, b""
    try:
        for block in _blocks(path):
            content = remainder + block
            cut = content.rfind(b"\n") + 1
            remainder = content[cut:]
            for line in _texts(content[:cut], path, number + 1):
                number += 1
                yield number, line
            if len(remainder) > LINE_LIMIT:
                raise ValueError(
                    f"{_at(path, number + 1)}: the line is longer than {LINE_LIMIT >> 20} MiB, which no entry of a "
                    "lexicon is; name another file"
                )
    except EOFError:
        raise ValueError(
            f"{_at(path, number + 1)}: the packed file ends in the middle, so it is not whole; download it again"
        ) from None
    except (OSError, zlib.error, lzma.LZMAError) as error:
        reason = plain(getattr(error, "strerror", None) or error)
        raise ValueError(
            f"{_at(path, number + 1)}: the file cannot be read ({reason}); check it, or download it again"
        ) from None
    if remainder:
        yield from ((number + 1, line.removesuffix("\r")) for line in _texts(remainder, path, number + 1))


def first_line(path: Path) -> tuple[int, str]:
    """The first line that is not blank, and its number.

    Raises:
        ValueError: there is none, or as `read_lines`.
    """
    for number, line in read_lines(path):
        if line.strip():
            return number, line
    raise ValueError(f"{path} is empty; name a lexicon with at least one word and its gloss")


def _fault(word: str, gloss: str) -> str:
    if not word:
        return "without a word"
    if not gloss:
        return "without a gloss"
    if len(word) > WORD_LIMIT:
        return f"word of more than {WORD_LIMIT} characters"
    if len(gloss) > GLOSS_LIMIT:
        return f"gloss of more than {GLOSS_LIMIT:,} characters"
    try:
        (word + gloss).encode()
    except UnicodeEncodeError:  # JSON can say half a character, which no tokenizer takes
        return "not Unicode text"
    return ""


def _at(path: Path, number: int) -> str:
    return f"{path}, line {number}"


def _texts(content: bytes, path: Path, first: int) -> list[str]:
    """Complete lines as text; the number of the first is for messages."""
    if b"\0" in content:
        number = first + content.count(b"\n", 0, content.index(b"\0"))
        raise ValueError(
            f"{_at(path, number)}: the file is binary, no lexicon; where it is an archive of files, unpack it first"
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = first + content.count(b"\n", 0, error.start)
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1)
        raise ValueError(
            f"{_at(path, number)}: not UTF-8 (byte {column} of the line); convert it, e.g. with iconv -t UTF-8"
        ) from None
    lines = (text.removeprefix("\ufeff") if first == 1 else text).replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _blocks(path: Path) -> Iterator[bytes]:
    """The content in pieces, unpacked."""
    if not path.exists():
        raise ValueError(f"no file {plain(path)}; name a table, WordNet's files, or JSON lines of Wiktionary")
    if not path.is_file():
        raise ValueError(f"{path} is not an ordinary file; name the lexicon's file")
    with path.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        for signature, kind in _FOREIGN.items():
            if head.startswith(signature):
                raise ValueError(f"{path} is {kind}; unpack it, or pack it with gzip or xz")
        if head.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as packed:
                yield from _bounded(path, iter(lambda: packed.read(BLOCK), b""))
        elif head == b"\xfd7zXZ\0":
            yield from _bounded(path, _xz(file))
        else:
            yield from iter(lambda: file.read(BLOCK), b"")


def _bounded(path: Path, blocks: Iterator[bytes]) -> Iterator[bytes]:
    limit, total = max(SMALL, RATIO * path.stat().st_size), 0
    for block in blocks:
        total += len(block)
        if total > limit:
            raise ValueError(
                f"{path} unpacks to more than {limit:,} bytes, over {RATIO} times its size, which no lexicon does; "
                "unpack it yourself if you trust it"
            )
        yield block


def _xz(file: IO[bytes]) -> Iterator[bytes]:
    """Content of an xz file, unpacked; the memory it may ask for is bounded, which `lzma.open` does not do."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
    while True:
        data = b""
        if decoder.eof:  # another stream may follow, after padding
            data = decoder.unused_data.lstrip(b"\0") or file.read(BLOCK).lstrip(b"\0")
            if not data:
                return
            decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
        elif decoder.needs_input:
            data = file.read(BLOCK)
            if not data:
                raise EOFError
        yield decoder.decompress(data, BLOCK)
