"""Word similarity: do words that people find alike have rows that point alike?

MEN (Bruni et al. 2014), WS-353 (Finkelstein et al. 2001), RG-65 (Rubenstein and Goodenough 1965), RW (Luong et al.
2013), as used for embedding tables by Yu et al. 2022 (AGG). Only the table is looked at, not the model around it.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from tokenizers import Tokenizer
from torch import Tensor

from decone.data.corpora import read_text
from decone.diagnosis.result import WordSimilarity
from decone.files.foreign import quoted
from decone.metrics.statistics import spearman, spearman_interval
from decone.models.tables import ModelTables, Table, blocks

SPACES = ("Ġ", "▁")  # how byte-level and SentencePiece vocabularies write a leading space
MAX_BYTES = 64 * 2**20  # the largest published list is far below 1 MiB


class WordPair(NamedTuple):
    """Two words and a human judgement of their similarity, on any scale that grows with it."""

    first: str
    second: str
    score: float


def word_similarity(model_tables: ModelTables, file: Path, seed: int = 0) -> WordSimilarity:
    """Compares cosines of words in the output table with human judgements.

    The vector of a word is the mean of the rows of its pieces. A word is cut twice: as it is, and with a leading space,
    as it stands inside a text. For a tokenizer that knows no leading space (WordPiece) or puts one before every word by
    itself (SentencePiece) both are the same pieces, and both numbers are equal. Unknown pieces are what the tokenizer
    makes of them, mostly the row of the unknown token. In a run with a simulated language words are in the first
    language. A pair is not used where a word has no vector either way: it
    has no pieces or ones beyond the table, or the mean of their rows is zero or not finite; `used` tells how many are.

    Args:
        model_tables: the model.
        file: word pairs, see `read_word_pairs`.
        seed: of the bootstrap (1,000 resamples of the pairs).

    Returns:
        Spearman x 100 with 95 % intervals; None where it is not determined (all cosines or judgements are equal).

    Raises:
        ValueError: the model has no tokenizer, or the file is no list of pairs.
    """
    if model_tables.tokenizer is None:
        raise ValueError(
            f"{model_tables.name} has no tokenizer that can be read, so no word can be found in its table; put its "
            "tokenizer.json beside it"
        )
    pairs = read_word_pairs(file)
    words = sorted({word for pair in pairs for word in (pair.first, pair.second)})
    plain = {word: _pieces(model_tables.tokenizer, word) for word in words}
    spaced = {word: _spaced(model_tables.tokenizer, word, plain[word]) for word in words}
    rows = _rows(model_tables.output, {id for pieces in (plain, spaced) for ids in pieces.values() for id in ids})
    vectors = [{word: _mean(rows, ids) for word, ids in pieces.items()} for pieces in (plain, spaced)]
    used = [pair for pair in pairs if all(by_word[word] is not None for by_word in vectors for word in pair[:2])]
    judged = np.array([pair.score for pair in used], dtype=np.float64)
    estimates = []
    for by_word in vectors:
        cosine = np.array([_cosine(by_word[pair.first], by_word[pair.second]) for pair in used], dtype=np.float64)
        interval = spearman_interval(cosine, judged, seed=seed)
        value = spearman(cosine, judged)
        estimates.append((None if value is None else 100 * value, interval and (100 * interval[0], 100 * interval[1])))
    return WordSimilarity(
        file=file.name,
        pairs=len(pairs),
        used=len(used),
        plain=estimates[0][0],
        plain_interval=estimates[0][1],
        spaced=estimates[1][0],
        spaced_interval=estimates[1][1],
    )


def _pieces(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    try:
        encoding = tokenizer.encode(text, add_special_tokens=False)
    except Exception:  # the library raises bare Exception, e.g. for a character without an unknown token
        return ()
    # Some files pad every text to a fixed length; padding is no part of a word.
    return tuple(id for id, attended in zip(encoding.ids, encoding.attention_mask, strict=True) if attended)


def _spaced(tokenizer: Tokenizer, word: str, plain: tuple[int, ...]) -> tuple[int, ...]:
    begun = bool(plain) and (tokenizer.id_to_token(plain[0]) or "").startswith(SPACES)
    return plain if begun else _pieces(tokenizer, f" {word}")


def _rows(table: Table, requested: Iterable[int]) -> dict[int, Float64[Tensor, " H"]]:
    """The rows asked for, read in one sweep; ids beyond the table are left out."""
    ids = sorted(id for id in requested if id < table.shape[0])
    rows: dict[int, Tensor] = {}
    for start, block in blocks(table):
        inside = [id for id in ids if start <= id < start + len(block)]
        rows.update(zip(inside, block[[id - start for id in inside]].double(), strict=True))
    return rows


def _mean(rows: dict[int, Tensor], ids: tuple[int, ...]) -> Float64[Tensor, " H"] | None:
    if not ids or not all(id in rows for id in ids):
        return None
    total = sum((rows[id] for id in ids[1:]), rows[ids[0]])
    length = float(total.norm())
    return total / length if 0 < length < np.inf else None


def _cosine(first: Tensor | None, second: Tensor | None) -> float:
    assert first is not None and second is not None  # pairs without a vector are not used
    return round(float(first @ second), 12)  # equal pairs tie, in whatever order a machine adds


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
    if not path.exists():
        raise ValueError(f"no file {path}; name a list of word pairs, one per line: word, word, score")
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
        raise ValueError(
            f"{path}, line {number}: {quoted(' '.join(fields))} is not two words and a finite score; "
            "write e.g. tiger<TAB>cat<TAB>7.35"
        )
    assert numbers[0] is not None
    return WordPair(words[0], words[1], numbers[0])


def _number(field: str) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
