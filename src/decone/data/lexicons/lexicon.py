"""A lexicon of one or several sources: recognised by content, read lazily, every entry left out counted."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from decone.data.lexicons import wordnet
from decone.data.lexicons.reading import Sense, Skipped, clean_sense, first_line, part_of_speech, read_lines
from decone.files.foreign import plain, quoted

FORMATS = ("auto", "oewn", "wordnet", "wiktionary", "tsv")

LICENCES = {
    "oewn": "CC BY 4.0 and the Princeton WordNet licence",
    "wordnet": "the Princeton WordNet licence",
    "wiktionary": "CC BY-SA and GFDL",
    "tsv": "not stated",
    "given": "not stated",
}


@dataclass
class SenseSource:
    """Origin of senses: a file, a folder, or words in memory.

    Attributes:
        name: as the user called it.
        format: one of `FORMATS`, or "given" for words given in memory.
        licence: the one this kind of source is published under, to go with whatever is made of it.
        read: gives the senses, and counts in its argument what it leaves out.
        senses: how many the latest reading gave.
        skipped: what the latest reading left out, by reason.
    """

    name: str
    format: str
    licence: str
    read: Callable[[Skipped], Iterator[Sense]]
    senses: int = 0
    skipped: Skipped = field(default_factory=Counter)


class Lexicon:
    """Senses of words; each iteration reads the sources anew, one after another, without keeping them.

    Args:
        sources: in the order of their senses.

    Example:
        >>> lexicon = Lexicon.of({"cone": ["a solid that narrows to a point", "the seed case of a pine"]})
        >>> [(sense.word, sense.source_rank) for sense in lexicon + Lexicon.of({"ice": "frozen water"})]
        [('cone', 1), ('cone', 2), ('ice', 1)]
    """

    def __init__(self, sources: Sequence[SenseSource]) -> None:
        self.sources = tuple(sources)

    @classmethod
    def open(cls, path: Path, format: str = "auto", language: str | None = "en", forms: bool = True) -> "Lexicon":
        """Opens a file or a folder of WordNet; only its first line is read yet.

        Args:
            path: the file, plain or packed with gzip or xz, or the folder.
            format: one of `FORMATS`; "auto" looks at the content.
            language: of Wiktionary, the `lang_code` of entries to read; None for all.
            forms: of Wiktionary, read also senses that only name the word this one is a form of.

        Raises:
            ValueError: there is no such file, or its format cannot be recognised.
        """
        if format not in FORMATS:
            raise ValueError(f"there is no format {quoted(format)}; choose one of {', '.join(FORMATS)}")
        kind = recognise(path) if format == "auto" else format
        if not path.is_dir():
            first_line(path)  # what cannot be read at all is said at once
        elif kind != "wordnet":
            raise ValueError(f"{path} is a folder; name the lexicon's file")
        readers: dict[str, Callable[[Skipped], Iterator[Sense]]] = {
            "oewn": partial(wordnet.table_senses, path),
            "wordnet": partial(wordnet.database_senses, path),
            "wiktionary": partial(wiktionary_senses, path, language=language, forms=forms),
            "tsv": partial(tsv_senses, path),
        }
        return cls([SenseSource(str(path), kind, LICENCES[kind], readers[kind])])

    @classmethod
    def of(cls, glosses: Mapping[str, str | Sequence[str]], name: str = "given") -> "Lexicon":
        """A lexicon of words and their glosses in memory."""

        def read(skipped: Skipped) -> Iterator[Sense]:
            for word, texts in glosses.items():
                for rank, gloss in enumerate([texts] if isinstance(texts, str) else texts, 1):
                    if sense := clean_sense(Sense(word, gloss, source_rank=rank), skipped):
                        yield sense

        return cls([SenseSource(name, "given", LICENCES["given"], read)])

    def __add__(self, second: "Lexicon") -> "Lexicon":
        return Lexicon(self.sources + second.sources)

    def __iter__(self) -> Iterator[Sense]:
        """The senses of all sources; ValueError when a source has none that can be used."""
        for source in self.sources:
            source.senses, source.skipped = 0, Counter()
            for sense in source.read(source.skipped):
                source.senses += 1
                yield sense
            if not source.senses:
                raise ValueError(_emptiness(source))


def recognise(path: Path) -> str:
    """Recognises the format of a lexicon by its first line.

    Raises:
        ValueError: it cannot be read, or is of none of the formats; the message says what they look like.
    """
    if path.is_dir():
        return "wordnet"
    number, line = first_line(path)
    if line.lstrip().startswith("{"):
        return "wiktionary"
    if wordnet.is_table_header(line):
        return "oewn"
    if wordnet.SYNSET.match(line) or (line.startswith("  1 ") and "WordNet" in _beginning(path)):
        return "wordnet"
    if "\t" in line:
        return "tsv"
    if wordnet.is_index(line):
        raise ValueError(f"{path}, line {number}: an index of WordNet holds no glosses; name the folder it lies in")
    raise ValueError(
        f"{path}, line {number}: {quoted(line)} begins no lexicon; give word<TAB>gloss, a table of Open English "
        "WordNet, a data file or folder of WordNet, or JSON lines of Wiktionary"
    )


def _beginning(path: Path) -> str:
    """Beginning of a file: that of WordNet is its licence, in numbered lines."""
    return "".join(line[:100] for _, (_, line) in zip(range(40), read_lines(path), strict=False))


def _emptiness(source: SenseSource) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in source.skipped.most_common(5))
    skipped = f" (left out: {reasons})" if reasons else ""
    mend = "pass --language CODE or name another file" if "another language" in source.skipped else "name another file"
    return f"{source.name} holds no sense that can be used{skipped}; {mend}"


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
