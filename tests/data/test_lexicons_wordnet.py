"""WordNet: the table of the Open English one, and Princeton's own files."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from decone.data.lexicons import Lexicon, Sense
from decone.data.lexicons.wordnet import parse_synset

LICENCE = "  1 This software and database is being provided to you, by  \n  2 Princeton University, WordNet 3.1  \n"
NOUNS = [
    ("05 n 02 ice 0 water_ice 1 001 @ 00000000 n 0000", 'water frozen; "ice on the pond"; "a block of ice"'),
    ("15 n 01 China 0 000", "a country in Asia"),
    ("06 n 02 china 0 chinaware 0 000", "dishes of porcelain; high quality"),
    ("06 n 01 ice 0 000", "a frozen dessert"),
]
ADJECTIVES = [("00 s 02 galore(ip) 0 abundant 0 000", 'in great numbers; "whisky galore"')]


def database(folder: Path, part: str, rows: list[tuple[str, str]], index: dict[str, list[int]]) -> None:
    """Writes data.PART and index.PART with true offsets; the index names rows by number."""
    folder.mkdir(exist_ok=True)
    content, offsets = LICENCE, []
    for head, gloss in rows:
        offsets.append(len(content))
        content += f"{len(content):08d} {head} | {gloss}  \n"
    (folder / f"data.{part}").write_text(content)
    entries = [
        f"{lemma} {part[0]} {len(rows)} 1 @ {len(rows)} 0 {' '.join(f'{offsets[row]:08d}' for row in rows)}  \n"
        for lemma, rows in index.items()
    ]
    (folder / f"index.{part}").write_text(LICENCE + "".join(entries))


@pytest.fixture
def folder() -> Path:
    path = Path("dict")
    database(path, "noun", NOUNS, {"china": [2, 1], "ice": [0, 3], "water_ice": [0]})
    database(path, "adj", ADJECTIVES, {"galore": [0]})
    return path


def test_a_folder_in_the_order_of_its_index(folder: Path) -> None:
    lexicon = Lexicon.open(folder)
    assert list(lexicon) == [
        Sense("china", "dishes of porcelain; high quality", "noun", 1),
        Sense("China", "a country in Asia", "noun", 2),
        Sense("ice", "water frozen", "noun", 1),
        Sense("ice", "a frozen dessert", "noun", 2),
        Sense("water ice", "water frozen", "noun", 1),
        Sense("galore", "in great numbers", "adjective", 1),
    ]
    assert lexicon.sources[0].format == "wordnet"
    assert "Princeton" in lexicon.sources[0].licence


def test_a_data_file_alone_in_its_own_order(folder: Path) -> None:
    words = [(sense.word, sense.source_rank) for sense in Lexicon.open(folder / "data.noun")]
    assert words == [("ice", 3), ("water ice", 3), ("China", 4), ("china", 5), ("chinaware", 5), ("ice", 6)]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("data.noun", "a country", "a large country", "index.noun, line 3: there is no synset .* in data.noun"),
        ("data.noun", "06 n 01 ice", "06 n 01 ace", "index.noun, line 4: 'ice' is not in synset .* of data.noun"),
        ("data.noun", "05 n 02 ice", "05 n 99 ice", "data.noun, synset .* is no line of a data file"),
        ("index.noun", "ice n 2", "ice n two", "index.noun, line 4: .* is no line of an index of WordNet"),
        ("index.noun", "ice n 2", "ice n 9", "index.noun, line 4: .* is no line of an index of WordNet"),
    ],
)
def test_files_that_do_not_fit(folder: Path, file: str, old: str, new: str, message: str) -> None:
    path = folder / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        list(Lexicon.open(folder))


def test_a_data_file_that_is_missing_or_elsewhere(folder: Path) -> None:
    shutil.move(folder / "data.adj", "data.adj")
    with pytest.raises(ValueError, match=r"holds index\.adj but no data\.adj"):
        list(Lexicon.open(folder))
    (folder / "data.adj").symlink_to(Path("data.adj").absolute())
    with pytest.raises(ValueError, match="outside it; that is not opened"):
        list(Lexicon.open(folder))


@pytest.mark.parametrize("line", ["", "00000000", "00000000 05 n 00 000 | x", "00000000 05 n 01 ice 0 000", "x" * 9999])
def test_a_line_that_is_no_synset(line: str) -> None:
    with pytest.raises(ValueError, match=r"here: .* is no line of a data file") as error:
        parse_synset(line, "here")
    assert len(str(error.value)) < 200


def test_the_open_english_table(data: Path) -> None:
    path = data / "wordnet" / "oewn_lemma_glosses.tsv.xz"
    if not path.is_file():
        pytest.skip("no table of Open English WordNet among the corpora")
    lexicon = Lexicon.open(path)
    words, parts, ranks = set[str](), Counter[str](), dict[tuple[str, str], int]()
    for sense in lexicon:
        words.add(sense.word)
        parts[sense.part_of_speech] += 1
        assert sense.gloss
        assert sense.source_rank >= 1
        ranks[sense.word, sense.part_of_speech] = sense.source_rank
    assert (lexicon.sources[0].senses, len(words)) == (185_152, 128_044)
    assert not lexicon.sources[0].skipped
    assert set(parts) == {"noun", "verb", "adjective", "adverb"}
    assert ranks["cone", "noun"] == 4


def test_rows_of_the_table_that_are_none() -> None:
    rows = [
        "lemma\tpos\tsense\tsynset\tgloss",
        "ice\tn-1\t1\t1-n\tfrozen water",
        "ice\tn\t2",
        "\tn\t1\t1-n\tx",
        "ice\tn\t?\t1\ty",
    ]
    Path("table").write_text("\n".join(rows))
    lexicon = Lexicon.open(Path("table"))
    assert list(lexicon) == [Sense("ice", "frozen water", "noun", 1), Sense("ice", "y", "noun", 5)]
    assert lexicon.sources[0].skipped == {"wrong number of columns": 1, "without a word": 1}
