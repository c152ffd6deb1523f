"""Princeton WordNet's own database files (wndb): data.noun and the like, with the index files beside them or alone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from decone.data.lexicons.lines import read_lines
from decone.data.lexicons.sense import Sense, Skipped, checked, part_of_speech
from decone.files.folder import inside
from decone.files.foreign import plain

PARTS = ("noun", "verb", "adj", "adv")
LINE = 1 << 20  # bytes; the longest line published has 13,000
SYNSET = re.compile(r"(\d{8}) \d{2} ([nvasr]) ([0-9a-f]{2}) ")
_INDEX = re.compile(r"(\S+) ([nvar]) (\d{1,4}) \S.*")
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # of adjectives: where they may stand
RELEASE = "take all files from one release of WordNet"


class Synset(NamedTuple):
    """A line of a data file."""

    part_of_speech: str
    words: list[str]
    gloss: str


def is_index(line: str) -> bool:
    """Whether a line is of an index file."""
    return _INDEX.fullmatch(line.rstrip()) is not None


def senses(path: Path, skipped: Skipped) -> Iterator[Sense]:
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
                synset = parse(line, f"{path}, line {number}")
                for word in synset.words:
                    if found := checked(Sense(word, synset.gloss, synset.part_of_speech, number), skipped):
                        yield found
        return
    parts = [part for part in PARTS if inside(path, f"index.{part}").is_file()]
    if not parts:
        raise ValueError(f"{path} holds no index.noun, index.verb, index.adj or index.adv; name WordNet's folder dict")
    for part in parts:
        data, index = inside(path, f"data.{part}"), inside(path, f"index.{part}")
        if not data.is_file():
            raise ValueError(f"{path} holds index.{part} but no data.{part}; {RELEASE}")
        with data.open("rb") as file:
            yield from _indexed(index, data, file, skipped)


def parse(line: str, where: str) -> Synset:
    """Reads a line of a data file; the definition ends where the first example begins.

    Raises:
        ValueError: the line is none; the message begins with `where`.

    Example:
        >>> parse('00001740 03 n 01 living_thing 0 000 | what is alive; "a living thing"', "line 30")
        Synset(part_of_speech='noun', words=['living thing'], gloss='what is alive')
    """
    head, bar, gloss = line.partition(" | ")
    found = SYNSET.match(head)
    fields = head[found.end() :].split(" ") if found else []
    count = int(found.group(3), 16) if found else 0
    if found is None or not bar or not 0 < count <= len(fields) // 2:
        raise ValueError(f"{where}: {plain(line, 60)!r} is no line of a data file of WordNet; choose another --format")
    words = [_MARKER.sub("", word).replace("_", " ") for word in fields[: 2 * count : 2]]
    return Synset(part_of_speech(found.group(2)), words, gloss.strip().partition('; "')[0].rstrip("; "))


def _indexed(index: Path, data: Path, file: IO[bytes], skipped: Skipped) -> Iterator[Sense]:
    """The senses of one part of speech; each synset is looked up where the index says it begins."""
    for number, line in read_lines(index):
        if not line.strip() or line.startswith("  "):
            continue
        where = f"{index}, line {number}"
        found = _INDEX.fullmatch(line.rstrip())
        offsets = line.split()[-int(found.group(3)) :] if found and int(found.group(3)) else []
        if found is None or not offsets or not all(re.fullmatch(r"\d{8}", offset) for offset in offsets):
            raise ValueError(f"{where}: {plain(line, 60)!r} is no line of an index of WordNet; download it again")
        for rank, offset in enumerate(offsets, 1):
            synset = _at(data, file, offset, where)
            lemma = found.group(1).replace("_", " ")
            # The index folds case, the synset does not.
            word = next((word for word in synset.words if word.lower() == lemma), None)
            if word is None:
                raise ValueError(f"{where}: {plain(lemma, 60)!r} is not in synset {offset} of {data.name}; {RELEASE}")
            if sense := checked(Sense(word, synset.gloss, synset.part_of_speech, rank), skipped):
                yield sense


def _at(data: Path, file: IO[bytes], offset: str, where: str) -> Synset:
    try:
        file.seek(int(offset))
        line = file.readline(LINE).decode()
    except (OSError, UnicodeDecodeError):
        line = ""
    if not line.startswith(f"{offset} "):
        raise ValueError(f"{where}: there is no synset {offset} in {data.name}; {RELEASE}")
    return parse(line.rstrip("\r\n"), f"{data}, synset {offset}")
