"""Lists of word pairs in the forms they are published in, and lines that are none."""

from pathlib import Path

import pytest

from decone.diagnosis import words
from decone.diagnosis.words import WordPair, read_word_pairs


def write(content: str | bytes) -> Path:
    path = Path("pairs.txt")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


TWO = [WordPair("tiger", "cat", 7.35), WordPair("stock", "egg", 1.81)]


@pytest.mark.parametrize(
    "content",
    [
        "tiger cat 7.35\nstock egg 1.81\n",
        "tiger\tcat\t7.35\nstock\tegg\t1.81",
        "tiger\tcat\t7.35\r\nstock\tegg\t1.81\r\n",
        "Word 1,Word 2,Human (mean)\ntiger,cat,7.35\nstock,egg,1.81\n",
        "word1\tword2\tscore\ntiger\tcat\t7.35\n\nstock\tegg\t1.81\n",
        "\ufeff# judged by hand\n tiger ,cat , 7.35, 7, 8\nstock,egg,1.81,2,1\n",
    ],
)
def test_forms(content: str) -> None:
    assert read_word_pairs(write(content)) == TWO


def test_words_may_hold_blanks_and_separators_of_other_files() -> None:
    pairs = read_word_pairs(write("New York\tice,cream\t3\nb\u2028c\td\t-1e-3\n"))
    assert pairs == [WordPair("New York", "ice,cream", 3.0), WordPair("b\u2028c", "d", -0.001)]


def test_repeated_pairs_stay() -> None:
    assert len(read_word_pairs(write("a b 1\na b 1\nb a 1\n"))) == 3


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("tiger cat 7.35\nstock egg\n", 2),
        ("tiger cat\n", 1),
        ("tiger\tcat\tmuch\n", 1),
        ("# comment\n\ntiger\tcat\tnan\n", 3),
        ("tiger\tcat\tinf\n", 1),
        ("a\tb\t1\nc\t\t2\n", 2),
        ("a\tb\t1\nc d 2\n", 2),
        ("a\tb\tnoun\t1\n", 1),
        ("Word 1,Word 2,Human\nWord 1,Word 2,Human\n", 2),
        ("a b 1\n<script>\u202e 1\n", 2),
    ],
)
def test_a_line_that_is_no_pair_is_named(content: str, line: int) -> None:
    with pytest.raises(ValueError, match=rf"pairs.txt, line {line}: .* is not two words and a finite score") as error:
        read_word_pairs(write(content))
    assert "\n" not in str(error.value)
    assert "\u202e" not in str(error.value)


def test_a_long_line_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="line 1") as error:
        read_word_pairs(write("x" * 10**6 + "\n"))
    assert len(str(error.value)) < 300


def test_what_is_no_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="holds no word pair"):
        read_word_pairs(write("# nothing\nWord 1,Word 2,Human\n"))
    with pytest.raises(ValueError, match="binary"):
        read_word_pairs(write(b"a\0b"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read_word_pairs(write(b"\xff\xfe"))
    with pytest.raises(ValueError, match="no file"):
        read_word_pairs(Path("absent"))
    monkeypatch.setattr(words, "MAX_BYTES", 2)
    with pytest.raises(ValueError, match="too large for a list"):
        read_word_pairs(write("a b 1"))


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("EN-MEN-TR-3k.txt", 3000, WordPair("sun", "sunlight", 50.0)),
        ("EN-RG-65.txt", 65, WordPair("gem", "jewel", 3.94)),
        ("EN-WS-353-ALL.txt", 353, WordPair("love", "sex", 6.77)),
        ("EN-RW-STANFORD.txt", 2034, WordPair("squishing", "squirt", 5.88)),
    ],
)
def test_the_published_lists(name: str, count: int, first: WordPair, data: Path) -> None:
    path = data / "word-sim" / name
    if not path.is_file():
        pytest.skip(f"no {name} among the corpora")
    pairs = read_word_pairs(path)
    assert (len(pairs), pairs[0]) == (count, first)
