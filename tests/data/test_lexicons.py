"""Lexicons: what they are recognised by, tables of one's own, and files that are none."""

import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from decone.data.lexicons import Lexicon, Sense, reading, recognise
from decone.data.lexicons.reading import read_lines

TWO = "ice\tfrozen water\ncone\ta solid that narrows to a point\n"
OEWN = "lemma\tpos\tsense\tsynset\tgloss\texamples\nice\tn\t1\t1-n\tfrozen water\t\n"
ENTRY = '{"word": "ice", "lang_code": "en", "pos": "noun", "senses": [{"glosses": ["Frozen water."]}]}\n'
DATA = '00000000 27 n 01 ice 0 000 | frozen water; "ice on the lake"\n'


def write(content: str | bytes, name: str = "words.txt") -> Path:
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize(
    ("content", "format"),
    [(TWO, "tsv"), (OEWN, "oewn"), (ENTRY, "wiktionary"), (DATA, "wordnet"), ("\n\n" + TWO, "tsv")],
)
def test_the_format_is_told_by_content(content: str, format: str, pack: type[bytes]) -> None:
    path = write(pack(content.encode()), "named-like-nothing")
    lexicon = Lexicon.open(path)
    assert (recognise(path), lexicon.sources[0].format) == (format, format)
    first = next(iter(lexicon))
    assert (first.word, first.gloss.lower().rstrip(".")) == ("ice", "frozen water")
    assert list(lexicon) == list(Lexicon.open(path, format))  # again from the start, and the same when forced


def test_a_table_of_ones_own() -> None:
    table = (
        "\ufeffpos\tDefinition\tword\r\nn\ta cold  treat \tice cream\r\n\r\n\tno word\t\r\nv\t\tice\r\n"
        + "x\ty\r\n"
        + "n\tz\tice"
    )
    lexicon = Lexicon.open(write(table))
    assert list(lexicon) == [Sense("ice cream", "a cold treat", "noun", 2), Sense("ice", "z", "noun", 7)]
    source = lexicon.sources[0]
    assert source.senses == 2
    assert source.skipped == {"without a word": 1, "without a gloss": 1, "wrong number of columns": 1}
    words = "word\ta unit of language\nword\ta promise\n"  # an entry of its own, no header
    assert [sense.gloss for sense in Lexicon.open(write(words))] == ["a unit of language", "a promise"]


def test_what_cannot_be_used_is_counted() -> None:
    rows = ["ice\tfrozen water", "x" * 201 + "\tlong", "long\t" + "y" * 20_001, "a\tb\tc", "\t", "tab"]
    lexicon = Lexicon.open(write("\n".join(rows)))
    assert [sense.word for sense in lexicon] == ["ice"]
    assert sum(lexicon.sources[0].skipped.values()) == 5
    assert lexicon.sources[0].skipped["wrong number of columns"] == 2


def test_lexicons_follow_one_another() -> None:
    own = Lexicon.of({"ice": ["frozen water", " \n"], "\ud800": "half a character", "cone": "a shape"})
    both = own + Lexicon.open(write(TWO))
    assert [(sense.word, sense.gloss[:6]) for sense in both] == [
        ("ice", "frozen"),
        ("cone", "a shap"),
        ("ice", "frozen"),
        ("cone", "a soli"),
    ]
    assert [source.senses for source in both.sources] == [2, 2]
    assert both.sources[0].skipped == Counter({"without a gloss": 1, "not Unicode text": 1})


