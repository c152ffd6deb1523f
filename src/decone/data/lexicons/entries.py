"""Lexicons of one entry a line: tables of one's own, and Wiktionary as kaikki.org publishes wiktextract's output."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def tsv_senses(path: Path, skipped: Skipped) -> Iterator[Sense]:
    """Senses of a table (word, tab, gloss) in the order of the file; several lines of a word are several senses.

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


# For extracts without `form_of`: a gloss that is nothing but a grammatical form of another word.
_KINDS = (
    "form|spelling|plural|singular|participle|gerund|tense|past|present|comparative|superlative|genitive|possessive|"
    "abbreviation|contraction|initialism|acronym|misspelling|diminutive|feminine|masculine"
)
_FORM = re.compile(rf"(?:[\w()/,-]+ ){{0,8}}(?:{_KINDS}) of (?:the )?[\"“']?(\w[\w'\u2019-]*)[\"”']?\.?", re.IGNORECASE)


def wiktionary_senses(path: Path, skipped: Skipped, language: str | None = "en", forms: bool = True) -> Iterator[Sense]:
    """Senses of all entries of Wiktionary in the order of the file; one line is in memory at a time.

    Args:
        path: JSON lines, plain, gzip or xz.
        skipped: counts entries and senses left out.
        language: the `lang_code` of entries to read; None for all.
        forms: yield also senses that only say of which other word this one is a form.

    Raises:
        ValueError: the file cannot be read, or a line of it is not the JSON object of an entry.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        entry = _object(path, number, line)
        if "redirect" in entry:
            skipped["redirect"] += 1
            continue
        word, items = entry.get("word"), entry.get("senses", [])
        if not isinstance(word, str) or not isinstance(items, list):
            raise ValueError(
                f"{path}, line {number}: no entry of Wiktionary, which has a word and a list of senses; choose another "
                "--format, or download the file again"
            )
        if language is not None and entry.get("lang_code") != language:
            skipped["another language"] += 1
            continue
        speech = part_of_speech(str(entry.get("pos") or ""))
        for rank, item in enumerate(items, 1):
            gloss, origin = _gloss(item)
            origin = "" if origin == word else origin
            if origin and not forms:
                skipped["form of another word"] += 1
                continue
            if sense := clean_sense(Sense(word, gloss, speech, rank, origin), skipped):
                yield sense


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    where = f"{path}, line {number}"
    try:
        entry = json.loads(line)
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply to be read; download the file again") from None
    except ValueError as error:
        raise ValueError(
            f"{where}: not JSON ({plain(error, 100)}); each line must be one entry, so download the file again"
        ) from None
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: not a JSON object; each line must be one entry of Wiktionary")
    return entry


def _gloss(item: Any) -> tuple[str, str]:
    """The gloss of a sense, behind that of the sense it narrows, and the word it is only a form of."""
    if not isinstance(item, dict):
        return "", ""
    glosses = item.get("glosses")
    texts = [text for text in glosses if isinstance(text, str)] if isinstance(glosses, list) else []
    gloss = ": ".join([text.rstrip(" :.;") for text in texts[:-1]] + texts[-1:])
    for key in ("form_of", "alt_of"):
        origins = item.get(key)
        for origin in origins if isinstance(origins, list) else []:
            if isinstance(origin, dict) and isinstance(origin.get("word"), str):
                return gloss, " ".join(origin["word"].split())
    match = _FORM.fullmatch(gloss) if len(gloss) < 200 else None
    return gloss, match.group(1) if match else ""
