"""WordNet: the table of the Open English one, and Princeton's own database files (wndb).

The table has a row per sense of a lemma: lemma, pos, sense, synset, gloss, examples. The database is data.noun and the
like, with the index files beside them or alone.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from decone.data.lexicons.reading import Sense, Skipped, clean_sense, part_of_speech, read_lines
from decone.files.folder import inside
from decone.files.foreign import plain, quoted

COLUMNS = ("lemma", "pos", "sense", "synset", "gloss", "examples")
REQUIRED = ("lemma", "pos", "sense", "gloss")

FILES = ("noun", "verb", "adj", "adv")
LINE = 1 << 20  # bytes; the longest line published has 13,000
SYNSET = re.compile(r"(\d{8}) \d{2} ([nvasr]) ([0-9a-f]{2}) ")
_INDEX = re.compile(r"(\S+) ([nvar]) (\d{1,4}) \S.*")
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # position of an adjective in a sentence
RELEASE = "take all files from one release of WordNet"


def is_table_header(line: str) -> bool:
    """True for a line that names the columns of such a table."""
    return set(REQUIRED) <= set(line.split("\t"))


def table_senses(path: Path, skipped: Skipped) -> Iterator[Sense]:
    """The senses in the order of the file, which is that of a lemma's parts of speech and of the senses in each.

    Args:
        path: a tab-separated table with a header, plain, gzip or xz.
        skipped: counts rows left out.

    Raises:
        ValueError: the file cannot be read, or its columns are others.
    """
    lines = read_lines(path)
    _, header = next(lines, (1, ""))
    columns = header.split("\t")
    unknown = [name for name in columns if name not in COLUMNS]
    missing = [name for name in REQUIRED if name not in columns]
    if unknown or missing or len(set(columns)) < len(columns):
        raise ValueError(
            f"{path}, line 1: the columns are {plain(', '.join(columns))}; a table of Open English WordNet has "
            f"{', '.join(COLUMNS)}, and for one of your own use --format tsv"
        )
    lemma, pos, sense, gloss = (columns.index(name) for name in REQUIRED)
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(columns):
            if line.strip():
                skipped["wrong number of columns"] += 1
            continue
        rank = int(fields[sense]) if fields[sense].isdecimal() and len(fields[sense]) < 10 else number
        if clean := clean_sense(Sense(fields[lemma], fields[gloss], part_of_speech(fields[pos]), rank), skipped):
            yield clean


class Synset(NamedTuple):
    """A line of a data file."""

    part_of_speech: str
    words: list[str]
    gloss: str


def is_index(line: str) -> bool:
    """True for a line of an index file."""
    return _INDEX.fullmatch(line.rstrip()) is not None


def database_senses(path: Path, skipped: Skipped) -> Iterator[Sense]:
    """The senses of a folder of files in the order of its index, or of one data file in the order of its lines.

    The index orders the senses of a word by frequency; in a data file alone they come as its authors filed them.

    Args:
        path: the folder (`dict` of a release), or a data file, plain, gzip or xz.
        skipped: counts senses left out.

    Raises:
        ValueError: the files cannot be read, are not of WordNet, or do not belong together; the message names the line.
    """
    if not path.is_dir():
        for number, line in read_lines(path):
            if line.strip() and not line.startswith("  "):
                synset = parse_synset(line, f"{path}, line {number}")
                for word in synset.words:
                    if sense := clean_sense(Sense(word, synset.gloss, synset.part_of_speech, number), skipped):
                        yield sense
        return
    names = [name for name in FILES if inside(path, f"index.{name}").is_file()]
    if not names:
        raise ValueError(f"{path} holds no index.noun, index.verb, index.adj or index.adv; name WordNet's folder dict")
    for name in names:
        data, index = inside(path, f"data.{name}"), inside(path, f"index.{name}")
        if not data.is_file():
            raise ValueError(f"{path} holds index.{name} but no data.{name}; {RELEASE}")
        with data.open("rb") as file:
            yield from _indexed(index, data, file, skipped)


def parse_synset(line: str, where: str) -> Synset:
    """Reads a line of a data file; the definition ends where the first example begins.

    Raises:
        ValueError: the line is none; the message begins with `where`.

    Example:
        >>> parse_synset('00001740 03 n 01 living_thing 0 000 | what is alive; "a living thing"', "line 30")
        Synset(part_of_speech='noun', words=['living thing'], gloss='what is alive')
    """
    head, bar, gloss = line.partition(" | ")
    match = SYNSET.match(head)
    fields = head[match.end() :].split(" ") if match else []
    count = int(match.group(3), 16) if match else 0
    if match is None or not bar or not 0 < count <= len(fields) // 2:
        raise ValueError(f"{where}: {quoted(line)} is no line of a data file of WordNet; choose another --format")
    words = [_MARKER.sub("", word).replace("_", " ") for word in fields[: 2 * count : 2]]
    return Synset(part_of_speech(match.group(2)), words, gloss.strip().partition('; "')[0].rstrip("; "))


def _indexed(index: Path, data: Path, file: IO[bytes], skipped: Skipped) -> Iterator[Sense]:
    """The senses of one part of speech; each synset is looked up where the index says it begins."""
    for number, line in read_lines(index):
        if not line.strip() or line.startswith("  "):
            continue
        where = f"{index}, line {number}"
        match = _INDEX.fullmatch(line.rstrip())
        offsets = line.split()[-int(match.group(3)) :] if match and int(match.group(3)) else []
        if match is None or not offsets or not all(re.fullmatch(r"\d{8}", offset) for offset in offsets):
            raise ValueError(f"{where}: {quoted(line)} is no line of an index of WordNet; download it again")
        for rank, offset in enumerate(offsets, 1):
            synset = _at(data, file, offset, where)
            lemma = match.group(1).replace("_", " ")
            # The index folds case, the synset does not.
            word = next((word for word in synset.words if word.lower() == lemma), None)
            if word is None:
                raise ValueError(f"{where}: {quoted(lemma)} is not in synset {offset} of {data.name}; {RELEASE}")
            if sense := clean_sense(Sense(word, synset.gloss, synset.part_of_speech, rank), skipped):
                yield sense


def _at(data: Path, file: IO[bytes], offset: str, where: str) -> Synset:
    try:
        file.seek(int(offset))
        line = file.readline(LINE).decode()
    except (OSError, UnicodeDecodeError):
        line = ""
    if not line.startswith(f"{offset} "):
        raise ValueError(f"{where}: there is no synset {offset} in {data.name}; {RELEASE}")
    return parse_synset(line.rstrip("\r\n"), f"{data}, synset {offset}")
