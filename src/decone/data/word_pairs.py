"""Word pairs with a human judgement of their similarity: MEN, WS-353, RG-65, RW, or a file of one's own."""

import math
import re
from pathlib import Path
from typing import NamedTuple

from decone.data.corpora import read_text

MAX_BYTES = 64 * 2**20  # the largest published list is far below 1 MiB
QUOTED = 80  # characters of a bad line in a message


class WordPair(NamedTuple):
    """Two words and a human judgement of their similarity, on any scale that grows with it."""

    first: str
    second: str
    score: float


def read_word_pairs(path: Path) -> list[WordPair]:
    r"""Reads a list of word pairs, one per line: word, word, score.

    Columns are separated by tabs, else by commas, else by blanks, whichever the first line has; with tabs or commas a
    word may hold blanks. Numbers after the score (the single judgements, as in WS-353 and RW) are not used. Empty
    lines, lines that begin with #, and a first line of column names ("Word 1", "word2") are passed over; every other
    line is a pair or an error.

    Args:
        path: UTF-8 file.

    Returns:
        The pairs in the file's order, repeated ones too.

    Raises:
        ValueError: the file cannot be read, holds no pair, or a line is none; the message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "pairs.txt"
        ...     _ = file.write_text("tiger cat 7.35\nstock egg 1.81\n")
        ...     read_word_pairs(file)[1]
        WordPair(first='stock', second='egg', score=1.81)
    """
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES >> 20} MiB, too large for a list of word pairs; cut it")
    pairs: list[WordPair] = []
    separator: str | None = None
    begun = False
    # Not splitlines(): it would also cut at separators that a word may hold.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith("#"):
            continue
        if not begun:
            separator = next((mark for mark in ("\t", ",") if mark in line), None)
        fields = [field.strip() for field in line.split(separator)]
        if begun or not _names_columns(fields):
            pairs.append(_pair(path, number, fields))
        begun = True
    if not pairs:
        raise ValueError(f"{path} holds no word pair; write one per line: word, word, score")
    return pairs


def _names_columns(fields: list[str]) -> bool:
    return all(re.fullmatch(r"word[ _]?[12]", field, re.IGNORECASE) for field in fields[:2]) and len(fields) > 2


def _pair(path: Path, number: int, fields: list[str]) -> WordPair:
    words, numbers = fields[:2], [_number(field) for field in fields[2:]]
    if len(words) < 2 or not all(words) or not numbers or None in numbers:
        line = " ".join(fields)
        line = line if len(line) <= QUOTED else f"{line[:QUOTED]}..."
        raise ValueError(
            f"{path}, line {number}: {line!r} is not two words and a finite score; write e.g. tiger<TAB>cat<TAB>7.35"
        )
    assert numbers[0] is not None
    return WordPair(words[0], words[1], numbers[0])


def _number(field: str) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
