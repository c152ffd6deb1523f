"""A table of one's own: word, tab, gloss; a header may name the columns and add the part of speech."""

from collections.abc import Iterator
from pathlib import Path

from decone.data.lexicons.reading import Sense, Skipped, clean_sense, part_of_speech, read_lines
from decone.files.foreign import plain

NAMES = {
    "word": "word",
    "lemma": "word",
    "gloss": "gloss",
    "definition": "gloss",
    "pos": "part of speech",
    "part_of_speech": "part of speech",
}


def senses(path: Path, skipped: Skipped) -> Iterator[Sense]:
    """The senses in the order of the file; several lines of a word are several senses.

    Args:
        path: UTF-8 text, plain, gzip or xz. The first line is a header where it holds nothing but the names word or
            lemma, gloss or definition, pos or part_of_speech, the first two at least.
        skipped: counts rows left out, those with more or fewer columns among them.

    Raises:
        ValueError: the file cannot be read, its header has columns that are not known, or no row has the right number.
    """
    columns, faulty, good = ["word", "gloss"], 0, False
    for number, line in read_lines(path):
        fields = line.split("\t")
        if number == 1 and (header := _header(path, fields)):
            columns = header
        elif len(fields) == len(columns):
            good = True
            row = dict(zip(columns, fields, strict=True))
            speech = part_of_speech(row.get("part of speech", "").strip())
            if sense := clean_sense(Sense(row["word"], row["gloss"], speech, number), skipped):
                yield sense
        elif line.strip():
            skipped["wrong number of columns"] += 1
            faulty = faulty or number
    if faulty and not good:
        raise ValueError(f"{path}, line {faulty}: not {len(columns)} columns separated by tabs; write word<TAB>gloss")


def _header(path: Path, fields: list[str]) -> list[str]:
    """Columns named by a first line; none where it is a row."""
    names = [NAMES.get(field.strip().lower(), "") for field in fields]
    complete = {"word", "gloss"} <= set(names)
    if complete and all(names) and len(set(names)) == len(names):
        return names
    if len(fields) > 2 and names[0] == "word":  # with two columns it may be the entry of the word "word"
        raise ValueError(
            f"{path}, line 1: the columns {plain(', '.join(fields))} are not known; name them word, gloss and, if you "
            "like, pos, each once"
        )
    return []
