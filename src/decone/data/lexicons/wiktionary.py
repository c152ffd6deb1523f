"""Wiktionary as JSON lines, one entry per line, as kaikki.org publishes the output of wiktextract."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decone.data.lexicons.reading import Sense, Skipped, clean_sense, part_of_speech, read_lines
from decone.files.foreign import plain

# For extracts without `form_of`: a gloss that is nothing but a grammatical form of another word.
_KINDS = (
    "form|spelling|plural|singular|participle|gerund|tense|past|present|comparative|superlative|genitive|possessive|"
    "abbreviation|contraction|initialism|acronym|misspelling|diminutive|feminine|masculine"
)
_FORM = re.compile(rf"(?:[\w()/,-]+ ){{0,8}}(?:{_KINDS}) of (?:the )?[\"“']?(\w[\w'\u2019-]*)[\"”']?\.?", re.IGNORECASE)


def senses(path: Path, skipped: Skipped, language: str | None = "en", forms: bool = True) -> Iterator[Sense]:
    """The senses of all entries in the order of the file; one line is in memory at a time.

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
