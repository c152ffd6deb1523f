"""Wiktionary as JSON lines: languages, forms of other words, nested glosses, streams of any length."""

import gzip
import json
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decone.data.lexicons import Lexicon, Sense


def entry(word: str, *senses: Any, lang: str = "en", pos: str = "noun", **more: Any) -> dict[str, Any]:
    return {"word": word, "lang_code": lang, "pos": pos, "senses": list(senses), **more}


def write(*entries: Any) -> Path:
    path = Path("entries.jsonl")
    path.write_text("".join(json.dumps(one) + "\n" for one in entries))
    return path


def says(*glosses: str, **more: Any) -> dict[str, Any]:
    return {"glosses": list(glosses), **more}


def test_entries() -> None:
    path = write(
        {"title": "Ice", "redirect": "ice"},
        entry(
            "ice", says("Frozen\nwater."), says("Things made of sugar:", "A frozen dessert."), {"tags": ["no-gloss"]}
        ),
        entry("ice", says("To cool."), pos="verb"),
        entry("Eis", says("gefrorenes Wasser"), lang="de"),
        entry("\ud83d", says("half a character")),
    )
    lexicon = Lexicon.open(path)
    assert list(lexicon) == [
        Sense("ice", "Frozen water.", "noun", 1),
        Sense("ice", "Things made of sugar: A frozen dessert.", "noun", 2),
        Sense("ice", "To cool.", "verb", 1),
    ]
    skipped = {"redirect": 1, "without a gloss": 1, "another language": 1, "not Unicode text": 1}
    assert lexicon.sources[0].skipped == skipped
    assert [sense.word for sense in Lexicon.open(path, language="de")] == ["Eis"]
    assert len(list(Lexicon.open(path, language=None))) == 4
    with pytest.raises(ValueError, match=r"no sense that can be used \(left out: 4 another language.*pass --language"):
        list(Lexicon.open(path, language="fr"))


@pytest.mark.parametrize(
    ("sense", "origin"),
    [
        (says("plural of ice", form_of=[{"word": "ice"}], tags=["form-of"]), "ice"),
        (says("Dated spelling of ice.", alt_of=[{"word": "ice", "extra": "x"}]), "ice"),
        (says("third-person singular simple present of ice"), "ice"),
        (says("Alternative form of “ice”."), "ice"),
        (says("past tense and past participle of ice"), "ice"),
        (says("A form of water that is solid"), ""),
        (says("The plural of majesty."), "majesty"),
        (says("frozen water", form_of="ice"), ""),
        (says("frozen water", form_of=[{"word": 3}, "x"]), ""),
        (says("plural of ices", form_of=[{"word": "ices"}]), ""),  # of itself
    ],
)
def test_forms_of_other_words(sense: dict[str, Any], origin: str) -> None:
    path = write(entry("ices", sense), entry("snow", says("white")))
    assert next(iter(Lexicon.open(path))).form_of == origin
    lexicon = Lexicon.open(path, forms=False)
    assert len(list(lexicon)) == (1 if origin else 2)
    assert lexicon.sources[0].skipped["form of another word"] == bool(origin)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"word": "ice", "senses": [', "line 2: not JSON"),
        ("[1, 2]", "line 2: not a JSON object"),
        ('{"id": 3}', "line 2: no entry of Wiktionary, which has a word and a list of senses"),
        ('{"word": "ice", "senses": {}}', "line 2: no entry of Wiktionary"),
        ("[" * 200_000, "line 2: nested too deeply"),
        ('{"word": ' + "9" * 9999 + "}", "line 2: not JSON"),
        ("\x1b[31m", "line 2: not JSON"),
    ],
)
def test_a_line_that_is_no_entry(line: str, message: str) -> None:
    path = write(entry("ice", says("frozen water")))
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=rf"entries\.jsonl, {message}") as error:
        list(Lexicon.open(path))
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("name", "language", "senses", "words"),
    [
        ("enwiktionary_sample.jsonl", "en", 5077, 1225),
        ("kaikki_en-en_extract.jsonl", "en", 29, 9),
        ("kaikki_de-de_extract.jsonl", None, 90, 41),
    ],
)
def test_the_published_samples(name: str, language: str | None, senses: int, words: int, data: Path) -> None:
    path = data / "wiktionary" / name
    if not path.is_file():
        pytest.skip(f"no {name} among the corpora")
    found = list(Lexicon.open(path, language=language))
    assert (len(found), len({sense.word for sense in found})) == (senses, words)


def stream(path: Path, size: int) -> int:
    """Writes packed entries of about 2 kB each, `size` bytes in all; gives their number."""
    examples = [{"text": f"{place} {'an example of some length ' * 8}"} for place in range(8)]
    with gzip.open(path, "wt", compresslevel=1) as file:
        written = count = 0
        while written < size:
            row = json.dumps(entry(f"w{count}", says(f"gloss {count}", examples=examples)))
            written += file.write(row + "\n")
            count += 1
    return count


def peak(senses: Iterator[Sense]) -> tuple[int, int]:
    """How many senses there are, and the most memory that reading them took."""
    next(senses)
    tracemalloc.start()
    try:
        count = 1 + sum(1 for _ in senses)
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_stream() -> None:
    taken = []
    for size in (3 << 20, 9 << 20):
        count = stream(Path("long.gz"), size)
        found, most = peak(iter(Lexicon.open(Path("long.gz"))))
        assert found == count
        taken.append(most)
    assert taken[1] < 1.2 * taken[0]
    assert taken[1] < 12 << 20


@pytest.mark.slow
def test_a_long_stream_in_constant_memory() -> None:
    count = stream(Path("long.gz"), 200 << 20)
    begun = time.process_time()
    assert sum(1 for _ in Lexicon.open(Path("long.gz"))) == count
    assert time.process_time() - begun < 60
    assert peak(iter(Lexicon.open(Path("long.gz"))))[1] < 12 << 20
