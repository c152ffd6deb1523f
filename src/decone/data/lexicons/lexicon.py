"""A lexicon of one or several sources: recognised by content, read lazily, every entry left out counted."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from decone.data.lexicons import entries, wordnet
from decone.data.lexicons.reading import Sense, Skipped, clean_sense, first_line, read_lines
from decone.files.foreign import plain

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
            raise ValueError(f"there is no format {plain(format, 40)!r}; choose one of {', '.join(FORMATS)}")
        kind = recognise(path) if format == "auto" else format
        if not path.is_dir():
            first_line(path)  # what cannot be read at all is said at once
        elif kind != "wordnet":
            raise ValueError(f"{path} is a folder; name the lexicon's file")
        readers: dict[str, Callable[[Skipped], Iterator[Sense]]] = {
            "oewn": partial(wordnet.table_senses, path),
            "wordnet": partial(wordnet.database_senses, path),
            "wiktionary": partial(entries.wiktionary_senses, path, language=language, forms=forms),
            "tsv": partial(entries.tsv_senses, path),
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
        f"{path}, line {number}: {plain(line, 60)!r} begins no lexicon; give word<TAB>gloss, a table of Open English "
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