@pytest.mark.parametrize(
    ("content", "format", "message"),
    [
        (b"", "auto", "words.txt is empty; name a lexicon"),
        (b"\xef\xbb\xbf", "auto", "words.txt is empty"),
        (b" \n\n \n", "tsv", "words.txt is empty"),
        (b"just a text\n", "auto", "words.txt, line 1: 'just a text' begins no lexicon; give word<TAB>gloss"),
        (b"just a text\nof lines\n", "tsv", "words.txt, line 1: not 2 columns separated by tabs"),
        (b"ice\tfrozen\nGr\xfc\xdfe\thello\n", "auto", "words.txt, line 2: not UTF-8 (byte 2 of the line)"),
        (b"ice\tfrozen\na\0b\tc\n", "auto", "words.txt, line 2: the file is binary"),
        (b"ice\t\n", "auto", "holds no sense that can be used (left out: 1 without a gloss)"),
        (b"word\tgloss\n", "auto", "holds no sense that can be used; name another file"),
        (b"word\tmeaning\tpos\nice\tfrozen\tn\n", "auto", "line 1: the columns word, meaning, pos are not known"),
        (TWO.encode(), "oewn", "words.txt, line 1: the columns are ice, frozen water; a table of Open English"),
        (TWO.encode(), "wordnet", "words.txt, line 1: 'ice\\tfrozen water' is no line of a data file of WordNet"),
        (TWO.encode(), "wiktionary", "words.txt, line 1: not JSON"),
        (TWO.encode(), "yaml", "there is no format 'yaml'; choose one of auto, oewn, wordnet, wiktionary, tsv"),
        (OEWN.replace("examples", "exampels").encode(), "auto", "line 1: the columns are lemma, pos, sense, synset"),
        (b"BZh91AY", "auto", "words.txt is packed with bzip2; unpack it"),
        (b"ice n 1 0 1 0 00000000  \n", "auto", "an index of WordNet holds no glosses; name the folder"),
    ],
)
def test_what_is_no_lexicon_is_refused_in_one_sentence(content: bytes, format: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        list(Lexicon.open(write(content), format))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file absent"):
        Lexicon.open(Path("absent"))
    with pytest.raises(ValueError, match="is a folder; name the lexicon's file"):
        Lexicon.open(tmp_path, "tsv")
    with pytest.raises(ValueError, match=r"holds no index\.noun"):
        list(Lexicon.open(tmp_path))
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")
        with pytest.raises(ValueError, match="not an ordinary file"):
            Lexicon.open(Path("pipe"))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_an_archive_that_is_cut_or_damaged(pack: type[bytes]) -> None:
    body = os.urandom(30_000).hex()
    whole = pack("".join(f"{body[place : place + 6]}\tgloss\n" for place in range(0, 60_000, 6)).encode())
    lexicon = Lexicon.open(write(whole))
    assert len(list(lexicon)) == 10_000
    with pytest.raises(ValueError, match=r"words\.txt, line \d+: the packed file ends in the middle"):
        list(Lexicon.open(write(whole[:-20]), "tsv"))
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 255
    with pytest.raises(ValueError, match=r"words\.txt, line \d+: the (file cannot be read|packed file)"):
        list(Lexicon.open(write(bytes(broken)), "tsv"))


def test_several_streams_in_one_file() -> None:
    for pack in (gzip.compress, lzma.compress):
        parts = pack(b"ice\tfrozen ") + pack(b"water\ncone\tshape")
        assert [sense.gloss for sense in Lexicon.open(write(parts))] == ["frozen water", "shape"]


def test_archives_of_files_are_named() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.tsv", TWO)
    with pytest.raises(ValueError, match="is a zip archive; unpack it"):
        Lexicon.open(write(made.getvalue()))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("dict/data.noun"), io.BytesIO())
    with pytest.raises(ValueError, match="line 1: the file is binary, no lexicon; where it is an archive"):
        Lexicon.open(write(made.getvalue()))


def test_a_bomb_is_refused_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = lzma.compress(bytes(40_000_000), preset=1)
    with pytest.raises(ValueError, match="line 1: the line is longer than 32 MiB"):
        list(read_lines(write(packed)))
    monkeypatch.setattr(reading, "SMALL", 1 << 16)
    packed = gzip.compress(b"\n" * 5_000_000)
    with pytest.raises(ValueError, match=r"unpacks to more than .* bytes, over 200 times its size"):
        list(read_lines(write(packed)))
    monkeypatch.setattr(reading, "MEMORY", 1 << 20)
    with pytest.raises(ValueError, match="cannot be read"):
        list(read_lines(write(lzma.compress(b"a\tb", preset=9))))


def test_a_long_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LINE_LIMIT", 1000)
    monkeypatch.setattr(reading, "BLOCK", 64)
    with pytest.raises(ValueError, match="line 2: the line is longer"):
        list(read_lines(write("a\tb\n" + "x" * 2000)))
    content = [f"{number}\tgloss {'é' * number}" for number in range(300)]
    assert [line for _, line in read_lines(write("\n".join(content)))] == content  # blocks cut lines and characters
