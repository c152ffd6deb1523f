"""Open English WordNet as one table, a row per sense of a lemma: lemma, pos, sense, synset, gloss, examples."""

from collections.abc import Iterator
from pathlib import Path

from decone.data.lexicons.lines import read_lines
from decone.data.lexicons.sense import Sense, Skipped, checked, part_of_speech
from decone.files.foreign import plain

COLUMNS = ("lemma", "pos", "sense", "synset", "gloss", "examples")
NEEDED = ("lemma", "pos", "sense", "gloss")


def is_header(line: str) -> bool:
    """Whether a line names the columns of such a table."""
    return set(NEEDED) <= set(line.split("\t"))


def senses(path: Path, skipped: Skipped) -> Iterator[Sense]:
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
    missing = [name for name in NEEDED if name not in columns]
    if unknown or missing or len(set(columns)) < len(columns):
        raise ValueError(
            f"{path}, line 1: the columns are {plain(', '.join(columns))}; a table of Open English WordNet has "
            f"{', '.join(COLUMNS)}, and for one of your own use --format tsv"
        )
    lemma, pos, sense, gloss = (columns.index(name) for name in NEEDED)
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(columns):
            if line.strip():
                skipped["wrong number of columns"] += 1
            continue
        rank = int(fields[sense]) if fields[sense].isdecimal() and len(fields[sense]) < 10 else number
        found = checked(Sense(fields[lemma], fields[gloss], part_of_speech(fields[pos]), rank), skipped)
        if found is not None:
            yield found
